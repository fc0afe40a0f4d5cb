"""The main job: the function, its files, and the command."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from skood import (
    DUMDetector,
    FrozenEncoder,
    OODScorer,
    RejectClassDetector,
    SimCLREncoder,
    ThresholdedDetector,
    __version__,
    compare_detectors,
)
from skood.__main__ import main
from skood.compare import BASELINES, DETECTORS, NearestNeighborsDetector, format_table, split, summarize
from skood.compare.fingerprint import fingerprint
from skood.compare.pictures import save_mean_auroc
from skood.compare.run import MADE_FOR
from skood.metrics import aupr_out, auroc, fpr_at_tpr
from skood.model_selection import DropOutliers

FAST = {"kNN": NearestNeighborsDetector(), "forest": IsolationForest(n_estimators=10)}


def blob(n=60, n_outliers=20, d=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n + n_outliers, d))
    X[n:] += 3
    return X, np.repeat([1, -1], [n, n_outliers])


class Failing(BaseEstimator):
    def fit(self, X, y=None):
        raise RuntimeError("cannot\ndo that")


class FailingOnAFile(BaseEstimator):
    """Fails with the name of a file that is not UTF-8, and with a character that no line of a table can have."""

    def fit(self, X, y=None):
        raise FileNotFoundError("no file \udcff.pt\0")


class Counting(NearestNeighborsDetector):
    """Counts its fits, and interrupts the process in one of them."""

    fits = 0
    interrupt_at = None

    def fit(self, X, y=None):
        type(self).fits += 1
        if type(self).fits == type(self).interrupt_at:
            signal.raise_signal(signal.SIGINT)
        return super().fit(X, y)


@pytest.fixture(autouse=True)
def _reset_counting():
    Counting.fits, Counting.interrupt_at = 0, None


# -------------------------------------------------------------------------------------------------------- the splits


@pytest.mark.parametrize(("protocol", "n_train", "n_bad"), [("novelty", 30, 0), ("contaminated", 40, 10)])
def test_split(protocol, n_train, n_bad):
    _, y = blob()
    train, test = split(y, protocol, seed=0)
    assert sorted([*train, *test]) == list(range(80))
    assert len(train) == n_train
    assert (y[train] == -1).sum() == n_bad
    assert not np.array_equal(split(y, protocol, seed=1)[0], train)
    assert np.array_equal(split(y, protocol, seed=0)[0], train)


def test_split_with_limits_keeps_the_share_of_outliers():
    _, y = blob()
    train, test = split(y, "novelty", 0, max_train=10, max_test=25)
    assert (len(train), len(test)) == (10, 25)
    assert (y[test] == -1).sum() == 10
    assert not set(train) & set(test)


def test_split_refuses_missing_labels():
    with pytest.raises(ValueError, match="y contains NaN, first in row 1"):
        split([1, np.nan, -1, 1], "novelty", 0)


# ------------------------------------------------------------------------------------------------------ the function


def test_figures_are_those_of_the_metrics():
    X, y = blob()
    results = compare_detectors(FAST, {"blob": (X, y)}, seeds=2)
    assert len(results) == 4
    row = results[(results["detector"] == "kNN") & (results["seed"] == 1)].iloc[0]
    train, test = split(y, "novelty", 1)
    scaler = StandardScaler().fit(X[train])
    scores = NearestNeighborsDetector().fit(scaler.transform(X[train])).score_samples(scaler.transform(X[test]))
    assert row["auroc"] == auroc(y[test], scores)
    assert row["aupr_out"] == aupr_out(y[test], scores)
    assert row["fpr95"] == fpr_at_tpr(y[test], scores)
    assert (row["n_train"], row["n_test"], row["error"]) == (30, 50, "")
    assert row["fit_seconds"] > 0


def test_nearest_neighbours_by_hand():
    model = NearestNeighborsDetector(n_neighbors=2).fit([[0.0], [1.0], [5.0]])
    assert model.score_samples([[0.0], [3.0]]).tolist() == [-0.5, -2.0]
    assert NearestNeighborsDetector(5).fit([[0.0], [2.0]]).score_samples([[0.0]]).tolist() == [-1.0]


def test_repeats():
    data = {"blob": blob()}
    first, second = (compare_detectors({"f": IsolationForest()}, data, seeds=[3, 5]) for _ in range(2))
    columns = ["detector", "seed", "auroc", "aupr_out", "fpr95"]
    pd.testing.assert_frame_equal(first[columns], second[columns])
    assert first["seed"].tolist() == [3, 5]


def test_processes_give_the_same_as_one():
    data = {"blob": blob(), "other": blob(seed=1)}
    serial = compare_detectors(FAST, data, seeds=2)
    parallel = compare_detectors(FAST, data, seeds=2, n_jobs=2)
    columns = [column for column in serial if "seconds" not in column]
    pd.testing.assert_frame_equal(serial[columns], parallel[columns])


def test_by_name_and_default():
    results = compare_detectors(["knn", "LOF", IsolationForest(n_estimators=5)], ["wine"], seeds=1)
    assert results["detector"].tolist() == ["kNN", "LOF", "IsolationForest"]
    assert next(iter(DETECTORS)) == "DUMDetector"
    assert {"IsolationForest", "LOF", "OneClassSVM", "EllipticEnvelope", "kNN"} < set(DETECTORS)


def test_images_go_flattened_to_who_cannot_take_them():
    X = np.random.default_rng(0).integers(0, 256, size=(40, 1, 3, 3), dtype=np.uint8)
    detectors = {"dum": DUMDetector(max_epochs=1, hidden_sizes=(4,)), "kNN": NearestNeighborsDetector()}
    results = compare_detectors(detectors, {"images": (X, np.repeat([1, -1], [30, 10]))}, seeds=1)
    assert (results["error"] == "").all()


def test_a_failing_detector_is_a_row_that_says_why():
    results = compare_detectors({"bad": Failing(), **FAST}, {"blob": blob()}, seeds=1)
    assert results["error"].tolist() == ["RuntimeError: cannot do that", "", ""]
    assert np.isnan(results["auroc"][0])
    cells = [cell.strip() for cell in format_table(summarize(results)).splitlines()[2].split("|")]
    assert cells[1:5] == ["bad", "-", "-", "-"]


def test_an_error_that_is_no_text_is_escaped_and_read_again(tmp_path):
    detectors = {"bad": FailingOnAFile(), "counting": Counting()}
    for _ in range(2):
        results = compare_detectors(detectors, {"blob": blob()}, seeds=1, out=tmp_path)
        assert results["error"].tolist() == [r"FileNotFoundError: no file \udcff.pt\x00", ""]
    assert Counting.fits == 1
    assert not (tmp_path / "results.csv.damaged").exists()


@pytest.mark.parametrize("name", ["", "a\n", "a\nb", "a\0", "a\udcff", 3, None, ("a", "b")])
def test_names_that_no_line_of_the_results_can_hold_are_refused_before_the_first_fit(tmp_path, name):
    for detectors, data in (({name: Counting()}, {"blob": blob()}), ({"counting": Counting()}, {name: blob()})):
        with pytest.raises(ValueError, match="cannot name a detector or a data set: give a name that is one line"):
            compare_detectors(detectors, data, out=tmp_path)
    assert Counting.fits == 0


@pytest.mark.parametrize("load", [blob, blob()], ids=["function", "data"])
def test_a_data_set_with_the_name_of_a_column_of_the_summary_is_refused_before_the_first_fit(load):
    """Its figures would be overwritten."""
    results = compare_detectors({"kNN": FAST["forest"]}, {"blob": blob()}, seeds=1, decisions=True)
    columns = {*summarize(results)} - {"blob"}
    assert {"mean AUROC", "caught", "beats kNN", "fit s"} <= columns
    for name in columns:
        with pytest.raises(ValueError, match=f"{name}' is a column of the summary"):
            compare_detectors({"counting": Counting()}, {"first": blob(), name: load})
    assert Counting.fits == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detectors": ["knm"]}, "no detector 'knm'; choose from DUMDetector"),
        (
            {"detectors": [IsolationForest(), IsolationForest(n_estimators=5)]},
            "two detectors are named IsolationForest",
        ),
        ({"datasets": ["iris"]}, "no data set 'iris'"),
        ({"protocol": "other"}, "protocol='other'"),
        ({"detectors": {}}, "nothing to compare"),
        ({"seeds": 0}, "nothing to compare"),
        ({"timeout": 0}, "timeout=0 must be a positive number of seconds"),
        ({"timeout": "long"}, "timeout='long' must be"),
        ({"datasets": {"x": (np.ones((3, 2)), [1, 1, 1])}}, "'x' has 0 outliers"),
        ({"datasets": {"x": lambda: 1 / 0}}, "data set 'x' cannot be loaded: division by zero"),
        ({"datasets": {"x": (np.ones(3), [1, 1, -1])}}, r"'x' has X of shape \(3,\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        compare_detectors(**{"detectors": FAST, "datasets": {"blob": blob()}, **arguments})


def test_one_class_svm_by_name_is_left_out_where_rows_are_many():
    X, y = blob(n=20_010, n_outliers=5, d=1)
    options = {"seeds": 1, "max_test": 10}
    results = compare_detectors(["OneClassSVM", "kNN"], {"blob": (X, y)}, max_train=None, **options)
    assert results["error"].tolist() == ["not run: 10005 training rows are more than 10000; lower max_train.", ""]
    assert results["n_train"].tolist() == [10_005, 10_005]
    assert "| -" in format_table(summarize(results)).splitlines()[2].replace("  ", "")
    assert compare_detectors(["OneClassSVM"], {"blob": (X, y)}, max_train=50, **options)["error"].item() == ""


# ------------------------------------------------------------------------------------------------- what lies on disk


def test_resumes_where_it_was_interrupted(tmp_path):
    data = {"blob": blob(), "other": blob(seed=1)}
    detectors = {"counting": Counting(), "kNN": NearestNeighborsDetector()}
    Counting.interrupt_at = 3
    with pytest.warns(RuntimeWarning, match="6 of 8|5 of 8|4 of 8"):
        partial = compare_detectors(detectors, data, seeds=2, out=tmp_path)
    assert partial.attrs["interrupted"]
    assert len(partial) == 4
    assert len(pd.read_csv(tmp_path / "results.csv")) == 4
    Counting.interrupt_at = None
    results = compare_detectors(detectors, data, seeds=2, out=tmp_path)
    assert len(results) == 8
    assert not results.attrs["interrupted"]
    assert Counting.fits == 3 + 2  # two, the interrupted one, and the two that were missing
    pd.testing.assert_frame_equal(results[:4], partial[:4])


def test_interrupted_without_a_directory_the_rows_so_far_are_returned():
    Counting.interrupt_at = 2
    with pytest.warns(RuntimeWarning, match="1 of 3"):
        results = compare_detectors({"counting": Counting()}, {"blob": blob()}, seeds=3)
    assert results["seed"].tolist() == [0]


class Pressed:
    """A lock of the progress bar that gets a Ctrl-C while it waits."""

    def __init__(self):
        self.lock, self.presses = threading.RLock(), False

    def acquire(self, *args, **kwargs):
        if self.presses:
            self.presses = False
            raise KeyboardInterrupt
        return self.lock.acquire(*args, **kwargs)

    def release(self):
        self.lock.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


class Pressing(NearestNeighborsDetector):
    """Has the lock get its Ctrl-C after the last call of a fit, when its row is stored and then printed."""

    lock = None

    def score_samples(self, X):
        type(self).lock.presses = True
        return super().score_samples(X)


def test_interrupted_while_a_row_is_printed(tmp_path):
    before, Pressing.lock = tqdm.get_lock(), Pressed()
    tqdm.set_lock(Pressing.lock)
    try:
        with pytest.warns(RuntimeWarning, match="interrupted: 1 of 3 fits are finished"):
            results = compare_detectors(
                {"pressing": Pressing()}, {"blob": blob()}, seeds=3, out=tmp_path, n_jobs=1, progress=True
            )
    finally:
        tqdm.set_lock(before)
    assert results.attrs["interrupted"]
    assert len(pd.read_csv(tmp_path / "results.csv")) == len(results) == 1


def test_what_changed_is_done_again(tmp_path):
    def run(detector, data=None, **options):
        before = Counting.fits
        compare_detectors({"counting": detector}, {"blob": data or blob()}, seeds=1, out=tmp_path, **options)
        return Counting.fits - before

    assert run(Counting()) == 1
    assert run(Counting()) == 0
    assert run(Counting(n_neighbors=3)) == 1
    assert run(Counting(), blob(seed=5)) == 1
    assert run(Counting(), max_train=10) == 1
    assert run(Counting(), protocol="contaminated") == 1
    # The last row of each protocol is kept, and no other.
    assert sorted(pd.read_csv(tmp_path / "results.csv")["protocol"]) == ["contaminated", "novelty"]


def test_detectors_are_told_apart_by_all_that_matters():
    def module(weight):
        linear = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(linear.weight, weight)
        torch.nn.init.constant_(linear.bias, 0)
        return linear

    def prints(make):
        return fingerprint(make()), fingerprint(make())

    same, again = prints(lambda: DUMDetector(network=module(1.0)))
    assert same == again
    assert same != fingerprint(DUMDetector(network=module(2.0)))
    assert same != fingerprint(DUMDetector())
    # A function without a name may have changed: never taken for the same.
    first, second = prints(lambda: DUMDetector(schedule=lambda progress: 1.0))
    assert first != second
    scaled = make_pipeline(StandardScaler(), NearestNeighborsDetector(3))
    assert fingerprint(scaled) != fingerprint(make_pipeline(StandardScaler(), NearestNeighborsDetector(4)))


def test_trained_estimators_are_told_apart_by_what_they_have_learnt():
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    encoders = [SimCLREncoder(max_epochs=1, random_state=0).fit(X[start:]) for start in (0, 0, 20)]
    neighbors = [KNeighborsClassifier().fit(X[start:], y[start:]) for start in (0, 0, 20)]
    frozen = [FrozenEstimator(RejectClassDetector(max_epochs=1, random_state=seed).fit(X)) for seed in (0, 0, 1)]
    for holder, (one, same, other) in {
        FrozenEncoder: encoders,
        lambda encoder: DropOutliers(DUMDetector(encoder=encoder)): encoders,
        OODScorer: neighbors,
        ThresholdedDetector: frozen,
    }.items():
        assert fingerprint(holder(one)) == fingerprint(holder(same)) != fingerprint(holder(other))


def test_a_trained_encoder_stays_as_it_is():
    X, y = blob()
    encoder = SimCLREncoder(max_epochs=1, random_state=7).fit(X)
    before = encoder.transform(X)
    compare_detectors({"dum": DUMDetector(max_epochs=1, contamination=0, encoder=encoder)}, {"blob": (X, y)}, seeds=2)
    assert encoder.random_state == 7
    np.testing.assert_array_equal(encoder.transform(X), before)


def test_fingerprints_are_the_same_in_every_process():
    script = (
        "import torch; from skood import DUMDetector; from skood.compare.fingerprint import fingerprint;"
        "torch.manual_seed(0);"
        "print(fingerprint(DUMDetector(network=torch.nn.Linear(2, 2), hidden_sizes=(3, 4))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    torch.manual_seed(0)
    assert done.stdout.strip() == fingerprint(DUMDetector(network=torch.nn.Linear(2, 2), hidden_sizes=(3, 4)))


def test_keys_stay_as_they_were(tmp_path):
    """What was measured with an earlier version of the code is found again."""
    X, y = blob()
    compare_detectors({"kNN": FAST["kNN"]}, {"blob": (X, y)}, seeds=[4], max_train=7, out=tmp_path)
    settings = {"protocol": "novelty", "max_train": 7, "max_test": 50_000}
    key = joblib.hash((__version__, joblib.hash((X, y)), fingerprint(FAST["kNN"]), 4, settings))
    assert pd.read_csv(tmp_path / "results.csv")["key"].tolist() == [key]


def test_odd_names_resume(tmp_path):
    for _ in range(2):
        compare_detectors({'a, "b"': Counting()}, {"NA": blob()}, seeds=np.int64(1), out=tmp_path)
    assert Counting.fits == 1


def test_a_detector_that_failed_everywhere_has_no_rank():
    table = summarize(compare_detectors(FAST | {"failing": Failing()}, {"blob": blob()}, seeds=1))
    assert table["mean rank"].isna().tolist() == [False, False, True]


def test_where_a_detector_failed_it_has_no_rank():
    results = results_by_hand()
    third = results[results["detector"] == "a"].assign(detector="c", auroc=lambda rows: rows["auroc"] - 0.1)
    third.loc[third["dataset"] == "x", "auroc"] = np.nan
    table = summarize(pd.concat([results, third]))
    # On "x" two detectors are left; on "y" the third is last of three.
    assert table["mean rank"].tolist() == [(1 + 2) / 2, (2 + 1) / 2, 3]
    lines = format_table(table).splitlines()
    column = [cell.strip() for cell in lines[0].split("|")].index("mean rank")
    assert [line.split("|")[column].strip() for line in lines[2:5]] == ["**1.50**", "**1.50**", "3.00*"]


def test_failed_rows_are_tried_again(tmp_path):
    compare_detectors({"x": Failing()}, {"blob": blob()}, seeds=1, out=tmp_path)
    results = compare_detectors({"x": Failing()}, {"blob": blob()}, seeds=1, out=tmp_path)
    assert results["error"].tolist() == ["RuntimeError: cannot do that"]
    assert len(pd.read_csv(tmp_path / "results.csv")) == 1


@pytest.mark.parametrize("cut", ["", ',"ValueError: half a'])
def test_a_row_cut_off_by_a_crash_is_done_again(tmp_path, cut):
    compare_detectors(FAST, {"blob": blob()}, seeds=1, out=tmp_path)
    text = (tmp_path / "results.csv").read_text()
    (tmp_path / "results.csv").write_text(text[: text.rindex(",") - 3] + cut)
    with pytest.warns(UserWarning, match=r"results\.csv: damaged in line 3\. They are now in"):
        assert len(compare_detectors(FAST, {"blob": blob()}, seeds=1, out=tmp_path)) == 2
    assert len(pd.read_csv(tmp_path / "results.csv")) == 2


def test_another_file_of_that_name_is_not_overwritten(tmp_path):
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="holds something else"):
        compare_detectors(FAST, {"blob": blob()}, out=tmp_path)
    assert (tmp_path / "results.csv").read_text() == "a,b\n1,2\n"


# --------------------------------------------------------------------------------------------------------- the table


def results_by_hand():
    rows = [("a", "x", 0.9), ("b", "x", 0.8), ("a", "y", 0.5), ("b", "y", 0.7)]
    return pd.DataFrame(
        [
            {"detector": detector, "dataset": dataset, "seed": seed, "auroc": value + 0.02 * seed, "aupr_out": value}
            | {"fpr95": 1 - value, "fit_seconds": 1.0, "score_seconds": 2.0}
            for detector, dataset, value in rows
            for seed in (0, 1)
        ]
    )


def test_summary_by_hand():
    table = summarize(results_by_hand())
    assert table.loc["a", ["x", "y", "mean AUROC"]].tolist() == pytest.approx([0.91, 0.51, 0.71])
    assert table.loc["b", ["x", "y", "mean AUROC"]].tolist() == pytest.approx([0.81, 0.71, 0.76])
    assert table["mean rank"].tolist() == [1.5, 1.5]
    assert table["mean FPR95"].tolist() == pytest.approx([0.3, 0.25])


def test_wins_over_nearest_neighbours_by_hand():
    figures = {
        "kNN": {"w": 0.7, "x": 0.8, "y": 0.90004, "z": np.nan},
        "better": {"w": 0.8, "x": 0.9, "y": 0.9, "z": 0.5},
        "failing": {"w": np.nan, "x": 0.7, "y": 0.89, "z": 0.5},
        "never": {"w": np.nan, "x": np.nan, "y": np.nan, "z": 0.5},
    }
    rows = [
        {"detector": detector, "dataset": dataset, "auroc": value, "aupr_out": value, "fpr95": value}
        | {"seed": 0, "fit_seconds": 1.0, "score_seconds": 1.0, "error": ""}
        for detector, own in figures.items()
        for dataset, value in own.items()
    ]
    table = summarize(pd.DataFrame(rows))
    assert table["beats kNN"].tolist()[1:3] == ["2/1/0", "0/0/2"]
    assert table["beats kNN"].isna().tolist() == [True, False, False, True]
    lines = format_table(table).splitlines()
    column = [cell.strip() for cell in lines[0].split("|")].index("beats kNN")
    assert [line.split("|")[column].strip() for line in lines[2:6]] == ["-", "2/1/0", "0/0/2", "-"]
    without = pd.DataFrame(rows).query("detector != 'kNN'")
    assert "beats kNN" not in summarize(without)


def test_what_was_given_up_says_so():
    results = results_by_hand()
    results["error"] = ""
    lost = (results["detector"] == "a") & (results["dataset"] == "x")
    results.loc[lost, "error"] = "t/o after 5.0 s"
    results.loc[lost | ((results["detector"] == "b") & (results["dataset"] == "y")), "auroc"] = np.nan
    table = summarize(results)
    # A part of the table still knows.
    lines = format_table(table[["y", "x"]]).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:4]] == ["a", "**0.510**", "t/o"]
    assert [cell.strip() for cell in lines[3].split("|")[1:4]] == ["b", "-", "**0.810**"]
    assert table.loc["a", "mean rank"] == 1
    assert table.loc["a", "mean AUROC"] == pytest.approx(0.51)


def test_means_over_fewer_data_sets_are_not_the_best(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    results = results_by_hand()
    # Of what is left, "a" has 0.91 on average, and "b" 0.81 and 0.71; "b" is ranked first once, second once.
    results.loc[(results["detector"] == "a") & (results["dataset"] == "y"), "auroc"] = np.nan
    table = summarize(results)
    assert table.attrs["partial"] == ["a"]
    lines = format_table(table).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:6]] == ["a", "**0.910**", "-", "0.910*", "1.00*"]
    assert [cell.strip() for cell in lines[3].split("|")[1:6]] == ["b", "0.810", "**0.710**", "**0.760**", "**1.50**"]
    assert lines[-1] == "*: over fewer data sets than the others, and not compared with them."
    assert "*" not in format_table(table[["y", "x"]]).replace("**", "")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        save_mean_auroc(results.assign(protocol="novelty"), tmp_path / "auroc.svg")
    drawn = (tmp_path / "auroc.svg").read_text(encoding="utf-8")
    assert "0.910*" in drawn
    assert "*: of fewer data sets" in drawn
    assert "0.760*" not in drawn
    # A data set on which all fail takes nothing from anybody.
    results.loc[results["dataset"] == "y", "auroc"] = np.nan
    assert summarize(results).attrs["partial"] == []


def test_best_of_each_column_is_marked():
    lines = format_table(summarize(results_by_hand())).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:5]] == ["a", "**0.910**", "0.510", "0.710"]
    assert [cell.strip() for cell in lines[3].split("|")[1:5]] == ["b", "0.810", "**0.710**", "**0.760**"]
    assert [cell.strip() for cell in lines[3].split("|")[7:8]] == ["**0.250**"]
    assert len({len(line) for line in lines}) == 1


# ------------------------------------------------------------------------------------------------------- the command


def test_command(tmp_path, capsys):
    X, y = blob()
    np.savez(tmp_path / "blob.npz", X=X, y=y)
    out = tmp_path / "out"
    command = ["compare", "--data", str(tmp_path / "blob.npz"), "--detectors", "kNN, LOF,kNN", "--only", "--seeds", "2"]
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert (out / "table.md").read_text().strip() in printed.out
    assert "100%" in printed.err
    assert sorted(path.name for path in out.iterdir()) == [
        "auroc.png",
        "curves-blob.png",
        "results.csv",
        "scores",
        "scores-blob.png",
        "table.md",
    ]
    for name in ("auroc.png", "scores-blob.png", "curves-blob.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    assert len(pd.read_csv(out / "results.csv")) == 4


def test_quick_command_without_data(tmp_path, capsys):
    command = ["compare", "--quick", "--detectors", "kNN,LOF", "--only", "--jobs", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    printed, progress = capsys.readouterr()
    header, others = (line for line in printed.splitlines() if line.startswith("| detector"))
    assert [cell.strip() for cell in header.split("|")[1:5]] == ["detector", "made for", "breast_cancer", "mean AUROC"]
    assert [cell.strip() for cell in others.split("|")[1:5]] == ["detector", "made for", "digits/8", "digits/9"]
    assert printed.count("| LOF      | vectors  |") == printed.count("1 seed; best in bold.") == 2
    assert "False alarms" not in printed
    written = (tmp_path / "table.md").read_text()
    assert header in written
    assert others in written
    # A line for each row, in the order in which they are finished.
    assert re.findall(r"(\w+, \w+, seed \d+): AUROC", progress)[:3] == [
        "breast_cancer, kNN, seed 0", "breast_cancer, LOF, seed 0", "8, kNN, seed 0"
    ]  # fmt: skip
    results = pd.read_csv(tmp_path / "results.csv")
    assert results["false_alarms"].isna().all()
    # Decisions and more seeds, where they are asked for; data that are named come alone.
    assert main([*command[:-2], "--protocol", "novelty", "--seeds", "2", "--decisions", "--out", str(tmp_path)]) == 0
    assert "means over 2 seeds; best in bold. Protocol novelty: trained on inliers alone." in capsys.readouterr().out
    results = pd.read_csv(tmp_path / "results.csv").query("protocol == 'novelty' and detector == 'LOF'")
    assert results["false_alarms"].notna().tolist() == [True] * 2


def test_all_detectors_say_what_they_are_made_for():
    assert list(MADE_FOR) == list(DETECTORS)


def test_no_table_is_without_the_baselines(tmp_path):
    X, y = blob()
    np.savez(tmp_path / "blob.npz", X=X, y=y)
    command = ["compare", "--data", str(tmp_path / "blob.npz"), "--detectors", "lof,EllipticEnvelope", "--seeds", "1"]
    assert main([*command, "--jobs", "1", "--out", str(tmp_path / "out")]) == 0
    detectors = pd.read_csv(tmp_path / "out" / "results.csv")["detector"].tolist()
    assert detectors == ["LOF", "EllipticEnvelope", "IsolationForest", "OneClassSVM", "kNN"]
    assert set(BASELINES) < set(detectors)


def test_command_with_a_time_limit(tmp_path, capsys):
    X, y = blob()
    np.savez(tmp_path / "blob.npz", X=X, y=y)
    command = ["compare", "--data", str(tmp_path / "blob.npz"), "--detectors", "kNN", "--only", "--seeds", "1"]
    assert main([*command, "--jobs", "1", "--timeout", "1e-6", "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert [cell.strip() for cell in printed.splitlines()[3].split("|")[1:4]] == ["kNN", "vectors", "t/o"]
    assert "kNN on blob, seed 0: t/o after 1e-06 s" in printed
    assert "t/o" in (tmp_path / "out" / "table.md").read_text()


def test_command_on_a_suite_and_a_table(tmp_path, capsys):
    (tmp_path / "suite").mkdir()
    for seed in range(2):
        X, y = blob(seed=seed)
        np.savez(tmp_path / "suite" / f"s{seed}.npz", X=X, y=(y == -1).astype(int))
    pd.DataFrame(X).assign(kind=np.where(y == -1, "bad", "good")).to_csv(tmp_path / "t.csv", index=False)
    out = str(tmp_path / "out")
    command = ["compare", "--detectors", "knn", "--only", "--seeds", "1", "--out", out, "--protocol", "contaminated"]
    assert main([*command, "--suite", str(tmp_path / "suite")]) == 0
    assert "s0" in capsys.readouterr().out
    assert main([*command, "--data", str(tmp_path / "t.csv"), "--target", "kind", "--outlier", "bad"]) == 0
    assert sorted(pd.read_csv(Path(out) / "results.csv")["dataset"]) == ["s0", "s1", "t"]


def test_command_says_who_loses_to_nearest_neighbours(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(DETECTORS, "DUMDetector", lambda: DUMDetector(hidden_sizes=(2,), max_epochs=1))
    command = ["compare", "--detectors", "DUMDetector,kNN", "--only", "--seeds", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "DUMDetector is ahead of kNN on 0 of 3 data sets." in capsys.readouterr().out


def test_command_says_what_failed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(DETECTORS, "LOF", Failing)
    X, y = blob()
    np.savez(tmp_path / "blob.npz", X=X, y=y)
    command = ["compare", "--data", str(tmp_path / "blob.npz"), "--only", "--seeds", "2", "--jobs", "1"]
    assert main([*command, "--detectors", "kNN,LOF", "--out", str(tmp_path / "some")]) == 0
    assert "LOF on blob, seeds 0, 1: RuntimeError: cannot do that" in capsys.readouterr().out
    assert main([*command, "--detectors", "LOF", "--out", str(tmp_path / "none")]) == 1
    printed = capsys.readouterr().out
    assert "|" not in printed
    assert f"there is no table. Written to {tmp_path / 'none'}: results.csv." in printed
    assert sorted(path.name for path in (tmp_path / "none").iterdir()) == ["results.csv", "scores"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "missing.npz"], "missing.npz: no such file"),
        (["--suite", "missing"], "missing: no such directory"),
        (["--detectors", "dum"], "no detector 'dum'; choose from DUMDetector"),
        (["--protocol", "both"], "invalid choice: 'both'"),
        (["--seeds", "0"], "'0' is not a positive number"),
        (["--seeds", "few"], "'few' is not a positive number"),
        (["--data", "labels.npz"], "name the labels"),
        (["--data", "broken.npz"], "no array y"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--out", "broken.npz"], "is not a directory"),
        (["--out", "broken.npz/below"], "cannot write into broken.npz/below: Not a directory"),
        (["--data", "text.npz"], "text.npz: not a .npz file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.savez("broken.npz", X=np.ones((3, 2)))
    np.savez("labels.npz", X=np.ones((3, 2)), y=[1, 2, 3])
    Path("text.npz").write_text("text")
    with pytest.raises(SystemExit) as exit_info:
        main(["compare", *arguments])
    assert exit_info.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_command_without_matplotlib(tmp_path):
    X, y = blob()
    np.savez(tmp_path / "blob.npz", X=X, y=y)
    script = (
        "import sys; sys.modules['matplotlib'] = None; from skood.__main__ import main;"
        "command = 'compare --data blob.npz --detectors kNN --only --seeds 1 --jobs 1 --out out';"
        "sys.exit(main(command.split()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "matplotlib is not installed: no pictures" in done.stdout
    assert not list((tmp_path / "out").glob("*.png"))


def test_interrupted_command_keeps_what_is_finished_and_goes_on(tmp_path):
    """The real command, a real Ctrl-C once the first row is on disk, and the command again for that row."""
    command = [sys.executable, "-m", "skood", "compare", "--only", "--seeds", "1", "--out", "out", "--detectors"]
    options = {"cwd": tmp_path, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*command, "kNN,DUMDetector"], **options, **pipes)
    results = tmp_path / "out" / "results.csv"
    while process.stderr.read(40):
        if results.exists() and results.read_text().count("\n") >= 2:
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate()
    assert process.returncode == 130
    assert "The same command goes on from here" in err
    finished = pd.read_csv(results)
    assert 1 <= len(finished) < 6
    assert finished["error"].isna().all()
    subprocess.run([*command, "kNN", "--jobs", "1"], **options, **pipes, check=True)
    resumed = pd.read_csv(results)
    assert len(resumed[resumed["detector"] == "kNN"]) == 5
    pd.testing.assert_frame_equal(resumed[: len(finished)], finished)


def test_real_suite(data_home, tmp_path):
    """A suite as it is distributed, and a set too large for OneClassSVM in whole."""
    results = compare_detectors(
        ["kNN", "OneClassSVM"],
        {path.stem: lambda path=path: _read(path) for path in sorted((data_home / "adbench").glob("[14]*_[bc]*.npz"))},
        seeds=1,
        max_train=500,
        max_test=2000,
        out=tmp_path,
    )
    assert {"10_cover", "4_breastw"} <= set(results["dataset"])
    assert (results["error"] == "").all()
    assert (results["auroc"] > 0.5).all()


def _read(path):
    from skood.datasets import read_file

    return read_file(path)
