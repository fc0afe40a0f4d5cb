"""The labels that detectors get: those that the user gave, or numbers where these cannot be."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from skood import BackboneClassifier, OODScorer, RejectClassDetector, compare_detectors
from skood.compare import NearestNeighborsDetector, OODPair
from skood.metrics import auroc
from skood.model_selection import DropOutliers

SEEDS = [0, 1, 2]
ORDINALS = np.repeat([2, 0, 1], [8, 12, 10])
NAMES = {
    "numbers": [4, 0, 7],
    "text": ["b", "a", "c"],
    "zero and one": [1, 0, 1],
    "booleans": [True, False, True],
    "numbers as text": ["10", "9", "1"],
    "numbers and text": ["b", 5, 2],
    "fractions": [0.5, 2.5, 1.5],
    "bytes": np.array([200, 3, 1], dtype=np.uint8),
}


class Labelled(NearestNeighborsDetector):
    """Remembers rows, which are images of one pixel, their number, and labels."""

    seen = []

    def __init__(self, n_neighbors=5, image_shape=None, outlier_label=-1):
        super().__init__(n_neighbors)
        self.image_shape, self.outlier_label = image_shape, outlier_label

    def fit(self, X, y=None):
        type(self).seen.append((X.ravel().astype(int), y))
        return super().fit(X.reshape(len(X), -1))

    def score_samples(self, X):
        return super().score_samples(X.reshape(len(X), -1))

    def predict_class(self, X): ...


@pytest.fixture(autouse=True)
def _forget():
    Labelled.seen = []


def images(n):
    return np.arange(n, dtype=float).reshape(-1, 1, 1, 1)


def under(protocol, y, auxiliary=None):
    """Return data of one pixel an image, with these classes."""
    if protocol == "ood-pair":
        return OODPair(images(len(y)), {"far": 100 + images(9)}, y=y, auxiliary=auxiliary)
    return images(len(y)), y


@pytest.mark.parametrize("protocol", ["holdout-class", "ood-pair"])
@pytest.mark.parametrize("names", [[4, 0, 7], ["b", "a", "c"], [0.0, 2.0, 1.0]])
def test_detectors_get_the_labels_of_the_user(protocol, names):
    y = np.array(names)[ORDINALS]
    results = compare_detectors({"d": Labelled()}, {"x": under(protocol, y)}, protocol=protocol, seeds=SEEDS)
    assert (results["error"] == "").all()
    assert len(Labelled.seen) == len(results)
    for rows, labels in Labelled.seen:
        np.testing.assert_array_equal(labels, y[rows])


@pytest.mark.parametrize("protocol", ["holdout-class", "ood-pair"])
@pytest.mark.parametrize(
    ("names", "marker", "numbers"),
    [
        ([4, 0, 7], 0, [2, 1, 3]),
        ([4, 0, 7], [7, -1], [9, 8, 10]),
        (["b", 5, 2], -1, [3, 2, 1]),
        (["b", "a", "c"], "a", [2, 1, 3]),
    ],
)
def test_classes_that_cannot_stand_beside_the_marker_are_numbered_in_order(protocol, names, marker, numbers):
    """Whatever the seed, and whichever class is held out."""
    y = np.array(names, dtype=object)[ORDINALS]
    detectors = {"d": Labelled(outlier_label=marker)}
    compare_detectors(detectors, {"x": under(protocol, y)}, protocol=protocol, seeds=SEEDS)
    for rows, labels in Labelled.seen:
        np.testing.assert_array_equal(labels, np.array(numbers)[ORDINALS[rows]])


@pytest.mark.parametrize("marker", [-1, 0, "a", "1", True, False, [0.5, 7]], ids=repr)
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_any_labels_can_stand_beside_any_marker(names, marker):
    y = np.array(names, dtype=getattr(names, "dtype", object))[ORDINALS]
    X = np.random.default_rng(0).normal(size=(len(y), 2))
    data = {"x": OODPair(X, {"far": X[:9] + 4}, y=y, auxiliary=X[:6] - 4)}
    detector = RejectClassDetector(
        max_epochs=1, class_epochs=1, hidden_sizes=(2,), contamination=0, outlier_label=marker
    )
    results = compare_detectors({"d": detector, "dropped": DropOutliers(detector)}, data, protocol="ood-pair", seeds=1)
    assert results["error"].tolist() == ["", ""]


class Right(RejectClassDetector):
    """Remembers the share of training rows that get their label."""

    shares = []

    def fit(self, X, y=None):
        super().fit(X, y)
        type(self).shares.append(np.mean(np.asarray(y) == self.predict_class(X)))
        return self


def test_outputs_of_a_trained_network_keep_their_classes():
    X, y = load_digits(return_X_y=True)
    X = StandardScaler().fit_transform(X).astype(np.float32)
    known = y < 5
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(torch.tensor(X[known])), torch.tensor(y[known])).backward()
        optimizer.step()
    data = {"digits": OODPair(X[known], {"8": X[y == 8]}, y=y[known])}
    Right.shares = []
    compare_detectors({"d": Right(classifier=network, max_epochs=1, contamination=0)}, data, protocol="ood-pair")
    assert len(Right.shares) == 3
    assert min(Right.shares) > 0.9


def test_a_frozen_classifier_is_given_its_own_labels():
    X, y = load_digits(return_X_y=True)
    X, known = (X.reshape(-1, 1, 8, 8) / 16).astype(np.float32), y < 3
    classifier = BackboneClassifier(max_epochs=1, network="wrn-10-1", random_state=0).fit(X[known], y[known])
    detector = RejectClassDetector(classifier=FrozenEstimator(classifier), max_epochs=1, contamination=0)
    data = {"digits": OODPair(X[known], {"8": X[y == 8]}, y=y[known])}
    results = compare_detectors({"d": detector}, data, protocol="ood-pair", seeds=1)
    assert results["error"].tolist() == [""]


@pytest.mark.parametrize("names", [[0, 1, 2], ["d0", "d1", "d2"]])
def test_a_score_around_a_trained_classifier_is_that_of_the_labels(names):
    X, y = load_digits(return_X_y=True)
    known, labels = y < 3, np.array(names)[np.minimum(y, 2)]
    X = StandardScaler().fit_transform(X)
    classifier = LogisticRegression(max_iter=300).fit(X[known], labels[known])
    made = OODScorer(classifier, method="mahalanobis", contamination=0)
    data = {"digits": OODPair(X[known], {"8": X[y == 8]}, y=labels[known])}
    [found] = compare_detectors({"d": made}, data, protocol="ood-pair", seeds=1)["auroc"]
    inliers = np.random.RandomState(0).permutation(np.flatnonzero(known))
    train, test = inliers[: len(inliers) // 2], np.concatenate([inliers[len(inliers) // 2 :], np.flatnonzero(y == 8)])
    scaler = StandardScaler().fit(X[train])
    scores = made.fit(scaler.transform(X[train]), labels[train]).score_samples(scaler.transform(X[test]))
    assert found == pytest.approx(auroc(np.where(y[test] == 8, -1, 1), scores), abs=1e-12)
