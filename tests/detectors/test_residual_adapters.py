"""ResidualAdapterDetector: the loss, what is trained and what stays, backbones shared and pretrained, files, scores."""

import copy
import math
import pickle
import signal
import sys
from collections import OrderedDict
from decimal import Decimal, localcontext

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from joblib import parallel_config
from safetensors.numpy import save_file
from scipy.special import expit
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from skood import (
    BackboneClassifier,
    DUMDetector,
    NegSampleVAE,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
)
from skood.backbones import Preprocessed
from skood.detectors import residual_adapters as adapters
from skood.detectors.residual_adapters import (
    hypersphere_loss,
    log_outlier_probability,
    one_class_loss,
    paper_schedule,
    radial,
)
from skood.metrics import auroc
from skood.networks import MLP, ResidualMLP, ResNet, adapters_of, find_head, tap

# Scores alone: a threshold on held-out rows would take three more fits.
SMALL = {"max_epochs": 2, "batch_size": 8, "contamination": 0, "random_state": 0}
NOTHING = {"max_epochs": 1, "lr": 1e-30}


def resnet(seed=0):
    """For grey images; its normalisation knows such as `bars` has."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResNet((1, 8, 8), 5, width=4, n_blocks=1)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        # What the only batch has.
        norm.momentum = 1.0
    with torch.no_grad():
        network(torch.from_numpy(bars(64, seed=99)[0]).float())
    for norm in norms:
        norm.momentum = 0.1
    return network


def perceptron(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ResidualMLP(3, 4, (16, 16))


def bars(n=32, seed=0, shape=(8, 8)):
    """Grey images bright on top, and a corpus of noise; half of each, y == -1 for the latter."""
    rng = np.random.default_rng(seed)
    X = 0.3 * rng.random((n, 1, *shape))
    X[: n // 2, :, : shape[0] // 2] += 0.7
    X[n // 2 :] += 0.7 * (rng.random((n - n // 2, 1, *shape)) < 0.5)
    return X, np.repeat([1, -1], [n // 2, n - n // 2])


def line(n=200, seed=0):
    """Rows along a line in three dimensions, and outliers off it with the same marginals."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 1)) @ [[1.0, -1.0, 0.5]] + 0.1 * rng.normal(size=(n, 3))
    return X, np.column_stack([rng.permutation(column) for column in X.T])


def with_corpus(X, corpus):
    return np.vstack([X, corpus]), np.repeat([1, -1], [len(X), len(corpus)])


def tensors(module):
    return dict([*module.named_parameters(), *module.named_buffers()])


def snapshot(module):
    return {name: tensor.detach().clone() for name, tensor in tensors(module).items()}


def unchanged(module, before):
    return tensors(module).keys() == before.keys() and all(
        torch.equal(tensor, before[name]) for name, tensor in tensors(module).items()
    )


def mean_square(module, other):
    """Distance of two networks' weights, squared."""
    start = dict(other.named_parameters())
    return sum((p - start[name]).square().sum().item() for name, p in module.named_parameters())


@pytest.fixture(scope="module")
def fitted():
    """On images with a corpus, of a given backbone."""
    backbone = resnet()
    return ResidualAdapterDetector(backbone, **SMALL | {"max_epochs": 25, "contamination": "natural"}).fit(*bars())


@pytest.fixture(scope="module")
def classifier():
    """Of the digits from 0 to 4."""
    X, digit = load_digits(return_X_y=True)
    known = digit < 5
    settings = {"max_epochs": 15, "image_shape": (1, 8, 8), "random_state": 0}
    return BackboneClassifier("resnet-8-8", **settings).fit(X[known], digit[known])


class Seen(Callback):
    """The rows of each training batch, as the network sees them."""

    def on_train_begin(self, net, **kwargs):
        self.batches = []
        self.hook = net.module_.register_forward_pre_hook(lambda _, args: self.batches.append(args[0].clone()))

    def on_train_end(self, net, **kwargs):
        self.hook.remove()


class Gradients(Callback):
    """The largest gradient of each parameter."""

    def on_train_begin(self, net, **kwargs):
        self.largest = {}

    def on_grad_computed(self, net, named_parameters, **kwargs):
        for name, parameter in named_parameters:
            if parameter.grad is not None:
                largest = parameter.grad.abs().max().item()
                self.largest[name] = max(self.largest.get(name, 0.0), largest)


class Interrupting(nn.Linear):
    """Sends the process the signal of Ctrl-C in the middle of a training step."""

    steps_left = 0

    def forward(self, x):
        if self.training:
            type(self).steps_left -= 1
            if self.steps_left == 0:
                signal.raise_signal(signal.SIGINT)
        return super().forward(x)


def interrupting(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), Interrupting(8, n_outputs))


