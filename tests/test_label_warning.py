"""No estimator takes labels that are likely misread in silence: every public one, found, not listed."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from configurations import CONFIGURATIONS, ENCODERS, WRAPPERS, named
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import (
    ConformalDetector,
    DUMDetector,
    FitOnInliers,
    LabelWarning,
    OODScorer,
    OpenSetClassifier,
    RejectClassDetector,
    SimCLREncoder,
    ThresholdedDetector,
)
from skood.datasets import load_image_folder
from skood.metrics import auroc, get_scorer
from skood.model_selection import DropOutliers, HideLabels, HoldOutClass, OneVersusRest, OutlierKFold

RNG = np.random.default_rng(0)
X = np.vstack([RNG.normal(size=(36, 3)), RNG.normal(4, 1, size=(4, 3))]).astype(np.float32)
CODED = np.repeat([0, 1], [36, 4])
TOLD = re.escape("0 (36 rows), 1 (4 rows). ")

READING = {
    name: estimator
    for name, estimator in (CONFIGURATIONS | ENCODERS | WRAPPERS).items()
    if "outlier_label" in estimator.get_params()
}


def told_by(estimator, y):
    """Return the messages of the LabelWarnings of a fit, and the estimator."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = clone(estimator).fit(X, y)
    return {str(warning.message) for warning in caught if issubclass(warning.category, LabelWarning)}, fitted


# ----------------------------------------------------------------------------------------------------- all estimators


@pytest.mark.parametrize("estimator", **named(READING))
def test_zero_and_one_are_not_taken_in_silence(estimator):
    with pytest.warns(LabelWarning, match=TOLD) as caught:
        clone(estimator).fit(X, CODED)
    # Once, also where one estimator wraps another.
    assert [warning.filename for warning in caught if warning.category is LabelWarning] == [__file__]


def test_every_estimator_that_reads_labels_is_among_them():
    assert {type(estimator).__name__ for estimator in READING.values()} == {
        "ConformalDetector",
        "DUMDetector",
        "DropOutliers",
        "FitOnInliers",
        "HideLabels",
        "NegSampleVAE",
        "OODScorer",
        "RejectClassDetector",
        "ResidualAdapterDetector",
        "RotationAuxClassifier",
        "SimCLREncoder",
        "ThresholdedDetector",
    }


# To an OODScorer 1 is a class of its classifier.
LABELLED = {name: one for name, one in READING.items() if "scores" not in name}


@pytest.mark.parametrize("estimator", **named(LABELLED))
def test_any_label_marks(estimator):
    """A list of labels marks the rows that -1 would, and nothing is to be told."""
    assert told_by(estimator, np.where(CODED, -1, 1))[0] == set()
    attacks = np.repeat(["normal", "dos", "probe"], [36, 2, 2])
    for outlier_label, y in ((1, CODED), (True, CODED == 1), (["dos", "probe"], pd.Series(attacks, dtype="category"))):
        marked = clone(estimator).set_params(outlier_label=outlier_label)
        told, fitted = told_by(marked, y)
        assert told == set()
        assert fitted.get_params()["outlier_label"] == outlier_label


# ----------------------------------------------------------------------------------------------------- who reads what

# Labels are read once, before all fits: a threshold on held-out rows would take three more.
SMALL = {"hidden_sizes": (8,), "max_epochs": 5, "contamination": 0, "random_state": 0, "device": "cpu"}
CLASSES = np.arange(40) % 4


@pytest.mark.parametrize("y", [CLASSES, np.array(list("abcd"))[CLASSES], CLASSES % 2 + 1])
def test_classes_are_for_who_knows_them(y):
    assert told_by(RejectClassDetector(**SMALL), y)[0] == set()
    assert (
        told_by(make_pipeline(StandardScaler(), SimCLREncoder(max_epochs=2), RejectClassDetector(**SMALL)), y)[0]
        == set()
    )
    assert told_by(ThresholdedDetector(RejectClassDetector(**SMALL)), y)[0] == set()
    assert told_by(DropOutliers(make_pipeline(StandardScaler(), RejectClassDetector(**SMALL))), y)[0] == set()
    (message,) = told_by(DUMDetector(**SMALL), y)[0]
    assert "If these are classes of inliers, pass y=None, or 1 for each inlier." in message
    # Who reads the same labels says the same, which Python shows once.
    assert told_by(ThresholdedDetector(make_pipeline(FitOnInliers(StandardScaler()), DUMDetector(**SMALL))), y)[0] == {
        message
    }


