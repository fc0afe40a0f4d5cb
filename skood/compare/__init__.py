"""Compare many detectors on many data sets, in one table."""

from importlib import import_module
from typing import Any

# They stand here since --help must know them, without the seconds that it takes to load what they name.
PROTOCOL_NAMES = ("novelty", "contaminated", "holdout-class", "one-versus-rest", "ood-pair")

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

__all__ = sorted([*_PUBLIC, "PROTOCOL_NAMES"])


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
