"""Compare all scores of a classifier that is trained already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from torch import nn

from ..metrics import aupr_out, auroc, fpr_at_tpr
from ..scores import METHODS, FittedScore
from .estimators import SklearnClassifier
from .lessons import one_class_left
from .ood_scorer import OODScorer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare_scores"]


def compare_scores(
    classifier: Any,
    X_in: Any,
    X_out: Any,
    *,
    X_train: Any = None,
    y_train: ArrayLike | None = None,
    methods: str | Sequence[str] | None = None,
    layer: str | nn.Module | None = None,
    method_params: Mapping[str, dict[str, Any]] | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> pd.DataFrame:
    """Compare how well the scores of a trained classifier tell known rows from other rows.

    One forward pass computes the logits and features of all rows, and every score is computed from them. "odin", which
    moves the rows, and "rotation", which transforms them, need further passes.

    Parameters
    ----------
    classifier : torch.nn.Module, or fitted skorch, skood or scikit-learn classifier
        A trained classifier, as in `OODScorer`.
    X_in : array-like of shape (n_in, n_features) or (n_in, C, H, W)
        At least 2 rows of the classes that the classifier knows. It should not have been trained on these rows.
    X_out : array-like, or mapping of str to array-like
        Other rows, or several sets of other rows by name.
    X_train : array-like or None, default=None
        Rows of known classes that scores learn from: those that the classifier was trained on, or others.
    y_train : array-like of shape (n_train,) or None, default=None
        Labels of the rows in ``X_train``, as in `OODScorer.fit`: rows with -1 are left out.
    methods : sequence of str or None, default=None
        Names in `skood.scores.METHODS`. None means all that are possible with this classifier and these arguments.
    layer : str, torch.nn.Module or None, default=None
        The layer whose output are the features, as in `OODScorer`.
    method_params : mapping of str to dict or None, default=None
        A dict of options for each method, by the method's name. Methods that ``methods`` does not name are refused;
        those that are left out, because they are not possible, may have options.
    image_shape : tuple (C, H, W) or None, default=None
        Shape of one image, if rows are flattened pixels, as in `OODScorer`.

    Returns
    -------
    results : DataFrame
        A row for each method, in the order of ``methods``. If ``X_out`` is a mapping, a row for each "test set" and
        "method". The columns are ``auroc``, ``aupr`` (with outliers as the positive class) and ``fpr95``, see
        `skood.metrics`. ``results.attrs["left_out"]`` is a dict that maps each method that was not possible to the
        reason.

    Raises
    ------
    ValueError
        If one of ``methods`` is unknown or not possible, or an argument is not as described.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import train_test_split
    >>> from skood import compare_scores
    >>> X, y = load_digits(return_X_y=True)
    >>> X, known = X / 16, y < 8
    >>> X_train, X_new, y_train, y_new = train_test_split(X[known], y[known], test_size=0.5, random_state=0)
    >>> classifier = LogisticRegression().fit(X_train, y_train)
    >>> results = compare_scores(classifier, X_new, X[~known], X_train=X_train, methods=["msp", "energy", "knn"])
    >>> results.round(2)
            auroc  aupr  fpr95
    method
    msp      0.95  0.89   0.16
    energy   0.97  0.94   0.14
    knn      0.93  0.85   0.27
    >>> compare_scores(classifier, X_new, X[~known]).attrs["left_out"]["odin"]
    'LogisticRegression gives no gradient'
    """
    import pandas as pd

    scorer = OODScorer(classifier, layer=layer, image_shape=image_shape)
    # `fit`, which would check the parameters, is not called.
    scorer._validate_params()
    if isinstance(layer, (list, tuple)):
        raise ValueError("layer names several layers, whose scores only OODScorer adds up: name one here.")
    names = _method_names(methods)
    options = _checked_options(method_params, names)
    scores = {name: FittedScore(name, options.get(name)) for name in names}
    if X_train is None and y_train is not None:
        raise ValueError("y_train is given without X_train: pass the rows whose labels these are.")
    known = scorer._attach(X_in)
    train = None if X_train is None else scorer._check_rows(X_train, reset=False)
    # A sparse matrix may be a dict.
    several = isinstance(X_out, Mapping) and not issparse(X_out)
    sets: Mapping[Any, Any] = X_out if several else {None: X_out}
    if not sets:
        raise ValueError("X_out holds no rows: pass an array, or a dict with one for each test set.")
    others = {name: scorer._check_rows(X, reset=False) for name, X in sets.items()}
    if isinstance(scorer._adapter, SklearnClassifier):
        # A classifier may take rows that are no features, such as those with NaN, and they may be in any of these sets.
        named = {"X_in": known} | ({} if X_train is None else {"X_train": train})
        named |= {"X_out" if name is None else f"X_out[{name!r}]": X for name, X in others.items()}
        scorer._adapter.lacks.pop("features", None)
        for name, X in named.items():
            scorer._adapter.look_for_features(X, name)
    left_out = _left_out(scorer, scores, learns=X_train is not None)
    _refuse_left_out(left_out, methods)
    scores = {name: score for name, score in scores.items() if name not in left_out}
    if train is not None:
        of_one_class = _learn_all(scorer, scores, train, y_train)
        _refuse_left_out(of_one_class, methods)
        scores = {name: score for name, score in scores.items() if name not in of_one_class}
        left_out |= of_one_class

    # Known rows are scored once, and compared with each set of other rows.
    scores_in = _all_scores(scorer, scores, known)
    table: dict[Any, dict[str, float]] = {}
    for test_set, X in others.items():
        scores_out = _all_scores(scorer, scores, X)
        for name in scores:
            both = np.concatenate([scores_in[name], scores_out[name]])
            y = np.repeat([1, -1], [len(scores_in[name]), len(scores_out[name])])
            key = (test_set, name) if several else name
            table[key] = {"auroc": auroc(y, both), "aupr": aupr_out(y, both), "fpr95": fpr_at_tpr(y, both)}
    results = pd.DataFrame.from_dict(table, orient="index", columns=["auroc", "aupr", "fpr95"])
    if several:
        results.index = pd.MultiIndex.from_tuples(list(table), names=["test set", "method"])
    else:
        results.index.name = "method"
    results.attrs["left_out"] = left_out
    return results


def _method_names(methods: str | Sequence[str] | None) -> list[str]:
    """Return the names of the methods that the user asks for; raise ValueError if there are none."""
    if methods is None:
        return list(METHODS)
    names = [methods] if isinstance(methods, str) else list(methods) if isinstance(methods, Iterable) else []
    if not names:
        raise ValueError(f"methods={methods!r} must be names, or None for all; the methods are {', '.join(METHODS)}.")
    return names


def _checked_options(method_params: Any, names: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Return the options of methods by name; raise ValueError if some belong to none of the methods named."""
    example = "such as {'knn': {'n_neighbors': 5}}"
    if method_params is None:
        return {}
    if not isinstance(method_params, Mapping):
        raise ValueError(f"method_params={method_params!r} must map methods to dicts of options, {example}.")
    unknown = [name for name in method_params if name not in METHODS]
    if unknown:
        raise ValueError(f"method_params has unknown methods, {unknown}; the methods are {', '.join(METHODS)}.")
    unused = [name for name in method_params if name not in names]
    if unused:
        raise ValueError(f"method_params has options of {unused}, not among methods={names}: add or leave out these.")
    for name, options in method_params.items():
        if not isinstance(options, Mapping):
            raise ValueError(f"method_params[{name!r}]={options!r} must be a dict of options, {example}.")
    return method_params


