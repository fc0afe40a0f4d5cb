"""DUM: its equations against numbers worked out by hand, its behaviour through the public API."""

import copy
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from skood import BackboneClassifier, DUMDetector, ResidualAdapterDetector, SimCLREncoder
from skood.backbones import SHIPPED
from skood.detectors.dum import (
    LogVariance,
    dataset_bags_loss,
    image_views,
    noisy_views,
    product_of_experts,
    view_bags_loss,
)
from skood.encoders.frozen_encoder import FrozenEncoder
from skood.encoders.trained import frozen
from skood.estimator.whitening import Whitener
from skood.metrics import auroc
from skood.networks import ResNet
from skood.training.optim import make_optimizer

# Scores alone: a threshold on held-out rows would take three more fits.
SMALL = DUMDetector(hidden_sizes=(8,), max_epochs=2, batch_size=16, contamination=0, random_state=0, device="cpu")
ROWS = np.random.default_rng(0).normal(size=(60, 3))

# ------------------------------------------------------------------------------------------------------- equations


def test_product_of_two_experts():
    """Precisions 1 and 3: mean (1 * 2 + 3 * 6) / 4 = 5, variance 1/4. Equal ones: the average, half the variance."""
    mean = torch.tensor([[2.0, 0.0], [6.0, 4.0]])
    log_variance = torch.tensor([[0.0, math.log(5.0)], [-math.log(3.0), math.log(5.0)]])
    product, log_product = product_of_experts(mean, log_variance, dim=0)
    torch.testing.assert_close(product, torch.tensor([5.0, 2.0]))
    torch.testing.assert_close(log_product.exp(), torch.tensor([0.25, 2.5]))


def test_product_is_that_of_the_densities():
    """On a grid, the normalised product of three normal densities has the mean and the variance returned."""
    means, variances = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.5, 2.0, 1.0])
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-((x[:, None] - means) ** 2 / (2 * variances)).sum(1))
    density /= density.sum()
    mean = (x * density).sum()
    product, log_variance = product_of_experts(means[:, None], variances.log()[:, None], dim=0)
    torch.testing.assert_close(product[0].double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log_variance[0].exp().double(), ((x - mean) ** 2 * density).sum(), rtol=1e-5, atol=0)


def test_product_does_not_overflow():
    mean, log_variance = product_of_experts(torch.tensor([1.0, 3.0]), torch.tensor([2000.0, -2000.0]), dim=0)
    assert (mean, log_variance) == (3.0, -2000.0)


def test_printed_objective_by_hand():
    """m = 2. A: rows 1 and 3 with precisions 1 and 1, mean 2; B: rows 0 and 4 with precisions 3 and 1, mean 1."""
    rows = torch.tensor([[1.0], [3.0], [0.0], [4.0]])
    log_variance = -torch.tensor([[1.0], [1.0], [3.0], [1.0]]).log()
    assert dataset_bags_loss(rows, log_variance, bag_size=2).item() == pytest.approx(-2.0)
    assert dataset_bags_loss(rows, log_variance, bag_size=2, temperature=0.5).item() == pytest.approx(-4.0)


def test_printed_objective_averages_pairs_and_drops_the_rest():
    rows = torch.tensor([[1.0], [3.0], [0.0], [4.0], [1.0], [1.0], [2.0], [2.0], [99.0]])
    # Pairs (mean 2, mean 2) and (mean 1, mean 2).
    assert dataset_bags_loss(rows, torch.zeros(9, 1), bag_size=2).item() == pytest.approx(-(4 + 2) / 2)


