"""Measure outlier detection; every metric reads scores and labels in the same way.

Scores are as in scikit-learn: higher = more normal. Rows with ``y == -1``, or with the labels that ``outlier_label``
names, are outliers; rows with any other label are inliers. Outliers are the positive class, except in `aupr_in`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import average_precision_score, make_scorer, roc_auc_score, roc_curve
from sklearn.pipeline import Pipeline
from sklearn.utils import assert_all_finite, check_consistent_length

from ._disentanglement import dci, dci_disentanglement, disentanglement_of
from .estimator.labels import Marker, check_labels, check_marked, list_markers, marks_outlier, named_markers
from .estimator.wrapper import predict_classes, predicts_classes
from .open_set import OpenSetClassifier

__all__ = [
    "answers",
    "aupr_in",
    "aupr_out",
    "aupr_out_scorer",
    "aurc",
    "aurc_scorer",
    "auroc",
    "auroc_scorer",
    "coverage_at_risk",
    "dci",
    "dci_disentanglement",
    "detection_error",
    "disentanglement_of",
    "fpr95_scorer",
    "fpr_at_tpr",
    "get_scorer",
    "misclassification_at_tpr",
    "risk_coverage_curve",
    "selective_at_tpr",
]


def auroc(y_true: ArrayLike, score: ArrayLike, *, outlier_label: Marker = -1) -> float:
    """Return the area under the ROC curve: how often an outlier scores lower than an inlier, ties counted half.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        -1 for outliers, any other label for inliers.
    score : array-like of shape (n_samples,)
        Higher = more normal.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    auroc : float in [0, 1]
        0.5 by chance.

    Raises
    ------
    ValueError
        If y_true lacks outliers or inliers, or a score is not finite.

    Examples
    --------
    >>> from skood.metrics import auroc
    >>> auroc([1, 1, -1, -1], [3.0, 1.0, 2.0, 0.0])
    0.75
    """
    return float(roc_auc_score(*_outliers_positive(y_true, score, outlier_label)))


def aupr_out(y_true: ArrayLike, score: ArrayLike, *, outlier_label: Marker = -1) -> float:
    """Return the average precision with the outliers as the positive class.

    It is the sum over thresholds of (recall_k - recall_(k-1)) precision_k, without interpolation.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        -1 for outliers, any other label for inliers.
    score : array-like of shape (n_samples,)
        Higher = more normal.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    aupr : float in [0, 1]
        By chance the share of outliers.

    Raises
    ------
    ValueError
        As `auroc`.

    Examples
    --------
    >>> from skood.metrics import aupr_out
    >>> round(aupr_out([1, 1, -1, -1], [3.0, 1.0, 2.0, 0.0]), 3)
    0.833
    """
    return float(average_precision_score(*_outliers_positive(y_true, score, outlier_label)))


def aupr_in(y_true: ArrayLike, score: ArrayLike, *, outlier_label: Marker = -1) -> float:
    """Return the average precision with the inliers as the positive class.

    scikit-learn's ``scoring="average_precision"`` computes this for a detector. Where outliers are few it is close to 1
    whatever the detector does: look at `aupr_out` instead.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        -1 for outliers, any other label for inliers.
    score : array-like of shape (n_samples,)
        Higher = more normal.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    aupr : float in [0, 1]
        By chance the share of inliers.

    Raises
    ------
    ValueError
        As `auroc`.

    Examples
    --------
    >>> from skood.metrics import aupr_in
    >>> round(aupr_in([1, 1, -1, -1], [3.0, 1.0, 2.0, 0.0]), 3)
    0.833
    """
    outlier, anomaly = _outliers_positive(y_true, score, outlier_label)
    return float(average_precision_score(~outlier, -anomaly))


def detection_error(y_true: ArrayLike, score: ArrayLike, *, outlier_label: Marker = -1) -> float:
    """Return the smallest error of any threshold when outliers and inliers are equally likely.

    It is the minimum over thresholds t of (P(score > t | outlier) + P(score <= t | inlier)) / 2.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        -1 for outliers, any other label for inliers.
    score : array-like of shape (n_samples,)
        Higher = more normal.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    error : float in [0, 0.5]
        0.5 by chance.

    Raises
    ------
    ValueError
        As `auroc`.

    Examples
    --------
    >>> from skood.metrics import detection_error
    >>> detection_error([1, 1, -1, -1], [3.0, 1.0, 2.0, 0.0])
    0.25
    """
    fprs, tprs, _ = roc_curve(*_outliers_positive(y_true, score, outlier_label), drop_intermediate=False)
    return float(((1 - tprs) + fprs).min() / 2)


def fpr_at_tpr(y_true: ArrayLike, score: ArrayLike, tpr: float = 0.95, *, outlier_label: Marker = -1) -> float:
    """Return the share of inliers called outliers when at least ``tpr`` of the outliers are caught.

    It is the smallest false positive rate over the thresholds whose true positive rate, outliers being positive, is at
    least ``tpr``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        -1 for outliers, any other label for inliers.
    score : array-like of shape (n_samples,)
        Higher = more normal.
    tpr : float in (0, 1], default=0.95
        Share of outliers to catch.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    fpr : float in [0, 1]
        Lower is better.

    Raises
    ------
    ValueError
        As `auroc`, or if ``tpr`` is out of range.

    Examples
    --------
    >>> from skood.metrics import fpr_at_tpr
    >>> fpr_at_tpr([1, 1, -1, -1], [3.0, 1.0, 2.0, 0.0])
    0.5
    """
    _check_tpr(tpr)
    fprs, tprs, _ = roc_curve(*_outliers_positive(y_true, score, outlier_label), drop_intermediate=False)
    return float(fprs[tprs >= tpr].min())


# --------------------------------------------------------------------------------------------------------------------
# Selective classification: a classifier that answers where the score is high and abstains elsewhere


def risk_coverage_curve(
    y_true: ArrayLike, y_pred: ArrayLike, score: ArrayLike, *, outlier_label: Marker = -1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share of wrong answers for each share of rows that are answered.

    Rows are answered from the highest score down, rows with equal scores together. An answer for an outlier is wrong,
    since no class is right for it. (For coverage and risk of the inliers alone, leave out the outliers.)

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Class of each row; -1 for outliers.
    y_pred : array-like of shape (n_samples,)
        Predicted class of each row; -1 is always wrong.
    score : array-like of shape (n_samples,)
        Confidence; higher = more normal.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that stands for outliers in the place of -1, or several.

    Returns
    -------
    coverage : ndarray of float of shape (n_thresholds,)
        Share of the rows with score >= threshold, ascending; the last is 1.
    risk : ndarray of float of shape (n_thresholds,)
        Share of these rows whose predicted class is wrong.
    threshold : ndarray of float of shape (n_thresholds,)
        The distinct scores, descending.

    Raises
    ------
    ValueError
        If the arrays differ in length, are empty, or a score is not finite.

    Warns
    -----
    LabelWarning
        If y_true holds just 0 and 1 where y_pred holds other classes: 1 may stand for outliers.

    References
    ----------
    .. [1] Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", 2017.

    Examples
    --------
    >>> from skood.metrics import risk_coverage_curve
    >>> coverage, risk, threshold = risk_coverage_curve([0, 1, -1, 1], [0, 1, 1, 0], [0.9, 0.8, 0.3, 0.1])
    >>> coverage
    array([0.25, 0.5 , 0.75, 1.  ])
    >>> risk.round(2)
    array([0.  , 0.  , 0.33, 0.5 ])
    """
    wrong, values = _wrong_answers(y_true, y_pred, score, outlier_label)
    order = np.argsort(-values, kind="stable")
    values, n_wrong = values[order], np.cumsum(wrong[order])
    # A threshold answers all rows of one score or none: a point of the curve is the last row of each score.
    last = np.flatnonzero(np.r_[np.diff(values) != 0, True])
    n_answered = last + 1
    return n_answered / len(values), n_wrong[last] / n_answered, values[last]


