"""``device="distributed"``: one training shared by several processes, each on a device of its own.

``torchrun`` starts the processes: they run the same program on the same rows, and fit the same estimators in the same
order. Each trains on every n-th row, in batches of ``batch_size``, and after each batch they replace their gradients by
the mean of all; so n processes take the steps of one with batches n times as large. What a loss compares within a batch
(`SimCLREncoder`) it compares within each process's, and so does batch normalisation. In the end all have the same
fitted estimator: threshold and scores each computes for itself. Callbacks run in all processes; one that writes files
should do so where `torch.distributed.get_rank` is 0. Ctrl-C ends the program, without a fitted estimator.

Gradients are not averaged by torch's DistributedDataParallel, and so not by skorch's AccelerateMixin, which stands on
it: that follows one call of a module's ``forward`` a step, while losses here call parts of a module, several times, and
steps train parts of it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn


def join() -> torch.device:
    """Join the processes that ``torchrun`` started, if that was not done.

    Returns
    -------
    device : torch.device
        This process's own: a CUDA device, or the CPU where there are none.

    Raises
    ------
    ValueError
        If nobody started processes.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if not (distributed.is_available() and distributed.is_initialized()):
        if "WORLD_SIZE" not in os.environ or not distributed.is_available():
            raise ValueError(
                "device='distributed' is for processes that train one network together: start them with "
                "torchrun --nproc-per-node=2 script.py, or use another device."
            )
        distributed.init_process_group(device_id=device if device.type == "cuda" else None)
        atexit.register(_leave)
    return device


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return distributed.get_rank(), distributed.get_world_size()


def first(value: int) -> int:
    """What the first process has for ``value``."""
    tensor = torch.tensor(value, device=join())
    distributed.broadcast(tensor, 0)
    return int(tensor)


def mean(value: float) -> float:
    """The mean of the processes' values."""
    tensor = torch.tensor(value, dtype=torch.float64, device=join())
    distributed.all_reduce(tensor)
    return float(tensor) / distributed.get_world_size()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by the mean of all processes' gradients; those that none has stay None."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    # In one piece: many small ones take longer.
    joined = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(joined)
    joined /= distributed.get_world_size()
    for gradient, part in zip(gradients, joined.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def copy_first(module: nn.Module) -> None:
    """Give a module the first process's trained parameters and buffers, in place."""
    tensors: list[Tensor] = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for tensor in [*tensors, *module.buffers()]:
        value = tensor.detach().contiguous().clone()
        distributed.broadcast(value, 0)
        tensor.copy_(value)
