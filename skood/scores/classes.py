"""Score rows by comparison with the training rows of their predicted class; public in `skood.scores`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..networks.products import even_product
from .base import Score, as_codes, as_rows, as_tensor, energy_of, euclidean, log_softmax, unit

# Number of rows of the bank that are compared at a time.
_BANK_ROWS = 2**13
# Number of halvings of the interval in which a Weibull distribution's shape is searched; the logarithms of its ends.
_HALVINGS, _LEAST_SHAPE, _LARGEST_SHAPE = 60, -5.0, 7.0


class GradNorm(Score):
    """See `gradnorm`."""

    def formula(self, logits: Tensor, features: Tensor) -> Tensor:
        """Return the product of the two norms."""
        distance = (log_softmax(logits).exp() - 1 / int(logits.shape[1])).abs().sum(1)
        return distance * features.abs().sum(1)


def gradnorm(logits: ArrayLike, features: ArrayLike) -> Any:
    """Return the L1 norm of the gradient of the divergence from equal probabilities (GradNorm) [1]_.

    The gradient of KL(u || softmax(W z + b)) with respect to W is (p - u) z^T, where u is 1 / n_classes for each class.
    Its L1 norm is sum_c |p_c - 1 / n_classes| times sum_i |z_i|. With one class it is 0. Needs logits (or
    log-probabilities) and features.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits or log-probabilities of the rows, one column for each class.
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Huang, Geng and Li, "On the Importance of Gradients for Detecting Distributional Shifts in the Wild", NeurIPS
       2021.
    """
    return GradNorm().of(logits=logits, features=features)


class SHE(Score):
    """See `she`."""

    patterns: Tensor

    def formula(self, logits: Tensor, features: Tensor) -> Tensor:
        """Return the product with the pattern of the predicted class."""
        return even_product(features, self.patterns).gather(1, logits.argmax(1, keepdim=True))[:, 0]


def she(logits: ArrayLike, features: ArrayLike, patterns: ArrayLike) -> Any:
    """Return the product of the features with the pattern of the predicted class (SHE) [1]_.

    It is a simplified Hopfield energy: z . s_k, where k is the class of the largest logit. Needs logits (or
    log-probabilities) and features; the patterns come from `learn_she`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits or log-probabilities of the rows, one column for each class.
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    patterns : array-like of shape (n_classes, n_features)
        s_k.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Zhang et al., "Out-of-Distribution Detection based on In-Distribution Data Patterns Memorization with Modern
       Hopfield Energy", ICLR 2023.
    """
    return SHE({"patterns": patterns}).of(logits=logits, features=features)


def learn_she(logits: ArrayLike, features: ArrayLike, codes: ArrayLike) -> dict[str, Any]:
    """Learn the ``patterns`` of `she`: the mean features of each class's training rows that are predicted correctly.

    A class without correctly predicted rows has the mean of all its rows, and a class without rows that of all rows.

    Parameters
    ----------
    logits : array-like of shape (n_train, n_classes)
        Logits or log-probabilities of the training rows, one column for each class.
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    codes : array-like of int of shape (n_train,)
        Each row's class, as the number of its column.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: patterns (n_classes, n_features).

    Raises
    ------
    ValueError
        If ``codes`` are not numbers of columns, one for each row.
    """
    features = as_rows(features)
    return {"patterns": np.stack([features[rows].mean(axis=0) for rows in _typical_rows(logits, codes)])}


class NNGuide(Score):
    """See `nnguide`."""

    bank: Tensor
    n_neighbors: int

    def __init__(self, learnt: Mapping[str, Any], n_neighbors: int):
        super().__init__(learnt, n_neighbors=n_neighbors)
        # An int, stored here: under `torch.jit.trace`, the length of a tensor would be a tensor itself.
        self.n_rows = len(self.bank)

    def formula(self, logits: Tensor, features: Tensor) -> Tensor:
        """Return the energy times the mean of the largest products."""
        features = unit(features)
        nearest = features[:, :0]
        for start in range(0, self.n_rows, _BANK_ROWS):
            end = min(start + _BANK_ROWS, self.n_rows)
            nearest = torch.cat([nearest, even_product(features, self.bank[start:end])], 1)
            nearest = nearest.topk(min(self.n_neighbors, end), 1).values
        return energy_of(logits) * nearest.mean(1)


def nnguide(logits: ArrayLike, features: ArrayLike, bank: ArrayLike, n_neighbors: int = 10) -> Any:
    """Return the energy, guided by the similarity to the nearest training rows and their energies (NNGuide) [1]_.

    E(x) times the mean, over the k training rows i for which it is largest, of E(x_i) cos(z, z_i), with
    E = log sum_c exp(f_c). Needs logits and features; the bank comes from `learn_nnguide`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    bank : array-like of shape (n_train, n_features)
        E(x_i) z_i / ||z_i||.
    n_neighbors : int, default=10
        k, at most the number of training rows.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Park, Jung and Teoh, "Nearest Neighbor Guidance for Out-of-Distribution Detection", ICCV 2023.
    """
    return NNGuide({"bank": bank}, n_neighbors=n_neighbors).of(logits=logits, features=features)


def learn_nnguide(logits: ArrayLike, features: ArrayLike) -> dict[str, Any]:
    """Learn the ``bank`` of `nnguide`: the training rows' features, scaled to length 1 and multiplied by their energy.

    Parameters
    ----------
    logits : array-like of shape (n_train, n_classes)
        Logits of the training rows, one column for each class.
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: bank (n_train, n_features).
    """
    return {"bank": unit(as_rows(features)) * energy_of(as_tensor(as_rows(logits, "logits"))).numpy()[:, None]}


class NCI(Score):
    """See `nci`."""

    center: Tensor
    alpha: float

    def formula(self, logits: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """Return the length along the predicted class's weights, and the norm of the features."""
        centred = features - self.center
        along = (centred * weight[logits.argmax(1)]).sum(1) / euclidean(centred).clamp(min=1e-12)
        return along + self.alpha * features.abs().sum(1)