def aurc(y_true: ArrayLike, y_pred: ArrayLike, score: ArrayLike, *, outlier_label: Marker = -1) -> float:
    """Return the area under the risk-coverage curve: the mean risk over all coverages.

    It is the sum over thresholds of (coverage_k - coverage_(k-1)) risk_k.

    Parameters
    ----------
    y_true, y_pred, score : array-like of shape (n_samples,)
        As in `risk_coverage_curve`.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    area : float in [0, 1]
        Lower is better.

    Raises
    ------
    ValueError
        As `risk_coverage_curve`.

    Examples
    --------
    >>> from skood.metrics import aurc
    >>> round(aurc([0, 1, -1, 1], [0, 1, 1, 0], [0.9, 0.8, 0.3, 0.1]), 3)
    0.208
    """
    coverage, risk, _ = risk_coverage_curve(y_true, y_pred, score, outlier_label=outlier_label)
    return float(np.sum(np.diff(coverage, prepend=0) * risk))


def coverage_at_risk(
    y_true: ArrayLike, y_pred: ArrayLike, score: ArrayLike, risk: float = 0.05, *, outlier_label: Marker = -1
) -> float:
    """Return the largest share of rows that can be answered with at most a share ``risk`` of wrong answers.

    Parameters
    ----------
    y_true, y_pred, score : array-like of shape (n_samples,)
        As in `risk_coverage_curve`.
    risk : float in [0, 1], default=0.05
        Largest share of wrong answers among the answers.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    coverage : float in [0, 1]
        0 if the risk is larger at every threshold.

    Raises
    ------
    ValueError
        As `risk_coverage_curve`, or if ``risk`` is out of range.

    Examples
    --------
    >>> from skood.metrics import coverage_at_risk
    >>> coverage_at_risk([0, 1, -1, 1], [0, 1, 1, 0], [0.9, 0.8, 0.3, 0.1], risk=0.4)
    0.75
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"risk={risk!r} must be in [0, 1].")
    coverages, risks, _ = risk_coverage_curve(y_true, y_pred, score, outlier_label=outlier_label)
    return float(coverages[risks <= risk].max(initial=0))


def misclassification_at_tpr(
    y_true: ArrayLike, y_pred: ArrayLike, score: ArrayLike, tpr: float = 0.95, *, outlier_label: Marker = -1
) -> float:
    """Return the share of wrong answers at the threshold that catches at least ``tpr`` of the outliers.

    It is (accepted inliers of the wrong class + accepted outliers) / accepted rows, at the lowest threshold whose true
    positive rate, outliers being positive, is at least ``tpr``. Mohseni et al. call it the total misclassification
    rate [1]_.

    Parameters
    ----------
    y_true, y_pred, score : array-like of shape (n_samples,)
        As in `risk_coverage_curve`; y_true must hold inliers and outliers.
    tpr : float in (0, 1], default=0.95
        Share of outliers to catch.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    error : float in [0, 1]
        Lower is better; 0 if no row is accepted.

    Raises
    ------
    ValueError
        As `fpr_at_tpr`.

    References
    ----------
    .. [1] Mohseni et al., "Self-Supervised Learning for Generalizable Out-of-Distribution Detection", AAAI 2020.

    Examples
    --------
    >>> from skood.metrics import misclassification_at_tpr
    >>> misclassification_at_tpr([0, 1, -1, 1], [0, 0, 1, 0], [0.9, 0.8, 0.3, 0.1])
    0.5
    """
    wrong, _, accepted = _at_tpr(y_true, y_pred, score, tpr, outlier_label)
    return float(wrong[accepted].mean()) if accepted.any() else 0.0


def selective_at_tpr(
    y_true: ArrayLike, y_pred: ArrayLike, score: ArrayLike, tpr: float = 0.95, *, outlier_label: Marker = -1
) -> tuple[float, float]:
    """Return coverage and risk of the inliers at the threshold that catches at least ``tpr`` of the outliers.

    Coverage is the share of inliers that are accepted, risk the share of these whose predicted class is wrong. Together
    they say what the rejection of outliers costs, and gains, on inliers.

    Parameters
    ----------
    y_true, y_pred, score : array-like of shape (n_samples,)
        As in `risk_coverage_curve`; y_true must hold inliers and outliers.
    tpr : float in (0, 1], default=0.95
        Share of outliers to catch.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    coverage, risk : float in [0, 1]
        The risk is 0 if no inlier is accepted.

    Raises
    ------
    ValueError
        As `fpr_at_tpr`.

    Examples
    --------
    >>> from skood.metrics import selective_at_tpr
    >>> selective_at_tpr([0, 1, -1, 1], [0, 0, 1, 0], [0.9, 0.8, 0.3, 0.1])
    (0.6666666666666666, 0.5)
    """
    wrong, inlier, accepted = _at_tpr(y_true, y_pred, score, tpr, outlier_label)
    risk = wrong[accepted & inlier].mean() if (accepted & inlier).any() else 0.0
    return float(accepted[inlier].mean()), float(risk)


# --------------------------------------------------------------------------------------------------------------------
# Scorers: `scoring=` of scikit-learn's searches and validations; greater is better, so errors are negated

_RESPONSES = ["decision_function", "score_samples"]


def answers(
    estimator: Any, X: Any, y: ArrayLike, *, outlier_label: Marker = -1
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Return a fitted estimator's answers and confidence, for the metrics of selective classification.

    Parameters
    ----------
    estimator : fitted detector or classifier
        A detector with ``predict_class``; or a classifier, whose score is its largest ``predict_proba``; or a detector
        without classes, which answers "inlier" to every row, wrong for outliers only.
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
        Class of each row; -1 for outliers.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    y_pred : ndarray of shape (n_samples,)
        The answers.
    score : ndarray of float of shape (n_samples,)
        Confidence; higher = surer.
    threshold : float or None
        The score below which a detector rejects; a classifier has none.

    Raises
    ------
    ValueError
        If the detector has no classes and y lacks outliers or inliers.
    """
    labels = check_labels(y)
    estimator = getattr(estimator, "best_estimator_", estimator)
    estimator = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    if isinstance(estimator, Pipeline) and not predicts_classes(estimator):
        for _, step in estimator.steps[:-1]:
            X = X if step in (None, "passthrough") else step.transform(X)
        return answers(estimator[-1], X, labels, outlier_label=outlier_label)
    # An OpenSetClassifier is as confident as the detector in it; its own probabilities ignore outliers.
    estimator = estimator.detector_ if isinstance(estimator, OpenSetClassifier) else estimator
    if predicts_classes(estimator):
        return predict_classes(estimator, X), estimator.decision_function(X), 0.0
    if is_classifier(estimator):
        return estimator.predict(X), np.max(estimator.predict_proba(X), axis=1), None
    # Called for its checks: it refuses labels without outliers or inliers.
    _outliers_positive(labels, np.zeros(len(labels)), outlier_label)
    decides = hasattr(estimator, "decision_function")
    score = estimator.decision_function(X) if decides else estimator.score_samples(X)
    return labels, score, 0.0 if decides else None


