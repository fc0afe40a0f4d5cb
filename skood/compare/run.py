"""Many detectors, many data sets, one table: `compare_detectors` and ``python -m skood compare``."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM
from tqdm import tqdm

from .. import __version__, datasets
from .._warn import warn_user
from .cells import Cell, Runner
from .protocols import PROTOCOLS, OODPair, split
from .pyod import PREFIX, find_pyod
from .store import COLUMNS, Store
from .summary import format_table, summarize

__all__ = [
    "BASELINES",
    "DETECTORS",
    "NearestNeighborsDetector",
    "compare_detectors",
    "format_table",
    "split",
    "summarize",
]


class NearestNeighborsDetector(OutlierMixin, BaseEstimator):
    """Scores a row by minus its mean distance to the nearest training rows: the baseline to beat.

    Parameters
    ----------
    n_neighbors : int, default=5
        Nearest training rows to average over (fewer where there are fewer rows).
    """

    def __init__(self, n_neighbors=5):
        self.n_neighbors = n_neighbors

    def fit(self, X, y=None):
        """Keep the training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self : object
        """
        self.neighbors_ = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(X))).fit(X)
        return self

    def score_samples(self, X):
        """Minus the mean distance to the nearest training rows; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
        """
        return -self.neighbors_.kneighbors(X)[0].mean(axis=1)


def _default(name: str) -> BaseEstimator:
    """Return skood's detector of that name at its defaults; imported when asked for, since that loads torch."""
    return getattr(import_module("skood"), name)()


# Every detector at its defaults, skood's first.
DETECTORS: dict[str, Callable[[], BaseEstimator]] = {
    "DUMDetector": partial(_default, "DUMDetector"),
    "RejectClassDetector": partial(_default, "RejectClassDetector"),
    "NegSampleVAE": partial(_default, "NegSampleVAE"),
    "RotationAuxClassifier": partial(_default, "RotationAuxClassifier"),
    "ResidualAdapterDetector": partial(_default, "ResidualAdapterDetector"),
    "IsolationForest": IsolationForest,
    "LOF": lambda: LocalOutlierFactor(novelty=True),
    "OneClassSVM": OneClassSVM,
    "EllipticEnvelope": EllipticEnvelope,
    "kNN": NearestNeighborsDetector,
}

# Whatever is compared, ``python -m skood compare`` puts these beside it.
BASELINES = ("IsolationForest", "LOF", "OneClassSVM", "kNN")
# Training takes time in proportion to the square of the rows, or more.
_MOST_ROWS = {"OneClassSVM": 10_000}

Data = tuple[np.ndarray, np.ndarray] | OODPair


