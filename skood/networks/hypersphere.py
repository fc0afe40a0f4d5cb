"""Map rows to embeddings around a centre, and draw the weights of a module anew."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .features import Features
from .products import EvenLinear


class HypersphereNetwork(nn.Module):
    """Compute features, apply a linear head without bias, and return the difference to the centre.

    The training moves in-distribution rows to the centre, which is the origin. Without a corpus it is the mean of the
    embeddings before training, and differences are divided by the spread of these embeddings.

    Parameters
    ----------
    features : Features
        Computes the features of rows; it must have ``n_features``.
    n_outputs : int or None
        Number of outputs of the head. None adds no head.
    living : list of torch.nn.Module or None
        The parts of ``features`` that `train` puts into training mode; None means all of it. Frozen parts must neither
        drop values nor update statistics, so they stay in evaluation mode.
    backbone : torch.nn.Module
        The network whose features are used.

    Attributes
    ----------
    stands_on : tuple of one torch.nn.Module
        The backbone.
    head : torch.nn.Linear or torch.nn.Identity
        The head; an identity if there is none.
    center : Tensor of shape (d,)
        The centre; zeros at first.
    spread : Tensor of shape (d,)
        Numbers by which the differences to the centre are divided; ones at first.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, features: Features, n_outputs: int | None, living: list[nn.Module] | None, backbone: nn.Module):
        super().__init__()
        self.features, self.living = features, living
        # In a tuple the backbone is no submodule, so its parameters are not trained. It is still pickled with this
        # module, and tensors that both hold are stored once.
        self.stands_on = (backbone,)
        self.head: nn.Module = nn.Identity()
        if n_outputs is not None:
            self.head = EvenLinear(features.n_features, n_outputs, bias=False)
        size = n_outputs or features.n_features
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    def train(self, mode: bool = True) -> HypersphereNetwork:
        """Put the living parts and the head into training mode, or everything into evaluation mode.

        Parameters
        ----------
        mode : bool, default=True
            True for training mode, False for evaluation mode.

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
        """Return the embeddings' differences to the centre, divided by the spread, of shape (n, d)."""
        return (self.head(self.features(rows)) - self.center) / self.spread


def initialised(module: nn.Module) -> nn.Module:
    """Draw the weights of a module anew, in place.

    Parameters
    ----------
    module : torch.nn.Module
        The module; each of its layers draws its own weights by ``reset_parameters``.

    Returns
    -------
    module : torch.nn.Module
        The same module.

    Raises
    ------
    ValueError
        If a layer holds parameters that no ``reset_parameters`` draws.
    """
    # A layer's method need not know all parameters that it holds: torch's ``weight_norm`` and ``spectral_norm`` put
    # others in place of the weights.
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.fill_(math.nan)
    # Outer modules come last: a network may draw the weights of its layers in its own way, which the layers must not
    # overwrite.
    for name, part in reversed(list(module.named_modules())):
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
        elif any(parameter is not None for parameter in part._parameters.values()):
            raise _undrawn(f"{name or 'the backbone'} ({type(part).__name__}), which has no reset_parameters")
    for name, parameter in module.named_parameters():
        if parameter.isnan().any():
            raise _undrawn(f"{name}, which no layer's reset_parameters draws")
    return module


def _undrawn(what: str) -> ValueError:
    """Return an error that says what cannot be drawn anew."""
    return ValueError(
        f"adaptation='scratch' cannot draw new weights for {what}. Pass the backbone as a callable that makes one."
    )
