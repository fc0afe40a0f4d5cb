"""What estimators around another detector share; works for any detector, and loads no torch."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OutlierMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, get_tags, indexable
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _num_samples, check_is_fitted

from .labels import check_labels, marks_outlier


def _inner_predicts_classes(wrapper) -> bool:
    return predicts_classes(getattr(wrapper, "estimator_", wrapper.estimator))


def inner_attribute(estimator, name: str, default=None):
    """An attribute of an estimator, or of the detector within its Pipeline, search or wrapper.

    Parameters
    ----------
    estimator : estimator
    name : str
    default : object, default=None
        What to return if none has it.

    Returns
    -------
    value : object
    """
    while estimator is not None:
        if hasattr(estimator, name):
            return getattr(estimator, name)
        if hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        else:
            inner = ("best_estimator_", "estimator_", "estimator")
            estimator = next((getattr(estimator, n) for n in inner if hasattr(estimator, n)), None)
    return default


class OffsetMixin:
    """What follows from scores, higher = more normal, and a threshold ``offset_``."""

    def decision_function(self, X):
        """``score_samples(X) - offset_``: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        decision : ndarray of float64 of shape (n_samples,)
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Tell inliers from outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
            +1 for inliers, -1 for outliers.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)


class DetectorWrapper(OffsetMixin, OutlierMixin, MetaEstimatorMixin, BaseEstimator):
    """A detector around another: its scores are the other's, its threshold may be its own (``offset_``).

    A subclass has a parameter ``estimator`` and a ``fit`` that sets ``estimator_`` and ``offset_``. Inlier rows are
    those with ``y != outlier_label`` of the wrapped detector, -1 where it has no such parameter.
    """

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    def score_samples(self, X):
        """The wrapped detector's score of each row; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
            Of ``score_samples``, or of ``decision_function`` if the detector has no other.
        """
        check_is_fitted(self)
        return scores_of(self.estimator_, X)

    def fit_predict(self, X, y=None):
        """Fit on X and y, then predict X.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
        """
        return self.fit(X, y).predict(X)

    @available_if(_inner_predicts_classes)
    def predict_class(self, X):
        """Class of each row, where the wrapped detector has classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        classes : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return predict_classes(self.estimator_, X)

    @available_if(_inner_predicts_classes)
    def predict_proba(self, X):
        """Probability of each class, where the wrapped detector has classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        probability : ndarray of float64 of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @property
    def classes_(self):
        classes = inner_attribute(self.estimator_, "classes_")
        if classes is None:
            raise AttributeError(f"{type(self.estimator).__name__} has no classes.")
        return classes

    @property
    def n_features_in_(self):
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        return self.estimator_.feature_names_in_

    def _fitted_clone(self, X, y):
        return clone(self.estimator).fit(X, y)

    def _inliers(self, X, y):
        """X and y such that rows can be taken of them, and the indices of the inlier rows."""
        X, y = indexable(X, y)
        if y is None:
            return X, y, np.arange(_num_samples(X))
        rows = np.flatnonzero(~marks_outlier(check_labels(y), inner_attribute(self.estimator, "outlier_label", -1)))
        if len(rows) == 0:
            raise ValueError("y marks every row as an outlier; at least one inlier is needed.")
        return X, y, rows

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags


def predicts_classes(detector) -> bool:
    """Whether a detector, or the last step of a Pipeline, tells the in-distribution classes apart."""
    return hasattr(detector[-1] if isinstance(detector, Pipeline) else detector, "predict_class")


def predict_classes(detector, X) -> np.ndarray:
    """The in-distribution class of each row; a Pipeline does not forward ``predict_class`` itself."""
    if isinstance(detector, Pipeline):
        for _, step in detector.steps[:-1]:
            X = X if step in (None, "passthrough") else step.transform(X)
        return predict_classes(detector[-1], X)
    return detector.predict_class(X)


def scores_of(detector, X) -> np.ndarray:
    """A fitted detector's scores, higher = more normal: ``score_samples``, else ``decision_function``.

    Raises
    ------
    TypeError
        If the detector has neither.
    """
    for name in ("score_samples", "decision_function"):
        respond = getattr(detector, name, None)
        if respond is not None:
            return np.asarray(respond(X), dtype=np.float64)
    raise TypeError(
        f"{type(detector).__name__} has neither score_samples nor decision_function (LocalOutlierFactor has them with "
        f"novelty=True)."
    )


class _OwnThreshold(DetectorWrapper):
    """A wrapper that changes only what a detector is fitted on."""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def decision_function(self, X):
        """The detector's decision function: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        decision : ndarray of float64 of shape (n_samples,)
        """
        check_is_fitted(self)
        decide = getattr(self.estimator_, "decision_function", None)
        return super().decision_function(X) if decide is None else decide(X)

    @property
    def offset_(self):
        return inner_attribute(self.estimator_, "offset_", 0.0)


class HideLabels(_OwnThreshold):
    """Fit a detector without y, so that contaminated training rows contaminate.

    In a training fold of ``OutlierKFold(contamination=...)`` the outliers carry y == -1, and a skood detector leaves
    such rows out or learns from them as outliers. Wrapped, it is not told. For detectors that never read y, it
    changes nothing.

    Parameters
    ----------
    estimator : detector
        Cloned.

    Attributes
    ----------
    estimator_ : detector
        The fitted clone.
    offset_ : float
        The detector's own threshold.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from skood.model_selection import HideLabels
    >>> HideLabels(IsolationForest(random_state=0)).fit([[0.0], [1.0]], [1, -1]).score_samples([[0.0]]).shape
    (1,)
    """

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y=None):
        """Fit the detector on X alone.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self : object
        """
        self.estimator_ = self._fitted_clone(X, None)
        return self


class DropOutliers(_OwnThreshold):
    """Fit a detector on the inlier rows alone: rows with y == -1 are dropped.

    A search refits the best parameters on all rows it is given, the outliers it measured with among them; a detector
    that does not read y then learns them as normal. Wrapped, it never sees them, in a fold or in the refit.

    Parameters
    ----------
    estimator : detector
        Cloned. A whole Pipeline may be wrapped, so that its scaler does not see the outliers either.

    Attributes
    ----------
    estimator_ : detector
        The fitted clone.
    offset_ : float
        The detector's own threshold.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from skood.model_selection import DropOutliers
    >>> detector = DropOutliers(IsolationForest(random_state=0)).fit([[0.0], [1.0], [99.0]], [1, 1, -1])
    >>> detector.estimator_.max_samples_
    2
    """

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y=None):
        """Fit the detector on the inlier rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Rows with y == -1 are dropped; None drops none.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If every row is an outlier.
        """
        X, y, rows = self._inliers(X, y)
        self.estimator_ = self._fitted_clone(_safe_indexing(X, rows), None if y is None else _safe_indexing(y, rows))
        return self
