"""Thresholds and conformal p-values, around detectors of any make."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skood import (
    ConformalDetector,
    DUMDetector,
    LabelWarning,
    OpenSetClassifier,
    RejectClassDetector,
    ThresholdedDetector,
)
from skood.drift import drift_test
from skood.model_selection import HideLabels

# The tests set thresholds themselves: "auto" would fit three more networks each time.
DUM = DUMDetector(hidden_sizes=(8,), max_epochs=100, contamination=0, random_state=0, device="cpu")
DETECTORS = [
    IsolationForest(n_estimators=20, random_state=0),
    LocalOutlierFactor(novelty=True),
    OneClassSVM(),
    EllipticEnvelope(random_state=0),
    make_pipeline(StandardScaler(), IsolationForest(n_estimators=20, random_state=0)),
    DUM,
]
# It learns classes. With this seed, a ConformalDetector holds out the last two of 400 rows.
LEARNER = RejectClassDetector(hidden_sizes=(8,), max_epochs=1, contamination=0, random_state=0)
HELD_OUT = 1
NAMES = ["forest", "lof", "svm", "envelope", "pipeline", "dum"]
any_detector = pytest.mark.parametrize("detector", DETECTORS, ids=NAMES)
X = np.random.default_rng(0).normal(size=(400, 2))


class Identity(BaseEstimator):
    """The score is the first feature; there is nothing to fit."""

    def fit(self, X, y=None):
        self.n_fitted_ = len(X)
        self.y_ = y
        return self

    def decision_function(self, X):
        return np.asarray(X)[:, 0]


# ------------------------------------------------------------------------------------------------------ set_threshold


def test_failing_leaves_the_old_model_whole():
    model = ThresholdedDetector(EllipticEnvelope(random_state=0), contamination=0.1).fit(X)
    before = model.predict(X)
    with pytest.raises(ValueError, match=r"contamination=0\.7"):
        model.set_params(contamination=0.7).fit(X * 50)
    assert np.array_equal(model.predict(X), before)
    conformal = ConformalDetector(EllipticEnvelope(random_state=0), alpha=0.1, random_state=0).fit(X)
    before = conformal.p_values(X)
    with pytest.raises(ValueError, match=r"alpha=0\.001"):
        conformal.set_params(alpha=0.001).fit(X * 50)
    assert np.array_equal(conformal.p_values(X), before)
    prefit = ThresholdedDetector(IsolationForest(random_state=0).fit(X))
    with pytest.raises(ValueError, match=r"contamination=0\.9"):
        prefit.set_threshold(contamination=0.9, X=X)
    for method in ("p_values", "predict_fdr"):
        with pytest.raises(NotFittedError):
            getattr(ConformalDetector(DUM), method)(X)
    with pytest.raises(NotFittedError):
        prefit.predict(X)


class OwnNames:
    """A detector that keeps what it learnt under a name of its own, and is no estimator of scikit-learn."""

    def fit(self, X, y=None):
        self.middle = np.mean(X, axis=0)
        return self

    def score_samples(self, X):
        return -np.abs(np.asarray(X) - self.middle).sum(axis=1)


class OwnNamesOfAnEstimator(OwnNames, BaseEstimator):
    """The same, as an estimator."""


@pytest.mark.parametrize("make", [OwnNames, OwnNamesOfAnEstimator])
def test_fitted_detectors_that_do_not_tell_that_they_are(make):
    fitted = make().fit(X[:200])
    model = ThresholdedDetector(fitted).set_threshold(target_fpr=0.05, X=X[200:])
    assert (model.predict(X[200:]) == -1).sum() == 10
    assert ThresholdedDetector(fitted).set_threshold(offset=model.offset_).decision_function(X[:1]).shape == (1,)
    frozen = ThresholdedDetector(FrozenEstimator(fitted), target_fpr=0.05).fit(X[200:])
    assert np.array_equal(frozen.predict(X), model.predict(X))
    assert ConformalDetector(FrozenEstimator(fitted)).fit(X[200:]).p_values(X[:1]).shape == (1,)
    with pytest.raises(NotFittedError):
        ThresholdedDetector(OwnNamesOfAnEstimator()).set_threshold(offset=0.0)
    with pytest.raises(NotFittedError):
        ThresholdedDetector(FrozenEstimator(IsolationForest())).fit(X)


def test_the_marker_is_seen_through_pipelines_and_wrappers():
    y = np.repeat(["in", "out"], [300, 100])
    marked = clone(DUM).set_params(outlier_label="out", max_epochs=5)
    for detector in (marked, make_pipeline(StandardScaler(), marked), HideLabels(marked)):
        assert len(ThresholdedDetector(detector).fit(X, y).training_scores_) == 300


@any_detector
def test_threshold_around_any_detector(detector):
    model = ThresholdedDetector(clone(detector)).fit(X[:200])
    scores = model.score_samples(X)
    assert (model.predict(X[:200]) == 1).all()
    inner = model.estimator_
    assert model.set_threshold(contamination=0.1) is model
    assert (model.predict(X[:200]) == -1).sum() == 20
    model.set_threshold(target_fpr=0.05, X=X[200:])
    assert (model.predict(X[200:]) == -1).sum() == 10
    model.set_threshold(offset=np.sort(scores)[7])
    assert (model.predict(X) == -1).sum() == 7
    assert model.estimator_ is inner
    assert np.array_equal(model.decision_function(X), scores - model.offset_)


def test_threshold_of_a_skood_detector():
    model = clone(DUM).fit(X[:200])
    net, scores = model.net_, model.score_samples(X)
    assert (model.set_threshold(contamination=0).predict(X[:200]) == 1).all()
    assert (model.set_threshold(contamination=0.25).predict(X[:200]) == -1).sum() == 50
    assert (model.set_threshold(target_fpr=0.1, X=X[200:]).predict(X[200:]) == -1).sum() == 20
    assert (model.set_threshold(offset=np.sort(scores)[3]).predict(X) == -1).sum() == 3
    assert model.net_ is net
    np.testing.assert_array_equal(model.training_scores_, np.sort(scores[:200]))


@any_detector
def test_a_fitted_detector_is_taken_as_it_is(detector):
    fitted = clone(detector).fit(X[:200])
    model = ThresholdedDetector(fitted).set_threshold(target_fpr=0.05, X=X[200:])
    assert model.estimator_ is fitted
    assert (model.predict(X[200:]) == -1).sum() == 10
    with pytest.raises(ValueError, match="fitted elsewhere: pass rows X"):
        ThresholdedDetector(fitted).set_threshold(target_fpr=0.05)
    frozen = ThresholdedDetector(FrozenEstimator(fitted), target_fpr=0.1).fit(X[200:])
    assert (frozen.predict(X[200:]) == -1).sum() == 20


def test_wishes_of_the_constructor():
    assert (ThresholdedDetector(Identity(), contamination=0.5).fit(X).predict(X) == -1).sum() == 200
    assert (ThresholdedDetector(Identity(), target_fpr=0.25).fit(X).predict(X) == -1).sum() == 100
    with pytest.raises(ValueError, match="got contamination, target_fpr"):
        ThresholdedDetector(Identity(), contamination=0.1, target_fpr=0.1).fit(X)


def test_outliers_have_no_part_in_the_threshold():
    y = np.repeat([1, -1], [300, 100])
    model = ThresholdedDetector(Identity(), target_fpr=0.1).fit(X, y)
    assert (model.predict(X[:300]) == -1).sum() == 30
    assert model.estimator_.y_ is not None
    with pytest.raises(ValueError, match="every row as an outlier"):
        ThresholdedDetector(Identity()).fit(X, -np.ones(400))


class Columns(Identity):
    """As a network may do, it returns a column of scores, or the logits of classes."""

    def decision_function(self, X):
        return np.asarray(X)[:, self.columns]


@pytest.mark.parametrize("columns", [[0], [0, 1]])
def test_scores_are_one_number_for_each_row(columns):
    """A column of scores made `predict` return a column, and all others fail with numpy's messages."""
    detector = FrozenEstimator(Columns().fit(X))
    detector.estimator.columns = columns
    message = rf"decision_function of .* an array of shape \(\d+, {len(columns)}\) for \d+ rows; .*OODScorer"
    for wrap in (ThresholdedDetector, ConformalDetector, HideLabels):
        with pytest.raises(ValueError, match=message):
            wrap(detector).fit(X).score_samples(X)
    with pytest.raises(ValueError, match=message):
        ThresholdedDetector(detector).set_threshold(target_fpr=0.1, X=X[:50])
    with pytest.raises(ValueError, match=message):
        drift_test(detector, X[:50], reference=X[50:])


