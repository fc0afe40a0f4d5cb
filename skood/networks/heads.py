"""Read the last linear layer of a network, remove it, or give it more outputs."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .build import copy_in_single, make_network
from .neighbors import precise_dtype
from .probe import dry_run, find_head, trial, varied_rows
from .products import EvenLinear

NOTHING_TO_TRAIN = "network has no parameters that could be trained; all are frozen, or there are none."


def class_weights(head: nn.Linear, n_classes: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the weights and biases of a linear layer's first outputs, in float64 (float32 on MPS).

    Parameters
    ----------
    head : torch.nn.Linear
        The layer.
    n_classes : int
        Number of outputs whose weights are returned.
    temperature : float, default=1.0
        Number by which weights and biases are divided.

    Returns
    -------
    weight : Tensor of shape (n_classes, n_features)
    bias : Tensor of shape (n_classes,)
        Zeros if the layer has no biases.
    """
    weight = head.weight.detach()[:n_classes].to(precise_dtype(head.weight.device))
    bias = weight.new_zeros(n_classes) if head.bias is None else head.bias.detach()[:n_classes].to(weight.dtype)
    return weight / temperature, bias / temperature


def split_head(network: nn.Module, in_shape: tuple[int, ...]) -> tuple[nn.Module, nn.Linear]:
    """Split a network into its last linear layer and everything before it.

    Parameters
    ----------
    network : torch.nn.Module
        A network whose output is that of its last linear layer. It is changed.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).

    Returns
    -------
    trunk : torch.nn.Module
        Maps rows to the features that the last linear layer takes.
    head : torch.nn.Linear
        The last linear layer.

    Raises
    ------
    ValueError
        If the network has no linear layer, computes more after its last one, or has nothing that can be trained.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        # New layers around it would be trained, and what it computes would stay the same.
        raise ValueError(NOTHING_TO_TRAIN)
    name = find_head(network, in_shape)
    rows = varied_rows(network, in_shape)
    logits = dry_run(network, rows)
    trunk: nn.Module = nn.Identity()
    head = cast(nn.Linear, network.get_submodule(name))
    if name:
        network.set_submodule(name, nn.Identity())
        trunk = network
    both = nn.Sequential(trunk, head).train(network.training)
    # Whether anything follows the layer cannot be read from the module, so the two parts are run and compared.
    try:
        again = dry_run(both, rows)
        same = again.shape == logits.shape and torch.allclose(again, logits, rtol=1e-4, atol=1e-5, equal_nan=True)
    except (RuntimeError, AttributeError, TypeError):
        # The network cannot run without the layer.
        same = False
    if not same:
        raise ValueError(
            "network computes more after its last linear layer, which must return the logits. Remove what follows it, "
            "such as a softmax, another use of the same layer, or torch.autocast around it."
        )
    return trunk, head


def widen_head(
    module: nn.Module, in_shape: tuple[int, ...], n_given: int, n_kept: int, n_outputs: int, what: str
) -> nn.Module:
    """Return a copy of a classifier that keeps its first outputs and has new outputs after them.

    Parameters
    ----------
    module : torch.nn.Module
        A classifier whose last linear layer computes the logits. A softmax or log-softmax may follow.
    in_shape : tuple of int
        Shape of a row: (n_features,) or (C, H, W).
    n_given : int
        Number of outputs that the classifier must have.
    n_kept : int
        Number of first outputs that keep their weights.
    n_outputs : int
        Number of outputs of the copy. The new ones have torch's initial weights.
    what : str
        Name of the parameter, for error messages.

    Returns
    -------
    module : torch.nn.Module
        It returns logits, and all of its parameters require gradients.

    Raises
    ------
    ValueError
        If the classifier has no linear layer, or another number of outputs.
    """
    module = copy_in_single(module)
    name = find_head(module, in_shape, what)
    module.requires_grad_(True)
    head = cast(nn.Linear, module.get_submodule(name))
    if head.out_features != n_given:
        raise ValueError(f"{what} has a last linear layer of {head.out_features} outputs; there must be {n_given}.")
    wider = EvenLinear(head.in_features, n_outputs, bias=head.bias is not None)
    wider.to(device=head.weight.device, dtype=head.weight.dtype)
    with torch.no_grad():
        wider.weight[:n_kept] = head.weight[:n_kept]
        if head.bias is not None:
            wider.bias[:n_kept] = head.bias[:n_kept]
    if name:
        module.set_submodule(name, wider)
    else:
        module = wider
    # Outputs that are nonnegative and sum to 1 come from a softmax, and their logarithms serve as logits. Outputs of a
    # log-softmax are logits already.
    result = trial(module, in_shape, what)
    if isinstance(result, Tensor) and (result >= 0).all() and torch.allclose(result.sum(1).cpu(), torch.ones(2)):
        module = LogProbabilities(module)
    return make_network(module, {}, in_shape, n_outputs, what)


class LogProbabilities(nn.Module):
    """Turn the probabilities p that a module returns into logits: softmax(log p) = p.

    Parameters
    ----------
    module : torch.nn.Module
        Maps rows to probabilities of shape (n, c).
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape (n, c)."""
        probability = self.module(x)
        # A probability that underflowed to 0 would have a logarithm of minus infinity, and a gradient of NaN.
        return probability.clamp_min(torch.finfo(probability.dtype).tiny).log()
