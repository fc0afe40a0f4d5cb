"""Recognise the tools of scikit-learn that fit an estimator on other labels than those of the user, or misread it.

Some tools replace each label by its index among the sorted labels: -1, 1, 2 become 0, 1, 2, and what marked outliers
marks nothing. Tools do not tell the estimators that they fit who they are, so the call stack is the only sign. Nothing
here loads torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, TypeAlias

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags

from .labels import Marker, list_markers, marks_outlier, named_markers

__all__ = ["Replaced", "needs_known_labels", "refuse_calibration", "refuse_replaced", "replaced_labels"]

# (module, function) in scikit-learn that fits a classifier -> the tool that calls it. These tools go wrong if the
# classifier predicts labels that are not in y.
_LABELS_OF_Y_ALONE = {
    ("sklearn.ensemble._base", "_fit_single_estimator"): "VotingClassifier or StackingClassifier",
    ("sklearn.ensemble._bagging", "_parallel_build_estimators"): "BaggingClassifier",
    ("sklearn.model_selection._validation", "_fit_and_predict"): "cross_val_predict with a method",
    ("sklearn.model_selection._classification_threshold", "_fit"): "FixedThresholdClassifier",
    ("sklearn.model_selection._classification_threshold", "_fit_and_score_over_thresholds"): (
        "TunedThresholdClassifierCV"
    ),
    ("sklearn.multiclass", "_fit_binary"): "OneVsRestClassifier or OneVsOneClassifier",
    ("sklearn.calibration", "_fit_classifier_calibrator_pair"): "CalibratedClassifierCV",
}
# (module, function) that replaces labels -> the tool, and the local variable whose ``classes_`` are the user's labels.
# The variable is missing in cross_val_predict with method="predict", which keeps the labels.
_REPLACING = {
    ("sklearn.model_selection._validation", "cross_val_predict"): ("cross_val_predict with this method", "le"),
    ("sklearn.ensemble._bagging", "_parallel_build_estimators"): ("BaggingClassifier", "ensemble"),
    ("sklearn.ensemble._stacking", "fit"): ("StackingClassifier", "self"),
    ("sklearn.ensemble._voting", "fit"): ("VotingClassifier", "self"),
}
# Functions in scikit-learn that calibrate an estimator, or answer by calibrated scores of it: their local variable
# ``estimator``, or that of ``self``.
_CALIBRATING = {
    ("sklearn.calibration", "fit"),
    ("sklearn.calibration", "_fit_classifier_calibrator_pair"),
    ("sklearn.calibration", "predict_proba"),
}
# Functions in scikit-learn that fit an estimator for one class against others, or for a pair of classes.
_BINARY, _PAIR = ("sklearn.multiclass", "_fit_binary"), ("sklearn.multiclass", "_fit_ovo_binary")


# A tool that replaces each label by its index, and the user's labels in that order.
Replaced: TypeAlias = tuple[str, list]


def _calls() -> Iterator[tuple[tuple[str, str], FrameType]]:
    """Yield module and name of each function that runs, from the innermost one on, and its frame."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield (str(frame.f_globals.get("__name__")), frame.f_code.co_name), frame
        frame = frame.f_back


def needs_known_labels() -> str | None:
    """Return the tool that now fits a classifier, and goes wrong if this predicts other labels than those of y."""
    for call, frame in _calls():
        tool = _LABELS_OF_Y_ALONE.get(call)
        if tool is not None and frame.f_locals.get("method") != "predict":
            return tool
    return None


def replaced_labels() -> list[Replaced]:
    """Return the tools that now run and replace labels, the outermost one last, which has the user's labels."""
    found = []
    for call, frame in _calls():
        if call in _REPLACING:
            tool, holder = _REPLACING[call]
            labels = getattr(frame.f_locals.get(holder), "classes_", None)
            if labels is not None:
                found.append((tool, np.asarray(labels).tolist()))
    return found


