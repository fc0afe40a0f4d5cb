"""Run RotationAuxClassifier with each class held out: average precision for the unseen class, Table 3 of the paper.

    python benchmarks/holdout_class.py --dataset fashion-mnist --data-home DIR [--jobs 2]
    python benchmarks/holdout_class.py --dataset cifar10 --data-home DIR [--size gpu | paper]
    python benchmarks/holdout_class.py --dataset stl10 --classifiers "classes and CPC" --data-home DIR
    python benchmarks/holdout_class.py --dataset stl10 --classes none --trials 3 --data-home DIR

DIR (or the variable SKOOD_DATA) holds ``images/*.npz``. Each class in turn is held out of training, and is the positive
class among all test images. Three classifiers are trained: on the classes alone, on classes and rotations for as many
epochs, which are twice the steps, and on the classes alone for twice as many epochs. ``--classifiers`` also knows
classes and CPC (appendix C), and classes of images with a masked centre (section 5.2). stl10 has images of 96 pixels,
stl10-32 of 32, dogs (six breeds of Tiny ImageNet) of 64, digits of 8. "gpu" trains a WRN-16-4; "paper"
is the paper's network and training (on CIFAR-10 with the available images). ``--classes none`` trains on all classes,
and measures the accuracy alone (Table 2).

Each run, a classifier with a held-out class and a trial, is written to ``results.csv`` when it is finished; the same
command goes on from there.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from reject_classes import images
from runs import Command, Runs, checkpoint, noted, trained_in, training_seconds
from sklearn.mixture import GaussianMixture

from skood import RotationAuxClassifier, compare_scores
from skood.augment import mask_center
from skood.datasets import load
from skood.metrics import aupr_out
from skood.networks import WideResNet

# Files of training images, and of test images.
FILES = {
    "fashion-mnist": (["fashion_mnist_train"], ["fashion_mnist_test"]),
    "cifar10": (["cifar10_train_1000perclass"], ["cifar10_test_500perclass"]),
    "stl10": (["stl10_train_500a_96", "stl10_train_500b_96"], ["stl10_test_200_96"]),
    "stl10-32": (["stl10_train_1000_32"], ["stl10_test_200_32"]),
    # It comes with scikit-learn; half of it is tested on.
    "digits": ([], []),
    # One file has both.
    "dogs": (["tinyimagenet_6dogs_900_64"], []),
}
STL10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
CLASSES = {
    "fashion-mnist": ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"],
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "digits": [str(digit) for digit in range(10)],
    "stl10": STL10,
    "stl10-32": STL10,
    "dogs": ["Chihuahua", "Yorkshire terrier", "golden retriever", "Labrador", "German shepherd", "standard poodle"],
}
# In percent, without and with rotations: MSP, ODIN, accuracy.
PAPER = {
    "airplane": ((43.30, 48.23, 96.00), (46.87, 49.75, 96.91)),
    "automobile": ((14.13, 13.47, 95.78), (17.39, 17.35, 96.66)),
    "bird": ((46.55, 50.59, 95.90), (51.49, 54.62, 96.79)),
    "cat": ((38.06, 38.97, 97.05), (53.12, 55.80, 97.46)),
    "deer": ((49.11, 53.03, 95.87), (50.35, 52.82, 96.76)),
    "dog": ((25.39, 24.41, 96.64), (32.11, 32.46, 97.36)),
    "frog": ((40.91, 42.21, 95.65), (52.39, 54.44, 96.51)),
    "horse": ((36.18, 36.78, 95.64), (39.93, 39.65, 96.27)),
    "ship": ((28.35, 30.61, 95.70), (29.36, 28.82, 96.66)),
    "truck": ((27.17, 28.01, 96.04), (29.22, 29.93, 96.91)),
    "mean": ((34.92, 36.63, 96.03), (40.22, 41.56, 96.83)),
}
# Trained only if they are asked for.
EXTRA = ("classes and CPC", "classes, masked")
SHOWN = ["msp", "odin", "energy", "knn", "rotation"]
# It has 78 thousand weights on grey images.
SMALL_NETWORK = partial(WideResNet, depth=10, stem_stride=2)
SMALL = {"batch_size": 64, "max_epochs": 8, "score_type": "energy", "max_grad_norm": 5.0}
# A thousand images or less.
FEW = SMALL | {"batch_size": 32, "max_epochs": 30}
GPU = {"network": "wrn-16-4", "dropout": 0.0, "max_epochs": 60, "score_type": "energy"}
SETTINGS = {
    ("fashion-mnist", "small"): SMALL | {"network": partial(SMALL_NETWORK, widen=1), "augmentation": None},
    ("cifar10", "small"): SMALL | {"network": partial(SMALL_NETWORK, widen=2)},
    ("digits", "small"): FEW | {"network": partial(WideResNet, depth=10, widen=2), "augmentation": None},
    ("stl10", "small"): FEW | {"network": partial(SMALL_NETWORK, widen=2, early_pool=True)},
    ("stl10-32", "small"): FEW | {"network": partial(SMALL_NETWORK, widen=2)},
    ("dogs", "small"): FEW | {"network": partial(SMALL_NETWORK, widen=2)},
    **{(dataset, "gpu"): GPU for dataset in FILES},
    # The paper has no settings for images as small as those of digits, nor for 64 pixels.
    **{(dataset, "paper"): {} for dataset in FILES if dataset not in ("digits", "dogs")},
}
N_TRAIN = {("fashion-mnist", "small"): 12_000}

# Instead of a held-out class.
NONE = "none"
KEYS = ["dataset", "size", "class", "trial", "classifier", "max_epochs", "precision"]
FIGURES = ["seconds", "accuracy", "score", "ap", "trained_in"]
# Columns that earlier files lack.
LATER = {"max_epochs": "default", "precision": "auto", "trained_in": ""}


def classifiers(options):
    """Return detectors by name: the paper's settings, except those of the size."""
    settings = SETTINGS[options.dataset, options.size] | {"precision": options.precision, "device": options.device}
    if options.max_epochs:
        settings["max_epochs"] = options.max_epochs
    masked = "crop-flip-mask" if settings.get("augmentation", "crop-flip") else mask_center
    from_paper = partial(RotationAuxClassifier.from_paper, "stl10" if options.dataset == "stl10" else "cifar10")
    rotations = from_paper(**settings)
    # The paper has it for ImageNet alone, whose images are larger.
    cpc = {"auxiliary": "cpc", "auxiliary_weight": 10.0, "auxiliary_batch_size": 32, "max_grad_norm": 1.0}
    return {
        "classes": from_paper(auxiliary=None, **settings),
        "classes, twice the epochs": from_paper(auxiliary=None, **settings | {"max_epochs": 2 * rotations.max_epochs}),
        "classes and rotations": rotations,
        "classes and CPC": from_paper(**settings).set_params(**cpc),
        # The control experiment of section 5.2.
        "classes, masked": from_paper(auxiliary=None, **settings | {"augmentation": masked}),
    }


