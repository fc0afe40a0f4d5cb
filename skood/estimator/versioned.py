"""Estimators whose pickles hold the version of skood that wrote them. Nothing here loads torch."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from .. import __version__
from .._warn import warn_user

__all__ = ["InconsistentSkoodWarning", "VersionedEstimator"]

# The version of a pickle that holds none.
_EARLIER = "0.1.0.dev"


class InconsistentSkoodWarning(InconsistentVersionWarning):
    """Warn that a fitted estimator was saved by another version of skood than the one that reads it.

    Warning filters for scikit-learn's ``InconsistentVersionWarning`` apply to it, too.

    Parameters
    ----------
    estimator_name : str
        Name of the estimator's class.
    current_version : str
        The version of skood that reads the estimator.
    original_version : str
        The version of skood that saved it.
    """

    def __init__(self, estimator_name: str, current_version: str, original_version: str):
        # scikit-learn's constructor would set attributes that are named after its own version.
        self.estimator_name = estimator_name
        self.current_version, self.original_version = current_version, original_version
        Warning.__init__(self, estimator_name, current_version, original_version)

    def __str__(self) -> str:
        return (
            f"{self.estimator_name} was saved by skood {self.original_version}, but is read by skood "
            f"{self.current_version}: it may fail, or give other scores. Read it with the version that saved it, or "
            f"fit it again."
        )


class VersionedEstimator(BaseEstimator):
    """Base of every estimator here: its pickles hold skood's version, and warn if another version reads them."""

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_skood_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop("_skood_version", _EARLIER)
        if version != __version__:
            warn_user(InconsistentSkoodWarning(type(self).__name__, __version__, version), InconsistentSkoodWarning)
        super().__setstate__(state)
