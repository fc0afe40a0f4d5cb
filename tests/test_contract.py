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
    with_checks,
)
from sklearn.base import BaseEstimator, clone, is_outlier_detector

from skood.estimator.base import OutlierDetector

# The checks give 0, 1 and 2 as y to every estimator, whatever it reads in them.
pytestmark = pytest.mark.filterwarnings("ignore::skood.LabelWarning")

# What two threads could change: they split sums otherwise. Detectors have an invariant of their own for that.
COMPARE_SCORES = {"check_methods_sample_order_invariance", "check_methods_subset_invariance"}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def run(estimator, check):
    try:
        check(estimator)
    except SkipTest as skipped:
        if "array_api" not in str(check) and "array API" not in str(skipped):
            pytest.fail(f"scikit-learn skipped the check: {skipped}")
        raise


NO_DETECTORS = CLASSIFIERS | ENCODERS


@pytest.mark.parametrize(**with_checks(CONFIGURATIONS | NO_DETECTORS))
def test_network(estimator, check):
    run(estimator, check)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(**with_checks(NO_DETECTORS, only=COMPARE_SCORES))
def test_network_on_two_threads(estimator, check):
    run(estimator, check)


@pytest.mark.parametrize(**with_checks(WRAPPERS))
def test_estimators_around_others(estimator, check):
    run(estimator, check)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    **with_checks({name: clone(detector).set_params(device="cuda") for name, detector in CONFIGURATIONS.items()})
)
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
