import zipfile

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from skood import DUMDetector
from skood.corruptions import corrupt
from skood.datasets import (
    BUILT_IN,
    find_suite,
    label_outliers,
    load,
    load_cifar10_c,
    load_imagenet_c,
    load_mpi3d,
    load_svhn,
    read_classes,
    read_file,
)


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
    with pytest.raises(ValueError, match="choose one of 'breast_cancer', 'wine', 'digits'"):
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
        ([0, 1, 1], ["1"], [1, -1, -1]),
        ([0, 1, 1], ["0"], [-1, 1, 1]),
    ],
)
def test_label_outliers(y, outliers, expected):
    assert label_outliers(y, outliers).tolist() == expected


@pytest.mark.parametrize(
    ("y", "outliers", "message"),
    [
        ([0, 1, 2], None, "labels 0, 1, 2 do not say"),
        (["a", "b"], None, "name the labels of outliers"),
        ([0, 0], None, "every row is an inlier"),
        ([1, 1], None, "every row is an outlier"),
        # Images of folders "bad" and "good", numbered as these are sorted.
        ([0, 1, 1], None, r"labels 0, 1 do not say .*: 2 of 3 rows have"),
        ([True, False, True], None, "labels True, False do not say"),
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


def test_built_in_with_classes():
    X, y = load("wine", classes=True)
    assert sorted(set(y)) == [0, 1, 2]
    outliers = load("wine")[1] == -1
    np.testing.assert_array_equal(outliers, y == 2)
    assert X.shape == (178, 13)
    assert (load("digits")[1] == -1).sum() == (load("digits", classes=True)[1] == 9).sum()
    np.testing.assert_array_equal(load("breast_cancer")[1] == -1, load("breast_cancer", classes=True)[1] == 0)


def test_classes_of_a_file(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.ones((3, 2)), y=[0, 1, 0], kind=["u", "v", "w"])
    assert read_classes(tmp_path / "a.npz")[1].tolist() == [0, 1, 0]
    assert read_classes(tmp_path / "a.npz", "kind")[1].tolist() == ["u", "v", "w"]
    assert read_classes(tmp_path / "a.npz", "other")[1].tolist() == [0, 1, 0]
    assert read_file(tmp_path / "a.npz", "kind", ["w"])[1].tolist() == [1, 1, -1]
    pd.DataFrame({"age": [1, 2], "kind": ["u", "v"]}).to_csv(tmp_path / "b.csv", index=False)
    X, y = read_classes(tmp_path / "b.csv", "kind")
    assert X.tolist() == [[1], [2]]
    assert y.tolist() == ["u", "v"]


def test_rows_without_labels(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((3, 4, 5), np.uint8))
    X, y = read_classes(tmp_path / "a.npz", needed=False)
    assert X.shape == (3, 1, 4, 5)
    assert y is None
    with pytest.raises(ValueError, match="no array y, only X"):
        read_classes(tmp_path / "a.npz")
    pd.DataFrame({"age": [1, 2], "dose": [3, 4]}).to_csv(tmp_path / "b.csv", index=False)
    X, y = read_classes(tmp_path / "b.csv", needed=False)
    assert X.tolist() == [[1, 3], [2, 4]]
    assert y is None
    X, y = read_classes(tmp_path / "b.csv", "dose", needed=False)
    assert X.tolist() == [[1], [2]]
    assert y.tolist() == [3, 4]
    np.savez(tmp_path / "c.npz", y=np.ones(3))
    with pytest.raises(ValueError, match="no array X, only y"):
        read_classes(tmp_path / "c.npz", needed=False)


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
        (
            {"X": np.ones((3, 8, 8, 3)), "y": np.ones(3)},
            r"shape \(3, 8, 8, 3\); channels must come first: save np.moveaxis",
        ),
        ({"X": np.array([[None], [1]], dtype=object), "y": np.arange(2)}, "array 'X' holds Python objects"),
    ],
)
def test_npz_without_the_right_arrays(tmp_path, arrays, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        read_file(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.npz", "no archive"), ("a.csv", ""), ("a.parquet", "x"), ("a.mat", "x"), ("a.xls", "x"), ("a.csv.gz", "x")],
)
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
        # In one of them outliers are the most.
        X, y = read_file(path, outliers=["1"])
        assert len(X) == len(y)
        assert set(y) == {-1, 1}


def test_real_images_are_read(data_home):
    X, y = read_file(data_home / "images" / "mnist_test.npz", outliers=["3"])
    assert X.shape == (10000, 1, 28, 28)
    assert (y == -1).sum() == 1010


# ---------------------------------------------------------------------------------------------------------- CIFAR-10-C


@pytest.fixture
def cifar10_c(tmp_path):
    """Ten images at each severity; values of an image are its number, 200 more in the first channel."""
    images = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    images[..., 0] += 200
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10, dtype=np.uint8), 5))
    return tmp_path


