"""Read folders of image files into arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.utils import Bunch
from tqdm import tqdm

from ._warn import warn_user

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["load_image_folder"]

# A folder of images may hold other files, such as tables of labels, thumbnails and notes; they are ignored.
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm")
# Seconds before a progress bar appears: for a handful of files it would be noise.
_DELAY = 1.0
# Divisor of 16-bit values: 65535 becomes 255.
_PER_GREY_LEVEL = 257
_CHOICES = {"mode": ("RGB", "L", "keep"), "resize": ("crop", "squash", "pad"), "errors": ("raise", "skip")}


def load_image_folder(
    path: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    size: int | tuple[int, int] = (32, 32),
    mode: str = "RGB",
    resize: str = "crop",
    outliers: str | os.PathLike | Sequence[str | os.PathLike] = (),
    memory_map: str | os.PathLike | None = None,
    errors: str = "raise",
    progress: bool = True,
) -> Bunch:
    """Read a folder of image files into one array of uint8 that every detector takes.

    It needs Pillow (``pip install 'skood[images]'``).

    Parameters
    ----------
    path : str, path or iterable of these
        A folder with a folder for each class; a folder of images; or the files themselves. Folders are searched to any
        depth, and links to folders are followed, except those to a folder that the link itself is in. Hidden files, and
        files without the suffix of an image format, are ignored.
    size : int or tuple (height, width), default=(32, 32)
        Size, in pixels, that all images get; an int stands for squares.
    mode : {"RGB", "L", "keep"}, default="RGB"
        Three channels, one grey channel, or as many as the files have: one or three, the same number in all files.
    resize : {"crop", "squash", "pad"}, default="crop"
        What happens to images of other proportions than ``size``. "crop" cuts the same amount off both ends of the
        longer side; "squash" changes the proportions; "pad" adds black bars.
    outliers : str, path or sequence of these, default=()
        Folders whose images are outliers, by name ("scratched") or by path ("test/scratched"). They may lie at any
        depth.
    memory_map : str, path or None, default=None
        A .npy file to write the images to, one by one, for images that memory does not hold. X is then that file,
        memory-mapped and read-only. A file of that name is replaced once all images are read.
    errors : {"raise", "skip"}, default="raise"
        Whether a file that cannot be read is an error, or is left out with a warning.
    progress : bool, default=True
        Whether to show a progress bar on standard error, if reading takes more than a second.

    Returns
    -------
    data : Bunch
        X : ndarray of uint8 of shape (n_samples, C, height, width)
            The images, in the order of their paths, or in the order in which the files are given.
        y : ndarray of shape (n_samples,)
            With ``outliers``, -1 for images in these folders and +1 for the others. Otherwise the class of each image:
            the name of the folder directly in ``path`` that holds the image at any depth. For images in ``path`` itself
            and for single files it is the name of the folder that holds them.
        files : ndarray of str of shape (n_samples,)
            The path of each image.
        classes : list of str
            The names of the classes, sorted.

    Raises
    ------
    ValueError
        If there is no such folder or file, or no image in it; if a file cannot be read; if ``outliers`` names no folder
        that holds images; or, with ``mode="keep"``, if some images are grey and some in colour.
    ImportError
        If Pillow is not installed.

    Warns
    -----
    RuntimeWarning
        If files were left out because they cannot be read.

    Notes
    -----
    Images are turned upright by their EXIF orientation. Palettes and CMYK become RGB. Transparent pixels become white.
    Values of 16 bits are divided by 257, so that 65535 becomes 255; images that use only a part of that range, such as
    those of 12-bit cameras, come out dark: rescale them before. Of a file with several images, the first is read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skood.datasets import load_image_folder
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("good", "scratched"):
    ...     Path(folder.name, name).mkdir()
    ...     Image.new("RGB", (60, 40), "red").save(Path(folder.name, name, "1.png"))
    >>> data = load_image_folder(folder.name, size=32, outliers=["scratched"])
    >>> data.X.shape, data.y.tolist(), data.classes
    ((2, 3, 32, 32), [1, -1], ['good', 'scratched'])
    """
    for name, value in (("mode", mode), ("resize", resize), ("errors", errors)):
        if value not in _CHOICES[name]:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, _CHOICES[name]))}.")
    height, width = _sides(size)
    _check_pillow()
    target = None if memory_map is None else _writable(memory_map)
    named = _names_of_outliers(outliers)
    found = _found(path)
    outlying = _outlying(found, named)
    reading = _Reading(found, _Shape(height, width, mode, resize), errors == "skip", progress)
    X = reading.into_memory() if target is None else reading.into_file(target)
    kept = reading.kept
    reading.warn_of_unreadable()
    classes = [found[place].folders[0] for place in kept]
    y = np.array(classes) if outlying is None else np.where(outlying[kept], -1, 1)
    files = np.array([str(found[place].file) for place in kept], dtype=object)
    return Bunch(X=X, y=y, files=files, classes=sorted(set(classes)))


def _sides(size: Any) -> tuple[int, int]:
    """Return the height and the width that a parameter ``size`` stands for."""
    sides = tuple(size) if isinstance(size, Iterable) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, Integral) and int(side) > 0 for side in sides):
        raise ValueError(f"size={size!r} must be a positive number of pixels, or a pair (height, width) of them.")
    return int(sides[0]), int(sides[1])


def _names_of_outliers(outliers: Any) -> list[str]:
    """Return the names or paths of folders that a parameter ``outliers`` stands for, with slashes."""
    names = [outliers] if isinstance(outliers, (str, os.PathLike)) else outliers
    if not isinstance(names, Iterable) or not all(isinstance(name, (str, os.PathLike)) for name in names):
        raise ValueError(f"outliers={outliers!r} must be the name of a folder, or a list of names.")
    return [name if isinstance(name, str) else Path(name).as_posix() for name in names]


def _check_pillow() -> None:
    """Raise an ImportError that says what to install, if Pillow is missing."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'skood[images]'.") from error


