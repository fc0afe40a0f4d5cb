"""Messages for images that are not one array, or not of the kind of the fit: what is wrong, and what to write."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from .._warn import warn_user

# Names of the files that `skood.datasets.load_image_folder` reads; other text is no list of images.
_IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
_READ = "skood.datasets.load_image_folder({}, size=(32, 32)).X"
# A few images show the range of the pixels; looking at all would read a memory map twice.
_IMAGES_LOOKED_AT = 256
# Outliers may exceed 1 a little where pixels are in [0, 1]; the largest of pixels in [0, 255] is far above 10.
_LARGEST_FRACTION, _SMALLEST_BYTES = 1.0, 10.0


def refuse_unread_rows(X: Any) -> None:
    """Refuse file names, PIL images, torch datasets, images of several sizes and lazy frames; accept all else.

    Parameters
    ----------
    X : object
        What was passed as rows.

    Raises
    ------
    ValueError
        Says what X is, and the line that makes an array of it.
    """
    # Classes are compared by name, so that neither torch nor Pillow is imported.
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(X).__mro__}
    if "polars.LazyFrame" in kinds:
        raise ValueError("X is a polars LazyFrame, which holds no rows yet; pass X.collect().")
    if "torch.DataLoader" in kinds:
        raise ValueError(
            "X is a torch DataLoader; pass one array of rows instead. If it gives pairs of images and labels, pass "
            "torch.cat([images for images, labels in X]).numpy()."
        )
    if "torch.Dataset" in kinds:
        _refuse_dataset(X, "torchvision.DatasetFolder" in kinds)
    if "PIL.Image" in kinds:
        raise ValueError(f"X is one PIL image, not an array of images. {_from_pil('[X]')}")
    if _is_file(X):
        raise ValueError(f"X is the name of a file, {str(X)!r}, not pixels. Read it: pass {_READ.format('[X]')}.")
    first = _first(X)
    if _is_file(first):
        raise ValueError(
            f"X holds names of files ({len(X)}, {str(first)!r} first), not pixels. Read them: pass {_READ.format('X')}."
        )
    if any(kind.__module__.startswith("PIL.") for kind in type(first).__mro__):
        raise ValueError(f"X is a list of {len(X)} PIL images, not one array. {_from_pil('X')}")
    if isinstance(X, (list, tuple)) and getattr(first, "ndim", 0) >= 2:
        _refuse_several_shapes(X)


def _refuse_dataset(X: Any, of_files: bool) -> None:
    """Refuse a torch Dataset; for a dataset of image files, name the folder in the remedy."""
    if of_files:
        raise ValueError(
            f"X is a torchvision {type(X).__name__}, not an array. Pass {_READ.format(repr(str(X.root)))}."
        )
    raise ValueError(
        f"X is a torch Dataset ({type(X).__name__}), not an array. If it gives pairs of an image of shape (C, H, W) "
        f"and a label, pass np.stack([np.asarray(image) for image, label in X])."
    )


def _first(X: Any) -> Any:
    """Return the first entry of a list, or of an array or Series of objects or text; None for everything else."""
    if isinstance(X, (list, tuple)):
        return X[0] if X else None
    text = getattr(getattr(X, "dtype", None), "kind", None) in ("O", "U", "T")
    return np.asarray(X[:1], dtype=object)[0] if text and X.ndim == 1 and len(X) else None


def _is_file(entry: Any) -> bool:
    """Return whether an entry is the name of an image file."""
    return isinstance(entry, os.PathLike) or (isinstance(entry, str) and entry.lower().endswith(_IMAGE_FILES))


def _from_pil(images: str) -> str:
    """Return the advice that turns a list of PIL images into an array."""
    return (
        f"Pass np.stack([np.asarray(image.convert('RGB').resize((32, 32))) for image in {images}])"
        f".transpose(0, 3, 1, 2), or read the files: {_READ.format('files')}."
    )


def _refuse_several_shapes(images: Any) -> None:
    """Refuse a list of arrays if one of them has another shape than the first."""
    shape = np.shape(images[0])
    for row, image in enumerate(images):
        if np.shape(image) != shape:
            raise ValueError(
                f"X is a list of images of several shapes: {shape} in row 0, {np.shape(image)} in row {row}. All must "
                f"have one size and the same channels. From files: {_READ.format('files')}."
            )


def explain_dimensions(shape: tuple[int, ...], image_shape: tuple[int, ...] | None) -> str:
    """Return the error message for an X that does not have two or four dimensions.

    Parameters
    ----------
    shape : tuple of int
        The shape of X.
    image_shape : tuple (C, H, W) or None
        Shape of the images that the estimator was fitted on; None during a fit, and for vectors.

    Returns
    -------
    message : str
    """
    if shape == image_shape:
        return f"X has shape {shape}, that of one image, not (n, C, H, W). Pass X[None]."
    if len(shape) != 3:
        return f"X has shape {shape}. Pass vectors of shape (n, d), or images of shape (n, C, H, W)."
    return (
        f"X has shape {shape}, not (n, d) or (n, C, H, W). For grey images (n, H, W) pass X[:, None], for one image "
        f"(C, H, W) pass X[None], for windows of time series (n, steps, features) pass X.reshape(len(X), -1)."
    )


def pixel_range(X: np.ndarray, indices: np.ndarray | None = None) -> str | None:
    """Return the scale of the pixels of images.

    Parameters
    ----------
    X : ndarray of shape (n, ...), not of uint8
        Images, flattened or not; only a few of them are read.
    indices : ndarray of int or None, default=None
        Of the images to look at; None means all.

    Returns
    -------
    name : {"[0, 1]", "[0, 255]"} or None
        None if the scale is another one or unclear.
    """
    if indices is None:
        indices = np.arange(len(X))
    some = X[indices[:: math.ceil(len(indices) / _IMAGES_LOOKED_AT)]]
    least, most = some.min(), some.max()
    if least < 0 or most > 255:
        return None
    if most > _SMALLEST_BYTES:
        return "[0, 255]"
    # Images of zeros and ones alone may be on either scale.
    between = most <= _LARGEST_FRACTION and bool((some % 1).any())
    return "[0, 1]" if between else None


def check_pixels(X: np.ndarray, fitted_on_bytes: bool, fitted_range: str | None, name: str) -> None:
    """Refuse images whose pixels have another dtype than those of the fit, and warn of another scale.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Images, flattened or not.
    fitted_on_bytes : bool
        Whether the images of the fit were uint8.
    fitted_range : str or None
        `pixel_range` of the images of the fit.
    name : str
        Name of the estimator, for the message.

    Raises
    ------
    ValueError
        If uint8 and other images are mixed up; says how to scale X.

    Warns
    -----
    UserWarning
        If floats are likely on another scale; says how to scale X.
    """
    given_bytes = X.dtype == np.uint8
    if fitted_on_bytes and not given_bytes:
        raise ValueError(
            f"X holds {X.dtype} images, but {name} was fitted on uint8 images. {_to_bytes(X)}. X.astype(np.uint8) "
            f"alone is wrong: values above 255 wrap around, and fractions become 0."
        )
    if given_bytes and not fitted_on_bytes:
        remedies = {"[0, 1]": "pass X / np.float32(255)", "[0, 255]": "pass X.astype(np.float32)"}
        raise ValueError(
            f"X holds uint8 images, but {name} was fitted on float images, which are not scaled: "
            f"{remedies.get(fitted_range or '', 'pass floats on the same scale')}."
        )
    if not given_bytes and fitted_range is not None:
        warn_of_range(pixel_range(X), fitted_range, name)


def warn_of_range(given_range: str | None, fitted_range: str | None, name: str) -> None:
    """Warn of images on another scale than those of a fit.

    Parameters
    ----------
    given_range, fitted_range : str or None
        `pixel_range` of the images at hand, and of those of the fit.
    name : str
        What was fitted, for the message.
    """
    if None not in (given_range, fitted_range) and given_range != fitted_range:
        remedy = "X / 255" if fitted_range == "[0, 1]" else "255 * X"
        # No error: the scale is a guess from the rows at hand, as of one dark image, and whether a row is scored must
        # not depend on the rows beside it.
        warn_user(
            f"X holds pixels in {given_range}, but {name} was fitted on pixels in {fitted_range}. If they are on "
            f"another scale, pass {remedy}.",
            UserWarning,
        )


def _to_bytes(X: np.ndarray) -> str:
    """Return the advice that turns images of another dtype into uint8."""
    given = pixel_range(X)
    if X.dtype == np.uint16 and X.max() > 255:
        return "To turn 16 bits into 8, pass np.rint(X / 257).astype(np.uint8)"
    if given == "[0, 1]":
        return "To scale pixels in [0, 1], pass np.rint(255 * X).astype(np.uint8)"
    if given == "[0, 255]":
        return "Its pixels are in [0, 255] already: pass np.rint(X).astype(np.uint8)"
    return f"Scale its values, {X.min():.4g} to {X.max():.4g}, to [0, 255] and pass np.rint(X).astype(np.uint8)"
