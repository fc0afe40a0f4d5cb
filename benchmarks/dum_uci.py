"""Run DUM's Table 2 and a part of its Table 4 in the paper's protocol, which fits on all rows and scores the same.

    python benchmarks/dum_uci.py --data-home DIR [--width 4096] [--datasets pima,wdbc] [--methods "DUM;kNN"]

DIR (or the variable SKOOD_DATA) holds ``uci/*.npz`` and, of ADBench, ``adbench/10_cover.npz``. All methods get features
in [0, 1], as in the paper, except the defaults of skood, which scale features themselves. The published tenth of KDD
1999 replaces its 4.8 million rows, and logged-in connections are the outliers, as in the paper.

DUM, printed
    The paper's objective and settings (`DUMDetector.from_paper`) with layers of ``--width`` units, and 5 epochs for
    more than 100,000 rows, else 100. The paper has 5 epochs for its two very large sets, of 373,000 rows and more.
DUM, printed, circular
    The same with one variance for all features.
DUM, printed, bags of M
    The same with bags of M rows. The paper gives no number; without one, half of a batch of 256 rows is a bag.
DUM
    The default.
large rows
    Minus the norm of a row in [0, 1] as its outlier score, to which the printed objective reduces.
SimCLR
    DUM on embeddings by `SimCLREncoder`, which learns from rows with randomly replaced features: Table 4.

The direction of a score is never changed. If the paper's figures are nearer to 100 minus ours than to ours, the table
says that they are reversed. It says so for DUM, and for the other methods together: if these are reversed, the paper's
labels are the other way round. "-" means that a method was not run, because the set has more rows than ``MOST_ROWS``
allows; "t/o" is a timeout in the paper. Each run is written to ``results.csv`` when it is finished; the same command
goes on from there.
"""

from __future__ import annotations

import time
import warnings
from functools import lru_cache, partial

import numpy as np
import pandas as pd
from classical import REPEN, Autoencoder, FastABOD, NearestOfSamples
from runs import Command, Runs
from sklearn.base import BaseEstimator
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import OneClassSVM

from skood import DUMDetector, SimCLREncoder
from skood.compare import NearestNeighborsDetector
from skood.datasets import read_file
from skood.metrics import auroc

# File under DIR -> the paper's name, and AUROC in percent in the order of COLUMNS; None is a timeout.
COLUMNS = [
    "IsolationForest",
    "LOF",
    "OneClassSVM",
    "SP",
    "EllipticEnvelope",
    "kNN",
    "ABOD",
    "AE",
    "LeSiNN",
    "REPEN",
    "DUM, printed",
]
PAPER = {
    "uci/arrhythmia": ("Arrhythmia", [72.1, 73.2, 73.6, 70.4, 69.8, 73.4, 72.3, 73.3, 74.0, 74.9, 76.6]),
    "adbench/10_cover": ("CoverType", [94.9, 53.7, 93.7, 91.3, 76.3, 76.8, 73.7, 93.9, 93.8, 95.1, 91.4]),
    "uci/ionosphere": ("Ionosphere", [86.2, 89.4, 85.1, 88.1, 95.1, 93.3, 91.7, 81.2, 89.5, 93.1, 81.0]),
    "uci/isolet_CDE_vs_Y": ("Isolet", [84.6, 51.7, 71.4, 52.8, 75.1, 93.3, 91.7, 81.1, 84.4, 93.1, 100.0]),
    "uci/kdd99_10percent": ("Kdd1999", [74.1, None, None, 84.3, 69.2, None, None, 72.7, 82.5, 85.5, 98.0]),
    "uci/mfeat": ("MFeat", [83.7, 54.2, 65.7, 89.2, 52.4, 81.9, 58.9, 90.1, 92.4, 89.3, 99.9]),
    "uci/optdigits": ("OptDigits", [61.9, 59.8, 60.8, 74.1, 77.8, 79.1, 64.1, 59.7, 86.9, 86.0, 99.6]),
    "uci/pima": ("PIMA", [67.6, 60.1, 62.4, 64.0, 67.9, 70.8, 66.7, 63.0, 71.7, 71.7, 81.5]),
    "uci/skin": ("Skin", [62.4, 55.5, 54.8, 65.1, 89.2, 57.0, 52.4, 59.3, 72.6, 75.1, 96.2]),
    "uci/spambase": ("Spambase", [60.7, 54.3, 53.7, 54.7, 54.8, 50.6, 61.4, 54.8, 57.3, 59.0, 83.4]),
    "uci/satellite": ("Statlog", [74.8, 50.2, 75.9, 54.5, 61.1, 56.1, 50.8, 84.5, 58.3, 68.8, 89.2]),
    "uci/wdbc": ("Wdbc", [82.5, 53.7, 69.8, 72.9, 88.9, 77.4, 71.3, 64.6, 82.5, 87.9, 96.9]),
}
# Table 4, DUM on the embedding of SimCLR.
PAPER_TABLE_4 = {
    "uci/arrhythmia": 76.0,
    "uci/ionosphere": 82.1,
    "uci/isolet_CDE_vs_Y": 99.9,
    "uci/mfeat": 99.1,
    "uci/optdigits": 95.4,
    "uci/pima": 82.0,
    "uci/spambase": 82.5,
    "uci/satellite": 84.7,
    "uci/wdbc": 96.2,
}
# Memory and time grow with the square of the rows.
MOST_ROWS = {
    "OneClassSVM": 20_000,
    "LOF": 50_000,
    "kNN": 50_000,
    "ABOD": 50_000,
    "SimCLR": 10_000,
    "SimCLR, printed": 10_000,
}
VERY_LARGE = 100_000
# The printed objective without a number has 128, or half of the rows if there are fewer than 256.
BAG_SIZES = (2, 8, 32)
# Columns of KDD 1999, by number: the outlier label, and those that the paper leaves out.
LOGGED_IN = 11
KDD_DROPPED = [1, 2, 3, 6, LOGGED_IN, 19, 20, 21]

