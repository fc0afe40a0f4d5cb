"""The scikit-learn contract of every detector, written once; and the training of those that train a network."""

from __future__ import annotations

import math
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from numbers import Integral, Real

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from ._validation import check_values, is_deep_list, resolve_image_shape
from .batches import TrainingRows, chunks, n_batches, rows_a_chunk
from .labels import check_labels, marks_outlier
from .optim import OPTIMIZERS
from .thresholds import displace, find_offset

# Rows on which contamination="auto" sets the threshold, at most.
_DISPLACED_ROWS = 1000


class Detector(OutlierMixin, BaseEstimator, metaclass=ABCMeta):
    """What is the same for every detector, however it comes by its scores: rows, labels, threshold.

    A subclass has the parameters ``contamination``, ``image_shape`` and ``outlier_label``, supplies ``fit`` and
    ``_scores(X, rows)``, the scores of validated rows, and may override

    - ``_encode_labels(y, n_rows)``: the classes of the in-distribution rows as numbers;
    - ``_represent(chunk)``: what a row looks like to the module (scaling, say);
    - ``_auto_offset(X, rows, seed)``: the threshold that ``contamination="auto"`` stands for;
    - ``_displaced_quantile``: of which displaced rows' scores ``contamination="auto"`` is, unless overridden.
    """

    _parameter_constraints: dict = {
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "image_shape": [tuple, list, None],
        "outlier_label": [Real, str],
    }
    _displaced_quantile = 0.1

    # ------------------------------------------------------------------------------------------------ for a method

    @abstractmethod
    def _scores(self, X: np.ndarray, rows: np.ndarray | None = None, represent: Callable | None = None) -> np.ndarray:
        """Scores of validated rows, or of those at the indices ``rows``; ``represent`` stands in for `_represent`."""

    def _encode_labels(self, y: np.ndarray | None, n_rows: int) -> np.ndarray | None:
        """Class of each in-distribution row as a number; None where there are no classes. ``y`` is without outliers."""
        return None

    def _represent(self, X: np.ndarray) -> np.ndarray:
        """What the module sees of a chunk of validated rows: images in their shape, uint8 pixels in [0, 1]."""
        if self.image_shape_ is None:
            return X
        X = X.reshape(len(X), *self.image_shape_)
        return X / np.float32(255) if X.dtype == np.uint8 else X

    def _auto_offset(self, X: np.ndarray, rows: np.ndarray | None, seed: int) -> float:
        """A quantile of the scores of in-distribution rows that are displaced as neighbours differ.

        A network scores the very rows it was trained on higher than new ones: a quantile of their scores would accuse
        most new inliers where rows are few and features many. Displaced rows stand in for new ones.
        """
        rng = np.random.RandomState(seed)
        n_rows = min(_DISPLACED_ROWS, max(100, 8 * rows_a_chunk(X)))
        chosen = np.sort(rng.permutation(len(X) if rows is None else rows)[:n_rows])
        represented = [np.asarray(self._represent(chunk), dtype=np.float64) for chunk in chunks(X, chosen)]
        represented = np.concatenate(represented)
        displaced = displace(represented.reshape(len(chosen), -1), rng).reshape(represented.shape)
        scores = self._scores(displaced, represent=as_it_is)
        return find_offset(scores, contamination=self._displaced_quantile)

    # -------------------------------------------------------------------------------------------------- public

    def fit_predict(self, X, y=None):
        """Fit on X and y, then predict X.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
            +1 for inliers, -1 for outliers.
        """
        # OutlierMixin's version would drop y.
        return self.fit(X, y).predict(X)

    def score_samples(self, X):
        """Score of each row; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
            A row's score depends neither on the other rows nor on their order or number.

        Raises
        ------
        ValueError
            If X is not as at `fit`.
        """
        check_is_fitted(self)
        return self._scores(self._check_rows(X, reset=False))

    def decision_function(self, X):
        """``score_samples(X) - offset_``: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        decision : ndarray of float64 of shape (n_samples,)
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Tell inliers from outliers.

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

    def set_threshold(self, *, contamination=None, target_fpr=None, offset=None, X=None):
        """Move the threshold without refitting; exactly one of the first three.

        Parameters
        ----------
        contamination : float in [0, 0.5] or None, default=None
            Share of the rows that are outliers; 0 for clean data.
        target_fpr : float in [0, 1) or None, default=None
            Share of the rows, all inliers, that may be called outliers.
        offset : float or None, default=None
            The threshold itself.
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), or None, default=None
            The rows to set it on. None is the in-distribution training rows, whose scores flatter: rows that were held
            out keep a promise better.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If not exactly one wish is given, or one is out of range.
        """
        check_is_fitted(self)
        scores = self.training_scores_ if X is None else self.score_samples(X)
        self.offset_ = find_offset(scores, contamination=contamination, target_fpr=target_fpr, offset=offset)
        return self

    # ------------------------------------------------------------------------------------------------- plumbing

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    def _set_offset(self, X: np.ndarray, rows: np.ndarray | None, seed: int) -> None:
        """The threshold that ``contamination`` asks for on the in-distribution ``rows`` of ``X``."""
        scores = self._scores(X, rows)
        n_bad = np.count_nonzero(~np.isfinite(scores))
        if n_bad:
            raise ValueError(
                f"{n_bad} of {len(scores)} training rows have no finite score: the network gives NaN or infinity. "
                f"Scale the features, or train with a lower learning rate."
            )
        self.training_scores_ = np.sort(scores)
        if self.contamination == "auto":
            self.offset_ = self._auto_offset(X, rows, seed)
        else:
            self.offset_ = find_offset(self.training_scores_, contamination=self.contamination)

    def _split_rows(self, y, n_rows: int) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Indices of the in-distribution rows and of the auxiliary outliers, and the former's encoded classes.

        (None, None) if all are in distribution; None where there are no classes.
        """
        if y is None:
            return None, None, self._encode_labels(None, n_rows)
        y = check_labels(y)
        if len(y) != n_rows:
            raise ValueError(f"y has {len(y)} labels, but X has {n_rows} rows; give one label a row.")
        outlier = marks_outlier(y, self.outlier_label)
        n_inliers = n_rows - np.count_nonzero(outlier)
        if n_inliers < 2:
            raise ValueError(
                f"y marks {n_rows - n_inliers} of {n_rows} rows as auxiliary outliers (y == {self.outlier_label!r}); "
                f"at least 2 in-distribution rows are needed."
            )
        if n_inliers == n_rows:
            return None, None, self._encode_labels(y, n_rows)
        rows = np.flatnonzero(~outlier)
        return rows, np.flatnonzero(outlier), self._encode_labels(y[rows], n_inliers)

    def _check_rows(self, X, reset: bool) -> np.ndarray:
        """X as an array of numbers of whatever type, its shape and its values checked."""
        if issparse(X):
            raise ValueError(f"{type(self).__name__} does not accept sparse input. Pass a dense array: X.toarray().")
        n_min = 2 if reset else 1
        if getattr(X, "ndim", 2) <= 2 and not is_deep_list(X):
            X = validate_data(self, X, reset=reset, ensure_min_samples=n_min, ensure_all_finite=False)
            shape = None
        else:
            X = check_array(X, allow_nd=True, ensure_min_samples=n_min, ensure_all_finite=False, estimator=self)
            if X.ndim != 4:
                raise ValueError(
                    f"X has shape {X.shape}. Images come as (n, C, H, W); for grey images add the axis: X[:, None]."
                )
            if 0 in X.shape:
                raise ValueError(f"X has shape {X.shape}: images without pixels.")
            shape = X.shape[1:]
        if reset:
            self._set_image_shape(X, shape)
        else:
            self._check_image_shape(X, shape)
        check_values(X)
        return X

    def _set_image_shape(self, X: np.ndarray, shape: tuple[int, ...] | None) -> None:
        given = self.image_shape
        if given is not None:
            given = resolve_image_shape(given, math.prod(X.shape[1:]))
            if shape not in (None, given):
                raise ValueError(f"X holds images of shape {shape}, but image_shape={self.image_shape}.")
        self.image_shape_ = given or shape
        if shape is not None:
            # validate_data would take the number of channels.
            self.n_features_in_ = math.prod(shape)
            self.__dict__.pop("feature_names_in_", None)
        self._uint8_images = self.image_shape_ is not None and X.dtype == np.uint8

    def _check_image_shape(self, X: np.ndarray, shape: tuple[int, ...] | None) -> None:
        if shape is not None and shape != self.image_shape_:
            expected = f"images of shape {self.image_shape_}" if self.image_shape_ else "vectors"
            raise ValueError(f"X holds images of shape {shape}, but {type(self).__name__} was fitted on {expected}.")
        if self.image_shape_ is not None and (X.dtype == np.uint8) != self._uint8_images:
            fitted, given = ("uint8", "float") if self._uint8_images else ("float", "uint8")
            raise ValueError(
                f"X holds {given} images, but {type(self).__name__} was fitted on {fitted} images. uint8 images are "
                f"scaled by 1/255 and float images are taken as they are: pass {fitted} here too."
            )


