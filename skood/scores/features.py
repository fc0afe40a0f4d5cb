"""Score rows by their features, the input of the last linear layer; public in `skood.scores`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..networks.neighbors import NearestRows
from ..networks.products import even_product
from .base import Score, as_rows, as_tensor, check_shape, energy_of, euclidean, unit
from .logits import max_logit

# Squared distances between weights below this share of the weights' squared lengths count as rounding errors.
_SAME_WEIGHTS = 1e-12


class KNN(Score):
    # Distances are exact in any batch, and one padded row would cost as much as a whole block.
    in_fixed_blocks = False

    def __init__(self, learnt: Mapping[str, Any], n_neighbors: int | None):
        super().__init__()
        check_shape(learnt["train_features"], "train_features")
        self.nearest = NearestRows(unit(as_tensor(learnt["train_features"])))
        n_train = self.nearest.n_rows
        self.k = min(max(5, n_train // 1000) if n_neighbors is None else n_neighbors, n_train)

    def formula(self, features: Tensor) -> Tensor:
        return -self.nearest.distances(unit(features), self.k)[:, -1]


def knn(features: ArrayLike, train_features: ArrayLike, n_neighbors: int | None = None) -> Any:
    """Return minus the distance to the k-th nearest training row, with features scaled to length 1 [1]_.

    Needs features; those of the training rows come from `learn_knn`.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    train_features : array-like of shape (n_train, n_features)
        Features of the training rows; they need not be of length 1.
    n_neighbors : int or None, default=None
        k, at most the number of training rows. None takes a thousandth of this number, about what the paper found best
        for training sets of all sizes, but at least 5.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Sun, Ming, Zhu and Li, "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022.

    Examples
    --------
    >>> from skood.scores import knn
    >>> knn([[0.0, 3.0], [-2.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], n_neighbors=1)
    array([-0.        , -1.41421356])
    """
    return KNN({"train_features": train_features}, n_neighbors).of(features=features)


def learn_knn(features: ArrayLike) -> dict[str, Any]:
    """Learn the ``train_features`` of `knn`: the training rows' features, scaled to length 1.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: train_features (n_train, n_features).
    """
    check_shape(features, "features")
    return {"train_features": unit(features)}


class FDBD(Score):
    center: Tensor

    def formula(self, logits: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        _check_boundaries(len(weight))
        top, answers = logits.max(1, keepdim=True)
        # Squared distances between weights, by a matrix product: |w|^2 + |v|^2 - 2 wv loses digits where all weights
        # have a large part in common, so their mean is subtracted.
        weight = weight - weight.mean(0)
        own = weight[answers[:, 0]]
        lengths = own.square().sum(1, keepdim=True) + weight.square().sum(1)
        squares = lengths - 2 * even_product(own, weight)
        # This leaves out the class itself, too: it has no distance to its own weights.
        bounded = squares > _SAME_WEIGHTS * lengths
        distances = torch.where(bounded, (top - logits) / torch.where(bounded, squares, 1.0).sqrt(), 0.0)
        mean = distances.sum(1) / bounded.sum(1).clamp(min=1)
        return mean / euclidean(features - self.center).clamp(min=1e-12)


def fdbd(logits: ArrayLike, features: ArrayLike, weight: ArrayLike, center: ArrayLike) -> Any:
    """Return the mean distance to the decision boundaries, relative to the distance from the centre of the features.

    The mean over the classes c other than yhat, the class of the largest logit, of |f_yhat - f_c| / ||w_yhat - w_c||,
    divided by ||z - center|| [1]_. Classes whose weights equal those of yhat, up to about a millionth, have no boundary
    with it and do not count. Needs logits, features and the weights of the last layer; the centre comes from
    `learn_fdbd`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        Rows w_c.
    center : array-like of shape (n_features,)
        Mean of the training features. Rows closer to it than 1e-12 count as 1e-12 away.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    Raises
    ------
    ValueError
        If there is only one class.

    References
    ----------
    .. [1] Liu and Qin, "Fast Decision Boundary based Out-of-Distribution Detector", ICML 2024.
    """
    return FDBD({"center": center}).of(logits=logits, features=features, weight=weight)


def learn_fdbd(features: ArrayLike, weight: ArrayLike) -> dict[str, Any]:
    """Learn the ``center`` of `fdbd`: the mean of the training features.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        Weights of the last linear layer, one row for each class.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: center (n_features,).

    Raises
    ------
    ValueError
        If there is only one class.
    """
    _check_boundaries(len(as_rows(weight, "weight")))
    return {"center": as_rows(features).mean(axis=0)}


class ViM(Score):
    origin: Tensor
    directions: Tensor
    alpha: Tensor

    def __init__(self, learnt: Mapping[str, Any]):
        directions = as_tensor(learnt["residual_basis"]).T.contiguous()
        super().__init__({"origin": learnt["origin"], "directions": directions, "alpha": learnt["alpha"]})

    def formula(self, logits: Tensor, features: Tensor) -> Tensor:
        return energy_of(logits) - self.alpha * euclidean(even_product(features - self.origin, self.directions))


def vim(logits: ArrayLike, features: ArrayLike, origin: ArrayLike, residual_basis: ArrayLike, alpha: float) -> Any:
    """Return the energy of the logits less a virtual logit, which grows as features leave their usual subspace (ViM).

    log sum_c exp(f_c) - alpha ||R^T (z - o)|| [1]_. It ranks rows as the paper's score does: minus the softmax
    probability of the virtual logit alpha ||R^T (z - o)|| beside the others. Needs logits and features; the rest comes
    from `learn_vim`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    origin : array-like of shape (n_features,)
        o.
    residual_basis : array-like of shape (n_features, n_residual)
        R: its orthonormal columns span the directions in which the training features hardly vary.
    alpha : float
        Scale of the virtual logit.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Wang, Li, Feng and Zhang, "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022.
    """
    learnt = {"origin": origin, "residual_basis": residual_basis, "alpha": alpha}
    return ViM(learnt).of(logits=logits, features=features)


def learn_vim(
    logits: ArrayLike, features: ArrayLike, weight: ArrayLike, bias: ArrayLike, n_components: int | None = None
) -> dict[str, Any]:
    """Learn the arguments of `vim` from the training rows' logits and features and the last layer.

    ``origin`` is o = -pinv(W) b. ``residual_basis`` holds the eigenvectors of the training features' second moment
    about o, without those of the ``n_components`` largest eigenvalues: by default 1000 from 2048 features on, 512 from
    768 on, and half of the features below; at most all but one. ``alpha`` is the absolute mean of the training rows'
    largest logits, divided by the mean of ||R^T (z - o)||. The latter counts as at least 1e-6 of the mean of ||z - o||:
    if the training rows lie in a subspace, it is a mere rounding error.

    Parameters
    ----------
    logits : array-like of shape (n_train, n_classes)
        Logits of the training rows, one column for each class.
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        Weights of the last linear layer, one row for each class.
    bias : array-like of shape (n_classes,)
        Biases of the last linear layer.
    n_components : int or None, default=None
        Dimension of the usual subspace, which ``residual_basis`` leaves out. None chooses it as described above.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: origin (n_features,), residual_basis (n_features, n_residual), alpha (float).
    """
    features = as_rows(features)
    n_features = features.shape[1]
    if n_components is None:
        n_components = 1000 if n_features >= 2048 else 512 if n_features >= 768 else n_features // 2
    origin = -np.linalg.pinv(as_rows(weight, "weight")) @ as_rows(bias, "bias")
    shifted = features - origin
    # eigh gives the eigenvalues in ascending order, so the residual directions come first.
    _, vectors = np.linalg.eigh(shifted.T @ shifted / len(shifted))
    basis = vectors[:, : max(1, n_features - n_components)]
    scale = max(_length(shifted @ basis).mean(), 1e-6 * _length(shifted).mean())
    alpha = abs(max_logit(logits).mean()) / scale if scale else 0.0
    return {"origin": origin, "residual_basis": basis, "alpha": float(alpha)}


def _length(rows: np.ndarray) -> np.ndarray:
    """Return the Euclidean length of each row, of shape (n, 1)."""
    return np.linalg.norm(rows, axis=1, keepdims=True)


def _check_boundaries(n_classes: int) -> None:
    """Refuse a last layer of one class."""
    if n_classes < 2:
        raise ValueError(
            "'fdbd' measures distances to the boundaries between classes, and there is one class only: choose another "
            "score."
        )
