import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skood.networks import (
    MLP,
    ContrastivePrediction,
    MultiTask,
    ResidualMLP,
    SmallCNN,
    WideResNet,
    patch_geometry,
    patches,
    separate_norms,
    symmetric_padding,
    task,
)
from skood.networks.multi_task import SymmetricConv2d, TaskNorm, info_nce, pad_symmetric


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def for_patches():
    """A small network as the paper has it for contrastive predictive coding, with both heads."""
    network = WideResNet((3, 16, 16), 5, 10, 1, stem_stride=2, early_pool=True, extra_group=True)
    model = MultiTask(symmetric_padding(separate_norms(network)), (3, 16, 16))
    model.auxiliary_head = ContrastivePrediction(model.class_head.in_features, patch_geometry(16)[2], hidden_size=8)
    return model


# --------------------------------------------------------------------------------------------------------------------
# Trunk and heads


@pytest.mark.parametrize(
    ("network", "shape", "n_features"),
    [
        (lambda: MLP(4, 3, (8, 6)), (4,), 6),
        (lambda: ResidualMLP(4, 3, (8,)), (4,), 8),
        (lambda: nn.Linear(4, 3), (4,), 4),
        (lambda: SmallCNN((1, 8, 8), 3), (1, 8, 8), 128),
        (lambda: WideResNet((3, 8, 8), 3, 10, 1), (3, 8, 8), 64),
        (lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Flatten(), nn.Linear(6, 3)), (4,), 6),
    ],
)
def test_trunk_and_class_head_give_what_the_network_gave(network, shape, n_features):
    network = network().eval()
    x = torch.randn(5, *shape)
    expected = network(x)
    model = MultiTask(network, shape)
    assert not model.training
    assert torch.equal(model(x), expected)
    assert torch.equal(model.class_head(model.features(x)), expected)
    assert model.features(x).shape == (5, n_features)
    assert torch.equal(model.auxiliary_features(x), model.features(x))
    assert model.auxiliary_head is None


