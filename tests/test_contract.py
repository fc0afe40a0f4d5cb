"""scikit-learn's own checks over every public estimator, none failing and none expected to."""

from unittest import SkipTest

import pytest
import torch
from configurations import (
    CLASSIFIERS,
    CONFIGURATIONS,
    ENCODERS,
    WRAPPERS,
    named,
    public_estimators,
    what_to_write,
)
from sklearn.base import BaseEstimator, clone, is_outlier_detector
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from skood.estimator.base import OutlierDetector

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


NO_DETECTORS = CLASSIFIERS | ENCODERS


@parametrize_with_checks([*CONFIGURATIONS.values(), *NO_DETECTORS.values()])
def test_network(estimator, check):
    run(estimator, check)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("estimator", "check"), **comparing_scores(NO_DETECTORS))
def test_network_on_two_threads(estimator, check):
    run(estimator, check)


@parametrize_with_checks(list(WRAPPERS.values()))
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


def test_every_public_estimator_has_a_configuration():
    everything = CONFIGURATIONS | CLASSIFIERS | ENCODERS | WRAPPERS
    others = [one for one in public_estimators() if not issubclass(one, OutlierDetector)]
    missing = what_to_write(others, "CLASSIFIERS, ENCODERS or WRAPPERS", everything)
    missing += what_to_write(public_estimators(OutlierDetector), "CONFIGURATIONS", CONFIGURATIONS)
    assert not missing, "\n".join(missing)


def test_an_estimator_without_a_configuration_is_named():
    class Forgotten(BaseEstimator):
        pass

    (message,) = what_to_write([Forgotten, *public_estimators(OutlierDetector)], "CONFIGURATIONS", CONFIGURATIONS)
    assert "Forgotten(...)" in message
    assert "CONFIGURATIONS in tests/configurations.py" in message
