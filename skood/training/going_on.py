"""Save and restore the state of a training: weights, optimisers, random numbers, and all counters.

A state is a dict of numbers, text, tensors on the CPU, and lists and dicts of these: `torch.load` can read it without
running code.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.randomness import draw_on, drawn_alone, drawn_so_far
from .watching import trained_state

if TYPE_CHECKING:
    from .net import DetectorNet

__all__ = ["load_weights", "restore", "snapshot"]

State = dict[str, Any]


def snapshot(net: DetectorNet, ended: bool = False) -> State:
    """Return the state of a training.

    Parameters
    ----------
    net : DetectorNet
        The net, between two epochs.
    ended : bool, default=False
        Whether the present phase has ended, perhaps before its last epoch.

    Returns
    -------
    state : dict
        The state, for `restore`.
    """
    optimizers = {name: _optimizer_state(getattr(net, name), net.module_) for name in net.optimizer_names}
    average, held_out, batches = net.average, net.held_out, net.batches_
    return {
        "phase": net.phase_name,
        "number": net.number,
        "ended": ended,
        "epochs": [*net.epochs[:-1], net.n_done],
        "epochs_planned": list(net.epochs_planned),
        "n_batches": net.n_batches_,
        "n_epochs_before": net.n_epochs_before,
        "best_loss": net.best_loss_,
        "optimizer": type(net.optimizer_).__name__,
        "optimizers": optimizers,
        "module": _plain(trained_state(net.module_)),
        "average": None if average is None else {"n_updates": average.n_updates, "state": _plain(average.state)},
        "random": _random_state(net.device),
        "queue": None if batches is None else batches.auxiliary_queue.cpu().clone(),
        "memory": None if net.memory is None else _plain(net.memory.state_dict()),
        "held_out": None if held_out is None else _plain(held_out.state_dict()),
        # Plain before they are chosen: callbacks record numbers of numpy, too, as skorch's EpochScoring does.
        "history": [{key: one for key, one in _plain(epoch).items() if _is_plain(one)} for epoch in net.history],
    }


def restore(net: DetectorNet, state: Mapping[str, Any], anew: bool) -> None:
    """Restore a state in a net that has begun the state's phase.

    Parameters
    ----------
    net : DetectorNet
        The net, after ``begin``.
    state : Mapping
        From `snapshot`. Parts that it lacks begin anew.
    anew : bool
        Whether more epochs follow than were planned when the state was saved, so that the schedule and the patience
        begin again; otherwise they continue, too.
    """
    if state.get("module"):
        load_weights(net.module_, state["module"])
    if state.get("optimizer") == type(net.optimizer_).__name__:
        pairs = [(getattr(net, name), state["optimizers"][name]) for name in net.optimizer_names]
        fits = all(_fits(optimizer, saved, net.module_) for optimizer, saved in pairs)
        if not (fits or anew):
            raise ValueError("the optimizer has other groups of parameters, or other options")
        # A changed optimiser begins anew, as one of another class does.
        for optimizer, saved in pairs if fits else ():
            _load_optimizer(optimizer, saved)
    if net.average is not None and state.get("average"):
        net.average.n_updates = state["average"]["n_updates"]
        net.average.state = _moved(state["average"]["state"], net.device)
    if net.memory is not None and state.get("memory") is not None:
        net.memory.load_state_dict(state["memory"])
    net.queue = state.get("queue")
    net.best_loss_ = state.get("best_loss", math.inf)
    if anew:
        net.n_epochs_before = net.n_done
    else:
        net.n_batches_, net.n_epochs_before = state["n_batches"], state["n_epochs_before"]
        if net.held_out is not None:
            net.held_out.load_state_dict(_moved(state["held_out"], net.device))
    if state.get("random") is not None:
        _set_random_state(state["random"], net.device)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights and buffers of a state into a module; its frozen weights stay as they are."""
    module.load_state_dict(module.state_dict() | dict(weights))


# Options of torch's optimisers on which it does not depend what an optimiser remembers of a parameter.
_NOT_REMEMBERED = {"lr", "weight_decay", "decoupled_weight_decay", "nesterov", "maximize"}
_NOT_REMEMBERED |= {"foreach", "fused", "capturable", "differentiable"}


def _optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> State:
    """Return the state of an optimiser, with the names of the parameters in each of its groups."""
    return {**_plain(optimizer.state_dict()), "names": _names(optimizer, module)}


def _names(optimizer: torch.optim.Optimizer, module: nn.Module) -> list[list[str]]:
    """Return the names of the parameters in each group of an optimiser."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    # A user's optimiser may train something of its own, too.
    return [[names.get(id(parameter), "") for parameter in group["params"]] for group in optimizer.param_groups]


def _fits(optimizer: torch.optim.Optimizer, state: State, module: nn.Module) -> bool:
    """Return whether an optimiser of the same class can load a state: whether it remembers the same numbers."""
    names, groups, saved = _names(optimizer, module), optimizer.param_groups, state["param_groups"]
    # States of earlier versions lack the names.
    if len(groups) != len(saved) or state.get("names", names) != names:
        return False
    return all(_switches(today, today) == _switches(today, one) for today, one in zip(groups, saved, strict=True))


def _switches(group: Mapping[str, Any], of: Mapping[str, Any]) -> dict[str, bool]:
    """Return the options of a group that may shape what an optimiser remembers, as found in ``of``.

    Such an option is on or off ("amsgrad", "centered"), or zero or not ("momentum").
    """
    found = {name: of.get(name) for name, value in group.items() if isinstance(value, (bool, int, float))}
    return {name: bool(value) for name, value in found.items() if name not in _NOT_REMEMBERED}


def _load_optimizer(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Load an optimiser's state, but keep the present learning rate and other settings."""
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict({key: part for key, part in copy.deepcopy(state).items() if key != "names"})
    for group, today in zip(optimizer.param_groups, settings, strict=True):
        group.update(today)


def _random_state(device: str) -> State:
    """Return the states of the fit's generators, and of torch's global ones, which a user's network may use."""
    kind = torch.device(device)
    found: State = {"fit": drawn_so_far()}
    if drawn_alone():
        return found
    found["cpu"] = torch.random.get_rng_state()
    if kind.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(kind)
    if kind.type == "mps":
        found["mps"] = torch.mps.get_rng_state()
    return found


def _set_random_state(state: State, device: str) -> None:
    """Restore the states of the generators; those of another device begin anew."""
    kind = torch.device(device)
    draw_on({name: one for name, one in state["fit"].items() if torch.device(name).type in ("cpu", kind.type)})
    if drawn_alone() or "cpu" not in state:
        return
    torch.random.set_rng_state(state["cpu"])
    if kind.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], kind)
    if kind.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def _plain(value: Any) -> Any:
    """Return a copy with tensors on the CPU, and numbers of numpy as Python's."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        # A file without code holds no other types of lists and tuples.
        return (list if isinstance(value, list) else tuple)(map(_plain, value))
    return value


def _is_plain(value: Any) -> bool:
    """Return whether a file without code can hold this entry of a history."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str)


def _moved(value: Any, device: str) -> Any:
    """Return a copy with tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device, copy=True)
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    return value
