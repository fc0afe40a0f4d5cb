from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skood import DUMDetector, NegSampleVAE
from skood.estimator.validation import channels_last, resolve_image_shape


@given(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), st.integers(0, 3))
def test_one_size_of_an_image_may_be_worked_out(shape, place):
    given_shape = tuple(-1 if i == place else n for i, n in enumerate(shape))
    assert resolve_image_shape(given_shape, np.prod(shape)) == shape


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, -1, -1), "one may be -1"),
        ((1, 0, 4), "three positive integers"),
        ((2, 2), "three positive integers"),
        ((1, -1, 5), "not a multiple of the sizes in image_shape=\\(1, -1, 5\\)"),
        ((1, 3, 5), "X has 12 features, but image_shape=\\(1, 3, 5\\) makes 15"),
    ],
)
def test_shapes_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        resolve_image_shape(shape, 12)


NUMBERS = pd.DataFrame({"size": np.arange(20.0)})
TEXT = r"X has the text 'red' in row 1, {}\. Encode it as numbers .* or drop the column"


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (NUMBERS.assign(colour=["1", "red"] * 10), TEXT.format("column 'colour'")),
        (NUMBERS.assign(colour=pd.Categorical(["1", "red"] * 10)), TEXT.format("column 'colour'")),
        (NUMBERS.assign(colour=pd.array(["1", "red"] * 10, dtype="string")), TEXT.format("column 'colour'")),
        (pd.DataFrame([[1, 2], [1, "red"]], columns=["twice", "twice"]), TEXT.format("column 'twice'")),
        (np.array([[1, 2], [1, "red"]], dtype=object), TEXT.format("feature 1")),
        (np.array([[b"1", b"2"], [b"red", b"2"]]), TEXT.format("feature 0")),
        ([[1, 2], [1, "red"]], TEXT.format("feature 1")),
        (NUMBERS.assign(when=pd.date_range("2020-01-01", periods=20)), "X has a date or time in row 0, column 'when'"),
        (NUMBERS.assign(lag=pd.to_timedelta(range(20), unit="D")), "X has a date or time in row 0, column 'lag'"),
        (np.array([[1, 2], [1, date(2020, 1, 1)]], dtype=object), "X has a date or time in row 1, feature 1"),
        (np.full((4, 2), "2020-01-01", dtype="datetime64[D]"), "X has a date or time in row 0, feature 0"),
    ],
)
def test_text_and_dates_are_named(X, message):
    with pytest.raises(ValueError, match=message):
        DUMDetector(contamination=0).fit(X)


HOLE = r"row 3, column 'size'\. Impute it \(in a Pipeline, by SimpleImputer\(\) before the detector\), or drop the row"


def with_value(value):
    X = NUMBERS.assign(other=1.0)[["other", "size"]]
    X.loc[3, "size"] = value
    return X


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, f"Input X contains NaN, first in {HOLE}"),
        (np.inf, "Input X contains infinity, first in row 3, column 'size'"),
        (-1e30, r"Input X has -1e\+30 in row 3, column 'size'"),
    ],
)
def test_values_of_a_frame_are_named_by_column(value, message):
    with pytest.raises(ValueError, match=message):
        DUMDetector().fit(with_value(value))
    detector = DUMDetector(max_epochs=1, contamination=0).fit(with_value(2.0))
    with pytest.raises(ValueError, match=message):
        detector.predict(with_value(value))
    with pytest.raises(ValueError, match="row 3, feature 1"):
        DUMDetector().fit(with_value(value).to_numpy())


def test_columns_of_polars_are_named():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    for column, message in (
        (["1", "red"] * 10, TEXT.format("column 'it'")),
        ([date(2020, 1, 1)] * 20, "X has a date or time in row 0, column 'it'"),
        ([1.0, None] * 10, "contains NaN, first in row 1, column 'it'"),
    ):
        with pytest.raises(ValueError, match=message):
            DUMDetector().fit(polars.DataFrame({"size": list(range(20)), "it": column}))


