"""FrozenEncoder: which features, of which networks, what is shared, and what a transformer is asked for."""

import copy
import pickle
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from configurations import RowStatistics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from torch import nn

from skood import BackboneClassifier, DUMDetector, FrozenEncoder, ResidualAdapterDetector
from skood.backbones import SHIPPED, Preprocessed, load_shipped
from skood.encoders.trained import frozen
from skood.metrics import auroc
from skood.networks import ResNet

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
IMAGES = RNG.random((12, 3, 8, 8))
BYTES = RNG.integers(0, 256, size=(12, 3, 8, 8), dtype=np.uint8)
ROWS = RNG.normal(size=(30, 4))


def resnet(channels=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNet((channels, 8, 8), 5, width=4, n_blocks=1).eval()


def perceptron():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


class RowsTogether(nn.Module):
    """Makes of a row what depends on chance, or on the other rows."""

    def __init__(self, kind="chance"):
        super().__init__()
        self.kind = kind

    def forward(self, rows):
        if self.kind == "chance":
            return rows + torch.rand_like(rows)
        return rows - rows.mean(0)


# --------------------------------------------------------------------------------------------------------------------
# Features


def test_features_by_hand():
    """What the last linear layer takes; another layer; what the network gives."""
    network = perceptron()
    weight, bias = (tensor.detach().double().numpy() for tensor in network[0].parameters())
    hidden = np.tanh(ROWS @ weight.T + bias)
    features = FrozenEncoder(network).fit_transform(ROWS)
    assert features.dtype == np.float64
    np.testing.assert_allclose(features, hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        FrozenEncoder(network, layer="0").fit_transform(ROWS), np.arctanh(hidden), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(FrozenEncoder(network[:2]).fit_transform(ROWS), hidden, rtol=1e-5, atol=1e-6)


def test_averages_over_positions():
    network = nn.Conv2d(1, 1, 2, bias=False)
    nn.init.ones_(network.weight)
    images = np.arange(9.0).reshape(1, 1, 3, 3)
    features = FrozenEncoder(network).fit(np.repeat(images, 2, axis=0)).transform(images)
    # Sums of the four windows: 8, 12, 20, 24.
    assert features.tolist() == [[16.0]]


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [4, 13]),
        ("max", [8, 17]),
        ("flatten", [*range(9), *range(9, 18)]),
        ((3, 3), [*range(9), *range(9, 18)]),
        ((1, 1), [4, 13]),
        # Rows 0 and 1, then rows 1 and 2: cells of a grid that does not divide the map overlap.
        ([2, 1], [2.5, 5.5, 11.5, 14.5]),
        ((1, 3), [3, 4, 5, 12, 13, 14]),
    ],
)
def test_pooling_by_hand(pooling, expected):
    images = np.arange(18.0).reshape(1, 2, 3, 3).repeat(2, axis=0)
    encoder = FrozenEncoder(nn.Identity(), pooling=pooling).fit(images)
    assert encoder.transform(images).tolist() == [expected] * 2
    assert len(encoder.get_feature_names_out()) == len(expected)


