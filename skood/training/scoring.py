"""Map rows through a trained module in blocks of a fixed shape, so that a row's result does not depend on others."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from inspect import isfunction, ismethod
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.neighbors import precise_dtype
from ..networks.products import EvenProducts, is_uneven
from .batches import Represent, numbers_of, tensor_of
from .phases import name_of
from .undisturbed import shielded

# A function of a module and represented rows.
Respond: TypeAlias = Callable[[nn.Module, Tensor], Tensor]

# A block of images or vectors takes about so many bytes as float32. Larger blocks of images, whose maps take many times
# their own memory, are slower on a CPU; a GPU needs larger blocks to be fast.
_IMAGE_BYTES, _VECTOR_BYTES = 2**18, 2**20
_CUDA_FACTOR = 16
# Least and most rows of a block.
_IMAGES, _VECTORS = (4, 64), (256, 2048)
# The smallest block of images or vectors, and the factor from one block size to the next. With AVX-512 torch computes
# 32 numbers at a time, and what is left one by one, by functions that may round otherwise: in blocks of 32 vectors of
# any length nothing is left.
_FEW_IMAGES, _FEW_VECTORS = (2, 4), (32, 4)
# Rows that a trial compares, in blocks of the smaller size: numbers that round otherwise may be in few rows.
_COMPARED = 256
# How often a few rows go through the largest block before a smaller one is tried. A trial costs as much as two of the
# largest blocks: it does not pay for a network that scores once or twice, as those of held-out rows do.
_BEFORE_TRIAL = 2


@shielded
def apply_in_blocks(
    module: nn.Module,
    X: np.ndarray,
    indices: np.ndarray | None,
    represent: Represent,
    function: Respond,
    in_shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Return ``function(module, represent(rows))`` for rows of ``X``, computed in float32 and block by block.

    A row's result is the same to the last bit alone, among any other rows and in any order. For this all blocks have
    the same shape, because the rounding of a matrix product depends on the shapes of the matrices. The last block is
    padded. A few rows on a CPU go through a smaller block, if a trial has shown that it gives the same results: from
    the third call on that has so few.

    The module is put into evaluation mode and stays in it. It is not copied.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    X : ndarray of shape (n_rows, ...)
        The rows. They stay as they are, even if ``module`` or ``function`` works in place.
    indices : ndarray of int of shape (n_indices,) or None
        Indices of the rows to take. None means all rows.
    represent : callable
        Maps a tensor of rows, of the dtype of ``X``, to the module's input.
    function : callable
        ``function(module, rows) -> Tensor`` of shape (n_block_rows, ...).
    in_shape : tuple of int or None, default=None
        Shape of a row as the module takes it, on which the size of a block depends. None is the shape in ``X``.

    Returns
    -------
    results : ndarray of float64 of shape (n_indices, ...)
    """
    device = device_of(module)
    if module.training:
        module.eval()
    sizes = block_sizes(X.shape[1:] if in_shape is None else in_shape, device)
    work = _Work(module, represent, function, number_type_of(module))
    n = len(X) if indices is None else len(indices)
    results, start = np.empty(0), 0
    # Scoring is independent of the caller's settings: no gradients, no half precision, and no inference mode, in which
    # scores such as "odin" could take no gradients.
    products = EvenProducts() if is_uneven(module) else contextlib.nullcontext()
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False), products:
        while start < n:
            size = sizes[-1] if n - start >= sizes[-1] else _smallest_alike(n - start, sizes, work, X)
            taken = slice(start, start + size)
            rows = X[taken] if indices is None else X[indices[taken]]
            # In memory that torch allocates, which is aligned: numpy's may not be, and products then round differently.
            result = _apply_halving(work, tensor_of(rows, size, numbers_of(X, device)), device)
            if start == 0:
                # One array for all blocks: many small arrays that stay, between large ones that are freed, would
                # fragment the memory.
                results = np.empty((n, *result.shape[1:]))
            # numpy has no bfloat16, which a network may return.
            results[taken] = result[: len(rows)].double().numpy()
            start += len(rows)
    return results


