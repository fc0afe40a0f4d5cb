"""Compare DUM with kNN and Mahalanobis on embeddings of images: Tables 1 and 3 of the paper, on available data.

    python benchmarks/dum_images.py --data-home DIR --dataset fashion-mnist [--protocol ood]
    python benchmarks/dum_images.py --data-home DIR --dataset fashion-mnist --protocol corruptions
    python benchmarks/dum_images.py --data-home DIR --protocol features
    python benchmarks/dum_images.py --data-home DIR --dataset cifar10 --against svhn=test_32x32.mat --against lsun=LSUN
    python benchmarks/dum_images.py --data-home DIR --dataset cifar10 --protocol corruptions --corrupted CIFAR-10-C
    python benchmarks/dum_images.py --data-home DIR --dataset svhn --train train_32x32.mat --test test_32x32.mat \
        --against cifar10=FILE.npz

DIR (or the variable SKOOD_DATA) holds ``images/*.npz`` and ``adbench_embeddings/*.npz``. A contrastive encoder is
trained on the training images, without labels, for each seed, and saved in the folder ``--out``; detectors are fitted
on its embeddings of the same images. ``--encoder shipped`` uses the network that comes with skood instead.

ood
    Held-out images against those of sets never seen: MNIST, KMNIST and notMNIST for Fashion-MNIST, CIFAR-100 for
    CIFAR-10; and those that ``--against`` names, such as SVHN, or LSUN in crops of 32 pixels. Table 3.
corruptions
    One half of the held-out images, clean, against the other half, corrupted in fifteen ways at five severities. Table
    1, whose p-values come from two-sample t-tests; frost is drawn, not photographed. For "none" the other half is
    clean, too, in ten random divisions. ``--corrupted`` takes the published images instead.
features
    The frozen features of ADBench, trained on half of the inliers.

Beside the figures of an output stands what it tells of the classes, where the images have labels: the share of held-out
images whose class a logistic regression on it gets right, which was fitted to the training images ("linear probe").
Detectors see no label.

"small" is for two cores: 5000 training images and the encoder's default settings. "paper" has all images, the encoder
of `SimCLREncoder.from_paper` (ResNet-18 for corruptions, else ResNet-34) trained for 200 epochs, and the printed
objective with three layers of 4096 units; for corruptions with the settings of that experiment, also on "maps", the
last convolution's output before pooling. The same command goes on from the last epoch of an encoder that was in
training.

Each run is written to ``results.csv`` when it is finished; the same command goes on from there.
"""

from __future__ import annotations

import time
import traceback
from functools import cache, partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from image_files import HELP, named, read, read_labels
from reject_classes import images
from runs import Command, Runs, checkpoint, noted
from scipy.stats import ttest_ind
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import DUMDetector, FrozenEncoder, SimCLREncoder, compare_detectors
from skood.compare import DETECTORS, format_table, summarize
from skood.corruptions import CORRUPTIONS, corrupt
from skood.datasets import find_suite, load_cifar10_c, load_imagenet_c, read_file
from skood.drift import drift_test
from skood.metrics import auroc

# Training images, held-out images, and sets that are out of distribution.
DATASETS = {
    "fashion-mnist": ("fashion_mnist_train", "fashion_mnist_test", "mnist_test", "kmnist_t10k", "notmnist_10k"),
    "cifar10": ("cifar10_train_1000perclass", "cifar10_test_500perclass", "cifar100_test_20perclass"),
}
# Largest numbers of training images and of images of each other set.
N_IMAGES = {"small": (5000, 2000), "paper": (None, None)}
PAPER_EPOCHS = 200
N_HALVINGS = 10
# AUROC in percent on CIFAR-10-C over all severities, in the order of CORRUPTIONS.
PAPER_TABLE_1 = [71.0, 67.2, 57.3, 70.3, 70.2, 59.8, 66.8, 64.2, 52.4, 64.2, 63.6, 63.6, 66.4, 63.7, 67.2]
# Its p-values, as printed.
PAPER_PVALUES = [0, 0, 0.01, 6e-267, 0, 1e-6, 0, 0, 0.44, 0, 5e-15, 6e-24, 2e-125, 6e-34, 0]

