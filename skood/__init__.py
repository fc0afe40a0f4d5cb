"""Deep out-of-distribution and anomaly detectors as scikit-learn estimators."""

from importlib import import_module

__version__ = "0.1.0"

# Public names and where they live. They load on first use: `import skood` alone brings in neither torch nor skorch.
_PUBLIC = {
    "BackboneClassifier": "encoders.backbone_classifier",
    "ConformalDetector": "thresholds",
    "DUMDetector": "detectors.dum",
    "FitOnInliers": "outliers",
    "FrozenEncoder": "encoders.frozen_encoder",
    "NegSampleVAE": "detectors.negative_sampling_vae",
    "OODScorer": "posthoc.ood_scorer",
    "OpenSetClassifier": "open_set",
    "RejectClassDetector": "detectors.reject_classes",
    "ResidualAdapterDetector": "detectors.residual_adapters",
    "RotationAuxClassifier": "detectors.rotation",
    "SimCLREncoder": "encoders.contrastive",
    "ThresholdedDetector": "thresholds",
    "compare_detectors": "compare",
    "compare_scores": "posthoc.ood_scorer",
}
_MODULES = (
    "augment",
    "backbones",
    "compare",
    "corruptions",
    "datasets",
    "estimator",
    "metrics",
    "model_selection",
    "networks",
    "outliers",
    "plotting",
    "scores",
    "thresholds",
    "training",
)

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name):
    if name in _PUBLIC:
        value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__, *_MODULES})
