"""A fitted detector as one torch module that maps rows, before any preprocessing, to scores."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..training.scoring import channels_last

__all__ = ["RowScorer"]


class RowScorer(nn.Module):
    """Preprocess rows, run a network on them, and compute scores from its output.

    Parameters
    ----------
    front : torch.nn.Module
        The preprocessing before the network: scaling, for example, and an encoder.
    network : torch.nn.Module
        The network.
    score : callable
        ``score(network, rows) -> Tensor`` of shape (n_rows,).
    """

    def __init__(self, front: nn.Module, network: nn.Module, score: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.front, self.network, self.score = front, network, score
        self.eval().requires_grad_(False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the score of each row; higher = more normal.

        Parameters
        ----------
        rows : Tensor of shape (n_rows, n_features) or (n_rows, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        scores : Tensor of shape (n_rows,)
        """
        return self.score(self.network, channels_last(self.front(rows)))
