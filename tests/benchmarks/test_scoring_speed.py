"""That benchmarks/scoring_speed.py measures what it says, and what it writes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def speed(load_benchmark, monkeypatch):
    # The script imports another one.
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load_benchmark("scoring_speed")


def test_whole_script(speed, tmp_path, capsys):
    pytest.importorskip("pyod")
    path, n_threads = tmp_path / "speed.csv", torch.get_num_threads()
    speed.main(["--small", "--rounds", "1", "--threads", "1", "--rows", "50", "--out", str(path)])
    table = pd.read_csv(path)
    assert (table[["threads", "rounds"]] == 1).all(axis=None)
    assert (table[["ms_per_row", "ratio"]] > 0).all(axis=None)
    found = table.groupby("task")["estimator"].agg(set)
    vectors = {"DUMDetector", "NegSampleVAE", "RejectClassDetector", "ResidualAdapterDetector", "RotationAuxClassifier"}
    images = {"RejectClassDetector", "FrozenEncoder"}
    assert found.to_dict() == {
        "vectors": vectors,
        "one row": vectors,
        "images 3 x 32 x 32, wrn-16-2": images,
        "images 3 x 32 x 32, resnet-18": images,
        "one image 3 x 32 x 32, resnet-18": {"RejectClassDetector"},
        "images 3 x 48 x 48, resnet-18": {"FrozenEncoder"},
        "PyOD, scoring": {"NegSampleVAE"},
        "PyOD, fitting": {"NegSampleVAE"},
    }
    vectors = table[table["task"] == "vectors"].set_index("estimator")["n_rows"]
    assert vectors.pop("RotationAuxClassifier") == 5
    assert (vectors == 50).all()
    assert set(table["against"][table["task"].str.startswith("PyOD")]) == {"PyOD AutoEncoder", "PyOD VAE"}
    assert torch.get_num_threads() == n_threads
    assert "ResidualAdapterDetector" in capsys.readouterr().out


def test_everything_runs_once_in_turn(speed):
    ran = []
    functions = {
        name: lambda name=name: ran.append((name, torch.get_num_threads())) for name in ("slow", "fast", "ours")
    }
    ours = {"ours": functions.pop("ours")}
    table = speed.measured([speed.Contest("names", 10, ours, functions)], [1, 2], 2, CPU)
    assert table[["threads", "estimator", "rounds"]].to_numpy().tolist() == [[1, "ours", 2], [2, "ours", 2]]
    # The first of three rounds is not counted.
    assert ran == [(name, n_threads) for n_threads in (1, 2) for name in ("slow", "fast", "ours")] * 3


def test_ratio_is_to_the_best_of_the_others(speed):
    contest = speed.Contest("names", 10, {"a": None, "b": None}, {"slow": None, "fast": None})
    seconds = {"slow": [5, 5, 5], "fast": [1, 2, 90], "a": [2, 2, 9], "b": [1, 1, 1]}
    first, second = speed.compared(contest, {name: np.array(values) for name, values in seconds.items()})
    # Of the rounds' ratios 0.5, 1 and 10, and of 2 seconds for ten rows.
    expected = {"task": "names", "estimator": "a", "against": "fast", "n_rows": 10, "ms_per_row": 200, "ratio": 1}
    assert first == expected
    assert (second["estimator"], second["ms_per_row"], second["ratio"]) == ("b", 100, 2)


@pytest.mark.parametrize("shape", [(7, 3), (7, 2, 4, 4)])
def test_plain_loop_is_the_module_in_evaluation_mode(speed, shape):
    layer = nn.Linear(3, 2) if len(shape) == 2 else nn.Conv2d(2, 3, 3)
    module = nn.Sequential(layer, nn.Dropout(0.5)).train()
    X = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ((name, run),) = speed.best_plain_loop(module, X, CPU).items()
    assert name in ("plain loop, batches of 1", "plain loop, batches of 4")
    with torch.inference_mode():
        expected = layer(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(run(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(speed.plain_loop(module, X, 3, CPU)(), expected, rtol=1e-5, atol=1e-6)
    assert module.training


def test_file_keeps_what_other_devices_did(speed, tmp_path):
    path = tmp_path / "new" / "speed.csv"
    for device, ratio in (("cpu", 1.0), ("a card", 2.0), ("cpu", 0.123456)):
        speed.write(pd.DataFrame({"device": [device], "ratio": [ratio]}), path)
    assert path.read_text() == "device,ratio\na card,2\ncpu,0.1235\n"
