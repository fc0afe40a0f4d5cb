"""Write and read what a `ResidualAdapterDetector` adds to its backbone, without pickles."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._npz import open_npz
from .._whole_file import write_whole
from ..encoders.trained import fingerprint

if TYPE_CHECKING:
    from .residual_adapters import ResidualAdapterDetector

# Settings on which the shapes or the use of the adapters' tensors depend; the loading detector must have the same.
SETTINGS = ("adaptation", "n_adapters", "adapter_rank", "adapter_gain", "batch_norm", "layer", "head_size")
# Other attributes of a fitted detector that scoring needs.
ATTRIBUTES = ("image_shape_", "n_features_in_", "_uint8_images", "_pixel_range")
# Version of the description; files without one have version 1.
_VERSION = 1


def state_of(detector: ResidualAdapterDetector) -> dict[str, np.ndarray]:
    """Return all that `load_adapters` needs besides the backbone."""
    settings = asdict(detector._settings)
    attributes = {name: getattr(detector, name) for name in ATTRIBUTES}
    about = {
        "version": _VERSION,
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
    # Parameters may be numbers of numpy, which json cannot write.
    return state | {"about": np.array(json.dumps(about, default=lambda number: number.item()))}


def write(path: str | PathLike, state: dict[str, np.ndarray]) -> None:
    """Write what `state_of` returned, as safetensors if the file's name ends in ``.safetensors``, else as ``.npz``.

    Raises
    ------
    ImportError
        If safetensors is needed but not installed.
    """
    if not _is_safetensors(path):
        content = io.BytesIO()
        np.savez(content, **state)  # type: ignore[arg-type]
        write_whole(Path(path), content.getvalue())
        return
    library = _safetensors()
    about = str(state["about"])
    # A transposed array would be written in another order than that in which it is read.
    tensors = {name: np.array(values, order="C") for name, values in state.items() if name != "about"}
    write_whole(Path(path), library.numpy.save(tensors, {"about": about, "sha256": _digest(about, tensors)}))


def read(source: str | PathLike | Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the description from a file of `save_adapters` or a dict of `adapter_state`.

    Nothing in the source is trusted: names, types, shapes and values that `state_of` does not write are refused.

    Raises
    ------
    ValueError
        If the source is not what `state_of` returns; the message names the file and what is wrong.
    """
    if isinstance(source, Mapping):
        return _checked(dict(source), "the adapters")
    if _is_safetensors(source):
        return _checked(_read_safetensors(source), str(source))
    with open_npz(source) as arrays:
        return _checked({name: arrays[name] for name in arrays.names}, str(source))


def _is_safetensors(path: str | PathLike) -> bool:
    return Path(path).suffix == ".safetensors"


def _safetensors() -> Any:
    """Import and return safetensors, or raise an ImportError that says how to install it."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "files that end in .safetensors need the package safetensors: pip install 'skood[files]'."
        ) from error
    return safetensors


def _read_safetensors(path: str | PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file, or raise a ValueError that names it if it is damaged."""
    library = _safetensors()
    # A missing file must raise its own FileNotFoundError.
    with Path(path).open("rb"):
        pass
    try:
        with library.safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors and numpy each raise their own for damaged bytes
        raise ValueError(
            f"{path}: not a file of safetensors, or damaged ({' '.join(str(error).split())[:150]})."
        ) from error
    text = about.get("about", "")
    # The format itself has no checksum.
    if about.get("sha256") != _digest(text, tensors):
        raise ValueError(f"{path}: not what save_adapters or adapter_state gave, or damaged: the checksum differs.")
    return tensors | {"about": np.array(text)}


