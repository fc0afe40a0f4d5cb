"""Turn a detector with classes into a scikit-learn classifier that may reject a row."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, Self

import numpy as np
from scipy.special import expit
from sklearn.base import ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import Tags, column_or_1d, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .estimator.labels import check_labels, labels_untold, list_markers, refuse_respelled
from .estimator.routing import NoRoutingMixin
from .estimator.tools import needs_known_labels
from .estimator.validation import refuse_fit_params
from .estimator.versioned import VersionedEstimator
from .estimator.wrapper import explained_by, explains, inner_attribute, predict_classes, predicts_classes

__all__ = ["OpenSetClassifier"]


def _detector_has(name: str) -> Callable[[Any], bool]:
    """Return a function for `available_if` that checks whether the wrapped detector has a method."""

    def check(self: Any) -> bool:
        # `available_if` takes an AttributeError for "no" and chains it, so that the user reads the detector's message.
        getattr(getattr(self, "detector_", self.detector), name)
        return True

    return check


def _detector_explains(classifier: Any) -> bool:
    return explains(getattr(classifier, "detector_", classifier.detector))


class OpenSetClassifier(ClassifierMixin, MetaEstimatorMixin, NoRoutingMixin, VersionedEstimator):
    """Classify rows or reject them: a classifier around a detector with classes.

    A detector's own `predict` tells inliers from outliers, +1 and -1, and its `predict_class` tells the classes apart.
    Here `predict` does both: it returns the class of a row that the detector takes for an inlier, and ``reject_label``
    for any other row. The ``reject_label`` is one of ``classes_`` and has a column of `predict_proba`, like any class
    of a scikit-learn classifier.

    Parameters
    ----------
    detector : detector
        A detector with classes, such as `RejectClassDetector`, or a Pipeline that ends in one. `fit` fits a clone of
        it. A detector that is fitted already stays as it is if wrapped in ``sklearn.frozen.FrozenEstimator``.
    reject_label : int, float, str or None, default=None
        Label that `predict` returns for rejected rows. With None it is the detector's ``outlier_label``, the label that
        marks outliers in y; if there are several, choose one. If the classes are text, choose a text; otherwise
        `predict` returns an array of objects.
    reject : bool, default=True
        Whether rows are rejected at all. With False `predict` returns a class for every row, and ``classes_`` and
        `predict_proba` leave the ``reject_label`` out. A change of this parameter takes effect at once, without
        refitting.

    Attributes
    ----------
    detector_ : detector
        The fitted clone.
    classes_ : ndarray of shape (n_classes,)
        The labels that `predict` returns, sorted, numbers before text: the in-distribution classes and, unless
        ``reject`` is False, ``reject_label_``.
    known_classes_ : ndarray of shape (n_known_classes,)
        The in-distribution classes.
    reject_label_ : int, float or str
        The label of rejected rows.
    score_spread_ : float
        The interquartile range of the detector's scores of in-distribution rows at fit.
    n_features_in_ : int
        Number of features that the detector was fitted on.
    feature_names_in_ : ndarray of str
        Names of the features, if the detector was fitted on a DataFrame.

    Notes
    -----
    The probability r of the ``reject_label`` has the odds r / (1 - r) = m exp(-d / s). m is the largest probability of
    a class given that the row is in distribution, d the detector's ``decision_function`` and s ``score_spread_``. So r
    falls as the score rises, and the label with the largest probability is what `predict` returns (unless the detector
    is an `OODScorer` of a classifier with a threshold between its two classes, which then decides). It is not
    calibrated; ``CalibratedClassifierCV`` around this classifier calibrates it, if y marks outliers.

    Some tools of scikit-learn assume that a classifier predicts the labels of y and no others:
    ``CalibratedClassifierCV``, ``VotingClassifier``, ``StackingClassifier``, ``BaggingClassifier``,
    ``TunedThresholdClassifierCV``, and ``cross_val_predict`` with a ``method``. For them, mark outliers in y by the
    ``reject_label``, or set ``reject=False``; otherwise `fit` raises an error. Most of them replace each label by its
    index among the sorted labels of y before they fit, so the detector's ``outlier_label`` must be the index of the
    label that marks outliers: 0, if that is -1 and the others are positive. (With one known class and marked outliers,
    ``TunedThresholdClassifierCV`` tunes when to reject.)

    Splitters that stratify sort the labels, and numbers cannot be sorted among text: if the classes are text, give the
    detector an ``outlier_label`` of text.

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
    >>> classifier = OpenSetClassifier(RejectClassDetector(max_epochs=10, random_state=0), reject_label="unknown")
    >>> classifier.fit(X, y).predict([[0.0, 0.0], [6.0, 0.0], [3.0, 9.0]])
    array(['left', 'right', 'unknown'], dtype='<U7')
    >>> classifier.classes_
    array(['left', 'right', 'unknown'], dtype='<U7')
    >>> classifier.predict_proba([[0.0, 0.0], [3.0, 9.0]]).argmax(axis=1)
    array([0, 2])
    """

    _wrapped_param = "detector"
    known_classes_: np.ndarray
    reject_label_: Any
    score_spread_: float

    def __init__(self, detector, *, reject_label=None, reject=True):
        self.detector = detector
        self.reject_label = reject_label
        self.reject = reject

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit the detector.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows to train on, in the form that the detector takes.
        y : array-like of shape (n_samples,)
            The class of each row. Rows with the detector's ``outlier_label`` are auxiliary outliers.
        **fit_params : dict
            Some tools pass ``sample_weight=None``: None is ignored, any other value is refused.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the detector has no classes, if y is None or holds none of the classes, if ``reject_label`` is one of the
            classes or neither a number nor a text, or if ``reject`` is not a bool; or if y has no rows with the
            ``reject_label``, and a tool of scikit-learn that needs them fits this classifier.
        """
        refuse_fit_params(self, fit_params)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: give the class of each row."
            )
        if getattr(y, "ndim", 1) == 2:
            # scikit-learn's classifiers warn of a y of shape (n_samples, 1), and its checks demand the warning.
            y = column_or_1d(y, warn=True)
        if not isinstance(self.reject, (bool, np.bool_)):
            raise ValueError(f"reject={self.reject!r} must be True or False.")
        label = self._find_reject_label()
        self._refuse_within_tools(y, label)
        with labels_untold():
            detector = clone(self.detector).fit(X, y)
        if not predicts_classes(detector):
            raise ValueError(
                f"detector={type(self.detector).__name__} has no classes; OpenSetClassifier needs a detector with "
                f"predict_class, such as RejectClassDetector."
            )
        classes = inner_attribute(detector, "classes_")
        # This happens where the detector is frozen, and so was not fitted on this y.
        if not np.isin(check_labels(y).astype(object), classes.astype(object)).any():
            raise ValueError(f"y holds none of the classes that the detector was fitted on: {classes}.")
        if label in classes.tolist():
            raise ValueError(f"reject_label={label!r} is one of the classes; choose a label that is not.")
        scores = inner_attribute(detector, "training_scores_")
        if scores is None:
            scores = detector.score_samples(X)[np.isin(check_labels(y).astype(object), classes.astype(object))]
        low, high = np.quantile(scores, [0.25, 0.75])
        self.detector_, self.known_classes_, self.reject_label_ = detector, classes, label
        self.score_spread_ = float(high - low) or 1.0
        return self

    def _find_reject_label(self) -> Any:
        """Return the label of rejected rows."""
        label = self.reject_label
        if label is None:
            label, *others = list_markers(inner_attribute(self.detector, "outlier_label", -1))
            if others:
                raise ValueError("outlier_label names several labels: set reject_label, the label of rejected rows.")
        # NaN, the one label that differs from itself, could not be compared with the answers.
        if not isinstance(label, (Real, str)) or label != label:
            raise ValueError(f"reject_label={label!r} must be a number or a text.")
        return label

    def _refuse_within_tools(self, y: Any, label: Any) -> None:
        """Raise an error if this classifier is fitted by a tool that cannot cope with the reject label."""
        if not self.reject or label in check_labels(y).tolist():
            return
        tool = needs_known_labels()
        if tool is not None:
            raise ValueError(
                f"{tool} needs a classifier that predicts the labels of y only, and reject_label={label!r} is none "
                f"of them. Mark outliers in y by it, or set reject=False. Many tools first replace each label by "
                f"its index among the sorted labels of y; then outlier_label must be an index, too, such as 0."
            )

    @property
    def classes_(self) -> np.ndarray:
        """Return the labels that `predict` returns; see Attributes."""
        classes = self.known_classes_
        if not self.reject:
            return classes
        labels = sorted([*classes.tolist(), self.reject_label_], key=lambda label: (isinstance(label, str), label))
        return np.array(labels, dtype=self._label_type)

    @property
    def _label_type(self) -> Any:
        """Return a dtype that holds the classes and the reject label, so that a long text is not cut off."""
        classes = self.known_classes_
        # numpy would turn numbers into text, and False into 0, to put them into one array.
        if classes.dtype.kind in "bO" or isinstance(self.reject_label_, str) != (classes.dtype.kind == "U"):
            return object
        return np.result_type(classes.dtype, np.array(self.reject_label_).dtype)

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
        if hasattr(self.detector_, "_class_and_decision"):
            # Both from one pass of the network.
            labels, decision = self.detector_._class_and_decision(X)
            rejected = decision < 0
        else:
            labels, rejected = predict_classes(self.detector_, X), self.detector_.predict(X) == -1
        labels = labels.astype(self._label_type)
        labels[rejected] = self.reject_label_
        return labels

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

        Raises
        ------
        ValueError
            If y holds as text a class that is a number, or the other way round; or the lengths differ.
        """
        y = check_labels(y)
        known = set(self.known_classes_.tolist())
        refuse_respelled(y.tolist(), self.known_classes_.tolist(), ("y", "known_classes_"))
        predicted = self.predict(X).tolist()
        check_consistent_length(predicted, y, sample_weight)
        # Compared as Python objects: numpy would turn a mix of numbers and text into text first.
        truth = [label if label in known else self.reject_label_ for label in y.tolist()]
        right = [answer == label for answer, label in zip(predicted, truth, strict=True)]
        return float(np.average(right, weights=sample_weight))

    @available_if(_detector_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class and of the ``reject_label``; see Notes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind that the detector was fitted on.

        Returns
        -------
        probability : ndarray of float64 of shape (n_samples, n_classes)
            In the order of ``classes_``; rows sum to 1. With ``reject=False`` the probabilities of the classes, given
            that the row is in distribution.
        """
        check_is_fitted(self)
        if not self.reject:
            return self.detector_.predict_proba(X)
        if hasattr(self.detector_, "_proba_and_decision"):
            known, decision = self.detector_._proba_and_decision(X)
        else:
            known, decision = self.detector_.predict_proba(X), self.detector_.decision_function(X)
        log_odds = np.log(known.max(axis=1)) - decision / self.score_spread_
        place = self.classes_.tolist().index(self.reject_label_)
        return np.insert(expit(-log_odds)[:, None] * known, place, expit(log_odds), axis=1)

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

    @available_if(_detector_explains)
    def explain(self, X: Any, *, reference: Any = None) -> Any:
        """Return what each feature adds to a row's score; see `skood.RejectClassDetector.explain`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind that the detector was fitted on.
        reference : array-like or None, default=None
            Normal rows to compare with; None takes those that the detector keeps.

        Returns
        -------
        contributions : ndarray of float64 of shape (n_samples, n_features) or (n_samples, H, W), or DataFrame
            The most negative contribution is that of the feature that is furthest off.
        """
        check_is_fitted(self)
        return explained_by(self.detector_, X, reference)

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
        """Return scikit-learn's tags; those of the input are the detector's."""
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.detector).input_tags
        return tags
