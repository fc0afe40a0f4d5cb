"""Measure thresholds on new rows: false alarms among new inliers, detected outliers, and cost.

    python benchmarks/thresholds.py --data-home DIR [--groups tables,embeddings] [--sets "wine;digits"] [--jobs 2]

DIR (or the variable SKOOD_DATA) holds ``adbench``, ``adbench_embeddings`` and ``images``. Every detector is fitted with
default settings on at most 300 in-distribution rows (``--max-train``), in the groups

tables
    The development suite (``adbench`` without 10_cover and 30_satellite) and the sets of scikit-learn.
embeddings
    Features of frozen networks, of images and of texts (``adbench_embeddings``).
pixels
    Flattened images of handwritten digits and of clothes; "140 T-shirts" has fewer rows than features.
features
    Embeddings of images by a `SimCLREncoder` that was trained on other images, by one that was trained on the same rows
    as the detector ("same rows"), and by a `FrozenEncoder`.
images
    Images of the first five classes, with the other five as outliers: Fashion-MNIST with labels ("with classes"), with
    labels and EMNIST letters as the corpus ("grey with a corpus"), and CIFAR-10 with labels and CIFAR-100 as the
    corpus ("with a corpus").

"auto" is the default; "natural" is the method's own boundary, if it has one; "0.05" is a share of the training rows;
"held out" is a target of 5 % on a third of the inliers, which were held out of training. "cost" is the time of a fit
with "auto" divided by that of the same fit without further models, as with ``contamination=0``.

Each run is written to ``results.csv`` when it is finished; the same command goes on from there.
"""

from __future__ import annotations

import time
import warnings
from functools import partial

import numpy as np
import pandas as pd
from runs import Command, Runs, noted
from sklearn.datasets import load_digits

import skood
from skood import FrozenEncoder, SimCLREncoder
from skood.datasets import BUILT_IN, find_suite, load, read_file

DETECTORS = ("DUMDetector", "NegSampleVAE", "RejectClassDetector", "ResidualAdapterDetector", "RotationAuxClassifier")
RULES = ("auto", "natural", "0.05", "held out")
GROUPS = ("tables", "embeddings", "pixels", "features", "images")
KEYS = ["group", "dataset", "detector", "seed", "max_train"]
FIGURES = [f"{rows}, {rule}" for rule in RULES for rows in ("inliers", "outliers")] + ["n_train", "cost"]
# Columns that earlier files lack.
LATER = {"max_train": "300"}
# Largest number of test rows of each kind.
N_TEST = 1000


class Rows:
    """Hold training rows (with or without labels), new inliers, and outliers."""

    def __init__(self, train, inliers, outliers, y=None):
        self.train, self.inliers, self.outliers, self.y = train, inliers, outliers, y


