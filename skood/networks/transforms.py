"""Transform rows in ways that a network can learn to distinguish, and recognise the transformation.

A module of transformations is called as ``transforms(rows, which)`` and has an attribute ``n_transforms``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .products import EvenLinear


def rotate(images: Tensor, turns: Tensor) -> Tensor:
    """Turn each image counter-clockwise by its own number of quarter turns, as `torch.rot90` does.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, H)
        A batch of square images.
    turns : Tensor of int of shape (n,)
        Number of quarter turns of each image; 4 are the same as none.

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
        # The whole batch is turned, and `where` chooses images: with a mask, the CPU would wait until the device has
        # counted the images.
        rotated = torch.where(turns == turn, images.rot90(turn, (2, 3)), rotated)
    return rotated


class Rotations(nn.Module):
    """Turn square images by 0, 90, 180 or 270 degrees: four transformations, the first of which changes nothing."""

    n_transforms = 4

    def forward(self, rows: Tensor, which: Tensor) -> Tensor:
        """Return each row turned by 90 degrees times its entry of ``which``."""
        return rotate(rows, which)


class AffineMaps(nn.Module):
    """Apply fixed random maps x -> A x + b to vectors: A permutes the features and flips signs, b is normal.

    The first map is the identity. For vectors, such maps take the place of rotations of images: Bergman & Hoshen,
    "Classification-Based Anomaly Detection for General Data" (ICLR 2020), where A is any matrix. The maps here keep all
    distances, and a permutation with signs needs no matrix product.

    Parameters
    ----------
    n_features : int
        Length of a vector.
    n_transforms : int
        Number of maps.
    """

    order: Tensor
    sign: Tensor
    shift: Tensor

    def __init__(self, n_features: int, n_transforms: int):
        super().__init__()
        self.n_transforms = n_transforms
        order = torch.rand(n_transforms, n_features).argsort(1)
        sign = torch.randint(2, (n_transforms, n_features)) * 2.0 - 1
        shift = torch.randn(n_transforms, n_features)
        order[0], sign[0], shift[0] = torch.arange(n_features), 1, 0
        # Buffers are saved with the module, because scoring must transform rows as training did.
        self.register_buffer("order", order)
        self.register_buffer("sign", sign)
        self.register_buffer("shift", shift)

    def forward(self, rows: Tensor, which: Tensor) -> Tensor:
        """Return each row mapped by the map of its entry of ``which``."""
        return rows.gather(1, self.order[which]) * self.sign[which] + self.shift[which]


class GivenTransforms(nn.Module):
    """Apply functions that the user wrote.

    Parameters
    ----------
    transforms : sequence of callable
        Functions, each of which maps a batch of rows to a batch of the same shape.
    """

    def __init__(self, transforms: Sequence[Callable[[Tensor], Tensor]]):
        super().__init__()
        self.transforms = list(transforms)
        self.n_transforms = len(self.transforms)

    def forward(self, rows: Tensor, which: Tensor) -> Tensor:
        """Return each row transformed by the function of its entry of ``which``."""
        changed = torch.empty_like(rows)
        # Only the transformations that were drawn are called, each with all of its rows at once.
        for number in which.unique().tolist():
            chosen = which == number
            changed[chosen] = self._applied(number, rows[chosen])
        return changed

    def unsteady(self, rows: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Return the first function whose result for a row depends on chance or on the other rows; None if none does.

        Parameters
        ----------
        rows : Tensor
            Some rows, on which the functions are tried out.
        """
        for number, transform in enumerate(self.transforms):
            # Copied, because a function may work in place.
            first = self._applied(number, rows.clone())
            try:
                alone = torch.cat([self._applied(number, row[None].clone()) for row in rows])
            except Exception:  # users' functions may raise anything
                return transform
            for again in (self._applied(number, rows.clone()), alone):
                if not torch.allclose(first, again, rtol=1e-4, atol=1e-5, equal_nan=True):
                    return transform
        return None

    def _applied(self, number: int, rows: Tensor) -> Tensor:
        """Return rows transformed by one of the functions; raise a ValueError if it gives no such rows."""
        given = self.transforms[number](rows)
        if not isinstance(given, Tensor) or given.shape != rows.shape:
            shape = tuple(given.shape) if isinstance(given, Tensor) else f"a {type(given).__name__}"
            raise ValueError(
                f"auxiliary: {self.transforms[number]} gave {shape}; it must give a tensor of shape "
                f"{tuple(rows.shape)}."
            )
        return given.to(rows)


class Recognition(nn.Module):
    """Recognise which transformation a row went through: the head of the auxiliary task.

    Parameters
    ----------
    n_features : int
        Number of features of the trunk.
    transforms : Rotations, AffineMaps or GivenTransforms
        The transformations. The head keeps them, so that they are saved with it.
    """

    def __init__(self, n_features: int, transforms: Rotations | AffineMaps | GivenTransforms):
        super().__init__()
        self.transforms = transforms
        self.head = EvenLinear(n_features, transforms.n_transforms)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits of the transformations, of shape (n, n_transforms)."""
        return self.head(features)
