"""A scorer that learns from rows that come in parts."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from skood import BackboneClassifier, OODScorer
from skood.scores import METHODS

rng = np.random.default_rng(0)
X = rng.normal(size=(90, 4)).astype(np.float32)
Y = np.repeat([0, 1, 2], 30)
X += Y[:, None]
ORDER = rng.permutation(90)
X, Y = X[ORDER], Y[ORDER]
NETWORK = BackboneClassifier(hidden_sizes=(8,), max_epochs=5, random_state=0, device="cpu").fit(X, Y)
POSSIBLE = [name for name in METHODS if name not in ("rotation",)]


@pytest.mark.parametrize("contamination", ["auto", 0.1])
@pytest.mark.parametrize("method", POSSIBLE)
def test_parts_are_the_whole(method, contamination):
    whole = OODScorer(NETWORK, method, contamination=contamination).fit(X, Y)
    parts = clone(whole)
    for part in np.array_split(np.arange(90), 3):
        parts.partial_fit(X[part], Y[part])
    np.testing.assert_array_equal(parts.score_samples(X), whole.score_samples(X))
    np.testing.assert_allclose(parts.training_scores_, whole.training_scores_, rtol=1e-5, atol=1e-6)
    assert parts.offset_ == pytest.approx(whole.offset_, rel=1e-5, abs=1e-6)
    again = pickle.loads(pickle.dumps(parts)).partial_fit(X[:20], Y[:20])
    assert len(again.training_scores_) == 110


def test_without_labels_and_with_outliers():
    y = np.where(np.arange(90) % 9 == 0, -1, 1)
    whole = OODScorer(NETWORK, "mahalanobis").fit(X, y)
    parts = clone(whole).partial_fit(X[:40], y[:40]).partial_fit(X[40:], y[40:])
    np.testing.assert_array_equal(parts.score_samples(X), whole.score_samples(X))
    assert len(parts.training_scores_) == 80


def test_classifiers_of_scikit_learn():
    for classifier in (LogisticRegression(), GaussianNB()):
        whole = OODScorer(classifier.fit(X, Y), "kl_matching").fit(X, Y)
        parts = clone(whole).partial_fit(X[:50], Y[:50]).partial_fit(X[50:], Y[50:])
        np.testing.assert_array_equal(parts.score_samples(X), whole.score_samples(X))


def test_rows_that_come_class_by_class():
    whole = OODScorer(NETWORK, "relative_mahalanobis").fit(X, Y)
    parts = clone(whole)
    with pytest.warns(RuntimeWarning, match="tells no rows apart yet.*one class.*use 'mahalanobis'"):
        parts.partial_fit(X[Y == 0], Y[Y == 0])
    # A y of ones alone names the class 1, as the other calls name classes.
    parts.partial_fit(X[Y == 1], Y[Y == 1])
    parts.partial_fit(X[Y == 2], Y[Y == 2])
    np.testing.assert_allclose(parts.score_samples(X), whole.score_samples(X), rtol=1e-9)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_fit_or_calibrate_that_fails_leaves_no_mixture():
    classifier, huge = LogisticRegression().fit(X, Y), np.full((90, 4), 1e308)
    scorer = OODScorer(classifier).partial_fit(X[:50])
    before = scorer.temperature_, scorer.offset_
    with pytest.raises(ValueError, match="no finite score"):
        scorer.calibrate(huge, Y)
    assert (scorer.temperature_, scorer.offset_) == before
    assert len(scorer.partial_fit(X[50:]).training_scores_) == 90
    with pytest.raises(ValueError, match="no finite score"):
        scorer.fit(huge)
    with pytest.raises(NotFittedError):
        scorer.predict(X)
    assert scorer.partial_fit(X).offset_ == OODScorer(classifier).fit(X).offset_


def test_what_cannot_go_on():
    scorer = OODScorer(NETWORK, "mahalanobis").fit(X, Y)
    with pytest.warns(UserWarning, match="begins anew, with these rows alone"):
        anew = clone(scorer).fit(X, Y).partial_fit(X[:50], Y[:50])
    np.testing.assert_array_equal(anew.score_samples(X), clone(scorer).fit(X[:50], Y[:50]).score_samples(X))
    parts = clone(scorer).partial_fit(X, Y)
    with pytest.warns(UserWarning, match="begins anew"):
        parts.calibrate(X, Y).partial_fit(X, Y)
    parts = clone(scorer).partial_fit(X, Y)
    with pytest.raises(ValueError, match="method or method_params were changed"):
        parts.set_params(method="knn").partial_fit(X)
    with pytest.raises(ValueError, match="those of earlier calls are gone"):
        OODScorer(NETWORK, "mahalanobis", method_params={"epsilon": 0.1}).partial_fit(X)
    with pytest.raises(ValueError, match="3 features"):
        clone(scorer).partial_fit(X, Y).partial_fit(X[:, :3])


@pytest.mark.filterwarnings("ignore:.*begins anew:UserWarning")
@pytest.mark.parametrize("before", ["new", "fit", "partial_fit"])
def test_a_call_that_fails_changes_nothing(before):
    scorer = OODScorer(NETWORK, "mahalanobis")
    if before != "new":
        getattr(scorer, before)(X[:50], Y[:50])
    offset, threshold = getattr(scorer, "offset_", None), OODScorer(NETWORK, "mahalanobis").fit(X[:50], Y[:50]).offset_
    for wrong, y, why in ((X, Y + 5, "not among the classes"), (X[:, :3], Y, "3 features"), (X, Y[:7], "7 labels")):
        with pytest.raises(ValueError, match=why):
            scorer.partial_fit(wrong, y)
        assert getattr(scorer, "offset_", None) == offset
    if before == "new":
        with pytest.raises(NotFittedError):
            scorer.predict(X)
        scorer.partial_fit(X[:50], Y[:50])
    assert scorer.offset_ == pytest.approx(threshold)
    if before != "fit":
        parts = clone(scorer).partial_fit(X[:50], Y[:50]).partial_fit(X[50:], Y[50:])
        assert scorer.partial_fit(X[50:], Y[50:]).offset_ == parts.offset_


def test_a_method_that_is_not_possible_can_be_exchanged_for_another():
    scorer = OODScorer(LogisticRegression().fit(X, Y), "odin")
    with pytest.raises(ValueError, match="gives no gradient"):
        scorer.partial_fit(X)
    expected = OODScorer(scorer.classifier, "msp").partial_fit(X).offset_
    assert scorer.set_params(method="msp").partial_fit(X).offset_ == expected


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 5.0},
        {"classifier": LogisticRegression(C=1e-3).fit(X, Y)},
        {"classifier": NETWORK.module_, "layer": "0"},
        {"image_shape": (1, 2, 2)},
        {"method_params": {"n_neighbors": 3}},
    ],
    ids=lambda change: "-".join(change),
)
def test_what_must_stay_the_same_between_calls(change):
    scorer = OODScorer(LogisticRegression().fit(X, Y), "knn").partial_fit(X[:50])
    # A classifier is the same one in a copy.
    scorer = pickle.loads(pickle.dumps(scorer)).partial_fit(X[:50])
    kept = scorer.get_params()
    with pytest.raises(ValueError, match=f"{next(iter(change))}.* changed since the first partial_fit"):
        scorer.set_params(**change).partial_fit(X[50:])
    assert len(scorer.set_params(**kept).partial_fit(X[50:]).training_scores_) == 140


def test_options_may_be_arrays():
    def scorer():
        params = {"weights": np.array([1.0, 2.0])}
        return OODScorer(NETWORK, "mahalanobis", layer=["stem", "blocks.0"], method_params=params)

    parts = scorer().partial_fit(X[:50], Y[:50])
    parts.set_params(method_params=scorer().method_params).partial_fit(X[50:], Y[50:])
    np.testing.assert_allclose(parts.score_samples(X), scorer().fit(X, Y).score_samples(X))
