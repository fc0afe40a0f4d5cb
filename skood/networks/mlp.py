"""Networks for vectors: a plain and a residual multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from .products import EvenLinear
from .randomness import Dropout

# With torch's initial weights a network is nearly flat across standardised data. Multiplied by this factor, the weights
# of the first layer let it vary between neighbouring rows from the start; learning this would take most of a training.
_STEM_GAIN = 4.0


class MLP(nn.Sequential):
    """Apply linear layers with a ReLU after each hidden one; the last layer is linear.

    Parameters
    ----------
    in_features, out_features : int
        Widths of the input and of the output.
    hidden_sizes : sequence of int
        Width of each hidden layer.
    dropout : float, default=0.0
        Share of values dropped after each hidden layer.
    """

    def __init__(self, in_features: int, out_features: int, hidden_sizes: Sequence[int], dropout: float = 0.0):
        layers: list[nn.Module] = []
        width = in_features
        for size in hidden_sizes:
            layers += [EvenLinear(width, size), nn.ReLU()]
            if dropout:
                layers.append(Dropout(dropout))
            width = size
        super().__init__(*layers, EvenLinear(width, out_features))


class ResidualMLP(nn.Module):
    """Apply a linear stem, residual blocks ``y + W2 silu(W1 norm(y))`` and a linear head.

    Parameters
    ----------
    in_features, out_features : int
        Widths of the input and of the output.
    hidden_sizes : sequence of int
        Inner width of each block. The first entry is also the width between the blocks.
    dropout : float, default=0.0
        Share of values dropped within each block.
    """

    def __init__(self, in_features: int, out_features: int, hidden_sizes: Sequence[int], dropout: float = 0.0):
        super().__init__()
        width = hidden_sizes[0]
        stem = EvenLinear(in_features, width)
        stem.weight.data *= _STEM_GAIN
        self.stem = nn.Sequential(stem, nn.SiLU())
        self.blocks = nn.ModuleList(_block(width, inner, dropout) for inner in hidden_sizes)
        self.head = EvenLinear(width, out_features)

    def reset_parameters(self) -> None:
        """Draw the weights of the stem and of each block's last layer anew; the other layers draw their own."""
        stem = cast(nn.Linear, self.stem[0])
        stem.reset_parameters()
        stem.weight.data *= _STEM_GAIN
        for block in self.blocks:
            _draw_small(cast(nn.Linear, cast(nn.Sequential, block)[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of shape (n, out_features)."""
        y = self.stem(x)
        for block in self.blocks:
            y = y + block(y)
        return self.head(y)


def _block(width: int, inner: int, dropout: float) -> nn.Sequential:
    """Return the branch of a residual block, which is added to the block's input."""
    last = EvenLinear(inner, width)
    _draw_small(last)
    # The linear layer after the normalisation can scale and shift, so the normalisation need not.
    layers = [nn.LayerNorm(width, elementwise_affine=False), EvenLinear(width, inner), nn.SiLU()]
    return nn.Sequential(*layers, *([Dropout(dropout)] if dropout else []), last)


def _draw_small(last: nn.Linear) -> None:
    """Draw the last layer of a block: with small weights the untrained block is close to the identity."""
    nn.init.normal_(last.weight, std=0.1 / last.in_features**0.5)
    nn.init.zeros_(last.bias)
