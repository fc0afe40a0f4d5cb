"""Monitor a deployed detector: does a whole batch of new rows score like known rows?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from .corruptions import CORRUPTIONS, corrupt
from .estimator.images import pixel_range
from .estimator.wrapper import inner_attribute, scores_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DriftTestResult", "drift_table", "drift_test"]


class DriftTestResult(NamedTuple):
    """Result of `drift_test`.

    Attributes
    ----------
    statistic : float
        Statistic of the test, of the reference against the batch.
    pvalue : float
        Two-sided p-value.
    auroc : float
        Probability that a row of the batch scores lower than a row of the reference, ties counted half; 0.5
        without drift.
    """

    statistic: float
    pvalue: float
    auroc: float


def _t_test(known: np.ndarray, batch: np.ndarray) -> tuple[float, float]:
    """Return statistic and p-value of Student's t-test; for samples without variance, their limits."""
    # A common shift changes neither. Without it, rounding would make the means of equal scores differ.
    known, batch = known - known[0], batch - known[0]
    if np.ptp(known) == np.ptp(batch) == 0:
        return (0.0, 1.0) if batch[0] == 0 else (float(np.copysign(np.inf, -batch[0])), 0.0)
    # scipy.stats.ttest_ind warns if one sample has no variance, though the result is right.
    moments = [moment for rows in (known, batch) for moment in (rows.mean(), rows.std(ddof=1), len(rows))]
    return stats.ttest_ind_from_stats(*moments)


_TESTS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "t": _t_test,
    "ks": stats.ks_2samp,
    "mannwhitney": stats.mannwhitneyu,
}


def drift_test(
    detector: Any,
    X: ArrayLike,
    *,
    reference: ArrayLike | None = None,
    test: str = "t",
    score: str | Callable[[Any], Any] | None = None,
) -> DriftTestResult:
    """Test whether a batch of new rows scores like rows that are known to be good.

    Parameters
    ----------
    detector : fitted detector
        Anything with ``score_samples`` or ``decision_function``, higher = more normal.
    X : array-like of shape (n_samples, n_features)
        The batch: at least 2 rows.
    reference : array-like of shape (n_reference, n_features) or None, default=None
        Rows known to be good that were held out of `fit`. With None the batch is tested against ``training_scores_``,
        which skood's detectors keep. But a network scores its training rows higher than new rows, so large batches then
        differ without any drift.
    test : {"t", "ks", "mannwhitney"}, default="t"
        Two-sample test of the scores: Student's t-test of the means (as in the DUM paper), Kolmogorov-Smirnov, or
        Mann-Whitney.
    score : str, callable or None, default=None
        Values to compare instead of ``score_samples``: the name of a method of the detector, such as "uncertainty", or
        a function of rows, that returns one number for each row. If values are higher for strange rows, drift makes the
        AUROC less than 0.5 instead of more. ``reference`` is then required.

    Returns
    -------
    result : DriftTestResult
        ``statistic``, ``pvalue`` and ``auroc``.

    Raises
    ------
    ValueError
        If the test or the score is unknown, there are fewer than 2 rows, there is no reference, or scores are NaN or,
        with ``test="t"``, infinite.

    Notes
    -----
    If all scores are equal, as those of a broken detector may be, nothing has drifted: the p-value of each test is 1,
    and t is 0. If the reference has one score and the batch another, t is inf or -inf and its p-value 0, which are the
    limits for small variances; the p-values of the other two tests then depend on the numbers of rows alone.

    References
    ----------
    .. [1] Wu and Goodman, "A Simple Framework for Uncertainty in Contrastive Learning", 2020, table 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import IsolationForest
    >>> from skood.drift import drift_test
    >>> X = np.random.default_rng(0).normal(size=(600, 2))
    >>> forest = IsolationForest(random_state=0).fit(X[:200])
    >>> drift_test(forest, X[200:400], reference=X[400:]).pvalue > 0.05
    True
    >>> drift_test(forest, X[200:400] + 1, reference=X[400:]).pvalue < 1e-6
    True
    """
    _check_test(test)
    scores = _score(detector, score)
    if reference is not None:
        known = scores(reference)
    elif score is not None:
        raise ValueError(f"score={score!r} was not recorded for the training rows; pass held-out rows as reference.")
    elif hasattr(detector, "training_scores_"):
        known = detector.training_scores_
    else:
        raise ValueError(f"{type(detector).__name__} keeps no training scores; pass held-out rows as reference.")
    return _compared(known, scores(X), test)


def _score(detector: Any, score: str | Callable[[Any], Any] | None) -> Callable[[Any], np.ndarray]:
    """Return the function of rows whose values are compared."""
    if score is None:
        return partial(scores_of, detector)
    function = getattr(detector, score, None) if isinstance(score, str) else score
    if not callable(function):
        raise ValueError(f"score={score!r} is no method of {type(detector).__name__}, nor a function of rows.")

    def values(X: Any) -> np.ndarray:
        """Return the values of rows; raise a ValueError if they are not one number for each row."""
        of_rows = np.asarray(function(X), dtype=np.float64)
        if of_rows.shape != (_num_samples(X),):
            raise ValueError(f"score={score!r} returns values of shape {of_rows.shape}; expected one number per row.")
        return of_rows

    return values


