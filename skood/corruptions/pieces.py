"""Draw, blur, move and resample batches of images, as corruptions do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .base import published_side

# Side for which the widths of the lines of drawn ice are given.
_ICE_SIDE = 32
# The drawn ice of `frost`: number of crystals in an image, and of side branches on each side of a crystal's stem.
_FERNS = 12
_FRONDS = 8


def length_scale(images: np.ndarray) -> float:
    """Return the factor by which a length in pixels of the published images grows."""
    return min(images.shape[2:]) / published_side(images)


def drawn(generators: Sequence[np.random.Generator], draw: Callable) -> np.ndarray:
    """Draw once from each image's generator, and stack the results."""
    return np.stack([draw(generator) for generator in generators])


def blurred(images: np.ndarray, sigma: float, mode: str = "nearest", truncate: float = 4) -> np.ndarray:
    """Blur the last two axes by a Gaussian of standard deviation ``sigma``."""
    options: dict[str, Any] = {"mode": mode, "truncate": truncate}
    if sigma * truncate > min(images.shape[-2:]):
        # A kernel that is longer than the image is slow. As a matrix it has no more weights than there are pixels.
        rows, columns = (
            ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, **options) for side in images.shape[-2:]
        )
        return rows @ images @ columns.T
    return ndimage.gaussian_filter(images, sigma, axes=(-2, -1), **options)


def taken(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Take pixels of each image at its own rows and columns, which broadcast to (n, 1, H, W)."""
    n, n_channels = images.shape[:2]
    return images[np.arange(n)[:, None, None, None], np.arange(n_channels)[:, None, None], rows, columns]


def disk_means(images: np.ndarray, radius: float) -> np.ndarray:
    """Average each pixel's disk; what lies beyond the edge is mirrored."""
    reach, (height, width) = math.floor(radius), images.shape[2:]
    total, n_pixels = np.zeros_like(images), 0
    # A disk is a pile of rows. The sum over a row is a difference of cumulative sums, however long the row is, where a
    # convolution multiplies by each pixel of the kernel.
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach + 1, reach)), mode="reflect")
    padded[..., 0] = 0
    sums = np.cumsum(padded, axis=-1)
    for down in range(-reach, reach + 1):
        half = math.floor(math.sqrt(radius**2 - down**2))
        rows = sums[:, :, reach + down : reach + down + height]
        first, last = reach - half, reach + half + 1
        total += rows[..., last : last + width] - rows[..., first : first + width]
        n_pixels += 2 * half + 1
    return total / n_pixels


def scaled_kernel(kernel: np.ndarray, scale: float) -> np.ndarray:
    """Return a square kernel of odd side as it is in an image whose sides are ``scale`` times as long.

    The weight of each pixel is spread evenly over a square of side ``scale``, or 1 if that is less, and pixels take
    what falls on them.
    """
    reach, spread = len(kernel) // 2, max(1.0, scale)
    wide = math.ceil(scale * reach + spread / 2 - 0.5)
    distances = np.abs(np.arange(-wide, wide + 1)[:, None] - scale * np.arange(-reach, reach + 1))
    # Of two intervals, of lengths 1 and ``spread``, the part of the second that lies in the first.
    shares = np.clip((1 + spread) / 2 - distances, 0, 1) / spread
    return shares @ kernel @ shares.T


def motion_blurred(images: np.ndarray, radius: float, sigma: float, angles: np.ndarray) -> np.ndarray:
    """Blur each image along a line, at an angle of its own in degrees.

    As ImageMagick does, which made the published images: the weights are half a Gaussian, steps are rounded to whole
    pixels, and the edges of the image are extended.
    """
    height, width = images.shape[2:]
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    blurred = np.zeros_like(images)
    reach = int(steps[-1])
    for image, radians, out in zip(images, np.deg2rad(angles), blurred, strict=True):
        # Shifted views of a padded image: taking pixels by their indices is ten times as slow.
        padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        # Halves are rounded down, as ImageMagick does; np.rint would round them to even numbers.
        downs, rights = (reach + np.ceil(steps * part - 0.5).astype(int) for part in (np.sin(radians), np.cos(radians)))
        for down, right, weight in zip(downs, rights, weights, strict=True):
            out += weight * padded[:, down : down + height, right : right + width]
    return blurred


