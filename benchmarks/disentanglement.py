"""Measure the disentanglement of representations that detectors learn: Figure 3 of the residual adapters' paper.

    python benchmarks/disentanglement.py [--size small | paper] [--seeds 3]
    python benchmarks/disentanglement.py --mpi3d mpi3d_real.npz [--size small | paper]
    python benchmarks/disentanglement.py --mpi3d mpi3d_real_complex.npz --factor-values FILE --nominal red,croissant

Objects of one colour and one shape are nominal: in the paper red cones of MPI3D, whatever their size and place and what
is behind them. All other images are the corpus. By default the images are drawn by `skood.datasets.make_shapes`, whose
factors are like those of MPI3D, and red triangles are nominal. FILE is a JSON file with the factors of a file and their
values, see `skood.datasets.load_mpi3d`.

A representation is the features before the last layer, as ``transform`` gives them; the paper does not say which layer
it takes. ``dci`` measures it on new images of all kinds, with gradient boosting, as is usual. informativeness is
the mean over the factors: accuracy, or R^2 for the two positions. AUROC is that of nominal images among these, in
percent. The backbone is the one that comes with skood. Images are not augmented: shifts would hide the positions.

"small" suits one core of a CPU. Of a file of MPI3D it reads 20,000 images, at half their resolution. "paper" is the
paper's training, for 120 epochs, and 15,000 images for ``dci``, with a classifier for the positions in MPI3D; of a file
it takes all images, which need 30 GB of memory.

Each run, a method by a seed, is written to ``results.csv`` when it is finished; the same command goes on from there.
The left part of the figure, parameters of detectors for ten tasks, is printed for this backbone, and for the paper's
ResNet-26, whose parameters are counted without training.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from adra_one_vs_rest import METHODS as SOME_METHODS
from adra_one_vs_rest import MORE_METHODS
from runs import Runs, checkpoint, training_seconds

from skood import ResidualAdapterDetector
from skood.datasets import load_mpi3d, make_shapes
from skood.metrics import auroc, dci
from skood.training.device import resolve_device

# The paper's names: SVDD, UADRA, SAD, TF, L2-SP and ADRA; the first one is not in the paper.
ORDER = ("frozen kNN", "Deep SVDD", "UADRA", "scratch", "finetune", "L2-SP", "adapters K=2")
METHODS = {name: (SOME_METHODS | MORE_METHODS)[name] for name in ORDER}
POSITIONS = ("horizontal", "vertical", "horizontal_axis", "vertical_axis")
KEYS = ["data", "nominal", "backbone", "size", "method", "max_epochs", "precision", "seed"]
FIGURES = ["auroc", "disentanglement", "completeness", "informativeness", "loss", "fit_seconds", "dci_seconds"]
FIGURES += ["n_adapter_parameters", "n_backbone_parameters", "device"]
SHOWN = ["disentanglement", "completeness", "informativeness", "auroc"]
# Millions of parameters for ten tasks, section 4.1 of the paper.
PAPER_MILLIONS = {"ten networks": 62.1, "one network, ten times adapters": 20.2}


class Size(NamedTuple):
    n_nominal: int
    n_corpus: int
    n_test: int
    image_size: int
    max_epochs: int
    predictor: str
    # Images of a file; None takes all.
    n_read: int | None


SIZES = {
    "toy": Size(16, 48, 60, 16, 1, "random_forest", 120),
    "small": Size(512, 5000, 1000, 32, 8, "gradient_boosting", 20000),
    "paper": Size(28800, 100000, 15000, 64, 120, "gradient_boosting", None),
}


class Scenes(NamedTuple):
    """Training images, which of them are nominal, and the same of test images with their factors."""

    X: np.ndarray
    nominal: np.ndarray
    X_test: np.ndarray
    nominal_test: np.ndarray
    factors_test: pd.DataFrame


def is_nominal(factors, nominal):
    color, shape = nominal
    return ((factors["object_color"] == color) & (factors["object_shape"] == shape)).to_numpy()


@lru_cache(maxsize=1)
def scenes(size, nominal, mpi3d, factor_values, seed):
    size = SIZES[size]
    if mpi3d is not None:
        return from_file(size, nominal, mpi3d, factor_values, seed)
    fixed = dict(zip(("object_color", "object_shape"), nominal, strict=True))
    own = make_shapes(size.n_nominal, fixed=fixed, image_size=size.image_size, random_state=3 * seed)
    all_kinds = make_shapes(size.n_corpus, image_size=size.image_size, random_state=3 * seed + 1)
    corpus = all_kinds.X[~is_nominal(all_kinds.factors, nominal)]
    test = make_shapes(size.n_test, image_size=size.image_size, random_state=3 * seed + 2)
    X = np.concatenate([own.X, corpus])
    return Scenes(X, np.arange(len(X)) < len(own.X), test.X, is_nominal(test.factors, nominal), test.factors)


def from_file(size, nominal, path, factor_values, seed):
    values = None if factor_values is None else json.loads(factor_values.read_text())
    data = load_mpi3d(path, n_samples=size.n_read, factor_values=values, random_state=seed)
    X = data.X
    if size.n_read is not None:
        n, channels, height, width = X.shape
        X = np.rint(X.reshape(n, channels, height // 2, 2, width // 2, 2).mean((3, 5))).astype(np.uint8)
    rows = np.random.RandomState(seed).permutation(len(X))
    test, train = rows[: size.n_test], rows[size.n_test :]
    known = is_nominal(data.factors, nominal)
    return Scenes(X[train], known[train], X[test], known[test], data.factors.iloc[test])


def make_detector(method, seed, options):
    settings = {"max_epochs": options.max_epochs, "precision": options.precision, "device": options.device}
    # Only scores and features matter, which are the same without the fits that set a threshold.
    settings |= {"random_state": seed, "contamination": 0, **METHODS[method]}
    if options.size == "paper":
        return ResidualAdapterDetector.from_paper(augmentation=None, **settings)
    return ResidualAdapterDetector(**settings)


def counts(detector):
    return {
        "n_adapter_parameters": detector.n_adapter_parameters_,
        "n_backbone_parameters": detector.n_backbone_parameters_,
    }


def run(key, method, seed, options):
    data = scenes(options.size, options.nominal, options.mpi3d, options.factor_values, seed)
    detector = make_detector(method, seed, options).set_params(checkpoint=checkpoint(options.out, key))
    start = time.perf_counter()
    detector.fit(data.X, np.where(data.nominal, 1, -1))
    result = {"fit_seconds": training_seconds(detector, start), "device": resolve_device(options.device).type}
    scores = detector.score_samples(data.X_test)
    result["auroc"] = 100 * auroc(np.where(data.nominal_test, 1, -1), scores)
    start = time.perf_counter()
    # In small runs of MPI3D, too, positions are numbers: a classifier of 40 values takes 40 times as long.
    as_paper = options.mpi3d is not None and options.size == "paper"
    discrete = [as_paper or name not in POSITIONS for name in data.factors_test]
    predictor = SIZES[options.size].predictor
    features = detector.transform(data.X_test)
    found = dci(features, data.factors_test, predictor=predictor, discrete=discrete, random_state=seed)
    result |= {"disentanglement": found.disentanglement, "completeness": found.completeness}
    result |= {"informativeness": float(found.informativeness.mean()), "dci_seconds": time.perf_counter() - start}
    if len(detector.history_):
        result["loss"] = detector.history_[-1]["train_loss"]
    return result | counts(detector)


def count(method):
    """Return the parameters of the paper's network, from a fit on a few images of noise."""
    X = np.random.RandomState(0).randint(256, size=(8, 3, 32, 32), dtype=np.uint8)
    settings = {"pretrain": None, "max_epochs": 1, "batch_size": 4, "contamination": 0, "random_state": 0}
    detector = ResidualAdapterDetector("resnet-26-32", device="cpu", **settings, **METHODS[method])
    return counts(detector.fit(X, np.repeat([1, -1], 4)))


