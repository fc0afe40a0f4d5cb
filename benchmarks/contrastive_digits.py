"""Measure the accuracy of simple classifiers on what SimCLREncoder's defaults learn from digits without labels.

    python benchmarks/contrastive_digits.py [--seeds 3]

900 of scikit-learn's digits, chosen by the seed, train the encoder and then, with labels, the classifiers; these
classify the other 897. Each run is written to ``results.csv`` in ``--out`` when it is finished; the same command goes
on from there.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

from runs import Runs
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import SimCLREncoder


def run(encoder, seed):
    X, digit = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, digit, train_size=900, stratify=digit, random_state=seed)
    Z_train, Z_test, start = X_train, X_test, time.perf_counter()
    if encoder is not None:
        encoder = encoder.set_params(random_state=seed)
        Z_train, Z_test = encoder.fit_transform(X_train), encoder.transform(X_test)
    figures = {"seconds": time.perf_counter() - start}
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    for name, classifier in {"kNN": KNeighborsClassifier(5), "linear": linear}.items():
        figures[name] = classifier.fit(Z_train, y_train).score(Z_test, y_test)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("comparison/contrastive_digits"))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0; 3 by default")
    options = parser.parse_args()
    spaces = {"pixels": None}
    for kind, shape in {"images": (1, 8, 8), "vectors": None}.items():
        for output in ("features", "embedding"):
            spaces[f"{output} of {kind}"] = SimCLREncoder(output=output, image_shape=shape)
    jobs = [
        ({"space": name, "seed": seed}, partial(run, encoder, seed))
        for seed in range(options.seeds)
        for name, encoder in spaces.items()
    ]
    results = Runs(options.out / "results.csv", ["space", "seed"], ["seconds", "kNN", "linear"]).complete(jobs)
    by_space = results.groupby("space", sort=False)[["seconds", "kNN", "linear"]]
    print(by_space.agg(["mean", "std"]).round(3).to_string())


if __name__ == "__main__":
    main()
