"""Rows on their way to the device: chunks of arrays, and batches of tensors. Loads torch and nothing else."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

# Rows are taken to the device in one piece unless that takes more than this; a memory map then streams in chunks.
RESIDENT_BYTES = 2**30
# Arrays are read, converted and scored in chunks of at most so many rows, and no more than take so many bytes as
# float64; a streamed array is shuffled within chunks of so many bytes as float32.
CHUNK_ROWS = 1024
CHUNK_BYTES = 2**25
STREAM_BYTES = 2**28
# What a network makes of images takes many times their memory: scored in smaller chunks, a residual network
# takes 40 % less time.
SCORED_BYTES = 2**22

Represent = Callable[[np.ndarray], np.ndarray]


def rows_a_chunk(X: np.ndarray, n_bytes: int | None = None) -> int:
    """Rows of ``X`` in one chunk of ``n_bytes`` at most; None is ``CHUNK_BYTES``."""
    n_bytes = CHUNK_BYTES if n_bytes is None else n_bytes
    return max(1, min(CHUNK_ROWS, n_bytes // (8 * max(1, math.prod(X.shape[1:])))))


def chunks(X: np.ndarray, rows: np.ndarray | None = None, n_bytes: int | None = None) -> Iterator[np.ndarray]:
    """Consecutive pieces of ``X``, or of its rows at the indices ``rows``; never a copy of the whole.

    They have `rows_a_chunk` rows.

    Pieces are C-contiguous, since sums over columns and over rows of memory round differently.
    """
    n = len(X) if rows is None else len(rows)
    size = rows_a_chunk(X, n_bytes)
    for start in range(0, n, size):
        part = slice(start, start + size)
        yield np.ascontiguousarray(X[part] if rows is None else X[rows[part]])


def padded(values: np.ndarray, n_rows: int) -> np.ndarray:
    """``values`` with its last row repeated until there are ``n_rows``."""
    return np.pad(values, [(0, n_rows - len(values))] + [(0, 0)] * (values.ndim - 1), mode="edge")


def to_tensor(X: np.ndarray, rows: np.ndarray | None, represent: Represent, device: torch.device) -> Tensor:
    """The represented rows as one float32 tensor on ``device``, filled chunk by chunk."""
    n = len(X) if rows is None else len(rows)
    tensor, start = None, 0
    for chunk in chunks(X, rows):
        part = torch.from_numpy(np.ascontiguousarray(represent(chunk), dtype=np.float32))
        if tensor is None:
            tensor = torch.empty((n, *part.shape[1:]), device=device)
        tensor[start : start + len(part)] = part.to(device)
        start += len(part)
    return tensor


class TrainingRows(torch.utils.data.Dataset):
    """What one fit trains on.

    Parameters
    ----------
    X : ndarray of shape (n_rows, ...)
        Validated rows, in memory or a memory map.
    rows : ndarray of int or None
        Indices of the in-distribution rows; None is all.
    represent : callable
        Turns a chunk of ``X`` into what the module takes.
    device : torch.device
        Where the batches are to lie.
    labels : ndarray of int of shape (n_in_distribution,) or None
        Encoded class of each in-distribution row.
    auxiliary : ndarray of int or None
        Indices of the auxiliary outliers in ``X``. They too are read batch by batch where they are too many to hold.
    """

    def __init__(self, X, rows, represent, device, labels=None, auxiliary=None):
        self.X, self.rows, self.represent, self.device = X, rows, represent, device
        self.n_rows = len(X) if rows is None else len(rows)
        self.labels = None if labels is None else torch.as_tensor(labels, device=device)
        self.auxiliary = auxiliary
        self.resident = None if self._too_large(self.n_rows) else to_tensor(X, rows, represent, device)
        self.resident_auxiliary = None
        if auxiliary is not None and not self._too_large(len(auxiliary)):
            self.resident_auxiliary = to_tensor(X, auxiliary, represent, device)

    def __len__(self):
        return self.n_rows

    def _too_large(self, n_rows: int) -> bool:
        n_bytes = 4 * n_rows * math.prod(self.X.shape[1:])
        if self.device.type == "cuda":
            return n_bytes > torch.cuda.mem_get_info(self.device)[0] // 2
        return n_bytes > RESIDENT_BYTES and _is_memory_map(self.X)

    def auxiliary_rows(self, chosen: Tensor) -> Tensor:
        """The auxiliary rows at these places among them, represented, on the device."""
        if self.resident_auxiliary is not None:
            return self.resident_auxiliary.index_select(0, chosen)
        # Read in the order in which they lie in the file; the batch is shuffled anyway.
        return to_tensor(self.X, np.sort(self.auxiliary[chosen.cpu().numpy()]), self.represent, self.device)

    def share(self, number: int, n: int) -> TrainingRows:
        """The part of the rows that process ``number`` of ``n`` trains on: every n-th row.

        All have the same number of rows, or they would not take the same steps: where ``n`` does not divide them, some
        come twice. So with auxiliary rows.
        """
        if self.n_rows < 2 * n:
            raise ValueError(f"{self.n_rows} rows are too few for {n} processes: each needs at least 2.")

        def places(n_rows):
            return np.arange(number, number + n * -(-n_rows // n), n) % n_rows

        def drawn(tensor, chosen):
            return None if tensor is None else tensor[torch.from_numpy(chosen).to(tensor.device)]

        part, chosen = copy.copy(self), places(self.n_rows)
        part.n_rows = len(chosen)
        part.rows = chosen if self.rows is None else self.rows[chosen]
        part.labels, part.resident = drawn(self.labels, chosen), drawn(self.resident, chosen)
        if self.auxiliary is not None:
            chosen = places(len(self.auxiliary))
            part.auxiliary = self.auxiliary[chosen]
            part.resident_auxiliary = drawn(self.resident_auxiliary, chosen)
        return part

    def indices(self, start: int, stop: int) -> np.ndarray:
        return np.arange(start, min(stop, self.n_rows)) if self.rows is None else self.rows[start:stop]


def _is_memory_map(array: np.ndarray) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def n_batches(n_rows: int, batch_size: int) -> int:
    """Batches in a pass: the last has between 2 and ``batch_size + 1`` rows."""
    return max(n_rows - 2, 0) // batch_size + 1


class TensorBatches:
    """Whole batches of a `TrainingRows`, shuffled anew in each pass: ``(rows, extra)``, drawn on the device.

    Every row is seen once a pass. A last batch of a single row would break batch normalisation, so it joins the batch
    before it. ``extra`` may hold ``labels`` of the rows and ``auxiliary``, drawn without replacement across batches.

    Parameters
    ----------
    dataset : TrainingRows
    batch_size : int
        In-distribution rows in a batch.
    auxiliary_ratio : float, default=0.0
        Auxiliary rows for each in-distribution row; 0 leaves them out.
    """

    def __init__(self, dataset: TrainingRows, batch_size: int, auxiliary_ratio: float = 0.0):
        self.dataset, self.batch_size, self.auxiliary_ratio = dataset, batch_size, auxiliary_ratio
        self.auxiliary_queue = None

    def __len__(self) -> int:
        return n_batches(len(self.dataset), self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        pieces = self._stream() if self.dataset.resident is None else self._resident()
        for rows, labels in pieces:
            extra = {} if labels is None else {"labels": labels}
            if self.dataset.auxiliary is not None and self.auxiliary_ratio > 0:
                extra["auxiliary"] = self._next_auxiliary(max(1, round(self.auxiliary_ratio * len(rows))))
            yield rows, extra

    def _sizes(self, n: int) -> list[int]:
        n_whole = n_batches(n, self.batch_size) - 1
        return [self.batch_size] * n_whole + [n - n_whole * self.batch_size]

    def _resident(self):
        data, labels = self.dataset.resident, self.dataset.labels
        order = torch.randperm(len(data), device=data.device)
        for index in order.split(self._sizes(len(data))):
            yield data.index_select(0, index), None if labels is None else labels.index_select(0, index)

    def _stream(self):
        # Chunks come in random order and are shuffled inside; what does not fill a batch waits for the next chunk.
        data = self.dataset
        size = max(STREAM_BYTES // (4 * math.prod(data.X.shape[1:])), self.batch_size)
        waiting, n_waiting = [], 0
        n_chunks = -(-len(data) // size)
        for seen, number in enumerate(torch.randperm(n_chunks).tolist(), start=1):
            start, stop = number * size, (number + 1) * size
            parts = [to_tensor(data.X, data.indices(start, stop), data.represent, data.device)]
            if data.labels is not None:
                parts.append(data.labels[start:stop])
            order = torch.randperm(len(parts[0]), device=data.device)
            n_rows = n_waiting + len(order)
            # At least one row waits, so that the last chunk never makes a batch of one.
            sizes = self._sizes(n_rows) if seen == n_chunks else [self.batch_size] * ((n_rows - 1) // self.batch_size)
            *whole, rest = order.tensor_split((np.cumsum(sizes, dtype=int) - n_waiting).tolist())
            for chosen in whole:
                batch, waiting = _drawn(waiting, parts, chosen), []
                yield batch[0], batch[1] if len(batch) > 1 else None
            waiting = _drawn(waiting, parts, rest)
            n_waiting = len(waiting[0])
            # Else two chunks would be in memory at a time.
            del parts

    def _next_auxiliary(self, n: int) -> Tensor:
        taken = []
        while n > 0:
            if self.auxiliary_queue is None or len(self.auxiliary_queue) == 0:
                self.auxiliary_queue = torch.randperm(len(self.dataset.auxiliary), device=self.dataset.device)
            taken.append(self.auxiliary_queue[:n])
            self.auxiliary_queue = self.auxiliary_queue[n:]
            n -= len(taken[-1])
        return self.dataset.auxiliary_rows(torch.cat(taken))


def _drawn(waiting: list[Tensor], parts: list[Tensor], chosen: Tensor) -> list[Tensor]:
    """The chosen rows of each part, behind those that wait; copies, which keep no chunk in memory."""
    drawn = [part.index_select(0, chosen) for part in parts]
    return [torch.cat(pair) for pair in zip(waiting, drawn, strict=True)] if waiting else drawn
