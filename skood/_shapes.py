"""Draw images of simple shapes whose factors of variation are known; public in `skood.datasets`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

# Colours are red, green and blue.
_OBJECTS = {
    "white": (255, 255, 255),
    "green": (60, 220, 60),
    "red": (210, 20, 20),
    "blue": (40, 70, 200),
    "brown": (100, 60, 20),
    "olive": (128, 128, 0),
}
_WALLS = {"purple": (110, 70, 140), "sea green": (46, 139, 87), "salmon": (250, 128, 114)}
# Brightness of the floor, as a share of that of the wall.
_FLOOR = 0.6
# Share of the image that the object covers.
_AREAS = {"small": 0.05, "large": 0.1}
# Distance of the horizon from the upper edge, as a share of the side.
_HORIZONS = {"top": 0.25, "center": 0.5, "bottom": 0.75}
# Positions of the centre, as shares of the side. The tip of a large triangle reaches .278 from its centre.
_LOW, _HIGH = 0.28, 0.72
# Along each side of a pixel, this many points decide which share of it the object covers.
_PARTS = 4
# Points that are computed at a time, for the sake of memory.
_MOST_POINTS = 2**22

_TRIANGLE = math.sqrt(math.sqrt(3))  # height of an equilateral triangle of area 1
_ARM = 1 / math.sqrt(5)  # width of an arm of a cross of area 1
_RING = 4 / (3 * math.pi)  # squared outer radius of a ring of area 1, whose hole has half the radius

# Which points (u, v) belong to a shape, v growing downwards. Each has area 1 and its centre of mass at the origin.
_SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "triangle": lambda u, v: (v <= _TRIANGLE / 3) & (math.sqrt(3) * abs(u) <= v + 2 * _TRIANGLE / 3),
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 0.5,
    "diamond": lambda u, v: abs(u) + abs(v) <= math.sqrt(0.5),
    "circle": lambda u, v: u**2 + v**2 <= 1 / math.pi,
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) <= _ARM / 2) & (np.maximum(abs(u), abs(v)) <= 1.5 * _ARM),
    "ring": lambda u, v: abs(u**2 + v**2 - _RING * 5 / 8) <= _RING * 3 / 8,
}

_VALUES: dict[str, list[str]] = {
    "object_color": list(_OBJECTS),
    "object_shape": list(_SHAPES),
    "object_size": list(_AREAS),
    "camera_height": list(_HORIZONS),
    "background_color": list(_WALLS),
}
_POSITIONS = ("horizontal", "vertical")


def make_shapes(
    n_samples: int = 100,
    *,
    fixed: Mapping[str, Any] | None = None,
    image_size: int = 32,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Draw images of a shape before a wall and a floor, with the factors that each was drawn from.

    The factors are like those of MPI3D, see `load_mpi3d`, and are drawn uniformly and independently of each other. The
    images suit `skood.metrics.dci`, and tests of detectors: objects of one kind are normal, all others are not.

    Parameters
    ----------
    n_samples : int, default=100
        Number of images.
    fixed : mapping from factor to value or array-like of shape (n_samples,), or None, default=None
        Factors that are not drawn: their value in all images, or in each. The other factors are the same as without
        ``fixed``, for the same ``random_state``.
    image_size : int, default=32
        Height and width of the images in pixels, at least 8.
    random_state : int, RandomState or None, default=None
        Seeds the factors. Pass an int for repeatable results.

    Returns
    -------
    data : Bunch
        X : ndarray of uint8 of shape (n_samples, 3, image_size, image_size)
            The images. A pixel at an edge mixes the colours on its two sides.
        factors : DataFrame of shape (n_samples, 7)
            object_color : "white", "green", "red", "blue", "brown" or "olive"
                Nothing else depends on it.
            object_shape : "triangle", "square", "diamond", "circle", "cross" or "ring"
                All have the same area and the same centre of mass.
            object_size : "small" or "large"
                The object covers 5 or 10 % of the image.
            camera_height : "top", "center" or "bottom"
                The floor begins a quarter, half or three quarters of the height below the upper edge.
            background_color : "purple", "sea green" or "salmon"
                Colour of the wall; that of the floor is darker.
            horizontal, vertical : float in [0.28, 0.72)
                Where the object's centre of mass lies, in sides of the image, from its left and from its upper edge.

    Raises
    ------
    ValueError
        If a number is too small or no integer, or ``fixed`` names a factor or a value that there is not, or holds an
        array of another length.

    See Also
    --------
    load_mpi3d : Reads photographs and renderings with such factors.

    Examples
    --------
    >>> from skood.datasets import make_shapes
    >>> data = make_shapes(50, random_state=0)
    >>> data.X.shape
    (50, 3, 32, 32)
    >>> list(data.factors)[:3]
    ['object_color', 'object_shape', 'object_size']
    >>> large = make_shapes(50, fixed={"object_size": "large"}, random_state=0)  # the same images, with large objects
    >>> bool((large.factors["horizontal"] == data.factors["horizontal"]).all())
    True
    """
    for name, value, least in (("n_samples", n_samples, 1), ("image_size", image_size, 8)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r} must be an integer of {least} or more.")
    rng = check_random_state(random_state)
    columns: dict[str, np.ndarray] = {
        name: np.array(values, dtype=object)[rng.randint(len(values), size=n_samples)]
        for name, values in _VALUES.items()
    }
    for name in _POSITIONS:
        columns[name] = rng.uniform(_LOW, _HIGH, n_samples)
    # Drawn first and then replaced, so that the other factors do not depend on which ones are fixed.
    for name, value in (fixed or {}).items():
        columns[name] = _checked(name, value, n_samples)
    factors = pd.DataFrame(columns)
    return Bunch(X=_drawn(factors, int(image_size)), factors=factors)


