"""What a method asks of a training: the steps of a batch, each with its loss, and the phases that epochs belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

Loss = Callable[..., Tensor]


class Step(NamedTuple):
    """Describe one optimiser update within a batch.

    Parameters
    ----------
    loss : callable
        ``loss(module, rows, **extra) -> Tensor`` of no dimensions. ``extra`` holds ``labels`` and ``auxiliary`` where
        the batch has them.
    trains : str or None, default=None
        Name of the submodule whose parameters this step updates; None is the whole module.
    """

    loss: Loss
    trains: str | None = None


class Phase(NamedTuple):
    """Describe epochs that belong together: optimisers and learning-rate schedule start anew with each phase.

    Parameters
    ----------
    steps : sequence of Step
        Taken in turn on every batch. Those that train the same submodule share an optimiser, its momentum included.
        A parameter that a step's loss does not depend on stays as it is in that step.
    max_epochs : int
        A phase of 0 epochs is left out.
    name : str or None, default=None
        Recorded in the history and shown beside the progress bar.
    lr : float or None, default=None
        Initial learning rate; None is the one given to `skood.training.train`.
    auxiliary_ratio : float, default=0.0
        Auxiliary rows in a batch for each in-distribution row; 0 leaves them out.
    augment : callable or None, default=None
        Maps the in-distribution rows of a batch to those that all its steps take instead.
    """

    steps: Sequence[Step]
    max_epochs: int
    name: str | None = None
    lr: float | None = None
    auxiliary_ratio: float = 0.0
    augment: Callable[[Tensor], Tensor] | None = None
