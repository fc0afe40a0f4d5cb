"""Estimators that pass no metadata on to the estimator that they wrap. Nothing here loads torch."""

from __future__ import annotations

from typing import Any

from sklearn.utils.metadata_routing import get_routing_for_object

__all__ = ["NoRoutingMixin"]


class _LostRequestError(NotImplementedError):
    """Say that a request for metadata would not be met."""


class NoRoutingMixin:
    """Refuse to drop metadata that the wrapped estimator requests for its fit: a mixin, before scikit-learn's base.

    With scikit-learn's metadata routing, a search passes weights to those who request them. A wrapper has no request of
    its own, and the weights would be dropped without a word.
    """

    # The parameter that holds the wrapped estimator.
    _wrapped_param = "estimator"

    def get_metadata_routing(self) -> Any:
        """Return the routing of this estimator, which passes no metadata on.

        Returns
        -------
        routing : MetadataRequest

        Raises
        ------
        NotImplementedError
            If the wrapped estimator requests metadata for its fit.
        """
        wrapped = getattr(self, self._wrapped_param)
        names = _requests_of_fit(wrapped)
        if names:
            own, inner = type(self).__name__, type(wrapped).__name__
            without = ", ".join(f"{name}=False" for name in names)
            raise _LostRequestError(
                f"{own} passes no metadata on, but its {self._wrapped_param}, {inner}, requests {', '.join(names)} for "
                f"fit, and would not get it. Call set_fit_request({without}) of the estimator that requests it, or "
                f"use it without {own}."
            )
        return super().get_metadata_routing()  # type: ignore[misc]


def _requests_of_fit(estimator: Any) -> list[str]:
    """Return the names of the metadata that an estimator, or one within it, requests for its fit."""
    try:
        routing = get_routing_for_object(estimator)
    except _LostRequestError:
        raise
    except NotImplementedError:
        # An estimator of scikit-learn that routes nothing.
        return []
    # `consumes` is public, but it must be told the names.
    names = routing._get_param_names(method="fit", return_alias=True, ignore_self_request=False)
    return sorted(routing.consumes("fit", names))