def test_what_has_no_scores():
    with pytest.raises(TypeError, match="novelty=True"):
        ThresholdedDetector(LocalOutlierFactor()).fit(X)


# ---------------------------------------------------------------------------------------------------------- conformal


def test_p_values_by_hand():
    """Calibration scores 1, 2, 3, 4: p = (1 + number at most x) / 5."""
    rows = np.array([[1.0, 0], [2.0, 0], [3.0, 0], [4.0, 0]])
    model = ConformalDetector(FrozenEstimator(Identity().fit(rows)), alpha=0.4).fit(rows)
    assert model.p_values([[0.5, 0], [1.0, 0], [2.5, 0], [9.0, 0]]) == pytest.approx([0.2, 0.4, 0.6, 1.0])
    assert model.predict([[0.5, 0], [1.0, 0], [2.5, 0], [9.0, 0]]).tolist() == [-1, -1, 1, 1]


def test_a_row_without_a_score_is_the_most_unusual():
    rows = np.column_stack([np.arange(1.0, 100), np.zeros(99)])
    model = ConformalDetector(FrozenEstimator(Identity().fit(rows)), alpha=0.1).fit(rows)
    bad = np.array([[np.nan, 0], [50, 0]])
    assert model.p_values(bad).tolist() == [0.01, 0.51]
    assert model.predict(bad).tolist() == [-1, 1]
    assert model.predict_fdr(bad).tolist() == [-1, 1]
    # Among the calibration rows it ranks lowest, too.
    rows[98] = np.nan
    model = ConformalDetector(FrozenEstimator(Identity().fit(rows)), alpha=0.1).fit(rows)
    assert model.p_values([[0.5, 0], [98, 0]]).tolist() == [0.02, 1]


