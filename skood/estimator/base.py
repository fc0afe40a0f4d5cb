"""The scikit-learn contract of every detector, written once; and the training of estimators that train a network."""

from __future__ import annotations

import copy
import math
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Self, final

import joblib
import numpy as np
import torch
from sklearn.base import OutlierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import Tensor, nn

from .._warn import warn_user
from ..training.batches import TrainingRows, chunks, n_batches, rows_a_chunk
from ..training.optim import OPTIMIZERS
from .data import FitData
from .held_out import FEW_ROWS, Fold, held_out_offset, held_out_rows
from .labels import check_marked, find_outliers
from .offset import displace, find_offset
from .rows import RowEstimator

# Most rows on which contamination="auto" sets the threshold.
_DISPLACED_ROWS = 1000
# Share of the training rows that contamination="auto" calls outliers where rows cannot be displaced.
_TRAINING_QUANTILE = 0.1
# Rows used to test for collapse.
_FAR_ROWS = 20


class Detector(OutlierMixin, RowEstimator, metaclass=ABCMeta):
    """Base of every detector, however it comes by its scores: labels, threshold, decisions.

    A subclass has the parameters ``contamination``, ``image_shape`` and ``outlier_label``, supplies ``fit`` and
    ``_scores(X, indices)``, the scores of validated rows, and may override

    - ``_encode_labels(y, n_inliers)``: return the classes of the in-distribution rows as numbers;
    - ``_represent(chunk)``: return what a chunk of rows looks like to the module (scaled, say);
    - ``_held_out_scores(data, seed)``: return scores of in-distribution rows that the model was not fitted on;
    - ``_free_offset(data, seed)``: return the threshold for ``contamination="auto"`` where rows are too few to hold
      some out; ``_displaced_quantile`` is the quantile of displaced rows' scores that it takes;
    - ``_natural_offset()``: return the threshold for ``contamination="natural"``.
    """

    _parameter_constraints: dict = {
        **RowEstimator._parameter_constraints,
        # scikit-learn's checks refuse an interval that holds 0.
        "contamination": [StrOptions({"auto", "natural"}), Options(Real, {0}), Interval(Real, 0, 0.5, closed="right")],
        "outlier_label": [Real, str, "boolean", "array-like"],
    }
    _displaced_quantile = 0.1

    # ------------------------------------------------------------------------------------------------ for a method

    @abstractmethod
    def _scores(
        self, X: np.ndarray, indices: np.ndarray | None = None, represent: Callable | None = None
    ) -> np.ndarray:
        """Return scores of validated rows, or of those at ``indices``; ``represent`` stands in for `_represent`."""

    def _encode_labels(self, y: np.ndarray | None, n_inliers: int) -> np.ndarray | None:
        """Return the class of each in-distribution row as a number, or None where there are no classes.

        ``y`` holds their labels alone, not those of auxiliary outliers; None where the user gave no y.
        """
        return None

    def _held_out_scores(self, data: FitData, seed: int) -> np.ndarray | None:
        """Return scores of in-distribution rows that the model was not fitted on; None where there are too few."""
        return None

    def _natural_offset(self) -> float | None:
        """Return the boundary that the method itself has; None where it has none."""
        return None

    def _auto_offset(self, data: FitData, seed: int) -> float:
        """Return the threshold below which about one in twenty new in-distribution rows scores.

        A network scores the very rows it was trained on higher than new ones, the more so the fewer rows and the more
        features there are. So the threshold is set on rows that were held out. A few scores of these alone are
        unsteady: then the lower of the two thresholds is taken, which accuses less.
        """
        scores = self._held_out_scores(data, seed)
        if scores is None:
            return self._free_offset(data, seed)
        offset = held_out_offset(scores)
        return min(offset, self._free_offset(data, seed)) if len(scores) < FEW_ROWS else offset

    def _free_offset(self, data: FitData, seed: int) -> float:
        """Return a low quantile of the scores of rows that stand in for new ones: what costs no further fit.

        Vectors are displaced as neighbours differ. Displaced images are no images, and every score finds them strange;
        there the training rows have to do.
        """
        rng = np.random.RandomState(seed)
        n_rows = min(_DISPLACED_ROWS, max(100, 8 * rows_a_chunk(data.X)))
        chosen = np.sort(rng.permutation(data.all_inlier_indices())[:n_rows])
        parts = (np.asarray(self._represent(chunk), dtype=np.float64) for chunk in chunks(data.X, chosen))
        first = next(parts)
        if first.ndim != 2:
            return find_offset(self.training_scores_, contamination=_TRAINING_QUANTILE)
        represented = [first, *parts]
        displaced = displace(np.concatenate(represented), rng)
        return find_offset(self._scores(displaced, represent=as_it_is), contamination=self._displaced_quantile)

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
            A row's score depends neither on the other rows nor on their order or number.

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
        return self.score_samples(X) - self.offset_

    @final
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

    def _set_offset(self, data: FitData, seed: int) -> None:
        """Set the threshold that ``contamination`` asks for on the in-distribution rows."""
        self.training_scores_ = self._finite_scores(data)
        if self.contamination == "auto":
            self.offset_ = self._auto_offset(data, seed)
        elif self.contamination == "natural":
            offset = self._natural_offset()
            if offset is None:
                raise ValueError(
                    f"contamination='natural' is for scores with a boundary of their own, and {type(self).__name__} "
                    f"has none with these settings and labels; set contamination='auto'."
                )
            self.offset_ = offset
        else:
            self.offset_ = find_offset(self.training_scores_, contamination=self.contamination)

    def _set_offset_on_new(self, data: FitData) -> None:
        """Set the threshold on in-distribution rows that the model was not fitted on."""
        self.training_scores_ = self._finite_scores(data)
        if self.contamination == "auto":
            self.offset_ = held_out_offset(self.training_scores_)
        elif self.contamination == "natural":
            offset = self._natural_offset()
            self.offset_ = self.offset_ if offset is None else offset
        else:
            self.offset_ = find_offset(self.training_scores_, contamination=self.contamination)

    def _finite_scores(self, data: FitData) -> np.ndarray:
        """Return the sorted scores of the in-distribution rows; raise ValueError if one is not finite."""
        scores = self._scores(data.X, data.inlier_indices)
        n_bad = np.count_nonzero(~np.isfinite(scores))
        if n_bad:
            raise ValueError(
                f"{n_bad} of {len(scores)} training rows have no finite score: the network gives NaN or infinity. "
                f"Scale the features, or train with a lower learning rate."
            )
        return np.sort(scores)

    def _read_labels(self, X: np.ndarray, y, known_classes: Collection = ()) -> FitData:
        """Return the rows with what the labels say of them; warn of labels that are likely misread.

        ``known_classes`` are the classes that are known from elsewhere.
        """
        n_rows = _num_samples(X)
        if y is None:
            return FitData(X, codes=self._encode_labels(None, n_rows))
        y, outlier = find_outliers(y, n_rows, self.outlier_label)
        if not outlier.any():
            codes = self._encode_labels(y, n_rows)
            # Where no code came of them, nobody reads the labels: they were given to mark something.
            check_marked(y, outlier, self.outlier_label, classes=None if codes is None else known_classes)
            return FitData(X, codes=codes)
        inliers = np.flatnonzero(~outlier)
        return FitData(X, inliers, np.flatnonzero(outlier), self._encode_labels(y[inliers], len(inliers)))


