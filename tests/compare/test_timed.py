"""Cells that take too long: given up, said so, and the others go on."""

import math
import os
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest

from skood import compare_detectors
from skood.__main__ import main
from skood.compare import DETECTORS, NearestNeighborsDetector, format_table, summarize
from skood.compare.timed import TimedProcesses

# No fit here takes as long, on whatever machine.
AMPLE = 300
UNTIMED = ["detector", "dataset", "seed", "auroc", "error"]


class Stuck(NearestNeighborsDetector):
    """Never done fitting, unless the file is there."""

    def __init__(self, unless=None):
        super().__init__()
        self.unless = unless

    def fit(self, X, y=None):
        if not (self.unless and Path(self.unless).exists()):
            threading.Event().wait()
        return super().fit(X, y)


class Dying(NearestNeighborsDetector):
    def fit(self, X, y=None):
        os._exit(3)


class Exiting(NearestNeighborsDetector):
    def fit(self, X, y=None):
        sys.exit(3)


class Holding(NearestNeighborsDetector):
    """Holds what cannot be sent to another process, but can be copied."""

    def __init__(self, n_neighbors=5, held=None):
        super().__init__(n_neighbors)
        self.held = held


class Lock:
    def __init__(self):
        self.lock = threading.Lock()

    def __deepcopy__(self, memo):
        return self


def blob():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[40:] += 2
    return X, np.repeat([1, -1], [40, 20])


def wait_forever(_):
    threading.Event().wait()


def pid(_):
    return os.getpid()


def test_processes():
    with TimedProcesses(AMPLE, n_jobs=1) as processes:
        nothing = partial(int, 0)
        outcomes = list(processes.run(math.sqrt, [4, -1, 9], nothing))
        assert [call for call, _ in outcomes] == [4, -1, 9]
        assert [outcomes[0][1], outcomes[2][1]] == [2, 3]
        assert isinstance(outcomes[1][1], ValueError)
        # The one that is left is used again, and readied again.
        (_, first), (_, second) = processes.run(pid, [1, 2], nothing)
        assert first == second != os.getpid()
        assert list(processes.run(abs, [], nothing)) == []
        # What cannot get ready says why when it is called.
        assert list(processes.run(abs, [-5], partial(int, "no number"))) == [(-5, 5)]
    # Nothing is left of them.
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_what_takes_too_long_is_killed():
    with TimedProcesses(0.1, n_jobs=1) as processes:
        [(call, outcome)] = processes.run(wait_forever, ["x"], partial(int, 0))
    assert call == "x"
    assert isinstance(outcome, TimeoutError)


def test_left_early_nothing_goes_on():
    with TimedProcesses(AMPLE, n_jobs=1) as processes:
        _, number = next(processes.run(pid, [1, 2], partial(int, 0)))
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_the_others_go_on_and_give_the_same():
    detectors = {"dying": Dying(), "kNN": NearestNeighborsDetector(), "forest": IsolationForest(n_estimators=5)}
    timed = compare_detectors(detectors, {"blob": blob()}, seeds=1, timeout=AMPLE, n_jobs=2)
    assert timed["error"].str.startswith("ProcessDied: ").tolist() == [True, False, False]
    assert timed["n_train"].tolist() == [20] * 3
    detectors.pop("dying")
    serial = compare_detectors(detectors, {"blob": blob()}, seeds=1)
    columns = [column for column in serial if "seconds" not in column]
    pd.testing.assert_frame_equal(timed[columns][1:].reset_index(drop=True), serial[columns])
    assert (timed["fit_seconds"][1:] > 0).all()


LIMITS = [{"n_jobs": 2}, {"timeout": AMPLE}, {"n_jobs": 2, "timeout": AMPLE}]


