"""Score rows by a trained classifier: published out-of-distribution scores, each as one function.

As in scikit-learn, higher = more normal. All but `odin` and `odin_log_odds` are functions of arrays. The score of a row
does not depend on other rows. Logits f(x) have one column for each class; features z(x) are the input of the last
linear layer, f = W z + b.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, rel_entr
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors
from sklearn.utils._param_validation import Interval

if TYPE_CHECKING:
    from torch import Tensor

# This share of the mean variance is added to each variance, and at least the second number: where all features are the
# same, the mean variance is 0.
_RIDGE, _LEAST_RIDGE = 1e-6, 1e-20
# The search for nearest neighbours holds this many numbers at once: 64 MiB of float64.
_CHUNK_VALUES = 2**23
# Log-odds where the other classes have no probability at all: as if it were the smallest float64.
_CERTAIN = -float(np.log(np.finfo(np.float64).tiny))

# --------------------------------------------------------------------------------------------------------------------
# Of the logits


def msp(logits: ArrayLike) -> np.ndarray:
    """Return the maximum softmax probability: max_c p_c with p = softmax(f) [1]_.

    Needs logits, or log-probabilities.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits or log-probabilities of the rows, one column for each class.

    Returns
    -------
    scores : ndarray of float64 of shape (n_samples,)

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
    return np.exp(_log_softmax(_rows(logits)).max(axis=1))


def msp_log_odds(logits: ArrayLike) -> np.ndarray:
    """Return the maximum softmax probability in log-odds: log(p / (1 - p)) with p = `msp`.

    It ranks rows as `msp` does, but has no upper bound: it is computed as f_k - log sum_{c != k} exp(f_c), f_k being
    the largest logit. So it tells rows apart whose probability is 1 up to rounding. At 0 the largest class has
    probability 1/2. Needs logits, or log-probabilities.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)

    Returns
    -------
    scores : ndarray of float64 of shape (n_samples,)
        Where the other classes have no probability at all, as where there is one class only, it counts as 2e-308, and
        the score is 708.4.

    Examples
    --------
    >>> from skood.scores import msp, msp_log_odds
    >>> logits = [[1.0, 0.0], [5.0, 0.0], [40.0, 0.0], [50.0, 0.0]]
    >>> msp(logits).round(3)
    array([0.731, 0.993, 1.   , 1.   ])
    >>> msp_log_odds(logits)
    array([ 1.,  5., 40., 50.])
    """
    logits = _rows(logits)
    others = logits - logits.max(axis=1, keepdims=True)
    np.put_along_axis(others, logits.argmax(axis=1)[:, None], -np.inf, axis=1)
    log_odds = -logsumexp(others, axis=1)
    return np.where(np.isposinf(log_odds), _CERTAIN, log_odds)


def odin(
    function: Callable[[Tensor], Tensor], rows: Tensor, temperature: float = 1000.0, epsilon: float = 5e-5
) -> Tensor:
    """Return the maximum softmax probability at a high temperature, of rows moved a little so that it rises.

    max_c S_c(x'; T) with S(x; T) = softmax(f(x) / T) and x' = x + epsilon sign(grad_x log S_yhat(x; T)), yhat being
    the class of the largest logit of x [1]_. Needs the gradient by the rows; gradients of parameters stay as they are.

    Parameters
    ----------
    function : callable
        Maps a tensor of rows to logits of shape (n_samples, n_classes). Those of a row must depend on that row alone.
    rows : Tensor of shape (n_samples, ...)
        Rows to score; they are not modified.
    temperature : float, default=1000.0
        T.
    epsilon : float, default=5e-5
        Step by which every value of a row is moved, in the units of the rows.

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
    import torch

    return torch.softmax(_moved_logits(function, rows, temperature, epsilon), 1).amax(1)


def odin_log_odds(
    function: Callable[[Tensor], Tensor], rows: Tensor, temperature: float = 1000.0, epsilon: float = 5e-5
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

    Returns
    -------
    scores : Tensor of float64 of shape (n_samples,)
        On the device of the rows; of float32 on MPS, which lacks float64. Where the other classes have no probability
        at all, as where there is one class only, it counts as 2e-308, and the score is 708.4.

    Examples
    --------
    >>> import torch
    >>> from skood.scores import odin_log_odds
    >>> rows = torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    >>> odin_log_odds(torch.nn.Identity(), rows, temperature=1.0, epsilon=0.0).numpy().round(3)
    array([1., 5.])
    """
    logits = _moved_logits(function, rows, temperature, epsilon)
    top, largest = logits.max(1, keepdim=True)
    log_odds = -(logits - top).scatter(1, largest, -np.inf).logsumexp(1)
    return log_odds.masked_fill(log_odds.isposinf(), _CERTAIN)


