"""Copy the callbacks of a fit, refuse those that would do nothing, and give checkpoints folders of their own."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EpochScoring,
    InputShapeSetter,
    LRScheduler,
    TrainEndCheckpoint,
)
from skorch.callbacks.scoring import PassthroughScoring

from .phases import Phase, parts_of

__all__ = ["begin_anew", "check_callbacks", "copied", "own_places", "prepared"]


def copied(callbacks: Any) -> Any:
    """Return copies of callbacks; the copies share what cannot be copied, such as the writer of a `TensorBoard`."""
    try:
        return copy.deepcopy(callbacks)
    except TypeError:
        return [_copied_in_parts(callback) for callback in callbacks]


def _copied_in_parts(callback: Any) -> Any:
    if isinstance(callback, (tuple, list)):
        return type(callback)(map(_copied_in_parts, callback))
    try:
        return copy.deepcopy(callback)
    except TypeError:
        pass
    if not isinstance(callback, Callback):
        return callback
    part = copy.copy(callback)
    for name, value in vars(callback).items():
        with contextlib.suppress(TypeError):
            setattr(part, name, copy.deepcopy(value))
    return part


def prepared(callbacks: Sequence | None) -> list:
    """Return copies of a fit's callbacks, which may be given as skorch takes them: as classes, or with names.

    Raises
    ------
    ValueError
        If one is not a callback, or would have no effect in a fit without labels and without a validation split.
    """
    found = [_instance(callback) for callback in copied(list(callbacks or []))]
    for callback in found:
        _check(_bare(callback))
    # Callbacks that record a value come before those that may monitor it.
    return sorted(found, key=lambda callback: not hasattr(_bare(callback), "records"))


def _bare(callback: Any) -> Any:
    """Return a callback without its name, if it has one."""
    return callback[1] if isinstance(callback, tuple) else callback


def _instance(callback: Any) -> Any:
    if isinstance(callback, (tuple, list)) and len(callback) == 2 and isinstance(callback[0], str):
        return callback[0], _instance(callback[1])
    if isinstance(callback, type) and issubclass(callback, Callback):
        try:
            return callback()
        except TypeError as error:
            raise ValueError(f"callbacks: pass an instance of {callback.__name__}, not the class ({error}).") from error
    if not isinstance(callback, Callback):
        raise ValueError(f"callbacks: {callback!r} is no callback of skorch; pass a skorch.callbacks.Callback.")
    return callback


def _check(callback: Callback) -> None:
    name = type(callback).__name__
    if isinstance(callback, InputShapeSetter):
        raise ValueError("callbacks: InputShapeSetter is not needed: networks are built for the rows; leave it out.")
    if not isinstance(callback, (BatchScoring, EpochScoring, PassthroughScoring)):
        return
    if not callback.on_train:
        raise ValueError(
            f"callbacks: {name} scores a validation split, but there is none; pass on_train=True to score the training "
            f"rows."
        )
    if isinstance(callback, PassthroughScoring):
        return
    if not callable(callback.scoring):
        raise ValueError(
            f"callbacks: {name}(scoring={callback.scoring!r}) compares predictions with labels, but callbacks get no "
            f"labels; pass a function (net, X, y) -> float, where y is None."
        )
    # The training makes no predictions that could be cached.
    callback.use_caching = False


def check_callbacks(
    callbacks: Sequence,
    schedule: str | Callable,
    phases: Sequence[Phase],
    keeping: str | None,
    recorded: Collection[str],
    ways: Sequence[str],
) -> None:
    """Raise a ValueError for a callback that would have no effect, or a wrong one, with the other settings.

    ``keeping`` is the setting to write so that the last weights are kept, ``recorded`` holds the names of values that
    are recorded of held-out rows, and ``ways`` says what this estimator can do to have some, or without.
    """
    for callback in callbacks:
        callback = callback[1] if isinstance(callback, (tuple, list)) else callback
        name = getattr(callback, "__name__", type(callback).__name__)
        monitor = str(getattr(callback, "monitor", ""))
        if monitor.startswith("valid") and monitor not in recorded:
            raise ValueError(
                f"callbacks: {name} monitors {monitor!r}, which is not recorded, because there is no validation split: "
                f"{'; '.join(ways)}."
            )
        if name == "LRScheduler" and schedule != "constant":
            raise ValueError(f"callbacks: {name} would be overruled by schedule={schedule!r}; set schedule='constant'.")
        if name == "LRScheduler" and any(len(parts_of(phase.steps)) > 1 for phase in phases):
            raise ValueError(f"callbacks: {name} works with one optimiser only, but there are several; set schedule.")
        if keeping is not None and getattr(callback, "load_best", False):
            raise ValueError(
                f"callbacks: {name} has load_best=True, but other weights replace the best ones at the end; set "
                f"load_best=False or {keeping}."
            )


def begin_anew(callbacks: Sequence) -> None:
    """Make learning-rate schedulers count epochs from the start of each phase."""
    # skorch's schedulers count the epochs of the whole history, those of earlier phases included.
    for callback in callbacks:
        callback = callback[1] if isinstance(callback, (tuple, list)) else callback
        if isinstance(callback, LRScheduler) and "Plateau" not in str(callback.policy):
            vars(callback).setdefault("last_epoch", -1)


@contextlib.contextmanager
def own_places(callbacks: Sequence) -> Iterator[None]:
    """Run a fit whose `Checkpoint` callbacks write into folders that no other fit uses at the same time.

    The first fit gets the folder that the user named, as in plain skorch. A fit that runs at the same time, in any
    process, gets the folder "fit-2" within it, and so on. The callback's ``dirname`` names the folder.
    """
    with contextlib.ExitStack() as claims:
        for callback in callbacks:
            callback = _bare(callback)
            if isinstance(callback, (Checkpoint, TrainEndCheckpoint)):
                callback.dirname = _claimed(callback.dirname, claims)
        yield


def _claimed(folder: str, claims: contextlib.ExitStack) -> str:
    for number in count(1):
        place = folder if number == 1 else str(Path(folder, f"fit-{number}"))
        digest = hashlib.sha256(str(Path(place).resolve()).encode()).hexdigest()[:20]
        # The lock is not in the user's folder. The system releases it when this process ends, however it ends.
        lock = FileLock(Path(tempfile.gettempdir(), f"skood-{digest}.lock"))
        with contextlib.suppress(Timeout):
            claims.enter_context(lock.acquire(timeout=0))
            return place
    raise AssertionError("unreachable")
