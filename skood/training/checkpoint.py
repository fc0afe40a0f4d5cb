"""Files from which a long training can continue: written whole after each epoch, and read without running code."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from filelock import FileLock, Timeout
from torch import Tensor

__all__ = ["CheckpointFile", "claimed"]

_FORMAT = "skood checkpoint 1"
# The parts of a fit that have files of their own, see `CheckpointFile.part`.
_PART = re.compile(r"pretraining|threshold-[0-9]+(\.pretraining)?")
# Ends the names of files that are being written.
_UNFINISHED = ".skood-unfinished"
_NONE = type(None)
# The parts of a state and their types, see `skood.training.going_on`.
_SCHEMA: dict[str, tuple[type, ...]] = {
    "phase": (str, _NONE),
    "number": (int,),
    "ended": (bool,),
    "epochs": (list,),
    "epochs_planned": (list,),
    "n_batches": (int,),
    "n_epochs_before": (int,),
    "best_loss": (float,),
    "optimizer": (str,),
    "optimizers": (dict,),
    "module": (dict,),
    "average": (dict, _NONE),
    "random": (dict,),
    "queue": (Tensor, _NONE),
    "memory": (dict, _NONE),
    "held_out": (dict, _NONE),
    "history": (list,),
}


@dataclass(frozen=True)
class CheckpointFile:
    """Read and write the checkpoint file of one training.

    Parameters
    ----------
    path : str
        Path of the file, which need not exist yet.
    fingerprint : str
        Digest of the fit's rows, labels and parameters, see `skood.estimator.fingerprint`.
    digest : str
        Digest of the path that the user gave. It names the unfinished files of the fit, and those of no other fit.
    seed : int or None, default=None
        The seed of the fit. None if it is not known yet.
    """

    path: str
    fingerprint: str
    digest: str
    seed: int | None = None

    def part(self, name: str) -> Self:
        """Return the file of another training of the same fit."""
        return replace(self, path=f"{self.path}.{name}")

    def earlier_seed(self) -> int | None:
        """Return the seed of the fit that wrote the file, or one of a part; None if there is no file."""
        # While a part is trained, such as a pretraining, the fit's own file may not exist yet.
        parts = (
            replace(self, path=str(path)) for path in sorted(Path(self.path).parent.iterdir()) if self._is_part(path)
        )
        for file in (self, *parts):
            found = file._read()
            if found is not None:
                return found["seed"]
        return None

    def read(self) -> dict[str, Any] | None:
        """Return the state of the training in the file; None if there is no file.

        Raises
        ------
        ValueError
            If the file belongs to another fit, is damaged, or is no checkpoint.
        """
        found = self._read()
        return None if found is None else found["state"]

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file in one step: a program that is killed leaves either the old file or the new one."""
        path = Path(self.path)
        content = {"format": _FORMAT, "fingerprint": self.fingerprint, "seed": self.seed, "state": state}
        handle, unfinished = tempfile.mkstemp(_UNFINISHED, f".{self.digest}-", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """Remove the file, the files of its parts, and unfinished files that a killed program left."""
        path = Path(self.path)
        path.unlink(missing_ok=True)
        for other in path.parent.iterdir():
            if self._is_unfinished(other.name) or self._is_part(other):
                other.unlink(missing_ok=True)

    def _is_unfinished(self, name: str) -> bool:
        """Return whether a file of this name is one of this fit that was not written to its end."""
        return name.startswith(f".{self.digest}-") and name.endswith(_UNFINISHED)

    def _is_part(self, path: Path) -> bool:
        """Return whether a file is of a part of this fit: by its name, and then by its fingerprint."""
        name = path.name.removeprefix(f"{Path(self.path).name}.")
        if name == path.name or not _PART.fullmatch(name):
            return False
        try:
            return replace(self, path=str(path)).read() is not None
        except ValueError:
            return False

    def refuse(self, why: str) -> ValueError:
        """Return the error for a file that cannot be used."""
        return ValueError(f"checkpoint={self.path!r} {why}. Delete the file, or give another path.")

    def _read(self) -> dict[str, Any] | None:
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # damaged and forged files cause errors of many types
            raise self.refuse(f"is no file of skood's, or is damaged ({type(error).__name__})") from error
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise self.refuse("is no checkpoint, or that of another version of skood")
        if found.get("fingerprint") != self.fingerprint:
            raise self.refuse("belongs to another fit: its rows, labels or parameters differ, or pickle differently")
        state = found.get("state")
        if not isinstance(state, dict) or state.keys() != _SCHEMA.keys() or not isinstance(found.get("seed"), int):
            raise self.refuse("is damaged: it lacks a part of the training's state")
        for name, types in _SCHEMA.items():
            if not isinstance(state[name], types):
                raise self.refuse(f"is damaged: its {name!r} is of type {type(state[name]).__name__}")
        return found


@contextlib.contextmanager
def claimed(path: str | os.PathLike, fingerprint: str) -> Iterator[CheckpointFile]:
    """Run a fit with a checkpoint file that no other fit may use at the same time.

    Raises
    ------
    ValueError
        If another fit uses the file, its folder does not exist, or no file can be written there.
    """
    place = Path(path)
    if not place.parent.is_dir():
        raise ValueError(f"checkpoint={os.fspath(path)!r}: there is no folder {str(place.parent)!r}; create it first.")
    if place.is_dir():
        raise ValueError(f"checkpoint={os.fspath(path)!r} is a folder; name a file in it.")
    digest = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:20]
    # The system releases the lock when this process ends, however it ends.
    lock = FileLock(Path(tempfile.gettempdir(), f"skood-{digest}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"checkpoint={os.fspath(path)!r} is being written by another fit: give each fit its own path. In a search "
            f"with n_jobs above 1, all clones have the same path: set checkpoint=None there."
        ) from None
    try:
        # Now, not after the first epoch, which may take hours.
        try:
            with tempfile.NamedTemporaryFile(suffix=_UNFINISHED, prefix=f".{digest}-", dir=place.parent):
                pass
        except OSError as error:
            raise ValueError(
                f"checkpoint={os.fspath(path)!r}: no file can be written in the folder {str(place.parent)!r} "
                f"({error.strerror}); name a file in another folder."
            ) from error
        yield CheckpointFile(str(place), fingerprint, digest)
    finally:
        lock.release()
