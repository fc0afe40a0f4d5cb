"""Load or draw data sets: tables and arrays with y = -1 for outliers and +1 for inliers, and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import datasets as sklearn_datasets

from ._image_folder import load_image_folder
from ._imagenet import IMAGENET_SUBSETS, load_imagenet_subset
from ._npz import open_npz, refuse_size
from ._published_images import load_cifar10_c, load_imagenet_c, load_mpi3d, load_svhn
from ._shapes import make_shapes
from ._tables import TABLE_FORMATS, TableOptions, file_format, read_table, rows_of
from .estimator.labels import check_labels
from .estimator.validation import channels_last

__all__ = [
    "BUILT_IN",
    "IMAGENET_SUBSETS",
    "TableOptions",
    "find_suite",
    "label_outliers",
    "load",
    "load_cifar10_c",
    "load_image_folder",
    "load_imagenet_c",
    "load_imagenet_subset",
    "load_mpi3d",
    "load_svhn",
    "make_shapes",
    "read_classes",
    "read_file",
]

_DEFAULTS = TableOptions()


def _breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """Return the features of the tumours and their classes."""
    return sklearn_datasets.load_breast_cancer(return_X_y=True)


def _wine() -> tuple[np.ndarray, np.ndarray]:
    """Return the features of the wines and their cultivars."""
    return sklearn_datasets.load_wine(return_X_y=True)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return grey images in [0, 1] with a channel axis, and the digits."""
    data = sklearn_datasets.load_digits()
    # The files hold whole numbers from 0 to 16.
    return data.images[:, None] / 16, data.target


BUILT_IN: dict[str, Callable] = {"breast_cancer": _breast_cancer, "wine": _wine, "digits": _digits}
# The class whose rows are the outliers. Class 0 of the tumours is malignant.
_OUTLIERS = {"breast_cancer": 0, "wine": 2, "digits": 9}


def load(name: str, *, classes: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Load a data set that comes with scikit-learn, with one class as the outliers.

    Parameters
    ----------
    name : {"breast_cancer", "wine", "digits"}
        Outliers are the malignant tumours, the third cultivar (the least frequent), or the digit nine.
    classes : bool, default=False
        Whether y holds the classes instead of -1 and +1.

    Returns
    -------
    X : ndarray of float64 of shape (n_samples, n_features), or (1797, 1, 8, 8) in [0, 1] for "digits"
    y : ndarray of int of shape (n_samples,)
        -1 for outliers, +1 for inliers; or the classes, from 0 on.

    Raises
    ------
    ValueError
        If there is no data set of that name.

    Examples
    --------
    >>> from skood.datasets import load
    >>> X, y = load("wine")
    >>> X.shape, int((y == -1).sum())
    ((178, 13), 48)
    """
    if name not in BUILT_IN:
        raise ValueError(f"there is no data set {name!r}; choose one of {', '.join(map(repr, BUILT_IN))}.")
    X, y = BUILT_IN[name]()
    return X, y if classes else np.where(y == _OUTLIERS[name], -1, 1)


def read_file(
    path: str | Path,
    target: str | None = None,
    outliers: Sequence[str] | str | None = None,
    *,
    inliers: Sequence[str] | str | None = None,
    options: TableOptions = _DEFAULTS,
) -> tuple[np.ndarray | pd.DataFrame, np.ndarray]:
    """Read a data set from a file.

    Parameters
    ----------
    path : str or Path
        An ``.npz`` or ``.mat`` file with arrays X and y, without pickles; or a table: ``.csv``, ``.tsv``, ``.txt`` or
        ``.data`` (``.gz``, ``.zip`` or ``.xz`` may follow), ``.arff``, and ``.parquet`` or ``.feather`` where pyarrow
        is installed.
    target : str or None, default=None
        Name of the column of a table, or of the array of an ``.npz`` or ``.mat`` file, that holds the labels. If an
        ``.npz`` or ``.mat`` file has no array of that name, y is read.
    outliers, inliers : sequence of str, str or None, default=None
        Labels that mark outliers, or inliers; see `label_outliers`.
    options : TableOptions, default=TableOptions()
        How a table is read: separator, header, columns to leave out, and whether text, dates and missing values may
        stay.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features) or (n_samples, C, H, W), or DataFrame
        Grey images of shape (n_samples, H, W) get a channel axis. If there are text, dates or missing values, which
        ``options.encode`` allows, X is a DataFrame.
    y : ndarray of int of shape (n_samples,)
        -1 for outliers, +1 for inliers.

    Raises
    ------
    ValueError
        If there is no such file, its format is unknown, the arrays or the column are missing, or the labels do not say
        which rows are outliers.
    """
    X, labels = read_classes(path, target, options=options)
    # For the type checker: with needed=True a file without labels is an error.
    assert labels is not None
    try:
        y = label_outliers(labels, outliers, inliers)
        options.tell(f"{Path(path).name}: {_counted(labels, y)}.")
        return X, y
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_classes(
    path: str | Path, target: str | None = None, *, needed: bool = True, options: TableOptions = _DEFAULTS
) -> tuple[np.ndarray | pd.DataFrame, np.ndarray | None]:
    """Read a data set from a file, with its labels as they are.

    Parameters
    ----------
    path : str or Path
        A file of any kind that `read_file` reads.
    target : str or None, default=None
        Name of the column or array that holds the labels, as in `read_file`.
    needed : bool, default=True
        Whether a file without labels is an error.
    options : TableOptions, default=TableOptions()
        How a table is read, as in `read_file`.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features) or (n_samples, C, H, W), or DataFrame
        The rows.
    y : ndarray of shape (n_samples,) or None
        The labels as they are in the file; None if there are none.

    Raises
    ------
    ValueError
        If there is no such file, its format is unknown, or the arrays or the column are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    kind = file_format(path)
    X: np.ndarray | pd.DataFrame
    if kind in TABLE_FORMATS:
        X, y = read_table(path, target, needed, options)
    elif kind in (".npz", ".mat"):
        array, y = (_read_npz if kind == ".npz" else _read_mat)(path, target, needed, options.most_bytes)
        X = _with_holes(path, array, options)
    else:
        raise ValueError(f"{path}: the name must end in one of .npz, .mat, {', '.join(TABLE_FORMATS)}.")
    if y is not None and len(X) != len(y):
        raise ValueError(f"{path}: X has {len(X)} rows, but y has {len(y)}.")
    return X, y


