"""Image transforms on whole batches of tensors (n, C, H, W); randomness comes from torch's generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["crop_and_flip", "random_crop", "random_flip"]


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
    padded = functional.pad(images, [padding] * 4)
    top, left = torch.randint(2 * padding + 1, (2, n, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    number = torch.arange(n, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


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


def crop_and_flip(images: Tensor) -> Tensor:
    """The usual augmentation of CIFAR images: `random_crop`, then `random_flip`.

    Shifts are by up to an eighth of the shorter side, 4 pixels at most.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)

    Returns
    -------
    images : Tensor of shape (n, C, H, W)
    """
    return random_flip(random_crop(images, min(4, *(size // 8 for size in images.shape[2:]))))