def _left_out(scorer: OODScorer, scores: Mapping[str, FittedScore], learns: bool) -> dict[str, str]:
    """Return why methods are not possible, by name; ``learns`` says whether there are rows to learn from."""
    left_out = {}
    for name, score in scores.items():
        reason = scorer._refusal(name)
        if reason is None and score.moves_rows:
            reason = scorer._adapter.lacks.get("gradient")
        if reason is None and score.method.learn is not None and not learns:
            reason = "it learns from known rows, X_train"
        if reason is not None:
            left_out[name] = reason
    return left_out


def _refuse_left_out(left_out: Mapping[str, str], methods: Any) -> None:
    """Raise an error if methods that the user named are not possible; ``left_out`` has the reasons."""
    if methods is not None and left_out:
        reasons = "; ".join(f"{name!r}, {why}" for name, why in left_out.items())
        raise ValueError(f"methods not possible: {reasons}. Leave them out.")


def _learn_all(scorer: OODScorer, scores: Mapping[str, FittedScore], X: Any, y: ArrayLike | None) -> dict[str, str]:
    """Let every score learn from the same checked rows, whose responses are computed once.

    Return why methods cannot tell rows apart after that, by name.
    """
    data = scorer._read_labels(X, y)
    names = dict.fromkeys(name for score in scores.values() for name in score.learns_from)
    lessons = scorer._lessons(tuple(names), data)
    for score in scores.values():
        score.learn(*lessons)
    reasons = {name: one_class_left(name, lessons[1]) for name in scores}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _all_scores(scorer: OODScorer, scores: Mapping[str, FittedScore], X: Any) -> dict[str, np.ndarray]:
    """Return the scores of checked rows by each method, from responses that are computed once."""
    names = dict.fromkeys(name for score in scores.values() for name in score.needs)
    seen = scorer._observed(tuple(names), X)
    return {
        name: scorer._asked(score, X) if score.asks_network else score.score(seen) for name, score in scores.items()
    }
