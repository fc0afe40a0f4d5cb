"""Losses of the rivals of reject classes: they too train a classifier with outliers, but without further classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def outlier_exposure_loss(
    logits: Tensor, labels: Tensor, outlier_logits: Tensor, outlier_weight: float, class_weight: Tensor | None = None
) -> Tensor:
    """Return L_in + lambda L_out of outlier exposure [1]_: outliers are to get the same probability in each class.

    L_in is the cross entropy of the rows' classes, and L_out that of the outliers with the uniform distribution over
    the c classes, the mean of -(1 / c) sum_j log P(j | x) over the outliers x.

    Parameters
    ----------
    logits : Tensor of shape (n_rows, c)
        Logits of in-distribution rows.
    labels : Tensor of int of shape (n_rows,)
        Classes of these rows.
    outlier_logits : Tensor of shape (n_outliers, c)
        Logits of outliers.
    outlier_weight : float
        lambda. The paper's is 0.5.
    class_weight : Tensor of shape (c,) or None, default=None
        Weight of the rows of each class in L_in, a weighted mean. None weighs all rows alike.

    Returns
    -------
    loss : Tensor of no dimensions

    References
    ----------
    .. [1] Hendrycks, Mazeika and Dietterich, "Deep Anomaly Detection with Outlier Exposure", ICLR 2019.
    """
    inside = functional.cross_entropy(logits, labels, class_weight)
    return inside - outlier_weight * outlier_logits.log_softmax(1).mean()


def energy_bounded_loss(
    logits: Tensor,
    labels: Tensor,
    outlier_logits: Tensor,
    outlier_weight: float,
    margins: tuple[float, float],
    class_weight: Tensor | None = None,
) -> Tensor:
    """Return L_in + lambda L_energy of energy-bounded learning [1]_, with the energy E(x) = -log sum_j exp f_j(x).

    L_in is the cross entropy of the rows' classes. L_energy is the mean of max(0, E(x) - m_in)^2 over the rows, plus
    the mean of max(0, m_out - E(x))^2 over the outliers.

    Parameters
    ----------
    logits : Tensor of shape (n_rows, c)
        Logits of in-distribution rows.
    labels : Tensor of int of shape (n_rows,)
        Classes of these rows.
    outlier_logits : Tensor of shape (n_outliers, c)
        Logits of outliers.
    outlier_weight : float
        lambda. The paper's is 0.1.
    margins : tuple (m_in, m_out) of float
        Energies that rows are to stay below, and outliers above.
    class_weight : Tensor of shape (c,) or None, default=None
        Weight of the rows of each class in L_in, a weighted mean. None weighs all rows alike.

    Returns
    -------
    loss : Tensor of no dimensions

    References
    ----------
    .. [1] Liu, Wang, Owens and Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020.
    """
    below, above = margins
    energy, outlier_energy = -logits.logsumexp(1), -outlier_logits.logsumexp(1)
    inside = functional.cross_entropy(logits, labels, class_weight)
    hinges = (energy - below).relu().square().mean() + (above - outlier_energy).relu().square().mean()
    return inside + outlier_weight * hinges
