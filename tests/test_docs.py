"""The documents: they build without a warning, and say of figures what the results say."""

import doctest
import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skood
from skood import DUMDetector
from skood.__main__ import main
from skood.datasets import load
from skood.metrics import get_scorer
from skood.model_selection import DropOutliers, OutlierKFold

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = ("_build", "auto_examples", "generated")
NO_PAGES = {*MADE, "_templates"}
PAGES = [path for path in sorted(DOCS.rglob("*.rst")) if path.relative_to(DOCS).parts[0] not in NO_PAGES]
WITH_CODE = [path for path in PAGES if ">>>" in path.read_text(encoding="utf-8")]

RESULTS = """\
| file | command |
| --- | --- |
| `tabular_vae.csv` | `python tabular.py --detectors "A;B"` |
| `ns_vae.csv`, tables | `python ns_vae.py` |
| `ns_vae.csv`, seeds 1 to 4 | the same with `--seeds 5` |
"""
# Means over seeds: of the new one 0.7 and 0.9, of kNN 0.8 and 0.8, on "a" and "b".
RUNS = """\
detector,dataset,protocol,seed,auroc,fpr95
new,adbench/a,novelty,0,0.6,0.5
new,adbench/a,novelty,1,0.8,0.5
new,adbench/b,novelty,0,0.9,0.1
new,adbench/b,novelty,1,0.9,0.1
kNN,adbench/a,novelty,0,0.8,0.2
kNN,adbench/a,novelty,1,0.8,0.2
kNN,adbench/b,novelty,0,0.8,0.2
kNN,adbench/b,novelty,1,0.8,0.2
new,adbench/a,contaminated,0,0.5,0.9
new,adbench/a,contaminated,1,0.5,0.9
new,adbench/b,contaminated,0,0.5,0.9
new,adbench/b,contaminated,1,0.5,0.9
kNN,adbench/a,contaminated,0,0.6,0.9
kNN,adbench/a,contaminated,1,0.6,0.9
kNN,adbench/b,contaminated,0,0.7,0.9
kNN,adbench/b,contaminated,1,0.7,0.9
"""


@pytest.fixture
def tables(monkeypatch):
    """The package of tables."""
    pytest.importorskip("sphinx", reason="no Sphinx: pip install '.[docs]'")
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("result_tables")


@pytest.fixture
def results(tmp_path):
    """A small folder of results."""
    (tmp_path / "README.md").write_text(RESULTS)
    (tmp_path / "tabular_vae.csv").write_text(RUNS)
    return tmp_path


