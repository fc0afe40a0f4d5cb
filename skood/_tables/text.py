"""Read files of separated values: the separator, the header and the encoding are found out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .files import opened
from .options import TableOptions, listed

_SEPARATORS = ("\t", ";", "|", ",")
_SAMPLE_LINES = 50
_SAMPLE_BYTES = 2**20
# Marks of a missing value in many public tables, beside those that pandas knows.
MISSING = ("?",)
_SPELT = {"\t": "tabs", r"\s+": "spaces", ";": "semicolons", "|": "bars"}


class Source(NamedTuple):
    """A table as it was read, and a function that finds the line of a row in the file.

    Attributes
    ----------
    table : DataFrame
    line_of : callable
        Maps the index of a row to its place in the file, as text.
    """

    table: pd.DataFrame
    line_of: Callable[[int], str]


def read_text(path: Path, options: TableOptions) -> Source:
    """Read a file of separated values."""
    with opened(path, progress=False) as raw:
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
    with opened(path, options.progress, options.most_bytes) as raw:
        table = pd.read_csv(
            raw,
            sep=sep,
            decimal=decimal,
            encoding=encoding,
            header=0 if header else None,
            na_values=list(MISSING),
            skipinitialspace=True,
            # Read in pieces, a column could be numbers in one piece and text in another.
            low_memory=False,
            index_col=False,
        )
    if not header:
        table.columns = pd.Index([str(number) for number in range(1, table.shape[1] + 1)])
    return Source(table, lambda row: _line_of(path, encoding, sep, header, row))


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
    commas = [field for field in fields if "," in field and _is_written_number(field.replace(",", ".", 1))]
    points = [field for field in fields if "." in field and _is_written_number(field)]
    return bool(commas and not points)


def _is_written_number(text: str) -> bool:
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


def _line_of(path: Path, encoding: str, sep: str, header: bool, row: int) -> str:
    """Return the line of the file on which a row ends: blank lines and fields of several lines count, too."""
    with opened(path, progress=False) as raw:
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
