"""Many detectors, many data sets, one table: `compare_detectors` and ``python -m skood compare``."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from numbers import Integral
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from tqdm import tqdm

from . import __version__, datasets
from ._store import COLUMNS, Store
from ._wrapper import inner_attribute
from .metrics import aupr_out, auroc, fpr_at_tpr

__all__ = ["DETECTORS", "NearestNeighborsDetector", "compare_detectors", "format_table", "summarize"]

_LONGEST_ERROR = 300


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


def _dum():
    from .dum import DUMDetector

    return DUMDetector()


def _reject():
    from .reject import RejectClassDetector

    return RejectClassDetector()


def _rotation():
    from .rotation import RotationAuxClassifier

    return RotationAuxClassifier()


def _adapters():
    from .adapters import ResidualAdapterDetector

    return ResidualAdapterDetector()


def _vae():
    from .vae import NegSampleVAE

    return NegSampleVAE()


# Every detector at its defaults, skood's first.
DETECTORS: dict[str, Callable[[], BaseEstimator]] = {
    "DUMDetector": _dum,
    "RejectClassDetector": _reject,
    "NegSampleVAE": _vae,
    "RotationAuxClassifier": _rotation,
    "ResidualAdapterDetector": _adapters,
    "IsolationForest": IsolationForest,
    "LOF": lambda: LocalOutlierFactor(novelty=True),
    "OneClassSVM": OneClassSVM,
    "EllipticEnvelope": EllipticEnvelope,
    "kNN": NearestNeighborsDetector,
}

Data = tuple[np.ndarray, np.ndarray]


def compare_detectors(
    detectors: Mapping[str, BaseEstimator] | Sequence[BaseEstimator | str] | None = None,
    datasets: Mapping[str, Data | Callable[[], Data]] | Sequence[str] | None = None,
    *,
    protocol: str = "novelty",
    seeds: int | Sequence[int] = 3,
    max_train: int | None = 10_000,
    max_test: int | None = 50_000,
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
        normal. In a sequence their class names them, or they are names of `DETECTORS`; None is all of those. Each is
        cloned, and its ``random_state`` set to the seed.
    datasets : mapping of str to (X, y), sequence of str or None, default=None
        Data sets by name: arrays, or a function that loads them; y holds -1 for outliers. Or names of
        `skood.datasets.BUILT_IN`; None is all of them.
    protocol : {"novelty", "contaminated"}, default="novelty"
        "novelty" trains on a random half of the inliers and tests on the other half and all outliers. "contaminated"
        trains on a random half of all rows, outliers among them and not marked, and tests on the other half.
    seeds : int or sequence of int, default=3
        Repetitions, or the seeds themselves. A seed fixes both the split and the detector's ``random_state``.
    max_train, max_test : int or None, default=10_000 and 50_000
        At most so many rows to train on and to test on, drawn at random (the test rows with the same share of
        outliers). None sets no limit; the cost of OneClassSVM grows with the square of the rows.
    n_jobs : int or None, default=1
        Processes, as joblib counts them.
    out : str, Path or None, default=None
        Directory for ``results.csv``, written row by row, and for the scores of the first seed. What is there already,
        from the same detectors, data and settings, is not done again (unless it failed). Other rows stay.
    progress : bool, default=False
        Whether to show a progress bar on standard error.

    Returns
    -------
    results : DataFrame
        One row for each detector, data set and seed: ``auroc``, ``aupr_out`` (outliers positive), ``fpr95`` (false
        positive rate at 95 % true positive rate, outliers positive), ``fit_seconds``, ``score_seconds``, ``n_train``,
        ``n_test``, ``error`` (why a detector failed; empty if it did not). If interrupted by the keyboard, the rows so
        far, with a RuntimeWarning and ``results.attrs["interrupted"]`` set.

    Raises
    ------
    ValueError
        If a name is unknown, the protocol is, or there is nothing to compare.

    Examples
    --------
    >>> from skood import compare_detectors
    >>> results = compare_detectors(["IsolationForest", "kNN"], ["wine"], seeds=1)
    >>> results[["detector", "auroc"]].round(1)
              detector  auroc
    0  IsolationForest    1.0
    1              kNN    1.0
    """
    if protocol not in _PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} must be one of {', '.join(_PROTOCOLS)}.")
    detectors = _named_detectors(detectors)
    loaders = _named_datasets(datasets)
    seeds = list(range(seeds)) if isinstance(seeds, Integral) else list(seeds)
    if not (detectors and loaders and seeds):
        raise ValueError("there is nothing to compare: give at least one detector, one data set and one seed.")
    try:
        store = Store(out)
    except OSError as error:
        raise ValueError(f"cannot write into {out}: {error.strerror}.") from error
    settings = {"protocol": protocol, "max_train": max_train, "max_test": max_test}
    rows, interrupted = [], False
    bar = tqdm(total=len(detectors) * len(loaders) * len(seeds), disable=not progress, unit="fit", dynamic_ncols=True)
    try:
        for dataset, loader in loaders.items():
            bar.set_description(dataset)
            X, y = _loaded(dataset, loader)
            _check_data(dataset, X, y)
            data_hash = joblib.hash((X, y))
            todo = []
            for name, detector in detectors.items():
                for seed in seeds:
                    key = joblib.hash((__version__, data_hash, _fingerprint(detector), seed, settings))
                    done = store.find(key, name, dataset)
                    if done is None:
                        cell = {"detector": name, "dataset": dataset, "protocol": protocol, "seed": seed, "key": key}
                        todo.append((cell, detector))
                    else:
                        rows.append(done)
                        bar.update()
            for row, scores in _run(todo, X, y, settings, n_jobs, bar):
                if row["seed"] == seeds[0] and scores is not None:
                    store.add_scores(row, scores)
                store.add(row)
                rows.append(row)
                bar.update()
    except KeyboardInterrupt:
        interrupted = True
        warnings.warn(f"interrupted: {len(rows)} of {bar.total} fits are finished.", RuntimeWarning, stacklevel=2)
    finally:
        bar.close()
    order = {"dataset": list(loaders), "detector": list(detectors), "seed": seeds}
    results = pd.DataFrame(rows, columns=COLUMNS)
    results = results.sort_values(list(order), key=lambda column: column.map(order[column.name].index))
    results = results.drop(columns="key").reset_index(drop=True)
    results.attrs["interrupted"] = interrupted
    return results


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
        else:
            raise ValueError(f"no detector {detector!r}; there are {', '.join(DETECTORS)}.")
        if name in named:
            raise ValueError(f"two detectors are named {name}; give a dictionary of names and detectors.")
        named[name] = detector
    return named


