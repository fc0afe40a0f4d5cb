"""Open the files of tables, compressed or not."""

from __future__ import annotations

import gzip
import io
import lzma
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from .._npz import refuse_size

TEXT_FORMATS = (".csv", ".tsv", ".txt", ".data")
TABLE_FORMATS = (*TEXT_FORMATS, ".parquet", ".feather", ".arff")
_COMPRESSIONS = (".gz", ".zip", ".xz")


def file_format(path: Path) -> str:
    """Return the suffix that tells the format of a file, in lower case, without that of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def bare_name(path: Path) -> str:
    """Return the name of a file without the suffixes of its format and compression."""
    name = path.name
    if path.suffix.lower() in _COMPRESSIONS:
        name = name[: -len(path.suffix)]
    return Path(name).stem


@contextmanager
def opened(path: Path, progress: bool, most_bytes: float = math.inf) -> Iterator[Any]:
    """Open a file to read its decompressed bytes; if reading takes over a second, a bar shows the progress."""
    size = path.stat().st_size
    bar = tqdm(
        total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, delay=1, leave=False, disable=not progress
    )
    with bar, path.open("rb") as file:
        raw: Any = io.BufferedReader(_Counted(file, bar))
        compression = path.suffix.lower()
        if compression == ".gz":
            with gzip.open(raw) as member:
                yield io.BufferedReader(_Limited(member, path, most_bytes))
        elif compression == ".xz":
            with lzma.open(raw) as member:
                yield io.BufferedReader(_Limited(member, path, most_bytes))
        elif compression == ".zip":
            with zipfile.ZipFile(raw) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                if len(names) != 1:
                    raise ValueError(f"{path}: holds {len(names)} files; unpack it and name one.")
                with archive.open(names[0]) as member:
                    yield io.BufferedReader(_Limited(member, path, most_bytes))
        else:
            yield raw


class _Counted(io.RawIOBase):
    """Pass on the bytes of a file, and count them on a progress bar."""

    def __init__(self, file: IO[bytes], bar: tqdm) -> None:
        self._file, self._bar = file, bar

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        n = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._bar.update(n)
        return n


class _Limited(io.RawIOBase):
    """Pass on the decompressed bytes of a file; raise an error if it grows by more than is allowed."""

    def __init__(self, member: Any, path: Path, most_bytes: float) -> None:
        self._member, self._path, self._most_bytes = member, path, most_bytes
        self._n_bytes = -path.stat().st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._member.read(len(buffer))
        buffer[: len(read)] = read
        self._n_bytes += len(read)
        refuse_size(self._path, self._n_bytes, self._most_bytes)
        return len(read)
