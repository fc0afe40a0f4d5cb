"""Pictures of scores, in scikit-learn's Display conventions; needs matplotlib (``pip install 'skood[plot]'``).

Every display takes any detector, draws its threshold, and has outliers (y == -1) for the positive class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import (
    PrecisionRecallDisplay,
    RocCurveDisplay,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)
from sklearn.utils import _safe_indexing
from sklearn.utils._optional_dependencies import check_matplotlib_support

from ._wrapper import inner_attribute, scores_of
from .metrics import _outliers_positive, answers, risk_coverage_curve

__all__ = [
    "OutlierPrecisionRecallDisplay",
    "OutlierRocDisplay",
    "RiskCoverageDisplay",
    "ScoreHistogramDisplay",
    "save_mean_auroc",
]

_INLIERS, _OUTLIERS, _THRESHOLD = "tab:blue", "tab:orange", "black"


def _axes(ax, display):
    check_matplotlib_support(f"{type(display).__name__}.plot")
    import matplotlib.pyplot as plt

    return plt.subplots()[1] if ax is None else ax


class _ScoreDisplay:
    """What displays of a detector's scores share: how they are made."""

    @classmethod
    def from_estimator(cls, estimator, X, y, *, name=None, ax=None, **kwargs):
        """Score rows with a fitted detector and draw.

        Parameters
        ----------
        estimator : fitted detector
            Anything with ``score_samples`` or ``decision_function``, higher = more normal. Its threshold, where its
            decision function is zero, is drawn.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            -1 for outliers, any other label for inliers.
        name : str or None, default=None
            Name for the legend; None is the class of the estimator.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a figure.
        **kwargs
            For `plot`.

        Returns
        -------
        display : the display, drawn
        """
        score = scores_of(estimator, X)
        threshold = _threshold(estimator, X, score)
        name = type(estimator).__name__ if name is None else name
        return cls.from_predictions(y, score, threshold=threshold, name=name, ax=ax, **kwargs)


def _threshold(estimator, X, score) -> float | None:
    """The score below which the estimator calls a row an outlier."""
    if not hasattr(estimator, "score_samples"):
        return 0.0
    if not hasattr(estimator, "decision_function"):
        return None
    # A Pipeline, for one, has none of its own.
    offset = inner_attribute(estimator, "offset_")
    if offset is None:
        # The difference is the same for every row, and least rounded where the score is smallest.
        row = int(np.argmin(np.abs(score)))
        offset = score[row] - estimator.decision_function(_safe_indexing(X, [row]))[0]
    return float(np.ravel(offset)[0])


class ScoreHistogramDisplay(_ScoreDisplay):
    """Histograms of the scores of inliers and of outliers, with the threshold.

    Parameters
    ----------
    inlier_score, outlier_score : ndarray of float
        Scores; higher = more normal.
    threshold : float or None, default=None
        Rows that score below it are outliers.
    name : str or None, default=None
        Title.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, *, inlier_score, outlier_score, threshold=None, name=None):
        self.inlier_score = inlier_score
        self.outlier_score = outlier_score
        self.threshold = threshold
        self.name = name

    @classmethod
    def from_predictions(cls, y_true, score, *, threshold=None, name=None, ax=None, **kwargs):
        """Draw scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            -1 for outliers, any other label for inliers.
        score : array-like of shape (n_samples,)
            Higher = more normal.
        threshold : float or None, default=None
            Rows that score below it are outliers.
        name : str or None, default=None
            Title.
        ax : matplotlib Axes or None, default=None
        **kwargs
            For `plot`.

        Returns
        -------
        display : ScoreHistogramDisplay
        """
        outlier, anomaly = _outliers_positive(y_true, score)
        display = cls(inlier_score=-anomaly[~outlier], outlier_score=-anomaly[outlier], threshold=threshold, name=name)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, bins=40, clip=0.01):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
        bins : int, default=40
        clip : float in [0, 0.5), default=0.01
            This share of the lowest scores is drawn in the leftmost bin: a few rows far out would squeeze all others
            into one.

        Returns
        -------
        display : ScoreHistogramDisplay
        """
        self.ax_ = _axes(ax, self)
        self.figure_ = self.ax_.figure
        score = np.concatenate([self.inlier_score, self.outlier_score])
        low, high = np.quantile(score, [clip, 1])
        if self.threshold is not None:
            low, high = min(low, self.threshold), max(high, self.threshold)
        edges = np.linspace(low, high if high > low else low + 1, bins + 1)
        kinds = ((self.inlier_score, _INLIERS, "inliers"), (self.outlier_score, _OUTLIERS, "outliers (positive)"))
        for values, color, label in kinds:
            self.ax_.hist(np.clip(values, low, high), edges, density=True, color=color, alpha=0.6, label=label)
        if self.threshold is not None:
            self.ax_.axvline(self.threshold, color=_THRESHOLD, linestyle="--", linewidth=1, label="threshold")
        self.ax_.set(xlabel="score (higher = more normal)", ylabel="density", title=self.name)
        self.ax_.ticklabel_format(axis="x", scilimits=(-3, 4))
        self.ax_.legend()
        return self


