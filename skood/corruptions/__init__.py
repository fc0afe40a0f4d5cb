"""Apply the fifteen common corruptions of Hendrycks & Dietterich (2019) to batches of uint8 images.

Constants are those of CIFAR-10-C, Tiny ImageNet-C or ImageNet-C, whose images have sides of 32, 64 and 224 pixels: of
the one nearest in size to the images at hand. Lengths in pixels grow in proportion to the shorter side.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from .digital import contrast, elastic_transform, jpeg_compression, pixelate
from .noise import gaussian_noise, impulse_noise, shot_noise
from .weather import brightness, fog, frost, snow

__all__ = ["CORRUPTIONS", "corrupt"]

_NOISE = (gaussian_noise, shot_noise, impulse_noise)
_BLUR = (defocus_blur, glass_blur, motion_blur, zoom_blur)
_WEATHER = (snow, frost, fog, brightness)
_DIGITAL = (contrast, elastic_transform, pixelate, jpeg_compression)

# name -> function(X, severity=1, random_state=None), in the order of the papers' tables.
CORRUPTIONS: dict[str, Callable] = {one.__name__: one for one in (*_NOISE, *_BLUR, *_WEATHER, *_DIGITAL)}


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
    scale with the shorter side, except that motion and zoom blur of severity 1 are a little wider where they would
    otherwise change nothing, up to 10 pixels; zooms, pixelation and elastic distortion are relative to the sides; noise
    and JPEG do not depend on the size. Two things differ from the published images: frost is drawn instead of cut out
    of photographs, and values are rounded to whole grey levels, where the published ones are rounded down. ImageNet-C
    was also saved as JPEG of quality 85, which is not done here.

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
