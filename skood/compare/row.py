"""Hold a row of the results of a comparison; write and read a time limit in its column ``error``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import nan
from typing import Any, NamedTuple, Self

import numpy as np

_TIMED_OUT = "t/o"
# The end of the key of a row without decisions. A row with decisions has the same key without this end, and can stand
# for it.
RANKS_ALONE = "-ranks"


class Scores(NamedTuple):
    """Hold the test of one detector on one data set.

    Attributes
    ----------
    y : ndarray of int of shape (n_test,)
        -1 for outliers, +1 for inliers.
    score : ndarray of float64 of shape (n_test,)
        Higher = more normal.
    threshold : float
        The detector calls rows with lower scores outliers; NaN if it has no threshold.
    """

    y: np.ndarray
    score: np.ndarray
    threshold: float


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """Hold one finished row of the results: one detector, one data set, one seed.

    The fields, without ``scores``, are the columns of ``results.csv`` in their order (`COLUMNS`).

    Attributes
    ----------
    detector, dataset, protocol : str
        Names.
    seed : int
    auroc, aupr_out, fpr95 : float
        Metrics of the test rows; NaN if the detector failed.
    false_alarms, caught : float
        Shares of the test inliers and of the test outliers that the detector predicts to be outliers; NaN if it failed,
        or has no ``predict`` that gives +1 and -1.
    fit_seconds, score_seconds : float
        NaN if the detector failed before the end of the fit, or of the scoring.
    n_train : int
        Training rows, without auxiliary outliers.
    n_test : int
        Test rows.
    error : str
        Why the detector failed; empty if it did not.
    key : str
        Hash of everything that the figures depend on. A stored row with another key is out of date.
    scores : Scores or None
        What the metrics were computed from; None if the detector failed, and for a row read from a file.
    """

    detector: str
    dataset: str
    protocol: str
    seed: int
    auroc: float = nan
    aupr_out: float = nan
    fpr95: float = nan
    false_alarms: float = nan
    caught: float = nan
    fit_seconds: float = nan
    score_seconds: float = nan
    n_train: int
    n_test: int
    error: str = ""
    key: str
    scores: Scores | None = None

    @classmethod
    def from_record(cls, record: Mapping[Any, Any]) -> Self:
        """Return the row that has these values.

        Parameters
        ----------
        record : mapping of str to object
            Value of each column.

        Returns
        -------
        row : ResultRow
        """
        return cls(**record)

    @property
    def record(self) -> dict[str, Any]:
        """Return the value of each column."""
        return {column: getattr(self, column) for column in COLUMNS}

    @property
    def place(self) -> Place:
        """Return detector, data set, protocol and seed; a file holds one row for each combination."""
        return self.detector, self.dataset, self.protocol, int(self.seed)


Place = tuple[str, str, str, int]
COLUMNS = [field.name for field in fields(ResultRow) if field.name != "scores"]


def gave_up(timeout: float) -> str:
    """Return the error of a row whose fit was stopped by the time limit.

    Parameters
    ----------
    timeout : float
        Seconds after which it was stopped.

    Returns
    -------
    error : str
    """
    return f"{_TIMED_OUT} after {timeout} s"


def time_limit(error: str) -> float | None:
    """Read the time limit out of an error.

    Parameters
    ----------
    error : str
        The error of a row of the results.

    Returns
    -------
    timeout : float or None
        Seconds after which the fit was stopped; None if it was not.
    """
    return float(error.split()[2]) if error.startswith(f"{_TIMED_OUT} after ") else None
