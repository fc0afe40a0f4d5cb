"""Estimators that wrap another detector, of skood or not. Nothing here loads torch."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Self

import numpy as np
from sklearn.base import MetaEstimatorMixin, OutlierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags, _safe_indexing, get_tags, indexable
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _num_samples, check_is_fitted

from .labels import Marker, check_labels, check_marked, could_refuse, labels_untold, list_markers, marks_outlier
from .routing import NoRoutingMixin
from .tools import refuse_calibration, refuse_replaced
from .validation import plain_rows
from .versioned import VersionedEstimator


def _inner_predicts_classes(wrapper: Any) -> bool:
    return predicts_classes(getattr(wrapper, "estimator_", wrapper.estimator))


def _inner_explains(wrapper: Any) -> bool:
    return explains(getattr(wrapper, "estimator_", wrapper.estimator))


# Where searches and wrappers keep what they fitted.
_FITTED = ("best_estimator_", "estimator_")


def inner_attribute(estimator: Any, name: str, default: Any = None) -> Any:
    """Return an attribute of an estimator, or of the detector within its Pipeline, search or wrapper.

    Parameters
    ----------
    estimator : estimator
        Searched first, then the estimator within it, and so on.
    name : str
        Name of the attribute.
    default : object, default=None
        Returned if no estimator has the attribute, or its value is None in all.

    Returns
    -------
    value : object
    """
    while estimator is not None:
        value = getattr(estimator, name, None)
        if value is not None:
            return value
        if hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        else:
            estimator = next((getattr(estimator, n) for n in (*_FITTED, "estimator") if hasattr(estimator, n)), None)
    return default


class OffsetMixin:
    """Add decisions to ``score_samples`` (higher = more normal) and a threshold ``offset_``: a mixin."""

    def decision_function(self, X: Any) -> np.ndarray:
        """Return ``score_samples(X) - offset_``: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        decision : ndarray of float64 of shape (n_samples,)
        """
        refuse_calibration()
        # The class that uses this mixin has both.
        return self.score_samples(X) - self.offset_  # type: ignore[attr-defined]

    def predict(self, X: Any) -> np.ndarray:
        """Return +1 for inliers and -1 for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
            +1 for inliers, -1 for outliers.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)


