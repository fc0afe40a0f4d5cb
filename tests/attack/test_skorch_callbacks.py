"""Every callback of skorch works as in plain skorch, or is refused with what to do."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skorch.callbacks
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    Freezer,
    GradientNormClipping,
    Initializer,
    InputShapeSetter,
    LoadInitState,
    LRScheduler,
    ParamMapper,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    SacredLogger,
    TensorBoard,
    TrainEndCheckpoint,
    Unfreezer,
    WandbLogger,
    WarmRestartLR,
)

from skood import DUMDetector

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
SMALL = {"hidden_sizes": (8,), "max_epochs": 3, "random_state": 0, "contamination": 0, "device": "cpu"}


class Writer:
    """Stands for the writers and runs of other libraries: it cannot be copied."""

    def __init__(self):
        self.lock, self.noted = threading.Lock(), []

    def __getattr__(self, name):
        # A copy that is being made has no attributes yet.
        if name.startswith("__") or name in ("lock", "noted"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.noted.append(name)


def loss(net, X, y=None):
    assert not y
    return 7.0


WORKING = {
    "Callback": Callback,
    "EpochScoring": lambda: EpochScoring(loss, on_train=True, name="seven"),
    "EpochScoring without caching": lambda: EpochScoring(loss, on_train=True, use_caching=False, name="seven"),
    "BatchScoring": lambda: BatchScoring(loss, on_train=True, name="seven"),
    "PassthroughScoring": lambda: PassthroughScoring("train_loss", on_train=True),
    "EpochTimer": EpochTimer,
    "PrintLog": lambda: PrintLog(sink=lambda text: None),
    "ProgressBar": lambda: ProgressBar(detect_notebook=False),
    "EarlyStopping": lambda: EarlyStopping(monitor="train_loss"),
    "Checkpoint": lambda: Checkpoint(monitor="train_loss_best", dirname="place", load_best=True),
    "TrainEndCheckpoint": lambda: TrainEndCheckpoint(dirname="place"),
    "LoadInitState": lambda: LoadInitState(Checkpoint(dirname="place")),
    "LRScheduler": lambda: LRScheduler("StepLR", step_size=1),
    "GradientNormClipping": lambda: GradientNormClipping(1.0),
    "Freezer": lambda: Freezer("*bias"),
    "Unfreezer": lambda: Unfreezer("*bias", at=2),
    "Initializer": lambda: Initializer("*bias", fn=torch.nn.init.zeros_),
    "ParamMapper": lambda: ParamMapper("*bias"),
    "TensorBoard": lambda: TensorBoard(Writer()),
    "SacredLogger": lambda: SacredLogger(Writer()),
    "WandbLogger": lambda: WandbLogger(Writer(), save_model=False),
}
REFUSED = {
    "EpochScoring": (lambda: EpochScoring(loss), "pass on_train=True to score the training rows"),
    "EpochScoring of labels": (lambda: EpochScoring("roc_auc", on_train=True), "pass a function"),
    "BatchScoring": (lambda: BatchScoring(loss), "there is none; pass on_train=True"),
    "PassthroughScoring": (lambda: PassthroughScoring("valid_loss"), "there is none; pass on_train=True"),
    "EarlyStopping": (EarlyStopping, "monitor 'train_loss'"),
    "InputShapeSetter": (InputShapeSetter, "leave it out"),
    "WarmRestartLR": (lambda: WarmRestartLR, "is no callback of skorch"),
    "text": (lambda: "EarlyStopping", "'EarlyStopping' is no callback of skorch"),
    "class that needs arguments": (lambda: GradientNormClipping, None),
    "another class that needs arguments": (lambda: Freezer, "pass an instance of Freezer"),
}
# They ask for libraries that are not installed, and are told apart by these alone.
NOT_INSTALLED = {"NeptuneLogger", "MlflowLogger"}


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def detector(*callbacks, **options):
    return DUMDetector(**SMALL | {"callbacks": list(callbacks), "schedule": "constant"} | options)


def test_every_callback_of_skorch_is_tried_and_told_of():
    names = {*skorch.callbacks.__all__}
    assert names <= {*WORKING, *REFUSED, *NOT_INSTALLED}
    page = Path(__file__).parents[2] / "docs" / "callbacks.rst"
    if page.exists():
        assert names <= {*re.findall(r"``(\w+)``", page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("name", WORKING)
@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
def test_those_that_work(name):
    given = WORKING[name]()
    fitted = clone(detector(given)).fit(X)
    plain = detector().fit(X)
    # The history of the best epoch is loaded with it.
    assert len(fitted.history_) == 3 or name == "Checkpoint"
    if name.endswith(("Scoring", "caching")) and "Pass" not in name:
        assert fitted.history_[-1]["seven"] == 7.0
    if name == "TensorBoard":
        (ran,) = fitted.callbacks_
        assert ran.writer is given.writer
        assert given.writer.noted.count("add_scalar") >= 3
    if name not in ("Checkpoint", "GradientNormClipping", "Initializer", "Freezer", "Unfreezer", "LRScheduler"):
        assert np.array_equal(fitted.score_samples(X), plain.score_samples(X))


@pytest.mark.parametrize("name", REFUSED)
def test_those_that_are_refused(name):
    make, told = REFUSED[name]
    if told is None:
        detector(make()).fit(X)
        return
    with pytest.raises(ValueError, match=told):
        detector(make()).fit(X)


def test_classes_and_names():
    fitted = detector(PrintLog(sink=lambda text: None), ("timer", EpochTimer), EpochTimer).fit(X)
    assert np.array_equal(fitted.score_samples(X), detector().fit(X).score_samples(X))


def checkpointed(seed):
    return detector(Checkpoint(monitor="train_loss_best", dirname="place", load_best=True), random_state=seed)


def fit_and_score(seed):
    fitted = checkpointed(seed).fit(X)
    return fitted.score_samples(X), fitted.callbacks_[0].dirname


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_checkpoints_of_fits_side_by_side(where):
    alone = [fit_and_score(seed)[0] for seed in range(3)]
    if where == "threads":
        with ThreadPoolExecutor(3) as threads:
            beside = list(threads.map(fit_and_score, range(3)))
    else:
        beside = Parallel(n_jobs=2)(delayed(fit_and_score)(seed) for seed in range(3))
    assert all(np.array_equal(scores, expected) for (scores, _), expected in zip(beside, alone, strict=True))


class Meanwhile(Callback):
    """Fits another detector while this one is training."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 1:
            self.other = checkpointed(1).fit(X)


def test_a_fit_within_a_fit_has_a_folder_of_its_own():
    fitted = checkpointed(0).set_params(
        callbacks=[Checkpoint(monitor="train_loss_best", dirname="place", load_best=True), Meanwhile()]
    )
    fitted.fit(X)
    checkpoint, meanwhile = fitted.callbacks_
    assert checkpoint.dirname == "place"
    assert Path(meanwhile.other.callbacks_[0].dirname) == Path("place", "fit-2")
    assert np.array_equal(fitted.score_samples(X), checkpointed(0).fit(X).score_samples(X))
    # Later fits, which are not beside another, have the folder itself.
    assert fit_and_score(2)[1] == "place"
