"""The table of results that are incomplete, read from a file, or of several kinds."""

import signal

import numpy as np
import pandas as pd
import pytest

from skood import compare_detectors
from skood.__main__ import main
from skood.compare import DETECTORS, NearestNeighborsDetector, format_table, summarize

FIRST, LAST = NearestNeighborsDetector(), NearestNeighborsDetector(1)


class Stopped(NearestNeighborsDetector):
    """Gets a Ctrl-C with the second seed."""

    def __init__(self, n_neighbors=5, random_state=None):
        super().__init__(n_neighbors)
        self.random_state = random_state

    def fit(self, X, y=None):
        if self.random_state == 1:
            signal.raise_signal(signal.SIGINT)
        return super().fit(X)


def blob(distance=1):
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[40:] += distance
    return X, np.repeat([1, -1], [40, 20])


def cells(table, detector):
    """Return the cells of a detector in a table of text."""
    [line] = [line for line in table.splitlines() if line.startswith(f"| {detector} ")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


# ------------------------------------------------------------------------------------------------------- interrupted


def test_means_over_fewer_seeds_are_not_compared():
    detectors = {"first": FIRST, "stopped": Stopped(1), "last": LAST}
    with pytest.warns(RuntimeWarning, match="interrupted"):
        results = compare_detectors(detectors, {"x": blob(), "y": blob(9)}, seeds=3)
    assert results[results["dataset"] == "x"]["detector"].tolist() == ["first"] * 3 + ["stopped"]
    table = summarize(results)
    assert table.index.tolist() == ["first", "stopped"]
    assert table.loc["stopped"].isna().all()
    assert table.loc["first", "x"] == results["auroc"][:3].mean()
    assert table.attrs["partial"] == ["stopped"]
    assert set(cells(format_table(table), "stopped")) == {"-"}


def test_a_mean_without_the_data_set_that_was_interrupted_has_an_asterisk():
    rows = [("a", "x", 0), ("a", "x", 1), ("a", "y", 0), ("a", "y", 1), ("b", "x", 0), ("b", "x", 1), ("b", "y", 1)]
    results = pd.DataFrame(rows, columns=["detector", "dataset", "seed"])
    results = results.assign(auroc=[0.6, 0.8, 0.5, 0.7, 0.5, 0.5, 1.0], aupr_out=0.5, fpr95=0.5, error="")
    results = results.assign(fit_seconds=1.0, score_seconds=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0])
    table = summarize(results)
    assert table["y"].isna().tolist() == [False, True]
    assert table.loc["b", ["x", "mean AUROC", "score s"]].tolist() == [0.5, 0.5, 1.0]
    text = format_table(table)
    assert cells(text, "b")[:3] == ["0.500", "-", "0.500*"]
    assert text.endswith("*: over fewer data sets than the others, and not compared with them.")


def test_the_command_does_not_mark_an_interrupted_detector_as_best(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(DETECTORS, "EllipticEnvelope", Stopped)
    X, y = blob()
    np.savez(tmp_path / "blob.npz", X=X, y=y)
    command = ["compare", "--data", str(tmp_path / "blob.npz"), "--only", "--detectors", "LOF,EllipticEnvelope"]
    assert main([*command, "--jobs", "1", "--out", str(tmp_path / "out")]) == 130
    for text in (capsys.readouterr().out, (tmp_path / "out" / "table.md").read_text()):
        assert set(cells(text, "EllipticEnvelope")) == {"vectors", "-"}
        assert cells(text, "LOF")[1].startswith("**")


# ------------------------------------------------------------------------------------------- files, several protocols


def test_results_read_from_a_file_are_those_that_were_returned(tmp_path):
    results = compare_detectors({"kNN": FIRST, "bad": NearestNeighborsDetector(-1)}, {"x": blob()}, out=tmp_path)
    table, read = summarize(results), summarize(pd.read_csv(tmp_path / "results.csv"))
    pd.testing.assert_frame_equal(read, table)
    assert format_table(read) == format_table(table)


def test_results_of_two_protocols_are_not_averaged():
    parts = [compare_detectors({"kNN": FIRST}, {"x": blob()}, seeds=1, protocol=p) for p in ("novelty", "contaminated")]
    with pytest.raises(ValueError, match=r"results of 2 protocols \(novelty, contaminated\).*results\[results"):
        summarize(pd.concat(parts))
