"""Tell detectors apart: a hash of all that the figures of a detector depend on."""

from __future__ import annotations

import inspect
import pickle
import sys
import sysconfig
import uuid
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
from joblib.hashing import NumpyHasher
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator

__all__ = ["fingerprint"]

# The folders of installed packages.
_INSTALLED = {"site-packages", "dist-packages"}


def fingerprint(detector: BaseEstimator) -> str:
    """Return a hash of a detector: its class, its parameters, and what it holds that a clone does not fit anew.

    Torch modules count by their weights. Classes and functions count by their names; those that belong to no installed
    package also by their code, but not by that of the functions that they call. The hash is the same in any process. If
    something cannot be hashed, such as a lambda, the hash is another one each time, so that a fit is repeated rather
    than mistaken for another.

    Parameters
    ----------
    detector : estimator

    Returns
    -------
    fingerprint : str
    """
    try:
        params = detector.get_params()
        # `get_params` lists the parameters of nested estimators, too.
        named = {name: type(value).__qualname__ if _is_estimator(value) else value for name, value in params.items()}
        values: list[Any] = [type(detector).__module__, type(detector).__qualname__, *sorted(named.items())]
        estimators = [detector, *(params[name] for name in sorted(params) if _is_estimator(params[name]))]
        # Keys of other detectors stay as they were before these two were part of them.
        values += [*_own_classes(estimators), *_kept(estimators)]
        return _Hasher().hash(values)
    # What cannot be pickled fails in many ways.
    except Exception:
        return uuid.uuid4().hex


def _is_estimator(value: Any) -> bool:
    return hasattr(value, "get_params") and not isinstance(value, type)


def _own_classes(values: Iterable[Any]) -> list[type]:
    """Return the classes of these objects that belong to no installed package."""
    classes = dict.fromkeys(type(value) for value in values)
    return [kind for kind in classes if _is_own(kind)]


def _is_own(kind: type) -> bool:
    return any(not _is_installed(base.__module__) for base in kind.__mro__)


def _kept(estimators: Iterable[Any]) -> Iterator[Any]:
    """Return the fitted estimators that clones of these keep, with all that they learnt."""
    for estimator in estimators:
        if isinstance(estimator, FrozenEstimator):
            yield estimator.estimator
        shared = (getattr(estimator, name) for name in getattr(estimator, "_shared_params", ()))
        yield from filter(_is_estimator, shared)


def _is_installed(module: str) -> bool:
    """Return whether a module belongs to Python, to skood or to an installed package, of which the version counts."""
    if module == "__main__":
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    # Modules without a file are compiled into Python.
    return (
        file is None
        or str(module).partition(".")[0] == "skood"
        or Path(file).is_relative_to(sysconfig.get_path("stdlib"))
        or not _INSTALLED.isdisjoint(Path(file).parts)
    )


class _Hasher(NumpyHasher):
    """Hash as `joblib.hash`, but torch modules by their weights, and the user's classes and functions by their code.

    Parameters
    ----------
    classes : frozenset of type
        Classes that are being hashed, which count by their names where they are met again.
    """

    def __init__(self, classes: frozenset[type] = frozenset()) -> None:
        super().__init__()
        self.classes = classes

    def save(self, obj: Any) -> None:
        """Save an object, or what stands for it."""
        super().save(self._standing_for(obj))

    def _standing_for(self, obj: Any) -> Any:
        if isinstance(obj, type):
            return self._defined(obj) if _is_own(obj) and obj not in self.classes else obj
        if isinstance(obj, FunctionType):
            # Functions without a name of their own cannot be pickled, and are never taken for the same.
            if "<" in obj.__qualname__ or _is_installed(obj.__module__):
                return obj
            return obj.__module__, obj.__qualname__, _code(obj)
        if hasattr(obj, "state_dict"):
            # Pickles of modules differ from process to process; their weights do not.
            state = {name: _array(value) for name, value in obj.state_dict().items()}
            # Only modules of the user's own classes have a third part, so that keys of others stay as they were.
            own = _own_classes(obj.modules()) if hasattr(obj, "modules") else []
            return (repr(obj), state, *own)
        if hasattr(obj, "module_") and hasattr(obj, "get_params"):
            return type(obj).__qualname__, self._learnt(obj)
        # A history has the seconds of each epoch.
        if type(obj).__module__ == "skorch.history":
            return type(obj).__qualname__
        if isinstance(obj, np.ndarray):
            # Equal arrays may lie in memory in different ways, above all when they come out of a file.
            return np.asanyarray(obj, order="C").ravel().reshape(obj.shape)
        return _array(obj)

    def _learnt(self, estimator: Any) -> Any:
        """Return what a fitted estimator with a network answers by: more than the network, such as its threshold."""
        if any(base.__module__.startswith("skorch.") for base in type(estimator).__mro__):
            # Its optimiser and its history play no part.
            return estimator.module_
        # One by one: what two attributes share is not the same object any more when they come out of a file.
        state = estimator.__reduce_ex__(pickle.HIGHEST_PROTOCOL)[2]
        return sorted((name, _Hasher(self.classes).hash(value)) for name, value in state.items())

    def _defined(self, kind: type) -> str:
        """Return a hash of what the user wrote in the definitions of a class and of its bases."""
        parts: list[Any] = [kind.__module__, kind.__qualname__]
        for base in kind.__mro__:
            if not _is_installed(base.__module__):
                members = sorted(vars(base).items())
                parts += [(name, function) for name, member in members for function in _functions(member)]
                parts.append(_text(base))
        return _Hasher(self.classes | {kind}).hash(parts)


def _array(value: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _functions(member: Any) -> list[tuple]:
    """Return the code of a method or a property of a class; nothing for other members."""
    functions: list[Any] = []
    if isinstance(member, property):
        functions = [member.fget, member.fset, member.fdel]
    elif isinstance(member, cached_property):
        functions = [member.func]
    elif isinstance(member, (FunctionType, classmethod, staticmethod)):
        functions = [member]
    return [_code(function) for function in functions if function is not None]


def _text(kind: type) -> Any:
    """Return the text of a class, for its other members: their values may change while the program runs.

    Notebooks have no text of a class: there these are the values.
    """
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        members = vars(kind).items()
        return {
            name: value for name, value in members if not name.startswith(("__", "_abc_")) and not _functions(value)
        }


def _code(function: Any) -> tuple:
    """Return what a function does. Its text may have changed since it was read, and is not everywhere to be had."""
    # Decorators, of skood and others, leave the function that they wrap here.
    function = inspect.unwrap(function)
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    # In a method that calls super(), the class itself is such a variable.
    closure = [cell.cell_contents for name, cell in cells if name != "__class__"]
    return _instructions(code), function.__defaults__, function.__kwdefaults__, closure


def _instructions(code: CodeType) -> tuple:
    """Return the instructions of code without their place in a file."""
    constants: list[Any] = []
    for value in code.co_consts:
        if isinstance(value, CodeType):
            constants.append(_instructions(value))
        else:
            # The order of a set differs from process to process.
            constants.append(sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value))
    return code.co_code, code.co_names, code.co_varnames, constants