KEYS = ["protocol", "dataset", "n_train", "n_test", "encoder", "output", "detector", "against", "severity", "seed"]
KEYS += ["max_epochs", "precision"]
FIGURES = ["auroc", "pvalue", "probe_accuracy", "fit_seconds"]
# Columns that earlier files lack.
LATER = {"max_epochs": "default", "precision": "auto"}

# --------------------------------------------------------------------------------------------------------------------
# Detectors and encoders


class Mahalanobis:
    """Score rows by minus the squared Mahalanobis distance to the mean of the training rows."""

    def fit(self, X):
        self.covariance = EmpiricalCovariance().fit(X)
        return self

    def score_samples(self, X):
        # One product for all rows; row by row, as scikit-learn does it, takes thirty times as long for rows of 8192.
        X = np.asarray(X, dtype=float) - self.covariance.location_
        return -((X @ self.covariance.precision_) * X).sum(1)


def detectors(output, seed, options):
    """Return the detectors to fit on this output."""
    if output == "pixels":
        return {"IsolationForest": IsolationForest(random_state=seed), "kNN": DETECTORS["kNN"]()}
    # Only scores matter, which are the same without the fits that set a threshold.
    settings = {"random_state": seed, "device": options.device, "contamination": 0}
    if options.max_epochs:
        settings["max_epochs"] = options.max_epochs
    wide = {"hidden_sizes": (4096,) * 3 if options.size == "paper" else (512,) * 3}
    if options.size == "paper" and options.protocol == "corruptions":
        printed = partial(DUMDetector.from_paper, "corruptions", **wide, **settings)
    else:
        printed = partial(DUMDetector.from_paper, scaling=None, normalize="l2", **wide, **settings)
    return {
        "DUM": DUMDetector(**settings),
        "DUM, circular": DUMDetector(covariance="circular", **settings),
        "DUM, unit length": DUMDetector(normalize="l2", **settings),
        "DUM, printed": printed(),
        "DUM, printed, circular": printed(covariance="circular"),
        "kNN": DETECTORS["kNN"](),
        "Mahalanobis": Mahalanobis(),
    }


def trained_encoder(X, seed, options):
    """Return the encoder of this seed, trained to the end if it is not yet."""
    settings = {"device": options.device, "precision": options.precision, "random_state": seed, "verbose": 1}
    if options.size == "paper":
        network = "resnet-18" if options.protocol == "corruptions" else "resnet-34"
        n_epochs = options.max_epochs or PAPER_EPOCHS
        encoder = SimCLREncoder.from_paper(network=network, max_epochs=n_epochs, **settings)
    else:
        network, n_epochs = "auto", options.max_epochs or "auto"
        encoder = SimCLREncoder(max_epochs=n_epochs, **settings)
    other = "" if options.precision == "auto" else f"-{options.precision}"
    path = options.out / f"encoder-{options.dataset}-{len(X)}-{network}-{n_epochs}{other}-{seed}.joblib"
    if path.exists():
        return joblib.load(path)
    encoder.set_params(checkpoint=checkpoint(options.out, {"encoder": path.stem})).fit(X)
    print(f"encoder: {len(encoder.history_)} epochs, loss {encoder.history_[-1]['train_loss']:.3f}", flush=True)
    # In one step: half a file would be read by the next command.
    unfinished = path.with_suffix(".unfinished")
    joblib.dump(encoder, unfinished)
    unfinished.replace(path)
    return encoder


def embeddings(X, seed, options):
    """Return functions that embed images, by the names of the encoder and of its output.

    The encoder is trained, or read, when the first of them is called: only if there is something to run.
    """
    if options.encoder == "shipped":
        found = {("shipped", "features"): FrozenEncoder(device=options.device).fit(X[:2]).transform}
    else:
        layers = {"embedding": {}, "features": {"layer": "trunk"}}
        if options.size == "paper" and options.protocol == "corruptions":
            layers["maps"] = {"layer": "trunk.layer4", "pooling": "flatten"}
        trained = cache(partial(trained_encoder, X, seed, options))

        @cache
        def frozen(output):
            return FrozenEncoder(trained(), device=options.device, **layers[output]).fit(X[:2])

        def embed(images, output):
            return frozen(output).transform(images)

        found = {("simclr", output): partial(embed, output=output) for output in layers}
    return found | {("", "pixels"): lambda X: X.reshape(len(X), -1) / 255}


