"""Preprocessing before a network, as one torch module: pixels to [0, 1], scaling, whitening, padding, unit length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..augment import pad_to_square
from ..networks.products import even_product
from .scaling import center_and_scale
from .whitening import Whitener

__all__ = ["Arrangement", "Front"]

# Scaled values beyond this are set to it: their squares would overflow in single precision, and have no score.
_FARTHEST = 1e16


class Arrangement(nn.Module):
    """Give images their shape, and bring uint8 pixels to [0, 1].

    Parameters
    ----------
    image_shape : tuple (C, H, W) or None, default=None
        Shape of an image, flattened or not; None for vectors.
    uint8 : bool, default=False
        Whether pixels are in [0, 255] and are divided by 255.
    """

    def __init__(self, image_shape: tuple[int, int, int] | None = None, uint8: bool = False):
        super().__init__()
        self.image_shape, self.uint8 = image_shape, uint8

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows of shape (n, n_features) or (n, C, H, W): uint8 as float32, others in the dtype they came in."""
        if self.image_shape is None:
            return rows
        rows = rows.reshape(-1, *self.image_shape)
        return rows.float() / 255 if self.uint8 else rows


class Front(Arrangement):
    """Turn rows, as they come to an estimator, into the input of its network.

    Parameters
    ----------
    image_shape, uint8
        As of `Arrangement`.
    scaler : StandardScaler, MinMaxScaler, Whitener or None, default=None
        Fitted on features, or on channels of images.
    flat : bool, default=False
        Whether images become vectors, before they are scaled.
    pads : bool, default=False
        Whether scaled images are padded to squares.
    unit : bool, default=False
        Whether vectors are scaled to length 1, as the last step.
    double : bool, default=True
        Whether the scaling computes in double precision, which MPS lacks.
    """

    center: Tensor | None
    scale: Tensor | None
    components: Tensor | None

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        uint8: bool = False,
        scaler: Any = None,
        *,
        flat: bool = False,
        pads: bool = False,
        unit: bool = False,
        double: bool = True,
    ):
        super().__init__(image_shape, uint8)
        self.flat, self.pads, self.unit = flat, pads, unit
        center = scale = components = None
        if scaler is not None:
            dtype = torch.float64 if double else torch.float32
            center, scale = (torch.tensor(part, dtype=dtype) for part in center_and_scale(scaler))
        if isinstance(scaler, Whitener):
            components = torch.tensor((scaler.components_ / scaler.deviations_).T, dtype=torch.float32)
        # Buffers, so that they move to the device with the module.
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)
        self.register_buffer("components", components)

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows of float32 as the network takes them, of shape (n, n_features) or (n, C, H, W)."""
        rows = super().forward(rows)
        return self.scaled(rows.flatten(1) if self.flat else rows)

    def scaled(self, rows: Tensor) -> Tensor:
        """Return rows as the network takes them; images come in their shape, with pixels in [0, 1]."""
        if self.center is not None and self.scale is not None:
            # In double precision, except on MPS: single precision would erase a feature such as 1,600,000,000 +- 10.
            shape = (-1, *[1] * (rows.ndim - 2))
            rows = (rows.to(self.center.dtype) - self.center.reshape(shape)) / self.scale.reshape(shape)
            rows = rows.clamp(-_FARTHEST, _FARTHEST)
        rows = rows.float()
        if self.components is not None:
            rows = even_product(rows, self.components).clamp(-_FARTHEST, _FARTHEST)
        if self.pads:
            rows = pad_to_square(rows)
        # The smallest normal number in place of a zero denominator keeps a row of zeros as it is.
        return functional.normalize(rows, eps=torch.finfo(rows.dtype).tiny) if self.unit else rows
