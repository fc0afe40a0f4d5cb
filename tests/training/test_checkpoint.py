"""Fits that are killed, and taken up from a file."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, EpochScoring, LRScheduler, PrintLog
from torch import nn
from torch.optim import SGD, Adam

from skood import (
    DUMDetector,
    NegSampleVAE,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    SimCLREncoder,
)
from skood.networks import MLP

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4)).astype(np.float32)
Y = np.repeat([0, 1, -1], 20)
SMALL = {"hidden_sizes": (8,), "batch_size": 16, "max_epochs": 3, "random_state": 0, "device": "cpu"}
IMAGES = {"image_shape": (1, 2, 2), "network": "wrn-10-1"}
# Without it, a threshold on held-out rows takes three more fits: "dum", "adapters" and one of the VAEs have them.
SHARE = {"contamination": 0.1}
ESTIMATORS = {
    "dum": DUMDetector(**SMALL),
    "vae": NegSampleVAE(["generated", "auxiliary"], **SMALL, **SHARE, weight_average=0.9),
    "vae-stopped-early": NegSampleVAE(**SMALL, weight_average=0.9, early_stopping=True, n_iter_no_change=1),
    "reject-kmeans": RejectClassDetector(**SMALL, **SHARE, class_epochs=2, pseudo_labels="kmeans", n_reject_classes=3),
    "rotation": RotationAuxClassifier(**SMALL | IMAGES, **SHARE),
    "adapters": ResidualAdapterDetector(**SMALL, pretrain_epochs=2),
    "encoder": SimCLREncoder(**SMALL, embedding_size=4),
}
each = pytest.mark.parametrize("name", ESTIMATORS)


def answers(estimator):
    return estimator.transform(X) if hasattr(estimator, "embedding_size") else estimator.decision_function(X)


class Killed(BaseException):
    pass


def killed(estimator, moment, place):
    """Fit, and stop dead when a file of the fit has been written so many times; return whether that happened."""
    n_seen = 0

    def count(event, arguments):
        nonlocal n_seen
        if event == "os.rename" and threading.get_ident() == thread and str(arguments[1]).startswith(str(place)):
            n_seen += 1
            if n_seen == moment + 1:
                raise Killed

    thread = threading.get_ident()
    HOOKS.append(count)
    try:
        estimator.fit(X, Y)
    except Killed:
        return True
    finally:
        HOOKS.remove(count)
    return False


def with_another_fit(estimator, place, other):
    """Fit with one file; when its first write ends, fit another estimator with its own file, to the end."""

    def fit_other(event, arguments):
        if event == "os.rename" and str(arguments[1]) == str(place):
            HOOKS.remove(fit_other)
            other.fit(X)

    HOOKS.append(fit_other)
    return estimator.set_params(checkpoint=place).fit(X)


HOOKS = []
sys.addaudithook(lambda event, arguments: [hook(event, arguments) for hook in [*HOOKS]] and None)


@each
def test_taken_up_after_every_epoch_it_is_the_same(name, tmp_path):
    """To the last bit, the threshold too; and no epoch is trained twice."""
    place = tmp_path / "fit.pt"
    whole = clone(ESTIMATORS[name]).fit(X, Y)
    expected, n_epochs = answers(whole), len(whole.history_)
    n_starts = 0
    # One more file is written in each start, and the next one is begun.
    while killed(estimator := clone(ESTIMATORS[name]).set_params(checkpoint=place), 1, place):
        n_starts += 1
        assert place.exists() or Path(f"{place}.pretraining").exists()
    assert n_starts >= n_epochs - 1
    np.testing.assert_array_equal(answers(estimator), expected)
    assert estimator.history_[:, "train_loss"] == whole.history_[:, "train_loss"]
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import os, signal, sys
import numpy as np
from skorch.callbacks import Callback, EpochScoring, LRScheduler, PrintLog
from skood import DUMDetector

place, moment = sys.argv[1], int(sys.argv[2])
n_seen = 0

def count(event, arguments):
    global n_seen
    if event in ("os.rename", "open", "os.remove") and str(arguments[0]).startswith(os.path.dirname(place)):
        n_seen += 1
        if n_seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

class Telling(Callback):
    def on_epoch_end(self, net, **kwargs):
        print(len(net.history), flush=True)

sys.addaudithook(count)
X = np.random.default_rng(0).normal(size=(60, 4))
# Of no fixed seed: the file has the one with which the fit began.
params = {"max_epochs": 4, "hidden_sizes": (8,), "batch_size": 16, "contamination": 0, "device": "cpu"}
detector = DUMDetector(**params, checkpoint=place, callbacks=[Telling()]).fit(X)
print(*(f"{loss:.17g}" for loss in detector.history_[:, "train_loss"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_kill_9_loses_at_most_one_epoch(tmp_path):
    place = tmp_path / "fit.pt"

    def run(moment):
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(place), str(moment)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    dead = run(9)
    assert dead.returncode == -signal.SIGKILL
    losses = [epoch["train_loss"] for epoch in torch.load(place, weights_only=True)["state"]["history"]]
    assert len(losses) >= int(dead.stdout.split()[-1]) - 1 > 0
    done = run(10**9)
    assert done.returncode == 0, done.stderr
    *_, found = done.stdout.splitlines()
    found = [float(loss) for loss in found.split()]
    assert len(found) == 4
    assert found[: len(losses)] == losses
    assert list(tmp_path.iterdir()) == []


class Broken(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise RuntimeError("power")


@pytest.fixture
def place(tmp_path):
    """A file of a fit that ended after an epoch."""
    place = tmp_path / "fit.pt"
    with pytest.raises(RuntimeError, match="power"):
        clone(ESTIMATORS["dum"]).set_params(checkpoint=place, callbacks=[Broken()]).fit(X)
    assert place.exists()
    return place


class Recording(Callback):
    """Records values of many types, the last of which no file without code can hold."""

    def on_epoch_end(self, net, **kwargs):
        n = len(net.history)
        values = {"single": np.float32(1.5 * n), "flag": np.bool_(n > 1), "pair": (np.int64(n), [np.float64(n)])}
        for name, value in {**values, "tensor": torch.tensor(n), "figure": range(n)}.items():
            net.history.record(name, value)


def mean_of_two(net, X, y):
    return np.mean([1.0, 2.0])


def test_what_callbacks_recorded_before_is_in_the_history(tmp_path):
    """skorch's EpochScoring, too, records a number of numpy."""

    def history(*more, place=tmp_path / "fit.pt"):
        callbacks = [EpochScoring(mean_of_two, name="mean", on_train=True), Recording(), *more]
        return clone(ESTIMATORS["encoder"]).set_params(checkpoint=place, callbacks=callbacks).fit(X).history_

    with pytest.raises(RuntimeError, match="power"):
        history(Broken())
    # A table of all epochs, as of skorch's PrintLog, needs every value in every epoch.
    found, whole = history(PrintLog(sink=str)), history(place=None)
    assert len(found) == 3
    for name in ("mean", "single", "flag", "pair", "tensor", "train_loss"):
        assert found[:, name] == whole[:, name]
    assert [epoch.get("figure") for epoch in found] == [None, range(2), range(3)]


