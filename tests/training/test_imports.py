"""What `skood.training` offers, and what it costs to ask for it."""

import os
import subprocess
import sys
from pathlib import Path

import configurations
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


FITS = """
import sys

import numpy as np
from configurations import CLASSIFIERS, CONFIGURATIONS, ENCODERS

X = np.random.default_rng(0).normal(size=(40, 8))
for name, estimator in {**CONFIGURATIONS, **ENCODERS, **CLASSIFIERS}.items():
    # Neither the threshold nor the length of the training has a say.
    few = {"contamination": 0, "max_epochs": 1, "pretrain_epochs": 1, "class_epochs": 1}
    estimator.set_params(**{name: value for name, value in few.items() if name in estimator.get_params()})
    estimator.fit(X, np.repeat([1, 2], 20))
    if "torch._dynamo" in sys.modules:
        print(name)
        break
"""


def test_a_fit_loads_no_compiler():
    """torch's compiler takes more than a second to load, most of the first fit in a process."""
    paths = os.pathsep.join([str(Path(configurations.__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FITS],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr


@pytest.mark.parametrize("name", training.__all__)
def test_names_that_are_offered_exist(name):
    assert getattr(training, name) is not None


def test_other_names_do_not():
    with pytest.raises(AttributeError, match="'trian'"):
        training.trian  # noqa: B018