@pytest.mark.parametrize(
    "estimator", [DUMDetector(**SMALL), RejectClassDetector(**SMALL), HideLabels(DUMDetector(**SMALL))]
)
@pytest.mark.parametrize("y", [None, np.ones(40), np.zeros(40, dtype=bool), ["ok"] * 40])
def test_one_kind_of_rows_is_no_news(estimator, y):
    assert told_by(estimator, y)[0] == set()


def test_classes_of_a_classifier_are_known():
    classifier = RejectClassDetector(**SMALL).fit(X, CLASSES)
    assert told_by(OODScorer(classifier), CLASSES)[0] == set()
    (message,) = told_by(OODScorer(classifier), CODED)[0]
    assert "outlier_label=1" in message
    with pytest.warns(LabelWarning, match=TOLD):
        classifier.calibrate(X, CODED)
    with pytest.warns(LabelWarning, match=r"0 \(20 rows\), 1 \(20 rows\)"):
        binary = RejectClassDetector(**SMALL).fit(X, CLASSES // 2)
    assert told_by(OODScorer(binary), CLASSES // 2)[0] == set()


def test_a_scorer_leaves_out_rows_of_several_labels():
    classifier = RejectClassDetector(**SMALL).fit(X, CLASSES)
    y = np.where(CODED, np.where(CLASSES % 2, "dos", "probe"), CLASSES.astype(object))
    scorer = OODScorer(classifier, "mahalanobis", outlier_label=["dos", "probe"])
    expected = OODScorer(classifier, "mahalanobis").fit(X, np.where(CODED, -1, CLASSES))
    assert np.array_equal(scorer.fit(X, y).training_scores_, expected.training_scores_)
    with pytest.raises(ValueError, match="is one of the classifier's classes"):
        scorer.set_params(outlier_label=["dos", 3]).fit(X, y)


def test_labels_for_an_encoder():
    """What comes after it may be a classifier of 0 and 1: then it is told to ignore y."""
    (message,) = told_by(SimCLREncoder(max_epochs=2), CODED)[0]
    assert message.endswith("If both are classes, write outlier_label=None.")
    assert told_by(SimCLREncoder(max_epochs=2, outlier_label=None), CODED)[0] == set()


# ----------------------------------------------------------------------------------------------- wrappers and splitters


@pytest.mark.parametrize("wrap", [DropOutliers, HideLabels])
@pytest.mark.parametrize(
    "y", [CODED == 1, np.where(CODED, "fraud", "ok"), CODED / 1, pd.Series(CODED == 1, dtype="boolean")]
)
def test_wrappers_refuse_what_scikit_learns_checks_never_give(wrap, y):
    forest = IsolationForest(n_estimators=5, random_state=0)
    with pytest.raises(ValueError, match=r"no row of y is marked .* If .* marks the outliers, write outlier_label="):
        wrap(forest).fit(X, y)
    outlier_label = np.asarray(y)[-1]
    expected = forest.fit(X[:36] if wrap is DropOutliers else X).score_samples(X)
    fitted = wrap(clone(forest), outlier_label=outlier_label).fit(X, y)
    assert np.array_equal(fitted.score_samples(X), expected)


@pytest.mark.parametrize("wrap", [ThresholdedDetector, ConformalDetector, DropOutliers, HideLabels])
def test_wrappers_have_the_marker_of_their_detector(wrap):
    options = {"alpha": 0.2, "random_state": 0} if wrap is ConformalDetector else {}
    own = wrap(DUMDetector(**SMALL, outlier_label=1), **options)
    assert told_by(own, CODED)[0] == set()
    # Within another wrapper, too, whose own marker is left open.
    assert told_by(wrap(ThresholdedDetector(DUMDetector(**SMALL, outlier_label=1)), **options), CODED)[0] == set()
    other = wrap(DUMDetector(**SMALL, outlier_label=["dos", "probe"]), outlier_label=1, **options)
    if wrap in (DropOutliers, HideLabels):
        assert told_by(other, CODED)[0] == set()
    else:
        with pytest.raises(ValueError, match=r"outlier_label=1, but the detector has outlier_label=\['dos', 'probe'\]"):
            other.fit(X, CODED)
        other.set_params(outlier_label=("probe", "dos")).fit(X)


def test_thresholds_leave_out_marked_rows():
    forest, y = IsolationForest(n_estimators=5, random_state=0), np.where(CODED, "fraud", "ok")
    thresholded = ThresholdedDetector(forest, outlier_label="fraud").fit(X, y)
    assert len(thresholded.training_scores_) == 36
    conformal = ConformalDetector(forest, outlier_label="fraud", alpha=0.2, random_state=0).fit(X, y)
    assert len(conformal.calibration_scores_) == 18


def test_to_a_classifier_zero_and_one_are_classes():
    classifier = OpenSetClassifier(make_pipeline(FitOnInliers(StandardScaler()), RejectClassDetector(**SMALL)))
    told, fitted = told_by(classifier, CODED)
    assert told == set()
    assert fitted.known_classes_.tolist() == [0, 1]
    # The detector alone still tells.
    assert told_by(classifier.detector, CODED)[0]


def test_an_open_set_classifier_needs_one_label_for_what_it_rejects():
    classifier = OpenSetClassifier(RejectClassDetector(**SMALL, outlier_label=["dos", "probe"]))
    y = np.array(["a", "b", "dos", "probe"])[CLASSES]
    with pytest.raises(ValueError, match="outlier_label names several labels: set reject_label"):
        classifier.fit(X, y)
    classifier.set_params(reject_label="unknown").fit(X, y)
    assert classifier.known_classes_.tolist() == ["a", "b"]


def test_splitters_find_the_labels_they_are_told():
    y = np.repeat(["normal", "dos", "probe"], [20, 10, 10])
    with pytest.raises(ValueError, match=r"y holds 'dos' \(10 rows\), 'normal' \(20 rows\), 'probe' \(10 rows\)"):
        list(OutlierKFold().split(X, y))
    for train, test in OutlierKFold(outlier_label=["dos", "probe"], random_state=0).split(X, y):
        assert set(y[train]) == {"normal"}
        assert (y[test] != "normal").sum() == 4
    y = np.repeat(["a", "b", "corpus"], [16, 16, 8])
    for protocol in (HoldOutClass, OneVersusRest):
        cv = protocol(outlier_label="corpus", random_state=0)
        assert cv.get_n_splits(y=y) == 2
        for label, target, [(train, test)] in cv.tasks(X, y):
            assert set(range(32, 40)) <= set(train)
            assert not set(range(32, 40)) & set(test)
            assert (
                np.asarray(target == -1)
                == np.isin(y, ["corpus", label if protocol is HoldOutClass else "ab".strip(label)])
            ).all()
    with pytest.raises(ValueError, match="a class is labelled -1"):
        list(HoldOutClass(outlier_label=9).tasks(X, np.repeat([-1, 0, 9], [16, 16, 8])))


# --------------------------------------------------------------------------------------------------- what comes of it


def card_payments():
    """Return payments of which one in twenty is fraud, coded as published: 1 is fraud."""
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 20 == 0).astype(int)
    return rng.normal(size=(400, 5)) + 3 * y[:, None] * np.array([1, -1, 1, 0, 0]), y


def test_the_line_that_the_warning_says_to_write():
    """Taken for inliers, the frauds set the threshold; the line leaves them out."""
    X, y = card_payments()
    detector = ThresholdedDetector(IsolationForest(random_state=0), target_fpr=0.05)
    with pytest.warns(LabelWarning, match=r"0 \(380 rows\), 1 \(20 rows\)") as caught:
        clone(detector).fit(X, y)
    (line,) = re.findall(r"y = (np.where\(.*?, -1, 1\))\.", str(caught[0].message))
    written = eval(line, {"np": np, "y": y})
    assert written.tolist() == np.where(y, -1, 1).tolist()
    marked = DropOutliers(DUMDetector(hidden_sizes=(32,), max_epochs=30, random_state=0)).fit(X, written)
    with pytest.warns(LabelWarning):
        taken = DUMDetector(hidden_sizes=(32,), max_epochs=30, random_state=0).fit(X, y)
    assert auroc(written, marked.score_samples(X)) > max(0.95, roc_auc_score(1 - y, taken.score_samples(X)))
    named = DropOutliers(DUMDetector(hidden_sizes=(32,), max_epochs=30, random_state=0, outlier_label=1)).fit(X, y)
    assert np.array_equal(named.score_samples(X), marked.score_samples(X))


def test_folders_of_bad_and_good_images():
    """Numbered as their folders are sorted: 0 is bad, the rarer one, and that is what is suggested."""
    with pytest.warns(
        LabelWarning, match=r"If 0 marks the outliers, write outlier_label=0, or y = np\.where\("
    ) as caught:
        DUMDetector(**SMALL | {"contamination": "auto"}).fit(X, 1 - CODED)
    # Once, though the threshold takes fits to parts of the rows.
    assert len(caught) == 1


def test_folders_of_image_files(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for folder, n_images in (("bad", 4), ("good", 36)):
        (tmp_path / folder).mkdir()
        for number in range(n_images):
            pixels = RNG.integers(0, 255, (4, 4, 3), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    read = load_image_folder(tmp_path, size=4)
    rows = read.X.reshape(40, -1)
    with pytest.warns(LabelWarning, match=r"'bad' \(4 rows\), 'good' \(36 rows\)\. If 'bad' marks the outliers"):
        DUMDetector(**SMALL).fit(rows, read.y)
    named = DUMDetector(**SMALL, outlier_label="bad").fit(rows, read.y).score_samples(rows)
    marked = load_image_folder(tmp_path, size=4, outliers="bad")
    assert np.array_equal(named, DUMDetector(**SMALL).fit(rows, marked.y).score_samples(rows))


def test_it_names_the_line_of_the_user_however_deep_the_fit():
    estimator = ThresholdedDetector(make_pipeline(FitOnInliers(StandardScaler()), DUMDetector(**SMALL)))
    y = np.tile([0, 0, 0, 1], 10)
    options = {"cv": StratifiedKFold(2), "scoring": get_scorer("auroc", outlier_label=1), "refit": False}
    with pytest.warns(LabelWarning) as caught:
        GridSearchCV(estimator, {"target_fpr": [0.1]}, **options).fit(X, y)
    assert {warning.filename for warning in caught} == {__file__}
    assert len({str(warning.message) for warning in caught}) == 1


def test_a_search_with_names_of_attacks():
    X, y = card_payments()
    names, attacks = np.where(y, np.where(np.arange(400) % 40, "dos", "probe"), "normal"), ["dos", "probe"]

    def searched(y, outlier_label):
        pipeline = make_pipeline(
            FitOnInliers(StandardScaler(), outlier_label=outlier_label),
            DUMDetector(**SMALL, outlier_label=outlier_label),
        )
        kinds = ("auroc", "aupr_out", "fpr95", "aurc")
        search = GridSearchCV(
            pipeline,
            {"dumdetector__lr": [0.001, 0.01]},
            cv=OutlierKFold(3, outlier_label=outlier_label, random_state=0),
            scoring={kind: get_scorer(kind, outlier_label=outlier_label) for kind in kinds},
            refit="auroc",
            error_score="raise",
        ).fit(X, y)
        return [search.cv_results_[f"mean_test_{kind}"].tolist() for kind in kinds], search.predict(X).tolist()

    assert searched(names, attacks) == searched(np.where(y, -1, 1), -1)
