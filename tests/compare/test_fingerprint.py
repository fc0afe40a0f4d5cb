"""Stored rows are found again for the same detector, and for no other."""

import importlib.util
import inspect
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skood
from skood import (
    BackboneClassifier,
    DUMDetector,
    FrozenEncoder,
    OODScorer,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    SimCLREncoder,
    ThresholdedDetector,
    compare_detectors,
)
from skood.compare import OODPair
from skood.compare.fingerprint import fingerprint
from skood.model_selection import DropOutliers


def images(seed):
    return np.random.default_rng(seed).random((12, 1, 8, 8)).astype(np.float32)


def encoder(seed):
    return SimCLREncoder(max_epochs=1, network="wrn-10-1", random_state=0).fit(images(seed))


def classifier(seed):
    network = BackboneClassifier(max_epochs=1, network="wrn-10-1", random_state=0)
    return network.fit(images(seed), np.repeat([0, 1], 6))


def linear(seed):
    return LogisticRegression().fit(images(seed).reshape(12, -1), np.repeat([0, 1], 6))


# ----------------------------------------------------------------------------------------------- what clones keep

# A function that trains something, and one that makes a detector around it.
AROUND = {
    "DUMDetector": (encoder, lambda trained: DUMDetector(encoder=trained)),
    "ResidualAdapterDetector": (classifier, lambda trained: ResidualAdapterDetector(backbone=trained)),
    "OODScorer": (classifier, OODScorer),
    "FrozenEncoder": (classifier, FrozenEncoder),
    "OODScorer of scikit-learn's": (linear, OODScorer),
    "OODScorer of a Pipeline": (lambda seed: make_pipeline(StandardScaler(), linear(seed)), OODScorer),
    "frozen": (linear, FrozenEstimator),
    "frozen network": (encoder, FrozenEstimator),
    "in a Pipeline": (classifier, lambda trained: make_pipeline(FrozenEncoder(trained), IsolationForest())),
    "frozen in a Pipeline": (encoder, lambda trained: make_pipeline(FrozenEstimator(trained), IsolationForest())),
    "in a wrapper": (encoder, lambda trained: DropOutliers(DUMDetector(encoder=trained))),
    "in a wrapped Pipeline": (linear, lambda trained: ThresholdedDetector(make_pipeline(OODScorer(trained)))),
}


def test_all_detectors_that_share_what_is_trained_are_here():
    public = [getattr(skood, name) for name in skood.__all__]
    sharing = {kind.__name__ for kind in public if inspect.isclass(kind) and getattr(kind, "_shared_params", ())}
    assert sharing <= set(AROUND)


@pytest.mark.parametrize(("train", "around"), AROUND.values(), ids=AROUND)
def test_what_was_learnt_from_other_rows_is_another_detector(train, around):
    first, second = train(0), train(1)
    assert fingerprint(around(first)) != fingerprint(around(second))
    # The same, read from a file or trained again, is the same; its history has other seconds.
    assert fingerprint(around(first)) == fingerprint(around(pickle.loads(pickle.dumps(first))))
    assert fingerprint(around(first)) == fingerprint(around(train(0)))


@pytest.mark.parametrize(
    "change",
    [
        lambda detector: detector.set_threshold(target_fpr=0.3, X=images(0)),
        lambda detector: detector.set_params(score_type="msp").fit(images(0), np.arange(12) % 3),
    ],
    ids=["threshold", "score"],
)
def test_a_frozen_detector_is_more_than_its_network(change):
    """Neither the threshold nor the kind of score is a part of the network, whose weights stay the same."""
    first = RotationAuxClassifier(max_epochs=1, contamination=0, random_state=0).fit(images(0), np.arange(12) % 3)
    second = pickle.loads(pickle.dumps(first))
    assert fingerprint(FrozenEstimator(first)) == fingerprint(FrozenEstimator(second))
    change(second)
    assert all(map(torch.equal, first.module_.state_dict().values(), second.module_.state_dict().values()))
    assert fingerprint(FrozenEstimator(first)) != fingerprint(FrozenEstimator(second))


def test_a_module_counts_by_its_weights_alone():
    module = torch.nn.Linear(2, 2)
    before = fingerprint(DUMDetector(encoder=module))
    module.eval()(torch.ones(1, 2)).sum().backward()
    module.note = lambda: None  # cannot be pickled
    assert fingerprint(DUMDetector(encoder=module)) == before
    with torch.no_grad():
        module.bias += 1
    assert fingerprint(DUMDetector(encoder=module)) != before


def test_rows_of_another_classifier_are_not_found(tmp_path):
    X, y = load_digits(return_X_y=True)
    X, known = X / 16, y < 3
    data = {"digits": OODPair(X[known], {"8": X[y == 8]})}

    def compared(rows, out):
        detector = OODScorer(LogisticRegression(max_iter=300).fit(X[rows], y[rows]), contamination=0)
        return compare_detectors({"energy": detector}, data, protocol="ood-pair", seeds=1, out=out)["auroc"][0]

    few = np.flatnonzero(known)[:9]
    first = compared(known, tmp_path)
    assert compared(few, tmp_path) == compared(few, None) != first


# ------------------------------------------------------------------------------------------------------- own code

