"""A comparison loses nothing: two at a time, killed, on a full disk, with files that were damaged in between."""

import os
import select
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from skood import compare_detectors
from skood.__main__ import main
from skood.compare import NearestNeighborsDetector
from skood.compare.store import as_file_name, read_scores, scores_path

DETECTORS = {"kNN": NearestNeighborsDetector(), "forest": IsolationForest(n_estimators=3)}
METRICS = ["detector", "dataset", "seed", "auroc", "error"]


def blob(seed=0):
    X = np.random.default_rng(seed).normal(size=(60, 3))
    X[40:] += 2
    return X, np.repeat([1, -1], [40, 20])


def compared(out, seeds=2, **options):
    return compare_detectors(DETECTORS, {"blob": blob()}, seeds=seeds, out=out, **options)


def command(out, *arguments, name="blob.npz"):
    """Run the command on a file and return its exit code."""
    path = out.parent / name
    if not path.exists():
        X, y = blob()
        np.savez(path, X=X, y=y)
    options = ["--detectors", "kNN,IsolationForest", "--only", "--jobs", "1", "--out", str(out), *arguments]
    try:
        return main(["compare", "--data", str(path), "--seeds", "1", *options])
    except SystemExit as end:
        return end.code


def stored(out):
    return pd.read_csv(out / "results.csv", keep_default_na=False)


# ------------------------------------------------------------------------------------------------------- at one time


def test_two_runs_on_one_directory(tmp_path):
    """Rows of both are there, each once; rows that are out of date are replaced, and not those of the other run."""
    compare_detectors(DETECTORS, {"blob": blob(7)}, seeds=8, out=tmp_path)
    runs = [{"seeds": range(5)}, {"seeds": range(3, 8)}, {"seeds": range(8), "protocol": "contaminated"}]
    with ThreadPoolExecutor(len(runs)) as threads:
        parts = list(threads.map(lambda options: compared(tmp_path, **options), runs))
    rows = stored(tmp_path)
    assert len(rows) == 2 * 8 + 2 * 8
    assert not rows.duplicated(["detector", "dataset", "protocol", "seed"]).any()
    # The seconds tell that nothing is done again.
    again = compared(tmp_path, seeds=8)
    assert {*again["fit_seconds"]} <= {*parts[0]["fit_seconds"], *parts[1]["fit_seconds"]}


SCRIPT = """
import os, sys, threading
import numpy as np
from skood import compare_detectors
from skood.compare import NearestNeighborsDetector

class Stuck(NearestNeighborsDetector):
    def fit(self, X, y=None):
        # Open until the process ends.
        os.write(os.open(sys.argv[1], os.O_WRONLY), b"x")
        threading.Event().wait()

X = np.random.default_rng(0).normal(size=(60, 3))
compare_detectors({"stuck": Stuck()}, {"blob": (X, np.repeat([1, -1], [40, 20]))}, seeds=2, timeout=600, n_jobs=2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    """Its class is of a script without a main guard. The pipe ends when the last worker does."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = SCRIPT.replace("sys.argv[1]", repr(str(pipe)))
    (tmp_path / "script.py").write_text(script)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], env=env)
    try:
        with open(pipe, "rb", buffering=0) as end:
            begun = b""
            while len(begun) < 2:
                assert select.select([end], [], [], 120)[0], "no fit began"
                begun += end.read(2)
            parent.kill()
            assert select.select([end], [], [], 60)[0], "workers live on"
            assert end.read() == b""
    finally:
        parent.kill()
        parent.wait()


# ------------------------------------------------------------------------------------------------------ damaged files


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a directory of finished results with a column that a user added, and the results."""
    out = tmp_path_factory.mktemp("good")
    results = compared(out)
    table = pd.read_csv(out / "results.csv", dtype=str, keep_default_na=False)
    table.assign(note="mine").to_csv(out / "results.csv", index=False)
    return out, results


def resumed(good, content):
    """Compare again on damaged results; return what is left of the user's column, and the warnings."""
    out, expected = good
    whole = (out / "results.csv").read_bytes()
    try:
        (out / "results.csv").write_bytes(content(whole))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = compared(out)
        pd.testing.assert_frame_equal(results[METRICS], expected[METRICS])
        rows = stored(out)
        assert len(rows) == len(expected)
        return rows, [str(warning.message) for warning in caught]
    finally:
        (out / "results.csv").write_bytes(whole)


def line(number, change):
    """Return what changes one line of a file."""

    def changed(content):
        lines = content.split(b"\n")
        lines[number] = change(lines[number])
        return b"\n".join(lines)

    return changed


@pytest.mark.parametrize(
    ("damage", "n_damaged"),
    [
        (line(2, lambda text: text[:40]), 1),
        (line(2, lambda text: text[:40] + b"\0" + text[41:]), 1),
        (line(2, lambda text: b"\xff\xfe" + text), 1),
        (line(2, lambda text: text.replace(b"novelty,0", b"novelty,", 1).replace(b"novelty,1", b"novelty,")), 1),
        (line(2, lambda text: b'"' + text), 1),
        (line(2, lambda text: text.replace(b",mine", b",t/o after x,mine")), 1),
        (line(3, lambda text: text + b",,"), 1),
        (line(1, lambda text: b"<<<<<<< HEAD"), 1),
        (lambda text: text[:-1], 0),
        (lambda text: text.replace(b"\n", b"\r\n"), 0),
        (lambda text: b"\xef\xbb\xbf" + text, 0),
        (lambda text: text + b"\n\n", 0),
    ],
)
def test_damaged_lines_are_named_and_done_again(good, damage, n_damaged):
    aside = good[0] / "results.csv.damaged"
    aside.unlink(missing_ok=True)
    rows, told = resumed(good, damage)
    assert (rows["note"] == "mine").sum() == 4 - n_damaged
    assert aside.exists() == bool(n_damaged)
    assert ["results.csv: damaged in line " in message for message in told] == [True] * n_damaged


