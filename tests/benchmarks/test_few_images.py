"""benchmarks/few_images.py on a few digits, for an epoch or two."""

from pathlib import Path

import pandas as pd
import pytest


def test_command(load_benchmark, monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    script = load_benchmark("few_images")
    monkeypatch.setattr(script, "EPOCHS", ("1", "2"))
    arguments = ["--data-home", str(tmp_path), "--sets", "digits", "--sizes", "30", "--seeds", "1"]
    script.main([*arguments, "--out", str(tmp_path)])
    runs = pd.read_csv(tmp_path / "results.csv")
    assert list(runs["detector"]) == [*script.DETECTORS] * 2
    assert runs[["auroc", "accuracy"]].stack().between(0, 100).all()
    assert "RotationAuxClassifier" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        script.main([*arguments, "--detectors", "DUMDetector"])
    assert "no 'DUMDetector'; there are RejectClassDetector" in capsys.readouterr().err


def test_classes_and_corpus_do_not_overlap(load_benchmark, monkeypatch):
    """No image is both trained on and new; the digits known differ by seed."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    script = load_benchmark("few_images")
    for seed in (0, 1):
        X, y, X_new, y_new, X_out = script.load(None, "digits", 100, seed)
        assert (len(X), set(y), set(y_new)) == (100, set(range(6)), set(range(6)))
        seen = {image.tobytes() for image in X}
        assert not any(image.tobytes() in seen for image in (*X_new, *X_out))
