"""Rows that are no table: texts, lists of words, dicts. A Pipeline turns them into features."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skood import ConformalDetector, OODScorer, OpenSetClassifier, ThresholdedDetector
from skood.posthoc.compare_scores import compare_scores

RNG = np.random.default_rng(0)
Y = np.array(["u", "v", "w"])[np.arange(90) % 3]
# Texts of three to five words. The last word tells the class, but for every tenth text.
WORDS = [
    [*RNG.choice(["cat", "dog", "cow"], 2 + number % 3), label]
    for number, label in enumerate(np.where(np.arange(90) % 10, Y, "u"))
]
TEXTS = [" ".join(words) for words in WORDS]
COUNTS = [{word: float(words.count(word)) for word in words} for words in WORDS]


def itself(words):
    return words


def as_objects(rows):
    objects = np.empty(len(rows), dtype=object)
    objects[:] = rows
    return objects


OF_TEXT = make_pipeline(TfidfVectorizer(token_pattern=r"\w+"), LogisticRegression())
OF_WORDS = make_pipeline(TfidfVectorizer(analyzer=itself), LogisticRegression())
OF_DICTS = make_pipeline(DictVectorizer(), LogisticRegression())
# What the classifier takes, and the same rows in containers that it takes.
KINDS = {
    "texts": (OF_TEXT, TEXTS, [as_objects(TEXTS), np.array(TEXTS), pd.Series(TEXTS), tuple(TEXTS)]),
    "words": (OF_WORDS, WORDS, [as_objects(WORDS), pd.Series(WORDS)]),
    "dicts": (OF_DICTS, COUNTS, [as_objects(COUNTS), pd.Series(COUNTS)]),
    # Not taken apart into steps, so that the rows themselves are the input of the classifier.
    "whole": (CalibratedClassifierCV(OF_DICTS, cv=2), COUNTS, [as_objects(COUNTS)]),
}


@pytest.mark.parametrize("method", ["energy", "mahalanobis"])
@pytest.mark.parametrize("kind", KINDS)
def test_containers_score_alike(kind, method):
    classifier, rows, containers = KINDS[kind]
    if kind == "whole":
        method = "msp"
    classifier.fit(rows, Y)
    expected = OODScorer(classifier, method).fit(rows, Y)
    scores = expected.score_samples(rows)
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0
    for container in containers:
        scorer = OODScorer(classifier, method).fit(container, Y)
        assert scorer.offset_ == expected.offset_
        again = pickle.loads(pickle.dumps(scorer))
        for one in (rows, container):
            np.testing.assert_array_equal(again.score_samples(one), scores)
        np.testing.assert_array_equal(scorer.predict_class(container), classifier.predict(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_everything_else_takes_them(kind):
    classifier, rows, containers = KINDS[kind]
    classifier.fit(rows, Y)
    for container in (rows, *containers):
        scorer = OODScorer(classifier, "msp").partial_fit(container[:60]).partial_fit(container[60:])
        scores = scorer.score_samples(container)
        calibrated = scorer.calibrate(container, Y)
        assert np.isfinite(calibrated.offset_)
        offset = scorer.set_threshold(target_fpr=0.1, X=container).offset_
        assert (calibrated.score_samples(container) < offset).sum() <= 9
        thresholded = ThresholdedDetector(OODScorer(classifier, "msp"), target_fpr=0.1).fit(container)
        np.testing.assert_array_equal(thresholded.score_samples(container), scores)
        p_values = ConformalDetector(OODScorer(classifier, "msp"), random_state=0).fit(container).p_values(container)
        assert 0 < p_values.min() < p_values.max() <= 1
        open_set = OpenSetClassifier(OODScorer(classifier, "msp"), reject=False, reject_label="?").fit(container, Y)
        np.testing.assert_array_equal(open_set.predict(container), classifier.predict(rows))
        with pytest.raises(ValueError, match="explain takes neither images nor sparse rows nor texts"):
            scorer.explain(container)


def test_compared_scores():
    tables = [
        compare_scores(classifier.fit(rows, Y), rows[:45], rows[45:], X_train=rows, y_train=Y)
        for classifier, rows, _ in (KINDS["words"], KINDS["dicts"])
    ]
    assert all(len(table) > 3 and table["auroc"].between(0, 1).all() for table in tables)
    frozen = OODScorer(FrozenEstimator(OF_WORDS.fit(WORDS, Y))).fit(WORDS)
    # Of another number of words than the first row of the fit.
    np.testing.assert_array_equal(frozen.score_samples(WORDS[2:3]), frozen.score_samples(WORDS)[2:3])
