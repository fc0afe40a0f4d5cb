"""Measure how fast skood scores, as ratios within one run.

    python benchmarks/scoring_speed.py
    python benchmarks/scoring_speed.py --device cuda

The tasks are

vectors
    200,000 rows of 30 features, or a tenth of them for RotationAuxClassifier, which scores each row 32 times: detectors
    against IsolationForest, all with default settings except a short training.
images
    3 x 32 x 32 and 3 x 224 x 224: detectors and `FrozenEncoder` against a plain float32 loop over the same network (in
    evaluation mode and inference mode, with channels last in memory), with the batch size that was fastest in a first
    pass with one thread.
one row, one image
    Single calls, one after another: the whole `score_samples` against a plain pass through the detector's network.
PyOD
    20,000 rows of 30 features: NegSampleVAE against PyOD's autoencoders, scoring and fitting, with the same widths,
    batches and epochs.

A round times everything once in turn, for each number of threads, so that a machine that slows down affects all.
``ratio`` is the time of the competitor in ``against`` divided by skood's, as the median over rounds; ``ms_per_row`` is
the median time divided by the number of rows. IsolationForest runs on the CPU, whatever ``--device`` is. The table is
written to ``--out``, and replaces the rows of earlier measurements on the same device.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import IsolationForest
from threadpoolctl import ThreadpoolController
from training_speed import interleaved

from skood import (
    DUMDetector,
    FrozenEncoder,
    NegSampleVAE,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
)
from skood.networks import make_classifier
from skood.training.device import resolve_device

OUT = Path(__file__).parents[1] / "docs" / "results" / "scoring_speed.csv"
# Besides "device".
COLUMNS = ["threads", "task", "estimator", "against", "n_rows", "ms_per_row", "ratio", "rounds"]
N_FEATURES = 30
BATCH_SIZES = (1, 4, 16, 64, 256)
SLOW = ["RotationAuxClassifier"]
# NegSampleVAE's default hidden layers, latent dimensions and batch size, which PyOD's autoencoders get, too.
HIDDEN, LATENT, BATCH = [128, 128], 10, 100


class Sizes(NamedTuple):
    """Hold the numbers of rows, images and calls."""

    train: int = 2000
    vectors: int = 200_000
    pyod: int = 20_000
    images: int = 256
    large_images: int = 32
    large_side: int = 224
    calls: int = 50
    epochs: int = 2


SMALL = Sizes(train=100, vectors=500, pyod=200, images=4, large_images=2, large_side=48, calls=2, epochs=1)


class Contest(NamedTuple):
    """Hold functions that are timed on the same rows: each of ``ours`` is compared with the fastest of ``others``."""

    task: str
    n_rows: int
    ours: dict[str, Callable]
    others: dict[str, Callable]


def normal_rows(n_rows):
    return np.random.default_rng(0).normal(size=(n_rows, N_FEATURES))


def random_images(n_images, side):
    return np.random.default_rng(0).random((n_images, 3, side, side), dtype=np.float32)


def fitted_detectors(sizes, device):
    """Return the detectors of vectors by their names, fitted briefly; accuracy does not matter here."""
    short = {"max_epochs": 1, "contamination": 0, "random_state": 0, "device": device}
    detectors = [
        DUMDetector(**short),
        NegSampleVAE(**short),
        RejectClassDetector(**short),
        ResidualAdapterDetector(pretrain_epochs=1, **short),
        RotationAuxClassifier(**short),
    ]
    X = normal_rows(sizes.train)
    return {type(detector).__name__: detector.fit(X) for detector in detectors}


def plain_loop(module, X, batch_size, device):
    """Return a function that maps the rows through a copy of the module, batch by batch."""
    layout = torch.channels_last if X.ndim == 4 else torch.contiguous_format
    module = copy.deepcopy(module).eval().to(device, memory_format=layout)

    def run():
        with torch.inference_mode():
            batches = (torch.from_numpy(X[start : start + batch_size]) for start in range(0, len(X), batch_size))
            outputs = [module(batch.to(device, memory_format=layout)) for batch in batches]
            return torch.cat(outputs).cpu().numpy()

    return run


def best_plain_loop(module, X, device):
    """Return a dict from the name of the fastest plain loop to its function."""
    sizes = [size for size in BATCH_SIZES if size <= len(X)]
    loops = {f"plain loop, batches of {size}": plain_loop(module, X, size, device) for size in sizes}
    seconds = one_thread(lambda: interleaved(loops, 1, device))
    best = min(loops, key=lambda name: seconds[name][0])
    return {best: loops[best]}


def one_thread(function):
    """Run a function with one thread of torch, and return its result."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function()
    finally:
        torch.set_num_threads(before)


