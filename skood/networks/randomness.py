"""The random numbers of a fit: of generators of its own, so that neither it nor the program disturbs the other."""

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
    """One generator for each device, all of one seed, made when they are first asked for."""

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


# The numbers of the fit that runs in a thread.
_of_thread = threading.local()


def _numbers() -> _Numbers | None:
    return getattr(_of_thread, "numbers", None)


def fit_generator(device: str | torch.device = "cpu") -> torch.Generator | None:
    """Return the generator from which this thread's fit draws; None, which is torch's own generator, outside a fit.

    Parameters
    ----------
    device : str or torch.device, default="cpu"
        The device on which numbers are drawn.

    Returns
    -------
    generator : torch.Generator or None
    """
    numbers, device = _numbers(), torch.device(device)
    # Tensors of the device "meta" hold no numbers.
    return None if numbers is None or device.type == "meta" else numbers.of(device)


def drawing(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return the arguments ``device`` and ``generator`` of torch's functions that draw, see `fit_generator`.

    All that draws during a training passes them: ``torch.randn(n, **drawing(rows.device))``.
    """
    return {"device": device, "generator": fit_generator(device)}


def drawn_so_far() -> dict[str, Tensor]:
    """Return where the generators of this thread's fit stand, by the names of their devices."""
    numbers = _numbers()
    return {} if numbers is None else {str(device): one.get_state() for device, one in numbers.generators.items()}


def draw_on(states: Mapping[str, Tensor]) -> None:
    """Have the generators of this thread's fit go on from where others stood, see `drawn_so_far`."""
    for device, state in states.items():
        generator = fit_generator(device)
        if generator is not None:
            generator.set_state(state)


def drawn_alone() -> bool:
    """Return whether this thread is in a block of `own_numbers` of which it was said that nothing else draws there."""
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
        What `drawn_alone` returns within the block: whether nothing draws from torch's own generators there.
    """
    before = _numbers()
    _of_thread.numbers = _Numbers(seed, alone)
    try:
        yield
    finally:
        _of_thread.numbers = before


class Dropout(nn.Dropout):
    """Drop values as torch's dropout does, by the numbers of the fit.

    Parameters
    ----------
    p : float, default=0.5
        Probability that a value is dropped.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Return the values; in training mode with zeros among them and the others scaled to keep the mean."""
        if not self.training or self.p == 0:
            return values
        generator = fit_generator(values.device)
        if generator is None or self.p == 1:
            return functional.dropout(values, self.p)
        # What torch does on a CPU, number for number.
        kept = torch.empty_like(values).bernoulli_(1 - self.p, generator=generator)
        return values * kept.div_(1 - self.p)


_DRAWS = {
    *(getattr(torch, name) for name in ("rand", "randn", "randint", "randperm", "normal")),
    *(getattr(torch, name) for name in ("bernoulli", "multinomial", "poisson")),
    *(getattr(Tensor, f"{name}_") for name in ("normal", "uniform", "bernoulli", "random", "exponential")),
    *(getattr(Tensor, f"{name}_") for name in ("log_normal", "geometric", "cauchy")),
    *(getattr(Tensor, name) for name in ("bernoulli", "multinomial")),
}
# These take no generator. Filling an empty tensor draws the same numbers.
_LIKE = {torch.rand_like: Tensor.uniform_, torch.randn_like: Tensor.normal_}


class _Interception(TorchFunctionMode):
    """Have all that draws by torch's functions draw from the fit's generators, such as torch's initial weights."""

    def __torch_function__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = tuple(args), dict(kwargs or {})
        if func in _LIKE:
            empty = torch.empty_like(*args, **kwargs)
            # Filled without a gradient, which empty tensors may be asked to have.
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
    """Run a block in which all that draws by torch's functions draws from the generators of `own_numbers`.

    It makes every call of torch a little slower. Trainings run `directly`.
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
    """Run a block without the interception around it; there only what asks `fit_generator` draws the fit's numbers."""
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
