"""What a program has set in torch, and what its threads and children do, changes no fit, and no fit changes it."""

import os
import select
import threading

import numpy as np
import pytest
import torch
from configurations import CONFIGURATIONS, ENCODERS, named
from sklearn.base import clone
from skorch.callbacks import Callback

from skood import DUMDetector, NegSampleVAE, OODScorer, RejectClassDetector

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(60, 9)).astype(np.float32)
Y = np.where(np.arange(60) < 50, np.arange(60) % 2 + 1, -1)
SMALL = {"hidden_sizes": (8,), "max_epochs": 2, "random_state": 0, "device": "cpu", "contamination": 0}


@pytest.fixture
def default():
    """Set the default dtype and device of the process, and take them back."""

    def set_default(dtype, device=None):
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)

    yield set_default
    set_default(torch.float32)


def answer(estimator, X=X):
    """Return what an estimator gives after a fit, as one array."""
    fitted = clone(estimator)
    if "random_state" in fitted.get_params():
        fitted.set_params(random_state=0)
    fitted.fit(X, Y)
    return fitted.score_samples(X) if hasattr(fitted, "score_samples") else np.asarray(fitted.transform(X))


@pytest.mark.parametrize("estimator", **named(CONFIGURATIONS | ENCODERS))
def test_defaults_and_autocast_change_nothing(estimator, default):
    expected = answer(estimator)
    # Nothing can be computed with tensors of the device "meta".
    default(torch.float64, "meta")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = answer(estimator)
        assert torch.is_autocast_enabled("cpu")
    assert np.array_equal(found, expected)
    assert torch.get_default_dtype() == torch.float64
    assert torch.get_default_device() == torch.device("meta")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("detector", [DUMDetector, RejectClassDetector, NegSampleVAE])
@pytest.mark.parametrize("kind", ["vectors", "images", "uint8"])
def test_every_default_dtype(dtype, detector, kind, default):
    rows = (255 * X).astype(np.uint8) if kind == "uint8" else X
    settings = dict(SMALL)
    if kind != "vectors":
        del settings["hidden_sizes"]
        settings["image_shape"] = (1, 3, 3)
    estimator = detector(**settings)
    expected = answer(estimator, rows)
    default(dtype)
    assert np.array_equal(answer(estimator, rows), expected)


def test_a_fitted_detector_scores_and_classifies_alike(default):
    fitted = RejectClassDetector(**SMALL).fit(X, Y)
    scorer = OODScorer(fitted).fit(X, Y)
    expected = [fitted.predict_proba(X), fitted.predict_class(X), fitted.predict(X), scorer.score_samples(X)]
    default(torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [fitted.predict_proba(X), fitted.predict_class(X), fitted.predict(X), scorer.score_samples(X)]
    assert all(map(np.array_equal, found, expected))


def test_precision_alone_decides_on_half_precision():
    expected = answer(DUMDetector(**SMALL, precision="bfloat16"))
    with torch.autocast("cpu", dtype=torch.float16):
        assert np.array_equal(answer(DUMDetector(**SMALL, precision="bfloat16")), expected)
    assert not np.array_equal(answer(DUMDetector(**SMALL, precision="float32")), expected)


class Seen(Callback):
    """Holds a training in its first epoch, and notes the default type that other threads see."""

    def __init__(self):
        self.begun, self.go, self.dtype = threading.Event(), threading.Event(), None

    def __deepcopy__(self, memo):
        return self

    def on_epoch_end(self, net, **kwargs):
        if not self.begun.is_set():
            with_thread = threading.Thread(target=lambda: setattr(self, "dtype", torch.get_default_dtype()))
            with_thread.start()
            with_thread.join()
            self.begun.set()
            self.go.wait(60)


def fitting_thread(seen):
    """Start a fit in another thread, and return once it is under way."""
    thread = threading.Thread(target=DUMDetector(**SMALL, callbacks=[seen]).fit, args=(X,))
    thread.start()
    assert seen.begun.wait(60)
    return thread


def test_other_threads_see_the_default_that_the_program_set(default):
    default(torch.float64)
    seen = Seen()
    seen.go.set()
    fitting_thread(seen).join()
    assert seen.dtype == torch.float64


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_child_forked_while_a_thread_fits():
    """It fits as always, and its generator is where the program left it."""
    expected = answer(DUMDetector(**SMALL))
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    seen = Seen()
    thread = fitting_thread(seen)
    end, other = os.pipe()
    child = os.fork()
    if child == 0:
        result = b"0"
        try:
            same = torch.equal(torch.rand(3), drawn) and np.array_equal(answer(DUMDetector(**SMALL)), expected)
            result = b"1" if same else b"0"
        finally:
            os.write(other, result)
            os._exit(0)
    seen.go.set()
    thread.join()
    answered = select.select([end], [], [], 60)[0]
    if not answered:
        os.kill(child, 9)
    os.waitpid(child, 0)
    assert answered, "the child hangs"
    assert os.read(end, 1) == b"1"
    assert torch.equal(torch.rand(3), drawn)
