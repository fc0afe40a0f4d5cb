"""Models that onnxruntime runs give the scores, labels and probabilities of the estimators that they were made of."""

import json
import sys

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import sklearn
import torch
from configurations import CLASSIFIERS, ENCODERS, SMALL, RowStatistics, named
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

import skood
from skood import (
    BackboneClassifier,
    ConformalDetector,
    DUMDetector,
    FitOnInliers,
    FrozenEncoder,
    OODScorer,
    OpenSetClassifier,
    RejectClassDetector,
    ThresholdedDetector,
)
from skood.estimator import ClassScores
from skood.export import to_onnx

DUM = DUMDetector(**SMALL, contamination=0.1, random_state=0)
COLUMNS = ["a", "b", "c d"]


def rows(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) @ [[1.0, -1.0, 0.5]] + 0.1 * rng.normal(size=(n, 3))


X = rows()
X_NEW = rows(60, seed=1)
Y = np.where(X[:, 0] > 0, "up", "down")


def session_of(estimator, path, X):
    to_onnx(estimator, path, X)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    return onnxruntime.InferenceSession(path)


def answers(session, fed):
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, fed), strict=True))


def check(given, estimator, X):
    """Compare what a model gives with what the estimator says; at most 1e-5 of the scores' range apart."""
    scores = estimator.score_samples(X)
    rounding = 1e-5 * np.ptp(estimator.score_samples(rows()) if isinstance(X, np.ndarray) else scores)
    np.testing.assert_allclose(given["score"], scores, rtol=1e-5, atol=rounding)
    decision = estimator.decision_function(X)
    np.testing.assert_allclose(given["decision"], decision, rtol=1e-5, atol=rounding)
    sure = np.abs(decision) > 2 * rounding
    assert sure.mean() > 0.9
    assert np.array_equal(given["label"][sure], estimator.predict(X)[sure])


@pytest.fixture(scope="module", params=named()["argvalues"])
def detector(request):
    """A detector of each configuration, fitted."""
    detector = clone(request.param).set_params(random_state=0, contamination=0.1)
    return detector.fit(X, Y if isinstance(detector, ClassScores) else None)


def test_every_detector(detector, tmp_path):
    session = session_of(detector, tmp_path / "model.onnx", X)
    for some in (X_NEW, X_NEW[:1], X_NEW[:7], X):
        given = answers(session, {"X": some})
        assert given["score"].dtype == given["decision"].dtype == np.float64
        check(given, detector, some)
        assert ("probability" in given) == hasattr(detector, "predict_proba")
        if "probability" in given:
            np.testing.assert_allclose(given["probability"], detector.predict_proba(some), atol=1e-5)


