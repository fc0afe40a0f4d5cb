"""The base of the detectors that train a network, and the story of their fit."""

from __future__ import annotations

import copy
import math
import time
from typing import Any, Self, final

import joblib
import numpy as np
from sklearn.base import _fit_context
from torch import Tensor, nn

from .. import training
from .._warn import warn_user
from ..networks.copies import deep_copy
from .data import FitData
from .detector import Detector
from .held_out import Fold, held_out_rows
from .midway import Midway
from .network import NetworkEstimator
from .row_scorer import RowScorer
from .rows import all_alike, as_it_is
from .running import Running
from .validation import refuse_fit_params

# Rows used to test for collapse.
_FAR_ROWS = 20


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
        raise NotImplementedError(f"{type(self).__name__} supplies no _raw_score.")

    def _resolve_settings(self, data: FitData) -> Any:
        """Return the values of "auto" parameters for these rows, as one frozen object; raise ValueError if none fit."""
        return None

    def _check_settings(self, data: FitData) -> None:
        """Raise ValueError if parameters do not go with the rows of this call, of `fit` or `partial_fit`."""

    def _prepare(self, data: FitData) -> FitData:
        """Return the rows after the preprocessing of this method, such as an embedding; later hooks get these as X."""
        return data

    def _fit_score(self, data: FitData) -> None:
        """Learn what the score needs besides the trained module; called under the fit's seed."""

    def _encode_more(self, y: np.ndarray | None, n_inliers: int) -> np.ndarray | None:
        """Return the class codes of rows that arrive after the fit, as `_encode_labels`, but change no attribute."""
        return self._encode_labels(y, n_inliers)

    def _check_more(self, X) -> np.ndarray:
        """Check rows that arrive after the fit, and return them in the form that `_prepare_more` takes."""
        return self._check_rows(X, reset=False)

    def _prepare_more(self, data: FitData) -> FitData:
        """Prepare rows that arrive after the fit, as `_prepare` does at the fit."""
        return self._prepare(data)

    # -------------------------------------------------------------------------------------------------- public

    @final
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, **fit_params: Any):
        """Train the network on the in-distribution rows and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), float or uint8
            Vectors; images; or flattened images with ``image_shape``. uint8 images are scaled by 1/255.
            A memory map larger than memory is read in chunks.
        y : array-like of shape (n_samples,), default=None
            None takes all rows as in-distribution. Otherwise rows with ``y == outlier_label``, or with one of several
            outlier labels, are auxiliary outliers and every other value is in distribution (0 is a label like any
            other).
        **fit_params : dict
            Some tools pass ``sample_weight=None``: None is ignored, any other value is an error.

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
            If y is likely misread. It marks no row, and holds several labels although the detector has no classes, or
            only 0 and 1 (False and True), which a detector with classes takes for two classes.

        Notes
        -----
        The steps of a fit, in order, for authors of detectors. ``data`` is a `skood.estimator.FitData`: X, and the
        indices of its in-distribution rows and of its auxiliary outliers.

        1. Validate rows: ``_check_rows`` sets ``image_shape_``, ``n_features_in_`` and ``feature_names_in_``.
        2. Read labels: ``_encode_labels(y, n_inliers)`` may set ``classes_``.
        3. Resolve settings: ``_resolve_settings(data)`` returns one frozen object, kept as ``_settings``; all later
           hooks read it instead of the parameters. ``_check_settings(data)`` refuses parameters that do not go with the
           rows, here and whenever training goes on. ``data`` then loses the auxiliary outliers, unless
           ``_auxiliary_rows_train`` is True.
        4. Preprocess: ``_prepare(data)`` returns the data that all later hooks see.
        5. Represent: with ``early_stopping`` some rows are held out, and take no part in steps 5 to 7.
           ``_fit_representation(data)`` learns the scaling; ``_front_options()`` returns it, with any other
           preprocessing, as arguments of `Front`.
        6. Build: ``_build_module(training_rows)`` returns the network. Steps 6 to 8 use the fit's own random numbers.
        7. Train: ``_phases(n_rows)`` returns the losses and epochs of each phase; by default one phase of ``_loss``.
           From here on ``module_`` and ``history_`` exist.
        8. Learn the score: ``_fit_score(data)``. From here on ``_scores`` works.
        9. Set the threshold: ``training_scores_``, and ``offset_``. For ``contamination="auto"`` copies of the detector
           repeat steps 5 to 8, each without the rows of one fold, and then score these rows. So the hooks of these
           steps may read only the rows of X at the indices in ``data``.
        """
        refuse_fit_params(self, fit_params)
        return self._learn(X, y, go_on=self.warm_start and self.__sklearn_is_fitted__(), one_pass=False)

    @final
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, **fit_params: Any):
        """Train for one pass over these rows: from the beginning, or on from the fitted network.

        Weights, optimiser, random numbers and a moving average of the weights continue, and the scaling stays that of
        the first call of this method or of `fit`. After a `fit` with ``warm_start=False``, which keeps less, the
        optimiser and the random numbers begin anew. The learning rate is constant. If a method trains in several
        phases, the first call makes one pass in each phase, and later calls make one in the last phase only.

        What the score learns after the training, ``training_scores_`` and the threshold come from the rows of this
        call alone. ``contamination="auto"`` fits no copies, since the earlier rows are gone: it sets the threshold as
        for few rows, and `set_threshold` with held-out rows sets a better one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), float or uint8
            Rows of the kind of the first call, as in `fit`.
        y : array-like of shape (n_samples,), default=None
            As in `fit`. Later calls may lack some classes of the first call, but bring no others; a detector that
            learnt from auxiliary outliers needs some in every call.
        **fit_params : dict
            Some tools pass ``sample_weight=None``: None is ignored, any other value is an error.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            As in `fit`; or if the features of X, the classes, or a parameter that the network was built with differ
            from the first call. A detector that was fitted before stays unchanged.
        KeyboardInterrupt
            If training was interrupted. If it did not finish the pass, the detector stays unchanged.
        """
        refuse_fit_params(self, fit_params)
        return self._learn(X, y, go_on=self.__sklearn_is_fitted__(), one_pass=True)

    # ------------------------------------------------------------------------------------------------- plumbing

    def _learn(self, X, y, go_on: bool, one_pass: bool) -> Self:
        """Run the steps that `fit` lists, from the beginning or on from the fitted network; for one pass or all epochs.

        Parameters
        ----------
        X, y
            As the user gave them.
        go_on : bool
            Whether to train the fitted network further.
        one_pass : bool
            Whether to make one pass over the rows instead of ``max_epochs``.
        """
        start = time.perf_counter()
        self._check_constructor()
        self._check_watching()
        with self._one_fit(one_pass, go_on):
            if go_on:
                self._check_unchanged()
                data = self._read_more(X, y)
                self._check_settings(data)
                seed = self._seed
            else:
                self._forget()
                self._remember_params()
                data = self._read_labels(self._check_rows(X, reset=True), y)
                self._settings = self._resolve_settings(data)
                self._check_settings(data)
                self._check_auxiliary(data)
                self._note_pixels(data if self._auxiliary_rows_train else data.without_auxiliary())
                self._warn_without_effect()
                data = self._prepare(data if self._auxiliary_rows_train else data.without_auxiliary())
                seed = self._draw_seed()
            # Before a training that would be lost.
            if self.contamination == "natural" and not self._has_boundary():
                self._refuse_boundary()
            with self._checkpointed(data, seed, go_on) as seed:
                self._fit_model(data, seed, go_on)
                self._seed = seed
                self._set_offset(data, seed)
            self._warn_of_collapse(data)
            self._warn_of_flattery(data)
            self._end_fit(data, start)
        return self

    def _fit_model(self, data: FitData, seed: int, go_on: bool = False) -> None:
        """Represent, build, train and learn the score, on prepared data.

        With ``go_on`` the trained network is trained further, and the scaling stays as it is.
        """
        trained, held_out = self._divided(data, seed)
        if not go_on:
            self._learn_front(trained)
        training_rows = self._rows_and_held_out(trained, held_out)
        # Without a saved state of the generator, the same seed would repeat the random numbers of the first epochs.
        own_seed = seed + len(self.history_) if go_on and self._state is None else seed
        self._running.midway = Midway(self, data) if self.callbacks else None
        with training.fitting(own_seed, training_rows.device, self._draws_alone):
            self._train(training_rows, go_on)
            self._fit_score(data)

    def _read_more(self, X, y) -> FitData:
        """Check and prepare rows and labels that arrive after a fit, for more training.

        Raises
        ------
        ValueError
            If their features or classes are not those of the fit, or auxiliary outliers to learn from are missing.
        """
        data = self._read_labels(self._check_more(X), y, getattr(self, "classes_", ()), self._encode_more)
        self._check_auxiliary(data)
        if not self._auxiliary_rows_train:
            data = data.without_auxiliary()
        if data.n_inliers < 2:
            raise ValueError(f"X has {data.n_inliers} in-distribution row, and at least 2 are needed.")
        return self._prepare_more(data)

    def _check_auxiliary(self, data: FitData) -> None:
        """Raise an error if auxiliary outliers are learnt from, and none are given."""
        if self._auxiliary_rows_train and data.n_auxiliary == 0:
            raise ValueError(
                f"y marks no auxiliary outliers, which {type(self).__name__} learns from: mark some rows with "
                f"outlier_label={self.outlier_label!r}."
            )

    def _held_out_scores(self, data: FitData, seed: int) -> np.ndarray | None:
        """Return scores of held-out rows, fold by fold: a copy of this detector is fitted without the fold's rows."""
        # `partial_fit` no longer has all rows that the detector was trained on.
        if self._running.interrupted or self._running.one_pass:
            return None
        folds = held_out_rows(data.n_inliers, data.codes, np.random.RandomState(seed))
        if not folds:
            return None
        titles = [f"threshold {number} of {len(folds)}" for number in range(1, len(folds) + 1)]
        # Processes that train together must fit the same fold at the same time.
        n_jobs = 1 if self._together else getattr(self, "n_jobs", None)
        try:
            scores = joblib.Parallel(n_jobs)(
                joblib.delayed(self._without(data, out, title, number)._fold_scores)(data, seed)
                for number, (out, title) in enumerate(zip(folds, titles, strict=True), start=1)
            )
        except KeyboardInterrupt:
            self._running.interrupted = True
            warn_user(
                f"{type(self).__name__}.fit was interrupted while it set the threshold: the detector is fitted, but "
                f"its threshold was not set on held-out rows, and may raise more false alarms. Set a better one with "
                f"set_threshold(target_fpr=0.05, X=held_out).",
                RuntimeWarning,
            )
            return None
        return np.concatenate(scores)

    def _without(self, data: FitData, out: np.ndarray, title: str, number: int) -> Self:
        """Return an unfitted copy, to be fitted without the in-distribution rows at indices ``out``."""
        fold = copy.copy(self)
        # With early stopping each fold stops by its own validation rows, so it gets the epochs that were planned.
        epochs = self.net_.epochs_planned if self.early_stopping else self.net_.epochs
        checkpoint = self._running.checkpoint
        fold._running = Running(
            fold=Fold(data.all_inlier_indices()[out], title, epochs),
            checkpoint=None if checkpoint is None else checkpoint.part(f"threshold-{number}"),
        )
        # Callbacks belong to the fit that the user asked for.
        fold.callbacks = None
        for name in ("net_", "history_", "callbacks_", "_state"):
            fold.__dict__.pop(name, None)
        return fold

    def _fold_scores(self, data: FitData, seed: int) -> np.ndarray:
        """Fit this copy on the rows that its fold keeps, and return the scores of the held-out rows."""
        held_out = self._running.fold.held_out  # type: ignore[union-attr]
        kept = np.flatnonzero(~np.isin(data.all_inlier_indices(), held_out))
        self._fit_model(data.part(kept), seed)
        if self._running.interrupted:
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
        scores = self._apply(self._raw_score, X, indices, represent)
        if scores.ndim != 1:
            raise ValueError(
                f"{type(self).__name__}._raw_score must return one number for each of n rows, in shape (n,); it "
                f"returned shape (n, {', '.join(map(str, scores.shape[1:]))})."
            )
        return scores

    def _scorer(self, score):
        # The score is a method of the copy, so that the module shares nothing with this detector.
        copied = deep_copy(self)
        return RowScorer(copied._whole_front(), copied.module_, getattr(copied, score))

    def _whole_front(self) -> nn.Module:
        """Return all preprocessing before the network as one module, that of `_prepare` included."""
        return self._front

    def _warn_of_flattery(self, data: FitData) -> None:
        """Warn if ``contamination`` is a share of the training rows, and these are fewer than the features."""
        if isinstance(self.contamination, str) or self.contamination == 0:
            return
        n_rows, n_features = data.n_inliers, math.prod(data.X.shape[1:])
        if n_rows < n_features:
            warn_user(
                f"contamination={self.contamination:g} sets the threshold on the {n_rows} training rows, fewer than "
                f"their {n_features} features. They score higher than new rows, many of which may be called outliers. "
                f"Write contamination='auto', which sets the threshold on held-out rows, or call "
                f"set_threshold(target_fpr={self.contamination:g}, X=held_out) with held-out rows of yours.",
                UserWarning,
            )

    def _warn_of_collapse(self, data: FitData) -> None:
        """Warn if the network gives all rows one score, rows far away included."""
        scores, X = self.training_scores_, data.X
        if not _alike(scores) or all_alike(X, data.inlier_indices):
            return
        # One score for all in-distribution rows is fine, if rows far away get another.
        some = X[data.all_inlier_indices()[:_FAR_ROWS]]
        far = self._scores(-10.0 * self._represented(some), represent=as_it_is)
        if _alike(np.append(scores, far)):
            warn_user(
                f"all rows have the same score, {scores[0]:.3g}, even rows far away: the network has collapsed, and "
                f"finds no outliers. Scale the features, or change lr or max_epochs.",
                RuntimeWarning,
            )


def _alike(scores: np.ndarray) -> bool:
    return bool(np.ptp(scores) <= 1e-12 * np.abs(scores).max())
