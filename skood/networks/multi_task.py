"""A classifier and an auxiliary task on one trunk, and what contrastive predictive coding asks of both.

Ahmed & Courville, "Detecting Semantic Anomalies" (2020); the details of contrastive predictive coding are in its
appendix C.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from .build import find_head

CLASS_TASK, AUXILIARY_TASK = 0, 1

_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
)

# Rows above its own that the context network sees; as many columns to each side.
_CONTEXT_ROWS = 3


class MultiTask(nn.Module):
    """A classifier split into a trunk and its class head, beside the head of an auxiliary task on the same trunk.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (n, *in_shape) to logits (n, c) by a last linear layer, as from `make_classifier`. It is taken apart: the
        layer becomes the class head, and what is left the trunk.
    in_shape : tuple of int
        (n_features,) or (C, H, W).
    auxiliary : torch.nn.Module or None, default=None
        The head of the auxiliary task; it can be set later as ``auxiliary_head``.

    Attributes
    ----------
    trunk : torch.nn.Module
        Maps rows to features (n, ``class_head.in_features``).
    class_head : torch.nn.Linear
    auxiliary_head : torch.nn.Module or None

    Raises
    ------
    ValueError
        If the network has no linear layer, or its last one does not give the logits.
    """

    def __init__(self, network: nn.Module, in_shape: tuple[int, ...], auxiliary: nn.Module | None = None):
        super().__init__()
        trunk, self.class_head = split_head(network, in_shape)
        self.trunk = trunk
        self.register_module("auxiliary_head", auxiliary)
        self.train(network.training)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits of the classes, of shape (n, c)."""
        return self.class_head(self.features(rows))

    def features(self, rows: Tensor) -> Tensor:
        """The trunk's features for the classes, of shape (n, F)."""
        with task(self.trunk, CLASS_TASK):
            return self.trunk(rows)

    def auxiliary_features(self, rows: Tensor) -> Tensor:
        """The trunk's features for the auxiliary task, of shape (n, F).

        The same as `features` unless the trunk has separate norms, see `separate_norms`.
        """
        with task(self.trunk, AUXILIARY_TASK):
            return self.trunk(rows)

    def encode_patches(self, images: Tensor) -> Tensor:
        """Encodings of an image's overlapping patches for the auxiliary task.

        They are the trunk's ``patch_features`` if it has such a method, as a `WideResNet`, else its features; it must
        take images of the size of a patch, see `patch_geometry`.

        Parameters
        ----------
        images : Tensor of shape (n, C, H, H)

        Returns
        -------
        encodings : Tensor of shape (n, grid, grid, F)

        Raises
        ------
        ValueError
            As `patches` and `patch_geometry`.
        """
        size, stride, grid = patch_geometry(max(images.shape[2:]))
        flat = patches(images, size, stride).flatten(0, 2)
        encode = getattr(self.trunk, "patch_features", self.trunk)
        with task(self.trunk, AUXILIARY_TASK):
            return encode(flat).unflatten(0, (len(images), grid, grid))


def split_head(network: nn.Module, in_shape: tuple[int, ...]) -> tuple[nn.Module, nn.Linear]:
    """Take a network apart: what comes before its last linear layer, and that layer.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (n, *in_shape) to what its last linear layer gives. It is changed.
    in_shape : tuple of int
        (n_features,) or (C, H, W).

    Returns
    -------
    trunk : torch.nn.Module
    head : torch.nn.Linear

    Raises
    ------
    ValueError
        If the network has no linear layer, or does more after its last one.
    """
    name = find_head(network, in_shape)
    rows = _trial_rows(network, in_shape)
    logits = _evaluated(network, rows)
    trunk, head = nn.Identity(), network.get_submodule(name)
    if name:
        network.set_submodule(name, nn.Identity())
        trunk = network
    both = nn.Sequential(trunk, head).train(network.training)
    try:
        again = _evaluated(both, rows)
        same = again.shape == logits.shape and torch.allclose(again, logits, rtol=1e-4, atol=1e-5, equal_nan=True)
    except (RuntimeError, AttributeError, TypeError):
        # The network cannot run without the layer.
        same = False
    if not same:
        raise ValueError(
            "network does more after its last linear layer than give logits (a softmax, say); leave that out."
        )
    return trunk, head


