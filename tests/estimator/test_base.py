"""The contract over all kinds of input: a right answer or a clear error."""

import copy
import pickle
import signal
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, LRScheduler

from skood import (
    DUMDetector,
    FitOnInliers,
    LabelWarning,
    NegSampleVAE,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
)
from skood.compare import split
from skood.datasets import load
from skood.estimator.base import OutlierDetector
from skood.estimator.offset import displace
from skood.estimator.whitening import Whitener

DETECTOR = DUMDetector(hidden_sizes=(8,), max_epochs=2, batch_size=16, random_state=0, device="cpu")
ROWS = np.random.default_rng(0).normal(size=(40, 3))
FITTED = clone(DETECTOR).fit(ROWS)
SCORES = FITTED.score_samples(ROWS)

quick = settings(max_examples=40, suppress_health_check=list(HealthCheck))


def check_usable(detector, X):
    """What must hold of any fitted detector: finite float64 scores, labels and threshold that agree."""
    scores = detector.score_samples(X)
    assert scores.dtype == np.float64
    assert scores.shape == (len(X),)
    assert np.isfinite(scores).all()
    assert np.isfinite(detector.offset_)
    assert np.array_equal(detector.predict(X) == -1, scores < detector.offset_)


# ---------------------------------------------------------------------------------------------------- values and dtypes


@quick
@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.int8, np.uint8, np.bool_, ">f8", ">i4"]),
        st.tuples(st.integers(2, 12), st.integers(1, 4)),
    )
)
# One of the copies is fitted without the huge value, and gives it no finite score.
@example(np.array([3.57462124e16, 0, 2**-9, 0, 0, 0, 0, 0, 0, 0, 0])[:, None])
def test_any_numbers(X):
    with np.errstate(over="ignore", invalid="ignore"):
        as_float = X.astype(np.float64)
    good = np.isfinite(as_float).all() and (np.abs(as_float) <= 1e18).all()
    detector = clone(DETECTOR)
    if good:
        check_usable(detector.fit(X), X)
    else:
        with pytest.raises(ValueError, match=r"NaN|infinity|overflow"):
            detector.fit(X)


@quick
@given(st.integers(0, 39), st.integers(0, 2), st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e19]))
def test_a_bad_value_is_named(row, column, value):
    X = ROWS.copy()
    X[row, column] = value
    for method in (clone(DETECTOR).fit, FITTED.score_samples, FITTED.predict, FITTED.explain, FITTED.uncertainty):
        with pytest.raises(ValueError, match=rf"row {row}, feature {column}"):
            method(X)


@quick
@given(st.sampled_from([np.float32, np.float16, ">f4", ">f8", object]), st.booleans(), st.integers(1, 3))
def test_odd_layouts_score_alike(dtype, fortran, step):
    X = np.round(ROWS * 8) / 8  # exact in every one of the types
    expected = FITTED.score_samples(X)
    odd = X.astype(dtype, order="F" if fortran else "C")
    assert np.array_equal(FITTED.score_samples(odd), expected)
    assert np.array_equal(FITTED.score_samples(odd[::step]), expected[::step])
    assert np.array_equal(FITTED.score_samples(odd[::-1]), expected[::-1])
    odd.setflags(write=False)
    assert np.array_equal(FITTED.score_samples(odd), expected)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e17])
def test_constant_rows(value):
    X = np.full((10, 2), value)
    detector = clone(DETECTOR).fit(X)
    check_usable(detector, X)
    assert (detector.predict(X) == 1).all()


def test_constant_column_and_huge_but_legal_values():
    X = ROWS * [1.0, 0.0, 1e17]
    detector = clone(DETECTOR).fit(X)
    check_usable(detector, X)
    check_usable(detector, np.full((3, 3), 1e18))


