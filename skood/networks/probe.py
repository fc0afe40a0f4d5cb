"""Find out which layers of a torch module run, and read their inputs and outputs. The module stays as it is."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .copies import deep_copy
from .residual_adapter import adapters_of


class Call(NamedTuple):
    """Record one call of a layer.

    Parameters
    ----------
    name : str
        Name of the layer.
    taken : object
        The first argument of the call.
    given : object
        The output; None if the call was recorded as it began.
    """

    name: str
    taken: Any
    given: Any


@contextlib.contextmanager
def recorded(
    module: nn.Module,
    *,
    takes: Iterable[str] = (),
    gives: Iterable[str] = (),
    keep: Callable[[Any], Any] | None = None,
    copy_taken: bool = False,
) -> Iterator[list[Call]]:
    """Record the calls of some layers within this context, in the order in which they happen.

    Parameters
    ----------
    module : torch.nn.Module
        The module whose layers are watched.
    takes : iterable of str, default=()
        Names of layers whose calls are recorded as they begin; "" is the module itself.
    gives : iterable of str, default=()
        Names of layers whose calls are recorded as they end.
    keep : callable or None, default=None
        Maps a layer's output to the value to record. None records the output itself, which later layers may change in
        place.
    copy_taken : bool, default=False
        Whether a tensor that a layer takes is copied; else later layers may change it in place.

    Returns
    -------
    calls : context manager giving a list of Call
        The calls, added to the list while the module runs. Runs of the same module in other threads are not recorded.
    """
    calls: list[Call] = []
    thread = threading.get_ident()
    # Hooks work with every layer of any module, however it is built. The stack removes them even if the module fails.
    with contextlib.ExitStack() as hooks:
        for name in takes:
            layer = module.get_submodule(name)

            # The name is a default value, because a function reads a loop's variable when it runs, not when it is made.
            # A hook that another thread removes at this moment is still called here once, without ``kwargs``.
            def begun(_: nn.Module, args: tuple, kwargs: dict | None = None, name: str = name) -> None:
                if threading.get_ident() == thread:
                    calls.append(Call(name, _first(args, kwargs or {}, copy_taken), None))

            hooks.enter_context(_hooked(layer, "_forward_pre_hooks", begun))
        for name in gives:
            layer = module.get_submodule(name)

            def ended(_: nn.Module, args: tuple, *rest: Any, name: str = name) -> None:
                if threading.get_ident() == thread:
                    kwargs, output = rest
                    calls.append(Call(name, _first(args, kwargs, copy_taken), output if keep is None else keep(output)))

            hooks.enter_context(_hooked(layer, "_forward_hooks", ended))
        yield calls


class LayerHooks(OrderedDict):
    """The hooks of a layer while it is recorded: its own ones, and those that record.

    Another thread may copy or pickle the layer at this moment. What it makes has the layer's own hooks only: those that
    record are of a running call, and would go on collecting what the copy computes. So torch's dict of a layer's hooks
    is not changed; a dict of this type takes its place until nobody records.

    Parameters
    ----------
    own : OrderedDict
        The layer's dict.
    """

    def __init__(self, own: OrderedDict) -> None:
        super().__init__()
        self.own, self.n_recording = own, 0
        for key, value in own.items():
            super().__setitem__(key, value)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """Return what pickles and copies are made of: the layer's dict."""
        return self.own.__reduce_ex__(protocol)  # type: ignore[return-value]

    # A network may add and remove hooks of its own while it runs.

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.own[key] = value

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        self.own.pop(key, None)

    def begin(self, hook: Callable) -> None:
        """Add a hook that records; it is its own key."""
        super().__setitem__(hook, hook)
        self.n_recording += 1

    def end(self, hook: Callable) -> bool:
        """Remove a hook that records; return whether it was the last one."""
        if hook in self:
            super().__delitem__(hook)
        self.n_recording -= 1
        return self.n_recording == 0


_HOOKING = threading.Lock()
if hasattr(os, "register_at_fork"):
    # A process that is forked while another thread holds the lock would wait for ever.
    os.register_at_fork(before=_HOOKING.acquire, after_in_parent=_HOOKING.release, after_in_child=_HOOKING.release)


@contextlib.contextmanager
def _hooked(layer: nn.Module, kind: str, hook: Callable) -> Iterator[None]:
    """Run a block in which a layer calls a hook with its keyword arguments.

    ``kind`` is the name of torch's dict of hooks, "_forward_pre_hooks" or "_forward_hooks".
    """
    # torch reads first which hooks there are, and then which of them take keyword arguments.
    names, used = (f"{kind}_with_kwargs", kind), {}
    with _HOOKING:
        for name in names:
            hooks = vars(layer)[name]
            if not isinstance(hooks, LayerHooks):
                hooks = vars(layer)[name] = LayerHooks(hooks)
            hooks.begin(hook)
            used[name] = hooks
    try:
        yield
    finally:
        with _HOOKING:
            for name in reversed(names):
                if used[name].end(hook) and vars(layer)[name] is used[name]:
                    vars(layer)[name] = used[name].own