def probe_accuracy(embed, train, held_out):
    """Return the share of held-out images, in percent, whose class a linear probe of their embedding gets right.

    Parameters
    ----------
    embed : callable
        Returns the embeddings of images.
    train, held_out : tuple of arrays
        Images, and their labels or None.

    Returns
    -------
    accuracy : float or None
        None if there are no labels, or only one class of them.
    """
    (X, y), (X_test, y_test) = train, held_out
    if y is None or y_test is None or len(np.unique(y)) < 2:
        return None
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(embed(X), y)
    return 100 * probe.score(embed(X_test), y_test)


# --------------------------------------------------------------------------------------------------------------------
# Protocols


def load(options):
    """Return training images and held-out images with labels or None, and other sets by name.

    The choice does not depend on a seed.
    """
    n_train, n_test = N_IMAGES[options.size]
    n_train, n_test = options.n_train or n_train, options.n_test or n_test

    def some(X, y, n):
        chosen = np.sort(np.random.RandomState(0).permutation(len(X))[:n])
        return X[chosen], None if y is None else y[chosen]

    if options.train:
        train, test = ((read(path), read_labels(path)) for path in (options.train, options.test))
        others = {}
    else:
        train, test, *others = (images(options.data_home, name) for name in DATASETS[options.dataset])
        others = {name: X for name, (X, _) in zip(DATASETS[options.dataset][2:], others, strict=True)}
    others |= {name: read(path, train[0].shape[2]) for name, path in options.against}
    others = {name: some(X, None, n_test)[0] for name, X in others.items()}
    return some(*train, n_train), some(*test, n_test), others


def ood(options):
    train, held_out, outside = load(options)

    def evaluate(detector, embed, seed):
        known = detector.score_samples(embed(held_out[0]))
        for name, others in outside.items():
            scores = np.concatenate([known, detector.score_samples(embed(others))])
            truth = np.repeat([1, -1], [len(known), len(others)])
            yield name, "", {"auroc": 100 * auroc(truth, scores)}

    return run(train, held_out, [(name, "") for name in outside], evaluate, options)


def corruptions(options):
    train, test, _ = load(options)
    held_out = test[0]
    reference, batch = held_out[::2], held_out[1::2]

    @cache
    def corrupted(name, severity):
        if options.corrupted is None:
            return corrupt(batch, name, severity, random_state=0)
        if (options.corrupted / name).is_dir():
            X = load_imagenet_c(options.corrupted, name, severity, size=held_out.shape[2]).X
        else:
            X = np.asarray(load_cifar10_c(options.corrupted, name, severity)[0])
        return X[np.random.RandomState(0).permutation(len(X))[: len(batch)]]

    def evaluate(detector, embed, seed):
        scores = detector.score_samples(embed(held_out))
        for n in range(N_HALVINGS):
            rows = np.random.RandomState(n).permutation(len(scores))
            first, second = scores[rows[::2]], scores[rows[1::2]]
            truth = np.repeat([1, -1], [len(first), len(second)])
            area = auroc(truth, np.concatenate([first, second]))
            yield "none", n, {"auroc": 100 * area, "pvalue": ttest_ind(first, second).pvalue}
        known = embed(reference)
        for name in CORRUPTIONS:
            for severity in options.severities:
                test = drift_test(detector, embed(corrupted(name, severity)), reference=known)
                yield name, severity, {"auroc": 100 * test.auroc, "pvalue": test.pvalue}

    cells = [("none", n) for n in range(N_HALVINGS)]
    cells += [(name, severity) for name in CORRUPTIONS for severity in options.severities]
    return run(train, test, cells, evaluate, options)


