"""Write an estimator, or a Pipeline that ends in one, as an ONNX model that maps raw rows to decisions."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import sklearn
import torch
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import Tensor, nn

from .. import __version__
from .._whole_file import write_whole
from ..encoders.backbone_classifier import BackboneClassifier
from ..encoders.contrastive import SimCLREncoder
from ..encoders.frozen_encoder import FrozenEncoder
from ..estimator.classes import ClassScores
from ..estimator.detector import Detector
from ..estimator.inliers import FitOnInliers
from ..estimator.rows import RowEstimator
from ..estimator.wrapper import DetectorWrapper, inner_attribute, scores_of
from ..open_set import OpenSetClassifier
from ..scores import FittedScore
from ..training.undisturbed import undisturbed
from .steps import IR_VERSION, OPSET, Input, first_line, step_model

if TYPE_CHECKING:
    import onnx

__all__ = ["to_onnx"]

# Rows on which the model is compared with the estimator, and the largest difference as a share of the scores' range.
_COMPARED, _TOLERANCE = 100, 1e-3
# Kinds of numpy dtypes that hold text.
_TEXT = "OUST"
# Rows in the trace; with fewer than two, torch takes the number of rows for a constant.
_TRACED = 3


def to_onnx(estimator: Any, path: str | PathLike, X: Any) -> None:
    """Write a fitted estimator as an ONNX model.

    The model takes raw rows, and any number of them. It contains scaling, encoder, network, score and threshold, and
    the steps before the detector in a Pipeline. Before the file is written, the model runs on rows of X, and its
    outputs are compared with those of the estimator.

    The inputs are one matrix named "X", or one column for each column of a DataFrame, see ``X``. The outputs of a
    detector are

    - ``score`` (n,), float64: what ``score_samples`` returns;
    - ``decision`` (n,), float64: the score minus the threshold;
    - ``label`` (n,), int64: +1 for inliers, -1 for outliers, as ``predict`` of a detector;
    - ``probability`` (n, n_classes), float64, if there are classes: what ``predict_proba`` of a detector returns.

    A row with NaN or infinity, which the estimator refuses, has the score NaN and the label -1.

    The output of an encoder, or of a `skood.BackboneClassifier`, is what ``transform`` returns, ``features``
    (n, n_features), float64. The model's metadata are ``skood``, ``torch`` and
    ``scikit-learn`` (versions), ``estimator``, ``threshold``, and, as JSON, ``feature_names`` and ``classes``.

    Parameters
    ----------
    estimator : estimator
        A fitted detector of skood, `skood.OODScorer`, `skood.FrozenEncoder`, `skood.SimCLREncoder` or
        `skood.BackboneClassifier`; one of these within `skood.ThresholdedDetector`, `skood.ConformalDetector` or
        `skood.OpenSetClassifier`, written with the wrapper's threshold and the detector's outputs; or a Pipeline that
        ends in one. Steps before it are of skood, or scalers, imputers, encoders, PCA and others of scikit-learn that
        skl2onnx translates.
    path : str or Path
        The file, which is replaced if it exists. It is written as a whole, or not at all.
    X : array-like or DataFrame of shape (n_samples, ...)
        Some rows of the kind that the estimator was fitted on. Their dtype is that of the model's input: float32,
        float64, uint8 for images, or text; other numbers become float64. Each column of a DataFrame is an input of its
        own, of shape (n, 1) and named as the column, if a column does not hold numbers or the Pipeline begins with a
        ColumnTransformer; otherwise the input is one matrix of float64.

    Raises
    ------
    ValueError
        If a part of the estimator cannot be written: a score that takes gradients of the network, a step that skl2onnx
        does not know or writes wrongly, a network that torch cannot export. The message names it. Or if a column of a
        DataFrame, as an input of its own, has the name of an output.
    ImportError
        If a package of ``skood[onnx]`` is missing.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import onnxruntime
    >>> from skood import DUMDetector
    >>> from skood.export import to_onnx
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> detector = DUMDetector(max_epochs=5, contamination=0.1, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "detector.onnx")
    ...     to_onnx(detector, path, X)
    ...     session = onnxruntime.InferenceSession(path)
    >>> score, decision, label = session.run(None, {"X": X[:4]})
    >>> bool((label == detector.predict(X[:4])).all())
    True
    """
    check_extra()
    import onnx

    whole = _unwrapped(estimator)
    check_is_fitted(whole.last)
    some = _safe_indexing(X if hasattr(X, "columns") else np.asarray(X), np.arange(min(_num_samples(X), _COMPARED)))
    # The estimator runs first, so that it refuses invalid rows with its own messages.
    expected, fed = _expected(estimator, whole, some), _fed(some, whole)
    model: onnx.ModelProto | None = None
    for name, step in [*whole.steps, ("", whole.last)]:
        inputs = _inputs_of(fed) if model is None else _inputs_after(model)
        if isinstance(step, RowEstimator):
            part = _torch_model(step, whole.offset if step is whole.last else None, inputs)
        else:
            part = step_model(name, step, inputs)
        model = part if model is None else _joined(model, part, name)
    assert model is not None
    _describe(model, estimator, whole)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    _compare(content, expected, fed, bool(whole.steps))
    write_whole(Path(path), content)


def check_extra() -> None:
    """Raise an ImportError that says what to install, if a package is missing."""
    try:
        for package in ("onnx", "onnxruntime", "onnxscript", "skl2onnx"):
            import_module(package)
    except ImportError as error:
        raise ImportError(f"writing ONNX needs {error.name}: pip install 'skood[onnx]'.") from error


# --------------------------------------------------------------------------------------------------------------------
# What is to be written


class _Whole(NamedTuple):
    """Hold the steps before an estimator, the estimator itself, and its threshold."""

    steps: list[tuple[str, Any]]
    last: Any
    offset: float | None


def _unwrapped(estimator: Any) -> _Whole:
    """Return the estimator within Pipelines and wrappers, its steps, and the threshold of the outermost wrapper."""
    if isinstance(estimator, FrozenEstimator):
        return _unwrapped(estimator.estimator)
    if isinstance(estimator, Pipeline):
        before = [step for name, one in estimator.steps[:-1] for step in _flat(name, one)]
        whole = _unwrapped(estimator.steps[-1][1])
        return whole._replace(steps=before + whole.steps)
    if isinstance(estimator, DetectorWrapper):
        check_is_fitted(estimator)
        return _unwrapped(estimator.estimator_)._replace(offset=estimator.offset_)
    if isinstance(estimator, OpenSetClassifier):
        check_is_fitted(estimator)
        return _unwrapped(estimator.detector_)
    if not isinstance(estimator, (Detector, BackboneClassifier, FrozenEncoder, SimCLREncoder)):
        raise ValueError(
            f"estimator={type(estimator).__name__} cannot be written as ONNX here: pass a detector or an encoder of "
            f"skood, or a Pipeline that ends in one. For scikit-learn's estimators use skl2onnx."
        )
    return _Whole([], estimator, getattr(estimator, "offset_", None))


def _flat(name: str, step: Any) -> list[tuple[str, Any]]:
    """Return the steps that a step of a Pipeline consists of; an empty list if it does nothing."""
    if step in (None, "passthrough"):
        return []
    if isinstance(step, Pipeline):
        return [inner for one, part in step.steps for inner in _flat(f"{name}__{one}", part)]
    if isinstance(step, FrozenEstimator):
        return _flat(name, step.estimator)
    if isinstance(step, FitOnInliers):
        return _flat(name, step.transformer_)
    return [(name, step)]


# --------------------------------------------------------------------------------------------------------------------
# What the model takes


def _fed(rows: Any, whole: _Whole) -> dict[str, np.ndarray]:
    """Return the model's inputs for some rows: one matrix, or one array for each column of a DataFrame."""
    first = [*(step for _, step in whole.steps), whole.last][0]
    if not hasattr(rows, "columns"):
        return {"X": _typed(rows, keeps=(np.uint8,) if isinstance(first, RowEstimator) else ())}
    columns = {str(name): np.asarray(rows[name])[:, None] for name in rows.columns}
    if isinstance(first, ColumnTransformer) or any(column.dtype.kind in _TEXT for column in columns.values()):
        # Integers may be categories, so they stay integers.
        return {name: _typed(column, keeps=(np.int64,)) for name, column in columns.items()}
    return {"X": _typed(np.hstack(list(columns.values())))}


