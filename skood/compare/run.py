"""Compare many detectors on many data sets: `compare_detectors`, which ``python -m skood compare`` calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path

import pandas as pd
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM
from tqdm import tqdm

from .. import datasets
from .._warn import warn_user
from ..estimator.versioned import VersionedEstimator
from .cells import Settings
from .comparison import Comparison, Data, Entrant, check_names, prepare
from .fingerprint import fingerprint
from .protocols import PROTOCOLS, OODPair, split
from .pyod import PREFIX, find_pyod
from .runner import Runner
from .store import Store
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


# This class must stay in this module: a stored row's key depends on the module of its detector, so that in another
# module every stored row of kNN would be computed again.
class NearestNeighborsDetector(OutlierMixin, VersionedEstimator):
    """Score a row by minus its mean distance to the nearest training rows: the baseline to compare with.

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
        """Return minus the mean distance to the nearest training rows; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
        """
        return -self.neighbors_.kneighbors(X)[0].mean(axis=1)


def _default(name: str) -> BaseEstimator:
    """Return skood's detector of a name, at its defaults. It is imported here, because that loads torch."""
    return getattr(import_module("skood"), name)()


# Every detector at its defaults, skood's first. They are fitted in this order: after DUM, which shows the first row
# soon, the slow ones come first, so that at the end no process waits for another's long fit.
DETECTORS: dict[str, Callable[[], BaseEstimator]] = {
    "DUMDetector": partial(_default, "DUMDetector"),
    "ResidualAdapterDetector": partial(_default, "ResidualAdapterDetector"),
    "RotationAuxClassifier": partial(_default, "RotationAuxClassifier"),
    "RejectClassDetector": partial(_default, "RejectClassDetector"),
    "NegSampleVAE": partial(_default, "NegSampleVAE"),
    "IsolationForest": IsolationForest,
    "LOF": lambda: LocalOutlierFactor(novelty=True),
    "OneClassSVM": OneClassSVM,
    "EllipticEnvelope": EllipticEnvelope,
    "kNN": NearestNeighborsDetector,
}

# What each detector is made for, as the table of the command shows it. On other data its figures say little about it.
MADE_FOR = {
    "DUMDetector": "vectors, embeddings",
    "ResidualAdapterDetector": "a trained network",
    "RotationAuxClassifier": "classes of images",
    "RejectClassDetector": "classes and a corpus",
    "NegSampleVAE": "images alone",
    "IsolationForest": "vectors",
    "LOF": "vectors",
    "OneClassSVM": "vectors",
    "EllipticEnvelope": "vectors",
    "kNN": "vectors",
}

# ``python -m skood compare`` adds these to whatever is compared.
BASELINES = ("IsolationForest", "LOF", "OneClassSVM", "kNN")
# Largest number of training rows: the time of a fit grows with its square, or faster.
_MOST_ROWS = {"OneClassSVM": 10_000}

# Data sets, or functions that load them, by name.
Loaders = dict[str, Data | Callable[[], Data]]


