"""Measure whether ``explain`` finds a planted fault: a feature of a row of a table, or a patch of an image.

    python benchmarks/explanations.py --data-home DIR [--sets "wine;digits"] [--seeds 3]

DIR (or the variable SKOOD_DATA) holds ``adbench/*.npz`` and ``images/*.npz``. The rows of a set are divided into three
parts: training rows, rows that set the threshold, at which 5 % of them are called outliers, and rows in which a fault
is planted. In tables one random feature of each row takes a value some standard deviations from its mean; in images
(those of Fashion-MNIST are reduced to 12 x 12) one of 4 x 4 patches is inverted. Among the planted rows that the
detector finds, those below the threshold, ``named`` is the share in which the planted feature or patch has the lowest
contribution, and ``seconds`` the time for each row. The methods are

explain
        The method of the detector.
KernelExplainer
    SHAP's explainer, if it is installed, for the first five such rows, or three images. Rows are compared with ten
    centres of the training rows; patches of images with those of the mean image.
log-variances, reconstruction
    The contribution of each feature to a score of DUM's log-variances, or to the error of a VAE's reconstruction, minus
    its median over the training rows.

Each run, a detector on a set by a seed, is written to ``results.csv`` when it is finished; the same command goes on
from there.
"""

from __future__ import annotations

import time
import warnings
from functools import partial

import numpy as np
import torch
from reject_classes import images
from runs import Command, Runs
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import (
    BackboneClassifier,
    DUMDetector,
    NegSampleVAE,
    OODScorer,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
)

KEYS = ["set", "detector", "seed"]
FIGURES = ["method", "size", "planted", "found", "explained", "named", "seconds"]
TABLES = ("wine", "breast_cancer", "29_Pima", "38_thyroid", "6_cardio")
IMAGES = ("digits", "fashion-mnist")
# Standard deviations between a planted value and the mean.
SIZES = (4, 8)
# Number of patches along each side of an image.
GRID = 4
# Largest number of training rows, and number of rows with a planted fault.
N_TRAIN, N_PLANTED = 600, 20
N_PLANTED_IMAGES = 12
# Numbers of rows and of images that SHAP explains.
N_SHAP, N_SHAP_IMAGES = 5, 3

SHORT = {"max_epochs": 40, "contamination": 0}
FEW = {"max_epochs": 8, "contamination": 0}
RESNET = {"network": "resnet-8-8", "lr": 0.02}


class ByClassifier:
    """An `OODScorer` that trains its classifier first."""

    def __init__(self, classifier, method):
        self.classifier, self.method = classifier, method

    def fit(self, X, y, seed):
        if "random_state" in self.classifier.get_params():
            self.classifier.set_params(random_state=seed)
        return OODScorer(self.classifier.fit(X, y), self.method, contamination=0).fit(X, y)


DETECTORS = {
    "DUMDetector": DUMDetector(**SHORT),
    "NegSampleVAE": NegSampleVAE(**SHORT),
    "RejectClassDetector": RejectClassDetector(**SHORT),
    "RotationAuxClassifier": RotationAuxClassifier(**SHORT),
    "ResidualAdapterDetector": ResidualAdapterDetector(pretrain_epochs=20, **SHORT),
    # Explained by gradients, and by sampling.
    "OODScorer, network": ByClassifier(BackboneClassifier(max_epochs=40), "mahalanobis"),
    "OODScorer, scikit-learn": ByClassifier(make_pipeline(StandardScaler(), LogisticRegression()), "mahalanobis"),
}
IMAGE_DETECTORS = {
    "DUMDetector": DUMDetector(**SHORT),
    "NegSampleVAE": NegSampleVAE(max_epochs=40, contamination=0),
    "RejectClassDetector": RejectClassDetector(**FEW, **RESNET),
    "RotationAuxClassifier": RotationAuxClassifier(**FEW, **RESNET),
    "ResidualAdapterDetector": ResidualAdapterDetector("resnet-8-8", pretrain_epochs=8, lr=0.02, **FEW),
    "OODScorer, network": ByClassifier(BackboneClassifier("resnet-8-8", max_epochs=8, lr=0.02), "mahalanobis"),
}


