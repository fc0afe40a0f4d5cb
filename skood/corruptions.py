"""Apply the fifteen common corruptions of Hendrycks & Dietterich (2019) to batches of uint8 images.

Constants are those of CIFAR-10-C, Tiny ImageNet-C or ImageNet-C, whose images have sides of 32, 64 and 224 pixels: of
the one nearest in size to the images at hand. Lengths in pixels grow in proportion to the shorter side.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import update_wrapper
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from sklearn.utils import check_random_state

__all__ = ["CORRUPTIONS", "corrupt"]

Generators = Sequence[np.random.Generator]

# name -> function(X, severity=1, random_state=None), in the order of the papers' tables.
CORRUPTIONS: dict[str, Callable] = {}

# Smallest shorter side -> side of the published images whose constants are used. The limits are the geometric means of
# neighbouring published sides.
_PUBLISHED_SIDES = {0: 32, 46: 64, 120: 224}
_SMALLEST_SIDE = 8
# Side for which the widths of the lines of drawn ice are given.
_ICE_SIDE = 32
# Images are corrupted in chunks of this many values, 8 MiB of float64, so that memory does not grow with X.
_VALUES_PER_CHUNK = 2**20
# The drawn ice of `frost`: number of crystals in an image, and of side branches on each side of a crystal's stem.
_FERNS = 12
_FRONDS = 8


def corrupt(
    X: ArrayLike, name: str, severity: int = 1, *, random_state: int | np.random.RandomState | None = None
) -> np.ndarray:
    """Apply one of the corruptions of CIFAR-10-C, Tiny ImageNet-C or ImageNet-C to images.

    Parameters
    ----------
    X : array-like of uint8 of shape (n, C, H, W)
        Images with 1 or 3 channels (red, green, blue), H and W at least 8. A grey image becomes what a colour image
        with three equal channels becomes, except that noise differs between channels.
    name : str
        A key of `CORRUPTIONS`: "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur",
        "motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate" or
        "jpeg_compression". The last needs Pillow (``pip install 'skood[images]'``).
    severity : int in [1, 5], default=1
        Strength of the corruption; 5 is the strongest. The same severity is much stronger for large images, as in the
        published data sets, see Notes.
    random_state : int, RandomState instance or None, default=None
        Seeds the corruption. What happens to an image depends on the seed and on the image's place in the batch, not on
        the other images.

    Returns
    -------
    corrupted : ndarray of uint8 of shape (n, C, H, W)
        The corrupted images; X is not modified.

    Raises
    ------
    ValueError
        If X is not uint8 or has another shape, there is no corruption of that name, or the severity is out of range.
    ImportError
        If Pillow is needed and not installed.

    Notes
    -----
    Constants and steps are those of the code that made the published data sets. The shorter side of the images decides
    whose constants are used: below 46 pixels those of CIFAR-10-C (images of 32 pixels), from 46 to 119 those of Tiny
    ImageNet-C (64), and from 120 on those of ImageNet-C (224). For images of other sizes than these three, blur widths
    scale with the shorter side; zooms, pixelation and elastic distortion are relative to the sides; noise and JPEG do
    not depend on the size. Two things differ from the published images: frost is drawn instead of cut out of
    photographs, and values are rounded to whole grey levels, where the published ones are rounded down. ImageNet-C was
    also saved as JPEG of quality 85, which is not done here.

    References
    ----------
    .. [1] Dan Hendrycks and Thomas Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
       Perturbations", ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.corruptions import corrupt
    >>> X = np.full((2, 3, 32, 32), 100, dtype=np.uint8)
    >>> corrupt(X, "brightness", severity=4)[0, :, 0, 0]
    array([151, 151, 151], dtype=uint8)
    >>> noisy = corrupt(X, "gaussian_noise", severity=5, random_state=0)
    >>> round(float(noisy.std()) / 255, 2)
    0.1
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"there is no corruption {name!r}; choose one of {', '.join(map(repr, CORRUPTIONS))}.")
    return CORRUPTIONS[name](X, severity, random_state)


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


