"""scikit-learn's own checks, every detector, none failing and none expected to."""

from unittest import SkipTest

import pytest
import torch
from configurations import CONFIGURATIONS, RowStatistics, named
from sklearn.base import clone, is_outlier_detector
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from skood import (
    BackboneClassifier,
    ConformalDetector,
    FitOnInliers,
    FrozenEncoder,
    OODScorer,
    OpenSetClassifier,
    RejectClassDetector,
    RotationAuxClassifier,
    SimCLREncoder,
    ThresholdedDetector,
)
from skood.model_selection import DropOutliers, HideLabels

# What two threads could change: they split sums otherwise. Detectors have an invariant of their own for that.
COMPARE_SCORES = {"check_methods_sample_order_invariance", "check_methods_subset_invariance"}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def comparing_scores(estimators):
    """Arguments of pytest.mark.parametrize over estimators and the checks that compare scores."""
    found = {}
    for name, estimator in estimators.items():
        for own, check in estimator_checks_generator(estimator):
            if check.func.__name__ in COMPARE_SCORES:
                found[f"{name}-{check.func.__name__}"] = (own, check)
    return {"argvalues": list(found.values()), "ids": list(found)}


def run(estimator, check):
    try:
        check(estimator)
    except SkipTest as skipped:
        if "array_api" not in str(check) and "array API" not in str(skipped):
            pytest.fail(f"scikit-learn skipped the check: {skipped}")
        raise


# Long enough for the checks that ask for accuracy.
CLASSIFIERS = {
    "backbone-vectors": BackboneClassifier(hidden_sizes=(16,), max_epochs=30, batch_size=32),
    "backbone-images": BackboneClassifier("resnet-8-4", max_epochs=15, batch_size=32, lr=0.02, image_shape=(1, 1, -1)),
}

ENCODERS = {
    "contrastive-vectors": SimCLREncoder(embedding_size=6, hidden_sizes=(16,), max_epochs=4, batch_size=16),
    "contrastive-images": SimCLREncoder(
        "resnet-8-2", embedding_size=6, max_epochs=1, batch_size=64, output="features", image_shape=(1, 1, -1)
    ),
    "frozen": FrozenEncoder(RowStatistics()),
    "frozen-layer": FrozenEncoder(RowStatistics(), layer="hidden", std=2.0),
}
NO_DETECTORS = CLASSIFIERS | ENCODERS


@parametrize_with_checks([*CONFIGURATIONS.values(), *NO_DETECTORS.values()])
def test_network(estimator, check):
    run(estimator, check)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("estimator", "check"), **comparing_scores(NO_DETECTORS))
def test_network_on_two_threads(estimator, check):
    run(estimator, check)


@parametrize_with_checks(
    [
        FitOnInliers(StandardScaler()),
        FitOnInliers(MinMaxScaler()),
        ThresholdedDetector(EllipticEnvelope(support_fraction=1.0), contamination=0.1),
        ConformalDetector(IsolationForest(n_estimators=10, random_state=0), alpha=0.3),
        DropOutliers(IsolationForest(n_estimators=10, random_state=0)),
        HideLabels(IsolationForest(n_estimators=10, random_state=0)),
        # One that rejects gives labels that y does not hold; one to which -1 means an outlier has no class -1.
        OpenSetClassifier(
            RejectClassDetector(hidden_sizes=(32,), max_epochs=30, batch_size=32, outlier_label="none", random_state=0),
            reject_label="unknown",
            reject=False,
        ),
        OpenSetClassifier(
            RotationAuxClassifier(
                hidden_sizes=(32,), max_epochs=30, batch_size=32, outlier_label="none", random_state=0
            ),
            reject_label="unknown",
            reject=False,
        ),
        OODScorer(RowStatistics()),
        OODScorer(RowStatistics(), "mahalanobis"),
        OODScorer(RowStatistics(), "odin"),
    ]
)
def test_estimators_around_others(estimator, check):
    run(estimator, check)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@parametrize_with_checks([clone(detector).set_params(device="cuda") for detector in CONFIGURATIONS.values()])
def test_detector_on_cuda(estimator, check):
    run(estimator, check)


@pytest.mark.parametrize("detector", **named())
def test_is_an_outlier_detector(detector):
    assert is_outlier_detector(detector)
