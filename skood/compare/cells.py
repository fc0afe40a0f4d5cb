"""Evaluate the cells of a comparison: a detector on one split of a data set."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..estimator.inliers import FitOnInliers
from ..estimator.labels import Marker, labels_untold, list_markers, marks_outlier
from ..estimator.wrapper import inner_attribute, predicts_classes
from ..metrics import aupr_out, auroc, fpr_at_tpr
from .protocols import Problem, Split, Test
from .row import ResultRow, Scores
from .tables import encoding_steps, take

_LONGEST_ERROR = 300


@dataclass(frozen=True)
class Settings:
    """Hold the settings of all cells of a comparison.

    Attributes
    ----------
    protocol : str
        One of `skood.compare.PROTOCOLS`.
    max_train, max_test : int or None
        As in `skood.compare_detectors`.
    decisions : bool
        Whether detectors choose a threshold, and what ``predict`` returns is measured.
    """

    protocol: str
    max_train: int | None
    max_test: int | None
    decisions: bool = True


@dataclass(frozen=True)
class Cell:
    """Hold what one fit and its tests need.

    Attributes
    ----------
    name : str
        Name of the detector.
    detector : estimator
        A clone is fitted; the estimator itself is not.
    seed : int
        Seed of the split and of the detector.
    label : object
        Label of the task, see `skood.compare.protocols.Task`.
    keys : dict of str to str
        `ResultRow.key` of each test, by the name of its data set in the results.
    most_rows : int or None
        A split with more training rows is reported as not run; None sets no limit.
    """

    name: str
    detector: BaseEstimator
    seed: int
    label: object
    keys: dict[str, str]
    most_rows: int | None = None


class _Training(NamedTuple):
    """Hold the rows and labels that a detector is fitted on.

    Attributes
    ----------
    rows : ndarray of int
        Indices.
    labels : ndarray or None
        Passed to ``fit`` as y; None passes no y.
    marker : object
        The label of auxiliary outliers among the rows; None if there are none.
    """

    rows: np.ndarray
    labels: np.ndarray | None
    marker: Any


class _Answers(NamedTuple):
    """Hold the answers of a fitted detector to the rows of all tests.

    Attributes
    ----------
    rows : Index of int
        The rows, each once.
    score : ndarray of float64
        Score of each of them.
    label : ndarray or None
        What ``predict`` returns for each of them, +1 or -1; None if it is not known.
    threshold : float
        NaN if the detector has none.
    seconds : float
        Time that scoring all rows took.
    """

    rows: pd.Index
    score: np.ndarray
    label: np.ndarray | None
    threshold: float
    seconds: float


def evaluate(cell: Cell, problem: Problem, settings: Settings) -> list[ResultRow]:
    """Fit the detector of a cell and test it.

    Parameters
    ----------
    cell : Cell
    problem : Problem
        The data set.
    settings : Settings

    Returns
    -------
    rows : list of ResultRow
        One for each test. If the detector fails, each of them holds the error.
    """
    split = _split(cell, problem, settings)
    rows = _rows_before_fit(cell, split, settings)
    if cell.most_rows is not None and len(split.train) > cell.most_rows:
        return _with_error(
            rows, f"not run: {len(split.train)} training rows are more than {cell.most_rows}; lower max_train."
        )
    try:
        with warnings.catch_warnings():
            # Nobody reads the warnings of hundreds of fits; a fault shows in the figures.
            warnings.simplefilter("ignore")
            training = _training(split, problem.classes, cell.detector)
            detector, X = _prepared(cell, problem.X, training.marker)
            if not settings.decisions:
                detector.set_params(**_no_threshold(detector))
            import_training(cell.detector)
            seconds = _fit(detector, X, training)
            rows = {name: replace(row, fit_seconds=seconds) for name, row in rows.items()}
            answers = _ask(detector, X, split, settings.decisions)
        return [_measured(row, split.tests[name], answers) for name, row in rows.items()]
    except (Exception, SystemExit) as error:
        return _with_error(rows, reason(error))


def failed(cell: Cell, problem: Problem, settings: Settings, error: str) -> list[ResultRow]:
    """Return the rows of a cell whose process returned none.

    Parameters
    ----------
    cell, problem, settings : Cell, Problem, Settings
        As in `evaluate`.
    error : str
        The reason.

    Returns
    -------
    rows : list of ResultRow
        One for each test.
    """
    return _with_error(_rows_before_fit(cell, _split(cell, problem, settings), settings), error)


def reason(error: BaseException) -> str:
    """Return an exception as one line of the results.

    Parameters
    ----------
    error : exception

    Returns
    -------
    text : str
        Its class and its message, of at most 300 characters. What a file of text cannot hold is escaped.
    """
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    # Names of files that are not UTF-8 have surrogates.
    return text.encode(errors="backslashreplace").decode().replace("\0", r"\x00")[:_LONGEST_ERROR]


def import_training(detector: BaseEstimator) -> None:
    """Import the modules that a fit of skood's detectors needs, so that their seconds do not count as the first fit's.

    Parameters
    ----------
    detector : estimator
        Any detector; for those of other packages nothing is imported.
    """
    last = detector[-1] if isinstance(detector, Pipeline) else detector
    if type(last).__module__.startswith("skood."):
        import_module("skood.training.trainer")


def _split(cell: Cell, problem: Problem, settings: Settings) -> Split:
    return problem.split(cell.label, cell.keys, cell.seed, settings.max_train, settings.max_test)


def _rows_before_fit(cell: Cell, split: Split, settings: Settings) -> dict[str, ResultRow]:
    """Return what is known of each row before the fit, by the name of its data set."""
    return {
        name: ResultRow(
            detector=cell.name,
            dataset=name,
            protocol=settings.protocol,
            seed=cell.seed,
            n_train=len(split.train),
            n_test=len(split.tests[name].rows),
            key=key,
        )
        for name, key in cell.keys.items()
    }


def _with_error(rows: Mapping[str, ResultRow], error: str) -> list[ResultRow]:
    return [replace(row, error=error) for row in rows.values()]


# --------------------------------------------------------------------------------------------------------------------
# Before the fit: rows, labels, and what stands before the detector


def _training(split: Split, known: list, detector: BaseEstimator) -> _Training:
    """Choose the training rows and their labels.

    A detector that predicts classes is given the classes, all of which are ``known``; one with an ``outlier_label`` is
    given the auxiliary rows of the split, if any, marked with it. If neither applies, y is None.
    """
    classes = split.classes if predicts_classes(detector) else None
    own = inner_attribute(detector, "outlier_label")
    marker = list_markers(own)[0] if own is not None and len(split.auxiliary) else None
    if classes is None and marker is None:
        return _Training(split.train, None, None)
    labels = _beside(-1 if own is None else own, classes, known, len(split.train))
    if marker is None:
        return _Training(split.train, labels, None)
    marked = np.full(len(split.auxiliary), marker)
    if labels.dtype.kind != marked.dtype.kind or isinstance(marker, str):
        # numpy would turn numbers beside text into text.
        labels, marked = labels.astype(object), marked.astype(object)
    return _Training(np.concatenate([split.train, split.auxiliary]), np.concatenate([labels, marked]), marker)


def _beside(marker: Marker, classes: np.ndarray | None, known: list, n_rows: int) -> np.ndarray:
    """Return labels of inliers that no detector with this ``outlier_label`` takes for outliers, or refuses.

    These are the classes as they are, if they can be. If not, all known classes are numbered in their order, because
    the outputs of a classifier that is trained already stand in this order.
    """
    if classes is not None and _can_be_classes(known, marker):
        return classes
    if classes is None:
        classes, known = np.ones(n_rows, dtype=np.int64), [1]
    first = 1 + max([0, *(int(label) for label in list_markers(marker) if not isinstance(label, str))])
    names: list = list(range(first, first + len(known)))
    if not _can_be_classes(names, marker):
        # No number above 1 can stand beside True, and 1 not beside "1". Zeros keep the order.
        names = [f"class {number:0{len(str(names[-1]))}}" for number in names]
    name_of = dict(zip(known, names, strict=True))
    return np.array([name_of[label] for label in classes.tolist()])


def _can_be_classes(labels: list, marker: Marker) -> bool:
    """Return whether detectors take these labels for classes, and none of them for a marker of outliers."""
    # This import loads torch.
    from ..estimator.classes import encode_classes

    y = np.array(labels, dtype=object)
    try:
        encode_classes(y)
        return not marks_outlier(y, marker).any()
    except ValueError:
        return False


def _prepared(cell: Cell, X: Any, marker: Any) -> tuple[BaseEstimator, Any]:
    """Clone the detector, seed it, and put a scaler before it unless it takes the images as they are.

    A table is encoded before it is scaled. Encoder and scaler are fitted on the training rows of the split alone. The
    second result is X as the detector then takes it: flattened if a scaler comes before it.
    """
    detector = clone(cell.detector)
    params = detector.get_params()
    seeded = {name: cell.seed for name in params if name == "random_state" or name.endswith("__random_state")}
    detector.set_params(**seeded)
    if np.ndim(X) == 4 and _takes_images(detector):
        return detector, X
    steps = [*encoding_steps(X, cell.seed), StandardScaler()]
    if marker is not None:
        # A scaler fitted on outliers far away would shrink everything else.
        steps = [FitOnInliers(step, outlier_label=marker) for step in steps]
    return make_pipeline(*steps, detector), X if isinstance(X, pd.DataFrame) else np.reshape(X, (len(X), -1))


def _takes_images(estimator: Any) -> bool:
    """Return whether the estimator that sees X first has a parameter ``image_shape``."""
    while hasattr(estimator, "get_params"):
        if isinstance(estimator, Pipeline):
            steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
            estimator = steps[0] if steps else None
        elif "image_shape" in estimator.get_params(deep=False):
            return True
        else:
            # What wraps another one passes X on to it.
            inner = ("estimator", "detector", "transformer")
            estimator = next((getattr(estimator, name) for name in inner if hasattr(estimator, name)), None)
    return False


def _no_threshold(detector: BaseEstimator) -> dict[str, int]:
    """Return the parameters that keep skood's detectors, in wrappers and Pipelines too, from fits for a threshold."""
    # This import loads torch.
    from ..estimator.detector import Detector

    params = {"": detector, **detector.get_params()}
    return {
        f"{name}__contamination".removeprefix("__"): 0
        for name, value in params.items()
        if isinstance(value, Detector) and value.contamination == "auto"
    }


