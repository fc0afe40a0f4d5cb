"""Matrix products in which a row's result is the same to the last bit at any position in its block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Rows of so many numbers start at multiples of 32 bytes, or of 64 in double precision.
_EVEN = 8
# Libraries add up longer rows in pieces, whose length in double precision may depend on the number of threads.
_STRIP = 128
# Rows that are multiplied together where the last rows of a block would be added up in another way. Libraries take
# rows by fours or sixes, or multiples of these, and leave none over here.
_PANEL = 48
# Numbers of rows, features and outputs for which some library adds up its last rows in another way.
_PROBES = ((32, 16, 16), (32, 64, 10), (256, 16, 16), (256, 16, 2), (256, 64, 3), (256, 256, 64))


def even_product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows @ weight.T + bias; a row's result does not depend on its position in the block.

    If rows do not all start at a multiple of 16 bytes, libraries add up the products of different rows in different
    orders. So both matrices are padded with columns of zeros. In double precision the result does not depend on the
    number of threads either: products of strips of columns are added up here. On processors without AVX-512 libraries
    may also treat the last rows of a block in another way; there rows are multiplied in panels that leave none over.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, ..., n_features)
    weight : Tensor of shape (n_outputs, n_features)
    bias : Tensor of shape (n_outputs,) or None, default=None

    Returns
    -------
    product : Tensor of shape (n_rows, ..., n_outputs)
    """
    missing = -weight.shape[1] % _EVEN
    if missing:
        rows, weight = functional.pad(rows, (0, missing)), functional.pad(weight, (0, missing))
    weight = weight.contiguous()
    # A graph that is exported or traced runs elsewhere.
    elsewhere = rows.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing()
    multiply = functional.linear if elsewhere or not last_rows_differ() else _product_of_panels
    if weight.dtype == torch.float64:
        found = reduce(torch.add, map(multiply, rows.split(_STRIP, -1), weight.split(_STRIP, 1)))
    elif multiply is functional.linear:
        return functional.linear(rows, weight, bias)
    else:
        found = multiply(rows, weight)
    # Under autocast the product has another type than the bias.
    return found if bias is None else found + bias.to(found.dtype)


def last_rows_differ() -> bool:
    """Return whether this processor's matrix products depend on the position of a row in its block."""
    return _last_rows_differ(torch.get_num_threads())


@lru_cache
def _last_rows_differ(n_threads: int) -> bool:
    """Return whether equal rows have different products; libraries choose the way by the number of threads, too."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        for dtype, (n_rows, n_features, n_outputs) in product((torch.float32, torch.float64), _PROBES):
            # Any numbers whose sums round: random ones are not allowed everywhere.
            weight = torch.arange(n_outputs * n_features, dtype=dtype, device="cpu").sin().view(n_outputs, n_features)
            rows = weight[:1].cos().expand(n_rows, -1).contiguous()
            found = torch.mm(rows, weight.T)
            if not torch.equal(found, found[:1].expand_as(found)):
                return True
    return False


def _product_of_panels(rows: Tensor, weight: Tensor) -> Tensor:
    """Return rows @ weight.T, computed in panels of `_PANEL` rows, each by one thread."""
    n_outputs, flat = len(weight), rows.flatten(0, -2)
    # Were there fewer panels than threads, several threads would divide one.
    n_panels = max(-(-len(flat) // _PANEL), torch.get_num_threads())
    panels = functional.pad(flat, (0, 0, 0, n_panels * _PANEL - len(flat))).view(n_panels, _PANEL, -1)
    # Of few outputs libraries make products of vectors.
    weight = functional.pad(weight, (0, 0, 0, -n_outputs % _EVEN))
    found = torch.bmm(panels, weight.T.expand(n_panels, -1, -1)).flatten(0, 1)
    return found[: len(flat), :n_outputs].reshape(*rows.shape[:-1], n_outputs)


class EvenLinear(nn.Linear):
    """Apply a linear layer; in evaluation mode, by `even_product`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return outputs of shape (n_rows, ..., out_features)."""
        if self.training or not _is_uneven(self):
            return functional.linear(input, self.weight, self.bias)
        return even_product(input, self.weight, self.bias)


class EvenProducts(TorchFunctionMode):
    """Compute every linear layer by `even_product` within this context, in this thread."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch, or `even_product` in place of `torch.nn.functional.linear`."""
        return (even_product if func is functional.linear else func)(*args, **kwargs or {})


def is_uneven(module: nn.Module) -> bool:
    """Return whether a module has a linear layer in which the position of a row may matter."""
    return any(
        isinstance(part, nn.Linear) and not isinstance(part, EvenLinear) and _is_uneven(part)
        for part in module.modules()
    )


def _is_uneven(layer: nn.Linear) -> bool:
    """Return whether the position of a row may matter in torch's own product of a layer."""
    return layer.in_features % _EVEN != 0 or (not torch.compiler.is_compiling() and last_rows_differ())
