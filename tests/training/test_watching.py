"""Training that is watched by held-out rows, and ends where their loss no longer falls."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils import check_random_state
from skorch.callbacks import Checkpoint, EarlyStopping

from skood import DUMDetector, NegSampleVAE, RejectClassDetector, ResidualAdapterDetector, RotationAuxClassifier
from skood.estimator.held_out import validation_rows

rng = np.random.default_rng(0)
X = rng.normal(size=(80, 3)).astype(np.float32) @ rng.normal(size=(3, 5)).astype(np.float32)
Y = np.repeat([0, 1, 2, 3], 20)
MARKED = np.repeat([0, 1, 2, -1], 20)
SMALL = {
    "hidden_sizes": (8,),
    "batch_size": 16,
    "schedule": "constant",
    "contamination": 0,
    "random_state": 0,
    "device": "cpu",
}
WATCHED = {"early_stopping": True, "n_iter_no_change": 3}
DETECTORS = {
    "dum": DUMDetector,
    "vae": NegSampleVAE,
    "vae-average": lambda **params: NegSampleVAE(**params, weight_average=0.9),
    "vae-generated": lambda **params: NegSampleVAE("generated", **params),
    "reject": lambda **params: RejectClassDetector(**{"class_epochs": 2} | params),
    "reject-kmeans": lambda **params: RejectClassDetector(**{"class_epochs": 1} | params, pseudo_labels="kmeans"),
    "reject-energy": lambda **params: RejectClassDetector(**{"class_epochs": 1} | params, pseudo_labels="energy"),
    "rotation": RotationAuxClassifier,
    "adapters": lambda **params: ResidualAdapterDetector(**params, pretrain_epochs=2),
}
each = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)


def classes_for(make):
    return Y if hasattr(make(), "predict_class") else None


@each
def test_held_out_rows_leave_the_training_as_it_is_without_them(make):
    """They take no part in it, and their loss draws none of its random numbers."""
    y = classes_for(make)
    watched = make(**SMALL, max_epochs=3, early_stopping=True, n_iter_no_change=100).fit(X, y)
    seed = check_random_state(0).randint(np.iinfo(np.int32).max)
    kept, out = validation_rows(len(X), y, 0.1, np.random.RandomState(seed))
    plain = make(**SMALL, max_epochs=3).fit(X[kept], None if y is None else y[kept])
    assert watched.history_[:, "train_loss"] == plain.history_[:, "train_loss"]
    assert len(out) == 8
    assert "valid_loss" not in plain.history_[-1]


@each
@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "marked"])
def test_the_weights_of_the_lowest_loss_are_kept(make, marked):
    """A fit that ends with its best epoch is the same as one that went on for a while and came back."""
    y = MARKED if marked else classes_for(make)
    stopped = make(**SMALL, **WATCHED, max_epochs=12, lr=0.05).fit(X, y)
    names = [entry.get("phase") for entry in stopped.history_]
    last = [entry["valid_loss"] for entry in stopped.history_ if entry.get("phase") == names[-1]]
    best = int(np.argmin(last)) + 1
    params = {"max_epochs": best}
    if "classes" in names:
        params["class_epochs"] = names.count("classes")
    short = make(**SMALL, **WATCHED, lr=0.05).set_params(**params).fit(X, y)
    np.testing.assert_array_equal(stopped.score_samples(X), short.score_samples(X))
    assert len(last) == 12 or len(last) == best + 3


def test_each_phase_is_stopped_by_a_loss_of_its_own():
    detector = RejectClassDetector(**SMALL, **WATCHED, class_epochs=200, max_epochs=200, lr=0.1).fit(X, Y)
    for phase in ("classes", "reject"):
        losses = [entry["valid_loss"] for entry in detector.history_ if entry["phase"] == phase]
        assert len(losses) == int(np.argmin(losses)) + 1 + 3 < 200


def test_pretraining_is_stopped_too():
    detector = ResidualAdapterDetector(**SMALL, **WATCHED, max_epochs=2, pretrain_epochs=300).fit(X)
    losses = [entry["valid_loss"] for entry in detector.pretraining_history_]
    assert len(losses) == int(np.argmin(losses)) + 1 + 3 < 300


def test_copies_for_the_threshold_stop_by_themselves():
    detector = DUMDetector(**SMALL | {"contamination": "auto"}, **WATCHED, max_epochs=30, lr=0.05).fit(X)
    again = DUMDetector(**SMALL | {"contamination": "auto"}, **WATCHED, max_epochs=30, lr=0.05).fit(X)
    assert np.isfinite(detector.offset_)
    assert detector.offset_ == again.offset_


def test_the_loss_is_in_evaluation_mode():
    """Dropout would drop in training only."""
    modes = []

    class Asked(torch.nn.Linear):
        def forward(self, rows):
            modes.append((self.training, torch.is_grad_enabled(), len(rows)))
            return super().forward(rows)

    def loss_calls():
        return {mode for mode in modes if mode[2] == 2 * 8}

    DUMDetector(**SMALL | {"batch_size": 72}, early_stopping=True, max_epochs=2, network=Asked(5, 5)).fit(X)
    assert loss_calls() == {(False, False, 16)}


def test_callbacks_monitor_it(tmp_path):
    callbacks = [EarlyStopping(patience=2), Checkpoint(dirname=tmp_path)]
    detector = DUMDetector(**SMALL, early_stopping=True, max_epochs=50, lr=0.1, callbacks=callbacks).fit(X)
    assert len(detector.history_) < 50
    assert (tmp_path / "params.pt").exists()
    with pytest.raises(ValueError, match="early_stopping=True records 'valid_loss'"):
        DUMDetector(**SMALL, max_epochs=2, callbacks=callbacks).fit(X)


def test_two_that_load_the_best_weights_are_refused(tmp_path):
    callbacks = [Checkpoint(dirname=tmp_path, load_best=True)]
    with pytest.raises(ValueError, match=r"load_best=False or early_stopping=False"):
        DUMDetector(**SMALL, early_stopping=True, callbacks=callbacks).fit(X)


def test_too_few_rows():
    with pytest.raises(ValueError, match=r"hold out 2 of 3 in-distribution rows.*validation_fraction"):
        DUMDetector(**SMALL, early_stopping=True).fit(X[:3])
    with pytest.raises(ValueError, match="one of each class"):
        RotationAuxClassifier(**SMALL, early_stopping=True).fit(X[:4], [0, 1, 2, 3])


@pytest.mark.parametrize("params", [{"validation_fraction": 0.2}, {"n_iter_no_change": 5}])
def test_parameters_without_effect(params):
    with pytest.warns(UserWarning, match=f"{next(iter(params))} has no effect without early_stopping=True"):
        DUMDetector(**SMALL, max_epochs=1, **params).fit(X)


def test_nothing_is_trained():
    backbone = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with pytest.raises(ValueError, match="early_stopping=True has nothing to stop"):
        ResidualAdapterDetector(backbone, adaptation="frozen", early_stopping=True, device="cpu").fit(X)


def test_as_many_rows_are_held_out_as_a_loss_needs():
    """Two bags of two rows, where a share of the rows would be fewer."""
    rows = np.random.default_rng(0).uniform(size=(30, 5))
    detector = DUMDetector("dataset", **SMALL, early_stopping=True, max_epochs=5, n_iter_no_change=9).fit(rows)
    assert len(set(detector.history_[:, "valid_loss"])) == 5
    with pytest.raises(ValueError, match="holds out 3 of n_samples=7, and both parts need 4"):
        DUMDetector("dataset", **SMALL, early_stopping=True).fit(rows[:7])


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), fraction=st.floats(0.01, 0.9), seed=st.integers(0, 9)
)
def test_classes_have_their_shares(sizes, fraction, seed):
    codes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    try:
        kept, out = validation_rows(len(codes), codes, fraction, np.random.RandomState(seed))
    except ValueError:
        assert len(codes) - max(2, np.ceil(fraction * len(codes))) < max(2, len(sizes))
        return
    np.testing.assert_array_equal(np.sort(np.append(kept, out)), np.arange(len(codes)))
    assert len(out) == max(2, np.ceil(fraction * len(codes)))
    left = np.bincount(codes[kept], minlength=len(sizes))
    assert left.min() >= 1
    # Of a class's rows but one, in equal shares.
    free = np.array(sizes) - 1
    share = len(out) / free.sum()
    assert np.all(np.abs(np.bincount(codes[out], minlength=len(sizes)) - share * free) <= 1)


def test_one_record_a_fit(caplog):
    caplog.set_level("INFO", logger="skood")
    detector = DUMDetector(**SMALL | {"contamination": "auto"}, max_epochs=2, early_stopping=True).fit(X)
    (record,) = caplog.records
    assert record.fit["estimator"] == "DUMDetector"
    assert (record.fit["n_rows"], record.fit["n_features"], record.fit["n_epochs"]) == (80, 5, 2)
    assert record.fit["train_loss"] == detector.history_[-1, "train_loss"]
    assert f"valid_loss={detector.history_[-1, 'valid_loss']:.4g}" in record.getMessage()


def test_the_bar_shows_losses_and_epochs(capsys):
    detector = DUMDetector(**SMALL, max_epochs=2, early_stopping=True, verbose=1).fit(X)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert f"{detector.history_[-1, 'valid_loss']:.4g}"[:4] in shown


def test_the_bar_of_a_training_that_goes_on_begins_where_it_is(capsys):
    detector = DUMDetector(**SMALL, max_epochs=2, warm_start=True, verbose=1).fit(X)
    capsys.readouterr()
    shown = detector.fit(X) and capsys.readouterr().err
    assert "2/4" in shown
    assert "4/4" in shown
