"""Residual networks of basic blocks: those for which residual adapters were made, and those of ImageNet.

Rebuffi, Bilen & Vedaldi, "Learning multiple visual domains with residual adapters" (2017); He, Zhang, Ren & Sun,
"Deep Residual Learning for Image Recognition" (2016).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# Number of blocks in each stage of the networks of ImageNet.
IMAGENET_BLOCKS = {"resnet-18": (2, 2, 2, 2), "resnet-34": (3, 4, 6, 3)}


class _Block(nn.Module):
    """Apply 3x3 - BN - ReLU - 3x3 - BN, add the input, apply ReLU.

    If the shape changes, the input is averaged over 2x2 pixels and gets channels of zeros, so that the shortcut has no
    parameters.
    """

    def __init__(self, width: int, out_width: int, stride: int):
        super().__init__()
        # Without biases, here and below: the normalisation that follows would subtract them again.
        self.conv1 = nn.Conv2d(width, out_width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_width)
        self.stride, self.n_new = stride, out_width - width

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of shape (n, out_width, H / stride, W / stride), rounded up."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.relu(self.shortcut(x) + y)

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the input in the shape of the output."""
        if self.stride > 1:
            # Sides are rounded up, as the convolution's are.
            x = functional.avg_pool2d(x, self.stride, ceil_mode=True)
        if self.n_new:
            x = torch.cat([x, x.new_zeros(len(x), self.n_new, *x.shape[2:])], 1)
        return x


class _ProjectingBlock(_Block):
    """Apply the layers of `_Block`, but with a 1x1 convolution and BN on the shortcut if the shape changes."""

    def __init__(self, width: int, out_width: int, stride: int):
        super().__init__(width, out_width, stride)
        self.projection: nn.Module = nn.Identity()
        if self.stride > 1 or self.n_new:
            convolution = nn.Conv2d(width, out_width, 1, stride, bias=False)
            self.projection = nn.Sequential(convolution, nn.BatchNorm2d(out_width))

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the input in the shape of the output."""
        return self.projection(x)


class ResNet(nn.Module):
    """Apply a 3x3 stem, three stages of basic blocks, BN - ReLU, global average pooling and a linear layer.

    The stem has w channels, the stages 2w, 4w and 8w. With four blocks a stage it has 26 layers: the ResNet-26 of the
    residual-adapter papers, whose width is 32.

    Parameters
    ----------
    image_shape : tuple (C, H, W)
        Shape of the images, of any size, because the last pooling is global.
    out_features : int
        Number of outputs.
    width : int, default=32
        w, the channels of the stem.
    n_blocks : int, default=4
        Number of blocks in a stage; the depth is 6 ``n_blocks`` + 2.
    strides : sequence of int, default=(2, 2, 2)
        Stride of the first block of each stage.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int,
        width: int = 32,
        n_blocks: int = 4,
        strides: Sequence[int] = (2, 2, 2),
    ):
        super().__init__()
        self.stem = nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        blocks = []
        for stride in strides:
            out_width = 2 * width
            for number in range(n_blocks):
                blocks.append(_Block(out_width if number else width, out_width, 1 if number else stride))
            width = out_width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, out_features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of the convolutions anew; the other layers draw their own."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of shape (n, out_features)."""
        # No ReLU after the stem and one after the last norm, as in the authors' network.
        y = self.blocks(self.stem_norm(self.stem(x)))
        return self.head(functional.relu(self.norm(y)).mean((2, 3)))


class ImageNetResNet(nn.Module):
    """Apply a 3x3 stem with BN - ReLU, four stages of basic blocks, global average pooling and a linear layer.

    These are ResNet-18 and ResNet-34 with the stem that is usual for images of 32 x 32. The published networks begin
    with a 7x7 convolution and a pooling that together divide the sides by four, which leaves too few pixels of small
    images. On large images the networks here are slow.

    Parameters
    ----------
    image_shape : tuple (C, H, W)
        Shape of the images, of any size, because the last pooling is global.
    out_features : int
        Number of outputs.
    n_blocks : sequence of four int, default=(2, 2, 2, 2)
        Number of blocks in each stage; (3, 4, 6, 3) is ResNet-34.
    width : int, default=64
        Channels of the stem and of the first stage; each further stage has twice as many as the one before.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int,
        n_blocks: Sequence[int] = IMAGENET_BLOCKS["resnet-18"],
        width: int = 64,
    ):
        super().__init__()
        self.stem = nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        blocks, out_width = [], width
        # The first stage keeps the size and the width of the stem.
        for stage, n in enumerate(n_blocks):
            out_width = out_width * 2 if stage else width
            for number in range(n):
                blocks.append(_ProjectingBlock(width, out_width, 2 if stage and not number else 1))
                width = out_width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, out_features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of shape (n, out_features)."""
        y = self.blocks(functional.relu(self.stem_norm(self.stem(x))))
        return self.head(y.mean((2, 3)))


def resnet_size(name: str) -> tuple[int, int] | None:
    """Return depth and width in a name such as "resnet-26-16", or None if no network has that name.

    Parameters
    ----------
    name : str
        The name: "resnet-D-W", with D = 6n + 2.

    Returns
    -------
    depth_and_width : tuple of int, or None

    Examples
    --------
    >>> from skood.networks.resnet import resnet_size
    >>> resnet_size("resnet-26-16")
    (26, 16)
    """
    found = re.fullmatch(r"resnet-([1-9]\d*)-([1-9]\d*)", name)
    if not found or int(found[1]) < 8 or (int(found[1]) - 2) % 6:
        return None
    return int(found[1]), int(found[2])
