"""Tables of `docs/methods/reject_classes.rst`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from .base import SETS, Made, Table, read, say_seeds

_TRAINED_ON = {"mnist": "MNIST", "cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST", "digits": "digits"}
_TRAINED_ON["cifar100"] = "CIFAR-100"
# How the names of runs end that have other numbers of outliers in a batch.
_A_ROW = " a row"
# Names of rows of images in colour, of which a batch has one outlier for each row by default, by the names of the runs.
_IN_COLOUR = {
    "short": {
        "reject classes, 1 a row": "reject classes, default",
        "reject classes": "reject classes, five outliers a row",
        "reject classes, blended": "reject classes, five outliers a row, blended",
    },
    "small": {
        "reject classes, by default, 1 a row": "reject classes, default",
        "reject classes, by default": "reject classes, five outliers a row",
        "reject classes": "reject classes, as published",
    },
}
# What is left of 100 % by the paper's test errors.
_REJECT_ACCURACY = {"mnist": 98.67, "cifar10": 95.28}


def _with_rows(runs: pd.DataFrame, size: str) -> pd.DataFrame:
    """Add the names of the rows; leave out ablations, and runs with other numbers of outliers than tables compare."""
    import reject_classes

    runs = reject_classes.with_rows(runs[~runs["method"].str.startswith("k = ")])
    in_colour = runs["dataset"].isin(["cifar10", "cifar100"])
    runs = runs.assign(row=runs["row"].mask(in_colour, runs["row"].replace(_IN_COLOUR.get(size, {}))))
    return runs[~runs["row"].str.endswith(("1" + _A_ROW, "2" + _A_ROW))]


def reject(results: Path, dataset: str, size: str, metric: str) -> Table:
    import reject_classes

    runs = read(results, "reject_classes.csv")
    runs = _with_rows(runs[(runs["dataset"] == dataset) & (runs["size"] == size)], size)
    figures, spread = (
        runs.pivot_table(metric, "row", "test_set", kind, sort=False).rename(columns=SETS) for kind in ("mean", "std")
    )
    if metric == "auroc":
        # Every set of a run has its accuracy.
        accuracy = runs.groupby(["row", "seed"])["accuracy"].first().groupby("row")
        figures["accuracy"], spread["accuracy"] = accuracy.mean(), accuracy.std()
    place = reject_classes.METRICS.index(metric)
    outside = []
    for (of, test_set), cells in reject_classes.PAPER.items():
        if (of == dataset and size == "full") or of == dataset == "cifar10":
            for method, values in zip(reject_classes.METHODS, cells, strict=True):
                row = f"paper: {method}"
                figures.loc[row, SETS[test_set]] = float(values[place])
                outside.append(row)
    if metric == "auroc" and outside:
        figures.loc["paper: reject classes", "accuracy"] = _REJECT_ACCURACY[dataset]
    outside = list(dict.fromkeys(outside))
    name = {"auroc": "AUROC", "fpr95": "FPR at 95 % TPR", "aupr": "AUPR"}[metric]
    caption = f"{_TRAINED_ON[dataset]}, size {size}: {name} in % against sets never seen, {say_seeds(runs, ['row'])}"
    lower = list(figures) if metric == "fpr95" else []
    file = f"reject_classes.csv, {_part(dataset, size)}"
    return Table(caption, figures, [file], 2, "in columns", outside, lower, deviations=spread)


def _part(dataset: str, size: str) -> str:
    """Return the part of the file that holds the runs of a data set, as ``results/README.md`` calls it."""
    return "cifar10" if dataset == "cifar10" and size == "small" else f"size {size}"


def reject_short(results: Path, deviations: bool) -> Table:
    """All that a user gets by default on few images; means over seeds, or deviations."""
    return _measures(results, ["digits", "fashion_mnist", "cifar10"], "short", deviations)


def reject_cifar100(results: Path, deviations: bool) -> Table:
    """The same with a hundred classes."""
    return _measures(results, ["cifar100"], "short", deviations)


def reject_cifar10(results: Path, deviations: bool) -> Table:
    """The same on 10,000 images of CIFAR-10."""
    return _measures(results, ["cifar10"], "small", deviations)


def _measures(results: Path, datasets: list[str], size: str, deviations: bool) -> Table:
    """Accuracy and detection on an equal mix of the sets never seen; means over seeds, or deviations."""
    import reject_classes

    runs = read(results, "reject_classes.csv")
    runs = runs[runs["dataset"].isin(datasets) & (runs["size"] == size) & (runs["test_set"] == "mixed")]
    runs = _with_rows(runs, size)
    columns = reject_classes.COLUMNS
    if len(datasets) > 1:
        runs = runs.assign(row=runs["dataset"].map(_TRAINED_ON) + ": " + runs["row"])
    by_row = runs.groupby("row", sort=False)[list(columns)]
    figures, spread = by_row.mean().rename(columns=columns), by_row.std().rename(columns=columns)
    file = "reject_classes.csv, short" if size == "short" else f"reject_classes.csv, {_part(datasets[0], size)}"
    if deviations:
        return Table("Standard deviations of the same over the seeds", spread.dropna(), [file], 1)
    figures["seeds"] = by_row.size().astype(str)
    about = "" if len(datasets) > 1 else f"{_TRAINED_ON[datasets[0]]}, "
    caption = (
        f"{about}size {size}, means over the seeds in %: accuracy; AUROC, AUPR and false positives at 95 % TPR of "
    )
    caption += "unseen outliers; at the threshold of 95 % TPR, inliers accepted, errors among these, and all errors"
    caption = caption[0].upper() + caption[1:]
    return Table(caption, figures, [file], 1, deviations=spread)


def reject_ratio(results: Path) -> Table:
    """Outliers in a batch for each row: means over seeds, on an equal mix of the sets never seen."""
    import reject_classes

    runs = read(results, "reject_classes.csv")
    runs = runs[runs["test_set"] == "mixed"]
    short = ("digits", "fashion_mnist", "cifar10", "cifar100")
    cases = [(_TRAINED_ON[name], name, "short", "reject classes") for name in short]
    cases.append(("CIFAR-10, 10,000 images", "cifar10", "small", "reject classes, by default"))
    parts = []
    for about, dataset, size, method in cases:
        of_case = runs[(runs["dataset"] == dataset) & (runs["size"] == size)]
        for ratio in ("1", "2", "5"):
            own = of_case[of_case["method"] == (method if ratio == "5" else f"{method}, {ratio}{_A_ROW}")]
            parts.append(own.assign(row=f"{about}: {ratio}"))
    by_row = pd.concat(parts).groupby("row", sort=False)
    names = {name: reject_classes.COLUMNS[name] for name in ("accuracy", "auroc", "fpr95", "total_error_at_95")}
    figures, spread = (by_row[list(names)].agg(kind).rename(columns=names) for kind in ("mean", "std"))
    figures["seeds"] = by_row.size().astype(str)
    caption = (
        "Outliers in a batch for each row, in %, means over the seeds: accuracy; AUROC and false positives at 95 % "
    )
    caption += "TPR of unseen outliers; all errors at the threshold of 95 % TPR"
    lower = ["FPR95", "total error"]
    return Table(caption, figures, ["reject_classes.csv, outliers a row"], 1, None, lower=lower, deviations=spread)


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
    figures, spread = figures.rename(columns=SETS), spread.rename(columns=SETS)
    figures["seeds"] = accuracy.size().astype(str)
    caption = "Fashion-MNIST, size short, by corpus: AUROC in % on the sets unseen with either, means over the seeds"
    return Table(caption, figures, ["reject_classes.csv, short"], 1, deviations=spread)


def reject_one_class(results: Path) -> Table:
    import reject_one_class

    runs = read(results, "reject_one_class.csv")
    runs = runs[runs["method"].isin(reject_one_class.METHODS)]
    figures = runs.pivot_table("auroc", "target", "method", sort=False)
    spread = runs.pivot_table("auroc", "target", "method", "std", sort=False)
    means = runs.pivot_table("auroc", "seed", "method", sort=False)
    figures.loc["mean"], spread.loc["mean"] = means.mean(), means.std()
    figures.loc["paper: mean of 10"] = pd.Series(reject_one_class.PAPER)
    caption = f"CIFAR-10, one class against the other nine: AUROC in %, means over {len(means)} seeds"
    outside = ["paper: mean of 10"]
    return Table(caption, figures, ["reject_one_class.csv"], 1, "in rows", outside, deviations=spread)


def reject_one_ratio(results: Path) -> Table:
    """Outliers in a batch for each row, with one class: means over seeds."""
    runs = read(results, "reject_one_class.csv")
    names = {"reject classes": "1, as many passes", "reject classes, 3 times the epochs": "1, as much time"}
    names["reject classes, 5 a row"] = "5"
    targets = runs.loc[runs["method"] == "reject classes, 5 a row", "target"].unique()
    runs = runs[runs["method"].isin(list(names)) & runs["target"].isin(targets)]
    means = runs.pivot_table("auroc", "seed", "method", sort=False)[list(names)].rename(columns=names)
    figures, spread = (table.T.rename("mean AUROC").to_frame() for table in (means.mean(), means.std()))
    caption = f"Outliers in a batch for each row, one class of CIFAR-10 ({', '.join(targets)}): AUROC in %, means over "
    caption += f"{len(means)} seeds"
    return Table(caption, figures, ["reject_one_class.csv"], 1, deviations=spread)


def known_outliers(results: Path) -> Table:
    """Vectors and a corpus, by what is to be found: means over the data sets."""
    import known_outliers

    runs = read(results, "known_outliers.csv")
    names = {"alike": "alike", "other_side": "other side", "far": "far"}
    means = runs.groupby(["method", "seed"], sort=False)[list(names)].mean().rename(columns=names).groupby("method")
    order = [name for name in known_outliers.METHODS if name in set(runs["method"])]
    caption = (
        f"Vectors with a corpus of known outliers, in %, means over {runs['data_set'].nunique()} sets of ADBench and "
    )
    caption += (
        f"{runs['seed'].nunique()} seeds: AUROC of outliers like the corpus, and of those on the other side of the "
    )
    caption += "data; far rows that are called outliers"
    return Table(caption, means.mean().loc[order], ["known_outliers.csv"], 1, "in columns", deviations=means.std())


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
    """Number of reject classes and pseudo-labels, by score: means over seeds."""
    runs = read(results, "reject_classes.csv")
    runs = runs[(runs["dataset"] == dataset) & (runs["size"] == "short") & (runs["test_set"] == "mixed")]
    runs = runs[runs["method"].str.startswith("k = ")]
    by_score, by_method = runs.groupby(["method", "score"], sort=False)["auroc"], runs.groupby(["method", "seed"])
    accuracy = by_method["accuracy"].first().groupby("method")
    figures, spread = by_score.mean().unstack(), by_score.std().unstack()
    figures["accuracy"], spread["accuracy"] = accuracy.mean(), accuracy.std()
    figures["seeds"] = accuracy.size().astype(str)
    caption = f"{_TRAINED_ON[dataset]}, size short: AUROC in % on an equal mix of the sets never seen, by number of "
    caption += "reject classes and pseudo-labels (rows) and score (columns), and accuracy: means over the seeds"
    caption += "; five outliers in a batch for each row" if dataset == "cifar10" else ""
    return Table(caption, figures, [f"reject_classes.csv, short ablations of {dataset}"], 1, deviations=spread)


TABLES: dict[str, Made] = {
    "reject short": partial(reject_short, deviations=False),
    "reject short, deviations": partial(reject_short, deviations=True),
    "reject mnist": partial(reject, dataset="mnist", size="full", metric="auroc"),
    "reject mnist, fpr": partial(reject, dataset="mnist", size="full", metric="fpr95"),
    "reject mnist, small": partial(reject, dataset="mnist", size="small", metric="auroc"),
    "reject cifar100": partial(reject_cifar100, deviations=False),
    "reject cifar100, deviations": partial(reject_cifar100, deviations=True),
    "reject cifar10": partial(reject_cifar10, deviations=False),
    "reject cifar10, deviations": partial(reject_cifar10, deviations=True),
    "reject cifar10, sets": partial(reject, dataset="cifar10", size="small", metric="auroc"),
    "reject ratio": reject_ratio,
    "reject corpora": reject_corpora,
    "reject one class": reject_one_class,
    "reject one class, ratio": reject_one_ratio,
    "known outliers": known_outliers,
    "few images": few_images,
    "reject ablations, digits": partial(reject_ablations, dataset="digits"),
    "reject ablations, fashion": partial(reject_ablations, dataset="fashion_mnist"),
    "reject ablations, cifar10": partial(reject_ablations, dataset="cifar10"),
}
