import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from skood.networks import (
    MLP,
    AdaptedLayer,
    ResidualMLP,
    SmallCNN,
    WideResNet,
    adaptable_layers,
    adapter_state,
    adapters_of,
    add_residual_adapters,
    load_adapter_state,
    own_norms,
    share,
)
from skood.networks.padding import SymmetricConv2d
from skood.networks.resnet import ResNet


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tensors(module):
    return dict([*module.named_parameters(), *module.named_buffers()])


def snapshot(module):
    return {name: tensor.detach().clone() for name, tensor in tensors(module).items()}


def unchanged(module, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in tensors(module).items())


def own_parameters(adapted):
    """Of adapters and gates."""
    return [
        parameter
        for _, layer in adapters_of(adapted)
        for part in (layer.adapters, layer.gate)
        if part is not None
        for parameter in part.parameters()
    ]


def pretrained(network):
    """Running statistics and affine maps as of a network that has seen data; in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def small_resnet():
    return ResNet((3, 8, 8), 5, width=4, n_blocks=1)


def tied():
    """One layer in two places, one of them inside a part that is itself in two places."""
    layer, inner = nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4))
    return nn.Sequential(layer, inner, layer, inner, nn.Linear(4, 2))


class Attention(nn.Module):
    """A transformer block on tokens, its attention torch's; the mean over tokens is classified."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.perceptron = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.perceptron(self.norm2(x))).mean(1))


NETWORKS = {
    "mlp": (lambda: MLP(4, 3, (8, 6), dropout=0.1), (4,), 3),
    "residual": (lambda: ResidualMLP(4, 3, (8, 6)), (4,), 6),
    "linear": (lambda: nn.Linear(4, 3), (4,), 1),
    "cnn": (lambda: SmallCNN((1, 8, 8), 3), (1, 8, 8), 4),
    # Without its two 1x1 convolutions in the shortcuts.
    "wide": (lambda: WideResNet((3, 8, 8), 3, 10, 1), (3, 8, 8), 8),
    "resnet": (small_resnet, (3, 8, 8), 8),
    "tied": (tied, (4,), 3),
    "attention": (Attention, (5, 8), 3),
}
networks = pytest.mark.parametrize(("build", "shape", "n_layers"), NETWORKS.values(), ids=NETWORKS)


# --------------------------------------------------------------------------------------------------------------------
# The equations


