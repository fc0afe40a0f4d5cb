"""The scikit-learn contract of every estimator here, public for authors of detectors.

`OutlierDetector` is where a detector of your own begins: a page of the documents, "Your own detector", writes one.
Names load on first use, so that what needs no torch does not load it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import OutlierDetector as OutlierDetector
    from .classes import ClassLearner as ClassLearner
    from .classes import ClassScores as ClassScores
    from .classes import DetectorWithClasses as DetectorWithClasses
    from .classes import NetworkLearner as NetworkLearner
    from .data import FitData as FitData
    from .detector import Detector as Detector
    from .front import Front as Front
    from .labels import check_labels as check_labels
    from .labels import find_outliers as find_outliers
    from .labels import marks_outlier as marks_outlier
    from .network import NetworkEstimator as NetworkEstimator
    from .rows import RowEstimator as RowEstimator
    from .rows import framed_like as framed_like
    from .wrapper import DetectorWrapper as DetectorWrapper
    from .wrapper import OffsetMixin as OffsetMixin

# Name -> the module that has it.
_PUBLIC = {
    "ClassLearner": "classes",
    "ClassScores": "classes",
    "Detector": "detector",
    "DetectorWithClasses": "classes",
    "DetectorWrapper": "wrapper",
    "FitData": "data",
    "Front": "front",
    "NetworkEstimator": "network",
    "NetworkLearner": "classes",
    "OffsetMixin": "wrapper",
    "OutlierDetector": "base",
    "RowEstimator": "rows",
    "check_labels": "labels",
    "find_outliers": "labels",
    "framed_like": "rows",
    "marks_outlier": "labels",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
