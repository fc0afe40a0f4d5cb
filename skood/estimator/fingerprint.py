"""A digest of a fit's rows, labels and parameters, by which two fits are compared."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from enum import Enum
from numbers import Number
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from ..training.batches import chunks
from .data import FitData

__all__ = ["fit_fingerprint"]

# Parameters that may change between the parts of one training.
_FREE = {"callbacks", "checkpoint", "device", "n_jobs", "random_state", "verbose", "warm_start"}
# Attributes that every torch module has; of these, layers and tensors count, and hooks and the mode do not.
_OF_ANY_MODULE = set(vars(nn.Module()))


def fit_fingerprint(estimator: BaseEstimator, data: FitData, *more: Any) -> str:
    """Return a digest of all that a fit depends on; a ``random_state`` that is not an integer is left out.

    Parameters
    ----------
    estimator : BaseEstimator
        Its class and parameters count. A function counts by its name, not by its code; other callables count by their
        settings, and torch modules by their layers and weights.
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
    found = [__version__, _name(type(estimator)), _digest(params), str(data.X.dtype), data.X.shape, rows.hexdigest()]
    return joblib.hash([*found, *map(_digest, (*labels, names, *more))])


def _digest(value: Any, seen: dict[int, tuple[Any, str]] | None = None) -> str:
    """Return a digest of a value that is the same in another process.

    Functions and classes count by their names. What else can be called counts by its settings, too: a
    `functools.partial`, an object with attributes, a method of such an object, a torch module. ``seen`` holds the
    values that were met already, with their digests.
    """
    seen = {} if seen is None else seen
    if id(value) not in seen:
        # Until its digest is known, by its type: a module may hold its parent, and an object one of its own methods.
        seen[id(value)] = value, joblib.hash(_name(type(value)))
        seen[id(value)] = value, _computed(value, seen)
    return seen[id(value)][1]


def _computed(value: Any, seen: dict[int, tuple[Any, str]]) -> str:
    """Return the digest of a value that was not met before; see `_digest`."""
    if isinstance(value, nn.Module):
        return joblib.hash(_of_module(value, seen))
    if isinstance(value, BaseEstimator):
        # A fitted estimator counts by its trained network, too.
        trained = getattr(value, "module_", getattr(value, "backbone_", None))
        return joblib.hash((_name(type(value)), _digest(value.get_params(deep=False), seen), _digest(trained, seen)))
    if isinstance(value, Mapping):
        return joblib.hash([(str(name), _digest(part, seen)) for name, part in value.items()])
    if isinstance(value, (list, tuple)):
        return joblib.hash((_name(type(value)), [_digest(part, seen) for part in value]))
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return _digest([str(part) for part in value.ravel()], seen)
    if isinstance(value, functools.partial):
        return joblib.hash((_name(type(value)), _digest((value.func, value.args, value.keywords), seen)))
    if isinstance(value, MethodType):
        owner = value.__self__
        digest = _digest if callable(owner) or isinstance(owner, BaseEstimator) else _of_object
        return joblib.hash((_name(value), digest(owner, seen)))
    if callable(value) and not isinstance(value, (FunctionType, BuiltinFunctionType, type)):
        return joblib.hash((_name(value), getattr(value, "__name__", ""), _of_object(value, seen)))
    if callable(value):
        return joblib.hash(_name(value))
    try:
        return joblib.hash(value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value)
    except Exception:  # what cannot be pickled fails in many ways, and so does a tensor without a shape
        return joblib.hash(_name(type(value)))


def _of_object(value: Any, seen: dict[int, tuple[Any, str]]) -> str:
    """Return a digest of an object's type and attributes; of its type alone if they cannot be read."""
    try:
        # The attributes, those in slots included.
        state = value.__getstate__()
    except Exception:  # an object may have its own method, which may raise anything
        state = None
    return joblib.hash((_name(type(value)), _digest(state, seen)))


def _of_module(module: nn.Module, seen: dict[int, tuple[Any, str]]) -> list[Any]:
    """Return what identifies a module: the names and types of its layers, their settings, and all its tensors."""
    # A compiled module wraps the original one.
    module = getattr(module, "_orig_mod", module)
    # Some buffers are not in the state.
    found: list[Any] = [_name(type(module)), _digest(dict(module.named_buffers()) | module.state_dict(), seen)]
    for name, layer in module.named_modules(remove_duplicate=False):
        # Sorted, because some layers, such as torch.nn.LSTM, set their attributes in another order when unpickled.
        names = sorted(key for key, one in vars(layer).items() if key not in _OF_ANY_MODULE and _is_setting(one))
        settings = {key: vars(layer)[key] for key in names}
        found.append((name, _name(type(layer)), _digest(settings, seen)))
    return found


def _is_setting(value: Any) -> bool:
    """Return whether an attribute of a module counts; others, such as a traced graph, may pickle differently."""
    if isinstance(value, Mapping):
        return all(map(_is_setting, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_setting, value))
    kinds = (str, bytes, Number, np.generic, np.ndarray, Enum, Tensor, torch.dtype, torch.device)
    return value is None or callable(value) or isinstance(value, kinds)


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
