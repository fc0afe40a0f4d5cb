"""Give a network the projection head of contrastive learning."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .heads import split_head
from .probe import one_tensor
from .products import EvenLinear


class Projected(nn.Module):
    """Turn the last linear layer of a network into a projection head: linear, ReLU, and that layer.

    Chen, Kornblith, Norouzi & Hinton, "A Simple Framework for Contrastive Learning of Visual Representations" (2020),
    section 2.1. The head's input is the network's features, which serve other tasks better than the head's output.

    Parameters
    ----------
    network : torch.nn.Module
        A network, for example from `make_classifier`, whose last linear layer computes its output (n, embedding_size).
        It is split.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).

    Attributes
    ----------
    trunk : torch.nn.Module
        Maps rows to features (n, F).
    head : torch.nn.Sequential
        Maps features to (n, embedding_size).

    Raises
    ------
    ValueError
        If the network has no linear layer, or computes more after its last one.
    """

    def __init__(self, network: nn.Module, in_shape: tuple[int, ...]):
        super().__init__()
        self.trunk, last = split_head(network, in_shape)
        self.head = nn.Sequential(EvenLinear(last.in_features, last.in_features), nn.ReLU(), last)

    def forward(self, rows: Tensor) -> Tensor:
        """Return embeddings of unit length, of shape (n, embedding_size)."""
        return functional.normalize(self.head(one_tensor(self.trunk(rows))), dim=1)
