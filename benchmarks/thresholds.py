"""What detectors' thresholds do to new rows: share of new inliers and of outliers called outliers.

    python benchmarks/thresholds.py --data-home DIR [--detectors DUMDetector,NegSampleVAE] [--jobs 2]

On the development suite (``adbench/*.npz`` under DIR without 10_cover and 30_satellite) and the sets that scikit-learn
carries; trained on half of the inliers. "auto" is the default, "0.05" the 5 % quantile of the training rows' scores,
"held out" a target of 5 % on a third of the inliers that took no part in training.

Each run is written to ``results.csv`` when it is finished; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from runs import Runs

import skood
from skood.compare import split
from skood.datasets import BUILT_IN, find_suite, load, read_file

DETECTORS = ("DUMDetector", "NegSampleVAE", "RejectClassDetector", "ResidualAdapterDetector", "RotationAuxClassifier")
RULES = ("auto", "0.05", "held out")

KEYS = ["detector", "dataset"]
FIGURES = [f"{rows}, {rule}" for rule in RULES for rows in ("inliers", "outliers")]


def run(detector, read):
    X, y = read()
    X = X.reshape(len(X), -1)
    train, test = split(y, "novelty", seed=0)
    inliers, outliers = test[y[test] == 1], test[y[test] == -1]
    figures = {}

    def record(rule, model, new):
        figures[f"inliers, {rule}"] = float((model.predict(X[new]) == -1).mean())
        figures[f"outliers, {rule}"] = float((model.predict(X[outliers]) == -1).mean())

    model = getattr(skood, detector)(random_state=0, device="cpu").fit(X[train])
    record("auto", model, inliers)
    record("0.05", model.set_threshold(contamination=0.05), inliers)
    third = len(inliers) // 3
    record("held out", model.set_threshold(target_fpr=0.05, X=X[inliers[:third]]), inliers[third:])
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, default=os.environ.get("SKOOD_DATA"))
    parser.add_argument("--detectors", default=",".join(DETECTORS), help="separated by commas; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each if more than one")
    parser.add_argument("--out", type=Path, default=Path("comparison/thresholds"))
    options = parser.parse_args()
    if options.data_home is None:
        parser.error("--data-home or SKOOD_DATA is needed")
    unknown = [name for name in options.detectors.split(",") if name not in DETECTORS]
    if unknown:
        parser.error(f"no {unknown[0]!r}; there are {', '.join(DETECTORS)}")
    sets = {name: partial(load, name) for name in BUILT_IN}
    paths = find_suite(Path(options.data_home) / "adbench")
    sets |= {path.stem: partial(read_file, path) for path in paths if path.stem not in ("10_cover", "30_satellite")}
    jobs = [
        ({"detector": detector, "dataset": name}, partial(run, detector, read))
        for detector in options.detectors.split(",")
        for name, read in sets.items()
    ]
    results = Runs(options.out / "results.csv", KEYS, FIGURES).complete(jobs, options.jobs)
    for detector, own in results.groupby("detector", sort=False):
        table = own.set_index("dataset")[FIGURES]
        table.loc["mean"] = table.mean()
        table.loc["largest"] = table.iloc[:-1].max()
        print(f"\n{detector}\n")
        print(table.round(3).to_string())


if __name__ == "__main__":
    main()
