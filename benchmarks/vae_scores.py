"""Compare scores and weights of generated negatives of NegSampleVAE, on near and far images, grey and coloured.

    python benchmarks/vae_scores.py --data-home DIR [--seeds 3] [--perturb 1e-6] [--n-train 2500] [--only "digits 9"]

DIR (or the variable SKOOD_DATA) holds ``images/*.npz``; the digits are scikit-learn's. Each row of ``results.csv`` is
one fitted model on one unseen set, with the AUROC of each score. Models are trained for 800 batches of 50 images, on at
most ``--n-train`` images; with more than 2,500 of them for 2,000 batches, as the default is. They score at most 1,000
test images of each kind. ``--perturb E`` repeats each fit on the same images multiplied by 1 - E, which shows how much
a result depends on rounding.

Choices are made on the in-distribution sets in `CHOOSING`; the others check them. A fit is written when it is finished,
and the same command goes on from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from reject_classes import images, in_colour
from runs import Command, Runs, noted, trained_in
from torch.nn import functional

from skood import NegSampleVAE
from skood.datasets import load as built_in
from skood.metrics import auroc

N_TEST, N_BATCHES, BATCH_SIZE = 1_000, 800, 50
# Batches for more than so many images.
FEW_IMAGES, N_LONG = 2_500, 2_000
# Setting -> parameters. "auxiliary" is only for sets with a corpus in the paper.
SETTINGS: dict[str, dict] = {
    "no negatives": {"negatives": None},
    "generated .1": {"negatives": "generated", "negative_weight": 0.1},
    "generated .03": {"negatives": "generated", "negative_weight": 0.03},
    "generated .01": {"negatives": "generated", "negative_weight": 0.01},
    "generated .3": {"negatives": "generated", "negative_weight": 0.3},
    "Gaussian": {"negatives": None, "noise_model": "gaussian", "variance": "learned"},
    "auxiliary": {"negatives": "auxiliary"},
}
SCORES = ("elbo", "deviance", "robust", "kl", "reconstruction")
# In-distribution sets on which defaults are chosen.
CHOOSING = ("digits 9", "digits 3", "fashion class 0", "fashion", "cifar10", "dogs")

KEYS = ["inside", "setting", "n_train", "seed", "perturb", "precision"]
FIGURES = ["outside", "seconds", *(f"auroc_{score}" for score in SCORES), "trained_in"]
# Columns that earlier files lack.
LATER = {"precision": "auto", "trained_in": ""}


def drawn(X, n, seed=0):
    """Return at most n random rows."""
    return X[np.random.RandomState(seed).permutation(len(X))[:n]]


def split(X, n_train):
    """Return training rows and test rows of one set: half each, but no more than needed."""
    X = drawn(X, len(X))
    half = len(X) // 2
    return X[:half][:n_train], X[half:][:N_TEST]


def unscaled(X):
    """Return images as floats; bytes are divided by 255."""
    return X / np.float32(255) if X.dtype == np.uint8 else X


def constant(X):
    """Return images of a single grey level, or a single colour, each."""
    rng = np.random.RandomState(0)
    return np.broadcast_to(rng.randint(0, 256, (200, X.shape[1], 1, 1)), (200, *X.shape[1:])).astype(np.uint8)


def smooth(X):
    """Return the same images after a wide blur, with colours still in distribution."""
    small = functional.avg_pool2d(torch.from_numpy(X.astype(np.float32)), 8)
    return functional.interpolate(small, size=X.shape[2:], mode="bilinear").numpy().astype(np.uint8)


def digits(home, n_train, out):
    """Return scikit-learn's digits without one of them, and that one as the unseen set."""
    X, y = built_in("digits", classes=True)
    X_train, X_test = split(X[y != out], n_train)
    return X_train, None, X_test, {f"the {out}": X[y == out]}


def grey(home, n_train, inside):
    """Return one of the sets of 28 x 28 pixels, and the others as unseen sets."""
    files = {
        "fashion": "fashion_mnist_test",
        "mnist": "mnist_test",
        "kmnist": "kmnist_t10k",
        "notmnist": "notmnist_10k",
    }
    corpus = None
    if inside in ("fashion", "mnist"):
        X_train = drawn(images(home, files[inside].replace("_test", "_train"))[0], n_train)
        X_test = drawn(images(home, files[inside])[0], N_TEST)
        if inside == "fashion":
            corpus = drawn(images(home, "emnist_letters_train")[0], n_train)
    else:
        X_train, X_test = split(images(home, files[inside])[0], n_train)
    unseen = {name: images(home, file)[0] for name, file in files.items() if name != inside}
    return X_train, corpus, X_test, unseen | {"constant": constant(X_train)}


def one_class(home, n_train, inside):
    """Return one class of Fashion-MNIST, and the other nine as the unseen set."""
    X, y = images(home, "fashion_mnist_train")
    X_test, y_test = images(home, "fashion_mnist_test")
    unseen = {"the rest": X_test[y_test != inside], "constant": constant(X)}
    return drawn(X[y == inside], n_train), None, X_test[y_test == inside], unseen


