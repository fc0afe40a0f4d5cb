"""Observe fitted detectors with classes, as `observed` describes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..estimator.classes import ClassLearner
from ..networks.products import even_product
from ..training.batches import Represent
from ..training.scoring import Respond
from .layers import (
    NO_LAYER,
    NO_ROTATION,
    Layers,
    ask_for_layer,
    equal_up_to_rounding,
    features_of,
    layer_name,
    other_layer,
    watched,
)


class SkoodClassifier:
    """Observe a fitted detector with classes.

    Parameters
    ----------
    detector : ClassLearner
        The detector.
    """

    has_threshold = False

    def __init__(self, detector: ClassLearner):
        self.detector, self.classes_ = detector, detector.classes_
        self.steps: list[Any] = []
        self.image_shape = detector.image_shape_

    def check_rows(self, X: Any) -> np.ndarray:
        """Return the rows of X, checked by the detector."""
        return self.detector._check_rows(X, reset=False)

    def look(self, X: Any, trial: np.ndarray, represent: Represent, layers: Layers) -> None:
        """Find out which responses the detector has."""
        self.layers = [layer_name(self.detector.module_, layer) for layer in layers]
        self.lacks = {} if getattr(self.detector, "_has_rotation_head", False) else {"rotation_logits": NO_ROTATION}
        if self.layers:
            self.lacks["weight"] = other_layer(self.layers)
        # Each response is tried, because the network may be the user's own, without a last linear layer.
        responses: dict[str, Callable[[], Any]] = {
            "weight": self.weights,
            "features": partial(self.apply, self._beside_product, X, trial),
        }
        seen = {}
        for name, respond in responses.items():
            try:
                seen[name] = respond()
            except AttributeError:
                self.lacks.setdefault(name, NO_LAYER)
        if self.layers or len(seen) < 2:
            return
        logits, product = np.split(seen["features"], 2, axis=1)
        if not equal_up_to_rounding(logits, product):
            # The layer that ran last does not compute the logits.
            self.lacks |= {"weight": NO_LAYER, "features": ask_for_layer(self, X, trial, represent)}

    def _beside_product(self, module: nn.Module, rows: Tensor) -> Tensor:
        """Return the logits of rows, and beside them the product of the features with the weights of the classes."""
        if self.layers:
            _, parts = self._logits_and_parts(module, rows)
            self.sizes = [part.shape[1] for part in parts]
            return torch.cat(parts, 1)
        logits, features = self.logits_and_features(module, rows)
        if "weight" in self.lacks:
            return features
        weight, bias = self.weights()
        if weight.shape != (logits.shape[1], features.shape[1]):
            return torch.cat([logits, torch.full_like(logits, torch.nan)], 1)
        return torch.cat([logits, (even_product(features.to(weight), weight) + bias).to(logits)], 1)

    def apply(
        self, function: Respond, X: Any, indices: np.ndarray | None = None, represent: Represent | None = None
    ) -> np.ndarray:
        """Return ``function(module, tensor)`` for rows of X, represented as in the detector's training."""
        return self.detector._apply(function, X, indices)

    @property
    def network(self) -> nn.Module:
        """Return the detector's module."""
        return self.detector.module_

    def logits(self, module: nn.Module, rows: Tensor) -> Tensor:
        """Return the logits of rows."""
        return self.detector._class_logits(module, rows)

    def logits_and_features(self, module: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the features of rows."""
        if not self.layers:
            return self.detector._logits_and_features(module, rows)
        logits, parts = self._logits_and_parts(module, rows)
        return logits, torch.cat(parts, 1)

    def _logits_and_parts(self, module: nn.Module, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and the features of each layer that the user named."""
        logits, calls = watched(self.detector._class_logits, module, rows, self.layers)
        return logits, features_of(calls, self.layers, len(rows))

    def rotation_logits(self, module: nn.Module, rows: Tensor) -> Tensor:
        """Return the logits of the transformations, for each row under each transformation."""
        return self.detector._rotation_logits(module, rows)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights and the biases of the layer that computes the logits."""
        return self.detector._class_weights()