class Raw(nn.Module):
    """A network with a parameter that no layer draws."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(n_features, 4)), nn.Linear(4, n_outputs)

    def forward(self, x):
        return self.head(torch.tanh(x @ self.weight))


# --------------------------------------------------------------------------------------------------------------------
# The loss


def test_radius_by_hand():
    z = torch.tensor([[0.0, 0.0], [3.0, 0.0], [2.0, 2.0], [1e-5, 0.0], [3e12, 4e12]], dtype=torch.float64)
    expected = [0, math.sqrt(10) - 1, 2, 5e-11, 5e12]
    assert radial(z).tolist() == pytest.approx(expected, rel=1e-9)
    # Nothing cancels in float32 either.
    assert radial(z.float()).tolist() == pytest.approx(expected, rel=1e-6)


def test_gradient_of_the_radius():
    """z / sqrt(|z|^2 + 1): no longer than 1, and nothing at the origin."""
    z = torch.tensor([[0.0, 0.0], [2.0, 2.0], [3e8, 4e8]], requires_grad=True)
    radial(z).sum().backward()
    assert z.grad.flatten().tolist() == pytest.approx([0, 0, 2 / 3, 2 / 3, 0.6, 0.8], rel=1e-6)


def exactly(h):
    """log(1 - exp(-h)) in sixty digits."""
    with localcontext() as context:
        context.prec = 60
        return float((1 - (-Decimal(h)).exp()).ln())


@given(st.floats(math.log(1e-6), math.log(80)).map(math.exp))
def test_probability_of_outliers_is_precise(h):
    double = log_outlier_probability(torch.tensor([h], dtype=torch.float64)).item()
    assert double == pytest.approx(exactly(h), rel=1e-13, abs=0)
    single = torch.tensor([max(h, 1e-6)])
    expected = exactly(max(single.item(), 1e-6))
    assert log_outlier_probability(single).item() == pytest.approx(expected, rel=2e-5, abs=0)


def test_probability_of_outliers_has_an_end_on_both_sides():
    h = torch.tensor([0.0, 1e-12, 1e-6, math.log(2), 100.0, 1e3, math.inf], requires_grad=True)
    log_probability = log_outlier_probability(h)
    assert log_probability.tolist() == pytest.approx([math.log(1e-6)] * 3 + [math.log(0.5), 0, 0, 0], rel=1e-6)
    log_probability.sum().backward()
    assert torch.isfinite(h.grad).all()
    # The derivative is 1 / (exp(h) - 1).
    assert h.grad[2:].tolist() == pytest.approx([1e6, 1, 0, 0, 0], rel=1e-5)


def test_hypersphere_loss_by_hand():
    """Of two rows at h = 0 and log 2, and one of the corpus at log 2, whose 1 - exp(-h) is a half."""
    loss = hypersphere_loss(torch.tensor([0, math.log(2)]), torch.tensor([math.log(2)]))
    assert loss.item() == pytest.approx(2 * math.log(2) / 3)
    # Cross entropy of probabilities exp(-h).
    torch.manual_seed(0)
    h, h_corpus = 3 * torch.rand(5), 3 * torch.rand(7)
    truth = torch.tensor([1.0] * 5 + [0.0] * 7)
    expected = nn.functional.binary_cross_entropy(torch.cat([-h, -h_corpus]).exp(), truth)
    assert hypersphere_loss(h, h_corpus).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_vanishes_where_rows_are_at_the_origin_and_the_corpus_far_away():
    losses = [hypersphere_loss(torch.full((3,), 1 / far), torch.full((5,), far)).item() for far in (1.0, 10, 100, 1e4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-4)
    assert hypersphere_loss(torch.zeros(3), torch.full((5,), 1e3)).item() == 0


positive = st.lists(st.floats(1e-5, 50), min_size=1, max_size=5)


@given(positive, positive)
def test_rows_are_pulled_and_the_corpus_is_pushed(h, h_corpus):
    h = torch.tensor(h, dtype=torch.float64, requires_grad=True)
    h_corpus = torch.tensor(h_corpus, dtype=torch.float64, requires_grad=True)
    hypersphere_loss(h, h_corpus).backward()
    assert (h.grad > 0).all()
    assert (h_corpus.grad < 0).all()


def test_one_class_loss_by_hand():
    """z is 1 and -1, then 3 and -3: standard deviations 1 and 3; then 0.1 and -0.1, a shortfall of 0.4."""
    assert one_class_loss(torch.tensor([[1.0], [-1.0]])).item() == pytest.approx(math.sqrt(2) - 1)
    assert one_class_loss(torch.tensor([[3.0], [-3.0]])).item() == pytest.approx(math.sqrt(10) - 1)
    narrow = one_class_loss(torch.tensor([[0.1], [-0.1]])).item()
    assert narrow == pytest.approx(math.sqrt(1.01) - 1 + 4 * 0.4, rel=1e-5)
    # In two dimensions, one of them constant: sqrt(2) times the mean of shortfalls 0 and 0.5, as good as.
    flat = one_class_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item()
    assert flat == pytest.approx(math.sqrt(2) - 1 + 4 * math.sqrt(2) * 0.25, abs=1e-3)


@given(st.integers(1, 30), st.floats(0.3, 1), st.integers(0, 100))
def test_collapse_costs_more_than_spread(n_features, share, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(64, n_features))
    z = torch.from_numpy((z - z.mean(0)) / z.std(0))
    collapsed = one_class_loss(torch.zeros_like(z))
    assert one_class_loss(share * z) < collapsed
    # Nor is a constant elsewhere any better.
    assert collapsed <= one_class_loss(torch.ones_like(z))


def test_contraction_stops_at_half_the_spread():
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(500, 4)))
    z = (z - z.mean(0)) / z.std(0, correction=0)
    shares = np.linspace(0.05, 1, 96)
    losses = [one_class_loss(share * z).item() for share in shares]
    assert shares[np.argmin(losses)] == pytest.approx(0.5, abs=0.01)


def test_learning_rates_of_the_paper():
    assert [paper_schedule(epoch / 120) for epoch in (0, 79, 80, 99, 100, 120)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    rates = []

    class Rates(Callback):
        def on_batch_end(self, net, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    settings = SMALL | {"max_epochs": 12, "lr": 0.1, "schedule": paper_schedule}
    ResidualAdapterDetector(resnet(), **settings, callbacks=[Rates()]).fit(*bars())
    # Two batches an epoch.
    assert rates == pytest.approx([0.1] * 16 + [0.01] * 4 + [0.001] * 4)


# --------------------------------------------------------------------------------------------------------------------
# What is trained, and what stays


@pytest.mark.parametrize("n_adapters", [1, 2, 4])
@pytest.mark.parametrize("batch_norm", ["frozen", "affine", "own"])
def test_adapters_learn_and_the_backbone_stays(n_adapters, batch_norm):
    backbone = resnet().train()
    before = snapshot(backbone)
    settings = SMALL | {"n_adapters": n_adapters, "batch_norm": batch_norm, "callbacks": [Gradients()]}
    model = ResidualAdapterDetector(backbone, **settings).fit(*bars())
    untrained = ResidualAdapterDetector(backbone, **settings | NOTHING).fit(*bars())
    # The given one does not change by one bit, nor does the one that is stood on.
    assert unchanged(backbone, before)
    assert unchanged(model.backbone_, before)
    assert all(part.training for part in backbone.modules())
    assert all(parameter.requires_grad for parameter in backbone.parameters())

    layers = dict(adapters_of(model.module_))
    assert len(layers) == 7
    assert {len(layer.adapters) for layer in layers.values()} == {n_adapters}
    assert all((layer.gate is None) is (n_adapters == 1) for layer in layers.values())
    norms = {name for name, part in model.module_.named_modules() if isinstance(part, nn.BatchNorm2d)}
    gradients = model.callbacks_[0].largest
    start = tensors(untrained.module_)
    for name, parameter in model.module_.named_parameters():
        part = name.rpartition(".")[0]
        own = name == "head.weight" or ".adapters." in name or ".gate." in name
        trained = own or (part in norms and batch_norm != "frozen")
        assert parameter.requires_grad is trained, name
        assert (gradients.get(name, 0) > 0) is trained, name
        assert torch.equal(parameter, start[name]) is not trained, name
    for name, buffer in model.module_.named_buffers():
        gathered = name.rpartition(".")[0] in norms and batch_norm == "own"
        given = before.get(name.removeprefix("features.network."))
        if given is not None:
            assert torch.equal(buffer, given) is not gathered, name
    assert not model.module_.training


@pytest.mark.parametrize("init", ["near-zero", "he", "zero"])
def test_untrained_adapters_hardly_change_the_features(init):
    X, y = bars()
    features = ResidualAdapterDetector(resnet(), **SMALL, adaptation="frozen").fit(X, y).transform(X)
    settings = SMALL | NOTHING | {"batch_norm": "frozen"}
    adapted = ResidualAdapterDetector(resnet(), **settings, adapter_init=init).fit(X, y).transform(X)
    change = np.linalg.norm(adapted - features) / np.linalg.norm(features)
    if init == "zero":
        assert change == pytest.approx(0, abs=1e-12)
    else:
        # A hundredth in each layer, amplified from layer to layer.
        assert 0 < change < 0.3 if init == "near-zero" else change > 0.5


def test_dropout_of_a_frozen_backbone_drops_nothing():
    X, corpus = line()
    X, y = with_corpus(X, corpus)
    plain = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    dropping = copy.deepcopy(plain)
    dropping[2].p = 0.9
    scores = [ResidualAdapterDetector(b, **SMALL).fit(X, y).score_samples(X) for b in (plain, dropping.train())]
    assert np.array_equal(*scores)


def test_adapters_beside_layers_before_the_features():
    X, y = bars()
    settings = SMALL | {"layer": "blocks.0", "batch_norm": "frozen", "callbacks": [Gradients()]}
    model = ResidualAdapterDetector(resnet(), **settings).fit(X, y)
    names = [name.removeprefix("features.network.") for name, _ in adapters_of(model.module_)]
    assert names == ["stem", "blocks.0.conv1", "blocks.0.conv2"]
    assert model.transform(X).shape == (32, 8)
    trained = {name for name, parameter in model.module_.named_parameters() if parameter.requires_grad}
    assert {name for name, largest in model.callbacks_[0].largest.items() if largest > 0} == trained


@pytest.mark.parametrize(
    ("rows", "backbone", "params", "gain"),
    [
        (lambda: bars(), resnet, {}, 4.5),
        (lambda: (bars()[0], None), resnet, {}, 1),
        (lambda: bars(), resnet, {"outliers": None}, 1),
        # Its square over K is the same for all K: 4.5^2 / 2 = 9^2 / 8.
        (lambda: bars(), resnet, {"n_adapters": 8}, 9),
        (lambda: bars(), resnet, {"adapter_gain": 2.0}, 2),
        (lambda: with_corpus(*line()), perceptron, {}, 1),
    ],
    ids=["images", "made outliers", "one class", "more adapters", "given", "vectors"],
)
def test_gain_of_adapters(rows, backbone, params, gain):
    """Adapters beside convolutions learn faster, where a corpus says which way."""
    model = ResidualAdapterDetector(backbone(), **SMALL, **params).fit(*rows())
    assert {layer.gain for _, layer in adapters_of(model.module_)} == {gain}


def test_parameters_are_counted():
    """Three inputs, two hidden units, four outputs; K = 2 of rank 1 beside a layer of 3 x 2, and its gate; the head."""
    X, corpus = line(50)
    backbone = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 4))
    model = ResidualAdapterDetector(backbone, **SMALL, adapter_rank=1, head_size=7).fit(*with_corpus(X, corpus))
    assert model.n_backbone_parameters_ == (3 * 2 + 2) + (2 * 4 + 4)
    assert model.n_adapter_parameters_ == 2 * (3 + 2) + (3 * 2 + 2) + 2 * 7
    assert ResidualAdapterDetector(backbone, adaptation="frozen", contamination=0).fit(X).n_adapter_parameters_ == 0


@pytest.mark.parametrize(("head_size", "n_outputs"), [("auto", 32), (3, 3), (None, 32)])
def test_head(head_size, n_outputs):
    X, y = bars()
    model = ResidualAdapterDetector(resnet(), **SMALL, head_size=head_size).fit(X, y)
    with torch.no_grad():
        z = model.module_.double()(torch.from_numpy(X))
    assert z.shape == (32, n_outputs)
    np.testing.assert_allclose(model.score_samples(X), -radial(z).numpy(), rtol=1e-5, atol=1e-6)
    if head_size is None:
        np.testing.assert_allclose(model.transform(X), z, rtol=1e-5, atol=1e-6)
    else:
        assert model.module_.head.bias is None
        np.testing.assert_allclose(
            model.transform(X) @ model.module_.head.weight.detach().numpy().T, z, rtol=1e-5, atol=1e-6
        )


def test_transposed_convolutions_are_named_and_refused():
    """They would silently stay without adapters. One that runs behind the features does not matter."""
    X = np.random.default_rng(0).normal(size=(20, 1, 4, 4))
    layers = {"conv": nn.Conv2d(1, 2, 3), "up": nn.ConvTranspose2d(2, 2, 3), "flat": nn.Flatten()}
    backbone = nn.Sequential(OrderedDict(layers | {"linear": nn.Linear(32, 3)}))
    with pytest.raises(ValueError, match=r"layer 'up' is a ConvTranspose2d.*adaptation='finetune'.*layer.*Upsample"):
        ResidualAdapterDetector(backbone, **SMALL).fit(X)
    for remedy in ({"adaptation": "finetune"}, {"adaptation": "frozen"}, {"layer": "conv"}):
        detector = ResidualAdapterDetector(backbone, **(SMALL | {"contamination": 0.1} | remedy)).fit(X)
        assert np.isfinite(detector.score_samples(X)).all()


def test_without_a_layer_there_are_no_adapters():
    X, _ = line(40)
    for backbone in (nn.Linear(3, 2), nn.Flatten()):
        with pytest.raises(ValueError, match=r"backbone has no layer that can have adapters.*'finetune'"):
            ResidualAdapterDetector(backbone, **SMALL).fit(X)
    assert ResidualAdapterDetector(nn.Linear(3, 2), adaptation="frozen", contamination=0).fit(X).transform(X).shape == (
        40,
        3,
    )


# --------------------------------------------------------------------------------------------------------------------
# Batches


def test_batches_are_half_of_one_and_half_of_the_other():
    """Rows as they are are above -1; the corpus lies at -100 and below, each row at a place of its own."""
    X, _ = bars(2 * 20)
    X[20:] = -100 - np.arange(20)[:, None, None, None]
    model = ResidualAdapterDetector(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), **SMALL, callbacks=[Seen()]
    ).fit(X, np.repeat([1, -1], 20))
    batches = model.callbacks_[0].batches
    assert [len(batch) for batch in batches] == [16, 16, 8] * 2
    for batch in batches:
        half = len(batch) // 2
        assert (batch[:half] > -2).all()
        assert (batch[half:] <= -100).all()
    # Without replacement: in one epoch each row of the corpus is drawn once.
    for epoch in (batches[:3], batches[3:]):
        drawn = torch.cat([batch[len(batch) // 2 :, 0, 0, 0] for batch in epoch])
        assert sorted((-drawn).tolist()) == (100.0 + np.arange(20)).tolist()


def test_a_small_corpus_is_drawn_again():
    X, _ = bars(20 + 3)
    X[20:] = -100 - np.arange(3)[:, None, None, None]
    model = ResidualAdapterDetector(resnet(), **SMALL, callbacks=[Seen()]).fit(X, np.repeat([1, -1], [20, 3]))
    batches = model.callbacks_[0].batches
    assert [len(batch) for batch in batches] == [16, 16, 8] * 2
    drawn = torch.cat([batch[len(batch) // 2 :, 0, 0, 0] for batch in batches])
    counts = torch.bincount(-drawn.long() - 100)
    assert counts.sum() == 40
    assert counts.max() - counts.min() <= 1


def test_a_corpus_given_and_made():
    X, _ = line(40)
    X, y = with_corpus(X, np.full((40, 3), 1e4))
    backbone = perceptron()

    def far(rows, n):
        return torch.full((n, 3), -1e4)

    settings = SMALL | {"callbacks": [Seen()]}
    model = ResidualAdapterDetector(backbone, **settings, outliers=["auxiliary", far]).fit(X, y)
    for batch in model.callbacks_[0].batches:
        assert (batch[:8].abs() < 10).all()
        assert batch[8:, 0].tolist() == [1e4] * 4 + [-1e4] * 4
    # Where only what is made is asked for, the given one is left out.
    made = ResidualAdapterDetector(backbone, **settings, outliers=far).fit(X, y)
    assert all((batch[8:] == -1e4).all() for batch in made.callbacks_[0].batches)


def test_without_a_corpus_a_batch_is_of_rows():
    X, _ = line(40)
    X, y = with_corpus(X, np.full((40, 3), 1e4))
    model = ResidualAdapterDetector(perceptron(), **SMALL, outliers=None, callbacks=[Seen()]).fit(X, y)
    assert [len(batch) for batch in model.callbacks_[0].batches] == [8] * 10
    assert all((batch.abs() < 10).all() for batch in model.callbacks_[0].batches)
    alone = ResidualAdapterDetector(perceptron(), **SMALL, outliers=None).fit(X[:40])
    assert np.array_equal(model.score_samples(X), alone.score_samples(X))


@pytest.mark.parametrize("outliers", ["auto", None])
def test_rows_and_corpus_are_augmented_alike(outliers):
    X, y = bars()
    calls = []

    def brighter(images):
        calls.append(len(images))
        return images + 10

    settings = SMALL | {"augmentation": brighter, "outliers": outliers}
    model = ResidualAdapterDetector(resnet(), **settings, callbacks=[Seen()]).fit(X, y)
    batches = model.callbacks_[0].batches
    assert [len(batch) for batch in batches] == calls == [8 if outliers is None else 16] * 4
    assert all((batch > 9.9).all() for batch in batches)
    # Only in training.
    assert np.array_equal(model.set_params(augmentation=None).score_samples(X), model.score_samples(X))
    assert len(calls) == 4


# --------------------------------------------------------------------------------------------------------------------
# Without a corpus


def embeddings(model, X):
    with torch.no_grad():
        return copy.deepcopy(model.module_).double()(torch.from_numpy(X)).numpy()


HARD = {"outliers": None, "max_epochs": 100, "batch_size": 50, "lr": 0.1, "contamination": 0, "random_state": 0}


@pytest.mark.parametrize("adaptation", ["adapters", "finetune", "scratch"])
def test_one_class_does_not_collapse(adaptation):
    X, outliers = line()
    model = ResidualAdapterDetector(perceptron(), **HARD, adaptation=adaptation).fit(X)
    share = embeddings(model, X).std(0)
    assert share.mean() > 0.3
    assert share.min() > 0.05
    test = np.vstack([line(seed=1)[0], outliers])
    # From random weights it is Deep SVDD, which finds less.
    least = 0.6 if adaptation == "scratch" else 0.7
    assert auroc(np.repeat([1, -1], 200), model.score_samples(test)) > least


def test_an_embedding_that_never_varies():
    """Nothing is divided by its spread of nothing."""
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        network[0].weight[0], network[0].bias[0] = 0, -1
    X, _ = line(60)
    model = ResidualAdapterDetector(network, **SMALL, outliers=None, head_size=None).fit(X)
    assert np.isfinite(model.score_samples(X)).all()
    assert model.module_.spread.min() > 0


def test_the_mean_radius_alone_collapses(monkeypatch):
    monkeypatch.setattr(adapters, "one_class_loss", lambda z: radial(z).mean())
    X, _ = line()
    model = ResidualAdapterDetector(perceptron(), **HARD).fit(X)
    assert embeddings(model, X).std(0).mean() < 0.1


def test_the_centre_is_that_of_the_first_embeddings():
    X, _ = line()
    settings = {"outliers": None, "random_state": 0, "batch_size": 300}
    model = ResidualAdapterDetector(perceptron(), **settings, **NOTHING).fit(X)
    z = embeddings(model, X)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0, ddof=1), 1, rtol=1e-4)
    with_one = ResidualAdapterDetector(perceptron(), **settings | {"outliers": "auto"}, **NOTHING).fit(X)
    assert not with_one.module_.center.any()
    assert (with_one.module_.spread == 1).all()


# --------------------------------------------------------------------------------------------------------------------
# Other adaptations


@pytest.mark.parametrize("adaptation", ["finetune", "l2sp", "scratch"])
def test_whole_networks_are_trained_as_copies(adaptation):
    backbone, (X, y) = resnet(), bars()
    before = snapshot(backbone)
    model = ResidualAdapterDetector(backbone, **SMALL, adaptation=adaptation).fit(X, y)
    assert unchanged(backbone, before)
    assert unchanged(model.backbone_, before)
    assert not list(adapters_of(model.module_))
    network = model.module_.features.network
    for name, tensor in network.named_parameters():
        # The classifier has no part in it; new weights it has nevertheless.
        if not name.startswith("head.") or adaptation == "scratch":
            assert not torch.equal(tensor, before[name]), name
    assert not torch.equal(network.stem_norm.running_mean, before["stem_norm.running_mean"])
    assert set(model.history_[:, "phase"]) == {adaptation}
    again = clone(model).fit(X, y)
    assert np.array_equal(again.score_samples(X), model.score_samples(X))


def test_l2sp_stays_closer():
    X, y = bars()
    settings = SMALL | {"max_epochs": 10, "lr": 0.02}

    def distance(adaptation, **params):
        model = ResidualAdapterDetector(resnet(), **settings | params, adaptation=adaptation).fit(X, y)
        return mean_square(model.module_.features.network, model.backbone_)

    free = distance("finetune")
    assert distance("l2sp", l2_strength=1.0) < 0.7 * free
    # As steep a penalty as the learning rate allows.
    assert distance("l2sp", l2_strength=1e3, lr=1e-3, max_grad_norm=None) < 1e-2 * free


def test_l2sp_by_hand():
    """Half of the strength times the squared distance, and of the decay times the head's squared weights."""
    X, y = bars()
    model = ResidualAdapterDetector(
        resnet(), **SMALL | NOTHING, adaptation="l2sp", l2_strength=0.5, weight_decay=0.25, head_size=2
    ).fit(X, y)
    with torch.no_grad():
        model.module_.head.weight.fill_(3)
    head = 0.25 / 2 * 9 * 2 * 32
    assert model._pull(model.module_).item() == pytest.approx(head)
    with torch.no_grad():
        model.module_.features.network.stem.weight += 0.1
    # Four filters of 3 x 3.
    assert model._pull(model.module_).item() == pytest.approx(head + 0.5 / 2 * 36 * 0.01, rel=1e-5)