class OutlierRocDisplay(_ScoreDisplay):
    """ROC curve with outliers as the positive class, for any detector, and the point of its threshold.

    Parameters
    ----------
    fpr, tpr : ndarray of float
        The curve.
    auroc : float
    operating_point : tuple (fpr, tpr) or None, default=None
        Where the threshold is.
    name : str or None, default=None
        Name for the legend.

    Attributes
    ----------
    line_ : matplotlib Artist
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, *, fpr, tpr, auroc, operating_point=None, name=None):
        self.fpr = fpr
        self.tpr = tpr
        self.auroc = auroc
        self.operating_point = operating_point
        self.name = name

    @classmethod
    def from_predictions(cls, y_true, score, *, threshold=None, name=None, ax=None, **kwargs):
        """Draw the curve of scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            -1 for outliers, any other label for inliers.
        score : array-like of shape (n_samples,)
            Higher = more normal.
        threshold : float or None, default=None
            Rows that score below it are outliers.
        name : str or None, default=None
        ax : matplotlib Axes or None, default=None
        **kwargs
            For `plot`.

        Returns
        -------
        display : OutlierRocDisplay
        """
        outlier, anomaly = _outliers_positive(y_true, score)
        fpr, tpr, _ = roc_curve(outlier, anomaly)
        point = None
        if threshold is not None:
            alarm = anomaly > -threshold
            point = (float(alarm[~outlier].mean()), float(alarm[outlier].mean()))
        auroc = float(roc_auc_score(outlier, anomaly))
        return cls(fpr=fpr, tpr=tpr, auroc=auroc, operating_point=point, name=name).plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, chance=True):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
        chance : bool, default=True
            Whether to draw the line of a detector that guesses.

        Returns
        -------
        display : OutlierRocDisplay
        """
        curve = RocCurveDisplay(fpr=self.fpr, tpr=self.tpr, roc_auc=self.auroc)
        curve.plot(ax=_axes(ax, self), name=self.name, plot_chance_level=chance)
        self.ax_, self.figure_, self.line_ = curve.ax_, curve.figure_, curve.line_
        _mark(self.ax_, self.operating_point, self.line_, self.name)
        self.ax_.set(
            xlabel="false positive rate (inliers called outliers)", ylabel="true positive rate (outliers found)"
        )
        return self


class OutlierPrecisionRecallDisplay(_ScoreDisplay):
    """Precision-recall curve with outliers as the positive class, for any detector, and the point of its threshold.

    Parameters
    ----------
    precision, recall : ndarray of float
        The curve.
    aupr_out : float
        Average precision.
    prevalence : float or None, default=None
        Share of outliers: the precision of a detector that guesses.
    operating_point : tuple (recall, precision) or None, default=None
        Where the threshold is.
    name : str or None, default=None
        Name for the legend.

    Attributes
    ----------
    line_ : matplotlib Artist
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, *, precision, recall, aupr_out, prevalence=None, operating_point=None, name=None):
        self.precision = precision
        self.recall = recall
        self.aupr_out = aupr_out
        self.prevalence = prevalence
        self.operating_point = operating_point
        self.name = name

    @classmethod
    def from_predictions(cls, y_true, score, *, threshold=None, name=None, ax=None, **kwargs):
        """Draw the curve of scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            -1 for outliers, any other label for inliers.
        score : array-like of shape (n_samples,)
            Higher = more normal.
        threshold : float or None, default=None
            Rows that score below it are outliers.
        name : str or None, default=None
        ax : matplotlib Axes or None, default=None
        **kwargs
            For `plot`.

        Returns
        -------
        display : OutlierPrecisionRecallDisplay
        """
        outlier, anomaly = _outliers_positive(y_true, score)
        precision, recall, _ = precision_recall_curve(outlier, anomaly)
        point = None
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

    def plot(self, ax=None, *, chance=True):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
        chance : bool, default=True
            Whether to draw the line of a detector that guesses.

        Returns
        -------
        display : OutlierPrecisionRecallDisplay
        """
        curve = PrecisionRecallDisplay(
            self.precision,
            self.recall,
            average_precision=self.aupr_out,
            prevalence_pos_label=self.prevalence,
        )
        chance = chance and self.prevalence is not None
        curve.plot(ax=_axes(ax, self), name=self.name, plot_chance_level=chance)
        self.ax_, self.figure_, self.line_ = curve.ax_, curve.figure_, curve.line_
        _mark(self.ax_, self.operating_point, self.line_, self.name)
        self.ax_.set(
            xlabel="recall (outliers found)", ylabel="precision (outliers among the alarms)", ylim=(-0.01, 1.05)
        )
        return self