class NormalisedPixels(nn.Module):
    """Normalise the channels of each pixel, last in maps of shape (n, H, W, d), as Swin transformers do."""

    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), norm

    def forward(self, images):
        return self.norm(self.conv(images).movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("pooling", ["mean", "max", "flatten", (2, 3)])
def test_maps_of_a_norm_have_the_features_last(norm, pooling):
    network = NormalisedPixels(norm(6)).eval()
    features, expected = (
        FrozenEncoder(network, layer=layer, pooling=pooling).fit_transform(IMAGES) for layer in ("norm", None)
    )
    np.testing.assert_array_equal(features, expected)


def test_pooling_of_tokens():
    tokens = nn.Unflatten(1, (2, 2))
    rows = np.array([[1.0, 5, 3, 2], [0, 0, 0, 0]])
    for pooling, expected in (("mean", [2, 3.5]), ("max", [3, 5]), ("flatten", [1, 5, 3, 2])):
        assert FrozenEncoder(tokens, pooling=pooling).fit_transform(rows)[0].tolist() == expected


@given(
    pooling=st.one_of(st.sampled_from(["mean", "max", "flatten"]), st.tuples(st.integers(1, 4), st.integers(1, 4))),
    order=st.permutations(range(12)),
)
@settings(max_examples=15)
def test_pooled_rows_are_apart(pooling, order):
    encoder = FrozenEncoder(resnet(), layer="blocks.0", pooling=pooling).fit(IMAGES)
    features = encoder.transform(IMAGES)
    n_cells = {"mean": 1, "max": 1, "flatten": 16}.get(pooling) or pooling[0] * pooling[1]
    # Eight channels of four by four pixels.
    assert features.shape == (12, 8 * n_cells)
    assert np.array_equal(encoder.transform(IMAGES[order]), features[order])
    again = pickle.loads(pickle.dumps(clone(encoder).fit(IMAGES)))
    assert np.array_equal(again.transform(IMAGES), features)
    if n_cells == 16:
        by_mean = FrozenEncoder(resnet(), layer="blocks.0").fit_transform(IMAGES)
        np.testing.assert_allclose(features.reshape(12, 8, 16).mean(2), by_mean, rtol=1e-5, atol=1e-6)


def test_preprocessing_by_hand():
    network = nn.Flatten()
    settings = {"mean": (1, 2, 3), "std": (2, 4, 8)}
    expected = (IMAGES - np.reshape((1, 2, 3), (3, 1, 1))) / np.reshape((2, 4, 8), (3, 1, 1))
    np.testing.assert_allclose(
        FrozenEncoder(network, **settings).fit_transform(IMAGES), expected.reshape(12, -1), rtol=1e-4, atol=1e-6
    )
    half = FrozenEncoder(network, size=4).fit_transform(IMAGES)
    wanted = Preprocessed(network, size=4)(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(half, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        FrozenEncoder(nn.Identity(), mean=1.0, std=2).fit_transform(ROWS), (ROWS - 1) / 2, rtol=1e-5, atol=1e-6
    )


def test_bytes_are_scaled_and_may_come_flattened():
    encoder = FrozenEncoder(nn.Flatten()).fit(BYTES)
    np.testing.assert_allclose(encoder.transform(BYTES), BYTES.reshape(12, -1) / 255, rtol=1e-6)
    flat = FrozenEncoder(nn.Flatten(), image_shape=(3, 8, -1)).fit(BYTES.reshape(12, -1))
    assert (flat.image_shape_, flat.n_features_in_) == ((3, 8, 8), 192)
    assert np.array_equal(flat.transform(BYTES.reshape(12, -1)), encoder.transform(BYTES))
    with pytest.raises(ValueError, match="FrozenEncoder was fitted on uint8 images"):
        encoder.transform(IMAGES)


def test_features_of_fitted_estimators_are_their_own():
    """With the scaling of their training; large features keep their digits."""
    y = np.arange(30) % 3
    rows = 1e6 + ROWS
    classifier = BackboneClassifier(hidden_sizes=(6,), max_epochs=1, random_state=0).fit(rows, y)
    np.testing.assert_allclose(
        FrozenEncoder(classifier).fit_transform(rows), classifier.transform(rows), rtol=1e-5, atol=1e-6
    )
    adapted = ResidualAdapterDetector(
        perceptron(), max_epochs=3, lr=0.1, adapter_init="he", random_state=0, contamination=0
    )
    adapted.fit(ROWS, np.where(y == 0, -1, 1))
    features = FrozenEncoder(FrozenEstimator(adapted)).fit_transform(ROWS)
    np.testing.assert_allclose(features, adapted.transform(ROWS), rtol=1e-5, atol=1e-6)
    # Those of its backbone are others.
    assert not np.allclose(features, FrozenEncoder(perceptron()).fit_transform(ROWS), rtol=1e-3)
    encoder = FrozenEncoder(perceptron(), layer="0", mean=1.0).fit(ROWS)
    assert np.array_equal(FrozenEncoder(encoder).fit_transform(ROWS), encoder.transform(ROWS))


def test_features_of_images_that_a_backbone_pads():
    images, y = RNG.random((20, 1, 8, 6)), np.repeat([1, -1], 10)
    detector = ResidualAdapterDetector(
        "resnet-8-2", pretrain_epochs=1, max_epochs=1, random_state=0, contamination=0
    ).fit(images, y)
    np.testing.assert_allclose(
        FrozenEncoder(detector).fit_transform(images), detector.transform(images), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("end", [nn.ReLU(), nn.Hardtanh(0, 2), nn.Hardtanh(-20, 20)], ids=str)
def test_what_follows_the_last_linear_layer_is_not_lost(end):
    """It changes nothing for rows between 0 and 1, but for others."""
    network = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2), end).eval()
    with torch.no_grad():
        for layer in network[:2]:
            layer.weight.copy_(torch.eye(2, layer.in_features))
            layer.bias.fill_(0.5)
        rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32) * 20
        expected = network(torch.tensor(rows)).numpy()
    np.testing.assert_allclose(FrozenEncoder(network).fit_transform(rows), expected, rtol=1e-6)


