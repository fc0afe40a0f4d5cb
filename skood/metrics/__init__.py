"""Measure outlier detection; every metric reads scores and labels in the same way.

Scores are as in scikit-learn: higher = more normal. Rows with ``y == -1``, or with the labels that ``outlier_label``
names, are outliers; rows with any other label are inliers. Outliers are the positive class, except in `aupr_in`.
"""

from .disentanglement import dci, dci_disentanglement, disentanglement_of
from .ranking import aupr_in, aupr_out, auroc, detection_error, fpr_at_tpr
from .scorers import answers, aupr_out_scorer, aurc_scorer, auroc_scorer, fpr95_scorer, get_scorer
from .selective import (
    aurc,
    coverage_at_risk,
    misclassification_at_tpr,
    risk_coverage_curve,
    selective_at_tpr,
)

__all__ = [
    "answers",
    "aupr_in",
    "aupr_out",
    "aupr_out_scorer",
    "aurc",
    "aurc_scorer",
    "auroc",
    "auroc_scorer",
    "coverage_at_risk",
    "dci",
    "dci_disentanglement",
    "detection_error",
    "disentanglement_of",
    "fpr95_scorer",
    "fpr_at_tpr",
    "get_scorer",
    "misclassification_at_tpr",
    "risk_coverage_curve",
    "selective_at_tpr",
]
