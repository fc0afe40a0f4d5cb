"""Networks of users that cannot give a row a result of its own, or cannot be trained, are refused by name."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skood import (
    BackboneClassifier,
    DUMDetector,
    FrozenEncoder,
    NegSampleVAE,
    OODScorer,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    SimCLREncoder,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
CLASSES = np.arange(60) % 3
TOGETHER = "a result for a row that depends on the other rows, or on chance"
SHORT = {"max_epochs": 1, "contamination": 0}


class Mixed(nn.Module):
    """Flatten images, and mix rows, or draw numbers, in evaluation mode, too."""

    def __init__(self, how):
        super().__init__()
        self.how, self.norm = how, nn.BatchNorm1d(192, track_running_stats=False)

    def forward(self, rows):
        rows = rows.flatten(1)
        if self.how == "mean":
            return rows - rows.mean(0)
        return self.norm(rows) if self.how == "batch" else functional.dropout(rows, 0.5)


def network(how):
    """Return a function of the number of outputs that makes a network; a linear layer is its last."""
    return lambda size, n_outputs: nn.Sequential(Mixed(how), nn.Linear(192, n_outputs))


# What takes a network of the user's, by what fits it.
TAKING = {
    "OODScorer": lambda build: OODScorer(build(192, 3).eval()).fit(IMAGES),
    "RejectClassDetector": lambda build: RejectClassDetector(network=build, **SHORT).fit(IMAGES, CLASSES),
    "RotationAuxClassifier": lambda build: RotationAuxClassifier(network=build, **SHORT).fit(IMAGES, CLASSES),
    "BackboneClassifier": lambda build: BackboneClassifier(network=build, max_epochs=1).fit(IMAGES, CLASSES),
    "SimCLREncoder": lambda build: SimCLREncoder(network=build, max_epochs=1).fit(IMAGES),
    "DUMDetector": lambda build: DUMDetector(network=build, scaling=None, **SHORT).fit(IMAGES),
    "NegSampleVAE": lambda build: NegSampleVAE(network=(build, "auto"), **SHORT).fit(IMAGES),
    "ResidualAdapterDetector": lambda build: ResidualAdapterDetector(
        build(192, 8).eval(), adaptation="finetune", **SHORT
    ).fit(IMAGES),
    "FrozenEncoder": lambda build: FrozenEncoder(build(192, 8).eval()).fit(IMAGES),
}
everywhere = pytest.mark.parametrize("take", TAKING.values(), ids=TAKING)


@everywhere
@pytest.mark.parametrize("how", ["mean", "batch", "chance"])
@pytest.mark.filterwarnings("ignore:X holds")
def test_rows_must_not_depend_on_each_other_nor_on_chance(take, how):
    with pytest.raises(ValueError, match=TOGETHER):
        take(network(how))


class Halved(nn.Module):
    """Compute in bfloat16 by itself."""

    def __init__(self, n_outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, n_outputs))

    def forward(self, rows):
        with torch.autocast(rows.device.type, torch.bfloat16):
            return self.layers(rows)


@pytest.mark.filterwarnings("ignore:X holds")
def test_a_trained_network_that_computes_in_half_precision_is_taken():
    network = Halved(8).eval()
    features = FrozenEncoder(network, layer="").fit(IMAGES)
    with torch.no_grad():
        expected = network(torch.tensor(IMAGES) / 255).float().numpy()
    np.testing.assert_allclose(features.transform(IMAGES), expected, atol=0.02)
    assert features.to_torch()(torch.tensor(IMAGES)).dtype == torch.float32
    for estimator in (
        *(ResidualAdapterDetector(network, adaptation=how, **SHORT) for how in ("adapters", "frozen", "finetune")),
        DUMDetector(encoder=network, **SHORT),
        OODScorer(Halved(3).eval()),
    ):
        assert np.isfinite(estimator.fit(IMAGES).score_samples(IMAGES)).all()
    with pytest.raises(ValueError, match=r"such as a softmax.* or torch\.autocast around it"):
        BackboneClassifier(Halved(3)).fit(IMAGES, CLASSES)


@everywhere
@pytest.mark.parametrize("numbers", [torch.float64, torch.bfloat16])
def test_a_network_of_other_numbers_is_trained_and_scores_in_float32(take, numbers):
    built = []

    def build(size, n_outputs):
        layers = nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, n_outputs)
        built.append(nn.Sequential(*layers).to(numbers))
        return built[-1]

    estimator = take(build)
    outputs = estimator.score_samples if hasattr(estimator, "score_samples") else estimator.transform
    assert np.isfinite(outputs(IMAGES)).all()
    assert {values.dtype for network in built for values in network.parameters()} == {numbers}


class Doubled(nn.Module):
    """Return numbers in double precision."""

    def __init__(self, n_outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, n_outputs))

    def forward(self, rows):
        return self.layers(rows).double()


@pytest.mark.parametrize("take", [FrozenEncoder, partial(ResidualAdapterDetector, **SHORT)])
def test_a_network_that_returns_double_precision_is_taken(take):
    network = Doubled(8).eval()
    given = take(network).fit(IMAGES)
    if isinstance(given, FrozenEncoder):
        # It is a classifier: its features are what its last layer takes.
        assert given.transform(IMAGES).shape == (60, 16)


class Wrapped(nn.Module):
    """Return the outputs of another network in a dict, always or in training alone."""

    def __init__(self, network, always):
        super().__init__()
        self.network, self.always = network, always

    def forward(self, rows):
        logits = self.network(rows)
        return {"logits": logits} if self.always or self.training else logits


@pytest.mark.parametrize("of", [FrozenEncoder, ResidualAdapterDetector])
def test_a_network_that_returns_no_tensor_is_told_so(of):
    network = Wrapped(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), True)
    with pytest.raises(
        ValueError, match=r"backbone returns a dict, not a tensor\. Name the layer .*, by layer=, or wr"
    ):
        of(network).fit(IMAGES)
    network.unused = nn.Identity()
    with pytest.raises(ValueError, match="backbone has a layer='unused' that does not run; choose another"):
        of(network, layer="unused").fit(IMAGES)
    assert FrozenEncoder(network, layer="network.1").fit_transform(IMAGES).shape == (60, 3)


def test_a_compiled_network_is_trained_as_the_original_one():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    plain, compiled = (
        BackboneClassifier(one, max_epochs=1, random_state=0).fit(IMAGES, CLASSES)
        for one in (network, torch.compile(network))
    )
    assert np.array_equal(compiled.predict_proba(IMAGES), plain.predict_proba(IMAGES))
    RejectClassDetector(classifier=torch.compile(network), **SHORT).fit(IMAGES, CLASSES)


@pytest.mark.parametrize(
    "estimator",
    [
        lambda network: FrozenEncoder(network, device="cpu"),
        lambda network: OODScorer(network.eval()),
        lambda network: BackboneClassifier(network, max_epochs=1, device="cpu"),
        lambda network: RejectClassDetector(classifier=network, device="cpu", **SHORT),
        lambda network: ResidualAdapterDetector(network, device="cpu", **SHORT),
    ],
)
def test_a_network_made_for_gpus_runs_where_the_rows_are(estimator):
    network = nn.DataParallel(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3)))
    # As on a machine with a GPU.
    network.device_ids, network.src_device_obj = [0], torch.device("cuda:0")
    found = estimator(network)
    found.fit(IMAGES, None if isinstance(found, ResidualAdapterDetector) else CLASSES)
    assert network.device_ids == [0]
    encoders = [FrozenEncoder(network, layer="module.1", device="cpu").fit(IMAGES) for _ in range(2)]
    first, second = (next(encoder.module_.parameters()) for encoder in encoders)
    assert first is second


class Complex(nn.Module):
    """Multiply by complex numbers, and return lengths."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(192, 8, dtype=torch.complex64))

    def forward(self, rows):
        return (rows.flatten(1).to(self.weights.dtype) @ self.weights).abs()