def halves(X, y, seed, max_train):
    """Return at most half of the inliers (y == 1) and ``max_train`` to train on; the others and outliers to test on."""
    rng = np.random.RandomState(seed)
    inliers, outliers = rng.permutation(np.flatnonzero(y == 1)), rng.permutation(np.flatnonzero(y == -1))
    n_train = min(len(inliers) // 2, max_train)
    return Rows(X[inliers[:n_train]], X[inliers[n_train:]][:N_TEST], X[outliers][:N_TEST])


def read_flat(read, seed, max_train):
    X, y = read()
    return halves(X.reshape(len(X), -1), y, seed, max_train)


def read_images(home, name):
    with np.load(home / "images" / f"{name}.npz") as file:
        X = file["X"]
        return (X[:, None] if X.ndim == 3 else X), file["y"]


def digits(seed, max_train):
    X, y = load_digits(return_X_y=True)
    return halves(X, np.where(y == 9, -1, 1), seed, max_train)


def clothes(home, n_rows, seed, max_train):
    """Return T-shirts against all other clothes, as vectors."""
    X, y = read_images(home, "fashion_mnist_train")
    return halves(X.reshape(len(X), -1) / 255, np.where(y == 0, 1, -1), seed, min(n_rows, max_train))


def encoded(home, kind, seed, max_train):
    """Return features of five kinds of clothes by SimCLR, or of CIFAR-10 by the network that comes with skood."""
    rng = np.random.RandomState(seed)
    X, y = read_images(home, "fashion_mnist_train" if kind != "frozen" else "cifar10_train_1000perclass")
    inliers, outliers = rng.permutation(np.flatnonzero(y < 5)), rng.permutation(np.flatnonzero(y >= 5))[:N_TEST]
    train, new, others = np.split(inliers, [max_train, max_train + N_TEST])
    if kind == "frozen":
        encoder = FrozenEncoder(device="cpu").fit(X[train])
    else:
        seen = train if kind == "same rows" else others[:2000]
        encoder = SimCLREncoder(max_epochs=5, device="cpu", random_state=seed).fit(X[seen])
    return Rows(*(encoder.transform(X[part]) for part in (train, new, outliers)))


def classes_apart(X, y, n_classes, n_train, seed, corpus=None):
    """Return rows to train on with their labels (-1: as many of the corpus), new rows with theirs, and outliers.

    The first ``n_classes`` classes are in distribution, the others are outliers.
    """
    rng = np.random.RandomState(seed)
    inliers, outliers = rng.permutation(np.flatnonzero(y < n_classes)), rng.permutation(np.flatnonzero(y >= n_classes))
    train, new, _ = np.split(inliers, [n_train, n_train + N_TEST])
    rows, labels = X[train], y[train]
    if corpus is not None:
        marked = corpus[rng.permutation(len(corpus))[:n_train]]
        rows, labels = np.concatenate([rows, marked]), np.concatenate([labels, np.full(len(marked), -1)])
    return rows, labels, X[new], y[new], X[outliers[:N_TEST]]


def five_classes(home, name, corpus, seed, max_train):
    """Return images of five classes with their labels, the other five as outliers, and a corpus if one is named."""
    corpus = None if corpus is None else read_images(home, corpus)[0]
    rows, labels, new, _, outliers = classes_apart(*read_images(home, name), 5, max_train, seed, corpus)
    return Rows(rows, new, outliers, labels)


def datasets(home, groups):
    """Return a dict from group and name to a function of seed and largest number of training rows."""
    found = {}
    if "tables" in groups:
        reads = {name: partial(load, name) for name in BUILT_IN}
        paths = find_suite(home / "adbench")
        reads |= {
            path.stem: partial(read_file, path) for path in paths if path.stem not in ("10_cover", "30_satellite")
        }
        found |= {("tables", name): partial(read_flat, read) for name, read in reads.items()}
    if "embeddings" in groups:
        paths = find_suite(home / "adbench_embeddings")
        found |= {("embeddings", path.stem): partial(read_flat, partial(read_file, path)) for path in paths}
    if "pixels" in groups:
        found |= {("pixels", "digits"): digits}
        found |= {("pixels", f"{n} T-shirts"): partial(clothes, home, n) for n in (140, 300)}
    if "features" in groups:
        kinds = {"SimCLR": "other rows", "SimCLR, same rows": "same rows", "FrozenEncoder": "frozen"}
        found |= {("features", name): partial(encoded, home, kind) for name, kind in kinds.items()}
    if "images" in groups:
        files = {
            "with classes": ("fashion_mnist_train", None),
            "grey with a corpus": ("fashion_mnist_train", "emnist_letters_train"),
            "with a corpus": ("cifar10_train_1000perclass", "cifar100_train_100perclass"),
        }
        found |= {("images", name): partial(five_classes, home, *own) for name, own in files.items()}
    return found


def timed(model, name):
    """Time each call of a method of one model, and return the list to which the seconds are appended."""
    method, seconds = getattr(model, name), []

    def noting(*args):
        start = time.perf_counter()
        try:
            return method(*args)
        finally:
            seconds.append(time.perf_counter() - start)

    setattr(model, name, noting)
    return seconds


def run(detector, load_rows, seed, max_train):
    rows = load_rows(seed, max_train)
    figures = {"n_train": len(rows.train)}
    third = len(rows.inliers) // 3

    def record(rule, model, new):
        figures[f"inliers, {rule}"] = float((model.predict(new) == -1).mean())
        figures[f"outliers, {rule}"] = float((model.predict(rows.outliers) == -1).mean())

    model = getattr(skood, detector)(random_state=seed, device="cpu")
    folds = timed(model, "_held_out_scores")
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Every detector gets class labels, including those that ignore them and warn.
        warnings.simplefilter("ignore", UserWarning)
        model.fit(rows.train, rows.y)
    seconds = time.perf_counter() - start
    figures["cost"] = seconds / (seconds - sum(folds))
    record("auto", model, rows.inliers)
    natural = model._natural_offset()
    if natural is not None:
        record("natural", model.set_threshold(offset=natural), rows.inliers)
    record("0.05", model.set_threshold(contamination=0.05), rows.inliers)
    record("held out", model.set_threshold(target_fpr=0.05, X=rows.inliers[:third]), rows.inliers[third:])
    return figures


def show(results):
    """Print a table of means over seeds for each group, and the shares of false alarms over all cells."""
    results = results.astype({"seed": int})
    cells = results.groupby(["group", "detector", "dataset"], sort=False)[[*FIGURES]].mean(numeric_only=True)
    spread = results.groupby(["group", "detector", "dataset"], sort=False)["inliers, auto"].std()
    table = cells.assign(**{"inliers, auto, sd": spread})
    for (group, detector), own in table.groupby(level=[0, 1], sort=False):
        own = own.droplevel([0, 1])
        own.loc["mean"], own.loc["largest"] = own.mean(), own.max()
        print(f"\n{group}, {detector}\n")
        print(own.round(3).to_string())
    summary = []
    for rule in RULES:
        accused = cells[f"inliers, {rule}"].dropna()
        summary.append(
            {
                "rule": rule,
                "cells": len(accused),
                "mean": accused.mean(),
                "worst": accused.max(),
                "within 2-10 %": int(accused.between(0.02, 0.10).sum()),
                "over 12 %": int((accused > 0.12).sum()),
                "outliers caught": cells.loc[accused.index, f"outliers, {rule}"].mean(),
            }
        )
    print("\nShare of new inliers accused, means of the seeds\n")
    print(pd.DataFrame(summary).set_index("rule").round(3).to_string())


def main():
    parser = Command(__doc__, "thresholds", seeds=3)
    parser.add_argument("--groups", default=",".join(GROUPS), help="separated by commas; all by default")
    parser.add_argument("--sets", help="names of data sets, separated by semicolons; all of the groups by default")
    parser.add_argument("--detectors", default=",".join(DETECTORS), help="separated by commas; all by default")
    parser.add_argument("--max-train", type=int, default=300, help="in-distribution rows to train on")
    options = parser.parse_args()
    groups, detectors = options.groups.split(","), options.detectors.split(",")
    for chosen, known in ((groups, GROUPS), (detectors, DETECTORS)):
        unknown = [name for name in chosen if name not in known]
        if unknown:
            parser.error(f"no {unknown[0]!r}; there are {', '.join(known)}")
    found = datasets(options.data_home, groups)
    if options.sets is not None:
        wanted = options.sets.split(";")
        unknown = set(wanted) - {name for _, name in found}
        if unknown:
            parser.error(f"no data set {min(unknown)!r} in these groups; there are {', '.join(n for _, n in found)}")
        found = {key: read for key, read in found.items() if key[1] in wanted}
    # Groups take turns, so that the first runs already include all of them.
    order = sorted(found, key=lambda key: [name for name in found if name[0] == key[0]].index(key))
    jobs = [
        (
            {"group": group, "dataset": name, "detector": detector, "seed": seed} | noted(options, LATER),
            partial(run, detector, found[group, name], seed, options.max_train),
        )
        for seed in range(options.seeds)
        for group, name in order
        for detector in detectors
    ]
    show(Runs(options.out / "results.csv", KEYS, FIGURES, LATER).complete(jobs, options.jobs))


if __name__ == "__main__":
    main()
