"""Measure how well a score tells outliers from inliers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ..estimator.labels import Marker
from .base import check_tpr, n_to_catch, outliers_positive


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
    return float(roc_auc_score(*outliers_positive(y_true, score, outlier_label)))


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
    return float(average_precision_score(*outliers_positive(y_true, score, outlier_label)))


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
    outlier, anomaly = outliers_positive(y_true, score, outlier_label)
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
    fprs, tprs, _ = roc_curve(*outliers_positive(y_true, score, outlier_label), drop_intermediate=False)
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
    check_tpr(tpr)
    outlier, anomaly = outliers_positive(y_true, score, outlier_label)
    fprs, tprs, _ = roc_curve(outlier, anomaly, drop_intermediate=False)
    n_outliers = int(np.count_nonzero(outlier))
    # Half an outlier less, so that the rounding of neither share decides.
    return float(fprs[tprs * n_outliers > n_to_catch(tpr, n_outliers) - 0.5].min())
