"""The script of DUM's tables on vectors, on a few rows in the files' format."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import EllipticEnvelope


@pytest.fixture
def command(tmp_path, load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    script = load_benchmark("dum_uci")
    rng = np.random.default_rng(0)
    (tmp_path / "uci").mkdir()
    for name in ("pima", "wdbc"):
        np.savez(tmp_path / "uci" / f"{name}.npz", X=rng.normal(size=(40, 3)), y=np.repeat([0, 1], 20))

    def run(*arguments):
        script.main(["--data-home", str(tmp_path), "--out", str(tmp_path / "out"), *arguments])
        return pd.read_csv(tmp_path / "out" / "results.csv")

    return run


def test_method_that_fails_does_not_keep_others_from_being_run(command, tmp_path, monkeypatch, capsys):
    def failing(self, *arguments):
        raise ValueError("no covariance")

    own = ["--datasets", "pima,wdbc", "--methods", "EllipticEnvelope;kNN;LOF"]
    with monkeypatch.context() as patched:
        patched.setattr(EllipticEnvelope, "fit", failing)
        with pytest.raises(
            RuntimeError, match=r"2 of 6 runs failed, see above: uci/pima, 40, 20, EllipticEnvelope, 0;"
        ):
            command(*own)
    assert "ValueError: no covariance" in capsys.readouterr().out
    before = pd.read_csv(tmp_path / "out" / "results.csv")
    assert before["method"].tolist() == ["kNN", "LOF"] * 2
    assert len(command(*own)) == 6
    assert "Table 2: AUROC in %" in capsys.readouterr().out


def test_names_that_there_are_not(command, capsys):
    for own in (["--methods", "odd"], ["--datasets", "odd"]):
        with pytest.raises(SystemExit):
            command(*own)
        assert "no 'odd'; " in capsys.readouterr().err
