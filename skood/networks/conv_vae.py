"""Encode images of any size by convolutions of stride 2, and decode them by the mirror image of these."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from .products import EvenLinear

# Sides are halved until the longer one has at most so many pixels: 28 -> 14 -> 7, 32 -> 16 -> 8 -> 4.
_SMALLEST_SIDE = 7


def strided_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes of an image and of the maps that the encoder makes of it, layer by layer.

    Each size is half of the one before, rounded up; the last one has at most 7 pixels per side.

    Parameters
    ----------
    height, width : int
        Sides of the image in pixels.

    Returns
    -------
    sizes : list of tuple (height, width)

    Examples
    --------
    >>> from skood.networks.conv_vae import strided_sizes
    >>> strided_sizes(28, 28), strided_sizes(32, 17)
    ([(28, 28), (14, 14), (7, 7)], [(32, 17), (16, 9), (8, 5), (4, 3)])
    """
    sizes = [(height, width)]
    while max(height, width) > _SMALLEST_SIDE:
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def _channels(channels: Sequence[int], n_maps: int) -> list[int]:
    """Return one number of channels for each map; the last given one is repeated."""
    return [channels[min(i, len(channels) - 1)] for i in range(n_maps)]


def _norm(width: int, batch_norm: bool) -> list[nn.Module]:
    """Return a list of the normalisation after a convolution, or an empty list."""
    return [nn.BatchNorm2d(width)] if batch_norm else []


class ConvEncoder(nn.Sequential):
    """Apply convolutions of stride 2, each with ReLU, down to at most 7 pixels per side; then linear layers.

    Parameters
    ----------
    image_shape : tuple (C, H, W)
        Shape of the images, of any size.
    out_features : int
        Number of outputs.
    channels : sequence of int, default=(32, 64, 128)
        Filters of the first, second, ... convolution. Further convolutions have as many as the last number.
    kernel_size : {3, 4, 5}, default=5
        Side of the filters. Those of 3 or 5 pixels have a centre; DCGAN uses 4.
    hidden_size : int or None, default=256
        Width of a hidden linear layer. None adds no such layer.
    batch_norm : bool, default=False
        Whether to normalise after each convolution.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int,
        channels: Sequence[int] = (32, 64, 128),
        kernel_size: int = 5,
        hidden_size: int | None = 256,
        batch_norm: bool = False,
    ):
        width, *size = image_shape
        sizes = strided_sizes(*size)
        layers: list[nn.Module] = []
        # There is one more size than convolutions: the last is that of the final maps.
        for out_width, before in zip(_channels(channels, len(sizes) - 1), sizes, strict=False):
            layers += [*_down(width, out_width, kernel_size, before), *_norm(out_width, batch_norm), nn.ReLU()]
            width = out_width
        layers.append(nn.Flatten())
        n_features = width * math.prod(sizes[-1])
        if hidden_size is not None:
            layers += [EvenLinear(n_features, hidden_size), nn.ReLU()]
            n_features = hidden_size
        super().__init__(*layers, EvenLinear(n_features, out_features))


class ConvDecoder(nn.Sequential):
    """Apply the mirror image of `ConvEncoder`: linear layers, then transposed convolutions of stride 2.

    After the last convolution there is neither normalisation nor ReLU.

    Parameters
    ----------
    in_features : int
        Number of inputs.
    image_shape : tuple (C, H, W)
        Shape of the images that it returns, of any size.
    channels, kernel_size, hidden_size, batch_norm
        The parameters of the encoder that it mirrors.
    """

    def __init__(
        self,
        in_features: int,
        image_shape: tuple[int, int, int],
        channels: Sequence[int] = (32, 64, 128),
        kernel_size: int = 5,
        hidden_size: int | None = 256,
        batch_norm: bool = False,
    ):
        n_channels, *size = image_shape
        sizes = strided_sizes(*size)
        widths = [n_channels, *_channels(channels, len(sizes) - 1)]
        layers: list[nn.Module] = []
        if hidden_size is not None:
            layers += [EvenLinear(in_features, hidden_size), nn.ReLU()]
            in_features = hidden_size
        layers += [
            EvenLinear(in_features, widths[-1] * math.prod(sizes[-1])),
            nn.Unflatten(1, (widths[-1], *sizes[-1])),
        ]
        for place in range(len(sizes) - 1, 0, -1):
            layers += [*_norm(widths[place], batch_norm), nn.ReLU()]
            layers += _up(widths[place], widths[place - 1], kernel_size, sizes[place - 1])
        super().__init__(*layers)


def _down(width: int, out_width: int, kernel_size: int, size: tuple[int, int]) -> list[nn.Module]:
    """Return a convolution that halves both sides, rounded up, preceded by the padding that it needs."""
    # An even kernel has no centre. To round up, odd sides need one more row or column, which is added at the end.
    odd = [side % 2 if kernel_size % 2 == 0 else 0 for side in size]
    pad = [nn.ZeroPad2d((0, odd[1], 0, odd[0]))] if any(odd) else []
    return [*pad, nn.Conv2d(width, out_width, kernel_size, stride=2, padding=(kernel_size - 1) // 2)]


def _up(width: int, out_width: int, kernel_size: int, size: tuple[int, int]) -> list[nn.Module]:
    """Return a transposed convolution that undoes the halving of maps of this size."""
    padding = (kernel_size - 1) // 2
    if kernel_size % 2:
        extra = (1 - size[0] % 2, 1 - size[1] % 2)
        return [nn.ConvTranspose2d(width, out_width, kernel_size, stride=2, padding=padding, output_padding=extra)]
    up = nn.ConvTranspose2d(width, out_width, kernel_size, stride=2, padding=padding)
    # The row or column that `_down` added is cut off again.
    odd = [side % 2 for side in size]
    return [up, nn.ZeroPad2d((0, -odd[1], 0, -odd[0]))] if any(odd) else [up]
