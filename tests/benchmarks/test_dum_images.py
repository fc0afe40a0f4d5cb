"""Published images in benchmarks/dum_images.py: SVHN as either set, a folder, and CIFAR-10-C."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from skood.corruptions import CORRUPTIONS


@pytest.fixture
def command(tmp_path, load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    script = load_benchmark("dum_images")
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in ("cifar10_train_1000perclass", "cifar10_test_500perclass", "cifar100_test_20perclass"):
        X = rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
        np.savez(tmp_path / "images" / f"{name}.npz", X=X, y=np.arange(10))
    black = np.zeros((32, 32, 3, 12), np.uint8)
    savemat(tmp_path / "svhn.mat", {"X": black, "y": np.ones((12, 1), np.uint8)})
    common = ["--data-home", str(tmp_path), "--encoder", "shipped", "--detectors", "kNN", "--device", "cpu"]

    def run(*arguments):
        script.main([*common, "--out", str(tmp_path / "out"), *arguments])
        return pd.read_csv(tmp_path / "out" / "results.csv")

    return run


def test_sets_of_other_files(command, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "LSUN").mkdir()
    for number in range(3):
        image.new("RGB", (40, 36)).save(tmp_path / "LSUN" / f"{number}.png")
    results = command(
        "--dataset", "cifar10", "--against", f"svhn={tmp_path / 'svhn.mat'}", "--against", f"lsun={tmp_path / 'LSUN'}"
    )
    assert set(results["against"]) == {"cifar100_test_20perclass", "svhn", "lsun"}
    # Black images are far from noise.
    assert (results.set_index("against").loc[["svhn", "lsun"], "auroc"] == 100).all()
    with pytest.raises(SystemExit):
        command("--dataset", "cifar10", "--against", "svhn=missing.mat")
    assert "'svhn=missing.mat' must be NAME=PATH" in capsys.readouterr().err


def test_another_set_in_distribution(command, tmp_path):
    noise = tmp_path / "images" / "cifar10_test_500perclass.npz"
    own = ["--train", str(tmp_path / "svhn.mat"), "--test", str(tmp_path / "svhn.mat")]
    results = command("--dataset", "svhn", *own, "--against", f"noise={noise}")
    assert (results[results["detector"] == "kNN"]["auroc"] == 100).all()
    assert set(results["against"]) == {"noise"}
    with pytest.raises(SystemExit):
        command("--dataset", "svhn")
    with pytest.raises(SystemExit):
        command("--dataset", "cifar10", *own)


def test_published_corruptions(command, tmp_path):
    # Nearly black images are far from noise.
    dark = np.random.default_rng(1).integers(0, 20, (50, 32, 32, 3), dtype=np.uint8)
    for name in CORRUPTIONS:
        np.save(tmp_path / f"{name}.npy", dark)
    np.save(tmp_path / "labels.npy", np.zeros(50, int))
    made = command("--dataset", "cifar10", "--protocol", "corruptions", "--severities", "1")
    assert set(made["protocol"]) == {"corruptions"}
    both = command(
        "--dataset", "cifar10", "--protocol", "corruptions", "--severities", "1", "--corrupted", str(tmp_path)
    )
    published = both[(both["protocol"] == "published corruptions") & (both["against"] != "none")]
    assert set(published["against"]) == set(CORRUPTIONS)
    assert (published["auroc"] == 100).all()
