"""Transformers fitted on in-distribution rows only."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from skood import FitOnInliers, FrozenEncoder, SimCLREncoder

X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0], [1000.0, -1000.0]])
Y = np.array([1, 0, 7, -1])


@pytest.mark.parametrize("transformer", [StandardScaler(), MinMaxScaler(), PCA(1)])
def test_fitted_on_the_inliers_and_applied_to_all(transformer):
    wrapped = FitOnInliers(transformer).fit(X, Y)
    expected = clone(transformer).fit(X[:3])
    np.testing.assert_allclose(wrapped.transform(X), expected.transform(X))
    np.testing.assert_allclose(FitOnInliers(transformer).fit_transform(X, Y), expected.transform(X))
    back = expected.inverse_transform(expected.transform(X))
    np.testing.assert_allclose(wrapped.inverse_transform(wrapped.transform(X)), back)
    assert wrapped.n_features_in_ == 2


def test_without_y_it_is_the_transformer():
    np.testing.assert_allclose(FitOnInliers(StandardScaler()).fit_transform(X), StandardScaler().fit_transform(X))


def test_frames_and_output():
    frame = pd.DataFrame(X, columns=["a", "b"])
    wrapped = FitOnInliers(StandardScaler()).set_output(transform="pandas").fit(frame, pd.Series(Y))
    assert list(wrapped.transform(frame).columns) == ["a", "b"]
    assert list(wrapped.feature_names_in_) == ["a", "b"]
    assert list(wrapped.get_feature_names_out()) == ["a", "b"]


def test_labels_of_text():
    y = ["in", "in", "in", "out"]
    wrapped = FitOnInliers(StandardScaler(), outlier_label="out").fit(X, y)
    np.testing.assert_allclose(wrapped.transformer_.mean_, X[:3].mean(axis=0))


def test_bad_input():
    with pytest.raises(ValueError, match=r"transformer=LogisticRegression\(\) has no method transform"):
        FitOnInliers(LogisticRegression()).fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="every row"):
        FitOnInliers(StandardScaler()).fit(X, [-1] * 4)
    with pytest.raises(ValueError, match="inconsistent"):
        FitOnInliers(StandardScaler()).fit(X, [-1] * 3)
    assert not hasattr(FitOnInliers(clone(_NoInverse())), "inverse_transform")


class _NoInverse(StandardScaler):
    @property
    def inverse_transform(self):
        raise AttributeError("inverse_transform")


# ---------------------------------------------------------------------------------------------------------- set_output

FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["a", "b"], index=np.arange(40) + 7)
INLIERS = np.ones(40, dtype=int)
TRANSFORMERS = {
    "function": FunctionTransformer(np.abs),
    "function-with-names": FunctionTransformer(np.abs, feature_names_out="one-to-one"),
    "scaler": StandardScaler(),
    "pca": PCA(1),
    "columns": ColumnTransformer([("one", StandardScaler(), ["b"]), ("rest", MinMaxScaler(), ["a"])]),
    "pipeline": make_pipeline(StandardScaler(), PCA(2)),
    "union": FeatureUnion([("scaler", StandardScaler()), ("pca", PCA(1))]),
    "nested": FitOnInliers(StandardScaler()),
    "nested-function": FitOnInliers(FunctionTransformer(np.abs)),
    "names-after-fit": SelectKBest(lambda X, y: np.array([2.0, 1.0]), k=1),
    "frozen": FrozenEncoder(torch.nn.Sequential(torch.nn.Linear(2, 3))),
    "encoder": SimCLREncoder(max_epochs=1, embedding_size=3, random_state=0),
}


# As of any Pipeline whose output is set after its steps were fitted on arrays, or on frames.
@pytest.mark.filterwarnings("ignore:X (has|does not have).* feature names, but PCA was fitted")
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_frames_are_those_of_the_transformer(name):
    transformer = TRANSFORMERS[name]
    expected = clone(transformer).set_output(transform="pandas").fit(FRAME, INLIERS).transform(FRAME)
    assert isinstance(expected, pd.DataFrame)
    before = FitOnInliers(clone(transformer)).set_output(transform="pandas")
    after = FitOnInliers(clone(transformer)).fit(FRAME, INLIERS).set_output(transform="pandas")
    for wrapped in (before, after, clone(before), clone(after)):
        fitted = wrapped if hasattr(wrapped, "transformer_") else wrapped.fit(FRAME, INLIERS)
        pd.testing.assert_frame_equal(fitted.transform(FRAME), expected)
        pd.testing.assert_frame_equal(fitted.fit_transform(FRAME, INLIERS), expected)
    if hasattr(expected, "get_feature_names_out"):
        assert list(before.get_feature_names_out()) == list(expected.columns)
    # None changes nothing, and "default" takes the setting back.
    assert isinstance(before.set_output(transform=None).transform(FRAME), pd.DataFrame)
    plain = clone(transformer).set_output(transform="default").fit(FRAME, INLIERS).transform(FRAME)
    undone = before.set_output(transform="default")
    for one in (undone.transform(FRAME), clone(undone).fit_transform(FRAME, INLIERS)):
        assert type(one) is type(plain)
        np.testing.assert_array_equal(one, plain)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_frames_in_pipelines_and_by_the_global_setting(name):
    def wrapped():
        return FitOnInliers(clone(TRANSFORMERS[name]))

    bare = make_pipeline(clone(TRANSFORMERS[name]), MinMaxScaler()).set_output(transform="pandas")
    expected = bare.fit_transform(FRAME, INLIERS)
    found = make_pipeline(wrapped(), MinMaxScaler()).set_output(transform="pandas").fit_transform(FRAME, INLIERS)
    pd.testing.assert_frame_equal(found, expected)
    with config_context(transform_output="pandas"):
        found = make_pipeline(wrapped(), MinMaxScaler()).fit_transform(FRAME, INLIERS)
        pd.testing.assert_frame_equal(found, expected)
        # What is set by hand goes before.
        assert isinstance(
            FitOnInliers(StandardScaler()).set_output(transform="default").fit_transform(FRAME), np.ndarray
        )
    if name in ("function", "nested-function"):
        return
    by_columns = ColumnTransformer([("all", wrapped(), ["a", "b"])], verbose_feature_names_out=False)
    found = by_columns.set_output(transform="pandas").fit_transform(FRAME, INLIERS)
    pd.testing.assert_frame_equal(
        found, clone(TRANSFORMERS[name]).set_output(transform="pandas").fit_transform(FRAME, INLIERS)
    )


def test_a_transformer_that_sets_no_output_is_named():
    class Halves:
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return X / 2

    assert not hasattr(FitOnInliers(Halves()), "set_output")
    with pytest.raises(ValueError, match=r"Unable to configure output for FitOnInliers"):
        make_pipeline(FitOnInliers(Halves()), StandardScaler()).set_output(transform="pandas")
