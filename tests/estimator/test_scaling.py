"""Scalers that are fitted chunk by chunk."""

import numpy as np
import pytest

from skood.estimator.scaling import center_and_scale, fitted_scaler, scaled, unscaled


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


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
@pytest.mark.parametrize("shape", [(30, 2), (30, 2, 4, 3)])
def test_scaling_is_undone(scaling, shape):
    X = np.random.default_rng(0).normal(3, 2, size=shape)
    scaler = fitted_scaler(scaling, iter([X]))
    np.testing.assert_allclose(unscaled(scaler, scaled(scaler, X)), X)
    assert unscaled(None, X) is X


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_center_and_scale_say_what_a_scaler_does(scaling):
    X = np.random.default_rng(0).normal(3, 2, size=(30, 2))
    scaler = fitted_scaler(scaling, iter([X]))
    center, scale = center_and_scale(scaler)
    np.testing.assert_allclose((X - center) / scale, scaled(scaler, X))
