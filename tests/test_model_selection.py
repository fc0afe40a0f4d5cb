"""Splitters: which rows are where, and that searches with them are honest."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.datasets import load_wine
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import DUMDetector, LabelWarning, RejectClassDetector
from skood.metrics import get_scorer
from skood.model_selection import DropOutliers, HideLabels, HoldOutClass, OneVersusRest, OutlierKFold

DUM = DUMDetector(hidden_sizes=(8,), max_epochs=60, contamination=0, random_state=0, device="cpu")


class Spy(OutlierMixin, BaseEstimator):
    """Remembers what it was fitted on; the feature is the number of the row."""

    def fit(self, X, y=None):
        self.rows_ = X[:, 0].astype(int)
        self.y_ = None if y is None else np.array(y)
        return self

    def score_samples(self, X):
        return -X[:, 0]


# ------------------------------------------------------------------------------------------------------ OutlierKFold


@given(st.integers(2, 5), st.integers(5, 40), st.integers(5, 20), st.integers(0, 10), st.integers(0, 5), st.randoms())
def test_folds(n_splits, n_inliers, n_outliers, n_auxiliary, seed, random):
    """Every inlier and evaluation outlier is tested once, auxiliary rows never; training rows are inliers and those."""
    kinds = ["in"] * n_inliers + ["out"] * n_outliers + ["auxiliary"] * n_auxiliary
    random.shuffle(kinds)
    kinds = np.array(kinds)
    y = np.where(kinds == "in", np.arange(len(kinds)) % 3, -1)
    cv = OutlierKFold(n_splits, auxiliary=kinds == "auxiliary", random_state=seed)
    folds = list(cv.split(y, y))
    assert len(folds) == cv.get_n_splits() == n_splits
    tested = np.concatenate([test for _, test in folds])
    assert sorted(tested) == np.flatnonzero(kinds != "auxiliary").tolist()
    for train, test in folds:
        assert not set(train) & set(test)
        assert set(np.flatnonzero(kinds == "auxiliary")) <= set(train)
        assert "out" not in kinds[train]
        share = n_outliers / (n_inliers + n_outliers)
        assert abs((kinds[test] == "out").sum() - share * len(test)) <= 2


@pytest.mark.parametrize("contamination", [0.05, 0.1, 0.3])
def test_contaminated_folds(contamination):
    y = np.repeat([1, -1], [300, 200])
    for train, test in OutlierKFold(contamination=contamination, random_state=0).split(y, y):
        assert (y[train] == -1).mean() == pytest.approx(contamination, abs=0.003)
        assert (y[test] == -1).sum() == 40


def test_folds_repeat_and_vary():
    y = np.repeat([1, -1], [30, 10])

    def folds(seed):
        return [test.tolist() for _, test in OutlierKFold(random_state=seed).split(y, y)]

    assert folds(0) == folds(0)
    assert folds(0) != folds(1)
    trained = [train for train, _ in OutlierKFold(contamination=0.2, random_state=0).split(y, y)]
    assert any(set(train[train >= 30]) != set(range(30, 30 + (train >= 30).sum())) for train in trained)


@pytest.mark.parametrize("protocol", [HoldOutClass, OneVersusRest])
def test_size_and_seed_of_the_test_part(protocol):
    y = np.repeat([0, 1], [50, 50])

    def tested(**options):
        return [test.tolist() for _, test in protocol(test_size=0.2, **options).split(y, y)]

    assert [len(test) for test in tested(random_state=0)] == [20, 20]
    assert tested(random_state=0) == tested(random_state=0) != tested(random_state=1)


def test_labels_of_mixed_kinds():
    tasks = list(HoldOutClass(random_state=0).tasks(range(10), ["a"] * 4 + ["b"] * 4 + [-1] * 2))
    assert [label for label, _, _ in tasks] == ["a", "b"]
    for _, _, [(train, test)] in tasks:
        assert {8, 9} <= set(train)
        assert not {8, 9} & set(test)
    assert [label for label, _, _ in HoldOutClass(random_state=0).tasks(range(8), [0, "a"] * 4)] == [0, "a"]


def test_repr():
    assert repr(OutlierKFold(3)) == (
        "OutlierKFold(n_splits=3, contamination=0.0, auxiliary=None, random_state=None, outlier_label=-1)"
    )
    assert "auxiliary=<2 rows>" in repr(OutlierKFold(auxiliary=[True, True, False]))
    assert "HoldOutClass(" in repr(HoldOutClass(n_repeats=3))


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({}, [1] * 20, r"evaluation outliers \(y == -1\); there are 0"),
        ({}, [1] * 3 + [-1] * 9, "as many inliers; there are 3"),
        ({"contamination": 0.6}, [1] * 9 + [-1] * 9, "contamination=0.6"),
        ({"contamination": 0.5}, [1] * 50 + [-1] * 5, "takes 40 outliers; the other folds have 4"),
        ({"auxiliary": [True]}, [1] * 9 + [-1] * 9, "mask of 18 booleans"),
        ({"auxiliary": [1] * 18}, [1] * 9 + [-1] * 9, "mask of 18 booleans"),
        ({"auxiliary": [True] + [False] * 17}, [1] * 9 + [-1] * 9, "auxiliary marks row 0, but y there is 1"),
        ({"n_splits": 1}, [1] * 9 + [-1] * 9, "n_splits"),
        ({"contamination": "auto"}, [1] * 9 + [-1] * 9, "contamination='auto'"),
        ({"contamination": 0.1, "auxiliary": [False] * 17 + [True]}, [1] * 9 + [-1] * 9, "cannot go together"),
        ({}, [0] * 9 + [1] * 9, r"np.where\(np.asarray\(y\) == 1, -1, 1\)"),
        ({}, None, "y is needed"),
    ],
)
def test_bad_splits(options, y, message):
    with pytest.raises(ValueError, match=message):
        list(OutlierKFold(**options).split(np.zeros(18) if y is None else y, y))


@pytest.mark.parametrize("detector", [IsolationForest(random_state=0), DUM], ids=["forest", "dum"])
def test_search_on_label_sorted_rows(detector):
    """scikit-learn's cv=5 gives NaN here."""
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(95, 3)), rng.normal(4, 1, size=(15, 3))])
    y = np.repeat([1, -1], [95, 15])
    pipeline = make_pipeline(StandardScaler(), clone(detector))
    grid = {f"{pipeline.steps[1][0]}__contamination": [0.05, 0.1]}
    cv = OutlierKFold(random_state=0)
    # One search for all scorers: each fit is paid for once.
    scoring = {name: get_scorer(name) for name in ("auroc", "aupr_out", "fpr95", "aurc")}
    search = GridSearchCV(pipeline, grid, scoring=scoring, refit="auroc", cv=cv, error_score="raise").fit(X, y)
    for name in scoring:
        assert np.isfinite(search.cv_results_[f"mean_test_{name}"]).all()
    assert search.best_score_ > 0.9


