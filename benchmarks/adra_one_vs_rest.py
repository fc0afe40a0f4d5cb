"""Compare ResidualAdapterDetector with other uses of a pretrained network on images: Tables 1 and 2 of the paper.

    python benchmarks/adra_one_vs_rest.py --data-home DIR [--backbone given,shipped] [--size paper] [--jobs 2]
    python benchmarks/adra_one_vs_rest.py --data-home DIR --protocol hold-one-out [--dataset stl10-32]
    python benchmarks/adra_one_vs_rest.py --data-home DIR --protocol small-modes [--pairs airplane-ship,cat-dog]
    python benchmarks/adra_one_vs_rest.py --data-home DIR --held-out [--classes bird] [--max-epochs 92]
    python benchmarks/adra_one_vs_rest.py --data-home DIR --check-backbone

DIR (or the variable SKOOD_DATA) holds ``images/*.npz`` and ``weights/*.npz``. CIFAR-10 has 1000 training images per
class (5000 in the paper), and the corpus, CIFAR-100, has 10 000 images (50 000 in the paper). STL-10, of 96 pixels, and
``stl10-32``, the same images of 32, have 100 training and 20 test images per class (500 and 800 in the paper, whose
corpus are STL-10's unlabelled images); the corpus is the same, for 96 pixels enlarged. An epoch is a pass over the
nominal images.

one-vs-rest
    One class is nominal, and all test images are scored. Table 1.
hold-one-out
    Nine classes are nominal, without labels; the tenth is the anomaly. Table 2.
small-modes
    One class and a share r of a second one are nominal. Test images of each of them are compared with the eight other
    classes. This is figure 2, for which the paper gives no numbers.

The backbone "given" is the file ``weights/cifar100_resnet26.npz``, "shipped" the one that comes with skood. Both were
trained on the labels of CIFAR-100, "shipped" on a part of the images, at 32 x 32 pixels; the paper's was trained on
ImageNet at 72 x 72. "small" is the detector's default, 500 steps: 32 epochs of 1000 images. "paper" is the paper's
training, for 120 epochs. With ``--held-out`` no test image is used: detectors are trained on the first 700 images of a
class, and score the last 200. Settings are chosen in this way.

Each run is written to ``results.csv`` when it is finished; the same command goes on from there, and several commands
may write to the file at a time. The key of a run contains its backbone's weights and all settings of its detector, so
that runs with other settings do not replace it. The tables hold only what the command asks for.
"""

from __future__ import annotations

import json
import time
from functools import partial
from hashlib import sha256

import numpy as np
import pandas as pd
import torch
from holdout_class import CLASSES, read
from reject_classes import images
from runs import Command, Runs, checkpoint, training_seconds
from torch import nn
from torch.nn import functional

from skood import ResidualAdapterDetector
from skood.backbones import Preprocessed, load_shipped
from skood.encoders.trained import fingerprint
from skood.metrics import aupr_out, auroc
from skood.training.device import resolve_device