def test_cifar10_c_has_a_block_of_rows_for_each_severity(cifar10_c):
    for severity in range(1, 6):
        X, y = load_cifar10_c(cifar10_c, "fog", severity)
        assert X.shape == (10, 3, 32, 32)
        assert X.dtype == np.uint8
        assert isinstance(X, np.memmap)
        assert X[:, 1, 5, 7].tolist() == list(range(10 * (severity - 1), 10 * severity))
        assert (X[:, 0] == X[:, 1] + 200).all()
        assert y.tolist() == list(range(10))
        assert y.dtype == np.int64


def test_cifar10_c_that_is_not_there(cifar10_c):
    with pytest.raises(ValueError, match=r"no such directory.*zenodo\.org/records/2535967"):
        load_cifar10_c(cifar10_c / "missing", "fog")
    with pytest.raises(ValueError, match=r"frog\.npy: no such file of images; there are fog\..*2535967"):
        load_cifar10_c(cifar10_c, "frog")
    with pytest.raises(ValueError, match="no such file of images"):
        load_cifar10_c(cifar10_c, "labels")
    (cifar10_c / "labels.npy").unlink()
    with pytest.raises(ValueError, match=r"labels\.npy: no such file"):
        load_cifar10_c(cifar10_c, "fog")


@pytest.mark.parametrize("severity", [0, 6, 1.5, "3", True])
def test_cifar10_c_severity(cifar10_c, severity):
    with pytest.raises(ValueError, match=f"severity={severity!r} must be an integer from 1 to 5"):
        load_cifar10_c(cifar10_c, "fog", severity)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("fog", np.zeros((50, 3, 32, 32), np.uint8), r"shape \(50, 3, 32, 32\); expected uint8"),
        ("fog", np.zeros((50, 32, 32, 3)), "holds float64"),
        ("fog", np.zeros((49, 32, 32, 3), np.uint8), "five times the number of images"),
        ("fog", np.zeros((50, 32), np.uint8), "holds uint8"),
        ("labels", np.zeros(10, int), "expected 50 integers"),
        ("labels", np.zeros(50), "holds float64"),
        ("labels", np.array([None] * 50), "not a readable .npy file"),
    ],
)
def test_cifar10_c_in_another_format(cifar10_c, name, array, message):
    np.save(cifar10_c / f"{name}.npy", array)
    with pytest.raises(ValueError, match=message) as error:
        load_cifar10_c(cifar10_c, "fog")
    assert str(cifar10_c / f"{name}.npy") in str(error.value)


def test_cifar10_c_of_unreadable_files(cifar10_c):
    (cifar10_c / "fog.npy").write_text("no array")
    with pytest.raises(ValueError, match="not a readable"):
        load_cifar10_c(cifar10_c, "fog")


def test_cifar10_c_is_taken_from_the_file_by_detectors(cifar10_c):
    X, _ = load_cifar10_c(cifar10_c, "fog")
    copy = np.array(X)
    detector = DUMDetector(hidden_sizes=(4,), max_epochs=1, random_state=0, device="cpu", contamination=0).fit(copy)
    np.testing.assert_array_equal(detector.score_samples(X), detector.score_samples(copy))
    np.testing.assert_array_equal(corrupt(X, "contrast", 3), corrupt(copy, "contrast", 3))


# ----------------------------------------------------------------------------------------------------------- ImageNet-C


@pytest.fixture
def imagenet_c(tmp_path):
    """Two classes at severities 1 and 3; the grey level of an image is ten times its severity, more in class b."""
    image = pytest.importorskip("PIL.Image")
    for severity in (1, 3):
        for number, name in enumerate(("n02", "n01")):
            folder = tmp_path / "fog" / str(severity) / name
            folder.mkdir(parents=True)
            level = 10 * severity + 100 * number
            image.new("RGB", (64, 64), (level,) * 3).save(folder / "ILSVRC2012_val_1.png")
    (tmp_path / "frost").mkdir()
    return tmp_path


