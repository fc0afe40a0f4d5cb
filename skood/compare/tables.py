"""What stands before a detector where a data set is a table with text, dates or missing values."""

from __future__ import annotations

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
        The DataFrame of pandas.

    Raises
    ------
    ValueError
        If a DataFrame has text and skrub is not installed, or a number that is too large.
    """
    if is_polars(X):
        # Column by column: DataFrame.to_pandas needs pyarrow.
        X = pd.DataFrame({column.name: column.to_numpy() for column in X.get_columns()})
    if not isinstance(X, pd.DataFrame):
        return X
    table = X.reset_index(drop=True)
    table.columns = table.columns.astype(str)
    return rows_of(table, TableOptions(encode=True), lambda row: f"row {row}")


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
    X : array or DataFrame
    y : array

    Returns
    -------
    identity : str
    """
    if isinstance(X, pd.DataFrame):
        # pandas pickles equal tables in different ways.
        X = list(X.columns), [str(dtype) for dtype in X.dtypes], pd.util.hash_pandas_object(X, index=False).to_numpy()
    return joblib.hash((X, y))
