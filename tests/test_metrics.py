import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin, OutlierMixin
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, check_scoring, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skood import LabelWarning, metrics
from skood.metrics import (
    answers,
    aupr_in,
    aupr_out,
    aurc,
    auroc,
    coverage_at_risk,
    detection_error,
    fpr_at_tpr,
    get_scorer,
    misclassification_at_tpr,
    risk_coverage_curve,
    selective_at_tpr,
)
from skood.model_selection import HideLabels

# Four inliers, three outliers; one outlier hides at 3.5.
Y = np.array([1, 1, 1, 1, -1, -1, -1])
SCORE = np.array([4.0, 3.0, 2.0, 1.0, 3.5, 0.5, 0.0])


def test_scores_in_other_containers():
    """Tensors count as arrays; a score behind a mask is missing."""
    y, score = [1, 1, -1, -1], [3.0, 1.0, 2.0, 0.0]
    for tensor in (torch.tensor(score, requires_grad=True), torch.tensor(score, dtype=torch.bfloat16)):
        assert auroc(torch.tensor(y), tensor) == 0.75
    with pytest.raises(ValueError, match="score contains NaN"):
        auroc(y, np.ma.masked_array(score, mask=[0, 1, 0, 0]))


def test_by_hand():
    # Pairs in which the outlier scores lower: 1 for 3.5, 4 for 0.5, 4 for 0; of 12.
    assert auroc(Y, SCORE) == pytest.approx(9 / 12)
    # From the lowest score: out, out, in, in, in, out, in. Precision 1, 1 and 3/6 at each third of recall.
    assert aupr_out(Y, SCORE) == pytest.approx((1 + 1 + 3 / 6) / 3)
    # From the highest: in, out, in, in, in, out, out.
    assert aupr_in(Y, SCORE) == pytest.approx((1 + 2 / 3 + 3 / 4 + 4 / 5) / 4)
    # Below 1 lie two of three outliers and no inlier.
    assert detection_error(Y, SCORE) == pytest.approx((1 / 3 + 0) / 2)
    assert fpr_at_tpr(Y, SCORE) == 0.75
    assert fpr_at_tpr(Y, SCORE, tpr=0.5) == 0
    assert fpr_at_tpr(Y, SCORE, tpr=2 / 3) == 0


def test_ties_and_perfection():
    assert auroc([1, -1], [0, 0]) == 0.5
    assert fpr_at_tpr([1, -1], [0, 0]) == 1
    assert fpr_at_tpr([1, 1, -1], [1, 2, 0]) == 0
    assert auroc([1, 1, -1], [1, 2, 0]) == aupr_out([1, 1, -1], [1, 2, 0]) == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2))
def test_as_scikit_learn_with_outliers_positive(rows):
    outlier, score = (np.array(column) for column in zip(*rows, strict=True))
    if outlier.all() or not outlier.any():
        return
    y = np.where(outlier, -1, 1)
    assert auroc(y, score) == roc_auc_score(outlier, -score)
    assert aupr_out(y, score) == average_precision_score(outlier, -score)
    assert aupr_in(y, score) == average_precision_score(~outlier, score)
    errors = [np.mean(score[outlier] > t) + np.mean(score[~outlier] <= t) for t in [*score, -99]]
    assert detection_error(y, score) == pytest.approx(min(errors) / 2)
    rates = [np.mean(score[~outlier] <= t) for t in score if np.mean(score[outlier] <= t) >= 0.95]
    assert fpr_at_tpr(y, score) == pytest.approx(min(rates))


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_scores_of_any_type(dtype):
    score = np.array([1, 1, 1, 0], dtype=dtype)
    assert auroc([1, 1, -1, -1], score) == auroc([1, 1, -1, -1], score.astype(float)) == 0.75


def test_classes_are_inliers():
    assert auroc([0, 3, 7, 7, -1, -1, -1], SCORE) == auroc(Y, SCORE)


