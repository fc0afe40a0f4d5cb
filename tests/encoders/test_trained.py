"""Trained networks that others stand on: where they come from, and who shares them."""

import copy
import functools
import gc
import pickle
import weakref
from types import FunctionType, MethodType, ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from torch import nn

from skood import (
    BackboneClassifier,
    DUMDetector,
    FrozenEncoder,
    OODScorer,
    RejectClassDetector,
    ResidualAdapterDetector,
)
from skood.encoders.trained import find_backbone, fingerprint, frozen
from skood.networks import MLP, ResNet
from skood.networks.probe import recorded

CPU = torch.device("cpu")
SMALL = {"hidden_sizes": (8,), "max_epochs": 1, "random_state": 0}


def perceptron(n_features=3, n_outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(*MLP(n_features, n_outputs, (6, 5))).eval()


def resnet():
    torch.manual_seed(0)
    return ResNet((1, 8, 8), 3, width=2, n_blocks=1).eval()


class Options:
    slope = 0.0


def with_attributes():
    """A network that holds more than layers and tensors: of any kind, itself among them."""
    module = resnet()
    module.width, module.sizes, module.options, module.activation = 2, [1, 2], Options(), torch.tanh
    module.means, module.grid, module.others = np.zeros(2), torch.zeros(2), [resnet()]
    module.itself, module.half = (module,), functools.partial(torch.mul, 0.5)
    module.forward = MethodType(type(module).forward, module)
    return module


def classes(n=30):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    return (rng.normal(size=(n, 3)) + 4 * np.eye(3)[y]).astype(np.float32), y


def tensors(module):
    return [*module.parameters(), *module.buffers()]


def alike(module, other):
    return all(torch.equal(a, b) for a, b in zip(tensors(module), tensors(other), strict=True))


# --------------------------------------------------------------------------------------------------------------------
# Copies to stand on


def test_one_copy_for_all():
    module = resnet().train()
    before = copy.deepcopy(module)
    copied = frozen(module, CPU)
    assert copied is frozen(module, CPU)
    assert copied is not module
    assert alike(copied, module)
    assert not copied.training
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    # The given one is as it was.
    assert alike(module, before)
    assert all(part.training for part in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not {id(tensor) for tensor in tensors(module)} & {id(tensor) for tensor in tensors(copied)}


def step(module, **options):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, **options)
    module(torch.ones(2, 1, 8, 8)).square().sum().backward()
    optimizer.step()


def scaled_in_place(module):
    with torch.no_grad():
        module.stem.weight.mul_(2)


CHANGES = {
    "in place": scaled_in_place,
    "through data": lambda module: module.stem.weight.data.mul_(2),
    "optimizer": step,
    "fused optimizer": lambda module: step(module, fused=True),
    "foreach optimizer": lambda module: step(module, foreach=True),
    "loaded": lambda module: module.load_state_dict({k: v + 1 for k, v in module.state_dict().items()}),
    "statistics": lambda module: module.train()(torch.rand(4, 1, 8, 8)),
    "new layer": lambda module: setattr(module, "head", nn.Linear(16, 3)),
    "wider layer": lambda module: setattr(module, "head", nn.Linear(16, 7)),
    "new parameter": lambda module: setattr(module.head, "weight", nn.Parameter(torch.ones(3, 16))),
    "other settings": lambda module: setattr(module.norm, "eps", 1.0),
    "numpy": lambda module: module.stem.weight.detach().numpy().fill(1),
    "new attribute": lambda module: setattr(module, "scale", 2),
    "attribute": lambda module: setattr(module, "width", 3),
    "within an attribute": lambda module: module.sizes.append(3),
    "attribute of an attribute": lambda module: setattr(module.options, "slope", 0.1),
    "function": lambda module: setattr(module, "activation", torch.sin),
    "function of Python": lambda module: setattr(module, "activation", nn.functional.relu),
    "array": lambda module: module.means.fill(2),
    "tensor that is no buffer": lambda module: module.grid.fill_(2),
    "layer that is not registered": lambda module: scaled_in_place(module.others[0]),
    "hook": lambda module: module.stem.register_forward_hook(lambda *_: None),
    "hook of arguments": lambda module: module.stem.register_forward_pre_hook(lambda *_: None),
    "forward": lambda module: setattr(module, "forward", lambda rows: rows),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_module_is_copied_anew(change):
    module = with_attributes()
    first = frozen(module, CPU)
    kept = copy.deepcopy(first)
    change(module)
    second = frozen(module, CPU)
    assert second is not first
    assert alike(second, module)
    assert alike(first, kept)
    assert second is frozen(module, CPU)


@pytest.mark.parametrize(
    "module",
    [
        with_attributes(),
        nn.LSTM(2, 3),
        nn.TransformerEncoderLayer(4, 2, batch_first=True),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
        nn.Linear(2, 3).half(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_is_unchanged_is_not_copied_again(module):
    assert frozen(module, CPU) is frozen(module, CPU)


def test_a_copy_that_runs_is_the_same_copy():
    """It may keep something of its last rows, and a thread may read its layers meanwhile."""
    module = resnet()
    copied = frozen(module, CPU)
    copied.last = torch.ones(2)
    with recorded(copied, gives=["stem"]):
        assert frozen(module, CPU) is copied


class Activated(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 4), nn.Linear(4, 3))
        self.activation = torch.relu

    def forward(self, rows):
        return self[1](self.activation(self[0](rows)))


@pytest.mark.parametrize("change", [lambda net: setattr(net, "activation", torch.sin), lambda net: doubled(net[0])])
def test_a_detector_stands_on_the_network_as_it_is_now(change):
    X, network = classes()[0], Activated()

    def scores(given):
        params = {"adaptation": "frozen", "contamination": 0, "random_state": 0}
        return ResidualAdapterDetector(given, **params).fit(X).score_samples(X)

    before = scores(network)
    change(network)
    after = scores(network)
    assert not np.allclose(after, before)
    assert np.array_equal(after, scores(copy.deepcopy(network)))


def doubled(layer):
    layer.register_forward_hook(lambda layer, rows, output: 2 * output)


def test_a_layer_replaced_again_and_again():
    """Where the new weights lie in memory, and how often they were set, says nothing."""
    module = nn.Sequential(nn.Linear(300, 300))
    for _ in range(20):
        module[0] = None
        module[0] = nn.Linear(300, 300)
        assert torch.equal(frozen(module, CPU)[0].weight, module[0].weight)


def test_copies_go_with_what_they_are_of():
    module = resnet()
    copied = weakref.ref(frozen(module, CPU))
    del module
    gc.collect()
    assert copied() is None


def test_copies_made_in_inference_mode_can_be_trained_on():
    module = resnet()
    with torch.inference_mode():
        copied = frozen(module, CPU)
    assert not any(tensor.is_inference() for tensor in tensors(copied))
    with torch.inference_mode():
        of_inference = nn.Linear(2, 2)
    assert not any(tensor.is_inference() for tensor in tensors(frozen(of_inference, CPU)))


@settings(max_examples=20)
@given(st.data())
def test_fingerprints_tell_weights_apart(data):
    module = perceptron()
    print_ = fingerprint(module)
    assert fingerprint(copy.deepcopy(module)) == fingerprint(copy.deepcopy(module).double()) == print_
    changed = copy.deepcopy(module)
    tensor = data.draw(st.sampled_from(list(changed.parameters())))
    place = data.draw(st.integers(0, tensor.numel() - 1))
    with torch.no_grad():
        value = tensor.view(-1)[place]
        value.copy_(torch.nextafter(value, torch.tensor(9.0)))
    assert fingerprint(changed) != print_


def test_fingerprints_tell_names_and_statistics_apart():
    one, other = nn.Sequential(nn.Linear(2, 2)), nn.ModuleDict({"a": nn.Linear(2, 2)})
    other["a"].load_state_dict(one[0].state_dict())
    assert fingerprint(one) != fingerprint(other)
    norm = nn.BatchNorm1d(2)
    before = fingerprint(norm)
    norm(torch.randn(4, 2))
    assert fingerprint(norm) != before
    # Neither layout nor mode is of the weights.
    deep = resnet()
    assert fingerprint(deep.to(memory_format=torch.channels_last).train()) == fingerprint(resnet())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.LazyLinear(3)), "backbone is not trained: 0.weight is lazy, and has no shape yet"),
        (nn.Linear(3, 3, dtype=torch.complex64), "backbone holds complex numbers, in weight"),
    ],
    ids=["lazy", "complex"],
)
def test_weights_that_cannot_be_stood_on(network, message):
    with pytest.raises(ValueError, match=message):
        ResidualAdapterDetector(network, contamination=0).fit(np.zeros((8, 3)))


