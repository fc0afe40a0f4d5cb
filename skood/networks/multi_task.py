"""A classifier and an auxiliary task on one trunk: Ahmed & Courville, "Detecting Semantic Anomalies" (2020)."""

from __future__ import annotations

from torch import Tensor, nn

from .contrastive_prediction import patch_geometry, patches
from .heads import split_head
from .norms import AUXILIARY_TASK, CLASS_TASK, task


class MultiTask(nn.Module):
    """Split a classifier into a trunk and its class head; the head of an auxiliary task stands on the same trunk.

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
        Maps features to the logits of the classes.
    auxiliary_head : torch.nn.Module or None

    Raises
    ------
    ValueError
        If the network has no linear layer, or its last one does not give the logits.
    """

    auxiliary_head: nn.Module | None

    def __init__(self, network: nn.Module, in_shape: tuple[int, ...], auxiliary: nn.Module | None = None):
        super().__init__()
        trunk, self.class_head = split_head(network, in_shape)
        self.trunk = trunk
        self.register_module("auxiliary_head", auxiliary)
        self.train(network.training)

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits of the classes, of shape (n, c)."""
        return self.class_head(self.features(rows))

    def features(self, rows: Tensor) -> Tensor:
        """Return the trunk's features for the classes, of shape (n, F)."""
        with task(self.trunk, CLASS_TASK):
            return self.trunk(rows)

    def auxiliary_features(self, rows: Tensor) -> Tensor:
        """Return the trunk's features for the auxiliary task, of shape (n, F).

        They are the same as `features` unless the trunk has separate norms, see `separate_norms`.
        """
        with task(self.trunk, AUXILIARY_TASK):
            return self.trunk(rows)

    def encode_patches(self, images: Tensor) -> Tensor:
        """Return encodings of an image's overlapping patches for the auxiliary task.

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
