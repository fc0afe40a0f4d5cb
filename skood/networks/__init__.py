"""Plain torch modules; they know nothing of scikit-learn."""

from .build import class_weights, find_head, make_classifier, make_network, tap, widen_head
from .cnn import SmallCNN
from .contrastive_prediction import ContrastivePrediction, patch_geometry, patches
from .conv_vae import ConvDecoder, ConvEncoder
from .hypersphere import HypersphereNetwork, initialised
from .mlp import MLP, ResidualMLP
from .multi_task import MultiTask, split_head
from .norms import TaskNorm, own_norms, separate_norms, task
from .padding import symmetric_padding
from .projected import Projected
from .residual_adapter import (
    AdaptedLayer,
    adaptable_layers,
    adapter_state,
    adapters_of,
    add_residual_adapters,
    load_adapter_state,
    share,
)
from .resnet import ImageNetResNet, ResNet
from .wide_resnet import WideResNet, small_wide_resnet

__all__ = [
    "MLP",
    "AdaptedLayer",
    "ContrastivePrediction",
    "ConvDecoder",
    "ConvEncoder",
    "HypersphereNetwork",
    "ImageNetResNet",
    "MultiTask",
    "Projected",
    "ResNet",
    "ResidualMLP",
    "SmallCNN",
    "TaskNorm",
    "WideResNet",
    "adaptable_layers",
    "adapter_state",
    "adapters_of",
    "add_residual_adapters",
    "class_weights",
    "find_head",
    "initialised",
    "load_adapter_state",
    "make_classifier",
    "make_network",
    "own_norms",
    "patch_geometry",
    "patches",
    "separate_norms",
    "share",
    "small_wide_resnet",
    "split_head",
    "symmetric_padding",
    "tap",
    "task",
    "widen_head",
]
