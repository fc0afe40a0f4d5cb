"""Files of skops hold every estimator without a pickle, and are read with the types that skood names."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import skops.io
import torch
from configurations import CLASSIFIERS, CONFIGURATIONS, ENCODERS, SMALL, WRAPPERS, RowStatistics, named
from sklearn.base import clone, is_classifier
from skops.io.exceptions import UntrustedTypesFoundException

from skood import DUMDetector, FrozenEncoder
from skood._plain import made_plain, restored
from skood.export import skops_trusted_types

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 1)) @ [[1.0, -1.0, 0.5]] + 0.1 * rng.normal(size=(60, 3))
# Those of others: the tests' own network, and what skops does not trust of scikit-learn's.
OTHERS = ["configurations.RowStatistics", "sklearn.tree._tree.Tree"]


def answers(estimator):
    name = next(one for one in ("score_samples", "transform", "predict_proba") if hasattr(estimator, one))
    return getattr(estimator, name)(X)


@pytest.mark.parametrize("estimator", **named({**CONFIGURATIONS, **CLASSIFIERS, **ENCODERS, **WRAPPERS}))
def test_every_estimator_is_read_as_it_was(estimator):
    estimator = clone(estimator)
    # The fits that set the threshold are those of other tests.
    params = {"random_state": 0, "contamination": 0.1, "max_epochs": 1}
    estimator.set_params(**{name: value for name, value in params.items() if name in estimator.get_params()})
    estimator.fit(X, np.arange(len(X)) % 2 + 1 if is_classifier(estimator) else None)
    file = skops.io.dumps(estimator)
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        assert {name.rpartition(".")[2] for name in archive.namelist()} <= {"json", "npy"}
    read = skops.io.loads(file, trusted=skops_trusted_types() + OTHERS)
    assert np.array_equal(answers(read), answers(estimator))
    # And what was read is written again, as is a pickle of it.
    assert np.array_equal(answers(pickle.loads(pickle.dumps(read))), answers(estimator))
    again = skops.io.loads(skops.io.dumps(read), trusted=skops_trusted_types() + OTHERS)
    assert np.array_equal(answers(again), answers(estimator))


@pytest.mark.parametrize("estimator", [DUMDetector(**SMALL, contamination=0), FrozenEncoder(torch.nn.Linear(3, 2))])
def test_a_device_may_be_an_object_of_torch(estimator):
    estimator = clone(estimator).set_params(device=torch.device("cpu")).fit(X)
    read = skops.io.loads(skops.io.dumps(estimator), trusted=skops_trusted_types())
    assert read.device == torch.device("cpu")
    assert np.array_equal(answers(read), answers(estimator))


def test_types_of_others_are_not_trusted():
    file = skops.io.dumps(FrozenEncoder(RowStatistics()).fit(X))
    with pytest.raises(UntrustedTypesFoundException, match=r"configurations\.RowStatistics"):
        skops.io.loads(file, trusted=skops_trusted_types())


class Exploding:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def test_a_pickle_within_a_file_is_not_read():
    """skorch, too, keeps the network of a net as a pickle within its state; a forged file may hold one."""
    net = DUMDetector(**SMALL, contamination=0.1, random_state=0).fit(X).net_
    state = net.__getstate__()
    assert not any(isinstance(value, bytes) for value in state.values())
    forged = type(net).__new__(type(net))
    forged.__setstate__({**state, "__cuda_dependent_attributes__": pickle.dumps(Exploding())})
    assert torch.equal(forged.module_(torch.ones(1, 3)), net.module_(torch.ones(1, 3)))


class Tied(torch.nn.Module):
    """Two layers with one weight, a buffer, and a list that holds a tensor and itself no module."""

    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        self.two.weight = self.one.weight
        self.register_buffer("steps", torch.tensor(3))
        self.others = [torch.zeros(1, dtype=torch.bfloat16), "text"]
        self.itself = {"self": (self,)}


def test_what_is_shared_stays_shared():
    module = Tied().requires_grad_(False)
    # Twice: of arrays that came from a file, there is nothing left to replace.
    read = restored(restored(made_plain({"a": module, "b": [module]})))
    assert read["a"] is read["b"][0]
    copied = read["a"]
    assert copied.two.weight is copied.one.weight
    assert isinstance(copied.one.weight, torch.nn.Parameter)
    assert not copied.one.weight.requires_grad
    assert copied.itself["self"][0] is copied
    assert copied.others[0].dtype is torch.bfloat16
    assert copied.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(values, module.state_dict()[name]) for name, values in copied.state_dict().items())
    assert copied.one.weight.data_ptr() != module.one.weight.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 3, 3), (0, 2)])
def test_tensors_keep_type_and_order_of_memory(dtype, shape):
    tensor = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    orders = [tensor, tensor.to(memory_format=torch.channels_last)] if tensor.ndim == 4 else [tensor]
    for ordered in orders:
        read = restored(made_plain(ordered))
        assert read.dtype is dtype
        assert read.stride() == ordered.stride()
        assert torch.equal(read, ordered)
    # A part of a tensor comes without the rest.
    part = restored(made_plain(torch.arange(6.0).reshape(2, 3)[:, :1]))
    assert torch.equal(part, torch.tensor([[0.0], [3.0]]))
    assert part.is_contiguous()
