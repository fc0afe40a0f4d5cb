"""Weather and light; the parameters and errors are those of `skood.corruptions.corrupt`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Generators, corruption
from .pieces import drawn, ice_ferns, length_scale, motion_blurred, plasma, zoomed


@corruption(
    cifar=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    tiny=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    ),
    imagenet=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
)
def snow(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Add falling flakes, the same flakes turned upside down, and whiten the scene.

    The flakes' trails scale with the shorter side. The scene is whitened by means of the grey image; an image of one
    channel is its own grey image.
    """
    mean, deviation, zoom, threshold, radius, sigma, kept = constants
    flakes = drawn(generators, lambda generator: generator.normal(mean, deviation, (1, *images.shape[2:])))
    flakes = zoomed(flakes, zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    angles = drawn(generators, lambda generator: generator.uniform(-135, -45))
    flakes = motion_blurred(flakes, length_scale(images) * radius, length_scale(images) * sigma, angles)
    grey = images
    if images.shape[1] == 3:
        # Of three equal channels, 0.299 * red + 0.587 * green + 0.114 * blue would differ in the last bits.
        red, green, blue = np.split(images, 3, axis=1)
        grey = green + 0.299 * (red - green) + 0.114 * (blue - green)
    scene = kept * images + (1 - kept) * np.maximum(images, 1.5 * grey + 0.5)
    return scene + flakes + flakes[:, :, ::-1, ::-1]


@corruption(
    cifar=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    tiny=((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
    imagenet=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
)
def frost(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Lay ice over the image: fern-like crystals on a haze.

    The original cuts the ice out of photographs; here it is drawn, and only the weights of image and ice are the
    original's. Results for this corruption cannot be compared with published ones.
    """
    kept, weight = constants
    height, width = images.shape[2:]
    haze, ferns = plasma(generators, height, width, decay=1.5), ice_ferns(generators, height, width)
    return kept * images + weight * (0.5 * haze + 0.5 * ferns)


@corruption(
    cifar=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    tiny=((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
    imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
)
def fog(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Add clouds, then scale the image so that the brightest value possible is the one that it had before."""
    density, decay = constants
    brightest = images.max((1, 2, 3), keepdims=True)
    height, width = images.shape[2:]
    return (images + density * plasma(generators, height, width, decay)) * brightest / (brightest + density)


@corruption(
    cifar=(0.05, 0.1, 0.15, 0.2, 0.3),
    tiny=(0.1, 0.2, 0.3, 0.4, 0.5),
    imagenet=(0.1, 0.2, 0.3, 0.4, 0.5),
)
def brightness(images: np.ndarray, added: float, generators: Generators) -> np.ndarray:
    """Raise the value of each pixel, its largest channel, and keep hue and saturation."""
    value = images.max(1, keepdims=True)
    brighter = np.minimum(value + added, 1)
    # A common factor keeps hue and saturation, which are ratios of channels. Black has none and becomes grey. The
    # maximum changes no other pixel: the smallest byte other than 0 is 1 / 255.
    return np.where(value > 0, images / np.maximum(value, 1 / 255) * brighter, brighter)
