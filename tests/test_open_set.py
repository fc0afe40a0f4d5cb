import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblib import parallel_config
from sklearn.base import clone, is_classifier, is_outlier_detector
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, IsolationForest, StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
)
from sklearn.multiclass import OneVsRestClassifier
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
    assert fitted.classes_.tolist() == [-1, 3, 7]
    assert fitted.known_classes_.tolist() == [3, 7]
    assert fitted.n_features_in_ == 2


@pytest.mark.parametrize("within", [False, True])
def test_a_frozen_pipeline_predicts_and_explains_as_its_detector(within):
    """Frozen as a whole, or its last step alone."""
    scaler, detector = StandardScaler().fit(X), clone(DETECTOR)
    detector.set_params(max_epochs=1, class_epochs=1).fit(scaler.transform(X), Y)
    steps = make_pipeline(FrozenEstimator(scaler), FrozenEstimator(detector) if within else detector)
    frozen = steps if within else FrozenEstimator(steps)
    classes = detector.predict_class(scaler.transform(X_TEST))
    answered = OpenSetClassifier(frozen).fit(X, Y).predict(X_TEST)
    np.testing.assert_array_equal(answered[answered != -1], classes[answered != -1])
    wrapped = ThresholdedDetector(frozen, target_fpr=0.1).fit(X[:200])
    np.testing.assert_array_equal(wrapped.predict_class(X_TEST), classes)
    np.testing.assert_array_equal(wrapped.explain(X_TEST[:3]), detector.explain(scaler.transform(X_TEST[:3])))


def test_predicts_a_class_or_the_reject_label(fitted):
    detector = clone(DETECTOR).fit(X, Y)
    rejected = detector.predict(X_TEST) == -1
    predicted = fitted.predict(X_TEST)
    assert np.array_equal(predicted, np.where(rejected, -1, detector.predict_class(X_TEST)))
    assert (predicted == Y_TEST).mean() > 0.95
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
    assert closed.classes_.tolist() == [3, 7]
    assert np.array_equal(closed.predict_proba(X_TEST), fitted.detector_.predict_proba(X_TEST))
    assert closed.score(X_TEST, Y_TEST) == pytest.approx(200 / 600, abs=0.01)
    closed.set_params(reject=True)
    assert closed.classes_.tolist() == [-1, 3, 7]
    assert np.array_equal(closed.predict_proba(X_TEST), fitted.predict_proba(X_TEST))
    assert np.array_equal(closed.predict(X_TEST), fitted.predict(X_TEST))


class Answers:
    """A fitted detector that accepts non-negative rows and whose class is their value, rounded down."""

    def decision_function(self, X):
        return X[:, 0]

    def predict_proba(self, X):
        return np.column_stack([1 - X[:, 1], X[:, 1]])

    def predict(self, X):
        return np.where(X[:, 0] < 0, -1, 1)

    def predict_class(self, X):
        return np.abs(X[:, 0]).astype(int)


def test_open_set_accuracy_by_hand():
    classifier = OpenSetClassifier(DETECTOR)
    classifier.detector_, classifier.known_classes_, classifier.reject_label_ = Answers(), np.array([0, 1]), -1
    rows = np.array([[0.0], [1.0], [-1.0], [1.0], [-1.0], [0.0]])
    # Right; wrong class; rightly rejected; unknown class 5 accepted; unknown class 5 rejected; outlier accepted.
    y = [0, 0, -1, 5, 5, -1]
    assert classifier.predict(rows).tolist() == [0, 1, -1, 1, -1, 0]
    assert classifier.score(rows, y) == pytest.approx(3 / 6)
    assert classifier.score(rows, y, sample_weight=[1, 0, 0, 0, 0, 1]) == pytest.approx(1 / 2)
    classifier.reject = False
    assert classifier.score(rows, y) == pytest.approx(1 / 6)


def test_classes_in_text_are_no_unknown_rows():
    """Read from a file, the classes 0 and 1 may be text: each row would count as unknown, and as wrong."""
    classifier, rows = of_answers(-1, 1.0), np.array([[0.0], [1.0], [-1.0]])
    assert classifier.score(rows, [0, 1, -1]) == classifier.score(rows, np.array([0, 1, "new"], dtype=object)) == 1
    with pytest.raises(ValueError, match="y holds '0' and known_classes_ 0: a number never equals a text"):
        classifier.score(rows, ["0", "1", "-1"])
    classifier.known_classes_ = np.array(["0", "1"])
    with pytest.raises(ValueError, match="y holds 0 and known_classes_ '0': a number never equals a text"):
        classifier.score(rows, [0, 1, -1])