def nci(logits: ArrayLike, features: ArrayLike, weight: ArrayLike, center: ArrayLike, alpha: float = 1e-4) -> Any:
    """Return how well the features point to the predicted class, and how far from the origin they are (NCI) [1]_.

    w_k . (z - center) / ||z - center|| + alpha ||z||_1, where k is the class of the largest logit: after neural
    collapse, features of known rows lie along the weights of their class. Needs logits, features and the weights of
    the last layer; the centre comes from `learn_nci`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        Rows w_k.
    center : array-like of shape (n_features,)
        Mean of the training features. Rows closer to it than 1e-12 count as 1e-12 away.
    alpha : float, default=1e-4
        Weight of the norm; the best one depends on the size of the features.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Liu and Qin, "Detecting Out-of-Distribution through the Lens of Neural Collapse", CVPR 2025.
    """
    return NCI({"center": center}, alpha=alpha).of(logits=logits, features=features, weight=weight)


def learn_nci(features: ArrayLike) -> dict[str, Any]:
    """Learn the ``center`` of `nci`: the mean of the training features.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: center (n_features,).
    """
    return {"center": as_rows(features).mean(axis=0)}


class OpenMax(Score):
    """See `openmax`."""

    means: Tensor
    start: Tensor
    spread: Tensor
    shape: Tensor
    n_top: int

    def formula(self, logits: Tensor) -> Tensor:
        """Return the log-odds of the known classes after the largest logits were lowered."""
        top, classes = logits.sort(dim=1, descending=True, stable=True)
        n_top = min(self.n_top, int(logits.shape[1]))
        top, others, classes = top[:, :n_top], top[:, n_top:], classes[:, :n_top]
        distances = (logits[:, None] - self.means[classes]).square().sum(2).sqrt()
        beyond = (distances - self.start[classes]).clamp(min=0) / self.spread[classes]
        rank = torch.linspace(1, 1 / n_top, n_top, dtype=logits.dtype, device=logits.device)
        taken = top * rank * -torch.expm1(-(beyond ** self.shape[classes]))
        return torch.cat([top - taken, others], 1).logsumexp(1) - taken.sum(1)


