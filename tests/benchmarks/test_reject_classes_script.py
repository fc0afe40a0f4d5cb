"""The scripts of the reject-class paper, on a few images of noise in the files' format."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

GREY = {"fashion_mnist_train": 60, "fashion_mnist_test": 40, "mnist_train": 60, "mnist_test": 40, "kmnist_t10k": 40}
GREY |= {"notmnist_10k": 40, "emnist_letters_train": 50}
COLOUR = {"cifar10_train_1000perclass": 40, "cifar10_test_500perclass": 40, "tinyimagenet_val_3000_32": 50}
COLOUR |= {"cifar100_train_100perclass": 60, "cifar100_test_20perclass": 40}


DIGITS = ("--dataset", "digits", "--size", "short", "--methods")


@pytest.fixture
def home(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name, n in (GREY | COLOUR).items():
        shape = (n, 3, 32, 32) if name in COLOUR else (n, 28, 28)
        # Kuzushiji are black, so that networks can tell them from the others.
        X = rng.integers(0, 1 if name == "kmnist_t10k" else 256, shape, dtype=np.uint8)
        np.savez(tmp_path / "images" / f"{name}.npz", X=X, y=np.arange(n) % 10)
    return tmp_path


@pytest.fixture
def command(home, load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")

    def run(script, *arguments):
        common = ["--data-home", str(home), "--out", str(home / "out"), "--device", "cpu", "--max-epochs", "1"]
        load_benchmark(script).main([*common, *arguments])
        return pd.read_csv(home / "out" / "results.csv")

    return run


def test_scores_of_the_classifier_alone_are_of_one_network(command, capsys):
    results = command("reject_classes", *DIGITS, "maximum softmax")
    assert set(results["score"]) == {"auto", "energy", "odin", "mahalanobis"}
    # It was trained once, so that accuracy and seconds are the same in all rows; what is scored differs.
    assert results[["accuracy", "seconds"]].drop_duplicates().shape == (1, 2)
    mixed = results[results["test_set"] == "mixed"]
    assert mixed["auroc"].nunique() == 4
    printed = capsys.readouterr().out
    for row in ("maximum softmax", "energy score", "ODIN", "Mahalanobis"):
        assert f"\n{row} " in printed
    for column in ("accuracy", "AUROC", "AUPR", "FPR95", "coverage", "risk", "total error"):
        assert f" {column} " in printed
    assert "±" not in printed


def test_corpus_is_never_among_the_unseen_sets(command):
    one = ["reject_classes", "--dataset", "fashion_mnist", "--size", "short", "--methods", "reject classes"]
    command(*one)
    command("reject_classes", "--dataset", "cifar10", *one[3:])
    results = command(*one, "--corpus", "kmnist")
    unseen = results.groupby("dataset")["test_set"].agg(set)
    assert unseen["cifar10"] == {"fashion_mnist", "notmnist", "cifar100_other_classes", "mixed"}
    assert unseen["fashion_mnist"] == {"mnist", "kmnist", "notmnist", "mixed"}
    assert unseen["fashion_mnist, corpus kmnist"] == {"mnist", "letters", "notmnist", "mixed"}
    with pytest.raises(SystemExit):
        command("reject_classes", "--dataset", "digits", "--size", "short", "--corpus", "kmnist")


def test_cifar_100_with_ten_and_fifty_reject_classes(command, capsys):
    own = ["reject_classes", "--dataset", "cifar100", "--methods"]
    command(*own, "reject classes, k = 10;reject classes, k = 50", "--size", "short", "--seeds", "2")
    printed = capsys.readouterr().out
    # Means with deviations over the seeds, beside the paper's figures for the one set that it has, too.
    assert " ± " in printed
    assert "65.12" in printed
    results = command(*own, "reject classes, k = 50", "--size", "small", "--corpus", "cifar10")
    unseen = results.groupby("dataset")["test_set"].agg(set)
    assert unseen["cifar100"] == {"fashion_mnist", "notmnist", "cifar10", "mixed"}
    assert unseen["cifar100, corpus cifar10"] == {"fashion_mnist", "notmnist", "tinyimagenet", "mixed"}
    counts = results[results["test_set"] == "notmnist"]
    used = counts["reject_classes"].str.split().map(len)
    assert (used == counts["method"].str.extract(r"(\d+)$", expand=False).astype(int)).all()


def test_blended_outliers_train_another_network(command):
    results = command("reject_classes", *DIGITS, "reject classes;reject classes, blended")
    mixed = results[results["test_set"] == "mixed"].set_index("method")["auroc"]
    assert mixed["reject classes, blended"] != mixed["reject classes"]


def test_one_class_against_the_others(command, capsys):
    results = command("reject_one_class", "--size", "short", "--classes", "airplane;ship")
    assert len(results) == 2 * 4
    assert set(results["method"]) == {"reject classes", "Deep SVDD", "hypersphere classifier", "kNN"}
    assert results["auroc"].between(0, 100).all()
    printed = capsys.readouterr().out
    assert "mean of 2" in printed
    assert "77.75" in printed
    with pytest.raises(SystemExit):
        command("reject_one_class", "--classes", "goat")
