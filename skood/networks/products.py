"""Matrix products in which a row's result is the same to the last bit at any position in its block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Rows of so many numbers start at multiples of 32 bytes, or of 64 in double precision.
_EVEN = 8
# Libraries add up longer rows in pieces, whose length in double precision may depend on the number of threads.
_STRIP = 128


def even_product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows @ weight.T + bias; a row's result does not depend on its position in the block.

    If rows do not all start at a multiple of 16 bytes, libraries add up the products of different rows in different
    orders. So both matrices are padded with columns of zeros. In double precision the result does not depend on the
    number of threads either: products of strips of columns are added up here.

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
    if weight.dtype != torch.float64:
        return functional.linear(rows, weight, bias)
    parts = map(functional.linear, rows.split(_STRIP, -1), weight.split(_STRIP, 1))
    product = reduce(torch.add, parts)
    return product if bias is None else product + bias


class EvenLinear(nn.Linear):
    """Apply a linear layer; in evaluation mode, by `even_product`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return outputs of shape (n_rows, ..., out_features)."""
        if self.training or self.in_features % _EVEN == 0:
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
    """Return whether a module has a linear layer in which, by its shape, the position of a row may matter."""
    return any(
        isinstance(part, nn.Linear) and not isinstance(part, EvenLinear) and part.in_features % _EVEN
        for part in module.modules()
    )