def _read_npz(path: Path, target: str | None, needed: bool, most_bytes: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Read rows and labels from a .npz file; every error message names the file."""
    with open_npz(path, most_bytes=most_bytes) as arrays:
        labels = target if target is not None and target in arrays else "y"
        missing = [name for name in ("X", labels) if name not in arrays and (needed or name == "X")]
        if missing:
            raise ValueError(
                f"{path}: no array {' and no array '.join(missing)}, only {', '.join(arrays.names) or 'none'}."
            )
        X, y = arrays["X"], arrays[labels].ravel() if labels in arrays else None
    if X.ndim == 3:
        X = X[:, None]
    if X.ndim not in (2, 4):
        raise ValueError(f"{path}: X has shape {X.shape}; expected (n, d), (n, H, W) or (n, C, H, W).")
    if X.ndim == 4 and channels_last(X.shape[1:]):
        raise ValueError(f"{path}: X has shape {X.shape}; channels must come first: save np.moveaxis(X, -1, 1).")
    return X, y


# Bytes of one number, by MATLAB's names of types; 8 for types not named here.
_MAT_BYTES = {"int8": 1, "uint8": 1, "logical": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "single": 4}


def _read_mat(path: Path, target: str | None, needed: bool, most_bytes: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Read rows and labels from a MATLAB file; every error message names the file."""
    from scipy.io import loadmat, whosmat

    try:
        # This reads the headers of the arrays alone.
        sizes = [_MAT_BYTES.get(kind, 8.0) * math.prod(shape) for _, shape, kind in whosmat(path)]
    except NotImplementedError as error:
        raise ValueError(f"{path}: the format is that of MATLAB 7.3; save it with -v7, or as .npz.") from error
    except Exception as error:  # scipy raises errors of many types for a file of another format
        raise ValueError(f"{path}: not a readable .mat file ({error}).") from error
    refuse_size(path, sum(sizes) - path.stat().st_size, most_bytes)
    try:
        arrays = {name: array for name, array in loadmat(path).items() if not name.startswith("__")}
    except Exception as error:
        raise ValueError(f"{path}: not a readable .mat file ({error}).") from error
    labels = target if target is not None and target in arrays else "y"
    missing = [name for name in ("X", labels) if name not in arrays and (needed or name == "X")]
    if missing:
        raise ValueError(f"{path}: no array {' and no array '.join(missing)}, only {', '.join(arrays) or 'none'}.")
    X = arrays["X"]
    if not isinstance(X, np.ndarray) or X.ndim != 2 or X.dtype.kind not in "biuf":
        raise ValueError(f"{path}: X must be a full matrix of numbers, of shape (n, d).")
    return X.astype(np.float64), arrays[labels].ravel() if labels in arrays else None


def _with_holes(path: Path, X: np.ndarray, options: TableOptions) -> np.ndarray | pd.DataFrame:
    """Return X; make vectors with missing values a table that can be encoded, or refuse them."""
    if X.ndim != 2 or X.dtype.kind != "f" or np.isfinite(X).all():
        return X
    table = pd.DataFrame(X, columns=[f"feature {j}" for j in range(X.shape[1])])
    try:
        return rows_of(table, options, lambda row: f"row {row}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def find_suite(directory: str | Path) -> list[Path]:
    """Return the ``.npz`` files of a directory, sorted by name.

    Parameters
    ----------
    directory : str or Path
        The directory; its subdirectories are not searched.

    Returns
    -------
    paths : list of Path

    Raises
    ------
    ValueError
        If there is no such directory or no such file in it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such directory.")
    paths = sorted(directory.glob("*.npz"))
    if not paths:
        raise ValueError(f"{directory}: there is no .npz file in this directory.")
    return paths


def label_outliers(
    y: ArrayLike, outliers: Sequence[str] | str | None = None, inliers: Sequence[str] | str | None = None
) -> np.ndarray:
    """Turn the labels of a file into -1 for outliers and +1 for inliers.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels as they are in the file.
    outliers : sequence of str, str or None, default=None
        Labels that mark outliers, compared as text. One text is a label, or, if no row has it, labels separated by
        commas. With None the outliers are the rows labelled -1, or, if all labels are 0 and 1 or all are booleans,
        those labelled 1 or True, as is usual in data sets for outlier detection.
    inliers : sequence of str, str or None, default=None
        Labels that mark inliers, instead of ``outliers``: all other labels mark outliers.

    Returns
    -------
    y : ndarray of int of shape (n_samples,)
        -1 for outliers, +1 for inliers.

    Raises
    ------
    ValueError
        If the labels do not say which rows are outliers (if most are 1 and the rest 0, 1 may stand for good rows), or
        if there are no outliers or no inliers.

    Examples
    --------
    >>> from skood.datasets import label_outliers
    >>> label_outliers([0, 0, 1])
    array([ 1,  1, -1])
    >>> label_outliers(["cat", "dog"], outliers=["dog"])
    array([ 1, -1])
    """
    y = check_labels(np.asarray(y))
    labels = pd.unique(y)
    if outliers is not None and inliers is not None:
        raise ValueError("name the labels of outliers (--outlier) or those of inliers (--inlier), not both.")
    named = outliers if inliers is None else inliers
    if named is not None:
        # Labels are compared as text: on the command line they are typed as text, and a file may hold them as floats.
        text = _as_texts(y)
        if isinstance(named, str):
            named = [named] if named in text else [part.strip() for part in named.split(",")]
        unknown = sorted(set(map(str, named)) - set(text))
        if unknown:
            raise ValueError(f"no row is labelled {', '.join(unknown)}; labels are {_shown(labels)}.")
        outlier = np.isin(text, list(map(str, named))) == (inliers is None)
    elif y.dtype.kind in "iuf" and -1 in labels:
        outlier = y == -1
    elif y.dtype.kind in "biuf" and set(labels.tolist()) <= {0, 1}:
        outlier = y == 1
        if len(y) / 2 < np.count_nonzero(outlier) < len(y):
            raise ValueError(
                f"labels {_shown(labels)} do not say which rows are outliers: {np.count_nonzero(outlier)} of {len(y)} "
                f"rows have the label that usually marks outliers, but these are usually rare; name the labels of "
                f"outliers (--outlier)."
            )
    else:
        raise ValueError(
            f"labels {_shown(labels)} do not say which rows are outliers; name the labels of outliers (--outlier) or "
            f"of inliers (--inlier)."
        )
    if outlier.all() or not outlier.any():
        raise ValueError(f"every row is an {'outlier' if outlier.all() else 'inlier'}; both are needed.")
    return np.where(outlier, -1, 1)


def _counted(labels: np.ndarray, y: np.ndarray) -> str:
    """Return a text: how many rows are inliers and outliers, and which labels they have."""
    parts, text = [], pd.Series(_as_texts(labels))
    for kind, mark in (("inliers", 1), ("outliers", -1)):
        counts = text[y == mark].value_counts()
        parts.append(f"{counts.sum()} {kind} ({_shown([f'{n} labelled {label}' for label, n in counts.items()])})")
    return ", ".join(parts)


def as_text(label: object) -> str:
    """Return a label as a user would type it: "3" for 3.0."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _as_texts(labels: np.ndarray) -> np.ndarray:
    """Return labels as a user would type them."""
    # Each distinct label is converted once: few labels stand in many rows.
    codes, distinct = pd.factorize(labels)
    return np.array([as_text(label) for label in distinct.tolist()])[codes]


def _shown(values: Any, most: int = 8) -> str:
    """Return the first few values as text, for error messages."""
    shown = [as_text(value) for value in list(values)[:most]]
    return ", ".join(shown) + (", ..." if len(values) > most else "")
