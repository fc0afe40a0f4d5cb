"""Rows on their way to the device: chunks of arrays, and batches of tensors. Loads torch and nothing else."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

# A memory map that takes more bytes than this as float32 is not held on the device: it streams in chunks.
RESIDENT_BYTES = 2**30
# Arrays are read, converted and scored in chunks that have at most so many rows and take at most so many bytes as
# float64; a streamed array is shuffled within chunks that take so many bytes as float32.
CHUNK_ROWS = 1024
CHUNK_BYTES = 2**25
STREAM_BYTES = 2**28
# A network's maps of images take many times the memory of the images: in smaller chunks a residual network scores in
# 40 % less time.
SCORED_BYTES = 2**22

Represent = Callable[[np.ndarray], np.ndarray]


def rows_a_chunk(X: np.ndarray, n_bytes: int | None = None) -> int:
    """Return how many rows of ``X`` go into one chunk.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
    n_bytes : int or None, default=None
        The most that a chunk may take, as float64; None is ``CHUNK_BYTES``.

    Returns
    -------
    n_rows : int
        Between 1 and ``CHUNK_ROWS``.
    """
    n_bytes = CHUNK_BYTES if n_bytes is None else n_bytes
    return max(1, min(CHUNK_ROWS, n_bytes // (8 * max(1, math.prod(X.shape[1:])))))


def chunks(X: np.ndarray, indices: np.ndarray | None = None, n_bytes: int | None = None) -> Iterator[np.ndarray]:
    """Yield consecutive chunks of ``X``, or of its rows at ``indices``, without ever copying the whole.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
    indices : ndarray of int of shape (n_indices,) or None, default=None
        The rows to yield, in this order; None is all rows.
    n_bytes : int or None, default=None
        As in `rows_a_chunk`, which gives the length of all chunks but the last.

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


def padded(values: np.ndarray, n_rows: int) -> np.ndarray:
    """Return ``values`` with the last row repeated until there are ``n_rows`` rows."""
    return np.pad(values, [(0, n_rows - len(values))] + [(0, 0)] * (values.ndim - 1), mode="edge")


def to_tensor(X: np.ndarray, indices: np.ndarray | None, represent: Represent, device: torch.device) -> Tensor:
    """Return represented rows as one float32 tensor on ``device``, filled chunk by chunk.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
    indices : ndarray of int of shape (n_indices,) or None
        The rows to take; None is all rows.
    represent : callable
        Maps a chunk of ``X`` to what the module takes.
    device : torch.device

    Returns
    -------
    tensor : Tensor of shape (n_indices, ...)
        It shares no memory with ``X``, so what works on it in place leaves ``X`` as it is.
    """
    n = len(X) if indices is None else len(indices)
    tensor, start = torch.empty(0, device=device), 0
    for chunk in chunks(X, indices):
        part = torch.from_numpy(np.ascontiguousarray(represent(chunk), dtype=np.float32))
        if start == 0:
            # Only a represented chunk tells the shape of a row.
            tensor = torch.empty((n, *part.shape[1:]), device=device)
        tensor[start : start + len(part)] = part.to(device)
        start += len(part)
    return tensor


