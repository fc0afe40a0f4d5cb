"""Backbones: where they come from, who shares them, which features they have, what they want rows to be."""

import copy
import gc
import json
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional

from skood import BackboneClassifier, RejectClassDetector, ResidualAdapterDetector, backbones
from skood.backbones import (
    SHIPPED,
    Preprocessed,
    feature_layer,
    find_backbone,
    fingerprint,
    frozen,
    layers_before,
    load_shipped,
)
from skood.networks import MLP, ResNet, adaptable_layers

CPU = torch.device("cpu")
SMALL = {"hidden_sizes": (8,), "max_epochs": 1, "random_state": 0}


def perceptron(n_features=3, n_outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(*MLP(n_features, n_outputs, (6, 5))).eval()


def resnet():
    torch.manual_seed(0)
    return ResNet((1, 8, 8), 3, width=2, n_blocks=1).eval()


def classes(n=30):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    return (rng.normal(size=(n, 3)) + 4 * np.eye(3)[y]).astype(np.float32), y


def tensors(module):
    return [*module.parameters(), *module.buffers()]


def alike(module, other):
    return all(torch.equal(a, b) for a, b in zip(tensors(module), tensors(other), strict=True))


# --------------------------------------------------------------------------------------------------------------------
# What a network wants its rows to be


def test_mean_and_deviation_by_hand():
    grey = Preprocessed(nn.Identity(), mean=1.0, std=2.0)
    assert grey(torch.tensor([[3.0, 5.0]])).tolist() == [[1, 2]]
    features = Preprocessed(nn.Identity(), mean=(1, 2), std=(2, 4))
    assert features(torch.tensor([[3.0, 6.0], [1.0, 2.0]])).tolist() == [[1, 1], [0, 0]]
    images = Preprocessed(nn.Identity(), mean=(1, 2), std=(2, 4))
    assert images(torch.tensor([[[[3.0, 1.0]], [[6.0, 2.0]]]])).tolist() == [[[[1, 0]], [[1, 0]]]]
    assert Preprocessed(nn.Identity())(torch.tensor([[3.0, 5.0]])).tolist() == [[3, 5]]


def test_resizing_by_hand():
    half = Preprocessed(nn.Identity(), size=1)
    assert half(torch.arange(4.0).reshape(1, 1, 2, 2)).item() == pytest.approx(1.5)
    twice = Preprocessed(nn.Identity(), size=4)
    # Pixels lie in the middle of their squares: a quarter of the way from one to the other.
    row = twice(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))[0, 0, 0]
    assert row.tolist() == pytest.approx([0, 0.25, 0.75, 1])
    as_it_is = torch.rand(2, 3, 4, 4)
    assert torch.equal(twice(as_it_is), as_it_is)
    assert twice(torch.rand(2, 3, 5, 9)).shape == (2, 3, 4, 4)
    assert Preprocessed(nn.Identity(), size=4)(torch.ones(2, 3)).shape == (2, 3)


def test_grey_images_are_repeated():
    network = Preprocessed(nn.Identity(), mean=(0, 1, 2), std=1.0, channels=3)
    seen = network(torch.full((1, 1, 2, 2), 5.0))
    assert seen[0, :, 0, 0].tolist() == [5, 4, 3]
    colour = torch.rand(1, 3, 2, 2)
    assert torch.equal(Preprocessed(nn.Identity(), channels=3)(colour), colour)


def test_preprocessing_goes_where_the_rows_are_scored():
    """In float64 too, and with the module's state."""
    network = Preprocessed(nn.Flatten(), mean=(0.5,), std=(0.1,)).double()
    assert network(torch.ones(1, 1, 2, 2, dtype=torch.float64)).dtype is torch.float64
    assert set(network.state_dict()) == {"mean", "std"}


# --------------------------------------------------------------------------------------------------------------------
# Features


@pytest.mark.parametrize("end", [nn.Identity(), nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()], ids=lambda e: str(e))
def test_features_are_what_the_classifier_sees(end):
    network, rows = perceptron(), torch.randn(4, 3)
    features = feature_layer(nn.Sequential(network, end), (3,), None)
    assert torch.equal(features(rows), network[:-1](rows))
    assert features.n_features == 5


