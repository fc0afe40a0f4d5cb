"""Trained networks that a detector stands on: where they come from, what they want rows to be, what they make of them.

A backbone is shared: all detectors that stand on the same network hold its weights once.
"""

from __future__ import annotations

import copy
import json
import math
import threading
from collections.abc import Callable, Sequence
from functools import cache, wraps
from hashlib import sha256
from importlib import import_module
from importlib.resources import files
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from sklearn.base import OutlierMixin
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from ._warn import warn_user
from .networks import MultiTask, Projected, ResNet, adaptable_layers, adapters_of, find_head

__all__ = ["SHIPPED", "Preprocessed", "load_shipped"]

# The backbone that comes with skood.
SHIPPED = "cifar100-resnet-26-16"


class Preprocessed(nn.Module):
    """A network, and what it wants its rows to be first.

    Parameters
    ----------
    network : torch.nn.Module
    mean, std : float, sequence of float or None, default=None
        Each feature, or each channel of images, has ``mean`` subtracted and is divided by ``std``. uint8 images are
        scaled to [0, 1] before.
    size : int or None, default=None
        Side of the squares that images are resized to; None leaves them as they are.
    channels : int or None, default=None
        Images of a single channel have it repeated so many times.

    Examples
    --------
    >>> import torch
    >>> from skood.backbones import Preprocessed
    >>> network = Preprocessed(torch.nn.Flatten(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=8, channels=3)
    >>> network(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 192])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        size: int | None = None,
        channels: int | None = None,
    ):
        super().__init__()
        self.network, self.size, self.channels = network, size, channels
        self.register_buffer("mean", torch.as_tensor(0.0 if mean is None else mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(1.0 if std is None else std, dtype=torch.float32))

    def extra_repr(self) -> str:
        return f"size={self.size}, channels={self.channels}"

    def forward(self, rows: Tensor) -> Tensor:
        if rows.ndim == 4:
            if self.channels is not None and rows.shape[1] == 1:
                rows = rows.expand(-1, self.channels, -1, -1)
            if self.size is not None and rows.shape[2:] != (self.size, self.size):
                rows = functional.interpolate(rows, (self.size, self.size), mode="bilinear", antialias=True)
        shape = (-1, *[1] * (rows.ndim - 2))
        return self.network((rows - self.mean.reshape(shape)) / self.std.reshape(shape))


class Features(nn.Module):
    """What one layer of a network takes or gives, averaged over positions.

    Parameters
    ----------
    network : torch.nn.Module
    layer : str
        Name of the layer; "" is the network itself.
    takes : bool
        Whether it is what the layer takes, not what it gives.
    """

    def __init__(self, network: nn.Module, layer: str, takes: bool):
        super().__init__()
        self.network, self.layer, self.takes = network, layer, takes

    def drop_classifier(self, in_shape: tuple[int, ...]) -> None:
        """Leave out a last layer of which only the input is wanted, if the network, not another's, runs without."""
        if not (self.takes and self.layer):
            return
        classifier = self.network.get_submodule(self.layer)
        self.network.set_submodule(self.layer, nn.Identity())
        try:
            _tried(self, in_shape)
        except ValueError:
            self.network.set_submodule(self.layer, classifier)

    def forward(self, rows: Tensor) -> Tensor:
        """Features of shape (n, d)."""
        seen = []
        layer = self.network.get_submodule(self.layer)
        if self.takes:
            hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        else:
            hook = layer.register_forward_hook(lambda _, given, result: seen.append(result))
        try:
            self.network(rows)
        finally:
            hook.remove()
        if not seen or not isinstance(seen[-1], Tensor):
            raise ValueError(f"layer={self.layer!r} gives no tensor when it runs.")
        features = seen[-1]
        if features.ndim > 3:
            return features.flatten(2).mean(2)
        # Tokens come as (n, tokens, d).
        return features.mean(1) if features.ndim == 3 else features


class Backbone(NamedTuple):
    """A network to stand on.

    Parameters
    ----------
    network : torch.nn.Module
        It may be another's: not to be changed.
    scaler : scikit-learn transformer or None
        What its rows went through in training; None where the network wants them as they are.
    pads : bool
        Whether its images were then padded to squares.
    layer : str or None
        The layer that gives its features, "" for the network itself; None where `feature_layer` is to find it.
    """

    network: nn.Module
    scaler: Any = None
    pads: bool = False
    layer: str | None = None


