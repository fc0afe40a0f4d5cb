"""Methods of the DUM paper's Table 2 that scikit-learn lacks, built from its parts; see ``dum_uci.py``.

If PyOD is installed, it has others of them:
``python -m skood compare --suite DIR/uci --detectors pyod:ABOD,pyod:KNN,pyod:Sampling,pyod:AutoEncoder``.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPRegressor
from sklearn.utils import check_random_state, gen_batches

_ROWS_SCORED = 2**12


class NearestOfSamples(OutlierMixin, BaseEstimator):
    """Score rows by minus the distance to the nearest of a few random training rows, averaged over several draws.

    One draw of 20 rows is the rapid sampling of Sugiyama & Borgwardt (2013); 50 draws of 8 rows are LeSiNN of Pang,
    Ting & Albrecht (2015).

    Parameters
    ----------
    n_draws : int, default=50
    n_drawn : int, default=8
        Rows in a draw, without replacement; at most all rows.
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
        """Return minus the distance to the nearest drawn row, averaged over draws; higher = more normal."""
        X = np.asarray(X, dtype=np.float64)
        return -np.mean([pairwise_distances_argmin_min(X, draw)[1] for draw in self.draws_], axis=0)


class FastABOD(OutlierMixin, BaseEstimator):
    """Score rows by the logarithm of the angle-based outlier factor among nearest neighbours (Kriegel et al. 2008).

    The factor is the variance of <b - a, c - a> / (|b - a|^2 |c - a|^2) over pairs (b, c) of neighbours of a row a. It
    is without Kriegel's weights, as in PyOD, which the paper used.

    Parameters
    ----------
    n_neighbors : int, default=5
        Nearest training rows; at most all rows.
    """

    def __init__(self, n_neighbors=5):
        self.n_neighbors = n_neighbors

    def fit(self, X, y=None):
        """Keep the training rows."""
        self.rows_ = np.asarray(X, dtype=np.float64)
        self.neighbors_ = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(self.rows_))).fit(self.rows_)
        return self

    def score_samples(self, X):
        """Return the logarithm of the variance; higher = more normal."""
        X = np.asarray(X, dtype=np.float64)
        near = self.neighbors_.kneighbors(X, return_distance=False)
        return np.concatenate(
            [log_angle_variance(X[part], self.rows_[near[part]]) for part in gen_batches(len(X), _ROWS_SCORED)]
        )


def log_angle_variance(X, neighbors):
    """Return the log-variance of weighted angles between the directions from each row to pairs of its neighbours.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    neighbors : ndarray of shape (n, k, d)

    Returns
    -------
    log_variance : ndarray of shape (n,)
        Neighbours in the same place as the row are in no pair. A row without pairs gets the largest number, because it
        has many equal rows.
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
    """Score rows by minus the squared error of their reconstruction by a network with a bottleneck.

    Epochs and batches are the paper's: 100 epochs with batches of 32 for fewer than 10,000 rows, else 20 epochs with
    batches of 256.

    Parameters
    ----------
    hidden_sizes : tuple of int, default=(16, 8, 8, 16)
    random_state : int, RandomState instance or None, default=None
    """

    def __init__(self, hidden_sizes=(16, 8, 8, 16), *, random_state=None):
        self.hidden_sizes = hidden_sizes
        self.random_state = random_state

    def fit(self, X, y=None):
        """Train the network to reconstruct its input."""
        n_epochs, batch_size = (100, 32) if len(X) < 10_000 else (20, 256)
        self.network_ = MLPRegressor(
            hidden_layer_sizes=self.hidden_sizes,
            batch_size=min(batch_size, len(X)),
            max_iter=n_epochs,
            n_iter_no_change=n_epochs,
            random_state=self.random_state,
        )
        with warnings.catch_warnings():
            # All epochs shall run, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.network_.fit(X, np.ravel(X) if np.shape(X)[1] == 1 else X)
        return self

    def score_samples(self, X):
        """Return minus the squared error; higher = more normal."""
        X = np.asarray(X, dtype=np.float64)
        return -((self.network_.predict(X).reshape(X.shape) - X) ** 2).sum(1)


class REPEN(OutlierMixin, BaseEstimator):
    """Score rows by LeSiNN on a representation that LeSiNN itself has supervised (Pang, Cao, Chen & Liu 2018).

    Rows that LeSiNN calls outliers shall lie farther from an inlier than another inlier does: training minimises the
    mean of ``max(0, margin + |g(x) - g(p)|^2 - |g(x) - g(n)|^2)`` over triplets (x, p, n) of two inliers and an
    outlier, where g is a layer of ReLUs. This is the loss of the method's own paper; the DUM paper prints dot products
    with the signs of distances, which would draw outliers near.

    Layer, margin and the weights of the draws are those of the authors' program. Training is the DUM paper's: Adam,
    learning rate 1e-3, weight decay 1e-5, batches of 256 triplets, 30 epochs, or 5 for more than 100,000 rows.

    Parameters
    ----------
    n_units : int, default=20
    margin : float, default=1000
    random_state : int, RandomState instance or None, default=None
    """

    def __init__(self, n_units=20, margin=1000.0, *, random_state=None):
        self.n_units = n_units
        self.margin = margin
        self.random_state = random_state

    def fit(self, X, y=None):
        """Score the rows by LeSiNN, train the layer, and draw LeSiNN's rows again from its output."""
        X, rng = np.asarray(X, dtype=np.float64), check_random_state(self.random_state)
        scores = -NearestOfSamples(random_state=rng).fit(X).score_samples(X)
        outlying = taken_for_outliers(scores)
        inliers, outliers = np.flatnonzero(~outlying), np.flatnonzero(outlying)
        typical = scores[inliers].sum() - scores[inliers]
        typical, extreme = typical / typical.sum(), scores[outliers] / scores[outliers].sum()
        rows = torch.as_tensor(X, dtype=torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.randint(2**31))
            self.layer_ = torch.nn.Sequential(torch.nn.Linear(X.shape[1], self.n_units), torch.nn.ReLU())
        optimizer = torch.optim.Adam(self.layer_.parameters(), lr=1e-3, weight_decay=1e-5)
        size = min(256, len(X))
        for _ in range((5 if len(X) > 100_000 else 30) * (len(X) // size)):
            drawn = (
                rng.choice(inliers, size, p=typical),
                rng.choice(inliers, size),
                rng.choice(outliers, size, p=extreme),
            )
            loss = triplet_loss(*(self.layer_(rows[chosen]) for chosen in drawn), self.margin)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.nearest_ = NearestOfSamples(random_state=rng).fit(self._represented(X))
        return self

    def _represented(self, X):
        with torch.inference_mode():
            return self.layer_(torch.as_tensor(np.asarray(X), dtype=torch.float32)).numpy()

    def score_samples(self, X):
        """Return LeSiNN's score of the layer's output; higher = more normal."""
        return self.nearest_.score_samples(self._represented(X))


def taken_for_outliers(scores):
    """Return which scores exceed the mean by sqrt(3) standard deviations, or the ten highest if none do.

    By Cantelli's inequality at most a quarter of them do.
    """
    above = scores > scores.mean() + np.sqrt(3) * scores.std()
    if not above.any():
        above[np.argsort(-scores, kind="stable")[: min(10, len(scores) // 2)]] = True
    return above


def triplet_loss(anchor, inlier, outlier, margin):
    """Return the mean of max(0, margin + squared distance to the inlier - squared distance to the outlier)."""
    nearer = ((anchor - inlier) ** 2).sum(1) - ((anchor - outlier) ** 2).sum(1)
    return (margin + nearer).clamp_min(0).mean()
