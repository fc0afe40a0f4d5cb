"""Contributions of features to scores: they add up, they depend on their row alone, and they name what is off."""

import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from configurations import CONFIGURATIONS, FAST, WRAPPERS, public_estimators, what_to_write
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from skood import (
    BackboneClassifier,
    ConformalDetector,
    DUMDetector,
    FrozenEncoder,
    NegSampleVAE,
    OODScorer,
    OpenSetClassifier,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    ThresholdedDetector,
)
from skood.estimator import Detector
from skood.estimator.explain import Ways, _Apart, by_gradients
from skood.model_selection import DropOutliers, HideLabels
from skood.scores import METHODS

pytest.importorskip("captum")

EXPLAINING = {name: one for name, one in (CONFIGURATIONS | WRAPPERS).items() if isinstance(one, Detector)}
NAMES = ["age", "dose", "weight"]


def line(n=120, seed=0):
    """Rows along a line in three dimensions."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) @ [[1.0, -1.0, 0.5]] + 0.1 * rng.normal(size=(n, 3))


X = line()
FRAME = pd.DataFrame(X, columns=NAMES, index=np.arange(len(X)) * 2)
ODD = X[:6] + 3 * np.eye(3)[[0, 1, 2, 0, 1, 2]]


def fitted_once(detector, X=X):
    quick = {"random_state": 0} if "random_state" in detector.get_params() else {}
    return clone(detector).set_params(contamination=0.1, **quick).fit(X)


@pytest.fixture(scope="module")
def models():
    return {}


@pytest.fixture(params=[pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in EXPLAINING])
def model(request, models):
    """A fitted detector, the same one for all tests."""
    if request.param not in models:
        models[request.param] = fitted_once(EXPLAINING[request.param], FRAME)
    return models[request.param]


def test_every_public_detector_is_here():
    missing = what_to_write(public_estimators(Detector), "CONFIGURATIONS or WRAPPERS", EXPLAINING)
    assert not missing, "\n".join(missing)


def summed(contributions):
    return np.asarray(contributions).reshape(len(contributions), -1).sum(1)


def test_contributions_add_up(model):
    frame = pd.DataFrame(ODD, columns=NAMES, index=list("abcdef"))
    contributions = model.explain(frame)
    expected = model.score_samples(frame) - np.median(model.training_scores_)
    np.testing.assert_allclose(summed(contributions), expected, rtol=1e-9, atol=1e-9)
    if model.image_shape_ is None:
        pd.testing.assert_index_equal(contributions.index, frame.index)
        assert list(contributions.columns) == NAMES
    else:
        assert contributions.shape == (6, 1, 3)
    assert np.asarray(contributions).dtype == np.float64


def test_integrated_gradients_add_up_by_themselves(model):
    """To 3 %, before what is missing is shared out."""
    median = np.median(model.training_scores_)
    # One that is all but the median, too.
    usual = np.abs(model.score_samples(FRAME) - median).argmin()
    rows = np.vstack([ODD[:3], X[usual]])
    differences = model.score_samples(pd.DataFrame(rows, columns=NAMES)) - median
    spread = np.subtract(*np.quantile(model.training_scores_, [0.75, 0.25]))
    ways = Ways(model.to_torch(), np.asarray(model._reference), median, spread)
    found = np.array([ways.share(row, difference).sum() for row, difference in zip(rows, differences, strict=True)])
    np.testing.assert_allclose(found, differences, rtol=0.03, atol=0.03 * spread)


def test_a_row_is_explained_alone_as_among_others(model):
    frame = FRAME[:3]
    contributions = np.asarray(model.explain(frame))
    assert np.array_equal(np.asarray(model.explain(frame)), contributions)
    assert np.array_equal(np.asarray(model.explain(frame[::-1]))[::-1], contributions)
    alone = np.concatenate([np.asarray(model.explain(frame[row : row + 1])) for row in range(3)])
    assert np.array_equal(alone, contributions)


def test_rows_without_names_are_warned_of_once(model):
    with pytest.warns(UserWarning, match="feature names") as caught:
        model.explain(X[:1])
    assert len(caught) == 1


def test_explaining_leaves_all_as_it_was(model):
    before, scores = set(vars(model)), model.score_samples(FRAME)
    state = torch.get_rng_state()
    with torch.inference_mode():
        model.explain(FRAME[:2])
    assert torch.equal(torch.get_rng_state(), state)
    assert set(vars(model)) == before
    assert np.array_equal(model.score_samples(FRAME), scores)


def test_rows_are_refused_as_elsewhere(model):
    frame = FRAME[:3].copy()
    with pytest.raises(ValueError, match="feature names"):
        model.explain(frame[["dose", "age", "weight"]])
    frame.iloc[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"row 1, (feature 2|column 'weight')|NaN") as explained:
        model.explain(frame)
    with pytest.raises(ValueError, match=r".") as scored:
        model.score_samples(frame)
    assert str(explained.value) == str(scored.value)


# ------------------------------------------------------------------------------------------------------ what they say


def correlated(n=400, seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 2))
    return hidden @ np.random.default_rng(7).normal(size=(2, 6)) + 0.3 * rng.normal(size=(n, 6))


TRAINED = {"max_epochs": 25, "batch_size": 64, "hidden_sizes": (32,), "contamination": 0.05, "random_state": 0}


@pytest.mark.parametrize(
    "detector",
    [
        DUMDetector(**TRAINED),
        NegSampleVAE(**TRAINED),
        RejectClassDetector(**TRAINED),
        RotationAuxClassifier(**TRAINED),
        ResidualAdapterDetector(**TRAINED, pretrain_epochs=10),
    ],
    ids=lambda detector: type(detector).__name__,
)
def test_the_planted_feature_is_named_first(detector):
    X, new = correlated(), correlated(30, seed=1)
    planted = np.arange(30) % 6
    new[np.arange(30), planted] += 6 * X.std(0)[planted]
    model = clone(detector).fit(X)
    found = model.predict(new) == -1
    assert found.mean() > 0.7
    named = model.explain(new[found]).argmin(1)
    assert (named == planted[found]).mean() >= 0.8


def squares(n=120, seed=0):
    """Images of 8 x 8 pixels with two channels: noise around a bright bar."""
    X = 0.3 * np.random.default_rng(seed).random((n, 2, 8, 8))
    X[:, :, 3:5] += 0.5
    return X


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_maps_of_images(uint8, flat):
    X, new = squares(), squares(4, seed=1)
    new[:, :, :3, 5:] = 1.0
    if uint8:
        X, new = (np.rint(255 * rows).astype(np.uint8) for rows in (X, new))
    if flat:
        X, new = X.reshape(len(X), -1), new.reshape(len(new), -1)
    detector = NegSampleVAE(max_epochs=5, random_state=0, contamination=0, image_shape=(2, 8, 8) if flat else None)
    model = detector.fit(X)
    maps = model.explain(new)
    assert maps.shape == (4, 8, 8)
    expected = model.score_samples(new) - np.median(model.training_scores_)
    np.testing.assert_allclose(maps.sum((1, 2)), expected, rtol=1e-9)
    # The patch is 9 of 64 pixels.
    assert (maps[:, :3, 5:].sum((1, 2)) / maps.sum((1, 2)) > 0.7).all()


@pytest.mark.parametrize("fitted_flat", [False, True])
@pytest.mark.parametrize(
    "detector",
    [
        DUMDetector(hidden_sizes=(8,), max_epochs=1, contamination=0, random_state=0),
        OODScorer(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2)), "msp"),
    ],
    ids=lambda detector: type(detector).__name__,
)
def test_images_are_explained_flattened_as_in_their_shape(detector, fitted_flat):
    """Whichever of the two the detector was fitted on, and normal images, too."""
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    flat = images.reshape(20, -1)
    model = clone(detector).set_params(image_shape=(3, 8, 8) if fitted_flat else None)
    model.fit(flat if fitted_flat else images)
    maps = model.explain(images[:1])
    assert maps.shape == (1, 8, 8)
    for X, reference in ((flat, None), (images, flat), (flat, images)):
        # All training images are kept, so the reference is the same.
        found = model.explain(X[:1], reference=reference)
        np.testing.assert_allclose(found, maps, atol=1e-6 * np.abs(maps).max())


def test_of_an_embedding_it_is_about_the_rows_before_the_encoder():
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(128, 5))
    model = DUMDetector(encoder=FrozenEncoder(encoder).fit(squares()), max_epochs=2, random_state=0, contamination=0)
    assert model.fit(squares()).explain(squares(2, seed=1)).shape == (2, 8, 8)


class Square(torch.nn.Module):
    """Scores whose integrated gradients are known: minus the weighted sum of squares."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 4.0], dtype=torch.float64), requires_grad=False)

    def forward(self, rows):
        return -(rows.square() * self.weight).sum(1)


