"""A detector with classes, seen as a scikit-learn classifier that may reject."""

from __future__ import annotations

from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import column_or_1d, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .estimator.labels import check_labels
from .estimator.wrapper import inner_attribute, predict_classes, predicts_classes

__all__ = ["OpenSetClassifier"]


def _detector_has(name):
    def check(self):
        getattr(getattr(self, "detector_", self.detector), name)
        return True

    return check


class OpenSetClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier that answers "none of these": a detector with classes, as scikit-learn sees classifiers.

    A detector's own `predict` tells inliers from outliers, +1 and -1; its class is `predict_class`. Here `predict` is
    both: the class of a row that the detector takes for an inlier, ``reject_label`` for any other.

    Parameters
    ----------
    detector : detector
        With classes, as `RejectClassDetector`; or a Pipeline that ends in one. `fit` fits a clone of it. One that is
        fitted already stays as it is if wrapped in ``sklearn.frozen.FrozenEstimator``.

    reject_label : int, float, str or None, default=None
        What `predict` answers for rows that are rejected. None is the detector's ``outlier_label``, the label that
        marks outliers in y. With classes of text choose a text, or `predict` gives an array of objects.

    reject : bool, default=True
        False answers with a class for every row, for comparison. It holds as soon as it is set, without refitting.

    Notes
    -----
    What encodes y before it fits a classifier (``cross_val_predict`` with a ``method``, `BaggingClassifier`) turns the
    marker of outliers into one more class; mark none there. Splitters that stratify sort the labels: with classes of
    text, give the detector an ``outlier_label`` of text.

    Attributes
    ----------
    detector_ : detector
        The fitted clone.
    classes_ : ndarray of shape (n_classes,)
        The in-distribution classes; ``reject_label`` is none of them.
    reject_label_ : int, float or str
        The label of rejected rows.
    n_features_in_ : int
        As the detector has it.
    feature_names_in_ : ndarray of str
        As the detector has it.

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

    def fit(self, X, y):
        """Fit the detector.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
        y : array-like of shape (n_samples,)
            The class of each row. Rows with the detector's ``outlier_label`` are auxiliary outliers.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the detector has no classes, y is None or holds none of them, ``reject_label`` is one of the classes or
            neither number nor text, or ``reject`` is not a bool.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: give the class of each row."
            )
        if getattr(y, "ndim", 1) == 2:
            # scikit-learn's classifiers warn of a column where a row is meant.
            y = column_or_1d(y, warn=True)
        detector = clone(self.detector).fit(X, y)
        if not predicts_classes(detector):
            raise ValueError(
                f"detector={type(self.detector).__name__} has no classes; OpenSetClassifier needs a detector with "
                f"predict_class, as RejectClassDetector."
            )
        if not isinstance(self.reject, (bool, np.bool_)):
            raise ValueError(f"reject={self.reject!r} must be True or False.")
        label = inner_attribute(detector, "outlier_label", -1) if self.reject_label is None else self.reject_label
        if not isinstance(label, (Real, str)) or label != label:
            raise ValueError(f"reject_label={label!r} must be a number or a text.")
        classes = inner_attribute(detector, "classes_")
        if not np.isin(check_labels(y).astype(object), classes.astype(object)).any():
            raise ValueError(f"y holds none of the classes that the detector was fitted on: {classes}.")
        if label in classes.tolist():
            raise ValueError(f"reject_label={label!r} is one of the classes; choose a label that is not.")
        self.detector_, self.classes_, self.reject_label_ = detector, classes, label
        return self

    def predict(self, X):
        """The class of each row, or ``reject_label_``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Of numbers or of text; of objects where classes are the one and ``reject_label_`` is the other, or where
            classes are True and False.
        """
        check_is_fitted(self)
        labels = predict_classes(self.detector_, X)
        if not self.reject:
            return labels
        rejected = self.detector_.predict(X) == -1
        if labels.dtype.kind == "b" or isinstance(self.reject_label_, str) != (labels.dtype.kind == "U"):
            labels = labels.astype(object)
        return np.where(rejected, np.array(self.reject_label_, dtype=_common(labels, self.reject_label_)), labels)

    def score(self, X, y, sample_weight=None):
        """Open-set accuracy: the share of rows that get their own class or, being of none, are rejected.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
        y : array-like of shape (n_samples,)
            Labels that are no class of the fit, the detector's ``outlier_label`` among them, stand for unknown rows:
            right is to reject them.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        accuracy : float
        """
        y = check_labels(y)
        known = set(self.classes_.tolist())
        predicted = self.predict(X).tolist()
        check_consistent_length(predicted, y, sample_weight)
        truth = [label if label in known else self.reject_label_ for label in y.tolist()]
        right = [answer == label for answer, label in zip(predicted, truth, strict=True)]
        return float(np.average(right, weights=sample_weight))

    @available_if(_detector_has("predict_proba"))
    def predict_proba(self, X):
        """Probability of each class, given that the row is in distribution.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)

        Returns
        -------
        probability : ndarray of float64 of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        check_is_fitted(self)
        return self.detector_.predict_proba(X)

    def score_samples(self, X):
        """The detector's score of each row; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
        """
        check_is_fitted(self)
        return self.detector_.score_samples(X)

    @property
    def n_features_in_(self):
        return self.detector_.n_features_in_

    @property
    def feature_names_in_(self):
        return self.detector_.feature_names_in_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "detector_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.detector).input_tags
        return tags


def _common(labels: np.ndarray, label):
    """A dtype that holds both."""
    return object if labels.dtype == object else np.result_type(labels.dtype, np.array(label).dtype)
