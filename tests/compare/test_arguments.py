"""Arguments that are one thing instead of a list, numbers of rows, and answers of the wrong length."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import compare_detectors
from skood.compare import NearestNeighborsDetector


def blob():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[40:] += 2
    return X, np.repeat([1, -1], [40, 20])


class Wrong(BaseEstimator):
    """Answers with more or fewer scores or labels than there are rows."""

    def __init__(self, scores=0, labels=0, column=False):
        self.scores, self.labels, self.column = scores, labels, column

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def score_samples(self, X):
        scores = np.arange(len(X) + self.scores)
        return scores[:, None] if self.column else scores

    def predict(self, X):
        return np.ones(len(X) + self.labels)


@pytest.mark.parametrize(
    ("detector", "name"),
    [
        (make_pipeline(StandardScaler(), NearestNeighborsDetector()), "Pipeline"),
        (NearestNeighborsDetector(), "NearestNeighborsDetector"),
        ("knn", "kNN"),
    ],
)
def test_one_detector_is_a_list_of_one(detector, name):
    results = compare_detectors(detector, {"x": blob()}, seeds=1)
    assert results["detector"].tolist() == [name]
    listed = compare_detectors([detector], {"x": blob()}, seeds=1)
    assert results["auroc"].tolist() == listed["auroc"].tolist() != [np.nan]


def test_one_data_set_is_a_list_of_one():
    assert compare_detectors("kNN", "wine", seeds=1)["dataset"].tolist() == ["wine"]


@pytest.mark.parametrize(
    ("detectors", "message"),
    [
        ([IsolationForest], r"'IsolationForest' is a class: pass a detector, IsolationForest\(\)"),
        (IsolationForest, r"'IsolationForest' is a class: pass a detector, IsolationForest\(\)"),
        ({"a": IsolationForest}, r"'a' is a class: pass a detector, IsolationForest\(\)"),
        ({"a": object()}, "'a' is of type object, and no estimator of scikit-learn's kind: derive it from"),
        ({"a": "kNN"}, "'a' is of type str, and no estimator of scikit-learn's kind: derive it from"),
    ],
)
def test_what_is_no_detector_is_refused(detectors, message):
    with pytest.raises(ValueError, match=message):
        compare_detectors(detectors, {"x": blob()}, seeds=1)


@pytest.mark.parametrize("name", ["max_train", "max_test"])
@pytest.mark.parametrize("value", [-5, 0, 1e4, 2.5, "10", True, np.nan])
def test_numbers_of_rows_are_positive(name, value):
    with pytest.raises(ValueError, match=rf"{name}=.* must be a positive integer, or None"):
        compare_detectors("kNN", {"x": blob()}, seeds=1, **{name: value})


def test_any_kind_of_integer_is_a_number_of_rows():
    assert compare_detectors("kNN", {"x": blob()}, seeds=1, max_train=np.int64(7))["n_train"].tolist() == [7]


def test_what_predict_returns_may_be_something_else():
    class Rebuilding(Wrong):
        def predict(self, X):
            return X

    results = compare_detectors({"d": Rebuilding()}, {"x": blob()}, seeds=1)
    assert results["error"].tolist() == [""]
    assert results["caught"].isna().all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Wrong(scores=3), r"ValueError: score_samples returned an array of shape (43,) for 40 rows"),
        (Wrong(scores=-3), r"ValueError: score_samples returned an array of shape (37,) for 40 rows"),
        (Wrong(column=True), r"ValueError: score_samples returned an array of shape (40, 1) for 40 rows"),
        (Wrong(labels=3), r"ValueError: predict returned an array of shape (43,) for 40 rows"),
        (Wrong(labels=-3), r"ValueError: predict returned an array of shape (37,) for 40 rows"),
    ],
)
def test_answers_of_the_wrong_length_are_a_row_that_says_so(wrong, message):
    results = compare_detectors({"wrong": wrong, "kNN": NearestNeighborsDetector()}, {"x": blob()}, seeds=1)
    assert results["error"].tolist() == [f"{message}; expected one value for each row.", ""]
    assert np.isnan(results["auroc"][0])