class DetectorWrapper(OffsetMixin, OutlierMixin, MetaEstimatorMixin, NoRoutingMixin, VersionedEstimator):
    """Wrap a detector: scores are those of the wrapped detector, the threshold ``offset_`` may be another.

    A subclass has the parameters ``estimator`` and ``outlier_label`` and a ``fit`` that sets ``estimator_`` and
    ``offset_``. ``outlier_label=None`` takes that of the wrapped detector, or -1 if it has none.
    """

    # Whether `fit` passes marked rows to the wrapped detector, which then needs the same outlier_label.
    _passes_marked = True
    # Parameters and attributes of the subclass.
    estimator: Any
    outlier_label: Marker | None
    estimator_: Any

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the wrapped detector's score of each row; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
            From the detector's ``score_samples`` or, if it has none, ``decision_function``.
        """
        check_is_fitted(self)
        return scores_of(self.estimator_, X)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit on X and y, then predict X.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
        """
        # OutlierMixin would drop y.
        return self.fit(X, y).predict(X)  # type: ignore[attr-defined]

    @available_if(_inner_predicts_classes)
    def predict_class(self, X: Any) -> np.ndarray:
        """Return the class of each row, if the wrapped detector has classes.

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
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, if the wrapped detector has classes.

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

    @available_if(_inner_explains)
    def explain(self, X: Any, *, reference: Any = None) -> Any:
        """Return what each feature adds to a row's score, if the wrapped detector explains its scores.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        reference : array-like or None, default=None
            Normal rows to compare with; None takes those that the detector keeps.

        Returns
        -------
        contributions : ndarray of float64 of shape (n_samples, n_features) or (n_samples, H, W), or DataFrame
            See `skood.DUMDetector.explain`; the most negative one belongs to the most unusual feature. For a Pipeline,
            the features are those that its last step receives.
        """
        check_is_fitted(self)
        return explained_by(self.estimator_, X, reference)

    @property
    def classes_(self) -> np.ndarray:
        classes = inner_attribute(self.estimator_, "classes_")
        if classes is None:
            raise AttributeError(f"{type(self.estimator).__name__} has no classes.")
        return classes

    @property
    def n_features_in_(self) -> int:
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        return self.estimator_.feature_names_in_

    def _fitted_clone(self, X: Any, y: Any) -> Any:
        if isinstance(self.estimator, FrozenEstimator):
            # Its fit does nothing but refuse detectors of other makes, which may not tell that they are fitted.
            return self.estimator
        # All labels were checked before.
        with labels_untold():
            return clone(self.estimator).fit(X, y)

    def _inliers(self, X: Any, y: Any, *, refuse: bool = False) -> tuple[Any, Any, np.ndarray]:
        """Return X and y in a form that can be indexed by rows, and the indices of the inlier rows."""
        # check_labels comes first: scikit-learn refuses more containers of labels, with other messages.
        X, y = indexable(plain_rows(X), None if y is None else check_labels(y))
        if y is None:
            return X, y, np.arange(_num_samples(X))
        refuse_replaced(self, y, self._marker())
        rows = np.flatnonzero(~self._marked(y, refuse))
        if len(rows) == 0:
            raise ValueError("y marks every row as an outlier; at least one inlier is needed.")
        return X, y, rows

    def _marked(self, y: Any, refuse: bool) -> np.ndarray:
        """Return the mask of the rows that y marks as outliers.

        Labels that are likely misread cause a warning; with ``refuse`` a ValueError, if scikit-learn's checks allow it.
        """
        labels, outlier_label = check_labels(y), self._marker()
        outlier = marks_outlier(labels, outlier_label)
        # A detector with classes reads the classes from y.
        classes = () if predicts_classes(self.estimator) else None
        # A marker that was chosen is not misread, and folds without outliers are normal: `OutlierKFold` makes them.
        refuse = refuse and could_refuse(labels) and list_markers(outlier_label) == [-1]
        check_marked(labels, outlier, outlier_label, classes=classes, refuse=refuse)
        return outlier

    def _marker(self) -> Marker:
        """Return what marks outliers: ``outlier_label``, or that of the wrapped detector."""
        inner = inner_attribute(self.estimator, "outlier_label")
        if self.outlier_label is None:
            return -1 if inner is None else inner
        if self._passes_marked and inner is not None and {*list_markers(inner)} != {*list_markers(self.outlier_label)}:
            raise ValueError(
                f"outlier_label={self.outlier_label!r}, but the detector has outlier_label={inner!r}, and would take "
                f"the marked rows for inliers. Set that of the detector, and leave this one at None."
            )
        return self.outlier_label

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # A detector of another make may have no tags.
        with suppress(AttributeError):
            tags.input_tags = get_tags(self.estimator).input_tags
        return tags


def thawed(estimator: Any) -> Any:
    """Return the estimator in a `sklearn.frozen.FrozenEstimator`, or any other as it is."""
    return estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator


def _last_step(detector: Any) -> Any:
    """Return the last step of a Pipeline, frozen or not, or any other detector as it is."""
    detector = thawed(detector)
    return thawed(detector[-1]) if isinstance(detector, Pipeline) else detector


def predicts_classes(detector: Any) -> bool:
    """Return whether a detector, or the last step of a Pipeline, predicts in-distribution classes."""
    return hasattr(_last_step(detector), "predict_class")


def predict_classes(detector: Any, X: Any) -> np.ndarray:
    """Return the in-distribution class of each row, from a detector or a Pipeline that ends in one."""
    detector = thawed(detector)
    if isinstance(detector, Pipeline):
        # A Pipeline forwards only the methods that scikit-learn knows.
        for _, step in detector.steps[:-1]:
            X = X if step in (None, "passthrough") else step.transform(X)
        return predict_classes(detector[-1], X)
    return detector.predict_class(X)


def explains(detector: Any) -> bool:
    """Return whether a detector, or the last step of a Pipeline, explains its scores."""
    return hasattr(_last_step(detector), "explain")


def as_explained(detector: Any, X: Any) -> Any:
    """Return rows as the detector within Pipelines, searches and wrappers gets them, after the steps before it."""
    while not isinstance(detector := thawed(detector), Pipeline):
        inner = next((vars(detector)[name] for name in _FITTED if name in vars(detector)), None)
        if inner is None:
            return X
        detector = inner
    for _, step in detector.steps[:-1]:
        if step not in (None, "passthrough"):
            X = step.transform(X)
    return as_explained(detector[-1], X)


def explained_by(detector: Any, X: Any, reference: Any = None) -> Any:
    """Return the contributions of features to scores, from a detector or a Pipeline that ends in one."""
    detector = thawed(detector)
    if isinstance(detector, Pipeline):
        for _, step in detector.steps[:-1]:
            if step not in (None, "passthrough"):
                X, reference = step.transform(X), None if reference is None else step.transform(reference)
        return explained_by(detector[-1], X, reference)
    return detector.explain(X, reference=reference)


def scores_of(detector: Any, X: Any) -> np.ndarray:
    """Return a fitted detector's scores, higher = more normal: ``score_samples``, else ``decision_function``.

    Parameters
    ----------
    detector : fitted detector
    X : array-like of shape (n_samples, n_features)

    Returns
    -------
    scores : ndarray of float64 of shape (n_samples,)

    Raises
    ------
    TypeError
        If the detector has neither.
    ValueError
        If it does not return one number for each row.
    """
    for name in ("score_samples", "decision_function"):
        respond = getattr(detector, name, None)
        if respond is not None:
            rows = plain_rows(X)
            scores = np.asarray(respond(rows), dtype=np.float64)
            if scores.shape != (_num_samples(rows),):
                raise ValueError(
                    f"{name} of {type(detector).__name__} returned an array of shape {scores.shape} for "
                    f"{_num_samples(rows)} rows; expected one number for each row. A classifier is no detector: "
                    f"skood.OODScorer makes one of it."
                )
            return scores
    raise TypeError(
        f"{type(detector).__name__} has neither score_samples nor decision_function; pass a detector that has one "
        f"(LocalOutlierFactor has them with novelty=True)."
    )


class _OwnThreshold(DetectorWrapper):
    """Wrap a detector to change only what it is fitted on: the threshold stays its own."""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the detector's decision function: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        decision : ndarray of float64 of shape (n_samples,)
        """
        check_is_fitted(self)
        refuse_calibration()
        decide = getattr(self.estimator_, "decision_function", None)
        return super().decision_function(X) if decide is None else decide(plain_rows(X))

    @property
    def offset_(self) -> float:
        # Detectors without an offset decide at 0.
        return inner_attribute(self.estimator_, "offset_", 0.0)


