"""Read tables from files of any format."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from .columns import rows_of, taken, with_names_of_text, without_dropped
from .files import file_format, opened
from .numbers import read_numbers
from .options import TableOptions, listed
from .text import MISSING, Source, read_text


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
    if target is not None and target in options.drop:
        raise ValueError(f"{path}: {target!r} is the column of labels (--target): take it out of --drop.")
    table, line_of, written = _read(path, options)
    if needed and target is None:
        raise ValueError(f"{path}: name the column of labels (--target); there are {listed(table.columns)}.")
    if needed and target not in table:
        raise ValueError(f"{path}: no column {target!r} (--target); there are {listed(table.columns)}.")
    labels = table.pop(target) if target is not None and target in table else None
    if labels is not None and labels.isna().any():
        raise ValueError(
            f"{path}: column {target!r} has no label in {line_of(int(labels.isna().argmax()))} "
            f"({int(labels.isna().sum())} rows have none); fill it in or delete these rows."
        )
    table = without_dropped(path, table, options) if options.columns is None else taken(path, table, options)
    if table.shape[1] == 0:
        raise ValueError(f"{path}: no column is left beside the labels (separator: --sep).")
    if labels is not None and written is not None and written.decimal == ",":
        # Labels may have decimal points where other numbers have commas.
        with suppress(ValueError):
            labels = pd.to_numeric(labels)
    y = None if labels is None else labels.to_numpy()
    try:
        if written is not None:
            table, remarks = read_numbers(table, written, line_of)
            for remark in remarks:
                options.tell(f"{path.name}: {remark}")
        return rows_of(table, options, line_of), y
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path, options: TableOptions) -> Source:
    """Read a file of any format; every error message names it."""
    readers = {".parquet": _read_arrow, ".feather": _read_arrow, ".arff": _read_arff}
    reader = readers.get(file_format(path), read_text)
    try:
        source = reader(path, options)
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: not a readable {file_format(path)} file ({str(error).strip()}).") from error
    except Exception as error:  # parsers, decompressors and the operating system raise errors of many types
        raise ValueError(f"{path}: not a readable {file_format(path)} file ({str(error).strip()}).") from error
    if len(source.table) == 0:
        raise ValueError(f"{path}: the table has no rows.")
    try:
        return source._replace(table=with_names_of_text(source.table))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_arrow(path: Path, options: TableOptions) -> Source:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{path}: reading {path.suffix} files needs pyarrow: pip install pyarrow.") from error
    read = pd.read_parquet if file_format(path) == ".parquet" else pd.read_feather
    table = read(path)
    # An index with a name was a column of the table; an index without a name only counts the rows.
    return Source(table.reset_index(drop=table.index.names == [None]), _row_number)


def _read_arff(path: Path, options: TableOptions) -> Source:
    from scipy.io import arff

    try:
        with opened(path, options.progress, options.most_bytes) as raw:
            data, _ = arff.loadarff(io.TextIOWrapper(raw, encoding="utf-8"))
    except NotImplementedError:
        return _read_arff_of_strings(path, options)
    table = pd.DataFrame(data)
    for column in table.select_dtypes(object).columns:
        text = table[column].str.decode("utf-8")
        table[column] = text.where(~text.isin(MISSING))
    return Source(table, _row_number)


def _read_arff_of_strings(path: Path, options: TableOptions) -> Source:
    """Read an ARFF file with string attributes, which scipy cannot read, by scikit-learn's slower reader."""
    from sklearn.externals import _arff

    with opened(path, options.progress, options.most_bytes) as raw:
        content = _arff.load(io.TextIOWrapper(raw, encoding="utf-8"))
    table = pd.DataFrame(content["data"], columns=[name for name, _ in content["attributes"]])
    numbers = [name for name, kind in content["attributes"] if kind in ("NUMERIC", "REAL", "INTEGER")]
    return Source(table.astype(dict.fromkeys(numbers, np.float64)), _row_number)


def _row_number(row: int) -> str:
    return f"row {row + 1}"
