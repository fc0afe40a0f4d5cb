"""What stands before a detector where a data set is a table with text, dates or missing values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import TransformerMixin
from sklearn.impute import SimpleImputer

from .._tables import TableOptions, is_number, rows_of
from ..estimator.validation import is_polars


def prepare_table(X: Any) -> Any:
    """Return a DataFrame of numbers as an array, and any other with its dates found; arrays pass as they are.

    Parameters
    ----------
    X : array or DataFrame
        The DataFrame of pandas or of polars.

    Returns
    -------
    X : array or DataFrame
        The DataFrame of pandas, with an index of its own.

    Raises
    ------
    ValueError
        If a DataFrame has text and skrub is not installed, or a number that is too large.
    """
    table = _as_pandas(X)
    return _rows(table) if isinstance(table, pd.DataFrame) else X


def join_tables(parts: Mapping[str, Any], name: str) -> Any:
    """Return the rows of all parts as one table, their columns matched by name.

    Parameters
    ----------
    parts : mapping of str to array or DataFrame
        By their names in messages. The first one says how the columns are ordered; an array among DataFrames has them
        in this order.
    name : str
        Of the data set, in messages.

    Returns
    -------
    X : array or DataFrame
        As `prepare_table` returns it; arrays alone are joined as they are.

    Raises
    ------
    ValueError
        If a part has other columns than the first one, or text where others have numbers; or as of `prepare_table`.
    """
    tables = {part: _as_pandas(rows) for part, rows in parts.items()}
    named = [table for table in tables.values() if isinstance(table, pd.DataFrame)]
    if not named:
        return np.concatenate(list(parts.values()))
    columns = named[0].columns
    for part, table in tables.items():
        _check_columns(f"data set {name!r}: {part}", table, columns)
        tables[part] = table[columns] if isinstance(table, pd.DataFrame) else pd.DataFrame(table, columns=columns)
    # Each alone first: what is a date is told by a column of texts, not by one of texts and dates.
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


def _as_pandas(X: Any) -> Any:
    """Return a DataFrame as one of pandas, with names of text and an index of its own; arrays as they are."""
    if is_polars(X):
        # Column by column: DataFrame.to_pandas needs pyarrow.
        X = pd.DataFrame({column.name: column.to_numpy() for column in X.get_columns()})
    if not isinstance(X, pd.DataFrame):
        return np.asarray(X)
    table = X.reset_index(drop=True)
    table.columns = table.columns.astype(str)
    return table


def _rows(table: pd.DataFrame, named: bool = False) -> Any:
    return rows_of(table.reset_index(drop=True), TableOptions(encode=True, named=named), lambda row: f"row {row}")


def _check_columns(name: str, table: Any, columns: pd.Index) -> None:
    """Refuse rows that have not just these columns, in any order."""
    if not isinstance(table, pd.DataFrame):
        if table.shape[1:] != columns.shape:
            raise ValueError(f"{name} has rows of shape {table.shape[1:]}, but there are {len(columns)} columns.")
        return
    missing, more = columns.difference(table.columns), table.columns.difference(columns)
    if len(missing):
        raise ValueError(f"{name} has no column {missing[0]!r}; columns are matched by their names.")
    if len(more):
        raise ValueError(f"{name} has a column {more[0]!r}, which X has not; leave it out.")


def _check_kinds(name: str, parts: Mapping[str, pd.Series]) -> None:
    """Refuse a column that is text in one part and numbers or dates in another; empty ones are of any kind."""
    kinds = {part: _kind(values) for part, values in parts.items() if values.notna().any()}
    if len(set(kinds.values())) > 1:
        spelt = ", ".join(f"{kind} in {part}" for part, kind in kinds.items())
        raise ValueError(f"{name} holds {spelt}; make them alike, or leave it out.")


def _kind(values: pd.Series) -> str:
    if is_number(values):
        return "numbers"
    return {"M": "dates", "m": "durations"}.get(values.dtype.kind, "text")


def encoding_steps(X: Any, seed: int) -> list[TransformerMixin]:
    """Return the transformers, not fitted, that turn rows of X into numbers; none for an array.

    Parameters
    ----------
    X : array or DataFrame
    seed : int
        Of what is random in them.

    Returns
    -------
    steps : list of transformer
    """
    if not isinstance(X, pd.DataFrame):
        return []
    # An indicator beside the mean: that a value is missing may well be what is strange about a row.
    imputer = SimpleImputer(add_indicator=True, keep_empty_features=True)
    if all(is_number(X[column]) for column in X):
        return [imputer]
    from skrub import StringEncoder, TableVectorizer

    return [TableVectorizer(high_cardinality=StringEncoder(random_state=seed), drop_null_fraction=None), imputer]


def take(X: Any, rows: np.ndarray) -> Any:
    """Return some rows of an array or of a DataFrame, by their places."""
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


def hash_rows(X: Any, y: Any) -> str:
    """Return a hash of rows and labels that is the same in every process.

    Parameters
    ----------
    X, y : object
        Arrays, DataFrames and what `joblib.hash` takes.

    Returns
    -------
    identity : str
    """
    return joblib.hash((hashable(X), hashable(y)))


def hashable(X: Any) -> Any:
    """Return what `joblib.hash` maps to the same text in every process: of a DataFrame its columns and values."""
    if is_polars(X) or isinstance(X, pd.DataFrame):
        X = _as_pandas(X)
        # pandas pickles equal tables in different ways.
        return (
            list(X.columns),
            [str(dtype) for dtype in X.dtypes],
            pd.util.hash_pandas_object(X, index=False).to_numpy(),
        )
    return X