def load(name, home):
    """Return rows in distribution and their classes, or None if they have none."""
    if name in ("wine", "breast_cancer"):
        return (load_wine if name == "wine" else load_breast_cancer)(return_X_y=True)
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X.reshape(-1, 1, 8, 8) / 16, y
    if name == "fashion-mnist":
        X, y = images(home, "fashion_mnist_test")
        # The middle 24 x 24 pixels, averaged over 2 x 2, for the sake of speed.
        middle = X[:2000, :, 2:-2, 2:-2].reshape(2000, 1, 12, 2, 12, 2).mean((3, 5))
        return middle / 255, y[:2000]
    with np.load(home / "adbench" / f"{name}.npz") as file:
        X = file["X"][file["y"] == 0]
    return X[:, X.std(0) > 0], None


def planted_features(X, train, size, rng):
    """Return rows with one faulty feature each, and the indices of these features."""
    rows = X[rng.randint(len(X), size=N_PLANTED)].copy()
    which = rng.randint(X.shape[1], size=N_PLANTED)
    off = train.mean(0) + rng.choice([-size, size], N_PLANTED)[:, None] * train.std(0)
    every = np.arange(N_PLANTED)
    rows[every, which] = off[every, which]
    return rows, which


def planted_patches(X, rng):
    """Return images with one inverted patch each, and the indices of these patches."""
    rows = X[rng.choice(len(X), N_PLANTED_IMAGES, replace=False)].copy()
    which = rng.randint(GRID**2, size=len(rows))
    side = X.shape[-1] // GRID
    largest = 255 if X.dtype == np.uint8 else 1
    for row, patch in zip(rows, which, strict=True):
        down, across = (slice(place * side, (place + 1) * side) for place in divmod(patch, GRID))
        row[:, down, across] = largest - row[:, down, across]
    return rows, which


def in_patches(maps):
    """Return the sum over each patch of maps (n, H, W), of shape (n, GRID ** 2)."""
    side = maps.shape[-1] // GRID
    return maps.reshape(len(maps), GRID, side, GRID, side).sum((2, 4)).reshape(len(maps), -1)


