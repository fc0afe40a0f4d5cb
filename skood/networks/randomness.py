"""Random numbers of a fit, from its own generators, so that fit and program do not disturb each other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class _Numbers:
    """Hold one generator for each device, all with the same seed, made at first use."""

    def __init__(self, seed: int, alone: bool):
        self.seed, self.alone = seed, alone
        self.generators: dict[torch.device, torch.Generator] = {}
        self.interception: _Interception | None = None

    def of(self, device: torch.device) -> torch.Generator:
        """Return the generator of a device."""
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]


# The generators of the fit that runs in this thread.
_of_thread = threading.local()


def _numbers() -> _Numbers | None:
    return getattr(_of_thread, "numbers", None)


def fit_generator(device: str | torch.device = "cpu") -> torch.Generator | None:
    """Return the generator of this thread's fit; outside a fit None, which torch takes for its global generator.

    Parameters
    ----------
    device : str or torch.device, default="cpu"
        The device on which numbers are drawn.

    Returns
    -------
    generator : torch.Generator or None
    """
    numbers, device = _numbers(), torch.device(device)
    # Tensors on the device "meta" hold no numbers.
    return None if numbers is None or device.type == "meta" else numbers.of(device)


def drawing(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return the arguments ``device`` and ``generator`` for torch's random functions, see `fit_generator`.

    All code that draws during a training passes them: ``torch.randn(n, **drawing(rows.device))``.
    """
    return {"device": device, "generator": fit_generator(device)}


def drawn_so_far() -> dict[str, Tensor]:
    """Return the states of the generators of this thread's fit, by the names of their devices."""
    numbers = _numbers()
    return {} if numbers is None else {str(device): one.get_state() for device, one in numbers.generators.items()}


def draw_on(states: Mapping[str, Tensor]) -> None:
    """Set the states of the generators of this thread's fit to those of `drawn_so_far`."""
    for device, state in states.items():
        generator = fit_generator(device)
        if generator is not None:
            generator.set_state(state)


def drawn_alone() -> bool:
    """Return whether this thread is in a block of `own_numbers` with ``alone=True``."""
    numbers = _numbers()
    return numbers is not None and numbers.alone


@contextlib.contextmanager
def own_numbers(seed: int, alone: bool = False) -> Iterator[None]:
    """Run a block in which `fit_generator` returns generators of this seed, in this thread only.

    Parameters
    ----------
    seed : int
        The seed.
    alone : bool, default=False
        Whether nothing within the block draws from torch's global generators; `drawn_alone` returns it.
    """
    before = _numbers()
    _of_thread.numbers = _Numbers(seed, alone)
    try:
        yield
    finally:
        _of_thread.numbers = before


class Dropout(nn.Dropout):
    """Drop values as torch's dropout does, by the generator of the fit.

    Parameters
    ----------
    p : float, default=0.5
        Probability that a value is dropped.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Return the values; in training mode some are set to zero, and the others scaled to keep the mean."""
        if not self.training or self.p == 0:
            return values
        generator = fit_generator(values.device)
        if generator is None or self.p == 1:
            return functional.dropout(values, self.p)
        # The same numbers as torch's dropout on a CPU.
        kept = torch.empty_like(values).bernoulli_(1 - self.p, generator=generator)
        return values * kept.div_(1 - self.p)


_DRAWS = {
    *(getattr(torch, name) for name in ("rand", "randn", "randint", "randperm", "normal")),
    *(getattr(torch, name) for name in ("bernoulli", "multinomial", "poisson")),
    *(getattr(Tensor, f"{name}_") for name in ("normal", "uniform", "bernoulli", "random", "exponential")),
    *(getattr(Tensor, f"{name}_") for name in ("log_normal", "geometric", "cauchy")),
    *(getattr(Tensor, name) for name in ("bernoulli", "multinomial")),
}
# These functions take no generator. Filling an empty tensor draws the same numbers.
_LIKE = {torch.rand_like: Tensor.uniform_, torch.randn_like: Tensor.normal_}


class _Interception(TorchFunctionMode):
    """Make all of torch's random functions use the fit's generators, those for initial weights included."""

    def __torch_function__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = tuple(args), dict(kwargs or {})
        if func in _LIKE:
            empty = torch.empty_like(*args, **kwargs)
            # Without gradients: a tensor made with requires_grad=True cannot be filled in place otherwise.
            with torch.no_grad():
                return _LIKE[func](empty, generator=fit_generator(empty.device))
        if kwargs.get("generator") is None and (func in _DRAWS or "generator" in kwargs):
            given = [kwargs.get("device"), *(value.device for value in (*args, *kwargs.values()) if _is_tensor(value))]
            device = next((device for device in given if device is not None), "cpu")
            kwargs["generator"] = fit_generator(device)
        return func(*args, **kwargs)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


@contextlib.contextmanager
def intercepted() -> Iterator[None]:
    """Run a block in which all of torch's random functions use the generators of `own_numbers`.

    This makes every call of torch a little slower, so training runs `directly`.
    """
    numbers, interception = _numbers(), _Interception()
    assert numbers is not None
    with interception:
        numbers.interception = interception
        try:
            yield
        finally:
            numbers.interception = None


@contextlib.contextmanager
def directly() -> Iterator[None]:
    """Run a block without interception: only code that calls `fit_generator` uses the fit's generators."""
    numbers = _numbers()
    interception = None if numbers is None else numbers.interception
    if numbers is None or interception is None:
        yield
        return
    interception.__exit__(None, None, None)
    numbers.interception = None
    try:
        yield
    finally:
        interception.__enter__()
        numbers.interception = interception
