"""What a program has set in torch, and what its threads and children do, changes no fit, and no fit changes it."""

import inspect
import os
import select
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from configurations import CLASSIFIERS, CONFIGURATIONS, ENCODERS, WRAPPERS, named
from sklearn.base import clone
from skorch.callbacks import Callback

from skood import (
    DUMDetector,
    NegSampleVAE,
    OODScorer,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
)
from skood.backbones import load_named

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


@pytest.fixture(scope="module")
def usual():
    """What gives the answer of an estimator in a process where nothing is set; each is fitted once for all tests."""
    answers = {}

    def usual_answer(estimator, rows=X, key=None):
        # The parameters of tests are the same objects in all of them, and stay.
        key = id(estimator) if key is None else key
        if key not in answers:
            answers[key] = answer(estimator, rows)
        return answers[key]

    return usual_answer


@pytest.mark.parametrize("estimator", **named(CONFIGURATIONS | ENCODERS))
def test_defaults_and_autocast_change_nothing(estimator, default, usual):
    expected = usual(estimator)
    # Nothing can be computed with tensors of the device "meta".
    default(torch.float64, "meta")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = answer(estimator)
        assert torch.is_autocast_enabled("cpu")
    assert np.array_equal(found, expected)
    assert torch.get_default_dtype() == torch.float64
    assert torch.get_default_device() == torch.device("meta")


