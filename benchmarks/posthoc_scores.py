"""Run all scores of `compare_scores` on classifiers of small images: AUROC and FPR95 on near and far sets.

    python benchmarks/posthoc_scores.py --data-home DIR [--datasets "fashion-mnist;cifar10"] [--seeds 3] [--jobs 2]

DIR (or the variable SKOOD_DATA) holds ``images/*.npz``. The seed determines the training images and the initial
weights. Scores are fitted on the training images. Near sets have other classes of the same kind: two held-out digits,
or CIFAR-100.

Each run, a classifier of a data set by a seed, is written to ``results.csv`` when it is finished; the same command goes
on from there.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from reject_classes import images
from runs import Command, Runs, noted, trained_in
from sklearn.datasets import load_digits

from skood import BackboneClassifier, compare_scores

KEYS = ["dataset", "seed", "precision"]
FIGURES = ["seconds", "accuracy", "against", "score", "auroc", "fpr95", "trained_in"]
# Columns that earlier files lack.
LATER = {"precision": "auto", "trained_in": ""}
DATASETS = ("digits", "fashion-mnist", "cifar10")
# Largest numbers of training images, and of images of each test set.
N_TRAIN, N_TEST = 8000, 2000
SETTINGS = {
    "digits": {"hidden_sizes": (64,), "max_epochs": 30},
    "fashion-mnist": {"network": "resnet-8-8", "max_epochs": 6, "augmentation": None},
    "cifar10": {"network": "resnet-8-16", "max_epochs": 12},
}


def load(dataset, home, rng):
    """Training rows and labels, test rows and labels, and sets of unseen rows by name."""
    if dataset == "digits":
        X, y = load_digits(return_X_y=True)
        order = rng.permutation(np.flatnonzero(y < 8))
        train, test = order[:700], order[700:]
        return (X[train], y[train]), (X[test], y[test]), {"digits 8 and 9 (near)": X[y >= 8]}
    if dataset == "fashion-mnist":
        files = ("fashion_mnist_train", "fashion_mnist_test")
        unseen = {"MNIST (far)": "mnist_test", "KMNIST (far)": "kmnist_t10k"}
    else:
        files = ("cifar10_train_1000perclass", "cifar10_test_500perclass")
        unseen = {"CIFAR-100 (near)": "cifar100_test_20perclass", "Tiny ImageNet": "tinyimagenet_val_3000_32"}

    def some(file, n):
        X, y = images(home, file)
        chosen = rng.permutation(len(X))[:n]
        return X[chosen], y[chosen]

    return (
        some(files[0], N_TRAIN),
        some(files[1], N_TEST),
        {name: some(file, N_TEST)[0] for name, file in unseen.items()},
    )


def run(dataset, seed, options):
    """Train a classifier, and return a row for each unseen set and score."""
    (X, y), (X_test, y_test), unseen = load(dataset, options.data_home, np.random.RandomState(seed))
    classifier = BackboneClassifier(**SETTINGS[dataset], random_state=seed, precision=options.precision)
    start = time.perf_counter()
    classifier.fit(X, y)
    about = {"seconds": time.perf_counter() - start, "accuracy": 100 * classifier.score(X_test, y_test)}
    about["trained_in"] = trained_in(options)
    table = compare_scores(classifier, X_test, unseen, X_train=X, y_train=y)
    return [
        {**about, "against": against, "score": score, "auroc": 100 * row["auroc"], "fpr95": 100 * row["fpr95"]}
        for (against, score), row in table.iterrows()
    ]


def main():
    parser = Command(__doc__, "posthoc_scores", seeds=3)
    parser.add_argument("--datasets", default=";".join(DATASETS), help="separated by semicolons; all by default")
    parser.add_argument("--precision", default="auto", help="bfloat16 is faster on some CPUs")
    options = parser.parse_args()
    jobs = [
        ({"dataset": dataset, "seed": seed} | noted(options, LATER), partial(run, dataset, seed, options))
        for dataset in parser.names("--datasets", options.datasets, DATASETS)
        for seed in range(options.seeds)
    ]
    results = Runs(options.out / "results.csv", KEYS, FIGURES, LATER).complete(jobs, options.jobs)
    print("\nAUROC in %, means and standard deviations over seeds\n")
    by_set = results.groupby(["score", "dataset", "against"], sort=False)["auroc"]
    shown = by_set.mean().round(1).astype(str) + " ± " + by_set.std().round(1).astype(str)
    print(shown.unstack(["dataset", "against"]).to_string())


if __name__ == "__main__":
    main()
