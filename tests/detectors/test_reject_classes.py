import copy
import math
import pickle
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn

from skood import LabelWarning, RejectClassDetector, ResidualAdapterDetector, RotationAuxClassifier, scores
from skood.detectors._outlier_exposure import energy_bounded_loss, outlier_exposure_loss
from skood.detectors.reject_classes import (
    balanced_labels,
    greedy_weights,
    reject_score,
    score_components,
    self_labels,
    two_term_loss,
)
from skood.export import skops_trusted_types
from skood.metrics import answers, auroc, risk_coverage_curve
from skood.networks import MLP, SmallCNN, WideResNet, find_head, tap
from skood.training import batches

SMALL = {
    "network": "mlp",
    "hidden_sizes": (32,),
    "class_epochs": 5,
    "max_epochs": 5,
    "batch_size": 32,
    # Scores alone: a threshold on held-out rows would take three more fits.
    "contamination": 0,
    "random_state": 0,
}
# With a given classifier, which has its network.
AFTER = {name: value for name, value in SMALL.items() if name not in ("network", "hidden_sizes")}
# What the paper has, which is not the default where there are classes.
PUBLISHED = {"n_reject_classes": 5, "outlier_weight": 5.0, "score_type": "sum", "class_outputs": "all"}
# Nor are outliers of vectors from a corpus alone.
PUBLISHED |= {"outliers": "auxiliary"}