DATASETS = ("cifar10", "stl10", "stl10-32")
CORPUS = "cifar100_train_100perclass"
# Table 2 on STL-10, average precision.
_PAPER_STL10 = {
    "TF": [23.1, 13.8, 39.9, 18.9, 25.3, 17.3, 30.1, 18.4, 49.2, 40.7],
    "L2-SP": [44.5, 14.8, 82.2, 27.4, 17.0, 12.3, 22.1, 14.9, 70.3, 44.4],
    "ADRA K=2": [43.1, 23.7, 56.0, 37.5, 28.8, 18.5, 33.5, 44.2, 59.4, 55.7],
}
# In percent; the classes have this order.
PAPER = {
    # Table 1, AUROC.
    ("cifar10", "one-vs-rest", "auroc"): {
        "kNN-AD": [93.9, 97.7, 85.5, 85.5, 93.6, 91.3, 94.3, 93.6, 95.1, 95.3],
        "SAD": [96.4, 98.8, 93.0, 90.0, 97.1, 94.2, 98.0, 97.6, 98.1, 97.7],
        "ADRA K=1": [98.8, 99.7, 96.3, 95.7, 98.2, 97.4, 99.4, 99.1, 99.4, 99.1],
        "ADRA K=2": [99.0, 99.8, 98.1, 96.3, 99.1, 98.1, 99.6, 99.5, 99.4, 99.4],
        "ADRA K=4": [99.1, 99.8, 98.6, 97.3, 99.1, 98.2, 99.6, 99.5, 99.5, 99.3],
    },
    # Table 2, average precision.
    ("cifar10", "hold-one-out", "ap"): {
        "TF": [43.0, 76.7, 61.1, 65.8, 60.6, 64.2, 84.0, 52.9, 70.8, 87.7],
        "L2-SP": [50.8, 77.4, 68.0, 72.7, 65.3, 65.1, 89.9, 46.8, 64.2, 84.5],
        "ADRA K=2": [42.9, 88.4, 74.4, 72.5, 73.3, 63.3, 90.7, 53.2, 74.4, 94.1],
    },
    ("stl10", "hold-one-out", "ap"): _PAPER_STL10,
    ("stl10-32", "hold-one-out", "ap"): _PAPER_STL10,
}
METHODS = {
    "frozen kNN": {"adaptation": "frozen", "score_type": "knn"},
    "frozen centre": {"adaptation": "frozen", "score_type": "center"},
    "adapters K=1": {"n_adapters": 1},
    "adapters K=2": {"n_adapters": 2},
    "adapters K=4": {"n_adapters": 4},
    "finetune": {"adaptation": "finetune"},
    "L2-SP": {"adaptation": "l2sp"},
    "scratch": {"adaptation": "scratch"},
}
MORE_METHODS = {
    # The paper's initial adapters, and as printed: no gain.
    "adapters K=2, gain 1": {"n_adapters": 2, "adapter_gain": 1.0, "adapter_init": "he"},
    "adapters K=2, frozen BN": {"n_adapters": 2, "batch_norm": "frozen"},
    "adapters K=2, affine BN": {"n_adapters": 2, "batch_norm": "affine"},
    "UADRA": {"n_adapters": 2, "outliers": None},
    "Deep SVDD": {"adaptation": "scratch", "outliers": None},
}
PROTOCOLS = ("one-vs-rest", "hold-one-out", "small-modes")
SHARES = [0.05, 0.1, 0.25, 0.5, 1.0]

# Columns of the key of a run, as text, and of its results.
KEYS = ["protocol", "dataset", "backbone", "weights", "size", "method", "target", "share", "seed"]
KEYS += ["max_epochs", "lr", "precision", "test_images", "settings"]
FIGURES = ["auroc", "ap", "auroc_a", "auroc_b", "loss", "fit_seconds", "epoch_seconds", "score_seconds"]
FIGURES += ["n_adapter_parameters", "n_backbone_parameters"]
FIGURES += ["device"]

# --------------------------------------------------------------------------------------------------------------------
# The given backbone


class _Block(nn.Module):
    """A residual block without ReLU after the sum."""

    def __init__(self, width, out_width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width, out_width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_width)
        self.shortcut = nn.Identity()
        if width != out_width:
            conv = nn.Conv2d(width, out_width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_width))

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(y)) + self.shortcut(x)