@pytest.mark.parametrize("lowest", [-np.inf, np.nan])
@pytest.mark.filterwarnings("error")
def test_as_many_false_alarms_where_more_calibration_rows_than_alpha_have_the_lowest_score(lowest):
    """A fifth of the inliers has no finite score, so that such a row is nothing unusual."""
    rows = np.column_stack([np.where(np.arange(100) % 5, 1.0, lowest), np.zeros(100)])
    model = ConformalDetector(FrozenEstimator(Identity().fit(rows)), alpha=0.1).fit(rows)
    assert model.p_values(rows[:2]).tolist() == [21 / 101, 1]
    assert model.predict(rows).tolist() == [1] * 100
    assert model.decision_function(rows[:2]).tolist() == [0, np.inf]


@pytest.mark.filterwarnings("error")
def test_a_density_that_is_zero_for_many_rows_raises_no_more_false_alarms():
    """A kernel of bounded support gives most rows, and most calibration rows, a score of minus infinity."""
    density = KernelDensity(kernel="tophat", bandwidth=0.05)
    model = ConformalDetector(density, alpha=0.05, random_state=0).fit(X[:200])
    assert np.array_equal(model.predict(X) == -1, model.p_values(X) <= 0.05)
    assert (model.predict(X) == 1).all()


@pytest.mark.filterwarnings("error")
def test_infinitely_normal_rows_are_no_outliers():
    rows = np.column_stack([np.repeat([0.0, np.inf], [2, 98]), np.zeros(100)])
    model = ConformalDetector(FrozenEstimator(Identity().fit(rows)), alpha=0.05).fit(rows)
    assert model.predict(rows).tolist() == [-1] * 2 + [1] * 98


