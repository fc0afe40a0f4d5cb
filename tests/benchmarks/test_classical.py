"""The detectors of benchmarks/classical.py, by hand."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skood import compare_detectors
from skood.metrics import auroc


@pytest.fixture(scope="module")
def classical(load_benchmark):
    return load_benchmark("classical")


def test_nearest_of_samples_by_hand(classical):
    X = np.array([[0.0, 0.0], [10.0, 0.0]])
    # Each draw holds both rows.
    whole = classical.NearestOfSamples(3, 5, random_state=0).fit(X)
    assert whole.score_samples([[3.0, 4.0], [10.0, 2.0]]).tolist() == [-5, -2]
    # Of one row each, a share of the draws lies at the origin.
    single = classical.NearestOfSamples(200, 1, random_state=0).fit(X)
    share = np.mean([draw[0, 0] == 0 for draw in single.draws_])
    assert 0.4 < share < 0.6
    assert single.score_samples([[0.0, 0.0]]).item() == pytest.approx(-10 * (1 - share))
    assert [len(draw) for draw in classical.NearestOfSamples(4, 20, random_state=0).fit(np.ones((50, 2))).draws_] == [
        20
    ] * 4


def test_draws_are_of_different_rows(classical):
    X = np.arange(30.0)[:, None]
    draws = classical.NearestOfSamples(10, 20, random_state=0).fit(X).draws_
    assert [len(np.unique(draw)) for draw in draws] == [20] * 10


def test_angle_variance_by_hand(classical):
    # From the origin: (1, 0), (0, 2), (-1, 0). Angles, divided by squared lengths: 0, -1, 0.
    neighbors = np.array([[[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]])
    expected = np.log(np.var([0, -1, 0]))
    assert classical.log_angle_variance(np.zeros((1, 2)), neighbors).tolist() == pytest.approx([expected])
    # Twice as far: each is divided by 2^2.
    far = classical.log_angle_variance(np.zeros((1, 2)), 2 * neighbors)
    assert far.tolist() == pytest.approx([expected - 2 * np.log(4)])
    # A neighbour in the same place is not looked at.
    with_itself = np.concatenate([neighbors, np.zeros((1, 1, 2))], axis=1)
    assert classical.log_angle_variance(np.zeros((1, 2)), with_itself).tolist() == pytest.approx([expected])
    alone = classical.log_angle_variance(np.zeros((2, 2)), np.zeros((2, 3, 2)))
    assert np.isfinite(alone).all()
    assert (alone > expected).all()


def test_angles_are_of_the_nearest_neighbours(classical):
    X = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [9.0, 9.0]])
    detector = classical.FastABOD(3).fit(X)
    assert detector.score_samples([[0.0, 0.0]]).tolist() == pytest.approx([np.log(np.var([0, -1, 0]))])
    # An outlier sees all others under the same angle.
    assert detector.score_samples([[0.0, 0.0]]) > detector.score_samples([[-50.0, 3.0]])


def test_abod_is_that_of_pyod(classical):
    abod = pytest.importorskip("pyod.models.abod")
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(60, 4)), rng.normal(size=(20, 4))
    theirs = -abod.ABOD(n_neighbors=5).fit(X).decision_function(new)
    np.testing.assert_allclose(np.exp(classical.FastABOD(5).fit(X).score_samples(new)), theirs, rtol=1e-9)


def test_autoencoder_gives_back_what_it_knows(classical):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1)) @ rng.normal(size=(1, 6))
    detector = classical.Autoencoder((8, 2, 8), random_state=0).fit(X)
    assert detector.network_.n_iter_ == 100
    error = -detector.score_samples(X)
    assert error.mean() < 0.1 * (X**2).sum(1).mean()
    output = detector.network_.predict(X[:3])
    np.testing.assert_allclose(error[:3], ((output - X[:3]) ** 2).sum(1))
    assert classical.Autoencoder((2,), random_state=0).fit(X[:, :1]).score_samples(X[:, :1]).shape == (300,)


def test_all_take_part_in_a_comparison(classical):
    detectors = {
        "SP": classical.NearestOfSamples(1, 20),
        "LeSiNN": classical.NearestOfSamples(50, 8),
        "ABOD": classical.FastABOD(),
        "AE": classical.Autoencoder(),
    }
    results = compare_detectors(detectors, ["wine"], seeds=1)
    assert (results["error"] == "").all()
    assert (results["auroc"] > 0.9).all()
    for name in detectors:
        X = np.random.default_rng(0).normal(size=(40, 3))
        params = {"random_state": 0} if "random_state" in detectors[name].get_params() else {}
        first, second = (clone(detectors[name]).set_params(**params).fit(X).score_samples(X) for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_taken_for_outliers_by_hand(classical):
    # Mean 0.1, deviation 0.3: over 0.62 there is the last alone.
    scores = np.array([0.0] * 9 + [1.0])
    assert np.flatnonzero(classical.taken_for_outliers(scores)).tolist() == [9]
    # Mean and deviation 0.5: none is over 1.37, so that ten are taken, the higher ones first.
    even = np.repeat([0.0, 1.0], 8)
    assert np.flatnonzero(classical.taken_for_outliers(np.tile(even, 2))).tolist() == [*range(8, 16), 24, 25]
    # Half of them, where they are few.
    assert np.flatnonzero(classical.taken_for_outliers(np.array([0.0, 1.0, 1.0, 0.0]))).tolist() == [1, 2]


def test_triplet_loss_by_hand(classical):
    anchor, inlier, outlier = torch.zeros(2, 2), torch.tensor([[1.0, 0], [0, 2]]), torch.tensor([[0.0, 3], [1, 0]])
    # 5 + 1 - 9 is below zero; 5 + 4 - 1 = 8.
    assert classical.triplet_loss(anchor, inlier, outlier, 5).item() == 4


def test_repen_sets_outliers_apart(classical):
    rng = np.random.RandomState(0)
    # Most of a row is noise; in ten features of sixty outliers lie aside.
    X = rng.uniform(size=(1000, 60))
    X[:, :10] = 0.5 + 0.02 * rng.normal(size=(1000, 10))
    X[:50, :10] = 0.8
    y = np.repeat([-1, 1], [50, 950])
    before = auroc(y, classical.NearestOfSamples(random_state=0).fit(X).score_samples(X))
    repen = classical.REPEN(random_state=0).fit(X)
    assert before < 0.95 < auroc(y, repen.score_samples(X))
    again = clone(repen).fit(X)
    np.testing.assert_array_equal(again.score_samples(X), repen.score_samples(X))
    assert repen.score_samples(X[:3]).shape == (3,)
