"""Find the layers of a module whose outputs are features or logits, and watch what they take and give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from scipy.special import expit, log_softmax, softmax
from torch import Tensor, nn

from ..networks import class_weights
from ..networks.probe import NO_LAYERS_SHOWN, Call, recorded
from ..networks.products import even_product
from ..training.batches import Represent

if TYPE_CHECKING:
    from .detectors import SkoodClassifier
    from .observed import TorchClassifier

NO_ROTATION = "the classifier has no trained head that tells transformations apart, as RotationAuxClassifier may have"
NO_LAYER = "the classifier's logits are not the output of a last linear layer (torch.nn.Linear, or a 1x1 Conv2d)"
_NO_LOGITS = "classifier returns {}; it must return logits (n_samples, n_classes), first of all or named 'logits'."
_NO_VALUES = "layer names one that returns {}; choose one that returns a tensor with an entry for each row."
# The layers that a user names; none for the input of the last one.
Layers: TypeAlias = Sequence[str | nn.Module]
# Most layers that an error lists.
_LISTED = 12
# Rounding errors of sums in float32, as a share of the size of what is added up: about a hundred times its precision.
_ROUNDING = 1e-5

_softmax, _log_softmax = partial(softmax, axis=1), partial(log_softmax, axis=1)


def layer_name(module: nn.Module, layer: str | nn.Module) -> str:
    """Return the name of a layer that the user gave by its name or as a module."""
    names = {id(part): name for name, part in module.named_modules() if name}
    if isinstance(layer, nn.Module) and id(layer) in names:
        return names[id(layer)]
    if isinstance(layer, str) and layer in dict(module.named_modules()) and layer:
        return layer
    some = list(names.values())[-10:]
    shown = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
    raise ValueError(
        f"layer is {shown}, no layer of the classifier. Its {'last ' if len(names) > len(some) else ''}layers are "
        f"{', '.join(map(repr, some)) or 'none'}."
    )


def watched(
    function: Callable[[nn.Module, Tensor], Any], module: nn.Module, rows: Tensor, names: Iterable[str]
) -> tuple[Any, list[Call]]:
    """Return ``function(module, rows)``, and the calls of these layers of the module in the order they ended."""
    # Both are copied, because the layers after them may work in place.
    with recorded(
        module, gives=names, keep=lambda output: _first(output, _NO_VALUES).clone(), copy_taken=True
    ) as calls:
        return function(module, rows), calls


class Head(NamedTuple):
    """Describe the layer that computes the logits.

    Parameters
    ----------
    name : str or None
        Its name; None if no layer computes them.
    source : str
        Whether the logits are the module's "result", or the layer's output ("head").
    factor : float
        Factor by which the layer's output is multiplied to give the logits.
    linear : bool
        Whether its output is the product of its input with its weights, plus its biases.
    """

    name: str | None = None
    source: str = "result"
    factor: float = 1.0
    linear: bool = False


def origin(result: np.ndarray, heads: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Head:
    """Return the layer that computes the logits.

    ``heads`` maps layers, in the order they ran, to their outputs and to the products of their inputs with their
    weights.
    """
    # From the last layer backwards: an earlier layer may have the same output, for example if an identity follows.
    for name, (given, product) in reversed(list(heads.items())):
        linear = equal_up_to_rounding(given, product)
        if equal_up_to_rounding(result, given):
            return Head(name, "result", 1.0, linear)
        if any(equal_up_to_rounding(result, squash(given)) for squash in (_softmax, _log_softmax, expit)):
            return Head(name, "head", 1.0, linear)
        # Temperature scaling divides the logits by one number.
        factor = float((result * given).sum() / max(np.square(given).sum(), np.finfo(np.float64).tiny))
        if factor > 0 and equal_up_to_rounding(result, factor * given):
            return Head(name, "result", factor, linear)
    return Head()


def ask_for_layer(adapter: TorchClassifier | SkoodClassifier, X: Any, trial: np.ndarray, represent: Represent) -> str:
    """Return the reason why there are no features, with the layers among which the user may choose."""
    if isinstance(adapter.network, torch.jit.ScriptModule):
        return NO_LAYERS_SHOWN
    shapes: dict[str, tuple[int, ...]] = {}
    adapter.apply(partial(_list_layers, shapes), X, trial, represent)
    listed = ", ".join(f"{name!r} {shape}" for name, shape in list(shapes.items())[-_LISTED:])
    return (
        f"no linear layer (torch.nn.Linear) and no 1x1 convolution gives the classifier's logits, so it is not known "
        f"which layer gives the features; name it as layer=. The layers that ran "
        f"{'last ' if len(shapes) > _LISTED else ''}and their output shapes: {listed or 'none'}"
    )


def _list_layers(shapes: dict[str, tuple[int, ...]], module: nn.Module, rows: Tensor) -> Tensor:
    """Collect the layers that give an output for each row, in the order they end, with the shape for one row."""
    # Two rows, because the inputs of all layers are held at once.
    few = rows[:2]
    names = [name for name, _ in module.named_modules() if name]
    with recorded(module, gives=names, keep=lambda output: getattr(output, "shape", ())) as calls:
        module(few)
    shapes.clear()
    for call in calls:
        if len(call.given) > 1 and call.given[0] == len(few):
            # The last call counts.
            shapes.pop(call.name, None)
            shapes[call.name] = tuple(call.given[1:])
    return rows.new_zeros(len(rows), 1)


def mean_of_maps(values: Tensor) -> Tensor:
    """Return one vector for each row: maps (n, C, H, W) are averaged over their pixels, other shapes are flattened."""
    return values.mean((2, 3)) if values.ndim == 4 else values.flatten(1)


def product_of(taken: Tensor, layer: nn.Module, given: Tensor) -> Tensor:
    """Return the product of a layer's input with its weights, plus its biases; NaN if the shapes do not agree."""
    weight, bias = class_weights(cast(nn.Linear, layer), given.shape[1])
    weight = weight.flatten(1)
    if weight.shape != (given.shape[1], taken.shape[1]):
        return torch.full_like(given, torch.nan)
    return (even_product(taken.to(weight), weight) + bias).to(given)


