"""Recognise how the numbers in columns of text are written, and read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple, NoReturn

import numpy as np
import pandas as pd

from .options import listed

# Marks of a missing value in columns that otherwise hold numbers. In other columns "unknown" may be a value like any.
_MARKS = frozenset(
    ("n.a.", "n/a", "-", "--", ".", "missing", "unknown", "nan", "null", "none", "?", "#n/a", "#div/0!", "#value!")
)
_UNITS = "$€£¥%"
# Separate thousands, whatever the decimal mark: spaces, also those that do not break a line, and apostrophes.
_GAPS = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}'\N{RIGHT SINGLE QUOTATION MARK}"
# With a decimal point. A number with a decimal comma has this form once points and commas are swapped.
_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?"
    rf"|[1-9]\d{{0,2}}([,{_GAPS}])\d{{3}}(?:\1\d{{3}})*(?:\.\d*)?)",
    re.IGNORECASE,
)
_SWAPPED = str.maketrans(",.", ".,")
_NO_GROUPS = str.maketrans("", "", f",{_GAPS}")
# 007 is a code.
_CODE = re.compile(r"[+-]?0\d")
# A column is meant to hold numbers if it holds so many, and if they are so large a share of its values.
_LEAST_NUMBERS, _LEAST_SHARE = 10, 0.9
_MOST_REMARKS = 30
_SPELT = {".": "points", ",": "commas"}
_OTHER = {".": ",", ",": "."}
_MOST_ODD = 3


class Written(NamedTuple):
    """How the numbers of a text file are written.

    Attributes
    ----------
    sep : str
        The separator of fields.
    decimal : str
        The decimal mark of the columns that pandas took for numbers: "." or ",".
    """

    sep: str
    decimal: str


# --------------------------------------------------------------------------------------------------------------------
# The decimal mark of a file


def decimal_mark(rows: Sequence[Sequence[str]], sep: str) -> str:
    """Return the decimal mark of a file by its first rows: a comma if a column of numbers says so."""
    columns = [[field.strip() for field in fields if _is_filled(field)] for fields in zip_longest(*rows, fillvalue="")]
    commas = [fields for fields in columns if "," in "".join(fields) and _are_written(fields, ",")]
    if not commas:
        return "."
    # 1,234 may be thousands.
    certain = any(not _are_written(fields, ".") for fields in commas)
    points = any("." in "".join(fields) and _are_written(fields, ".") for fields in columns)
    if sep == ",":
        # Beside numbers with decimal points, "3,4" in quotes may be a list.
        return "," if certain and not points else "."
    return "," if certain or (sep == ";" and not points) else "."


def has_decimal_commas(table: pd.DataFrame) -> bool:
    """Return whether a column of text certainly holds numbers with decimal commas."""
    columns = (_Column(table[name]) for name in _text_columns(table))
    return any(
        column.are_numbers and column.is_certain and column.mark == "," and column.has(",") for column in columns
    )


def fractions(table: pd.DataFrame) -> list[str]:
    """List the columns of numbers that are not whole."""
    floats = table.select_dtypes("float")
    return list(floats.columns[(floats % 1 > 0).any().to_numpy(bool)])


def _is_filled(field: str) -> bool:
    return bool(field.strip()) and field.strip().lower() not in _MARKS


def _are_written(texts: Iterable[str], mark: str) -> bool:
    """Return whether all texts are numbers with a decimal mark."""
    return all(_is_written(text, mark) for text in texts)


def _is_written(text: str, mark: str) -> bool:
    """Return whether a text is a number with a decimal mark, perhaps with separators of thousands."""
    return _NUMBER.fullmatch(text if mark == "." else text.translate(_SWAPPED)) is not None


# --------------------------------------------------------------------------------------------------------------------
# The columns of a table


def read_numbers(
    table: pd.DataFrame, written: Written, line_of: Callable[[int], str]
) -> tuple[pd.DataFrame, list[str]]:
    """Return a table in which columns of numbers are numbers where pandas took them for text.

    Parameters
    ----------
    table : DataFrame
    written : Written
    line_of : callable
        Maps the index of a row to its place in the file, as text.

    Returns
    -------
    table : DataFrame
    remarks : list of str
        What there is to say about columns.

    Raises
    ------
    ValueError
        If nearly all values of a column are numbers, but a few are not.
    """
    read: dict[str, np.ndarray] = {}
    remarks: list[str] = []
    for name in _text_columns(table):
        column = _Column(table[name])
        mark = _chosen_mark(column, written, table)
        if column.are_numbers:
            remarks += [f"column {name!r}: {remark}" for remark in _remarks(column, mark)]
            if mark:
                read[name] = column.read(mark)
        elif column.are_nearly_numbers and (mark or not column.is_certain):
            _refuse_odd(name, column, line_of)
    if len(remarks) > _MOST_REMARKS:
        remarks[_MOST_REMARKS:] = [f"there is as much to say about {len(remarks) - _MOST_REMARKS} more columns."]
    return (table.assign(**read) if read else table), remarks


def _text_columns(table: pd.DataFrame) -> list[str]:
    """List the columns of text."""
    objects = table.columns[[dtype.kind == "O" for dtype in table.dtypes]]
    return [name for name in objects if pd.api.types.infer_dtype(table[name]) == "string"]


def _chosen_mark(column: _Column, written: Written, table: pd.DataFrame) -> str:
    """Return the decimal mark of a column; "" if it is not certain."""
    commas = written.decimal == ","
    if not column.is_certain:
        # Whole numbers, and 1.234 or 1,234, which may be thousands: other columns tell.
        if commas:
            return ","
        return "." if not column.has(",") or (not column.has(".") and fractions(table)) else ""
    if column.mark == ".":
        return "."
    if not column.has(","):
        # Where no other column has decimal commas, 1.234.567 may be a code.
        return "," if commas else ""
    # Beside numbers with decimal points, "3,4" in quotes may be a list.
    is_list = written.sep == "," and not commas and not column.unit and not column.has(".")
    return "" if is_list else ","


def _remarks(column: _Column, mark: str) -> list[str]:
    """Return what there is to say about a column of numbers."""
    text = column.example()
    if not mark:
        return [
            f"{text!r} may be a number, but need not; the column is taken as text. If it holds numbers, write them "
            f"with a decimal point and without separators of thousands."
        ]
    remarks = []
    if column.unit or column.has(",", *_GAPS) or (mark == "," and column.has(".")):
        number, doubt = column.number(text, mark), ""
        if not column.is_certain and (other := column.number(text, _OTHER[mark])) != number:
            written = f"{other:.15g}".replace(".", mark)
            doubt = f", as other columns have decimal {_SPELT[mark]}; if it is {other:.15g}, write {written}"
        remarks.append(f"{text!r} is taken as {number:.15g}{doubt}.")
    if column.n_marks:
        are = "is taken as a missing value" if column.n_marks == 1 else "are taken as missing values"
        remarks.append(f"{listed([repr(mark) for mark in column.marks])} ({column.n_marks} in all) {are}.")
    return remarks


def _refuse_odd(name: str, column: _Column, line_of: Callable[[int], str]) -> NoReturn:
    """Raise an error that names the values of a column that are not numbers."""
    odd = column.odd_rows()
    shown = ", ".join(f"{text!r} in {line_of(row)}" for row, text in odd[:_MOST_ODD])
    kind = " with decimal commas" if column.is_certain and column.mark == "," else ""
    kind += f" with {column.unit}" if column.unit else ""
    raise ValueError(
        f"column {name!r} has {column.n_values - len(odd)} numbers{kind}, but also {shown}"
        f"{', ...' if len(odd) > _MOST_ODD else ''}: correct these, leave them empty if the value is missing, or leave "
        f"the column out (--drop)."
    )


class _Column:
    """The distinct values of a column of text, and which of them are numbers.

    Parameters
    ----------
    column : Series of str

    Attributes
    ----------
    unit : str
        The currency or per cent sign of all values, or nearly all; "" if they have none.
    mark : str
        The decimal mark with which most values are numbers.
    is_certain : bool
        Whether fewer values are numbers with the other decimal mark.
    marks : list of str
        Values that mark a missing one.
    n_marks, n_values : int
        Number of rows that have such a mark, and of those that have a value.
    """

    def __init__(self, column: pd.Series) -> None:
        self._codes, values = pd.factorize(column)
        self._counts = np.bincount(self._codes[self._codes >= 0], minlength=len(values))
        self._texts = [value.strip() for value in values]
        is_mark = np.array([text.lower() in _MARKS for text in self._texts], dtype=bool)
        self.marks = [text for text, is_it in zip(self._texts, is_mark, strict=True) if is_it]
        self.n_marks, self.n_values = self._count(is_mark), self._count(~is_mark)
        self.unit, self._bare = self._without_unit()
        numbers = {mark: np.array([_is_written(text, mark) for text in self._bare], dtype=bool) for mark in ".,"}
        self.mark = max(".,", key=lambda mark: self._count(numbers[mark]))
        self.is_certain = self._count(numbers["."]) != self._count(numbers[","])
        self._is_number = numbers[self.mark]
        self._is_odd = ~is_mark & ~self._is_number
        self._n_numbers = self._count(numbers["."] | numbers[","])

    def _count(self, chosen: np.ndarray) -> int:
        """Return how many rows have one of the chosen values."""
        return int(self._counts[chosen].sum())

    def _without_unit(self) -> tuple[str, list[str]]:
        """Return the unit of the values, and the values without it; a value that lacks the unit becomes empty."""
        everything = "".join(self._texts)
        for unit in filter(everything.__contains__, _UNITS):
            has_unit = np.array([unit in text for text in self._texts], dtype=bool)
            if self._count(has_unit) >= max(_LEAST_SHARE * self.n_values, 1):
                # A plus or minus may stand before the unit.
                around = re.compile(rf"^([+-]?){re.escape(unit)}\s*|\s*{re.escape(unit)}$")
                return unit, [around.sub(r"\1", text, count=1) if unit in text else "" for text in self._texts]
        return "", self._texts

    @property
    def are_numbers(self) -> bool:
        """Whether all values are numbers."""
        return self._n_numbers > 0 and not self._is_odd.any() and not self._are_codes()

    @property
    def are_nearly_numbers(self) -> bool:
        """Whether there are many numbers, and few other values."""
        enough = self._n_numbers >= max(_LEAST_NUMBERS, _LEAST_SHARE * self.n_values)
        return enough and bool(self._is_odd.any()) and not self._are_codes()

    def _are_codes(self) -> bool:
        """Return whether a number begins with a zero that a number would not have."""
        return any(map(_CODE.match, self._numbers()))

    def _numbers(self) -> list[str]:
        return [text for text, is_number in zip(self._bare, self._is_number, strict=True) if is_number]

    def has(self, *characters: str) -> bool:
        """Return whether a number has one of some characters."""
        return any(character in text for text in self._numbers() for character in characters)

    def example(self) -> str:
        """Return the longest value that is a number."""
        return max((self._texts[i] for i in np.flatnonzero(self._is_number)), key=len)

    def number(self, text: str, mark: str) -> float:
        """Return a value of the column as a number."""
        return float(_plain(self._bare[self._texts.index(text)], mark))

    def read(self, mark: str) -> np.ndarray:
        """Return the numbers of all rows, NaN where there is none."""
        # One more for rows without a value, whose code is -1.
        values = np.full(len(self._texts) + 1, np.nan)
        plain = [_plain(text, mark) for text in self._numbers()]
        values[:-1][self._is_number] = pd.to_numeric(pd.Series(plain, dtype=object))
        return values[self._codes]

    def odd_rows(self) -> list[tuple[int, str]]:
        """List the rows whose value is not a number as most are, with the value."""
        rows = np.flatnonzero(np.isin(self._codes, np.flatnonzero(self._is_odd)))
        return [(int(row), self._texts[self._codes[row]]) for row in rows]


def _plain(text: str, mark: str) -> str:
    """Return a number with a decimal point and without separators of thousands."""
    return (text if mark == "." else text.translate(_SWAPPED)).translate(_NO_GROUPS)
