"""Turn scores into decisions: thresholds and conformal p-values, around detectors of any make."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Self

import numpy as np
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import _num_samples, check_is_fitted

from ._warn import warn_user
from .estimator.offset import find_offset
from .estimator.tools import refuse_calibration
from .estimator.wrapper import DetectorWrapper, predicts_classes, scores_of

__all__ = ["ConformalDetector", "ThresholdedDetector", "find_offset"]


class ThresholdedDetector(DetectorWrapper):
    """Give any detector a threshold that can be moved without refitting.

    Parameters
    ----------
    estimator : detector
        A detector of scikit-learn, skood or any other make, with ``score_samples`` or ``decision_function``, higher =
        more normal. `fit` fits a clone of it. With a detector that is fitted already, call `set_threshold` instead of
        `fit`, or wrap it in ``sklearn.frozen.FrozenEstimator``, which `fit` leaves as it is. The detector's own
        threshold is not used: with ``contamination=0`` a skood detector saves the extra fits that set one.
    contamination : float in [0, 0.5] or None, default=None
        Share of the training rows that are outliers. None means 0, or that ``target_fpr`` sets the threshold.
    target_fpr : float in [0, 1) or None, default=None
        Largest share of the inlier training rows that may be called outliers.
    outlier_label : number, str, bool, list of these, or None, default=None
        The label that marks outliers in y, or several. None takes the detector's own, or -1 if it has none. A label
        that differs from the detector's own is refused.

    Attributes
    ----------
    estimator_ : detector
        The fitted detector.
    offset_ : float
        The threshold: ``decision_function(X) = score_samples(X) - offset_``.
    training_scores_ : ndarray of float64 of shape (n_inliers,)
        Scores of the inlier training rows, ascending.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import IsolationForest
    >>> from skood import ThresholdedDetector
    >>> X = np.random.default_rng(0).normal(size=(400, 2))
    >>> detector = ThresholdedDetector(IsolationForest(random_state=0)).fit(X[:200])
    >>> int((detector.predict(X[:200]) == -1).sum())
    0
    >>> detector = detector.set_threshold(target_fpr=0.05, X=X[200:])
    >>> int((detector.predict(X[200:]) == -1).sum())
    10
    """

    def __init__(self, estimator, *, contamination=None, target_fpr=None, outlier_label=None):
        self.estimator = estimator
        self.contamination = contamination
        self.target_fpr = target_fpr
        self.outlier_label = outlier_label

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the detector and set the threshold on the scores of the inlier rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Passed to the detector's ``fit``. The threshold is set without the rows with ``y == outlier_label``.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If ``contamination`` and ``target_fpr`` are both given, one is out of range, there are no inliers, or
            ``outlier_label`` is not the detector's.

        Warns
        -----
        LabelWarning
            If y marks no row and is likely misread.
        """
        contamination = 0 if self.contamination is None and self.target_fpr is None else self.contamination
        wish = {"contamination": contamination, "target_fpr": self.target_fpr}
        # Parameters out of range are refused before the detector is fitted, which may take long.
        find_offset([0.0], **wish)
        X, y, rows = self._inliers(X, y)
        fitted = self._fitted_clone(X, y)
        scores = np.sort(scores_of(fitted, _safe_indexing(X, rows)))
        self.offset_ = find_offset(scores, **wish)
        self.estimator_, self.training_scores_ = fitted, scores
        return self

    def set_threshold(
        self,
        *,
        contamination: float | None = None,
        target_fpr: float | None = None,
        offset: float | None = None,
        X: Any = None,
    ) -> Self:
        """Move the threshold without refitting. Give exactly one of the first three parameters.

        Parameters
        ----------
        contamination : float in [0, 0.5] or None, default=None
            Share of the rows that are outliers; 0 for clean data.
        target_fpr : float in [0, 1) or None, default=None
            Largest share of the rows, all of them inliers, that may be called outliers.
        offset : float or None, default=None
            The threshold itself.
        X : array-like of shape (n_samples, n_features) or None, default=None
            Rows to set the threshold on. None takes the inlier training rows. A detector scores these higher than new
            rows, so a threshold set on held-out rows is more reliable. With ``target_fpr`` f, floor(f n) of n held-out
            rows score lower, and of new inliers, on average over all draws, at most a share (floor(f n) + 1) / (n + 1),
            which may be more than f: `ConformalDetector` keeps to f.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If not exactly one of the three is given, one is out of range, or the detector was fitted elsewhere and X
            is None.
        """
        if hasattr(self, "estimator_"):
            detector = self.estimator_
        else:
            detector = self.estimator
            _refuse_unfitted(detector)
        if X is not None:
            scores = scores_of(detector, X)
        elif offset is None and not hasattr(self, "training_scores_"):
            raise ValueError("X is None, but the detector was fitted elsewhere: pass rows X to set the threshold on.")
        else:
            scores = getattr(self, "training_scores_", np.empty(0))
        self.offset_ = find_offset(scores, contamination=contamination, target_fpr=target_fpr, offset=offset)
        self.estimator_ = detector
        return self