def test_frames_of_polars_are_rows():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    X = NUMBERS.assign(other=1.0)
    rows = polars.DataFrame({name: X[name].to_numpy() for name in X})
    detector = DUMDetector(max_epochs=1, random_state=0, contamination=0).fit(rows)
    np.testing.assert_array_equal(detector.score_samples(rows), detector.score_samples(X))
    assert set(detector.predict(rows)) <= {-1, 1}
    assert detector.feature_names_in_.tolist() == list(X)
    with pytest.raises(ValueError, match="feature names should match"):
        detector.predict(rows[list(X)[::-1]])
    with pytest.raises(ValueError, match=r"a polars LazyFrame, which holds no rows yet; pass X.collect\(\)"):
        DUMDetector().fit(rows.lazy())


def test_what_is_said_of_sparse_rows_can_be_followed_in_a_pipeline():
    X = pd.DataFrame({"colour": ["red", "blue", "green", "grey", "black"] * 8, "size": np.arange(40.0)})
    sparse = make_pipeline(OneHotEncoder(), DUMDetector(max_epochs=1, contamination=0))
    with pytest.raises(
        ValueError, match=r"In a Pipeline, .*sparse_output=False\), ColumnTransformer.*sparse_threshold=0"
    ):
        sparse.fit(X)
    sparse.set_params(onehotencoder__sparse_output=False).fit(X)
    columns = ColumnTransformer([("one", OneHotEncoder(), ["colour"])], sparse_threshold=0)
    make_pipeline(columns, DUMDetector(max_epochs=1, contamination=0)).fit(X)


@pytest.mark.parametrize("n_missing", [0, 3])
def test_tables_through_skrub(n_missing):
    skrub = pytest.importorskip("skrub", reason="skrub encodes text: pip install 'skood[tables]'")
    X = NUMBERS.assign(colour=["red", "blue"] * 10, when=pd.date_range("2020-01-01", periods=20))
    X.loc[: n_missing - 1, "size"] = np.nan
    detector = skrub.tabular_pipeline(DUMDetector(max_epochs=2, random_state=0, contamination=0)).fit(X)
    assert np.isfinite(detector.score_samples(X)).all()


def test_text_is_named_among_new_rows():
    detector = DUMDetector(max_epochs=1).fit(NUMBERS.assign(other=1.0))
    with pytest.raises(ValueError, match=TEXT.format("column 'other'")):
        detector.predict(NUMBERS.assign(other=["1", "red"] * 10))


@pytest.mark.parametrize("kind", [int, str])
def test_categories_that_are_numbers_are_rows(kind):
    codes = [3, 5] * 10
    X = NUMBERS.assign(code=pd.Categorical([kind(code) for code in codes]))
    detector = DUMDetector(max_epochs=1, random_state=0, contamination=0).fit(X)
    expected = DUMDetector(max_epochs=1, random_state=0, contamination=0).fit(NUMBERS.assign(code=codes))
    np.testing.assert_array_equal(detector.score_samples(X), expected.score_samples(NUMBERS.assign(code=codes)))


@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 9, 1), (8, 8, 4)])
def test_images_with_channels_last_are_refused(shape):
    X = np.random.default_rng(0).random((12, *shape))
    with pytest.raises(ValueError, match=rf"would be {shape[0]} channels of .* pass np.moveaxis\(X, -1, 1\)"):
        NegSampleVAE(max_epochs=1, contamination=0).fit(X)
    # Whoever has so many channels says so.
    assert NegSampleVAE(max_epochs=1, image_shape=shape, contamination=0).fit(X).image_shape_ == shape
    assert NegSampleVAE(max_epochs=1, contamination=0).fit(np.moveaxis(X, -1, 1)).image_shape_ == (shape[2], *shape[:2])


def test_a_shape_with_channels_last_is_warned_of():
    X = np.random.default_rng(0).random((12, 8 * 9 * 3))
    with pytest.warns(RuntimeWarning, match=r"means 8 channels of 9 x 3 pixels.*pass image_shape=\(3, 8, 9\)"):
        NegSampleVAE(max_epochs=1, image_shape=(8, 9, 3), contamination=0).fit(X)


@pytest.mark.parametrize("shape", [(3, 8, 8), (512, 1, 1), (16, 4, 4), (16, 3, 3), (4, 8, 3), (1, 5, 1)])
def test_other_shapes_are_taken_as_they_are(shape):
    assert not channels_last(shape)