@everywhere
def test_complex_parameters_are_named(take):
    with pytest.raises(ValueError, match=r"holds complex numbers, in 0\.weights; pass a network of real numbers"):
        take(lambda size, n_outputs: nn.Sequential(Complex(), nn.Linear(8, n_outputs)))


class InSingle(nn.Module):
    """Flatten images as float32, whatever they are."""

    def forward(self, rows):
        return rows.flatten(1).float()


@everywhere
@pytest.mark.filterwarnings("ignore:X holds")
def test_a_network_that_computes_in_float32_by_itself_is_taken(take):
    take(lambda size, n_outputs: nn.Sequential(InSingle(), nn.Linear(192, n_outputs)))


class Viewed(nn.Module):
    """Turn maps into vectors by ``view``, as the tutorials of torch do: it fails on maps with the channels last."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, rows):
        return functional.max_pool2d(self.conv(rows.reshape(-1, 3, 8, 8)).relu(), 2).view(-1, 64)


def viewing(size, n_outputs):
    """Return a network with such maps; a function of the module, for pickles."""
    return nn.Sequential(Viewed(), nn.Linear(64, n_outputs))


@everywhere
@pytest.mark.filterwarnings("ignore:X holds")
def test_a_network_that_views_its_maps_as_vectors_is_taken(take):
    estimator = take(viewing)
    name = "score_samples" if hasattr(estimator, "score_samples") else "transform"
    compute, again = getattr(estimator, name), getattr(pickle.loads(pickle.dumps(estimator)), name)
    results = compute(IMAGES)
    assert np.isfinite(results).all()
    assert np.array_equal(compute(IMAGES[7:8]), results[7:8])
    assert np.array_equal(again(IMAGES), results)
    with torch.no_grad():
        scored = estimator.to_torch()(torch.tensor(IMAGES))
    np.testing.assert_allclose(scored.numpy(), results, rtol=1e-4, atol=1e-5)


def test_features_of_a_network_that_views_its_maps_are_its_own():
    network = viewing((3, 8, 8), 3).eval()
    with torch.no_grad():
        expected = network[0](torch.tensor(IMAGES) / 255).numpy()
    np.testing.assert_allclose(FrozenEncoder(network).fit_transform(IMAGES), expected, rtol=1e-5, atol=1e-6)
    # Neither the user's network nor that of others is arranged otherwise.
    assert network[0].conv.weight.is_contiguous()
    assert not network._forward_pre_hooks
    other = FrozenEncoder(nn.Conv2d(3, 4, 3)).fit(IMAGES).module_.features.network
    assert other.weight.is_contiguous(memory_format=torch.channels_last)


class ViewedAtLast(nn.Module):
    """Views its maps as vectors: of images of 8x8 pixels, maps of one pixel, which can be viewed in either order."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 8)

    def forward(self, rows):
        maps = self.last(self.first(rows))
        return maps.view(maps.shape[0], -1)