def test_offsets_large_against_the_spread():
    """Timestamps: float32 would lose them, so features are scaled in float64 first."""
    shifted = ROWS + 1.7e9
    detector = clone(DETECTOR).fit(shifted)
    np.testing.assert_allclose(detector.score_samples(shifted), SCORES, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_rows(n):
    check_usable(clone(DETECTOR).fit(ROWS[:n]), ROWS)


def test_complex_numbers_are_refused_by_their_column():
    frame = pd.DataFrame({"a": pd.array([1] * 40, dtype="Int64"), "b": np.arange(40.0), "c": np.arange(40) % 2 == 0})
    frame["o"] = 1 + 2j
    with pytest.raises(ValueError, match="Complex data not supported: X holds complex numbers in column 'o'"):
        clone(DETECTOR).fit(frame)
    for shape in ((40, 2), (40, 1, 1, 2)):
        with pytest.raises(ValueError, match="Complex data not supported: X holds complex numbers in all of its feat"):
            clone(DETECTOR).fit(np.ones(shape, dtype=complex))


def test_no_number_of_processes_is_zero():
    with pytest.raises(ValueError, match=r"'n_jobs' parameter of DUMDetector must be an int in the range \[1, inf\)"):
        clone(DETECTOR).set_params(n_jobs=0).fit(ROWS)


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="1 sample"):
        clone(DETECTOR).fit(ROWS[:1])
    assert FITTED.predict(ROWS[:1]).shape == (1,)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (ROWS + 1j, "[Cc]omplex"),
        (scipy.sparse.csr_array(ROWS), "toarray"),
        ([["a", "b", "c"]] * 4, "text 'a' in row 0, feature 0"),
        (ROWS[0], "1D array"),
        (np.empty((0, 3)), "0 sample"),
        (np.empty((5, 0)), "0 feature"),
        (ROWS.reshape(10, 4, 3), r"\(n, C, H, W\)"),
        (np.zeros((5, 0, 2, 2)), "without pixels"),
    ],
)
def test_bad_input(X, message):
    with pytest.raises(ValueError, match=message):
        clone(DETECTOR).fit(X)


def test_wrong_width():
    with pytest.raises(ValueError, match="2 features"):
        FITTED.predict(ROWS[:, :2])


# ---------------------------------------------------------------------------------------------------- containers


def test_lists_frames_and_maps_score_alike(tmp_path):
    np.save(tmp_path / "X.npy", ROWS)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for X in (ROWS.tolist(), mapped, pd.DataFrame(ROWS)):
        np.testing.assert_allclose(clone(DETECTOR).fit(X).score_samples(X), SCORES, rtol=1e-6)


@quick
@given(st.permutations(["a", "b", "c"]), st.sampled_from([2, 3]))
def test_frame_columns(columns, n_columns):
    detector = clone(DETECTOR).fit(pd.DataFrame(ROWS, columns=["a", "b", "c"]))
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c"])[columns[:n_columns]]
    if list(frame.columns) == ["a", "b", "c"]:
        assert np.array_equal(detector.score_samples(frame), SCORES)
    else:
        with pytest.raises(ValueError, match="feature names"):
            detector.score_samples(frame)


@pytest.mark.parametrize("dtype", [np.int16, np.float16, ">f4"])
def test_chunks_are_converted_and_the_whole_is_not(dtype, tmp_path, monkeypatch):
    """Of any numeric type; chunks bounded in bytes, not only in rows."""
    import skood.training.batches as batches
    import skood.training.scoring as scoring

    monkeypatch.setattr(batches, "CHUNK_BYTES", 8 * 3 * 7)
    monkeypatch.setattr(scoring, "_VECTORS", (4, 4))
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=dtype, shape=(40, 3))
    X[:] = np.round(8 * ROWS)
    sizes = []

    class Spy(DUMDetector):
        def _set_front(self, device):
            super()._set_front(device)
            self._front.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))

    model = Spy(**DETECTOR.get_params()).set_params(contamination=0.1).fit(X)
    # 40 rows in parts of 7, for scores of 4.
    assert set(sizes) == {7, 5, 4}
    expected = clone(DETECTOR).fit(np.round(8 * ROWS))
    np.testing.assert_allclose(model.score_samples(X), expected.score_samples(np.round(8 * ROWS)), rtol=1e-6)


