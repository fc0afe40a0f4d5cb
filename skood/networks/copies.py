"""Copy modules, and what holds them, also where a module keeps what an earlier run computed."""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Kind = TypeVar("Kind")


def deep_copy(value: Kind, memo: dict[int, Any] | None = None) -> Kind:
    """Return a deep copy of a module, or of an object that holds modules.

    torch copies no tensor that was computed with gradients. But modules keep such tensors: their last activations, or
    the weights that `torch.nn.utils.weight_norm` and ``spectral_norm`` compute anew in each run. In the copy they are
    numbers without the history of their computation.

    Parameters
    ----------
    value : object
        What is copied.
    memo : dict or None, default=None
        Maps ids of objects to their copies, as that of `copy.deepcopy`.

    Returns
    -------
    value : object
        The copy.
    """
    # The weights of a traced module are cloned: with gradients, the clones would be results, which cannot be trained.
    with WithoutHistory(), torch.no_grad():
        copied = copy.deepcopy(value, memo)
    if isinstance(value, nn.Module) and any(isinstance(part, torch.jit.ScriptModule) for part in value.modules()):
        for own, given in zip(cast(nn.Module, copied).parameters(), value.parameters(), strict=True):
            own.requires_grad_(given.requires_grad)
    return copied


class WithoutHistory(TorchFunctionMode):
    """Within this context, `copy.deepcopy` copies tensors that were computed, as numbers without their history."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run a function of torch."""
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **kwargs or {})