def test_a_search_scores_no_row_of_the_corpus_it_trains_on():
    y = np.repeat([1, -1, -1], [20, 10, 5])
    auxiliary = np.arange(35) >= 30
    X = np.arange(35.0)[:, None]
    scored = []

    def scoring(detector, X, y):
        scored.append((detector.rows_, detector.y_, X[:, 0].astype(int)))
        return 0.0

    cross_validate(Spy(), X, y, cv=OutlierKFold(auxiliary=auxiliary, random_state=0), scoring=scoring)
    assert len(scored) == 5
    for trained, labels, tested in scored:
        assert not set(trained) & set(tested)
        assert set(trained[labels == -1]) == set(range(30, 35))
        assert not set(tested) & set(range(30, 35))


def test_the_refit_of_a_search_sees_no_evaluation_outlier():
    X, y = np.arange(60.0)[:, None], np.repeat([1, -1], [40, 20])
    options = {"scoring": get_scorer("auroc"), "cv": OutlierKFold(random_state=0), "error_score": "raise"}
    search = GridSearchCV(DropOutliers(Spy()), {}, **options).fit(X, y)
    assert search.best_estimator_.estimator_.rows_.tolist() == list(range(40))
    assert GridSearchCV(Spy(), {}, **options).fit(X, y).best_estimator_.rows_.tolist() == list(range(60))
    with pytest.raises(ValueError, match="every row"):
        DropOutliers(Spy()).fit(X, -np.ones(60))


