import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from skood import DUMDetector, FrozenEncoder, NegSampleVAE, SimCLREncoder
from skood.datasets import load_image_folder

Image = pytest.importorskip("PIL.Image", reason="no Pillow: pip install '.[images]'")

BYTES = np.random.default_rng(0).integers(0, 256, size=(12, 3, 16, 16), dtype=np.uint8)
PICTURES = [Image.fromarray(image) for image in BYTES.transpose(0, 2, 3, 1)]


def fitted(X=BYTES, **params):
    return FrozenEncoder(torch.nn.Flatten(), **params).fit(X)


# As torchvision's, which is not among the packages of the tests.
DatasetFolder = type("DatasetFolder", (Dataset,), {"__module__": "torchvision.datasets.folder"})
ImageFolder = type("ImageFolder", (DatasetFolder,), {"root": "parts"})
SET = TensorDataset(torch.from_numpy(BYTES), torch.zeros(12))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (PICTURES, "X is a list of 12 PIL images, not one array. Pass np.stack("),
        (PICTURES[0], "X is one PIL image"),
        (
            ["a.png", "b.jpg"],
            "X holds names of files (2, 'a.png' first), not pixels. Read them: pass skood.datasets.load",
        ),
        (np.array(["a.png"]), "X holds names of files (1, 'a.png' first)"),
        (pd.Series(["a.png", "b.png"], index=[7, 9]), "X holds names of files (2, 'a.png' first)"),
        ("a.png", "X is the name of a file, 'a.png', not pixels"),
        (SET, "X is a torch Dataset (TensorDataset), not an array."),
        (DataLoader(SET), "X is a torch DataLoader; pass one array of rows instead."),
        (ImageFolder(), "X is a torchvision ImageFolder, not an array. Pass skood.datasets"),
        ([BYTES[0], BYTES[1], BYTES[2, :1]], "several shapes: (3, 16, 16) in row 0, (1, 16, 16) in row 2."),
        (BYTES[0], "X has shape (3, 16, 16), not (n, d) or (n, C, H, W). For grey images (n, H, W) pass X[:, None],"),
        (
            BYTES.reshape(12, 3, 16, 4, 4),
            "X has shape (12, 3, 16, 4, 4). Pass vectors of shape (n, d), or images of shape (n, C, H, W).",
        ),
    ],
)
def test_no_array_of_images(X, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        DUMDetector(contamination=0).fit(X)
    assert len(str(caught.value)) < 300
    if message.startswith("X has"):
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        fitted().transform(X)


@pytest.mark.parametrize("name", ["PICTURES", "SET", "DataLoader(SET)"])
def test_the_lines_that_are_named_work(name):
    X = eval(name)
    with pytest.raises(ValueError, match=r"[Pp]ass ") as caught:
        fitted().transform(X)
    line = re.search(r"(np\.stack|torch\.cat)\(.*\)", str(caught.value))[0].partition(", or read")[0]
    images = eval(line, {"np": np, "torch": torch, "X": X})
    assert images.shape[:2] == (12, 3)
    assert fitted(images).transform(images).shape[0] == 12


def test_the_line_for_files_works(tmp_path):
    PICTURES[0].save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="pass") as caught:
        fitted().transform([tmp_path / "a.png"])
    line = re.search(r"load_image_folder\(.*\)", str(caught.value))[0]
    X = eval(line, {"load_image_folder": load_image_folder, "X": [tmp_path / "a.png"]}).X
    assert X.shape == (1, 3, 32, 32)


def test_one_image_after_the_fit():
    with pytest.raises(ValueError, match=r"X has shape \(3, 16, 16\), that of one image.*Pass X\[None\]"):
        fitted().transform(BYTES[0])


