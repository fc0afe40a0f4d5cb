"""Score rows by Mahalanobis distances to the class means, of one layer or of several; public in `skood.scores`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.linalg import block_diag
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_array
from torch import Tensor, nn

from ..networks.neighbors import NearestRows
from ..networks.products import even_product
from .base import Score, as_rows, as_tensor, class_means, unit

# To each variance this share of the mean variance is added, or the second number if that is more: where all features
# are equal, the mean variance is 0.
_RIDGE, _LEAST_RIDGE = 1e-6, 1e-20
# A deviation of scores that is at most this share of their size is rounding.
_ROUNDING = 1e-13
# Rows of a Cholesky factor that are computed one by one before a matrix product.
_STRIP = 64


class _NearestMean(nn.Module):
    """Return the smallest squared Mahalanobis distance of each row to a mean."""

    directions: Tensor
    middle: Tensor

    def __init__(self, means: Tensor, precision: Tensor):
        super().__init__()
        # With P = U^T U the distance is the Euclidean one after multiplication by U. Differences of large coordinates
        # lose digits in the product, so the mean of the means is subtracted first.
        self.register_buffer("directions", _cholesky(precision))
        self.register_buffer("middle", means.mean(0))
        self.means = NearestRows(self._whitened(means))

    def forward(self, rows: Tensor) -> Tensor:
        return self.means.distances(self._whitened(rows), 1)[:, 0].square()

    def _whitened(self, rows: Tensor) -> Tensor:
        return even_product(rows - self.middle, self.directions)


class Mahalanobis(Score):
    """See `mahalanobis`."""

    def __init__(
        self, learnt: Mapping[str, Any], sizes: Sequence[int] | None = None, weights: Sequence[float] | None = None
    ):
        super().__init__()
        means, precision = as_tensor(learnt["means"]), as_tensor(learnt["precision"])
        places = _places(sizes, means.shape[1])
        self.weights = [1.0] * len(places) if weights is None else list(map(float, np.atleast_1d(weights)))
        if len(self.weights) != len(places):
            raise ValueError(f"weights has {len(self.weights)} numbers, but there are {len(places)} layers.")
        self.places = places
        self.to_means = nn.ModuleList(_NearestMean(means[:, place], precision[place, place]) for place in places)

    def formula(self, features: Tensor) -> Tensor:
        layers = zip(self.places, self.weights, self.to_means, strict=True)
        distances = [weight * to_means(self.part(features[:, place])) for place, weight, to_means in layers]
        return -torch.stack(distances).sum(0)

    def part(self, features: Tensor) -> Tensor:
        """Return the features of one layer as the distance takes them."""
        return features


class MahalanobisPP(Mahalanobis):
    """See `mahalanobis_pp`."""

    def part(self, features: Tensor) -> Tensor:
        return unit(features)


def _places(sizes: Sequence[int] | None, n_features: int) -> list[slice]:
    """Return the columns of each layer's features."""
    ends = np.cumsum([n_features] if sizes is None else np.atleast_1d(sizes)).tolist()
    if ends[-1] != n_features:
        raise ValueError(f"sizes={sizes} add up to {ends[-1]}, but there are {n_features} features.")
    return [slice(start, end) for start, end in pairwise([0, *ends])]


def mahalanobis(
    features: ArrayLike,
    means: ArrayLike,
    precision: ArrayLike,
    *,
    sizes: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
) -> Any:
    """Return minus the squared Mahalanobis distance to the nearest class mean.

    -min_c M_c with M_c = (z - mu_c)^T P (z - mu_c), P the inverse of a covariance that the classes share [1]_. Needs
    features; means and precision come from `learn_mahalanobis`. For the features of several layers l it is
    -sum_l w_l min_c M_c,l, with means and a covariance of each layer.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    means : array-like of shape (n_means, n_features)
        mu_c.
    precision : array-like of shape (n_features, n_features)
        P; symmetric and positive definite.
    sizes : sequence of int or None, default=None
        Numbers of features of the layers, whose features stand side by side. None means one layer.
    weights : sequence of float or None, default=None
        w_l, see `layer_weights`. None means 1 for each layer.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    Raises
    ------
    ValueError
        If P is not positive definite, or ``sizes`` and ``weights`` do not fit the features.

    References
    ----------
    .. [1] Lee, Lee, Lee and Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
       Adversarial Attacks", NeurIPS 2018.
    """
    return Mahalanobis({"means": means, "precision": precision}, sizes, weights).of(features=features)