def _named_datasets(chosen):
    if isinstance(chosen, Mapping):
        return dict(chosen)
    return {name: datasets.load(name) for name in (datasets.BUILT_IN if chosen is None else chosen)}


def _check_data(name, X, y):
    if np.ndim(X) not in (2, 4) or np.shape(y) != (len(X),):
        raise ValueError(
            f"data set {name!r} has X of shape {np.shape(X)} and y of shape {np.shape(y)}; expected (n, d) or "
            f"(n, C, H, W), and (n,)."
        )
    n_outliers = np.count_nonzero(np.asarray(y) == -1)
    if n_outliers == 0 or len(y) - n_outliers < 2:
        raise ValueError(
            f"data set {name!r} has {n_outliers} outliers (y == -1) in {len(y)} rows; it needs both kinds."
        )


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


# --------------------------------------------------------------------------------------------------------------------
# One cell: a detector on a split of a data set


def _novelty(inliers, outliers):
    half = len(inliers) // 2
    return inliers[:half], (inliers[half:], outliers)


def _contaminated(inliers, outliers):
    half, half_outliers = len(inliers) // 2, len(outliers) // 2
    train = np.concatenate([inliers[:half], outliers[:half_outliers]])
    return train, (inliers[half:], outliers[half_outliers:])


_PROTOCOLS = {"novelty": _novelty, "contaminated": _contaminated}


def split(y, protocol: str, seed: int, max_train: int | None = None, max_test: int | None = None):
    """Rows to train and to test on.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        -1 for outliers.
    protocol, max_train, max_test
        As in `compare_detectors`.
    seed : int

    Returns
    -------
    train, test : ndarray of int
        Indices, in random order.
    """
    rng = np.random.RandomState(seed)
    outlier = np.asarray(y) == -1
    inliers, outliers = rng.permutation(np.flatnonzero(~outlier)), rng.permutation(np.flatnonzero(outlier))
    train, kinds = _PROTOCOLS[protocol](inliers, outliers)
    train = rng.permutation(train)[:max_train]
    n_test = sum(map(len, kinds))
    if max_test is not None and n_test > max_test:
        kinds = [kind[: max(1, round(len(kind) * max_test / n_test))] for kind in kinds]
    return train, rng.permutation(np.concatenate(kinds))


def _run(cells, X, y, settings, n_jobs, bar):
    """Rows and test scores of the cells as they are finished."""
    if n_jobs == 1:
        for cell, detector in cells:
            bar.set_postfix_str(f"{cell['detector']}, seed {cell['seed']}")
            yield _evaluate(cell, detector, X, y, settings)
        return
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    for row, scores in parallel(joblib.delayed(_evaluate)(*cell, X, y, settings) for cell in cells):
        bar.set_postfix_str(f"{row['detector']}, seed {row['seed']} done")
        yield row, scores