def test_integrated_gradients_by_hand():
    """From 0 a feature contributes its own square."""
    rows = np.array([[3.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    found = by_gradients(Square(), rows, np.array([-13.0, -16.0, 0.0]), np.zeros((1, 2)), 0.0)
    np.testing.assert_allclose(found, [[-9, -4], [0, -16], [0, 0]], atol=1e-9)


def test_normal_rows_weigh_such_that_their_mean_score_is_the_median():
    """Of two rows with scores -1 and -4 and the median -2, the first weighs 2/3."""
    normal = np.array([[1.0, 0.0], [2.0, 0.0]])
    found = by_gradients(Square(), np.array([[2.0, 1.0]]), np.array([-8.0]), normal, -2.0)
    np.testing.assert_allclose(found, [[-2, -4]], atol=1e-9)


def test_where_no_row_scores_above_the_median_those_at_the_median_are_compared_with():
    """Not the nearer ones, which score lower."""
    normal = np.array([[0.0, 0.0], [2.0, 0.5], [2.0, 0.5], [0.0, 0.0]])
    found = by_gradients(Square(), np.array([[2.0, 1.0]]), np.array([-8.0]), normal, 0.0)
    np.testing.assert_allclose(found, [[-4, -4]], atol=1e-9)


class Entropy(torch.nn.Module):
    """Scores whose gradient is infinite at 0."""

    def forward(self, rows):
        return torch.special.entr(rows).sum(1)


def test_what_does_not_differ_contributes_nothing_where_its_gradient_is_infinite():
    rows = np.array([[0.0, 0.5, 1.0]])
    found = by_gradients(Entropy(), rows, np.array([np.log(2) / 2]), np.array([[0.0, 1.0, 1.0]]), 0.0)
    np.testing.assert_allclose(found, [[0.0, np.log(2) / 2, 0.0]])


def test_a_score_without_gradient_is_explained_by_samples():
    class Infinite(torch.nn.Module):
        def forward(self, rows):
            return -rows[:, 0] + (rows[:, 1] * 0).sqrt()

    rows = np.array([[2.0, 1.0]])
    np.testing.assert_allclose(by_gradients(Infinite(), rows, np.array([-2.0]), np.zeros((1, 2)), 0.0), [[-2, 0]])


def test_a_score_that_jumps():
    class Step(torch.nn.Module):
        def forward(self, rows):
            return -(rows[:, 0] > 1).double() + 0 * rows.sum(1)

    rows, scores = np.array([[2.0, 5.0], [0.0, 0.0]]), np.array([-1.0, 0.0])
    np.testing.assert_allclose(by_gradients(Step(), rows, scores, np.zeros((1, 2)), 0.0), [[-1, 0], [0, 0]])
    many = np.zeros((2, 300))
    many[:, :2] = rows
    with pytest.warns(RuntimeWarning, match="1 of 2 rows missed more than a tenth"):
        found = by_gradients(Step(), many, scores, np.zeros((1, 300)), 0.0)
    np.testing.assert_allclose(found.sum(1), [-1, 0])


def test_the_nearest_normal_rows_are_compared_with():
    """Two groups, in which other values are usual: what is usual in its own group contributes little."""
    rng = np.random.default_rng(0)
    groups = np.repeat([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]], 150, axis=0)
    X = groups + 0.3 * rng.normal(size=(300, 3))
    model = DUMDetector(max_epochs=20, random_state=0, contamination=0.05).fit(X)
    contributions = model.explain([[0.0, 4.0, 0.0], [9.0, 9.0, 5.0]])
    assert contributions.argmin(1).tolist() == [1, 2]
    shares = contributions.min(1) / contributions.sum(1)
    assert (shares > 0.7).all()


# ------------------------------------------------------------------------------------------------- classifiers' scores


class Layers(torch.nn.Sequential):
    """A classifier of three features, with a ReLU before the linear layer."""

    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))