def test_a_large_memory_map_is_streamed(tmp_path, monkeypatch):
    """Chunk by chunk, every row once an epoch, with the marked rows left out."""
    import skood.training.batches as batches

    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=(5000, 3))
    X[:] = rng.normal(size=(5000, 1)) + 0.1 * rng.normal(size=(5000, 3))
    y = np.ones(5000)
    y[::10] = -1
    X[::10] += 100
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 1000)
    monkeypatch.setattr(batches, "STREAM_BYTES", 12 * 700)
    detector = clone(DETECTOR).set_params(batch_size=100, max_epochs=3, callbacks=[_Batches()]).fit(X, y)
    for sizes in detector.history_[:, "batches", :, "train_batch_size"]:
        assert sum(sizes) == 4500
        assert set(sizes[:-1]) == {100}
    assert detector.scaler_.mean_.max() < 1
    check_usable(detector, X)


class _Batches(Callback):
    def on_batch_end(self, net, **kwargs):
        pass


# ------------------------------------------------------------------------------------------------------------- images

IMAGES = np.random.default_rng(0).integers(0, 256, size=(30, 2, 4, 3), dtype=np.uint8)


def test_images_and_flattened_images_score_alike():
    flat = IMAGES.reshape(30, -1)
    as_images = clone(DETECTOR).fit(IMAGES)
    as_rows = clone(DETECTOR).set_params(image_shape=(2, 4, 3)).fit(flat)
    assert as_images.image_shape_ == as_rows.image_shape_ == (2, 4, 3)
    assert as_images.n_features_in_ == as_rows.n_features_in_ == 24
    scores = as_images.score_samples(IMAGES)
    assert np.array_equal(as_rows.score_samples(flat), scores)
    assert np.array_equal(as_rows.score_samples(IMAGES), scores)
    assert np.array_equal(as_images.score_samples(flat), scores)
    assert np.array_equal(clone(DETECTOR).fit(IMAGES.tolist()).score_samples(IMAGES.tolist()).shape, scores.shape)


def test_uint8_images_are_scaled_by_255():
    detector = clone(DETECTOR).set_params(scaling=None)
    from_bytes = detector.fit(IMAGES).score_samples(IMAGES)
    from_floats = detector.fit(IMAGES / np.float32(255)).score_samples(IMAGES / np.float32(255))
    np.testing.assert_allclose(from_bytes, from_floats, rtol=1e-6)


def test_uint8_vectors_are_numbers():
    X = IMAGES.reshape(30, -1)
    detector = clone(DETECTOR).set_params(scaling=None, max_epochs=1, lr=1e-20)
    np.testing.assert_allclose(detector.fit(X).score_samples(X), detector.fit(X * 1.0).score_samples(X * 1.0))


def test_bytes_and_floats_are_not_mixed():
    with pytest.raises(ValueError, match="fitted on uint8 images"):
        clone(DETECTOR).fit(IMAGES).predict(IMAGES.astype(float))
    with pytest.raises(ValueError, match="fitted on float images"):
        clone(DETECTOR).fit(IMAGES / 255).predict(IMAGES)


@pytest.mark.parametrize(
    ("shape", "X", "message"),
    [
        ((2, 4, 3), IMAGES.reshape(30, -1)[:, :23], "makes 24"),
        ((1, 4, 6), IMAGES, r"image_shape=\(1, 4, 6\)"),
        ((4, 6), IMAGES, "three positive integers"),
        ((0, 4, 6), IMAGES, "three positive integers"),
        (None, IMAGES[:, 0], "X\\[:, None\\]"),
    ],
)
def test_bad_image_shapes(shape, X, message):
    with pytest.raises(ValueError, match=message):
        clone(DETECTOR).set_params(image_shape=shape).fit(X)


def test_images_for_a_detector_of_something_else():
    with pytest.raises(ValueError, match="fitted on vectors"):
        FITTED.predict(IMAGES)
    detector = clone(DETECTOR).fit(IMAGES)
    with pytest.raises(ValueError, match=r"fitted on images of shape \(2, 4, 3\)"):
        detector.predict(IMAGES[:, :1])
    with pytest.raises(ValueError, match="24 features"):
        detector.predict(ROWS)