@pytest.mark.parametrize(
    ("outlier_label", "code"),
    [
        (1, {-1: 1, 1: 0}),
        (True, {-1: True, 1: False}),
        ("fraud", {-1: "fraud", 1: "ok"}),
        (["dos", 7], {-1: 7, 1: "ok"}),
    ],
)
def test_any_label_marks_outliers(outlier_label, code):
    """What a metric of -1 and 1 says, it says of other labels, too; unnamed, they are refused."""
    coded = pd.Series([code[label] for label in Y])
    for metric in (auroc, aupr_in, aupr_out, detection_error, fpr_at_tpr):
        assert metric(coded, SCORE, outlier_label=outlier_label) == metric(Y, SCORE)
        with pytest.raises(ValueError, match=r"no row of y is marked as an outlier by outlier_label=-1: y holds"):
            metric(coded, SCORE)
    answers = [code[1]] * len(Y)
    for metric in (aurc, coverage_at_risk, misclassification_at_tpr, selective_at_tpr):
        assert metric(coded, answers, SCORE, outlier_label=outlier_label) == metric(Y, np.ones(len(Y)), SCORE)


def test_zero_and_one_beside_other_classes():
    """The answers tell that 0 and 1 are no classes."""
    with pytest.warns(LabelWarning, match=r"0 \(2 rows\), 1 \(1 row\)"):
        aurc([0, 0, 1], [5, 7, 5], [3, 2, 1])
    aurc([0, 0, 1], [0, 1, 1], [3, 2, 1])
    aurc([0, 0, 1], [-1, -1, -1], [3, 2, 1])


@pytest.mark.parametrize("metric", [auroc, aupr_in, aupr_out, detection_error, fpr_at_tpr])
def test_what_is_undefined_is_an_error(metric):
    with pytest.raises(ValueError, match=r"np.where\(np.asarray\(y\) == 1, -1, 1\)"):
        metric([0, 1, 0], [1, 2, 3])
    with pytest.raises(ValueError, match="no outliers"):
        metric([1, 1], [1, 2])
    with pytest.raises(ValueError, match="only outliers"):
        metric([-1, -1], [1, 2])
    with pytest.raises(ValueError, match="score contains NaN"):
        metric([-1, 1], [1, np.nan])
    with pytest.raises(ValueError, match="inconsistent"):
        metric([-1, 1], [1])
    with pytest.raises(ValueError, match=r"score must be one-dimensional, one value for each row; got shape \(2, 1\)"):
        metric([-1, 1], [[1], [2]])
    with pytest.raises(ValueError, match="y contains NaN, first in row 2"):
        metric([-1, 1, np.nan], [1, 2, 3])


@pytest.mark.parametrize("tpr", [0, 1.5, -1, np.nan, "0.9", None, [0.9, 0.95]])
def test_bad_tpr(tpr):
    for metric in (fpr_at_tpr, partial(misclassification_at_tpr, Y), partial(selective_at_tpr, Y)):
        with pytest.raises(ValueError, match=r"tpr=.* must be a number in \(0, 1\]"):
            metric(Y, SCORE, tpr)


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_rounding_of_a_rate_decides_nothing(n_wanted, n_more):
    """0.1 + 0.2 is more than 0.3: a share of the outliers, and the numbers next to it, ask for as many of them."""
    n_outliers = n_wanted + n_more
    y, score = np.repeat([-1, 1], n_outliers), np.r_[np.arange(n_outliers), np.arange(n_outliers) + 0.5]
    share = n_wanted / n_outliers
    for tpr in (share, np.nextafter(share, 0), np.nextafter(share, 1)):
        # As many inliers score lower than the last outlier that is caught as outliers do.
        assert fpr_at_tpr(y, score, tpr) == pytest.approx((n_wanted - 1) / n_outliers)
        assert selective_at_tpr(y, y, score, tpr)[0] == pytest.approx(1 - fpr_at_tpr(y, score, tpr))


# ----------------------------------------------------------------------------------------- selective classification