class TrainingRows(torch.utils.data.Dataset):
    """Hold what one fit trains on: the array, the indices of its rows, and their labels.

    Rows that fit into memory lie on the device, represented, as ``resident`` and ``resident_auxiliary``. Otherwise
    these are None, and rows are read and represented while the network trains.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
        Validated rows, in memory or a memory map.
    indices : ndarray of int of shape (n_in_distribution,) or None
        Indices in ``X`` of the in-distribution rows; None is all rows.
    represent : callable
        Maps a chunk of ``X`` to what the module takes.
    device : torch.device
        Where the batches are to lie.
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
        self.resident = None if self._too_large(self.n_rows) else to_tensor(X, indices, represent, device)
        self.resident_auxiliary = None
        if auxiliary_indices is not None and not self._too_large(len(auxiliary_indices)):
            self.resident_auxiliary = to_tensor(X, auxiliary_indices, represent, device)

    def __len__(self) -> int:
        return self.n_rows

    def _too_large(self, n_rows: int) -> bool:
        n_bytes = 4 * n_rows * math.prod(self.X.shape[1:])
        if self.device.type == "cuda":
            # The other half is for the network, its gradients and its batches.
            return n_bytes > torch.cuda.mem_get_info(self.device)[0] // 2
        # An array in memory is held whatever its size; only a memory map may be larger than the memory.
        return n_bytes > RESIDENT_BYTES and _is_memory_map(self.X)

    def auxiliary_rows(self, chosen: Tensor) -> Tensor:
        """Return auxiliary outliers, represented, on the device.

        Parameters
        ----------
        chosen : Tensor of int of shape (n_chosen,)
            Positions in ``auxiliary_indices``.

        Returns
        -------
        rows : Tensor of shape (n_chosen, ...)
            In any order.
        """
        if self.resident_auxiliary is not None:
            return self.resident_auxiliary.index_select(0, chosen)
        assert self.auxiliary_indices is not None
        # Read in the order in which they lie in the file; the batch is shuffled anyway.
        indices = np.sort(self.auxiliary_indices[chosen.cpu().numpy()])
        return to_tensor(self.X, indices, self.represent, self.device)

    def share(self, number: int, n: int) -> TrainingRows:
        """Return the part that process ``number`` of ``n`` trains on: every n-th row, and every n-th auxiliary outlier.

        All processes get the same number of rows, because with fewer batches one of them would stop while the others
        wait for its gradients. Where ``n`` does not divide the number of rows, some rows come twice.

        Raises
        ------
        ValueError
            If there are fewer than two rows for each process.
        """
        if self.n_rows < 2 * n:
            raise ValueError(f"{self.n_rows} rows are too few for {n} processes: each needs at least 2.")

        def positions(n_rows: int) -> np.ndarray:
            return np.arange(number, number + n * -(-n_rows // n), n) % n_rows

        def taken(tensor: Tensor | None, chosen: np.ndarray) -> Tensor | None:
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
        """Return the indices in ``X`` of the in-distribution rows from number ``start`` to before number ``stop``."""
        return np.arange(start, min(stop, self.n_rows)) if self.indices is None else self.indices[start:stop]


def _is_memory_map(array: np.ndarray | None) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def n_batches(n_rows: int, batch_size: int) -> int:
    """Return the number of batches in a pass, of which the last has between 2 and ``batch_size + 1`` rows."""
    return max(n_rows - 2, 0) // batch_size + 1


class TensorBatches:
    """Iterate over whole batches of a `TrainingRows`, drawn on the device and shuffled anew in each pass.

    Yields ``(rows, extra)``. Every row is seen once a pass. A last batch of a single row would break batch
    normalisation, so it joins the batch before it. ``extra`` holds ``labels`` of the rows and ``auxiliary``, rows drawn
    without replacement across batches, where there are any.

    Parameters
    ----------
    dataset : TrainingRows
    batch_size : int
        In-distribution rows in a batch.
    auxiliary_ratio : float, default=0.0
        Auxiliary rows for each in-distribution row; 0 leaves them out.
    """

    def __init__(self, dataset: TrainingRows, batch_size: int, auxiliary_ratio: float = 0.0) -> None:
        self.dataset, self.batch_size, self.auxiliary_ratio = dataset, batch_size, auxiliary_ratio
        # Positions of auxiliary outliers that no batch has had since they were last shuffled.
        self.auxiliary_queue = torch.empty(0, dtype=torch.long, device=dataset.device)

    def __len__(self) -> int:
        return n_batches(len(self.dataset), self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        pairs = self._stream() if self.dataset.resident is None else self._draw(self.dataset.resident)
        for rows, labels in pairs:
            extra = {} if labels is None else {"labels": labels}
            if self.dataset.auxiliary_indices is not None and self.auxiliary_ratio > 0:
                n = max(1, round(self.auxiliary_ratio * len(rows)))
                extra["auxiliary"] = self._next_auxiliary(n, len(self.dataset.auxiliary_indices))
            yield rows, extra

    def _sizes(self, n: int) -> list[int]:
        n_whole = n_batches(n, self.batch_size) - 1
        return [self.batch_size] * n_whole + [n - n_whole * self.batch_size]

    def _draw(self, resident: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield batches of rows that lie on the device."""
        labels = self.dataset.labels
        order = torch.randperm(len(resident), device=resident.device)
        for chosen in order.split(self._sizes(len(resident))):
            yield resident.index_select(0, chosen), None if labels is None else labels.index_select(0, chosen)

    def _stream(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield batches of rows that are read chunk by chunk.

        Chunks come in random order and are shuffled inside. Rows that do not fill a batch wait for the next chunk.
        """
        data = self.dataset
        size = max(STREAM_BYTES // (4 * math.prod(data.X.shape[1:])), self.batch_size)
        waiting: list[Tensor] = []
        n_waiting = 0
        n_chunks = -(-len(data) // size)
        for seen, number in enumerate(torch.randperm(n_chunks).tolist(), start=1):
            start, stop = number * size, (number + 1) * size
            parts = [to_tensor(data.X, data.indices_between(start, stop), data.represent, data.device)]
            if data.labels is not None:
                parts.append(data.labels[start:stop])
            order = torch.randperm(len(parts[0]), device=data.device)
            n_rows = n_waiting + len(order)
            # At least one row waits, so that the last chunk never makes a batch of one.
            sizes = self._sizes(n_rows) if seen == n_chunks else [self.batch_size] * ((n_rows - 1) // self.batch_size)
            *whole, rest = order.tensor_split((np.cumsum(sizes, dtype=int) - n_waiting).tolist())
            for chosen in whole:
                batch, waiting = _joined(waiting, parts, chosen), []
                yield batch[0], batch[1] if len(batch) > 1 else None
            waiting = _joined(waiting, parts, rest)
            n_waiting = len(waiting[0])
            # Otherwise two chunks would be in memory while the next one is read.
            del parts

    def _next_auxiliary(self, n: int, n_auxiliary: int) -> Tensor:
        taken = []
        while n > 0:
            if len(self.auxiliary_queue) == 0:
                self.auxiliary_queue = torch.randperm(n_auxiliary, device=self.dataset.device)
            taken.append(self.auxiliary_queue[:n])
            self.auxiliary_queue = self.auxiliary_queue[n:]
            n -= len(taken[-1])
        return self.dataset.auxiliary_rows(torch.cat(taken))


def _joined(waiting: list[Tensor], parts: list[Tensor], chosen: Tensor) -> list[Tensor]:
    """Return the chosen rows of each part behind those that wait, as copies, which keep no chunk in memory."""
    drawn = [part.index_select(0, chosen) for part in parts]
    return [torch.cat(pair) for pair in zip(waiting, drawn, strict=True)] if waiting else drawn
