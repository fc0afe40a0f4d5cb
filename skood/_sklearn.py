"""What skood takes from scikit-learn's private modules, in one place: another version may move it."""

from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions

__all__ = ["HasMethods", "Interval", "Options", "StrOptions", "check_matplotlib_support"]
