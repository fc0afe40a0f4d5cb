"""Thresholds of scores, and rows that stand in for new ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from skood import DUMDetector, ResidualAdapterDetector, ThresholdedDetector
from skood.estimator.offset import displace
from skood.thresholds import find_offset

X = np.random.default_rng(0).normal(size=(10, 2))


@given(st.lists(st.integers(-50, 50), min_size=1), st.floats(0, 0.999))
def test_target_fpr_is_kept(scores, target):
    offset = find_offset(scores, target_fpr=target)
    assert (np.array(scores) < offset).mean() <= target + 1e-9


@given(st.lists(st.integers(-50_000, 50_000), min_size=1, unique=True), st.integers(0, 50))
def test_target_fpr_is_used_up(scores, percent):
    """Of scores that differ; those apart by rounding alone count as equal, see the tests of held-out rows."""
    scores = [score / 1000 for score in scores]
    n_flagged = (np.array(scores) < find_offset(scores, target_fpr=percent / 100)).sum()
    assert n_flagged == percent * len(scores) // 100


def test_contamination_by_hand():
    scores = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert find_offset(scores, contamination=0) == pytest.approx(1 - 1e-6)
    assert find_offset(scores, contamination=0.25) == 1.5
    assert find_offset(scores, contamination=0.3) == 2.5
    assert find_offset(scores, contamination=0.5) == 2.5
    assert find_offset(scores, offset=9) == 9


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({}, "exactly one of contamination, target_fpr and offset; got none"),
        ({"contamination": 0.1, "offset": 0.0}, "got contamination, offset"),
        ({"contamination": 0.6}, "contamination=0.6"),
        ({"contamination": -0.1}, "contamination=-0.1"),
        ({"target_fpr": 1}, "target_fpr=1"),
        ({"offset": np.nan}, "offset=nan"),
        ({"offset": np.inf}, "offset=inf"),
        ({"contamination": "auto"}, "contamination='auto'"),
    ],
)
def test_bad_wishes(wishes, message):
    with pytest.raises(ValueError, match=message):
        find_offset([1.0, 2.0], **wishes)
    with pytest.raises(ValueError, match=message):
        ThresholdedDetector(IsolationForest(n_estimators=5)).fit(X).set_threshold(**wishes)
    with pytest.raises(ValueError, match=message):
        DUMDetector(max_epochs=1, hidden_sizes=(4,)).fit(X).set_threshold(**wishes)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "finite scores only; there are none"),
        ([1.0, np.nan], "finite scores only; 1 of 2 are NaN or infinite"),
        ([[1.0], [2.0]], r"scores must be one-dimensional, .* got shape \(2, 1\)"),
        (None, r"scores must be one-dimensional, .* got shape \(\)"),
    ],
)
def test_scores_that_set_no_threshold(scores, message):
    for wish in ("contamination", "target_fpr"):
        with pytest.raises(ValueError, match=message):
            find_offset(scores, **{wish: 0.1})


def test_displaced_rows_by_hand():
    """Differences to the nearest neighbour: 1, -1 and -3; each row gets one of them."""
    rows = np.array([[0.0], [1.0], [4.0]])
    moved = displace(rows, np.random.RandomState(0)) - rows
    assert sorted(moved.ravel().tolist()) == [-3, -1, 1]
    # Any of them, by chance.
    first = {displace(rows, np.random.RandomState(seed))[0].item() for seed in range(30)}
    assert first == {-3, -1, 1}
    assert np.array_equal(displace(np.ones((5, 2)), np.random.RandomState(0)), np.ones((5, 2)))


@pytest.mark.parametrize(
    "detector",
    [
        DUMDetector(hidden_sizes=(4,), max_epochs=1),
        ResidualAdapterDetector("mlp", hidden_sizes=(4,), adaptation="frozen", pretrain_epochs=1),
    ],
)
def test_a_fit_fits_no_estimator_that_a_log_could_take_for_the_model(detector, monkeypatch):
    """As MLflow does, which notes the last fit of one of scikit-learn's estimators."""

    def fit(self, *args):
        raise AssertionError("a model within the model")

    monkeypatch.setattr(NearestNeighbors, "fit", fit)
    assert len(detector.fit(np.random.default_rng(0).normal(size=(30, 3))).predict(np.zeros((2, 3)))) == 2