def test_folds_of_inliers_with_classes_in_text():
    """No outlier is in a training fold; a marker that was chosen is not misread for that."""
    X, y = np.arange(60.0)[:, None], np.repeat(["cat", "dog", "out"], 20)
    options = {"scoring": get_scorer("auroc", outlier_label="out"), "cv": OutlierKFold(2, outlier_label="out")}
    with pytest.warns(LabelWarning, match="outlier_label='out'"):
        cross_validate(DropOutliers(Spy(), outlier_label="out"), X, y, error_score="raise", **options)
    with pytest.raises(ValueError, match="no row of y is marked as an outlier by outlier_label=-1"):
        DropOutliers(Spy()).fit(X, y)


def test_hidden_labels():
    X, y = np.arange(6.0)[:, None], np.array([1, 1, 1, 1, -1, -1])
    assert HideLabels(Spy()).fit(X, y).estimator_.y_ is None
    marked = clone(DUM).fit(X, y).score_samples(X)
    hidden = HideLabels(DUM).fit(X, y)
    assert np.array_equal(hidden.score_samples(X), clone(DUM).fit(X).score_samples(X))
    assert not np.array_equal(hidden.score_samples(X), marked)
    assert np.array_equal(hidden.predict(X), hidden.estimator_.predict(X))
    assert hidden.offset_ == hidden.estimator_.offset_


# ---------------------------------------------------------------------------------------------- one task for a class


@pytest.mark.parametrize("labels", [[0, 1, 2], ["a", "b", "c"]])
def test_hold_out_class(labels):
    y = np.repeat(labels, [20, 30, 40])
    X = np.arange(90.0)[:, None]
    tasks = list(HoldOutClass(n_repeats=2, test_size=0.5, random_state=0).tasks(X, y))
    assert [label for label, _, _ in tasks] == labels
    for label, target, folds in tasks:
        assert len(folds) == 2
        assert [t == -1 for t in target] == (y == label).tolist()
        assert [t for t in target if t != -1] == y[y != label].tolist()
        for train, test in folds:
            assert not set(train) & set(test)
            assert label not in y[train]
            assert set(y[test]) == set(labels)
            assert np.unique(y[test], return_counts=True)[1].tolist() == [10, 15, 20]
            assert len(train) == 45 - (y[test] == label).sum()
        assert not np.array_equal(folds[0][1], folds[1][1])


def test_one_versus_rest():
    y = np.repeat([0, 1, 2], [20, 30, 40])
    for label, target, [(train, test)] in OneVersusRest(random_state=0).tasks(y, y):
        assert set(y[train]) == {label}
        assert set(y[test]) == {0, 1, 2}
        assert target.tolist() == np.where(y == label, 1, -1).tolist()


@pytest.mark.parametrize("protocol", [HoldOutClass, OneVersusRest])
def test_predefined_test_part_auxiliary_rows_and_chosen_classes(protocol):
    y = np.array([0, 0, 1, 1, 2, 2, -1, -1])
    test = np.array([0, 1, 0, 1, 0, 1, 0, 0], dtype=bool)
    cv = protocol(test=test, classes=[2])
    [(label, target, [(train, tested)])] = cv.tasks(y, y)
    assert label == 2
    assert tested.tolist() == [1, 3, 5]
    assert set(train) == {6, 7} | ({0, 2} if protocol is HoldOutClass else {4})
    assert target[6:].tolist() == [-1, -1]
    assert [(a.tolist(), b.tolist()) for a, b in cv.split(y, y)] == [(train.tolist(), tested.tolist())]
    assert cv.get_n_splits() == 1
    assert protocol(n_repeats=4).get_n_splits(y=y) == 12


