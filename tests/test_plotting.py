"""Displays: the numbers they hold and what they draw, for any detector."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.covariance import EllipticEnvelope
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skood import ConformalDetector, DUMDetector, NegSampleVAE, ThresholdedDetector
from skood.metrics import aupr_out, aurc, auroc
from skood.plotting import (
    CertaintyGalleryDisplay,
    ExplanationDisplay,
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


@pytest.mark.parametrize("display", DISPLAYS)
@pytest.mark.parametrize(
    ("labels", "outlier_label"),
    [((0, 1), 1), (("ok", "dos"), "dos"), (("ok", "dos", "probe"), ["dos", "probe"])],
    ids=["numbers", "text", "several"],
)
def test_labels_of_other_kinds(display, labels, outlier_label):
    """The error about such labels says to write ``outlier_label``, which no display took."""
    y = np.concatenate([np.repeat(labels[:1], 100), np.resize(labels[1:], 20)])
    detector = IsolationForest(random_state=0).fit(X[:100])
    own = display.from_estimator(detector, X, y, outlier_label=outlier_label)
    same = display.from_estimator(detector, X, Y)
    for name, value in vars(same).items():
        if not name.endswith("_"):
            np.testing.assert_array_equal(getattr(own, name), value)
    if display is not RiskCoverageDisplay:
        with pytest.raises(ValueError, match="outlier_label="):
            display.from_estimator(detector, X, y)


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


@pytest.mark.parametrize("unit", [1.0, 1e-12, 1e12])
def test_scores_far_beyond_those_of_inliers_leave_these_readable(unit):
    """As of a bounded score that is nearly 0 for inliers, or of a likelihood without bound."""
    rng = np.random.default_rng(0)
    inliers, outliers = unit * rng.normal(size=500), -unit * 10 ** rng.uniform(1, 5, 500)
    y, score, options = np.repeat([1, -1], 500), np.r_[inliers, outliers], {"threshold": -3 * unit, "clip": 0}
    shares = {}
    for scale in ("auto", "linear", "asinh"):
        display = ScoreHistogramDisplay.from_predictions(y, score, **options, scale=scale)
        bars = np.array([bar.get_height() for bar in display.ax_.patches]).reshape(2, -1)
        np.testing.assert_allclose(bars.sum(1), 1)
        assert display.ax_.get_lines()[0].get_xdata()[0] == -3 * unit
        shares[scale] = bars.max(1)
    np.testing.assert_array_equal(shares["auto"], shares["asinh"])
    assert shares["linear"][0] > 0.99
    assert (shares["asinh"] < 0.25).all()


def test_scores_of_one_kind_are_drawn_on_a_linear_axis():
    score = np.random.default_rng(0).normal(size=400)
    display = ScoreHistogramDisplay.from_predictions(np.repeat([1, -1], 200), score)
    assert display.ax_.get_xscale() == "linear"
    with pytest.raises(ValueError, match="scale='log' must be 'auto', 'linear' or 'asinh'"):
        display.plot(scale="log")


def test_constant_scores_and_a_threshold_beyond_them():
    display = ScoreHistogramDisplay.from_predictions([1, 1, -1], [0.0, 0.0, 0.0], threshold=5.0)
    low, high = display.ax_.get_xlim()
    assert low < 0 < 5 < high


@pytest.mark.parametrize("display", DISPLAYS[:3])
def test_labels_of_the_other_convention_are_refused(display):
    with pytest.raises(ValueError, match=r"np\.where"):
        display.from_predictions((Y == -1).astype(int), X[:, 0])


# --------------------------------------------------------------------------------------------------------------------
# Galleries

IMAGES = np.random.default_rng(1).random((10, 3, 4, 5))
SCORE = np.array([3.0, -1, 4, 1, -5, 9, 2, 6, -5, 3])


class Brightness:
    """A detector that takes bright images of its own kind for normal."""

    image_shape_ = (1, 2, 3)
    offset_ = 0.4

    def __init__(self, dtype=np.float64, flat=False):
        self.dtype, self.flat, self.seen = dtype, flat, []

    def score_samples(self, X):
        assert X.dtype == self.dtype
        assert X.shape[1:] == ((6,) if self.flat else (1, 2, 3))
        self.seen.append(X)
        return X.reshape(len(X), -1).mean(1) / (255 if self.dtype == np.uint8 else 1)

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_


def drawn(display):
    """The pictures as arrays, and the scores below them."""
    return [np.asarray(picture.get_array()) for picture in display.pictures_], [t.get_text() for t in display.texts_]


def test_gallery_is_in_order():
    display = CertaintyGalleryDisplay.from_scores(IMAGES, SCORE, n_images=4, threshold=-0.5, name="all")
    # Of equal scores the first image comes first.
    assert display.rows.tolist() == [[5, 7, 2, 0], [4, 8, 1, 3]]
    assert display.score.tolist() == [[9, 6, 4, 3], [-5, -5, -1, 1]]
    assert np.array_equal(display.images, IMAGES[display.rows])
    pictures, scores = drawn(display)
    np.testing.assert_array_equal(pictures, np.moveaxis(IMAGES[display.rows.ravel()], 1, -1))
    assert scores == ["9.00", "6.00", "4.00", "3.00", "-5.00", "-5.00", "-1.00", "1.00"]
    colors = [text.get_color() for text in display.texts_]
    assert colors == ["black"] * 4 + ["tab:orange"] * 3 + ["black"]
    assert display.ax_.get_title() == "all"
    assert "orange: called an outlier" in display.ax_.get_xlabel()
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["most certain", "least certain"]


def test_pictures_do_not_overlap_and_the_certain_are_above():
    display = CertaintyGalleryDisplay.from_scores(IMAGES, SCORE, n_images=5)
    display.plot(n_columns=2)
    boxes = np.array([picture.get_extent() for picture in display.pictures_])
    left, right, bottom, top = boxes.T
    for one in range(10):
        for other in range(one):
            apart = right[one] <= left[other] or right[other] <= left[one]
            assert apart or bottom[one] < top[other] or bottom[other] < top[one]
    # The axis points down. Pixels are squares.
    assert bottom[:5].max() < top[5:].min()
    np.testing.assert_allclose((bottom - top) / (right - left), 4 / 5)
    assert len(set(left.tolist())) == 2
    low, high = display.ax_.get_ylim()
    assert low > bottom.max()
    assert high < top.min()


def test_gallery_of_one_class():
    labels = np.array(["a", "b"])[np.arange(10) % 2]
    display = CertaintyGalleryDisplay.from_scores(IMAGES, SCORE, labels=labels, of="b")
    # Five images: two of each, and none twice.
    assert display.rows.tolist() == [[5, 7], [1, 3]]
    assert CertaintyGalleryDisplay.from_scores(IMAGES, SCORE, n_images=99).rows.shape == (2, 5)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.array([0, 51, 255], dtype=np.uint8), [0, 0.2, 1]),
        ([0.0, 0.2, 0.8], [0, 0.2, 0.8]),
        ([0.0, 4.0, 16.0], [0, 0.25, 1]),
        ([-1.0, 0.0, 3.0], [0, 0.25, 1]),
        ([-2.0, -2.0, -2.0], [0, 0, 0]),
    ],
)
def test_grey_values(images, expected):
    """Of bytes and of [0, 1] as they are, others from the least to the greatest."""
    images = np.reshape(images, (1, 1, 1, 3)).repeat(2, axis=0)
    pictures, _ = drawn(CertaintyGalleryDisplay.from_scores(images, [0, 1]))
    np.testing.assert_allclose(pictures, [[expected]] * 2)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_gallery_of_a_detector(dtype, flat):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, size=(9, 1, 2, 3), dtype=np.uint8) if dtype == np.uint8 else rng.random((9, 1, 2, 3))
    detector = Brightness(dtype, flat)
    display = CertaintyGalleryDisplay.from_estimator(detector, X.reshape(9, 6) if flat else X, n_images=1)
    order = np.argsort(detector.score_samples(X.reshape(9, 6) if flat else X))
    assert display.rows.ravel().tolist() == order[[-1, 0]].tolist()
    assert np.array_equal(display.images, X[order[[-1, 0]]][:, None])
    assert (display.threshold, display.name) == (0.4, "Brightness")


def darkened(images):
    return images * torch.rand(len(images), 1, 1, 1)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_gallery_of_views(dtype, flat):
    image = np.full((1, 2, 3), 200, dtype=np.uint8) if dtype == np.uint8 else np.full((1, 2, 3), 0.8)
    image = image.ravel() if flat else image
    detector, state = Brightness(dtype, flat), torch.get_rng_state()
    display = CertaintyGalleryDisplay.from_views(detector, image, darkened, n_views=50, n_images=3, random_state=0)
    assert torch.equal(torch.get_rng_state(), state)
    (views,) = detector.seen
    assert len(views) == 50
    assert display.images.shape == (2, 3, 1, 2, 3)
    assert display.images.dtype == dtype
    assert np.array_equal(display.images.reshape(6, -1), views.reshape(50, -1)[display.rows.ravel()])
    assert display.score.max() > 0.75
    assert display.score.min() < 0.05
    assert "views of one image" in display.ax_.get_title()
    again = CertaintyGalleryDisplay.from_views(detector, image, darkened, n_views=50, n_images=3, random_state=0)
    assert np.array_equal(again.images, display.images)
    named = CertaintyGalleryDisplay.from_views(detector, image, "crop-flip", n_views=4, random_state=0)
    assert named.rows.shape == (2, 2)


def test_gallery_of_digits():
    """What the detector was fitted on is what it is certain of; a Pipeline's threshold is known."""
    X, digit = load_digits(return_X_y=True)
    model = DUMDetector(image_shape=(1, 8, 8), hidden_sizes=(32,), max_epochs=20, random_state=0).fit(X[digit == 3])
    display = CertaintyGalleryDisplay.from_estimator(model, X[:400], n_images=10)
    assert (digit[display.rows[0]] == 3).all()
    assert (digit[display.rows[1]] != 3).all()
    assert display.threshold == model.offset_
    threes = CertaintyGalleryDisplay.from_estimator(model, X[:400], labels=digit[:400], of=3)
    assert (digit[threes.rows] == 3).all()
    assert threes.ax_.get_title() == "DUMDetector: 3"
    forest = make_pipeline(StandardScaler(), IsolationForest(random_state=0)).fit(X[digit == 3])
    of_forest = CertaintyGalleryDisplay.from_estimator(forest, X[:50], image_shape=(1, 8, 8), ax=threes.ax_)
    assert of_forest.ax_ is threes.ax_
    assert of_forest.threshold == forest[-1].offset_


