"""The cells of a comparison: a detector on one split of a data set."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..estimator.inliers import FitOnInliers
from ..estimator.wrapper import inner_attribute, predicts_classes
from ..metrics import aupr_out, auroc, fpr_at_tpr
from .store import gave_up
from .timed import TimedProcesses

_LONGEST_ERROR = 300


@dataclass(frozen=True)
class Cell:
    """One fit, and the tests that follow.

    Attributes
    ----------
    name : str
        Of the detector.
    detector : estimator
    seed : int
    label : object
        Of the task, see `skood.compare.protocols.Task`.
    keys : dict of str to str
        By the name of the data set in the results: what tells this row from all others.
    most_rows : int or None
        It is not fitted on more.
    """

    name: str
    detector: BaseEstimator
    seed: int
    label: object
    keys: dict[str, str]
    most_rows: int | None = None


class Runner:
    """Evaluates cells: here, in other processes, or in some that are killed when a cell takes too long.

    Use it in a ``with`` statement.

    Parameters
    ----------
    settings : dict
        ``protocol``, ``max_train`` and ``max_test``.
    n_jobs : int or None
        Processes, as joblib counts them.
    timeout : float or None
        Seconds for each cell.
    bar : tqdm
        Told what is being done.
    """

    def __init__(self, settings: dict, n_jobs: int | None, timeout: float | None, bar):
        self.settings, self.n_jobs, self.timeout, self.bar = settings, n_jobs, timeout, bar
        self._open = ExitStack()
        self._n_problems = 0
        if timeout is not None:
            # A file cannot be deleted on Windows as long as a process that was killed is not quite gone.
            folder = tempfile.TemporaryDirectory(prefix="skood-", ignore_cleanup_errors=True)
            self._folder = self._open.enter_context(folder)
            self._processes = self._open.enter_context(TimedProcesses(timeout, n_jobs))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._open.close()

    def run(self, cells: Sequence[Cell], problem) -> Iterator[list[tuple[dict, dict | None]]]:
        """What `evaluate` gives for each cell of a data set, as they are finished."""
        if self.timeout is None and self.n_jobs == 1:
            for cell in cells:
                self.bar.set_postfix_str(f"{cell.name}, seed {cell.seed}")
                yield evaluate(cell, problem, self.settings)
            return
        finished = self._run_beside(cells, problem) if self.timeout is None else self._run_in_time(cells, problem)
        for rows in finished:
            self.bar.set_postfix_str(f"{rows[0][0]['detector']}, seed {rows[0][0]['seed']} done")
            yield rows

    def _run_beside(self, cells, problem):
        parallel = joblib.Parallel(n_jobs=self.n_jobs, return_as="generator_unordered")
        return parallel(joblib.delayed(evaluate)(cell, problem, self.settings) for cell in cells)

    def _run_in_time(self, cells, problem):
        if not cells:
            return
        # All processes read the same file.
        self._n_problems += 1
        path = Path(self._folder, str(self._n_problems))
        joblib.dump(problem, path)
        ready = partial(_make_ready, path, [cell.detector for cell in cells])
        for cell, outcome in self._processes.run(partial(_evaluate_from, path, self.settings), cells, ready):
            if isinstance(outcome, TimeoutError):
                yield _failed(cell, problem, self.settings, gave_up(self.timeout))
            elif isinstance(outcome, BaseException):
                yield _failed(cell, problem, self.settings, _reason(outcome))
            else:
                yield outcome


@lru_cache(maxsize=1)
def _loaded(path):
    return joblib.load(path, mmap_mode="r")


def _evaluate_from(path, settings, cell):
    return evaluate(cell, _loaded(path), settings)


def _make_ready(path, detectors):
    """Load and import what the first call would; unpickled detectors brought their own modules."""
    _loaded(path)
    for detector in detectors:
        _import_training(detector)


def _import_training(detector):
    """Import what a fit of skood's would: skorch takes seconds, which would count as those of the first fit."""
    if type(detector[-1] if isinstance(detector, Pipeline) else detector).__module__.startswith("skood."):
        import_module("skood.training.net")


