"""What a comparison keeps on disk."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = [
    "detector",
    "dataset",
    "protocol",
    "seed",
    "auroc",
    "aupr_out",
    "fpr95",
    "fit_seconds",
    "score_seconds",
    "n_train",
    "n_test",
    "error",
    "key",
]


_TIMED_OUT = "t/o"
_TEXT = ("detector", "dataset", "protocol", "error", "key")


class Store:
    """``results.csv`` and ``scores/`` in a directory, written as rows come; or nothing, without a directory."""

    def __init__(self, directory):
        self.directory = None if directory is None else Path(directory)
        self.rows = {}
        if self.directory is None:
            return
        (self.directory / "scores").mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "results.csv"
        if self.path.exists():
            self._read()
        self._write()

    def _read(self):
        try:
            # A row that was being written when the machine went down has no end.
            text = self.path.read_text(encoding="utf-8")
            text = text[: text.rfind("\n") + 1]
            # A data set may be named NA.
            numbers = set(COLUMNS) - set(_TEXT)
            options = {"keep_default_na": False, "na_values": dict.fromkeys(numbers, "")}
            table = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(_TEXT, str), **options)
        except pd.errors.EmptyDataError:
            return
        if not set(COLUMNS) <= set(table.columns):
            raise ValueError(f"{self.path} holds something else; choose another directory.")
        for row in table[COLUMNS].to_dict("records"):
            self.rows[self._place(row)] = row

    @staticmethod
    def _place(row):
        return row["detector"], row["dataset"], row["protocol"], int(row["seed"])

    def _write(self):
        part = self.path.with_suffix(".part")
        pd.DataFrame(self.rows.values(), columns=COLUMNS).to_csv(part, index=False)
        os.replace(part, self.path)

    def find(self, key, detector, dataset, timeout=None):
        """The finished row of that key, named as it is named now; None if there is none or it is to be tried again.

        That is if it had failed, unless for want of time that it would not have now either.
        """
        for row in self.rows.values():
            if row["key"] == key and (row["detector"], row["dataset"]) == (detector, dataset):
                limit = time_limit(row["error"])
                too_slow = limit is not None and timeout is not None and timeout <= limit
                return row if too_slow or not row["error"] else None
        return None

    def add(self, row):
        if self.directory is None:
            return
        place = self._place(row)
        stale = place in self.rows
        self.rows[place] = row
        if stale:
            self._write()
        else:
            pd.DataFrame([row], columns=COLUMNS).to_csv(self.path, mode="a", header=False, index=False)

    def add_scores(self, row, scores):
        if self.directory is not None:
            np.savez_compressed(scores_path(self.directory, row), **scores)


def gave_up(timeout: float) -> str:
    """The error of a row that was given up after so many seconds."""
    return f"{_TIMED_OUT} after {timeout} s"


def time_limit(error: str) -> float | None:
    """The seconds after which a row was given up; None if it was not, or has no error."""
    return float(error.split()[2]) if str(error).startswith(f"{_TIMED_OUT} after ") else None


def as_file_name(name: str) -> str:
    """A name of a data set or a detector as part of a file's."""
    return re.sub(r'[/\\:*?"<>|]', "_", name)


def scores_path(directory: Path, row: Mapping) -> Path:
    """Where the test labels and scores of a row of the results lie, for the first seed."""
    name = "-".join(str(row[column]) for column in ("dataset", "protocol", "detector"))
    return directory / "scores" / f"{as_file_name(name)}.npz"
