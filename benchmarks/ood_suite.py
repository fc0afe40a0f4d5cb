"""Compare classifiers of CIFAR-10 on near and far sets of images, by all scores: AUROC and FPR95.

    python benchmarks/ood_suite.py --data-home DIR [--size small | full] [--seeds 3] [--device cuda]
    python benchmarks/ood_suite.py --data-home DIR --far textures=dtd/images --far svhn=test_32x32.mat

DIR (or the variable SKOOD_DATA) holds ``images/*.npz``. Near sets have images of objects, as CIFAR-10 does: the odd
classes of CIFAR-100, and Tiny ImageNet. Far ones have other images: handwritten digits, characters, letters and clothes
in colour, and what ``--far`` names: a folder of image files, SVHN's ``.mat`` file, or an ``.npz`` file (array X).

Four classifiers have the same network, learning rate and number of epochs: trained on the classes alone; on classes and
rotations; with outlier exposure; and with reject classes. The last two learn from the even classes of CIFAR-100. "own"
is the score that a detector has by default. "small" suits a CPU; "full" is a WRN-40-2 with 100 epochs.

Each run, a classifier by a seed, is written to ``results.csv`` when it is finished; the same command goes on from
there.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from image_files import HELP, named, read
from reject_classes import images, in_colour
from runs import Command, Runs, trained_in

from skood import RejectClassDetector, RotationAuxClassifier, compare_scores
from skood.metrics import auroc, fpr_at_tpr

KEYS = ["size", "classifier", "seed", "precision", "far"]
FIGURES = ["seconds", "accuracy", "kind", "against", "score", "auroc", "fpr95", "trained_in"]
# Columns that earlier files lack.
LATER = {"precision": "auto", "far": "", "trained_in": ""}
CLASSIFIERS = ("plain", "rotations", "outlier exposure", "reject classes")
GREY = {"mnist": "mnist_test", "kmnist": "kmnist_t10k", "notmnist": "notmnist_10k", "clothes": "fashion_mnist_test"}
# Training images, epochs in all, images of each test set, and network.
SIZES = {
    "toy": (60, 2, 40, "resnet-8-4"),
    "small": (8000, 12, 2000, "resnet-8-16"),
    "full": (None, 100, None, "wrn-40-2"),
}


def build(name, size, device, precision):
    """Return the classifier of a name."""
    _, epochs, _, network = SIZES[size]
    common = {"network": network, "augmentation": "crop-flip", "contamination": 0, "device": device}
    common |= {"precision": precision}
    # A Wide ResNet has dropout, by default; a ResNet has none.
    if network.startswith("wrn-"):
        common["dropout"] = 0.0
    if name in ("plain", "rotations"):
        auxiliary = "rotation" if name == "rotations" else None
        return RotationAuxClassifier(auxiliary=auxiliary, max_epochs=epochs, **common)
    labels = "uniform" if name == "outlier exposure" else "self"
    # Three quarters of the epochs are of the classes alone, as with the reject paper's small runs.
    second = max(1, epochs // 4)
    # As many outliers as in the paper, for both.
    common["outlier_batch_ratio"] = 5.0
    return RejectClassDetector(pseudo_labels=labels, class_epochs=epochs - second, max_epochs=second, **common)


def load(options, rng):
    """Return training and test images with classes, the corpus, and unseen images by kind and name."""
    n_train, _, n_test, _ = SIZES[options.size]

    def some(X, n=n_test):
        return X[rng.permutation(len(X))[:n]]

    X, y = images(options.data_home, "cifar10_train_1000perclass")
    X_test, y_test = images(options.data_home, "cifar10_test_500perclass")
    corpus, label = images(options.data_home, "cifar100_train_100perclass")
    others, other_label = images(options.data_home, "cifar100_test_20perclass")
    train, test = some(np.arange(len(X)), n_train), some(np.arange(len(X_test)))
    unseen = {("near", "cifar100, odd classes"): some(others[other_label % 2 == 1])}
    unseen["near", "tiny imagenet"] = some(images(options.data_home, "tinyimagenet_val_3000_32")[0])
    for name, file in GREY.items():
        unseen["far", name] = in_colour(some(images(options.data_home, file)[0]))
    for name, path in options.far:
        unseen["far", name] = some(read(path))
    return (X[train], y[train]), (X_test[test], y_test[test]), corpus[label % 2 == 0], unseen


def run(name, seed, options):
    """Train a classifier, and return a row for each unseen set and score."""
    (X, y), (X_test, y_test), corpus, unseen = load(options, np.random.RandomState(seed))
    detector = build(name, options.size, options.device, options.precision).set_params(random_state=seed)
    start = time.perf_counter()
    if isinstance(detector, RejectClassDetector):
        detector.fit(np.concatenate([X, corpus]), np.concatenate([y, np.full(len(corpus), -1)]))
    else:
        detector.fit(X, y)
    about = {"seconds": time.perf_counter() - start}
    about["trained_in"] = trained_in(options)
    about["accuracy"] = 100 * (detector.predict_class(X_test) == y_test).mean()
    own = detector.score_samples(X_test)
    rows = []
    for (kind, against), images_unseen in unseen.items():
        table = compare_scores(detector, X_test, images_unseen, X_train=X, y_train=y)[["auroc", "fpr95"]]
        truth = np.repeat([1, -1], [len(X_test), len(images_unseen)])
        scores = np.concatenate([own, detector.score_samples(images_unseen)])
        table.loc["own"] = auroc(truth, scores), fpr_at_tpr(truth, scores)
        rows += [
            {**about, "kind": kind, "against": against, "score": score, **(100 * row)}
            for score, row in table.iterrows()
        ]
    return rows


def print_tables(results):
    """Print means and deviations over the seeds, of near and of far sets, for each classifier and score."""
    by_seed = results.groupby(["kind", "score", "classifier", "seed"], sort=False)[
        ["auroc", "fpr95", "accuracy"]
    ].mean()
    over = by_seed.groupby(["kind", "score", "classifier"], sort=False)
    mean, spread = over.mean(), over.std()
    for kind in ("near", "far"):
        for figure in ("auroc", "fpr95"):
            shown = mean[figure].map("{:.1f}".format) + " ± " + spread[figure].map("{:.1f}".format)
            print(f"\n{kind}: {figure.upper()} in %\n")
            print(shown[kind].unstack("classifier").to_string())
    print("\nAccuracy in %\n")
    print(
        results.groupby(["classifier", "seed"])["accuracy"].first().groupby("classifier").agg(["mean", "std"]).round(1)
    )


def main(arguments=None):
    parser = Command(__doc__, "ood_suite", seeds=3)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--classifiers", default=";".join(CLASSIFIERS), help="separated by semicolons; all by default")
    parser.add_argument("--far", action="append", default=[], type=named, metavar="NAME=PATH", help=HELP)
    parser.add_argument("--precision", default="auto", help="bfloat16 is faster on some CPUs")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    names = parser.names("--classifiers", options.classifiers, CLASSIFIERS)
    # A run measures the sets that are named for it, and the network is not kept for others.
    about = {"size": options.size, "precision": options.precision, "far": ", ".join(sorted(dict(options.far)))}
    jobs = [
        (about | {"classifier": name, "seed": seed}, partial(run, name, seed, options))
        for seed in range(options.seeds)
        for name in names
    ]
    print_tables(Runs(options.out / "results.csv", KEYS, FIGURES, LATER).complete(jobs, options.jobs))


if __name__ == "__main__":
    main()
