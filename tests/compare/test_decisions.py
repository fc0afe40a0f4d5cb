"""What detectors decide at their own thresholds: false alarms among new inliers, and outliers caught."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import OneClassSVM

from skood import DUMDetector, RejectClassDetector, ThresholdedDetector, compare_detectors
from skood.__main__ import main
from skood.compare import NearestNeighborsDetector, OODPair, format_table, split, summarize
from skood.estimator import OffsetMixin
from skood.model_selection import HideLabels

COLUMNS = ["false_alarms", "caught"]


class Flagged(BaseEstimator):
    """Accuses the rows that have a flag, whatever their scores are; rows are images of two pixels, score and flag."""

    def __init__(self, image_shape=None, accuse=-1, acquit=1):
        self.image_shape, self.accuse, self.acquit = image_shape, accuse, acquit

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return X[:, 0, 0, 0]

    def predict(self, X):
        return np.where(X[:, 0, 0, 1] == 1, self.accuse, self.acquit)


class Once(OffsetMixin, NearestNeighborsDetector):
    """Counts how often it scores."""

    n_scored = 0

    def fit(self, X, y=None):
        super().fit(X)
        self.offset_ = -0.7
        return self

    def score_samples(self, X):
        type(self).n_scored += 1
        return super().score_samples(X)


def blob(n=60, n_outliers=20, d=3):
    X = np.random.default_rng(0).normal(size=(n + n_outliers, d))
    X[n:] += 2
    return X, np.repeat([1, -1], [n, n_outliers])


def flagged(flags):
    """Return images of a score and a flag each, so that no scaler stands between."""
    pixels = np.column_stack([np.arange(len(flags), dtype=float), flags])
    return pixels.reshape(-1, 1, 1, 2)


@given(st.lists(st.booleans(), min_size=12, max_size=12), st.integers(0, 5))
@settings(max_examples=30)
def test_shares_by_hand(flags, seed):
    flags, y = np.array(flags), np.repeat([1, -1], [8, 4])
    results = compare_detectors({"flagged": Flagged()}, {"x": (flagged(flags), y)}, seeds=[seed])
    _, test = split(y, "novelty", seed)
    row = results.iloc[0]
    assert row["false_alarms"] == flags[test][y[test] == 1].mean()
    assert row["caught"] == flags[test][y[test] == -1].mean() == flags[8:].mean()
    assert row["error"] == ""


@pytest.mark.parametrize(
    "detector",
    [
        IsolationForest(n_estimators=20),
        LocalOutlierFactor(novelty=True),
        OneClassSVM(nu=0.2),
        EllipticEnvelope(),
        make_pipeline(MinMaxScaler(), IsolationForest(n_estimators=20)),
        HideLabels(LocalOutlierFactor(novelty=True)),
        ThresholdedDetector(IsolationForest(n_estimators=20), contamination=0.2),
        DUMDetector(max_epochs=3, hidden_sizes=(8,)),
        RejectClassDetector(max_epochs=3, hidden_sizes=(8,), contamination=0.3),
        Once(),
    ],
    ids=lambda detector: type(detector).__name__,
)
def test_decisions_are_those_of_predict(detector):
    X, y = blob()
    train, test = split(y, "novelty", 1)
    row = compare_detectors({"x": detector}, {"blob": (X, y)}, seeds=[1]).iloc[0]
    seeded = [name for name in detector.get_params() if name.split("__")[-1] == "random_state"]
    model = make_pipeline(StandardScaler(), detector.set_params(**dict.fromkeys(seeded, 1))).fit(X[train])
    accused = model.predict(X[test]) == -1
    assert row["error"] == ""
    assert row["false_alarms"] == accused[y[test] == 1].mean()
    assert row["caught"] == accused[y[test] == -1].mean()
    # Equal shares of nothing would say nothing.
    assert accused.any()
    assert not accused.all()


def test_what_decides_by_its_offset_scores_once():
    Once.n_scored = 0
    results = compare_detectors({"once": Once()}, {"blob": blob()}, seeds=2)
    assert results[COLUMNS].notna().all(axis=None)
    assert Once.n_scored == 2


def test_without_decisions_the_cells_are_empty(tmp_path):
    data = {"x": (flagged(np.arange(12) % 3 == 0), np.repeat([1, -1], [8, 4]))}
    detectors = {
        "no predict": NearestNeighborsDetector(),
        "classes": Flagged(acquit=2),
        "zero and one": Flagged(None, 1, 0),
    }
    results = compare_detectors(detectors, data, seeds=1, out=tmp_path)
    assert results["error"].tolist() == [""] * 3
    assert results[COLUMNS].isna().all(axis=None)
    assert results["auroc"].notna().all()
    assert pd.read_csv(tmp_path / "results.csv")[COLUMNS].isna().all(axis=None)


def test_each_set_of_unseen_rows_has_its_own():
    unseen = {"few": flagged([True, False, False, False]), "all": flagged([True] * 3)}
    pair = OODPair(flagged([True, False] * 10), unseen)
    results = compare_detectors({"flagged": Flagged()}, {"x": pair}, protocol="ood-pair", seeds=1)
    assert results["caught"].tolist() == [0.25, 1]
    assert results["false_alarms"].nunique() == 1


def test_rows_of_a_file_without_these_columns_are_kept(tmp_path):
    data, options = {"blob": blob()}, {"seeds": 1, "out": tmp_path}
    first = compare_detectors({"once": Once()}, data, **options)
    path = tmp_path / "results.csv"
    pd.read_csv(path).drop(columns=COLUMNS).to_csv(path, index=False)
    Once.n_scored = 0
    results = compare_detectors({"once": Once(), "forest": IsolationForest(n_estimators=5)}, data, **options)
    assert Once.n_scored == 0
    pd.testing.assert_frame_equal(results.drop(columns=COLUMNS)[:1], first.drop(columns=COLUMNS))
    assert results[COLUMNS].notna().all(axis=1).tolist() == [False, True]
    # The file has the columns from now on.
    assert pd.read_csv(path)[COLUMNS].notna().all(axis=1).tolist() == [False, True]
    again = compare_detectors({"once": Once(), "forest": IsolationForest(n_estimators=5)}, data, **options)
    pd.testing.assert_frame_equal(again, results)


# --------------------------------------------------------------------------------------------------------- the table


def results_by_hand():
    rows = [
        ("a", "x", 0.9, 0.1, 1.0),
        ("a", "y", 0.9, 0.3, 0.5),
        ("b", "x", 0.8, 0.0, 0.25),
        ("b", "y", np.nan, np.nan, np.nan),
        ("kNN", "x", 0.7, np.nan, np.nan),
        ("kNN", "y", 0.7, np.nan, np.nan),
        ("old", "x", 0.6, 0.1, 0.1),
        ("old", "y", 0.6, np.nan, np.nan),
    ]
    results = pd.DataFrame(rows, columns=["detector", "dataset", "auroc", *COLUMNS])
    return results.assign(seed=0, aupr_out=0.5, fpr95=0.5, fit_seconds=1.0, score_seconds=1.0, error="")


def cells(table, column):
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in format_table(table).splitlines()]
    return [line[lines[0].index(column)] for line in lines[2 : 2 + len(table)]]


def test_summary_by_hand():
    table = summarize(results_by_hand())
    assert list(table.columns)[5:8] == ["mean FPR95", "false alarms", "caught"]
    # Not the mean of the half that is known, where a row was stored before decisions were measured.
    expected = {"false alarms": [0.2, 0.0, np.nan, np.nan], "caught": [0.75, 0.25, np.nan, np.nan]}
    pd.testing.assert_frame_equal(table[list(expected)], pd.DataFrame(expected, index=table.index))
    # "b" failed on a data set; neither column has a best.
    assert cells(table, "false alarms") == ["0.200", "0.000*", "-", "-"]
    assert cells(table, "caught") == ["0.750", "0.250*", "-", "-"]


def test_summary_of_results_without_decisions():
    table = summarize(results_by_hand().drop(columns=COLUMNS))
    assert not {"false alarms", "caught"} & set(table.columns)


class Rare(DUMDetector):
    """Counts the models that it fits."""

    n_fitted = 0

    def _held_out_scores(self, *args):
        type(self).n_fitted += 1
        return super()._held_out_scores(*args)


def test_without_decisions_the_ranks_are_the_same_and_no_threshold_is_fitted(tmp_path):
    data = {"blob": blob()}
    rare = Rare(max_epochs=2, random_state=0)
    detectors = {"bare": rare, "Pipeline": make_pipeline(MinMaxScaler(), rare), "LOF": LocalOutlierFactor(novelty=True)}
    ranks = compare_detectors(detectors, data, seeds=1, decisions=False, out=tmp_path)
    assert Rare.n_fitted == 0
    assert ranks[COLUMNS].isna().all(axis=None)
    assert not {"false alarms", "caught"} & set(summarize(ranks).columns)
    full = compare_detectors(detectors, data, seeds=1, out=tmp_path)
    assert Rare.n_fitted == 2
    assert full[COLUMNS].notna().all(axis=None)
    pd.testing.assert_frame_equal(ranks[["auroc", "aupr_out", "fpr95"]], full[["auroc", "aupr_out", "fpr95"]])
    # What is stored with decisions is not done again without.
    pd.testing.assert_frame_equal(compare_detectors(detectors, data, seeds=1, decisions=False, out=tmp_path), full)
    assert Rare.n_fitted == 2


def test_the_command_prints_them(tmp_path, capsys):
    X, y = blob()
    np.savez(tmp_path / "blob.npz", X=X, y=y)
    command = ["compare", "--data", str(tmp_path / "blob.npz"), "--detectors", "LOF,kNN", "--only", "--seeds", "1"]
    assert main([*command, "--jobs", "1", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    row = compare_detectors(["LOF"], {"blob": (X, y)}, seeds=1).iloc[0]
    table = [line for line in printed.splitlines() if line.startswith("|")]
    header, _, lof, knn = ([cell.strip() for cell in line.split("|")] for line in table)
    for column, title in zip(COLUMNS, ("false alarms", "caught"), strict=True):
        assert lof[header.index(title)] == f"{row[column]:.3f}"
        assert knn[header.index(title)] == "-"
    assert "False alarms, caught: shares of the test inliers and outliers that each detector calls outliers." in printed
