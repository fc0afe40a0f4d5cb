"""The script of Figure 3 of the residual adapters' paper, on a few images."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skood.datasets import make_shapes


@pytest.fixture
def script(load_benchmark, monkeypatch):
    # It imports others.
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return load_benchmark("disentanglement")


def test_drawn_shapes(script, tmp_path, capsys):
    command = ["--size", "toy", "--seeds", "1", "--out", str(tmp_path), "--device", "cpu"]
    script.main([*command, "--methods", "frozen kNN;adapters K=2"])
    results = pd.read_csv(tmp_path / "results.csv")
    runs = results[results["data"] == "shapes"]
    assert runs.groupby("method").size().to_dict() == {"frozen kNN": 1, "adapters K=2": 1}
    for name in ("disentanglement", "completeness"):
        assert runs[name].between(0, 1).all()
    assert runs["auroc"].between(0, 100).all()
    assert runs["informativeness"].le(1).all()
    trained = runs.groupby("method")["n_adapter_parameters"].first()
    assert trained["frozen kNN"] == 0 < trained["adapters K=2"] < runs["n_backbone_parameters"].iloc[0]
    printed = capsys.readouterr().out
    assert "shapes, size toy, seeds: 1" in printed
    script.main([*command, "--methods", "frozen kNN"])
    assert len(pd.read_csv(tmp_path / "results.csv")) == len(results)
    with pytest.raises(SystemExit):
        script.main([*command, "--methods", "odd"])
    with pytest.raises(SystemExit):
        script.main([*command, "--factor-values", "odd.json"])


def test_nominal_images_are_of_one_kind(script):
    scenes = script.scenes("toy", ("red", "ring"), None, None, 0)
    size = script.SIZES["toy"]
    drawn = make_shapes(size.n_nominal, fixed={"object_color": "red", "object_shape": "ring"}, image_size=16)
    assert scenes.X.shape[1:] == drawn.X.shape[1:]
    assert scenes.nominal.sum() == size.n_nominal
    assert len(scenes.X_test) == len(scenes.factors_test) == size.n_test
    rings = scenes.factors_test.query("object_color == 'red' and object_shape == 'ring'").index
    assert np.flatnonzero(scenes.nominal_test).tolist() == rings.tolist()


def test_a_file_of_mpi3d(script, tmp_path):
    values = {"object_color": ["red", "blue"], "object_shape": ["cone", "cube"], "horizontal_axis": list(range(45))}
    images = np.random.default_rng(0).integers(256, size=(180, 32, 32, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "other.npz", images=images)
    (tmp_path / "values.json").write_text(json.dumps(values))
    nominal, file = ("blue", "cone"), tmp_path / "other.npz"
    scenes = script.scenes("toy", nominal, file, tmp_path / "values.json", 0)
    assert scenes.X.shape == (60, 3, 16, 16)
    assert scenes.X_test.shape == (60, 3, 16, 16)
    # Means of 2 x 2 pixels, in the order of the channels and of the factors.
    blue = scenes.factors_test["object_color"].eq("blue") & scenes.factors_test["object_shape"].eq("cone")
    assert scenes.nominal_test.tolist() == blue.tolist()
    row = scenes.factors_test.iloc[0]
    number = 90 * (row["object_color"] == "blue") + 45 * (row["object_shape"] == "cube") + row["horizontal_axis"]
    expected = images[number, :2, :2].mean((0, 1))
    np.testing.assert_allclose(scenes.X_test[0, :, 0, 0], expected, atol=0.5)
    command = ["--mpi3d", str(file), "--factor-values", str(tmp_path / "values.json"), "--nominal", "blue,cone"]
    command += ["--size", "toy", "--seeds", "1", "--methods", "frozen kNN", "--device", "cpu"]
    script.main([*command, "--out", str(tmp_path)])
    assert set(pd.read_csv(tmp_path / "results.csv")["data"]) == {"other", "none"}


def test_parameters_of_the_papers_network(script):
    """Section 4.1 of the paper: about 62.1 million for ten networks, and 20.2 million with adapters."""
    rows = [script.count(method) | {"backbone": "b", "method": method} for method in ("finetune", "adapters K=2")]
    table = script.ten_tasks(pd.DataFrame(rows))
    np.testing.assert_allclose(table.loc["b"], list(script.PAPER_MILLIONS.values()), rtol=0.06)
