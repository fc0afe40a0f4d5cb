"""What labels mark, whatever holds them; and that labels which mark nothing are not taken in silence."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

import skood
from skood import FitOnInliers, LabelWarning
from skood.estimator.labels import check_labels, check_marked, find_outliers, marks_outlier

# --------------------------------------------------------------------------------------------- which rows are marked


@pytest.mark.parametrize(
    ("y", "label", "expected"),
    [
        ([1, -1, 0], -1, [False, True, False]),
        ([1.0, -1.0], -1, [False, True]),
        (["a", "b"], -1, [False, False]),
        (["a", "b"], "b", [False, True]),
        (np.array([b"a", b"b"]), "b", [False, True]),
        ([1, 2], "x", [False, False]),
        (np.array([1, -1, "x"], dtype=object), -1, [False, True, False]),
        (np.array([1, -1, "x"], dtype=object), [-1, "x"], [False, True, True]),
        ([True, False], -1, [False, False]),
        ([True, False], True, [True, False]),
        ([True, False], False, [False, True]),
        # True equals 1, as everywhere in Python.
        ([True, False], 1, [True, False]),
        ([1, 0], True, [True, False]),
        ([1.0, 0.0], np.True_, [True, False]),
        ([0.5, 2], 0.5, [True, False]),
        (["normal", "dos", "probe"], ["dos", "probe", "r2l"], [False, True, True]),
        ([0, 1, 2, 3], (1, 3), [False, True, False, True]),
        ([0, 1, 2, 3], np.array([1, 3]), [False, True, False, True]),
        ([0, 1, 2, 3], pd.Series([1, 3]), [False, True, False, True]),
        ([], -1, []),
    ],
)
def test_marks_outlier(y, label, expected):
    mask = marks_outlier(y, label)
    assert mask.dtype == bool
    assert mask.tolist() == expected


def test_numbers_among_text():
    """numpy makes text of the -1 in a list; the marker must not be lost by that."""
    assert marks_outlier(check_labels(["a", -1])).tolist() == [False, True]
    with pytest.raises(ValueError, match=r"np.array\(labels, dtype=object\)"):
        marks_outlier(np.array(["a", -1]))
    assert marks_outlier(["a", "-1"], "-1").tolist() == [False, True]
    with pytest.raises(ValueError, match="y is needed"):
        check_labels(None)


@pytest.mark.parametrize(
    ("y", "label", "to_write"),
    [
        (["1", "-1"], -1, "'-1'"),
        (pd.Series(["1.0", "-1.0"], dtype=object), -1, "'-1.0'"),
        (["0", "1"], 1.0, "'1'"),
        (["True", "False"], True, "'True'"),
        ([0, 1], "1", "1"),
        ([0.5, 1.0], "0.5", "0.5"),
        ([True, False], "True", "True"),
        (["0", "1"], ["x", 1], "'1'"),
    ],
)
def test_a_number_that_is_written_as_text_is_refused(y, label, to_write):
    with pytest.raises(ValueError, match=rf"Write outlier_label={re.escape(to_write)};"):
        marks_outlier(y, label)
    marks_outlier(y, ["x", eval(to_write)])


def test_true_is_not_the_second_class():
    with pytest.raises(ValueError, match=r"True is a boolean, but y holds numbers: 0 \(2 rows\), 1 \(1 row\), 2"):
        marks_outlier([0, 0, 1, 2], True)


@pytest.mark.parametrize("label", [[], None, float("nan"), float("inf"), [1, None], b"x", [[1]], 1j])
def test_what_is_no_label(label):
    with pytest.raises(ValueError, match="must be a finite number, a text, True or False, or a list"):
        marks_outlier([1, 2], label)


@given(st.lists(st.sampled_from([-1, 0, 1, 2, "a", "b", "-x"]), min_size=1), st.sampled_from([-1, 0, 2, "a", "b"]))
def test_marked_are_the_equal_ones(y, label):
    """Python's own comparison never confuses a number with a text."""
    assert marks_outlier(np.array(y, dtype=object), label).tolist() == [one == label for one in y]
    both = marks_outlier(np.array(y, dtype=object), [label, 1])
    assert both.tolist() == [one in (label, 1) for one in y]


# ------------------------------------------------------------------------------- every container with every mixture

# Rows 1 and 4 are the outliers.
X = np.arange(7.0)[:, None]
INLIERS = [0, 2, 3, 5, 6]
MIXTURES = {
    "0-1": ([0, 1, 0, 0, 1, 0, 0], 1, "0 (5 rows), 1 (2 rows)"),
    "0.0-1.0": ([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0], 1, "0.0 (5 rows), 1.0 (2 rows)"),
    "booleans": ([False, True, False, False, True, False, False], True, "False (5 rows), True (2 rows)"),
    "1-0": ([1, 0, 1, 1, 0, 1, 1], 0, "0 (2 rows), 1 (5 rows)"),
    "text": (["ok", "fraud", "ok", "ok", "fraud", "ok", "ok"], "fraud", "'fraud' (2 rows), 'ok' (5 rows)"),
    "attacks": (
        ["normal", "dos", "normal", "normal", "probe", "normal", "normal"],
        ["dos", "probe"],
        "'dos' (1 row), 'normal' (5 rows), 'probe' (1 row)",
    ),
    "1--1": ([1, -1, 1, 1, -1, 1, 1], -1, None),
    "classes--1": ([0, -1, 1, 2, -1, 1, 3], -1, None),
    "1.0--1.0": ([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0], -1, None),
}


