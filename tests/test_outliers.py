import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skood import FitOnInliers
from skood.labels import check_labels, marks_outlier

X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0], [1000.0, -1000.0]])
Y = np.array([1, 0, 7, -1])


@pytest.mark.parametrize(
    ("y", "label", "expected"),
    [
        ([1, -1, 0], -1, [False, True, False]),
        ([1.0, -1.0], -1, [False, True]),
        (["a", "b"], -1, [False, False]),
        (["a", "b"], "b", [False, True]),
        ([1, 2], "1", [False, False]),
        (np.array([1, -1, "x"], dtype=object), -1, [False, True, False]),
        ([True, False], -1, [False, False]),
    ],
)
def test_marks_outlier(y, label, expected):
    mask = marks_outlier(y, label)
    assert mask.dtype == bool
    assert mask.tolist() == expected


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
    with pytest.raises(ValueError, match="every row"):
        FitOnInliers(StandardScaler()).fit(X, [-1] * 4)
    with pytest.raises(ValueError, match="inconsistent"):
        FitOnInliers(StandardScaler()).fit(X, [-1] * 3)
    assert not hasattr(FitOnInliers(clone(_NoInverse())), "inverse_transform")


class _NoInverse(StandardScaler):
    @property
    def inverse_transform(self):
        raise AttributeError("inverse_transform")


def test_numbers_among_text():
    """numpy makes text of the -1 in a list; the marker must not be lost by that."""
    assert marks_outlier(check_labels(["a", -1])).tolist() == [False, True]
    with pytest.raises(ValueError, match=r"np.array\(labels, dtype=object\)"):
        marks_outlier(np.array(["a", -1]))
    assert marks_outlier(["a", "-1"], "-1").tolist() == [False, True]
    with pytest.raises(ValueError, match="y is needed"):
        check_labels(None)
