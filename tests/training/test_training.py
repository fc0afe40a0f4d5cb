"""Training as a piece of plumbing: batches, steps, schedules, seeds, without any detector."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skorch.callbacks import Callback
from torch import nn

from skood.estimator.base import OutlierDetector
from skood.training import batches, optim
from skood.training.batches import TensorBatches, TrainingRows
from skood.training.device import resolve_device, seeded
from skood.training.optim import SCHEDULES, WeightAverage
from skood.training.phases import Phase, Step
from skood.training.scoring import apply_in_blocks
from skood.training.trainer import reestimate_batch_norm, train

CPU = torch.device("cpu")


def plain(rows):
    return rows.float()


def rows(n, d=2, **options):
    X = np.arange(n * d, dtype=np.float32).reshape(n, d)
    return TrainingRows(X, None, plain, CPU, **options)


def drawn(batches):
    return [(batch, extra) for batch, extra in batches]


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (3, 4, [3]), (5, 4, [5]), (8, 4, [4, 4]), (1, 4, [1]), (2, 1, [2])],
)
def test_batch_sizes(n, batch_size, sizes):
    """All rows once a pass; a single row left over joins the last batch."""
    iterator = TensorBatches(rows(n), batch_size)
    assert [len(batch) for batch, _ in iterator] == sizes
    assert len(iterator) == len(sizes)


def test_every_pass_is_another_order_of_all_rows():
    iterator = TensorBatches(rows(20, labels=np.arange(20)), 6)
    passes = []
    for _ in range(2):
        pieces = drawn(iterator)
        seen = torch.cat([batch for batch, _ in pieces])
        labels = torch.cat([extra["labels"] for _, extra in pieces])
        assert torch.equal(seen[:, 0], 2.0 * labels)
        assert sorted(labels.tolist()) == list(range(20))
        passes.append(labels.tolist())
    assert passes[0] != passes[1]


@pytest.mark.parametrize("ratio", [0.5, 1.0, 5.0])
def test_auxiliary_rows_come_without_replacement_across_batches(ratio):
    X = np.arange(30, dtype=np.float32)[:, None]
    data = TrainingRows(X, np.arange(20), plain, CPU, auxiliary_indices=np.arange(20, 30))
    taken = [extra["auxiliary"] for batch, extra in TensorBatches(data, 4, auxiliary_ratio=ratio)]
    assert [len(part) for part in taken] == [round(4 * ratio)] * 5
    taken = torch.cat(taken).flatten().tolist()
    whole = len(taken) // 10 * 10
    for start in range(0, whole, 10):
        assert sorted(taken[start : start + 10]) == list(range(20, 30))
    assert len(set(taken[whole:])) == len(taken[whole:])


def test_streamed_batches_are_of_the_same_rows_and_sizes(monkeypatch, tmp_path):
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=(101, 1))
    X[:] = np.arange(101)[:, None]
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 10)
    monkeypatch.setattr(batches, "STREAM_BYTES", 4 * 7)
    for n, index in ((101, None), (50, np.arange(0, 100, 2))):
        data = TrainingRows(X, index, plain, CPU, labels=np.arange(101) if index is None else index)
        assert data.resident is None
        iterator = TensorBatches(data, 10)
        pieces = drawn(iterator)
        assert len(pieces) == len(iterator)
        assert [len(batch) for batch, _ in pieces[:-1]] == [10] * (len(pieces) - 1)
        seen = torch.cat([batch for batch, _ in pieces]).flatten()
        assert sorted(seen.tolist()) == (list(range(101)) if index is None else index.tolist())
        assert torch.equal(seen.long(), torch.cat([extra["labels"] for _, extra in pieces]))
        assert len(seen) == n
        assert not torch.equal(seen, seen.sort().values)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    X = np.lib.format.open_memmap(tmp_path_factory.mktemp("rows") / "X.npy", mode="w+", dtype=np.float32, shape=(60, 1))
    X[:] = np.arange(60)[:, None]
    return X


@given(n=st.integers(2, 60), batch_size=st.integers(1, 12), chunk=st.integers(1, 30), seed=st.integers(0, 99))
def test_a_streamed_pass_has_the_batches_of_any_other(mapped, n, batch_size, chunk, seed):
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "RESIDENT_BYTES", 0)
        patch.setattr(batches, "STREAM_BYTES", 4 * chunk)
        taken = [batch for batch, _ in TensorBatches(TrainingRows(mapped[:n], None, plain, CPU), batch_size)]
    assert [len(batch) for batch in taken] == [len(batch) for batch, _ in TensorBatches(rows(n), batch_size)]
    assert sorted(torch.cat(taken).flatten().tolist()) == list(range(n))
    # None keeps the chunk that it is from.
    assert all(batch.untyped_storage().nbytes() == 4 * len(batch) for batch in taken)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(2, 1), nn.Linear(1, 2)


def reconstruction(module, batch):
    return (module.decoder(module.encoder(batch)) - batch).square().mean()


def test_steps_are_taken_in_turn_each_on_its_own_part():
    module, calls = Encoder(), []

    def encoder_loss(module, batch):
        calls.append("encoder")
        return reconstruction(module, batch)

    def decoder_loss(module, batch):
        calls.append("decoder")
        return 0 * reconstruction(module, batch)

    before = {name: value.clone() for name, value in module.state_dict().items()}
    phase = Phase([Step(encoder_loss, "encoder"), Step(decoder_loss, "decoder")], 3)
    net = train(module, rows(10), [phase], batch_size=5, lr=0.01, optimizer="sgd")
    assert calls == ["encoder", "decoder"] * 6
    after = net.module_.state_dict()
    assert not torch.equal(after["encoder.weight"], before["encoder.weight"])
    assert torch.equal(after["decoder.weight"], before["decoder.weight"])


def test_phases_follow_each_other_and_begin_anew():
    """Each with its own steps, epochs and learning rate, a fresh optimiser, and auxiliary rows if it asks for them."""
    seen, optimizers = [], []

    def first(module, batch, **extra):
        seen.append(("first", len(batch), sorted(extra)))
        return module(batch).square().mean()

    def second(module, batch, auxiliary):
        seen.append(("second", len(batch), len(auxiliary)))
        return module(batch).square().mean()

    def descent(parameters, lr):
        optimizers.append(lr)
        return torch.optim.SGD(parameters, lr=lr)

    X = np.ones((10, 2), dtype=np.float32)
    data = TrainingRows(X, np.arange(4), plain, CPU, auxiliary_indices=np.arange(4, 10))
    phases = [
        Phase([Step(first)], 2, "one"),
        Phase([Step(first)], 0, "left out"),
        Phase([Step(second)], 1, "two", lr=0.5, auxiliary_ratio=2.5),
    ]
    net = train(nn.Linear(2, 1), data, phases, batch_size=4, lr=0.1, optimizer=descent)
    assert seen == [("first", 4, [])] * 2 + [("second", 4, 10)]
    assert optimizers[-2:] == [0.1, 0.5]
    assert net.history[:, "phase"] == ["one", "one", "two"]


def test_a_step_takes_gradients_of_what_it_trains_and_of_nothing_else():
    module, seen = Encoder(), []
    module.encoder.bias.requires_grad_(False)

    def loss(module, batch):
        seen.append([name for name, parameter in module.named_parameters() if parameter.requires_grad])
        return reconstruction(module, batch)

    train(module, rows(4), [Phase([Step(loss, "encoder"), Step(loss, "decoder"), Step(loss)], 1)], batch_size=4, lr=0.1)
    decoder = ["decoder.weight", "decoder.bias"]
    assert seen == [["encoder.weight"], decoder, ["encoder.weight", *decoder]]
    # What the caller had frozen stays so.
    assert [p.requires_grad for p in module.parameters()] == [True, False, True, True]


def test_weight_average_by_hand():
    module = nn.BatchNorm1d(1)
    average = WeightAverage(module, 0.5)
    expected = 1.0
    for n, weight in enumerate([3.0, 5.0, 4.0, 0.0], start=1):
        with torch.no_grad():
            module.weight.fill_(weight)
        module.num_batches_tracked.fill_(n)
        average.update(module)
        kept = min(0.5, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * weight
    assert average.state["weight"].item() == pytest.approx(expected)
    assert average.state["num_batches_tracked"] == 4
    assert module.weight.item() == 0


def test_training_ends_with_the_average_of_the_weights():
    """Of a weight that grows by one in each of six batches, and of the running statistics too."""
    module = nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Linear(2, 1, bias=False))
    nn.init.zeros_(module[1].weight)

    def loss(module, batch):
        module(batch)
        return -module[1].weight.sum()

    def trained(average):
        net = train(
            copy.deepcopy(module),
            rows(4),
            [Phase([Step(loss)], 6)],
            batch_size=4,
            lr=1.0,
            optimizer=torch.optim.SGD,
            average=average,
        )
        return net.module_

    expected = 0.0
    for n in range(1, 7):
        kept = min(0.9, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * n
    assert trained(0.9)[1].weight.tolist() == [[pytest.approx(expected, rel=1e-5)] * 2]
    assert trained(None)[1].weight.tolist() == [[6.0, 6.0]]
    assert (trained(0.9)[0].running_mean < trained(None)[0].running_mean).all()


def test_long_gradients_are_shortened():
    """The gradient of 5 w1 + 12 w2 has norm 13; at most 2.6 is a fifth of it."""
    module = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(module.weight)
    data = TrainingRows(np.array([[5.0, 12.0]] * 2, dtype=np.float32), None, plain, CPU)
    phase = Phase([Step(lambda module, batch: module(batch).mean())], 1)
    descent = lambda parameters, lr: torch.optim.SGD(parameters, lr=lr)  # noqa: E731
    for limit, share in ((None, 1), (13.1, 1), (2.6, 0.2)):
        nn.init.zeros_(module.weight)
        train(module, data, [phase], batch_size=2, lr=1.0, optimizer=descent, max_grad_norm=limit)
        assert module.weight.detach().flatten().tolist() == pytest.approx([-5 * share, -12 * share], rel=1e-4)


def test_weight_decay_is_that_of_named_optimizers():
    parameters = [nn.Parameter(torch.zeros(1))]
    assert optim.make_optimizer("nesterov", parameters, 0.1, weight_decay=0.3).defaults["weight_decay"] == 0.3
    assert optim.make_optimizer("nesterov", parameters, 0.1).defaults["nesterov"]
    assert optim.make_optimizer("adamw", parameters, 0.1).defaults["weight_decay"] == 0.01


def test_auxiliary_rows_of_a_memory_map_are_read_batch_by_batch(monkeypatch, tmp_path):
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=(100, 1))
    X[:] = np.arange(100)[:, None]
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 4 * 50)
    data = TrainingRows(X, np.arange(20), plain, CPU, auxiliary_indices=np.arange(20, 100))
    assert data.resident is not None
    assert data.resident_auxiliary is None
    taken = torch.cat([extra["auxiliary"] for _, extra in TensorBatches(data, 5, auxiliary_ratio=4.0)])
    assert sorted(taken.flatten().tolist()) == list(range(20, 100))


def test_training_is_plain_gradient_descent():
    """Least squares of one weight: w <- w - lr * mean(2 x (w x - x)), by hand for two epochs of one batch."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    X = np.array([[1.0], [2.0]], dtype=np.float32)
    data = TrainingRows(X, None, plain, CPU)
    loss = Step(lambda module, batch: (module(batch) - batch).square().mean())
    descent = lambda parameters, lr: torch.optim.SGD(parameters, lr=lr)  # noqa: E731
    net = train(module, data, [Phase([loss], 2)], batch_size=2, lr=0.1, optimizer=descent)
    # mean x^2 = 2.5: w = 0.5, then 0.5 + 0.1 * 2 * 2.5 * 0.5 = 0.75; losses 2.5 and 2.5 * 0.25.
    assert net.module_.weight.item() == pytest.approx(0.75)
    assert net.history[:, "train_loss"] == pytest.approx([2.5, 0.625])
    assert net.history[:, "train_loss_best"] == [True, True]


