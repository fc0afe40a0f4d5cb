"""Residual networks: those that residual adapters were designed for, and those of ImageNet.

Rebuffi, Bilen & Vedaldi, "Learning multiple visual domains with residual adapters" (2017); He, Zhang, Ren & Sun,
"Deep Residual Learning for Image Recognition" (2016).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .products import EvenLinear

# Number of blocks in each stage of the networks of ImageNet, and whether these are bottlenecks.
IMAGENET_NETWORKS: dict[str, tuple[tuple[int, int, int, int], bool]] = {
    "resnet-18": ((2, 2, 2, 2), False),
    "resnet-34": ((3, 4, 6, 3), False),
    "resnet-50": ((3, 4, 6, 3), True),
}
# From this shorter side in pixels on, images are large: the stem of the networks of ImageNet divides sides by four.
LARGE_SIDE = 96
# Outputs of a bottleneck for each channel inside it.
_BOTTLENECK_FACTOR = 4


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
            x = torch.cat([x, x.new_zeros(x.shape[0], self.n_new, *x.shape[2:])], 1)
        return x


class ResNet(nn.Module):
    """Apply a 3x3 stem, three stages of basic blocks, BN - ReLU, global average pooling and a linear layer.

    The stem has w channels, the stages 2w, 4w and 8w. With four blocks a stage it has 26 layers: the ResNet-26 of the
    papers on residual adapters, whose width is 32.

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
        # No ReLU after the stem and one after the last norm, as in the authors' network.
        y = self.blocks(self.stem_norm(self.stem(x)))
        return self.head(functional.relu(self.norm(y)).mean((2, 3)))


class _ImageNetBlock(nn.Module):
    """Apply two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1 ones, add the input, apply ReLU.

    If the shape changes, the shortcut has a 1x1 convolution. BN follows each convolution, and a ReLU each but the last.
    Layers have the names of torchvision's.
    """

    def __init__(self, width: int, inner_width: int, stride: int, bottleneck: bool):
        super().__init__()
        self.out_width = inner_width * (_BOTTLENECK_FACTOR if bottleneck else 1)
        if bottleneck:
            self.conv1 = nn.Conv2d(width, inner_width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(inner_width)
            # In networks with published weights the 3x3 convolution has the stride, not the first 1x1 convolution.
            self.conv2 = nn.Conv2d(inner_width, inner_width, 3, stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(inner_width)
            self.conv3 = nn.Conv2d(inner_width, self.out_width, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(self.out_width)
        else:
            self.conv1 = nn.Conv2d(width, inner_width, 3, stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(inner_width)
            self.conv2 = nn.Conv2d(inner_width, inner_width, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(inner_width)
        self.bottleneck = bottleneck
        self.downsample: nn.Module | None = None
        if stride > 1 or width != self.out_width:
            convolution = nn.Conv2d(width, self.out_width, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(self.out_width))

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of shape (n, out_width, H / stride, W / stride), rounded up."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(functional.relu(y)))
        return functional.relu((x if self.downsample is None else self.downsample(x)) + y)


class ImageNetResNet(nn.Module):
    """Apply a stem, four stages of residual blocks, global average pooling and a linear layer: ResNet-18, 34 or 50.

    The published stem is a 7x7 convolution and a max pooling, both of stride 2, which leave too few pixels of small
    images. Small images get the stem that is usual for them: a 3x3 convolution of stride 1.

    Layers have the names and shapes of torchvision's, so that weights published for torchvision load from a file::

        network = ImageNetResNet((3, 224, 224), 1000)
        network.load_state_dict(torch.load("resnet18.pth", weights_only=True))

    Parameters
    ----------
    image_shape : tuple (C, H, W)
        Shape of the images, of any size, because the last pooling is global.
    out_features : int
        Number of outputs.
    n_blocks : sequence of four int, default=(2, 2, 2, 2)
        Number of blocks in each stage. (3, 4, 6, 3) is ResNet-34, and with ``bottlenecks`` ResNet-50.
    width : int, default=64
        Channels of the stem and of the first stage; each further stage has twice as many as the one before. Bottlenecks
        return four times as many.
    bottlenecks : bool, default=False
        Whether blocks are bottlenecks of three convolutions, as in ResNet-50.
    strided_stem : bool or None, default=None
        Whether the stem is the published one, which divides the sides by four. None uses it for images with at least 96
        pixels on the shorter side.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int,
        n_blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        *,
        bottlenecks: bool = False,
        strided_stem: bool | None = None,
    ):
        super().__init__()
        if strided_stem is None:
            strided_stem = min(image_shape[1:]) >= LARGE_SIDE
        kernel_size, stride = (7, 2) if strided_stem else (3, 1)
        self.conv1 = nn.Conv2d(image_shape[0], width, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if strided_stem else nn.Identity()
        # The stages are attributes of their own, because torchvision names them so.
        out_width = width
        for stage, n in enumerate(n_blocks):
            blocks = []
            for number in range(n):
                first_stride = 2 if stage and not number else 1
                blocks.append(_ImageNetBlock(out_width, width * 2**stage, first_stride, bottlenecks))
                out_width = blocks[-1].out_width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.n_stages = len(n_blocks)
        self.fc = EvenLinear(out_width, out_features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of the convolutions anew; the other layers draw their own."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of shape (n, out_features)."""
        # With the channels of a pixel side by side, all that follows is faster.
        y = self.conv1(x).contiguous(memory_format=torch.channels_last)
        y = self.maxpool(functional.relu(self.bn1(y)))
        for stage in range(1, self.n_stages + 1):
            y = getattr(self, f"layer{stage}")(y)
        return self.fc(y.mean((2, 3)))


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
