"""What holds for one fit of an estimator while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..training.checkpoint import CheckpointFile
from .held_out import Fold

if TYPE_CHECKING:
    from .midway import Midway

__all__ = ["Running", "or_unchanged"]


@dataclass(eq=False)
class Running:
    """Hold what an estimator knows of the fit, or the pass of `partial_fit`, that is running.

    Parameters
    ----------
    one_pass : bool, default=False
        Whether it is one pass of `partial_fit`.
    fold : Fold or None, default=None
        What this copy of the estimator is fitted without; None for an estimator that the user fits.
    checkpoint : CheckpointFile or None, default=None
        Where the training goes on from after an interruption.
    midway : Midway or None, default=None
        Scores rows for callbacks.
    interrupted : bool, default=False
        Whether Ctrl-C cut it short.
    finished : bool, default=False
        Whether the estimator is fitted to its end, if perhaps after fewer epochs than were planned.
    """

    one_pass: bool = False
    fold: Fold | None = None
    checkpoint: CheckpointFile | None = None
    midway: Midway | None = None
    interrupted: bool = False
    finished: bool = False


@contextmanager
def or_unchanged(estimator: Any, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Undo what a block did to an estimator's attributes if it fails: a mixture of two fits would score rows wrong.

    Parameters
    ----------
    estimator : estimator
        Its attributes are replaced in the block, and none is changed in place.
    unless : callable, default=never
        Says whether to keep what a block did that fails, by Ctrl-C for example.
    """
    before = estimator.__dict__.copy()
    try:
        yield
    except BaseException:
        if not unless():
            estimator.__dict__.clear()
            estimator.__dict__.update(before)
        raise
