"""Share out what a row's score differs from the usual one among its features.

Where there is a torch module, by integrated gradients; elsewhere by Shapley values of a sample of orders.
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

# Most training rows that an estimator keeps to compare with, and most bytes of them.
_KEPT_ROWS, _KEPT_BYTES = 64, 2**18
# With how many of them a row is compared, on either side of the median.
_NEAREST = 4
# To the choice of the nearest rows, features that differ by more standard deviations than this differ alike: it is to
# rest on the features that are usual.
_FAR = 2.0
# Points on each way; more of them for a row as long as its contributions miss more than this share.
_POINTS, _TOLERANCE = (16, 64, 256), 0.01
# Share that may be missing in the end, and most features for which samples then take the place of gradients.
_MISSING, _MOST_SAMPLED = 0.1, 256
# Orders in which features are exchanged, each of which is gone through backwards, too.
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
    """Return the places of the rows whose scores are the next ones to the median, half of them from either side."""
    order = np.argsort(scores, kind="stable")
    middle = int(np.searchsorted(scores[order], median))
    return order[max(0, middle - n_rows // 2) : middle + (n_rows + 1) // 2]


def _nearest(distance: np.ndarray, scores: np.ndarray, median: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the nearest rows, and their weights, by which their mean score is the median."""
    below = scores <= median
    sides = [np.flatnonzero(side) for side in (below, ~below) if side.any()]
    sides = [side[np.argsort(distance[side], kind="stable")[:_NEAREST]] for side in sides]
    shares = [1.0]
    if len(sides) == 2:
        low, high = (scores[side].mean() for side in sides)
        shares = [(high - median) / (high - low), (median - low) / (high - low)]
    weights = [np.full(len(side), share / len(side)) for side, share in zip(sides, shares, strict=True)]
    return np.concatenate(sides), np.concatenate(weights)


def _distances(row: np.ndarray, normal: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Return how far each of the normal rows is from a row; all are vectors."""
    return np.minimum(np.abs(normal - row) / deviations, _FAR).mean(1)


def _deviations(normal: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each feature; 1 where it does not vary."""
    deviations = normal.std(0)
    return np.where(deviations > 0, deviations, 1.0)


# ----------------------------------------------------------------------------------------------- integrated gradients


def by_gradients(
    module: nn.Module, X: np.ndarray, scores: np.ndarray, normal: np.ndarray, median: float, spread: float = 0.0
) -> np.ndarray:
    """Return contributions of the features of rows by integrated gradients, or by `by_samples` where the score jumps.

    Each row is explained by itself, in blocks of a fixed shape, so that other rows have no part in it.

    Parameters
    ----------
    module : torch.nn.Module
        Maps rows to scores: what an estimator's ``to_torch`` returns.
    X : ndarray of shape (n_rows, ...)
        Validated rows.
    scores : ndarray of shape (n_rows,)
        Their scores.
    normal : ndarray of shape (n_normal, ...)
        Rows to compare with, whose scores lie around the median.
    median : float
        What the contributions of a row add up to is its score less this.
    spread : float, default=0.0
        Interquartile range of the training rows' scores. What contributions miss is compared with it where a score
        hardly differs from the median.

    Returns
    -------
    shares : ndarray of float64 of the shape of X
    """
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
            f"the contributions of {missing.sum()} of {len(X)} rows missed more than a tenth of what they are to add "
            f"up to, because the score jumps between normal rows and these. What was missing is shared out in "
            f"proportion: do not rely on small differences between contributions.",
            RuntimeWarning,
        )
    return shares


class Ways:
    """Integrate gradients on the straight ways from the nearest normal rows to a row.

    Parameters
    ----------
    module : torch.nn.Module
        Maps rows to scores.
    normal : ndarray of float64 of shape (n_normal, ...)
        The normal rows.
    median : float
        What the mean of their scores is weighted to be.
    spread : float
        Interquartile range of scores.
    """

    def __init__(self, module: nn.Module, normal: np.ndarray, median: float, spread: float):
        from captum.attr import IntegratedGradients

        # The first layer may work in place.
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
            # What is the same in both rows contributes nothing, also where its gradient is infinite: x log x at 0.
            found = torch.where(rows == normal, 0.0, found.detach())
            shares = np.tensordot(weights, found.cpu().double().numpy(), 1)
            if abs(difference - shares.sum()) <= _TOLERANCE * max(abs(difference), self.spread):
                break
        return shares

    def _tensor(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(rows, dtype=np.float64)).to(self.device, precise_dtype(self.device))


def _made_up(shares: np.ndarray, difference: float) -> np.ndarray:
    """Return contributions to which what they miss of the difference is added, in proportion to their sizes."""
    sizes, gap = np.abs(shares), difference - shares.sum()
    return shares + gap * (sizes / sizes.sum() if sizes.any() else np.full(shares.shape, 1 / shares.size))


# ----------------------------------------------------------------------------------------------------- Shapley values


def by_samples(
    score: Callable[[Any], np.ndarray], X: Any, scores: np.ndarray, normal: Any, median: float
) -> np.ndarray:
    """Return contributions of the columns of a table by Shapley values of a sample of orders.

    One column after the other of a normal row becomes that of the row explained; a column's contribution is how much
    the score changes then, averaged over orders and normal rows. No gradient is needed, and columns may hold text.

    Parameters
    ----------
    score : callable
        Maps a table to the scores of its rows.
    X, normal : DataFrame or array of two dimensions
        The rows, and those to compare with, whose scores lie around the median.
    scores : ndarray of shape (n_rows,)
        Scores of the rows.
    median : float
        What the contributions of a row add up to is its score less this.

    Returns
    -------
    shares : ndarray of float64 of the shape of X
    """
    n_rows, n_columns = X.shape
    rng = np.random.RandomState(0)
    orders = [rng.permutation(n_columns) for _ in range(_ORDERS)]
    orders += [order[::-1] for order in orders]
    normal_scores, apart, shares = score(normal), _Apart(normal), np.zeros((n_rows, n_columns))
    # Of column j the rows of a way take place 0, the row explained, from the step on in which it is exchanged.
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
    """Measure how far rows of a table are from normal ones: numbers by their deviation, all else as alike or not."""

    def __init__(self, normal: Any):
        self.columns = _columns(normal)
        self.deviations = [_deviations(column) if column.dtype.kind in "biuf" else None for column in self.columns]

    def distances(self, row: Any) -> np.ndarray:
        """Return the distance of each normal row."""
        total = np.zeros(len(self.columns[0]))
        for value, column, deviation in zip(_columns(row), self.columns, self.deviations, strict=True):
            if deviation is None:
                total += _FAR * (column != value)
            else:
                total += np.fmin(np.abs(column.astype(np.float64) - value.astype(np.float64)) / deviation, _FAR)
        return total


def _columns(X: Any) -> list[np.ndarray]:
    return [X.iloc[:, place].to_numpy() for place in range(X.shape[1])] if hasattr(X, "iloc") else [*X.T]


def _stacked(row: Any, other: Any) -> Any:
    """Return a table of two rows."""
    if not hasattr(row, "iloc"):
        return np.concatenate([row, other])
    import pandas as pd

    return pd.concat([row, other], ignore_index=True)


def _picked(table: Any, places: np.ndarray) -> Any:
    """Return a table whose entry in row i and column j is that of row ``places[i, j]`` in the given one."""
    if not hasattr(table, "iloc"):
        return table[places, np.arange(table.shape[1])]
    import pandas as pd

    columns = [table.iloc[:, place].take(taken).reset_index(drop=True) for place, taken in enumerate(places.T)]
    return pd.concat(columns, axis=1)
