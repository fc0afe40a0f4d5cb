"""Set a detector's threshold on scores, and make displaced rows that stand in for new ones."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import pairwise_distances_chunked

__all__ = ["between", "displace", "find_offset"]

# Scores that differ by at most this share of their size count as equal.
_ROUNDING = 1e-10
# A threshold below all scores lies below the lowest one by this share of its size.
_MARGIN = 1e-6


def find_offset(
    scores: ArrayLike,
    *,
    contamination: float | None = None,
    target_fpr: float | None = None,
    offset: float | None = None,
) -> float:
    """Return the threshold that one of three parameters asks for; rows that score below it are outliers.

    It lies halfway between two scores, so that no decision hangs on a score's last bit.

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        Scores to set the threshold on; higher = more normal.
    contamination : float in [0, 0.5] or None, default=None
        Share of these rows that are outliers. 0, for clean data, calls no row an outlier.
    target_fpr : float in [0, 1) or None, default=None
        Largest share of these rows that may be called outliers; all of them are inliers.
    offset : float or None, default=None
        The threshold itself.

    Returns
    -------
    offset : float
        The threshold.

    Raises
    ------
    ValueError
        If not exactly one of the three is given, one is out of range, or the scores are empty, not finite, or not
        one-dimensional.

    Examples
    --------
    >>> from skood.thresholds import find_offset
    >>> find_offset([1.0, 2.0, 3.0, 4.0, 5.0], contamination=0.5)
    2.5
    >>> find_offset([1.0, 2.0, 3.0, 4.0, 5.0], target_fpr=0.3)
    1.5
    """
    wishes = {"contamination": contamination, "target_fpr": target_fpr, "offset": offset}
    given = [name for name, value in wishes.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of contamination, target_fpr and offset; got {', '.join(given) or 'none'}.")
    if offset is not None:
        if not isinstance(offset, Real) or not math.isfinite(offset):
            raise ValueError(f"offset={offset!r} must be a finite number.")
        return float(offset)
    if contamination is not None and not (isinstance(contamination, Real) and 0 <= contamination <= 0.5):
        raise ValueError(f"contamination={contamination!r} must be a number in [0, 0.5].")
    if target_fpr is not None and not (isinstance(target_fpr, Real) and 0 <= target_fpr < 1):
        raise ValueError(f"target_fpr={target_fpr!r} must be a number in [0, 1).")
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores must be one-dimensional, one number for each row; got shape {values.shape}.")
    ascending, n_bad = np.sort(values), np.count_nonzero(~np.isfinite(values))
    if len(ascending) == 0 or n_bad:
        held = f"{n_bad} of {len(ascending)} are NaN or infinite" if n_bad else "there are none"
        raise ValueError(f"scores must hold at least one number, and finite scores only; {held}.")
    # The small terms are for products such as 0.29 * 100 = 28.999999999999996, whose floor would be one too low.
    if contamination is not None:
        # So many scores lie strictly below the quantile that is the threshold of scikit-learn's detectors.
        return between(ascending, math.ceil(contamination * (len(ascending) - 1) - 1e-9))
    assert target_fpr is not None
    return between(ascending, math.floor(target_fpr * len(ascending) + 1e-9))


def between(ascending: np.ndarray, n_below: int, share: float = 0.5) -> float:
    """Return a threshold below which ``n_below`` of the scores lie, or fewer if scores are equal.

    Parameters
    ----------
    ascending : ndarray of float of shape (n_samples,)
        Sorted scores.
    n_below : int
        Number of scores, in [0, n_samples).
    share : float, default=0.5
        Position of the threshold between the two scores around it, in (0, 1): near 0 it is close to the lower one.

    Returns
    -------
    threshold : float
        Between two scores, or a little below the lowest one.
    """
    # Scores that differ only by rounding belong to equal rows, which should get the same label.
    lower, upper = ascending[:n_below], ascending[1 : n_below + 1]
    apart = np.flatnonzero(upper - lower > _ROUNDING * np.maximum(np.abs(lower), np.abs(upper)))
    if len(apart):
        return float((1 - share) * lower[apart[-1]] + share * upper[apart[-1]])
    lowest = float(ascending[0])
    return lowest - _MARGIN * (abs(lowest) or float(ascending[-1]) or 1.0)


def displace(rows: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Move each row by the difference between a row drawn at random and that row's nearest neighbour.

    The displaced rows differ from the given ones about as much, and in similar directions, as new rows do. Their scores
    stand in for those of new rows, because a network scores its training rows higher than any others.

    Parameters
    ----------
    rows : ndarray of float of shape (n_samples, n_features)
        At least two.
    rng : RandomState
        Assigns the differences to the rows; every difference is used once.

    Returns
    -------
    displaced : ndarray of float of shape (n_samples, n_features)
    """

    def nearest_of(distances: np.ndarray, start: int) -> np.ndarray:
        """Return the index of each row's nearest neighbour, other than the row itself."""
        np.fill_diagonal(distances[:, start:], np.inf)
        return distances.argmin(1)

    # Not by scikit-learn's NearestNeighbors: tools that log every fit (MLflow) would log that one as the model.
    nearest = np.concatenate(list(pairwise_distances_chunked(rows, reduce_func=nearest_of)))
    return rows + (rows[nearest] - rows)[rng.permutation(len(rows))]
