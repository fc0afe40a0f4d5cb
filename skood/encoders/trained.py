"""Trained networks that encoders and detectors stand on: how they are found, frozen, shared and checked.

All that stand on the same network hold its weights once.
"""

from __future__ import annotations

import copy
import math
import threading
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from sklearn.base import OutlierMixin
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._warn import warn_user
from ..backbones import Preprocessed, load_named
from ..networks import MultiTask, Projected, adapters_of

Module = TypeVar("Module", bound=nn.Module)


class Backbone(NamedTuple):
    """Hold a trained network, and what its rows went through in training.

    Parameters
    ----------
    network : torch.nn.Module
        It may be another's: not to be changed.
    scaler : scikit-learn transformer or None, default=None
        The fitted scaling of its rows; None if the network wants them as they are.
    pads : bool, default=False
        Whether its images were then padded to squares.
    layer : str or None, default=None
        The layer that gives its features, "" for the network itself; None if `feature_layer` is to find it.
    """

    network: nn.Module
    scaler: Any = None
    pads: bool = False
    layer: str | None = None


def find_backbone(backbone: Any, uint8: bool, what: str = "backbone") -> Backbone | None:
    """Return the trained network that an estimator's ``backbone`` stands for; None if it is to be trained yet.

    Parameters
    ----------
    backbone : torch.nn.Module, estimator, str or callable
        A trained module. Or a fitted estimator of skorch or skood: its module is taken, or its backbone, if it has
        one. Or a name of `load_named`. Other names and callables are to be trained yet.
    uint8 : bool
        Whether the rows at hand are uint8 images.
    what : str, default="backbone"
        Name of the parameter, for messages.

    Returns
    -------
    found : Backbone or None

    Raises
    ------
    ValueError
        If an estimator is not fitted, has no torch module, or was fitted on images of another type.
    ImportError
        If a package that a name asks for is not installed.
    """
    if isinstance(backbone, FrozenEstimator):
        backbone = backbone.estimator
    if isinstance(backbone, nn.Module):
        # A compiled module is a shell around what can be taken apart.
        return Backbone(getattr(backbone, "_orig_mod", backbone))
    if isinstance(backbone, str):
        network = load_named(backbone)
        return None if network is None else Backbone(network)
    if not hasattr(backbone, "fit"):
        return None
    # Of a detector that stands on a backbone this is what is shared, without its adapters.
    network = getattr(backbone, "backbone_", None) or getattr(backbone, "module_", None)
    name = type(backbone).__name__
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{what}={name} holds no trained torch module: fit it first; of a Pipeline, a search or the like pass "
            f"the fitted estimator of skorch or skood inside. Where it would be cloned, as a value in a search, wrap "
            f"it in sklearn.frozen.FrozenEstimator."
        )
    if isinstance(backbone, OutlierMixin) and not hasattr(backbone, "classes_") and not hasattr(backbone, "backbone_"):
        raise ValueError(f"{what}={name} has learnt no features: its network tells nothing apart.")
    if isinstance(network, (MultiTask, Projected)):
        network = network.trunk
    check_pixel_type(backbone, uint8, what)
    return Backbone(network, getattr(backbone, "scaler_", None), getattr(backbone, "_pads", False))


def check_pixel_type(estimator: Any, uint8: bool, what: str) -> None:
    """Refuse a fitted estimator that takes uint8 images if the rows at hand are others, or the other way round.

    Parameters
    ----------
    estimator : estimator
        One that does not say what it was fitted on passes.
    uint8 : bool
        Whether the rows at hand are uint8 images.
    what : str
        Name of the parameter, for messages.

    Raises
    ------
    ValueError
        If the estimator was fitted on images of the other type.
    """
    trained_on = getattr(estimator, "_uint8_images", uint8)
    if trained_on != uint8:
        raise ValueError(f"{what} was fitted on {'uint8' if trained_on else 'float'} images; pass such here too.")


def check_columns(scaler: Any, in_shape: tuple[int, ...], what: str = "backbone") -> None:
    """Refuse rows that a backbone's scaler was not fitted on.

    Parameters
    ----------
    scaler : scikit-learn transformer or None
        Of a `Backbone`.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    what : str, default="backbone"
        Name of the parameter, for messages.

    Raises
    ------
    ValueError
        If it has seen another number of features or channels.
    """
    n_wanted = getattr(scaler, "n_features_in_", in_shape[0])
    if in_shape[0] != n_wanted:
        kind = "features" if len(in_shape) == 1 else "channels"
        raise ValueError(f"{what} was fitted on {n_wanted} features or channels; X has {in_shape[0]} {kind}.")


def warn_of_pixels(network: nn.Module, images: np.ndarray, what: str = "backbone") -> None:
    """Warn of images that are not in [0, 1], if the network is a `Preprocessed` one, which takes pixels for such.

    Parameters
    ----------
    network : torch.nn.Module
    images : ndarray of shape (n, C, H, W)
        Some of them; rows of another shape are no pixels.
    what : str, default="backbone"
        Name of the parameter, for the message.
    """
    if isinstance(network, Preprocessed) and images.ndim == 4 and (images.min() < -0.01 or images.max() > 1.01):
        warn_user(
            f"X holds images of values from {images.min():.3g} to {images.max():.3g}, and the {what} takes "
            f"pixels in [0, 1]. Scale them, or pass uint8 images.",
            RuntimeWarning,
        )