def test_gradient_of_the_printed_objective():
    """d(mu_A . mu_B) / d(-v_ij) = s_ij (z_ij - mu_Aj) mu_Bj for i in A."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 2, generator=generator)
    log_variance = torch.randn(6, 2, generator=generator, requires_grad=True)
    dataset_bags_loss(rows, log_variance, bag_size=3).backward()
    weights = torch.softmax(-log_variance[:3], 0)
    mean_a = (weights * rows[:3]).sum(0)
    mean_b = (torch.softmax(-log_variance[3:], 0) * rows[3:]).sum(0)
    torch.testing.assert_close(log_variance.grad[:3], weights * (rows[:3] - mean_a) * mean_b)


def test_printed_objective_leaves_the_scale_of_a_feature_free():
    rows, log_variance = torch.randn(8, 2), torch.randn(8, 2)
    shifted = log_variance + torch.tensor([3.0, -2.0])
    torch.testing.assert_close(
        dataset_bags_loss(rows, shifted, bag_size=4), dataset_bags_loss(rows, log_variance, bag_size=4)
    )


def test_view_loss_by_hand():
    """Row 1, views 0 and 2 with precisions 3 and 1: mean 1/2, variance 1/4; (1/2)^2 * 4 + log 1/4 = 1 - log 4."""
    loss = view_bags_loss(
        torch.tensor([[1.0]]), torch.tensor([[[0.0]], [[2.0]]]), -torch.tensor([[[3.0]], [[1.0]]]).log()
    )
    assert loss.item() == pytest.approx(1 - math.log(4))


def test_view_loss_is_a_likelihood():
    """Up to constants: minus twice the mean log-density of the rows under the products."""
    generator = torch.Generator().manual_seed(0)
    rows, views = torch.randn(5, 3, generator=generator), torch.randn(4, 5, 3, generator=generator)
    log_variance = torch.randn(4, 5, 3, generator=generator)
    mean, log_product = product_of_experts(views, log_variance, dim=0)
    density = torch.distributions.Normal(mean, (log_product / 2).exp()).log_prob(rows)
    expected = -2 * density.mean() - math.log(2 * math.pi)
    torch.testing.assert_close(view_bags_loss(rows, views, log_variance), expected)


def test_view_loss_is_least_at_the_noise_level():
    """Views with noise s, one log-variance for all: the least loss is where sigma^2 = s^2."""
    torch.manual_seed(0)
    rows = torch.zeros(200_000, 1)
    views = 0.5 * torch.randn(4, 200_000, 1)
    grid = torch.linspace(-4, 2, 61)
    losses = [view_bags_loss(rows, views, value.expand_as(views)) for value in grid]
    assert grid[int(torch.stack(losses).argmin())].item() == pytest.approx(math.log(0.25), abs=0.1)


def test_noise_of_the_views():
    torch.manual_seed(0)
    rows = torch.tensor([[5.0, -5.0]]).expand(20_000, 2)
    views = noisy_views(rows, 3, 0.5, 0.5)
    assert views.shape == (3, 20_000, 2)
    torch.testing.assert_close(views.mean((0, 1)), rows[0], atol=0.02, rtol=0)
    torch.testing.assert_close(views.std((0, 1)), torch.tensor([0.5, 0.5]), atol=0.01, rtol=0)


def test_scales_of_the_views_are_log_uniform():
    """Each view of each row has its own: log s is uniform between log 0.1 and log 10, and independent."""
    torch.manual_seed(0)
    scales = noisy_views(torch.zeros(500, 2000), 2, 0.1, 10.0).std(2).numpy()
    share = np.log(scales / 0.1) / np.log(100)
    assert kstest(share.ravel(), "uniform").pvalue > 0.01
    for one, other in ((share[0], share[1]), (share[:, 1:].ravel(), share[:, :-1].ravel())):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


@settings(max_examples=30)
@given(st.floats(-1e18, 1e18), st.floats(-50, 50), st.floats(0.1, 10))
def test_log_variance_is_bounded(value, weight, bound):
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(network.weight, weight)
    rows = torch.tensor([[value]], dtype=torch.float64)
    assert LogVariance(network, bound, reach=None)(rows).abs().item() <= bound
    excess = LogVariance(network, bound, reach=2.0)(rows).item() - math.log1p((value / 2) ** 2)
    assert abs(excess) <= bound * (1 + 1e-9) + 1e-9


# ------------------------------------------------------------------------------------------------------- estimator


class Fixed(nn.Module):
    """A network that knows its answer: log-variances (z1, z2), or their sum for a circular covariance."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.n_outputs = n_outputs

    def forward(self, z):
        return (z if self.n_outputs > 1 else z.sum(1, keepdim=True)) + 0 * self.unused


def fixed(**params):
    """A detector whose log-variances are known: v = 100 tanh(z / 100), nearly z."""
    params = {"bags": "dataset", "scaling": None, "network": Fixed, "max_log_variance": 1e6} | params
    return DUMDetector(max_epochs=1, device="cpu", **params).fit(np.log([[1, 1], [2, 3], [4, 5], [6, 7]]))


@pytest.mark.parametrize(
    ("score_type", "expected"),
    [
        ("norm", -math.log(5)),  # sqrt(3^2 + 4^2)
        ("trace", -math.log(7)),  # 3 + 4
        ("logdet", -math.log(12) / 2),
        # Means of the training rows' log-variances: log(1 * 2 * 4 * 6) / 4 and log(1 * 3 * 5 * 7) / 4.
        ("calibrated", -math.log(3 / 48**0.25 + 4 / 105**0.25)),
    ],
)
def test_scores_by_hand(score_type, expected):
    """Variances 3 and 4."""
    scores = fixed(score_type=score_type).score_samples(np.log([[3.0, 4.0]]))
    assert scores[0] == pytest.approx(expected, rel=1e-6)


def test_uncertainty_is_the_covariance_norm():
    for score_type in ("norm", "logdet"):
        assert fixed(score_type=score_type).uncertainty(np.log([[3.0, 4.0]]))[0] == pytest.approx(5)


