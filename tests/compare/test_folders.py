"""Folders of images through the command line, end to end."""

import numpy as np
import pandas as pd
import pytest

from skood.__main__ import main

Image = pytest.importorskip("PIL.Image", reason="no Pillow: pip install '.[images]'")

QUICK = ["--detectors", "IsolationForest,kNN", "--only", "--seeds", "1", "--jobs", "1", "--size", "6"]

KINDS = [
    ("RGB", ".png"),
    ("RGB", ".jpg"),
    ("RGB", ".webp"),
    ("RGB", ".tif"),
    ("P", ".png"),
    ("RGBA", ".png"),
    ("I;16", ".png"),
    ("CMYK", ".jpg"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Dark and bright images, and a folder of bad ones within another."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for kind, brightest in (("parts/dark", 60), ("parts/bright", 200), ("parts/odd/bad", 255), ("others", 255)):
        (tmp_path / kind).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(brightest - 40, brightest, size=(9, 12, 3), dtype=np.uint8)
            # Each folder has files of every kind.
            write(pixels, *KINDS[number % len(KINDS)], tmp_path / kind / str(number))
    return tmp_path


def write(pixels, mode, suffix, path):
    """Write an image in one of the modes of Pillow."""
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode)
    image.save(path.with_suffix(suffix))


def run(capsys, *arguments):
    """Run the command and return what it prints and the results."""
    assert main(["compare", *arguments, *QUICK]) == 0
    return capsys.readouterr().out, pd.read_csv("comparison/results.csv")


def test_folders_of_outliers(folder, capsys):
    printed, results = run(capsys, "--data", "parts", "--outlier", "bad,dark")
    assert "parts: 16 inliers, 32 outliers." in printed
    assert results["dataset"].unique().tolist() == ["parts"]
    assert (results["auroc"] == 1).all()
    assert "parts: 16 inliers, 32 outliers." in run(capsys, "--data", "parts", "--inlier", "bright")[0]


@pytest.mark.parametrize("protocol", ["holdout-class", "one-versus-rest"])
def test_folders_of_classes(folder, capsys, protocol):
    printed, results = run(capsys, "--data", "parts", "--protocol", protocol)
    assert "parts: 48 images (16 bright, 16 dark, 16 odd)." in printed
    assert set(results["dataset"]) == {"parts/bright", "parts/dark", "parts/odd"}


def test_the_folder_where_one_is(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder / "parts")
    _, results = run(capsys, "--data", ".", "--outlier", "bad")
    assert results["dataset"].unique().tolist() == ["parts"]


def test_contaminated(folder, capsys):
    run(capsys, "--data", "parts", "--outlier", "odd", "--protocol", "contaminated", "--mode", "L")


def test_pairs_of_folders(folder, capsys):
    arguments = ["--data", "parts/dark", "--unseen", "others", "--auxiliary", "parts/odd", "--protocol", "ood-pair"]
    _, results = run(capsys, *arguments, "--memory-map")
    assert results["dataset"].unique().tolist() == ["dark/others"]
    maps = {path.name.partition("~")[0]: np.load(path) for path in (folder / "comparison").glob("*.npy")}
    names = [name for name in maps if name.endswith("_others")]
    assert maps.keys() == {"parts_dark", "parts_odd", "joined", *names}
    joined = maps.pop("joined")
    assert {images.shape for images in maps.values()} == {(16, 3, 6, 6)}
    np.testing.assert_array_equal(joined, np.concatenate([maps["parts_dark"], maps["parts_odd"], maps[names[0]]]))


def test_folders_whose_paths_end_alike_have_files_of_their_own(folder, capsys):
    for site, kind in (("a", "dark"), ("b", "bright")):
        (folder / site / "x").mkdir(parents=True)
        (folder / "parts" / kind).rename(folder / site / "x" / "test")
    arguments = ["--data", "a/x/test", "--unseen", "b/x/test", "--protocol", "ood-pair"]
    _, results = run(capsys, *arguments, "--memory-map")
    assert (results["auroc"] == 1).all()
    means = [np.load(path).mean() for path in (folder / "comparison").glob("x_test~*.npy")]
    assert len(means) == 2
    assert max(means) > 2 * min(means)


def test_a_file_that_cannot_be_read(folder, capsys):
    (folder / "parts" / "dark" / "0.png").write_text("no image")
    with pytest.raises(SystemExit):
        main(["compare", "--data", "parts", "--outlier", "odd", *QUICK])
    error = capsys.readouterr().err
    assert error.startswith("python -m skood compare: error: parts/dark/0.png cannot be read as an image: ")
    printed, _ = run(capsys, "--data", "parts", "--outlier", "odd", "--errors", "skip")
    assert "1 of 48 images cannot be read and were left out: parts/dark/0.png." in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data", "parts"],
            "parts: name the folders of outliers (--outlier) or those of inliers (--inlier); there are",
        ),
        (["--data", "parts", "--inlier", "good"], "parts: no class is named good; there are bright, dark, odd."),
        (["--data", "parts", "--outlier", "good"], "outliers: no image is in a folder 'good'; there are bright, dark,"),
        (["--data", "others", "--outlier", "others"], "others: every image is an outlier; both kinds are needed."),
        (["--mode", "L"], "is for folders of images, and none is given"),
        (["--size", "big"], "argument --size: 'big' is not a size; write 64, or 48x64 for a height of 48"),
    ],
)
def test_wrong_usage(folder, capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(["compare", *QUICK, *arguments])
    assert message in capsys.readouterr().err
