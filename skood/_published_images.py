"""Read images as they are published: CIFAR-10-C, ImageNet-C, MPI3D and SVHN; public in `skood.datasets`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import Bunch, check_random_state

from ._image_folder import load_image_folder
from ._npz import open_npz

# The factors of mpi3d_toy, mpi3d_realistic and mpi3d_real, in the order of the file: the last one varies fastest.
_MPI3D: dict[str, Sequence[Any]] = {
    "object_color": ("white", "green", "red", "blue", "brown", "olive"),
    "object_shape": ("cone", "cube", "cylinder", "hexagonal", "pyramid", "sphere"),
    "object_size": ("small", "large"),
    "camera_height": ("top", "center", "bottom"),
    "background_color": ("purple", "sea green", "salmon"),
    "horizontal_axis": range(40),
    "vertical_axis": range(40),
}


def load_cifar10_c(folder: str | Path, corruption: str, severity: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Read corrupted images of CIFAR-10-C, or of another data set in its format, such as CIFAR-100-C.

    Download and unpack https://zenodo.org/records/2535967 first. It holds ``labels.npy`` and, for each corruption, a
    ``.npy`` file of the test images at severity 1, then at 2, and so on to 5. At each severity the images are in the
    order of the clean test set. `skood.corruptions` applies the same corruptions to any other images.

    Parameters
    ----------
    folder : str or Path
        Folder that holds the files.
    corruption : str
        Name of a file without ``.npy``: "gaussian_noise", "fog", ...
    severity : int in [1, 5], default=1
        Strength of the corruption; 5 is the strongest.

    Returns
    -------
    X : ndarray of uint8 of shape (n_samples, C, H, W)
        The images, memory-mapped and read-only. The published files have 10000 of shape (3, 32, 32).
    y : ndarray of int of shape (n_samples,)
        Classes of the images.

    Raises
    ------
    ValueError
        If there is no such folder or file, a file has another format, or the severity is out of range.

    References
    ----------
    .. [1] Dan Hendrycks and Thomas Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
       Perturbations", ICLR 2019.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skood.datasets import load_cifar10_c
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "fog.npy"), np.zeros((50, 32, 32, 3), dtype=np.uint8))
    ...     np.save(Path(folder, "labels.npy"), np.tile(np.arange(10), 5))
    ...     X, y = load_cifar10_c(folder, "fog", severity=3)
    ...     X.shape, y.tolist()
    ((10, 3, 32, 32), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    _check_severity(severity)
    folder = Path(folder)
    published = "CIFAR-10-C is published at https://zenodo.org/records/2535967"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such directory. {published}; unpack it and pass the folder of its .npy files.")
    images, labels = folder / f"{corruption}.npy", folder / "labels.npy"
    if corruption == "labels" or not images.is_file():
        there = sorted(path.stem for path in folder.glob("*.npy") if path != labels)
        raise ValueError(f"{images}: no such file of images; there are {', '.join(there) or 'none'}. {published}.")
    if not labels.is_file():
        raise ValueError(f"{labels}: no such file. {published}; labels.npy is part of it.")
    X, y = _read_npy(images), _read_npy(labels)
    if X.ndim != 4 or X.dtype != np.uint8 or X.shape[3] not in (1, 3) or len(X) == 0 or len(X) % 5:
        raise ValueError(
            f"{images}: holds {X.dtype} of shape {X.shape}; expected uint8 of shape (n, H, W, C), where C is 1 or 3 "
            f"and n is five times the number of images of one severity."
        )
    if y.shape != (len(X),) or y.dtype.kind not in "iu":
        raise ValueError(f"{labels}: holds {y.dtype} of shape {y.shape}; expected {len(X)} integers.")
    size = len(X) // 5
    block = slice(size * (severity - 1), size * severity)
    # A transposed slice of a memory map is a view: images are read when they are used.
    return X[block].transpose(0, 3, 1, 2), np.asarray(y[block], dtype=np.int64)


def _read_npy(path: Path) -> np.ndarray:
    """Map a .npy file into memory, read-only; every error message names the file."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of many types: for another format, an empty array, or a file that may not be read
        raise ValueError(f"{path}: not a readable .npy file ({error}).") from error