def two_blobs(n=100, seed=0):
    """Two classes, and auxiliary outliers around them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2 * n, 2)) + np.repeat([[-4, 0], [4, 0]], n, axis=0)
    outliers = rng.uniform(-12, 12, size=(4 * n, 2))
    distances = [np.linalg.norm(outliers - centre, axis=1) for centre in ([-4, 0], [4, 0])]
    outliers = outliers[np.minimum(*distances) > 4]
    return X, np.repeat([3, 7], n), outliers


def with_outliers(X, y, outliers):
    return np.vstack([X, outliers]), np.concatenate([y, np.full(len(outliers), -1)])


@pytest.fixture(scope="module")
def fitted():
    settings = SMALL | PUBLISHED | {"max_epochs": 30, "contamination": "natural"}
    return RejectClassDetector(**settings).fit(*with_outliers(*two_blobs()))


# --------------------------------------------------------------------------------------------------------------------
# The equations


def test_loss_by_hand():
    """Two rows of class 0, c = 2, k = 1: probabilities .5 and .25; one outlier with p = .125 on its pseudo-label."""
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]))
    outlier = torch.log(torch.tensor([[0.5, 0.375, 0.125]]))
    loss = two_term_loss(logits, torch.tensor([0, 0]), outlier, torch.tensor([2]), outlier_weight=5.0)
    # (log 2 + log 4) / 2 + 5 log 8 = 16.5 log 2
    assert loss.item() == pytest.approx(16.5 * math.log(2))


def test_loss_of_outlier_exposure_by_hand():
    """A row of class 0 with p = .5; an outlier with p = (.8, .2)."""
    logits, outlier = torch.log(torch.tensor([[0.5, 0.5]])) + 3, torch.log(torch.tensor([[0.8, 0.2]])) - 1
    loss = outlier_exposure_loss(logits, torch.tensor([0]), outlier, outlier_weight=0.5)
    # log 2 + .5 (log(5 / 4) + log 5) / 2
    assert loss.item() == pytest.approx(math.log(2) + 0.25 * math.log(25 / 4))
    # It is least where the outlier has the same probability in each class.
    uniform = outlier_exposure_loss(logits, torch.tensor([0]), torch.zeros(1, 2), outlier_weight=0.5)
    assert uniform.item() == pytest.approx(1.5 * math.log(2))
    assert uniform < loss


def test_loss_by_energies_by_hand():
    """Energies -(3 + log 2) and -9 of rows of two classes, of which the first is above m_in; -4 and -1 of outliers."""
    logits = torch.tensor([[3.0, 3.0], [9.0, -90.0]])
    outliers = torch.tensor([[-90.0, 4.0], [1.0, -90.0]])
    labels = torch.tensor([0, 0])
    loss = energy_bounded_loss(logits, labels, outliers, outlier_weight=0.1, margins=(-8.0, -2.0))
    # The cross entropy is log 2 / 2; 5 - log 2 is too much of the first row's energy, and 2 is missing from the first
    # outlier's.
    expected = math.log(2) / 2 + 0.1 * ((5 - math.log(2)) ** 2 / 2 + 2**2 / 2)
    assert loss.item() == pytest.approx(expected)


weighted_losses = [
    pytest.param(lambda *rows, **weight: two_term_loss(*rows, torch.tensor([3, 4]), 5.0, **weight), id="reject"),
    pytest.param(lambda *rows, **weight: outlier_exposure_loss(*rows, 0.5, **weight), id="uniform"),
    # The hinge of the rows' energies is of no class: all are below m_in.
    pytest.param(lambda *rows, **weight: energy_bounded_loss(*rows, 0.1, (99.0, 100.0), **weight), id="energy"),
]


@pytest.mark.parametrize("loss", weighted_losses)
def test_a_class_of_twice_the_weight_counts_as_its_rows_twice(loss):
    rng = np.random.default_rng(0)
    logits, outliers = torch.tensor(rng.normal(size=(5, 5))), torch.tensor(rng.normal(size=(2, 5)))
    labels = torch.tensor([0, 1, 1, 2, 0])
    weights = torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    twice = torch.tensor([0, 1, 1, 2, 2, 3, 4])
    weighted = loss(logits, labels, outliers, class_weight=weights)
    assert weighted.item() == pytest.approx(loss(logits[twice], labels[twice], outliers).item(), rel=1e-12)
    assert weighted.item() != pytest.approx(loss(logits, labels, outliers).item())


def test_own_answers_are_kept_and_others_drawn_among_the_reject_classes():
    torch.manual_seed(0)
    logits = torch.tensor([[0.0, 1.0, 5.0, 2.0, 0.0]] * 1000 + [[9.0, 1.0, 5.0, 2.0, 0.0]] * 3000)
    labels = self_labels(logits, n_classes=2)
    assert (labels[:1000] == 2).all()
    counts = torch.bincount(labels[1000:], minlength=5).tolist()
    assert counts[:2] == [0, 0]
    assert min(counts[2:]) > 900


def test_balanced_assignment_by_hand():
    """All four prefer the first reject class; those that prefer it least go to the other."""
    reject = torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    logits = torch.cat([torch.full((4, 3), 7.0), reject], 1)
    assert balanced_labels(logits, n_classes=3).tolist() == [3, 4, 4, 3]


def test_balanced_assignment_uses_every_class_alike():
    torch.manual_seed(0)
    logits = 2 * torch.randn(320, 9) + torch.tensor([0, 0, 0, 0, 30.0, 5, 0, 0, -5])
    counts = torch.bincount(balanced_labels(logits, n_classes=4), minlength=9)
    assert counts[:4].sum() == 0
    assert counts[4:].min() > 55
    assert (torch.bincount(self_labels(logits, n_classes=4), minlength=9) == 320).any()


def test_scores_by_hand():
    """p = (.5, .2, .2, .1), the last two reject classes, w = (2, 1), v = (1, 2, 3, 4, 5)."""
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.2, 0.1]], dtype=torch.float64)) + 3
    weights = torch.tensor([2.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    outside = -(0.2 * math.log(0.2) + 0.1 * math.log(0.1))
    inside = -(0.5 * math.log(0.5) + 0.2 * math.log(0.2))
    expected = {
        "sum": math.log(0.3 / 0.7),
        "max": math.log(0.2),
        "weighted": 0.5,
        "entropy": outside,
        "entropy_diff": outside - inside,
        "combined": 0.3 + 2 * 0.2 + 3 * 0.5 + 4 * outside + 5 * (outside - inside),
    }
    for kind, value in expected.items():
        assert reject_score(logits, 2, kind, weights).item() == pytest.approx(value), kind
    assert score_components(logits, 2, weights[:2])[0, :3].tolist() == pytest.approx([0.3, 0.2, 0.5])


def test_the_probability_of_the_most_probable_class_by_hand():
    """p = (.5, .2, .3), the last a reject class: the odds of the largest of the classes are 1, then .4 / .6."""
    p = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.4, 0.5]], dtype=torch.float64)
    score = reject_score(torch.log(p) - 7, 2, "max_class")
    assert score.tolist() == pytest.approx([0.0, math.log(0.6 / 0.4)])
    # It does not saturate, and of a single class it is the sum.
    far = torch.tensor([[900.0, 0.0, -900.0], [-5.0, 0.0, 900.0]], dtype=torch.float64)
    assert reject_score(far, 2, "max_class").tolist() == [-900, 900]
    logits = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = (reject_score(logits, 1, kind) for kind in ("max_class", "sum"))
    torch.testing.assert_close(one, other)


def test_by_default_a_row_between_classes_scores_low():
    """It is no outlier to the reject classes, which have no mass there, and yet no row of a class."""
    X, y, outliers = two_blobs()
    # Outliers far to the top and bottom, none between the classes.
    outliers = outliers[np.abs(outliers[:, 1]) > 5]
    detector = RejectClassDetector(**SMALL | {"max_epochs": 30, "contamination": "natural"})
    detector.fit(*with_outliers(X, y, outliers))
    assert detector.offset_ == 0
    between, of_class = detector.score_samples([[0.0, 0.0], [4.0, 0.0]])
    assert between + 2 < of_class
    proba = detector.predict_proba(X) * (1 - detector.predict_reject_proba(X).sum(1, keepdims=True))
    expected = np.log(proba.max(1) / (1 - proba.max(1)))
    np.testing.assert_allclose(detector.score_samples(X), expected, rtol=1e-3, atol=1e-3)


def test_a_single_class_has_the_papers_settings():
    X, _, _ = two_blobs()
    settings = SMALL | {"max_epochs": 3}
    by_default = RejectClassDetector(**settings).fit(X)
    # Step one has no part in it: a single class needs none.
    published = PUBLISHED | {"class_outputs": "classes", "outliers": "auto"}
    as_published = RejectClassDetector(**settings | published).fit(X)
    assert np.array_equal(by_default.score_samples(X), as_published.score_samples(X))


def test_the_sum_does_not_saturate():
    logits = torch.tensor([[0.0, -800.0], [0.0, -900.0], [-800.0, 0.0], [-900.0, 0.0]], dtype=torch.float64)
    score = reject_score(logits, 1, "sum")
    assert score.tolist() == [-800, -900, 800, 900]
    assert torch.equal(score.argsort(), torch.tensor([1, 0, 2, 3]))


def test_greedy_weights_drop_what_misleads():
    rng = np.random.default_rng(0)
    outlier = np.arange(400) >= 200
    components = np.column_stack([outlier + rng.normal(size=400), 3 * rng.normal(size=400)])
    weights = greedy_weights(components, outlier, np.ones(2))
    assert abs(weights[1]) < 0.2 * weights[0]
    assert auroc(np.where(outlier, -1, 1), -components @ weights) > auroc(np.where(outlier, -1, 1), -components.sum(1))


# --------------------------------------------------------------------------------------------------------------------
# Training


class Recorder(Callback):
    """Records learning rates and batches."""

    def on_batch_begin(self, net, batch, training, **kwargs):
        rows, extra = batch
        n_auxiliary = len(extra["auxiliary"]) if "auxiliary" in extra else 0
        net.history.record_batch("seen", (len(rows), n_auxiliary))

    def on_batch_end(self, net, **kwargs):
        net.history.record_batch("lr", net.optimizer_.param_groups[0]["lr"])


def test_two_steps_each_with_its_own_schedule():
    X, y = with_outliers(*two_blobs(n=40))
    detector = RejectClassDetector(
        **SMALL | {"class_epochs": 2, "max_epochs": 3, "lr": 0.04, "lr_reject": 0.02},
        outliers="auxiliary",
        callbacks=[Recorder()],
    ).fit(X, y)
    assert detector.history_[:, "phase"] == ["classes"] * 2 + ["reject"] * 3
    assert [epoch["seen"] for epoch in detector.history_[0]["batches"]] == [(32, 0), (32, 0), (16, 0)]
    # Five auxiliary outliers for each row.
    assert [epoch["seen"] for epoch in detector.history_[2]["batches"]] == [(32, 160), (32, 160), (16, 80)]
    rates = [batch["lr"] for epoch in detector.history_ for batch in epoch["batches"]]
    for start, stop, lr in ((0, 6, 0.04), (6, 15, 0.02)):
        steps = np.arange(stop - start) / (stop - start - 1)
        assert rates[start:stop] == pytest.approx(lr * (1 + np.cos(np.pi * steps)) / 2)
    assert detector.lr == 0.04


@pytest.mark.parametrize(
    ("shape", "lr", "n_outliers"),
    [((4,), 0.01, 67), ((1, 8, 8), 0.01, 80), ((3, 8, 8), 0.1, 16)],
    ids=["vectors", "grey", "colour"],
)
def test_defaults_that_depend_on_the_channels(shape, lr, n_outliers):
    """Rates are the paper's; a trained classifier is not to forget. Five outliers for each row take long in colour.

    Of those of vectors one in six is made.
    """
    X = np.random.default_rng(0).random((24, *shape))
    y = np.repeat([0, 1, -1], 8)
    settings = {"max_epochs": 1, "contamination": 0, "callbacks": [Recorder()]}
    detector = RejectClassDetector(**settings, network="mlp" if len(shape) == 1 else "wrn-10-1").fit(X, y)
    assert [epoch["batches"][0]["lr"] for epoch in detector.history_] == [lr, lr]
    assert [epoch["batches"][0]["seen"] for epoch in detector.history_] == [(16, 0), (16, n_outliers)]
    trained = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(shape), 2))
    on_top = RejectClassDetector(classifier=trained, **settings).fit(X, y)
    assert on_top.history_[0]["batches"][0]["lr"] == 0.01


def test_first_step_alone_is_the_classifier():
    """After step one the reject classes are a target for none, the classes are learned."""
    X, y, outliers = two_blobs()

    class Stop(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if net.phase_name == "reject":
                raise KeyboardInterrupt

    detector = RejectClassDetector(**SMALL, callbacks=[type("Stop", (Stop,), {})]).fit(*with_outliers(X, y, outliers))
    assert set(detector.history_[:, "phase"]) == {"classes"}
    assert (detector.predict_class(X) == y).all()
    assert detector.predict_reject_proba(outliers).sum(1).mean() < 0.5


def test_reject_classes_have_no_part_in_the_first_step():
    """Of a single class the cross entropy is 0, whatever the reject outputs are."""
    layer = last_layer(np.ones((3, 2), np.float32), [0.0, 5.0, 7.0])
    settings = SMALL | {"network": layer, "class_epochs": 1, "max_epochs": 1}
    history = RejectClassDetector(2, **settings).fit(two_blobs()[0]).history_
    assert history[0, ("phase", "train_loss")] == ("classes", 0.0)
    assert history[1, "train_loss"] > 1
    # Unless they are wanted, as from_paper wants them: then their biases alone cost log(e^5 + e^7) and more at first.
    history = RejectClassDetector(2, **settings, class_outputs="all").fit(two_blobs()[0]).history_
    assert history[0, "train_loss"] > 1


@pytest.mark.parametrize(
    "settings",
    [
        {"pseudo_labels": "uniform"},
        {"pseudo_labels": "energy"},
        {"class_epochs": 0},
        {"class_epochs": 0, "n_reject_classes": 2},
    ],
)
def test_outputs_of_a_step_that_is_not_there(settings):
    X, y = with_outliers(*two_blobs(n=20))
    with pytest.warns(UserWarning, match="class_outputs='all' has no effect"):
        RejectClassDetector(**SMALL | {"max_epochs": 1, "class_outputs": "all"} | settings).fit(X, y)


def test_both_tasks_are_learned(fitted):
    X, y, outliers = two_blobs(seed=1)
    assert (fitted.predict_class(X) == y).mean() > 0.99
    assert (fitted.predict(X) == 1).mean() > 0.95
    assert (fitted.predict(outliers) == -1).mean() > 0.95
    probability = fitted.predict_proba(X)
    assert probability.shape == (200, 2)
    assert probability.sum(1) == pytest.approx(np.ones(200))
    assert np.array_equal(fitted.classes_[probability.argmax(1)], fitted.predict_class(X))


def test_natural_threshold_is_half_the_mass(fitted):
    grid = np.stack(np.meshgrid(np.linspace(-9, 9, 40), np.linspace(-9, 9, 40)), -1).reshape(-1, 2)
    assert fitted.offset_ == 0
    mass = fitted.predict_reject_proba(grid).sum(1)
    assert np.array_equal(fitted.predict(grid) == -1, mass > 0.5)
    np.testing.assert_allclose(fitted.score_samples(grid), np.log((1 - mass) / mass), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score_type", ["sum", "max", "weighted", "entropy", "entropy_diff", "combined", "max_class"])
def test_every_score_is_one_of_the_components(score_type, fitted):
    X, _, outliers = two_blobs(seed=1)
    detector = RejectClassDetector(**SMALL | PUBLISHED | {"max_epochs": 30, "score_type": score_type})
    detector.fit(*with_outliers(*two_blobs()))
    components = detector.score_components(X)
    np.testing.assert_allclose(detector.score_samples(X), components[score_type])
    # Weights are searched for the scores that use them.
    searched = score_type in ("weighted", "combined")
    assert (detector.score_weights_ is not None) == searched
    assert components.shape == (200, 7 if searched else 5)
    # The same seed, hence the same network.
    of_sum = fitted.score_components(X)
    np.testing.assert_allclose(of_sum, components[of_sum.columns])
    scores = np.concatenate([detector.score_samples(X), detector.score_samples(outliers)])
    truth = np.repeat([1, -1], [len(X), len(outliers)])
    # Entropies of the reject part are no measure of its mass: 0 where one class takes it all.
    if not score_type.startswith("entropy"):
        assert auroc(truth, scores) > 0.98
    assert (detector.predict(X) == 1).mean() > 0.8


@pytest.mark.parametrize("pseudo_labels", ["self", "balanced", "kmeans"])
def test_pseudo_labels(pseudo_labels):
    X, y, outliers = two_blobs()
    settings = SMALL | PUBLISHED | {"n_reject_classes": 3, "max_epochs": 20, "contamination": "natural"}
    detector = RejectClassDetector(**settings, pseudo_labels=pseudo_labels)
    detector.fit(*with_outliers(X, y, outliers))
    assert 0.9 * len(outliers) < detector.reject_class_counts_.sum() <= len(outliers)
    if pseudo_labels == "balanced":
        assert detector.reject_class_counts_.min() > len(outliers) / 6
    if pseudo_labels == "kmeans":
        assert (detector.reject_class_counts_ > 0).sum() > 1
    _, _, unseen = two_blobs(seed=1)
    assert (detector.predict(unseen) == -1).mean() > 0.9


class Tokens(nn.Module):
    """Makes a token of each number of a row, and averages the outputs of its last layer over them."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.embed, self.head = nn.Linear(1, 6), nn.Linear(6, n_outputs)

    def forward(self, rows):
        return self.head(torch.relu(self.embed(rows[:, :, None]))).mean(1)