class RiskCoverageDisplay:
    """Share of wrong answers against the share of rows answered, of a classifier that may abstain.

    Parameters
    ----------
    coverage, risk : ndarray of float
        The curve.
    aurc : float
        Area under it.
    operating_point : tuple (coverage, risk) or None, default=None
        Where the threshold is.
    name : str or None, default=None
        Name for the legend.

    Attributes
    ----------
    line_ : matplotlib Artist
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, *, coverage, risk, aurc, operating_point=None, name=None):
        self.coverage = coverage
        self.risk = risk
        self.aurc = aurc
        self.operating_point = operating_point
        self.name = name

    @classmethod
    def from_estimator(cls, estimator, X, y, *, name=None, ax=None):
        """Let a fitted estimator answer and draw.

        Parameters
        ----------
        estimator : fitted detector or classifier
            The answers are those of ``predict_class``, or of a classifier's ``predict``; a detector without classes
            answers "inlier" to every row. A detector's threshold is drawn.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Class of each row; -1 for outliers.
        name : str or None, default=None
            Name for the legend; None is the class of the estimator.
        ax : matplotlib Axes or None, default=None

        Returns
        -------
        display : RiskCoverageDisplay
        """
        y_pred, score, threshold = answers(estimator, X, y)
        name = type(estimator).__name__ if name is None else name
        return cls.from_predictions(y, y_pred, score, threshold=threshold, name=name, ax=ax)

    @classmethod
    def from_predictions(cls, y_true, y_pred, score, *, threshold=None, name=None, ax=None):
        """Draw the curve of answers.

        Parameters
        ----------
        y_true, y_pred, score : array-like of shape (n_samples,)
            As in `skood.metrics.risk_coverage_curve`.
        threshold : float or None, default=None
            Rows that score below it are not answered.
        name : str or None, default=None
        ax : matplotlib Axes or None, default=None

        Returns
        -------
        display : RiskCoverageDisplay
        """
        coverage, risk, score = risk_coverage_curve(y_true, y_pred, score)
        point = None
        if threshold is not None and (score >= threshold).any():
            last = np.flatnonzero(score >= threshold)[-1]
            point = (float(coverage[last]), float(risk[last]))
        area = float(np.sum(np.diff(coverage, prepend=0) * risk))
        return cls(coverage=coverage, risk=risk, aurc=area, operating_point=point, name=name).plot(ax=ax)

    def plot(self, ax=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None

        Returns
        -------
        display : RiskCoverageDisplay
        """
        self.ax_ = _axes(ax, self)
        self.figure_ = self.ax_.figure
        label = f"AURC = {self.aurc:.3f}"
        label = label if self.name is None else f"{self.name} ({label})"
        (self.line_,) = self.ax_.plot(self.coverage, self.risk, drawstyle="steps-pre", label=label)
        _mark(self.ax_, self.operating_point, self.line_, self.name)
        self.ax_.set(
            xlabel="coverage (rows answered)", ylabel="risk (wrong among them; outliers always are)", xlim=(0, 1)
        )
        self.ax_.set_ylim(bottom=0)
        return self


def _mark(ax, point, line, name) -> None:
    if point is not None:
        label = f"threshold of {name}" if name else "threshold"
        ax.plot(*point, "o", color=line.get_color(), markeredgecolor=_THRESHOLD, label=label, zorder=3)
    ax.legend()


def save_mean_auroc(results: pd.DataFrame, path: str | Path) -> None:
    """Draw the mean AUROC of each detector as bars, with a dot for each data set.

    Parameters
    ----------
    results : DataFrame
        As `skood.compare_detectors` returns it.
    path : str or Path
        Image file to write.
    """
    from matplotlib.figure import Figure

    by_dataset = results.groupby(["detector", "dataset"], sort=False)["auroc"].mean().unstack()
    mean = by_dataset.mean(axis=1).sort_values()
    figure = Figure(figsize=(7, 1 + 0.5 * len(mean)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(mean.index, mean, color=_INLIERS, alpha=0.5)
    for place, detector in enumerate(mean.index):
        values = by_dataset.loc[detector]
        axes.plot(values, np.full(len(values), place), "o", color="black", markersize=3)
        if np.isfinite(mean[detector]):
            axes.text(0.005, place, f"{mean[detector]:.3f}", va="center")
    axes.axvline(0.5, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="AUROC: mean over data sets (bar) and each data set (dots); 0.5 is chance", xlim=(0, 1))
    figure.savefig(path, dpi=120)