# --------------------------------------------------------------------------------------------------------------------
# Where they come from


def test_a_module_is_itself():
    module = perceptron()
    assert find_backbone(module, False)[:2] == (module, None)


def test_what_is_to_be_trained_yet():
    for backbone in ("residual", "resnet-8-2", "torchvision:", "elsewhere:resnet18", MLP, lambda *_: perceptron()):
        assert find_backbone(backbone, False) is None


def test_fitted_estimators():
    X, y = classes()
    classifier = BackboneClassifier(**SMALL).fit(X, y)
    found = find_backbone(classifier, False)
    assert found.network is classifier.module_
    assert found.scaler is classifier.scaler_
    assert find_backbone(FrozenEstimator(classifier), False).network is classifier.module_
    detector = RejectClassDetector(**SMALL).fit(X, y)
    assert find_backbone(detector, False).network is detector.module_
    net = NeuralNetClassifier(MLP, module__in_features=3, module__out_features=3, module__hidden_sizes=(4,))
    net.set_params(verbose=0, max_epochs=1, criterion=nn.CrossEntropyLoss).fit(X, y)
    assert find_backbone(net, False)[:2] == (net.module_, None)


def test_a_detector_with_adapters_lends_its_backbone():
    X, y = classes()
    one = ResidualAdapterDetector(BackboneClassifier(**SMALL).fit(X, y), max_epochs=1, contamination=0).fit(X)
    found = find_backbone(one, False)
    assert found.network is one.backbone_
    assert found.scaler is one.scaler_