def by_kernel_shap(detector, rows, train):
    """Return SHAP's values of features, or of patches of images compared with those of the mean image."""
    import shap

    if rows.ndim == 2:
        explainer = shap.KernelExplainer(detector.score_samples, shap.kmeans(train, 10))
        return explainer.shap_values(rows, silent=True)
    mean = train.mean(0).astype(train.dtype)
    found = []
    for row in rows:

        def score(masks, row=row):
            kept = masks.reshape(-1, 1, GRID, GRID).repeat(row.shape[1] // GRID, 2).repeat(row.shape[2] // GRID, 3)
            return detector.score_samples(np.where(kept > 0, row, mean))

        explainer = shap.KernelExplainer(score, np.zeros((1, GRID**2)))
        found.append(explainer.shap_values(np.ones((1, GRID**2)), silent=True)[0])
    return np.array(found)


def by_log_variances(detector, rows, train):
    """Return contributions to a score of DUM's log-variances, those of whitened features by squared loadings."""

    def shares(X):
        log_variance = torch.from_numpy(detector._represented(X.astype(np.float64)))
        with torch.no_grad():
            log_variance = detector.module_(log_variance).numpy()
        return -log_variance @ np.square(detector.scaler_.components_).T

    return shares(rows) - np.median(shares(train), 0)


def by_reconstruction(detector, rows, train):
    """Return minus the squared error of each feature's reconstruction, divided by its variance in training rows."""

    def shares(X):
        return -np.square((X - detector.reconstruct(X)) / train.std(0))

    return shares(rows) - np.median(shares(train), 0)


OTHERS = {"DUMDetector": ("log-variances", by_log_variances), "NegSampleVAE": ("reconstruction", by_reconstruction)}


def has_shap():
    try:
        import shap  # noqa: F401
    except ImportError:
        return False
    return True


def run(name, kind, seed, options):
    """Fit a detector, and return a row for each method and size."""
    warnings.simplefilter("ignore")
    X, y = load(name, options.data_home)
    of_images = name in IMAGES
    rng = np.random.RandomState(seed)
    rows = rng.permutation(len(X))[: 2 * N_TRAIN]
    train, rest = train_test_split(rows, train_size=min(N_TRAIN, int(0.6 * len(rows))), random_state=seed)
    threshold, new = train_test_split(rest, test_size=0.5, random_state=seed)
    detector = (IMAGE_DETECTORS if of_images else DETECTORS)[kind]
    if isinstance(detector, ByClassifier):
        detector = detector.fit(X[train], y[train], seed)
    else:
        reads = y is not None and hasattr(detector, "predict_class")
        detector = clone(detector).set_params(random_state=seed)
        detector = detector.fit(X[train], y[train].astype(str) if reads else None)
    detector.set_threshold(target_fpr=0.05, X=X[threshold])

    lines = []
    for size in ("patch",) if of_images else SIZES:
        if of_images:
            planted, which = planted_patches(X[new], rng)
        else:
            planted, which = planted_features(X[new], X[train], size, rng)
        found = detector.predict(planted) == -1
        about = {"size": size, "planted": len(planted), "found": int(found.sum())}
        methods = {"explain": (len(planted), lambda rows: detector.explain(rows))}
        if not of_images and kind in OTHERS:
            other, function = OTHERS[kind]
            methods[other] = len(planted), partial(function, detector, train=X[train])
        if has_shap():
            few = N_SHAP_IMAGES if of_images else N_SHAP
            methods["KernelExplainer"] = few, partial(by_kernel_shap, detector, train=X[train])
        for method, (most, function) in methods.items():
            chosen, true = planted[found][:most], which[found][:most]
            if not len(chosen):
                lines.append({**about, "method": method, "explained": 0})
                continue
            start = time.perf_counter()
            values = np.asarray(function(chosen))
            seconds = (time.perf_counter() - start) / len(chosen)
            values = in_patches(values) if values.ndim == 3 else values
            named = float((values.argmin(1) == true).mean())
            lines.append({**about, "method": method, "explained": len(chosen), "named": named, "seconds": seconds})
    return lines


def main():
    parser = Command(__doc__, "explanations", seeds=3)
    parser.add_argument("--sets", default=";".join(TABLES + IMAGES), help="separated by semicolons; all by default")
    parser.add_argument("--detectors", help="separated by semicolons; all by default")
    options = parser.parse_args()
    if options.detectors is not None:
        parser.names("--detectors", options.detectors, DETECTORS)
    jobs = []
    for seed in range(options.seeds):
        for name in options.sets.split(";"):
            kinds = IMAGE_DETECTORS if name in IMAGES else DETECTORS
            for kind in kinds if options.detectors is None else options.detectors.split(";"):
                # A classifier needs classes.
                if kind.startswith("OODScorer") and name not in ("wine", "breast_cancer", *IMAGES):
                    continue
                key = {"set": name, "detector": kind, "seed": seed}
                jobs.append((key, partial(run, name, kind, seed, options)))
    results = Runs(options.out / "results.csv", KEYS, FIGURES).complete(jobs, options.jobs)
    results["right"] = results["named"] * results["explained"]
    both = results.groupby(["detector", "method", "size"], sort=False)[["found", "planted", "explained", "right"]].sum()
    both["named"] = both["right"] / both["explained"]
    both["seconds"] = results.groupby(["detector", "method", "size"], sort=False)["seconds"].median()
    print(both.drop(columns="right").round(3).to_string())


if __name__ == "__main__":
    main()
