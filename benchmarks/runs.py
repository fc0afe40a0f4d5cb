"""Options that benchmarks share, and a CSV file of finished runs, from which the same command goes on."""

from __future__ import annotations

import argparse
import csv
import fcntl
import io
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import joblib
import pandas as pd
import torch

from skood.training.device import autocast, resolve_device


class Command(argparse.ArgumentParser):
    """Parse the command line of a benchmark: its own options, and those that most have.

    Parameters
    ----------
    about : str
        Help text, as it is to be printed.
    name : str
        Name of the folder of results, in ``comparison``.
    seeds : int or None, default=None
        Default of ``--seeds``; None adds no such option.
    jobs : bool, default=True
        Whether there is an option ``--jobs``.
    """

    def __init__(self, about: str | None, name: str, *, seeds: int | None = None, jobs: bool = True):
        super().__init__(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
        home = os.environ.get("SKOOD_DATA")
        self.add_argument("--data-home", type=Path, default=home, help="folder of data sets; $SKOOD_DATA by default")
        if seeds is not None:
            self.add_argument("--seeds", type=int, default=seeds, help=f"number of seeds, from 0; {seeds} by default")
        if jobs:
            self.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each if more than one")
        out = Path("comparison") / name
        self.add_argument("--out", type=Path, default=out, help=f"folder of results; {out} by default")

    def parse_args(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Return the options; without the folder of the data sets, exit with a message."""
        options = super().parse_args(arguments)
        if options.data_home is None:
            self.error("--data-home or SKOOD_DATA is needed")
        return options

    def names(self, option: str, text: str | None, known: Iterable[str], separator: str = ";") -> list[str]:
        """Return the names that an option lists, all known ones without it; if one is unknown, exit with a message."""
        known = list(known)
        names = known if text is None else text.split(separator)
        if unknown := [name for name in names if name not in known]:
            self.error(f"{option}: there is no {unknown[0]!r}; choose of {separator.join(known)}")
        return names


def checkpoint(folder: Path, key: dict, later: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Return the file from which the training of a run goes on after an interruption; its folder is made.

    Columns of the key that have their value in ``later`` (see `Runs`) do not change the file's name.
    """
    folder = folder / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    key = {name: value for name, value in key.items() if later.get(name) != value}
    return folder / f"{sha256(repr(sorted(key.items())).encode()).hexdigest()[:16]}.pt"


def noted(options: argparse.Namespace, later: Mapping[str, str]) -> dict:
    """Return the columns of a key that are named like options: ``later`` has what stands for an option not given."""
    given = {name: getattr(options, name) for name in later if hasattr(options, name)}
    return {name: later[name] if value is None else value for name, value in given.items()}


def training_seconds(detector, since: float) -> float:
    """Return the seconds of a fit that began at ``since``, with those of its epochs before an interruption."""
    return max(time.perf_counter() - since, sum(epoch["dur"] for epoch in detector.history_))


def trained_in(options: argparse.Namespace) -> str:
    """Return the precision in which a detector with these options is trained, which "auto" leaves open."""
    device = resolve_device(getattr(options, "device", "auto"))
    with autocast(options.precision, device):
        return "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"


class Runs:
    """Hold runs in a file, to which several commands may write at a time.

    Parameters
    ----------
    path : Path
        The file; created with the first run.
    keys : list of str
        Columns of the key that identifies a run, as text.
    figures : list of str
        Columns of the results of a run.
    later : mapping from str to str, default={}
        Columns that files of earlier versions lack, and what their rows are taken to have there. Such a file gets these
        columns, empty in its rows, with the first row that needs them.
    """

    def __init__(
        self, path: Path, keys: list[str], figures: list[str], later: Mapping[str, str] = MappingProxyType({})
    ):
        self.path, self.keys, self.figures, self.later = path, keys, figures, later

    def add(self, *rows: dict) -> None:
        """Append all rows of a run at once; figures that a row lacks stay empty.

        Raises
        ------
        ValueError
            If the file has other columns.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked() as file:
            file.seek(0)
            text = self._whole(file.read())
            head = next(csv.reader(io.StringIO(text.decode())), [])
            self._check(head)
            new = [name for name in self.later if head and name not in head and any(name in row for row in rows)]
            lines = io.StringIO()
            writer = csv.DictWriter(lines, [*(head or [*self.keys, *self.figures]), *new], lineterminator="\n")
            if not head or new:
                writer.writeheader()
            if new:
                writer.writerows(csv.DictReader(io.StringIO(text.decode())))
            for row in rows:
                shown = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
                writer.writerow(shown)
            # In one piece, so that a command that is killed leaves all rows of a run or none.
            if new:
                unfinished = self.path.with_suffix(".unfinished")
                unfinished.write_bytes(lines.getvalue().encode())
                unfinished.replace(self.path)
            else:
                file.truncate(len(text))
                file.write(lines.getvalue().encode())

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Open the file, which nobody else can meanwhile change."""
        while True:
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Another command may have put a file with more columns in its place.
                if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    yield file
                    return

    def take(self, path: Path) -> None:
        """Add the runs of another file that this one lacks; without a file yet, begin with a copy of the other.

        Raises
        ------
        ValueError
            If either file has other columns.
        """
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # In one step: of half a copy the rest would be lacking for good.
            unfinished = self.path.with_suffix(".unfinished")
            shutil.copy(path, unfinished)
            unfinished.replace(self.path)
        done = self.finished()
        new = [row for row in Runs(path, self.keys, self.figures, self.later)._rows() if self.key(row) not in done]
        if new:
            self.add(*new)

    def finished(self) -> dict[tuple[str, ...], dict[str, str]]:
        """Return all runs in the file, by their keys.

        Raises
        ------
        ValueError
            If the file has other columns.
        """
        return {
            self.key(row): row | {name: row.get(name) or value for name, value in self.later.items()}
            for row in self._rows()
        }

    def _rows(self) -> list[dict[str, str]]:
        """Return all rows of the file; none if there is no file."""
        if not self.path.exists():
            return []
        rows = csv.DictReader(io.StringIO(self._text()))
        self._check(rows.fieldnames)
        return list(rows)

    def _text(self) -> str:
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return self._whole(file.read()).decode()

    def _whole(self, text: bytes) -> bytes:
        """Return the lines of a file, without the last run if it was cut off: by a full disk, or in a copy.

        The last line then does not end. Rows above it are of the same run, unless what is left of its key differs.
        """
        if not text or text.endswith(b"\n"):
            return text
        lines = text.splitlines(keepends=True)
        head, *rows = csv.reader(line.decode(errors="replace") for line in lines)
        if not rows:
            return b""
        places, torn = [head.index(name) for name in self.keys if name in head], rows.pop()
        # Of what is left the last value may be cut, too.
        whole = [place for place in places if place < len(torn) - 1]
        if rows and all(torn[place] == rows[-1][place] for place in whole):
            run = [rows[-1][place] for place in places]
            while rows and [rows[-1][place] for place in places] == run:
                rows.pop()
        print(f"{self.path}: the last run was cut off, and is left out", flush=True)
        return b"".join(lines[: 1 + len(rows)])

    def _check(self, head) -> None:
        """Raise a ValueError if the file has other columns; an empty file has none."""
        other = (set(head or ()) ^ {*self.keys, *self.figures}) - ({*self.later} - set(head or ()))
        if head and other:
            names = ", ".join(sorted(other))
            raise ValueError(
                f"{self.path} was written by another version, which differs in {names}: set another --out."
            )

    def table(self) -> pd.DataFrame:
        """Return all rows of the file, with keys as text."""
        empty = {name: [""] for name in self.figures}
        text = io.StringIO(self._text())
        rows = pd.read_csv(text, dtype=dict.fromkeys(self.keys, str), keep_default_na=False, na_values=empty)
        for name, value in self.later.items():
            rows[name] = rows[name].replace("", value) if name in rows else value
        return rows

    def key(self, run: dict) -> tuple[str, ...]:
        """Return the key of a run."""
        return tuple(str(run.get(name) or self.later[name] if name in self.later else run[name]) for name in self.keys)

    def about(self, key: tuple[str, ...]) -> str:
        """Return what a key is called when it is printed."""
        return ", ".join(text for name, text in zip(self.keys, key, strict=True) if text != self.later.get(name, ""))

    def complete(self, jobs: list[tuple[dict, Callable]], n_jobs: int = 1) -> pd.DataFrame:
        """Run the jobs that the file does not hold, and write each as soon as it is finished.

        A run that fails does not keep the others from being made.

        Parameters
        ----------
        jobs : list of (dict, callable)
            Key of a run, and a function that returns its figures: a dict for one row, or a list of them.
        n_jobs : int, default=1
            Number of runs at a time; with one thread each if more than one.

        Returns
        -------
        rows : DataFrame
            Rows of `table` that belong to the jobs.

        Raises
        ------
        RuntimeError
            At the end, if runs failed. What each failed of is printed.
        """
        done = self.finished()
        self._say_unknown([self.key(key) for key, _ in jobs])
        todo = [(key, work) for key, work in jobs if self.key(key) not in done]
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
        for line in parallel(joblib.delayed(self._complete)(key, work, n_jobs != 1) for key, work in todo):
            print(line, flush=True)
        wanted = [self.key(key) for key, _ in jobs]
        self.check_made(wanted)
        rows, wanted = self.table(), set(wanted)
        return rows[[self.key(row) in wanted for row in rows[self.keys].to_dict("records")]]

    def _say_unknown(self, wanted: list[tuple[str, ...]]) -> None:
        """Print for what the rows of earlier versions are taken, if other values than these are wanted."""
        for place, name in enumerate(self.keys):
            if name in self.later and any(key[place] != self.later[name] for key in wanted):
                n_unknown = sum(not row.get(name) for row in self._rows())
                if n_unknown:
                    taken = self.later[name] or "none"
                    print(
                        f"{self.path}: {n_unknown} rows do not say their {name}; it is taken to be {taken!r}",
                        flush=True,
                    )

    def check_made(self, keys: list[tuple[str, ...]]) -> None:
        """Check that the file holds the runs with these keys.

        Raises
        ------
        RuntimeError
            If it lacks one. A run whose checkpoint another command was writing fails, but may be finished meanwhile.
        """
        done = self.finished()
        lacking = [self.about(key) for key in keys if key not in done]
        if lacking:
            shown = "; ".join(lacking[:10]) + ("; ..." if len(lacking) > 10 else "")
            raise RuntimeError(f"{len(lacking)} of {len(keys)} runs failed, see above: {shown}")

    def _complete(self, key: dict, work: Callable, among_others: bool) -> str:
        if among_others:
            torch.set_num_threads(1)
        # Another command may have finished it meanwhile.
        if self.key(key) in self.finished():
            return f"{self.about(self.key(key))}: done by another command"
        start = time.perf_counter()
        try:
            found = work()
        except Exception:  # whatever this run needs that is not there: data, memory, a rate at which it converges
            return f"{self.about(self.key(key))}: failed\n{traceback.format_exc()}"
        # Keys are compared as text, because a file has no None.
        text = dict(zip(self.keys, self.key(key), strict=True))
        self.add(*(text | row for row in (found if isinstance(found, list) else [found])))
        shown = [f"{time.perf_counter() - start:.0f} s"]
        if isinstance(found, dict):
            shown += [f"{name} {value:.4g}" for name, value in found.items() if isinstance(value, float)]
        return f"{self.about(self.key(key))}: {', '.join(shown)}"