def of_answers(label, spread):
    classifier = OpenSetClassifier(DETECTOR)
    classifier.detector_, classifier.known_classes_, classifier.reject_label_ = Answers(), np.array([0, 1]), label
    classifier.score_spread_ = spread
    return classifier


def test_probabilities_by_hand():
    # The larger class has 3/4. Decisions are 0, log 3 and -log 3 in units of the spread: the odds of rejection are 3/4,
    # a third of that, and three times that.
    rows = np.array([[0.0, 0.25], [2 * np.log(3), 0.75], [-2 * np.log(3), 0.25]])
    expected = [[3 / 7, 1 / 7, 3 / 7], [1 / 5, 3 / 5, 1 / 5], [3 / 13, 1 / 13, 9 / 13]]
    np.testing.assert_allclose(of_answers(2, 2.0).predict_proba(rows), expected)
    np.testing.assert_allclose(of_answers(-1, 2.0).predict_proba(rows), np.array(expected)[:, [2, 0, 1]])


def test_the_spread_is_that_of_scores_at_fit(fitted):
    low, high = np.quantile(fitted.detector_.score_samples(X[Y > 0]), [0.25, 0.75])
    assert fitted.score_spread_ == pytest.approx(high - low)


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e6) | st.floats(-1e6, -1e-3), st.floats(0.01, 0.99)), min_size=1, max_size=20),
    st.sampled_from([-1, 7, "none"]),
    st.floats(0.01, 100),
)
def test_the_most_probable_label_is_what_is_predicted(rows, label, spread):
    classifier, rows = of_answers(label, spread), np.array(rows)
    # The class that the detector names is the most probable one.
    classifier.detector_.predict_class = lambda X: (X[:, 1] > 0.5).astype(int)
    probability = classifier.predict_proba(rows)
    assert np.array_equal(classifier.classes_[probability.argmax(1)], classifier.predict(rows))
    np.testing.assert_allclose(probability.sum(1), 1)
    # Among the known classes, the probabilities are the detector's.
    known = probability[:, np.isin(classifier.classes_, np.array([0, 1], dtype=classifier.classes_.dtype))]
    answered = known.sum(1) > 1e-100
    share = known[answered] / known[answered].sum(1, keepdims=True)
    np.testing.assert_allclose(share, classifier.detector_.predict_proba(rows)[answered], rtol=1e-6)


# --------------------------------------------------------------------------------------------------------------------
# In scikit-learn's tools

KNOWN = Y > 0
# Outliers from the detector itself; and for tools that replace labels by their places, where 0 stands for -1.
UNMARKED = clone(DETECTOR).set_params(outliers="uniform", contamination=0.05)
PLACES = clone(DETECTOR).set_params(outlier_label=0)


@pytest.mark.parametrize("reject_label", [None, "none"])
@pytest.mark.parametrize("response", ["auto", "predict", "predict_proba"])
def test_decision_boundary_display(fitted, reject_label, response):
    matplotlib.use("Agg")
    classifier = OpenSetClassifier(FrozenEstimator(fitted.detector_), reject_label=reject_label).fit(X, Y)
    display = DecisionBoundaryDisplay.from_estimator(classifier, X, response_method=response, grid_resolution=8)
    rows = np.column_stack([display.xx0.ravel(), display.xx1.ravel()])
    places = display.response if response == "predict" else display.response.argmax(-1)
    assert np.array_equal(classifier.classes_[places.ravel()], classifier.predict(rows))
    assert display.n_classes == 3


@pytest.mark.parametrize("voting", ["hard", "soft"])
def test_voting(voting):
    three = [(name, OpenSetClassifier(PLACES)) for name in "ab"] + [("c", LogisticRegression())]
    vote = VotingClassifier(three, voting=voting).fit(X, Y)
    assert vote.score(X_TEST, Y_TEST) > 0.98
    assert set(vote.predict(X_TEST)) == {-1, 3, 7}
    closed = VotingClassifier([("a", OpenSetClassifier(UNMARKED, reject=False))], voting=voting)
    assert closed.fit(X[KNOWN], Y[KNOWN]).score(X_TEST[KNOWN], Y_TEST[KNOWN]) > 0.98


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_calibration(method):
    # Temperature scaling takes labels for places.
    y, y_test = (np.searchsorted([-1, 3, 7], labels) for labels in (Y, Y_TEST))
    for classifier in (OpenSetClassifier(PLACES), FrozenEstimator(OpenSetClassifier(PLACES).fit(X, y))):
        calibrated = CalibratedClassifierCV(classifier, method=method, cv=2).fit(X, y)
        assert calibrated.score(X_TEST, y_test) > 0.95
        assert -np.log(calibrated.predict_proba(X_TEST)[range(600), y_test].clip(1e-3)).mean() < 0.2
    if method != "temperature":
        calibrated = CalibratedClassifierCV(OpenSetClassifier(DETECTOR), method=method, cv=2).fit(X, Y)
        assert calibrated.classes_.tolist() == [-1, 3, 7]
        assert calibrated.score(X_TEST, Y_TEST) > 0.95


