"""What scikit-learn's checks do not catch; each is a defect seen in a detector somewhere."""

import copy
import io
import math
import pickle
import random
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from configurations import DETECTING, named
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skood import NegSampleVAE, ResidualAdapterDetector
from skood.metrics import auroc

every_detector = pytest.mark.parametrize("detector", **named())


class Batches(Callback):
    """Listens to batches, so that the history has them."""

    def on_batch_end(self, net, **kwargs):
        pass


def line(n=200, seed=0):
    """Rows along a line in three dimensions, and outliers off it with the same marginals."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 1)) @ [[1.0, -1.0, 0.5]] + 0.1 * rng.normal(size=(n, 3))
    outliers = np.column_stack([rng.permutation(column) for column in X.T])
    return X, outliers


@pytest.fixture(scope="module")
def X():
    return line()[0]


def knows_classes(detector):
    return hasattr(type(detector), "predict_class")


def fitted(detector, X, **params):
    return clone(detector).set_params(random_state=0, **params).fit(X)


# Fits on the rows of the fixture that several tests look at and none changes, by configuration and device.
_FITTED = {}


@pytest.fixture
def model(detector, X, device):
    """The detector, fitted to X. Tests that change it, or look at the first use of it, fit one of their own."""
    key = id(detector), device
    if key not in _FITTED:
        _FITTED[key] = fitted(detector, X, device=device)
    return _FITTED[key]


def generator_states():
    numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
    return random.getstate(), numpy_state, torch.get_rng_state().tolist()


@every_detector
def test_training_moves_the_weights_and_lowers_the_loss(detector, X, device):
    trained = fitted(detector, X, max_epochs=20, device=device)
    untrained = fitted(detector, X, max_epochs=1, lr=1e-30, device=device)
    for after, before in zip(trained.module_.parameters(), untrained.module_.parameters(), strict=True):
        # Those of a frozen backbone stay.
        assert torch.equal(after, before) is not after.requires_grad
    losses = [epoch["train_loss"] for epoch in trained.history_ if epoch.get("phase") != "classes"]
    assert np.mean(losses[-5:]) < np.mean(losses[:2])


@pytest.mark.parametrize("detector", **named(DETECTING))
def test_training_beats_the_untrained_net(detector, device):
    X, outliers = line()
    test = np.vstack([line(seed=1)[0], outliers])
    y = np.repeat([1, -1], [len(X), len(outliers)])
    trained = fitted(detector, X, device=device).score_samples(test)
    untrained = fitted(detector, X, max_epochs=1, lr=1e-30, device=device).score_samples(test)
    assert auroc(y, trained) > 0.85
    assert auroc(y, trained) > auroc(y, untrained) + 0.2


def assert_outliers_far_away(model):
    """Wherever far away: a network says anything of places it never saw."""
    directions = np.random.default_rng(0).normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for distance in (30, 1e3, 1e6, 1e15):
        assert (model.predict(distance * directions) == -1).mean() > 0.98
    # That all rows were outliers would be no merit.
    assert (model.predict(line(seed=1)[0]) == 1).mean() > 0.9


@pytest.mark.parametrize("detector", **named(DETECTING))
def test_rows_far_away_are_outliers(detector, X):
    assert_outliers_far_away(fitted(detector, X))


@every_detector
def test_rows_beyond_all_numbers_of_the_network_have_a_score(detector, X):
    """Their squares overflow in single precision once they are scaled."""
    model = fitted(detector, 1e-12 * X, max_epochs=1, contamination=0)
    far = np.vstack([np.full((1, 3), 1e8), -np.full((1, 3), 1e18), 1e-12 * X[:5]])
    scores = model.score_samples(far)
    assert np.isfinite(scores).all()
    assert torch.isfinite(model.to_torch()(torch.tensor(far))).all()


@pytest.mark.parametrize("detector", **named({name: one for name, one in DETECTING.items() if knows_classes(one)}))
def test_rows_far_away_are_outliers_where_there_are_classes(detector, X):
    """Classes bring another score, or other outliers to learn from."""
    classes = np.where(X[:, 0] > 0, "right", "left")
    assert_outliers_far_away(clone(detector).set_params(random_state=0).fit(X, classes))


@pytest.mark.parametrize("detector", **named(DETECTING))
def test_rows_far_away_are_outliers_where_a_corpus_lies_on_one_side(detector, X):
    """A corpus shows one place where inliers are not; of all others it says nothing."""
    corpus = np.random.default_rng(0).normal([4.0, 0.0, 0.0], 0.5, size=(40, 3))
    rows, y = np.vstack([X, corpus]), np.repeat([1, -1], [len(X), len(corpus)])
    assert_outliers_far_away(clone(detector).set_params(random_state=0).fit(rows, y))


@every_detector
def test_frames_as_the_output_of_all_transformers_change_nothing(detector, X):
    settings = {"max_epochs": 1, "contamination": 0}
    scores = fitted(detector, X, **settings).score_samples(X)
    with config_context(transform_output="pandas"):
        model = fitted(detector, X, **settings)
        assert np.array_equal(model.score_samples(X), scores)
        assert np.array_equal(pickle.loads(pickle.dumps(model)).score_samples(X), scores)


@every_detector
def test_scores_are_not_constant(detector, X, model):
    scores = model.score_samples(X)
    assert len(np.unique(scores)) > 0.9 * len(X)


@every_detector
def test_predictions_repeat_bit_for_bit(detector, X, model):
    assert np.array_equal(model.score_samples(X), model.score_samples(X))
    assert np.array_equal(model.predict(X), model.predict(X))


@every_detector
def test_refitting_repeats(detector, X, model, device):
    scores = model.score_samples(X)
    own = fitted(detector, X, device=device)
    assert np.array_equal(own.score_samples(X), scores)
    assert np.array_equal(own.fit(X).score_samples(X), scores)
    assert not np.array_equal(clone(model).set_params(random_state=1).fit(X).score_samples(X), scores)


@every_detector
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_score_is_the_same_to_the_last_bit_anywhere(detector, n_threads, device):
    # They are scored in blocks of 1024, and a few of them in smaller ones.
    X = line(n=2100)[0]
    # Not a multiple of 4: how such products are added up depends on a row's place, unless that is seen to.
    widths = {"hidden_sizes": (10,)} if "hidden_sizes" in detector.get_params() else {}
    model = fitted(detector, X, max_epochs=1, contamination=0, device=device, **widths)
    torch.set_num_threads(n_threads)
    try:
        scores = model.score_samples(X)
        assert np.array_equal(model.score_samples(X[::-1])[::-1], scores)
        assert np.array_equal(model.score_samples(np.asfortranarray(X)), scores)
        for size in (1, 7, 64, 1000):
            some = min(20 * size, len(X))
            parts = [model.score_samples(X[start : min(start + size, some)]) for start in range(0, some, size)]
            assert np.array_equal(np.concatenate(parts), scores[:some])
        assert np.array_equal(model.score_samples(np.repeat(X[:3], 700, axis=0)), np.repeat(scores[:3], 700))
    finally:
        torch.set_num_threads(1)


@every_detector
def test_a_score_is_the_same_in_another_process(detector, X, model):
    scores = joblib.Parallel(2)(
        joblib.delayed(model.score_samples)(X[start : start + 90]) for start in range(0, 200, 90)
    )
    assert np.array_equal(np.concatenate(scores), model.score_samples(X))


@every_detector
def test_torch_module_gives_the_scores(detector, X, model, device):
    module, rows, scores = model.to_torch(), torch.tensor(X, device=device), model.score_samples(X)
    np.testing.assert_allclose(module(rows).cpu(), scores, rtol=1e-4, atol=1e-4)
    # Traced with other rows, and another number of them.
    traced = torch.jit.trace(module, rows[:3] + 1, check_trace=False)
    np.testing.assert_allclose(traced(rows).cpu(), scores, rtol=1e-4, atol=1e-4)
    # At rows of the fit, too, and where all features are 0.
    rows = torch.cat([rows[:5], torch.zeros_like(rows[:1])]).requires_grad_()
    module(rows).sum().backward()
    assert torch.isfinite(rows.grad).all()
    # It is a copy: what becomes of it is none of the detector's business.
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data.zero_()
    assert np.array_equal(model.score_samples(X), scores)


@every_detector
def test_global_generators_are_untouched(detector, X, device):
    before = generator_states()
    cuda = torch.cuda.get_rng_state() if device == "cuda" else None
    model = clone(detector).set_params(random_state=0, device=device)
    model.fit(X)
    model.predict(X)
    assert generator_states() == before
    assert cuda is None or torch.equal(torch.cuda.get_rng_state(), cuda)


@every_detector
def test_global_generators_do_not_matter(detector, X, model, device):
    scores = model.score_samples(X)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    assert np.array_equal(fitted(detector, X, device=device).score_samples(X), scores)


@every_detector
@pytest.mark.parametrize(("n", "batch_size"), [(20, 64), (65, 64), (130, 64), (5, 4)])
def test_every_row_is_trained_on_and_no_batch_has_a_single_row(detector, n, batch_size, X):
    model = fitted(detector, X[:n], batch_size=batch_size, max_epochs=2, callbacks=[Batches()])
    if model.early_stopping:
        n -= max(2, math.ceil(n * model.validation_fraction))
    for sizes in model.history_[:, "batches", :, "train_batch_size"]:
        assert sum(sizes) == n
        assert min(sizes) > 1


@every_detector
def test_constructor_arguments_are_not_modified(detector, X):
    callbacks = [Batches()]
    model = clone(detector).set_params(random_state=0, callbacks=callbacks)
    # Networks among them are equal if their weights are.
    before = joblib.hash(model.get_params())
    model.fit(X)
    assert joblib.hash(model.get_params()) == before
    assert model.callbacks is callbacks


@every_detector
def test_predicting_adds_no_attribute(detector, X):
    model = fitted(detector, X)
    before = set(vars(model))
    model.decision_function(X)
    model.predict(X[:2])
    assert set(vars(model)) == before


@every_detector
@pytest.mark.parametrize("dump", [(pickle.dumps, pickle.loads), (None, copy.deepcopy)], ids=["pickle", "deepcopy"])
def test_copies_score_alike(detector, X, model, dump):
    write, read = dump
    copied = read(write(model) if write else model)
    assert np.array_equal(copied.score_samples(X), model.score_samples(X))
    assert copied.history_ == model.history_


@every_detector
def test_pickle_holds_no_optimiser(detector, model):
    n_bytes = sum(p.numel() * p.element_size() for p in model.module_.parameters())
    # A frozen backbone's structure is there a second time, its weights are not.
    structure = 20_000 if hasattr(model, "backbone_") or getattr(model, "encoder_", None) is not None else 0
    assert len(pickle.dumps(model)) < n_bytes + 40_000 + structure


@every_detector
def test_joblib_file(detector, X, model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    assert np.array_equal(joblib.load(file).score_samples(X), model.score_samples(X))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_detector
def test_detector_fitted_on_cuda_scores_without_it(detector, X, tmp_path):
    model = fitted(detector, X, device="cuda")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "X.npy", X)
    script = (
        "import pickle, numpy as np, torch; assert not torch.cuda.is_available();"
        "model = pickle.load(open('model.pkl', 'rb')); np.save('scores.npy', model.score_samples(np.load('X.npy')))"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        check=True,
        env={**__import__("os").environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), model.score_samples(X), rtol=1e-6)


@every_detector
def test_reordered_or_missing_columns_are_refused(detector, X, model, device):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    of_frame = fitted(detector, frame, device=device)
    assert np.array_equal(of_frame.score_samples(frame), model.score_samples(X))
    with pytest.raises(ValueError, match="feature names"):
        of_frame.score_samples(frame[["b", "a", "c"]])
    with pytest.raises(ValueError, match="feature names"):
        of_frame.score_samples(frame[["a", "b"]])


@every_detector
def test_parallel_fits_give_the_serial_result(detector, X):
    def fit(seed):
        return clone(detector).set_params(random_state=seed, max_epochs=2).fit(X).score_samples(X)

    serial = [fit(seed) for seed in range(4)]
    for backend in ("threading", "loky"):
        state = torch.get_rng_state()
        parallel = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(fit)(seed) for seed in range(4))
        assert torch.equal(torch.get_rng_state(), state)
        np.testing.assert_allclose(parallel, serial, rtol=1e-5)


@every_detector
def test_search_within_a_pipeline(detector):
    inliers, outliers = line(n=60)
    X = np.vstack([inliers, outliers[:10]])
    y = np.repeat([1, -1], [60, 10])
    search = GridSearchCV(
        make_pipeline(StandardScaler(), clone(detector).set_params(random_state=0)),
        {f"{type(detector).__name__.lower()}__lr": [1e-4, 1e-3]},
        scoring="roc_auc",
        cv=[(np.arange(0, 70, 2), np.arange(1, 70, 2))],
        error_score="raise",
    )
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert set(search.predict(X)) <= {-1, 1}


@every_detector
def test_offset_moves_the_threshold_without_refitting(detector, X):
    model = fitted(detector, X, contamination=0.1)
    assert (model.predict(X) == -1).sum() == 20
    model.offset_ = np.sort(model.score_samples(X))[50]
    assert (model.predict(X) == -1).sum() == 50
    assert np.array_equal(model.decision_function(X), model.score_samples(X) - model.offset_)


class InPlace(torch.nn.Module):
    """A network that overwrites the rows it is given."""

    def __init__(self, in_shape, n_outputs):
        super().__init__()
        n_inputs = int(np.prod(in_shape))
        self.hidden, self.head = torch.nn.Linear(n_inputs, 16), torch.nn.Linear(16, n_outputs)

    def forward(self, rows):
        return self.head(self.hidden(rows.mul_(0.5).flatten(1)).relu())


def in_place(detector):
    """Return a clone of a detector with a network that overwrites its rows, and without scaling, which copies."""
    if isinstance(detector, NegSampleVAE):
        params = {"network": (InPlace, "auto")}
    elif isinstance(detector, ResidualAdapterDetector):
        # A given backbone is neither pretrained nor are its rows scaled.
        params = {"backbone": InPlace((3,), 4), "image_shape": None, "pretrain_epochs": "auto"}
    else:
        params = {"network": InPlace}
    if "scaling" in detector.get_params() and not isinstance(detector, ResidualAdapterDetector):
        params["scaling"] = None
    return clone(detector).set_params(random_state=0, **params)


@every_detector
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_that_works_in_place_leaves_x_as_it_is(detector, X, dtype):
    X = X.astype(dtype)
    before = X.copy()
    model = in_place(detector).fit(X)
    assert np.array_equal(X, before)
    scores = model.score_samples(X)
    assert np.array_equal(X, before)
    assert np.array_equal(model.score_samples(X), scores)


@every_detector
def test_weights_of_rows_are_refused_and_none_is_none(detector, X):
    model = clone(detector).set_params(random_state=0, max_epochs=1)
    y = model.fit_predict(X, sample_weight=None)
    assert np.array_equal(y, model.fit(X).predict(X))
    with pytest.raises(ValueError, match="takes no sample_weight in fit; leave it out; to give a row more weight"):
        model.fit(X, sample_weight=np.ones(len(X)))
    with pytest.raises(ValueError, match="takes no colour in fit"):
        model.fit(X, colour="red")