@pytest.mark.parametrize(
    "backbone", [BackboneClassifier(), FrozenEstimator(BackboneClassifier()), ResidualAdapterDetector(contamination=0)]
)
def test_an_estimator_must_be_fitted(backbone):
    with pytest.raises(ValueError, match=r"backbone=\w+ holds no trained torch module. Fit it first.*FrozenEstimator"):
        find_backbone(backbone, False)


def test_an_estimator_must_have_a_network():
    X, y = classes()
    with pytest.raises(ValueError, match="backbone=LogisticRegression holds no trained torch module"):
        find_backbone(LogisticRegression().fit(X, y), False)


def test_an_estimator_of_other_images():
    y = classes()[1]
    images = (255 * np.random.default_rng(0).random((30, 1, 8, 8))).astype(np.uint8)
    bright = BackboneClassifier("resnet-8-2", max_epochs=1).fit(images, y)
    with pytest.raises(ValueError, match="backbone was fitted on uint8 images, but X holds others"):
        find_backbone(bright, False)
    assert find_backbone(bright, True).network is bright.module_
    with pytest.raises(ValueError, match="backbone was fitted on float images"):
        find_backbone(clone(bright).fit(images / 255, y), True)


# What takes the network of a fitted estimator, by the name of the parameter.
SHORT = {"max_epochs": 1, "contamination": 0}
TAKERS = {
    "backbone": lambda given, X, y: FrozenEncoder(given).fit(X),
    "backbone ": lambda given, X, y: ResidualAdapterDetector(given, **SHORT).fit(X),
    "encoder": lambda given, X, y: DUMDetector(encoder=given, **SHORT).fit(X),
    "classifier": lambda given, X, y: RejectClassDetector(classifier=given, **SHORT).fit(X, y),
}
every_taker = pytest.mark.parametrize("what", TAKERS)


