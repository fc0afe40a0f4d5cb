"""Tables of `docs/methods/residual_adapters.rst`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
from pandas.core.groupby import DataFrameGroupBy

from .base import Made, Table, read, say_largest, say_seeds

_BACKBONES = ("shipped", "given")
_ADAPTERS_FILE = {
    "three seeds": "adra_one_vs_rest.csv, three classes",
    "shipped": "adra_one_vs_rest.csv, backbone shipped",
    "given": "adra_one_vs_rest.csv, backbone given",
    "hold-one-out": "adra_one_vs_rest.csv, hold-one-out",
    "hold-one-out, cifar10": "adra_one_vs_rest.csv, hold-one-out, three classes",
    "hold-one-out, stl10-32": "adra_one_vs_rest.csv, hold-one-out, STL-10 of 32 pixels",
    "held out": "adra_one_vs_rest.csv, held-out training images",
}


def _adapters_runs(
    results: Path,
    backbone: str,
    held_out: bool = False,
    protocol: str = "one-vs-rest",
    precision: str = "bfloat16",
    dataset: str = "cifar10",
) -> pd.DataFrame:
    """Return runs of a protocol; those in bfloat16 are single ones of all classes, the others have three seeds."""
    runs = read(results, "adra_one_vs_rest.csv")
    chosen = {"protocol": protocol, "dataset": dataset, "backbone": backbone, "size": "small", "precision": precision}
    runs = runs[(runs[list(chosen)] == pd.Series(chosen)).all(axis=1)]
    return runs[(runs["test_images"] == "held out") == held_out]


def _over_seeds(runs: pd.DataFrame, figures: list[str]) -> tuple[list[str], DataFrameGroupBy]:
    """Return the classes, and the runs by method and class, with the class "mean" of each seed's mean of classes."""
    import adra_one_vs_rest

    (dataset,) = set(runs["dataset"])
    classes = [name for name in adra_one_vs_rest.CLASSES[dataset] if name in set(runs["target"])]
    with_mean = pd.concat([runs, runs.assign(target="mean")])
    by_seed = with_mean.groupby(["method", "target", "seed"], sort=False)[figures].mean()
    return classes, by_seed.groupby(["method", "target"], sort=False)


def _paper_rows(dataset: str, protocol: str, figure: str, classes: list[str]) -> pd.DataFrame:
    """Return the paper's figures of some classes of a data set, and their mean, by method."""
    import adra_one_vs_rest

    paper = adra_one_vs_rest.PAPER[dataset, protocol, figure]
    rows = pd.DataFrame.from_dict(paper, orient="index", columns=adra_one_vs_rest.CLASSES[dataset])[classes]
    return rows.assign(mean=rows.mean(axis=1))


def adapters_seeds(results: Path) -> Table:
    """Means over seeds for a few classes, by method (rows)."""
    import adra_one_vs_rest

    runs = _adapters_runs(results, "shipped", precision="auto")
    classes, by_cell = _over_seeds(runs, ["auroc", "fit_seconds"])
    order = [*adra_one_vs_rest.METHODS, *adra_one_vs_rest.MORE_METHODS]
    order = [name for name in order if name in set(runs["method"])]
    tables = []
    for cells in (by_cell.mean(), by_cell.std()):
        own = cells["auroc"].unstack("target").loc[order, [*classes, "mean"]]
        own["seconds to fit"] = cells["fit_seconds"].unstack("target")["mean"]
        tables.append(own)
    figures, spread = tables
    # Times of runs that other work on the machine disturbed tell nothing.
    disturbed = spread["seconds to fit"] > 0.1 * figures["seconds to fit"]
    for own in tables:
        own["seconds to fit"] = own["seconds to fit"].mask(disturbed)
    by_method = runs.groupby("method")
    figures["parameters trained"] = by_method["n_adapter_parameters"].first().map("{:,.0f}".format)
    figures["loss"] = by_method["loss"].mean().map("{:.3f}".format).replace("nan", "")
    paper = _paper_rows("cifar10", "one-vs-rest", "auroc", classes)
    for name in ("kNN-AD", "SAD", "ADRA K=2"):
        figures.loc[f"paper: {name}", list(paper)] = paper.loc[name]
    figures = figures.fillna({"parameters trained": "", "loss": ""})
    timed = "Seconds are left out where they differ by more than a tenth between runs, since other programs ran."
    caption = (
        "CIFAR-10, one class against the others, the network that comes with skood: AUROC in %, what a detector takes "
        f"on one thread, and the loss at the end of its training, {say_seeds(runs, ['method', 'target'])}"
    )
    outside = [name for name in figures.index if name.startswith("paper: ")]
    outside += ["seconds to fit", "parameters trained", "loss"]
    files, remarks = [_ADAPTERS_FILE["three seeds"]], [say_largest(spread[classes])]
    remarks += [timed] if disturbed.any() else []
    return Table(caption, figures, files, 1, "in columns", outside, remarks=remarks, deviations=spread)