# --------------------------------------------------------------------------------------------------------------------
# The fit and the tests


def _fit(detector: BaseEstimator, X: Any, training: _Training) -> float:
    """Fit the detector and return the seconds."""
    X = take(X, training.rows)
    start = time.perf_counter()
    # Classes are no misread markers, whatever they look like.
    with labels_untold():
        # Detectors of other packages need not take y.
        detector.fit(X, *([] if training.labels is None else [training.labels]))
    return time.perf_counter() - start


def _ask(detector: BaseEstimator, X: Any, split: Split, decisions: bool) -> _Answers:
    """Score the rows of all tests with the fitted detector; predict their labels if decisions are measured."""
    # Rows that several tests share are scored once.
    tested = pd.Index(pd.unique(np.concatenate([test.rows for test in split.tests.values()])))
    X = take(X, tested.to_numpy())
    start = time.perf_counter()
    score = np.asarray(detector.score_samples(X), dtype=np.float64)
    seconds = time.perf_counter() - start
    if score.shape != (len(tested),):
        raise ValueError(_say_length("score_samples", score, len(tested)))
    if not decisions:
        return _Answers(tested, score, None, np.nan, seconds)
    # OneClassSVM has an array of one number; kNN has no offset_.
    threshold = float(np.ravel(inner_attribute(detector, "offset_", np.nan))[0])
    return _Answers(tested, score, _predicted(detector, X, score, threshold), threshold, seconds)


