"""A digest of a fit's rows, labels and parameters, by which two fits are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator
from torch import nn

from ..training.batches import chunks
from .data import FitData

__all__ = ["digest", "fit_fingerprint"]

# Parameters that may change between the parts of one training.
_FREE = {"callbacks", "checkpoint", "device", "n_jobs", "random_state", "verbose", "warm_start"}


def fit_fingerprint(estimator: BaseEstimator, data: FitData, *more: Any) -> str:
    """Return a digest of all that a fit depends on; a ``random_state`` that is not an integer is left out.

    Parameters
    ----------
    estimator : BaseEstimator
        Its class and parameters count. A function counts by its name, not by its code.
    data : FitData
        Rows and labels.
    *more : object
        Whatever else counts.

    Returns
    -------
    digest : str
        The same in another process.
    """
    from .. import __version__

    params = {name: value for name, value in estimator.get_params(deep=False).items() if name not in _FREE}
    if isinstance(getattr(estimator, "random_state", None), (int, np.integer)):
        params["random_state"] = int(estimator.random_state)  # type: ignore[attr-defined]
    rows = hashlib.sha256()
    for chunk in chunks(data.before_all()):
        rows.update(chunk.tobytes())
    labels = (data.inlier_indices, data.auxiliary_indices, data.codes, getattr(estimator, "classes_", None))
    names = getattr(estimator, "feature_names_in_", None)
    found = [__version__, _name(type(estimator)), digest(params), str(data.X.dtype), data.X.shape, rows.hexdigest()]
    return joblib.hash([*found, *map(digest, (*labels, names, *more))])


def digest(value: Any) -> str:
    """Return a digest of a value that is the same in another process.

    Parameters
    ----------
    value : object
        Fitted estimators and modules count by what they have learnt, functions by their names.

    Returns
    -------
    digest : str
    """
    if isinstance(value, nn.Module):
        tensors = {name: value.detach().cpu().float().numpy() for name, value in value.state_dict().items()}
        return joblib.hash((_name(type(value)), tensors))
    if isinstance(value, BaseEstimator):
        # A fitted estimator counts by its trained network, too, or by all else that it has learnt.
        params = value.get_params(deep=False)
        trained = getattr(value, "module_", getattr(value, "backbone_", None))
        if trained is None:
            trained = {name: part for name, part in vars(value).items() if name not in params} or None
        return joblib.hash((_name(type(value)), digest(params), digest(trained)))
    if isinstance(value, Mapping):
        return joblib.hash([(str(name), digest(part)) for name, part in value.items()])
    if isinstance(value, (list, tuple)):
        return joblib.hash((_name(type(value)), [digest(part) for part in value]))
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return digest([str(part) for part in value.ravel()])
    if callable(value):
        return joblib.hash(_name(value))
    try:
        return joblib.hash(value)
    except Exception:  # what cannot be pickled fails in many ways
        return joblib.hash(_name(type(value)))


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
