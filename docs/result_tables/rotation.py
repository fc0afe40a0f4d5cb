"""Tables of `docs/methods/rotation.rst`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from .base import Made, Table, read, say_seeds

_CLASSIFIERS = {
    "classes": "classes alone",
    "classes, twice the epochs": "as many steps",
    "classes and rotations": "with rotations",
}
# How tables call the data sets of the script.
_SETS = {"digits": "digits", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
_SETS |= {"stl10-32": "STL-10, 32 pixels", "stl10": "STL-10, 96 pixels", "dogs": "dogs"}


def _held_out(results: Path, dataset: str | None = None) -> pd.DataFrame:
    """Return runs of the small size with a class held out, of seeds that have all classes; a trial is a seed."""
    runs = read(results, "holdout_class.csv").rename(columns={"trial": "seed"})
    runs = runs[(runs["size"] == "small") & (runs["class"] != "none")]
    classes = runs.groupby(["dataset", "classifier", "seed"])["class"].transform("nunique")
    runs = runs[classes == classes.groupby([runs["dataset"], runs["classifier"]]).transform("max")]
    return runs if dataset is None else runs[runs["dataset"] == dataset]


def _over_classes(runs: pd.DataFrame, cell: list[str], figure: str) -> tuple[pd.Series, pd.Series]:
    """Return the mean over seeds of the mean over classes, and its deviation."""
    by_seed = runs.groupby([*cell, "seed"], sort=False)[figure].mean().groupby(cell, sort=False)
    return by_seed.mean(), by_seed.std()


def rotation_scores(results: Path) -> Table:
    dataset = "fashion-mnist"
    runs = _held_out(results, dataset)
    runs = runs[runs["classifier"].isin(_CLASSIFIERS)]
    # The first seed was run when there were fewer scores.
    seeds = runs.groupby("score")["seed"].nunique()
    runs = runs[runs["score"].isin(seeds.index[seeds == seeds.max()])]
    figures, spread = (part.unstack() for part in _over_classes(runs, ["score", "classifier"], "ap"))
    figures.loc["accuracy"], spread.loc["accuracy"] = _over_classes(runs, ["classifier"], "accuracy")
    figures, spread = (part.rename(columns=_CLASSIFIERS)[list(_CLASSIFIERS.values())] for part in (figures, spread))
    caption = f"{_SETS[dataset]}: average precision in % of the class held out, mean over the ten classes, "
    caption += say_seeds(runs, ["class", "classifier"])
    return Table(caption, figures, [f"holdout_class.csv, {dataset}"], 1, "in rows", deviations=spread)


def rotation_classes(results: Path, dataset: str, scores: Sequence[str]) -> Table:
    import holdout_class

    runs = _held_out(results, dataset)
    runs = runs[runs["classifier"].isin(_CLASSIFIERS)]
    runs = pd.concat([runs, runs.assign(**{"class": "mean"})])
    parts = []
    for kind in (0, 1):
        by_score = _over_classes(runs, ["class", "classifier", "score"], "ap")[kind]
        accuracy = _over_classes(runs, ["class", "classifier"], "accuracy")[kind]
        part = pd.DataFrame(index=[*holdout_class.CLASSES[dataset], "mean"])
        for classifier, name in _CLASSIFIERS.items():
            own = by_score.xs(classifier, level="classifier").unstack()
            for score in scores:
                if score in own:
                    part[f"{name}, {score}"] = own[score]
            part[f"{name}, accuracy"] = accuracy.xs(classifier, level="classifier")
        parts.append(part)
    caption = f"{_SETS[dataset]}: average precision in % of each class held out (chance: 10), accuracy on the others, "
    caption += say_seeds(runs, ["class", "classifier"])
    return Table(caption, parts[0], [f"holdout_class.csv, {dataset}"], 1, deviations=parts[1])


# Columns of tables of several data sets: the paper's scores, the detector's own, and those that rotations help most.
_CHOSEN = {"msp": "MSP", "odin": "ODIN", "energy": "energy", "fdbd": "fDBD", "mahalanobis_pp": "Mahalanobis++"}
_CHOSEN |= {"vim": "ViM", "rotation": "rotation"}


def _by_set(runs: pd.DataFrame, classifiers: dict[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return means over the classes held out, and deviations over seeds, for each data set and classifier."""
    runs = runs[runs["classifier"].isin(classifiers)]
    runs = runs.assign(row=runs["dataset"].map(_SETS) + ": " + runs["classifier"].map(classifiers))
    parts = []
    for kind in (0, 1):
        part = _over_classes(runs, ["row", "score"], "ap")[kind].unstack()
        part = part.reindex(columns=list(_CHOSEN)).rename(columns=_CHOSEN)
        part["accuracy"] = _over_classes(runs, ["row"], "accuracy")[kind]
        parts.append(
            part.loc[[f"{s}: {c}" for s in _SETS.values() for c in classifiers.values() if f"{s}: {c}" in part.index]]
        )
    figures, spread = parts
    figures["seeds"] = runs.groupby("row")["seed"].nunique().astype(str)
    return figures, spread


def _whole_sets(results: Path) -> pd.DataFrame:
    """Return the runs of data sets of which each class was held out."""
    import holdout_class

    runs = _held_out(results)
    held_out = runs.groupby("dataset")["class"].nunique()
    whole = [name for name in held_out.index if held_out[name] == len(holdout_class.CLASSES[name])]
    return runs[runs["dataset"].isin(whole)]


