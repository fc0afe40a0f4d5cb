"""Read the folders of images that the command line names; add the options for them."""

from __future__ import annotations

import argparse
import hashlib
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    # Modules that take seconds to import are imported where they are used, so that --help and errors of usage come at
    # once.
    from sklearn.utils import Bunch

_OPTIONS = {
    "size": "--size",
    "mode": "--mode",
    "resize": "--resize",
    "errors": "--errors",
    "memory_map": "--memory-map",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how folders of images are read.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    # None means that an option is not given. Without a folder an option would have no effect, and is refused.
    group = parser.add_argument_group("folders of images, as --data, --unseen and --auxiliary")
    group.add_argument("--size", type=_size, metavar="N", help="resize all images to N x N pixels, or to HxW (32)")
    group.add_argument("--mode", choices=("RGB", "L", "keep"), help="colour, grey, or as the files are (RGB)")
    group.add_argument(
        "--resize", choices=("crop", "squash", "pad"), help="what happens to images of other proportions (crop)"
    )
    group.add_argument(
        "--errors", choices=("raise", "skip"), help="whether files that cannot be read are an error or left out (raise)"
    )
    group.add_argument(
        "--memory-map", action="store_true", default=None, help="keep the images in files in --out, not in memory"
    )


def _size(text: str) -> int | tuple[int, int]:
    """Read a side, or a height and a width."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 64, or 48x64 for a height of 48")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def check_options(options: argparse.Namespace, paths: Iterable[Path]) -> None:
    """Refuse options for folders if there is no folder.

    Parameters
    ----------
    options : argparse.Namespace
    paths : iterable of Path
        Everything that is to be read.

    Raises
    ------
    ValueError
    """
    if any(path.is_dir() for path in paths):
        return
    for name, option in _OPTIONS.items():
        if getattr(options, name) is not None:
            raise ValueError(
                f"{option} is for folders of images, and none is given: leave it out, or name a folder as --data."
            )


def read_outliers(
    path: Path, options: argparse.Namespace, outliers: Sequence[str] | None, inliers: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read a folder of images; some of the folders in it hold outliers.

    Parameters
    ----------
    path : Path
    options : argparse.Namespace
        Those of `add_options`, and ``out``.
    outliers : sequence of str or None
        Folders of outliers, at any depth.
    inliers : sequence of str or None, default=None
        Classes of inliers, instead of ``outliers``: all others are outliers.

    Returns
    -------
    X : ndarray of uint8 of shape (n, C, H, W)
    y : ndarray of int of shape (n,)
        -1 for outliers, +1 for inliers.

    Raises
    ------
    ValueError
        If an image cannot be read, or the folders do not say which images are outliers.
    """
    if bool(outliers) == bool(inliers):
        there = sorted(folder.name for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        raise ValueError(
            f"{path}: name the folders of outliers (--outlier) or those of inliers (--inlier); there are "
            f"{', '.join(there) or 'none'}."
        )
    data = _load(path, options, outliers or ())
    if inliers:
        unknown = sorted(set(inliers) - set(data.classes))
        if unknown:
            raise ValueError(f"{path}: no class is named {', '.join(unknown)}; there are {', '.join(data.classes)}.")
        data.y = np.where(np.isin(data.y, inliers), 1, -1)
    n_outliers = int((data.y == -1).sum())
    if n_outliers in (0, len(data.y)):
        raise ValueError(
            f"{path}: every image is an {'outlier' if n_outliers else 'inlier'}; both kinds are needed. Change "
            f"--outlier or --inlier."
        )
    print(f"{path.name}: {len(data.y) - n_outliers} inliers, {n_outliers} outliers.")
    return data.X, data.y


def read_classes(path: Path, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Read a folder that holds a folder of images for each class.

    Parameters
    ----------
    path : Path
    options : argparse.Namespace
        Those of `add_options`, and ``out``.

    Returns
    -------
    X : ndarray of uint8 of shape (n, C, H, W)
    y : ndarray of str of shape (n,)
        The folder of each image.

    Raises
    ------
    ValueError
        If an image cannot be read.
    """
    data = _load(path, options, ())
    counts = ", ".join(f"{(data.y == name).sum()} {name}" for name in data.classes[:10])
    print(f"{path.name}: {len(data.y)} images ({counts}{', ...' if len(data.classes) > 10 else ''}).")
    return data.X, data.y


def _file_of(path: Path) -> str:
    """Return the name of the file for the images of a folder; no two folders have the same."""
    whole = path.resolve()
    digest = hashlib.sha256(os.fsencode(whole)).hexdigest()
    return f"{'_'.join(whole.parts[-2:]).strip('/')}~{digest[:10]}.npy"


def _load(path: Path, options: argparse.Namespace, outliers: Sequence[str]) -> Bunch:
    """Read a folder, and print which of its files were left out."""
    from ..datasets import load_image_folder

    given = {name: getattr(options, name) for name in ("size", "mode", "resize", "errors")}
    how: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if options.memory_map:
        options.out.mkdir(parents=True, exist_ok=True)
        how["memory_map"] = options.out / _file_of(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        try:
            data = load_image_folder(path, outliers=outliers, **how)
        except ImportError as error:
            raise ValueError(str(error)) from error
    for warning in caught:
        print(warning.message)
    return data