def _writable(memory_map: str | os.PathLike) -> Path:
    """Return the path of the file to write; refuse a wrong one here, before any image is read."""
    named = isinstance(memory_map, (str, os.PathLike))
    if not named or Path(memory_map).is_dir() or not Path(memory_map).parent.is_dir():
        shown = str(memory_map) if named else memory_map
        raise ValueError(f"memory_map={shown!r} must be a .npy file in a folder that exists.")
    return Path(memory_map)


# --------------------------------------------------------------------------------------------------------------------
# Finding the files


class _Found(NamedTuple):
    """An image file.

    Attributes
    ----------
    file : Path
    folders : tuple of str
        Names of the folders that it is in, from that of its class on.
    """

    file: Path
    folders: tuple[str, ...]


def _found(path: Any) -> list[_Found]:
    """Return the image files of a folder, sorted by path, or the files that the user lists."""
    if not isinstance(path, (str, os.PathLike)):
        if not isinstance(path, Iterable):
            raise ValueError(f"path={path!r} must be a folder, or a list of files.")
        given = [Path(file) for file in path]
        if not given:
            raise ValueError("path is an empty list; pass a folder, or the files of images.")
        return [_single(file) for file in given]
    folder = Path(path)
    if not folder.is_dir():
        return [_single(folder)]
    found = sorted(_searched(folder), key=lambda one: one.file.parts)
    if not found:
        raise ValueError(f"{folder}: no images in it, nor in its folders: none of {', '.join(_SUFFIXES)}.")
    return found


def _single(file: Path) -> _Found:
    """Return a file that the user names, whatever its suffix."""
    if file.is_dir():
        raise ValueError(f"{file} is a folder; pass one folder, or a list of files.")
    if not file.is_file():
        raise ValueError(f"{file}: no such file or folder.")
    return _Found(file, (file.resolve().parent.name,))


def _searched(root: Path) -> Iterator[_Found]:
    """Yield the image files in a folder and in those below it, except hidden ones."""
    for parent, folders, names in os.walk(root, followlinks=True):
        # os.walk does not search folders that are removed from its list.
        folders[:] = [name for name in folders if not name.startswith(".") and not _leads_back(Path(parent, name))]
        within = Path(parent).relative_to(root).parts or (root.resolve().name,)
        for name in names:
            if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
                yield _Found(Path(parent, name), within)


def _leads_back(folder: Path) -> bool:
    """Return whether a folder is a link to one of the folders that it is in, where a search would never end."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    # Both the folders that the path names and those that they are in: the path may lead through other links.
    return any(target in (above.resolve(), *above.resolve().parents) for above in folder.absolute().parents)


def _outlying(found: list[_Found], outliers: list[str]) -> np.ndarray | None:
    """Return whether each file is in a folder of outliers; None if no folder is named."""
    if not outliers:
        return None
    # Slashes on both sides, so that "bad" is not found in "not_bad".
    paths = [f"/{'/'.join(one.folders)}/" for one in found]
    inside = np.array([[f"/{name.strip('/')}/" in path for path in paths] for name in outliers])
    for name, files in zip(outliers, inside, strict=True):
        if not files.any():
            there = sorted({"/".join(one.folders) for one in found})
            raise ValueError(f"outliers: no image is in a folder {name!r}; there are {_some(there, 20)}.")
    return np.logical_or.reduce(inside)


def _some(names: list[str], most: int = 5) -> str:
    """Return the first few names as text, for messages."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


# --------------------------------------------------------------------------------------------------------------------
# From a file to pixels


