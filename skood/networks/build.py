"""Build the torch module that a user's ``network`` or ``classifier`` stands for, for rows of a given shape."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from .cnn import SmallCNN
from .copies import deep_copy
from .memory import heed_views
from .mlp import MLP, ResidualMLP
from .probe import check_real, check_rows_apart, on_one_device, trial
from .resnet import IMAGENET_NETWORKS, LARGE_SIDE, ImageNetResNet, ResNet, resnet_size
from .wide_resnet import WideResNet, wide_resnet_size

# A name, a module, or a class or function that makes a module.
Network: TypeAlias = str | nn.Module | Callable[..., Any]


def make_network(
    network: Network,
    named: Mapping[str, Callable[..., Any]],
    in_shape: tuple[int, ...],
    out_features: int | tuple[int, int, int],
    what: str = "network",
) -> nn.Module:
    """Return the module that an estimator's ``network`` stands for; check that it maps rows to ``out_features`` values.

    Parameters
    ----------
    network : str, torch.nn.Module, class or callable
        A key of ``named``, a module, which is copied, or a class or factory. Classes and factories, those in ``named``
        too, are called with ``(n_features, out_features)`` for vectors and ``((C, H, W), out_features)`` for images.
    named : mapping of str to callable
        Builders of the networks that have a name.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    out_features : int or tuple (C, H, W)
        Number of outputs for a row; a tuple if the module returns images.
    what : str, default="network"
        Name of the parameter, for error messages.

    Returns
    -------
    module : torch.nn.Module

    Raises
    ------
    ValueError
        If the module does not take rows of ``in_shape``, or returns another shape than ``out_features`` says.
    """
    module = network
    if not isinstance(network, nn.Module):
        build = named[network] if isinstance(network, str) else network
        if not callable(build):
            raise ValueError(f"{what} must be a name, a torch module, a class or a factory; got {network!r}.")
        module = _built(build, in_shape[0] if len(in_shape) == 1 else in_shape, out_features, what)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{what}={network!r} made a {type(module).__name__}, not a torch.nn.Module.")
    if not isinstance(network, str):
        # The user's own module is never trained: a constructor argument must not change in `fit`. A function may return
        # such a module, and at each call the same one.
        module = copy_in_single(module)
    # The trial also gives lazy layers their shapes.
    result = trial(module, in_shape, what)
    shape = tuple(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
    expected = (2, *(out_features if isinstance(out_features, tuple) else (out_features,)))
    if shape != expected:
        raise ValueError(f"{what} maps {(2, *in_shape)} to {shape}; it must give {expected}.")
    if not isinstance(network, str):
        check_real(module, what)
        check_rows_apart(module, in_shape, what)
        heed_views(module, in_shape)
    return module


def copy_in_single(module: nn.Module) -> nn.Module:
    """Return a copy of a user's module in float32, as rows are, whatever the type of its own numbers.

    Where torch's default type is float64, the networks that a user builds have it.
    """
    # A compiled module wraps the original one, whose layers can be read and replaced.
    return on_one_device(deep_copy(getattr(module, "_orig_mod", module)).float())


def _built(build: Callable[..., Any], size: int | tuple[int, ...], out_features: Any, what: str) -> Any:
    """Return what a class or factory makes for such rows; raise a ValueError if it does not take the two arguments."""
    try:
        signature = inspect.signature(build)
    except ValueError:
        # Some functions that are not written in Python have none.
        return build(size, out_features)
    try:
        signature.bind(size, out_features)
    except TypeError as error:
        name, shape = getattr(build, "__name__", repr(build)), "n_features" if isinstance(size, int) else "(C, H, W)"
        raise ValueError(
            f"{what}={name} is called with ({shape}, n_outputs), here {(size, out_features)}, and does not take that: "
            f"{error}. Pass a class or function that does, or the network itself, as an instance."
        ) from error
    return build(size, out_features)


def resnet_if_large(image_shape: Sequence[int], small: str) -> str:
    """Return "resnet-18" for large images, and the given name for smaller ones.

    Named networks other than the "resnet-" of ImageNet begin with maps of the images' own size, which take most of the
    time on large images.

    Parameters
    ----------
    image_shape : tuple (C, H, W)
        Shape of the images. They are large if the shorter side has at least 96 pixels.
    small : str
        Name of the network for other images.

    Returns
    -------
    name : str
    """
    return "resnet-18" if min(image_shape[1:]) >= LARGE_SIDE else small


def make_classifier(
    network: Network,
    in_shape: tuple[int, ...],
    out_features: int,
    *,
    hidden_sizes: Sequence[int],
    dropout: float,
    what: str = "network",
) -> nn.Module:
    """Return the classifier of vectors or images that an estimator's ``network`` stands for.

    Parameters
    ----------
    network : str, torch.nn.Module, class or callable
        "mlp" or "residual" for vectors; "cnn", "wrn-D-K", "resnet-D-W", "resnet-18", "resnet-34" or "resnet-50" for
        images. "auto" is "residual" for vectors, "cnn" for images of one channel and, for other images, "wrn-16-2" if
        the shorter side has less than 96 pixels, else "resnet-18". Or a module, a class or a factory, as in
        `make_network`.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    out_features : int
        Number of logits.
    hidden_sizes : sequence of int
        Widths of the hidden layers of "mlp", or of the blocks of "residual".
    dropout : float
        Share of values dropped in training. The "resnet-" networks have no dropout.
    what : str, default="network"
        Name of the parameter, for error messages.

    Returns
    -------
    module : torch.nn.Module

    Raises
    ------
    ValueError
        If there is no network of that name for such rows, or as in `make_network`.
    """
    vectors = len(in_shape) == 1
    if isinstance(network, str) and network == "auto":
        network = "residual" if vectors else "cnn" if in_shape[0] == 1 else resnet_if_large(in_shape, "wrn-16-2")
    named: dict[str, Callable[..., Any]]
    if vectors:
        named = {
            "mlp": partial(MLP, hidden_sizes=hidden_sizes, dropout=dropout),
            "residual": partial(ResidualMLP, hidden_sizes=hidden_sizes, dropout=dropout),
        }
    else:
        # Depths and widths are read from the name, so that only the network that is asked for enters ``named``.
        named = {"cnn": partial(SmallCNN, dropout=dropout)}
        named |= {
            name: partial(ImageNetResNet, n_blocks=n_blocks, bottlenecks=bottlenecks)
            for name, (n_blocks, bottlenecks) in IMAGENET_NETWORKS.items()
        }
        if isinstance(network, str) and (wide_size := wide_resnet_size(network)):
            depth, widen = wide_size
            named[network] = partial(WideResNet, depth=depth, widen=widen, dropout=dropout)
        elif isinstance(network, str) and (size := resnet_size(network)):
            depth, width = size
            named[network] = partial(ResNet, width=width, n_blocks=(depth - 2) // 6)
    if isinstance(network, str) and network not in named:
        kind = "images"
        there_are = (
            "'cnn', 'wrn-D-K' with D = 6n + 4, as 'wrn-40-2', 'resnet-D-W' with D = 6n + 2, as 'resnet-26-32', "
            "'resnet-18', 'resnet-34' and 'resnet-50'"
        )
        if vectors:
            kind, there_are = "vectors", "'mlp' and 'residual'"
        raise ValueError(f"{what}={network!r} is none of those for {kind}: 'auto', {there_are}.")
    return make_network(network, named, in_shape, out_features, what)
