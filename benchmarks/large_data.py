"""Measure the time and the memory that a detector needs for many rows.

    python benchmarks/large_data.py DUMDetector --data-home DIR [--inliers]
    python benchmarks/large_data.py DUMDetector --rows 1000000 --features 1024 --memory 1

By default the rows are ten percent of KDD Cup 1999 (494,021 x 41): DIR (or the variable SKOOD_DATA) holds
``uci/kdd99_10percent.npz``. The detector is fitted on all of them without labels, and scores all of them; with
``--inliers`` it is fitted on half of the connections that are not attacks, and scores the rest. With ``--rows`` they
are normal random numbers, float32, in a memory-mapped file that is written once to the folder ``--out``.

It runs in a process that may not allocate more than ``--memory`` GiB (RLIMIT_DATA; Linux only). That limit counts what
a process and its libraries allocate, but not the pages of a mapped file, which the system may drop at any time. The
script prints the peak of allocated and touched memory (RssAnon, read every 50 ms) and the peak of all resident pages,
including those of a mapped file (ru_maxrss), and appends both to ``results.csv`` in ``--out``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from runs import Runs

from skood.compare import DETECTORS
from skood.datasets import read_file
from skood.metrics import auroc

GIB = 2**30
_VALUES_WRITTEN = 2**22

# Columns of the key of a run, and of its results.
KEYS = ["detector", "rows", "n_features", "fitted_on", "memory_gib", "max_epochs", "batch_size"]
FIGURES = ["n_fitted", "n_scored", "fit_seconds", "epochs", "score_seconds", "allocated_gib", "resident_gib", "auroc"]
FIGURES += ["threads"]


def random_rows(options):
    """Return the path of the file of random rows."""
    return options.out / f"rows_{options.rows}x{options.features}.npy"


def write_rows(path, n_rows, n_features):
    """Write normal random numbers to a .npy file without holding all of them in memory."""
    if path.exists():
        return
    rng = np.random.default_rng(0)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, n_features)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n_rows * n_features, _VALUES_WRITTEN):
            n_values = min(_VALUES_WRITTEN, n_rows * n_features - start)
            rng.standard_normal(n_values, dtype=np.float32).tofile(file)
    unfinished.rename(path)


def read_rows(options):
    """Return rows, labels or None, and the indices of the rows to train on and to score."""
    if options.rows is not None:
        return np.load(random_rows(options), mmap_mode="r"), None, None, None
    X, y = read_file(options.data_home / "uci" / "kdd99_10percent.npz", outliers=["1"])
    if not options.inliers:
        return X, y, None, None
    inliers = np.random.default_rng(0).permutation(np.flatnonzero(y == 1))
    train = inliers[: len(inliers) // 2]
    return X, y, train, np.setdiff1d(np.arange(len(y)), train)


def fit_and_score(options, connection):
    """Fit and score in the child process, and send the figures."""
    limit = int(options.memory * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    X, y, train, test = read_rows(options)
    detector = DETECTORS[options.detector]()
    given = {"random_state": 0, "max_epochs": options.max_epochs, "batch_size": options.batch_size}
    known = detector.get_params()
    detector.set_params(**{name: value for name, value in given.items() if name in known and value is not None})
    X_train = X if train is None else X[train]
    start = time.perf_counter()
    detector.fit(X_train)
    fitted = time.perf_counter()
    X_test = X if test is None else X[test]
    scoring = time.perf_counter()
    scores = detector.score_samples(X_test)
    figures = {
        "n_features": X_train.shape[1],
        "n_fitted": len(X_train),
        "n_scored": len(X_test),
        "fit_seconds": fitted - start,
        "score_seconds": time.perf_counter() - scoring,
        "epochs": len(getattr(detector, "history_", [])),
        "auroc": "" if y is None else auroc(y if test is None else y[test], scores),
        "threads": torch.get_num_threads(),
        # ru_maxrss is in KiB on Linux.
        "resident_gib": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB,
    }
    connection.send(figures)


def allocated(pid):
    """Return the bytes of anonymous memory that a process has touched; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return 1024 * int(fields.get("RssAnon", "0 kB").split()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", choices=list(DETECTORS))
    parser.add_argument("--data-home", type=Path, default=os.environ.get("SKOOD_DATA"))
    parser.add_argument("--inliers", action="store_true", help="fit on half of the inliers")
    parser.add_argument("--rows", type=int, help="number of random rows, instead of KDD Cup 1999")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("comparison/large_data"))
    parser.add_argument("--memory", type=float, default=4.0, help="limit of allocated memory, in GiB")
    parser.add_argument("--max-epochs", type=int, help="default: the detector's")
    parser.add_argument("--batch-size", type=int, help="default: the detector's")
    options = parser.parse_args()
    if options.rows is None and options.data_home is None:
        parser.error("--data-home or SKOOD_DATA is needed")
    options.data_home = options.data_home and Path(options.data_home)
    if options.rows is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_rows(random_rows(options), options.rows, options.features)

    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe(duplex=False)
    child = context.Process(target=fit_and_score, args=(options, theirs))
    child.start()
    theirs.close()
    peak = 0
    while not connection.poll(0.05):
        peak = max(peak, allocated(child.pid))
    try:
        figures = connection.recv()
    except EOFError:
        sys.exit(f"{options.detector} failed; it had touched {peak / GIB:.2f} of {options.memory:g} GiB.")
    child.join()
    figures["allocated_gib"] = peak / GIB
    rows = "kdd99_10percent" if options.rows is None else f"random_{options.rows}"
    given = {"detector": options.detector, "rows": rows}
    given |= {"fitted_on": "inliers" if options.inliers else "all", "memory_gib": f"{options.memory:g}"}
    given |= {"max_epochs": options.max_epochs or "default", "batch_size": options.batch_size or "default"}
    Runs(options.out / "results.csv", KEYS, FIGURES).add(given | figures)

    n_bytes = "" if options.rows is None else f", a file of {random_rows(options).stat().st_size / GIB:.2f} GiB"
    shape = f"{figures['n_fitted']} x {figures['n_features']}"
    print(f"{options.detector}, {figures['threads']} threads, at most {options.memory:g} GiB to allocate")
    print(f"  fitted on {shape}{n_bytes}: {figures['fit_seconds']:.0f} s, {figures['epochs']} epochs")
    print(f"  scored {figures['n_scored']} rows: {figures['score_seconds']:.0f} s")
    print(f"  allocated {peak / GIB:.2f} GiB at most; resident {figures['resident_gib']:.2f} GiB at most")
    if figures["auroc"] != "":
        print(f"  AUROC {figures['auroc']:.4f}")


if __name__ == "__main__":
    main()
