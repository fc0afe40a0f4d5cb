"""Make the module that fits the rows from what a user gives as ``network`` or ``classifier``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .cnn import SmallCNN
from .mlp import MLP, ResidualMLP
from .probe import trial
from .resnet import IMAGENET_BLOCKS, ImageNetResNet, ResNet, resnet_size
from .wide_resnet import WideResNet, wide_resnet_size

# A name, an instance, or what builds one: a class or a function.
Network: TypeAlias = str | nn.Module | Callable[..., Any]


def make_network(
    network: Network,
    named: Mapping[str, Callable[..., Any]],
    in_shape: tuple[int, ...],
    out_features: int | tuple[int, int, int],
    what: str = "network",
) -> nn.Module:
    """Return the module that an estimator's ``network`` stands for, checked to map (n, *in_shape) to (n, out_features).

    Parameters
    ----------
    network : str, torch.nn.Module, class or callable
        A key of ``named``; an instance, of which a copy is taken; or a class or factory. Named and other builders are
        called with ``(n_features, out_features)`` for vectors and ``((C, H, W), out_features)`` for images.
    named : mapping of str to callable
        Builders of the networks that have a name.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    out_features : int or tuple (C, H, W)
        Number of outputs of a row; a tuple for a module that gives images.
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
    # Trained in float32, scored in float64. The first trial also gives lazy layers their shapes.
    for dtype in (torch.float32, torch.float64):
        result = trial(module, in_shape, dtype, what)
        shape = tuple(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
        expected = (2, *(out_features if isinstance(out_features, tuple) else (out_features,)))
        if shape != expected:
            raise ValueError(f"{what} maps {(2, *in_shape)} to {shape}; it must give {expected}.")
    return module


def make_classifier(
    network: Network,
    in_shape: tuple[int, ...],
    out_features: int,
    *,
    hidden_sizes: Sequence[int],
    dropout: float,
    what: str = "network",
) -> nn.Module:
    """Return the classifier of vectors or images that an estimator's ``network`` stands for.

    Parameters
    ----------
    network : str, torch.nn.Module, class or callable
        "mlp" or "residual" for vectors; "cnn", "wrn-D-K", "resnet-D-W", "resnet-18" or "resnet-34" for images; "auto"
        is "residual", "cnn" for images of one channel, "wrn-16-2" for others. Or as for `make_network`.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    out_features : int
        Number of logits.
    hidden_sizes : sequence of int
        Widths of the hidden layers of "mlp", and of the blocks of "residual".
    dropout : float
        Share of values dropped in training; the "resnet-" networks have no dropout.
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
    named: dict[str, Callable[..., Any]]
    if vectors:
        named = {
            "mlp": partial(MLP, hidden_sizes=hidden_sizes, dropout=dropout),
            "residual": partial(ResidualMLP, hidden_sizes=hidden_sizes, dropout=dropout),
        }
    else:
        named = {"cnn": partial(SmallCNN, dropout=dropout)}
        named |= {name: partial(ImageNetResNet, n_blocks=blocks) for name, blocks in IMAGENET_BLOCKS.items()}
        if isinstance(network, str) and (wide_size := wide_resnet_size(network)):
            depth, widen = wide_size
            named[network] = partial(WideResNet, depth=depth, widen=widen, dropout=dropout)
        elif isinstance(network, str) and (size := resnet_size(network)):
            depth, width = size
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
