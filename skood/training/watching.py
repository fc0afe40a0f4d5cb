"""Early stopping: compute the loss of held-out rows, end a phase when it no longer falls, keep the best weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import distributed
from .batches import TensorBatches, TrainingRows
from .device import autocast, seeded

if TYPE_CHECKING:
    from .net import DetectorNet

__all__ = ["HeldOut", "evaluated", "trained_state"]

# Seed of the random numbers in a loss (views, negatives, noise): the same in each epoch, so that only weights differ.
_SEED = 0


@contextlib.contextmanager
def evaluated(net: DetectorNet) -> Iterator[None]:
    """Run a block with the module as it would be if the training ended now: averaged weights, in evaluation mode."""
    module, average = net.module_, net.average
    now = None if average is None else {name: value.clone() for name, value in module.state_dict().items()}
    if average is not None:
        module.load_state_dict(module.state_dict() | average.state)
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if now is not None:
            module.load_state_dict(now)
        module.train()


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """Return all tensors of a module that a training changes: not its frozen weights, which may be large."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    state = module.state_dict()
    # A module may keep other objects than tensors in its state.
    return {name: value for name, value in state.items() if isinstance(value, Tensor) and name not in frozen}


class HeldOut:
    """Compute the loss of held-out rows after each epoch, and remember the weights with the lowest loss.

    The loss is that of the training, summed over all steps of the phase, in evaluation mode, with the same batches and
    the same random numbers in each epoch. It does not change the training's own random numbers.

    Parameters
    ----------
    data : TrainingRows
        The held-out rows; two or more.
    patience : int or None
        Number of epochs without a lower loss after which a phase ends, with the weights of its lowest loss. None only
        records the loss.
    """

    def __init__(self, data: TrainingRows, patience: int | None) -> None:
        self.data, self.patience = data, patience
        self.begin()

    def begin(self) -> None:
        """Begin a phase: losses of earlier phases do not count, since phases have different losses."""
        self.best, self.n_waited = math.inf, 0
        self.weights: dict[str, Tensor] = {}
        self.average: tuple[int, dict[str, Tensor]] | None = None

    @property
    def exhausted(self) -> bool:
        """Whether the phase is to end."""
        return self.patience is not None and self.n_waited >= self.patience

    def record(self, net: DetectorNet) -> None:
        """Record ``valid_loss`` of an epoch and whether it is the lowest of its phase; if so, keep the weights."""
        loss = self._loss(net)
        better = loss < self.best
        net.history.record("valid_loss", loss)
        net.history.record("valid_loss_best", better)
        self.n_waited = 0 if better else self.n_waited + 1
        if better:
            self.best = loss
            if self.patience is not None:
                self._keep(net)

    def restore(self, net: DetectorNet) -> None:
        """Give the net the weights with the lowest loss, if an epoch was finished."""
        if not self.weights:
            return
        net.module_.load_state_dict(net.module_.state_dict() | self.weights)
        if net.average is not None and self.average is not None:
            net.average.n_updates, net.average.state = self.average

    def state_dict(self) -> dict[str, Any]:
        """Return the lowest loss, the number of epochs since then, and the weights, for `load_state_dict`."""
        n_updates, average = (0, {}) if self.average is None else self.average
        numbers = {"best": self.best, "n_waited": self.n_waited, "n_updates": n_updates}
        return numbers | {"weights": self.weights, "average": average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.best, self.n_waited, self.weights = state["best"], state["n_waited"], state["weights"]
        self.average = (state["n_updates"], state["average"]) if state["average"] else None

    def _loss(self, net: DetectorNet) -> float:
        """Return the mean loss of a held-out row."""
        total, n_rows = 0.0, 0
        with evaluated(net), seeded(_SEED, self.data.device):
            options = net.iterator_train__auxiliary_ratio, net.iterator_train__least_rows
            for rows, extra in TensorBatches(self.data, net.batch_size, *options):
                size = len(rows)
                if net.augment is not None:
                    rows = net.augment(rows)
                with autocast(net.precision, self.data.device):
                    losses = [step.loss(net.module_, rows, **extra) for step in net.steps]
                total += float(sum(losses)) * size
                n_rows += size
        loss = total / n_rows
        # All processes must come to the same decision, and each has its own statistics of batch normalisation.
        return distributed.mean(loss) if net.together else loss

    def _keep(self, net: DetectorNet) -> None:
        """Keep copies of all tensors that training changes."""
        self.weights = {name: value.clone() for name, value in trained_state(net.module_).items()}
        if net.average is not None:
            copies = {name: value.clone() for name, value in net.average.state.items()}
            self.average = net.average.n_updates, copies
