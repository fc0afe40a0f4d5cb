"""Copy the callbacks of a fit, refuse those that would do nothing, and give checkpoints folders of their own."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from skorch.callbacks import BatchScoring, Callback, Checkpoint, EpochScoring, InputShapeSetter, TrainEndCheckpoint
from skorch.callbacks.scoring import PassthroughScoring

__all__ = ["copied", "own_places", "prepared"]


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
            f"callbacks: {name}(scoring={callback.scoring!r}) compares predictions with labels, but a detector trains "
            f"without labels; pass a function (net, X, y) -> float, where y is None."
        )
    # The training makes no predictions that could be cached.
    callback.use_caching = False


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