def _first(args: tuple, kwargs: dict, copied: bool) -> Any:
    """Return the first argument of a call, or None if it has none; a tensor as a copy, if ``copied``."""
    first = next(iter((*args, *kwargs.values())), None)
    return first.clone() if copied and isinstance(first, Tensor) else first


# --------------------------------------------------------------------------------------------------------------------
# Dry runs


def dry_run(module: nn.Module, rows: Tensor) -> Any:
    """Return a module's output for rows, in evaluation mode and without gradients.

    Parameters
    ----------
    module : torch.nn.Module
        The module; afterwards it is in the mode in which it was before.
    rows : Tensor
        The rows; they are not modified.

    Returns
    -------
    result : object
        The output: a Tensor for most modules.
    """
    was_training = module.training
    try:
        with torch.no_grad():
            # A copy, because the first layer may work in place.
            return module.eval()(rows.clone())
    finally:
        module.train(was_training)


def two_rows(module: nn.Module, in_shape: tuple[int, ...]) -> Tensor:
    """Return a row of zeros and a row of ones on a module's device.

    A module that compares rows, as batch normalisation does, needs at least two. They differ, because a module's
    outputs for zeros alone may all be equal.

    Parameters
    ----------
    module : torch.nn.Module
        The module whose device is used.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).

    Returns
    -------
    rows : Tensor of float32 of shape (2, *in_shape)
        All values of a row share one memory location; clone the rows before anything works on them in place.
    """
    device = next(module.parameters(), torch.empty(0)).device
    rows = torch.linspace(0, 1, 2, dtype=torch.float32, device=device)
    return rows.reshape(2, *[1] * len(in_shape)).expand(2, *in_shape)


def varied_rows(module: nn.Module, in_shape: tuple[int, ...]) -> Tensor:
    """Return 16 rows of normal noise, always the same, on a module's device and of its dtype.

    torch's global generator stays as it is.
    """
    parameter = next(module.parameters(), torch.empty(0))
    # Many and varied rows: if all logits of a few rows were positive, a ReLU after them would pass unnoticed.
    rows = torch.randn(16, *in_shape, generator=torch.Generator().manual_seed(0))
    return rows.to(parameter.device, parameter.dtype)


# Of a module that `torch.jit` made.
NO_LAYERS_SHOWN = "a scripted or traced module does not show its layers; pass the original module"


class NoTensorError(ValueError):
    """A network takes the rows, but what is wanted of it is no tensor; the message goes on from its name."""


def one_tensor(output: Any) -> Tensor:
    """Return a network's output for a batch in training, which must not be several tensors.

    No trial before the training tells: it would have to run in training mode, which some networks count.

    Parameters
    ----------
    output : object
        What the network returned. What stands for a tensor, as while `torch.fx` traces a network, is returned, too.

    Raises
    ------
    ValueError
        If the output is a tuple, a list or a mapping.
    """
    if isinstance(output, (tuple, list, Mapping)):
        raise ValueError(
            f"network returns a {type(output).__name__} in training mode, and a tensor otherwise. Let it return one "
            f"tensor in both; networks of torchvision do so with aux_logits=False."
        )
    return output


