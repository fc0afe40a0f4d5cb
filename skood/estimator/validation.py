"""Refuse rows, image shapes and layer widths that no estimator can use, and say why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Integral, Real
from types import NoneType
from typing import Any

import numpy as np

# The square of anything larger overflows float32, in which networks are trained.
LARGEST_VALUE = 1e18
_VALUES_PER_CHECK = 2**22


def check_hidden_sizes(hidden_sizes: Any) -> None:
    """Refuse anything but a sequence of layer widths.

    Parameters
    ----------
    hidden_sizes : sequence of int

    Raises
    ------
    ValueError
        If it is empty, or holds anything but positive integers.
    """
    if not hidden_sizes or not all(isinstance(n, Integral) and int(n) > 0 for n in hidden_sizes):
        raise ValueError(f"hidden_sizes={hidden_sizes!r} must hold positive integers.")


def resolve_image_shape(image_shape: Any, n_features: int) -> tuple[int, int, int]:
    """Return the image shape that the parameter ``image_shape`` stands for, with -1 replaced by the missing size.

    Parameters
    ----------
    image_shape : sequence of int
        (C, H, W), one of which may be -1.
    n_features : int
        Number of features of a flattened image.

    Returns
    -------
    shape : tuple of int

    Raises
    ------
    ValueError
        If ``image_shape`` is not an image shape, or its product is not ``n_features``.
    """
    shape = tuple(image_shape)
    whole = all(isinstance(size, Integral) and (int(size) > 0 or size == -1) for size in shape)
    if len(shape) != 3 or not whole or shape.count(-1) > 1:
        raise ValueError(
            f"image_shape={image_shape!r} must be three positive integers (C, H, W); one may be -1, to be computed."
        )
    if -1 in shape:
        size, rest = divmod(n_features, -math.prod(shape))
        if rest:
            raise ValueError(f"X has {n_features} features, not a multiple of the sizes in image_shape={image_shape}.")
        shape = tuple(size if n == -1 else n for n in shape)
    if math.prod(shape) != n_features:
        raise ValueError(f"X has {n_features} features, but image_shape={image_shape} makes {math.prod(shape)}.")
    return shape


def channels_last(shape: tuple[int, int, int]) -> bool:
    """Return whether a shape that should be (C, H, W) looks like (H, W, C)."""
    last, shortest = shape[2], min(shape[:2])
    return shortest > 4 and (last in (1, 3, 4) or (last <= 8 and 2 * last <= shortest))


def plain_rows(X: Any) -> Any:
    """Return rows in a container that numpy can read: tensors as arrays, masked values as NaN; others as they are.

    Parameters
    ----------
    X : array-like
        Rows of any shape. numpy itself cannot read tensors that have a gradient, are sparse or of bfloat16, and ignores
        the mask of a masked array.

    Returns
    -------
    X : array-like

    Raises
    ------
    ValueError
        If X is a mapping, a set or an iterator.
    """
    # A sparse matrix may be a dict.
    if isinstance(X, (dict, set, frozenset, Iterator)) and not hasattr(X, "shape"):
        raise ValueError(f"X is of type {type(X).__name__}; pass an array, a DataFrame, or a list of rows.")
    if isinstance(X, (list, tuple)) and len(X) and is_tensor(X[0]):
        return [tensor_as_array(row) if is_tensor(row) else row for row in X]
    if isinstance(X, np.ma.MaskedArray):
        hidden, X = np.ma.getmaskarray(X), X.data
        return np.where(hidden, np.nan, X) if hidden.any() else X
    return tensor_as_array(X) if is_tensor(X) else X


def is_tensor(X: Any) -> bool:
    """Return whether X is a torch tensor."""
    # Without an import of torch, which wrappers of other detectors do not need.
    return hasattr(X, "detach") and hasattr(X, "to_dense")


def tensor_as_array(X: Any) -> np.ndarray:
    """Return a tensor as an array: without its gradient, dense, on the CPU, and bfloat16 as float32."""
    dense = X.detach().to_dense().cpu()
    return (dense.float() if str(dense.dtype) == "torch.bfloat16" else dense).numpy()


def is_deep_list(X: Any) -> bool:
    """Return whether X is a list of images rather than a list of rows of numbers."""
    depth = 0
    while isinstance(X, (list, tuple)) and len(X):
        X, depth = X[0], depth + 1
    return depth + getattr(X, "ndim", 0) > 2


def is_polars(X: Any) -> bool:
    """Return whether X is a polars DataFrame; polars need not be installed."""
    return hasattr(X, "get_columns") and hasattr(X, "columns")


def refuse_text(X: Any) -> None:
    """Refuse text, dates and other objects in rows; accept numbers that are written as text.

    Parameters
    ----------
    X : DataFrame, array or list of rows

    Raises
    ------
    ValueError
        Names the first such cell.
    """
    if is_polars(X):
        columns = [(f"column {column.name!r}", column.to_numpy()) for column in X.get_columns()]
    elif hasattr(X, "columns") and hasattr(X, "items"):
        columns = [(f"column {name!r}", column.to_numpy()) for name, column in X.items()]
    else:
        cells = np.asarray(X)
        columns = [(f"feature {j}", cells[:, j]) for j in range(cells.shape[1] if cells.ndim == 2 else 0)]
    for where, cells in columns:
        if cells.dtype.kind not in "OSUMm":
            continue
        for row, cell in enumerate(cells):
            if isinstance(cell, (date, time, timedelta, np.datetime64, np.timedelta64)):
                raise ValueError(
                    f"X has a date or time in row {row}, {where}. Turn it into a number (days since some date), encode "
                    f"it (skrub.TableVectorizer() before the detector), or drop the column."
                ) from None
            if isinstance(cell, (str, bytes)) and not _is_number(cell):
                text = cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)
                raise ValueError(
                    f"X has the text {text!r} in row {row}, {where}. Encode it as numbers (skrub.TableVectorizer() "
                    f"before the detector, or OneHotEncoder in a ColumnTransformer), or drop the column."
                ) from None
            # For a dict, scikit-learn's checks expect the TypeError of scikit-learn.
            if cells.dtype.kind == "O" and not isinstance(cell, (Real, Decimal, str, bytes, np.bool_, NoneType, dict)):
                if not _is_missing(cell):
                    raise ValueError(
                        f"X has {cell!r}, of type {type(cell).__name__}, in row {row}, {where}. Turn it into a number, "
                        f"or drop the column."
                    ) from None
            elif isinstance(cell, int) and abs(cell) > LARGEST_VALUE:
                raise ValueError(
                    f"X has an integer beyond {LARGEST_VALUE:g} in row {row}, {where}; rescale the feature."
                ) from None


def refuse_complex(X: Any) -> None:
    """Raise an error if an array, or a column of a DataFrame, is of complex numbers; scikit-learn may drop a part."""
    where = None
    if hasattr(X, "dtypes") and hasattr(X.dtypes, "items"):
        where = next((f"column {name!r}" for name, dtype in X.dtypes.items() if dtype.kind == "c"), None)
    elif isinstance(X, np.ndarray) and X.dtype.kind == "c":
        where = "all of its features"
    if where is not None:
        raise ValueError(
            f"Complex data not supported: X holds complex numbers in {where}. Pass their real and imaginary parts, or "
            f"their sizes, as features of their own."
        )


def _is_missing(cell: Any) -> bool:
    import pandas as pd

    return cell is pd.NA or cell is pd.NaT


def _is_number(text: str | bytes) -> bool:
    """Return whether a text can be read as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_values(X: np.ndarray, names: Sequence[str] | np.ndarray | None = None) -> None:
    """Refuse NaN, infinity, and values too large for float32.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
    names : sequence of str or None, default=None
        Names of the columns; None calls them feature 0, 1, and so on.

    Raises
    ------
    ValueError
        Names the row and column of the first such value.
    """
    if X.dtype == np.uint8:
        return
    step = max(1, _VALUES_PER_CHECK // max(1, math.prod(X.shape[1:])))
    for start in range(0, len(X), step):
        chunk = X[start : start + step]
        # A NaN makes max and min NaN, and every comparison with NaN is False: this catches everything.
        if max(float(chunk.max()), -float(chunk.min())) <= LARGEST_VALUE:
            continue
        magnitude = np.abs(chunk.astype(np.float64))
        row, *place = np.argwhere(~(magnitude <= LARGEST_VALUE))[0]
        value = chunk[(row, *place)]
        if len(place) == 1 and names is not None:
            where = f"row {start + row}, column {str(names[place[0]])!r}"
        else:
            where = f"row {start + row}, {'feature' if len(place) == 1 else 'pixel'} {', '.join(map(str, place))}"
        if np.isnan(value):
            raise ValueError(
                f"Input X contains NaN, first in {where}. Impute it (in a Pipeline, by SimpleImputer() before the "
                f"detector), or drop the row."
            )
        if np.isinf(value):
            raise ValueError(f"Input X contains infinity, first in {where}. Replace it, or drop the row.")
        raise ValueError(
            f"Input X has {value:g} in {where}. The square of a value above {LARGEST_VALUE:g} overflows float32; "
            f"rescale the feature."
        )


def refuse_fit_params(estimator: Any, fit_params: Mapping[str, Any]) -> None:
    """Raise a ValueError for further arguments of `fit`; None is ignored, which tools pass as ``sample_weight``."""
    given = [name for name, value in fit_params.items() if value is not None]
    if not given:
        return
    remedy = "leave it out"
    if given == ["sample_weight"]:
        remedy += "; to give a row more weight, repeat it in X"
    raise ValueError(f"{type(estimator).__name__} takes no {', '.join(given)} in fit; {remedy}.")
