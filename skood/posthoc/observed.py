"""Trained classifiers of all kinds, observed in one way: what `OODScorer` scores.

Each adapter has

- ``steps``: fitted transformers that rows go through first;
- ``look(X, trial, represent, layer)``, called before what follows: finds it out on the rows at the indices ``trial``;
- ``classes_``, in the order of the logits;
- ``lacks``: why a response of `skood.scores.METHODS` cannot be had, by its name;
- ``apply(function, X, rows, represent)``: ``function(network, tensor)``, or what stands for these, over rows of X;
- ``logits``, ``logits_and_features``, ``rotation_logits``: such functions; and ``weights()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from scipy.special import expit, log_softmax, logsumexp, softmax
from sklearn.base import OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..estimator.classes import ClassLearner
from ..networks import class_weights
from ..networks.probe import Call, recorded
from ..open_set import OpenSetClassifier
from ..scores import odin
from ..training.scoring import apply_in_chunks

_NO_ROTATION = "the classifier has no trained head that tells transformations apart, as RotationAuxClassifier may have"
_NO_LAYER = "the classifier's logits are not what a last linear layer (torch.nn.Linear) gives"

_softmax, _log_softmax = partial(softmax, axis=1), partial(log_softmax, axis=1)


class TorchClassifier:
    """A torch module, or that of a skorch net."""

    def __init__(self, module: nn.Module, classes=None):
        # A compiled module would be compiled anew for each of the copies that score.
        self.module = getattr(module, "_orig_mod", module)
        if any(is_lazy(parameter) for parameter in self.module.parameters()):
            raise NotFittedError(_not_fitted(module))
        self.given_classes = classes
        self.steps: list = []

    def look(self, X, trial, represent, layer):
        self.layer = None if layer is None else _layer_name(self.module, layer)
        self.lacks = {"rotation_logits": _NO_ROTATION}
        found: dict[str, Any] = {}
        both = self.apply(partial(self._try_out, found), X, trial, represent)
        result, *fronts = np.split(both, 1 + len(found["heads"]), axis=1)
        # One output is the logit of the second of two classes.
        self.classes_ = _matched_classes(self.given_classes, max(2, result.shape[1]))

        known = _origin(result, dict(zip(found["heads"], fronts, strict=True)))
        linear = known is not None
        self.head, self.source = known or (found["last"] if self.layer is None else None, "result")
        if not linear and result.shape[1] > 1:
            if (result >= 0).all() and np.allclose(result.sum(1), 1, atol=1e-4):
                self.source = "logarithm"
            if self.source == "logarithm" or np.allclose(logsumexp(result, axis=1), 0, atol=1e-4):
                self.lacks |= dict.fromkeys(("logits", "gradient"), "the classifier gives probabilities, no logits")
        if self.head is None and self.layer is None:
            self.lacks["features"] = "the classifier ends in no linear layer (torch.nn.Linear); name another layer"
        if self.layer is not None:
            self.lacks["weight"] = _other_layer(self.layer)
        elif not linear:
            self.lacks["weight"] = _NO_LAYER
        if "gradient" not in self.lacks:
            try:
                self.apply(lambda module, rows: odin(partial(self.logits, module), rows), X, trial, represent)
            except RuntimeError:
                self.lacks["gradient"] = "the classifier gives no gradient with respect to its rows"

    def _try_out(self, found: dict, module: nn.Module, rows: Tensor) -> Tensor:
        """The module's outputs, and beside them those of the linear layers that may be what gives them."""
        linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        try:
            result, ran = _watched(_outputs_of, module, rows, {*linear, self.layer} - {None})
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            shape = tuple(rows.shape[1:])
            raise ValueError(
                f"classifier does not take rows of shape {shape}, of float64 as in scoring: {error}"
            ) from error
        if self.layer is not None:
            _layer_features(ran, self.layer, len(rows))
        if result.ndim != 2 or len(result) != len(rows):
            raise ValueError(
                f"classifier gives {tuple(result.shape)} for {len(rows)} rows; it must give each a logit for each "
                f"class, (n_samples, n_classes)."
            )
        # A layer that looks at parts of a row apart from each other, as at words, has no features of a row.
        ran = [(name, given) for name, taken, given in ran if name in linear and len(taken) == len(rows)]
        heads = {name: given for name, given in ran if given.shape == result.shape}
        found["heads"], found["last"] = list(heads), ran[-1][0] if ran else None
        return torch.cat([result, *heads.values()], 1)

    def apply(self, function, X, rows, represent):
        return apply_in_chunks(self.module, X, rows, represent, function)

    def logits(self, module, rows):
        names = [self.head] if self.source == "head" else []
        return self._logits_of(*_watched(_outputs_of, module, rows, names))

    def logits_and_features(self, module, rows):
        result, ran = _watched(_outputs_of, module, rows, {self.head, self.layer} - {None})
        logits = self._logits_of(result, ran)
        if self.layer is not None:
            return logits, _layer_features(ran, self.layer, len(rows))
        return logits, next(taken for name, taken, _ in reversed(ran) if name == self.head).flatten(1)

    def _logits_of(self, result: Tensor, ran: list) -> Tensor:
        if self.source == "head":
            result = next(given for name, _, given in reversed(ran) if name == self.head)
        if self.source == "logarithm":
            result = result.clamp_min(torch.finfo(result.dtype).tiny).log()
        return torch.cat([-result / 2, result / 2], 1) if result.shape[1] == 1 else result

    def weights(self):
        head = self.module.get_submodule(self.head)
        return tuple(map(_both_classes, class_weights(head, len(self.classes_))))