@pytest.mark.parametrize("n_channels", [2, 6])
def test_channels_last(n_channels):
    X = np.zeros((5, 32, 32, n_channels), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"channels are last, pass np\.moveaxis\(X, -1, 1\)"):
        fitted(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (BYTES.astype(np.int64), "X holds int64 images"),
        (BYTES.astype(np.uint16) * 257, "X holds uint16 images"),
        (BYTES.astype(np.uint16), "X holds uint16 images"),
        (BYTES / np.float32(255), "X holds float32 images"),
        (BYTES.astype(float), "X holds float64 images"),
    ],
)
def test_a_fit_on_bytes_names_the_line_that_makes_bytes(X, message):
    encoder = fitted()
    with pytest.raises(ValueError, match=f"{message}, but FrozenEncoder was fitted on uint8 images") as caught:
        encoder.transform(X)
    line = re.search(r"np\.rint\(.*?\)\.astype\(np\.uint8\)", str(caught.value))[0]
    np.testing.assert_array_equal(eval(line, {"np": np, "X": X}), BYTES)


@pytest.mark.parametrize("flat", [False, True])
def test_another_scale_is_warned_of(flat):
    X, params = BYTES.astype(np.float32), {"image_shape": (3, 16, 16)} if flat else {}
    X = X.reshape(12, -1) if flat else X
    with pytest.warns(UserWarning, match=r"pixels in \[0, 255\], but .* fitted on pixels in \[0, 1\]. .* pass X / 255"):
        fitted(X / 255, **params).transform(X)
    with pytest.warns(
        UserWarning, match=r"pixels in \[0, 1\], but .* fitted on pixels in \[0, 255\]. .* pass 255 \* X"
    ):
        fitted(X, **params).transform(X / 255)
    with pytest.raises(ValueError, match=r"X holds uint8 images, but .* pass X / np\.float32\(255\)"):
        fitted(X / 255, **params).transform(X.astype(np.uint8))
    with pytest.raises(ValueError, match=r"X holds uint8 images, but .* pass X\.astype\(np\.float32\)"):
        fitted(X, **params).transform(X.astype(np.uint8))


def test_outliers_on_another_scale():
    """They are refused if the method would learn from them; if it leaves them out, their scale counts for nothing."""
    X, y = BYTES.astype(float), np.repeat([1, -1], [8, 4])
    mixed = X / np.where(y == 1, 255, 1)[:, None, None, None]
    params = {"max_epochs": 1, "contamination": 0, "device": "cpu"}
    with pytest.raises(ValueError, match=r"hold pixels in \[0, 1\], but those that y marks .* pixels in \[0, 255\]"):
        NegSampleVAE(**params).fit(mixed, y)
    for estimator in (DUMDetector(**params), SimCLREncoder(max_epochs=1, device="cpu")):
        estimator.fit(mixed, y)
        alone = estimator.score_samples if hasattr(estimator, "score_samples") else estimator.transform
        assert len(alone(mixed[:8])) == 8
        with pytest.warns(UserWarning, match=r"fitted on pixels in \[0, 1\]. .* pass X / 255"):
            alone(X)


def test_a_dark_image_is_scored_alone_as_among_others():
    rng = np.random.default_rng(0)
    X, dark = rng.uniform(0, 255, (30, 1, 8, 8)), rng.uniform(0, 0.9, (1, 1, 8, 8))
    model = DUMDetector(max_epochs=1, hidden_sizes=(8,), contamination=0, random_state=0, device="cpu").fit(X)
    scores = model.score_samples(np.concatenate([X[:1], dark]))
    with pytest.warns(UserWarning, match=r"X holds pixels in \[0, 1\], but DUMDetector .* pass 255 \* X") as caught:
        assert np.array_equal(model.score_samples(dark), scores[1:])
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("scale", [1, 255])
def test_black_white_and_strange_images_pass(scale):
    X = scale * BYTES / np.float32(255)
    encoder = fitted(X)
    for other in (0 * X, np.round(X / scale), X - scale, 2 * X / scale, -X):
        assert encoder.transform(other).shape == (12, 768)


def test_vectors_have_no_scale():
    X = BYTES.reshape(12, -1)
    assert fitted(X / 255).transform(X).shape == (12, 768)
