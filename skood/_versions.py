"""Print what a bug report needs: versions of skood and of the packages that it uses."""

from __future__ import annotations

import os
import platform
from importlib import metadata

# Packages that skood needs, and packages that it uses if they are installed.
_NEEDED = ("numpy", "scipy", "scikit-learn", "torch", "skorch", "pandas", "joblib", "tqdm", "filelock")
_OPTIONAL = (
    *("matplotlib", "pillow", "skrub", "pyarrow", "polars", "pyod", "captum", "onnx", "onnxscript", "onnxruntime"),
    *("skl2onnx", "skops", "safetensors", "dask", "distributed", "optuna", "torchvision", "timm"),
)


def show_versions() -> None:
    """Print versions, threads and devices, to be pasted into a bug report.

    Examples
    --------
    >>> import skood
    >>> skood.show_versions()  # doctest: +ELLIPSIS
    skood         ...
    Python        ...
    """
    import torch

    from . import __version__

    facts = {"skood": __version__, "Python": platform.python_version(), "platform": platform.platform()}
    facts |= {name: _version(name) or "not installed" for name in _NEEDED}
    facts |= {name: version for name in _OPTIONAL if (version := _version(name)) is not None}
    facts["processors"] = f"{os.cpu_count()}; threads of torch: {torch.get_num_threads()}"
    facts["devices"] = ", ".join(["cpu", *_accelerators(torch)])
    print("\n".join(f"{name:13} {fact}" for name, fact in facts.items()))


def _version(name: str) -> str | None:
    """Return the version of an installed distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _accelerators(torch) -> list[str]:
    """Name the devices beside the CPU that torch finds."""
    cards = [f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())]
    return cards + (["mps"] if torch.backends.mps.is_available() else [])
