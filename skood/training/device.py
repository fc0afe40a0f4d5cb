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
    """The torch device that ``device`` names; "auto" is CUDA, else MPS, else the CPU; "distributed" see `join`.

    Raises
    ------
    ValueError
        If the device is not one of torch's or is not at hand on this machine.
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
    """The autocast context for training: bfloat16 where asked for, or for "auto" on CUDA; else float32."""
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block with torch's generators seeded, and give the caller's generators back untouched."""
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
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextlib.contextmanager
def fitting(seed: int, device: torch.device) -> Iterator[None]:
    """`seeded`, and with gradients in whatever mode the caller is."""
    with torch.inference_mode(False), torch.enable_grad(), seeded(seed, device):
        yield


def own_stream(device: torch.device) -> contextlib.AbstractContextManager:
    """Seed torch's generators differently in each of the processes that train together, within a block.

    With the same seed all of them would draw the same noise. Afterwards the generators are where they were.
    """
    number, _ = distributed.place()
    return seeded(int(torch.randint(2**31 - 1, ())) + number, device)
