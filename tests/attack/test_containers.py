"""Labels and rows in every container that a file reader or another library hands over: read rightly, or refused."""

import datetime
import re
import uuid
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import StandardScaler

from skood import (
    ConformalDetector,
    DUMDetector,
    FitOnInliers,
    NegSampleVAE,
    OpenSetClassifier,
    RejectClassDetector,
    SimCLREncoder,
    ThresholdedDetector,
)
from skood.estimator.labels import check_labels, marks_outlier
from skood.model_selection import DropOutliers, HideLabels

N_ROWS = 24
X = np.random.default_rng(0).normal(size=(N_ROWS, 3)).astype(np.float32)
Y = np.where(np.arange(N_ROWS) % 4, 1, -1)
SMALL = {"hidden_sizes": (4,), "max_epochs": 1, "random_state": 0, "device": "cpu", "contamination": 0.1}
DETECTORS = {
    "dum": DUMDetector(**SMALL),
    "classes": RejectClassDetector(**SMALL),
    "vae": NegSampleVAE(**SMALL),
    "encoder": SimCLREncoder(max_epochs=1, random_state=0, device="cpu"),
    "thresholded": ThresholdedDetector(DUMDetector(**SMALL)),
    "conformal": ConformalDetector(DUMDetector(**SMALL), alpha=0.2, random_state=0),
    "dropped": DropOutliers(DUMDetector(**SMALL)),
    "hidden": HideLabels(DUMDetector(**SMALL)),
    "open set": OpenSetClassifier(RejectClassDetector(**SMALL)),
}
FOREST = IsolationForest(n_estimators=3, random_state=0)
OTHERS = {
    "forest": ThresholdedDetector(FOREST),
    "dropped forest": DropOutliers(FOREST),
    "scaler": FitOnInliers(StandardScaler()),
}
ALL = DETECTORS | OTHERS
every_estimator = pytest.mark.parametrize("estimator", ALL.values(), ids=ALL)


def answer(estimator, X, y):
    """Return what an estimator makes of the rows, as one array."""
    fitted = clone(estimator).fit(X, y)
    return fitted.score_samples(X) if hasattr(fitted, "score_samples") else np.asarray(fitted.transform(X))


# --------------------------------------------------------------------------------------------------------- labels

READ = {
    "Decimal": [Decimal(int(label)) for label in Y],
    "Decimal objects": np.array([Decimal(f"{label}.0") for label in Y], dtype=object),
    "fractions": [Fraction(int(label)) for label in Y],
    "objects": Y.astype(object),
    "with a gradient": torch.tensor(Y, dtype=torch.float32, requires_grad=True),
    "bfloat16": torch.tensor(Y).bfloat16(),
    "sparse": torch.tensor(Y).to_sparse(),
    "nullable": pd.Series(Y, dtype="Int64"),
    "frame": pd.DataFrame({"y": Y}),
    "masked": np.ma.masked_array(Y),
}


@every_estimator
@pytest.mark.parametrize("container", READ)
@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_labels_are_read(container, estimator):
    assert np.array_equal(answer(estimator, X, READ[container]), answer(estimator, X, Y))


