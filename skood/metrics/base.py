"""Read scores and labels in the same way, for all metrics."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import assert_all_finite, check_consistent_length

from ..estimator.labels import Marker, check_labels, check_marked, marks_outlier, named_markers
from ..estimator.validation import plain_rows


def check_tpr(tpr: float) -> None:
    """Refuse a true positive rate that is out of range."""
    if not (isinstance(tpr, Real) and 0 < tpr <= 1):
        raise ValueError(f"tpr={tpr!r} must be a number in (0, 1].")


def n_to_catch(tpr: float, n_outliers: int) -> int:
    """Return how many outliers are at least a share ``tpr`` of all: one at least, however small the share is."""
    # The small term is for products such as 0.07 * 100 = 7.000000000000001, which would be one outlier too many.
    return max(1, math.ceil(tpr * n_outliers - 1e-9))


def check_score(score: ArrayLike) -> np.ndarray:
    """Return scores as float64; refuse anything but one finite value for each row."""
    score = plain_rows(score)
    if np.ndim(score) != 1:
        raise ValueError(f"score must be one-dimensional, one value for each row; got shape {np.shape(score)}.")
    # Unsigned integers would wrap when negated.
    values = np.asarray(score).astype(np.float64)
    assert_all_finite(values, input_name="score")
    return values


def outliers_positive(y_true: ArrayLike, score: ArrayLike, outlier_label: Marker = -1) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores as scikit-learn's metrics want them: True for outliers, higher = more anomalous."""
    labels, values = check_labels(y_true), check_score(score)
    check_consistent_length(labels, values)
    outlier = marks_outlier(labels, outlier_label)
    needed = "The metric needs outliers and inliers."
    check_marked(labels, outlier, outlier_label, otherwise=needed, refuse=True)
    if outlier.all() or not outlier.any():
        kind = "only" if outlier.all() else "no"
        raise ValueError(f"y_true holds {kind} outliers ({named_markers(outlier_label)}). {needed}")
    return outlier, -values
