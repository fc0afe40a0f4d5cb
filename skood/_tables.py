"""Read tables from files: any separator, with or without a header, with text and missing values, compressed or not."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from ._npz import MOST_BYTES, refuse_size
from .estimator.validation import LARGEST_VALUE

TEXT_FORMATS = (".csv", ".tsv", ".txt", ".data")
TABLE_FORMATS = (*TEXT_FORMATS, ".parquet", ".feather", ".arff")
_COMPRESSIONS = (".gz", ".zip", ".xz")
_SEPARATORS = ("\t", ";", "|", ",")
_SAMPLE_LINES = 50
_SAMPLE_BYTES = 2**20
# Marks of a missing value in many public tables, beside those that pandas knows.
_MISSING = ("?",)
# The limit of skrub.TableVectorizer: it encodes a column of more distinct texts by parts of words.
_MOST_VALUES = 40
_MOST_LINES = 30


@dataclass(frozen=True)
class TableOptions:
    """Say how a table is read.

    Parameters
    ----------
    sep : str or None, default=None
        Separator of the fields of a text file. None detects it.
    header : bool or None, default=None
        Whether the first line names the columns; if False, they are named "1", "2", ... None takes the first line for
        names, but refuses a line that is mostly numbers.
    drop : sequence of str, default=()
        Columns to leave out.
    encode : bool, default=False
        Whether text, dates and missing values may stay in the table, to be encoded before a detector. If False, they
        are refused.
    named : bool, default=False
        Whether the rows will be joined with rows of other files by the names of columns. If True, the table is returned
        as a DataFrame even if it holds only numbers, and ``say`` is not told how columns are encoded.
    columns : sequence of str or None, default=None
        Columns to take: a file without one of them is refused, and its other columns are left out. None takes all.
    say : callable or None, default=None
        Called with a line of text for each decision that was made about the file.
    progress : bool, default=False
        Whether to show a progress bar on standard error while a large text file is read.
    most_bytes : float, default=2**31
        Number of bytes by which a file, or an array of an .npz file, may grow when it is decompressed; a file that
        grows by more is refused.
    """

    sep: str | None = None
    header: bool | None = None
    drop: Sequence[str] = ()
    encode: bool = False
    named: bool = False
    columns: Sequence[str] | None = None
    say: Callable[[str], object] | None = None
    progress: bool = False
    most_bytes: float = MOST_BYTES

    def tell(self, line: str) -> None:
        """Pass a line on to ``say``, if there is one."""
        if self.say is not None:
            self.say(line)


class _Source(NamedTuple):
    """A table as it was read, and a function that finds the line of a row in the file.

    Attributes
    ----------
    table : DataFrame
    line_of : callable
        Maps the index of a row to its place in the file, as text.
    """

    table: pd.DataFrame
    line_of: Callable[[int], str]


def file_format(path: Path) -> str:
    """Return the suffix that tells the format of a file, in lower case, without that of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def bare_name(path: Path) -> str:
    """Return the name of a file without the suffixes of its format and compression."""
    name = path.name
    if path.suffix.lower() in _COMPRESSIONS:
        name = name[: -len(path.suffix)]
    return Path(name).stem