def test_scratch_draws_new_weights():
    backbone, (X, y) = resnet(), bars()
    settings = SMALL | NOTHING | {"adaptation": "scratch"}
    model = ResidualAdapterDetector(backbone, **settings).fit(X, y)
    network = model.module_.features.network
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            assert not torch.equal(parameter, tensors(backbone)[name]), name
    # One batch of a momentum of 0.1 besides what a new network begins with.
    assert (network.stem_norm.running_var > 0.5).all()
    again = ResidualAdapterDetector(resnet(seed=7), **settings).fit(X, y)
    assert torch.equal(network.stem.weight, again.module_.features.network.stem.weight)
    other = ResidualAdapterDetector(backbone, **settings | {"random_state": 1}).fit(X, y)
    assert not torch.equal(network.stem.weight, other.module_.features.network.stem.weight)


def test_scratch_of_a_network_that_cannot_be_drawn():
    X, _ = line(40)
    with pytest.raises(ValueError, match=r"cannot draw new weights for the backbone \(Raw\).*callable that makes one"):
        ResidualAdapterDetector(Raw(3, 2), **SMALL, adaptation="scratch").fit(X)
    with pytest.raises(ValueError, match=r"cannot draw new weights for 0 \(Raw\)"):
        ResidualAdapterDetector(nn.Sequential(Raw(3, 2)), **SMALL, adaptation="scratch").fit(X)
    model = ResidualAdapterDetector(Raw, **SMALL, adaptation="scratch").fit(X)
    assert not hasattr(model, "pretraining_history_")
    assert not torch.equal(model.module_.features.network.weight, model.backbone_.weight)


def nearest_others(rows, training, n_neighbors):
    """Mean distance to the nearest training rows, one that is the row itself left out."""
    distance = np.sort(np.linalg.norm(rows[:, None] - training, axis=2), axis=1)
    distance = [own[own.argmin() + 1 :] if own.min() < 1e-9 else own for own in distance]
    return np.array([own[:n_neighbors].mean() for own in distance])


def test_frozen_features_by_nearest_neighbours():
    X, y = bars()
    backbone = resnet()
    model = ResidualAdapterDetector(backbone, **SMALL, adaptation="frozen").fit(X, y)
    assert list(model.history_) == []
    assert not any(parameter.requires_grad for parameter in model.module_.parameters())
    with torch.no_grad():
        rows = torch.from_numpy(X)
        expected = tap(copy.deepcopy(backbone).double().eval(), "head", rows)[1].numpy()
    features = model.transform(X)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    # Of the in-distribution rows alone.
    inside = features[y == 1]
    np.testing.assert_allclose(model.score_samples(X), -nearest_others(features, inside, 2))
    # scikit-learn agrees on rows that are new to it.
    distance = NearestNeighbors(n_neighbors=2).fit(inside).kneighbors(features[y == -1])[0].mean(1)
    np.testing.assert_allclose(model.score_samples(X[y == -1]), -distance)
    three = clone(model).set_params(n_neighbors=3).fit(X, y)
    np.testing.assert_allclose(three.score_samples(X), -nearest_others(features, inside, 3))
    centre = clone(model).set_params(score_type="center").fit(X, y)
    np.testing.assert_allclose(centre.score_samples(X), -np.linalg.norm(features - inside.mean(0), axis=1))


def test_l2sp_has_no_other_weight_decay_on_the_backbone():
    """Where the rows teach nothing, the pretrained weights stay where they are."""
    X, _ = line(40)
    network = perceptron()
    still = {"lr": 0.1, "optimizer": "sgd", "weight_decay": 10.0, "schedule": "constant", "l2_strength": 100.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapters, "hypersphere_loss", lambda h, h_corpus: 0 * (h.sum() + h_corpus.sum()))
        model = ResidualAdapterDetector(network, adaptation="l2sp", **SMALL, **still).fit(X)
    before = dict(network.named_parameters())
    for name, parameter in model.module_.features.network.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=1e-6)
    # Those of the head decay, from up to a quarter.
    assert model.module_.head.weight.abs().max() < 0.15