# Each example is a comparison: a quarter of the profile's examples will do.
@settings(max_examples=settings().max_examples // 4)
@given(place=st.integers(0, 2**20), byte=st.integers(0, 255))
def test_no_byte_of_the_results_loses_a_row(good, place, byte):
    def tampered(content):
        content = bytearray(content)
        content[place % len(content)] = byte
        return bytes(content)

    out, expected = good
    whole = (out / "results.csv").read_bytes()
    header = whole.index(b"\n") + 1
    changed = tampered(whole)
    (out / "results.csv").write_bytes(changed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = compared(out)
    except ValueError as error:
        assert "results.csv holds something else" in str(error)  # noqa: PT017
        assert changed[:header] != whole[:header]
        return
    finally:
        (out / "results.csv").write_bytes(whole)
    # A digit may have become another one: no checksum is kept of a file that people read and write.
    assert again[["detector", "dataset", "seed"]].equals(expected[["detector", "dataset", "seed"]])


@pytest.mark.parametrize("content", [b"", b"PK\3\4 torn", b"x" * 1000])
def test_damaged_scores_are_named_and_done_again(tmp_path, capsys, content):
    out = tmp_path / "out"
    assert command(out) == 0
    path = scores_path(out, "blob", "novelty", "kNN")
    before = read_scores(path)
    path.write_bytes(content)
    capsys.readouterr()
    assert command(out) == 0
    told = capsys.readouterr().err
    assert f"{path}: not a .npz file" in told
    assert "allow_pickle" not in told
    assert path.with_name(f"{path.name}.damaged").read_bytes() == content
    for now, once in zip(read_scores(path), before, strict=True):
        np.testing.assert_array_equal(now, once)


@pytest.mark.parametrize(
    "changes", [{"y": np.zeros(3)}, {"score": np.full(40, np.nan)}, {"threshold": np.zeros(2)}, {"x": 1}]
)
def test_scores_of_another_kind_are_done_again(tmp_path, changes):
    compared(tmp_path)
    path = scores_path(tmp_path, "blob", "novelty", "kNN")
    changed = read_scores(path)._asdict() | changes
    with path.open("wb") as file:
        np.savez(file, **changed)
    with pytest.warns(UserWarning, match="holds no scores of a comparison"):
        compared(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compared(tmp_path)


# -------------------------------------------------------------------------------------------------------------- names

NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=300)


@given(NAMES, NAMES)
def test_names_of_files_are_injective(first, second):
    for name in (first, second):
        text = as_file_name(name)
        assert len(text.encode()) <= 70
        assert not set(text) & set('/\\:*?"<>|\0\n')
    # Some file systems take capitals for small letters.
    assert (as_file_name(first).lower() == as_file_name(second).lower()) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"), [("x/a", "x_a"), ("A", "a"), ("x" * 250, "x" * 251), ("é", "e\u0301"), ("a.", "a")]
)
def test_data_sets_of_similar_names_have_files_of_their_own(tmp_path, first, second):
    compare_detectors(DETECTORS, {first: blob(0), second: blob(1)}, seeds=1, out=tmp_path)
    paths = {scores_path(tmp_path, name, "novelty", "kNN") for name in (first, second)}
    assert len({str(path).lower() for path in paths}) == 2
    assert all(path.exists() and len(path.name) <= 200 for path in paths)


@pytest.mark.parametrize("name", ["two\nlines", "", "nul\0"])
def test_names_of_several_lines_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="cannot name a detector or a data set"):
        compare_detectors(DETECTORS, {name: blob()}, seeds=1, out=tmp_path)


def test_the_stem_of_a_file_may_be_long(tmp_path):
    assert command(tmp_path / "out", name="x" * 230 + ".npz") == 0
    assert stored(tmp_path / "out")["dataset"].tolist() == ["x" * 230] * 2


# ------------------------------------------------------------------------------------------------ what is in the way


@pytest.mark.parametrize("part", ["results.csv", "table.md", "auroc.png", "scores-blob.png", "results.part"])
def test_a_part_that_is_a_folder(tmp_path, capsys, part):
    pytest.importorskip("matplotlib")
    (tmp_path / "out" / part).mkdir(parents=True)
    assert command(tmp_path / "out") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("python -m skood compare: error: ")
    assert part in told or "Is a directory" in told


def test_scores_that_are_no_folder(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores").touch()
    assert command(tmp_path / "out") == 2
    assert "cannot write into" in capsys.readouterr().err.splitlines()[-1]


FULL = """
import resource, sys
from skood.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files")
def test_a_full_disk_is_one_line(tmp_path):
    """What does not fit is not written, and what was there stays."""
    out = tmp_path / "out"
    assert command(out) == 0
    before = (out / "results.csv").read_bytes()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    arguments = ["compare", "--data", str(tmp_path / "blob.npz"), "--seeds", "9", "--only", "--detectors", "kNN"]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *arguments, "--jobs", "1", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("python -m skood compare: error: ")
    lines = before.splitlines()
    assert (out / "results.csv").read_bytes().splitlines()[: len(lines)] == lines
