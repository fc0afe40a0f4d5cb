import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf

from skood.estimator.whitening import Whitener


def correlated(n=50, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return 5 + rng.normal(size=(n, d)) @ rng.normal(size=(d, d))


def test_two_features_by_hand():
    """Of correlation r, shrunk by s: eigenvalues are 1 + q and 1 - q, q = (1 - s) r, along (1, 1) and (1, -1)."""
    X = np.array([[2.0, 1], [-2, -1], [2, 1], [-2, -1], [2, -1], [-2, 1], [2, 1], [-2, -1]])
    whitener = Whitener().fit(X)
    np.testing.assert_allclose(whitener.mean_, [0, 0])
    np.testing.assert_allclose(whitener.scale_, [2, 1])
    # r = 1/2. Squared distance of R from I: 2 r^2 = 1/2; chance: (|z|^4 - |R|^2) / n = (4 - 2.5) / 8.
    assert whitener.shrinkage_ == pytest.approx(0.375)
    q = 0.625 * 0.5
    np.testing.assert_allclose(whitener.deviations_, np.sqrt([1 - q, 1 + q]))
    np.testing.assert_allclose(np.abs(whitener.components_), 0.5**0.5)
    across, along = whitener.transform([[4.0, 1.0]])[0]
    # Row (2, 1) once standardised.
    assert abs(across) == pytest.approx(1 / np.sqrt(2 * (1 - q)))
    assert along == pytest.approx(3 / np.sqrt(2 * (1 + q)))


def test_directions_in_which_rows_do_not_differ_are_stretched_within_reason():
    """Two rows say nothing of what lies beside the line through them: LW's s is 0 there, and 1 / n is taken."""
    whitener = Whitener().fit(np.array([[0.0, 0.0], [2.0, 4.0]]))
    assert whitener.shrinkage_ == 0.5
    # Of eigenvalues 0 and 2 these remain.
    np.testing.assert_allclose(whitener.deviations_**2, [0.5, 1.5])


@pytest.mark.parametrize(("n", "d"), [(50, 6), (10, 30), (6, 3)])
def test_of_the_shrunk_correlation_it_leaves_none(n, d):
    X = correlated(n, d)
    whitener = Whitener().fit(X)
    shrunk, shrinkage = ledoit_wolf((X - X.mean(0)) / X.std(0), assume_centered=True)
    assert whitener.shrinkage_ == pytest.approx(shrinkage, abs=1e-9)
    W = whitener.components_ / whitener.deviations_
    np.testing.assert_allclose(W.T @ shrunk @ W, np.eye(d), atol=1e-6)
    np.testing.assert_allclose(whitener.components_ @ whitener.components_.T, np.eye(d), atol=1e-12)
    largest = np.abs(whitener.components_).argmax(0)
    assert (whitener.components_[largest, np.arange(d)] > 0).all()


@settings(max_examples=20)
@given(st.integers(1, 49), st.integers(0, 1000))
def test_chunks_are_as_the_whole(cut, seed):
    X = correlated(seed=seed)
    whole = Whitener().fit(X)
    chunked = Whitener().fit_chunks(lambda: iter([X[:cut], X[cut:]]))
    np.testing.assert_allclose(chunked.transform(X), whole.transform(X), rtol=1e-6, atol=1e-9)


def test_scale_and_place_do_not_matter():
    X = correlated()
    scale, place = np.array([1e-3, 1, 10, 0.5, 1e6, 2]), np.array([5, -3, 0, 1e3, 0, -1])
    np.testing.assert_allclose(
        Whitener().fit(X * scale + place).transform(X * scale + place), Whitener().fit(X).transform(X)
    )


def test_constant_features_are_only_centred():
    X = np.insert(correlated(), 2, 7.0, axis=1)
    whitener = Whitener().fit(X)
    np.testing.assert_array_equal(whitener.components_[2], np.eye(7)[2])
    np.testing.assert_array_equal(whitener.transform(X + np.eye(7)[2])[:, 2], 1)


def test_a_single_row_and_rows_that_are_all_alike():
    for X in (np.ones((1, 3)), np.full((5, 3), 2.0)):
        np.testing.assert_array_equal(Whitener().fit(X).transform(X + 1), 1)


def test_a_feature_that_repeats_another_stays_finite():
    X = correlated(100_000, 2)
    whitener = Whitener().fit(X[:, [0, 1, 0]])
    assert whitener.deviations_.min() >= 100_000**-0.5
    assert np.isfinite(whitener.transform(X[:5, [0, 1, 1]])).all()
