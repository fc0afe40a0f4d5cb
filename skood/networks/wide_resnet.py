"""Wide residual networks: Zagoruyko & Komodakis, "Wide Residual Networks" (2016)."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional

from .products import EvenLinear
from .randomness import Dropout


class _Block(nn.Module):
    """Apply BN - ReLU - 3x3 - BN - ReLU - dropout - 3x3 and add the input.

    If the shape changes, a 1x1 convolution brings the input into the new shape.
    """

    def __init__(self, width: int, out_width: int, stride: int, dropout: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, out_width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_width)
        self.dropout = Dropout(dropout)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        self.shortcut = None
        if width != out_width or stride != 1:
            self.shortcut = nn.Conv2d(width, out_width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of shape (n, out_width, H / stride, W / stride), rounded up."""
        y = functional.relu(self.norm1(x))
        # If the shape changes, the shortcut gets the normalised input, as in the authors' network.
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = functional.relu(self.norm2(self.conv1(y)))
        return shortcut + self.conv2(self.dropout(y))


class WideResNet(nn.Module):
    """Apply WRN-d-k: a 3x3 stem of 16 channels, three groups of (d - 4) / 6 blocks, global pooling, a linear layer.

    The groups have 16k, 32k and 64k channels and strides 1, 2 and 2. The options after ``dropout`` are for larger
    images. Ahmed & Courville, "Detecting Semantic Anomalies" (2020), use the fourth group for STL-10; also the early
    pooling for ImageNet; and also the stride of the stem for contrastive predictive coding.

    Parameters
    ----------
    image_shape : tuple (C, H, W)
        Shape of the images, of any size, because the last pooling is global.
    out_features : int
        Number of outputs.
    depth : int
        d, the number of convolutions: 6n + 4. Those of a fourth group are not counted.
    widen : int
        k, the factor on the channels.
    dropout : float, default=0.0
        Share of values dropped between the two convolutions of a block.
    extra_group : bool, default=False
        Whether there is a fourth group, with as many blocks as each of the others and 64k channels. Its stride is 2, as
        in the two groups before it; the paper does not give it.
    early_pool : bool, default=False
        Whether the stem is followed by a 2x2 average pooling. Sides are rounded up.
    stem_stride : int, default=1
        Stride of the stem.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int,
        depth: int,
        widen: int,
        dropout: float = 0,
        *,
        extra_group: bool = False,
        early_pool: bool = False,
        stem_stride: int = 1,
    ):
        super().__init__()
        n_blocks, rest = divmod(depth - 4, 6)
        if rest or n_blocks < 1:
            raise ValueError(f"depth={depth} must be 6n + 4, such as 10, 16, 28 or 40.")
        self.stem = nn.Conv2d(image_shape[0], 16, 3, stem_stride, padding=1, bias=False)
        # Sides are rounded up, so that an image of a single pixel keeps its pixel.
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if early_pool else nn.Identity()
        widths = [16 * widen, 32 * widen, 64 * widen]
        blocks, width = [], 16
        # The first group keeps the size of the stem's maps; the first block of each further group halves it.
        for group, out_width in enumerate(widths + widths[-1:] if extra_group else widths):
            for number in range(n_blocks):
                blocks.append(_Block(width, out_width, 2 if group and not number else 1, dropout))
                width = out_width
        self.blocks = nn.Sequential(*blocks)
        self.n_patch_blocks = 3 * n_blocks
        self.norm = nn.BatchNorm2d(width)
        self.head = EvenLinear(width, out_features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of the convolutions anew; the other layers draw their own."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of shape (n, out_features)."""
        y = functional.relu(self.norm(self.blocks(self._stem_maps(x))))
        return self.head(y.mean((2, 3)))

    def patch_features(self, x: Tensor) -> Tensor:
        """Return features of patches for contrastive predictive coding: the output of the first three groups, averaged.

        Only the classifier uses a fourth group, the last normalisation and the head.

        Parameters
        ----------
        x : Tensor of shape (n, C, height, width)
            Patches of any size.

        Returns
        -------
        features : Tensor of shape (n, 64k)
        """
        return self.blocks[: self.n_patch_blocks](self._stem_maps(x)).mean((2, 3))

    def _stem_maps(self, x: Tensor) -> Tensor:
        """Return what the blocks get, with the channels of a pixel side by side, which makes all of them faster."""
        return self.pool(self.stem(x)).contiguous(memory_format=torch.channels_last)


def small_wide_resnet(image_shape: tuple[int, int, int], out_features: int, dropout: float = 0.0) -> WideResNet:
    """Return a wide residual network that trains on two cores: WRN-10-1 for grey images, WRN-10-2 for others.

    The first convolution halves the sides of images of 24 pixels and more; an average pooling after it halves those of
    48 pixels and more again.

    Parameters
    ----------
    image_shape : tuple (C, H, W)
        Shape of the images.
    out_features : int
        Number of outputs.
    dropout : float, default=0.0
        Share of values dropped between the two convolutions of a block.

    Returns
    -------
    module : WideResNet
    """
    side, widen = min(image_shape[1:]), 1 if image_shape[0] == 1 else 2
    stem_stride = 2 if side >= 24 else 1
    return WideResNet(image_shape, out_features, 10, widen, dropout, stem_stride=stem_stride, early_pool=side >= 48)


def wide_resnet_size(name: str) -> tuple[int, int] | None:
    """Return depth and widening factor in a name such as "wrn-40-2", or None if no network has that name.

    Parameters
    ----------
    name : str
        The name: "wrn-D-K", with D = 6n + 4.

    Returns
    -------
    depth_and_factor : tuple of int, or None

    Examples
    --------
    >>> from skood.networks.wide_resnet import wide_resnet_size
    >>> wide_resnet_size("wrn-28-10")
    (28, 10)
    """
    found = re.fullmatch(r"wrn-([1-9]\d*)-([1-9]\d*)", name)
    if not found or int(found[1]) < 10 or (int(found[1]) - 4) % 6:
        return None
    return int(found[1]), int(found[2])