@pytest.mark.parametrize("params", [{"score_type": "knn"}, {"pseudo_labels": "kmeans", "n_reject_classes": 2}], ids=str)
def test_features_of_tokens_are_their_mean(params):
    rows = with_outliers(*two_blobs(20))
    detector = RejectClassDetector(network=Tokens, max_epochs=1, contamination=0, random_state=0, **params).fit(*rows)
    assert np.ptp(detector.score_samples(rows[0])) > 0


def first_loss(network, outliers, **params):
    """Return the loss of the only batch of step two, ten rows at the origin and outliers, with a given network."""
    settings = {"class_epochs": 0, "max_epochs": 1, "batch_size": 10, "scaling": None, "lr": 1e-30, "random_state": 0}
    detector = RejectClassDetector(2, network=network, outliers="auxiliary", contamination=0, **settings, **params)
    X = np.concatenate([np.zeros((10, 2)), outliers]).astype(np.float32)
    return detector.fit(X, np.repeat([1, -1], [10, len(outliers)])).history_[0, "train_loss"]


def last_layer(weight, bias):
    """Return a network of one layer, with a class and two reject classes."""
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


@pytest.mark.filterwarnings("ignore:the network answers every row alike")
def test_clusters_are_of_the_features():
    """Seven outliers far to the right and three far to the left, which the layer takes for the same.

    Its logits are 0, log 2 and log 5 for all: probabilities 1/8 of the class, 1/4 and 5/8 of the reject classes.
    """
    outliers = np.random.default_rng(0).normal(size=(10, 2)) + np.repeat([[50, 0], [-50, 0]], [7, 3], axis=0)
    layer = last_layer(np.zeros((3, 2), np.float32), [0.0, math.log(2), math.log(5)])
    loss = first_loss(layer, outliers, pseudo_labels="kmeans", outlier_batch_ratio=1.0, outlier_weight=2.0)
    # Which of the clusters is the first is a matter of chance.
    outside = [share * math.log(4) + (1 - share) * math.log(8 / 5) for share in (0.3, 0.7)]
    assert any(loss == pytest.approx(math.log(8) + 2 * one, rel=1e-5) for one in outside)


@pytest.mark.filterwarnings("ignore:the network answers every row alike")
@pytest.mark.parametrize(("pseudo_labels", "n_of_the_second"), [("self", 10), ("balanced", 5)])
def test_own_answers_may_be_one_class_and_balanced_ones_are_not(pseudo_labels, n_of_the_second):
    """All outliers x are nearer to the second reject class: its logit is log 6 + x / 1000, x being 1 to 10."""
    outliers = np.column_stack([np.arange(1, 11), np.zeros(10)])
    layer = last_layer([[0.0, 0.0], [0.0, 0.0], [1e-3, 0.0]], [0.0, 0.0, math.log(6)])
    loss = first_loss(layer, outliers, pseudo_labels=pseudo_labels, outlier_batch_ratio=1.0, outlier_weight=2.0)
    # Probabilities 1/8 of the class and of the first reject class, and 3/4 of the second, or nearly so.
    outside = (n_of_the_second * math.log(4 / 3) + (10 - n_of_the_second) * math.log(8)) / 10
    assert loss == pytest.approx(math.log(8) + 2 * outside, abs=0.02)


@pytest.mark.parametrize("score_type", ["entropy", "entropy_diff"])
def test_fit_warns_of_entropies_of_one_reject_class(score_type):
    X, y = with_outliers(*two_blobs())
    settings = SMALL | {"max_epochs": 20, "contamination": 0, "score_type": score_type}
    with pytest.warns(RuntimeWarning, match=rf"'{score_type}' takes outliers for inliers here: \d+ of \d+ training"):
        collapsed = RejectClassDetector(3, **settings).fit(X, y)
    assert collapsed.reject_class_counts_.max() > 0.9 * collapsed.reject_class_counts_.sum()
    # It is right: the scores of that network are upside down.
    inside, _, outside = two_blobs(seed=1)
    components = collapsed.score_components(np.concatenate([inside, outside]))[score_type]
    assert auroc(np.repeat([1, -1], [len(inside), len(outside)]), components) < 0.7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RejectClassDetector(3, **settings | {"pseudo_labels": "balanced"}).fit(X, y)
        RejectClassDetector(3, **settings | {"score_type": "sum"}).fit(X, y)


def through_skops(detector):
    return skops.io.loads(skops.io.dumps(detector), trusted=skops_trusted_types())


class InterruptedAtOnce(Callback):
    def on_epoch_end(self, net, **kwargs):
        import _thread

        _thread.interrupt_main()


def test_kmeans_needs_enough_outliers():
    X, y, outliers = two_blobs(n=20)
    with pytest.raises(ValueError, match="50 classes, 40 outliers"):
        RejectClassDetector(50, **SMALL | {"batch_size": 8}, pseudo_labels="kmeans").fit(*with_outliers(X, y, outliers))


@pytest.mark.parametrize("read", [copy.copy, lambda it: pickle.loads(pickle.dumps(it)), through_skops])
def test_kmeans_goes_on_from_its_clusters(read):
    """New clusters would be numbered anew, and the head trained against what it has learnt."""
    X, y = with_outliers(*two_blobs())
    settings = SMALL | {"n_reject_classes": 6, "max_epochs": 20}
    detector = RejectClassDetector(**settings, pseudo_labels="kmeans").fit(X, y)
    before = detector.history_[-1]["train_loss"]
    losses = [read(detector).partial_fit(X, y).history_[-1]["train_loss"] for _ in range(2)]
    assert losses[0] == losses[1] < before + 0.5


@pytest.mark.filterwarnings("ignore:RejectClassDetector.fit was interrupted")
def test_kmeans_that_has_no_clusters_yet_needs_enough_outliers():
    X, y = with_outliers(*two_blobs(20))
    detector = RejectClassDetector(30, **SMALL, pseudo_labels="kmeans", callbacks=[InterruptedAtOnce()])
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X, y)
    few = [0, 20, 40]
    with pytest.raises(ValueError, match="pseudo_labels='kmeans' needs as many outliers in a batch"):
        detector.set_params(callbacks=None).partial_fit(X[few], y[few])
    detector.partial_fit(X, y)