def test_epoch_loss_is_weighted_by_the_rows_of_a_batch():
    """Batches of 2 and 3 rows, whatever loop runs."""
    data = TrainingRows(np.ones((5, 1), dtype=np.float32), None, plain, CPU)

    def by_size(module, batch):
        return 0 * module(batch).sum() + len(batch)

    for callbacks in ([], [Batches()]):
        phase = Phase([Step(by_size)], 1)
        net = train(nn.Linear(1, 1), data, [phase], batch_size=2, lr=0.1, callbacks=callbacks)
        assert net.history[0, "train_loss"] == pytest.approx((2 * 2 + 3 * 3) / 5)


def test_losses_in_half_precision_are_summed_in_full():
    """In bfloat16 a sum of ones stops growing at 256."""
    data = TrainingRows(np.ones((3000, 1), dtype=np.float32), None, plain, CPU)

    def halved(module, batch):
        return (0 * module(batch).mean() + 1).bfloat16()

    net = train(nn.Linear(1, 1), data, [Phase([Step(halved)], 1)], batch_size=2, lr=0.1)
    assert net.history[0, "train_loss"] == 1


class Batches(Callback):
    def __init__(self):
        self.seen = []

    def on_batch_begin(self, net, batch, training, **kwargs):
        self.seen.append("begin")

    def on_batch_end(self, net, batch, training, loss, **kwargs):
        self.seen.append("end")

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.seen += [name for name, parameter in named_parameters if parameter.grad is not None]


