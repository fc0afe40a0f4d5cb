"""What labels mark."""

import numpy as np
import pytest

from skood.estimator.labels import check_labels, marks_outlier


@pytest.mark.parametrize(
    ("y", "label", "expected"),
    [
        ([1, -1, 0], -1, [False, True, False]),
        ([1.0, -1.0], -1, [False, True]),
        (["a", "b"], -1, [False, False]),
        (["a", "b"], "b", [False, True]),
        ([1, 2], "1", [False, False]),
        (np.array([1, -1, "x"], dtype=object), -1, [False, True, False]),
        ([True, False], -1, [False, False]),
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
