"""The validated rows of one fit with what their labels say, passed from hook to hook as one object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import _num_samples

from ..training.batches import is_memory_map


@dataclass(frozen=True, eq=False)
class FitData:
    """Hold validated rows, and what their labels say.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
        All rows as they were given, in distribution or not. `skood.OODScorer` may have another container here.
    inlier_indices : ndarray of int or None, default=None
        Indices in X of the in-distribution rows. None means all rows.
    auxiliary_indices : ndarray of int or None, default=None
        Indices in X of the auxiliary outliers. None means that there are none, or that the method leaves them out.
    codes : ndarray of int of shape (n_inliers,) or None, default=None
        Class of each in-distribution row as a number. None means that there are no classes.
    given : array-like of n_rows rows or None, default=None
        The rows before an encoder or the steps of a Pipeline turned them into X. None means that X is what was given.
    """

    X: Any
    inlier_indices: np.ndarray | None = None
    auxiliary_indices: np.ndarray | None = None
    codes: np.ndarray | None = None
    given: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, with the names of the arrays that are memory maps."""
        return self.__dict__ | {"mapped": [name for name in ("X", "given") if is_memory_map(getattr(self, name))]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take rows that were in memory for such, though joblib gives them to other processes as memory maps.

        Memory maps may be trained on in another way, but the result must not depend on the number of processes.
        """
        mapped = state.pop("mapped")
        for name in {"X", "given"}.difference(mapped):
            if is_memory_map(state[name]):
                state[name] = np.asarray(memoryview(state[name]))
        self.__dict__.update(state)

    @property
    def n_inliers(self) -> int:
        """Number of in-distribution rows."""
        return _num_samples(self.X) if self.inlier_indices is None else len(self.inlier_indices)

    @property
    def n_auxiliary(self) -> int:
        """Number of auxiliary outliers."""
        return 0 if self.auxiliary_indices is None else len(self.auxiliary_indices)

    def all_inlier_indices(self) -> np.ndarray:
        """Return the indices of the in-distribution rows as an array, even if these are all rows."""
        return np.arange(_num_samples(self.X)) if self.inlier_indices is None else self.inlier_indices

    def part(self, inliers: np.ndarray, auxiliary: np.ndarray | None = None) -> Self:
        """Return the data of some of the rows.

        Parameters
        ----------
        inliers : ndarray of int
            Indices among the in-distribution rows.
        auxiliary : ndarray of int or None, default=None
            Indices among the auxiliary outliers, if there are any. None keeps all.
        """
        outliers = self.auxiliary_indices
        return replace(
            self,
            inlier_indices=self.all_inlier_indices()[inliers],
            auxiliary_indices=outliers if outliers is None or auxiliary is None else outliers[auxiliary],
            codes=None if self.codes is None else self.codes[inliers],
        )

    def before_all(self) -> Any:
        """Return the rows as they were given, before an encoder or a Pipeline turned them into X."""
        return self.X if self.given is None else self.given

    def without_auxiliary(self) -> FitData:
        """Return the same data for a method that leaves the auxiliary outliers out."""
        return replace(self, auxiliary_indices=None)
