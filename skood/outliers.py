"""Make auxiliary outliers from in-distribution rows.

The functions take and return tensors on any device, and draw from torch's generator: a detector makes new outliers for
each batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .networks.randomness import drawing, fit_generator

__all__ = [
    "SYNTHETIC",
    "add_noise",
    "blend",
    "outlier_kinds",
    "permute_features",
    "scatter",
    "shuffle_patches",
    "synthesize",
    "uniform_box",
]


def permute_features(rows: Tensor, n_outliers: int) -> Tensor:
    """Draw every feature (or pixel) from another row: the marginals stay, the dependence between features goes.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, ...)
        In-distribution rows.
    n_outliers : int
        Number of outliers.

    Returns
    -------
    outliers : Tensor of shape (n_outliers, ...)
    """
    source = torch.randint(len(rows), (n_outliers, *rows.shape[1:]), **drawing(rows.device))
    return rows.gather(0, source)


def uniform_box(rows: Tensor, n_outliers: int, margin: float = 0.5) -> Tensor:
    """Draw points uniformly from the rows' bounding box, which is enlarged on all sides.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, n_features) or (n_rows, C, H, W)
        In-distribution rows. For images the box is the range of each channel, not enlarged: the result is noise.
    n_outliers : int
        Number of outliers.
    margin : float, default=0.5
        Share of its width by which the box of vectors grows at either side.

    Returns
    -------
    outliers : Tensor of shape (n_outliers, ...)
    """
    over = 0 if rows.ndim == 2 else (0, 2, 3)
    low, high = rows.amin(over, keepdim=True), rows.amax(over, keepdim=True)
    width = high - low
    if rows.ndim == 2:
        low, width = low - margin * width, (1 + 2 * margin) * width
    return low + width * torch.rand(n_outliers, *rows.shape[1:], **drawing(rows.device))


def add_noise(rows: Tensor, n_outliers: int, low: float = 0.5, high: float = 3.0) -> Tensor:
    """Add Gaussian noise to rows drawn at random; each row's scale is log-uniform in [low, high].

    Parameters
    ----------
    rows : Tensor of shape (n_rows, ...)
        In-distribution rows.
    n_outliers : int
        Number of outliers.
    low, high : float, default=0.5 and 3.0
        Smallest and largest standard deviation of the noise; equal numbers give all rows the same.

    Returns
    -------
    outliers : Tensor of shape (n_outliers, ...)
    """
    drawn = _drawn(rows, n_outliers)
    scale = torch.empty(n_outliers, *[1] * (rows.ndim - 1), device=rows.device)
    generator = fit_generator(rows.device)
    scale = scale.uniform_(math.log(low), math.log(high), generator=generator).exp_()
    return drawn + scale * torch.empty_like(drawn).normal_(generator=generator)


def scatter(rows: Tensor, n_outliers: int, low: float = 3.0, high: float = 30.0) -> Tensor:
    """Move rows drawn at random away in all directions, by Gaussian noise of many times the rows' own deviation.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, ...)
        In-distribution rows.
    n_outliers : int
        Number of outliers.
    low, high : float, default=3.0 and 30.0
        Smallest and largest standard deviation of the noise, in units of the root mean square deviation of the rows
        from their mean, over all features; if that is 0, in units of 1.

    Returns
    -------
    outliers : Tensor of shape (n_outliers, ...)
    """
    deviation = (rows - rows.mean(0)).square().mean().sqrt()
    unit = torch.where(deviation > 0, deviation, 1.0)
    return add_noise(rows / unit, n_outliers, low, high) * unit


def shuffle_patches(rows: Tensor, n_outliers: int, grid: int = 4) -> Tensor:
    """Cut images drawn at random into ``grid`` x ``grid`` patches, and shuffle the patches.

    Texture stays, the arrangement of the whole is lost.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, C, H, W)
        In-distribution images. Rows and columns of pixels that fill no patch stay where they are.
    n_outliers : int
        Number of outliers.
    grid : int, default=4
        Number of patches along each side; at most one for each pixel.

    Returns
    -------
    outliers : Tensor of shape (n_outliers, C, H, W)
    """
    images = _drawn(rows, n_outliers)
    n, channels, height, width = images.shape
    down, across = min(grid, height), min(grid, width)
    tall, wide = height // down, width // across
    part = images[:, :, : down * tall, : across * wide]
    patches = part.reshape(n, channels, down, tall, across, wide).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(n, down * across, -1)
    order = torch.rand(patches.shape[:2], **drawing(rows.device)).argsort(1)
    patches = patches.gather(1, order[:, :, None].expand_as(patches))
    part = patches.reshape(n, down, across, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
    images[:, :, : down * tall, : across * wide] = part.reshape(n, channels, down * tall, across * wide)
    return images


def blend(outliers: Tensor, rows: Tensor, alpha: float = 0.1) -> Tensor:
    """Return (1 - alpha) outlier + alpha row, for each outlier and an in-distribution row drawn at random.

    This brings a corpus closer to the data: Mohseni et al. blend images of ImageNet like this, with alpha = 0.1 [1]_.

    Parameters
    ----------
    outliers : Tensor of shape (n_outliers, ...)
        Auxiliary outliers.
    rows : Tensor of shape (n_rows, ...)
        In-distribution rows.
    alpha : float in [0, 1], default=0.1
        Share of the in-distribution row.

    Returns
    -------
    outliers : Tensor of shape (n_outliers, ...)

    References
    ----------
    .. [1] Mohseni et al., "Self-Supervised Learning for Generalizable Out-of-Distribution Detection", AAAI 2020.
    """
    return torch.lerp(outliers, _drawn(rows, len(outliers)), alpha)


# Names that the parameter ``outliers`` of detectors understands.
SYNTHETIC: dict[str, Callable[[Tensor, int], Tensor]] = {
    "far": scatter,
    "noise": add_noise,
    "patches": shuffle_patches,
    "permuted": permute_features,
    "uniform": uniform_box,
}
_AUTO_VECTORS = ("noise", "uniform")
_AUTO_IMAGES = ("patches", "noise", "uniform")


def outlier_kinds(
    outliers: Any, image_shape: tuple[int, ...] | None, n_auxiliary: int, outlier_label: Any
) -> list[str | Callable]:
    """Return the kinds of training outliers that an estimator's ``outliers`` stands for.

    Parameters
    ----------
    outliers : str, callable or sequence of these
        "auto", "auxiliary", names of `SYNTHETIC`, functions ``(rows, n_outliers) -> outliers``.
    image_shape : tuple or None
        Shape of the rows; None for vectors.
    n_auxiliary : int
        Number of rows that y marks as auxiliary outliers.
    outlier_label : number, str, bool, or list of these
        The label that marks them, or several; used in messages.

    Returns
    -------
    kinds : list of str or callable
        "auxiliary", and kinds that `synthesize` takes.

    Raises
    ------
    ValueError
        If a kind is unknown, does not suit the rows, or asks for auxiliary outliers where there are none.
    """
    if isinstance(outliers, str) and outliers == "auto":
        if n_auxiliary:
            return ["auxiliary"]
        return list(_AUTO_VECTORS if image_shape is None else _AUTO_IMAGES)
    kinds = [outliers] if isinstance(outliers, str) or callable(outliers) else list(outliers)
    for kind in kinds:
        if not (callable(kind) or (isinstance(kind, str) and kind in {"auxiliary", *SYNTHETIC})):
            raise ValueError(
                f"outliers={kind!r} is unknown; give 'auto' alone, or one or several of 'auxiliary', "
                f"{', '.join(map(repr, SYNTHETIC))} and functions (rows, n_outliers) -> outliers."
            )
    if not kinds:
        raise ValueError("outliers is empty; name at least one kind.")
    if "auxiliary" in kinds and not n_auxiliary:
        raise ValueError(
            f"outliers='auxiliary' needs auxiliary outliers: mark rows of y with outlier_label={outlier_label!r}. "
            f"'auto' makes outliers from the in-distribution rows if no row is marked."
        )
    if "patches" in kinds and image_shape is None:
        raise ValueError("outliers='patches' is for images; X holds vectors. Give 'permuted', its counterpart there.")
    return kinds


def synthesize(
    rows: Tensor, n_outliers: int, kinds: Sequence[str | Callable[[Tensor, int], Tensor]], what: str = "outliers"
) -> Tensor:
    """Make outliers of several kinds in equal shares; the remainder goes to kinds drawn at random.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, ...)
        In-distribution rows.
    n_outliers : int
        Number of outliers, at least 1.
    kinds : sequence of str or callable
        Names of `SYNTHETIC`, or functions ``(rows, n_outliers) -> outliers``, which get a copy of the rows that they
        may change.
    what : str, default="outliers"
        Name of the parameter, for messages.

    Returns
    -------
    outliers : Tensor of shape (n_outliers, ...)
        Of the rows' dtype, on their device, without gradients.

    Raises
    ------
    ValueError
        If a function returns no tensor, or one of another shape.
    """
    kinds = [kinds[place] for place in torch.randperm(len(kinds), **drawing()).tolist()]
    bounds = [n_outliers * i // len(kinds) for i in range(len(kinds) + 1)]
    made = []
    for kind, start, stop in zip(kinds, bounds, bounds[1:], strict=False):
        if start == stop:
            continue
        outliers = kind(rows.clone(), stop - start) if callable(kind) else SYNTHETIC[kind](rows, stop - start)
        shape = (stop - start, *rows.shape[1:])
        if not isinstance(outliers, Tensor) or outliers.shape != shape:
            given = tuple(outliers.shape) if isinstance(outliers, Tensor) else f"a {type(outliers).__name__}"
            raise ValueError(f"{what}: {kind} gave {given}; it must give a tensor of shape {shape}.")
        made.append(outliers.detach().to(rows))
    return torch.cat(made)


def _drawn(rows: Tensor, n: int) -> Tensor:
    """Return rows drawn at random, with replacement."""
    return rows[torch.randint(len(rows), (n,), **drawing(rows.device))]


def filled_up(rows, auxiliary, n_outliers: int, kinds) -> Tensor:
    """Return the auxiliary outliers of a batch, and synthetic ones until there are ``n_outliers``.

    Parameters
    ----------
    rows : Tensor of shape (n, ...)
        In-distribution rows, from which outliers are made.
    auxiliary : Tensor of shape (m, ...) or None
        Auxiliary outliers of the batch.
    n_outliers : int
        Number of outliers wanted.
    kinds : sequence
        Kinds from `outlier_kinds`; "auxiliary" makes no outliers.

    Returns
    -------
    outliers : Tensor of shape (max(m, n_outliers), ...), or (m, ...) if nothing is to be made
    """
    made = [kind for kind in kinds if kind != "auxiliary"]
    outliers = [] if auxiliary is None else [auxiliary]
    n_made = n_outliers - sum(map(len, outliers))
    if made and n_made > 0:
        outliers.append(synthesize(rows, n_made, made))
    return torch.cat(outliers)
