"""The suite of near and far sets, on a few images of noise in the files' format."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FILES = {
    "cifar10_train_1000perclass": 3,
    "cifar10_test_500perclass": 3,
    "cifar100_train_100perclass": 3,
    "cifar100_test_20perclass": 3,
    "tinyimagenet_val_3000_32": 3,
    "mnist_test": 1,
    "kmnist_t10k": 1,
    "notmnist_10k": 1,
    "fashion_mnist_test": 1,
}


@pytest.fixture
def home(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name, channels in FILES.items():
        shape = (80, 3, 32, 32) if channels == 3 else (80, 28, 28)
        X = rng.integers(0, 256, shape, dtype=np.uint8)
        np.savez(tmp_path / "images" / f"{name}.npz", X=X, y=np.arange(80) % 10)
    np.savez(tmp_path / "black.npz", X=np.zeros((50, 3, 32, 32), np.uint8))
    return tmp_path


def test_all_classifiers_on_all_sets(home, load_benchmark, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    suite = load_benchmark("ood_suite")
    command = ["--data-home", str(home), "--size", "toy", "--seeds", "1", "--out", str(home / "out"), "--device", "cpu"]
    suite.main([*command, "--far", f"black={home / 'black.npz'}"])
    results = pd.read_csv(home / "out" / "results.csv")
    assert set(results["classifier"]) == set(suite.CLASSIFIERS)
    assert set(results.loc[results["kind"] == "far", "against"]) == {"mnist", "kmnist", "notmnist", "clothes", "black"}
    assert set(results.loc[results["kind"] == "near", "against"]) == {"cifar100, odd classes", "tiny imagenet"}
    own = results[results["score"] == "own"].groupby("classifier").size()
    assert own.to_dict() == dict.fromkeys(suite.CLASSIFIERS, 7)
    assert results["auroc"].between(0, 100).all()
    # Any score tells black images from noise, or noise from black ones.
    assert (results.query("against == 'black' and score == 'knn'")["auroc"] > 90).all()
    assert "near: AUROC in %" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        suite.main([*command, "--classifiers", "odd"])