def _typed(values: np.ndarray, keeps: tuple[type, ...] = ()) -> np.ndarray:
    """Return values in a dtype that models take: text, float32, float64, or one of ``keeps``."""
    if values.dtype.kind in _TEXT:
        return values.astype(object)
    return values if values.dtype in (np.float32, np.float64, *keeps) else values.astype(np.float64)


def _inputs_of(fed: dict[str, np.ndarray]) -> list[Input]:
    return [Input(name, values.dtype, values.shape[1:]) for name, values in fed.items()]


def _inputs_after(model: onnx.ModelProto) -> list[Input]:
    """Return the input of a part that follows a model."""
    import onnx

    (output,) = model.graph.output
    dtype = onnx.helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type)
    return [Input("X", dtype, tuple(size.dim_value for size in output.type.tensor_type.shape.dim[1:]))]


# --------------------------------------------------------------------------------------------------------------------
# Parts of the model


class _Decisions(nn.Module):
    """Compute score, decision and label of rows, and class probabilities if there are classes."""

    def __init__(self, scorer: nn.Module, offset: float, with_classes: bool):
        super().__init__()
        self.scorer, self.offset, self.with_classes = scorer, offset, with_classes

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in this order, of shape (n,) and (n, n_classes)."""
        answers = self.scorer(rows)
        answers = torch.where(_whole_rows(rows, answers), answers, torch.nan)
        scores = (answers[:, 0] if self.with_classes else answers).double()
        decision = scores - self.offset
        outputs = scores, decision, torch.where(decision >= 0, 1, -1)
        return (*outputs, answers[:, 1:].double().softmax(1)) if self.with_classes else outputs


class _Features(nn.Module):
    """Compute features of rows."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, rows: Tensor) -> Tensor:
        """Return features in float64, as ``transform`` does."""
        features = self.encoder(rows).double()
        return torch.where(_whole_rows(rows, features), features, torch.nan)