def test_discoveries_that_meet_the_bound_exactly_are_made():
    """17 rows of 25 have p = 17 / 500, and .05 * 17 / 25 = 17 / 500."""
    rows = np.column_stack([np.arange(1.0, 500), np.zeros(499)])
    model = ConformalDetector(FrozenEstimator(Identity().fit(rows))).fit(rows)
    batch = np.column_stack([np.repeat([16.5, 600], [17, 8]), np.zeros(25)])
    assert (model.predict_fdr(batch, fdr=0.05) == -1).tolist() == [True] * 17 + [False] * 8
    assert (model.predict_fdr(batch, fdr=0.0499) == 1).all()


@given(st.integers(1, 120), st.integers(1, 99))
def test_predictions_are_p_values_whatever_the_level(n, percent):
    """Of calibration scores 1 to n: those are called outliers whose p-value is at most the level."""
    assume(percent * (n + 1) >= 100)
    rows = np.column_stack([np.arange(1.0, n + 1), np.zeros(n)])
    model = ConformalDetector(FrozenEstimator(Identity().fit(rows)), alpha=percent / 100).fit(rows)
    n_called = (model.predict(rows - [0.5, 0]) == -1).sum()
    # Half a step lower, the k-th row has k - 1 scores below it: p = k / (n + 1).
    assert n_called == percent * (n + 1) // 100


@any_detector
def test_predictions_are_p_values_at_the_level(detector):
    model = ConformalDetector(clone(detector), alpha=0.1, random_state=0).fit(X[:200])
    assert len(model.calibration_scores_) == 100
    assert np.array_equal(model.predict(X) == -1, model.p_values(X) <= 0.1)
    assert np.array_equal(model.decision_function(X) < 0, model.p_values(X) <= 0.1)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_false_alarms_are_bounded(alpha):
    """Exchangeable rows: over repeated draws of calibration and new rows false alarms stay within a binomial bound."""
    rng, n_alarms, n_trials = np.random.default_rng(0), 0, 4000
    for _ in range(n_trials):
        calibration, new = rng.normal(size=(60, 1)), rng.normal(size=(1, 1))
        model = ConformalDetector(FrozenEstimator(Identity().fit(calibration)), alpha=alpha).fit(calibration)
        n_alarms += (model.predict(new) == -1).sum()
    # With 60 calibration rows the level that can be had is floor(61 alpha) / 61.
    level = np.floor(61 * alpha) / 61
    assert stats.binomtest(int(n_alarms), n_trials, alpha, alternative="greater").pvalue > 1e-3
    assert stats.binomtest(int(n_alarms), n_trials, level).pvalue > 1e-3


def test_false_discoveries_are_bounded():
    """Over batches of 80 inliers and 20 outliers the mean share of false alarms among the alarms is at most fdr."""
    rng, shares, found = np.random.default_rng(0), [], []
    for _ in range(300):
        calibration = rng.normal(size=(500, 1))
        batch = np.vstack([rng.normal(size=(80, 1)), rng.normal(-4, 1, size=(20, 1))])
        model = ConformalDetector(FrozenEstimator(Identity().fit(calibration))).fit(calibration)
        alarm = model.predict_fdr(batch, fdr=0.2) == -1
        shares.append(alarm[:80].sum() / max(alarm.sum(), 1))
        found.append(alarm[80:].mean())
    assert np.mean(shares) < 0.2 + 3 * np.std(shares) / np.sqrt(300)
    assert np.mean(found) > 0.8


