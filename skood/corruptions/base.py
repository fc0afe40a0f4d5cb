"""What all corruptions share: checks, seeds, constants by the size of the images, chunks and rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import update_wrapper
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

Generators = Sequence[np.random.Generator]

# Smallest shorter side -> side of the published images whose constants are used. The limits are the geometric means of
# neighbouring published sides.
_PUBLISHED_SIDES = {0: 32, 46: 64, 120: 224}
_SMALLEST_SIDE = 8
# Images are corrupted in chunks of this many values, 8 MiB of float64, so that memory does not grow with X.
_VALUES_PER_CHUNK = 2**20


def _checked_images(X: ArrayLike) -> np.ndarray:
    """Return X as an array; raise an error if it does not hold uint8 images."""
    X = np.asarray(X)
    if X.dtype != np.uint8:
        raise ValueError(
            f"X holds {X.dtype}, but corruptions are for uint8 images: for pixels in [0, 1] pass "
            f"np.rint(255 * X).astype(np.uint8), for pixels in [0, 255] X.astype(np.uint8)."
        )
    if X.ndim != 4 or X.shape[1] not in (1, 3):
        hint = "flattened ones take X.reshape(-1, C, H, W)"
        if X.ndim == 3:
            hint = "grey ones take X[:, None]"
        elif X.ndim == 4 and X.shape[3] in (1, 3):
            hint = "channels that come last take X.transpose(0, 3, 1, 2)"
        raise ValueError(f"X has shape {X.shape}. Images come as (n, C, H, W) with 1 or 3 channels; {hint}.")
    if len(X) == 0 or min(X.shape[2:]) < _SMALLEST_SIDE:
        raise ValueError(
            f"X has shape {X.shape}: there must be at least one image, {_SMALLEST_SIDE} x {_SMALLEST_SIDE} or larger."
        )
    return X


def published_side(images: np.ndarray) -> int:
    """Return the side of the published images whose constants are used."""
    shorter = min(images.shape[2:])
    return max(side for least, side in _PUBLISHED_SIDES.items() if shorter >= least)


def corruption(
    *, cifar: tuple[Any, ...], tiny: tuple[Any, ...], imagenet: tuple[Any, ...]
) -> Callable[[Callable], Callable]:
    """Return a decorator that makes a public corruption from a function.

    The decorated function takes images of float64 in [0, 1] of shape (n, C, H, W), the constants of the severity, and
    a generator for each image. It returns images of that shape, whose values may leave [0, 1]. The constants of the
    five severities are given for each publication.
    """
    by_side = {32: cifar, 64: tiny, 224: imagenet}

    def wrapped(arithmetic: Callable) -> Callable:
        """Wrap the arithmetic in what all corruptions share: checks, seeds, chunks and rounding."""

        def public(
            X: ArrayLike, severity: int = 1, random_state: int | np.random.RandomState | None = None
        ) -> np.ndarray:
            X = _checked_images(X)
            if not isinstance(severity, Integral) or isinstance(severity, bool) or not 1 <= severity <= 5:
                raise ValueError(f"severity={severity!r} must be an integer from 1 to 5.")
            constants = by_side[published_side(X)][severity - 1]
            # One generator for all would make an image's noise depend on what the images before it drew.
            seeds = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=len(X))
            corrupted = np.empty(X.shape, dtype=np.uint8)
            step = max(1, _VALUES_PER_CHUNK // math.prod(X.shape[1:]))
            for start in range(0, len(X), step):
                chunk = slice(start, start + step)
                generators = [np.random.default_rng(seed) for seed in seeds[chunk]]
                images = arithmetic(X[chunk] / 255, constants, generators)
                corrupted[chunk] = np.rint(255 * np.clip(images, 0, 1))
            return corrupted

        update_wrapper(public, arithmetic)
        # `help` and the documentation follow __wrapped__, and would show the signature of the arithmetic.
        del public.__wrapped__  # type: ignore[attr-defined]
        return public

    return wrapped
