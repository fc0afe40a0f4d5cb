"""Compare many detectors on many data sets: `compare_detectors`, which ``python -m skood compare`` calls."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

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
from ..estimator.versioned import VersionedEstimator
from .cells import Cell, Settings
from .fingerprint import fingerprint
from .protocols import PROTOCOLS, OODPair, Task, split
from .pyod import PREFIX, find_pyod
from .row import COLUMNS, RANKS_ALONE, ResultRow
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

Data = tuple[np.ndarray, np.ndarray] | OODPair
# Data sets, or functions that load them, by name.
Loaders = dict[str, Data | Callable[[], Data]]


def compare_detectors(
    detectors: Mapping[str, BaseEstimator] | Sequence[BaseEstimator | str] | None = None,
    datasets: Mapping[str, Data | Callable[[], Data]] | Sequence[str] | None = None,
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
    are; for the others they are flattened and standardised.

    Parameters
    ----------
    detectors : mapping of str to estimator, sequence of estimator or str, or None, default=None
        Detectors by their names in the table: anything with ``fit`` and ``score_samples``, higher = more normal. A
        sequence holds detectors, which are named by their class, or names: those of `DETECTORS`, or "pyod:ABOD" and the
        like for PyOD's, if it is installed. None is all of `DETECTORS`. Each is cloned, and its ``random_state`` set to
        the seed. OneClassSVM, if given by name, is not fitted on more than 10,000 rows.
    datasets : mapping of str to data, sequence of str or None, default=None
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
        and treats the others as outliers. Rows with y == -1 are auxiliary outliers, as below.

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
        If a name or the protocol is unknown, the protocol does not fit the data, or there is nothing to compare.

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
    _check_arguments(protocol, timeout)
    entrants, loaders = _entrants(detectors), _named_datasets(datasets, protocol)
    seeds = list(range(int(seeds))) if isinstance(seeds, (int, Integral)) else list(seeds)
    if not (entrants and loaders and seeds):
        raise ValueError("there is nothing to compare: give at least one detector, one data set and one seed.")
    _check_names(entrant.name for entrant in entrants)
    settings, store = Settings(protocol, max_train, max_test, decisions), _opened(out)
    n_fits = len(entrants) * len(loaders) * len(seeds)
    with tqdm(total=n_fits, disable=not progress, unit="fit", dynamic_ncols=True) as bar:
        comparison = _Comparison(entrants, seeds, settings, timeout, store, bar)
        try:
            with Runner(settings, n_jobs, timeout, bar) as runner:
                for dataset, data in loaders.items():
                    comparison.run(dataset, data, runner)
        except KeyboardInterrupt:
            comparison.interrupted = True
            warn_user(f"interrupted: {len(comparison.rows)} of {bar.total} fits are finished.", RuntimeWarning)
    return comparison.results()


@dataclass
class _Comparison:
    """Hold a comparison that is running: what is left to do, and what is finished.

    Attributes
    ----------
    entrants : list of _Entrant
    seeds : list of int
    settings : Settings
    timeout : float or None
        Seconds for each fit.
    store : Store
        Stores the finished rows, and has those that were finished earlier.
    bar : tqdm
        Counts rows.
    rows : list of ResultRow
        The finished rows, without scores.
    datasets : list of str
        Names in the results, in their order there.
    interrupted : bool
        Whether the user stopped it.
    """

    entrants: list[_Entrant]
    seeds: list[int]
    settings: Settings
    timeout: float | None
    store: Store
    bar: tqdm
    rows: list[ResultRow] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    interrupted: bool = False

    def run(self, dataset: str, data: Data | Callable[[], Data], runner: Runner) -> None:
        """Compare the detectors on one data set: take the stored rows; evaluate and store the others."""
        self.bar.set_description(dataset)
        problem = PROTOCOLS[self.settings.protocol](dataset, _loaded(dataset, data))
        tasks = problem.tasks()
        self._announce(tasks)
        unfinished = [cell for cell in map(self._without_finished, self._cells(tasks)) if cell.keys]
        for rows in runner.run(unfinished, problem):
            for row in rows:
                self._keep(row)

    def _announce(self, tasks: list[Task]) -> None:
        """Add the names of the rows to come, and correct their number; each data set was counted as one row before."""
        names = [name for task in tasks for name in task.identities]
        _check_names(names)
        self.datasets += names
        self.bar.total += (len(names) - 1) * len(self.entrants) * len(self.seeds)

    def _cells(self, tasks: list[Task]) -> Iterator[Cell]:
        """Combine tasks, detectors and seeds."""
        for task in tasks:
            for entrant in self.entrants:
                for seed in self.seeds:
                    keys = {
                        name: self._key(identity, entrant, seed, more)
                        for name, (identity, more) in task.identities.items()
                    }
                    yield Cell(entrant.name, entrant.detector, seed, task.label, keys, entrant.most_rows)

    def _key(self, identity: str, entrant: _Entrant, seed: int, more: dict) -> str:
        """Return a hash of everything that the figures of a row depend on."""
        settings = asdict(self.settings)
        suffix = "" if settings.pop("decisions") else RANKS_ALONE
        return joblib.hash((__version__, identity, entrant.fingerprint, seed, settings | more)) + suffix

    def _without_finished(self, cell: Cell) -> Cell:
        """Take the stored rows of a cell, and return the cell with the tests that are left."""
        missing = {}
        for name, key in cell.keys.items():
            place = cell.name, name, self.settings.protocol, int(cell.seed)
            row = self.store.find(place, key, self.timeout)
            scored = row is not None and row.seed == self.seeds[0] and not row.error
            if row is None or (scored and not self.store.has_sound_scores(row)):
                missing[name] = key
            else:
                self.rows.append(row)
                self.bar.update()
        return replace(cell, keys=missing)

    def _keep(self, row: ResultRow) -> None:
        """Store a finished row, with its scores if it is of the first seed."""
        if row.seed == self.seeds[0]:
            self.store.add_scores(row)
        # The scores of all rows together may not fit into memory.
        row = replace(row, scores=None)
        self.store.add(row)
        self.rows.append(row)
        if not self.bar.disable:
            # Standard output is for the table.
            outcome = row.error or f"AUROC {row.auroc:.3f}, {row.fit_seconds:.1f} s"
            line = f"{row.dataset}, {row.detector}, seed {row.seed}: {outcome}"
            # tqdm's own use of its lock turns a Ctrl-C that comes while it waits for it into a RuntimeError.
            with tqdm.get_lock():
                self.bar.write(line, file=sys.stderr, nolock=True)
        self.bar.update()

    def results(self) -> pd.DataFrame:
        """Return the finished rows, sorted by data sets, detectors and seeds in their order here."""
        names = [entrant.name for entrant in self.entrants]
        order: dict[Any, list] = {"dataset": self.datasets, "detector": names, "seed": self.seeds}
        results = pd.DataFrame([row.record for row in self.rows], columns=COLUMNS)
        results = results.sort_values(list(order), key=lambda column: column.map(order[column.name].index))
        results = results.drop(columns="key").reset_index(drop=True)
        results.attrs["interrupted"] = self.interrupted
        return results


def _check_arguments(protocol: str, timeout: float | None) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} must be one of {', '.join(PROTOCOLS)}.")
    if timeout is not None and not (isinstance(timeout, Real) and 0 < timeout < math.inf):
        raise ValueError(f"timeout={timeout!r} must be a positive number of seconds, or None.")


def _check_names(names: Iterable[str]) -> None:
    """Refuse names that would end a line of ``results.csv``, or that UTF-8 cannot hold."""
    for name in names:
        text = str(name)
        in_utf8 = text == text.encode(errors="replace").decode()
        if text.splitlines() != [text] or "\0" in text or not in_utf8:
            raise ValueError(
                f"{name!r} cannot name a detector or a data set: give a name that is one line of text in UTF-8."
            )


def _opened(out: str | Path | None) -> Store:
    """Return the store in a directory; raise a ValueError if it cannot be written."""
    try:
        return Store(out)
    except OSError as error:
        raise ValueError(f"cannot write into {out}: {error.strerror}. Name another directory.") from error


# --------------------------------------------------------------------------------------------------------------------
# What is compared


class _Entrant(NamedTuple):
    """Hold a detector that is compared.

    Attributes
    ----------
    name : str
        Its name in the results.
    detector : estimator
    most_rows : int or None
        Largest number of training rows; None sets no limit.
    fingerprint : str
        See `fingerprint`.
    """

    name: str
    detector: BaseEstimator
    most_rows: int | None
    fingerprint: str


def _entrants(detectors: Mapping[str, BaseEstimator] | Sequence[BaseEstimator | str] | None) -> list[_Entrant]:
    """Return the detectors with their names; find those that are given by name."""
    if isinstance(detectors, Mapping):
        return [_entrant(name, detector) for name, detector in detectors.items()]
    entrants: dict[str, _Entrant] = {}
    for detector in DETECTORS if detectors is None else detectors:
        entrant = _found(detector) if isinstance(detector, str) else _entrant(type(detector).__name__, detector)
        if entrant.name in entrants:
            raise ValueError(f"two detectors are named {entrant.name}; give a dictionary of names and detectors.")
        entrants[entrant.name] = entrant
    return list(entrants.values())


def _found(name: str) -> _Entrant:
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


def _entrant(name: str, detector: BaseEstimator, most_rows: int | None = None) -> _Entrant:
    return _Entrant(name, detector, most_rows, fingerprint(detector))


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
    return {name: datasets.load(name, classes=classes) for name in chosen}


def _digit_pair() -> OODPair:
    """Return images of digits: known classes, others to learn from, and two that no detector has seen."""
    X, digit = datasets.load("digits", classes=True)
    unseen = {str(number): X[digit == number] for number in (8, 9)}
    return OODPair(X[digit < 5], unseen, y=digit[digit < 5], auxiliary=X[(digit > 4) & (digit < 8)])


def _loaded(name: str, data: Data | Callable[[], Data]) -> Data:
    """Return a data set, loaded if it is a function that loads it."""
    if not callable(data):
        return data
    try:
        return data()
    except Exception as error:
        raise ValueError(f"data set {name!r} cannot be loaded: {error}") from error