# Sorted by score: right, right, outlier, right, wrong.
TRUE = np.array([0, 1, -1, 1, 0])
PRED = np.array([0, 1, 1, 1, 1])
SURE = np.array([0.9, 0.8, 0.7, 0.6, 0.5])


def test_risk_and_coverage_by_hand():
    coverage, risk, threshold = risk_coverage_curve(TRUE, PRED, SURE)
    assert coverage.tolist() == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert risk == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert threshold.tolist() == SURE.tolist()
    assert aurc(TRUE, PRED, SURE) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    assert coverage_at_risk(TRUE, PRED, SURE, risk=0.05) == 0.4
    assert coverage_at_risk(TRUE, PRED, SURE, risk=0.25) == 0.8
    assert coverage_at_risk(TRUE, PRED, SURE, risk=1) == 1
    assert coverage_at_risk([0], [1], [0.5]) == 0
    # 1 - 0.9 is less than 0.1, in the last digit.
    assert coverage_at_risk([1] * 10, [1] * 9 + [2], np.arange(10, 0, -1), risk=1 - 0.9) == 1
    for risk in (-0.1, 1.1, np.nan, "0.1", None):
        with pytest.raises(ValueError, match=r"risk=.* must be a number in \[0, 1\]"):
            coverage_at_risk(TRUE, PRED, SURE, risk)


def test_rows_with_equal_scores_come_together():
    coverage, risk, _ = risk_coverage_curve([0, 1, 1], [0, 0, 1], [0.9, 0.5, 0.5])
    assert coverage == pytest.approx([1 / 3, 1])
    assert risk == pytest.approx([0, 1 / 3])
    assert aurc([0, 1, 1], [0, 0, 1], [0.9, 0.5, 0.5]) == pytest.approx(2 / 3 * 1 / 3)


def test_total_misclassification_by_hand():
    # The one outlier scores 0.7; accepted is what scores higher.
    assert misclassification_at_tpr(TRUE, PRED, SURE) == 0
    assert misclassification_at_tpr(TRUE, 1 - PRED, SURE) == 1
    # Two outliers: to catch one (tpr 0.5) the threshold is 0.2; accepted are right, wrong, outlier.
    y, prediction, score = [0, 1, -1, 1, -1], [0, 0, 1, 1, 0], [0.9, 0.8, 0.5, 0.1, 0.2]
    assert misclassification_at_tpr(y, prediction, score, tpr=0.5) == pytest.approx(2 / 3)
    assert misclassification_at_tpr(y, prediction, score, tpr=1) == pytest.approx(1 / 2)
    assert misclassification_at_tpr([0, -1], [0, 0], [0, 1]) == 0
    # 0.1 + 0.2 of ten outliers are three of them, whatever the last digit says.
    ten = (np.repeat([0, -1], 10), np.zeros(20), np.r_[np.arange(10) + 0.5, np.arange(10)])
    assert misclassification_at_tpr(*ten, tpr=0.1 + 0.2) == misclassification_at_tpr(*ten, tpr=0.3) == 7 / 15


@pytest.mark.parametrize("tpr", [1e-9, 1e-12, 5e-324])
def test_at_the_smallest_rates_one_outlier_is_caught(tpr):
    y, prediction, score = [0, 1, -1, 1, -1], [0, 0, 1, 1, 0], [0.9, 0.8, 0.5, 0.1, 0.2]
    assert misclassification_at_tpr(y, prediction, score, tpr) == pytest.approx(2 / 3)
    assert selective_at_tpr(y, prediction, score, tpr) == (pytest.approx(2 / 3), 0.5)
    assert fpr_at_tpr(y, score, tpr) == pytest.approx(1 / 3)