def repeated(function, n_calls):
    """Return a function that calls this one many times, because a single call is too short to time."""

    def run():
        for _ in range(n_calls):
            function()

    return run


def one_row(task, detector, row, sizes, device):
    """Return the contest between ``score_samples`` and a plain pass through the detector's network, on one row."""
    name = type(detector).__name__
    ours = {name: repeated(lambda: detector.score_samples(row), sizes.calls)}
    plain = plain_loop(detector.module_, row.astype(np.float32), 1, device)
    return Contest(task, sizes.calls, ours, {"plain pass": repeated(plain, sizes.calls)})


def vector_contests(detectors, sizes, device):
    forest = IsolationForest(random_state=0).fit(normal_rows(sizes.train))
    quick = {name: detector for name, detector in detectors.items() if name not in SLOW}
    for some, n_rows in ((quick, sizes.vectors), ({name: detectors[name] for name in SLOW}, sizes.vectors // 10)):
        X = normal_rows(n_rows)
        ours = {name: (lambda detector=detector, X=X: detector.score_samples(X)) for name, detector in some.items()}
        yield Contest("vectors", n_rows, ours, {"IsolationForest": lambda X=X: forest.score_samples(X)})
    for detector in detectors.values():
        yield one_row("one row", detector, normal_rows(1), sizes, device)


def image_contests(network, sizes, device):
    """Return the contests on small images with one network, and on a single image if it is a ResNet-18."""
    X = random_images(sizes.images, 32)
    few, y = random_images(6, 32), [1, 1, 1, 1, -1, -1]
    options = {"max_epochs": 1, "outlier_batch_ratio": 1, "contamination": 0, "random_state": 0, "device": device}
    # Marked outliers save the time of making some in `fit`.
    detector = RejectClassDetector(network=network, **options).fit(few, y)
    encoder = FrozenEncoder(detector.module_, device=device).fit(few)
    ours = {
        "RejectClassDetector": lambda: detector.score_samples(X),
        "FrozenEncoder": lambda: encoder.transform(X),
    }
    yield Contest(f"images 3 x 32 x 32, {network}", len(X), ours, best_plain_loop(detector.module_, X, device))
    if network == "resnet-18":
        yield one_row(f"one image 3 x 32 x 32, {network}", detector, X[:1], sizes, device)


def large_image_contest(sizes, device):
    X = random_images(sizes.large_images, sizes.large_side)
    torch.manual_seed(0)
    module = make_classifier("resnet-18", X.shape[1:], 10, hidden_sizes=(), dropout=0)
    encoder = FrozenEncoder(module, device=device).fit(X[:2])
    ours = {"FrozenEncoder": lambda: encoder.transform(X)}
    task = f"images {' x '.join(map(str, X.shape[1:]))}, resnet-18"
    return Contest(task, len(X), ours, best_plain_loop(module, X, device))


def pyod_contests(vae, sizes, device):
    """Return the contests between a fitted NegSampleVAE and PyOD's autoencoders; none if PyOD is not installed."""
    if importlib.util.find_spec("pyod") is None:
        print("PyOD's detectors are left out: it is not installed (pip install 'skood[pyod]').")
        return
    from pyod.models.auto_encoder import AutoEncoder
    from pyod.models.vae import VAE

    X = normal_rows(sizes.pyod)
    same = {"epoch_num": sizes.epochs, "batch_size": BATCH, "device": device, "verbose": 0}
    models = {
        "PyOD AutoEncoder": AutoEncoder(hidden_neuron_list=[*HIDDEN, LATENT], **same),
        "PyOD VAE": VAE(encoder_neuron_list=HIDDEN, decoder_neuron_list=HIDDEN, latent_dim=LATENT, **same),
    }
    options = {"hidden_sizes": HIDDEN, "latent_dim": LATENT, "batch_size": BATCH, "max_epochs": sizes.epochs}
    ours = NegSampleVAE(contamination=0, random_state=0, device=device, **options)
    for name, model in models.items():
        model.fit(normal_rows(sizes.train))
        scoring = {name: lambda model=model: model.decision_function(X)}
        yield Contest("PyOD, scoring", len(X), {"NegSampleVAE": lambda: vae.score_samples(X)}, scoring)
        # Copies, because a fit replaces the network.
        fitting = {name: lambda model=model: copy.deepcopy(model).fit(X)}
        yield Contest("PyOD, fitting", len(X), {"NegSampleVAE": lambda: ours.fit(X)}, fitting)


def contests(sizes, device):
    detectors = fitted_detectors(sizes, device)
    yield from vector_contests(detectors, sizes, device)
    for network in ("wrn-16-2", "resnet-18"):
        yield from image_contests(network, sizes, device)
    yield large_image_contest(sizes, device)
    yield from pyod_contests(detectors["NegSampleVAE"], sizes, device)


def limited(function, n_threads, libraries):
    """Return a function that calls this one with ``n_threads`` threads of torch and of numpy's linear algebra."""

    def run():
        torch.set_num_threads(n_threads)
        with libraries.limit(limits=n_threads, user_api="blas"):
            function()

    return run


def timed(all_contests, threads, rounds, device):
    """Return the seconds of each round, by number of threads, index of the contest and name."""
    before, libraries = torch.get_num_threads(), ThreadpoolController()
    functions = {
        (n_threads, number, name): limited(function, n_threads, libraries)
        for n_threads in threads
        for number, contest in enumerate(all_contests)
        for name, function in (contest.others | contest.ours).items()
    }
    try:
        return interleaved(functions, rounds, device)
    finally:
        torch.set_num_threads(before)


def compared(contest, seconds):
    """Return a row of the table for each of ours, from the seconds of each round by name."""
    best = min(contest.others, key=lambda name: np.median(seconds[name]))
    return [
        {
            "task": contest.task,
            "estimator": name,
            "against": best,
            "n_rows": contest.n_rows,
            "ms_per_row": 1000 * np.median(seconds[name]) / contest.n_rows,
            "ratio": np.median(seconds[best] / seconds[name]),
        }
        for name in contest.ours
    ]


def measured(all_contests, threads, rounds, device):
    """Return a table with a row for each number of threads and each of ours."""
    seconds = timed(all_contests, threads, rounds, device)
    rows = []
    for n_threads in threads:
        for number, contest in enumerate(all_contests):
            times = {name: seconds[n_threads, number, name] for name in contest.others | contest.ours}
            rows += [{"threads": n_threads} | row | {"rounds": rounds} for row in compared(contest, times)]
    return pd.DataFrame(rows)


def write(table, path):
    """Write the table, and keep the rows of other devices in the file."""
    if path.exists():
        old = pd.read_csv(path)
        table = pd.concat([old[~old["device"].isin(table["device"])], table])
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of torch and of numpy's BLAS")
    parser.add_argument("--rows", type=int, help="vectors to score; 200,000 by default")
    parser.add_argument("--small", action="store_true", help="few rows, to check only that everything runs")
    parser.add_argument("--out", type=Path, help=f"CSV file; {OUT.name} in docs/results by default, none with --small")
    options = parser.parse_args(arguments)
    device, sizes = resolve_device(options.device), SMALL if options.small else Sizes()
    if options.rows is not None:
        sizes = sizes._replace(vectors=options.rows)
    all_contests = list(contests(sizes, device))
    print(f"{options.rounds} rounds on {device}, after one that is not counted", flush=True)
    table = measured(all_contests, options.threads, options.rounds, device)
    table.insert(0, "device", torch.cuda.get_device_name(device) if device.type == "cuda" else device.type)
    print(table.drop(columns=["device", "rounds"]).to_string(index=False, float_format="{:.3g}".format))
    out = options.out or (None if options.small else OUT)
    if out is not None:
        write(table, out)


if __name__ == "__main__":
    main()
