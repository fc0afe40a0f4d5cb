"""What a module is asked: which layers run, what they take and give."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from skood._plain import made_plain, restored
from skood.networks import MLP, find_head, share, tap
from skood.networks.probe import dry_run, recorded, trial, varied_rows


def hooks(module):
    return [hook for part in module.modules() for hook in (*part._forward_hooks, *part._forward_pre_hooks)]


def test_calls_are_recorded_as_they_happen():
    inner, last = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2)
    module = nn.Sequential(inner, last)
    rows = torch.randn(5, 3)
    with recorded(module, takes=["", "0", "1"], gives=["0", "0.0", ""]) as calls:
        result = module(rows)
    assert [(call.name, call.given is None) for call in calls] == [
        *(("", True), ("0", True), ("0.0", False), ("0", False), ("1", True)),
        ("", False),
    ]
    assert calls[0].taken is calls[1].taken is rows
    assert calls[3].given is calls[4].taken
    assert calls[5].given is result
    assert not hooks(module)
    module(rows)
    assert len(calls) == 6


def test_hooks_that_end_in_another_thread_while_a_module_runs_do_no_harm():
    """Between the moment when torch lists a layer's hooks and the moment when it calls them."""
    layer, begin, end = nn.Linear(3, 3), threading.Event(), threading.Event()

    def record_until_told():
        with recorded(layer, takes=[""], gives=[""]):
            begin.set()
            assert end.wait(60)

    thread = threading.Thread(target=record_until_told)

    def end_it(*_):
        end.set()
        thread.join()

    # Hooks run in the order in which they were registered: this one removes those after it.
    layer.register_forward_pre_hook(end_it)
    thread.start()
    assert begin.wait(60)
    with recorded(layer, gives=[""]) as calls:
        layer(torch.ones(2, 3))
    assert [call.name for call in calls] == [""]
    assert len(hooks(layer)) == 1


class Named(nn.Module):
    """Calls its layer twice, by name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(input=self.layer(input=x))


def test_arguments_may_be_named():
    module, rows = Named(), torch.randn(5, 3)
    result, taken = tap(module, "layer", rows)
    assert torch.equal(taken, module.layer(rows))
    assert torch.equal(result, module(rows))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)], ids=["vectors", "tokens", "map"])
def test_what_a_layer_takes_of_several_vectors_is_their_mean(shape):
    layer, rows = nn.Linear(4, 2), torch.randn(5, *shape)
    result, taken = tap(layer, "", rows)
    assert taken.shape == (5, 4)
    torch.testing.assert_close(layer(taken), result.reshape(5, -1, 2).mean(1))


def test_what_is_kept_of_an_output():
    """A layer that works in place overwrites what the one before gave."""
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    rows = torch.randn(5, 3)
    with recorded(module, gives=["0"]) as calls, recorded(module, gives=["0"], keep=torch.clone) as copies:
        result = module(rows)
    assert torch.equal(calls[0].given, result)
    assert torch.equal(copies[0].given, module[0](rows))
    assert (copies[0].given < 0).any()


class Calling(nn.Module):
    """Calls a function whenever it runs, and returns its rows."""

    def __init__(self):
        super().__init__()
        self.called = []

    def forward(self, rows):
        for function in self.called:
            function()
        return rows


def double(_, args, output=None):
    """Twice what a layer takes or gives: a hook of the user's."""
    return 2 * args[0] if output is None else 2 * output


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        share,
        lambda module: pickle.loads(pickle.dumps(module)),
        lambda m: restored(made_plain(m)),
    ],
    ids=["deepcopy", "share", "pickle", "skops"],
)
def test_a_copy_made_while_a_module_is_recorded_records_nothing(copied):
    """In another thread, for example; and what the user hooks to the module stays."""
    module, rows, made = nn.Sequential(Calling(), nn.Linear(3, 4)), torch.randn(2, 3), []
    module.register_forward_pre_hook(double)
    module[1].register_forward_hook(double)
    expected = module(rows)
    module[0].called.append(lambda: made.append(copied(module[1])) if not made else None)
    with recorded(module, takes=["", "1"], gives=["", "1"]) as calls:
        result = module(rows)
        assert torch.equal(made[0](2 * rows), expected)
    assert [call.name for call in calls] == ["", "1", "1", ""]
    for layer in (module[1], made[0]):
        assert list(layer._forward_hooks.values()) == [double]
        assert not layer._forward_pre_hooks
    assert torch.equal(result, expected)
    assert torch.equal(made[0](2 * rows), expected)
    assert len(calls) == 4
    pickle.dumps(made[0])


def test_a_network_may_hook_and_unhook_its_layers_while_it_runs():
    module, rows = nn.Sequential(Calling(), nn.Linear(3, 4)), torch.randn(2, 3)
    early, late, expected = module[1].register_forward_hook(double), [], module(rows)
    module[0].called += [
        lambda: module[1].register_forward_hook(double).remove(),
        lambda: late or late.append(module[1].register_forward_hook(double)),
    ]
    for _ in range(2):
        with recorded(module, gives=["1"]) as calls:
            assert torch.equal(module(rows), 2 * expected)
        assert len(calls) == 1
        assert len(hooks(module)) == 2
    # A hook from before is removed as ever.
    early.remove()
    module[0].called.clear()
    assert torch.equal(module(rows), expected)


def test_threads_do_not_record_each_other():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    together = threading.Barrier(4)

    def taken(value):
        """Return what the second layer took, where others run the same module at the same time."""
        rows = torch.full((1, 3), float(value))
        found = []
        for _ in range(20):
            together.wait(30)
            with recorded(module, gives=["0"]) as calls:
                together.wait(30)
                module(rows)
                together.wait(30)
            found.append(len(calls) == 1 and torch.equal(calls[0].given, module[0](rows)))
        return all(found)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(taken, range(4)))


def test_hooks_go_even_after_an_error():
    module = MLP(3, 2, (4,))
    with pytest.raises(RuntimeError), recorded(module, takes=["0"], gives=["2", ""]):
        module(torch.randn(5, 7))
    with pytest.raises(AttributeError), recorded(module, takes=["0"], gives=["nowhere"]):
        pass
    with pytest.raises(ValueError, match=r"classifier does not take rows of 7 features"):
        find_head(module, (7,), "classifier")
    assert not hooks(module)


def test_a_dry_run_leaves_all_as_it_was():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    generator = torch.get_rng_state()
    rows = varied_rows(module, (3,))
    assert torch.equal(rows, varied_rows(module, (3,)))
    first = dry_run(module, rows)
    assert torch.equal(first, dry_run(module, rows))
    assert not first.requires_grad
    assert trial(module, (3,), "network").dtype is torch.float32
    assert module.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


class Backwards(nn.Module):
    """Runs its layers in another order than they are in."""

    def __init__(self):
        super().__init__()
        self.last, self.first = nn.Linear(3, 2), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.first(x))


def test_the_head_is_the_linear_layer_that_runs_last():
    assert find_head(Backwards(), (4,)) == "last"
    assert find_head(nn.Linear(4, 2), (4,)) == ""
    with pytest.raises(ValueError, match=r"network has no linear layer \(torch.nn.Linear\) that could be its last"):
        find_head(nn.Flatten(), (4,))
