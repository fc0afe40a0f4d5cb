"""Find, freeze, share and check the trained networks that encoders and detectors use.

All encoders and detectors that use the same network share its weights, which are in memory once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from hashlib import sha256
from types import MethodType
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
import torch
from sklearn.base import OutlierMixin
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._warn import warn_user
from ..augment import center_crop
from ..backbones import Preprocessed, load_named
from ..estimator.images import warn_of_range
from ..estimator.wrapper import thawed
from ..networks import MultiTask, Projected, adapters_of, share
from ..networks.copies import deep_copy
from ..networks.memory import heed_views, prefer_channels_last
from ..networks.probe import check_real, on_one_device, some_rows

Module = TypeVar("Module", bound=nn.Module)


class Backbone(NamedTuple):
    """A trained network, and the preprocessing of its rows in training.

    Parameters
    ----------
    network : torch.nn.Module
        The network. It may belong to the user or to another estimator, so it must not be changed.
    scaler : scikit-learn transformer or None, default=None
        The fitted scaling of its rows; None if the rows were not scaled.
    pads : bool, default=False
        Whether its images were padded to squares after the scaling.
    layer : str or None, default=None
        Name of the layer whose output are its features, "" for the network itself. None lets `feature_layer` find the
        layer.
    """

    network: nn.Module
    scaler: Any = None
    pads: bool = False
    layer: str | None = None


def find_backbone(backbone: Any, uint8: bool, what: str = "backbone") -> Backbone | None:
    """Return the trained network that an estimator's ``backbone`` stands for, or None if it is not trained yet.

    Parameters
    ----------
    backbone : torch.nn.Module, estimator, str or callable
        A trained module; a fitted estimator of skorch or skood, whose backbone is taken if it has one, and otherwise
        its module; or a name that `load_named` knows. Other names, and callables, stand for networks that are not
        trained yet.
    uint8 : bool
        Whether the rows at hand are uint8 images.
    what : str, default="backbone"
        Name of the parameter, for error messages.

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
    backbone = thawed(backbone)
    if isinstance(backbone, nn.Module):
        if isinstance(backbone, torch.jit.ScriptModule):
            # A scripted or traced module takes no hooks; one around it does. Its output are the features.
            return Backbone(nn.Sequential(backbone))
        # A compiled module wraps the original one, whose layers can be read and replaced.
        return Backbone(getattr(backbone, "_orig_mod", backbone))
    if isinstance(backbone, str):
        network = load_named(backbone)
        return None if network is None else Backbone(network)
    if not hasattr(backbone, "fit"):
        return None
    # If a detector has a backbone, that is shared and not its module, which has the detector's own adapters.
    network = getattr(backbone, "backbone_", None) or getattr(backbone, "module_", None)
    name = type(backbone).__name__
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{what}={name} holds no trained torch module. Fit it first; from a Pipeline or a search, pass the fitted "
            f"skorch or skood estimator inside. If a search would clone it, wrap it in sklearn.frozen.FrozenEstimator."
        )
    if isinstance(backbone, OutlierMixin) and not hasattr(backbone, "classes_") and not hasattr(backbone, "backbone_"):
        raise ValueError(
            f"{what}={name} has learnt no features: its network was trained without classes. Pass a fitted "
            f"BackboneClassifier, SimCLREncoder or detector with classes."
        )
    # Without the heads, which served the training task only.
    if isinstance(network, (MultiTask, Projected)):
        network = network.trunk
    check_pixel_type(backbone, uint8, what)
    network = cropped(network, backbone)
    return Backbone(network, getattr(backbone, "scaler_", None), getattr(backbone, "_pads", False))


class CentralSquare(nn.Module):
    """Cut the central square out of each image.

    Parameters
    ----------
    size : int
        Side of the square, in pixels.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Return the squares, of shape (n, C, min(H, size), min(W, size))."""
        return center_crop(images, self.size)


