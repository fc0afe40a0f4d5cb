"""Networks that learn classes: how they are set up, their probabilities, and the post-hoc scores of `skood.scores`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import Tensor, nn

from .._sklearn import Interval, StrOptions
from .._warn import warn_user
from ..augment import SCALE_FREE, augmented
from ..scores import FittedScore, find_temperature, moved_up, odin_log_odds
from ..training.optim import SCHEDULES
from .base import OutlierDetector
from .data import FitData
from .labels import Marker, check_marked, find_outliers, named_markers
from .network import NetworkEstimator
from .scaling import SCALERS, fitted_scaler
from .validation import check_hidden_sizes

# Rows that a score learns from are left out in this many parts, one after the other. With fewer parts, a covariance of
# few rows would be another one without a part of them. Of many rows, the first parts are enough.
_PARTS, _FIRST_PARTS, _MANY_ROWS = 20, 5, 5000
# Scores that are the same for every row if there is only one class.
COMPARE_CLASSES = {
    *("msp", "odin", "entropy", "gen", "relative_mahalanobis", "relative_mahalanobis_pp", "fdbd", "gradnorm"),
    "kl_matching",
}


class ClassScores:
    """Add class probabilities, and the responses that post-hoc scores need, to a detector: a mixin.

    The detector has ``_apply(function, X, indices, represent)`` (as `OutlierDetector`) and supplies

    - ``_class_logits(module, rows)``: one logit for each of ``classes_``;
    - ``_logits_and_features(module, rows)``: the logits, and the inputs of the last linear layer, in one forward pass;
    - ``_class_weights()``: weight (n_classes, n_features) and bias (n_classes,) of that layer;
    - ``_rotation_logits(module, rows)``, if there is a rotation head: its logits (n, R, R) for each row under each of R
      transformations.
    """

    # What the detector that this is mixed into has.
    offset_: float
    temperature_: float
    outlier_label: Any
    _apply: Callable[..., np.ndarray]
    _check_rows: Callable[..., Any]
    _rotation_logits: Callable[..., Tensor]

    @abstractmethod
    def _class_logits(self, module: nn.Module, rows: Tensor) -> Tensor: ...

    @abstractmethod
    def _logits_and_features(self, module: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _class_weights(self) -> tuple[Tensor, Tensor]: ...

    def _observed(
        self,
        names: Sequence[str],
        X: np.ndarray,
        indices: np.ndarray | None = None,
        represent: Callable | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the responses to validated rows that a score of `skood.scores` needs, in float64."""
        seen = {}
        if "features" in names:
            both = self._apply(self._side_by_side, X, indices, represent)
            seen["logits"], seen["features"] = np.split(both, [len(self.classes_)], axis=1)
        elif "logits" in names:
            seen["logits"] = self._apply(self._class_logits, X, indices, represent)
        if "weight" in names:
            seen["weight"], seen["bias"] = (part.cpu().numpy() for part in self._class_weights())
        if "rotation_logits" in names:
            seen["rotation_logits"] = self._apply(self._rotation_logits, X, indices, represent)
        return seen

    def _side_by_side(self, module: nn.Module, rows: Tensor) -> Tensor:
        return torch.cat(self._logits_and_features(module, rows), 1)

    @abstractmethod
    def _logits_and_score(self, module: nn.Module, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the logits and the score of each row; None for the logits if they need another forward pass."""

    def _post_hoc_score(self, score: FittedScore, module: nn.Module, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return logits of rows, as in `_logits_and_score`, and scores by one of `skood.scores.METHODS`."""
        if score.needs == ("gradient",):
            return None, odin_log_odds(partial(self._class_logits, module), rows, **score.options)
        if not score.moves_rows:
            return self._scored_as_they_are(score, module, rows)
        logits = self._class_logits(module, rows.clone())
        epsilon, std = score.options["epsilon"], score.options["std"]
        moved = moved_up(lambda rows: self._scored_as_they_are(score, module, rows)[1], rows, epsilon, std)
        return logits, self._scored_as_they_are(score, module, moved)[1]

    def _scored_as_they_are(self, score: FittedScore, module: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and scores of rows that are not moved."""
        seen = {}
        if "features" in score.needs:
            seen["logits"], seen["features"] = self._logits_and_features(module, rows)
        else:
            seen["logits"] = self._class_logits(module, rows)
        if "rotation_logits" in score.needs:
            seen["rotation_logits"] = self._rotation_logits(module, rows)
        weights: dict[str, Any] = {}
        if "weight" in score.needs:
            weights["weight"], weights["bias"] = self._class_weights()
        return seen["logits"], self._score_of(score, seen | weights)

    def _score_of(self, score: FittedScore, responses: dict[str, Any]) -> Any:
        """Return the scores of responses as a tensor."""
        return score.score(responses)

    def _proba_and_decision(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the results of `predict_proba` and ``decision_function``, from one forward pass."""
        both = self._apply(self._score_beside_logits, self._check_rows(X, reset=False))
        return softmax(both[:, 1:], axis=1), both[:, 0] - self.offset_

    def _class_and_decision(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the results of `predict_class` and ``decision_function``, from one forward pass."""
        probability, decision = self._proba_and_decision(X)
        return self.classes_[probability.argmax(1)], decision

    def _score_beside_logits(self, module: nn.Module, rows: Tensor) -> Tensor:
        # A network may work in place, and odin calls it twice. Rows for scikit-learn's classifiers are not tensors.
        logits, scores = self._logits_and_score(module, rows.clone() if isinstance(rows, Tensor) else rows)
        if logits is None:
            logits = self._class_logits(module, rows)
        return torch.cat([scores[:, None], logits.to(scores.dtype)], 1)

    def predict_proba(self, X):
        """Return the probability of each in-distribution class, given that the row is in distribution.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        probability : ndarray of float64 of shape (n_samples, n_classes)
            In the order of ``classes_``; rows sum to 1.
        """
        check_is_fitted(self)
        return softmax(self._observed(("logits",), self._check_rows(X, reset=False))["logits"], axis=1)

    def predict_class(self, X):
        """Return the most probable in-distribution class of each row, outlier or not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
            Values of ``classes_``.
        """
        check_is_fitted(self)
        logits = self._observed(("logits",), self._check_rows(X, reset=False))["logits"]
        return self.classes_[logits.argmax(1)]

    def _check_calibration(self, X, y, score: FittedScore | None, name: str) -> FitData:
        """Check the held-out rows that `calibrate` is given, and return them with their classes as ``codes``.

        Parameters
        ----------
        X, y
            As the user gave them.
        score : FittedScore or None
            The score that was learnt, if any; ``name`` is how the user chose it.

        Raises
        ------
        ValueError
            If the score was learnt from logits, y is missing, or its labels are not those of the fit.
        """
        check_is_fitted(self)
        if score is not None and "logits" in score.learns_from:
            raise ValueError(
                f"calibrate cannot change the temperature: {name} was learnt from logits at temperature "
                f"{self.temperature_:g}. Set temperature and fit again."
            )
        X = self._check_rows(X, reset=False)
        if y is None:
            raise ValueError(
                f"calibrate needs y: the class of each row, or {named_markers(self.outlier_label)} for outliers."
            )
        y, outlier = find_outliers(y, _num_samples(X), self.outlier_label)
        check_marked(y, outlier, self.outlier_label, classes=self.classes_)
        inliers = np.flatnonzero(~outlier)
        return FitData(X, inliers, np.flatnonzero(outlier), class_codes(y[inliers], self.classes_, self.outlier_label))

    def _calibrated(self, logits: np.ndarray, right: np.ndarray) -> float:
        """Return the best temperature; warn, and return the present one, if every row is classified correctly.

        ``right`` is the mask of the columns that are right for each row.
        """
        if (np.where(right, logits, -np.inf).max(1) < logits.max(1)).any():
            return find_temperature(logits, right)
        warn_user(
            f"all {len(logits)} rows are classified correctly, so that no temperature is best: the lower it is, the "
            f"likelier are their classes. The temperature stays {self.temperature_:g}. Pass more rows, some of which "
            f"are classified wrong, or set temperature.",
            RuntimeWarning,
        )
        return self.temperature_

    def _encode_labels(self, y, n_inliers):
        if y is None:
            self.classes_ = np.array([1])
            return np.zeros(n_inliers, dtype=np.int64)
        self.classes_, codes = encode_classes(y)
        return codes

    def _encode_more(self, y: np.ndarray | None, n_inliers: int) -> np.ndarray:
        if y is not None:
            return class_codes(y, self.classes_, self.outlier_label)
        if len(self.classes_) > 1:
            raise ValueError(f"y is needed: give the class of each row, one of {self.classes_}.")
        return np.zeros(n_inliers, dtype=np.int64)


def class_codes(y: np.ndarray, classes: np.ndarray, outlier_label: Marker = -1) -> np.ndarray:
    """Return the position of each label among the classes of a fit.

    Raises
    ------
    ValueError
        If a label is not among the classes.
    """
    number = {label: code for code, label in enumerate(classes.tolist())}
    unknown = list(dict.fromkeys(label for label in y.tolist() if label not in number))
    if unknown:
        raise ValueError(
            f"y holds {', '.join(map(repr, unknown[:5]))}, not among the classes of the fit, {classes}. Mark rows of "
            f"other classes with {named_markers(outlier_label)}."
        )
    return np.array([number[label] for label in y.tolist()])


def encode_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted classes, and the position of each label among them.

    Raises
    ------
    ValueError
        If the labels mix text and numbers, one is infinite, or they are the targets of a regression.
    """
    if y.dtype.kind == "O":
        if len({isinstance(label, str) for label in y.tolist()}) == 2:
            raise ValueError("y mixes text and numbers among the class labels; use one kind.")
        y = np.array(y.tolist())
    if y.dtype.kind == "f":
        assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    return classes, codes


class NetworkLearner(NetworkEstimator):
    """Base of estimators that scale rows and choose their network by name: the settings of network and training.

    A subclass has the parameters of `_parameter_constraints`, may narrow or widen some, and supplies what
    `NetworkEstimator` asks for.
    """

    _parameter_constraints: dict = {
        **NetworkEstimator._parameter_constraints,
        "scaling": [StrOptions(set(SCALERS)), None],
        "augmentation": [StrOptions(SCALE_FREE), callable, None],
        "network": [str, nn.Module, callable],
        "hidden_sizes": [tuple, list],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "schedule": [StrOptions(set(SCHEDULES)), callable],
    }

    @property
    def _auto_steps(self):
        return 2000 if self.image_shape_ is None else 1000

    def _check_network_settings(self, *for_images: str) -> None:
        """Refuse invalid ``hidden_sizes`` and, if X holds vectors, ``augmentation`` and the parameters named."""
        check_hidden_sizes(self.hidden_sizes)
        for name in ("augmentation", *for_images):
            if getattr(self, name) is not None and self.image_shape_ is None:
                raise ValueError(f"{name} is for images; X holds vectors. Pass images, or image_shape=(C, H, W).")

    def _fit_representation(self, data):
        self.scaler_ = fitted_scaler(self.scaling, self._inlier_chunks(data))

    def _front_options(self):
        return {"scaler": self.scaler_}

    def _augmented(self, rows: Tensor) -> Tensor:
        return augmented(rows, self.augmentation)

    @property
    def _auto_lr(self):
        return 0.01 if self.image_shape_ is None else 0.1

    def _training_options(self):
        options = ("schedule", "weight_decay", "max_grad_norm")
        lr = self._auto_lr if self.lr == "auto" else self.lr
        return {"lr": lr} | {name: getattr(self, name) for name in options}


class ClassLearner(NetworkLearner):
    """Base of estimators whose network learns classes; `skood.OODScorer` recognises them by this base."""


class DetectorWithClasses(ClassScores, ClassLearner, OutlierDetector):
    """Base of detectors whose network also classifies the in-distribution rows.

    Besides what `OutlierDetector` and `ClassScores` ask for, ``_fit_score`` calls ``_learn_post_hoc``.
    """

    _parameter_constraints: dict = {**OutlierDetector._parameter_constraints, **ClassLearner._parameter_constraints}

    def _learn_post_hoc(self, name: str | None, data: FitData) -> None:
        """Learn a score of `skood.scores.METHODS`, which ``_raw_score`` then returns; None learns no score."""
        self._post_hoc = None
        if name is not None:
            score = FittedScore(name)
            self._post_hoc = score.learn(self._lessons(score, data), data.codes)

    def _lessons(self, score: FittedScore, data: FitData) -> dict[str, np.ndarray]:
        """Return the responses to the in-distribution rows that a score learns from and needs."""
        learns = score.method.learn is not None
        return self._observed((*score.learns_from, *score.needs) if learns else (), data.X, data.inlier_indices)

    def _logits_and_score(self, module, rows):
        return self._post_hoc_score(self._post_hoc, module, rows)

    def _raw_score(self, module, rows):
        return self._logits_and_score(module, rows)[1]


def scores_left_out(
    score: FittedScore,
    seen: Mapping[str, np.ndarray],
    codes: np.ndarray | None,
    scored: Callable[[FittedScore, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return scores of the rows that a score learns from, part by part: each part by a score learnt from the others.

    By a covariance of few rows, for example, these rows are much closer to their mean than any new row.
    ``scored(score, out)`` returns the scores of the rows that the mask ``out`` marks; None computes them from the
    responses in ``seen``.
    """
    n_rows = len(seen["features"] if "features" in seen else seen["logits"])
    order = np.arange(n_rows) if codes is None else np.argsort(codes, kind="stable")
    part = np.empty(n_rows, dtype=int)
    # Each part gets a row of each class, if the class has enough rows.
    part[order] = np.arange(n_rows) % _PARTS
    left_out = []
    for number in range(_PARTS if n_rows <= _MANY_ROWS else _FIRST_PARTS):
        out = part == number
        if out.any() and not out.all():
            others = FittedScore(score.name, score.options)
            others.learn(_rows_of(seen, ~out), None if codes is None else codes[~out])
            left_out.append(others.score(_rows_of(seen, out)) if scored is None else scored(others, out))
    return np.concatenate(left_out)


def _rows_of(seen: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Return the responses to the chosen rows; the weights of the network belong to all rows."""
    return {name: values if name in ("weight", "bias") else values[chosen] for name, values in seen.items()}
