"""Vectors with some known outliers: what a corpus teaches, if later outliers are alike, elsewhere, or far from all.

    python benchmarks/known_outliers.py --data-home DIR [--held-out] [--seeds 3] [--jobs 2]

DIR (or the variable SKOOD_DATA) holds ``adbench/*.npz`` in ADBench's format. ``--held-out`` has the two of them that
`tabular.py` keeps back, and ``adbench_embeddings/*.npz``, instead of all others. A detector is fitted on half of the
inliers, at most 500, and a corpus of at most 200 outliers that y marks. It scores other inliers, at most 500, beside
three kinds of rows:

alike
    Outliers like the corpus, which is a random half of all outliers.
other side
    A random direction cuts the outliers in halves: one is the corpus, the other is scored.
far
    Normal rows with the inliers' mean and a hundred times their deviation, for the corpus of "other side". The figure
    is the share of them whose score is lower than that of 95 % of the inliers: anybody would call them outliers.

"reject classes, corpus" trains on the corpus alone, as the paper does; by default one outlier in six is made. kNN knows
no outliers, and RandomForest is scikit-learn's classifier, trained to tell inliers from the corpus.

Each run is written to ``results.csv`` when it is finished; the same command goes on from there.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from runs import Command, Runs
from sklearn.ensemble import RandomForestClassifier
from tabular import KEPT_BACK

from skood import RejectClassDetector, ResidualAdapterDetector
from skood.compare import NearestNeighborsDetector
from skood.datasets import find_suite, read_file
from skood.metrics import auroc

# Only scores matter: no threshold is set on held-out rows.
METHODS = {
    "reject classes, corpus": partial(RejectClassDetector, outliers="auxiliary", contamination=0),
    "reject classes": partial(RejectClassDetector, contamination=0),
    "adapters": partial(ResidualAdapterDetector, contamination=0),
    "kNN": None,
    "RandomForest": None,
}
KEYS = ["data_set", "method", "seed"]
FIGURES = ["alike", "other_side", "far", "seconds"]
MOST_ROWS, MOST_KNOWN, FAR = 500, 200, 100.0


def split(X, y, seed):
    """Return training and test inliers, and the corpus and the outliers to find of both kinds."""
    rng = np.random.default_rng(seed)
    inliers, outliers = (X[rng.permutation(np.flatnonzero(y == label))] for label in (1, -1))
    half = len(inliers) // 2
    train, test = inliers[:half][:MOST_ROWS], inliers[half:][:MOST_ROWS]
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation == 0] = 1
    along = ((outliers - mean) / deviation) @ rng.standard_normal(X.shape[1])
    half = len(outliers) // 2
    pairs = {"alike": (outliers[:half], outliers[half:])}
    first = np.argsort(along)
    pairs["other_side"] = tuple(outliers[np.sort(part)] for part in (first[:half], first[half:]))
    pairs = {name: (known[:MOST_KNOWN], unseen[:MOST_ROWS]) for name, (known, unseen) in pairs.items()}
    far = mean + FAR * deviation * rng.standard_normal((MOST_KNOWN, X.shape[1]))
    return train, test, pairs, far.astype(X.dtype)


def fitted_scores(method, seed, train, known):
    """Fit a method on inliers and known outliers, and return the function that scores rows."""
    if method == "kNN":
        return NearestNeighborsDetector().fit(train).score_samples
    X, y = np.concatenate([train, known]), np.repeat([1, -1], [len(train), len(known)])
    if method == "RandomForest":
        forest = RandomForestClassifier(random_state=seed).fit(X, y)
        return lambda rows: forest.predict_proba(rows)[:, 1]
    return METHODS[method](random_state=seed).fit(X, y).score_samples


def run(key, path):
    """Return the AUROC on both kinds of outliers and the share of far rows that are found, in percent."""
    X, y = read_file(path)
    train, test, pairs, far = split(X.astype(np.float32), y, key["seed"])
    figures, start = {}, time.perf_counter()
    for name, (known, unseen) in pairs.items():
        score = fitted_scores(key["method"], key["seed"], train, known)
        of_inliers = score(test)
        truth = np.repeat([1, -1], [len(test), len(unseen)])
        figures[name] = 100 * auroc(truth, np.concatenate([of_inliers, score(unseen)]))
    figures["far"] = 100 * float((score(far) < np.quantile(of_inliers, 0.05)).mean())
    figures["seconds"] = time.perf_counter() - start
    return figures


def main(arguments=None):
    parser = Command(__doc__, "known_outliers", seeds=3)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by semicolons; all by default")
    options = parser.parse_args(arguments)
    methods = options.methods.split(";")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"there is no {min(unknown)!r}; choose of {'; '.join(METHODS)}")
    paths = [path for path in find_suite(options.data_home / "adbench") if (path.stem in KEPT_BACK) == options.held_out]
    if options.held_out:
        paths += find_suite(options.data_home / "adbench_embeddings")
    jobs = []
    for seed in range(options.seeds):
        for path in paths:
            for method in methods:
                key = {"data_set": f"{path.parent.name}/{path.stem}", "method": method, "seed": seed}
                jobs.append((key, partial(run, key, path)))
    results = Runs(options.out / "results.csv", KEYS, FIGURES).complete(jobs, options.jobs)
    print(results.groupby("method", sort=False)[FIGURES].mean().round(1).to_string())


if __name__ == "__main__":
    main()