def find_backbone(backbone, uint8: bool, what: str = "backbone") -> Backbone | None:
    """The trained network that an estimator's ``backbone`` stands for; None where it is to be trained yet.

    Parameters
    ----------
    backbone : torch.nn.Module, estimator, str or callable
        A trained module; a fitted estimator of skorch or skood, whose module it is (that of a detector with a backbone
        is this backbone); the shipped one, "torchvision:NAME" or "timm:NAME" with their trained weights. Other names
        and callables are to be trained yet.
    uint8 : bool
        Whether the rows at hand are uint8 images.
    what : str, default="backbone"
        Name of the parameter, for messages.

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
        network = _named(backbone)
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


def check_pixel_type(estimator, uint8: bool, what: str) -> None:
    """Refuse a fitted estimator that takes uint8 images where rows are others, or the other way round.

    Raises
    ------
    ValueError
        If it does.
    """
    trained_on = getattr(estimator, "_uint8_images", uint8)
    if trained_on != uint8:
        raise ValueError(f"{what} was fitted on {'uint8' if trained_on else 'float'} images; pass such here too.")


def check_columns(scaler, in_shape: tuple[int, ...], what: str = "backbone") -> None:
    """Refuse rows of (n_features,) or (C, H, W) that a backbone's scaler was not fitted on.

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
    """Say so where images are not in [0, 1] and a network with preprocessing of its own takes them for such.

    Parameters
    ----------
    network : torch.nn.Module
    images : ndarray of shape (n, C, H, W)
        Some of them; rows of another shape are no pixels.
    what : str, default="backbone"
        Name of the parameter.
    """
    if isinstance(network, Preprocessed) and images.ndim == 4 and (images.min() < -0.01 or images.max() > 1.01):
        warn_user(
            f"X holds images of values from {images.min():.3g} to {images.max():.3g}, and the {what} takes "
            f"pixels in [0, 1]. Scale them, or pass uint8 images.",
            RuntimeWarning,
        )


def shown(backbone) -> str:
    """A name of it for messages, not all its layers."""
    return repr(backbone) if isinstance(backbone, str) else type(backbone).__name__


def _named(name: str) -> nn.Module | None:
    source, _, model = name.partition(":")
    if name == SHIPPED:
        return load_shipped()
    if source == "torchvision" and model:
        return _from_torchvision(model)
    if source == "timm" and model:
        return _from_timm(model)
    return None


def _once(load: Callable) -> Callable:
    """A cache under a lock: of threads that come first at a time, all get the same object."""
    cached, lock = cache(load), threading.Lock()

    @wraps(load)
    def loaded(*args):
        with lock:
            return cached(*args)

    loaded.cache_clear = cached.cache_clear
    return loaded


@_once
def load_shipped() -> Preprocessed:
    """The backbone that comes with skood: a ResNet-26 of width 16, a classifier of a part of CIFAR-100.

    It takes images of one or three channels, in [0, 1]. ``skood/weights/cifar100-resnet-26-16.json`` says how it was
    trained and how well it does.

    Returns
    -------
    module : Preprocessed
        The same object each time.
    """
    folder = files(__package__) / "weights"
    about = json.loads((folder / f"{SHIPPED}.json").read_text())
    network = ResNet((3, 32, 32), about["n_classes"], width=about["width"])
    with (folder / f"{SHIPPED}.npz").open("rb") as file, np.load(file) as stored:
        state = {name: torch.from_numpy(stored[name]) for name in stored.files}
    network.load_state_dict(state)
    return Preprocessed(network, mean=about["mean"], std=about["std"], channels=3).eval()


@_once
def _from_torchvision(name: str) -> Preprocessed:
    models = _package("torchvision", "torchvision").models
    weights = models.get_model_weights(name).DEFAULT
    wants = weights.transforms()
    module = models.get_model(name, weights=weights)
    return Preprocessed(module, mean=wants.mean, std=wants.std, size=wants.crop_size[0], channels=3).eval()


@_once
def _from_timm(name: str) -> Preprocessed:
    timm = _package("timm", "timm")
    # Without a classifier it gives its pooled features.
    module = timm.create_model(name, pretrained=True, num_classes=0)
    wants = timm.data.resolve_model_data_config(module)
    channels, size, _ = wants["input_size"]
    return Preprocessed(module, mean=wants["mean"], std=wants["std"], size=size, channels=channels).eval()


