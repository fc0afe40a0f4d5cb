"""Tables of figures, made of ``results/*.csv`` when the documents are built: a page types none.

In a page, ``.. figures:: NAME`` is a table of `TABLES` with the commands that made its files, as ``results/README.md``
has them; ``:cell:`` with NAME; ROW; COLUMN is a figure as that table shows it; and text under
``.. claim:: NAME; ROW; COLUMN > NAME; ROW; COLUMN`` stands only while the tables bear it out. If deviations over seeds
are known of both figures, the difference must exceed the larger one; ``~`` instead of ``>`` says that it does not, that
is, that the figures are level. Otherwise, and if a file is missing, the build fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

DETECTORS = {
    "DUMDetector": "tabular_dum.csv",
    "RejectClassDetector": "tabular_reject.csv",
    "NegSampleVAE": "tabular_vae.csv",
    "RotationAuxClassifier": "tabular_rotation.csv",
    "ResidualAdapterDetector": "tabular_adapters.csv",
}
CLASSICAL = ["kNN", "LOF", "IsolationForest"]
PROTOCOLS = {"novelty": "inliers", "contaminated": "hidden outliers"}


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
        Standard deviations over seeds, of the figures in these rows and columns. They are not shown.
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


# --------------------------------------------------------------------------------------------------------------------
# Files


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


# --------------------------------------------------------------------------------------------------------------------
# Tables of vectors


def means_by_set(
    results: Path, file: str, protocol: str, column: str = "auroc", seed: int | None = None
) -> pd.DataFrame:
    """Mean over seeds, or the figure of one seed, for each data set (rows) and detector (columns)."""
    runs = read(results, file)
    runs = runs[runs["protocol"] == protocol].assign(dataset=runs["dataset"].str.removeprefix("adbench/"))
    runs = runs if seed is None else runs[runs["seed"] == seed]
    return runs.pivot_table(column, "dataset", "detector", sort=False)


def deviations(means: Callable[[int], pd.DataFrame | pd.Series], seeds: Sequence[int]) -> pd.DataFrame | pd.Series:
    """Standard deviations over seeds of what is computed of each."""
    by_seed = pd.concat({seed: means(seed) for seed in seeds})
    return by_seed.groupby(level=list(range(1, by_seed.index.nlevels)), sort=False).std()


def all_by_set(results: Path, protocol: str, column: str = "auroc", seed: int | None = None) -> pd.DataFrame:
    """The same of all detectors: ours each from its own file, the classical ones, which are in each, once."""
    found = {}
    for detector, file in DETECTORS.items():
        means = means_by_set(results, file, protocol, column, seed)
        found.setdefault(CLASSICAL[0], means[CLASSICAL[0]])
        if not means.index.sort_values().equals(found[CLASSICAL[0]].index.sort_values()):
            raise ExtensionError(f"{file} has other data sets than {DETECTORS['DUMDetector']}.")
        for name in CLASSICAL:
            known = found.setdefault(name, means[name])
            if abs(known.mean() - means[name].mean()) > 0.005:
                raise ExtensionError(f"{file} has other figures of {name} than {DETECTORS['DUMDetector']}.")
        found[detector] = means[detector]
        if detector == "ResidualAdapterDetector":
            found["ResidualAdapterDetector, frozen"] = means["adapters, frozen"]
    order = [*DETECTORS, "ResidualAdapterDetector, frozen", *CLASSICAL]
    return pd.DataFrame(found)[order].sort_index(key=lambda names: names.str.split("_").str[0].astype(int))


def summary(by_protocol: dict[str, pd.DataFrame], fpr: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Means over the data sets, on how many a detector is ahead of kNN, and what these say."""
    table, remarks = pd.DataFrame(index=fpr.columns), []
    for name, means in by_protocol.items():
        table[name] = means.mean()
    table["FPR95, inliers"] = fpr.mean()
    for name, means in by_protocol.items():
        n_sets = len(means)
        ahead = means.round(3).gt(means["kNN"].round(3), axis=0).sum()
        table[f"ahead of kNN, {name}"] = [f"{n} of {n_sets}" if one != "kNN" else "" for one, n in ahead.items()]
        first = table[name].idxmax()
        rows = "rows with hidden outliers" if name == "hidden outliers" else name
        remarks.append(f"Trained on {rows}, {first} has the highest mean, {table[name].max():.3f}.")
    return table, remarks


_SUITE = (
    "Mean AUROC over {n} tabular sets of ADBench and three seeds, trained on inliers, and on rows among which outliers "
    "hide; false alarms where 95 % of the outliers are caught"
)


def _seeds(results: Path, file: str) -> list[int]:
    return sorted(read(results, file)["seed"].unique())


def _n_seeds(runs: pd.DataFrame, cell: list[str]) -> str:
    """Say how many seeds the cells of a table have."""
    seeds = runs.groupby(cell)["seed"].nunique()
    numbers = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    return f"{numbers} seed{'s' if seeds.max() > 1 else ''}"


def tabular(results: Path) -> Table:
    return _suite(partial(all_by_set, results), list(DETECTORS.values()), _seeds(results, DETECTORS["DUMDetector"]))


def tabular_of(results: Path, file: str) -> Table:
    return _suite(partial(means_by_set, results, file), [file], _seeds(results, file))


def _suite(by_set: Callable[..., pd.DataFrame], files: list[str], seeds: Sequence[int]) -> Table:
    by_protocol = {name: by_set(protocol) for protocol, name in PROTOCOLS.items()}
    figures, remarks = summary(by_protocol, by_set("novelty", "fpr95"))
    spread = {
        name: deviations(lambda seed, protocol=protocol: by_set(protocol, seed=seed).mean(), seeds)
        for protocol, name in PROTOCOLS.items()
    }
    caption = _SUITE.format(n=len(by_protocol["inliers"]))
    lower = ["FPR95, inliers"]
    return Table(caption, figures, files, 3, "in columns", (), lower, remarks, pd.DataFrame(spread))


def tabular_by_set(results: Path, protocol: str) -> Table:
    figures = all_by_set(results, protocol)
    seeds = _seeds(results, DETECTORS["DUMDetector"])
    spread = deviations(lambda seed: all_by_set(results, protocol, seed=seed), seeds)
    shown = figures.round(3)
    best = shown.eq(shown.max(axis=1), axis=0).sum().sort_values(ascending=False, kind="stable")
    counts = ", ".join(f"{name} on {n}" for name, n in best.items())
    rows = {"novelty": "inliers", "contaminated": "rows among which outliers hide"}[protocol]
    caption = f"AUROC of each set of ADBench, trained on {rows}"
    remark = f"Highest, ties counted for each: {counts}."
    return Table(caption, figures, list(DETECTORS.values()), 3, "in rows", remarks=[remark], deviations=spread)


# --------------------------------------------------------------------------------------------------------------------
# DUM

# The paper's Table 2, AUROC in percent, fitted and scored on the same rows: (DUM, the best other one, its name).
_DUM_TABLE_2 = {
    "Arrhythmia": (76.6, 74.9, "REPEN"),
    "CoverType": (91.4, 95.1, "REPEN"),
    "Ionosphere": (81.0, 95.1, "EE"),
    "Isolet": (100.0, 93.3, "KNN"),
    "Kdd1999": (98.0, 85.5, "REPEN"),
    "MFeat": (99.9, 92.4, "LeSiNN"),
    "OptDigits": (99.6, 86.9, "LeSiNN"),
    "PAMAP2": (87.5, 89.0, "SP"),
    "PIMA": (81.5, 71.7, "LeSiNN, REPEN"),
    "Record": (99.9, 99.9, "ISO, SP"),
    "Skin": (96.2, 89.2, "EE"),
    "Spambase": (83.4, 61.4, "ABOD"),
    "Statlog": (89.2, 84.5, "AE"),
    "Wdbc": (96.9, 88.9, "EE"),
}
# Its Table 3, AUROC in percent: DUM, DUM with a circular covariance, the best other one without class labels, and with.
_DUM_TABLE_3 = {
    "CIFAR-10, SVHN": (98.5, 83.5, 93.8, 99.5),
    "CIFAR-10, TinyImageNet": (99.3, 84.2, 83.8, 99.7),
    "CIFAR-10, LSUN": (99.8, 84.9, 79.3, 99.9),
    "CIFAR-100, SVHN": (94.5, 53.6, 82.1, 98.4),
    "CIFAR-100, TinyImageNet": (92.5, 78.1, 66.7, 98.9),
    "CIFAR-100, LSUN": (96.8, 79.3, 73.5, 99.2),
    "SVHN, CIFAR-10": (86.4, 72.4, 97.3, 99.6),
    "SVHN, TinyImageNet": (96.1, 83.3, 97.1, 99.9),
    "SVHN, LSUN": (97.4, 84.3, 96.5, 100.0),
}