@pytest.mark.parametrize("score_type", ["radial", "probability"])
def test_frozen_features_have_no_radius(score_type):
    with pytest.raises(ValueError, match=f"score_type='{score_type}' needs training.*'knn' or 'center'"):
        ResidualAdapterDetector(resnet(), adaptation="frozen", score_type=score_type, contamination=0).fit(*bars())


@pytest.mark.parametrize("score_type", ["knn", "center"])
def test_adapted_features_by_distances(score_type):
    X, y = bars()
    model = ResidualAdapterDetector(resnet(), **SMALL, score_type=score_type).fit(X, y)
    features = model.transform(X)
    inside = features[y == 1]
    if score_type == "knn":
        expected = nearest_others(features, inside, 2)
    else:
        expected = np.linalg.norm(features - inside.mean(0), axis=1)
    np.testing.assert_allclose(model.score_samples(X), -expected)


@pytest.mark.parametrize("n_neighbors", [1, 2, 5])
def test_a_threshold_on_neighbours_holds_for_new_rows(n_neighbors):
    """No training row is its own neighbour."""
    rng = np.random.default_rng(0)
    settings = {"adaptation": "frozen", "n_neighbors": n_neighbors, "contamination": 0.1}
    model = ResidualAdapterDetector(perceptron(), **SMALL | settings).fit(rng.normal(size=(500, 3)))
    assert (model.predict(rng.normal(size=(500, 3))) == -1).mean() == pytest.approx(0.1, abs=0.05)


def test_rows_that_are_there_several_times_score_alone_as_together():
    X = np.repeat(50 + line(20)[0], 3, axis=0)
    model = ResidualAdapterDetector(perceptron(), **SMALL, adaptation="frozen", n_neighbors=3).fit(X)
    alone = np.concatenate([model.score_samples(row[None]) for row in X])
    assert np.array_equal(model.score_samples(X), alone)


class TokensFirst(nn.Module):
    """Tokens in the first dimension, rows in the second: a gate would take them for rows."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(1, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, rows):
        tokens = torch.relu(self.one(rows.T[:, :, None]))
        return self.head(self.two(tokens)[0])


class AlwaysDrops(nn.Linear):
    def forward(self, rows):
        return super().forward(nn.functional.dropout(rows, 0.5, training=True))


def always_drops():
    return nn.Sequential(AlwaysDrops(3, 8), nn.ReLU(), nn.Linear(8, 2))


def batch_statistics():
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), nn.Linear(8, 2))


# Adapters of zeros, or alike, hide what their gates do until they are trained.
@pytest.mark.parametrize("init", ["he", "zero"])
@pytest.mark.parametrize("build", [TokensFirst, always_drops, batch_statistics])
def test_rows_must_not_depend_on_each_other_nor_on_chance(build, init):
    with pytest.raises(ValueError, match="a result for a row that depends on the other rows, or on chance"):
        ResidualAdapterDetector(build(), adapter_init=init, **SMALL).fit(line(40)[0])


class Detached(nn.Sequential):
    def forward(self, rows):
        return self[1](self[0](rows).detach())


def test_adapters_that_could_not_learn():
    with pytest.raises(ValueError, match="backbone lets no gradient through to its layers"):
        ResidualAdapterDetector(Detached(nn.Linear(3, 8), nn.Linear(8, 2)), **SMALL).fit(line(40)[0])


def test_parametrised_layers():
    norm = nn.utils.parametrizations.weight_norm
    network = nn.Sequential(norm(nn.Linear(3, 8)), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()
    model = ResidualAdapterDetector(network, **SMALL).fit(line(40)[0])
    assert len(list(adapters_of(model.module_))) == 1


@pytest.mark.parametrize("params", [{}, {"auxiliary": None}, {"crop_size": 5}, {"crop_size": 7}], ids=str)
def test_images_reach_a_given_trunk_as_it_knows_them(params):
    X, _ = bars()
    X, y = X[..., :6], np.arange(len(X)) % 2 + 1
    settings = {"network": "wrn-10-1", "max_epochs": 1, "contamination": 0, "random_state": 0}
    rotation = RotationAuxClassifier(**settings, **params).fit(X, y)
    model = ResidualAdapterDetector(rotation, **SMALL, adaptation="frozen").fit(X)
    features = rotation._observed(("features",), X, None)["features"]
    np.testing.assert_allclose(model.transform(X), features, rtol=1e-5, atol=1e-6)
    adapted = ResidualAdapterDetector(rotation, **SMALL).fit(X)
    loaded = ResidualAdapterDetector(rotation).load_adapters(adapted.adapter_state())
    assert np.array_equal(loaded.score_samples(X), adapted.score_samples(X))


def test_of_a_classifier_without_classes_it_is_the_trunk():
    """RotationAuxClassifier with a single class: its class head gives nothing."""
    X = line(60)[0]
    rotation = RotationAuxClassifier(hidden_sizes=(8,), max_epochs=1, random_state=0, contamination=0).fit(X)
    model = ResidualAdapterDetector(rotation, **SMALL, adaptation="frozen").fit(X)
    features = rotation._observed(("features",), X, None)["features"]
    np.testing.assert_allclose(model.transform(X), features)
    assert np.ptp(model.score_samples(X)) > 0.01


@pytest.mark.parametrize("detector", [DUMDetector, NegSampleVAE])
def test_networks_that_tell_nothing_apart_are_no_backbones(detector):
    X = line(60)[0]
    with pytest.raises(ValueError, match=f"backbone={detector.__name__} has learnt no features"):
        ResidualAdapterDetector(detector(hidden_sizes=(8,), max_epochs=1).fit(X), **SMALL).fit(X)


def test_adapters_of_another_size_are_refused():
    X, y = bars()
    wants = Preprocessed(resnet(), size=8)
    state = ResidualAdapterDetector(wants, **SMALL).fit(X, y).adapter_state()
    wants.size = 16
    with pytest.raises(ValueError, match="another backbone"):
        ResidualAdapterDetector(wants, **SMALL).load_adapters(state)


def test_scratch_draws_as_the_network_does():
    """A ResNet's convolutions have an initialisation of their own."""
    X, y = bars()
    model = ResidualAdapterDetector(resnet(), adaptation="scratch", random_state=0, **NOTHING).fit(X, y)
    torch.manual_seed(0)
    fresh = ResNet((1, 8, 8), 5, width=4, n_blocks=1)
    drawn = model.module_.features.network
    assert drawn.blocks[2].conv2.weight.std().item() == pytest.approx(
        fresh.blocks[2].conv2.weight.std().item(), rel=0.2
    )


def test_pretraining_has_no_part_in_training_from_scratch():
    with pytest.raises(ValueError, match="pretrain='self' has no effect with adaptation='scratch'"):
        ResidualAdapterDetector("residual", pretrain="self", adaptation="scratch", **SMALL).fit(line(40)[0])


def test_more_neighbours_than_rows():
    X, _ = line(4)
    model = ResidualAdapterDetector(perceptron(), adaptation="frozen", n_neighbors=9, contamination=0).fit(X)
    assert np.isfinite(model.score_samples(X)).all()


# --------------------------------------------------------------------------------------------------------------------
# Backbones


@pytest.fixture(scope="module")
def estimator_backbones():
    X, corpus = line(60)
    X, corpus, y = X.astype(np.float32), corpus.astype(np.float32), np.arange(60) % 3
    small = {"hidden_sizes": (8,), "max_epochs": 2, "random_state": 0}
    # Features alone: a threshold on held-out rows would take three more fits.
    scoring = {"contamination": 0}
    net = NeuralNetClassifier(MLP, module__in_features=3, module__out_features=3, module__hidden_sizes=(8,))
    net.set_params(verbose=0, max_epochs=1, criterion=nn.CrossEntropyLoss, train_split=None).fit(X, y)
    classifier = BackboneClassifier(**small).fit(X, y)
    return {
        "classifier": classifier,
        "frozen": FrozenEstimator(classifier),
        "skorch": net,
        "reject": RejectClassDetector(**small, **scoring).fit(X, y),
        "rotation": RotationAuxClassifier(**small, **scoring).fit(X, y),
        "adapters": ResidualAdapterDetector(hidden_sizes=(8,), pretrain_epochs=1, max_epochs=1, **scoring).fit(X),
        "adapters on it": ResidualAdapterDetector(classifier, max_epochs=1, **scoring).fit(X),
    }


@pytest.mark.parametrize("name", ["classifier", "frozen", "skorch", "reject", "rotation", "adapters", "adapters on it"])
def test_estimators_as_backbones(name, estimator_backbones):
    backbone, (X, corpus) = estimator_backbones[name], line(60)
    weights = copy.deepcopy(getattr(backbone, "estimator", backbone).module_.state_dict())
    model = ResidualAdapterDetector(backbone, **SMALL).fit(*with_corpus(X, corpus))
    frozen = ResidualAdapterDetector(backbone, **SMALL, adaptation="frozen").fit(X)
    inner = getattr(backbone, "estimator", backbone)
    network = copy.deepcopy(getattr(inner, "backbone_", inner.module_)).double().eval()
    scaler = getattr(inner, "scaler_", None)
    rows = torch.from_numpy(X if scaler is None else scaler.transform(X))
    with torch.no_grad():
        expected = tap(network, find_head(network.float(), (3,)), rows.float())[1].numpy()
    np.testing.assert_allclose(frozen.transform(X), expected, rtol=1e-3, atol=1e-5)
    assert list(adapters_of(model.module_))
    assert not list(adapters_of(model.backbone_))
    for key, value in inner.module_.state_dict().items():
        assert torch.equal(value, weights[key])


