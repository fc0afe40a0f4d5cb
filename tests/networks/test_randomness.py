"""The random numbers of a fit are those of its own generators, and the same that torch's own would give."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from skood.networks.randomness import Dropout, directly, drawing, fit_generator, intercepted, own_numbers

ROWS = torch.arange(12.0).reshape(3, 4)
CHANNELS_LAST = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
DRAWS = {
    "rand": lambda: torch.rand(3, 2),
    "rand of a shape": lambda: torch.rand((3, 2), dtype=torch.float64),
    "randn": lambda: torch.randn(2, device="cpu"),
    "randint": lambda: torch.randint(2, 9, (20,)),
    "randperm": lambda: torch.randperm(20),
    "normal": lambda: torch.normal(ROWS, 1.0),
    "bernoulli": lambda: torch.bernoulli(ROWS / 12),
    "method bernoulli": lambda: (ROWS / 12).bernoulli(),
    "multinomial": lambda: torch.multinomial(ROWS, 2),
    "poisson": lambda: torch.poisson(ROWS),
    "rand_like": lambda: torch.rand_like(CHANNELS_LAST),
    "randn_like": lambda: torch.randn_like(CHANNELS_LAST, dtype=torch.float64),
    "randn_like with a gradient": lambda: torch.randn_like(ROWS, requires_grad=True).detach(),
    "uniform_": lambda: torch.empty(5).uniform_(1, 2),
    "normal_": lambda: torch.empty(5).normal_(),
    "exponential_": lambda: torch.empty(5).exponential_(),
    "random_": lambda: torch.empty(5, dtype=torch.int64).random_(9),
    "a linear layer": lambda: nn.Linear(4, 3).weight.detach(),
    "a convolution": lambda: nn.Conv2d(2, 3, 3).bias.detach(),
    "batch normalisation and an embedding": lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Embedding(4, 2))[1].weight.data,
    "a recurrent layer": lambda: nn.LSTM(3, 4).weight_hh_l0.detach(),
    "attention": lambda: nn.MultiheadAttention(4, 2).in_proj_weight.detach(),
    "xavier_normal_": lambda: nn.init.xavier_normal_(torch.empty(4, 3)),
    "kaiming_uniform_": lambda: nn.init.kaiming_uniform_(torch.empty(4, 3)),
    "orthogonal_": lambda: nn.init.orthogonal_(torch.empty(4, 4)),
    "trunc_normal_": lambda: nn.init.trunc_normal_(torch.empty(4, 4)),
    "our dropout": lambda: Dropout(0.4)(ROWS),
}


@pytest.mark.parametrize("name", DRAWS)
def test_all_that_draws_draws_from_the_fit(name):
    torch.manual_seed(3)
    expected = DRAWS[name]()
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    with own_numbers(3), intercepted():
        found = DRAWS[name]()
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_generator_that_was_given_is_taken():
    with own_numbers(3), intercepted():
        found = torch.rand(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(found, torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_a_training_draws_directly():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(8)
    program = torch.rand(1)
    torch.manual_seed(8)
    with own_numbers(3), intercepted():
        first = torch.rand(1)
        with directly():
            second, other = torch.rand(1, **drawing()), torch.rand(1)
            with own_numbers(9), directly():
                assert torch.equal(
                    torch.rand(1, **drawing()), torch.rand(1, generator=torch.Generator().manual_seed(9))
                )
        third = torch.rand(2)
    assert torch.equal(torch.cat([first, second, third]), expected)
    assert torch.equal(other, program)
    assert fit_generator() is None


def test_dropout_is_that_of_torch():
    layer = Dropout(0.3)
    torch.manual_seed(3)
    expected = functional.dropout(ROWS + 1, 0.3)
    with own_numbers(3):
        assert torch.equal(layer(ROWS + 1), expected)
        assert torch.equal(Dropout(1.0)(ROWS), torch.zeros_like(ROWS))
        assert torch.equal(layer.eval()(ROWS), ROWS)