def test_number_of_reject_classes():
    X, y, _ = two_blobs()
    settings = SMALL | {"max_epochs": 1}
    assert RejectClassDetector(**settings).fit(X).n_reject_classes_ == 5
    assert RejectClassDetector(**settings).fit(X, y).n_reject_classes_ == 1
    assert RejectClassDetector(**settings, pseudo_labels="balanced").fit(X, y).n_reject_classes_ == 5
    detector = RejectClassDetector(**settings, pseudo_labels="balanced").fit(X, np.arange(200) % 100)
    assert detector.n_reject_classes_ == 10
    assert detector.predict_reject_proba(X[:3]).shape == (3, 10)


# --------------------------------------------------------------------------------------------------------------------
# Without reject classes

RIVALS = {"uniform": "msp", "energy": "energy"}


@pytest.fixture(scope="module", params=RIVALS)
def rival(request):
    settings = SMALL | {"max_epochs": 60, "lr": 0.05, "contamination": 0.02}
    detector = RejectClassDetector(**settings, pseudo_labels=request.param)
    return detector.fit(*with_outliers(*two_blobs()))


def test_rivals_learn_both_tasks_without_reject_classes(rival):
    X, y, outliers = two_blobs(seed=1)
    assert (rival.predict_class(X) == y).mean() > 0.97
    both = np.concatenate([X, outliers])
    assert auroc(np.repeat([1, -1], [len(X), len(outliers)]), rival.score_samples(both)) > 0.98
    assert (rival.predict(X) == 1).mean() > 0.9
    assert (rival.predict(outliers) == -1).mean() > 0.9
    assert rival.n_reject_classes_ == 0
    assert rival.reject_class_counts_.shape == (0,)
    assert rival.module_(torch.zeros(3, 2)).shape == (3, 2)
    assert rival.history_[:, "phase"] == ["classes"] * 5 + ["outliers"] * 60


def test_the_score_of_a_rival_is_its_partner(rival):
    X, _, _ = two_blobs(seed=1)
    with torch.no_grad():
        logits = rival.module_(torch.tensor(rival.scaler_.transform(X), dtype=torch.float32))
    expected = scores.msp_log_odds(logits) if rival.pseudo_labels == "uniform" else scores.energy(logits)
    np.testing.assert_allclose(rival.score_samples(X), expected, rtol=1e-4, atol=1e-4)


def test_the_uniform_target_is_met_by_outliers():
    X, y, outliers = two_blobs()
    settings = SMALL | {"max_epochs": 60, "lr": 0.05}
    detector = RejectClassDetector(**settings, pseudo_labels="uniform").fit(*with_outliers(X, y, outliers))
    _, _, unseen = two_blobs(seed=1)
    assert np.median(detector.predict_proba(unseen).max(1)) < 0.65 < 0.9 < np.median(detector.predict_proba(X).max(1))


def test_energies_keep_to_their_margins_and_the_natural_threshold_is_their_middle():
    X, y, outliers = two_blobs()
    settings = SMALL | {"max_epochs": 60, "pseudo_labels": "energy", "contamination": "natural"}
    detector = RejectClassDetector(**settings, energy_margins=(-9.0, -3.0)).fit(*with_outliers(X, y, outliers))
    assert detector.offset_ == 6.0
    _, _, unseen = two_blobs(seed=1)
    assert np.median(detector.score_samples(X)) > 8
    assert np.median(detector.score_samples(unseen)) < 4
    assert (detector.predict(X) == 1).mean() > 0.95
    assert (detector.predict(unseen) == -1).mean() > 0.9


def test_outlier_exposure_has_no_natural_threshold():
    X, y = with_outliers(*two_blobs(n=40))
    with pytest.raises(ValueError, match="contamination='natural' is for methods with a boundary of their own"):
        RejectClassDetector(**SMALL | {"contamination": "natural"}, pseudo_labels="uniform").fit(X, y)


@pytest.mark.parametrize("method", ["predict_reject_proba", "score_components"])
def test_what_is_of_reject_classes_is_missing_from_rivals(rival, method):
    assert not hasattr(rival, method)
    assert not hasattr(RejectClassDetector(pseudo_labels=rival.pseudo_labels), method)
    assert hasattr(RejectClassDetector(), method)
    with pytest.raises(AttributeError):
        getattr(rival, method)
    # A parameter that is set after the fit does not change what was fitted.
    changed = copy.deepcopy(rival).set_params(pseudo_labels="self")
    assert not hasattr(changed, method)


@pytest.mark.parametrize("pseudo_labels", RIVALS)
def test_parameters_of_reject_classes_are_not_ignored_in_silence(pseudo_labels):
    X, y = with_outliers(*two_blobs(n=40))
    settings = SMALL | {"max_epochs": 1, "pseudo_labels": pseudo_labels}
    with pytest.warns(UserWarning, match=f"n_reject_classes has no effect with pseudo_labels='{pseudo_labels}'"):
        RejectClassDetector(3, **settings).fit(X, y)
    with pytest.raises(ValueError, match=r"score_type='sum' is of reject classes.*Leave score_type='auto'"):
        RejectClassDetector(**settings, score_type="sum").fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RejectClassDetector(**settings, score_type="knn").fit(X, y)


def test_margins_are_for_energies():
    X, y = with_outliers(*two_blobs(n=40))
    with pytest.warns(UserWarning, match="energy_margins has an effect with pseudo_labels='energy' only"):
        RejectClassDetector(**SMALL | {"max_epochs": 1}, energy_margins=(-9, -3)).fit(X, y)
    for margins in ((-3, -9), (-9,), (-math.inf, 0)):
        with pytest.raises(ValueError, match=r"energy_margins=.* must be two numbers"):
            RejectClassDetector(**SMALL, pseudo_labels="energy", energy_margins=margins).fit(X, y)


def test_a_single_class_has_no_uniform_distribution():
    X, _, outliers = two_blobs()
    with pytest.raises(ValueError, match=r"y has one class\. Give y two classes or more"):
        RejectClassDetector(**SMALL, pseudo_labels="uniform").fit(X)
    detector = RejectClassDetector(**SMALL | {"max_epochs": 30}, pseudo_labels="energy").fit(X)
    truth = np.repeat([1, -1], [len(X), len(outliers)])
    assert auroc(truth, detector.score_samples(np.concatenate([X, outliers]))) > 0.9


def test_the_weight_of_the_outliers_is_each_papers():
    X, y = with_outliers(*two_blobs(n=40))
    settings = SMALL | {"max_epochs": 3}
    for pseudo_labels, weight in {"self": 1.0, "uniform": 0.5, "energy": 0.1}.items():
        by_default = RejectClassDetector(**settings, pseudo_labels=pseudo_labels).fit(X, y)
        given, other = (
            RejectClassDetector(**settings, pseudo_labels=pseudo_labels, outlier_weight=one).fit(X, y)
            for one in (weight, 2 * weight)
        )
        assert np.array_equal(by_default.score_samples(X), given.score_samples(X))
        assert not np.allclose(by_default.score_samples(X), other.score_samples(X), rtol=1e-3)


def test_rivals_are_calibrated_on_their_classes(rival):
    X, y, outliers = two_blobs(n=60, seed=2)
    # Some rows are classified wrong; otherwise no temperature would be best.
    shaken = X + np.random.default_rng(0).normal(scale=3, size=X.shape)
    by_classes = copy.deepcopy(rival).calibrate(shaken, y)
    with_corpus = copy.deepcopy(rival).calibrate(*with_outliers(shaken, y, outliers))
    assert by_classes.temperature_ == with_corpus.temperature_ != 1.0
    with pytest.warns(RuntimeWarning, match="all 120 rows are classified correctly"):
        kept = copy.deepcopy(rival).calibrate(X, y)
    assert kept.temperature_ == rival.temperature_


# --------------------------------------------------------------------------------------------------------------------
# Weights of classes


