"""Write and read what a `ResidualAdapterDetector` adds to its backbone, without pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from ..encoders.trained import fingerprint

if TYPE_CHECKING:
    from .residual_adapters import ResidualAdapterDetector

# Settings on which the tensors of the adapters, or what is computed with them, depend: they must be the same.
SETTINGS = ("adaptation", "n_adapters", "adapter_rank", "adapter_gain", "batch_norm", "layer", "head_size")
# Other attributes of a fitted detector that scoring needs.
ATTRIBUTES = ("image_shape_", "n_features_in_", "_uint8_images", "_pixel_range")
_NO_ADAPTERS = "source is nothing that save_adapters or adapter_state gave."


def state_of(detector: ResidualAdapterDetector) -> dict[str, np.ndarray]:
    """Return everything that `load_adapters` needs besides the backbone."""
    settings = asdict(detector._settings)
    attributes = {name: getattr(detector, name) for name in ATTRIBUTES}
    about = {
        "backbone": fingerprint(detector.backbone_),
        "scaling": scaling_of(detector.scaler_),
        "settings": {name: settings[name] for name in SETTINGS},
        "fitted": attributes | {"score_type_": settings["score_type"], "_pads": settings["pads"]},
    }
    if hasattr(detector, "feature_names_in_"):
        about["feature_names_in"] = detector.feature_names_in_.tolist()
    module = detector.module_.state_dict()
    state = {f"module.{name}": module[name].cpu().numpy().copy() for name in own_tensors(detector.module_)}
    state |= {"offset": np.float64(detector.offset_), "training_scores": detector.training_scores_.copy()}
    # json does not know numpy's integers, which parameters may be.
    return state | {"about": np.array(json.dumps(about, default=int))}


def read(source: str | PathLike | Mapping[str, np.ndarray]) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a file of `save_adapters`, or of a dict from `adapter_state`, and their description.

    Raises
    ------
    ValueError
        If the source is neither.
    """
    if not isinstance(source, Mapping):
        try:
            stored = np.load(Path(source), allow_pickle=False)
        except (ValueError, EOFError, BadZipFile) as error:
            raise ValueError(_NO_ADAPTERS) from error
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError(_NO_ADAPTERS)
        with stored:
            source = dict(stored)
    if "about" not in source:
        raise ValueError(_NO_ADAPTERS)
    return source, json.loads(str(source["about"]))


def scaling_of(scaler) -> list | None:
    """Return zeros and ones as a scaler transforms them, or None if there is no scaler."""
    # Scalers are linear in each column, so these two rows tell whether two scalers are the same.
    if scaler is None:
        return None
    return scaler.transform(np.repeat([[0.0], [1.0]], scaler.n_features_in_, axis=1)).tolist()


def own_tensors(module) -> list[str]:
    """Return the names of the entries of a network's state that are not its backbone's."""
    # Tensors are compared by identity: adapters stand beside layers that share the backbone's own tensors.
    (backbone,) = module.stands_on
    shared = {id(tensor) for tensor in [*backbone.parameters(), *backbone.buffers()]}
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in tensors if id(tensor) not in shared]
