"""Sum up a comparison in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .row import time_limit

BASELINE = "kNN"
AGAINST_BASELINE = f"beats {BASELINE}"
# Means over fewer data sets for a detector that failed on some of them.
_MEANS = ("mean AUROC", "mean rank", "mean AUPR", "mean FPR95", "false alarms", "caught", "fit s", "score s")
# Column of the results -> column of the summary. No best value is marked in either: a detector that calls no row an
# outlier has no false alarms, and one that calls every row an outlier catches all outliers.
_DECISIONS = {"false_alarms": "false alarms", "caught": "caught"}
_LOWER_IS_BETTER = ("mean rank", "mean FPR95", "fit s", "score s")
_TWO_DIGITS = ("mean rank", "fit s", "score s")
_LEFT, MADE_FOR = "detector", "made for"
# A data set of such a name would have the same column.
COLUMNS_OF_SUMMARY = (*_MEANS, AGAINST_BASELINE, _LEFT, MADE_FOR)


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Average AUROC over the seeds for each detector and data set, and metrics over the data sets.

    Parameters
    ----------
    results : DataFrame
        As `skood.compare_detectors` returns it, or as pandas reads it from ``results.csv``; rows of one protocol.

    Returns
    -------
    table : DataFrame
        One row for each detector; one column for each data set, then ``mean AUROC``, ``mean rank`` (by AUROC; 1 is
        best), ``mean AUPR``, ``mean FPR95``, ``false alarms`` and ``caught`` (mean shares of the test inliers and of
        the test outliers beyond each detector's own threshold), ``beats kNN``, ``fit s`` and ``score s`` (mean
        seconds). A cell is NaN if the detector failed with any seed, was not run, or was interrupted before it had run
        with each seed that another detector has; it has no rank on that data set, and its means are over the other data
        sets. The columns ``false alarms`` and ``caught`` exist if ``results`` has values for them; they are NaN for a
        detector without a threshold, or with rows of an earlier version of skood. ``beats kNN`` holds wins/ties/losses
        as text, over the data sets on which both have a figure, to three digits; the column exists if kNN was compared.
        ``table.attrs["timed_out"]`` lists the pairs [detector, data set] that were stopped by the time limit, and
        ``table.attrs["partial"]`` the detectors that lack a figure which others have.

    Raises
    ------
    ValueError
        If there are rows of several protocols.
    """
    _check_protocol(results)
    by_dataset = _by_dataset(results, "auroc")
    summary = {
        "mean AUROC": by_dataset.mean(axis=1),
        # A detector has no rank on data sets on which it failed, and does not improve the ranks of the others there.
        "mean rank": by_dataset.rank(ascending=False).mean(axis=1),
        "mean AUPR": _by_dataset(results, "aupr_out").mean(axis=1),
        "mean FPR95": _by_dataset(results, "fpr95").mean(axis=1),
    }
    for column, title in _DECISIONS.items():
        if column in results and results[column].notna().any():
            summary[title] = _mean_of_all(_by_dataset(results, column), by_dataset)
    if BASELINE in by_dataset.index:
        summary[AGAINST_BASELINE] = _against_baseline_as_text(by_dataset)
    summary["fit s"] = _by_dataset(results, "fit_seconds").mean(axis=1)
    summary["score s"] = _by_dataset(results, "score_seconds").mean(axis=1)
    table = by_dataset.assign(**summary)
    table.attrs["partial"] = _partial(by_dataset)
    table.attrs["timed_out"] = _timed_out(results)
    return table


def _check_protocol(results: pd.DataFrame) -> None:
    """Refuse results of several protocols: data sets have the same names in all of them."""
    protocols = list(map(str, pd.unique(results["protocol"]))) if "protocol" in results else []
    if len(protocols) > 1:
        raise ValueError(
            f"results of {len(protocols)} protocols ({', '.join(protocols)}) cannot be summed up in one table: pass "
            f"those of one, results[results['protocol'] == {protocols[0]!r}]."
        )


def _by_dataset(results: pd.DataFrame, column: str) -> pd.DataFrame:
    """Average a column over the seeds: a row for each detector, a column for each data set, in their order."""
    detectors, names = pd.unique(results["detector"]), pd.unique(results["dataset"])
    grouped = results.groupby(["detector", "dataset"], sort=False)
    # If a seed failed or is missing there is no mean: the other seeds are other splits than those of the other
    # detectors' means.
    table = grouped[column].agg(lambda values: values.mean(skipna=False)).unstack().reindex(detectors)[names]
    n_seeds = grouped["seed"].nunique().unstack().reindex(detectors)[names]
    table = table.where(n_seeds.eq(results.groupby("dataset")["seed"].nunique(), axis="columns"))
    table.columns.name = None
    return table


def _mean_of_all(values: pd.DataFrame, by_dataset: pd.DataFrame) -> pd.Series:
    """Average over the data sets; NaN for a detector that lacks a value where it has an AUROC."""
    lacks = (values.isna() & by_dataset.notna()).any(axis=1)
    return values.mean(axis=1).mask(lacks)


