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
from .data import FitData
from .detector import Detector
from .held_out import Fold, held_out_rows
from .midway import Midway
from .network import NetworkEstimator
from .row_scorer import RowScorer
from .rows import all_alike, as_it_is
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
        """Return what "auto" parameters come to for these rows, as one frozen object; raise ValueError if none does."""
        return None

    def _prepare(self, data: FitData) -> FitData:
        """Return the rows as what stands before the network gives them: embedded, say. They are X from then on."""
        return data

    def _fit_score(self, data: FitData) -> None:
        """Learn what the score needs besides the trained module; called under the fit's seed."""

    def _encode_more(self, y: np.ndarray | None, n_inliers: int) -> np.ndarray | None:
        """Return the codes of rows that come after the fit, as `_encode_labels` does; without changing the detector."""
        return self._encode_labels(y, n_inliers)

    def _check_more(self, X) -> np.ndarray:
        """Return rows that come after the fit, checked, and as `_prepare_more` takes them."""
        return self._check_rows(X, reset=False)

    def _prepare_more(self, data: FitData) -> FitData:
        """Return rows that come after the fit as what stands before the network gives them; see `_prepare`."""
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
            A memory map that is too large to be held is read in chunks.
        y : array-like of shape (n_samples,), default=None
            None takes all rows as in-distribution. Otherwise rows with ``y == outlier_label``, or with one of several
            outlier labels, are auxiliary outliers and every other value is in distribution (0 is a label like any
            other).
        **fit_params : dict
            For tools that pass ``sample_weight=None`` and the like: None is ignored, anything else refused.

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
        5. Represent: with ``early_stopping`` some rows are held out, which take no part in steps 5 to 7.
           ``_fit_representation(data)`` learns the scaling; ``_front_options()`` returns it, with what else
           stands before the network, as arguments of `Front`.
        6. Build: ``_build_module(training_rows)``, with the fit's own random numbers, as in the steps up to 8.
        7. Train: ``_phases(n_rows)`` says on which losses and for how long; one phase of ``_loss`` by default. From
           here on there are ``module_`` and ``history_``.
        8. Learn the score: ``_fit_score(data)``. From here on ``_scores`` works.
        9. Set the threshold: ``training_scores_``, and ``offset_``. For ``contamination="auto"`` steps 5 to 8 are done
           again, by copies of the detector, on the rows without those of a fold, which each copy then scores. So these
           hooks may read no row of X but those at the indices of ``data``.
        """
        refuse_fit_params(self, fit_params)
        return self._learn(X, y, go_on=self.warm_start and self.__sklearn_is_fitted__(), one_pass=False)

    @final
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, **fit_params: Any):
        """Train for one pass over these rows: from the beginning, or on from where the detector is.

        Weights, optimiser, random numbers and a moving average of the weights go on, and the scaling is that of the
        first call of this method or of `fit`. After a `fit` with ``warm_start=False``, which keeps less, the optimiser
        and the random numbers begin anew. The learning rate is constant. Of a method with several phases, the first
        call makes one pass in each, and the others in the last one.

        What a score learns after the training, ``training_scores_`` and the threshold are of the rows of this call.
        ``contamination="auto"`` fits no copies, since the earlier rows are gone: it sets the threshold as for a few
        rows, and `set_threshold` with rows that were held out sets a better one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), float or uint8
            Rows of the kind of the first call, as in `fit`.
        y : array-like of shape (n_samples,), default=None
            As in `fit`. Classes are those of the first call, of which later ones may lack some; a detector that learnt
            from auxiliary outliers needs some in every call.
        **fit_params : dict
            For tools that pass ``sample_weight=None`` and the like: None is ignored, anything else refused.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            In the cases in which `fit` raises one; or if X, the classes or a parameter that the network was built by
            are not those of the first call. A detector that was fitted before is not changed.
        KeyboardInterrupt
            If training was interrupted. A detector whose pass was not finished is not changed.
        """
        refuse_fit_params(self, fit_params)
        return self._learn(X, y, go_on=self.__sklearn_is_fitted__(), one_pass=True)

    # ------------------------------------------------------------------------------------------------- plumbing

    def _learn(self, X, y, go_on: bool, one_pass: bool) -> Self:
        """Do what `fit` tells, from the beginning or with what there is; in one pass over the rows or in all epochs."""
        start = time.perf_counter()
        self._check_constructor()
        self._check_watching()
        if go_on:
            self._check_unchanged()
            data = self._read_more(X, y)
            seed, self._interrupted = self._seed, False
        else:
            self._forget()
            self._remember_params()
            data = self._read_labels(self._check_rows(X, reset=True), y)
            self._settings = self._resolve_settings(data)
            data = self._prepare(data if self._auxiliary_rows_train else data.without_auxiliary())
            seed = self._draw_seed()
        self._one_pass = one_pass
        with self._checkpointed(data, seed, go_on) as seed:
            self._seed = self._fit_model(data, seed, go_on)
            if self._interrupted:
                training.warn_interrupted(type(self).__name__, self.history_)
            self._set_offset(data, seed)
        self._warn_of_collapse(data)
        self._warn_of_flattery(data)
        self._log_fit(data, start)
        if self._interrupted:
            raise KeyboardInterrupt
        return self

    def _fit_model(self, data: FitData, seed: int | None = None, go_on: bool = False) -> int:
        """Represent, build, train and learn the score, on prepared data; return the seed, drawn if none is given.

        To ``go_on`` is to train the trained network further, with the representation that there is.
        """
        seed = self._draw_seed() if seed is None else seed
        trained, held_out = self._divided(data, seed)
        if not go_on:
            self._learn_front(trained)
        training_rows = self._rows_and_held_out(trained, held_out)
        # Without the state of the random numbers those of the first epochs would be drawn again.
        own_seed = seed + len(self.history_) if go_on and self._state is None else seed
        with training.fitting(own_seed, training_rows.device, self._draws_alone):
            self._midway = Midway(self, data) if self.callbacks else None
            try:
                self._train(training_rows, go_on)
            finally:
                self._midway = None
            self._fit_score(data)
        return seed

    def _read_more(self, X, y) -> FitData:
        """Return rows and labels that come after a fit, prepared, as the training takes them.

        Raises
        ------
        ValueError
            If they are not as at the fit: in features, classes, or in having auxiliary outliers to learn from.
        """
        data = self._read_labels(self._check_more(X), y, getattr(self, "classes_", ()), self._encode_more)
        if not self._auxiliary_rows_train:
            data = data.without_auxiliary()
        elif data.n_auxiliary == 0:
            raise ValueError(
                f"y marks no auxiliary outliers, which {type(self).__name__} was fitted to learn from: mark some rows "
                f"with outlier_label={self.outlier_label!r}."
            )
        if data.n_inliers < 2:
            raise ValueError(f"X has {data.n_inliers} in-distribution row, and at least 2 are needed.")
        return self._prepare_more(data)

    def _held_out_scores(self, data: FitData, seed: int) -> np.ndarray | None:
        """Return scores of rows by copies of this detector that were fitted without them, fold by fold."""
        # `partial_fit` no longer has all rows that the detector was trained on.
        if self._interrupted or self._one_pass:
            return None
        folds = held_out_rows(data.n_inliers, data.codes, np.random.RandomState(seed))
        if not folds:
            return None
        titles = [f"threshold {number} of {len(folds)}" for number in range(1, len(folds) + 1)]
        # Processes that train together do so in step, one fold after the other.
        n_jobs = 1 if self._together else getattr(self, "n_jobs", None)
        try:
            scores = joblib.Parallel(n_jobs)(
                joblib.delayed(self._without(data, out, title, number)._fold_scores)(data, seed)
                for number, (out, title) in enumerate(zip(folds, titles, strict=True), start=1)
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

    def _without(self, data: FitData, out: np.ndarray, title: str, number: int) -> Self:
        """Return a copy that is yet to be fitted without the in-distribution rows at places ``out``."""
        fold = copy.copy(self)
        # A fold that is stopped early, as this fit was, decides for itself when.
        epochs = self.net_.epochs_planned if self.early_stopping else self.net_.epochs
        fold._fold = Fold(data.all_inlier_indices()[out], title, epochs)
        fold._files = None if self._files is None else self._files.part(f"threshold-{number}")
        # They belong to the fit that the user asked for.
        fold.callbacks = None
        for name in ("net_", "history_", "callbacks_", "_state"):
            fold.__dict__.pop(name, None)
        return fold

    def _fold_scores(self, data: FitData, seed: int) -> np.ndarray:
        """Fit this copy on the rows that it does not hold out, and return the scores of those that it does."""
        held_out = self._fold.held_out  # type: ignore[union-attr]
        kept = np.flatnonzero(~np.isin(data.all_inlier_indices(), held_out))
        self._fit_model(data.part(kept), seed)
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

    def _scorer(self, score):
        # The score belongs to the copy as well, so that nothing of it is this detector's.
        copied = copy.deepcopy(self)
        return RowScorer(copied._whole_front(), copied.module_, getattr(copied, score))

    def _whole_front(self) -> nn.Module:
        """Return all that stands before the network: what `_prepare` made, too."""
        return self._front

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
        far = self._scores(-10.0 * self._represented(some), represent=as_it_is)
        if _alike(np.append(scores, far)):
            warn_user(
                f"all rows have the same score, {scores[0]:.3g}, those far away too: the network makes the same of "
                f"all, and tells no outliers apart. Scale the features, or train otherwise.",
                RuntimeWarning,
            )


def _alike(scores: np.ndarray) -> bool:
    return bool(np.ptp(scores) <= 1e-12 * np.abs(scores).max())
