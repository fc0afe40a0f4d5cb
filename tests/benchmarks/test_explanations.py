"""The script that measures explanations: what it plants, and how it reads maps."""

from pathlib import Path

import numpy as np
import pytest
from configurations import public_estimators

from skood.estimator import Detector


@pytest.fixture
def script(load_benchmark, monkeypatch):
    # It imports others.
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return load_benchmark("explanations")


def test_one_feature_of_each_row_is_off(script):
    X = np.random.default_rng(0).normal(size=(50, 4))
    rows, which = script.planted_features(X, X, 8, np.random.RandomState(0))
    off = np.abs(rows - X.mean(0)) / X.std(0) > 7
    assert (off.sum(1) == 1).all()
    assert (off.argmax(1) == which).all()
    assert len(set(which)) > 1


@pytest.mark.parametrize("uint8", [False, True])
def test_one_patch_of_each_image_is_off(script, uint8):
    X = np.zeros((20, 1, 8, 8), dtype=np.uint8 if uint8 else float)
    rows, which = script.planted_patches(X, np.random.RandomState(0))
    patches = script.in_patches(rows.astype(float).sum(1))
    expected = np.zeros((script.N_PLANTED_IMAGES, 16))
    expected[np.arange(len(which)), which] = 4 * (255 if uint8 else 1)
    np.testing.assert_array_equal(patches, expected)
    assert not X.any()


def test_every_detector_is_measured(script):
    measured = {name.partition(",")[0] for name in script.DETECTORS}
    assert measured == {one.__name__ for one in public_estimators(Detector)}
