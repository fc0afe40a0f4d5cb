"""The base of displays of a detector's scores: they are scored, and its threshold is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import _safe_indexing

from ..estimator.labels import Marker
from ..estimator.wrapper import inner_attribute, scores_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ScoreDisplay:
    """Base class of the displays of a detector's scores; a subclass says how to draw them."""

    @classmethod
    def from_predictions(cls, y_true: ArrayLike, score: ArrayLike, **kwargs: Any) -> Self:
        """Draw scores; each subclass says how."""
        raise NotImplementedError

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
        **kwargs: Any,
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
        outlier_label : number, str, bool, or array-like of these, default=-1
            The label in y that marks outliers, or several.
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
        threshold = threshold_of(estimator, X, score)
        name = type(estimator).__name__ if name is None else name
        return cls.from_predictions(
            y, score, threshold=threshold, outlier_label=outlier_label, name=name, ax=ax, **kwargs
        )


def threshold_of(estimator: Any, X: Any, score: np.ndarray) -> float | None:
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
