"""A scorer that learns from rows that come in parts."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
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
