"""skorch callbacks that measure a training on held-out rows of the user."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from skorch.callbacks import Callback

from .estimator.labels import check_labels, marks_outlier, named_markers, say_labels
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
    ``history_`` holds the value as ``valid_auroc``, and as ``valid_auroc_best`` whether it is the best one so far.
    Other callbacks can monitor these: skorch's `EarlyStopping` and `Checkpoint`, or a pruner of optuna; see
    :doc:`/watching`. The training itself does not change: it draws the same random numbers.

    If outliers among the rows decide when a training ends, the rows cannot serve as a test set. With
    ``early_stopping=True`` a detector holds out inliers by itself, and needs no rows of yours.

    Parameters
    ----------
    X_val : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
        Held-out rows of the kind that the detector is fitted on. The steps of a Pipeline before the detector do not
        transform them: pass them transformed, as ``pipeline[:-1].fit(X).transform(X_val)``.

    y_val : array-like of shape (n_samples,) or None, default=None
        Labels, in which the detector's ``outlier_label`` marks outliers. None, for ``metric="loss"`` only, takes all
        rows for inliers.

    metric : {"auroc", "aupr_out", "fpr95", "loss"}, default="auroc"
        What to measure: one of `skood.metrics`, with "fpr95" for the false positive rate at 95 % true positive rate; or
        "loss", the training loss of the inliers in evaluation mode, for which no outliers are needed. The loss of a
        detector that learns from auxiliary outliers needs some, and that of a detector with classes needs classes.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch.callbacks import EarlyStopping
    >>> from skood import NegSampleVAE
    >>> from skood.callbacks import ValidationScore
    >>> from skorch.utils import noop
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> X_val, y_val = np.concatenate([X[100:], X[100:] + 3]), np.repeat([1, -1], 100)
    >>> watch = ValidationScore(X_val, y_val)
    >>> stop = EarlyStopping(monitor="valid_auroc", lower_is_better=False, patience=3, sink=noop)
    >>> detector = NegSampleVAE(callbacks=[watch, stop], contamination=0, random_state=0).fit(X[:100])
    >>> float(max(detector.history_[:, "valid_auroc"])) > 0.9
    True
    """

    def __init__(self, X_val: ArrayLike, y_val: ArrayLike | None = None, metric: str = "auroc"):
        self.X_val = X_val
        self.y_val = y_val
        self.metric = metric

    @property
    def records(self) -> tuple[str, str]:
        """Names of the values that each epoch gets in the history."""
        return f"valid_{self.metric}", f"valid_{self.metric}_best"

    def __deepcopy__(self, memo: dict) -> ValidationScore:
        # Each fit copies its callbacks; the rows are never changed.
        return ValidationScore(self.X_val, self.y_val, self.metric)

    def initialize(self) -> ValidationScore:
        """Forget earlier values. skorch calls this."""
        if self.metric not in (*_METRICS, "loss"):
            raise ValueError(f"metric={self.metric!r} must be one of {', '.join(map(repr, (*_METRICS, 'loss')))}.")
        if self.metric != "loss" and self.y_val is None:
            raise ValueError(f"metric={self.metric!r} needs y_val, which marks outliers; without it set metric='loss'.")
        self._rows: np.ndarray | None = None
        self._best = math.inf
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Check the rows as the detector does. skorch calls this, once for each phase."""
        if net.midway is None:
            raise ValueError("callbacks: ValidationScore is for detectors, which have scores. Leave it out.")
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
                    f"metric={self.metric!r} compares inliers with outliers, but y_val marks {which} outliers (by "
                    f"{named_markers(net.midway.outlier_label)}): it holds {say_labels(self._labels)}. The detector's "
                    f"outlier_label names the labels of outliers. Without outliers set metric='loss'."
                )

    def on_epoch_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Record the metric of the detector as it is now. skorch calls this."""
        if self.metric == "loss":
            # The net has recorded the loss, as for early stopping.
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
        """Free the checked rows, which may be copies. skorch calls this, once for each phase."""
        self._rows = None


class PruneTrial(Callback):
    """Report a value of each epoch to an optuna trial, and end the fit if optuna prunes the trial.

    ``fit`` then raises `optuna.TrialPruned`, as optuna expects of an objective.

    Parameters
    ----------
    trial : optuna.trial.Trial
        The trial that optuna passes to the objective.

    monitor : str, default="valid_auroc"
        Name of a value in the history: one of a `ValidationScore` among the callbacks, for example, or "valid_loss"
        with ``early_stopping=True``. The study's ``direction`` says whether higher is better.

    Examples
    --------
    See :doc:`/watching`.
    """

    def __init__(self, trial: Any, monitor: str = "valid_auroc"):
        self.trial = trial
        self.monitor = monitor

    def __deepcopy__(self, memo: dict) -> PruneTrial:
        # Each fit copies its callbacks, but a copy of the trial would not report to the study.
        return PruneTrial(self.trial, self.monitor)

    def on_epoch_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Report the value of the epoch. skorch calls this."""
        self.trial.report(net.history[-1, self.monitor], len(net.history))
        if self.trial.should_prune():
            from optuna import TrialPruned

            raise TrialPruned(f"after {len(net.history)} epochs")