def test_one_correction_by_hand():
    """Equation 2: the layer sums 3 x 3 pixels; 10 times the pixel in the middle is added. No gate."""
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    layer = AdaptedLayer(conv, 1)
    nn.init.constant_(layer.adapters[0].weight, 10.0)
    y = layer(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert y[0, 0].tolist() == [[10 + 10, 10 + 20], [10 + 30, 10 + 40]]
    assert layer.gate is None
    assert layer.gates(torch.zeros(2, 1, 2, 2)).tolist() == [[1], [1]]
    assert layer.layer is conv


def test_two_gated_corrections_by_hand():
    """Equation 3: the mean pixel x gives logits x ln 3 and 0, that is, gates 3 / 4 and 1 / 4 for x = 1."""
    conv = nn.Conv2d(1, 1, 2, bias=False)
    nn.init.ones_(conv.weight)
    layer = AdaptedLayer(conv, 2)
    with torch.no_grad():
        layer.adapters[0].weight.fill_(4.0)
        layer.adapters[1].weight.fill_(-8.0)
        layer.gate.weight.copy_(torch.tensor([[3.0], [1.0]]).log())
    images = torch.tensor([[[[-2.0, 1.0], [3.0, 2.0]]], [[[5.0, 7.0], [-6.0, -6.0]]]])
    torch.testing.assert_close(layer.gates(images), torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    # The pixel before the middle is the first one: 4 + (3 - 2) * -2 and 0 + (2 - 4) * 5.
    torch.testing.assert_close(layer(images).flatten(), torch.tensor([2.0, -10.0]))


def test_a_linear_layer_by_hand():
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
        linear.bias.fill_(1.0)
    layer = AdaptedLayer(linear, 2)
    with torch.no_grad():
        layer.adapters[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
        layer.adapters[1].weight.copy_(torch.tensor([[0.0, 4.0]]))
        layer.gate.weight.zero_()
        layer.gate.bias.copy_(torch.tensor([3.0, 1.0]).log())
    # 1 + 2 + 1 + 3/4 + 1 and 3 + 1 + 9/4.
    torch.testing.assert_close(layer(torch.tensor([[1.0, 1.0], [3.0, 0.0]])), torch.tensor([[5.75], [6.25]]))


def test_gates_are_of_rows_not_of_positions():
    layer = AdaptedLayer(nn.Linear(3, 4), 3, init="he")
    nn.init.normal_(layer.gate.weight, std=2.0)
    for shape in ((5, 3), (5, 7, 3), (5, 2, 6, 3)):
        x = torch.randn(shape)
        gates = layer.gates(x)
        assert gates.shape == (5, 3)
        torch.testing.assert_close(gates.sum(1), torch.ones(5))
        assert gates.std(0).min() > 0.05
        pooled = x.reshape(5, -1, 3).mean(1)
        torch.testing.assert_close(gates, (pooled @ layer.gate.weight.T).softmax(1))
        expected = layer.layer(x) + sum(
            torch.einsum("n,n...o->n...o", gates[:, k], x @ layer.adapters[k].weight.T) for k in range(3)
        )
        torch.testing.assert_close(layer(x), expected)
        # Nothing depends on the other rows.
        torch.testing.assert_close(layer(x[2:3]), expected[2:3])
    torch.testing.assert_close(layer(x[1, 0, 0]), layer(x[1:2, 0, 0])[0])


def test_gates_start_close_to_uniform():
    for layer, x in ((nn.Linear(400, 3), torch.randn(9, 400)), (nn.Conv1d(50, 3, 3), torch.randn(9, 50, 1))):
        gates = AdaptedLayer(layer, 4).gates(x)
        torch.testing.assert_close(gates, torch.full((9, 4), 0.25), rtol=0, atol=0.1)
        assert gates.std(0).min() > 1e-3


# --------------------------------------------------------------------------------------------------------------------
# The geometry of convolutions

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def sides(conv):
    """Pixels added before and after each dimension, for the oracle below."""
    if conv.padding == "valid":
        return [(0, 0)] * len(conv.kernel_size)
    if conv.padding == "same":
        extra = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return [(e // 2, e - e // 2) for e in extra]
    return [(p, p) for p in conv.padding]


def middle_pixels(conv, x):
    """Pad as the convolution does, cut out all windows, take the one pixel in the middle of each."""
    padding = [n for pair in reversed(sides(conv)) for n in pair]
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = functional.pad(x, padding, mode) if any(padding) else x
    for dim, (size, stride, dilation) in enumerate(zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)):
        extent = dilation * (size - 1) + 1
        padded = padded.unfold(2 + dim, extent, stride).select(-1, (extent - 1) // 2)
    return padded


def check_geometry(conv, x):
    layer = AdaptedLayer(conv, 2, init="he")
    assert layer(x).shape == conv(x).shape
    seen = middle_pixels(conv, x)
    expected = conv(x)
    for gate, adapter in zip(layer.gates(x).T, layer.adapters, strict=True):
        # A block-diagonal matrix does what groups do.
        matrix = torch.block_diag(*adapter.weight.flatten(1).chunk(conv.groups))
        expected = expected + torch.einsum("n,oc,nc...->no...", gate, matrix, seen)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    ("n_dims", "options"),
    [
        (1, {"kernel_size": 3, "padding": 1}),
        (1, {"kernel_size": 4, "padding": "same", "dilation": 3}),
        (2, {"kernel_size": 3, "padding": 1, "stride": 2}),
        (2, {"kernel_size": 3, "stride": 3, "groups": 2, "bias": False}),
        (2, {"kernel_size": 3, "padding": 1, "groups": 4}),
        (2, {"kernel_size": (5, 2), "padding": "valid", "stride": (1, 2)}),
        (2, {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)}),
        (2, {"kernel_size": (1, 7), "padding": (0, 3)}),
        (2, {"kernel_size": 3, "padding": (4, 0), "stride": (2, 1)}),
        (2, {"kernel_size": 4, "stride": 4}),
        (2, {"kernel_size": 1, "stride": 2, "padding": 1}),
        (2, {"kernel_size": 3, "padding": (3, 1), "padding_mode": "reflect"}),
        (2, {"kernel_size": 3, "padding": (4, 0), "padding_mode": "circular", "stride": 2}),
        (3, {"kernel_size": (3, 2, 1), "padding": (1, 2, 0), "stride": (1, 2, 2), "padding_mode": "replicate"}),
        (3, {"kernel_size": 3, "padding": "same", "groups": 2}),
    ],
)
def test_adapters_see_the_middle_of_each_window(n_dims, options):
    conv = CONVOLUTIONS[n_dims](4, 8, **options).double()
    check_geometry(conv, torch.randn(2, 4, *(9, 10, 5)[:n_dims], dtype=torch.float64))


@settings(max_examples=40)
@given(data=st.data())
def test_any_geometry(data):
    def draw(low, high):
        return data.draw(st.tuples(*[st.integers(low, high)] * 2))

    kernel, dilation, padding, stride = draw(1, 5), draw(1, 3), draw(0, 4), draw(1, 3)
    groups = data.draw(st.sampled_from([1, 2]))
    # Large enough for one window, and a few pixels more.
    shape = [d * (k - 1) + 1 + n for d, k, n in zip(dilation, kernel, draw(0, 5), strict=True)]
    conv = nn.Conv2d(2, 2, kernel, stride, padding, dilation, groups).double()
    check_geometry(conv, torch.randn(2, 2, *shape, dtype=torch.float64))


def test_symmetrically_padded_convolutions():
    conv = SymmetricConv2d(2, 3, 3, padding=1).double()
    check_geometry(conv, torch.randn(2, 2, 5, 6, dtype=torch.float64))


class Larger(nn.Conv2d):
    """Pads by itself."""

    def forward(self, x):
        return super().forward(functional.pad(x, (1, 1, 1, 1)))


def test_a_layer_of_another_shape_is_not_broadcast():
    layer = AdaptedLayer(Larger(2, 2, 3), 1)
    with pytest.raises(ValueError, match=r"gives \(1, 2, 1, 1\) cannot go beside a Larger that gives \(1, 2, 3, 3\)"):
        layer(torch.randn(1, 2, 3, 3))


# --------------------------------------------------------------------------------------------------------------------
# The start


def test_adapters_start_as_init_says():
    linear = nn.Linear(50, 40)
    for init, std in (("he", 0.2), ("near-zero", 0.002), ("zero", 0.0)):
        layer = AdaptedLayer(linear, 3, init=init)
        for adapter in layer.adapters:
            assert adapter.bias is None
            assert adapter.weight.std().item() == pytest.approx(std, rel=0.1)
        assert not layer.gate.bias.any()
    # Groups: 8 inputs each.
    grouped = AdaptedLayer(nn.Conv2d(32, 64, 3, groups=4), 1, init="he").adapters[0]
    assert grouped.weight.shape == (64, 8, 1, 1)
    assert grouped.weight.std().item() == pytest.approx(0.5, rel=0.1)


def test_low_rank():
    linear, x = nn.Linear(200, 100), torch.randn(500, 200)
    for init, std in (("he", 2**0.5), ("near-zero", 2**0.5 / 100), ("zero", 0.0)):
        adapter = AdaptedLayer(linear, 1, init=init, rank=20).adapters[0]
        assert [tuple(parameter.shape) for parameter in adapter.parameters()] == [(20, 200), (100, 20)]
        assert adapter(x).std().item() == pytest.approx(std, rel=0.1)
        assert adapter[0].weight.any()
    assert isinstance(AdaptedLayer(linear, 1, rank=100).adapters[0], nn.Linear)
    assert isinstance(AdaptedLayer(nn.Conv1d(9, 9, 3), 1, rank=1).adapters[0], nn.Conv1d)
    layer = AdaptedLayer(linear, 2, rank=20)
    product = sum(0.5 * second.weight @ first.weight for first, second in layer.adapters)
    nn.init.zeros_(layer.gate.weight)
    torch.testing.assert_close(layer(x), linear(x) + x @ product.T)


@pytest.mark.parametrize("n_adapters", [1, 2, 4])
def test_the_adapted_network_starts_as_the_pretrained_one(n_adapters):
    network, x = pretrained(small_resnet()), torch.randn(6, 3, 8, 8)
    y = network(x)
    assert torch.equal(add_residual_adapters(network, n_adapters, init="zero")(x), y)
    distance = (add_residual_adapters(network, n_adapters)(x) - y).norm() / y.norm()
    assert 1e-4 < distance < 0.05
    assert (add_residual_adapters(network, n_adapters, init="he")(x) - y).norm() > 0.2 * y.norm()


@networks
def test_all_adapters_and_gates_have_gradients(build, shape, n_layers):
    adapted = add_residual_adapters(build().requires_grad_(False), 2)
    adapted(torch.randn(8, *shape)).square().sum().backward()
    own = own_parameters(adapted)
    assert len(own) == 4 * n_layers
    assert all(parameter.requires_grad and parameter.grad.any() for parameter in own)
    # The two of a layer are not the same ones twice.
    for _, layer in adapters_of(adapted):
        first, second = (adapter.weight for adapter in layer.adapters)
        assert not torch.allclose(first, second, rtol=0.1)
    assert all(p.grad is None for p in adapted.parameters() if not any(p is other for other in own))


@pytest.mark.parametrize("build", [lambda: nn.Conv2d(3, 4, 3, padding=1), lambda: nn.Conv2d(4, 4, 3, 2, 1, groups=2)])
def test_gain(build):
    """A correction starts the same, and a step moves it by the gain squared."""
    torch.manual_seed(0)
    conv = build()
    x = torch.randn(5, conv.in_channels, 6, 6)
    before, moved = {}, {}
    for gain in (1.0, 3.0):
        torch.manual_seed(1)
        layer = AdaptedLayer(conv, 2, gain=gain)
        before[gain] = layer(x)
        before[gain].square().mean().backward()
        with torch.no_grad():
            for parameter in layer.adapters.parameters():
                parameter -= 1e-3 * parameter.grad
            moved[gain] = layer(x) - before[gain]
    torch.testing.assert_close(before[3.0], before[1.0])
    torch.testing.assert_close(moved[3.0], 9 * moved[1.0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_adapters": 0}, "at least 1 adapter; got n_adapters=0"),
        ({"init": "random"}, r"init must be one of \['near-zero', 'he', 'zero'\]; got 'random'"),
        ({"rank": 0}, "rank must be at least 1; got 0"),
        ({"gain": 0}, "gain must be positive; got 0"),
    ],
)
def test_options_out_of_range(options, message):
    for make in (AdaptedLayer, add_residual_adapters):
        with pytest.raises(ValueError, match=message):
            make(nn.Linear(2, 2), **options)


def test_other_layers_are_refused():
    with pytest.raises(ValueError, match="beside convolutions and linear layers; got a ConvTranspose2d"):
        AdaptedLayer(nn.ConvTranspose2d(2, 2, 3))


# --------------------------------------------------------------------------------------------------------------------
# Shared structures


class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.layers = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
        self.layers[1].weight = self.layers[0].weight


@pytest.mark.parametrize("build", [build for build, _, _ in NETWORKS.values()] + [Buffers], ids=[*NETWORKS, "buffers"])
def test_a_shared_structure_has_the_same_tensors_in_other_modules(build):
    module = build()
    copied = share(module)
    assert not set(copied.modules()) & set(module.modules())
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = (list(getattr(part, kind)(remove_duplicate=False)) for part in (copied, module))
        assert [name for name, _ in ours] == [name for name, _ in theirs]
        assert all(one is other for (_, one), (_, other) in zip(ours, theirs, strict=True))
    assert list(copied.state_dict()) == list(module.state_dict())


@networks
def test_the_original_is_untouched(build, shape, n_layers):
    module = build()
    # Half of it frozen, some in evaluation mode.
    for parameter in itertools.islice(module.parameters(), 2):
        parameter.requires_grad_(False)
    next(iter(module.children()), module).eval()
    submodules, flags = list(module.named_modules()), [part.training for part in module.modules()]
    before, held, frozen = snapshot(module), tensors(module), [p.requires_grad for p in module.parameters()]
    adapted = add_residual_adapters(module, 2)
    assert [(name, id(part)) for name, part in module.named_modules()] == [(n, id(part)) for n, part in submodules]
    assert [part.training for part in module.modules()] == flags
    assert [p.requires_grad for p in module.parameters()] == frozen
    assert all(tensor is held[name] for name, tensor in tensors(module).items())
    assert unchanged(module, before)
    # Nothing is there twice, and the rest is the adapters'.
    shared = {id(tensor) for tensor in held.values()}
    assert {id(t) for t in tensors(adapted).values()} == shared | {id(p) for p in own_parameters(adapted)}
    for name, layer in adapters_of(adapted):
        assert layer.layer.weight is module.get_submodule(name).weight
        assert {part.training for part in layer.modules()} == {module.get_submodule(name).training}
    assert len(list(adapters_of(adapted))) == len(adaptable_layers(module)) == n_layers
    assert adapted.eval()(torch.randn(2, *shape)).shape == module.eval()(torch.randn(2, *shape)).shape


def test_two_tasks_train_on_one_base():
    base = pretrained(small_resnet()).requires_grad_(False)
    x, before = torch.randn(8, 3, 8, 8), snapshot(base)
    expected = base(x)
    tasks = [add_residual_adapters(base, 2) for _ in range(2)]
    untrained = tasks[1](x)
    for adapted, sign in zip(tasks, (1, -1), strict=True):
        adapted.eval()
        optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.05)
        losses = []
        for _ in range(5):
            # The first ends while the other's start is as it was.
            loss = (sign * adapted(x)).tanh().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.01
        if sign == 1:
            assert torch.equal(tasks[1](x), untrained)
    assert unchanged(base, before)
    assert torch.equal(base(x), expected)
    assert (tasks[1](x) - tasks[0](x)).mean() > 0.01


def test_a_layer_in_several_places_is_adapted_once():
    module = tied()
    assert adaptable_layers(module) == ["0", "1.1", "4"]
    for layers, names in ((None, ["0", "1.1", "4"]), (["2"], ["0"]), (["0", "2", "3.1"], ["0", "1.1"])):
        adapted = add_residual_adapters(module, layers=layers)
        assert [name for name, _ in adapters_of(adapted)] == names
        assert adapted[2] is adapted[0]
        assert isinstance(adapted[0], AdaptedLayer)
        assert adapted[3] is adapted[1]
    assert isinstance(adapted[1][1], AdaptedLayer)


def test_chosen_layers():
    module = small_resnet()
    layers = ["blocks.1.conv2", "head"]
    adapted = add_residual_adapters(module, 3, layers=layers, rank=2)
    assert [name for name, _ in adapters_of(adapted)] == layers
    assert len(adapted.head.adapters) == 3
    assert len(adapted.head.adapters[0]) == 2
    # By name, a 1x1 convolution too.
    module = nn.Sequential(nn.Conv2d(2, 3, 1))
    assert adaptable_layers(module) == []
    assert isinstance(add_residual_adapters(module, layers=["0"])[0], AdaptedLayer)


def test_a_single_layer():
    linear = nn.Linear(3, 2)
    assert adaptable_layers(linear) == [""]
    for layers in (None, [""]):
        adapted = add_residual_adapters(linear, 1, layers=layers)
        assert isinstance(adapted, AdaptedLayer)
        assert adapted.layer is not linear
        assert adapted.layer.weight is linear.weight
    assert [name for name, _ in adapters_of(adapted)] == [""]


@pytest.mark.parametrize(
    ("module", "layers", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 1, 3)), None, "module has no layer to adapt"),
        (MLP(4, 2, (3,)), [], "module has no layer to adapt"),
        (MLP(4, 2, (3,)), ["0", "7"], "module has no layer named '7'"),
        (MLP(4, 2, (3,)), ["0", "1"], "layer '1' is a ReLU, neither a convolution nor a linear layer"),
        (MLP(4, 2, (3,)), [""], "layer '' is a MLP, neither"),
        (nn.Sequential(nn.ConvTranspose2d(1, 1, 3)), ["0"], "layer '0' is a ConvTranspose2d, neither"),
        (nn.Sequential(nn.LazyLinear(3)), ["0"], "layer '0' cannot have adapters"),
        (Attention(), ["attention.out_proj"], r"layer 'attention.out_proj' cannot have adapters"),
        (add_residual_adapters(MLP(4, 2, (3,))), None, "module has residual adapters already"),
        (AdaptedLayer(nn.Linear(4, 2)), None, "module has residual adapters already"),
    ],
)
def test_layers_that_cannot_be_adapted(module, layers, message):
    with pytest.raises(ValueError, match=message):
        add_residual_adapters(module, layers=layers)


