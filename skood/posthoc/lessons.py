"""What `OODScorer` learns a score from: a classifier's responses to rows, and the classes of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Methods that compare distances to the classes with the distance to all rows, and what to use for rows of one class.
_RELATIVE = {"relative_mahalanobis": "mahalanobis", "relative_mahalanobis_pp": "mahalanobis_pp"}


class Seen(NamedTuple):
    """The responses to the rows of one call of `partial_fit`, and the classes of the rows if they are known.

    A y of ones alone names no classes, unless that of another call does. Then ``if_named`` are the classes.
    """

    answers: dict[str, np.ndarray]
    codes: np.ndarray | None
    named: bool
    if_named: np.ndarray | None


def joined(seen: Sequence[Seen], needs_codes: bool) -> tuple[dict, np.ndarray | None]:
    """Join the responses to the rows of several calls, and the classes of the rows if they are known for all rows."""
    first, named = seen[0].answers, any(one.named for one in seen)
    found = [one.if_named if named and one.if_named is not None else one.codes for one in seen]
    codes = [one for one in found if one is not None]
    # Weights belong to the classifier, not to the rows.
    whole = {name: first[name] for name in ("weight", "bias") if name in first}
    rows = {name: np.concatenate([one.answers[name] for one in seen]) for name in first.keys() - whole.keys()}
    known = needs_codes or len(codes) == len(seen)
    return whole | rows, np.concatenate(codes) if known else None


def one_class_left(method: str, codes: np.ndarray | None) -> str | None:
    """Return why a method cannot tell rows apart after learning from rows of these classes; None if it can."""
    if method not in _RELATIVE or codes is None or len(np.unique(codes)) > 1:
        return None
    return (
        f"all rows that it learns from are of one class, and every row would score 0. Pass rows of several classes, or "
        f"use {_RELATIVE[method]!r}"
    )
