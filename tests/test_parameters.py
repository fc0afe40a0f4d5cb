"""Every parameter of every public estimator changes something where it should, and warns or fails where it cannot.

A parameter without a line in the tables makes a test fail: write one, with a value that changes the result, and a
configuration in which the parameter can have no effect, if there is one.
"""

import functools
import inspect
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from configurations import RowStatistics, public_estimators
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import skood
from skood import BackboneClassifier, RejectClassDetector
from skood.model_selection import DropOutliers, HideLabels

LABELS = np.repeat([1, 2, -1], [16, 16, 8])
VECTORS = np.random.default_rng(0).normal(size=(40, 4)) + LABELS[:, None]
FLAT = np.random.default_rng(1).random((40, 25)) * np.clip(LABELS, 0.5, 1)[:, None]
IMAGES = FLAT.reshape(40, 1, 5, 5)
# Rows by name, and the labels.
ROWS = {
    "vectors": (VECTORS, LABELS),
    "unlabelled": (VECTORS, None),
    "one class": (VECTORS, np.clip(LABELS, -1, 1)),
    "images": (IMAGES, LABELS),
    "flat": (FLAT, LABELS),
    "images, one class": (IMAGES, np.clip(LABELS, -1, 1)),
    "images, unlabelled": (IMAGES, None),
}


class Case(NamedTuple):
    """A value of a parameter, where it has an effect, and where it has none."""

    value: Any
    # Parameters with which it has an effect, and the rows; None: another test shows it.
    acts: dict | None = {}
    rows: str = "vectors"
    # Parameters with which it has no effect, and the rows; None: it always has one.
    idle: dict | None = None
    idle_rows: str = "vectors"
    # In the idle configuration a value of its own.
    idle_value: Any = None


def halved(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr / 2)


STILL = {"early_stopping": True, "lr": 1e-30, "max_epochs": 6}

# Parameters that change no result: their own tests show what they do.
WITHOUT_RESULT = {"callbacks", "checkpoint", "device", "n_jobs", "verbose"}

TRAINING = {
    "network": Case("mlp"),
    "hidden_sizes": Case((4,), idle={}, idle_rows="images"),
    "scaling": Case("minmax"),
    "max_epochs": Case(3),
    "batch_size": Case(9),
    "lr": Case(0.0123),
    "optimizer": Case(halved),
    "precision": Case("bfloat16"),
    "random_state": Case(7),
    "image_shape": Case((1, 5, 5), rows="flat"),
}
SCHEDULED = {"schedule": Case("steps")}
CLIPPED = {"weight_decay": Case(0.5), "max_grad_norm": Case(1e-3)}
DROPPED = {"dropout": Case(0.5, idle={"network": "resnet-8-2"}, idle_rows="images")}
AUGMENTED = {"augmentation": Case("crop-flip", rows="images", idle={})}
WATCHED = {
    "early_stopping": Case(True),
    "validation_fraction": Case(0.4, {"early_stopping": True}, idle={}),
    "n_iter_no_change": Case(1, STILL, idle={}),
    "warm_start": Case(True),
    "outlier_label": Case(1),
    "contamination": Case(0.3),
}
DETECTOR = TRAINING | SCHEDULED | WATCHED
LEARNER = TRAINING | SCHEDULED | CLIPPED | DROPPED | AUGMENTED

SMALL = {"max_epochs": 2, "batch_size": 16, "random_state": 0, "device": "cpu"}
THRESHOLD = {"contamination": 0.1}
GIVEN = BackboneClassifier(hidden_sizes=(4,), **SMALL).fit(VECTORS[:32], LABELS[:32])
TRAINED = {"backbone": GIVEN}
DATASET = {"bags": "dataset", "optimizer": "sgd"}
FROZEN = {"adaptation": "frozen"}

