"""Build the scores of `skood.scores`: the base class of their modules, and functions that they share."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length
from torch import Tensor, nn

from ..networks.neighbors import precise_dtype

_CPU = torch.device("cpu")
# Number of rows of arrays that are scored at once. It is fixed: matrix products of another shape round differently.
_BLOCK = 256
# Responses that have one entry for each row; the others are parameters of the last layer.
_OF_ROWS = ("logits", "features", "rotation_logits")
# The shape of each response, as messages name it, and the number of its dimensions.
_SHAPES = {
    "logits": ("(n_samples, n_classes)", 2),
    "features": ("(n_samples, n_features)", 2),
    "train_features": ("(n_train, n_features)", 2),
    "rotation_logits": ("(n_samples, R, R)", 3),
    "weight": ("(n_classes, n_features)", 2),
    "bias": ("(n_classes,)", 1),
}


class Score(nn.Module):
    """Score rows by a network's responses to them; the base class of scores, each of which defines ``formula``.

    Parameters
    ----------
    learnt : mapping of str to array-like or None, default=None
        What was learnt from training rows, kept as buffers.
    **options
        Options of the score, kept as attributes.
    """

    # Maps tensors to scores; its arguments have the names of the responses that the score needs.
    formula: Callable[..., Tensor]
    # Whether rows of arrays come in blocks of a fixed shape.
    in_fixed_blocks = True

    def __init__(self, learnt: Mapping[str, Any] | None = None, **options: Any):
        super().__init__()
        for name, values in (learnt or {}).items():
            self.register_buffer(name, as_tensor(values))
        for name, value in options.items():
            setattr(self, name, value)
        self.needs = tuple(inspect.signature(self.formula).parameters)

    def forward(
        self,
        logits: Tensor | None = None,
        features: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        rotation_logits: Tensor | None = None,
    ) -> Tensor:
        """Return the scores, of shape (n_samples,), in float64 (float32 on MPS); ignore responses not needed."""
        given = {
            "logits": logits,
            "features": features,
            "weight": weight,
            "bias": bias,
            "rotation_logits": rotation_logits,
        }
        needed = {}
        for name in self.needs:
            values = given[name]
            if values is None:
                raise TypeError(f"{name} is missing; the score needs {', '.join(self.needs)}.")
            needed[name] = values.to(precise_dtype(values.device))
        return self.formula(**needed)

    def of(self, **responses: Any) -> Any:
        """Return scores of rows: an array, or a tensor on the rows' device if they are a tensor."""
        for name in self.needs:
            check_shape(responses[name], name)
        rows = {name: responses[name] for name in self.needs if name in _OF_ROWS}
        layer = {name: responses[name] for name in self.needs if name not in _OF_ROWS}
        device = next((values.device for values in rows.values() if isinstance(values, Tensor)), None)
        there = device or _CPU
        module, layer = self._on(there), {name: as_tensor(values, there) for name, values in layer.items()}
        if device is None:
            return module._of_arrays(rows, layer)
        return module(**{name: as_tensor(values, there) for name, values in rows.items()}, **layer)

    def _of_arrays(self, rows: Mapping[str, ArrayLike], layer: Mapping[str, Tensor]) -> np.ndarray:
        """Return scores of arrays, whose rows are copied block by block into memory that torch allocated."""
        arrays = {name: np.asarray(values) for name, values in rows.items()}
        check_consistent_length(*arrays.values())
        n_rows = len(next(iter(arrays.values())))
        # numpy aligns arrays in memory in another way than torch, and sums may then round differently.
        blocks = {name: empty((_BLOCK, *array.shape[1:])) for name, array in arrays.items()}
        scores = np.empty(n_rows)
        for start in range(0, n_rows, _BLOCK):
            size = min(_BLOCK, n_rows - start)
            for name, array in arrays.items():
                block = blocks[name].numpy()
                block[:size] = array[start : start + size]
                block[size:] = block[size - 1]
            used = blocks if self.in_fixed_blocks else {name: block[:size] for name, block in blocks.items()}
            with torch.no_grad():
                scores[start : start + size] = self(**used, **layer).numpy()[:size]
        return scores

    def _on(self, device: torch.device) -> Score:
        """Return this module if it is on the device, else a copy that is."""
        if all(buffer.device == device for buffer in self.buffers()):
            return self
        return copy.deepcopy(self).to(device, precise_dtype(device))


def check_shape(values: Any, name: str) -> None:
    """Raise a ValueError if a response of this name has another number of dimensions."""
    given, (shape, n_dimensions) = tuple(np.shape(values)), _SHAPES[name]
    if len(given) != n_dimensions:
        alone = " For a single row write [row]." if name in _OF_ROWS and len(given) == n_dimensions - 1 else ""
        raise ValueError(f"{name} has shape {given}; it must be {shape}.{alone}")