@pytest.mark.parametrize("protocol", [HoldOutClass, OneVersusRest])
def test_with_cross_validate(protocol):
    X, y = load_wine(return_X_y=True)
    for _, target, folds in protocol(n_repeats=2, random_state=0).tasks(X, y):
        pipeline = make_pipeline(StandardScaler(), IsolationForest(random_state=0))
        scoring = {name: get_scorer(name) for name in ("auroc", "fpr95")}
        result = cross_validate(pipeline, X, target, cv=folds, scoring=scoring, error_score="raise")
        assert (result["test_auroc"] > 0.5).all()


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({}, [0, 0, 0], "y holds 1 class"),
        ({"classes": [5]}, [0, 0, 1, 1], "no row is labelled 5"),
        ({"test": [True]}, [0, 0, 1, 1], "mask of 4 booleans"),
        ({"test": [True, False, False, True]}, [0, 0, 1, -1], "row 3, an auxiliary outlier"),
        ({"test": [True] * 4}, [0, 0, 1, 1], "left to train"),
        ({"test": [True, False, False, False]}, [0, 0, 1, 1], "left to train or to test on|no outliers"),
    ],
)
def test_bad_protocols(options, y, message):
    for protocol in (HoldOutClass, OneVersusRest):
        with pytest.raises(ValueError, match=message):
            list(protocol(**options).tasks(y, y))
    with pytest.raises(ValueError, match="pass y"):
        HoldOutClass().get_n_splits()


WINE, CULTIVAR = load_wine(return_X_y=True)
# The third cultivar are the outliers.
NAMED = np.array(["barolo", "grignolino", "other"])[CULTIVAR]


def validated(labels, marker):
    """Return the values of all metrics on folds with a few outliers in the training rows."""
    detector = RejectClassDetector(
        hidden_sizes=(8,), class_epochs=1, max_epochs=1, contamination=0, outlier_label=marker, random_state=0
    )
    folds = OutlierKFold(2, contamination=0.1, random_state=0, outlier_label=marker)
    scorers = {name: get_scorer(name, outlier_label=marker) for name in ("auroc", "aupr_out", "fpr95", "aurc")}
    values = cross_validate(detector, WINE, labels, cv=folds, scoring=scorers, error_score="raise")
    return np.array([values[f"test_{name}"] for name in scorers])


@pytest.fixture(scope="module")
def expected():
    return validated(np.where(CULTIVAR == 2, -1, CULTIVAR + 1), -1)


@pytest.mark.parametrize(
    ("labels", "marker"),
    [
        (NAMED, "other"),
        (NAMED.astype(object), "other"),
        (NAMED.tolist(), "other"),
        (pd.Series(NAMED, index=range(1000, 1178)), "other"),
        (pd.Series(pd.Categorical(NAMED)), "other"),
        (np.where(CULTIVAR == 2, -1.0, CULTIVAR + 1), -1),
        (np.where(CULTIVAR == 2, 99.0, CULTIVAR + 1), 99),
        (np.where(CULTIVAR == 2, 0.5, CULTIVAR + 1), 0.5),
    ],
    ids=["text", "objects", "list", "series", "categorical", "float -1", "float", "float marker"],
)
def test_labels_of_text_and_float_are_validated_as_numbers_are(labels, marker, expected):
    np.testing.assert_array_equal(validated(labels, marker), expected)


def test_text_marks_auxiliary_outliers_of_every_splitter():
    y = np.where(np.arange(178) % 10 == 0, "corpus", NAMED)
    for splitter in (HoldOutClass, OneVersusRest):
        for _, target, folds in splitter(outlier_label="corpus", random_state=0).tasks(WINE, y):
            assert (target[y == "corpus"] == -1).all()
            for train, test in folds:
                assert (y[test] != "corpus").all()
                assert (y[train] == "corpus").sum() == (y == "corpus").sum()