def test_features_of_a_network_without_a_classifier():
    """What it gives: vectors; averages over positions; averages over tokens."""
    torch.manual_seed(0)
    images = torch.rand(4, 1, 8, 8)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU())
    features = feature_layer(network, (1, 8, 8), None)
    torch.testing.assert_close(features(images), network(images).mean((2, 3)))
    assert features.n_features == 6
    flat = feature_layer(nn.Sequential(*network, nn.Flatten()), (1, 8, 8), None)
    assert flat.n_features == 6 * 36
    # A linear layer within is none that gives the result.
    residual = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    rows = torch.randn(4, 3)
    assert torch.equal(feature_layer(residual, (3,), None)(rows), residual(rows))
    tokens = nn.Sequential(nn.Unflatten(1, (4, 2)), nn.Linear(2, 5), nn.ReLU())
    rows = torch.randn(4, 8)
    torch.testing.assert_close(feature_layer(tokens, (8,), None)(rows), tokens(rows).mean(1))


def test_features_of_a_layer():
    network, rows = perceptron(), torch.randn(4, 3)
    assert torch.equal(feature_layer(network, (3,), "1")(rows), network[:2](rows))
    assert torch.equal(feature_layer(network, (3,), "4")(rows), network(rows))
    images = torch.rand(4, 1, 8, 8)
    deep = resnet()
    pooled = feature_layer(deep, (1, 8, 8), "blocks.0")
    expected = deep.blocks[0](deep.stem_norm(deep.stem(images))).mean((2, 3))
    torch.testing.assert_close(pooled(images), expected)
    assert pooled.n_features == 4


def test_features_leave_no_hooks():
    network = perceptron()
    features = feature_layer(network, (3,), None)
    features(torch.randn(2, 3))
    layers_before(features, (3,), adaptable_layers(network))
    with pytest.raises(ValueError, match="does not take rows of 4 features"):
        feature_layer(network, (4,), None)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_gradients_reach_through_features():
    network = perceptron()
    rows = torch.randn(4, 3, requires_grad=True)
    feature_layer(network, (3,), None)(rows).sum().backward()
    assert rows.grad.abs().max() > 0


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused, self.recurrent = nn.Linear(3, 4), nn.Linear(3, 4), nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        return self.used(x) + self.recurrent(x[:, None])[0][:, 0]


@pytest.mark.parametrize(
    ("build", "shape", "layer", "message"),
    [
        (perceptron, (3,), "head", "layer='head' is no layer of the backbone. Its last layers are '0', '1'"),
        (perceptron, (2,), None, "backbone does not take rows of 2 features"),
        (resnet, (3, 8, 8), None, r"backbone does not take rows of images of shape \(3, 8, 8\)"),
        (Unused, (3,), "unused", "layer='unused'"),
        (Unused, (3,), "recurrent", "layer='recurrent'"),
        (lambda: nn.Flatten(0), (3,), None, r"backbone gives \(6,\) for 2 rows"),
    ],
    ids=["no layer", "features", "channels", "never runs", "no tensor", "no rows"],
)
def test_features_that_are_none(build, shape, layer, message):
    with pytest.raises(ValueError, match=message):
        feature_layer(build(), shape, layer)


def test_a_projection_that_is_not_called_is_no_classifier():
    """torch's attention holds a linear layer and reads its weights."""

    class Attention(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x)[0]

    network = Attention(3, 1).eval()
    assert feature_layer(network, (3,), None).n_features == 3


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.LazyLinear(3)), "backbone is not trained: 0.weight has no shape yet"),
        (nn.Linear(3, 3, dtype=torch.complex64), "backbone holds complex numbers, in weight"),
    ],
    ids=["lazy", "complex"],
)
def test_weights_that_cannot_be_stood_on(network, message):
    with pytest.raises(ValueError, match=message):
        ResidualAdapterDetector(network).fit(np.zeros((8, 3)))


