"""Plain torch modules; they know nothing of scikit-learn."""

from .build import find_head, make_classifier, make_network, widen_head
from .cnn import SmallCNN
from .conv_vae import ConvDecoder, ConvEncoder
from .mlp import MLP, ResidualMLP
from .wide_resnet import WideResNet

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "ResidualMLP",
    "SmallCNN",
    "WideResNet",
    "find_head",
    "make_classifier",
    "make_network",
    "widen_head",
]
