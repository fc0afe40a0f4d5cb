"""contamination="auto": the threshold that is set on rows that were held out, in turn."""

import os
import signal
import warnings

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping

from skood import (
    DUMDetector,
    NegSampleVAE,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
)
from skood.estimator.data import FitData
from skood.estimator.held_out import Fold, held_out_offset, held_out_rows
from skood.estimator.offset import between
from skood.training.batches import is_memory_map
from skood.training.phases import Phase

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(60, 1)) + 0.1 * RNG.normal(size=(60, 4))
DETECTOR = DUMDetector(hidden_sizes=(8,), max_epochs=3, batch_size=16, random_state=0, device="cpu")
SMALL = {"hidden_sizes": (8,), "max_epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}


# --------------------------------------------------------------------------------------------------------------------
# Where the threshold lies


def test_the_threshold_by_hand():
    """Of 39 scores just below the second smallest: 2 = floor(0.05 * 40)."""
    assert held_out_offset(np.arange(39.0)[::-1]) == pytest.approx(0.99)
    # Of 99 the fifth.
    assert held_out_offset(np.arange(99.0)) == pytest.approx(3.99)
    # Of 38 the smallest; of 10, for which 5 % cannot be had, too.
    assert held_out_offset(np.arange(1.0, 39.0)) == pytest.approx(1 - 1e-6)
    assert held_out_offset(np.arange(1.0, 11.0)) == pytest.approx(1 - 1e-6)


def test_a_share_keeps_its_word_on_average():
    """New rows of the same distribution, over many draws: at most 5 %, and not much less where there are many."""
    rng = np.random.default_rng(1)
    for n_rows, least in ((20, 0.03), (100, 0.035), (400, 0.045)):
        new = [(rng.normal(size=200) < held_out_offset(rng.normal(size=n_rows))).mean() for _ in range(500)]
        assert least < np.mean(new) < 0.055


@given(
    arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e9, 1e9).map(lambda x: round(x, 3))),
    st.data(),
)
def test_a_threshold_lies_between_two_scores(scores, data):
    """It is no score, has at most as many scores below as asked for, and moves no row when scores move by rounding."""
    n_below = data.draw(st.integers(0, len(scores) - 1))
    threshold = between(np.sort(scores), n_below)
    assert threshold not in scores
    assert (scores < threshold).sum() <= n_below
    # Fewer only because of rows with the same score.
    if len(set(scores)) == len(scores):
        assert (scores < threshold).sum() == n_below
    assert np.array_equal(scores * (1 + 1e-15) < threshold, scores < threshold)


def test_scores_that_differ_by_rounding_get_the_same_label():
    scores = np.sort(np.append([1.0, 2.0], 1.5 + 1e-14 * np.arange(10)))
    # Eight of the ten copies would be below.
    assert between(scores, 9) == 1.25


# --------------------------------------------------------------------------------------------------------------------
# Which rows are held out


@pytest.mark.parametrize(
    ("n_rows", "n_folds", "n_each"),
    [(5, 0, None), (6, 3, 2), (299, 3, 99), (300, 2, 100), (600, 1, 200), (1000, 1, 200)],
)
def test_as_few_folds_as_give_two_hundred_rows(n_rows, n_folds, n_each):
    folds = held_out_rows(n_rows, None, np.random.RandomState(0))
    assert len(folds) == n_folds
    assert all(n_each <= len(fold) <= n_each + 1 for fold in folds)
    if folds:
        together = np.concatenate(folds)
        assert len(set(together.tolist())) == len(together)


def test_many_rows_are_not_all_scored():
    [fold] = held_out_rows(1_000_000, np.arange(1_000_000) % 4, np.random.RandomState(0))
    assert 9_000 <= len(fold) <= 10_000
    assert np.bincount(fold % 4).min() > 0.24 * len(fold)


def test_classes_have_equal_parts_and_rare_ones_stay():
    codes = np.repeat([0, 1, 2], [30, 9, 2])
    folds = held_out_rows(41, codes, np.random.RandomState(0))
    for fold in folds:
        assert np.bincount(codes[fold], minlength=3).tolist() == [10, 3, 0]


def test_a_fold_takes_as_many_steps():
    """Of 30 rows 10 are held out: two batches of 16 become two, of which three epochs stay; four become three."""
    fold = Fold(np.arange(10), "", [3])
    assert fold.as_many_steps(3, n_rows=20, batch_size=16) == 3
    assert fold.as_many_steps(3, n_rows=46, batch_size=16) == 4
    assert fold.as_long([Phase([], 0), Phase([], 100)], n_rows=46, batch_size=16)[0].max_epochs == 4


# --------------------------------------------------------------------------------------------------------------------
# The fit


