"""Attribute the difference between a row's score and the median score to the row's features.

A torch module is explained by integrated gradients, any other model by sampled Shapley values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.utils import _safe_indexing
from torch import Tensor, nn

from .._warn import warn_user
from ..networks.neighbors import precise_dtype
from ..training.scoring import block_sizes, device_of

__all__ = ["Ways", "around_median", "by_gradients", "by_samples", "check_captum", "number_kept"]

# An estimator keeps at most so many training rows to compare with, of at most so many bytes.
_KEPT_ROWS, _KEPT_BYTES = 64, 2**18
# A row is compared with so many of them on either side of the median.
_NEAREST = 4
# In distances, larger differences (in standard deviations) count as this one: the nearest rows are to be chosen by the
# features that are normal, not by the unusual one.
_FAR = 2.0
# Points on each line; the next larger number is tried while a row's contributions miss more than this share.
_POINTS, _TOLERANCE = (16, 64, 256), 0.01
# If more than this share is missing in the end, samples replace gradients, for rows of at most so many features.
_MISSING, _MOST_SAMPLED = 0.1, 256
# Scores that differ by this share count as equal: by rounding in single precision.
_SINGLE = 1e-6
# Orders in which features are replaced; each is used in reverse, too.
_ORDERS = 2


def check_captum() -> None:
    """Raise an ImportError that says what to install, if Captum is missing."""
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise ImportError('explain needs Captum: pip install "skood[explain]".') from error


# ----------------------------------------------------------------------------------------- what rows are compared with


def number_kept(n_bytes: int) -> int:
    """Return how many training rows of this size are kept: at least one on either side of the median."""
    return min(_KEPT_ROWS, max(2, _KEPT_BYTES // max(1, n_bytes)))


def around_median(scores: np.ndarray, median: float, n_rows: int) -> np.ndarray:
    """Return the indices of the rows whose scores are nearest to the median, half of them from either side."""
    order = np.argsort(scores, kind="stable")
    middle = int(np.searchsorted(scores[order], median))
    return order[max(0, middle - n_rows // 2) : middle + (n_rows + 1) // 2]


def _nearest(distance: np.ndarray, scores: np.ndarray, median: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the nearest rows, and weights by which their mean score is the median."""
    below = scores <= median
    sides = [np.flatnonzero(side) for side in (below, ~below)]
    if not all(map(len, sides)):
        # The median is the highest score, as where most rows have the same. Lower ones could not be weighed against
        # higher ones, so only those at the median count, to the rounding of single precision.
        apart = np.abs(scores - median)
        sides = [np.flatnonzero(apart <= apart.min() + _SINGLE * np.abs(median))]
    sides = [side[np.argsort(distance[side], kind="stable")[:_NEAREST]] for side in sides]
    shares = [1.0]
    if len(sides) == 2:
        low, high = (scores[side].mean() for side in sides)
        shares = [(high - median) / (high - low), (median - low) / (high - low)]
    weights = [np.full(len(side), share / len(side)) for side, share in zip(sides, shares, strict=True)]
    return np.concatenate(sides), np.concatenate(weights)