KEYS = ["dataset", "n_rows", "n_outliers", "method", "width", "seed"]
FIGURES = ["auroc", "seconds"]


class LargeRows(BaseEstimator):
    """Score rows by their norm: larger = more normal."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        return np.linalg.norm(X, axis=1)


def methods(n_rows, width, seed):
    settings = {"random_state": seed}
    printed = {"hidden_sizes": (width,) * 3, "max_epochs": 5 if n_rows > VERY_LARGE else 100, **settings}
    return {
        "DUM, printed": DUMDetector.from_paper(**printed),
        "DUM, printed, circular": DUMDetector.from_paper(covariance="circular", **printed),
        **{f"DUM, printed, bags of {m}": DUMDetector.from_paper(bag_size=m, **printed) for m in BAG_SIZES},
        "DUM": DUMDetector(**settings),
        "SimCLR, printed": make_pipeline(
            SimCLREncoder(**settings), DUMDetector.from_paper(**printed, scaling=None, normalize="l2")
        ),
        "SimCLR": make_pipeline(SimCLREncoder(**settings), DUMDetector(**settings)),
        "large rows": make_pipeline(MinMaxScaler(), LargeRows()),
        "IsolationForest": make_pipeline(MinMaxScaler(), IsolationForest(**settings)),
        "LOF": make_pipeline(MinMaxScaler(), LocalOutlierFactor(novelty=True)),
        "OneClassSVM": make_pipeline(MinMaxScaler(), OneClassSVM()),
        "EllipticEnvelope": make_pipeline(MinMaxScaler(), EllipticEnvelope(**settings)),
        # A training row is its own nearest neighbour.
        "kNN": make_pipeline(MinMaxScaler(), NearestNeighborsDetector(6)),
        "ABOD": make_pipeline(MinMaxScaler(), FastABOD(6)),
        "SP": make_pipeline(MinMaxScaler(), NearestOfSamples(1, 20, **settings)),
        "LeSiNN": make_pipeline(MinMaxScaler(), NearestOfSamples(50, 8, **settings)),
        "REPEN": make_pipeline(MinMaxScaler(), REPEN(**settings)),
        "AE": make_pipeline(MinMaxScaler(), Autoencoder(**settings)),
    }


@lru_cache(maxsize=1)
def load(path):
    X, y = read_file(path, outliers=["1"])
    if path.stem.startswith("kdd99"):
        y = np.where(X[:, LOGGED_IN] == 1, -1, 1)
        X = np.delete(X, KDD_DROPPED, axis=1)
    return X, y


def scores(detector, X):
    """Return the scores of the training rows; for LOF its own, which do not count a row among its neighbours."""
    detector.fit(X)
    last = detector[-1] if hasattr(detector, "steps") else detector
    return last.negative_outlier_factor_ if isinstance(last, LocalOutlierFactor) else detector.score_samples(X)


def run(name, method, seed, options):
    X, y = load(options.data_home / f"{name}.npz")
    detector = methods(len(X), options.width, seed)[method]
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        area = 100 * auroc(y, scores(detector, X))
    return {"auroc": area, "seconds": time.perf_counter() - start}


def jobs(options):
    """Return the key and the function of each run: of a method on a set that is not too large for it, by a seed."""
    found = []
    for name in options.datasets:
        X, y = load(options.data_home / f"{name}.npz")
        about = {"dataset": name, "n_rows": len(X), "n_outliers": int((y == -1).sum())}
        for seed in range(options.seeds):
            for method in options.methods:
                if len(X) <= MOST_ROWS.get(method, np.inf):
                    width = options.width if "printed" in method else ""
                    key = about | {"method": method, "width": width, "seed": seed}
                    found.append((key, partial(run, name, method, seed, options)))
    return found


def reversed_figures(ours):
    """Return where the paper's figures are nearer to 100 minus ours than to ours, for DUM and for the mean of others.

    Parameters
    ----------
    ours : DataFrame
        AUROC in percent, with a row for each file of `PAPER` and a column for each method.

    Returns
    -------
    reversed_ : DataFrame of bool
        Columns "DUM" and "others"; False if there is nothing to compare.
    """
    paper = pd.DataFrame.from_dict({name: figures for name, (_, figures) in PAPER.items()}, "index", columns=COLUMNS)
    paper, own = paper.astype(float).reindex(ours.index), ours.reindex(columns=COLUMNS)
    gain = (own - paper).abs() - (100 - own - paper).abs()
    classical = gain.drop(columns="DUM, printed").mean(axis=1)
    return pd.DataFrame({"DUM": gain["DUM, printed"] > 0, "others": classical > 0})


def print_tables(options):
    results = pd.DataFrame(options.runs.finished().values()).astype({"auroc": float})
    results = results[results["width"].isin(["", str(options.width)])]
    ours = results.pivot_table("auroc", "dataset", "method", sort=False).reindex(options.datasets)
    ours = ours.reindex(columns=[method for method in methods(0, 1, 0) if method in ours])
    print(f"\nTable 2: AUROC in %, the paper's in brackets; layers of {options.width}\n")
    table = pd.DataFrame(index=[PAPER[name][0] for name in ours.index])
    for method in ours:
        cells = ["-" if np.isnan(value) else f"{value:.1f}" for value in ours[method]]
        if method in COLUMNS:
            paper = [PAPER[name][1][COLUMNS.index(method)] for name in ours.index]
            cells = [f"{cell} ({'t/o' if one is None else one})" for cell, one in zip(cells, paper, strict=True)]
        table[method] = cells
    directions = reversed_figures(ours)
    table["reversed in the paper"] = ["; ".join(directions.columns[row]) for row in directions.to_numpy()]
    print(table.to_string())
    known = [name for name in ours.index if name in PAPER_TABLE_4]
    if known and any("SimCLR" in method for method in ours):
        print("\nTable 4: on an embedding by SimCLR\n")
        embedded = ours.loc[known, [method for method in ours if "SimCLR" in method]].round(1)
        embedded.insert(0, "paper", [PAPER_TABLE_4[name] for name in known])
        print(embedded.rename(index=lambda name: PAPER[name][0]).to_string())


def main(arguments=None):
    parser = Command(__doc__, "dum_uci", seeds=1, jobs=False)
    parser.add_argument("--datasets", help="separated by commas, as uci/pima or pima; all by default")
    parser.add_argument("--methods", help="separated by semicolons; all by default")
    parser.add_argument(
        "--width", type=int, default=256, help="units in a layer of the printed objective; 4096 in the paper"
    )
    options = parser.parse_args(arguments)
    named = {name.split("/")[1]: name for name in PAPER}
    chosen = options.datasets.split(",") if options.datasets else list(PAPER)
    options.datasets = [named.get(name, name) for name in chosen]
    options.methods = parser.names("--methods", options.methods, methods(0, 1, 0))
    unknown = [name for name in options.datasets if name not in PAPER]
    if unknown:
        parser.error(f"no {unknown[0]!r}; there are {', '.join(PAPER)}")
    options.runs = Runs(options.out / "results.csv", KEYS, FIGURES)
    chosen = jobs(options)
    if not chosen:
        parser.error("--datasets have more rows than --methods can take, see MOST_ROWS")
    options.runs.complete(chosen)
    print_tables(options)


if __name__ == "__main__":
    main()
