import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skood.networks import symmetric_padding
from skood.networks.padding import SymmetricConv2d, pad_symmetric


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 1), (2, 0), (0, 3), (3, 3), (4, 1), (11, 5), (2, 17)])
def test_symmetric_padding_is_numpys(left, right):
    for x in (torch.arange(6.0).reshape(2, 3), torch.randn(2, 1)):
        padded = pad_symmetric(x, left, right, 1)
        assert np.array_equal(padded, np.pad(x, [(0, 0), (left, right)], mode="symmetric"))
    x = torch.arange(3)
    assert pad_symmetric(x, 2, 4, 0).tolist() == [1, 0, 0, 1, 2, 2, 1, 0, 0]


@pytest.mark.parametrize(
    ("options", "rows", "columns"),
    [
        ({"kernel_size": 3, "padding": 1}, (1, 1), (1, 1)),
        ({"kernel_size": 5, "padding": (2, 1), "stride": 2, "groups": 2}, (2, 2), (1, 1)),
        ({"kernel_size": (4, 3), "padding": "same", "bias": False}, (1, 2), (1, 1)),
        ({"kernel_size": 3, "padding": "same", "dilation": (3, 1)}, (3, 3), (1, 1)),
        ({"kernel_size": 3, "padding": 7}, (7, 7), (7, 7)),
    ],
)
def test_symmetric_convolution_is_a_convolution_of_a_padded_image(options, rows, columns):
    conv = nn.Conv2d(2, 4, **options)
    weight, names = conv.weight, list(conv.state_dict())
    network = nn.Sequential(conv)
    assert symmetric_padding(network) is network
    assert isinstance(network[0], SymmetricConv2d)
    assert network[0].weight is weight
    assert list(network[0].state_dict()) == names
    x = torch.randn(3, 2, 5, 6)
    padded = torch.from_numpy(np.pad(x, [(0, 0), (0, 0), rows, columns], mode="symmetric"))
    expected = functional.conv2d(padded, weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
    torch.testing.assert_close(network(x), expected)
    torch.testing.assert_close(network(x[0]), expected[0])
    # The same, made from the start or done twice.
    made = SymmetricConv2d(2, 4, **options)
    made.load_state_dict(conv.state_dict())
    assert torch.equal(symmetric_padding(made)(x), network(x))


def test_a_constant_image_shows_no_border():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    ones = torch.ones(1, 1, 4, 4)
    assert conv(ones)[0, 0, 0].tolist() == [4, 6, 6, 4]
    assert (symmetric_padding(conv)(ones) == 9).all()


def test_only_zero_padding_is_replaced():
    network = nn.Sequential(
        nn.Conv2d(1, 1, 3),
        nn.Conv2d(1, 1, 1, padding="same"),
        nn.Conv2d(1, 1, 3, padding="valid"),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        nn.Conv1d(1, 1, 3, padding=1),
    )
    assert not any(isinstance(layer, SymmetricConv2d) for layer in symmetric_padding(network))


class Standardised(nn.Conv2d):
    pass


def test_convolutions_of_other_classes_are_refused():
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), Standardised(1, 1, 3, padding=1))
    with pytest.raises(ValueError, match="network has a Standardised, and only a plain"):
        symmetric_padding(network)
    assert type(network[0]) is nn.Conv2d
    symmetric_padding(Standardised(1, 1, 3))
