"""benchmarks/adra_one_vs_rest.py on small noise: the sets of images, and what it refuses."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def script(load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return load_benchmark("adra_one_vs_rest")


@pytest.fixture
def run(script, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    sides = dict.fromkeys(("stl10_train_500a_96", "stl10_train_500b_96", "stl10_test_200_96"), 12)
    for name, side in {**sides, script.CORPUS: 8}.items():
        X = rng.integers(0, 256, (20, 3, side, side), dtype=np.uint8)
        np.savez(tmp_path / "images" / f"{name}.npz", X=X, y=np.arange(20) % 10)

    def main(*arguments):
        own = ["--data-home", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]
        monkeypatch.setattr("sys.argv", ["adra_one_vs_rest.py", *own, *arguments])
        script.main()
        return pd.read_csv(tmp_path / "out" / "results.csv")

    return main


def test_a_class_of_stl10_held_out(run, capsys):
    own = ["--dataset", "stl10", "--backbone", "shipped", "--protocol", "hold-one-out", "--classes", "monkey"]
    runs = run(*own, "--methods", "frozen kNN;adapters K=2", "--max-epochs", "1")
    assert runs[["dataset", "protocol", "target"]].drop_duplicates().values.tolist() == [
        ["stl10", "hold-one-out", "monkey"]
    ]
    assert runs["auroc"].between(0, 100).all()
    # The paper's figures stand beside ours.
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("monkey")]
    assert rows[0][-3:] == ["18.4", "14.9", "44.2"]


def test_the_corpus_gets_the_size_of_the_images(script):
    grey = np.full((3, 3, 4, 4), 100, dtype=np.uint8)
    assert script.enlarged(grey, (4, 4)) is grey
    larger = script.enlarged(grey, (12, 12))
    assert larger.shape == (3, 3, 12, 12)
    assert larger.dtype == np.uint8
    assert (larger == 100).all()


def test_held_out_images_need_many_of_each_class(run, capsys):
    with pytest.raises(SystemExit):
        run("--dataset", "stl10", "--held-out")
    assert "--held-out needs the 1000 training images per class" in capsys.readouterr().err