def test_images_of_another_size_change_nothing_of_a_fitted_encoder():
    """Encoders share the weights of a network: a fit on other images, also one that fails, must not rearrange them."""
    network, weights, during = ViewedAtLast(), [], []

    def arranged():
        return [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights]

    network.first.register_forward_pre_hook(lambda layer, rows: during.extend(arranged()))
    encoder = FrozenEncoder(network).fit(IMAGES)
    weights.append(encoder.module_.features.network.first.weight)
    large = np.random.default_rng(1).integers(0, 256, (20, 3, 9, 9), dtype=np.uint8)
    assert FrozenEncoder(network).fit_transform(large).shape == (20, 20)
    with pytest.raises(ValueError, match="backbone does not take rows of images"):
        FrozenEncoder(network).fit(large[:, :, :4, :4])
    assert arranged() == [True]
    assert set(during) == {True}


def test_a_network_with_weights_of_five_dimensions_is_taken():
    """They have no channels last."""
    network = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 3), nn.Flatten(), nn.Linear(144, 5)).eval()
    with torch.no_grad():
        expected = network[:3](torch.tensor(IMAGES) / 255).numpy()
    np.testing.assert_allclose(FrozenEncoder(network).fit_transform(IMAGES), expected, rtol=1e-5, atol=1e-6)
    BackboneClassifier(nn.Sequential(*network[:3], nn.Linear(144, 3)), max_epochs=1).fit(IMAGES, CLASSES)