def _corruption(
    *, cifar: tuple[Any, ...], tiny: tuple[Any, ...], imagenet: tuple[Any, ...]
) -> Callable[[Callable], Callable]:
    """Return a decorator that makes a public corruption from a function, and enters it in `CORRUPTIONS`.

    The decorated function takes images of float64 in [0, 1] of shape (n, C, H, W), the constants of the severity, and
    a generator for each image. It returns images of that shape, whose values may leave [0, 1]. The constants of the
    five severities are given for each publication.
    """
    by_side = {32: cifar, 64: tiny, 224: imagenet}

    def enter(arithmetic: Callable) -> Callable:
        """Wrap the arithmetic in what all corruptions share: checks, seeds, chunks and rounding."""

        def corruption(
            X: ArrayLike, severity: int = 1, random_state: int | np.random.RandomState | None = None
        ) -> np.ndarray:
            X = _checked_images(X)
            if not isinstance(severity, Integral) or isinstance(severity, bool) or not 1 <= severity <= 5:
                raise ValueError(f"severity={severity!r} must be an integer from 1 to 5.")
            constants = by_side[_published_side(X)][severity - 1]
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

        update_wrapper(corruption, arithmetic)
        # `help` and the documentation follow __wrapped__, and would show the signature of the arithmetic.
        del corruption.__wrapped__  # type: ignore[attr-defined]
        CORRUPTIONS[arithmetic.__name__] = corruption
        return corruption

    return enter


# ------------------------------------------------------------------------------------------------------------- pieces


def _published_side(images: np.ndarray) -> int:
    """Return the side of the published images whose constants are used."""
    shorter = min(images.shape[2:])
    return max(side for least, side in _PUBLISHED_SIDES.items() if shorter >= least)


def _scale(images: np.ndarray) -> float:
    """Return the factor by which a length in pixels of the published images grows."""
    return min(images.shape[2:]) / _published_side(images)


def _drawn(generators: Sequence[np.random.Generator], draw: Callable) -> np.ndarray:
    """Draw once from each image's generator, and stack the results."""
    return np.stack([draw(generator) for generator in generators])


def _blurred(images: np.ndarray, sigma: float, mode: str = "nearest", truncate: float = 4) -> np.ndarray:
    """Blur the last two axes by a Gaussian of standard deviation ``sigma``."""
    options: dict[str, Any] = {"mode": mode, "truncate": truncate}
    if sigma * truncate > min(images.shape[-2:]):
        # A kernel that is longer than the image is slow. As a matrix it has no more weights than there are pixels.
        rows, columns = (
            ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, **options) for side in images.shape[-2:]
        )
        return rows @ images @ columns.T
    return ndimage.gaussian_filter(images, sigma, axes=(-2, -1), **options)