class SkoodClassifier:
    """A fitted detector with classes."""

    def __init__(self, detector: ClassLearner):
        self.detector, self.classes_, self.steps = detector, detector.classes_, []
        self.image_shape = detector.image_shape_

    def check_rows(self, X):
        return self.detector._check_rows(X, reset=False)

    def look(self, X, trial, represent, layer):
        self.layer = None if layer is None else _layer_name(self.detector.module_, layer)
        self.lacks = {} if getattr(self.detector, "_has_rotation_head", False) else {"rotation_logits": _NO_ROTATION}
        if self.layer is not None:
            self.lacks["weight"] = _other_layer(self.layer)
        for name, respond in {
            "weight": self.weights,
            "features": partial(self.apply, self._features, X, trial),
        }.items():
            try:
                respond()
            except AttributeError:
                self.lacks.setdefault(name, _NO_LAYER)

    def _features(self, module, rows):
        return self.logits_and_features(module, rows)[1]

    def apply(self, function, X, rows=None, represent=None):
        # Rows are represented as they were in its training.
        return self.detector._apply(function, X, rows)

    def logits(self, module, rows):
        return self.detector._class_logits(module, rows)

    def logits_and_features(self, module, rows):
        if self.layer is None:
            return self.detector._logits_and_features(module, rows)
        logits, ran = _watched(self.detector._class_logits, module, rows, [self.layer])
        return logits, _layer_features(ran, self.layer, len(rows))

    def rotation_logits(self, module, rows):
        return self.detector._rotation_logits(module, rows)

    def weights(self):
        return self.detector._class_weights()


