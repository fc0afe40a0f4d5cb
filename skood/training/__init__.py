"""Train and score networks: one skorch net, one batch iterator, seeds, device, precision.

Names are imported on first use, so that what trains nothing does not load skorch, which takes a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batches import Represent as Represent
    from .batches import TensorBatches as TensorBatches
    from .batches import TrainingRows as TrainingRows
    from .batches import chunks as chunks
    from .batches import n_batches as n_batches
    from .batches import rows_a_chunk as rows_a_chunk
    from .batches import to_tensor as to_tensor
    from .device import autocast as autocast
    from .device import fitting as fitting
    from .device import resolve_device as resolve_device
    from .device import seeded as seeded
    from .net import DetectorNet as DetectorNet
    from .optim import OPTIMIZERS as OPTIMIZERS
    from .optim import SCHEDULES as SCHEDULES
    from .phases import Loss as Loss
    from .phases import Phase as Phase
    from .phases import Step as Step
    from .scoring import apply_in_blocks as apply_in_blocks
    from .scoring import precise as precise
    from .trainer import as_net as as_net
    from .trainer import reestimate_batch_norm as reestimate_batch_norm
    from .trainer import train as train
    from .trainer import trim as trim
    from .trainer import warn_interrupted as warn_interrupted

# Name -> the module that defines it. Type checkers cannot follow this; they read the imports above.
_PUBLIC = {
    "DetectorNet": "net",
    "Loss": "phases",
    "OPTIMIZERS": "optim",
    "Phase": "phases",
    "Represent": "batches",
    "SCHEDULES": "optim",
    "Step": "phases",
    "TensorBatches": "batches",
    "TrainingRows": "batches",
    "apply_in_blocks": "scoring",
    "as_net": "trainer",
    "autocast": "device",
    "chunks": "batches",
    "fitting": "device",
    "n_batches": "batches",
    "precise": "scoring",
    "reestimate_batch_norm": "trainer",
    "resolve_device": "device",
    "rows_a_chunk": "batches",
    "seeded": "device",
    "to_tensor": "batches",
    "train": "trainer",
    "trim": "trainer",
    "warn_interrupted": "trainer",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return __all__