def test_refitting_on_vectors_forgets_the_images():
    detector = clone(DETECTOR).fit(IMAGES)
    assert np.array_equal(detector.fit(ROWS).score_samples(ROWS), SCORES)
    assert detector.image_shape_ is None


# ------------------------------------------------------------------------------------------------------------------ y


@quick
@given(st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=40, max_size=40))
def test_rows_marked_minus_one_are_left_out(y):
    y = np.array(y)
    if np.count_nonzero(y != -1) < 2:
        return
    far = ROWS + 50 * (y == -1)[:, None]
    # A threshold on held-out rows would take three more fits, for each of many examples.
    detector = clone(DETECTOR).set_params(contamination=0)
    model = clone(detector).fit(far, y)
    expected = clone(detector).fit(ROWS[y != -1])
    np.testing.assert_allclose(model.score_samples(ROWS), expected.score_samples(ROWS), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.offset_, expected.offset_, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "y",
    [
        np.repeat(["inlier", "bad"], [30, 10]),
        np.repeat(np.array(["inlier", "bad"], dtype=object), [30, 10]),
        pd.Series(np.repeat(["inlier", "bad"], [30, 10])),
        pd.Series(np.repeat(["inlier", "bad"], [30, 10])).astype("category"),
    ],
    ids=["str", "object", "series", "category"],
)
def test_labels_of_text(y):
    model = clone(DETECTOR).set_params(outlier_label="bad").fit(ROWS, y)
    expected = clone(DETECTOR).fit(ROWS[:30])
    np.testing.assert_allclose(model.score_samples(ROWS), expected.score_samples(ROWS), rtol=1e-6)
    # With the default marker no row of text is marked.
    with pytest.warns(LabelWarning, match=r"'bad' \(10 rows\), 'inlier' \(30 rows\)"):
        unmarked = clone(DETECTOR).fit(ROWS, y)
    np.testing.assert_allclose(unmarked.score_samples(ROWS), SCORES, rtol=1e-6)


def test_zero_is_a_label_like_any_other():
    y = np.repeat([0, 1], [30, 10])
    with pytest.warns(LabelWarning):
        unmarked = clone(DETECTOR).fit(ROWS, y)
    assert np.array_equal(unmarked.score_samples(ROWS), SCORES)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones(39), "39 labels, but X has 40 rows"),
        (np.full(40, -1), "at least 2 in-distribution rows"),
        (np.r_[1, np.full(39, -1)], "39 of 40"),
        (np.r_[np.nan, np.ones(39)], "NaN, first in row 0"),
        (np.array([1, None] * 20, dtype=object), "NaN, first in row 1"),
        (pd.Series(["a", None] * 20, dtype="string"), "NaN, first in row 1"),
        (np.ones((40, 2)), "1d array"),
    ],
)
def test_bad_y(y, message):
    with pytest.raises(ValueError, match=message):
        clone(DETECTOR).fit(ROWS, y)


def test_fit_predict_keeps_y():
    y = np.repeat([1, -1], [30, 10])
    assert np.array_equal(clone(DETECTOR).fit_predict(ROWS, y), clone(DETECTOR).fit(ROWS, y).predict(ROWS))