def outputs_of(module: nn.Module, rows: Tensor) -> Tensor:
    """Return a module's outputs as one tensor, whose first dimension counts the rows."""
    return first_output(module(rows))


def first_output(outputs: Any) -> Tensor:
    """Return the logits among all that a module returns."""
    return _first(outputs, _NO_LOGITS)


class NoOutputsError(ValueError):
    """Say that a module returns no tensor of outputs."""


def _first(value: Any, message: str) -> Tensor:
    """Return the tensor of outputs in what a layer returns: the one named ``logits``, or the first of several."""
    given = value
    value = value.get("logits", value) if isinstance(value, Mapping) else getattr(value, "logits", value)
    value = value[0] if isinstance(value, (tuple, list)) and len(value) else value
    if not isinstance(value, Tensor) or value.ndim == 0:
        kind = "a tensor without dimensions" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        names = f" with {', '.join(map(repr, given))}" if isinstance(given, Mapping) and given else ""
        raise NoOutputsError(message.format(kind + names))
    return value[:, None] if value.ndim == 1 else value


def features_of(calls: list[Call], layers: list[str], n_rows: int) -> list[Tensor]:
    """Return the features of each layer."""
    return [_layer_features(calls, layer, n_rows) for layer in layers]


def _layer_features(calls: list[Call], layer: str, n_rows: int) -> Tensor:
    """Return a layer's last output as features; maps are averaged over their pixels."""
    given = [call.given for call in calls if call.name == layer]
    if not given:
        raise ValueError(f"layer {layer!r} has no part in the classifier's output; choose another.")
    if len(given[-1]) != n_rows:
        raise ValueError(
            f"layer {layer!r} returns shape {tuple(given[-1].shape)} for {n_rows} rows; choose one with an output for "
            f"each row."
        )
    return mean_of_maps(given[-1])


def other_layer(layers: list[str]) -> str:
    """Return the reason why there are no weights if the features come from layers that the user named."""
    shown = repr(layers[0]) if len(layers) == 1 else layers
    return f"the weights of the last layer belong to its own input, and layer={shown} is given"


def equal_up_to_rounding(values: np.ndarray, others: np.ndarray, size: float | None = None) -> bool:
    """Return whether two arrays are equal up to rounding in float32.

    ``size`` is the size of the numbers that were added up; None takes the largest of ``values``.
    """
    if size is None:
        size = float(np.abs(values).max(where=np.isfinite(values), initial=0.0))
    # A sum rounds by a share of its terms, not of its result: a logit near 0 is as inexact as a large one.
    return values.shape == others.shape and np.allclose(values, others, rtol=0.0, atol=_ROUNDING * size, equal_nan=True)