def test_a_classifier_transforms_as_its_detector():
    X, y = load_digits(return_X_y=True)
    X, y = X[:200], y[:200]
    classifier = BackboneClassifier("resnet-8-2", image_shape=(1, 8, 8), max_epochs=1).fit(X, y)
    frozen = ResidualAdapterDetector(classifier, adaptation="frozen", image_shape=(1, 8, 8), contamination=0).fit(X)
    np.testing.assert_allclose(frozen.transform(X), classifier.transform(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backbone", ["mlp", "residual", interrupting])
def test_names_and_callables_are_pretrained(backbone):
    Interrupting.steps_left = 0
    model = ResidualAdapterDetector(backbone, **SMALL, hidden_sizes=(8,), pretrain_epochs=3).fit(line(40)[0])
    assert len(model.pretraining_history_) == 3
    # One class for each of the maps to be told apart.
    assert model.backbone_(torch.zeros(1, 3)).shape == (1, 16)


def test_a_callable_must_make_what_is_asked_for():
    with pytest.raises(ValueError, match=r"backbone maps \(2, 3\) to \(2, 4\); it must give \(2, 16\)"):
        ResidualAdapterDetector(lambda n_features, n_outputs: perceptron(), **SMALL).fit(line(40)[0])


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (BackboneClassifier(), "backbone=BackboneClassifier holds no trained torch module. Fit it first"),
        (LogisticRegression(), "backbone=LogisticRegression holds no trained torch module"),
        (nn.Linear(5, 2), "backbone does not take rows of 3 features"),
        ("resnet-8-2", "backbone='resnet-8-2' is none of those for vectors"),
        ("nothing", "backbone='nothing' is none of those"),
    ],
)
def test_backbones_that_are_none(backbone, message):
    with pytest.raises(ValueError, match=message):
        ResidualAdapterDetector(backbone, **SMALL).fit(line(40)[0])


def test_a_backbone_of_another_precision():
    """Trained in double or half precision, it is stood on in float32."""
    X, corpus = line(40)
    X, y = with_corpus(X, corpus)
    scores = [
        ResidualAdapterDetector(backbone, **SMALL).fit(X, y).score_samples(X)
        for backbone in (perceptron(), perceptron().double(), perceptron().to(torch.bfloat16).float())
    ]
    assert np.array_equal(scores[0], scores[1])
    half = perceptron().to(torch.bfloat16)
    model = ResidualAdapterDetector(half, **SMALL).fit(X, y)
    assert np.array_equal(model.score_samples(X), scores[2])
    assert next(half.parameters()).dtype is torch.bfloat16
    assert model.backbone_ is clone(model).fit(X, y).backbone_


def test_a_backbone_fitted_on_other_features():
    X, _ = line(60)
    classifier = BackboneClassifier(hidden_sizes=(8,), max_epochs=1).fit(X, np.arange(60) % 3)
    with pytest.raises(ValueError, match=r"backbone was fitted on 3 features.*X has 2"):
        ResidualAdapterDetector(classifier, **SMALL).fit(X[:, :2])


def test_pixels_beyond_what_the_backbone_takes():
    X, y = bars()
    backbone = Preprocessed(resnet(), mean=(0.5,), std=(0.2,))
    model = ResidualAdapterDetector(backbone, **SMALL).fit(X.clip(0, 1), y)
    message = r"X holds images with values from \S+ to 255, but the backbone takes pixels in \[0, 1\]"
    with pytest.warns(RuntimeWarning, match=message) as record:
        clone(model).fit(255 * X.clip(0, 1), y)
    assert record[0].filename == __file__
    pixels = np.round(255 * X.clip(0, 1)).astype(np.uint8)
    scaled = clone(model).fit(pixels / 255, y).score_samples(pixels / 255)
    np.testing.assert_allclose(clone(model).fit(pixels, y).score_samples(pixels), scaled, rtol=1e-5)


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)], ids=lambda end: str(end))
def test_a_softmax_behind_the_classifier_does_not_matter(end):
    X, corpus = line(60)
    X, y = with_corpus(X, corpus)
    plain, ending = (
        ResidualAdapterDetector(backbone, **SMALL).fit(X, y)
        for backbone in (nn.Sequential(perceptron()), nn.Sequential(perceptron(), end))
    )
    assert np.array_equal(plain.score_samples(X), ending.score_samples(X))


def test_a_backbone_without_a_classifier():
    X, y = bars()
    backbone = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 10, 3), nn.ReLU())
    model = ResidualAdapterDetector(backbone, **SMALL).fit(X, y)
    assert len(list(adapters_of(model.module_))) == 2
    frozen = ResidualAdapterDetector(backbone, adaptation="frozen", contamination=0).fit(X)
    with torch.no_grad():
        expected = copy.deepcopy(backbone).double()(torch.from_numpy(X)).mean((2, 3))
    np.testing.assert_allclose(frozen.transform(X), expected, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------------
# Pretraining


TASKS = {
    "vectors": (lambda: line(300)[0], {"batch_size": 50, "pretrain_epochs": 30}, 16),
    "images": (lambda: bars(100)[0], {"backbone": "resnet-8-2", "pretrain_epochs": 10, "lr": 0.01}, 4),
    "tall images": (
        lambda: bars(100, shape=(8, 5))[0],
        {"backbone": "resnet-8-2", "pretrain_epochs": 10, "lr": 0.01},
        4,
    ),
}


@pytest.mark.parametrize(("rows", "params", "n_transforms"), TASKS.values(), ids=TASKS)
def test_pretraining_on_the_rows_themselves(rows, params, n_transforms):
    X = rows()
    settings = SMALL | {"hidden_sizes": (32,)} | params
    model = ResidualAdapterDetector(**settings).fit(X)
    losses = [epoch["train_loss"] for epoch in model.pretraining_history_]
    assert len(losses) == settings["pretrain_epochs"]
    # Better than to guess.
    assert losses[-1] < 0.8 * math.log(n_transforms)
    assert set(model.history_[:, "phase"]) == {"adapters"}
    assert len(model.history_) == settings["max_epochs"]
    assert model.scaler_ is not None
    assert np.isfinite(model.score_samples(X)).all()
    copied = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copied.score_samples(X), model.score_samples(X))


def test_pretraining_moves_the_weights():
    X, y = bars()
    settings = SMALL | {"backbone": "resnet-8-2", "lr": 0.01}
    trained = ResidualAdapterDetector(**settings, pretrain_epochs=2).fit(X, y).backbone_
    untrained = ResidualAdapterDetector(**settings, pretrain=None).fit(X, y)
    assert not hasattr(untrained, "pretraining_history_")
    # One seed, hence the same initial weights.
    assert mean_square(ResidualAdapterDetector(**settings, pretrain=None).fit(X, y).backbone_, untrained.backbone_) == 0
    for name, parameter in trained.named_parameters():
        if parameter.ndim > 1:
            assert not torch.equal(parameter, tensors(untrained.backbone_)[name]), name


def test_the_corpus_takes_part_in_pretraining():
    """Not in the scaling."""
    X, corpus = line(40)
    X, y = with_corpus(X, 1e3 + corpus)
    largest = []

    class Network(MLP):
        def __init__(self, n_features, n_outputs):
            super().__init__(n_features, n_outputs, (8,))

        def forward(self, x):
            if self.training:
                largest.append(x.abs().max().item())
            return super().forward(x)

    model = ResidualAdapterDetector(Network, **SMALL, pretrain_epochs=1).fit(X, y)
    assert max(largest) > 100
    np.testing.assert_allclose(model.scaler_.mean_, X[:40].mean(0))


def test_pretraining_on_labels():
    rng = np.random.default_rng(0)
    names = np.array(["a", "b", "c"])[np.arange(90) % 3]
    X = rng.normal(size=(90, 3)) + 4 * np.eye(3)[np.arange(90) % 3]
    corpus = rng.uniform(-8, 8, size=(90, 3))
    rows, y = np.vstack([X, corpus]), np.concatenate([names, np.full(90, "other")])
    settings = SMALL | {"hidden_sizes": (16,), "pretrain": "labels", "pretrain_epochs": 20, "outlier_label": "other"}
    model = ResidualAdapterDetector(**settings).fit(rows, y)
    with torch.no_grad():
        logits = model.backbone_(torch.from_numpy(model.scaler_.transform(X)).float())
    assert logits.shape == (90, 3)
    assert (np.array(["a", "b", "c"])[logits.argmax(1)] == names).mean() > 0.95
    # The adaptation knows no classes: a row of any is one of all.
    assert set(model.predict(rows)) == {-1, 1}


@pytest.mark.parametrize("y", [None, np.ones(40), np.r_[np.ones(20), -np.ones(20)]], ids=["none", "one", "corpus"])
def test_labels_need_classes(y):
    with pytest.raises(ValueError, match="pretrain='labels' needs two classes or more"):
        ResidualAdapterDetector(**SMALL, pretrain="labels").fit(line(40)[0], y)


@pytest.mark.parametrize("pretrain", ["self", "labels"])
def test_a_trained_backbone_is_not_trained_again(pretrain):
    X, y = line(40)[0], np.array(["a", "b"])[np.arange(40) % 2] if pretrain == "labels" else None
    message = f"pretrain='{pretrain}' would train backbone=ResidualMLP, which is trained already"
    with pytest.raises(ValueError, match=message):
        ResidualAdapterDetector(perceptron(), **SMALL, pretrain=pretrain).fit(X, y)
    for leave in (None, "auto"):
        model = ResidualAdapterDetector(perceptron(), **SMALL, pretrain=leave).fit(X)
        assert not hasattr(model, "pretraining_history_")


def test_interrupted_in_the_pretraining_it_scores_by_neighbours():
    X, _ = line(40)
    model = ResidualAdapterDetector(interrupting, random_state=0, batch_size=40, pretrain_epochs=50, max_epochs=3)
    Interrupting.steps_left = 4
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match=r"interrupted.*is fitted with what"):
        model.fit(X)
    assert len(model.pretraining_history_) == 3
    assert list(model.history_) == []
    assert model.score_type_ == "knn"
    features = model.transform(X)
    distance = nearest_others(features, features, 2)
    np.testing.assert_allclose(model.score_samples(X), -distance)
    assert set(model.predict(X)) <= {-1, 1}
    assert np.array_equal(pickle.loads(pickle.dumps(model)).score_samples(X), model.score_samples(X))
    # Once more, to the end.
    Interrupting.steps_left = 0
    assert model.fit(X).score_type_ == "radial"
    assert len(model.history_) == 3


def test_interrupted_before_anything_was_learnt():
    model = ResidualAdapterDetector(interrupting, random_state=0, batch_size=40, pretrain_epochs=50)
    Interrupting.steps_left = 1
    with pytest.raises(KeyboardInterrupt):
        model.fit(line(40)[0])
    assert not hasattr(model, "offset_")


def test_interrupted_in_the_adaptation():
    X, y = bars()

    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                signal.raise_signal(signal.SIGINT)

    model = ResidualAdapterDetector(resnet(), **SMALL | {"max_epochs": 50}, callbacks=[Stop()])
    message = "after 2 epochs, in the phase 'adapters'"
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match=message):
        model.fit(X, y)
    assert model.score_type_ == "radial"
    assert np.isfinite(model.score_samples(X)).all()