def test_documents_build_without_a_warning(tmp_path):
    """Built in a copy, for Sphinx writes pages among the sources. Examples are not run here: other tests do."""
    for package in ("sphinx", "numpydoc", "sphinx_gallery", "myst_parser", "matplotlib"):
        pytest.importorskip(package, reason=f"no {package}: pip install '.[docs]'")
    for name in ("docs", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns(*MADE, "__pycache__"))
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-D", "plot_gallery=0"]
    # A relative path in PYTHONPATH would be another one there.
    environment = {**os.environ, "PYTHONPATH": str(Path(skood.__file__).parents[1])}
    done = subprocess.run(
        [*command, "docs", "html"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

    html = tmp_path / "html"
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in PAGES}
    pages |= {Path(f"{name}.html") for name in ("evaluating", "results", "changelog", "contributing")}
    pages |= {Path("auto_examples/index.html")}
    assert {page for page in pages if not (html / page).exists()} == set()

    names = {*skood.__all__, *skood._MODULES} - {"__version__"}
    missing = {name for name in names if not (html / "generated" / f"skood.{name}.html").exists()}
    assert missing == set(), "add them to docs/api.rst"
    assert "score_samples" in (html / "generated" / "skood.DUMDetector.html").read_text(encoding="utf-8")

    page = (html / "methods" / "reject_classes.html").read_text(encoding="utf-8")
    for shown in ("99.99", "benchmarks/reject_classes.py --dataset mnist --size full", "reject_classes.csv"):
        assert shown in page


@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.stem)
def test_code_of_a_page(path):
    outcome = doctest.testfile(
        str(path), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_every_method_stands_in_the_list_and_in_the_toctree():
    index, _, toctree = (DOCS / "methods" / "index.rst").read_text(encoding="utf-8").partition(".. toctree::")
    pages = {path.stem for path in (DOCS / "methods").glob("*.rst")} - {"index"}
    assert pages | {"../differences"} == set(re.findall(":doc:`(.+?)`", index)) == set(toctree.split()[1:])


# As `python -m skood compare ...` in a sentence, or as a line of its own.
TEXTS = [*PAGES, *DOCS.glob("*.md"), ROOT / "README.md", *(ROOT / "examples").glob("*.py")]
COMPARISONS = {
    " ".join(command.split())
    for text in (path.read_text(encoding="utf-8") for path in TEXTS)
    for commands in re.findall(r"`python -m skood (compare .+?)`|^ +python -m skood (compare .+?)$", text, re.S | re.M)
    for command in commands
    if "--data " in command
}


def test_comparisons_are_found():
    assert len(COMPARISONS) >= 3


@pytest.mark.parametrize("command", sorted(COMPARISONS))
def test_comparison_of_a_page(command, tmp_path, monkeypatch):
    """What pages say to write runs; of the detectors one is enough."""
    image = pytest.importorskip("PIL.Image", reason="no Pillow: pip install '.[images]'")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = ["a,b,COLUMN", *(f"{a},{b},{n % 4 == 0:d}" for n, (a, b) in enumerate(rng.normal(size=(60, 2))))]
    Path("rows.csv").write_text("\n".join(rows))
    for number in range(60):
        folder = Path("parts") / ("good", "good", "bad", "other")[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    arguments = [{"FILE": "rows.csv", "FOLDER": "parts"}.get(word, word) for word in shlex.split(command)]
    of_all = ["--detectors", "kNN", "--only", "--seeds", "1", "--no-decisions", "--jobs", "1"]
    assert main([*arguments, *of_all]) == 0


def test_refit_after_a_search():
    """What the guide to evaluating says to write after a search trains on inliers alone."""
    text = (DOCS / "evaluating.md").read_text(encoding="utf-8")
    recipes = re.findall(r"`(clone\(search\.best_estimator_\).+?)`", text)
    X, y = load("wine")
    pipeline = make_pipeline(StandardScaler(), DUMDetector(max_epochs=1, contamination=0, random_state=0))
    for estimator, recipe in zip((pipeline, DropOutliers(pipeline)), recipes, strict=True):
        search = GridSearchCV(estimator, {}, scoring=get_scorer("auroc"), cv=OutlierKFold(2, random_state=0)).fit(X, y)
        fitted = eval(recipe, {"clone": clone, "search": search, "X": X, "y": y})
        detector = getattr(fitted, "estimator_", fitted)[-1]
        assert detector.contamination == "auto"
        assert len(detector.training_scores_) == (y == 1).sum()


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What an example imports or calls, and the extra that brings it. All need "plot", for each ends in a picture.
BROUGHT_BY = {
    r"^(from|import) (dask|distributed)\b": "dask",
    r"^from PIL\b": "images",
    r"^from skrub\b": "tables",
    r"\.explain\(": "explain",
    r"\bto_onnx\(": "onnx",
    r"\bskops\b": "files",
    r"\bpyod\b": "pyod",
}


def packages(extra):
    """Return the names of the packages that an extra brings."""
    names = set()
    for wanted in PROJECT["optional-dependencies"][extra]:
        name, of_skood = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", wanted).groups()
        names |= set().union(*map(packages, of_skood.split(","))) if name == "skood" else {name}
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("plot_*.py")), ids=lambda path: path.stem)
def test_extras_of_an_example(path):
    """Its docstring names the extras that it needs, and those who build the documents have them."""
    _, about, code = path.read_text(encoding="utf-8").split('"""', 2)
    needed = {extra for pattern, extra in BROUGHT_BY.items() if re.search(pattern, code, flags=re.MULTILINE)}
    named = re.findall(r"pip install 'skood\[(.+?)\]'", about)
    assert needed == {extra for extras in named for extra in extras.split(",")}
    assert {name for extra in (*needed, "plot") for name in packages(extra)} <= packages("docs")


def test_every_table_stands_in_a_page(tables):
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    used = set(re.findall(r"^\.\. figures:: (.+)$", text, flags=re.MULTILINE))
    assert used == set(tables.TABLES)


def test_every_file_of_results_has_a_command(tables):
    for path in (DOCS / "results").glob("*.csv"):
        assert any("python " in line for line in tables.commands(DOCS / "results", path.name)), path.name


