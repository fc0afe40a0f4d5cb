"""Score rows by a trained classifier: published out-of-distribution scores, each as one function.

As in scikit-learn, higher = more normal. Logits f(x) have one column for each class; features z(x) are the input of the
last linear layer, f = W z + b.

All but `odin` and `odin_log_odds` take array-likes and return an ndarray of float64. A row's score is then the same to
the last bit alone, beside any other rows, and in any order. If rows are given as a tensor, they return a tensor,
computed in float64 on its device (in float32 on MPS, which lacks float64), to which gradients flow.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from ._activation_scores import (
    ASHB,
    ASHP,
    ASHS,
    DICE,
    VRA,
    ReAct,
    Scale,
    ash_b,
    ash_p,
    ash_s,
    dice,
    learn_dice,
    learn_react,
    learn_vra,
    react,
    scale,
    vra,
)
from ._class_scores import (
    NCI,
    SHE,
    GradNorm,
    Gram,
    NNGuide,
    OpenMax,
    gradnorm,
    gram,
    learn_gram,
    learn_nci,
    learn_nnguide,
    learn_openmax,
    learn_she,
    nci,
    nnguide,
    openmax,
    she,
)
from ._mahalanobis import (
    Mahalanobis,
    MahalanobisPP,
    RelativeMahalanobis,
    RelativeMahalanobisPP,
    layer_weights,
    learn_mahalanobis,
    learn_mahalanobis_pp,
    learn_relative_mahalanobis,
    learn_relative_mahalanobis_pp,
    mahalanobis,
    mahalanobis_pp,
    relative_mahalanobis,
    relative_mahalanobis_pp,
)
from ._score import (
    Score,
    as_rows,
    as_tensor,
    class_means,
    energy_of,
    euclidean,
    log_softmax,
    minus_entropy,
    unit,
)
from ._sklearn import Interval
from .networks.neighbors import NearestRows, precise_dtype
from .networks.products import even_product

__all__ = [
    "METHODS",
    "FittedScore",
    "Method",
    "ash_b",
    "ash_p",
    "ash_s",
    "dice",
    "energy",
    "entropy",
    "fdbd",
    "find_temperature",
    "gen",
    "gradnorm",
    "gram",
    "kl_matching",
    "knn",
    "layer_weights",
    "learn_dice",
    "learn_fdbd",
    "learn_gram",
    "learn_kl_matching",
    "learn_knn",
    "learn_mahalanobis",
    "learn_mahalanobis_pp",
    "learn_nci",
    "learn_nnguide",
    "learn_openmax",
    "learn_react",
    "learn_relative_mahalanobis",
    "learn_relative_mahalanobis_pp",
    "learn_she",
    "learn_vim",
    "learn_vra",
    "mahalanobis",
    "mahalanobis_pp",
    "max_logit",
    "moved_up",
    "msp",
    "msp_log_odds",
    "nci",
    "nnguide",
    "odin",
    "odin_log_odds",
    "openmax",
    "react",
    "relative_mahalanobis",
    "relative_mahalanobis_pp",
    "rotation",
    "scale",
    "she",
    "vim",
    "vra",
]

# Squared distances between weights below this share of the weights' squared lengths count as rounding errors.
_SAME_WEIGHTS = 1e-12
# Log-odds where the other classes have probability 0, which counts as the smallest float64.
_CERTAIN = -float(np.log(np.finfo(np.float64).tiny))


# --------------------------------------------------------------------------------------------------------------------
# Scores from logits


class _MSP(Score):
    def formula(self, logits: Tensor) -> Tensor:
        return log_softmax(logits).amax(1).exp()


def msp(logits: ArrayLike) -> Any:
    """Return the maximum softmax probability: max_c p_c with p = softmax(f) [1]_.

    Needs logits, or log-probabilities.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits or log-probabilities of the rows, one column for each class.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
       Networks", ICLR 2017.

    Examples
    --------
    >>> from skood.scores import msp
    >>> msp([[0.0, 0.0], [5.0, 0.0]]).round(3)
    array([0.5  , 0.993])
    """
    return _MSP().of(logits=logits)


class _MSPLogOdds(Score):
    def formula(self, logits: Tensor) -> Tensor:
        return _log_odds(logits)


def msp_log_odds(logits: ArrayLike) -> Any:
    """Return the maximum softmax probability in log-odds: log(p / (1 - p)) with p = `msp`.

    It ranks rows as `msp` does, but has no upper bound, so that it also ranks rows whose probability rounds to 1. It is
    computed as f_k - log sum_{c != k} exp(f_c), where f_k is the largest logit, and is 0 where the largest class has
    probability 1/2. Needs logits, or log-probabilities.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)
        If the other classes have probability 0, or there is only one class, that probability counts as 2e-308, and the
        score is 708.4.

    Examples
    --------
    >>> from skood.scores import msp, msp_log_odds
    >>> logits = [[1.0, 0.0], [5.0, 0.0], [40.0, 0.0], [50.0, 0.0]]
    >>> msp(logits).round(3)
    array([0.731, 0.993, 1.   , 1.   ])
    >>> msp_log_odds(logits)
    array([ 1.,  5., 40., 50.])
    """
    return _MSPLogOdds().of(logits=logits)


def odin(
    function: Callable[[Tensor], Tensor],
    rows: Tensor,
    temperature: float = 1000.0,
    epsilon: float = 5e-5,
    std: Sequence[float] | None = None,
) -> Tensor:
    """Return the maximum softmax probability at a high temperature, after a small step of each row that raises it.

    max_c S_c(x'; T) with S(x; T) = softmax(f(x) / T) and x' = x + epsilon / std sign(grad_x log S_yhat(x; T)), where
    yhat is the class of the largest logit of x [1]_. Needs the gradient with respect to the rows; gradients of
    parameters are not changed.

    Parameters
    ----------
    function : callable
        Maps a tensor of rows to logits of shape (n_samples, n_classes). A row's logits must depend on that row alone.
    rows : Tensor of shape (n_samples, ...)
        Rows to score; they are not modified.
    temperature : float, default=1000.0
        T.
    epsilon : float, default=5e-5
        Step by which every value of a row is moved, in the units of the rows.
    std : sequence of float or None, default=None
        Divisors of the step: one for each channel of images or feature of vectors, or one for all. With the standard
        deviations that the pixels were divided by, ``epsilon`` is in the units of the pixels, as in the code of [1]_'s
        authors. None divides by nothing.

    Returns
    -------
    scores : Tensor of float64 of shape (n_samples,)
        On the device of the rows; of float32 on MPS, which lacks float64.

    References
    ----------
    .. [1] Liang, Li and Srikant, "Enhancing the Reliability of Out-of-distribution Image Detection in Neural
       Networks", ICLR 2018.

    Examples
    --------
    >>> import torch
    >>> from skood.scores import odin
    >>> rows = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    >>> odin(torch.nn.Identity(), rows, temperature=1.0, epsilon=0.0).numpy().round(3)
    array([0.5  , 0.993])
    """
    return torch.softmax(_moved_logits(function, rows, temperature, epsilon, std), 1).amax(1)


def odin_log_odds(
    function: Callable[[Tensor], Tensor],
    rows: Tensor,
    temperature: float = 1000.0,
    epsilon: float = 5e-5,
    std: Sequence[float] | None = None,
) -> Tensor:
    """Return `odin` in log-odds: log(p / (1 - p)) with p = `odin`, computed as in `msp_log_odds`.

    Parameters
    ----------
    function : callable
        As in `odin`.
    rows : Tensor of shape (n_samples, ...)
        Rows to score; they are not modified.
    temperature : float, default=1000.0
        T.
    epsilon : float, default=5e-5
        Step by which every value of a row is moved, in the units of the rows.
    std : sequence of float or None, default=None
        Divisors of the step, as in `odin`.

    Returns
    -------
    scores : Tensor of float64 of shape (n_samples,)
        On the device of the rows; of float32 on MPS, which lacks float64. If the other classes have probability 0, or
        there is only one class, that probability counts as 2e-308, and the score is 708.4.

    Examples
    --------
    >>> import torch
    >>> from skood.scores import odin_log_odds
    >>> rows = torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    >>> odin_log_odds(torch.nn.Identity(), rows, temperature=1.0, epsilon=0.0).numpy().round(3)
    array([1., 5.])
    """
    return _log_odds(_moved_logits(function, rows, temperature, epsilon, std))


def _moved_logits(
    function: Callable[[Tensor], Tensor],
    rows: Tensor,
    temperature: float,
    epsilon: float,
    std: Sequence[float] | None,
) -> Tensor:
    """Return the logits, divided by the temperature, of rows that `odin` has moved."""

    def logits(rows: Tensor) -> Tensor:
        """Return the divided logits."""
        # At a high temperature all probabilities are close to 1 / n_classes: in float32 most rows would be tied.
        return function(rows).to(precise_dtype(rows.device)) / temperature

    moved = moved_up(lambda rows: torch.log_softmax(logits(rows), 1).amax(1), rows, epsilon, std)
    # A graph is recorded only where the rows have one.
    with torch.set_grad_enabled(rows.requires_grad and torch.is_grad_enabled()):
        return logits(moved)


def moved_up(
    function: Callable[[Tensor], Tensor], rows: Tensor, epsilon: float, std: Sequence[float] | None = None
) -> Tensor:
    """Return rows moved a little so that a function of each row rises: x + epsilon / std sign(grad_x function(x)).

    Parameters
    ----------
    function : callable
        Maps a tensor of rows to one number for each, which must depend on that row alone.
    rows : Tensor of shape (n_samples, ...)
        Rows to move; they are not modified.
    epsilon : float
        Step by which every value of a row is moved, in the units of the rows.
    std : sequence of float or None, default=None
        Divisors of the step: one for each channel of images or feature of vectors, or one for all. None divides by
        nothing.

    Returns
    -------
    moved : Tensor of shape (n_samples, ...)

    Raises
    ------
    ValueError
        If there are not as many standard deviations as channels or features.
    """
    with torch.inference_mode(False), torch.enable_grad():
        start = rows.detach().clone().requires_grad_()
        # The function gets a copy: its first layer may work in place.
        (gradient,) = torch.autograd.grad(function(start.clone()).sum(), start)
    step = epsilon * gradient.sign()
    if std is not None:
        scales = torch.as_tensor(std, dtype=step.dtype, device=step.device).reshape(-1)
        if len(scales) not in (1, step.shape[1]):
            raise ValueError(
                f"std holds {len(scales)} numbers; rows have {step.shape[1]} channels or features. Give one number for "
                "each of them, or one for all."
            )
        step = step / scales.reshape(-1, *[1] * (step.ndim - 2))
    # Added to the rows themselves, so that gradients of later results reach them; the step counts as a constant.
    return (rows if rows.requires_grad else start.detach()) + step


class _MaxLogit(Score):
    def formula(self, logits: Tensor) -> Tensor:
        return logits.amax(1)


def max_logit(logits: ArrayLike) -> Any:
    """Return the largest logit, max_c f_c [1]_.

    Needs logits.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022.
    """
    return _MaxLogit().of(logits=logits)


class _Energy(Score):
    temperature: float

    def formula(self, logits: Tensor) -> Tensor:
        return energy_of(logits, self.temperature)


def energy(logits: ArrayLike, temperature: float = 1.0) -> Any:
    """Return minus the free energy, T log sum_c exp(f_c / T) [1]_.

    Needs logits.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.
    temperature : float, default=1.0
        T.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Liu, Wang, Owens and Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020.
    """
    return _Energy(temperature=temperature).of(logits=logits)


class _Entropy(Score):
    def formula(self, logits: Tensor) -> Tensor:
        return minus_entropy(log_softmax(logits))


def entropy(logits: ArrayLike) -> Any:
    """Return minus the entropy of the softmax, sum_c p_c log p_c [1]_.

    Needs logits, or log-probabilities.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits or log-probabilities of the rows, one column for each class.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Chan, Rottmann and Gottschalk, "Entropy Maximization and Meta Classification for Out-of-Distribution
       Detection in Semantic Segmentation", ICCV 2021.
    """
    return _Entropy().of(logits=logits)


class _GEN(Score):
    gamma: float
    n_top: int

    def formula(self, logits: Tensor) -> Tensor:
        log_p = log_softmax(logits).sort(1, descending=True).values
        others = log_p[:, 1:]
        # A single class has probability 1, and log(1 - p) would be the logarithm of an empty sum.
        if others.shape[1] == 0:
            return torch.zeros_like(logits[:, 0])
        # 1 - p loses all digits where p is close to 1. Only the largest p can be: for it the others are summed instead.
        log_q = torch.cat([others.logsumexp(1, keepdim=True), torch.log1p(-others.exp())], 1)
        # Powers as exponentials of logarithms: p^gamma need not vanish where p itself underflows.
        return -(self.gamma * (log_p + log_q)[:, : self.n_top]).exp().sum(1)


def gen(logits: ArrayLike, gamma: float = 0.1, n_top: int = 100) -> Any:
    """Return minus the generalised entropy.

    -sum_c p_c^gamma (1 - p_c)^gamma over the ``n_top`` largest probabilities [1]_.

    Needs logits, or log-probabilities.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits or log-probabilities of the rows, one column for each class.
    gamma : float in (0, 1], default=0.1
        Exponent; a smaller one gives small probabilities more weight.
    n_top : int, default=100
        Number of the largest probabilities that count. With fewer classes all count.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Liu, Lochman and Zach, "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection", CVPR 2023.
    """
    return _GEN(gamma=gamma, n_top=n_top).of(logits=logits)


class _KLMatching(Score):
    log_templates: Tensor

    def __init__(self, learnt: Mapping[str, Any]):
        templates = as_tensor(learnt["templates"])
        super().__init__({"log_templates": templates.clamp(min=torch.finfo(templates.dtype).tiny).log()})

    def formula(self, logits: Tensor) -> Tensor:
        # KL(p || d) = sum p log p - sum p log d, the second a matrix product for all rows and templates.
        log_p = log_softmax(logits)
        return even_product(log_p.exp(), self.log_templates).amax(1) - minus_entropy(log_p)


def kl_matching(logits: ArrayLike, templates: ArrayLike) -> Any:
    """Return minus the divergence from the nearest template, -min_k KL(p || d_k) with p = softmax(f) [1]_.

    Needs logits, or log-probabilities; the templates come from `learn_kl_matching`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits or log-probabilities of the rows, one column for each class.
    templates : array-like of shape (n_templates, n_classes)
        d_k. Probabilities below 2e-308 count as 2e-308, so that the divergence is finite.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022.
    """
    return _KLMatching({"templates": templates}).of(logits=logits)


def learn_kl_matching(logits: ArrayLike) -> dict[str, Any]:
    """Learn the ``templates`` of `kl_matching`: for each class k, the mean softmax of the training rows predicted as k.

    A class that is never predicted has no template.

    Parameters
    ----------
    logits : array-like of shape (n_train, n_classes)
        Logits or log-probabilities of the training rows, one column for each class.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: templates (n_templates, n_classes).
    """
    logits = as_rows(logits)
    return {"templates": class_means(np.exp(log_softmax(logits)), logits.argmax(axis=1))[0]}


def find_temperature(logits: ArrayLike, codes: ArrayLike) -> float:
    """Find the temperature T in [e^-5, e^5] at which p = softmax(f / T) makes the rows' classes most likely [1]_.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of rows that the classifier was not fitted on.
    codes : array-like of int of shape (n_samples,), or of bool of shape (n_samples, n_classes)
        Each row's class, as the number of its column; or a mask of the columns whose probabilities are summed, at least
        one for each row.

    Returns
    -------
    temperature : float

    References
    ----------
    .. [1] Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    logits, right = as_rows(logits), np.asarray(codes)
    if right.ndim == 1:
        right = right[:, None] == np.arange(logits.shape[1])

    def surprise(log_temperature: float) -> float:
        """Return minus the log-likelihood of the rows' classes."""
        return -logsumexp(log_softmax(logits / np.exp(log_temperature)), axis=1, b=right).sum()

    # Searched in log T, about T = 1. If every row is classified correctly, a smaller T is always better: the bounds end
    # the search.
    return float(np.exp(minimize_scalar(surprise, bounds=(-5, 5), method="bounded").x))


# --------------------------------------------------------------------------------------------------------------------
# Scores from features


class _KNN(Score):
    # Distances are exact in any batch, and one padded row would cost as much as a whole block.
    in_fixed_blocks = False

    def __init__(self, learnt: Mapping[str, Any], n_neighbors: int | None):
        super().__init__()
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
    return _KNN({"train_features": train_features}, n_neighbors).of(features=features)


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
    return {"train_features": unit(features)}


class _FDBD(Score):
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
    return _FDBD({"center": center}).of(logits=logits, features=features, weight=weight)


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
    _check_boundaries(len(as_rows(weight)))
    return {"center": as_rows(features).mean(axis=0)}


class _ViM(Score):
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
    return _ViM(learnt).of(logits=logits, features=features)


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
    origin = -np.linalg.pinv(as_rows(weight)) @ as_rows(bias)
    shifted = features - origin
    # eigh gives the eigenvalues in ascending order, so the residual directions come first.
    _, vectors = np.linalg.eigh(shifted.T @ shifted / len(shifted))
    basis = vectors[:, : max(1, n_features - n_components)]
    scale = max(_length(shifted @ basis).mean(), 1e-6 * _length(shifted).mean())
    alpha = abs(max_logit(logits).mean()) / scale if scale else 0.0
    return {"origin": origin, "residual_basis": basis, "alpha": float(alpha)}


# --------------------------------------------------------------------------------------------------------------------
# Scores from an auxiliary task


class _Rotation(Score):
    def formula(self, logits: Tensor, rotation_logits: Tensor) -> Tensor:
        # The diagonal holds the log-probability that the head gives to the transformation that was applied.
        told = log_softmax(rotation_logits).diagonal(dim1=1, dim2=2)
        return -math.log(logits.shape[1]) - log_softmax(logits).mean(1) + told.mean(1)


def rotation(logits: ArrayLike, rotation_logits: ArrayLike) -> Any:
    """Return how sure the classifier is of the class, plus how well an auxiliary head recognises transformations.

    KL(uniform || p) + mean over r of log p_rot(r | row transformed by r), with p = softmax(f) and p_rot the softmax of
    the auxiliary head [1]_. With one class the first term is 0. Needs logits, and a network trained with such a head.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.
    rotation_logits : array-like of shape (n_samples, R, R)
        At [i, r], the auxiliary head's logits of row i under transformation r. There are R transformations, for example
        four rotations.

    Returns
    -------
    scores : ndarray or Tensor of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Hendrycks, Mazeika, Kadavath and Song, "Using Self-Supervised Learning Can Improve Model Robustness and
       Uncertainty", NeurIPS 2019.
    """
    return _Rotation().of(logits=logits, rotation_logits=rotation_logits)


# --------------------------------------------------------------------------------------------------------------------


class Method(NamedTuple):
    """A score, and the names of its arguments.

    ``needs`` names the network's responses that ``score`` takes first: "logits", "features", "weight", "bias",
    "rotation_logits"; "gradient" stands for the function and the rows of `odin_log_odds`. The dict that ``learn``
    returns and the options follow as keyword arguments. ``module`` makes a torch module from that dict and the options.
    ``learns_from`` names the responses to training rows that ``learn`` takes; "codes" are their classes as numbers. If
    ``from_probabilities``, the score depends on the softmax alone: log-probabilities may be given as logits. If
    ``may_move``, the options ``epsilon`` and ``std`` say how far each row is first moved so that its score rises
    (`moved_up`); by default rows are not moved. "msp" and "odin", which are probabilities, are in log-odds here.
    """

    score: Callable
    module: Callable[..., Score] | None
    needs: tuple[str, ...]
    learn: Callable | None = None
    learns_from: tuple[str, ...] = ()
    from_probabilities: bool = False
    may_move: bool = False


METHODS = {
    "msp": Method(msp_log_odds, _MSPLogOdds, ("logits",), from_probabilities=True),
    "odin": Method(odin_log_odds, None, ("gradient",)),
    "max_logit": Method(max_logit, _MaxLogit, ("logits",)),
    "energy": Method(energy, _Energy, ("logits",)),
    "entropy": Method(entropy, _Entropy, ("logits",), from_probabilities=True),
    "gen": Method(gen, _GEN, ("logits",), from_probabilities=True),
    "knn": Method(knn, _KNN, ("features",), learn_knn, ("features",)),
    "mahalanobis": Method(
        mahalanobis, Mahalanobis, ("features",), learn_mahalanobis, ("features", "codes"), may_move=True
    ),
    "relative_mahalanobis": Method(
        relative_mahalanobis, RelativeMahalanobis, ("features",), learn_relative_mahalanobis, ("features", "codes")
    ),
    "mahalanobis_pp": Method(
        mahalanobis_pp, MahalanobisPP, ("features",), learn_mahalanobis_pp, ("features", "codes"), may_move=True
    ),
    "relative_mahalanobis_pp": Method(
        relative_mahalanobis_pp,
        RelativeMahalanobisPP,
        ("features",),
        learn_relative_mahalanobis_pp,
        ("features", "codes"),
    ),
    "fdbd": Method(fdbd, _FDBD, ("logits", "features", "weight"), learn_fdbd, ("features", "weight")),
    "vim": Method(vim, _ViM, ("logits", "features"), learn_vim, ("logits", "features", "weight", "bias")),
    "react": Method(react, ReAct, ("features", "weight", "bias"), learn_react, ("features",)),
    "ash_p": Method(ash_p, ASHP, ("features", "weight", "bias")),
    "ash_b": Method(ash_b, ASHB, ("features", "weight", "bias")),
    "ash_s": Method(ash_s, ASHS, ("features", "weight", "bias")),
    "scale": Method(scale, Scale, ("features", "weight", "bias")),
    "vra": Method(vra, VRA, ("features", "weight", "bias"), learn_vra, ("features",)),
    "dice": Method(dice, DICE, ("features", "weight", "bias"), learn_dice, ("features", "weight")),
    "gradnorm": Method(gradnorm, GradNorm, ("logits", "features"), from_probabilities=True),
    "she": Method(
        she, SHE, ("logits", "features"), learn_she, ("logits", "features", "codes"), from_probabilities=True
    ),
    "nnguide": Method(nnguide, NNGuide, ("logits", "features"), learn_nnguide, ("logits", "features")),
    "nci": Method(nci, NCI, ("logits", "features", "weight"), learn_nci, ("features",)),
    "openmax": Method(openmax, OpenMax, ("logits",), learn_openmax, ("logits", "codes")),
    "gram": Method(gram, Gram, ("logits", "features"), learn_gram, ("logits", "features"), from_probabilities=True),
    "kl_matching": Method(
        kl_matching, _KLMatching, ("logits",), learn_kl_matching, ("logits",), from_probabilities=True
    ),
    "rotation": Method(rotation, _Rotation, ("logits", "rotation_logits")),
}


class _Positive:
    """The range of an option that is a positive number or a sequence of them."""

    def is_satisfied_by(self, value: Any) -> bool:
        """Return whether a value is allowed."""
        numbers = np.atleast_1d(np.asarray(value))
        return numbers.ndim == 1 and numbers.dtype.kind in "iuf" and bool(np.all((numbers > 0) & np.isfinite(numbers)))

    def __str__(self) -> str:
        return "a positive number or a sequence of them"


class _Weights:
    """The range of an option that is a sequence of numbers."""

    def is_satisfied_by(self, value: Any) -> bool:
        """Return whether a value is allowed."""
        numbers = np.asarray(value)
        return numbers.ndim == 1 and numbers.dtype.kind in "iuf" and bool(np.all(np.isfinite(numbers)))

    def __str__(self) -> str:
        return "a sequence of numbers, one for each layer"


_AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")
_RANGES = {
    "std": _Positive(),
    "sizes": _Positive(),
    "weights": _Weights(),
    "temperature": Interval(Real, 0, None, closed="neither"),
    "epsilon": Interval(Real, 0, None, closed="left"),
    "gamma": Interval(Real, 0, 1, closed="right"),
    "n_top": _AT_LEAST_ONE,
    "n_neighbors": _AT_LEAST_ONE,
    "n_components": _AT_LEAST_ONE,
    "n_tail": _AT_LEAST_ONE,
    "n_powers": _AT_LEAST_ONE,
    "alpha": Interval(Real, 0, None, closed="left"),
    **dict.fromkeys(("quantile", "low_quantile", "high_quantile"), Interval(Real, 0, 1, closed="neither")),
}


class FittedScore:
    """One of `METHODS`, with its options and what it learnt from training rows.

    Parameters
    ----------
    name : str
        Key of `METHODS`.
    options : mapping or None, default=None
        Options of the score and of its ``learn_`` function, by name.

    Attributes
    ----------
    name : str
        Key of `METHODS`.
    options : dict
        All options of the method, defaults included.
    learnt : dict
        What `learn` learnt; empty before.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.scores import FittedScore
    >>> features = np.eye(3)
    >>> knn = FittedScore("knn", {"n_neighbors": 1}).learn({"features": features})
    >>> knn.score({"features": [[2.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]}).round(3)
    array([-0.   , -1.414])
    """

    def __init__(self, name: str, options: Mapping[str, Any] | None = None):
        if not (isinstance(name, str) and name in METHODS):
            raise ValueError(f"there is no score {name!r}; choose one of {', '.join(map(repr, METHODS))}.")
        self.name = name
        defaults = {**_defaults(self.method.learn), **_defaults(self.method.score)}
        if self.method.may_move:
            defaults |= {"epsilon": 0.0, "std": None}
        for option, value in (options or {}).items():
            if option not in defaults:
                allowed = f"options {', '.join(map(repr, defaults))}" if defaults else "no options"
                raise ValueError(f"{name!r} has no option {option!r}; it has {allowed}.")
            # None is allowed where it is the default. True and False are integers for Python, but no option is a bool.
            as_default = value is None and defaults[option] is None
            if not as_default and (isinstance(value, bool) or not _RANGES[option].is_satisfied_by(value)):
                raise ValueError(f"{option}={value!r} of {name!r} must be {_RANGES[option]}.")
        self.options = {**defaults, **(options or {})}
        if self.options.get("std") is not None and not self.options["epsilon"]:
            raise ValueError(
                f"std of {name!r} has no effect without epsilon, the step that it divides: give epsilon, or leave out "
                "std."
            )
        self.learnt: dict[str, Any] = {}
        self._module = self._build()

    def __getstate__(self):
        """Leave out the module, which can be built again."""
        return {name: value for name, value in vars(self).items() if name != "_module"}

    def __setstate__(self, state):
        vars(self).update(state)
        self._module = self._build()

    @property
    def method(self) -> Method:
        """Return the entry of `METHODS`."""
        return METHODS[self.name]

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the names of the responses that `score` takes."""
        return self.method.needs

    @property
    def moves_rows(self) -> bool:
        """Return whether rows must first be moved by `moved_up`, with the options ``epsilon`` and ``std``."""
        return self.method.may_move and self.options["epsilon"] > 0

    @property
    def asks_network(self) -> bool:
        """Return whether the network itself is needed beside its responses: for gradients, or to move rows."""
        return "gradient" in self.needs or self.moves_rows

    @property
    def learns_from(self) -> tuple[str, ...]:
        """Return the names of the responses that `learn` takes; "codes" stands for the classes."""
        return self.method.learns_from

    def learn(self, responses: Mapping[str, Any], codes: ArrayLike | None = None) -> FittedScore:
        """Learn from the network's responses to training rows; methods that learn nothing do nothing.

        Parameters
        ----------
        responses : mapping of str to array-like
            At least those named in ``learns_from``.
        codes : array-like of int of shape (n_samples,) or None, default=None
            Each row's class as a number, where ``learns_from`` names "codes".

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the method is "fdbd" and there is one class only.
        """
        if self.method.learn is not None:
            responses = {**responses, "codes": codes}
            given = [responses[name] for name in self.learns_from]
            self.learnt = self.method.learn(*given, **self._options_of(self.method.learn))
            self._module = self._build()
        return self

    def score(self, responses: Mapping[str, Any]) -> np.ndarray:
        """Score rows by the network's responses to them.

        Parameters
        ----------
        responses : mapping of str to array-like
            At least those named in ``needs``.

        Returns
        -------
        scores : ndarray or Tensor of float64 of shape (n_samples,)
            Higher = more normal. Rows are not moved here: if `moves_rows`, give the responses to moved rows.

        Raises
        ------
        TypeError
            If the method is "odin", which needs the network itself: call `odin_log_odds` with ``options``.
        NotFittedError
            If the method has not learnt yet.
        """
        return self._learnt_module().of(**{name: responses[name] for name in self.needs})

    def to_torch(self) -> nn.Module:
        """Return a copy of the score as a torch module that holds in buffers what was learnt.

        Returns
        -------
        module : torch.nn.Module
            ``module(logits=..., features=..., weight=..., bias=..., rotation_logits=...)`` takes the responses to rows
            as tensors on its device. Those not in ``needs`` are ignored and may be missing. It returns scores of shape
            (n_samples,) in float64. MPS lacks float64: there ``module.to("mps", torch.float32)`` scores in float32.

        Raises
        ------
        TypeError
            If the method is "odin", which needs the network itself: call `odin_log_odds` with ``options``.
        NotFittedError
            If the method has not learnt yet.

        Examples
        --------
        >>> import torch
        >>> from skood.scores import FittedScore
        >>> module = FittedScore("max_logit").to_torch()
        >>> module(logits=torch.tensor([[1.0, 2.0], [4.0, 3.0]]))
        tensor([2., 4.], dtype=torch.float64)
        """
        return copy.deepcopy(self._learnt_module())

    def _learnt_module(self) -> Score:
        """Return the module, or say why there is none."""
        if "gradient" in self.needs:
            function = self.method.score.__name__
            raise TypeError(f"{self.name!r} takes a function and rows: call skood.scores.{function} with the options.")
        if self._module is None:
            raise NotFittedError(f"{self.name!r} has learnt nothing yet; call learn first.")
        return self._module

    def _build(self) -> Score | None:
        """Return the module; None if the method has not learnt yet or needs the gradient."""
        method = self.method
        if method.module is None or (method.learn is not None and not self.learnt):
            return None
        # The caller may be in inference mode, and tensors made there can never have gradients.
        with torch.inference_mode(False), torch.no_grad():
            options = self._options_of(method.score)
            return method.module(self.learnt, **options) if self.learnt else method.module(**options)

    def _options_of(self, function: Callable) -> dict[str, Any]:
        """Return the options that a function takes."""
        return {name: self.options[name] for name in _defaults(function)}


# --------------------------------------------------------------------------------------------------------------------


def _defaults(function: Callable | None) -> dict[str, Any]:
    """Return the options of a function by name: its parameters that have a default, and the default."""
    parameters = inspect.signature(function).parameters.values() if function else ()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _length(rows: np.ndarray) -> np.ndarray:
    """Return the Euclidean length of each row, of shape (n, 1)."""
    return np.linalg.norm(rows, axis=1, keepdims=True)


def _log_odds(logits: Tensor) -> Tensor:
    """Return the log-odds of the largest logit's class."""
    top, largest = logits.max(1, keepdim=True)
    log_odds = -(logits - top).scatter(1, largest, -math.inf).logsumexp(1)
    return log_odds.masked_fill(log_odds.isposinf(), _CERTAIN)


def _check_boundaries(n_classes: int) -> None:
    """Refuse a last layer of one class."""
    if n_classes < 2:
        raise ValueError(
            "'fdbd' measures distances to the boundaries between classes, and there is one class only: choose another "
            "score."
        )
