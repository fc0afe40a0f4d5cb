"""One class of CIFAR-10 against the other nine: RejectClassDetector beside Deep SVDD, as in the reject-class paper.

    python benchmarks/reject_one_class.py --data-home DIR [--size full] [--seeds 3] [--jobs 2]
    python benchmarks/reject_one_class.py --size short --seeds 3 --data-home DIR

DIR (or the variable SKOOD_DATA) holds ``images/*.npz``: 1000 training and 500 test images of each class of CIFAR-10,
and CIFAR-100, whose 10,000 images are the corpus; the paper's is 80 million Tiny Images, withdrawn since. Each class in
turn is in distribution, and all test images are scored.

reject classes
    With the corpus. A single class needs no training of its own, so that there is only step two.
Deep SVDD
    ``ResidualAdapterDetector(adaptation="scratch", outliers=None)``: no corpus, no decoder to start from.
hypersphere classifier
    The same with the corpus: what the corpus is worth without reject classes.
kNN
    Nearest neighbours among the pixels: what is learnt without training.
reject classes, 5 a row; reject classes, 3 times the epochs
    Only if ``--methods`` names them. The first has the paper's five outliers for each row, and not one, which is the
    default in colour; the second takes as long as the first.

The others have the same network and pass over the images as often. "short" has images of 16 x 16 pixels and ten passes;
"small" has twenty; "full" has the paper's network and 100 passes, and RejectClassDetector the other settings of
``from_paper``.

Each run is written to ``results.csv`` when it is finished; the same command goes on from there.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from holdout_class import CLASSES as CLASSES_OF
from reject_classes import described, images, smaller
from runs import Command, Runs, checkpoint, noted, trained_in, training_seconds

from skood import RejectClassDetector, ResidualAdapterDetector
from skood.compare import NearestNeighborsDetector
from skood.metrics import auroc

CLASSES = CLASSES_OF["cifar10"]

# Mean AUROC over the classes, in percent.
PAPER = {"reject classes": 77.75, "Deep SVDD": 64.81}
METHODS = ("reject classes", "Deep SVDD", "hypersphere classifier", "kNN")
# The same with the paper's five outliers for each row, and with one and as much time.
OTHERS = ("reject classes, 5 a row", "reject classes, 3 times the epochs")
SIZES = {"short": ("wrn-10-1", 10), "small": ("wrn-10-2", 20), "full": ("wrn-40-2", 100)}
KEYS = ["size", "method", "target", "seed", "max_epochs", "precision"]
FIGURES = ["auroc", "seconds", "trained_in"]
# Columns that earlier files lack.
LATER = {"max_epochs": "default", "precision": "auto", "trained_in": ""}


def make_detector(method, options):
    """The untrained detector of a method. Only scores matter: no threshold is set on held-out rows."""
    network, epochs = SIZES[options.size]
    settings = {"max_epochs": options.max_epochs or epochs, "augmentation": "crop-flip", "contamination": 0}
    settings |= {"precision": options.precision, "device": options.device}
    if method.startswith("reject classes"):
        settings["network"] = network
        if method.endswith("5 a row"):
            settings["outlier_batch_ratio"] = 5.0
        if method.endswith("3 times the epochs"):
            settings["max_epochs"] *= 3
        if options.size == "full":
            return RejectClassDetector.from_paper(class_epochs="auto", class_outputs="classes", **settings)
        return RejectClassDetector(**settings)
    settings["adaptation"] = "scratch"
    if method == "Deep SVDD":
        settings["outliers"] = None
    return ResidualAdapterDetector(network, **settings)


def run(key, options):
    """Fit a detector on one class, and return its AUROC on all test images, in percent."""
    X, y = images(options.data_home, "cifar10_train_1000perclass")
    X_test, y_test = images(options.data_home, "cifar10_test_500perclass")
    corpus, _ = images(options.data_home, "cifar100_train_100perclass")
    label = CLASSES.index(key["target"])
    X = X[y == label]
    if options.size == "short":
        X, X_test, corpus = smaller(X), smaller(X_test), smaller(corpus)
    start, about = time.perf_counter(), {}
    if key["method"] == "kNN":
        detector = NearestNeighborsDetector().fit(X.reshape(len(X), -1) / 255)
        seconds, X_test = time.perf_counter() - start, X_test.reshape(len(X_test), -1) / 255
    else:
        if key["method"] == "Deep SVDD":
            corpus = corpus[:0]
        detector = make_detector(key["method"], options)
        detector.set_params(random_state=key["seed"], checkpoint=checkpoint(options.out, key, LATER))
        detector.fit(np.concatenate([X, corpus]), np.repeat([1, -1], [len(X), len(corpus)]))
        seconds = training_seconds(detector, start)
        about["trained_in"] = trained_in(options)
    truth = np.where(y_test == label, 1, -1)
    return {"auroc": 100 * auroc(truth, detector.score_samples(X_test)), "seconds": seconds, **about}


def print_table(results):
    """Print means and deviations over the seeds, for each class, and of the mean over the classes."""
    print(f"\nAUROC in %; seeds: {results['seed'].nunique()}\n")
    table = results.pivot_table("auroc", "target", "method", described, sort=False)
    means = results.pivot_table("auroc", "seed", "method", sort=False)
    table.loc[f"mean of {len(table)}"] = means.agg(described)
    table.loc["paper: mean of 10"] = {name: f"{value:.2f}" for name, value in PAPER.items()}
    print(table.to_string(na_rep="-"))


def main(arguments=None):
    parser = Command(__doc__, "reject_one_class", seeds=1)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--classes", default=";".join(CLASSES), help="separated by semicolons; all by default")
    parser.add_argument(
        "--methods", default=";".join(METHODS), help="separated by semicolons; the first four by default"
    )
    parser.add_argument("--max-epochs", type=int, help="instead of the number of the size")
    parser.add_argument("--precision", default="auto", help="bfloat16 is faster on some CPUs")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    targets, methods = options.classes.split(";"), options.methods.split(";")
    for names, known in ((targets, CLASSES), (methods, METHODS + OTHERS)):
        if unknown := set(names) - set(known):
            parser.error(f"there is no {min(unknown)!r}; choose of {'; '.join(known)}")
    keys = [
        {"size": options.size, "method": method, "target": target, "seed": seed} | noted(options, LATER)
        for seed in range(options.seeds)
        for target in targets
        for method in methods
    ]
    jobs = [(key, partial(run, key, options)) for key in keys]
    print_table(Runs(options.out / "results.csv", KEYS, FIGURES, LATER).complete(jobs, options.jobs))


if __name__ == "__main__":
    main()