@pytest.mark.parametrize("path", sorted((DOCS / "results").glob("*.csv")), ids=lambda path: path.stem)
def test_no_result_stands_twice(path):
    _, *rows = path.read_text(encoding="utf-8").splitlines()
    assert len(set(rows)) == len(rows)


def test_commands_make_the_rows_of_vae_scores(tables):
    """All rows, and no others: of each setting, set, seed and change of the images."""
    import vae_scores

    made = set()
    for line in tables.commands(DOCS / "results", "vae_scores.csv"):
        if line.startswith("#"):
            continue
        words = shlex.split(line)[2:]
        options = dict(zip(words[::2], words[1::2], strict=True))
        for setting in options["--settings"].split(";"):
            with_corpus = ("fashion", "cifar10") if setting == "auxiliary" else vae_scores.CASES
            for inside in options.get("--only", ";".join(with_corpus)).split(";"):
                for perturb in {0.0, float(options.get("--perturb", 0))}:
                    n_train, n_seeds = int(options.get("--n-train", 2500)), int(options.get("--seeds", 1))
                    made |= {(inside, setting, n_train, seed, perturb) for seed in range(n_seeds)}
    runs = tables.read(DOCS / "results", "vae_scores.csv")
    # The file has no column for what is not given here.
    keys = [name for name in vae_scores.KEYS if name not in vae_scores.LATER]
    assert made == set(runs[keys].itertuples(index=False, name=None))


README = (ROOT / "README.md").read_text(encoding="utf-8")
# What the table of evidence in the README says, row by row: cells of the tables in the documents.
EVIDENCE = {
    "`RejectClassDetector`: MNIST": [
        "reject mnist, small; reject classes; KMNIST",
        "reject mnist, small; outlier exposure; KMNIST",
        "reject mnist, small; maximum softmax; KMNIST",
        "reject mnist, small; energy fine-tuning; KMNIST",
        "reject mnist; paper: reject classes; KMNIST",
    ],
    "`RejectClassDetector`: CIFAR-10": [
        "reject cifar10; reject classes, default; AUROC",
        "reject cifar10; outlier exposure; AUROC",
        "reject cifar10; maximum softmax; AUROC",
        "reject cifar10; energy score; AUROC",
    ],
    "`NegSampleVAE`: Fashion-MNIST": [
        "vae scores, many images; fashion: mnist; many: no negatives, robust",
        "vae unseen; generated; MNIST",
        "vae unseen; no negatives; MNIST",
        "dum images; pixels: kNN; mnist_test",
    ],
    "`ResidualAdapterDetector`: CIFAR-10": [
        "adapters seeds; adapters K=2; mean",
        "adapters seeds; finetune; mean",
        "adapters seeds; scratch; mean",
        "adapters seeds; frozen kNN; mean",
        "adapters seeds; paper: ADRA K=2; mean",
    ],
    "`RotationAuxClassifier`: Fashion-MNIST": [
        "rotation scores; vim; with rotations",
        "rotation scores; vim; as many steps",
        "rotation scores; msp; as many steps",
        "rotation scores; mahalanobis_pp; as many steps",
    ],
    "`DUMDetector`: features that SimCLR learnt on": [
        "dum images; features: DUM; mean",
        "dum images; features: kNN; mean",
        "dum images; features: Mahalanobis; mean",
        "dum images; pixels: kNN; mean",
    ],
    "18 tabular sets, trained on inliers": [
        "tabular; DUMDetector; inliers",
        "tabular; kNN; inliers",
        "tabular; LOF; inliers",
        "tabular; IsolationForest; inliers",
    ],
    "18 tabular sets, outliers hidden": [
        "tabular; ResidualAdapterDetector; hidden outliers",
        "tabular; IsolationForest; hidden outliers",
        "tabular; kNN; hidden outliers",
        "tabular; LOF; hidden outliers",
    ],
}


# A figure, its deviation, and whether it is called level with the first one of its row.
FIGURE = r"(\d+\.\d+)(?: \((\d+\.\d+)\))?(?: \((level)\))?"