@pytest.mark.parametrize(
    ("images", "params", "message"),
    [
        (IMAGES[:, :2], {}, r"X has shape \(10, 2, 4, 5\); a picture needs images \(n, C, H, W\) of 1 or 3 channels"),
        (IMAGES.reshape(10, -1), {}, "For flattened images give image_shape"),
        (IMAGES, {"score": np.where(SCORE == 9, np.nan, SCORE)}, "score is NaN, first in row 5"),
        (IMAGES, {"score": SCORE[1:]}, "inconsistent numbers of samples"),
        (IMAGES, {"labels": SCORE[1:], "of": 3}, "inconsistent numbers of samples"),
        (IMAGES, {"labels": SCORE}, r"give labels .* and of .* together"),
        (IMAGES, {"of": 3}, r"give labels .* and of .* together"),
        (IMAGES, {"labels": SCORE, "of": 9}, "n_images=8 of 1 images of class 9 cannot be drawn"),
        (IMAGES, {"n_images": 0}, "n_images=0"),
    ],
)
def test_what_makes_no_gallery(images, params, message):
    with pytest.raises(ValueError, match=message):
        CertaintyGalleryDisplay.from_scores(images, **{"score": SCORE} | params)


def test_views_that_are_none():
    with pytest.raises(ValueError, match="augmentation='blur' is neither callable nor one of"):
        CertaintyGalleryDisplay.from_views(Brightness(), np.zeros((1, 2, 3)), "blur")
    with pytest.raises(ValueError, match=r"augmentation gave \(200, 1, 1, 3\)"):
        CertaintyGalleryDisplay.from_views(Brightness(), np.zeros((1, 2, 3)), lambda images: images[:, :, :1])