def compare_detectors(
    detectors: Mapping[str, BaseEstimator] | Sequence[BaseEstimator | str] | None = None,
    datasets: Mapping[str, Data | Callable[[], Data]] | Sequence[str] | None = None,
    *,
    protocol: str = "novelty",
    seeds: int | Sequence[int] = 3,
    max_train: int | None = 10_000,
    max_test: int | None = 50_000,
    timeout: float | None = None,
    n_jobs: int | None = 1,
    out: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Fit every detector on every data set and measure how well it tells outliers from inliers.

    Features are standardised on the training rows. A detector that has a parameter ``image_shape`` gets images as they
    are; for the others they are flattened and standardised.

    Parameters
    ----------
    detectors : mapping of str to estimator, sequence of estimator or str, or None, default=None
        Detectors by the name they are to have in the table: anything with ``fit`` and ``score_samples``, higher = more
        normal. In a sequence their class names them, or they are names of `DETECTORS`, or of PyOD's where that is
        installed: "pyod:ABOD". None is all of `DETECTORS`. Each is cloned, and its ``random_state`` set to the seed.
        OneClassSVM by name is not fitted on more than 10,000 rows.
    datasets : mapping of str to data, sequence of str or None, default=None
        Data sets by name: a pair (X, y) of arrays, or a function that loads it. What y holds, the protocol says. Or
        names of `skood.datasets.BUILT_IN`; None is all of them, or digits for the protocols with classes.
    protocol : {"novelty", "contaminated", "holdout-class", "one-versus-rest", "ood-pair"}, default="novelty"
        In the first two, y holds -1 for outliers. "novelty" trains on a random half of the inliers and tests on the
        other half and all outliers. "contaminated" trains on a random half of all rows, outliers among them and not
        marked, and tests on the other half.

        In the next two, y holds classes, of which each in turn makes a row of the results, such as "digits/3", and all
        are split into a random half to train and a half to test on. "holdout-class" has the class for outliers and
        trains on the others; detectors with ``predict_class`` are told the classes. "one-versus-rest" trains on the
        class and has the others for outliers. Rows with y == -1 are auxiliary outliers, as below.

        "ood-pair" takes `skood.compare.OODPair`: it trains on a random half of the in-distribution rows and tests on
        the other half against each set of unseen rows, which makes a row such as "mnist/kmnist". Auxiliary outliers go,
        marked, to detectors with a parameter ``outlier_label``; the others do not see them.
    seeds : int or sequence of int, default=3
        Repetitions, or the seeds themselves. A seed fixes both the split and the detector's ``random_state``.
    max_train, max_test : int or None, default=10_000 and 50_000
        At most so many rows to train on (and so many auxiliary ones) and to test on, drawn at random (the test rows
        with the same share of outliers). None sets no limit.
    timeout : float or None, default=None
        Seconds that a fit with the scores that follow may take. Each then runs in another process, which is killed when
        they are over; ``error`` is "t/o after ... s". None sets no limit.
    n_jobs : int or None, default=1
        Processes, as joblib counts them.
    out : str, Path or None, default=None
        Directory for ``results.csv``, written row by row, and for the scores of the first seed. What is there already,
        from the same detectors, data and settings, is not done again (unless it failed, or was given up after less time
        than it may take now). Other rows stay.
    progress : bool, default=False
        Whether to show a progress bar on standard error.

    Returns
    -------
    results : DataFrame
        One row for each detector, data set and seed: ``auroc``, ``aupr_out`` (outliers positive), ``fpr95`` (false
        positive rate at 95 % true positive rate, outliers positive), ``fit_seconds``, ``score_seconds``, ``n_train``
        (without auxiliary rows), ``n_test``, ``error`` (why a detector failed; empty if it did not). If interrupted by
        the keyboard, the rows so far, with a RuntimeWarning and ``results.attrs["interrupted"]`` set.

    Raises
    ------
    ValueError
        If a name is unknown, the protocol is or does not fit the data, or there is nothing to compare.

    Examples
    --------
    >>> from skood import compare_detectors
    >>> results = compare_detectors(["IsolationForest", "kNN"], ["wine"], seeds=1)
    >>> results[["detector", "auroc"]].round(1)
              detector  auroc
    0  IsolationForest    1.0
    1              kNN    1.0
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} must be one of {', '.join(PROTOCOLS)}.")
    if timeout is not None and not (isinstance(timeout, Real) and 0 < timeout < math.inf):
        raise ValueError(f"timeout={timeout!r} must be a positive number of seconds, or None.")
    limits = _limits(detectors)
    named = _named_detectors(detectors)
    loaders = _named_datasets(datasets, protocol)
    seeds = list(range(int(seeds))) if isinstance(seeds, (int, Integral)) else list(seeds)
    if not (named and loaders and seeds):
        raise ValueError("there is nothing to compare: give at least one detector, one data set and one seed.")
    try:
        store = Store(out)
    except OSError as error:
        raise ValueError(f"cannot write into {out}: {error.strerror}.") from error
    settings = {"protocol": protocol, "max_train": max_train, "max_test": max_test}
    fingerprints = {name: _fingerprint(detector) for name, detector in named.items()}
    rows, names, interrupted = [], [], False
    bar = tqdm(total=len(named) * len(loaders) * len(seeds), disable=not progress, unit="fit", dynamic_ncols=True)
    try:
        with Runner(settings, n_jobs, timeout, bar) as runner:
            for dataset, loader in loaders.items():
                bar.set_description(dataset)
                problem = PROTOCOLS[protocol](dataset, _loaded(dataset, loader))
                tasks, todo = problem.tasks(), []
                names += [name for task in tasks for name in task.identities]
                bar.total += (sum(len(task.identities) for task in tasks) - 1) * len(named) * len(seeds)
                for cell in _cells(tasks, named, fingerprints, seeds, settings, limits):
                    done = {test: store.find(key, cell.name, test, timeout) for test, key in cell.keys.items()}
                    rows += [row for row in done.values() if row is not None]
                    missing = {test: key for test, key in cell.keys.items() if done[test] is None}
                    bar.update(len(done) - len(missing))
                    if missing:
                        todo.append(replace(cell, keys=missing))
                for finished in runner.run(todo, problem):
                    for row, scores in finished:
                        if row["seed"] == seeds[0] and scores is not None:
                            store.add_scores(row, scores)
                        store.add(row)
                        rows.append(row)
                        bar.update()
    except KeyboardInterrupt:
        interrupted = True
        warn_user(f"interrupted: {len(rows)} of {bar.total} fits are finished.", RuntimeWarning)
    finally:
        bar.close()
    order: dict[Any, list] = {"dataset": names, "detector": list(named), "seed": seeds}
    results = pd.DataFrame(rows, columns=COLUMNS)
    results = results.sort_values(list(order), key=lambda column: column.map(order[column.name].index))
    results = results.drop(columns="key").reset_index(drop=True)
    results.attrs["interrupted"] = interrupted
    return results