REFUSED = {
    "periods": (pd.Series(pd.period_range("2020", periods=N_ROWS, freq="D")), "y has Period(.*) in row 0"),
    "intervals": (pd.Series(pd.interval_range(0, N_ROWS)), "y has Interval(.*) in row 0"),
    "times": ([1, datetime.time(1)] * (N_ROWS // 2), r"y has datetime.time\(1, 0\) in row 1"),
    "dates": ([datetime.date(2020, 1, 1 + row % 2) for row in range(N_ROWS)], r"y has datetime.date\(.* in row 0"),
    "datetimes": (np.arange(N_ROWS).astype("M8[ns]"), "of type datetime64; labels must be text"),
    "spans": (np.arange(N_ROWS).astype("m8[ns]"), "of type timedelta64; labels must be text"),
    "UUIDs": ([uuid.UUID(int=row) for row in range(N_ROWS)], "of type UUID"),
    "more than 64 bits": ([2**63, -1] * (N_ROWS // 2), "y has 9223372036854775808 in row 0"),
    "infinite": ([1, np.inf] * (N_ROWS // 2), "y contains infinity, first in row 1"),
    "masked": (np.ma.masked_array(Y, mask=Y == -1), "y contains NaN, first in row 0"),
    "records": (np.zeros(N_ROWS, dtype=[("y", int)]), "of type void"),
    "dict": ({"y": Y}, "y is of type dict"),
    "set": ({*range(N_ROWS)}, "y is of type set"),
    "iterator": (iter(Y), "y is of type"),
    "complex": (Y + 0j, "Complex data not supported"),
}


@every_estimator
@pytest.mark.parametrize("container", REFUSED)
def test_labels_of_other_types_are_refused(container, estimator):
    y, told = REFUSED[container]
    with pytest.raises(ValueError, match=told):
        clone(estimator).fit(X, y)


SPELT = ["-1", "-1.0", " -1", "-1 ", "\t-1\n", "-1e0", "-01", "\N{MINUS SIGN}1"]
TEXT = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "bytes": lambda y: np.array([label.encode() for label in y]),
    "objects": lambda y: np.array(y, dtype=object),
    "bytes as objects": lambda y: [label.encode() for label in y],
    "series": pd.Series,
    "string": lambda y: pd.Series(y, dtype="string"),
    "categorical": pd.Categorical,
    "categories": lambda y: pd.Series(y, dtype="category"),
    "numpy's text": lambda y: [np.str_(label) for label in y],
    "among numbers": lambda y: [1 if label == "1" else label for label in y],
    "frame": lambda y: pd.DataFrame({"y": y}),
}


@pytest.mark.parametrize("container", TEXT)
@pytest.mark.parametrize("spelt", SPELT)
def test_a_marker_that_is_spelt_out_is_refused_in_every_container(spelt, container):
    y = TEXT[container](["1" if label == 1 else spelt for label in Y])
    told = rf"y holds the text {re.escape(repr(spelt))}, but outlier_label=-1 is no text"
    for estimator in (OTHERS["scaler"], OTHERS["forest"]):
        with pytest.raises(ValueError, match=told):
            clone(estimator).fit(X, y)
    # What the message says to write.
    marked = marks_outlier(check_labels(y, warn=False), spelt)
    assert np.array_equal(marked, Y == -1)


@every_estimator
def test_a_marker_that_is_spelt_out_is_refused_by_every_estimator(estimator):
    with pytest.raises(ValueError, match="y holds the text ' -1'"):
        clone(estimator).fit(X, pd.Series(np.where(Y == 1, "1", " -1")))


def test_text_that_differs_by_spaces_is_refused():
    with pytest.raises(ValueError, match="'dos ', which differs from outlier_label='dos' by spaces alone"):
        marks_outlier(["normal", "dos ", "dos"], "dos")
    assert marks_outlier(["normal", "dos ", "dos"], ["dos", "dos "]).tolist() == [False, True, True]


@given(st.sampled_from([-1, 0, 1, 2, 7]), st.sampled_from(["{}", "{}.0", " {}", "{} ", "{}e0", "{}.", "\n{}"]))
def test_however_a_number_is_written(marker, form):
    spelt = form.format(marker)
    with pytest.raises(ValueError, match="a number never equals a text"):
        marks_outlier(["x", spelt], marker)
    assert marks_outlier(["x", spelt], [marker, spelt]).tolist() == [False, True]


# ----------------------------------------------------------------------------------------------------------- rows

ROWS = {
    "with a gradient": torch.tensor(X, requires_grad=True),
    "sparse": torch.tensor(X).to_sparse(),
    "list of tensors": list(torch.tensor(X, requires_grad=True)),
    "Decimal": [[Decimal(float(value)) for value in row] for row in X],
    "masked": np.ma.masked_array(X),
}


@every_estimator
@pytest.mark.parametrize("container", ROWS)
def test_rows_are_read(container, estimator):
    # A scaler computes in double precision where the rows are of that.
    np.testing.assert_allclose(answer(estimator, ROWS[container], Y), answer(estimator, X, Y), rtol=1e-5)


@every_estimator
def test_rows_of_bfloat16(estimator):
    rows = torch.tensor(X).bfloat16()
    assert np.array_equal(answer(estimator, rows, Y), answer(estimator, rows.float().numpy(), Y))


def column(values):
    return pd.DataFrame({"a": X[:, 0], "b": pd.Series(values)})


CELLS = {
    "periods": (column(pd.period_range("2020", periods=N_ROWS, freq="D")), r"Period\(.*row 0, column 'b'"),
    "intervals": (column(pd.interval_range(0, N_ROWS)), r"Interval\(.*row 0, column 'b'"),
    "UUIDs": (column([uuid.UUID(int=row) for row in range(N_ROWS)]), r"UUID\(.*row 0, column 'b'"),
    "UUIDs in an array": (np.array([[0.5, uuid.UUID(int=row)] for row in range(N_ROWS)]), r"UUID\(.*row 0, feature 1"),
    "times": (column([datetime.time(1)] * N_ROWS), "a date or time in row 0, column 'b'"),
    "lists": (column([[1]] * N_ROWS), r"X has \[1\], of type list, in row 0, column 'b'"),
    "large": (column([10**30] * N_ROWS), r"1e\+30 in row 0, column 'b'"),
    "too large for a float": (column([1, 10**400] * (N_ROWS // 2)), "in row 1, column 'b'"),
    "masked": (np.ma.masked_array(X, mask=np.eye(N_ROWS, 3, k=-2)), "contains NaN, first in row 2, feature"),
    "dict": ({"a": X[:, 0]}, "X is of type dict"),
    "set": ({*range(N_ROWS)}, "X is of type set"),
    "iterator": (iter(X), "X is of type"),
}


@pytest.mark.parametrize("estimator", DETECTORS.values(), ids=DETECTORS)
@pytest.mark.parametrize("cells", CELLS)
def test_rows_of_other_types_are_refused(cells, estimator):
    rows, told = CELLS[cells]
    # Half the rows only reach the conformal detector's own, and count anew there.
    told = re.sub(r"row \d", r"row \\d+", told)
    with pytest.raises(ValueError, match=told):
        clone(estimator).fit(rows, np.where(Y == 1, np.arange(N_ROWS) % 2 + 1, -1))


@pytest.mark.parametrize("estimator", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("cells", ["dict", "set", "iterator"])
def test_wrappers_of_other_detectors_refuse_what_holds_no_rows(cells, estimator):
    rows, told = CELLS[cells]
    with pytest.raises(ValueError, match=told):
        clone(estimator).fit(rows, Y)
