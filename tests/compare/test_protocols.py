"""What is trained on, with which labels, and what is tested on, under each protocol."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

from skood import DUMDetector, NegSampleVAE, RejectClassDetector, RotationAuxClassifier, compare_detectors
from skood.__main__ import main
from skood.compare import PROTOCOL_HELP, NearestNeighborsDetector
from skood.compare.protocols import PROTOCOLS, OODPair
from skood.compare.store import as_file_name, scores_path
from skood.datasets import load
from skood.estimator.labels import list_markers
from skood.metrics import auroc
from skood.model_selection import OneVersusRest


class Spy(BaseEstimator):
    """Remembers what it is fitted on and scores; rows are images of one pixel, their number."""

    seen = []

    def __init__(self, image_shape=None):
        self.image_shape = image_shape

    def fit(self, X, y=None):
        self.rows = X.ravel().astype(int)
        type(self).seen.append([self.rows, y])
        return self

    def score_samples(self, X):
        type(self).seen[-1].append(X.ravel().astype(int))
        return -X.ravel()


class SpyOnClasses(Spy):
    seen = []

    def predict_class(self, X): ...


class SpyOnBoth(SpyOnClasses):
    seen = []

    def __init__(self, image_shape=None, outlier_label=-1):
        super().__init__(image_shape)
        self.outlier_label = outlier_label


class SpyOnVectors(BaseEstimator):
    seen = []

    def __init__(self, outlier_label=-1):
        self.outlier_label = outlier_label

    def fit(self, X, y=None):
        type(self).seen.append((X, y))
        return self

    def score_samples(self, X):
        return -X[:, 0]


@pytest.fixture(autouse=True)
def _forget():
    for spy in (Spy, SpyOnClasses, SpyOnBoth, SpyOnVectors):
        spy.seen = []


def numbers(start, stop):
    return np.arange(start, stop, dtype=float).reshape(-1, 1, 1, 1)


LETTERS = np.repeat(["a", "b", "c"], [8, 8, 12])


def pair(**options):
    unseen = {"far": numbers(100, 110), "farther": numbers(200, 206)}
    return OODPair(numbers(0, 24), unseen, **options)


# ------------------------------------------------------------------------------------------------ classes


def test_each_class_is_held_out_in_turn():
    spies = {"spy": Spy(), "classes": SpyOnClasses()}
    results = compare_detectors(spies, {"x": (numbers(0, 28), LETTERS)}, protocol="holdout-class", seeds=1)
    assert results["error"].tolist() == [""] * 6
    assert results["dataset"].tolist() == ["x/a", "x/a", "x/b", "x/b", "x/c", "x/c"]
    assert set(results["protocol"]) == {"holdout-class"}
    assert results["n_train"].tolist() == [10, 10, 10, 10, 8, 8]
    assert results["n_test"].tolist() == [14] * 6
    for letter, (rows, y, tested), (same_rows, no_y, _) in zip("abc", SpyOnClasses.seen, Spy.seen, strict=True):
        assert letter not in LETTERS[rows]
        assert not set(rows) & set(tested)
        assert sorted(LETTERS[tested]) == [*"aaaabbbbcccccc"]
        np.testing.assert_array_equal(y, LETTERS[rows])
        np.testing.assert_array_equal(rows, same_rows)
        assert no_y is None


def test_each_class_is_normal_in_turn():
    detectors = {"classes": SpyOnClasses(), "both": SpyOnBoth()}
    results = compare_detectors(detectors, {"x": (numbers(0, 28), LETTERS)}, protocol="one-versus-rest", seeds=2)
    assert results["dataset"].tolist() == ["x/a"] * 4 + ["x/b"] * 4 + ["x/c"] * 4
    assert results["n_train"].tolist() == [4] * 8 + [6] * 4
    for letter, (rows, y, tested) in zip("aabbcc", SpyOnClasses.seen, strict=True):
        assert set(LETTERS[rows]) == {letter}
        assert y is None
        assert not set(rows) & set(tested)
        assert sorted(LETTERS[tested]) == [*"aaaabbbbcccccc"]
    # Another seed, other rows.
    assert set(SpyOnClasses.seen[0][0]) != set(SpyOnClasses.seen[1][0])
    np.testing.assert_array_equal(SpyOnBoth.seen[0][0], SpyOnClasses.seen[0][0])


def test_figures_are_those_of_the_splitter():
    results = compare_detectors(["kNN"], ["wine"], protocol="one-versus-rest", seeds=[3])
    assert results["dataset"].tolist() == ["wine/0", "wine/1", "wine/2"]
    X, y = load_wine(return_X_y=True)
    tasks = OneVersusRest(random_state=3).tasks(X, y)
    for own, (_, target, [(train, test)]) in zip(results["auroc"], tasks, strict=True):
        scaler = StandardScaler().fit(X[train])
        scores = NearestNeighborsDetector().fit(scaler.transform(X[train])).score_samples(scaler.transform(X[test]))
        assert own == pytest.approx(auroc(target[test], scores), abs=1e-12)


def test_rows_with_minus_one_are_auxiliary_where_there_are_classes():
    y = np.repeat([0, 1, -1], [8, 8, 6])
    spies = {"spy": Spy(), "both": SpyOnBoth()}
    results = compare_detectors(spies, {"x": (numbers(0, 22), y)}, protocol="holdout-class", seeds=1)
    assert results["dataset"].tolist() == ["x/0", "x/0", "x/1", "x/1"]
    assert results["n_train"].tolist() == [4] * 4
    rows, labels, tested = SpyOnBoth.seen[0]
    assert labels.tolist() == [1] * 4 + [-1] * 6
    assert set(y[rows[labels == -1]]) == {-1}
    assert -1 not in y[tested]
    assert -1 not in y[Spy.seen[0][0]]


def test_digits_are_the_data_of_the_protocols_with_classes():
    results = compare_detectors(["OneClassSVM"], protocol="one-versus-rest", seeds=1, max_train=20, max_test=100)
    assert results["dataset"].tolist() == [f"digits/{digit}" for digit in range(10)]
    assert (results["auroc"] > 0.7).all()


# --------------------------------------------------------------------------------------------------- pairs


def test_pair():
    spies = {"spy": Spy(), "classes": SpyOnClasses(), "both": SpyOnBoth()}
    data = {"x": pair(y=np.repeat([5, 6], 12), auxiliary=numbers(300, 307))}
    results = compare_detectors(spies, data, protocol="ood-pair", seeds=1)
    assert results["dataset"].tolist() == ["x/far"] * 3 + ["x/farther"] * 3
    assert results["n_train"].tolist() == [12] * 6
    assert results["n_test"].tolist() == [22] * 3 + [18] * 3
    # Small numbers score higher.
    assert results["auroc"].tolist() == [1.0] * 6
    assert len(Spy.seen) == len(SpyOnClasses.seen) == len(SpyOnBoth.seen) == 1
    rows, y, tested = Spy.seen[0]
    assert y is None
    assert sorted([*rows, *tested]) == [*range(24), *range(100, 110), *range(200, 206)]
    assert rows.max() < 24
    rows, y, _ = SpyOnClasses.seen[0]
    assert rows.max() < 24
    np.testing.assert_array_equal(y, 5 + rows // 12)
    rows, y, _ = SpyOnBoth.seen[0]
    assert sorted(rows[y == -1]) == list(range(300, 307))
    assert rows[y != -1].max() < 24
    assert set(y) == {-1, 5, 6}


@pytest.mark.parametrize("marker", [0, 1, 2, -5, "bad", [2, 3, -1], ["bad", "worse"]])
def test_no_class_is_the_marker_of_outliers(marker):
    detector = {"both": SpyOnBoth(outlier_label=marker)}
    compare_detectors(
        detector, {"x": pair(y=np.repeat([0, 1], 12), auxiliary=numbers(300, 307))}, protocol="ood-pair", seeds=1
    )
    rows, y, _ = SpyOnBoth.seen[0]
    assert [label in list_markers(marker) for label in y] == (rows >= 300).tolist()
    assert len(set(y)) == 3


def test_far_auxiliary_rows_do_not_set_the_scale():
    rng = np.random.default_rng(0)
    data = OODPair(rng.normal(5, 2, (60, 3)), {"x": np.zeros((4, 3))}, auxiliary=rng.normal(1e4, 1, (30, 3)))
    compare_detectors({"spy": SpyOnVectors(outlier_label=7)}, {"x": data}, protocol="ood-pair", seeds=1)
    X, y = SpyOnVectors.seen[0]
    assert y.tolist() == [8] * 30 + [7] * 30
    np.testing.assert_allclose(X[y == 8].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(X[y == 8].std(0), 1)
    assert (X[y == 7] > 1000).all()


def test_auxiliary_rows_teach_a_detector_of_ours():
    """Outliers beside the inliers, of which examples were seen."""
    rng = np.random.default_rng(0)
    kinds = {
        name: rng.normal(loc, 0.2, (n, 2)) for name, loc, n in [("in", 0, 200), ("out", 0.6, 100), ("new", 0.6, 50)]
    }
    detector = {"reject": RejectClassDetector(1, max_epochs=20, hidden_sizes=(16,), score_type="sum")}
    with_corpus, without = (
        compare_detectors(
            detector, {"x": OODPair(kinds["in"], {"new": kinds["new"]}, **aux)}, protocol="ood-pair", seeds=1
        )["auroc"].item()
        for aux in ({"auxiliary": kinds["out"]}, {})
    )
    assert with_corpus > 0.97
    assert with_corpus > without


def test_detectors_of_ours_take_images_classes_and_auxiliary_rows():
    rng = np.random.default_rng(0)
    images = {low: rng.integers(low, low + 60, (24, 1, 8, 8), np.uint8) for low in (0, 100, 150)}
    data = OODPair(images[0], {"light": images[150]}, y=np.repeat(["a", "b"], 12), auxiliary=images[100])
    detectors = {
        "DUM": DUMDetector(max_epochs=1, hidden_sizes=(4,)),
        "reject": RejectClassDetector(max_epochs=1, class_epochs=1, network="wrn-10-1"),
        "VAE": NegSampleVAE(max_epochs=1),
        "rotation": RotationAuxClassifier(max_epochs=1, network="wrn-10-1"),
    }
    results = compare_detectors(detectors, {"x": data}, protocol="ood-pair", seeds=1)
    assert results["error"].tolist() == [""] * 4


def test_an_unseen_set_is_tested_on_the_same_rows_whatever_else_is_there(tmp_path):
    rng = np.random.default_rng(0)
    X, near, far = rng.normal(size=(40, 2)), rng.normal(1, 1, (30, 2)), rng.normal(3, 1, (20, 2))
    options = {"protocol": "ood-pair", "seeds": 2, "max_test": 25, "out": tmp_path}
    alone = compare_detectors(["kNN"], {"x": OODPair(X, {"far": far})}, **options)
    both = compare_detectors(["kNN"], {"x": OODPair(X, {"near": near, "far": far})}, **options | {"out": None})
    columns = ["auroc", "aupr_out", "fpr95", "n_train", "n_test"]
    assert both["dataset"].tolist() == ["x/near"] * 2 + ["x/far"] * 2
    pd.testing.assert_frame_equal(alone[columns], both[columns][2:].reset_index(drop=True))
    # And what is there already is not done again.
    resumed = compare_detectors(["kNN"], {"x": OODPair(X, {"near": near, "far": far})}, **options)
    pd.testing.assert_frame_equal(resumed[2:].reset_index(drop=True), alone)


# ------------------------------------------------------------------------------------------- for all protocols

CLASSES = st.lists(st.integers(4, 12), min_size=2, max_size=4)


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(PROTOCOLS)),
    CLASSES,
    st.integers(0, 6),
    st.integers(0, 2**31),
    st.none() | st.integers(1, 20),
    st.none() | st.integers(2, 20),
)
def test_nothing_is_trained_on_and_tested(protocol, sizes, n_auxiliary, seed, max_train, max_test):
    y = np.repeat(np.arange(len(sizes)), sizes)
    if protocol == "ood-pair":
        unseen = {f"u{size}": np.ones((size, 2)) for size in sizes}
        data = OODPair(np.zeros((len(y), 2)), unseen, y=y, auxiliary=np.ones((n_auxiliary, 2)))
    elif protocol in ("novelty", "contaminated"):
        data = np.zeros((len(y), 2)), np.where(y == 0, -1, y)
    else:
        y = np.concatenate([y, np.full(n_auxiliary, -1)])
        data = np.zeros((len(y), 2)), y
    problem = PROTOCOLS[protocol]("x", data)
    for task in problem.tasks():
        split, again = (problem.split(task.label, task.identities, seed, max_train, max_test) for _ in range(2))
        assert list(split.tests) == list(task.identities)
        assert 1 <= len(split.train) <= (max_train or len(y))
        assert len(split.auxiliary) <= min(max_train or n_auxiliary, n_auxiliary)
        learnt = [*split.train, *split.auxiliary]
        assert len(set(learnt)) == len(learnt)
        for name, (rows, truth) in split.tests.items():
            assert set(truth) == {-1, 1}
            assert len(set(rows)) == len(rows) <= (max_test or len(problem.X)) + 1
            assert not set(rows) & set(learnt)
            assert max(rows) < len(problem.X)
            np.testing.assert_array_equal(rows, again.tests[name][0])
        np.testing.assert_array_equal(split.train, again.train)
        assert split.classes is None or split.classes.tolist() == y[split.train].tolist()


def test_memory_mapped_rows_are_joined_in_a_file(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("in", "new"):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (20, 3, 4, 4), dtype=np.uint8))
    known, new = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("in", "new"))
    auxiliary = rng.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    for rows in (known, known[4:], np.asarray(known)):
        problem = PROTOCOLS["ood-pair"]("x", OODPair(rows, {"new": new}, auxiliary=auxiliary))
        np.testing.assert_array_equal(problem.X, np.concatenate([rows, auxiliary, new]))
        assert isinstance(problem.X, np.memmap)
    # The first and the last have the same rows.
    assert len(list(tmp_path.iterdir())) == 4
    problem = PROTOCOLS["ood-pair"]("x", OODPair(known[:], {"new": np.array(new)}, auxiliary=auxiliary))
    assert problem.X.filename.parent == tmp_path


@pytest.mark.parametrize(
    ("protocol", "data", "message"),
    [
        ("holdout-class", (np.ones((8, 2)), np.ones(8)), "'x' has 1 class; it needs at least 2"),
        ("one-versus-rest", (np.ones((8, 2)), np.repeat([1, 2], [2, 6])), "class 1 has 2 rows; drop or merge"),
        ("holdout-class", (np.ones((8, 2)), np.repeat([1, np.nan], 4)), "'x': y contains NaN"),
        (
            "novelty",
            (np.ones((5, 2)), [0, 0, 1, 0, 0]),
            r"its labels are 0 \(4 rows\), 1 \(1 row\). If 1 marks the outliers, write y = np.where\(.* == 1, -1, 1\)",
        ),
        ("contaminated", (np.ones((3, 2)), ["ok", "bad", "ok"]), "If 'bad' marks the outliers, write"),
        ("novelty", (np.ones((5, 2)), np.ones(5)), "'x' has 0 outliers"),
        ("novelty", (np.ones((5, 2)), [1, -1, np.nan, 1, 1]), "'x': y contains NaN, first in row 2"),
        ("contaminated", (np.ones((5, 2)), pd.Series([1, -1, 1, None, 1])), "'x': y contains NaN, first in row 3"),
        ("novelty", (np.ones((5, 2)), ["1", "-1", "1", "1", "1"]), "'x': y holds the text '-1'"),
        ("ood-pair", OODPair(np.ones((4, 2)), {"u": np.ones((1, 2))}, y=[1, None, 1, 1]), "'x': y contains NaN, .* 1"),
        ("holdout-class", (np.ones((8, 2)), np.ones(3)), r"y of shape \(3,\)"),
        ("holdout-class", pair(), r"'x' must be a pair \(X, y\) for this protocol; got OODPair"),
        ("novelty", pair(), r"'x' must be a pair \(X, y\) for this protocol; got OODPair"),
        ("ood-pair", (np.ones((8, 2)), np.ones(8)), r"must be a skood\.compare\.OODPair .*; got tuple"),
        ("ood-pair", OODPair(np.ones((8, 2)), {}), "no unseen rows"),
        ("ood-pair", OODPair(np.ones((8, 2)), {"u": np.ones((0, 2))}), "unseen u has no rows"),
        (
            "ood-pair",
            OODPair(np.ones((3, 2)), {"u": np.ones((1, 2))}),
            "has 3 in-distribution rows; it needs at least 4",
        ),
        ("ood-pair", OODPair(np.ones((8, 2)), {"u": np.ones((1, 3))}), r"unseen u has rows of shape \(3,\), but X of"),
        (
            "ood-pair",
            OODPair(np.ones((8, 2)), {"u": np.ones((1, 2))}, auxiliary=np.ones((2, 1, 2, 1))),
            r"auxiliary has rows of shape \(1, 2, 1\)",
        ),
        ("ood-pair", OODPair(np.ones((8, 2)), {"u": np.ones((1, 2), np.uint8)}), "rows of uint8, but X of float64"),
        ("ood-pair", OODPair(np.ones((8, 2)), {"u": np.ones((1, 2))}, y=[1] * 7 + [-1]), "OODPair.auxiliary"),
        ("ood-pair", OODPair(np.ones((8, 2)), {"u": np.ones((1, 2))}, y=[1] * 7), r"y of shape \(7,\)"),
    ],
)
def test_data_that_do_not_fit_the_protocol(protocol, data, message):
    with pytest.raises(ValueError, match=message):
        compare_detectors(["kNN"], {"x": data}, protocol=protocol)


def test_digits_are_the_pair_that_comes_with_skood():
    results = compare_detectors(["kNN"], protocol="ood-pair", seeds=2)
    _, y = load("digits", classes=True)
    assert results["dataset"].tolist() == ["digits/8"] * 2 + ["digits/9"] * 2
    assert set(results["n_train"]) == {(y < 5).sum() // 2}
    assert results["n_test"].tolist() == [(y < 5).sum() - (y < 5).sum() // 2 + (y == k).sum() for k in (8, 8, 9, 9)]
    with pytest.raises(ValueError, match="dictionary of names and OODPair"):
        compare_detectors(["kNN"], ["digits"], protocol="ood-pair")


# ----------------------------------------------------------------------------------------------- the command


def write(path, X, y=None):
    np.savez(path, X=X, **({} if y is None else {"y": y}))
    return str(path)


def test_the_command_knows_all_protocols():
    assert list(PROTOCOLS) == list(PROTOCOL_HELP)


def test_command_with_classes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 20)
    path = write(tmp_path / "blobs.npz", rng.normal(5 * y[:, None], 1, (60, 2)), y)
    command = ["compare", "--data", path, "--detectors", "kNN", "--only", "--seeds", "1", "--jobs", "1"]
    assert main([*command, "--protocol", "holdout-class", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "blobs/0" in printed
    assert "AUROC for each data set, 1 seed; best in bold. Protocol holdout-class: each class in turn is" in printed
    assert pd.read_csv(tmp_path / "out" / "results.csv")["dataset"].tolist() == ["blobs/0", "blobs/1", "blobs/2"]
    assert (tmp_path / "out" / f"scores-{as_file_name('blobs/0')}.png").exists()
    assert scores_path(tmp_path / "out", "blobs/0", "holdout-class", "kNN").exists()


def test_command_with_a_pair(tmp_path, capsys):
    rng = np.random.default_rng(0)
    shades = {
        name: rng.integers(low, low + 50, (30, 4, 4), np.uint8) for name, low in [("a", 0), ("b", 90), ("c", 200)]
    }
    known = write(tmp_path / "a.npz", shades["a"], np.repeat([0, 1], 15))
    unseen = [write(tmp_path / "b.npz", shades["b"]), write(tmp_path / "c.npz", shades["c"])]
    command = ["compare", "--data", known, "--detectors", "kNN", "--only", "--seeds", "1", "--jobs", "1"]
    options = ["--protocol", "ood-pair", "--unseen", *unseen, "--auxiliary", unseen[1]]
    assert main([*command, *options, "--out", str(tmp_path / "out")]) == 0
    assert "a/b" in capsys.readouterr().out
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert results["dataset"].tolist() == ["a/b", "a/c"]
    assert results["auroc"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unseen", "x.npz"], "--unseen is for --protocol ood-pair"),
        (["--auxiliary", "x.npz", "--protocol", "holdout-class"], "--auxiliary is for --protocol ood-pair"),
        (["--outlier", "3", "--protocol", "one-versus-rest"], "--outlier is not for --protocol one-versus-rest"),
        (["--protocol", "ood-pair", "--data", "x.npz"], "needs --data (in-distribution rows) and --unseen"),
        (["--protocol", "ood-pair", "--unseen", "x.npz"], "needs --data"),
        (["--protocol", "ood-pair", "--data", "x.npz", "--unseen", "none.npz"], "none.npz: no such file"),
        (["--protocol", "holdout-class", "--data", "x.npz"], "x.npz: no array y, only X"),
        (["--data", "x.npz", "x.npz"], "two data sets are named"),
    ],
)
def test_wrong_usage(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write("x.npz", np.ones((8, 2)))
    with pytest.raises(SystemExit) as exit_info:
        main(["compare", *arguments])
    assert exit_info.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(20, 2)), np.repeat([0, 1], [15, 5])
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "pima.npz", X, y)
    write(tmp_path / "two" / "skin.npz", X, y)
    command = ["compare", "--detectors", "kNN", "--only", "--seeds", "1", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert main([*command, "--suite", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    names = pd.read_csv(tmp_path / "out" / "results.csv")["dataset"].tolist()
    assert names == ["one/pima", "two/pima", "skin"]


def test_the_command_says_when_rows_were_left_out(tmp_path, capsys):
    write(tmp_path / "blob.npz", np.random.default_rng(0).normal(size=(80, 2)), np.arange(80) < 20)
    command = ["compare", "--detectors", "kNN", "--only", "--seeds", "1", "--jobs", "1", "--data"]
    command += [str(tmp_path / "blob.npz"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "At most" not in capsys.readouterr().out
    assert main([*command, "--max-train", "15"]) == 0
    assert "At most 15 rows to train on (--max-train)." in capsys.readouterr().out
    assert "At most 15 rows to train on" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_real_images(data_home, tmp_path):
    """Digits of MNIST against clothes and Japanese characters, files as they lie."""
    images = data_home / "images"
    command = ["compare", "--detectors", "kNN,OneClassSVM", "--only", "--seeds", "1", "--jobs", "1"]
    sets = ["--data", str(images / "mnist_test.npz"), "--protocol", "ood-pair", "--unseen"]
    sets += [str(images / "fashion_mnist_test.npz"), str(images / "kmnist_t10k.npz")]
    limits = ["--max-train", "500", "--max-test", "500"]
    assert main([*command, *sets, *limits, "--out", str(tmp_path)]) == 0
    results = pd.read_csv(tmp_path / "results.csv").set_index(["detector", "dataset"])["auroc"]
    assert results["kNN", "mnist_test/fashion_mnist_test"] > 0.9
    assert results["kNN", "mnist_test/kmnist_t10k"] > 0.9
