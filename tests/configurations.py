"""Every detector, named once, in small configurations that train in a moment, for the contract and the invariants."""

import torch
from torch.nn.utils import skip_init

from skood import DUMDetector, NegSampleVAE, RejectClassDetector, ResidualAdapterDetector, RotationAuxClassifier


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


SMALL = {"hidden_sizes": (16,), "max_epochs": 4, "batch_size": 32}

# name -> detector
CONFIGURATIONS = {
    "adapters": ResidualAdapterDetector(**SMALL, pretrain_epochs=2),
    "adapters-one-class-affine": ResidualAdapterDetector(
        "mlp", **SMALL, pretrain_epochs=2, outliers=None, batch_norm="affine", n_adapters=4
    ),
    "adapters-flattened-images": ResidualAdapterDetector(
        "resnet-8-2", **SMALL, pretrain_epochs=2, image_shape=(1, 1, -1), lr=0.01
    ),
    "dum-views": DUMDetector(**SMALL),
    "dum-views-circular-norm": DUMDetector(**SMALL, covariance="circular", score_type="norm", bag_size=2),
    "dum-paper": DUMDetector.from_paper(**SMALL),
    "dum-calibrated-l2": DUMDetector(**SMALL, score_type="calibrated", normalize="l2", network="mlp"),
    "dum-encoder": DUMDetector(**SMALL, encoder=RowStatistics()),
    "dum-image-views": DUMDetector(**SMALL, views="crop-flip", image_shape=(1, 1, -1)),
    "reject": RejectClassDetector(**SMALL),
    "reject-flattened-images-balanced": RejectClassDetector(**SMALL, image_shape=(1, 1, -1), pseudo_labels="balanced"),
    "reject-kmeans-combined": RejectClassDetector(
        **SMALL, pseudo_labels="kmeans", score_type="combined", network="residual", class_epochs=2
    ),
    "rotation-vectors": RotationAuxClassifier(**SMALL),
    "rotation-vectors-all-mahalanobis": RotationAuxClassifier(
        **SMALL, all_transforms=True, n_transforms=4, network="mlp", score_type="mahalanobis"
    ),
    "rotation-flattened-images": RotationAuxClassifier(**SMALL, image_shape=(1, 1, -1), lr=0.01),
    "vae": NegSampleVAE(**SMALL),
    "vae-uniform-monte-carlo": NegSampleVAE("uniform", **SMALL, variance="per-feature", n_posterior_samples=2),
    "vae-flattened-images-generated": NegSampleVAE("generated", **SMALL, image_shape=(1, 1, -1)),
}

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


def named(detectors=CONFIGURATIONS):
    """Arguments of pytest.mark.parametrize over the detectors."""
    return {"argvalues": list(detectors.values()), "ids": list(detectors)}
