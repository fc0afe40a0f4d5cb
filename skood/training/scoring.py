"""Map rows through a trained module, chunk by chunk."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .batches import SCORED_BYTES, Represent, chunks, padded, rows_a_chunk


def apply_in_chunks(
    module: nn.Module,
    X: np.ndarray,
    rows: np.ndarray | None,
    represent: Represent,
    function: Callable[[nn.Module, Tensor], Tensor],
) -> np.ndarray:
    """``function(module, tensor)`` for the rows of ``X`` at the indices ``rows`` (None: all), one chunk at a time.

    The result is float64, of shape (n_rows, ...).

    A row's result depends neither on the other rows nor on how many there are: the module runs in evaluation mode and
    in float64, where a different summation order moves a result by 1e-15 and not by 1e-7. MPS has no float64; there
    every chunk is padded to the same number of float32 rows. On a CUDA device that runs out of memory the
    chunk is halved.
    """
    parameter = next(itertools.chain(module.parameters(), module.buffers()), torch.empty(0))
    double = parameter.device.type != "mps"
    with torch.inference_mode(False):
        # For a score that takes a gradient, whatever the caller is in.
        module = copy.deepcopy(module).eval()
        if double:
            module = module.double()
    results, start = None, 0
    for chunk in chunks(X, rows, SCORED_BYTES):
        values = np.ascontiguousarray(represent(chunk), dtype=np.float64 if double else np.float32)
        if not double:
            values = padded(values, rows_a_chunk(X, SCORED_BYTES))
        tensor = torch.from_numpy(values).to(parameter.device)
        if tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        result = _apply_halving(module, tensor, function)
        if results is None:
            # One array, not one a chunk: small ones that stay among large ones that go keep their memory from reuse.
            results = np.empty((len(X) if rows is None else len(rows), *result.shape[1:]))
        results[start : start + len(chunk)] = result[: len(chunk)].numpy()
        start += len(chunk)
    return results


def _apply_halving(module: nn.Module, rows: Tensor, function: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
    """``function(module, rows)`` on the CPU, in two halves where the device has no memory for the whole."""
    try:
        with torch.no_grad():
            return function(module, rows).cpu()
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    torch.cuda.empty_cache()
    return torch.cat([_apply_halving(module, half, function) for half in rows.chunk(2)])
