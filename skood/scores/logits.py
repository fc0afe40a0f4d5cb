"""Score rows by the logits of a classifier, and by those of an auxiliary task; public in `skood.scores`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import Tensor

from ..networks.neighbors import precise_dtype
from ..networks.products import even_product
from .base import Score, as_codes, as_rows, as_tensor, class_means, energy_of, log_softmax, minus_entropy

# Log-odds where the other classes have probability 0, which counts as the smallest float64.
_CERTAIN = -float(np.log(np.finfo(np.float64).tiny))


class MSP(Score):
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
    return MSP().of(logits=logits)


class MSPLogOdds(Score):
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
    return MSPLogOdds().of(logits=logits)


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


class MaxLogit(Score):
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
    return MaxLogit().of(logits=logits)


class Energy(Score):
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
    return Energy(temperature=temperature).of(logits=logits)


class Entropy(Score):
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
    return Entropy().of(logits=logits)


class GEN(Score):
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
    return GEN(gamma=gamma, n_top=n_top).of(logits=logits)


class KLMatching(Score):
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
    return KLMatching({"templates": templates}).of(logits=logits)


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
    logits = as_rows(logits, "logits")
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
        If every row's class has the largest logit, no T is best: a smaller one is always likelier. T is then near a
        bound of the search, and of no use.

    Raises
    ------
    ValueError
        If ``codes`` are neither numbers of columns, one for each row, nor such a mask.

    References
    ----------
    .. [1] Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    logits, right = as_rows(logits, "logits"), np.asarray(codes)
    if right.ndim == 1:
        right = as_codes(right, logits)[:, None] == np.arange(logits.shape[1])
    elif right.shape != logits.shape or right.dtype != bool or not right.any(1).all():
        raise ValueError(
            f"codes of {right.ndim} dimensions must be a mask of bool of the shape of the logits, {logits.shape}, with "
            f"a column for each row."
        )

    def surprise(log_temperature: float) -> float:
        """Return minus the log-likelihood of the rows' classes."""
        return -logsumexp(log_softmax(logits / np.exp(log_temperature)), axis=1, b=right).sum()

    # Searched in log T, about T = 1. If every row is classified correctly, a smaller T is always better: the bounds end
    # the search.
    return float(np.exp(minimize_scalar(surprise, bounds=(-5, 5), method="bounded").x))


class Rotation(Score):
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
    return Rotation().of(logits=logits, rotation_logits=rotation_logits)


def _log_odds(logits: Tensor) -> Tensor:
    """Return the log-odds of the largest logit's class."""
    top, largest = logits.max(1, keepdim=True)
    log_odds = -(logits - top).scatter(1, largest, -math.inf).logsumexp(1)
    return log_odds.masked_fill(log_odds.isposinf(), _CERTAIN)
