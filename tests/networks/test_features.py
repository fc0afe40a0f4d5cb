"""Features: what a layer of a network takes or gives, and which layers run before."""

import pytest
import torch
from torch import nn

from skood.networks import MLP, ResNet, adaptable_layers, feature_layer, layers_before


def perceptron(n_features=3, n_outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(*MLP(n_features, n_outputs, (6, 5))).eval()


def resnet():
    torch.manual_seed(0)
    return ResNet((1, 8, 8), 3, width=2, n_blocks=1).eval()


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


class PixelByPixel(nn.Sequential):
    """Classifies each pixel by linear layers, which have the features last, and averages over the pixels."""

    def forward(self, images):
        return super().forward(images.movedim(1, -1)).mean((1, 2))


def test_maps_of_linear_layers_have_the_features_last():
    torch.manual_seed(0)
    network, images = PixelByPixel(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)), torch.rand(4, 3, 8, 5)
    maps = network[0](images.movedim(1, -1))
    torch.testing.assert_close(feature_layer(network, (3, 8, 5), "0")(images), maps.mean((1, 2)))
    by_cell = feature_layer(network, (3, 8, 5), "0", pooling=(8, 5))(images)
    torch.testing.assert_close(by_cell, maps.movedim(-1, 1).flatten(1))
    # The input of the last layer, whose weights give the result.
    features = feature_layer(network, (3, 8, 5), None)(images)
    torch.testing.assert_close(network[2](features), network(images))


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
