import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skood._validation import fitted_scaler, resolve_image_shape, scaled


def test_features_of_vectors_are_scaled_each_on_its_own():
    X = np.array([[0.0, 10.0], [2.0, 30.0], [4.0, 50.0]])
    scaler = fitted_scaler("minmax", iter([X[:1], X[1:]]))
    np.testing.assert_allclose(scaled(scaler, X), [[0, 0], [0.5, 0.5], [1, 1]])
    assert scaled(None, X.astype(np.float32)).dtype == np.float64


def test_channels_of_images_are_scaled_each_on_its_own():
    rng = np.random.default_rng(0)
    X = rng.normal([[[[5.0]], [[-2.0]]]], [[[[3.0]], [[0.5]]]], size=(40, 2, 6, 5))
    scaler = fitted_scaler("standard", iter([X[:10], X[10:]]))
    Z = scaled(scaler, X)
    np.testing.assert_allclose(Z.mean((0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(Z.std((0, 2, 3)), 1)
    np.testing.assert_allclose(Z[3, 1], (X[3, 1] - X[:, 1].mean()) / X[:, 1].std())


@settings(deadline=None)
@given(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), st.integers(0, 3))
def test_one_size_of_an_image_may_be_worked_out(shape, place):
    given_shape = tuple(-1 if i == place else n for i, n in enumerate(shape))
    assert resolve_image_shape(given_shape, np.prod(shape)) == shape


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, -1, -1), "one may be -1"),
        ((1, 0, 4), "three positive integers"),
        ((2, 2), "three positive integers"),
        ((1, -1, 5), "which image_shape=\\(1, -1, 5\\) does not divide"),
        ((1, 3, 5), "X has 12 features, but image_shape=\\(1, 3, 5\\) makes 15"),
    ],
)
def test_shapes_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        resolve_image_shape(shape, 12)
