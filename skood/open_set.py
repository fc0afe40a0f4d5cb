"""Turn a detector with classes into a scikit-learn classifier that may reject a row."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import Tags, column_or_1d, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .estimator.labels import check_labels, labels_are_classes, list_markers
from .estimator.wrapper import inner_attribute, predict_classes, predicts_classes

__all__ = ["OpenSetClassifier"]


def _detector_has(name: str) -> Callable[[Any], bool]:
    """Return a function for `available_if` that checks whether the wrapped detector has a method."""

    def check(self: Any) -> bool:
        # `available_if` takes an AttributeError for "no" and chains it, so that the user reads the detector's message.
        getattr(getattr(self, "detector_", self.detector), name)
        return True

    return check


class OpenSetClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Classify rows or reject them: a classifier around a detector with classes.

    A detector's own `predict` tells inliers from outliers, +1 and -1, and its `predict_class` tells the classes apart.
    Here `predict` does both: it returns the class of a row that the detector takes for an inlier, and ``reject_label``
    for any other row.

    Parameters
    ----------
    detector : detector
        A detector with classes, as `RejectClassDetector`, or a Pipeline that ends in one. `fit` fits a clone of it. A
        detector that is fitted already stays as it is if wrapped in ``sklearn.frozen.FrozenEstimator``.
    reject_label : int, float, str or None, default=None
        Label that `predict` returns for rejected rows. With None it is the detector's ``outlier_label``, the label that
        marks outliers in y; if there are several, choose one. If the classes are text, choose a text; otherwise
        `predict` returns an array of objects.
    reject : bool, default=True
        Whether rows are rejected at all. With False `predict` returns a class for every row, for comparison. A change
        of this parameter takes effect at once, without refitting.

    Notes
    -----
    ``cross_val_predict`` with a ``method``, and `BaggingClassifier`, encode y before they fit a classifier, which turns
    the ``outlier_label`` into one more class: do not mark outliers there. Splitters that stratify sort the labels, and
    numbers cannot be sorted among text: if the classes are text, give the detector an ``outlier_label`` of text.

    Attributes
    ----------
    detector_ : detector
        The fitted clone.
    classes_ : ndarray of shape (n_classes,)
        The in-distribution classes, without the ``reject_label``.
    reject_label_ : int, float or str
        The label of rejected rows.
    n_features_in_ : int
        Number of features that the detector was fitted on.
    feature_names_in_ : ndarray of str
        Names of the features, if the detector was fitted on a DataFrame.

    See Also
    --------
    skood.metrics.risk_coverage_curve : Errors among the rows that are answered.

    Examples
    --------
    >>> import numpy as np
    >>> from skood import OpenSetClassifier, RejectClassDetector
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2)) + np.repeat([[0, 0], [6, 0]], 100, axis=0)
    >>> y = np.repeat(["left", "right"], 100)
    >>> classifier = OpenSetClassifier(RejectClassDetector(max_epochs=20, random_state=0), reject_label="unknown")
    >>> classifier.fit(X, y).predict([[0.0, 0.0], [6.0, 0.0], [3.0, 9.0]])
    array(['left', 'right', 'unknown'], dtype='<U7')
    """

    def __init__(self, detector, *, reject_label=None, reject=True):
        self.detector = detector
        self.reject_label = reject_label
        self.reject = reject

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the detector.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows to train on, in the form that the detector takes.
        y : array-like of shape (n_samples,)
            The class of each row. Rows with the detector's ``outlier_label`` are auxiliary outliers.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the detector has no classes, if y is None or holds none of the classes, if ``reject_label`` is one of the
            classes or neither a number nor a text, or if ``reject`` is not a bool.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: give the class of each row."
            )
        if getattr(y, "ndim", 1) == 2:
            # scikit-learn's classifiers warn of a y of shape (n_samples, 1), and its checks demand the warning.
            y = column_or_1d(y, warn=True)
        with labels_are_classes():
            detector = clone(self.detector).fit(X, y)
        if not predicts_classes(detector):
            raise ValueError(
                f"detector={type(self.detector).__name__} has no classes; OpenSetClassifier needs a detector with "
                f"predict_class, as RejectClassDetector."
            )
        if not isinstance(self.reject, (bool, np.bool_)):
            raise ValueError(f"reject={self.reject!r} must be True or False.")
        label = self.reject_label
        if label is None:
            label, *others = list_markers(inner_attribute(detector, "outlier_label", -1))
            if others:
                raise ValueError("outlier_label names several labels: choose reject_label, that of rejected rows.")
        # NaN, the one label that differs from itself, could not be compared with the answers.
        if not isinstance(label, (Real, str)) or label != label:
            raise ValueError(f"reject_label={label!r} must be a number or a text.")
        classes = inner_attribute(detector, "classes_")
        # This happens where the detector is frozen, and so was not fitted on this y.
        if not np.isin(check_labels(y).astype(object), classes.astype(object)).any():
            raise ValueError(f"y holds none of the classes that the detector was fitted on: {classes}.")
        if label in classes.tolist():
            raise ValueError(f"reject_label={label!r} is one of the classes; choose a label that is not.")
        self.detector_, self.classes_, self.reject_label_ = detector, classes, label
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each row, or ``reject_label_`` for rows that the detector takes for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind that the detector was fitted on.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Numbers or text. An array of objects if the classes are numbers and ``reject_label_`` is a text, or the
            other way around, or if the classes are True and False.
        """
        check_is_fitted(self)
        if not self.reject:
            return predict_classes(self.detector_, X)
        if hasattr(self.detector_, "_classes_and_labels"):
            # Both from one pass of the network.
            labels, decided = self.detector_._classes_and_labels(X)
        else:
            labels, decided = predict_classes(self.detector_, X), self.detector_.predict(X)
        rejected = decided == -1
        # numpy would turn numbers into text, and False into 0, to put them into one array.
        if labels.dtype.kind == "b" or isinstance(self.reject_label_, str) != (labels.dtype.kind == "U"):
            labels = labels.astype(object)
        return np.where(rejected, np.array(self.reject_label_, dtype=_common(labels, self.reject_label_)), labels)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the open-set accuracy: the share of known rows given their class, and of unknown rows rejected.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind that the detector was fitted on.
        y : array-like of shape (n_samples,)
            The true class of each row. Any label that was no class in `fit`, such as the detector's ``outlier_label``,
            stands for an unknown row, which should be rejected.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. With None all rows count the same.

        Returns
        -------
        accuracy : float
            Weighted share of right answers, in [0, 1].
        """
        y = check_labels(y)
        known = set(self.classes_.tolist())
        predicted = self.predict(X).tolist()
        check_consistent_length(predicted, y, sample_weight)
        # Compared as Python objects: numpy would turn a mix of numbers and text into text first.
        truth = [label if label in known else self.reject_label_ for label in y.tolist()]
        right = [answer == label for answer, label in zip(predicted, truth, strict=True)]
        return float(np.average(right, weights=sample_weight))

    @available_if(_detector_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, given that the row is in distribution.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind that the detector was fitted on.

        Returns
        -------
        probability : ndarray of float64 of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        check_is_fitted(self)
        return self.detector_.predict_proba(X)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the detector's score of each row; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind that the detector was fitted on.

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
        """
        check_is_fitted(self)
        return self.detector_.score_samples(X)

    @property
    def n_features_in_(self) -> int:
        """Return the number of features; see Attributes."""
        return self.detector_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Return the names of the features; see Attributes."""
        return self.detector_.feature_names_in_

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether `fit` has succeeded, for scikit-learn's `check_is_fitted`."""
        return hasattr(self, "detector_")

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags: what rows may be is what the detector takes."""
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.detector).input_tags
        return tags


def _common(labels: np.ndarray, label: Any) -> Any:
    """Return a dtype that holds the labels and one more label, so that a long text is not cut off."""
    return object if labels.dtype == object else np.result_type(labels.dtype, np.array(label).dtype)
