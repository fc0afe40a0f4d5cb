"""Read y: check labels, find the rows that they mark as auxiliary outliers, and warn of labels that may be misread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d

from .._warn import warn_user
from .validation import is_tensor, tensor_as_array

__all__ = [
    "LabelWarning",
    "Marker",
    "check_labels",
    "check_marked",
    "could_refuse",
    "find_outliers",
    "labels_untold",
    "list_markers",
    "marks_outlier",
    "named_markers",
    "refuse_respelled",
    "say_labels",
]

# What ``outlier_label`` may be: one label or several.
Marker: TypeAlias = "bool | float | str | Iterable[bool | float | str]"
# Most labels that a message lists.
_LISTED = 5


class LabelWarning(UserWarning):
    """Warn of labels that may have been misread: none of them marks an outlier, but some look as if they should.

    The message lists the labels that were taken for inliers, how many rows have each, and what to write instead. Turn
    the warning into an error by ``warnings.filterwarnings("error", category=skood.LabelWarning)``, or silence it by
    "ignore" in place of "error".
    """


def check_labels(y: Any, *, warn: bool = False) -> np.ndarray:
    """Return labels as a one-dimensional array; refuse missing ones.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, 1)
        Labels: numbers, strings or booleans.
    warn : bool, default=False
        Whether to give scikit-learn's DataConversionWarning for a column of shape (n_samples, 1).

    Returns
    -------
    y : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If y is None or of another shape; or if a label is missing (NaN, None), infinite, an integer of more than 64
        bits, or not a number, text or boolean (a date, for example).
    """
    if y is None:
        raise ValueError("y is needed: pass -1 for outliers, any other label for inliers.")
    y = column_or_1d(_to_array(y), warn=warn)
    if y.dtype.kind == "S":
        y = y.astype(object)
    missing = np.isnan(y) if y.dtype.kind == "f" else np.zeros(len(y), dtype=bool)
    if y.dtype.kind in "OMm":
        import pandas as pd

        missing = pd.isna(y)
    if missing.any():
        row = np.flatnonzero(missing)[0]
        raise ValueError(f"y contains NaN, first in row {row}; give every row a label, or drop the row.")
    if y.dtype.kind == "f" and np.isinf(y).any():
        row = np.flatnonzero(np.isinf(y))[0]
        raise ValueError(f"y contains infinity, first in row {row}; give every row a finite label, or drop the row.")
    if y.dtype.kind in "MmV" and len(y):
        _refuse_object(y[0], 0)
    return _read_objects(y) if y.dtype.kind == "O" else y


def _to_array(y: Any) -> np.ndarray:
    """Return labels as an array, whatever their container."""
    if is_tensor(y):
        y = tensor_as_array(y)
    if isinstance(y, np.ma.MaskedArray):
        hidden, y = np.ma.getmaskarray(y), y.data
        if hidden.any():
            y = y.astype(object)
            y[hidden] = None
    if isinstance(y, (list, tuple)) and not _fit_together(y):
        y = np.array(y, dtype=object)
    if getattr(y, "ndim", 0) == 1 and hasattr(y, "to_numpy"):
        # column_or_1d would turn a Series of nullable integers or booleans into floats.
        y = np.asarray(y)
    try:
        labels = np.asarray(y)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"y cannot be read as labels: {error}. Give an array or a list with one label per row."
        ) from error
    if labels.ndim == 0:
        raise ValueError(f"y is of type {type(y).__name__}; give an array or a list with one label per row.")
    # A DataFrame is left to column_or_1d, which checks its columns.
    return y if hasattr(y, "columns") else labels


def _fit_together(labels: Iterable) -> bool:
    """Return whether every label keeps its value when numpy turns the labels into one array.

    In a list with text, numbers become text: the marker -1 would become "-1", which marks nothing. Integers of more
    than 64 bits become floats, and then two classes may become one.
    """
    kinds = {isinstance(label, (str, bytes)) for label in labels}
    return len(kinds) < 2 and not any(isinstance(label, int) and abs(label) >= 2**63 for label in labels)


def _read_objects(labels: np.ndarray) -> np.ndarray:
    """Return labels that are Python objects as numbers, text or booleans; refuse others, such as dates."""
    objects = labels.tolist()
    if not {*map(type, objects)} <= {str, bool}:
        objects = [_read_object(label, row) for row, label in enumerate(objects)]
    kinds = {*map(type, objects)}
    if kinds and kinds <= {int, float}:
        return np.asarray(objects)
    return np.array(objects, dtype=object)


def _read_object(label: Any, row: int) -> str | bool | int | float:
    """Return a label as a Python str, bool, int or float."""
    # In numpy, timedelta64 is a subclass of the signed integers.
    if isinstance(label, (np.bool_, np.number, np.str_)) and not isinstance(label, np.timedelta64):
        label = label.item()
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    if isinstance(label, (str, bool)):
        return label
    is_number = isinstance(label, (Decimal, Real)) and not isinstance(label, np.timedelta64)
    if is_number and math.isfinite(label) and abs(int(label)) < 2**63:
        return int(label) if int(label) == label and not isinstance(label, float) else float(label)
    _refuse_object(label, row)


def _refuse_object(label: Any, row: int) -> NoReturn:
    raise ValueError(
        f"y has {label!r} in row {row}, of type {type(label).__name__}; labels must be text, booleans, or finite "
        f"numbers of 64 bits. To use such labels as classes, convert them to text."
    )


# --------------------------------------------------------------------------------------------------------------------
# Which rows are marked


def list_markers(outlier_label: Marker) -> list:
    """Return the labels that mark auxiliary outliers as a list.

    Parameters
    ----------
    outlier_label : number, str, bool, or array-like of these
        One label or several.

    Returns
    -------
    markers : list

    Raises
    ------
    ValueError
        If there is none, or one is not a finite number, text or boolean.
    """
    if isinstance(outlier_label, (str, Real, np.bool_)):
        markers: list[Any] = [outlier_label]
    elif isinstance(outlier_label, Iterable) and not isinstance(outlier_label, bytes):
        markers = list(outlier_label)
    else:
        markers = []
    # Messages would show numpy's scalars as np.int64(-1).
    markers = [marker.item() if isinstance(marker, np.generic) else marker for marker in markers]
    if not markers or not all(
        isinstance(one, str) or (isinstance(one, Real) and math.isfinite(one)) for one in markers
    ):
        raise ValueError(
            f"outlier_label={outlier_label!r} must be a finite number, a text, True or False, or a list of at least "
            f"one of these."
        )
    return markers


def named_markers(outlier_label: Marker) -> str:
    """Return the labels that mark auxiliary outliers as a message names them: "-1", or "'dos' or 'probe'"."""
    return " or ".join(map(repr, list_markers(outlier_label)))


def marks_outlier(y: ArrayLike, outlier_label: Marker = -1) -> np.ndarray:
    """Find the rows that y marks as auxiliary outliers.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels: numbers, strings or booleans.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks auxiliary outliers, or several. Rows with any other label, 0 included, are in
        distribution. A number never equals a text; True equals 1 and False equals 0, as everywhere in Python.

    Returns
    -------
    mask : ndarray of bool of shape (n_samples,)

    Raises
    ------
    ValueError
        If y holds a label as text and ``outlier_label`` the same label as a number, or the other way round; or if
        ``outlier_label`` is True or False, and y holds other numbers than 0 and 1.

    Examples
    --------
    >>> from skood.estimator.labels import marks_outlier
    >>> marks_outlier([1, -1, 0])
    array([False,  True, False])
    >>> marks_outlier(["normal", "dos", "probe"], ["dos", "probe"])
    array([False,  True,  True])
    """
    labels = np.asarray(y)
    if labels.dtype.kind == "S":
        labels = labels.astype(str)
    is_text = _is_text(labels)
    mask = np.zeros(len(labels), dtype=bool)
    markers = list_markers(outlier_label)
    _refuse_other_spelling(labels[is_text], markers)
    for marker in markers:
        same_kind = is_text if isinstance(marker, str) else ~is_text
        # numpy does not compare a numeric array with text row by row: it returns one False, or warns.
        if same_kind.any():
            mask[same_kind] |= np.asarray(labels[same_kind] == marker, dtype=bool)
        if isinstance(marker, str) and not is_text.all():
            _refuse_number(labels[~is_text], marker)
        if isinstance(marker, bool):
            _refuse_counted(labels[same_kind], marker)
    return mask


def _is_text(labels: np.ndarray) -> np.ndarray:
    """Return the mask of the labels that are text."""
    if labels.dtype.kind == "O":
        return np.array([isinstance(label, str) for label in labels.tolist()], dtype=bool)
    return np.full(len(labels), labels.dtype.kind in "UT")


def _refuse_other_spelling(labels: np.ndarray, markers: list) -> None:
    """Refuse text such as "-1" if the marker is that number, and text that differs from a marker only by spaces."""
    for label in dict.fromkeys(labels.tolist()):
        if label in markers:
            continue
        number = _spelled(label)
        for marker in markers:
            if isinstance(marker, str):
                if label.strip() == marker.strip():
                    raise ValueError(
                        f"y holds the text {label!r}, which differs from outlier_label={marker!r} by spaces alone. "
                        f"Remove them, or write outlier_label={label!r}."
                    )
            elif number is not None and number == marker and isinstance(number, bool) == isinstance(marker, bool):
                _refuse_other_kind("text", label, marker)


def _refuse_number(labels: np.ndarray, marker: str) -> None:
    """Refuse numbers if a marker is the text of such a number."""
    number = _spelled(marker)
    if number is not None and (labels == number).any():
        _refuse_other_kind("number", number, marker)


def _refuse_other_kind(kind: str, label: Any, marker: Any) -> NoReturn:
    raise ValueError(
        f"y holds the {kind} {label!r}, but outlier_label={marker!r} is no {kind}, and a number never equals a text. "
        f"Write outlier_label={label!r}; or, to mix class names with numbers, pass np.array(labels, dtype=object) as y."
    )


def _spelled(text: str) -> int | float | bool | None:
    """Return the number or boolean that a text spells; None if it spells neither."""
    text = text.strip()
    if text in ("True", "False"):
        return text == "True"
    try:
        # Spreadsheets and typeset tables may use the Unicode minus sign.
        number = float(text.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return None
    return int(number) if number.is_integer() else number


def _refuse_counted(labels: np.ndarray, marker: bool) -> None:
    """Refuse a boolean marker if y holds numbers other than 0 and 1, which are counts or classes."""
    if labels.dtype.kind != "b" and not np.isin(labels, [0, 1]).all():
        raise ValueError(
            f"outlier_label={marker!r} is a boolean, but y holds numbers: {say_labels(labels)}. Write the number that "
            f"marks outliers."
        )


def refuse_respelled(labels: Iterable, known: Iterable, names: tuple[str, str]) -> None:
    """Refuse labels as text of which others hold the numbers, and the other way round: none of them would be equal.

    Parameters
    ----------
    labels, known : iterable of number, str or bool
        Labels of two kinds, as Python objects.
    names : tuple (str, str)
        What a message calls the two.

    Raises
    ------
    ValueError
        If a label is text that spells a number among ``known``, or a number that a text there spells.
    """
    # Dicts keep the order, so that the message is always the same.
    one, other = dict.fromkeys(labels), dict.fromkeys(known)
    for texts, numbers in ((one, other), (other, one)):
        # Both kinds may be mixed, as objects; then a label that both hold is meant as it is.
        for text in texts:
            number = _spelled(text) if isinstance(text, str) and text not in numbers else None
            same = [label for label in numbers if label == number and label not in texts]
            if number is not None and any(isinstance(label, bool) == isinstance(number, bool) for label in same):
                pair = (text, same[0]) if texts is one else (same[0], text)
                raise ValueError(
                    f"{names[0]} holds {pair[0]!r} and {names[1]} {pair[1]!r}: a number never equals a text. Give both "
                    f"as numbers, or both as text."
                )


def find_outliers(y: Any, n_rows: int, outlier_label: Marker = -1) -> tuple[np.ndarray, np.ndarray]:
    """Check the labels of rows, and find those that mark auxiliary outliers.

    Parameters
    ----------
    y : array-like of shape (n_rows,)
        Labels: numbers, strings or booleans.
    n_rows : int
        Number of rows of X.
    outlier_label : number, str, bool, or array-like of these, default=-1
        The label that marks auxiliary outliers, or several; see `marks_outlier`.

    Returns
    -------
    y : ndarray of shape (n_rows,)
        The labels.
    mask : ndarray of bool of shape (n_rows,)
        True for auxiliary outliers.

    Raises
    ------
    ValueError
        If the number of labels is not ``n_rows``, a label is missing, or fewer than two rows are in distribution.
    """
    y = check_labels(y)
    if len(y) != n_rows:
        raise ValueError(f"y has {len(y)} labels, but X has {n_rows} rows; give one label per row.")
    outlier = marks_outlier(y, outlier_label)
    n_outliers = np.count_nonzero(outlier)
    if n_rows - n_outliers < 2:
        raise ValueError(
            f"y marks {n_outliers} of {n_rows} rows as auxiliary outliers (y == {named_markers(outlier_label)}); "
            f"at least 2 in-distribution rows are needed."
        )
    return y, outlier


# --------------------------------------------------------------------------------------------------------------------
# Labels in which nothing is marked


# Not a warnings filter, which all threads would share.
_UNTOLD = ContextVar("labels untold", default=False)


@contextmanager
def labels_untold() -> Iterator[None]:
    """Silence `check_marked` in this context, for labels of a classifier, or labels that were checked before."""
    before = _UNTOLD.set(True)
    try:
        yield
    finally:
        _UNTOLD.reset(before)


# What to write if the labels are right as they are.
NO_CLASSES = "If these are classes of inliers, pass y=None, or 1 for each inlier."
CLASSES = "If both are classes of inliers, name them by text, or silence this skood.LabelWarning."


def check_marked(
    y: np.ndarray,
    outlier: np.ndarray,
    outlier_label: Marker = -1,
    *,
    classes: Collection | None = None,
    otherwise: str | None = None,
    refuse: bool = False,
) -> None:
    """Warn of labels that mark no row and are likely misread, or refuse them.

    In data sets for outlier detection, outliers often have the label 1, or a text. Labels that are all the same say
    that all rows are of one kind, which is fine. Two or more labels say that there are several kinds.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Labels, from `check_labels`.
    outlier : ndarray of bool of shape (n_samples,)
        The rows that are marked.
    outlier_label : number, str, bool, or array-like of these, default=-1
        What marks them.
    classes : collection or None, default=None
        None says that nobody reads y as classes: any two labels are suspicious. Otherwise the classes of an earlier
        fit, or an empty collection. Then only the labels 0 and 1, or False and True, are suspicious, unless they are
        these classes.
    otherwise : str or None, default=None
        What to write if the labels are right as they are. None is the advice for `fit`.
    refuse : bool, default=False
        Whether to raise a ValueError instead of the warning.

    Warns
    -----
    LabelWarning
        Names the labels, the number of rows of each, and what to write.

    Raises
    ------
    ValueError
        If ``refuse`` is True: the same message.
    """
    # Most labels are right, and this check needs no counting.
    if _UNTOLD.get() or len(y) == 0 or outlier.any() or bool(np.all(y == y[0])):
        return
    if classes is not None and not (_binary(y) and not (len(classes) and _binary(classes))):
        return
    if otherwise is None:
        otherwise = NO_CLASSES if classes is None else CLASSES
    markers = list_markers(outlier_label)
    told = f"no row of y is marked as an outlier by outlier_label={(markers[0] if len(markers) == 1 else markers)!r}: "
    told += "y holds" if refuse else "all were taken for inliers,"
    message = f"{told} {say_labels(y)}. {_remedy(y)} {otherwise}"
    if refuse:
        raise ValueError(message)
    # The steps of a Pipeline do not know each other: each one that reads y warns, with the same text.
    warn_user(message, LabelWarning)


def could_refuse(y: np.ndarray) -> bool:
    """Return whether labels may be refused: not integers or complex numbers, which scikit-learn's checks pass as y."""
    if y.dtype.kind == "O":
        return any(isinstance(label, bool) or not isinstance(label, Integral) for label in y.tolist())
    return y.dtype.kind not in "iuc"


