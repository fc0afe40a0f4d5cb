"""Scoring in blocks of a fixed shape: a row's result depends neither on the other rows nor on their number."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skood.networks import MLP, make_classifier
from skood.training.scoring import apply_in_blocks, block_sizes

CPU = torch.device("cpu")


def plain(rows):
    return rows.float()


def run(module, rows):
    return module(rows)


class Spying(nn.Module):
    """Remember of how many rows the blocks were."""

    def __init__(self, module):
        super().__init__()
        self.module, self.sizes = module, []

    def forward(self, rows):
        self.sizes.append(len(rows))
        return self.module(rows)


class SeesTheBlock(nn.Module):
    """Give what depends on the number of rows in a block, as a product's last bits may."""

    def forward(self, rows):
        return rows.sum(1) + 0.01 * len(rows)


def network(shape):
    torch.manual_seed(0)
    return (
        MLP(*shape, 3, (32,))
        if len(shape) == 1
        else make_classifier("wrn-10-1", shape, 3, hidden_sizes=(), dropout=0.0)
    )


def uneven(build):
    """Return a network whose rows of numbers do not all begin at multiples of 16 bytes."""
    torch.manual_seed(0)
    return build()


ROWS = {shape: np.random.default_rng(0).normal(size=(150, *shape)) for shape in [(5,), (1, 8, 8)]}
NETWORKS = {shape: network(shape) for shape in ROWS}
RESULTS = {shape: apply_in_blocks(NETWORKS[shape], X, None, plain, run) for shape, X in ROWS.items()}
UNEVEN = {
    "ours": uneven(lambda: MLP(10, 3, (5, 50))),
    "torch's": uneven(
        lambda: nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 50), nn.ReLU(), nn.Linear(50, 9))
    ),
}


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("name", UNEVEN)
def test_no_place_in_a_block_matters(name, n_threads):
    X = np.random.default_rng(0).normal(size=(1100, 10))
    torch.set_num_threads(n_threads)
    try:
        results = apply_in_blocks(UNEVEN[name], X, None, plain, run)
        assert np.array_equal(apply_in_blocks(UNEVEN[name], X[::-1], None, plain, run)[::-1], results)
        for start in (0, 1, 2, 3, 5):
            assert np.array_equal(apply_in_blocks(UNEVEN[name], X[start:], None, plain, run), results[start:])
        for _ in range(3):
            assert np.array_equal(apply_in_blocks(UNEVEN[name], X[3:4], None, plain, run), results[3:4])
    finally:
        torch.set_num_threads(1)


