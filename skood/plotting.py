"""Draw scores, in scikit-learn's Display conventions; needs matplotlib (``pip install 'skood[plot]'``).

Every display takes any detector and shows its threshold. In curves outliers (y == -1) are the positive class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
from sklearn.utils import _safe_indexing, check_consistent_length, check_random_state

from ._drawing import as_images, axes_for, shades_of
from ._explanation_display import ExplanationDisplay
from .estimator.wrapper import inner_attribute, scores_of
from .metrics import _outliers_positive, answers, risk_coverage_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "CertaintyGalleryDisplay",
    "ExplanationDisplay",
    "OutlierPrecisionRecallDisplay",
    "OutlierRocDisplay",
    "RiskCoverageDisplay",
    "ScoreHistogramDisplay",
]

_INLIERS, _OUTLIERS, _THRESHOLD = "tab:blue", "tab:orange", "black"


class _ScoreDisplay:
    """Base class of the displays of a detector's scores; a subclass says how to draw them."""

    @classmethod
    def from_predictions(cls, y_true: ArrayLike, score: ArrayLike, **kwargs: Any) -> Self:
        """Draw scores; each subclass says how."""
        raise NotImplementedError

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: ArrayLike, *, name: str | None = None, ax: Axes | None = None, **kwargs: Any
    ) -> Self:
        """Score rows with a fitted detector and draw the scores.

        Parameters
        ----------
        estimator : fitted detector
            Anything with ``score_samples`` or ``decision_function``, higher = more normal. Its threshold, where its
            decision function is zero, is drawn.
        X : array-like of shape (n_samples, n_features)
            The rows to score.
        y : array-like of shape (n_samples,)
            -1 for outliers, any other label for inliers.
        name : str or None, default=None
            Name of the detector, for the legend or the title. With None it is the name of the estimator's class.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : object of this class
            The display, drawn.
        """
        score = scores_of(estimator, X)
        threshold = _threshold(estimator, X, score)
        name = type(estimator).__name__ if name is None else name
        return cls.from_predictions(y, score, threshold=threshold, name=name, ax=ax, **kwargs)


def _threshold(estimator: Any, X: Any, score: np.ndarray) -> float | None:
    """Return the score below which the estimator calls a row an outlier, or None if it has no threshold."""
    # In scikit-learn decision_function = score_samples - offset_, so the threshold is 0 for the former, offset_ for the
    # latter. `scores_of` prefers score_samples.
    if not hasattr(estimator, "score_samples"):
        return 0.0
    if not hasattr(estimator, "decision_function"):
        return None
    # A Pipeline has no offset of its own.
    offset = inner_attribute(estimator, "offset_")
    if offset is None:
        # The difference is the same for every row, and least rounded where the score is smallest.
        row = int(np.argmin(np.abs(score)))
        offset = score[row] - estimator.decision_function(_safe_indexing(X, [row]))[0]
    return float(np.ravel(offset)[0])