def _distances(row: np.ndarray, normal: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Return the distance of each normal row from a row; all are vectors."""
    return np.minimum(np.abs(normal - row) / deviations, _FAR).mean(1)


def _deviations(normal: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each feature; 1 where it does not vary."""
    deviations = normal.std(0)
    return np.where(deviations > 0, deviations, 1.0)


# ----------------------------------------------------------------------------------------------- integrated gradients


def by_gradients(
    module: nn.Module, X: np.ndarray, scores: np.ndarray, normal: np.ndarray, median: float, spread: float = 0.0
) -> np.ndarray:
    """Return contributions of the features of rows by integrated gradients, or by `by_samples` if the score jumps.

    Each row is explained alone, in blocks of a fixed shape, so that its contributions do not depend on other rows.

    Parameters
    ----------
    module : torch.nn.Module
        Maps rows to scores: what an estimator's ``to_torch`` returns.
    X : ndarray of shape (n_rows, ...)
        Validated rows.
    scores : ndarray of shape (n_rows,)
        Their scores.
    normal : ndarray of shape (n_normal, ...)
        Rows to compare with, whose scores lie around the median. Images may be flattened where those of X are not, and
        the other way round.
    median : float
        The contributions of a row add up to its score minus this.
    spread : float, default=0.0
        Interquartile range of the training rows' scores. The gap in a row's contributions is measured against it if
        the row's score hardly differs from the median.

    Returns
    -------
    shares : ndarray of float64 of the shape of X
    """
    # Of images, one of the two may be flattened.
    normal = normal.reshape(len(normal), *X.shape[1:])
    shares, missing = np.zeros(X.shape), np.zeros(len(X), dtype=bool)
    # The caller may be in inference mode, or have switched gradients off.
    device_type = device_of(module).type
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device_type, enabled=False):
        ways = Ways(module, normal.astype(np.float64), median, spread)
        for number, row in enumerate(X):
            difference = float(scores[number]) - median
            found = ways.share(row.astype(np.float64), difference)
            gap = difference - found.sum()
            # A gap may be NaN.
            missing[number] = not abs(gap) <= _MISSING * max(abs(difference), spread)
            shares[number] = _made_up(np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), difference)
    if missing.any() and shares[0].size <= _MOST_SAMPLED and X.ndim == 2:
        shares[missing] = by_samples(ways.score, X[missing], scores[missing], normal, median)
    elif missing.any():
        warn_user(
            f"the contributions of {missing.sum()} of {len(X)} rows missed more than a tenth of their sum, because the "
            f"score jumps between normal rows and these. The gap was distributed in proportion to the contributions: "
            f"do not rely on small differences between them.",
            RuntimeWarning,
        )
    return shares


class Ways:
    """Integrate gradients on the straight lines from the nearest normal rows to a row.

    Parameters
    ----------
    module : torch.nn.Module
        Maps rows to scores.
    normal : ndarray of float64 of shape (n_normal, ...)
        The normal rows.
    median : float
        The rows are weighted such that the mean of their scores is this.
    spread : float
        Interquartile range of scores.
    """

    def __init__(self, module: nn.Module, normal: np.ndarray, median: float, spread: float):
        from captum.attr import IntegratedGradients

        # On a copy, since the first layer may work in place.
        self.module, self.method = module, IntegratedGradients(lambda rows: module(rows.clone()))
        self.device = device_of(module)
        self.n_at_once = block_sizes(normal.shape[1:], self.device)[-1]
        self.normal, self.median, self.spread = normal, median, spread
        self.flat = normal.reshape(len(normal), -1)
        self.deviations = _deviations(self.flat)
        self.scores = self.score(normal)

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores of rows by the module."""
        with torch.no_grad():
            parts = [self.module(part.clone()) for part in self._tensor(rows).split(self.n_at_once)]
        return torch.cat(parts).cpu().double().numpy()

    def share(self, row: np.ndarray, difference: float) -> np.ndarray:
        """Return the contributions of a row's features, which should add up to the difference."""
        distance = _distances(row.ravel(), self.flat, self.deviations)
        nearest, weights = _nearest(distance, self.scores, self.median)
        normal = self._tensor(self.normal[nearest])
        rows = self._tensor(row[None]).expand_as(normal).contiguous()
        for n_points in _POINTS:
            found = self.method.attribute(
                rows, normal, n_steps=n_points, internal_batch_size=max(len(rows), self.n_at_once)
            )
            # A value that is equal in both rows contributes 0, even if its gradient is infinite (x log x at 0).
            found = torch.where(rows == normal, 0.0, found.detach())
            shares = np.tensordot(weights, found.cpu().double().numpy(), 1)
            if abs(difference - shares.sum()) <= _TOLERANCE * max(abs(difference), self.spread):
                break
        return shares

    def _tensor(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(rows, dtype=np.float64)).to(self.device, precise_dtype(self.device))


def _made_up(shares: np.ndarray, difference: float) -> np.ndarray:
    """Distribute the gap between the contributions' sum and the difference, in proportion to their sizes."""
    sizes, gap = np.abs(shares), difference - shares.sum()
    return shares + gap * (sizes / sizes.sum() if sizes.any() else np.full(shares.shape, 1 / shares.size))


# ----------------------------------------------------------------------------------------------------- Shapley values