def test_what_a_network_does_in_place_is_not_done_to_the_rows():
    X = ROWS.copy()
    features = FrozenEncoder(nn.ReLU(inplace=True)).fit_transform(X)
    np.testing.assert_array_equal(features, np.maximum(ROWS, 0).astype(np.float32))
    assert np.array_equal(X, ROWS)


def test_the_shipped_network_tells_digits_apart():
    """Of 8 x 8 pixels, a quarter of what it was trained on; one of ten is chance."""
    X, digit = load_digits(return_X_y=True)
    X = X / 16
    encoder = FrozenEncoder(image_shape=(1, 8, 8)).fit(X)
    features = encoder.transform(X[:600])
    nearest = KNeighborsClassifier(3).fit(features[:300], digit[:300])
    assert nearest.score(features[300:], digit[300:600]) > 0.5


def test_cifar_classes_are_apart(data_home):
    """Trucks against cats, by nearest neighbors among features and among pixels."""
    with np.load(data_home / "images" / "cifar10_test_500perclass.npz") as stored:
        X, y = stored["X"], stored["y"]
    trucks, cats = X[y == 9][:120], X[y == 3][:60]
    test, known = np.vstack([trucks[60:], cats]), np.repeat([1, -1], [60, 60])
    neighbors = LocalOutlierFactor(10, novelty=True)
    found = auroc(known, make_pipeline(FrozenEncoder(), neighbors).fit(trucks[:60]).score_samples(test))
    pixels = clone(neighbors).fit(trucks[:60].reshape(60, -1)).score_samples(test.reshape(120, -1))
    assert found > 0.85
    assert found > auroc(known, pixels) + 0.1


@settings(max_examples=15)
@given(st.permutations(range(12)), st.integers(1, 11))
def test_rows_are_apart(order, n):
    encoder = FrozenEncoder(resnet(), device="cpu").fit(IMAGES)
    features = encoder.transform(IMAGES)
    assert np.array_equal(encoder.transform(IMAGES[order]), features[order])
    assert np.array_equal(encoder.transform(IMAGES[:n]), features[:n])
    assert np.array_equal(encoder.transform(IMAGES), features)


# --------------------------------------------------------------------------------------------------------------------
# The network


def parameters(module):
    return {id(parameter) for parameter in module.parameters()}


