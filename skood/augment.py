"""Transform whole batches of images, as tensors (n, C, H, W); randomness comes from torch's generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from .networks.randomness import drawing, fit_generator
from .networks.transforms import rotate

__all__ = [
    "AUGMENTATIONS",
    "augmented",
    "center_crop",
    "color_jitter",
    "crop_and_flip",
    "crop_flip_and_mask",
    "gaussian_blur",
    "mask_center",
    "pad_to_square",
    "random_crop",
    "random_crop_to",
    "random_flip",
    "random_grayscale",
    "random_resized_crop",
    "rotate",
    "simclr",
]

# Share of red, green and blue in the brightness that an eye sees: ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)
# Images with sides of at least this many pixels are augmented like ImageNet's, smaller ones like CIFAR-10's.
_LARGE_SIDE = 64


def _windows(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut out the part of each image whose first row and column are in ``top`` and ``left``, both of shape (n, 1)."""
    # Three index arrays read the windows of all images at once, without a loop over images.
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    number = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_crop(images: Tensor, padding: int = 4) -> Tensor:
    """Shift each image by up to ``padding`` pixels in each direction, filling up with zeros.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.
    padding : int, default=4
        Largest shift, in pixels.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    n, _, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, n, 1), **drawing(images.device))
    return _windows(functional.pad(images, [padding] * 4), top, left, height, width)


def random_crop_to(images: Tensor, size: int) -> Tensor:
    """Cut a square out of each image, at a random place for each.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.
    size : int
        Side of the square. A side of the images that is not larger is kept whole.

    Returns
    -------
    images : Tensor of shape (n, C, min(H, size), min(W, size))
    """
    n, _, *sides = images.shape
    height, width = (min(side, size) for side in sides)
    top = torch.randint(sides[0] - height + 1, (n, 1), **drawing(images.device))
    left = torch.randint(sides[1] - width + 1, (n, 1), **drawing(images.device))
    return _windows(images, top, left, height, width)


def center_crop(images: Tensor, size: int) -> Tensor:
    """Cut the central square out of each image.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.
    size : int
        Side of the square. A side of the images that is not larger is kept whole.

    Returns
    -------
    images : Tensor of shape (n, C, min(H, size), min(W, size))
        If an odd number of pixels is cut off, one more is cut off at the end than at the beginning.
    """
    for dim in (2, 3):
        side = images.shape[dim]
        if side > size:
            images = images.narrow(dim, (side - size) // 2, size)
    return images


def pad_to_square(images: Tensor) -> Tensor:
    """Put each image in the middle of a square of zeros whose side is the image's longer side.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.

    Returns
    -------
    images : Tensor of shape (n, C, max(H, W), max(H, W))
        If an odd number of zeros is added, one more is added at the end than at the beginning.
    """
    side = max(images.shape[2:])
    # torch's padding begins with the last dimension.
    missing = [side - images.shape[dim] for dim in (3, 2)]
    return functional.pad(images, [part for n in missing for part in (n // 2, n - n // 2)])


def random_flip(images: Tensor) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    return _for_some(images, images.flip(3), 0.5)


def _for_some(images: Tensor, changed: Tensor, probability: float) -> Tensor:
    """Return for each image, drawn independently, the changed one with this probability, else the original."""
    return torch.where(torch.rand(len(images), 1, 1, 1, **drawing(images.device)) < probability, changed, images)


def mask_center(images: Tensor, size: float = 0.5, region: float = 0.66) -> Tensor:
    """Set a random square within the central part of each image to zero.

    The control experiment of Ahmed & Courville, "Detecting Semantic Anomalies" (2020), section 5.2. The defaults are
    its squares of 16 x 16 within the central 21 x 21 pixels of images of 32 x 32.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.
    size : float, default=0.5
        Side of the square, as a share of the shorter side of the images; rounded to whole pixels.
    region : float, default=0.66
        Side of the central square within which the random one lies, as a share of the shorter side. Where the central
        square cannot be in the very middle, it is half a pixel nearer to the first row or column.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)

    Raises
    ------
    ValueError
        Unless 0 <= size <= region <= 1.
    """
    if not 0 <= size <= region <= 1:
        raise ValueError(f"there must be 0 <= size <= region <= 1; got size={size} and region={region}.")
    n, _, *sides = images.shape
    side, room = round(size * min(sides)), round(region * min(sides))
    start = torch.randint(room - side + 1, (2, n, 1), **drawing(images.device))
    inside = []
    for first, length in zip(start, sides, strict=True):
        place = torch.arange(length, device=images.device) - (length - room) // 2 - first
        inside.append((place >= 0) & (place < side))
    rows, columns = inside
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def crop_and_flip(images: Tensor) -> Tensor:
    """Apply the usual augmentation of CIFAR images: `random_crop`, then `random_flip`.

    Shifts are by up to an eighth of the shorter side: 4 pixels of 32, 12 of 96.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    return random_flip(random_crop(images, min(images.shape[2:]) // 8))


def crop_flip_and_mask(images: Tensor) -> Tensor:
    """Apply `crop_and_flip`, then `mask_center`.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    return mask_center(crop_and_flip(images))


def random_resized_crop(
    images: Tensor, scale: tuple[float, float] = (0.2, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Tensor:
    """Cut a rectangle of random size and place out of each image and stretch it to the size of the image.

    Pixels are interpolated linearly.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.
    scale : tuple of two floats, default=(0.2, 1.0)
        Smallest and largest area of the rectangle, as a share of the image's; drawn uniformly.
    ratio : tuple of two floats, default=(3/4, 4/3)
        Smallest and largest ratio of its width to its height, in pixels; drawn log-uniformly. A side longer than the
        image's is cut to the image's.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)

    Raises
    ------
    ValueError
        Unless 0 < low <= high <= 1 for the scale, and 0 < low <= high for the ratio.
    """
    if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1] < math.inf):
        raise ValueError(
            f"there must be 0 < low <= high <= 1 for scale and 0 < low <= high for ratio; got scale={scale} and "
            f"ratio={ratio}."
        )
    n, _, height, width = images.shape
    area = _uniform(n, scale, images)
    shape = _uniform(n, (math.log(ratio[0]), math.log(ratio[1])), images).exp()
    # Sides of the rectangle as shares of the image's sides; where the image is not square, the ratio in pixels differs
    # from that of the shares. affine_grid lets an image go from -1 to 1, so a centre lies within 1 - side.
    across = (area * shape * height / width).sqrt().clamp(max=1)
    down = (area / shape * width / height).sqrt().clamp(max=1)
    left, top = (_uniform(n, (-1.0, 1.0), images) * (1 - side) for side in (across, down))
    nothing = torch.zeros_like(area)
    maps = torch.stack([across, nothing, left, nothing, down, top], 1).reshape(n, 2, 3)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    # The outermost half pixel has no neighbour to interpolate with.
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _uniform(n: int, bounds: tuple[float, float], images: Tensor) -> Tensor:
    """Draw n numbers uniformly, of the images' dtype and on their device."""
    return torch.empty(n, device=images.device, dtype=images.dtype).uniform_(
        *bounds, generator=fit_generator(images.device)
    )


def color_jitter(images: Tensor, strength: float = 0.5) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image, in this order.

    With a strength of s, brightness is multiplied by a factor from [max(0, 1 - 0.8 s), 1 + 0.8 s]; contrast, the
    distance to the image's mean grey, by another; saturation, the distance of each pixel to its grey, by a third; the
    hue is turned by up to 0.2 s of a full circle either way. Pixels are clipped to [0, 1] after each step. Images
    without three channels have no colours: only their brightness and contrast change.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        Pixels in [0, 1].
    strength : float, default=0.5
        s, in [0, 2.5]: 0.5 is SimCLR's for CIFAR-10, 1 that for ImageNet.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)

    Raises
    ------
    ValueError
        Unless 0 <= strength <= 2.5.
    """
    if not 0 <= strength <= 2.5:
        raise ValueError(f"there must be 0 <= strength <= 2.5; got {strength}.")
    factors = (max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength)
    brightness, contrast, saturation = (_uniform(len(images), factors, images)[:, None, None, None] for _ in range(3))
    turn = _uniform(len(images), (-0.2 * strength, 0.2 * strength), images)[:, None, None]
    images = (brightness * images).clamp(0, 1)
    images = _blended(images, _grey(images).mean((2, 3), keepdim=True), contrast)
    if images.shape[1] != 3:
        return images
    return _turned_hue(_blended(images, _grey(images), saturation), turn)


def _blended(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """Return ``others + share (images - others)``, clipped to [0, 1]; a share above 1 leads away from the others."""
    return (others + share * (images - others)).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Return one channel: the brightness of colour images, or the mean of any other number of channels."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * images.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def _turned_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of colour images by these shares of a circle; value and saturation stay.

    This computes HSV and its inverse in closed form, for all pixels at once.
    """
    value, brightest = images.max(1)
    chroma = value - images.amin(1)
    red, green, blue = images.unbind(1)
    # The hue is in sixths of the circle from red. Grey pixels have no hue: 0 / tiny gives them a finite one, which
    # their chroma of 0 cancels below.
    sixths = torch.stack([green - blue, blue - red, red - green]).gather(0, brightest[None])[0]
    hue = sixths / chroma.clamp_min(torch.finfo(images.dtype).tiny) + 2 * brightest + 6 * turn
    # Each channel is a trapezium over the circle: full within a sixth of its own colour, none in the opposite third.
    offset = hue.new_tensor([5.0, 3.0, 1.0])[:, None, None]
    place = (hue[:, None] + offset).remainder(6)
    return value[:, None] - chroma[:, None] * torch.minimum(place, 4 - place).clamp(0, 1)


def random_grayscale(images: Tensor, probability: float = 0.2) -> Tensor:
    """Remove the colours of each image with some probability; images without three channels stay as they are.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.
    probability : float, default=0.2
        Probability with which an image loses its colours.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    if images.shape[1] != 3:
        return images
    return _for_some(images, _grey(images).expand_as(images), probability)


def gaussian_blur(images: Tensor, sigma: tuple[float, float] = (0.1, 2.0)) -> Tensor:
    """Blur each image by a Gaussian of random width.

    The Gaussian is cut off at a twentieth of the shorter side, rounded; so the kernel is as wide as SimCLR's, a tenth
    of the side. Beyond the border the outermost pixels are repeated.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        A batch of images, with pixels on any scale.
    sigma : tuple of two floats, default=(0.1, 2.0)
        Smallest and largest standard deviation in pixels, drawn uniformly.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)

    Raises
    ------
    ValueError
        Unless 0 < low <= high.
    """
    if not 0 < sigma[0] <= sigma[1] < math.inf:
        raise ValueError(f"there must be 0 < low <= high for sigma; got {sigma}.")
    n, channels, height, width = images.shape
    radius = round(min(height, width) / 20)
    distance = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    # A softmax of the exponents is the Gaussian, normalised to sum 1 over the pixels of the kernel.
    kernel = torch.softmax(-(distance / _uniform(n, sigma, images)[:, None]).square() / 2, 1)
    kernel = kernel.repeat_interleave(channels, 0)[:, None, None]
    # Each channel of each image is a group of its own, to be blurred along its rows, then along its columns.
    planes = functional.pad(images.reshape(1, n * channels, height, width), [radius] * 4, mode="replicate")
    planes = functional.conv2d(planes, kernel, groups=n * channels)
    return functional.conv2d(planes, kernel.mT, groups=n * channels).reshape(images.shape)


def simclr(images: Tensor, flip: bool = True) -> Tensor:
    """Apply SimCLR's augmentation: resized crop, flip, changed or removed colours, and for large images a blur.

    Chen, Kornblith, Norouzi & Hinton, "A Simple Framework for Contrastive Learning of Visual Representations" (2020),
    appendix A; for images below 64 pixels as for CIFAR-10 in appendix B.9. `random_resized_crop`, `random_flip`,
    `color_jitter` with probability 0.8 and a strength of 1 (0.5 below 64 pixels), `random_grayscale`, and from 64
    pixels on `gaussian_blur` with probability 1/2. The smallest crop has 0.2 of the image's area; in the paper it has
    0.08.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        Pixels in [0, 1]. Images without three channels have no saturation and hue to change.
    flip : bool, default=True
        Whether images are mirrored at random. Choose False where left and right differ in meaning, as in digits.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    large = min(images.shape[2:]) >= _LARGE_SIDE
    images = random_resized_crop(images)
    if flip:
        images = random_flip(images)
    images = _for_some(images, color_jitter(images, 1.0 if large else 0.5), 0.8)
    images = random_grayscale(images)
    return _for_some(images, gaussian_blur(images), 0.5) if large else images


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "crop-flip": crop_and_flip,
    "crop-flip-mask": crop_flip_and_mask,
    "simclr": simclr,
    "simclr-no-flip": partial(simclr, flip=False),
}
# Augmentations for pixels on any scale; the others need pixels in [0, 1].
SCALE_FREE = {"crop-flip", "crop-flip-mask"}


def augmented(
    images: Tensor, augmentation: str | Callable[[Tensor], Tensor] | None, what: str = "augmentation"
) -> Tensor:
    """Apply an estimator's ``augmentation`` to images.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        Images whose pixels are on the scale that the augmentation needs.
    augmentation : str, callable or None
        A key of `AUGMENTATIONS`, a function of images, or None, which leaves them as they are.
    what : str, default="augmentation"
        Name of the parameter, for messages.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)

    Raises
    ------
    ValueError
        If a function returns no tensor, or one of another shape.
    """
    if augmentation is None:
        return images
    if not callable(augmentation):
        return AUGMENTATIONS[augmentation](images)
    # A user's function is checked: a wrong shape would fail later, in a layer whose message does not name the function.
    given = augmentation(images)
    if not isinstance(given, Tensor) or given.shape != images.shape:
        shape = tuple(given.shape) if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise ValueError(f"{what} gave {shape}; it must give a tensor of shape {tuple(images.shape)}.")
    return given.to(images)