def test_torch_exports_every_detector(detector):
    module, some = detector.to_torch(), torch.tensor(X_NEW)
    exported = torch.export.export(module, (some[:3],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    scores = module(some)
    for n_rows in (1, len(some)):
        np.testing.assert_allclose(exported(some[:n_rows]), scores[:n_rows], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A detector, and the model of it."""
    detector = clone(DUM).fit(X)
    return detector, session_of(detector, tmp_path_factory.mktemp("written") / "model.onnx", X)


@settings(max_examples=20)
@given(places=st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=300))
def test_any_rows_in_any_number(places, written):
    detector, session = written
    check(answers(session, {"X": X[places]}), detector, X[places])


@pytest.fixture(scope="module")
def of_a_table(tmp_path_factory):
    """A detector with classes of a table of whole numbers, the model of it, and the table."""
    frame = pd.DataFrame(np.round(100 * X).astype(np.int32), columns=COLUMNS)
    detector = RejectClassDetector(**SMALL, contamination=0.1, random_state=0).fit(frame, Y)
    return detector, session_of(detector, tmp_path_factory.mktemp("table") / "model.onnx", frame), frame


def test_metadata(of_a_table):
    detector, session, _ = of_a_table
    facts = session.get_modelmeta().custom_metadata_map
    assert facts == {
        "skood": skood.__version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "estimator": "RejectClassDetector",
        "threshold": repr(detector.offset_),
        "feature_names": json.dumps(COLUMNS),
        "classes": '["down", "up"]',
    }
    assert float(facts["threshold"]) == detector.offset_


def test_whole_numbers_become_float64(of_a_table):
    detector, session, frame = of_a_table
    check(answers(session, {"X": frame.to_numpy(float)}), detector, frame)


METHODS = ("mahalanobis", "react", "openmax", "knn")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_scores_of_a_classifier(name, tmp_path):
    scorer = OODScorer(RowStatistics(), name).fit(X)
    session = session_of(scorer, tmp_path / "model.onnx", X)
    for some in (X_NEW, X_NEW[:1]):
        given = answers(session, {"X": some})
        # The network's float32 is what they differ by; it is multiplied by the precision of features.
        rounding = 1e-4 if name == "mahalanobis" else 1e-5
        np.testing.assert_allclose(given["score"], scorer.score_samples(some), rtol=rounding, atol=rounding)
        np.testing.assert_allclose(given["probability"], scorer.predict_proba(some), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ENCODERS, *CLASSIFIERS])
def test_every_encoder(name, tmp_path):
    encoder = clone({**ENCODERS, **CLASSIFIERS}[name])
    if not isinstance(encoder, FrozenEncoder):
        encoder.set_params(random_state=0, max_epochs=1)
    encoder.fit(X, Y if is_classifier(encoder) else None)
    # What an estimator returns to its user is no concern of the model.
    session = session_of(encoder.set_output(transform="pandas"), tmp_path / "model.onnx", X)
    encoder.set_output(transform="default")
    for some in (X_NEW, X_NEW[:1]):
        given = answers(session, {"X": some})
        assert given["features"].dtype == np.float64
        np.testing.assert_allclose(given["features"], encoder.transform(some), rtol=1e-5, atol=1e-6)
    module, n_out = encoder.to_torch(), len(encoder.get_feature_names_out())
    assert module(torch.tensor(X_NEW)).shape == (len(X_NEW), n_out)
    # It is a copy: what becomes of it is none of the encoder's business.
    features = encoder.transform(X_NEW)
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data.zero_()
    assert np.array_equal(encoder.transform(X_NEW), features)


WITH_GAPS = X.copy()
WITH_GAPS[::5, 1] = np.nan
PIPELINES = {
    "imputer, pca": (
        make_pipeline(SimpleImputer(), make_pipeline(RobustScaler(), PCA(2)), "passthrough", DUM),
        WITH_GAPS,
    ),
    "wrapped": (ThresholdedDetector(make_pipeline(FitOnInliers(StandardScaler()), DUM), contamination=0.3), X),
    "conformal, of float32": (
        ConformalDetector(make_pipeline(MinMaxScaler(), DUM), alpha=0.3, random_state=0),
        X.astype(np.float32),
    ),
    "encoder between": (
        make_pipeline(StandardScaler(), FrozenEncoder(RowStatistics(), layer="hidden"), StandardScaler(), DUM),
        X,
    ),
    "classifier before": (
        make_pipeline(BackboneClassifier(hidden_sizes=(16,), max_epochs=3, random_state=0), StandardScaler(), DUM),
        X,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines(name, tmp_path):
    pipeline, some = PIPELINES[name]
    pipeline = clone(pipeline).fit(some, np.where(Y == "up", 1, -1) if name == "classifier before" else None)
    session = session_of(pipeline, tmp_path / "model.onnx", some)
    for n_rows in (1, len(some)):
        given = answers(session, {"X": some[:n_rows]})
        scores = pipeline.score_samples(some)
        np.testing.assert_allclose(given["score"], scores[:n_rows], rtol=1e-5, atol=2e-5 * np.ptp(scores))
        sure = np.abs(pipeline.decision_function(some[:n_rows])) > 1e-4 * np.ptp(scores)
        assert np.array_equal(given["label"][sure], pipeline.predict(some[:n_rows])[sure])


@pytest.mark.parametrize(
    "imputer", [{"missing_values": 0.0}, {"missing_values": -1}, {"strategy": "constant"}], ids=str
)
def test_what_an_imputer_takes_for_missing(imputer, tmp_path):
    """Also if no row that the model is compared on lacks a value: NaN alone was filled, whatever the parameter said."""
    marker = imputer.get("missing_values", np.nan)
    imputer = SimpleImputer(**imputer).fit(X)
    new = X_NEW[:6].copy()
    new[::2, 1] = marker
    encoder = make_pipeline(imputer, FrozenEncoder(RowStatistics()).fit(X))
    session = session_of(encoder, tmp_path / "model.onnx", X)
    np.testing.assert_allclose(answers(session, {"X": new})["features"], encoder.transform(new), rtol=1e-5, atol=1e-6)


def table(n=200):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rows(n), columns=COLUMNS).assign(
        city=rng.choice(["Bern", "Oslo"], n), grade=rng.integers(3, size=n)
    )
    return frame.assign(unused="?")


def test_a_table_with_text(tmp_path):
    frame = table()
    frame.loc[::7, "b"] = np.nan
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), ["city", "grade"]),
        (make_pipeline(SimpleImputer(), StandardScaler()), COLUMNS),
    )
    pipeline = make_pipeline(columns, clone(DUM)).fit(frame)
    session = session_of(pipeline, tmp_path / "model.onnx", frame)
    assert [one.name for one in session.get_inputs()] == list(frame.columns)
    new = table(30)
    new.loc[3, "city"] = "Rome"
    fed = {name: new[[name]].to_numpy(object if name in ("city", "unused") else None) for name in new}
    check(answers(session, fed), pipeline, new)


def of_columns(names):
    """Return a Pipeline whose inputs have these names, fitted, and its rows."""
    frame = pd.DataFrame(X, columns=names)
    columns = make_column_transformer((StandardScaler(), names[:2]), remainder="passthrough")
    return make_pipeline(columns, StandardScaler(), clone(DUM)).fit(frame), frame


def test_columns_with_the_names_of_values_within_the_model(tmp_path):
    # The result of a scaler, of an operation of torch, and what the parts of a model call their input.
    names = ["variable", "mean", "X"]
    pipeline, frame = of_columns(names)
    session = session_of(pipeline, tmp_path / "model.onnx", frame)
    assert [one.name for one in session.get_inputs()] == names
    check(answers(session, {name: frame[[name]].to_numpy() for name in names}), pipeline, frame)


@pytest.mark.parametrize("name", ["score", "label"])
def test_columns_with_the_names_of_outputs_are_refused(name, tmp_path):
    pipeline, frame = of_columns(["a", "b", name])
    with pytest.raises(ValueError, match=f"column '{name}' has the name of an output of the model; rename it before"):
        to_onnx(pipeline, tmp_path / "model.onnx", frame)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_flattened_images_of_bytes(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, size=(40, 3 * 8 * 8), dtype=np.uint8)
    detector = RejectClassDetector(
        network="resnet-8-2", max_epochs=1, image_shape=(3, 8, 8), contamination=0, random_state=0
    ).fit(images)
    session = session_of(detector, tmp_path / "model.onnx", images)
    assert session.get_inputs()[0].type == "tensor(uint8)"
    scores = detector.score_samples(images)
    np.testing.assert_allclose(answers(session, {"X": images})["score"], scores, atol=1e-5 * np.ptp(scores))


@pytest.mark.slow
def test_an_open_set_classifier(tmp_path):
    """Its detector's answers are written."""
    classifier = OpenSetClassifier(RejectClassDetector(**SMALL, contamination=0.1, random_state=0), reject_label="?")
    classifier.fit(X, Y)
    given = answers(session_of(FrozenEstimator(classifier), tmp_path / "model.onnx", X), {"X": X_NEW})
    check(given, classifier.detector_, X_NEW)
    classes = classifier.known_classes_[given["probability"].argmax(1)]
    assert np.array_equal(np.where(given["label"] == 1, classes, "?"), classifier.predict(X_NEW))


class Lossy(torch.nn.Linear):
    """It takes what is no number for 0, and cuts off large numbers."""

    def forward(self, rows):
        return super().forward(torch.where(rows > -1e9, rows, 0).clamp(max=9))


@pytest.mark.parametrize("before", [False, True], ids=["detector", "encoder"])
def test_rows_that_the_estimator_refuses_are_outliers(before, tmp_path):
    """Also if the network loses NaN and infinity on the way; an encoder before the detector passes them on."""
    estimator = clone(DUM) if before else OODScorer(Lossy(3, 2), "energy", contamination=0)
    if before:
        estimator = make_pipeline(FrozenEncoder(torch.nn.Sequential(Lossy(3, 5), torch.nn.Linear(5, 2))), estimator)
    session = session_of(estimator.fit(X), tmp_path / "model.onnx", X)
    some = X_NEW[:4].copy()
    some[0, 1], some[1, 0], some[2, 2] = np.nan, np.inf, -np.inf
    given = answers(session, {"X": some})
    assert np.isnan(given["score"]).tolist() == np.isnan(given["decision"]).tolist() == [True] * 3 + [False]
    assert given["label"][:3].tolist() == [-1] * 3
    np.testing.assert_allclose(given["score"][3:], estimator.score_samples(some[3:]), rtol=1e-5, atol=1e-5)


class Counting(torch.nn.Linear):
    """The number of rows becomes a constant of a trace."""

    def forward(self, rows):
        return super().forward(rows.view(len(rows), -1))


class Branching(torch.nn.Linear):
    """What it computes depends on numbers in the rows."""

    def forward(self, rows):
        return super().forward(-rows if rows.sum() > 1e9 else rows)


REFUSED = {
    "odin": (OODScorer(RowStatistics(), "odin"), "its score, 'odin', needs gradients"),
    "moved": (OODScorer(RowStatistics(), "mahalanobis", method_params={"epsilon": 0.1}), "needs gradients"),
    "classifier": (OODScorer(FrozenEstimator(LogisticRegression()), "energy"), "holds more than a network"),
    "step": (make_pipeline(FunctionTransformer(np.tanh), DUM), "step 'functiontransformer', FunctionTransformer"),
    # What skl2onnx takes, but writes wrongly.
    "types": (make_pipeline(KBinsDiscretizer(5, encode="onehot-dense"), DUM), "step 'kbinsdiscretizer', KBinsD.*valid"),
    "powers": (make_pipeline(PolynomialFeatures(2), DUM), "step 'polynomialfeatures', Poly.*Replace it, or write the"),
    "columns": (
        make_pipeline(SimpleImputer(add_indicator=True), DUM),
        "step 'simpleimputer', .* 3 columns, the step 4",
    ),
    "results": (make_pipeline(KMeans(4), DUM), "step 'kmeans', KMeans, .* 2 results"),
    "other": (make_pipeline(StandardScaler(), IsolationForest()), "estimator=IsolationForest cannot be written"),
    "network": (OODScorer(Branching(3, 2), "energy"), "torch cannot export its network"),
    "number of rows": (OODScorer(Counting(3, 2), "energy"), r"takes the number of rows for a constant, .* rows.shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_is_refused(name, tmp_path):
    estimator, message = REFUSED[name]
    if name == "classifier":
        estimator = OODScorer(LogisticRegression().fit(X, Y), "energy")
    path = tmp_path / "model.onnx"
    path.write_text("an earlier one")
    some = WITH_GAPS if name == "columns" else X
    estimator = clone(estimator).fit(some)
    with pytest.raises(ValueError, match=message):
        to_onnx(estimator, path, some)
    assert path.read_text() == "an earlier one"
    assert len(list(tmp_path.iterdir())) == 1


def test_rows_of_another_kind_are_refused(written, tmp_path):
    with pytest.raises(ValueError, match="features"):
        to_onnx(written[0], tmp_path / "model.onnx", X[:, :2])


def test_rows_whose_scores_do_not_differ_show_nothing(tmp_path):
    """The score "gram" of the rows that it was fitted on is 0, but for rounding."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    scorer = OODScorer(network, "gram", contamination=0).fit(X)
    with pytest.raises(
        ValueError, match=r"differ by .* there, too little to tell. Pass rows of which some are outliers"
    ):
        to_onnx(scorer, tmp_path / "model.onnx", X)
    to_onnx(scorer, tmp_path / "model.onnx", np.vstack([5 * X[:50], X]))


def test_a_model_that_differs_is_refused(tmp_path):
    """As that of a step that is no longer what the translator takes it for."""
    scaler = StandardScaler().fit(X)
    scaler.transform = lambda X: 2 * StandardScaler.transform(scaler, X)
    pipeline = make_pipeline(scaler, FrozenEncoder(RowStatistics()).fit(X))
    with pytest.raises(ValueError, match=r"other results than the estimator .* Replace that step"):
        to_onnx(pipeline, tmp_path / "model.onnx", X)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_replaced_leaves_nothing(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(OSError, match=r"model\.onnx"):
        to_onnx(FrozenEncoder(RowStatistics()).fit(X), tmp_path / "model.onnx", X)
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


def test_not_fitted(tmp_path):
    for estimator in (DUM, ThresholdedDetector(DUM), OpenSetClassifier(DUM), FrozenEncoder(RowStatistics())):
        with pytest.raises(NotFittedError):
            to_onnx(estimator, tmp_path / "model.onnx", X)


def test_a_missing_package_is_named(written, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(ImportError, match=r"skl2onnx: pip install 'skood\[onnx\]'"):
        to_onnx(written[0], tmp_path / "model.onnx", X)