# -------------------------------------------------------------------------------------------------------- explanations


def labels_of(display):
    return [label.get_text() for label in display.ax_.get_yticklabels()]


def test_bars_of_a_row():
    shares = pd.DataFrame([[0.0, 0.0, 0.0], [0.5, -3.0, 0.25]], columns=["age", "dose", "ward"])
    rows = pd.DataFrame({"age": [1, 40], "dose": [1.0, 2.34567], "ward": ["a", "north"]})
    display = ExplanationDisplay.from_explanation(shares, rows, row=1, name="why")
    assert labels_of(display) == ["dose = 2.346", "age = 40", "ward = north"]
    assert [bar.get_width() for bar in display.bars_] == [-3.0, 0.5, 0.25]
    negative, positive, _ = (bar.get_facecolor() for bar in display.bars_)
    assert negative != positive
    assert display.ax_.get_title() == "why"
    # The largest is on top.
    assert display.ax_.yaxis_inverted()
    assert display.figure_ is display.ax_.figure


def test_features_that_contribute_little_share_a_bar():
    shares = np.array([[3.0, 0.1, -2.0, 0.2, -0.5]])
    display = ExplanationDisplay.from_explanation(shares, n_features=2)
    assert labels_of(display) == ["feature 0", "feature 2", "3 other features"]
    assert display.bars_[2].get_width() == pytest.approx(-0.2)
    # A bar for one other feature is that feature's.
    assert len(ExplanationDisplay.from_explanation(shares, n_features=4).bars_) == 5


