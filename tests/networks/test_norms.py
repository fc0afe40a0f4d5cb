import copy

import pytest
import torch
from torch import nn

from skood.networks import MultiTask, TaskNorm, WideResNet, separate_norms, task


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def norms(module):
    return [layer for layer in module.modules() if isinstance(layer, TaskNorm)]


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
