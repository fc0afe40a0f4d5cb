"""Embed rows by trained networks, for `FrozenEncoder` and for detectors of embedded rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ..augment import pad_to_square
from ..backbones import SHIPPED, Preprocessed
from ..estimator.scaling import center_and_scale
from ..networks import Pooling, feature_layer, share
from ..training.batches import Represent
from ..training.scoring import apply_in_chunks
from .trained import (
    Backbone,
    as_frozen,
    check_columns,
    check_pixel_type,
    check_rows_apart,
    find_backbone,
    frozen,
    shown,
)


class Embedder(nn.Module):
    """Scale and pad rows as in the training of a frozen network, then compute the network's features.

    Parameters
    ----------
    features : torch.nn.Module
        Maps scaled rows to features (n, n_features).
    n_features : int
        Number of features.
    scaler : scikit-learn transformer or None, default=None
        A scaling from `skood.estimator.scaling.fitted_scaler`; its columns are features or channels. None leaves rows
        as they are.
    pads : bool, default=False
        Whether scaled images are padded to squares.
    double : bool, default=True
        Whether the scaling computes in double precision, which MPS lacks.
    """

    center: Tensor | None
    scale: Tensor | None

    def __init__(
        self, features: nn.Module, n_features: int, scaler: Any = None, pads: bool = False, double: bool = True
    ):
        super().__init__()
        self.features, self.n_features, self.pads = features, n_features, pads
        dtype = torch.float64 if double else torch.float32
        columns = (None, None) if scaler is None else center_and_scale(scaler)
        # Buffers, so that they move to the device with the module.
        for name, values in zip(("center", "scale"), columns, strict=True):
            self.register_buffer(name, None if values is None else torch.as_tensor(values, dtype=dtype))

    def forward(self, rows: Tensor) -> Tensor:
        """Return features of shape (n, n_features)."""
        if self.center is not None and self.scale is not None:
            # Scaled in double precision, as scikit-learn's scaler does, then back to the dtype of the network.
            shape = (-1, *[1] * (rows.ndim - 2))
            rows = ((rows - self.center.reshape(shape)) / self.scale.reshape(shape)).to(rows.dtype)
        return self.features(pad_to_square(rows) if self.pads else rows)


def find_encoder(encoder: Any, uint8: bool, what: str = "encoder") -> Backbone:
    """Return the trained network that an encoder stands for, and the layer whose output are its features.

    Parameters
    ----------
    encoder : torch.nn.Module, fitted estimator or str
        Anything in which `find_backbone` finds a trained network. If the `transform` of an estimator returns something
        else than the input of its network's last linear layer, the estimator must have a method ``_embedding()`` that
        returns the `Backbone`.
    uint8 : bool
        Whether the rows at hand are uint8 images.
    what : str, default="encoder"
        Name of the parameter, for error messages.

    Returns
    -------
    found : Backbone

    Raises
    ------
    ValueError
        If the encoder has no trained network.
    ImportError
        If a package that a name asks for is not installed.
    """
    if isinstance(encoder, FrozenEstimator):
        encoder = encoder.estimator
    if hasattr(encoder, "_embedding"):
        check_is_fitted(encoder)
        check_pixel_type(encoder, uint8, what)
        return encoder._embedding()
    found = find_backbone(encoder, uint8, what)
    if found is None:
        raise ValueError(
            f"{what}={shown(encoder)} is no trained network: pass a torch module, a fitted estimator that has "
            f"one, {SHIPPED!r}, 'torchvision:NAME' or 'timm:NAME'."
        )
    return found


def make_embedder(
    given: Backbone,
    in_shape: tuple[int, ...],
    device: torch.device,
    *,
    layer: str | None = None,
    pooling: Pooling = "mean",
    what: str = "encoder",
    **preprocessing: Any,
) -> Embedder:
    """Make the embedder of rows by a trained network; call this within `skood.training.fitting`.

    All embedders of the same network and device share its weights. Each has modules of its own, because reading a
    layer's features hooks into the modules, and threads would see each other's rows.

    Parameters
    ----------
    given : Backbone
        The network, from `find_encoder`.
    in_shape : tuple of int
        Shape of a row before scaling and padding: (n_features,) or (C, H, W).
    device : torch.device
        The device of the embedder.
    layer : str or None, default=None
        Name of the layer whose output are the features. With None ``given`` says which.
    pooling : {"mean", "max", "flatten"} or tuple (h, w), default="mean"
        What becomes of maps and tokens, see `skood.networks.Features`.
    what : str, default="encoder"
        Name of the parameter, for error messages.
    **preprocessing
        Parameters of `Preprocessed`, for a network that has no preprocessing of its own.

    Returns
    -------
    embedder : Embedder
        The embedder in evaluation mode. It must not be changed, because others share it.

    Raises
    ------
    ValueError
        If the network does not take such rows or returns no features, or if the features of a row depend on other rows.
    """
    check_columns(given.scaler, in_shape, what)
    network = share(frozen(given.network, device, what))
    # The network sees images after they are resized or padded, so its features are looked for with that shape.
    seen = in_shape
    if len(in_shape) == 3:
        side = preprocessing.get("size") or (max(in_shape[1:]) if given.pads else None)
        sides = in_shape[1:] if side is None else (side, side)
        seen = (preprocessing.get("channels", in_shape[0]), *sides)
    features = feature_layer(network, seen, given.layer if layer is None else layer, what, pooling)
    prepared = Preprocessed(features, **preprocessing) if preprocessing else features
    embedder = Embedder(prepared, features.n_features, given.scaler, given.pads, double=device.type != "mps")
    embedder = embedder.to(device).requires_grad_(False).eval()
    check_rows_apart(embedder, in_shape, what)
    # Marked as frozen: an encoder or detector that is given this embedder does not copy it again.
    return as_frozen(embedder)


def embed(embedder: Embedder, X: np.ndarray, represent: Represent) -> np.ndarray:
    """Return the features of validated rows.

    Parameters
    ----------
    embedder : Embedder
        From `make_embedder`.
    X : ndarray of shape (n_rows, ...)
        The rows.
    represent : callable
        Brings a chunk of rows into the shape that the network takes, and scales uint8 images to [0, 1].

    Returns
    -------
    features : ndarray of float64 of shape (n_rows, n_features)
    """
    return apply_in_chunks(embedder, X, None, represent, _forward)


def _forward(module: nn.Module, rows: Tensor) -> Tensor:
    """Return a module's output for rows."""
    return module(rows)