def refused(match, place, X=X, **params):
    with pytest.raises(ValueError, match=match):
        clone(ESTIMATORS["dum"]).set_params(checkpoint=place, **params).fit(X)


def test_the_file_of_another_fit_is_refused(place):
    before = place.read_bytes()
    refused(r"belongs to another fit.*Delete the file", place, X=X + 1)
    refused("belongs to another fit", place, lr=0.5)
    refused("belongs to another fit", place, random_state=1)
    assert place.read_bytes() == before
    # What a result does not depend on may be another.
    clone(ESTIMATORS["dum"]).set_params(checkpoint=place, verbose=0, n_jobs=1).fit(X)
    assert not place.exists()


class Rate:
    """A schedule with a setting, that holds one of its own methods."""

    def __init__(self, floor):
        self.floor, self.own = floor, self.at_least

    def __call__(self, share):
        return self.own(share)

    def at_least(self, share):
        return max(self.floor, 1 - share)


class Slotted:
    """A holder of settings that cannot be called itself."""

    __slots__ = ("floor",)

    def __init__(self, floor):
        self.floor = floor

    def rate(self, share):
        return max(self.floor, 1 - share)


class Noise(nn.Module):
    """An augmentation without weights, that holds itself."""

    def __init__(self, sigma):
        super().__init__()
        self.sigma, self.whole = sigma, (self,)

    def forward(self, rows):
        return rows + self.sigma * torch.randn_like(rows)