def layer_weights(inlier_scores: ArrayLike, outlier_scores: ArrayLike) -> np.ndarray:
    """Return weights with which the scores of several layers tell inliers from outliers, by a logistic regression.

    Lee et al. weight the layers of `mahalanobis` in this way, on held-out rows and on outliers that are known [1]_.

    Parameters
    ----------
    inlier_scores : array-like of shape (n_inliers, n_layers)
        Scores of held-out rows by each layer alone, as from an `OODScorer` for each ``layer``; higher = more normal.
    outlier_scores : array-like of shape (n_outliers, n_layers)
        Scores of known outliers.

    Returns
    -------
    weights : ndarray of float64 of shape (n_layers,)
        For ``method_params={"weights": ...}`` of `OODScorer`. A negative weight means that, among rows that the other
        layers score alike, this layer scores outliers higher; alone it may score them lower. A layer that scores all
        rows the same gets 0.

    Raises
    ------
    ValueError
        If one is no matrix of finite numbers with at least one row, or the two have other numbers of layers.

    References
    ----------
    .. [1] Lee, Lee, Lee and Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
       Adversarial Attacks", NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.scores import layer_weights
    >>> inliers = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> layer_weights(inliers, inliers - [9.0, 0.0]).round(2) + 0.0
    array([0.33, 0.  ])
    """
    inliers = _by_layer(inlier_scores, "inlier_scores")
    outliers = _by_layer(outlier_scores, "outlier_scores")
    if inliers.shape[1] != outliers.shape[1]:
        raise ValueError(
            f"inlier_scores has {inliers.shape[1]} layers and outlier_scores {outliers.shape[1]}: give both the same."
        )
    scores = np.concatenate([inliers, outliers])
    # The scores of layers differ by orders of magnitude, in level and in spread; a regression would not converge. As it
    # has an intercept, the level makes no other difference.
    centred, scale = scores - scores.mean(axis=0), scores.std(axis=0)
    # Of scores that are all the same, rounding leaves a deviation, which is not to be blown up.
    constant = scale <= _ROUNDING * np.abs(scores).max(axis=0)
    scaled = np.where(constant, 0.0, centred / np.where(constant, 1.0, scale))
    regression = LogisticRegression().fit(scaled, np.repeat([1, 0], [len(inliers), len(outliers)]))
    return regression.coef_[0] / np.where(constant, 1.0, scale)


def _by_layer(scores: ArrayLike, name: str) -> np.ndarray:
    """Return scores with a column for each layer; ``name`` is the parameter that holds them."""
    # scikit-learn's own messages about shapes do not say which of several arrays is meant.
    shape = np.shape(scores)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(
            f"{name} has shape {shape}; it must be (n_samples, n_layers), a row at least and a column for each layer. "
            f"np.column_stack puts the scores of several layers side by side."
        )
    return check_array(scores, dtype=np.float64, input_name=name)


def mahalanobis_pp(
    features: ArrayLike,
    means: ArrayLike,
    precision: ArrayLike,
    *,
    sizes: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
) -> Any:
    """Return `mahalanobis` of features scaled to length 1 (Mahalanobis++) [1]_.

    Needs features; means and precision come from `learn_mahalanobis_pp`. The features of each layer are scaled.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer. They need not be of length 1.
    means : array-like of shape (n_means, n_features)
        The class means.
    precision : array-like of shape (n_features, n_features)
        Inverse of the covariance about the class means.
    sizes, weights
        As in `mahalanobis`.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    Raises
    ------
    ValueError
        As `mahalanobis`.

    References
    ----------
    .. [1] Mueller and Hein, "Mahalanobis++: Improving OOD Detection via Feature Normalization", ICML 2025.
    """
    return MahalanobisPP({"means": means, "precision": precision}, sizes, weights).of(features=features)


def learn_mahalanobis(features: ArrayLike, codes: ArrayLike, *, sizes: Sequence[int] | None = None) -> dict[str, Any]:
    """Learn ``means`` and ``precision`` of `mahalanobis` from the training rows' features and classes.

    The covariance about the class means is often singular, since units may be dead and rows few. Before it is inverted,
    1e-6 of the mean variance is added to each variance.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    codes : array-like of int of shape (n_train,)
        Each row's class.
    sizes : sequence of int or None, default=None
        Numbers of features of the layers, as in `mahalanobis`.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: means (n_present_classes, n_features), precision (n_features, n_features). The precision of
        features of different layers is 0.

    Raises
    ------
    ValueError
        If ``sizes`` do not add up to the number of features.
    """
    rows = as_rows(features)
    means, places = class_means(rows, codes)
    centred = rows - means[places]
    layers = [centred[:, place] for place in _places(sizes, rows.shape[1])]
    return {"means": means, "precision": block_diag(*map(_precision, layers))}


def _precision(centred: np.ndarray) -> np.ndarray:
    """Return the inverse of the covariance of rows with the mean 0."""
    # By eigenvalues and not by an inverse: the precision is then positive definite whatever rounding does, as the
    # Cholesky factor needs it.
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    variances = np.maximum(variances, 0.0)
    variances += max(_RIDGE * variances.mean(), _LEAST_RIDGE)
    half = vectors / np.sqrt(variances)
    return half @ half.T


def learn_mahalanobis_pp(
    features: ArrayLike, codes: ArrayLike, *, sizes: Sequence[int] | None = None
) -> dict[str, Any]:
    """Learn the arguments of `mahalanobis_pp`, as `learn_mahalanobis` does, from features scaled to length 1.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    codes : array-like of int of shape (n_train,)
        Each row's class.
    sizes : sequence of int or None, default=None
        Numbers of features of the layers, as in `mahalanobis`; those of each layer are scaled by themselves.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: means (n_present_classes, n_features), precision (n_features, n_features).

    Raises
    ------
    ValueError
        As `learn_mahalanobis`.
    """
    rows = as_rows(features)
    scaled = np.concatenate([unit(rows[:, place]) for place in _places(sizes, rows.shape[1])], axis=1)
    return learn_mahalanobis(scaled, codes, sizes=sizes)