class _SelectiveScorer:
    """Score an estimator by minus the area under the risk-coverage curve of its answers.

    It is a class because scorers of `make_scorer` get one response of the estimator, but this one needs two: answers
    and confidence.
    """

    def __init__(self, outlier_label: Marker = -1):
        self.outlier_label = outlier_label

    def __call__(self, estimator: Any, X: Any, y: ArrayLike) -> float:
        y_pred, score, _ = answers(estimator, X, y, outlier_label=self.outlier_label)
        return -aurc(y, y_pred, score, outlier_label=self.outlier_label)

    def __repr__(self) -> str:
        return f"get_scorer('aurc', outlier_label={self.outlier_label!r})"


def _scorers(**marker: Any) -> dict[str, Callable[..., float]]:
    """Return the scorers by name; ``outlier_label`` names the labels that mark outliers, if not -1."""
    options: dict[str, Any] = {"response_method": _RESPONSES, **marker}
    return {
        "auroc": make_scorer(auroc, **options),
        "aupr_out": make_scorer(aupr_out, **options),
        "fpr95": make_scorer(fpr_at_tpr, greater_is_better=False, **options),
        "aurc": _SelectiveScorer(**marker),
    }


_SCORERS = _scorers()
auroc_scorer, aupr_out_scorer, fpr95_scorer, aurc_scorer = _SCORERS.values()