def _partial(by_dataset: pd.DataFrame) -> list[str]:
    """Return the detectors that lack a figure on a data set on which others have one."""
    missing = by_dataset.dropna(axis=1, how="all").isna().any(axis=1)
    return list(by_dataset.index[missing])


def _timed_out(results: pd.DataFrame) -> list[list[str]]:
    """Return the pairs of detector and data set that were stopped by the time limit."""
    # In a file, and so in what pandas reads from it, no error is an empty field.
    errors = results["error"].fillna("") if "error" in results else pd.Series("", index=results.index)
    rows = results[[time_limit(error) is not None for error in errors]]
    return rows[["detector", "dataset"]].drop_duplicates().to_numpy().tolist()


def against_baseline(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Count the data sets on which each detector beats kNN, ties with it and loses to it.

    Parameters
    ----------
    table : DataFrame
        AUROC of each detector, kNN among them, on each data set.
    names : sequence of str
        The data sets.

    Returns
    -------
    counts : DataFrame of int
        Columns ``wins``, ``ties`` (the same to three digits) and ``losses``; only data sets on which both have a figure
        count. One row for each detector but kNN.
    """
    rounded = table[list(names)].round(3)
    others = rounded.drop(index=BASELINE)
    lead = others - rounded.loc[BASELINE]
    counts = {"wins": lead > 0, "ties": lead == 0, "losses": lead < 0}
    return pd.DataFrame({kind: holds.sum(axis=1) for kind, holds in counts.items()})


def _against_baseline_as_text(by_dataset: pd.DataFrame) -> pd.Series:
    """Return "wins/ties/losses" of each detector; NaN for kNN, and where it shares no data set with kNN."""
    counts = against_baseline(by_dataset, list(by_dataset.columns))
    texts = {name: "/".join(map(str, row)) for name, row in counts.iterrows() if row.any()}
    return pd.Series(texts, dtype=object).reindex(by_dataset.index)


def format_table(table: pd.DataFrame) -> str:
    """Return a summary as a Markdown table, the best of each column in bold.

    A dash means that there is no figure, and t/o that the time limit was reached. A mean over fewer data sets than the
    other means has an asterisk, and is not compared with them. No best is marked for false alarms and outliers caught,
    because either is easily improved at the cost of the other.

    Parameters
    ----------
    table : DataFrame
        As `summarize` returns it, or some of its columns.

    Returns
    -------
    text : str
    """
    columns: list[Any] = list(table.columns)
    cells = {_LEFT: list(map(str, table.index))}
    for column in columns:
        if table[column].dtype == object:
            cells[column] = ["-" if pd.isna(text) else text for text in table[column]]
        else:
            cells[column] = _formatted(table[column], _not_compared(table, column), _timed_out_in(table, column))
    text = _markdown(cells)
    if any(_not_compared(table, column) for column in columns):
        text += "\n\n*: over fewer data sets than the others, and not compared with them."
    return text


def _not_compared(table: pd.DataFrame, column: str) -> set[str]:
    """Return the detectors whose figure in this column is a mean over fewer data sets than the others'."""
    if column not in _MEANS:
        return set()
    known = table.index[table[column].notna()]
    return set(known.intersection(table.attrs.get("partial", [])))


def _timed_out_in(table: pd.DataFrame, column: str) -> set[str]:
    """Return the detectors that were stopped by the time limit on the data set of this column."""
    return {detector for detector, name in table.attrs.get("timed_out", ()) if name == column}


def _formatted(values: pd.Series, not_compared: set[str], timed_out: set[str]) -> list[str]:
    """Return the figures of one column as text."""
    digits = 2 if values.name in _TWO_DIGITS else 3
    # Rounded first, so that figures that look the same are best together.
    values = values.round(digits)
    compared = values[~values.index.isin(not_compared)]
    has_best = values.name not in _DECISIONS.values()
    best = compared.min() if values.name in _LOWER_IS_BETTER else compared.max()
    texts = []
    for detector, value in values.items():
        text = f"{value:.{digits}f}"
        if np.isnan(value):
            text = "t/o" if detector in timed_out else "-"
        elif detector in not_compared:
            text = f"{text}*"
        elif has_best and value == best:
            text = f"**{text}**"
        texts.append(text)
    return texts


def _markdown(cells: dict[str, list[str]]) -> str:
    """Return a Markdown table of these columns: names to the left, figures to the right."""
    padded = []
    for column, texts in cells.items():
        width = max(map(len, [column, *texts]))
        if column in (_LEFT, MADE_FOR):
            padded.append([column.ljust(width), "-" * width, *(text.ljust(width) for text in texts)])
        else:
            padded.append([column.rjust(width), "-" * (width - 1) + ":", *(text.rjust(width) for text in texts)])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))
