"""Trained networks by name, and what a network wants its rows to be."""

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skood import FrozenEncoder, ResidualAdapterDetector, backbones
from skood.backbones import SHIPPED, Preprocessed, load_shipped
from skood.encoders.trained import find_backbone
from skood.networks import feature_layer

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


@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (30, 17)])
def test_cutting_by_hand(shape):
    cut = Preprocessed(nn.Identity(), size=4, resize=8)
    images = torch.rand(2, 3, *shape)
    shorter = min(shape)
    sides = [8 * side // shorter for side in shape]
    whole = functional.interpolate(images, sides, mode="bilinear", antialias=True)
    top, left = (round((side - 4) / 2) for side in sides)
    assert torch.equal(cut(images), whole[:, :, top : top + 4, left : left + 4])
    assert cut(images).shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="resize=8 needs a size of at most 8; got size=9"):
        Preprocessed(nn.Identity(), size=9, resize=8)


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


def test_smaller_images_are_averages():
    """A pixel of the smaller image sees all that it stands for: a chessboard becomes grey."""
    board = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(16, 16)[None, None]
    assert Preprocessed(nn.Identity(), size=4)(board)[..., 1:3, 1:3].flatten().tolist() == pytest.approx([0.5] * 4)


# --------------------------------------------------------------------------------------------------------------------
# The network that comes with skood


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


@pytest.mark.slow
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
import enum
import urllib.error
import torch

class Interpolation(enum.Enum):
    BICUBIC = "bicubic"

class Transforms:
    mean, std, crop_size, resize_size = [0.5, 0.4, 0.3], [0.2, 0.2, 0.1], [6], [8]
    interpolation = Interpolation.BICUBIC

class Weights(enum.Enum):
    V1 = 1
    V2 = 2
    OTHER = 3
    DEFAULT = 2

    def transforms(self):
        return Transforms()

def get_model_weights(name):
    if name != "tiny":
        raise ValueError(f"Unknown model {name}")
    return Weights

def get_model(name, weights, progress=True):
    if weights is Weights.OTHER:
        raise urllib.error.URLError(OSError("Name or service not known"))
    torch.manual_seed(weights.value)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, 10))
""",
}

TIMM = {
    "timm/__init__.py": """
import torch
from . import data

class OfOneSize(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size if isinstance(size, int) else size[0]

    def forward(self, images):
        if images.shape[2] != self.size:
            raise ValueError(f"Input height ({images.shape[2]}) doesn't match model ({self.size}).")
        return images

def create_model(name, pretrained, num_classes, seed=0, img_size=6, in_chans=3):
    assert (name, pretrained, num_classes) == ("tiny", True, 0)
    torch.manual_seed(seed)
    return torch.nn.Sequential(OfOneSize(img_size), torch.nn.Conv2d(in_chans, 4, 3), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
""",
    "timm/data.py": """
def resolve_model_data_config(model):
    return {"input_size": (3, 6, 6), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1), "crop_pct": 0.75,
            "crop_mode": "center", "interpolation": "bicubic"}
""",
}


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Packages with the few functions that are called, in place of whatever is installed."""

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "timm")]:
            monkeypatch.delitem(sys.modules, name)
        backbones._from_torchvision.__wrapped__.cache_clear()
        backbones._from_timm.__wrapped__.cache_clear()

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
def test_images_are_cut_as_they_were_published(name):
    network = find_backbone(name, False).network
    images = torch.rand(2, 3, 9, 12)
    # The shorter side is 8, of which the middle 6 are seen.
    whole = functional.interpolate(images, (8, 10), mode="bicubic", antialias=True)
    torch.testing.assert_close(network(images), network(whole[:, :, 1:7, 2:8]))


@pytest.mark.usefixtures("stand_ins")
def test_arguments_of_other_packages():
    images = np.random.default_rng(0).random((4, 3, 6, 6))
    for name, first, other in (
        ("torchvision:tiny", {"weights": "V2"}, {"weights": "V1", "progress": False}),
        ("timm:tiny", {"seed": 0}, {"seed": 1}),
    ):
        default, same, different = (
            FrozenEncoder(name, backbone_params=params).fit_transform(images) for params in (None, first, other)
        )
        np.testing.assert_array_equal(default, same)
        assert not np.allclose(default, different)
    with pytest.raises(ValueError, match="torchvision:tiny has no weights 'V9'; pass V1 or V2 or OTHER or DEFAULT"):
        FrozenEncoder("torchvision:tiny", backbone_params={"weights": "V9"}).fit(images)
    with pytest.raises(ValueError, match="must hold numbers, text or tuples"):
        FrozenEncoder("timm:tiny", backbone_params={"seed": [1]}).fit(images)


@pytest.mark.usefixtures("stand_ins")
def test_models_of_timm_for_other_sizes_and_channels():
    """timm's config goes on saying what the weights were trained for."""
    images = np.random.default_rng(0).random((4, 3, 9, 9))
    for params in ({"img_size": 9}, {"img_size": (9, 9)}):
        network = FrozenEncoder("timm:tiny", backbone_params=params).fit(images).module_
        assert network(torch.from_numpy(images).float()).shape == (4, 4)
    grey = FrozenEncoder("timm:tiny", backbone_params={"in_chans": 1, "seed": 3}).fit_transform(images[:, :1])
    assert grey.shape == (4, 4)


@pytest.mark.parametrize("backbone", [SHIPPED, "resnet-14-8", nn.Flatten()])
def test_others_take_no_arguments(backbone):
    with pytest.raises(
        ValueError, match=r"backbone_params=\{'weights': 'V1'\}: only 'torchvision:NAME' and 'timm:NAME'"
    ):
        FrozenEncoder(backbone, backbone_params={"weights": "V1"}).fit(np.random.default_rng(0).random((4, 3, 6, 6)))


@pytest.mark.usefixtures("stand_ins")
def test_weights_that_cannot_be_downloaded():
    encoder = FrozenEncoder("torchvision:tiny", backbone_params={"weights": "OTHER"})
    with pytest.raises(
        ConnectionError, match=r"the weights of 'torchvision:tiny' .* Name or service not known"
    ) as caught:
        encoder.fit(np.random.default_rng(0).random((4, 3, 6, 6)))
    # A traceback does not show the error of urllib.
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["torchvision:tiny", "timm:tiny"])
@pytest.mark.usefixtures("stand_ins")
def test_detectors_on_networks_of_other_packages(name):
    rng = np.random.default_rng(0)
    X, y = rng.random((12, 1, 10, 10)), np.repeat([1, -1], 6)
    detectors = [
        ResidualAdapterDetector(name, max_epochs=1, random_state=seed, contamination=0).fit(X, y) for seed in (0, 1)
    ]
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
    with pytest.raises(ImportError, match=rf"needs {package}, which is not installed: pip install"):
        find_backbone(f"{package}:absent", False)
