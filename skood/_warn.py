"""Warn at a line of the user's program."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

__all__ = ["warn_user"]

# A call of fit passes through these on its way here: scikit-learn wraps fit and runs pipelines and searches, joblib
# runs what is parallel, and functions decorated by context managers pass through contextlib.
_LIBRARIES = frozenset({"contextlib", "joblib", "sklearn", "skood", "torch"})


def warn_user(message: str | Warning, category: type[Warning]) -> None:
    """Warn at the line of the user's program that led here, however many calls lie between.

    A fixed ``stacklevel`` would be right for one way of calling only: within a Pipeline, fit is many calls deeper.
    And Python shows a warning once for each line; at a line of skood it would be shown once for the whole program.
    From Python 3.12 on, ``skip_file_prefixes`` of `warnings.warn` does the same.

    Parameters
    ----------
    message : str or Warning
        The text, or an instance of ``category``.
    category : type
        Subclass of Warning.
    """
    # Level 1 is this function. If no line is the user's, as in a process of joblib, the outermost line is named.
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _in_library(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _in_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _LIBRARIES
