"""Find out what stands on which line of a file of separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from .files import opened


class Layout(NamedTuple):
    """How a file of separated values is laid out.

    Attributes
    ----------
    path : Path
    encoding : str
    sep : str
        One character, or ``\\s+`` for any number of spaces.
    n_before : int
        Number of lines before that of the names, or before the first row.
    header : bool
        Whether a line names the columns.
    """

    path: Path
    encoding: str
    sep: str
    n_before: int
    header: bool


def records_of(layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each record ends, and its fields: first the names, if there are any.

    Blank lines, and line breaks in quotes, count as lines.
    """
    with opened(layout.path, progress=False) as raw:
        text = io.TextIOWrapper(raw, encoding=layout.encoding, newline="")
        for _ in range(layout.n_before):
            text.readline()
        spaces = layout.sep == r"\s+"
        lines = (f"{' '.join(line.split())}\n" for line in text) if spaces else text
        sep = " " if spaces else layout.sep
        reader = csv.reader(lines, delimiter=sep, skipinitialspace=sep != " ")
        for fields in reader:
            if len(fields) > 1 or "".join(fields).strip():
                yield layout.n_before + reader.line_num, fields


def line_of(layout: Layout, row: int) -> str:
    """Return the line of the file on which a row ends."""
    # The csv module refuses very long fields.
    with suppress(csv.Error):
        for place, (line, _) in enumerate(records_of(layout)):
            if place == row + int(layout.header):
                return f"line {line} of the file"
    return f"row {row + 1}"


def refuse_shorter(layout: Layout, n_fields: int) -> None:
    """Raise a ValueError that names the first line with fewer fields than there should be, if there is one."""
    others = "header" if layout.header else "first line"
    with suppress(csv.Error):
        for line, fields in records_of(layout):
            if len(fields) < n_fields:
                raise ValueError(
                    f"{layout.path}: line {line} has {_counted(len(fields))}, the {others} {n_fields}: complete the "
                    f"line (a missing value leaves its field empty, but needs its separator), delete it, or choose "
                    f"another separator (--sep)."
                )


def refuse_longer(layout: Layout, n_fields: int) -> NoReturn:
    """Raise a ValueError that names the first line with more fields than there should be."""
    what = "some line"
    with suppress(csv.Error):
        for line, fields in records_of(layout):
            # A separator at the end of a line is no field.
            n = len(fields) - (fields[-1] == "")
            if n > n_fields:
                what = f"line {line} has {_counted(n)} instead of {n_fields}"
                break
    raise ValueError(
        f"{layout.path}: rows have more fields than the first line has names: {what}. Name every column, correct this "
        f"line, delete lines before that of the names, or choose another separator (--sep)."
    )


def _counted(n_fields: int) -> str:
    return f"{n_fields} field{'s' if n_fields > 1 else ''}"