def openmax(
    logits: ArrayLike, means: ArrayLike, start: ArrayLike, spread: ArrayLike, shape: ArrayLike, n_top: int = 10
) -> Any:
    """Return the log-odds of OpenMax that a row is of a known class [1]_.

    The r-th largest logit f_k, r = 1, ..., n, becomes f_k (1 - w_r) with w_r = (n + 1 - r) / n times the probability
    that the distance d = ||f - mu_k|| is beyond those of the class, 1 - exp(-((d - start_k) / spread_k)^shape_k).
    The sum of what is taken away, sum_r w_r f_k, is the logit of the unknown class. The score is the log-sum-exp of the
    other logits less this one: log((1 - P) / P), where P is the probability of the unknown class. Needs logits; the
    rest comes from `learn_openmax`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.
    means : array-like of shape (n_classes, n_classes)
        mu_k.
    start, spread, shape : array-like of shape (n_classes,)
        The Weibull distribution of each class's large distances.
    n_top : int, default=10
        n, at most the number of classes.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Bendale and Boult, "Towards Open Set Deep Networks", CVPR 2016.
    """
    learnt = {"means": means, "start": start, "spread": spread, "shape": shape}
    return OpenMax(learnt, n_top=n_top).of(logits=logits)


def learn_openmax(logits: ArrayLike, codes: ArrayLike, n_tail: int = 20) -> dict[str, Any]:
    """Learn the arguments of `openmax`: mean logits of each class, and the Weibull distribution of large distances.

    Distances are those between the correctly predicted rows of a class and the mean of these rows. The ``n_tail``
    largest ones are shifted so that the smallest of them is 1, as in the authors' library, and a Weibull distribution
    is fitted to them by maximum likelihood. A class without correctly predicted rows learns from all its rows, and a
    class without rows from all rows.

    Parameters
    ----------
    logits : array-like of shape (n_train, n_classes)
        Logits of the training rows, one column for each class.
    codes : array-like of int of shape (n_train,)
        Each row's class, as the number of its column.
    n_tail : int, default=20
        Number of distances; fewer if a class has fewer rows.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: means (n_classes, n_classes), start, spread and shape (n_classes,).

    Raises
    ------
    ValueError
        If ``codes`` are not numbers of columns, one for each row.
    """
    logits = as_rows(logits, "logits")
    means, start, spread, shape = [], [], [], []
    for rows in _typical_rows(logits, codes):
        own = logits[rows]
        means.append(own.mean(axis=0))
        tail = np.sort(np.linalg.norm(own - means[-1], axis=1))[-n_tail:]
        start.append(tail[0] - 1)
        fitted = _fitted_weibull(tail - start[-1])
        spread.append(fitted[0])
        shape.append(fitted[1])
    return {"means": np.stack(means), "start": np.array(start), "spread": np.array(spread), "shape": np.array(shape)}


def _fitted_weibull(values: np.ndarray) -> tuple[float, float]:
    """Return the scale and the shape of the Weibull distribution under which positive values are most likely.

    The shape is at most e^7: if all values are equal, the likelihood grows with the shape without end.
    """
    # Divided by the largest value, so that powers cannot overflow.
    largest = values.max()
    logs = np.log(values / largest)

    def too_large(log_shape: float) -> bool:
        """Return whether the likelihood falls as the shape grows, by the sign of its derivative."""
        powers = np.exp(np.exp(log_shape) * logs)
        return (powers @ logs) / powers.sum() - np.exp(-log_shape) - logs.mean() > 0

    low, high = _LEAST_SHAPE, _LARGEST_SHAPE
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if too_large(middle) else (middle, high)
    shape = np.exp((low + high) / 2)
    return float(largest * np.exp(shape * logs).mean() ** (1 / shape)), float(shape)


