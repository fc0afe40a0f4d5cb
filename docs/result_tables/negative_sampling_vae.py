"""Tables of `docs/methods/negative_sampling_vae.rst`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
from sphinx.errors import ExtensionError

from .base import SETS, Made, Table, read, say_largest, say_seeds


def _vae_name(dataset: str, negatives: str, noise_model: str) -> str:
    return f"{dataset}; {'no negatives' if negatives == 'None' else negatives}; {noise_model}"


def _runs(results: Path, size: str = "small") -> pd.DataFrame:
    runs = read(results, "ns_vae.csv", keep_default_na=False)
    return runs[runs["size"] == size]


def vae(results: Path, colour: bool, size: str = "small") -> Table:
    """Figures beside the paper's; at the paper's size, of what was run."""
    import ns_vae

    runs = _runs(results, size)
    rows, spread = {}, {}
    for key, (paper, paper_nats) in (ns_vae.COLOUR if colour else ns_vae.GREY).items():
        names = list(map(str, key))
        own = runs[(runs[["dataset", "negatives", "noise_model"]] == names).all(axis=1)]
        own = own[own["test_set"] == ns_vae.AGAINST[key[0]]]
        if own.empty and size == "paper":
            continue
        if own.empty:
            raise ExtensionError(f"results/ns_vae.csv has no run of {', '.join(names)}.")
        rows[_vae_name(*names)] = {
            "ELBO": own["auroc_elbo"].mean(),
            "KL": own["auroc_kl"].mean(),
            "seeds": str(own["seed"].nunique()),
            "paper: ELBO / KL": paper,
            "nats, test / OOD": f"{own['test_nats'].mean():.2f} / {own['ood_nats'].mean():.2f}",
            "paper: nats": paper_nats,
        }
        spread[_vae_name(*names)] = {"ELBO": own["auroc_elbo"].std(), "KL": own["auroc_kl"].std()}
    unseen = "MNIST in colour (paper: SVHN)" if colour else "MNIST, or Fashion-MNIST after MNIST"
    caption = f"AUROC by ELBO and by KL, and nats for each pixel, against {unseen}: in distribution; negatives; noise"
    figures, deviations = (pd.DataFrame.from_dict(found, "index") for found in (rows, spread))
    file = {"small": "ns_vae.csv, tables", "paper": "ns_vae.csv, the paper's size"}[size]
    return Table(caption, figures, [file], deviations=deviations)


def vae_unseen(results: Path, ablations: bool = False) -> Table:
    runs = _runs(results)
    runs = runs[(runs["dataset"] == "fashion_mnist") & (runs["noise_model"] == "bernoulli")]
    left_out = runs["negatives"].str.startswith("generated, ")
    own = runs["negatives"].eq("generated") & runs["seed"].isin(runs.loc[left_out, "seed"])
    runs = runs[left_out | own] if ablations else runs[~left_out]
    runs = runs.assign(negatives=runs["negatives"].replace("None", "no negatives"))
    runs["score"] = [row[f"auroc_{row['default_score']}"] for _, row in runs.iterrows()]
    by_seed = runs.groupby(["negatives", "test_set"], sort=False)["score"]
    figures, spread = (by_seed.agg(kind).unstack(sort=False).rename(columns=SETS) for kind in ("mean", "std"))
    figures["seeds"] = runs.groupby("negatives")["seed"].nunique().map(str)
    caption = "AUROC by KL, or by the ELBO without negatives, after Fashion-MNIST"
    files = ["ns_vae.csv, tables", "ns_vae.csv, ablations"] if ablations else ["ns_vae.csv, tables"]
    return Table(caption, figures, files, remarks=[say_largest(spread, ".3f")], deviations=spread)


# Settings of `benchmarks/vae_scores.py` that were run on all sets.
_VAE_SETTINGS = ("no negatives", "generated .03", "generated .1", "Gaussian")
_VAE_SCORES = {"auroc_elbo": "ELBO", "auroc_deviance": "deviance", "auroc_robust": "robust", "auroc_kl": "KL"}


def _vae_cases(results: Path, large: bool = False) -> pd.DataFrame:
    """The runs on few or on all images, with a case for each set in distribution and unseen set."""
    import vae_scores as benchmark

    runs = read(results, "vae_scores.csv")
    runs = runs[(runs["n_train"] > benchmark.FEW_IMAGES) == large]
    return runs.assign(case=runs["inside"] + ": " + runs["outside"]).rename(columns=_VAE_SCORES)


def _vae_means(runs: pd.DataFrame, kind: str = "mean") -> pd.DataFrame:
    """Mean AUROC, or its deviation over the runs, of the cases (rows) by setting and score (columns)."""
    means = runs.pivot_table(list(_VAE_SCORES.values()), "case", "setting", aggfunc=kind, sort=False)
    means.columns = [f"{setting}; {score}" for score, setting in means.columns]
    return means


def _vae_summary(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Mean and worst case of each setting and score over the cases that all have, deviations, and what was counted."""
    import vae_scores as benchmark

    means = _vae_means(runs).dropna()
    runs = runs[runs["case"].isin(means.index)]
    by_case = runs.groupby(["case", "setting"])[list(_VAE_SCORES.values())]
    spread = (by_case.max() - by_case.min()).groupby("setting").max()
    parts: dict[str, list[str]] = {"chosen on": [], "kept": []}
    for case in means.index:
        parts["chosen on" if case.partition(": ")[0] in benchmark.CHOOSING else "kept"].append(case)
    rows, deviating = {}, {}
    for setting, own in runs[runs["perturb"] == 0].groupby("setting", sort=False):
        for score in _VAE_SCORES.values():
            name = f"{setting}; {score}"
            # Of the seeds that all cases have.
            by_seed = own.pivot(index="seed", columns="case", values=score).dropna()
            rows[name], deviating[name] = {}, {}
            for part, cases in parts.items():
                figures = means.loc[cases, name]
                rows[name] |= {f"{part}: mean": figures.mean(), f"{part}: worst": figures.min()}
                deviating[name][f"{part}: mean"] = by_seed[cases].mean(axis=1).std()
            # A range over seeds has no deviation over them.
            rows[name]["largest spread"], deviating[name]["largest spread"] = spread.at[setting, score], 0.0
    inside = runs["inside"].unique()
    names = ", ".join(name for name in benchmark.CHOOSING if name in inside)
    about = (
        f"AUROC over {len(parts['chosen on'])} cases that defaults were chosen on (in distribution: {names}) and "
        f"{len(parts['kept'])} that were kept, {say_seeds(runs, ['case', 'setting'])}"
    )
    return pd.DataFrame.from_dict(rows, "index"), pd.DataFrame.from_dict(deviating, "index"), about


