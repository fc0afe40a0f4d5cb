"""What a comparison keeps on disk."""

from __future__ import annotations

import io
import os
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

    def find(self, key, detector, dataset):
        """The finished row of that key, named as it is named now; None if there is none or it had failed."""
        for row in self.rows.values():
            if row["key"] == key and not row["error"] and (row["detector"], row["dataset"]) == (detector, dataset):
                return row
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


def scores_path(directory: Path, row: Mapping) -> Path:
    """Where the test labels and scores of a row of the results lie, for the first seed."""
    name = "-".join(str(row[column]) for column in ("dataset", "protocol", "detector"))
    return directory / "scores" / f"{name.replace(os.sep, '_')}.npz"
