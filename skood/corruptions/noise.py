"""Noise; the parameters and errors are those of `skood.corruptions.corrupt`."""

from __future__ import annotations

import numpy as np

from .base import Generators, corruption
from .pieces import drawn


@corruption(
    cifar=(0.04, 0.06, 0.08, 0.09, 0.10),
    tiny=(0.04, 0.08, 0.12, 0.15, 0.18),
    imagenet=(0.08, 0.12, 0.18, 0.26, 0.38),
)
def gaussian_noise(images: np.ndarray, deviation: float, generators: Generators) -> np.ndarray:
    """Add normal noise, the same standard deviation everywhere."""
    return images + deviation * drawn(generators, lambda generator: generator.standard_normal(images.shape[1:]))


@corruption(
    cifar=(500, 250, 100, 75, 50),
    tiny=(250, 100, 50, 30, 15),
    imagenet=(60, 25, 12, 5, 3),
)
def shot_noise(images: np.ndarray, photons: float, generators: Generators) -> np.ndarray:
    """Add Poisson noise, as when photons are counted: a white pixel has this number of photons on average."""
    counts = [generator.poisson(photons * image) for generator, image in zip(generators, images, strict=True)]
    return np.stack(counts) / photons


@corruption(
    cifar=(0.01, 0.02, 0.03, 0.05, 0.07),
    tiny=(0.01, 0.02, 0.05, 0.08, 0.14),
    imagenet=(0.03, 0.06, 0.09, 0.17, 0.27),
)
def impulse_noise(images: np.ndarray, share: float, generators: Generators) -> np.ndarray:
    """Set a share of the values to 0 or 1, each with probability 1/2 (salt and pepper)."""
    draws = drawn(generators, lambda generator: generator.random(images.shape[1:]))
    return np.where(draws < share / 2, 0, np.where(draws < share, 1, images))
