"""Training that goes on from where it was: by warm_start and by partial_fit."""

import pickle
import signal
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from torch.optim import Adam, AdamW, RMSprop

from skood import (
    DUMDetector,
    NegSampleVAE,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    SimCLREncoder,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4)).astype(np.float32)
Y = np.repeat([0, 1, -1], 20)
NEW = rng.normal(size=(30, 4)).astype(np.float32)
SMALL = {"hidden_sizes": (8,), "batch_size": 16, "schedule": "constant", "random_state": 0, "device": "cpu"}
DETECTING = SMALL | {"contamination": 0}
IMAGES = {"image_shape": (1, 2, 2), "network": "wrn-10-1"}
BACKBONE = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
ESTIMATORS = {
    "dum": DUMDetector(**DETECTING),
    "dum-encoder": DUMDetector(**DETECTING, encoder=BACKBONE),
    "dum-image-views": DUMDetector(**DETECTING, views="crop-flip", image_shape=(1, 2, 2)),
    "vae": NegSampleVAE(**DETECTING, weight_average=0.9),
    "vae-generated": NegSampleVAE(["generated", "auxiliary"], **DETECTING, n_posterior_samples=2),
    "reject": RejectClassDetector(**DETECTING, class_epochs=2, dropout=0.2),
    "reject-kmeans": RejectClassDetector(**DETECTING, class_epochs=1, pseudo_labels="kmeans", n_reject_classes=3),
    "reject-energy": RejectClassDetector(**DETECTING, class_epochs=2, pseudo_labels="energy"),
    "rotation": RotationAuxClassifier(**DETECTING),
    "rotation-images": RotationAuxClassifier(**DETECTING | IMAGES, score_type="mahalanobis"),
    "rotation-separate": RotationAuxClassifier(**DETECTING | IMAGES, separate_norms=True),
    "adapters": ResidualAdapterDetector(**DETECTING, pretrain_epochs=2),
    "adapters-finetune": ResidualAdapterDetector(**DETECTING, pretrain_epochs=2, adaptation="l2sp", score_type="knn"),
    "encoder": SimCLREncoder(**SMALL, embedding_size=4, dropout=0.2),
}
DETECTORS = [name for name in ESTIMATORS if name != "encoder"]


@pytest.fixture(params=ESTIMATORS)
def estimator(request):
    return clone(ESTIMATORS[request.param])


@pytest.fixture(params=DETECTORS)
def detector(request):
    return clone(ESTIMATORS[request.param])


def answers(estimator):
    return estimator.transform(NEW) if hasattr(estimator, "embedding_size") else estimator.score_samples(NEW)


def test_interrupted_and_taken_up_is_the_same_as_uninterrupted(estimator):
    """To the last bit, through a pickle, and with a change of the number of epochs alone."""
    whole = clone(estimator).set_params(max_epochs=5).fit(X, Y)
    parts = clone(estimator).set_params(max_epochs=2, warm_start=True).fit(X, Y)
    parts = pickle.loads(pickle.dumps(parts)).set_params(max_epochs=3).fit(X, Y)
    assert parts.history_[:, "train_loss"] == whole.history_[:, "train_loss"]
    assert parts.history_[:, "epoch"] == whole.history_[:, "epoch"]
    np.testing.assert_array_equal(answers(parts), answers(whole))
    if hasattr(whole, "offset_"):
        assert parts.offset_ == whole.offset_


def test_passes_are_epochs(estimator):
    if "class_epochs" in estimator.get_params():
        estimator.set_params(class_epochs=1)
    whole = clone(estimator).set_params(max_epochs=3).fit(X, Y)
    parts = clone(estimator)
    for _ in range(3):
        parts.partial_fit(X, Y)
    np.testing.assert_array_equal(answers(parts), answers(whole))
    assert len(parts.history_) == len(whole.history_)


def test_other_rows_move_the_weights_and_not_the_scaling(detector):
    detector.set_params(max_epochs=2).fit(X, Y)
    before, mean = detector.score_samples(NEW), getattr(detector.scaler_, "mean_", None)
    weights = [parameter.clone() for parameter in detector.module_.parameters() if parameter.requires_grad]
    detector.partial_fit(10 * NEW, np.resize([0, 1, -1], 30))
    assert mean is None or np.array_equal(detector.scaler_.mean_, mean)
    after = [parameter for parameter in detector.module_.parameters() if parameter.requires_grad]
    assert not all(torch.equal(*pair) for pair in zip(weights, after, strict=True))
    assert not np.array_equal(detector.score_samples(NEW), before)


def test_a_new_training_begins_anew(estimator):
    estimator.set_params(max_epochs=2, warm_start=True).fit(X, Y).fit(X, Y)
    assert len(estimator.history_) > len(estimator.set_params(warm_start=False).fit(X, Y).history_)
    np.testing.assert_array_equal(answers(estimator), answers(clone(estimator).fit(X, Y)))