def cropped(network: nn.Module, estimator: Any) -> nn.Module:
    """Return a network that takes whole images as an estimator scores them: their central squares, if it crops any.

    Parameters
    ----------
    network : torch.nn.Module
        The network of the estimator, or a part of it, that takes cropped images.
    estimator : estimator
        The fitted estimator.

    Returns
    -------
    network : torch.nn.Module
        The network itself if the estimator crops nothing.
    """
    size = getattr(estimator, "_crop_size", None)
    return network if size is None else nn.Sequential(CentralSquare(size), network)


def check_pixel_type(estimator: Any, uint8: bool, what: str) -> None:
    """Raise an error if only one of the rows at hand and the rows that an estimator was fitted on are uint8 images.

    Parameters
    ----------
    estimator : estimator
        The fitted estimator. It passes if it does not record the dtype of its images.
    uint8 : bool
        Whether the rows at hand are uint8 images.
    what : str
        Name of the parameter, for error messages.

    Raises
    ------
    ValueError
        If the estimator was fitted on images of the other type.
    """
    trained_on = getattr(estimator, "_uint8_images", uint8)
    if trained_on != uint8:
        kind = "uint8" if trained_on else "float"
        raise ValueError(f"{what} was fitted on {kind} images, but X holds others. Pass {kind} images.")


def check_alike(trained: Any, taker: Any, what: str) -> None:
    """Raise an error, or warn, if rows differ from those that an estimator was fitted on whose network is taken.

    The estimator itself would refuse such rows, or warn of them, but not its network.

    Parameters
    ----------
    trained : object
        What a user passed as encoder, backbone or classifier; other than fitted estimators of skood pass.
    taker : estimator
        The estimator that takes the network, after it has checked its own rows.
    what : str
        Name of the parameter, for messages.

    Raises
    ------
    ValueError
        If the names of the columns differ, or their order.

    Warns
    -----
    UserWarning
        If pixels are likely on another scale.
    """
    trained = thawed(trained)
    wanted, own = (getattr(one, "feature_names_in_", None) for one in (trained, taker))
    if wanted is not None and own is not None and len(wanted) == len(own):
        differing = np.flatnonzero(wanted != own)
        if len(differing):
            place = differing[0]
            raise ValueError(
                f"{what} was fitted on other columns, or on the same in another order: its column {place} is "
                f"{wanted[place]!r}, and that of X {own[place]!r}. Pass X[list({what}.feature_names_in_)]."
            )
    warn_of_range(getattr(taker, "_pixel_range", None), getattr(trained, "_pixel_range", None), f"the {what}")


def check_columns(scaler: Any, in_shape: tuple[int, ...], what: str = "backbone") -> None:
    """Raise an error if rows have another number of features or channels than a backbone's scaler was fitted on.

    Parameters
    ----------
    scaler : scikit-learn transformer or None
        The scaler of a `Backbone`; None passes.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    what : str, default="backbone"
        Name of the parameter, for error messages.

    Raises
    ------
    ValueError
        If the numbers differ.
    """
    n_wanted = getattr(scaler, "n_features_in_", in_shape[0])
    if in_shape[0] != n_wanted:
        kind = "features" if len(in_shape) == 1 else "channels"
        raise ValueError(f"{what} was fitted on {n_wanted} features or channels; X has {in_shape[0]} {kind}.")


def warn_of_pixels(network: nn.Module, images: np.ndarray, what: str = "backbone") -> None:
    """Warn of images outside [0, 1] if the network is a `Preprocessed` one, which takes pixels in [0, 1].

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    images : ndarray of shape (n, C, H, W)
        Some of the images. Rows of another shape pass.
    what : str, default="backbone"
        Name of the parameter, for the warning.
    """
    if isinstance(network, Preprocessed):
        warn_of_scale(images, f"the {what} takes")


