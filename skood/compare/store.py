"""What a comparison keeps on disk."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from .row import COLUMNS, Place, ResultRow, time_limit

_TEXT = ("detector", "dataset", "protocol", "error", "key")
# Files of earlier states lack these. Their rows rank detectors as well as new ones: that is worth more than a fit.
_MAY_LACK = ("false_alarms", "caught")


class Store:
    """Keep rows in ``results.csv`` and scores in ``scores/``, as they come.

    Parameters
    ----------
    directory : str, Path or None
        Created if it is not there. None keeps nothing.

    Raises
    ------
    ValueError
        If ``results.csv`` is there and holds no results of a comparison.
    OSError
        If the directory cannot be created or written into.
    """

    def __init__(self, directory: str | Path | None) -> None:
        self.directory = None if directory is None else Path(directory)
        self.rows: dict[Place, ResultRow] = {}
        if self.directory is None:
            return
        (self.directory / "scores").mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "results.csv"
        if self.path.exists():
            self.rows = {row.place: row for row in _read(self.path)}
        # Writing now tells a directory that cannot be written into before the first fit, not after it.
        self._write()

    def find(self, place: Place, key: str, timeout: float | None = None) -> ResultRow | None:
        """Return the stored row that makes a fit unnecessary.

        Parameters
        ----------
        place : tuple of (str, str, str, int)
            Detector, data set, protocol and seed.
        key : str
            As `ResultRow.key`.
        timeout : float or None, default=None
            Seconds that the fit may take now; None sets no limit.

        Returns
        -------
        row : ResultRow or None
            None if there is no row of that key, or if it failed. A row that was given up counts as finished unless
            there is more time now.
        """
        row = self.rows.get(place)
        if row is None or row.key != key:
            return None
        limit = time_limit(row.error)
        too_slow = limit is not None and timeout is not None and timeout <= limit
        return row if too_slow or not row.error else None

    def add(self, row: ResultRow) -> None:
        """Keep a row, in place of an older one of the same detector, data set, protocol and seed.

        Parameters
        ----------
        row : ResultRow
        """
        if self.directory is None:
            return
        stale = row.place in self.rows
        self.rows[row.place] = row
        if stale:
            self._write()
        else:
            _table([row]).to_csv(self.path, mode="a", header=False, index=False)

    def add_scores(self, row: ResultRow) -> None:
        """Keep the scores of a row, where it has any.

        Parameters
        ----------
        row : ResultRow
        """
        if self.directory is not None and row.scores is not None:
            path = scores_path(self.directory, row.dataset, row.protocol, row.detector)
            np.savez_compressed(path, **row.scores._asdict())

    def _write(self) -> None:
        """Write all rows into another file first: an interruption leaves the old one or the new one, whole."""
        part = self.path.with_suffix(".part")
        _table(list(self.rows.values())).to_csv(part, index=False)
        os.replace(part, self.path)


def _table(rows: list[ResultRow]) -> pd.DataFrame:
    return pd.DataFrame([row.record for row in rows], columns=COLUMNS)


def _read(path: Path) -> list[ResultRow]:
    """Read the rows of ``results.csv``."""
    text = path.read_text(encoding="utf-8")
    # A row that was being written when the machine went down has no end.
    text = text[: text.rfind("\n") + 1]
    # A data set may be named NA: in columns of text, no text means a missing value.
    missing = {column: [""] for column in COLUMNS if column not in _TEXT}
    try:
        table = pd.read_csv(
            io.StringIO(text), dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=missing
        )
    except pd.errors.EmptyDataError:
        return []
    if not set(COLUMNS) - set(_MAY_LACK) <= set(table.columns):
        raise ValueError(f"{path} holds something else; choose another directory.")
    return [ResultRow.from_record(record) for record in table.reindex(columns=COLUMNS).to_dict("records")]


def as_file_name(name: str) -> str:
    """Return a name of a data set or a detector as it may stand in the name of a file.

    Parameters
    ----------
    name : str

    Returns
    -------
    text : str
    """
    return re.sub(r'[/\\:*?"<>|]', "_", name)


def scores_path(directory: Path, dataset: str, protocol: str, detector: str) -> Path:
    """Return where the test labels and scores of the first seed lie.

    Parameters
    ----------
    directory : Path
        The one that holds ``results.csv``.
    dataset, protocol, detector : str
        As in the results.

    Returns
    -------
    path : Path
    """
    return directory / "scores" / f"{as_file_name('-'.join((dataset, protocol, detector)))}.npz"