# --------------------------------------------------------------------------------------------------------------------
# Sharing


def test_ten_detectors_hold_one_backbone():
    backbone, (X, y) = resnet(), bars()
    settings = SMALL | {"batch_norm": "frozen"}
    models = [ResidualAdapterDetector(backbone, **settings | {"random_state": n}).fit(X, y) for n in range(10)]
    assert len({id(model.backbone_) for model in models}) == 1
    for model in models:
        # All of it but the classifier; and nothing else.
        assert len(shared(model)) == len(tensors(model.backbone_)) - 2
        own = {id(tensor) for tensor in tensors(model.module_).values()}
        others = {id(t) for other in models if other is not model for t in tensors(other.module_).values()}
        assert len(own & others) == len(shared(model))
    scores = np.array([model.score_samples(X) for model in models])
    assert len(np.unique(scores[:, 0])) == 10
    # Fitted one after the other, they are what they are alone.
    assert np.array_equal(ResidualAdapterDetector(resnet(), **settings).fit(X, y).score_samples(X), scores[0])


def test_detectors_on_one_classifier_share_it():
    X, _ = line(60)
    classifier = BackboneClassifier(hidden_sizes=(8,), max_epochs=1).fit(X, np.arange(60) % 3)
    first, second = (ResidualAdapterDetector(classifier, **SMALL, n_adapters=n).fit(X) for n in (1, 2))
    third = ResidualAdapterDetector(FrozenEstimator(classifier), **SMALL, adaptation="frozen").fit(X)
    assert first.backbone_ is second.backbone_ is third.backbone_


def test_a_clone_stands_on_the_same_backbone():
    X, _ = line(60)
    classifier = BackboneClassifier(hidden_sizes=(8,), max_epochs=1).fit(X, np.arange(60) % 3)
    for backbone in (resnet(), classifier, MLP, "residual"):
        detector = ResidualAdapterDetector(backbone, hidden_sizes=[8], random_state=np.random.RandomState(0))
        cloned = clone(detector)
        assert cloned.backbone is backbone
        assert cloned.hidden_sizes == [8]
        assert cloned.random_state is not detector.random_state
        assert cloned.get_params(deep=False).keys() == detector.get_params(deep=False).keys()
    assert not hasattr(clone(ResidualAdapterDetector(classifier, **SMALL).fit(X)), "offset_")
    inner = clone(make_pipeline(ResidualAdapterDetector(classifier)))[0]
    assert inner.backbone is classifier


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_search(n_jobs):
    X, corpus = line(60)
    X, y = with_corpus(X, corpus)
    backbone = perceptron()
    search = GridSearchCV(
        ResidualAdapterDetector(backbone, **SMALL),
        {"n_adapters": np.array([1, 2])},
        scoring="roc_auc",
        cv=ShuffleSplit(1, random_state=0),
        n_jobs=n_jobs,
        error_score="raise",
    )
    with parallel_config("threading"):
        search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    assert best.backbone is backbone
    assert len(best.adapter_state()) > 1


def test_training_the_given_module_further_does_not_change_the_fitted():
    backbone, (X, y) = resnet(), bars()
    model = ResidualAdapterDetector(backbone, **SMALL).fit(X, y)
    scores = model.score_samples(X)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, fused=True)
    backbone(torch.from_numpy(X).float()).square().sum().backward()
    optimizer.step()
    assert np.array_equal(model.score_samples(X), scores)
    # A new fit sees the new weights.
    again = clone(model).fit(X, y)
    assert torch.equal(again.backbone_.stem.weight, backbone.stem.weight)
    assert not np.array_equal(again.score_samples(X), scores)
    assert torch.equal(model.backbone_.stem.weight, resnet().stem.weight)


def test_refitting_a_classifier_does_not_change_the_fitted():
    X, _ = line(60)
    classifier = BackboneClassifier(hidden_sizes=(8,), max_epochs=1).fit(X, np.arange(60) % 3)
    model = ResidualAdapterDetector(classifier, **SMALL).fit(X)
    scores = model.score_samples(X)
    classifier.fit(100 * X, np.arange(60) % 2)
    assert np.array_equal(model.score_samples(X), scores)


# --------------------------------------------------------------------------------------------------------------------
# Pickles, files


def shared(model):
    """Names of the network's tensors that are the backbone's own."""
    held = {id(tensor) for tensor in tensors(model.backbone_).values()}
    return {name for name, tensor in tensors(model.module_).items() if id(tensor) in held}


def test_copies_hold_the_backbone_once(fitted):
    X, _ = bars()
    n_bytes = sum(t.numel() * t.element_size() for t in tensors(fitted.backbone_).values())
    lean = copy.copy(fitted).set_params(backbone="auto")
    lean.__dict__.pop("callbacks_", None)
    # The given backbone, which is the parameter's and in a pickle with both stands once; and rows, not weights.
    for name in ("_built_by", "_reference"):
        lean.__dict__.pop(name, None)
    for copied in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert np.array_equal(copied.score_samples(X), fitted.score_samples(X))
        assert shared(copied) == shared(fitted)
        assert copied.adapter_state().keys() == fitted.adapter_state().keys()
    own = sum(value.nbytes for value in fitted.adapter_state().values())
    assert len(pickle.dumps(lean)) < n_bytes + own + 60_000


def test_detectors_with_given_backbones_do_not_pickle_them_thrice():
    X, _ = line(60)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = ResidualMLP(3, 4, (200, 200))
    model = ResidualAdapterDetector(backbone, **SMALL, adaptation="frozen").fit(X)
    n_bytes = sum(parameter.numel() * 4 for parameter in backbone.parameters())
    # The given one, and that which is stood on.
    assert len(pickle.dumps(model)) < 2.2 * n_bytes


@pytest.mark.parametrize("batch_norm", ["frozen", "affine", "own"])
@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({}, "adapters"),
        ({"outliers": None}, "adapters.safetensors"),
        ({"score_type": "probability", "head_size": 3}, "adapters.npz"),
    ],
    ids=str,
)
def test_adapters_to_a_file_and_back(batch_norm, params, name, tmp_path):
    backbone, (X, y) = resnet(), bars()
    settings = SMALL | {"batch_norm": batch_norm} | params
    model = ResidualAdapterDetector(backbone, **settings).fit(X, y)
    model.save_adapters(tmp_path / name)
    for other in (backbone, copy.deepcopy(backbone), model, clone(model).fit(X[:20], y[:20])):
        loaded = ResidualAdapterDetector(other, **settings).load_adapters(tmp_path / name)
        assert np.array_equal(loaded.score_samples(X), model.score_samples(X))
        assert np.array_equal(loaded.predict(X), model.predict(X))
        assert np.array_equal(loaded.transform(X), model.transform(X))
        assert loaded.offset_ == model.offset_
        assert np.array_equal(loaded.training_scores_, model.training_scores_)
        assert loaded.score_type_ == model.score_type_
        assert loaded.n_adapter_parameters_ == model.n_adapter_parameters_
    assert not loaded.module_.training
    assert shared(loaded) == shared(model)
    assert model.adapter_state().keys() == loaded.adapter_state().keys()


def test_a_file_is_small_and_without_pickles(tmp_path):
    X, y = bars()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = ResNet((1, 8, 8), 5, width=16, n_blocks=2)
    model = ResidualAdapterDetector(backbone, **SMALL, n_adapters=1, head_size=8).fit(X, y)
    path = tmp_path / "adapters.npz"
    model.save_adapters(str(path))
    torch.save(backbone.state_dict(), tmp_path / "backbone.pt")
    assert path.stat().st_size < 0.2 * (tmp_path / "backbone.pt").stat().st_size
    with np.load(path, allow_pickle=False) as stored:
        assert {"about", "offset", "training_scores"} < set(stored.files)
        assert not any(stored[name].dtype.hasobject for name in stored.files)


def test_a_state_is_as_good_as_a_file(fitted):
    X, _ = bars()
    state = fitted.adapter_state()
    assert not any(name.endswith(".layer.weight") or "network.head" in name for name in state)
    loaded = ResidualAdapterDetector(fitted.backbone, contamination=0).load_adapters(state)
    assert loaded.backbone_ is fitted.backbone_
    assert np.array_equal(loaded.score_samples(X), fitted.score_samples(X))


def test_a_state_is_a_copy(fitted):
    model = copy.deepcopy(fitted)
    before = model.score_samples(bars()[0])
    for value in model.adapter_state().values():
        if np.ndim(value):
            value[:] = 7
    assert np.array_equal(model.score_samples(bars()[0]), before)
    assert np.array_equal(model.training_scores_, fitted.training_scores_)
    state = model.adapter_state()
    loaded = ResidualAdapterDetector(fitted.backbone).load_adapters(state)
    for value in state.values():
        if np.ndim(value):
            value[:] = 7
    assert np.array_equal(loaded.score_samples(bars()[0]), before)
    assert np.array_equal(loaded.training_scores_, fitted.training_scores_)


def test_names_of_features_are_kept(tmp_path):
    X, _ = line(60)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    classifier = BackboneClassifier(hidden_sizes=(8,), max_epochs=1).fit(X, np.arange(60) % 3)
    model = ResidualAdapterDetector(classifier, **SMALL).fit(frame)
    model.save_adapters(tmp_path / "a.npz")
    loaded = ResidualAdapterDetector(classifier, **SMALL).load_adapters(tmp_path / "a.npz")
    assert np.array_equal(loaded.score_samples(frame), model.score_samples(frame))
    assert loaded.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        loaded.score_samples(frame[["b", "a", "c"]])


def test_adapters_of_uint8_images_and_of_flattened_ones():
    X, y = bars()
    pixels = (200 * X.clip(0, 1)).astype(np.uint8)
    model = ResidualAdapterDetector(resnet(), **SMALL, image_shape=(1, 8, -1)).fit(pixels.reshape(32, -1), y)
    loaded = ResidualAdapterDetector(resnet(), contamination=0).load_adapters(model.adapter_state())
    assert loaded.image_shape_ == (1, 8, 8)
    assert np.array_equal(loaded.score_samples(pixels), model.score_samples(pixels.reshape(32, -1)))
    with pytest.raises(ValueError, match="was fitted on uint8 images"):
        loaded.score_samples(pixels / 255)