# "rotation" needs a network of its own kind.
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"rotation"}))
def test_scores_of_a_network(method):
    """Also that of a gradient, and of rows that are moved first."""
    params = {"epsilon": 0.01} if METHODS[method].may_move or method == "odin" else None
    model = OODScorer(Layers(), method, method_params=params).fit(X)
    contributions = model.explain(ODD)
    assert (np.abs(contributions).max(1) > 0).all()
    expected = model.score_samples(ODD) - np.median(model.training_scores_)
    np.testing.assert_allclose(contributions.sum(1), expected, rtol=1e-9, atol=1e-9)


def visits(n=200, seed=0):
    """A table with text that depends on a number, and the classes that both follow."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    return pd.DataFrame({"a": y + 0.1 * rng.normal(size=n), "b": np.where(y, "yes", "no"), "c": rng.normal(size=n)}), y


@pytest.mark.parametrize("classifier", [LogisticRegression(C=100), RandomForestClassifier(20, random_state=0)])
def test_scores_of_what_is_no_network(classifier):
    table, y = visits()
    encode = make_column_transformer((OneHotEncoder(), ["b"]), remainder="passthrough")
    model = OODScorer(make_pipeline(encode, classifier).fit(table, y), "msp").fit(table, y)
    odd = table[:6].assign(b=np.where(y[:6], "no", "yes"))
    contributions = model.explain(odd)
    assert list(contributions.columns) == ["a", "b", "c"]
    assert contributions.index.equals(odd.index)
    expected = model.score_samples(odd) - np.median(model.training_scores_)
    np.testing.assert_allclose(contributions.sum(axis=1), expected, atol=1e-9)
    assert np.array_equal(model.explain(odd[::-1])[::-1], contributions)
    # The nearest normal rows agree in two of three columns.
    assert set(contributions.abs().idxmax(axis=1)) <= {"a", "b"}


def test_a_score_that_most_rows_share():
    """A tree is sure of most rows; in the others the labels are noise, which only the second feature tells."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, size=(600, 4))
    y, noisy = (rows[:, 0] > 0).astype(int), rows[:, 1] > 0.2
    y[noisy] = rng.integers(2, size=noisy.sum())
    tree = DecisionTreeClassifier(max_depth=4, min_samples_leaf=20, random_state=0).fit(rows, y)
    model = OODScorer(tree, "msp").fit(rows, y)
    median = np.median(model.training_scores_)
    assert model.training_scores_.max() == median
    new = rng.uniform(-1, 1, size=(40, 4)) * [1, 0, 1, 1] + [0, 0.7, 0, 0]
    contributions = model.explain(new)
    assert (contributions[:, 1] < 0.7 * (model.score_samples(new) - median)).all()