# By estimator: the parameters of all its configurations, and the cases.
TABLE = {
    "DUMDetector": (
        SMALL | THRESHOLD,
        DETECTOR
        | {
            "hidden_sizes": Case((4,), idle={"network": torch.nn.Linear(4, 4)}),
            "bags": Case("dataset"),
            "image_shape": Case((1, 5, 5), {"encoder": torch.nn.Identity()}, "flat"),
            "encoder": Case(RowStatistics()),
            "views": Case("crop-flip", rows="images", idle={}),
            "bag_size": Case(3),
            "view_noise": Case((0.5, 1.0), idle=DATASET),
            "temperature": Case(0.1, DATASET, idle={}),
            "covariance": Case("circular"),
            "score_type": Case("norm"),
            "normalize": Case("l2"),
            "max_log_variance": Case(1.0),
        },
    ),
    "NegSampleVAE": (
        SMALL | THRESHOLD,
        DETECTOR
        | {
            "network": Case((torch.nn.Linear(4, 20), "mlp")),
            "max_grad_norm": Case(1e-3),
            "negatives": Case("permuted"),
            "negative_weight": Case(3.0, idle={"negatives": None}),
            "kl_weight": Case(3.0),
            "latent_dim": Case(3),
            "shift": Case(20.0, idle={"negatives": None}),
            "noise_model": Case("gaussian", rows="images"),
            "variance": Case(0.01, idle={"noise_model": "bernoulli"}, idle_rows="images"),
            "score_type": Case("kl"),
            "n_posterior_samples": Case(2, idle={"score_type": "kl"}),
            "log_variance_bounds": Case((-0.01, 0.01)),
            "weight_average": Case(None),
            "n_replayed": Case(0, {"negatives": "generated"}, idle={}, idle_value=5),
        },
    ),
    "RejectClassDetector": (
        SMALL | THRESHOLD,
        LEARNER
        | WATCHED
        | {
            "n_reject_classes": Case(3, idle={"pseudo_labels": "uniform"}),
            "pseudo_labels": Case("energy"),
            "outlier_weight": Case(3.0),
            "energy_margins": Case((-9.0, 2.0), {"pseudo_labels": "energy"}, idle={}),
            "class_weight": Case({1: 3.0}, idle={}, idle_rows="one class"),
            "outlier_batch_ratio": Case(2.0),
            "outliers": Case("permuted"),
            "outlier_blend": Case(0.4),
            "score_type": Case("sum"),
            "temperature": Case(3.0),
            "classifier": Case(GIVEN),
            "network": Case("mlp", idle={"classifier": GIVEN}),
            "dropout": Case(0.5, idle={"classifier": GIVEN}),
            "class_epochs": Case(3),
            "class_outputs": Case("all", {"n_reject_classes": 3}, idle={"class_epochs": 0}),
            "lr_reject": Case(0.001),
        },
    ),
    "RotationAuxClassifier": (
        SMALL | THRESHOLD,
        LEARNER
        | WATCHED
        | {
            "auxiliary": Case(None),
            "auxiliary_weight": Case(3.0, idle={"auxiliary": None}),
            "n_transforms": Case(5, idle={}, idle_rows="images"),
            "all_transforms": Case(True, idle={"auxiliary": None}),
            "auxiliary_batch_size": Case(4, idle={"auxiliary": None}),
            "separate_norms": Case(True, {"network": "resnet-8-2"}, "images", {}, "images, one class"),
            "score_type": Case("energy"),
            "crop_size": Case(4, rows="images", idle={}),
        },
    ),
    "ResidualAdapterDetector": (
        SMALL | THRESHOLD | {"pretrain_epochs": 1},
        {name: case for name, case in (LEARNER | WATCHED).items() if name != "network"}
        | {
            "backbone": Case("mlp"),
            "pretrain": Case("labels"),
            "pretrain_epochs": Case(2, idle=TRAINED),
            "scaling": Case("minmax", idle=TRAINED | {"pretrain_epochs": "auto"}),
            "dropout": Case(0.5, idle={"backbone": "resnet-8-2"}, idle_rows="images"),
            "adaptation": Case("finetune"),
            "n_adapters": Case(3, idle=FROZEN),
            "adapter_init": Case("he", idle=FROZEN),
            "adapter_rank": Case(1, idle=FROZEN),
            "adapter_gain": Case(3.0, idle=FROZEN),
            "batch_norm": Case("affine", {"backbone": "resnet-8-2"}, "images", FROZEN),
            "layer": Case("0", {"backbone": "mlp"}),
            "head_size": Case(3, idle=FROZEN),
            "l2_strength": Case(0.9, {"adaptation": "l2sp"}, idle={}),
            "outliers": Case("permuted", idle=FROZEN),
            "score_type": Case("knn"),
            "n_neighbors": Case(4, FROZEN, idle={}),
        },
    ),
    "SimCLREncoder": (
        SMALL,
        {name: case for name, case in (LEARNER | WATCHED).items() if name != "contamination"}
        | {
            "embedding_size": Case(5),
            "output": Case("features"),
            "temperature": Case(0.5),
            "augmentation": Case("crop-flip", rows="images", idle={}),
            "corruption_rate": Case(0.2, idle={}, idle_rows="images"),
        },
    ),
    "BackboneClassifier": (SMALL, LEARNER),
    "FrozenEncoder": (
        {"backbone": RowStatistics(), "device": "cpu"},
        {
            "backbone": Case(torch.nn.Flatten()),
            # It needs a network of torchvision or timm to act; so has a test of its own.
            "backbone_params": Case({"width": 2}, None, idle={}),
            "layer": Case("hidden"),
            "pooling": Case("max", {"backbone": torch.nn.Conv2d(1, 2, 3)}, "images"),
            "mean": Case(0.5, idle={"backbone": GIVEN}),
            "std": Case(2.0, idle={"backbone": GIVEN}),
            "size": Case(6, {"backbone": torch.nn.Flatten()}, "images", {}),
            "resize": Case(8, {"backbone": torch.nn.Flatten(), "size": 4}, "images", {}),
            "channels": Case(3, {"backbone": torch.nn.Flatten()}, "images", {}),
            "image_shape": Case((1, 5, 5), {"backbone": torch.nn.Identity()}, "flat"),
        },
    ),
    "OODScorer": (
        {"classifier": GIVEN} | THRESHOLD,
        {
            "classifier": Case(RowStatistics()),
            "method": Case("max_logit"),
            # Networks whose last layer must be named, or takes images, have tests of their own.
            "layer": Case("0", None, idle={"classifier": GIVEN}),
            "temperature": Case(3.0),
            "method_params": Case({"temperature": 3.0}),
            "contamination": Case(0.3),
            "image_shape": Case((1, 2, 2), None, idle={}),
            # All other rows must be of the classes, so that another label than that of the rows is refused.
            "outlier_label": Case(1, None, idle={}),
        },
    ),
    "OpenSetClassifier": (
        {"detector": RejectClassDetector(**SMALL, **THRESHOLD)},
        {
            "detector": Case(RejectClassDetector(**(SMALL | {"max_epochs": 3}), **THRESHOLD)),
            "reject_label": Case("unknown"),
            "reject": Case(False),
        },
    ),
    "FitOnInliers": (
        {"transformer": StandardScaler()},
        {"transformer": Case(MinMaxScaler()), "outlier_label": Case(1)},
    ),
    "ThresholdedDetector": (
        {"estimator": IsolationForest(n_estimators=5, random_state=0)},
        {
            "estimator": Case(IsolationForest(n_estimators=9, random_state=0)),
            "contamination": Case(0.3, idle={"target_fpr": 0.1}),
            "target_fpr": Case(0.3),
            "outlier_label": Case(1, {"contamination": 0.3}),
        },
    ),
    "ConformalDetector": (
        {"estimator": IsolationForest(n_estimators=5, random_state=0), "alpha": 0.3, "random_state": 0},
        {
            "estimator": Case(IsolationForest(n_estimators=9, random_state=0)),
            "alpha": Case(0.1),
            "calibration_size": Case(0.7),
            "random_state": Case(1),
            "outlier_label": Case(1),
        },
    ),
    "DropOutliers": (
        {"estimator": IsolationForest(n_estimators=5, random_state=0)},
        {"estimator": Case(IsolationForest(n_estimators=9, random_state=0)), "outlier_label": Case(1)},
    ),
    "HideLabels": (
        {"estimator": IsolationForest(n_estimators=5, random_state=0)},
        {
            "estimator": Case(IsolationForest(n_estimators=9, random_state=0)),
            # The labels are hidden in any case: a label that marks no row is warned of.
            "outlier_label": Case(7, None, idle={}),
        },
    ),
}
ESTIMATORS = {one.__name__: one for one in (*public_estimators(), DropOutliers, HideLabels)}
CASES = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind, (_, cases) in TABLE.items()
    for name, case in cases.items()
    if case.acts is not None
]
IDLE = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind, (_, cases) in TABLE.items()
    for name, case in cases.items()
    if case.idle is not None
]