def rotation_sets(results: Path) -> Table:
    figures, spread = _by_set(_whole_sets(results), _CLASSIFIERS)
    caption = "Average precision in % of a class held out, accuracy on the others, means over classes and seeds"
    return Table(caption, figures, ["holdout_class.csv"], 1, deviations=spread)


def rotation_deviations(results: Path) -> Table:
    _, spread = _by_set(_whole_sets(results), _CLASSIFIERS)
    return Table("Standard deviations of the same over the seeds", spread.dropna(how="all"), ["holdout_class.csv"], 1)


def rotation_some_classes(results: Path, dataset: str) -> Table:
    """A data set of which some classes were held out."""
    runs = _held_out(results, dataset)
    figures, spread = _by_set(runs, _CLASSIFIERS)
    caption = f"Average precision in % of a class held out ({', '.join(runs['class'].unique())}), accuracy on the "
    caption += "others, means over classes and seeds"
    return Table(caption, figures, [f"holdout_class.csv, {dataset}"], 1, deviations=spread)


def rotation_beside(results: Path, classifier: str, name: str, file: str) -> Table:
    """A further classifier, and the others with the same classes held out and the same seeds."""
    runs, cell = _held_out(results), ["dataset", "class", "seed"]
    runs = runs.merge(runs.loc[runs["classifier"] == classifier, cell].drop_duplicates(), on=cell)
    figures, spread = _by_set(runs, _CLASSIFIERS | {classifier: name})
    classes = runs.groupby("dataset")["class"].unique()
    about = "; ".join(f"{_SETS[name]}: {', '.join(classes[name])}" for name in _SETS if name in classes)
    caption = (
        f"Average precision in % of a class held out ({about}), accuracy on the others, means over classes and seeds"
    )
    return Table(caption, figures, [f"holdout_class.csv, {file}"], 1, deviations=spread)


# The paper's Table 2: accuracy in % with all classes in training, without and with rotations.
_PAPER_ACCURACY = {"paper: CIFAR-10": (95.87, 96.54), "paper: STL-10, 96 pixels": (85.51, 88.98)}


def rotation_accuracy(results: Path) -> Table:
    """Accuracy with all classes in training, the paper's Table 2."""
    runs = read(results, "ood_suite.csv")
    runs = runs[runs["size"].eq("small") & runs["classifier"].isin(["plain", "rotations"])].assign(dataset="cifar10")
    by_seed = runs.groupby(["classifier", "seed"])["accuracy"].first().groupby("classifier")
    row = "CIFAR-10, 8,000 images, 12 epochs"
    names = {"plain": _CLASSIFIERS["classes"], "rotations": _CLASSIFIERS["classes and rotations"]}
    figures, spread = (pd.DataFrame({row: part}).T.rename(columns=names) for part in (by_seed.mean(), by_seed.std()))
    none = read(results, "holdout_class.csv").query("`class` == 'none' and size == 'small'")
    by_set = none.groupby(["dataset", "classifier"])["accuracy"]
    for kind, table in (("mean", figures), ("std", spread)):
        for (dataset, classifier), accuracy in by_set.agg(kind).items():
            table.loc[_SETS[dataset], _CLASSIFIERS[classifier]] = accuracy
    figures, spread = (table.reindex(columns=list(_CLASSIFIERS.values())) for table in (figures, spread))
    for name, accuracies in _PAPER_ACCURACY.items():
        figures.loc[name, list(names.values())] = accuracies
    both = pd.concat([runs, none.rename(columns={"trial": "seed"})])
    caption = f"Accuracy in % with all classes in training, {say_seeds(both, ['dataset', 'classifier'])}"
    files = ["ood_suite.csv", "holdout_class.csv, all classes of STL-10"]
    return Table(caption, figures, files, 1, outside=list(_PAPER_ACCURACY), deviations=spread)


def rotation_paper(results: Path) -> Table:
    import holdout_class

    columns = ["MSP", "ODIN", "accuracy"]
    columns += [f"{name}, with rotations" for name in columns]
    figures = {name: [*alone, *rotated] for name, (alone, rotated) in holdout_class.PAPER.items()}
    caption = "The paper's Table 3: CIFAR-10, a WRN-28-10 and 200 epochs; average precision and accuracy in %"
    return Table(caption, pd.DataFrame.from_dict(figures, "index", columns=columns), digits=2)


TABLES: dict[str, Made] = {
    "rotation scores": rotation_scores,
    "rotation classes": partial(rotation_classes, dataset="fashion-mnist", scores=("vim", "rotation")),
    "rotation cifar10": partial(rotation_classes, dataset="cifar10", scores=("msp", "vim", "rotation")),
    "rotation sets": rotation_sets,
    "rotation sets, deviations": rotation_deviations,
    "rotation cpc": partial(rotation_beside, classifier="classes and CPC", name="with CPC", file="CPC"),
    "rotation stl10": partial(rotation_some_classes, dataset="stl10-32"),
    "rotation dogs": partial(rotation_some_classes, dataset="dogs"),
    "rotation masked": partial(rotation_beside, classifier="classes, masked", name="masked", file="masked images"),
    "rotation accuracy": rotation_accuracy,
    "rotation paper": rotation_paper,
}