class RelativeMahalanobis(Score):
    """See `relative_mahalanobis`."""

    def __init__(self, learnt: Mapping[str, Any]):
        super().__init__()
        self.to_means = _NearestMean(as_tensor(learnt["means"]), as_tensor(learnt["precision"]))
        self.to_mean = _NearestMean(as_tensor(learnt["mean"])[None], as_tensor(learnt["total_precision"]))

    def formula(self, features: Tensor) -> Tensor:
        return self.to_mean(features) - self.to_means(features)


class RelativeMahalanobisPP(RelativeMahalanobis):
    """See `relative_mahalanobis_pp`."""

    def formula(self, features: Tensor) -> Tensor:
        return super().formula(unit(features))


def relative_mahalanobis(
    features: ArrayLike, means: ArrayLike, precision: ArrayLike, mean: ArrayLike, total_precision: ArrayLike
) -> Any:
    """Return the squared Mahalanobis distance to the mean of all rows, less that to the nearest class mean.

    M_0 - min_c M_c, with M_c of `mahalanobis` and M_0 the same for the mean and the covariance of all rows [1]_.
    With one class all scores are 0. Needs features; the rest comes from `learn_relative_mahalanobis`.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    means : array-like of shape (n_means, n_features)
        The class means.
    precision : array-like of shape (n_features, n_features)
        Inverse of the covariance about the class means.
    mean : array-like of shape (n_features,)
        The mean of all training rows.
    total_precision : array-like of shape (n_features, n_features)
        Inverse of the covariance about ``mean``.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection", arXiv:2106.09022, 2021.
    """
    learnt = {"means": means, "precision": precision, "mean": mean, "total_precision": total_precision}
    return RelativeMahalanobis(learnt).of(features=features)


def relative_mahalanobis_pp(
    features: ArrayLike, means: ArrayLike, precision: ArrayLike, mean: ArrayLike, total_precision: ArrayLike
) -> Any:
    """Return `relative_mahalanobis` of features scaled to length 1, as in `mahalanobis_pp`.

    Needs features; the rest comes from `learn_relative_mahalanobis_pp`.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer. They need not be of length 1.
    means : array-like of shape (n_means, n_features)
        The class means.
    precision : array-like of shape (n_features, n_features)
        Inverse of the covariance about the class means.
    mean : array-like of shape (n_features,)
        The mean of all training rows.
    total_precision : array-like of shape (n_features, n_features)
        Inverse of the covariance about ``mean``.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)
    """
    learnt = {"means": means, "precision": precision, "mean": mean, "total_precision": total_precision}
    return RelativeMahalanobisPP(learnt).of(features=features)


def learn_relative_mahalanobis(features: ArrayLike, codes: ArrayLike) -> dict[str, Any]:
    """Learn the arguments of `relative_mahalanobis`: `learn_mahalanobis` for the classes, and for all rows as one.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    codes : array-like of int of shape (n_train,)
        Each row's class.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: means, precision, mean (n_features,), total_precision (n_features, n_features).
    """
    total = learn_mahalanobis(features, np.zeros(len(as_rows(features)), dtype=int))
    of_all = {"mean": total["means"][0], "total_precision": total["precision"]}
    return {**learn_mahalanobis(features, codes), **of_all}


def learn_relative_mahalanobis_pp(features: ArrayLike, codes: ArrayLike) -> dict[str, Any]:
    """Learn the arguments of `relative_mahalanobis_pp` from features scaled to length 1.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    codes : array-like of int of shape (n_train,)
        Each row's class.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: means, precision, mean (n_features,), total_precision (n_features, n_features).
    """
    return learn_relative_mahalanobis(unit(as_rows(features)), codes)


def _cholesky(matrix: Tensor) -> Tensor:
    """Return the upper triangular U with U^T U = P, the same to the last bit on any number of threads.

    LAPACK's factor depends on that number, and an unpickled score may run on another number of threads.
    """
    upper, n_rows = matrix.clone(), len(matrix)
    rows = upper.numpy()
    # A strip of rows at a time, so that nearly all work is in the matrix products.
    for start in range(0, n_rows, _STRIP):
        end = min(start + _STRIP, n_rows)
        for row in range(start, end):
            if not rows[row, row] > 0:
                raise ValueError(
                    "the precision, an inverse covariance, must be positive definite; learn_mahalanobis returns one "
                    "that is."
                )
            rows[row, row:] /= np.sqrt(rows[row, row])
            rows[row + 1 : end, row + 1 :] -= rows[row, row + 1 : end, None] * rows[row, row + 1 :]
        strip = upper[start:end, end:].T.contiguous()
        upper[end:, end:] -= even_product(strip, strip)
    return upper.triu()
