"""Read the images of any file or folder, for the scripts that compare with sets which are not in the data folder."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np

from skood.datasets import load_image_folder, load_svhn

HELP = "another set: an .npz file with an array X, SVHN's .mat file, or a folder of image files"


def named(text):
    """Return name and path of a text NAME=PATH."""
    name, equals, path = text.partition("=")
    if not (name and equals and Path(path).exists()):
        raise ArgumentTypeError(f"{text!r} must be NAME=PATH, with the path of a file or folder that exists.")
    return name, Path(path)


def read(path, side=32):
    """Return images of uint8 of shape (n, C, side, side); those of a folder are resized."""
    if path.is_dir():
        return load_image_folder(path, size=side).X
    if path.suffix == ".mat":
        return load_svhn(path)[0]
    with np.load(path) as file:
        X = file["X"]
    X = X[:, None] if X.ndim == 3 else X
    if X.shape[2:] != (side, side):
        raise ValueError(f"{path}: the images have {X.shape[2]} x {X.shape[3]} pixels, not {side} x {side}.")
    return X


def read_labels(path):
    """Return the labels of images: the array y of an .npz file or those of SVHN's file; None where there are none."""
    if path.suffix == ".mat":
        return load_svhn(path)[1]
    if path.suffix != ".npz":
        return None
    with np.load(path) as file:
        return file["y"] if "y" in file.files else None