def _cells(tasks, detectors, fingerprints, seeds, settings, limits):
    for task in tasks:
        for name, detector in detectors.items():
            for seed in seeds:
                keys = {
                    test: joblib.hash((__version__, identity, fingerprints[name], seed, settings | more))
                    for test, (identity, more) in task.identities.items()
                }
                yield Cell(name, detector, seed, task.label, keys, limits.get(name))


def _named_detectors(detectors):
    if isinstance(detectors, Mapping):
        return dict(detectors)
    known = {name.lower(): name for name in DETECTORS}
    named = {}
    for detector in DETECTORS if detectors is None else detectors:
        if not isinstance(detector, str):
            name = type(detector).__name__
        elif detector.lower() in known:
            name = known[detector.lower()]
            detector = DETECTORS[name]()
        elif detector.lower().startswith(PREFIX):
            name, detector = find_pyod(detector)
        else:
            raise ValueError(f"no detector {detector!r}; there are {', '.join(DETECTORS)}, and pyod:NAME.")
        if name in named:
            raise ValueError(f"two detectors are named {name}; give a dictionary of names and detectors.")
        named[name] = detector
    return named


def _limits(detectors):
    """The most rows for each detector that is given by name; who brings an estimator knows what it takes."""
    if isinstance(detectors, Mapping):
        return {}
    chosen = {name.lower() for name in (DETECTORS if detectors is None else detectors) if isinstance(name, str)}
    return {name: most for name, most in _MOST_ROWS.items() if name.lower() in chosen}


def _named_datasets(chosen, protocol):
    if isinstance(chosen, Mapping):
        return dict(chosen)
    classes = protocol in ("holdout-class", "one-versus-rest")
    if protocol == "ood-pair":
        raise ValueError("protocol='ood-pair' has no data sets of its own; give a dictionary of names and OODPair.")
    if chosen is None:
        chosen = ["digits"] if classes else datasets.BUILT_IN
    return {name: datasets.load(name, classes=classes) for name in chosen}


def _loaded(name, data) -> Data:
    if not callable(data):
        return data
    try:
        return data()
    except Exception as error:
        raise ValueError(f"data set {name!r} cannot be loaded: {error}") from error


def _fingerprint(detector):
    """What tells a detector from another with other parameters, the weights of modules included, in any process.

    What cannot be told, a lambda for one, is taken for new each time: done again rather than mistaken.
    """
    values = [type(detector).__module__, type(detector).__qualname__]
    for name, value in sorted(detector.get_params().items()):
        if hasattr(value, "state_dict"):
            state = {key: tensor.detach().cpu().numpy() for key, tensor in value.state_dict().items()}
            value = (repr(value), state)
        elif hasattr(value, "get_params"):
            # Its parameters are listed beside it.
            value = type(value).__qualname__
        values.append((name, value))
    try:
        return joblib.hash(values)
    except Exception:
        return uuid.uuid4().hex
