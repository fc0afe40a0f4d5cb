"""Measure selective classification: a classifier answers where the score is high and abstains elsewhere."""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length

from ..estimator.labels import Marker, check_labels, check_marked, marks_outlier, refuse_respelled
from .base import check_score, check_tpr, n_to_catch, outliers_positive


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
        If the arrays differ in length, are empty, or a score is not finite; or if one of y_true and y_pred holds as
        text what the other holds as a number.

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
    if not (isinstance(risk, Real) and 0 <= risk <= 1):
        raise ValueError(f"risk={risk!r} must be a number in [0, 1].")
    coverages, risks, _ = risk_coverage_curve(y_true, y_pred, score, outlier_label=outlier_label)
    # The small term is for differences such as 1 - 0.9 = 0.09999999999999998, less than one wrong answer in ten.
    return float(coverages[risks <= risk + 1e-12].max(initial=0))


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


def _at_tpr(
    y_true: ArrayLike, y_pred: ArrayLike, score: ArrayLike, tpr: float, outlier_label: Marker
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return masks of the wrong answers, of the inliers, and of the rows accepted at the threshold for ``tpr``."""
    check_tpr(tpr)
    outlier, _ = outliers_positive(y_true, score, outlier_label)
    wrong, values = _wrong_answers(y_true, y_pred, score, outlier_label)
    # The threshold is the score of the last outlier that must be caught, from the lowest up.
    n_caught = n_to_catch(tpr, int(np.count_nonzero(outlier)))
    return wrong, ~outlier, values > np.sort(values[outlier])[n_caught - 1]


def _wrong_answers(
    y_true: ArrayLike, y_pred: ArrayLike, score: ArrayLike, outlier_label: Marker
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask of wrong answers, and the scores; every answer for an outlier is wrong."""
    labels, predicted, values = check_labels(y_true), check_labels(y_pred), check_score(score)
    check_consistent_length(labels, predicted, values)
    if len(values) == 0:
        raise ValueError("y_true, y_pred and score are empty; at least one row is needed.")
    outlier = marks_outlier(labels, outlier_label)
    # If the classes are 0 and 1, so are the answers; other answers show that 0 and 1 are not classes.
    known = set(predicted[~marks_outlier(predicted, outlier_label)].tolist())
    if known:
        check_marked(labels, outlier, outlier_label, classes=known)
    refuse_respelled(labels[~outlier].tolist(), predicted.tolist(), ("y_true", "y_pred"))
    return (labels != predicted) | outlier, values
