"""Draw scores, in scikit-learn's Display conventions; needs matplotlib (``pip install 'skood[plot]'``).

Every display takes any detector and shows its threshold. In curves outliers (y == -1) are the positive class.
"""

from .curves import OutlierPrecisionRecallDisplay, OutlierRocDisplay, RiskCoverageDisplay
from .explanation import ExplanationDisplay
from .gallery import CertaintyGalleryDisplay
from .histogram import ScoreHistogramDisplay

__all__ = [
    "CertaintyGalleryDisplay",
    "ExplanationDisplay",
    "OutlierPrecisionRecallDisplay",
    "OutlierRocDisplay",
    "RiskCoverageDisplay",
    "ScoreHistogramDisplay",
]