def compare_detectors(
    detectors: Mapping[str, BaseEstimator] | Sequence[BaseEstimator | str] | BaseEstimator | str | None = None,
    datasets: Mapping[str, Data | Callable[[], Data]] | Sequence[str] | str | None = None,
    *,
    protocol: str = "novelty",
    seeds: int | Sequence[int] = 3,
    max_train: int | None = 10_000,
    max_test: int | None = 50_000,
    decisions: bool = True,
    timeout: float | None = None,
    n_jobs: int | None = 1,
    out: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Fit every detector on every data set and measure how well it tells outliers from inliers.

    Features are standardised on the training rows. A detector that has a parameter ``image_shape`` gets images as they
    are, and so does a wrapper of one, and a Pipeline whose first step has it; for the others they are flattened and
    standardised.

    Parameters
    ----------
    detectors : mapping of str to estimator, sequence of estimator or str, estimator, str, or None, default=None
        Detectors by their names in the table: anything with ``fit`` and ``score_samples``, higher = more normal. A
        sequence holds detectors, which are named by their class, or names: those of `DETECTORS`, or "pyod:ABOD" and the
        like for PyOD's, if it is installed; one alone needs no sequence. None is all of `DETECTORS`. Each is cloned,
        and its ``random_state`` set to the seed. OneClassSVM, if given by name, is not fitted on more than 10,000 rows.
    datasets : mapping of str to data, sequence of str, str or None, default=None
        Data sets by name: a pair (X, y) of arrays, or a function that loads it; what y holds depends on the protocol. X
        may be a DataFrame: its text, dates and missing values are encoded, and the encoders are fitted on the training
        rows of each split. A sequence holds names of `skood.datasets.BUILT_IN`. None is all of these under the first
        two protocols, the classes of digits under the next two, and under "ood-pair" images of the digits 0 to 4, with
        5 to 7 as auxiliary outliers, against 8 and against 9.
    protocol : {"novelty", "contaminated", "holdout-class", "one-versus-rest", "ood-pair"}, default="novelty"
        In the first two, y holds -1 for outliers. "novelty" trains on a random half of the inliers and tests on the
        other half and all outliers. "contaminated" trains on a random half of all rows, which include outliers that are
        not marked, and tests on the other half.

        In the next two, y holds classes. Each class in turn makes a row of the results, such as "digits/3"; a random
        half of each class is for training, the other for testing. "holdout-class" treats the class as outliers and
        trains on the others; detectors with ``predict_class`` get the classes. "one-versus-rest" trains on the class
        and treats the others as outliers. Rows with y == -1 are auxiliary outliers, as below. The classes keep their
        labels, unless one of them is a detector's ``outlier_label`` or cannot stand beside it; then the detector gets
        all classes as numbers, in their sorted order.

        "ood-pair" takes `skood.compare.OODPair`. It trains on a random half of the in-distribution rows and tests on
        the other half against each set of unseen rows, which makes a row such as "mnist/kmnist". Auxiliary outliers are
        passed, with their label, to detectors that have a parameter ``outlier_label``; the others do not get them.
    seeds : int or sequence of int, default=3
        Repetitions, or the seeds themselves. A seed fixes both the split and the detector's ``random_state``.
    max_train, max_test : int or None, default=10_000 and 50_000
        Largest numbers of rows to train on (and of auxiliary rows) and to test on. They are drawn at random, the test
        rows with the same share of outliers. None sets no limit.
    decisions : bool, default=True
        Whether to measure ``false_alarms`` and ``caught``. If False, they are NaN, and skood's detectors are fitted
        once instead of up to four times, since no threshold is needed. The other figures are the same.
    timeout : float or None, default=None
        Seconds that a fit may take, with the scores and decisions that follow. It runs in another process, which is
        killed after that time; ``error`` is then "t/o after ... s". None sets no limit.
    n_jobs : int or None, default=1
        Processes, as joblib counts them.
    out : str, Path or None, default=None
        Directory for ``results.csv``, written row by row, and for the scores of the first seed. Rows that it holds
        already, of the same detectors, data and settings, are not done again, unless they failed, or were stopped by a
        shorter ``timeout``. Other rows stay.
    progress : bool, default=False
        Whether to show a progress bar on standard error, and a line for each row when it is finished.

    Returns
    -------
    results : DataFrame
        One row for each detector, data set and seed: ``auroc``, ``aupr_out`` (outliers positive), ``fpr95`` (false
        positive rate at 95 % true positive rate, outliers positive), ``false_alarms`` and ``caught`` (see below),
        ``fit_seconds``, ``score_seconds``, ``n_train`` (without auxiliary rows), ``n_test``, ``error`` (why a detector
        failed; empty if it did not). After Ctrl-C these are the rows that were finished;
        ``results.attrs["interrupted"]`` is then True.

    Raises
    ------
    ValueError
        If a name or the protocol is unknown, the protocol does not fit the data, two data sets have the same name in
        the results, or there is nothing to compare. This is found before the first fit. Only of functions that load
        data it is found when they are called; if rows are finished by then, it is the ``error`` of their rows.

    Warns
    -----
    RuntimeWarning
        If the comparison was interrupted by Ctrl-C.

    Notes
    -----
    AUROC, AUPR and FPR95 need no threshold: they measure how well a detector ranks. ``false_alarms`` and ``caught``
    measure what ``predict`` decides, at the detector's own threshold. They are the shares of the test inliers and of
    the test outliers that are predicted -1: the false positive rate and the recall. They are NaN for a detector without
    ``predict``, such as `skood.compare.NearestNeighborsDetector`, or with other labels than +1 and -1. Unless
    ``decisions`` is False, ``fit_seconds`` include the time for the threshold.

    In ``out`` a detector is the same if its class and its parameters are, and what it holds that is trained, such as an
    encoder or the classifier of an `OODScorer`. Classes and functions of your own are the same if their code is; the
    functions that they call are not looked at. What cannot be compared, such as a lambda, is never the same.

    Rows in ``out`` that were written before these two columns existed are not done again, and hold NaN there. To have
    the two columns, name another directory.

    Examples
    --------
    >>> from skood import compare_detectors
    >>> results = compare_detectors(["IsolationForest", "kNN"], ["wine"], seeds=1)
    >>> results[["detector", "auroc"]].round(1)
              detector  auroc
    0  IsolationForest    1.0
    1              kNN    1.0
    """
    _check_arguments(protocol, timeout, max_train=max_train, max_test=max_test)
    entrants, loaders = _entrants(detectors), _named_datasets(datasets, protocol)
    seeds = list(range(int(seeds))) if isinstance(seeds, (int, Integral)) else list(seeds)
    if not (entrants and loaders and seeds):
        raise ValueError("there is nothing to compare: give at least one detector, one data set and one seed.")
    check_names(entrant.name for entrant in entrants)
    check_names(loaders)
    settings, store = Settings(protocol, max_train, max_test, decisions), _opened(out)
    n_fits = len(entrants) * len(loaders) * len(seeds)
    with tqdm(total=n_fits, disable=not progress, unit="fit", dynamic_ncols=True) as bar:
        comparison = Comparison(entrants, seeds, settings, timeout, store, bar)
        try:
            # What does not fit is found before the first fit. Functions are called one by one: memory may not hold all.
            ready = {name: prepare(name, data, protocol) for name, data in loaders.items() if not callable(data)}
            check_names(name for dataset in ready.values() for name in dataset.names)
            with Runner(settings, n_jobs, timeout, bar) as runner:
                for name, data in loaders.items():
                    load = partial(prepare, name, data, protocol) if callable(data) else partial(ready.pop, name)
                    comparison.run(name, load, runner)
        except KeyboardInterrupt:
            comparison.interrupted = True
            warn_user(f"interrupted: {len(comparison.rows)} of {bar.total} fits are finished.", RuntimeWarning)
    return comparison.results()


def _check_arguments(protocol: str, timeout: float | None, **n_rows: int | None) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} must be one of {', '.join(PROTOCOLS)}.")
    if timeout is not None and not (isinstance(timeout, Real) and 0 < timeout < math.inf):
        raise ValueError(f"timeout={timeout!r} must be a positive number of seconds, or None.")
    for name, number in n_rows.items():
        if number is not None and not (isinstance(number, Integral) and not isinstance(number, bool) and number > 0):
            raise ValueError(f"{name}={number!r} must be a positive integer, or None for all rows.")


def _opened(out: str | Path | None) -> Store:
    """Return the store in a directory; raise a ValueError if it cannot be written."""
    try:
        return Store(out)
    except OSError as error:
        raise ValueError(f"cannot write into {out}: {error.strerror}. Name another directory.") from error


# --------------------------------------------------------------------------------------------------------------------
# What is compared


def _entrants(
    detectors: Mapping[str, BaseEstimator] | Sequence[BaseEstimator | str] | BaseEstimator | str | None,
) -> list[Entrant]:
    """Return the detectors with their names; find those that are given by name."""
    if isinstance(detectors, Mapping):
        return [_entrant(name, detector) for name, detector in detectors.items()]
    if isinstance(detectors, str) or hasattr(detectors, "get_params"):
        # One detector. A Pipeline would be taken for the sequence of its steps.
        detectors = [detectors]
    entrants: dict[str, Entrant] = {}
    for detector in DETECTORS if detectors is None else detectors:
        entrant = _found(detector) if isinstance(detector, str) else _entrant(_class_of(detector).__name__, detector)
        if entrant.name in entrants:
            raise ValueError(f"two detectors are named {entrant.name}; give a dictionary of names and detectors.")
        entrants[entrant.name] = entrant
    return list(entrants.values())


def _found(name: str) -> Entrant:
    """Return the detector of a name, in upper or lower case.

    Only these detectors have a limit of rows: users know how long their own estimators take.
    """
    known = {known.lower(): known for known in DETECTORS}
    if name.lower() in known:
        name = known[name.lower()]
        return _entrant(name, DETECTORS[name](), _MOST_ROWS.get(name))
    if name.lower().startswith(PREFIX):
        return _entrant(*find_pyod(name))
    raise ValueError(f"there is no detector {name!r}; choose from {', '.join(DETECTORS)} and pyod:NAME.")


def _entrant(name: str, detector: BaseEstimator, most_rows: int | None = None) -> Entrant:
    if isinstance(detector, type):
        raise ValueError(f"detector {name!r} is a class: pass a detector, {detector.__name__}().")
    if not hasattr(detector, "get_params"):
        raise ValueError(
            f"detector {name!r} is of type {type(detector).__name__}, and no estimator of scikit-learn's kind: derive "
            f"it from sklearn.base.BaseEstimator."
        )
    return Entrant(name, detector, most_rows, fingerprint(detector))


def _class_of(detector: BaseEstimator | type) -> type:
    return detector if isinstance(detector, type) else type(detector)


def _named_datasets(chosen: Mapping[str, Data | Callable[[], Data]] | Sequence[str] | None, protocol: str) -> Loaders:
    """Return the data sets by name, and find those that are given by name alone."""
    if isinstance(chosen, Mapping):
        return dict(chosen)
    classes = protocol in ("holdout-class", "one-versus-rest")
    if protocol == "ood-pair":
        if chosen is not None:
            raise ValueError("datasets must be a dictionary of names and OODPair, or None, for protocol='ood-pair'.")
        return {"digits": _digit_pair}
    if chosen is None:
        chosen = ["digits"] if classes else datasets.BUILT_IN
    elif isinstance(chosen, str):
        chosen = [chosen]
    return {name: datasets.load(name, classes=classes) for name in chosen}


def _digit_pair() -> OODPair:
    """Return images of digits: known classes, others to learn from, and two that no detector has seen."""
    X, digit = datasets.load("digits", classes=True)
    unseen = {str(number): X[digit == number] for number in (8, 9)}
    return OODPair(X[digit < 5], unseen, y=digit[digit < 5], auxiliary=X[(digit > 4) & (digit < 8)])