def _package(name: str, source: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"'{source}:...' takes its network from {name}, which is not installed: pip install {name}. Or "
            f"pass a torch module, or {SHIPPED!r}."
        ) from error


# module -> device -> frozen copy
_FROZEN: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()
# All these copies.
_COPIES: WeakSet[nn.Module] = WeakSet()
_FREEZING = threading.Lock()


def frozen(module: nn.Module, device: torch.device, what: str = "backbone") -> nn.Module:
    """A copy of the module to be stood on: in evaluation mode, without gradients, never to be changed.

    Parameters
    ----------
    module : torch.nn.Module
        It stays as it is, and may be trained further.
    device : torch.device
    what : str, default="backbone"
        Name of the parameter, for messages.

    Returns
    -------
    module : torch.nn.Module
        The same object for the same module and device, so that detectors share it, unless the module was changed
        meanwhile.
    """
    if module in _COPIES and all(tensor.device == device for tensor in module.parameters()):
        return module
    with _FREEZING:
        copies = _FROZEN.setdefault(module, {})
        if device not in copies or not _alike(module, copies[device]):
            with torch.inference_mode(False):
                copied = _copied(module, what).requires_grad_(False).eval()
                copies[device] = copied.to(device, torch.float32, memory_format=torch.channels_last)
            _COPIES.add(copies[device])
        return copies[device]


def as_frozen(module: nn.Module) -> nn.Module:
    """Have `frozen` share a module too that was made of frozen ones and is never changed."""
    _COPIES.add(module)
    return module


def _copied(module: nn.Module, what: str) -> nn.Module:
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
    """Whether a module still is what was copied: its layers, and their values.

    Fused optimizers, and changes through ``data``, leave a tensor's version as it was.
    """
    now, then = ([*one.named_parameters(), *one.named_buffers()] for one in (module, copied))
    return (
        str(module) == str(copied)
        and len(now) == len(then)
        and all(
            name == other and tensor.shape == held.shape and torch.equal(tensor.to(held), held)
            for (name, tensor), (other, held) in zip(now, then, strict=True)
        )
    )


def feature_layer(network: nn.Module, in_shape: tuple[int, ...], layer: str | None, what: str = "backbone") -> Features:
    """The features that a backbone has: what its last linear layer takes, where that gives its result.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    layer : str or None
        What this layer gives, instead.
    what : str, default="backbone"
        Name of the parameter, for messages.

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
    tensor = next(features.parameters(), torch.empty(0))
    rows = torch.linspace(0, 1, 2, device=tensor.device).reshape(2, *[1] * len(in_shape)).expand(2, *in_shape).clone()
    try:
        with torch.no_grad():
            return features(rows)
    except Exception as error:
        kind = f"{in_shape[0]} features" if len(in_shape) == 1 else f"images of shape {in_shape}"
        raise ValueError(f"{what} does not take rows of {kind}: {error}") from error


def check_rows_apart(module: nn.Module, in_shape: tuple[int, ...], what: str = "backbone") -> None:
    """Refuse a module that makes something else of a row when there are others.

    Raises
    ------
    ValueError
        If it does.
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
    return torch.arange(4.0 * math.prod(in_shape)).sin().reshape(4, *in_shape)


def layers_before(features: Features, in_shape: tuple[int, ...], names: Sequence[str]) -> list[str]:
    """Those of the layers that run before the features are there, in this order."""
    ran, hooks = [], []
    end = features.network.get_submodule(features.layer)
    # Before the layer's own, if it is one of them.
    at_end = end.register_forward_pre_hook if features.takes else end.register_forward_hook
    hooks.append(at_end(lambda *_: ran.append(None)))
    for name in names:
        part = features.network.get_submodule(name)
        hooks.append(part.register_forward_pre_hook(lambda *_, name=name: ran.append(name)))
    try:
        _tried(features, in_shape)
    finally:
        for hook in hooks:
            hook.remove()
    last = len(ran) - 1 - ran[::-1].index(None)
    return [name for name in dict.fromkeys(ran[:last]) if name is not None]


def fingerprint(module: nn.Module) -> str:
    """A short text that differs between networks of different weights."""
    digest = sha256()
    for part in module.modules():
        if isinstance(part, Preprocessed):
            digest.update(part.extra_repr().encode())
    for name, tensor in module.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.double().numpy().tobytes())
    return digest.hexdigest()[:16]