def run(train, held_out, cells, evaluate, options):
    """Fit all detectors on all embeddings of the training images; ``evaluate`` yields the figures of each cell."""
    X, n_test = train[0], len(held_out[0])
    done, keys = options.runs.finished(), []
    for seed in range(options.seeds):
        for (encoder, output), embed in embeddings(X, seed, options).items():
            # Several detectors score the same images, which are embedded once.
            memory, arrays = {}, {}

            def once(images, embed=embed, memory=memory, arrays=arrays):
                if id(images) not in memory:
                    # Keeping the array ensures that no other array gets its id.
                    memory[id(images)], arrays[id(images)] = embed(images), images
                return memory[id(images)]

            # Only when there is something to run.
            probed = cache(partial(probe_accuracy, once, train, held_out))

            for name, detector in detectors(output, seed, options).items():
                if name not in options.detectors:
                    continue
                protocol = "published corruptions" if options.corrupted else options.protocol
                key = dict(zip(KEYS[:5], (protocol, options.dataset, len(X), n_test, encoder), strict=True))
                key |= {"output": output, "detector": name, "seed": seed} | noted(options, LATER)
                if options.size == "paper":
                    key["detector"] = f"{name}, paper"
                own = [options.runs.key(key | {"against": what, "severity": s}) for what, s in cells]
                keys += own
                if all(one in done for one in own):
                    continue
                start = time.perf_counter()
                try:
                    detector.fit(once(X))
                    about = {"fit_seconds": time.perf_counter() - start, "probe_accuracy": probed()}
                    for what, severity, figures in evaluate(detector, once, seed):
                        cell = key | {"against": what, "severity": severity}
                        if options.runs.key(cell) not in done:
                            options.runs.add(cell | figures | about)
                except Exception:  # such as a training that diverges, which must not keep the others from being made
                    print(f"{encoder} {output}, {name}, seed {seed}: failed\n{traceback.format_exc()}", flush=True)
                    continue
                print(f"{encoder} {output}, {name}, seed {seed}: fitted in {about['fit_seconds']:.0f} s", flush=True)
    options.runs.check_made(keys)
    done = options.runs.finished()
    results = pd.DataFrame([done[key] for key in keys])
    results["detector"] = results["detector"].str.removesuffix(", paper")
    results[FIGURES] = results[FIGURES].apply(pd.to_numeric)
    return results


# --------------------------------------------------------------------------------------------------------------------
# Tables


def print_ood(results):
    table = results.pivot_table("auroc", ["output", "detector"], "against", sort=False)
    table["mean"] = table.mean(axis=1)
    probe = results.groupby(["output", "detector"], sort=False)["probe_accuracy"].mean()
    print("\nAUROC in %, and the accuracy of a linear probe of the output in %\n")
    print(table.assign(**{"linear probe": probe}).round(1).to_string(na_rep="-"))
    print("\nWhere DUM loses to kNN on the same embedding, by so many points\n")
    for output, own in table.groupby(level="output", sort=False):
        own = own.droplevel("output")
        if output != "pixels" and "kNN" in own.index:
            behind = (own.loc["kNN"] - own.filter(like="DUM", axis=0)).round(1)
            lost = [f"{name}: {against} {points}" for name, row in behind.iterrows() for against, points in row.items()]
            lost = [line for line in lost if float(line.split()[-1]) > 0]
            print(f"{output}: {'; '.join(lost) or 'nowhere'}")


def paper_by_name(figures, none):
    """Return figures of the paper's Table 1 by the names of corruptions, and that of clean images."""
    return {"none": none} | dict(zip(CORRUPTIONS, figures, strict=True))


def largest_pvalues(results):
    """Return, for each corruption (rows) and detector (columns), the largest p-value over severities and seeds.

    Of clean images ("none") it is the median over halvings, where the largest of ten would say nothing.
    """
    by_name = results.groupby(["against", "detector"], sort=False)["pvalue"]
    largest, median = by_name.max().unstack(sort=False), by_name.median().unstack(sort=False)
    return pd.concat([median[median.index == "none"], largest[largest.index != "none"]])


