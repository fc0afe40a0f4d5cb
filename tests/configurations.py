"""Every public estimator in small configurations that train in a moment, for the contract and the invariants.

The tests find the public estimators in ``skood.__all__`` and fail if one has no configuration here.
"""

import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch.nn.utils import skip_init

import skood
from skood import (
    BackboneClassifier,
    ConformalDetector,
    DUMDetector,
    FitOnInliers,
    FrozenEncoder,
    NegSampleVAE,
    OODScorer,
    OpenSetClassifier,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    SimCLREncoder,
    ThresholdedDetector,
)
from skood.model_selection import DropOutliers, HideLabels


class RowStatistics(torch.nn.Module):
    """A classifier of rows with any number of features."""

    def __init__(self):
        super().__init__()
        # From a generator of its own: a copy, which is made anew, may come while another thread trains.
        self.hidden, self.head = (skip_init(torch.nn.Linear, *sizes) for sizes in ((4, 8), (8, 5)))
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.5, generator=generator)

    def forward(self, rows):
        statistics = [rows.mean(1), rows.amin(1), rows.amax(1), rows.std(1, correction=0)]
        return self.head(self.hidden(torch.stack(statistics, 1)).tanh())

    def __reduce__(self):
        # scikit-learn tells by pickles whether a parameter has changed; torch's hold addresses in memory.
        return restored, ({name: values.numpy() for name, values in self.state_dict().items()},)


def restored(state):
    module = RowStatistics()
    module.load_state_dict({name: torch.tensor(values) for name, values in state.items()})
    return module


SHORT = {"max_epochs": 3, "batch_size": 32}
SMALL = SHORT | {"hidden_sizes": (16,)}

# Detectors that train a network: scikit-learn's checks and all invariants run over them.
CONFIGURATIONS = {
    "adapters": ResidualAdapterDetector(**SMALL, pretrain_epochs=2),
    "adapters-one-class-affine": ResidualAdapterDetector(
        "mlp", **SMALL, pretrain_epochs=2, outliers=None, batch_norm="affine", n_adapters=4
    ),
    "adapters-flattened-images": ResidualAdapterDetector(
        "resnet-8-2", **SHORT, pretrain_epochs=2, image_shape=(1, 1, -1), lr=0.01
    ),
    "dum-views": DUMDetector(**SMALL),
    "dum-views-circular-norm": DUMDetector(**SMALL, covariance="circular", score_type="norm", bag_size=2),
    "dum-paper": DUMDetector.from_paper(**SMALL),
    "dum-calibrated-l2": DUMDetector(**SMALL, score_type="calibrated", normalize="l2", network="mlp"),
    "dum-encoder": DUMDetector(**SMALL, encoder=RowStatistics()),
    "dum-image-views": DUMDetector(**SMALL, views="crop-flip", image_shape=(1, 1, -1)),
    "reject": RejectClassDetector(**SMALL),
    "reject-flattened-images-balanced": RejectClassDetector(**SHORT, image_shape=(1, 1, -1), pseudo_labels="balanced"),
    "reject-kmeans-combined": RejectClassDetector(
        **SMALL, pseudo_labels="kmeans", score_type="combined", network="residual", class_epochs=2
    ),
    "rotation-vectors": RotationAuxClassifier(**SMALL),
    "rotation-vectors-all-mahalanobis": RotationAuxClassifier(
        **SMALL, all_transforms=True, n_transforms=4, network="mlp", score_type="mahalanobis"
    ),
    "rotation-flattened-images": RotationAuxClassifier(**SHORT, image_shape=(1, 1, -1), lr=0.01),
    "reject-energy": RejectClassDetector(**SMALL, pseudo_labels="energy"),
    "reject-stopped-early": RejectClassDetector(**SMALL, early_stopping=True, n_iter_no_change=1),
    "vae": NegSampleVAE(**SMALL),
    "vae-uniform-monte-carlo": NegSampleVAE("uniform", **SMALL, variance="per-feature", n_posterior_samples=2),
    "vae-flattened-images-generated": NegSampleVAE("generated", **SHORT, image_shape=(1, 1, -1)),
}

# Each method sets its threshold on held-out rows, which takes three more fits, in one configuration of vectors (and DUM
# in that of an encoder); the others take a share of the training rows.
for _name, _detector in CONFIGURATIONS.items():
    if _name not in ("adapters-one-class-affine", "dum-views", "dum-encoder", "reject", "rotation-vectors", "vae"):
        _detector.set_params(contamination=0.1)

# Those whose objective tells outliers from inliers (the printed one of DUM does not), trained long enough to do so.
DETECTING = {
    "adapters": ResidualAdapterDetector(hidden_sizes=(32,), max_epochs=100, batch_size=32),
    # Once whitened, rows off a line stand out without training.
    "dum-views": DUMDetector(hidden_sizes=(32,), max_epochs=100, batch_size=32, scaling="standard"),
    "dum-views-circular-norm": DUMDetector(
        hidden_sizes=(32,), max_epochs=100, batch_size=32, covariance="circular", score_type="norm"
    ),
    "reject": RejectClassDetector(hidden_sizes=(32,), max_epochs=100, batch_size=32),
    "rotation-vectors": RotationAuxClassifier(hidden_sizes=(32,), max_epochs=100, batch_size=32),
    "vae": NegSampleVAE(hidden_sizes=(32,), max_epochs=100, batch_size=32),
}