def overlapping():
    """Two classes that overlap, nine rows of the first for each of the second."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2)) + np.repeat([[-1, 0], [1, 0]], [360, 40], axis=0)
    return X, np.repeat([3, 7], [360, 40])


@pytest.mark.parametrize("pseudo_labels", ["self", "uniform", "energy"])
def test_balanced_classes(pseudo_labels):
    X, y = overlapping()
    settings = SMALL | {"max_epochs": 10, "pseudo_labels": pseudo_labels}
    plain, balanced, given = (
        RejectClassDetector(**settings, class_weight=weight).fit(X, y)
        for weight in (None, "balanced", {3: 400 / (2 * 360), 7: 400 / (2 * 40)})
    )
    rare = y == 7
    recalls = [(detector.predict_class(X) == y)[rare].mean() for detector in (plain, balanced)]
    assert recalls[0] + 0.15 < recalls[1]
    np.testing.assert_allclose(given.score_samples(X), balanced.score_samples(X), rtol=1e-6)


def test_a_weight_of_two_is_every_row_twice():
    """Trained on whole batches, one step of each kind: the gradients are the same."""
    X, y, outliers = two_blobs(n=20)
    X, y = with_outliers(X, y, outliers)
    twice = np.concatenate([np.arange(len(X)), np.flatnonzero(y == 3)])
    settings = {"network": "mlp", "dropout": 0.0, "hidden_sizes": (8,), "class_epochs": 3, "max_epochs": 1}
    settings |= {"scaling": None, "contamination": 0, "random_state": 0, "batch_size": 100, "outliers": zeros}
    weighted = RejectClassDetector(**settings, class_weight={3: 2}, outlier_weight=1e-9).fit(X, y)
    repeated = RejectClassDetector(**settings, outlier_weight=1e-9).fit(X[twice], y[twice])
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-4)
    plain = RejectClassDetector(**settings, outlier_weight=1e-9).fit(X, y)
    assert np.abs(plain.predict_proba(X) - weighted.predict_proba(X)).max() > 1e-3


def zeros(rows, n_outliers):
    return torch.zeros(n_outliers, *rows.shape[1:])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({5: 2.0}, "class_weight names 5, which is none of the classes"),
        ({3: 0.0}, "must map classes to numbers above 0"),
        ({3: "2"}, "must map classes to numbers above 0"),
        ({3: math.inf}, "must map classes to numbers above 0"),
        ({3: math.nan}, "must map classes to numbers above 0"),
    ],
)
def test_weights_of_classes_that_are_none(weights, message):
    X, y, _ = two_blobs(n=20)
    with pytest.raises(ValueError, match=message):
        RejectClassDetector(**SMALL, class_weight=weights).fit(X, y)


def test_weights_of_a_single_class_have_no_effect():
    X, _, _ = two_blobs(n=20)
    with pytest.warns(UserWarning, match="class_weight has no effect with a single class"):
        RejectClassDetector(**SMALL | {"max_epochs": 1}, class_weight="balanced").fit(X)


def test_outlier_batch_ratio():
    X, y = with_outliers(*two_blobs(n=40))
    for ratio, sizes in ((0.5, [(32, 16), (32, 16), (16, 8)]), (0.01, [(32, 1), (32, 1), (16, 1)])):
        settings = SMALL | {"outliers": "auxiliary", "outlier_batch_ratio": ratio}
        detector = RejectClassDetector(**settings, callbacks=[Recorder()]).fit(X, y)
        assert [batch["seen"] for batch in detector.history_[-1]["batches"]] == sizes
    drawn = []

    def ring(rows, n_outliers):
        drawn.append(n_outliers)
        return torch.full((n_outliers, 2), 9.0)

    RejectClassDetector(**SMALL | {"max_epochs": 1}, outlier_batch_ratio=0.5, outliers=ring).fit(X[:80], y[:80])
    assert drawn[:3] == [16, 16, 8]


@pytest.mark.parametrize("params", [{"max_grad_norm": 0.1}, {"weight_decay": 1.0}, {"optimizer": "adam"}])
def test_training_options_reach_the_training(params):
    X, y = with_outliers(*two_blobs())
    plain = RejectClassDetector(**SMALL).fit(X, y).score_samples(X)
    assert not np.allclose(RejectClassDetector(**SMALL, **params).fit(X, y).score_samples(X), plain, rtol=1e-3)


def test_outlier_weight_matters():
    X, y = with_outliers(*two_blobs())
    masses = [
        RejectClassDetector(**SMALL, **params).fit(X, y).predict_reject_proba(X).sum(1).mean()
        for params in ({"outlier_weight": 0.01}, {}, {"outlier_weight": 50})
    ]
    assert masses[0] < masses[1] < masses[2]


def test_a_network_that_answers_every_row_alike_is_told_of():
    class Same(nn.Linear):
        def forward(self, x):
            return super().forward(0 * x)

    X, y, _ = two_blobs()
    with pytest.warns(RuntimeWarning, match="training has collapsed. Lower lr"):
        RejectClassDetector(network=Same, max_epochs=1, contamination=0).fit(X, y)


def test_interrupted_in_the_second_step_it_is_fitted_with_what_there_is(monkeypatch):
    X, y = with_outliers(*two_blobs())
    detector = RejectClassDetector(**SMALL)
    seen = []

    class Interrupt(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(net.phase_name)
            if len(seen) == 7:
                import _thread

                _thread.interrupt_main()

    detector.set_params(callbacks=[type("Interrupt", (Interrupt,), {})])
    with pytest.warns(RuntimeWarning, match="in the phase 'reject'"), pytest.raises(KeyboardInterrupt):
        detector.fit(X, y)
    assert 6 <= len(detector.history_) <= 8
    assert (detector.predict_class(X[:200]) == y[:200]).mean() > 0.8


def test_interrupted_in_the_first_step_no_boundary_is_made_up():
    X, y = with_outliers(*two_blobs())
    settings = SMALL | {"contamination": "auto"}
    detector = RejectClassDetector(**settings, callbacks=[InterruptedAtOnce()])
    with pytest.warns(RuntimeWarning, match="in the phase 'classes'"), pytest.raises(KeyboardInterrupt):
        detector.fit(X, y)
    assert (detector.predict(X[:200]) == 1).mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("policy", ["StepLR", "CosineAnnealingLR"])
def test_schedulers_by_callback_begin_anew_in_each_step(policy):
    X, y = with_outliers(*two_blobs())
    options = {"step_size": 1} if policy == "StepLR" else {"T_max": 5}
    scheduler = LRScheduler(policy, **options)
    detector = RejectClassDetector(**SMALL, schedule="constant", callbacks=[scheduler, Recorder()]).fit(X, y)
    rates = [epoch["batches"][0]["lr"] for epoch in detector.history_]
    assert rates[0] == pytest.approx(0.01)
    assert rates[1] < rates[0]
    assert rates[5:] == pytest.approx(rates[:5])


def test_early_stopping_ends_its_step():
    X, y = with_outliers(*two_blobs())
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=100, threshold_mode="abs", sink=lambda *_: None)
    detector = RejectClassDetector(**SMALL, callbacks=[stop]).fit(X, y)
    assert detector.history_[:, "phase"] == ["classes"] * 3 + ["reject"] * 3


# --------------------------------------------------------------------------------------------------------------------
# Labels


def test_without_labels_there_is_one_class():
    X, _, _ = two_blobs()
    detector = RejectClassDetector(**SMALL).fit(X)
    assert detector.classes_.tolist() == [1]
    assert (detector.predict_class(X) == 1).all()
    assert (detector.predict_proba(X) == 1).all()
    # A single class takes no training of its own, unless it is asked for.
    default = clone(detector).set_params(class_epochs="auto").fit(X)
    assert set(default.history_[:, "phase"]) == {"reject"}
    assert detector.history_[0, "phase"] == "classes"


def test_labels_of_text():
    X, y, outliers = two_blobs()
    names = np.array(["left", "right"], dtype=object)[(y == 7).astype(int)]
    detector = RejectClassDetector(**SMALL).fit(*with_outliers(X, names, outliers))
    assert detector.classes_.tolist() == ["left", "right"]
    assert detector.classes_.dtype.kind == "U"
    assert (detector.predict_class(X) == names).mean() > 0.9
    named = RejectClassDetector(**SMALL, outlier_label="corpus").fit(
        np.vstack([X, outliers]), np.concatenate([names.astype(str), np.full(len(outliers), "corpus")])
    )
    assert np.array_equal(named.score_samples(X), detector.score_samples(X))


def test_labels_that_are_no_classes():
    X, _, _ = two_blobs()
    with pytest.raises(ValueError, match="continuous"):
        RejectClassDetector(**SMALL).fit(X, np.linspace(0, 1, len(X)))
    mixed = np.array([3, "x"] * 100, dtype=object)
    with pytest.raises(ValueError, match="mixes text and numbers"):
        RejectClassDetector(**SMALL).fit(X, mixed)


def test_zero_and_minus_one_are_classes_or_not():
    X, y, _ = two_blobs()
    with pytest.warns(LabelWarning, match="name them by text, or silence"):
        assert RejectClassDetector(**SMALL).fit(X, (y == 7).astype(int)).classes_.tolist() == [0, 1]
    signs = RejectClassDetector(**SMALL, outlier_label="none").fit(X, np.where(y == 7, 1, -1))
    assert signs.classes_.tolist() == [-1, 1]


# --------------------------------------------------------------------------------------------------------------------
# Where outliers come from


def test_made_outliers_are_used_where_none_are_given():
    X, y, _ = two_blobs()
    detector = RejectClassDetector(**SMALL | {"max_epochs": 40, "contamination": "auto"}).fit(X, y)
    assert (detector.predict_class(X) == y).mean() > 0.99
    assert (detector.predict([[0, 8], [0, -8], [12, 0], [-12, 0]]) == -1).all()
    assert (detector.predict(two_blobs(seed=1)[0]) == 1).mean() > 0.8


def test_marked_rows_and_made_ones_together():
    X, y = with_outliers(*two_blobs(n=40))
    detector = RejectClassDetector(**SMALL, outliers=("auxiliary", "uniform"), callbacks=[Recorder()]).fit(X, y)
    assert detector.history_[-1]["batches"][0]["seen"] == (32, 80)
    ignoring = RejectClassDetector(**SMALL, outliers="uniform", callbacks=[Recorder()]).fit(X, y)
    assert ignoring.history_[-1]["batches"][0]["seen"] == (32, 0)


def test_outliers_by_a_function():
    X, y, _ = two_blobs()
    drawn = []

    def ring(rows, n_outliers):
        drawn.append((len(rows), n_outliers))
        angle = 2 * math.pi * torch.rand(n_outliers, device=rows.device)
        return 3 * torch.stack([angle.cos(), angle.sin()], 1)

    detector = RejectClassDetector(**SMALL | {"max_epochs": 2}, scaling=None, outliers=ring).fit(X, y)
    # 200 rows in batches of 32; then some examples on which the reject classes are counted.
    assert drawn == ([(32, 160)] * 6 + [(8, 40)]) * 2 + [(200, 2000)]
    assert detector.reject_class_counts_.sum() <= 2000


def test_no_more_outliers_are_scored_than_were_trained_on():
    """The rows of a short fit are few, and scoring outliers would take most of the time."""
    X, y, _ = two_blobs()
    drawn = []

    def ring(rows, n_outliers):
        drawn.append(n_outliers)
        return rows[torch.randint(len(rows), (n_outliers,), device=rows.device)] + 5

    RejectClassDetector(**SMALL | {"max_epochs": 1, "class_epochs": 0}, outliers=ring).fit(X[::5], y[::5])
    assert drawn[-1] == sum(drawn[:-1]) == 200


@pytest.mark.parametrize("blend", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_functions_may_give_other_types_and_gradients(dtype, blend):
    generator = nn.Linear(2, 2)

    def moved(rows, n_outliers):
        assert rows.dtype == torch.float32
        return 3 + generator(rows[torch.randint(len(rows), (n_outliers,))]).to(dtype)

    X, y, _ = two_blobs()
    RejectClassDetector(**SMALL, outliers=moved, outlier_blend=blend).fit(X, y)


def test_blended_outliers_lie_closer():
    X, y, outliers = two_blobs()
    X, y = with_outliers(X, y, outliers)
    plain = RejectClassDetector(**SMALL | {"max_epochs": 20}).fit(X, y)
    blended = clone(plain).set_params(outlier_blend=0.7).fit(X, y)
    between = X[:100] * [1, 1] + [0, 3]
    assert blended.score_samples(between).mean() < plain.score_samples(between).mean()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"outliers": "gaussian"},
            r"outliers='gaussian' is unknown; give 'auto' alone, or one or several of 'auxiliary'",
        ),
        ({"outliers": ()}, "outliers is empty"),
        ({"outliers": "auxiliary"}, "mark rows of y with outlier_label=-1"),
        ({"outliers": "patches"}, "'patches' is for images"),
        ({"outliers": [["noise"]]}, r"outliers=\['noise'\] is unknown"),
        ({"outliers": ["auto", "noise"]}, "give 'auto' alone"),
        ({"outliers": lambda rows, n: rows[:1]}, r"gave \(1, 2\); it must give a tensor of shape \(160, 2\)"),
        ({"outliers": lambda rows, n: np.zeros((n, 2))}, "gave a ndarray; it must give a tensor"),
        ({"network": "cnn"}, "network='cnn' is none of those for vectors: 'auto', 'mlp' and 'residual'"),
        ({"network": "wrn-17-2", "image_shape": (2, 1, 1)}, "'wrn-D-K' with D = 6n"),
        (
            {"n_reject_classes": 5, "network": nn.Linear(2, 3)},
            r"network maps \(2, 2\) to \(2, 3\); it must give \(2, 7\)",
        ),
        ({"network": lambda n_features, n_outputs: "net"}, "made a str"),
        ({"augmentation": "crop-flip"}, "augmentation is for images"),
        ({"hidden_sizes": (0,)}, "hidden_sizes"),
        ({"image_shape": (-1, -1, 2)}, "one may be -1"),
        ({"image_shape": (3, -1, 1)}, "not a multiple of the sizes"),
    ],
)
def test_bad_settings(params, message):
    X, y, _ = two_blobs()
    with pytest.raises(ValueError, match=message):
        RejectClassDetector(**SMALL | params).fit(X, y)


# --------------------------------------------------------------------------------------------------------------------
# On top of a classifier


class Softmax(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.last = nn.Linear(2, 16), nn.Linear(16, 2)

    def forward(self, x):
        return torch.softmax(self.last(torch.relu(self.hidden(x))), -1)


@pytest.fixture(scope="module")
def classifier():
    X, y, _ = two_blobs()
    net = NeuralNetClassifier(Softmax, max_epochs=30, lr=0.3, verbose=0, train_split=None)
    # skorch's losses want classes that count from 0.
    return net.fit(X.astype(np.float32), (y == 7).astype(int))


@pytest.mark.parametrize("freeze", [False, True])
def test_on_top_of_a_fitted_skorch_classifier(classifier, freeze):
    X, y, outliers = two_blobs()
    y = (y == 7).astype(int)
    given = FrozenEstimator(classifier) if freeze else classifier
    weight = classifier.module_.last.weight.detach().clone()
    natural = {"class_epochs": "auto", "class_outputs": "classes", "contamination": "natural"}
    detector = RejectClassDetector(**AFTER | PUBLISHED | natural, classifier=given)
    detector = clone(detector) if freeze else detector
    detector.fit(*with_outliers(X, y, outliers))
    assert set(detector.history_[:, "phase"]) == {"reject"}
    assert detector.scaler_ is None
    assert torch.equal(classifier.module_.last.weight, weight)
    assert (detector.predict_class(X) == y).mean() > 0.99
    assert (detector.predict(outliers) == -1).mean() > 0.9


def test_before_training_it_is_the_classifier(classifier):
    X, y, outliers = two_blobs()
    X_all, y_all = with_outliers(X, (y == 7).astype(int), outliers)
    detector = RejectClassDetector(classifier=classifier, max_epochs=1, lr=1e-30, random_state=0, contamination=0).fit(
        X_all, y_all
    )
    np.testing.assert_allclose(detector.predict_proba(X), classifier.predict_proba(X.astype(np.float32)), atol=1e-5)


def test_on_top_of_a_detector_and_of_a_module():
    X, y, outliers = two_blobs()
    X, y = with_outliers(X, y, outliers)
    first = RejectClassDetector(**SMALL, n_reject_classes=2).fit(X, y)
    untrained = {"max_epochs": 1, "lr": 1e-30, "random_state": 0}
    second = RejectClassDetector(4, classifier=first, **untrained).fit(X, y)
    np.testing.assert_allclose(second.predict_proba(X), first.predict_proba(X), rtol=1e-5)
    assert second.n_reject_classes_ == 4
    module = MLP(2, 2, (8,))
    third = RejectClassDetector(classifier=module, **untrained).fit(X, y)
    with torch.no_grad():
        expected = softmax(module(torch.from_numpy(X).float()).numpy(), axis=1)
    np.testing.assert_allclose(third.predict_proba(X), expected, atol=1e-5)


@pytest.mark.parametrize("params", [{}, {"auxiliary": None}, {"crop_size": 6}, {"crop_size": 10}], ids=str)
def test_images_reach_a_given_classifier_as_it_knows_them(params):
    X, y = np.random.default_rng(0).random((40, 1, 8, 12)), np.arange(40) % 2 + 1
    settings = {"network": "cnn", "max_epochs": 1, "contamination": 0, "random_state": 0}
    first = RotationAuxClassifier(**settings, **params).fit(X, y)
    second = RejectClassDetector(classifier=first, **settings | {"network": "auto"}, lr=1e-30).fit(X, y)
    np.testing.assert_allclose(second.predict_proba(X), first.predict_proba(X), rtol=1e-5)
    # And a detector on top of that.
    third = ResidualAdapterDetector(second, adaptation="frozen", contamination=0).fit(X)
    features = first._observed(("features",), X, None)["features"]
    np.testing.assert_allclose(third.transform(X), features, rtol=1e-5, atol=1e-6)
    again = pickle.loads(pickle.dumps(second)).partial_fit(X, y)
    np.testing.assert_allclose(again.predict_proba(X), first.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (NeuralNetClassifier(Softmax), "holds no trained torch module"),
        (LogisticRegression(), "holds no trained torch module"),
        (nn.Linear(2, 5), "a last linear layer of 5 outputs; there must be 2"),
        (nn.Linear(3, 2), "classifier does not take"),
        (nn.Flatten(), "no linear layer"),
    ],
)
def test_classifiers_that_will_not_do(given, message):
    X, y, _ = two_blobs()
    with pytest.raises(ValueError, match=message):
        RejectClassDetector(classifier=given, **AFTER).fit(X, y)


def test_classifier_of_other_classes_or_scaling(classifier):
    X, y, _ = two_blobs()
    with pytest.raises(ValueError, match="was fitted on the classes"):
        RejectClassDetector(classifier=classifier, **AFTER).fit(X, y + 1)
    detector = RejectClassDetector(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match="brings its own scaling"):
        RejectClassDetector(classifier=detector, scaling="minmax", **AFTER).fit(X, y)


def test_classifier_of_other_pixels(digits):
    X, y = digits
    detector = RejectClassDetector(max_epochs=1, class_epochs=0, random_state=0, contamination=0).fit(X, y)
    with pytest.raises(ValueError, match="was fitted on uint8 images"):
        RejectClassDetector(classifier=detector, contamination=0).fit(X / 255, y)


# --------------------------------------------------------------------------------------------------------------------
# Temperature


def test_temperature_divides_the_logits(fitted):
    X, y = with_outliers(*two_blobs())
    warm = clone(fitted).set_params(temperature=4.0).fit(X, y)
    logits = np.log(fitted.predict_proba(X))
    np.testing.assert_allclose(warm.predict_proba(X), softmax(logits / 4, axis=1), rtol=1e-6, atol=1e-12)
    # The scores are those of the divided logits, too.
    reject = warm.predict_reject_proba(X)
    assert np.ptp(reject.sum(1)) < np.ptp(fitted.predict_reject_proba(X).sum(1)) - 0.01
    log_odds = np.log((1 - reject.sum(1)) / reject.sum(1))
    np.testing.assert_allclose(warm.score_samples(X), log_odds, rtol=1e-5, atol=1e-6)
    components = warm.score_components(X)
    np.testing.assert_allclose(components["sum"], log_odds, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(components["max"], -np.log(reject.max(1)), rtol=1e-5)
    np.testing.assert_allclose(components["entropy"], (reject * np.log(reject)).sum(1), rtol=1e-5)


def surprise(detector, X, y, outliers):
    """Negative log-likelihood of the classes, and of the reject mass for the outliers."""
    mass = detector.predict_reject_proba(X).sum(1)
    of_class = detector.predict_proba(X)[np.arange(len(X)), np.searchsorted(detector.classes_, y)]
    return -np.log((1 - mass) * of_class).sum() - np.log(detector.predict_reject_proba(outliers).sum(1)).sum()


def test_calibration_makes_held_out_rows_likelier():
    X, y = with_outliers(*two_blobs())
    natural = {"max_epochs": 30, "contamination": "natural"}
    detector = RejectClassDetector(**SMALL | natural, temperature=0.2).fit(X, y)
    held_out, truth, outliers = two_blobs(seed=1)
    held_out += np.random.default_rng(2).normal(size=held_out.shape)
    before, answers_before = surprise(detector, held_out, truth, outliers), detector.predict_class(held_out)
    detector.calibrate(*with_outliers(held_out, truth, outliers))
    assert detector.temperature_ > 0.2
    assert surprise(detector, held_out, truth, outliers) < before
    assert np.array_equal(detector.predict_class(held_out), answers_before)
    assert detector.offset_ == 0
    assert len(detector.training_scores_) == len(held_out)
    assert detector.temperature == 0.2
    # No other temperature makes them likelier, the outliers included.
    best = surprise(detector, held_out, truth, outliers)
    for factor in (0.9, 1.1):
        detector.temperature_ *= factor
        assert surprise(detector, held_out, truth, outliers) > best
        detector.temperature_ /= factor


def test_scores_of_lists_and_frames(fitted):
    rows = [[0.0, 0.0], [4.0, 0.0]]
    assert list(fitted.score_components(rows).index) == [0, 1]
    frame = pd.DataFrame(rows, index=["a", "b"])
    assert list(fitted.score_components(frame).index) == ["a", "b"]


def test_calibration_on_rows_that_will_not_do(fitted):
    X, y, _ = two_blobs()
    for labels, message in (
        (y + 1, "y holds 4, 8, not among the classes of the fit"),
        (np.full(200, -1), "at least 2 in-distribution rows"),
        (None, "calibrate needs y: the class of each row, or -1"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.calibrate(X, labels)
    with pytest.raises(ValueError, match="y has 3 labels"):
        fitted.calibrate(X, y[:3])


# --------------------------------------------------------------------------------------------------------------------
# Images and large data


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    X = (15 * data.images[:, None]).astype(np.uint8)
    known = data.target < 8
    return X, np.where(known, data.target, -1)


@pytest.mark.parametrize(("network", "kind"), [("auto", SmallCNN), ("wrn-10-1", WideResNet)])
def test_images(digits, network, kind):
    X, y = (part[::2] for part in digits)
    settings = {"network": network, "max_epochs": 6, "class_epochs": 2, "lr": 0.05, "random_state": 0}
    settings["contamination"] = "natural"
    detector = RejectClassDetector(**settings).fit(X, y)
    assert type(detector.module_) is kind
    known = y >= 0
    assert (detector.predict_class(X[known]) == y[known]).mean() > 0.9
    assert (detector.predict(X[~known]) == -1).mean() > 0.95


@pytest.mark.parametrize("network", ["auto", "wrn-10-1"])
def test_flat_images(digits, network):
    X, y = (part[::8] for part in digits)
    settings = {"network": network, "max_epochs": 1, "class_epochs": 1, "random_state": 0, "contamination": 0}
    detector = RejectClassDetector(**settings).fit(X, y)
    flat = RejectClassDetector(**settings, image_shape=(1, 8, -1)).fit(X.reshape(len(X), -1), y)
    assert flat.image_shape_ == (1, 8, 8)
    np.testing.assert_allclose(flat.score_samples(X.reshape(len(X), -1)), detector.score_samples(X))


@pytest.mark.parametrize("augmentation", ["crop-flip", lambda images: images.flip(3)])
def test_augmentation_is_for_training_alone(digits, augmentation):
    X, y = (part[::4] for part in digits)
    settings = {"max_epochs": 2, "class_epochs": 0, "contamination": 0, "random_state": 0}
    detector = RejectClassDetector(**settings, augmentation=augmentation).fit(X, y)
    assert np.array_equal(detector.score_samples(X), detector.score_samples(X))
    plain = RejectClassDetector(**settings).fit(X, y)
    assert not np.allclose(detector.score_samples(X), plain.score_samples(X))


def test_rows_and_outliers_are_augmented_alike(digits):
    """Where augmentation blackens everything, nothing tells outliers from rows."""
    X, y = digits
    sizes = []

    def blacken(images):
        sizes.append(len(images))
        return 0 * images

    detector = RejectClassDetector(
        max_epochs=2, class_epochs=1, random_state=0, augmentation=blacken, contamination=0
    ).fit(X, y)
    assert sizes[0] == 64
    assert sizes[-2:] == [6 * 64, 6 * (np.count_nonzero(y >= 0) % 64)]
    known = y >= 0
    labels = np.where(known, 1, -1)
    assert auroc(labels, detector.score_samples(X)) < 0.9


def test_images_that_cannot_be_told_from_their_outliers_are_not_all_accused():
    X = np.random.default_rng(0).random((200, 1, 6, 6))
    detector = RejectClassDetector(max_epochs=3, outliers="uniform", random_state=0).fit(X)
    assert (detector.predict(X) == -1).mean() <= 0.1


def test_images_without_auxiliary_rows(digits):
    X, y = (part[::2] for part in digits)
    known = y >= 0
    detector = RejectClassDetector(max_epochs=10, class_epochs=5, random_state=0).fit(X[known], y[known])
    assert (detector.predict(X[known]) == 1).mean() > 0.9
    noise = np.random.default_rng(0).integers(0, 226, size=X.shape).astype(np.uint8)
    assert (detector.predict(noise) == -1).all()
    assert (detector.predict(np.ascontiguousarray(X[known].transpose(0, 1, 3, 2))) == -1).mean() > 0.1


def test_colour_images_take_a_wide_resnet():
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 3, 8, 8)), np.arange(30) % 3
    detector = RejectClassDetector(max_epochs=1, random_state=0, contamination=0).fit(X, y)
    assert isinstance(detector.module_, WideResNet)
    assert detector.module_.head.out_features == 4


def test_network_classes_and_factories(digits):
    X, y = digits
    shapes = []

    def build(in_shape, n_outputs):
        shapes.append((in_shape, n_outputs))
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(n_outputs))

    RejectClassDetector(max_epochs=1, network=build, contamination=0).fit(X, y)
    RejectClassDetector(max_epochs=1, network=build, contamination=0).fit(X.reshape(len(X), -1), y)
    assert shapes == [((1, 8, 8), 9), (64, 9)]


def test_auxiliary_rows_too_many_to_hold_are_read_batch_by_batch(monkeypatch, tmp_path):
    X, y = with_outliers(*two_blobs())
    settings = SMALL | {"max_epochs": 30}
    expected = RejectClassDetector(**settings).fit(X, y)
    file = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float64, shape=X.shape)
    file[:] = X
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 10)
    streamed = RejectClassDetector(**settings).fit(file, y)
    assert (streamed.predict(X) == expected.predict(X)).mean() > 0.95


OF_PAPER = {
    "mnist": {"network": "cnn", "dropout": 0.1, "class_epochs": 10, "max_epochs": 10, "batch_size": 64, "lr": 0.01},
    "svhn": {"network": "wrn-16-2", "dropout": 0.3, "class_epochs": 20, "max_epochs": 20, "batch_size": 128, "lr": 0.1},
    "cifar10": {"network": "wrn-40-2", "dropout": 0.3, "class_epochs": 100, "max_epochs": 100, "batch_size": 128},
}
OF_PAPER["cifar10"] |= {"lr": 0.1, "augmentation": "crop-flip"}
OF_PAPER["cifar100"] = OF_PAPER["cifar10"] | {"n_reject_classes": 10}


@pytest.mark.parametrize("dataset", OF_PAPER)
def test_all_that_the_paper_sets(dataset):
    # By default, too: what the paper has for all of its data sets.
    defaults = RejectClassDetector().get_params()
    shared = {"pseudo_labels": "self", "optimizer": "nesterov", "weight_decay": 5e-4, "schedule": "cosine"}
    shared |= {"scaling": "auto"}
    assert {name: defaults[name] for name in shared} == shared
    of_method = {"n_reject_classes": 5, "outlier_weight": 5.0, "score_type": "sum", "class_outputs": "all"}
    expected = defaults | of_method | {"outlier_batch_ratio": 5.0} | OF_PAPER[dataset]
    assert RejectClassDetector.from_paper(dataset).get_params() == expected
    assert RejectClassDetector.from_paper(dataset, lr=0.5).get_params() == expected | {"lr": 0.5}
    # A rival has the same settings of network and training, and its own of the method.
    rival = RejectClassDetector.from_paper(dataset, pseudo_labels="uniform").get_params()
    kept = {name: defaults[name] for name in of_method}
    assert rival == expected | kept | {"pseudo_labels": "uniform"}


def test_from_a_paper_it_is_not_in():
    with pytest.raises(ValueError, match="dataset='imagenet' is none"):
        RejectClassDetector.from_paper("imagenet")


def test_selective_classification(fitted):
    X, y, outliers = two_blobs(seed=1)
    X, y = with_outliers(X, y, outliers)
    y_pred, score, threshold = answers(fitted, X, y)
    coverage, risk, _ = risk_coverage_curve(y, y_pred, score)
    assert threshold == 0
    assert risk[coverage <= 200 / len(y)].max() < 0.05 < risk[-1]


def test_unseen_outliers_on_mnist(data_home):
    """The paper's protocol in small: letters as auxiliary outliers, other images as unseen ones."""

    def images(name, n):
        with np.load(data_home / "images" / f"{name}.npz") as file:
            # Of half their size, for speed.
            return file["X"][:n].reshape(n, 1, 14, 2, 14, 2).mean((3, 5)) / 255, file["y"][:n]

    X, y = images("mnist_train", 3000)
    letters, _ = images("emnist_letters_train", 15_000)
    X, y = np.concatenate([X, letters]), np.concatenate([y, np.full(len(letters), -1)])
    small = partial(SmallCNN, channels=(8, 16), hidden_size=64)
    detector = RejectClassDetector(
        class_epochs=3, max_epochs=3, lr=0.05, network=small, random_state=0, contamination=0
    ).fit(X, y)
    X_test, y_test = images("mnist_test", 1000)
    assert (detector.predict_class(X_test) == y_test).mean() > 0.9
    score = detector.score_samples(X_test)
    for name in ("fashion_mnist_test", "kmnist_t10k", "notmnist_10k"):
        unseen = detector.score_samples(images(name, 1000)[0])
        assert auroc(np.repeat([1, -1], 1000), np.concatenate([score, unseen])) > 0.98


