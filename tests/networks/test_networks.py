import pytest
import torch
from torch import nn

from skood.networks import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    ImageNetResNet,
    Projected,
    ResidualMLP,
    ResNet,
    SmallCNN,
    WideResNet,
    make_classifier,
    widen_head,
)
from skood.networks.hypersphere import initialised
from skood.networks.resnet import IMAGENET_NETWORKS, resnet_size
from skood.networks.wide_resnet import wide_resnet_size


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("depth", "widen", "millions"), [(16, 2, 0.7), (40, 2, 2.2), (28, 10, 36.5)])
def test_wide_resnets_have_as_many_weights_as_in_their_paper(depth, widen, millions):
    with torch.device("meta"):
        module = WideResNet((3, 32, 32), 10, depth, widen)
    assert n_parameters(module) / 1e6 == pytest.approx(millions, abs=0.05)
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    # d also counts the convolutions of the shortcuts, one a group.
    assert len(convolutions) == depth - 3


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 9), (2, 1, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_small_network_is_its_layers_one_after_the_other(shape, memory_format):
    """In whatever order the pixels lie in memory."""
    module, images = SmallCNN(shape, 5, channels=(4, 6)).eval(), torch.rand(3, *shape)
    values = images
    for layer in module:
        values = layer(values)
    torch.testing.assert_close(module(images.contiguous(memory_format=memory_format)), values)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_small_network_pools_with_channels_last(n_channels):
    module, seen = SmallCNN((n_channels, 8, 8), 5), []
    for layer in module:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module(torch.rand(2, n_channels, 8, 8))
    assert len(seen) == 2
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)


@pytest.mark.parametrize("network", ["wrn-10-1", "resnet-18", "resnet-50"])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_wide_and_imagenet_networks_compute_with_channels_last(network, n_channels):
    """All their convolutions but the first, and so their gradients, whatever the layout of the images."""
    module, seen = make_classifier(network, (n_channels, 16, 16), 5, hidden_sizes=(), dropout=0.0), []
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    for layer in convolutions[1:]:
        layer.register_forward_hook(lambda _, args, maps: seen.extend([*args, maps]))
    module(torch.rand(2, n_channels, 16, 16))
    assert len(seen) == 2 * len(convolutions[1:])
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (3, 7, 33)])
def test_networks_for_images_take_any_size(shape):
    larger = {"extra_group": True, "early_pool": True, "stem_stride": 2}
    small, wide = SmallCNN(shape, 5), WideResNet(shape, 5, 10, 1)
    residual = ResNet(shape, 5, 2, 1), ImageNetResNet(shape, 5, width=2)
    residual += tuple(ImageNetResNet(shape, 5, width=2, bottlenecks=True, strided_stem=stem) for stem in (True, False))
    for module in (small, wide, WideResNet(shape, 5, 10, 1, **larger), *residual):
        assert module(torch.zeros(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (3, 32, 32), (2, 1, 13), (3, 33, 17)])
@pytest.mark.parametrize("kernel_size", [3, 4, 5])
def test_convolutional_autoencoders_take_any_size(shape, kernel_size):
    encoder = ConvEncoder(shape, 6, kernel_size=kernel_size)
    decoder = ConvDecoder(3, shape, kernel_size=kernel_size)
    assert encoder(torch.zeros(2, *shape)).shape == (2, 6)
    assert decoder(torch.zeros(2, 3)).shape == (2, *shape)