def warn_of_scale(images: np.ndarray, taker: str) -> None:
    """Warn of images outside [0, 1].

    Parameters
    ----------
    images : ndarray of shape (n, C, H, W)
        Some of the images. Rows of another shape pass.
    taker : str
        What takes pixels in [0, 1], with its verb, for the warning: "the backbone takes", for example.
    """
    # With a tolerance, for images that were rounded or resized.
    if images.ndim == 4 and (images.min() < -0.01 or images.max() > 1.01):
        warn_user(
            f"X holds images with values from {images.min():.3g} to {images.max():.3g}, but {taker} pixels in [0, 1]. "
            f"Scale them, or pass uint8 images.",
            RuntimeWarning,
        )


def shown(backbone: Any) -> str:
    """Return a short name of a backbone for error messages, without all its layers."""
    return repr(backbone) if isinstance(backbone, str) else type(backbone).__name__


class _Copy(NamedTuple):
    """Hold a frozen copy, and the same copy as it was made, with the same tensors.

    The first one runs, and may then hold the hooks of a thread that reads its layers, or what a network keeps of its
    last rows. ``by_shape`` are the modules that rows of some shapes need: this copy, or another one that takes its
    images with the channels first.
    """

    copied: nn.Module
    as_made: nn.Module
    by_shape: dict[tuple[int, ...], nn.Module]


# module -> device -> frozen copy. The keys are weak: a copy is freed with the module that it was made of, once nothing
# else uses it.
_FROZEN: WeakKeyDictionary[nn.Module, dict[torch.device, _Copy]] = WeakKeyDictionary()
# All these copies, and modules made of them, which need not be copied again.
_COPIES: WeakSet[nn.Module] = WeakSet()
_FREEZING = threading.Lock()
if hasattr(os, "register_at_fork"):
    # A process that is forked while another thread holds the lock would wait for ever.
    os.register_at_fork(before=_FREEZING.acquire, after_in_parent=_FREEZING.release, after_in_child=_FREEZING.release)


def frozen(
    module: nn.Module, device: torch.device, what: str = "backbone", in_shape: tuple[int, ...] | None = None
) -> nn.Module:
    """Return a copy of a module for encoders and detectors to share: in evaluation mode and without gradients.

    Parameters
    ----------
    module : torch.nn.Module
        The module. It stays as it is, and may be trained further.
    device : torch.device
        The device of the copy.
    what : str, default="backbone"
        Name of the parameter, for error messages.
    in_shape : tuple of int or None, default=None
        Shape of the rows that the module takes: (n_features,) or (C, H, W). It decides how maps are arranged in memory;
        None, where they come with the channels last, leaves that to other calls.

    Returns
    -------
    module : torch.nn.Module
        The copy, which must not be changed. It is the same object for the same module, device and shape, unless the
        module was changed since the last call: its weights, layers, hooks or other attributes. If an attribute cannot
        be compared with that of the copy, each call makes a new copy.

    Raises
    ------
    ValueError
        If the module cannot be copied, holds complex numbers, or has lazy layers without a shape.
    """
    if module in _COPIES and all(tensor.device == device for tensor in module.parameters()):
        return module
    with _FREEZING:
        copies = _FROZEN.setdefault(module, {})
        if device not in copies or not _alike(module, copies[device].as_made, {}):
            # Tensors that are made in inference mode can never be trained.
            with torch.inference_mode(False):
                copied = _copied(module, what).eval().to(device, torch.float32)
                # Not by the module's own requires_grad_, which a traced module lacks.
                for parameter in copied.parameters():
                    parameter.requires_grad_(False)
                copies[device] = _Copy(prefer_channels_last(copied), share(copied), {})
                on_one_device(copied)
            _COPIES.add(copied)
        copied, as_made, by_shape = copies[device]
        if in_shape is None:
            return copied
        if in_shape not in by_shape:
            # Other estimators, maybe in other threads, score with the weights of this copy, and round as these lie in
            # memory: what rows of this shape need is tried on another one.
            with torch.inference_mode(False), torch.no_grad():
                tried = on_one_device(deep_copy(as_made))
                by_shape[in_shape] = tried if heed_views(tried, in_shape) else copied
            _COPIES.add(by_shape[in_shape])
        return by_shape[in_shape]


