"""A comparison that is killed at any time goes on where it was, and loses or doubles nothing."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

# How often at least; SKOOD_KILLS asks for more than the suite has time for.
KILLS = int(os.environ.get("SKOOD_KILLS", "1"))

# It kills itself, with all that it is at, when so many rows or scores were begun to be written, before or after one is.
SCRIPT = """
import os, signal, sys
import numpy as np
from skood import compare_detectors
from skood.compare import NearestNeighborsDetector

out, moment = sys.argv[1], int(sys.argv[2])
calls = ("os.rename", "open", "os.remove")
n_seen = 0

def count(event, arguments):
    global n_seen
    if event in calls and str(arguments[0]).startswith(out):
        n_seen += 1
        if n_seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
X = np.random.default_rng(0).normal(size=(60, 3))
X[40:] += 2
y = np.repeat([1, -1], [40, 20])
compare_detectors({"kNN": NearestNeighborsDetector()}, {"blob": (X, y), "other": (-X, y)}, seeds=4, out=out)
"""


def run(out, moment):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", SCRIPT, str(out), str(moment)], env=env)
    return done.returncode


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_and_resumed(tmp_path):
    assert run(tmp_path / "whole", 10**9) == 0
    expected = pd.read_csv(tmp_path / "whole" / "results.csv").sort_values(["dataset", "seed"], ignore_index=True)
    rng, n_killed, n_runs = np.random.default_rng(0), 0, 0
    while n_killed < KILLS:
        n_runs, n_rows = n_runs + 1, 0
        out = tmp_path / str(n_runs)
        # About a hundred files are opened, renamed or removed in a whole run.
        while run(out, int(rng.integers(2, 80))) != 0:
            n_killed += 1
            rows = len(pd.read_csv(out / "results.csv")) if (out / "results.csv").exists() else 0
            assert rows >= n_rows
            n_rows = rows
        found = pd.read_csv(out / "results.csv").sort_values(["dataset", "seed"], ignore_index=True)
        columns = ["detector", "dataset", "seed", "auroc", "error", "key"]
        pd.testing.assert_frame_equal(found[columns], expected[columns])