def vae_scores(results: Path) -> Table:
    runs = _vae_cases(results)
    figures, spread, about = _vae_summary(runs[runs["setting"].isin(_VAE_SETTINGS)])
    caption = f"{about}; largest range over seeds and a change of the input by 1e-6"
    robust = [
        f"{name.partition(';')[0]} {' and '.join(f'{value:.3f}' for value in values)}"
        for name, values in spread.dropna().iterrows()
        if str(name).endswith("; robust")
    ]
    remark = f"Deviations over the seeds of the two means of the score robust: {', '.join(robust)}."
    return Table(caption, figures, ["vae_scores.csv"], lower=["largest spread"], remarks=[remark], deviations=spread)


def vae_scores_large(results: Path) -> Table:
    """The default, generated negatives and the Gaussian, each with its score, on few images and on many."""
    shown = {"no negatives; robust": "no negatives, robust", "generated .1; robust": "generated .1, robust"}
    shown["Gaussian; ELBO"] = "Gaussian, ELBO"
    parts = {"few: ": _vae_cases(results), "many: ": _vae_cases(results, large=True)}
    figures, spread = [], []
    for prefix, runs in parts.items():
        figures.append(_vae_means(runs)[list(shown)].rename(columns=shown).add_prefix(prefix))
        spread.append(_vae_means(runs, "std")[list(shown)].rename(columns=shown).add_prefix(prefix))
    both, deviating = (pd.concat(tables, axis=1) for tables in (figures, spread))
    both = both.dropna()
    many = parts["many: "]
    many = many[many["case"].isin(both.index)]
    caption = (
        f"AUROC with up to 2,500 images and 800 batches (few), and with up to {many['n_train'].max():,} and 2,000 "
        f"(many, {say_seeds(many, ['case', 'setting'])}): in distribution, unseen"
    )
    deviating = deviating.loc[both.index]
    largest = ", ".join(f"{name} {value:.3f}" for name, value in deviating.max().items())
    remark = f"Largest deviations over the seeds: {largest}."
    return Table(caption, both, ["vae_scores.csv"], remarks=[remark], deviations=deviating)