class Epochs(Callback):
    def on_epoch_end(self, net, **kwargs):
        assert np.isfinite(net.history[-1, "train_loss"])


def test_both_loops_train_alike():
    """With a callback that listens to batches skorch's own loop runs; the result is the same."""
    weights, histories = [], []
    for callbacks in ([Epochs()], [Batches()]):
        with seeded(0, CPU):
            module = nn.Linear(2, 2)
            loss = Step(lambda module, batch: (module(batch) / 10 - batch / 10).square().mean())
            options = {"batch_size": 4, "lr": 0.01, "schedule": "cosine", "callbacks": callbacks}
            net = train(module, rows(10), [Phase([loss], 3)], **options)
        weights.append(net.module_.weight.detach())
        histories.append(net.history[:, "train_loss"])
        if isinstance(callbacks[0], Batches):
            # The callback that ran is a copy: a constructor argument does not change.
            assert callbacks[0].seen == []
            ran = dict(net.callbacks_)["Batches"]
            assert ran.seen == ["begin", "weight", "bias", "end"] * 9
            assert len(net.history[0, "batches"]) == 3
    torch.testing.assert_close(weights[0], weights[1])
    assert histories[0] == pytest.approx(histories[1])


@pytest.mark.parametrize("name", ["cosine", "one-cycle"])
def test_schedules_set_the_learning_rate(name):
    lrs = []

    class Record(Callback):
        def on_batch_end(self, net, **kwargs):
            lrs.append(net.optimizer_.param_groups[0]["lr"])

    module = nn.Linear(2, 2)
    loss = Step(lambda module, batch: module(batch).square().mean())
    recorder = type("Recorder", (Record,), {})
    train(module, rows(20), [Phase([loss], 5)], batch_size=2, lr=0.5, schedule=name, callbacks=[recorder])
    assert lrs == pytest.approx([0.5 * SCHEDULES[name](step / 49) for step in range(50)])


