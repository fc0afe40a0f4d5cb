"""List the types that `skops.io.load` must trust to read an estimator of skood."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from sklearn.base import BaseEstimator
from torch import nn

from .. import _plain, scores
from ..posthoc import detectors, estimators, observed

__all__ = ["skops_trusted_types"]

# Packages and modules whose estimators, modules and settings are parts of fitted estimators.
_PACKAGES = ("detectors", "encoders", "estimator", "networks", "posthoc", "scores")
_MODULES = ("backbones", "model_selection", "open_set", "thresholds", "training.net")
# Types of other packages that are parts of a skorch net.
_OF_SKORCH = ("skorch.dataset.Dataset", "skorch.history.History", "skorch.setter.optimizer_setter")
_OTHERS = ("functools.partial", "torch.device", "torch.utils.data.dataloader.DataLoader")


def skops_trusted_types() -> list[str]:
    """Return the names of the types that ``skops.io.load`` has to trust to read skood's estimators.

    A file that ``skops.io.dump`` wrote holds arrays, numbers and text, and names of types. It holds no code and no
    pickle: weights are arrays. skops reads it if it trusts all types in it: besides scikit-learn's, these are skood's
    estimators and networks, and the layers of ``torch.nn``. Add classes of your own, such as that of a network that you
    gave to an estimator.

    Returns
    -------
    types : list of str
        Sorted, for the parameter ``trusted``.

    Examples
    --------
    >>> import numpy as np
    >>> import skops.io
    >>> from skood import DUMDetector
    >>> from skood.export import skops_trusted_types
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> detector = DUMDetector(max_epochs=5, contamination=0.1, random_state=0).fit(X)
    >>> read = skops.io.loads(skops.io.dumps(detector), trusted=skops_trusted_types())
    >>> bool((read.score_samples(X) == detector.score_samples(X)).all())
    True
    """
    packages = [import_module(f"skood.{name}") for name in _PACKAGES]
    names = [f"{one.__name__}.{name}" for one in packages for _, name, _ in pkgutil.iter_modules(one.__path__)]
    modules = [import_module(name) for name in [*names, *(f"skood.{name}" for name in _MODULES)]]
    found = {one for module in modules for one in vars(module).values() if isinstance(one, type)}
    kept = {one for one in found if one.__module__.startswith("skood.") and _is_part(one)}
    kept |= {_plain.PlainObject, _plain.PlainTensor, observed.TorchClassifier, detectors.SkoodClassifier}
    kept |= {estimators.SklearnClassifier, scores.FittedScore}
    layers = {one for one in vars(nn).values() if isinstance(one, type) and issubclass(one, nn.Module)}
    return sorted({*(f"{one.__module__}.{one.__qualname__}" for one in kept | layers), *_OF_SKORCH, *_OTHERS})


def _is_part(one: type) -> bool:
    """Return whether objects of a class are parts of fitted estimators: estimators, networks, or settings."""
    return issubclass(one, (BaseEstimator, nn.Module)) or one.__name__.endswith("Settings")
