"""A transformer that is fitted on the in-distribution rows only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import MetaEstimatorMixin, TransformerMixin, clone
from sklearn.utils import Tags, _safe_indexing, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .labels import check_labels, check_marked, marks_outlier, named_markers
from .routing import NoRoutingMixin
from .tools import refuse_replaced
from .validation import plain_rows
from .versioned import VersionedEstimator

__all__ = ["FitOnInliers"]


def _inner_has(name: str) -> Callable[[Any], bool]:
    """Return a check, for `available_if`, that the wrapped transformer has a method."""

    def check(self: Any) -> bool:
        # available_if takes an AttributeError for "no", and shows its message to the user.
        getattr(getattr(self, "transformer_", self.transformer), name)
        return True

    return check


# The transformer within makes the frames that `set_output` asks for, and knows their columns.
class FitOnInliers(  # type: ignore[call-arg]
    TransformerMixin, MetaEstimatorMixin, NoRoutingMixin, VersionedEstimator, auto_wrap_output_keys=None
):
    """Fit a transformer on the in-distribution rows only; transform all rows.

    A scaler fitted on far-away auxiliary outliers leaves the in-distribution rows almost equal, and a detector may then
    fail. In a Pipeline whose y marks auxiliary outliers, write ``FitOnInliers(StandardScaler())`` instead of
    ``StandardScaler()``.

    Parameters
    ----------
    transformer : transformer
        A clone of it is fitted on the rows with ``y != outlier_label``.
    outlier_label : number, str, bool, or list of these, default=-1
        The value of y that marks auxiliary outliers, or several.

    Attributes
    ----------
    transformer_ : transformer
        The fitted clone.
    n_features_in_ : int
        Number of features the transformer was fitted on.
    feature_names_in_ : ndarray of str
        Their names, where the transformer was fitted on a DataFrame.

    Examples
    --------
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skood import FitOnInliers
    >>> X, y = [[0.0], [2.0], [1000.0]], [1, 1, -1]
    >>> FitOnInliers(StandardScaler()).fit_transform(X, y).ravel()
    array([ -1.,   1., 999.])
    """

    _wrapped_param = "transformer"

    def __init__(self, transformer, *, outlier_label=-1):
        self.transformer = transformer
        self.outlier_label = outlier_label

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the transformer on the in-distribution rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            All rows.
        y : array-like of shape (n_samples,), default=None
            Rows with ``y == outlier_label`` are left out. None, or 1 for every row, leaves out no row.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If y marks every row, X and y differ in length, or ``transformer`` cannot transform.

        Warns
        -----
        LabelWarning
            If y holds several labels, and none marks a row.
        """
        if not hasattr(self.transformer, "transform"):
            raise ValueError(
                f"transformer={self.transformer!r} has no method transform: pass a transformer, such as "
                f"StandardScaler(). A detector takes all rows, with their labels, and needs no FitOnInliers."
            )
        X = plain_rows(X)
        if y is not None:
            y = check_labels(y)
            check_consistent_length(X, y)
            refuse_replaced(self, y, self.outlier_label)
            outlier = marks_outlier(y, self.outlier_label)
            check_marked(y, outlier, self.outlier_label)
            inlier = ~outlier
            if not inlier.any():
                raise ValueError(
                    f"y marks every row as an auxiliary outlier (y == {named_markers(self.outlier_label)}); there is "
                    f"nothing to fit {self.transformer!r} on."
                )
            if not inlier.all():
                X = _safe_indexing(X, np.flatnonzero(inlier))
                y = y[inlier]
        self.transformer_ = clone(self.transformer).fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit the transformer on the in-distribution rows, then transform all rows.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        X_new : array of shape (n_samples, n_features_out)
        """
        # TransformerMixin's asks for the metadata routing, even if there is no metadata.
        return self.fit(X, y).transform(X)

    def transform(self, X: Any) -> Any:
        """Transform all rows of X with the fitted transformer.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        X_new : array of shape (n_samples, n_features_out)
        """
        check_is_fitted(self)
        return self.transformer_.transform(plain_rows(X))

    @available_if(_inner_has("set_output"))
    def set_output(self, *, transform: str | None = None) -> Self:
        """Set the container that `transform` returns, as a Pipeline does: for the transformer within.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"} or None, default=None
            "default" is what the transformer returns by itself; None changes nothing.

        Returns
        -------
        self : object
        """
        # FunctionTransformer would take None for a container.
        if transform is not None:
            self.transformer.set_output(transform=transform)
            if hasattr(self, "transformer_"):
                self.transformer_.set_output(transform=transform)
        return self

    @available_if(_inner_has("inverse_transform"))
    def inverse_transform(self, X: Any) -> Any:
        """Undo `transform`; only available if the transformer has this method.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features_out)

        Returns
        -------
        X_original : array of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        return self.transformer_.inverse_transform(X)

    @available_if(_inner_has("get_feature_names_out"))
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the output features, as the transformer gives them.

        Parameters
        ----------
        input_features : array-like of str, default=None

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        return self.transformer_.get_feature_names_out(input_features)

    @property
    def n_features_in_(self) -> int:
        check_is_fitted(self)
        return self.transformer_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        check_is_fitted(self)
        return self.transformer_.feature_names_in_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # The transformer decides which input it accepts (sparse or not, for example).
        inner = get_tags(self.transformer)
        tags.input_tags = inner.input_tags
        tags.transformer_tags = inner.transformer_tags
        return tags