def test_which_layers_are_adaptable():
    module = nn.Sequential(
        *(nn.Conv1d(1, 1, 3), nn.Conv2d(1, 1, (1, 2)), nn.Conv3d(1, 1, 2), nn.Linear(1, 1)),
        *(nn.Conv2d(1, 1, 1, stride=2), nn.ConvTranspose1d(1, 1, 3), nn.Bilinear(1, 1, 1), nn.LSTM(1, 1)),
        *(nn.LazyConv2d(1, 3), nn.LazyLinear(1)),
        nn.MultiheadAttention(4, 2),
        nn.TransformerEncoderLayer(4, 2, 4, batch_first=False),
        nn.TransformerDecoderLayer(4, 2, 4, batch_first=True),
    )
    assert adaptable_layers(module) == ["0", "1", "2", "3", "12.linear1", "12.linear2"]
    lazy = nn.Sequential(nn.LazyLinear(2))
    lazy(torch.zeros(1, 3))
    assert adaptable_layers(lazy) == ["0"]


# --------------------------------------------------------------------------------------------------------------------
# Transformers


def test_attention_in_training_and_evaluation():
    network, x = Attention(), torch.randn(4, 5, 8)
    assert adaptable_layers(network) == ["perceptron.0", "perceptron.2", "head"]
    adapted = add_residual_adapters(network, init="he")
    with torch.no_grad():
        results = [adapted.train(training)(x) for training in (True, False)]
        torch.testing.assert_close(*results)
        assert (results[0] - network(x)).abs().min() > 1e-3
        torch.testing.assert_close(adapted(x[1:2]), results[0][1:2])


