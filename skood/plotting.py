"""Pictures of results; needs matplotlib (``pip install 'skood[plot]'``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["save_mean_auroc", "save_score_histograms"]

_INLIERS, _OUTLIERS = "tab:blue", "tab:orange"


def save_mean_auroc(results: pd.DataFrame, path: str | Path) -> None:
    """Draw the mean AUROC of each detector as bars, with a dot for each data set.

    Parameters
    ----------
    results : DataFrame
        As `skood.compare_detectors` returns it.
    path : str or Path
        Image file to write.
    """
    from matplotlib.figure import Figure

    by_dataset = results.groupby(["detector", "dataset"], sort=False)["auroc"].mean().unstack()
    mean = by_dataset.mean(axis=1).sort_values()
    figure = Figure(figsize=(7, 1 + 0.5 * len(mean)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(mean.index, mean, color=_INLIERS, alpha=0.5)
    for place, detector in enumerate(mean.index):
        values = by_dataset.loc[detector]
        axes.plot(values, np.full(len(values), place), "o", color="black", markersize=3)
        if np.isfinite(mean[detector]):
            axes.text(0.005, place, f"{mean[detector]:.3f}", va="center")
    axes.axvline(0.5, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="AUROC: mean over data sets (bar) and each data set (dots); 0.5 is chance", xlim=(0, 1))
    figure.savefig(path, dpi=120)


def save_score_histograms(dataset: str, scores: Mapping[str, tuple], path: str | Path) -> None:
    """Draw, for each detector, histograms of the scores of inliers and outliers.

    Parameters
    ----------
    dataset : str
        Title.
    scores : mapping of str to (y, score)
        For each detector the labels of the test rows, -1 for outliers, and their scores.
    path : str or Path
        Image file to write.
    """
    from matplotlib.figure import Figure

    n_columns = min(3, len(scores))
    n_rows = -(-len(scores) // n_columns)
    figure = Figure(figsize=(4 * n_columns, 0.6 + 2.4 * n_rows), layout="constrained")
    for place, (detector, (y, score)) in enumerate(scores.items(), start=1):
        axes = figure.add_subplot(n_rows, n_columns, place)
        # A few rows far out would squeeze all others into one bin.
        low, high = np.quantile(score, [0.01, 1])
        bins = np.linspace(low, high if high > low else low + 1, 40)
        for rows, color, label in ((y != -1, _INLIERS, "inliers"), (y == -1, _OUTLIERS, "outliers")):
            axes.hist(np.clip(score[rows], low, high), bins, density=True, color=color, alpha=0.6, label=label)
        axes.set_title(detector, fontsize="medium")
        axes.set_yticks([])
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"{dataset}: scores of the test rows (higher = more normal)")
    figure.savefig(path, dpi=100)