@pytest.mark.parametrize(
    "detector",
    [
        DETECTOR,
        NegSampleVAE(latent_dim=2, **SMALL),
        RejectClassDetector(**SMALL),
        RotationAuxClassifier(**SMALL),
        ResidualAdapterDetector(pretrain_epochs=2, **SMALL),
    ],
    ids=lambda detector: type(detector).__name__,
)
def test_the_model_is_the_same_whatever_the_threshold(detector):
    """To the last bit: folds are copies, and leave no trace in the fit on all rows."""
    y = np.repeat([1, 2], 30) if hasattr(detector, "predict_class") else None
    auto = clone(detector).fit(ROWS, y)
    fixed = clone(detector).set_params(contamination=0).fit(ROWS, y)
    assert np.array_equal(auto.score_samples(ROWS), fixed.score_samples(ROWS))
    assert list(auto.history_[:, "train_loss"]) == list(fixed.history_[:, "train_loss"])
    assert vars(auto).keys() == vars(fixed).keys()
    assert (fixed.predict(ROWS) == 1).all()


def test_the_threshold_is_of_held_out_rows():
    """Step by step: copies without a third of the rows each, with as many steps, score this third."""
    model = clone(DETECTOR).fit(ROWS)
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    scores = []
    for out in held_out_rows(60, None, np.random.RandomState(seed)):
        others = np.delete(ROWS, out, axis=0)
        # 60 rows are four batches of 16, 40 are three.
        fold = clone(DETECTOR).set_params(max_epochs=4, contamination=0).fit(others)
        scores.append(fold.score_samples(ROWS[out]))
    assert model.offset_ == pytest.approx(held_out_offset(np.concatenate(scores)))


class Recorder(DUMDetector):
    """Notes which rows are read where."""

    seen: list

    def _fit_representation(self, data):
        type(self).seen.append(data)
        super()._fit_representation(data)


def test_no_fold_sees_a_row_that_it_holds_out():
    Recorder.seen = []
    y = np.repeat([1, -1], [50, 10])
    Recorder(**DETECTOR.get_params()).fit(ROWS, y)
    whole, *folds = Recorder.seen
    assert len(folds) == 3
    held_out = [np.setdiff1d(whole.all_inlier_indices(), fold.inlier_indices) for fold in folds]
    assert np.array_equal(np.sort(np.concatenate(held_out)), np.arange(50))


def test_auxiliary_rows_take_part_in_every_fold():
    class Noting(RejectClassDetector):
        seen: list = []

        def _fit_representation(self, data):
            self.seen.append((data.n_inliers, data.n_auxiliary, len(data.codes)))
            super()._fit_representation(data)

    Noting(**RejectClassDetector(**SMALL).get_params()).fit(ROWS, np.repeat([0, 1, -1], [25, 25, 10]))
    # Of 50 rows a third is held out; the corpus stays.
    assert Noting.seen[0] == (50, 10, 50)
    assert sorted(Noting.seen[1:]) == [(33, 10, 33), (33, 10, 33), (34, 10, 34)]


def test_a_backbone_that_is_trained_first_does_not_see_them_either(monkeypatch):
    import skood.detectors.residual_adapters as module

    rows, pretrain = [], module.pretrain
    monkeypatch.setattr(
        module, "pretrain", lambda network, data, *a, **k: rows.append(len(data)) or pretrain(network, data, *a, **k)
    )
    ResidualAdapterDetector(pretrain_epochs=1, **SMALL).fit(ROWS)
    assert rows == [60, 40, 40, 40]


@pytest.mark.slow
def test_processes_give_the_same_threshold():
    one = clone(DETECTOR).fit(ROWS)
    assert clone(DETECTOR).set_params(n_jobs=2).fit(ROWS).offset_ == pytest.approx(one.offset_, rel=1e-6)


def test_callbacks_and_history_are_of_the_fit_on_all_rows():
    class Counting(Callback):
        def on_train_begin(self, net, *args, **kwargs):
            self.n_fits = getattr(self, "n_fits", 0) + 1

    model = clone(DETECTOR).set_params(callbacks=[Counting()]).fit(ROWS)
    assert [callback.n_fits for callback in model.callbacks_] == [1]
    assert len(model.history_) == 3


def test_a_fit_that_was_stopped_early_has_folds_as_short(monkeypatch):
    """Four epochs of a hundred: the folds take five, about as many steps, and not 133."""
    import skood.training.trainer as trainer

    trained, train = [], trainer.train
    monkeypatch.setattr(
        trainer,
        "train",
        lambda module, data, phases, **options: (
            trained.append(phases[0].max_epochs) or train(module, data, phases, **options)
        ),
    )
    stopping = EarlyStopping("train_loss", patience=3, threshold=1e9, threshold_mode="abs")
    clone(DETECTOR).set_params(max_epochs=100, callbacks=[stopping]).fit(ROWS)
    assert trained == [100, 5, 5, 5]