def test_fit_on_inliers_in_a_pipeline():
    """Auxiliary outliers far away must not decide what the detector sees."""
    y = np.repeat([1, -1], [30, 10])
    X = np.where((y == -1)[:, None], 1000.0, ROWS)
    pipeline = make_pipeline(FitOnInliers(StandardScaler()), clone(DETECTOR)).fit(X, y)
    scores = pipeline.score_samples(ROWS)
    np.testing.assert_allclose(scores, clone(DETECTOR).fit(ROWS[:30]).score_samples(ROWS), rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------------------------------- threshold and parameters


@pytest.mark.parametrize("contamination", [0.05, 0.25, 0.5])
def test_contamination_is_the_share_of_training_rows_called_outliers(contamination):
    X = np.random.default_rng(1).normal(size=(200, 3))
    model = clone(DETECTOR).set_params(contamination=contamination).fit(X)
    assert (model.predict(X) == -1).mean() == contamination


def test_contamination_is_of_in_distribution_rows():
    X = np.random.default_rng(1).normal(size=(200, 3))
    y = np.repeat([1, -1], [100, 100])
    model = clone(DETECTOR).set_params(contamination=0.1).fit(X, y)
    assert (model.predict(X[:100]) == -1).sum() == 10


def test_the_free_threshold_is_a_quantile_of_displaced_inliers():
    """Step by step: the inliers alone, too few to hold some out, whitened once, displaced, and scored by the module."""
    y = np.repeat([1, -1], [5, 35])
    model = clone(DETECTOR).fit(ROWS, y)
    rng = np.random.RandomState(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    rng.permutation(5)  # the choice among more than a thousand rows
    displaced = displace(Whitener().fit_transform(ROWS[:5]), rng)
    with torch.no_grad():
        scores = np.sort(-copy.deepcopy(model.module_).double()(torch.from_numpy(displaced)).mean(1).numpy())
    # The 10 % quantile lies between the first two.
    assert model.offset_ == pytest.approx((scores[0] + scores[1]) / 2)


# Networks and trainings with which the threshold of the copies alone calls such rows outliers.
@pytest.mark.parametrize(
    "detector",
    [
        DUMDetector(hidden_sizes=(16,), max_epochs=5),
        NegSampleVAE(max_epochs=15),
        RejectClassDetector(hidden_sizes=(16,), max_epochs=5),
        RotationAuxClassifier(hidden_sizes=(16,), max_epochs=5),
    ],
    ids=["dum", "vae", "reject", "rotation"],
)
def test_rows_like_those_of_the_fit_are_inliers(detector):
    """Whatever the scale on which copies score rows that they were fitted without, but know from other rows."""
    few = np.repeat(np.random.default_rng(0).normal(size=(4, 4)), 20, axis=0)
    for rows in (np.ones((60, 4)), few):
        for seed in range(2):
            model = clone(detector).set_params(random_state=seed).fit(rows)
            assert (model.predict(rows) == 1).all()


@pytest.mark.slow
def test_auto_threshold_spares_new_inliers_where_rows_are_few():
    """Wine: 65 rows, 13 features; a quantile of the training rows' scores accuses nearly all others."""
    X, y = load("wine")
    false_alarms = []
    for seed in range(3):
        train, test = split(y, "novelty", seed)
        model = DUMDetector(hidden_sizes=(64, 64), max_epochs=300, random_state=seed, device="cpu").fit(X[train])
        false_alarms.append((model.predict(X[test][y[test] == 1]) == -1).mean())
        assert (model.predict(1000 * X[test]) == -1).all()
    assert np.mean(false_alarms) < 0.1


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"contamination": 0.6}, "contamination"),
        ({"contamination": -0.1}, "contamination"),
        ({"contamination": "natural"}, "contamination='natural'"),
        ({"lr": -1.0}, "lr"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"optimizer": "adamm"}, "optimizer"),
        ({"precision": "float16"}, "precision"),
        ({"device": "gpu"}, "device"),
        ({"device": "cuda:99"}, "device"),
        ({"random_state": "x"}, "random_state"),
        ({"callbacks": "x"}, "callbacks"),
    ],
)
def test_bad_parameters_are_named(params, name):
    with pytest.raises(ValueError, match=name):
        clone(DETECTOR).set_params(**params).fit(ROWS)


def test_methods_before_fit():
    for method in ("predict", "score_samples", "decision_function", "explain", "uncertainty"):
        with pytest.raises(NotFittedError):
            getattr(clone(DETECTOR), method)(ROWS)


# ----------------------------------------------------------------------------------------- training seen from outside


def test_history():
    assert [row["epoch"] for row in FITTED.history_] == [1, 2]
    assert np.isfinite(FITTED.history_[:, "train_loss"]).all()


