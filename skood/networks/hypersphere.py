"""A network of features whose outputs are compared with a centre; weights drawn anew."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HypersphereNetwork(nn.Module):
    """Features, a linear head without bias, and the centre that in-distribution rows are drawn to.

    The centre is the origin. In a training without a corpus it is the mean of the first embeddings, and all are divided
    by the spread that these had.

    Parameters
    ----------
    features : torch.nn.Module
        With ``n_features``.
    n_outputs : int or None
        Of the head; None has none.
    living : sequence of torch.nn.Module or None
        The parts of ``features`` that are ever in training mode; None is all of it. What is frozen must not drop
        values nor gather statistics.
    backbone : torch.nn.Module
        What the features were made of.
    """

    def __init__(self, features: nn.Module, n_outputs: int | None, living: list[nn.Module] | None, backbone: nn.Module):
        super().__init__()
        self.features, self.living = features, living
        # In a tuple it is no part of this module, but is saved with it: the tensors that they share once.
        self.stands_on = (backbone,)
        self.head = nn.Identity()
        if n_outputs is not None:
            self.head = nn.Linear(features.n_features, n_outputs, bias=False)
        size = n_outputs or features.n_features
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    def train(self, mode: bool = True):
        super().train(mode)
        if self.living is not None:
            self.features.eval()
            for part in self.living:
                part.train(mode)
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """Embeddings as seen from their centre, of shape (n, d)."""
        return (self.head(self.features(rows)) - self.center) / self.spread


def initialised(module: nn.Module) -> nn.Module:
    """Draw the weights of a module anew, in place.

    Raises
    ------
    ValueError
        If it holds parameters that none of its layers can draw (``reset_parameters``).
    """
    # What a network does with all its layers comes last.
    for name, part in reversed(list(module.named_modules())):
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
        elif any(parameter is not None for parameter in part._parameters.values()):
            raise ValueError(
                f"adaptation='scratch' cannot draw new weights for {name or 'the backbone'} ({type(part).__name__}), "
                f"which has no reset_parameters. Give the backbone as a callable that makes one."
            )
    return module