def test_circular_covariance():
    """One variance, 12, for both features: norm sqrt(2) * 12."""
    model = fixed(covariance="circular", score_type="norm")
    assert model.uncertainty(np.log([[3.0, 4.0]]))[0] == pytest.approx(12 * math.sqrt(2))


@pytest.mark.parametrize(
    ("covariance", "expected"),
    # With (z / r)^2 = 1, 4, 0: the mean of log 2, log 5 and log 1; or log(1 + 5/3), of the mean of the squares.
    [("diagonal", math.log(10) / 3), ("circular", math.log(8 / 3))],
)
def test_base_by_hand(covariance, expected):
    """A network whose part is bounded to nothing leaves log(1 + (z / r)^2), r being the largest noise, 3."""
    model = DUMDetector(scaling=None, covariance=covariance, view_noise=(0.5, 3.0), max_log_variance=1e-9)
    model.set_params(hidden_sizes=(2,), max_epochs=1, device="cpu", contamination=0).fit(ROWS)
    assert model.score_samples([[3.0, -6.0, 0.0]])[0] == pytest.approx(-expected, rel=1e-6)


@pytest.mark.parametrize(("bags", "size"), [("views", 2), ("dataset", 4)])
def test_default_sizes_of_bags(bags, size):
    """Two views of a row; half of a batch of eight."""
    by_default, same, other = (
        first_loss(clone(SMALL).set_params(bags=bags, bag_size=m), ROWS[:8]) for m in (None, size, 3)
    )
    assert by_default == same
    assert by_default != other


@pytest.mark.parametrize(
    ("bags", "n_features", "scaler"),
    [("views", 2048, Whitener), ("views", 2049, StandardScaler), ("dataset", 3, StandardScaler)],
)
def test_auto_scaling(bags, n_features, scaler):
    X = np.random.default_rng(0).normal(size=(20, n_features))
    model = clone(SMALL).set_params(bags=bags).fit(X)
    assert type(model.scaler_) is scaler


def test_whitening_is_a_step_before():
    whitener = Whitener().fit(ROWS)
    expected = clone(SMALL).set_params(scaling=None).fit(whitener.transform(ROWS))
    model = clone(SMALL).fit(ROWS)
    np.testing.assert_allclose(
        model.score_samples(ROWS), expected.score_samples(whitener.transform(ROWS)), rtol=1e-4, atol=1e-5
    )


