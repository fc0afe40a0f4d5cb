"""Score rows by the energy of logits whose activations or weights were changed; public in `skood.scores`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from ..networks.products import even_product
from .base import Score, as_rows, checked_quantile, energy_of


class _Shaped(Score):
    """The energy of W z' + b, where z' is the result of `shaped` on the features."""

    temperature = 1.0

    @abstractmethod
    def shaped(self, features: Tensor) -> Tensor: ...

    def formula(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return energy_of(even_product(self.shaped(features), weight) + bias, self.temperature)


class _OfLargest(_Shaped):
    """A `_Shaped` score that treats a row's largest features in another way than the others."""

    def __init__(self, *, quantile: float):
        super().__init__()
        self.quantile = checked_quantile(quantile)

    def n_largest(self, features: Tensor) -> int:
        """Return how many of a row's features are its largest."""
        n_features = int(features.shape[1])
        return max(1, n_features - round(self.quantile * n_features))

    def least_kept(self, features: Tensor) -> Tensor:
        """Return the smallest of each row's largest features, of shape (n, 1)."""
        return features.topk(self.n_largest(features), 1).values[:, -1:]

    def kept(self, features: Tensor) -> Tensor:
        """Return the mask of each row's largest features; it holds more of them if some are equal."""
        return features >= self.least_kept(features)

    def growth(self, features: Tensor) -> Tensor:
        """Return exp(s / s_kept), where s sums all features and s_kept the kept ones; 1 if s_kept is not positive."""
        kept = (features * self.kept(features)).sum(1, keepdim=True)
        positive = kept > 0
        ratio = features.sum(1, keepdim=True) / kept.where(positive, 1.0)
        return ratio.where(positive, 0.0).exp()


class ASHP(_OfLargest):
    """See `ash_p`."""

    def shaped(self, features: Tensor) -> Tensor:
        """Return the features, with the small ones set to 0."""
        return features * self.kept(features)