def test_selective_classification_by_hand():
    # Two outliers at 0.5 and 0.2, inliers at 0.9 (right), 0.8 (wrong), 0.1 (wrong).
    y, prediction, score = [0, 1, -1, 1, -1], [0, 0, 1, 0, 0], [0.9, 0.8, 0.5, 0.1, 0.2]
    assert selective_at_tpr(y, prediction, score, tpr=1) == (pytest.approx(2 / 3), 0.5)
    assert selective_at_tpr(y, prediction, score, tpr=0.5) == (pytest.approx(2 / 3), 0.5)
    assert selective_at_tpr([0, 1, -1], [0, 0, 0], [0.9, 0.2, 0.5]) == (0.5, 0)
    assert selective_at_tpr([0, -1], [0, 0], [0.1, 0.5]) == (0, 0)


@pytest.mark.filterwarnings("ignore::skood.LabelWarning")
@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 2), st.integers(0, 4)), min_size=1))
def test_curve_is_the_definition(rows):
    y, prediction, score = (np.array(column) for column in zip(*rows, strict=True))
    coverage, risk, threshold = risk_coverage_curve(y, prediction, score)
    for c, r, t in zip(coverage, risk, threshold, strict=True):
        answered = score >= t
        assert c == pytest.approx(answered.mean())
        assert r == pytest.approx(((y != prediction) | (y == -1))[answered].mean())
    assert 0 <= aurc(y, prediction, score) <= 1


@pytest.mark.parametrize("metric", [risk_coverage_curve, aurc, coverage_at_risk, misclassification_at_tpr])
def test_answers_of_another_type_than_the_truth_are_refused(metric):
    """All answers would be wrong: numbers never equal text."""
    sure = [0.9, 0.8, 0.7]
    for truth, answer in (([0, 1, -1], ["0", "1", "1"]), (np.array(["2.0", "x", -1], dtype=object), [2, 1, 1])):
        with pytest.raises(ValueError, match=r"y_true holds .* and y_pred .*: a number never equals a text"):
            metric(truth, answer, sure)
    with pytest.raises(ValueError, match=r"y_true holds 'True' and y_pred True"):
        metric(np.array(["True", "False", -1], dtype=object), [True, False, False], sure)
    # An answer in text that rejects, and classes of both kinds, are meant so.
    metric([0, 1, -1], ["none", "none", "none"], sure)
    both = np.array([1, "1", -1], dtype=object)
    metric(both, both, sure)
    metric(np.array(["True", "b", -1], dtype=object), [1, 1, 1], sure)


def test_text_classes_and_what_is_undefined():
    assert aurc(["a", "b"], ["a", "a"], [2, 1]) == 0.25
    with pytest.raises(ValueError, match="empty"):
        aurc([], [], [])
    with pytest.raises(ValueError, match="NaN"):
        aurc([0], [0], [np.nan])
    with pytest.raises(ValueError, match="risk=2"):
        coverage_at_risk([0], [0], [0], risk=2)


# ----------------------------------------------------------------------------------------------------------- scorers


def sorted_rows():
    """Rows sorted by label, 5 % outliers."""
    X = np.random.default_rng(0).normal(size=(200, 2))
    X[190:] += 3
    return X, np.repeat([1, -1], [190, 10])


@pytest.mark.parametrize("detector", [IsolationForest(random_state=0), LocalOutlierFactor(novelty=True), OneClassSVM()])
def test_scorers_are_the_metrics(detector):
    X, y = sorted_rows()
    detector.fit(X[:190])
    score = detector.score_samples(X)
    assert get_scorer("auroc")(detector, X, y) == pytest.approx(auroc(y, score))
    assert get_scorer("aupr_out")(detector, X, y) == pytest.approx(aupr_out(y, score))
    assert get_scorer("fpr95")(detector, X, y) == pytest.approx(-fpr_at_tpr(y, score))
    assert get_scorer("aurc")(detector, X, y) == pytest.approx(-aurc(y, np.ones(200), score))
    assert get_scorer("aupr_out")(detector, X, y) < check_scoring(detector, "average_precision")(detector, X, y)