def test_adapters_go_where_features_come_from():
    """Beside layers that run before; an adapter behind them would never have a gradient."""

    def found(network, shape, layer=None):
        return layers_before(feature_layer(network, shape, layer), shape, adaptable_layers(network))

    assert found(perceptron(), (3,)) == ["0", "2"]
    assert found(perceptron(), (3,), "1") == ["0"]
    assert found(perceptron(), (3,), "2") == ["0", "2"]
    convolutions = ["stem", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2"]
    convolutions += ["blocks.2.conv1", "blocks.2.conv2"]
    assert found(resnet(), (1, 8, 8)) == convolutions
    assert found(resnet(), (1, 8, 8), "blocks.0") == convolutions[:3]
    assert found(resnet(), (1, 8, 8), "blocks.1.conv1") == convolutions[:4]
    assert found(resnet(), (1, 8, 8), "stem_norm") == ["stem"]
    assert found(nn.Linear(3, 2), (3,)) == []
    assert found(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), (3,)) == ["0"]
    # One layer in two places: once.
    layer = nn.Linear(3, 3)
    assert found(nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU()), (3,)) == ["0"]
    assert found(Unused(), (3,)) == ["used"]


# --------------------------------------------------------------------------------------------------------------------
# Copies to stand on


def test_one_copy_for_all():
    module = resnet().train()
    before = copy.deepcopy(module)
    copied = frozen(module, CPU)
    assert copied is frozen(module, CPU)
    assert copied is not module
    assert alike(copied, module)
    assert not copied.training
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    # The given one is as it was.
    assert alike(module, before)
    assert all(part.training for part in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not {id(tensor) for tensor in tensors(module)} & {id(tensor) for tensor in tensors(copied)}


def step(module, **options):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, **options)
    module(torch.ones(2, 1, 8, 8)).square().sum().backward()
    optimizer.step()


def scaled_in_place(module):
    with torch.no_grad():
        module.stem.weight.mul_(2)