class GivenNetwork(nn.Module):
    """The network of the weights; its parts have the names of the file."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3 = _stage(64, 16, 1), _stage(16, 32, 2), _stage(32, 64, 2)
        self.linear = nn.Linear(256, 100)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            y = functional.relu(stage(y))
        # Maps of any size become 2 x 2, as the 8 x 8 of an image of 32 pixels.
        return self.linear(functional.adaptive_avg_pool2d(y, 2).flatten(1))


def _stage(width, out_width, stride):
    return nn.Sequential(_Block(width, out_width, stride), *(_Block(out_width, out_width, 1) for _ in range(3)))


def given_backbone(home):
    network = GivenNetwork()
    with np.load(home / "weights" / "cifar100_resnet26.npz") as file:
        state = {name: torch.from_numpy(file[name]) for name in file.files}
    # The file does not hold the counts of batches.
    counts = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(counts | state)
    return Preprocessed(network, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)).eval()


def check_backbone(home):
    X, y = images(home, "cifar100_test_20perclass")
    backbone = given_backbone(home)
    with torch.inference_mode():
        logits = torch.cat([backbone(rows / 255) for rows in torch.from_numpy(X).float().split(500)])
    top_1 = 100 * (logits.argmax(1).numpy() == y).mean()
    print(f"Top-1 of the given backbone on {len(X)} test images of CIFAR-100: {top_1:.2f} % (said to be 71.6 %)")


# --------------------------------------------------------------------------------------------------------------------
# Runs


def make_detector(method, seed, options, backbone="auto"):
    settings = {"precision": options.precision, "device": options.device, "random_state": seed}
    if options.lr is not None:
        settings["lr"] = options.lr
    if options.max_epochs is not None:
        settings["max_epochs"] = options.max_epochs
    settings |= (METHODS | MORE_METHODS)[method]
    if options.size == "paper":
        return ResidualAdapterDetector.from_paper(backbone, **settings)
    return ResidualAdapterDetector(backbone, augmentation="crop-flip", **settings)


def key_of(backbone, weights, method, target, share, seed, options):
    """Return the key of a run, whose last entry holds the settings of its detector that differ from the defaults."""
    params, defaults = (
        detector.get_params(deep=False)
        for detector in (make_detector(method, seed, options), ResidualAdapterDetector())
    )
    changed = {name: value for name, value in params.items() if value != defaults[name]}
    for name in ("backbone", "device", "random_state"):
        changed.pop(name, None)
    text = json.dumps(changed, sort_keys=True, default=lambda value: value.__name__)
    share = "" if share is None else f"{share:g}"
    key = [options.protocol, options.dataset, backbone, weights, options.size, method, target, share, seed]
    key += [params[name] for name in ("max_epochs", "lr", "precision")]
    key += ["held out" if options.held_out else options.test_images or "all"]
    return dict(zip(KEYS, map(str, [*key, sha256(text.encode()).hexdigest()[:8]]), strict=True))


def load(options):
    """Return training and test images with their classes, and the corpus, of the same size."""
    train, test = read(options)
    corpus, _ = images(options.data_home, CORPUS)
    return train, test, enlarged(corpus, train[0].shape[2:])


def enlarged(X, size):
    """Return images of this height and width, by bicubic interpolation; the same if they have it."""
    if X.shape[2:] == size:
        return X
    parts = [
        functional.interpolate(torch.from_numpy(part).float(), size, mode="bicubic", align_corners=False)
        for part in np.array_split(X, 10)
    ]
    return torch.cat(parts).round().clamp(0, 255).byte().numpy()


def nominal_rows(y, target, share, seed, protocol, classes):
    """Return the nominal training rows."""
    if protocol == "one-vs-rest":
        return np.flatnonzero(y == classes.index(target))
    if protocol == "hold-one-out":
        return np.flatnonzero(y != classes.index(target))
    first, second = (np.flatnonzero(y == classes.index(name)) for name in target.split("-"))
    # With the same seed, smaller shares are subsets of larger ones.
    some = np.random.RandomState(seed).permutation(second)[: round(share * len(second))]
    return np.concatenate([first, some])


def metrics(y, scores, target, protocol, classes):
    if protocol == "small-modes":
        a, b = (classes.index(name) for name in target.split("-"))
        figures = {}
        for name, own, other in (("auroc_a", a, b), ("auroc_b", b, a)):
            kept = y != other
            figures[name] = 100 * auroc(np.where(y == own, 1, -1)[kept], scores[kept])
        return figures
    label = classes.index(target)
    nominal = y == label if protocol == "one-vs-rest" else y != label
    truth = np.where(nominal, 1, -1)
    return {"auroc": 100 * auroc(truth, scores), "ap": 100 * aupr_out(truth, scores)}


def run(key, share, seed, options):
    (X, y), (X_test, y_test), corpus = load(options)
    classes = CLASSES[options.dataset]
    if options.held_out:
        place = np.empty(len(y), dtype=int)
        for label in range(len(classes)):
            place[y == label] = np.arange((y == label).sum())
        X_test, y_test = X[place >= 800], y[place >= 800]
        X, y = X[place < 700], y[place < 700]
    rows = nominal_rows(y, key["target"], share, seed, options.protocol, classes)
    X_train = np.concatenate([X[rows], corpus])
    y_train = np.repeat([0, -1], [len(rows), len(corpus)])
    backbone = given_backbone(options.data_home) if key["backbone"] == "given" else "auto"
    detector = make_detector(key["method"], seed, options, backbone)
    # Not among the settings of the key: only scores matter, which are the same without the fits that set a threshold.
    detector.set_params(contamination=0, checkpoint=checkpoint(options.out, key))
    if options.test_images is not None:
        first = np.concatenate([np.flatnonzero(y_test == k)[: options.test_images] for k in range(len(classes))])
        X_test, y_test = X_test[first], y_test[first]
    result = {"device": resolve_device(options.device).type}
    start = time.perf_counter()
    try:
        detector.fit(X_train, y_train)
    except ValueError as error:
        # A learning rate may be too high, which must not stop the other runs.
        if "diverged" not in str(error) and "no finite score" not in str(error):
            raise
        print(error)
        return result | {"fit_seconds": time.perf_counter() - start}
    result["fit_seconds"] = training_seconds(detector, start)
    start = time.perf_counter()
    scores = detector.score_samples(X_test)
    result["score_seconds"] = time.perf_counter() - start
    result |= metrics(y_test, scores, key["target"], options.protocol, classes)
    if len(detector.history_):
        result["loss"] = detector.history_[-1]["train_loss"]
        result["epoch_seconds"] = float(np.median([epoch["dur"] for epoch in detector.history_]))
    result["n_adapter_parameters"] = detector.n_adapter_parameters_
    result["n_backbone_parameters"] = detector.n_backbone_parameters_
    return result


# --------------------------------------------------------------------------------------------------------------------
# Tables


def print_classes(own, metric, options):
    title = {"auroc": "AUROC", "ap": "Average precision"}[metric]
    # The mean over runs is NaN if one of them diverged.
    table = own.pivot_table(metric, "target", "method", aggfunc=lambda values: values.mean(skipna=False), dropna=False)
    table = table.reindex(index=options.targets, columns=options.methods)
    known = PAPER.get((options.dataset, options.protocol, metric), {})
    numbers = [CLASSES[options.dataset].index(name) for name in options.targets]
    paper = pd.DataFrame({f"paper {name}": np.array(values)[numbers] for name, values in known.items()}, table.index)
    both = pd.concat([table, paper], axis=1)
    both.loc[f"mean of {len(table)}"] = both.mean(skipna=False)
    if own["seed"].nunique() > 1:
        by_seed = own.groupby(["method", "seed"])[metric].mean().unstack()
        both.loc["its deviation"] = by_seed.std(axis=1)
    print(f"\n{title} in %; seeds: {own['seed'].nunique()}\n")
    print(both.round(1).to_string(na_rep="-"))
    if "frozen kNN" in table and len(options.methods) > 1:
        gain = table.drop(columns="frozen kNN").sub(table["frozen kNN"], axis=0)
        frozen = table["frozen kNN"].mean()
        print(f"\nPoints above frozen kNN, which has {frozen:.1f}, and classes where it is surpassed\n")
        order = gain.mean(skipna=False).sort_values(ascending=False)
        for method, mean in order.items():
            print(f"  {method:24} {mean:+6.1f}   {(gain[method] > 0).sum()} of {len(gain)}")


def print_shares(own, options):
    for name, metric in (("second", "auroc_b"), ("first", "auroc_a")):
        print(f"\nAUROC of the {name} class in %, and relative to r = 1, by r\n")
        table = own.groupby(["target", "method", "r"])[metric].mean().unstack()
        parts = {target: table.loc[target].reindex(options.methods) for target in options.targets}
        parts[f"mean of {len(parts)}"] = sum(parts.values()) / len(parts)
        for target, part in parts.items():
            whole = part.get(1.0, pd.Series(np.nan, part.index))
            # The mean of ratios, not the ratio of means.
            relative = part.div(whole, axis=0)
            if target not in options.targets:
                relative = sum(parts[one].div(parts[one].get(1.0, np.nan), axis=0) for one in options.targets)
                relative = relative / len(options.targets)
            cells = part.map("{:.1f}".format) + " (" + relative.map("{:.3f}".format) + ")"
            print(target)
            print(cells.to_string(header=[f"{share:g}" for share in cells]), end="\n\n")


def print_tables(results, options):
    for (backbone, weights), own in results.groupby(["backbone", "weights"], sort=False):
        names = ("max_epochs", "lr", "precision", "test_images", "device")
        settings = {name: " / ".join(dict.fromkeys(own[name])) for name in names}
        print(f"\n{options.dataset}, {options.protocol}, {options.size}, backbone {backbone} ({weights}); ", end="")
        print(", ".join(f"{name} {value}" for name, value in settings.items()))
        if options.protocol == "small-modes":
            print_shares(own, options)
        else:
            for metric in ("ap", "auroc") if options.protocol == "hold-one-out" else ("auroc",):
                print_classes(own, metric, options)
            if options.protocol == "hold-one-out" and options.dataset == "cifar10":
                print("\nThe paper has a mean AUROC of 94.7 for ADRA.")
        columns = {"n_adapter_parameters": "trained", "n_backbone_parameters": "backbone"}
        columns |= {"fit_seconds": "fit, s", "epoch_seconds": "an epoch, s", "score_seconds": "scoring, s"}
        costs = own.groupby("method")[list(columns)].mean().reindex(options.methods).rename(columns=columns)
        print("\nParameters that are trained, those of the backbone, and seconds, means of all runs\n")
        whole = dict.fromkeys(("trained", "backbone"), "{:,.0f}".format)
        seconds = dict.fromkeys(list(columns.values())[2:], "{:.2f}".format)
        print(costs.to_string(formatters=whole | seconds, na_rep="-"))


# --------------------------------------------------------------------------------------------------------------------


def main():
    parser = Command(__doc__, "adra", seeds=1)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="one-vs-rest")
    parser.add_argument("--dataset", choices=DATASETS, default="cifar10")
    parser.add_argument("--backbone", default="given", help="given, shipped or both, separated by a comma")
    parser.add_argument("--size", choices=("small", "paper"), default="small")
    parser.add_argument(
        "--methods",
        help=f"separated by semicolons; by default {'; '.join(METHODS)}. Others are {'; '.join(MORE_METHODS)}",
    )
    parser.add_argument("--classes", help="separated by commas; all by default, not used by small-modes")
    parser.add_argument("--pairs", default="airplane-ship,cat-dog,frog-truck", help="for small-modes: first-second")
    parser.add_argument("--shares", help="for small-modes: shares r, separated by commas")
    parser.add_argument("--max-epochs", type=int, help="instead of the number of the size")
    parser.add_argument("--lr", type=float, help="instead of that of the size")
    parser.add_argument("--precision", default="auto", help="bfloat16 is faster on some CPUs")
    parser.add_argument("--test-images", type=int, help="use the first of each class; all 500 by default")
    parser.add_argument("--held-out", action="store_true", help="score held-out training images instead of test images")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--check-backbone", action="store_true", help="only print the accuracy of the given backbone")
    options = parser.parse_args()
    if options.held_out and options.test_images is not None:
        parser.error("--test-images has no effect with --held-out, which scores no test images: leave one of them out")
    if options.held_out and options.dataset != "cifar10":
        parser.error("--held-out needs the 1000 training images per class of --dataset cifar10")
    if options.check_backbone:
        check_backbone(options.data_home)
        return

    def chosen(text, known, separator=","):
        names = text.split(separator)
        unknown = set(names) - set(known)
        if unknown:
            parser.error(f"{sorted(unknown)} are none of {list(known)}")
        return names

    options.methods = chosen(options.methods or ";".join(METHODS), METHODS | MORE_METHODS, ";")
    shares = [None]
    if options.protocol == "small-modes":
        classes = CLASSES[options.dataset]
        known = [f"{a}-{b}" for a in classes for b in classes if a != b]
        options.targets = chosen(options.pairs, known)
        shares = [float(share) for share in options.shares.split(",")] if options.shares else SHARES
    else:
        classes = CLASSES[options.dataset]
        options.targets = chosen(options.classes or ",".join(classes), classes)
    weights = {}
    for name in chosen(options.backbone, ("given", "shipped")):
        weights[name] = fingerprint(given_backbone(options.data_home) if name == "given" else load_shipped())
    jobs = [
        (key, partial(run, key, share, seed, options))
        for seed in range(options.seeds)
        for backbone in weights
        for target in options.targets
        for share in shares
        for method in options.methods
        for key in [key_of(backbone, weights[backbone], method, target, share, seed, options)]
    ]
    results = Runs(options.out / "results.csv", KEYS, FIGURES).complete(jobs, options.jobs)
    results["r"] = pd.to_numeric(results["share"])
    print_tables(results, options)


if __name__ == "__main__":
    main()
