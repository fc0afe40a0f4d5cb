import numpy as np
import pandas as pd
import pytest

from skood.datasets import BUILT_IN, find_suite, label_outliers, load, read_file


@pytest.mark.parametrize(
    ("name", "shape", "n_outliers"),
    [("breast_cancer", (569, 30), 212), ("wine", (178, 13), 48), ("digits", (1797, 1, 8, 8), 180)],
)
def test_built_in(name, shape, n_outliers):
    X, y = load(name)
    assert X.shape == shape
    assert sorted(set(y)) == [-1, 1]
    assert (y == -1).sum() == n_outliers


def test_built_in_digits_are_images():
    X, _ = load("digits")
    assert (X.min(), X.max()) == (0, 1)
    assert set(BUILT_IN) == {"breast_cancer", "wine", "digits"}
    with pytest.raises(ValueError, match="there are breast_cancer, wine, digits"):
        load("iris")


@pytest.mark.parametrize(
    ("y", "outliers", "expected"),
    [
        ([0, 1, 0], None, [1, -1, 1]),
        ([False, True], None, [1, -1]),
        ([0.0, 1.0], None, [1, -1]),
        ([1, -1], None, [1, -1]),
        ([0, 3, -1], None, [1, 1, -1]),
        ([0, 1, 2], ["2"], [1, 1, -1]),
        ([0, 1, 2], ["0", "2"], [-1, 1, -1]),
        ([1.0, 2.0], ["2"], [1, -1]),
        (["a", "b"], ["a"], [-1, 1]),
        ([0, 1], ["0"], [-1, 1]),
    ],
)
def test_label_outliers(y, outliers, expected):
    assert label_outliers(y, outliers).tolist() == expected


@pytest.mark.parametrize(
    ("y", "outliers", "message"),
    [
        ([0, 1, 2], None, "labels 0, 1, 2 do not say"),
        (["a", "b"], None, "name them"),
        ([0, 0], None, "every row is an inlier"),
        ([1, 1], None, "every row is an outlier"),
        ([0, 1], ["5"], "no row is labelled 5; labels are 0, 1"),
        ([1, -1, np.nan], None, "NaN, first in row 2"),
        (np.array(["ok", "bad", None], dtype=object), ["bad"], "NaN, first in row 2"),
    ],
)
def test_unclear_labels(y, outliers, message):
    with pytest.raises(ValueError, match=message):
        label_outliers(y, outliers)


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.ones((3, 2)), y=[[0], [1], [0]])
    X, y = read_file(tmp_path / "a.npz")
    assert X.shape == (3, 2)
    assert y.tolist() == [1, -1, 1]
    np.savez(tmp_path / "grey.npz", X=np.zeros((3, 4, 5), np.uint8), y=[7, 8, 9])
    X, y = read_file(tmp_path / "grey.npz", outliers=["9"])
    assert X.shape == (3, 1, 4, 5)
    assert X.dtype == np.uint8
    assert y.tolist() == [1, 1, -1]


def test_csv(tmp_path):
    frame = pd.DataFrame({"age": [1, 2, 3], "dose": [0.5, 0.25, 0.0], "kind": ["ok", "bad", "ok"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    X, y = read_file(tmp_path / "a.csv", target="kind", outliers=["bad"])
    assert X.tolist() == [[1, 0.5], [2, 0.25], [3, 0]]
    assert y.tolist() == [1, -1, 1]
    with pytest.raises(ValueError, match="there are age, dose, kind"):
        read_file(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="no column 'klass'"):
        read_file(tmp_path / "a.csv", target="klass")
    with pytest.raises(ValueError, match="not numbers: kind"):
        read_file(tmp_path / "a.csv", target="age")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.ones((3, 2))}, "no array y, only X"),
        ({"data": np.ones(3)}, "no array X and no array y"),
        ({"X": np.ones((3, 2)), "y": np.ones(2)}, "X has 3 rows, but y has 2"),
        ({"X": np.ones(3), "y": np.ones(3)}, r"shape \(3,\)"),
        ({"X": np.array([[None], [1]], dtype=object), "y": np.arange(2)}, "allow_pickle"),
    ],
)
def test_npz_without_the_right_arrays(tmp_path, arrays, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        read_file(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("name", "text"), [("a.npz", "no archive"), ("a.csv", ""), ("a.parquet", "x")])
def test_unreadable_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        read_file(tmp_path / name, target="y")
    with pytest.raises(ValueError, match="no such file"):
        read_file(tmp_path / "missing.npz")


def test_suite(tmp_path):
    with pytest.raises(ValueError, match="no such directory"):
        find_suite(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"no \.npz file"):
        find_suite(tmp_path)
    for name in ("b.npz", "a.npz", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_suite(tmp_path)] == ["a.npz", "b.npz"]


@pytest.mark.parametrize("folder", ["adbench", "uci", "adbench_embeddings"])
def test_real_suites_are_read(data_home, folder):
    for path in find_suite(data_home / folder):
        X, y = read_file(path)
        assert len(X) == len(y)
        assert set(y) == {-1, 1}


def test_real_images_are_read(data_home):
    X, y = read_file(data_home / "images" / "mnist_test.npz", outliers=["3"])
    assert X.shape == (10000, 1, 28, 28)
    assert (y == -1).sum() == 1010