def _checked(name: str, value: Any, n_samples: int) -> np.ndarray:
    """Return the values of a fixed factor, one for each image."""
    if name not in (*_VALUES, *_POSITIONS):
        raise ValueError(f"fixed names {name!r}; the factors are {', '.join(map(repr, (*_VALUES, *_POSITIONS)))}.")
    given = np.asarray(value)
    if given.shape not in {(), (n_samples,)}:
        raise ValueError(f"fixed[{name!r}] has shape {given.shape}; give one value, or one for each of {n_samples}.")
    if name in _VALUES:
        odd = sorted(set(given.ravel().tolist()) - set(_VALUES[name]), key=str)
        if odd:
            raise ValueError(f"fixed[{name!r}] holds {odd[0]!r}; choose of {', '.join(map(repr, _VALUES[name]))}.")
        return np.broadcast_to(given.astype(object), n_samples)
    if given.dtype.kind not in "iuf" or not ((given >= _LOW) & (given <= _HIGH)).all():
        raise ValueError(f"fixed[{name!r}] must hold numbers from {_LOW} to {_HIGH}, so that objects are seen whole.")
    return np.broadcast_to(given.astype(np.float64), n_samples)


def _drawn(factors: pd.DataFrame, size: int) -> np.ndarray:
    """Return the images of factors."""
    X = np.empty((len(factors), 3, size, size), dtype=np.uint8)
    for block in _blocks(len(factors), size):
        rows = factors.iloc[block]
        background, object_color = _background(rows, size), _looked_up(rows["object_color"], _OBJECTS)
        covered = _covered(rows, size)[:, None]
        X[block] = np.rint(background + covered * (object_color[:, :, None, None] - background))
    return X


def _blocks(n: int, size: int) -> Iterator[slice]:
    step = max(1, _MOST_POINTS // (size * _PARTS) ** 2)
    for start in range(0, n, step):
        yield slice(start, start + step)


def _looked_up(column: pd.Series, table: Mapping[str, Any]) -> np.ndarray:
    """Return what a table has for each value of a factor."""
    return np.array([table[value] for value in column], dtype=np.float64)


def _background(factors: pd.DataFrame, size: int) -> np.ndarray:
    """Return walls and floors, of shape (n, 3, size, 1); a row of pixels may be a part of each."""
    horizon = size * _looked_up(factors["camera_height"], _HORIZONS)[:, None]
    floor = np.clip(np.arange(1, size + 1) - horizon, 0, 1)
    brightness = 1 - (1 - _FLOOR) * floor
    return (_looked_up(factors["background_color"], _WALLS)[:, :, None] * brightness[:, None])[..., None]


def _covered(factors: pd.DataFrame, size: int) -> np.ndarray:
    """Return the share of each pixel that the object covers, of shape (n, size, size)."""
    points = (np.arange(size * _PARTS) + 0.5) / (size * _PARTS)
    # A shape of area 1 is drawn in units of the square root of its area in the image.
    unit = np.sqrt(_looked_up(factors["object_size"], _AREAS))
    u, v = ((points - factors[name].to_numpy()[:, None]) / unit[:, None] for name in _POSITIONS)
    shares = np.empty((len(factors), size, size))
    for name, belongs in _SHAPES.items():
        rows = np.flatnonzero(factors["object_shape"] == name)
        inside = belongs(u[rows, None, :], v[rows, :, None])
        shares[rows] = inside.reshape(len(rows), size, _PARTS, size, _PARTS).mean(axis=(2, 4))
    return shares
