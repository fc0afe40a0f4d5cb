"""Plain torch modules; they know nothing of scikit-learn."""

from .build import make_classifier, make_network, resnet_if_large
from .cnn import SmallCNN
from .contrastive_prediction import ContrastivePrediction, patch_geometry, patches
from .conv_vae import ConvDecoder, ConvEncoder
from .features import Features, Pooling, feature_layer, layers_before
from .heads import class_weights, split_head, widen_head
from .hypersphere import HypersphereNetwork, initialised
from .mlp import MLP, ResidualMLP
from .multi_task import MultiTask
from .neighbors import NearestRows
from .norms import TaskNorm, join_norms, own_norms, separate_norms, task
from .padding import symmetric_padding
from .probe import find_head, tap
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
    "Features",
    "HypersphereNetwork",
    "ImageNetResNet",
    "MultiTask",
    "NearestRows",
    "Pooling",
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
    "feature_layer",
    "find_head",
    "initialised",
    "join_norms",
    "layers_before",
    "load_adapter_state",
    "make_classifier",
    "make_network",
    "own_norms",
    "patch_geometry",
    "patches",
    "resnet_if_large",
    "separate_norms",
    "share",
    "small_wide_resnet",
    "split_head",
    "symmetric_padding",
    "tap",
    "task",
    "widen_head",
]