def network(activation, p=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), activation, nn.Dropout(p), nn.Linear(8, 4))


# What two fits differ in: (parameter, value, another value), each made anew for each fit.
OTHERS = {
    "options": ("optimizer", lambda: partial(SGD, momentum=0.9), lambda: partial(SGD, momentum=0.0)),
    "class within": ("optimizer", lambda: partial(SGD, momentum=0.9), lambda: partial(Adam, amsgrad=True)),
    "object": ("schedule", lambda: Rate(0.1), lambda: Rate(0.9)),
    "object within": ("schedule", lambda: partial(Rate(0.1)), lambda: partial(Rate(0.9))),
    "method": ("schedule", lambda: Slotted(0.1).rate, lambda: Slotted(0.9).rate),
    "transform": ("augmentation", lambda: Noise(0.1), lambda: Noise(0.5)),
    "layer": ("network", lambda: network(nn.ReLU()), lambda: network(nn.Tanh())),
    "dropout": ("network", lambda: network(nn.ReLU()), lambda: network(nn.ReLU(), 0.5)),
    "slope": ("network", lambda: network(nn.LeakyReLU(0.1)), lambda: network(nn.LeakyReLU(0.2))),
    "builder": (
        "network",
        lambda: partial(MLP, hidden_sizes=(8,)),
        lambda: partial(MLP, hidden_sizes=(8,), dropout=0.5),
    ),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_a_parameter_that_is_called_counts_with_its_settings(difference, tmp_path):
    name, make, make_other = OTHERS[difference]
    place = tmp_path / "fit.pt"

    def fitted(value, callbacks=None, checkpoint=place):
        encoder = clone(ESTIMATORS["encoder"]).set_params(**{name: value}, max_epochs=4)
        encoder.set_params(image_shape=(1, 2, 2) if name == "augmentation" else None)
        return encoder.set_params(checkpoint=checkpoint, callbacks=callbacks).fit(X)

    with pytest.raises(RuntimeError, match="power"):
        fitted(make(), [Broken()])
    with pytest.raises(ValueError, match=r"belongs to another fit"):
        fitted(make_other())
    went_on, whole = fitted(pickle.loads(pickle.dumps(make()))), fitted(make(), checkpoint=None)
    np.testing.assert_array_equal(answers(went_on), answers(whole))
    assert not place.exists()
    # The two values are different trainings.
    assert not np.array_equal(answers(whole), answers(fitted(make_other(), checkpoint=None)))


def test_files_that_are_no_checkpoints_are_refused_and_never_run(place, tmp_path):
    torch.save({"format": print}, tmp_path / "code.pt")
    refused("no file of skood's", tmp_path / "code.pt")
    (tmp_path / "text").write_text("text")
    refused("no file of skood's", tmp_path / "text")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "weights.pt")
    refused("is no checkpoint", tmp_path / "weights.pt")
    content = torch.load(place, weights_only=True)
    for change, match in [
        (lambda state: state.pop("queue"), "lacks a part"),
        (lambda state: state.update(history="none"), "its 'history' is of type str"),
        (lambda state: state["module"].pop(next(iter(state["module"]))), "does not fit"),
        (lambda state: state["module"].update({name: torch.zeros(1) for name in state["module"]}), "does not fit"),
        (lambda state: state.update(optimizers={}), "does not fit"),
        (lambda state: state.update(number=7), "does not fit"),
    ]:
        torch.save(content, place)
        forged = torch.load(place, weights_only=True)
        change(forged["state"])
        torch.save(forged, place)
        refused(match, place)


def test_places_that_cannot_be(tmp_path):
    refused("there is no folder", tmp_path / "none" / "fit.pt")
    refused("is a folder", tmp_path)
    place, errors = tmp_path / "fit.pt", []

    class Second(Callback):
        def on_train_begin(self, net, X, y, **kwargs):
            try:
                clone(ESTIMATORS["dum"]).set_params(checkpoint=place).fit(X.X)
            except ValueError as error:
                errors.append(str(error))

    clone(ESTIMATORS["dum"]).set_params(checkpoint=place, callbacks=[Second()], contamination=0).fit(X)
    assert len(errors) == 1
    assert "is being written by another fit" in errors[0]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc, where nobody may write, root included")