def print_corruptions(results):
    for output, own in results.groupby("output", sort=False):
        none, own = own[own["against"] == "none"], own[own["against"] != "none"]
        probe = own["probe_accuracy"].mean()
        about = "" if np.isnan(probe) else f" (accuracy of a linear probe: {probe:.1f} %)"
        print(f"\nAUROC in % on {output}{about}, mean over severities\n")
        table = own.pivot_table("auroc", "against", "detector", sort=False)
        table.insert(0, "paper, CIFAR-10-C", PAPER_TABLE_1)
        table.loc["mean"] = table.mean()
        print(table.round(1).to_string())
        print("\nAt the highest severity\n")
        worst = own[own["severity"] == own["severity"].max()]
        print(worst.pivot_table("auroc", "against", "detector", sort=False).round(1).to_string())
        print("\nLargest p-value over severities and seeds; for none, the median over halvings\n")
        pvalues = largest_pvalues(pd.concat([none, own]))
        pvalues.insert(0, "paper, CIFAR-10-C", pd.Series(paper_by_name(PAPER_PVALUES, none=0.53)))
        print(pvalues.map("{:.0e}".format).to_string())
        print(f"\nClean against clean, {N_HALVINGS} halvings: share with p > 0.05, and mean AUROC\n")
        clean = none.assign(quiet=none["pvalue"] > 0.05).groupby("detector", sort=False)[["quiet", "auroc"]].mean()
        print(clean.round(2).to_string())


def features(options):
    suite = {path.stem: partial(read_file, path) for path in find_suite(options.data_home / "adbench_embeddings")}
    chosen = {
        "DUM": DUMDetector(device=options.device),
        "DUM, circular": DUMDetector(covariance="circular", device=options.device),
        "DUM, unit length": DUMDetector(normalize="l2", device=options.device),
        **{name: DETECTORS[name]() for name in ("kNN", "LOF", "IsolationForest")},
    }
    results = compare_detectors(chosen, suite, seeds=options.seeds, out=options.out / "features", progress=True)
    if results.attrs["interrupted"]:
        return
    table = summarize(results)
    print(format_table(table[[column for column in table if column not in suite]]))
    print("\n" + table[list(suite)].T.round(3).to_string())
    behind = (table.loc["kNN", list(suite)] - table.loc["DUM", list(suite)]).round(3)
    print(f"\nDUM loses to kNN by: {behind[behind > 0].to_dict()}")


def main(arguments=None):
    parser = Command(__doc__, "dum_images", seeds=1, jobs=False)
    parser.add_argument("--protocol", choices=("ood", "corruptions", "features"), default="ood")
    parser.add_argument("--dataset", default="fashion-mnist", help=f"{', '.join(DATASETS)}, or a name for --train")
    parser.add_argument("--train", type=Path, help=f"images to train on, {HELP}")
    parser.add_argument("--test", type=Path, help="held-out images of the same set")
    parser.add_argument("--against", action="append", default=[], type=named, metavar="NAME=PATH", help=HELP)
    parser.add_argument("--corrupted", type=Path, help="folder of CIFAR-10-C or ImageNet-C; by default images are made")
    parser.add_argument("--size", choices=tuple(N_IMAGES), default="small")
    parser.add_argument("--encoder", choices=("simclr", "shipped"), default="simclr")
    parser.add_argument("--max-epochs", type=int, help="of the encoder and of DUM, instead of the numbers of the size")
    parser.add_argument("--n-train", type=int, help="training images, instead of the number of the size")
    parser.add_argument("--n-test", type=int, help="held-out images, and images of each other set")
    parser.add_argument("--severities", default="1,2,3,4,5", help="separated by commas")
    parser.add_argument("--detectors", help="separated by semicolons; all by default")
    parser.add_argument("--precision", default="auto", help="of the encoder; bfloat16 is faster on some CPUs")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    if (options.train is None) != (options.test is None) or (options.dataset in DATASETS) == bool(options.train):
        parser.error(f"choose --dataset of {', '.join(DATASETS)}; or give it another name, with --train and --test")
    both = dict.fromkeys([*detectors("features", 0, options), *detectors("pixels", 0, options)])
    options.detectors = parser.names("--detectors", options.detectors, both)
    options.severities = [int(severity) for severity in options.severities.split(",")]
    options.runs = Runs(options.out / "results.csv", KEYS, FIGURES, LATER)
    if options.protocol == "features":
        features(options)
    elif options.protocol == "ood":
        print_ood(ood(options))
    else:
        print_corruptions(corruptions(options))


if __name__ == "__main__":
    main()
