"""Draw curves over thresholds, and the point of the detector's own; public in `skood.plotting`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import (
    PrecisionRecallDisplay,
    RocCurveDisplay,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from ..estimator.labels import Marker
from ..metrics import answers, risk_coverage_curve
from ..metrics.base import outliers_positive
from .base import ScoreDisplay
from .drawing import THRESHOLD, axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class OutlierRocDisplay(ScoreDisplay):
    """Draw the ROC curve with outliers as the positive class, for any detector, and the point of its threshold.

    Parameters
    ----------
    fpr, tpr : ndarray of float
        False and true positive rates: the points of the curve.
    auroc : float
        Area under the curve, shown in the legend.
    operating_point : tuple (fpr, tpr) or None, default=None
        The point of the curve where the threshold is. With None no point is drawn.
    name : str or None, default=None
        Name of the detector, for the legend. With None the legend has no name.

    Attributes
    ----------
    line_ : matplotlib Artist
        The curve.
    ax_ : matplotlib Axes
        The axes with the curve.
    figure_ : matplotlib Figure
        The figure that holds the axes.
    """

    def __init__(self, *, fpr, tpr, auroc, operating_point=None, name=None):
        self.fpr = fpr
        self.tpr = tpr
        self.auroc = auroc
        self.operating_point = operating_point
        self.name = name

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        score: ArrayLike,
        *,
        threshold: float | None = None,
        outlier_label: Marker = -1,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the ROC curve of given scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            -1 for outliers, any other label for inliers.
        score : array-like of shape (n_samples,)
            The score of each row; higher = more normal.
        threshold : float or None, default=None
            Rows that score below it are called outliers. With None no point is drawn.
        outlier_label : number, str, bool, or array-like of these, default=-1
            The label in y_true that marks outliers, or several.
        name : str or None, default=None
            Name of the detector, for the legend. With None the legend has no name.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : OutlierRocDisplay
            The display, drawn.
        """
        outlier, anomaly = outliers_positive(y_true, score, outlier_label)
        fpr, tpr, _ = roc_curve(outlier, anomaly)
        point = None
        if threshold is not None:
            # Strictly beyond the threshold: a row that scores exactly at it is an inlier, as in `predict`.
            alarm = anomaly > -threshold
            point = (float(alarm[~outlier].mean()), float(alarm[outlier].mean()))
        auroc = float(roc_auc_score(outlier, anomaly))
        return cls(fpr=fpr, tpr=tpr, auroc=auroc, operating_point=point, name=name).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, chance: bool = True) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        chance : bool, default=True
            Whether to draw the line of a detector that guesses.

        Returns
        -------
        display : OutlierRocDisplay
            This display.
        """
        curve = RocCurveDisplay(fpr=self.fpr, tpr=self.tpr, roc_auc=self.auroc)
        curve.plot(ax=axes_for(ax, self), name=self.name, plot_chance_level=chance)
        self.ax_, self.figure_, self.line_ = curve.ax_, curve.figure_, curve.line_
        _mark(self.ax_, self.operating_point, self.line_, self.name)
        self.ax_.set(
            xlabel="false positive rate (inliers called outliers)", ylabel="true positive rate (outliers found)"
        )
        return self


class OutlierPrecisionRecallDisplay(ScoreDisplay):
    """Draw the precision-recall curve with outliers as the positive class, and the point of the threshold.

    Parameters
    ----------
    precision, recall : ndarray of float
        The points of the curve.
    aupr_out : float
        Average precision with outliers as the positive class, shown in the legend.
    prevalence : float or None, default=None
        Share of outliers: the precision of a detector that guesses. With None that line is not drawn.
    operating_point : tuple (recall, precision) or None, default=None
        The point of the curve where the threshold is. With None no point is drawn.
    name : str or None, default=None
        Name of the detector, for the legend. With None the legend has no name.

    Attributes
    ----------
    line_ : matplotlib Artist
        The curve.
    ax_ : matplotlib Axes
        The axes with the curve.
    figure_ : matplotlib Figure
        The figure that holds the axes.
    """

    def __init__(self, *, precision, recall, aupr_out, prevalence=None, operating_point=None, name=None):
        self.precision = precision
        self.recall = recall
        self.aupr_out = aupr_out
        self.prevalence = prevalence
        self.operating_point = operating_point
        self.name = name

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        score: ArrayLike,
        *,
        threshold: float | None = None,
        outlier_label: Marker = -1,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the precision-recall curve of given scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            -1 for outliers, any other label for inliers.
        score : array-like of shape (n_samples,)
            The score of each row; higher = more normal.
        threshold : float or None, default=None
            Rows that score below it are called outliers. With None no point is drawn.
        outlier_label : number, str, bool, or array-like of these, default=-1
            The label in y_true that marks outliers, or several.
        name : str or None, default=None
            Name of the detector, for the legend. With None the legend has no name.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : OutlierPrecisionRecallDisplay
            The display, drawn.
        """
        outlier, anomaly = outliers_positive(y_true, score, outlier_label)
        precision, recall, _ = precision_recall_curve(outlier, anomaly)
        point = None
        # Without an alarm there is no precision.
        if threshold is not None and (alarm := anomaly > -threshold).any():
            point = (float(alarm[outlier].mean()), float(outlier[alarm].mean()))
        return cls(
            precision=precision,
            recall=recall,
            aupr_out=float(average_precision_score(outlier, anomaly)),
            prevalence=float(outlier.mean()),
            operating_point=point,
            name=name,
        ).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, chance: bool = True) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        chance : bool, default=True
            Whether to draw the line of a detector that guesses.

        Returns
        -------
        display : OutlierPrecisionRecallDisplay
            This display.
        """
        curve = PrecisionRecallDisplay(
            self.precision,
            self.recall,
            average_precision=self.aupr_out,
            prevalence_pos_label=self.prevalence,
        )
        chance = chance and self.prevalence is not None
        curve.plot(ax=axes_for(ax, self), name=self.name, plot_chance_level=chance)
        self.ax_, self.figure_, self.line_ = curve.ax_, curve.figure_, curve.line_
        _mark(self.ax_, self.operating_point, self.line_, self.name)
        self.ax_.set(
            xlabel="recall (outliers found)", ylabel="precision (outliers among the alarms)", ylim=(-0.01, 1.05)
        )
        return self


class RiskCoverageDisplay:
    """Draw the share of wrong answers against the share of rows answered, for a classifier that may abstain.

    Parameters
    ----------
    coverage, risk : ndarray of float
        Share of the rows that are answered, and share of wrong answers among these: the points of the curve.
    aurc : float
        Area under the curve, shown in the legend.
    operating_point : tuple (coverage, risk) or None, default=None
        The point of the curve where the threshold is. With None no point is drawn.
    name : str or None, default=None
        Name of the estimator, for the legend. With None the legend has no name.

    Attributes
    ----------
    line_ : matplotlib Artist
        The curve.
    ax_ : matplotlib Axes
        The axes with the curve.
    figure_ : matplotlib Figure
        The figure that holds the axes.
    """

    def __init__(self, *, coverage, risk, aurc, operating_point=None, name=None):
        self.coverage = coverage
        self.risk = risk
        self.aurc = aurc
        self.operating_point = operating_point
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        outlier_label: Marker = -1,
        name: str | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the curve of a fitted estimator's answers.

        Parameters
        ----------
        estimator : fitted detector or classifier
            The answers are those of ``predict_class``, or of a classifier's ``predict``; a detector without classes
            answers "inlier" to every row. A detector's threshold is drawn.
        X : array-like of shape (n_samples, n_features)
            The rows to answer.
        y : array-like of shape (n_samples,)
            Class of each row; -1 for outliers.
        outlier_label : number, str, bool, or array-like of these, default=-1
            The label in y that marks outliers, or several.
        name : str or None, default=None
            Name of the estimator, for the legend. With None it is the name of the estimator's class.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.

        Returns
        -------
        display : RiskCoverageDisplay
            The display, drawn.
        """
        y_pred, score, threshold = answers(estimator, X, y, outlier_label=outlier_label)
        name = type(estimator).__name__ if name is None else name
        return cls.from_predictions(
            y, y_pred, score, threshold=threshold, outlier_label=outlier_label, name=name, ax=ax
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        score: ArrayLike,
        *,
        threshold: float | None = None,
        outlier_label: Marker = -1,
        name: str | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the curve of given answers.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Class of each row; -1 for outliers.
        y_pred : array-like of shape (n_samples,)
            The answer to each row: a class.
        score : array-like of shape (n_samples,)
            How sure each answer is; higher = surer. Rows are answered from the highest score down.
        threshold : float or None, default=None
            Rows that score below it are not answered. With None no point is drawn.
        outlier_label : number, str, bool, or array-like of these, default=-1
            The label in y_true that marks outliers, or several.
        name : str or None, default=None
            Name of the estimator, for the legend. With None the legend has no name.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.

        Returns
        -------
        display : RiskCoverageDisplay
            The display, drawn.
        """
        coverage, risk, score = risk_coverage_curve(y_true, y_pred, score, outlier_label=outlier_label)
        point = None
        if threshold is not None and (score >= threshold).any():
            # The curve goes from the highest score down: its point is the last one that is not below the threshold.
            last = np.flatnonzero(score >= threshold)[-1]
            point = (float(coverage[last]), float(risk[last]))
        # The curve has steps, so its area is a sum of rectangles and not of trapezia.
        area = float(np.sum(np.diff(coverage, prepend=0) * risk))
        return cls(coverage=coverage, risk=risk, aurc=area, operating_point=point, name=name).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.

        Returns
        -------
        display : RiskCoverageDisplay
            This display.
        """
        self.ax_ = axes_for(ax, self)
        self.figure_ = self.ax_.figure
        label = f"AURC = {self.aurc:.3f}"
        label = label if self.name is None else f"{self.name} ({label})"
        (self.line_,) = self.ax_.plot(self.coverage, self.risk, drawstyle="steps-pre", label=label)
        _mark(self.ax_, self.operating_point, self.line_, self.name)
        self.ax_.set(
            xlabel="coverage (rows answered)", ylabel="risk (share of wrong answers, outliers included)", xlim=(0, 1)
        )
        self.ax_.set_ylim(bottom=0)
        return self


def _mark(ax: Axes, point: tuple[float, float] | None, line: Any, name: str | None) -> None:
    """Mark the point of a curve where the threshold is, and add the legend."""
    if point is not None:
        label = f"threshold of {name}" if name else "threshold"
        # Lines have zorder 2: the point lies above them, those of other detectors on the same axes included.
        ax.plot(*point, "o", color=line.get_color(), markeredgecolor=THRESHOLD, label=label, zorder=3)
    ax.legend()