def vae_score_cases(results: Path) -> Table:
    runs = _vae_cases(results)
    columns = ["no negatives; ELBO", "no negatives; deviance", "no negatives; robust", "Gaussian; ELBO"]
    columns += [f"generated {weight}; robust" for weight in (".01", ".03", ".1", ".3")] + ["generated .3; KL"]
    runs = runs[runs["setting"] != "auxiliary"]
    figures, spread = _vae_means(runs)[columns], _vae_means(runs[runs["perturb"] == 0], "std")
    # In the name of a cell a semicolon comes before the column.
    figures.columns, spread.columns = (names.str.replace(";", ",") for names in (figures.columns, spread.columns))
    caption = "The same, case by case: in distribution, unseen"
    return Table(caption, figures, ["vae_scores.csv"], best="in rows", deviations=spread)


def vae_score_corpus(results: Path) -> Table:
    runs = _vae_cases(results)
    runs = runs[runs["setting"] == "auxiliary"]
    figures = _vae_means(runs)
    figures.columns = figures.columns.str.removeprefix("auxiliary; ")
    spread = runs.groupby("case", sort=False)[list(_VAE_SCORES.values())].std()
    n_seeds = say_seeds(runs, ["case"])
    caption = f"AUROC with a corpus of letters, or half of CIFAR-100, {n_seeds}: in distribution, unseen"
    return Table(caption, figures, ["vae_scores.csv"], best="in rows", deviations=spread)


def _likelihoods(results: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return runs with scores of a likelihood, and the names of the scores."""
    runs = read(results, "vae_likelihoods.csv").rename(columns=lambda name: name.removeprefix("auroc_"))
    return runs.assign(case=runs["inside"] + ": " + runs["outside"]), list(runs)[list(runs).index("seconds") + 1 :]


def vae_likelihoods(results: Path, on_digits: bool) -> Table:
    runs, scores = _likelihoods(results)
    chosen = runs["inside"].str.startswith("digits") if on_digits else runs["inside"].eq("fashion class 0")
    runs = runs[chosen]
    means = runs.groupby(["setting", "case"], sort=False)[scores].mean()
    # Of cases that were run in all settings.
    counts = means.groupby("case").size()
    means = means[means.index.isin(counts.index[counts == runs["setting"].nunique()], level="case")]
    figures = means.groupby("setting", sort=False).mean()
    cases = means.index.get_level_values("case").unique()
    runs = runs[runs["case"].isin(cases)]
    spread = runs.groupby(["setting", "seed"], sort=False)[scores].mean().groupby("setting", sort=False).std()
    name = "small digits" if on_digits else "clothes"
    caption = (
        f"AUROC of scores of a likelihood without negatives, means over {len(cases)} cases of {name}, "
        f"{say_seeds(runs, ['setting', 'case'])}, by what was trained"
    )
    remarks = [f"Cases: {', '.join(cases)}."]
    file = f"vae_likelihoods.csv, {'digits' if on_digits else 'clothes'}"
    return Table(caption, figures, [file], best="in rows", remarks=remarks, deviations=spread)


def vae_likelihood_sets(results: Path) -> Table:
    """The same on images of ten classes: a row for each unseen set, with the default model."""
    runs, scores = _likelihoods(results)
    runs = runs[runs["inside"].isin(["fashion", "cifar10"]) & runs["setting"].eq("bernoulli")]
    figures, spread = (runs.groupby("case", sort=False)[scores].agg(kind) for kind in ("mean", "std"))
    caption = "AUROC of scores of a likelihood without negatives (bernoulli), by data in distribution and unseen set, "
    caption += say_seeds(runs, ["case"])
    file, remarks = "vae_likelihoods.csv, ten classes", [say_largest(spread, ".3f")]
    return Table(caption, figures, [file], best="in rows", remarks=remarks, deviations=spread)


TABLES: dict[str, Made] = {
    "vae grey": partial(vae, colour=False),
    "vae grey, paper": partial(vae, colour=False, size="paper"),
    "vae colour": partial(vae, colour=True),
    "vae unseen": vae_unseen,
    "vae ablations": partial(vae_unseen, ablations=True),
    "vae scores": vae_scores,
    "vae scores, many images": vae_scores_large,
    "vae scores, cases": vae_score_cases,
    "vae scores, corpus": vae_score_corpus,
    "vae likelihoods": partial(vae_likelihoods, on_digits=True),
    "vae likelihoods, clothes": partial(vae_likelihoods, on_digits=False),
    "vae likelihoods, sets": vae_likelihood_sets,
}