class HideLabels(_OwnThreshold):
    """Fit a detector without y, so that outliers among the training rows are not left out.

    In a training fold of ``OutlierKFold(contamination=...)`` the outliers have y == -1, and a skood detector leaves
    such rows out or learns from them as outliers. A wrapped detector does not see y. Detectors that never read y need
    no wrapper.

    Parameters
    ----------
    estimator : detector
        `fit` fits a clone of it.
    outlier_label : number, str, bool, list of these, or None, default=None
        The label that marks outliers in y, or several. None takes the detector's own, or -1.

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

    _passes_marked = False

    def __init__(self, estimator, *, outlier_label=None):
        self.estimator = estimator
        self.outlier_label = outlier_label

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the detector on X alone.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Hidden from the detector. The labels are only checked for whether they mark outliers.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If y holds several labels (text, booleans or fractions), and none marks a row: y is likely misread.

        Warns
        -----
        LabelWarning
            If such labels are integers.
        """
        if y is not None:
            self._marked(y, refuse=True)
        self.estimator_ = self._fitted_clone(plain_rows(X), None)
        return self


class DropOutliers(_OwnThreshold):
    """Fit a detector on the inlier rows alone: rows with ``y == outlier_label`` are dropped.

    A search refits the best parameters on all its rows, including the outliers that it measured with; a detector that
    does not read y then learns that they are normal. A wrapped detector never sees them, neither in a fold nor in the
    refit.

    Parameters
    ----------
    estimator : detector
        `fit` fits a clone of it. A whole Pipeline may be wrapped, so that its scaler does not see the outliers either.
    outlier_label : number, str, bool, list of these, or None, default=None
        The label that marks outliers in y, or several. None takes the detector's own, or -1.

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

    _passes_marked = False

    def __init__(self, estimator, *, outlier_label=None):
        self.estimator = estimator
        self.outlier_label = outlier_label

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the detector on the inlier rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Rows with ``y == outlier_label`` are dropped. None, or 1 for every row, drops no row.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If every row is an outlier; or if y holds several labels (text, booleans or fractions), and none is the
            default marker -1: y is likely misread.

        Warns
        -----
        LabelWarning
            If such labels are integers, or ``outlier_label`` was set, and marks no row.
        """
        X, y, rows = self._inliers(X, y, refuse=True)
        self.estimator_ = self._fitted_clone(_safe_indexing(X, rows), None if y is None else _safe_indexing(y, rows))
        return self
