"""Add residual adapters to a pretrained network: small trained corrections beside frozen layers.

Deecke, Ruff, Vandermeulen & Bilen, "Deep Anomaly Detection by Residual Adaptation" (2020).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from .copies import deep_copy
from .products import EvenLinear

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ADAPTABLE = (nn.Linear, *_CONVOLUTIONS)

# Factors on He's normal distribution. With 0.01 the output of an untrained ResNet-26 changes by about 3 % only; yet the
# adapters of a layer differ, and all of them and their gates get gradients.
_SCALES = {"near-zero": 0.01, "he": 1.0, "zero": 0.0}

# Standard deviation of the gate's logits for inputs of unit variance.
_GATE_SCALE = 0.1


class AdaptedLayer(nn.Module):
    """Add K gated linear corrections to a layer's output: equation 3 of the paper, without the shortcut.

        y = layer(x) + gain * sum_k g_k(x) A_k x,    g(x) = softmax(W mean(x) + b)

    Each A_k is a linear map without bias. Beside a convolution it is a 1x1 convolution that sees the middle pixel of
    each window; in windows of even size, the pixel before the middle. The gate sees the mean over all positions and has
    one value for each row and adapter. This form of the gate is skood's own; the paper only says self-attention.

    Parameters
    ----------
    layer : torch.nn.Linear, Conv1d, Conv2d or Conv3d
        The layer. It is kept, not copied. Its adapters have its device and dtype, and a convolution's groups.
    n_adapters : int, default=2
        K. A single adapter has no gate: g = 1, equation 2.
    init : {"near-zero", "he", "zero"}, default="near-zero"
        Initial weights of the adapters. "he" draws them from He's normal distribution; "near-zero" takes a hundredth of
        that, so that the sum starts close to the layer's output; "zero" makes the sum start at the layer's output, but
        then the adapters of a layer stay alike except for their gates.
    rank : int or None, default=None
        For a linear layer with more inputs and outputs than this, A_k is the product of two maps of this rank, and
        ``init`` applies to the second one. None gives A_k full rank.
    gain : float, default=1.0
        Factor on the correction. The adapters' initial weights are divided by it, so that the sum starts the same, and
        gradient descent moves the correction ``gain`` squared times as fast.

    Attributes
    ----------
    layer : torch.nn.Module
        The given layer.
    adapters : torch.nn.ModuleList of length K
        The maps A_k.
    gate : torch.nn.Linear or None
        W and b; at first the gates are nearly uniform. None if K is 1.
    gain : float
        The given factor.

    Raises
    ------
    ValueError
        If the layer is of another kind, or an option is out of range. When the module runs, if the layer is of a class
        derived from torch's and its output has another shape than the correction.
    """

    layer: nn.Linear | Convolution
    gate: nn.Linear | None

    def __init__(
        self,
        layer: nn.Module,
        n_adapters: int = 2,
        *,
        init: str = "near-zero",
        rank: int | None = None,
        gain: float = 1.0,
    ):
        super().__init__()
        if not isinstance(layer, _ADAPTABLE):
            raise ValueError(f"adapters go beside convolutions and linear layers; got a {type(layer).__name__}.")
        if n_adapters < 1:
            raise ValueError(f"there must be at least 1 adapter; got n_adapters={n_adapters}.")
        if init not in _SCALES:
            raise ValueError(f"init must be one of {list(_SCALES)}; got {init!r}.")
        if rank is not None and rank < 1:
            raise ValueError(f"rank must be at least 1; got {rank}.")
        if not gain > 0:
            raise ValueError(f"gain must be positive; got {gain}.")
        self.layer, self.gain = layer, gain
        self.adapters = nn.ModuleList(_adapter(layer, _SCALES[init] / gain, rank) for _ in range(n_adapters))
        self.register_module("gate", _gate(layer, n_adapters) if n_adapters > 1 else None)
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output plus the correction."""
        y = self.layer(input)
        seen = input if isinstance(self.layer, nn.Linear) else _middle_pixels(input, self.layer)
        if self.gate is None:
            correction = self.adapters[0](self._strided(seen))
        elif isinstance(self.layer, nn.Linear) or self.layer.groups > 1:
            correction = self._gated(self._strided(seen), self.gates(input))
        else:
            correction = self._mixed(seen, self.gates(input))
        if correction.shape != y.shape:
            # Broadcasting could make a sum of the two nevertheless.
            raise ValueError(
                f"an adapter that gives {tuple(correction.shape)} cannot go beside a {type(self.layer).__name__} "
                f"that gives {tuple(y.shape)}; leave that layer out."
            )
        return y + self.gain * correction

    def extra_repr(self) -> str:
        """Return the gain, for the module's repr."""
        return f"gain={self.gain:.3g}"

    def _strided(self, seen: Tensor) -> Tensor:
        """Return the pixels that the layer's stride reaches, as input of a 1x1 convolution of stride 1."""
        if isinstance(self.layer, nn.Linear):
            return seen
        # Not a strided 1x1 convolution: with fewer than 8 channels its gradient writes past the end of its memory, in
        # torch 2.13 on CPUs with AVX2, and the program dies.
        strided: tuple[Any, ...] = (..., *(slice(None, None, stride) for stride in self.layer.stride))
        return seen[strided]

    def _gated(self, seen: Tensor, gates: Tensor) -> Tensor:
        """Return sum_k g_k (A_k x)."""

        def term(gate: Tensor, adapter: nn.Module) -> Tensor:
            """Return g_k (A_k x)."""
            y = adapter(seen)
            # On CUDA a softmax is float32 under autocast, which would make the product float32, too.
            return gate.to(y.dtype).reshape(-1, *[1] * (y.ndim - 1)) * y

        return functools.reduce(torch.add, map(term, gates.unbind(-1), self.adapters))

    def _mixed(self, seen: Tensor, gates: Tensor) -> Tensor:
        """Return the same as `_gated`, computed as (sum_k g_k A_k) x.

        The sum of the weights is much cheaper than that of the outputs, because images have many pixels.
        """
        weights = torch.stack([cast(Tensor, adapter.weight).flatten(1).T for adapter in self.adapters])
        # One matrix for each row, since each row has its own gates.
        mixed = (gates.to(weights.dtype) @ weights.flatten(1)).unflatten(1, weights.shape[1:])
        pixels = self._strided(seen).movedim(1, -1)
        correction = torch.bmm(pixels.flatten(1, -2), mixed.to(pixels.dtype))
        return correction.unflatten(1, pixels.shape[1:-1]).movedim(-1, 1)

    def gates(self, input: Tensor) -> Tensor:
        """Return the adapters' shares g(x) for each row, of shape (n, K); they sum to 1."""
        # A linear layer has its features last, a convolution its channels before the positions.
        if isinstance(self.layer, nn.Linear):
            positions = range(1, input.ndim - 1)
        else:
            positions = range(-len(self.layer.kernel_size), 0)
        pooled = input.mean(tuple(positions)) if positions else input
        return pooled.new_ones(pooled.shape[0], 1) if self.gate is None else self.gate(pooled).softmax(-1)


