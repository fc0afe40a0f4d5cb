"""Detectors of an installed PyOD, as scikit-learn's convention has them."""

from __future__ import annotations

import copy
import difflib
import pkgutil
from importlib import import_module
from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ..estimator.wrapper import OffsetMixin

PREFIX = "pyod:"
# What a module of PyOD is looked for in.
_MODELS = "pyod.models"


class PyODDetector(OffsetMixin, OutlierMixin, BaseEstimator):
    """A PyOD detector that scores as scikit-learn's do: higher = more normal, -1 for outliers.

    Parameters
    ----------
    model : PyOD detector
        Anything with PyOD's ``fit``, ``decision_function`` (higher = more of an outlier) and ``threshold_``. It is
        copied, not changed.
    contamination : float in (0, 0.5] or "auto", default="auto"
        Share of the training rows that lie beyond the threshold; "auto" leaves the model its own, which is 0.1 unless
        it was given another.

    Attributes
    ----------
    model_ : PyOD detector
        The fitted copy.
    offset_ : float
        Minus PyOD's threshold.
    n_features_in_ : int
    """

    _parameter_constraints: dict = {
        "model": [HasMethods(["fit", "decision_function"])],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
    }

    def __init__(self, model, *, contamination="auto"):
        self.model = model
        self.contamination = contamination

    def __sklearn_clone__(self):
        # Constructors of some models change their arguments, which a clone of them is refused for.
        return type(self)(copy.deepcopy(self.model), contamination=self.contamination)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Fit a copy of the model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self : object
        """
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self.model_ = copy.deepcopy(self.model)
        if self.contamination != "auto":
            self.model_.set_params(contamination=self.contamination)
        self.model_.fit(X)
        self.offset_ = -float(self.model_.threshold_)
        return self

    def score_samples(self, X):
        """Minus PyOD's score of each row; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples,)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return -np.asarray(self.model_.decision_function(X), dtype=np.float64).ravel()


def find_pyod(name: str) -> tuple[str, PyODDetector]:
    """The PyOD detector of that name, at its defaults.

    Parameters
    ----------
    name : str
        "pyod:" and the class, in whatever case: "pyod:ABOD".

    Returns
    -------
    name : str
        As PyOD spells it.
    detector : PyODDetector

    Raises
    ------
    ValueError
        If PyOD is not installed or lacks a library that this detector needs, has no detector of that name, or none that
        can do without arguments.
    """
    wanted = _bare(name[len(PREFIX) :])
    try:
        package = import_module(_MODELS)
    except ImportError as error:
        raise ValueError(f"{name} is of PyOD, which is not installed (pip install 'skood[pyod]').") from error
    modules = {_bare(module.name): module.name for module in pkgutil.iter_modules(package.__path__)}
    if wanted not in modules:
        raise _unknown(name, wanted, modules)
    try:
        module = import_module(f"{_MODELS}.{modules[wanted]}")
    except ImportError as error:
        raise ValueError(f"{name} cannot be imported: {error}.") from error
    kinds = [kind for spelt, kind in vars(module).items() if _bare(spelt) == wanted and isinstance(kind, type)]
    if not kinds:
        raise _unknown(name, wanted, modules)
    try:
        model = kinds[0]()
    except Exception as error:  # of the arguments that it needs, or of a library that is not there
        raise ValueError(f"{name} cannot be made without arguments: {error}.") from error
    if "verbose" in model.get_params():
        # The comparison has a progress bar of its own.
        model.set_params(verbose=0)
    return f"{PREFIX}{kinds[0].__name__}", PyODDetector(model)


def _bare(name: str) -> str:
    return name.lower().replace("_", "")


def _unknown(name, wanted, modules) -> ValueError:
    near = difflib.get_close_matches(wanted, modules, n=3)
    hint = f"; there is {', '.join(PREFIX + modules[module] for module in near)}" if near else ""
    return ValueError(f"PyOD has no detector {name[len(PREFIX) :]!r}{hint}.")