def made(kind, params):
    return ESTIMATORS[kind](**TABLE[kind][0] | params)


def outcome(estimator, rows, again):
    """Return all numbers and labels that a fitted estimator gives; fit it twice if asked to."""
    X, y = ROWS[rows]
    for _ in range(2 if again else 1):
        estimator.fit(X, y)
    found = [np.asarray(getattr(estimator, "offset_", 0.0))]
    for method in ("score_samples", "predict", "predict_proba", "transform"):
        if hasattr(estimator, method):
            found.append(np.asarray(getattr(estimator, method)(X)))
    found.append(np.asarray([epoch["train_loss"] for epoch in getattr(estimator, "history_", ())]))
    return found


@functools.cache
def plain_outcome(kind, rows):
    """Return what an estimator gives with the parameters of all its configurations, to which most cases compare."""
    return outcome(made(kind, {}), rows, again=False)


def alike(first, second):
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def test_every_parameter_is_in_the_tables():
    missing = {}
    for one in ESTIMATORS.values():
        names = set(inspect.signature(one.__init__).parameters) - {"self"} - WITHOUT_RESULT
        if names != set(TABLE.get(one.__name__, ({}, {}))[1]):
            missing[one.__name__] = names ^ set(TABLE.get(one.__name__, ({}, {}))[1])
    assert not missing, "write a line into TABLE of tests/test_parameters.py, or take one away"


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_parameter_has_an_effect(kind, name):
    case = TABLE[kind][1][name]
    again = name == "warm_start"
    before = outcome(made(kind, case.acts), case.rows, again) if case.acts or again else plain_outcome(kind, case.rows)
    assert not alike(before, outcome(made(kind, case.acts | {name: case.value}), case.rows, again))