def test_early_stopping():
    callbacks = [
        EarlyStopping(monitor="train_loss", patience=2, threshold=1e9, threshold_mode="abs", sink=lambda _: None)
    ]
    model = clone(DETECTOR).set_params(max_epochs=50, callbacks=callbacks).fit(ROWS)
    assert len(model.history_) < 10


def test_progress_bar(capsys):
    clone(DETECTOR).set_params(verbose=1).fit(ROWS)
    shown = capsys.readouterr().err
    assert "DUMDetector: 100%" in shown
    assert "loss=" in shown
    clone(DETECTOR).fit(ROWS)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_failed_refit_leaves_no_half_of_the_old_model():
    model = clone(DETECTOR).fit(ROWS)
    with pytest.raises(ValueError, match="Training diverged"):
        model.set_params(network=_Broken).fit(100 * ROWS + 5)
    with pytest.raises(NotFittedError):
        model.predict(ROWS)
    model = clone(DETECTOR).set_params(network=_BrokenLater)
    with pytest.raises(ValueError, match="no finite score"):
        model.fit(ROWS)
    with pytest.raises(NotFittedError):
        model.score_samples(ROWS)


class _Broken(torch.nn.Linear):
    """Gives NaN in the mode it is told to break in."""

    breaks_in_training = True

    def forward(self, x):
        rows = super().forward(x)
        # The estimator tries out a network on two rows of zeros.
        return rows * torch.nan if self.training == self.breaks_in_training and x.any() else rows


class _BrokenLater(_Broken):
    breaks_in_training = False


def test_a_loss_that_is_not_finite_raises():
    with pytest.raises(ValueError, match=r"Training diverged.*nan after epoch 1.*Lower lr \(now 0.003\)"):
        clone(DETECTOR).set_params(network=_Broken).fit(ROWS)


def test_scores_that_are_not_finite_raise():
    model = clone(DETECTOR).set_params(network=_BrokenLater)
    with pytest.raises(ValueError, match="40 of 40 training rows have no finite score"):
        model.fit(ROWS)
    assert not hasattr(model, "offset_")


class _Constant(torch.nn.Module):
    def forward(self, x):
        return torch.ones_like(x)


def test_a_network_that_makes_the_same_of_all_rows_is_warned_of():
    model = ResidualAdapterDetector(_Constant(), adaptation="frozen", contamination=0)
    with pytest.warns(RuntimeWarning, match="all rows have the same score"):
        model.fit(ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # There it is no fault of the network.
        clone(DETECTOR).fit(np.ones((8, 3)))


class _SlowAtEpochEnd(Callback):
    """A real Ctrl-C that arrives while a callback runs."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            signal.raise_signal(signal.SIGINT)


def test_interrupted_in_a_callback():
    handler = signal.getsignal(signal.SIGINT)
    model = clone(DETECTOR).set_params(max_epochs=50, callbacks=[_SlowAtEpochEnd()])
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match="after 2 epochs"):
        model.fit(ROWS)
    check_usable(model, ROWS)
    assert signal.getsignal(signal.SIGINT) is handler


def test_checkpoints(tmp_path):
    """skorch's callbacks that save and load the net; the best epoch is the one that scores."""
    callbacks = [Checkpoint(monitor="train_loss_best", dirname=tmp_path, load_best=True), ProbeCallback()]
    model = clone(DETECTOR).set_params(max_epochs=8, callbacks=callbacks).fit(ROWS)
    assert (tmp_path / "params.pt").exists()
    best = int(np.argmin(model.history_[:, "train_loss"]))
    probe = model.callbacks_[1]
    assert torch.equal(next(model.module_.parameters()), probe.weights[best])
    assert callbacks[1].weights == []
    assert not hasattr(pickle.loads(pickle.dumps(model)), "callbacks_")


class ProbeCallback(Callback):
    def __init__(self):
        self.weights = []

    def on_epoch_end(self, net, **kwargs):
        self.weights.append(next(net.module_.parameters()).detach().clone())


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (EarlyStopping(), "EarlyStopping monitors 'valid_loss'.*train_loss"),
        (("stop", EarlyStopping()), "EarlyStopping monitors 'valid_loss'"),
        (LRScheduler(), "LRScheduler would be overruled by schedule='one-cycle'"),
    ],
)
def test_callbacks_that_cannot_work(callback, message):
    with pytest.raises(ValueError, match=message):
        clone(DETECTOR).set_params(callbacks=[callback]).fit(ROWS)