def test_one_cycle_is_torchs():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=101, cycle_momentum=False)
    for step in range(101):
        # torch puts the peak at step 29.3 of 100 instead of 30.
        assert SCHEDULES["one-cycle"](step / 100) == pytest.approx(schedule.get_last_lr()[0], abs=0.05)
        optimizer.step()
        if step < 100:
            schedule.step()
    assert SCHEDULES["one-cycle"](0.3) == pytest.approx(1)
    assert SCHEDULES["one-cycle"](0.0) == pytest.approx(0.04)
    assert SCHEDULES["one-cycle"](1.0) == pytest.approx(0)


def test_named_optimizers_are_fused_where_they_can_be():
    for name in ("adam", "adamw", "sgd", "nesterov"):
        assert optim.make_optimizer(name, [nn.Parameter(torch.zeros(1))], 0.1).defaults["fused"]
    assert optim.make_optimizer("sgd", [nn.Parameter(torch.zeros(1))], 0.1).defaults["momentum"] == 0.9


def test_a_callback_that_evaluates_does_not_end_the_training_mode():
    modes = []

    def loss(module, batch):
        modes.append(module.training)
        return module(batch).square().mean()

    train(nn.Linear(2, 2), rows(10), [Phase([Step(loss)], 2)], batch_size=4, lr=0.1, callbacks=[Evaluates()])
    assert modes == [True] * 6


class Evaluates(Callback):
    def on_batch_end(self, net, **kwargs):
        net.module_.eval()


def test_padding_repeats_the_last_row():
    assert batches.tensor_of(np.array([[1, 2], [3, 4]]), 4, torch.float64).tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]
    assert batches.tensor_of(np.zeros((2, 1, 3, 3)), 5, torch.float32).shape == (5, 1, 3, 3)


def test_optimizer_names_are_those_the_estimators_accept():
    accepted = OutlierDetector._parameter_constraints["optimizer"][0].options
    assert set(optim.OPTIMIZERS) == set(accepted)


