"""Measure what `early_stopping=True` changes: seconds, AUROC, and the gap between scores of training and new rows.

    python benchmarks/early_stopping.py --data-home DIR [--detectors DUMDetector] [--sets 29_Pima] [--seeds 3]

DIR (or the variable SKOOD_DATA) holds ``adbench``; its development suite is used, which is all but 10_cover and
30_satellite. A detector at its defaults, without a threshold (``contamination=0``), is fitted on at most 300
in-distribution rows (``--max-train``), with and without early stopping, one after the other on the same rows.

The gap is the probability that a training row scores higher than a new inlier; 0.5 means no gap. With a large gap, a
threshold from training rows calls too many new inliers outliers. "accused" is the share of new inliers below the 5 %
quantile of the training rows.

Each run is written to ``results.csv`` when it is finished; the same command goes on from there.
"""

from __future__ import annotations

import time
import warnings
from functools import partial

import numpy as np
from runs import Command, Runs, noted
from sklearn.metrics import roc_auc_score
from thresholds import DETECTORS, datasets

import skood

WAYS = {"all epochs": False, "stopped": True}
KEYS = ["dataset", "detector", "seed", "max_train"]
FIGURES = [
    *(f"{what}, {way}" for way in WAYS for what in ("seconds", "epochs", "auroc", "gap", "accused")),
    "n_train",
]
# Columns that earlier files lack.
LATER = {"max_train": "300"}


def run(detector, load_rows, seed, max_train):
    rows = load_rows(seed, max_train)
    figures = {"n_train": len(rows.train)}
    for way, stopping in WAYS.items():
        model = getattr(skood, detector)(early_stopping=stopping, contamination=0, random_state=seed, device="cpu")
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model.fit(rows.train)
        figures[f"seconds, {way}"] = time.perf_counter() - start
        figures[f"epochs, {way}"] = float(len(model.history_))
        trained, new, outliers = (model.score_samples(X) for X in (rows.train, rows.inliers, rows.outliers))
        figures[f"auroc, {way}"] = separation(new, outliers)
        figures[f"gap, {way}"] = separation(trained, new)
        figures[f"accused, {way}"] = float((new < np.quantile(trained, 0.05)).mean())
    return figures


def separation(higher, lower):
    """Return the probability that one of the first scores is higher than one of the second."""
    labels = np.repeat([1, 0], [len(higher), len(lower)])
    return float(roc_auc_score(labels, np.concatenate([higher, lower])))


def show(results):
    """Print means over sets and seeds, of each detector."""
    means = results.groupby(["detector", "dataset"])[FIGURES].mean(numeric_only=True)
    for detector, own in means.groupby(level=0):
        own = own.droplevel(0)
        own.loc["mean"] = own.mean()
        own["time"] = own["seconds, stopped"] / own["seconds, all epochs"]
        print(f"\n{detector}\n")
        print(own.round(3).T.to_string())


def main():
    parser = Command(__doc__, "early_stopping", seeds=3)
    parser.add_argument("--sets", help="names of data sets, separated by commas; all by default")
    parser.add_argument("--detectors", default=",".join(DETECTORS), help="separated by commas; all by default")
    parser.add_argument("--max-train", type=int, default=300, help="in-distribution rows to train on")
    options = parser.parse_args()
    detectors = options.detectors.split(",")
    unknown = [name for name in detectors if name not in DETECTORS]
    if unknown:
        parser.error(f"no {unknown[0]!r}; there are {', '.join(DETECTORS)}")
    # Names of ADBench begin with a number, those of scikit-learn's sets do not.
    found = {name: read for (_, name), read in datasets(options.data_home, ["tables"]).items() if name[0].isdigit()}
    sets = list(found) if options.sets is None else options.sets.split(",")
    if set(sets) - {*found}:
        parser.error(f"no data set {min(set(sets) - {*found})!r}; there are {', '.join(found)}")
    jobs = [
        (
            {"dataset": name, "detector": detector, "seed": seed} | noted(options, LATER),
            partial(run, detector, found[name], seed, options.max_train),
        )
        for seed in range(options.seeds)
        for name in sets
        for detector in detectors
    ]
    show(Runs(options.out / "results.csv", KEYS, FIGURES, LATER).complete(jobs, options.jobs))


if __name__ == "__main__":
    main()
