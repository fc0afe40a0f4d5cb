"""Write a step of scikit-learn as an ONNX model, by skl2onnx."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.impute import SimpleImputer

if TYPE_CHECKING:
    import onnx

__all__ = ["IR_VERSION", "OPSET", "Input", "first_line", "step_model"]

# Versions of ONNX's operators and format. They must be the same in all parts, so that the parts can be joined.
OPSET, _ML_OPSET, IR_VERSION = 18, 3, 8


class Input(NamedTuple):
    """Describe an input of a model: its name, its dtype, and the shape of one row."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


def step_model(name: str, step: Any, inputs: list[Input]) -> onnx.ModelProto:
    """Return the model of a step of scikit-learn; raise a ValueError that names the step if it cannot be written."""
    import onnx
    import skl2onnx
    from skl2onnx.common import data_types
    from skl2onnx.shape_calculators.imputer import calculate_sklearn_imputer_output_shapes

    types = {"f4": "Float", "f8": "Double", "i8": "Int64", "u1": "UInt8", "O": "String"}
    initial = [
        (one.name, getattr(data_types, f"{types[one.dtype.str.lstrip('<|')]}TensorType")([None, *one.shape]))
        for one in inputs
    ]
    try:
        model = skl2onnx.convert_sklearn(
            step,
            initial_types=initial,
            target_opset={"": OPSET, "ai.onnx.ml": _ML_OPSET},
            custom_conversion_functions={SimpleImputer: _write_imputer},
            custom_shape_calculators={SimpleImputer: calculate_sklearn_imputer_output_shapes},
        )
    except Exception as error:  # skl2onnx raises errors of many types
        raise _unwritten(name, step, first_line(error)) from error
    # skl2onnx sets the lowest versions that suffice, which differ from those of the other parts.
    del model.opset_import[:]
    model.opset_import.extend(_opsets())
    model.ir_version = IR_VERSION
    # skl2onnx replaces spaces in names.
    names = {place.name: one.name for place, one in zip(model.graph.input, inputs, strict=True)}
    for place in model.graph.input:
        place.name = names[place.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    # skl2onnx writes some steps wrongly. Later, within the whole model, their errors would not name them.
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # onnx, too, raises errors of many types
        raise _unwritten(name, step, f"what skl2onnx writes is no valid model: {first_line(error)}") from error
    _check_outputs(name, step, model)
    return model


def _unwritten(name: str, step: Any, why: str) -> ValueError:
    """Return the error for a step that cannot be written."""
    return ValueError(
        f"step {name!r}, {type(step).__name__}, cannot be written as ONNX: {why.rstrip('.')}. Replace it, or write the "
        f"last step alone: to_onnx(pipeline[-1], path, pipeline[:-1].transform(X))."
    )


def _check_outputs(name: str, step: Any, model: onnx.ModelProto) -> None:
    """Raise a ValueError if the model of a step does not return one matrix with as many columns as the step."""
    outputs = [place.type.tensor_type.shape.dim for place in model.graph.output]
    if len(outputs) != 1:
        raise _unwritten(name, step, f"what skl2onnx writes returns {len(outputs)} results and not the features alone")
    try:
        n_columns = len(step.get_feature_names_out())
    except (AttributeError, ValueError):
        # A transformer need not name its features.
        return
    n_written = outputs[0][1].dim_value if len(outputs[0]) == 2 else 0
    # Where skl2onnx knows no number, it writes none.
    if n_written not in (0, n_columns):
        raise _unwritten(name, step, f"what skl2onnx writes returns {n_written} columns, the step {n_columns}")


def _write_imputer(scope: Any, operator: Any, container: Any) -> None:
    """Write a SimpleImputer of numbers by plain operators, because onnxruntime's imputer does not take float64."""
    from skl2onnx.algebra.onnx_ops import OnnxConcat, OnnxEqual, OnnxIsNaN, OnnxWhere
    from skl2onnx.common.data_types import DoubleTensorType
    from skl2onnx.operator_converters.imputer_op import convert_sklearn_imputer

    imputer, columns = operator.raw_operator, operator.inputs
    marker = imputer.missing_values
    plain = isinstance(marker, Real) and not imputer.add_indicator
    # A constant that the user chose is an object.
    values = imputer.statistics_[None].astype(np.float64) if isinstance(columns[0].type, DoubleTensorType) else None
    if not plain or values is None or np.isnan(values).any():
        convert_sklearn_imputer(scope, operator, container)
        return
    rows = OnnxConcat(*columns, axis=1, op_version=OPSET) if len(columns) > 1 else columns[0]
    is_nan = bool(np.isnan(float(marker)))
    missing = (
        OnnxIsNaN(rows, op_version=OPSET) if is_nan else OnnxEqual(rows, np.array([float(marker)]), op_version=OPSET)
    )
    filled = OnnxWhere(missing, values, rows, op_version=OPSET, output_names=operator.outputs)
    filled.add_to(scope, container)


def _opsets() -> list[onnx.OperatorSetIdProto]:
    import onnx

    return [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition("\n")[0]
