"""Load trained networks by name, with the scaling and the size of images that they were trained on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import cache, wraps
from importlib import import_module
from importlib.resources import files
from types import ModuleType
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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
        With None they are 0 and 1. The detectors scale uint8 images to [0, 1] before.
    size : int or None, default=None
        Side of the squares to which images are resized. With None images keep their size.
    channels : int or None, default=None
        Number of times that the channel of grey images is repeated. With None it is not repeated.

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
        channels: int | None = None,
    ):
        super().__init__()
        self.network, self.size, self.channels = network, size, channels
        # Buffers follow the module to its device and into its state_dict.
        self.register_buffer("mean", torch.as_tensor(0.0 if mean is None else mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(1.0 if std is None else std, dtype=torch.float32))

    def extra_repr(self) -> str:
        """Return the size and the channels, for the module's repr."""
        return f"size={self.size}, channels={self.channels}"

    def forward(self, rows: Tensor) -> Tensor:
        """Return the network's output for rows (n, n_features) or images (n, C, H, W)."""
        if rows.ndim == 4:
            if self.channels is not None and rows.shape[1] == 1:
                rows = rows.expand(-1, self.channels, -1, -1)
            if self.size is not None and rows.shape[2:] != (self.size, self.size):
                # Without antialias, reduced images would show patterns that the network never saw in training.
                rows = functional.interpolate(rows, (self.size, self.size), mode="bilinear", antialias=True)
        shape = (-1, *[1] * (rows.ndim - 2))
        return self.network((rows - self.mean.reshape(shape)) / self.std.reshape(shape))


def load_named(name: str) -> nn.Module | None:
    """Return the trained network of a name, or None if the name is none of a trained network.

    Parameters
    ----------
    name : str
        `SHIPPED`, "torchvision:NAME" or "timm:NAME".

    Returns
    -------
    module : torch.nn.Module or None
        The same object each time.

    Raises
    ------
    ImportError
        If the package that the name asks for is not installed.
    """
    source, _, model = name.partition(":")
    if name == SHIPPED:
        return load_shipped()
    if source == "torchvision" and model:
        return _from_torchvision(model)
    if source == "timm" and model:
        return _from_timm(model)
    return None


def _once(load: Callable[P, T]) -> Callable[P, T]:
    """Cache what a function returns, so that threads that call it at the same time get the same object."""
    # `functools.cache` alone would call the function once for each thread that comes before the first call returns.
    cached, lock = cache(load), threading.Lock()

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
    with (folder / f"{SHIPPED}.npz").open("rb") as file, np.load(file) as stored:
        state = {name: torch.from_numpy(stored[name]) for name in stored.files}
    # Stored as float16; load_state_dict converts to the parameters' float32.
    network.load_state_dict(state)
    return Preprocessed(network, mean=about["mean"], std=about["std"], channels=3).eval()


@_once
def _from_torchvision(name: str) -> Preprocessed:
    """Return a model of torchvision with its default weights and its classifier."""
    models = _package("torchvision").models
    weights = models.get_model_weights(name).DEFAULT
    wants = weights.transforms()
    module = models.get_model(name, weights=weights)
    return Preprocessed(module, mean=wants.mean, std=wants.std, size=wants.crop_size[0], channels=3).eval()


@_once
def _from_timm(name: str) -> Preprocessed:
    """Return a pretrained model of timm without its classifier, whose output are the pooled features."""
    timm = _package("timm")
    # num_classes=0 leaves the classifier out.
    module = timm.create_model(name, pretrained=True, num_classes=0)
    wants = timm.data.resolve_model_data_config(module)
    channels, size, _ = wants["input_size"]
    return Preprocessed(module, mean=wants["mean"], std=wants["std"], size=size, channels=channels).eval()


def _package(name: str) -> ModuleType:
    """Import a package that is not a dependency of skood; if it is missing, the error says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"'{name}:...' takes its network from {name}, which is not installed: pip install {name}. Or "
            f"pass a torch module, or {SHIPPED!r}."
        ) from error