def pixel_mixture(X_train, X):
    """Return log-likelihoods of images' pixels under three Gaussians for each channel, as in appendix D."""
    scores = 0.0
    for channel in range(X.shape[1]):
        pixels = np.random.RandomState(0).choice(X_train[:, channel].ravel(), 100_000)
        mixture = GaussianMixture(3, random_state=0, reg_covar=1e-2).fit(pixels[:, None].astype(float))
        levels, place = np.unique(X[:, channel], return_inverse=True)
        scores = scores + mixture.score_samples(levels[:, None].astype(float))[place].reshape(len(X), -1).sum(1)
    return scores


def read(options):
    """Return images and classes, to train and to test on."""
    if options.dataset == "digits":
        X, y = load("digits", classes=True)
        half = len(X) // 2
        return (X[:half], y[:half]), (X[half:], y[half:])
    train, test = ([images(options.data_home, file) for file in files] for files in FILES[options.dataset])
    if not test:
        with np.load(options.data_home / "images" / f"{FILES[options.dataset][0][0]}.npz") as file:
            split = file["split"]
        ((X, y),) = train
        return (X[split == 0], y[split == 0]), (X[split == 1], y[split == 1])
    return tuple(tuple(map(np.concatenate, zip(*parts, strict=True))) for parts in (train, test))


def run(detector, key, options):
    trial = key["trial"]
    # No image has the label -1.
    label = -1 if key["class"] == NONE else CLASSES[options.dataset].index(key["class"])
    (X, y), (X_test, y_test) = read(options)
    # All classifiers of a trial have the same rows.
    train = np.random.RandomState(trial).permutation(np.flatnonzero(y != label))
    train = train[: N_TRAIN.get((options.dataset, options.size))]
    truth = np.where(y_test == label, -1, 1)
    start = time.perf_counter()
    if detector is None:
        scores = {"pixel mixture": aupr_out(truth, pixel_mixture(X[train], X_test))}
        about = {"seconds": time.perf_counter() - start}
    else:
        # Only scores matter, which are the same without the fits that set a threshold.
        detector.set_params(random_state=trial, contamination=0, checkpoint=checkpoint(options.out, key, LATER))
        detector.fit(X[train], y[train])
        about = {"seconds": training_seconds(detector, start), "trained_in": trained_in(options)}
        about["accuracy"] = 100 * (detector.predict_class(X_test) == y_test)[truth == 1].mean()
        if key["class"] == NONE:
            return about
        known, held_out = X_test[truth == 1], X_test[truth == -1]
        scores = compare_scores(detector, known, held_out, X_train=X[train], y_train=y[train])["aupr"]
    return [{**about, "score": kind, "ap": 100 * ap} for kind, ap in scores.items()]


