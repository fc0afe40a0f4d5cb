"""Scaling before a network: of each feature of vectors, of each channel of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from sklearn.preprocessing import MinMaxScaler, StandardScaler

__all__ = ["SCALERS", "center_and_scale", "fitted_scaler", "unscaled"]

Scaler: TypeAlias = StandardScaler | MinMaxScaler

SCALERS: dict[str, type[Scaler]] = {"standard": StandardScaler, "minmax": MinMaxScaler}


def fitted_scaler(scaling: str | None, chunks: Iterable[np.ndarray]) -> Scaler | None:
    """Fit a scaler chunk by chunk, so that rows need not fit into memory.

    Parameters
    ----------
    scaling : str or None
        Key of `SCALERS`. None fits no scaler, and reads no chunk.
    chunks : iterable of ndarray of shape (n_rows, n_features) or (n_rows, C, H, W)
        Each feature of vectors, or each channel of images, is scaled on its own.

    Returns
    -------
    scaler : StandardScaler, MinMaxScaler or None
        Fitted on float64, with one column for each feature or channel.
    """
    if scaling is None:
        return None
    scaler = SCALERS[scaling]()
    for chunk in chunks:
        scaler.partial_fit(_columns(chunk).astype(np.float64))
    return scaler


def unscaled(scaler: Scaler | None, X: np.ndarray) -> np.ndarray:
    """Undo the scaling of `skood.estimator.front.Front`.

    Parameters
    ----------
    scaler : StandardScaler, MinMaxScaler or None
        From `fitted_scaler`; None returns X itself.
    X : ndarray of float of shape (n_rows, n_features) or (n_rows, C, H, W)

    Returns
    -------
    X : ndarray of float of the same shape
    """
    return X if scaler is None else _by_columns(scaler.inverse_transform, X)


def center_and_scale(scaler: Scaler) -> tuple[np.ndarray, np.ndarray]:
    """Return the center that a scaler subtracts from each column, and the scale that it divides by.

    Parameters
    ----------
    scaler : StandardScaler, MinMaxScaler, or a transformer with ``mean_`` and ``scale_``
        From `fitted_scaler`, for instance.

    Returns
    -------
    center : ndarray of float64 of shape (n_columns,)
    scale : ndarray of float64 of shape (n_columns,)
    """
    if isinstance(scaler, MinMaxScaler):
        return scaler.data_min_, 1 / scaler.scale_
    return scaler.mean_, scaler.scale_


def _by_columns(transform: Callable[[np.ndarray], np.ndarray], X: np.ndarray) -> np.ndarray:
    """Apply a function of columns to vectors, or to the channels of images."""
    columns = transform(_columns(X))
    if X.ndim == 2:
        return columns
    return np.moveaxis(columns.reshape(len(X), *X.shape[2:], X.shape[1]), -1, 1)


def _columns(X: np.ndarray) -> np.ndarray:
    """Return vectors as they are, and images as one row per pixel, with the channels as columns."""
    return X if X.ndim == 2 else np.moveaxis(X, 1, -1).reshape(-1, X.shape[1])