def dum_vectors(results: Path) -> Table:
    import dum_uci

    names = {file: name for file, (name, _) in dum_uci.PAPER.items()}
    runs = read(results, "dum_uci.csv")
    ours = runs.pivot_table("auroc", "dataset", "method", sort=False).rename(names).reindex(_DUM_TABLE_2)
    paper = pd.DataFrame.from_dict(dict(dum_uci.PAPER.values()), "index", columns=dum_uci.COLUMNS, dtype=float)
    paper = paper.reindex(_DUM_TABLE_2)
    figures = pd.DataFrame.from_dict(_DUM_TABLE_2, "index", columns=["DUM, paper", "best other, paper", "which"])
    figures["DUM, printed"] = ours["DUM, printed"]
    figures["100 - printed"] = 100 - ours["DUM, printed"]
    figures["large rows"] = ours["large rows"]
    figures["DUM, default"] = ours["DUM"]
    for name in ("kNN", "IsolationForest"):
        figures[f"{name}, paper"], figures[name] = paper[name], ours[name]
    directions = dum_uci.reversed_figures(runs.pivot_table("auroc", "dataset", "method")).rename(names)
    told = [directions.columns[row] for row in directions.reindex(figures.index, fill_value=False).to_numpy()]
    figures["reversed in the paper"] = ["; ".join(which) for which in told]
    both = directions[ours["DUM, printed"].reindex(directions.index).notna()]
    apart = (both["DUM"] != both["others"]).sum()
    lost, known = (figures["DUM, default"] < figures["kNN"]).sum(), figures[["DUM, default", "kNN"]].dropna()
    return Table(
        "Table 2: AUROC in %, fitted and scored on the same rows; the paper's figures, and ours",
        figures,
        ["dum_uci.csv"],
        digits=1,
        remarks=[
            f"On {both['others'].sum()} of {len(both)} sets the paper's figures of other methods are nearer to 100 "
            f"less ours than to ours; on {apart}, DUM's is of another direction than those.",
            f"The default has a lower AUROC than kNN on {lost} of {len(known)} sets.",
        ],
    )


def dum_bags(results: Path) -> Table:
    """The printed objective with bags of several sizes, and with one variance for all features."""
    import dum_uci

    runs = read(results, "dum_uci.csv")
    runs = runs[runs["dataset"].isin(runs.loc[runs["method"].str.contains("bags of"), "dataset"])]
    shown = {f"DUM, printed, bags of {m}": f"m = {m}" for m in dum_uci.BAG_SIZES} | {
        "DUM, printed": "m = 128",
        "DUM, printed, circular": "m = 128, circular",
        "DUM": "default",
        "kNN": "kNN",
    }
    runs = runs[runs["method"].isin(shown)].replace({"method": shown})
    runs["dataset"] = runs["dataset"].map(lambda file: dum_uci.PAPER[file][0])
    by_method = runs.pivot_table("auroc", "dataset", "method", aggfunc=["mean", "std"], sort=False)
    figures, spread = (by_method[kind].reindex(columns=list(shown.values())) for kind in ("mean", "std"))
    caption = (
        "AUROC in % of the printed objective by the number m of rows in a bag, and of the default, fitted and scored "
        f"on the same rows; means of {runs['seed'].nunique()} seeds, but kNN, which has no seed"
    )
    return Table(caption, figures, ["dum_uci.csv, bags"], 1, deviations=spread)


def dum_embedded_vectors(results: Path) -> Table:
    import dum_uci

    runs = read(results, "dum_uci.csv")
    ours = runs.pivot_table("auroc", "dataset", "method").loc[list(dum_uci.PAPER_TABLE_4)]
    figures = pd.DataFrame({"paper": pd.Series(dum_uci.PAPER_TABLE_4), "printed": ours["SimCLR, printed"]})
    figures["100 - printed"] = 100 - ours["SimCLR, printed"]
    figures["default"] = ours["SimCLR"]
    figures["default, without SimCLR"], figures["kNN, without SimCLR"] = ours["DUM"], ours["kNN"]
    figures = figures.rename(lambda file: dum_uci.PAPER[file][0])
    caption = "Table 4: AUROC in % of DUM on what SimCLR learns of the rows, fitted and scored on the same ones"
    figures.loc["mean"] = figures.mean()
    return Table(caption, figures, ["dum_uci.csv"], 1)


def dum_paper_images(results: Path) -> Table:
    columns = ["DUM", "DUM (Circ)", "rotation prediction", "best with class labels"]
    figures = pd.DataFrame.from_dict(_DUM_TABLE_3, "index", columns=columns)
    return Table("The paper's Table 3: AUROC in %, by what was trained on and what was told from it", figures, digits=1)


