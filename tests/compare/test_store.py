"""Rows are added at the end of the file, and whatever others did to it in between stays."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from skood.compare.row import ResultRow
from skood.compare.store import Store


def row(number, auroc=None):
    auroc = number / 7 if auroc is None else auroc
    more = {"dataset": 'x, "y"', "protocol": "novelty", "seed": 0, "n_train": 1, "n_test": 2, "key": "k"}
    return ResultRow(detector=f"d{number}", auroc=auroc, **more)


def content(path):
    return (path / "results.csv").read_bytes()


def test_a_new_row_is_added_at_the_end_and_nothing_else_is_written(tmp_path):
    store = Store(tmp_path)
    store.add(row(0))
    file = (tmp_path / "results.csv").stat().st_ino
    for number in range(1, 20):
        before = content(tmp_path)
        store.add(row(number))
        assert content(tmp_path).startswith(before)
    assert (tmp_path / "results.csv").stat().st_ino == file
    # One that takes the place of another one is written into a new file.
    store.add(row(3, auroc=0.5))
    read = pd.read_csv(tmp_path / "results.csv")
    assert read["detector"].tolist() == [f"d{number}" for number in range(20)]
    assert read["auroc"].tolist() == pytest.approx([0.5 if number == 3 else number / 7 for number in range(20)])
    store.add(row(20))
    # All of it is what is read from the file.
    assert store.rows == Store(tmp_path).rows
    assert len(store.rows) == 21


def table_with_a_column(path):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.assign(note="mine, too").to_csv(path, index=False)


def without_the_last_line_end(path):
    path.write_bytes(path.read_bytes()[:-1])


def with_other_line_ends(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def with_a_damaged_line(path):
    path.write_bytes(path.read_bytes() + b"torn, li")


def with_a_row_of_another_process(path):
    Store(path.parent).add(row(50))


def reordered(path):
    head, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(head + b"".join(reversed(lines)))


def with_the_same_time(path):
    """A digit is changed, and the time of the file set back."""
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"0.142857", b"0.942857"))
    os.utime(path, ns=(time, time))


CHANGES = [
    table_with_a_column,
    without_the_last_line_end,
    with_other_line_ends,
    with_a_damaged_line,
    with_a_row_of_another_process,
    reordered,
    with_the_same_time,
    os.remove,
]


@pytest.mark.filterwarnings("ignore:.*damaged in line")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("again", [False, True], ids=["new", "replaced"])
def test_what_others_do_in_between_stays(tmp_path, change, again):
    store = Store(tmp_path)
    for number in range(3):
        store.add(row(number))
    change(tmp_path / "results.csv")
    for number in (2 if again else 3, 4, 5):
        store.add(row(number, auroc=0.5))
    read = pd.read_csv(tmp_path / "results.csv", keep_default_na=False).set_index("detector")
    kept = [] if change is os.remove else ["d0", "d1"] if again else ["d0", "d1", "d2"]
    others = ["d50"] if change is with_a_row_of_another_process else []
    assert sorted(read.index) == sorted([*kept, *others, "d2" if again else "d3", "d4", "d5"])
    if kept:
        assert read.loc["d1", "auroc"] == pytest.approx(0.942857 if change is with_the_same_time else 1 / 7, abs=1e-6)
    assert read.loc[["d4", "d5"], "auroc"].tolist() == [0.5, 0.5]
    if change is table_with_a_column:
        assert read.loc[kept, "note"].tolist() == ["mine, too"] * len(kept)
    assert (tmp_path / "results.csv.damaged").exists() == (change is with_a_damaged_line)
    # The file is whole: reading it again finds nothing to mend.
    before = content(tmp_path)
    Store(tmp_path)
    assert content(tmp_path) == before


def test_a_file_that_no_line_can_be_added_to_is_deleted(tmp_path):
    path = tmp_path / "results.csv"
    Store(tmp_path).add(row(0))
    with_other_line_ends(path)
    store = Store(tmp_path)
    path.unlink()
    store.add(row(1))
    assert pd.read_csv(path)["detector"].tolist() == ["d1"]


def test_two_stores_on_one_directory(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)
    for number in range(6):
        (first if number % 2 else second).add(row(number))
        (second if number % 3 else first).add(row(number, auroc=0.5))
    read = pd.read_csv(tmp_path / "results.csv")
    assert read["detector"].tolist() == [f"d{number}" for number in range(6)]
    assert (read["auroc"] == 0.5).all()


FULL = """
import resource, signal, sys
from skood.compare.row import ResultRow
from skood.compare.store import Store

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
for number in range(50):
    try:
        store.add(ResultRow(detector=f"d{number}", dataset="x", protocol="p", seed=0, n_train=1, n_test=2, key="k"))
    except OSError:
        print("full")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files")
def test_a_row_that_a_full_disk_cannot_hold_leaves_no_part_of_a_line(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = content(tmp_path).decode().splitlines(keepends=True)
    assert 2 <= len(lines) < 50
    assert done.stdout.count("full") == 51 - len(lines)
    assert all(line.endswith("\n") and line.count(",") == lines[0].count(",") for line in lines)
    assert [line.split(",")[0] for line in lines[1:]] == [f"d{number}" for number in range(len(lines) - 1)]
    assert np.all(pd.read_csv(tmp_path / "results.csv")["n_test"] == 2)