class OneProductInSingle(nn.Module):
    """Compute one matrix product in float32, whatever the rows are, as published models do for stability."""

    def __init__(self, shift):
        super().__init__()
        self.layers, self.shift = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.Linear(64, 10)), shift

    def forward(self, rows):
        taken = self.layers[:2](rows).tanh()
        given = functional.linear(taken.float(), self.layers[2].weight.float()).to(rows.dtype)
        return given + self.shift * given.mean(0)


@pytest.mark.parametrize("take", [FrozenEncoder, partial(ResidualAdapterDetector, **SHORT)])
def test_a_network_with_one_product_in_float32_is_taken(take):
    for seed in range(3):
        torch.manual_seed(seed)
        take(OneProductInSingle(0.0).eval(), layer="").fit(IMAGES)
    with pytest.raises(ValueError, match=TOGETHER):
        take(OneProductInSingle(0.1).eval(), layer="").fit(IMAGES)


class LooksUp(nn.Module):
    """Looks up whole numbers in a table."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.table, self.head = nn.Embedding(40, 4), nn.Linear(4 * n_features, n_outputs)

    def forward(self, rows):
        return self.head(self.table((10 * rows).long()).flatten(1))


def test_a_network_that_looks_up_its_values_is_taken():
    rows = RNG.integers(0, 4, (60, 4)).astype(float)
    y = np.where(np.arange(60) < 45, 1, -1)
    RejectClassDetector(network=LooksUp, scaling=None, outliers="auxiliary", **SHORT).fit(rows, y)


class WithoutArguments(nn.Linear):
    """Takes nothing that it could be built for."""

    def __init__(self):
        super().__init__(192, 3)


@pytest.mark.parametrize("detector", [DUMDetector, RejectClassDetector, RotationAuxClassifier])
@pytest.mark.parametrize("build", [WithoutArguments, lambda size: nn.Linear(size, 3)])
def test_a_factory_that_does_not_take_the_sizes_is_told_which_they_are(detector, build):
    rows = RNG.normal(size=(60, 192))
    with pytest.raises(ValueError, match=r"network=\S+ is called with \(n_features, n_outputs\), here \(192, \d+\)"):
        detector(network=build, **SHORT).fit(rows, CLASSES if detector is not DUMDetector else None)
    shape = r"network=\S+ is called with \(\(C, H, W\), n_outputs\), here \(\(3, 8, 8\), \d+\).*as an instance"
    if detector is not DUMDetector:
        with pytest.raises(ValueError, match=shape):
            detector(network=build, **SHORT).fit(IMAGES, CLASSES)


class Normalised(nn.Module):
    """A usual convolution, batch normalisation and ReLU."""

    def __init__(self, in_place):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=in_place)
        self.head = nn.Linear(8, 3)

    def forward(self, rows):
        return self.head(self.relu(self.norm(self.conv(rows))).mean((2, 3)))


def test_features_of_a_layer_are_its_own_if_the_next_one_works_in_place():
    plain, in_place = Normalised(False).eval(), Normalised(True).eval()
    in_place.load_state_dict(plain.state_dict())

    def features(network, layer):
        return FrozenEncoder(network, layer=layer).fit(IMAGES).transform(IMAGES)

    assert np.array_equal(features(in_place, "norm"), features(plain, "norm"))
    assert not np.allclose(features(in_place, "norm"), features(in_place, "relu"))

    def frozen_scores(network):
        detector = ResidualAdapterDetector(network, layer="norm", adaptation="frozen", random_state=0, **SHORT)
        return detector.fit(IMAGES).score_samples(IMAGES)

    assert np.array_equal(frozen_scores(in_place), frozen_scores(plain))