@dataclass(frozen=True)
class _Shape:
    """The common shape of all images: the parameters ``size``, ``mode`` and ``resize`` of `load_image_folder`."""

    height: int
    width: int
    mode: str
    resize: str

    def pixels(self, file: Path) -> np.ndarray:
        """Return the pixels of a file, (C, height, width); Pillow raises errors of many kinds."""
        from PIL import Image, ImageOps

        with Image.open(file) as opened:
            # Decodes JPEG at a fraction of its size, at least twice the size wanted: many times faster.
            side = 2 * max(self.height, self.width)
            opened.draft(None, (side, side))
            image = ImageOps.exif_transpose(opened)
            image = _in_colour_or_grey(image, self.mode)
        if self.resize == "squash":
            image = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        else:
            fitted = ImageOps.fit if self.resize == "crop" else ImageOps.pad
            image = fitted(image, (self.width, self.height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _in_colour_or_grey(image: Image, mode: str) -> Image:
    """Return an image of 8 bits, RGB or L; "keep" keeps what the image is."""
    if image.mode.startswith(("I", "F")):
        image = _in_8_bits(image)
    if mode == "keep":
        grey = image.mode in ("1", "L", "LA") or (image.mode == "P" and _palette_is_grey(image))
        mode = "L" if grey else "RGB"
    if image.has_transparency_data:
        from PIL import Image as pillow

        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    # Pillow cannot convert all modes to grey directly.
    return image.convert(mode) if image.mode in ("1", "L") else image.convert("RGB").convert(mode)


def _palette_is_grey(image: Image) -> bool:
    """Return whether all colours of a palette are greys."""
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _in_8_bits(image: Image) -> Image:
    """Return an image of 16-bit integers as one of 8 bits; refuse pixels without a known range."""
    from PIL import Image as pillow

    values = np.asarray(image)
    if values.dtype.kind == "f":
        raise ValueError("its pixels are floats, of no known range: save it with 8 or 16 bits")
    values = values.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"its pixels are from {values.min()} to {values.max()}, more than 16 bits: save it with 8 or 16"
        )
    rounded = (values + _PER_GREY_LEVEL // 2) // _PER_GREY_LEVEL
    return pillow.fromarray(rounded.astype(np.uint8))


# --------------------------------------------------------------------------------------------------------------------
# From files to one array


class _Reading:
    """Read files one by one into an array, in memory or in a file.

    Parameters
    ----------
    found : list of _Found
        The files.
    shape : _Shape
        The common shape of the images.
    skip : bool
        Whether files that cannot be read are left out.
    progress : bool
        Whether to show a progress bar.

    Attributes
    ----------
    kept : list of int
        Indices in ``found`` of the files that were read.
    unreadable : list of str
        The files that cannot be read.
    """

    def __init__(self, found: list[_Found], shape: _Shape, skip: bool, progress: bool):
        self.found, self.shape, self.skip, self.progress = found, shape, skip, progress
        self.kept: list[int] = []
        self.unreadable: list[str] = []

    def into_memory(self) -> np.ndarray:
        """Return the images in an array."""
        images = self._images()
        first = next(images)
        X = np.empty((len(self.found), *first.shape), dtype=np.uint8)
        X[0] = first
        for place, image in enumerate(images, start=1):
            X[place] = image
        return X[: len(self.kept)]

    def into_file(self, target: Path) -> np.ndarray:
        """Write the images into a .npy file and return it, memory-mapped."""
        # The file gets its name when it is complete: memory maps of an older file of this name stay valid.
        part = target.with_name(target.name + ".part")
        try:
            with part.open("wb") as file:
                images = self._images()
                first = next(images)
                _write_header(file, (len(self.found), *first.shape))
                file.write(first.tobytes())
                for image in images:
                    file.write(image.tobytes())
                # numpy leaves room in the header for any number of rows, so a new number does not make it longer.
                file.seek(0)
                _write_header(file, (len(self.kept), *first.shape))
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return np.load(target, mmap_mode="r")

    def _images(self) -> Iterator[np.ndarray]:
        """Yield the pixels of each file that can be read; raise an error if there is none."""
        n_channels = 0
        bar = tqdm(self.found, disable=not self.progress, delay=_DELAY, unit="image", dynamic_ncols=True)
        for place, (file, _) in enumerate(bar):
            try:
                image = self.shape.pixels(file)
            except Exception as error:  # Pillow and the libraries that it calls each raise their own
                self._note(file, error)
                continue
            n_channels = n_channels or len(image)
            if len(image) != n_channels:
                kinds = {1: "grey", 3: "in colour"}
                first = self.found[self.kept[0]].file
                raise ValueError(
                    f"mode='keep': {first} is {kinds[n_channels]}, but {file} is {kinds[len(image)]}. Pass mode='RGB' "
                    f"or mode='L' to convert all images to one mode."
                )
            self.kept.append(place)
            yield image
        if not self.kept:
            raise ValueError(f"none of {len(self.found)} images can be read: {_some(self.unreadable)}.")

    def _note(self, file: Path, error: Exception) -> None:
        """Note a file that cannot be read, or raise an error that names it."""
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if not self.skip:
            raise ValueError(
                f"{file} cannot be read as an image: {why}. Mend or remove the file, or pass errors='skip'."
            ) from error
        self.unreadable.append(str(file))

    def warn_of_unreadable(self) -> None:
        """Warn of the files that were left out."""
        if self.unreadable:
            warn_user(
                f"{len(self.unreadable)} of {len(self.found)} images cannot be read and were left out: "
                f"{_some(self.unreadable)}.",
                RuntimeWarning,
            )


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file of uint8."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
