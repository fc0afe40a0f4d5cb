"""Tools of scikit-learn that replace labels, so that what marks outliers is lost, or that misread scores."""

import numpy as np
import pytest
from configurations import public_estimators
from joblib import parallel_config
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import (
    ConformalDetector,
    DUMDetector,
    FitOnInliers,
    LabelWarning,
    NegSampleVAE,
    OODScorer,
    OpenSetClassifier,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    SimCLREncoder,
    ThresholdedDetector,
)
from skood.model_selection import DropOutliers, HideLabels

# Classes 1 and 2, and outliers (-1) apart from both.
RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 4))
X[50:100, 0] += 5
X[100:, 1] += 4
Y = np.r_[np.repeat([1, 2], 50), np.full(20, -1)]
KNOWN = Y > 0
FOLDS = StratifiedKFold(2, shuffle=True, random_state=0)

SHORT = {"max_epochs": 1, "contamination": 0, "random_state": 0}
REJECT = RejectClassDetector(**SHORT)
# Of 1 and -1, a y without classes.
OF_TWO = LogisticRegression().fit(X, np.arange(120) % 2)
READING = {
    "adapters": ResidualAdapterDetector(**SHORT),
    "dum": DUMDetector(**SHORT),
    "vae": NegSampleVAE(**SHORT),
    "reject": REJECT,
    "rotation": RotationAuxClassifier(**SHORT),
    "scorer": OODScorer(OF_TWO),
    "thresholded": ThresholdedDetector(REJECT),
    "conformal": ConformalDetector(REJECT),
    "drop": DropOutliers(REJECT),
    "pipeline": make_pipeline(StandardScaler(), REJECT),
    "open-set": OpenSetClassifier(REJECT, reject=False),
    "inliers": make_pipeline(FitOnInliers(StandardScaler()), LogisticRegression()),
    "encoder": make_pipeline(SimCLREncoder(max_epochs=1), LogisticRegression()),
}


def test_all_that_read_the_marker_are_tried():
    parts = [part for one in READING.values() for part in [one, *one.get_params().values()]]
    reading = [one for one in public_estimators() if "outlier_label" in one._get_param_names()]
    assert {*reading} <= {type(part) for part in parts}


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("name", READING)
def test_lost_marks_are_refused_in_cross_val_predict(name, n_jobs):
    y = np.where(KNOWN, 1, -1) if name == "scorer" else Y
    # A thread, like a process, has a call stack of its own.
    with (
        parallel_config(backend="threading"),
        pytest.raises(ValueError, match=r'the outliers that -1 marks.*method="predict".*loop.*outlier_label=0'),
    ):
        cross_val_predict(READING[name], X, y, cv=FOLDS, method="predict_proba", n_jobs=n_jobs)


@pytest.mark.slow
def test_lost_marks_are_refused_in_another_process():
    with pytest.raises(ValueError, match=r"RejectClassDetector would not find the outliers"):
        cross_val_predict(REJECT, X, Y, cv=FOLDS, method="decision_function", n_jobs=2)


@pytest.mark.parametrize(
    ("names", "outlier_label", "message"),
    [
        (["", "a", "b", "corpus"], "corpus", r"\['a', 'b', 'corpus'\].*that 'corpus' marks.*outlier_label=2"),
        # The index 0 would mark the user's -1, and the user's 0 would be a class.
        ([9, 0, 1, -1], 0, r"\[-1, 0, 1\].*that 0 marks"),
    ],
)
def test_marks_of_other_kinds(names, outlier_label, message):
    detector = clone(REJECT).set_params(outlier_label=outlier_label)
    with pytest.raises(ValueError, match=message):
        cross_val_predict(detector, X, np.array(names)[Y], cv=FOLDS, method="decision_function")


@pytest.mark.filterwarnings("ignore::skood.LabelWarning")
def test_what_does_not_lose_the_marks_works():
    predicted, probability, decision = np.empty(120), np.empty((100, 2)), np.empty(100)
    for train, test in FOLDS.split(X, Y):
        predicted[test] = clone(REJECT).fit(X[train], Y[train]).predict(X[test])
    np.testing.assert_array_equal(cross_val_predict(REJECT, X, Y, cv=FOLDS), predicted)
    # Without marked rows there is nothing to lose, and labels that hold their index stay as they are.
    for train, test in FOLDS.split(X[KNOWN], Y[KNOWN]):
        fitted = clone(REJECT).fit(X[KNOWN][train], Y[KNOWN][train])
        probability[test], decision[test] = (
            fitted.predict_proba(X[KNOWN][test]),
            fitted.decision_function(X[KNOWN][test]),
        )
    for method, expected in {"predict_proba": probability, "decision_function": decision}.items():
        found = cross_val_predict(REJECT, X[KNOWN], Y[KNOWN], cv=FOLDS, method=method)
        np.testing.assert_array_equal(found, expected)
    options = {"cv": FOLDS, "method": "predict_proba"}
    indexed = clone(REJECT).set_params(outlier_label=0)
    assert cross_val_predict(OpenSetClassifier(indexed), X, Y, **options).shape == (120, 3)
    # Labels that are hidden from the detector are not missed.
    with pytest.warns(RuntimeWarning, match="Number of classes in training fold"):
        assert cross_val_predict(HideLabels(REJECT), X, Y, **options).shape == (120, 3)