def test_samples_of_arrays_add_up():
    y = (X[:, 0] > 0).astype(int)
    model = OODScorer(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y), "mahalanobis").fit(X, y)
    contributions = model.explain(ODD.tolist())
    assert isinstance(contributions, np.ndarray)
    expected = model.score_samples(ODD) - np.median(model.training_scores_)
    np.testing.assert_allclose(contributions.sum(1), expected, atol=1e-9)
    assert (contributions.argmin(1) == [0, 1, 2, 0, 1, 2]).mean() >= 0.8


def test_sparse_rows_of_what_is_no_network_are_refused():
    y = (X[:, 0] > 0).astype(int)
    model = OODScorer(LogisticRegression().fit(csr_array(X), y)).fit(csr_array(X), y)
    with pytest.raises(ValueError, match="neither images nor sparse rows"):
        model.explain(csr_array(X))


# ------------------------------------------------------------------------------------------- what they compare with


QUICK = DUMDetector(hidden_sizes=(16,), max_epochs=4, contamination=0.1, random_state=0)


def test_a_reference_takes_the_place_of_the_training_rows():
    model = clone(QUICK).fit(FRAME)
    assert model.explain(FRAME[:3], reference=FRAME).equals(model.explain(FRAME[:3]))
    contributions = model.explain(FRAME[:3], reference=FRAME[:40])
    assert not contributions.equals(model.explain(FRAME[:3]))
    expected = model.score_samples(FRAME[:3]) - np.median(model.training_scores_)
    np.testing.assert_allclose(contributions.sum(axis=1), expected)
    with pytest.raises(ValueError, match="on one side"):
        model.explain(FRAME, reference=20 * FRAME + 50)
    with pytest.raises(ValueError, match="feature names"):
        model.explain(FRAME, reference=FRAME[["dose", "age", "weight"]])


def test_adapters_from_a_file_need_a_reference(tmp_path):
    backbone = BackboneClassifier(hidden_sizes=(16,), max_epochs=2, random_state=0).fit(X, X[:, 0] > 0)
    model = ResidualAdapterDetector(backbone, max_epochs=2, random_state=0, contamination=0.1, outliers=None).fit(X)
    model.save_adapters(tmp_path / "adapters.npz")
    loaded = ResidualAdapterDetector(backbone, outliers=None).load_adapters(tmp_path / "adapters.npz")
    with pytest.raises(ValueError, match=r"explain\(X, reference=rows\)"):
        loaded.explain(ODD)
    np.testing.assert_allclose(loaded.explain(ODD, reference=X), model.explain(ODD), rtol=1e-5, atol=1e-6)