def test_a_tuned_threshold_decides_when_to_reject():
    one = np.where(Y > 0, 1, -1)
    tuned = TunedThresholdClassifierCV(OpenSetClassifier(DETECTOR), scoring="balanced_accuracy", cv=3).fit(X, one)
    assert tuned.score(X_TEST, np.where(Y_TEST > 0, 1, -1)) > 0.95
    # It accepts what is more probable than the threshold.
    accepted = tuned.estimator_.predict_proba(X_TEST)[:, 1] >= tuned.best_threshold_
    assert np.array_equal(tuned.predict(X_TEST) == 1, accepted)


def test_validation_by_probabilities_and_other_ensembles():
    folded = cross_val_predict(OpenSetClassifier(PLACES), X, Y, cv=2, method="predict_proba")
    assert (np.array([-1, 3, 7])[folded.argmax(1)] == Y).mean() > 0.95
    assert cross_val_score(OpenSetClassifier(DETECTOR), X, Y, cv=2, scoring="roc_auc_ovr").min() > 0.98
    assert BaggingClassifier(OpenSetClassifier(PLACES), n_estimators=2).fit(X, Y).score(X_TEST, Y_TEST) > 0.95
    assert StackingClassifier([("a", OpenSetClassifier(PLACES))], cv=2).fit(X, Y).score(X_TEST, Y_TEST) > 0.95


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (lambda one: VotingClassifier([("a", one)]), "VotingClassifier"),
        (lambda one: VotingClassifier([("a", one), ("b", one)], n_jobs=2), "VotingClassifier"),
        (lambda one: VotingClassifier([("a", make_pipeline(StandardScaler(), one))]), "VotingClassifier"),
        (lambda one: StackingClassifier([("a", one)]), "StackingClassifier"),
        (lambda one: BaggingClassifier(one), "BaggingClassifier"),
        (lambda one: CalibratedClassifierCV(one), "CalibratedClassifierCV"),
        (lambda one: CalibratedClassifierCV(one, ensemble=False), "cross_val_predict with a method"),
        (lambda one: OneVsRestClassifier(one), "OneVsRestClassifier"),
        (lambda one: TunedThresholdClassifierCV(one), "ThresholdClassifier"),
        (lambda one: FixedThresholdClassifier(one), "ThresholdClassifier"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tools_that_know_no_reject_label(tool, message):
    with (
        parallel_config(backend="threading"),
        pytest.raises(ValueError, match=rf"{message}\w* .*reject_label=-1 is none of them\. Mark outliers in y by it"),
    ):
        tool(OpenSetClassifier(UNMARKED)).fit(X[KNOWN], Y[KNOWN])


@pytest.mark.parametrize("tool", [lambda one: VotingClassifier([("a", one)]), BaggingClassifier])
def test_tools_that_replace_the_marker_by_its_place(tool):
    with pytest.raises(ValueError, match="outlier_label must be an index, too, such as 0"):
        tool(OpenSetClassifier(DETECTOR)).fit(X, Y)


def test_validation_by_labels_needs_no_marked_rows():
    predicted = cross_val_predict(OpenSetClassifier(UNMARKED), X[KNOWN], Y[KNOWN], cv=2)
    assert set(predicted) <= {-1, 3, 7}
    assert (predicted == Y[KNOWN]).mean() > 0.8


def test_parameters_of_fit(fitted):
    classifier = OpenSetClassifier(FrozenEstimator(fitted.detector_))
    assert classifier.fit(X, Y, sample_weight=None).score(X, Y) > 0.95
    with pytest.raises(ValueError, match="takes no sample_weight in fit"):
        classifier.fit(X, Y, sample_weight=np.ones(len(X)))


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
    assert classifier.classes_.dtype == predicted.dtype
    # Text is sorted among text, numbers come before it.
    assert classifier.classes_.tolist() == sorted(["left", "right", expected], key=lambda label: (label != -1, label))
    assert np.array_equal(classifier.classes_[classifier.predict_proba(X_TEST).argmax(1)], predicted)
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
    assert around.predict_proba(X_TEST).shape == (600, 3)
    assert np.array_equal(around.classes_[around.predict_proba(X_TEST).argmax(1)], around.predict(X_TEST))


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
