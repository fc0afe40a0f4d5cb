"""Take, check, convert and describe the columns of a table."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..estimator.validation import LARGEST_VALUE
from .options import TableOptions, listed

# The limit of skrub.TableVectorizer: it encodes a column of more distinct texts by parts of words.
_MOST_VALUES = 40
_MOST_LINES = 30


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


def with_names_of_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns are named by text; raise a ValueError if two have the same name."""
    # Names of several levels become tuples first.
    names = table.columns.to_flat_index().astype(str)
    twice = names[names.duplicated()]
    if len(twice):
        raise ValueError(f"two columns are named {twice[0]!r}; rename one.")
    return table.set_axis(names, axis=1)


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


def _is_whole_type(dtype: Any) -> bool:
    """Return whether a dtype is one of whole numbers."""
    return getattr(dtype, "kind", "O") in "iu"


def is_plain(table: pd.DataFrame) -> bool:
    """Return whether a table holds only numbers, none of them missing."""
    # Column by column, this would take a minute for many thousands of columns.
    return all(map(_is_number_type, table.dtypes)) and not table.isna().to_numpy().any()


def as_numbers(table: pd.DataFrame) -> np.ndarray:
    """Return a table of numbers as an array of float64."""
    return table.to_numpy(dtype=np.float64)


def without_dropped(path: Path, table: pd.DataFrame, options: TableOptions) -> pd.DataFrame:
    """Leave out the columns that the user names, and columns without a name that only say which row it is."""
    unknown = [column for column in options.drop if column not in table]
    if unknown:
        raise ValueError(f"{path}: no column {unknown[0]!r} (--drop); there are {listed(table.columns)}.")
    table = table.drop(columns=list(options.drop))
    counters = set(_row_counters(table))
    # What DataFrame.to_csv writes first: the index, in any order.
    index = set(takewhile(lambda column: _is_nameless(column) and _is_whole_type(table[column].dtype), table))
    for column in [column for column in table if _is_nameless(column)]:
        kinds = {
            "counts the rows": column in counters,
            "numbers the rows": column in index,
            "is empty": table[column].isna().all(),
        }
        what = next((what for what, is_so in kinds.items() if is_so), None)
        if what is not None:
            options.tell(f"{path.name}: left out a column without a name, which {what}.")
            table = table.drop(columns=column)
        else:
            options.tell(
                f"{path.name}: a column without a name is kept, as {column!r}. If it only tells which row it is, leave "
                f"it out: --drop {column!r}."
            )
    for column in table:
        if column in counters and not _is_nameless(column):
            options.tell(
                f"{path.name}: column {column!r} counts the rows. If it only tells where a row stands in the file, "
                f"leave it out: --drop {column}."
            )
    return table


def _is_nameless(column: Any) -> bool:
    """Return whether a column has no name in the file; pandas names such columns by their place."""
    return not column.strip() or column.startswith("Unnamed: ")


def taken(path: Path, table: pd.DataFrame, options: TableOptions) -> pd.DataFrame:
    """Return the columns that the user asks for."""
    assert options.columns is not None
    columns = list(options.columns)
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(
            f"{path}: no column {missing[0]!r}, which the file of --data has; there are {listed(table.columns)}."
        )
    # The file of --data may have had these, too: columns that the user drops, and those that only say which row it is.
    more = [column for column in table if column not in options.columns and column not in options.drop]
    nameless = [column for column in more if _is_nameless(column)]
    if nameless:
        options.tell(f"{path.name}: left out {len(nameless)} column{'s' * (len(nameless) > 1)} without a name.")
    if more := [column for column in more if column not in nameless]:
        options.tell(f"{path.name}: left out {listed(more)}, which the file of --data does not have.")
    return table[columns]


def _row_counters(table: pd.DataFrame) -> list[str]:
    """List the columns of whole numbers that go up by one from row to row."""
    if len(table) < 3:
        return []
    whole = table.loc[:, list(map(_is_whole_type, table.dtypes))]
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
        raise ValueError(f"columns that are not numbers: {listed(text)}; encode them, or leave them out (--drop).")
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
            f"columns that are not numbers: {listed(text)}. skrub encodes them: pip install 'skood[tables]'; or leave "
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