def _whole_rows(rows: Tensor, results: Tensor) -> Tensor:
    """Return whether rows hold neither NaN nor infinity, which the estimator refuses; a column if there are columns.

    A network may lose them on the way: by a ReLU, or where it takes the largest of some values.
    """
    if not rows.is_floating_point():
        return torch.ones_like(results, dtype=torch.bool)
    # ONNX has no isfinite; a number minus itself is NaN for NaN and for infinity, and else 0.
    whole = (rows - rows).sum(tuple(range(1, rows.ndim))) == 0
    return whole[:, None] if results.ndim == 2 else whole


def _torch_model(estimator: Any, offset: float | None, inputs: list[Input]) -> onnx.ModelProto:
    """Return the model of a detector with this threshold, or of an encoder."""
    module, names = _module_of(estimator, offset)
    (rows,) = inputs
    example = torch.from_numpy(np.zeros((_TRACED, *rows.shape), rows.dtype))
    try:
        with undisturbed(), _quiet():
            # Not left to torch.onnx: if this fails, it would fall back to tracing, which follows one branch only.
            free = ({0: torch.export.Dim.DYNAMIC},)
            exported = torch.export.export(module.cpu().eval(), (example,), dynamic_shapes=free)
            program = torch.onnx.export(
                exported,
                dynamo=True,
                input_names=[rows.name],
                output_names=names,
                opset_version=OPSET,
                custom_translation_table=_translations(),
                verbose=False,
            )
    except Exception as error:  # torch raises errors of many types
        cause = error.__cause__ or error
        why = f"{type(cause).__name__}: {first_line(cause)}"
        if "Constraints violated" in why:
            # torch names a variable of its own there.
            why = (
                "it takes the number of rows for a constant, as does len(rows). Use rows.shape[0] in its forward, or "
                "rows.flatten(1) instead of rows.view(len(rows), -1)"
            )
        raise ValueError(
            f"{type(estimator).__name__} cannot be written as ONNX, because torch cannot export its network: "
            f"{why.rstrip('.')}."
        ) from error
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    # Shapes of intermediate values, in which torch uses names of its own.
    del model.graph.value_info[:]
    return model


def _module_of(estimator: Any, offset: float | None) -> tuple[nn.Module, list[str]]:
    """Return a module that maps rows to outputs, and the names of the outputs."""
    if offset is None:
        return _Features(estimator.to_torch()), ["features"]
    for score in (getattr(estimator, "_post_hoc", None), getattr(estimator, "_score", None)):
        if isinstance(score, FittedScore) and score.asks_network:
            raise ValueError(
                f"{type(estimator).__name__} cannot be written as ONNX: its score, {score.name!r}, needs gradients of "
                f"the network, which ONNX models do not have. Choose another score."
            )
    with_classes = isinstance(estimator, ClassScores)
    scorer = estimator._scorer("_score_beside_logits" if with_classes else "_raw_score")
    outputs = ["score", "decision", "label", *["probability"][: int(with_classes)]]
    return _Decisions(scorer, float(offset), with_classes), outputs


