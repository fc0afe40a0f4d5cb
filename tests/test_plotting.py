"""Displays: the numbers they hold and what they draw, for any detector."""

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.covariance import EllipticEnvelope
from sklearn.datasets import load_iris
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import DUMDetector, ThresholdedDetector
from skood.metrics import aupr_out, aurc, auroc
from skood.plotting import (
    OutlierPrecisionRecallDisplay,
    OutlierRocDisplay,
    RiskCoverageDisplay,
    ScoreHistogramDisplay,
)

mpl.use("Agg")

RNG = np.random.default_rng(0)
X = np.vstack([RNG.normal(size=(100, 2)), RNG.normal(3, 1, size=(20, 2))])
Y = np.repeat([1, -1], [100, 20])
DETECTORS = [
    IsolationForest(random_state=0),
    LocalOutlierFactor(novelty=True),
    make_pipeline(StandardScaler(), IsolationForest(contamination=0.2, random_state=0)),
    ThresholdedDetector(IsolationForest(random_state=0), contamination=0.3),
    DUMDetector(hidden_sizes=(8,), max_epochs=2, random_state=0, device="cpu"),
]
DISPLAYS = [ScoreHistogramDisplay, OutlierRocDisplay, OutlierPrecisionRecallDisplay, RiskCoverageDisplay]


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("detector", DETECTORS, ids=["forest", "lof", "pipeline", "threshold", "dum"])
def test_any_detector_with_its_threshold(detector):
    detector = detector.fit(X[:100])
    score, alarm = detector.score_samples(X), detector.predict(X) == -1
    roc = OutlierRocDisplay.from_estimator(detector, X, Y)
    assert roc.auroc == pytest.approx(auroc(Y, score))
    assert roc.operating_point == pytest.approx((alarm[:100].mean(), alarm[100:].mean()))
    curve = OutlierPrecisionRecallDisplay.from_estimator(detector, X, Y)
    assert curve.aupr_out == pytest.approx(aupr_out(Y, score))
    assert curve.prevalence == pytest.approx(1 / 6)
    assert curve.operating_point == pytest.approx((alarm[100:].mean(), (Y[alarm] == -1).mean()))
    histogram = ScoreHistogramDisplay.from_estimator(detector, X, Y)
    assert np.array_equal(score < histogram.threshold - 1e-9, alarm)
    assert np.array_equal(histogram.inlier_score, score[:100])
    selective = RiskCoverageDisplay.from_estimator(detector, X, Y)
    assert selective.aurc == pytest.approx(aurc(Y, Y, score))
    assert selective.operating_point == pytest.approx(((~alarm).mean(), (Y[~alarm] == -1).mean()))
    for display in (roc, curve, histogram, selective):
        assert display.figure_ is display.ax_.figure
        labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
        assert any("threshold" in label for label in labels)


def test_the_positive_class_is_named():
    detector = IsolationForest(random_state=0).fit(X)
    roc, curve = (display.from_estimator(detector, X, Y) for display in DISPLAYS[1:3])
    assert "inliers called outliers" in roc.ax_.get_xlabel()
    assert "outliers found" in roc.ax_.get_ylabel()
    assert "outliers found" in curve.ax_.get_xlabel()
    labels = [t.get_text() for t in ScoreHistogramDisplay.from_estimator(detector, X, Y).ax_.get_legend().get_texts()]
    assert "outliers (positive)" in labels


def test_curves_are_scikit_learns():
    from sklearn.metrics import precision_recall_curve, roc_curve

    score = X[:, 0]
    roc = OutlierRocDisplay.from_predictions(Y, score)
    np.testing.assert_array_equal(roc.fpr, roc_curve(Y == -1, -score)[0])
    curve = OutlierPrecisionRecallDisplay.from_predictions(Y, score)
    np.testing.assert_array_equal(curve.precision, precision_recall_curve(Y == -1, -score)[0])
    assert roc.operating_point is None


def test_what_is_drawn():
    """Lines, markers and the threshold are where the numbers are."""
    detector = IsolationForest(contamination=0.2, random_state=0).fit(X[:100])
    roc = OutlierRocDisplay.from_estimator(detector, X, Y, name="forest")
    np.testing.assert_array_equal(roc.line_.get_xydata(), np.column_stack([roc.fpr, roc.tpr]))
    curve = OutlierPrecisionRecallDisplay.from_estimator(detector, X, Y, name="forest")
    np.testing.assert_array_equal(curve.line_.get_xydata(), np.column_stack([curve.recall, curve.precision]))
    selective = RiskCoverageDisplay.from_estimator(detector, X, Y, name="forest")
    np.testing.assert_array_equal(selective.line_.get_xydata(), np.column_stack([selective.coverage, selective.risk]))
    for display in (roc, curve, selective):
        labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
        assert labels[0].startswith("forest (")
        assert "threshold of forest" in labels
        [marker] = [line for line in display.ax_.get_lines() if line.get_marker() == "o"]
        assert marker.get_xydata()[0] == pytest.approx(display.operating_point)
    assert any(line.get_ydata()[0] == pytest.approx(1 / 6) for line in curve.ax_.get_lines())
    histogram = ScoreHistogramDisplay.from_estimator(detector, X, Y)
    assert histogram.ax_.get_lines()[0].get_xdata()[0] == pytest.approx(detector.offset_)
    assert len(histogram.ax_.patches) == 80
    again = ScoreHistogramDisplay(inlier_score=[0.0] * 99, outlier_score=[-1e6]).plot(bins=7, clip=0.02)
    assert len(again.ax_.patches) == 14
    assert again.ax_.get_xlim()[0] > -1e6


def test_threshold_of_a_detector_whose_first_row_is_far_out():
    detector = EllipticEnvelope(support_fraction=1.0).fit(X[:100])
    far = np.vstack([[[1e9, 1e9]], X])
    display = ScoreHistogramDisplay.from_estimator(make_pipeline(detector), far, np.r_[-1, Y])
    assert display.threshold == detector.offset_


def test_several_in_one_picture():
    first = OutlierRocDisplay.from_predictions(Y, X[:, 0], name="first")
    second = OutlierRocDisplay.from_predictions(Y, X[:, 1], name="second", ax=first.ax_, chance=False)
    assert second.ax_ is first.ax_
    labels = [text.get_text() for text in first.ax_.get_legend().get_texts()]
    assert [label.split()[0] for label in labels if "AUC" in label and "hance" not in label] == ["first", "second"]


def test_display_of_a_classifier_without_threshold():
    features, classes = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(features, classes)
    display = RiskCoverageDisplay.from_estimator(model, features, classes)
    assert display.operating_point is None
    assert display.risk[-1] == pytest.approx((model.predict(features) != classes).mean())


def test_constant_scores_and_a_threshold_beyond_them():
    display = ScoreHistogramDisplay.from_predictions([1, 1, -1], [0.0, 0.0, 0.0], threshold=5.0)
    low, high = display.ax_.get_xlim()
    assert low < 0 < 5 < high


@pytest.mark.parametrize("display", DISPLAYS[:3])
def test_labels_of_the_other_convention_are_refused(display):
    with pytest.raises(ValueError, match=r"np\.where"):
        display.from_predictions((Y == -1).astype(int), X[:, 0])
