"""What a detector's thresholds do to new rows: share of new inliers and of outliers called outliers.

    python benchmarks/thresholds.py --data-home DIR [--detector DUMDetector] [--jobs 2]

On the development suite (``adbench/*.npz`` under DIR without 10_cover and 30_satellite) and the sets that scikit-learn
carries; trained on half of the inliers. "auto" is the default, "0.05" the 5 % quantile of the training rows' scores,
"held out" a target of 5 % on a third of the inliers that took no part in training.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch

import skood
from skood.compare import split
from skood.datasets import BUILT_IN, find_suite, load, read_file


def rates(detector, name, X, y):
    torch.set_num_threads(1)
    train, test = split(y, "novelty", seed=0)
    X = X.reshape(len(X), -1)
    inliers, outliers = test[y[test] == 1], test[y[test] == -1]
    row = {"data set": name}

    def record(rule, model, new):
        row[f"inliers, {rule}"] = (model.predict(X[new]) == -1).mean()
        row[f"outliers, {rule}"] = (model.predict(X[outliers]) == -1).mean()

    model = getattr(skood, detector)(random_state=0, device="cpu").fit(X[train])
    record("auto", model, inliers)
    record("0.05", model.set_threshold(contamination=0.05), inliers)
    third = len(inliers) // 3
    record("held out", model.set_threshold(target_fpr=0.05, X=X[inliers[:third]]), inliers[third:])
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, default=os.environ.get("SKOOD_DATA"))
    parser.add_argument(
        "--detector",
        choices=(
            "DUMDetector",
            "NegSampleVAE",
            "RejectClassDetector",
            "ResidualAdapterDetector",
            "RotationAuxClassifier",
        ),
        default="DUMDetector",
    )
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    sets = [(name, *load(name)) for name in BUILT_IN]
    if options.data_home:
        paths = find_suite(Path(options.data_home) / "adbench")
        sets += [(path.stem, *read_file(path)) for path in paths if path.stem not in ("10_cover", "30_satellite")]
    rows = joblib.Parallel(n_jobs=options.jobs)(
        joblib.delayed(rates)(options.detector, *arguments) for arguments in sets
    )
    table = pd.DataFrame(rows).set_index("data set")
    table.loc["mean"] = table.mean()
    table.loc["largest"] = table.iloc[:-1].max()
    with pd.option_context("display.width", 200, "display.max_columns", None):
        print(np.round(table, 3))


if __name__ == "__main__":
    main()