def as_frozen(module: Module) -> Module:
    """Mark a module as frozen, so that `frozen` shares it without copying it.

    Parameters
    ----------
    module : torch.nn.Module
        A module that was made of frozen modules and is never changed.

    Returns
    -------
    module : torch.nn.Module
        The same module.
    """
    _COPIES.add(module)
    return module


def _copied(module: nn.Module, what: str) -> nn.Module:
    """Return a copy of a module, or raise an error that says why it cannot be a backbone."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise ValueError(f"{what} is not trained: {name} is lazy, and has no shape yet. Train the network first.")
    check_real(module, what)
    try:
        with torch.no_grad():
            return deep_copy(module)
    except RuntimeError as error:
        raise ValueError(f"{what} cannot be copied: {error}") from error


def _alike(one: Any, other: Any, seen: dict[tuple[int, int], Any]) -> bool:
    """Return whether a module, or anything that it holds, still equals its copy; False if the two cannot be compared.

    ``seen`` holds the pairs that were met already, because modules may hold each other.
    """
    if one is other or (id(one), id(other)) in seen:
        return True
    if type(one) is not type(other):
        return False
    # The pair is held, too: once freed, its ids could be given to other objects.
    seen[id(one), id(other)] = one, other
    try:
        return _equal(one, other, seen)
    except Exception:  # of others' objects, any may be raised
        return False


def _equal(one: Any, other: Any, seen: dict[tuple[int, int], Any]) -> bool:
    """Return whether two objects of one type are equal; see `_alike`."""
    if isinstance(one, Tensor):
        # Values are compared and not versions of tensors, because fused optimizers and changes through ``data`` do not
        # change the version. The copy has its own device and dtype.
        return one.shape == other.shape and torch.equal(one.to(other), other)
    if isinstance(one, nn.Module):
        # A copy is in evaluation mode.
        one, other = ([item for item in sorted(vars(part).items()) if item[0] != "training"] for part in (one, other))
    if isinstance(one, Mapping):
        # In their order, which is that in which hooks run.
        one, other = list(one.items()), list(other.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_alike(*pair, seen) for pair in zip(one, other, strict=True))
    if isinstance(one, MethodType):
        return one.__func__ is other.__func__ and _alike(one.__self__, other.__self__, seen)
    if isinstance(one, ref):
        return _alike(one(), other(), seen)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if type(one).__eq__ is not object.__eq__:
        return bool(one == other)
    # Other objects are equal if copies of them would be.
    return _alike(one.__reduce_ex__(4), other.__reduce_ex__(4), seen)


def check_adapters_learn(module: nn.Module, in_shape: tuple[int, ...]) -> None:
    """Raise an error if the adapters of a module get no gradient.

    Parameters
    ----------
    module : torch.nn.Module
        A module with adapters.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).

    Raises
    ------
    ValueError
        If no adapter gets a gradient.
    """
    adapters = [parameter for _, layer in adapters_of(module) for parameter in layer.adapters.parameters()]
    rows = some_rows(in_shape).to(adapters[0].device)
    gradients = torch.autograd.grad(module(rows).sum(), adapters, allow_unused=True)
    if all(gradient is None for gradient in gradients):
        raise ValueError(
            "backbone lets no gradient through to its layers (torch.no_grad or detach in its forward): adapters could "
            "not learn. Remove these calls, or set adaptation='frozen'."
        )


def fingerprint(module: nn.Module) -> str:
    """Return a short text that identifies the weights of a network.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    fingerprint : str
        16 hexadecimal digits.
    """
    digest = sha256()
    # The size of images and the number of channels are settings and not tensors, but change what the network computes.
    for part in module.modules():
        if isinstance(part, Preprocessed):
            digest.update(part.extra_repr().encode())
    for name, tensor in module.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.double().numpy().tobytes())
    return digest.hexdigest()[:16]
