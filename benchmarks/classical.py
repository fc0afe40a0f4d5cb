"""Of the DUM paper's Table 2, the methods that scikit-learn does not have, made of its parts; see ``dum_uci.py``.

REPEN is not here: its loss cannot be had from the paper as printed. PyOD has others of these, where it is installed:
``python -m skood compare --suite DIR/uci --detectors pyod:ABOD,pyod:KNN,pyod:Sampling,pyod:AutoEncoder``.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPRegressor
from sklearn.utils import check_random_state, gen_batches

_ROWS_SCORED = 2**12


class NearestOfSamples(OutlierMixin, BaseEstimator):
    """Minus the distance to the nearest of a few training rows, drawn at random; the mean over several draws.

    One draw of 20 rows is the rapid sampling of Sugiyama & Borgwardt (2013), 50 draws of 8 are the LeSiNN of Pang, Ting
    & Albrecht (2015).

    Parameters
    ----------
    n_draws : int, default=50
    n_drawn : int, default=8
        Rows in a draw, without replacement (fewer where there are fewer).
    random_state : int, RandomState instance or None, default=None
    """

    def __init__(self, n_draws=50, n_drawn=8, *, random_state=None):
        self.n_draws = n_draws
        self.n_drawn = n_drawn
        self.random_state = random_state

    def fit(self, X, y=None):
        """Draw the rows."""
        X, rng = np.asarray(X, dtype=np.float64), check_random_state(self.random_state)
        self.draws_ = [X[rng.permutation(len(X))[: self.n_drawn]] for _ in range(self.n_draws)]
        return self

    def score_samples(self, X):
        """Minus the mean over draws of the distance to the nearest row drawn; higher = more normal."""
        X = np.asarray(X, dtype=np.float64)
        return -np.mean([pairwise_distances_argmin_min(X, draw)[1] for draw in self.draws_], axis=0)


class FastABOD(OutlierMixin, BaseEstimator):
    """The logarithm of the angle-based outlier factor, among nearest neighbours (Kriegel et al. 2008).

    The variance, over pairs (b, c) of the neighbours of a row a, of <b - a, c - a> / (|b - a|^2 |c - a|^2); without
    Kriegel's weights, as PyOD has it, which the paper used.

    Parameters
    ----------
    n_neighbors : int, default=5
        Nearest training rows (fewer where there are fewer).
    """

    def __init__(self, n_neighbors=5):
        self.n_neighbors = n_neighbors

    def fit(self, X, y=None):
        """Keep the training rows."""
        self.rows_ = np.asarray(X, dtype=np.float64)
        self.neighbors_ = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(self.rows_))).fit(self.rows_)
        return self

    def score_samples(self, X):
        """The logarithm of the variance; higher = more normal."""
        X = np.asarray(X, dtype=np.float64)
        near = self.neighbors_.kneighbors(X, return_distance=False)
        return np.concatenate(
            [log_angle_variance(X[part], self.rows_[near[part]]) for part in gen_batches(len(X), _ROWS_SCORED)]
        )


def log_angle_variance(X, neighbors):
    """Logarithm of the variance of weighted angles under which each row sees pairs of its neighbours.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    neighbors : ndarray of shape (n, k, d)

    Returns
    -------
    log_variance : ndarray of shape (n,)
        A neighbour in the same place takes part in no pair. The largest there is where no pair is left, for such a row
        lies among its like.
    """
    toward = neighbors - X[:, None]
    squared = (toward**2).sum(2)
    apart = squared > 0
    toward = toward / np.where(apart, squared, 1)[:, :, None]
    first, second = np.triu_indices(neighbors.shape[1], k=1)
    angles = np.einsum("nid,njd->nij", toward, toward)[:, first, second]
    used = apart[:, first] & apart[:, second]
    n_used = used.sum(1)
    mean = (angles * used).sum(1) / np.maximum(n_used, 1)
    variance = ((angles - mean[:, None]) ** 2 * used).sum(1) / np.maximum(n_used, 1)
    limits = np.finfo(np.float64)
    return np.log(np.where(n_used > 0, variance, limits.max).clip(limits.tiny, limits.max))


class Autoencoder(OutlierMixin, BaseEstimator):
    """Minus the squared error with which a network with a bottleneck gives back a row.

    Epochs and batches are the paper's: 100 of 32 rows for fewer than 10,000 rows, else 20 of 256.

    Parameters
    ----------
    hidden_sizes : tuple of int, default=(16, 8, 8, 16)
    random_state : int, RandomState instance or None, default=None
    """

    def __init__(self, hidden_sizes=(16, 8, 8, 16), *, random_state=None):
        self.hidden_sizes = hidden_sizes
        self.random_state = random_state

    def fit(self, X, y=None):
        """Train the network to give back its input."""
        n_epochs, batch_size = (100, 32) if len(X) < 10_000 else (20, 256)
        self.network_ = MLPRegressor(
            hidden_layer_sizes=self.hidden_sizes,
            batch_size=min(batch_size, len(X)),
            max_iter=n_epochs,
            n_iter_no_change=n_epochs,
            random_state=self.random_state,
        )
        with warnings.catch_warnings():
            # All epochs are wanted.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.network_.fit(X, np.ravel(X) if np.shape(X)[1] == 1 else X)
        return self

    def score_samples(self, X):
        """Minus the squared error; higher = more normal."""
        X = np.asarray(X, dtype=np.float64)
        return -((self.network_.predict(X).reshape(X.shape) - X) ** 2).sum(1)
