import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from skood.networks import (
    MLP,
    ContrastivePrediction,
    MultiTask,
    ResidualMLP,
    SmallCNN,
    TaskNorm,
    WideResNet,
    patch_geometry,
    separate_norms,
    symmetric_padding,
    task,
)
from skood.networks.padding import pad_symmetric


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def norms(module):
    return [layer for layer in module.modules() if isinstance(layer, TaskNorm)]


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
    with pytest.raises(ValueError, match=r"more after its last linear layer, which must return the logits"):
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
# Encodings of patches


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