def test_explain_finds_the_feature_that_is_off():
    """Three copies of one variable; in some rows the second is another number from the same distribution."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 1)) + 0.05 * rng.normal(size=(500, 3))
    odd = X[:100].copy()
    odd[:, 1] = np.where(np.abs(odd[:, 0]) < 1, odd[:, 0] + 2, -odd[:, 0])
    model = DUMDetector(hidden_sizes=(32, 32), max_epochs=80, random_state=0, device="cpu", contamination=0).fit(X)
    assert (model.explain(odd).argmin(axis=1) == 1).mean() > 0.9


def test_printed_objective_ranks_by_the_norm():
    """What the docstring says of it: on features in [0, 1] large rows are the certain ones."""
    data = load_breast_cancer()
    model = DUMDetector.from_paper(hidden_sizes=(128, 128, 128), random_state=0, device="cpu").fit(data.data)
    malignant = np.where(data.target == 0, -1, 1)
    assert auroc(malignant, model.score_samples(data.data)) < 0.15
    scaled = model.scaler_.transform(data.data)
    assert np.corrcoef(model.score_samples(data.data), np.linalg.norm(scaled, axis=1))[0, 1] > 0.8


def test_default_detects_on_real_data():
    data = load_breast_cancer()
    benign, malignant = data.data[data.target == 1], data.data[data.target == 0]
    train, test = train_test_split(benign, random_state=0)
    model = DUMDetector(hidden_sizes=(64, 64), max_epochs=60, contamination=0.05, random_state=0, device="cpu")
    model.fit(train)
    y = np.repeat([1, -1], [len(test), len(malignant)])
    assert auroc(y, model.score_samples(np.vstack([test, malignant]))) > 0.9
    false_alarms, caught = ((model.predict(rows) == -1).mean() for rows in (test, malignant))
    assert false_alarms < 0.15
    assert caught > 3 * false_alarms


def test_all_that_the_paper_sets():
    """Section 4.2 and appendix A.4; and 5 as the bound that the paper lacks."""
    paper = {
        "bags": "dataset",
        "temperature": 0.07,
        "score_type": "norm",
        "scaling": "minmax",
        "network": "mlp",
        "hidden_sizes": (4096, 4096, 4096),
        "max_log_variance": 5.0,
        "max_epochs": 100,
        "batch_size": 256,
        "lr": 1e-3,
        "optimizer": "adam",
        "schedule": "constant",
    }
    assert DUMDetector.from_paper().get_params() == DUMDetector().get_params() | paper
    # Section 4.3 and appendix A.6.
    paper |= {"encoder": ENCODER, "scaling": None, "normalize": "l2", "views": "simclr"}
    assert paper["views"] == SimCLREncoder.from_paper().augmentation
    assert DUMDetector.from_paper(encoder=ENCODER).get_params(deep=False) == DUMDetector().get_params() | paper
    assert DUMDetector.from_paper(max_epochs=5, random_state=3).get_params()["random_state"] == 3


def test_what_the_paper_sets_for_corruptions():
    """Appendices A.1 and A.3; SGD has momentum 0.9 and no weight decay."""
    paper = {
        "bags": "dataset",
        "score_type": "norm",
        "scaling": None,
        "network": "mlp",
        "hidden_sizes": (4096, 4096, 4096),
        "max_log_variance": 5.0,
        "max_epochs": 50,
        "batch_size": 256,
        "lr": 0.01,
        "optimizer": "sgd",
        "schedule": "constant",
    }
    assert DUMDetector.from_paper("corruptions").get_params() == DUMDetector().get_params() | paper
    paper |= {"encoder": ENCODER, "views": "simclr"}
    assert DUMDetector.from_paper("corruptions", encoder=ENCODER).get_params(deep=False) == (
        DUMDetector().get_params() | paper
    )
    made = make_optimizer(paper["optimizer"], [nn.Parameter(torch.zeros(1))], paper["lr"]).defaults
    assert (made["momentum"], made["weight_decay"], made["nesterov"]) == (0.9, 0, False)
    with pytest.raises(ValueError, match="experiment='table 1' must be 'outliers' or 'corruptions'"):
        DUMDetector.from_paper("table 1")


def test_paper_network():
    """Three hidden layers with a ReLU each and a linear output."""
    model = DUMDetector.from_paper(hidden_sizes=(7, 8, 9), max_epochs=1).fit(ROWS)
    layers = [nn.Linear, nn.ReLU] * 3 + [nn.Linear]
    assert all(isinstance(*pair) for pair in zip(model.module_.network, layers, strict=True))
    assert [p.shape[0] for p in model.module_.parameters() if p.ndim == 2] == [7, 8, 9, 3]
    scaled = model.scaler_.transform(ROWS)
    assert (scaled.min(), scaled.max()) == (0, pytest.approx(1))


class TwoOutputs(nn.Linear):
    def __init__(self):
        super().__init__(3, 3)

    def forward(self, x):
        return x, x


CHANGES = {
    "bags": "dataset",
    "bag_size": 3,
    "view_noise": (0.2, 0.9),
    "covariance": "circular",
    "score_type": "norm",
    "scaling": None,
    "normalize": "l2",
    "network": "mlp",
    "hidden_sizes": (8, 8),
    "max_log_variance": 1.0,
    "max_epochs": 3,
    "batch_size": 30,
    "lr": 0.01,
    "optimizer": "sgd",
    "schedule": "constant",
    "precision": "bfloat16",
    "random_state": 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_parameter_does_something(name):
    X = ROWS * 3 + 1
    scores = clone(SMALL).fit(X).score_samples(X)
    changed = clone(SMALL).set_params(**{name: CHANGES[name]}).fit(X).score_samples(X)
    assert not np.allclose(scores, changed, rtol=1e-6)


def test_parameters_take_effect_at_fit():
    """The threshold was set with the old ones."""
    model = clone(SMALL).fit(ROWS)
    scores = model.score_samples(ROWS)
    model.set_params(score_type="calibrated", normalize="l2")
    assert np.array_equal(model.score_samples(ROWS), scores)


@pytest.mark.parametrize("change", [{"bag_size": 5}, {"temperature": 0.01, "optimizer": "sgd"}])
def test_every_parameter_of_the_printed_objective_does_something(change):
    base = clone(SMALL).set_params(bags="dataset", optimizer=change.get("optimizer", "adam"))
    scores = base.fit(ROWS).score_samples(ROWS)
    assert not np.allclose(scores, clone(base).set_params(**change).fit(ROWS).score_samples(ROWS), rtol=1e-6)


@pytest.mark.parametrize("n", [65, 5000])
def test_auto_epochs_make_enough_steps(n):
    model = clone(SMALL).set_params(max_epochs="auto", hidden_sizes=(2,), batch_size=64)
    model.fit(np.random.default_rng(0).normal(size=(n, 2)))
    n_steps = sum(model.history_[:, "train_batch_count"])
    batches = model.history_[0, "train_batch_count"]
    assert 2000 <= n_steps < 2000 + batches


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ("adam", "constant"),
        ("adamw", "cosine"),
        ("nesterov", "constant"),
        ("sgd", "one-cycle"),
        ("rmsprop", math.sqrt),
        (torch.optim.NAdam, "cosine"),
    ],
)
def test_optimizers_and_schedules(optimizer, schedule):
    rows = np.repeat(ROWS, 10, axis=0)
    model = clone(SMALL).set_params(optimizer=optimizer, schedule=schedule, max_epochs=20).fit(rows)
    losses = model.history_[:, "train_loss"]
    assert np.mean(losses[-5:]) < np.mean(losses[:2])


def test_network_by_instance_class_and_factory():
    instance = nn.Linear(3, 3)
    before = instance.weight.detach().clone()
    first = clone(SMALL).set_params(network=instance).fit(ROWS)
    assert torch.equal(instance.weight, before)
    assert np.array_equal(first.fit(ROWS).score_samples(ROWS), clone(first).fit(ROWS).score_samples(ROWS))
    for network in (nn.Linear, lambda d, k: nn.Sequential(nn.Linear(d, 5), nn.BatchNorm1d(5), nn.Linear(5, k))):
        model = clone(SMALL).set_params(network=network).fit(ROWS)
        assert len(np.unique(model.score_samples(ROWS))) == len(ROWS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"network": nn.Linear(3, 2)}, r"network maps \(2, 3\) to \(2, 2\)"),
        ({"network": nn.Linear(4, 3)}, "network does not take rows of 3 features"),
        ({"network": nn.Identity()}, "network has no parameters"),
        ({"network": lambda d, k: None}, "made a NoneType"),
        ({"network": TwoOutputs()}, r"network maps \(2, 3\) to a tuple"),
        ({"bags": "dataset", "bag_size": 9}, "bag_size=9 is more than half of batch_size=16"),
        ({"bags": "dataset", "bag_size": 40, "batch_size": 80}, "bag_size=40 is more than half of n_samples="),
        ({"network": "resnet"}, "network"),
        ({"hidden_sizes": ()}, "hidden_sizes"),
        ({"hidden_sizes": (8, 0)}, "hidden_sizes"),
        ({"view_noise": (1.0, 0.1)}, "view_noise"),
        ({"view_noise": (0.0, 0.1)}, "view_noise"),
        ({"view_noise": (0.1,)}, "view_noise"),
        ({"view_noise": (None, 3.0)}, "view_noise"),
        ({"bag_size": 1}, "bag_size"),
        ({"temperature": 0}, "temperature"),
        ({"bags": "bag"}, "bags"),
        ({"score_type": "sum"}, "score_type"),
        ({"max_epochs": "all"}, "max_epochs"),
        ({"bags": "dataset", "batch_size": 3}, "batch_size=3"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        clone(SMALL).set_params(**params).fit(ROWS)


class Recorded(nn.Linear):
    """A network that records the number of rows of each batch in training."""

    seen: list = []

    def forward(self, rows):
        if self.training:
            self.seen.append(len(rows))
        return super().forward(rows)


@pytest.mark.parametrize(
    ("bag_size", "sizes"),
    [(None, [16, 16, 16, 12]), (6, [16, 16, 16, 12]), (7, [16, 16, 28]), (8, [16, 16, 28])],
)
def test_every_batch_fills_two_bags(bag_size, sizes):
    """Of 60 rows 12 are left over; if they are fewer than 2m, they join the batch before."""
    Recorded.seen.clear()
    clone(SMALL).set_params(bags="dataset", bag_size=bag_size, network=Recorded, max_epochs=1).fit(ROWS)
    assert Recorded.seen == sizes


def test_printed_objective_needs_a_pair_of_bags():
    model = clone(SMALL).set_params(bags="dataset")
    with pytest.raises(ValueError, match="n_samples=3"):
        model.fit(ROWS[:3])
    assert np.isfinite(model.fit(ROWS[:4]).score_samples(ROWS)).all()


# ------------------------------------------------------------------------------------------------ encoders and views

IMAGES = np.random.default_rng(1).random((24, 3, 8, 8))
BYTES = np.random.default_rng(1).integers(0, 256, size=(24, 3, 8, 8), dtype=np.uint8)


def resnet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNet((3, 8, 8), 5, width=2, n_blocks=1).eval()


ENCODER = resnet()
SEEING = clone(SMALL).set_params(encoder=ENCODER, views="crop-flip")


def summing(n_pixels):
    """An encoder whose only feature is the sum of the pixels."""
    linear = nn.Linear(n_pixels, 1, bias=False)
    nn.init.ones_(linear.weight)
    encoder = FrozenEncoder(nn.Sequential(nn.Flatten(), linear), layer="1", device="cpu")
    return encoder.fit(np.zeros((2, 1, 1, n_pixels)))


def twice_and_nothing(images):
    """Of two views of each image: 2 x and 0."""
    half = len(images) // 2
    return torch.cat([2 * images[:half], 0 * images[half:]])


def doubled(images):
    return 2 * images


def unchanged(images):
    return images.clone()


def first_loss(detector, X):
    """Of the only batch, before the weights are moved."""
    return detector.set_params(max_epochs=1, batch_size=len(X), precision="float32").fit(X).history_[0]["train_loss"]


def test_views_lie_one_after_the_other():
    images = torch.arange(6.0).reshape(3, 1, 1, 2)
    views = image_views(images, 2, twice_and_nothing)
    assert views.shape == (2, 3, 1, 1, 2)
    assert torch.equal(views[0], 2 * images)
    assert not views[1].any()


def test_loss_of_image_views_by_hand():
    """Embeddings z = log 2 and 0, log-variances that are the embedding; views 2z and 0, of precisions exp(-2z) and 1.

    Of z = log 2: 1/4 and 1, mean (2 log 2 / 4) / (5/4) = 0.4 log 2, variance 4/5. Of z = 0: mean 0, variance 1/2.
    """
    X = np.array([[math.log(2) - 0.3, 0.3], [-0.5, 0.5]]).reshape(2, 1, 1, 2)
    detector = DUMDetector(
        encoder=summing(2),
        views=twice_and_nothing,
        network=Fixed,
        scaling=None,
        view_noise=None,
        max_log_variance=1e6,
        device="cpu",
        contamination=0,
    )
    of_log_2 = (0.6 * math.log(2)) ** 2 / 0.8 + math.log(0.8)
    assert first_loss(detector, X) == pytest.approx((of_log_2 + math.log(0.5)) / 2, rel=1e-5)


def test_printed_objective_of_image_views_by_hand():
    """Views 2z of z = 0, 1, 2, 3, all of one precision: minus the product of the means of the pairs' halves."""
    X = np.array([[0.0, 0.0], [0.5, 0.5], [2.5, -0.5], [1.0, 2.0]]).reshape(4, 1, 1, 2)
    network = nn.Linear(1, 1)
    nn.init.zeros_(network.weight)
    detector = DUMDetector(
        "dataset", encoder=summing(2), views=doubled, network=network, scaling=None, device="cpu", contamination=0
    )
    loss = first_loss(detector, X)
    # (0, 1) and (2, 3); (0, 2) and (1, 3); (0, 3) and (1, 2): means 1 and 5, 2 and 4, 3 and 3 of what is doubled.
    assert any(loss == pytest.approx(-expected, rel=1e-5) for expected in (5, 8, 9))


