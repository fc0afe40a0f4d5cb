"""Store the results of a comparison on disk."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import nan
from pathlib import Path

import numpy as np
from filelock import FileLock

from .._npz import open_npz
from .._warn import warn_user
from .row import COLUMNS, RANKS_ALONE, Place, ResultRow, Scores, time_limit

_WHOLE = ("seed", "n_train", "n_test")
_TEXT = ("detector", "dataset", "protocol", "error", "key")
# Files of earlier versions lack these columns. Their rows still have the metrics, so that no fit is repeated.
_MAY_LACK = ("false_alarms", "caught")
# Bytes of a name that are used in the name of a file.
_LONGEST_NAME = 50
_MARK = b"\xef\xbb\xbf"


class Store:
    """Store rows in ``results.csv`` and scores in ``scores/``, as they come.

    Several processes may use one directory at a time: under a lock, each row is added to what the file then holds. As
    long as nobody else has written the file, a new row is added at its end, and the file is not read again.
    Damaged lines of the file are moved into ``results.csv.damaged``. Columns that a user added stay.

    Parameters
    ----------
    directory : str, Path or None
        Created if it does not exist. None stores nothing.

    Raises
    ------
    ValueError
        If ``results.csv`` exists and holds something else than results of a comparison.
    OSError
        If the directory cannot be created or written into.

    Warns
    -----
    UserWarning
        If lines were moved.
    """

    def __init__(self, directory: str | Path | None) -> None:
        self.directory = None if directory is None else Path(directory)
        self.rows: dict[Place, ResultRow] = {}
        if self.directory is None:
            return
        (self.directory / "scores").mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "results.csv"
        # What the file was like when this object had written it, and its columns. None: no line can be added to it.
        self._stamp: tuple[int, int, int] | None = None
        self._columns: list[str] = []
        # The system releases the lock when the process ends, however it ends.
        self._lock = FileLock(self.directory / "scores" / ".lock")
        # This writes the file, so that a directory that cannot be written into is an error now, not after a fit.
        with self._changed():
            pass

    def find(self, place: Place, key: str, timeout: float | None = None) -> ResultRow | None:
        """Return the stored row that makes a fit unnecessary.

        Parameters
        ----------
        place : tuple of (str, str, str, int)
            Detector, data set, protocol and seed.
        key : str
            As `ResultRow.key`. A key without decisions also finds the row with decisions.
        timeout : float or None, default=None
            Seconds that the fit may take now; None sets no limit.

        Returns
        -------
        row : ResultRow or None
            None if there is no row of that key, or if it failed. A row that was stopped by a time limit counts as
            finished unless the limit is longer now.
        """
        row = self.rows.get(place)
        if row is None or row.key not in (key, key.removesuffix(RANKS_ALONE)):
            return None
        limit = time_limit(row.error)
        too_slow = limit is not None and timeout is not None and timeout <= limit
        return row if too_slow or not row.error else None

    def add(self, row: ResultRow) -> None:
        """Store a row, in place of an older one of the same detector, data set, protocol and seed.

        Parameters
        ----------
        row : ResultRow
        """
        if self.directory is None:
            return
        with self._lock:
            if row.place not in self.rows and self._stamp is not None and _stamp(self.path) == self._stamp:
                self._append(_written(row))
                return
            with self._changed() as table:
                table.rows[row.place] = table.rows.get(row.place, {}) | _written(row)

    def _append(self, record: dict[str, str]) -> None:
        """Add a line to a file that is as this object left it: reading and writing all lines takes ever longer."""
        _write_at_end(self.path, _as_text(self._columns, [record]).encode())
        row = _row(record)
        self.rows[row.place] = row
        self._stamp = _stamp(self.path)

    def add_scores(self, row: ResultRow) -> None:
        """Store the scores of a row, if it has any.

        Parameters
        ----------
        row : ResultRow
        """
        if self.directory is not None and row.scores is not None:
            path = scores_path(self.directory, row.dataset, row.protocol, row.detector)
            part = path.with_suffix(".part")
            with self._lock:
                with part.open("wb") as file:
                    np.savez_compressed(file, **row.scores._asdict())
                os.replace(part, path)

    def has_sound_scores(self, row: ResultRow) -> bool:
        """Return whether the stored scores of a row are undamaged; rename a damaged file.

        Parameters
        ----------
        row : ResultRow

        Returns
        -------
        sound : bool
            False if the scores were damaged. True if there are none.
        """
        if self.directory is None:
            return True
        path = scores_path(self.directory, row.dataset, row.protocol, row.detector)
        try:
            read_scores(path)
        except FileNotFoundError:
            return True
        except ValueError as error:
            aside = path.with_name(f"{path.name}.damaged")
            os.replace(path, aside)
            warn_user(f"{error} The file is now {aside.name}, and the fit is done again.", UserWarning)
            return False
        return True

    @contextmanager
    def _changed(self) -> Iterator[_Table]:
        """Read the table, let the caller change it, and write it; meanwhile no other process can."""
        with self._lock:
            table = _read(self.path)
            before = table.text()
            yield table
            table.set_aside(self.path)
            text = table.text()
            if not self.path.exists() or table.damaged or text != before or table.lacks_columns:
                _replace(self.path, text)
            # A line can be added to a file whose last line is complete, and which holds every column.
            is_tidy = self.path.read_bytes() == text.encode()
            self._stamp = _stamp(self.path) if is_tidy else None
            self._columns = table.columns
            self.rows = {place: _row(record) for place, record in table.rows.items()}


class _Table:
    """Hold the lines of ``results.csv``.

    Attributes
    ----------
    columns : list of str
        The columns of a comparison, then those that a user added.
    rows : dict of (str, str, str, int) to dict of str to str
        The text of each column. If a place is in the file twice, the later line counts.
    damaged : list of (int, bytes)
        The other lines, with their numbers.
    lacks_columns : bool
        Whether the file lacks columns that are written now.
    """

    def __init__(self, columns: Iterable[str] = COLUMNS) -> None:
        found = list(columns)
        self.lacks_columns = not {*COLUMNS} <= {*found}
        self.columns = COLUMNS + [column for column in found if column not in COLUMNS]
        self.rows: dict[Place, dict[str, str]] = {}
        self.damaged: list[tuple[int, bytes]] = []

    def text(self) -> str:
        """Return the file as text."""
        head = dict(zip(self.columns, self.columns, strict=True))
        return _as_text(self.columns, [head, *self.rows.values()])

    def set_aside(self, path: Path) -> None:
        """Move damaged lines into another file, and warn."""
        if not self.damaged:
            return
        aside = path.with_name(f"{path.name}.damaged")
        with aside.open("ab") as file:
            file.writelines(line + b"\n" for _, line in self.damaged)
        numbers = ", ".join(str(number) for number, _ in self.damaged[:5]) + ", ..." * (len(self.damaged) > 5)
        warn_user(
            f"{path}: damaged in line{'s' * (len(self.damaged) > 1)} {numbers}. They are now in {aside.name}, and "
            f"their fits are done again.",
            UserWarning,
        )


def _as_text(columns: list[str], records: Iterable[Mapping[str, str]]) -> str:
    """Return records as lines of a file; a column that a record lacks is empty."""
    file = io.StringIO()
    csv.DictWriter(file, columns, restval="", lineterminator="\n").writerows(records)
    return file.getvalue()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what differs if somebody has written a file; None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _write_at_end(path: Path, text: bytes) -> None:
    """Add text to a file, or nothing at all, if there is no room for all of it."""
    # Without a buffer, whose rest would be written when the file is closed.
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            if file.write(text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:
            file.truncate(size)
            raise


def _read(path: Path) -> _Table:
    """Read ``results.csv``. If there is no file, or it is empty, the table has no rows."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _Table()
    first, *lines = content.removeprefix(_MARK).split(b"\n")
    if not content.strip():
        return _Table()
    columns = _fields(first) or []
    if not {*COLUMNS} - {*_MAY_LACK} <= {*columns} or len({*columns}) < len(columns):
        raise ValueError(f"{path} holds something else than results of a comparison; name another directory.")
    table = _Table(columns)
    for number, line in enumerate(lines, start=2):
        fields = _fields(line)
        if fields == []:
            continue
        try:
            record = dict(zip(columns, fields or [], strict=True))
            table.rows[_row(record).place] = record
        except (ValueError, IndexError):
            table.damaged.append((number, line))
    return table