class SklearnClassifier:
    """A fitted scikit-learn classifier, or one that is like it; in place of a network it is asked itself."""

    image_shape = None

    def __init__(self, estimator):
        self.estimator, self.classes_, self.steps = estimator, np.asarray(estimator.classes_), []
        if self.classes_.ndim != 1 or (self.classes_.dtype.kind == "O" and isinstance(estimator.classes_, list)):
            raise ValueError(f"{type(estimator).__name__} gives each row several labels; there must be one.")

    def check_rows(self, X):
        return X

    def look(self, X, trial, represent, layer):
        name = type(self.estimator).__name__
        if layer is not None:
            raise ValueError(f"layer is for torch networks; {name} has none. Leave layer=None.")
        self.lacks = {"rotation_logits": _NO_ROTATION, "gradient": f"{name} gives no gradient"}
        rows = _safe_indexing(X, trial)
        self.decides = self._decision(rows) is not None
        if not self.decides:
            if not hasattr(self.estimator, "predict_proba"):
                raise ValueError(
                    f"{name} has no predict_proba, and no decision_function with a column for each of its "
                    f"{len(self.classes_)} classes (SVC has one with decision_function_shape='ovr')."
                )
            self.lacks["logits"] = f"{name} gives probabilities, no logits"
        try:
            features = self._features(rows)
        except ValueError as error:
            self.lacks["features"] = f"the input of {name} does not do as features: {error}"
            features = None
        # That there are coefficients does not tell of what: those of a linear SVC are of pairs of classes.
        linear = False
        if self.decides and features is not None and hasattr(self.estimator, "coef_"):
            weight, bias = self.weights()
            linear = weight.shape == (len(self.classes_), features.shape[1])
            linear = linear and _same(features @ weight.T + bias, self._scores(rows))
        if not linear:
            self.lacks["weight"] = f"the logits of {name} are not linear in its input"

    def apply(self, function, X, rows=None, represent=None):
        return function(self.estimator, X if rows is None else _safe_indexing(X, rows)).numpy()

    def logits(self, estimator, rows):
        return torch.from_numpy(self._scores(rows))

    def logits_and_features(self, estimator, rows):
        return self.logits(estimator, rows), torch.from_numpy(self._features(rows))

    def weights(self):
        weight = self.estimator.coef_
        weight = np.atleast_2d(weight.toarray() if issparse(weight) else np.asarray(weight, dtype=np.float64))
        bias = np.broadcast_to(np.asarray(self.estimator.intercept_, dtype=np.float64), len(weight))
        return _both_classes(weight), _both_classes(bias)

    def _scores(self, X) -> np.ndarray:
        """Logits, or logarithms of probabilities."""
        if self.decides:
            return self._decision(X)
        probability = np.asarray(self.estimator.predict_proba(X), dtype=np.float64)
        return np.log(np.maximum(probability, np.finfo(np.float64).tiny))

    def _decision(self, X) -> np.ndarray | None:
        """``decision_function``, a column a class; None if it has no such."""
        # With three classes, those of pairs of classes are three as well.
        by_pairs = getattr(self.estimator, "decision_function_shape", None) == "ovo" and len(self.classes_) > 2
        if by_pairs or not hasattr(self.estimator, "decision_function"):
            return None
        decision = np.asarray(self.estimator.decision_function(X), dtype=np.float64)
        decision = _both_classes(decision.reshape(len(decision), -1).T).T
        return decision if decision.shape[1] == len(self.classes_) else None

    def _features(self, X) -> np.ndarray:
        return check_array(X.toarray() if issparse(X) else X, dtype=np.float64)


def adapted(classifier):
    """The adapter to a trained classifier, whatever it is wrapped in."""
    given, steps = classifier, []
    while True:
        if isinstance(classifier, FrozenEstimator):
            classifier = classifier.estimator
        elif isinstance(classifier, Pipeline):
            steps += [step for _, step in classifier.steps[:-1] if hasattr(step, "transform")]
            classifier = classifier.steps[-1][1]
        elif isinstance(classifier, OpenSetClassifier) and hasattr(classifier, "detector_"):
            classifier = classifier.detector_
        elif hasattr(classifier, "best_estimator_"):
            classifier = classifier.best_estimator_
        else:
            break
    adapter = _adapter_to(classifier, given)
    adapter.steps = steps
    return adapter


def _adapter_to(classifier, given):
    if isinstance(classifier, nn.Module):
        return TorchClassifier(classifier)
    try:
        check_is_fitted(classifier)
        # A skorch net has attributes before it has a module.
        fitted = getattr(classifier, "initialized_", True)
    except NotFittedError:
        fitted = False
    if not fitted:
        raise NotFittedError(_not_fitted(given))
    if isinstance(classifier, ClassLearner):
        return SkoodClassifier(classifier)
    predicts = hasattr(classifier, "predict") and not isinstance(classifier, OutlierMixin)
    if predicts and isinstance(getattr(classifier, "module_", None), nn.Module):
        return TorchClassifier(classifier.module_, getattr(classifier, "classes_", None))
    answers = any(hasattr(classifier, name) for name in ("decision_function", "predict_proba"))
    if isinstance(classifier, OutlierMixin) or not answers or not hasattr(classifier, "classes_"):
        raise ValueError(
            f"classifier={type(classifier).__name__} tells no classes apart. Pass a torch module, a skorch net, a "
            f"skood detector with classes, or a scikit-learn classifier with decision_function or predict_proba."
        )
    return SklearnClassifier(classifier)


