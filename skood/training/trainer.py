"""Train any module: `train`, and what is done before and after it.

Nothing here knows a method. A method passes a module, the rows and one or more `Phase` to `train`, which returns the
trained skorch net.
"""

from __future__ import annotations

import contextlib
import copy
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from skorch.callbacks import Callback
from skorch.history import History
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._warn import warn_user
from ..networks.randomness import directly
from . import distributed
from .batches import TensorBatches, TrainingRows
from .callbacks import begin_anew, check_callbacks, own_places, prepared
from .checkpoint import CheckpointFile
from .device import own_stream
from .going_on import snapshot
from .net import DetectorNet
from .optim import WeightAverage, make_schedule
from .own_callbacks import OURS, CatchUp, ProgressBar, SaveState, StopEarly
from .phases import Phase
from .watching import HeldOut


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
    patience: int | None = None,
    midway: Any = None,
    stoppable: bool = False,
    state: Mapping[str, Any] | None = None,
    keeps_state: bool = False,
    checkpoint: CheckpointFile | None = None,
) -> DetectorNet:
    """Train ``module`` in place and return the skorch net around it.

    Call it within `skood.training.fitting`. A KeyboardInterrupt ends the training and not the program: then
    ``net.interrupted`` is True, and ``net.history`` holds the epochs that were finished. A callback that stops the
    training ends only the present phase.

    Parameters
    ----------
    module : torch.nn.Module
        The module, on the device of the rows.
    data : TrainingRows
        The rows. If ``data.held_out`` is set, the loss of these rows is recorded after each epoch as ``valid_loss``.
    phases : sequence of Phase
        The phases, which are trained one after the other. Phases without epochs are left out.
    batch_size, lr, optimizer, weight_decay, max_grad_norm, schedule, precision, callbacks
        The parameters of the estimators. ``optimizer`` is a name of `OPTIMIZERS` or
        ``(parameters, lr=...) -> optimizer``, ``schedule`` a name of `SCHEDULES` or a function that maps the share of a
        phase that is done to a factor on the learning rate.
    average : float in [0, 1) or None, default=None
        Decay of a moving average of the weights, which replaces the weights at the end, see `WeightAverage`. None
        averages nothing.
    progress : str or None, default=None
        Title of a progress bar. None shows no bar.
    together : bool, default=False
        Whether the processes of `skood.training.distributed` train the module together, each on its own ``data``, a
        `TrainingRows.share`. They start from the first process's module, and all end with the same module.
    patience : int or None, default=None
        Number of epochs without a lower loss of ``data.held_out`` after which a phase ends; each phase keeps the
        weights of its lowest loss. None ends no phase early, and keeps the last weights.
    midway : object or None, default=None
        Scores rows for callbacks as the estimator would if the training ended now, see
        `skood.estimator.midway.Midway`.
    stoppable : bool, default=False
        Whether the estimator has the parameter ``early_stopping``, which error messages then advise.
    state : Mapping or None, default=None
        State of an earlier training that is to go on, from `skood.training.going_on.snapshot`. The phase in which it
        ended takes as many more epochs as ``phases`` says; phases before it are skipped. It has at least "epochs" and
        "history"; other parts that it lacks begin anew.
    keeps_state : bool, default=False
        Whether to store the state at the end of the training as ``net.state``.
    checkpoint : CheckpointFile or None, default=None
        Written after each epoch. If the file exists already, the training continues from it.

    Returns
    -------
    net : DetectorNet
        Its ``module_`` is ``module``, in evaluation mode.

    Raises
    ------
    ValueError
        If the loss of an epoch is not finite, if the module has nothing to train, if ``optimizer`` or ``schedule`` are
        functions of another kind, or if a callback would not work with the other settings.
    """
    if together:
        distributed.copy_first(module)
    # Callbacks keep state, and scikit-learn forbids that `fit` changes what an estimator's constructor was given.
    callbacks = prepared(callbacks)
    recorded = {"valid_loss", "valid_loss_best"} if data.held_out is not None else set()
    for callback in callbacks:
        names = {*getattr(callback[1] if isinstance(callback, tuple) else callback, "records", ())}
        if names & recorded:
            raise ValueError(f"callbacks: {min(names & recorded)!r} would be recorded twice; leave one of them out.")
        recorded |= names
    keeping = "weight_average=None" if average is not None else "early_stopping=False" if patience else None
    ways = ["early_stopping=True records 'valid_loss'"] if stoppable else []
    if midway is not None:
        ways.append("skood.callbacks.ValidationScore(X_val, y_val) records 'valid_auroc'")
    ways.append(f"{'or ' if ways else ''}monitor 'train_loss' or 'train_loss_best'")
    check_callbacks(callbacks, schedule, phases, keeping, recorded, ways)
    phases = [phase for phase in phases if phase.max_epochs > 0]
    begin_anew(callbacks)
    if progress is not None:
        callbacks.append(("progress", ProgressBar(progress)))
    if checkpoint is not None:
        callbacks += [("catch_up", CatchUp()), ("save_state", SaveState(checkpoint))]
    if data.held_out is not None:
        # The last one, because callbacks after it would not see an epoch at which it raises.
        callbacks.append(("stop_early", StopEarly()))
    net = DetectorNet(
        module,
        schedule=make_schedule(schedule),
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
        iterator_train__least_rows=2,
        callbacks=callbacks,
        device=str(data.device),
        verbose=0,
    )
    with own_places(callbacks):
        net.initialize()
        net.held_out = None if data.held_out is None else HeldOut(data.held_out, patience)
        net.midway = midway
        own = own_stream(data.device) if together else contextlib.nullcontext()
        with _noting_interrupts(net), directly(), own:
            net.train_phases(data, phases, lr, state, checkpoint)
            if keeps_state and phases:
                net.state = snapshot(net, ended=True)
    if net.average is not None:
        net.module_.load_state_dict(net.module_.state_dict() | net.average.state)
    if together:
        # During training only gradients are shared, so each process has its own statistics of batch normalisation.
        distributed.copy_first(net.module_)
    net.module_.eval()
    return net