def test_adapters_of_images_that_were_padded():
    X, y = bars(shape=(8, 5))
    model = ResidualAdapterDetector("resnet-8-2", **SMALL, pretrain_epochs=1, lr=0.01).fit(X, y)
    loaded = ResidualAdapterDetector(model, contamination=0).load_adapters(model.adapter_state())
    assert np.array_equal(loaded.score_samples(X), model.score_samples(X))
    # A detector that stands on another's backbone pads as that one did.
    standing = ResidualAdapterDetector(model, adaptation="frozen", contamination=0).fit(X)
    itself = ResidualAdapterDetector("resnet-8-2", **SMALL, pretrain_epochs=1, adaptation="frozen").fit(X, y)
    assert torch.equal(standing.backbone_.stem.weight, itself.backbone_.stem.weight)
    np.testing.assert_allclose(standing.transform(X), itself.transform(X), rtol=1e-5, atol=1e-6)


def test_a_loaded_detector_is_like_a_fitted_one(fitted):
    X, y = bars()
    loaded = clone(fitted).load_adapters(fitted.adapter_state())
    assert np.array_equal(pickle.loads(pickle.dumps(loaded)).score_samples(X), fitted.score_samples(X))
    assert not hasattr(clone(loaded), "offset_")
    assert loaded.set_threshold(contamination=0.25).offset_ == fitted.set_threshold(contamination=0.25).offset_
    fitted.set_threshold(offset=-math.log(2))
    assert loaded.get_feature_names_out().tolist() == fitted.get_feature_names_out().tolist()
    assert list(loaded.history_) == []
    assert np.array_equal(loaded.fit(X, y).score_samples(X), fitted.score_samples(X))
    assert len(loaded.history_) == 25


def test_loading_modifies_no_constructor_argument(fitted):
    generator, callbacks = np.random.RandomState(0), [Seen()]
    detector = ResidualAdapterDetector(fitted.backbone, random_state=generator, callbacks=callbacks, contamination=0)
    detector.load_adapters(fitted.adapter_state())
    assert detector.random_state is generator
    assert detector.callbacks is callbacks


def test_what_fails_to_load_stays_as_it_was(fitted):
    X, _ = bars()
    model = copy.deepcopy(fitted)
    state = model.adapter_state()
    state["module.head.weight"] = state["module.head.weight"][:-1]
    with pytest.raises(ValueError, match="the adapters do not fit this backbone, in names, shapes"):
        model.load_adapters(state)
    assert np.array_equal(model.score_samples(X), fitted.score_samples(X))


@pytest.mark.parametrize(("outliers", "batch_norm"), [("auto", "own"), (None, "frozen")])
def test_normalisation_is_its_own_with_a_corpus(outliers, batch_norm):
    X, y = bars()
    settings = SMALL | {"outliers": outliers}
    scores = ResidualAdapterDetector(resnet(), **settings).fit(X, y).score_samples(X)
    expected = ResidualAdapterDetector(resnet(), **settings, batch_norm=batch_norm).fit(X, y)
    assert np.array_equal(scores, expected.score_samples(X))


def test_loading_leaves_the_generators_alone(fitted):
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    ResidualAdapterDetector(fitted.backbone, contamination=0).load_adapters(fitted.adapter_state())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize(
    ("backbone", "params", "message"),
    [
        (lambda: resnet(seed=1), {}, "the adapters belong to another backbone: its weights differ"),
        (lambda: ResNet((1, 8, 8), 5, width=2, n_blocks=1), {}, "another backbone"),
        (lambda: "resnet-8-4", {}, "backbone='resnet-8-4' is not trained yet: pass the trained one"),
        (resnet, {"n_adapters": 4}, "trained with n_adapters=2, but here it is 4"),
        (resnet, {"batch_norm": "affine"}, "trained with batch_norm='own', but here it is 'affine'"),
        (resnet, {"layer": "norm"}, "trained with layer=None, but here it is 'norm'"),
        (resnet, {"head_size": 4}, "trained with head_size='auto', but here it is 4"),
        (resnet, {"adaptation": "finetune"}, "trained with adaptation='adapters', but here it is 'finetune'"),
        (resnet, {"n_adapters": 0}, "n_adapters"),
    ],
    ids=["weights", "size", "untrained", "n_adapters", "batch_norm", "layer", "head", "adaptation", "invalid"],
)
def test_adapters_that_do_not_fit(backbone, params, message, fitted):
    state = fitted.adapter_state()
    detector = ResidualAdapterDetector(backbone(), **params)
    with pytest.raises(ValueError, match=message):
        detector.load_adapters(state)
    assert not hasattr(detector, "offset_")


@pytest.mark.parametrize("gain", [np.float32(2.6), np.float64(2.6), np.int64(2)], ids=repr)
def test_a_gain_of_any_type_is_loaded_as_it_was(gain, tmp_path):
    X, _ = line(40)
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    model = ResidualAdapterDetector(network, **SMALL, adapter_gain=gain, n_adapters=np.int64(2)).fit(X)
    model.save_adapters(tmp_path / "a.npz")
    for same in ("auto", gain):
        loaded = ResidualAdapterDetector(network, adapter_gain=same).load_adapters(tmp_path / "a.npz")
        assert np.array_equal(loaded.score_samples(X), model.score_samples(X))


def test_adapters_are_saved_and_loaded_where_scikit_learn_makes_frames():
    X, _ = line(60)
    classifier = BackboneClassifier(hidden_sizes=(8,), max_epochs=1).fit(X, np.arange(60) % 3)
    model = ResidualAdapterDetector(classifier, **SMALL).fit(X)
    with config_context(transform_output="pandas"):
        state = model.adapter_state()
        loaded = ResidualAdapterDetector(classifier).load_adapters(state)
    assert state["about"] == model.adapter_state()["about"]
    assert np.array_equal(loaded.score_samples(X), model.score_samples(X))


def test_adapters_of_rows_that_were_scaled():
    """The bare network has no scaling: its scores would be others, without a word."""
    X, _ = line(60)
    classifier = BackboneClassifier(hidden_sizes=(8,), max_epochs=1).fit(5 + 3 * X, np.arange(60) % 3)
    model = ResidualAdapterDetector(classifier, **SMALL).fit(5 + 3 * X)
    with pytest.raises(ValueError, match="another scaling of rows"):
        ResidualAdapterDetector(classifier.module_, contamination=0).load_adapters(model.adapter_state())


