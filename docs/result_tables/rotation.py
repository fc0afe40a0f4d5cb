"""Tables of `docs/methods/rotation.rst`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from .base import Made, Table, read

_CLASSIFIERS = {
    "classes": "classes alone",
    "classes, twice the epochs": "as many steps",
    "classes and rotations": "with rotations",
}


def _held_out(results: Path, dataset: str) -> pd.DataFrame:
    runs = read(results, "holdout_class.csv")
    return runs[(runs["dataset"] == dataset) & (runs["size"] == "small")]


def rotation_scores(results: Path) -> Table:
    runs = _held_out(results, "fashion-mnist")
    runs = runs[runs["classifier"].isin(_CLASSIFIERS)]
    figures = runs.pivot_table("ap", "score", "classifier", sort=False)
    figures.loc["accuracy"] = runs.groupby("classifier")["accuracy"].mean()
    caption = "Fashion-MNIST: average precision in % of the class held out, mean over the ten classes"
    figures = figures.rename(columns=_CLASSIFIERS)[list(_CLASSIFIERS.values())]
    return Table(caption, figures, ["holdout_class.csv, fashion-mnist"], 1, "in rows")


def rotation_classes(results: Path, dataset: str, scores: Sequence[str]) -> Table:
    import holdout_class

    runs = _held_out(results, dataset)
    runs = runs[runs["classifier"].isin(_CLASSIFIERS)]
    figures = pd.DataFrame(index=[c for c in holdout_class.CLASSES[dataset] if c in set(runs["class"])])
    for classifier, name in _CLASSIFIERS.items():
        own = runs[runs["classifier"] == classifier]
        by_score = own.pivot_table("ap", "class", "score")
        for score in scores:
            if score in by_score:
                figures[f"{name}, {score}"] = by_score[score]
        figures[f"{name}, accuracy"] = own.groupby("class")["accuracy"].mean()
    figures.loc["mean"] = figures.mean()
    caption = f"{dataset}: average precision in % of each class held out (chance: 10), accuracy on the others"
    return Table(caption, figures, [f"holdout_class.csv, {dataset}"], 1)


def rotation_paper(results: Path) -> Table:
    import holdout_class

    columns = ["MSP", "ODIN", "accuracy"]
    columns += [f"{name}, with rotations" for name in columns]
    figures = {name: [*alone, *rotated] for name, (alone, rotated) in holdout_class.PAPER.items()}
    caption = "The paper's Table 3: CIFAR-10, a WRN-28-10 and 200 epochs; average precision and accuracy in %"
    return Table(caption, pd.DataFrame.from_dict(figures, "index", columns=columns), digits=2)


TABLES: dict[str, Made] = {
    "rotation scores": rotation_scores,
    "rotation classes": partial(rotation_classes, dataset="fashion-mnist", scores=("fdbd", "rotation")),
    "rotation cifar10": partial(rotation_classes, dataset="cifar10", scores=("msp", "fdbd", "rotation")),
    "rotation paper": rotation_paper,
}