def zoomed(images: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge the middle of each image, by linear interpolation, to the image's size."""
    # Linear interpolation is separable: first along the rows' axis, then along the columns'.
    for axis in (-2, -1):
        side = images.shape[axis]
        places = _zoomed_places(side, factor)
        before = np.minimum(places.astype(int), side - 2)
        weights = (places - before).reshape(-1, *[1] * (-1 - axis))
        left, between = np.take(images, before, axis), np.take(images, before + 1, axis)
        # In place: allocating memory for intermediate arrays took half of the time.
        between -= left
        between *= weights
        between += left
        images = between
    return images


def _zoomed_places(side: int, factor: float) -> np.ndarray:
    """Return where along an axis each pixel of the zoomed axis is looked up."""
    # The same rounding as in the published code: crop, enlarge the crop, and trim what is too much on both sides.
    crop = math.ceil(side / factor)
    grown = round(crop * factor)
    first = (grown - side) // 2
    return (side - crop) // 2 + np.linspace(0, crop - 1, grown)[first : first + side]


def plasma(generators: Sequence[np.random.Generator], height: int, width: int, decay: float) -> np.ndarray:
    """Draw clouds in [0, 1] of shape (n, 1, height, width) by the diamond-square algorithm, on a torus.

    To the mean of four neighbours a random number is added, which shrinks by ``decay`` squared from one scale to the
    next.
    """
    # The algorithm halves a square, so it needs a power of two; the image is cut out of it at the end.
    size = 2 ** math.ceil(math.log2(max(height, width)))
    wobble = drawn(generators, lambda generator: generator.uniform(-1, 1, (size, size)))
    clouds = np.zeros_like(wobble)
    step, amplitude = size, 1.0
    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        below, right = np.roll(corners, -1, 1), np.roll(corners, -1, 2)
        centers = (corners + below + right + np.roll(below, -1, 2)) / 4 + amplitude * wobble[:, half::step, half::step]
        above, left = np.roll(centers, 1, 1), np.roll(centers, 1, 2)
        clouds[:, half::step, half::step] = centers
        on_rows = (corners + right + centers + above) / 4 + amplitude * wobble[:, ::step, half::step]
        on_columns = (corners + below + centers + left) / 4 + amplitude * wobble[:, half::step, ::step]
        clouds[:, ::step, half::step], clouds[:, half::step, ::step] = on_rows, on_columns
        step, amplitude = half, amplitude / decay**2
    clouds -= clouds.min((1, 2), keepdims=True)
    clouds /= clouds.max((1, 2), keepdims=True)
    return clouds[:, None, :height, :width]


def ice_ferns(generators: Sequence[np.random.Generator], height: int, width: int) -> np.ndarray:
    """Draw crystals in [0, 1] of shape (n, 1, height, width): stems with side branches at 60 degrees."""
    # All lengths are shares of the shorter side: ice looks the same in larger images.
    side = min(height, width)
    draws = drawn(generators, lambda generator: generator.random((_FERNS, 4)))
    growth = drawn(generators, lambda generator: generator.random((_FERNS, _FRONDS, 2, 1)))
    starts = draws[..., :2] * (height, width)
    angles, lengths = 2 * np.pi * draws[..., 2], side * (0.3 + 0.5 * draws[..., 3])
    stems = lengths[..., None] * np.stack([np.sin(angles), np.cos(angles)], -1)
    along = np.linspace(0.1, 0.9, _FRONDS)
    cosine, sine = np.cos(np.pi / 3), np.sin(np.pi / 3)
    turns = np.array([[[cosine, sine], [-sine, cosine]], [[cosine, -sine], [sine, cosine]]])
    # Axes: image, fern, place along the stem, side of the stem, coordinate.
    sides = np.einsum("nfi,sij->nfsj", stems, turns)[:, :, None]
    branches = 0.5 * growth * (1 - along)[:, None, None] * sides
    feet = np.broadcast_to((starts[:, :, None] + along[:, None] * stems[:, :, None])[:, :, :, None], branches.shape)
    ice = np.zeros((len(generators), height, width))
    for start, line, longest in ((starts, stems, 0.8 * side), (feet, branches, 0.4 * side)):
        _draw_lines(ice, start.reshape(len(ice), -1, 2), line.reshape(len(ice), -1, 2), longest)
    scale = side / _ICE_SIDE
    # A wider blur thins a line out; in larger images lines are wider, not fainter.
    return 1 - np.exp(-1.5 * scale * blurred(ice, 0.5 * scale))[:, None]


def _draw_lines(canvas: np.ndarray, starts: np.ndarray, lines: np.ndarray, longest: float) -> None:
    """Add to each pixel the length of the lines that run through it.

    The lines are sampled at points that are at most half a pixel apart.
    """
    n, height, width = canvas.shape
    lengths = np.linalg.norm(lines, axis=-1)
    # Every line gets as many points as the longest possible one. The longest line of this batch would not do: an
    # image's ice would then depend on the other images.
    n_points = math.ceil(2 * longest) + 1
    places = starts[:, :, None] + np.linspace(0, 1, n_points)[:, None] * lines[:, :, None]
    rows, columns = np.moveaxis(np.floor(places).astype(int), -1, 0)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = (np.arange(n)[:, None, None] * height + rows) * width + columns
    weights = np.broadcast_to(lengths[..., None] / n_points, pixels.shape)
    canvas += np.bincount(pixels[inside], weights[inside], minlength=canvas.size).reshape(canvas.shape)


def resampled(images: np.ndarray, places: np.ndarray, mode: str) -> np.ndarray:
    """Sample each image at its own real-valued rows and columns, of shape (n, 2, H, W), by linear interpolation."""
    resampled = np.empty_like(images)
    for image, place, out in zip(images, places, resampled, strict=True):
        for channel, target in zip(image, out, strict=True):
            ndimage.map_coordinates(channel, place, output=target, order=1, mode=mode)
    return resampled