class Shared(nn.Module):
    """Runs its one linear layer twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(torch.relu(self.layer(x)))


class Peeks(Shared):
    """Looks at its last layer."""

    def forward(self, x):
        return self.layer(x * self.layer.weight.norm())


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)),
        nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)),
        nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)), nn.Flatten(), nn.LayerNorm(6)),
        Shared(),
        Peeks(),
    ],
)
def test_nothing_may_come_after_the_logits(network):
    with pytest.raises(ValueError, match=r"more after its last linear layer than give logits \(a softmax, say\)"):
        MultiTask(copy.deepcopy(network), (4,))


def test_torchs_generator_is_left_alone():
    network = MLP(4, 3, (8,))
    before = torch.get_rng_state()
    MultiTask(network, (4,))
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_reach_what_a_task_uses():
    model = MultiTask(MLP(4, 3, (8,)), (4,), nn.Linear(8, 2))
    x = torch.randn(6, 4)
    model(x).sum().backward()
    assert all(p.grad is not None for p in (*model.trunk.parameters(), *model.class_head.parameters()))
    assert all(p.grad is None for p in model.auxiliary_head.parameters())
    model.zero_grad(set_to_none=True)
    model.auxiliary_head(model.auxiliary_features(x)).sum().backward()
    assert all(p.grad is not None for p in (*model.trunk.parameters(), *model.auxiliary_head.parameters()))
    assert all(p.grad is None for p in model.class_head.parameters())


# --------------------------------------------------------------------------------------------------------------------
# Separate norms


def test_separated_norms_start_as_they_were():
    network = WideResNet((3, 8, 8), 3, 10, 1)
    x = torch.randn(6, 3, 8, 8)
    # Statistics that are not the initial ones.
    network(3 * x + 1)
    network.eval()
    expected = network(x)
    names = set(state(network))
    assert separate_norms(network) is network
    for number in (0, 1):
        with task(network, number):
            assert torch.equal(network(x), expected)
    assert not any(isinstance(layer, TaskNorm) for norm in norms(network) for layer in norm.tasks)
    assert len(norms(network)) == 7
    assert {name.replace("tasks.0.", "").replace("tasks.1.", "") for name in state(network)} == names
    # A second time there is nothing left to separate.
    before = list(state(network))
    assert list(state(separate_norms(network))) == before


def norms(module):
    return [layer for layer in module.modules() if isinstance(layer, TaskNorm)]


@pytest.mark.parametrize(
    ("norm", "is_separated"),
    [
        (nn.BatchNorm1d(4), True),
        (nn.BatchNorm1d(4, affine=False), True),
        (nn.BatchNorm1d(4, affine=False, track_running_stats=False), False),
        (nn.BatchNorm2d(4), True),
        (nn.BatchNorm3d(4), True),
        (nn.GroupNorm(2, 4), True),
        (nn.GroupNorm(2, 4, affine=False), False),
        (nn.LayerNorm(4), True),
        (nn.LayerNorm(4, elementwise_affine=False), False),
        (nn.RMSNorm(4), True),
        (nn.InstanceNorm2d(4, affine=True), True),
        (nn.InstanceNorm2d(4), False),
        (nn.Linear(4, 4), False),
    ],
)
def test_norms_with_a_state_are_separated(norm, is_separated):
    inside = separate_norms(nn.Sequential(nn.Identity(), nn.ModuleDict({"a": copy.deepcopy(norm)})))[1]["a"]
    assert isinstance(inside, TaskNorm) == is_separated
    # As is one that stands alone.
    assert isinstance(separate_norms(norm), TaskNorm) == is_separated


def test_a_norm_in_two_places_stays_one():
    norm = nn.BatchNorm1d(4)
    network = separate_norms(nn.Sequential(norm, nn.Linear(4, 4), norm, nn.Sequential(norm)))
    assert network[0] is network[2] is network[3][0]
    assert isinstance(network[0], TaskNorm)


def test_task_is_put_back():
    network = separate_norms(nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4)))
    with task(network, 1):
        assert [norm.current for norm in network] == [1, 1]
        with task(network[1], 0):
            assert [norm.current for norm in network] == [1, 0]
        assert [norm.current for norm in network] == [1, 1]
    assert [norm.current for norm in network] == [0, 0]
    with pytest.raises(KeyError), task(network, 1):
        raise KeyError
    assert [norm.current for norm in network] == [0, 0]


@pytest.mark.parametrize("trained", [0, 1])
def test_training_a_task_leaves_the_norms_of_the_other_alone(trained):
    model = MultiTask(separate_norms(WideResNet((3, 8, 8), 3, 10, 1)), (3, 8, 8), nn.Linear(64, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    x = torch.randn(8, 3, 8, 8)

    def step(number):
        optimizer.zero_grad(set_to_none=True)
        result = model.auxiliary_head(model.auxiliary_features(x)) if number else model(x)
        result.square().mean().backward()
        optimizer.step()

    # Both have momentum from before.
    step(0)
    step(1)
    before = state(model.trunk)
    step(trained)
    changed = {name for name, value in state(model.trunk).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if f"tasks.{1 - trained}." not in name}


def test_features_are_those_of_their_task():
    model = MultiTask(separate_norms(WideResNet((3, 8, 8), 3, 10, 1)), (3, 8, 8)).eval()
    with torch.no_grad():
        model.trunk.norm.tasks[1].bias.fill_(5.0)
    x = torch.randn(2, 3, 8, 8)
    features = model.features(x)
    with task(model, 1):
        # Whatever is set from outside.
        assert torch.equal(model.features(x), features)
        assert torch.equal(model(x), model.class_head(features))
    assert (model.auxiliary_features(x) - features).mean() > 1


# --------------------------------------------------------------------------------------------------------------------
# Symmetric padding


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


# --------------------------------------------------------------------------------------------------------------------
# Patches


@pytest.mark.parametrize(
    ("side", "geometry"),
    [
        (4, (2, 1, 3)),
        (7, (2, 1, 6)),
        (28, (6, 3, 8)),
        (32, (8, 4, 7)),
        (96, (24, 12, 7)),
        (224, (56, 28, 7)),
        (256, (64, 32, 7)),
    ],
)
def test_geometry_of_patches(side, geometry):
    assert patch_geometry(side) == geometry


@pytest.mark.parametrize("side", [0, 1, 3])
def test_images_too_small_for_patches(side):
    with pytest.raises(ValueError, match=f"images of {side} x {side} pixels are too small"):
        patch_geometry(side)


def test_patches_are_parts_of_the_image():
    images = torch.randn(2, 3, 9, 9)
    cut = patches(images, size=4, stride=2)
    assert cut.shape == (2, 3, 3, 3, 4, 4)
    for row, column in itertools.product(range(3), range(3)):
        top, left = 2 * row, 2 * column
        assert torch.equal(cut[:, row, column], images[:, :, top : top + 4, left : left + 4])
    with pytest.raises(ValueError, match="only square images are cut into patches; these are 8 x 9"):
        patches(images[:, :, 1:], 4, 2)


def test_encodings_are_those_of_the_patches():
    model = for_patches().eval()
    with torch.no_grad():
        for norm in norms(model):
            norm.tasks[1].bias.uniform_(-1, 1)
    images = torch.randn(2, 3, 16, 16)
    encodings = model.encode_patches(images)
    assert encodings.shape == (2, 7, 7, 64)
    assert {norm.current for norm in norms(model)} == {0}
    patch = images[:1, :, 6:10, 4:8]
    with task(model, 1):
        torch.testing.assert_close(model.trunk.patch_features(patch)[0], encodings[0, 3, 2])
    assert not torch.allclose(model.trunk.patch_features(patch)[0], encodings[0, 3, 2], atol=0.1)
    with pytest.raises(ValueError, match="only square images"):
        model.encode_patches(images[:, :, :2])


def test_any_trunk_that_takes_patches_encodes_them():
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    model = MultiTask(network, (1, 32, 32))
    images = torch.randn(2, 1, 32, 32)
    encodings = model.encode_patches(images)
    assert encodings.shape == (2, 7, 7, 6)
    torch.testing.assert_close(encodings[1, 6, 0], model.features(images[1:, :, 24:, :8])[0])


# --------------------------------------------------------------------------------------------------------------------
# Contrastive prediction


def test_info_nce_by_hand():
    """Scores 4 / sqrt(4) = 2, 0 and 0 for the first prediction, all 0 for the second."""
    candidates = torch.zeros(1, 3, 4)
    candidates[0, 1] = 1.0
    predictions = torch.stack([torch.ones(4), torch.zeros(4)])[None]
    loss = info_nce(predictions, candidates, torch.tensor([1, 0]))
    expected = [[math.log(math.exp(2) + 2) - 2, math.log(3)]]
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_predictions_are_of_the_patches_below():
    """The loss, written out patch by patch."""
    head = ContrastivePrediction(6, 4, n_steps=2, hidden_size=3).double()
    encodings = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    z = functional.layer_norm(encodings, (6,))
    context = head.context(z.permute(0, 3, 1, 2))
    for image in range(2):
        losses = []
        for step, row, column in itertools.product((1, 2), range(4), range(4)):
            if row + step < 4:
                prediction = head.steps[step - 1].weight @ context[image, :, row, column]
                scores = torch.einsum("rcf,f->rc", z[image], prediction) / 6**0.5
                losses.append(scores.logsumexp((0, 1)) - scores[row + step, column])
        assert len(losses) == (3 + 2) * 4
        torch.testing.assert_close(head(encodings)[image], torch.stack(losses).mean())


def test_context_sees_no_row_below():
    head = ContrastivePrediction(16, 7).double()
    encodings = torch.randn(1, 16, 7, 7, dtype=torch.float64, requires_grad=True)
    for row in range(7):
        (gradient,) = torch.autograd.grad(head.context(encodings)[:, :, row].square().sum(), encodings)
        seen = (gradient[0] != 0).any(0).any(1)
        assert seen.tolist() == [row - 3 <= other <= row for other in range(7)]
    # Of its own row it sees both sides.
    (gradient,) = torch.autograd.grad(head.context(encodings)[:, :, 3, 3].square().sum(), encodings)
    assert (gradient[0] != 0).any(0)[3].all()


def test_an_image_is_told_from_none_of_the_batch():
    head = ContrastivePrediction(5, 4).double()
    encodings = torch.randn(6, 4, 4, 5, dtype=torch.float64, requires_grad=True)
    loss = head(encodings)
    assert loss.shape == (6,)
    (gradient,) = torch.autograd.grad(loss[2], encodings)
    assert (gradient.abs().sum((1, 2, 3)) > 0).tolist() == [number == 2 for number in range(6)]
    torch.testing.assert_close(head(encodings[2:3])[0], loss[2])


def test_steps_fit_the_grid():
    assert [len(ContrastivePrediction(4, grid).steps) for grid in (2, 3, 7)] == [1, 2, 5]
    for n_steps in (0, 4):
        with pytest.raises(ValueError, match=f"can be 1 to 3 steps; got n_steps={n_steps}"):
            ContrastivePrediction(4, 4, n_steps=n_steps)
    with pytest.raises(ValueError, match=r"there must be 4 x 4 patches; got \(5, 4\)"):
        ContrastivePrediction(3, 4)(torch.zeros(1, 5, 4, 3))


def test_untrained_loss_is_about_that_of_guessing():
    loss = ContrastivePrediction(64, 7)(10 * torch.randn(4, 7, 7, 64))
    assert loss.mean().item() == pytest.approx(math.log(49), abs=0.2)


def stripes(n):
    """Images of upright bars at random places: what is below looks as what is above."""
    places = torch.rand(n, 1, 1, 1) * 16
    columns = torch.arange(16.0).expand(n, 3, 16, 16)
    return torch.cos((columns - places) * 0.6) + 0.1 * torch.randn(n, 3, 16, 16)


def test_loss_falls_where_images_have_structure():
    model = for_patches()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = model.auxiliary_head(model.encode_patches(stripes(8))).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in model.auxiliary_head.parameters())
    # Seven patches in a column look alike: which of them it is would be log 7, any patch log 49.
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.7


# --------------------------------------------------------------------------------------------------------------------
# What is done to modules


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_answer_as_the_original(copied):
    model = for_patches().eval()
    images = torch.randn(2, 3, 16, 16)
    twin = copied(model)
    assert torch.equal(twin(images), model(images))
    assert torch.equal(twin.encode_patches(images), model.encode_patches(images))
    assert torch.equal(
        twin.auxiliary_head(twin.encode_patches(images)), model.auxiliary_head(model.encode_patches(images))
    )
    with task(twin, 1):
        # The copy's task is its own.
        assert {norm.current for norm in norms(model)} == {0}
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}


def test_an_images_scores_do_not_depend_on_the_batch():
    model = for_patches()
    images = torch.randn(9, 3, 16, 16)
    model(images)
    model.encode_patches(images)
    model, images = model.double().eval(), images.double()
    for function in (model, model.auxiliary_features, lambda rows: model.auxiliary_head(model.encode_patches(rows))):
        with torch.no_grad():
            together, alone = function(images), torch.cat([function(image[None]) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_channels_last():
    model = for_patches()
    images = torch.randn(4, 3, 16, 16)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    rows = images.contiguous(memory_format=torch.channels_last)
    padded = pad_symmetric(pad_symmetric(rows, 1, 1, 2), 1, 1, 3)
    assert padded.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last(rows), model(images), rtol=1e-3, atol=1e-4)
    loss = last.auxiliary_head(last.encode_patches(rows))
    torch.testing.assert_close(loss, model.auxiliary_head(model.encode_patches(images)), rtol=1e-3, atol=1e-4)
    loss.sum().backward()


def test_training_in_bfloat16():
    model = for_patches()
    images = torch.randn(4, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.auxiliary_head(model.encode_patches(images)).mean() + model(images).square().mean()
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_on_a_device(device):
    model = for_patches().to(device)
    images = torch.randn(4, 3, 16, 16, device=device)
    (model.auxiliary_head(model.encode_patches(images)).mean() + model(images).square().mean()).backward()
    rebuilt = MultiTask(MLP(4, 3, (8,)).to(device), (4,))
    assert rebuilt(torch.randn(2, 4, device=device)).shape == (2, 3)