OWN = """
import functools, torch
from sklearn.base import BaseEstimator

def view(X): return X[:, :1]
def mark(function):
    @functools.wraps(function)
    def marked(*args): return function(*args)
    return marked

class Base(BaseEstimator):
    def fit(self, X, y=None): self.centre_ = X.mean(0); return self

class Mine(Base):
    k = 1
    known = {"a", "b", "c"}
    def score_samples(self, X, power=2): return -(abs(X - self.centre_) ** power).sum(1)
    def inner(self): return [x + 1 for x in range(3) if x in {5, "b", "c"}]
    @property
    def offset_(self): return 0.0
    @staticmethod
    def still(): return 0
    @classmethod
    def made(cls): return cls()
    @mark
    def marked(self): return 1
    @functools.cached_property
    def kept(self): return 1
    def above(self): return super().__repr__()

class Net(torch.nn.Linear):
    def forward(self, X): return super().forward(X)
"""
CHANGES = [
    ("X[:, :1]", "X"),
    ("X.mean(0)", "X.max(0)"),
    ("k = 1", "k = 2"),
    ('"a", "b", "c"', '"a", "b", "d"'),
    ("power=2", "power=3"),
    ("return -(", "return ("),
    ("x + 1", "x + 2"),
    ('5, "b"', '6, "b"'),
    ("0.0", "1.0"),
    ("return 0\n", "return 1\n"),
    ("cls()", "cls"),
    ("def marked(self): return 1", "def marked(self): return 2"),
    ("def kept(self): return 1", "def kept(self): return 2"),
    ("forward(X)\n", "forward(-X)\n"),
    ("class Net(torch.nn.Linear):", "class Net(torch.nn.Linear):\n    def extra(self): ..."),
]
AGAIN = """
import torch
from own import *
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skood import DUMDetector, FrozenEncoder
from skood.compare.fingerprint import fingerprint
from skood.model_selection import DropOutliers

def prints():
    torch.manual_seed(0)
    net = Net(2, 2)
    plain = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    made = [
        Mine(), DropOutliers(Mine()), make_pipeline(Mine()), make_pipeline(FunctionTransformer(view), Mine()),
        DUMDetector(schedule=view), DUMDetector(network=net), make_pipeline(FrozenEncoder(net), Mine()),
        make_pipeline(FrozenEncoder(plain), DUMDetector()),
        make_pipeline(FunctionTransformer(kw_args={"nets": [plain]})),
    ]
    return [fingerprint(one) for one in made]
print(*prints())
"""


def prints_of(folder, text, **env):
    """Return fingerprints of detectors in another process, in which ``own`` is this text."""
    (folder / "own.py").write_text(text)
    path = os.pathsep.join([str(folder), *sys.path])
    env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **env}
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True, env=env)
    return done.stdout.split()


def test_the_same_code_is_the_same_in_every_process(tmp_path):
    first = prints_of(tmp_path, OWN, PYTHONHASHSEED="1")
    assert len(set(first)) == len(first) == 9
    # Comments change nothing, and neither does the order of a set.
    assert prints_of(tmp_path, "# A comment.\n\n" + OWN, PYTHONHASHSEED="2") == first


def module(text, folder):
    """Return a module of the user's that has this text."""
    path = folder / "own_module.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("own_module", path)
    made = importlib.util.module_from_spec(spec)
    sys.modules["own_module"] = made
    # Not through the loader, which might take the file of a moment ago from its cache.
    exec(compile(text, path, "exec"), vars(made))
    return made


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_changed_code_is_another_detector(tmp_path, before, after):
    assert before in OWN

    def prints(text):
        own = module(text, tmp_path)
        torch.manual_seed(0)
        made = [own.Mine(), DropOutliers(own.Mine()), make_pipeline(StandardScaler(), own.Mine())]
        made += [DUMDetector(schedule=own.view), DUMDetector(network=own.Net(2, 2))]
        made += [make_pipeline(FrozenEncoder(own.Net(2, 2)), DUMDetector())]
        return [fingerprint(one) for one in made]

    first, again, changed = prints(OWN), prints(OWN), prints(OWN.replace(before, after))
    assert first == again
    affected = {"X[:, :1]": {3}, "forward(X)\n": {4, 5}, "class Net(torch.nn.Linear):": {4, 5}}.get(before, {0, 1, 2})
    assert {place for place, (one, other) in enumerate(zip(first, changed, strict=True)) if one != other} == affected
    sys.modules.pop("own_module")


def test_what_a_class_counts_is_not_its_code(tmp_path):
    own = module(OWN, tmp_path)
    before = fingerprint(own.Mine())
    own.Mine.k += 1
    assert fingerprint(own.Mine()) == before


def test_code_without_a_file_counts_as_well():
    """As in a notebook, where a class has no text."""
    first, again, method, member = (fingerprint(defined(text)) for text in (
        OWN, OWN, OWN.replace("return -(", "return ("), OWN.replace("k = 1", "k = 2")
    ))  # fmt: skip
    assert first == again
    assert len({first, method, member}) == 3


def defined(text):
    """Return the detector of a text that was typed into a program."""
    names = {"__name__": "__main__"}
    exec(text, names)
    return names["Mine"]()


def test_a_mended_detector_is_compared_again(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[40:] += 2
    data = {"x": (X, np.repeat([1, -1], [40, 20]))}

    def compared(text):
        return compare_detectors({"d": module(text, tmp_path).Mine()}, data, seeds=1, out=tmp_path / "out")["auroc"][0]

    wrong = compared(OWN.replace("return -(", "return ("))
    assert compared(OWN) == 1 - wrong > 0.9
