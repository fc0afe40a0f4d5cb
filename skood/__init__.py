"""Deep out-of-distribution and anomaly detectors as scikit-learn estimators."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public names and where they live. They load on first use: `import skood` alone brings in neither torch nor skorch.
_PUBLIC = {
    "BackboneClassifier": "encoders.backbone_classifier",
    "ConformalDetector": "thresholds",
    "DUMDetector": "detectors.dum",
    "FitOnInliers": "estimator.inliers",
    "FrozenEncoder": "encoders.frozen_encoder",
    "LabelWarning": "estimator.labels",
    "NegSampleVAE": "detectors.negative_sampling_vae",
    "OODScorer": "posthoc.ood_scorer",
    "OpenSetClassifier": "open_set",
    "RejectClassDetector": "detectors.reject_classes",
    "ResidualAdapterDetector": "detectors.residual_adapters",
    "RotationAuxClassifier": "detectors.rotation",
    "SimCLREncoder": "encoders.contrastive",
    "ThresholdedDetector": "thresholds",
    "compare_detectors": "compare",
    "compare_scores": "posthoc.compare_scores",
    "show_versions": "_versions",
}
_MODULES = (
    "augment",
    "backbones",
    "callbacks",
    "compare",
    "corruptions",
    "datasets",
    "drift",
    "estimator",
    "export",
    "metrics",
    "model_selection",
    "networks",
    "open_set",
    "outliers",
    "plotting",
    "scores",
    "thresholds",
    "training",
)

__all__ = ["__version__", *sorted(_PUBLIC)]

# Editors and type checkers run no `__getattr__`: they read the same names here. "X as X" tells them that X is public.
if TYPE_CHECKING:
    from . import augment as augment
    from . import backbones as backbones
    from . import callbacks as callbacks
    from . import compare as compare
    from . import corruptions as corruptions
    from . import datasets as datasets
    from . import drift as drift
    from . import estimator as estimator
    from . import export as export
    from . import metrics as metrics
    from . import model_selection as model_selection
    from . import networks as networks
    from . import open_set as open_set
    from . import outliers as outliers
    from . import plotting as plotting
    from . import scores as scores
    from . import thresholds as thresholds
    from . import training as training
    from ._versions import show_versions as show_versions
    from .compare.run import compare_detectors as compare_detectors
    from .detectors.dum import DUMDetector as DUMDetector
    from .detectors.negative_sampling_vae import NegSampleVAE as NegSampleVAE
    from .detectors.reject_classes import RejectClassDetector as RejectClassDetector
    from .detectors.residual_adapters import ResidualAdapterDetector as ResidualAdapterDetector
    from .detectors.rotation import RotationAuxClassifier as RotationAuxClassifier
    from .encoders.backbone_classifier import BackboneClassifier as BackboneClassifier
    from .encoders.contrastive import SimCLREncoder as SimCLREncoder
    from .encoders.frozen_encoder import FrozenEncoder as FrozenEncoder
    from .estimator.inliers import FitOnInliers as FitOnInliers
    from .estimator.labels import LabelWarning as LabelWarning
    from .open_set import OpenSetClassifier as OpenSetClassifier
    from .posthoc.compare_scores import compare_scores as compare_scores
    from .posthoc.ood_scorer import OODScorer as OODScorer
    from .thresholds import ConformalDetector as ConformalDetector
    from .thresholds import ThresholdedDetector as ThresholdedDetector
else:
    # Hidden from type checkers, to which a module with a `__getattr__` has every name, misspelt ones too.
    def __getattr__(name):
        if name in _PUBLIC:
            value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
            globals()[name] = value
            return value
        if name in _MODULES:
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