def _evaluate(cell, detector, X, y, settings):
    """The row of one cell, and the labels and scores of its test rows with the threshold (None if it failed)."""
    train, test = split(y, seed=cell["seed"], **settings)
    row = cell | {"n_train": len(train), "n_test": len(test), "error": ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            detector = _prepared(detector, X, cell["seed"])
            if type(detector[-1] if isinstance(detector, Pipeline) else detector).__module__.startswith("skood."):
                # Importing skorch takes seconds, which would count as those of the first fit.
                import_module("skood.training")
            if "image_shape" not in detector.get_params():
                X = np.reshape(X, (len(X), -1))
            start = time.perf_counter()
            detector.fit(X[train])
            row["fit_seconds"] = time.perf_counter() - start
            start = time.perf_counter()
            scores = np.asarray(detector.score_samples(X[test]), dtype=np.float64)
            row["score_seconds"] = time.perf_counter() - start
        truth = np.where(np.asarray(y)[test] == -1, -1, 1)
        row |= {
            "auroc": auroc(truth, scores),
            "aupr_out": aupr_out(truth, scores),
            "fpr95": fpr_at_tpr(truth, scores),
        }
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_ERROR]
        return row, None
    # NaN where a detector has no threshold, kNN for one.
    threshold = float(np.ravel(inner_attribute(detector, "offset_", np.nan))[0])
    return row, {"y": truth, "score": scores, "threshold": threshold}


def _prepared(detector, X, seed):
    detector = clone(detector)
    params = detector.get_params()
    seeded = {name: seed for name in params if name == "random_state" or name.endswith("__random_state")}
    detector.set_params(**seeded)
    if np.ndim(X) == 4 and "image_shape" in params:
        return detector
    return make_pipeline(StandardScaler(), detector)


# --------------------------------------------------------------------------------------------------------------------
# The table


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Mean AUROC over the seeds for each detector and data set, and means over the data sets.

    Parameters
    ----------
    results : DataFrame
        As `compare_detectors` returns it.

    Returns
    -------
    table : DataFrame
        One row for each detector; one column for each data set, then ``mean AUROC``, ``mean rank`` (by AUROC; 1 is
        best), ``mean AUPR``, ``mean FPR95``, ``fit s`` and ``score s`` (mean seconds). NaN where a detector failed with
        any seed, or was not run; its means are over the other data sets, its ranks count it last.
    """
    detectors, names = pd.unique(results["detector"]), pd.unique(results["dataset"])
    grouped = results.groupby(["detector", "dataset"], sort=False)

    def pivot(column):
        return grouped[column].agg(lambda values: values.mean(skipna=False)).unstack().reindex(detectors)[names]

    table = pivot("auroc")
    summary = {
        "mean AUROC": table.mean(axis=1),
        "mean rank": table.rank(ascending=False, na_option="bottom").mean(axis=1),
        "mean AUPR": pivot("aupr_out").mean(axis=1),
        "mean FPR95": pivot("fpr95").mean(axis=1),
        "fit s": pivot("fit_seconds").mean(axis=1),
        "score s": pivot("score_seconds").mean(axis=1),
    }
    table = table.assign(**summary)
    table.columns.name = None
    return table


_LOWER_IS_BETTER = {"mean rank", "mean FPR95", "fit s", "score s"}


def format_table(table: pd.DataFrame) -> str:
    """A summary as a Markdown table, the best of each column in bold, a dash where there is no figure.

    Parameters
    ----------
    table : DataFrame
        As `summarize` returns it.

    Returns
    -------
    text : str
    """
    lines = {"detector": list(map(str, table.index))}
    for column in table:
        digits = 2 if column in ("mean rank", "fit s", "score s") else 3
        values = table[column].round(digits)
        best = values.min() if column in _LOWER_IS_BETTER else values.max()
        lines[column] = [
            "-" if np.isnan(value) else f"**{value:.{digits}f}**" if value == best else f"{value:.{digits}f}"
            for value in values
        ]
    widths = {column: max(len(column), *map(len, cells)) for column, cells in lines.items()}
    header = [column.ljust(width) if column == "detector" else column.rjust(width) for column, width in widths.items()]
    rule = ["-" * width if column == "detector" else "-" * (width - 1) + ":" for column, width in widths.items()]
    body = [
        [cells[i].ljust(widths[c]) if c == "detector" else cells[i].rjust(widths[c]) for c, cells in lines.items()]
        for i in range(len(table))
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *body))