@pytest.mark.parametrize(
    "tool",
    [
        lambda one: BaggingClassifier(one, n_estimators=2),
        lambda one: BaggingClassifier(one, n_estimators=2, n_jobs=2),
        lambda one: StackingClassifier([("one", one)], cv=2),
        lambda one: StackingClassifier([("one", one)], cv=2, n_jobs=2),
    ],
    ids=["bagging", "bagging-threads", "stacking", "stacking-threads"],
)
@pytest.mark.parametrize("name", ["reject", "rotation", "thresholded", "open-set", "pipeline", "inliers"])
def test_lost_marks_are_refused_in_ensembles(tool, name):
    with (
        parallel_config(backend="threading"),
        pytest.raises(ValueError, match=r"(Bagging|Stacking)Classifier replaces.*\[-1, 1, 2\].*outlier_label=0"),
    ):
        tool(READING[name]).fit(X, Y)


def test_lost_marks_are_refused_in_a_vote():
    with pytest.raises(ValueError, match=r"VotingClassifier replaces.*FitOnInliers would not find"):
        VotingClassifier([("one", READING["inliers"])]).fit(X, Y)


@pytest.mark.filterwarnings("ignore::skood.LabelWarning")
def test_ensembles_of_detectors_with_classes():
    detector = clone(REJECT).set_params(max_epochs=20)
    named = np.array(["", "one", "two"])[Y[KNOWN]]
    for tool in (BaggingClassifier(detector, n_estimators=2), StackingClassifier([("one", detector)], cv=2)):
        assert tool.fit(X[KNOWN], named).score(X[KNOWN], named) > 0.95


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("y", [Y, np.where(KNOWN, Y, 1)], ids=["marked", "unmarked"])
@pytest.mark.parametrize("name", ["reject", "thresholded", "dum", "pipeline"])
def test_scores_are_not_calibrated_as_if_they_told_classes_apart(name, y, ensemble):
    with pytest.raises(ValueError, match=r"tells outliers from inliers.*OpenSetClassifier"):
        CalibratedClassifierCV(READING[name], cv=2, ensemble=ensemble).fit(X, y)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("name", ["reject", "thresholded", "conformal", "drop", "pipeline", "scorer"])
def test_scores_of_frozen_detectors_are_not_calibrated_either(name, ensemble):
    y = np.where(KNOWN, 1, -1) if name == "scorer" else Y
    frozen = FrozenEstimator(clone(READING[name]).fit(X, y))
    with pytest.raises(ValueError, match=r"tells outliers from inliers.*OpenSetClassifier"):
        CalibratedClassifierCV(frozen, cv=2, ensemble=ensemble).fit(X[KNOWN], Y[KNOWN])
    # Asked by anything else, they decide as before.
    assert frozen.decision_function(X).shape == (120,)


def test_a_frozen_open_set_classifier_is_calibrated():
    frozen = FrozenEstimator(OpenSetClassifier(clone(REJECT).set_params(max_epochs=20)).fit(X, Y))
    assert CalibratedClassifierCV(frozen, cv=2).fit(X, Y).score(X, Y) > 0.8


@pytest.mark.parametrize("name", ["reject", "dum", "thresholded", "pipeline"])
def test_one_class_against_the_others(name):
    detector, y = READING[name], Y[KNOWN]
    with pytest.raises(ValueError, match=r"OneVsRestClassifier and Output.*Set outlier_label=0.*OpenSetClassifier"):
        OneVsRestClassifier(detector).fit(X[KNOWN], y)
    # There, the other classes are marked by -1.
    markers = [key for key in detector.get_params() if key.endswith("outlier_label")]
    of_zero = clone(detector).set_params(**dict.fromkeys(markers, 0))
    with pytest.raises(ValueError, match=r"OneVsRestClassifier and Output.*Set outlier_label=-1.*OpenSetClassifier"):
        OutputCodeClassifier(of_zero, code_size=3, random_state=0).fit(X[KNOWN], y)
    with pytest.raises(ValueError, match=r"OneVsOneClassifier takes what .* predicts, \+1 and -1.*OpenSetClassifier"):
        OneVsOneClassifier(detector).fit(X[KNOWN], y)


def test_a_detector_of_each_class_that_takes_the_others_for_outliers():
    three = np.where(KNOWN, Y, 0)
    detector = clone(REJECT).set_params(outlier_label=0, max_epochs=20)
    assert OneVsRestClassifier(detector).fit(X, three).score(X, three) > 0.9
    # Classifiers of other kinds than detectors are fitted as always.
    inliers = make_pipeline(FitOnInliers(StandardScaler(), outlier_label=9), LogisticRegression())
    with pytest.warns(LabelWarning):
        assert OneVsOneClassifier(inliers).fit(X, three).score(X, three) > 0.9