def nullable(labels):
    kinds = {bool: "boolean", int: "Int64", float: "Float64", str: "string"}
    return pd.Series(labels, dtype=kinds[type(labels[0])])


def tensor(labels):
    if isinstance(labels[0], str):
        pytest.skip("a tensor holds no text")
    return torch.tensor(labels)


def polars(labels):
    return pytest.importorskip("polars").Series(labels)


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "objects": lambda labels: np.array(labels, dtype=object),
    "series": pd.Series,
    "nullable": nullable,
    "categorical": lambda labels: pd.Series(labels, dtype="category"),
    "pandas-objects": lambda labels: pd.Series(labels, dtype=object, index=range(10, 17)),
    "tensor": tensor,
    "polars": polars,
}


def fitted_on(y, **options):
    """Return the mean of the rows that a scaler was fitted on: no other rows have it."""
    return FitOnInliers(StandardScaler(), **options).fit(X, y).transformer_.mean_.item()


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_labels_are_read_or_told_of(container, mixture):
    labels, outlier_label, told = MIXTURES[mixture]
    y = CONTAINERS[container](labels)
    right, wrong = np.mean(INLIERS), X.mean()
    if told is None:
        assert fitted_on(y) == right
        return
    # Named, they are left out, without a word.
    assert fitted_on(y, outlier_label=outlier_label) == right
    with pytest.warns(LabelWarning, match=re.escape(f"all were taken for inliers, {told}. ")) as caught:
        assert fitted_on(y) == wrong
    assert len(caught) == 1
    # What the warning says to write is Python, and right.
    message = str(caught[0].message)
    (written,) = (
        "".join(found) for found in re.findall(r"write outlier_label=(.*?), or |as outlier_label=(\[.*?\])", message)
    )
    assert fitted_on(y, outlier_label=eval(written)) == right
    for line in re.findall(r"y = (.*?\))\. ", message):
        assert fitted_on(eval(line, {"np": np, "y": y})) == right


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("label", [1, 0, "ok", True, 1.0])
def test_one_kind_of_rows_is_no_news(container, label):
    assert fitted_on(CONTAINERS[container]([label] * 7)) == X.mean()


# ----------------------------------------------------------------------------------------------- what is suspicious


def told_of(y, **options):
    y = check_labels(y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_marked(y, marks_outlier(y), **options)
    return [str(warning.message) for warning in caught if warning.category is LabelWarning]


@pytest.mark.parametrize("y", [[0, 1], [True, False], [0.0, 1.0], np.array([0, 1], dtype=object)])
def test_zero_and_one_are_no_classes_unless_known(y):
    assert told_of(y)
    (message,) = told_of(y, classes=())
    assert "If both are classes of inliers, name them by text, or silence this skood.LabelWarning." in message
    assert told_of(y, classes=range(10))
    assert told_of(y, classes=["a", "b"])
    assert not told_of(y, classes=[0, 1])


@pytest.mark.parametrize("y", [[1, 2], [0, 1, 2], ["a", "b"], ["0", "1"], [1, 1], [0, 0], [0, 1, -1], []])
def test_labels_of_classes(y):
    assert not told_of(y, classes=())


def test_many_labels_are_not_all_listed():
    (message,) = told_of(range(100))
    assert "0 (1 row), 1 (1 row), 2 (1 row), 3 (1 row), 4 (1 row) and 95 more." in message
    assert "If none" not in message
    assert "name them, as outlier_label=[99, 98]." in message


def test_several_markers_are_named():
    with pytest.raises(ValueError, match=r"y == 'dos' or -1\); at least 2"):
        find_outliers(["dos", "dos", -1], 3, ["dos", -1])
    with pytest.warns(LabelWarning, match=r"by outlier_label=\['dos', 'probe'\]: all"):
        fitted_on(list("aabbaab"), outlier_label=("dos", "probe"))


def test_the_warning_is_silenced_or_made_an_error_by_name():
    y = [0, 1] * 3 + [0]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=skood.LabelWarning)
        with pytest.raises(LabelWarning):
            fitted_on(y)
        warnings.filterwarnings("ignore", category=skood.LabelWarning)
        fitted_on(y)


def test_it_names_the_line_of_the_user():
    with pytest.warns(LabelWarning) as caught:
        fitted_on([0, 1] * 3 + [0])
    assert caught[0].filename == __file__