class ScoreHistogramDisplay(_ScoreDisplay):
    """Draw histograms of the scores of inliers and of outliers, with the threshold.

    Parameters
    ----------
    inlier_score, outlier_score : ndarray of float
        The scores of the inliers and those of the outliers; higher = more normal.
    threshold : float or None, default=None
        Rows that score below it are called outliers. With None no threshold is drawn.
    name : str or None, default=None
        Title of the axes. With None there is none.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the histograms.
    figure_ : matplotlib Figure
        The figure that holds the axes.
    """

    def __init__(self, *, inlier_score, outlier_score, threshold=None, name=None):
        self.inlier_score = inlier_score
        self.outlier_score = outlier_score
        self.threshold = threshold
        self.name = name

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        score: ArrayLike,
        *,
        threshold: float | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the histograms of given scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            -1 for outliers, any other label for inliers.
        score : array-like of shape (n_samples,)
            The score of each row; higher = more normal.
        threshold : float or None, default=None
            Rows that score below it are called outliers. With None no threshold is drawn.
        name : str or None, default=None
            Title of the axes. With None there is none.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : ScoreHistogramDisplay
            The display, drawn.
        """
        outlier, anomaly = _outliers_positive(y_true, score)
        display = cls(inlier_score=-anomaly[~outlier], outlier_score=-anomaly[outlier], threshold=threshold, name=name)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, bins: int = 40, clip: float = 0.01, scale: str = "auto") -> Self:
        """Draw the histograms.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        bins : int, default=40
            Number of bins, the same ones for inliers and outliers. On the axis as drawn, all have the same width.
        clip : float in [0, 0.5), default=0.01
            This share of the lowest scores is drawn in the leftmost bin. Otherwise a few rows far out would squeeze all
            others into one bin.
        scale : {"auto", "linear", "asinh"}, default="auto"
            The axis of the scores. "asinh" is linear where most inliers are, and logarithmic on both sides. "auto"
            takes "asinh" if the scores span over 20 interquartile ranges of the inliers' scores: on a linear axis,
            inliers would fill only a bin or two.

        Returns
        -------
        display : ScoreHistogramDisplay
            This display.

        Raises
        ------
        ValueError
            If ``scale`` is none of these.
        """
        if scale not in ("auto", "linear", "asinh"):
            raise ValueError(f"scale={scale!r} must be 'auto', 'linear' or 'asinh'.")
        self.ax_ = axes_for(ax, self)
        self.figure_ = self.ax_.figure
        score = np.concatenate([self.inlier_score, self.outlier_score])
        # Only the low end is clipped: outliers can score arbitrarily low, but no row scores far above the inliers.
        low, high = np.quantile(score, [clip, 1])
        if self.threshold is not None:
            low, high = min(low, self.threshold), max(high, self.threshold)
        # Bins need a width even if all scores are equal.
        high = high if high > low else low + 1
        lower, middle, upper = np.quantile(self.inlier_score if len(self.inlier_score) else score, [0.25, 0.5, 0.75])
        width = (upper - lower) / 2
        if width > 0 and (scale == "asinh" or (scale == "auto" and high - low > 40 * width)):
            edges = self._set_asinh_axis(low, high, middle, width, bins)
        else:
            edges = np.linspace(low, high, bins + 1)
            self.ax_.ticklabel_format(axis="x", scilimits=(-3, 4))
        kinds = ((self.inlier_score, _INLIERS, "inliers"), (self.outlier_score, _OUTLIERS, "outliers (positive)"))
        for values, color, label in kinds:
            shares = np.full(len(values), 1 / max(1, len(values)))
            clipped = np.clip(values, edges[0], edges[-1])
            self.ax_.hist(clipped, edges.tolist(), weights=shares, color=color, alpha=0.6, label=label)
        if self.threshold is not None:
            self.ax_.axvline(self.threshold, color=_THRESHOLD, linestyle="--", linewidth=1, label="threshold")
        self.ax_.set(xlabel="score (higher = more normal)", ylabel="share of the rows", title=self.name)
        self.ax_.legend()
        return self

    def _set_asinh_axis(self, low: float, high: float, middle: float, width: float, bins: int) -> np.ndarray:
        """Draw scores by asinh((score - middle) / width), and return the edges of bins of equal width there."""

        def drawn(score: ArrayLike) -> np.ndarray:
            return np.arcsinh((np.asarray(score) - middle) / width)

        def scored(place: ArrayLike) -> np.ndarray:
            return middle + width * np.sinh(np.asarray(place))

        self.ax_.set_xscale("function", functions=(drawn, scored))
        edges = scored(np.linspace(drawn(low), drawn(high), bins + 1))
        # Rounding could leave the extreme scores outside of all bins.
        edges[0], edges[-1] = low, high
        ticks = edges[:: max(1, bins // 4)]
        self.ax_.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        self.ax_.minorticks_off()
        return edges


class OutlierRocDisplay(_ScoreDisplay):
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
        outlier, anomaly = _outliers_positive(y_true, score)
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


class OutlierPrecisionRecallDisplay(_ScoreDisplay):
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
        outlier, anomaly = _outliers_positive(y_true, score)
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
        cls, estimator: Any, X: Any, y: ArrayLike, *, name: str | None = None, ax: Axes | None = None
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
        name : str or None, default=None
            Name of the estimator, for the legend. With None it is the name of the estimator's class.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.

        Returns
        -------
        display : RiskCoverageDisplay
            The display, drawn.
        """
        y_pred, score, threshold = answers(estimator, X, y)
        name = type(estimator).__name__ if name is None else name
        return cls.from_predictions(y, y_pred, score, threshold=threshold, name=name, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        score: ArrayLike,
        *,
        threshold: float | None = None,
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
        name : str or None, default=None
            Name of the estimator, for the legend. With None the legend has no name.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.

        Returns
        -------
        display : RiskCoverageDisplay
            The display, drawn.
        """
        coverage, risk, score = risk_coverage_curve(y_true, y_pred, score)
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
        ax.plot(*point, "o", color=line.get_color(), markeredgecolor=_THRESHOLD, label=label, zorder=3)
    ax.legend()


class CertaintyGalleryDisplay:
    """Draw the images that a detector is most certain of, and those that it is least certain of.

    They show what a detector takes for normal: with `DUMDetector` the most certain images are the prototypes of what
    it was fitted on, the least certain ones crowded or cut off.

    Parameters
    ----------
    images : ndarray of shape (2, n_images, C, H, W), float or uint8
        The most certain images, beginning with the most certain, and the least certain, beginning with the least.
    score : ndarray of float of shape (2, n_images)
        Their scores; higher = more normal.
    rows : ndarray of int of shape (2, n_images)
        Their indices among all images, or among the views.
    threshold : float or None, default=None
        Images that score below it are called outliers: their scores are drawn in orange.
    name : str or None, default=None
        Title of the axes. With None there is none.

    Attributes
    ----------
    pictures_ : list of matplotlib AxesImage
        The images as drawn, the most certain first.
    texts_ : list of matplotlib Text
        Their scores, in the same order.
    ax_ : matplotlib Axes
        The axes with the images.
    figure_ : matplotlib Figure
        The figure that holds the axes.

    References
    ----------
    .. [1] Mike Wu and Noah Goodman, "A Simple Framework for Uncertainty in Contrastive Learning",
       arXiv:2010.02038, 2020, figures 1 to 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.plotting import CertaintyGalleryDisplay
    >>> images, score = np.random.default_rng(0).random((9, 3, 8, 8)), np.arange(9.0)
    >>> display = CertaintyGalleryDisplay.from_scores(images, score, n_images=2)
    >>> display.rows.tolist()
    [[8, 7], [0, 1]]
    """

    def __init__(self, *, images, score, rows, threshold=None, name=None):
        self.images = images
        self.score = score
        self.rows = rows
        self.threshold = threshold
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        n_images: int = 8,
        labels: ArrayLike | None = None,
        of: object = None,
        image_shape: Sequence[int] | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Score images with a fitted detector and draw the most and the least certain ones.

        Parameters
        ----------
        estimator : fitted detector
            Anything with ``score_samples`` or ``decision_function``, higher = more normal.
        X : array-like of shape (n_samples, C, H, W) or (n_samples, n_features), float or uint8
            Images as the detector takes them.
        n_images : int, default=8
            Number of the most certain images, and of the least certain ones. If X has fewer than twice as many, half of
            its images are drawn at each end.
        labels : array-like of shape (n_samples,) or None, default=None
            Class of each image; needed if ``of`` is given.
        of : object, default=None
            The class whose images are drawn. With None they are chosen among all images.
        image_shape : tuple (C, H, W) or None, default=None
            Shape of the images, if the rows of X are flattened pixels. With None it is the estimator's
            ``image_shape_``.
        name : str or None, default=None
            Title of the axes. With None it is the name of the estimator's class, followed by ``of``.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : CertaintyGalleryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If X holds no images, or fewer than two of the class ``of``.
        """
        score = scores_of(estimator, X)
        threshold = _threshold(estimator, X, score)
        if name is None:
            name = type(estimator).__name__ + ("" if of is None else f": {of}")
        images = as_images(X, estimator, image_shape)
        options: dict[str, Any] = {
            "n_images": n_images,
            "labels": labels,
            "of": of,
            "threshold": threshold,
            "name": name,
        }
        return cls.from_scores(images, score, **options, ax=ax, **kwargs)

    @classmethod
    def from_scores(
        cls,
        images: ArrayLike,
        score: ArrayLike,
        *,
        n_images: int = 8,
        labels: ArrayLike | None = None,
        of: object = None,
        threshold: float | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw images whose scores are known.

        Parameters
        ----------
        images : array-like of shape (n_samples, C, H, W), float or uint8
            The images, of one or three channels.
        score : array-like of shape (n_samples,)
            The score of each image; higher = more normal. Among images of equal scores the first one comes first.
        n_images : int, default=8
            Number of the most certain images, and of the least certain ones. If there are fewer than twice as many,
            half of the images are drawn at each end.
        labels : array-like of shape (n_samples,) or None, default=None
            Class of each image; needed if ``of`` is given.
        of : object, default=None
            The class whose images are drawn. With None they are chosen among all images.
        threshold : float or None, default=None
            Images that score below it are called outliers: their scores are drawn in orange.
        name : str or None, default=None
            Title of the axes. With None there is none.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : CertaintyGalleryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If a score is NaN, or if there are fewer than two images of the class ``of``.
        """
        images, score = as_images(images), np.asarray(score, dtype=np.float64)
        check_consistent_length(images, score)
        if np.isnan(score).any():
            raise ValueError(f"score is NaN, first in row {int(np.isnan(score).argmax())}; leave that image out.")
        if (of is None) != (labels is None):
            raise ValueError("give labels (each image's class) and of (the class to draw) together, or neither.")
        chosen = np.arange(len(images))
        if of is not None:
            check_consistent_length(images, labels)
            chosen = np.flatnonzero(np.asarray(labels) == of)
        if n_images < 1 or len(chosen) < 2:
            which = "" if of is None else f" of class {of!r}"
            raise ValueError(
                f"n_images={n_images} of {len(chosen)} images{which} cannot be drawn at each end: give n_images >= 1, "
                "and at least 2 images."
            )
        n_images = min(n_images, len(chosen) // 2)
        # Sorted twice: the reverse of a stable order would put the last of equal scores first.
        ascending = np.argsort(score[chosen], kind="stable")
        descending = np.argsort(-score[chosen], kind="stable")
        rows = chosen[np.stack([descending[:n_images], ascending[:n_images]])]
        display = cls(images=images[rows], score=score[rows], rows=rows, threshold=threshold, name=name)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_views(
        cls,
        estimator: Any,
        image: ArrayLike,
        augmentation: str | Callable = "crop-flip",
        *,
        n_views: int = 200,
        n_images: int = 8,
        image_shape: Sequence[int] | None = None,
        random_state: int | np.random.RandomState | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Score random views of one image with a fitted detector and draw the most and the least certain ones.

        Parameters
        ----------
        estimator : fitted detector
            Anything with ``score_samples`` or ``decision_function``, higher = more normal.
        image : array-like of shape (C, H, W) or (n_features,), float or uint8
            The image as the detector takes it.
        augmentation : str or callable, default="crop-flip"
            The transformation that makes the views: a key of `skood.augment.AUGMENTATIONS`, or a callable that maps a
            tensor (n, C, H, W) to one of the same shape and draws from torch's generator. It gets uint8
            images scaled to [0, 1].
        n_views : int, default=200
            Number of views that are made and scored.
        n_images : int, default=8
            Number of the most certain and of the least certain views that are drawn.
        image_shape : tuple (C, H, W) or None, default=None
            Shape of the image, if its pixels are flattened. With None it is the estimator's ``image_shape_``.
        random_state : int, RandomState instance or None, default=None
            Seeds the views. torch's generators are left as they were found.
        name : str or None, default=None
            Title of the axes. With None it begins with the name of the estimator's class.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : CertaintyGalleryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If ``augmentation`` is no key of `skood.augment.AUGMENTATIONS`, or returns images of another shape.
        """
        image = np.asarray(image)
        views = _views(as_images(image[None], estimator, image_shape)[0], augmentation, n_views, random_state)
        X = views.reshape(n_views, *image.shape)
        score = scores_of(estimator, X)
        threshold = _threshold(estimator, X, score)
        name = f"{type(estimator).__name__}: views of one image" if name is None else name
        return cls.from_scores(views, score, n_images=n_images, threshold=threshold, name=name, ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, n_columns: int = 8) -> Self:
        """Draw the images with their scores.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        n_columns : int, default=8
            Largest number of images side by side.

        Returns
        -------
        display : CertaintyGalleryDisplay
            This display.
        """
        n_images, _, height, width = self.images.shape[1:]
        n_columns = min(n_columns, n_images)
        n_lines = math.ceil(n_images / n_columns)
        # All images share one pair of axes, so that the display fits into a figure that the caller made. Lengths are in
        # widths of an image: a cell has its score below it, and the two kinds stand apart.
        across, below, apart = 1.08, 0.34, 0.25
        down = height / width + below
        # In inches: an image is 0.95 wide; what is added leaves room for the labels and the title.
        size = (0.95 * across * n_columns + 0.8, 0.95 * (2 * n_lines * down + apart) + 0.6)
        self.ax_ = axes_for(ax, self, figsize=size, layout="constrained")
        self.figure_ = self.ax_.figure
        self.pictures_, self.texts_ = [], []
        shades, centers = shades_of(self.images), []
        for kind in range(2):
            start = kind * (n_lines * down + apart)
            centers.append(start + (n_lines * down - below) / 2)
            for number in range(n_images):
                left, top = number % n_columns * across, start + number // n_columns * down
                # The vertical axis points down, so that lines of images follow each other as text does.
                extent = (left, left + 1, top + height / width, top)
                picture = self.ax_.imshow(
                    shades[kind, number], extent=extent, cmap="gray", vmin=0, vmax=1, interpolation="nearest"
                )
                score = self.score[kind, number]
                accused = self.threshold is not None and score < self.threshold
                text = self.ax_.text(
                    left + 0.5,
                    top + height / width + 0.04,
                    f"{score:#.3g}",
                    color=_OUTLIERS if accused else "black",
                    fontsize="small",
                    horizontalalignment="center",
                    verticalalignment="top",
                )
                self.pictures_.append(picture)
                self.texts_.append(text)
        bottom = 2 * n_lines * down + apart
        self.ax_.set(xlim=(-0.08, n_columns * across), ylim=(bottom, -0.08), xticks=[], title=self.name)
        self.ax_.set_yticks(centers, ["most certain", "least certain"], rotation=90, verticalalignment="center")
        accused = self.threshold is not None and (self.score < self.threshold).any()
        self.ax_.set_xlabel("score (higher = more normal)" + ("; orange: called an outlier" if accused else ""))
        self.ax_.tick_params(length=0)
        self.ax_.spines[:].set_visible(False)
        return self


def _views(image: np.ndarray, augmentation: str | Callable, n_views: int, random_state: Any) -> np.ndarray:
    """Return random views (n_views, C, H, W) of an image (C, H, W), of its dtype."""
    # Of all displays only this one needs torch, which takes a second to load.
    import torch

    from .augment import AUGMENTATIONS, augmented
    from .training.device import seeded

    if not callable(augmentation) and augmentation not in AUGMENTATIONS:
        raise ValueError(f"augmentation={augmentation!r} is neither callable nor one of {sorted(AUGMENTATIONS)}.")
    # Augmentations compute with pixels in [0, 1]; the detector gets bytes again if the image had bytes.
    bytes_ = image.dtype == np.uint8
    values = torch.from_numpy(np.asarray(image / 255 if bytes_ else image, dtype=np.float32))
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    with seeded(seed, torch.device("cpu")), torch.no_grad():
        views = augmented(values.repeat(n_views, 1, 1, 1), augmentation).numpy()
    return np.rint(255 * views.clip(0, 1)).astype(np.uint8) if bytes_ else views.astype(image.dtype)
