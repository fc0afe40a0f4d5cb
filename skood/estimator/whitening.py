"""Scaling that removes the correlation between features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from .versioned import VersionedEstimator


class Whitener(TransformerMixin, VersionedEstimator):
    """Turn rows into principal components of equal scale, computed from a shrunk correlation matrix.

    With standardised rows z and the eigenvectors V and eigenvalues w of R = mean z z^T, component k is
    (z V)_k / sqrt((1 - s) w_k + s), with the shrinkage s of Ledoit & Wolf [1]_, but at least 1 / n_samples: along
    directions in which the rows do not vary, w_k = 0, new rows are stretched by at most sqrt(n_samples). There are as
    many components as features. A constant feature is a component of its own and is only centred.

    Attributes
    ----------
    mean_, scale_ : ndarray of float64 of shape (n_features,)
        Mean and standard deviation of each feature, as of a StandardScaler.
    shrinkage_ : float
        s, between 0 and 1.
    components_ : ndarray of float64 of shape (n_features, n_features)
        V: each column is a component. Its loading of largest absolute value is positive.
    deviations_ : ndarray of float64 of shape (n_features,)
        sqrt((1 - s) w + s), ascending; 1 for constant features, which keep their positions.

    References
    ----------
    .. [1] Olivier Ledoit and Michael Wolf, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices",
       Journal of Multivariate Analysis, 2004.
    """

    def fit(self, X: np.ndarray, y: Any = None) -> Self:
        """Learn means, scales and the correlation.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self : object
        """
        return self.fit_chunks(lambda: iter([X]))

    def fit_chunks(self, chunks: Callable[[], Iterator[np.ndarray]]) -> Self:
        """Fit, as `fit` does, on rows that come in chunks, so that they need not fit into memory.

        Parameters
        ----------
        chunks : callable
            Returns an iterator over all chunks, arrays of shape (n, n_features). It is called twice: once for means
            and scales, once for the correlation.

        Returns
        -------
        self : object
        """
        scaler = StandardScaler()
        for chunk in chunks():
            scaler.partial_fit(chunk.astype(np.float64))
        self.mean_, self.scale_ = scaler.mean_, scaler.scale_
        n, d = int(scaler.n_samples_seen_), len(scaler.mean_)
        products, fourth_powers = np.zeros((d, d)), 0.0
        for chunk in chunks():
            # Not by the scaler, which would return a DataFrame under set_config(transform_output="pandas").
            rows = (chunk.astype(np.float64) - self.mean_) / self.scale_
            products += rows.T @ rows
            fourth_powers += np.square(np.square(rows).sum(1)).sum()
        # The diagonal is 0 for a constant feature, and n for any other.
        varying = np.diag(products) > 0.5 * n
        correlation = products[np.ix_(varying, varying)] / n
        # Ledoit and Wolf: the squared distance of the correlation from the identity, and the part of it due to chance.
        square = np.square(correlation).sum()
        distance = square - len(correlation)
        chance = (fourth_powers / n - square) / n
        self.shrinkage_ = float(np.clip(chance / distance, 1 / n, 1)) if distance > 0 else 1.0
        values, vectors = np.linalg.eigh(correlation)
        # An eigenvector's sign is arbitrary and differs between machines.
        upside_down = vectors.max(0, initial=0) < -vectors.min(0, initial=0)
        self.components_, self.deviations_ = np.eye(d), np.ones(d)
        self.components_[np.ix_(varying, varying)] = np.where(upside_down, -vectors, vectors)
        self.deviations_[varying] = np.sqrt((1 - self.shrinkage_) * values + self.shrinkage_)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the components of rows.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        Z : ndarray of float64 of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        return (X - self.mean_) / self.scale_ @ (self.components_ / self.deviations_)