def _check_test(test: str) -> None:
    """Raise a ValueError if there is no test of this name."""
    if test not in _TESTS:
        raise ValueError(f"test={test!r} must be one of {', '.join(_TESTS)}.")


def _compared(known: np.ndarray, batch: np.ndarray, test: str) -> DriftTestResult:
    """Compare the scores of the reference with those of a batch."""
    if min(len(known), len(batch)) < 2:
        raise ValueError(f"reference and X must have at least 2 rows each; they have {len(known)} and {len(batch)}.")
    known, batch = np.asarray(known, dtype=np.float64), np.asarray(batch, dtype=np.float64)
    # A p-value of NaN is below no level: the failure of the detector would never raise an alarm.
    for name, scores in (("reference", known), ("X", batch)):
        n_nan, n_infinite = np.count_nonzero(np.isnan(scores)), np.count_nonzero(np.isinf(scores))
        if n_nan:
            raise ValueError(
                f"the scores of {name} are NaN for {n_nan} of {len(scores)} rows, and cannot be compared: look at "
                f"these rows, or leave them out."
            )
        if n_infinite and test == "t":
            raise ValueError(
                f"the scores of {name} are infinite for {n_infinite} of {len(scores)} rows, and have no mean: choose "
                f"test='ks' or 'mannwhitney'."
            )
    statistic, pvalue = _TESTS[test](known, batch)
    # The statistic of Mann and Whitney counts the pairs in which the known row scores higher: divided by the number of
    # pairs it is the AUROC.
    auroc = stats.mannwhitneyu(known, batch).statistic / (len(known) * len(batch))
    return DriftTestResult(float(statistic), float(pvalue), float(auroc))