def get_scorer(name: str, *, outlier_label: Marker = -1) -> Callable[..., float]:
    """Return a scorer by name, for ``scoring=`` of `GridSearchCV`, `cross_validate` and the like.

    With the default ``outlier_label`` the scorers are `auroc_scorer`, `aupr_out_scorer`, `fpr95_scorer` and
    `aurc_scorer`.

    Scorers take y of +1 and -1, or class labels with -1 for outliers, and any detector with ``decision_function`` or
    ``score_samples``, scikit-learn's own included. If the detector has another ``outlier_label``, give it here too.

    Parameters
    ----------
    name : {"auroc", "aupr_out", "fpr95", "aurc"}
        "fpr95" is minus the false positive rate at 95 % true positive rate. "aurc" is minus the area under the
        risk-coverage curve of the answers of ``predict_class``, or of a classifier's ``predict``; a detector without
        classes answers "inlier" to every row.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y) -> float``; greater is better. Picklable.

    Raises
    ------
    ValueError
        If there is no scorer of that name, or ``outlier_label`` is no label.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from skood.metrics import get_scorer
    >>> X, y = [[0.0], [0.1], [0.2], [0.3], [9.0]], [1, 1, 1, 1, -1]
    >>> get_scorer("auroc")(IsolationForest(random_state=0).fit(X), X, y)
    1.0
    """
    if name not in _SCORERS:
        raise ValueError(f"there is no scorer {name!r}; choose one of {', '.join(map(repr, _SCORERS))}.")
    # The default scorers are the same objects each time.
    if isinstance(outlier_label, int) and outlier_label == -1:
        return _SCORERS[name]
    list_markers(outlier_label)
    return _scorers(outlier_label=outlier_label)[name]