@contextlib.contextmanager
def refused(what: str, in_shape: tuple[int, ...]) -> Iterator[None]:
    """Turn any error within this context into a ValueError which says that a network does not take such rows.

    Parameters
    ----------
    what : str
        Name of the parameter that the network comes from.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    """
    try:
        yield
    except NoTensorError as error:
        raise ValueError(f"{what} {error}") from error
    except Exception as error:
        kind = f"{in_shape[0]} features" if len(in_shape) == 1 else f"images of shape {in_shape}"
        raise ValueError(f"{what} does not take rows of {kind}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return what an error of a network says; of one in a traced module, whose text is its traceback, the last line."""
    text = str(error).strip()
    return text.splitlines()[-1] if "TorchScript interpreter" in text else text


def trial(module: nn.Module, in_shape: tuple[int, ...], what: str) -> Any:
    """Return a module's output for `two_rows`; the first trial also gives lazy layers their shapes.

    Parameters
    ----------
    module : torch.nn.Module
        The module to try.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    what : str
        Name of the parameter, for error messages.

    Raises
    ------
    ValueError
        If the module does not take such rows.
    """
    with refused(what, in_shape):
        return dry_run(module, two_rows(module, in_shape))


def on_one_device(module: nn.Module) -> nn.Module:
    """Let a module, a copy of the user's, run where its rows are, and return it.

    `torch.nn.DataParallel` refuses all devices but the GPUs that it was made for, and shares a batch among them.
    """
    for part in module.modules():
        if isinstance(part, nn.DataParallel):
            part.device_ids = []
    return module


def some_rows(in_shape: tuple[int, ...]) -> Tensor:
    """Return 4 different rows of values in [0, 1], always the same ones, as float32.

    They are in the range of `two_rows`: a network that looks up its values in a table takes no negative ones.

    Parameters
    ----------
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    """
    return torch.arange(4.0 * math.prod(in_shape)).sin().add(1).div(2).reshape(4, *in_shape)


def check_real(module: nn.Module, what: str) -> None:
    """Raise a ValueError if a module, the parameter ``what``, has complex parameters or buffers."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_complex():
            raise ValueError(f"{what} holds complex numbers, in {name}; pass a network of real numbers.")


# Functions whose results for a row are rounded otherwise among other rows.
_PRODUCTS = {"linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum"} | {
    *("conv1d", "conv2d", "conv3d", "scaled_dot_product_attention")
}


def rows_together(what: str) -> str:
    """Return what an error says of a network, named ``what``, whose result for a row is not the row's alone."""
    return (
        f"{what} returns a result for a row that depends on the other rows, or on chance. Keep rows in the first "
        f"dimension in all layers, and neither draw random numbers nor use batch statistics in evaluation mode."
    )


def check_rows_apart(module: nn.Module, in_shape: tuple[int, ...], what: str = "backbone") -> None:
    """Raise an error if a module's output for a row depends on the other rows, or on chance.

    Parameters
    ----------
    module : torch.nn.Module
        The module. It stays as it is.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    what : str, default="backbone"
        Name of the parameter, for error messages.

    Raises
    ------
    ValueError
        If the output for a row alone differs from that for the row among others.
    """
    # In double precision, where rounding errors are far smaller than a real dependence on other rows.
    copied = _with_some_adapters(deep_copy(module).cpu().eval())
    with torch.no_grad():
        try:
            with _Precision() as precision:
                together = copied.double()(some_rows(in_shape).double())
            rows, tolerance = some_rows(in_shape).double(), 1e-3 if precision.single else 1e-6
        except RuntimeError:
            # A network that turns its rows into float32 by itself.
            together = copied.float()(some_rows(in_shape))
            rows, tolerance = some_rows(in_shape), 1e-3
        try:
            alone = torch.cat([copied(row[None].clone()) for row in rows])
        except (RuntimeError, ValueError) as error:
            # Batch statistics of vectors cannot be computed for a row alone.
            raise ValueError(rows_together(what)) from error
    if not torch.allclose(together, alone, rtol=tolerance, atol=tolerance / 1000, equal_nan=True):
        raise ValueError(rows_together(what))


class _Precision(TorchFunctionMode):
    """Note whether a matrix product or a convolution within this context is computed in single precision or less."""

    single = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch."""
        result = func(*args, **kwargs or {})
        if isinstance(result, Tensor) and result.is_floating_point() and result.dtype != torch.float64:
            # Other functions, as a softmax, round a row in the same way among others.
            self.single |= getattr(func, "__name__", "") in _PRODUCTS
        return result


def _with_some_adapters(module: nn.Module) -> nn.Module:
    """Draw small weights for the adapters of a module, in place, always the same ones, and return the module.

    Adapters that begin at zero, or alike, would hide that their gates take other rows for positions of a row.
    """
    generator = torch.Generator().manual_seed(0)
    for _, layer in adapters_of(module):
        for parameter in layer.adapters.parameters():
            nn.init.kaiming_normal_(parameter, a=10, generator=generator)
    return module


# --------------------------------------------------------------------------------------------------------------------
# Layers


def find_head(module: nn.Module, in_shape: tuple[int, ...], what: str = "network") -> str:
    """Return the name of the linear layer that a module runs last.

    Parameters
    ----------
    module : torch.nn.Module
        The module; it is run once.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    what : str, default="network"
        Name of the parameter, for error messages.

    Returns
    -------
    name : str
        Name of the layer; "" is the module itself.

    Raises
    ------
    ValueError
        If the module runs no linear layer, or does not take such rows.
    """
    # The module is run, because the last layer that it lists need not be the last one that runs.
    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    with recorded(module, gives=linear) as calls:
        trial(module, in_shape, what)
    if not calls and isinstance(module, torch.jit.ScriptModule):
        raise ValueError(f"{what} must have a linear layer as its last one, and {NO_LAYERS_SHOWN}.")
    if not calls:
        raise ValueError(f"{what} has no linear layer (torch.nn.Linear) that could be its last; add one.")
    return calls[-1].name


def tap(module: nn.Module, name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return a module's output for the rows, and the input of one of its linear layers.

    Parameters
    ----------
    module : torch.nn.Module
        The module; it runs in its present mode, with gradients.
    name : str
        Name of the layer; "" is the module itself.
    rows : Tensor
        The rows.

    Returns
    -------
    result : Tensor
        The module's output.
    taken : Tensor of shape (n, d)
        The layer's input; the last one if the layer runs more than once. If it has several vectors for each row, such
        as the tokens of a transformer, it is their mean: the layer maps it to the mean of their outputs.
    """
    with recorded(module, takes=[name], copy_taken=True) as calls:
        result, taken = module(rows), calls[-1].taken
    return result, taken.flatten(1, -2).mean(1) if taken.ndim > 2 else taken