class Gram(Score):
    """See `gram`."""

    low: Tensor
    high: Tensor
    n_powers: int

    def formula(self, logits: Tensor, features: Tensor) -> Tensor:
        """Return minus the sum of the deviations beyond the limits of the predicted class."""
        predicted, sums = logits.argmax(1), _gram_sums(features, self.n_powers)
        low, high = self.low[predicted], self.high[predicted]
        below = (low - sums).clamp(min=0) / (low.abs() + 1e-6)
        above = (sums - high).clamp(min=0) / (high.abs() + 1e-6)
        return -(below + above).sum(1)


def gram(logits: ArrayLike, features: ArrayLike, low: ArrayLike, high: ArrayLike, n_powers: int = 5) -> Any:
    """Return minus the deviation of the features' Gram matrices from those of the predicted class [1]_.

    With G_p,i = (z_i^p sum_j z_j^p)^(1/p), the row sums of the Gram matrix of order p, it is minus the sum over i and p
    of the amounts by which G_p,i falls short of low_k,p,i or exceeds high_k,p,i, relative to that limit, where k is the
    class of the largest logit. The paper adds up many layers and takes p = 1, ..., 10; this is its score of one layer,
    whose maps have one pixel. Needs logits (or log-probabilities) and features; the limits come from `learn_gram`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits or log-probabilities of the rows, one column for each class.
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    low, high : array-like of shape (n_classes, n_powers * n_features)
        The limits, order after order.
    n_powers : int, default=5
        The orders are p = 1, ..., ``n_powers``.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Sastry and Oore, "Detecting Out-of-Distribution Examples with Gram Matrices", ICML 2020.
    """
    return Gram({"low": low, "high": high}, n_powers=n_powers).of(logits=logits, features=features)


def learn_gram(logits: ArrayLike, features: ArrayLike, n_powers: int = 5) -> dict[str, Any]:
    """Learn the limits of `gram`: the smallest and largest row sums of the training rows predicted as each class.

    A class that is never predicted has the limits of all rows.

    Parameters
    ----------
    logits : array-like of shape (n_train, n_classes)
        Logits or log-probabilities of the training rows, one column for each class.
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    n_powers : int, default=5
        The orders are p = 1, ..., ``n_powers``.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: low and high (n_classes, n_powers * n_features).
    """
    logits, features = as_rows(logits, "logits"), as_rows(features)
    predicted = logits.argmax(axis=1)
    low = np.full((logits.shape[1], n_powers * features.shape[1]), np.inf)
    high = -low
    # Class by class, because the row sums take many times the memory of the features.
    for k in np.unique(predicted):
        sums = _gram_sums(as_tensor(features[predicted == k]), n_powers).numpy()
        low[k], high[k] = sums.min(axis=0), sums.max(axis=0)
    never = np.isinf(low).all(axis=1)
    low[never], high[never] = low.min(axis=0), high.max(axis=0)
    return {"low": low, "high": high}


def _gram_sums(features: Tensor, n_powers: int) -> Tensor:
    """Return the row sums of Gram matrices, of shape (n, n_powers * n_features)."""
    # Features are divided by the largest one, so that their powers do not overflow.
    largest = features.abs().amax(1, keepdim=True)
    features = features / largest.where(largest > 0, 1.0)
    sums = []
    for power in range(1, n_powers + 1):
        powers = features**power
        gram = powers * powers.sum(1, keepdim=True)
        # The root is not taken at 0, where its derivative is infinite.
        root = gram.abs().where(gram != 0, 1.0) ** (1 / power)
        sums.append(largest.square() * gram.sign() * root)
    return torch.cat(sums, 1)


def _typical_rows(logits: ArrayLike, codes: ArrayLike) -> list[np.ndarray]:
    """Return for each class the mask of its correctly predicted rows; without any, of its rows, or of all rows."""
    logits = as_rows(logits, "logits")
    codes = as_codes(codes, logits)
    right = logits.argmax(axis=1) == codes
    masks = []
    for k in range(logits.shape[1]):
        own = codes == k
        masks.append(own & right if (own & right).any() else _or_all(own))
    return masks


def _or_all(mask: np.ndarray) -> np.ndarray:
    """Return a mask of rows, or one of all rows if it has none."""
    return mask if mask.any() else np.ones_like(mask)
