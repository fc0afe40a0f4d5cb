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
    indices: np.ndarray | None,
    represent: Represent,
    function: Callable[[nn.Module, Tensor], Tensor],
) -> np.ndarray:
    """Return ``function(module, rows)`` for rows of ``X``, computed chunk by chunk.

    A row's result does not depend on the other rows or on their number: the module runs in evaluation mode and in
    float64, where another order of summation changes a result by 1e-15 and not by 1e-7. MPS has no float64; there
    every chunk is padded to the same number of float32 rows. If a CUDA device runs out of memory, the chunk is halved.

    Parameters
    ----------
    module : torch.nn.Module
        The module. A copy of it runs, so that it stays as it is.
    X : ndarray of shape (n_rows, ...)
        The rows. They stay as they are, even if ``module`` or ``function`` works in place.
    indices : ndarray of int of shape (n_indices,) or None
        Indices of the rows to take. None means all rows.
    represent : callable
        Maps a chunk of ``X`` to what the module takes.
    function : callable
        ``function(module, rows) -> Tensor`` of shape (n_chunk_rows, ...).

    Returns
    -------
    results : ndarray of float64 of shape (n_indices, ...)
    """
    parameter = next(itertools.chain(module.parameters(), module.buffers()), torch.empty(0))
    double = parameter.device.type != "mps"
    with torch.inference_mode(False):
        # The caller may be in inference mode. Tensors made there can have no gradients, which a score may need.
        # A copy of a traced module records how its tensors were copied, unless that is forbidden, and then warns.
        with torch.no_grad():
            module = copy.deepcopy(module).eval()
        if double:
            module = module.double()
    results, start = np.empty(0), 0
    for chunk in chunks(X, indices, SCORED_BYTES):
        values = np.ascontiguousarray(represent(chunk), dtype=np.float64 if double else np.float32)
        if np.may_share_memory(values, X):
            # Without a copy, a module that works in place would write to the caller's rows.
            values = values.copy()
        if not double:
            values = padded(values, rows_a_chunk(X, SCORED_BYTES))
        result = _apply_halving(module, torch.from_numpy(values), function, parameter.device)
        if start == 0:
            # One array for all chunks: many small arrays that stay, between large ones that are freed, would keep the
            # memory of the latter from being used again.
            results = np.empty((len(X) if indices is None else len(indices), *result.shape[1:]))
        results[start : start + len(chunk)] = result[: len(chunk)].numpy()
        start += len(chunk)
    return results


def _apply_halving(
    module: nn.Module, rows: Tensor, function: Callable[[nn.Module, Tensor], Tensor], device: torch.device
) -> Tensor:
    """Return ``function(module, rows)`` on the CPU, computed in two halves if the device lacks memory for the whole.

    ``rows`` are on the CPU. The halves are taken from there, because the module may have changed the device's copy in
    place before memory ran out.
    """
    try:
        with torch.no_grad():
            return function(module, _moved(rows, device)).cpu()
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    # Outside the except block, because within it the error keeps the tensors of the failed call in memory.
    torch.cuda.empty_cache()
    return torch.cat([_apply_halving(module, half, function, device) for half in rows.chunk(2)])


def _moved(rows: Tensor, device: torch.device) -> Tensor:
    """Return the rows on the device."""
    rows = rows.to(device)
    # Convolutions are fastest with the channels last in memory.
    return rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows
