"""The skorch net that takes the steps of phases on every batch; `skood.training.trainer` runs it."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer
from skorch.history import History
from torch import Tensor, nn

from .._plain import made_plain, restored
from ..networks.copies import deep_copy
from ..networks.heads import NOTHING_TO_TRAIN
from . import distributed
from .batches import TrainingRows
from .checkpoint import CheckpointFile
from .device import autocast
from .going_on import restore, snapshot
from .optim import WeightAverage, factor_at, make_optimizer, not_taken
from .phases import Loss, Phase, Step, name_of, parts_of
from .watching import HeldOut, trained_state


@contextlib.contextmanager
def training_only(module: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Run a block in which, of the module's parameters, only ``trained`` get gradients.

    So a step does not spend time on gradients that it does not use.
    """
    kept = set(map(id, trained))
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in kept]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


class DetectorNet(NeuralNet):
    """Train a module by the steps of phases, as a skorch net.

    An epoch sums its loss on the device and reads it once, because with every reading the CPU waits for the device. If
    a callback listens to batches (``on_batch_begin``, ``on_batch_end``, ``on_grad_computed``), skorch's own epoch runs
    instead, with its per-batch history.

    Parameters
    ----------
    module : torch.nn.Module
        The module. It is trained in place, one `Phase` after the other; see `begin`.
    schedule : callable or None, default=None
        Maps the share of a phase that is done, in [0, 1], to a factor on the learning rate. None keeps the rate
        constant.
    weight_decay : float or None, default=None
        Weight decay of a named optimiser. None means torch's default.
    max_grad_norm : float or None, default=None
        Gradients are clipped to this norm. None does not clip.
    average : WeightAverage or None, default=None
        An average of the weights, which is updated after each batch.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision in which losses are computed, see `skood.training.autocast`.
    together : bool, default=False
        Whether other processes train the same module, see `skood.training.distributed`.
    **kwargs
        skorch's own parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        schedule: Callable[[float], float] | None = None,
        weight_decay: float | None = None,
        max_grad_norm: float | None = None,
        average: WeightAverage | None = None,
        precision: str = "auto",
        together: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, criterion=nn.Identity, train_split=None, **kwargs)
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.average = average
        self.precision = precision
        self.together = together
        self.steps: tuple[Step, ...] = ()
        self.augment: Callable[[Tensor], Tensor] | None = None
        self.phase_name: str | None = None
        self.held_out: HeldOut | None = None
        # Scores rows for callbacks as the estimator would if the training ended now.
        self.midway: Any = None
        self.interrupted = False
        # State at the end of the training, kept if training is to go on from there.
        self.state: dict[str, Any] | None = None
        self.memory: Any = None
        # Auxiliary outliers that come next, when a training continues.
        self.queue: Tensor | None = None
        # Epochs of each phase, 0 for the present one until it ends: callbacks may end a phase early.
        self.epochs: list[int] = []
        # Epochs that each phase would have taken without early stopping.
        self.epochs_planned: list[int] = []

    def take_up(self, state: Mapping[str, Any], phases: Sequence[Phase]) -> list[Phase]:
        """Continue the history of an earlier training, and return the phases that are left, with all their epochs."""
        if not phases:
            # What learns without epochs, as neighbours do, has nothing to continue but its history.
            self._go_on(state)
            return []
        names = [phase.name for phase in phases]
        number = names.index(state["phase"]) if state.get("phase") in names else len(phases) - 1
        n_done = self._go_on(state)
        first, *others = phases[number:]
        # If other phases follow, an interrupt cut this phase short: it is finished, not begun again.
        max_epochs = max(first.max_epochs, n_done) if others else first.max_epochs + n_done
        return [first._replace(max_epochs=max_epochs), *others]

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """Return the state for pickles: skorch's state, in which the module is a separate pickle."""
        return _unpickled, (type(self), super().__getstate__())

    def __deepcopy__(self, memo: dict[int, Any]) -> DetectorNet:
        """Return a copy without a pickle, which could not hold `torch.nn.utils.parametrizations`."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(deep_copy(dict(vars(self)), memo))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for other files, such as those of skops, which hold no pickle: plain arrays."""
        return made_plain(dict(vars(self)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the attributes from a file of plain arrays; a pickle in it is not read."""
        self.__dict__.update(restored(state), device="cpu")

    def _go_on(self, state: Mapping[str, Any]) -> int:
        """Take over the history and the counters of a state; return the number of epochs of its phase."""
        self.history_ = History(copy.deepcopy(list(state["history"])))
        *self.epochs, n_done = state["epochs"] or [0]
        self.epochs_planned = list(state["epochs_planned"][: len(self.epochs)])
        return n_done

    def train_phases(
        self,
        data: TrainingRows,
        phases: Sequence[Phase],
        lr: float,
        state: Mapping[str, Any] | None,
        checkpoint: CheckpointFile | None,
    ) -> None:
        """Train one phase after the other, until all have ended or the user interrupts; see `train`."""
        for phase in phases:
            _check_taken(self.module_, data, phase)
        if state is not None:
            phases = self.take_up(state, phases)
        saved, first = None, 0
        if checkpoint is not None:
            saved = checkpoint.read()
        if checkpoint is not None and saved is not None:
            first = saved["number"]
            if not 0 <= first < len(phases) or saved["phase"] != phases[first].name:
                raise checkpoint.refuse("does not fit this training, which has other phases")
            self._go_on(saved)
        for number, phase in enumerate(phases[first:], start=first):
            if self.interrupted:
                break
            self.begin(phase, lr, number)
            ended = known = False
            if checkpoint is not None and saved is not None and number == first:
                self._restore_saved(saved, checkpoint)
                known = saved["ended"]
                ended = known or (self.held_out is not None and self.held_out.exhausted)
            elif state is not None and number == 0:
                restore(self, state, anew=True)
            if not ended:
                self.partial_fit(data)
            self.end(phase)
            if checkpoint is not None and not known and not self.interrupted:
                checkpoint.write(snapshot(self, ended=True))

    def _restore_saved(self, saved: Mapping[str, Any], checkpoint: CheckpointFile) -> None:
        """Restore the state of a file; refuse a file that was changed and does not fit."""
        try:
            if saved["module"].keys() != trained_state(self.module_).keys():
                raise KeyError("other weights")
            restore(self, saved, anew=False)
        except Exception as error:
            raise checkpoint.refuse(f"does not fit this training ({type(error).__name__}: {error})") from error

    def begin(self, phase: Phase, lr: float, number: int) -> None:
        """Prepare for a phase: take over its steps and settings, and make new optimisers for them.

        Parameters
        ----------
        phase : Phase
            The phase to come.
        lr : float
            Initial learning rate if the phase has none.
        number : int
            Index of the phase in this training.
        """
        self.steps, self.phase_name, self.max_epochs = tuple(phase.steps), phase.name, phase.max_epochs
        self.augment, self.memory, self.queue, self.batches_ = phase.augment, phase.memory, None, None
        self.lr = lr if phase.lr is None else phase.lr
        self.iterator_train__auxiliary_ratio = phase.auxiliary_ratio
        self.iterator_train__least_rows = phase.least_rows
        self._initialize_optimizer()
        if self.held_out is not None:
            self.held_out.begin()
        # Epochs of the phase that the schedule does not count.
        self.n_epochs_before = 0
        self.epochs.append(0)
        self.number = number

    @property
    def n_done(self) -> int:
        """Number of epochs of the present phase that are finished."""
        return len(self.history) - sum(self.epochs[:-1])

    @property
    def optimizer_names(self) -> list[str]:
        """Names of the attributes that hold the optimisers of the present phase."""
        return [self._optimizer_name(trains) for trains in parts_of(self.steps)]

    def end(self, phase: Phase) -> None:
        """Note the number of epochs of a phase, and restore the best weights if there are held-out rows.

        Parameters
        ----------
        phase : Phase
            The phase that was trained.
        """
        self.epochs[-1] = self.n_done
        stopped = self.held_out is not None and self.held_out.exhausted
        self.epochs_planned.append(phase.max_epochs if stopped else self.n_done)
        if self.held_out is not None:
            self.held_out.restore(self)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        """Return the callbacks that every net has."""
        # skorch's default callbacks also print every epoch, and expect a validation split.
        return [("epoch_timer", EpochTimer())]

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> DetectorNet:
        """Make an optimiser for each submodule that a step trains, and count batches anew. skorch calls this."""
        for trains in parts_of(self.steps):
            trained = self.module_ if trains is None else self.module_.get_submodule(trains)
            parameters = [p for p in trained.parameters() if p.requires_grad]
            if not parameters:
                raise ValueError(NOTHING_TO_TRAIN)
            optimizer = make_optimizer(self.optimizer, parameters, self.lr, self.weight_decay)
            setattr(self, self._optimizer_name(trains), optimizer)
        self.n_batches_, self.best_loss_ = 0, math.inf
        return self

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **fit_params: Any) -> DetectorNet:
        """Train for some epochs; if interrupted, leave the unfinished epoch out of the history. skorch calls this."""
        try:
            epochs = self.max_epochs - self.n_done if epochs is None else epochs
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except KeyboardInterrupt:
            # skorch's partial_fit catches the error and ends the training, whether a callback or a person stopped it.
            if self.history and "train_loss" not in self.history[-1]:
                self.history.pop()
            raise

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return the batches of a dataset; continue the queue of auxiliary outliers, if any. skorch calls this."""
        batches = super().get_iterator(dataset, training)
        n_auxiliary = 0 if dataset.auxiliary_indices is None else len(dataset.auxiliary_indices)
        if self.queue is not None and len(self.queue) and int(self.queue.max()) < n_auxiliary:
            batches.auxiliary_queue = self.queue.to(dataset.device)
        self.batches_ = batches
        return batches

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Callable, **fit_params: Any
    ) -> None:
        """Take the steps of all batches and record the mean loss of a row. skorch calls this."""
        if iterator is None:
            # skorch calls this once more for its validation split, which is never used here.
            return
        self._set_training(True)
        self.n_batches_total_ = (self.max_epochs - self.n_epochs_before) * len(iterator)
        self.batch_callbacks_ = any(_listens_to_batches(callback) for _, callback in self.callbacks_)
        if self.batch_callbacks_:
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            losses, sizes = zip(*self.history[-1, "batches", :, ("train_loss", "train_batch_size")], strict=True)
            loss = float(np.average(losses, weights=sizes))
        else:
            # Losses are weighted by rows, because the last batch may have another size.
            total, n_rows, n_batches = 0.0, 0, 0
            for batch in iterator:
                size = len(batch[0])
                total = total + step_fn(batch)["loss"] * size
                n_rows += size
                n_batches += 1
            loss = float(total) / n_rows
            self.history.record("train_batch_count", n_batches)
            # Callbacks that save the net look up the last batch in the history.
            self.history.new_batch()
            self.history.record_batch("train_batch_size", n_rows)
        self._record_loss(loss)
        if self.held_out is not None:
            self.held_out.record(self)

    def _record_loss(self, loss: float) -> None:
        """Record the loss of an epoch; raise a ValueError if it is not finite."""
        epoch = len(self.history)
        if self.together:
            # Callbacks may stop the training because of the loss, and all processes must stop at the same time.
            loss = distributed.mean(loss)
        if self.phase_name is not None:
            self.history.record("phase", self.phase_name)
        if not math.isfinite(loss):
            raise ValueError(
                f"Training diverged: the loss is {loss} after epoch {epoch}. Lower lr (now {self.lr:g}) or scale the "
                f"features."
            )
        self.history.record("train_loss", loss)
        self.history.record("train_loss_best", loss < self.best_loss_)
        self.best_loss_ = min(loss, self.best_loss_)

    def train_step(self, batch: tuple[Tensor, dict[str, Tensor]], **fit_params: Any) -> dict[str, Any]:
        """Take all steps of the phase on a batch and return the sum of their losses as ``loss``. skorch calls this."""
        rows, extra = batch
        if self.augment is not None:
            rows = self.augment(rows)
        if self.batch_callbacks_:
            # A callback may have put the module into evaluation mode.
            self._set_training(True)
        if self.schedule is not None:
            # The last batch of the phase has share 1.
            factor = factor_at(self.schedule, min(self.n_batches_ / max(self.n_batches_total_ - 1, 1), 1.0))
        self.n_batches_ += 1
        total: Tensor | float = 0.0
        for step in self.steps:
            optimizer = getattr(self, self._optimizer_name(step.trains))
            if self.schedule is not None:
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * factor
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            with training_only(self.module_, trained):
                with autocast(self.precision, rows.device):
                    loss = _one_number(step.loss, step.loss(self.module_, rows, **extra))
                # For all parameters, not only for those of this optimiser, because callbacks see all gradients.
                self.module_.zero_grad(set_to_none=True)
                loss.backward()
            if self.together:
                distributed.average_gradients(trained)
            if self.batch_callbacks_:
                named = list(self.module_.named_parameters())
                self.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
            if self.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(trained, self.max_grad_norm)
            optimizer.step()
            # Summed over many batches, in half precision it would stop growing.
            total = total + loss.detach().float()
        if self.average is not None:
            self.average.update(self.module_)
        return {"loss": total, "y_pred": None}

    def _optimizer_name(self, trains: str | None) -> str:
        """Return the name of the attribute that holds the optimiser of a submodule."""
        # skorch expects an optimiser called "optimizer_".
        number = parts_of(self.steps).index(trains)
        return "optimizer_" if number == 0 else f"optimizer{number}_"


def _check_taken(module: nn.Module, data: TrainingRows, phase: Phase) -> None:
    """Raise a ValueError that names a loss if it does not take what the batches of its phase hold."""
    extra = {"labels": data.labels is not None, "auxiliary": phase.auxiliary_ratio > 0}
    names = [name for name, given in extra.items() if given]
    for step in phase.steps:
        reason = not_taken(step.loss, module, data, **dict.fromkeys(names))
        if reason:
            raise ValueError(
                f"{name_of(step.loss)} is called with {', '.join(['module', 'rows', *names])}, and does not take that: "
                f"{reason}. Batches have labels if _encode_labels returns the classes of the rows, and auxiliary "
                f"outliers if _auxiliary_rows_train is True."
            )


def _one_number(function: Loss, loss: Any) -> Tensor:
    """Return a loss; raise a ValueError that names its function if it is not one number, or has no gradient."""
    if isinstance(loss, Tensor) and loss.numel() == 1:
        if not loss.requires_grad:
            raise ValueError(
                f"{name_of(function)} returned a loss that depends on no parameter that is trained: compute it by "
                f"torch from what the module returns, without detach, item or numpy, and freeze less of the network."
            )
        return loss
    given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
    raise ValueError(
        f"{name_of(function)} must return one number as a tensor, such as the mean over the rows; it returned {given}."
    )


def _listens_to_batches(callback: Callback) -> bool:
    """Return whether a callback overrides a hook that is called for each batch."""
    return any(
        getattr(type(callback), name, None) is not getattr(Callback, name)
        for name in ("on_batch_begin", "on_batch_end", "on_grad_computed")
    )


def _unpickled(kind: type[DetectorNet], state: dict[str, Any]) -> DetectorNet:
    """Return a net with the state that skorch pickled."""
    net = kind.__new__(kind)
    NeuralNet.__setstate__(net, state)
    return net