def test_torchs_transformers_do_not_pass_by_the_adapters():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)
    adapted = add_residual_adapters(encoder, init="he")
    assert len(list(adapters_of(adapted))) == 4
    x, mask = torch.randn(3, 5, 8), torch.tensor([[False] * 5, [False] * 4 + [True], [False] * 5])
    for options in ({}, {"src_key_padding_mask": mask}):
        with torch.no_grad():
            expected = adapted.train()(x, **options)
            torch.testing.assert_close(adapted.eval()(x, **options), expected)
            assert (encoder(x, **options) - expected)[0].abs().max() > 0.1


# --------------------------------------------------------------------------------------------------------------------
# The adapters' state


@pytest.mark.parametrize("build", [small_resnet, Attention, lambda: nn.Linear(8, 5)])
def test_a_state_goes_around(build):
    base = build().eval()
    x = torch.randn(4, 3, 8, 8) if isinstance(base, ResNet) else torch.randn(4, 5, 8)
    first, second = (add_residual_adapters(base, 2, init="he") for _ in range(2))
    state = adapter_state(first)
    own = {id(parameter) for parameter in own_parameters(first)}
    assert set(state) == {name for name, parameter in first.named_parameters() if id(parameter) in own}
    assert not torch.equal(second(x), first(x))
    load_adapter_state(second, state)
    assert torch.equal(second(x), first(x))
    # The state is a copy, both ways.
    with torch.no_grad():
        for parameter in own_parameters(first):
            parameter += 1
    assert not any(value.requires_grad for value in state.values())
    assert all(torch.equal(value, second.get_parameter(name)) for name, value in state.items())
    assert not {id(value) for value in state.values()} & {id(parameter) for parameter in own_parameters(second)}