def test_imagenet_c_has_a_folder_for_each_severity(imagenet_c):
    data = load_imagenet_c(imagenet_c, "fog", 3, size=32, progress=False)
    assert data.X.shape == (2, 3, 32, 32)
    assert data.y.tolist() == ["n01", "n02"]
    assert data.X[:, 0, 0, 0].tolist() == [130, 30]
    assert load_imagenet_c(imagenet_c, "fog", progress=False).X.shape == (2, 3, 224, 224)


def test_imagenet_c_that_is_not_there(imagenet_c):
    with pytest.raises(ValueError, match=r"fog.2: no such directory; there are fog, frost in .*Pass the folder"):
        load_imagenet_c(imagenet_c, "fog", 2)
    with pytest.raises(ValueError, match="there are none in"):
        load_imagenet_c(imagenet_c / "odd", "fog")
    with pytest.raises(ValueError, match="severity=6 must be an integer from 1 to 5"):
        load_imagenet_c(imagenet_c, "fog", 6)


# ----------------------------------------------------------------------------------------------------------------- SVHN


def svhn(path, X=None, y=None):
    """Write a file in the format of SVHN: rows, columns and channels first, and 10 for the digit 0."""
    images = np.arange(2 * 32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3, 2).astype(np.uint8)
    arrays = {"X": images if X is None else X, "y": np.array([[10], [3]], np.uint8) if y is None else y}
    savemat(path, {name: array for name, array in arrays.items() if array is not False})
    return images


def test_svhn(tmp_path):
    images = svhn(tmp_path / "test_32x32.mat")
    X, y = load_svhn(tmp_path / "test_32x32.mat")
    assert X.shape == (2, 3, 32, 32)
    assert X.dtype == np.uint8
    assert X[1, 2, 5, 7] == images[5, 7, 2, 1]
    assert y.tolist() == [0, 3]
    assert y.dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": False}, r"no array X of uint8 of shape \(32, 32, 3, n\)"),
        ({"X": np.zeros((32, 32, 3, 2))}, "no array X of uint8"),
        ({"X": np.zeros((2, 3, 32, 32), np.uint8)}, "no array X of uint8"),
        ({"y": False}, "no array y of 2 labels from 1 to 10"),
        ({"y": np.arange(3)}, "no array y of 2 labels"),
        ({"y": np.array([1, 11])}, "no array y of 2 labels"),
    ],
)
def test_svhn_in_another_format(tmp_path, arrays, message):
    svhn(tmp_path / "odd.mat", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        load_svhn(tmp_path / "odd.mat")
    assert "ufldl.stanford.edu" in str(error.value)


def test_svhn_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"no such file\. SVHN is published at http"):
        load_svhn(tmp_path / "test_32x32.mat")
    (tmp_path / "test_32x32.mat").write_text("no arrays")
    with pytest.raises(ValueError, match="not a readable"):
        load_svhn(tmp_path / "test_32x32.mat")


# ---------------------------------------------------------------------------------------------------------------- MPI3D

FACTORS = {"object_color": ["red", "blue"], "object_shape": ["cone", "cube", "sphere"], "horizontal_axis": range(4)}


@pytest.fixture(params=[np.savez, np.savez_compressed])
def mpi3d(tmp_path, request):
    """Twenty-four images: the first channel of an image is its number, the others 100 and 200 more."""
    images = np.arange(24, dtype=np.uint8)[:, None, None, None] + np.array([0, 100, 200], np.uint8)
    request.param(tmp_path / "mpi3d.npz", images=np.tile(images, (1, 6, 4, 1)))
    return tmp_path / "mpi3d.npz"


def test_mpi3d(mpi3d):
    data = load_mpi3d(mpi3d, factor_values=FACTORS)
    assert data.X.shape == (24, 3, 6, 4)
    assert data.X.dtype == np.uint8
    assert (data.X[:, 0] == np.arange(24)[:, None, None]).all()
    assert (data.X[:, 2] == data.X[:, 0] + 200).all()
    assert data.indices.tolist() == list(range(24))
    # The last factor varies fastest.
    assert data.factors.iloc[17].to_dict() == {"object_color": "blue", "object_shape": "cube", "horizontal_axis": 1}
    assert data.factors["object_color"].tolist() == ["red"] * 12 + ["blue"] * 12
    assert not data.factors.duplicated().any()