def _moved_logits(function: Callable[[Tensor], Tensor], rows: Tensor, temperature: float, epsilon: float) -> Tensor:
    """Return the logits, divided by the temperature, of rows that `odin` has moved."""
    import torch

    # At a high temperature all probabilities are close to 1 / n_classes: in float32 most rows would be tied.
    precise = torch.float32 if rows.device.type == "mps" else torch.float64
    with torch.inference_mode(False), torch.enable_grad():
        start = rows.detach().clone().requires_grad_()
        # The function gets a copy: its first layer may work in place.
        confidence = torch.log_softmax(function(start.clone()).to(precise) / temperature, 1).max(1).values
        (gradient,) = torch.autograd.grad(confidence.sum(), start)
    with torch.no_grad():
        moved = start.detach() + epsilon * gradient.sign()
        return function(moved).to(precise) / temperature


def max_logit(logits: ArrayLike) -> np.ndarray:
    """Return the largest logit, max_c f_c [1]_.

    Needs logits.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.

    Returns
    -------
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022.
    """
    return _rows(logits).max(axis=1)


def energy(logits: ArrayLike, temperature: float = 1.0) -> np.ndarray:
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
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Liu, Wang, Owens and Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020.
    """
    top, log_sum = _largest_and_log_sum(_rows(logits) / temperature)
    return temperature * (top + log_sum)[:, 0]


def entropy(logits: ArrayLike) -> np.ndarray:
    """Return minus the entropy of the softmax, sum_c p_c log p_c [1]_.

    Needs logits, or log-probabilities.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits or log-probabilities of the rows, one column for each class.

    Returns
    -------
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Chan, Rottmann and Gottschalk, "Entropy Maximization and Meta Classification for Out-of-Distribution
       Detection in Semantic Segmentation", ICCV 2021.
    """
    log_p = _log_softmax(_rows(logits))
    p = np.exp(log_p)
    return (p * np.where(p > 0, log_p, 0.0)).sum(axis=1)


def gen(logits: ArrayLike, gamma: float = 0.1, n_top: int = 100) -> np.ndarray:
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
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Liu, Lochman and Zach, "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection", CVPR 2023.
    """
    log_p = np.sort(_log_softmax(_rows(logits)), axis=1)[:, ::-1]
    # One class has probability 1, and log(1 - p) would be the logarithm of an empty sum.
    if log_p.shape[1] == 1:
        return np.zeros(len(log_p))
    # 1 - p would lose all digits where p is close to 1, which only the largest can be: there the others are summed.
    log_q = np.empty_like(log_p)
    log_q[:, 0] = logsumexp(log_p[:, 1:], axis=1)
    log_q[:, 1:] = np.log1p(-np.exp(log_p[:, 1:]))
    # Powers as exponentials of logarithms: p^gamma need not vanish where p itself underflows.
    return -np.exp(gamma * (log_p + log_q)[:, :n_top]).sum(axis=1)