def test_calibrated_detectors_compare_with_the_rows_they_were_calibrated_on():
    y = np.where(X[:, 0] > 0, "high", "low")
    model = RejectClassDetector(hidden_sizes=(16,), max_epochs=4, contamination=0.1, random_state=0).fit(X, y)
    model.calibrate(X[:50], y[:50])
    expected = model.score_samples(ODD) - np.median(model.training_scores_)
    np.testing.assert_allclose(model.explain(ODD).sum(1), expected)


def test_copies_explain_alike():
    model = clone(QUICK).fit(X)
    copied = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copied.explain(ODD), model.explain(ODD))


def test_large_rows_are_kept_two_by_two():
    images = np.random.default_rng(0).random((6, 3, 64, 96))
    encoder = torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten())
    model = clone(QUICK).set_params(encoder=encoder, contamination=0).fit(images)
    assert len(pickle.dumps(model)) < 3 * images[0].nbytes + 100_000
    assert model.explain(images[:1]).shape == (1, 64, 96)


def test_a_network_that_works_in_place():
    network = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(3, 3))
    model = clone(QUICK).set_params(network=network, scaling=None).fit(X)
    before = ODD.copy()
    contributions = model.explain(ODD)
    assert np.array_equal(ODD, before)
    np.testing.assert_allclose(contributions.sum(1), model.score_samples(ODD) - np.median(model.training_scores_))


# ------------------------------------------------------------------------------------------------------ around others


@pytest.mark.parametrize(
    "wrapper",
    [ThresholdedDetector(QUICK), ConformalDetector(QUICK, random_state=0), DropOutliers(QUICK), HideLabels(QUICK)],
    ids=lambda wrapper: type(wrapper).__name__,
)
def test_wrappers_explain_as_their_detector(wrapper):
    model = wrapper.fit(FRAME)
    assert model.explain(FRAME[:3]).equals(model.estimator_.explain(FRAME[:3]))
    assert model.explain(FRAME[:3], reference=FRAME[:50]).equals(
        model.estimator_.explain(FRAME[:3], reference=FRAME[:50])
    )
    assert hasattr(wrapper, "explain")
    assert not hasattr(clone(wrapper).set_params(estimator=IsolationForest()), "explain")


def test_wrappers_of_a_pipeline_explain_what_its_last_step_is_given():
    model = ThresholdedDetector(make_pipeline(MinMaxScaler(), QUICK)).fit(X)
    scaler, detector = model.estimator_
    assert np.array_equal(model.explain(ODD), detector.explain(scaler.transform(ODD)))
    np.testing.assert_array_equal(
        model.explain(ODD, reference=X[:50]),
        detector.explain(scaler.transform(ODD), reference=scaler.transform(X[:50])),
    )


def test_a_classifier_that_may_reject_explains_as_its_detector():
    detector = RejectClassDetector(hidden_sizes=(16,), max_epochs=4, contamination=0.1, random_state=0)
    model = OpenSetClassifier(detector).fit(X, (X[:, 0] > 0).astype(int))
    assert np.array_equal(model.explain(ODD), model.detector_.explain(ODD))


# ---------------------------------------------------------------------------------------------------------- refusals


def test_without_captum(monkeypatch):
    model = clone(QUICK).fit(X)
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r'pip install "skood\[explain\]"'):
        model.explain(ODD)


def test_before_fit(model):
    with pytest.raises(NotFittedError):
        clone(model).explain(X)


def test_columns_with_missing_values_are_compared_by_the_others():
    """Whatever their scale: a missing value says nothing of the spread of a column."""
    normal = np.random.default_rng(0).normal(size=(6, 2)) * [1000, 0.01]
    row = normal[:1].copy()
    whole = _Apart(normal).distances(row)
    normal[5, 0] = normal[4, 1] = np.nan
    found = _Apart(normal).distances(row)
    np.testing.assert_allclose(found[:4], whole[:4], rtol=0.7)
    assert found.argmin() == 0


def test_nullable_columns_are_explained():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    flag = (table["b"] > 0).astype("boolean")
    flag[::7] = pd.NA
    table["flag"], table["count"] = flag, rng.integers(0, 9, 60)
    table["count"] = table["count"].astype("Int64").where(flag.notna())
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression()).fit(table, np.arange(60) % 2)
    detector = OODScorer(pipeline, contamination=0).fit(table)
    shares = detector.explain(table)
    assert np.isfinite(shares.to_numpy()).all()
    gaps = detector.score_samples(table) - np.median(detector.score_samples(table))
    np.testing.assert_allclose(shares.sum(axis=1), gaps, atol=1e-6)
