"""Read files of separated values: the separator, the header and the encoding are found out."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .files import opened
from .lines import Layout, line_of, records_of, refuse_longer, refuse_shorter
from .numbers import Written, decimal_mark, fractions, has_decimal_commas
from .options import TableOptions, listed

# Spaces come last: text of several words has them, too.
_SEPARATORS = ("\t", ";", "|", ",", r"\s+")
_SAMPLE_LINES = 50
_SAMPLE_BYTES = 2**20
# Marks of a missing value in many public tables, beside those that pandas knows.
MISSING = ("?",)
# The first line that Excel writes to tell the separator.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_ARCHIVE, _OLD_WORKBOOK = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SPELT = {"\t": "tabs", r"\s+": "spaces", ";": "semicolons", "|": "bars"}


class Source(NamedTuple):
    """A table as it was read, a function that finds the line of a row in the file, and how numbers are written in it.

    Attributes
    ----------
    table : DataFrame
    line_of : callable
        Maps the index of a row to its place in the file, as text.
    written : Written or None, default=None
        None if the file says which columns are numbers.
    """

    table: pd.DataFrame
    line_of: Callable[[int], str]
    written: Written | None = None


def read_text(path: Path, options: TableOptions) -> Source:
    """Read a file of separated values."""
    with opened(path, progress=False) as raw:
        start = raw.read(_SAMPLE_BYTES)
    _refuse_archive(path, start)
    encoding = _encoding(start)
    lines = list(io.StringIO(start.decode(encoding, errors="replace"), newline=None))
    # The last line of a sample may be cut in two.
    lines = lines[:-1] if len(start) == _SAMPLE_BYTES and len(lines) > 1 else lines
    sep = {"\\t": "\t", "space": r"\s+"}.get(options.sep or "", options.sep)
    n_before, sep = _before_names(path, lines, sep)
    if n_before:
        options.tell(f"{path.name}: left out {n_before} line{'s' if n_before > 1 else ''} before the table.")
    lines = [line for line in lines[n_before:] if line.strip()][:_SAMPLE_LINES]
    sep = sep or _separator(lines)
    if sep != ",":
        options.tell(f"{path.name}: fields are separated by {_SPELT.get(sep, repr(sep))}.")
    records = _records(lines, sep)
    header = _has_header(path, records, options)
    has_row_names = header and _has_row_names(records)
    if has_row_names:
        options.tell(f"{path.name}: left out the first column, which has no name in the header.")
    layout = Layout(path, encoding, sep, n_before, header)
    table, layout, decimal = _parsed(layout, decimal_mark(records[1:], sep), has_row_names, options)
    if not header:
        table.columns = pd.Index([str(number) for number in range(1, table.shape[1] + 1)])
    elif records:
        # The names as they are in the file: pandas renames one that occurs twice.
        names = zip(records[0], table.columns, strict=True)
        table.columns = pd.Index([name if name.strip() else column for name, column in names])
    if decimal == "," and (commas := fractions(table)):
        options.tell(f"{path.name}: numbers have decimal commas. Columns: {listed(commas)}.")
    return Source(table, partial(line_of, layout), Written(sep, decimal))


def _parsed(
    layout: Layout, decimal: str, has_row_names: bool, options: TableOptions
) -> tuple[pd.DataFrame, Layout, str]:
    """Return the table of a file, and the layout and the decimal mark that turned out to be right."""
    try:
        table = _parsed_once(layout, decimal, has_row_names, options)
    except UnicodeDecodeError:
        if layout.encoding != "utf-8-sig":
            raise
        # The first byte that is not UTF-8 comes after the sample.
        layout = layout._replace(encoding="latin-1")
        table = _parsed_once(layout, decimal, has_row_names, options)
    if decimal == "." and layout.sep != "," and has_decimal_commas(table):
        # The first number with a comma comes after the sample. Columns that were read as 1.234 may be thousands.
        decimal = ","
        table = _parsed_once(layout, decimal, has_row_names, options)
    n_columns = _n_named(table)
    # Fields that a line lacks are missing values to pandas.
    if n_columns and table.iloc[:, n_columns - 1].isna().any():
        refuse_shorter(layout, n_columns + has_row_names)
    return table, layout, decimal


def _n_named(table: pd.DataFrame) -> int:
    """Return the number of columns, without that after a separator at the end of the header."""
    ends_in_separator = str(table.columns[-1]).startswith("Unnamed: ") and table.iloc[:, -1].isna().all()
    return table.shape[1] - int(ends_in_separator)


def _parsed_once(layout: Layout, decimal: str, has_row_names: bool, options: TableOptions) -> pd.DataFrame:
    """Return the table of a file; raise a ValueError if a row has more fields than there are columns."""
    with opened(layout.path, options.progress, options.most_bytes) as raw, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        if layout.n_before:
            # By its own way to leave out lines, pandas would look for quotes in them.
            raw = io.TextIOWrapper(raw, encoding=layout.encoding, newline="")
            for _ in range(layout.n_before):
                raw.readline()
        try:
            table = pd.read_csv(
                raw,
                sep=layout.sep,
                decimal=decimal,
                header=0 if layout.header else None,
                # With None, pandas takes the fields of the rows that have no name in the header as an index.
                index_col=None if has_row_names else False,
                encoding=layout.encoding,
                na_values=list(MISSING),
                skipinitialspace=True,
                # Read in pieces, a column could be numbers in one piece and text in another.
                low_memory=False,
            )
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            if "EOF inside string" in str(error):
                raise ValueError(
                    f'{layout.path}: a quotation mark (") is opened and never closed; write one that belongs to a text '
                    f"twice ({error})."
                ) from error
            if isinstance(error, pd.errors.ParserError) and "Expected" not in str(error):
                raise
            _, first = next(records_of(layout))
            refuse_longer(layout, len(first) + has_row_names)
    return table.reset_index(drop=True)


def _refuse_archive(path: Path, start: bytes) -> None:
    """Raise a ValueError if a file that should be text is a workbook or an archive."""
    if start.startswith(_OLD_WORKBOOK) or (start.startswith(_ARCHIVE) and b"[Content_Types].xml" in start):
        raise ValueError(f"{path}: this is an Excel workbook, not text: open it and save the sheet as CSV.")
    if start.startswith(_ARCHIVE):
        raise ValueError(f"{path}: this is a zip archive, not text: name it {path.name}.zip, or unpack it.")


def _before_names(path: Path, lines: list[str], sep: str | None) -> tuple[int, str | None]:
    """Return the number of lines before that of the names or the first row, and the separator if one of them tells it.

    Excel writes and reads a first line such as ``sep=;``. Comments begin with #.
    """
    first = next((place for place, line in enumerate(lines) if line.strip()), len(lines))
    told = _SEPARATOR_LINE.fullmatch(lines[first].strip("\n")) if lines[first:] else None
    start = first + 1 if told else 0
    sep = told[1] if told and sep is None else sep
    return start + _n_comments(path, start, lines[start:], sep), sep


def _n_comments(path: Path, start: int, lines: list[str], sep: str | None) -> int:
    """Return the number of lines of comments; raise a ValueError if what follows is not a table."""
    n = sum(1 for _ in takewhile(lambda line: not line.strip() or line.startswith("#"), lines))
    places = [place for place in range(n) if lines[place].strip()]
    table = [line for line in lines[n:] if line.strip()][:_SAMPLE_LINES]
    if not places or not table:
        return 0
    sep = sep or _separator(table)
    n_names, *counts = (len(record) for record in _records(table, sep) or [[]])
    if n_names > 1 and [n_names] == [len(record) for record in _records([lines[places[-1]]], sep)]:
        # The names themselves begin with #.
        return places[-1]
    usual = Counter(counts).most_common(1)[0][0] if counts else n_names
    # Rows may begin with a name that the header does not count, or end in a separator.
    if n_names > 1 and usual in (n_names, n_names + 1):
        return n
    raise ValueError(
        f"{path}: line {start + places[0] + 1} begins with #, but the first line after the comments has {n_names} "
        f"field{'s' if n_names > 1 else ''} and most others {usual}: delete all lines before that of the names of the "
        f"columns, or choose another separator (--sep)."
    )


def _encoding(start: bytes) -> str:
    """Return the encoding of a file: utf-16 if it says so, else utf-8 if its beginning is valid utf-8, or latin-1."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        # A decoder that waits for more bytes, because the last character of the sample may be cut in two.
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _records(lines: list[str], sep: str) -> list[list[str]]:
    """Return the fields of each record: of a line, or of several lines if a field in quotes goes on in the next."""
    # A single space separates fields that may be empty.
    skips = sep != " "
    if sep == r"\s+":
        lines, sep = [line.strip().replace("\t", " ") for line in lines], " "
    records: list[list[str]] = []
    # Split at the wrong separator, a line of thousands of fields is a field longer than the csv module allows.
    with suppress(csv.Error):
        records.extend(csv.reader(lines, delimiter=sep, skipinitialspace=skips))
    return records