@pytest.mark.parametrize("limits", LIMITS)
def test_a_process_that_dies_takes_nothing_with_it(tmp_path, limits):
    detectors = {"kNN": NearestNeighborsDetector(), "dying": Dying(), "last": NearestNeighborsDetector(1)}
    data = {"blob": blob(), "other": blob()}
    results = compare_detectors(detectors, data, seeds=2, out=tmp_path, **limits)
    died = results["error"].str.startswith("ProcessDied: the process ended")
    assert died.tolist() == [False, False, True, True, False, False] * 2
    assert len(pd.read_csv(tmp_path / "results.csv")) == 12
    detectors.pop("dying")
    pd.testing.assert_frame_equal(
        results[results["detector"] != "dying"][UNTIMED].reset_index(drop=True),
        compare_detectors(detectors, data, seeds=2)[UNTIMED],
    )


@pytest.mark.parametrize("limits", [{}, *LIMITS])
def test_a_detector_that_ends_the_program_is_a_row_that_says_so(limits):
    detectors = {"exiting": Exiting(), "kNN": NearestNeighborsDetector()}
    results = compare_detectors(detectors, {"blob": blob()}, seeds=1, **limits)
    assert results["error"].tolist() == ["SystemExit: 3", ""]


@pytest.mark.parametrize("limits", LIMITS)
def test_a_detector_that_cannot_be_sent_is_a_row_that_says_so(limits):
    detectors = {
        "kNN": NearestNeighborsDetector(),
        "holding": Holding(held=Lock()),
        "last": NearestNeighborsDetector(1),
    }
    results = compare_detectors(detectors, {"blob": blob()}, seeds=2, **limits)
    errors = results.set_index("detector")["error"]
    assert (errors[["kNN", "last"]] == "").all()
    reason = "cannot be sent to another process (TypeError: cannot pickle '_thread.lock' object)"
    assert errors["holding"].tolist() == [f"{reason}: use n_jobs=1 and no timeout."] * 2
    assert compare_detectors(detectors, {"blob": blob()}, seeds=1)["error"].tolist() == [""] * 3


def test_the_command_survives_a_fit_that_dies(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(DETECTORS, "OneClassSVM", Dying)
    X, y = blob()
    np.savez(tmp_path / "blob.npz", X=X, y=y)
    command = ["compare", "--data", str(tmp_path / "blob.npz"), "--only", "--detectors", "kNN,OneClassSVM,LOF"]
    assert main([*command, "--jobs", "2", "--seeds", "1", "--out", str(tmp_path / "out")]) == 0
    assert "OneClassSVM on blob, seed 0: ProcessDied: the process ended" in capsys.readouterr().out


def test_given_up_rows_say_so_and_are_tried_again_with_more_time(tmp_path):
    release = tmp_path / "release"
    detectors, data = {"stuck": Stuck(str(release))}, {"blob": blob()}

    def run(timeout):
        return compare_detectors(detectors, data, seeds=1, timeout=timeout, out=tmp_path / "out")

    first = run(0.1)
    assert first["error"].tolist() == ["t/o after 0.1 s"]
    assert first[["n_train", "n_test"]].to_numpy().tolist() == [[20, 40]]
    assert "| t/o |" in " ".join(format_table(summarize(first)).split())
    release.touch()
    # Now it would be done. But the same limit, or a lower one, is not tried again.
    pd.testing.assert_frame_equal(run(0.1), first)
    pd.testing.assert_frame_equal(run(0.05), first)
    later = run(AMPLE)
    assert later["error"].tolist() == [""]
    assert later["auroc"].item() > 0.7
    # What was measured is kept, whatever the limit is.
    pd.testing.assert_frame_equal(run(0.1), later)
    assert len(pd.read_csv(tmp_path / "out" / "results.csv")) == 1


def test_without_a_limit_given_up_rows_are_tried_again(tmp_path):
    detector = {"stuck": Stuck(str(tmp_path / "release"))}
    compare_detectors(detector, {"blob": blob()}, seeds=1, timeout=0.1, out=tmp_path)
    (tmp_path / "release").touch()
    assert compare_detectors(detector, {"blob": blob()}, seeds=1, out=tmp_path)["error"].tolist() == [""]
