"""The detector that the documents write passes all of scikit-learn's checks, and leaves the caller's rows alone."""

import contextlib
import doctest
from pathlib import Path
from unittest import SkipTest

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import estimator_checks_generator

from skood.estimator import OutlierDetector

PAGE = Path(__file__).parents[2] / "docs" / "your_own_detector.rst"


@pytest.fixture(scope="module")
def autoencoder():
    """The class of the page."""
    if not PAGE.exists():
        pytest.skip("the documents come with the repository alone")
    names = {"__name__": __name__}
    for example in doctest.DocTestParser().get_examples(PAGE.read_text(encoding="utf-8"))[:3]:
        exec(compile(example.source, str(PAGE), "exec"), names)
    # Pickles look a class up in its module.
    globals()["Autoencoder"] = names["Autoencoder"]
    return names["Autoencoder"]


@pytest.mark.filterwarnings("ignore::skood.LabelWarning")
def test_it_passes_every_check_of_scikit_learn(autoencoder):
    checks = list(estimator_checks_generator(autoencoder(max_epochs=2, random_state=0)))
    assert len(checks) > 40
    for estimator, check in checks:
        # The array API is for estimators that say they support it.
        with contextlib.suppress(SkipTest):
            check(estimator)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_module_that_works_in_place_does_not_change_the_rows(autoencoder, dtype):
    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 3)

        def forward(self, rows):
            return self.linear(rows.mul_(0.5))

    class Careless(autoencoder):
        def _build_module(self, data):
            return InPlace()

        def _loss(self, module, rows):
            return module(rows).square().mean()

        def _raw_score(self, module, rows):
            return -module(rows).square().mean(1)

    X = np.random.default_rng(0).normal(size=(40, 3)).astype(dtype)
    before = X.copy()
    detector = Careless(max_epochs=2, random_state=0).fit(X)
    assert np.array_equal(X, before)
    scores = detector.score_samples(X)
    assert np.array_equal(X, before)
    assert np.array_equal(detector.score_samples(X), scores)


def test_a_constructor_without_what_fit_reads_is_refused_by_name():
    class Short(OutlierDetector):
        def __init__(self, max_epochs=1, lr=0.1):
            self.max_epochs = max_epochs
            self.lr = lr

        def _build_module(self, data):
            return torch.nn.Linear(2, 1)

        def _loss(self, module, rows):
            return module(rows).mean()

    with pytest.raises(
        TypeError, match=r"Short lacks image_shape, contamination, outlier_label, batch_size, optimizer"
    ):
        Short().fit([[0.0, 1.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("hook", "returned", "message"),
    [
        ("_raw_score", lambda rows: -rows.mean(1, keepdim=True), r"_raw_score must return one number.*shape \(n, 1\)"),
        ("_raw_score", lambda rows: rows, r"_raw_score must return one number for each of n rows.*shape \(n, 3\)"),
        ("_raw_score", lambda rows: rows.mean(), r"_raw_score must return a tensor with an entry .* it returned \(\)"),
        ("_raw_score", lambda rows: rows[:1, 0], r"_raw_score must return a tensor .* of \d+ rows; it returned \(1,\)"),
        ("_raw_score", lambda rows: rows.numpy(), "_raw_score must return a tensor .* it returned a ndarray"),
        ("_loss", lambda rows: rows.mean(1), r"_loss must return one number .* a tensor of shape \(\d+,\)"),
        ("_loss", lambda rows: (rows.mean(),), "_loss must return one number .* returned a tuple"),
        ("_loss", lambda rows: 0.5, "_loss must return one number .* returned a float"),
        ("_build_module", lambda rows: None, "_build_module must return a torch.nn.Module; it returned a NoneType"),
    ],
)
def test_what_a_hook_must_return_is_said_by_its_name(autoencoder, hook, returned, message):
    def careless(self, *args):
        return returned(args[-1])

    careless.__qualname__ = f"Careless.{hook}"
    Careless = type("Careless", (autoencoder,), {hook: careless})
    with pytest.raises(ValueError, match=f"^Careless.{message}"):
        Careless(max_epochs=1, contamination=0).fit(np.random.default_rng(0).normal(size=(40, 3)))


def test_a_loss_that_takes_what_no_hook_gives_is_told_which_one_would(autoencoder):
    class Labelled(autoencoder):
        def _loss(self, module, rows, labels):
            return super()._loss(module, rows)

    class Unlabelled(autoencoder):
        def _encode_labels(self, y, n_inliers):
            return np.arange(n_inliers) % 2

    class Outliers(autoencoder):
        def _loss(self, module, rows, auxiliary):
            return super()._loss(module, rows)

    X = np.random.default_rng(0).normal(size=(40, 3))
    hooks = "Batches have labels if _encode_labels returns .* if _auxiliary_rows_train is True"
    for detector, message in (
        (Labelled, "module, rows, and does not take that: missing a required argument: 'labels'"),
        (Outliers, "module, rows, and does not take that: missing a required argument: 'auxiliary'"),
        (Unlabelled, "module, rows, labels, and does not take that: got an unexpected keyword argument 'labels'"),
    ):
        with pytest.raises(ValueError, match=rf"_loss is called with {message}\. {hooks}"):
            detector(max_epochs=1, contamination=0).fit(X)


def test_a_loss_without_gradients_is_named(autoencoder):
    class Detached(autoencoder):
        def _loss(self, module, rows):
            return super()._loss(module, rows).detach()

    with pytest.raises(
        ValueError, match=r"Detached\._loss returned a loss that depends on no parameter .* item or num"
    ):
        Detached(max_epochs=1, contamination=0).fit(np.random.default_rng(0).normal(size=(40, 3)))


def test_a_detector_that_learns_from_outliers_asks_for_some(autoencoder):
    class Learning(autoencoder):
        _auxiliary_rows_train = True

        def _loss(self, module, rows, auxiliary):
            return super()._loss(module, rows) - 0.01 * super()._loss(module, auxiliary)

    X = np.random.default_rng(0).normal(size=(40, 3))
    y = np.where(np.arange(40) < 30, 1, -1)
    for given in (None, np.ones(40)):
        with pytest.raises(
            ValueError, match="y marks no auxiliary outliers, which Learning learns from: mark some rows"
        ):
            Learning(max_epochs=1, contamination=0).fit(X, given)
    assert Learning(max_epochs=1, contamination=0).fit(X, y).predict(X).shape == (40,)


def test_hooks_cannot_be_confused_with_the_public_methods():
    for name in ("fit", "score_samples", "decision_function", "predict"):
        assert getattr(OutlierDetector.__dict__.get(name) or getattr(OutlierDetector, name), "__final__", False)