def test_a_state_that_does_not_fit_loads_nothing():
    adapted = add_residual_adapters(MLP(4, 2, (3,)), 2, layers=["0"])
    before, state = snapshot(adapted), adapter_state(adapted)
    assert list(state) == ["0.adapters.0.weight", "0.adapters.1.weight", "0.gate.weight", "0.gate.bias"]
    other = {name: torch.ones_like(value) for name, value in state.items()}
    without = {name: value for name, value in other.items() if name != "0.gate.bias"}
    for wrong, message in (
        (without, r"0\.gate\.bias: nothing instead of \(2,\)\."),
        (other | {"0.layer.weight": torch.ones(3, 4)}, r"0\.layer\.weight: \(3, 4\) instead of nothing\."),
        (other | {"0.gate.weight": torch.ones(3, 4)}, r"0\.gate\.weight: \(3, 4\) instead of \(2, 4\)\."),
        (without | {"a": torch.ones(())}, r"0\.gate\.bias: nothing instead of \(2,\); a: \(\) instead of nothing\."),
    ):
        with pytest.raises(ValueError, match=rf"state does not fit these adapters: {message}"):
            load_adapter_state(adapted, wrong)
        assert unchanged(adapted, before)
    load_adapter_state(adapted, other)
    assert not unchanged(adapted, before)
    assert adapter_state(MLP(4, 2, (3,))) == {}


