"""Scalers that are fitted chunk by chunk, and the module that scales by them, before a network."""

import numpy as np
import pytest
import torch

from skood.estimator.front import Front
from skood.estimator.scaling import center_and_scale, fitted_scaler, unscaled
from skood.estimator.whitening import Whitener


def scaled(scaler, X):
    return Front(scaler=scaler)(torch.from_numpy(X)).numpy()


def test_features_of_vectors_are_scaled_each_on_its_own():
    X = np.array([[0.0, 10.0], [2.0, 30.0], [4.0, 50.0]])
    scaler = fitted_scaler("minmax", iter([X[:1], X[1:]]))
    np.testing.assert_allclose(scaled(scaler, X), [[0, 0], [0.5, 0.5], [1, 1]])
    assert scaled(scaler, X).dtype == scaled(None, X).dtype == np.float32


def test_large_features_keep_their_digits():
    X = 1.6e9 + np.array([[-10.0], [0.0], [10.0]])
    scaler = fitted_scaler("standard", iter([X]))
    np.testing.assert_allclose(scaled(scaler, X)[:, 0], np.sqrt([1.5, 0, 1.5]) * [-1, 0, 1], atol=1e-6)


def test_channels_of_images_are_scaled_each_on_its_own():
    rng = np.random.default_rng(0)
    X = rng.normal([[[[5.0]], [[-2.0]]]], [[[[3.0]], [[0.5]]]], size=(40, 2, 6, 5))
    scaler = fitted_scaler("standard", iter([X[:10], X[10:]]))
    Z = scaled(scaler, X)
    np.testing.assert_allclose(Z.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(Z.std((0, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(Z[3, 1], (X[3, 1] - X[:, 1].mean()) / X[:, 1].std(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
@pytest.mark.parametrize("shape", [(30, 2), (30, 2, 4, 3)])
def test_scaling_is_undone(scaling, shape):
    X = np.random.default_rng(0).normal(3, 2, size=shape)
    scaler = fitted_scaler(scaling, iter([X]))
    np.testing.assert_allclose(unscaled(scaler, scaled(scaler, X)), X, rtol=1e-4, atol=1e-6)
    assert unscaled(None, X) is X


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_center_and_scale_say_what_a_scaler_does(scaling):
    X = np.random.default_rng(0).normal(3, 2, size=(30, 2))
    scaler = fitted_scaler(scaling, iter([X]))
    center, scale = center_and_scale(scaler)
    np.testing.assert_allclose((X - center) / scale, scaler.transform(X))


def test_whitening():
    X = np.random.default_rng(0).normal(size=(50, 4)) @ np.diag([1, 2, 3, 1e6])
    whitener = Whitener().fit(X)
    np.testing.assert_allclose(scaled(whitener, X), whitener.transform(X), rtol=1e-4, atol=1e-5)


def test_bytes_of_flattened_images():
    X = np.random.default_rng(0).integers(0, 256, size=(5, 12), dtype=np.uint8)
    front = Front((3, 2, 2), uint8=True)
    assert np.array_equal(front(torch.from_numpy(X)).numpy(), (X / np.float32(255)).reshape(5, 3, 2, 2))
    flat = Front((3, 2, 2), uint8=True, flat=True, unit=True)
    X[0] = 0
    np.testing.assert_allclose(torch.linalg.vector_norm(flat(torch.from_numpy(X)), dim=1), [0, 1, 1, 1, 1], rtol=1e-6)


def test_images_are_padded_after_they_are_scaled():
    X = np.random.default_rng(0).normal(3, 2, size=(4, 1, 2, 5))
    scaler = fitted_scaler("standard", iter([X]))
    Z = Front(scaler=scaler, pads=True)(torch.from_numpy(X)).numpy()
    assert Z.shape == (4, 1, 5, 5)
    assert not Z[:, :, 0].any()
    np.testing.assert_array_equal(Z[:, :, 1:3], scaled(scaler, X))
