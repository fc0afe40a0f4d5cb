"""Where and in which precision a network trains, and from which random numbers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

from . import distributed

# torch.random.fork_rng swaps process-wide generators, so two fits in threads must take turns.
_GENERATOR_LOCK = threading.RLock()


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device that ``device`` names.

    Parameters
    ----------
    device : str or torch.device
        "auto" is CUDA, else MPS, else the CPU. "distributed" is this process's own, see
        `skood.training.distributed.join`. Anything else is for torch to read.

    Returns
    -------
    device : torch.device
        A CUDA device has its index.

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
        # torch notices that a device is missing when a tensor is to lie there. "meta" fails here too: it has no values.
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
    """
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block with torch's generators seeded, and leave the caller's generators as they were.

    The generators are those of the CPU and of ``device``. Blocks in several threads run one after the other.
    """
    cuda = [device.index] if device.type == "cuda" else []
    with _GENERATOR_LOCK, torch.random.fork_rng(devices=cuda):
        mps = torch.mps.get_rng_state() if device.type == "mps" else None
        # torch.manual_seed would also seed the generators of devices that are not ours.
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        if mps is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            # fork_rng knows no generator of MPS.
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextlib.contextmanager
def fitting(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block as `seeded` does, and with gradients, even where the caller has switched them off."""
    with torch.inference_mode(False), torch.enable_grad(), seeded(seed, device):
        yield


def own_stream(device: torch.device) -> contextlib.AbstractContextManager:
    """Seed torch's generators, within a block, differently in each of the processes that train together.

    With the same seed all of them would draw the same noise. After the block they draw the same numbers again.
    """
    number, _ = distributed.place()
    return seeded(int(torch.randint(2**31 - 1, ())) + number, device)