def given_rows_alone(kind):
    """Return the names of the public methods of a class that need rows alone, or rows and their labels."""
    methods = {}
    for name, method in inspect.getmembers(kind, callable):
        if not name.startswith("_") and name not in ("fit", "partial_fit", "fit_predict", "fit_transform"):
            _, *others = inspect.signature(method).parameters.values() if inspect.isroutine(method) else [None]
            needed = [one.name for one in others if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
            if needed in (["X"], ["X", "y"]):
                methods[name] = len(needed)
    return methods


@pytest.mark.parametrize("estimator", **named(CONFIGURATIONS | ENCODERS | CLASSIFIERS | WRAPPERS))
def test_all_methods_answer_alike_under_other_defaults(estimator, default):
    def answers():
        given = {}
        for name, n_given in given_rows_alone(type(fitted)).items():
            if hasattr(fitted, name):
                # An explanation scores each row thousands of times.
                some = slice(4) if name == "explain" else slice(None)
                answer = getattr(fitted, name)(*(X[some], Y[some])[:n_given])
                given[name] = answer if isinstance(answer, dict) else {"answer": answer}
        return given

    fitted = clone(estimator)
    params = fitted.get_params()
    if "random_state" in params:
        fitted.set_params(random_state=0)
    if params.get("contamination") == "auto":
        fitted.set_params(contamination=0.1)
    fitted.fit(X, Y)
    expected = answers()
    assert len(expected) > 1 or not hasattr(fitted, "predict")
    default(torch.float64, "meta")
    found = answers()
    default(torch.float32)
    for name, parts in expected.items():
        for part, values in parts.items():
            assert np.array_equal(found[name][part], values), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("detector", [DUMDetector, RejectClassDetector, NegSampleVAE])
@pytest.mark.parametrize("kind", ["vectors", "images", "uint8"])
def test_every_default_dtype(dtype, detector, kind, default, usual):
    rows = (255 * X).astype(np.uint8) if kind == "uint8" else X
    settings = dict(SMALL)
    if kind != "vectors":
        del settings["hidden_sizes"]
        settings["image_shape"] = (1, 3, 3)
    estimator = detector(**settings)
    expected = usual(estimator, rows, key=(detector, kind))
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


OWN = {
    "dum": DUMDetector(**SMALL),
    "vae": NegSampleVAE(**SMALL, negatives=["generated", "noise"]),
    "reject": RejectClassDetector(**SMALL, dropout=0.3),
    "rotation": RotationAuxClassifier(**SMALL, dropout=0.3),
    "adapters": ResidualAdapterDetector(**SMALL, pretrain_epochs=2),
}


@pytest.mark.parametrize("detector", **named(OWN))
def test_numbers_that_another_thread_draws(detector, usual):
    """It draws all the time from torch's own generator: it has the stream it would have, and the fit is as always."""
    expected = usual(detector)
    torch.manual_seed(7)
    stop, drawn = threading.Event(), []

    def draw():
        while not stop.is_set():
            drawn.append(torch.rand(()))

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        found = answer(detector)
    finally:
        stop.set()
        thread.join()
    assert np.array_equal(found, expected)
    torch.manual_seed(7)
    assert torch.equal(torch.stack(drawn), torch.stack([torch.rand(()) for _ in drawn]))


@pytest.mark.parametrize("estimator", **named(CONFIGURATIONS | ENCODERS | OWN))
def test_the_seed_of_the_program_changes_nothing(estimator, usual):
    # Under the seed 0, which every test begins with.
    expected = usual(estimator)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert np.array_equal(answer(estimator), expected)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_fit_does_not_wait_for_one_in_another_thread():
    expected = answer(DUMDetector(**SMALL))
    seen = Seen()
    thread = fitting_thread(seen)
    try:
        assert np.array_equal(answer(DUMDetector(**SMALL)), expected)
        assert thread.is_alive()
    finally:
        seen.go.set()
        thread.join()


class WithDropout(torch.nn.Sequential):
    """A network of a user's, with torch's own dropout."""

    def __init__(self, in_features, out_features):
        super().__init__(torch.nn.Linear(in_features, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, out_features))


def test_a_network_that_draws_from_torchs_generator():
    """Its fits repeat, in threads too, where they take turns."""
    detector = RejectClassDetector(**SMALL | {"network": WithDropout, "hidden_sizes": (100, 100)})
    torch.manual_seed(1)
    expected = answer(detector)
    found = [None] * 4
    torch.manual_seed(2)
    threads = [threading.Thread(target=lambda i=i: found.__setitem__(i, answer(detector))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, expected) for one in found)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def forked(function):
    """Run a function in a forked child, and fail if it hangs or returns nothing that is true."""
    end, other = os.pipe()
    child = os.fork()
    if child == 0:
        result = b"0"
        try:
            result = b"1" if function() else b"0"
        finally:
            os.write(other, result)
            os._exit(0)
    answered = select.select([end], [], [], 60)[0]
    if not answered:
        os.kill(child, 9)
    os.waitpid(child, 0)
    assert answered, "the child hangs"
    assert os.read(end, 1) == b"1"


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_child_forked_while_a_thread_fits():
    """It fits as always, and its generator is where the program left it."""
    expected = answer(DUMDetector(**SMALL))
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    seen = Seen()
    thread = fitting_thread(seen)

    def in_child():
        return torch.equal(torch.rand(3), drawn) and np.array_equal(answer(DUMDetector(**SMALL)), expected)

    try:
        forked(in_child)
    finally:
        seen.go.set()
        thread.join()
    assert torch.equal(torch.rand(3), drawn)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_child_forked_while_a_thread_loads_a_backbone(monkeypatch):
    """It loads its own."""
    begun, go = threading.Event(), threading.Event()

    def create_model(name, **options):
        if name == "slow":
            begun.set()
            go.wait(60)
        return torch.nn.Flatten()

    config = {"mean": 0.0, "std": 1.0, "input_size": (1, 8, 8), "interpolation": "bilinear", "crop_mode": "squash"}
    data = SimpleNamespace(resolve_model_data_config=lambda module: config)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model, data=data))
    thread = threading.Thread(target=load_named, args=("timm:slow",))
    thread.start()
    assert begun.wait(60)
    try:
        forked(lambda: load_named("timm:quick") is load_named("timm:quick"))
    finally:
        go.set()
        thread.join()
