"""A small convolutional classifier for grey images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .products import EvenLinear
from .randomness import Dropout


class SmallCNN(nn.Sequential):
    """Apply two 3x3 convolutions, each with ReLU and 2x2 max-pooling, then a hidden layer and a linear one.

    Parameters
    ----------
    image_shape : tuple (C, H, W)
        Shape of the images, of any size.
    out_features : int
        Number of outputs.
    channels : sequence of int, default=(32, 64)
        Filters of the convolutions: one convolution for each entry.
    hidden_size : int, default=128
        Width of the hidden layer.
    dropout : float, default=0.0
        Share of values dropped after the convolutions and after the hidden layer.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int,
        channels: Sequence[int] = (32, 64),
        hidden_size: int = 128,
        dropout: float = 0.0,
    ):
        layers: list[nn.Module] = []
        width, height, breadth = image_shape
        for channel in channels:
            # Sides are rounded up, so that an image of a single pixel keeps its pixel.
            layers += [nn.Conv2d(width, channel, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
            width, height, breadth = channel, -(-height // 2), -(-breadth // 2)
        layers += [nn.Flatten(), Dropout(dropout)]
        layers += [EvenLinear(width * height * breadth, hidden_size), nn.ReLU(), Dropout(dropout)]
        super().__init__(*layers, EvenLinear(hidden_size, out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of shape (n, out_features)."""
        # With the channels of a pixel side by side, max-pooling is several times as fast on a CPU. Of one channel, both
        # arrangements are the same to torch, which then chooses the other one.
        first, *others = self
        x = first(x.contiguous(memory_format=torch.channels_last)).contiguous(memory_format=torch.channels_last)
        for layer in others:
            x = layer(x)
        return x
