"""Load trained networks by name, with the scaling and the size of images that they were trained on."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from importlib.resources import as_file, files
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ._npz import open_npz
from .networks import ResNet

__all__ = ["SHIPPED", "Preprocessed", "load_shipped"]

# The backbone that comes with skood.
SHIPPED = "cifar100-resnet-26-16"

P = ParamSpec("P")
T = TypeVar("T")


class Preprocessed(nn.Module):
    """Scale and resize rows as a network expects them, then apply the network.

    Parameters
    ----------
    network : torch.nn.Module
        The network. It is kept, not copied.
    mean, std : float, sequence of float or None, default=None
        From each feature, or each channel of images, ``mean`` is subtracted, and the difference is divided by ``std``.
        None stands for 0 and 1. The detectors scale uint8 images to [0, 1] before.
    size : int or None, default=None
        Side, in pixels, of the squares to which images are resized. None keeps their size.
    resize : int or None, default=None
        Length, in pixels, to which the shorter side is resized before a square of ``size`` is cropped from the center,
        as is usual for ImageNet networks. None resizes images to squares without a crop, which may distort them.
        Squares of ``size`` stay as they are in either case: they may have been cropped already.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How images are resized.
    channels : int or None, default=None
        Number of times that the channel of grey images is repeated. None does not repeat it.

    Examples
    --------
    >>> import torch
    >>> from skood.backbones import Preprocessed
    >>> network = Preprocessed(torch.nn.Flatten(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=8, channels=3)
    >>> network(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 192])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        size: int | None = None,
        resize: int | None = None,
        interpolation: str = "bilinear",
        channels: int | None = None,
    ):
        super().__init__()
        if resize is not None and (size is None or size > resize):
            raise ValueError(f"resize={resize} needs a size of at most {resize}; got size={size}.")
        self.network, self.size, self.channels = network, size, channels
        self.resize, self.interpolation = resize, interpolation
        # Buffers follow the module to its device and into its state_dict.
        self.register_buffer("mean", torch.as_tensor(0.0 if mean is None else mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(1.0 if std is None else std, dtype=torch.float32))

    def extra_repr(self) -> str:
        """Return the sizes and the channels, for the module's repr."""
        # Saved adapters identify their network by this text, too. Without settings at their defaults it stays the same
        # for files that were written before these settings existed.
        text = f"size={self.size}, channels={self.channels}"
        text += "" if self.resize is None else f", resize={self.resize}"
        return text if self.interpolation == "bilinear" else f"{text}, interpolation={self.interpolation}"

    def forward(self, rows: Tensor) -> Tensor:
        """Return the network's output for rows (n, n_features) or images (n, C, H, W)."""
        if rows.ndim == 4:
            if self.channels is not None and rows.shape[1] == 1:
                rows = rows.expand(-1, self.channels, -1, -1)
            if self.size is not None and rows.shape[2:] != (self.size, self.size):
                rows = self._resized(rows, self.size)
        shape = (-1, *[1] * (rows.ndim - 2))
        return self.network((rows - self.mean.reshape(shape)) / self.std.reshape(shape))

    def _resized(self, images: Tensor, size: int) -> Tensor:
        """Return images resized to squares of this size."""
        sides = [size, size]
        if self.resize is not None:
            shorter = min(images.shape[2:])
            sides = [self.resize * side // shorter for side in images.shape[2:]]
        # Without antialias, reduced images would show patterns that the network never saw in training.
        images = functional.interpolate(images, sides, mode=self.interpolation, antialias=True)
        # As torchvision's CenterCrop, which rounds halves to even.
        top, left = (round((side - size) / 2) for side in sides)
        return images[:, :, top : top + size, left : left + size]


def load_named(name: str, params: Mapping[str, Any] | None = None) -> nn.Module | None:
    """Return the trained network that a name stands for, or None if it stands for none.

    Parameters
    ----------
    name : str
        `SHIPPED`, "torchvision:NAME" or "timm:NAME".
    params : mapping or None, default=None
        Keyword arguments of ``torchvision.models.get_model``, such as ``{"weights": "IMAGENET1K_V1"}``, or of
        ``timm.create_model``.

    Returns
    -------
    module : torch.nn.Module or None
        The same object each time.

    Raises
    ------
    ValueError
        If the network takes no such arguments.
    ImportError
        If the package that the name asks for is not installed.
    ConnectionError
        If its weights are not on this machine and cannot be downloaded.
    """
    source, _, model = name.partition(":")
    packages = {"torchvision": _from_torchvision, "timm": _from_timm}
    if source in packages and model:
        # Sorted, so that their order does not matter to the cache.
        options = dict(sorted((params or {}).items()))
        try:
            hash(tuple(options.values()))
        except TypeError as error:
            raise ValueError(f"backbone_params={options} must hold numbers, text or tuples of these.") from error
        return packages[source](model, **options)
    if params:
        raise ValueError(f"backbone_params={params}: only 'torchvision:NAME' and 'timm:NAME' take them; set None.")
    return load_shipped() if name == SHIPPED else None


def _once(load: Callable[P, T]) -> Callable[P, T]:
    """Cache what a function returns, so that threads that call it at the same time get the same object."""
    # `functools.cache` alone would call the function once for each thread that comes before the first call returns.
    cached, lock = cache(load), threading.Lock()

    def renew() -> None:
        """Give a forked process a new lock: the thread that held the old one does not exist there."""
        nonlocal lock
        lock = threading.Lock()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)

    @wraps(cached)
    def loaded(*args: P.args, **kwargs: P.kwargs) -> T:
        with lock:
            return cached(*args, **kwargs)  # type: ignore[arg-type]  # names, which are hashable

    return loaded


@_once
def load_shipped() -> Preprocessed:
    """Return the backbone that comes with skood: a ResNet-26 of width 16 that classifies CIFAR-100 images.

    It takes images of one or three channels, in [0, 1]. ``skood/weights/cifar100-resnet-26-16.json`` says on which part
    of CIFAR-100 it was trained, how, and how accurate it is.

    Returns
    -------
    module : Preprocessed
        The same object each time.
    """
    folder = files(__package__) / "weights"
    about = json.loads((folder / f"{SHIPPED}.json").read_text())
    network = ResNet((3, 32, 32), about["n_classes"], width=about["width"])
    with as_file(folder / f"{SHIPPED}.npz") as path, open_npz(path) as stored:
        weights = {name: stored[name] for name in stored.names}
        expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        sound = all(value.dtype.kind in "fi" and np.isfinite(value).all() for value in weights.values())
        if not sound or {name: value.shape for name, value in weights.items()} != expected:
            raise ValueError(f"{path}: not the weights that came with skood; reinstall skood.")
    # Stored as float16; load_state_dict converts to the parameters' float32.
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return Preprocessed(network, mean=about["mean"], std=about["std"], channels=3).eval()


@_once
def _from_torchvision(name: str, **params: Any) -> Preprocessed:
    """Return a torchvision model, classifier included, with the named weights or the default ones."""
    models = _package("torchvision").models
    known = models.get_model_weights(name)
    weights = params.pop("weights", known.DEFAULT)
    if isinstance(weights, str):
        if weights not in known.__members__:
            raise ValueError(f"torchvision:{name} has no weights {weights!r}; pass {' or '.join(known.__members__)}.")
        weights = known[weights]
    wants = weights.transforms()
    with _download(f"torchvision:{name}"):
        module = models.get_model(name, weights=weights, **params)
    sizes = {"size": wants.crop_size[0], "resize": wants.resize_size[0], "interpolation": wants.interpolation.value}
    return Preprocessed(module, mean=wants.mean, std=wants.std, channels=3, **_known(sizes)).eval()


@_once
def _from_timm(name: str, **params: Any) -> Preprocessed:
    """Return a pretrained model of timm without its classifier, whose output are the pooled features."""
    timm = _package("timm")
    with _download(f"timm:{name}"):
        module = timm.create_model(name, **{"pretrained": True, "num_classes": 0, **params})
    wants = timm.data.resolve_model_data_config(module)
    # The config is that of the weights, whatever size and channels the module was made for.
    channels, size = params.get("in_chans", wants["input_size"][0]), params.get("img_size", wants["input_size"][1])
    size = size if isinstance(size, int) else size[0]
    sizes = {"size": size, "interpolation": wants["interpolation"]}
    if wants["crop_mode"] == "center":
        sizes["resize"] = math.floor(size / wants["crop_pct"])
    # The first layer of a module for other channels is a sum, or a repetition, of that for the colours.
    mean, std = (wants[name] if np.size(wants[name]) == channels else np.mean(wants[name]) for name in ("mean", "std"))
    return Preprocessed(module, mean=mean, std=std, channels=channels, **_known(sizes)).eval()


def _known(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes, with bilinear interpolation if `Preprocessed` lacks the published one."""
    return sizes if sizes["interpolation"] == "bicubic" else sizes | {"interpolation": "bilinear"}


@contextmanager
def _download(name: str) -> Iterator[None]:
    """Turn a failed download into a ConnectionError with one message; each package raises its own errors."""
    try:
        yield
    except Exception as error:
        source = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError) and source not in ("httpx", "huggingface_hub", "requests"):
            raise
        reason = " ".join(str(error).split())[:200]
        # Not "from error": the traceback of urllib helps nobody.
        raise ConnectionError(
            f"the weights of {name!r} are not on this machine and cannot be downloaded ({reason}). Load them once "
            f"where there is a network and copy the cache ({torch.hub.get_dir()}; for timm ~/.cache/huggingface), or "
            f"pass a torch module with weights, or {SHIPPED!r}, which comes with skood."
        ) from None


def _package(name: str) -> ModuleType:
    """Import a package that is not a dependency of skood; if it is missing, the error says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"'{name}:...' needs {name}, which is not installed: pip install {name}. Or pass a torch module, or "
            f"{SHIPPED!r}."
        ) from error
