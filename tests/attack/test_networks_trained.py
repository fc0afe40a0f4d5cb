"""Networks as people write them are trained, copied and scored like any other."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from skood import (
    BackboneClassifier,
    DUMDetector,
    FrozenEncoder,
    OODScorer,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    SimCLREncoder,
)
from skood.callbacks import ValidationScore
from skood.networks import MultiTask, Projected

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(60, 6)).astype(np.float32)
CLASSES = np.arange(60) % 3
SHORT = {"max_epochs": 2, "contamination": 0, "random_state": 0}


class Layers(nn.Module):
    """Two layers, the first of them changed by a function of torch's; the last activations are kept."""

    def __init__(self, size, n_outputs, changed=None):
        super().__init__()
        first = nn.Linear(size, 16)
        self.first, self.last = changed(first) if changed else first, nn.Linear(16, n_outputs)
        self.activations = []

    def forward(self, rows):
        self.activations = [functional.relu(self.first(rows))]
        return self.last(self.activations[0])


CHANGED = [None, nn.utils.weight_norm, nn.utils.spectral_norm, parametrizations.weight_norm]
changed_or_not = pytest.mark.parametrize("changed", CHANGED)
ignored = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")


@ignored
@changed_or_not
def test_a_network_that_was_just_trained_is_taken(changed):
    torch.manual_seed(0)
    network = Layers(6, 3, changed)
    network(torch.from_numpy(ROWS)).square().sum().backward()
    kept = network.activations[0]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for estimator in (
        BackboneClassifier(network, max_epochs=1, random_state=0),
        RejectClassDetector(classifier=network, **SHORT),
        ResidualAdapterDetector(network, adaptation="finetune", **SHORT),
        FrozenEncoder(network),
    ):
        assert not hasattr(clone(estimator), "n_features_in_")
        estimator.fit(ROWS, None if isinstance(estimator, ResidualAdapterDetector) else CLASSES)
    assert network.activations[0] is kept
    assert kept.grad_fn is not None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("estimator", [BackboneClassifier, RejectClassDetector, RotationAuxClassifier, SimCLREncoder])
def test_a_network_that_is_frozen_has_nothing_to_train(estimator):
    network = Layers(6, 8 if estimator is SimCLREncoder else 4 if estimator is RejectClassDetector else 3)
    found = estimator(network=network.requires_grad_(False), max_epochs=1)
    if estimator is SimCLREncoder:
        found.set_params(embedding_size=8, outlier_label=None)
    with pytest.raises(ValueError, match="network has no parameters that could be trained; all are frozen, or there"):
        found.fit(ROWS, CLASSES)
    network.last.requires_grad_(True)
    if estimator is SimCLREncoder:
        with pytest.raises(
            ValueError, match=r"could be trained before its last linear layer, .* Set output='embedding'"
        ):
            found.set_params(output="features").fit(ROWS)
        found.set_params(output="embedding")
    # A new head on frozen features is trained.
    assert not torch.equal(found.fit(ROWS, CLASSES).module_.state_dict().popitem()[1], network.last.bias)


