"""Embed rows by trained networks, for `FrozenEncoder` and for detectors of embedded rows."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ..backbones import SHIPPED, Preprocessed
from ..estimator.front import Arrangement, Front
from ..networks import Pooling, feature_layer, share
from ..networks.probe import check_rows_apart
from ..training.scoring import apply_in_blocks, channels_last, number_type_of
from .trained import (
    Backbone,
    as_frozen,
    check_columns,
    check_pixel_type,
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
    front : Front
        The scaling and padding.
    """

    def __init__(self, features: nn.Module, n_features: int, front: Front):
        super().__init__()
        self.features, self.n_features, self.front = features, n_features, front

    def forward(self, rows: Tensor) -> Tensor:
        """Return features of shape (n, n_features) of rows in their shape, with pixels in [0, 1]."""
        return self.features(channels_last(self.front.scaled(rows).to(number_type_of(self.features))))


def find_encoder(encoder: Any, uint8: bool, what: str = "encoder") -> Backbone:
    """Return the trained network that an encoder stands for, and the layer whose output are its features.

    Parameters
    ----------
    encoder : torch.nn.Module, fitted estimator or str
        Anything in which `find_backbone` finds a trained network. If the `transform` of an estimator does not return
        the input of its network's last linear layer, the estimator must have a method ``_embedding()`` that returns the
        `Backbone`.
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
            f"{what}={shown(encoder)} is no trained network: pass a torch module, a fitted estimator that has one, "
            f"{SHIPPED!r}, 'torchvision:NAME' or 'timm:NAME'."
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
        Name of the layer whose output are the features. None takes the layer of ``given``.
    pooling : {"mean", "max", "flatten"} or tuple (h, w), default="mean"
        How maps and tokens are pooled, see `skood.networks.Features`.
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
    # The network sees images after they are resized or padded, so its features are looked for with that shape.
    seen = in_shape
    if len(in_shape) == 3:
        side = preprocessing.get("size") or (max(in_shape[1:]) if given.pads else None)
        sides = in_shape[1:] if side is None else (side, side)
        seen = (preprocessing.get("channels", in_shape[0]), *sides)
    network = share(frozen(given.network, device, what, seen))
    features = feature_layer(network, seen, given.layer if layer is None else layer, what, pooling)
    prepared = Preprocessed(features, **preprocessing) if preprocessing else features
    front = Front(scaler=given.scaler, pads=given.pads, double=device.type != "mps")
    embedder = Embedder(prepared, features.n_features, front)
    embedder = embedder.to(device).requires_grad_(False).eval()
    check_rows_apart(embedder, in_shape, what)
    # Marked as frozen: an encoder or detector that is given this embedder does not copy it again.
    return as_frozen(embedder)


def embed(embedder: Embedder, X: np.ndarray, arrangement: Arrangement, what: str) -> np.ndarray:
    """Return the features of validated rows.

    Parameters
    ----------
    embedder : Embedder
        From `make_embedder`.
    X : ndarray of shape (n_rows, ...)
        The rows.
    arrangement : Arrangement
        Gives rows the shape that the network takes, and scales uint8 images to [0, 1].
    what : str
        Name of the parameter that the network comes from.

    Returns
    -------
    features : ndarray of float64 of shape (n_rows, n_features)

    Raises
    ------
    ValueError
        If a feature is not finite.
    """

    def represent(rows: Tensor) -> Tensor:
        """Return rows as the network takes them; those in double precision keep it until they are scaled."""
        return embedder.front.scaled(arrangement(rows))

    return all_finite(apply_in_blocks(embedder, X, None, represent, _features, arrangement.image_shape), what)


def all_finite(features: np.ndarray, what: str = "network") -> np.ndarray:
    """Return features of rows, all of which must be finite.

    What comes next would take NaN for a missing value of the user's rows, and advise to impute it.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features)
        The features.
    what : str, default="network"
        Name of the parameter that the network comes from.

    Raises
    ------
    ValueError
        If one is not finite.
    """
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"{what} gives NaN or infinity for {len(wrong)} of {len(features)} rows, first for row {wrong[0]}. Look at "
            f"its outputs for these rows, and scale them as in its training."
        )
    return features


def _features(module: nn.Module, rows: Tensor) -> Tensor:
    """Return an embedder's features of rows that are scaled."""
    return cast(Embedder, module).features(rows)