def test_figures_of_the_readme(tables):
    table = README.partition("## What it is worth")[2].partition("\n\nWhere they lose")[0]
    rows = [line.strip("| ") for line in table.splitlines() if re.search(r"\d\.\d", line)]
    assert [next(name for name in EVIDENCE if row.startswith(name)) for row in rows] == list(EVIDENCE)
    for row, cells in zip(rows, EVIDENCE.values(), strict=True):
        for cell, (said, said_deviation, level) in zip(cells, re.findall(FIGURE, row), strict=True):
            value, digits = tables.find(DOCS / "results", cell)
            spread = tables.deviation(DOCS / "results", cell)
            # Some tables have shares, some percent.
            factor, digits = (100, digits - 2) if value <= 1 else (1, digits)
            assert tables.shown(factor * value, digits) == said, cell
            # What stands beside it is not to be compared with a single run.
            assert "paper: " in cell or np.isfinite(spread), cell
            # skood's figure comes first, with its deviation.
            assert (said_deviation != "") == (cell == cells[0]), cell
            assert said_deviation in ("", tables.shown(factor * spread, digits)), cell
            if cell != cells[0] and "paper: " not in cell:
                first, relation = cells[0], "~" if level else ">"
                higher = value > tables.find(DOCS / "results", first)[0]
                pair = (cell, first) if higher else (first, cell)
                tables.check(DOCS / "results", f" {relation} ".join(pair))


def test_where_rotations_lose(tables):
    """The figures of the README's paragraph on what loses, of CIFAR-10."""
    said = re.search(r"\(([\d.]+) against ([\d.]+)\) and has ([\d.]+) % .* instead of ([\d.]+) %", README)
    names = ("with rotations, vim", "as many steps, vim", "with rotations, accuracy", "as many steps, accuracy")
    cells = [tables.find(DOCS / "results", f"rotation cifar10; mean; {name}") for name in names]
    assert [tables.shown(*cell) for cell in cells] == list(said.groups())


DETECTORS = [
    name for name in skood.__all__ if getattr(getattr(skood, name), "__module__", "").startswith("skood.detectors.")
]


def test_detectors_are_found():
    assert len(DETECTORS) >= 5


@pytest.mark.parametrize("name", [*DETECTORS, "SimCLREncoder", "FrozenEncoder", "BackboneClassifier"])
def test_docstrings_leave_figures_to_the_pages(name):
    """Pages are made of the results; a figure in a docstring would be a copy that nobody renews."""
    text = inspect.getdoc(getattr(skood, name))
    assert "benchmarks/" not in text
    assert "AUROC" not in text
    assert re.search(r"\d\.\d|\d %", text.partition("\nParameters\n")[0]) is None


@pytest.mark.parametrize("name", DETECTORS)
def test_summary_of_a_detector(name):
    """What it does, when to use it, how labels are used, and the page that says how it fares."""
    summary = inspect.getdoc(getattr(skood, name)).partition("\nParameters\n")[0]
    assert 18 <= summary.count("\n") <= 25
    assert "Labels: " in summary
    (page,) = re.findall(r"How it\s+fares:\s+:doc:`/(.*?)`", summary)
    assert f"`{name}`" in (DOCS / f"{page}.rst").read_text(encoding="utf-8")


# Shared parameters that mean something else in each method, or whose default depends on it.
OWN_MEANING = {
    "augmentation",
    "lr",
    "max_epochs",
    "network",
    "outliers",
    "scaling",
    "score_type",
    "temperature",
}
# What some detectors add to the words that all have in common.
ADDED = {
    "batch_size": ["; it has as many rows of the corpus"],
    "callbacks": [
        " They are not called in the pretraining.",
        " A callback that stops training ends the current step.",
        ' LRScheduler needs ``schedule="constant"``.',
        " LRScheduler is refused, because it knows only one of the two optimisers: use ``schedule``."
        " With ``weight_average``, callbacks that load the best weights at the end are refused, too.",
    ],
    "contamination": [
        " An ``encoder`` that was trained on the same rows is not trained again, so that these rows score too high.",
        " A ``backbone`` that was trained on the same rows is not trained again, so that these rows score too high.",
        ' "natural" is where exp(-h) = 1/2; it needs outliers in training, auxiliary or made, and the score "radial" or'
        ' "probability".',
        ' "natural" is a probability of 1/2, of the most probable class or, with the score "sum", of all reject'
        ' classes; or the middle of ``energy_margins``, with ``pseudo_labels="energy"`` and the score "energy".',
        ' "natural" is minus the divergence of a posterior of unit variance halfway between the priors, d s^2 / 8; it'
        ' needs negatives and the score "kl".',
    ],
    "early_stopping": [
        ", the same share of each class",
        " The pretraining stops early, too.",
        " Each of the two steps stops by its own loss.",
        " With ``weight_average`` these are the averaged weights.",
        " The same share of the auxiliary outliers is held out, too.",
    ],
    "hidden_sizes": [' or block of "residual"', "; the decoder has them in reverse order"],
    "max_grad_norm": [
        ", as in the paper",
        " With lambda = 5 the first gradients of step two are so large that without clipping a network forgets its"
        " classes, or stops learning.",
    ],
    "optimizer": [
        ", which is called for the encoder and for the decoder",
        " Both steps share it; a step does not change the other task's head.",
    ],
    "outlier_label": [
        " (the corpus)",
        " These rows are left out of training.",
        " These rows are left out of training, unless they are the negatives.",
    ],
    "precision": [" Likelihoods and divergences are float32 even then."],
    "schedule": [
        " Each of the two steps has its own schedule.",
        ' "steps" is the paper\'s: divided by five after 30, 60 and 80 %.',
    ],
    "verbose": [" for each step"],
    "warm_start": [" of its last step"],
    "weight_decay": [' With "l2sp" it applies to the head alone.'],
}