# --------------------------------------------------------------------------------------------------------------------
# Norms


def test_own_norms_train_and_the_base_stays():
    base = small_resnet().requires_grad_(False)
    before = snapshot(base)
    adapted = add_residual_adapters(base, 2)
    norms = own_norms(adapted)
    assert norms == [module for module in adapted.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 8
    theirs = [module for module in base.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm, other in zip(norms, theirs, strict=True):
        assert unchanged(norm, tensors(other))
        assert not {id(tensor) for tensor in tensors(norm).values()} & {id(t) for t in tensors(other).values()}
        assert norm.weight.requires_grad
        assert norm.bias.requires_grad
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        adapted.train()(torch.randn(8, 3, 8, 8) + 1).square().mean().backward()
        optimizer.step()
    assert unchanged(base, before)
    assert all(norm.num_batches_tracked == 2 for norm in norms)
    assert not any(torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean)) for norm in norms)
    assert not any(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in norms)
    # Without them, the same training changes the base.
    add_residual_adapters(base, 2).train()(torch.randn(8, 3, 8, 8))
    assert not unchanged(base, before)


def test_all_kinds_of_norms():
    module = nn.Sequential(
        *(nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.RMSNorm(4), nn.InstanceNorm1d(4, affine=True), nn.Linear(4, 4)),
        nn.BatchNorm1d(4, affine=False),
        nn.BatchNorm1d(4, track_running_stats=False),
        # Nothing to own.
        *(nn.LayerNorm(4, elementwise_affine=False), nn.InstanceNorm1d(4)),
    )
    module[1].weight = module[0].weight
    module.requires_grad_(False)
    shared = share(module)
    assert own_norms(shared) == [shared[number] for number in (0, 1, 2, 3, 5, 6)]
    common = {id(tensor) for tensor in tensors(shared).values()} & {id(tensor) for tensor in tensors(module).values()}
    assert common == {id(module[4].weight), id(module[4].bias)}
    assert not any(parameter.requires_grad for parameter in module.parameters())
    # What was one tensor still is.
    assert shared[0].weight is shared[1].weight
    assert type(shared[5].running_mean) is torch.Tensor


