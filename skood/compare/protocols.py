"""Choose the rows that a comparison trains on, the labels that detectors get, and the rows that it tests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import joblib
import numpy as np
from numpy.typing import ArrayLike

from ..datasets import as_text
from ..estimator.labels import check_labels, marks_outlier, say_labels
from ..model_selection import HoldOutClass, OneVersusRest
from .tables import hash_rows, hashable, join_tables, prepare_table

__all__ = ["PROTOCOLS", "OODPair", "Problem", "Split", "split"]

# Two to train on and two to test on.
_FEWEST_ROWS = 4


@dataclass(frozen=True)
class OODPair:
    """Hold in-distribution rows and rows of other kinds: the data of the protocol "ood-pair".

    Parameters
    ----------
    X : array of shape (n_samples, n_features) or (n_samples, C, H, W), or DataFrame
        In-distribution rows; a random half is for training. Text, dates and missing values of a DataFrame are encoded;
        the encoders are fitted on the training rows alone.
    unseen : mapping of str to array or DataFrame
        Outliers to test on, by name; no detector is fitted on them. The rows have the shape of those of X, and are
        uint8 if those of X are. Columns of DataFrames are matched by name.
    y : array-like of shape (n_samples,) or None, default=None
        Classes of the rows of X, for detectors that learn classes.
    auxiliary : array, DataFrame or None, default=None
        Outliers to learn from, for detectors with a parameter ``outlier_label``.

    Notes
    -----
    A comparison joins all rows of a pair. If an array is memory-mapped, they are joined in a new file ``joined~*.npy``
    beside it, and not in memory, where its folder can be written to.

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

    X: Any
    unseen: Mapping[str, Any]
    y: np.ndarray | None = field(default=None, kw_only=True)
    auxiliary: Any = field(default=None, kw_only=True)


class Test(NamedTuple):
    """Hold the rows of a test.

    Attributes
    ----------
    rows : ndarray of int
        Indices.
    truth : ndarray of int
        -1 for each of them that is an outlier, +1 for the others.
    """

    rows: np.ndarray
    truth: np.ndarray


class Split(NamedTuple):
    """Hold the rows of one fit and of its tests, as indices.

    Attributes
    ----------
    train : ndarray of int
        Rows that are given as normal.
    classes : ndarray or None
        Their classes, as the user labelled them; None if they have none.
    auxiliary : ndarray of int
        Rows that are given as outliers to detectors that learn from outliers.
    tests : dict of str to Test
        By the name of the data set in the results.
    """

    train: np.ndarray
    classes: np.ndarray | None
    auxiliary: np.ndarray
    tests: dict[str, Test]


class Task(NamedTuple):
    """Describe what is fitted once for each detector and seed.

    Attributes
    ----------
    label : object
        The class that is held out, or that alone is normal; None under a protocol without classes.
    identities : dict of str to (str, dict)
        By the name of the data set in the results: a hash of its rows, and a dict of all else that distinguishes it
        from data sets with the same rows.
    """

    label: object
    identities: dict[str, tuple[str, dict]]


class Problem(Protocol):
    """Describe a data set under a protocol.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features) or (n_samples, C, H, W), or DataFrame
        All rows, to train and to test on. Data with text, dates or missing values are a DataFrame.
    classes : list
        The labels of all classes, sorted; empty if there are none.
    """

    X: Any
    classes: list

    def tasks(self) -> list[Task]:
        """Return the tasks of the data set.

        Returns
        -------
        tasks : list of Task
        """
        ...

    def split(
        self, label: object, names: Iterable[str], seed: int, max_train: int | None, max_test: int | None
    ) -> Split:
        """Draw the rows to train and to test on for a task.

        Parameters
        ----------
        label : object
            `Task.label`.
        names : iterable of str
            The data sets of the task that are to be tested; the rows of each do not depend on the others.
        seed : int
        max_train, max_test : int or None
            As in `skood.compare_detectors`.

        Returns
        -------
        split : Split
        """
        ...


