"""Observe trained classifiers of all kinds in the same way, for `OODScorer`.

There is an adapter for each kind of classifier. Each adapter has

- ``steps``: the fitted transformers that rows go through first;
- ``look(X, trial, represent, layers)``: a method that tries the classifier on the rows of X at the indices ``trial``,
  and sets ``classes_`` and ``lacks``, and with ``layers`` also ``sizes``, their numbers of features;
- ``classes_``: the classes, in the order of the logits;
- ``lacks``: a dict that maps each response in `skood.scores.METHODS` that the classifier does not have to the reason;
- ``apply(function, X, indices, represent)``: a method that returns ``function(network, tensor)`` for rows of X; for a
  scikit-learn classifier, ``function(estimator, rows)``;
- ``logits``, ``logits_and_features``, ``rotation_logits``: such functions;
- ``weights()``: a method that returns weights and biases of the last layer;
- ``has_threshold``: whether `predict` of the classifier returns other classes than those with the largest logits; then
  ``predicted``, such a function, returns the indices of these classes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from sklearn.base import OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._warn import warn_user
from ..encoders.trained import frozen
from ..estimator.classes import ClassLearner
from ..networks import class_weights
from ..networks.probe import Call, reason, rows_together
from ..open_set import OpenSetClassifier
from ..scores import odin_log_odds
from ..training.batches import Represent, to_tensor
from ..training.scoring import Respond, apply_in_blocks, device_of
from .detectors import SkoodClassifier
from .estimators import SklearnClassifier
from .layers import (
    NO_LAYER,
    NO_ROTATION,
    Head,
    Layers,
    NoOutputsError,
    ask_for_layer,
    equal_up_to_rounding,
    features_of,
    first_output,
    layer_name,
    mean_of_maps,
    origin,
    other_layer,
    outputs_of,
    product_of,
    watched,
)

# Factor that puts rows far away.
_FAR = 1000.0
_OTHER_WEIGHTS = "the weights and biases of the last linear layer do not give the classifier's logits by themselves"


class TorchClassifier:
    """Observe a torch module, or the module of a skorch net.

    Parameters
    ----------
    module : torch.nn.Module
        The trained module.
    classes : array-like or None, default=None
        The classes that a skorch net knows; None for a plain module.
    threshold : float, default=0.5
        Probability above which a skorch net for two classes predicts the second one.
    nonlinearity : callable or None, default=None
        What a skorch net makes of the module's outputs, if the user chose it.
    """

    # For `skood._plain`.
    _holds_modules = True
    # Shape of a row as the module takes it, set by `look`.
    _in_shape: tuple[int, ...] | None = None

    def __init__(
        self,
        module: nn.Module,
        classes: Any = None,
        threshold: float = 0.5,
        nonlinearity: Callable[[Any], Any] | None = None,
    ):
        # Each copy of a compiled module would be compiled again.
        self.module = getattr(module, "_orig_mod", module)
        if any(is_lazy(parameter) for parameter in self.module.parameters()):
            raise NotFittedError(_not_fitted(module))
        self.given_classes, self.threshold, self.nonlinearity = classes, threshold, nonlinearity
        self.steps: list[Any] = []

    @property
    def has_threshold(self) -> bool:
        """Return whether the net predicts other classes than those with the largest logits."""
        return self.threshold != 0.5

    def look(self, X: Any, trial: np.ndarray, represent: Represent, layers: Layers) -> None:
        """Find out what the module returns, and which of its layers computes it."""
        self.layers = [layer_name(self.module, layer) for layer in layers]
        self.lacks = {"rotation_logits": NO_ROTATION}
        self._taken_for_logits = ""
        self._in_shape = self._shape_of(X, trial, represent)
        result, head = self._found_head(X, trial, represent)
        if self._taken_for_logits:
            warn_user(
                f"classifier returns several outputs, and the first counts as the logits; but it is what the layer "
                f"{self._taken_for_logits!r} takes, whose own output is returned, too. If that one holds the logits, "
                f"return it first, or name it 'logits'.",
                UserWarning,
            )
        # A row in other company: alone, in a block that is filled up.
        if not equal_up_to_rounding(result[:1], self.apply(outputs_of, X, trial[:1], represent)):
            raise ValueError(rows_together("classifier"))
        # A single output is the logit of the second of two classes.
        self.classes_ = _matched_classes(self.given_classes, max(2, result.shape[1]))

        self.head: str | None
        self.head, self.source, self.factor = head.name, head.source, head.factor
        if self.head is None:
            single = result.shape[1] == 1
            if self._is_one_probability(result, X, trial, represent) if single else _sum_to_one(result):
                self.source = "logarithm"
            if self.source == "logarithm" or (not single and np.allclose(logsumexp(result, axis=1), 0, atol=1e-4)):
                self.lacks |= dict.fromkeys(("logits", "gradient"), "the classifier gives probabilities, no logits")
        if self.layers:
            self.lacks["weight"] = other_layer(self.layers)
        elif self.head is None:
            self.lacks |= {"weight": NO_LAYER, "features": ask_for_layer(self, X, trial, represent)}
        elif not head.linear:
            self.lacks["weight"] = _OTHER_WEIGHTS
        if "gradient" not in self.lacks:
            try:
                self.apply(lambda module, rows: odin_log_odds(partial(self.logits, module), rows), X, trial, represent)
            except RuntimeError:
                self.lacks["gradient"] = "the classifier gives no gradient with respect to its rows"
        if self.nonlinearity is not None:
            self._compare_with_the_net(self.nonlinearity, X, trial, represent)

    def _compare_with_the_net(
        self, nonlinearity: Callable[[Any], Any], X: Any, trial: np.ndarray, represent: Represent
    ) -> None:
        """Warn if a skorch net makes other probabilities of the module's outputs than this adapter."""
        own = softmax(self.apply(self.logits, X, trial, represent), axis=1)
        nets = self.apply(partial(_of_the_net, nonlinearity), X, trial, represent)
        if nets.shape != own.shape or (nets.argmax(1) != own.argmax(1)).any():
            differs = True
        else:
            # The net may also be made to give logits, which are no other probabilities.
            differs = _sum_to_one(nets) and not np.allclose(nets, own, atol=1e-4)
        if differs:
            warn_user(
                "classifier is a skorch net with a predict_nonlinearity, which is not applied: scores, probabilities "
                "and classes come from the outputs of its module, and differ from those of the net. For a softmax of "
                "divided outputs, set temperature; otherwise pass a torch module that applies it.",
                UserWarning,
            )

    def _shape_of(self, X: Any, trial: np.ndarray, represent: Represent) -> tuple[int, ...]:
        """Return the shape of a row as the module takes it."""
        return tuple(to_tensor(X, trial[:1], represent, device_of(self.module)).shape[1:])

    def _is_one_probability(self, result: np.ndarray, X: Any, trial: np.ndarray, represent: Represent) -> bool:
        """Return whether the single output for some rows is a probability: in [0, 1], for rows far away, too."""
        # The logits of a few rows may all lie in [0, 1] by chance, but those of rows far away hardly do.
        outputs = [result]
        for factor in (_FAR, -_FAR):
            if ((outputs[-1] >= 0) & (outputs[-1] <= 1)).all():
                # Not every network takes such rows: one that looks up words by their numbers does not.
                with contextlib.suppress(Exception):
                    outputs.append(self.apply(partial(_far_outputs, factor), X, trial, represent))
        return all(((output >= 0) & (output <= 1)).all() for output in outputs)

    def _found_head(self, X: Any, trial: np.ndarray, represent: Represent) -> tuple[np.ndarray, Head]:
        """Return the module's outputs for some rows, and the layer that computes them."""
        # Convolutions are tried only if no linear layer computes the logits, and only those with as many outputs: a
        # network may have many convolutions, and their maps are large.
        layers = [name for name, part in self.module.named_modules() if isinstance(part, nn.Linear)]
        result, heads = self._tried_out(layers, X, trial, represent)
        head = origin(result, heads)
        if head.name is None:
            layers = [
                name
                for name, part in self.module.named_modules()
                if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.out_channels == result.shape[1]
            ]
            if layers:
                result, heads = self._tried_out(layers, X, trial, represent)
                head = origin(result, heads)
        return result, head

    def _tried_out(
        self, layers: list[str], X: Any, trial: np.ndarray, represent: Represent
    ) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Return the module's outputs for some rows, and, for each layer with outputs of that shape, two arrays.

        These are the layer's output, and the product of its input with its weights.
        """
        heads: list[str] = []
        both = self.apply(partial(self._try_out, layers, heads), X, trial, represent)
        result, *parts = np.split(both, 1 + 2 * len(heads), axis=1)
        return result, dict(zip(heads, zip(parts[::2], parts[1::2], strict=True), strict=True))

    def _try_out(self, layers: list[str], heads: list[str], module: nn.Module, rows: Tensor) -> Tensor:
        """Return, side by side, the arrays of `_tried_out`; put the names of the layers into ``heads``."""
        try:
            outputs, calls = watched(_call, module, rows, self._with_layers(*layers))
            result = first_output(outputs)
        except (torch.OutOfMemoryError, NoOutputsError):
            raise
        except Exception as error:
            shape = tuple(rows.shape[1:])
            raise ValueError(f"classifier does not take rows of shape {shape}, as float32: {reason(error)}") from error
        if self.layers:
            self.sizes = [part.shape[1] for part in features_of(calls, self.layers, len(rows))]
        if result.ndim != 2 or len(result) != len(rows):
            raise ValueError(
                f"classifier returns shape {tuple(result.shape)} for {len(rows)} rows; it must return one logit for "
                f"each class, (n_samples, n_classes)."
            )
        self._taken_for_logits = self._taken_for_logits or _maker_of_others(outputs, calls)
        found: dict[str, list[Tensor]] = {}
        for call in calls:
            # A layer that gets parts of a row one by one, such as words, has no features of the whole row.
            if call.name in layers and len(call.taken) == len(rows):
                given, taken = mean_of_maps(call.given), mean_of_maps(call.taken)
                if given.shape == result.shape:
                    found[call.name] = [given, product_of(taken, module.get_submodule(call.name), given)]
        heads[:] = found
        return torch.cat([result, *(values for pair in found.values() for values in pair)], 1)

    def apply(self, function: Respond, X: Any, indices: np.ndarray | None, represent: Represent) -> np.ndarray:
        """Return ``function(module, tensor)`` for rows of X."""
        return apply_in_blocks(self.network, X, indices, represent, function)

    @property
    def network(self) -> nn.Module:
        """Return the module's frozen copy, which is the same one until the module changes."""
        return frozen(self.module, device_of(self.module), "classifier", self._in_shape)

    def logits(self, module: nn.Module, rows: Tensor) -> Tensor:
        """Return the logits of rows."""
        names = [self.head] if self.source == "head" and self.head is not None else []
        return self._logits_of(*watched(outputs_of, module, rows, names))

    def predicted(self, module: nn.Module, rows: Tensor) -> Tensor:
        """Return the index of the class that `predict` of a net with a threshold returns, for each row."""
        return (self.logits(module, rows).double().softmax(1)[:, 1] > self.threshold).long()

    def logits_and_features(self, module: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the features of rows."""
        result, calls = watched(outputs_of, module, rows, self._with_layers(self.head))
        logits = self._logits_of(result, calls)
        if self.layers:
            return logits, torch.cat(features_of(calls, self.layers, len(rows)), 1)
        return logits, mean_of_maps(next(call.taken for call in reversed(calls) if call.name == self.head))

    def _with_layers(self, *names: str | None) -> set[str]:
        """Return these names of layers and the names of the feature layers, without None."""
        return {name for name in (*names, *self.layers) if name is not None}

    def _logits_of(self, result: Tensor, calls: list[Call]) -> Tensor:
        """Return the logits: the module's result, its logarithm, or the output of the head."""
        if self.source == "head":
            result = mean_of_maps(next(call.given for call in reversed(calls) if call.name == self.head))
        if self.source == "logarithm":
            # A single output is the probability of the second of two classes.
            result = torch.cat([1 - result, result], 1) if result.shape[1] == 1 else result
            # A probability that underflowed to 0 would have a logarithm of minus infinity.
            result = result.clamp_min(torch.finfo(result.dtype).tiny).log()
        # The softmax of (-f / 2, f / 2) is the sigmoid of f.
        return torch.cat([-result / 2, result / 2], 1) if result.shape[1] == 1 else result

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights and the biases of the layer that computes the logits."""
        # `OODScorer` calls this only if "weight" is not among what the classifier lacks; then there is such a layer.
        head = cast(nn.Linear, self.network.get_submodule(cast(str, self.head)))
        weight, bias = class_weights(head, len(self.classes_))
        # A convolution of 1x1 pixels has weights of shape (n_classes, n_channels, 1, 1).
        weight, bias = self.factor * weight.flatten(1), self.factor * bias
        # The softmax of (-f / 2, f / 2) is the sigmoid of f.
        return (torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2) if len(bias) == 1 else (weight, bias)


Adapter: TypeAlias = TorchClassifier | SkoodClassifier | SklearnClassifier


def adapted(classifier: Any) -> Adapter:
    """Return the adapter to a trained classifier, whatever it is wrapped in.

    Parameters
    ----------
    classifier : torch.nn.Module or estimator
        The ``classifier`` of `OODScorer`.

    Returns
    -------
    adapter : TorchClassifier, SkoodClassifier or SklearnClassifier
        The adapter; its ``steps`` are those of the Pipelines around the classifier.

    Raises
    ------
    ValueError
        If ``classifier`` is not a classifier.
    NotFittedError
        If the classifier is not fitted.
    """
    # Wrappers may be nested in any order, so they are removed one by one.
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


def _adapter_to(classifier: Any, given: Any) -> Adapter:
    """Return the adapter to a classifier without wrappers; ``given`` is what the user passed, for error messages."""
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
        # skorch was imported already if it is one of its nets.
        binary = "skorch" in sys.modules and isinstance(classifier, sys.modules["skorch"].NeuralNetBinaryClassifier)
        threshold = classifier.threshold if binary else 0.5
        chosen = getattr(classifier, "predict_nonlinearity", None)
        nonlinearity = chosen if callable(chosen) else None
        return TorchClassifier(classifier.module_, getattr(classifier, "classes_", None), threshold, nonlinearity)
    answers = any(hasattr(classifier, name) for name in ("decision_function", "predict_proba"))
    if isinstance(classifier, OutlierMixin) or not answers or not hasattr(classifier, "classes_"):
        raise ValueError(
            f"classifier={type(classifier).__name__} predicts no classes. Pass a torch module, a skorch net, a skood "
            f"detector with classes, or a scikit-learn classifier with decision_function or predict_proba."
        )
    return SklearnClassifier(classifier)


def _call(module: nn.Module, rows: Tensor) -> Any:
    """Return all that a module returns."""
    return module(rows)


def _of_the_net(nonlinearity: Callable[[Any], Any], module: nn.Module, rows: Tensor) -> Tensor:
    """Return what a skorch net predicts for rows, one column at least."""
    outputs = module(rows)
    outputs = nonlinearity(outputs[0] if isinstance(outputs, tuple) else outputs)
    return outputs.reshape(len(outputs), -1)


def _maker_of_others(outputs: Any, calls: list[Call]) -> str:
    """Return the name of a layer that makes one of several outputs of the first one; an empty text if there is none."""
    if not isinstance(outputs, (tuple, list)):
        return ""
    tensors = [output for output in outputs if isinstance(output, Tensor)]
    for call in calls:
        takes_first = isinstance(call.taken, Tensor) and tensors and torch.equal(call.taken, tensors[0])
        if takes_first and any(torch.equal(call.given, other) for other in tensors[1:]):
            return call.name
    return ""


def _sum_to_one(result: np.ndarray) -> bool:
    """Return whether outputs are the probabilities of all classes."""
    return bool((result >= 0).all() and np.allclose(result.sum(1), 1, atol=1e-4))


def _far_outputs(factor: float, module: nn.Module, rows: Tensor) -> Tensor:
    """Return a module's outputs for rows multiplied by a number."""
    return outputs_of(module, factor * rows)


def _not_fitted(classifier: Any) -> str:
    """Return the message for a classifier that is not fitted."""
    return (
        f"classifier is not fitted: OODScorer needs a trained classifier, and does not train this "
        f"{type(classifier).__name__}. Fit it first; if a search would clone it, wrap it in "
        f"sklearn.frozen.FrozenEstimator."
    )


def _matched_classes(given: Any, n_outputs: int) -> np.ndarray:
    """Return the given classes if each output of a network has one; otherwise the numbers of the outputs."""
    numbers = np.arange(n_outputs)
    if given is None:
        return numbers
    given = np.asarray(given)
    if len(given) == n_outputs:
        return given
    # skorch takes labels for indices of outputs, and its ``classes_`` are only the labels that occurred in y.
    if np.isin(given, numbers).all():
        return numbers
    raise ValueError(f"classifier has {len(given)} classes but {n_outputs} outputs; there must be one for each class.")
