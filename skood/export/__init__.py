"""Export fitted estimators: as ONNX models, and as files that hold no code.

This needs ``pip install 'skood[onnx]'`` and ``pip install 'skood[files]'``. A page of the documents, "Taking a detector
somewhere", shows all ways.
"""

from .onnx_model import to_onnx
from .skops_types import skops_trusted_types

__all__ = ["skops_trusted_types", "to_onnx"]
