"""The scikit-learn contract of every detector, written once."""

from __future__ import annotations

import copy
import math
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from numbers import Integral, Real

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from .batches import TrainingRows, chunks, rows_a_chunk
from .outliers import check_labels, marks_outlier
from .thresholds import displace, find_offset

# The square of anything larger overflows float32, in which networks are trained.
LARGEST_VALUE = 1e18
_VALUES_PER_CHECK = 2**22
# Rows on which contamination="auto" sets the threshold, at most.
_DISPLACED_ROWS = 1000


class OutlierDetector(OutlierMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of the detectors: validation, training, scoring, threshold.

    A method supplies

    - ``_build_module()``: the torch module, built under the fit's seed;
    - ``_loss(module, rows, **extra)``: the loss of one batch (or, for several updates a batch, ``_steps()``);
    - ``_raw_score(module, rows)``: the score of a batch, higher = more normal;

    and may override

    - ``_check_settings(n_rows)``: raise ValueError for parameters that do not go together;
    - ``_fit_representation(chunks)`` and ``_represent(chunk)``: what a row looks like to the module (scaling, say);
    - ``_training_options(n_rows)``: arguments of `skood.training.train`;
    - ``_fit_score(X, rows)``: what the score needs besides the trained module;
    - ``_auto_offset(X, rows, seed)``: the threshold that ``contamination="auto"`` stands for;
    - ``_auxiliary_rows_train``: whether rows with ``y == outlier_label`` take part in training, or are left out.

    A subclass lists the shared parameters at the end of its own and merges `_parameter_constraints`.
    """

    _parameter_constraints: dict = {
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "optimizer": [StrOptions({"adam", "adamw", "rmsprop", "sgd"}), callable],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "image_shape": [tuple, list, None],
        "outlier_label": [Real, str],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "callbacks": [list, tuple, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }
    _auxiliary_rows_train = False

    # ------------------------------------------------------------------------------------------------ for a method

    @abstractmethod
    def _build_module(self) -> nn.Module: ...

    @abstractmethod
    def _loss(self, module: nn.Module, rows: Tensor, **extra: Tensor) -> Tensor: ...

    @abstractmethod
    def _raw_score(self, module: nn.Module, rows: Tensor) -> Tensor: ...

    def _steps(self) -> list:
        from .training import Step

        return [Step(self._loss)]

    def _check_settings(self, n_rows: int) -> None:
        """Raise ValueError for parameters that do not go together, or with so few in-distribution rows."""

    def _training_options(self, n_rows: int) -> dict:
        return {"max_epochs": self.max_epochs}

    def _fit_representation(self, chunks: Callable) -> None:
        """Learn from the in-distribution rows; ``chunks()`` iterates over them, represented by the base class."""

    def _fit_score(self, X: np.ndarray, rows: np.ndarray | None) -> None:
        """Learn what the score needs besides the trained module, from the in-distribution ``rows`` of ``X``."""

    def _represent(self, X: np.ndarray) -> np.ndarray:
        """What the module sees of a chunk of validated rows: images in their shape, uint8 pixels in [0, 1]."""
        if self.image_shape_ is None:
            return X
        X = X.reshape(len(X), *self.image_shape_)
        return X / np.float32(255) if X.dtype == np.uint8 else X

    def _auto_offset(self, X: np.ndarray, rows: np.ndarray | None, seed: int) -> float:
        """10 % quantile of the scores of in-distribution rows that are displaced as neighbours differ.

        A network scores the very rows it was trained on higher than new ones: a quantile of their scores would accuse
        most new inliers where rows are few and features many. Displaced rows stand in for new ones.
        """
        rng = np.random.RandomState(seed)
        n_rows = min(_DISPLACED_ROWS, max(100, 8 * rows_a_chunk(X)))
        chosen = np.sort(rng.permutation(len(X) if rows is None else rows)[:n_rows])
        represented = [np.asarray(self._represent(chunk), dtype=np.float64) for chunk in chunks(X, chosen)]
        represented = np.concatenate(represented)
        displaced = displace(represented.reshape(len(chosen), -1), rng).reshape(represented.shape)
        return find_offset(self._apply(self._raw_score, displaced, represent=_as_it_is), contamination=0.1)

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
        rows, auxiliary = self._split_rows(y, len(X))
        self._check_settings(len(X) if rows is None else len(rows))
        device = training.resolve_device(self.device)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)

        self._fit_representation(lambda: (OutlierDetector._represent(self, chunk) for chunk in chunks(X, rows)))
        data = TrainingRows(
            X, rows, self._represent, device, auxiliary=auxiliary if self._auxiliary_rows_train else None
        )
        with training.seeded(seed, device):
            module = self._build_module().to(device)
            options = {
                "batch_size": self.batch_size,
                "lr": self.lr,
                "optimizer": self.optimizer,
                "precision": self.precision,
                "callbacks": self.callbacks,
                "progress": type(self).__name__ if self.verbose else None,
            }
            net = training.train(module, data, self._steps(), **options | self._training_options(len(data)))
        if net.interrupted and not net.history:
            raise KeyboardInterrupt
        interrupted = net.interrupted
        self.history_, self.callbacks_ = training.trim(net)
        self.net_ = net
        self._fit_score(X, rows)
        self._keep_scores(self._apply(self._raw_score, X, rows))
        if self.contamination == "auto":
            self.offset_ = self._auto_offset(X, rows, seed)
        else:
            self.offset_ = find_offset(self.training_scores_, contamination=self.contamination)
        if interrupted:
            training.warn_interrupted(type(self).__name__, self.history_)
            raise KeyboardInterrupt
        return self

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
        return self._apply(self._raw_score, self._check_rows(X, reset=False))

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

    @property
    def module_(self) -> nn.Module:
        """The trained torch module, on the device it was trained on."""
        return self.net_.module_

    # ------------------------------------------------------------------------------------------------- plumbing

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    def __getstate__(self):
        state = dict(super().__getstate__())
        # They may hold anything, open files included.
        state.pop("callbacks_", None)
        return state

    def _apply(self, function, X, rows=None, represent=None) -> np.ndarray:
        """``function(module, rows)`` over validated rows, chunk by chunk, in float64."""
        from .training import apply_in_chunks

        return apply_in_chunks(self.net_.module_, X, rows, represent or self._represent, function)

    def _keep_scores(self, scores: np.ndarray) -> None:
        n_bad = np.count_nonzero(~np.isfinite(scores))
        if n_bad:
            raise ValueError(
                f"{n_bad} of {len(scores)} training rows have no finite score: the network gives NaN or infinity. "
                f"Lower lr (now {self.lr:g}) or scale the features."
            )
        self.training_scores_ = np.sort(scores)

    def _split_rows(self, y, n_rows: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Indices of the in-distribution rows and of the auxiliary outliers; (None, None) if all are the former."""
        if y is None:
            return None, None
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
            return None, None
        return np.flatnonzero(~outlier), np.flatnonzero(outlier)

    def _check_rows(self, X, reset: bool) -> np.ndarray:
        """X as an array of numbers of whatever type, its shape and its values checked."""
        if issparse(X):
            raise ValueError(f"{type(self).__name__} does not accept sparse input. Pass a dense array: X.toarray().")
        n_min = 2 if reset else 1
        if getattr(X, "ndim", 2) <= 2 and not _is_deep_list(X):
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
        _check_values(X)
        return X

    def _set_image_shape(self, X: np.ndarray, shape: tuple[int, ...] | None) -> None:
        given = self.image_shape
        if given is not None:
            given = tuple(given)
            if len(given) != 3 or not all(isinstance(size, Integral) and size > 0 for size in given):
                raise ValueError(f"image_shape={self.image_shape!r} must be three positive integers (C, H, W).")
            if shape not in (None, given):
                raise ValueError(f"X holds images of shape {shape}, but image_shape={given}.")
            if shape is None and X.shape[1] != math.prod(given):
                raise ValueError(f"X has {X.shape[1]} features, but image_shape={given} makes {math.prod(given)}.")
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


def make_network(network, named: Mapping[str, Callable], in_features: int, out_features: int, **options) -> nn.Module:
    """The module that an estimator's ``network`` stands for, checked to map (n, in_features) to (n, out_features).

    Parameters
    ----------
    network : str, torch.nn.Module, class or callable
        A key of ``named``, built with ``(in_features, out_features, **options)``; an instance, of which a copy is
        taken; or a class or factory, called with ``(in_features, out_features)``.
    named : mapping of str to callable
    in_features, out_features : int
    **options
        For named networks.

    Returns
    -------
    module : torch.nn.Module

    Raises
    ------
    ValueError
        If the module does not take rows of that width or gives another shape.
    """
    if isinstance(network, nn.Module):
        module = copy.deepcopy(network)
    elif isinstance(network, str):
        module = named[network](in_features, out_features, **options)
    else:
        module = network(in_features, out_features)
    if not isinstance(module, nn.Module):
        raise ValueError(f"network={network!r} made a {type(module).__name__}, not a torch.nn.Module.")
    was_training = module.training
    for dtype in (torch.float32, torch.float64):
        # Trained in float32, scored in float64. The first trial also gives lazy layers their shapes.
        trial = (module if dtype is torch.float32 else copy.deepcopy(module).double()).eval()
        device = next(trial.parameters(), torch.empty(0)).device
        try:
            with torch.no_grad():
                result = trial(torch.zeros(2, in_features, device=device, dtype=dtype))
        except Exception as error:
            raise ValueError(f"network does not take {dtype} rows of {in_features} features: {error}") from error
        shape = tuple(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
        if shape != (2, out_features):
            raise ValueError(
                f"network maps (2, {in_features}) to {shape}; it must give (2, {out_features}): one output for each of "
                f"{out_features}."
            )
    return module.train(was_training)


def _as_it_is(X: np.ndarray) -> np.ndarray:
    return X


def _is_deep_list(X) -> bool:
    """Whether X is a list of images rather than a list of rows."""
    depth = 0
    while isinstance(X, (list, tuple)) and len(X):
        X, depth = X[0], depth + 1
    return depth + getattr(X, "ndim", 0) > 2


def _check_values(X: np.ndarray) -> None:
    if X.dtype == np.uint8:
        return
    step = max(1, _VALUES_PER_CHECK // max(1, math.prod(X.shape[1:])))
    for start in range(0, len(X), step):
        chunk = X[start : start + step]
        # One pass that also catches NaN, for which no comparison holds.
        if max(float(chunk.max()), -float(chunk.min())) <= LARGEST_VALUE:
            continue
        magnitude = np.abs(chunk.astype(np.float64))
        row, *place = np.argwhere(~(magnitude <= LARGEST_VALUE))[0]
        value = chunk[(row, *place)]
        where = f"row {start + row}, {'feature' if len(place) == 1 else 'pixel'} {', '.join(map(str, place))}"
        if np.isnan(value):
            raise ValueError(f"Input X contains NaN, first in {where}. Impute it or drop the row.")
        if np.isinf(value):
            raise ValueError(f"Input X contains infinity, first in {where}. Replace it or drop the row.")
        raise ValueError(
            f"Input X has {value:g} in {where}. Beyond {LARGEST_VALUE:g} squares overflow float32; rescale the feature."
        )