def refuse_replaced(estimator: Any, y: np.ndarray, outlier_label: Marker) -> None:
    """Raise an error if a tool took from y what marks outliers, or takes the scores of a detector for those of classes.

    Parameters
    ----------
    estimator : VersionedEstimator
        The estimator that is fitted; as a clone it knows the tool in whose call it was made.
    y : ndarray of shape (n_samples,)
        The labels that it is given, from `check_labels`.
    outlier_label : number, str, bool, or array-like of these
        What marks outliers.

    Raises
    ------
    ValueError
        If the user's labels hold the marker, and y holds indices in their place; in a CalibratedClassifierCV or
        OneVsOneClassifier around a detector; or in a OneVsRestClassifier or OutputCodeClassifier around a detector that
        does not take the other classes for outliers.
    """
    refuse_calibration()
    _refuse_binary(outlier_label)
    # A worker process or thread has a call stack of its own, but clones are made in that of the tool.
    for tool, labels in [*replaced_labels(), *estimator._replaced_labels]:
        _refuse_lost(tool, labels, estimator, y, outlier_label)


def _refuse_lost(tool: str, labels: list, estimator: Any, y: np.ndarray, outlier_label: Marker) -> None:
    n_labels, markers = len(labels), list_markers(outlier_label)
    marked = marks_outlier(np.array(labels, dtype=object), outlier_label).tolist()
    # An estimator in between may have given the labels a meaning of its own.
    are_indices = y.dtype.kind in "iu" and bool(((y >= 0) & (y < n_labels)).all())
    if not any(marked) or not are_indices or marked == [index in markers for index in range(n_labels)]:
        return
    places = [index for index in range(n_labels) if marked[index]]
    raise ValueError(
        f"{tool} replaces each label of y by its index among the sorted labels, {labels}, so that "
        f"{type(estimator).__name__} would not find the outliers that {named_markers(outlier_label)} marks. With "
        f'cross_val_predict use method="predict", or fit a clone on each fold in a loop, and call the method there. '
        f"To have a classifier that rejects, wrap a detector with classes in OpenSetClassifier, and set outlier_label="
        f"{places[0] if len(places) == 1 else places}, the index."
    )


def refuse_calibration() -> None:
    """Raise an error if a CalibratedClassifierCV fits a detector, or asks a frozen one for decisions.

    Raises
    ------
    ValueError
        Says how to make a classifier of the detector.
    """
    for call, frame in _calls():
        if call not in _CALIBRATING:
            continue
        estimator = frame.f_locals.get("estimator", getattr(frame.f_locals.get("self"), "estimator", None))
        if _is_detector(estimator):
            raise ValueError(
                f"CalibratedClassifierCV calibrates the decision_function of a classifier, but that of "
                f"{_named(estimator)} tells outliers from inliers, and not the classes of y. Wrap a detector with "
                f"classes in OpenSetClassifier first."
            )


def _refuse_binary(outlier_label: Marker) -> None:
    """Raise an error if a detector is fitted for some classes against others, and would not tell them apart."""
    tools = {call: frame for call, frame in _calls() if call in (_BINARY, _PAIR)}
    if _BINARY not in tools or not _is_detector(tools[_BINARY].f_locals.get("estimator")):
        return
    name = _named(tools[_BINARY].f_locals["estimator"])
    if _PAIR in tools:
        raise ValueError(
            f"OneVsOneClassifier takes what {name} predicts, +1 and -1, for the numbers of two classes, 0 and 1. To "
            f"have a classifier, wrap a detector with classes in OpenSetClassifier, or {name} with outlier_label=0 in "
            f"OneVsRestClassifier."
        )
    # 0 in OneVsRestClassifier, and -1 in OutputCodeClassifier.
    rest = np.min(tools[_BINARY].f_locals["y"])
    if not marks_outlier(np.array([rest]), outlier_label).any():
        raise ValueError(
            f"OneVsRestClassifier and OutputCodeClassifier take the decision_function of {name} for how likely a row "
            f"is of some of the classes of y, but with outlier_label={outlier_label!r} rows of all classes are inliers "
            f"to it. Set outlier_label={rest}, which marks the other classes here; or wrap a detector with classes in "
            f"OpenSetClassifier, which needs no such tool."
        )


def _is_detector(estimator: Any) -> bool:
    return estimator is not None and get_tags(estimator).estimator_type == "outlier_detector"


def _named(estimator: Any) -> str:
    """Return the name of an estimator's class, frozen or not."""
    return type(estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator).__name__
