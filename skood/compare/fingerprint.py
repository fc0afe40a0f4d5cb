"""Tell detectors apart by all that their results depend on, to find stored results again."""

from __future__ import annotations

import uuid
from typing import Any

import joblib
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator

__all__ = ["fingerprint"]


def fingerprint(detector: BaseEstimator) -> str:
    """Return a hash of the class and the parameters of a detector, including the weights of trained networks.

    The hash is the same in any process. A value that cannot be hashed, such as a lambda, gets another hash each time,
    so that a fit is repeated rather than mistaken for another.

    Parameters
    ----------
    detector : estimator
        Not fitted; what it holds may be.

    Returns
    -------
    hash : str
    """
    values: list[Any] = [type(detector).__module__, type(detector).__qualname__]
    params = detector.get_params()
    for name, value in sorted(params.items()):
        holder, _, own = name.rpartition("__")
        shared = own in getattr(params.get(holder, detector), "_shared_params", ())
        if (shared and isinstance(value, BaseEstimator)) or isinstance(value, FrozenEstimator):
            # It stays fitted, and `get_params` does not list its parameters.
            from ..estimator.fingerprint import digest  # loads torch

            value = digest(value)
        elif hasattr(value, "state_dict"):
            # Pickles of modules differ from process to process; their weights do not.
            state = {key: tensor.detach().cpu().numpy() for key, tensor in value.state_dict().items()}
            value = (repr(value), state)
        elif hasattr(value, "get_params"):
            # `get_params` lists its parameters, too.
            value = type(value).__qualname__
        values.append((name, value))
    try:
        return joblib.hash(values)
    except Exception:
        return uuid.uuid4().hex
