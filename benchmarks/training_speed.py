"""Measure how fast skood trains and scores, as ratios within one run.

Training: samples per second of a hand-written loop, of skood's training and of skorch with its defaults, for an
autoencoder 30-128-64-32 and for an MLP with three hidden layers of 4096. Scoring: seconds for 200,000 rows of 30
features, DUMDetector against IsolationForest. Search: seconds of a GridSearchCV with one process and with two. Images
in colour: seconds of a training step of a WRN-16-2, with channels last as skood arranges its maps and with channels
first; and of a fit of RejectClassDetector by default and with the paper's five outliers for each row.

    python benchmarks/training_speed.py
    python benchmarks/training_speed.py --device cuda

Repeats are interleaved, so that a machine that slows down affects all. The script prints medians and the median ratio.
"""

from __future__ import annotations

import argparse
import copy
import time
from itertools import pairwise

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from skorch import NeuralNet
from torch import nn

from skood import DUMDetector, RejectClassDetector
from skood.networks import WideResNet
from skood.training.batches import TrainingRows
from skood.training.device import resolve_device
from skood.training.phases import Phase, Step
from skood.training.trainer import train

LR = 1e-3


def autoencoder():
    widths = [30, 128, 64, 32, 64, 128, 30]
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def wide_mlp():
    widths = [30, 4096, 4096, 4096, 30]
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def reconstruction(module, rows):
    return nn.functional.mse_loss(module(rows), rows)