class Steps(Callback):
    """Notes how many steps an optimiser remembers at the end of a training, for each parameter."""

    seen: list = []

    def on_train_end(self, net, **kwargs):
        states = net.optimizer_.state_dict()["state"]
        Steps.seen.append([int(state["step"]) for state in states.values()])


def grouped(parameters, lr, decayed=slice(0, 1)):
    rest = [one for one in parameters if all(one is not other for other in parameters[decayed])]
    return AdamW([{"params": parameters[decayed], "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=lr)


# Optimisers of a first and a second training, and whether the second goes on from what the first one remembered.
CHANGES = {
    "none": ("adam", "adam", True),
    "a name for a class": (Adam, "adam", True),
    "numbers": (partial(Adam, betas=(0.8, 0.99), weight_decay=0.1), partial(Adam, eps=1e-6), True),
    "an average of squares more": ("adam", partial(Adam, amsgrad=True), False),
    "one less": (partial(Adam, amsgrad=True), "adam", False),
    "a mean more": ("rmsprop", partial(RMSprop, centered=True), False),
    "momentum": ("rmsprop", partial(RMSprop, momentum=0.9), False),
    "groups": ("adamw", grouped, False),
    "a group less": (grouped, "adamw", False),
    "other groups of as many parameters": (grouped, partial(grouped, decayed=slice(1, 2)), False),
    "class": ("adam", "rmsprop", False),
}


@pytest.mark.parametrize("one_pass", [False, True], ids=["warm_start", "partial_fit"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["dum", "encoder"])
def test_an_optimiser_goes_on_if_it_remembers_the_same_numbers(name, change, one_pass):
    """Another begins anew, as one of another class does."""
    first, second, goes_on = CHANGES[change]
    estimator = clone(ESTIMATORS[name]).set_params(max_epochs=1, warm_start=True, callbacks=[Steps()])
    Steps.seen.clear()
    for optimizer in (first, second):
        estimator.set_params(optimizer=optimizer)
        estimator = estimator.partial_fit(X) if one_pass else estimator.fit(X)
    before, after = Steps.seen
    (n_steps,) = {*before}
    assert {*after} == {2 * n_steps if goes_on else n_steps}


def test_the_schedule_covers_the_new_epochs():
    lrs = []

    def noting(parameters, lr):
        class Noting(torch.optim.SGD):
            def step(self, *args):
                lrs.append(self.param_groups[0]["lr"])
                return super().step(*args)

        return Noting(parameters, lr=lr)

    params = DETECTING | {"schedule": "cosine", "batch_size": 60, "optimizer": noting, "warm_start": True}
    detector = DUMDetector(**params, max_epochs=3, lr=0.1).fit(X).fit(X)
    assert lrs[:3] == lrs[3:]
    assert lrs[0] == 0.1
    detector.set_params(lr=0.2, max_epochs=2).fit(X)
    assert lrs[6] == 0.2
    # How many passes come is not known.
    detector.partial_fit(X)
    assert lrs[8:] == [0.2]


@pytest.mark.parametrize("contamination", ["auto", 0.1])
def test_a_threshold_after_each_pass(contamination):
    detector = DUMDetector(**SMALL, contamination=contamination)
    for part in (X, NEW):
        detector.partial_fit(part)
        assert len(detector.training_scores_) == len(part)
        assert detector.training_scores_[0] - 50 < detector.offset_ < detector.training_scores_[-1]


def test_copies_for_the_threshold_are_trained_as_long():
    """Those of a detector that went on are those of one that was never interrupted."""
    whole = DUMDetector(**SMALL, max_epochs=5).fit(X)
    parts = DUMDetector(**SMALL, max_epochs=2, warm_start=True).fit(X).set_params(max_epochs=3).fit(X)
    assert parts.offset_ == whole.offset_


def test_classes_are_those_of_the_first_call():
    detector = RejectClassDetector(**DETECTING, class_epochs=1)
    detector.partial_fit(X[:40], np.array(["a", "b"])[Y[:40]]).partial_fit(NEW, np.full(30, "a"))
    assert detector.predict_proba(NEW).shape == (30, 2)
    with pytest.raises(ValueError, match="not among the classes of the fit"):
        detector.partial_fit(NEW, np.full(30, "c"))
    with pytest.raises(ValueError, match="y is needed"):
        detector.partial_fit(NEW)


def test_what_cannot_go_on_leaves_the_detector_as_it_was():
    detector = NegSampleVAE("auxiliary", **DETECTING, max_epochs=1, warm_start=True).fit(X, Y)
    before = detector.score_samples(NEW)
    for match, call in [
        ("marks no auxiliary outliers", lambda: detector.partial_fit(NEW)),
        ("3 features", lambda: detector.partial_fit(NEW[:, :3], np.resize([1, -1], 30))),
        ("at least 2 in-distribution rows", lambda: detector.partial_fit(NEW[:2], [1, -1])),
        ("diverged", lambda: detector.set_params(optimizer="sgd", lr=1e30).fit(X, Y)),
        ("hidden_sizes was changed", lambda: detector.set_params(hidden_sizes=(9,)).fit(X, Y)),
    ]:
        with pytest.raises(ValueError, match=match):
            call()
        np.testing.assert_array_equal(detector.score_samples(NEW), before)
    detector.set_params(hidden_sizes=(8,), optimizer="adam", lr=1e-3).fit(X, Y)
    assert len(detector.history_) == 2


class Interrupting(torch.nn.Linear):
    """Is interrupted by Ctrl-C when it scores rows, if it is told to be."""

    armed = False

    def forward(self, rows):
        if Interrupting.armed and not self.training:
            Interrupting.armed = False
            signal.raise_signal(signal.SIGINT)
        return super().forward(rows)


@pytest.mark.parametrize("one_pass", [True, False])
def test_ctrl_c_after_the_last_epoch_leaves_the_detector_as_it_was(one_pass):
    """Not the new network with the old threshold."""
    detector = DUMDetector(network=Interrupting, **DETECTING, max_epochs=1, warm_start=True).fit(X)
    before, history = detector.score_samples(NEW), len(detector.history_)
    Interrupting.armed = True
    with pytest.raises(KeyboardInterrupt):
        detector.partial_fit(5 * X) if one_pass else detector.fit(5 * X)
    np.testing.assert_array_equal(detector.score_samples(NEW), before)
    assert len(detector.history_) == history


def test_a_pass_without_finite_scores_leaves_the_detector_as_it_was():
    detector = DUMDetector(**DETECTING, max_epochs=1).fit(X)
    before, history = detector.score_samples(NEW), len(detector.history_)
    with pytest.raises(ValueError, match=r"no finite score|diverged"):
        detector.set_params(lr=1e10).partial_fit(X)
    np.testing.assert_array_equal(detector.score_samples(NEW), before)
    assert len(detector.history_) == history
    assert detector.set_params(lr=1e-3).partial_fit(X).offset_ < detector.training_scores_.min()


@pytest.mark.parametrize(
    ("detector", "params", "rows", "match"),
    [
        (DUMDetector("dataset", **DETECTING), {"batch_size": 1}, X, "batch_size=1"),
        (DUMDetector("dataset", **DETECTING), {"bag_size": 100}, X, "bag_size=100"),
        (NegSampleVAE(noise_model="bernoulli", **DETECTING), {}, 3 * NEW, r"'bernoulli' takes values in \[0, 1\]"),
        (NegSampleVAE(image_shape=(1, 2, 2), **DETECTING), {}, 3 * NEW, "built for 'bernoulli' and takes values in"),
    ],
)
def test_parameters_and_rows_are_checked_whenever_training_goes_on(detector, params, rows, match):
    unit = np.random.default_rng(0).uniform(size=(60, 4))
    detector = clone(detector).set_params(max_epochs=1).fit(unit)
    with pytest.raises(ValueError, match=match):
        detector.set_params(**params).partial_fit(rows)


def test_adapters_from_a_file_do_not_go_on(tmp_path):
    detector = ResidualAdapterDetector(**DETECTING, max_epochs=1, pretrain_epochs=1).fit(X)
    detector.save_adapters(tmp_path / "adapters.npz")
    loaded = clone(detector).set_params(backbone=detector).load_adapters(tmp_path / "adapters.npz")
    with pytest.raises(ValueError, match="read from a file"):
        loaded.partial_fit(X)


@pytest.mark.parametrize("score_type", ["knn", "center"])
def test_what_has_no_epochs_learns_new_rows(score_type):
    settings = {"adaptation": "frozen", "scaling": None, "contamination": 0, "device": "cpu"}
    detector = ResidualAdapterDetector(BACKBONE, score_type=score_type, **settings)
    going_on = clone(detector).partial_fit(X).partial_fit(NEW)
    np.testing.assert_array_equal(answers(going_on), answers(clone(detector).fit(NEW)))
    twice = clone(detector).set_params(warm_start=True).fit(X).fit(NEW)
    np.testing.assert_array_equal(answers(twice), answers(going_on))


def test_a_plain_fit_keeps_no_optimiser():
    plain, warm = (DUMDetector(**DETECTING, max_epochs=1, warm_start=warm).fit(X) for warm in (False, True))
    assert len(pickle.dumps(warm)) > 1.5 * len(pickle.dumps(plain))
    assert np.array_equal(answers(plain), answers(warm))


def test_early_stopping_of_an_encoder():
    encoder = SimCLREncoder(**SMALL, early_stopping=True, n_iter_no_change=2, max_epochs=300, lr=0.1).fit(X)
    losses = encoder.history_[:, "valid_loss"]
    assert len(losses) == int(np.argmin(losses)) + 3 < 300
