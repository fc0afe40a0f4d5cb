from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skood import DUMDetector
from skood.datasets import IMAGENET_SUBSETS, load_image_folder, load_imagenet_subset

Image = pytest.importorskip("PIL.Image", reason="no Pillow: pip install '.[images]'")


def write(path, color="red", size=(40, 40), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two classes, one of them with folders of its own, and what is no image."""
    write(tmp_path / "good" / "b.png")
    write(tmp_path / "good" / "2020" / "a.JPG", "lime", (80, 50))
    write(tmp_path / "good" / ".hidden.png")
    write(tmp_path / ".cache" / "c.png")
    write(tmp_path / "bad" / "dent" / "a.webp", "blue", (50, 80), lossless=True)
    write(tmp_path / "bad" / "a.tiff", "white")
    (tmp_path / "labels.csv").write_text("file,label\n")
    return tmp_path


def test_classes_are_folders(folder):
    data = load_image_folder(folder)
    assert data.X.shape == (4, 3, 32, 32)
    assert data.X.dtype == np.uint8
    assert data.y.tolist() == ["bad", "bad", "good", "good"]
    assert data.classes == ["bad", "good"]
    names = ["bad/a.tiff", "bad/dent/a.webp", "good/2020/a.JPG", "good/b.png"]
    assert data.files.tolist() == [str(folder / name) for name in names]
    assert data.X[[0, 1, 3]].mean(axis=(2, 3)).tolist() == [[255, 255, 255], [0, 0, 255], [255, 0, 0]]
    np.testing.assert_allclose(data.X[2].mean(axis=(1, 2)), [0, 255, 0], atol=3)


@pytest.mark.parametrize(
    ("outliers", "expected"),
    [(["bad"], [-1, -1, 1, 1]), ("bad/dent", [1, -1, 1, 1]), (("dent", "good/2020/"), [1, -1, -1, 1])],
)
def test_outliers_are_folders(folder, outliers, expected):
    assert load_image_folder(folder, outliers=outliers).y.tolist() == expected


def test_outliers_may_be_paths(folder):
    for outliers in (Path("bad/dent"), [Path("bad") / "dent"]):
        assert load_image_folder(folder, outliers=outliers).y.tolist() == [1, -1, 1, 1]


@pytest.mark.parametrize(
    "links",
    [{"good/2020/a": "good"}, {"good/a": "."}, {"good/a": ".", "bad/a": "."}, {"good/a": "..", "bad/dent/a": ".."}],
)
def test_links_to_folders_that_they_are_in_are_not_followed(folder, monkeypatch, links):
    root = folder / "images"
    root.mkdir()
    for name in ("good", "bad"):
        (folder / name).rename(root / name)
    (folder / "link").symlink_to(root)
    expected = load_image_folder(root)
    for link, target in links.items():
        (root / link).symlink_to((root / target).resolve())
    monkeypatch.chdir(root)
    for path in (root, ".", folder / "link"):
        data = load_image_folder(path)
        np.testing.assert_array_equal(data.X, expected.X)
        np.testing.assert_array_equal(data.y, expected.y)


def test_links_in_a_circle_end(folder):
    (folder / "good" / "a").symlink_to(folder / "bad")
    (folder / "bad" / "b").symlink_to(folder / "good")
    data = load_image_folder(folder)
    assert data.y.tolist() == ["bad"] * 4 + ["good"] * 4


def test_unknown_folder_of_outliers(folder):
    with pytest.raises(ValueError, match=r"no image is in a folder 'ad'; there are bad, bad/dent, good, good/2020\."):
        load_image_folder(folder, outliers=["bad", "ad"])


def test_a_flat_folder_is_one_class(tmp_path):
    for name in ("b.png", "a.png"):
        write(tmp_path / "parts" / name)
    data = load_image_folder(tmp_path / "parts")
    assert data.y.tolist() == ["parts", "parts"]
    assert [file[-5:] for file in data.files] == ["a.png", "b.png"]


def test_files_one_by_one(folder):
    files = [folder / "good" / "b.png", folder / "bad" / "dent" / "a.webp"]
    data = load_image_folder(map(str, files), outliers=["dent"])
    assert data.files.tolist() == list(map(str, files))
    assert data.y.tolist() == [1, -1]
    np.testing.assert_array_equal(load_image_folder(files[1]).X, data.X[1:])
    assert load_image_folder(files[1]).y.tolist() == ["dent"]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp"])
def test_pixels_come_through(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, size=(20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    X = load_image_folder(tmp_path, size=(20, 30)).X
    np.testing.assert_array_equal(X[0], pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGB", "L", "keep"])
@pytest.mark.parametrize(
    ("kind", "color", "options"),
    [
        ("P", 0, {}),
        ("PA", (0, 255), {}),
        ("RGBA", (100, 100, 100, 255), {}),
        ("LA", (100, 255), {}),
        ("L", 100, {}),
        ("RGB", (100, 100, 100), {}),
        ("I;16", 100 * 257, {}),
        ("I;16B", 100 * 257, {}),
        ("I", 100 * 257, {}),
        ("CMYK", (155, 155, 155, 0), {}),
        ("CMYK", (155, 155, 155, 0), {"suffix": ".jpg"}),
        ("YCbCr", (100, 128, 128), {"suffix": ".jpg"}),
    ],
)
def test_modes(tmp_path, kind, color, options, mode):
    suffix = options.get("suffix", ".png" if kind in ("P", "RGBA", "LA", "L", "RGB", "I;16") else ".tif")
    image = Image.new(kind.replace("PA", "P"), (20, 20), color if kind != "PA" else 0)
    if kind in ("P", "PA"):
        image.putpalette([100, 100, 100, 7, 8, 9] if mode != "keep" else [100] * 3)
    if kind == "PA":
        suffix, options = ".png", {"transparency": 1}
    image.save(tmp_path / f"a{suffix}", **{name: value for name, value in options.items() if name != "suffix"})
    X = load_image_folder(tmp_path, size=10, mode=mode).X
    grey = mode == "L" or (mode == "keep" and kind in ("P", "PA", "LA", "L", "I;16", "I;16B", "I"))
    assert X.shape == (1, 1 if grey else 3, 10, 10)
    np.testing.assert_allclose(X, 100, atol=2 if suffix == ".jpg" else 0)


def test_black_and_white(tmp_path):
    write(tmp_path / "a.png", 1, mode="1")
    X = load_image_folder(tmp_path, mode="keep").X
    assert X.shape == (1, 1, 32, 32)
    assert (X == 255).all()


@pytest.mark.parametrize(("kind", "clear"), [("RGBA", (9, 9, 9, 0)), ("LA", (9, 0)), ("P", 1)])
def test_transparent_is_white(tmp_path, kind, clear):
    image = Image.new(kind, (20, 20), clear)
    if kind == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
    image.save(tmp_path / "a.png", **({"transparency": 1} if kind == "P" else {}))
    assert (load_image_folder(tmp_path).X == 255).all()


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20))
@settings(max_examples=20)
def test_16_bits_are_scaled(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("deep") / "a.png"
    Image.fromarray(np.array([values], dtype=np.uint16)).save(file)
    X = load_image_folder(file, size=(1, len(values)), mode="L").X
    assert np.abs(X.ravel() - np.array(values) / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("kind", "value", "why"), [("F", 0.5, "floats, of no known range"), ("I", -7, "from -7 to -7")]
)
def test_pixels_of_unknown_range(tmp_path, kind, value, why):
    write(tmp_path / "a.tif", value, mode=kind)
    with pytest.raises(ValueError, match=rf"a\.tif cannot be read as an image: its pixels are {why}"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, orientation):
    upright = np.zeros((20, 40, 3), dtype=np.uint8)
    upright[:10, :20] = 255
    image, exif = Image.fromarray(upright), Image.Exif()
    exif[0x0112] = orientation
    # How the camera holds what is upright after it is turned back.
    held = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    if orientation > 1:
        image = image.transpose(Image.Transpose(held[orientation]))
    image.save(tmp_path / "a.png", exif=exif)
    X = load_image_folder(tmp_path, size=(20, 40)).X
    np.testing.assert_array_equal(X[0].transpose(1, 2, 0), upright)


@pytest.mark.parametrize(
    ("resize", "columns"), [("crop", [255] * 8), ("squash", [0, 0, 255, 255, 255, 255, 0, 0]), ("pad", None)]
)
def test_proportions(tmp_path, resize, columns):
    pixels = np.zeros((16, 32), dtype=np.uint8)
    pixels[:, 8:24] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    X = load_image_folder(tmp_path, size=8, mode="L", resize=resize).X[0, 0]
    if resize == "pad":
        assert X[:2].max() == X[-2:].max() == 0
        X = X[2:-2]
        columns = [0, 0, 255, 255, 255, 255, 0, 0]
    # At the edges pixels are means of both sides.
    np.testing.assert_allclose(X, np.tile(columns, (len(X), 1)), atol=40)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_broken_file_is_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, size=(40, 40, 3), dtype=np.uint8)
    broken = tmp_path / f"broken{suffix}"
    Image.fromarray(noise).save(broken)
    broken.write_bytes(broken.read_bytes()[:-1500])
    (tmp_path / "empty.png").touch()
    write(tmp_path / "whole.png")
    with pytest.raises(ValueError, match=rf"broken\{suffix} cannot be read as an image: .*errors='skip'"):
        load_image_folder(tmp_path)
    with pytest.warns(RuntimeWarning, match=rf"2 of 3 images cannot be read .*: .*broken\{suffix}, .*empty\.png"):
        data = load_image_folder(tmp_path, errors="skip")
    assert data.files.tolist() == [str(tmp_path / "whole.png")]
    assert len(data.X) == len(data.y) == 1


def test_nothing_can_be_read(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"none of 1 images can be read: .*a\.png"):
        load_image_folder(tmp_path, errors="skip")


def test_keep_takes_no_mixture(tmp_path):
    write(tmp_path / "a.png", 7, mode="L")
    write(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"a\.png is grey, but .*b\.png is in colour\. Pass mode='RGB'"):
        load_image_folder(tmp_path, mode="keep", errors="skip")


def test_memory_map(folder):
    (folder / "good" / "0.png").write_text("no image")
    target = folder / "images.npy"
    with pytest.warns(RuntimeWarning, match=r"1 of 5"):
        data = load_image_folder(folder, memory_map=target, errors="skip")
    assert isinstance(data.X, np.memmap)
    assert not data.X.flags.writeable
    with pytest.warns(RuntimeWarning, match=r"1 of 5"):
        expected = load_image_folder(folder, errors="skip")
    np.testing.assert_array_equal(data.X, expected.X)
    np.testing.assert_array_equal(np.load(target), expected.X)
    assert data.y.tolist() == expected.y.tolist()
    # What fails leaves neither half a file nor another one than before.
    with pytest.raises(ValueError, match="cannot be read"):
        load_image_folder(folder, memory_map=target, size=8)
    np.testing.assert_array_equal(np.load(target), expected.X)
    assert [file.name for file in folder.glob("images*")] == ["images.npy"]


def test_a_detector_takes_it(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(30):
        noise = rng.integers(100, 150, size=(12, 12, 3), dtype=np.uint8)
        (tmp_path / "good").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "good" / f"{number}.png")
    new = write(tmp_path / "new.png", "white")
    data = load_image_folder(tmp_path / "good", size=8, memory_map=tmp_path / "good.npy")
    detector = DUMDetector(contamination=0, max_epochs=1, random_state=0).fit(data.X[:])
    mapped = DUMDetector(contamination=0, max_epochs=1, random_state=0).fit(data.X)
    row = load_image_folder(new, size=8).X
    assert detector.score_samples(row) == mapped.score_samples(row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "nowhere"}, "nowhere: no such file or folder"),
        ({"path": []}, "path is an empty list"),
        ({"path": ["."]}, "is a folder; pass one folder"),
        ({"size": 0}, "size=0 must be a positive number"),
        ({"size": (1, 2, 3)}, "must be a positive number"),
        ({"size": None}, "size=None must be a positive number"),
        ({"size": 32.0}, "size=32.0 must be a positive number"),
        ({"outliers": None}, "outliers=None must be the name of a folder"),
        ({"outliers": [3]}, r"outliers=\[3\] must be the name of a folder"),
        ({"path": None}, "path=None must be a folder, or a list of files"),
        ({"memory_map": 3}, "memory_map=3 must be a .npy file"),
        ({"mode": "CMYK"}, "mode='CMYK' must be one of 'RGB', 'L', 'keep'"),
        ({"resize": "stretch"}, "resize='stretch' must be one of"),
        ({"errors": "ignore"}, "errors='ignore' must be one of"),
        ({"memory_map": "no/such/folder.npy"}, "must be a .npy file in a folder that exists"),
    ],
)
def test_what_is_refused(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_image_folder(**{"path": folder, **arguments})


def test_a_folder_without_images(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"no images in it, nor in its folders: none of \.png, \.jpg"):
        load_image_folder(tmp_path)


def test_progress_is_shown_on_request(folder, capsys, monkeypatch):
    monkeypatch.setattr("skood._image_folder._DELAY", 0)
    load_image_folder(folder, progress=False)
    assert capsys.readouterr().err == ""
    load_image_folder(folder)
    assert "4/4" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- subsets of ImageNet


def test_subsets_of_imagenet_are_those_of_the_paper():
    assert {name: len(classes) for name, classes in IMAGENET_SUBSETS.items()} == {
        "dog": 12, "car": 10, "snake": 9, "spider": 6, "fungus": 6
    }  # fmt: skip
    identifiers = [identifier for classes in IMAGENET_SUBSETS.values() for identifier in classes]
    assert len(set(identifiers)) == 43
    assert all(len(identifier) == 9 and identifier[0] == "n" and identifier[1:].isdigit() for identifier in identifiers)


def test_a_subset_of_imagenet(tmp_path):
    colours = ["red", "lime", "blue", "white", "black", "yellow"]
    for identifier, colour in zip(IMAGENET_SUBSETS["fungus"], colours, strict=True):
        for number in (10, 2, 1):
            write(tmp_path / identifier / f"{identifier}_{number}.JPEG", colour, (60, 40))
        write(tmp_path / identifier / ".hidden.JPEG")
    write(tmp_path / "n02085620" / "no_fungus.JPEG")
    data = load_imagenet_subset(tmp_path, "fungus", size=8, most_per_class=2, progress=False)
    assert data.X.shape == (12, 3, 8, 8)
    assert data.y.tolist() == [name for name in IMAGENET_SUBSETS["fungus"].values() for _ in range(2)]
    assert data.classes == ["stinkhorn", "bolete", "hen-of-the-woods", "earthstar", "gyromitra", "coral fungus"]
    np.testing.assert_allclose(data.X[4].mean(axis=(1, 2)), [0, 0, 255], atol=3)
    assert [file.rpartition("_")[2] for file in data.files[:2]] == ["1.JPEG", "10.JPEG"]
    assert len(load_imagenet_subset(tmp_path, "fungus", size=8, progress=False).X) == 18


def test_a_folder_without_the_classes(tmp_path):
    write(tmp_path / "n01774750" / "a.JPEG")
    with pytest.raises(ValueError, match=r"5 of 6 folders are missing: n01773157 \(Argiope aurantia\)"):
        load_imagenet_subset(tmp_path, "spider")
    with pytest.raises(ValueError, match="subset='cat' must be one of 'dog', 'car'"):
        load_imagenet_subset(tmp_path, "cat")