def test_nothing_is_trained_and_weights_are_shared():
    network = resnet().train()
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    first, second = (FrozenEncoder(network, device="cpu", **more).fit(IMAGES) for more in ({}, {"std": 2.0}))
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert parameters(first.module_) == parameters(second.module_) == parameters(frozen(network, CPU))
    assert not any(parameter.requires_grad for parameter in first.module_.parameters())
    shipped = FrozenEncoder(device="cpu").fit(IMAGES)
    assert parameters(shipped.module_) == parameters(frozen(load_shipped(), CPU))


def test_training_the_network_further_changes_no_fitted_encoder():
    network = perceptron()
    encoder = FrozenEncoder(network).fit(ROWS)
    features = encoder.transform(ROWS)
    with torch.no_grad():
        network[0].weight.mul_(2)
    assert np.array_equal(encoder.transform(ROWS), features)
    assert not np.allclose(encoder.fit(ROWS).transform(ROWS), features)


def test_settings_take_effect_at_fit():
    encoder = FrozenEncoder(perceptron()).fit(ROWS)
    features = encoder.transform(ROWS)
    encoder.set_params(layer="0", mean=3.0, backbone=RowStatistics())
    assert np.array_equal(encoder.transform(ROWS), features)


def test_clone_and_pickle():
    encoder = FrozenEncoder(resnet()).set_output(transform="pandas").fit(IMAGES)
    cloned = clone(encoder)
    assert cloned.backbone is encoder.backbone
    with pytest.raises(NotFittedError):
        cloned.transform(IMAGES)
    expected = encoder.transform(IMAGES)
    pd.testing.assert_frame_equal(cloned.fit(IMAGES).transform(IMAGES), expected)
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(encoder)).transform(IMAGES), expected)
    assert clone(FrozenEncoder(encoder)).backbone is encoder


def test_threads():
    """Each has rows of its own, and one network."""
    network, results = resnet(), {}
    rows = [RNG.random((4, 3, 8, 8)) for _ in range(4)]
    expected = [FrozenEncoder(network, device="cpu").fit_transform(X) for X in rows]

    def work(number):
        for _ in range(5):
            results[number] = FrozenEncoder(network, device="cpu").fit_transform(rows[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[number], expected[number]) for number in range(4))


# --------------------------------------------------------------------------------------------------------------------
# Among other estimators


@pytest.mark.parametrize(
    "detector",
    [
        IsolationForest(random_state=0),
        LocalOutlierFactor(5, novelty=True),
        DUMDetector(hidden_sizes=(8,), max_epochs=2, random_state=0),
    ],
    ids=lambda detector: type(detector).__name__,
)
def test_first_in_a_pipeline(detector):
    encoder = FrozenEncoder(resnet())
    model = make_pipeline(encoder, detector).fit(IMAGES)
    expected = clone(detector).fit(clone(encoder).fit_transform(IMAGES)).score_samples(encoder.fit_transform(IMAGES))
    assert np.array_equal(model.score_samples(IMAGES), expected)
    assert set(model.predict(IMAGES)) <= {-1, 1}


