"""A detector in the middle of its training, as it would be if the training ended now."""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..networks.copies import deep_copy
from ..training.batches import TrainingRows
from ..training.device import seeded
from ..training.watching import evaluated
from .data import FitData
from .labels import Marker

if TYPE_CHECKING:
    from ..training.net import DetectorNet
    from .base import OutlierDetector

__all__ = ["Midway"]


class Midway:
    """Score rows with a detector that is being trained; callbacks use it.

    Parameters
    ----------
    detector : OutlierDetector
        The detector, which has its scaling already.
    data : FitData
        The rows of its fit, that its score may learn from.
    """

    def __init__(self, detector: OutlierDetector, data: FitData) -> None:
        self.detector, self.data = detector, data

    @property
    def outlier_label(self) -> Marker:
        """The label, or labels, that mark outliers in y."""
        return self.detector.outlier_label

    def checked(self, X: Any) -> np.ndarray:
        """Return rows as `scores` takes them; raise a ValueError as ``score_samples`` does."""
        return copy.copy(self.detector)._check_rows(X, reset=False)

    def training_rows(self, X: Any, y: Any) -> TrainingRows:
        """Return rows as the training takes them, for their loss."""
        detector = copy.copy(self.detector)
        return detector._training_rows(detector._read_more(X, y))

    def scores(self, net: DetectorNet, X: np.ndarray) -> np.ndarray:
        """Return the scores of checked rows that the detector would give if the training ended now."""
        detector = copy.copy(self.detector)
        with evaluated(net):
            # A copy, since learning a score may change the network.
            module = deep_copy(net.module_)
        detector.net_, detector.history_ = SimpleNamespace(module_=module), net.history  # type: ignore[assignment]
        device = next(module.parameters()).device
        with seeded(0, device), warnings.catch_warnings():
            # Warnings about an unfinished training would mislead.
            warnings.simplefilter("ignore")
            detector._fit_score(self.data)
            return detector._scores(X)
