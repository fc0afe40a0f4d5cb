"""Networks that learn classes: how they are set up, their probabilities, and the post-hoc scores of `skood.scores`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from scipy.special import softmax
from sklearn.utils import assert_all_finite
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import Tensor, nn

from ..augment import SCALE_FREE, augmented
from ..scores import FittedScore, odin
from ..training.optim import SCHEDULES
from .base import NetworkEstimator, OutlierDetector
from .scaling import SCALERS, fitted_scaler, scaled
from .validation import check_hidden_sizes

# Rows whose features are held at a time.
_ROWS_SCORED = 2**12
# In how many parts rows that a score learns from are left out in turn, and of how many rows one part is enough.
_PARTS, _MANY_ROWS = 5, 5000
# Scores that are the same for every row where there is a single class.
COMPARE_CLASSES = {"msp", "odin", "entropy", "gen", "relative_mahalanobis", "fdbd", "kl_matching"}


class ClassScores:
    """What can be had of a network that tells classes apart; to be mixed into a detector.

    It has ``_apply(function, X, rows, represent)`` (as `OutlierDetector`) and supplies

    - ``_class_logits(module, rows)``: one logit for each of ``classes_``;
    - ``_logits_and_features(module, rows)``: these, and what the linear layer makes them of, in one pass;
    - ``_class_weights()``: weight (n_classes, n_features) and bias (n_classes,) of that layer;
    - ``_rotation_logits(module, rows)``, where there is an auxiliary head: its logits (n, R, R) for each row under each
      of R transformations.
    """

    @abstractmethod
    def _class_logits(self, module: nn.Module, rows: Tensor) -> Tensor: ...

    @abstractmethod
    def _logits_and_features(self, module: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _class_weights(self) -> tuple[np.ndarray, np.ndarray]: ...

    def _observed(
        self,
        names: Sequence[str],
        X: np.ndarray,
        rows: np.ndarray | None = None,
        represent: Callable | None = None,
    ) -> dict[str, np.ndarray]:
        """What a score of `skood.scores` needs to know of validated rows, in float64."""
        seen = {}
        if "features" in names:
            both = self._apply(self._side_by_side, X, rows, represent)
            seen["logits"], seen["features"] = np.split(both, [len(self.classes_)], axis=1)
        elif "logits" in names:
            seen["logits"] = self._apply(self._class_logits, X, rows, represent)
        if "weight" in names:
            seen["weight"], seen["bias"] = self._class_weights()
        if "rotation_logits" in names:
            seen["rotation_logits"] = self._apply(self._rotation_logits, X, rows, represent)
        return seen

    def _side_by_side(self, module: nn.Module, rows: Tensor) -> Tensor:
        return torch.cat(self._logits_and_features(module, rows), 1)

    def _post_hoc_scores(
        self, score: FittedScore, X: np.ndarray, rows: np.ndarray | None = None, represent: Callable | None = None
    ) -> np.ndarray:
        """Scores of validated rows by one of `skood.scores.METHODS`."""
        if score.needs == ("gradient",):

            def perturbed(module, chunk):
                return odin(partial(self._class_logits, module), chunk, **score.options)

            return self._apply(perturbed, X, rows, represent)
        chosen = np.arange(_num_samples(X)) if rows is None else rows
        parts = [chosen[start : start + _ROWS_SCORED] for start in range(0, len(chosen), _ROWS_SCORED)]
        return np.concatenate([score.score(self._observed(score.needs, X, part, represent)) for part in parts])

    def predict_proba(self, X):
        """Probability of each in-distribution class, given that the row is in distribution.

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
        """The most probable in-distribution class of each row, outlier or not.

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

    def _encode_labels(self, y, n_rows):
        if y is None:
            self.classes_ = np.array([1])
            return np.zeros(n_rows, dtype=np.int64)
        self.classes_, codes = encode_classes(y)
        return codes


def encode_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes that labels name, sorted, and the number of each label's class among them.

    Raises
    ------
    ValueError
        If the labels are of both text and numbers, infinite, or the targets of a regression.
    """
    if y.dtype.kind == "O":
        if len({isinstance(label, str) for label in y.tolist()}) == 2:
            raise ValueError("y mixes text and numbers among the labels of classes; use one kind.")
        y = np.array(y.tolist())
    if y.dtype.kind == "f":
        assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    return classes, codes


