"""From what a user gives as ``network`` or ``classifier`` to a module that fits the rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from .cnn import SmallCNN
from .mlp import MLP, ResidualMLP
from .resnet import IMAGENET_BLOCKS, ImageNetResNet, ResNet, resnet_size
from .wide_resnet import WideResNet, wide_resnet_size


def make_network(
    network,
    named: Mapping[str, Callable],
    in_shape: tuple[int, ...],
    out_features: int | tuple[int, int, int],
    what: str = "network",
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
    out_features : int or tuple (C, H, W)
        The latter for a module that gives images.
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
        if not callable(build):
            raise ValueError(f"{what} must be a name, a torch module, a class or a factory; got {network!r}.")
        module = build(in_shape[0] if len(in_shape) == 1 else in_shape, out_features)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{what}={network!r} made a {type(module).__name__}, not a torch.nn.Module.")
    for dtype in (torch.float32, torch.float64):
        # Trained in float32, scored in float64. The first trial also gives lazy layers their shapes.
        result = _trial(module, in_shape, dtype, what)
        shape = tuple(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
        expected = (2, *(out_features if isinstance(out_features, tuple) else (out_features,)))
        if shape != expected:
            raise ValueError(f"{what} maps {(2, *in_shape)} to {shape}; it must give {expected}.")
    return module


def make_classifier(
    network, in_shape: tuple[int, ...], out_features: int, *, hidden_sizes, dropout: float, what: str = "network"
) -> nn.Module:
    """The classifier of vectors or images that an estimator's ``network`` stands for.

    Parameters
    ----------
    network : str, torch.nn.Module, class or callable
        "mlp" or "residual" for vectors; "cnn", "wrn-D-K", "resnet-D-W", "resnet-18" or "resnet-34" for images; "auto"
        is "residual", "cnn" for images of one channel, "wrn-16-2" for others. Or as for `make_network`.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    out_features : int
    hidden_sizes : sequence of int
        Of "mlp" and "residual".
    dropout : float
        Of all of them but the "resnet-" ones, which have none.
    what : str, default="network"
        Name of the parameter, for messages.

    Returns
    -------
    module : torch.nn.Module

    Raises
    ------
    ValueError
        If there is no network of that name for such rows, or as `make_network`.
    """
    vectors = len(in_shape) == 1
    if isinstance(network, str) and network == "auto":
        network = "residual" if vectors else "cnn" if in_shape[0] == 1 else "wrn-16-2"
    if vectors:
        named = {
            "mlp": partial(MLP, hidden_sizes=hidden_sizes, dropout=dropout),
            "residual": partial(ResidualMLP, hidden_sizes=hidden_sizes, dropout=dropout),
        }
    else:
        named = {"cnn": partial(SmallCNN, dropout=dropout)}
        named |= {name: partial(ImageNetResNet, n_blocks=blocks) for name, blocks in IMAGENET_BLOCKS.items()}
        if isinstance(network, str) and wide_resnet_size(network) is not None:
            depth, widen = wide_resnet_size(network)
            named[network] = partial(WideResNet, depth=depth, widen=widen, dropout=dropout)
        elif isinstance(network, str) and resnet_size(network) is not None:
            depth, width = resnet_size(network)
            named[network] = partial(ResNet, width=width, n_blocks=(depth - 2) // 6)
    if isinstance(network, str) and network not in named:
        kind = "images"
        there_are = (
            "'cnn', 'wrn-D-K' with D = 6n + 4, as 'wrn-40-2', 'resnet-D-W' with D = 6n + 2, as 'resnet-26-32', "
            "'resnet-18' and 'resnet-34'"
        )
        if vectors:
            kind, there_are = "vectors", "'mlp' and 'residual'"
        raise ValueError(f"{what}={network!r} is none of those for {kind}: 'auto', {there_are}.")
    return make_network(network, named, in_shape, out_features, what)


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


def tap(module: nn.Module, name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What a module makes of the rows, and what it gave one of its layers on the way.

    Parameters
    ----------
    module : torch.nn.Module
    name : str
        Of the layer; "" is the module itself.
    rows : Tensor

    Returns
    -------
    result, taken : Tensor
        If the layer runs more than once, its last input.
    """
    taken = []
    hook = module.get_submodule(name).register_forward_pre_hook(lambda _, args: taken.append(args[0]))
    try:
        return module(rows), taken[-1]
    finally:
        hook.remove()


def class_weights(head: nn.Linear, n_classes: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Weight (n_classes, n_features) and bias (n_classes,) in float64 of what gives the first outputs of a layer."""
    weight = head.weight.detach()[:n_classes].double().cpu().numpy()
    bias = np.zeros(n_classes) if head.bias is None else head.bias.detach()[:n_classes].double().cpu().numpy()
    return weight / temperature, bias / temperature


def widen_head(
    module: nn.Module, in_shape: tuple[int, ...], n_given: int, n_kept: int, n_outputs: int, what: str
) -> nn.Module:
    """A copy of a classifier with new outputs after the first ones, which stay as they are.

    Parameters
    ----------
    module : torch.nn.Module
        Its last linear layer gives the logits; a softmax or log-softmax after it is understood.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    n_given : int
        Outputs it must have.
    n_kept : int
        Outputs to keep.
    n_outputs : int
        Outputs of the result; the new ones have torch's initial weights.
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
    if head.out_features != n_given:
        raise ValueError(f"{what} has a last linear layer of {head.out_features} outputs; there must be {n_given}.")
    wider = nn.Linear(head.in_features, n_outputs, bias=head.bias is not None)
    wider.to(device=head.weight.device, dtype=head.weight.dtype)
    with torch.no_grad():
        wider.weight[:n_kept] = head.weight[:n_kept]
        if head.bias is not None:
            wider.bias[:n_kept] = head.bias[:n_kept]
    if name:
        module.set_submodule(name, wider)
    else:
        module = wider
    result = _trial(module, in_shape, torch.float32, what)
    if isinstance(result, Tensor) and (result >= 0).all() and torch.allclose(result.sum(1).cpu(), torch.ones(2)):
        module = LogProbabilities(module)
    return make_network(module, {}, in_shape, n_outputs, what)