def by_hand(module, X, epochs, batch_size, device, fused):
    data, module = torch.from_numpy(X).to(device), module.to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, fused=fused)
    module.train()
    for _ in range(epochs):
        total = torch.zeros((), device=device)
        for index in torch.randperm(len(data), device=device).split(batch_size):
            rows = data[index]
            loss = reconstruction(module, rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        total.item()


def by_skood(module, X, epochs, batch_size, device):
    data = TrainingRows(X, None, lambda chunk: chunk, device)
    phase = Phase([Step(reconstruction)], epochs)
    train(module.to(device), data, [phase], batch_size=batch_size, lr=LR, precision="float32")


def by_skorch(module, X, epochs, batch_size, device):
    options = {"max_epochs": epochs, "batch_size": batch_size, "lr": LR, "optimizer": torch.optim.Adam}
    net = NeuralNet(module, nn.MSELoss, device=str(device), train_split=None, verbose=0, **options)
    net.fit(X, X)


def interleaved(functions, repeats, device):
    """Return the seconds of each function in each repeat, after one repeat that is not counted."""
    seconds = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def training(title, make, n_rows, batch_size, epochs, repeats, device):
    X = np.random.default_rng(0).normal(size=(n_rows, 30)).astype(np.float32)
    torch.manual_seed(0)
    module = make()
    setting = (X, epochs, batch_size, device)
    loops = {
        "hand-written loop": lambda: by_hand(copy.deepcopy(module), *setting, fused=False),
        "hand-written loop, fused Adam": lambda: by_hand(copy.deepcopy(module), *setting, fused=True),
        "skood": lambda: by_skood(copy.deepcopy(module), *setting),
        "skorch with its defaults": lambda: by_skorch(copy.deepcopy(module), *setting),
    }
    seconds = interleaved(loops, repeats, device)
    print(f"\nTraining, {title}, {n_rows} rows, batch {batch_size}, {epochs} epochs, {repeats} repeats on {device}")
    for name, values in seconds.items():
        rate = n_rows * epochs / np.median(values)
        ratio = np.median(seconds["hand-written loop"] / values)
        print(f"  {name:30} {rate:12.0f} samples/s   {ratio:5.2f} of the hand-written loop", flush=True)


def scoring(n_rows, repeats, device):
    rng = np.random.default_rng(0)
    X, train_rows = rng.normal(size=(n_rows, 30)), rng.normal(size=(2000, 30))
    forest = IsolationForest(random_state=0).fit(train_rows)
    dum = DUMDetector(max_epochs=1, random_state=0, device=str(device)).fit(train_rows)
    detectors = {"IsolationForest": lambda: forest.score_samples(X), "DUMDetector": lambda: dum.score_samples(X)}
    seconds = interleaved(detectors, repeats, device)
    print(f"\nScoring {n_rows} x 30, {repeats} repeats, {torch.get_num_threads()} threads, {device}")
    for name, values in seconds.items():
        ratio = np.median(seconds["IsolationForest"] / values)
        print(f"  {name:30} {np.median(values):8.3f} s   {ratio:5.2f} times as fast as IsolationForest", flush=True)


def search(repeats, device):
    X = np.random.default_rng(0).normal(size=(2000, 30))
    y = np.repeat([1, -1], [1900, 100])
    grid = {"lr": [1e-3, 3e-3, 1e-2, 3e-2]}

    def run(n_jobs):
        detector = DUMDetector(max_epochs=5, random_state=0, device=str(device))
        GridSearchCV(detector, grid, scoring="roc_auc", cv=ShuffleSplit(2, random_state=0), n_jobs=n_jobs).fit(X, y)

    seconds = interleaved({"n_jobs=1": lambda: run(1), "n_jobs=2": lambda: run(2)}, repeats, device)
    print(f"\nGridSearchCV of 8 fits, {repeats} repeats, {torch.get_num_threads()} threads, {device}")
    for name, values in seconds.items():
        ratio = np.median(seconds["n_jobs=1"] / values)
        print(f"  {name:30} {np.median(values):8.2f} s   {ratio:5.2f} times as fast as one process", flush=True)


def colour_images(n_rows, repeats, device, side=32):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (2 * n_rows, 3, side, side), dtype=np.uint8)
    y = np.repeat([0, 1, -1], [n_rows // 2, n_rows - n_rows // 2, n_rows])
    last = WideResNet((3, side, side), 10, 16, 2).to(device)
    first = copy.deepcopy(last)
    first._stem_maps = lambda rows: first.pool(first.stem(rows))
    rows = torch.from_numpy(X[:n_rows]).to(device).float() / 255

    def step(module):
        module(rows).square().mean().backward()

    def fit(**params):
        # The same number of batches in either step, as by default.
        options = {"class_epochs": 1, "max_epochs": 1, "contamination": 0, "random_state": 0, "device": str(device)}
        RejectClassDetector(**options, **params).fit(X, y)

    for about, functions in (
        ("A step of a WRN-16-2", {"channels first": lambda: step(first), "channels last": lambda: step(last)}),
        (
            "RejectClassDetector, an epoch of each step",
            {"five outliers a row": lambda: fit(outlier_batch_ratio=5.0), "by default": fit},
        ),
    ):
        seconds = interleaved(functions, repeats, device)
        print(f"\n{about}, {n_rows} images in colour, {repeats} repeats, {torch.get_num_threads()} threads, {device}")
        slower = next(iter(seconds))
        for name, values in seconds.items():
            ratio = np.median(values / seconds[slower])
            print(f"  {name:30} {np.median(values):8.2f} s   {ratio:5.2f} of the time with {slower}", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch threads; torch's own choice by default")
    parser.add_argument("--small", action="store_true", help="few rows, to check only that everything runs")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    if options.small:
        training("autoencoder 30-128-64-32", autoencoder, 512, 256, 1, options.repeats, device)
        scoring(2000, options.repeats, device)
        colour_images(8, options.repeats, device, side=8)
        return
    if device.type == "cpu":
        training("autoencoder 30-128-64-32", autoencoder, 65_536, 256, 2, options.repeats, device)
        training("MLP 3 x 4096", wide_mlp, 2048, 256, 1, options.repeats, device)
    else:
        # The paper's batch size, and one that keeps a GPU busy.
        for batch_size in (256, 65_536):
            training("autoencoder 30-128-64-32", autoencoder, 2**22, batch_size, 2, options.repeats, device)
        for batch_size in (256, 16_384):
            training("MLP 3 x 4096", wide_mlp, 2**18, batch_size, 2, options.repeats, device)
    scoring(200_000, options.repeats, device)
    search(max(2, options.repeats // 3), device)
    colour_images(128 if device.type == "cpu" else 8192, max(2, options.repeats // 2), device)


if __name__ == "__main__":
    main()
