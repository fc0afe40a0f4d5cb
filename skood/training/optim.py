"""Optimisers, learning-rate schedules and averages of weights. The only large package that this loads is torch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from .phases import name_of


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

    Raises
    ------
    ValueError
        If the callable does not take these arguments, or does not return an optimiser whose steps need no closure.
    """
    if callable(optimizer):
        return _made_by(optimizer, parameters, lr)
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


def _made_by(function: Callable[..., Any], parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Return the optimiser that a user's callable makes; raise a ValueError that names the parameter if it makes none.

    Some classes and functions look right and fail in the first step, or before it, with errors that do not say why.
    """
    name = name_of(function)
    advice = (
        "Pass a function (parameters, lr=...) that returns a torch.optim.Optimizer, such as torch.optim.AdamW or "
        "functools.partial(torch.optim.SGD, momentum=0.9)."
    )
    reason = not_taken(function, parameters, lr=lr)
    if reason:
        raise ValueError(
            f"optimizer={name} is called with (parameters, lr=...), and does not take that: {reason}. {advice}"
        )
    made = function(parameters, lr=lr)
    if not callable(getattr(made, "step", None)) or not hasattr(made, "param_groups"):
        raise ValueError(f"optimizer={name} returned a {type(made).__name__}, and no optimizer. {advice}")
    reason = not_taken(made.step)
    if reason:
        # torch.optim.LBFGS computes the loss several times in each step.
        raise ValueError(f"optimizer={name} makes steps that need more than gradients: {reason}. {advice}")
    return made


def make_schedule(schedule: str | Callable[[float], float]) -> Callable[[float], float] | None:
    """Return the function that a schedule stands for, or None for a constant learning rate.

    Parameters
    ----------
    schedule : str or callable
        A name of `SCHEDULES`, or a function that maps the share of a phase that is done to a factor.

    Raises
    ------
    ValueError
        If the callable does not take one number.
    """
    if not callable(schedule):
        return SCHEDULES[schedule]
    kind, name = getattr(schedule, "func", schedule), name_of(schedule)
    if isinstance(kind, type) and issubclass(kind, LRScheduler):
        raise ValueError(
            f"schedule={name} is a scheduler of torch. Set schedule='constant' and pass callbacks="
            f"[skorch.callbacks.LRScheduler({name!r}, ...)]; or pass a function {_SHARE_TO_FACTOR}."
        )
    reason = not_taken(schedule, 0.0)
    if reason:
        raise ValueError(
            f"schedule={name} is called with one number, and does not take that: {reason}. Pass a function "
            f"{_SHARE_TO_FACTOR}."
        )
    return schedule


def factor_at(schedule: Callable[[float], float], share: float) -> float:
    """Return a schedule's factor on the learning rate; raise a ValueError if it is no number of at least 0.

    Parameters
    ----------
    schedule : callable
        From `make_schedule`.
    share : float
        The share of the phase that is done.
    """
    factor = schedule(share)
    try:
        valid = math.isfinite(factor) and factor >= 0
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            f"schedule={name_of(schedule)} returned {factor!r} where {share:g} of the training is done. Pass a "
            f"function {_SHARE_TO_FACTOR}."
        )
    return factor


_SHARE_TO_FACTOR = (
    "that maps the share of the training that is done, in [0, 1], to a factor on lr, a number of at least 0"
)


def not_taken(function: Callable, *args: Any, **kwargs: Any) -> str | None:
    """Return why a function does not take these arguments; None if it takes them, or does not say."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Some functions that are not written in Python have none.
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


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
