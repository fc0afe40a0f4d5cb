"""Draw the pictures of a comparison, with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..plotting import OutlierPrecisionRecallDisplay, OutlierRocDisplay, ScoreHistogramDisplay
from . import PROTOCOL_HELP
from .store import as_file_name, read_scores, scores_path
from .summary import summarize

_MEAN_COLOUR = "tab:blue"


def draw(results: pd.DataFrame, out: Path) -> None:
    """Draw a comparison: means, and for each data set the scores and curves of the first seed.

    Parameters
    ----------
    results : DataFrame
        As `skood.compare_detectors` returns it.
    out : Path
        Directory of the scores, into which the pictures are written.
    """
    save_mean_auroc(results, out / "auroc.png")
    for dataset, rows in results.drop_duplicates(["dataset", "detector"]).groupby("dataset", sort=False):
        scores = _stored_scores(rows[rows["error"] == ""], out)
        if scores:
            name = as_file_name(str(dataset))
            _draw_histograms(str(dataset), scores, out / f"scores-{name}.png")
            _draw_curves(str(dataset), scores, out / f"curves-{name}.png")


def _stored_scores(rows: pd.DataFrame, out: Path) -> dict[str, tuple[np.ndarray, np.ndarray, float | None]]:
    """Return labels, scores and threshold of each detector whose scores of the first seed were stored."""
    scores = {}
    for row in rows.to_dict("records"):
        path = scores_path(out, row["dataset"], row["protocol"], row["detector"])
        try:
            y, score, threshold = read_scores(path)
        except FileNotFoundError:
            continue
        scores[row["detector"]] = y, score, None if np.isnan(threshold) else threshold
    return scores


def _draw_histograms(dataset: str, scores: dict, path: Path) -> None:
    """Draw histograms of the scores of the test rows, a panel for each detector."""
    from matplotlib.figure import Figure

    n_columns = min(3, len(scores))
    n_rows = -(-len(scores) // n_columns)
    # The title and the common legend need some width, even if there is one panel.
    figure = Figure(figsize=(max(7, 4 * n_columns), 0.6 + 2.4 * n_rows), layout="constrained")
    handles: dict[str, Any] = {}
    for place, (detector, (y, score, threshold)) in enumerate(scores.items(), start=1):
        ax: Any = figure.add_subplot(n_rows, n_columns, place)
        ScoreHistogramDisplay.from_predictions(y, score, threshold=threshold, name=detector, ax=ax)
        ax.set(xlabel=None, ylabel=None, yticks=[])
        handles |= {text: handle for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
        # All panels have one legend, below them.
        ax.get_legend().remove()
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))
    figure.suptitle(f"{dataset}: scores of the test rows (higher = more normal)")
    figure.savefig(path, dpi=100)


def _draw_curves(dataset: str, scores: dict, path: Path) -> None:
    """Draw ROC and precision-recall curves of all detectors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 5.5), layout="constrained")
    displays: tuple[Any, ...] = (OutlierRocDisplay, OutlierPrecisionRecallDisplay)
    for ax, display in zip(figure.subplots(1, 2), displays, strict=True):
        for place, (detector, (y, score, _)) in enumerate(scores.items(), start=1):
            display.from_predictions(y, score, name=detector, ax=ax, chance=place == len(scores))
        # The legend is beside the curves, because it would hide them.
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.suptitle(f"{dataset}: outliers positive")
    # The layout does not count the legends of panels that keep their proportions.
    figure.savefig(path, dpi=100, bbox_inches="tight")


def save_mean_auroc(results: pd.DataFrame, path: str | Path) -> None:
    """Draw the mean AUROC of each detector as bars, with a dot for each data set, in a panel for each protocol.

    A star marks a mean over fewer data sets than the other means.

    Parameters
    ----------
    results : DataFrame
        As `skood.compare_detectors` returns it.
    path : str or Path
        Image file to write.
    """
    from matplotlib.figure import Figure

    by_protocol = list(results.groupby("protocol", sort=False))
    n_bars = max(rows["detector"].nunique() for _, rows in by_protocol)
    figure = Figure(figsize=(7 * len(by_protocol), 1 + 0.5 * n_bars), layout="constrained")
    panels = figure.subplots(1, len(by_protocol), squeeze=False)[0]
    for axes, (protocol, rows) in zip(panels, by_protocol, strict=True):
        _draw_means(axes, rows)
        if len(by_protocol) > 1:
            axes.set_title(f"{protocol}: {PROTOCOL_HELP[str(protocol)]}", fontsize="medium")
    figure.savefig(path, dpi=120)


def _draw_means(axes: Any, results: pd.DataFrame) -> None:
    """Draw the means of one protocol."""
    table = summarize(results)
    by_dataset, mean = table[pd.unique(results["dataset"])], table["mean AUROC"].sort_values()
    axes.barh(mean.index, mean, color=_MEAN_COLOUR, alpha=0.5)
    for place, detector in enumerate(mean.index):
        values = by_dataset.loc[detector]
        axes.plot(values, np.full(len(values), place), "o", color="black", markersize=3)
        if np.isfinite(mean[detector]):
            star = "*" if detector in table.attrs["partial"] else ""
            axes.text(0.005, place, f"{mean[detector]:.3f}{star}", va="center")
    axes.axvline(0.5, color="grey", linestyle="--", linewidth=1)
    note = "; *: of fewer data sets" if table.attrs["partial"] else ""
    axes.set(xlabel=f"AUROC: each data set (dots), their mean (bar){note}; 0.5 is chance", xlim=(0, 1))