def test_a_function_that_returns_the_same_network_gives_each_fit_its_own():
    torch.manual_seed(0)
    network = Layers(6, 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # The threshold is set on copies that are trained without some of the rows.
    options = SHORT | {"contamination": "auto"}
    scores = [
        RejectClassDetector(network=given, **options).fit(ROWS, CLASSES).score_samples(ROWS)
        for given in (network, lambda size, n_outputs: network, lambda size, n_outputs: network)
    ]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert np.array_equal(scores[1], scores[0])
    assert np.array_equal(scores[2], scores[0])


class Scaled(nn.Linear):
    """A linear layer with a factor that its method does not draw."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features)
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, rows):
        return super().forward(rows) * self.factor


@ignored
@pytest.mark.parametrize(
    ("changed", "name"),
    [(nn.utils.weight_norm, "weight_g"), (nn.utils.spectral_norm, "weight_orig"), (Scaled, "factor")],
)
def test_weights_that_no_layer_draws_anew_are_named(changed, name):
    network = Layers(6, 3, changed)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=rf"cannot draw new weights for first\.{name}, which no layer's reset_p"):
        ResidualAdapterDetector(network, adaptation="scratch", **SHORT).fit(ROWS)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@ignored
@changed_or_not
def test_a_detector_is_copied_in_training_and_afterwards(changed):

    def build(size, n_outputs):
        return Layers(size, n_outputs, changed)

    watched = ValidationScore(np.vstack([ROWS, 9 * ROWS]), np.repeat([1, -1], 60))
    detector = RejectClassDetector(network=build, callbacks=[watched], **SHORT).fit(ROWS, CLASSES)
    assert 0 <= detector.history_[-1]["valid_auroc"] <= 1
    scores = detector.score_samples(ROWS)
    np.testing.assert_allclose(detector.to_torch()(torch.from_numpy(ROWS)).numpy(), scores, rtol=1e-5)
    assert detector.explain(ROWS[:2]).shape == (2, 6)
    copied = copy.deepcopy(detector)
    with torch.no_grad():
        for parameter in detector.module_.parameters():
            parameter.zero_()
    assert np.array_equal(copied.score_samples(ROWS), scores)


class OneMoreInTraining(nn.Module):
    """A network with a second output in training, as torchvision's Inception."""

    def __init__(self, size, n_outputs):
        super().__init__()
        self.body = Layers(size, n_outputs)

    def forward(self, rows):
        output = self.body(rows)
        return (output, output) if self.training else output


@pytest.mark.parametrize(
    "estimator",
    [
        BackboneClassifier(OneMoreInTraining(6, 3), max_epochs=1),
        DUMDetector(network=OneMoreInTraining, max_epochs=1),
        RejectClassDetector(network=OneMoreInTraining, **SHORT),
        RotationAuxClassifier(network=OneMoreInTraining(6, 3), **SHORT),
        SimCLREncoder(network=OneMoreInTraining(6, 8), embedding_size=8, max_epochs=1),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_second_output_in_training_is_named(estimator):
    y = None if isinstance(estimator, (DUMDetector, SimCLREncoder)) else CLASSES
    with pytest.raises(ValueError, match=r"network returns a tuple in training mode, .* Let it return one tensor"):
        estimator.fit(ROWS, y)


class NaNForLargeRows(Layers):
    """A network that gives NaN for rows whose first feature is large."""

    def forward(self, rows):
        return super().forward(torch.where(rows > 50, torch.nan, rows))


def test_a_network_that_gives_nan_is_named_and_not_the_rows():
    network, far = NaNForLargeRows(6, 3), ROWS.copy()
    far[[4, 9], 0] = 100
    message = "{} gives NaN or infinity for 2 of 60 rows, first for row 4. Look at its outputs for these rows"
    encoder = FrozenEncoder(network).fit(ROWS)
    assert np.isfinite(encoder.transform(ROWS)).all()
    with pytest.raises(ValueError, match=message.format("backbone")):
        encoder.transform(far)
    detector = DUMDetector(encoder=network, scaling=None, max_epochs=1).fit(ROWS)
    for refused in (detector.score_samples, clone(detector).fit):
        with pytest.raises(ValueError, match=message.format("encoder")):
            refused(far)
    trained = BackboneClassifier(network, max_epochs=1, random_state=0).fit(ROWS, CLASSES)
    embedding = SimCLREncoder(NaNForLargeRows(6, 8), embedding_size=8, max_epochs=1, random_state=0).fit(ROWS)
    for encoder in (trained, embedding):
        with pytest.raises(ValueError, match=message.format("network")):
            encoder.transform(far)


@pytest.mark.parametrize("made", [Projected, MultiTask])
def test_what_asks_for_one_tensor_can_be_traced(made):
    """`torch.fx` passes what stands for a tensor, and is none."""
    whole = made(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), (6,)).eval()
    rows = torch.from_numpy(ROWS)
    assert torch.equal(fx.symbolic_trace(whole)(rows), whole(rows))


traced = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


@traced
@pytest.mark.parametrize("estimator", [BackboneClassifier, RejectClassDetector])
def test_a_traced_part_of_a_network_is_trained_as_a_copy(estimator):
    torch.manual_seed(0)
    part = torch.jit.trace(nn.Sequential(nn.Linear(6, 16), nn.ReLU()), torch.zeros(2, 6))
    network = nn.Sequential(part, nn.Linear(16, 3 if estimator is BackboneClassifier else 4))
    before = [value.clone() for value in network.parameters()]
    fitted = estimator(network=network, max_epochs=1, random_state=0).fit(ROWS, CLASSES)
    assert all(torch.equal(value, old) for value, old in zip(network.parameters(), before, strict=True))
    # The weights that were traced are trained, too: they are among those of the fitted module that moved.
    same = [value for value in fitted.module_.parameters() if any(torch.equal(value, old) for old in before)]
    assert not same
    assert {old.shape for old in before[:2]} <= {value.shape for value in fitted.module_.parameters()}


@traced
@pytest.mark.parametrize(
    "estimator",
    [
        BackboneClassifier(max_epochs=1),
        RotationAuxClassifier(max_epochs=1),
        RejectClassDetector(max_epochs=1),
        SimCLREncoder(embedding_size=3, outlier_label=None),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_traced_network_whose_last_layer_is_wanted_is_told_to_be_passed_as_it_was(estimator):
    network = torch.jit.trace(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), torch.zeros(2, 6))
    name = "classifier" if isinstance(estimator, RejectClassDetector) else "network"
    with pytest.raises(ValueError, match=r"last one, and a scripted or traced module does not .* the original module"):
        clone(estimator).set_params(**{name: network}).fit(ROWS, CLASSES)


class OfFixedRows(nn.Module):
    """A network that keeps the number of rows with which it was traced."""

    def forward(self, rows):
        return rows.view(len(rows), -1)


@traced
@pytest.mark.filterwarnings("ignore:Using len:torch.jit.TracerWarning")
@pytest.mark.parametrize("take", [FrozenEncoder, lambda network: OODScorer(network)])
def test_an_error_in_a_traced_network_is_one_line(take):
    network = torch.jit.trace(OfFixedRows(), torch.zeros(5, 6))
    with pytest.raises(
        ValueError, match=r"does not take rows of .*: RuntimeError: shape '\[5, -1\]' is invalid"
    ) as info:
        take(network).fit(ROWS, CLASSES)
    assert "\n" not in str(info.value)
