"""Vary the epochs of detectors with classes on a few images: AUROC, accuracy and time of a fit.

    python benchmarks/few_images.py --data-home DIR [--sets "digits;clothes"] [--seeds 3] [--jobs 2]

DIR (or the variable SKOOD_DATA) holds ``images/*.npz``; the digits are scikit-learn's. A detector is trained on 100 or
300 images of some classes, and images of the other classes are the outliers: six classes of digits, five of
Fashion-MNIST ("clothes", and with a corpus of EMNIST letters "clothes, letters"), and five of KMNIST ("characters").
"all" is the default, the number of epochs that makes 1000 batches; RejectClassDetector has as many in each of its two
steps.

Each run is written to ``results.csv`` when it is finished; the same command goes on from there.
"""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np
from runs import Command, Runs
from sklearn.datasets import load_digits
from thresholds import classes_apart, read_images

import skood
from skood.metrics import auroc

DETECTORS = ("RejectClassDetector", "RotationAuxClassifier")
# File of images, file of the corpus, classes in distribution. Without a file: scikit-learn's digits.
SETS = {
    "digits": (None, None, 6),
    "clothes": ("fashion_mnist_train", None, 5),
    "clothes, letters": ("fashion_mnist_train", "emnist_letters_train", 5),
    "characters": ("kmnist_t10k", None, 5),
}
EPOCHS = ("50", "100", "all")
KEYS = ["dataset", "n_train", "detector", "epochs", "seed"]
FIGURES = ["auroc", "accuracy", "seconds"]


def load(home, name, n_train, seed):
    """Return training images and labels (-1: corpus), new images and labels, and outliers."""
    file, corpus, n_classes = SETS[name]
    if file is None:
        X, y = load_digits(return_X_y=True)
        X, y = X.reshape(-1, 1, 8, 8) / 16, (y + 2 * seed) % 10
    else:
        X, y = read_images(home, file)
    return classes_apart(X, y, n_classes, n_train, seed, None if corpus is None else read_images(home, corpus)[0])


def run(home, name, n_train, detector, epochs, seed):
    X, y, X_new, y_new, X_out = load(home, name, n_train, seed)
    # In batches of 64.
    n_epochs = math.ceil(1000 / math.ceil(n_train / 64)) if epochs == "all" else int(epochs)
    settings = {"max_epochs": n_epochs, "contamination": 0, "device": "cpu", "random_state": seed}
    start = time.process_time()
    model = getattr(skood, detector)(**settings).fit(X, y)
    seconds = time.process_time() - start
    truth = np.repeat([1, -1], [len(X_new), len(X_out)])
    return {
        "auroc": 100 * auroc(truth, model.score_samples(np.concatenate([X_new, X_out]))),
        "accuracy": 100 * float((model.predict_class(X_new) == y_new).mean()),
        "seconds": seconds,
    }


def main(arguments=None):
    parser = Command(__doc__, "few_images", seeds=3)
    parser.add_argument("--sets", default=";".join(SETS), help="separated by semicolons; all by default")
    parser.add_argument("--sizes", default="100,300", help="numbers of training images, separated by commas")
    parser.add_argument("--detectors", default=",".join(DETECTORS), help="separated by commas; all by default")
    options = parser.parse_args(arguments)
    sets, detectors = options.sets.split(";"), options.detectors.split(",")
    for chosen, known in ((sets, SETS), (detectors, DETECTORS)):
        unknown = [name for name in chosen if name not in known]
        if unknown:
            parser.error(f"no {unknown[0]!r}; there are {'; '.join(known)}")
    jobs = [
        (dict(zip(KEYS, key, strict=True)), partial(run, options.data_home, *key))
        for key in (
            (name, n_train, detector, epochs, seed)
            for seed in range(options.seeds)
            for name in sets
            for n_train in map(int, options.sizes.split(","))
            for epochs in EPOCHS
            for detector in detectors
        )
    ]
    results = Runs(options.out / "results.csv", KEYS, FIGURES).complete(jobs, options.jobs)
    by_case = results.groupby(["dataset", "n_train", "detector", "epochs"], sort=False)[FIGURES]
    print(by_case.agg(["mean", "std"]).round(1).to_string())


if __name__ == "__main__":
    main()
