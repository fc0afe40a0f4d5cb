"""Read images as they are published: CIFAR-10-C, ImageNet-C and SVHN; public in `skood.datasets`."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from ._image_folder import load_image_folder


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


def _check_severity(severity: int) -> None:
    """Refuse a severity that is not one of the five."""
    if not isinstance(severity, Integral) or isinstance(severity, bool) or not 1 <= severity <= 5:
        raise ValueError(f"severity={severity!r} must be an integer from 1 to 5.")
