"""Observe trained classifiers of scikit-learn, as `skood.posthoc.observed` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.validation import _num_samples
from torch import Tensor

from ..training.batches import Represent
from .layers import NO_ROTATION, Layers, equal_up_to_rounding

# Most and least rows that a classifier gets at a time: products with a single row may round otherwise.
_ROWS_AT_A_TIME, _FEWEST_ROWS = 2**12, 8


class SklearnClassifier:
    """Observe a fitted scikit-learn classifier, or one with the same methods; it takes the place of a network.

    Parameters
    ----------
    estimator : classifier
        A classifier with ``decision_function`` or ``predict_proba``.
    """

    image_shape = None

    def __init__(self, estimator: Any):
        self.estimator, self.classes_ = estimator, np.asarray(estimator.classes_)
        self.steps: list[Any] = []
        # Whether `predict` returns other classes than those with the largest logits.
        self.has_threshold = isinstance(estimator, (FixedThresholdClassifier, TunedThresholdClassifierCV))
        if self.classes_.ndim != 1 or (self.classes_.dtype.kind == "O" and isinstance(estimator.classes_, list)):
            self._refuse_several_labels()

    def _refuse_several_labels(self) -> NoReturn:
        name = type(self.estimator).__name__
        raise ValueError(f"classifier={name} gives each row several labels; pass one with one.")

    def check_rows(self, X: Any) -> Any:
        """Return X as it is, with rows that can be chosen; the classifier checks its rows itself."""
        return with_rows(X)

    def look(self, X: Any, trial: np.ndarray, represent: Represent, layers: Layers) -> None:
        """Find out what the classifier returns, and whether its logits are linear in its input."""
        name = type(self.estimator).__name__
        if layers:
            raise ValueError(f"layer is for torch networks; {name} has none. Set layer=None.")
        self.lacks = {"rotation_logits": NO_ROTATION, "gradient": f"{name} gives no gradient"}
        rows = _safe_indexing(X, trial)
        # Some classifiers of several labels have a list of classes like one of one label.
        answers: tuple[int, ...] = np.shape(self.estimator.predict(rows)) if hasattr(self.estimator, "predict") else ()
        if len(answers) > 1 and answers[1] > 1:
            self._refuse_several_labels()
        decision = None if self._hides_pairs(rows) else self._decision(rows)
        self.decides = decision is not None
        if not self.decides:
            if not hasattr(self.estimator, "predict_proba"):
                raise ValueError(
                    f"{name} has no predict_proba, and no decision_function with a column for each of its "
                    f"{len(self.classes_)} classes (SVC has one with decision_function_shape='ovr')."
                )
            self.lacks["logits"] = f"{name} gives probabilities, no logits"
        self.look_for_features(X)
        features = None if "features" in self.lacks else self._features(rows)
        # Coefficients alone prove nothing: those of SVC(kernel="linear") belong to pairs of classes. So it is checked
        # that they reproduce the decision function.
        linear = False
        if self.decides and features is not None and hasattr(self.estimator, "coef_"):
            weight, bias = self._coefficients()
            linear = weight.shape == (len(self.classes_), features.shape[1])
            if linear:
                # Rows that are not centred may have terms much larger than the logits.
                size = float((np.abs(features) @ np.abs(weight).T + np.abs(bias)).max())
                linear = equal_up_to_rounding(features @ weight.T + bias, self._scores(rows), size)
        if not linear:
            self.lacks["weight"] = f"the logits of {name} are not linear in its input"

    def _hides_pairs(self, rows: Any) -> bool:
        """Return whether the decision function is that of an SVC within, with a column for each pair of classes."""
        # Three classes have three pairs, so that the number of columns does not show it.
        params = self.estimator.get_params() if hasattr(self.estimator, "get_params") else {}
        shapes = [value for name, value in params.items() if name.endswith("__decision_function_shape")]
        if "ovo" not in shapes or len(self.classes_) != 3:
            return False
        # Some, such as BaggingClassifier, pass the columns on; others, such as OneVsRestClassifier, have their own.
        decision = self._decision(rows)
        answers = self.predicted(self.estimator, rows).numpy()
        return decision is not None and bool((decision.argmax(1) != answers).any())

    def look_for_features(self, X: Any, name: str = "X") -> None:
        """Note in ``lacks`` if rows cannot serve as features; ``name`` is what the user calls these rows."""
        reason = self._not_features(X, name)
        if reason is not None:
            self.lacks.setdefault("features", reason)

    def _not_features(self, X: Any, name: str) -> str | None:
        """Return the reason why rows cannot serve as features, or None if they can."""
        cannot = f"the input of {type(self.estimator).__name__} cannot serve as features: "
        # All rows, for a few may happen to be complete; and block by block, for their copies need memory.
        for start in range(0, _num_samples(X), _ROWS_AT_A_TIME):
            some = _safe_indexing(X, np.arange(start, min(start + _ROWS_AT_A_TIME, _num_samples(X))))
            try:
                features = check_array(some, accept_sparse="csr", dtype=np.float64, ensure_all_finite=False)
            except (TypeError, ValueError) as error:
                return cannot + str(error)
            place = _not_finite(features)
            if place is not None:
                row, column, value = place
                columns = getattr(X, "columns", None)
                where = f"feature {column}" if columns is None else f"column {str(columns[column])!r}"
                return (
                    f"{cannot}{name} contains {'NaN' if np.isnan(value) else 'infinity'}, first in row {start + row}, "
                    f"{where}; impute it (in a Pipeline, by SimpleImputer() before the detector), or drop the row"
                )
        return None

    def apply(
        self,
        function: Callable[[Any, Any], Tensor],
        X: Any,
        indices: np.ndarray | None = None,
        represent: Represent | None = None,
    ) -> np.ndarray:
        """Return ``function(estimator, rows)`` for rows of X, many at a time."""
        chosen = np.arange(_num_samples(X)) if indices is None else indices
        parts = np.split(chosen, range(_ROWS_AT_A_TIME, len(chosen), _ROWS_AT_A_TIME))
        try:
            return np.concatenate([self._applied(function, X, part) for part in parts])
        except _NoFeaturesError as error:
            # The error of a block does not know the rows before it.
            raise ValueError(f"{self._not_features(X, 'X') or error}.") from error

    def _applied(self, function: Callable[[Any, Any], Tensor], X: Any, part: np.ndarray) -> np.ndarray:
        """Return ``function(estimator, rows)`` for the rows at these indices; of few rows, the last one is repeated."""
        padded = np.append(part, np.repeat(part[-1:], max(0, _FEWEST_ROWS - len(part))))
        return function(self.estimator, _safe_indexing(X, padded)).numpy()[: len(part)]

    def predicted(self, estimator: Any, rows: Any) -> Tensor:
        """Return the index of the class that `predict` of the classifier returns, for each row."""
        return torch.from_numpy(np.searchsorted(self.classes_, estimator.predict(rows)))

    def logits(self, estimator: Any, rows: Any) -> Tensor:
        """Return the logits of rows."""
        return torch.from_numpy(self._scores(rows))

    def logits_and_features(self, estimator: Any, rows: Any) -> tuple[Tensor, Tensor]:
        """Return the logits and the features of rows."""
        # A copy: the rows are the user's, and those of a DataFrame are in read-only memory, which torch warns of.
        return self.logits(estimator, rows), torch.tensor(self._features(rows))

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the coefficients and the intercepts that give the logits."""
        weight, bias = self._coefficients()
        # Copies, because torch cannot share read-only memory.
        return torch.tensor(weight), torch.tensor(bias)

    def _coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what `weights` returns, as arrays."""
        weight = self.estimator.coef_
        weight = np.atleast_2d(weight.toarray() if issparse(weight) else np.asarray(weight, dtype=np.float64))
        bias = np.broadcast_to(np.asarray(self.estimator.intercept_, dtype=np.float64), len(weight))
        return _both_classes(weight), _both_classes(bias)

    def _scores(self, X: Any) -> np.ndarray:
        """Return logits, or logarithms of probabilities."""
        decision = self._decision(X) if self.decides else None
        if decision is not None:
            return decision
        probability = np.asarray(self.estimator.predict_proba(X), dtype=np.float64)
        return np.log(np.maximum(probability, np.finfo(np.float64).tiny))

    def _decision(self, X: Any) -> np.ndarray | None:
        """Return the decision function, one column for each class; None if it has other columns."""
        # The number of columns does not show it: three classes have three pairs of classes.
        by_pairs = getattr(self.estimator, "decision_function_shape", None) == "ovo" and len(self.classes_) > 2
        if by_pairs or not hasattr(self.estimator, "decision_function"):
            return None
        decision = np.asarray(self.estimator.decision_function(X), dtype=np.float64)
        decision = _both_classes(decision.reshape(len(decision), -1).T).T
        return decision if decision.shape[1] == len(self.classes_) else None

    def _features(self, X: Any) -> np.ndarray:
        """Return the rows themselves, which must be numbers."""
        try:
            return check_array(X.toarray() if issparse(X) else X, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise _NoFeaturesError(str(error)) from error


def with_rows(X: Any) -> Any:
    """Return rows in a format from which some can be chosen: sparse ones as CSR, as others may have no rows."""
    return X.tocsr() if issparse(X) else X


class _NoFeaturesError(ValueError):
    """Say that rows cannot serve as features."""


def _not_finite(X: Any) -> tuple[int, int, float] | None:
    """Return row, column and value of the first number that is not finite, in an array or a CSR matrix."""
    flawed = np.flatnonzero(~np.isfinite(X.data if issparse(X) else X))
    if not len(flawed):
        return None
    if issparse(X):
        found = X.tocoo()
        return int(found.row[flawed[0]]), int(found.col[flawed[0]]), float(X.data[flawed[0]])
    row, column = np.unravel_index(flawed[0], X.shape)
    return int(row), int(column), float(X[row, column])


def _both_classes(values: np.ndarray) -> np.ndarray:
    """Return a row for each of two classes, if the one row is that of the second class minus that of the first."""
    return np.concatenate([-values / 2, values / 2]) if len(values) == 1 else values
