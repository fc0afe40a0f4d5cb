"""The table of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .store import time_limit

BASELINE = "kNN"
AGAINST_BASELINE = f"beats {BASELINE}"
# Of these a detector that failed on some data sets has means over other sets than the rest.
_MEANS = ("mean AUROC", "mean AUPR", "mean FPR95", "fit s", "score s")


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Mean AUROC over the seeds for each detector and data set, and means over the data sets.

    Parameters
    ----------
    results : DataFrame
        As `skood.compare_detectors` returns it.

    Returns
    -------
    table : DataFrame
        One row for each detector; one column for each data set, then ``mean AUROC``, ``mean rank`` (by AUROC; 1 is
        best), ``mean AUPR``, ``mean FPR95``, ``beats kNN``, ``fit s`` and ``score s`` (mean seconds). NaN where a
        detector failed with any seed, or was not run; its means are over the other data sets, its ranks count it last.
        ``beats kNN`` is text, wins/ties/losses over the data sets on which both have a figure, to three digits; the
        column is there if kNN is. ``table.attrs["timed_out"]`` lists the pairs [detector, data set] that were given up
        for want of time, and ``table.attrs["partial"]`` the detectors without a figure where others have one.
    """
    detectors, names = pd.unique(results["detector"]), pd.unique(results["dataset"])
    grouped = results.groupby(["detector", "dataset"], sort=False)

    def pivot(column):
        return grouped[column].agg(lambda values: values.mean(skipna=False)).unstack().reindex(detectors)[names]

    table = pivot("auroc")
    summary = {
        "mean AUROC": table.mean(axis=1),
        "mean rank": table.rank(ascending=False, na_option="bottom").mean(axis=1),
        "mean AUPR": pivot("aupr_out").mean(axis=1),
        "mean FPR95": pivot("fpr95").mean(axis=1),
    }
    if BASELINE in detectors:
        counts = against_baseline(table, list(names))
        texts = {name: "/".join(map(str, row)) for name, row in counts.iterrows() if row.any()}
        summary[AGAINST_BASELINE] = pd.Series(texts, dtype=object).reindex(detectors)
    summary["fit s"] = pivot("fit_seconds").mean(axis=1)
    summary["score s"] = pivot("score_seconds").mean(axis=1)
    partial = table.dropna(axis=1, how="all").isna().any(axis=1)
    table = table.assign(**summary)
    table.attrs["partial"] = list(table.index[partial])
    table.columns.name = None
    errors = results["error"] if "error" in results else pd.Series("", index=results.index)
    gave_up = results[[time_limit(error) is not None for error in errors]]
    table.attrs["timed_out"] = gave_up[["detector", "dataset"]].drop_duplicates().to_numpy().tolist()
    return table


def against_baseline(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """On how many data sets each detector wins over kNN, ties with it and loses to it.

    Parameters
    ----------
    table : DataFrame
        AUROC of each detector, kNN among them, on each data set.
    names : sequence of str
        The data sets.

    Returns
    -------
    counts : DataFrame of int
        Columns ``wins``, ``ties`` (the same to three digits) and ``losses``; of data sets on which both have a figure.
        One row for each detector but kNN.
    """
    rounded = table[list(names)].round(3)
    others = rounded.drop(index=BASELINE)
    lead = others - rounded.loc[BASELINE]
    counts = {"wins": lead > 0, "ties": lead == 0, "losses": lead < 0}
    return pd.DataFrame({kind: holds.sum(axis=1) for kind, holds in counts.items()})


_LOWER_IS_BETTER = {"mean rank", "mean FPR95", "fit s", "score s"}


def format_table(table: pd.DataFrame) -> str:
    """A summary as a Markdown table, the best of each column in bold.

    A dash stands where there is no figure, t/o where the time was up, and * behind a mean over fewer data sets than
    others are of, which is not compared with them.

    Parameters
    ----------
    table : DataFrame
        As `summarize` returns it.

    Returns
    -------
    text : str
    """
    timed_out = set(map(tuple, table.attrs.get("timed_out", ())))
    partial, starred = table.index.isin(table.attrs.get("partial", ())), False
    lines: dict[Any, list[str]] = {"detector": list(map(str, table.index))}
    for column in table:
        if column == AGAINST_BASELINE:
            lines[column] = ["-" if pd.isna(text) else text for text in table[column]]
            continue
        digits = 2 if column in ("mean rank", "fit s", "score s") else 3
        values = table[column].round(digits)
        apart = pd.Series(partial & values.notna() & (column in _MEANS), values.index)
        compared = values[~apart]
        best = compared.min() if column in _LOWER_IS_BETTER else compared.max()
        starred = starred or bool(apart.any())
        lines[column] = [
            ("t/o" if (detector, column) in timed_out else "-")
            if np.isnan(value)
            else f"{value:.{digits}f}*"
            if apart[detector]
            else f"**{value:.{digits}f}**"
            if value == best
            else f"{value:.{digits}f}"
            for detector, value in dict(values).items()
        ]
    widths = {column: max(len(column), *map(len, cells)) for column, cells in lines.items()}
    header = [column.ljust(width) if column == "detector" else column.rjust(width) for column, width in widths.items()]
    rule = ["-" * width if column == "detector" else "-" * (width - 1) + ":" for column, width in widths.items()]
    body = [
        [cells[i].ljust(widths[c]) if c == "detector" else cells[i].rjust(widths[c]) for c, cells in lines.items()]
        for i in range(len(table))
    ]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *body))
    return f"{text}\n\n*: over fewer data sets than the others, and not compared with them." if starred else text