def _taken(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Take pixels of each image at its own rows and columns, which broadcast to (n, 1, H, W)."""
    n, n_channels = images.shape[:2]
    return images[np.arange(n)[:, None, None, None], np.arange(n_channels)[:, None, None], rows, columns]


def _disk_means(images: np.ndarray, radius: float) -> np.ndarray:
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


def _motion_blurred(images: np.ndarray, radius: float, sigma: float, angles: np.ndarray) -> np.ndarray:
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


def _zoomed(images: np.ndarray, factor: float) -> np.ndarray:
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


def _plasma(generators: Sequence[np.random.Generator], height: int, width: int, decay: float) -> np.ndarray:
    """Draw clouds in [0, 1] of shape (n, 1, height, width) by the diamond-square algorithm, on a torus.

    To the mean of four neighbours a random number is added, which shrinks by ``decay`` squared from one scale to the
    next.
    """
    # The algorithm halves a square, so it needs a power of two; the image is cut out of it at the end.
    size = 2 ** math.ceil(math.log2(max(height, width)))
    wobble = _drawn(generators, lambda generator: generator.uniform(-1, 1, (size, size)))
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


def _ice_ferns(generators: Sequence[np.random.Generator], height: int, width: int) -> np.ndarray:
    """Draw crystals in [0, 1] of shape (n, 1, height, width): stems with side branches at 60 degrees."""
    # All lengths are shares of the shorter side: ice looks the same in larger images.
    side = min(height, width)
    draws = _drawn(generators, lambda generator: generator.random((_FERNS, 4)))
    growth = _drawn(generators, lambda generator: generator.random((_FERNS, _FRONDS, 2, 1)))
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
    return 1 - np.exp(-1.5 * scale * _blurred(ice, 0.5 * scale))[:, None]


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


def _resampled(images: np.ndarray, places: np.ndarray, mode: str) -> np.ndarray:
    """Sample each image at its own real-valued rows and columns, of shape (n, 2, H, W), by linear interpolation."""
    resampled = np.empty_like(images)
    for image, place, out in zip(images, places, resampled, strict=True):
        for channel, target in zip(image, out, strict=True):
            ndimage.map_coordinates(channel, place, output=target, order=1, mode=mode)
    return resampled


# -------------------------------------------------------------------------------------------------------- corruptions
# All of them have the parameters and errors of `corrupt`.


@_corruption(
    cifar=(0.04, 0.06, 0.08, 0.09, 0.10),
    tiny=(0.04, 0.08, 0.12, 0.15, 0.18),
    imagenet=(0.08, 0.12, 0.18, 0.26, 0.38),
)
def gaussian_noise(images: np.ndarray, deviation: float, generators: Generators) -> np.ndarray:
    """Add normal noise, the same standard deviation everywhere."""
    return images + deviation * _drawn(generators, lambda generator: generator.standard_normal(images.shape[1:]))


@_corruption(
    cifar=(500, 250, 100, 75, 50),
    tiny=(250, 100, 50, 30, 15),
    imagenet=(60, 25, 12, 5, 3),
)
def shot_noise(images: np.ndarray, photons: float, generators: Generators) -> np.ndarray:
    """Add Poisson noise, as when photons are counted: a white pixel has this number of photons on average."""
    counts = [generator.poisson(photons * image) for generator, image in zip(generators, images, strict=True)]
    return np.stack(counts) / photons


@_corruption(
    cifar=(0.01, 0.02, 0.03, 0.05, 0.07),
    tiny=(0.01, 0.02, 0.05, 0.08, 0.14),
    imagenet=(0.03, 0.06, 0.09, 0.17, 0.27),
)
def impulse_noise(images: np.ndarray, share: float, generators: Generators) -> np.ndarray:
    """Set a share of the values to 0 or 1, each with probability 1/2 (salt and pepper)."""
    draws = _drawn(generators, lambda generator: generator.random(images.shape[1:]))
    return np.where(draws < share / 2, 0, np.where(draws < share, 1, images))


@_corruption(
    cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    tiny=((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
    imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
)
def defocus_blur(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Convolve with a disk whose rim is smoothed; radius and smoothing scale with the shorter side."""
    scale = _scale(images)
    radius, smoothing = constants
    # The published smoothing reaches one pixel on each side, and two if the disk's radius is above 8.
    window = max(1, round(scale * (2 if radius > 8 else 1)))
    # Without the addition, rounding could drop the outermost pixels of the disk, whose distance is the radius itself.
    radius, smoothing = scale * radius + 1e-9, scale * smoothing
    # Smoothing the image is the same as smoothing the disk, since both are symmetric and mirror what is beyond edges.
    disks = _disk_means(images, radius)
    return ndimage.gaussian_filter(disks, smoothing, axes=(-2, -1), mode="mirror", radius=window)


@_corruption(
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
    sigma, reach = sigma * _scale(images), max(1, round(reach * _scale(images)))
    height, width = images.shape[2:]
    inner = np.s_[:, :, reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    rows, columns = np.indices((height, width))[inner[1:]]
    images = _blurred(images, sigma)
    for _ in range(n_rounds):
        moves = _drawn(generators, lambda generator: generator.integers(-reach, reach, (2, *rows.shape)))
        images[inner] = _taken(images, (rows + moves[:, 0])[:, None], (columns + moves[:, 1])[:, None])
    return _blurred(images, sigma)


@_corruption(
    cifar=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    tiny=((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
    imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
)
def motion_blur(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Smear each image along a line up to 45 degrees off the horizontal; its length scales with the shorter side."""
    radius, sigma = (_scale(images) * constant for constant in constants)
    angles = _drawn(generators, lambda generator: generator.uniform(-45, 45))
    return _motion_blurred(images, radius, sigma, angles)


@_corruption(
    cifar=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    tiny=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    imagenet=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
)
def zoom_blur(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Average the image and its enlargements in steps of 1 to 3 %, as a camera that moves forward sees it."""
    # np.arange as published: rounding decides whether the end is one of the factors; 1.06 is, 1.16 is not.
    end, step = constants
    factors = np.arange(1, end, step)
    total = images.copy()
    # Image by image, because one image fits into the cache.
    for image, out in zip(images, total, strict=True):
        for factor in factors:
            out += _zoomed(image, factor)
    return total / (len(factors) + 1)


@_corruption(
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
    flakes = _drawn(generators, lambda generator: generator.normal(mean, deviation, (1, *images.shape[2:])))
    flakes = _zoomed(flakes, zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    angles = _drawn(generators, lambda generator: generator.uniform(-135, -45))
    flakes = _motion_blurred(flakes, _scale(images) * radius, _scale(images) * sigma, angles)
    grey = images
    if images.shape[1] == 3:
        grey = np.tensordot(images, [0.299, 0.587, 0.114], axes=(1, 0))[:, None]
    scene = kept * images + (1 - kept) * np.maximum(images, 1.5 * grey + 0.5)
    return scene + flakes + flakes[:, :, ::-1, ::-1]


@_corruption(
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
    haze, ferns = _plasma(generators, height, width, decay=1.5), _ice_ferns(generators, height, width)
    return kept * images + weight * (0.5 * haze + 0.5 * ferns)


@_corruption(
    cifar=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    tiny=((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
    imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
)
def fog(images: np.ndarray, constants: tuple[Any, ...], generators: Generators) -> np.ndarray:
    """Add clouds, then scale the image so that the brightest value possible is the one that it had before."""
    density, decay = constants
    brightest = images.max((1, 2, 3), keepdims=True)
    height, width = images.shape[2:]
    return (images + density * _plasma(generators, height, width, decay)) * brightest / (brightest + density)


@_corruption(
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


@_corruption(
    cifar=(0.75, 0.5, 0.4, 0.3, 0.15),
    tiny=(0.4, 0.3, 0.2, 0.1, 0.05),
    imagenet=(0.4, 0.3, 0.2, 0.1, 0.05),
)
def contrast(images: np.ndarray, factor: float, generators: Generators) -> np.ndarray:
    """Move each channel of an image towards its mean."""
    means = images.mean((2, 3), keepdims=True)
    return means + factor * (images - means)


@_corruption(
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
    if _published_side(images) == 224:
        # Published in shares of 244 pixels, a slip of the authors for 224, which made the published images.
        strength, sigma, reach = (244 / 224 * length for length in (strength, sigma, reach))
    center, half = np.array(sides) // 2, min(sides) // 3
    points = center + half * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + _drawn(generators, lambda generator: generator.uniform(-reach, reach, (3, 2)))
    # The map is solved for in the inverse direction, from the moved points to the original ones: for each pixel of the
    # result it says where in the image to look.
    source = np.linalg.solve(np.dstack([moved, np.ones((n, 3))]), np.broadcast_to(points, (n, 3, 2)).astype(float))
    places = np.indices(sides)
    origins = np.einsum("ihw,nij->njhw", places, source[:, :2]) + source[:, 2, :, None, None]
    noise = _drawn(generators, lambda generator: generator.uniform(-1, 1, (2, *sides)))
    noise = strength * _blurred(noise, sigma, mode="reflect", truncate=3)
    return _resampled(_resampled(images, origins, "mirror"), places + noise, "reflect")


@_corruption(
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


@_corruption(
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
