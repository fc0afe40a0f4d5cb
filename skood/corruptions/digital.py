"""What processing does; the parameters and errors are those of `skood.corruptions.corrupt`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from .base import Generators, corruption, published_side
from .pieces import blurred, drawn, resampled


@corruption(
    cifar=(0.75, 0.5, 0.4, 0.3, 0.15),
    tiny=(0.4, 0.3, 0.2, 0.1, 0.05),
    imagenet=(0.4, 0.3, 0.2, 0.1, 0.05),
)
def contrast(images: np.ndarray, factor: float, generators: Generators) -> np.ndarray:
    """Move each channel of an image towards its mean."""
    means = images.mean((2, 3), keepdims=True)
    return means + factor * (images - means)


@corruption(
    cifar=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    tiny=((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
    imagenet=((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
)
def elastic_transform(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Distort the image by an affine map that moves three points at random, then move every pixel by smooth noise.

    The strength and the width of the noise and the distance by which the points move are shares of the shorter side.
    """
    n, _, *sides = images.shape
    strength, sigma, reach = (min(sides) * constant for constant in constants)
    if published_side(images) == 224:
        # Published in shares of 244 pixels, a slip of the authors for 224, which made the published images.
        strength, sigma, reach = (244 / 224 * length for length in (strength, sigma, reach))
    center, half = np.array(sides) // 2, min(sides) // 3
    points = center + half * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + drawn(generators, lambda generator: generator.uniform(-reach, reach, (3, 2)))
    # The map is solved for in the inverse direction, from the moved points to the original ones: for each pixel of the
    # result it says where in the image to look.
    source = np.linalg.solve(np.dstack([moved, np.ones((n, 3))]), np.broadcast_to(points, (n, 3, 2)).astype(float))
    places = np.indices(sides)
    origins = np.einsum("ihw,nij->njhw", places, source[:, :2]) + source[:, 2, :, None, None]
    noise = drawn(generators, lambda generator: generator.uniform(-1, 1, (2, *sides)))
    noise = strength * blurred(noise, sigma, mode="reflect", truncate=3)
    return resampled(resampled(images, origins, "mirror"), places + noise, "reflect")


@corruption(
    cifar=(0.95, 0.9, 0.85, 0.75, 0.65),
    tiny=(0.9, 0.8, 0.7, 0.6, 0.5),
    imagenet=(0.6, 0.5, 0.4, 0.3, 0.25),
)
def pixelate(images: np.ndarray, share: float, generators: Generators) -> np.ndarray:
    """Reduce the image to a share of its sides and enlarge it again: each pixel becomes the mean of its block."""
    rows, columns = (_block_means(side, int(side * share)) for side in images.shape[2:])
    return rows @ images @ columns.T


def _block_means(side: int, n_blocks: int) -> np.ndarray:
    """Return the matrix (side, side) that replaces each pixel of an axis by the mean of its block."""
    # A pixel belongs to the block that holds its centre, or to the first of two if the centre lies on their boundary.
    # Computed in integers, because rounding would decide at the boundaries.
    blocks = ((2 * np.arange(side) + 1) * n_blocks - 1) // (2 * side)
    together = blocks[:, None] == blocks
    return together / together.sum(1)


@corruption(
    cifar=(80, 65, 58, 50, 40),
    tiny=(65, 58, 50, 40, 25),
    imagenet=(25, 18, 15, 10, 7),
)
def jpeg_compression(images: np.ndarray, quality: int, generators: Generators) -> np.ndarray:
    """Compress with JPEG at this quality and read the result; needs Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("jpeg_compression needs Pillow: pip install 'skood[images]'.") from error
    compressed = np.empty_like(images)
    for image, out in zip(np.rint(255 * images).astype(np.uint8), compressed, strict=True):
        file = io.BytesIO()
        # Pillow's grey images have no axis of channels.
        pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        read = np.asarray(Image.open(file))
        out[:] = (read if read.ndim == 2 else read.transpose(2, 0, 1)) / 255
    return compressed
