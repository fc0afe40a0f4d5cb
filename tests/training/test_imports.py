"""What `skood.training` offers, and what it costs to ask for it."""

import subprocess
import sys

import pytest

from skood import training

SCRIPT = """
import sys

import numpy as np
from torch import nn

from skood import FrozenEncoder
from skood.training import apply_in_blocks, fitting, resolve_device

X = np.random.default_rng(0).normal(size=(20, 3))
FrozenEncoder(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))).fit(X).transform(X)
print([name for name in sys.modules if name.partition(".")[0] == "skorch"])
"""


def test_what_trains_nothing_loads_no_skorch():
    """skorch takes more than a second to load."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("name", training.__all__)
def test_names_that_are_offered_exist(name):
    assert getattr(training, name) is not None


def test_other_names_do_not():
    with pytest.raises(AttributeError, match="'trian'"):
        training.trian  # noqa: B018