@pytest.mark.parametrize("name", ["auroc", "aupr_out", "fpr95", "aurc"])
def test_scorers_take_class_labels_and_pickle(name):
    X, y = sorted_rows()
    detector = make_pipeline(StandardScaler(), IsolationForest(random_state=0)).fit(X[:190])
    classes = np.where(y == -1, -1, np.arange(200) % 3)
    scorer = pickle.loads(pickle.dumps(get_scorer(name)))
    assert scorer(detector, X, classes) == get_scorer(name)(detector, X, y)
    with pytest.raises(ValueError, match=r"np.where\(np.asarray\(y\) == 1, -1, 1\)"):
        scorer(detector, X, (y == -1).astype(int))


def test_aurc_of_a_classifier():
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(X, y)
    expected = -aurc(y, model.predict(X), model.predict_proba(X).max(axis=1))
    assert get_scorer("aurc")(model, X, y) == expected


class Sure(ClassifierMixin, BaseEstimator):
    """Three rows: surely the second class, surely an outlier, and perhaps the first class."""

    def __init__(self, labels):
        self.labels = labels

    def fit(self, X, y=None):
        self.classes_ = np.array(self.labels)
        return self

    def predict_proba(self, X):
        return np.array([[0.05, 0.05, 0.9], [0.95, 0.03, 0.02], [0.3, 0.45, 0.25]])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


@pytest.mark.parametrize(("labels", "outlier_label"), [([-1, 0, 1], -1), (["a", "b", "c"], "a"), ([0, 2, 5], [0, 7])])
def test_a_classifier_that_has_learnt_outliers_is_not_sure_of_the_rows_that_it_rejects(labels, outlier_label):
    X, (out, first, second) = np.zeros((3, 1)), labels
    model = Sure(labels).fit(X)
    for estimator in (model, make_pipeline(StandardScaler().fit(X), model), FrozenEstimator(model)):
        answer, score, threshold = answers(estimator, X, [second, out, first], outlier_label=outlier_label)
        assert answer.tolist() == [second, first, first]
        assert score.tolist() == [0.9, 0.03, 0.45]
        assert threshold is None
    y = [second, out, first]
    # Right, right, outlier: the outlier comes last.
    assert get_scorer("aurc", outlier_label=outlier_label)(model, X, y) == pytest.approx(-1 / 9)


def test_a_classifier_without_outliers_answers_as_it_predicts():
    X = np.zeros((3, 1))
    for labels in ([0, 1, 2], [-1]):
        model = Sure(labels).fit(X) if len(labels) > 1 else DummyClassifier().fit(X, [-1, -1, -1])
        answer, score, _ = answers(model, X, [0, 1, -1])
        assert answer.tolist() == model.predict(X).tolist()
        assert score.tolist() == model.predict_proba(X).max(axis=1).tolist()


class WithClasses(OutlierMixin, BaseEstimator):
    """A detector with classes, as skood's are to be."""

    def fit(self, X, y=None):
        self.offset_ = 0.0
        return self

    def predict_class(self, X):
        return np.array([0, 1, 0])

    def decision_function(self, X):
        return np.array([3.0, 2.0, -1.0])


def test_aurc_of_a_detector_with_classes():
    expected = -aurc([0, 0, -1], [0, 1, 0], [3, 2, -1])
    X = np.zeros((3, 1))
    scaled = make_pipeline(StandardScaler(), "passthrough", WithClasses()).fit(X)
    hidden = HideLabels(WithClasses()).fit(X)
    for estimator in (WithClasses(), scaled, hidden, make_pipeline(StandardScaler(), HideLabels(WithClasses())).fit(X)):
        assert get_scorer("aurc")(estimator, X, [0, 0, -1]) == expected


@pytest.mark.parametrize("name", ["auroc", "aupr_out", "fpr95", "aurc"])
def test_scorers_by_object(name):
    assert getattr(metrics, f"{name}_scorer") is get_scorer(name)


def test_unknown_scorer():
    with pytest.raises(ValueError, match="choose one of 'auroc', 'aupr_out', 'fpr95', 'aurc'"):
        get_scorer("roc_auc")
    with pytest.raises(ValueError, match="outlier_label=None must be"):
        get_scorer("auroc", outlier_label=None)
