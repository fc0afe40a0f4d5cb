"""Real data under one roof: X, and y with -1 for outliers and +1 for inliers."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets as sklearn_datasets

from .labels import check_labels

__all__ = ["BUILT_IN", "find_suite", "label_outliers", "load", "read_file"]


def _breast_cancer():
    data = sklearn_datasets.load_breast_cancer()
    # Class 0 is malignant.
    return data.data, np.where(data.target == 0, -1, 1)


def _wine():
    data = sklearn_datasets.load_wine()
    return data.data, np.where(data.target == 2, -1, 1)


def _digits():
    data = sklearn_datasets.load_digits()
    return data.images[:, None] / 16, np.where(data.target == 9, -1, 1)


BUILT_IN: dict[str, Callable] = {"breast_cancer": _breast_cancer, "wine": _wine, "digits": _digits}


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A data set that scikit-learn carries, with one class as the outliers.

    Parameters
    ----------
    name : {"breast_cancer", "wine", "digits"}
        Malignant tumours are the outliers; the third cultivar, the least frequent, is; the digit nine is.

    Returns
    -------
    X : ndarray of float64 of shape (n_samples, n_features), or (1797, 1, 8, 8) in [0, 1] for "digits"
    y : ndarray of int of shape (n_samples,)
        -1 for outliers, +1 for inliers.

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
        raise ValueError(f"no data set {name!r}; there are {', '.join(BUILT_IN)}.")
    return BUILT_IN[name]()


def read_file(
    path: str | Path, target: str | None = None, outliers: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read a data set from a file.

    Parameters
    ----------
    path : str or Path
        An ``.npz`` file with arrays X and y, without pickles; or a ``.csv`` file of numbers with a header.
    target : str or None, default=None
        Column of a ``.csv`` file that holds the labels.
    outliers : sequence of str or None, default=None
        Labels that mark outliers; see `label_outliers`.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features) or (n_samples, C, H, W)
        Grey images of shape (n_samples, H, W) get their channel axis.
    y : ndarray of int of shape (n_samples,)
        -1 for outliers, +1 for inliers.

    Raises
    ------
    ValueError
        If the file is not there, is of another kind, lacks the arrays or the column, or its labels are unclear.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    if path.suffix == ".npz":
        X, y = _read_npz(path)
    elif path.suffix == ".csv":
        X, y = _read_csv(path, target)
    else:
        raise ValueError(f"{path}: expected a .npz or a .csv file.")
    if len(X) != len(y):
        raise ValueError(f"{path}: X has {len(X)} rows, but y has {len(y)}.")
    try:
        return X, label_outliers(y, outliers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_npz(path):
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a .npz file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("X", "y") if name not in file]
            if missing:
                raise ValueError(
                    f"{path}: no array {' and no array '.join(missing)}, only {', '.join(file) or 'none'}."
                )
            X, y = file["X"], file["y"]
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # zipfile, zlib and numpy each have their own for a file that is no archive
        raise ValueError(f"{path}: not a readable .npz file ({error}).") from error
    if X.ndim == 3:
        X = X[:, None]
    if X.ndim not in (2, 4):
        raise ValueError(f"{path}: X has shape {X.shape}; expected (n, d), (n, H, W) or (n, C, H, W).")
    return X, y.ravel()


def _read_csv(path, target):
    try:
        table = pd.read_csv(path)
    except Exception as error:  # parser, decoding and operating system errors alike
        raise ValueError(f"{path}: not a readable .csv file ({str(error).strip()}).") from error
    if target is None:
        raise ValueError(f"{path}: name the column of labels (--target); there are {_shown(table.columns)}.")
    if target not in table:
        raise ValueError(f"{path}: no column {target!r} (--target); there are {_shown(table.columns)}.")
    X = table.drop(columns=target)
    text = X.columns[[dtype.kind not in "biuf" for dtype in X.dtypes.map(lambda d: getattr(d, "numpy_dtype", d))]]
    if len(text):
        raise ValueError(f"{path}: columns that are not numbers: {_shown(text)}; encode or drop them.")
    return X.to_numpy(dtype=np.float64), table[target].to_numpy()


def find_suite(directory: str | Path) -> list[Path]:
    """The ``.npz`` files of a directory, by name.

    Parameters
    ----------
    directory : str or Path

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
        raise ValueError(f"{directory}: no .npz file in it.")
    return paths


def label_outliers(y, outliers: Sequence[str] | None = None) -> np.ndarray:
    """Labels of a file as -1 for outliers and +1 for inliers.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels as they come.
    outliers : sequence of str or None, default=None
        Labels that mark outliers, compared as text. None understands y with -1 for outliers, and {0, 1} or
        {False, True} with 1 for outliers, as data sets for outlier detection are distributed.

    Returns
    -------
    y : ndarray of int of shape (n_samples,)

    Raises
    ------
    ValueError
        If the labels are unclear, or there are no outliers or no inliers.

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
    if outliers is not None:
        text = np.array([_as_text(label) for label in y.tolist()])
        unknown = sorted(set(map(str, outliers)) - set(text))
        if unknown:
            raise ValueError(f"no row is labelled {', '.join(unknown)}; labels are {_shown(labels)}.")
        outlier = np.isin(text, list(map(str, outliers)))
    elif y.dtype.kind in "iuf" and -1 in labels:
        outlier = y == -1
    elif y.dtype.kind in "biuf" and set(labels.tolist()) <= {0, 1}:
        outlier = y == 1
    else:
        raise ValueError(f"labels {_shown(labels)} do not say which rows are outliers; name them (--outlier).")
    if outlier.all() or not outlier.any():
        raise ValueError(f"every row is an {'outlier' if outlier.all() else 'inlier'}; both are needed.")
    return np.where(outlier, -1, 1)


def _as_text(label) -> str:
    """A label as it would be typed: 3.0 is "3"."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _shown(values, most: int = 8) -> str:
    shown = [_as_text(value) for value in list(values)[:most]]
    return ", ".join(shown) + (", ..." if len(values) > most else "")