# --------------------------------------------------------------------------------------------------------------------
# The problems


class _MarkedOutliers:
    """Treat rows with y == -1 as outliers; train on none of them, or on half of them without marking them."""

    def __init__(self, name: str, data: Any, protocol: str) -> None:
        self.name, self.protocol = name, protocol
        self.classes: list = []
        self.X, y = _unpacked(name, data)
        _check_shapes(name, self.X, y)
        # A hash of the labels as they are given, so that rows that were stored earlier are found again.
        self._hash = hash_rows(self.X, y)
        self.y, marked = _labels(name, y)
        n_outliers = np.count_nonzero(marked)
        if n_outliers == 0 and len(np.unique(self.y.astype(str))) > 1:
            labels, counts = np.unique(self.y, return_counts=True)
            raise ValueError(
                f"data set {name!r} has no outliers (y == -1): its labels are {say_labels(self.y)}. If "
                f"{labels.tolist()[counts.argmin()]!r} marks the outliers, write "
                f"y = np.where(np.asarray(y) == {labels.tolist()[counts.argmin()]!r}, -1, 1)."
            )
        if n_outliers == 0 or len(self.y) - n_outliers < 2:
            raise ValueError(
                f"data set {name!r} has {n_outliers} outliers (y == -1) in {len(self.y)} rows; it needs at least "
                f"one outlier and two inliers."
            )

    def tasks(self) -> list[Task]:
        return [Task(None, {self.name: (self._hash, {})})]

    def split(
        self, label: object, names: Iterable[str], seed: int, max_train: int | None, max_test: int | None
    ) -> Split:
        train, test = split(self.y, self.protocol, seed, max_train, max_test)
        tests = dict.fromkeys(names, Test(test, _truth(self.y[test])))
        return Split(train, None, test[:0], tests)


class _Classes:
    """Treat each class in turn as the anomaly, or as the only normal class; y == -1 marks auxiliary outliers."""

    def __init__(self, name: str, data: Any, splitter: type) -> None:
        self.name, self.splitter = name, splitter
        self.X, y = _unpacked(name, data)
        _check_shapes(name, self.X, y)
        self.y, marked = _labels(name, y)
        self.classes = _sorted(self.y[~marked])
        classes, counts = np.unique(self.y[~marked].astype(str), return_counts=True)
        if len(classes) < 2:
            raise ValueError(f"data set {name!r} has {len(classes)} class; it needs at least 2.")
        if counts.min() < _FEWEST_ROWS:
            raise ValueError(
                f"data set {name!r}: class {classes[counts.argmin()]} has {counts.min()} rows; drop or merge classes "
                f"of fewer than {_FEWEST_ROWS}. (Are these labels of classes? There are {len(classes)} of them.)"
            )

    def tasks(self) -> list[Task]:
        whole = hash_rows(self.X, self.y)
        labels = [label for label, _, _ in self.splitter(random_state=0).tasks(self.y, self.y)]
        return [Task(label, {f"{self.name}/{as_text(label)}": (whole, {"class": label})}) for label in labels]

    def split(
        self, label: object, names: Iterable[str], seed: int, max_train: int | None, max_test: int | None
    ) -> Split:
        tasks = self.splitter(classes=[label], random_state=seed).tasks(self.y, self.y)
        _, target, [(train, test)] = next(tasks)
        rng, marked = np.random.RandomState(seed), marks_outlier(self.y)
        auxiliary = rng.permutation(train[marked[train]])[:max_train]
        train = rng.permutation(train[~marked[train]])[:max_train]
        truth = _truth(target)
        test = _tested((test[truth[test] == 1], test[truth[test] == -1]), max_test, rng)
        classes = self.y[train] if self.splitter is HoldOutClass else None
        return Split(train, classes, auxiliary, dict.fromkeys(names, Test(test, truth[test])))


