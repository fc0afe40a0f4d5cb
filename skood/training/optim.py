"""Optimisers, learning-rate schedules and averages of weights; loads torch and nothing else."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

OPTIMIZERS = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
}


def make_optimizer(
    optimizer: str | Callable, parameters: Sequence[nn.Parameter], lr: float, weight_decay: float | None = None
):
    """The optimiser that a name of `OPTIMIZERS` or a callable ``(parameters, lr=...)`` stands for.

    "sgd" and "nesterov" have momentum 0.9, as in all five papers; the others are torch's own defaults, as is a
    ``weight_decay`` of None. A callable sets its own. The fused implementations are taken where there are any: on small
    networks an unfused step costs as much as the gradient.
    """
    if callable(optimizer):
        return optimizer(parameters, lr=lr)
    build, options = OPTIMIZERS[optimizer]
    options = dict(options) if weight_decay is None else options | {"weight_decay": weight_decay}
    device = parameters[0].device.type
    if "fused" in inspect.signature(build).parameters and device in ("cpu", "cuda"):
        options["fused"] = True
    made = build(parameters, lr=lr, **options)
    if build is torch.optim.SGD:
        # Fused, it fails where one parameter has its first gradient later than another; this is what it begins with.
        for parameter in parameters:
            made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return made


def one_cycle(progress: float) -> float:
    """Share of the peak learning rate: a cosine rise from 1/25 over the first 30 %, a cosine fall to nothing.

    Smith & Topin, "Super-convergence" (2019), with torch's default shape.
    """
    if progress < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / 0.3)) / 2
    return (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2


def cosine(progress: float) -> float:
    """Share of the initial learning rate: half a cosine from 1 to 0."""
    return (1 + math.cos(math.pi * progress)) / 2


def steps(progress: float) -> float:
    """Share of the initial learning rate: a fifth of what it was after 30, 60 and 80 % of the training.

    Epochs 60, 120 and 160 of 200: Zagoruyko & Komodakis, "Wide Residual Networks" (2016).
    """
    return 0.2 ** sum(progress >= milestone for milestone in (0.3, 0.6, 0.8))


SCHEDULES = {"constant": None, "cosine": cosine, "one-cycle": one_cycle, "steps": steps}


class WeightAverage:
    """An exponential moving average of a module's weights and buffers, to be updated after each batch.

    After n updates an old weight keeps the share min(decay, (1 + n) / (10 + n)): at first the average follows closely,
    or short trainings would end with the initial weights.

    Parameters
    ----------
    module : torch.nn.Module
    decay : float in [0, 1)
    """

    # A plain class, not torch's AveragedModel: skorch takes every module that it holds for one to be trained.
    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.n_updates = decay, 0
        # What a module adds to its state besides tensors cannot be averaged.
        self.state = {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}

    def update(self, module: nn.Module) -> None:
        """Move towards the module."""
        self.n_updates += 1
        share = 1 - min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        now = module.state_dict()
        for name, value in self.state.items():
            if torch.is_floating_point(value):
                value.lerp_(now[name], share)
            else:
                value.copy_(now[name])
