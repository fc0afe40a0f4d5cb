"""Batches of memory maps that are read chunk by chunk."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skorch.callbacks import Callback

import skood.training.batches as batches
from skood import DUMDetector
from skood.training.batches import TensorBatches, TrainingRows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    X = np.lib.format.open_memmap(
        tmp_path_factory.mktemp("rows") / "X.npy", mode="w+", dtype=np.float32, shape=(300, 1)
    )
    X[:] = np.arange(300)[:, None]
    return X


@given(data=st.data(), n=st.integers(1, 300), batch_size=st.integers(1, 40), chunk=st.integers(1, 80))
def test_no_batch_of_a_stream_is_too_small_or_too_large(mapped, data, n, batch_size, chunk):
    least_rows = data.draw(st.integers(1, batch_size), label="least_rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "RESIDENT_BYTES", 0)
        patch.setattr(batches, "STREAM_BYTES", 4 * chunk)
        rows = TrainingRows(mapped[:n], None, lambda tensor: tensor, CPU, labels=np.arange(n))
        iterator = TensorBatches(rows, batch_size, least_rows=least_rows)
        pieces = [(batch.flatten().tolist(), extra["labels"].tolist()) for batch, extra in iterator]
    *whole, last = [len(batch) for batch, _ in pieces]
    assert whole == [batch_size] * (len(iterator) - 1)
    assert min(least_rows, n) <= last <= batch_size + least_rows - 1
    assert sorted(row for batch, _ in pieces for row in batch) == list(range(n))
    assert all(batch == labels for batch, labels in pieces)


class OfBatches(Callback):
    """With it, the history keeps the batches."""

    def on_batch_end(self, net, **kwargs):
        pass


def test_bags_of_streamed_rows_are_of_whole_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 1000)
    monkeypatch.setattr(batches, "STREAM_BYTES", 4 * 3 * 100)
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(430, 3)).astype(np.float32))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    params = {"hidden_sizes": (4,), "max_epochs": 1, "contamination": 0, "random_state": 0, "device": "cpu"}
    detector = DUMDetector("dataset", bag_size=8, batch_size=32, callbacks=[OfBatches()], **params).fit(X)
    assert detector.history_[-1, "batches", :, "train_batch_size"] == [32] * 12 + [46]


def test_streamed_outliers_come_in_the_order_in_which_they_are_drawn(mapped, monkeypatch):
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 0)
    rows = TrainingRows(mapped, np.arange(100), lambda tensor: tensor, CPU, auxiliary_indices=np.arange(299, 99, -1))
    # One of them comes again: the queue was filled anew within the batch.
    drawn = torch.tensor([7, 150, 3, 7, 199])
    assert rows.auxiliary_rows(drawn).flatten().tolist() == [292, 149, 296, 292, 100]
