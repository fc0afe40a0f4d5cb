"""Scaling of rows that takes the correlation of features out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted


class Whitener(TransformerMixin, BaseEstimator):
    """Principal components of standardised features, each divided by its standard deviation, which is shrunk.

    With standardised rows z and the eigenvectors V and eigenvalues w of R = mean z z^T, component k is
    (z V)_k / sqrt((1 - s) w_k + s), with the shrinkage s of Ledoit & Wolf [1]_, but at least 1 / n_samples: where rows
    do not differ at all they are stretched no more than that. There are as many components as features; constant
    features are one each, only centred.

    Attributes
    ----------
    mean_, scale_ : ndarray of float64 of shape (n_features,)
        As of a StandardScaler.

    shrinkage_ : float
        s, between 0 and 1.

    components_ : ndarray of float64 of shape (n_features, n_features)
        V, a component a column, the largest of its loadings positive.

    deviations_ : ndarray of float64 of shape (n_features,)
        sqrt((1 - s) w + s), ascending but for constant features.

    References
    ----------
    .. [1] Olivier Ledoit and Michael Wolf, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices",
       Journal of Multivariate Analysis, 2004.
    """

    def fit(self, X, y=None):
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

    def fit_chunks(self, chunks: Callable[[], Iterator[np.ndarray]]):
        """Learn the same from rows that come in chunks, twice.

        Parameters
        ----------
        chunks : callable
            Gives the chunks, arrays of shape (n, n_features), from the first to the last.

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
            rows = scaler.transform(chunk.astype(np.float64))
            products += rows.T @ rows
            fourth_powers += np.square(np.square(rows).sum(1)).sum()
        varying = np.diag(products) > 0.5 * n
        correlation = products[np.ix_(varying, varying)] / n
        # How far the correlation is from I, and how much of that is chance.
        square = np.square(correlation).sum()
        distance = square - len(correlation)
        chance = (fourth_powers / n - square) / n
        self.shrinkage_ = float(np.clip(chance / distance, 1 / n, 1)) if distance > 0 else 1.0
        values, vectors = np.linalg.eigh(correlation)
        upside_down = vectors.max(0, initial=0) < -vectors.min(0, initial=0)
        self.components_, self.deviations_ = np.eye(d), np.ones(d)
        self.components_[np.ix_(varying, varying)] = np.where(upside_down, -vectors, vectors)
        self.deviations_[varying] = np.sqrt((1 - self.shrinkage_) * values + self.shrinkage_)
        return self

    def transform(self, X):
        """Components of rows.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        Z : ndarray of float64 of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        return (X - self.mean_) / self.scale_ @ (self.components_ / self.deviations_)