# --------------------------------------------------------------------------------------------------------------------


def _check_tpr(tpr: float) -> None:
    """Refuse a true positive rate that is out of range."""
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr={tpr!r} must be in (0, 1].")


def _at_tpr(
    y_true: ArrayLike, y_pred: ArrayLike, score: ArrayLike, tpr: float, outlier_label: Marker
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return masks of the wrong answers, of the inliers, and of the rows accepted at the threshold for ``tpr``."""
    _check_tpr(tpr)
    outlier, _ = _outliers_positive(y_true, score, outlier_label)
    wrong, values = _wrong_answers(y_true, y_pred, score, outlier_label)
    # The threshold is the score of the last outlier that must be caught, from the lowest up. The small term is for
    # products such as 0.07 * 100 = 7.000000000000001, which would be one outlier too many.
    n_caught = math.ceil(tpr * np.count_nonzero(outlier) - 1e-9)
    return wrong, ~outlier, values > np.sort(values[outlier])[n_caught - 1]


def _check_score(score: ArrayLike) -> np.ndarray:
    """Return scores as float64; refuse anything but one finite value for each row."""
    if np.ndim(score) != 1:
        raise ValueError(f"score must be one-dimensional, one value for each row; got shape {np.shape(score)}.")
    # Unsigned integers would wrap when negated.
    values = np.asarray(score).astype(np.float64)
    assert_all_finite(values, input_name="score")
    return values


def _outliers_positive(
    y_true: ArrayLike, score: ArrayLike, outlier_label: Marker = -1
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores as scikit-learn's metrics want them: True for outliers, higher = more anomalous."""
    labels, values = check_labels(y_true), _check_score(score)
    check_consistent_length(labels, values)
    outlier = marks_outlier(labels, outlier_label)
    needed = "The metric needs outliers and inliers."
    check_marked(labels, outlier, outlier_label, otherwise=needed, refuse=True)
    if outlier.all() or not outlier.any():
        kind = "only" if outlier.all() else "no"
        raise ValueError(f"y_true holds {kind} outliers ({named_markers(outlier_label)}). {needed}")
    return outlier, -values


def _wrong_answers(
    y_true: ArrayLike, y_pred: ArrayLike, score: ArrayLike, outlier_label: Marker
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask of wrong answers, and the scores; every answer for an outlier is wrong."""
    labels, predicted, values = check_labels(y_true), check_labels(y_pred), _check_score(score)
    check_consistent_length(labels, predicted, values)
    if len(values) == 0:
        raise ValueError("y_true, y_pred and score are empty; at least one row is needed.")
    outlier = marks_outlier(labels, outlier_label)
    # If the classes are 0 and 1, so are the answers; other answers show that 0 and 1 are not classes.
    known = set(predicted[~marks_outlier(predicted, outlier_label)].tolist())
    if known:
        check_marked(labels, outlier, outlier_label, classes=known)
    return (labels != predicted) | outlier, values
