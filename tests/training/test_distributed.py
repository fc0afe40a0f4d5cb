"""One training shared by two processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from skood import DUMDetector, RejectClassDetector
from skood.metrics import auroc
from skood.training.batches import TrainingRows

SCRIPT = """
import sys
from pathlib import Path

import numpy as np
import torch
from configurations import CONFIGURATIONS, SMALL
from sklearn.base import clone
from skorch.callbacks import EarlyStopping
from torch import nn

from skood import BackboneClassifier, DUMDetector, RejectClassDetector, SimCLREncoder
from skood.training import distributed
from skood.training.batches import TrainingRows
from skood.training.device import resolve_device, seeded
from skood.training.trainer import train
from skood.training.phases import Phase, Step

torch.set_num_threads(1)
device = resolve_device("distributed")
number, n = distributed.place()
same, own = {"processes": n}, {}

# Each starts from another weight, sees other rows, and is to end where one process ends that sees them all.
module = nn.Linear(1, 1, bias=False)
nn.init.constant_(module.weight, 7.0 * number)
X = np.array([[1.0], [2.0], [1.0], [2.0]], dtype=np.float32)
data = TrainingRows(X, None, lambda chunk: chunk, device).share(number, n)
noise = []


def loss(module, batch):
    noise.append(torch.rand(()).item())
    return (module(batch) - batch).square().mean()


descent = lambda parameters, lr: torch.optim.SGD(parameters, lr=lr)
options = {"batch_size": 2, "lr": 0.1, "optimizer": descent, "together": True}
with seeded(0, device):
    net = train(module, data, [Phase([Step(loss)], 2)], **options)
    same["after"] = torch.rand(()).item()
same |= {"weight": net.module_.weight.item(), "losses": net.history[:, "train_loss"]}
own["noise"] = noise


def normalized(n_features, n_outputs):
    layers = nn.Linear(n_features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, n_outputs)
    return nn.Sequential(*layers)


# No seed is given. By the loss of one process alone, the two would not stop together.
np.random.seed(number)
with np.load(sys.argv[1]) as file:
    X, y, test = file["X"], file["y"], file["test"]
stop = EarlyStopping(monitor="train_loss", patience=2)
detectors = {
    "detecting dum": DUMDetector(hidden_sizes=(16,), max_epochs=100, contamination=0),
    "detecting reject": RejectClassDetector(2, network=normalized, max_epochs=50, contamination=0),
    "stopped": DUMDetector(hidden_sizes=(16,), max_epochs=200, contamination=0, callbacks=[stop]),
    **{name: detector for name, detector in CONFIGURATIONS.items() if "kmeans" not in name},
}
state = torch.get_rng_state()
for name, detector in detectors.items():
    detector = clone(detector).set_params(device="distributed").fit(X, y)
    same[name] = [*detector.score_samples(test), detector.offset_, len(detector.history_)]
same["encoder"] = SimCLREncoder(**SMALL, device="distributed").fit(X).transform(test)
same["classifier"] = BackboneClassifier(**SMALL, device="distributed").fit(X, y).predict_proba(test)
assert torch.equal(torch.get_rng_state(), state)
for kind, figures in {"same": same, "own": own}.items():
    np.savez(Path(sys.argv[1]).with_name(f"{kind}{number}.npz"), **figures)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the two processes saved: figures that must be the same, and those that must not."""
    folder = tmp_path_factory.mktemp("distributed")
    rng = np.random.default_rng(0)
    # An odd number of inliers, and of auxiliary outliers.
    X, inliers = (rng.normal(size=(n, 3)) * [1, 1, 0.1] for n in (201, 100))
    corpus, outliers = (rng.normal(loc=[0, 0, 2], size=(n, 3)) for n in (51, 100))
    y = np.repeat([1, -1], [201, 51])
    np.savez(folder / "data.npz", X=np.vstack([X, corpus]), y=y, test=np.vstack([inliers, outliers]))
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(folder / "script.py"), str(folder / "data.npz")]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return {kind: [dict(np.load(folder / f"{kind}{number}.npz")) for number in range(2)] for kind in ("same", "own")}


def test_two_processes_take_the_steps_of_one(results):
    """By hand as for one process: w <- w + 0.1 * 2 * 2.5 * (1 - w) from the first one's 0; 0.5, then 0.75."""
    result = results["same"][0]
    assert result["processes"] == 2
    assert result["weight"] == pytest.approx(0.75)
    assert result["losses"] == pytest.approx([2.5, 0.625])


def test_all_processes_have_the_same_in_the_end(results):
    first, second = results["same"]
    assert len(first) > 20
    assert [name for name, figure in first.items() if not np.array_equal(figure, second[name])] == []


def test_noise_is_each_process_s_own(results):
    first, second = (result["noise"] for result in results["own"])
    assert len(first) == len(second) == 2
    assert not set(first) & set(second)


def test_what_they_learn_together_detects(results):
    for name in ("detecting dum", "detecting reject"):
        assert auroc(np.repeat([1, -1], 100), results["same"][0][name][:200]) > 0.9


def test_callbacks_stop_all_processes_at_the_same_time(results):
    assert {result["stopped"][-1] < 200 for result in results["same"]} == {True}


@pytest.mark.parametrize("n_rows", [4, 5])
def test_shares_are_of_equal_length_and_hold_all_rows(n_rows):
    X = np.arange(2.0 * n_rows)[:, None]
    inside, outside = np.arange(0, 2 * n_rows, 2), np.arange(1, 2 * n_rows, 2)
    data = TrainingRows(X, inside, lambda chunk: chunk, torch.device("cpu"), labels=inside, auxiliary_indices=outside)
    shares = [data.share(number, 2) for number in range(2)]
    assert {len(share) for share in shares} == {-(-n_rows // 2)}
    for share in shares:
        assert torch.equal(share.resident.flatten().long(), share.labels)
        assert np.array_equal(share.indices_between(0, 9), share.labels)
        assert np.array_equal(share.resident_auxiliary.flatten(), share.auxiliary_indices)
    assert set(torch.cat([share.labels for share in shares]).tolist()) == set(inside.tolist())
    assert set(np.concatenate([share.auxiliary_indices for share in shares])) == set(outside)
    with pytest.raises(ValueError, match=f"{n_rows} rows are too few for 4 processes"):
        data.share(0, 4)


def test_without_other_processes_it_says_how_to_start_them():
    with pytest.raises(ValueError, match="torchrun"):
        DUMDetector(device="distributed", contamination=0).fit(np.eye(4))


def test_centres_of_pseudo_labels_cannot_be_shared():
    detector = RejectClassDetector(2, pseudo_labels="kmeans", device="distributed", contamination=0)
    with pytest.raises(ValueError, match="choose 'self'"):
        detector.fit(np.random.default_rng(0).normal(size=(40, 2)))