def adapters_classes(results: Path, backbone: str) -> Table:
    import adra_one_vs_rest

    order = ["frozen kNN", "scratch", "finetune", "L2-SP", "adapters K=1", "adapters K=2", "adapters K=4"]
    figures = _adapters_runs(results, backbone).pivot_table("auroc", "target", "method")
    figures = figures.loc[adra_one_vs_rest.CLASSES["cifar10"]].reindex(columns=order).dropna(axis=1)
    paper = adra_one_vs_rest.PAPER["cifar10", "one-vs-rest", "auroc"]
    outside = [f"paper: {name}" for name in ("kNN-AD", "SAD", "ADRA K=2")]
    for name in outside:
        figures[name] = paper[name.removeprefix("paper: ")]
    figures.loc["mean"], figures.loc["worst"] = figures.mean(), figures.min()
    caption = f"CIFAR-10, one class against the others, backbone {backbone!r}: AUROC in %"
    return Table(caption, figures, [_ADAPTERS_FILE[backbone]], 1, "in rows", outside)


def adapters_hold_one_out(results: Path) -> Table:
    import adra_one_vs_rest

    runs = _adapters_runs(results, "shipped", protocol="hold-one-out")
    figures = runs.pivot_table("ap", "target", "method").loc[
        adra_one_vs_rest.CLASSES["cifar10"], ["finetune", "adapters K=2"]
    ]
    areas = runs.pivot_table("auroc", "target", "method")
    for name in list(figures):
        figures[f"AUROC, {name}"] = areas[name]
    paper = adra_one_vs_rest.PAPER["cifar10", "hold-one-out", "ap"]
    outside = [f"paper: {name}" for name in paper]
    for name, values in paper.items():
        figures[f"paper: {name}"] = values
    figures.loc["mean"] = figures.mean()
    caption = "CIFAR-10, one class held out and the other nine normal: average precision in % (chance: 10), and AUROC"
    return Table(caption, figures, [_ADAPTERS_FILE["hold-one-out"]], 1, outside=outside)


def adapters_hold_one_out_seeds(results: Path, dataset: str) -> Table:
    """Means over seeds for a few classes that were held out, by method (rows)."""
    runs = _adapters_runs(results, "shipped", protocol="hold-one-out", precision="auto", dataset=dataset)
    classes, by_cell = _over_seeds(runs, ["ap", "auroc"])
    order = ["finetune", "L2-SP", "adapters K=2"]
    tables = []
    for cells in (by_cell.mean(), by_cell.std()):
        own = cells["ap"].unstack("target").loc[order, [*classes, "mean"]]
        areas = cells["auroc"].unstack("target")
        tables.append(own.assign(**{f"AUROC, {name}": areas[name] for name in own}))
    figures, spread = tables
    paper = _paper_rows(dataset, "hold-one-out", "ap", classes)
    outside = [f"paper: {name}" for name in paper.index]
    figures = pd.concat([figures, paper.set_axis(outside)])
    title = {"cifar10": "CIFAR-10", "stl10-32": "STL-10 of 32 pixels"}[dataset]
    caption = (
        f"{title}, one class held out and the other nine normal: average precision in % (chance: 10), and AUROC, "
        f"{say_seeds(runs, ['method', 'target'])}"
    )
    file = _ADAPTERS_FILE[f"hold-one-out, {dataset}"]
    return Table(caption, figures, [file], 1, "in columns", outside, remarks=[say_largest(spread)], deviations=spread)


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


def adapters_disentanglement(results: Path) -> Table:
    import disentanglement

    runs = read(results, "disentanglement.csv")
    runs = runs[(runs["data"] == "shapes") & (runs["size"] == "small")].assign(AUROC=runs["auroc"] / 100)
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
    # No seed changes a number of parameters.
    return Table(caption, figures, ["disentanglement.csv"], 1, deviations=0 * figures)


TABLES: dict[str, Made] = {
    "adapters seeds": adapters_seeds,
    "adapters classes": partial(adapters_classes, backbone="shipped"),
    "adapters classes, given": partial(adapters_classes, backbone="given"),
    "adapters hold one out": adapters_hold_one_out,
    "adapters hold one out seeds": partial(adapters_hold_one_out_seeds, dataset="cifar10"),
    "adapters hold one out stl10": partial(adapters_hold_one_out_seeds, dataset="stl10-32"),
    "adapters small modes": adapters_small_modes,
    "adapters loss": adapters_loss,
    "adapters held out": adapters_held_out,
    "adapters disentanglement": adapters_disentanglement,
    "adapters ten tasks": adapters_ten_tasks,
}
