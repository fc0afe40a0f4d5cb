"""Read the features that a trained network computes of a row: the input or the output of one of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from .probe import NoTensorError, dry_run, find_head, recorded, refused, two_rows
from .residual_adapter import adaptable_layers, share

# How maps become vectors of features: a name, or the numbers of rows and columns of a grid.
Pooling: TypeAlias = str | tuple[int, int]

_HALVES = (torch.float16, torch.bfloat16)


class Features(nn.Module):
    """Return the input or the output of one layer of a network, pooled over positions.

    Parameters
    ----------
    network : torch.nn.Module
        The network. It is kept, not copied.
    layer : str
        Name of the layer; "" is the network itself.
    takes : bool
        True if the features are the layer's input, False if they are its output.
    pooling : {"mean", "max", "flatten"} or tuple (h, w), default="mean"
        How maps (n, d, H, W) and tokens (n, tokens, d) are pooled: the mean or the maximum over positions, or all
        values as one vector. (h, w) averages maps within each cell of a grid of h rows and w columns, and returns these
        averages as one vector. "mean" leaves vectors as they are; the others need a layer that returns maps or tokens.

    Attributes
    ----------
    n_features : int
        Number of features, set by `feature_layer`.
    """

    n_features: int
    # Whether maps are (n, H, W, d), as linear layers, and norms of the last dimension, take and give them.
    features_last = False

    def __init__(self, network: nn.Module, layer: str, takes: bool, pooling: Pooling = "mean"):
        super().__init__()
        part = network.get_submodule(layer)
        norm = isinstance(part, (nn.LayerNorm, nn.RMSNorm)) and len(part.normalized_shape) == 1
        self.features_last = norm or isinstance(part, nn.Linear)
        self.network, self.layer, self.takes, self.pooling = network, layer, takes, pooling
        self.train(network.training)

    def drop_classifier(self, in_shape: tuple[int, ...]) -> None:
        """Replace the layer by an identity if the features are its input and the network runs without it.

        This saves the time and the memory of a classifier whose output is not used. It changes the network, so the
        network must not be used elsewhere.

        Parameters
        ----------
        in_shape : tuple of int
            Shape of a row: (n_features,) or (C, H, W).
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
        features = _pooled(self.unpooled(rows), self.pooling)
        # A network may compute in half precision by itself, which what follows here does not.
        halved = features.dtype in _HALVES and not torch.is_autocast_enabled(features.device.type)
        return features.float() if halved else features

    def unpooled(self, rows: Tensor) -> Tensor:
        """Return the layer's input or output: vectors, tokens (n, tokens, d) or maps (n, d, H, W)."""
        layers = [self.layer]
        takes, gives = (layers, ()) if self.takes else ((), layers)
        with recorded(self.network, takes=takes, gives=gives, keep=self._kept, copy_taken=True) as calls:
            self.network(rows)
        # If the layer runs more than once, its last run counts.
        features = (calls[-1].taken if self.takes else calls[-1].given) if calls else None
        if not isinstance(features, Tensor):
            given = f"returns a {type(features).__name__}, not a tensor" if calls else "does not run"
            if not self.layer:
                raise NoTensorError(f"{given}. Name the layer that gives the features, by layer=, or wrap the network.")
            raise NoTensorError(f"has a layer={self.layer!r} that {given}; choose another.")
        return features.movedim(-1, 1) if self.features_last and features.ndim > 3 else features

    def _kept(self, output: Any) -> Any:
        """Return a layer's output, copied if layers after it may work in place, as `torch.nn.ReLU(inplace=True)`."""
        return output.clone() if self.layer and isinstance(output, Tensor) else output


def _pooled(features: Tensor, pooling: Pooling) -> Tensor:
    """Pool maps, tokens or vectors to features of shape (n, d)."""
    if features.ndim < 3:
        return features
    if pooling == "flatten":
        return features.flatten(1)
    if not isinstance(pooling, str):
        return functional.adaptive_avg_pool2d(features, pooling).flatten(1)
    # Maps have the channels first (n, d, H, W), the tokens of transformers have them last (n, tokens, d).
    positions = features.flatten(2).movedim(2, 1) if features.ndim > 3 else features
    return positions.amax(1) if pooling == "max" else positions.mean(1)


def _check_pooling(values: Tensor, pooling: Pooling, what: str) -> None:
    """Raise an error if a layer's values for rows cannot be pooled this way."""
    shape = tuple(values.shape[1:])
    if values.ndim < 3:
        raise ValueError(
            f"pooling={pooling!r} is for maps, and the features of the {what} are vectors of {shape[-1]} numbers: name "
            f"a layer that gives maps, or set pooling='mean'."
        )
    if isinstance(pooling, str):
        return
    if values.ndim != 4 or pooling[0] > shape[1] or pooling[1] > shape[2]:
        raise ValueError(
            f"pooling={pooling!r} needs maps (channels, height, width) with at least that many rows and columns; the "
            f"layer of the {what} gives {shape}. Name another layer, or set pooling='mean'."
        )