def drift_table(
    detector: Any,
    X: ArrayLike,
    *,
    reference: ArrayLike,
    corruptions: Sequence[str] | Mapping[str, Callable] | None = None,
    severities: Sequence[Any] = (1, 2, 3, 4, 5),
    test: str = "t",
    score: str | Callable[[Any], Any] | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> pd.DataFrame:
    """Test which corruptions a detector notices: apply `drift_test` to one batch, corrupted in many ways.

    Parameters
    ----------
    detector : fitted detector
        Anything with ``score_samples`` or ``decision_function``, higher = more normal; a Pipeline too.
    X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
        The batch: at least 2 clean rows that were held out of `fit`. Named corruptions need images, of uint8 or of
        floats in [0, 1] or [0, 255]; the latter are rounded to whole grey levels before they are corrupted, and get
        their type and scale back. Images may be flattened if the detector, or a step of its Pipeline, has their
        ``image_shape``.
    reference : array-like of shape (n_reference, n_features) or (n_reference, C, H, W)
        Other clean rows that were held out of `fit`, against which every corrupted batch is tested.
    corruptions : sequence of str, mapping or None, default=None
        Keys of `skood.corruptions.CORRUPTIONS`; None takes all fifteen. Rows of other kinds need a mapping from names
        to functions ``(X, severity, random_state) -> X``. A function must not change the X that it gets; it may ignore
        it and read the published images with `skood.datasets.load_cifar10_c`.
    severities : sequence, default=(1, 2, 3, 4, 5)
        Each corruption is applied at each of these severities. Named corruptions take 1 to 5; the functions of a
        mapping get whatever is given here.
    test : {"t", "ks", "mannwhitney"}, default="t"
        Two-sample test of the scores, as in `drift_test`.
    score : str, callable or None, default=None
        Values to compare, as in `drift_test`.
    random_state : int, RandomState instance or None, default=None
        Seeds the corruptions. All of them get the same integer (this one, if it is an integer), so that a line does not
        depend on which other lines the table has.

    Returns
    -------
    table : DataFrame
        One line for each corruption at each severity, with the columns ``statistic``, ``pvalue`` and ``auroc`` of
        `drift_test`. The index has levels ``corruption`` and ``severity``. The first line, ("none", 0), tests X without
        a corruption: a small p-value there says that the batch and the reference differ to begin with.

    Raises
    ------
    ValueError
        If the test, the score or a corruption is unknown, a severity is out of range, named corruptions are asked for
        on rows other than such images, a mapping holds anything but functions, there are fewer than 2 rows, or scores
        cannot be compared, as in `drift_test`.
    ImportError
        If "jpeg_compression" is among the corruptions and Pillow is not installed.

    See Also
    --------
    skood.corruptions.corrupt : The named corruptions.
    skood.datasets.load_cifar10_c : The published corrupted images.

    References
    ----------
    .. [1] Wu and Goodman, "A Simple Framework for Uncertainty in Contrastive Learning", 2020, table 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.covariance import EllipticEnvelope
    >>> from skood.drift import drift_table
    >>> X = np.random.default_rng(1).normal(size=(600, 2))
    >>> detector = EllipticEnvelope(random_state=0).fit(X[:200])
    >>> def shift(X, severity, random_state):
    ...     return X + severity
    >>> table = drift_table(detector, X[200:400], reference=X[400:], corruptions={"shift": shift}, severities=(1, 3))
    >>> table.auroc.round(1)
    corruption  severity
    none        0           0.5
    shift       1           0.7
                3           1.0
    Name: auroc, dtype: float64
    """
    import pandas as pd

    _check_test(test)
    rng = check_random_state(random_state)
    # Drawing from a generator line by line would make the noise of a line depend on the lines before it.
    seed = random_state if isinstance(random_state, Integral) else rng.randint(np.iinfo(np.int32).max)
    if isinstance(severities, str) or not isinstance(severities, Iterable):
        raise ValueError(f"severities={severities!r} must be a sequence, such as (1, 3, 5).")
    severities = list(severities)
    functions = _corruptions(corruptions, X, severities, _image_shape(detector))
    # The reference is scored once for all lines.
    scores = _score(detector, score)
    known = scores(reference)
    lines = {("none", 0): _compared(known, scores(X), test)}
    for name, function in functions.items():
        for severity in severities:
            corrupted = function(X, severity, seed)
            lines[name, severity] = _compared(known, scores(corrupted), test)
    index = pd.MultiIndex.from_tuples(lines, names=("corruption", "severity"))
    return pd.DataFrame(list(lines.values()), index=index, columns=DriftTestResult._fields)


def _image_shape(detector: Any) -> tuple[int, ...] | None:
    """Return the shape of the images that a detector, or a step of its Pipeline, takes; None if it is not known."""
    steps = [step for _, step in inner_attribute(detector, "steps", [])]
    shapes = [inner_attribute(step, "image_shape_") for step in (*steps, detector)]
    return next((shape for shape in shapes if shape is not None), None)


def _corruptions(
    corruptions: Sequence[str] | Mapping[str, Callable] | None,
    X: Any,
    severities: list[Any],
    image_shape: tuple[int, ...] | None,
) -> dict[str, Callable]:
    """Return the corruptions by name; raise an error if one cannot be applied to X at these severities."""
    if isinstance(corruptions, Mapping):
        for name, function in corruptions.items():
            if not callable(function):
                raise ValueError(f"corruptions[{name!r}] is {function!r}; it must be a function.")
        return dict(corruptions)
    if isinstance(corruptions, str) or not isinstance(corruptions, Iterable | None):
        raise ValueError(f"corruptions={corruptions!r} must be a sequence of names: [{corruptions!r}].")
    names = list(CORRUPTIONS) if corruptions is None else list(corruptions)
    images = _as_images(X, image_shape)
    scale = _grey_level(images)
    if names and scale is None and images.dtype != np.uint8:
        raise ValueError(
            f"X holds {images.dtype} of shape {images.shape}, but named corruptions are for images, of uint8 or of "
            f"floats that are clearly in [0, 1] or [0, 255]. They come as (n, C, H, W), or flattened if the detector "
            f"has their image_shape. For rows of other kinds, pass a mapping of functions as corruptions."
        )
    for name in names:
        for severity in severities:
            # One image is corrupted in every way first: an error in the last line must not cost the time of all others.
            corrupt(_bytes(images[:1], scale), name, severity, random_state=0)
    return {name: partial(_corrupted, CORRUPTIONS[name], image_shape, scale) for name in names}


def _as_images(X: Any, image_shape: tuple[int, ...] | None) -> np.ndarray:
    """Return flattened images of a known shape as (n, C, H, W), and all other rows as they are."""
    X = np.asarray(X)
    if image_shape is None or X.shape[1:] != (math.prod(image_shape),):
        return X
    # Columns of a DataFrame may lie one after the other; numpy rounds sums over them differently.
    return np.ascontiguousarray(X).reshape(-1, *image_shape)


def _grey_level(images: np.ndarray) -> float | None:
    """Return the difference of two neighbouring grey levels of float images, 1 or 1/255; None for all other rows."""
    floats = images.ndim == 4 and images.dtype.kind == "f" and len(images)
    return {"[0, 1]": 1 / 255, "[0, 255]": 1.0, None: None}[pixel_range(images)] if floats else None


def _bytes(images: np.ndarray, scale: float | None) -> np.ndarray:
    """Return float images of a known scale as uint8, and all other rows as they are."""
    return images if scale is None else np.rint(np.clip(images / scale, 0, 255)).astype(np.uint8)


def _corrupted(
    function: Callable,
    image_shape: tuple[int, ...] | None,
    scale: float | None,
    X: Any,
    severity: Any,
    random_state: Any,
) -> Any:
    """Corrupt images as bytes, and return them with the type, the scale, the shape and the column names of X."""
    images = _as_images(X, image_shape)
    corrupted = function(_bytes(images, scale), severity, random_state)
    if scale is not None:
        corrupted = (corrupted * scale).astype(images.dtype)
    corrupted = corrupted.reshape(np.shape(X))
    return type(X)(corrupted, index=X.index, columns=X.columns) if hasattr(X, "iloc") else corrupted