# --------------------------------------------------------------------------------------------------------------------
# Post-hoc scores of the classes alone


@pytest.mark.parametrize("name", [name for name in scores.METHODS if name not in ("entropy", "rotation")])
def test_post_hoc_scores_look_at_the_classes_alone(name):
    X, y = with_outliers(*two_blobs())
    model = RejectClassDetector(**SMALL, score_type=name, scaling=None, temperature=2.0).fit(X, y)
    name_of_head = find_head(model.module_, X.shape[1:])
    module = model.module_.double()
    inside, rows = y != -1, torch.from_numpy(X)
    if name == "odin":
        expected = scores.odin_log_odds(lambda rows: module(rows)[:, :2] / 2, rows).numpy()
    else:
        with torch.no_grad():
            logits, features = tap(module, name_of_head, rows)
        head = module.get_submodule(name_of_head)
        seen = {"logits": logits[:, :2].numpy() / 2, "features": features.numpy()}
        weights = {"weight": head.weight.detach().numpy()[:2] / 2, "bias": head.bias.detach().numpy()[:2] / 2}
        known = {key: values[inside] for key, values in seen.items()}
        score = scores.FittedScore(name).learn(known | weights, (y[inside] == 7).astype(int))
        expected = score.score(seen | weights)
    # Covariances of features that hardly vary, and differences from limits, magnify what float32 rounds away.
    tolerance = 5e-3 if "mahalanobis" in name or name == "gram" else 1e-4
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=tolerance, atol=tolerance / 10)