def feature_layer(
    network: nn.Module,
    in_shape: tuple[int, ...],
    layer: str | None,
    what: str = "backbone",
    pooling: Pooling = "mean",
) -> Features:
    """Return a module that computes a network's features.

    The features of a classifier are the input of its last linear layer; those of any other network are its output.

    Parameters
    ----------
    network : torch.nn.Module
        The network, in evaluation mode.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    layer : str or None
        Name of a layer whose output are the features. None finds them as described above.
    what : str, default="backbone"
        Name of the parameter, for error messages.
    pooling : {"mean", "max", "flatten"} or tuple (h, w), default="mean"
        How maps and tokens are pooled, see `Features`.

    Returns
    -------
    features : Features

    Raises
    ------
    ValueError
        If the network does not take such rows or has no such layer, if the layer does not return numbers for each
        row, or if what it returns cannot be pooled this way.
    """
    names = dict(network.named_modules())
    if layer is not None and layer not in names:
        some = ", ".join(map(repr, [name for name in names if name][-10:]))
        raise ValueError(f"layer={layer!r} is no layer of the {what}. Its last layers are {some}.")
    given = Features(network, "" if layer is None else layer, takes=False)
    result = _tried(given, in_shape, what)
    # The linear layer that runs last is a classifier only if the network returns its output, or a softmax or sigmoid of
    # it. Otherwise it lies deeper, in an attention block for example, and the features are the network's output.
    if layer is None and any(isinstance(names[name], nn.Linear) for name in adaptable_layers(network)):
        head = find_head(network, in_shape, what)
        if _returns_logits(network, head, in_shape):
            given = Features(network, head, takes=True)
            result = _tried(given, in_shape, what)
    if result.ndim != 2 or len(result) != 2:
        raise ValueError(f"{what} gives {tuple(result.shape)} for 2 rows; name a layer with features of each row.")
    if pooling != "mean":
        _check_pooling(given.unpooled(two_rows(given, in_shape).clone()), pooling, what)
        given.pooling = pooling
        result = _tried(given, in_shape, what)
    given.n_features = result.shape[1]
    return given


def _returns_logits(network: nn.Module, head: str, in_shape: tuple[int, ...]) -> bool:
    """Return whether a network returns the output of its layer ``head``, or a softmax or sigmoid of it."""
    # Modules of its own: other threads may run those of the network.
    network = share(network)
    layer = network.get_submodule(head)

    def same() -> set[int]:
        """Return which functions of the layer's output the network returns."""
        result, logits = (_tried(Features(network, name, takes=False), in_shape) for name in ("", head))
        values = (logits, logits.softmax(-1), logits.log_softmax(-1), logits.sigmoid())
        return {
            number
            for number, one in enumerate(values)
            if result.shape == one.shape and torch.allclose(result.to(one), one, rtol=1e-4, atol=1e-6)
        }

    def same_of_others(scale: float) -> set[int]:
        """Return the same after other numbers, of both signs, are put in place of the layer's output."""

        def replaced(layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
            """Return the other numbers."""
            numbers = torch.arange(output.numel(), dtype=output.dtype, device=output.device)
            return scale * numbers.mul(3).cos().reshape(output.shape)

        handle = layer.register_forward_hook(replaced)
        try:
            return same()
        finally:
            handle.remove()

    found = same()
    # A ReLU or a clip after the layer may change none of its outputs for few rows. Large logits stay as they are; of
    # large ones a probability shows how the network rounds or clips it.
    for scale, functions in ((1000.0, {0}), (5.0, {1, 2, 3})):
        if found & functions:
            found -= functions - same_of_others(scale)
    return bool(found)


def _tried(features: Features, in_shape: tuple[int, ...], what: str = "backbone") -> Tensor:
    """Return the features of two rows; raise a ValueError if the network does not compute any."""
    # Cloned, because the first layer of a network may work in place.
    rows = two_rows(features, in_shape).clone()
    with refused(what, in_shape):
        return dry_run(features, rows)


def layers_before(features: Features, in_shape: tuple[int, ...], names: Sequence[str]) -> list[str]:
    """Return which of some layers begin to run before the features are computed, in the order they run.

    Parameters
    ----------
    features : Features
        The features and their network.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    names : sequence of str
        Names of layers of ``features.network``.

    Returns
    -------
    names : list of str
        Those of ``names`` that run before the features; each once, at its first run.
    """
    end = [features.layer]
    # The features' layer is recorded first: if its input is wanted, and the same layer has two names, the input is
    # there before the layer runs under its other name.
    begin = list(dict.fromkeys([*end, *names])) if features.takes else names
    with recorded(features.network, takes=begin, gives=() if features.takes else end) as calls:
        _tried(features, in_shape)
    last = max(place for place, call in enumerate(calls) if call.name == features.layer)
    ran = dict.fromkeys(call.name for call in calls[:last])
    return [name for name in ran if name in names]
