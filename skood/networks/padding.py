"""Convolutions that pad images with their mirror images instead of zeros."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def pad_symmetric(x: Tensor, left: int, right: int, dim: int) -> Tensor:
    """Mirror a dimension at both ends, edges included: abc becomes ..cba abc cba.., as ``numpy.pad(mode="symmetric")``.

    Parameters
    ----------
    x : Tensor
        The tensor; it is not modified.
    left, right : int
        Number of values to add at the start and at the end; it may exceed the size of the dimension.
    dim : int
        The dimension.

    Returns
    -------
    x : Tensor
    """
    # Slices and flips have deterministic gradients on CUDA; indexing and torch's padding do not.
    size = x.shape[dim]
    while size and (left or right):
        # Each round adds the mirror image of at most the original size; the next one mirrors that again.
        before, after = min(left, size), min(right, size)
        start, end = x.narrow(dim, 0, before), x.narrow(dim, x.shape[dim] - after, after)
        x = torch.cat([start.flip(dim), x, end.flip(dim)], dim)
        left, right = left - before, right - after
    return x


class SymmetricConv2d(nn.Conv2d):
    """Convolve as `torch.nn.Conv2d`, but pad images with their mirror images, edge pixels included, instead of zeros.

    The parameters are those of `torch.nn.Conv2d`; ``padding_mode`` has no effect.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of images (n, C, H, W)."""
        for dim, (left, right) in zip((-2, -1), _added(self), strict=True):
            x = pad_symmetric(x, left, right, dim)
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def symmetric_padding(module: nn.Module) -> nn.Module:
    """Replace the zero padding of all convolutions of images by symmetric padding, in place.

    With zero padding, the share of zeros at the border would distinguish a patch from a whole image: appendix C of
    Ahmed & Courville, "Detecting Semantic Anomalies" (2020).

    Parameters
    ----------
    module : torch.nn.Module
        The module. Every `torch.nn.Conv2d` in it that pads with zeros becomes a `SymmetricConv2d` with the same
        weights, under the same names. Other paddings stay, as do layers that only pad.

    Returns
    -------
    module : torch.nn.Module
        The same module.

    Raises
    ------
    ValueError
        If a layer that pads with zeros is of a class derived from `torch.nn.Conv2d`, which may compute something else.
    """
    padded = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
        and not isinstance(layer, SymmetricConv2d)
        and layer.padding_mode == "zeros"
        and any(n for sides in _added(layer) for n in sides)
    ]
    # All layers are checked before the first is changed, so that an error leaves the module as it was.
    for layer in padded:
        if type(layer) is not nn.Conv2d:
            raise ValueError(
                f"network has a {type(layer).__name__}, and only a plain torch.nn.Conv2d can be given symmetric "
                f"padding. Pass one with padding=0, or with a padding_mode other than 'zeros'."
            )
    for layer in padded:
        # A new class and not a new layer: the object stays the same, with its hooks, wherever the module holds it.
        layer.__class__ = SymmetricConv2d
    return module


def _added(conv: nn.Conv2d) -> list[tuple[int, int]]:
    """Return the numbers of pixels that a convolution's padding adds before and after each dimension."""
    if conv.padding == "valid":
        return [(0, 0), (0, 0)]
    if conv.padding == "same":
        added = [dilation * (size - 1) for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True)]
        # As in torch, the odd pixel is added at the end.
        return [(n // 2, n - n // 2) for n in added]
    return [(int(n), int(n)) for n in conv.padding]