def _adapter(layer: nn.Linear | Convolution, scale: float, rank: int | None) -> nn.Module:
    """Return one correction for a layer: a linear map or a 1x1 convolution, without bias."""
    where: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    adapter: nn.Module
    last: nn.Linear | Convolution
    if not isinstance(layer, nn.Linear):
        # The layer's class may be derived from torch's.
        kind = next(kind for kind in _CONVOLUTIONS if isinstance(layer, kind))
        adapter = last = kind(layer.in_channels, layer.out_channels, 1, bias=False, groups=layer.groups, **where)
    elif rank is None or rank >= min(layer.in_features, layer.out_features):
        adapter = last = EvenLinear(layer.in_features, layer.out_features, bias=False, **where)
    else:
        first = EvenLinear(layer.in_features, rank, bias=False, **where)
        # A gain of 1 for the first map, so that the product has the variance of a single map.
        nn.init.kaiming_normal_(first.weight, nonlinearity="linear")
        last = EvenLinear(rank, layer.out_features, bias=False, **where)
        adapter = nn.Sequential(first, last)
    nn.init.kaiming_normal_(last.weight, nonlinearity="relu")
    with torch.no_grad():
        last.weight *= scale
    return adapter


def _gate(layer: nn.Linear | Convolution, n_adapters: int) -> nn.Linear:
    """Return the linear map of the gate beside a layer."""
    n_in = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    gate = EvenLinear(n_in, n_adapters, device=layer.weight.device, dtype=layer.weight.dtype)
    # Small weights make the gates nearly uniform at first, so that every adapter starts to learn.
    nn.init.normal_(gate.weight, std=_GATE_SCALE / n_in**0.5)
    nn.init.zeros_(gate.bias)
    return gate


