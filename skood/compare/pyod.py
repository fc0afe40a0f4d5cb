"""Use detectors of PyOD, if it is installed, as if they were scikit-learn's."""

from __future__ import annotations

import copy
import difflib
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from numbers import Real

import numpy as np
from sklearn.base import OutlierMixin, _fit_context
from sklearn.utils.validation import check_is_fitted, validate_data

from .._sklearn import HasMethods, Interval, StrOptions
from ..estimator.versioned import VersionedEstimator
from ..estimator.wrapper import OffsetMixin

PREFIX = "pyod:"
# The package that has a module for each of PyOD's detectors.
_MODELS = "pyod.models"


class PyODDetector(OffsetMixin, OutlierMixin, VersionedEstimator):
    """Wrap a PyOD detector so that it scores as scikit-learn's do: higher = more normal, -1 for outliers.

    Parameters
    ----------
    model : PyOD detector
        Anything with PyOD's ``fit``, ``decision_function`` (higher = more of an outlier) and ``threshold_``. It is
        copied, not changed.
    contamination : float in (0, 0.5] or "auto", default="auto"
        Share of the training rows that lie beyond the threshold. "auto" leaves the model its own share: PyOD's default
        is 0.1.

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
        # Constructors of some models change their arguments; sklearn.base.clone would refuse to clone these.
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
        """Return minus PyOD's score of each row; higher = more normal.

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
    """Return the PyOD detector of a name, at its defaults.

    Parameters
    ----------
    name : str
        "pyod:" and the name of the class, in upper or lower case: "pyod:ABOD".

    Returns
    -------
    name : str
        As PyOD spells it.
    detector : PyODDetector

    Raises
    ------
    ValueError
        If PyOD is not installed, has no detector of that name, or the detector needs arguments or a library that is not
        installed.
    """
    wanted = _bare(name[len(PREFIX) :])
    try:
        package = import_module(_MODELS)
    except ImportError as error:
        raise ValueError(f"{name} needs PyOD, which is not installed: pip install 'skood[pyod]'.") from error
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
    except Exception as error:
        # An exception of any class: arguments are missing, or a library that is imported only here.
        raise ValueError(f"{name} cannot be made without arguments: {error}.") from error
    if "verbose" in model.get_params():
        # The comparison has a progress bar of its own, which other output would break.
        model.set_params(verbose=0)
    return f"{PREFIX}{kinds[0].__name__}", PyODDetector(model)


def _bare(name: str) -> str:
    """Return a name in lower case and without underscores: modules and classes differ in these."""
    return name.lower().replace("_", "")


def _unknown(name: str, wanted: str, modules: Mapping[str, str]) -> ValueError:
    """Return the error about a name that PyOD does not have, with similar names."""
    near = difflib.get_close_matches(wanted, modules, n=3)
    hint = f"; similar names are {', '.join(PREFIX + modules[module] for module in near)}" if near else ""
    return ValueError(f"PyOD has no detector {name[len(PREFIX) :]!r}{hint}.")
