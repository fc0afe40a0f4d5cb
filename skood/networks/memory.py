"""Arrange images and weights in memory with the channels last, unless a network cannot work with such maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .probe import dry_run, two_rows


class ChannelsFirst(nn.Module):
    """Give a module its images with the channels first in memory: a hook that runs before the module."""

    def forward(self, module: nn.Module, args: tuple) -> tuple:
        """Return the arguments of the module; images among them with the channels first in memory."""
        return tuple(_arranged(one, torch.contiguous_format) if isinstance(one, Tensor) else one for one in args)


def prefer_channels_last(module: nn.Module) -> nn.Module:
    """Arrange the weights of a module with the channels last, in place, unless `heed_views` found that it needs others.

    Parameters
    ----------
    module : torch.nn.Module
        The module. In this memory format convolutions are fastest, on CPUs too.

    Returns
    -------
    module : torch.nn.Module
        The same module.
    """
    if not _has_channels_first(module):
        _arrange(module, torch.channels_last)
    return module


def heed_views(module: nn.Module, in_shape: tuple[int, ...]) -> bool:
    """Find out whether a module can work with maps whose channels are last; if not, let it have them first, in place.

    ``maps.view(len(maps), -1)``, with which many networks turn maps into vectors, fails on maps with the channels last.
    Such a module keeps its weights with the channels first and gets a hook that does the same to its images, so that
    nobody who calls it, trains it or copies it needs to know.

    Parameters
    ----------
    module : torch.nn.Module
        The module, which nobody else uses now. It stays as it is if it can work with such maps, or does not take images
        of this shape at all.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).

    Returns
    -------
    first : bool
        Whether the module now gets its images with the channels first.
    """
    if _has_channels_first(module):
        return True
    before = [(tensor, tensor.data) for tensor in _tensors(module)]
    # A network of vectors may shape them into images by itself.
    no_images = len(in_shape) != 3 and all(values.ndim != 4 for _, values in before)
    if no_images:
        return False
    if not _runs(module, in_shape, torch.channels_last) and _runs(module, in_shape, torch.contiguous_format):
        module.register_forward_pre_hook(ChannelsFirst())
        return True
    for tensor, values in before:
        tensor.data = values
    return False


def _has_channels_first(module: nn.Module) -> bool:
    """Return whether a module, or a part of it, gets its images with the channels first."""
    hooks = (hook for part in module.modules() for hook in part._forward_pre_hooks.values())
    return any(isinstance(hook, ChannelsFirst) for hook in hooks)


def _runs(module: nn.Module, in_shape: tuple[int, ...], memory_format: Any) -> bool:
    """Arrange the weights of a module, and return whether it takes images that are arranged likewise."""
    _arrange(module, memory_format)
    try:
        dry_run(module, _arranged(two_rows(module, in_shape), memory_format))
    except Exception:  # of users' networks, any may be raised
        return False
    return True


def _arrange(module: nn.Module, memory_format: Any) -> None:
    """Arrange all weights and buffers of a module in memory, in place."""
    for tensor in _tensors(module):
        tensor.data = _arranged(tensor.data, memory_format)


def _arranged(tensor: Tensor, memory_format: Any) -> Tensor:
    """Return a tensor of four dimensions in a memory format; others, which have no channels last, as they are."""
    return tensor.to(memory_format=memory_format) if tensor.ndim == 4 else tensor


def _tensors(module: nn.Module) -> list[Tensor]:
    """Return the weights and buffers of a module."""
    return [*module.parameters(), *module.buffers()]
