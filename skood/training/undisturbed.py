"""Shield fits and scores from a program's global settings of torch: default dtype, default device and autocast."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DEVICES = ("cpu", "cuda", "mps")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Run a block that neither uses nor changes the caller's default dtype, default device and autocast.

    All threads of a process share the default dtype. So it is not changed: only this thread does not use it.
    """
    with contextlib.ExitStack() as stack:
        for kind in _DEVICES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(_SinglePrecision())
        yield


def shielded(method: Callable) -> Callable:
    """Return a method that runs `undisturbed`."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with undisturbed():
            return method(*args, **kwargs)

    return wrapped


# Functions that make new tensors. They must be called with the right dtype, on which random numbers depend.
_MAKING = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace}
# Functions that make tensors of Python numbers; integers stay integers.
_OF_NUMBERS = {torch.tensor, torch.as_tensor, torch.full, torch.arange, torch.scalar_tensor}
_CONVERTING = {getattr(Tensor, name) for name in ("to", "type", "type_as", "double", "half", "bfloat16")}


class _SinglePrecision(TorchFunctionMode):
    """Make torch use float32 wherever it would use the default dtype."""

    def __torch_function__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _MAKING and kwargs.get("dtype") is None:
            kwargs["dtype"] = torch.float32
        result = func(*args, **kwargs)
        default = torch.get_default_dtype()
        if not isinstance(result, Tensor) or result.dtype != default or func in _CONVERTING:
            return result
        given = list(_flat([*args, *kwargs.values()]))
        if any(isinstance(value, torch.dtype) or _type_name(value) == _type_name(result) for value in given):
            # The dtype was asked for, or is that of an argument.
            return result
        if func in _OF_NUMBERS:
            return func(*args, **kwargs | {"dtype": torch.float32})
        if default.itemsize < torch.float32.itemsize:
            # Integers are converted before, because the shorter default dtype would round them.
            args = [value.float() if isinstance(value, Tensor) and _is_whole(value) else value for value in args]
            return func(*args, **kwargs)
        return result.float()


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _type_name(value: Any) -> str:
    """Return the name of the dtype of a tensor or an array; an empty text for anything else."""
    return str(getattr(value, "dtype", "")).removeprefix("torch.")


def _is_whole(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