class ASHB(_OfLargest):
    """See `ash_b`."""

    def shaped(self, features: Tensor) -> Tensor:
        """Return the sum of the features, shared equally among the large ones."""
        n_largest, least = self.n_largest(features), self.least_kept(features)
        above, tied = (features > least).to(features), (features == least).to(features)
        # Equal features share the places that are left. Among sparse features many zeros are equal: if all of them were
        # kept, every feature would become the mean.
        share = (n_largest - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
        return (above + share * tied) * (features.sum(1, keepdim=True) / n_largest)


class ASHS(_OfLargest):
    """See `ash_s`."""

    def shaped(self, features: Tensor) -> Tensor:
        """Return the features, with the small ones set to 0 and the others scaled up."""
        return features * self.kept(features) * self.growth(features)


class Scale(_OfLargest):
    """See `scale`."""

    def shaped(self, features: Tensor) -> Tensor:
        """Return the features, all scaled up."""
        return features * self.growth(features)


def ash_p(features: ArrayLike, weight: ArrayLike, bias: ArrayLike, quantile: float = 0.6) -> Any:
    """Return the energy of the logits of a row's largest features, with the others set to 0 (ASH-P) [1]_.

    log sum_c exp(f'_c) with f' = W z' + b, where z' is z with its share ``quantile`` of smallest features set to 0.
    Needs features, and weights and biases of the last layer.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        W.
    bias : array-like of shape (n_classes,)
        b.
    quantile : float in (0, 1), default=0.6
        Share of a row's features that is set to 0. At least one feature is kept.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    Raises
    ------
    ValueError
        If ``quantile`` is not in (0, 1).

    References
    ----------
    .. [1] Djurisic, Bozanic, Ashok and Liu, "Extremely Simple Activation Shaping for Out-of-Distribution Detection",
       ICLR 2023.
    """
    return ASHP(quantile=quantile).of(features=features, weight=weight, bias=bias)


def ash_b(features: ArrayLike, weight: ArrayLike, bias: ArrayLike, quantile: float = 0.65) -> Any:
    """Return the energy of the logits of features that are reduced to two values (ASH-B) [1]_.

    log sum_c exp(f'_c) with f' = W z' + b. A row's share 1 - ``quantile`` of largest features, n in number, all become
    (z_1 + ... + z_d) / n, and the others 0. If m features are equal and only j of them are among the largest, each of
    the m becomes j / m of that value. Needs features, and weights and biases of the last layer.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        W.
    bias : array-like of shape (n_classes,)
        b.
    quantile : float in (0, 1), default=0.65
        Share of a row's features that is set to 0. At least one feature is kept.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    Raises
    ------
    ValueError
        If ``quantile`` is not in (0, 1).

    References
    ----------
    .. [1] Djurisic, Bozanic, Ashok and Liu, "Extremely Simple Activation Shaping for Out-of-Distribution Detection",
       ICLR 2023.
    """
    return ASHB(quantile=quantile).of(features=features, weight=weight, bias=bias)


def ash_s(features: ArrayLike, weight: ArrayLike, bias: ArrayLike, quantile: float = 0.9) -> Any:
    """Return the energy of the logits of a row's largest features, scaled up (ASH-S) [1]_.

    log sum_c exp(f'_c) with f' = W z' + b. A row's share 1 - ``quantile`` of largest features are multiplied by
    exp(s / s_kept), where s is the sum of all its features and s_kept that of the largest ones; the others become 0. If
    s_kept is not positive, which needs negative features, nothing is scaled. Needs features, and weights and biases of
    the last layer.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        W.
    bias : array-like of shape (n_classes,)
        b.
    quantile : float in (0, 1), default=0.9
        Share of a row's features that is set to 0. At least one feature is kept.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    Raises
    ------
    ValueError
        If ``quantile`` is not in (0, 1).

    References
    ----------
    .. [1] Djurisic, Bozanic, Ashok and Liu, "Extremely Simple Activation Shaping for Out-of-Distribution Detection",
       ICLR 2023.
    """
    return ASHS(quantile=quantile).of(features=features, weight=weight, bias=bias)


def scale(features: ArrayLike, weight: ArrayLike, bias: ArrayLike, quantile: float = 0.85) -> Any:
    """Return the energy of the logits of features that are scaled up, with none of them set to 0 (SCALE) [1]_.

    log sum_c exp(f'_c) with f' = r W z + b and r = exp(s / s_kept), where s is the sum of a row's features and s_kept
    that of its share 1 - ``quantile`` of largest ones. If s_kept is not positive, which needs negative features, r is
    1. Needs features, and weights and biases of the last layer.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        W.
    bias : array-like of shape (n_classes,)
        b.
    quantile : float in (0, 1), default=0.85
        Share of a row's features that s_kept leaves out. At least one feature is kept.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    Raises
    ------
    ValueError
        If ``quantile`` is not in (0, 1).

    References
    ----------
    .. [1] Xu, Chen, Franchi and Yao, "Scaling for Training Time and Post-hoc Out-of-distribution Detection
       Enhancement", ICLR 2024.
    """
    return Scale(quantile=quantile).of(features=features, weight=weight, bias=bias)


class ReAct(_Shaped):
    """See `react`."""

    limit: Tensor

    def shaped(self, features: Tensor) -> Tensor:
        """Return the features, with the large ones cut off at the limit."""
        return features.minimum(self.limit)


def react(features: ArrayLike, weight: ArrayLike, bias: ArrayLike, limit: float, temperature: float = 1.0) -> Any:
    """Return the energy of the logits W min(z, limit) + b: activations above a limit are cut off [1]_.

    Needs features, and weights and biases of the last layer; the limit comes from `learn_react`.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        W.
    bias : array-like of shape (n_classes,)
        b.
    limit : float
        Largest activation; larger ones are set to it.
    temperature : float, default=1.0
        T of `energy`.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Sun, Guo and Li, "ReAct: Out-of-distribution Detection With Rectified Activations", NeurIPS 2021.
    """
    return ReAct({"limit": limit}, temperature=temperature).of(features=features, weight=weight, bias=bias)


def learn_react(features: ArrayLike, quantile: float = 0.9) -> dict[str, Any]:
    """Learn the ``limit`` of `react`: a quantile of the training rows' activations, of all features together.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    quantile : float in (0, 1), default=0.9
        Share of the activations that stay as they are.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: limit (float).

    Raises
    ------
    ValueError
        If ``quantile`` is not in (0, 1).
    """
    return {"limit": float(np.quantile(as_rows(features), checked_quantile(quantile)))}


class VRA(_Shaped):
    """See `vra`."""

    low: Tensor
    high: Tensor

    def shaped(self, features: Tensor) -> Tensor:
        """Return the features, with the small ones set to 0 and the large ones cut off."""
        return features.minimum(self.high).where(features >= self.low, 0.0)


def vra(features: ArrayLike, weight: ArrayLike, bias: ArrayLike, low: float, high: float) -> Any:
    """Return the energy of the logits of features that are cut off on both sides (VRA) [1]_.

    log sum_c exp(f'_c) with f' = W z' + b; z' is 0 where z < ``low``, ``high`` where z > ``high``, else z. Needs
    features, and weights and biases of the last layer; the limits come from `learn_vra`.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        W.
    bias : array-like of shape (n_classes,)
        b.
    low : float
        Smallest activation that is kept; smaller ones are set to 0.
    high : float
        Largest activation; larger ones are set to it.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Xu, Lian, Liu and Tao, "VRA: Variational Rectified Activation for Out-of-distribution Detection", NeurIPS
       2023.
    """
    return VRA({"low": low, "high": high}).of(features=features, weight=weight, bias=bias)


def learn_vra(features: ArrayLike, low_quantile: float = 0.6, high_quantile: float = 0.95) -> dict[str, Any]:
    """Learn the limits of `vra`: quantiles of the training rows' activations, over all features together.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    low_quantile : float in (0, 1), default=0.6
        Share of the activations that become 0.
    high_quantile : float in (0, 1), default=0.95
        Share of the activations that are not cut off above.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: low (float), high (float).

    Raises
    ------
    ValueError
        If ``low_quantile`` or ``high_quantile`` is not in (0, 1), or the first is not below the second.
    """
    checked_quantile(low_quantile, "low_quantile")
    checked_quantile(high_quantile, "high_quantile")
    if low_quantile >= high_quantile:
        raise ValueError(f"low_quantile={low_quantile} of 'vra' must be below high_quantile={high_quantile}.")
    low, high = np.quantile(as_rows(features), [low_quantile, high_quantile])
    return {"low": float(low), "high": float(high)}


class DICE(Score):
    """See `dice`."""

    mask: Tensor

    def formula(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the energy of the logits of the masked weights."""
        return energy_of(even_product(features, weight * self.mask) + bias)


def dice(features: ArrayLike, weight: ArrayLike, bias: ArrayLike, mask: ArrayLike) -> Any:
    """Return the energy of the logits from the weights that contribute most (DICE) [1]_.

    log sum_c exp(f'_c) with f' = (M * W) z + b, elementwise. Needs features, and weights and biases of the last layer;
    the mask comes from `learn_dice`.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        W.
    bias : array-like of shape (n_classes,)
        b.
    mask : array-like of shape (n_classes, n_features)
        M: 1 for weights that are kept, 0 for the others.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Sun and Li, "DICE: Leveraging Sparsification for Out-of-Distribution Detection", ECCV 2022.
    """
    return DICE({"mask": mask}).of(features=features, weight=weight, bias=bias)


def learn_dice(features: ArrayLike, weight: ArrayLike, quantile: float = 0.9) -> dict[str, Any]:
    """Learn the ``mask`` of `dice`: it keeps the weights of the largest contributions to the training rows' logits.

    The contribution of a weight is its product with the mean of its feature. Weights are kept whose contribution is
    above the quantile ``quantile`` of all contributions.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    weight : array-like of shape (n_classes, n_features)
        Weights of the last linear layer, one row for each class.
    quantile : float in (0, 1), default=0.9
        Share of the weights that is left out.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: mask (n_classes, n_features).

    Raises
    ------
    ValueError
        If ``quantile`` is not in (0, 1).
    """
    contributions = as_rows(weight, "weight") * as_rows(features).mean(axis=0)
    return {"mask": (contributions > np.quantile(contributions, checked_quantile(quantile))).astype(float)}