@settings(max_examples=40)
@given(
    shape=st.sampled_from(list(ROWS)),
    chosen=st.lists(st.integers(0, 149), min_size=1, max_size=80),
    by_index=st.booleans(),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_any_rows_in_any_order_have_the_same_results(shape, chosen, by_index, dtype):
    X = ROWS[shape].astype(dtype)
    given_rows = (X, np.array(chosen)) if by_index else (X[chosen], None)
    assert np.array_equal(apply_in_blocks(NETWORKS[shape], *given_rows, plain, run), RESULTS[shape][chosen])


def test_results_are_those_of_the_network():
    for shape, X in ROWS.items():
        with torch.no_grad():
            expected = NETWORKS[shape](torch.from_numpy(X).float())
        np.testing.assert_allclose(RESULTS[shape], expected, rtol=1e-4, atol=1e-6)


def test_a_few_rows_go_through_a_smaller_block():
    module = Spying(MLP(5, 3, (32,)))
    X = ROWS[5,]
    few = [apply_in_blocks(module, X[:3], None, plain, run) for _ in range(2)]
    # A network that scores once or twice is not worth a trial.
    assert module.sizes == [2048, 2048]
    few.append(apply_in_blocks(module, X[:3], None, plain, run))
    module.sizes.clear()
    few.append(apply_in_blocks(module, X[:3], None, plain, run))
    assert module.sizes == [32]
    assert all(np.array_equal(few[0], other) for other in few)
    apply_in_blocks(module, np.concatenate([X] * 13), None, plain, run)
    assert module.sizes[:2] == [32, 2048]


def test_no_smaller_block_is_taken_that_gives_other_results():
    module = Spying(SeesTheBlock())
    X = ROWS[5,]
    one_by_one = np.concatenate([apply_in_blocks(module, row[None], None, plain, run) for row in X[:4]])
    assert np.array_equal(one_by_one, apply_in_blocks(module, X, None, plain, run)[:4])
    module.sizes.clear()
    apply_in_blocks(module, X[:1], None, plain, run)
    assert module.sizes == [2048]


class RoundsFewRows(nn.Module):
    """Give other results for one row in thirty, where a number is large, unless a block is the largest one."""

    def __init__(self, column, sign, largest):
        super().__init__()
        self.column, self.sign, self.largest = column, sign, largest

    def forward(self, rows):
        numbers = rows.flatten(1)
        few = self.sign * numbers[:, self.column] > 1.85
        return numbers.sum(1) + 1e-6 * few * (len(rows) < self.largest)


@pytest.mark.parametrize(("shape", "largest"), [((5,), 2048), ((1, 8, 8), 64)])
def test_a_smaller_block_that_rounds_few_rows_otherwise_is_noticed(shape, largest):
    columns = range(5) if shape == (5,) else range(0, 64, 4)
    for column in columns:
        for sign in (1, -1):
            module = Spying(RoundsFewRows(column, sign, largest))
            for _ in range(3):
                apply_in_blocks(module, ROWS[shape][:1], None, plain, run)
            # Of 64 images, some have no such number.
            noise = torch.empty(largest, *shape).normal_(generator=torch.Generator().manual_seed(0)).flatten(1)
            assert module.sizes[-1] == largest or not (sign * noise[:, column] > 1.85).any()


def test_what_stands_before_the_network_is_tried_out_too():
    def counting(rows):
        return rows.float() + 0.01 * len(rows)

    X, module = ROWS[5,], nn.Linear(5, 1)
    for _ in range(3):
        alone = apply_in_blocks(module, X[:1], None, counting, run)
        assert np.array_equal(alone, apply_in_blocks(module, X, None, counting, run)[:1])


def test_a_network_that_does_not_take_noise():
    """Such as one that looks up words by their numbers."""
    torch.manual_seed(0)
    module = nn.EmbeddingBag(3, 4)
    X = np.random.default_rng(0).integers(0, 3, size=(20, 5))

    def words(module, rows):
        return module(rows.long())

    all_at_once = apply_in_blocks(module, X, None, plain, words)
    for _ in range(3):
        assert np.array_equal(apply_in_blocks(module, X[7:8], None, plain, words), all_at_once[7:8])


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((30,), (32, 128, 512, 2048)),
        ((512,), (32, 128, 512)),
        ((4096,), (32, 128, 256)),
        ((1, 28, 28), (2, 8, 32, 64)),
        ((3, 32, 32), (2, 8, 16)),
        ((3, 224, 224), (2, 4)),
    ],
)
def test_sizes_of_blocks(shape, sizes):
    assert block_sizes(shape, CPU) == sizes
    (on_a_gpu,) = block_sizes(shape, torch.device("cuda"))
    assert on_a_gpu == min(16 * sizes[-1], on_a_gpu)
    assert math.log2(on_a_gpu).is_integer()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_callers_modes_do_not_matter(enabled):
    shape = (5,)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.inference_mode(enabled):
        assert np.array_equal(apply_in_blocks(NETWORKS[shape], ROWS[shape], None, plain, run), RESULTS[shape])


def test_aligned_or_not():
    """numpy's memory may begin anywhere, and products may then add up in another order."""
    X = ROWS[5,].astype(np.float32)
    bytes_before = np.zeros(X.nbytes + 4, dtype=np.uint8)
    shifted = bytes_before[4:].view(np.float32).reshape(X.shape)
    shifted[:] = X
    assert np.array_equal(apply_in_blocks(NETWORKS[5,], shifted, None, plain, run), RESULTS[5,])