def test_calibration_rows_are_inliers_and_not_trained_on():
    y = np.repeat([1, -1], [300, 100])
    model = ConformalDetector(Identity(), calibration_size=0.2, random_state=0).fit(X, y)
    assert len(model.calibration_scores_) == 60
    assert model.estimator_.n_fitted_ == 340
    assert (model.estimator_.y_ == -1).sum() == 100
    assert set(model.calibration_scores_) <= set(X[:300, 0])
    unmarked = ConformalDetector(Identity(), calibration_size=0.2, random_state=0).fit(X)
    assert (unmarked.estimator_.n_fitted_, len(unmarked.calibration_scores_)) == (320, 80)
    other = ConformalDetector(Identity(), calibration_size=0.2, random_state=1).fit(X)
    assert not np.array_equal(unmarked.calibration_scores_, other.calibration_scores_)


RARE = np.r_[np.repeat(["u", "v"], 199), ["w"] * 2]


@pytest.mark.parametrize(
    "detector",
    [LEARNER, make_pipeline(StandardScaler(), LEARNER), ThresholdedDetector(LEARNER)],
    ids=lambda detector: type(detector).__name__,
)
def test_a_rare_class_that_is_held_out_is_told_of(detector):
    """The split is random, whatever the classes: of the two rows of a class both may calibrate."""
    told = 0
    for seed in range(8):
        model = ConformalDetector(detector, random_state=seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(X, RARE)
        lost = "w" not in model.classes_
        assert [str(one.message)[:60] for one in caught] == [
            "all rows of class 'w' are held out to calibrate on, so that "
        ] * lost
        told += lost
    assert 0 < told < 8
    message = r"class 'w' .*smaller calibration_size.*FrozenEstimator"
    with pytest.warns(RuntimeWarning, match=message):
        OpenSetClassifier(ConformalDetector(detector, random_state=HELD_OUT), reject_label="?").fit(X, RARE)


def test_nothing_is_told_where_no_class_is_lost():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConformalDetector(LEARNER, calibration_size=0.1, random_state=HELD_OUT).fit(X, RARE)
        ConformalDetector(LEARNER, random_state=HELD_OUT).fit(X)
        frozen = FrozenEstimator(clone(LEARNER).fit(X, RARE))
        assert "w" in ConformalDetector(frozen, random_state=HELD_OUT).fit(X, RARE).classes_
        # Rows that mark outliers are never held out.
        y = np.where(RARE == "w", "none", "u")
        ConformalDetector(clone(LEARNER).set_params(outlier_label="none"), random_state=HELD_OUT).fit(X, y)
        # A detector that learns no classes loses none.
        warnings.simplefilter("ignore", LabelWarning)
        ConformalDetector(Identity(), random_state=HELD_OUT).fit(X, RARE)


@pytest.mark.parametrize(
    ("params", "rows", "message"),
    [
        ({"alpha": 0}, X, "alpha=0"),
        ({"calibration_size": 1}, X, "calibration_size=1"),
        ({"calibration_size": 0.999}, X, "calibration_size=0.999 leaves 0 of 400 inliers .* choose a smaller one"),
        ({"calibration_size": 0.99}, X[:100], "calibration_size=0.99 leaves 1 of 100 inliers"),
        ({"alpha": 0.6}, X[:2], "n_samples=2 inliers cannot be split .* at least 3"),
        ({"alpha": 0.01}, X[:100], "50 calibration rows; give 99 of them"),
        ({}, X[:1], "1 inlier"),
    ],
)
def test_bad_conformal_parameters(params, rows, message):
    with pytest.raises(ValueError, match=message):
        ConformalDetector(Identity(), **params).fit(rows)
    with pytest.raises(ValueError, match="fdr=1"):
        ConformalDetector(Identity()).fit(X).predict_fdr(X, fdr=1)
