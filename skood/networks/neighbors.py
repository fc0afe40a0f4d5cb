"""Exact distances to the nearest of many rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

# With up to 1024 queries at once, no intermediate result holds more numbers than this: 32 MiB of float64.
_VALUES, _QUERIES = 2**22, 1024
# Rows that are measured besides the k nearest: few for every query, more for queries that stay in doubt.
_SPARE = (8, 200)


def precise_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on MPS, which lacks float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class NearestRows(nn.Module):
    """Find the distances from queries to the nearest of some rows: exact, and the same in any batch.

    Matrix products are fast, but lose the digits of small distances, and round differently from batch to batch. So they
    only give a lower bound of each distance. The rows with the smallest bounds are measured by differences. If another
    row could still be nearer, the query is compared with more rows, at last with all.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, n_features)
        If they are float32, matrix products are float32, else float64. Distances are float64 (float32 on MPS, which
        lacks float64).
    """

    rows: Tensor
    squares: Tensor

    def __init__(self, rows: Tensor):
        super().__init__()
        precise = precise_dtype(rows.device)
        if rows.dtype != torch.float32:
            rows = rows.to(precise)
        # Stored as numbers, because under `torch.jit.trace` the shape of a tensor consists of tensors.
        self.n_rows, self.n_features = rows.shape
        self.register_buffer("rows", rows)
        self.register_buffer("squares", torch.linalg.vector_norm(rows, dim=1, dtype=precise).square().to(rows.dtype))

    def distances(self, queries: Tensor, k: int) -> Tensor:
        """Return the Euclidean distances from each query to the k nearest rows.

        Memory grows with the number of queries: pass about a thousand at a time.

        Parameters
        ----------
        queries : Tensor of shape (n_queries, n_features)
            On the device of the rows.
        k : int
            Number of neighbours, at most the number of rows.

        Returns
        -------
        distances : Tensor of float64 of shape (n_queries, k)
            Ascending; float32 on MPS.

        Raises
        ------
        ValueError
            If k is less than 1 or more than the number of rows.
        """
        if not 1 <= k <= self.n_rows:
            raise ValueError(f"k={k} must be at least 1 and at most the number of rows, {self.n_rows}.")
        return self._nearest(queries.to(precise_dtype(queries.device)), k, _SPARE)

    def _nearest(self, queries: Tensor, k: int, spare: tuple[int, ...]) -> Tensor:
        """Return the distances to the k nearest rows, after measuring the k + ``spare[0]`` rows of smallest bounds."""
        # Among few rows, choosing takes longer than measuring all. And `torch.export` cannot know how many queries are
        # in doubt.
        if not spare or 4 * (k + spare[0]) >= self.n_rows or torch.compiler.is_compiling():
            return self._nearest_of_all(queries, k)
        bounds, places = self._smallest_bounds(queries.detach(), k + spare[0])
        measured = self._measured(queries, places)
        nearest = measured.topk(k, dim=1, largest=False).values
        # Measured distances have rounding errors, too.
        squares = measured.detach().square() * (1 + self._rounding(measured.dtype))
        last = squares.topk(k, dim=1, largest=False).values[:, -1]
        # If products are less precise than their dtype (TF32, autocast), bounds may lie above the squares they bound.
        settled = (bounds.amax(1) > last) & (bounds <= squares).all(1)
        doubtful = ~(settled | (nearest.detach()[:, -1] == 0))
        again = self._nearest(queries[doubtful], k, spare[1:])
        return nearest.masked_scatter(doubtful[:, None], again)

    def _rounding(self, dtype: torch.dtype) -> float:
        """Return an upper bound of the relative rounding error of a sum of products over the features."""
        return (self.n_features + 16) * torch.finfo(dtype).eps

    def _smallest_bounds(self, queries: Tensor, n_smallest: int) -> tuple[Tensor, Tensor]:
        """Return the smallest lower bounds of a query's squared distances, and the indices of their rows.

        |q - t|^2 = |q|^2 + |t|^2 - 2 qt is off by at most a rounding error times |q|^2 + |t|^2, which is subtracted.
        """
        shrunk, factors = 1 - self._rounding(self.rows.dtype), queries.to(self.rows.dtype)
        bounds = factors[:, :0]
        places = bounds.to(torch.int64)
        for start, end in self._chunks():
            some = torch.addmm(shrunk * self.squares[start:end], factors, self.rows[start:end].T, alpha=-2)
            new = some.topk(min(n_smallest, end - start), 1, largest=False)
            bounds, places = torch.cat([bounds, new.values], 1), torch.cat([places, new.indices + start], 1)
            bounds, kept = bounds.topk(min(n_smallest, end), 1, largest=False)
            places = places.gather(1, kept)
        return shrunk * queries.square().sum(1, keepdim=True) + bounds, places

    def _measured(self, queries: Tensor, places: Tensor) -> Tensor:
        """Return the distances from each query to the rows with these indices."""
        size = max(1, _VALUES // (_QUERIES * self.n_features))
        return torch.cat([_apart(queries[:, None], self.rows[some])[:, 0] for some in places.split(size, 1)], 1)

    def _nearest_of_all(self, queries: Tensor, k: int) -> Tensor:
        """Return the distances to the k nearest rows, after measuring all rows."""
        nearest = queries[:, :0]
        for start, end in self._chunks():
            nearest = torch.cat([nearest, _apart(queries, self.rows[start:end])], 1)
            nearest = nearest.topk(min(k, end), 1, largest=False).values
        return nearest

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each chunk of rows."""
        size = max(1, _VALUES // max(_QUERIES, self.n_features))
        for start in range(0, self.n_rows, size):
            yield start, min(start + size, self.n_rows)


def _apart(queries: Tensor, rows: Tensor) -> Tensor:
    """Return the distances by differences: the same for a query and a row whatever their positions."""
    # `torch.cdist` calls this, but first checks whether there are any queries, which `torch.export` cannot handle. The
    # last two arguments mean Euclidean distances, and no matrix product.
    return torch.ops.aten._cdist_forward(queries, rows.to(queries.dtype), 2.0, 2)
