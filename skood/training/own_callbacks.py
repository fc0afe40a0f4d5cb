"""Callbacks that a training has of its own: a progress bar, checkpoints, and an early end."""

from __future__ import annotations

import warnings
from typing import Any

from skorch.callbacks import Callback, EpochTimer, LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from .checkpoint import CheckpointFile
from .going_on import snapshot
from .net import DetectorNet


class ProgressBar(Callback):
    """Show a progress bar over the epochs of a phase, with the time left and the last losses, on standard error."""

    def __init__(self, description: str = "") -> None:
        self.description = description

    def on_train_begin(self, net: DetectorNet, *args: Any, **kwargs: Any) -> None:
        """Open a bar for the phase."""
        title = self.description if net.phase_name is None else f"{self.description}, {net.phase_name}"
        self.bar_ = tqdm(total=net.max_epochs, initial=net.n_done, desc=title, unit="epoch", leave=True)

    def on_epoch_end(self, net: DetectorNet, *args: Any, **kwargs: Any) -> None:
        """Show the training loss and all values of held-out rows, and move the bar on."""
        last = net.history[-1]
        shown = {"loss": last["train_loss"]}
        shown |= {name: value for name, value in last.items() if name.startswith("valid_") and type(value) is float}
        self.bar_.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, refresh=False)
        self.bar_.update()

    def on_train_end(self, net: DetectorNet, *args: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.bar_.close()


class SaveState(Callback):
    """Write a checkpoint after each epoch."""

    def __init__(self, checkpoint: CheckpointFile) -> None:
        self.checkpoint = checkpoint

    def on_epoch_end(self, net: DetectorNet, *args: Any, **kwargs: Any) -> None:
        """Write the state of the training, the epoch that has just ended included."""
        # skorch records the duration of an epoch only after these callbacks, so the last epoch in a file lacks it.
        self.checkpoint.write(snapshot(net))


class CatchUp(Callback):
    """Bring learning-rate schedulers of a fit that is taken up from a checkpoint to where they were.

    A scheduler that is only told how many steps it took, as skorch's are, goes on from the rate at hand, which is the
    first one again. So all of its steps are repeated: this gives the same rates to the last bit.
    """

    def on_train_begin(self, net: DetectorNet, *args: Any, **kwargs: Any) -> None:
        """Repeat the steps that the schedulers took in the present phase."""
        n_epochs = net.n_done - net.n_epochs_before
        epochs = list(net.history)[len(net.history) - n_epochs :]
        for _, callback in net.callbacks_:
            if not isinstance(callback, LRScheduler):
                continue
            if not isinstance(callback.lr_scheduler_, ReduceLROnPlateau):
                for _ in range(n_epochs if callback.step_every == "epoch" else net.n_batches_):
                    _step(callback.lr_scheduler_)
            elif callback.step_every == "epoch" and not callable(callback.monitor):
                for epoch in epochs:
                    callback.lr_scheduler_.step(epoch[callback.monitor])


def _step(scheduler: Any) -> None:
    """Let a scheduler take a step; torch would warn that the optimiser has taken none yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler", UserWarning)
        scheduler.step()


class StopEarly(Callback):
    """End a phase when the loss of held-out rows has not fallen for ``patience`` epochs."""

    def on_epoch_end(self, net: DetectorNet, *args: Any, **kwargs: Any) -> None:
        """Raise KeyboardInterrupt, by which skorch ends a training."""
        if net.held_out is not None and net.held_out.exhausted:
            raise KeyboardInterrupt


# Callbacks that are not the user's.
OURS = (EpochTimer, ProgressBar, SaveState, CatchUp, StopEarly)
