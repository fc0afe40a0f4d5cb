"""Split rows for outlier detection: which to train on, which to test on.

There are three kinds of rows. Scores are measured on *inliers* and *evaluation outliers* (y == -1). *Auxiliary
outliers* are a corpus to train with. They too carry y == -1, from which a detector learns that they are outliers; a
boolean mask given to the splitter tells them from evaluation outliers. (A splitter's ``outlier_label`` names other
labels than -1.) Auxiliary outliers are in every training fold and in no test fold. Evaluation outliers are in no
training fold, unless ``contamination`` asks for it: a detector that learns from y == -1 is never scored on outliers
that it was trained with.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import BaseCrossValidator, KFold, StratifiedShuffleSplit
from sklearn.utils import check_random_state, indexable

from .estimator.labels import Marker, check_labels, check_marked, marks_outlier, named_markers, say_labels
from .estimator.wrapper import DropOutliers, HideLabels

__all__ = ["DropOutliers", "HideLabels", "HoldOutClass", "OneVersusRest", "OutlierKFold"]


class OutlierKFold(BaseCrossValidator):
    """Split into K folds with the same share of outliers; train on inliers, with few outliers or none.

    Inliers and evaluation outliers (y == -1) are shuffled and dealt to the folds separately, so the order of the rows
    does not matter. Each fold is the test fold once, with its outliers; the inliers of the other folds are trained on.

    After a search, scikit-learn refits the best parameters to *all* rows, evaluation outliers included, whatever the
    splitter. Search over ``DropOutliers(detector)``, or with ``refit=False`` and then fit the rows you choose.
    Folds cannot be nested: the outer training rows hold no outliers on which inner folds could be measured.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    contamination : float in [0, 0.5], default=0.0
        Share of evaluation outliers among the training rows, drawn at random from the other folds. They carry
        y == -1, so a detector that reads y leaves them out or learns from them as outliers. To train it on them as if
        they were inliers, wrap it in `HideLabels`.
    auxiliary : array-like of bool of shape (n_samples,) or None, default=None
        Marks the rows that are auxiliary outliers: they are in every training fold and in no test fold.
    random_state : int, RandomState instance or None, default=None
        Seeds the shuffling.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers in y, or several.

    Notes
    -----
    In a training fold without outliers, y is 1 everywhere or holds classes. A detector without classes warns of the
    latter (`skood.LabelWarning`): some of them could be outliers that are not marked. Give it
    ``np.where(y == -1, -1, 1)`` in place of y.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.model_selection import OutlierKFold
    >>> y = np.array([1, 1, 1, 1, -1, -1])
    >>> for train, test in OutlierKFold(n_splits=2, random_state=0).split(y, y):
    ...     print(y[train], y[test])
    [1 1] [ 1  1 -1]
    [1 1] [ 1  1 -1]
    """

    def __init__(self, n_splits=5, *, contamination=0.0, auxiliary=None, random_state=None, outlier_label=-1):
        self.n_splits = n_splits
        self.contamination = contamination
        self.auxiliary = auxiliary
        self.random_state = random_state
        self.outlier_label = outlier_label

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : ignored

        Returns
        -------
        n_splits : int
        """
        return self.n_splits

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the indices to train and to test on, fold by fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
            ``outlier_label`` for outliers, any other label for inliers.
        groups : ignored

        Yields
        ------
        train, test : ndarray of int
            Sorted indices.

        Raises
        ------
        ValueError
            If there are fewer inliers or evaluation outliers than folds, y marks no row, ``auxiliary`` does not fit y,
            or ``contamination`` takes more outliers than there are.
        """
        X, y = indexable(X, y)
        outlier, auxiliary = _kinds(y, self.auxiliary, self.outlier_label)
        marked = f"y == {named_markers(self.outlier_label)}"
        if not (isinstance(self.contamination, Real) and 0 <= float(self.contamination) <= 0.5):
            raise ValueError(f"contamination={self.contamination!r} must be a number in [0, 0.5].")
        if self.contamination and auxiliary.any():
            raise ValueError(
                f"contamination and auxiliary cannot go together: both kinds of row carry {marked} in a training fold, "
                f"and a detector could not tell them apart. Give one of the two."
            )
        contamination = float(self.contamination)
        rng = check_random_state(self.random_state)
        inliers, outliers = np.flatnonzero(~outlier), np.flatnonzero(outlier & ~auxiliary)
        for rows, kind in ((inliers, "inliers"), (outliers, f"evaluation outliers ({marked})")):
            if len(rows) < self.n_splits:
                raise ValueError(f"n_splits={self.n_splits} folds need at least as many {kind}; there are {len(rows)}.")
        folds = KFold(self.n_splits, shuffle=True, random_state=rng)
        pairs = zip(list(folds.split(inliers)), list(folds.split(outliers)), strict=True)
        for (inlier_train, inlier_test), (outlier_train, outlier_test) in pairs:
            train = [inliers[inlier_train], np.flatnonzero(auxiliary)]
            # k outliers beside n inliers are a share of k / (n + k).
            n_bad = round(contamination * len(inlier_train) / (1 - contamination))
            if n_bad > len(outlier_train):
                raise ValueError(
                    f"contamination={self.contamination} of {len(inlier_train)} training inliers takes {n_bad} "
                    f"outliers; the other folds have {len(outlier_train)}. Give a smaller contamination."
                )
            train.append(rng.permutation(outliers[outlier_train])[:n_bad])
            test = np.concatenate([inliers[inlier_test], outliers[outlier_test]])
            yield np.sort(np.concatenate(train)), np.sort(test)

    def __repr__(self) -> str:
        mask = "None" if self.auxiliary is None else f"<{np.count_nonzero(self.auxiliary)} rows>"
        return (
            f"OutlierKFold(n_splits={self.n_splits}, contamination={self.contamination}, auxiliary={mask}, "
            f"random_state={self.random_state}, outlier_label={self.outlier_label!r})"
        )


class _ClassProtocol(BaseCrossValidator):
    """Make one task for each class, with its own target and its own splits.

    A subclass says with `target` which rows of a task are outliers, and with `_trains` which are in distribution.
    """

    def __init__(self, *, classes=None, n_repeats=1, test_size=0.5, test=None, random_state=None, outlier_label=-1):
        self.classes = classes
        self.n_repeats = n_repeats
        self.test_size = test_size
        self.test = test
        self.random_state = random_state
        self.outlier_label = outlier_label

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds: classes times repeats.

        Parameters
        ----------
        X : ignored
        y : array-like of shape (n_samples,)
            Class labels; not needed where ``classes`` is given.
        groups : ignored

        Returns
        -------
        n_splits : int

        Raises
        ------
        ValueError
            If neither y nor ``classes`` is given.
        """
        if self.classes is not None:
            return len(self.classes) * self.n_repeats
        if y is None:
            raise ValueError("the number of folds depends on the number of classes: pass y, or set classes.")
        y = check_labels(y)
        return len(_classes(y, marks_outlier(y, self.outlier_label))) * self.n_repeats

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the indices to train and to test on, the repeats of a class one after the other.

        The folds of a class belong to that class's `target`; `tasks` yields both together.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
            Class labels; ``outlier_label`` for auxiliary outliers.
        groups : ignored

        Yields
        ------
        train, test : ndarray of int
            Sorted indices.
        """
        for _, _, folds in self.tasks(X, y):
            yield from folds

    def tasks(self, X: Any, y: Any) -> Iterator[tuple[object, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]]:
        """Yield one task for each class: the class, its target, and the folds to use with that target.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
            Class labels; ``outlier_label`` for auxiliary outliers, which are in every training fold and in no test
            fold.

        Yields
        ------
        label : object
            The class.
        target : ndarray of shape (n_samples,)
            Labels of the task, from `target`: y == -1 for outliers.
        folds : list of (train, test)
            ``n_repeats`` pairs of sorted indices, for ``cv=``.

        Raises
        ------
        ValueError
            If there are fewer than two classes, a class is unknown or too small to be split, or ``test`` does not fit.
        """
        X, y = indexable(X, y)
        y = check_labels(y)
        auxiliary = marks_outlier(y, self.outlier_label)
        found = _classes(y, auxiliary)
        if len(found) < 2:
            raise ValueError(f"y holds {len(found)} class; at least 2 are needed to leave one out.")
        chosen = found if self.classes is None else list(self.classes)
        unknown = [label for label in chosen if label not in found]
        if unknown:
            raise ValueError(f"classes={self.classes!r}: no row is labelled {unknown[0]!r}.")
        splits = [self._test_rows(y, ~auxiliary, seed) for seed in self._seeds()]
        for label in chosen:
            known = self._trains(y, label) & ~auxiliary
            folds = []
            for test in splits:
                train = (known & ~test) | auxiliary
                if not (known & ~test).any() or not (known & test).any():
                    raise ValueError(f"class {label!r}: no in-distribution row is left to train or to test on.")
                if not (test & ~known).any():
                    raise ValueError(f"class {label!r}: there are no outliers among the test rows.")
                folds.append((np.flatnonzero(train), np.flatnonzero(test)))
            yield label, self.target(y, label), folds

    def target(self, y: ArrayLike, label: object) -> np.ndarray:
        """Return the labels of the task of a class."""
        raise NotImplementedError

    def _trains(self, y: np.ndarray, label: object) -> np.ndarray:
        """Return the mask of the rows that are in distribution in the task of a class."""
        raise NotImplementedError

    def _seeds(self) -> np.ndarray:
        """Return a seed for each repeat; the classes share them, so that their tasks have the same test rows."""
        rng = check_random_state(self.random_state)
        return rng.randint(np.iinfo(np.int32).max, size=self.n_repeats)

    def _test_rows(self, y: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        """Return the mask of the test part: the one that was given, or a random one, stratified by class."""
        if self.test is not None:
            test = np.asarray(self.test)
            if test.shape != y.shape or test.dtype != bool:
                raise ValueError(f"test must be a mask of {len(y)} booleans; got shape {test.shape} of {test.dtype}.")
            if (test & ~rows).any():
                row = np.flatnonzero(test & ~rows)[0]
                raise ValueError(f"test marks row {row}, an auxiliary outlier; these are never tested on.")
            return test
        index = np.flatnonzero(rows)
        splitter = StratifiedShuffleSplit(1, test_size=self.test_size, random_state=seed)
        _, chosen = next(splitter.split(index, np.unique(y[index].astype(str), return_inverse=True)[1]))
        test = np.zeros(len(y), dtype=bool)
        test[index[chosen]] = True
        return test


class HoldOutClass(_ClassProtocol):
    """Hold out each class in turn as the anomaly; the others are in distribution.

    A detector is trained on the training part of the other classes and tested on the whole test part (Ahmed & Courville
    [1]_; hold-one-out of Deecke et al. [2]_). Each class needs a target of its own, which `cross_validate` cannot make:
    loop over `tasks`.

    Parameters
    ----------
    classes : sequence or None, default=None
        Classes to hold out in turn; None takes all.
    n_repeats : int, default=1
        Number of trials for each class, each with another random split, or with the same one if ``test`` is given.
    test_size : float or int, default=0.5
        Share or number of rows to test on, stratified by class.
    test : array-like of bool of shape (n_samples,) or None, default=None
        Marks the rows of a predefined test part, which replaces the random one.
    random_state : int, RandomState instance or None, default=None
        Seeds the splits.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks auxiliary outliers in y, or several. Targets mark all outliers by -1.

    References
    ----------
    .. [1] Ahmed and Courville, "Detecting Semantic Anomalies", AAAI 2020.
    .. [2] Deecke, Ruff, Vandermeulen and Bilen, "Deep Anomaly Detection by Residual Adaptation", 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.ensemble import IsolationForest
    >>> from sklearn.model_selection import cross_validate
    >>> from skood.metrics import get_scorer
    >>> from skood.model_selection import HoldOutClass
    >>> X, y = load_wine(return_X_y=True)
    >>> for label, target, folds in HoldOutClass(random_state=0).tasks(X, y):
    ...     forest = IsolationForest(random_state=0)
    ...     result = cross_validate(forest, X, target, cv=folds, scoring=get_scorer("auroc"))
    ...     print(label, result["test_score"].round(1))
    0 [0.9]
    1 [0.9]
    2 [1.]
    """

    def target(self, y: ArrayLike, label: object) -> np.ndarray:
        """Return the labels of the task in which ``label`` is the anomaly.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
        label : object
            The class held out.

        Returns
        -------
        target : ndarray of shape (n_samples,)
            y with -1 for the rows of that class and for auxiliary outliers; an array of objects where y is text.
        """
        labels = np.asarray(y)
        marked = marks_outlier(labels, self.outlier_label)
        if marks_outlier(labels[~marked]).any():
            raise ValueError(
                f"a class is labelled -1, but targets mark outliers by -1: {say_labels(labels)}. Rename the class."
            )
        # An array of text would turn -1 into "-1", and unsigned numbers cannot hold it.
        dtype = np.result_type(labels, np.int64) if labels.dtype.kind in "biuf" else np.dtype(object)
        target = labels.astype(dtype)
        target[(labels == label) | marked] = -1
        return target

    def _trains(self, y: np.ndarray, label: object) -> np.ndarray:
        return y != label


class OneVersusRest(_ClassProtocol):
    """Take each class in turn as normal; all others are anomalies.

    A detector is trained on the training part of the class and tested on the whole test part (one-versus-rest of Deecke
    et al. [1]_). Each class needs a target of its own, which `cross_validate` cannot make: loop over `tasks`.

    Parameters
    ----------
    classes : sequence or None, default=None
        Classes to be normal in turn; None takes all.
    n_repeats : int, default=1
        Number of trials for each class, each with another random split, or with the same one if ``test`` is given.
    test_size : float or int, default=0.5
        Share or number of rows to test on, stratified by class.
    test : array-like of bool of shape (n_samples,) or None, default=None
        Marks the rows of a predefined test part, which replaces the random one.
    random_state : int, RandomState instance or None, default=None
        Seeds the splits.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks auxiliary outliers in y, or several. Targets mark all outliers by -1.

    References
    ----------
    .. [1] Deecke, Ruff, Vandermeulen and Bilen, "Deep Anomaly Detection by Residual Adaptation", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.model_selection import OneVersusRest
    >>> y = np.array(["cat", "cat", "dog", "dog"])
    >>> for label, target, [(train, test)] in OneVersusRest(test=[False, True, False, True]).tasks(y, y):
    ...     print(label, target, train, test)
    cat [ 1  1 -1 -1] [0] [1 3]
    dog [-1 -1  1  1] [2] [1 3]
    """

    def target(self, y: ArrayLike, label: object) -> np.ndarray:
        """Return the labels of the task in which ``label`` is normal.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
        label : object
            The normal class.

        Returns
        -------
        target : ndarray of int of shape (n_samples,)
            +1 for the rows of that class, -1 for all others.
        """
        return np.where(np.asarray(y) == label, 1, -1)

    def _trains(self, y: np.ndarray, label: object) -> np.ndarray:
        return y == label


def _kinds(y: Any, auxiliary: Any, outlier_label: Marker) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of the outliers and, among them, of the auxiliary ones; refuse labels that mark none."""
    y = check_labels(y)
    outlier = marks_outlier(y, outlier_label)
    check_marked(y, outlier, outlier_label, otherwise="Folds need outliers to test on.", refuse=True)
    if auxiliary is None:
        return outlier, np.zeros(len(y), dtype=bool)
    auxiliary = np.asarray(auxiliary)
    if auxiliary.shape != y.shape or auxiliary.dtype != bool:
        raise ValueError(
            f"auxiliary must be a mask of {len(y)} booleans; got shape {auxiliary.shape} of {auxiliary.dtype}."
        )
    if (auxiliary & ~outlier).any():
        row = np.flatnonzero(auxiliary & ~outlier)[0]
        raise ValueError(
            f"auxiliary marks row {row}, but y there is {y[row]}; auxiliary outliers have "
            f"y == {named_markers(outlier_label)}."
        )
    return outlier, auxiliary


def _classes(y: np.ndarray, auxiliary: np.ndarray) -> list:
    """Return the class labels of y in order, without those of auxiliary outliers; numbers come before text."""
    return sorted(set(y[~auxiliary].tolist()), key=lambda label: (isinstance(label, str), label))