def colour(home, n_train, inside):
    """Return CIFAR-10 or imagenette, and as unseen sets grey sets in colour and natural images of other classes."""
    files = {
        "cifar10": ("cifar10_train_1000perclass", "cifar10_test_500perclass"),
        "imagenette": ("imagenette_train_2000_32", "imagenette_val_1000_32"),
    }
    X_train, X_test = (images(home, file)[0] for file in files[inside])
    others, label = images(home, "cifar100_test_20perclass")
    corpus = None
    if inside == "cifar10":
        # Half of the classes of CIFAR-100 are the corpus, the other half is unseen.
        X, y = images(home, "cifar100_train_100perclass")
        corpus = drawn(X[y % 2 == 0], n_train)
    unseen = {
        "mnist": in_colour(images(home, "mnist_test")[0]),
        "fashion": in_colour(images(home, "fashion_mnist_test")[0]),
        "cifar100, other classes": others[label % 2 == 1],
        "smooth": smooth(X_test),
        "constant": constant(X_train),
    }
    return drawn(X_train, n_train), corpus, drawn(X_test, N_TEST), unseen


def dogs(home, n_train):
    """Return five breeds of dogs, 64 x 64, and as unseen sets the sixth, smooth and constant images."""
    with np.load(home / "images" / "tinyimagenet_6dogs_900_64.npz") as file:
        X, y, part = file["X"], file["y"], file["split"]
    out = y == y.max()
    X_test = X[(part == 1) & ~out]
    unseen = {"the sixth": X[out], "smooth": smooth(X_test), "constant": constant(X)}
    return drawn(X[(part == 0) & ~out], n_train), None, X_test, unseen


# In-distribution set -> function that loads it, the fastest first.
CASES: dict[str, Callable] = {f"digits {out}": partial(digits, out=out) for out in (9, 6, 3, 0)}
CASES |= {f"fashion class {label}": partial(one_class, inside=label) for label in (0, 8)}
CASES |= {name: partial(grey, inside=name) for name in ("fashion", "mnist", "kmnist", "notmnist")}
CASES |= {name: partial(colour, inside=name) for name in ("cifar10", "imagenette")}
CASES["dogs"] = dogs


def run(inside, setting, seed, perturb, options):
    X, corpus, X_test, unseen = CASES[inside](options.data_home, options.n_train)
    if setting == "auxiliary":
        y = np.repeat([1, -1], [len(X), len(corpus)])
        X = np.concatenate([X, corpus])
    else:
        y = None
    n_inliers = len(X) if y is None else int((y == 1).sum())
    if perturb:
        # Pixels that are no bytes are not scaled in scoring either.
        X, X_test, *others = map(unscaled, (X, X_test, *unseen.values()))
        X, unseen = X * (1 - perturb), dict(zip(unseen, others, strict=True))
    n_batches = N_BATCHES if options.n_train <= FEW_IMAGES else N_LONG
    epochs = math.ceil(n_batches / math.ceil(n_inliers / BATCH_SIZE))
    vae = NegSampleVAE(
        **SETTINGS[setting],
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        contamination=0,
        precision=options.precision,
        random_state=seed,
    )
    start = time.perf_counter()
    vae.fit(X, y)
    seconds = time.perf_counter() - start
    inliers = vae.score_components(drawn(X_test, N_TEST))
    rows = []
    for name, outliers in unseen.items():
        outliers = vae.score_components(drawn(outliers, N_TEST))
        truth = np.repeat([1, -1], [len(inliers), len(outliers)])
        figures = {
            f"auroc_{score}": auroc(truth, np.concatenate([inliers[score], outliers[score]])) for score in SCORES
        }
        rows.append({"outside": name, "seconds": seconds, "trained_in": trained_in(options), **figures})
    return rows


def print_table(results):
    """Print means and spreads over seeds, and for each setting and score the mean and the worst case."""
    # Constant images are one case of the many; each counts once.
    case = results.groupby(["setting", "inside", "outside"], sort=False)
    names = [f"auroc_{score}" for score in SCORES]
    for chosen in (True, False):
        print(f"\nSets {'that choices are made on' if chosen else 'kept to check them'}: mean / worst, largest spread")
        mean, spread = case[names].mean(), case[names].max() - case[names].min()
        own = mean.index.get_level_values("inside").isin(CHOOSING) == chosen
        for setting, figures in mean[own].groupby("setting", sort=False):
            wide = spread[own].loc[setting].max()
            shown = [
                f"{name[6:]} {figures[name].mean():.3f} / {figures[name].min():.2f} ({wide[name]:.2f})"
                for name in names
            ]
            print(f"  {setting:14} {len(figures):3} cases  {', '.join(shown)}")
    print("\n" + case[names].mean().round(2).to_string())


def main():
    parser = Command(__doc__, "vae_scores", seeds=1)
    parser.add_argument("--n-train", type=int, default=2_500)
    parser.add_argument("--perturb", type=float, help="repeat each fit on images multiplied by 1 minus this")
    parser.add_argument("--only", help="sets in distribution, separated by semicolons; all by default")
    parser.add_argument("--settings", help="settings, separated by semicolons; all by default")
    parser.add_argument("--precision", default="auto", help="bfloat16 is faster on some CPUs")
    options = parser.parse_args()

    insides = parser.names("--only", options.only, CASES)
    settings = parser.names("--settings", options.settings, SETTINGS)
    perturbations = [0.0] if options.perturb is None else [0.0, options.perturb]
    jobs = [
        (
            dict(zip(KEYS[:5], (inside, setting, options.n_train, seed, perturb), strict=True)) | noted(options, LATER),
            partial(run, inside, setting, seed, perturb, options),
        )
        for seed in range(options.seeds)
        for inside in insides
        for setting in settings
        for perturb in perturbations
        if setting != "auxiliary" or inside in ("fashion", "cifar10")
    ]
    runs = Runs(options.out / "results.csv", KEYS, FIGURES, LATER)
    print_table(runs.complete(jobs, options.jobs))


if __name__ == "__main__":
    main()
