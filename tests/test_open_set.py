import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_outlier_detector
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import FitOnInliers, OpenSetClassifier, RejectClassDetector, ThresholdedDetector
from skood.metrics import answers, aurc, get_scorer
from skood.model_selection import HideLabels

# The boundary that the corpus teaches, which costs no further fits.
DETECTOR = RejectClassDetector(
    hidden_sizes=(32,), class_epochs=5, max_epochs=20, batch_size=32, contamination="natural", random_state=0
)


def data(seed=0):
    """Classes 3 and 7, and outliers (-1) around them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 2)) + np.repeat([[-4, 0], [4, 0]], 100, axis=0)
    angle = rng.uniform(0, 2 * np.pi, 400)
    outliers = rng.uniform(9, 14, size=(400, 1)) * np.column_stack([np.cos(angle), np.sin(angle)])
    return np.vstack([X, outliers]), np.repeat([3, 7, -1], [100, 100, 400])


X, Y = data()
X_TEST, Y_TEST = data(seed=1)


@pytest.fixture(scope="module")
def fitted():
    return OpenSetClassifier(DETECTOR).fit(X, Y)


def test_is_a_classifier_and_no_detector(fitted):
    assert is_classifier(fitted)
    assert not is_outlier_detector(fitted)
    assert fitted.classes_.tolist() == [3, 7]
    assert fitted.n_features_in_ == 2


def test_predicts_a_class_or_the_reject_label(fitted):
    detector = clone(DETECTOR).fit(X, Y)
    rejected = detector.predict(X_TEST) == -1
    predicted = fitted.predict(X_TEST)
    assert np.array_equal(predicted, np.where(rejected, -1, detector.predict_class(X_TEST)))
    assert (predicted == Y_TEST).mean() > 0.95
    assert np.array_equal(fitted.predict_proba(X_TEST), detector.predict_proba(X_TEST))
    assert np.array_equal(fitted.score_samples(X_TEST), detector.score_samples(X_TEST))


def test_one_pass_of_the_network(fitted):
    detector, passes = fitted.detector_, []
    expected = np.where(detector.predict(X_TEST) == 1, detector.predict_class(X_TEST), fitted.reject_label_)
    with detector.module_.register_forward_hook(lambda module, rows, logits: passes.append(len(logits))):
        assert fitted.predict(X_TEST).tolist() == expected.tolist()
        n_passes = len(passes)
        detector.score_samples(X_TEST)
    assert len(passes) == 2 * n_passes


def test_without_rejection(fitted):
    closed = OpenSetClassifier(FrozenEstimator(fitted.detector_), reject=False).fit(X, Y)
    assert set(closed.predict(X_TEST)) == {3, 7}
    assert closed.score(X_TEST, Y_TEST) == pytest.approx(200 / 600, abs=0.01)
    closed.set_params(reject=True)
    assert np.array_equal(closed.predict(X_TEST), fitted.predict(X_TEST))


class Answers:
    """A fitted detector that accepts non-negative rows and whose class is their value, rounded down."""

    def predict(self, X):
        return np.where(X[:, 0] < 0, -1, 1)

    def predict_class(self, X):
        return np.abs(X[:, 0]).astype(int)


def test_open_set_accuracy_by_hand():
    classifier = OpenSetClassifier(DETECTOR)
    classifier.detector_, classifier.classes_, classifier.reject_label_ = Answers(), np.array([0, 1]), -1
    rows = np.array([[0.0], [1.0], [-1.0], [1.0], [-1.0], [0.0]])
    # Right; wrong class; rightly rejected; unknown class 5 accepted; unknown class 5 rejected; outlier accepted.
    y = [0, 0, -1, 5, 5, -1]
    assert classifier.predict(rows).tolist() == [0, 1, -1, 1, -1, 0]
    assert classifier.score(rows, y) == pytest.approx(3 / 6)
    assert classifier.score(rows, y, sample_weight=[1, 0, 0, 0, 0, 1]) == pytest.approx(1 / 2)
    classifier.reject = False
    assert classifier.score(rows, y) == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("outlier_label", "reject_label", "expected"),
    [
        (-1, None, -1),
        (-1, "unknown", "unknown"),
        ("corpus", None, "corpus"),
        ("corpus", "a long label", "a long label"),
    ],
)
def test_labels_of_text(outlier_label, reject_label, expected):
    names = np.array(["left", "right", outlier_label], dtype=object)[np.searchsorted([3, 7], Y, side="left") * (Y > 0)]
    names[Y == -1] = outlier_label
    detector = clone(DETECTOR).set_params(outlier_label=outlier_label)
    classifier = OpenSetClassifier(detector, reject_label=reject_label).fit(X, names)
    predicted = classifier.predict(X_TEST)
    assert set(predicted.tolist()) == {"left", "right", expected}
    assert predicted.dtype.kind == ("U" if isinstance(expected, str) else "O")
    assert classifier.score(X, names) > 0.95


def test_searches_and_validation():
    X_all, y_all = np.vstack([X, X_TEST]), np.concatenate([Y, Y_TEST])
    scores = cross_val_score(OpenSetClassifier(DETECTOR), X_all, y_all, cv=3)
    assert scores.min() > 0.9
    # With the reject label in y, scikit-learn's own accuracy is the same.
    assert cross_val_score(OpenSetClassifier(DETECTOR), X_all, y_all, cv=3, scoring="accuracy") == pytest.approx(scores)
    grid = {"detector__lr": [1e-6, 0.01], "reject": [True]}
    search = GridSearchCV(OpenSetClassifier(DETECTOR), grid, cv=3).fit(X_all, y_all)
    assert search.best_params_["detector__lr"] == 0.01
    assert search.score(X_TEST, Y_TEST) > 0.95


def test_around_a_pipeline_and_within_one():
    around = OpenSetClassifier(make_pipeline(FitOnInliers(StandardScaler()), DETECTOR)).fit(X, Y)
    within = make_pipeline(FitOnInliers(StandardScaler()), OpenSetClassifier(DETECTOR)).fit(X, Y)
    assert np.array_equal(around.predict(X_TEST), within.predict(X_TEST))
    assert within.score(X_TEST, Y_TEST) > 0.95
    np.testing.assert_allclose(around.predict_proba(X_TEST), within.predict_proba(X_TEST))


def test_as_sure_as_its_detector(fitted):
    prediction, score, threshold = answers(fitted, X_TEST, Y_TEST)
    assert np.array_equal(score, fitted.detector_.decision_function(X_TEST))
    assert threshold == 0
    assert get_scorer("aurc")(fitted, X_TEST, Y_TEST) == -aurc(Y_TEST, prediction, score)
    piped = make_pipeline(StandardScaler(), OpenSetClassifier(DETECTOR)).fit(X, Y)
    for estimator in (piped, FrozenEstimator(piped)):
        prediction, score, threshold = answers(estimator, X_TEST, Y_TEST)
        assert np.array_equal(score, piped[-1].detector_.decision_function(piped[0].transform(X_TEST)))
        assert threshold == 0


@pytest.mark.parametrize("wrap", [ThresholdedDetector, HideLabels])
def test_wrapped_detectors_keep_their_classes(wrap, fitted):
    wrapped = wrap(clone(DETECTOR).set_params(outliers="uniform")).fit(X[:200], Y[:200])
    inner = wrapped.estimator_
    assert np.array_equal(wrapped.classes_, inner.classes_)
    assert np.array_equal(wrapped.predict_proba(X), inner.predict_proba(X))
    assert np.array_equal(wrapped.predict_class(X), inner.predict_class(X))
    assert not hasattr(wrap(IsolationForest()).fit(X), "classes_")
    assert not hasattr(wrap(IsolationForest()).fit(X), "predict_proba")
    around = OpenSetClassifier(ThresholdedDetector(DETECTOR, target_fpr=0.05)).fit(X, Y)
    assert around.score(X_TEST, Y_TEST) > 0.9
    assert around.predict_proba(X_TEST).shape == (600, 2)


def test_a_frozen_detector_of_other_classes(fitted):
    with pytest.raises(ValueError, match="y holds none of the classes"):
        OpenSetClassifier(FrozenEstimator(fitted.detector_)).fit(X, np.where(Y > 0, Y + 10, -1))


def test_classes_that_are_true_and_false():
    y = np.array([False, True, -1], dtype=object)[np.searchsorted([3, 7], Y) * (Y > 0) + 2 * (Y < 0)]
    predicted = OpenSetClassifier(DETECTOR).fit(X, y).predict(X)
    assert {str(label) for label in predicted} == {"False", "True", "-1"}


def test_sample_weight_of_another_length(fitted):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.score(X, Y, sample_weight=[1.0])


@pytest.mark.parametrize(
    ("classifier", "y", "message"),
    [
        (OpenSetClassifier(DETECTOR), None, "requires y to be passed"),
        (OpenSetClassifier(IsolationForest()), Y, "detector=IsolationForest has no classes"),
        (OpenSetClassifier(DETECTOR, reject_label=7), Y, "reject_label=7 is one of the classes"),
        (OpenSetClassifier(DETECTOR, reject_label=()), Y, "must be a number or a text"),
        (OpenSetClassifier(DETECTOR, reject_label=np.nan), Y, "must be a number or a text"),
        (OpenSetClassifier(DETECTOR, reject="no"), Y, "reject='no' must be True or False"),
    ],
)
def test_what_will_not_do(classifier, y, message):
    with pytest.raises(ValueError, match=message):
        classifier.fit(X, y)
