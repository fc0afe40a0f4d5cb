"""Share one training among several processes, each with its own device: ``device="distributed"``.

``torchrun`` starts the processes. They run the same program on the same rows, and fit the same estimators in the same
order. Each process trains on every n-th row in batches of ``batch_size``, and after each batch the processes replace
their gradients by the mean over all processes. So n processes take the steps of one process whose batches are n times
as large. The exceptions are batch normalisation and losses that compare the rows of a batch (`SimCLREncoder`): they see
the batch of their own process only. In the end all processes have the same fitted estimator. Each process computes
scores and the threshold for itself. Callbacks run in all processes; a callback that writes files should write only
where `torch.distributed.get_rank` is 0. Ctrl-C ends the program, without a fitted estimator.

Gradients are averaged here and not by torch's DistributedDataParallel, on which skorch's AccelerateMixin is built. That
class expects one call of a module's ``forward`` in each step, while losses here call parts of a module several times,
and steps train parts of it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn


def join() -> torch.device:
    """Join the processes that ``torchrun`` started, unless this process has joined them already.

    Returns
    -------
    device : torch.device
        The device of this process: a CUDA device, or the CPU if there is none.

    Raises
    ------
    ValueError
        If ``torchrun`` did not start this process.
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
    """Leave the processes at the end of the program, unless the user's program has left them already."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """Return the number of this process and the number of processes."""
    return distributed.get_rank(), distributed.get_world_size()


def first(value: int) -> int:
    """Return the ``value`` that the first process passes; all processes must call this."""
    tensor = torch.tensor(value, device=join())
    distributed.broadcast(tensor, 0)
    return int(tensor)


def mean(value: float) -> float:
    """Return the mean of the values that the processes pass; all processes must call this."""
    tensor = torch.tensor(value, dtype=torch.float64, device=join())
    distributed.all_reduce(tensor)
    return float(tensor) / distributed.get_world_size()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes.

    Parameters without a gradient are left out. They must be the same in all processes.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    # All gradients in one message, because many small messages take longer.
    joined = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(joined)
    joined /= distributed.get_world_size()
    for gradient, part in zip(gradients, joined.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def copy_first(module: nn.Module) -> None:
    """Overwrite a module's trained parameters and buffers with those of the first process."""
    # Frozen parameters come from the same program in all processes, and may be large.
    tensors: list[Tensor] = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for tensor in [*tensors, *module.buffers()]:
        value = tensor.detach().contiguous().clone()
        distributed.broadcast(value, 0)
        tensor.copy_(value)