class NetworkEstimator(RowEstimator, metaclass=ABCMeta):
    """Base of every estimator that trains a network, detector or not.

    A subclass stores the parameters named in `_parameter_constraints` and supplies

    - ``_build_module(data)``: return the torch module, built under the fit's seed. ``data`` are the `TrainingRows`. A
      subclass that trains on them itself, and is interrupted, sets ``_interrupted`` and returns what there is;
    - ``_loss(module, rows, **extra)``: return the loss of one batch of represented rows. ``extra`` holds ``labels`` and
      ``auxiliary`` where the batch has them. (For several updates a batch, or several phases, override
      ``_phases(n_rows)``.)

    It may override

    - ``_fit_representation(data)``: learn what `_represent` has to know, a scaling for instance;
    - ``_training_rows(data)``: return what is trained on, if that is not the represented rows;
    - ``_training_options()``: return arguments of `skood.training.train`;
    - ``_auxiliary_rows_train``: whether rows with ``y == outlier_label`` take part in training, or are left out;
    - ``_auto_steps``: optimiser steps that ``max_epochs="auto"`` aims at.

    Its `fit` calls ``_forget`` and ``_check_rows``, then ``_training_rows``, then ``_train`` within
    `skood.training.fitting`, and in the end raises KeyboardInterrupt if ``_interrupted``.
    """

    _parameter_constraints: dict = {
        **RowEstimator._parameter_constraints,
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
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
    # Whether an interruption cut the last fit short.
    _interrupted = False
    # What of a fit this estimator repeats without some rows, to score these; None for an estimator of its own.
    _fold: Fold | None = None

    # ------------------------------------------------------------------------------------------------ for a method

    @abstractmethod
    def _build_module(self, data: TrainingRows) -> nn.Module: ...

    @abstractmethod
    def _loss(self, module: nn.Module, rows: Tensor, **extra: Tensor) -> Tensor: ...

    def _phases(self, n_rows: int) -> list:
        from ..training.phases import Phase, Step

        return [Phase([Step(self._loss)], self._n_epochs(n_rows), auxiliary_ratio=float(self._auxiliary_rows_train))]

    def _n_epochs(self, n_rows: int) -> int:
        """Return ``max_epochs``; for "auto" as many as make ``_auto_steps`` optimiser steps."""
        if self.max_epochs == "auto":
            return math.ceil(self._auto_steps / n_batches(n_rows, self.batch_size))
        return self.max_epochs

    def _training_options(self) -> dict:
        return {}

    def _fit_representation(self, data: FitData) -> None:
        """Learn from the in-distribution rows what `_represent` has to know; see `_inlier_chunks`."""

    def _training_rows(self, data: FitData) -> TrainingRows:
        """Return the represented rows, on the device that trains."""
        from ..training.device import resolve_device

        return TrainingRows(
            data.X,
            data.inlier_indices,
            self._represent,
            resolve_device(self.device),
            data.codes,
            data.auxiliary_indices,
        )

    # -------------------------------------------------------------------------------------------------- public

    @property
    def module_(self) -> nn.Module:
        """The trained torch module, on the device it was trained on."""
        return self.net_.module_

    # ------------------------------------------------------------------------------------------------- plumbing

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    def __getstate__(self):
        state = dict(super().__getstate__())
        # They may hold anything, open files included.
        state.pop("callbacks_", None)
        return state

    def _forget(self):
        super()._forget()
        self._interrupted = False

    def _inlier_chunks(self, data: FitData) -> Iterator[np.ndarray]:
        """Iterate over the in-distribution rows: images in their shape, uint8 pixels in [0, 1]."""
        return (self._arranged(chunk) for chunk in chunks(data.X, data.inlier_indices))

    def _draw_seed(self) -> int:
        """Draw the seed of this fit: the same in all processes that train together."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        if not self._together:
            return seed
        from ..training import distributed

        return distributed.first(seed)

    @property
    def _together(self) -> bool:
        """Whether other processes take part in the training."""
        return isinstance(self.device, str) and self.device == "distributed"

    @property
    def _progress(self) -> str | None:
        """Title of the progress bar; None shows none."""
        if not self.verbose:
            return None
        name = type(self).__name__
        return name if self._fold is None else f"{name}, {self._fold.title}"

    def _own_share(self, data: TrainingRows) -> TrainingRows:
        """Return the rows that this process trains on: all, unless others take part."""
        if not self._together:
            return data
        from ..training import distributed

        return data.share(*distributed.place())

    def _train(self, data: TrainingRows) -> None:
        """Build and train the module; call it within `skood.training.fitting`.

        Afterwards there are ``net_``, ``history_`` and ``callbacks_``, and ``_interrupted`` is set if Ctrl-C cut the
        training short. A KeyboardInterrupt before there is anything to keep is raised.
        """
        from .. import training

        module = self._build_module(data).to(data.device)
        if self.image_shape_ is not None:
            # The order in which convolutions are fastest, on CPUs too.
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        n_rows, data = len(data), self._own_share(data)
        options = {
            "batch_size": self.batch_size,
            "lr": self.lr,
            "optimizer": self.optimizer,
            "precision": self.precision,
            "callbacks": self.callbacks,
            "progress": self._progress,
            "together": self._together,
        }
        phases = [] if self._interrupted else self._phases(len(data))
        if self._fold is not None:
            phases = self._fold.as_long(phases, n_rows, self.batch_size)
        net = training.train(module, data, phases, **options | self._training_options())
        if net.interrupted and not net.history:
            raise KeyboardInterrupt
        self._interrupted = self._interrupted or net.interrupted
        self.history_, self.callbacks_ = training.trim(net)
        self.net_ = net

    def _apply(self, function, X, indices=None, represent=None) -> np.ndarray:
        """Return ``function(module, rows)`` of validated rows, chunk by chunk, in float64."""
        from ..training.scoring import apply_in_chunks

        return apply_in_chunks(self.net_.module_, X, indices, represent or self._represent, function)


class OutlierDetector(Detector, NetworkEstimator):
    """Base of the detectors that train a network: a method of three hooks is a complete detector.

    A method supplies ``_build_module`` and ``_loss`` (see `NetworkEstimator`), and

    - ``_raw_score(module, rows)``: return the score of each row of a batch, higher = more normal.

    `fit` says in which order these and the other hooks are called, and what each may rely on. The constructor stores
    the parameters that `fit` reads: ``contamination``, ``image_shape``, ``outlier_label``, ``max_epochs``,
    ``batch_size``, ``lr``, ``optimizer``, ``device``, ``precision``, ``callbacks``, ``verbose`` and ``random_state``.
    ``n_jobs``, if there is one, is the number of processes that fit copies for the threshold.
    """

    _parameter_constraints: dict = {**Detector._parameter_constraints, **NetworkEstimator._parameter_constraints}
    # What `_resolve_settings` returned at the last fit: set_params takes effect at the next fit.
    _settings: Any

    # ------------------------------------------------------------------------------------------------ for a method

    def _raw_score(self, module: nn.Module, rows: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} supplies neither _raw_score nor _scores.")

    def _resolve_settings(self, data: FitData) -> Any:
        """Return what "auto" parameters come to for these rows, as one frozen object; raise ValueError if none does."""
        return None

    def _prepare(self, data: FitData) -> FitData:
        """Return the rows as what stands before the network gives them: embedded, say. They are X from then on."""
        return data

    def _fit_score(self, data: FitData) -> None:
        """Learn what the score needs besides the trained module; called under the fit's seed."""

    # -------------------------------------------------------------------------------------------------- public

    @final
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Train the network on the in-distribution rows and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), float or uint8
            Vectors; images; or flattened images with ``image_shape``. uint8 images are scaled by 1/255.
            A memory map that is too large to be held is read in chunks.
        y : array-like of shape (n_samples,), default=None
            None takes all rows as in-distribution. Otherwise rows with ``y == outlier_label``, or with one of several
            outlier labels, are auxiliary outliers and every other value is in distribution (0 is a label like any
            other).

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

        Warns
        -----
        LabelWarning
            If y is likely misread: it marks no row and holds several labels, where the detector knows no classes; or
            just 0 and 1 (False and True), where it takes them for classes.

        Notes
        -----
        The story of a fit, in order, for authors of detectors. ``data`` is a `skood.estimator.FitData`: X, and which of
        its rows are what.

        1. Validate rows: ``_check_rows`` sets ``image_shape_``, ``n_features_in_`` and ``feature_names_in_``.
        2. Read labels: ``_encode_labels(y, n_inliers)`` may set ``classes_``.
        3. Resolve settings: ``_resolve_settings(data)`` returns one frozen object, kept as ``_settings``; all later
           hooks read it and not the parameters that it stands for. Auxiliary rows then leave the data, unless
           ``_auxiliary_rows_train``.
        4. Prepare what stands before the network: ``_prepare(data)`` returns the data that all later hooks see.
        5. Represent: ``_fit_representation(data)`` learns the scaling; from here on ``_represent(chunk)`` works.
        6. Build: ``_build_module(training_rows)``, with torch's generators seeded, as in the steps up to 8.
        7. Train: ``_phases(n_rows)`` says on which losses and for how long; one phase of ``_loss`` by default. From
           here on there are ``module_`` and ``history_``.
        8. Learn the score: ``_fit_score(data)``. From here on ``_scores`` works.
        9. Set the threshold: ``training_scores_``, and ``offset_``. For ``contamination="auto"`` steps 5 to 8 are done
           again, by copies of the detector, on the rows without those of a fold, which each copy then scores. So these
           hooks may read no row of X but those at the indices of ``data``.
        """
        from .. import training

        self._check_constructor()
        self._forget()
        X = self._check_rows(X, reset=True)
        data = self._read_labels(X, y)
        self._settings = self._resolve_settings(data)
        data = self._prepare(data if self._auxiliary_rows_train else data.without_auxiliary())
        seed = self._fit_model(data)
        if self._interrupted:
            training.warn_interrupted(type(self).__name__, self.history_)
        self._set_offset(data, seed)
        self._warn_of_collapse(data)
        self._warn_of_flattery(data)
        if self._interrupted:
            raise KeyboardInterrupt
        return self

    # ------------------------------------------------------------------------------------------------- plumbing

    def _fit_model(self, data: FitData, seed: int | None = None) -> int:
        """Represent, build, train and learn the score, on prepared data; return the seed, drawn if none is given."""
        from .. import training

        self._fit_representation(data)
        training_rows = self._training_rows(data)
        seed = self._draw_seed() if seed is None else seed
        with training.fitting(seed, training_rows.device):
            self._train(training_rows)
            self._fit_score(data)
        return seed

    def _held_out_scores(self, data: FitData, seed: int) -> np.ndarray | None:
        """Return scores of rows by copies of this detector that were fitted without them, fold by fold."""
        if self._interrupted:
            return None
        folds = held_out_rows(data.n_inliers, data.codes, np.random.RandomState(seed))
        if not folds:
            return None
        titles = [f"threshold {number} of {len(folds)}" for number in range(1, len(folds) + 1)]
        # Processes that train together do so in step, one fold after the other.
        n_jobs = 1 if self._together else getattr(self, "n_jobs", None)
        try:
            scores = joblib.Parallel(n_jobs)(
                joblib.delayed(self._without(data, out, title)._fold_scores)(data, seed)
                for out, title in zip(folds, titles, strict=True)
            )
        except KeyboardInterrupt:
            self._interrupted = True
            warn_user(
                f"{type(self).__name__}.fit was interrupted while it set the threshold: the detector is fitted, but "
                f"its threshold does not rest on held-out rows, and may accuse more of the new ones. "
                f"set_threshold(target_fpr=0.05, X=held_out) sets a better one.",
                RuntimeWarning,
            )
            return None
        return np.concatenate(scores)

    def _without(self, data: FitData, out: np.ndarray, title: str) -> Self:
        """Return a copy that is yet to be fitted without the in-distribution rows at places ``out``."""
        fold = copy.copy(self)
        fold._fold = Fold(data.all_inlier_indices()[out], title, self.net_.epochs)
        # They belong to the fit that the user asked for.
        fold.callbacks = None
        for name in ("net_", "history_", "callbacks_"):
            fold.__dict__.pop(name, None)
        return fold

    def _fold_scores(self, data: FitData, seed: int) -> np.ndarray:
        """Fit this copy on the rows that it does not hold out, and return the scores of those that it does."""
        held_out = self._fold.held_out  # type: ignore[union-attr]
        kept = ~np.isin(data.all_inlier_indices(), held_out)
        codes = None if data.codes is None else data.codes[kept]
        self._fit_model(replace(data, inlier_indices=data.all_inlier_indices()[kept], codes=codes), seed)
        if self._interrupted:
            raise KeyboardInterrupt
        return self._scores(data.X, held_out)

    def _check_constructor(self) -> None:
        """Raise TypeError for parameters that `fit` reads and the constructor does not store."""
        needed = OutlierDetector._parameter_constraints
        missing = [name for name in needed if not hasattr(self, name)]
        if missing:
            raise TypeError(
                f"{type(self).__name__} lacks {', '.join(missing)}: the constructor of an OutlierDetector takes and "
                f"stores all of {', '.join(needed)}."
            )

    def _forget(self) -> None:
        super()._forget()
        self.__dict__.pop("_settings", None)

    def _scores(self, X, indices=None, represent=None):
        return self._apply(self._raw_score, X, indices, represent)

    def _warn_of_flattery(self, data: FitData) -> None:
        """Warn of a share of the training rows as threshold where their scores say little about new rows."""
        if isinstance(self.contamination, str) or self.contamination == 0:
            return
        n_rows, n_features = data.n_inliers, math.prod(data.X.shape[1:])
        if n_rows < n_features:
            warn_user(
                f"contamination={self.contamination:g} sets the threshold on the {n_rows} training rows, fewer than "
                f"their {n_features} features: they score higher than new rows, many of which may be called outliers. "
                f"contamination='auto' sets it on rows that are held out, and so does "
                f"set_threshold(target_fpr={self.contamination:g}, X=held_out) on rows of yours.",
                UserWarning,
            )

    def _warn_of_collapse(self, data: FitData) -> None:
        """Warn if the network makes the same of all rows, those far away too."""
        scores, X = self.training_scores_, data.X
        if not _alike(scores) or all_alike(X, data.inlier_indices):
            return
        # In-distribution rows may well have one score, if others have another.
        some = X[data.all_inlier_indices()[:_FAR_ROWS]]
        far = self._scores(-10.0 * np.asarray(self._represent(some)), represent=as_it_is)
        if _alike(np.append(scores, far)):
            warn_user(
                f"all rows have the same score, {scores[0]:.3g}, those far away too: the network makes the same of "
                f"all, and tells no outliers apart. Scale the features, or train otherwise.",
                RuntimeWarning,
            )


def _alike(scores: np.ndarray) -> bool:
    return bool(np.ptp(scores) <= 1e-12 * np.abs(scores).max())


def all_alike(X: np.ndarray, indices: np.ndarray | None) -> bool:
    """Return whether all rows of X, or those at ``indices``, are the same."""
    first = X[0 if indices is None else indices[0]]
    return all((chunk == first).all() for chunk in chunks(X, indices))


def as_it_is(X: np.ndarray) -> np.ndarray:
    """Return rows as they are: they are represented already."""
    return X


def framed_like(X, values: np.ndarray):
    """Return ``values`` with the index and the columns of ``X``, if that is a DataFrame."""
    if not (hasattr(X, "columns") and hasattr(X, "index")):
        return values
    import pandas as pd

    return pd.DataFrame(values, index=X.index, columns=X.columns)