def test_a_folder_where_no_file_can_be_written_is_refused_before_the_first_epoch():
    begun = []

    class First(Callback):
        def on_train_begin(self, net, **kwargs):
            begun.append(net)

    refused(
        "checkpoint='/proc/self/fit.pt': no file can be written in the folder", "/proc/self/fit.pt", callbacks=[First()]
    )
    assert not begun


def test_a_fit_removes_no_file_of_another_owner(tmp_path):
    kept = [".fit.pt.notes", "fit.pt.pretraining-results.csv", "fit.pt.threshold-notes", "fit.pt.threshold-1"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    # No threshold, and so no file of that part.
    clone(ESTIMATORS["dum"]).set_params(checkpoint=tmp_path / "fit.pt", **SHARE).fit(X)
    assert {file.name for file in tmp_path.iterdir()} == {*kept}
    assert all((tmp_path / name).read_text() == "mine" for name in kept)


def test_a_fit_leaves_the_unfinished_files_of_another_fit(tmp_path):
    other = clone(ESTIMATORS["dum"]).set_params(checkpoint=tmp_path / "fit.pt", **SHARE)
    fitted = with_another_fit(clone(ESTIMATORS["dum"]), tmp_path / "fit.pt.b", other)
    np.testing.assert_array_equal(answers(fitted), answers(clone(ESTIMATORS["dum"]).fit(X)))
    assert list(tmp_path.iterdir()) == []


def test_training_that_goes_on_is_taken_up_too(tmp_path):
    place = tmp_path / "fit.pt"
    detector = clone(ESTIMATORS["vae"]).set_params(warm_start=True, max_epochs=2, schedule="cosine")
    detector.set_params(contamination="auto").fit(X, Y)
    kept = pickle.dumps(detector)
    detector.fit(X, Y)
    while killed(going_on := pickle.loads(kept).set_params(checkpoint=place), 1, place):
        pass
    np.testing.assert_array_equal(answers(going_on), answers(detector))
    assert len(going_on.history_) == 4


POLICIES = {
    "steps": LRScheduler("StepLR", step_size=1, gamma=0.1),
    "exponential": LRScheduler("ExponentialLR", gamma=0.5),
    "cosine, by batches": LRScheduler("CosineAnnealingLR", step_every="batch", T_max=12),
    "plateau": LRScheduler("ReduceLROnPlateau", patience=0, factor=0.1, threshold=10.0),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["dum", "reject-kmeans"])
def test_learning_rates_of_schedulers_go_on(name, policy, tmp_path):
    """Those of the phase that was cut short; in others they begin anew."""
    options = {"schedule": "constant", "lr": 0.05, "max_epochs": 4, "callbacks": [POLICIES[policy]], "contamination": 0}
    whole = clone(ESTIMATORS[name]).set_params(**options).fit(X, Y)
    place = tmp_path / "fit.pt"
    while killed(estimator := clone(ESTIMATORS[name]).set_params(**options, checkpoint=place), 1, place):
        pass
    rates = [epoch["event_lr"] for epoch in whole.history_] if "batches" not in policy else [1, 0]
    assert len(set(rates)) > 1
    assert ["event_lr" in epoch for epoch in estimator.history_] == ["event_lr" in epoch for epoch in whole.history_]
    np.testing.assert_array_equal(answers(estimator), answers(whole))


def test_a_seed_that_was_drawn_is_kept_while_a_part_is_trained(tmp_path):
    detector = clone(ESTIMATORS["adapters"]).set_params(random_state=None, contamination=0)
    place, other = tmp_path / "fit.pt", tmp_path / "copied" / "fit.pt"
    assert killed(clone(detector).set_params(checkpoint=place), 1, place)
    (file,) = tmp_path.iterdir()
    assert file.name == "fit.pt.pretraining"
    shutil.copytree(tmp_path, other.parent)
    first, second = (clone(detector).set_params(checkpoint=path).fit(X, Y) for path in (place, other))
    np.testing.assert_array_equal(answers(first), answers(second))
    assert not np.array_equal(answers(clone(detector).fit(X, Y)), answers(first))