# --------------------------------------------------------------------------------------------------------------------
# What is done to modules


@networks
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), share])
def test_copies_answer_as_the_original(copied, build, shape, n_layers):
    adapted, x = add_residual_adapters(build(), 2, rank=2).eval(), torch.randn(3, *shape)
    twin = copied(adapted)
    assert torch.equal(twin(x), adapted(x))
    n_common = len({id(p) for p in twin.parameters()} & {id(p) for p in adapted.parameters()})
    assert n_common == (len(list(adapted.parameters())) if copied is share else 0)
    twin = copy.deepcopy(adapted).double()
    assert {p.dtype for p in twin.parameters()} == {torch.float64}
    torch.testing.assert_close(twin(x.double()).float(), adapted(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_adapters_have_the_layers_dtype(dtype):
    for layer, x in ((nn.Linear(4, 3), torch.randn(2, 4)), (nn.Conv2d(4, 3, 3), torch.randn(2, 4, 3, 3))):
        adapted = AdaptedLayer(layer.to(dtype), 2, rank=1)
        assert {p.dtype for p in adapted.parameters()} == {dtype}
        assert adapted(x.to(dtype)).dtype == dtype


@networks
def test_autocast(build, shape, n_layers, device):
    network, x = build().eval().to(device), torch.randn(4, *shape, device=device)
    adapted = add_residual_adapters(network, 2)
    dtypes = []
    for _, layer in adapters_of(adapted):
        layer.layer.register_forward_hook(lambda module, taken, y: dtypes.append(y.dtype))
        layer.register_forward_hook(lambda module, taken, y: dtypes.append(y.dtype))
    with torch.autocast(device, dtype=torch.bfloat16):
        y = adapted(x)
        assert y.dtype == network(x).dtype
    assert len(dtypes) >= 2 * n_layers
    assert set(dtypes) == {torch.bfloat16}
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in own_parameters(adapted))


def test_the_layers_argument_has_its_name():
    layer, x = AdaptedLayer(nn.Linear(3, 2)), torch.randn(4, 3)
    assert torch.equal(layer(input=x), layer(x))


def test_parametrised_weights_are_shared():
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3)))
    adapted, x = add_residual_adapters(module, init="zero"), torch.randn(2, 2, 4, 4)
    assert torch.equal(adapted(x), module(x))
    own = {id(parameter) for parameter in own_parameters(adapted)}
    assert {id(p) for p in adapted.parameters()} - own == {id(p) for p in module.parameters()}


def test_on_a_device(device):
    adapted = add_residual_adapters(small_resnet().to(device), 2)
    assert {parameter.device.type for parameter in adapted.parameters()} == {device}
    adapted(torch.randn(4, 3, 8, 8, device=device)).sum().backward()
    state = adapter_state(adapted)
    assert {value.device.type for value in state.values()} == {"cpu"}
    load_adapter_state(adapted, state)