def kl_matching(logits: ArrayLike, templates: ArrayLike) -> np.ndarray:
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
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022.
    """
    p = np.exp(_log_softmax(_rows(logits)))
    nonzero = np.maximum(_rows(templates), np.finfo(np.float64).tiny)
    return -np.min([rel_entr(p, template).sum(axis=1) for template in nonzero], axis=0)


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
    logits = _rows(logits)
    return {"templates": _class_means(np.exp(_log_softmax(logits)), logits.argmax(axis=1))[0]}


def find_temperature(logits: ArrayLike, codes: ArrayLike) -> float:
    """Find the temperature T in [e^-5, e^5] at which the rows' classes are most likely, p being softmax(f / T) [1]_.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of rows that the classifier was not fitted on.
    codes : array-like of int of shape (n_samples,), or of bool of shape (n_samples, n_classes)
        Each row's class, as the number of its column; or the columns, at least one for each row, whose probabilities
        are summed.

    Returns
    -------
    temperature : float

    References
    ----------
    .. [1] Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    logits, right = _rows(logits), np.asarray(codes)
    if right.ndim == 1:
        right = right[:, None] == np.arange(logits.shape[1])

    def surprise(log_temperature: float) -> float:
        """Return minus the log-likelihood of the rows' classes."""
        return -logsumexp(_log_softmax(logits / np.exp(log_temperature)), axis=1, b=right).sum()

    # Searched in log T, about T = 1. Where every row is right a smaller T is always better: the bounds end the search.

    return float(np.exp(minimize_scalar(surprise, bounds=(-5, 5), method="bounded").x))


# --------------------------------------------------------------------------------------------------------------------
# Of the features


