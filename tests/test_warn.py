"""Every warning names the line of the user's program that it is about, however the call reached skood."""

import signal

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback

from skood import (
    DUMDetector,
    FrozenEncoder,
    RejectClassDetector,
    ResidualAdapterDetector,
    SimCLREncoder,
    compare_detectors,
)
from skood.backbones import SHIPPED

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3))
PIXELS = 255 * rng.random((12, 3, 8, 8))


class Constant(torch.nn.Module):
    """Gives every row the same features."""

    def forward(self, x):
        return torch.ones_like(x)


class ZeroLinear(torch.nn.Linear):
    """Gives every row the same logits."""

    def forward(self, x):
        return super().forward(0 * x)


class StopAfterTwo(Callback):
    """Sends the process the signal of Ctrl-C after two epochs."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            signal.raise_signal(signal.SIGINT)


WARNINGS = {
    "shape": (DUMDetector(image_shape=(6, 6, 3), max_epochs=1), rng.random((12, 108)), "means 6 channels of 6 x 3"),
    "scores": (ResidualAdapterDetector(Constant(), adaptation="frozen"), X, "all rows have the same score"),
    "embeddings": (SimCLREncoder(network=ZeroLinear, max_epochs=1), X, "the encoder has collapsed"),
    "logits": (RejectClassDetector(network=ZeroLinear, max_epochs=1), X, "training has collapsed"),
    "pixels": (FrozenEncoder(SHIPPED), PIXELS, r"the backbone takes pixels in \[0, 1\]"),
    "encoder": (DUMDetector(encoder=SHIPPED, max_epochs=1), PIXELS, r"the encoder takes pixels in \[0, 1\]"),
    "backbone": (ResidualAdapterDetector(SHIPPED, max_epochs=1), PIXELS, r"the backbone takes pixels in \[0, 1\]"),
}
each_warning = pytest.mark.parametrize(("estimator", "rows", "message"), WARNINGS.values(), ids=list(WARNINGS))


@each_warning
def test_fit_is_named(estimator, rows, message):
    with pytest.warns(RuntimeWarning, match=message) as record:
        estimator.fit(rows)
    assert {warning.filename for warning in record} == {__file__}


@each_warning
def test_fit_of_a_pipeline_is_named(estimator, rows, message):
    with pytest.warns(RuntimeWarning, match=message) as record:
        make_pipeline(FunctionTransformer(), estimator).fit(rows)
    assert {warning.filename for warning in record} == {__file__}


def test_fit_of_a_search_is_named():
    estimator, rows, message = WARNINGS["shape"]
    search = GridSearchCV(estimator, {"max_epochs": [1]}, scoring=lambda model, X, y=None: 0.0, cv=2)
    with pytest.warns(RuntimeWarning, match=message) as record:
        search.fit(rows)
    assert {warning.filename for warning in record} == {__file__}


@pytest.mark.parametrize("pipeline", [False, True])
def test_an_interrupted_fit_is_named(pipeline):
    model = DUMDetector(callbacks=[StopAfterTwo()], max_epochs=50, contamination=0)
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match="interrupted after 2 epochs") as record:
        (make_pipeline(FunctionTransformer(), model) if pipeline else model).fit(X)
    assert {warning.filename for warning in record} == {__file__}


class Interrupted(BaseEstimator):
    def fit(self, X, y=None):
        raise KeyboardInterrupt


def test_an_interrupted_comparison_is_named():
    data = {"blob": (X, np.repeat([1, -1], [30, 10]))}
    with pytest.warns(RuntimeWarning, match="0 of 1 fits are finished") as record:
        compare_detectors({"interrupted": Interrupted()}, data, seeds=1)
    assert {warning.filename for warning in record} == {__file__}
