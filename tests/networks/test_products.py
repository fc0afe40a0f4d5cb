"""Matrix products in which the position of a row does not matter, on processors of several kinds."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from skood.networks import products

TESTS = Path(__file__).parents[1]


@pytest.fixture
def panels(monkeypatch):
    """As on a processor on which the position of a row matters."""
    monkeypatch.setattr(products, "last_rows_differ", lambda: True)


@pytest.mark.usefixtures("panels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "n_outputs"), [((1, 5), 3), ((48, 8), 8), ((49, 300), 1), ((100, 7), 20), ((30, 4, 9), 2), ((0, 6), 4)]
)
def test_panels_give_the_product(shape, n_outputs, dtype):
    generator = torch.Generator().manual_seed(0)
    rows, weight, bias = (
        torch.randn(size, generator=generator, dtype=dtype) for size in (shape, (n_outputs, shape[-1]), (n_outputs,))
    )
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
    for given in (bias, None):
        found = products.even_product(rows, weight, given)
        assert found.dtype == dtype
        torch.testing.assert_close(found, functional.linear(rows, weight, given), **tolerance)


@pytest.mark.usefixtures("panels")
def test_panels_have_gradients():
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    layer = products.EvenLinear(3, 2).eval()
    (found,) = torch.autograd.grad(layer(rows).square().sum(), rows)
    (expected,) = torch.autograd.grad(functional.linear(rows, layer.weight, layer.bias).square().sum(), rows)
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("panels")
def test_a_layer_in_training_is_torchs():
    layer, rows = products.EvenLinear(16, 5).train(), torch.randn(33, 16)
    assert torch.equal(layer(rows), functional.linear(rows, layer.weight, layer.bias))


@pytest.mark.usefixtures("panels")
@pytest.mark.parametrize("width", [10, 16])
@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_layer_takes_any_number_of_rows(strict, width):
    layer, rows = products.EvenLinear(width, 5).eval(), torch.randn(7, width)
    dynamic = ({0: torch.export.Dim("n_rows")},)
    exported = torch.export.export(layer, (rows,), dynamic_shapes=dynamic, strict=strict).module()
    for n_rows in (2, 7, 50):
        torch.testing.assert_close(exported(rows[:1].expand(n_rows, -1)), layer(rows[:1]).expand(n_rows, -1))


@pytest.mark.slow
def test_rows_score_the_same_in_any_company_on_other_processors():
    """Where torch multiplies by MKL, it does so here as on processors that have no newer instructions than AVX2."""
    some = "cpu-1-dum-views] or cpu-1-reject-energy] or cpu-1-vae]"
    chosen = f"no_place_in_a_block or scores_the_same_to_the_last_bit or {some}"
    files = [TESTS / "training" / "test_scoring.py", TESTS / "test_scores.py", TESTS / "test_invariants.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *map(str, files)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    paths = os.pathsep.join(filter(None, sys.path))
    env |= {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout


def test_equal_rows_have_equal_products_or_it_is_noticed():
    rng = np.random.default_rng(0)
    for n_rows, n_features, n_outputs in ((32, 16, 16), (256, 40, 7), (96, 64, 33), (64, 256, 20)):
        row, weight = (torch.from_numpy(rng.normal(size=(n, n_features))).float() for n in (1, n_outputs))
        found = functional.linear(row.expand(n_rows, -1).contiguous(), weight)
        assert products.last_rows_differ() or torch.equal(found, found[:1].expand_as(found))
        even = products.even_product(row.expand(n_rows, -1), weight)
        assert torch.equal(even, even[:1].expand_as(even))
