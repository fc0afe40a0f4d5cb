"""Run and print a table of one of the five papers, its figures beside ours, on available data.

    python benchmarks/paper_tables.py --table nsvae-3 --data-home DIR [--budget gpu]
    python benchmarks/paper_tables.py --list

The script of the table runs and prints it; ``--list`` prints the scripts and their arguments. The budget "cpu" takes
hours at most on two cores; "gpu" is the papers' own.

Runs in ``docs/results`` are copied into ``--out`` instead of being run again. After an interruption, the same command
goes on from the last run. Tables of sets that are not available (STL-10, ImageNet, PAMAP2, record linkage) are missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results"
ON_CPU = ["--precision", "bfloat16"]


def with_known(script, out):
    """Return a folder for the runs of a script, which begins with those of docs/results."""
    folder, known = out / script, RESULTS / f"{script}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    if known.exists() and not (folder / "results.csv").exists():
        shutil.copy(known, folder / "results.csv")
    return folder


def size(budget):
    return ["--size", "paper"] if budget == "gpu" else ON_CPU


def dum_1(budget):
    return "dum_images", ["--dataset", "cifar10", "--protocol", "corruptions", *size(budget)]


def dum_2(budget):
    own = ["DUM, printed", "DUM", "large rows", "IsolationForest", "LOF", "OneClassSVM", "SP", "EllipticEnvelope"]
    own += ["kNN", "ABOD", "AE", "LeSiNN", "REPEN"]
    return "dum_uci", ["--methods", ";".join(own), "--width", "4096" if budget == "gpu" else "256"]


def dum_3(budget):
    return "dum_images", ["--dataset", "cifar10", "--protocol", "ood", *size(budget)]


def dum_4(budget):
    own = ["DUM, printed", "DUM", "SimCLR, printed", "SimCLR"]
    return "dum_uci", ["--methods", ";".join(own), "--width", "4096" if budget == "gpu" else "256"]


def reject(dataset, *more):
    def table(budget):
        chosen = ["--dataset", dataset, *more]
        return "reject_classes", chosen + (["--size", "full"] if budget == "gpu" else ["--size", "small", *ON_CPU])

    return table


def reject_short(dataset):
    """All methods with the settings that a user gets: of the same size with either budget."""

    def table(budget):
        return "reject_classes", ["--dataset", dataset, "--size", "short", "--seeds", "3"]

    return table


def ns_vae(number):
    def table(budget):
        return "ns_vae", ["--table", str(number), *size(budget)]

    return table


def semantic_3(budget):
    return "holdout_class", ["--dataset", "cifar10", *size(budget)]


def adra_1(budget):
    own = ["frozen kNN", "scratch", "finetune", "L2-SP", "adapters K=1", "adapters K=2", "adapters K=4"]
    chosen = ["--backbone", "shipped", "--methods", ";".join(own)]
    return "adra_one_vs_rest", chosen + (size(budget) if budget == "gpu" else [*ON_CPU, "--test-images", "200"])


def adra_2(budget):
    chosen = ["--backbone", "shipped", "--protocol", "hold-one-out", "--methods", "finetune;L2-SP;adapters K=2"]
    return "adra_one_vs_rest", chosen + (size(budget) if budget == "gpu" else [*ON_CPU, "--test-images", "200"])


TABLES = {
    "dum-1": dum_1,
    "dum-2": dum_2,
    "dum-3": dum_3,
    "dum-4": dum_4,
    "reject-1": reject("mnist"),
    "reject-1-cifar": reject("cifar10"),
    **{f"reject-short-{dataset}": reject_short(dataset) for dataset in ("digits", "fashion_mnist", "cifar10")},
    "reject-2": reject("mnist", "--ablations"),
    "reject-2-cifar": reject("cifar10", "--ablations"),
    **{f"nsvae-{number}": ns_vae(number) for number in range(1, 6)},
    "semantic-3": semantic_3,
    "adra-1": adra_1,
    "adra-2": adra_2,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=tuple(TABLES))
    parser.add_argument("--budget", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--data-home", type=Path, default=os.environ.get("SKOOD_DATA"))
    parser.add_argument("--out", type=Path, default=Path("comparison/paper_tables"))
    parser.add_argument("--list", action="store_true", help="only print the tables and their commands")
    options = parser.parse_args()
    if options.list or options.table is None:
        for name, table in TABLES.items():
            script, arguments = table(options.budget)
            shown = " ".join(f'"{argument}"' if " " in argument else argument for argument in arguments)
            print(f"{name:15} python benchmarks/{script}.py {shown} --data-home DIR")
        return
    if options.data_home is None:
        parser.error("--data-home or SKOOD_DATA is needed")
    script, arguments = TABLES[options.table](options.budget)
    out = with_known(script, options.out)
    command = [sys.executable, HERE / f"{script}.py", *arguments, "--data-home", options.data_home, "--out", out]
    sys.exit(subprocess.call(command))


if __name__ == "__main__":
    main()