def descriptions(name):
    """Return the description of each parameter of a detector, as one line."""
    text = inspect.getdoc(getattr(skood, name)).partition("Parameters\n----------\n")[2].partition("\nAttributes\n")[0]
    parts = re.split(r"^(\w+) : .*\n", text, flags=re.MULTILINE)
    return {parameter: " ".join(words.split()) for parameter, words in zip(parts[1::2], parts[2::2], strict=True)}


SHARED = {
    parameter: [all_of[parameter] for all_of in map(descriptions, DETECTORS) if parameter in all_of]
    for parameter in sorted({parameter for name in DETECTORS for parameter in descriptions(name)} - OWN_MEANING)
}


@pytest.mark.parametrize("parameter", [parameter for parameter, texts in SHARED.items() if len(texts) > 1])
def test_shared_parameters_are_described_in_the_same_words(parameter):
    texts = SHARED[parameter]
    # The longest first: one addition may begin like another.
    for added in sorted(ADDED.get(parameter, []), key=len, reverse=True):
        assert any(added in text for text in texts), f"no detector says {added!r}: take it out of ADDED"
        texts = [text.replace(added, "", 1) for text in texts]
    assert len(set(texts)) == 1, "\n".join(sorted(set(texts)))


def test_every_detector_describes_its_parameters():
    for name in DETECTORS:
        assert descriptions(name).keys() == getattr(skood, name)().get_params().keys()


def test_means_of_a_file(tables, results):
    table = tables.vectors.tabular_of(results, "tabular_vae.csv")
    assert table.figures.round(9).to_dict("index") == {
        "new": {
            "inliers": 0.8,
            "hidden outliers": 0.5,
            "FPR95, inliers": 0.3,
            "ahead of kNN, inliers": "1 of 2",
            "ahead of kNN, hidden outliers": "0 of 2",
        },
        "kNN": {
            "inliers": 0.8,
            "hidden outliers": 0.65,
            "FPR95, inliers": 0.2,
            "ahead of kNN, inliers": "",
            "ahead of kNN, hidden outliers": "",
        },
    }
    assert table.remarks[1] == "Trained on rows with hidden outliers, kNN has the highest mean, 0.650."


