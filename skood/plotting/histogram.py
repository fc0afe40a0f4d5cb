"""Draw the distribution of scores; public in `skood.plotting`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from ..estimator.labels import Marker
from ..metrics.base import outliers_positive
from .base import ScoreDisplay
from .drawing import INLIERS, OUTLIERS, THRESHOLD, axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ScoreHistogramDisplay(ScoreDisplay):
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
        outlier_label: Marker = -1,
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
        outlier_label : number, str, bool, or array-like of these, default=-1
            The label in y_true that marks outliers, or several.
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
        outlier, anomaly = outliers_positive(y_true, score, outlier_label)
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
        kinds = ((self.inlier_score, INLIERS, "inliers"), (self.outlier_score, OUTLIERS, "outliers (positive)"))
        for values, color, label in kinds:
            shares = np.full(len(values), 1 / max(1, len(values)))
            clipped = np.clip(values, edges[0], edges[-1])
            self.ax_.hist(clipped, edges.tolist(), weights=shares, color=color, alpha=0.6, label=label)
        if self.threshold is not None:
            self.ax_.axvline(self.threshold, color=THRESHOLD, linestyle="--", linewidth=1, label="threshold")
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
