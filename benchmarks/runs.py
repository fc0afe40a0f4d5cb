"""A CSV file of runs, written as they are finished, so that the same command goes on where it was interrupted."""

from __future__ import annotations

import csv
import fcntl
import os
from pathlib import Path


class Runs:
    """Runs in a file, which several commands may write to at a time.

    Parameters
    ----------
    path : Path
    keys : list of str
        Columns that a run is known by, as text.
    figures : list of str
        Columns of what comes of it.
    """

    def __init__(self, path: Path, keys: list[str], figures: list[str]):
        self.path, self.keys, self.figures = path, keys, figures

    def add(self, run: dict) -> None:
        """Append a run; figures that it does not have stay empty."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            writer = csv.DictWriter(file, [*self.keys, *self.figures], lineterminator="\n")
            file.seek(0, os.SEEK_END)
            if file.tell() == 0:
                writer.writeheader()
            shown = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in run.items()}
            writer.writerow(shown)
            file.flush()

    def finished(self) -> dict[tuple[str, ...], dict[str, str]]:
        """Key -> run, of all that the file holds."""
        if not self.path.exists():
            return {}
        with self.path.open(newline="") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return {self.key(row): row for row in csv.DictReader(file)}

    def key(self, run: dict) -> tuple[str, ...]:
        """What a run is known by."""
        return tuple(str(run[name]) for name in self.keys)
