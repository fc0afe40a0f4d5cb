"""benchmarks/holdout_class.py on digits, with one epoch: a class held out, and none."""

from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture
def run(load_benchmark, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    script = load_benchmark("holdout_class")

    def main(*arguments):
        own = ["--dataset", "digits", "--max-epochs", "1", "--data-home", str(tmp_path), "--out", str(tmp_path)]
        monkeypatch.setattr("sys.argv", ["holdout_class.py", *own, *arguments])
        script.main()
        return pd.read_csv(tmp_path / "results.csv", dtype={"class": str})

    return main


def test_with_a_class_held_out_and_with_none(run, capsys):
    runs = run("--classes", "none,3", "--classifiers", "classes;pixels")
    shown = capsys.readouterr().out
    assert "accuracy with all classes" in shown
    assert "average precision" in shown
    alone = runs[runs["class"] == "none"]
    # A mixture of pixels has no accuracy.
    assert list(alone["classifier"]) == ["classes"]
    assert alone[["score", "ap"]].isna().all(axis=None)
    assert 50 < alone["accuracy"].item() <= 100
    held_out = runs[runs["class"] == "3"]
    assert held_out["ap"].between(5, 100).all()
    assert set(held_out["classifier"]) == {"classes", "pixels"}


def test_an_unknown_class_is_named(run, capsys):
    with pytest.raises(SystemExit):
        run("--classes", "eleven")
    assert "digits has no 'eleven', but 0, 1, 2" in capsys.readouterr().err
