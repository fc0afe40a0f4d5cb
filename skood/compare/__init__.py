"""Compare many detectors on many data sets, in one table."""

from importlib import import_module
from typing import Any

# One line for each protocol. They are here so that --help need not load the modules of the protocols, which takes
# seconds.
PROTOCOL_HELP = {
    "novelty": "trained on inliers alone",
    "contaminated": "trained on inliers and outliers, not marked",
    "holdout-class": "each class in turn is the outliers",
    "one-versus-rest": "each class in turn is the inliers",
    "ood-pair": "in-distribution rows against each set of unseen rows",
}

# Name -> the module that has it, loaded on first use.
_PUBLIC = {
    "BASELINES": "run",
    "DETECTORS": "run",
    "NearestNeighborsDetector": "run",
    "OODPair": "protocols",
    "PROTOCOLS": "protocols",
    "compare_detectors": "run",
    "format_table": "summary",
    "split": "protocols",
    "summarize": "summary",
}

__all__ = sorted([*_PUBLIC, "PROTOCOL_HELP"])


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
