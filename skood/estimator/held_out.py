"""Folds of held-out rows, so that a threshold can be set on scores of rows that a model was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..training.batches import n_batches
from ..training.phases import Phase
from .offset import between

__all__ = ["FALSE_ALARMS", "FEW_ROWS", "Fold", "held_out_offset", "held_out_rows", "n_held_out", "validation_rows"]

# Share of new in-distribution rows that may be called outliers with contamination="auto".
FALSE_ALARMS = 0.05
# With fewer scores of held-out rows than this, the threshold is not set on them alone.
FEW_ROWS = 40
# With fewer rows than this none is held out: the others would be too few to train on.
_FEWEST = 6
# More scores than these hardly make a threshold more stable, while each fold costs another fit.
_ENOUGH_SCORES = 200
# From so many rows on there are five folds, not three: each model is trained on more rows, and one fold is enough.
_ROWS_FOR_FIVE = 1000
# More scores than these cost time and do not change the threshold.
_MOST_SCORES = 10_000


@dataclass(frozen=True, eq=False)
class Fold:
    """Describe a fit that is repeated without some of its rows.

    Parameters
    ----------
    held_out : ndarray of int of shape (n_held_out,)
        Indices in X of the rows that take no part.
    title : str
        Shown beside the progress bar.
    epochs : sequence of int
        Epochs of each phase of the fit on all rows; phases without epochs are left out.
    """

    held_out: np.ndarray
    title: str
    epochs: Sequence[int]

    def as_many_steps(self, n_epochs: int, n_rows: int, batch_size: int, least_rows: int = 2) -> int:
        """Return the number of epochs on ``n_rows`` with as many optimiser steps as ``n_epochs`` on all rows.

        With as many epochs, a fold of fewer batches would be trained less, and its scores would differ.
        """
        steps = n_epochs * n_batches(n_rows + len(self.held_out), batch_size, least_rows)
        return max(1, round(steps / n_batches(n_rows, batch_size, least_rows)))

    def as_long(self, phases: Sequence[Phase], n_rows: int, batch_size: int) -> list[Phase]:
        """Return the phases with as many optimiser steps as the fit on all rows took."""
        phases = [phase for phase in phases if phase.max_epochs > 0]
        # A fit that went on from an earlier one may have run only the last phases.
        phases = phases[len(phases) - len(self.epochs) :]
        return [
            phase._replace(max_epochs=self.as_many_steps(n_epochs, n_rows, batch_size, phase.least_rows))
            for phase, n_epochs in zip(phases, self.epochs, strict=True)
        ]


def held_out_rows(n_rows: int, codes: np.ndarray | None, rng: np.random.RandomState) -> list[np.ndarray]:
    """Draw the rows that each fold holds out, and return as few folds as give enough scores.

    There are three folds, or five from 1,000 rows on, stratified by class. All three are used below 300 rows, two below
    600 rows, and one from there on. A class with fewer rows than folds is never held out.

    Parameters
    ----------
    n_rows : int
        Number of in-distribution rows.
    codes : ndarray of int of shape (n_rows,) or None
        Their classes, if there are any.
    rng : RandomState
        Draws which row is in which fold.

    Returns
    -------
    folds : list of ndarray of int
        For each fold the sorted indices of the rows that it holds out. Empty if there are too few rows.
    """
    n_folds = 5 if n_rows >= _ROWS_FOR_FIVE else 3
    order = rng.permutation(n_rows)
    if codes is not None:
        order = order[np.argsort(codes[order], kind="stable")]
        sizes = np.bincount(codes)
        order = order[sizes[codes[order]] >= n_folds]
    if len(order) < _FEWEST:
        return []
    n_used = min(n_folds, math.ceil(_ENOUGH_SCORES * n_folds / len(order)))
    folds = [order[number::n_folds] for number in range(n_used)]
    # Rows are dropped evenly over the whole order, so that the classes keep their shares.
    steps = [math.ceil(len(fold) / _MOST_SCORES) for fold in folds]
    return [np.sort(fold[::step]) for fold, step in zip(folds, steps, strict=True)]


def held_out_offset(scores: np.ndarray, false_alarms: float = FALSE_ALARMS) -> float:
    """Return the threshold below which at most a given share of new in-distribution rows is expected to score.

    A new row's score takes any rank among n exchangeable scores with equal probability: it falls below the k-th
    smallest with probability k / (n + 1). So k is the floor of ``false_alarms * (n + 1)``. If that is 0, the threshold
    is just below the smallest score, and the expected share is 1 / (n + 1).

    Parameters
    ----------
    scores : ndarray of float of shape (n_rows,)
        Scores of in-distribution rows that the model was not fitted on.
    false_alarms : float, default=0.05
        The share, in (0, 1).

    Returns
    -------
    offset : float
    """
    ascending = np.sort(scores)
    # The small term is for products such as 0.29 * 100 = 28.999999999999996, whose floor would be one too low.
    k = math.floor(false_alarms * (len(ascending) + 1) + 1e-9)
    # Just below the k-th smallest: a threshold halfway to the next lower score would call too few rows outliers.
    return between(ascending, max(k, 1) - 1, share=0.99)


def n_held_out(n_rows: int, fraction: float, least: int = 2) -> int:
    """Return the number of validation rows: a share, but two at least, or ``least`` if half of the rows are as many."""
    return max(2, min(least, n_rows // 2), math.ceil(fraction * n_rows))


def validation_rows(
    n_rows: int, codes: np.ndarray | None, fraction: float, rng: np.random.RandomState, least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the validation rows of a training.

    They are stratified by class, and each class keeps at least one row for the training.

    Parameters
    ----------
    n_rows : int
        Number of in-distribution rows.
    codes : ndarray of int of shape (n_rows,) or None
        Their classes, if there are any.
    fraction : float in (0, 1)
        Share of the rows to hold out; at least two are.
    rng : RandomState
        Draws the rows.
    least : int, default=2
        Number of rows that a validation loss needs; fewer are held out only if they are more than half of all.

    Returns
    -------
    kept, held_out : ndarray of int
        Sorted indices of the training rows, and of the validation rows.

    Raises
    ------
    ValueError
        If fewer than two rows would be left on either side.
    """
    n_out = n_held_out(n_rows, fraction, least)
    order = rng.permutation(n_rows)
    if codes is not None:
        order = order[np.argsort(codes[order], kind="stable")]
        order = np.delete(order, np.unique(codes[order], return_index=True)[1])
    if n_rows - n_out < 2 or len(order) < n_out:
        raise ValueError(
            f"early_stopping=True would hold out {n_out} of {n_rows} in-distribution rows, and leave too few to "
            f"train on: at least two are needed, and one of each class. Pass more rows, lower validation_fraction (now "
            f"{fraction:g}), or set early_stopping=False."
        )
    # Evenly spaced in an order that is sorted by class: this stratifies.
    held_out = order[(np.arange(n_out) * len(order)) // n_out]
    return np.setdiff1d(np.arange(n_rows), held_out), np.sort(held_out)
