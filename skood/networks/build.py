"""From what a user gives as ``network`` or ``classifier`` to a module that fits the rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def make_network(
    network, named: Mapping[str, Callable], in_shape: tuple[int, ...], out_features: int, what: str = "network"
) -> nn.Module:
    """The module that an estimator's ``network`` stands for, checked to map (n, *in_shape) to (n, out_features).

    Parameters
    ----------
    network : str, torch.nn.Module, class or callable
        A key of ``named``; an instance, of which a copy is taken; or a class or factory. Named and other builders are
        called with ``(n_features, out_features)`` for vectors and ``((C, H, W), out_features)`` for images.
    named : mapping of str to callable
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    out_features : int
    what : str, default="network"
        Name of the parameter, for messages.

    Returns
    -------
    module : torch.nn.Module

    Raises
    ------
    ValueError
        If the module does not take rows of that shape or gives another one.
    """
    if isinstance(network, nn.Module):
        module = copy.deepcopy(network)
    else:
        build = named[network] if isinstance(network, str) else network
        module = build(in_shape[0] if len(in_shape) == 1 else in_shape, out_features)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{what}={network!r} made a {type(module).__name__}, not a torch.nn.Module.")
    for dtype in (torch.float32, torch.float64):
        # Trained in float32, scored in float64. The first trial also gives lazy layers their shapes.
        result = _trial(module, in_shape, dtype, what)
        shape = tuple(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
        if shape != (2, out_features):
            raise ValueError(
                f"{what} maps {(2, *in_shape)} to {shape}; it must give (2, {out_features}): one output for each of "
                f"{out_features}."
            )
    return module


def _trial(module: nn.Module, in_shape: tuple[int, ...], dtype: torch.dtype, what: str):
    """What the module, in evaluation mode, makes of two rows; they differ, for softmax of zeros tells nothing."""
    was_training = module.training
    trial = (module if dtype is torch.float32 else copy.deepcopy(module).double()).eval()
    device = next(trial.parameters(), torch.empty(0)).device
    rows = torch.linspace(0, 1, 2, dtype=dtype, device=device).reshape(2, *[1] * len(in_shape)).expand(2, *in_shape)
    try:
        with torch.no_grad():
            return trial(rows)
    except Exception as error:
        kind = f"{in_shape[0]} features" if len(in_shape) == 1 else f"images of shape {in_shape}"
        raise ValueError(f"{what} does not take {dtype} rows of {kind}: {error}") from error
    finally:
        module.train(was_training)


class LogProbabilities(nn.Module):
    """A module that gives probabilities, made to give logits: softmax(log p) = p."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        probability = self.module(x)
        return probability.clamp_min(torch.finfo(probability.dtype).tiny).log()


def find_head(module: nn.Module, in_shape: tuple[int, ...], what: str = "network") -> str:
    """Name of the linear layer that a module runs last.

    Parameters
    ----------
    module : torch.nn.Module
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    what : str, default="network"
        Name of the parameter, for messages.

    Raises
    ------
    ValueError
        If it runs none, or does not take such rows.
    """
    ran, hooks = [], []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            hooks.append(layer.register_forward_hook(lambda *_, name=name: ran.append(name)))
    try:
        _trial(module, in_shape, torch.float32, what)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise ValueError(f"{what} has no linear layer (torch.nn.Linear) that could be its last.")
    return ran[-1]


def widen_head(module: nn.Module, in_shape: tuple[int, ...], out_features: int, n_more: int, what: str) -> nn.Module:
    """A copy of a classifier with ``n_more`` outputs after its ``out_features``, which stay as they are.

    Parameters
    ----------
    module : torch.nn.Module
        Its last linear layer gives the logits; a softmax or log-softmax after it is understood.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    out_features : int
        Outputs it must have.
    n_more : int
        New outputs, with torch's initial weights.
    what : str
        Name of the parameter, for messages.

    Returns
    -------
    module : torch.nn.Module
        Gives logits; gradients reach all of it.

    Raises
    ------
    ValueError
        If it has no linear layer, or another number of outputs.
    """
    module = copy.deepcopy(module).requires_grad_(True)
    name = find_head(module, in_shape, what)
    head = module.get_submodule(name)
    if head.out_features != out_features:
        raise ValueError(
            f"{what} has a last linear layer of {head.out_features} outputs, but there are {out_features} classes."
        )
    wider = nn.Linear(head.in_features, out_features + n_more, bias=head.bias is not None)
    wider.to(device=head.weight.device, dtype=head.weight.dtype)
    with torch.no_grad():
        wider.weight[:out_features] = head.weight
        if head.bias is not None:
            wider.bias[:out_features] = head.bias
    if name:
        module.set_submodule(name, wider)
    else:
        module = wider
    result = _trial(module, in_shape, torch.float32, what)
    if isinstance(result, Tensor) and (result >= 0).all() and torch.allclose(result.sum(1), torch.ones(1)):
        module = LogProbabilities(module)
    return make_network(module, {}, in_shape, out_features + n_more, what)