def _not_fitted(classifier) -> str:
    return (
        f"classifier is not fitted: OODScorer scores a classifier that is trained already, and does not train this "
        f"{type(classifier).__name__}. Fit it first; where it would be cloned, as a value in a search, put it into "
        f"sklearn.frozen.FrozenEstimator."
    )


def _matched_classes(given, n_outputs: int) -> np.ndarray:
    """Classes in the order of a network's outputs, which without any are their numbers."""
    numbers = np.arange(n_outputs)
    if given is None:
        return numbers
    given = np.asarray(given)
    if len(given) == n_outputs:
        return given
    # skorch takes labels for numbers of outputs, and knows those alone that its y held.
    if np.isin(given, numbers).all():
        return numbers
    raise ValueError(f"classifier has {len(given)} classes but {n_outputs} outputs; there must be one for each class.")


def _layer_name(module: nn.Module, layer: str | nn.Module) -> str:
    """The name of a layer, given by it or itself."""
    names = {id(part): name for name, part in module.named_modules() if name}
    if isinstance(layer, nn.Module) and id(layer) in names:
        return names[id(layer)]
    if isinstance(layer, str) and layer in dict(module.named_modules()) and layer:
        return layer
    some = list(names.values())[-10:]
    shown = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
    raise ValueError(
        f"layer is {shown}, no layer of the classifier. Its {'last ' if len(names) > len(some) else ''}layers are "
        f"{', '.join(map(repr, some)) or 'none'}."
    )


def _watched(
    function: Callable[[nn.Module, Tensor], Any], module: nn.Module, rows: Tensor, names: Iterable[str]
) -> tuple[Any, list[Call]]:
    """Return ``function(module, rows)``, and the calls of these layers of the module in the order they ended."""
    # Copied, for what comes next may work in place.
    with recorded(module, gives=names, keep=lambda output: _first(output).clone()) as calls:
        return function(module, rows), calls


def _origin(result: np.ndarray, given: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
    """The layer that gives the logits, of these in the order they ran, and where these are: the result or its own."""
    for name, front in reversed(given.items()):
        if _same(result, front):
            return name, "result"
        if any(_same(result, squash(front)) for squash in (_softmax, _log_softmax, expit)):
            return name, "head"
    return None


def _outputs_of(module: nn.Module, rows: Tensor) -> Tensor:
    return _first(module(rows))


def _first(value) -> Tensor:
    """A layer's outputs, a row for each row, where it gives more than that: the first, or what is named ``logits``."""
    value = getattr(value, "logits", value)
    value = value[0] if isinstance(value, (tuple, list)) and len(value) else value
    if not isinstance(value, Tensor) or value.ndim == 0:
        raise ValueError(f"a {type(value).__name__} where a tensor of (n_samples, ...) is needed")
    return value[:, None] if value.ndim == 1 else value


def _layer_features(ran: list, layer: str, n_rows: int) -> Tensor:
    """What a layer gave, as features: maps are averaged over their pixels."""
    given = [output for name, _, output in ran if name == layer]
    if not given:
        raise ValueError(f"layer {layer!r} has no part in what the classifier gives; choose another.")
    if len(given[-1]) != n_rows:
        raise ValueError(f"layer {layer!r} gives {tuple(given[-1].shape)} for {n_rows} rows; choose another.")
    return given[-1].mean((2, 3)) if given[-1].ndim == 4 else given[-1].flatten(1)


def _other_layer(layer: str) -> str:
    return f"the weights of the last layer go with its own input, and layer={layer!r} is given"


def _both_classes(values: np.ndarray) -> np.ndarray:
    """Of two classes, the first axis: a single logit is that of the second, less that of the first."""
    return np.concatenate([-values / 2, values / 2]) if len(values) == 1 else values


def _same(values: np.ndarray, others: np.ndarray) -> bool:
    # MPS computes in float32.
    return values.shape == others.shape and np.allclose(values, others, rtol=1e-4, atol=1e-6, equal_nan=True)
