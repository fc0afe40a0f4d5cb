"""Read ``.npz`` files that may be damaged, forged, or much larger than they look."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np

__all__ = ["MOST_BYTES", "Arrays", "open_npz", "refuse_size"]

# Default of how many bytes a file may grow by when it is decompressed: 2 GiB.
MOST_BYTES = 2**31


class Arrays:
    """The arrays of an open ``.npz`` file, each read when it is asked for.

    Attributes
    ----------
    names : list of str
        Names of the arrays, in the order of the file.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, most_bytes: float) -> None:
        self._path, self._archive, self._most_bytes = path, archive, most_bytes
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        self._members = {info.filename.removesuffix(".npy"): info for info in members}
        self.names = list(self._members)
        if len(self.names) < len(members):
            raise ValueError(f"{path}: holds two arrays of the same name.")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the array of this name; raise a ValueError that names the file if it cannot be read."""
        info = self._members[name]
        refuse_size(self._path, info.file_size - info.compress_size, self._most_bytes)
        try:
            with self._archive.open(info) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                # The archive compares its checksum only when it is read to the end.
                if member.read(1):
                    raise ValueError("its header declares fewer bytes than there are")
        except Exception as error:  # zipfile, zlib, ast and numpy each raise their own for damaged bytes
            if "pickle" in str(error):
                raise ValueError(
                    f"{self._path}: array {name!r} holds Python objects, which are not read, since they may run code. "
                    f"Save numbers, or text as np.array(text, dtype=str)."
                ) from None
            raise ValueError(f"{self._path}: array {name!r} is damaged ({_in_short(error)}).") from error
        return array

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Return shape and dtype of the array of this name without reading it."""
        with self._reading(name) as (_, shape, dtype):
            return shape, dtype

    def rows(self, name: str, indices: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """Yield the rows of an array that have these indices, in ascending order; an index may be repeated.

        A compressed array is one stream: what lies before the last index is decompressed, but not kept. The checksum is
        that of the whole array, so that it is not compared.
        """
        with self._reading(name) as (member, shape, dtype):
            start, n_bytes = member.tell(), dtype.itemsize * math.prod(shape[1:])
            last, row = None, np.empty(shape[1:], dtype)
            for index in map(int, indices):
                if index != last:
                    member.seek(start + index * n_bytes)
                    content = member.read(n_bytes)
                    if len(content) < n_bytes:
                        raise ValueError(f"it ends before row {index} of {shape[0]}")
                    last, row = index, np.frombuffer(content, dtype).reshape(shape[1:])
                yield row

    @contextmanager
    def _reading(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
        """Open an array behind its header; raise a ValueError that names the file if it cannot be read."""
        try:
            with self._archive.open(self._members[name]) as member:
                version = np.lib.format.read_magic(member)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, columns_first, dtype = read(member)
                if columns_first or dtype.hasobject:
                    raise ValueError("its rows are not stored one after the other")
                yield member, shape, dtype
        except Exception as error:  # zipfile, zlib, ast and numpy each raise their own for damaged bytes
            raise ValueError(f"{self._path}: array {name!r} is damaged ({_in_short(error)}).") from error


@contextmanager
def open_npz(path: str | PathLike, *, most_bytes: float = MOST_BYTES) -> Iterator[Arrays]:
    """Open an ``.npz`` file for its arrays. Python objects in it are never unpickled.

    Parameters
    ----------
    path : str or Path
    most_bytes : float, default=MOST_BYTES
        Number of bytes that an array may grow by when it is decompressed.

    Yields
    ------
    arrays : Arrays

    Raises
    ------
    ValueError
        If the file is no archive of arrays, is damaged, or holds Python objects or too many bytes. The message names
        the file.
    OSError
        If there is no such file, or it may not be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # a damaged directory of an archive ends in errors of many types
            raise ValueError(f"{path}: not a .npz file ({_in_short(error)}).") from error
        with archive:
            yield Arrays(path, archive, most_bytes)


def refuse_size(path: Path, n_bytes: float, most_bytes: float) -> None:
    """Refuse a file that grows by more than ``most_bytes`` when it is decompressed."""
    if n_bytes > most_bytes:
        grown, allowed = (f"{number / 2**30:.3g} GiB" for number in (n_bytes, most_bytes))
        raise ValueError(
            f"{path}: grows by {grown} or more when it is decompressed, but only {allowed} are allowed. If the file is "
            f"meant to be so large, allow more: --most-gib, or TableOptions(most_bytes=...)."
        )


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