def _rows(records: list[list[str]]) -> list[list[str]]:
    """Return the records after the first line."""
    # A field of several lines may be cut in two at the end of the sample.
    return records[1:-1] or records[1:]


def _separator(lines: list[str]) -> str:
    """Return the separator that splits all lines into the same number of fields, at least two.

    If there is none, all lines but the first may have one field more than it, which then lacks a name.
    """
    for n_nameless in (0, 1):
        for sep in _SEPARATORS:
            if sep == r"\s+" and any("," in line for line in lines):
                continue
            records = _records(lines, sep)
            n_names = len(records[0]) if records else 0
            if n_names > 1 and all(len(row) == n_names + n_nameless for row in _rows(records)):
                return sep
    # Some line is broken: the first one decides, but for a title.
    marks = (",", ";", "\t", "|")
    first = next((line for line in lines if any(mark in line for mark in marks)), None)
    if first is None:
        return r"\s+" if any(len(line.split()) > 1 for line in lines) else ","
    return max(marks, key=first.count)


def _has_row_names(records: list[list[str]]) -> bool:
    """Return whether the rows begin with a name, for which the first line has no field, as R writes them.

    If the last field of all rows is empty, there is a separator at the end of each row instead.
    """
    rows = _rows(records)
    return all(len(row) == len(records[0]) + 1 for row in rows) and any(row[-1].strip() for row in rows)


def _is_written_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_header(path: Path, records: list[list[str]], options: TableOptions) -> bool:
    """Return whether the first line names the columns; refuse one of numbers, unless the user says what it is."""
    if options.header is not None:
        return options.header
    if not records:
        return True
    fields = records[0]
    n_numbers = sum(_is_written_number(field) or field.strip() in ("", *MISSING) for field in fields)
    if n_numbers < len(fields) and (2 * n_numbers < len(fields) or _are_numbered(fields)):
        return True
    raise ValueError(
        f"{path}: the first line, which should name the columns, is {'all' if n_numbers == len(fields) else 'mostly'} "
        f"numbers ({listed(fields, 4)}). If it is the first row of data, add --no-header and give the label column by "
        f"its place, --target {len(fields)} for the last; if these are the names, add --header."
    )


def _are_numbered(fields: list[str]) -> bool:
    """Return whether the numbers in a list of names go up by one, as the numbers of pixels do."""
    numbers = [float(field) for field in fields if _is_written_number(field)]
    return all(after == before + 1 for before, after in pairwise(numbers))
