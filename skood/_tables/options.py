"""Say how a table is read, and tell what was decided about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .._npz import MOST_BYTES


@dataclass(frozen=True)
class TableOptions:
    """Say how a table is read.

    Parameters
    ----------
    sep : str or None, default=None
        Separator of the fields of a text file: one character, or "space" for any number of spaces. None detects it.
    header : bool or None, default=None
        Whether the first line names the columns; if False, they are named "1", "2", ... None takes the first line for
        names, but refuses a line that is mostly numbers.
    drop : sequence of str, default=()
        Columns to leave out.
    encode : bool, default=False
        Whether text, dates and missing values may stay in the table, to be encoded before a detector. If False, they
        are refused.
    named : bool, default=False
        Whether the rows will be joined with rows of other files by the names of columns. If True, the table is returned
        as a DataFrame even if it holds only numbers, and ``say`` is not told how columns are encoded.
    columns : sequence of str or None, default=None
        Columns to take: a file without one of them is refused, and its other columns are left out. None takes all.
    say : callable or None, default=None
        Called with a line of text for each decision that was made about the file.
    progress : bool, default=False
        Whether to show a progress bar on standard error while a large text file is read.
    most_bytes : float, default=2**31
        Number of bytes by which a file, or an array of an .npz file, may grow when it is decompressed; a file that
        grows by more is refused.
    """

    sep: str | None = None
    header: bool | None = None
    drop: Sequence[str] = ()
    encode: bool = False
    named: bool = False
    columns: Sequence[str] | None = None
    say: Callable[[str], object] | None = None
    progress: bool = False
    most_bytes: float = MOST_BYTES

    def __post_init__(self) -> None:
        if self.sep not in (None, "\\t", "space", r"\s+") and (len(self.sep) != 1 or self.sep in '"\r\n'):
            raise ValueError(f"sep={self.sep!r} (--sep) must be one character, '\\t', or the word space.")

    def tell(self, line: str) -> None:
        """Pass a line on to ``say``, if there is one."""
        if self.say is not None:
            self.say(line)


def listed(values: Any, most: int = 8) -> str:
    """Return the first few values as text."""
    return ", ".join(map(str, list(values)[:most])) + (", ..." if len(values) > most else "")