def evaluate(cell: Cell, problem, settings: dict) -> list[tuple[dict, dict | None]]:
    """The rows of one cell, one a test, with the labels and scores of the test rows and the threshold.

    Scores are None if it failed.
    """
    split = _split(cell, problem, settings)
    rows = _rows(cell, split, settings)
    if cell.most_rows is not None and len(split.train) > cell.most_rows:
        reason = f"not run: {len(split.train)} training rows are more than {cell.most_rows}; see max_train."
        return [(row | {"error": reason}, None) for row in rows.values()]
    # Rows that several tests share are scored once.
    tested = pd.unique(np.concatenate([test for test, _ in split.tests.values()]))
    X = problem.X
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chosen, labels, marker = _training_rows(split, cell.detector)
            detector = _prepared(cell.detector, X, cell.seed, marker)
            _import_training(cell.detector)
            if "image_shape" not in detector.get_params():
                X = np.reshape(X, (len(X), -1))
            start = time.perf_counter()
            detector.fit(X[chosen], *([] if labels is None else [labels]))
            seconds = time.perf_counter() - start
            for row in rows.values():
                row["fit_seconds"] = seconds
            start = time.perf_counter()
            score = np.asarray(detector.score_samples(X[tested]), dtype=np.float64)
            seconds = time.perf_counter() - start
        scores = _of_each_test(split, tested, score)
        figures = {name: _figures(**own) for name, own in scores.items()}
    except Exception as error:
        return [(row | {"error": _reason(error)}, None) for row in rows.values()]
    # NaN where a detector has no threshold, kNN for one.
    threshold = float(np.ravel(inner_attribute(detector, "offset_", np.nan))[0])
    return [
        (
            row | figures[name] | {"score_seconds": seconds * len(scores[name]["y"]) / len(tested)},
            scores[name] | {"threshold": threshold},
        )
        for name, row in rows.items()
    ]


def _of_each_test(split, tested, score):
    places = pd.Index(tested)
    return {name: {"y": truth, "score": score[places.get_indexer(test)]} for name, (test, truth) in split.tests.items()}


def _figures(y, score):
    return {"auroc": auroc(y, score), "aupr_out": aupr_out(y, score), "fpr95": fpr_at_tpr(y, score)}


def _split(cell, problem, settings):
    return problem.split(cell.label, cell.keys, cell.seed, settings["max_train"], settings["max_test"])


def _rows(cell, split, settings):
    """What is known of each row before the fit, by the name of its data set."""
    return {
        name: {
            "detector": cell.name,
            "dataset": name,
            "protocol": settings["protocol"],
            "seed": cell.seed,
            "key": key,
            "n_train": len(split.train),
            "n_test": len(split.tests[name][0]),
            "error": "",
        }
        for name, key in cell.keys.items()
    }


def _failed(cell, problem, settings, reason):
    rows = _rows(cell, _split(cell, problem, settings), settings)
    return [(row | {"error": reason}, None) for row in rows.values()]


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_ERROR]


def _training_rows(split, detector):
    """Rows to fit on, their labels, and the label that marks outliers; None where there is nothing to tell.

    Classes are for a detector that predicts such, auxiliary rows for one that has a marker for them.
    """
    classes = split.classes if predicts_classes(detector) else None
    marker = inner_attribute(detector, "outlier_label") if len(split.auxiliary) else None
    if classes is None and marker is None:
        return split.train, None, None
    labels = np.ones(len(split.train), dtype=np.int64) if classes is None else classes
    own = inner_attribute(detector, "outlier_label", -1)
    if not isinstance(own, str):
        # A class must not be taken for the marker.
        labels = labels + max(0, int(own))
    if marker is None:
        return split.train, labels, None
    marked = np.full(len(split.auxiliary), marker)
    if isinstance(marker, str):
        labels, marked = labels.astype(object), marked.astype(object)
    return np.concatenate([split.train, split.auxiliary]), np.concatenate([labels, marked]), marker


def _prepared(detector, X, seed, marker):
    detector = clone(detector)
    params = detector.get_params()
    seeded = {name: seed for name in params if name == "random_state" or name.endswith("__random_state")}
    detector.set_params(**seeded)
    if np.ndim(X) == 4 and "image_shape" in params:
        return detector
    scaler = StandardScaler()
    if marker is not None:
        # A scaler fitted on outliers far away would shrink everything else.
        scaler = FitOnInliers(scaler, outlier_label=marker)
    return make_pipeline(scaler, detector)
