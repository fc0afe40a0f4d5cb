"""Metrics of outlier detection, in one orientation.

Scores are scikit-learn's: higher = more normal. Outliers are the rows with ``y == -1``, every other label is an inlier,
and outliers are the positive class.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d

__all__ = ["aupr_out", "auroc", "fpr_at_tpr"]


def auroc(y_true, score) -> float:
    """Area under the ROC curve: how often an outlier scores lower than an inlier, ties counting half.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        -1 for outliers, any other label for inliers.
    score : array-like of shape (n_samples,)
        Higher = more normal.

    Returns
    -------
    auroc : float in [0, 1]
        0.5 is chance.

    Raises
    ------
    ValueError
        If y_true lacks outliers or inliers, is coded {0, 1}, or a score is not finite.

    Examples
    --------
    >>> from skood.metrics import auroc
    >>> auroc([1, 1, -1, -1], [3.0, 1.0, 2.0, 0.0])
    0.75
    """
    return float(roc_auc_score(*_outliers_positive(y_true, score)))


def aupr_out(y_true, score) -> float:
    """Average precision with the outliers as the positive class.

    The step sum over thresholds of (recall_k - recall_(k-1)) precision_k, without interpolation.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        -1 for outliers, any other label for inliers.
    score : array-like of shape (n_samples,)
        Higher = more normal.

    Returns
    -------
    aupr : float in [0, 1]
        The share of outliers is chance.

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
    return float(average_precision_score(*_outliers_positive(y_true, score)))


def fpr_at_tpr(y_true, score, tpr: float = 0.95) -> float:
    """Share of inliers that raise a false alarm when at least ``tpr`` of the outliers are caught.

    The smallest false positive rate over the thresholds whose true positive rate, outliers being positive, is at
    least ``tpr``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        -1 for outliers, any other label for inliers.
    score : array-like of shape (n_samples,)
        Higher = more normal.
    tpr : float in (0, 1], default=0.95

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
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr={tpr!r} must be in (0, 1].")
    fprs, tprs, _ = roc_curve(*_outliers_positive(y_true, score), drop_intermediate=False)
    return float(fprs[tprs >= tpr].min())


def _outliers_positive(y_true, score) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores as scikit-learn's metrics want them: True for outliers, higher = more anomalous."""
    y_true, score = column_or_1d(y_true), column_or_1d(score)
    check_consistent_length(y_true, score)
    assert_all_finite(score, input_name="score")
    outlier = y_true == -1
    if not outlier.any() and set(np.unique(y_true).tolist()) == {0, 1}:
        raise ValueError(
            "y_true holds 0 and 1, and nothing tells which are the outliers. Mark outliers with -1; if 1 stands for "
            "them: np.where(y_true == 1, -1, 1)."
        )
    if outlier.all() or not outlier.any():
        raise ValueError(
            f"y_true holds {'only' if outlier.all() else 'no'} outliers (-1); the metric needs outliers and inliers."
        )
    return outlier, -score