class NetworkLearner(NetworkEstimator):
    """What is the same for every estimator of scaled rows and a network by name: settings of network and training.

    It has the parameters of `_parameter_constraints`, of which a subclass may narrow or widen some, and supplies what
    `NetworkEstimator` asks for.
    """

    _parameter_constraints: dict = {
        **NetworkEstimator._parameter_constraints,
        "scaling": [StrOptions(set(SCALERS)), None],
        "augmentation": [StrOptions(SCALE_FREE), callable, None],
        "network": [str, nn.Module, callable],
        "hidden_sizes": [tuple, list],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "schedule": [StrOptions(set(SCHEDULES)), callable],
    }

    @property
    def _auto_steps(self):
        return 2000 if self.image_shape_ is None else 1000

    def _check_network_settings(self, *for_images: str) -> None:
        """Refuse ``hidden_sizes`` that are none and, where X holds vectors, these parameters and ``augmentation``."""
        check_hidden_sizes(self.hidden_sizes)
        for name in ("augmentation", *for_images):
            if getattr(self, name) is not None and self.image_shape_ is None:
                raise ValueError(f"{name} is for images; X holds vectors. Pass images, or image_shape=(C, H, W).")

    def _fit_representation(self, chunks):
        self.scaler_ = fitted_scaler(self.scaling, chunks())

    def _represent(self, X):
        return scaled(self.scaler_, super()._represent(X))

    @property
    def _in_shape(self) -> tuple[int, ...]:
        """Shape of a row as the network sees it."""
        return self.image_shape_ or (self.n_features_in_,)

    def _augmented(self, rows: Tensor) -> Tensor:
        return augmented(rows, self.augmentation)

    def _training_options(self):
        lr = self.lr
        if lr == "auto":
            lr = 0.01 if self.image_shape_ is None else 0.1
        options = ("schedule", "weight_decay", "max_grad_norm")
        return {"lr": lr} | {name: getattr(self, name) for name in options}


class ClassLearner(NetworkLearner):
    """One whose network learns classes, by which `skood.OODScorer` knows it."""


class DetectorWithClasses(ClassScores, ClassLearner, OutlierDetector):
    """A detector whose network also tells the in-distribution classes apart.

    Besides what `OutlierDetector` and `ClassScores` ask for, ``_fit_score`` calls ``_learn_post_hoc``.
    """

    _parameter_constraints: dict = {**OutlierDetector._parameter_constraints, **ClassLearner._parameter_constraints}

    def _learn_post_hoc(self, name: str | None, X: np.ndarray, rows: np.ndarray | None, labels: np.ndarray) -> None:
        """Score by this one of `skood.scores.METHODS` from now on; None leaves it to ``_raw_score``."""
        self._post_hoc, self._left_out = None, None
        if name is not None:
            score = FittedScore(name)
            learns = score.method.learn is not None
            seen = self._observed((*score.learns_from, *score.needs) if learns else (), X, rows)
            self._post_hoc = score.learn(seen, labels)
            if learns and self.contamination == "auto" and self.image_shape_ is not None:
                self._left_out = scores_left_out(score, seen, labels)

    def _scores_as_if_new(self) -> np.ndarray:
        """Scores of in-distribution training rows, once, of a part at a time if the score learns from them."""
        left_out, self._left_out = self._left_out, None
        return self.training_scores_ if left_out is None else left_out

    def _scores(self, X, rows=None, represent=None):
        if self._post_hoc is None:
            return super()._scores(X, rows, represent)
        return self._post_hoc_scores(self._post_hoc, X, rows, represent)


def scores_left_out(score: FittedScore, seen: Mapping[str, np.ndarray], codes: np.ndarray | None) -> np.ndarray:
    """Scores of rows that a score would learn from, when it has learnt from others: of a part at a time.

    A covariance of few rows, say, finds these rows much closer to their mean than any new one.
    """
    n_rows = len(seen["features"] if "features" in seen else seen["logits"])
    order = np.arange(n_rows) if codes is None else np.argsort(codes, kind="stable")
    part = np.empty(n_rows, dtype=int)
    # A row of each class in each part, where there are as many.
    part[order] = np.arange(n_rows) % _PARTS
    left_out = []
    for number in range(_PARTS if n_rows <= _MANY_ROWS else 1):
        out = part == number
        if out.any() and not out.all():
            others = FittedScore(score.name, score.options)
            others.learn(_rows_of(seen, ~out), None if codes is None else codes[~out])
            left_out.append(others.score(_rows_of(seen, out)))
    return np.concatenate(left_out)


def _rows_of(seen: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Responses to some of the rows; the weights of the network are those of all."""
    return {name: values if name in ("weight", "bias") else values[chosen] for name, values in seen.items()}
