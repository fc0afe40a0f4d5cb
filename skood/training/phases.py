"""Describe a training: the steps of a batch, each with its loss, and the phases that epochs belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

Loss = Callable[..., Tensor]


class Step(NamedTuple):
    """Describe one optimiser update within a batch.

    Parameters
    ----------
    loss : callable
        ``loss(module, rows, **extra) -> Tensor`` of no dimensions. ``extra`` holds ``labels`` and ``auxiliary`` if the
        batch has them.
    trains : str or None, default=None
        Name of the submodule whose parameters this step updates. None means the whole module.
    """

    loss: Loss
    trains: str | None = None


class Phase(NamedTuple):
    """Describe epochs that belong together: optimisers and learning-rate schedule start anew with each phase.

    Parameters
    ----------
    steps : sequence of Step
        The updates that are made one after the other on every batch. Steps that train the same submodule share an
        optimiser, including its momentum. A parameter that a step's loss does not depend on is not changed in that
        step.
    max_epochs : int
        Number of epochs. A phase of 0 epochs is left out.
    name : str or None, default=None
        Name of the phase, which is recorded in the history and shown beside the progress bar.
    lr : float or None, default=None
        Initial learning rate. None means the one given to `skood.training.train`.
    auxiliary_ratio : float, default=0.0
        Number of auxiliary outliers in a batch for each in-distribution row. 0 uses none.
    least_rows : int, default=2
        Smallest number of in-distribution rows in a batch. If fewer are left over, they join the batch before.
    augment : callable or None, default=None
        Maps the in-distribution rows of a batch to the rows that all steps of this batch take instead. None changes
        nothing.
    memory : object or None, default=None
        State that the losses keep from batch to batch. It has ``state_dict()`` and ``load_state_dict(state)``, of
        numbers, tensors, and lists and dicts of these, so that a checkpoint can hold it. None keeps nothing.
    """

    steps: Sequence[Step]
    max_epochs: int
    name: str | None = None
    lr: float | None = None
    auxiliary_ratio: float = 0.0
    least_rows: int = 2
    augment: Callable[[Tensor], Tensor] | None = None
    memory: Any = None


def name_of(function: Callable) -> str:
    """Return the name of a function or method, for error messages; of a partial function, that of what it calls."""
    return getattr(getattr(function, "func", function), "__qualname__", repr(function))


def parts_of(steps: Sequence[Step]) -> list[str | None]:
    """Return the names of the submodules that the steps train, each once."""
    return list(dict.fromkeys(step.trains for step in steps))
