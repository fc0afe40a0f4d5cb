"""A network of features whose outputs are compared with a centre; weights drawn anew."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .features import Features


class HypersphereNetwork(nn.Module):
    """Compute features, a linear head without bias, and the difference to the centre that rows are drawn to.

    The centre is the origin. In a training without a corpus it is the mean of the first embeddings, and all are divided
    by the spread that these had.

    Parameters
    ----------
    features : Features
        With ``n_features``.
    n_outputs : int or None
        Number of outputs of the head. None has no head.
    living : list of torch.nn.Module or None
        The parts of ``features`` that `train` puts into training mode; None is all of it. What is frozen must neither
        drop values nor gather statistics.
    backbone : torch.nn.Module
        The network that the features were made of.

    Attributes
    ----------
    stands_on : tuple of one torch.nn.Module
        The backbone.
    head : torch.nn.Linear or torch.nn.Identity
    center : Tensor of shape (d,)
    spread : Tensor of shape (d,)
    """

    center: Tensor
    spread: Tensor

    def __init__(self, features: Features, n_outputs: int | None, living: list[nn.Module] | None, backbone: nn.Module):
        super().__init__()
        self.features, self.living = features, living
        # In a tuple it is no part of this module, but is saved with it: the tensors that they share once.
        self.stands_on = (backbone,)
        self.head: nn.Module = nn.Identity()
        if n_outputs is not None:
            self.head = nn.Linear(features.n_features, n_outputs, bias=False)
        size = n_outputs or features.n_features
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    def train(self, mode: bool = True) -> HypersphereNetwork:
        """Put the living parts and the head into training mode, or all into evaluation mode.

        Parameters
        ----------
        mode : bool, default=True
            Whether it is training mode.

        Returns
        -------
        self : HypersphereNetwork
        """
        super().train(mode)
        if self.living is not None:
            self.features.eval()
            for part in self.living:
                part.train(mode)
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """Return embeddings as seen from their centre, of shape (n, d)."""
        return (self.head(self.features(rows)) - self.center) / self.spread


def initialised(module: nn.Module) -> nn.Module:
    """Draw the weights of a module anew, in place.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    module : torch.nn.Module
        The same one.

    Raises
    ------
    ValueError
        If it holds parameters that none of its layers can draw (``reset_parameters``).
    """
    # Outer modules come last: what a network does with all its layers must not be undone by one of them.
    for name, part in reversed(list(module.named_modules())):
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
        elif any(parameter is not None for parameter in part._parameters.values()):
            raise ValueError(
                f"adaptation='scratch' cannot draw new weights for {name or 'the backbone'} ({type(part).__name__}), "
                f"which has no reset_parameters. Give the backbone as a callable that makes one."
            )
    return module
