"""Read y: check labels, and find the rows that they mark as auxiliary outliers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d

__all__ = ["check_convention", "check_labels", "find_outliers", "marks_outlier"]


def check_labels(y: Any, *, warn: bool = False) -> np.ndarray:
    """Return labels as a one-dimensional array; refuse missing ones.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, 1)
        Labels: numbers or strings.
    warn : bool, default=False
        Whether a column, of shape (n_samples, 1), draws scikit-learn's DataConversionWarning.

    Returns
    -------
    y : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If y is None or of another shape, or a label is missing (NaN, None).
    """
    if y is None:
        raise ValueError("y is needed here: -1 for outliers, any other label for inliers.")
    if isinstance(y, (list, tuple)) and len({isinstance(label, str) for label in y}) == 2:
        # Of a list of numbers and text numpy makes text: the marker -1 would become "-1", which marks nothing.
        y = np.array(y, dtype=object)
    y = column_or_1d(y, warn=warn)
    missing = np.isnan(y) if y.dtype.kind == "f" else np.zeros(len(y), dtype=bool)
    if y.dtype.kind == "O":
        import pandas as pd

        missing = pd.isna(y)
    if missing.any():
        row = np.flatnonzero(missing)[0]
        raise ValueError(f"y contains NaN, first in row {row}; give every row a label, or drop the row.")
    return y


def check_convention(y: np.ndarray, outlier: np.ndarray) -> None:
    """Refuse y coded {0, 1} in which nothing is marked: it is likely misread.

    In data sets for outlier detection 1 often stands for the outliers, in scikit-learn for the inliers.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
    outlier : ndarray of bool of shape (n_samples,)
        The rows that are marked.

    Raises
    ------
    ValueError
        If no row is marked and y holds 0 and 1.
    """
    if not outlier.any() and set(y.tolist()) == {0, 1}:
        raise ValueError(
            "y holds 0 and 1, and nothing tells which are the outliers. Mark outliers with -1; if 1 stands for them: "
            "np.where(y == 1, -1, 1)."
        )


def marks_outlier(y: ArrayLike, outlier_label: int | str = -1) -> np.ndarray:
    """Find the rows that y marks as auxiliary outliers.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels: numbers or strings.
    outlier_label : int or str, default=-1
        The label that marks auxiliary outliers. Rows with any other label, 0 included, are in distribution. A number
        never equals a text.

    Returns
    -------
    mask : ndarray of bool of shape (n_samples,)

    Raises
    ------
    ValueError
        If ``outlier_label`` is a number and y holds it as text.

    Examples
    --------
    >>> from skood.estimator.labels import marks_outlier
    >>> marks_outlier([1, -1, 0])
    array([False,  True, False])
    """
    labels = np.asarray(y)
    if labels.dtype.kind == "U" and not isinstance(outlier_label, str) and (labels == str(outlier_label)).any():
        raise ValueError(
            f"y holds the text {str(outlier_label)!r}, which is not the number. To mix class names with "
            f"{outlier_label}, give y as objects: np.array(labels, dtype=object)."
        )
    # numpy answers a comparison of a numeric array with text by one False, or by a warning, not row by row.
    if labels.dtype.kind != "O" and isinstance(outlier_label, str) != (labels.dtype.kind in "SUT"):
        return np.zeros(len(labels), dtype=bool)
    return np.asarray(labels == outlier_label, dtype=bool)


def find_outliers(y: Any, n_rows: int, outlier_label: int | str = -1) -> tuple[np.ndarray, np.ndarray]:
    """Check the labels of rows, and find those that mark auxiliary outliers.

    Parameters
    ----------
    y : array-like of shape (n_rows,)
        Labels: numbers or strings.
    n_rows : int
        Number of rows that need a label.
    outlier_label : int or str, default=-1
        The label that marks auxiliary outliers, see `marks_outlier`.

    Returns
    -------
    y : ndarray of shape (n_rows,)
        The labels.
    mask : ndarray of bool of shape (n_rows,)
        True for auxiliary outliers.

    Raises
    ------
    ValueError
        If the number of labels is not ``n_rows``, one is missing, or fewer than two rows are in distribution.
    """
    y = check_labels(y)
    if len(y) != n_rows:
        raise ValueError(f"y has {len(y)} labels, but X has {n_rows} rows; give one label a row.")
    outlier = marks_outlier(y, outlier_label)
    n_outliers = np.count_nonzero(outlier)
    if n_rows - n_outliers < 2:
        raise ValueError(
            f"y marks {n_outliers} of {n_rows} rows as auxiliary outliers (y == {outlier_label!r}); "
            f"at least 2 in-distribution rows are needed."
        )
    return y, outlier