@contextlib.contextmanager
def _noting_interrupts(net: DetectorNet) -> Iterator[None]:
    """Run a block in which Ctrl-C sets ``net.interrupted`` and then does what it did before."""
    # A KeyboardInterrupt alone does not tell who stopped the training: callbacks such as EarlyStopping raise it, too,
    # and Ctrl-C may come while one of them runs.
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        # Python runs handlers in the main thread only. If the signal is ignored, there is no handler to call.
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        """Note the interrupt, and call the handler that was there before."""
        net.interrupted = True
        previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def as_net(module: nn.Module, device: torch.device) -> DetectorNet:
    """Return a net around a module that is trained already, like a net after `train` and `trim`."""
    # The optimiser is never used; a skorch net must have one.
    net = DetectorNet(module, optimizer="sgd", lr=1.0, device=str(device), callbacks=None, verbose=0).initialize()
    module.eval()
    trim(net)
    return net


def trim(net: DetectorNet) -> tuple[History, list[Callback]]:
    """Drop from a net, in place, what only training needs, so that it is small when pickled.

    Parameters
    ----------
    net : DetectorNet
        The trained net.

    Returns
    -------
    history : skorch.history.History
        The net's history, which the net no longer has.
    callbacks : list of skorch.callbacks.Callback
        The user's callbacks in their final state, which the net no longer has.
    """
    history = copy.copy(net.history)
    callbacks = [callback for _, callback in net.callbacks_ if not isinstance(callback, OURS)]
    net.trim_for_prediction()
    net.steps, net.augment, net.schedule, net.phase_name, net.average = (), None, None, None, None
    net.held_out, net.midway, net.memory, net.queue, net.batches_, net.state = (None,) * 6
    # skorch pickles the module that the constructor got beside the trained one; here both are the same module.
    net.module = type(net.module_)
    return history, callbacks


def reestimate_batch_norm(
    norms: Iterable[nn.Module], forward: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> None:
    """Replace the running statistics of layers of batch normalisation by those of some batches, in place.

    Parameters
    ----------
    norms : iterable of torch.nn.Module
        The layers. Layers of another kind stay as they are.
    forward : callable
        ``forward(batch)`` runs the module that has the layers. The module must be in evaluation mode, so that dropout
        drops nothing, as in scoring.
    batches : iterable of Tensor
        The batches, weighted by their numbers of rows. Without batches nothing changes.
    """
    tracking = [norm for norm in norms if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    if not tracking:
        return
    momenta = [norm.momentum for norm in tracking]
    n_rows = 0
    for batch in batches:
        n_rows += len(batch)
        for norm in tracking:
            # The momentum is the batch's share of all rows so far, which makes the statistics a weighted mean over all
            # batches. For the first batch it is 1, which replaces the old statistics.
            norm.momentum = len(batch) / n_rows
            norm.train()
        with torch.no_grad():
            forward(batch)
    for norm, momentum in zip(tracking, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def warn_interrupted(name: str, history: Sequence[dict]) -> None:
    """Warn that the fit of the estimator ``name`` was interrupted after the epochs in ``history``."""
    when = f"after {len(history)} epochs" if history else "before its first epoch"
    phase = history[-1].get("phase") if history else None
    where = "" if phase is None else f", in the phase {phase!r}"
    warn_user(
        f"{name}.fit was interrupted {when}{where}; the estimator is fitted with what was learnt until then.",
        RuntimeWarning,
    )