class _Work(NamedTuple):
    """Hold what is done to each block."""

    module: nn.Module
    represent: Represent
    function: Respond
    dtype: torch.dtype

    def represented(self, block: Tensor) -> Tensor:
        """Return rows as the module takes them."""
        return channels_last(self.represent(block).to(self.dtype))

    def computed(self, rows: Tensor) -> Tensor:
        """Return the function's result for represented rows."""
        result = self.function(self.module, channels_last(rows))
        if not isinstance(result, Tensor) or result.ndim == 0 or len(result) != len(rows):
            given = tuple(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
            raise ValueError(
                f"{name_of(self.function)} must return a tensor with an entry for each of {len(rows)} rows; it "
                f"returned {given}."
            )
        return result


def number_type_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of a module's parameters: float32, unless the user chose another one."""
    return next((values.dtype for values in module.parameters() if values.is_floating_point()), torch.float32)


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's first parameter or buffer; the CPU if it has none."""
    return next(itertools.chain(module.parameters(), module.buffers()), torch.empty(0)).device


def block_sizes(in_shape: tuple[int, ...], device: torch.device) -> tuple[int, ...]:
    """Return the possible numbers of rows of a block, ascending; most rows go through blocks of the last size.

    Parameters
    ----------
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    device : torch.device
        Where the module runs.

    Returns
    -------
    sizes : tuple of int
        Powers of 2; only one size on devices other than the CPU.
    """
    images = len(in_shape) > 1
    wanted = (_IMAGE_BYTES if images else _VECTOR_BYTES) // (4 * max(1, math.prod(in_shape)))
    least, most = _IMAGES if images else _VECTORS
    if device.type != "cpu":
        return (2 ** int(math.log2(min(max(_CUDA_FACTOR * wanted, least), _CUDA_FACTOR * most))),)
    largest = 2 ** int(math.log2(min(max(wanted, least), most)))
    return (*_smaller(largest, *(_FEW_IMAGES if images else _FEW_VECTORS)), largest)


def _smaller(largest: int, smallest: int, factor: int) -> Iterator[int]:
    """Yield sizes of at most half the largest one."""
    while smallest <= largest // 2:
        yield smallest
        smallest *= factor


def precise(values: Tensor) -> Tensor:
    """Return numbers in double precision, in which many terms are summed; on MPS, which lacks it, as they are."""
    return values.to(precise_dtype(values.device))


def channels_last(rows: Tensor) -> Tensor:
    """Return images with the channels last in memory, as convolutions are fastest; other rows as they are."""
    return rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows.contiguous()


def _apply_halving(work: _Work, block: Tensor, device: torch.device) -> Tensor:
    """Return the results of a block on the CPU, computed in two halves if the device lacks memory for the whole.

    ``block`` is on the CPU. The halves are taken from there, because the module may have changed the device's copy in
    place before memory ran out.
    """
    try:
        return work.computed(work.represented(block.to(device, copy=True))).cpu()
    except torch.OutOfMemoryError:
        if len(block) == 1:
            raise
    # Outside the except block, because within it the error keeps the tensors of the failed call in memory.
    torch.cuda.empty_cache()
    return torch.cat([_apply_halving(work, half, device) for half in block.chunk(2)])


# --------------------------------------------------------------------------------------------------------------------
# Smaller blocks for a few rows


class _Trials:
    """Keep for a module, by what is computed, whether a smaller block gave the same results, and how often it waits."""

    def __init__(self) -> None:
        self.alike: dict[Any, bool] = {}
        self.waited: Counter[Any] = Counter()


_SEEN: WeakKeyDictionary[nn.Module, _Trials] = WeakKeyDictionary()


def _smallest_alike(n_rows: int, sizes: tuple[int, ...], work: _Work, X: np.ndarray) -> int:
    """Return the size of the smallest block that holds so many rows and gives the results of the largest one.

    Most libraries round in the same way in small and large blocks. This is tried once for each network, on rows of
    noise, because the order in which numbers are added up depends on shapes, not on the numbers. The largest block is
    taken until the trial pays.
    """
    seen = _SEEN.setdefault(work.module, _Trials())
    for size in sizes[:-1]:
        if n_rows <= size:
            shapes = (size, sizes[-1], X.shape[1:], X.dtype, work.dtype, torch.get_num_threads())
            key = (*shapes, _identity(work.represent), _identity(work.function))
            if key not in seen.alike:
                if seen.waited[key] < _BEFORE_TRIAL:
                    seen.waited[key] += 1
                    continue
                seen.alike[key] = _alike(size, sizes[-1], work, X)
            if seen.alike[key]:
                return size
    return sizes[-1]


def _identity(function: Any) -> Any:
    """Return a key for a function, the same for bound methods and partial functions that are made anew each time.

    What a partial function is given belongs to the key, because results depend on it: one score of a network may round
    in the same way in small blocks, and another may not. It is held weakly.
    """
    if isinstance(function, partial):
        return _identity(function.func), *map(_reference, function.args)
    function = getattr(function, "__func__", function)
    return getattr(function, "__code__", type(function))


def _reference(value: Any) -> Any:
    """Return what stands for an argument in a key: a function's own key, a text, or a weak reference."""
    if isfunction(value) or ismethod(value) or isinstance(value, partial):
        return _identity(value)
    if isinstance(value, str):
        return value
    try:
        return ref(value)
    except TypeError:
        return type(value)


def _alike(size: int, largest: int, work: _Work, X: np.ndarray) -> bool:
    """Return whether blocks of two sizes give the same represented rows, and the same results for these."""
    noise = np.random.default_rng(0).uniform(0, 1, (largest, *X.shape[1:]))
    if X.dtype == np.uint8:
        noise = 255 * noise
    raw = torch.from_numpy(noise).to(numbers_of(X, torch.device("cpu")))
    try:
        represented = work.represented(raw.clone())
        # Scaled noise may be huge, and the network's outputs for it would show little.
        rows = torch.empty_like(represented).normal_(generator=torch.Generator().manual_seed(0))
        computed = work.computed(rows.clone())
        return _same_parts(represented, work.represented, raw, size) and _same_parts(
            computed, work.computed, rows, size
        )
    except Exception:
        # Not every network takes noise: one that looks up words by their numbers does not.
        return False


def _same_parts(whole: Tensor, compute: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> bool:
    """Return whether blocks of ``size`` rows, from the first to the last ones, give the same results as among all."""
    n_blocks = min(max(2, _COMPARED // size), len(rows) // size)
    starts = np.linspace(0, len(rows) - size, n_blocks).astype(int).tolist()
    return all(torch.equal(compute(rows[i : i + size].clone()), whole[i : i + size]) for i in starts)
