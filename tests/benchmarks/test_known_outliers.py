"""benchmarks/known_outliers.py on small sets, with the methods that train no network."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def script(load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return load_benchmark("known_outliers")


def test_command(script, tmp_path, capsys):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.repeat([0, 1], [40, 20])
    X[y == 1] += 9
    for folder, name in (("adbench", "1_small"), ("adbench", "10_cover"), ("adbench_embeddings", "text")):
        (tmp_path / folder).mkdir(exist_ok=True)
        np.savez(tmp_path / folder / f"{name}.npz", X=X, y=y)
    arguments = ["--data-home", str(tmp_path), "--seeds", "2", "--out", str(tmp_path / "out")]
    script.main([*arguments, "--methods", "kNN;RandomForest"])
    runs = pd.read_csv(tmp_path / "out" / "results.csv")
    assert runs[["data_set", "method"]].drop_duplicates().to_numpy().tolist() == [
        ["adbench/1_small", "kNN"],
        ["adbench/1_small", "RandomForest"],
    ]
    assert (runs["alike"] > 99).all()
    assert (runs.loc[runs["method"] == "kNN", "far"] == 100).all()
    assert "RandomForest" in capsys.readouterr().out
    script.main([*arguments, "--held-out", "--methods", "kNN"])
    runs = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(runs["data_set"][-4:]) == {"adbench/10_cover", "adbench_embeddings/text"}
    with pytest.raises(SystemExit):
        script.main([*arguments, "--methods", "LOF"])
    assert "there is no 'LOF'; choose of reject classes, corpus" in capsys.readouterr().err


def test_one_side_is_the_corpus_and_the_other_is_scored(script):
    """No row is both trained on and scored. A plane parts the corpus from the outliers of the other side."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), np.repeat([1, -1], [40, 20])
    for seed in (0, 1):
        train, test, pairs, far = script.split(X, y, seed)
        assert sorted([*train[:, 0], *test[:, 0]]) == sorted(X[:40, 0])
        for known, unseen in pairs.values():
            assert sorted([*known[:, 0], *unseen[:, 0]]) == sorted(X[40:, 0])
        known, unseen = pairs["other_side"]
        directions = rng.normal(size=(1000, 2)) / train.std(0)
        assert any((known @ one).max() < (unseen @ one).min() for one in directions)
        assert np.median(np.linalg.norm(far, axis=1)) > 50