# --------------------------------------------------------------------------------------------------------------------
# Tables


def ten_tasks(results):
    """Return millions of parameters of detectors for ten tasks, by backbone."""
    columns = ["n_adapter_parameters", "n_backbone_parameters"]
    millions = results.groupby(["backbone", "method"])[columns].first() / 1e6
    trained = millions["n_adapter_parameters"].unstack().reindex(columns=["finetune", "adapters K=2"])
    shared = millions["n_backbone_parameters"].groupby("backbone").first()
    whole, with_adapters = 10 * trained["finetune"], shared + 10 * trained["adapters K=2"]
    table = pd.DataFrame({"ten networks": whole, "one network, ten times adapters": with_adapters})
    return table.loc[results["backbone"].unique()]


def print_tables(results, options):
    own = results[results["data"] != "none"]
    by_method = own.groupby("method", sort=False)
    means, spread = by_method[SHOWN].mean(), by_method[SHOWN].std()
    print(f"\n{own['data'].iloc[0]}, size {options.size}, seeds: {options.seeds}; means (standard deviations)\n")
    digits = {name: 1 if name == "auroc" else 3 for name in SHOWN}
    table = pd.DataFrame(
        {
            name: [
                f"{m:.{digits[name]}f} ({s:.{digits[name]}f})" for m, s in zip(means[name], spread[name], strict=True)
            ]
            for name in SHOWN
        },
        means.index,
    )
    table["trained"] = by_method["n_adapter_parameters"].first().map("{:,.0f}".format)
    for name in ("fit_seconds", "dci_seconds"):
        table[name] = by_method[name].mean().round(1)
    print(table.loc[[name for name in ORDER if name in table.index]].to_string())
    print("\nMillions of parameters for ten tasks\n")
    counted = ten_tasks(results)
    counted.loc["paper"] = PAPER_MILLIONS
    print(counted.round(1).to_string(na_rep="-"))


