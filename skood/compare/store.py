"""What a comparison keeps on disk."""

from __future__ import annotations

import csv
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
# Files of earlier states lack these. Their rows rank detectors as well as new ones: that is worth more than a fit.
_MAY_LACK = ("false_alarms", "caught")
# What a name becomes in that of a file is cut to as many bytes.
_LONGEST_NAME = 50
_MARK = b"\xef\xbb\xbf"


class Store:
    """Keep rows in ``results.csv`` and scores in ``scores/``, as they come.

    Several processes may keep rows in one directory at a time: each row is added to what is in the file then, under a
    lock. Lines of the file that are damaged are moved into ``results.csv.damaged``, and columns that a user added stay.

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
        # The system gives a lock free when its process ends, however that ends.
        self._lock = FileLock(self.directory / "scores" / ".lock")
        # Writing now tells a directory that cannot be written into before the first fit, not after it.
        with self._changed():
            pass

    def find(self, place: Place, key: str, timeout: float | None = None) -> ResultRow | None:
        """Return the stored row that makes a fit unnecessary.

        Parameters
        ----------
        place : tuple of (str, str, str, int)
            Detector, data set, protocol and seed.
        key : str
            As `ResultRow.key`. If it asks for no decisions, a row that has them is found as well.
        timeout : float or None, default=None
            Seconds that the fit may take now; None sets no limit.

        Returns
        -------
        row : ResultRow or None
            None if there is no row of that key, or if it failed. A row that was given up counts as finished unless
            there is more time now.
        """
        row = self.rows.get(place)
        if row is None or row.key not in (key, key.removesuffix(RANKS_ALONE)):
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
        if self.directory is not None:
            with self._changed() as table:
                table.rows[row.place] = table.rows.get(row.place, {}) | _written(row)

    def add_scores(self, row: ResultRow) -> None:
        """Keep the scores of a row, where it has any.

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
        """Tell whether the scores of a row are not damaged; what is damaged is set aside.

        Parameters
        ----------
        row : ResultRow

        Returns
        -------
        sound : bool
            False if the scores were damaged. True if they are not there.
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
            warn_user(f"{error} It is now {aside.name}, and is done again.", UserWarning)
            return False
        return True

    @contextmanager
    def _changed(self) -> Iterator[_Table]:
        """Read the table as it is now, let it be changed, and write it, while no other process does."""
        with self._lock:
            table = _read(self.path)
            before = table.text()
            yield table
            table.set_aside(self.path)
            if not self.path.exists() or table.damaged or table.text() != before or table.lacks_columns:
                _replace(self.path, table.text())
        self.rows = {place: _row(record) for place, record in table.rows.items()}


class _Table:
    """The lines of ``results.csv``.

    Attributes
    ----------
    columns : list of str
        Those of a comparison, and those that a user added.
    rows : dict of (str, str, str, int) to dict of str to str
        The text of each column; of a place that stands there twice, the later one.
    damaged : list of (int, bytes)
        Lines that are none of the above, with their numbers.
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
        file = io.StringIO()
        writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        return file.getvalue()

    def set_aside(self, path: Path) -> None:
        """Move what is damaged into a file beside, and say so."""
        if not self.damaged:
            return
        aside = path.with_name(f"{path.name}.damaged")
        with aside.open("ab") as file:
            file.writelines(line + b"\n" for _, line in self.damaged)
        numbers = ", ".join(str(number) for number, _ in self.damaged[:5]) + ", ..." * (len(self.damaged) > 5)
        warn_user(
            f"{path}: damaged in line{'s' * (len(self.damaged) > 1)} {numbers}. What stood there is now in "
            f"{aside.name}, and is done again.",
            UserWarning,
        )


def _read(path: Path) -> _Table:
    """Read ``results.csv``; a file that is not there, or is empty, is a table without rows."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _Table()
    first, *lines = content.removeprefix(_MARK).split(b"\n")
    if not content.strip():
        return _Table()
    columns = _fields(first) or []
    if not {*COLUMNS} - {*_MAY_LACK} <= {*columns} or len({*columns}) < len(columns):
        raise ValueError(f"{path} holds something else; choose another directory.")
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
    """Return the fields of a line; None if it is no text, or its quotes are not closed."""
    try:
        text = line.decode("utf-8").rstrip("\r")
        return None if "\0" in text else next(csv.reader([text], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None


def _row(record: Mapping[str, str]) -> ResultRow:
    """Return the row that a line holds; raise ValueError or IndexError if its columns hold other than that."""
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
    """Write into another file first: an interruption leaves the old one or the new one, whole."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8", newline="")
    os.replace(part, path)


def as_file_name(name: str) -> str:
    """Return a name of a data set or a detector as it may stand in the name of a file.

    Two names never become one, whether or not the file system tells capitals from small letters or writes accents in
    its own way.

    Parameters
    ----------
    name : str

    Returns
    -------
    text : str
        The name itself if it consists of small letters, digits, points, "-" and "_" and is short; otherwise what can
        be kept of it, of at most 50 bytes, then "~" and a part of its hash.
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
    # What a name becomes holds one "~" at most.
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
        Names the file, if it is damaged or holds something else.
    FileNotFoundError
        If there is none.
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
