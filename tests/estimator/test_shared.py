"""Trained networks and estimators that are parameters, which clones share: their own parameters are out of reach."""

import pickle

import numpy as np
import pytest
import torch
from configurations import public_estimators
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

from skood import (
    BackboneClassifier,
    DUMDetector,
    FrozenEncoder,
    OODScorer,
    ResidualAdapterDetector,
    SimCLREncoder,
    ThresholdedDetector,
)
from skood.metrics import get_scorer
from skood.model_selection import DropOutliers

X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.arange(60) % 2
SHORT = {"max_epochs": 1, "contamination": 0, "random_state": 0}
SIMCLR = SimCLREncoder(max_epochs=1, embedding_size=4, random_state=0).fit(X)
BACKBONE = BackboneClassifier(max_epochs=1, random_state=0).fit(X, Y)

# An estimator that holds something trained, the name of that parameter, and a parameter of what is trained.
HOLDERS = {
    "dum": (DUMDetector(encoder=SIMCLR, **SHORT), "encoder", "embedding_size"),
    "dum-frozen": (DUMDetector(encoder=FrozenEstimator(SIMCLR), **SHORT), "encoder", "estimator"),
    "adapters": (ResidualAdapterDetector(BACKBONE, **SHORT), "backbone", "max_epochs"),
    "frozen-encoder": (FrozenEncoder(SIMCLR), "backbone", "max_epochs"),
    "scorer": (OODScorer(BACKBONE), "classifier", "max_epochs"),
}


def values_of(estimator):
    return {name: repr(value) for name, value in estimator.get_params().items()}


def test_all_that_clones_share_is_tried():
    held = {(type(holder), name) for holder, name, _ in HOLDERS.values()}
    shared = {(one, name) for one in public_estimators() for name in getattr(one, "_shared_params", ())}
    # A layer is one of the classifier's modules, and has no parameters by name.
    assert held == shared - {(OODScorer, "layer")}


@pytest.mark.parametrize("key", HOLDERS)
def test_parameters_of_what_is_trained_are_out_of_reach(key):
    holder, name, nested = HOLDERS[key]
    trained = getattr(holder, name)
    before = values_of(trained)
    params = holder.get_params()
    assert params[name] is trained
    assert params.keys() == holder.get_params(deep=False).keys()
    copied = clone(holder)
    assert getattr(copied, name) is trained
    message = rf"{name}__{nested} is no parameter of {type(holder).__name__}.*{name} have no effect.*Set them before"
    with pytest.raises(ValueError, match=message):
        copied.set_params(**{f"{name}__{nested}": 77})
    piped = make_pipeline(StandardScaler(), clone(holder))
    assert not any(f"{name}__" in one for one in piped.get_params())
    with pytest.raises(ValueError, match=message):
        piped.set_params(**{f"{piped.steps[-1][0]}__{name}__{nested}": 77})
    assert values_of(trained) == before


@pytest.mark.parametrize("key", HOLDERS)
def test_what_holds_something_trained_works_as_any_estimator(key):
    holder, name, _ = HOLDERS[key]
    fitted = clone(holder).fit(X)
    again = pickle.loads(pickle.dumps(fitted))
    for respond in ("score_samples", "transform"):
        if hasattr(fitted, respond):
            np.testing.assert_array_equal(getattr(again, respond)(X), getattr(fitted, respond)(X))
    assert type(getattr(holder, name)).__name__ in fitted._repr_html_()
    assert name in repr(fitted)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    skorch = NeuralNetClassifier(module, max_epochs=1, verbose=0).initialize()
    for other in (module, skorch):
        moved = clone(holder).set_params(**{name: other})
        assert moved.get_params()[name] is other
        assert moved.get_params().keys() == holder.get_params().keys()
        assert clone(moved).fit(X).get_params()[name] is other


@pytest.mark.parametrize("wrap", [DropOutliers, ThresholdedDetector])
def test_a_search_over_parameters_of_what_is_trained_is_refused(wrap):
    detector = wrap(DUMDetector(encoder=SIMCLR, **SHORT))
    options = {"scoring": get_scorer("auroc"), "cv": 2, "refit": False}
    y = np.tile([1, 1, -1], 20)
    search = GridSearchCV(detector, {"estimator__encoder__embedding_size": [2, 8]}, **options)
    with pytest.raises(ValueError, match=r"encoder__embedding_size is no parameter of DUMDetector"):
        search.fit(X, y)
    assert SIMCLR.embedding_size == 4
    encoders = [SIMCLR, clone(SIMCLR).set_params(embedding_size=8).fit(X)]
    GridSearchCV(detector, {"estimator__encoder": list(map(FrozenEstimator, encoders))}, **options).fit(X, y)
