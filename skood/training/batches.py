"""Bring rows to the device: chunks of arrays, and batches of tensors. The only large package this loads is torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..networks.randomness import drawing

# A memory map that takes more bytes than this as float32 is not held on the device but read in chunks.
RESIDENT_BYTES = 2**30
# Arrays are read, converted and scored in chunks of at most CHUNK_ROWS rows and CHUNK_BYTES bytes as float64. A memory
# map that is read in chunks is shuffled within chunks of STREAM_BYTES bytes as float32.
CHUNK_ROWS = 1024
CHUNK_BYTES = 2**25
STREAM_BYTES = 2**28

# Maps a tensor of rows, as they come, to the float32 input of a network.
Represent = Callable[[Tensor], Tensor]


def rows_a_chunk(X: np.ndarray, n_bytes: int | None = None) -> int:
    """Return the number of rows of ``X`` in one chunk.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
        The rows.
    n_bytes : int or None, default=None
        Largest size of a chunk as float64. None means ``CHUNK_BYTES``.

    Returns
    -------
    n_rows : int
        Between 1 and ``CHUNK_ROWS``.
    """
    n_bytes = CHUNK_BYTES if n_bytes is None else n_bytes
    return max(1, min(CHUNK_ROWS, n_bytes // (8 * max(1, math.prod(X.shape[1:])))))


def chunks(X: np.ndarray, indices: np.ndarray | None = None, n_bytes: int | None = None) -> Iterator[np.ndarray]:
    """Yield consecutive chunks of ``X``, or of its rows at ``indices``, without ever copying all rows at once.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
        The rows.
    indices : ndarray of int of shape (n_indices,) or None, default=None
        Indices of the rows to yield, in this order. None means all rows.
    n_bytes : int or None, default=None
        Largest size of a chunk, as in `rows_a_chunk`, which returns the length of all chunks but the last.

    Yields
    ------
    chunk : ndarray of shape (n_chunk_rows, ...)
        C-contiguous, because numpy rounds a sum over columns differently from a sum over contiguous rows. It may be a
        view of ``X``: copy it before you write to it.
    """
    n = len(X) if indices is None else len(indices)
    size = rows_a_chunk(X, n_bytes)
    for start in range(0, n, size):
        part = slice(start, start + size)
        yield np.ascontiguousarray(X[part] if indices is None else X[indices[part]])


def numbers_of(X: np.ndarray, device: torch.device) -> torch.dtype:
    """Return the dtype of the tensors that rows of ``X`` become: uint8, float32, or float64 for any other dtype.

    MPS has no float64, and gets float32 instead.
    """
    if X.dtype == np.uint8:
        return torch.uint8
    return torch.float32 if X.dtype == np.float32 or device.type == "mps" else torch.float64


def tensor_of(rows: np.ndarray, n_rows: int, dtype: torch.dtype) -> Tensor:
    """Return a copy of rows as a tensor on the CPU, with the last row repeated until there are ``n_rows`` of them."""
    # numpy converts, because torch knows neither all types nor all orders of bytes.
    tensor = torch.empty((n_rows, *rows.shape[1:]), dtype=dtype)
    tensor.numpy()[: len(rows)] = rows
    if len(rows) < n_rows:
        tensor[len(rows) :] = tensor[len(rows) - 1]
    return tensor


def to_tensor(X: np.ndarray, indices: np.ndarray | None, represent: Represent, device: torch.device) -> Tensor:
    """Return represented rows as one float32 tensor on ``device``, filled chunk by chunk.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
        The rows.
    indices : ndarray of int of shape (n_indices,) or None
        Indices of the rows to take. None means all rows.
    represent : callable
        Maps a tensor of rows, of the type of ``X``, to what the module takes.
    device : torch.device
        The device of the tensor.

    Returns
    -------
    tensor : Tensor of shape (n_indices, ...)
        It shares no memory with ``X``, so whatever changes it in place leaves ``X`` as it is.
    """
    n = len(X) if indices is None else len(indices)
    tensor, start = torch.empty(0, device=device), 0
    for chunk in chunks(X, indices):
        part = represent(tensor_of(chunk, len(chunk), numbers_of(X, device)).to(device))
        if start == 0:
            # The shape of a represented row is known only once a chunk is represented.
            tensor = torch.empty((n, *part.shape[1:]), dtype=torch.float32, device=device)
        tensor[start : start + len(part)] = part
        start += len(part)
    return tensor


class TrainingRows(torch.utils.data.Dataset):
    """Hold what one fit trains on: the array, the indices of its rows, and their labels.

    Rows that fit into memory are represented once and held on the device as ``resident`` and ``resident_auxiliary``.
    Otherwise these are None, and rows are read and represented while the network trains. ``held_out`` may be set to
    further `TrainingRows`, whose loss is computed after each epoch.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
        Validated rows, in memory or a memory map.
    indices : ndarray of int of shape (n_in_distribution,) or None
        Indices in ``X`` of the in-distribution rows. None means all rows.
    represent : callable
        Maps a tensor of rows, of the type of ``X``, to what the module takes.
    device : torch.device
        The device of the batches.
    labels : ndarray of int of shape (n_in_distribution,) or None, default=None
        Encoded class of each in-distribution row.
    auxiliary_indices : ndarray of int of shape (n_auxiliary,) or None, default=None
        Indices in ``X`` of the auxiliary outliers.
    """

    def __init__(
        self,
        X: np.ndarray,
        indices: np.ndarray | None,
        represent: Represent,
        device: torch.device,
        labels: np.ndarray | None = None,
        auxiliary_indices: np.ndarray | None = None,
    ) -> None:
        self.X, self.indices, self.represent, self.device = X, indices, represent, device
        self.n_rows = len(X) if indices is None else len(indices)
        self.labels = None if labels is None else torch.as_tensor(labels, device=device)
        self.auxiliary_indices = auxiliary_indices
        # Held-out rows, for validation.
        self.held_out: TrainingRows | None = None
        self.resident = None if self._too_large(self.n_rows) else to_tensor(X, indices, represent, device)
        self.resident_auxiliary = None
        if auxiliary_indices is not None and not self._too_large(len(auxiliary_indices)):
            self.resident_auxiliary = to_tensor(X, auxiliary_indices, represent, device)

    def __len__(self) -> int:
        """Return the number of in-distribution rows."""
        return self.n_rows

    def _too_large(self, n_rows: int) -> bool:
        """Return whether so many rows are too large to be held on the device as float32."""
        n_bytes = 4 * n_rows * math.prod(self.X.shape[1:])
        if self.device.type == "cuda":
            # The other half is for the network, its gradients and its batches.
            return n_bytes > torch.cuda.mem_get_info(self.device)[0] // 2
        # An array that is in memory already is held whatever its size; a memory map may be larger than the memory.
        return n_bytes > RESIDENT_BYTES and is_memory_map(self.X)

    def auxiliary_rows(self, chosen: Tensor) -> Tensor:
        """Return represented auxiliary outliers on the device.

        Parameters
        ----------
        chosen : Tensor of int of shape (n_chosen,)
            Positions of the outliers in ``auxiliary_indices``.

        Returns
        -------
        rows : Tensor of shape (n_chosen, ...)
            The outliers, in this order.
        """
        if self.resident_auxiliary is not None:
            return self.resident_auxiliary.index_select(0, chosen)
        assert self.auxiliary_indices is not None
        # Sorted, so that the file is read from front to back; then as drawn: a loss may take the first ones of a batch.
        indices, drawn = np.unique(self.auxiliary_indices[chosen.cpu().numpy()], return_inverse=True)
        rows = to_tensor(self.X, indices, self.represent, self.device)
        return rows.index_select(0, torch.from_numpy(drawn).to(self.device))

    def share(self, number: int, n: int) -> TrainingRows:
        """Return the part that process ``number`` of ``n`` trains on: every n-th row, and every n-th auxiliary outlier.

        All processes get the same number of rows, because a process with fewer batches would stop while the others wait
        for its gradients. If ``n`` does not divide the number of rows, some rows are used twice.

        Raises
        ------
        ValueError
            If there are fewer than two rows for each process.
        """
        if self.n_rows < 2 * n:
            raise ValueError(f"{self.n_rows} rows are too few for {n} processes: each needs at least 2.")

        def positions(n_rows: int) -> np.ndarray:
            """Return every n-th position, rounded up in number, beginning anew at the end."""
            return np.arange(number, number + n * -(-n_rows // n), n) % n_rows

        def taken(tensor: Tensor | None, chosen: np.ndarray) -> Tensor | None:
            """Return the chosen rows of a tensor, if there is one."""
            return None if tensor is None else tensor[torch.from_numpy(chosen).to(tensor.device)]

        part, chosen = copy.copy(self), positions(self.n_rows)
        part.n_rows = len(chosen)
        part.indices = chosen if self.indices is None else self.indices[chosen]
        part.labels, part.resident = taken(self.labels, chosen), taken(self.resident, chosen)
        if self.auxiliary_indices is not None:
            chosen = positions(len(self.auxiliary_indices))
            part.auxiliary_indices = self.auxiliary_indices[chosen]
            part.resident_auxiliary = taken(self.resident_auxiliary, chosen)
        return part

    def indices_between(self, start: int, stop: int) -> np.ndarray:
        """Return the indices in ``X`` of the in-distribution rows from position ``start`` to before ``stop``."""
        return np.arange(start, min(stop, self.n_rows)) if self.indices is None else self.indices[start:stop]


def is_memory_map(array: np.ndarray | None) -> bool:
    """Return whether an array is a memory map, or a view of one."""
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def n_batches(n_rows: int, batch_size: int, least_rows: int = 2) -> int:
    """Return the number of batches in a pass; the last has from ``least_rows`` rows to ``batch_size`` more, less one.

    If there are fewer than ``least_rows`` rows, there is one batch.
    """
    # Never 1 row, which has no variance: batch normalisation would fail.
    return max(n_rows - least_rows, 0) // batch_size + 1


class TensorBatches:
    """Iterate over whole batches of a `TrainingRows`, drawn on the device and shuffled anew in each pass.

    The batches are pairs ``(rows, extra)``. Each pass has every row once. A last batch of fewer rows than
    ``least_rows`` joins the batch before: a single row would break batch normalisation. The dict ``extra`` holds
    ``labels``, if the rows have labels, and ``auxiliary``: auxiliary outliers, of which none comes again before all
    have come.

    Parameters
    ----------
    dataset : TrainingRows
        The rows of the fit.
    batch_size : int
        Number of in-distribution rows in a batch.
    auxiliary_ratio : float, default=0.0
        Number of auxiliary outliers for each in-distribution row. With 0 there are none.
    least_rows : int, default=2
        Smallest number of in-distribution rows in a batch, at most ``batch_size``.
    """

    def __init__(
        self, dataset: TrainingRows, batch_size: int, auxiliary_ratio: float = 0.0, least_rows: int = 2
    ) -> None:
        self.dataset, self.batch_size, self.auxiliary_ratio = dataset, batch_size, auxiliary_ratio
        self.least_rows = least_rows
        # Positions of the auxiliary outliers that no batch has had since the last shuffle. The queue goes on from pass
        # to pass, so that the whole of a large corpus is used.
        self.auxiliary_queue = torch.empty(0, dtype=torch.long, device=dataset.device)

    def __len__(self) -> int:
        """Return the number of batches in a pass."""
        return n_batches(len(self.dataset), self.batch_size, self.least_rows)

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield the batches ``(rows, extra)`` of a pass."""
        pairs = self._stream() if self.dataset.resident is None else self._draw(self.dataset.resident)
        for rows, labels in pairs:
            extra = {} if labels is None else {"labels": labels}
            if self.dataset.auxiliary_indices is not None and self.auxiliary_ratio > 0:
                n = max(1, round(self.auxiliary_ratio * len(rows)))
                extra["auxiliary"] = self._next_auxiliary(n, len(self.dataset.auxiliary_indices))
            yield rows, extra

    def _sizes(self, n: int) -> list[int]:
        """Return the number of rows of each batch."""
        n_whole = n_batches(n, self.batch_size, self.least_rows) - 1
        return [self.batch_size] * n_whole + [n - n_whole * self.batch_size]

    def _draw(self, resident: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield batches of rows that are held on the device."""
        labels = self.dataset.labels
        # One index_select for each batch, where torch's DataLoader would collect row by row.
        order = torch.randperm(len(resident), **drawing(resident.device))
        for chosen in order.split(self._sizes(len(resident))):
            yield resident.index_select(0, chosen), None if labels is None else labels.index_select(0, chosen)

    def _stream(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield batches of rows that are read chunk by chunk.

        Chunks come in random order and are shuffled inside. Rows that do not fill a batch wait for the next chunk.
        """
        data = self.dataset
        size = max(STREAM_BYTES // (4 * math.prod(data.X.shape[1:])), self.batch_size)
        ends = np.cumsum(self._sizes(len(data)))
        waiting: list[Tensor] = []
        n_read = n_yielded = 0
        for number in torch.randperm(-(-len(data) // size), **drawing()).tolist():
            start, stop = number * size, (number + 1) * size
            parts = [to_tensor(data.X, data.indices_between(start, stop), data.represent, data.device)]
            if data.labels is not None:
                parts.append(data.labels[start:stop])
            order = torch.randperm(len(parts[0]), **drawing(data.device))
            n_before, n_read = n_read, n_read + len(order)
            # A batch that ends with the chunk waits for the next one to be drawn, as in earlier versions: otherwise a
            # seed would give other results.
            n_ended = int(np.searchsorted(ends, n_read if n_read == len(data) else n_read - 1, side="right"))
            *whole, rest = order.tensor_split((ends[n_yielded:n_ended] - n_before).tolist())
            for chosen in whole:
                batch, waiting = _joined(waiting, parts, chosen), []
                yield batch[0], batch[1] if len(batch) > 1 else None
            n_yielded, waiting = n_ended, _joined(waiting, parts, rest)
            # Without this, two chunks would be in memory while the next one is read.
            del parts

    def _next_auxiliary(self, n: int, n_auxiliary: int) -> Tensor:
        """Return the next n auxiliary outliers of the queue, which is filled and shuffled anew whenever it is empty."""
        taken = []
        while n > 0:
            if len(self.auxiliary_queue) == 0:
                self.auxiliary_queue = torch.randperm(n_auxiliary, **drawing(self.dataset.device))
            taken.append(self.auxiliary_queue[:n])
            self.auxiliary_queue = self.auxiliary_queue[n:]
            n -= len(taken[-1])
        return self.dataset.auxiliary_rows(torch.cat(taken))


def _joined(waiting: list[Tensor], parts: list[Tensor], chosen: Tensor) -> list[Tensor]:
    """Return the waiting rows and, behind them, the chosen rows of each part.

    These are copies: a view would keep its whole chunk in memory.
    """
    drawn = [part.index_select(0, chosen) for part in parts]
    return [torch.cat(pair) for pair in zip(waiting, drawn, strict=True)] if waiting else drawn