def test_post_hoc_scores_do_not_outlive_a_refit():
    X, y = with_outliers(*two_blobs())
    model = RejectClassDetector(**SMALL, score_type="energy").fit(X, y)
    model.set_params(score_type="auto").fit(X, y)
    assert np.array_equal(model.score_samples(X), RejectClassDetector(**SMALL).fit(X, y).score_samples(X))


def test_what_was_learnt_from_logits_cannot_be_calibrated():
    X, y = with_outliers(*two_blobs())
    model = RejectClassDetector(**SMALL, score_type="vim").fit(X, y)
    with pytest.raises(ValueError, match="score_type='vim' was learnt from logits at temperature 1"):
        model.calibrate(X, y)
    model = RejectClassDetector(**SMALL, score_type="msp").fit(X, y).calibrate(X, y)
    np.testing.assert_allclose(expit(model.score_samples(X)), model.predict_proba(X).max(1))


def test_the_papers_scores_need_no_classes():
    X = two_blobs()[0]
    assert np.isfinite(RejectClassDetector(**SMALL, score_type="entropy").fit(X).score_samples(X)).all()


def test_post_hoc_scores_that_compare_classes_need_two():
    with pytest.raises(ValueError, match="score_type='msp' compares classes, but y has one"):
        RejectClassDetector(**SMALL, score_type="msp").fit(two_blobs()[0])
