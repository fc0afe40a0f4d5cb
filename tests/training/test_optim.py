"""Optimisers and schedules that are functions of the user's, and the errors of those that cannot work."""

from functools import partial

import numpy as np
import pytest
import torch
from configurations import CLASSIFIERS, CONFIGURATIONS, ENCODERS, named
from sklearn.base import clone, is_classifier
from skorch.callbacks import LRScheduler
from torch.optim import LBFGS, SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from skood import BackboneClassifier, SimCLREncoder
from skood.estimator import ClassScores

X = np.random.default_rng(0).normal(size=(60, 1)) @ [[1.0, -1.0, 0.5]]
Y = np.where(X[:, 0] > 0, "up", "down")
SMALL = {"max_epochs": 2, "random_state": 0, "hidden_sizes": (8,), "device": "cpu"}
TRAINING = {**CONFIGURATIONS, **CLASSIFIERS, **ENCODERS}
TRAINING = {name: one for name, one in TRAINING.items() if "optimizer" in one.get_params()}


def fitted(estimator, **params):
    estimator = clone(estimator).set_params(**params)
    with_classes = is_classifier(estimator) or isinstance(estimator, ClassScores)
    return estimator.fit(X, Y if with_classes else None)


def none(parameters, lr):
    """A function that forgets to return what it makes."""
    SGD(parameters, lr=lr)


def without_rate(parameters):
    return SGD(parameters, lr=0.1)


def not_a_number(share):
    return float("nan")


@pytest.mark.parametrize("estimator", **named(TRAINING))
def test_every_estimator_names_the_function(estimator):
    with pytest.raises(ValueError, match=r"optimizer=none returned a NoneType, and no optimizer. Pass a function"):
        fitted(estimator, optimizer=none)
    if "schedule" in estimator.get_params():
        with pytest.raises(ValueError, match=r"schedule=not_a_number returned nan where 0 of the training is done"):
            fitted(estimator, schedule=not_a_number)


ADVICE = r"Pass a function \(parameters, lr=\.\.\.\) that returns a torch\.optim\.Optimizer, such as"
MISTAKEN = {
    "closure": ({"optimizer": LBFGS}, f"optimizer=LBFGS makes steps that need more .* 'closure'. {ADVICE}"),
    "closure within": ({"optimizer": partial(LBFGS, max_iter=2)}, r"optimizer=LBFGS makes steps that need more"),
    "no rate": ({"optimizer": without_rate}, f"optimizer=without_rate is called with .* 'lr'. {ADVICE}"),
    "a module": ({"optimizer": lambda parameters, lr: torch.nn.Identity()}, r"returned a Identity, and no optimizer"),
    "none": ({"schedule": lambda share: None}, r"schedule=.*<lambda> returned None where 0 of .* a factor on lr"),
    "negative": (
        {"schedule": lambda share: -share - 1},
        r"schedule=.*<lambda> returned -1\.0 where 0 of .* at least 0",
    ),
    "infinite": ({"schedule": lambda share: np.inf}, r"returned inf where 0"),
    "text": ({"schedule": lambda share: "1"}, r"returned '1' where 0"),
    "array": ({"schedule": lambda share: np.ones(2)}, r"returned array\(\[1\., 1\.\]\) where 0"),
    "no share": (
        {"schedule": lambda: 1.0},
        r"<lambda> is called with one number, and does not take that: too many pos",
    ),
    "torch's": (
        {"schedule": CosineAnnealingLR},
        r"schedule=CosineAnnealingLR is a scheduler of torch. Set schedule='constant' and pass callbacks="
        r"\[skorch\.callbacks\.LRScheduler\('CosineAnnealingLR', \.\.\.\)\]; or pass a function",
    ),
    "torch's within": ({"schedule": partial(CosineAnnealingLR, T_max=2)}, r"schedule=CosineAnnealingLR is a scheduler"),
    "torch's plateau": ({"schedule": ReduceLROnPlateau}, r"schedule=ReduceLROnPlateau is a scheduler of torch"),
}


@pytest.mark.parametrize("mistake", MISTAKEN)
def test_functions_that_cannot_work_are_refused(mistake):
    params, message = MISTAKEN[mistake]
    for estimator in (BackboneClassifier(**SMALL), SimCLREncoder(**SMALL, embedding_size=4)):
        with pytest.raises(ValueError, match=message):
            fitted(estimator, **params)


@pytest.mark.parametrize("factor", [1, 0.5, True, np.float32(0.5), np.int64(1), torch.tensor(0.5)], ids=repr)
def test_factors_may_be_numbers_of_any_kind(factor):
    found = fitted(BackboneClassifier(**SMALL), schedule=lambda share: factor).transform(X)
    np.testing.assert_array_equal(
        found, fitted(BackboneClassifier(**SMALL), schedule=lambda _: float(factor)).transform(X)
    )


def test_what_the_error_advises_instead_of_a_scheduler_works():
    scheduler = LRScheduler("CosineAnnealingLR", T_max=2)
    found = fitted(BackboneClassifier(**SMALL), schedule="constant", callbacks=[scheduler])
    assert np.isfinite(found.transform(X)).all()