def test_images_have_a_table_for_each_encoder(tables, results):
    head = "protocol,dataset,n_train,n_test,encoder,output,detector,against,severity,seed,auroc,pvalue,probe_accuracy,"
    head += "fit_seconds\n"
    rows = [
        "ood,clothes,50,20,one,embedding,DUM,digits,,0,80,,61,1",
        "ood,clothes,50,20,one,embedding,DUM,digits,,1,90,,61,1",
        "ood,clothes,50,20,one,embedding,DUM,letters,,0,95,,61,1",
        "ood,clothes,50,20,one,embedding,DUM,letters,,1,95,,61,1",
        "ood,clothes,50,20,two,embedding,DUM,digits,,0,70,,,1",
        "ood,clothes,50,20,,pixels,kNN,digits,,0,99,,55.5,1",
        "corruptions,clothes,50,20,one,embedding,DUM,fog,1,0,60,.01,61,1",
        "corruptions,clothes,50,20,one,embedding,DUM,fog,5,0,80,1e-7,61,1",
        "corruptions,clothes,50,20,one,embedding,DUM,snow,1,0,80,.5,61,1",
        "corruptions,clothes,50,20,one,embedding,DUM,fog,1,1,70,.001,61,1",
        "corruptions,clothes,50,20,one,embedding,DUM,snow,1,1,80,.04,61,1",
        *(f"corruptions,clothes,50,20,one,embedding,DUM,none,{n},0,50,{p},61,1" for n, p in enumerate((0.1, 1, 0.9))),
    ]
    (results / "dum_images.csv").write_text(head + "\n".join(rows) + "\n")
    one, two = tables.made(results, "dum images")
    assert one.figures.loc["embedding: DUM"].tolist() == [85, 95, 90, 61]
    assert two.figures.loc["embedding: DUM", "mean"] == 70
    assert one.figures.loc["pixels: kNN", "digits"] == two.figures.loc["pixels: kNN", "digits"] == 99
    assert one.remarks[0] == "The highest mean has pixels: kNN, 99.0; of DUM's, embedding: DUM, 90.0."
    # 80 and 90, and the means of digits and letters, 87.5 and 92.5; of the others there is one seed.
    known = one.deviations.loc["embedding: DUM"]
    assert known.round(6).to_dict() == {"digits": 7.071068, "letters": 0, "mean": 3.535534}
    assert two.deviations.isna().all(axis=None)
    assert one.remarks[1] == "The largest deviation over the seeds is 7.1."
    assert two.remarks[1] == "A single run each."
    # Of the other encoder nobody knows it.
    assert two.figures["linear probe"].isna().tolist() == [True, False]
    (corrupted,) = tables.made(results, "dum corruptions")
    assert "severities 1, 5" in corrupted.caption
    assert corrupted.figures.loc["fog"].to_dict() == {"paper, CIFAR-10-C": 64.2, "DUM": 70}
    assert corrupted.figures.loc["mean", "DUM"] == 75
    assert corrupted.remarks == ["A linear probe of embedding has 61.0 % of the classes right."]
    (pvalues,) = tables.made(results, "dum p-values")
    # The largest: .01 of fog, .5 of snow; of clean images the median, .9. The first seed finds fog, the second both.
    assert pvalues.figures["clothes, one embedding"].to_dict() == {
        "none": 0,
        "fog": -2,
        "snow": -0.3,
        "p < .05, of all": 1.5,
    }
    assert pvalues.deviations.round(6).loc["p < .05, of all"].to_dict() == {
        "paper, CIFAR-10-C": 0,
        "clothes, one embedding": 0.707107,
    }
    assert pvalues.figures.loc["fog", "paper, CIFAR-10-C"] == -300


def test_best_figures_are_bold(tables):
    import pandas as pd

    figures = pd.DataFrame({"auroc": [0.7, 0.9, 0.95], "fpr": [0.2, 0.5, 0.1]}, index=["a", "b", "paper"])
    bold = tables.directives._bold(tables.Table("", figures, best="in columns", outside=["paper"], lower=["fpr"]))
    assert bold.to_dict("index") == {"a": {"auroc": False, "fpr": True}, "b": {"auroc": True, "fpr": False}}
    bold = tables.directives._bold(tables.Table("", figures[["auroc"]].assign(other=0.8), best="in rows"))
    assert bold["other"].tolist() == [True, False, False]


def test_claims_hold_or_raise(tables, results):
    vae = "tabular NegSampleVAE"
    tables.check(results, f"{vae}; kNN; hidden outliers > {vae}; new; hidden outliers")
    errors = pytest.importorskip("sphinx.errors")
    for false in (f"{vae}; new; hidden outliers > {vae}; kNN; hidden outliers", f"{vae}; new; inliers"):
        with pytest.raises(errors.ExtensionError, match="do not bear out"):
            tables.check(results, false)
    # As shown, they are the same.
    with pytest.raises(errors.ExtensionError, match="do not bear out"):
        tables.check(results, f"{vae}; new; inliers > {vae}; kNN; inliers")
    with pytest.raises(errors.ExtensionError, match="no cell 'other', 'inliers'"):
        tables.check(results, f"{vae}; other; inliers > {vae}; kNN; inliers")
    with pytest.raises(errors.ExtensionError, match="no table 'nothing'"):
        tables.find(results, "nothing; new; inliers")