def _fields(line: bytes) -> list[str] | None:
    """Return the fields of a line; None if it is not text, or its quotes are not closed."""
    try:
        text = line.decode("utf-8").rstrip("\r")
        return None if "\0" in text else next(csv.reader([text], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None


def _row(record: Mapping[str, str]) -> ResultRow:
    """Return the row of a line; raise ValueError or IndexError if its columns are damaged."""
    values: dict = {}
    for column in COLUMNS:
        text = record.get(column, "")
        if column in _TEXT:
            values[column] = text
        elif column in _WHOLE:
            # Other programs write whole numbers with a decimal point.
            values[column] = int(text.removesuffix(".0"))
        else:
            values[column] = float(text) if text else nan
    if not (values["detector"] and values["dataset"] and values["protocol"]):
        raise ValueError("a row has no name")
    time_limit(values["error"])
    return ResultRow.from_record(values)


def _written(row: ResultRow) -> dict[str, str]:
    """Return the text of each column of a row."""
    return {column: "" if value != value else str(value) for column, value in row.record.items()}


def _replace(path: Path, text: str) -> None:
    """Write into another file first, so that an interruption leaves the old file or the new one, whole."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8", newline="")
    os.replace(part, path)


def as_file_name(name: str) -> str:
    """Return the name of a data set or a detector in a form that can be part of a file's name.

    Two names never get the same form, whatever the file system does with capital letters and accents.

    Parameters
    ----------
    name : str

    Returns
    -------
    text : str
        The name itself if it is short and consists of small letters, digits, points, "-" and "_"; otherwise at most 50
        bytes of it, then "~" and a part of its hash.
    """
    if re.fullmatch(r"[a-z0-9_][a-z0-9._-]*", name) and len(name) <= _LONGEST_NAME and not name.endswith("."):
        return name
    kept = (
        re.sub(r"[^\w.-]|[~]", "_", name)
        .encode("utf-8", errors="replace")[:_LONGEST_NAME]
        .decode("utf-8", errors="ignore")
    )
    digest = hashlib.sha256(name.encode("utf-8", errors="surrogatepass")).hexdigest()
    return f"{kept}~{digest[:10]}"


def scores_path(directory: Path, dataset: str, protocol: str, detector: str) -> Path:
    """Return the path of the test labels and scores of the first seed.

    Parameters
    ----------
    directory : Path
        The directory of ``results.csv``.
    dataset, protocol, detector : str
        As in the results.

    Returns
    -------
    path : Path
    """
    # The form of each name has one "~" at most.
    return directory / "scores" / f"{'~~'.join(map(as_file_name, (dataset, protocol, detector)))}.npz"


def read_scores(path: Path) -> Scores:
    """Read the scores that `Store.add_scores` wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    scores : Scores

    Raises
    ------
    ValueError
        If the file is damaged or holds something else; the message names it.
    FileNotFoundError
        If there is no such file.
    """
    with open_npz(path) as arrays:
        if {*arrays.names} != {*Scores._fields}:
            raise ValueError(f"{path}: holds no scores of a comparison.")
        y, score, threshold = (arrays[name] for name in Scores._fields)
    if not (
        y.ndim == 1
        and y.shape == score.shape
        and threshold.shape == ()
        and {y.dtype.kind, score.dtype.kind} <= {*"if"}
        and threshold.dtype.kind == "f"
        and np.isin(y, (-1, 1)).all()
        and np.isfinite(score).all()
    ):
        raise ValueError(f"{path}: holds no scores of a comparison.")
    return Scores(y, score, float(threshold))