def _middle_pixels(x: Tensor, conv: Convolution) -> Tensor:
    """Crop or pad images such that a 1x1 convolution of the same stride sees the middle of each window."""
    if conv.padding == "same":
        return x
    before_and_after: list[int] = []
    # torch's padding begins with the last dimension.
    for dim in reversed(range(len(conv.kernel_size))):
        # A window has this many pixels besides its middle; half of them come before it. The only padding besides "same"
        # that has a name is "valid", which adds nothing.
        others = conv.dilation[dim] * (conv.kernel_size[dim] - 1)
        padding = 0 if isinstance(conv.padding, str) else conv.padding[dim]
        before_and_after += [padding - others // 2, padding - (others - others // 2)]
    added, cut = [max(n, 0) for n in before_and_after], [min(n, 0) for n in before_and_after]
    if any(added):
        x = functional.pad(x, added, conv.padding_mode.replace("zeros", "constant"))
    return functional.pad(x, cut) if any(cut) else x


def share(module: nn.Module) -> nn.Module:
    """Copy the structure of a module; the copy holds the same tensors.

    Layers of the copy can be replaced without changing the original, and the weights are in memory once. But an
    operation that changes a tensor in place, such as an optimiser step or batch normalisation in training mode, changes
    it in both modules. ``requires_grad`` and gradients belong to the tensors, so both modules share them, too.

    Parameters
    ----------
    module : torch.nn.Module
        The module whose structure is copied.

    Returns
    -------
    module : torch.nn.Module
        A module of new modules, whose parameters and buffers are those of the given module.
    """
    # deepcopy takes objects in its memo for copied already.
    return deep_copy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


def adaptable_layers(module: nn.Module) -> list[str]:
    """Return the names of the layers that can have adapters: linear layers, and convolutions of more than one pixel.

    Parameters
    ----------
    module : torch.nn.Module
        A module without adapters.

    Returns
    -------
    names : list of str
        The names in the order of the module's layers; "" is the module itself. A layer with several names appears
        under the first one.

    Notes
    -----
    Three kinds of layers are left out: lazy layers, which have no shape yet; layers within
    `torch.nn.MultiheadAttention`, which reads their weights and does not call them; and layers within torch's
    transformer layers with ``batch_first=False``, where the gate would take tokens for rows, so that rows would depend
    on each other.
    """
    out_of_reach = _out_of_reach(module)
    return [
        name
        for name, layer in module.named_modules()
        if layer not in out_of_reach
        and (isinstance(layer, nn.Linear) or (isinstance(layer, _CONVOLUTIONS) and max(layer.kernel_size) > 1))
    ]


def _out_of_reach(module: nn.Module) -> set[nn.Module]:
    """Return the layers that cannot have adapters; the notes of `adaptable_layers` say which and why."""
    found: set[nn.Module] = set()
    for part in module.modules():
        if isinstance(part, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
            closed = not getattr(part.self_attn, "batch_first", True)
        else:
            closed = isinstance(part, nn.MultiheadAttention) or any(is_lazy(p) for p in part.parameters(recurse=False))
        if closed:
            found.update(part.modules())
    return found


def add_residual_adapters(
    module: nn.Module,
    n_adapters: int = 2,
    *,
    layers: Sequence[str] | None = None,
    init: str = "near-zero",
    rank: int | None = None,
    gain: float = 1.0,
) -> nn.Module:
    """Return a module in which an `AdaptedLayer` replaces each adaptable layer, with the same weights.

    Parameters
    ----------
    module : torch.nn.Module
        The module; it is not changed. The first dimension of its input must count the rows.
    n_adapters : int, default=2
        Number of adapters of each layer.
    layers : sequence of str or None, default=None
        Names of the layers. None means all `adaptable_layers`. A layer with several names gets adapters once, and is
        replaced under all names.
    init, rank, gain
        The parameters of `AdaptedLayer`.

    Returns
    -------
    module : torch.nn.Module
        A copy from `share`, whose layers are replaced. If the module is a single layer, its `AdaptedLayer`.

    Raises
    ------
    ValueError
        If there is no such layer or it cannot have adapters, the module has adapters already, or an option is out of
        range.

    Examples
    --------
    >>> from skood.networks import MLP, adapters_of, add_residual_adapters
    >>> adapted = add_residual_adapters(MLP(4, 2, hidden_sizes=(16,)), n_adapters=2)
    >>> [name for name, _ in adapters_of(adapted)]
    ['0', '2']
    """
    if next(adapters_of(module), None):
        raise ValueError("module has residual adapters already; pass the module without adapters.")
    names = adaptable_layers(module) if layers is None else list(layers)
    if not names:
        raise ValueError("module has no layer to adapt: no linear layer, and no convolution of more than one pixel.")
    adapted = share(module)
    places, out_of_reach = dict(adapted.named_modules(remove_duplicate=False)), _out_of_reach(adapted)
    made: dict[nn.Module, AdaptedLayer] = {}
    for name in names:
        if name not in places:
            raise ValueError(f"module has no layer named {name!r}.")
        layer = places[name]
        if not isinstance(layer, _ADAPTABLE):
            raise ValueError(f"layer {name!r} is a {type(layer).__name__}, neither a convolution nor a linear layer.")
        if layer in out_of_reach:
            raise ValueError(f"layer {name!r} cannot have adapters; see the notes of adaptable_layers.")
        made[layer] = AdaptedLayer(layer, n_adapters, init=init, rank=rank, gain=gain)
    for parent in set(places.values()):
        for name, child in parent._modules.items():
            if child is not None and child in made:
                parent._modules[name] = made[child]
        # In evaluation mode torch's transformers take shortcuts that read the layers' weights and ignore the adapters.
        # These two settings switch them off.
        if isinstance(parent, nn.TransformerEncoderLayer):
            parent.activation_relu_or_gelu = 0
        elif isinstance(parent, nn.TransformerEncoder):
            parent.use_nested_tensor = False
    return made.get(adapted, adapted)


def adapters_of(module: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Yield each `AdaptedLayer` of a module once, with its name."""
    for name, layer in module.named_modules():
        if isinstance(layer, AdaptedLayer):
            yield name, layer


def _own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of all adapters and gates by name."""
    # An `AdaptedLayer` has the pretrained layer as "layer", whose parameters are not its own.
    return {
        name: parameter
        for prefix, layer in adapters_of(module)
        for name, parameter in layer.named_parameters(prefix)
        if not name.removeprefix(prefix).removeprefix(".").startswith("layer.")
    }


def adapter_state(module: nn.Module) -> dict[str, Tensor]:
    """Return copies, on the CPU, of the parameters of all adapters and gates, by their names in the ``state_dict``."""
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in _own_parameters(module).items()}


def load_adapter_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set the parameters of all adapters and gates in place to a state that `adapter_state` returned.

    Parameters
    ----------
    module : torch.nn.Module
        A module with adapters.
    state : mapping of str to Tensor
        The parameters by name.

    Raises
    ------
    ValueError
        If the state has other names or shapes than the module's adapters. The module is then unchanged.
    """
    own = _own_parameters(module)
    expected, given = ({name: tuple(value.shape) for name, value in of.items()} for of in (own, state))
    differences = [
        f"{name}: {given.get(name, 'nothing')} instead of {expected.get(name, 'nothing')}"
        for name in expected | given
        if given.get(name) != expected.get(name)
    ]
    if differences:
        raise ValueError(f"state does not fit these adapters: {'; '.join(differences)}.")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])
