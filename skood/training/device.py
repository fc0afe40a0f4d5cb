"""Choose the device and the precision of a training, and seed its random numbers."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import torch

from ..networks.randomness import drawing, drawn_alone, intercepted, own_numbers
from . import distributed

# torch.random.fork_rng swaps generators of the whole process, so fits that draw from these must take turns.
_GENERATOR_LOCK = threading.RLock()
# The thread whose turn it is, and the state of the CPU's generator before that.
_turn: tuple[int, torch.Tensor] | None = None


def _free_in_child() -> None:
    """Give a forked process a new lock, and the program's generator state, if another thread was fitting then.

    That thread does not exist in the new process, and would never release the lock.
    """
    global _GENERATOR_LOCK, _turn
    if _turn is not None and _turn[0] != threading.get_ident():
        torch.random.set_rng_state(_turn[1])
        _GENERATOR_LOCK, _turn = threading.RLock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device that ``device`` names.

    Parameters
    ----------
    device : str or torch.device
        "auto" chooses CUDA if there is a device, else MPS, else the CPU. "distributed" means the device that this
        process has among those that train together, see `skood.training.distributed.join`. Any other name is torch's.

    Returns
    -------
    device : torch.device
        The device. That of a CUDA device includes its index.

    Raises
    ------
    ValueError
        If torch does not know the device, or this machine does not have it.
    """
    if isinstance(device, str) and device == "distributed":
        return distributed.join()
    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        elif torch.backends.mps.is_available():
            device = "mps"
        else:
            device = "cpu"
    try:
        found = torch.device(device)
        # torch notices that a device is missing only when it makes a tensor there. "meta" fails here, too, because its
        # tensors have no values.
        torch.empty(1, device=found).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} cannot be used on this machine ({reason}). Pass 'auto' or 'cpu'."
        ) from error
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda", torch.cuda.current_device())
    return found


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context in which a loss is computed in ``precision``.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
        "auto" is bfloat16 on CUDA and float32 elsewhere.
    device : torch.device
        The device on which the loss is computed.
    """
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    # The user's own autocast may be on.
    return torch.autocast(device.type, enabled=False)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device, alone: bool | None = None) -> Iterator[None]:
    """Run a block with its own random numbers: what skood draws within it depends on the seed alone.

    Parameters
    ----------
    seed : int
        The seed.
    device : torch.device
        The device whose generator is seeded, beside that of the CPU.
    alone : bool or None, default=None
        Whether only skood's own code draws random numbers within the block. None takes the value of the block around
        it, or False if there is none. skood's code uses generators of this thread, see `skood.networks.randomness`.
        Other code, such as a user's network, may use torch's global generators. So with False these are seeded, too,
        and restored afterwards, and such blocks in several threads run one after the other.
    """
    alone = drawn_alone() if alone is None else alone
    with own_numbers(seed, alone), contextlib.nullcontext() if alone else _turn_of(seed, device):
        yield


@contextlib.contextmanager
def _turn_of(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block with torch's global generators seeded, and restore them afterwards."""
    global _turn
    cuda = [device.index] if device.type == "cuda" else []
    with _GENERATOR_LOCK, torch.random.fork_rng(devices=cuda):
        mps = torch.mps.get_rng_state() if device.type == "mps" else None
        outer = _turn
        _turn = outer or (threading.get_ident(), torch.random.get_rng_state())
        # torch.manual_seed would also seed the generators of devices that are not ours.
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        if mps is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            _turn = outer
            # fork_rng does not handle the generator of MPS.
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextlib.contextmanager
def fitting(seed: int, device: torch.device, alone: bool = False) -> Iterator[None]:
    """Run a block as `seeded` does, and with gradients, even if the caller has switched them off.

    All of torch's functions use the fit's generators, for example those that draw initial weights. Within
    `skood.training.train`, only code that passes the generators on uses them.
    """
    with torch.inference_mode(False), torch.enable_grad(), seeded(seed, device, alone), intercepted():
        yield


def own_stream(device: torch.device) -> contextlib.AbstractContextManager:
    """Seed random numbers within a block differently in each of the processes that train together.

    With the same seed all of them would draw the same noise. After the block all draw the same numbers again, so that
    what follows the training is the same in all processes.
    """
    number, _ = distributed.place()
    return seeded(int(torch.randint(2**31 - 1, (), **drawing())) + number, device)