@pytest.mark.parametrize("encoder", [None, ENCODER])
@pytest.mark.parametrize("scaling", ["whiten", "standard", "minmax", None])
@pytest.mark.parametrize("normalize", ["l2", None])
def test_views_that_change_nothing(encoder, scaling, normalize):
    """The printed objective then sees the embeddings as they are, scaled as those that are scored."""
    params = {"scaling": scaling, "normalize": normalize, "bags": "dataset"}
    plain = clone(SMALL).set_params(encoder=encoder, **params).fit(IMAGES)
    seen = clone(plain).set_params(views=unchanged).fit(IMAGES)
    np.testing.assert_allclose(seen.history_[:, "train_loss"], plain.history_[:, "train_loss"], rtol=1e-4)
    np.testing.assert_allclose(seen.score_samples(IMAGES), plain.score_samples(IMAGES), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bags", ["views", "dataset"])
def test_encoder_is_a_step_before(bags):
    """Without views of images: as a Pipeline of `FrozenEncoder`, bit for bit."""
    features = FrozenEncoder(ENCODER, device="cpu").fit_transform(IMAGES)
    expected = clone(SMALL).set_params(bags=bags).fit(features)
    model = clone(SMALL).set_params(bags=bags, encoder=ENCODER).fit(IMAGES)
    assert model.n_features_in_ == 192
    assert model.offset_ == expected.offset_
    assert np.array_equal(model.score_samples(IMAGES), expected.score_samples(features))
    assert np.array_equal(model.uncertainty(IMAGES), expected.uncertainty(features))
    with_outliers = model.fit(np.concatenate([IMAGES, BYTES / 255]), np.repeat([1, -1], 24))
    assert np.array_equal(with_outliers.score_samples(IMAGES), expected.score_samples(features))


def test_encoders_of_all_kinds():
    """Of estimators it is what their transform gives."""
    y = np.arange(24) % 2
    classifier = BackboneClassifier("resnet-8-2", max_epochs=1, random_state=0).fit(BYTES, y)
    adapted = ResidualAdapterDetector(resnet(), max_epochs=1, random_state=0, contamination=0).fit(
        BYTES, np.where(y == 0, 1, -1)
    )
    frozen_encoder = FrozenEncoder(resnet(), layer="stem").fit(BYTES)
    for encoder in (classifier, adapted, frozen_encoder):
        expected = clone(SMALL).fit(encoder.transform(BYTES)).score_samples(encoder.transform(BYTES))
        model = clone(SMALL).set_params(encoder=encoder).fit(BYTES)
        np.testing.assert_allclose(model.score_samples(BYTES), expected, rtol=1e-4)
        flat = clone(SMALL).set_params(encoder=encoder, image_shape=(3, 8, 8), views="crop-flip")
        assert np.isfinite(flat.fit(BYTES.reshape(24, -1)).score_samples(BYTES)).all()
    assert clone(SMALL).set_params(encoder=SHIPPED).fit(BYTES).uncertainty(BYTES).shape == (24,)


def test_encoder_of_vectors():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    frame = pd.DataFrame(ROWS, columns=list("abc"))
    model = clone(SMALL).set_params(encoder=encoder).fit(frame)
    assert model.uncertainty(frame).shape == (60,)
    assert model.explain(frame[:2]).columns.tolist() == list("abc")


class Counting(nn.Flatten):
    """Counts the rows that all copies have embedded."""

    n_rows = 0

    def forward(self, rows):
        Counting.n_rows += len(rows)
        return super().forward(rows)


def test_rows_are_embedded_once_but_for_views():
    counts = {}
    for views in ("noise", unchanged):
        for n_epochs in (1, 5):
            before = Counting.n_rows
            clone(SMALL).set_params(encoder=Counting(), views=views, max_epochs=n_epochs).fit(IMAGES)
            counts[views, n_epochs] = Counting.n_rows - before
    assert counts["noise", 5] == counts["noise", 1]
    # Two views, and the image.
    assert counts[unchanged, 5] - counts[unchanged, 1] == 4 * 3 * len(IMAGES)


def test_encoder_is_shared_and_stays_as_it_is():
    before = copy.deepcopy(ENCODER.state_dict())
    shared = {id(parameter) for parameter in frozen(ENCODER, torch.device("cpu")).parameters()}
    models = [clone(SEEING).set_params(random_state=seed).fit(IMAGES) for seed in (0, 1)]
    for model in models:
        assert model.encoder is ENCODER
        assert {id(parameter) for parameter in model.encoder_.parameters()} == shared
        assert not model.encoder_.training
    assert all(torch.equal(value, before[name]) for name, value in ENCODER.state_dict().items())
    trained = {id(parameter) for parameter in models[0].module_.parameters()}
    assert not trained & shared
    encoder = FrozenEncoder(ENCODER, device="cpu").fit(IMAGES)
    on_encoder = clone(SEEING).set_params(encoder=encoder).fit(IMAGES)
    assert {id(parameter) for parameter in on_encoder.encoder_.parameters()} == shared


@pytest.mark.parametrize("bags", ["views", "dataset"])
def test_image_views_repeat(bags, device):
    """Fits, pickles and scores; generators stay."""
    state = torch.get_rng_state()
    model = clone(SEEING).set_params(bags=bags, device=device).fit(IMAGES)
    scores = model.score_samples(IMAGES)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(model.score_samples(IMAGES), scores)
    np.testing.assert_allclose(model.score_samples(IMAGES[[5, 3]]), scores[[5, 3]], rtol=1e-9)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).score_samples(IMAGES), scores)
    assert np.array_equal(clone(model).fit(IMAGES).score_samples(IMAGES), scores)
    assert np.array_equal(model.fit(IMAGES).score_samples(IMAGES), scores)
    for change in ({"random_state": 1}, {"views": "crop-flip-mask"}, {"encoder": None}, {"bag_size": 3}):
        other = clone(model).set_params(**change).fit(IMAGES).score_samples(IMAGES)
        assert not np.allclose(other, scores, rtol=1e-6)


