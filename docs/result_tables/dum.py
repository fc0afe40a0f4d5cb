"""Tables of `docs/methods/dum.rst`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from .base import Made, Table, means_by_set, read, say_largest, say_seeds

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
    by_set = runs.groupby(["dataset", "method"], sort=False)["auroc"]
    ours, spread = (by_set.agg(kind).unstack().rename(names).reindex(_DUM_TABLE_2) for kind in ("mean", "std"))
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
    spread = spread.rename(columns={"DUM": "DUM, default"})
    spread["100 - printed"] = spread["DUM, printed"]
    shown = ("DUM, printed", "DUM, default", "IsolationForest")
    wavering = ", ".join(f"{name} {spread[name].max():.1f} ({spread[name].idxmax()})" for name in shown)
    return Table(
        "Table 2: AUROC in %, fitted and scored on the same rows; the paper's figures, and ours, means of "
        f"{runs['seed'].nunique()} seeds",
        figures,
        ["dum_uci.csv"],
        digits=1,
        deviations=spread[[name for name in figures if name in spread]],
        remarks=[
            f"On {both['others'].sum()} of {len(both)} sets the paper's figures of other methods are nearer to 100 "
            f"less ours than to ours; on {apart}, DUM's is of another direction than those.",
            f"The default has a lower AUROC than kNN on {lost} of {len(known)} sets.",
            f"Largest deviations over the seeds: {wavering}.",
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
    names = {"SimCLR, printed": "printed", "SimCLR": "default", "DUM": "default, without SimCLR"}
    names["kNN"] = "kNN, without SimCLR"
    runs = runs[runs["method"].isin(list(names)) & runs["dataset"].isin(list(dum_uci.PAPER_TABLE_4))]
    runs = pd.concat([runs, runs.assign(dataset="mean")]).replace({"method": names})
    by_seed = runs.groupby(["dataset", "method", "seed"], sort=False)["auroc"].mean().groupby(["dataset", "method"])
    order = [*dum_uci.PAPER_TABLE_4, "mean"]
    figures, spread = (by_seed.agg(kind).unstack().loc[order, list(names.values())] for kind in ("mean", "std"))
    paper = pd.Series(dum_uci.PAPER_TABLE_4)
    figures.insert(0, "paper", pd.concat([paper, pd.Series({"mean": paper.mean()})]))
    figures.insert(2, "100 - printed", 100 - figures["printed"])
    spread["100 - printed"] = spread["printed"]
    figures, spread = (
        table.rename(lambda file: dum_uci.PAPER[file][0] if file in dum_uci.PAPER else file)
        for table in (figures, spread)
    )
    caption = "Table 4: AUROC in % of DUM on what SimCLR learns of the rows, fitted and scored on the same ones; means "
    caption += f"of {runs['seed'].nunique()} seeds"
    return Table(caption, figures, ["dum_uci.csv"], 1, deviations=spread)


def dum_paper_images(results: Path) -> Table:
    columns = ["DUM", "DUM (Circ)", "rotation prediction", "best with class labels"]
    figures = pd.DataFrame.from_dict(_DUM_TABLE_3, "index", columns=columns)
    return Table("The paper's Table 3: AUROC in %, by what was trained on and what was told from it", figures, digits=1)


def _embedded(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Runs by data set, number of images and encoder; those on pixels, without one, with each."""
    runs = runs.assign(encoder=runs["encoder"].fillna(""))
    parts = []
    for (dataset, n_train, n_test), own in runs.groupby(["dataset", "n_train", "n_test"], sort=False):
        encoders = [name for name in own["encoder"].unique() if name] or [""]
        for encoder in encoders:
            about = f"{dataset}, {n_train:,} training images, {n_test:,} held out"
            about += f", encoder {encoder}" if encoder else ""
            parts.append((about, own[own["encoder"].isin([encoder, ""])]))
    return parts