# What they detect shows below the lowest score of the training rows, too.
for _detector in DETECTING.values():
    _detector.set_params(contamination=0)

# Over all others run scikit-learn's checks. These train long enough for the checks that ask for accuracy.
CLASSIFIERS = {
    "backbone-vectors": BackboneClassifier(hidden_sizes=(16,), max_epochs=15, lr=0.02, batch_size=32),
    "backbone-images": BackboneClassifier("resnet-8-4", max_epochs=8, batch_size=32, lr=0.05, image_shape=(1, 1, -1)),
}

ENCODERS = {
    "contrastive-vectors": SimCLREncoder(embedding_size=6, hidden_sizes=(16,), max_epochs=4, batch_size=16),
    "contrastive-images": SimCLREncoder(
        "resnet-8-2", embedding_size=6, max_epochs=1, batch_size=64, output="features", image_shape=(1, 1, -1)
    ),
    "frozen": FrozenEncoder(RowStatistics()),
    "frozen-layer": FrozenEncoder(RowStatistics(), layer="hidden", std=2.0),
    "frozen-grid": FrozenEncoder(torch.nn.Unflatten(1, (1, 1, -1)), pooling=(1, 1)),
}

# One that rejects gives labels that y does not hold; one to which -1 means an outlier has no class -1. Without
# rejection no threshold counts: none is set on held-out rows.
ANSWERING = {"reject_label": "unknown", "reject": False}
LEARNING = {
    "hidden_sizes": (32,),
    "max_epochs": 15,
    "lr": 0.02,
    "batch_size": 32,
    "outlier_label": "none",
    "contamination": 0.1,
    "random_state": 0,
}

WRAPPERS = {
    "inliers-standard": FitOnInliers(StandardScaler()),
    "inliers-minmax": FitOnInliers(MinMaxScaler()),
    "thresholded": ThresholdedDetector(EllipticEnvelope(support_fraction=1.0), contamination=0.1),
    "conformal": ConformalDetector(IsolationForest(n_estimators=10, random_state=0), alpha=0.3),
    "drop-outliers": DropOutliers(IsolationForest(n_estimators=10, random_state=0)),
    "hide-labels": HideLabels(IsolationForest(n_estimators=10, random_state=0)),
    "open-set-reject": OpenSetClassifier(RejectClassDetector(**LEARNING), **ANSWERING),
    "open-set-uniform": OpenSetClassifier(RejectClassDetector(**LEARNING, pseudo_labels="uniform"), **ANSWERING),
    "open-set-rotation": OpenSetClassifier(RotationAuxClassifier(**LEARNING), **ANSWERING),
    "scores-energy": OODScorer(RowStatistics()),
    "scores-mahalanobis": OODScorer(RowStatistics(), "mahalanobis"),
    "scores-odin": OODScorer(RowStatistics(), "odin"),
}


# `make test-fast` runs scikit-learn's checks and the invariants over these only: a detector, and what trains nothing.
FAST = {"dum-views", "frozen", "inliers-standard", "thresholded", "conformal", "drop-outliers", "scores-energy"}


def named(estimators=CONFIGURATIONS):
    """Return arguments of pytest.mark.parametrize over the estimators; those not in FAST are marked slow."""
    marks = {name: () if name in FAST else pytest.mark.slow for name in estimators}
    return {"argvalues": [pytest.param(one, id=name, marks=marks[name]) for name, one in estimators.items()]}


def with_checks(estimators, only=None):
    """Return arguments of pytest.mark.parametrize over the estimators and scikit-learn's checks (or some of these)."""
    parameters = []
    for named_estimator in named(estimators)["argvalues"]:
        for estimator, check in estimator_checks_generator(named_estimator.values[0]):
            name = check.func.__name__
            if only is None or name in only:
                own_id = f"{named_estimator.id}-{name}-{len(parameters)}"
                parameters.append(pytest.param(estimator, check, id=own_id, marks=named_estimator.marks))
    return {"argnames": ("estimator", "check"), "argvalues": parameters}


def public_estimators(kind=BaseEstimator):
    """Return the classes in ``skood.__all__`` that are estimators of this kind."""
    public = [getattr(skood, name) for name in skood.__all__]
    return [one for one in public if isinstance(one, type) and issubclass(one, kind)]


def what_to_write(classes, group, configurations):
    """Return a message for each class of which the group of configurations has no instance."""
    there = {type(estimator) for estimator in configurations.values()}
    return [
        f"skood.{one.__name__} has no configuration. Write one that trains in a moment into {group} in "
        f'tests/configurations.py, such as "{one.__name__.lower()}": {one.__name__}(...), '
        "and scikit-learn's checks and our invariants run over it."
        for one in classes
        if one not in there
    ]
