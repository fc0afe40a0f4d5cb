"""Transformers fitted on in-distribution rows only."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skood import FitOnInliers

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