def load_imagenet_c(
    folder: str | os.PathLike,
    corruption: str,
    severity: int = 1,
    *,
    size: int | tuple[int, int] = 224,
    memory_map: str | os.PathLike | None = None,
    errors: str = "raise",
    progress: bool = True,
) -> Bunch:
    """Read corrupted images of ImageNet-C or Tiny ImageNet-C [1]_.

    Download and unpack https://zenodo.org/records/2235448 (ImageNet-C) or https://zenodo.org/records/2536630 (Tiny
    ImageNet-C) first. Each corruption has a folder, with a folder for each severity, and in these a folder for each
    class. Reading them needs Pillow (``pip install 'skood[images]'``).

    Parameters
    ----------
    folder : str or path
        Folder that holds the folders of the corruptions.
    corruption : str
        Name of one of them: "gaussian_noise", "fog", ...
    severity : int in [1, 5], default=1
        Strength of the corruption; 5 is the strongest.
    size : int or tuple (height, width), default=224
        Size of all images, in pixels; an int stands for squares. The images of ImageNet-C have 224, those of Tiny
        ImageNet-C 64.
    memory_map, errors, progress
        As in `skood.datasets.load_image_folder`.

    Returns
    -------
    data : Bunch
        As from `skood.datasets.load_image_folder`; y holds the identifiers of the classes, such as "n01440764".

    Raises
    ------
    ValueError
        If there is no such folder or corruption, the severity is out of range, or a file cannot be read.
    ImportError
        If Pillow is not installed.

    References
    ----------
    .. [1] Dan Hendrycks and Thomas Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
       Perturbations", ICLR 2019.

    Examples
    --------
    >>> from skood.datasets import load_imagenet_c
    >>> fog = load_imagenet_c("Tiny-ImageNet-C", "fog", severity=3, size=64)  # doctest: +SKIP
    """
    _check_severity(severity)
    folder = Path(folder)
    images = folder / corruption / str(severity)
    if not images.is_dir():
        there = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        raise ValueError(
            f"{images}: no such directory; there are {', '.join(there) or 'none'} in {folder}. Pass the folder that "
            f"holds a folder for each corruption, each with the folders 1 to 5."
        )
    return load_image_folder(images, size=size, memory_map=memory_map, errors=errors, progress=progress)


