"""Which rows a comparison trains on, what it tells of them, and which it tests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd

from ..datasets import as_text
from ..estimator.labels import check_labels, marks_outlier
from ..model_selection import HoldOutClass, OneVersusRest

__all__ = ["PROTOCOLS", "OODPair", "Split", "split"]

# Two to train on and two to test on.
_FEWEST_ROWS = 4


@dataclass(frozen=True)
class OODPair:
    """In-distribution rows, and rows of other kinds: the data of the protocol "ood-pair".

    Parameters
    ----------
    X : array of shape (n_samples, n_features) or (n_samples, C, H, W)
        In-distribution rows; a random half is trained on.
    unseen : mapping of str to array
        By name, outliers to test on; no detector is fitted on any of them. They are of the shape and kind of X: uint8
        images beside uint8 images.
    y : array-like of shape (n_samples,) or None, default=None
        Classes of the rows of X, for detectors that learn classes.
    auxiliary : array or None, default=None
        Outliers to learn from, for detectors that may.

    Examples
    --------
    >>> import numpy as np
    >>> from skood import compare_detectors
    >>> from skood.compare import OODPair
    >>> rng = np.random.default_rng(0)
    >>> pair = OODPair(rng.normal(size=(50, 2)), {"far": rng.normal(9, 1, size=(20, 2))})
    >>> results = compare_detectors(["kNN"], {"blob": pair}, protocol="ood-pair", seeds=1)
    >>> results[["dataset", "auroc"]]
        dataset  auroc
    0  blob/far    1.0
    """

    X: np.ndarray
    unseen: Mapping[str, np.ndarray]
    y: np.ndarray | None = field(default=None, kw_only=True)
    auxiliary: np.ndarray | None = field(default=None, kw_only=True)


class Split(NamedTuple):
    """Rows of one fit and of its tests, as indices.

    Attributes
    ----------
    train : ndarray of int
        Rows that are given as normal.
    classes : ndarray of int or None
        Their classes, numbered from 1 on; None if they have none.
    auxiliary : ndarray of int
        Rows that are given as outliers to detectors that learn from such.
    tests : dict of str to (ndarray of int, ndarray of int)
        By the name of the data set in the results: rows, and -1 for outliers or +1 for each.
    """

    train: np.ndarray
    classes: np.ndarray | None
    auxiliary: np.ndarray
    tests: dict[str, tuple[np.ndarray, np.ndarray]]


class Task(NamedTuple):
    """What is fitted once for each detector and seed.

    Attributes
    ----------
    label : object
        The class it is about; None if it is about none.
    identities : dict of str to (str, dict)
        By the name of the data set in the results: a hash of its rows, and what else tells it from others of these.
    """

    label: object
    identities: dict[str, tuple[str, dict]]


# --------------------------------------------------------------------------------------------------------------------
# A data set under a protocol: `X`, all its rows; `tasks`; and `split`, the rows of one of them for a seed


class _MarkedOutliers:
    """Outliers are the rows with y == -1, of which training rows hold none or their share, not marked."""

    def __init__(self, name: str, data, protocol: str):
        self.name, self.protocol = name, protocol
        self.X, self.y = _unpacked(name, data)
        _check_shapes(name, self.X, self.y)
        n_outliers = np.count_nonzero(np.asarray(self.y) == -1)
        if n_outliers == 0 or len(self.y) - n_outliers < 2:
            raise ValueError(
                f"data set {name!r} has {n_outliers} outliers (y == -1) in {len(self.y)} rows; it needs both kinds."
            )

    def tasks(self) -> list[Task]:
        return [Task(None, {self.name: (joblib.hash((self.X, self.y)), {})})]

    def split(self, label, names: Iterable[str], seed: int, max_train: int | None, max_test: int | None) -> Split:
        train, test = split(self.y, self.protocol, seed, max_train, max_test)
        tests = dict.fromkeys(names, (test, _truth(np.asarray(self.y)[test])))
        return Split(train, None, test[:0], tests)


class _Classes:
    """Each class in turn is the anomaly, or the only normal one; y == -1 marks auxiliary outliers."""

    def __init__(self, name: str, data, splitter: type):
        self.name, self.splitter = name, splitter
        self.X, y = _unpacked(name, data)
        _check_shapes(name, self.X, y)
        try:
            self.y = check_labels(y)
        except ValueError as error:
            raise ValueError(f"data set {name!r}: {error}") from error
        classes, counts = np.unique(self.y[~marks_outlier(self.y)].astype(str), return_counts=True)
        if len(classes) < 2:
            raise ValueError(f"data set {name!r} has {len(classes)} class; at least 2 are needed to leave one out.")
        if counts.min() < _FEWEST_ROWS:
            raise ValueError(
                f"data set {name!r}: class {classes[counts.argmin()]} has {counts.min()} rows; drop or merge classes "
                f"of fewer than {_FEWEST_ROWS}. (Are these labels of classes? There are {len(classes)} of them.)"
            )

    def tasks(self) -> list[Task]:
        whole = joblib.hash((self.X, self.y))
        labels = [label for label, _, _ in self.splitter(random_state=0).tasks(self.y, self.y)]
        return [Task(label, {f"{self.name}/{as_text(label)}": (whole, {"class": label})}) for label in labels]

    def split(self, label, names: Iterable[str], seed: int, max_train: int | None, max_test: int | None) -> Split:
        tasks = self.splitter(classes=[label], random_state=seed).tasks(self.y, self.y)
        _, target, [(train, test)] = next(tasks)
        rng, marked = np.random.RandomState(seed), marks_outlier(self.y)
        auxiliary = rng.permutation(train[marked[train]])[:max_train]
        train = rng.permutation(train[~marked[train]])[:max_train]
        truth = _truth(target)
        test = _tested((test[truth[test] == 1], test[truth[test] == -1]), max_test, rng)
        classes = _numbered(self.y[train]) if self.splitter is HoldOutClass else None
        return Split(train, classes, auxiliary, dict.fromkeys(names, (test, truth[test])))


class _Pair:
    """Half of the in-distribution rows to train on, the other half against each set of unseen rows."""

    def __init__(self, name: str, data):
        if not isinstance(data, OODPair):
            raise ValueError(
                f"data set {name!r} must be a skood.compare.OODPair for protocol='ood-pair'; got {type(data).__name__}."
            )
        if not data.unseen:
            raise ValueError(f"data set {name!r} has no unseen rows to test on; name some in OODPair.unseen.")
        X = np.asarray(data.X)
        self.name, self.n_rows = name, len(X)
        self.y = None if data.y is None else check_labels(data.y)
        _check_shapes(name, X, np.zeros(self.n_rows) if data.y is None else self.y)
        if self.n_rows < _FEWEST_ROWS:
            raise ValueError(f"data set {name!r} has {self.n_rows} in-distribution rows; it needs {_FEWEST_ROWS}.")
        if self.y is not None and marks_outlier(self.y).any():
            raise ValueError(f"data set {name!r} marks outliers by y == -1; give them as OODPair.auxiliary.")
        unseen = {f"unseen {part}": np.asarray(rows) for part, rows in data.unseen.items()}
        parts = {"auxiliary": X[:0] if data.auxiliary is None else np.asarray(data.auxiliary), **unseen}
        for part, rows in parts.items():
            _check_alike(f"data set {name!r}: {part}", rows, X)
        empty = [part for part, rows in unseen.items() if len(rows) == 0]
        if empty:
            raise ValueError(f"data set {name!r}: {empty[0]} has no rows.")
        ends = self.n_rows + np.cumsum([len(rows) for rows in parts.values()])
        self._rows = {part: np.arange(end - len(parts[part]), end) for part, end in zip(parts, ends, strict=True)}
        known = joblib.hash((data.X, self.y, data.auxiliary))
        self._hashes = {f"{name}/{part}": joblib.hash((known, rows)) for part, rows in data.unseen.items()}
        self.X = np.concatenate([X, *parts.values()])

    def tasks(self) -> list[Task]:
        return [Task(None, {name: (identity, {}) for name, identity in self._hashes.items()})]

    def split(self, label, names: Iterable[str], seed: int, max_train: int | None, max_test: int | None) -> Split:
        rng = np.random.RandomState(seed)
        inliers = rng.permutation(self.n_rows)
        train, held_out = inliers[: self.n_rows // 2][:max_train], inliers[self.n_rows // 2 :]
        auxiliary = rng.permutation(self._rows["auxiliary"])[:max_train]
        tests = {}
        for name in names:
            # The rows of one set do not depend on which others there are.
            own = np.random.RandomState(seed)
            unseen = own.permutation(self._rows[f"unseen {name.removeprefix(self.name + '/')}"])
            test = _tested((held_out, unseen), max_test, own)
            tests[name] = test, np.where(test < self.n_rows, 1, -1)
        classes = None if self.y is None else _numbered(self.y[train])
        return Split(train, classes, auxiliary, tests)


PROTOCOLS: dict[str, Callable] = {
    "novelty": partial(_MarkedOutliers, protocol="novelty"),
    "contaminated": partial(_MarkedOutliers, protocol="contaminated"),
    "holdout-class": partial(_Classes, splitter=HoldOutClass),
    "one-versus-rest": partial(_Classes, splitter=OneVersusRest),
    "ood-pair": _Pair,
}


def _unpacked(name, data):
    if isinstance(data, OODPair) or len(data) != 2:
        raise ValueError(f"data set {name!r} must be (X, y) for this protocol; got {type(data).__name__}.")
    return data


def _check_shapes(name, X, y):
    if np.ndim(X) not in (2, 4) or np.shape(y) != (len(X),):
        raise ValueError(
            f"data set {name!r} has X of shape {np.shape(X)} and y of shape {np.shape(y)}; expected (n, d) or "
            f"(n, C, H, W), and (n,)."
        )


def _check_alike(name, rows, X):
    if rows.shape[1:] != X.shape[1:]:
        raise ValueError(f"{name} has rows of shape {rows.shape[1:]}, but X of {X.shape[1:]}; make them alike.")
    if (rows.dtype == np.uint8) != (X.dtype == np.uint8):
        raise ValueError(
            f"{name} has rows of {rows.dtype}, but X of {X.dtype}; uint8 pixels reach 255, others mostly 1: make them "
            f"alike."
        )


def _truth(y) -> np.ndarray:
    return np.where(marks_outlier(y), -1, 1)


def _numbered(labels) -> np.ndarray:
    return 1 + pd.factorize(labels)[0]


# --------------------------------------------------------------------------------------------------------------------
# Splits


def _novelty(inliers, outliers):
    half = len(inliers) // 2
    return inliers[:half], (inliers[half:], outliers)


def _contaminated(inliers, outliers):
    half, half_outliers = len(inliers) // 2, len(outliers) // 2
    train = np.concatenate([inliers[:half], outliers[:half_outliers]])
    return train, (inliers[half:], outliers[half_outliers:])


_HALVES = {"novelty": _novelty, "contaminated": _contaminated}


def split(y, protocol: str, seed: int, max_train: int | None = None, max_test: int | None = None):
    """Rows to train and to test on where y marks the outliers.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        -1 for outliers.
    protocol : {"novelty", "contaminated"}
    seed : int
    max_train, max_test : int or None, default=None
        As in `skood.compare_detectors`.

    Returns
    -------
    train, test : ndarray of int
        Indices, in random order.
    """
    rng = np.random.RandomState(seed)
    outlier = np.asarray(y) == -1
    inliers, outliers = rng.permutation(np.flatnonzero(~outlier)), rng.permutation(np.flatnonzero(outlier))
    train, kinds = _HALVES[protocol](inliers, outliers)
    return rng.permutation(train)[:max_train], _tested(kinds, max_test, rng)


def _tested(kinds, max_test, rng) -> np.ndarray:
    """Rows of both kinds in random order, their first ones in proportion if they are too many."""
    n_test = sum(map(len, kinds))
    if max_test is not None and n_test > max_test:
        kinds = [kind[: max(1, round(len(kind) * max_test / n_test))] for kind in kinds]
    return rng.permutation(np.concatenate(kinds))
