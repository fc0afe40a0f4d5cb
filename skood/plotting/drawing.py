"""Help displays: colours, axes to draw on, and images as matplotlib takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .._sklearn import check_matplotlib_support
from ..estimator.validation import resolve_image_shape
from ..estimator.wrapper import inner_attribute

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours; what makes a row an inlier or an outlier has its colour, too.
INLIERS, OUTLIERS, THRESHOLD = "tab:blue", "tab:orange", "black"


def axes_for(ax: Axes | None, display: object, **options: Any) -> Axes:
    """Return the axes to draw on: the given ones, or those of a new figure made with these options."""
    # matplotlib is an extra: it is imported where something is drawn, so that the module can be imported without it.
    check_matplotlib_support(f"{type(display).__name__}.plot")
    import matplotlib.pyplot as plt

    return plt.subplots(**options)[1] if ax is None else ax


def as_images(X: ArrayLike, estimator: Any = None, image_shape: Sequence[int] | None = None) -> np.ndarray:
    """Return X as images of shape (n, C, H, W); refuse images without one or three channels."""
    images = np.asarray(X)
    if images.ndim == 2:
        image_shape = inner_attribute(estimator, "image_shape_") if image_shape is None else image_shape
        if image_shape is not None:
            images = images.reshape(len(images), *resolve_image_shape(image_shape, images.shape[1]))
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"X has shape {images.shape}; a picture needs images (n, C, H, W) of 1 or 3 channels. For flattened images "
            f"give image_shape=(C, H, W)."
        )
    return images


def shades_of(images: np.ndarray) -> np.ndarray:
    """Turn images (..., C, H, W) into what imshow takes: (..., H, W, C), or (..., H, W) if grey, in [0, 1]."""
    images = np.moveaxis(images, -3, -1)
    images = images[..., 0] if images.shape[-1] == 1 else images
    if images.dtype == np.uint8:
        return images / 255
    images = images.astype(np.float64)
    # Pixels in [0, 1] are drawn as they are; others, say standardised ones, are stretched, all images alike, so that
    # a darker image stays darker.
    low, high = min(images.min(), 0.0), images.max()
    if low == 0 and high <= 1:
        return images
    return (images - low) / ((high - low) or 1)
