"""Keep what a program does with torch from the fits and the scores within it: its default type, device and autocast."""

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
    """Run a block that neither heeds nor changes the caller's default dtype, default device and autocast.

    Torch keeps the default dtype for all threads of a process: it stays what it is, and this thread is kept from it.
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


# What makes tensors of numbers that are drawn, or of none: the type decides what is drawn.
_MAKING = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace}
# What makes tensors of Python's numbers, and whole ones of whole numbers.
_OF_NUMBERS = {torch.tensor, torch.as_tensor, torch.full, torch.arange, torch.scalar_tensor}
_CONVERTING = {getattr(Tensor, name) for name in ("to", "type", "type_as", "double", "half", "bfloat16")}


class _SinglePrecision(TorchFunctionMode):
    """Have torch make float32 wherever it would make the default type."""

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
            # The type was asked for, or is that of what was computed with.
            return result
        if func in _OF_NUMBERS:
            return func(*args, **kwargs | {"dtype": torch.float32})
        if default.itemsize < torch.float32.itemsize:
            # Of whole numbers, which a short type rounds.
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
    """Return the name of the type of a tensor's or an array's numbers; empty where it has none."""
    return str(getattr(value, "dtype", "")).removeprefix("torch.")


def _is_whole(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
