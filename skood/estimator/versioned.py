"""What all estimators share: pickles with skood's version, and a link to the documents. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from .. import __version__
from .._warn import warn_user
from .tools import Replaced, replaced_labels

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


@cache
def _documentation() -> str:
    """Return the address of the documents, as the installed package's metadata name it; "" if they name none."""
    try:
        urls = metadata("skood").get_all("Project-URL") or []
    except PackageNotFoundError:  # imported from a folder
        return ""
    addresses = dict(url.split(", ", 1) for url in urls)
    return addresses.get("Documentation", "").rstrip("/")


class VersionedEstimator(BaseEstimator):
    """Base of every estimator here: its pickles hold skood's version, and warn if another version reads them.

    Its HTML representation links to its page, at the address that the package's metadata names "Documentation".
    """

    # scikit-learn looks at the first part of the name of the module.
    _doc_link_module = "skood"
    # The tool in whose call this clone was made, if it replaces labels; see `refuse_replaced`.
    _replaced_labels: Sequence[Replaced] = ()

    @property
    def _doc_link_template(self) -> str:
        from .. import __all__ as public

        address = _documentation()
        # An estimator that has no page of its own has no link, and neither has a copy without an address.
        return f"{address}/generated/skood.{{estimator_name}}.html" if address and type(self).__name__ in public else ""

    def __sklearn_clone__(self) -> Any:
        cloned = super().__sklearn_clone__()
        replaced = [*replaced_labels(), *self._replaced_labels]
        if replaced:
            cloned._replaced_labels = replaced[-1:]
        return cloned

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_skood_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop("_skood_version", _EARLIER)
        if version != __version__:
            warn_user(InconsistentSkoodWarning(type(self).__name__, __version__, version), InconsistentSkoodWarning)
        super().__setstate__(state)
