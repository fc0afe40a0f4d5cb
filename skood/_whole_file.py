"""Write files as a whole or not at all. Nothing here loads torch."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: if that fails, as on a full disk, an existing file stays as it is.

    Raises
    ------
    OSError
        If the file cannot be written. It names ``path``, not the file in which the content is written first.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