def test_explanation_of_a_detector():
    pytest.importorskip("captum")
    frame = pd.DataFrame(X[:100], columns=["a", "b"])
    scaler = StandardScaler().set_output(transform="pandas")
    detector = make_pipeline(scaler, DUMDetector(hidden_sizes=(8,), max_epochs=2, random_state=0)).fit(frame)
    odd = pd.DataFrame([[0.0, 0.0], [0.0, 9.0]], columns=["a", "b"])
    display = ExplanationDisplay.from_estimator(detector, odd, row=1)
    expected = detector[-1].explain(detector[:-1].transform(odd))
    assert np.array_equal(display.contributions, expected.iloc[1])
    assert labels_of(display)[0] == "b = 9"
    assert display.ax_.get_title() == "Pipeline"
    plain = DUMDetector(hidden_sizes=(8,), max_epochs=2, random_state=0).fit(X[:100])
    plain = ExplanationDisplay.from_estimator(plain, np.array([[0.0, 9.0]]), reference=X[:80])
    assert labels_of(plain)[0] == "feature 1 = 9"


@pytest.mark.parametrize("flat", [False, True])
def test_maps_over_images(flat):
    pytest.importorskip("captum")
    images = np.random.default_rng(0).random((40, 1, 8, 8))
    rows = images.reshape(40, -1) if flat else images
    shape = (1, 8, 8) if flat else None
    detector = NegSampleVAE(max_epochs=2, random_state=0, contamination=0, image_shape=shape).fit(rows)
    display = ExplanationDisplay.from_estimator(detector, rows, row=3)
    assert np.array_equal(display.heat_map_.get_array(), detector.explain(rows[3:4])[0])
    assert np.array_equal(display.image, images[3])
    np.testing.assert_allclose(display.reconstruction, detector.reconstruct(images[3:4])[0])
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["image", "contributions", "reconstruction"]
    low, high = display.heat_map_.get_clim()
    assert low == -high
    other = ExplanationDisplay.from_estimator(detector, images if flat else images.reshape(40, -1), row=3)
    np.testing.assert_allclose(other.heat_map_.get_array(), display.heat_map_.get_array(), rtol=1e-5, atol=1e-9)


def test_a_map_is_drawn_where_it_belongs():
    fig, axes = mpl.pyplot.subplots(1, 2)
    maps, images = np.zeros((2, 4, 6)), np.zeros((2, 3, 4, 6), dtype=np.uint8)
    display = ExplanationDisplay.from_explanation(maps, images, ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is fig
    assert display.reconstruction is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"contributions": [1.0, 2.0]}, r"shape \(2,\)"),
        ({"contributions": np.zeros((1, 4, 4))}, "pass the images as X"),
        (
            {"contributions": np.zeros((1, 4, 4)), "X": np.zeros((1, 1, 4, 5))},
            r"have \(4, 4\) pixels, but the image has \(4, 5",
        ),
        ({"contributions": np.zeros((1, 4, 4)), "X": np.zeros((1, 2, 4, 4))}, "1 or 3 channels"),
        ({"contributions": [[1.0, 2.0]], "feature_names": ["a"]}, "feature_names holds 1 names"),
    ],
)
def test_refused_explanations(given, message):
    with pytest.raises(ValueError, match=message):
        ExplanationDisplay.from_explanation(**given)


class Lightness:
    """A detector of images of any shape and type, whose score is the mean of their pixels."""

    def score_samples(self, X):
        return X.reshape(len(X), -1).mean(1)


def test_a_gallery_of_floats_has_the_scale_of_the_image():
    """Named augmentations compute in [0, 1], and would make white squares of larger values."""
    image = np.random.default_rng(0).integers(0, 256, (3, 16, 16)).astype(np.uint8)
    options = {"n_views": 20, "n_images": 3, "random_state": 0}
    of_bytes, of_floats = (
        CertaintyGalleryDisplay.from_views(Lightness(), one, "simclr", **options) for one in (image, 1.0 * image)
    )
    assert len({float(score) for score in of_floats.score[0]}) == 3
    np.testing.assert_allclose(of_floats.score, of_bytes.score, atol=0.5)


def test_an_explained_image_is_reconstructed_as_the_detector_sees_it():
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8)).astype(np.uint8)
    smaller = FunctionTransformer(lambda X: (X[:, :, 2:6, 2:6] / 255).astype(np.float32))
    pipeline = make_pipeline(smaller, NegSampleVAE(max_epochs=1, contamination=0, random_state=0)).fit(images)
    wrapped = ConformalDetector(FrozenEstimator(pipeline), random_state=0).fit(images)
    for explained in (pipeline, wrapped):
        display = ExplanationDisplay.from_estimator(explained, images, row=3)
        expected = pipeline[-1].reconstruct(smaller.transform(images[3:4]))[0]
        np.testing.assert_allclose(np.squeeze(display.reconstruction), np.squeeze(expected), atol=1e-6)