@every_taker
@pytest.mark.parametrize("frozen", [False, True])
def test_columns_in_another_order_are_refused(what, frozen):
    """The estimator would refuse them itself: its scaling, and its network, are of columns by their place."""
    X, y = classes()
    table = pd.DataFrame(X, columns=["a", "b", "c"])
    given = BackboneClassifier(**SMALL).fit(table, y)
    given = FrozenEstimator(given) if frozen else given
    with pytest.raises(ValueError, match=rf"{what.strip()} was fitted on other columns.* 1 is 'b', .* 'c'\. Pass X\["):
        TAKERS[what](given, table[["a", "c", "b"]], y)
    for rows in (table, X):
        assert TAKERS[what](given, rows, y).n_features_in_ == 3


@every_taker
def test_pixels_on_another_scale_are_warned_of(what):
    y = classes()[1]
    images = np.random.default_rng(0).random((30, 1, 8, 8))
    given = BackboneClassifier("resnet-8-2", max_epochs=1).fit(images, y)
    with pytest.warns(UserWarning, match=rf"in \[0, 255\], but the {what.strip()} was fitted on pixels in \[0, 1\]"):
        TAKERS[what](given, 255 * images, y)
    TAKERS[what](given, images, y)


class Disturbed(nn.Module):
    """Calls a function in the midst of its first run, as another thread might, and then returns its rows."""

    act = None

    def forward(self, rows):
        function, Disturbed.act = Disturbed.act, None
        if function is not None:
            function()
        return rows


def disturbed(n_outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), Disturbed(), nn.Linear(8, n_outputs))


def a_classifier():
    return BackboneClassifier(disturbed(3), max_epochs=1, random_state=0).fit(*classes())


FEW = {"max_epochs": 1, "contamination": 0.1, "random_state": 0}
USERS = {
    "BackboneClassifier": lambda X: a_classifier(),
    "FrozenEncoder": lambda X: FrozenEncoder(disturbed()).fit(X),
    "Pipeline": lambda X: make_pipeline(FrozenEncoder(disturbed()), DUMDetector(**FEW)).fit(X),
    "DUMDetector": lambda X: DUMDetector(**FEW, encoder=a_classifier()).fit(X),
    "ResidualAdapterDetector": lambda X: ResidualAdapterDetector(a_classifier(), **FEW).fit(X),
    "OODScorer, a classifier": lambda X: OODScorer(a_classifier(), method="knn").fit(X),
    "OODScorer, a module": lambda X: OODScorer(disturbed(3).eval(), method="mahalanobis").fit(*classes()),
}


@pytest.mark.parametrize("user", USERS)
def test_what_scores_can_be_copied_and_explained_at_the_same_time(user):
    """Layers are read in that moment; a copy must not go on reading them."""
    X, _ = classes()
    estimator = USERS[user](X)
    run = "score_samples" if hasattr(estimator, "score_samples") else "transform"
    answers = getattr(estimator, run)(X)

    def meanwhile(action):
        """Return what an action gives in the midst of a run of the network, whose answers stay the same."""
        found = []
        Disturbed.act = lambda: found.append(action())
        np.testing.assert_array_equal(getattr(estimator, run)(X), answers)
        assert len(found) == 1
        return found[0]

    copies = [meanwhile(lambda: pickle.loads(pickle.dumps(estimator))), meanwhile(lambda: copy.deepcopy(estimator))]
    for copied in copies:
        np.testing.assert_array_equal(getattr(copied, run)(X), answers)
    if hasattr(estimator, "explain"):
        expected = estimator.explain(X[:2])
        np.testing.assert_array_equal(meanwhile(lambda: estimator.explain(X[:2])), expected)
    if hasattr(estimator, "to_torch"):
        copies.append(meanwhile(estimator.to_torch))
        assert torch.equal(copies[-1](torch.tensor(X)), estimator.to_torch()(torch.tensor(X)))
    for copied in [estimator, *copies]:
        pickle.dumps(copied)
        modules = [one for one in reachable(copied) if isinstance(one, nn.Module)]
        assert modules
        assert not any(hooks for one in modules for hooks in (one._forward_hooks, one._forward_pre_hooks))


def reachable(value):
    """Return all that an object holds, but for types, modules of Python and functions."""
    seen, todo = {}, [value]
    while todo:
        one = todo.pop()
        if id(one) not in seen and not isinstance(one, (type, ModuleType, FunctionType)):
            seen[id(one)] = one
            todo += gc.get_referents(one)
    return seen.values()
