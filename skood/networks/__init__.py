"""Plain torch modules; they know nothing of scikit-learn."""

from .build import class_weights, find_head, make_classifier, make_network, tap, widen_head
from .cnn import SmallCNN
from .conv_vae import ConvDecoder, ConvEncoder
from .mlp import MLP, ResidualMLP
from .multi_task import (
    ContrastivePrediction,
    MultiTask,
    TaskNorm,
    patch_geometry,
    patches,
    separate_norms,
    symmetric_padding,
    task,
)
from .wide_resnet import WideResNet, small_wide_resnet

__all__ = [
    "MLP",
    "ContrastivePrediction",
    "ConvDecoder",
    "ConvEncoder",
    "MultiTask",
    "ResidualMLP",
    "SmallCNN",
    "TaskNorm",
    "WideResNet",
    "class_weights",
    "find_head",
    "make_classifier",
    "make_network",
    "patch_geometry",
    "patches",
    "separate_norms",
    "small_wide_resnet",
    "symmetric_padding",
    "tap",
    "task",
    "widen_head",
]