def test_in_a_search():
    """Over layers, and over networks that are trained already."""
    y = np.arange(30) % 3
    classifier = BackboneClassifier(hidden_sizes=(6,), max_epochs=1, random_state=0).fit(ROWS, y)
    grid = [{"frozenencoder__layer": [None, "0"]}, {"frozenencoder__backbone": [FrozenEstimator(classifier)]}]
    model = make_pipeline(FrozenEncoder(perceptron()), LogisticRegression())
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(ROWS, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_names_of_features():
    frame = pd.DataFrame(ROWS, columns=list("abcd"), index=np.arange(30) + 5)
    encoder = FrozenEncoder(perceptron()).set_output(transform="pandas").fit(frame)
    features = encoder.transform(frame)
    assert list(features.columns) == [f"frozenencoder{number}" for number in range(6)]
    assert features.index.equals(frame.index)
    with pytest.raises(ValueError, match="feature names"):
        encoder.transform(frame[list("bacd")])


# --------------------------------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("encoder", "X", "message"),
    [
        (FrozenEncoder("resnet-26-16"), IMAGES, "backbone='resnet-26-16' is no trained network: pass a torch module"),
        (FrozenEncoder(BackboneClassifier()), IMAGES, "backbone=BackboneClassifier holds no trained torch module"),
        (FrozenEncoder(FrozenEncoder()), IMAGES, "FrozenEncoder instance is not fitted"),
        (FrozenEncoder(resnet()), IMAGES[:, :2], r"backbone does not take rows of images of shape \(2, 8, 8\)"),
        (
            FrozenEncoder(resnet()),
            IMAGES[:, :1],
            "X holds grey images, and the backbone takes.* in colour: pass channels=3",
        ),
        (
            FrozenEncoder(resnet(), channels=3),
            IMAGES,
            "channels=3 repeats the .* of grey images; X holds images of 3 ch",
        ),
        (FrozenEncoder(perceptron(), channels=3), ROWS, "channels=3 repeats the .* of grey images; X holds vectors"),
        (FrozenEncoder(channels=3), IMAGES[:, :1], f"channels must be None: .*'{SHIPPED}' has its own"),
        (
            FrozenEncoder(resnet(), channels=3, mean=(1, 2)),
            IMAGES[:, :1],
            r"mean=\(1, 2\) must be .* each of 3 channels",
        ),
        (FrozenEncoder(perceptron()), ROWS[:, :3], "backbone does not take rows of 3 features"),
        (FrozenEncoder(resnet(), layer="trunk"), IMAGES, "layer='trunk' is no layer of the backbone. Its last layers"),
        (FrozenEncoder(resnet(), pooling="max"), IMAGES, "pooling='max' is for maps, and the features of the backbone"),
        (FrozenEncoder(perceptron(), layer="0", pooling=(1, 1)), ROWS, r"pooling=\(1, 1\) is for maps.* of 6 numbers"),
        (
            FrozenEncoder(resnet(), layer="blocks.0", pooling=(5, 1)),
            IMAGES,
            r"pooling=\(5, 1\) needs maps.*\(8, 4, 4\)",
        ),
        (FrozenEncoder(nn.Unflatten(1, (2, 2)), pooling=(1, 2)), ROWS, r"pooling=\(1, 2\) needs maps.*gives \(2, 2\)"),
        *[
            (FrozenEncoder(resnet(), layer="stem", pooling=pooling), IMAGES, "must be 'mean', 'max', 'flatten', or a g")
            for pooling in ((2,), (2, 0), (2.0, 2), (True, 2), (1, 2, 3))
        ],
        (FrozenEncoder(resnet(), layer="stem", pooling="median"), IMAGES, "pooling"),
        (FrozenEncoder(RowsTogether()), ROWS, "a result for a row that depends on the other rows, or on chance"),
        (FrozenEncoder(RowsTogether("mean")), ROWS, "a result for a row that depends on the other rows"),
        (
            FrozenEncoder(mean=0.5),
            IMAGES,
            f"mean must be None: only a plain torch module takes them, and backbone='{SHIPPED}' has",
        ),
        (
            FrozenEncoder(nn.Flatten(), mean=(1, 2)),
            IMAGES,
            r"mean=\(1, 2\) must be one number, or one .* of 3 ch",
        ),
        (FrozenEncoder(nn.Flatten(), std=(1, 0, 1)), IMAGES, r"std=\(1, 0, 1\) must be positive"),
        (FrozenEncoder(nn.Flatten(), mean=np.nan), IMAGES, "mean=nan must be one number"),
        (FrozenEncoder(perceptron(), size=8), ROWS, "size is for images"),
        (FrozenEncoder(nn.Flatten(), size=0), IMAGES, "size"),
        (FrozenEncoder(nn.Flatten(), resize=9), IMAGES, "resize=9 needs a size of at most 9; got size=None"),
        (FrozenEncoder(nn.Flatten(), device="gpu"), IMAGES, "device='gpu' cannot be used"),
        (FrozenEncoder(3), IMAGES, "backbone"),
        (FrozenEncoder(nn.Flatten()), IMAGES[:1], "1 sample"),
        (FrozenEncoder(nn.Flatten()), np.where(IMAGES[2, 0, 0, 0] == IMAGES, np.nan, IMAGES), "NaN, first in row 2"),
    ],
)
def test_bad_input_is_named(encoder, X, message):
    with pytest.raises(ValueError, match=message):
        encoder.fit(X)
    with pytest.raises(NotFittedError):
        encoder.transform(X)