def test_the_progress_bar_says_what_runs(capsys):
    clone(DETECTOR).set_params(verbose=1).fit(ROWS)
    shown = capsys.readouterr().err
    assert "DUMDetector:" in shown
    assert "DUMDetector, threshold 1 of 3:" in shown
    assert "DUMDetector, threshold 3 of 3:" in shown


def test_few_rows_take_the_lower_of_two_thresholds():
    """Below 40 rows the threshold is not above that of displaced rows."""
    few = clone(DETECTOR).fit(ROWS[:20])
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    data = few._read_labels(ROWS[:20], None)
    assert few.offset_ <= few._free_offset(data, seed)
    scores = few._held_out_scores(data, seed)
    assert few.offset_ == min(held_out_offset(scores), few._free_offset(data, seed))
    assert clone(DETECTOR).fit(ROWS[:5]).offset_ == pytest.approx(
        clone(DETECTOR).fit(ROWS[:5])._free_offset(few._read_labels(ROWS[:5], None), seed)
    )


# --------------------------------------------------------------------------------------------------------------------
# Interruption


class Interrupted(DUMDetector):
    """Ctrl-C while a fold is fitted."""

    def _loss(self, module, rows):
        fold = self._running.fold
        if fold is not None and fold.title.startswith("threshold 2"):
            os.kill(os.getpid(), signal.SIGINT)
        return super()._loss(module, rows)


def test_interrupting_the_folds_keeps_the_model():
    whole = clone(DETECTOR).fit(ROWS)
    model = Interrupted(**DETECTOR.get_params())
    with pytest.warns(RuntimeWarning, match="interrupted while it set the threshold"), pytest.raises(KeyboardInterrupt):
        model.fit(ROWS)
    assert np.array_equal(model.score_samples(ROWS), whole.score_samples(ROWS))
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    assert model.offset_ == model._free_offset(model._read_labels(ROWS, None), seed)
    assert set(model.predict(ROWS)) <= {1, -1}


# --------------------------------------------------------------------------------------------------------------------
# The other thresholds


@pytest.mark.slow
def test_natural_boundaries():
    y = np.repeat([0, 1, -1], 20)
    reject = RejectClassDetector(contamination="natural", score_type="sum", **SMALL).fit(ROWS, y)
    # The reject classes have as much mass as the others.
    mass = reject.predict_reject_proba(ROWS).sum(1)
    assert np.array_equal(reject.predict(ROWS) == -1, mass > 0.5)
    # The most probable class is as probable as all that it is not.
    settings = SMALL | {"contamination": "natural", "max_epochs": 30, "lr": 0.05}
    reject = RejectClassDetector(**settings).fit(ROWS, y)
    assert set(reject.predict(ROWS)) == {1, -1}
    best = reject.predict_proba(ROWS).max(1) * (1 - reject.predict_reject_proba(ROWS).sum(1))
    assert np.array_equal(reject.predict(ROWS) == -1, best < 0.5)
    adapters = ResidualAdapterDetector(contamination="natural", pretrain_epochs=1, **SMALL).fit(ROWS, y)
    assert adapters.offset_ == pytest.approx(-np.log(2))


@pytest.mark.parametrize(
    "detector",
    [
        DUMDetector(**SMALL),
        NegSampleVAE(score_type="elbo", **SMALL),
        RejectClassDetector(score_type="energy", **SMALL),
        ResidualAdapterDetector(outliers=None, **SMALL),
    ],
    ids=lambda detector: type(detector).__name__,
)
def test_a_boundary_that_a_method_lacks_is_refused_before_the_training(detector):
    with pytest.raises(ValueError, match=r"contamination='natural'.*set contamination='auto'"):
        detector.set_params(contamination="natural").fit(ROWS)
    assert not hasattr(detector, "history_")


def is_mapped(data):
    return is_memory_map(data.X)


def test_rows_in_memory_are_so_in_other_processes(tmp_path):
    """To which joblib gives large arrays as memory maps, on which training would go another way."""
    np.save(tmp_path / "rows.npy", ROWS)
    both = [FitData(ROWS), FitData(np.load(tmp_path / "rows.npy", mmap_mode="r"))]
    found = joblib.Parallel(2, backend="multiprocessing", max_nbytes=100)(
        joblib.delayed(is_mapped)(data) for data in both
    )
    assert found == [False, True]


def test_a_share_of_fewer_rows_than_features_warns():
    wide = RNG.normal(size=(20, 30))
    model = clone(DETECTOR).set_params(contamination=0.1)
    with pytest.warns(UserWarning, match=r"20 training rows, fewer than their 30 features.*target_fpr=0.1"):
        model.fit(wide)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(RNG.normal(size=(30, 30)))
        model.set_params(contamination=0).fit(wide)
        model.set_params(contamination="auto").fit(wide)
