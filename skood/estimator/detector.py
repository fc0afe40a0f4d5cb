"""The scikit-learn contract of every detector, written once: labels, threshold, decisions."""

from __future__ import annotations

import sys
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Collection
from numbers import Real
from typing import Any, NoReturn, final

import numpy as np
import torch
from sklearn.base import OutlierMixin
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import nn

from .._sklearn import Interval, Options, StrOptions
from ..training.batches import chunks, rows_a_chunk
from .data import FitData
from .explain import around_median, by_gradients, check_captum, number_kept
from .held_out import FEW_ROWS, held_out_offset
from .labels import check_marked, find_outliers
from .offset import displace, find_offset
from .rows import RowEstimator, as_it_is, framed_like
from .tools import refuse_calibration, refuse_replaced

# Most rows on which contamination="auto" sets the threshold.
_DISPLACED_ROWS = 1000
# Share of the training rows that contamination="auto" calls outliers if rows cannot be displaced.
_TRAINING_QUANTILE = 0.1


class Detector(OutlierMixin, RowEstimator, metaclass=ABCMeta):
    """Base of every detector, whatever computes its scores: labels, threshold, decisions.

    A subclass has the parameters ``contamination``, ``image_shape`` and ``outlier_label``, supplies ``fit`` and
    ``_scores(X, indices)``, the scores of validated rows, and may override

    - ``_encode_labels(y, n_inliers)``: return the classes of the in-distribution rows as numbers;
    - ``_front_options()``: return the preprocessing before the network (a scaler, for example);
    - ``_held_out_scores(data, seed)``: return scores of in-distribution rows that the model was not fitted on;
    - ``_free_offset(data, seed)``: return the threshold for ``contamination="auto"`` if rows are too few to hold some
      out: the quantile ``_displaced_quantile`` of the scores of displaced rows;
    - ``_natural_offset()``: return the threshold for ``contamination="natural"``, and ``_has_boundary()``, if it has
      one with some settings only.
    """

    _parameter_constraints: dict = {
        **RowEstimator._parameter_constraints,
        # scikit-learn's checks refuse an interval that holds 0.
        "contamination": [StrOptions({"auto", "natural"}), Options(Real, {0}), Interval(Real, 0, 0.5, closed="right")],
        "outlier_label": [Real, str, "boolean", "array-like"],
    }
    _displaced_quantile = 0.1
    # What to do if training rows have no finite score.
    _without_score = "Scale the features, or train with a lower learning rate."
    # Training rows with scores around the median, with which `explain` compares; None if no such rows are known.
    _reference: Any = None

    # ------------------------------------------------------------------------------------------------ for a method

    @abstractmethod
    def _scores(
        self, X: np.ndarray, indices: np.ndarray | None = None, represent: Callable | None = None
    ) -> np.ndarray:
        """Return scores of validated rows, or of those at ``indices``.

        ``represent`` maps tensors of rows to the network's input; None takes the detector's own preprocessing.
        """

    def _encode_labels(self, y: np.ndarray | None, n_inliers: int) -> np.ndarray | None:
        """Return the class of each in-distribution row as a number, or None if there are no classes.

        ``y`` holds the labels of these rows alone, without those of auxiliary outliers; None if the user gave no y.
        """
        return None

    def _held_out_scores(self, data: FitData, seed: int) -> np.ndarray | None:
        """Return scores of in-distribution rows that the model was not fitted on; None if rows are too few."""
        return None

    def _has_boundary(self) -> bool:
        """Return whether the method itself defines a boundary, `_natural_offset`, with these settings and labels."""
        return type(self)._natural_offset is not Detector._natural_offset

    def _natural_offset(self) -> float | None:
        """Return the boundary that the method itself defines; None if it defines none."""
        return None

    def _refuse_boundary(self) -> NoReturn:
        raise ValueError(
            f"contamination='natural' is for methods with a boundary of their own, and {type(self).__name__} has none "
            f"with these settings and labels; set contamination='auto'."
        )

    def _auto_offset(self, data: FitData, seed: int) -> float:
        """Return the threshold below which about one in twenty new in-distribution rows scores.

        A network scores the rows it was trained on higher than new ones, the more so the fewer rows and the more
        features there are. So the threshold is set on held-out rows. If only a few rows are held out, this threshold
        varies much: then the lower of it and `_free_offset` is taken, which raises fewer false alarms.
        """
        scores = self._held_out_scores(data, seed)
        if scores is None or not np.isfinite(scores).any():
            return self._free_offset(data, seed)
        # A copy that was fitted without the one huge value may give its row no finite score: such rows rank last.
        finite = np.isfinite(scores)
        offset = self._no_higher(held_out_offset(np.where(finite, scores, scores[finite].min())))
        return min(offset, self._free_offset(data, seed)) if len(scores) < FEW_ROWS else offset

    def _no_higher(self, offset: float) -> float:
        """Return a threshold that was set on scores of copies, or the one for the training rows if that is lower.

        Copies may score on another scale. A threshold that calls many training rows outliers, which score higher than
        new ones, calls still more of these; and all training rows, if they are alike.
        """
        return min(offset, held_out_offset(self.training_scores_))

    def _free_offset(self, data: FitData, seed: int) -> float:
        """Return a low quantile of the scores of rows that stand in for new ones, which costs no further fit.

        For vectors these are displaced rows, see `displace`. Displaced images look like no images, and every score
        calls them outliers: there the training rows themselves are used.
        """
        rng = np.random.RandomState(seed)
        n_rows = min(_DISPLACED_ROWS, max(100, 8 * rows_a_chunk(data.X)))
        chosen = np.sort(rng.permutation(data.all_inlier_indices())[:n_rows])
        parts = (self._represented(chunk).astype(np.float64) for chunk in chunks(data.X, chosen))
        first = next(parts)
        if first.ndim != 2:
            return find_offset(self.training_scores_, contamination=_TRAINING_QUANTILE)
        represented = [first, *parts]
        displaced = displace(np.concatenate(represented), rng)
        return find_offset(self._scores(displaced, represent=as_it_is), contamination=self._displaced_quantile)

    @abstractmethod
    def _scorer(self, score: str) -> nn.Module:
        """Return a module that maps rows to the result of the method named ``score``, of a copy of this detector."""

    def _rows_and_scores(self, X: Any) -> tuple[Any, np.ndarray]:
        """Return validated rows before any preprocessing, as the module of `_scorer` takes them, and their scores.

        Rows are validated once, so that a warning is given once.
        """
        rows = self._check_rows(X, reset=False)
        return rows, self._scores(rows)

    def _contributions(self, rows: Any, scores: np.ndarray, normal: Any, median: float) -> np.ndarray:
        """Return what each feature adds to the scores of rows, as `explain` does, in the shape of the rows."""
        check_captum()
        # The caller may be in inference mode, and tensors that are copied there take no gradients.
        with torch.inference_mode(False):
            module = self._scorer("_raw_score")
        low, high = np.quantile(self.training_scores_, [0.25, 0.75])
        return by_gradients(module, rows, scores, normal, median, float(high - low))

    # -------------------------------------------------------------------------------------------------- public

    def fit_predict(self, X, y=None, **fit_params):
        """Fit on X and y, then predict X.

        Parameters
        ----------
        X, y, **fit_params
            As in `fit`.

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
            +1 for inliers, -1 for outliers.
        """
        # OutlierMixin's version would drop y.
        return self.fit(X, y, **fit_params).predict(X)

    @final
    def score_samples(self, X):
        """Return the score of each row; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
            A row's score is the same to the last bit alone, among any other rows and in any order.

        Raises
        ------
        ValueError
            If X is not as at `fit`.
        """
        check_is_fitted(self)
        return self._scores(self._check_rows(X, reset=False))

    @final
    def decision_function(self, X):
        """Return ``score_samples(X) - offset_``: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        decision : ndarray of float64 of shape (n_samples,)
        """
        refuse_calibration()
        return self.score_samples(X) - self.offset_

    @final
    def predict(self, X):
        """Return +1 for inliers and -1 for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
            +1 for inliers, -1 for outliers.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def to_torch(self) -> nn.Module:
        """Return the fitted detector as one torch module that maps rows to scores.

        Use it where scikit-learn is not installed, or for gradients of scores with respect to rows. It is a copy:
        moving or changing it leaves the detector as it is. `score_samples` runs the same computation in blocks of a
        fixed number of rows; in other batches the module's scores may differ by rounding in single precision.

        Returns
        -------
        module : torch.nn.Module
            In evaluation mode, on the device of the detector. It takes a tensor of rows of the kind the detector was
            fitted on, (n_samples, n_features) or (n_samples, C, H, W), as float32 or float64, or as uint8 if it was
            fitted on uint8 images. It returns scores of shape (n_samples,) as float64 (float32 on MPS); higher = more
            normal.

        Raises
        ------
        ValueError
            If a part of the detector is not a torch module.

        Examples
        --------
        >>> import numpy as np
        >>> import torch
        >>> from skood import DUMDetector
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> detector = DUMDetector(max_epochs=5, random_state=0).fit(X)
        >>> scores = detector.to_torch()(torch.tensor(X))
        >>> np.allclose(scores, detector.score_samples(X), atol=1e-4)
        True
        """
        check_is_fitted(self)
        return self._scorer("_raw_score")

    @final
    def explain(self, X, *, reference=None):
        """Return what each feature, or each pixel, adds to the score of a row: why is this row an outlier?

        The contributions of a row add up to ``score_samples(X) - median(training_scores_)``. As scores are higher for
        more normal rows, a feature that makes a row an outlier has a negative contribution: the most negative one
        belongs to the most unusual feature.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.
        reference : array-like like X, or None, default=None
            Normal rows to compare with; None takes those that `fit` keeps. From these, the rows are used whose scores
            are nearest to the training rows' median, from either side of it.

        Returns
        -------
        contributions : ndarray of float64 of shape (n_samples, n_features) or (n_samples, H, W), or DataFrame
            In units of the score. For images, flattened ones too, these are maps, summed over the channels. For vectors
            in a DataFrame, it is a DataFrame with the same columns and index.

        Raises
        ------
        ValueError
            If X is not as at `fit`; if the detector has no rows to compare with, because it was loaded from a file of
            adapters alone, and ``reference`` is None; or if ``reference`` has no rows on one side of the median.
        ImportError
            If Captum is missing: ``pip install "skood[explain]"``.

        Warns
        -----
        RuntimeWarning
            If the contributions of some rows of many features miss more than a tenth of their sum, because the score
            jumps.

        Notes
        -----
        Contributions are integrated gradients [1]_, computed by Captum: the gradient of the score with respect to the
        features, averaged over the straight line from a baseline to the row explained, times the difference of the two.
        The baselines of a row are up to 8 of the (up to 64) training rows that `fit` keeps: the 4 nearest to it with
        scores on either side of the median, weighted such that the mean of their scores is the median; if none scores
        above it, because most rows share the highest score, the 4 nearest of those. A line has 16 points; 64 or 256 if
        the contributions otherwise miss their sum by more than 1 % of it or, where a score hardly differs from the
        median, of the interquartile range of ``training_scores_``. A remaining gap is distributed over the features in
        proportion to the sizes of their contributions.

        An `OODScorer` around a model that is not a torch module samples Shapley values instead, which needs no Captum:
        columns of each baseline are replaced one after the other, in four orders. The same explains rows of up to 256
        features whose gradients leave a tenth unexplained, because the score jumps (as "ash_p" does).

        A row's contributions are the same alone and among any others. They cost some hundred times as much as its
        score. :doc:`/explaining` compares them with other methods, SHAP among them.

        References
        ----------
        .. [1] Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.

        Examples
        --------
        >>> import numpy as np
        >>> from skood import DUMDetector
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> detector = DUMDetector(max_epochs=10, random_state=0).fit(X)
        >>> odd = np.array([[0.0, 9.0, 0.0]])
        >>> contributions = detector.explain(odd)
        >>> int(contributions[0].argmin())
        1
        >>> np.allclose(contributions.sum(1), detector.score_samples(odd) - np.median(detector.training_scores_))
        True
        """
        check_is_fitted(self)
        rows, scores = self._rows_and_scores(X)
        normal, median = self._reference, float(np.median(self.training_scores_))
        if reference is not None:
            normal = self._around_median(*self._rows_and_scores(reference), median)
        if normal is None:
            raise ValueError(
                f"reference=None, but this {type(self).__name__} keeps no training rows to compare with, because it "
                f"was loaded without them. Pass normal rows: explain(X, reference=rows)."
            )
        shares = self._contributions(rows, scores, normal, median)
        if self.image_shape_ is not None:
            return shares.reshape(len(shares), *self.image_shape_).sum(1)
        return framed_like(X, shares)

    def set_threshold(self, *, contamination=None, target_fpr=None, offset=None, X=None):
        """Move the threshold without refitting; give exactly one of the first three parameters.

        Parameters
        ----------
        contamination : float in [0, 0.5] or None, default=None
            Share of the rows that are outliers; 0 for clean data.
        target_fpr : float in [0, 1) or None, default=None
            Share of the rows, all inliers, that may be called outliers.
        offset : float or None, default=None
            The threshold itself.
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), or None, default=None
            The rows to set the threshold on. None takes the in-distribution training rows; these score higher than new
            rows, so held-out rows give a better threshold.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If not exactly one of the three is given, or it is out of range.
        """
        check_is_fitted(self)
        scores = self.training_scores_ if X is None else self.score_samples(X)
        self.offset_ = find_offset(scores, contamination=contamination, target_fpr=target_fpr, offset=offset)
        return self

    # ------------------------------------------------------------------------------------------------- plumbing

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    def _set_offset(self, data: FitData, seed: int, new_rows: bool = False) -> None:
        """Set the threshold that ``contamination`` asks for on the in-distribution rows.

        ``new_rows`` says that the model was not fitted on these rows, so that they can serve as held-out rows.
        """
        scores = self._finite_scores(data)
        self.training_scores_ = np.sort(scores)
        rows, indices = data.before_all(), data.all_inlier_indices()
        self._reference = self._around_median(rows, scores, float(np.median(scores)), indices)
        self._set_threshold(data, seed, new_rows)

    def _set_threshold(self, data: FitData, seed: int, new_rows: bool) -> None:
        """Set ``offset_`` by ``training_scores_``; see `_set_offset`."""
        if self.contamination == "auto":
            self.offset_ = held_out_offset(self.training_scores_) if new_rows else self._auto_offset(data, seed)
        elif self.contamination == "natural":
            offset = self._natural_offset()
            if offset is None:
                self._refuse_boundary()
            self.offset_ = offset
        else:
            self.offset_ = find_offset(self.training_scores_, contamination=self.contamination)

    def _finite_scores(self, data: FitData) -> np.ndarray:
        """Return the scores of the in-distribution rows; raise ValueError if one is not finite."""
        scores = self._scores(data.X, data.inlier_indices)
        n_bad = np.count_nonzero(~np.isfinite(scores))
        if n_bad:
            raise ValueError(
                f"{n_bad} of {len(scores)} training rows have no finite score: the network gives NaN or infinity. "
                f"{self._without_score}"
            )
        return scores

    def _around_median(self, rows: Any, scores: np.ndarray, median: float, indices: np.ndarray | None = None) -> Any:
        """Return a copy of a few rows, or of those at ``indices``, with scores around the median."""
        if not scores.min() <= median <= scores.max():
            raise ValueError(
                f"reference has rows on one side of the training rows' median score, {median:.3g}, only: they score "
                f"from {scores.min():.3g} to {scores.max():.3g}. Pass rows as normal as the training rows."
            )
        first = rows[0] if isinstance(rows, np.ndarray) else None
        # Rows of an array of objects, such as texts, are no arrays.
        n_bytes = 0 if first is None else getattr(first, "nbytes", sys.getsizeof(first))
        chosen = np.sort(around_median(scores, median, number_kept(n_bytes)))
        return _safe_indexing(rows, chosen if indices is None else indices[chosen])

    def _forget(self) -> None:
        super()._forget()
        self._reference = None

    def _read_labels(self, X: np.ndarray, y, known_classes: Collection = (), encode: Callable | None = None) -> FitData:
        """Return the rows with what the labels say of them; warn of labels that are likely misread.

        ``known_classes`` are the classes of an earlier fit, if any. ``encode`` turns labels into numbers; None takes
        ``_encode_labels``.
        """
        n_rows, encode = _num_samples(X), encode or self._encode_labels
        if y is None:
            return FitData(X, codes=encode(None, n_rows))
        y, outlier = find_outliers(y, n_rows, self.outlier_label)
        refuse_replaced(self, y, self.outlier_label)
        if not outlier.any():
            codes = encode(y, n_rows)
            # Without codes nobody reads the labels as classes, so they were given to mark outliers.
            check_marked(y, outlier, self.outlier_label, classes=None if codes is None else known_classes)
            return FitData(X, codes=codes)
        inliers = np.flatnonzero(~outlier)
        return FitData(X, inliers, np.flatnonzero(outlier), encode(y[inliers], len(inliers)))