def _predicted(detector: BaseEstimator, X: Any, score: np.ndarray, threshold: float) -> np.ndarray | None:
    """Return what the detector predicts for rows that have these scores; None if it does not predict +1 or -1."""
    if not hasattr(detector, "predict"):
        return None
    if _decides_by_offset(detector):
        return np.where(score - threshold >= 0, 1, -1)
    label = np.asarray(detector.predict(X))
    if not np.isin(label, (-1, 1)).all():
        return None
    if len(label) != len(score):
        raise ValueError(_say_length("predict", label, len(score)))
    return label


def _say_length(method: str, answer: np.ndarray, n_rows: int) -> str:
    return f"{method} returned an array of shape {answer.shape} for {n_rows} rows; expected one value for each row."


def _decides_by_offset(detector: BaseEstimator) -> bool:
    """Return whether ``predict`` is -1 exactly where the score is below ``offset_``, so that it need not be called.

    This holds if one class of skood's contract defines both methods. Detectors of other packages may decide otherwise.
    """
    kinds = type(detector[-1] if isinstance(detector, Pipeline) else detector).__mro__
    methods = ("decision_function", "predict")
    definers = {next((kind for kind in kinds if method in vars(kind)), None) for method in methods}
    return len(definers) == 1 and definers.pop().__module__.startswith("skood.estimator.")


def _measured(row: ResultRow, test: Test, answers: _Answers) -> ResultRow:
    """Return the row with the metrics and the scores of its test."""
    places = answers.rows.get_indexer(pd.Index(test.rows))
    y, score = test.truth, answers.score[places]
    row = replace(
        row,
        auroc=auroc(y, score),
        aupr_out=aupr_out(y, score),
        fpr95=fpr_at_tpr(y, score),
        score_seconds=answers.seconds * len(y) / len(answers.rows),
        scores=Scores(y, score, answers.threshold),
    )
    if answers.label is None:
        return row
    accused = answers.label[places] == -1
    return replace(row, false_alarms=float(accused[y == 1].mean()), caught=float(accused[y == -1].mean()))