def _translations() -> dict[Any, Any]:
    """Return translations of operators that torch's exporter does not know."""
    import onnxscript

    # onnxscript's type annotations do not allow an output as an input.
    op: Any = onnxscript.opset18

    def distances(queries: Any, rows: Any, p: float, compute_mode: int) -> Any:
        """Write Euclidean distances by matrix products, in double precision and relative to the mean of the rows."""
        one, middle = op.Constant(value_ints=[1]), op.ReduceMean(rows, op.Constant(value_ints=[0]), keepdims=1)
        queries, rows = op.Sub(queries, middle), op.Sub(rows, middle)
        squares = op.Transpose(op.ReduceSumSquare(rows, one, keepdims=1), perm=[1, 0])
        products = op.MatMul(queries, op.Transpose(rows, perm=[1, 0]))
        both = op.Add(op.ReduceSumSquare(queries, one, keepdims=1), squares)
        # By rounding, the squared distance of a row to itself may be slightly negative.
        return op.Sqrt(op.Relu(op.Sub(both, op.Add(products, products))))

    def sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        """Write a sort as the top k of all values; ONNX, too, keeps the order of equal values."""
        size = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
        return op.TopK(values, size, axis=dim, largest=int(descending))

    return {torch.ops.aten._cdist_forward.default: distances, torch.ops.aten.sort.stable: sort}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence messages of torch's exporter about packages that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch and onnxscript warn about each other's versions.
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


# --------------------------------------------------------------------------------------------------------------------
# The whole model


def _joined(first: onnx.ModelProto, second: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a model in which the second one takes the output of the first one."""
    from onnx import compose

    # All names must differ. Only the inputs of the whole model and the outputs of its last part, which has no name as a
    # step, keep theirs.
    first = compose.add_prefix(first, f"before {name}/", rename_inputs=False)
    second = compose.add_prefix(second, f"{name}/", rename_outputs=name != "")
    both = {one.name for one in first.graph.input} & {one.name for one in second.graph.output}
    if both:
        raise ValueError(f"column {min(both)!r} has the name of an output of the model; rename it before the fit.")
    return compose.merge_models(first, second, io_map=[(first.graph.output[0].name, second.graph.input[0].name)])


def _describe(model: onnx.ModelProto, estimator: Any, whole: _Whole) -> None:
    """Write the model's metadata: versions, estimator, threshold, names of features and classes."""
    import onnx

    facts = {
        "skood": __version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "estimator": type(whole.last).__name__,
    }
    if whole.offset is not None:
        facts["threshold"] = repr(float(whole.offset))
    names = inner_attribute(estimator, "feature_names_in_")
    if names is not None:
        facts["feature_names"] = json.dumps(names.tolist())
    if isinstance(whole.last, ClassScores):
        facts["classes"] = json.dumps(whole.last.classes_.tolist())
    onnx.helper.set_model_props(model, facts)
    for one in [*model.graph.input, *model.graph.output]:
        one.type.tensor_type.shape.dim[0].dim_param = "n"
    model.producer_name, model.producer_version = "skood", __version__


def _compare(model: bytes, expected: np.ndarray, fed: dict[str, np.ndarray], has_steps: bool) -> None:
    """Raise a ValueError if the model does not run, or gives other scores or features than the estimator."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        (given,) = session.run(session.get_outputs()[0].name.split(), fed)
    except Exception as error:  # onnxruntime raises errors of many types
        raise ValueError(f"the model cannot be run by onnxruntime: {first_line(error)}") from error
    apart = np.abs(given - expected).max()
    allowed = _TOLERANCE * max(np.ptp(expected), np.abs(expected).max() * _TOLERANCE)
    if not (given.shape == expected.shape and apart <= allowed):
        reason = (
            f"which differ by {np.ptp(expected):.3g} there, too little to tell. Pass rows of which some are outliers."
        )
        if has_steps:
            reason = "and skl2onnx may translate a step before the last one inexactly. Replace that step."
        raise ValueError(
            f"the model gives other results than the estimator for rows of X, by up to {apart:.3g}, {reason} Nothing "
            f"was written."
        )


def _expected(estimator: Any, whole: _Whole, rows: Any) -> np.ndarray:
    """Return the first output that the model must give for rows."""
    return scores_of(estimator, rows) if isinstance(whole.last, Detector) else np.asarray(estimator.transform(rows))
