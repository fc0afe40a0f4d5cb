"""Image transforms on whole batches of tensors (n, C, H, W); randomness comes from torch's generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "AUGMENTATIONS",
    "augmented",
    "center_crop",
    "crop_and_flip",
    "crop_flip_and_mask",
    "mask_center",
    "pad_to_square",
    "random_crop",
    "random_crop_to",
    "random_flip",
    "rotate",
]


def _windows(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """The part of each image whose first row and column are in ``top`` and ``left``, both of shape (n, 1)."""
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    number = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_crop(images: Tensor, padding: int = 4) -> Tensor:
    """Shift each image by up to ``padding`` pixels each way, on a border of zeros.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
    padding : int, default=4

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    n, _, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, n, 1), device=images.device)
    return _windows(functional.pad(images, [padding] * 4), top, left, height, width)


def random_crop_to(images: Tensor, size: int) -> Tensor:
    """Cut a square out of each image, each at a place of its own.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
    size : int
        Side of the square. A side of the images that is not larger is kept whole.

    Returns
    -------
    images : Tensor of shape (n, C, min(H, size), min(W, size))
    """
    n, _, *sides = images.shape
    height, width = (min(side, size) for side in sides)
    top = torch.randint(sides[0] - height + 1, (n, 1), device=images.device)
    left = torch.randint(sides[1] - width + 1, (n, 1), device=images.device)
    return _windows(images, top, left, height, width)


def center_crop(images: Tensor, size: int) -> Tensor:
    """Cut the central square out of each image.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
    size : int
        Side of the square. A side of the images that is not larger is kept whole.

    Returns
    -------
    images : Tensor of shape (n, C, min(H, size), min(W, size))
        Where an odd number of pixels goes, one more goes at the end.
    """
    for dim in (2, 3):
        side = images.shape[dim]
        if side > size:
            images = images.narrow(dim, (side - size) // 2, size)
    return images


def pad_to_square(images: Tensor) -> Tensor:
    """Put each image in the middle of a square of zeros, as wide as its longer side.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)

    Returns
    -------
    images : Tensor of shape (n, C, max(H, W), max(H, W))
        Where an odd number of zeros is added, one more comes at the end.
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

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    flips = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(flips, images.flip(3), images)


def rotate(images: Tensor, turns: Tensor) -> Tensor:
    """Turn each image by a number of quarters of its own, as `torch.rot90` does: counter-clockwise.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, H)
    turns : Tensor of int of shape (n,)
        Quarter turns; 4 are none.

    Returns
    -------
    images : Tensor of shape (n, C, H, H)

    Raises
    ------
    ValueError
        If the images are not square.
    """
    height, width = images.shape[2:]
    if height != width:
        raise ValueError(f"only square images can be turned by a quarter; these are {height} x {width}.")
    turns = turns.remainder(4)[:, None, None, None]
    rotated = images
    for turn in (1, 2, 3):
        # Choosing among turned batches, unlike picking images, never waits for the device.
        rotated = torch.where(turns == turn, images.rot90(turn, (2, 3)), rotated)
    return rotated


def mask_center(images: Tensor, size: float = 0.5, region: float = 0.66) -> Tensor:
    """Set a random square within the central part of each image to zero.

    The control experiment of Ahmed & Courville, "Detecting Semantic Anomalies" (2020), section 5.2. The defaults are
    its squares of 16 x 16 within the central 21 x 21 pixels of images of 32 x 32.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
    size : float, default=0.5
        Side of the square, as a share of the shorter side of the images; rounded to whole pixels.
    region : float, default=0.66
        Side of the central square that it lies in, likewise. Where it cannot be in the very middle, it is half a pixel
        nearer to the first row or column.

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
    start = torch.randint(room - side + 1, (2, n, 1), device=images.device)
    inside = []
    for first, length in zip(start, sides, strict=True):
        place = torch.arange(length, device=images.device) - (length - room) // 2 - first
        inside.append((place >= 0) & (place < side))
    rows, columns = inside
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def crop_and_flip(images: Tensor) -> Tensor:
    """The usual augmentation of CIFAR images: `random_crop`, then `random_flip`.

    Shifts are by up to an eighth of the shorter side: 4 pixels of 32, 12 of 96.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    return random_flip(random_crop(images, min(images.shape[2:]) // 8))


def crop_flip_and_mask(images: Tensor) -> Tensor:
    """`crop_and_flip`, then `mask_center`.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    return mask_center(crop_and_flip(images))


AUGMENTATIONS = {"crop-flip": crop_and_flip, "crop-flip-mask": crop_flip_and_mask}


def augmented(images: Tensor, augmentation: str | Callable[[Tensor], Tensor] | None) -> Tensor:
    """What an estimator's ``augmentation`` makes of images.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
    augmentation : str, callable or None
        A key of `AUGMENTATIONS`, a function of images, or None, which leaves them as they are.

    Returns
    -------
    images : Tensor of shape (n, C, H, W)

    Raises
    ------
    ValueError
        If a function gives no tensor, or one of another shape.
    """
    if augmentation is None:
        return images
    if not callable(augmentation):
        return AUGMENTATIONS[augmentation](images)
    given = augmentation(images)
    if not isinstance(given, Tensor) or given.shape != images.shape:
        shape = tuple(given.shape) if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise ValueError(f"augmentation gave {shape}; it must give a tensor of shape {tuple(images.shape)}.")
    return given.to(images)