class OutlierDetector(Detector):
    """Base of the detectors that train a network.

    A method supplies

    - ``_build_module()``: the torch module, built under the fit's seed;
    - ``_loss(module, rows, **extra)``: the loss of one batch (or, for several updates a batch or several phases,
      ``_phases(n_rows)``);
    - ``_raw_score(module, rows)``: the score of a batch, higher = more normal (or ``_scores``);

    and may override, besides what `Detector` lets it,

    - ``_check_settings(n_rows, n_auxiliary)``: raise ValueError for parameters that do not go together;
    - ``_fit_representation(chunks)``: what `_represent` has to know;
    - ``_training_options()``: arguments of `skood.training.train`;
    - ``_fit_score(X, rows, auxiliary, labels)``: what the score needs besides the trained module;
    - ``_auxiliary_rows_train``: whether rows with ``y == outlier_label`` take part in training, or are left out;
    - ``_auto_steps``: optimiser steps that ``max_epochs="auto"`` aims at.

    A subclass lists the shared parameters at the end of its own and merges `_parameter_constraints`.
    """

    _parameter_constraints: dict = {
        **Detector._parameter_constraints,
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "optimizer": [StrOptions(set(OPTIMIZERS)), callable],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "callbacks": [list, tuple, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }
    _auxiliary_rows_train = False
    _auto_steps = 2000

    # ------------------------------------------------------------------------------------------------ for a method

    @abstractmethod
    def _build_module(self) -> nn.Module: ...

    @abstractmethod
    def _loss(self, module: nn.Module, rows: Tensor, **extra: Tensor) -> Tensor: ...

    def _raw_score(self, module: nn.Module, rows: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} supplies neither _raw_score nor _scores.")

    def _phases(self, n_rows: int) -> list:
        from .training import Phase, Step

        return [Phase([Step(self._loss)], self._n_epochs(n_rows), auxiliary_ratio=float(self._auxiliary_rows_train))]

    def _n_epochs(self, n_rows: int) -> int:
        """``max_epochs``; for "auto" as many as make ``_auto_steps`` optimiser steps."""
        if self.max_epochs == "auto":
            return math.ceil(self._auto_steps / n_batches(n_rows, self.batch_size))
        return self.max_epochs

    def _check_settings(self, n_rows: int, n_auxiliary: int) -> None:
        """Raise ValueError for parameters that do not go together, or with so few in-distribution or auxiliary rows."""

    def _training_options(self) -> dict:
        return {}

    def _fit_representation(self, chunks: Callable) -> None:
        """Learn from the in-distribution rows; ``chunks()`` iterates over them, represented by the base class."""

    def _fit_score(
        self, X: np.ndarray, rows: np.ndarray | None, auxiliary: np.ndarray | None, labels: np.ndarray | None
    ) -> None:
        """Learn what the score needs besides the trained module; called under the fit's seed.

        ``rows`` and ``auxiliary`` are the indices of the in-distribution rows and of the auxiliary outliers in ``X``;
        None is all, or none. ``labels`` are the encoded classes of the in-distribution rows.
        """

    # -------------------------------------------------------------------------------------------------- public

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Train the network on the in-distribution rows and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), float or uint8
            Vectors; images; or flattened images with ``image_shape``. uint8 images are scaled by 1/255.
            A memory map that is too large to be held is read in chunks.
        y : array-like of shape (n_samples,), default=None
            None takes all rows as in-distribution. Otherwise rows with ``y == outlier_label`` are auxiliary outliers
            and every other value is in distribution (0 is a label like any other).

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            If X or y is not as described, if fewer than two in-distribution rows are left, or if training diverges.
        KeyboardInterrupt
            If training was interrupted. The detector is then fitted with the epochs that were finished, if any.
        """
        from . import training

        # What an earlier fit left must not be mixed with what this one gets done before it fails.
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)
        X = self._check_rows(X, reset=True)
        rows, auxiliary, labels = self._split_rows(y, len(X))
        n_rows = len(X) if rows is None else len(rows)
        self._check_settings(n_rows, 0 if auxiliary is None else len(auxiliary))
        device = training.resolve_device(self.device)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)

        self._fit_representation(lambda: (OutlierDetector._represent(self, chunk) for chunk in chunks(X, rows)))
        auxiliary = auxiliary if self._auxiliary_rows_train else None
        data = TrainingRows(X, rows, self._represent, device, labels=labels, auxiliary=auxiliary)
        with torch.inference_mode(False), torch.enable_grad(), training.seeded(seed, device):
            module = self._build_module().to(device)
            if self.image_shape_ is not None:
                # The order in which convolutions are fastest, on CPUs too.
                module = module.to(memory_format=torch.channels_last)
            options = {
                "batch_size": self.batch_size,
                "lr": self.lr,
                "optimizer": self.optimizer,
                "precision": self.precision,
                "callbacks": self.callbacks,
                "progress": type(self).__name__ if self.verbose else None,
            }
            net = training.train(module, data, self._phases(n_rows), **options | self._training_options())
            if net.interrupted and not net.history:
                raise KeyboardInterrupt
            interrupted = net.interrupted
            self.history_, self.callbacks_ = training.trim(net)
            self.net_ = net
            self._fit_score(X, rows, auxiliary, labels)
        self._set_offset(X, rows, seed)
        if interrupted:
            training.warn_interrupted(type(self).__name__, self.history_)
            raise KeyboardInterrupt
        return self

    @property
    def module_(self) -> nn.Module:
        """The trained torch module, on the device it was trained on."""
        return self.net_.module_

    # ------------------------------------------------------------------------------------------------- plumbing

    def __getstate__(self):
        state = dict(super().__getstate__())
        # They may hold anything, open files included.
        state.pop("callbacks_", None)
        return state

    def _scores(self, X, rows=None, represent=None):
        return self._apply(self._raw_score, X, rows, represent)

    def _apply(self, function, X, rows=None, represent=None) -> np.ndarray:
        """``function(module, rows)`` over validated rows, chunk by chunk, in float64."""
        from .training import apply_in_chunks

        return apply_in_chunks(self.net_.module_, X, rows, represent or self._represent, function)


def as_it_is(X: np.ndarray) -> np.ndarray:
    """For rows that are represented already."""
    return X


def framed_like(X, values: np.ndarray):
    """``values`` with the index and the columns of ``X``, if that is a DataFrame."""
    if not (hasattr(X, "columns") and hasattr(X, "index")):
        return values
    import pandas as pd

    return pd.DataFrame(values, index=X.index, columns=X.columns)