# --------------------------------------------------------------------------------------------------------------------


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mpi3d", type=Path, help="a file of MPI3D; without one, shapes are drawn")
    parser.add_argument("--factor-values", type=Path, help="JSON file: factors of the file of MPI3D, and their values")
    parser.add_argument("--nominal", help="colour,shape; by default red,triangle, or red,cone of MPI3D")
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--methods", help=f"separated by semicolons; by default {'; '.join(ORDER)}")
    parser.add_argument("--max-epochs", type=int, help="instead of the number of the size")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each if more than one")
    parser.add_argument("--out", type=Path, default=Path("comparison/disentanglement"))
    options = parser.parse_args(arguments)
    methods = ORDER if options.methods is None else options.methods.split(";")
    if set(methods) - set(ORDER):
        parser.error(f"--methods: {sorted(set(methods) - set(ORDER))} are none of {list(ORDER)}")
    if options.factor_values is not None and options.mpi3d is None:
        parser.error("--factor-values has no effect without --mpi3d")
    options.nominal = tuple((options.nominal or ("red,cone" if options.mpi3d else "red,triangle")).split(","))
    if len(options.nominal) != 2:
        parser.error("--nominal must be a colour and a shape, separated by a comma")
    options.max_epochs = options.max_epochs or SIZES[options.size].max_epochs
    about = {"data": "shapes" if options.mpi3d is None else options.mpi3d.stem, "nominal": " ".join(options.nominal)}
    about |= {"backbone": "shipped", "size": options.size, "max_epochs": str(options.max_epochs)}
    about["precision"] = options.precision
    jobs = []
    for seed in range(options.seeds):
        for method in methods:
            key = {name: str((about | {"method": method, "seed": seed})[name]) for name in KEYS}
            jobs.append((key, partial(run, key, method, seed, options)))
    for method in ("finetune", "adapters K=2"):
        key = dict.fromkeys(KEYS, "") | {"data": "none", "backbone": "resnet-26-32", "method": method}
        jobs.append((key, partial(count, method)))
    print_tables(Runs(options.out / "results.csv", KEYS, FIGURES).complete(jobs, options.jobs), options)


if __name__ == "__main__":
    main()