def read_table(
    path: Path, target: str | None, needed: bool, options: TableOptions
) -> tuple[np.ndarray | pd.DataFrame, np.ndarray | None]:
    """Read rows and labels from the file of a table.

    Parameters
    ----------
    path : Path
    target : str or None
        Column of labels.
    needed : bool
        Whether a file without labels is an error.
    options : TableOptions

    Returns
    -------
    X : ndarray of float64 of shape (n_samples, n_features) or DataFrame
        A DataFrame if there are text, dates or missing values, which ``options.encode`` allows, or if it is
        ``options.named``.
    y : ndarray of shape (n_samples,) or None
        Labels as they are in the file.

    Raises
    ------
    ValueError
        If the file cannot be read or holds values that cannot be used. The message names the file, column and line.
    """
    table, line_of = _read(path, options)
    if needed and target is None:
        raise ValueError(f"{path}: name the column of labels (--target); there are {_listed(table.columns)}.")
    if needed and target not in table:
        raise ValueError(f"{path}: no column {target!r} (--target); there are {_listed(table.columns)}.")
    labels = table.pop(target) if target is not None and target in table else None
    if labels is not None and labels.isna().any():
        raise ValueError(
            f"{path}: column {target!r} has no label in {line_of(int(labels.isna().argmax()))} "
            f"({int(labels.isna().sum())} rows have none); fill it in or delete these rows."
        )
    table = _without_dropped(path, table, options) if options.columns is None else _taken(path, table, options)
    if table.shape[1] == 0:
        raise ValueError(f"{path}: no column is left beside the labels (separator: --sep).")
    y = None if labels is None else labels.to_numpy()
    try:
        return rows_of(table, options, line_of), y
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def rows_of(table: pd.DataFrame, options: TableOptions, line_of: Callable[[int], str]) -> np.ndarray | pd.DataFrame:
    """Return a table of numbers as an array, and any other table as a DataFrame that can be encoded.

    Parameters
    ----------
    table : DataFrame
    options : TableOptions
    line_of : callable
        Maps the index of a row to its place in the file, as text.

    Returns
    -------
    X : ndarray of float64 or DataFrame

    Raises
    ------
    ValueError
        If a number is infinite or too large; if there is text, a date or a missing value and ``options.encode`` is
        False; or if there is text and skrub is not installed.
    """
    table = _without_decimals(table)
    _refuse_large(table, line_of)
    if not is_plain(table):
        if not options.encode:
            _refuse_unencoded(table, line_of)
        table = _typed(table)
        if not options.named:
            announce(table, options)
    return as_numbers(table) if is_plain(table) and not options.named else table


