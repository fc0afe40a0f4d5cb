"""Train a backbone on the rows at hand, before a detector adapts it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import training
from ..augment import augmented
from ..networks.memory import prefer_channels_last
from ..networks.randomness import drawing
from ..networks.transforms import AffineMaps, Rotations
from ..training.batches import TrainingRows, to_tensor
from ..training.phases import Phase, Step

# Number of random maps of vectors that a backbone learns to tell apart.
_N_MAPS = 16
# Number of batches at which ``max_epochs="auto"`` aims.
_STEPS = 1000


def make_transforms(image_shape: tuple[int, int, int] | None, n_features: int) -> nn.Module:
    """Return the transformations that a backbone learns to tell apart without labels.

    Parameters
    ----------
    image_shape : tuple (C, H, W) or None
        Shape of the images; None for vectors.
    n_features : int
        Length of the vectors.

    Returns
    -------
    transforms : torch.nn.Module
        Four rotations of images, or random maps of vectors, which are drawn from torch's generator.
    """
    return AffineMaps(n_features, _N_MAPS) if image_shape is None else Rotations()


def pretraining_loss(
    module: nn.Module,
    rows: Tensor,
    labels: Tensor | None = None,
    *,
    transforms: nn.Module | None,
    augmentation: str | Callable | None,
) -> Tensor:
    """Return the cross entropy of the classes, or of the transformation that each row went through.

    Parameters
    ----------
    module : torch.nn.Module
        Maps rows to logits (n, n_outputs).
    rows : Tensor of shape (n, ...)
        A batch of rows.
    labels : Tensor of int of shape (n,) or None, default=None
        The class of each row; not needed with ``transforms``.
    transforms : torch.nn.Module or None
        Transformations from `make_transforms`, one of which is drawn for each row. None learns the classes instead.
    augmentation : str, callable or None
        Augmentation of the rows, as in `skood.augment.augmented`.

    Returns
    -------
    loss : Tensor of no dimensions
    """
    rows = augmented(rows, augmentation)
    if transforms is not None:
        n_transforms = int(transforms.n_transforms)  # type: ignore[arg-type]
        labels = torch.randint(n_transforms, (len(rows),), **drawing(rows.device))
        rows = transforms(rows, labels)
    assert labels is not None  # without transforms the batch has classes
    return functional.cross_entropy(module(rows), labels)


def pretrain(
    network: nn.Module, data: TrainingRows, loss: Callable[..., Tensor], *, max_epochs: int | str, **options: Any
) -> tuple[nn.Module, list, bool]:
    """Train a backbone in place with settings that suit small backbones.

    Parameters
    ----------
    network : torch.nn.Module
        The backbone, on the device of the rows. Weights of a network of images are arranged with the channels last, in
        which memory format convolutions are fastest.
    data : TrainingRows
        The rows.
    loss : callable
        ``loss(module, rows, labels=None) -> Tensor``.
    max_epochs : int or "auto"
        Passes over the rows. "auto" is the number that gives about 1000 batches.
    **options
        ``batch_size``, ``precision``, ``progress``, ``together``, ``patience`` and ``checkpoint`` of
        `skood.training.train`.

    Returns
    -------
    network : torch.nn.Module
        The trained backbone.
    history : list of dict
        One entry for each epoch.
    interrupted : bool
        Whether a KeyboardInterrupt ended the training early.

    Raises
    ------
    KeyboardInterrupt
        If the training was interrupted before the first epoch was finished.
    """
    # The shape of a represented row decides: X may hold flattened images.
    vectors, batch_size = to_tensor(data.X[:1], None, data.represent, data.device).ndim == 2, options["batch_size"]
    if not vectors:
        network = prefer_channels_last(network)
    if max_epochs == "auto":
        max_epochs = math.ceil(_STEPS * batch_size / max(len(data), batch_size))
    net = training.train(
        network,
        data,
        [Phase([Step(loss)], int(max_epochs), "pretraining")],
        lr=0.01 if vectors else 0.1,
        optimizer="nesterov",
        weight_decay=5e-4,
        max_grad_norm=5.0,
        schedule="cosine",
        **options,
    )
    if net.interrupted and not net.history:
        raise KeyboardInterrupt
    return net.module_, net.history, net.interrupted