def _trial_rows(module: nn.Module, in_shape: tuple[int, ...]) -> Tensor:
    """Rows on the module's device, always the same ones; torch's own generator stays untouched."""
    parameter = next(module.parameters(), torch.empty(0))
    # Many and varied: on few rows a ReLU after the logits could pass unnoticed.
    rows = torch.randn(16, *in_shape, generator=torch.Generator().manual_seed(0))
    return rows.to(parameter.device, parameter.dtype)


def _evaluated(module: nn.Module, rows: Tensor) -> Tensor:
    """What the module, in evaluation mode, makes of rows."""
    was_training = module.training
    try:
        with torch.no_grad():
            return module.eval()(rows)
    finally:
        module.train(was_training)


# --------------------------------------------------------------------------------------------------------------------
# Normalisation and padding


class TaskNorm(nn.Module):
    """A normalisation layer for each of two tasks; which one works is set by `task`.

    The conditional normalisation of the paper's appendix C. Scale, shift and running statistics are each task's own.

    Parameters
    ----------
    norm : torch.nn.Module
        Both tasks begin with a copy of it.
    """

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.tasks = nn.ModuleList([copy.deepcopy(norm), copy.deepcopy(norm)])
        self.current = CLASS_TASK

    def forward(self, x: Tensor) -> Tensor:
        return self.tasks[self.current](x)


def separate_norms(module: nn.Module) -> nn.Module:
    """Give each of two tasks its own normalisation layers, in place.

    Parameters
    ----------
    module : torch.nn.Module
        Every batch, instance, group, layer or RMS normalisation in it that has parameters or running statistics
        becomes a `TaskNorm`. The others have nothing to separate.

    Returns
    -------
    module : torch.nn.Module
        The same one, unless it is a normalisation layer itself.
    """
    return _with_separate_norms(module, {})


def _with_separate_norms(module: nn.Module, made: dict[nn.Module, TaskNorm]) -> nn.Module:
    """See `separate_norms`; a layer that is in several places stays one, with its replacement in ``made``."""
    if isinstance(module, _NORMS) and module.state_dict():
        if module not in made:
            made[module] = TaskNorm(module)
        return made[module]
    if not isinstance(module, TaskNorm):
        # named_children would leave out the second place of a layer.
        for name, child in list(module._modules.items()):
            if child is not None:
                module.register_module(name, _with_separate_norms(child, made))
    return module


@contextlib.contextmanager
def task(module: nn.Module, number: int) -> Iterator[None]:
    """Within this context every `TaskNorm` in the module is that of one task; after it, of those as before.

    Parameters
    ----------
    module : torch.nn.Module
    number : {0, 1}
        0 are the classes, 1 is the auxiliary task.
    """
    before = [(layer, layer.current) for layer in module.modules() if isinstance(layer, TaskNorm)]
    try:
        for layer, _ in before:
            layer.current = number
        yield
    finally:
        for layer, current in before:
            layer.current = current


def pad_symmetric(x: Tensor, left: int, right: int, dim: int) -> Tensor:
    """Mirror a dimension at both ends, edges included: abc becomes ..cba abc cba.., as ``numpy.pad(mode="symmetric")``.

    Parameters
    ----------
    x : Tensor
    left, right : int
        How much to add at the start and at the end; it may be more than there is.
    dim : int

    Returns
    -------
    x : Tensor
    """
    # Slices and flips have deterministic gradients on CUDA; indexing and torch's padding have not.
    size = x.shape[dim]
    while size and (left or right):
        # No more than the whole at a time: at the ends of whole mirror images one may mirror again.
        before, after = min(left, size), min(right, size)
        start, end = x.narrow(dim, 0, before), x.narrow(dim, x.shape[dim] - after, after)
        x = torch.cat([start.flip(dim), x, end.flip(dim)], dim)
        left, right = left - before, right - after
    return x


class SymmetricConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that pads its input symmetrically, edge pixels included, instead of with zeros.

    Its parameters are those of `torch.nn.Conv2d`, but for ``padding_mode``, which has no effect.
    """

    def forward(self, x: Tensor) -> Tensor:
        for dim, (left, right) in zip((-2, -1), _added(self), strict=True):
            x = pad_symmetric(x, left, right, dim)
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def symmetric_padding(module: nn.Module) -> nn.Module:
    """Replace zero padding of all convolutions of images by symmetric padding, in place.

    The ratio of border zeros to pixels then no longer tells a patch from an image: appendix C of the paper.

    Parameters
    ----------
    module : torch.nn.Module
        Every `torch.nn.Conv2d` in it that pads with zeros becomes a `SymmetricConv2d`; its weights and their names
        stay. Other paddings stay too, as do layers that only pad.

    Returns
    -------
    module : torch.nn.Module
        The same one.

    Raises
    ------
    ValueError
        If a layer that pads with zeros is of a class derived from `torch.nn.Conv2d`, for it may compute something else.
    """
    padded = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
        and not isinstance(layer, SymmetricConv2d)
        and layer.padding_mode == "zeros"
        and any(n for sides in _added(layer) for n in sides)
    ]
    for layer in padded:
        if type(layer) is not nn.Conv2d:
            raise ValueError(
                f"network has a {type(layer).__name__}, and only a plain torch.nn.Conv2d can be given symmetric "
                f"padding. Pass one with padding=0, or with a padding_mode other than 'zeros'."
            )
    for layer in padded:
        # The layer stays the same object, with its hooks, wherever it is held.
        layer.__class__ = SymmetricConv2d
    return module


def _added(conv: nn.Conv2d) -> list[tuple[int, int]]:
    """Pixels that a convolution's padding adds before and after each dimension."""
    if conv.padding == "valid":
        return [(0, 0), (0, 0)]
    if conv.padding == "same":
        added = [dilation * (size - 1) for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True)]
        # As torch: an odd pixel is added at the end.
        return [(n // 2, n - n // 2) for n in added]
    return [(n, n) for n in conv.padding]


# --------------------------------------------------------------------------------------------------------------------
# Contrastive predictive coding


def patch_geometry(side: int) -> tuple[int, int, int]:
    """Side and stride of the patches of a square image, and how many there are in a row.

    The stride is an eighth of the image, rounded down, and neighbours overlap by a half. Images of 32, 96, 224 or 256
    pixels thus have 7 x 7 patches; 7 x 7 are those of van den Oord, Li & Vinyals (2018), who do so with 256 pixels.
    For sides that 8 does not divide the grid is finer, and the last pixels may be in no patch.

    Parameters
    ----------
    side : int
        Of the image, in pixels.

    Returns
    -------
    size, stride, grid : int

    Raises
    ------
    ValueError
        If there would be fewer than 3 patches in a row: with less than 4 pixels.

    Examples
    --------
    >>> from skood.networks import patch_geometry
    >>> patch_geometry(32), patch_geometry(28)
    ((8, 4, 7), (6, 3, 8))
    """
    stride = max(1, side // 8)
    size = 2 * stride
    grid = (side - size) // stride + 1
    if grid < 3:
        raise ValueError(f"images of {side} x {side} pixels are too small to be cut into patches; there must be 4 x 4.")
    return size, stride, grid


def patches(images: Tensor, size: int, stride: int) -> Tensor:
    """Overlapping patches of square images, by row and column.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, H)
    size, stride : int
        See `patch_geometry`.

    Returns
    -------
    patches : Tensor of shape (n, grid, grid, C, size, size)

    Raises
    ------
    ValueError
        If the images are not square.
    """
    height, width = images.shape[2:]
    if height != width:
        raise ValueError(f"only square images are cut into patches; these are {height} x {width}.")
    return images.unfold(2, size, stride).unfold(3, size, stride).permute(0, 2, 3, 1, 4, 5)


def info_nce(predictions: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
    """InfoNCE loss: van den Oord, Li & Vinyals (2018), equation 4, with the candidates of one image each.

    The score of a candidate is its scalar product with the prediction, divided by the root of their length. This only
    rescales what is learned; undivided, scores of long encodings start so far apart that the loss is nearly flat.

    Parameters
    ----------
    predictions : Tensor of shape (n, P, F)
    candidates : Tensor of shape (n, Q, F)
    targets : Tensor of int of shape (P,)
        Which of the candidates each prediction is of; the others are its negatives.

    Returns
    -------
    loss : Tensor of shape (n, P)
    """
    scores = predictions @ candidates.transpose(1, 2) / candidates.shape[2] ** 0.5
    return functional.cross_entropy(scores.transpose(1, 2), targets.expand(len(scores), -1), reduction="none")


class _RowsAbove(nn.Module):
    """A residual block that sees its own row, the one above, and a column to each side; padded with zeros."""

    def __init__(self, width: int):
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 1, 1, 0))
        self.conv1 = nn.Conv2d(width, width, (2, 3))
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.relu(self.conv1(self.pad(functional.relu(x)))))


class ContrastivePrediction(nn.Module):
    """Contrastive predictive coding: predict the encodings of patches from those above them.

    van den Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018). A few convolutions
    sum up what is in a patch's row and in the rows above, never below. From there one linear map for each step predicts
    the encoding of the patch so many rows below, to be told from all other patches of the same image. There are no
    negatives from other images, which batch normalisation of the encoder would give away: appendix C of Ahmed &
    Courville (2020). So nothing here depends on the rest of a batch.

    The paper gives no network; this one is ours, as is the standardisation of each encoding.

    Parameters
    ----------
    n_features : int
        Length of an encoding.
    grid : int
        Patches in a row, and rows.
    n_steps : int or None, default=None
        How many rows below are predicted; None is 5, as van den Oord et al., or all there are.
    hidden_size : int or None, default=None
        Channels of the context network; None is ``n_features``.

    Raises
    ------
    ValueError
        If the grid has fewer rows than the steps need.
    """

    def __init__(self, n_features: int, grid: int, n_steps: int | None = None, hidden_size: int | None = None):
        super().__init__()
        n_steps = min(5, grid - 1) if n_steps is None else n_steps
        if not 1 <= n_steps < grid:
            raise ValueError(f"in a grid of {grid} rows there can be 1 to {grid - 1} steps; got n_steps={n_steps}.")
        self.grid = grid
        width = n_features if hidden_size is None else hidden_size
        blocks = [_RowsAbove(width) for _ in range(_CONTEXT_ROWS)]
        self.context = nn.Sequential(nn.Conv2d(n_features, width, 1), *blocks, nn.ReLU())
        self.steps = nn.ModuleList(nn.Linear(width, n_features, bias=False) for _ in range(n_steps))

    def forward(self, encodings: Tensor) -> Tensor:
        """The loss of each image: the mean InfoNCE of all its predictions.

        Parameters
        ----------
        encodings : Tensor of shape (n, grid, grid, n_features)

        Returns
        -------
        loss : Tensor of shape (n,)

        Raises
        ------
        ValueError
            If there are more or fewer patches.
        """
        grid = self.grid
        if encodings.shape[1:3] != (grid, grid):
            raise ValueError(f"there must be {grid} x {grid} patches; got {tuple(encodings.shape[1:3])}.")
        # Each encoding standardised: nothing else bounds it, and a heavy loss would blow it up until training diverges.
        encodings = functional.layer_norm(encodings, encodings.shape[3:])
        context = self.context(encodings.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        candidates = encodings.flatten(1, 2)
        numbers = torch.arange(grid * grid, device=encodings.device)
        losses = [
            # Row by row, the patch so many rows below has a number so much greater.
            info_nce(predict(context[:, :-step]).flatten(1, 2), candidates, numbers[step * grid :])
            for step, predict in enumerate(self.steps, start=1)
        ]
        return torch.cat(losses, 1).mean(1)