def say_labels(y: np.ndarray) -> str:
    """Return the labels of y and the number of rows of each, for messages: "0 (950 rows), 1 (50 rows)"."""
    counts = _counted(y)
    said = ", ".join(f"{label!r} ({number} row{'s' * (number != 1)})" for label, number in counts[:_LISTED])
    return said + (f" and {len(counts) - _LISTED} more" if len(counts) > _LISTED else "")


def _remedy(y: np.ndarray) -> str:
    """Return what to write if the rarest labels mark outliers."""
    places = sorted(enumerate(_counted(y)), key=lambda place: (place[1][1], -place[0]))
    rarest = [label for _, (label, _) in places]
    if len(rarest) > 2:
        return f"If some of these labels mark outliers, name them, as outlier_label={rarest[:2]!r}."
    label = repr(rarest[0])
    return (
        f"If {label} marks the outliers, write outlier_label={label}, or y = np.where(np.asarray(y) == {label}, -1, 1)."
    )


def _binary(labels: Collection) -> bool:
    """Return whether there are no other labels than 0 and 1, as numbers or booleans."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind != "O":
        return labels.dtype.kind in "biuf" and bool(np.isin(labels, [0, 1]).all())
    return set(labels) <= {0, 1}


def _counted(y: np.ndarray) -> list[tuple[Any, int]]:
    """Return the sorted labels of y, numbers before text, each with its number of rows."""
    if y.dtype.kind == "O":
        counts: Iterable[tuple[Any, int]] = Counter(y.tolist()).items()
    else:
        labels, numbers = np.unique(y, return_counts=True)
        counts = zip(labels.tolist(), numbers.tolist(), strict=True)
    pairs = [(label.item() if isinstance(label, np.generic) else label, number) for label, number in counts]
    try:
        return sorted(pairs, key=lambda pair: (isinstance(pair[0], str), pair[0]))
    except TypeError:  # labels that have no order, such as complex numbers
        return pairs