def test_other_rows_than_the_backbone_has_seen():
    y = np.arange(12) % 2
    classifier = BackboneClassifier("resnet-8-2", max_epochs=1, random_state=0).fit(BYTES, y)
    with pytest.raises(ValueError, match="backbone was fitted on uint8 images, but X holds others"):
        FrozenEncoder(classifier).fit(IMAGES)
    with pytest.raises(ValueError, match="backbone was fitted on 3 features or channels; X has 1 channels"):
        FrozenEncoder(classifier).fit(BYTES[:, :1])
    encoder = FrozenEncoder(classifier).fit(BYTES)
    with pytest.raises(ValueError, match="backbone was fitted on uint8 images"):
        FrozenEncoder(encoder).fit(IMAGES)


def test_pixels_that_are_not_scaled():
    with pytest.warns(RuntimeWarning, match=r"values from .* but the backbone takes pixels in \[0, 1\]") as caught:
        FrozenEncoder().fit(255 * IMAGES)
    # It says where in the caller's code.
    assert caught[0].filename == __file__


@pytest.mark.parametrize("scaling", [{"mean": (0.5, 0.4, 0.3)}, {"std": 0.2}])
def test_a_scaling_for_other_pixels(scaling):
    with pytest.warns(RuntimeWarning, match=r"values from .* but this mean and std are for pixels in \[0, 1\]"):
        FrozenEncoder(resnet(), **scaling).fit(255 * IMAGES)
    # Such a mean is for these pixels; and rows that were scaled otherwise are not pixels.
    FrozenEncoder(resnet(), mean=120, std=60).fit(255 * IMAGES)
    FrozenEncoder(resnet(), **scaling).fit(255 * IMAGES - 100)
    FrozenEncoder(resnet(), **scaling).fit(BYTES)


def test_images_are_cut():
    features = FrozenEncoder(nn.Flatten(), size=4, resize=8).fit_transform(IMAGES)
    np.testing.assert_allclose(features, IMAGES[:, :, 2:6, 2:6].reshape(12, -1), rtol=1e-6)


@pytest.mark.parametrize("size", [None, 6])
def test_grey_images_through_a_network_in_colour(size):
    grey = BYTES[:, :1]
    settings = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.1, 0.3), "size": size}
    features = FrozenEncoder(resnet(), channels=3, **settings).fit_transform(grey)
    np.testing.assert_array_equal(features, FrozenEncoder(resnet(), **settings).fit_transform(grey.repeat(3, axis=1)))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_traced_module():
    """Its output are the features; pytest makes errors of torch's warnings."""
    network = perceptron()
    encoder = FrozenEncoder(torch.jit.trace(network, torch.zeros(2, 4))).fit(ROWS)
    expected = FrozenEncoder(network, layer="").fit_transform(ROWS)
    # It computes its products itself, of widths as they are.
    np.testing.assert_allclose(encoder.transform(ROWS), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(clone(encoder).fit(ROWS).transform(ROWS[:1]), expected[:1], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="layer='0': a scripted or traced module does not show its layers"):
        FrozenEncoder(torch.jit.script(network), layer="0").fit(ROWS)