def _embedded(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Runs by data set, number of images, encoder and seeds' means; those on pixels, without one, with each."""
    runs = runs.assign(encoder=runs["encoder"].fillna(""))
    parts = []
    for (dataset, n_train, n_test), own in runs.groupby(["dataset", "n_train", "n_test"], sort=False):
        encoders = [name for name in own["encoder"].unique() if name] or [""]
        for encoder in encoders:
            about = f"{dataset}, {n_train:,} training images, {n_test:,} held out"
            about += f", encoder {encoder}" if encoder else ""
            parts.append((about, own[own["encoder"].isin([encoder, ""])]))
    return parts


def dum_images(results: Path) -> list[Table]:
    runs = read(results, "dum_images.csv")
    tables = []
    for about, own in _embedded(runs[runs["protocol"] == "ood"]):
        own = own.assign(row=own["output"] + ": " + own["detector"])
        figures = own.pivot_table("auroc", "row", "against", sort=False)
        probe = own.groupby("row")["probe_accuracy"].mean()
        figures["mean"] = figures.mean(axis=1)
        own = figures.loc[figures.index.str.contains("DUM"), "mean"]
        remark = f"The highest mean has {figures['mean'].idxmax()}, {figures['mean'].max():.1f}"
        remark += f"; of DUM's, {own.idxmax()}, {own.max():.1f}." if len(own) else "."
        figures["linear probe"] = probe.reindex(figures.index)
        caption = f"AUROC in % against sets never seen: {about}"
        outside = ["linear probe"]
        tables.append(Table(caption, figures, ["dum_images.csv"], 1, "in columns", outside, remarks=[remark]))
    return tables


def dum_features(results: Path) -> Table:
    figures = means_by_set(results, "dum_features.csv", "novelty")
    figures = figures[["DUM", "DUM, circular", "kNN", "LOF", "IsolationForest"]]
    n_behind = (figures["DUM"] < figures["kNN"]).sum()
    figures.loc["mean"] = figures.mean()
    caption = "AUROC on features of frozen networks, trained on half of the inliers"
    remark = f"DUM is behind kNN on {n_behind} of {len(figures) - 1} sets."
    return Table(caption, figures, ["dum_features.csv"], 3, "in rows", remarks=[remark])


def dum_corruptions(results: Path) -> list[Table]:
    import dum_images

    paper = dum_images.paper_by_name(dum_images.PAPER_TABLE_1, none=50.2)
    runs = read(results, "dum_images.csv")
    runs = runs[runs["protocol"] == "corruptions"]
    tables = []
    for about, own in _embedded(runs):
        for output, of_output in own.groupby("output", sort=False):
            figures = of_output.pivot_table("auroc", "against", "detector", sort=False)
            figures.insert(0, "paper, CIFAR-10-C", pd.Series(paper))
            clean = figures.index == "none"
            corrupted = figures[~clean]
            figures = pd.concat([figures[clean], corrupted, corrupted.mean().rename("mean").to_frame().T])
            severities = sorted(of_output.loc[of_output["against"] != "none", "severity"].astype(int).unique())
            caption = (
                f"AUROC in % of clean against corrupted, on {output}; means over severities "
                f"{', '.join(map(str, severities))}: {about}"
            )
            probe = of_output["probe_accuracy"].mean()
            remarks = [] if pd.isna(probe) else [f"A linear probe of {output} has {probe:.1f} % of the classes right."]
            outside = ["paper, CIFAR-10-C", "none"]
            tables.append(Table(caption, figures, ["dum_images.csv"], 1, "in rows", outside, remarks=remarks))
    return tables


def dum_pvalues(results: Path, detector: str) -> Table:
    """The p-values of Table 1, as decimal logarithms, which claims can compare."""
    import dum_images

    runs = read(results, "dum_images.csv")
    runs = runs[(runs["protocol"] == "corruptions") & (runs["detector"] == detector)]
    runs = runs.assign(detector=runs["dataset"] + ", " + runs["encoder"].str.split().str[0] + " " + runs["output"])
    figures = dum_images.largest_pvalues(runs)
    paper = pd.Series(dum_images.paper_by_name(dum_images.PAPER_PVALUES, none=0.53))
    figures.insert(0, "paper, CIFAR-10-C", paper)
    n_below = (figures[figures.index != "none"] < 0.05).sum()
    # Some p-values are 0, because no float is as small; and adding 0 turns -0.0 into 0.0.
    figures = np.log10(figures.clip(lower=1e-300)).round(1) + 0
    figures.loc["p < .05, of all"] = n_below
    severities = sorted(runs.loc[runs["against"] != "none", "severity"].astype(int).unique())
    caption = (
        f"{detector}: decimal logarithm of the largest p-value over severities {', '.join(map(str, severities))}, "
        "and of the median over halvings of clean images; -1.3 is p = .05, -300 also stands for less. "
        "The last row counts corruptions"
    )
    return Table(caption, figures, ["dum_images.csv"], 1)


# --------------------------------------------------------------------------------------------------------------------
# Reject classes

_SETS = {"fashion_mnist": "Fashion-MNIST", "kmnist": "KMNIST", "notmnist": "notMNIST", "mnist": "MNIST"}
_SETS |= {"cifar100_other_classes": "CIFAR-100, other classes", "mixed": "mixed"}
_SETS |= {"letters": "letters", "cifar10": "CIFAR-10", "tinyimagenet": "Tiny ImageNet"}
_TRAINED_ON = {"mnist": "MNIST", "cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST", "digits": "digits"}
# What is left of 100 % by the paper's test errors.
_REJECT_ACCURACY = {"mnist": 98.67, "cifar10": 95.28}


def reject(results: Path, dataset: str, size: str, metric: str) -> Table:
    import reject_classes

    runs = read(results, "reject_classes.csv")
    runs = runs[(runs["dataset"] == dataset) & (runs["size"] == size) & ~runs["method"].str.startswith("k = ")]
    runs = reject_classes.with_rows(runs)
    figures = runs.pivot_table(metric, "row", "test_set", sort=False).rename(columns=_SETS)
    if metric == "auroc":
        figures["accuracy"] = runs.groupby("row")["accuracy"].mean()
    place = reject_classes.METRICS.index(metric)
    outside = []
    for (of, test_set), cells in reject_classes.PAPER.items():
        if (of == dataset and size == "full") or of == dataset == "cifar10":
            for method, values in zip(reject_classes.METHODS, cells, strict=True):
                row = f"paper: {method}"
                figures.loc[row, _SETS[test_set]] = float(values[place])
                outside.append(row)
    if metric == "auroc" and outside:
        figures.loc["paper: reject classes", "accuracy"] = _REJECT_ACCURACY[dataset]
    outside = list(dict.fromkeys(outside))
    name = {"auroc": "AUROC", "fpr95": "FPR at 95 % TPR", "aupr": "AUPR"}[metric]
    caption = f"{_TRAINED_ON[dataset]}, size {size}: {name} in % against sets never seen"
    part = "cifar10" if dataset == "cifar10" else f"size {size}"
    lower = list(figures) if metric == "fpr95" else []
    return Table(caption, figures, [f"reject_classes.csv, {part}"], 2, "in columns", outside, lower)


def reject_short(results: Path, deviations: bool) -> Table:
    """All that a user gets by default, on an equal mix of the sets never seen; means over seeds, or deviations."""
    import reject_classes

    runs = reject_classes.with_rows(read(results, "reject_classes.csv"))
    usual = runs["dataset"].isin(["digits", "fashion_mnist", "cifar10"])
    runs = runs[usual & (runs["size"] == "short") & (runs["test_set"] == "mixed")]
    columns = reject_classes.COLUMNS
    runs = runs.assign(row=runs["dataset"].map(_TRAINED_ON) + ": " + runs["row"])
    by_row = runs.groupby("row", sort=False)[list(columns)]
    figures, spread = by_row.mean().rename(columns=columns), by_row.std().rename(columns=columns)
    if deviations:
        caption = "Standard deviations of the same over the seeds"
        return Table(caption, spread.dropna(), ["reject_classes.csv, short"], 1)
    figures["seeds"] = by_row.size().astype(str)
    caption = "Size short, means over the seeds in %: accuracy; AUROC, AUPR and false positives at 95 % TPR of "
    caption += "unseen outliers; at the threshold of 95 % TPR, inliers accepted, errors among these, and all errors"
    return Table(caption, figures, ["reject_classes.csv, short"], 1, deviations=spread)


def reject_corpora(results: Path) -> Table:
    """AUROC on the sets that are unseen with either corpus, means over seeds."""
    import reject_classes

    runs = reject_classes.with_rows(read(results, "reject_classes.csv"))
    runs = runs[(runs["size"] == "short") & runs["test_set"].isin(["mnist", "notmnist"])]
    corpora = {"fashion_mnist": "letters", "fashion_mnist, corpus kmnist": "KMNIST"}
    runs = runs.assign(corpus=runs["dataset"].map(corpora)).dropna(subset="corpus")
    # The classifier alone learns from no corpus, and stands here once.
    trained = runs["row"].isin(["outlier exposure", "reject classes"])
    alone = runs["row"].eq("maximum softmax") & runs["corpus"].eq("letters")
    runs = runs[trained | alone]
    runs = runs.assign(row=runs["row"].where(alone, runs["row"] + ", " + runs["corpus"]))
    by_row = runs.groupby(["row", "test_set"], sort=False)["auroc"]
    accuracy = runs[runs["test_set"] == "mnist"].groupby("row")["accuracy"]
    figures, spread = by_row.mean().unstack(), by_row.std().unstack()
    figures["accuracy"], spread["accuracy"] = accuracy.mean(), accuracy.std()
    figures, spread = figures.rename(columns=_SETS), spread.rename(columns=_SETS)
    figures["seeds"] = accuracy.size().astype(str)
    caption = "Fashion-MNIST, size short, by corpus: AUROC in % on the sets unseen with either, means over the seeds"
    return Table(caption, figures, ["reject_classes.csv, short"], 1, deviations=spread)


def reject_one_class(results: Path) -> Table:
    import reject_one_class

    runs = read(results, "reject_one_class.csv")
    figures = runs.pivot_table("auroc", "target", "method", sort=False)
    spread = runs.pivot_table("auroc", "target", "method", "std", sort=False)
    means = runs.pivot_table("auroc", "seed", "method", sort=False)
    figures.loc["mean"], spread.loc["mean"] = means.mean(), means.std()
    figures.loc["paper: mean of 10"] = pd.Series(reject_one_class.PAPER)
    caption = f"CIFAR-10, one class against the other nine: AUROC in %, means over {len(means)} seeds"
    outside = ["paper: mean of 10"]
    return Table(caption, figures, ["reject_one_class.csv"], 1, "in rows", outside, deviations=spread)


def few_images(results: Path) -> Table:
    """Epochs of reject classes on a few images, means over seeds."""
    runs = read(results, "few_images.csv")
    runs = runs[runs["detector"] == "RejectClassDetector"].replace({"epochs": {"all": "the default"}})
    runs = runs.assign(row=runs["dataset"] + ", " + runs["n_train"].astype(str) + " images: " + runs["epochs"])
    by_row = runs.groupby("row", sort=False)
    names = {"auroc": "AUROC", "accuracy": "accuracy", "seconds": "seconds to fit"}
    figures, spread = (by_row[list(names)].agg(kind).rename(columns=names) for kind in ("mean", "std"))
    figures["seeds"] = by_row.size().astype(str)
    caption = "A few grey images, in %, by the epochs of each step: means over the seeds; seconds are of one core"
    return Table(caption, figures, ["few_images.csv"], 1, lower=["seconds to fit"], deviations=spread)


def reject_ablations(results: Path, dataset: str) -> Table:
    runs = read(results, "reject_classes.csv")
    runs = runs[runs["method"].str.startswith("k = ") & (runs["dataset"] == dataset) & (runs["test_set"] == "mixed")]
    figures = runs.pivot_table("auroc", "method", "score", sort=False)
    figures["accuracy"] = runs.groupby("method")["accuracy"].mean()
    caption = f"{_TRAINED_ON[dataset]}, size small: AUROC in % on an equal mix of the sets never seen, by number of "
    caption += "reject classes, pseudo-labels (rows) and score (columns)"
    return Table(caption, figures, [f"reject_classes.csv, ablations of {dataset}"], 2)


# --------------------------------------------------------------------------------------------------------------------
# Negative sampling


def _vae_name(dataset: str, negatives: str, noise_model: str) -> str:
    return f"{dataset}; {'no negatives' if negatives == 'None' else negatives}; {noise_model}"


def _vae_files(one_seed: bool) -> list[str]:
    return ["ns_vae.csv, tables"] if one_seed else ["ns_vae.csv, tables", "ns_vae.csv, seeds"]


def vae(results: Path, colour: bool) -> Table:
    import ns_vae

    runs = read(results, "ns_vae.csv", keep_default_na=False)
    rows, spread = {}, {}
    for key, (paper, paper_nats) in (ns_vae.COLOUR if colour else ns_vae.GREY).items():
        names = list(map(str, key))
        own = runs[(runs[["dataset", "negatives", "noise_model"]] == names).all(axis=1)]
        own = own[own["test_set"] == ns_vae.AGAINST[key[0]]]
        if own.empty:
            raise ExtensionError(f"results/ns_vae.csv has no run of {', '.join(names)}.")
        rows[_vae_name(*names)] = {
            "ELBO": own["auroc_elbo"].mean(),
            "KL": own["auroc_kl"].mean(),
            "seeds": str(own["seed"].nunique()),
            "paper: ELBO / KL": paper,
            "nats, test / OOD": f"{own['test_nats'].mean():.2f} / {own['ood_nats'].mean():.2f}",
            "paper: nats": paper_nats,
        }
        spread[_vae_name(*names)] = {"ELBO": own["auroc_elbo"].std(), "KL": own["auroc_kl"].std()}
    unseen = "MNIST in colour (paper: SVHN)" if colour else "MNIST, or Fashion-MNIST after MNIST"
    caption = f"AUROC by ELBO and by KL, and nats for each pixel, against {unseen}: in distribution; negatives; noise"
    figures, deviations = (pd.DataFrame.from_dict(found, "index") for found in (rows, spread))
    return Table(caption, figures, _vae_files(colour), deviations=deviations)


def vae_unseen(results: Path, ablations: bool = False) -> Table:
    runs = read(results, "ns_vae.csv", keep_default_na=False)
    runs = runs[(runs["dataset"] == "fashion_mnist") & (runs["noise_model"] == "bernoulli")]
    taken = runs["negatives"].str.startswith("generated, ")
    runs = runs[taken | ((runs["negatives"] == "generated") & (runs["seed"] == 0))] if ablations else runs[~taken]
    runs = runs.assign(negatives=runs["negatives"].replace("None", "no negatives"))
    runs["score"] = [row[f"auroc_{row['default_score']}"] for _, row in runs.iterrows()]
    figures = runs.pivot_table("score", "negatives", "test_set", sort=False).rename(columns=_SETS)
    figures["accused"] = runs.groupby("negatives")["accused"].mean()
    caption = (
        "AUROC by KL, or by the ELBO without negatives, after Fashion-MNIST; share of new inliers that are accused"
    )
    files = ["ns_vae.csv, tables", "ns_vae.csv, negatives"] if ablations else _vae_files(False)
    return Table(caption, figures, files)


# Settings of `benchmarks/vae_scores.py` that were run on all sets.
_VAE_SETTINGS = ("no negatives", "generated .03", "generated .1", "Gaussian")
_VAE_SCORES = {"auroc_elbo": "ELBO", "auroc_deviance": "deviance", "auroc_robust": "robust", "auroc_kl": "KL"}


def _vae_cases(results: Path, large: bool = False) -> pd.DataFrame:
    """The runs on few or on all images, with a case for each set in distribution and unseen set."""
    import vae_scores as benchmark

    runs = read(results, "vae_scores.csv")
    runs = runs[(runs["n_train"] > benchmark.FEW_IMAGES) == large]
    return runs.assign(case=runs["inside"] + ": " + runs["outside"]).rename(columns=_VAE_SCORES)


def _vae_means(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean AUROC of the cases (rows) by setting and score (columns)."""
    means = runs.pivot_table(list(_VAE_SCORES.values()), "case", "setting", sort=False)
    means.columns = [f"{setting}; {score}" for score, setting in means.columns]
    return means


def _vae_summary(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Mean and worst case of each setting and score over the cases that all have, deviations, and what was counted."""
    import vae_scores as benchmark

    means = _vae_means(runs).dropna()
    runs = runs[runs["case"].isin(means.index)]
    by_case = runs.groupby(["case", "setting"])[list(_VAE_SCORES.values())]
    spread = (by_case.max() - by_case.min()).groupby("setting").max()
    parts: dict[str, list[str]] = {"chosen on": [], "kept": []}
    for case in means.index:
        parts["chosen on" if case.partition(": ")[0] in benchmark.CHOOSING else "kept"].append(case)
    rows, deviating = {}, {}
    for setting, own in runs[runs["perturb"] == 0].groupby("setting", sort=False):
        for score in _VAE_SCORES.values():
            name = f"{setting}; {score}"
            # Of the seeds that all cases have.
            by_seed = own.pivot(index="seed", columns="case", values=score).dropna()
            rows[name], deviating[name] = {}, {}
            for part, cases in parts.items():
                figures = means.loc[cases, name]
                rows[name] |= {f"{part}: mean": figures.mean(), f"{part}: worst": figures.min()}
                deviating[name][f"{part}: mean"] = by_seed[cases].mean(axis=1).std()
            rows[name]["largest spread"] = spread.at[setting, score]
    inside = runs["inside"].unique()
    names = ", ".join(name for name in benchmark.CHOOSING if name in inside)
    about = (
        f"AUROC over {len(parts['chosen on'])} cases that defaults were chosen on (in distribution: {names}) and "
        f"{len(parts['kept'])} that were kept, {_n_seeds(runs, ['case', 'setting'])}"
    )
    return pd.DataFrame.from_dict(rows, "index"), pd.DataFrame.from_dict(deviating, "index"), about


def vae_scores(results: Path) -> Table:
    runs = _vae_cases(results)
    figures, spread, about = _vae_summary(runs[runs["setting"].isin(_VAE_SETTINGS)])
    caption = f"{about}; largest range over seeds and a change of the input by 1e-6"
    robust = [
        f"{name.partition(';')[0]} {' and '.join(f'{value:.3f}' for value in values)}"
        for name, values in spread.dropna().iterrows()
        if str(name).endswith("; robust")
    ]
    remark = f"Deviations over the seeds of the two means of the score robust: {', '.join(robust)}."
    return Table(caption, figures, ["vae_scores.csv"], lower=["largest spread"], remarks=[remark], deviations=spread)


def vae_scores_large(results: Path) -> Table:
    runs = _vae_cases(results, large=True)
    shown = {"no negatives; robust": "no negatives, robust", "generated .1; robust": "generated .1, robust"}
    shown["Gaussian; ELBO"] = "Gaussian, ELBO"
    many = _vae_means(runs)[list(shown)].rename(columns=shown).dropna()
    few = _vae_means(_vae_cases(results))[list(shown)].rename(columns=shown).loc[many.index]
    figures = pd.concat([few.add_prefix("few: "), many.add_prefix("many: ")], axis=1)
    runs = runs[runs["case"].isin(many.index)]
    n_seeds = _n_seeds(runs, ["case", "setting"])
    caption = (
        f"AUROC with up to 2,500 images and 800 batches (few), and with up to {runs['n_train'].max():,} and 2,000 "
        f"(many, {n_seeds}): in distribution, unseen"
    )
    return Table(caption, figures, ["vae_scores.csv"])


def vae_score_cases(results: Path) -> Table:
    runs = _vae_cases(results)
    columns = ["no negatives; ELBO", "no negatives; deviance", "no negatives; robust", "Gaussian; ELBO"]
    columns += [f"generated {weight}; robust" for weight in (".01", ".03", ".1", ".3")] + ["generated .3; KL"]
    figures = _vae_means(runs[runs["setting"] != "auxiliary"])[columns]
    # In the name of a cell a semicolon comes before the column.
    figures.columns = figures.columns.str.replace(";", ",")
    caption = "The same, case by case: in distribution, unseen"
    return Table(caption, figures, ["vae_scores.csv"], best="in rows")


def vae_score_corpus(results: Path) -> Table:
    runs = _vae_cases(results)
    runs = runs[runs["setting"] == "auxiliary"]
    figures = _vae_means(runs)
    figures.columns = figures.columns.str.removeprefix("auxiliary; ")
    spread = runs.groupby("case", sort=False)[list(_VAE_SCORES.values())].std()
    n_seeds = _n_seeds(runs, ["case"])
    caption = f"AUROC with a corpus of letters, or half of CIFAR-100, {n_seeds}: in distribution, unseen"
    return Table(caption, figures, ["vae_scores.csv"], best="in rows", deviations=spread)


def vae_likelihoods(results: Path) -> list[Table]:
    runs = read(results, "vae_likelihoods.csv").rename(columns=lambda name: name.removeprefix("auroc_"))
    scores = list(runs)[list(runs).index("seconds") + 1 :]
    runs = runs.assign(case=runs["inside"] + ": " + runs["outside"])
    tables = []
    for name, own in runs.groupby(~runs["inside"].str.startswith("digits")):
        means = own.groupby(["setting", "case"], sort=False)[scores].mean()
        # Of cases that were run in all settings.
        counts = means.groupby("case").size()
        means = means[means.index.isin(counts.index[counts == own["setting"].nunique()], level="case")]
        figures = means.groupby("setting", sort=False).mean()
        cases = means.index.get_level_values("case").unique()
        own = own[own["case"].isin(cases)]
        spread = own.groupby(["setting", "seed"], sort=False)[scores].mean().groupby("setting", sort=False).std()
        caption = (
            f"AUROC of scores of a likelihood without negatives, means over {len(cases)} cases of "
            f"{'other images' if name else 'small digits'}, {_n_seeds(own, ['setting', 'case'])}, by what was trained"
        )
        remarks = [f"Cases: {', '.join(cases)}."]
        figures.index += "; other images" if name else "; digits"
        spread.index += "; other images" if name else "; digits"
        tables.append(
            Table(caption, figures, ["vae_likelihoods.csv"], best="in rows", remarks=remarks, deviations=spread)
        )
    return tables


# --------------------------------------------------------------------------------------------------------------------
# Rotation

_CLASSIFIERS = {
    "classes": "classes alone",
    "classes, twice the epochs": "as many steps",
    "classes and rotations": "with rotations",
}


def _held_out(results: Path, dataset: str) -> pd.DataFrame:
    runs = read(results, "holdout_class.csv")
    return runs[(runs["dataset"] == dataset) & (runs["size"] == "small")]


def posthoc_scores(results: Path) -> Table:
    runs = read(results, "posthoc_scores.csv")
    # The sets of a data set stand together, in the order of the runs.
    names = runs["dataset"] + ": " + runs["against"]
    by_seed = runs.assign(name=names).groupby(["score", "name"], sort=False)["auroc"]
    figures = by_seed.mean().unstack("name")[list(dict.fromkeys(names))]
    deviation = "largest deviation"
    spread = by_seed.std().unstack("name")
    figures[deviation] = spread.max(axis=1)
    caption = "AUROC in % of classifiers of small images, means over three seeds, and the largest standard deviation"
    accuracy = runs.groupby("dataset", sort=False)["accuracy"].mean()
    remark = "Accuracy is " + ", ".join(f"{value:.0f} % on {name}" for name, value in accuracy.items()) + "."
    files, outside = ["posthoc_scores.csv"], [deviation]
    return Table(caption, figures, files, 1, "in columns", outside, remarks=[remark], deviations=spread)


def rotation_scores(results: Path) -> Table:
    runs = _held_out(results, "fashion-mnist")
    runs = runs[runs["classifier"].isin(_CLASSIFIERS)]
    figures = runs.pivot_table("ap", "score", "classifier", sort=False)
    figures.loc["accuracy"] = runs.groupby("classifier")["accuracy"].mean()
    caption = "Fashion-MNIST: average precision in % of the class held out, mean over the ten classes"
    figures = figures.rename(columns=_CLASSIFIERS)[list(_CLASSIFIERS.values())]
    return Table(caption, figures, ["holdout_class.csv, fashion-mnist"], 1, "in rows")


def rotation_classes(results: Path, dataset: str, scores: Sequence[str]) -> Table:
    import holdout_class

    runs = _held_out(results, dataset)
    runs = runs[runs["classifier"].isin(_CLASSIFIERS)]
    figures = pd.DataFrame(index=[c for c in holdout_class.CLASSES[dataset] if c in set(runs["class"])])
    for classifier, name in _CLASSIFIERS.items():
        own = runs[runs["classifier"] == classifier]
        by_score = own.pivot_table("ap", "class", "score")
        for score in scores:
            if score in by_score:
                figures[f"{name}, {score}"] = by_score[score]
        figures[f"{name}, accuracy"] = own.groupby("class")["accuracy"].mean()
    figures.loc["mean"] = figures.mean()
    caption = f"{dataset}: average precision in % of each class held out (chance: 10), accuracy on the others"
    return Table(caption, figures, [f"holdout_class.csv, {dataset}"], 1)


def rotation_paper(results: Path) -> Table:
    import holdout_class

    columns = ["MSP", "ODIN", "accuracy"]
    columns += [f"{name}, with rotations" for name in columns]
    figures = {name: [*alone, *rotated] for name, (alone, rotated) in holdout_class.PAPER.items()}
    caption = "The paper's Table 3: CIFAR-10, a WRN-28-10 and 200 epochs; average precision and accuracy in %"
    return Table(caption, pd.DataFrame.from_dict(figures, "index", columns=columns), digits=2)


# --------------------------------------------------------------------------------------------------------------------
# Residual adapters


_BACKBONES = ("shipped", "given")
_ADAPTERS_FILE = {
    "shipped": "adra_one_vs_rest.csv, backbone shipped",
    "given": "adra_one_vs_rest.csv, backbone given",
    "held out": "adra_one_vs_rest.csv, held-out training images",
}


def _adapters_runs(results: Path, backbone: str, held_out: bool = False, protocol: str = "one-vs-rest") -> pd.DataFrame:
    runs = read(results, "adra_one_vs_rest.csv")
    runs = runs[(runs["protocol"] == protocol) & (runs["backbone"] == backbone)]
    return runs[(runs["test_images"] == "held out") == held_out]


def adapters_classes(results: Path, backbone: str) -> Table:
    import adra_one_vs_rest

    order = ["frozen kNN", "scratch", "finetune", "L2-SP", "adapters K=1", "adapters K=2", "adapters K=4"]
    figures = _adapters_runs(results, backbone).pivot_table("auroc", "target", "method")
    figures = figures.loc[adra_one_vs_rest.CLASSES].reindex(columns=order).dropna(axis=1)
    paper = adra_one_vs_rest.PAPER["one-vs-rest", "auroc"]
    outside = [f"paper: {name}" for name in ("kNN-AD", "SAD", "ADRA K=2")]
    for name in outside:
        figures[name] = paper[name.removeprefix("paper: ")]
    figures.loc["mean"], figures.loc["worst"] = figures.mean(), figures.min()
    own = figures.loc[adra_one_vs_rest.CLASSES]
    n_ahead = (own["finetune"] > own["adapters K=2"]).sum()
    remark = f"Not rounded, finetuning is ahead of adapters, K=2, on {n_ahead} of the ten classes."
    caption = f"CIFAR-10, one class against the others, backbone {backbone!r}: AUROC in %"
    return Table(caption, figures, [_ADAPTERS_FILE[backbone]], 1, "in rows", outside, remarks=[remark])


def adapters_hold_one_out(results: Path) -> Table:
    import adra_one_vs_rest

    runs = _adapters_runs(results, "shipped", protocol="hold-one-out")
    figures = runs.pivot_table("ap", "target", "method").loc[adra_one_vs_rest.CLASSES, ["finetune", "adapters K=2"]]
    areas = runs.pivot_table("auroc", "target", "method")
    for name in list(figures):
        figures[f"AUROC, {name}"] = areas[name]
    paper = adra_one_vs_rest.PAPER["hold-one-out", "ap"]
    outside = [f"paper: {name}" for name in paper]
    for name, values in paper.items():
        figures[f"paper: {name}"] = values
    figures.loc["mean"] = figures.mean()
    caption = "CIFAR-10, one class held out and the other nine normal: average precision in % (chance: 10), and AUROC"
    return Table(caption, figures, ["adra_one_vs_rest.csv, hold-one-out"], 1, outside=outside)


def adapters_small_modes(results: Path) -> Table:
    runs = _adapters_runs(results, "shipped", protocol="small-modes")
    (pair,) = set(runs["target"])
    first, second = pair.split("-")
    figures = pd.DataFrame()
    for name, column in ((second, "auroc_b"), (first, "auroc_a")):
        for share, own in runs.groupby("share"):
            figures[f"{name}, r = {share:g}"] = own.set_index("method")[column]
    caption = f"{first}, all images, and a share r of those of {second}, normal together: AUROC in % of either"
    return Table(caption, figures, ["adra_one_vs_rest.csv, small-modes"], 1)


def adapters_loss(results: Path) -> Table:
    tested = [
        _adapters_runs(results, name).pivot_table("loss", "target", "method").mean(skipna=False).rename(name)
        for name in _BACKBONES
    ]
    order = ["finetune", "adapters K=1", "adapters K=2", "adapters K=4"]
    figures = pd.concat(tested, axis=1).reindex(order).dropna()
    caption = "Loss at the end of training, by backbone, means over the ten classes"
    return Table(caption, figures, [_ADAPTERS_FILE[name] for name in _BACKBONES], 3)


def adapters_held_out(results: Path) -> Table:
    runs = _adapters_runs(results, "given", held_out=True)
    length = runs["max_epochs"].map({"auto": "46 epochs, the default", "92": "92 epochs"})
    figures = runs[["auroc", "loss"]].set_axis(runs["method"] + ", " + length).rename(columns={"auroc": "AUROC"})
    (bird,) = set(runs["target"])
    caption = f"{bird}, backbone 'given', 700 images: AUROC in % on held-out training images, and loss at the end"
    return Table(caption, figures, [_ADAPTERS_FILE["held out"]], 2)


def adapters_cost(results: Path) -> Table:
    by_method = _adapters_runs(results, "shipped").groupby("method")
    # Those that were run beside the same other work.
    order = ["frozen kNN", "scratch", "finetune", "adapters K=2"]
    figures = pd.DataFrame(
        {
            "mean AUROC": by_method["auroc"].mean().map("{:.1f}".format),
            "parameters trained": by_method["n_adapter_parameters"].mean().map("{:,.0f}".format),
            "seconds to fit": by_method["fit_seconds"].mean(),
        }
    )
    caption = "What one detector of a class of CIFAR-10 takes, on one thread of a busy machine"
    return Table(caption, figures.loc[order], [_ADAPTERS_FILE["shipped"]], 0)


def adapters_disentanglement(results: Path) -> Table:
    import disentanglement

    runs = read(results, "disentanglement.csv")
    runs = runs[runs["data"] == "shapes"].assign(AUROC=runs["auroc"] / 100)
    columns = ["disentanglement", "completeness", "informativeness", "AUROC"]
    by_method = runs.groupby("method")
    figures = by_method[columns].mean().loc[list(disentanglement.ORDER)]
    figures["parameters trained"] = by_method["n_adapter_parameters"].first().map("{:,.0f}".format)
    caption = f"Drawn shapes, red triangles nominal: means over {runs['seed'].nunique()} seeds"
    spread = by_method[columns].std()
    remark = f"Largest deviations over the seeds: {', '.join(f'{name} {spread[name].max():.3f}' for name in columns)}."
    return Table(caption, figures, ["disentanglement.csv"], 3, "in columns", remarks=[remark], deviations=spread)


def adapters_ten_tasks(results: Path) -> Table:
    import disentanglement

    figures = disentanglement.ten_tasks(read(results, "disentanglement.csv"))
    names = {"shipped": "the network that comes with skood", "resnet-26-32": "ResNet-26, as skood builds it"}
    figures = figures.rename(names)
    figures.loc["paper: ResNet-26"] = disentanglement.PAPER_MILLIONS
    caption = "Millions of parameters that ten detectors have in all, K = 2"
    return Table(caption, figures, ["disentanglement.csv"], 1)


# --------------------------------------------------------------------------------------------------------------------
# Encoders, and large data


def contrastive_digits(results: Path) -> Table:
    figures = 100 * read(results, "contrastive_digits.csv").set_index("space")[["kNN", "linear"]]
    caption = "Digits of 8 x 8 pixels: share in % that simple classifiers name, by what they look at"
    return Table(caption, figures, ["contrastive_digits.csv"], 1, "in columns")


# What `benchmarks/explanations.py` tries beside ``explain``, by detector: terms of a score.
_TERMS = {
    "DUMDetector": ("log-variances", "its log-variances"),
    "NegSampleVAE": ("reconstruction", "the squared error of its reconstruction"),
}


def explanations(results: Path) -> Table:
    runs = read(results, "explanations.csv", dtype={"size": str}).fillna({"named": 0.0})
    runs["right"] = runs["named"] * runs["explained"]
    on_images = runs["size"] == "patch"

    def named(chosen: pd.Series) -> pd.Series:
        """Return the share in % of the rows that are explained in which the right feature or patch is named first."""
        sums = runs[chosen].groupby("detector")[["right", "explained"]].sum()
        return 100 * sums["right"] / sums["explained"]

    def found(chosen: pd.Series) -> pd.Series:
        sums = runs[chosen].groupby("detector")[["found", "planted"]].sum()
        return 100 * sums["found"] / sums["planted"]

    ours, shap = runs["method"] == "explain", runs["method"] == "KernelExplainer"
    seconds = runs.set_index(["detector", "set", "size", "seed"])["seconds"]
    ratios = seconds[shap.to_numpy()] / seconds[ours.to_numpy()]
    figures = pd.DataFrame(
        {
            "tables: found": found(ours & ~on_images),
            "4 deviations": named(ours & (runs["size"] == "4")),
            "8 deviations": named(ours & (runs["size"] == "8")),
            "SHAP": named(shap & ~on_images),
            "images: found": found(ours & on_images),
            "patches": named(ours & on_images),
            "SHAP, patches": named(shap & on_images),
            "SHAP, times as long": ratios.groupby("detector").median(),
        }
    ).loc[list(dict.fromkeys(runs["detector"]))]
    caption = (
        f"Planted outliers, in %: how many are found and, of these, in how many the planted feature or patch is named "
        f"first; {runs['seed'].nunique()} seeds of {', '.join(dict.fromkeys(runs['set']))}"
    )
    remarks = []
    for detector, (method, terms) in _TERMS.items():
        share = named((runs["method"] == method) & ~on_images)[detector]
        remarks.append(
            f"In tables, {terms} alone would name the right feature of {detector}'s rows first in {share:.0f} %."
        )
    return Table(caption, figures, ["explanations.csv"], 0, remarks=remarks)


# Groups of data sets of `benchmarks/thresholds.py`.
_THRESHOLD_GROUPS = ("tables", "embeddings", "features", "pixels", "images")


def thresholds(results: Path) -> Table:
    runs = read(results, "thresholds.csv")
    rates = [name for name in runs if name.startswith(("inliers, ", "outliers, "))]
    cells = 100 * runs.groupby(["detector", "group", "dataset"], sort=False)[rates].mean()
    by_group = cells["inliers, auto"].groupby(level=["detector", "group"]).mean().unstack()
    groups = [group for group in _THRESHOLD_GROUPS if group in by_group]
    by_detector = cells.groupby(level="detector")
    figures = pd.DataFrame(
        {f"auto: {group}": by_group[group] for group in groups}
        | {
            "auto: all": by_detector["inliers, auto"].mean(),
            "auto: most": by_detector["inliers, auto"].max(),
            "0.05": by_detector["inliers, 0.05"].mean(),
            "held-out rows": by_detector["inliers, held out"].mean(),
            "outliers: auto": by_detector["outliers, auto"].mean(),
            "outliers: 0.05": by_detector["outliers, 0.05"].mean(),
            "outliers: held-out rows": by_detector["outliers, held out"].mean(),
        }
    ).loc[list(DETECTORS)]
    n_sets = len(cells.droplevel("detector").index.unique())
    caption = (
        f"New rows that are called outliers, in %, by where the threshold comes from; {n_sets} data sets, "
        f"{_n_seeds(runs, ['detector', 'group', 'dataset'])}, defaults, at most 300 inliers to train on"
    )
    return Table(caption, figures, ["thresholds.csv"], 1)


def early_stopping(results: Path) -> Table:
    runs = read(results, "early_stopping.csv")
    runs["seconds"] = runs["seconds, stopped"] / runs["seconds, all epochs"]
    runs["change"] = runs["auroc, stopped"] - runs["auroc, all epochs"]
    cells = runs.groupby(["detector", "dataset"], sort=False).mean(numeric_only=True)
    means, changes = cells.groupby(level="detector").mean(), cells["change"].groupby(level="detector")
    figures = pd.DataFrame(
        {
            "sets": changes.size(),
            "time": 100 * means["seconds"],
            "AUROC": 100 * means["auroc, all epochs"],
            "AUROC, stopped": 100 * means["auroc, stopped"],
            "worst change": 100 * changes.min(),
            "best change": 100 * changes.max(),
            "gap": 100 * means["gap, all epochs"],
            "gap, stopped": 100 * means["gap, stopped"],
            "accused": 100 * means["accused, all epochs"],
            "accused, stopped": 100 * means["accused, stopped"],
        }
    ).loc[[detector for detector in DETECTORS if detector in means.index]]
    n_seeds = runs["seed"].nunique()
    caption = (
        f"Early stopping, in %: time of a fit as a share of one with all epochs, AUROC, how often a training row "
        f"scores higher than a new inlier (50 is no gap), and new inliers below the 5 % quantile of training rows; "
        f"up to {n_seeds} seeds, defaults, at most {runs['n_train'].max()} rows to train on"
    )
    return Table(caption, figures, ["early_stopping.csv"], 1)


def large_data(results: Path) -> Table:
    runs = read(results, "large_data.csv")
    sources = runs["rows"].str.split("_").str[0].map({"kdd99": "KDD Cup 1999", "random": "a mapped file"})
    figures = pd.DataFrame(
        {
            "fitted on": runs.apply(lambda run: f"{run['n_fitted']:,} x {run['n_features']}", axis=1),
            "fit, s": runs["fit_seconds"].map("{:.0f}".format),
            "scored": runs["n_scored"].map("{:,}".format),
            "score, s": runs["score_seconds"].map("{:.0f}".format),
            "GiB allocated": runs["allocated_gib"],
            "of at most": runs["memory_gib"].map("{:g}".format),
            # All rows of KDD hold more attacks than other connections, which a detector rightly takes for normal.
            "AUROC": runs["auroc"].where(runs["fitted_on"] == "inliers").map("{:.3f}".format, na_action="ignore"),
        }
    ).set_axis(runs["detector"] + ", " + sources + runs["fitted_on"].map({"all": "", "inliers": ", inliers"}))
    caption = "What many rows take: seconds, and memory that is allocated beside them"
    return Table(caption, figures, ["large_data.csv"], 2)


# --------------------------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[Path], Table | list[Table]]] = {
    "tabular": tabular,
    "tabular by set": partial(tabular_by_set, protocol="novelty"),
    "tabular by set, hidden": partial(tabular_by_set, protocol="contaminated"),
    **{f"tabular {name}": partial(tabular_of, file=file) for name, file in DETECTORS.items()},
    "dum images": dum_images,
    "dum corruptions": dum_corruptions,
    "dum p-values": partial(dum_pvalues, detector="DUM"),
    "dum p-values, printed": partial(dum_pvalues, detector="DUM, printed"),
    "dum p-values, kNN": partial(dum_pvalues, detector="kNN"),
    "dum features": dum_features,
    "dum vectors": dum_vectors,
    "dum bags": dum_bags,
    "dum embedded vectors": dum_embedded_vectors,
    "dum paper, images": dum_paper_images,
    "reject short": partial(reject_short, deviations=False),
    "reject short, deviations": partial(reject_short, deviations=True),
    "reject mnist": partial(reject, dataset="mnist", size="full", metric="auroc"),
    "reject mnist, fpr": partial(reject, dataset="mnist", size="full", metric="fpr95"),
    "reject mnist, small": partial(reject, dataset="mnist", size="small", metric="auroc"),
    "reject cifar10": partial(reject, dataset="cifar10", size="small", metric="auroc"),
    "reject corpora": reject_corpora,
    "reject one class": reject_one_class,
    "few images": few_images,
    "reject ablations": partial(reject_ablations, dataset="mnist"),
    "reject ablations, cifar10": partial(reject_ablations, dataset="cifar10"),
    "vae grey": partial(vae, colour=False),
    "vae colour": partial(vae, colour=True),
    "vae unseen": vae_unseen,
    "vae ablations": partial(vae_unseen, ablations=True),
    "vae scores": vae_scores,
    "vae scores, many images": vae_scores_large,
    "vae scores, cases": vae_score_cases,
    "vae scores, corpus": vae_score_corpus,
    "vae likelihoods": vae_likelihoods,
    "posthoc scores": posthoc_scores,
    "rotation scores": rotation_scores,
    "rotation classes": partial(rotation_classes, dataset="fashion-mnist", scores=("fdbd", "rotation")),
    "rotation cifar10": partial(rotation_classes, dataset="cifar10", scores=("msp", "fdbd", "rotation")),
    "rotation paper": rotation_paper,
    "adapters classes": partial(adapters_classes, backbone="shipped"),
    "adapters classes, given": partial(adapters_classes, backbone="given"),
    "adapters hold one out": adapters_hold_one_out,
    "adapters small modes": adapters_small_modes,
    "adapters loss": adapters_loss,
    "adapters held out": adapters_held_out,
    "adapters cost": adapters_cost,
    "adapters disentanglement": adapters_disentanglement,
    "adapters ten tasks": adapters_ten_tasks,
    "contrastive digits": contrastive_digits,
    "thresholds": thresholds,
    "early stopping": early_stopping,
    "large data": large_data,
    "explanations": explanations,
}


def made(results: Path, name: str) -> list[Table]:
    """The tables of a name, their figures rounded as they are shown."""
    if name not in TABLES:
        raise ExtensionError(f"there is no table {name!r}; there are {', '.join(TABLES)}.")
    tables = TABLES[name](results)
    tables = [tables] if isinstance(tables, Table) else tables
    if not tables:
        raise ExtensionError(f"the results have nothing for the table {name!r}.")
    return [table._replace(figures=table.figures.round(table.digits)) for table in tables]


def _located(results: Path, cell: str) -> tuple[Table, str, str]:
    """The table, row and column of a cell "NAME; ROW; COLUMN"; of several tables the first one."""
    # Names of rows may hold semicolons.
    name, *row, column = (part.strip() for part in cell.split(";"))
    table = made(results, name)[0]
    row = "; ".join(row)
    if row not in table.figures.index or column not in table.figures:
        raise ExtensionError(f"the table {name!r} has no cell {row!r}, {column!r}.")
    return table, row, column


def find(results: Path, cell: str) -> tuple[object, int]:
    """What a cell "NAME; ROW; COLUMN" holds, and with how many digits it is shown."""
    table, row, column = _located(results, cell)
    return table.figures.at[row, column], table.digits


def deviation(results: Path, cell: str) -> float:
    """The standard deviation over seeds of a cell, or NaN if it is not known."""
    table, row, column = _located(results, cell)
    spread = table.deviations
    known = spread is not None and row in spread.index and column in spread
    return float(spread.at[row, column]) if known else float("nan")


def shown(value, digits: int) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def check(results: Path, condition: str) -> None:
    """See whether figures are, as shown, each greater than the next, or level with it; a number stands for itself.

    Figures with known deviations over seeds differ if they do so by more than the larger deviation; else they are
    level.

    Raises
    ------
    ExtensionError
        If they are not, or if deviations are not known of figures that are said to be level.
    """
    first, *rest = (part.strip() for part in re.split("([>~])", condition))
    if not rest:
        raise ExtensionError(f"the results do not bear out {condition!r}: it compares nothing.")
    for relation, second in zip(rest[::2], rest[1::2], strict=True):
        _compare(results, first, relation, second)
        first = second


def _compare(results: Path, first: str, relation: str, second: str) -> None:
    """See whether two figures differ or are level."""
    pair = first, second
    values = [find(results, part)[0] if ";" in part else float(part) for part in pair]
    spread = [deviation(results, part) if ";" in part else 0.0 for part in pair]
    gap, known = values[0] - values[1], not any(map(pd.isna, spread))
    about = f"{first!r} {relation} {second!r}: {values[0]}, {values[1]}"
    if known and ";" in first and ";" in second:
        level = abs(gap) <= max(spread)
        about += f", deviations {spread[0]:.3g}, {spread[1]:.3g}"
    elif relation == "~":
        raise ExtensionError(f"deviations are not known of both figures in {about}.")
    else:
        level = False
    if relation == "~" and not level:
        raise ExtensionError(f"the results do not bear out {about}: they are not level.")
    if relation == ">" and not gap > 0:
        raise ExtensionError(f"the results do not bear out {about}.")
    if relation == ">" and level:
        raise ExtensionError(f"the results do not bear out {about}: they are level, so write ~.")


# --------------------------------------------------------------------------------------------------------------------
# Sphinx


def _bold(table: Table) -> pd.DataFrame:
    """Which cells hold the best figures."""
    figures = table.figures.drop(index=table.outside, columns=table.outside, errors="ignore")
    numbers = figures.apply(pd.to_numeric, errors="coerce")
    better = numbers.mul([-1 if column in table.lower else 1 for column in numbers])
    axis = {"in columns": 0, "in rows": 1, None: None}[table.best]
    if axis is None:
        return numbers.isna() & False
    return better.eq(better.max(axis=axis), axis=1 - axis)


def _drawn(table: Table) -> nodes.table:
    """The table as a node."""
    bold, figures = _bold(table), table.figures
    drawn = nodes.table("", nodes.title("", table.caption), classes=["figures"])
    group = nodes.tgroup(cols=1 + figures.shape[1])
    drawn += group
    group.extend(nodes.colspec(colwidth=1) for _ in range(1 + figures.shape[1]))
    head, body = nodes.thead(), nodes.tbody()
    group += [head, body]
    head += _row(["", *map(str, figures.columns)])
    for name, row in figures.iterrows():
        text = [shown(value, table.digits) for value in row]
        best = [name in bold.index and column in bold and bool(bold.at[name, column]) for column in figures]
        body += _row([str(name), *text], [False, *best])
    return drawn


def _row(texts: Sequence[str], bold: Sequence[bool] | None = None) -> nodes.row:
    row = nodes.row()
    for text, strong in zip(texts, bold or [False] * len(texts), strict=True):
        content = nodes.strong("", text) if strong else nodes.Text(text)
        row += nodes.entry("", nodes.paragraph("", "", content) if text else nodes.paragraph())
    return row


def _results(env) -> Path:
    """The folder of results; a page that asks for it is made anew when anything there, or here, changes."""
    results = Path(env.srcdir) / "results"
    for path in (Path(__file__), *results.iterdir()):
        env.note_dependency(str(path))
    return results


class Figures(SphinxDirective):
    """A table of `TABLES`, or several, and where they come from."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        results = _results(self.env)
        tables, content = made(results, self.arguments[0]), []
        for table in tables:
            content.append(_drawn(table))
            content += [nodes.paragraph("", remark) for remark in table.remarks]
        # Tables of one name are made of the same files.
        return content + ([self._origin(results, tables[0].files)] if tables[0].files else [])

    def _origin(self, results: Path, files: Sequence[str]) -> nodes.container:
        origin, lines = nodes.container(classes=["provenance"]), []
        links = nodes.paragraph("", "Made of ")
        names = list(dict.fromkeys(file.partition(",")[0] for file in files))
        for name in names:
            link = download_reference("", "", nodes.literal("", name), refdoc=self.env.docname)
            link["reftarget"] = f"/results/{name}"
            links += [nodes.Text(", ") if name != names[0] else nodes.Text(""), link]
        links += nodes.Text(":")
        for file in files:
            lines += commands(results, file)
        text = "\n".join(lines)
        origin += [links, nodes.literal_block(text, text, language="none")]
        return origin


class Claim(SphinxDirective):
    """Text that stands only while one condition a line holds; a line that ends in ">" or "~" goes on in the next."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        for condition in re.sub(r"([>~])\s*\n", r"\1 ", self.arguments[0]).splitlines():
            check(_results(self.env), condition)
        return self.parse_content_to_nodes()


class Cell(SphinxRole):
    """A figure, as a table shows it."""

    def run(self):
        text = shown(*find(_results(self.env), self.text))
        return [nodes.Text(text)], []


def setup(app):
    app.add_directive("figures", Figures)
    app.add_directive("claim", Claim)
    app.add_role("cell", Cell())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
