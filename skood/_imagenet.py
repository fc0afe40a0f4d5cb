"""Read subsets of ImageNet in which classes differ by details."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from ._image_folder import load_image_folder

# Subset -> identifier in WordNet -> name in the paper. ImageNet's folders have the identifiers for names.
IMAGENET_SUBSETS: dict[str, dict[str, str]] = {
    "dog": {
        "n02091244": "Ibizan hound",
        "n02088632": "bluetick",
        "n02088364": "beagle",
        "n02088094": "Afghan hound",
        "n02092339": "Weimaraner",
        "n02091831": "Saluki",
        "n02090379": "redbone",
        "n02091635": "otterhound",
        "n02091467": "Norwegian elkhound",
        "n02088238": "basset hound",
        "n02092002": "Scottish deerhound",
        "n02088466": "bloodhound",
    },
    "car": {
        "n03777568": "Model T",
        "n04037443": "race car",
        "n04285008": "sports car",
        "n03770679": "minivan",
        "n02701002": "ambulance",
        "n02930766": "cab",
        "n02814533": "beach wagon",
        "n03594945": "jeep",
        "n03100240": "convertible",
        "n03670208": "limo",
    },
    "snake": {
        "n01728920": "ringneck snake",
        "n01739381": "vine snake",
        "n01729322": "hognose snake",
        "n01728572": "thunder snake",
        "n01735189": "garter snake",
        "n01734418": "king snake",
        "n01740131": "night snake",
        "n01729977": "green snake",
        "n01737021": "water snake",
    },
    "spider": {
        "n01774750": "tarantula",
        "n01773157": "Argiope aurantia",
        "n01773549": "barn spider",
        "n01774384": "black widow",
        "n01773797": "garden spider",
        "n01775062": "wolf spider",
    },
    "fungus": {
        "n13040303": "stinkhorn",
        "n13054560": "bolete",
        "n13052670": "hen-of-the-woods",
        "n13044778": "earthstar",
        "n13037406": "gyromitra",
        "n12985857": "coral fungus",
    },
}


def load_imagenet_subset(
    folder: str | os.PathLike,
    subset: str,
    *,
    size: int | tuple[int, int] = 256,
    most_per_class: int | None = None,
    memory_map: str | os.PathLike | None = None,
    errors: str = "raise",
    progress: bool = True,
) -> Bunch:
    """Read a subset of ImageNet whose classes differ by details, such as hounds: for holding out one class [1]_.

    ImageNet (ILSVRC 2012) is published at https://image-net.org, for those who register there. Its images are resized
    to ``size`` on the shorter side, and the middle is cut out, as in the paper.

    Parameters
    ----------
    folder : str or path
        A folder of training or validation images that has a folder for each class, named by its identifier:
        ``n02091244`` and so on.
    subset : {"dog", "car", "snake", "spider", "fungus"}
        Name of the subset. ``skood.datasets.IMAGENET_SUBSETS[subset]`` has its classes: the name of each folder, and
        the name of the class.
    size : int or tuple (height, width), default=256
        Size of all images, in pixels; an int stands for squares.
    most_per_class : int or None, default=None
        Largest number of images of each class, the first by name. None reads all.
    memory_map, errors, progress
        As in `skood.datasets.load_image_folder`.

    Returns
    -------
    data : Bunch
        X : ndarray of uint8 of shape (n_samples, 3, height, width)
            The images, class by class.
        y : ndarray of str of shape (n_samples,)
            Name of the class of each image.
        files : ndarray of str of shape (n_samples,)
            The path of each image.
        classes : list of str
            Names of the classes, in the order of the paper's Table 7.

    Raises
    ------
    ValueError
        If there is no such subset, the folder lacks one of its classes, or a file cannot be read.
    ImportError
        If Pillow is not installed.

    References
    ----------
    .. [1] Faruk Ahmed and Aaron Courville, "Detecting Semantic Anomalies", AAAI 2020.

    Examples
    --------
    >>> from skood.datasets import IMAGENET_SUBSETS, load_imagenet_subset
    >>> list(IMAGENET_SUBSETS["spider"].values())[:3]
    ['tarantula', 'Argiope aurantia', 'barn spider']
    >>> spiders = load_imagenet_subset("ILSVRC2012/train", "spider", size=96)  # doctest: +SKIP
    """
    if subset not in IMAGENET_SUBSETS:
        raise ValueError(f"subset={subset!r} must be one of {', '.join(map(repr, IMAGENET_SUBSETS))}.")
    names = IMAGENET_SUBSETS[subset]
    missing = [f"{identifier} ({name})" for identifier, name in names.items() if not Path(folder, identifier).is_dir()]
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} of {len(names)} folders are missing: {', '.join(missing[:3])}, ... Pass the "
            f"folder of ImageNet that has a folder for each class, such as ILSVRC2012/train."
        )
    files = [
        file
        for identifier in names
        for file in sorted(path for path in Path(folder, identifier).iterdir() if not path.name.startswith("."))[
            :most_per_class
        ]
    ]
    data = load_image_folder(files, size=size, memory_map=memory_map, errors=errors, progress=progress)
    data.y = np.array([names[identifier] for identifier in data.y])
    data.classes = list(names.values())
    return data
