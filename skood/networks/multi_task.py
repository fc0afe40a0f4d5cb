"""A classifier and an auxiliary task on one trunk: Ahmed & Courville, "Detecting Semantic Anomalies" (2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .build import find_head
from .contrastive_prediction import patch_geometry, patches
from .norms import AUXILIARY_TASK, CLASS_TASK, task


class MultiTask(nn.Module):
    """A classifier split into a trunk and its class head, beside the head of an auxiliary task on the same trunk.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (n, *in_shape) to logits (n, c) by a last linear layer, as from `make_classifier`. It is taken apart: the
        layer becomes the class head, and what is left the trunk.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    auxiliary : torch.nn.Module or None, default=None
        The head of the auxiliary task; it can be set later as ``auxiliary_head``.

    Attributes
    ----------
    trunk : torch.nn.Module
        Maps rows to features (n, ``class_head.in_features``).
    class_head : torch.nn.Linear
    auxiliary_head : torch.nn.Module or None

    Raises
    ------
    ValueError
        If the network has no linear layer, or its last one does not give the logits.
    """

    def __init__(self, network: nn.Module, in_shape: tuple[int, ...], auxiliary: nn.Module | None = None):
        super().__init__()
        trunk, self.class_head = split_head(network, in_shape)
        self.trunk = trunk
        self.register_module("auxiliary_head", auxiliary)
        self.train(network.training)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits of the classes, of shape (n, c)."""
        return self.class_head(self.features(rows))

    def features(self, rows: Tensor) -> Tensor:
        """The trunk's features for the classes, of shape (n, F)."""
        with task(self.trunk, CLASS_TASK):
            return self.trunk(rows)

    def auxiliary_features(self, rows: Tensor) -> Tensor:
        """The trunk's features for the auxiliary task, of shape (n, F).

        The same as `features` unless the trunk has separate norms, see `separate_norms`.
        """
        with task(self.trunk, AUXILIARY_TASK):
            return self.trunk(rows)

    def encode_patches(self, images: Tensor) -> Tensor:
        """Encodings of an image's overlapping patches for the auxiliary task.

        They are the trunk's ``patch_features`` if it has such a method, as a `WideResNet`, else its features; it must
        take images of the size of a patch, see `patch_geometry`.

        Parameters
        ----------
        images : Tensor of shape (n, C, H, H)

        Returns
        -------
        encodings : Tensor of shape (n, grid, grid, F)

        Raises
        ------
        ValueError
            As `patches` and `patch_geometry`.
        """
        size, stride, grid = patch_geometry(max(images.shape[2:]))
        flat = patches(images, size, stride).flatten(0, 2)
        encode = getattr(self.trunk, "patch_features", self.trunk)
        with task(self.trunk, AUXILIARY_TASK):
            return encode(flat).unflatten(0, (len(images), grid, grid))


def split_head(network: nn.Module, in_shape: tuple[int, ...]) -> tuple[nn.Module, nn.Linear]:
    """Take a network apart: what comes before its last linear layer, and that layer.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (n, *in_shape) to what its last linear layer gives. It is changed.
    in_shape : tuple of int
        (n_features,) or (C, H, W).

    Returns
    -------
    trunk : torch.nn.Module
    head : torch.nn.Linear

    Raises
    ------
    ValueError
        If the network has no linear layer, or does more after its last one.
    """
    name = find_head(network, in_shape)
    rows = _trial_rows(network, in_shape)
    logits = _evaluated(network, rows)
    trunk, head = nn.Identity(), network.get_submodule(name)
    if name:
        network.set_submodule(name, nn.Identity())
        trunk = network
    both = nn.Sequential(trunk, head).train(network.training)
    try:
        again = _evaluated(both, rows)
        same = again.shape == logits.shape and torch.allclose(again, logits, rtol=1e-4, atol=1e-5, equal_nan=True)
    except (RuntimeError, AttributeError, TypeError):
        # The network cannot run without the layer.
        same = False
    if not same:
        raise ValueError(
            "network does more after its last linear layer than give logits (a softmax, say); leave that out."
        )
    return trunk, head


def _trial_rows(module: nn.Module, in_shape: tuple[int, ...]) -> Tensor:
    """Rows on the module's device, always the same ones; torch's own generator stays untouched."""
    parameter = next(module.parameters(), torch.empty(0))
    # Many and varied: on few rows a ReLU after the logits could pass unnoticed.
    rows = torch.randn(16, *in_shape, generator=torch.Generator().manual_seed(0))
    return rows.to(parameter.device, parameter.dtype)


def _evaluated(module: nn.Module, rows: Tensor) -> Tensor:
    """What the module, in evaluation mode, makes of rows."""
    was_training = module.training
    try:
        with torch.no_grad():
            return module.eval()(rows)
    finally:
        module.train(was_training)