def as_rows(values: ArrayLike, name: str = "features") -> np.ndarray:
    """Return a contiguous array of float64; ``name`` is the response that it holds."""
    check_shape(values, name)
    # Sums round differently in another order of memory: scores of a transposed array would differ in the last bits.
    return np.ascontiguousarray(values, dtype=np.float64)


def as_codes(codes: ArrayLike, logits: np.ndarray) -> np.ndarray:
    """Return the numbers of the rows' classes; raise ValueError if they are not numbers of columns of the logits."""
    numbers, (n_rows, n_columns) = np.asarray(codes), logits.shape
    if numbers.shape != (n_rows,):
        raise ValueError(f"codes has shape {numbers.shape}, but there are {n_rows} rows; give one number for each.")
    whole = numbers.dtype.kind in "iu"
    wrong = np.flatnonzero((numbers < 0) | (numbers >= n_columns)) if whole else np.arange(n_rows)
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"codes holds {numbers.tolist()[row]!r} in row {row}, but must hold the number of each row's column: an "
            f"integer from 0 to {n_columns - 1}. For labels y, write np.searchsorted(classes, y), with the sorted "
            f"classes in the order of the columns."
        )
    return numbers


def checked_quantile(value: float, name: str = "quantile") -> float:
    """Return a quantile; raise ValueError if it is not in (0, 1)."""
    if not (isinstance(value, Real) and 0 < value < 1):
        spelt = f" For {value:g} % write {value / 100:g}." if isinstance(value, Real) and 1 < value < 100 else ""
        raise ValueError(f"{name}={value!r} must be a number between 0 and 1, exclusive.{spelt}")
    return value


def empty(shape: tuple[int, ...]) -> Tensor:
    """Return memory for float64, allocated by torch, whatever the default dtype and device."""
    return torch.empty(shape, dtype=torch.float64, device=_CPU)


def as_tensor(values: Any, device: torch.device = _CPU) -> Tensor:
    """Return a copy in float64 (float32 on MPS).

    The copy is in memory that torch allocated: numpy aligns arrays in another way, and products may round differently.
    """
    if isinstance(values, Tensor):
        return values.to(device, precise_dtype(device)).clone(memory_format=torch.contiguous_format)
    array = np.asarray(values, dtype=np.float64)
    tensor = empty(array.shape)
    tensor.numpy()[...] = array
    return tensor.to(device, precise_dtype(device))


def _of_arrays_too(function: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
    """Let a function of a tensor also map arrays to arrays."""

    @functools.wraps(function)
    def either(rows: Any) -> Any:
        return function(rows) if isinstance(rows, Tensor) else function(as_tensor(rows)).numpy()

    return either


def euclidean(rows: Tensor) -> Tensor:
    """Return the Euclidean length of each row, of shape (n,)."""
    return rows.square().sum(1).sqrt()


@_of_arrays_too
def unit(rows: Tensor) -> Tensor:
    """Scale rows to length 1; rows of zeros stay as they are."""
    # Divided by the largest absolute entry first: the square of an entry could overflow.
    largest = rows.abs().amax(1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, 1.0)
    length = euclidean(rows)[:, None]
    return rows / torch.where(length > 0, length, 1.0)


def _largest_and_log_sum(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return max f and log sum exp(f - max f) of the last dimension, which is kept with length 1.

    The term of the maximum, 1, is added by log1p: so the logarithm is exact if one class has nearly all probability.
    """
    top, largest = logits.max(-1, keepdim=True)
    shares = (logits - top).exp().scatter(-1, largest, 0.0)
    return top, shares.sum(-1, keepdim=True).log1p()


@_of_arrays_too
def log_softmax(logits: Tensor) -> Tensor:
    """Return the logarithm of the softmax over the last dimension."""
    top, log_sum = _largest_and_log_sum(logits)
    # In this order: top + log_sum would round away a small log_sum, and all confident rows would look the same.
    return (logits - top) - log_sum


def energy_of(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T log sum_c exp(f_c / T)."""
    top, log_sum = _largest_and_log_sum(logits / temperature)
    return temperature * (top + log_sum)[:, 0]


def minus_entropy(log_p: Tensor) -> Tensor:
    """Return sum_c p_c log p_c."""
    p = log_p.exp()
    return (p * torch.where(p > 0, log_p, 0.0)).sum(1)


def class_means(rows: np.ndarray, codes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean row of each class that has rows, and for each row the index of its class among these."""
    codes = np.asarray(codes)
    if codes.shape != (len(rows),):
        raise ValueError(f"codes has shape {codes.shape}, but there are {len(rows)} rows; give one number for each.")
    found, places = np.unique(codes, return_inverse=True)
    return np.stack([rows[places == place].mean(axis=0) for place in range(len(found))]), places