def test_seeded_repeats_and_restores():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with seeded(1, CPU):
        first = torch.rand(3)
    with seeded(1, CPU):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_seeded_blocks_take_turns_in_threads():
    """fork_rng swaps a process-wide state: without the lock the blocks would draw from each other's stream."""
    expected = {}
    for seed in range(4):
        with seeded(seed, CPU):
            expected[seed] = torch.rand(1000)
    state, drawn_in = torch.get_rng_state(), {}

    def draw(seed):
        with seeded(seed, CPU):
            drawn_in[seed] = torch.cat([torch.rand(1) for _ in range(1000)])

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.get_rng_state(), state)
    for seed in range(4):
        with seeded(seed, CPU):
            assert torch.equal(drawn_in[seed], torch.cat([torch.rand(1) for _ in range(1000)]))


def test_devices():
    assert resolve_device("cpu") == CPU
    assert resolve_device(CPU) == CPU
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    for bad in ("meta", "gpu", "cuda:99"):
        with pytest.raises(ValueError, match=f"device='{bad}' cannot be used"):
            resolve_device(bad)


def test_scoring_halves_what_does_not_fit(monkeypatch):
    """A device out of memory above 300 rows."""
    sizes = []

    def double(module, batch):
        sizes.append(len(batch))
        if len(batch) > 300:
            raise torch.OutOfMemoryError("no memory")
        return 2 * batch[:, 0]

    X = np.arange(3000.0).reshape(1500, 2)
    result = apply_in_blocks(nn.Linear(2, 1), X, None, plain, double)
    assert np.array_equal(result, 2 * X[:, 0])
    assert max(size for size in sizes if size <= 300) == 256
    with pytest.raises(torch.OutOfMemoryError):
        apply_in_blocks(nn.Linear(2, 1), X, None, plain, lambda module, batch: _no_memory())


def _no_memory():
    raise torch.OutOfMemoryError("no memory")


def test_scoring_is_in_single_precision_and_in_evaluation_mode():
    module = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5)).train()
    seen = set()

    def apply(module, batch):
        seen.add((batch.dtype, module[0].weight.dtype, module.training, torch.is_grad_enabled()))
        return module(batch)

    apply_in_blocks(module, np.ones((3, 2), dtype=np.float32), None, plain, apply)
    assert seen == {(torch.float32, torch.float32, False, False)}


class InPlace(nn.Module):
    """A layer that overwrites the rows it is given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, rows):
        return self.weight * rows.mul_(0.5).flatten(1).sum(1)


@pytest.mark.parametrize("indices", [None, np.array([5, 0])])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(6, 4), (6, 1, 2, 2), (6, 2, 2, 2)])
def test_scoring_leaves_the_rows_as_they_were(shape, dtype, indices):
    X = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    before = X.copy()
    result = apply_in_blocks(InPlace(), X, indices, plain, lambda module, batch: module(batch))
    assert np.array_equal(X, before)
    expected = before.reshape(6, -1).sum(1) / 2
    assert np.array_equal(result, expected if indices is None else expected[indices])


def test_halves_are_those_of_the_rows_that_were_given():
    """Memory runs out after the first layer has overwritten the device's rows."""

    def apply(module, batch):
        result = module(batch)
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no memory")
        return result

    # Images of several channels are copied, as all rows are for a CUDA device.
    X = np.arange(48.0).reshape(6, 2, 2, 2)
    assert np.array_equal(apply_in_blocks(InPlace(), X, None, plain, apply), X.sum((1, 2, 3)) / 2)


@pytest.mark.parametrize("indices", [None, np.array([5, 0])])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(6, 4), (6, 1, 2, 2)])
def test_training_leaves_the_rows_as_they_were(shape, dtype, indices):
    X = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    before = X.copy()
    data = TrainingRows(X, indices, plain, CPU)
    loss = Step(lambda module, batch: module(batch).square().mean())
    train(InPlace(), data, [Phase([loss], 2)], batch_size=100, lr=0.1)
    assert np.array_equal(X, before)
    assert np.array_equal(data.resident, before if indices is None else before[indices])
    data.resident.zero_()
    assert np.array_equal(X, before)


# --------------------------------------------------------------------------------------------------------------------
# Steps that share an optimiser, augmentation, statistics of batch normalisation


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.left, self.right = nn.Linear(2, 2), nn.Linear(2, 1), nn.Linear(2, 1)


