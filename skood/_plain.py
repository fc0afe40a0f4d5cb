"""Turn modules and tensors into arrays and back, for files without code: skops reads and writes arrays, not tensors."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .networks.probe import LayerHooks

__all__ = ["PlainObject", "PlainTensor", "made_plain", "restored"]

_CONTAINERS = (dict, OrderedDict, list, tuple)


class PlainTensor:
    """A tensor as an array."""

    def __init__(self, tensor: Tensor):
        values = tensor.detach().cpu()
        self.dtype = str(tensor.dtype).removeprefix("torch.")
        # numpy has no bfloat16; float32 can hold all of its numbers.
        self.values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        self.is_parameter, self.requires_grad = isinstance(tensor, nn.Parameter), tensor.requires_grad
        # How convolutions round depends on the order of their weights in memory.
        self.strides = values.stride()

    def restored(self) -> Tensor:
        """Return the tensor, on the CPU."""
        dtype = getattr(torch, self.dtype)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{self.dtype!r} is not a dtype of tensors.")
        tensor = torch.tensor(np.ascontiguousarray(self.values), dtype=dtype, device="cpu").reshape(self.values.shape)
        if _is_dense(tensor.shape, self.strides):
            tensor = torch.empty_strided(tensor.shape, self.strides, dtype=dtype, device="cpu").copy_(tensor)
        if self.is_parameter:
            return nn.Parameter(tensor, requires_grad=self.requires_grad)
        return tensor.requires_grad_(self.requires_grad)


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Return whether the numbers of a tensor fill its part of memory without gaps."""
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and stride != expected:
            return 0 in shape
        expected *= size
    return True


class PlainObject:
    """The class and the attributes of an object that holds tensors."""

    def __init__(self, kind: Any, attributes: Any):
        self.kind, self.attributes = kind, attributes


def made_plain(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Replace tensors and modules by plain ones, within dicts, lists and tuples, too.

    An object with a true attribute ``_holds_modules`` is replaced like a module. An object that is held twice, such as
    a weight that layers share, stays one object.
    """
    memo = {} if memo is None else memo
    if isinstance(value, LayerHooks):
        value = value.own
    if id(value) in memo:
        return memo[id(value)][0]
    if isinstance(value, Tensor):
        plain: Any = PlainTensor(value)
    elif isinstance(value, nn.Module) or getattr(value, "_holds_modules", False):
        # Entered before its attributes are replaced: one of them may hold the module itself.
        plain = PlainObject(type(value), None)
        memo[id(value)] = plain, value
        plain.attributes = made_plain(value.__getstate__(), memo)
    elif type(value) in (dict, OrderedDict):
        plain = type(value)((key, made_plain(one, memo)) for key, one in value.items())
    elif type(value) in (list, tuple):
        plain = type(value)(made_plain(one, memo) for one in value)
    else:
        return value
    # The value is held, too: once freed, its id could be given to another object.
    memo[id(value)] = plain, value
    return plain


def restored(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Undo `made_plain`; return values without plain objects as they are."""
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, PlainTensor):
        memo[id(value)] = value.restored()
    elif isinstance(value, PlainObject):
        made = memo[id(value)] = value.kind.__new__(value.kind)
        attributes = restored(value.attributes, memo)
        if hasattr(made, "__setstate__"):
            made.__setstate__(attributes)
        else:
            vars(made).update(attributes)
    elif type(value) in (dict, OrderedDict):
        return type(value)((key, restored(one, memo)) for key, one in value.items())
    elif type(value) in (list, tuple):
        return type(value)(restored(one, memo) for one in value)
    else:
        return value
    return memo[id(value)]
