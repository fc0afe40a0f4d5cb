"""Classifiers with a threshold between their two classes, which decides and not the largest logit."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier
from torch import nn

from skood import OODScorer, OpenSetClassifier, ThresholdedDetector
from skood.metrics import answers

X, CODES = make_classification(900, weights=[0.9], class_sep=0.7, random_state=0)
Y = np.array(["common", "rare"])[CODES]
FIT, NEW = slice(0, 500), slice(500, None)

TUNED = TunedThresholdClassifierCV(LogisticRegression(), scoring="balanced_accuracy", cv=3)
WITH_THRESHOLD = {
    "tuned": TUNED,
    "fixed": FixedThresholdClassifier(LogisticRegression(), threshold=0.1),
    "of-decision-function": FixedThresholdClassifier(
        LogisticRegression(), threshold=-2.0, response_method="decision_function"
    ),
    "for-the-first-class": FixedThresholdClassifier(LogisticRegression(), threshold=0.95, pos_label="common"),
    "of-a-forest": FixedThresholdClassifier(RandomForestClassifier(20, random_state=0), threshold=0.1),
    "in-a-pipeline": make_pipeline(StandardScaler(), TUNED),
    "in-a-search": GridSearchCV(TUNED, {"cv": [3]}, cv=2),
}


@pytest.mark.parametrize("name", WITH_THRESHOLD)
def test_the_threshold_decides(name):
    classifier = WITH_THRESHOLD[name].fit(X[FIT], Y[FIT])
    expected = classifier.predict(X[NEW])
    scorer = OODScorer(FrozenEstimator(classifier), "msp").fit(X[FIT], Y[FIT])
    # The threshold matters.
    assert (expected != scorer.classes_[scorer.predict_proba(X[NEW]).argmax(1)]).any()
    np.testing.assert_array_equal(scorer.predict_class(X[NEW]), expected)
    np.testing.assert_array_equal(scorer.predict_class(X[NEW][3:4]), expected[3:4])
    np.testing.assert_array_equal(answers(scorer, X[NEW], Y[NEW])[0], expected)
    rejected = scorer.predict(X[NEW]) == -1
    assert rejected.any()
    for detector in (scorer, ThresholdedDetector(FrozenEstimator(scorer))):
        closed = OpenSetClassifier(detector, reject=False, reject_label="?").fit(X[FIT], Y[FIT])
        np.testing.assert_array_equal(closed.predict(X[NEW]), expected)
    open_set = OpenSetClassifier(FrozenEstimator(scorer), reject_label="?").fit(X[FIT], Y[FIT])
    np.testing.assert_array_equal(open_set.predict(X[NEW]), np.where(rejected, "?", expected))


def test_scores_and_probabilities_are_those_of_the_classifier_within():
    tuned = WITH_THRESHOLD["tuned"].fit(X[FIT], Y[FIT])
    outer, inner = (OODScorer(one).fit(X[FIT], Y[FIT]) for one in (tuned, tuned.estimator_))
    for method in ("predict_proba", "predict"):
        np.testing.assert_array_equal(getattr(outer, method)(X[NEW]), getattr(inner, method)(X[NEW]))


@pytest.mark.parametrize("threshold", [0.02, 0.5])
def test_the_threshold_of_a_skorch_net_decides(threshold):
    rows, y = X.astype(np.float32), CODES.astype(np.float32)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(20, 1), nn.Flatten(0))
    net = NeuralNetBinaryClassifier(module, lr=0.1, train_split=None, verbose=0, threshold=threshold)
    net.fit(rows[FIT], y[FIT])
    expected = net.predict(rows[NEW])
    for classifier in (
        net,
        make_pipeline(FrozenEstimator(StandardScaler(with_mean=False, with_std=False).fit(rows)), net),
    ):
        scorer = OODScorer(classifier, temperature=3.0).fit(rows[FIT])
        most_probable = scorer.predict_proba(rows[NEW]).argmax(1)
        assert (expected != most_probable).any() == (threshold != 0.5)
        np.testing.assert_array_equal(scorer.predict_class(rows[NEW]), expected)
        open_set = OpenSetClassifier(FrozenEstimator(scorer), reject=False).fit(rows[FIT], CODES[FIT])
        np.testing.assert_array_equal(open_set.predict(rows[NEW]), expected)
