"""Make scorers, ``scoring=`` of scikit-learn's searches: greater is better, so errors are negated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.metrics import make_scorer
from sklearn.pipeline import Pipeline

from ..estimator.labels import Marker, check_labels, list_markers, marks_outlier
from ..estimator.wrapper import predict_classes, predicts_classes, thawed
from ..open_set import OpenSetClassifier
from .base import outliers_positive
from .ranking import aupr_out, auroc, fpr_at_tpr
from .selective import aurc

_RESPONSES = ["decision_function", "score_samples"]


def answers(
    estimator: Any, X: Any, y: ArrayLike, *, outlier_label: Marker = -1
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Return a fitted estimator's answers and confidence, for the metrics of selective classification.

    Parameters
    ----------
    estimator : fitted detector or classifier
        A detector with ``predict_class``; or a classifier, whose score is its largest ``predict_proba``, of the classes
        that ``outlier_label`` does not name; or a detector without classes, which answers "inlier" to every row, wrong
        for outliers only.
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
        Class of each row; -1 for outliers.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    y_pred : ndarray of shape (n_samples,)
        The answers.
    score : ndarray of float of shape (n_samples,)
        Confidence; higher = surer.
    threshold : float or None
        The score below which a detector rejects; a classifier has none.

    Raises
    ------
    ValueError
        If the detector has no classes and y lacks outliers or inliers.
    """
    labels = check_labels(y)
    estimator = getattr(estimator, "best_estimator_", estimator)
    estimator = thawed(estimator)
    if isinstance(estimator, Pipeline) and not predicts_classes(estimator):
        for _, step in estimator.steps[:-1]:
            X = X if step in (None, "passthrough") else step.transform(X)
        return answers(estimator[-1], X, labels, outlier_label=outlier_label)
    # An OpenSetClassifier is as confident as the detector in it; its own probabilities ignore outliers.
    estimator = estimator.detector_ if isinstance(estimator, OpenSetClassifier) else estimator
    if predicts_classes(estimator):
        return predict_classes(estimator, X), estimator.decision_function(X), 0.0
    if is_classifier(estimator):
        return _answers_of_classifier(estimator, X, outlier_label)
    # Called for its checks: it refuses labels without outliers or inliers.
    outliers_positive(labels, np.zeros(len(labels)), outlier_label)
    decides = hasattr(estimator, "decision_function")
    score = estimator.decision_function(X) if decides else estimator.score_samples(X)
    return labels, score, 0.0 if decides else None


def _answers_of_classifier(classifier: Any, X: Any, outlier_label: Marker) -> tuple[np.ndarray, np.ndarray, None]:
    """Return the class of each row, and its probability."""
    probability, classes = np.asarray(classifier.predict_proba(X)), np.asarray(classifier.classes_)
    known = ~marks_outlier(classes, outlier_label)
    if known.all() or not known.any():
        return classifier.predict(X), np.max(probability, axis=1), None
    # A classifier that has learnt outliers as a class is the less sure of any other class, the more a row looks like
    # one. Its largest probability would rank the outliers that it recognises among the surest answers.
    probability = probability[:, known]
    return classes[known][probability.argmax(axis=1)], probability.max(axis=1), None


class _SelectiveScorer:
    """Score an estimator by minus the area under the risk-coverage curve of its answers.

    It is a class because scorers of `make_scorer` get one response of the estimator, but this one needs two: answers
    and confidence.
    """

    def __init__(self, outlier_label: Marker = -1):
        self.outlier_label = outlier_label

    def __call__(self, estimator: Any, X: Any, y: ArrayLike) -> float:
        y_pred, score, _ = answers(estimator, X, y, outlier_label=self.outlier_label)
        return -aurc(y, y_pred, score, outlier_label=self.outlier_label)

    def __repr__(self) -> str:
        return f"get_scorer('aurc', outlier_label={self.outlier_label!r})"


def _scorers(**marker: Any) -> dict[str, Callable[..., float]]:
    """Return the scorers by name; ``outlier_label`` names the labels that mark outliers, if not -1."""
    options: dict[str, Any] = {"response_method": _RESPONSES, **marker}
    return {
        "auroc": make_scorer(auroc, **options),
        "aupr_out": make_scorer(aupr_out, **options),
        "fpr95": make_scorer(fpr_at_tpr, greater_is_better=False, **options),
        "aurc": _SelectiveScorer(**marker),
    }


_SCORERS = _scorers()
auroc_scorer, aupr_out_scorer, fpr95_scorer, aurc_scorer = _SCORERS.values()


def get_scorer(name: str, *, outlier_label: Marker = -1) -> Callable[..., float]:
    """Return a scorer by name, for ``scoring=`` of `GridSearchCV`, `cross_validate` and the like.

    With the default ``outlier_label`` the scorers are `auroc_scorer`, `aupr_out_scorer`, `fpr95_scorer` and
    `aurc_scorer`.

    Scorers take y of +1 and -1, or class labels with -1 for outliers, and any detector with ``decision_function`` or
    ``score_samples``, scikit-learn's own included. If the detector has another ``outlier_label``, give it here too.

    Parameters
    ----------
    name : {"auroc", "aupr_out", "fpr95", "aurc"}
        "fpr95" is minus the false positive rate at 95 % true positive rate. "aurc" is minus the area under the
        risk-coverage curve of the answers of ``predict_class``, or of a classifier's ``predict``; a detector without
        classes answers "inlier" to every row.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks outliers, or several.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y) -> float``; greater is better. Picklable.

    Raises
    ------
    ValueError
        If there is no scorer of that name, or ``outlier_label`` is no label.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from skood.metrics import get_scorer
    >>> X, y = [[0.0], [0.1], [0.2], [0.3], [9.0]], [1, 1, 1, 1, -1]
    >>> get_scorer("auroc")(IsolationForest(random_state=0).fit(X), X, y)
    1.0
    """
    if name not in _SCORERS:
        raise ValueError(f"there is no scorer {name!r}; choose one of {', '.join(map(repr, _SCORERS))}.")
    # The default scorers are the same objects each time.
    if isinstance(outlier_label, int) and outlier_label == -1:
        return _SCORERS[name]
    list_markers(outlier_label)
    return _scorers(outlier_label=outlier_label)[name]
