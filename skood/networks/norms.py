"""Give a module one normalisation layer for each of two tasks, or its own normalisation beside shared weights."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

CLASS_TASK, AUXILIARY_TASK = 0, 1

NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
)


class TaskNorm(nn.Module):
    """Normalise by one of two layers, one for each task; `task` chooses the layer.

    This is the conditional normalisation of Ahmed & Courville (2020), appendix C: each task has its own scale, shift
    and running statistics.

    Parameters
    ----------
    norm : torch.nn.Module
        A normalisation layer; both tasks begin with a copy of it.
    """

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.tasks = nn.ModuleList([copy.deepcopy(norm), copy.deepcopy(norm)])
        self.current = CLASS_TASK

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the current task's layer."""
        return self.tasks[self.current](x)


def separate_norms(module: nn.Module) -> nn.Module:
    """Give each of two tasks its own normalisation layers, in place.

    Parameters
    ----------
    module : torch.nn.Module
        The module. Every batch, instance, group, layer or RMS normalisation in it that has parameters or running
        statistics becomes a `TaskNorm`. The others have nothing to separate.

    Returns
    -------
    module : torch.nn.Module
        The same module, or its `TaskNorm` if it is a normalisation layer itself.
    """
    return _with_separate_norms(module, {})


def _with_separate_norms(module: nn.Module, made: dict[nn.Module, TaskNorm]) -> nn.Module:
    """Return the module with separate norms; ``made`` maps layers to replacements, so that a shared layer stays one."""
    if isinstance(module, NORMS) and module.state_dict():
        if module not in made:
            made[module] = TaskNorm(module)
        return made[module]
    if not isinstance(module, TaskNorm):
        # named_children would leave out the second name of a layer that has two.
        for name, child in list(module._modules.items()):
            if child is not None:
                module.register_module(name, _with_separate_norms(child, made))
    return module


def join_norms(module: nn.Module) -> nn.Module:
    """Undo `separate_norms`, in place: the layers of the classification task serve both.

    Parameters
    ----------
    module : torch.nn.Module
        The module, with any number of `TaskNorm` layers.

    Returns
    -------
    module : torch.nn.Module
        The same module, or a layer of it if it is a `TaskNorm` itself.
    """
    if isinstance(module, TaskNorm):
        return module.tasks[CLASS_TASK]
    for name, child in list(module._modules.items()):
        if child is not None:
            module.register_module(name, join_norms(child))
    return module


@contextlib.contextmanager
def task(module: nn.Module, number: int) -> Iterator[None]:
    """Set every `TaskNorm` in a module to one task within this context; afterwards each is as it was before.

    Parameters
    ----------
    module : torch.nn.Module
        The module, with any number of `TaskNorm` layers.
    number : {0, 1}
        The task: 0 is classification, 1 the auxiliary task.
    """
    # Each layer is restored to its own task, not to a default, because contexts may be nested.
    before = [(layer, layer.current) for layer in module.modules() if isinstance(layer, TaskNorm)]
    try:
        for layer, _ in before:
            layer.current = number
        yield
    finally:
        for layer, current in before:
            layer.current = current


def own_norms(module: nn.Module, names: Sequence[str] | None = None) -> list[nn.Module]:
    """Replace the tensors of a module's normalisation layers by copies, in place.

    After `share`, the normalisation layers can then be trained without changing those of the original module.

    Parameters
    ----------
    module : torch.nn.Module
        The module, which holds tensors of another one.
    names : sequence of str or None, default=None
        Names of the layers that may get copies; None means all layers.

    Returns
    -------
    norms : list of torch.nn.Module
        The batch, instance, group, layer and RMS normalisations that got copies of their parameters and statistics.
        Their parameters require gradients.
    """
    norms: list[nn.Module] = [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, NORMS) and layer.state_dict() and (names is None or name in names)
    ]
    # One memo for all copies, so that norms that have a tensor in common still have it in common.
    copies: dict[int, object] = {}
    for norm in norms:
        for part in norm.modules():
            part._parameters.update(copy.deepcopy(part._parameters, copies))
            part._buffers.update(copy.deepcopy(part._buffers, copies))
        norm.requires_grad_(True)
    return norms