@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_steps_of_the_same_part_share_an_optimiser(optimizer):
    rows = torch.randn(8, 2)
    torch.manual_seed(0)
    module = TwoHeads()
    by_hand = copy.deepcopy(module)

    def loss(head):
        return lambda module, rows: getattr(module, head)(module.trunk(rows)).square().mean()

    data = TrainingRows(rows.numpy(), None, plain, CPU)
    phase = Phase([Step(loss("left")), Step(loss("right"))], 3)
    net = train(module, data, [phase], batch_size=8, lr=0.1, optimizer=optimizer, weight_decay=0.1)
    assert not hasattr(net, "optimizer1_")

    reference = optim.make_optimizer(optimizer, list(by_hand.parameters()), 0.1, weight_decay=0.1)
    for _ in range(3):
        for head in ("left", "right"):
            reference.zero_grad(set_to_none=True)
            loss(head)(by_hand, rows).backward()
            reference.step()
    for trained, expected in zip(module.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6)


def test_sgd_begins_with_momentum_of_nothing():
    """As torch begins it, step for step, where all parameters have gradients from the start."""
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    ours = optim.make_optimizer("nesterov", [first], 0.1)
    plain = torch.optim.SGD([second], 0.1, momentum=0.9, nesterov=True, fused=False)
    for _ in range(3):
        for parameter, optimizer in ((first, ours), (second, plain)):
            optimizer.zero_grad()
            parameter.pow(4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(("name", "theirs"), [("adam", "Adam"), ("adamw", "AdamW"), ("rmsprop", "RMSprop")])
def test_optimisers_take_the_steps_of_torch_and_outlive_pickling(name, theirs):
    first, second = nn.Parameter(torch.arange(3.0)), nn.Parameter(torch.arange(3.0))
    ours = optim.make_optimizer(name, [first], 0.1, weight_decay=0.1)
    plain = getattr(torch.optim, theirs)([second], 0.1, weight_decay=0.1)
    for _ in range(3):
        for parameter, optimizer in ((first, ours), (second, plain)):
            optimizer.zero_grad()
            (parameter - 1).pow(4).sum().backward()
            optimizer.step()
        first_again, ours = pickle.loads(pickle.dumps((first, ours)))
        assert ours.param_groups[0]["params"][0] is first_again
        first = first_again
    torch.testing.assert_close(first, second)
    assert isinstance(ours, type(plain))
    assert first.grad_fn is None
    # Each holds the state of the other.
    ours.load_state_dict(plain.state_dict())
    plain.load_state_dict(ours.state_dict())


def test_all_steps_of_a_batch_take_the_same_augmented_rows():
    seen = []

    def loss(module, rows):
        seen.append(rows.clone())
        return module.left(module.trunk(rows)).square().mean()

    data = TrainingRows(np.ones((6, 2)), None, plain, CPU)
    phase = Phase([Step(loss), Step(loss)], 2, augment=lambda rows: rows + torch.rand(len(rows), 1))
    train(TwoHeads(), data, [phase], batch_size=3, lr=0.1)
    assert len(seen) == 8
    for left, right in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(left, right)
        assert left.min() > 1
    assert not torch.equal(seen[0], seen[2])


def test_reestimated_statistics_are_those_of_the_batches():
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2, momentum=0.3), nn.Linear(2, 1)).train()
    module[1](torch.randn(50, 2) + 100)
    weight = module[2].weight.clone()
    rows = torch.tensor([[0.0, 1.0], [2.0, 5.0], [4.0, 0.0], [6.0, 6.0]])
    reestimate_batch_norm(module.modules(), module.eval(), [rows[:2], rows[2:]])
    # Means 1 and 5, 3 and 3; unbiased variances 2 and 2, 8 and 18.
    assert module[1].running_mean.tolist() == [3, 3]
    assert module[1].running_var.tolist() == [2, 13]
    assert module[1].momentum == 0.3
    assert not module.training
    assert not module[1].training
    assert torch.equal(module[2].weight, weight)


def test_statistics_stay_where_there_are_no_batches():
    module = nn.BatchNorm1d(1)
    module(torch.arange(4.0)[:, None])
    before = module.running_mean.clone()
    reestimate_batch_norm([module], module.eval(), [])
    assert torch.equal(module.running_mean, before)


def test_steps_schedule():
    factors = [SCHEDULES["steps"](epoch / 200) for epoch in (0, 59, 60, 119, 120, 159, 160, 200)]
    assert factors == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008])
