"""All tables by name, their cells, and what is claimed of these."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pandas as pd
from sphinx.errors import ExtensionError

from . import dum, negative_sampling_vae, others, reject_classes, residual_adapters, rotation, vectors
from .base import Made, Table

_MODULES = (vectors, dum, reject_classes, negative_sampling_vae, rotation, residual_adapters, others)
TABLES: dict[str, Made] = {name: make for module in _MODULES for name, make in module.TABLES.items()}


def made(results: Path, name: str) -> list[Table]:
    """The tables of a name, their figures rounded as they are shown."""
    if name not in TABLES:
        raise ExtensionError(f"there is no table {name!r}; there are {', '.join(TABLES)}.")
    # A page compares hundreds of cells of a few tables.
    state = tuple(sorted((path.name, path.stat().st_mtime_ns) for path in results.iterdir()))
    return list(_made(results, name, state))


@cache
def _made(results: Path, name: str, _state) -> tuple[Table, ...]:
    """The same; what is made holds for one state of the files."""
    tables = TABLES[name](results)
    tables = [tables] if isinstance(tables, Table) else tables
    if not tables:
        raise ExtensionError(f"the results have nothing for the table {name!r}.")
    return tuple(table._replace(figures=table.figures.round(table.digits)) for table in tables)


def _located(results: Path, cell: str) -> tuple[Table, str, str]:
    """The table, row and column of a cell "NAME; ROW; COLUMN"; of several tables the first one."""
    # Names of rows may hold semicolons.
    name, *row, column = (part.strip() for part in cell.split(";"))
    table = made(results, name)[0]
    row = "; ".join(row)
    if row not in table.figures.index or column not in table.figures:
        raise ExtensionError(f"the table {name!r} has no cell {row!r}, {column!r}.")
    return table, row, column


def find(results: Path, cell: str) -> tuple[object, int]:
    """What a cell "NAME; ROW; COLUMN" holds, and with how many digits it is shown."""
    table, row, column = _located(results, cell)
    return table.figures.at[row, column], table.digits


def deviation(results: Path, cell: str) -> float:
    """The standard deviation over seeds of a cell, or NaN if it is not known."""
    table, row, column = _located(results, cell)
    spread = table.deviations
    known = spread is not None and row in spread.index and column in spread
    return float(spread.at[row, column]) if known else float("nan")


def shown(value, digits: int) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def check(results: Path, condition: str) -> None:
    """See whether figures are, as shown, each greater than the next, or level with it; a number stands for itself.

    Figures differ if they do so by more than the larger of their deviations over seeds; else they are level. A figure
    without a deviation, of a single seed, can be shown, and not compared.

    Raises
    ------
    ExtensionError
        If they are not, or if no deviation is known of one of them.
    """
    first, *rest = (part.strip() for part in re.split("([>~])", condition))
    if not rest:
        raise ExtensionError(f"the results do not bear out {condition!r}: it compares nothing.")
    for relation, second in zip(rest[::2], rest[1::2], strict=True):
        _compare(results, first, relation, second)
        first = second


def _compare(results: Path, first: str, relation: str, second: str) -> None:
    """See whether two figures differ or are level."""
    pair = first, second
    values = [find(results, part)[0] if ";" in part else float(part) for part in pair]
    spread = [deviation(results, part) if ";" in part else 0.0 for part in pair]
    gap, about = values[0] - values[1], f"{first!r} {relation} {second!r}: {values[0]}, {values[1]}"
    for part, of_part in zip(pair, spread, strict=True):
        if pd.isna(of_part):
            raise ExtensionError(
                f"no deviation over seeds is known of {part!r}, so that nothing can be said in {about}."
            )
    about += f", deviations {spread[0]:.3g}, {spread[1]:.3g}"
    # A number is a bound for the mean itself.
    level = ";" in first and ";" in second and abs(gap) <= max(spread)
    if relation == "~" and not level:
        raise ExtensionError(f"the results do not bear out {about}: they are not level.")
    if relation == ">" and not gap > 0:
        raise ExtensionError(f"the results do not bear out {about}.")
    if relation == ">" and level:
        raise ExtensionError(f"the results do not bear out {about}: they are level, so write ~.")
