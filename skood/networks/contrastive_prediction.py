"""Contrastive predictive coding of images: the patches, the context network and the InfoNCE loss.

van den Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018), as Ahmed & Courville,
"Detecting Semantic Anomalies" (2020), appendix C, use it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .products import EvenLinear

# The context of a patch reaches so many rows above its own, and so many columns to each side.
_CONTEXT_ROWS = 3


def patch_geometry(side: int) -> tuple[int, int, int]:
    """Return size and stride of the patches of a square image, and the number of patches in a row.

    The stride is an eighth of the image, rounded down, and neighbours overlap by a half. Images of 32, 96, 224 or 256
    pixels thus have 7 x 7 patches, as have those of van den Oord, Li & Vinyals (2018), which are 256 pixels wide. For
    sides that 8 does not divide the grid is finer, and the last pixels may be in no patch.

    Parameters
    ----------
    side : int
        Side of the image, in pixels.

    Returns
    -------
    size, stride, grid : int
        Side of a patch in pixels, distance between neighbouring patches in pixels, and number of patches in a row.

    Raises
    ------
    ValueError
        If the image has fewer than 4 pixels per side, and so fewer than 3 patches in a row.

    Examples
    --------
    >>> from skood.networks import patch_geometry
    >>> patch_geometry(32), patch_geometry(28)
    ((8, 4, 7), (6, 3, 8))
    """
    stride = max(1, side // 8)
    size = 2 * stride
    grid = (side - size) // stride + 1
    if grid < 3:
        raise ValueError(f"images of {side} x {side} pixels are too small to be cut into patches; pass at least 4 x 4.")
    return size, stride, grid


def patches(images: Tensor, size: int, stride: int) -> Tensor:
    """Cut square images into overlapping patches.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, H)
        A batch of square images.
    size, stride : int
        Side and stride of the patches in pixels, from `patch_geometry`.

    Returns
    -------
    patches : Tensor of shape (n, grid, grid, C, size, size)
        The patch in row i and column j of each image at [:, i, j].

    Raises
    ------
    ValueError
        If the images are not square.
    """
    height, width = images.shape[2:]
    if height != width:
        raise ValueError(f"only square images are cut into patches; these are {height} x {width}.")
    return images.unfold(2, size, stride).unfold(3, size, stride).permute(0, 2, 3, 1, 4, 5)


def info_nce(predictions: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
    """Return the InfoNCE loss of van den Oord, Li & Vinyals (2018), equation 4, with candidates from the same image.

    The score of a candidate is its scalar product with the prediction, divided by the square root of the number of
    features. This only rescales what is learned; without it the scores of long encodings start so far apart that the
    loss is nearly flat.

    Parameters
    ----------
    predictions : Tensor of shape (n, P, F)
        P predicted encodings for each image.
    candidates : Tensor of shape (n, Q, F)
        The Q encodings of each image.
    targets : Tensor of int of shape (P,)
        For each prediction, the index of the candidate that it predicts; the other candidates are its negatives.

    Returns
    -------
    loss : Tensor of shape (n, P)
        The cross-entropy of each prediction.
    """
    scores = predictions @ candidates.transpose(1, 2) / candidates.shape[2] ** 0.5
    return functional.cross_entropy(scores.transpose(1, 2), targets.expand(len(scores), -1), reduction="none")


class _RowsAbove(nn.Module):
    """Apply a residual block that sees a patch's own row, the row above, and one column to each side."""

    def __init__(self, width: int):
        super().__init__()
        # One column left and right and one row above, none below: a patch must not see those that it predicts.
        self.pad = nn.ZeroPad2d((1, 1, 1, 0))
        self.conv1 = nn.Conv2d(width, width, (2, 3))
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same shape (n, width, rows, columns)."""
        return x + self.conv2(functional.relu(self.conv1(self.pad(functional.relu(x)))))


class ContrastivePrediction(nn.Module):
    """Predict the encodings of patches from the patches above them: contrastive predictive coding.

    van den Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018). A few convolutions
    sum up a patch's row and the rows above it, never those below. From this context one linear map for each step
    predicts the encoding of the patch that many rows below, which must be distinguished from all other patches of the
    same image. There are no negatives from other images, because batch normalisation in the encoder would reveal them:
    appendix C of Ahmed & Courville (2020). So nothing here depends on the rest of a batch.

    The paper describes no network; this one, and the standardisation of each encoding, are skood's own.

    Parameters
    ----------
    n_features : int
        Length of an encoding.
    grid : int
        Number of patches in a row, and of rows.
    n_steps : int or None, default=None
        Number of rows below that are predicted. None means 5, as in van den Oord et al., or all rows if there are
        fewer.
    hidden_size : int or None, default=None
        Channels of the context network. None means ``n_features``.

    Raises
    ------
    ValueError
        If the grid has fewer rows than the steps need.
    """

    def __init__(self, n_features: int, grid: int, n_steps: int | None = None, hidden_size: int | None = None):
        super().__init__()
        n_steps = min(5, grid - 1) if n_steps is None else n_steps
        if not 1 <= n_steps < grid:
            raise ValueError(f"in a grid of {grid} rows there can be 1 to {grid - 1} steps; got n_steps={n_steps}.")
        self.grid = grid
        width = n_features if hidden_size is None else hidden_size
        blocks = [_RowsAbove(width) for _ in range(_CONTEXT_ROWS)]
        self.context = nn.Sequential(nn.Conv2d(n_features, width, 1), *blocks, nn.ReLU())
        self.steps = nn.ModuleList(EvenLinear(width, n_features, bias=False) for _ in range(n_steps))

    def forward(self, encodings: Tensor) -> Tensor:
        """Return the loss of each image: the mean InfoNCE of all its predictions.

        Parameters
        ----------
        encodings : Tensor of shape (n, grid, grid, n_features)
            The encodings of each image's patches, by row and column.

        Returns
        -------
        loss : Tensor of shape (n,)

        Raises
        ------
        ValueError
            If the grid of patches has another size.
        """
        grid = self.grid
        if encodings.shape[1:3] != (grid, grid):
            raise ValueError(f"there must be {grid} x {grid} patches; got {tuple(encodings.shape[1:3])}.")
        # Each encoding is standardised, because nothing else bounds it: with a large weight of the loss it would grow
        # until training diverges.
        encodings = functional.layer_norm(encodings, encodings.shape[3:])
        context = self.context(encodings.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        candidates = encodings.flatten(1, 2)
        numbers = torch.arange(grid * grid, device=encodings.device)
        losses = [
            # Patches are numbered row by row, so the patch ``step`` rows below has a number greater by step * grid.
            info_nce(predict(context[:, :-step]).flatten(1, 2), candidates, numbers[step * grid :])
            for step, predict in enumerate(self.steps, start=1)
        ]
        return torch.cat(losses, 1).mean(1)
