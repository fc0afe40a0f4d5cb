"""Train any module: a skorch net that takes the `Step`s of `Phase`s, and the callbacks around it.

Nothing here knows a method. A method hands over a module, the rows and one or more `Phase`; `train` returns the trained
skorch net.
"""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer, LRScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from .._warn import warn_user
from . import distributed
from .batches import TensorBatches, TrainingRows
from .device import autocast, own_stream
from .optim import SCHEDULES, WeightAverage, make_optimizer
from .phases import Phase, Step


@contextlib.contextmanager
def training_only(module: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Take gradients of these parameters and of no others of the module: a step is spared what it has no use for."""
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
    """A skorch net that trains by `Step`, with an epoch that keeps the loss on the device and reads it once.

    As soon as a callback listens to batches (``on_batch_begin``, ``on_batch_end``, ``on_grad_computed``), skorch's own
    epoch runs instead, with its per-batch history.

    Parameters
    ----------
    module : torch.nn.Module
        Trained in place, one `Phase` after the other; see `begin`.
    schedule : callable or None
        Maps the share of a phase that is done, in [0, 1], to a factor on the learning rate.
    weight_decay : float or None
        Of named optimisers; None is torch's default.
    max_grad_norm : float or None
        Longer gradients are shortened to this norm; None leaves them as they are.
    average : WeightAverage or None
        Updated after each batch.
    precision : {"auto", "float32", "bfloat16"}
        See `autocast`.
    together : bool
        Whether other processes train the same module, see `skood.training.distributed`.
    **kwargs
        skorch's own parameters.
    """

    def __init__(
        self,
        module,
        *,
        schedule=None,
        weight_decay=None,
        max_grad_norm=None,
        average=None,
        precision="auto",
        together=False,
        **kwargs,
    ):
        super().__init__(module, criterion=nn.Identity, train_split=None, **kwargs)
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.average = average
        self.precision = precision
        self.together = together
        self.steps = ()
        self.augment = None
        self.phase_name = None
        self.interrupted = False

    def begin(self, phase: Phase, lr: float) -> None:
        """Prepare for a phase: its steps, each with an optimiser of its own; ``lr`` if the phase has no other."""
        self.steps, self.phase_name, self.max_epochs = tuple(phase.steps), phase.name, phase.max_epochs
        self.augment = phase.augment
        self.lr = lr if phase.lr is None else phase.lr
        self.iterator_train__auxiliary_ratio = phase.auxiliary_ratio
        self._initialize_optimizer()

    @property
    def _default_callbacks(self):
        return [("epoch_timer", EpochTimer())]

    def initialize_optimizer(self, *_):
        for trains in _parts(self.steps):
            trained = self.module_ if trains is None else self.module_.get_submodule(trains)
            parameters = [p for p in trained.parameters() if p.requires_grad]
            if not parameters:
                raise ValueError("network has no parameters that could be trained.")
            optimizer = make_optimizer(self.optimizer, parameters, self.lr, self.weight_decay)
            setattr(self, self._optimizer_name(trains), optimizer)
        self.n_batches_, self.best_loss_ = 0, math.inf
        return self

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        try:
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except KeyboardInterrupt:
            # skorch catches it and ends the training, whether a callback raised it to that end or a person did.
            if self.history and "train_loss" not in self.history[-1]:
                self.history.pop()
            raise

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        if iterator is None:
            return
        self._set_training(True)
        self.n_batches_total_ = self.max_epochs * len(iterator)
        self.batch_callbacks_ = any(_listens_to_batches(callback) for _, callback in self.callbacks_)
        if self.batch_callbacks_:
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            losses, sizes = zip(*self.history[-1, "batches", :, ("train_loss", "train_batch_size")], strict=True)
            loss = float(np.average(losses, weights=sizes))
        else:
            total, n_rows, n_batches = 0.0, 0, 0
            for batch in iterator:
                size = len(batch[0])
                total = total + step_fn(batch)["loss"] * size
                n_rows += size
                n_batches += 1
            loss = float(total) / n_rows
            self.history.record("train_batch_count", n_batches)
            # Callbacks that save the net look for a last batch.
            self.history.new_batch()
            self.history.record_batch("train_batch_size", n_rows)
        self._record_loss(loss)

    def _record_loss(self, loss):
        epoch = len(self.history)
        if self.together:
            # What callbacks do by it they do in all processes.
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

    def train_step(self, batch, **fit_params):
        rows, extra = batch
        if self.augment is not None:
            rows = self.augment(rows)
        if self.batch_callbacks_:
            # One of them may have put the module into evaluation mode.
            self._set_training(True)
        if self.schedule is not None:
            factor = self.schedule(min(self.n_batches_ / max(self.n_batches_total_ - 1, 1), 1.0))
        self.n_batches_ += 1
        total = 0.0
        for step in self.steps:
            optimizer = getattr(self, self._optimizer_name(step.trains))
            if self.schedule is not None:
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * factor
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            with training_only(self.module_, trained):
                with autocast(self.precision, rows.device):
                    loss = step.loss(self.module_, rows, **extra)
                # Of all parameters, not only this optimiser's: a callback looks at them all.
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
            total = total + loss.detach()
        if self.average is not None:
            self.average.update(self.module_)
        return {"loss": total, "y_pred": None}

    def _optimizer_name(self, trains: str | None) -> str:
        number = _parts(self.steps).index(trains)
        return "optimizer_" if number == 0 else f"optimizer{number}_"


def _parts(steps: Sequence[Step]) -> list[str | None]:
    """The submodules that steps train, each once."""
    return list(dict.fromkeys(step.trains for step in steps))


def _listens_to_batches(callback: Callback) -> bool:
    return any(
        getattr(type(callback), name, None) is not getattr(Callback, name)
        for name in ("on_batch_begin", "on_batch_end", "on_grad_computed")
    )


class ProgressBar(Callback):
    """A bar over the epochs with the last loss, on standard error."""

    def __init__(self, description=""):
        self.description = description

    def on_train_begin(self, net, **kwargs):
        title = self.description if net.phase_name is None else f"{self.description}, {net.phase_name}"
        self.bar_ = tqdm(total=net.max_epochs, desc=title, unit="epoch", leave=True)

    def on_epoch_end(self, net, **kwargs):
        self.bar_.set_postfix(loss=f"{net.history[-1, 'train_loss']:.4g}", refresh=False)
        self.bar_.update()

    def on_train_end(self, net, **kwargs):
        self.bar_.close()


def train(
    module: nn.Module,
    data: TrainingRows,
    phases: Sequence[Phase],
    *,
    batch_size: int,
    lr: float,
    optimizer: str | Callable = "adam",
    weight_decay: float | None = None,
    max_grad_norm: float | None = None,
    average: float | None = None,
    schedule: str | Callable = "constant",
    precision: str = "auto",
    callbacks: Sequence | None = None,
    progress: str | None = None,
    together: bool = False,
) -> DetectorNet:
    """Train ``module`` in place and return the skorch net around it.

    Call it within `seeded`. A KeyboardInterrupt ends the training, not the program: the net then has
    ``interrupted`` set, and ``history`` holds the epochs that were finished. A callback that stops the training
    ends its phase.

    Parameters
    ----------
    module : torch.nn.Module
    data : TrainingRows
    phases : sequence of Phase
        One after the other; those without epochs are left out.
    batch_size, lr, optimizer, weight_decay, max_grad_norm, schedule, precision, callbacks
        As in the estimators. ``schedule`` is a name of `SCHEDULES` or a function of the share of a phase that is done.
    average : float in [0, 1) or None, default=None
        In the end the module has the moving average of its weights with this decay, see `WeightAverage`.
    progress : str or None, default=None
        Title of a progress bar; None shows none.
    together : bool, default=False
        Whether the processes of `skood.training.distributed` train the module together, each on its ``data``, a
        `TrainingRows.share`. They start from the first one's module, and all end with the same.

    Raises
    ------
    ValueError
        If the loss of an epoch is not finite.
    """
    if together:
        distributed.copy_first(module)
    # Callbacks keep state, and a constructor argument may not change.
    callbacks = copy.deepcopy(list(callbacks or []))
    _check_callbacks(callbacks, schedule, phases, average)
    phases = [phase for phase in phases if phase.max_epochs > 0]
    if len(phases) > 1:
        _begin_anew(callbacks)
    if progress is not None:
        callbacks.append(("progress", ProgressBar(progress)))
    net = DetectorNet(
        module,
        schedule=schedule if callable(schedule) else SCHEDULES[schedule],
        precision=precision,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        average=None if average is None else WeightAverage(module, average),
        together=together,
        optimizer=optimizer,
        lr=lr,
        batch_size=batch_size,
        iterator_train=TensorBatches,
        iterator_train__auxiliary_ratio=0.0,
        callbacks=callbacks,
        device=str(data.device),
        verbose=0,
    )
    net.initialize()
    with _noting_interrupts(net), own_stream(data.device) if together else contextlib.nullcontext():
        for phase in phases:
            if not net.interrupted:
                net.begin(phase, lr)
                net.partial_fit(data)
    if net.average is not None:
        net.module_.load_state_dict(net.module_.state_dict() | net.average.state)
    if together:
        # Statistics of batch normalisation are each process's own until here.
        distributed.copy_first(net.module_)
    net.module_.eval()
    return net


def _check_callbacks(callbacks, schedule, phases, average) -> None:
    for callback in callbacks:
        callback = callback[1] if isinstance(callback, (tuple, list)) else callback
        name = getattr(callback, "__name__", type(callback).__name__)
        if str(getattr(callback, "monitor", "")).startswith("valid"):
            raise ValueError(
                f"callbacks: {name} monitors {callback.monitor!r}, but there is no validation split; monitor "
                f"'train_loss' or 'train_loss_best'."
            )
        if name == "LRScheduler" and schedule != "constant":
            raise ValueError(f"callbacks: {name} would be overruled by schedule={schedule!r}; set schedule='constant'.")
        if name == "LRScheduler" and any(len(_parts(phase.steps)) > 1 for phase in phases):
            raise ValueError(f"callbacks: {name} knows one optimiser, but there are several here; use schedule.")
        if average is not None and getattr(callback, "load_best", False):
            raise ValueError(
                f"callbacks: {name} is to load the best weights, but their average is taken; set load_best=False or "
                f"weight_average=None."
            )


def _begin_anew(callbacks) -> None:
    """Let learning-rate schedulers count from the start of a phase; skorch's count all epochs of the history."""
    for callback in callbacks:
        callback = callback[1] if isinstance(callback, (tuple, list)) else callback
        if isinstance(callback, LRScheduler) and "Plateau" not in str(callback.policy):
            vars(callback).setdefault("last_epoch", -1)


@contextlib.contextmanager
def _noting_interrupts(net: DetectorNet) -> Iterator[None]:
    """Set ``net.interrupted`` on Ctrl-C, and then do what it does anyway.

    A KeyboardInterrupt alone does not tell: callbacks raise it to end the training (EarlyStopping does), and it may
    arrive while one of them runs.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return

    def note(number, frame):
        net.interrupted = True
        previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def as_net(module: nn.Module, device: torch.device) -> DetectorNet:
    """The net around a module that is trained already, as `train` and `trim` leave it."""
    net = DetectorNet(module, optimizer="sgd", lr=1.0, device=str(device), callbacks=None, verbose=0).initialize()
    module.eval()
    trim(net)
    return net


def trim(net: DetectorNet) -> tuple[list, list]:
    """Drop what only training needs, in place; returns the history and the user's callbacks, dropped as well."""
    history = copy.copy(net.history)
    callbacks = [callback for _, callback in net.callbacks_ if not isinstance(callback, (EpochTimer, ProgressBar))]
    net.trim_for_prediction()
    net.steps, net.augment, net.schedule, net.phase_name, net.average = (), None, None, None, None
    # skorch pickles the constructor's module beside the trained one, though they are the same.
    net.module = type(net.module_)
    return history, callbacks


def reestimate_batch_norm(
    norms: Iterable[nn.Module], forward: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> None:
    """Have layers of batch normalisation go by the statistics of these batches, in place.

    Parameters
    ----------
    norms : iterable of torch.nn.Module
        The layers; others than of batch normalisation stay as they are.
    forward : callable
        Runs the module that they are in, in evaluation mode: dropout drops nothing, as in scoring.
    batches : iterable of Tensor
        What it is to be applied to; they weigh by their rows. Where there are none, nothing changes.
    """
    norms = [norm for norm in norms if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    n_rows = 0
    for batch in batches:
        n_rows += len(batch)
        for norm in norms:
            # The first batch replaces what was there.
            norm.momentum = len(batch) / n_rows
            norm.train()
        with torch.no_grad():
            forward(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def warn_interrupted(name: str, history: list) -> None:
    """Say that an estimator's fit was interrupted, but not for nothing; ``history`` has the epochs it finished."""
    when = f"after {len(history)} epochs" if history else "before its first epoch"
    phase = history[-1].get("phase") if history else None
    where = "" if phase is None else f", in the phase {phase!r}"
    warn_user(
        f"{name}.fit was interrupted {when}{where}; the estimator is fitted with what was learnt until then.",
        RuntimeWarning,
    )
