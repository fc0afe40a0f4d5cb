"""Distances to the nearest rows: exact, and the same ones in any batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from skood.networks import NearestRows, neighbors

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close_together(spread, dtype, n_rows=2000):
    """Return rows of which most are near duplicates of one another, and queries among them and elsewhere."""
    rows = normal(1, 24) + torch.cat([spread * normal(n_rows, 24), normal(100, 24)])
    queries = torch.cat([rows[:5], normal(1, 24) + spread * normal(30, 24, seed=1), normal(5, 24, seed=2)])
    return rows.to(dtype), queries.to(dtype)


def expected(queries, rows, k):
    return np.sort(cdist(queries.double().cpu().numpy(), rows.double().cpu().numpy()), axis=1)[:, :k]


@DTYPES
@pytest.mark.parametrize("spread", [1e-9, 1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_distances_are_exact(spread, k, dtype, device):
    rows, queries = (values.to(device) for values in close_together(spread, dtype))
    found = NearestRows(rows).distances(queries, k)
    assert (found.dtype, found.device) == (torch.float64, rows.device)
    assert_allclose(found.cpu(), expected(queries, rows, k), rtol=1e-12)


# Few values make many ties.
LATTICE = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 80), st.just(3)), elements=st.sampled_from([0.0, 0.1, 1e-8, 7])
)


@settings(max_examples=60)
@given(LATTICE, LATTICE, st.integers(1, 80), st.booleans())
def test_among_ties(rows, queries, k, single):
    rows, queries = torch.from_numpy(rows), torch.from_numpy(queries)
    if single:
        rows, queries = rows.float(), queries.float()
    k = min(k, len(rows))
    found = NearestRows(rows).distances(queries, k)
    assert_allclose(found, expected(queries, rows, k), rtol=1e-12)
    assert torch.equal(found, found.sort(1).values)


@DTYPES
@pytest.mark.parametrize("spread", [1e-9, 1.0])
def test_a_query_has_the_same_distances_in_any_batch(spread, dtype, device, monkeypatch):
    rows, queries = (values.to(device) for values in close_together(spread, dtype))
    search = NearestRows(rows)
    together = search.distances(queries, 7)
    for size in (1, 3):
        alone = torch.cat([search.distances(part, 7) for part in queries.split(size)])
        assert torch.equal(alone, together)
    assert torch.equal(search.distances(queries.flip(0), 7).flip(0), together)
    assert search.distances(queries[:0], 7).shape == (0, 7)
    # Nor does it matter how the work is cut up.
    monkeypatch.setattr(neighbors, "_VALUES", 2**16)
    assert torch.equal(search.distances(queries, 7), together)


def test_products_may_be_less_precise_than_their_type():
    # Far from zero, so that bfloat16 confuses which rows are near.
    rows, queries = (values + 5 for values in close_together(1.0, torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        found = NearestRows(rows).distances(queries, 5)
    assert_allclose(found, expected(queries, rows, 5), rtol=1e-12)


@pytest.mark.parametrize("k", [0, 4])
def test_k_is_refused(k):
    with pytest.raises(ValueError, match=rf"k={k} must be at least 1 and at most the number of rows, 3"):
        NearestRows(normal(3, 2)).distances(normal(1, 2), k)


def test_gradients():
    search, queries = NearestRows(normal(300, 4)), normal(5, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda queries: search.distances(queries, 3), (queries,))


class Largest(TorchDispatchMode):
    """Notes the size of the largest new tensor."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor) and not one._is_view():
                self.size = max(self.size, one.nbytes)
        return result


@DTYPES
@pytest.mark.parametrize("spread", [1e-9, 1.0])
def test_memory(spread, dtype):
    rows, _ = close_together(spread, dtype, n_rows=20_000)
    search, queries = NearestRows(rows), rows[:1024] + normal(1024, 24, dtype=dtype)
    with Largest() as largest:
        search.distances(queries[:40], 2)
        search.distances(queries, 2)
    assert largest.size < 2**26


class Neighbors(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.search = NearestRows(rows)

    def forward(self, queries):
        return self.search.distances(queries, 5)


@pytest.mark.slow
@DTYPES
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_export_and_trace(dtype):
    rows, queries = close_together(1e-9, dtype)
    module, few = Neighbors(rows), queries[-5:]
    assert set(module.state_dict()) == {"search.rows", "search.squares"}
    batch = {0: torch.export.Dim("batch")}
    for program in (
        torch.export.export(module, (few,), dynamic_shapes=(batch,)).module(),
        torch.export.export(module, (few,), dynamic_shapes=(batch,)).run_decompositions().module(),
        torch.jit.trace(module, (few,)),
    ):
        # All of those that it was traced with were settled at once; of these only some are.
        for given_rows in (few, queries, queries[:1]):
            assert torch.equal(program(given_rows), module(given_rows))