class _Pair:
    """Train on half of the in-distribution rows; test the other half against each set of unseen rows."""

    def __init__(self, name: str, data: Any) -> None:
        if not isinstance(data, OODPair):
            raise ValueError(
                f"data set {name!r} must be a skood.compare.OODPair for protocol='ood-pair'; got {type(data).__name__}."
            )
        if not data.unseen:
            raise ValueError(f"data set {name!r} has no unseen rows to test on; name some in OODPair.unseen.")
        X = data.X if hasattr(data.X, "columns") else np.asarray(data.X)
        self.name, self.n_rows = name, len(X)
        self.y: np.ndarray | None = None
        marked = np.zeros(self.n_rows, dtype=bool)
        if data.y is not None:
            self.y, marked = _labels(name, data.y)
        self.classes = [] if self.y is None else _sorted(self.y)
        _check_shapes(name, X, np.zeros(self.n_rows) if data.y is None else self.y)
        if self.n_rows < _FEWEST_ROWS:
            raise ValueError(
                f"data set {name!r} has {self.n_rows} in-distribution rows; it needs at least {_FEWEST_ROWS}."
            )
        if marked.any():
            raise ValueError(f"data set {name!r} marks outliers by y == -1; give them as OODPair.auxiliary.")
        unseen = {f"unseen {part}": rows for part, rows in data.unseen.items()}
        parts = {"X": X, "auxiliary": X[:0] if data.auxiliary is None else data.auxiliary, **unseen}
        if not any(hasattr(rows, "columns") for rows in parts.values()):
            parts = {part: np.asarray(rows) for part, rows in parts.items()}
            for part, rows in parts.items():
                _check_alike(f"data set {name!r}: {part}", rows, X)
        empty = [part for part in unseen if len(parts[part]) == 0]
        if empty:
            raise ValueError(f"data set {name!r}: {empty[0]} has no rows: leave it out.")
        ends = np.cumsum([len(rows) for rows in parts.values()])
        self._rows = {part: np.arange(end - len(parts[part]), end) for part, end in zip(parts, ends, strict=True)}
        self.X = join_tables(parts, name)
        known = joblib.hash((hashable(data.X), self.y, hashable(data.auxiliary)))
        self._hashes = {f"{name}/{part}": hash_rows(known, rows) for part, rows in data.unseen.items()}

    def tasks(self) -> list[Task]:
        return [Task(None, {name: (identity, {}) for name, identity in self._hashes.items()})]

    def split(
        self, label: object, names: Iterable[str], seed: int, max_train: int | None, max_test: int | None
    ) -> Split:
        rng = np.random.RandomState(seed)
        inliers = rng.permutation(self.n_rows)
        train, held_out = inliers[: self.n_rows // 2][:max_train], inliers[self.n_rows // 2 :]
        auxiliary = rng.permutation(self._rows["auxiliary"])[:max_train]
        tests = {}
        for name in names:
            # Each set has a generator of its own, so that its rows do not depend on the other sets.
            own = np.random.RandomState(seed)
            unseen = own.permutation(self._rows[f"unseen {name.removeprefix(self.name + '/')}"])
            test = _tested((held_out, unseen), max_test, own)
            tests[name] = Test(test, np.where(test < self.n_rows, 1, -1))
        classes = None if self.y is None else self.y[train]
        return Split(train, classes, auxiliary, tests)


# Name -> function that takes the name and the data of a data set.
PROTOCOLS: dict[str, Callable[[str, Any], Problem]] = {
    "novelty": partial(_MarkedOutliers, protocol="novelty"),
    "contaminated": partial(_MarkedOutliers, protocol="contaminated"),
    "holdout-class": partial(_Classes, splitter=HoldOutClass),
    "one-versus-rest": partial(_Classes, splitter=OneVersusRest),
    "ood-pair": _Pair,
}


def _unpacked(name: str, data: Any) -> tuple[Any, Any]:
    """Return X and y of a data set."""
    if isinstance(data, OODPair) or len(data) != 2:
        raise ValueError(f"data set {name!r} must be a pair (X, y) for this protocol; got {type(data).__name__}.")
    X, y = data
    try:
        return prepare_table(X), y
    except ValueError as error:
        raise ValueError(f"data set {name!r}: {error}") from error


def _labels(name: str, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of a data set, and the mask of the rows that they mark; errors name the data set."""
    try:
        labels = check_labels(y)
        return labels, marks_outlier(labels)
    except ValueError as error:
        raise ValueError(f"data set {name!r}: {error}") from error


def _check_shapes(name: str, X: Any, y: Any) -> None:
    if np.ndim(X) not in (2, 4) or np.shape(y) != (len(X),):
        raise ValueError(
            f"data set {name!r} has X of shape {np.shape(X)} and y of shape {np.shape(y)}; expected (n, d) or "
            f"(n, C, H, W), and (n,)."
        )


def _check_alike(name: str, rows: np.ndarray, X: np.ndarray) -> None:
    if rows.shape[1:] != X.shape[1:]:
        raise ValueError(f"{name} has rows of shape {rows.shape[1:]}, but X of {X.shape[1:]}; make them alike.")
    if (rows.dtype == np.uint8) != (X.dtype == np.uint8):
        raise ValueError(
            f"{name} has rows of {rows.dtype}, but X of {X.dtype}; uint8 pixels reach 255, others mostly 1: make them "
            f"alike."
        )


def _truth(y: np.ndarray) -> np.ndarray:
    """Return -1 for the rows that y marks as outliers, +1 for the others."""
    return np.where(marks_outlier(y), -1, 1)


def _sorted(labels: np.ndarray) -> list:
    """Return the distinct labels in order, numbers before text."""
    return sorted(set(labels.tolist()), key=lambda label: (isinstance(label, str), label))


# --------------------------------------------------------------------------------------------------------------------
# Splits


Kinds = tuple[np.ndarray, np.ndarray]


def _novelty(inliers: np.ndarray, outliers: np.ndarray) -> tuple[np.ndarray, Kinds]:
    """Return half of the inliers to train on; the others and all outliers to test on."""
    half = len(inliers) // 2
    return inliers[:half], (inliers[half:], outliers)


def _contaminated(inliers: np.ndarray, outliers: np.ndarray) -> tuple[np.ndarray, Kinds]:
    """Return half of both kinds to train on, together; the others to test on."""
    half, half_outliers = len(inliers) // 2, len(outliers) // 2
    train = np.concatenate([inliers[:half], outliers[:half_outliers]])
    return train, (inliers[half:], outliers[half_outliers:])


_HALVES = {"novelty": _novelty, "contaminated": _contaminated}


def split(
    y: ArrayLike, protocol: str, seed: int, max_train: int | None = None, max_test: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows to train and to test on, where y marks the outliers.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        -1 for outliers; every other label is an inlier.
    protocol : {"novelty", "contaminated"}
        As in `skood.compare_detectors`.
    seed : int
    max_train, max_test : int or None, default=None
        As in `skood.compare_detectors`.

    Returns
    -------
    train, test : ndarray of int
        Indices, in random order.

    Raises
    ------
    ValueError
        If a label is missing, or -1 is spelt as text.
    """
    rng = np.random.RandomState(seed)
    outlier = marks_outlier(check_labels(y))
    inliers, outliers = rng.permutation(np.flatnonzero(~outlier)), rng.permutation(np.flatnonzero(outlier))
    train, kinds = _HALVES[protocol](inliers, outliers)
    return rng.permutation(train)[:max_train], _tested(kinds, max_test, rng)


def _tested(kinds: Kinds, max_test: int | None, rng: np.random.RandomState) -> np.ndarray:
    """Return the rows of both kinds in random order; if they are too many, the first of each kind in proportion."""
    n_test = sum(map(len, kinds))
    if max_test is not None and n_test > max_test:
        # At least one of each kind: metrics need both.
        inliers, outliers = (kind[: max(1, round(len(kind) * max_test / n_test))] for kind in kinds)
        kinds = inliers, outliers
    return rng.permutation(np.concatenate(kinds))