def _digest(about: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Return a checksum of a description and of arrays."""
    digest = sha256(about.encode())
    for name in sorted(tensors):
        values = tensors[name]
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _checked(source: dict[str, Any], where: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Check that a source is what `state_of` returns, and return its arrays and its description."""

    def need(holds: Any, what: str) -> None:
        if not holds:
            raise ValueError(f"{where}: not what save_adapters or adapter_state gave: {what}.")

    missing = [name for name in ("about", "offset", "training_scores") if name not in source]
    need(not missing, f"there is no {' and no '.join(missing)}")
    for name, value in source.items():
        need(name in ("about", "offset", "training_scores") or str(name).startswith("module."), f"{name!r} is unknown")
        need(isinstance(value, (np.ndarray, np.generic)), f"{name!r} is no array")
        if name != "about":
            need(value.dtype.kind in "fiu", f"{name!r} holds {value.dtype} and no numbers")
            need(np.isfinite(value).all(), f"{name!r} holds NaN or infinity")
        if name.endswith("running_var"):
            need((value >= 0).all(), f"{name!r} holds negative variances")
    need(np.ndim(source["offset"]) == 0, "offset is no single number")
    scores = source["training_scores"]
    need(scores.ndim == 1 and len(scores) and (np.diff(scores) >= 0).all(), "training_scores are not in order")
    about = source["about"]
    need(about.ndim == 0 and about.dtype.kind == "U", "about is no text")
    try:
        about = json.loads(str(about))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not what save_adapters or adapter_state gave: about is no JSON text.") from error
    largest = sum(np.size(value) for name, value in source.items() if name.startswith("module."))
    for what, holds in _rules(about, largest):
        need(holds, what)
    # "radial" scores are negative distances.
    radial = about["fitted"]["score_type_"] == "radial"
    need(not radial or scores[-1] <= 0, "score_type_ is 'radial', but training_scores are positive")
    return source, about


def _rules(about: Any, largest: int) -> Iterator[tuple[str, bool]]:
    """Yield pairs of a possible fault and whether the description is free of it; stop reading at the first fault.

    ``largest`` is the number of weights of the module, which no size can exceed.
    """

    def is_size(value: Any) -> bool:
        return type(value) is int and 1 <= value <= largest

    yield "about is no dict", isinstance(about, dict)
    yield f"its version is {about.get('version', 1)!r}, not {_VERSION}", about.get("version", 1) == _VERSION
    unknown = {*about} - {"version", "backbone", "scaling", "settings", "fitted", "feature_names_in"}
    yield f"about has the unknown entries {sorted(unknown)}", not unknown
    yield "backbone is no fingerprint", isinstance(about.get("backbone"), str)
    yield "scaling is not two rows of numbers", "scaling" in about and _is_scaling(about["scaling"])
    settings = about.get("settings")
    yield "settings are not the expected ones", isinstance(settings, dict) and {*settings} == {*SETTINGS}
    sizes = {name: settings[name] for name in ("n_adapters", "adapter_rank", "head_size")}
    for name, value in sizes.items():
        allowed = {"adapter_rank": (None,), "head_size": (None, "auto")}.get(name, ())
        yield f"{name}={value!r} is no possible size", value in allowed or is_size(value)
    yield "adaptation is not 'adapters'", settings["adaptation"] == "adapters"
    gain = settings["adapter_gain"]
    yield f"adapter_gain={gain!r} is no positive number", type(gain) in (int, float) and 0 < gain < math.inf
    yield "batch_norm is unknown", settings["batch_norm"] in ("frozen", "affine", "own")
    yield "layer is no name", settings["layer"] is None or isinstance(settings["layer"], str)
    fitted = about.get("fitted")
    yield "fitted is no dict", isinstance(fitted, dict)
    unknown = {*fitted} - {*ATTRIBUTES, "score_type_", "_pads"}
    yield f"fitted has the unknown entries {sorted(unknown)}", not unknown
    yield "score_type_ is unknown", fitted.get("score_type_") in ("radial", "probability")
    yield "_pads is no truth value", type(fitted.get("_pads")) is bool
    yield "_uint8_images is no truth value", type(fitted.get("_uint8_images", False)) is bool
    yield "_pixel_range is unknown", fitted.get("_pixel_range") in (None, "[0, 1]", "[0, 255]")
    n_features, shape = fitted.get("n_features_in_"), fitted.get("image_shape_")
    yield "n_features_in_ is no positive integer", type(n_features) is int and n_features > 0
    if shape is None:
        images = [name for name in ("_pads", "_uint8_images", "_pixel_range") if fitted.get(name)]
        yield f"{images} are of images, and there is no image_shape_", not images
    else:
        whole = isinstance(shape, list) and len(shape) == 3 and all(type(size) is int and size > 0 for size in shape)
        yield "image_shape_ is not that of n_features_in_ pixels", whole and math.prod(shape) == n_features
    names = about.get("feature_names_in")
    if names is not None:
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        yield "feature_names_in does not name each feature", named and len({*names}) == len(names) == n_features


def _is_scaling(scaling: Any) -> bool:
    if scaling is None:
        return True
    rows = isinstance(scaling, list) and len(scaling) == 2 and all(isinstance(row, list) for row in scaling)
    return rows and all(type(value) in (int, float) and math.isfinite(value) for row in scaling for value in row)


def scaling_of(scaler) -> list | None:
    """Return the rows of zeros and of ones after scaling, which identify a scaler; None without a scaler."""
    # Scalers are linear in each column, so two that agree on these rows agree everywhere.
    if scaler is None:
        return None
    # scikit-learn's set_config or set_output may turn the result into a DataFrame.
    return np.asarray(scaler.transform(np.repeat([[0.0], [1.0]], scaler.n_features_in_, axis=1))).tolist()


def own_tensors(module) -> list[str]:
    """Return the names of those entries of a network's state that do not belong to its backbone."""
    # Compared by identity, because the layers beside adapters share the backbone's tensors.
    (backbone,) = module.stands_on
    shared = {id(tensor) for tensor in [*backbone.parameters(), *backbone.buffers()]}
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in tensors if id(tensor) not in shared]
