"""Tables of scores of classifiers, encoders, explanations, thresholds, early stopping and large data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from .base import DETECTORS, Made, Table, deviations, read, say_largest, say_seeds


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


# How tables call the classifiers of `benchmarks/ood_suite.py`.
_SUITE = {"plain": "classes alone", "rotations": "rotations"}


def suite(results: Path, kind: str) -> Table:
    """AUROC and FPR95 of classifiers of CIFAR-10 by all scores; means over the sets of a kind and the seeds."""
    runs = read(results, "ood_suite.csv")
    runs = runs[(runs["size"] == "small") & (runs["kind"] == kind)].replace({"classifier": _SUITE})
    names = {"auroc": "AUROC", "fpr95": "FPR95"}
    by_seed = runs.groupby(["score", "classifier", "seed"], sort=False)[list(names)].mean()
    parts = []
    for part in (by_seed.groupby(["score", "classifier"], sort=False).agg(how) for how in ("mean", "std")):
        wide = part.unstack("classifier")
        parts.append(wide.set_axis([f"{name}, {names[figure]}" for figure, name in wide.columns], axis=1))
    lower = [column for column in parts[0] if column.endswith("FPR95")]
    caption = f"CIFAR-10, {kind} sets ({', '.join(runs['against'].unique())}): AUROC and FPR at 95 % TPR in %, means "
    caption += f"over sets, {say_seeds(runs, ['classifier'])}"
    accuracy = runs.groupby("classifier", sort=False)["accuracy"].mean()
    remark = "Accuracy is " + ", ".join(f"{value:.1f} % ({name})" for name, value in accuracy.items()) + "."
    return Table(
        caption, parts[0], ["ood_suite.csv"], 1, "in columns", lower=lower, remarks=[remark], deviations=parts[1]
    )


def contrastive_digits(results: Path) -> Table:
    runs = read(results, "contrastive_digits.csv")
    by_space = 100 * runs.groupby("space", sort=False)[["kNN", "linear"]].agg(["mean", "std"])
    figures, spread = (by_space.xs(kind, axis=1, level=1) for kind in ("mean", "std"))
    caption = "Digits of 8 x 8 pixels: share in % that simple classifiers name, by what they look at, "
    caption += say_seeds(runs, ["space"])
    remarks = [say_largest(spread)]
    return Table(caption, figures, ["contrastive_digits.csv"], 1, "in columns", remarks=remarks, deviations=spread)


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
    figures = _false_alarms(runs)
    spread = deviations(lambda seed: _false_alarms(runs[runs["seed"] == seed]), sorted(runs["seed"].unique()))
    n_sets = len(runs[["group", "dataset"]].drop_duplicates())
    caption = (
        f"New rows that are called outliers, in %, by where the threshold comes from; {n_sets} data sets, "
        f"{say_seeds(runs, ['detector', 'group', 'dataset'])}, defaults, at most 300 inliers to train on"
    )
    single = 100 * runs["inliers, auto"]
    remark = (
        f'By "auto", {(single > 10).sum()} of {single.count()} single fits call more than 10 % of new inliers '
        f"outliers, one of them {single.max():.0f} %."
    )
    return Table(caption, figures, ["thresholds.csv"], 1, remarks=[remark], deviations=spread)


def _false_alarms(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows that are called outliers, in %, by detector (rows), group of data sets and threshold (columns)."""
    rates = [name for name in runs if name.startswith(("inliers, ", "outliers, "))]
    cells = 100 * runs.groupby(["detector", "group", "dataset"], sort=False)[rates].mean()
    by_group = cells["inliers, auto"].groupby(level=["detector", "group"]).mean().unstack()
    groups = [group for group in _THRESHOLD_GROUPS if group in by_group]
    by_detector = cells.groupby(level="detector")
    return pd.DataFrame(
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


def early_stopping(results: Path) -> Table:
    runs = read(results, "early_stopping.csv")
    runs["seconds"] = runs["seconds, stopped"] / runs["seconds, all epochs"]
    runs["change"] = runs["auroc, stopped"] - runs["auroc, all epochs"]
    # Of the data sets that have all seeds.
    n_seeds = runs.groupby(["detector", "dataset"])["seed"].transform("nunique")
    runs = runs[n_seeds == n_seeds.max()]
    figures = _early_stopping(runs)
    spread = deviations(lambda seed: _early_stopping(runs[runs["seed"] == seed]), sorted(runs["seed"].unique()))
    caption = (
        f"Early stopping, in %: time of a fit as a share of one with all epochs, AUROC, how often a training row "
        f"scores higher than a new inlier (50 is no gap), and new inliers below the 5 % quantile of training rows; "
        f"{say_seeds(runs, ['detector', 'dataset'])}, defaults, at most {runs['n_train'].max()} rows to train on"
    )
    return Table(caption, figures, ["early_stopping.csv"], 1, deviations=spread)


def _early_stopping(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over the data sets, by detector, in percent."""
    cells = runs.groupby(["detector", "dataset"], sort=False).mean(numeric_only=True)
    means, changes = cells.groupby(level="detector").mean(), cells["change"].groupby(level="detector")
    return pd.DataFrame(
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


TABLES: dict[str, Made] = {
    "posthoc scores": posthoc_scores,
    "suite near": partial(suite, kind="near"),
    "suite far": partial(suite, kind="far"),
    "contrastive digits": contrastive_digits,
    "thresholds": thresholds,
    "early stopping": early_stopping,
    "large data": large_data,
    "explanations": explanations,
}