def test_learning_rate_scheduler_with_a_constant_schedule():
    scheduler = LRScheduler("StepLR", step_size=1, gamma=0.5)
    model = clone(DETECTOR).set_params(callbacks=[scheduler], schedule="constant", max_epochs=3).fit(ROWS)
    assert model.history_[:, "event_lr"] == pytest.approx([0.003, 0.0015, 0.00075])


class _Interrupting(torch.nn.Linear):
    """Sends the process the signal of Ctrl-C in the middle of a training step."""

    steps_left = 0

    def forward(self, x):
        if self.training:
            type(self).steps_left -= 1
            if self.steps_left == 0:
                signal.raise_signal(signal.SIGINT)
        return super().forward(x)


def test_interrupted_fit_leaves_a_fitted_detector():
    model = clone(DETECTOR).set_params(max_epochs=50, batch_size=40, network=_Interrupting)
    _Interrupting.steps_left = 4
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match="after 3 epochs"):
        model.fit(ROWS)
    assert len(model.history_) == 3
    check_usable(model, ROWS)
    check_usable(pickle.loads(pickle.dumps(model)), ROWS)


def test_interrupted_before_the_end_of_the_first_epoch():
    model = clone(DETECTOR).set_params(batch_size=40, network=_Interrupting)
    _Interrupting.steps_left = 1
    with pytest.raises(KeyboardInterrupt):
        model.fit(ROWS)
    assert not hasattr(model, "offset_")


class Untrained(OutlierDetector):
    """Takes what it builds as it is: with no phases, or with phases of no epochs."""

    def __init__(self, phases=(), interrupts=False, max_epochs=1, verbose=0):
        self.phases = phases
        self.interrupts = interrupts
        self.max_epochs = max_epochs
        self.verbose = verbose
        self.batch_size, self.lr, self.optimizer, self.device, self.precision = 8, 0.1, "sgd", "cpu", "float32"
        self.contamination, self.image_shape, self.outlier_label = 0.1, None, -1
        self.callbacks, self.random_state = [ProbeCallback()], 0

    def _build_module(self, data):
        self._running.interrupted = self.interrupts
        return torch.nn.Sequential(torch.nn.Linear(data.resident.shape[1], 4), torch.nn.BatchNorm1d(4))

    def _phases(self, n_rows):
        from skood.training.phases import Phase, Step

        return super()._phases(n_rows) if self.phases is None else [Phase([Step(self._loss)], n) for n in self.phases]

    def _loss(self, module, rows):
        return module(rows).square().mean()

    def _raw_score(self, module, rows):
        return -module(rows).square().sum(1)


@pytest.mark.parametrize("phases", [(), (0,), (0, 0)])
def test_a_detector_may_train_nothing(phases):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Untrained(phases, verbose=1).fit(ROWS)
    assert list(model.history_) == []
    assert not model.module_.training
    assert model.module_[1].num_batches_tracked == 0
    for copied in (model, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        check_usable(copied, ROWS)
        assert np.array_equal(copied.score_samples(ROWS), model.score_samples(ROWS))


def test_interrupted_while_the_module_was_built():
    """Then it is not trained any more, and fitted with what there is."""
    model = Untrained(None, interrupts=True)
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match="before its first epoch; the estimator"):
        model.fit(ROWS)
    assert list(model.history_) == []
    check_usable(model, ROWS)
    check_usable(pickle.loads(pickle.dumps(model)), ROWS)
    assert len(model.set_params(interrupts=False).fit(ROWS).history_) == 1
    assert len(model.callbacks_[0].weights) == 1


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_usable(clone(DETECTOR).fit(ROWS), ROWS)