def shown(backbone: Any) -> str:
    """Return a short name of a backbone for messages, without all its layers."""
    return repr(backbone) if isinstance(backbone, str) else type(backbone).__name__


# module -> device -> frozen copy
_FROZEN: WeakKeyDictionary[nn.Module, dict[torch.device, nn.Module]] = WeakKeyDictionary()
# All these copies, and what was made of them: they need not be copied again.
_COPIES: WeakSet[nn.Module] = WeakSet()
_FREEZING = threading.Lock()


def frozen(module: nn.Module, device: torch.device, what: str = "backbone") -> nn.Module:
    """Return a copy of a module, for others to stand on: in evaluation mode, without gradients, never to be changed.

    Parameters
    ----------
    module : torch.nn.Module
        It stays as it is, and may be trained further.
    device : torch.device
        Where the copy is.
    what : str, default="backbone"
        Name of the parameter, for messages.

    Returns
    -------
    module : torch.nn.Module
        The same object for the same module and device, so that detectors share it, unless the module was changed
        meanwhile.

    Raises
    ------
    ValueError
        If the module cannot be copied, is a scripted one, holds complex numbers, or has lazy layers without a shape.
    """
    if module in _COPIES and all(tensor.device == device for tensor in module.parameters()):
        return module
    with _FREEZING:
        copies = _FROZEN.setdefault(module, {})
        if device not in copies or not _alike(module, copies[device]):
            with torch.inference_mode(False):
                copied = _copied(module, what).requires_grad_(False).eval().to(device, torch.float32)
                # Channels last make convolutions faster. The annotations of torch lack the argument.
                copies[device] = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            _COPIES.add(copies[device])
        return copies[device]


def as_frozen(module: Module) -> Module:
    """Mark a module that was made of frozen ones and is never changed: `frozen` then shares it without a copy.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    module : torch.nn.Module
        The same one.
    """
    _COPIES.add(module)
    return module


def _copied(module: nn.Module, what: str) -> nn.Module:
    """Return a copy of a module, or say why it cannot be stood on."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"{what} is a scripted or traced module, which takes no adapters; pass the one it was made of."
        )
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise ValueError(f"{what} is not trained: {name} has no shape yet. Lazy layers take theirs from rows.")
        if tensor.is_complex():
            raise ValueError(f"{what} holds complex numbers, in {name}; it must be a network of real ones.")
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        raise ValueError(f"{what} cannot be copied: {error}") from error


def _alike(module: nn.Module, copied: nn.Module) -> bool:
    """Return whether a module still is what was copied: its layers, and their values."""
    # Values, not versions: fused optimizers, and changes through ``data``, leave a tensor's version as it was.
    now, then = ([*one.named_parameters(), *one.named_buffers()] for one in (module, copied))
    return (
        str(module) == str(copied)
        and len(now) == len(then)
        and all(
            name == other and tensor.shape == held.shape and torch.equal(tensor.to(held), held)
            for (name, tensor), (other, held) in zip(now, then, strict=True)
        )
    )


def check_rows_apart(module: nn.Module, in_shape: tuple[int, ...], what: str = "backbone") -> None:
    """Refuse a module whose result for a row depends on the other rows, or on chance.

    Parameters
    ----------
    module : torch.nn.Module
        It stays as it is.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    what : str, default="backbone"
        Name of the parameter, for messages.

    Raises
    ------
    ValueError
        If a row alone gives something else than among others.
    """
    module = copy.deepcopy(module).cpu().double().eval()
    rows = _some_rows(in_shape).double()
    with torch.no_grad():
        # A network may begin with what it does in place.
        together, alone = module(rows.clone()), torch.cat([module(row[None]) for row in rows])
    if not torch.allclose(together, alone, rtol=1e-6, atol=1e-9, equal_nan=True):
        raise ValueError(
            f"{what} makes of a row what depends on the other rows, or on chance: rows must come in the first "
            "dimension all through, and nothing be drawn or normalised by batch in evaluation mode."
        )


def check_adapters_learn(module: nn.Module, in_shape: tuple[int, ...]) -> None:
    """Refuse a module whose adapters get no gradient.

    Parameters
    ----------
    module : torch.nn.Module
        With adapters.
    in_shape : tuple of int
        (n_features,) or (C, H, W).

    Raises
    ------
    ValueError
        If none of them gets one.
    """
    adapters = [parameter for _, layer in adapters_of(module) for parameter in layer.adapters.parameters()]
    rows = _some_rows(in_shape).to(adapters[0].device)
    gradients = torch.autograd.grad(module(rows).sum(), adapters, allow_unused=True)
    if all(gradient is None for gradient in gradients):
        raise ValueError(
            "backbone lets no gradient through to its layers (torch.no_grad, or detach, in its forward): adapters "
            "could not learn. Leave that out, or set adaptation='frozen'."
        )


def _some_rows(in_shape: tuple[int, ...]) -> Tensor:
    """Return 4 rows of values in [-1, 1] that differ, always the same."""
    return torch.arange(4.0 * math.prod(in_shape)).sin().reshape(4, *in_shape)


def fingerprint(module: nn.Module) -> str:
    """Return a short text that differs between networks of different weights.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    fingerprint : str
        16 hexadecimal digits.
    """
    digest = sha256()
    for part in module.modules():
        if isinstance(part, Preprocessed):
            digest.update(part.extra_repr().encode())
    for name, tensor in module.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.double().numpy().tobytes())
    return digest.hexdigest()[:16]