def _without_decimals(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns of decimal.Decimal, which databases use for money, are float64."""
    objects = table.columns[[dtype.kind == "O" for dtype in table.dtypes]]
    decimals = [column for column in objects if pd.api.types.infer_dtype(table[column]) == "decimal"]
    return table.astype(dict.fromkeys(decimals, np.float64)) if decimals else table


def is_number(column: pd.Series) -> bool:
    """Return whether a column holds numbers or booleans."""
    return _is_number_type(column.dtype)


def _is_number_type(dtype: Any) -> bool:
    """Return whether a dtype is one of numbers or booleans; pandas' own, such as Int64, wrap a numpy dtype."""
    return getattr(dtype, "numpy_dtype", dtype).kind in "biuf"


def is_plain(table: pd.DataFrame) -> bool:
    """Return whether a table holds only numbers, none of them missing."""
    # Column by column, this would take a minute for many thousands of columns.
    return all(map(_is_number_type, table.dtypes)) and not table.isna().to_numpy().any()


def as_numbers(table: pd.DataFrame) -> np.ndarray:
    """Return a table of numbers as an array of float64."""
    return table.to_numpy(dtype=np.float64)


# --------------------------------------------------------------------------------------------------------------------
# Formats


def _read(path: Path, options: TableOptions) -> _Source:
    """Read a file of any format; every error message names it."""
    readers = {".parquet": _read_arrow, ".feather": _read_arrow, ".arff": _read_arff}
    reader = readers.get(file_format(path), _read_text)
    try:
        source = reader(path, options)
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: not a readable {file_format(path)} file ({str(error).strip()}).") from error
    except Exception as error:  # parsers, decompressors and the operating system raise errors of many types
        raise ValueError(f"{path}: not a readable {file_format(path)} file ({str(error).strip()}).") from error
    source.table.columns = source.table.columns.astype(str)
    twice = source.table.columns[source.table.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{path}: two columns are named {twice[0]!r}; rename one.")
    if len(source.table) == 0:
        raise ValueError(f"{path}: the table has no rows.")
    return source


def _read_arrow(path: Path, options: TableOptions) -> _Source:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{path}: reading {path.suffix} files needs pyarrow: pip install pyarrow.") from error
    read = pd.read_parquet if file_format(path) == ".parquet" else pd.read_feather
    table = read(path)
    # An index with a name was a column of the table; an index without a name only counts the rows.
    return _Source(table.reset_index(drop=table.index.names == [None]), _row_number)


def _read_arff(path: Path, options: TableOptions) -> _Source:
    from scipy.io import arff

    try:
        with _opened(path, options.progress, options.most_bytes) as raw:
            data, _ = arff.loadarff(io.TextIOWrapper(raw, encoding="utf-8"))
    except NotImplementedError:
        return _read_arff_of_strings(path, options)
    table = pd.DataFrame(data)
    for column in table.select_dtypes(object).columns:
        text = table[column].str.decode("utf-8")
        table[column] = text.where(~text.isin(_MISSING))
    return _Source(table, _row_number)


def _read_arff_of_strings(path: Path, options: TableOptions) -> _Source:
    """Read an ARFF file with string attributes, which scipy cannot read, by scikit-learn's slower reader."""
    from sklearn.externals import _arff

    with _opened(path, options.progress, options.most_bytes) as raw:
        content = _arff.load(io.TextIOWrapper(raw, encoding="utf-8"))
    table = pd.DataFrame(content["data"], columns=[name for name, _ in content["attributes"]])
    numbers = [name for name, kind in content["attributes"] if kind in ("NUMERIC", "REAL", "INTEGER")]
    return _Source(table.astype(dict.fromkeys(numbers, np.float64)), _row_number)


def _row_number(row: int) -> str:
    return f"row {row + 1}"


def _read_text(path: Path, options: TableOptions) -> _Source:
    """Read a file of separated values."""
    with _opened(path, progress=False) as raw:
        start = raw.read(_SAMPLE_BYTES)
    encoding = _encoding(start)
    lines = [line for line in start.decode(encoding, errors="replace").splitlines() if line.strip()]
    # The last line of a sample may be cut in two.
    lines = (lines[:-1] if len(start) == _SAMPLE_BYTES and len(lines) > 1 else lines)[:_SAMPLE_LINES]
    sep = {"\\t": "\t", "space": r"\s+", None: _separator(lines)}.get(options.sep, options.sep)
    assert sep is not None
    if sep != ",":
        options.tell(f"{path.name}: fields are separated by {_SPELT.get(sep, repr(sep))}.")
    decimal = "."
    if sep == ";" and _has_decimal_commas(lines):
        decimal = ","
        options.tell(f"{path.name}: numbers have decimal commas.")
    header = _has_header(path, lines, sep, options)
    with _opened(path, options.progress, options.most_bytes) as raw:
        table = pd.read_csv(
            raw,
            sep=sep,
            decimal=decimal,
            encoding=encoding,
            header=0 if header else None,
            na_values=list(_MISSING),
            skipinitialspace=True,
            # Read in pieces, a column could be numbers in one piece and text in another.
            low_memory=False,
            index_col=False,
        )
    if not header:
        table.columns = pd.Index([str(number) for number in range(1, table.shape[1] + 1)])
    return _Source(table, lambda row: _line_of(path, encoding, sep, header, row))


_SPELT = {"\t": "tabs", r"\s+": "spaces", ";": "semicolons", "|": "bars"}


@contextmanager
def _opened(path: Path, progress: bool, most_bytes: float = math.inf) -> Iterator[Any]:
    """Open a file to read its decompressed bytes; if reading takes over a second, a bar shows the progress."""
    size = path.stat().st_size
    bar = tqdm(
        total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, delay=1, leave=False, disable=not progress
    )
    with bar, path.open("rb") as file:
        raw: Any = io.BufferedReader(_Counted(file, bar))
        compression = path.suffix.lower()
        if compression == ".gz":
            with gzip.open(raw) as member:
                yield io.BufferedReader(_Limited(member, path, most_bytes))
        elif compression == ".xz":
            with lzma.open(raw) as member:
                yield io.BufferedReader(_Limited(member, path, most_bytes))
        elif compression == ".zip":
            with zipfile.ZipFile(raw) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                if len(names) != 1:
                    raise ValueError(f"{path}: holds {len(names)} files; unpack it and name one.")
                with archive.open(names[0]) as member:
                    yield io.BufferedReader(_Limited(member, path, most_bytes))
        else:
            yield raw


class _Counted(io.RawIOBase):
    """Pass on the bytes of a file, and count them on a progress bar."""

    def __init__(self, file: IO[bytes], bar: tqdm) -> None:
        self._file, self._bar = file, bar

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        n = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._bar.update(n)
        return n


class _Limited(io.RawIOBase):
    """Pass on the decompressed bytes of a file; raise an error if it grows by more than is allowed."""

    def __init__(self, member: Any, path: Path, most_bytes: float) -> None:
        self._member, self._path, self._most_bytes = member, path, most_bytes
        self._n_bytes = -path.stat().st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._member.read(len(buffer))
        buffer[: len(read)] = read
        self._n_bytes += len(read)
        refuse_size(self._path, self._n_bytes, self._most_bytes)
        return len(read)


def _encoding(start: bytes) -> str:
    """Return the encoding of a file: utf-8 if its beginning is valid utf-8, else latin-1."""
    # Only whole lines are tried: the last character of the sample may be cut in two.
    try:
        start[: start.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _separator(lines: list[str]) -> str:
    """Return the separator that splits all lines into the same number of fields, at least two."""
    for sep in _SEPARATORS:
        try:
            numbers = {len(fields) for fields in csv.reader(lines, delimiter=sep, skipinitialspace=True)}
        except csv.Error:
            # Split at the wrong separator, a line of thousands of fields is a field longer than the csv module allows.
            continue
        if len(numbers) == 1 and numbers.pop() > 1:
            return sep
    numbers = {len(line.split()) for line in lines}
    if len(numbers) == 1 and numbers.pop() > 1 and not any("," in line for line in lines):
        return r"\s+"
    # Some line is broken, or has a field of several lines: the first one decides.
    first = lines[0] if lines else ""
    return max((",", ";", "\t", "|"), key=first.count)


def _has_decimal_commas(lines: list[str]) -> bool:
    fields = [field.strip() for line in lines[1:] for field in line.split(";")]
    commas = [field for field in fields if "," in field and _is_number(field.replace(",", ".", 1))]
    points = [field for field in fields if "." in field and _is_number(field)]
    return bool(commas and not points)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_header(path: Path, lines: list[str], sep: str, options: TableOptions) -> bool:
    """Return whether the first line names the columns; refuse one of numbers, unless the user says what it is."""
    if options.header is not None:
        return options.header
    if not lines:
        return True
    fields = lines[0].split() if sep == r"\s+" else next(csv.reader(lines[:1], delimiter=sep))
    n_numbers = sum(_is_number(field) or field.strip() in ("", *_MISSING) for field in fields)
    if n_numbers < len(fields) and (2 * n_numbers < len(fields) or _are_numbered(fields)):
        return True
    raise ValueError(
        f"{path}: the first line, which should name the columns, is {'all' if n_numbers == len(fields) else 'mostly'} "
        f"numbers ({_listed(fields, 4)}). If it is the first row of data, add --no-header and give the label column by "
        f"its place, --target {len(fields)} for the last; if these are the names, add --header."
    )


def _are_numbered(fields: list[str]) -> bool:
    """Return whether the numbers in a list of names go up by one, as the numbers of pixels do."""
    numbers = [float(field) for field in fields if _is_number(field)]
    return all(after == before + 1 for before, after in pairwise(numbers))


def _line_of(path: Path, encoding: str, sep: str, header: bool, row: int) -> str:
    """Return the line of the file on which a row ends: blank lines and fields of several lines count, too."""
    with _opened(path, progress=False) as raw:
        text = io.TextIOWrapper(raw, encoding=encoding, newline="")
        reader = csv.reader(text, delimiter=" " if sep == r"\s+" else sep)
        wanted = row + int(header)
        for fields in reader:
            if not fields or fields == [""]:
                continue
            if wanted == 0:
                return f"line {reader.line_num} of the file"
            wanted -= 1
    return f"row {row + 1}"


# --------------------------------------------------------------------------------------------------------------------
# Columns


def _without_dropped(path: Path, table: pd.DataFrame, options: TableOptions) -> pd.DataFrame:
    """Leave out the columns that the user names, and columns without a name that only count the rows."""
    unknown = [column for column in options.drop if column not in table]
    if unknown:
        raise ValueError(f"{path}: no column {unknown[0]!r} (--drop); there are {_listed(table.columns)}.")
    table = table.drop(columns=list(options.drop))
    for column in _row_counters(table):
        if not column.strip() or column.startswith("Unnamed: "):
            options.tell(f"{path.name}: left out a column without a name, which counts the rows.")
            table = table.drop(columns=column)
        else:
            options.tell(
                f"{path.name}: column {column!r} counts the rows. If it only tells where a row stands in the file, "
                f"leave it out: --drop {column}."
            )
    return table


def _taken(path: Path, table: pd.DataFrame, options: TableOptions) -> pd.DataFrame:
    """Return the columns that the user asks for."""
    assert options.columns is not None
    columns = list(options.columns)
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(
            f"{path}: no column {missing[0]!r}, which the file of --data has; there are {_listed(table.columns)}."
        )
    more = [column for column in table if column not in options.columns]
    if more:
        options.tell(f"{path.name}: left out {_listed(more)}, which the file of --data does not have.")
    return table[columns]


def _row_counters(table: pd.DataFrame) -> list[str]:
    """List the columns of whole numbers that go up by one from row to row."""
    if len(table) < 3:
        return []
    whole = table.loc[:, [getattr(dtype, "kind", "O") in "iu" for dtype in table.dtypes]]
    # Checking the first three rows rules most columns out cheaply.
    rising = (np.diff(whole.iloc[:3].to_numpy(dtype=np.float64), axis=0) == 1).all(axis=0)
    return [column for column in whole.columns[rising] if (np.diff(whole[column].to_numpy()) == 1).all()]


def _refuse_large(table: pd.DataFrame, line_of: Callable[[int], str]) -> None:
    numbers = table.loc[:, list(map(_is_number_type, table.dtypes))]
    # As float64, since booleans and unsigned integers cannot be negated.
    most, least = (extreme.to_numpy(np.float64, na_value=np.nan) for extreme in (numbers.max(), numbers.min()))
    magnitudes = np.maximum(most, -least)
    for column in numbers.columns[magnitudes > LARGEST_VALUE]:
        values = numbers[column].to_numpy(dtype=np.float64, na_value=np.nan)
        row = int((np.abs(values) > LARGEST_VALUE).argmax())
        raise ValueError(
            f"column {column!r} has {values[row]:g} in {line_of(row)}; numbers beyond {LARGEST_VALUE:g} cannot be "
            f"used: correct the number, rescale the column, or leave it out (--drop)."
        )


def _refuse_unencoded(table: pd.DataFrame, line_of: Callable[[int], str]) -> None:
    text = [column for column in table if not is_number(table[column])]
    if text:
        raise ValueError(f"columns that are not numbers: {_listed(text)}; encode them, or leave them out (--drop).")
    column = next(column for column in table if table[column].isna().any())
    row = int(table[column].isna().argmax())
    raise ValueError(f"column {column!r} has no value in {line_of(row)}; fill it in, or leave the column out.")


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Convert dates and numbers that are written as text; without skrub, raise an error that says what to install."""
    text = table.columns[[not is_number(table[column]) for column in table]]
    if len(text) == 0:
        return table
    try:
        from skrub import Cleaner
    except ImportError as error:
        raise ValueError(
            f"columns that are not numbers: {_listed(text)}. skrub encodes them: pip install 'skood[tables]'; or leave "
            f"them out (--drop)."
        ) from error
    table = table.copy()
    table[text] = Cleaner(drop_null_fraction=None).fit_transform(table[text])[text]
    return table


def announce(table: pd.DataFrame, options: TableOptions) -> None:
    """Tell ``options.say`` how each column is encoded before a detector.

    Parameters
    ----------
    table : DataFrame
        The table that `rows_of` returns.
    options : TableOptions
        Options whose ``say`` is called.
    """
    actions = {column: _action(table[column]) for column in table}
    lines = [f"  column {column!r}: {action}" for column, action in actions.items() if action]
    if lines:
        options.tell("encoded before each detector, by encoders fitted on the training rows of each split:")
    for line in lines[:_MOST_LINES]:
        options.tell(line)
    if len(lines) > _MOST_LINES:
        options.tell(f"  and {len(lines) - _MOST_LINES} more columns in these ways.")


def _action(column: pd.Series) -> str:
    """Return a text on how a column is encoded before a detector; "" for numbers without missing values."""
    n_missing = int(column.isna().sum())
    missing = f"{n_missing} missing value{'s' if n_missing > 1 else ''}" if n_missing else ""
    if is_number(column):
        return f"{missing}, filled with the mean, and marked by a column." if missing else ""
    if column.dtype.kind == "M":
        action = "dates, encoded as year, month, day and seconds"
    elif column.dtype.kind == "m":
        action = "durations, encoded as seconds"
    elif (n_values := column.nunique()) <= _MOST_VALUES:
        # Of two values one column tells all, unless a third case is that there is none.
        action = (
            f"text of {n_values} values, {'one column' if n_values == 2 and not n_missing else 'a column for each'}"
        )
    else:
        action = f"text of {n_values} values, encoded as 30 columns by the parts of its words"
    return f"{action}; {missing}." if missing else f"{action}."


def _listed(values: Any, most: int = 8) -> str:
    """Return the first few values as text."""
    return ", ".join(map(str, list(values)[:most])) + (", ..." if len(values) > most else "")
