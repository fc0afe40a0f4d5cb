"""Measure the accuracy of simple classifiers on what SimCLREncoder's defaults learn from digits without labels.

    python benchmarks/contrastive_digits.py

900 of scikit-learn's digits train the encoder and then, with labels, the classifiers; these classify the other 897.
Each run is written to ``results.csv`` in ``--out`` when it is finished; the same command goes on from there.
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


def run(encoder):
    X, digit = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, digit, train_size=900, stratify=digit, random_state=0)
    Z_train, Z_test, start = X_train, X_test, time.perf_counter()
    if encoder is not None:
        Z_train, Z_test = encoder.fit_transform(X_train), encoder.transform(X_test)
    figures = {"seconds": time.perf_counter() - start}
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    for name, classifier in {"kNN": KNeighborsClassifier(5), "linear": linear}.items():
        figures[name] = classifier.fit(Z_train, y_train).score(Z_test, y_test)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("comparison/contrastive_digits"))
    spaces = {"pixels": None}
    for kind, shape in {"images": (1, 8, 8), "vectors": None}.items():
        for output in ("features", "embedding"):
            spaces[f"{output} of {kind}"] = SimCLREncoder(output=output, image_shape=shape, random_state=0)
    runs = Runs(parser.parse_args().out / "results.csv", ["space"], ["seconds", "kNN", "linear"])
    results = runs.complete([({"space": name}, partial(run, encoder)) for name, encoder in spaces.items()])
    print(results.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
