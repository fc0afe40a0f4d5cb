"""Train a classifier and an auxiliary task on one trunk: Ahmed & Courville, "Detecting Semantic Anomalies" (2020)."""

from __future__ import annotations

from torch import Tensor, nn

from .contrastive_prediction import patch_geometry, patches
from .heads import split_head
from .norms import AUXILIARY_TASK, CLASS_TASK, task
from .probe import one_tensor


class MultiTask(nn.Module):
    """Split a classifier into a trunk and its class head, and add the head of an auxiliary task to the trunk.

    Parameters
    ----------
    network : torch.nn.Module
        A classifier, for example from `make_classifier`, whose last linear layer computes the logits (n, c). It is
        split: that layer becomes the class head, and the rest the trunk.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    auxiliary : torch.nn.Module or None, default=None
        The head of the auxiliary task. It can be set later as ``auxiliary_head``.

    Attributes
    ----------
    trunk : torch.nn.Module
        Maps rows to features (n, ``class_head.in_features``).
    class_head : torch.nn.Linear
        Maps features to the logits of the classes.
    auxiliary_head : torch.nn.Module or None
        Maps features to the input of the auxiliary loss.

    Raises
    ------
    ValueError
        If the network has no linear layer, or computes more after its last one.
    """

    auxiliary_head: nn.Module | None

    def __init__(self, network: nn.Module, in_shape: tuple[int, ...], auxiliary: nn.Module | None = None):
        super().__init__()
        trunk, self.class_head = split_head(network, in_shape)
        self.trunk = trunk
        self.register_module("auxiliary_head", auxiliary)
        # A new module begins in training mode; this one keeps the mode of the network.
        self.train(network.training)

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits of the classes, of shape (n, c)."""
        return self.class_head(self.features(rows))

    def features(self, rows: Tensor) -> Tensor:
        """Return the trunk's features for the classes, of shape (n, F)."""
        with task(self.trunk, CLASS_TASK):
            return one_tensor(self.trunk(rows))

    def auxiliary_features(self, rows: Tensor) -> Tensor:
        """Return the trunk's features for the auxiliary task, of shape (n, F).

        They are those of `features`, unless `separate_norms` gave the trunk a normalisation for each task.
        """
        with task(self.trunk, AUXILIARY_TASK):
            return one_tensor(self.trunk(rows))

    def encode_patches(self, images: Tensor) -> Tensor:
        """Return encodings of an image's overlapping patches for the auxiliary task.

        If the trunk has a method ``patch_features``, as `WideResNet` has, it computes the encodings; otherwise they are
        the trunk's features. The trunk must take images of the size of a patch, which `patch_geometry` gives.

        Parameters
        ----------
        images : Tensor of shape (n, C, H, H)
            A batch of square images.

        Returns
        -------
        encodings : Tensor of shape (n, grid, grid, F)

        Raises
        ------
        ValueError
            If the images are not square or have fewer than 4 pixels per side.
        """
        size, stride, grid = patch_geometry(max(images.shape[2:]))
        # The trunk sees patches as a batch of small images.
        flat = patches(images, size, stride).flatten(0, 2)
        encode = getattr(self.trunk, "patch_features", self.trunk)
        with task(self.trunk, AUXILIARY_TASK):
            return encode(flat).unflatten(0, (images.shape[0], grid, grid))
