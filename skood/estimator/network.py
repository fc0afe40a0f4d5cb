"""The training of every estimator that trains a network, detector or not."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import time
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral, Number, Real
from os import PathLike
from typing import Any, Self

import joblib
import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn

from .. import training
from .._sklearn import Interval, StrOptions
from .._warn import warn_user
from ..networks.copies import deep_copy
from ..networks.memory import prefer_channels_last
from ..training import distributed
from ..training.batches import TrainingRows, chunks, n_batches
from ..training.checkpoint import claimed
from ..training.device import resolve_device
from ..training.optim import OPTIMIZERS
from ..training.phases import Phase, Step
from ..training.scoring import apply_in_blocks, device_of
from .data import FitData
from .fingerprint import fit_fingerprint
from .held_out import validation_rows
from .rows import RowEstimator
from .running import Running, or_unchanged

_LOGGER = logging.getLogger("skood")

# Constraints of the parameters of early stopping. An estimator may lack these parameters, and never stops early then.
WATCHING: dict = {
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
}
# Constraints of the parameters by which a training goes on from an earlier one.
GOING_ON: dict = {"warm_start": ["boolean"], "checkpoint": [str, PathLike, None]}
# Constraint of the number of processes; joblib knows no number 0.
N_JOBS: dict = {
    "n_jobs": [Interval(Integral, 1, None, closed="left"), Interval(Integral, None, -1, closed="right"), None]
}


class NetworkEstimator(RowEstimator, metaclass=ABCMeta):
    """Base of every estimator that trains a network, detector or not.

    A subclass stores the parameters named in `_parameter_constraints` and supplies

    - ``_build_module(data)``: return the torch module, built under the fit's seed. ``data`` is a `TrainingRows`. If
      this hook trains on them and is interrupted, it sets ``_running.interrupted`` and returns the module as it is
      then;
    - ``_loss(module, rows, **extra)``: return the loss of one batch of represented rows. ``extra`` holds ``labels`` and
      ``auxiliary`` where the batch has them. (For several updates a batch, or several phases, override
      ``_phases(n_rows)``.)

    It may override

    - ``_fit_representation(data)``: learn what `_front_options` returns, a scaling for example;
    - ``_training_rows(data)``: return the rows to train on, if these are not the represented rows;
    - ``_training_options()``: return arguments of `skood.training.train`;
    - ``_auxiliary_rows_train``: whether rows with ``y == outlier_label`` take part in training, or are left out;
    - ``_auto_steps``: optimiser steps that ``max_epochs="auto"`` aims at.

    Its `fit`, in a block of ``_one_fit``, calls ``_forget`` and ``_check_rows``, then ``_training_rows``, then
    ``_train`` within `skood.training.fitting`, then ``_end_fit``.
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
    early_stopping = False
    validation_fraction = 0.1
    n_iter_no_change = 10
    warm_start = False
    checkpoint: str | PathLike | None = None
    # State at the end of the training, kept if training is to go on from there.
    _state: dict | None = None
    history_: Any
    _seed: int
    _built_by: dict
    # Parameters by which the network is built: they cannot change while training goes on.
    _fixed_params: tuple[str, ...] = ("network", "hidden_sizes", "dropout", "scaling", "image_shape")
    _auxiliary_rows_train = False
    _auto_steps = 2000
    # Smallest number of in-distribution rows in a batch.
    _least_rows = 2
    # Smallest number of validation rows with which the loss means something.
    _least_held_out = 2
    # The fit that is running; a block of `_one_fit` has its own.
    _running = Running()

    # ------------------------------------------------------------------------------------------------ for a method

    @abstractmethod
    def _build_module(self, data: TrainingRows) -> nn.Module: ...

    @abstractmethod
    def _loss(self, module: nn.Module, rows: Tensor, **extra: Tensor) -> Tensor: ...

    def _phases(self, n_rows: int) -> list:
        ratio = float(self._auxiliary_rows_train)
        return [Phase([Step(self._loss)], self._n_epochs(n_rows), auxiliary_ratio=ratio, least_rows=self._least_rows)]

    def _n_epochs(self, n_rows: int) -> int:
        """Return ``max_epochs``; for "auto", the epochs that make about ``_auto_steps`` optimiser steps."""
        if self.max_epochs == "auto":
            return math.ceil(self._auto_steps / n_batches(n_rows, self.batch_size, self._least_rows))
        return self.max_epochs

    def _training_options(self) -> dict:
        return {}

    def _fit_representation(self, data: FitData) -> None:
        """Learn from the in-distribution rows what `_front_options` returns; see `_inlier_chunks`."""

    def _check_watching(self) -> None:
        """Warn of parameters of early stopping that were set although ``early_stopping`` is off."""
        for name in () if self.early_stopping else ("validation_fraction", "n_iter_no_change"):
            if getattr(self, name) != getattr(NetworkEstimator, name):
                warn_user(f"{name} has no effect without early_stopping=True; set both or none.", UserWarning)

    def _without_effect(self) -> dict[str, str]:
        """Return the parameters that have no effect with the others and these rows, each with the reason."""
        given = getattr(self, "network", "auto")
        if not isinstance(given, str):
            return dict.fromkeys(("hidden_sizes", "dropout"), "on a network that is given")
        reasons = {} if self.image_shape_ is None else {"hidden_sizes": "on images"}
        return reasons | ({"dropout": f"on network={given!r}"} if given.startswith("resnet-") else {})

    def _warn_without_effect(self) -> None:
        """Warn of parameters that were set, to another value than the default, although they have no effect."""
        defaults = inspect.signature(type(self).__init__).parameters
        for name, reason in self._without_effect().items():
            if name in defaults and not _same(getattr(self, name), defaults[name].default):
                warn_user(f"{name} has no effect {reason}: leave it out.", UserWarning)

    @classmethod
    def _with_settings(cls, settings: dict, params: dict) -> Self:
        """Return an estimator with the settings of a paper, or the values of ``params``.

        Settings of a network that skood builds are left out where ``params`` gives another network, on which they have
        no effect.
        """
        network, idle = params.get("network", "auto"), {"hidden_sizes", "dropout"}
        if isinstance(network, str):
            idle = {"dropout"} if network.startswith("resnet-") else set()
        return cls(**{name: value for name, value in settings.items() if name not in idle} | params)

    def _remember_params(self) -> None:
        """Store the parameters by which the network is built."""
        self._built_by = {name: getattr(self, name) for name in self._fixed_params if hasattr(self, name)}

    def _check_unchanged(self) -> None:
        """Raise a ValueError if training cannot go on, because a parameter that built the network has changed."""
        if not hasattr(self, "_seed"):
            raise ValueError(
                f"training cannot go on: this {type(self).__name__} was read from a file without the state of its "
                f"training. Fit it with warm_start=False."
            )
        for name, before in self._built_by.items():
            now = getattr(self, name)
            if not _same(now, before):
                raise ValueError(
                    f"{name} was changed after the network was built, but further training keeps that network. Set "
                    f"{name} back, or begin anew: fit with warm_start=False."
                )

    @contextlib.contextmanager
    def _one_fit(self, one_pass: bool = False, go_on: bool = False) -> Iterator[Running]:
        """Run a fit, or one pass of `partial_fit`; nothing of it is kept afterwards but the fitted attributes.

        If training that goes on (``go_on``) fails at any step, or Ctrl-C stops a later one, the estimator is what it
        was before.
        """
        running = Running(one_pass=one_pass)
        with or_unchanged(self, unless=lambda: running.finished) if go_on else contextlib.nullcontext():
            self._running = running
            try:
                yield running
            finally:
                del self._running

    def _end_fit(self, data: FitData, start: float) -> None:
        """Log a fit that began at the `time.perf_counter` value ``start``; raise KeyboardInterrupt if cut short."""
        self._log_fit(data, start)
        self._running.finished = True
        if self._running.interrupted:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _checkpointed(self, data: FitData, seed: int, go_on: bool) -> Iterator[int]:
        """Run a fit with the file that ``checkpoint`` names, if any, and remove the file at the end.

        A fit that is interrupted, or fails, leaves the file. The block gets the seed: that of an earlier file, if any.
        """
        if self.checkpoint is None:
            yield seed
            return
        if self._together:
            raise ValueError(
                "checkpoint works with one process only: with device='distributed' each process has its own random "
                "numbers. Set checkpoint=None."
            )
        earlier = [epoch["train_loss"] for epoch in self.history_] if go_on else []
        with claimed(self.checkpoint, fit_fingerprint(self, data, earlier, self._running.one_pass)) as files:
            found = files.earlier_seed()
            seed = seed if found is None else found
            self._running.checkpoint = replace(files, seed=seed)
            yield seed
            if not self._running.interrupted:
                files.remove()

    def _divided(self, data: FitData, seed: int) -> tuple[FitData, FitData | None]:
        """Return the rows to train on, and the validation rows if ``early_stopping`` is on."""
        if not self.early_stopping:
            return data, None
        rng = np.random.RandomState(seed)
        kept, out = validation_rows(data.n_inliers, data.codes, self.validation_fraction, rng, self._least_held_out)
        order = rng.permutation(data.n_auxiliary)
        n_out = min(math.ceil(self.validation_fraction * len(order)), len(order) - 1)
        # A single auxiliary outlier is in both parts.
        return data.part(kept, np.sort(order[n_out:])), data.part(out, np.sort(order[:n_out] if n_out > 0 else order))

    def _rows_and_held_out(self, data: FitData, held_out: FitData | None) -> TrainingRows:
        """Return the rows to train on, with the validation rows."""
        rows = self._training_rows(data)
        rows.held_out = None if held_out is None else self._training_rows(held_out)
        return rows

    def _learn_front(self, data: FitData) -> None:
        """Learn the preprocessing before the network, and make a module of it."""
        self._fit_representation(data)
        self._set_front(resolve_device(self.device))

    def _training_rows(self, data: FitData) -> TrainingRows:
        """Return the represented rows on the device of the training."""
        return TrainingRows(
            data.X,
            data.inlier_indices,
            self._front,
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

    def _saved(self):
        state = super()._saved()
        # Callbacks may hold anything, open files included.
        state.pop("callbacks_", None)
        return state

    def _forget(self):
        super()._forget()
        for name in ("_state", "_seed", "_built_by"):
            self.__dict__.pop(name, None)

    def _inlier_chunks(self, data: FitData) -> Iterator[np.ndarray]:
        """Iterate over the in-distribution rows: images in their shape, uint8 pixels scaled to [0, 1]."""
        return (self._arranged(chunk) for chunk in chunks(data.X, data.inlier_indices))

    def _draw_seed(self) -> int:
        """Draw the seed of this fit; it is the same in all processes that train together."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        if not self._together:
            return seed
        return distributed.first(seed)

    @property
    def _draws_alone(self) -> bool:
        """Whether only skood's own code takes part in a fit; other code may use torch's global generator."""
        ours = type(self).__module__.partition(".")[0] == __package__.partition(".")[0]
        return ours and all(map(_is_plain, self.get_params(deep=False).values()))

    @property
    def _together(self) -> bool:
        """Whether other processes take part in the training."""
        return isinstance(self.device, str) and self.device == "distributed"

    @property
    def _progress(self) -> str | None:
        """Title of the progress bar; None shows no bar."""
        if not self.verbose:
            return None
        name, fold = type(self).__name__, self._running.fold
        return name if fold is None else f"{name}, {fold.title}"

    def _log_fit(self, data: FitData, start: float) -> None:
        """Log one record of a fit that began at the `time.perf_counter` value ``start``; ``record.fit`` holds it."""
        found = {
            "estimator": type(self).__name__,
            "n_rows": data.n_inliers,
            "n_auxiliary": data.n_auxiliary,
            "n_features": self.n_features_in_,
            "n_epochs": len(self.history_),
            "seconds": time.perf_counter() - start,
            "device": str(device_of(self.net_.module_)),
            "interrupted": self._running.interrupted,
        }
        last = self.history_[-1] if len(self.history_) else {}
        found |= {name: value for name, value in last.items() if name.endswith("_loss") or name.startswith("valid_")}
        text = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in found.items()
        )
        _LOGGER.info("fitted: %s", text, extra={"fit": found})

    def _own_share(self, data: TrainingRows) -> TrainingRows:
        """Return the rows that this process trains on: all, unless others take part."""
        if not self._together:
            return data
        return data.share(*distributed.place())

    def _module_to_train(self) -> nn.Module:
        """Return a copy of the trained module, as it was at the end of the training; frozen weights are shared."""
        shared = {id(parameter): parameter for parameter in self.module_.parameters() if not parameter.requires_grad}
        return deep_copy(self.module_, shared)

    def _earlier_training(self) -> dict:
        """Return the state at the end of the earlier training: all of it only if it was fitted to go on."""
        history = self.history_
        found: dict = {"epochs": self.net_.epochs, "epochs_planned": self.net_.epochs_planned, "history": history}
        found["phase"] = history[-1].get("phase") if len(history) else None
        return (self._state or {}) | found

    def _train(self, data: TrainingRows, go_on: bool = False) -> None:
        """Build and train the module, or train the fitted one further; call it within `skood.training.fitting`.

        It sets ``net_``, ``history_`` and ``callbacks_``. If Ctrl-C cut the training short, it warns and sets
        ``_running.interrupted``; a KeyboardInterrupt before the end of the first epoch is raised.
        """
        module = self._module_to_train() if go_on else self._build_module(data)
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"{type(self).__name__}._build_module must return a torch.nn.Module; it returned a "
                f"{type(module).__name__}."
            )
        module = module.to(data.device)
        if self.image_shape_ is not None:
            module = prefer_channels_last(module)
        n_rows, data, running = len(data), self._own_share(data), self._running
        options = {
            "batch_size": self.batch_size,
            "lr": self.lr,
            "optimizer": self.optimizer,
            "precision": self.precision,
            "callbacks": self.callbacks,
            "progress": self._progress,
            "together": self._together,
            "patience": self.n_iter_no_change if self.early_stopping else None,
            "midway": running.midway,
            "stoppable": "early_stopping" in self.get_params(deep=False),
            "state": self._earlier_training() if go_on else None,
            "checkpoint": running.checkpoint,
            "keeps_state": (self.warm_start or running.one_pass) and running.fold is None,
        }
        phases = [] if running.interrupted else self._phases(len(data))
        if running.fold is not None:
            phases = running.fold.as_long(phases, n_rows, self.batch_size)
        options |= self._training_options()
        if running.one_pass:
            # A schedule would need the number of passes to come.
            phases = [phase._replace(max_epochs=1) for phase in phases if phase.max_epochs > 0]
            options["schedule"] = "constant"
        n_before = len(self.history_) if go_on else 0
        net = training.train(module, data, phases, **options)
        if net.interrupted and len(net.history) == n_before:
            raise KeyboardInterrupt
        running.interrupted = running.interrupted or net.interrupted
        self._state = net.state
        if self._state is not None:
            # The estimator has the history already.
            del self._state["history"]
        self.history_, self.callbacks_ = training.trim(net)
        self.net_ = net
        # The fit that a fold belongs to warns by itself.
        if running.interrupted and running.fold is None:
            training.warn_interrupted(type(self).__name__, self.history_)

    @property
    def _in_shape(self) -> tuple[int, ...]:
        """Shape of a row as the network takes it."""
        return self.image_shape_ or (self.n_features_in_,)

    def _apply(self, function, X, indices=None, represent=None) -> np.ndarray:
        """Return ``function(module, rows)`` of validated rows, block by block; see `apply_in_blocks`."""
        module = self.net_.module_
        represent = self._front_on(device_of(module)) if represent is None else represent
        return apply_in_blocks(module, X, indices, represent, function, self._in_shape)


def _is_plain(value: object) -> bool:
    """Return whether a parameter is plain data: no function, module, estimator or callback."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    values = (str, Number, np.generic, np.ndarray, np.random.RandomState, torch.device)
    return value is None or isinstance(value, values)


def _same(one: Any, other: Any) -> bool:
    """Return whether two values of a parameter are the same: one object, or equal ones."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    try:
        return joblib.hash(one) == joblib.hash(other)
    except Exception:  # what cannot be pickled fails in many ways
        return False