def test_a_file_of_something_else(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("adapters")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:60])
    (tmp_path / "empty.npz").touch()
    save_file({"a": np.ones(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("adapters, as text")
    (tmp_path / "empty.safetensors").touch()
    told = r"not (what save_adapters or adapter_state gave|a \.npz file|a file of safetensors)"
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=rf"{path.name}: {told}"):
            ResidualAdapterDetector(resnet(), contamination=0).load_adapters(path)
    for name in ("none.npz", "none.safetensors"):
        with pytest.raises(FileNotFoundError):
            ResidualAdapterDetector(resnet(), contamination=0).load_adapters(tmp_path / name)


def test_a_missing_package_is_named(monkeypatch, tmp_path, fitted):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for asked in (fitted.save_adapters, ResidualAdapterDetector(resnet()).load_adapters):
        with pytest.raises(ImportError, match=r"pip install 'skood\[files\]'"):
            asked(tmp_path / "adapters.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"adaptation": "finetune"}, "adaptation='finetune' has no adapters to save: pickle the detector instead"),
        ({"adaptation": "frozen"}, "adaptation='frozen' has no adapters"),
        ({"score_type": "knn"}, "score_type='knn' needs the features of the training rows"),
        ({"score_type": "center"}, "score_type='center' needs the features of the training rows"),
    ],
)
def test_what_has_no_adapters_to_save(params, message, tmp_path):
    model = ResidualAdapterDetector(resnet(), **SMALL, **params).fit(*bars())
    with pytest.raises(ValueError, match=message):
        model.save_adapters(tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


# --------------------------------------------------------------------------------------------------------------------
# Features


def test_features_out(fitted):
    X, _ = bars()
    features = fitted.transform(X)
    assert features.shape == (32, 32)
    assert features.dtype == np.float64
    names = fitted.get_feature_names_out()
    assert (len(names), names[0]) == (32, "residualadapterdetector0")
    assert np.array_equal(fitted.transform(X[:1]), features[:1])


def test_features_for_another_detector():
    X, outliers = line()
    detector = ResidualAdapterDetector(perceptron(), **SMALL)
    model = make_pipeline(detector, IsolationForest(random_state=0)).fit(X)
    test = np.vstack([line(seed=1)[0], outliers])
    assert auroc(np.repeat([1, -1], 200), model.decision_function(test)) > 0.6
    np.testing.assert_array_equal(clone(detector).fit_transform(X), model[0].transform(X))


def test_features_as_a_frame():
    X, _ = line(60)
    frame = pd.DataFrame(X, columns=["a", "b", "c"], index=np.arange(60) + 5)
    detector = ResidualAdapterDetector(perceptron(), **SMALL).set_output(transform="pandas")
    features = detector.fit(frame).transform(frame)
    assert isinstance(features, pd.DataFrame)
    assert features.columns.tolist() == detector.get_feature_names_out().tolist()
    assert features.index.equals(frame.index)
    # A clone gives what the original does.
    assert isinstance(clone(detector).fit(frame).transform(frame), pd.DataFrame)
    pipeline = clone(make_pipeline(detector, IsolationForest()).set_output(transform="pandas"))
    assert isinstance(pipeline[:1].fit(frame).transform(frame), pd.DataFrame)


# --------------------------------------------------------------------------------------------------------------------
# Scores, thresholds, settings


def test_the_natural_threshold_is_half_the_probability(fitted):
    X, _ = bars(n=60, seed=1)
    natural = {"max_epochs": 25, "contamination": "natural"}
    probability = ResidualAdapterDetector(resnet(), **SMALL | natural, score_type="probability").fit(*bars())
    assert fitted.offset_ == pytest.approx(-math.log(2))
    assert probability.offset_ == 0.0
    np.testing.assert_allclose(expit(probability.score_samples(X)), np.exp(fitted.score_samples(X)))
    assert np.array_equal(probability.predict(X), fitted.predict(X))
    assert np.array_equal(fitted.predict(X) == 1, np.exp(fitted.score_samples(X)) >= 0.5)
    assert np.array_equal(np.argsort(probability.score_samples(X)), np.argsort(fitted.score_samples(X)))
    assert set(fitted.predict(X)) == {-1, 1}


def test_the_probability_is_in_log_odds_at_every_radius():
    """From the origin, where exp(-h) is 1, to where it has vanished."""
    rows, _ = line(40)
    model = ResidualAdapterDetector(perceptron(), **SMALL, score_type="probability").fit(rows)
    weight = model.module_.double().head.weight
    before = weight.detach().clone()
    for factor in (0.0, 1e-140, 1e-12, 1e-6, 1.0, 1e3, 1e9):
        with torch.no_grad():
            weight.copy_(factor * before)
            radius = radial(model.module_(torch.from_numpy(rows))).tolist()
        # The radius 0 counts as the smallest float.
        expected = [-math.log(math.expm1(h or 2.0**-1022)) if h < 700 else -h for h in radius]
        np.testing.assert_allclose(model.score_samples(rows), expected, rtol=1e-5, atol=1e-6)


def test_contamination_is_of_the_in_distribution_rows():
    X, y = bars(80)
    model = ResidualAdapterDetector(resnet(), **SMALL | {"contamination": 0.1})
    with pytest.warns(UserWarning, match="40 training rows, fewer than their 64 features"):
        model.fit(X, y)
    assert (model.predict(X[y == 1]) == -1).sum() == 4
    assert len(model.training_scores_) == 40


@pytest.mark.parametrize(
    "params",
    [{}, {"outliers": None}, {"adaptation": "frozen"}, {"adaptation": "frozen", "score_type": "center"}],
    ids=["adapters", "one class", "knn", "center"],
)
@pytest.mark.parametrize("images", [False, True])
def test_new_inliers_are_not_mostly_accused(params, images):
    if images:
        X, new = (bars(160, seed=seed)[0][:80] for seed in (0, 1))
        backbone, corpus = resnet(), bars(160)[0][80:]
    else:
        (X, corpus), new, backbone = line(), line(seed=1)[0], perceptron()
    y = np.repeat([1, -1], [len(X), len(corpus)])
    model = ResidualAdapterDetector(backbone, **SMALL | {"max_epochs": 25, "batch_size": 40}, **params)
    for fitted in (model.fit(X), clone(model).fit(np.concatenate([X, corpus]), y)):
        assert (fitted.predict(new) == -1).mean() < 0.3


def test_set_params_after_fit_does_not_change_scores(fitted):
    X, _ = bars()
    model = copy.deepcopy(fitted)
    before = model.score_samples(X)
    model.set_params(backbone="auto", score_type="knn", n_adapters=7, batch_norm="own", adaptation="frozen", layer="no")
    model.set_params(outliers=None, head_size=3, scaling=None, augmentation="crop-flip", image_shape=(1, 4, 16))
    assert np.array_equal(model.score_samples(X), before)
    assert np.array_equal(model.predict(X), fitted.predict(X))
    assert model.transform(X).shape == (32, 32)
    assert model.adapter_state().keys() == fitted.adapter_state().keys()
    loaded = ResidualAdapterDetector(fitted.backbone).load_adapters(model.adapter_state())
    assert np.array_equal(loaded.score_samples(X), before)


def test_a_score_does_not_outlive_a_refit():
    X, y = bars()
    model = ResidualAdapterDetector(resnet(), **SMALL, score_type="knn").fit(X, y)
    model.set_params(score_type="radial").fit(X, y)
    fresh = ResidualAdapterDetector(resnet(), **SMALL, score_type="radial").fit(X, y)
    assert np.array_equal(model.score_samples(X), fresh.score_samples(X))
    other = ResidualAdapterDetector("resnet-8-2", **SMALL, lr=0.01, pretrain_epochs=1).fit(X, y)
    other.set_params(backbone=resnet(), lr="auto", pretrain_epochs="auto").fit(X, y)
    assert not hasattr(other, "pretraining_history_")
    assert np.array_equal(other.score_samples(X), fresh.score_samples(X))


@pytest.mark.parametrize("adaptation", ["adapters", "finetune", "l2sp", "scratch", "frozen"])
def test_refitting_repeats(adaptation):
    X, corpus = line(60)
    X, y = with_corpus(X, corpus)
    detector = ResidualAdapterDetector(perceptron(), **SMALL, adaptation=adaptation)
    scores = detector.fit(X, y).score_samples(X)
    assert np.array_equal(detector.fit(X, y).score_samples(X), scores)
    assert np.array_equal(pickle.loads(pickle.dumps(detector)).score_samples(X), scores)
    assert np.array_equal(pickle.loads(pickle.dumps(clone(detector))).fit(X, y).score_samples(X), scores)


def test_settings_of_the_paper():
    paper = {"n_adapters": 2, "adapter_init": "he", "adapter_gain": 1.0, "max_epochs": 120, "batch_size": 64, "lr": 0.1}
    paper |= {"optimizer": "sgd", "weight_decay": 1e-4, "schedule": paper_schedule, "max_grad_norm": None}
    paper |= {"augmentation": "crop-flip"}
    assert ResidualAdapterDetector.from_paper().get_params() == ResidualAdapterDetector().get_params() | paper
    backbone, (X, y) = resnet(), bars()
    small = ResidualAdapterDetector.from_paper(backbone, max_epochs=2, batch_size=16, n_adapters=4, random_state=0)
    assert (small.backbone, small.n_adapters) == (backbone, 4)
    assert np.isfinite(small.fit(X, y).score_samples(X)).all()
    assert np.array_equal(pickle.loads(pickle.dumps(small)).score_samples(X), small.score_samples(X))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": 3}, "'backbone' parameter"),
        ({"pretrain": "rotation"}, "'pretrain' parameter"),
        ({"pretrain_epochs": 0}, "'pretrain_epochs' parameter"),
        ({"adaptation": "none"}, "'adaptation' parameter"),
        ({"n_adapters": 0}, "'n_adapters' parameter"),
        ({"adapter_init": "ones"}, "'adapter_init' parameter"),
        ({"adapter_rank": 0}, "'adapter_rank' parameter"),
        ({"adapter_gain": 0.0}, "'adapter_gain' parameter"),
        ({"batch_norm": True}, "'batch_norm' parameter"),
        ({"layer": 3}, "'layer' parameter"),
        ({"layer": "blocks.9"}, "layer='blocks.9' is no layer of the backbone"),
        ({"head_size": 0}, "'head_size' parameter"),
        ({"l2_strength": -1}, "'l2_strength' parameter"),
        ({"outliers": "nothing"}, "outliers='nothing' is unknown"),
        ({"outliers": "auxiliary"}, "outliers='auxiliary'"),
        ({"outliers": "patches"}, "outliers='patches' is for images"),
        ({"score_type": "energy"}, "'score_type' parameter"),
        ({"n_neighbors": 0}, "'n_neighbors' parameter"),
        ({"scaling": "robust"}, "'scaling' parameter"),
        ({"augmentation": "crop-flip"}, "augmentation is for images; X holds vectors"),
        ({"hidden_sizes": ()}, "hidden_sizes"),
        ({"dropout": 1}, "'dropout' parameter"),
        ({"max_epochs": 0}, "'max_epochs' parameter"),
        ({"lr": 0}, "'lr' parameter"),
        ({"weight_decay": -1}, "'weight_decay' parameter"),
        ({"max_grad_norm": 0}, "'max_grad_norm' parameter"),
        ({"schedule": "paper"}, "'schedule' parameter"),
        ({"contamination": 0.7}, "'contamination' parameter"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        ResidualAdapterDetector(**SMALL | {"backbone": perceptron()} | params).fit(line(20)[0])


def test_a_failed_fit_keeps_nothing():
    detector = ResidualAdapterDetector(perceptron(), **SMALL).fit(line(20)[0])
    with pytest.raises(ValueError, match="layer='no'"):
        detector.set_params(layer="no").fit(line(20)[0])
    assert not [name for name in vars(detector) if name.endswith("_") and name in ("offset_", "net_", "backbone_")]


# --------------------------------------------------------------------------------------------------------------------
# Quality


@pytest.fixture(scope="module")
def digits():
    """Images of the digits from 5 to 9, and which of them are for training."""
    X, digit = load_digits(return_X_y=True)
    known = digit >= 5
    X, digit = X[known].reshape(-1, 1, 8, 8), digit[known]
    return X, digit, np.arange(len(X)) % 2 == 0


@pytest.mark.parametrize("nominal", [7, 8])
def test_adapters_beat_the_features_they_start_from(nominal, classifier, digits):
    """One digit against others, on a network that never saw any of them."""
    X, digit, train = digits
    y = np.where(digit == nominal, 1, -1)
    settings = {"max_epochs": 20, "random_state": 0}
    adapted = ResidualAdapterDetector(classifier, **settings).fit(X[train], y[train])
    frozen = ResidualAdapterDetector(classifier, adaptation="frozen").fit(X[train], y[train])
    reached = auroc(y[~train], adapted.score_samples(X[~train]))
    assert reached > 0.97
    assert reached > auroc(y[~train], frozen.score_samples(X[~train])) + 0.03
    assert (adapted.predict(X[~train]) == y[~train]).mean() > 0.9
    # And hold a part of the weights.
    assert adapted.n_adapter_parameters_ < 0.6 * adapted.n_backbone_parameters_


def test_more_training_lowers_the_loss(classifier, digits):
    X, digit, train = digits
    y = np.where(digit == 7, 1, -1)
    model = ResidualAdapterDetector(classifier, max_epochs=15, random_state=0, contamination=0).fit(X[train], y[train])
    losses = model.history_[:, "train_loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_letters_as_a_corpus_for_a_digit(data_home):
    """Outliers of kinds that were never seen: a backbone of clothes, a corpus of letters, other digits to be told."""

    def images(name, n):
        with np.load(data_home / "images" / f"{name}.npz") as file:
            return file["X"][:n, None, 2:26:2, 2:26:2], file["y"][:n]

    backbone = BackboneClassifier("resnet-8-8", max_epochs=4, random_state=0).fit(*images("fashion_mnist_train", 1500))
    X, digit = images("mnist_train", 2000)
    letters, _ = images("emnist_letters_train", 1000)
    X = X[digit == 0]
    test, digit = images("mnist_test", 600)
    truth = np.where(digit == 0, 1, -1)
    frozen = ResidualAdapterDetector(backbone, adaptation="frozen", contamination=0).fit(X)
    model = ResidualAdapterDetector(backbone, max_epochs=15, random_state=0, contamination=0).fit(
        *with_corpus(X, letters)
    )
    reached = auroc(truth, model.score_samples(test))
    assert reached > 0.95
    assert reached > auroc(truth, frozen.score_samples(test))
