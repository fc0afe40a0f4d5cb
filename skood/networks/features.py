"""The features that a trained network has of a row: what one of its layers takes or gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .probe import dry_run, find_head, recorded, refused, two_rows
from .residual_adapter import adaptable_layers


class Features(nn.Module):
    """Compute what one layer of a network takes or gives, averaged over positions.

    Parameters
    ----------
    network : torch.nn.Module
        Held, not copied.
    layer : str
        Name of the layer; "" is the network itself.
    takes : bool
        Whether the features are what the layer takes, not what it gives.

    Attributes
    ----------
    n_features : int
        Number of features, set by `feature_layer`.
    """

    n_features: int

    def __init__(self, network: nn.Module, layer: str, takes: bool):
        super().__init__()
        self.network, self.layer, self.takes = network, layer, takes
        self.train(network.training)

    def drop_classifier(self, in_shape: tuple[int, ...]) -> None:
        """Replace the layer by an identity, if only its input is wanted and the network runs without it.

        The network is changed, so it must not be another's.

        Parameters
        ----------
        in_shape : tuple of int
            (n_features,) or (C, H, W).
        """
        if not (self.takes and self.layer):
            return
        classifier = self.network.get_submodule(self.layer)
        self.network.set_submodule(self.layer, nn.Identity())
        try:
            _tried(self, in_shape)
        except ValueError:
            self.network.set_submodule(self.layer, classifier)

    def forward(self, rows: Tensor) -> Tensor:
        """Return features of shape (n, d)."""
        layers = [self.layer]
        with recorded(self.network, takes=layers if self.takes else (), gives=() if self.takes else layers) as calls:
            self.network(rows)
        # A layer that runs more than once counts as it ran last.
        features = (calls[-1].taken if self.takes else calls[-1].given) if calls else None
        if not isinstance(features, Tensor):
            raise ValueError(f"layer={self.layer!r} gives no tensor when it runs.")
        if features.ndim > 3:
            return features.flatten(2).mean(2)
        # Tokens come as (n, tokens, d).
        return features.mean(1) if features.ndim == 3 else features


def feature_layer(network: nn.Module, in_shape: tuple[int, ...], layer: str | None, what: str = "backbone") -> Features:
    """Return a network's features: what its last linear layer takes, if that layer gives the network's result.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    layer : str or None
        Name of a layer whose output is taken instead. None looks for the last linear layer; a network without one
        gives the features itself.
    what : str, default="backbone"
        Name of the parameter, for messages.

    Returns
    -------
    features : Features

    Raises
    ------
    ValueError
        If the network does not take such rows, has no such layer, or the layer gives no numbers for each row.
    """
    names = dict(network.named_modules())
    if layer is not None and layer not in names:
        some = ", ".join(map(repr, [name for name in names if name][-10:]))
        raise ValueError(f"layer={layer!r} is no layer of the {what}. Its last layers are {some}.")
    given = Features(network, "" if layer is None else layer, takes=False)
    result = _tried(given, in_shape, what)
    if layer is None and any(isinstance(names[name], nn.Linear) for name in adaptable_layers(network)):
        head = find_head(network, in_shape, what)
        logits = _tried(Features(network, head, takes=False), in_shape)
        same = (logits, logits.softmax(-1), logits.log_softmax(-1), logits.sigmoid())
        if any(result.shape == one.shape and torch.allclose(result, one, rtol=1e-4, atol=1e-6) for one in same):
            given = Features(network, head, takes=True)
            result = _tried(given, in_shape, what)
    if result.ndim != 2 or len(result) != 2:
        raise ValueError(f"{what} gives {tuple(result.shape)} for 2 rows; name a layer that gives features of each.")
    given.n_features = result.shape[1]
    return given


def _tried(features: Features, in_shape: tuple[int, ...], what: str = "backbone") -> Tensor:
    """Return the features of two rows; a ValueError says that there are none."""
    # Cloned, for a network may begin with what it does in place.
    rows = two_rows(features, in_shape).clone()
    with refused(what, in_shape):
        return dry_run(features, rows)


def layers_before(features: Features, in_shape: tuple[int, ...], names: Sequence[str]) -> list[str]:
    """Return those of the layers that begin to run before the features are there, in the order they run.

    Parameters
    ----------
    features : Features
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    names : sequence of str
        Names of layers of ``features.network``.

    Returns
    -------
    names : list of str
    """
    end = [features.layer]
    # The layer comes first: where its input is wanted, and two names are the same layer, that input is there first.
    begin = list(dict.fromkeys([*end, *names])) if features.takes else names
    with recorded(features.network, takes=begin, gives=() if features.takes else end) as calls:
        _tried(features, in_shape)
    last = max(place for place, call in enumerate(calls) if call.name == features.layer)
    ran = dict.fromkeys(call.name for call in calls[:last])
    return [name for name in ran if name in names]