def load_svhn(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read the cropped digits of SVHN, the street view house numbers [1]_.

    Download ``train_32x32.mat``, ``test_32x32.mat`` or ``extra_32x32.mat`` from http://ufldl.stanford.edu/housenumbers/
    first.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    X : ndarray of uint8 of shape (n_samples, 3, 32, 32)
        The images. ``test_32x32.mat`` has 26032.
    y : ndarray of int64 of shape (n_samples,)
        The digits, 0 to 9. In the file a zero has the label 10.

    Raises
    ------
    ValueError
        If there is no such file, or it holds something else.

    References
    ----------
    .. [1] Yuval Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", NIPS Workshop on
       Deep Learning and Unsupervised Feature Learning, 2011.

    Examples
    --------
    >>> from skood.datasets import load_svhn
    >>> X, y = load_svhn("test_32x32.mat")  # doctest: +SKIP
    """
    from scipy.io import loadmat

    published = "SVHN is published at http://ufldl.stanford.edu/housenumbers/, as train_32x32.mat and test_32x32.mat"
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file. {published}.")
    try:
        arrays = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # scipy raises errors of many types for a file of another format
        raise ValueError(f"{path}: not a readable .mat file ({error}). {published}.") from error
    X, y = arrays.get("X"), arrays.get("y")
    if X is None or X.dtype != np.uint8 or X.ndim != 4 or X.shape[:3] != (32, 32, 3):
        raise ValueError(f"{path}: holds no array X of uint8 of shape (32, 32, 3, n). {published}.")
    if y is None or y.size != X.shape[3] or y.dtype.kind not in "iu" or y.min() < 0 or y.max() > 10:
        raise ValueError(f"{path}: holds no array y of {X.shape[3]} labels from 1 to 10. {published}.")
    return np.ascontiguousarray(X.transpose(3, 2, 0, 1)), y.ravel().astype(np.int64) % 10


def load_mpi3d(
    path: str | os.PathLike,
    *,
    n_samples: int | None = None,
    indices: ArrayLike | None = None,
    factor_values: Mapping[str, Sequence[Any]] | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Read images of MPI3D, a robot arm that holds an object, with the factors that each shows [1]_.

    Download ``mpi3d_toy.npz``, ``mpi3d_realistic.npz`` or ``mpi3d_real.npz`` first; the addresses are at
    https://github.com/rr-learning/disentanglement_dataset. Each has 1,036,800 images, one for each combination of the
    factors. The compressed array is one stream: to read a few images takes as long as to unzip all before the last of
    them, up to 12.7 GB, but memory holds only the images that are returned. If you need them often, save these.

    Parameters
    ----------
    path : str or path
        The file.
    n_samples : int or None, default=None
        Number of images to draw at random, without replacement. None reads all: 12.7 GB in memory.
    indices : array-like of int of shape (n_samples,), or None, default=None
        Numbers of the images to read, from 0 on, instead of ``n_samples``.
    factor_values : mapping from factor to sequence of values, or None, default=None
        The factors of a file in the same format, the last of which varies fastest. None stands for the files named
        above. ``mpi3d_real_complex.npz`` has other objects, and as many images, 460,800, as the files of the NeurIPS
        2019 challenge, whose objects are others again: pass the values of yours.
    random_state : int, RandomState or None, default=None
        Seeds the draw. Pass an int for repeatable results. Used only with ``n_samples``.

    Returns
    -------
    data : Bunch
        X : ndarray of uint8 of shape (n_samples, 3, H, W)
            The images, in the order of ``indices``. Published ones have 64 x 64 pixels.
        factors : DataFrame of shape (n_samples, n_factors)
            object_color : "white", "green", "red", "blue", "brown" or "olive"
            object_shape : "cone", "cube", "cylinder", "hexagonal", "pyramid" or "sphere"
            object_size : "small" or "large"
            camera_height : "top", "center" or "bottom"
            background_color : "purple", "sea green" or "salmon"
            horizontal_axis, vertical_axis : int in [0, 39]
        indices : ndarray of int64 of shape (n_samples,)
            Numbers of the images.

    Raises
    ------
    ValueError
        If there is no such file, it holds something else or ends early, the number of images is not that of the
        combinations of the factors, or an index or a number of samples is out of range. The checksum, which is that of
        the whole array, is not compared: wrong pixels in a damaged file may go unnoticed.

    See Also
    --------
    make_shapes : Draws simple images with similar factors, without a download.

    References
    ----------
    .. [1] Muhammad Waleed Gondal et al., "On the Transfer of Inductive Bias from Simulation to the Real World: a New
       Disentanglement Dataset", NeurIPS 2019.

    Examples
    --------
    >>> from skood.datasets import load_mpi3d
    >>> data = load_mpi3d("mpi3d_real.npz", n_samples=20000, random_state=0)  # doctest: +SKIP
    >>> cones = data.X[data.factors["object_shape"] == "cone"]  # doctest: +SKIP
    """
    published = "MPI3D is published at https://github.com/rr-learning/disentanglement_dataset"
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file. {published}.")
    if n_samples is not None and indices is not None:
        raise ValueError("n_samples and indices are both given: they name the images in two ways; give one of them.")
    values = _MPI3D if factor_values is None else {name: list(column) for name, column in factor_values.items()}
    sizes = tuple(len(column) for column in values.values())
    with open_npz(path) as arrays:
        if "images" not in arrays:
            raise ValueError(f"{path}: no array images, only {', '.join(arrays.names) or 'none'}. {published}.")
        shape, dtype = arrays.header("images")
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
            raise ValueError(f"{path}: images holds {dtype} of shape {shape}; expected uint8 of shape (n, H, W, 3).")
        if shape[0] != math.prod(sizes):
            raise ValueError(
                f"{path}: images has shape {shape}, but the factors have {' x '.join(map(str, sizes))} = "
                f"{math.prod(sizes)} combinations. Pass factor_values, the factors of this file and their values."
            )
        rows = _chosen_rows(shape[0], n_samples, indices, random_state)
        X = np.empty((len(rows), 3, *shape[1:3]), dtype=np.uint8)
        order = np.argsort(rows, kind="stable")
        for place, image in zip(order, arrays.rows("images", rows[order]), strict=True):
            X[place] = image.transpose(2, 0, 1)
    codes = np.unravel_index(rows, sizes)
    factors = {name: np.asarray(column)[code] for (name, column), code in zip(values.items(), codes, strict=True)}
    return Bunch(X=X, factors=pd.DataFrame(factors), indices=rows)


def _chosen_rows(n: int, n_samples: int | None, indices: Any, random_state: Any) -> np.ndarray:
    """Return the numbers of the images to read, of n."""
    if indices is not None:
        rows = np.asarray(indices)
        if rows.ndim != 1 or rows.size == 0 or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n:
            raise ValueError(f"indices must be a list of integers from 0 to {n - 1}; a mask becomes one by np.nonzero.")
        return rows.astype(np.int64)
    if n_samples is None:
        return np.arange(n)
    if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or not 1 <= n_samples <= n:
        raise ValueError(f"n_samples={n_samples!r} must be an integer from 1 to {n}, or None for all.")
    return check_random_state(random_state).choice(n, int(n_samples), replace=False)


def _check_severity(severity: int) -> None:
    """Refuse a severity that is not one of the five."""
    if not isinstance(severity, Integral) or isinstance(severity, bool) or not 1 <= severity <= 5:
        raise ValueError(f"severity={severity!r} must be an integer from 1 to 5.")
