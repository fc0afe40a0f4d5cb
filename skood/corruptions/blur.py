"""Blur; the parameters and errors are those of `skood.corruptions.corrupt`."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from .base import Generators, corruption, published_side
from .pieces import blurred, disk_means, drawn, length_scale, motion_blurred, scaled_kernel, taken, zoomed

# The least standard deviation of the trail of `motion_blur`, in pixels.
_SHORTEST_TRAIL = 1 / 3


@corruption(
    cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    tiny=((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
    imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
)
def defocus_blur(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Convolve with a disk whose rim is smoothed; radius and smoothing scale with the shorter side."""
    radius, smoothing = constants
    scale = length_scale(images)
    if scale == 1 or published_side(images) == 224:
        # The published smoothing reaches one pixel on each side, and two if the disk's radius is above 8.
        window = max(1, round(scale * (2 if radius > 8 else 1)))
        return _defocused(images, scale * radius, scale * smoothing, window)
    # A disk of few pixels has too few sizes: scaled by 7/8, a radius of 1 would leave one pixel. So what the published
    # blur makes of a point is scaled, as a picture is. The point's margins hold the widest disk, of radius 3.
    point = np.pad(np.ones((1, 1, 1, 1)), ((0, 0), (0, 0), (5, 5), (5, 5)))
    kernel = scaled_kernel(_defocused(point, radius, smoothing, window=1)[0, 0], scale)
    return ndimage.convolve(images, kernel[None, None], mode="mirror")


def _defocused(images: np.ndarray, radius: float, smoothing: float, window: int) -> np.ndarray:
    """Convolve with a disk of whole pixels and, within ``window`` pixels, a Gaussian."""
    # Without the addition, rounding could drop the outermost pixels of the disk, whose distance is the radius itself.
    disks = disk_means(images, radius + 1e-9)
    # Smoothing the image is the same as smoothing the disk, since both are symmetric and mirror what is beyond edges.
    return ndimage.gaussian_filter(disks, smoothing, axes=(-2, -1), mode="mirror", radius=window)


@corruption(
    cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    tiny=((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    imagenet=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
)
def glass_blur(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Move pixels around within a Gaussian blur, as frosted glass does; lengths scale with the shorter side.

    As in the published images, a pixel takes the value of a pixel near it. (The published code is meant to swap the
    two, but copies one of them.)
    """
    sigma, reach, n_rounds = constants
    sigma, reach = sigma * length_scale(images), max(1, round(reach * length_scale(images)))
    height, width = images.shape[2:]
    inner = np.s_[:, :, reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    rows, columns = np.indices((height, width))[inner[1:]]
    images = blurred(images, sigma)
    for _ in range(n_rounds):
        moves = drawn(generators, lambda generator: generator.integers(-reach, reach, (2, *rows.shape)))
        images[inner] = taken(images, (rows + moves[:, 0])[:, None], (columns + moves[:, 1])[:, None])
    return blurred(images, sigma)


@corruption(
    cifar=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    tiny=((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
    imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
)
def motion_blur(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Smear each image along a line up to 45 degrees off the horizontal; its length scales with the shorter side."""
    radius, sigma = (length_scale(images) * constant for constant in constants)
    # Of a shorter trail, as of severity 1 in images of 8 to 10 pixels, nothing would reach the next pixel.
    sigma = max(sigma, _SHORTEST_TRAIL)
    angles = drawn(generators, lambda generator: generator.uniform(-45, 45))
    return motion_blurred(images, radius, sigma, angles)


@corruption(
    cifar=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    tiny=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    imagenet=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
)
def zoom_blur(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Average the image and its enlargements in steps of 1 to 3 %, as a camera that moves forward sees it."""
    # np.arange as published: rounding decides whether the end is one of the factors; 1.06 is, 1.16 is not.
    end, step = constants
    # Sides are rounded to whole pixels. One of 8 grows from a factor of 1 + 0.5 / 8 on only, which severity 1 lacks.
    end = max(end, 1 + 0.5 / min(images.shape[2:]) + step)
    factors = np.arange(1, end, step)
    total = images.copy()
    # Image by image, because one image fits into the cache.
    for image, out in zip(images, total, strict=True):
        for factor in factors:
            out += zoomed(image, factor)
    return total / (len(factors) + 1)
