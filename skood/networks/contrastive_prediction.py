"""Contrastive predictive coding of images: the patches, the context network and the InfoNCE loss.

van den Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018), as Ahmed & Courville,
"Detecting Semantic Anomalies" (2020), appendix C, use it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Rows above its own that the context network sees; as many columns to each side.
_CONTEXT_ROWS = 3


def patch_geometry(side: int) -> tuple[int, int, int]:
    """Return side and stride of the patches of a square image, and how many there are in a row.

    The stride is an eighth of the image, rounded down, and neighbours overlap by a half. Images of 32, 96, 224 or 256
    pixels thus have 7 x 7 patches; 7 x 7 are those of van den Oord, Li & Vinyals (2018), who do so with 256 pixels.
    For sides that 8 does not divide the grid is finer, and the last pixels may be in no patch.

    Parameters
    ----------
    side : int
        Side of the image, in pixels.

    Returns
    -------
    size, stride, grid : int
        Side of a patch, pixels from one to the next, and patches in a row.

    Raises
    ------
    ValueError
        If there would be fewer than 3 patches in a row: with less than 4 pixels.

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
        raise ValueError(f"images of {side} x {side} pixels are too small to be cut into patches; there must be 4 x 4.")
    return size, stride, grid


def patches(images: Tensor, size: int, stride: int) -> Tensor:
    """Cut square images into overlapping patches, by row and column.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, H)
    size, stride : int
        See `patch_geometry`.

    Returns
    -------
    patches : Tensor of shape (n, grid, grid, C, size, size)

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
    """Return the InfoNCE loss: van den Oord, Li & Vinyals (2018), equation 4, with the candidates of one image each.

    The score of a candidate is its scalar product with the prediction, divided by the root of their length. This only
    rescales what is learned; undivided, scores of long encodings start so far apart that the loss is nearly flat.

    Parameters
    ----------
    predictions : Tensor of shape (n, P, F)
    candidates : Tensor of shape (n, Q, F)
    targets : Tensor of int of shape (P,)
        Which of the candidates each prediction is of; the others are its negatives.

    Returns
    -------
    loss : Tensor of shape (n, P)
    """
    scores = predictions @ candidates.transpose(1, 2) / candidates.shape[2] ** 0.5
    return functional.cross_entropy(scores.transpose(1, 2), targets.expand(len(scores), -1), reduction="none")


class _RowsAbove(nn.Module):
    """Apply a residual block that sees its own row, the one above, and a column to each side; padded with zeros."""

    def __init__(self, width: int):
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 1, 1, 0))
        self.conv1 = nn.Conv2d(width, width, (2, 3))
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same shape (n, width, rows, columns)."""
        return x + self.conv2(functional.relu(self.conv1(self.pad(functional.relu(x)))))


class ContrastivePrediction(nn.Module):
    """Predict the encodings of patches from those above them: contrastive predictive coding.

    van den Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018). A few convolutions
    sum up what is in a patch's row and in the rows above, never below. From there one linear map for each step predicts
    the encoding of the patch so many rows below, to be told from all other patches of the same image. There are no
    negatives from other images, which batch normalisation of the encoder would give away: appendix C of Ahmed &
    Courville (2020). So nothing here depends on the rest of a batch.

    The paper gives no network; this one is ours, as is the standardisation of each encoding.

    Parameters
    ----------
    n_features : int
        Length of an encoding.
    grid : int
        Number of patches in a row, and of rows.
    n_steps : int or None, default=None
        How many rows below are predicted; None is 5, as van den Oord et al., or all there are.
    hidden_size : int or None, default=None
        Channels of the context network; None is ``n_features``.

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
        self.steps = nn.ModuleList(nn.Linear(width, n_features, bias=False) for _ in range(n_steps))

    def forward(self, encodings: Tensor) -> Tensor:
        """Return the loss of each image: the mean InfoNCE of all its predictions.

        Parameters
        ----------
        encodings : Tensor of shape (n, grid, grid, n_features)

        Returns
        -------
        loss : Tensor of shape (n,)

        Raises
        ------
        ValueError
            If there are more or fewer patches.
        """
        grid = self.grid
        if encodings.shape[1:3] != (grid, grid):
            raise ValueError(f"there must be {grid} x {grid} patches; got {tuple(encodings.shape[1:3])}.")
        # Each encoding standardised: nothing else bounds it, and a heavy loss would blow it up until training diverges.
        encodings = functional.layer_norm(encodings, encodings.shape[3:])
        context = self.context(encodings.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        candidates = encodings.flatten(1, 2)
        numbers = torch.arange(grid * grid, device=encodings.device)
        losses = [
            # Row by row, the patch so many rows below has a number so much greater.
            info_nce(predict(context[:, :-step]).flatten(1, 2), candidates, numbers[step * grid :])
            for step, predict in enumerate(self.steps, start=1)
        ]
        return torch.cat(losses, 1).mean(1)
