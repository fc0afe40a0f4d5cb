"""What all tables are made with: files of results, their commands, means and deviations over seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from sphinx.errors import ExtensionError

DETECTORS = {
    "DUMDetector": "tabular_dum.csv",
    "RejectClassDetector": "tabular_reject.csv",
    "NegSampleVAE": "tabular_vae.csv",
    "RotationAuxClassifier": "tabular_rotation.csv",
    "ResidualAdapterDetector": "tabular_adapters.csv",
}
CLASSICAL = ["kNN", "LOF", "IsolationForest"]
PROTOCOLS = {"novelty": "inliers", "contaminated": "hidden outliers"}
# Names of data sets, as tables show them.
SETS = {"fashion_mnist": "Fashion-MNIST", "kmnist": "KMNIST", "notmnist": "notMNIST", "mnist": "MNIST"}
SETS |= {"cifar100_other_classes": "CIFAR-100, other classes", "mixed": "mixed"}
SETS |= {"letters": "letters", "cifar10": "CIFAR-10", "tinyimagenet": "Tiny ImageNet"}


class Table(NamedTuple):
    """A table of figures.

    Parameters
    ----------
    caption : str
    figures : DataFrame
        As shown: numbers, rounded, or text; NaN is an empty cell. Its index is the first column.
    files : sequence of str
        What it was made of: first cells of rows in ``results/README.md``, or how they begin. None are the paper's own.
    digits : int, default=3
    best : {"in columns", "in rows"} or None, default=None
        Where the best figure is set in bold.
    outside : sequence of str, default=()
        Rows and columns whose figures are not to be compared with the others: the papers', of other data.
    lower : sequence of str, default=()
        Columns where lower is better.
    remarks : sequence of str, default=()
        Sentences that are made of the figures, too.
    deviations : DataFrame or None, default=None
        Standard deviations over seeds, of the figures in these rows and columns; 0 where no seed changes them. They
        are not shown; figures without one cannot be claimed to differ.
    """

    caption: str
    figures: pd.DataFrame
    files: Sequence[str] = ()
    digits: int = 3
    best: str | None = None
    outside: Sequence[str] = ()
    lower: Sequence[str] = ()
    remarks: Sequence[str] = ()
    deviations: pd.DataFrame | None = None


# What makes the tables of a name from the folder of results.
Made = Callable[[Path], Table | list[Table]]


def read(results: Path, name: str, **options) -> pd.DataFrame:
    """A file of results.

    Raises
    ------
    ExtensionError
        If it is missing.
    """
    path = results / name
    if not path.exists():
        raise ExtensionError(f"results/{name} is missing; results/README.md has the command that makes it.")
    return pd.read_csv(path, **options)


def commands(results: Path, file: str) -> list[str]:
    """Lines of a shell that make a file of results: commands, under comments that say which part.

    Raises
    ------
    ExtensionError
        If ``results/README.md`` has none.
    """
    lines = []
    for cells in re.findall(r"^\| `(.+) \| (.+) \|$", (results / "README.md").read_text(encoding="utf-8"), re.M):
        part, made = (cell.replace("`", "") for cell in cells)
        if part.startswith(file):
            part = part.partition(", ")[2]
            command = made.startswith("python")
            about = ": ".join(text for text in (part, "" if command else made) if text)
            lines += [f"# {about}"] if about else []
            lines += [made] if command else []
    if not lines:
        raise ExtensionError(f"results/README.md has no command for {file}.")
    return lines


def deviations(means: Callable[[int], pd.DataFrame | pd.Series], seeds: Sequence[int]) -> pd.DataFrame | pd.Series:
    """Standard deviations over seeds of what is computed of each."""
    by_seed = pd.concat({seed: means(seed) for seed in seeds})
    return by_seed.groupby(level=list(range(1, by_seed.index.nlevels)), sort=False).std()


def seeds_of(results: Path, file: str) -> list[int]:
    return sorted(read(results, file)["seed"].unique())


def say_seeds(runs: pd.DataFrame, cell: list[str]) -> str:
    """Say how many seeds the cells of a table have."""
    seeds = runs.groupby(cell)["seed"].nunique()
    numbers = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    return f"{numbers} seed{'s' if seeds.max() > 1 else ''}"


def say_largest(spread: pd.DataFrame, unit: str = ".1f") -> str:
    """Say the largest deviation of a table, where one is known."""
    largest = spread.max(axis=None)
    return "A single run each." if pd.isna(largest) else f"The largest deviation over the seeds is {largest:{unit}}."


def means_by_set(
    results: Path, file: str, protocol: str, column: str = "auroc", seed: int | None = None
) -> pd.DataFrame:
    """Mean over seeds, or the figure of one seed, for each data set (rows) and detector (columns)."""
    runs = read(results, file)
    runs = runs[runs["protocol"] == protocol].assign(dataset=runs["dataset"].str.removeprefix("adbench/"))
    runs = runs if seed is None else runs[runs["seed"] == seed]
    return runs.pivot_table(column, "dataset", "detector", sort=False)