def test_convolutional_autoencoders_are_the_papers():
    options = {"kernel_size": 4, "hidden_size": None, "batch_norm": True}
    encoder, decoder = ConvEncoder((3, 32, 32), 200, **options), ConvDecoder(100, (3, 32, 32), **options)
    down = [layer for layer in encoder if isinstance(layer, nn.Conv2d)]
    up = [layer for layer in decoder if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in down] == [32, 64, 128]
    assert [layer.in_channels for layer in up] == [128, 64, 32]
    assert {layer.kernel_size for layer in (*down, *up)} == {(4, 4)}
    assert encoder[-1].in_features == decoder[0].out_features == 128 * 4 * 4
    # Both ends are linear: nothing is normalised after the last layer.
    assert isinstance(decoder[-1], nn.ConvTranspose2d)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in decoder) == 3
    grey = [layer for layer in ConvEncoder((1, 28, 28), 20) if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert [layer.weight.shape[0] for layer in grey] == [32, 64, 256, 20]
    assert grey[2].in_features == 64 * 7 * 7


def sizes_of_maps(module, images):
    """Side and channels after each block of a wide residual network, without repetition."""
    seen = []
    hooks = [block.register_forward_hook(lambda *args: seen.append(args[-1].shape[:0:-2])) for block in module.blocks]
    module(images)
    for hook in hooks:
        hook.remove()
    return [tuple(size) for number, size in enumerate(seen) if number == 0 or size != seen[number - 1]]


@pytest.mark.parametrize(
    ("side", "options", "n_blocks", "sizes"),
    [
        (32, {}, 12, [(32, 64), (16, 128), (8, 256)]),
        # STL-10, ImageNet, and ImageNet beside contrastive predictive coding.
        (96, {"extra_group": True}, 16, [(96, 64), (48, 128), (24, 256), (12, 256)]),
        (224, {"extra_group": True, "early_pool": True}, 16, [(112, 64), (56, 128), (28, 256), (14, 256)]),
        (
            224,
            {"extra_group": True, "early_pool": True, "stem_stride": 2},
            16,
            [(56, 64), (28, 128), (14, 256), (7, 256)],
        ),
    ],
)
def test_wide_resnets_for_larger_images(side, options, n_blocks, sizes):
    with torch.device("meta"):
        module = WideResNet((3, side, side), 10, 28, 4, **options)
        assert sizes_of_maps(module, torch.zeros(2, 3, side, side)) == sizes
        assert module(torch.zeros(2, 3, side, side)).shape == (2, 10)
        assert module.patch_features(torch.zeros(2, 3, side // 4, side // 4)).shape == (2, 256)
    assert len(module.blocks) == n_blocks


def test_options_of_wide_resnets_leave_the_others_alone():
    """Weights have the names and, with a seed, the values that they have without the options."""
    torch.manual_seed(0)
    plain = WideResNet((3, 8, 8), 5, 10, 1).state_dict()
    torch.manual_seed(0)
    pooled = WideResNet((3, 8, 8), 5, 10, 1, early_pool=True, stem_stride=2).state_dict()
    assert list(pooled) == list(plain)
    assert all(torch.equal(pooled[name], plain[name]) for name in plain)
    assert set(plain) < set(WideResNet((3, 8, 8), 5, 10, 1, extra_group=True).state_dict())


def test_early_pooling_averages_what_there_is():
    module = WideResNet((3, 8, 8), 5, 10, 1, early_pool=True)
    assert module.pool(torch.tensor([[[[1.0, 2.0, 4.0]]]])).tolist() == [[[[1.5, 4.0]]]]


def test_features_of_patches_are_those_of_three_groups():
    torch.manual_seed(0)
    module = WideResNet((3, 8, 8), 5, 16, 1, extra_group=True, early_pool=True, stem_stride=2).eval()
    x = torch.randn(2, 3, 8, 8)
    y = module.blocks[:6](module.pool(module.stem(x)))
    # The fourth group, the last norm and the head take no part.
    for part in (*module.blocks[6:], module.norm, module.head):
        for parameter in part.parameters():
            torch.nn.init.constant_(parameter, torch.nan)
    torch.testing.assert_close(module.patch_features(x), y.mean((2, 3)))


def test_dropout_is_for_training():
    vectors = [build(4, 3, (8,), dropout=0.5) for build in (MLP, ResidualMLP)]
    for module in (SmallCNN((1, 8, 8), 3, dropout=0.5), WideResNet((1, 8, 8), 3, 10, 1, dropout=0.5), *vectors):
        x = torch.randn(2, 4) if module in vectors else torch.ones(2, 1, 8, 8)
        assert not torch.equal(module(x), module(x))
        module.eval()
        assert torch.equal(module(x), module(x))


def test_resnet_26_is_that_of_residual_adapters():
    with torch.device("meta"):
        module = ResNet((3, 72, 72), 1000)
        assert sizes_of_maps(module, torch.zeros(2, 3, 72, 72)) == [(36, 64), (18, 128), (9, 256)]
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    # A stem, 24 in the blocks, the classifier: shortcuts have no weights.
    assert (len(convolutions), len(linear)) == (1 + 24, 1)
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert sum(layer.weight.numel() for layer in convolutions) / 1e6 == pytest.approx(5.81, abs=0.005)
    assert n_parameters(module) / 1e6 == pytest.approx(6.07, abs=0.005)


@pytest.mark.parametrize("side", [1, 2, 5, 6])
def test_maps_of_resnets_are_halved_and_rounded_up(side):
    module = ResNet((1, side, 2 * side), 3, 2, 1)
    seen = []
    for block in module.blocks:
        block.register_forward_hook(lambda *args: seen.append(tuple(args[-1].shape[1:])))
    assert module(torch.zeros(2, 1, side, 2 * side)).shape == (2, 3)
    for number, shape in enumerate(seen, start=1):
        assert shape == (2 * 2**number, -(-side // 2**number), -(-2 * side // 2**number))


def test_shortcuts_of_resnets_average_and_add_zeros():
    """With convolutions of zeros only the shortcut is left: one channel of 3x3 pixels becomes two of 2x2."""
    block = ResNet((1, 3, 3), 2, 1, 1).blocks[0].eval()
    for parameter in (block.conv1.weight, block.conv2.weight):
        nn.init.zeros_(parameter)
    given = block(torch.tensor([[[[1.0, 3.0, 5.0], [5.0, 7.0, 1.0], [2.0, 4.0, -6.0]]]]))
    # The last column and row hold fewer pixels; what is negative the ReLU takes.
    assert given.tolist() == [[[[4, 3], [3, 0]], [[0, 0], [0, 0]]]]
    plain = ResNet((1, 3, 3), 2, 1, 2).blocks[1].eval()
    nn.init.zeros_(plain.conv2.weight)
    rows = torch.rand(2, 2, 3, 3)
    assert torch.equal(plain(rows), rows)


PUBLISHED = {"resnet-18": 11_689_512, "resnet-34": 21_797_672, "resnet-50": 25_557_032}


def imagenet_resnet(name, side, n_classes=1000, **options):
    n_blocks, bottlenecks = IMAGENET_NETWORKS[name]
    return ImageNetResNet((3, side, side), n_classes, n_blocks, bottlenecks=bottlenecks, **options)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("side", [32, 95, 96, 224])
def test_resnets_of_imagenet(name, side):
    with torch.device("meta"):
        module, images = imagenet_resnet(name, side), torch.zeros(2, 3, side, side)
        seen = []
        for number in range(1, 5):
            stage = getattr(module, f"layer{number}")
            stage.register_forward_hook(lambda *args: seen.append(args[-1].shape[1:]))
        assert module(images).shape == (2, 1000)
    large, factor = side >= 96, 4 if name == "resnet-50" else 1
    first = side // 4 if large else side
    assert seen == [(factor * 64 * 2**number, *[-(-first // 2**number)] * 2) for number in range(4)]
    # The stem of those published has 7x7 pixels.
    assert n_parameters(module) == PUBLISHED[name] - (0 if large else 3 * 64 * (49 - 9))
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    n_shortcuts = sum("downsample.0" in key for key in module.state_dict())
    assert len(layers) - n_shortcuts == int(name.removeprefix("resnet-"))


def test_weights_have_the_names_and_shapes_of_torchvisions():
    """Names that torchvision's networks have, written out for the stem, some blocks and the head."""
    norm = ("weight", "bias", "running_mean", "running_var")
    by_hand = {
        "resnet-18": {
            **{"conv1.weight": (64, 3, 7, 7), "layer1.0.conv1.weight": (64, 64, 3, 3)},
            **{"layer2.0.conv1.weight": (128, 64, 3, 3), "layer2.0.downsample.0.weight": (128, 64, 1, 1)},
            **{f"layer2.0.downsample.1.{part}": (128,) for part in norm},
            **{"layer4.1.conv2.weight": (512, 512, 3, 3), "fc.weight": (1000, 512), "fc.bias": (1000,)},
        },
        "resnet-50": {
            **{f"bn1.{part}": (64,) for part in norm},
            **{"layer1.0.conv1.weight": (64, 64, 1, 1), "layer1.0.conv2.weight": (64, 64, 3, 3)},
            **{"layer1.0.conv3.weight": (256, 64, 1, 1), "layer1.0.downsample.0.weight": (256, 64, 1, 1)},
            **{"layer1.1.conv1.weight": (64, 256, 1, 1), "layer3.5.conv2.weight": (256, 256, 3, 3)},
            **{f"layer4.2.bn3.{part}": (2048,) for part in norm},
            **{"fc.weight": (1000, 2048), "fc.bias": (1000,), "bn1.num_batches_tracked": ()},
        },
    }
    # As many entries as torchvision's: a weight for each convolution, five for each normalisation, two for the head.
    n_entries = {"resnet-18": 20 * 6 + 2, "resnet-50": 53 * 6 + 2}
    for name, expected in by_hand.items():
        with torch.device("meta"):
            state = imagenet_resnet(name, 224).state_dict()
        assert expected == {key: tuple(state[key].shape) for key in expected}
        assert len(state) == n_entries[name]
        assert not {"layer1.1.downsample.0.weight", "maxpool.weight"} & set(state)


def test_weights_are_read_from_a_file(tmp_path):
    torch.manual_seed(0)
    given, images = imagenet_resnet("resnet-50", 96, 5, width=2).eval(), torch.rand(2, 3, 96, 96)
    torch.save(given.state_dict(), tmp_path / "resnet50.pth")
    read = imagenet_resnet("resnet-50", 96, 5, width=2).eval()
    assert not torch.equal(read(images), given(images))
    read.load_state_dict(torch.load(tmp_path / "resnet50.pth", weights_only=True))
    assert torch.equal(read(images), given(images))


def test_bottlenecks_by_hand():
    """With last convolutions of zeros only the shortcuts are left, which keep what is positive."""
    module = ImageNetResNet((1, 4, 4), 2, (2, 1, 1, 1), width=1, bottlenecks=True).eval()
    block, rows = module.layer1[1], torch.rand(2, 4, 4, 4)
    nn.init.zeros_(block.conv3.weight)
    assert torch.equal(block(rows), rows)
    strided = module.layer2[0]
    assert (strided.conv1.stride, strided.conv2.stride, strided.downsample[0].stride) == ((1, 1), (2, 2), (2, 2))


def test_the_published_stem_on_request():
    small, large = (imagenet_resnet("resnet-18", side, 3, width=2, strided_stem=True) for side in (32, 224))
    assert small.conv1.weight.shape == large.conv1.weight.shape == (2, 3, 7, 7)
    assert imagenet_resnet("resnet-18", 224, 3, width=2, strided_stem=False).conv1.stride == (1, 1)


def test_a_projection_head_takes_the_place_of_the_last_layer():
    torch.manual_seed(0)
    network = MLP(4, 3, (8,))
    last, rows = network[-1], torch.randn(5, 4)
    features = torch.relu(network[0](rows))
    module = Projected(network, (4,))
    torch.testing.assert_close(module.trunk(rows), features)
    given = last(torch.relu(module.head[0](features)))
    torch.testing.assert_close(module(rows), given / given.norm(dim=1, keepdim=True))
    with pytest.raises(ValueError, match="more after its last linear layer"):
        Projected(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), (4,))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet-26-32", (26, 32)),
        ("resnet-8-1", (8, 1)),
        ("resnet-2-8", None),
        ("resnet-18-8", None),
        ("resnet-26-0", None),
        ("resnet-26", None),
    ],
)
def test_names_of_resnets(name, size):
    assert resnet_size(name) == size


@pytest.mark.parametrize(
    ("name", "size"),
    [("wrn-16-2", (16, 2)), ("wrn-28-10", (28, 10)), ("wrn-15-2", None), ("wrn-4-2", None), ("wrn-10-0", None)],
)
def test_names_of_wide_resnets(name, size):
    assert wide_resnet_size(name) == size


def test_networks_by_name():
    options = {"hidden_sizes": (8,), "dropout": 0.0}
    for network, shape, kind in [
        ("auto", (4,), ResidualMLP),
        ("mlp", (4,), MLP),
        ("auto", (1, 8, 8), SmallCNN),
        ("auto", (3, 8, 8), WideResNet),
        ("wrn-10-1", (1, 8, 8), WideResNet),
        ("resnet-14-4", (1, 8, 8), ResNet),
        ("resnet-18", (1, 8, 8), ImageNetResNet),
        ("auto", (1, 96, 96), SmallCNN),
        ("auto", (3, 95, 200), WideResNet),
        ("auto", (3, 96, 200), ImageNetResNet),
    ]:
        assert type(make_classifier(network, shape, 3, **options)) is kind
    with pytest.raises(ValueError, match="network='mlp' is none of those for images: 'auto', 'cnn'"):
        make_classifier("mlp", (1, 8, 8), 3, **options)
    with pytest.raises(ValueError, match="'resnet-D-W' with D = 6n"):
        make_classifier("resnet-15-4", (1, 8, 8), 3, **options)
    module = make_classifier("resnet-14-4", (1, 8, 8), 3, **options)
    assert (len(module.blocks), module.stem.out_channels) == (6, 4)


class Backwards(nn.Module):
    """Runs its layers in another order than it names them."""

    def __init__(self):
        super().__init__()
        self.last, self.first = nn.Linear(8, 3), nn.Linear(4, 8)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


@pytest.mark.parametrize("end", [nn.Identity(), nn.Softmax(1), nn.LogSoftmax(1)])
def test_widened_classifier_answers_as_before(end):
    torch.manual_seed(0)
    module = nn.Sequential(Backwards(), end)
    module[0].first.requires_grad_(False)
    wide = widen_head(module, (4,), n_given=3, n_kept=3, n_outputs=5, what="classifier")
    x = torch.randn(6, 4)
    logits = wide(x)
    assert logits.shape == (6, 5)
    with torch.no_grad():
        expected = torch.softmax(module[0](x), 1)
    # Among the classes it had; the new ones share one softmax with them.
    torch.testing.assert_close(torch.softmax(logits[:, :3], 1), expected)
    assert logits.exp().sum(1).allclose(torch.ones(6)) == (not isinstance(end, nn.Identity))
    assert all(parameter.requires_grad for parameter in wide.parameters())
    assert not module[0].first.weight.requires_grad


def test_widened_classifier_may_keep_fewer_outputs():
    module = nn.Linear(4, 5, bias=False)
    wide = widen_head(module, (4,), n_given=5, n_kept=2, n_outputs=4, what="classifier")
    assert torch.equal(wide.weight[:2], module.weight[:2])
    assert wide.bias is None
    with pytest.raises(ValueError, match="a last linear layer of 5 outputs; there must be 3"):
        widen_head(module, (4,), n_given=3, n_kept=3, n_outputs=4, what="classifier")


NETWORKS = {
    "MLP": lambda: MLP(12, 3, (64, 64)),
    "ResidualMLP": lambda: ResidualMLP(12, 3, (64, 64)),
    "SmallCNN": lambda: SmallCNN((1, 8, 8), 3),
    "WideResNet": lambda: WideResNet((1, 8, 8), 3, depth=10, widen=2),
    "ResNet": lambda: ResNet((1, 8, 8), 3, width=16, n_blocks=1),
    "ImageNetResNet": lambda: ImageNetResNet((1, 8, 8), 3, (1, 1), width=32),
    "ImageNetResNet, bottlenecks": lambda: ImageNetResNet((1, 8, 8), 3, (1, 1), width=32, bottlenecks=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_that_are_drawn_anew_are_as_those_of_a_new_network(name):
    torch.manual_seed(0)
    network, new = NETWORKS[name](), NETWORKS[name]()
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    # Twice: what a network multiplies its weights by must not act on the product.
    initialised(initialised(network))
    drawn = dict(network.named_parameters())
    for name, weight in new.named_parameters():
        if weight.std() == 0:
            assert torch.equal(drawn[name], weight)
        elif weight.numel() > 100:
            assert not torch.equal(drawn[name], before[name])
            assert drawn[name].std().item() == pytest.approx(weight.std().item(), rel=0.2)
