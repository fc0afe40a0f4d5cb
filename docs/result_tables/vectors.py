"""Tables of the suite of vectors, which all detectors share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from sphinx.errors import ExtensionError

from .base import CLASSICAL, DETECTORS, PROTOCOLS, Made, Table, deviations, means_by_set, seeds_of


def all_by_set(results: Path, protocol: str, column: str = "auroc", seed: int | None = None) -> pd.DataFrame:
    """As `means_by_set`, of all detectors: ours each from its own file, the classical ones, which are in each, once."""
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


def tabular(results: Path) -> Table:
    return _suite(partial(all_by_set, results), list(DETECTORS.values()), seeds_of(results, DETECTORS["DUMDetector"]))


def tabular_of(results: Path, file: str) -> Table:
    return _suite(partial(means_by_set, results, file), [file], seeds_of(results, file))


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
    seeds = seeds_of(results, DETECTORS["DUMDetector"])
    spread = deviations(lambda seed: all_by_set(results, protocol, seed=seed), seeds)
    shown = figures.round(3)
    best = shown.eq(shown.max(axis=1), axis=0).sum().sort_values(ascending=False, kind="stable")
    counts = ", ".join(f"{name} on {n}" for name, n in best.items())
    rows = {"novelty": "inliers", "contaminated": "rows among which outliers hide"}[protocol]
    caption = f"AUROC of each set of ADBench, trained on {rows}"
    remark = f"Highest, ties counted for each: {counts}."
    return Table(caption, figures, list(DETECTORS.values()), 3, "in rows", remarks=[remark], deviations=spread)


TABLES: dict[str, Made] = {
    "tabular": tabular,
    "tabular by set": partial(tabular_by_set, protocol="novelty"),
    "tabular by set, hidden": partial(tabular_by_set, protocol="contaminated"),
    **{f"tabular {name}": partial(tabular_of, file=file) for name, file in DETECTORS.items()},
}