def test_some_images_of_mpi3d(mpi3d):
    whole = load_mpi3d(mpi3d, factor_values=FACTORS)
    data = load_mpi3d(mpi3d, indices=[20, 3, 3, 0], factor_values=FACTORS)
    assert data.X[:, 0, 5, 3].tolist() == [20, 3, 3, 0]
    assert data.indices.tolist() == [20, 3, 3, 0]
    assert data.factors.equals(whole.factors.iloc[[20, 3, 3, 0]].reset_index(drop=True))
    one, same, other = (load_mpi3d(mpi3d, n_samples=10, factor_values=FACTORS, random_state=s) for s in (0, 0, 1))
    assert len(set(one.indices)) == 10
    np.testing.assert_array_equal(one.X[:, 0, 0, 0], one.indices)
    np.testing.assert_array_equal(one.indices, same.indices)
    assert (one.indices != other.indices).any()


def forged(path):
    """Write an ``.npz`` file that declares the published shape, and holds three images, their values their numbers."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (1036800, 64, 64, 3)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(np.repeat(np.arange(3, dtype=np.uint8), 64 * 64 * 3).tobytes())


def test_published_factors_of_mpi3d(tmp_path):
    """The published number of images; of these the file has three, which suffice for what is read."""
    forged(tmp_path / "mpi3d_real.npz")
    data = load_mpi3d(tmp_path / "mpi3d_real.npz", indices=[2, 1])
    assert data.X.shape == (2, 3, 64, 64)
    assert (data.X[0] == 2).all()
    assert (data.X[1] == 1).all()
    expected = ["white", "cone", "small", "top", "purple", 0]
    assert data.factors.to_numpy().tolist() == [[*expected, 2], [*expected, 1]]
    assert list(data.factors)[-2:] == ["horizontal_axis", "vertical_axis"]
    with pytest.raises(ValueError, match=r"images' is damaged.*it ends before row 3 of 1036800"):
        load_mpi3d(tmp_path / "mpi3d_real.npz", indices=[0, 3])


def test_mpi3d_with_another_number_of_images(mpi3d):
    with pytest.raises(ValueError, match=r"shape \(24, 6, 4, 3\), but .* 6 x 6 x 2 x 3 x 3 x 40 x 40 = 1036800 comb"):
        load_mpi3d(mpi3d)
    with pytest.raises(ValueError, match=r"2 x 3 = 6 combinations\. Pass factor_values"):
        load_mpi3d(mpi3d, factor_values={"object_color": ["red", "blue"], "object_shape": ["cone", "cube", "sphere"]})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_samples": 0}, "n_samples=0 must be an integer from 1 to 24, or None"),
        ({"n_samples": 25}, "n_samples=25 must be"),
        ({"n_samples": 2.0}, r"n_samples=2\.0 must be"),
        ({"n_samples": 2, "indices": [1]}, "both given"),
        ({"indices": [24]}, "indices must be a list of integers from 0 to 23"),
        ({"indices": [-1]}, "indices must be"),
        ({"indices": []}, "indices must be"),
        ({"indices": 3}, "indices must be"),
        ({"indices": [True] * 24}, r"a mask becomes one by np\.nonzero"),
    ],
)
def test_images_of_mpi3d_that_there_are_not(mpi3d, wrong, message):
    with pytest.raises(ValueError, match=message):
        load_mpi3d(mpi3d, factor_values=FACTORS, **wrong)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((24, 6, 4, 3), np.uint8)}, "no array images, only X. MPI3D is published at https"),
        ({"images": np.zeros((24, 6, 4, 3))}, r"images holds float64 of shape \(24, 6, 4, 3\); expected uint8"),
        ({"images": np.zeros((24, 3, 6, 4), np.uint8)}, r"expected uint8 of shape \(n, H, W, 3\)"),
        ({"images": np.zeros((24, 3), np.uint8)}, "expected uint8"),
        ({"images": np.asfortranarray(np.zeros((24, 6, 4, 3), np.uint8))}, "not stored one after the other"),
    ],
)
def test_mpi3d_in_another_format(tmp_path, arrays, message):
    np.savez(tmp_path / "odd.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        load_mpi3d(tmp_path / "odd.npz", factor_values=FACTORS)
    assert str(tmp_path / "odd.npz") in str(error.value)


def test_mpi3d_that_is_not_there_or_damaged(mpi3d):
    with pytest.raises(ValueError, match=r"no such file\. MPI3D is published at https"):
        load_mpi3d(mpi3d.parent / "missing.npz")
    content = bytearray(mpi3d.read_bytes())
    # Behind the local header of the archive.
    content[60:100] = bytes(40)
    mpi3d.write_bytes(content)
    with pytest.raises(ValueError, match="'images' is damaged"):
        load_mpi3d(mpi3d, factor_values=FACTORS)
    mpi3d.write_text("no archive")
    with pytest.raises(ValueError, match=r"not a \.npz file"):
        load_mpi3d(mpi3d)
