"""Plain torch modules; they know nothing of scikit-learn."""

from .mlp import MLP, ResidualMLP

__all__ = ["MLP", "ResidualMLP"]