def test_runs_of_the_papers_size_are_not_averaged_with_small_ones(tables, tmp_path):
    """They would be: a run of either has the same names and seed."""
    shutil.copytree(DOCS / "results", tmp_path / "results")
    changed = []
    for path in sorted((tmp_path / "results").glob("*.csv")):
        runs = tables.read(tmp_path / "results", path.name, dtype=str, keep_default_na=False)
        small = runs["size"].eq("small") if "size" in runs else None
        if small is not None and small.any():
            changed.append(path.stem)
            figures = [name for name in runs if re.search("auroc|accuracy|^ap$|nats", name)]
            other = runs[small].assign(size="paper", **dict.fromkeys(figures, "0.5"))
            other.to_csv(path, mode="a", header=False, index=False)
    assert {"ns_vae", "adra_one_vs_rest", "reject_classes", "holdout_class"} <= {*changed}
    # Tables of that size alone change.
    of_papers_size = {"vae grey, paper"}
    for name in tables.TABLES:
        before, after = (tables.made(folder, name) for folder in (DOCS / "results", tmp_path / "results"))
        for one, other in zip(before, after, strict=True):
            assert one.figures.equals(other.figures) != (name in of_papers_size), name


def test_a_table_is_made_anew_when_a_file_changes(tables, results):
    (before,) = tables.made(results, "tabular NegSampleVAE")
    path = results / "tabular_vae.csv"
    runs = tables.read(results, path.name)
    runs.assign(auroc=runs["auroc"] / 2).to_csv(path, index=False)
    (after,) = tables.made(results, "tabular NegSampleVAE")
    assert (after.figures["inliers"] < before.figures["inliers"]).all()


def test_claims_know_deviations(tables, results, monkeypatch):
    """Figures that differ by less than a deviation are level; those of a single seed are not compared."""
    import pandas as pd

    errors = pytest.importorskip("sphinx.errors")
    figures = pd.DataFrame({"AUROC": [0.9, 0.8, 0.79, 0.5]}, index=["a", "b", "c", "single run"])
    spread = pd.DataFrame({"AUROC": [0.02, 0.01, 0.03]}, index=["a", "b", "c"])
    monkeypatch.setitem(tables.TABLES, "t", lambda results: tables.Table("", figures, deviations=spread))
    tables.check(results, "t; a; AUROC > t; b; AUROC ~ t; c; AUROC > 0.4")
    with pytest.raises(
        errors.ExtensionError, match=r"0\.8, 0\.79, deviations 0\.01, 0\.03: they are level, so write ~"
    ):
        tables.check(results, "t; b; AUROC > t; c; AUROC")
    with pytest.raises(errors.ExtensionError, match="they are not level"):
        tables.check(results, "t; a; AUROC ~ t; c; AUROC")
    for claim in ("t; c; AUROC ~ {}", "t; c; AUROC > {}", "{} > 0.4"):
        with pytest.raises(errors.ExtensionError, match="no deviation over seeds is known of 't; single run; AUROC'"):
            tables.check(results, claim.format("t; single run; AUROC"))


def test_deviations_are_over_seeds(tables, results):
    deviation = tables.deviation(results, "tabular NegSampleVAE; kNN; inliers")
    runs = tables.read(results, "tabular_vae.csv")
    runs = runs[(runs["protocol"] == "novelty") & (runs["detector"] == "kNN")]
    by_seed = runs.groupby("seed")["auroc"].mean()
    assert deviation == pytest.approx(by_seed.std(), nan_ok=True)
    assert np.isnan(tables.deviation(results, "tabular NegSampleVAE; kNN; FPR95, inliers"))


def test_missing_files_and_commands_raise(tables, results):
    errors = pytest.importorskip("sphinx.errors")
    with pytest.raises(errors.ExtensionError, match=r"tabular_reject\.csv is missing"):
        tables.made(results, "tabular RejectClassDetector")
    with pytest.raises(errors.ExtensionError, match=r"no command for tabular_reject\.csv"):
        tables.commands(results, "tabular_reject.csv")


def test_commands(tables, results):
    assert tables.commands(results, "tabular_vae.csv") == ['python tabular.py --detectors "A;B"']
    whole = ["# tables", "python ns_vae.py", "# seeds 1 to 4: the same with --seeds 5"]
    assert tables.commands(results, "ns_vae.csv") == whole
    assert tables.commands(results, "ns_vae.csv, tables") == whole[:2]