def dum_images(results: Path, encoder: str | None = None) -> list[Table]:
    """Sets never seen: of all images but CIFAR-10's, or, with an encoder, of these."""
    runs = read(results, "dum_images.csv")
    runs = runs[runs["protocol"] == "ood"]
    of_cifar10 = runs["dataset"] == "cifar10"
    runs = runs[of_cifar10 & runs["encoder"].isin([encoder, np.nan])] if encoder else runs[~of_cifar10]
    part = {None: "", "simclr": ", cifar10"}.get(encoder, f", encoder {encoder}")
    tables = []
    for about, own in _embedded(runs):
        own = own.assign(row=own["output"] + ": " + own["detector"])
        probe = own.groupby("row")["probe_accuracy"].mean()
        own = pd.concat([own, own.assign(against="mean")])
        by_seed = own.groupby(["row", "against", "seed"], sort=False)["auroc"].mean()
        by_cell = by_seed.groupby(["row", "against"], sort=False)
        figures, spread = (by_cell.agg(kind).unstack(sort=False) for kind in ("mean", "std"))
        own = figures.loc[figures.index.str.contains("DUM"), "mean"]
        remark = f"The highest mean has {figures['mean'].idxmax()}, {figures['mean'].max():.1f}"
        remark += f"; of DUM's, {own.idxmax()}, {own.max():.1f}." if len(own) else "."
        figures["linear probe"] = probe.reindex(figures.index)
        n_seeds = say_seeds(by_seed.reset_index(), ["row", "against"])
        caption = f"AUROC in % against sets never seen: {about}, {n_seeds}"
        remarks = [remark, say_largest(spread.drop(columns="mean"))]
        table = Table(caption, figures, ["dum_images.csv" + part], 1, "in columns", ["linear probe"], remarks=remarks)
        tables.append(table._replace(deviations=spread))
    return tables


def dum_features(results: Path) -> Table:
    figures = means_by_set(results, "dum_features.csv", "novelty")
    figures = figures[["DUM", "DUM, circular", "kNN", "LOF", "IsolationForest"]]
    figures.loc["mean"] = figures.mean()
    caption = "AUROC on features of frozen networks, trained on half of the inliers, a single run each"
    return Table(caption, figures, ["dum_features.csv"], 3)


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
                f"{', '.join(map(str, severities))}: {about}, {say_seeds(of_output, ['detector', 'against'])}"
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
    runs = runs.assign(detector=runs["dataset"] + ", " + runs["encoder"] + " " + runs["output"])
    figures = dum_images.largest_pvalues(runs)
    found = pd.DataFrame({seed: _n_found(dum_images.largest_pvalues(own)) for seed, own in runs.groupby("seed")})
    name = "paper, CIFAR-10-C"
    figures.insert(0, name, pd.Series(dum_images.paper_by_name(dum_images.PAPER_PVALUES, none=0.53)))
    n_found = pd.concat([_n_found(figures[[name]]), found.mean(axis=1)])
    # Some p-values are 0, because no float is as small; and adding 0 turns -0.0 into 0.0.
    figures = np.log10(figures.clip(lower=1e-300)).round(1) + 0
    figures.loc["p < .05, of all"] = n_found
    spread = pd.concat([pd.Series({name: 0.0}), found.std(axis=1)])
    severities = sorted(runs.loc[runs["against"] != "none", "severity"].astype(int).unique())
    caption = (
        f"{detector}: decimal logarithm of the largest p-value over severities {', '.join(map(str, severities))}, "
        f"and of the median over halvings of clean images; -1.3 is p = .05, -300 also stands for less. "
        f"{say_seeds(runs, ['detector', 'against']).capitalize()}; the last row counts corruptions, in the mean"
    )
    deviations = spread.to_frame("p < .05, of all").T
    return Table(caption, figures, ["dum_images.csv"], 1, deviations=deviations)


def _n_found(pvalues: pd.DataFrame) -> pd.Series:
    """How many corruptions have p < .05, by column."""
    return (pvalues[pvalues.index != "none"] < 0.05).sum()


TABLES: dict[str, Made] = {
    "dum images": dum_images,
    "dum images, cifar10": partial(dum_images, encoder="simclr"),
    "dum images, cifar10, shipped": partial(dum_images, encoder="shipped"),
    "dum corruptions": dum_corruptions,
    "dum p-values": partial(dum_pvalues, detector="DUM"),
    "dum p-values, printed": partial(dum_pvalues, detector="DUM, printed"),
    "dum p-values, kNN": partial(dum_pvalues, detector="kNN"),
    "dum features": dum_features,
    "dum vectors": dum_vectors,
    "dum bags": dum_bags,
    "dum embedded vectors": dum_embedded_vectors,
    "dum paper, images": dum_paper_images,
}