def knn(features: ArrayLike, train_features: ArrayLike, n_neighbors: int | None = None) -> np.ndarray:
    """Return minus the distance to the k-th nearest training row, of features of length 1 [1]_.

    Needs features; those of the training rows come from `learn_knn`.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    train_features : array-like of shape (n_train, n_features)
        They need not be of length 1.
    n_neighbors : int or None, default=None
        k, at most the number of training rows. None takes a thousandth of this number, about what the paper found best
        for training sets of all sizes, but at least 5.

    Returns
    -------
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Sun, Ming, Zhu and Li, "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022.

    Examples
    --------
    >>> from skood.scores import knn
    >>> knn([[0.0, 3.0], [-2.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], n_neighbors=1)
    array([-0.        , -1.41421356])
    """
    rows, train = _unit(features), _unit(train_features)
    n_train = len(train)
    k = max(5, n_train // 1000) if n_neighbors is None else n_neighbors
    k = min(k, n_train)
    # The search uses matrix products. Their squared distances are off by up to 1e-14, by more or less depending on the
    # batch. So a few more neighbours are searched for than needed, and measured again one by one.
    n_candidates = min(k + 8, n_train)
    search = NearestNeighbors(n_neighbors=n_candidates, algorithm="brute").fit(train)
    distances = np.empty(len(rows))
    size = max(1, _CHUNK_VALUES // max(n_candidates * train.shape[1], n_train))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        rough, places = search.kneighbors(part)
        squares = np.partition(((part[:, None] - train[places]) ** 2).sum(axis=2), k - 1, axis=1)[:, k - 1]
        # Could a row that was not found be nearer, by more than rounding? Only where there are near duplicates.
        doubtful = (n_candidates < n_train) & (squares - rough[:, -1] ** 2 + 1e-14 > 1e-10 * squares) & (squares > 0)
        if doubtful.any():
            every = cdist(part[doubtful], train, "sqeuclidean")
            squares[doubtful] = np.partition(every, k - 1, axis=1)[:, k - 1]
        distances[start : start + size] = np.sqrt(squares)
    return -distances


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
    return {"train_features": _unit(features)}


def mahalanobis(features: ArrayLike, means: ArrayLike, precision: ArrayLike) -> np.ndarray:
    """Return minus the squared Mahalanobis distance to the nearest class mean, of features of length 1.

    -min_c M_c with M_c = (z - mu_c)^T P (z - mu_c), P the inverse of a covariance that the classes share [1]_, and
    z divided by its length [2]_. Needs features; means and precision come from `learn_mahalanobis`.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the rows: the input of the last linear layer.
    means : array-like of shape (n_means, n_features)
        mu_c.
    precision : array-like of shape (n_features, n_features)
        P; symmetric and positive definite.

    Returns
    -------
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Lee, Lee, Lee and Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
       Adversarial Attacks", NeurIPS 2018.
    .. [2] Mueller and Hein, "Mahalanobis++: Improving OOD Detection via Feature Normalization", ICML 2025.
    """
    return -_nearest_mean(_unit(features), _rows(means), precision)


def learn_mahalanobis(features: ArrayLike, codes: ArrayLike) -> dict[str, Any]:
    """Learn ``means`` and ``precision`` of `mahalanobis` from the training rows' features and classes.

    The covariance about the class means is often singular, since units may be dead and rows few. Before it is inverted,
    1e-6 of the mean variance is added to each variance.

    Parameters
    ----------
    features : array-like of shape (n_train, n_features)
        Features of the training rows: the input of the last linear layer.
    codes : array-like of int of shape (n_train,)
        Each row's class.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: means (n_present_classes, n_features), precision (n_features, n_features).
    """
    features = _unit(features)
    means, places = _class_means(features, codes)
    centred = features - means[places]
    # By eigenvalues and not by an inverse: the precision is then positive definite whatever rounding does, as the
    # Cholesky factor in `_nearest_mean` needs it.
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(features))
    variances = np.maximum(variances, 0.0)
    variances += max(_RIDGE * variances.mean(), _LEAST_RIDGE)
    half = vectors / np.sqrt(variances)
    return {"means": means, "precision": half @ half.T}


def relative_mahalanobis(
    features: ArrayLike, means: ArrayLike, precision: ArrayLike, mean: ArrayLike, total_precision: ArrayLike
) -> np.ndarray:
    """Return minus the Mahalanobis distance to the nearest class mean, less that to the mean of all rows.

    -(min_c M_c - M_0), with M_c of `mahalanobis` and M_0 the same for the mean and the covariance of all rows [1]_.
    Features are scaled to length 1. With one class all scores are 0. Needs features; the rest comes from
    `learn_relative_mahalanobis`.

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
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection", arXiv:2106.09022, 2021.
    """
    features = _unit(features)
    of_all = _nearest_mean(features, _rows(mean)[None], total_precision)
    return of_all - _nearest_mean(features, _rows(means), precision)


def learn_relative_mahalanobis(features: ArrayLike, codes: ArrayLike) -> dict[str, Any]:
    """Learn what `relative_mahalanobis` takes: `learn_mahalanobis` for the classes, and for all rows as one class.

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
    total = learn_mahalanobis(features, np.zeros(len(_rows(features)), dtype=int))
    of_all = {"mean": total["means"][0], "total_precision": total["precision"]}
    return {**learn_mahalanobis(features, codes), **of_all}


def fdbd(logits: ArrayLike, features: ArrayLike, weight: ArrayLike, center: ArrayLike) -> np.ndarray:
    """Return the mean distance to the decision boundaries, relative to the distance from the centre of the features.

    The mean over the classes c other than yhat, the class of the largest logit, of |f_yhat - f_c| / ||w_yhat - w_c||,
    divided by ||z - center|| [1]_. Classes with the weights of yhat have no boundary to it and do not count. Needs
    logits, features and the weights of the last layer; the centre comes from `learn_fdbd`.

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
    scores : ndarray of float64 of shape (n_samples,)

    Raises
    ------
    ValueError
        If there is one class only.

    References
    ----------
    .. [1] Liu and Qin, "Fast Decision Boundary based Out-of-Distribution Detector", ICML 2024.
    """
    logits, features = _rows(logits), _rows(features)
    weight = _rows(weight)
    _check_boundaries(weight)
    apart = cdist(weight, weight)[logits.argmax(axis=1)]
    gaps = logits.max(axis=1, keepdims=True) - logits
    # This leaves out the class itself, too: it has no distance to its own weights.
    bounded = apart > 0
    distances = np.divide(gaps, apart, out=np.zeros_like(gaps), where=bounded)
    mean = distances.sum(axis=1) / np.maximum(bounded.sum(axis=1), 1)
    return mean / np.maximum(_length(features - _rows(center))[:, 0], 1e-12)


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
        If there is one class only.
    """
    _check_boundaries(weight)
    return {"center": _rows(features).mean(axis=0)}


def vim(
    logits: ArrayLike, features: ArrayLike, origin: ArrayLike, residual_basis: ArrayLike, alpha: float
) -> np.ndarray:
    """Return the energy of the logits less a virtual logit, which grows as features leave their usual subspace (ViM).

    log sum_c exp(f_c) - alpha ||R^T (z - o)|| [1]_. The order of rows is that of minus the softmax of the virtual logit
    alpha ||R^T (z - o)|| among the others. Needs logits and features; the rest comes from `learn_vim`.

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
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Wang, Li, Feng and Zhang, "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022.
    """
    return energy(logits) - alpha * _length((_rows(features) - _rows(origin)) @ _rows(residual_basis))[:, 0]


def learn_vim(
    logits: ArrayLike, features: ArrayLike, weight: ArrayLike, bias: ArrayLike, n_components: int | None = None
) -> dict[str, Any]:
    """Learn what `vim` takes from the training rows' logits and features and from the last layer.

    ``origin`` is o = -pinv(W) b. ``residual_basis`` holds the eigenvectors of the training features' second moment
    about o, without those of the ``n_components`` largest eigenvalues: by default 1000 from 2048 features on, 512 from
    768 on, and half of the features below; at most all but one. ``alpha`` is the absolute mean of the training rows'
    largest logits, divided by the mean of ||R^T (z - o)||. The latter is taken for at least 1e-6 of the mean of
    ||z - o||: where the training rows lie in a subspace, it would be mere rounding.

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
        Dimension of the usual subspace, which ``residual_basis`` leaves out. None chooses it as said above.

    Returns
    -------
    learnt : dict of ndarray
        With the shapes: origin (n_features,), residual_basis (n_features, n_residual), alpha (float).
    """
    features = _rows(features)
    n_features = features.shape[1]
    if n_components is None:
        n_components = 1000 if n_features >= 2048 else 512 if n_features >= 768 else n_features // 2
    origin = -np.linalg.pinv(_rows(weight)) @ _rows(bias)
    shifted = features - origin
    # eigh gives the eigenvalues in ascending order, so the residual directions come first.
    _, vectors = np.linalg.eigh(shifted.T @ shifted / len(shifted))
    basis = vectors[:, : max(1, n_features - n_components)]
    scale = max(_length(shifted @ basis).mean(), 1e-6 * _length(shifted).mean())
    alpha = abs(max_logit(logits).mean()) / scale if scale else 0.0
    return {"origin": origin, "residual_basis": basis, "alpha": float(alpha)}


def react(
    features: ArrayLike, weight: ArrayLike, bias: ArrayLike, limit: float, temperature: float = 1.0
) -> np.ndarray:
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
        Largest activation that is let through.
    temperature : float, default=1.0
        T of `energy`.

    Returns
    -------
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Sun, Guo and Li, "ReAct: Out-of-distribution Detection With Rectified Activations", NeurIPS 2021.
    """
    return energy(np.minimum(_rows(features), limit) @ _rows(weight).T + _rows(bias), temperature)


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
    """
    return {"limit": float(np.quantile(_rows(features), quantile))}


# --------------------------------------------------------------------------------------------------------------------
# Of an auxiliary task


def rotation(logits: ArrayLike, rotation_logits: ArrayLike) -> np.ndarray:
    """Return how sure the classifier is of the class, plus how well an auxiliary head recognises transformations.

    KL(uniform || p) + mean over r of log p_rot(r | row transformed by r), with p = softmax(f) and p_rot the softmax of
    the auxiliary head [1]_. With one class the first term is 0. Needs logits, and a network trained with such a head.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits of the rows, one column for each class.
    rotation_logits : array-like of shape (n_samples, R, R)
        At [i, r] the auxiliary head's logits of row i under transformation r: four rotations, or others.

    Returns
    -------
    scores : ndarray of float64 of shape (n_samples,)

    References
    ----------
    .. [1] Hendrycks, Mazeika, Kadavath and Song, "Using Self-Supervised Learning Can Improve Model Robustness and
       Uncertainty", NeurIPS 2019.
    """
    log_p, rotated = _log_softmax(_rows(logits)), _rows(rotation_logits)
    log_rotation = _log_softmax(rotated.reshape(-1, rotated.shape[2])).reshape(rotated.shape)
    # The diagonal holds the log-probability that the head gives to the transformation that was applied.
    told = np.diagonal(log_rotation, axis1=1, axis2=2)
    return -np.log(log_p.shape[1]) - log_p.mean(axis=1) + told.mean(axis=1)


# --------------------------------------------------------------------------------------------------------------------


class Method(NamedTuple):
    """A score, and the names of what it takes.

    ``needs`` names the network's responses that ``score`` takes first: "logits", "features", "weight", "bias",
    "rotation_logits"; "gradient" stands for the function and the rows of `odin_log_odds`. The dict that ``learn``
    returns, and options, follow by name. ``learns_from`` names the responses to training rows that ``learn`` takes,
    "codes" being their classes as numbers. If ``from_probabilities``, the score depends on the softmax alone:
    log-probabilities may be given as logits. Scores that are probabilities, "msp" and "odin", are in log-odds.
    """

    score: Callable
    needs: tuple[str, ...]
    learn: Callable | None = None
    learns_from: tuple[str, ...] = ()
    from_probabilities: bool = False


METHODS = {
    "msp": Method(msp_log_odds, ("logits",), from_probabilities=True),
    "odin": Method(odin_log_odds, ("gradient",)),
    "max_logit": Method(max_logit, ("logits",)),
    "energy": Method(energy, ("logits",)),
    "entropy": Method(entropy, ("logits",), from_probabilities=True),
    "gen": Method(gen, ("logits",), from_probabilities=True),
    "knn": Method(knn, ("features",), learn_knn, ("features",)),
    "mahalanobis": Method(mahalanobis, ("features",), learn_mahalanobis, ("features", "codes")),
    "relative_mahalanobis": Method(
        relative_mahalanobis, ("features",), learn_relative_mahalanobis, ("features", "codes")
    ),
    "fdbd": Method(fdbd, ("logits", "features", "weight"), learn_fdbd, ("features", "weight")),
    "vim": Method(vim, ("logits", "features"), learn_vim, ("logits", "features", "weight", "bias")),
    "react": Method(react, ("features", "weight", "bias"), learn_react, ("features",)),
    "kl_matching": Method(kl_matching, ("logits",), learn_kl_matching, ("logits",), from_probabilities=True),
    "rotation": Method(rotation, ("logits", "rotation_logits")),
}

_AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")
_RANGES = {
    "temperature": Interval(Real, 0, None, closed="neither"),
    "epsilon": Interval(Real, 0, None, closed="left"),
    "gamma": Interval(Real, 0, 1, closed="right"),
    "n_top": _AT_LEAST_ONE,
    "n_neighbors": _AT_LEAST_ONE,
    "n_components": _AT_LEAST_ONE,
    "quantile": Interval(Real, 0, 1, closed="neither"),
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
            raise ValueError(f"there is no score {name!r}; there are {', '.join(map(repr, METHODS))}.")
        self.name = name
        defaults = {**_defaults(self.method.learn), **_defaults(self.method.score)}
        for option, value in (options or {}).items():
            if option not in defaults:
                allowed = f"options {', '.join(map(repr, defaults))}" if defaults else "no options"
                raise ValueError(f"{name!r} has no option {option!r}; it has {allowed}.")
            # None is allowed where it is the default. True and False are integers for Python, and no option is one.
            as_default = value is None and defaults[option] is None
            if not as_default and (isinstance(value, bool) or not _RANGES[option].is_satisfied_by(value)):
                raise ValueError(f"{option}={value!r} of {name!r} must be {_RANGES[option]}.")
        self.options = {**defaults, **(options or {})}
        self.learnt: dict[str, Any] = {}

    @property
    def method(self) -> Method:
        """Return the entry of `METHODS`."""
        return METHODS[self.name]

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the names of the responses that `score` takes."""
        return self.method.needs

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
        return self

    def score(self, responses: Mapping[str, Any]) -> np.ndarray:
        """Score rows by the network's responses to them.

        Parameters
        ----------
        responses : mapping of str to array-like
            At least those named in ``needs``.

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
            Higher = more normal.

        Raises
        ------
        TypeError
            If the method is "odin", which asks the network itself: call `odin_log_odds` with ``options``.
        NotFittedError
            If the method has not learnt yet.
        """
        if "gradient" in self.needs:
            function = self.method.score.__name__
            raise TypeError(f"{self.name!r} takes a function and rows: call skood.scores.{function} with the options.")
        if self.method.learn is not None and not self.learnt:
            raise NotFittedError(f"{self.name!r} has learnt nothing yet; call learn first.")
        given = [responses[name] for name in self.needs]
        return self.method.score(*given, **self.learnt, **self._options_of(self.method.score))

    def _options_of(self, function: Callable) -> dict[str, Any]:
        """Return the options that a function takes."""
        return {name: self.options[name] for name in _defaults(function)}


# --------------------------------------------------------------------------------------------------------------------


def _defaults(function: Callable | None) -> dict[str, Any]:
    """Return the options of a function by name: its parameters that have a default, and the default."""
    parameters = inspect.signature(function).parameters.values() if function else ()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _rows(values: ArrayLike) -> np.ndarray:
    """Return a contiguous array of float64."""
    # A sum rounds differently in another order of memory: a transposed array would get other scores in the last bits.
    return np.ascontiguousarray(values, dtype=np.float64)


def _length(rows: np.ndarray) -> np.ndarray:
    """Return the Euclidean length of each row, of shape (n, 1)."""
    return np.linalg.norm(rows, axis=1, keepdims=True)


def _unit(rows: ArrayLike) -> np.ndarray:
    """Scale rows to length 1; rows of zeros stay."""
    rows = _rows(rows)
    # By the largest absolute entry first, then by the Euclidean length: the square of an entry may overflow.
    for order in (np.inf, 2):
        length = np.linalg.norm(rows, ord=order, axis=1, keepdims=True)
        rows = rows / np.where(length > 0, length, 1.0)
    return rows


def _largest_and_log_sum(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return max f and log sum exp(f - max f), of shape (n, 1).

    The term of the maximum, 1, is left to log1p: so the logarithm is exact where one class has nearly all probability.
    """
    top = logits.max(axis=1, keepdims=True)
    shares = np.exp(logits - top)
    np.put_along_axis(shares, logits.argmax(axis=1)[:, None], 0.0, axis=1)
    return top, np.log1p(shares.sum(axis=1, keepdims=True))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax of each row."""
    top, log_sum = _largest_and_log_sum(logits)
    # In this order: top + log_sum would round away a small log_sum, and with it how sure a sure row is.
    return (logits - top) - log_sum


def _class_means(rows: np.ndarray, codes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean row of each class that has rows, and for each row the index of its class among these."""
    found, places = np.unique(np.asarray(codes), return_inverse=True)
    return np.stack([rows[places == place].mean(axis=0) for place in range(len(found))]), places


def _nearest_mean(rows: np.ndarray, means: np.ndarray, precision: ArrayLike) -> np.ndarray:
    """Return the smallest squared Mahalanobis distance of each row to a mean."""
    # With P = L L^T it is the Euclidean distance after multiplication by L^T. Differences of large coordinates lose
    # digits in the product, so the middle of the means is subtracted first.
    factor, middle = np.linalg.cholesky(_rows(precision)), means.mean(axis=0)
    return cdist((rows - middle) @ factor, (means - middle) @ factor, "sqeuclidean").min(axis=1)


def _check_boundaries(weight: ArrayLike) -> None:
    """Refuse a last layer of one class."""
    if len(_rows(weight)) < 2:
        raise ValueError("'fdbd' is about the boundaries between classes, and there is one class only.")
