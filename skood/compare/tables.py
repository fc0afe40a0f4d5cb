"""Prepare tables with text, dates or missing values for detectors, which take numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import TransformerMixin
from sklearn.impute import SimpleImputer

from .._tables import TableOptions, is_number, rows_of, with_names_of_text
from ..estimator.validation import is_polars


def prepare_table(X: Any) -> Any:
    """Return a DataFrame of numbers as an array, any other DataFrame with its dates parsed, and an array as it is.

    Parameters
    ----------
    X : array or DataFrame
        A DataFrame of pandas or polars.

    Returns
    -------
    X : array or DataFrame
        The DataFrame is one of pandas, with a new index.

    Raises
    ------
    ValueError
        If a DataFrame has text and skrub is not installed, or a number that is too large.
    """
    table = _as_pandas(X)
    return _rows(table) if isinstance(table, pd.DataFrame) else X


def join_tables(parts: Mapping[str, Any], name: str) -> Any:
    """Return the rows of all parts as one table; match columns by name.

    Parameters
    ----------
    parts : mapping of str to array or DataFrame
        The parts, by their names in messages. The first one gives the order of the columns. An array among DataFrames
        must have this order.
    name : str
        Name of the data set, in messages.

    Returns
    -------
    X : array or DataFrame
        As `prepare_table` returns it. If all parts are arrays, they are joined as they are; if one of them is
        memory-mapped, in a file beside it, which is then memory-mapped.

    Raises
    ------
    ValueError
        If a part has other columns than the first one, or text in a column of numbers; or as `prepare_table`.
    """
    tables = {}
    for part, rows in parts.items():
        try:
            tables[part] = _as_pandas(rows)
        except ValueError as error:
            raise ValueError(f"data set {name!r}: {part}: {error}") from error
    named = [table for table in tables.values() if isinstance(table, pd.DataFrame)]
    if not named:
        return _joined_arrays(list(parts.values()))
    columns = named[0].columns
    for part, table in tables.items():
        _check_columns(f"data set {name!r}: {part}", table, columns)
        tables[part] = table[columns] if isinstance(table, pd.DataFrame) else pd.DataFrame(table, columns=columns)
    # Each part alone first: dates are recognised in a column of texts, not in one of texts and dates.
    typed = {}
    for part, table in tables.items():
        try:
            typed[part] = _rows(table, named=True)
        except ValueError as error:
            raise ValueError(f"data set {name!r}: {part}: {error}") from error
    filled = {part: table for part, table in typed.items() if len(table)}
    for column in columns:
        _check_kinds(f"data set {name!r}: column {column!r}", {part: table[column] for part, table in filled.items()})
    return _rows(pd.concat(list(filled.values())))


def _joined_arrays(parts: list[Any]) -> np.ndarray:
    """Return the rows of all arrays as one array, in a file if one of them is, because memory may not hold them."""
    folders = [Path(file).parent for file in map(_file_of, parts) if file is not None]
    if not folders or not os.access(folders[0], os.W_OK):
        return np.concatenate(parts)
    # The same rows always have the same file, and other rows another one: processes open it by its name.
    target = folders[0] / f"joined~{joblib.hash(parts)}.npy"
    if not target.exists():
        # The file gets its name when it is complete.
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        try:
            joined = np.lib.format.open_memmap(part, mode="w+", dtype=np.result_type(*parts), shape=shape)
            end = 0
            for rows in parts:
                joined[end : end + len(rows)] = rows
                end += len(rows)
            joined.flush()
            del joined
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    return np.load(target, mmap_mode="r")


def _file_of(X: Any) -> str | None:
    """Return the file of which an array is a memory map, or a part of one; None if there is none."""
    while isinstance(X, np.ndarray):
        if isinstance(X, np.memmap) and X.filename is not None:
            return os.fspath(X.filename)
        X = X.base
    return None


def _as_pandas(X: Any) -> Any:
    """Return a DataFrame as one of pandas, with column names of text and a new index; arrays as they are."""
    if is_polars(X):
        # Column by column: DataFrame.to_pandas needs pyarrow.
        X = pd.DataFrame({column.name: column.to_numpy() for column in X.get_columns()})
    if not isinstance(X, pd.DataFrame):
        return np.asarray(X)
    return with_names_of_text(X.reset_index(drop=True))


def _rows(table: pd.DataFrame, named: bool = False) -> Any:
    return rows_of(table.reset_index(drop=True), TableOptions(encode=True, named=named), lambda row: f"row {row}")


def _check_columns(name: str, table: Any, columns: pd.Index) -> None:
    """Refuse rows that do not have exactly these columns, in any order."""
    if not isinstance(table, pd.DataFrame):
        if table.shape[1:] != columns.shape:
            raise ValueError(f"{name} has rows of shape {table.shape[1:]}; expected {len(columns)} columns.")
        return
    missing, more = columns.difference(table.columns), table.columns.difference(columns)
    if len(missing):
        raise ValueError(f"{name} has no column {missing[0]!r}; columns are matched by their names.")
    if len(more):
        raise ValueError(f"{name} has a column {more[0]!r}, which X lacks; leave it out.")


def _check_kinds(name: str, parts: Mapping[str, pd.Series]) -> None:
    """Refuse a column that is text in one part and numbers or dates in another; empty columns may be either."""
    kinds = {part: _kind(values) for part, values in parts.items() if values.notna().any()}
    if len(set(kinds.values())) > 1:
        spelt = ", ".join(f"{kind} in {part}" for part, kind in kinds.items())
        raise ValueError(f"{name} holds {spelt}; make them alike, or leave out the column.")


def _kind(values: pd.Series) -> str:
    if is_number(values):
        return "numbers"
    return {"M": "dates", "m": "durations"}.get(values.dtype.kind, "text")


def encoding_steps(X: Any, seed: int) -> list[TransformerMixin]:
    """Return unfitted transformers that turn rows of X into numbers; none for an array.

    Parameters
    ----------
    X : array or DataFrame
    seed : int
        Seed of the transformers.

    Returns
    -------
    steps : list of transformer
    """
    if not isinstance(X, pd.DataFrame):
        return []
    # With an indicator: a missing value may be what is strange about a row.
    imputer = SimpleImputer(add_indicator=True, keep_empty_features=True)
    if all(is_number(X[column]) for column in X):
        return [imputer]
    from skrub import StringEncoder, TableVectorizer

    return [TableVectorizer(high_cardinality=StringEncoder(random_state=seed), drop_null_fraction=None), imputer]


def take(X: Any, rows: np.ndarray) -> Any:
    """Return the rows of an array or a DataFrame at these positions."""
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


def hash_rows(X: Any, y: Any) -> str:
    """Return a hash of rows and labels that is the same in every process.

    Parameters
    ----------
    X, y : object
        Arrays, DataFrames, or anything else that `joblib.hash` takes.

    Returns
    -------
    identity : str
    """
    return joblib.hash((hashable(X), hashable(y)))


def hashable(X: Any) -> Any:
    """Return X in a form that `joblib.hash` maps to the same text in every process."""
    if is_polars(X) or isinstance(X, pd.DataFrame):
        X = _as_pandas(X)
        # pandas pickles equal tables in different ways.
        return (
            list(X.columns),
            [str(dtype) for dtype in X.dtypes],
            pd.util.hash_pandas_object(X, index=False).to_numpy(),
        )
    return X