def print_tables(results, options):
    nothing_held_out = results["class"] == NONE
    if nothing_held_out.any():
        print(f"\n{options.dataset}, {options.size}: accuracy with all classes in %, mean and deviation over trials\n")
        found = results[nothing_held_out].groupby("classifier", sort=False)["accuracy"].agg(["mean", "std"])
        print(found.round(1).to_string())
        results = results[~nothing_held_out]
        if len(results) == 0:
            return
    classes = [name for name in CLASSES[options.dataset] if name in set(results["class"])]
    print(f"\n{options.dataset}, {options.size}: average precision in %, means and deviations over trials\n")
    for name, own in results.groupby("classifier", sort=False):
        table = own.pivot_table("ap", "class", "score", sort=False).reindex(classes)
        spread = own.pivot_table("ap", "class", "score", aggfunc="std", sort=False, dropna=False).reindex(classes)
        by_trial = own.pivot_table("ap", "trial", "score", sort=False)
        table.loc["mean"], spread.loc["mean"] = by_trial.mean(), by_trial.std()
        accuracy = own.groupby("class")["accuracy"].mean() if name != "pixels" else None
        print(name)
        for row in table.index:
            cells = []
            for kind in [kind for kind in SHOWN if kind in table]:
                deviation = f" ± {spread.loc[row, kind]:4.1f}" if len(by_trial) > 1 else ""
                cells.append(f"{kind} {table.loc[row, kind]:5.1f}{deviation}")
            if accuracy is None:
                cells = [f"{table.loc[row].iloc[0]:5.1f}"]
            else:
                cells.append(f"accuracy {accuracy.mean() if row == 'mean' else accuracy[row]:5.1f}")
            paper = PAPER.get(row) if options.dataset == "cifar10" else None
            if paper and name in ("classes", "classes and rotations"):
                cells.append("paper {:.1f} / {:.1f} / {:.1f}".format(*paper[name != "classes"]))
            print(f"  {row:12}" + "  ".join(cells))
        print()
    print("All scores, means over classes and trials\n")
    print(results.pivot_table("ap", "score", "classifier", sort=False).round(1).to_string())


def main():
    parser = Command(__doc__, "holdout_class")
    parser.add_argument("--dataset", choices=tuple(FILES), required=True)
    parser.add_argument("--size", choices=("small", "gpu", "paper"), default="small")
    parser.add_argument("--classes", help="classes to hold out, separated by commas; all by default. none: see above")
    parser.add_argument("--classifiers", help="separated by semicolons; all but masked and CPC by default")
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--max-epochs", type=int, help="instead of the number of the size")
    parser.add_argument("--precision", default="auto", help="bfloat16 is faster on some CPUs")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if (options.dataset, options.size) not in SETTINGS:
        parser.error(f"--dataset {options.dataset} has no --size {options.size}")

    chosen = classifiers(options) | {"pixels": None}
    usual = ";".join(name for name in chosen if name not in EXTRA)
    names = parser.names("--classifiers", options.classifiers or usual, chosen)
    held_out = options.classes.split(",") if options.classes else CLASSES[options.dataset]
    unknown = set(held_out) - {NONE, *CLASSES[options.dataset]}
    if unknown:
        parser.error(f"--classes: {options.dataset} has no {min(unknown)!r}, but {', '.join(CLASSES[options.dataset])}")
    keys = [
        dict(zip(KEYS[:5], (options.dataset, options.size, label, trial, name), strict=True)) | noted(options, LATER)
        for trial in range(options.trials)
        for label in held_out
        for name in names
        # A mixture of pixels has no accuracy.
        if (label, name) != (NONE, "pixels")
    ]
    jobs = [(key, partial(run, chosen[key["classifier"]], key, options)) for key in keys]
    print_tables(Runs(options.out / "results.csv", KEYS, FIGURES, LATER).complete(jobs, options.jobs), options)


if __name__ == "__main__":
    main()
