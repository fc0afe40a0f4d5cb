"""Images reach who takes them as they are, whatever stands around; all others get them flattened and standardised."""

import inspect

import numpy as np
import pytest
from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skood
from skood import (
    BackboneClassifier,
    ConformalDetector,
    FitOnInliers,
    FrozenEncoder,
    ThresholdedDetector,
    compare_detectors,
    model_selection,
)
from skood.compare import NearestNeighborsDetector, OODPair
from skood.metrics import auroc
from skood.model_selection import DropOutliers, HideLabels


def mean_score(detector, X, y=None):
    return detector.score_samples(X).mean()


WRAPPERS = {
    "alone": lambda detector: detector,
    "DropOutliers": DropOutliers,
    "HideLabels": HideLabels,
    "ThresholdedDetector": ThresholdedDetector,
    "ConformalDetector": lambda detector: ConformalDetector(detector, alpha=0.2),
    "wrapped twice": lambda detector: DropOutliers(ThresholdedDetector(detector)),
    "wrapped Pipeline": lambda detector: DropOutliers(make_pipeline("passthrough", None, detector)),
    "Pipeline": make_pipeline,
    "search": lambda detector: GridSearchCV(detector, {"n_neighbors": [2]}, scoring=mean_score, cv=KFold(2)),
}


class Seen(NearestNeighborsDetector):
    """Remembers the rows that it is fitted on."""

    seen = []

    def fit(self, X, y=None):
        type(self).seen.append(X)
        self.classes_ = np.array([1])
        return super().fit(X.reshape(len(X), -1))

    def score_samples(self, X):
        return super().score_samples(X.reshape(len(X), -1))

    decision_function = score_samples

    def predict_class(self, X):
        return np.ones(len(X), dtype=int)


class SeenImages(Seen):
    """Takes images."""

    seen = []

    def __init__(self, n_neighbors=5, image_shape=None):
        super().__init__(n_neighbors)
        self.image_shape = image_shape


class Flattened(TransformerMixin, BaseEstimator):
    """Takes images and returns vectors."""

    seen = []

    def __init__(self, image_shape=None):
        self.image_shape = image_shape

    def fit(self, X, y=None):
        type(self).seen.append(X)
        return self

    def transform(self, X):
        return X.reshape(len(X), -1)


def data():
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 3, 3), dtype=np.uint8)
    return images, np.repeat([1, -1], [40, 20])


def compared(detector):
    """Compare a detector on images; return what was seen first by each class."""
    for spy in (Seen, SeenImages, Flattened):
        spy.seen = []
    results = compare_detectors({"d": detector}, {"x": data()}, seeds=1, decisions=False)
    assert results["error"].tolist() == [""]
    return [spy.seen[0] for spy in (Seen, SeenImages, Flattened) if spy.seen]


def test_all_wrappers_are_here():
    public = [getattr(skood, name) for name in skood.__all__] + list(vars(model_selection).values())
    wrappers = {
        kind.__name__
        for kind in public
        if inspect.isclass(kind)
        and issubclass(kind, OutlierMixin)
        and {"estimator", "detector"} & {*inspect.signature(kind.__init__).parameters}
    }
    assert wrappers == {name for name in WRAPPERS if name[0].isupper()} - {"Pipeline"}


@pytest.mark.parametrize("wrapped", WRAPPERS.values(), ids=WRAPPERS)
def test_images_reach_a_detector_of_images_through_what_is_around_it(wrapped):
    [seen] = compared(wrapped(SeenImages()))
    assert seen.shape[1:] == (1, 3, 3)
    assert seen.dtype == np.uint8


@pytest.mark.parametrize("wrapped", WRAPPERS.values(), ids=WRAPPERS)
def test_others_get_vectors(wrapped):
    [seen] = compared(wrapped(Seen()))
    assert seen.shape[1:] == (9,)
    assert abs(seen).max() < 5


@pytest.mark.parametrize("wrapped", [make_pipeline, lambda *steps: DropOutliers(make_pipeline(*steps))])
@pytest.mark.parametrize("first", [Flattened(), FitOnInliers(Flattened())], ids=["encoder", "FitOnInliers"])
def test_the_first_step_decides(first, wrapped):
    vectors, images = compared(wrapped(first, Seen()))
    assert images.shape[1:] == (1, 3, 3)
    np.testing.assert_array_equal(vectors, images.reshape(len(images), -1))


def test_a_scaler_before_a_detector_of_images_gets_vectors():
    [seen] = compared(make_pipeline(StandardScaler(), SeenImages()))
    assert seen.shape[1:] == (9,)


def test_an_encoder_in_a_pipeline_gets_the_pixels_that_it_was_trained_on():
    X, y = load_digits(return_X_y=True)
    X, known = (X.reshape(-1, 1, 8, 8) / 16).astype(np.float32), y < 3
    classifier = BackboneClassifier(max_epochs=1, network="wrn-10-1", random_state=0).fit(X[known], y[known])
    made = make_pipeline(FrozenEncoder(classifier), NearestNeighborsDetector())
    pair = {"digits": OODPair(X[known], {"8": X[y == 8]})}
    [found] = compare_detectors({"d": made}, pair, protocol="ood-pair", seeds=1)["auroc"]
    inliers = np.random.RandomState(0).permutation(np.flatnonzero(known))
    train, test = inliers[: len(inliers) // 2], np.concatenate([inliers[len(inliers) // 2 :], np.flatnonzero(y == 8)])
    assert found == pytest.approx(
        auroc(np.where(y[test] == 8, -1, 1), made.fit(X[train]).score_samples(X[test])), abs=1e-9
    )