def by_samples(
    score: Callable[[Any], np.ndarray], X: Any, scores: np.ndarray, normal: Any, median: float
) -> np.ndarray:
    """Return contributions of the columns of a table by Shapley values from a sample of orders.

    The columns of a normal row are replaced, one after the other, by those of the row explained. A column's
    contribution is the change of the score when it is replaced, averaged over orders and normal rows. No gradient is
    needed, and columns may hold text.

    Parameters
    ----------
    score : callable
        Maps a table to the scores of its rows.
    X, normal : DataFrame or array of two dimensions
        The rows to explain, and normal rows to compare with, whose scores lie around the median.
    scores : ndarray of shape (n_rows,)
        Scores of the rows to explain.
    median : float
        The contributions of a row add up to its score minus this.

    Returns
    -------
    shares : ndarray of float64 of the shape of X
    """
    n_rows, n_columns = X.shape
    rng = np.random.RandomState(0)
    orders = [rng.permutation(n_columns) for _ in range(_ORDERS)]
    orders += [order[::-1] for order in orders]
    normal_scores, apart, shares = score(normal), _Apart(normal), np.zeros((n_rows, n_columns))
    # From the step on in which column j is replaced, its value comes from row 0 of the pair, the row explained.
    steps = np.arange(n_columns + 1)[:, None]
    exchanged = np.stack([steps > np.argsort(order) for order in orders])
    for number in range(n_rows):
        row = _safe_indexing(X, [number])
        nearest, weights = _nearest(apart.distances(row), normal_scores, median)
        for place, weight in zip(nearest, weights, strict=True):
            pair = _stacked(row, _safe_indexing(normal, [place]))
            changes = np.diff(
                score(_picked(pair, np.where(exchanged, 0, 1).reshape(-1, n_columns))).reshape(len(orders), -1)
            )
            for order, change in zip(orders, changes, strict=True):
                shares[number, order] += weight / len(orders) * change
        shares[number] = _made_up(shares[number], float(scores[number]) - median)
    return shares


class _Apart:
    """Measure distances of a row from normal rows: numbers in standard deviations, other columns as equal or not."""

    def __init__(self, normal: Any):
        self.columns = _columns(normal)
        self.deviations = [_known_deviation(column) if column.dtype.kind in "biuf" else None for column in self.columns]

    def distances(self, row: Any) -> np.ndarray:
        """Return the distance of each normal row from the row."""
        total = np.zeros(len(self.columns[0]))
        for value, column, deviation in zip(_columns(row), self.columns, self.deviations, strict=True):
            if deviation is None:
                total += _FAR * (column != value)
            else:
                total += np.fmin(np.abs(column.astype(np.float64) - value.astype(np.float64)) / deviation, _FAR)
        return total


def _known_deviation(column: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the values of a column that are not missing."""
    known = column[~np.isnan(column)]
    return _deviations(known) if len(known) else np.ones(())


def _columns(X: Any) -> list[np.ndarray]:
    """Return the columns of a table; numbers and booleans of pandas with missing values as floats with NaN."""
    if not hasattr(X, "iloc"):
        return [*X.T]
    columns = [X.iloc[:, place] for place in range(X.shape[1])]
    nullable = [not isinstance(one.dtype, np.dtype) and one.dtype.kind in "biuf" for one in columns]
    return [
        one.to_numpy(dtype=np.float64, na_value=np.nan) if numbers else one.to_numpy()
        for one, numbers in zip(columns, nullable, strict=True)
    ]


def _stacked(row: Any, other: Any) -> Any:
    """Return a table of two rows."""
    if not hasattr(row, "iloc"):
        return np.concatenate([row, other])
    import pandas as pd

    return pd.concat([row, other], ignore_index=True)


def _picked(table: Any, places: np.ndarray) -> Any:
    """Return a table whose entry in row i and column j comes from row ``places[i, j]`` of the given table."""
    if not hasattr(table, "iloc"):
        return table[places, np.arange(table.shape[1])]
    import pandas as pd

    columns = [table.iloc[:, place].take(taken).reset_index(drop=True) for place, taken in enumerate(places.T)]
    return pd.concat(columns, axis=1)
