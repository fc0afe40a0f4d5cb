"""Measure whether a representation holds the data's factors of variation separately or mixed (DCI)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state
from sklearn.utils.parallel import Parallel, delayed

# Every tree may split on every feature. If it saw only some of them, it would have to split on features that do not
# matter, and a representation that equals the factors would get 0.6 instead of 1. Small leaves would fit noise.
_FOREST: dict[str, Any] = {"max_features": None, "min_samples_leaf": 5}
# Name -> classifier, regressor and their parameters. Boosting has scikit-learn's defaults, as in published results.
_PREDICTORS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "gradient_boosting": (GradientBoostingClassifier, GradientBoostingRegressor, {}),
    "random_forest": (RandomForestClassifier, RandomForestRegressor, _FOREST),
}
# Six rows leave two to test on, the fewest for which R^2 is defined, and four to train on.
_MIN_SAMPLES = 6


class DCI(NamedTuple):
    """Result of `dci`, which documents the fields."""

    disentanglement: float
    completeness: float
    informativeness: np.ndarray
    importance: np.ndarray


def disentanglement_of(importance: ArrayLike) -> float:
    """Return the disentanglement of a representation, from the importance of each feature for each factor.

    With P_ij = R_ij / sum_k R_ik, feature i has D_i = 1 - H(P_i), the entropy taken to base n_factors: 1 if it matters
    to one factor alone, 0 if it matters to all of them alike. The result is sum_i rho_i D_i, where rho_i = sum_j R_ij /
    sum_ij R_ij is the weight of feature i: 0 if it matters to no factor [1]_.

    For the transposed matrix the result is the completeness: 1 if each factor depends on one feature alone.

    Parameters
    ----------
    importance : array-like of shape (n_features, n_factors)
        R, nonnegative. It comes from `dci` or from your own predictors, say as the absolute coefficients of a lasso.

    Returns
    -------
    disentanglement : float in [0, 1]

    Raises
    ------
    ValueError
        If ``importance`` has another shape, there is one factor only (entropy to base 1 is undefined), a value is
        negative or not finite, or all values are zero.

    References
    ----------
    .. [1] Eastwood and Williams, "A Framework for the Quantitative Evaluation of Disentangled Representations",
       ICLR 2018.

    Examples
    --------
    >>> from skood.metrics import disentanglement_of
    >>> disentanglement_of([[1, 0], [0, 1]])
    1.0
    >>> disentanglement_of([[1, 1], [1, 1]])
    0.0
    """
    R = np.asarray(importance, dtype=np.float64)
    if R.ndim != 2 or R.shape[1] < 2 or len(R) == 0:
        raise ValueError(
            f"importance must be of shape (n_features, n_factors), with two factors or more; got shape {R.shape}."
        )
    if not np.isfinite(R).all():
        raise ValueError("importance holds NaN or infinity; every feature needs a finite value for every factor.")
    if (R < 0).any():
        raise ValueError("importance holds negative values; if these are coefficients, give their absolute values.")
    if not R.any():
        raise ValueError("importance is zero everywhere: no feature matters, and disentanglement is undefined.")
    R = R / R.max()  # sums can no longer overflow
    total = R.sum(axis=1)
    alive = total > 0
    share = R[alive] / total[alive, None]
    # xlogy takes 0 log 0 as 0.
    disentangled = 1 + xlogy(share, share).sum(axis=1) / np.log(R.shape[1])
    # Rounding can put an average just outside of [0, 1].
    return float(np.clip(np.average(disentangled, weights=total[alive]), 0, 1))


def dci(
    features: ArrayLike,
    factors: Any,
    *,
    predictor: str = "gradient_boosting",
    discrete: Any = "auto",
    n_jobs: int | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> DCI:
    """Measure disentanglement, completeness and informativeness of a representation whose true factors are known.

    For each factor a predictor is trained on the features, on two thirds of the rows. Its feature importances, which
    sum to 1, are a column of the importance matrix, from which `disentanglement_of` computes disentanglement and
    completeness [1]_. Locatello et al. measure with gradient boosting at scikit-learn's defaults [2]_, and so do Deecke
    et al. for residual adapters [3]_.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        The representation: at least two features. Their scale does not matter.
    factors : array-like or DataFrame of shape (n_samples, n_factors)
        The true factors of the rows, at least two; numbers or text.
    predictor : {"gradient_boosting", "random_forest"}, default="gradient_boosting"
        Results of different predictors cannot be compared. Boosting grows trees for each value of a discrete factor,
        which is slow for wide representations; for a factor of six values a forest takes a quarter of the time.
    discrete : "auto", bool or array-like of bool of shape (n_factors,), default="auto"
        Which factors are discrete and predicted by a classifier; the others are predicted by a regressor. "auto" treats
        text, booleans and categories as discrete, and also whole numbers if each occurs twice or more on average.
    n_jobs : int, default=None
        Number of factors that are predicted at the same time. None means 1, and -1 means all processors.
    random_state : int, RandomState or None, default=None
        Seeds the split of the rows and the predictors. Pass an int for repeatable results.

    Returns
    -------
    result : named tuple
        disentanglement : float in [0, 1]
            1 if each feature matters to one factor alone.
        completeness : float in [0, 1]
            1 if each factor depends on one feature alone.
        informativeness : ndarray of float of shape (n_factors,)
            How well each factor is predicted on the third of the rows that is held out: accuracy for a discrete factor,
            R^2 for a continuous one (1 - NRMSE^2). Look at it first: a factor that the features do not predict has
            importances as well, but these are noise.
        importance : ndarray of float of shape (n_features, n_factors)
            Importance of each feature for each factor.

    Raises
    ------
    ValueError
        If features and factors differ in length, have fewer than two columns or six rows, or hold NaN or infinity. If a
        factor is constant, or is discrete and has more than half as many values as rows. If all features are constant
        (a collapsed representation).

    References
    ----------
    .. [1] Eastwood and Williams, "A Framework for the Quantitative Evaluation of Disentangled Representations",
       ICLR 2018.
    .. [2] Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of Disentangled
       Representations", ICML 2019.
    .. [3] Deecke, Ruff, Vandermeulen and Bilen, "Deep Anomaly Detection by Residual Adaptation", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.metrics import dci
    >>> factors = np.random.default_rng(0).uniform(size=(300, 2))
    >>> dci(factors, factors, random_state=0).disentanglement > 0.99
    True
    >>> mixed = factors @ [[1, 1], [1, -1]]
    >>> result = dci(mixed, factors, random_state=0)
    >>> result.disentanglement < 0.2
    True
    >>> result.informativeness.round(1)
    array([1., 1.])
    """
    if predictor not in _PREDICTORS:
        raise ValueError(f"predictor={predictor!r} must be one of {', '.join(map(repr, _PREDICTORS))}.")
    rows = _check_features(features)
    targets = _check_factors(factors, len(rows), discrete)
    # All predictors get the same seed, so that results do not depend on the order of the factors.
    seed = check_random_state(random_state).randint(2**31 - 1)
    train, test = train_test_split(np.arange(len(rows)), test_size=1 / 3, random_state=seed)
    for name, (target, _) in targets.items():
        if (target[train] == target[train[0]]).all():
            raise ValueError(
                f"factors column {name!r} has one value in the rows to train on; give more rows with other values, or "
                "leave the column out."
            )
    outcomes = Parallel(n_jobs=n_jobs)(
        delayed(_predict)(predictor, rows, target, is_discrete, train, test, seed)
        for target, is_discrete in targets.values()
    )
    importance = np.stack([column for column, _ in outcomes], axis=1)
    return DCI(
        disentanglement_of(importance),
        disentanglement_of(importance.T),
        np.array([score for _, score in outcomes]),
        importance,
    )


def dci_disentanglement(
    features: ArrayLike,
    factors: Any,
    *,
    predictor: str = "gradient_boosting",
    discrete: Any = "auto",
    n_jobs: int | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> float:
    """Measure whether each feature of a representation matters to one true factor alone.

    This is the field ``disentanglement`` of the result of `dci`.

    Parameters
    ----------
    features, factors, predictor, discrete, n_jobs, random_state
        The parameters of `dci`.

    Returns
    -------
    disentanglement : float in [0, 1]
        1 if each feature matters to one factor alone, 0 if every feature matters to all factors alike.

    Raises
    ------
    ValueError
        In the cases in which `dci` raises one.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.metrics import dci_disentanglement
    >>> factors = np.random.default_rng(0).integers(3, size=(90, 2))
    >>> round(dci_disentanglement(factors, factors, random_state=0), 3)
    1.0
    """
    return dci(
        features, factors, predictor=predictor, discrete=discrete, n_jobs=n_jobs, random_state=random_state
    ).disentanglement


# --------------------------------------------------------------------------------------------------------------------


def _predict(
    predictor: str,
    features: np.ndarray,
    target: np.ndarray,
    discrete: bool,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, float]:
    """Return the importance of each feature for a factor, and how well the factor is predicted on held-out rows."""
    classifier, regressor, parameters = _PREDICTORS[predictor]
    model = (classifier if discrete else regressor)(random_state=seed, **parameters)
    model.fit(features[train], target[train])
    # Boosting may give an importance like -1e-17.
    return np.maximum(model.feature_importances_, 0), model.score(features[test], target[test])


def _check_features(features: ArrayLike) -> np.ndarray:
    """Return features as float32 in [0, 1]; raise an error if they cannot be used."""
    shape = tuple(np.shape(features))
    if len(shape) != 2 or shape[0] < _MIN_SAMPLES or shape[1] < 2:
        raise ValueError(
            f"features must be of shape (n_samples, n_features), with {_MIN_SAMPLES} rows and two features or more; "
            f"got shape {shape}. Flatten images and feature maps."
        )
    try:
        checked = check_array(features, dtype=np.float64, ensure_all_finite=False)
    except ValueError as error:
        raise ValueError(f"features must hold real numbers: {error}") from error
    rows = np.flatnonzero(~np.isfinite(checked).all(axis=1))
    if len(rows):
        raise ValueError(f"features holds NaN or infinity, first in row {rows[0]}; mend it or drop the row.")
    checked = _to_unit_range(checked)
    if not checked.any():
        raise ValueError("features are the same in every row (a collapsed representation): they predict no factor.")
    return checked.astype(np.float32)


def _check_factors(factors: Any, n_samples: int, discrete: Any) -> dict[object, tuple[np.ndarray, bool]]:
    """Return, by the column's name or number, the target of each factor and whether it is discrete."""
    import pandas as pd

    shape = tuple(np.shape(factors))
    if len(shape) != 2 or shape[1] < 2:
        raise ValueError(
            "factors must be of shape (n_samples, n_factors), with two factors or more, since one factor cannot be "
            f"mixed; got shape {shape}."
        )
    if shape[0] != n_samples:
        raise ValueError(f"factors has {shape[0]} rows and features {n_samples}; give one row of each per sample.")
    if not isinstance(factors, pd.DataFrame):
        # numpy would turn a list of rows into one array, and text in one column would turn all columns into text.
        factors = pd.DataFrame(factors if isinstance(factors, (list, tuple)) else np.asarray(factors))
    if not factors.columns.is_unique:
        raise ValueError(f"factors has columns of the same name: {list(factors.columns)}; rename them.")
    factors = factors.infer_objects()
    if isinstance(discrete, str) and discrete == "auto":
        chosen: list[bool | None] = [None] * shape[1]
    else:
        given = np.asarray(discrete)
        if given.dtype != bool or given.shape not in {(), (shape[1],)}:
            raise ValueError(f"discrete={discrete!r} must be 'auto', a bool, or one bool per factor ({shape[1]}).")
        chosen = np.broadcast_to(given, shape[1]).tolist()
    return {name: _target(name, column, is_) for (name, column), is_ in zip(factors.items(), chosen, strict=True)}