def test_a_fitted_detector_keeps_its_encoder():
    encoder = FrozenEncoder(resnet(), device="cpu").fit(IMAGES)
    model = clone(SEEING).set_params(encoder=encoder).fit(IMAGES)
    scores = model.score_samples(IMAGES)
    encoder.set_params(layer="stem").fit(IMAGES)
    model.set_params(views="noise", encoder=None, normalize="l2")
    assert np.array_equal(model.score_samples(IMAGES), scores)
    expected = scores[:2] - np.median(model.training_scores_)
    np.testing.assert_allclose(model.explain(IMAGES[:2]).sum((1, 2)), expected, rtol=1e-9)


def test_rows_whose_embedding_moves_are_uncertain():
    """Views add noise to half of the images: a loss of views alone has these for the less certain ones."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1, 1, 2)) * 0.1
    X[150:] += 1

    def shaken(images):
        return images + 0.3 * torch.randn_like(images) * (images.mean((1, 2, 3), keepdim=True) > 0.5)

    settings = {"hidden_sizes": (16,), "max_epochs": 100, "contamination": 0, "random_state": 0, "device": "cpu"}
    uncertain = DUMDetector(views=shaken, view_noise=None, **settings).fit(X).uncertainty(X)
    assert np.median(uncertain[150:]) > 3 * np.median(uncertain[:150])


def test_noise_on_top_of_views():
    """Of views that change nothing it is all there is: the loss of noisy embeddings, but for the draw."""
    params = {"encoder": ENCODER, "max_epochs": 40, "lr": 1e-30, "view_noise": (0.5, 0.5)}
    plain, seen = (clone(SMALL).set_params(views=views, **params).fit(IMAGES) for views in ("noise", unchanged))
    losses = [np.mean(model.history_[:, "train_loss"]) for model in (plain, seen)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    still = clone(seen).set_params(view_noise=None).fit(IMAGES)
    assert abs(np.mean(still.history_[:, "train_loss"]) - losses[0]) > 0.2


def test_views_of_digits_detect_where_there_is_noise():
    """Fitted on sevens, with a network that has learnt 0 to 4: sevens against 5, 6, 8, 9."""
    X, digit = load_digits(return_X_y=True)
    backbone = BackboneClassifier("cnn", image_shape=(1, 8, 8), max_epochs=5, random_state=0)
    backbone.fit(X[digit < 5], digit[digit < 5])
    train, test = X[digit == 7][:100], np.vstack([X[digit == 7][100:], X[np.isin(digit, (5, 6, 8, 9))][:100]])
    y = np.repeat([1, -1], [len(test) - 100, 100])
    found = {}
    for noise in ((0.05, 3.0), None):
        model = DUMDetector(
            encoder=backbone, views="crop-flip", view_noise=noise, image_shape=(1, 8, 8), contamination=0
        )
        model.set_params(hidden_sizes=(64,), max_epochs=60, random_state=0, device="cpu").fit(train)
        found[noise] = auroc(y, model.score_samples(test))
    assert found[0.05, 3.0] > 0.85
    assert found[0.05, 3.0] > found[None] + 0.1


def test_from_paper_for_images():
    small = DUMDetector.from_paper(encoder=ENCODER, hidden_sizes=(8,), max_epochs=1, random_state=0).fit(IMAGES)
    embedding = small._represented(small._check_rows(IMAGES, reset=False))
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-6)


def test_automatic_number_of_epochs_with_views():
    """500 batches; 24 images are 2 of them."""
    detector = clone(SEEING).set_params(encoder=None, hidden_sizes=(2,), max_epochs="auto", batch_size=12)
    assert len(detector.fit(IMAGES[:, :1, :2, :2]).history_) == 250


@pytest.mark.parametrize(
    ("params", "X", "message"),
    [
        ({"views": "crop-flip"}, ROWS, "views='crop-flip' transforms images, but X holds vectors: pass images"),
        ({"views": doubled}, ROWS, "transforms images, but X holds vectors"),
        ({"views": lambda images: images[:, :, 1:]}, IMAGES, r"views gave \(32, 3, 7, 8\); it must give a tensor of"),
        ({"views": "blur"}, IMAGES, "views"),
        ({"view_noise": None}, IMAGES, "view_noise=None makes all views of a vector the same"),
        ({"encoder": "resnet-26-16"}, IMAGES, "encoder='resnet-26-16' is no trained network: pass a torch module"),
        ({"encoder": BackboneClassifier()}, IMAGES, "encoder=BackboneClassifier holds no trained torch module"),
        ({"encoder": FrozenEncoder()}, IMAGES, "FrozenEncoder instance is not fitted"),
        (
            {"encoder": DUMDetector(max_epochs=1, contamination=0).fit(ROWS)},
            ROWS,
            "encoder=DUMDetector has learnt no features",
        ),
        ({"encoder": resnet()}, IMAGES[:, :1], r"encoder does not take rows of images of shape \(1, 8, 8\)"),
        ({"encoder": FrozenEncoder(resnet()).fit(BYTES)}, IMAGES, "encoder was fitted on uint8 images"),
        ({"encoder": 3}, IMAGES, "encoder"),
    ],
)
def test_bad_encoders_and_views(params, X, message):
    with pytest.raises(ValueError, match=message):
        clone(SMALL).set_params(**params).fit(X)


def test_pixels_that_an_encoder_does_not_take():
    with pytest.warns(RuntimeWarning, match=r"the encoder takes pixels in \[0, 1\]") as caught:
        clone(SMALL).set_params(encoder=SHIPPED).fit(255 * IMAGES)
    assert caught[0].filename == __file__


def test_views_that_cut_pixels_to_fractions_warn_of_others():
    model = clone(SMALL).set_params(views="simclr-no-flip", max_epochs=1)
    with pytest.warns(RuntimeWarning, match=r"to 255, but views='simclr-no-flip' take pixels in \[0, 1\]\. Scale"):
        model.fit(np.linspace(0, 255, 12 * 192).reshape(12, 3, 8, 8))
    # These do not look at the scale.
    clone(SMALL).set_params(views="crop-flip", max_epochs=1).fit(np.linspace(0, 255, 12 * 192).reshape(12, 3, 8, 8))
