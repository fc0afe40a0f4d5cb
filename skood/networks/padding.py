"""Convolutions that pad images with their own mirror images, not with zeros."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def pad_symmetric(x: Tensor, left: int, right: int, dim: int) -> Tensor:
    """Mirror a dimension at both ends, edges included: abc becomes ..cba abc cba.., as ``numpy.pad(mode="symmetric")``.

    Parameters
    ----------
    x : Tensor
    left, right : int
        How much to add at the start and at the end; it may be more than there is.
    dim : int

    Returns
    -------
    x : Tensor
    """
    # Slices and flips have deterministic gradients on CUDA; indexing and torch's padding have not.
    size = x.shape[dim]
    while size and (left or right):
        # No more than the whole at a time: at the ends of whole mirror images one may mirror again.
        before, after = min(left, size), min(right, size)
        start, end = x.narrow(dim, 0, before), x.narrow(dim, x.shape[dim] - after, after)
        x = torch.cat([start.flip(dim), x, end.flip(dim)], dim)
        left, right = left - before, right - after
    return x


class SymmetricConv2d(nn.Conv2d):
    """Pad symmetrically, edge pixels included, instead of with zeros; otherwise `torch.nn.Conv2d`.

    Its parameters are those of `torch.nn.Conv2d`, but for ``padding_mode``, which has no effect.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of images (n, C, H, W)."""
        for dim, (left, right) in zip((-2, -1), _added(self), strict=True):
            x = pad_symmetric(x, left, right, dim)
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def symmetric_padding(module: nn.Module) -> nn.Module:
    """Replace zero padding of all convolutions of images by symmetric padding, in place.

    The ratio of border zeros to pixels then no longer tells a patch from an image: appendix C of the paper.

    Parameters
    ----------
    module : torch.nn.Module
        Every `torch.nn.Conv2d` in it that pads with zeros becomes a `SymmetricConv2d`; its weights and their names
        stay. Other paddings stay too, as do layers that only pad.

    Returns
    -------
    module : torch.nn.Module
        The same one.

    Raises
    ------
    ValueError
        If a layer that pads with zeros is of a class derived from `torch.nn.Conv2d`, for it may compute something else.
    """
    padded = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
        and not isinstance(layer, SymmetricConv2d)
        and layer.padding_mode == "zeros"
        and any(n for sides in _added(layer) for n in sides)
    ]
    for layer in padded:
        if type(layer) is not nn.Conv2d:
            raise ValueError(
                f"network has a {type(layer).__name__}, and only a plain torch.nn.Conv2d can be given symmetric "
                f"padding. Pass one with padding=0, or with a padding_mode other than 'zeros'."
            )
    for layer in padded:
        # The layer stays the same object, with its hooks, wherever it is held.
        layer.__class__ = SymmetricConv2d
    return module


def _added(conv: nn.Conv2d) -> list[tuple[int, int]]:
    """Return how many pixels a convolution's padding adds before and after each dimension."""
    if conv.padding == "valid":
        return [(0, 0), (0, 0)]
    if conv.padding == "same":
        added = [dilation * (size - 1) for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True)]
        # As torch: an odd pixel is added at the end.
        return [(n // 2, n - n // 2) for n in added]
    return [(int(n), int(n)) for n in conv.padding]
