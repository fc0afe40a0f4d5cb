"""Callbacks of skorch for a training that is watched by held-out rows of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from skorch.callbacks import Callback

from .estimator.labels import check_labels, marks_outlier, named_markers
from .metrics import aupr_out, auroc, fpr_at_tpr
from .training import distributed
from .training.watching import HeldOut

__all__ = ["PruneTrial", "ValidationScore"]

# Name -> function of y, scores and outlier_label, and whether higher is better.
_METRICS: dict[str, tuple[Callable[..., float], bool]] = {
    "auroc": (auroc, True),
    "aupr_out": (aupr_out, True),
    "fpr95": (partial(fpr_at_tpr, tpr=0.95), False),
}


class ValidationScore(Callback):
    """Measure a detector on held-out rows after each epoch of its training.

    Pass it to a detector as ``callbacks=[ValidationScore(X_val, y_val)]``. After each epoch the detector scores the
    rows as it would if the training ended there, with its scaling and all that its score learns after the training.
    ``history_`` has the value as ``valid_auroc``, and as ``valid_auroc_best`` whether it is the best one so far. What
    else takes part in the fit can then monitor these: skorch's `EarlyStopping` and `Checkpoint`, or a pruner of optuna;
    see :doc:`/watching`. The training does not change: it draws the same random numbers.

    Outliers among the rows decide when a training ends, so that they are no test set any more. With
    ``early_stopping=True`` a detector is watched by inliers alone, and needs no rows of yours.

    Parameters
    ----------
    X_val : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
        Rows that the detector is not fitted on, of the kind that it is fitted on. In a Pipeline the steps before the
        detector do not see them: pass them transformed, as ``pipeline[:-1].fit(X).transform(X_val)``.

    y_val : array-like of shape (n_samples,) or None, default=None
        Labels, in which the detector's ``outlier_label`` marks outliers. None, for ``metric="loss"`` only, takes all
        rows for inliers.

    metric : {"auroc", "aupr_out", "fpr95", "loss"}, default="auroc"
        What is measured: one of `skood.metrics`, "fpr95" being the false positive rate at 95 % true positive rate; or
        "loss", the loss of training of the inliers, in evaluation mode, for which no outliers are needed. Where the
        detector learns from auxiliary outliers, its loss needs some; where it learns classes, it needs theirs.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch.callbacks import EarlyStopping
    >>> from skood import NegSampleVAE
    >>> from skood.callbacks import ValidationScore
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> X_val, y_val = np.concatenate([X[100:], X[100:] + 3]), np.repeat([1, -1], 100)
    >>> watch = ValidationScore(X_val, y_val)
    >>> stop = EarlyStopping(monitor="valid_auroc", lower_is_better=False, patience=3, sink=lambda text: None)
    >>> detector = NegSampleVAE(callbacks=[watch, stop], random_state=0).fit(X[:100])
    >>> float(max(detector.history_[:, "valid_auroc"])) > 0.9
    True
    """

    def __init__(self, X_val: ArrayLike, y_val: ArrayLike | None = None, metric: str = "auroc"):
        self.X_val = X_val
        self.y_val = y_val
        self.metric = metric

    @property
    def records(self) -> tuple[str, str]:
        """Names of what an epoch's history gets."""
        return f"valid_{self.metric}", f"valid_{self.metric}_best"

    def __deepcopy__(self, memo: dict) -> ValidationScore:
        # Each fit copies its callbacks; the rows are never changed.
        return ValidationScore(self.X_val, self.y_val, self.metric)

    def initialize(self) -> ValidationScore:
        """Forget what was measured before. skorch calls this."""
        if self.metric not in (*_METRICS, "loss"):
            raise ValueError(f"metric={self.metric!r} is none of {', '.join(map(repr, (*_METRICS, 'loss')))}.")
        if self.metric != "loss" and self.y_val is None:
            raise ValueError(f"metric={self.metric!r} needs y_val, which marks outliers; without such set 'loss'.")
        self._rows: np.ndarray | None = None
        self._best = math.inf
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Check the rows as the detector does. skorch calls this, once for each phase."""
        if net.midway is None:
            raise ValueError("callbacks: ValidationScore is for detectors: an encoder gives rows no score.")
        if self.metric == "loss":
            if net.held_out is None:
                net.held_out = HeldOut(net.midway.training_rows(self.X_val, self.y_val), None)
            return
        if self._rows is None:
            self._rows = net.midway.checked(self.X_val)
            self._labels = check_labels(self.y_val)
            outlier = marks_outlier(self._labels, net.midway.outlier_label)
            if outlier.all() or not outlier.any():
                which = "only" if outlier.any() else "no"
                raise ValueError(
                    f"metric={self.metric!r} compares inliers with outliers, and y_val marks {which} outliers, with "
                    f"{named_markers(net.midway.outlier_label)}. Without outliers set metric='loss'."
                )

    def on_epoch_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Record what the detector is worth now. skorch calls this."""
        if self.metric == "loss":
            # The net has recorded it, as it does for early stopping.
            return
        function, higher_is_better = _METRICS[self.metric]
        scores = net.midway.scores(net, self._rows)
        value = function(self._labels, scores, outlier_label=net.midway.outlier_label)
        if net.together:
            # All processes must come to the same decision.
            value = distributed.mean(value)
        cost = -value if higher_is_better else value
        name, best = self.records
        net.history.record(name, float(value))
        net.history.record(best, bool(cost < self._best))
        self._best = min(cost, self._best)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Let go of checked rows, which may be copies. skorch calls this, once for each phase."""
        self._rows = None


class PruneTrial(Callback):
    """Report a value of each epoch to a trial of optuna, and end the fit where optuna finds the trial hopeless.

    `optuna.TrialPruned` then leaves ``fit``, which is what optuna expects of an objective.

    Parameters
    ----------
    trial : optuna.trial.Trial
        The trial, as the objective gets it.

    monitor : str, default="valid_auroc"
        Name of the value in the history: of a `ValidationScore` among the callbacks, say, or "valid_loss" with
        ``early_stopping=True``. The study's ``direction`` says whether higher is better.

    Examples
    --------
    See :doc:`/watching`.
    """

    def __init__(self, trial: Any, monitor: str = "valid_auroc"):
        self.trial = trial
        self.monitor = monitor

    def __deepcopy__(self, memo: dict) -> PruneTrial:
        # Each fit copies its callbacks. What a copy of the trial is told, no study hears of.
        return PruneTrial(self.trial, self.monitor)

    def on_epoch_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Report the value of the epoch. skorch calls this."""
        self.trial.report(net.history[-1, self.monitor], len(net.history))
        if self.trial.should_prune():
            from optuna import TrialPruned

            raise TrialPruned(f"after {len(net.history)} epochs")