class ConformalDetector(DetectorWrapper):
    """Give any detector conformal p-values, and decisions with a bound on false alarms.

    `fit` holds part of the inlier rows out of the detector's fit, to calibrate on. A new row's p-value is

        p(x) = (1 + number of calibration rows that score no higher than x) / (n_calibration + 1).

    For a new row exchangeable with the calibration rows, P(p <= alpha) <= alpha. This probability is marginal: it is
    over the draw of calibration rows and new row together, not for given calibration rows, nor for each kind of row.

    Parameters
    ----------
    estimator : detector
        Any detector with ``score_samples`` or ``decision_function``, higher = more normal. `fit` fits a clone of it on
        the rows that are not held out. A detector in ``sklearn.frozen.FrozenEstimator`` stays as it is, and all inlier
        rows calibrate: it must not have been fitted on them. The detector's own threshold is not used: with
        ``contamination=0`` a skood detector saves the extra fits that set one.
    alpha : float in (0, 1), default=0.05
        `predict` calls rows with p <= alpha outliers.
    calibration_size : float in (0, 1), default=0.5
        Share of the inlier rows that are held out, drawn at random. Of a rare class all may be.
    random_state : int, RandomState instance or None, default=None
        Seeds the choice of the calibration rows.
    outlier_label : number, str, bool, list of these, or None, default=None
        The label that marks outliers in y, or several. None takes the detector's own, or -1 if it has none. A label
        that differs from the detector's own is refused.

    Attributes
    ----------
    estimator_ : detector
        The fitted detector.
    calibration_scores_ : ndarray of float64 of shape (n_calibration,)
        Scores of the calibration rows, ascending.
    offset_ : float
        The threshold: rows that score below it have p <= alpha.

    References
    ----------
    .. [1] Bates, Candes, Lei, Romano and Sesia, "Testing for outliers with conformal p-values", Annals of Statistics
       51(1), 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import IsolationForest
    >>> from skood import ConformalDetector
    >>> X = np.random.default_rng(0).normal(size=(398, 2))
    >>> detector = ConformalDetector(IsolationForest(random_state=0), random_state=0).fit(X)
    >>> detector.p_values([[0.0, 0.0], [9.0, 9.0]])
    array([0.84 , 0.005])
    """

    def __init__(self, estimator, *, alpha=0.05, calibration_size=0.5, random_state=None, outlier_label=None):
        self.estimator = estimator
        self.alpha = alpha
        self.calibration_size = calibration_size
        self.random_state = random_state
        self.outlier_label = outlier_label

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the detector on one part of the inlier rows and calibrate on the other.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Passed to the detector's ``fit``. Rows with ``y == outlier_label`` do not calibrate.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If a parameter is out of range, there are too few inliers to call any row an outlier at level alpha or to
            fit the detector on, or ``outlier_label`` is not the detector's.

        Warns
        -----
        LabelWarning
            If y marks no row and is likely misread.
        RuntimeWarning
            If the detector learns classes, and all rows of one are held out.
        """
        for name in ("alpha", "calibration_size"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 < float(value) < 1):
                raise ValueError(f"{name}={value!r} must be a number in (0, 1).")
        X, y, rows = self._inliers(X, y)
        if isinstance(self.estimator, FrozenEstimator):
            kept, calibration = None, rows
        else:
            if len(rows) < 3:
                raise ValueError(
                    f"n_samples={len(rows)} inliers cannot be split into rows to fit and rows to calibrate on; give at "
                    "least 3."
                )
            n_calibration = math.ceil(self.calibration_size * len(rows))
            n_proper = len(rows) - n_calibration
            if n_proper < 2:
                raise ValueError(
                    f"calibration_size={self.calibration_size} leaves {n_proper} of {len(rows)} inliers to fit the "
                    f"detector on, which needs at least 2; choose a smaller one."
                )
            rng = check_random_state(self.random_state)
            # Not stratified by class: only rows drawn at random are exchangeable with new ones.
            proper, calibration = train_test_split(rows, test_size=n_calibration, random_state=rng)
            kept = np.sort(proper) if y is None else np.setdiff1d(np.arange(_num_samples(y)), calibration)
        # p <= alpha for a score below the rank-th smallest calibration score.
        rank = math.floor(self.alpha * (len(calibration) + 1) + 1e-9)
        if rank == 0:
            raise ValueError(
                f"alpha={self.alpha} can call no row an outlier with {len(calibration)} calibration rows; give "
                f"{math.ceil(1 / self.alpha - 1e-9) - 1} of them, or a larger alpha."
            )
        if kept is None:
            fitted = clone(self.estimator)
        else:
            if y is not None and predicts_classes(self.estimator):
                self._warn_of_lost_classes(y[calibration], y[kept])
            fitted = self._fitted_clone(_safe_indexing(X, kept), None if y is None else _safe_indexing(y, kept))
        scores = np.sort(_ranked(scores_of(fitted, _safe_indexing(X, calibration))))
        self.estimator_, self.calibration_scores_, self.offset_ = fitted, scores, float(scores[rank - 1])
        return self

    def _warn_of_lost_classes(self, calibration: np.ndarray, kept: np.ndarray) -> None:
        """Warn if all rows of a class are held out, so that the detector does not learn it."""
        known = set(kept.tolist())
        lost = [label for label in dict.fromkeys(calibration.tolist()) if label not in known]
        if lost:
            named = ", ".join(map(repr, lost[:5])) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
            warn_user(
                f"all rows of class {named} are held out to calibrate on, so that the detector does not learn the "
                f"class. Choose a smaller calibration_size; or fit the detector on other rows first, and pass it in a "
                f"sklearn.frozen.FrozenEstimator.",
                RuntimeWarning,
            )

    def decision_function(self, X: Any) -> np.ndarray:
        """Return ``score_samples(X) - offset_``: negative for outliers, the rows with p <= alpha.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        decision : ndarray of float64 of shape (n_samples,)
            0 for a score that equals ``offset_``, infinite or not; minus infinity for a score that is NaN and ranks
            below ``offset_``.
        """
        check_is_fitted(self)
        refuse_calibration()
        scores = _ranked(self.score_samples(X))
        # The difference of two equal infinite scores would be NaN, and NaN would be an outlier.
        return np.subtract(scores, self.offset_, out=np.zeros_like(scores), where=scores != self.offset_)

    def p_values(self, X: Any) -> np.ndarray:
        """Return the conformal p-value of each row; small = anomalous.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        p : ndarray of float64 of shape (n_samples,)
            Multiples of 1 / (n_calibration + 1), at least one of them. A row whose score is NaN ranks below all others.
        """
        check_is_fitted(self)
        below = np.searchsorted(self.calibration_scores_, _ranked(self.score_samples(X)), side="right")
        return (1 + below) / (len(self.calibration_scores_) + 1)

    def predict_fdr(self, X: Any, fdr: float = 0.1) -> np.ndarray:
        """Tell inliers from outliers in a batch, with a bound on the share of false alarms among the alarms.

        This is the Benjamini-Hochberg procedure on the p-values of the batch. If its inliers are exchangeable with the
        calibration rows, the expected share of inliers among the rows called outliers is at most ``fdr`` (Bates et
        al.).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        fdr : float in (0, 1), default=0.1
            Bound on the expected share of inliers among the rows called outliers.

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
            +1 for inliers, -1 for outliers. A row's label depends on the other rows of the batch.

        Raises
        ------
        ValueError
            If ``fdr`` is out of range.
        """
        if not (isinstance(fdr, Real) and 0 < fdr < 1):
            raise ValueError(f"fdr={fdr!r} must be in (0, 1).")
        adjusted = stats.false_discovery_control(self.p_values(X), method="bh")
        # The tolerance is for p-values that meet the bound exactly: 17 / 500 * 25 / 17 comes out above .05.
        return np.where(adjusted <= fdr * (1 + 1e-9), -1, 1)


def _refuse_unfitted(detector: Any) -> None:
    """Raise a NotFittedError if a detector is not fitted; one of another make, which does not tell, may be."""
    try:
        check_is_fitted(detector)
    except NotFittedError:
        # scikit-learn looks for names that end in an underscore. Others may keep under any name what they learnt.
        if vars(detector).keys() <= detector.get_params(deep=False).keys():
            raise
    except (AttributeError, TypeError):
        # It is no estimator of scikit-learn.
        return


def _ranked(scores: np.ndarray) -> np.ndarray:
    """Return scores with minus infinity for NaN, which numpy would sort above all numbers."""
    return np.where(np.isnan(scores), -np.inf, scores)