def _target(name: object, column: Any, discrete: bool | None) -> tuple[np.ndarray, bool]:
    """Return what to predict for a factor, and whether by a classifier; None for ``discrete`` lets the data decide."""
    import pandas as pd

    missing = np.flatnonzero(column.isna())
    if len(missing):
        raise ValueError(f"factors column {name!r} contains NaN, first in row {missing[0]}; fill it or drop the row.")
    codes, values = pd.factorize(column)
    if len(values) < 2:
        raise ValueError(f"factors column {name!r} is constant: there is nothing to predict; leave it out.")
    repeats = len(values) <= len(codes) / 2
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if is_number:
        if pd.api.types.is_complex_dtype(column):
            raise ValueError(f"factors column {name!r} is complex; give its real and imaginary part as two factors.")
        number = column.to_numpy(dtype=np.float64)
        if not np.isfinite(number).all():
            raise ValueError(f"factors column {name!r} contains infinity; replace it or drop the row.")
        discrete = repeats and bool((number == np.floor(number)).all()) if discrete is None else discrete
        if not discrete:
            return _to_unit_range(number), False
    elif discrete is False:
        raise ValueError(f"factors column {name!r} holds no numbers and cannot be regressed; set discrete=True for it.")
    if not repeats:
        raise ValueError(
            f"factors column {name!r} has {len(values)} values in {len(codes)} rows, too many to classify; "
            + ("set discrete=False for it." if is_number else "bin them, or leave it out.")
        )
    return codes, True


def _to_unit_range(values: np.ndarray) -> np.ndarray:
    """Scale each column to [0, 1], and a constant column to 0."""
    # Trees treat values that are less than 1e-7 apart as equal, whatever the scale of a feature.
    low, high = values.min(axis=0), values.max(axis=0)
    return (values - low) / np.where(high > low, high - low, 1)
