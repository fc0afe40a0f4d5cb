"""Optimisers, learning-rate schedules and averages of weights. The only large package that this loads is torch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def _without_compiler(build: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return torch's optimiser without the wrappers of its methods.

    They keep a compiled training from compiling the methods. For that they load torch's compiler when they are first
    called, which takes most of the time of the first fit in a process: more than a second.
    """
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(build, name)) for name in names}
    # The wrapper of this one also turns gradients off.
    methods["step"] = torch.no_grad()(inspect.unwrap(build.step))
    return type(build.__name__, (build,), {"__module__": __name__, "__doc__": build.__doc__, **methods})


# Pickled detectors hold optimisers, whose classes are looked up by these names.
Adam = _without_compiler(torch.optim.Adam)
AdamW = _without_compiler(torch.optim.AdamW)
RMSprop = _without_compiler(torch.optim.RMSprop)
SGD = _without_compiler(torch.optim.SGD)

# Name -> the class and the arguments that are not torch's defaults. Momentum is 0.9, as in all five papers.
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (Adam, {}),
    "adamw": (AdamW, {}),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (RMSprop, {}),
    "sgd": (SGD, {"momentum": 0.9}),
}


def make_optimizer(
    optimizer: str | Callable[..., torch.optim.Optimizer],
    parameters: Sequence[nn.Parameter],
    lr: float,
    weight_decay: float | None = None,
) -> torch.optim.Optimizer:
    """Return the optimiser that a name or a callable stands for.

    Parameters
    ----------
    optimizer : str or callable
        A name of `OPTIMIZERS`, or ``optimizer(parameters, lr=lr) -> torch.optim.Optimizer``.
    parameters : sequence of torch.nn.Parameter
        The parameters to train: at least one, all on the same device.
    lr : float
        Learning rate.
    weight_decay : float or None, default=None
        Weight decay of a named optimiser. None means torch's default. A callable sets its own.

    Returns
    -------
    optimizer : torch.optim.Optimizer
    """
    if callable(optimizer):
        return optimizer(parameters, lr=lr)
    build, options = OPTIMIZERS[optimizer]
    options = dict(options) if weight_decay is None else options | {"weight_decay": weight_decay}
    device = parameters[0].device.type
    # On small networks a step that is not fused costs as much as the gradient.
    if "fused" in inspect.signature(build).parameters and device in ("cpu", "cuda"):
        options["fused"] = True
    made = build(parameters, lr=lr, **options)
    if build is SGD:
        # Fused SGD fails if one parameter gets its first gradient later than another, unless all have momentum buffers
        # from the start. With buffers of zeros the first step is the same as without buffers.
        for parameter in parameters:
            made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return made


def one_cycle(progress: float) -> float:
    """Return the share of the peak learning rate: a cosine rise from 1/25 over the first 30 %, then a cosine fall to 0.

    Smith & Topin, "Super-convergence" (2019), with the shape that torch's ``OneCycleLR`` has by default.
    """
    if progress < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / 0.3)) / 2
    return (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2


def cosine(progress: float) -> float:
    """Return the share of the initial learning rate: half a cosine from 1 to 0."""
    return (1 + math.cos(math.pi * progress)) / 2


def steps(progress: float) -> float:
    """Return the share of the initial learning rate: divided by 5 after 30, 60 and 80 % of the training.

    These are epochs 60, 120 and 160 of 200 in Zagoruyko & Komodakis, "Wide Residual Networks" (2016).
    """
    return 0.2 ** sum(progress >= milestone for milestone in (0.3, 0.6, 0.8))


# Name -> a function that maps the share of a phase that is done, in [0, 1], to a factor on the learning rate.
SCHEDULES: dict[str, Callable[[float], float] | None] = {
    "constant": None,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "steps": steps,
}


class WeightAverage:
    """Keep an exponential moving average of a module's weights and buffers, updated after each batch.

    At update n the average keeps the share min(decay, (1 + n) / (10 + n)) of its old value. At first it follows the
    weights closely, because a short training would otherwise end near the initial weights.

    Parameters
    ----------
    module : torch.nn.Module
        The module; the average begins with its present weights.
    decay : float in [0, 1)
        Share of the old value that the average keeps at an update, after the first ones.
    """

    # Not torch's AveragedModel: it is a module, and skorch trains every module that it holds.
    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.n_updates = decay, 0
        # A module may keep other objects than tensors in its state, which have no average.
        self.state = {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}

    def update(self, module: nn.Module) -> None:
        """Move the average towards the weights that the module has now."""
        self.n_updates += 1
        share = 1 - min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        now = module.state_dict()
        for name, value in self.state.items():
            if torch.is_floating_point(value):
                value.lerp_(now[name], share)
            # Integers, such as the number of batches that a batch normalisation has seen, have no mean.
            else:
                value.copy_(now[name])