CHANGES = {
    "in place": scaled_in_place,
    "through data": lambda module: module.stem.weight.data.mul_(2),
    "optimizer": step,
    "fused optimizer": lambda module: step(module, fused=True),
    "foreach optimizer": lambda module: step(module, foreach=True),
    "loaded": lambda module: module.load_state_dict({k: v + 1 for k, v in module.state_dict().items()}),
    "statistics": lambda module: module.train()(torch.rand(4, 1, 8, 8)),
    "new layer": lambda module: setattr(module, "head", nn.Linear(16, 3)),
    "wider layer": lambda module: setattr(module, "head", nn.Linear(16, 7)),
    "new parameter": lambda module: setattr(module.head, "weight", nn.Parameter(torch.ones(3, 16))),
    "other settings": lambda module: setattr(module.norm, "eps", 1.0),
    "numpy": lambda module: module.stem.weight.detach().numpy().fill(1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_module_is_copied_anew(change):
    module = resnet()
    first = frozen(module, CPU)
    kept = copy.deepcopy(first)
    change(module)
    second = frozen(module, CPU)
    assert second is not first
    assert alike(second, module)
    assert alike(first, kept)
    assert second is frozen(module, CPU)


def test_a_layer_replaced_again_and_again():
    """Where the new weights lie in memory, and how often they were set, says nothing."""
    module = nn.Sequential(nn.Linear(300, 300))
    for _ in range(20):
        module[0] = None
        module[0] = nn.Linear(300, 300)
        assert torch.equal(frozen(module, CPU)[0].weight, module[0].weight)


def test_copies_go_with_what_they_are_of():
    module = resnet()
    copied = weakref.ref(frozen(module, CPU))
    del module
    gc.collect()
    assert copied() is None


def test_copies_made_in_inference_mode_can_be_trained_on():
    module = resnet()
    with torch.inference_mode():
        copied = frozen(module, CPU)
    assert not any(tensor.is_inference() for tensor in tensors(copied))
    with torch.inference_mode():
        of_inference = nn.Linear(2, 2)
    assert not any(tensor.is_inference() for tensor in tensors(frozen(of_inference, CPU)))


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_fingerprints_tell_weights_apart(data):
    module = perceptron()
    print_ = fingerprint(module)
    assert fingerprint(copy.deepcopy(module)) == fingerprint(copy.deepcopy(module).double()) == print_
    changed = copy.deepcopy(module)
    tensor = data.draw(st.sampled_from(list(changed.parameters())))
    place = data.draw(st.integers(0, tensor.numel() - 1))
    with torch.no_grad():
        value = tensor.view(-1)[place]
        value.copy_(torch.nextafter(value, torch.tensor(9.0)))
    assert fingerprint(changed) != print_


def test_fingerprints_tell_names_and_statistics_apart():
    one, other = nn.Sequential(nn.Linear(2, 2)), nn.ModuleDict({"a": nn.Linear(2, 2)})
    other["a"].load_state_dict(one[0].state_dict())
    assert fingerprint(one) != fingerprint(other)
    norm = nn.BatchNorm1d(2)
    before = fingerprint(norm)
    norm(torch.randn(4, 2))
    assert fingerprint(norm) != before
    # Neither layout nor mode is of the weights.
    deep = resnet()
    assert fingerprint(deep.to(memory_format=torch.channels_last).train()) == fingerprint(resnet())


# --------------------------------------------------------------------------------------------------------------------
# Where they come from


def test_a_module_is_itself():
    module = perceptron()
    assert find_backbone(module, False)[:2] == (module, None)


def test_what_is_to_be_trained_yet():
    for backbone in ("residual", "resnet-8-2", "torchvision:", "elsewhere:resnet18", MLP, lambda *_: perceptron()):
        assert find_backbone(backbone, False) is None


def test_fitted_estimators():
    X, y = classes()
    classifier = BackboneClassifier(**SMALL).fit(X, y)
    found = find_backbone(classifier, False)
    assert found.network is classifier.module_
    assert found.scaler is classifier.scaler_
    assert find_backbone(FrozenEstimator(classifier), False).network is classifier.module_
    detector = RejectClassDetector(**SMALL).fit(X, y)
    assert find_backbone(detector, False).network is detector.module_
    net = NeuralNetClassifier(MLP, module__in_features=3, module__out_features=3, module__hidden_sizes=(4,))
    net.set_params(verbose=0, max_epochs=1, criterion=nn.CrossEntropyLoss).fit(X, y)
    assert find_backbone(net, False)[:2] == (net.module_, None)


def test_a_detector_with_adapters_lends_its_backbone():
    X, y = classes()
    one = ResidualAdapterDetector(BackboneClassifier(**SMALL).fit(X, y), max_epochs=1).fit(X)
    found = find_backbone(one, False)
    assert found.network is one.backbone_
    assert found.scaler is one.scaler_


@pytest.mark.parametrize(
    "backbone", [BackboneClassifier(), FrozenEstimator(BackboneClassifier()), ResidualAdapterDetector()]
)
def test_an_estimator_must_be_fitted(backbone):
    with pytest.raises(ValueError, match=r"backbone=\w+ holds no trained torch module: fit it first.*FrozenEstimator"):
        find_backbone(backbone, False)


def test_an_estimator_must_have_a_network():
    X, y = classes()
    with pytest.raises(ValueError, match="backbone=LogisticRegression holds no trained torch module"):
        find_backbone(LogisticRegression().fit(X, y), False)


def test_an_estimator_of_other_images():
    y = classes()[1]
    images = (255 * np.random.default_rng(0).random((30, 1, 8, 8))).astype(np.uint8)
    bright = BackboneClassifier("resnet-8-2", max_epochs=1).fit(images, y)
    with pytest.raises(ValueError, match="backbone was fitted on uint8 images; pass such here too"):
        find_backbone(bright, False)
    assert find_backbone(bright, True).network is bright.module_
    with pytest.raises(ValueError, match="backbone was fitted on float images"):
        find_backbone(clone(bright).fit(images / 255, y), True)


def test_smaller_images_are_averages():
    """A pixel of the smaller image sees all that it stands for: a chessboard becomes grey."""
    board = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(16, 16)[None, None]
    assert Preprocessed(nn.Identity(), size=4)(board)[..., 1:3, 1:3].flatten().tolist() == pytest.approx([0.5] * 4)


def test_the_shipped_backbone():
    network = load_shipped()
    assert network is load_shipped()
    assert find_backbone(SHIPPED, True).network is network
    assert not network.training
    with torch.no_grad():
        grey = network(torch.rand(2, 1, 28, 28))
        assert torch.isfinite(grey).all()
        assert network(torch.rand(2, 3, 40, 24)).shape == grey.shape
    # 128 channels of the last stage of width 16.
    assert feature_layer(network, (3, 32, 32), None).n_features == 128


def test_threads_that_come_first_at_a_time_get_the_same_backbone():
    n_threads = 4
    together, found = threading.Barrier(n_threads), []

    def load():
        together.wait()
        found.append(once(3))

    once = backbones._once(lambda n: [torch.randn(200, 200) @ torch.randn(200, 200) for _ in range(n)])
    threads = [threading.Thread(target=load) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(result) for result in found}) == 1


def test_the_shipped_backbone_is_small_and_says_what_it_is(data_home):
    folder = Path(backbones.__file__).parent / "weights"
    assert (folder / f"{SHIPPED}.npz").stat().st_size < 4e6
    about = json.loads((folder / f"{SHIPPED}.json").read_text())
    with np.load(data_home / "images" / "cifar100_test_20perclass.npz") as file:
        X, y = torch.from_numpy(file["X"]) / 255, file["y"]
    with torch.no_grad():
        answers = torch.cat([load_shipped()(rows).argmax(1) for rows in X.split(500)])
    assert (answers.numpy() == y).mean() == pytest.approx(about["top_1_accuracy"], abs=0.003)


# --------------------------------------------------------------------------------------------------------------------
# Packages of trained networks, by small ones that stand in for them

TORCHVISION = {
    "torchvision/__init__.py": "from . import models",
    "torchvision/models.py": """
import torch

class Transforms:
    mean, std, crop_size, resize_size = [0.5, 0.4, 0.3], [0.2, 0.2, 0.1], [6], [8]

class Weights:
    @staticmethod
    def transforms():
        return Transforms()

class Enum:
    DEFAULT = Weights()

def get_model_weights(name):
    if name != "tiny":
        raise ValueError(f"Unknown model {name}")
    return Enum

def get_model(name, weights):
    assert weights is Enum.DEFAULT
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, 10))
""",
}

TIMM = {
    "timm/__init__.py": """
import torch
from . import data

def create_model(name, pretrained, num_classes):
    assert (name, pretrained, num_classes) == ("tiny", True, 0)
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten())
""",
    "timm/data.py": """
def resolve_model_data_config(model):
    return {"input_size": (3, 6, 6), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1), "crop_pct": 0.9}
""",
}


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Packages with the few functions that are called, in place of whatever is installed."""

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "timm")]:
            monkeypatch.delitem(sys.modules, name)
        backbones._from_torchvision.cache_clear()
        backbones._from_timm.cache_clear()

    forget()
    for path, text in (TORCHVISION | TIMM).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    forget()


@pytest.mark.parametrize(("name", "head"), [("torchvision:tiny", True), ("timm:tiny", False)])
@pytest.mark.usefixtures("stand_ins")
def test_networks_of_other_packages(name, head):
    network = find_backbone(name, False).network
    assert network is find_backbone(name, True).network
    assert not network.training
    images = torch.rand(2, 3, 6, 6)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.2, 0.1])
    standardised = (images - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(network(images), network.network(standardised))
    # Other sizes are resized, grey images repeated.
    larger = functional.interpolate(images[:, :1], (12, 12))
    assert network(larger).shape == network(images).shape
    features = feature_layer(network, (3, 6, 6), None)
    assert (features.n_features, features.takes) == (4, head)


@pytest.mark.parametrize("name", ["torchvision:tiny", "timm:tiny"])
@pytest.mark.usefixtures("stand_ins")
def test_detectors_on_networks_of_other_packages(name):
    rng = np.random.default_rng(0)
    X, y = rng.random((12, 1, 10, 10)), np.repeat([1, -1], 6)
    detectors = [ResidualAdapterDetector(name, max_epochs=1, random_state=seed).fit(X, y) for seed in (0, 1)]
    assert detectors[0].backbone_ is detectors[1].backbone_
    assert np.isfinite(detectors[0].score_samples(X)).all()
    assert detectors[0].transform(X).shape == (12, 4)


@pytest.mark.usefixtures("stand_ins")
def test_names_that_the_package_does_not_know():
    with pytest.raises(ValueError, match="Unknown model small"):
        find_backbone("torchvision:small", False)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_packages_that_are_not_installed(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"takes its network from {package}, which is not installed: pip install"):
        find_backbone(f"{package}:absent", False)