@pytest.mark.parametrize(("kind", "name"), IDLE)
def test_a_parameter_without_an_effect_is_named(kind, name):
    case = TABLE[kind][1][name]
    value = case.value if case.idle_value is None else case.idle_value
    estimator = made(kind, case.idle | {name: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises((ValueError, UserWarning), match=name):
            estimator.fit(*ROWS[case.idle_rows])


def test_what_happens_anyway_may_be_asked_for():
    """A trained network that scales nothing, and no scaling."""
    backbone = BackboneClassifier(hidden_sizes=(4,), scaling=None, **SMALL).fit(VECTORS[:32], LABELS[:32])
    asked = {"backbone": backbone, "pretrain_epochs": "auto", "scaling": None}
    detector = made("ResidualAdapterDetector", asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.fit(*ROWS["vectors"])


def flat_linear(shape, n_outputs):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(shape)), n_outputs))


# Settings of a paper that nobody asked for, on a network on which they have no effect.
OF_ANOTHER_NETWORK = [
    ("DUMDetector", ("outliers",), {"network": flat_linear}),
    ("DUMDetector", ("corruptions",), {"network": flat_linear}),
    ("RejectClassDetector", ("svhn",), {"network": flat_linear, "class_epochs": 1}),
    ("RejectClassDetector", ("svhn",), {"network": "resnet-8-2", "class_epochs": 1}),
    ("RotationAuxClassifier", ("cifar10",), {"network": flat_linear}),
    ("RotationAuxClassifier", ("cifar10",), {"network": "resnet-8-2"}),
    # This dropout is in the network.
    ("RotationAuxClassifier", ("stl10",), {"dropout": 0.1}),
    ("SimCLREncoder", (), {"network": flat_linear}),
]


@pytest.mark.parametrize(("kind", "paper", "params"), OF_ANOTHER_NETWORK)
def test_settings_of_a_paper_do_not_warn_of_another_network(kind, paper, params):
    params = params | ({} if kind == "SimCLREncoder" else {"contamination": 0})
    estimator = getattr(skood, kind).from_paper(*paper, **params, max_epochs=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.fit(IMAGES, None if kind == "DUMDetector" else np.clip(LABELS, 1, 2))


def test_what_was_asked_for_is_named_in_settings_of_a_paper():
    detector = RejectClassDetector.from_paper("svhn", network=flat_linear, dropout=0.3, class_epochs=1, max_epochs=1)
    with pytest.warns(UserWarning, match="dropout has no effect on a network that is given"):
        detector.fit(IMAGES, np.clip(LABELS, 1, 2))
