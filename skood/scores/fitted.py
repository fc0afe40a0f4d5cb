"""All scores by name, and what learns one of them from training rows; public in `skood.scores`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import NotFittedError
from torch import nn

from .._sklearn import Interval
from .activations import (
    ASHB,
    ASHP,
    ASHS,
    DICE,
    VRA,
    ReAct,
    Scale,
    ash_b,
    ash_p,
    ash_s,
    dice,
    learn_dice,
    learn_react,
    learn_vra,
    react,
    scale,
    vra,
)
from .base import Score
from .classes import (
    NCI,
    SHE,
    GradNorm,
    Gram,
    NNGuide,
    OpenMax,
    gradnorm,
    gram,
    learn_gram,
    learn_nci,
    learn_nnguide,
    learn_openmax,
    learn_she,
    nci,
    nnguide,
    openmax,
    she,
)
from .distances import (
    Mahalanobis,
    MahalanobisPP,
    RelativeMahalanobis,
    RelativeMahalanobisPP,
    learn_mahalanobis,
    learn_mahalanobis_pp,
    learn_relative_mahalanobis,
    learn_relative_mahalanobis_pp,
    mahalanobis,
    mahalanobis_pp,
    relative_mahalanobis,
    relative_mahalanobis_pp,
)
from .features import FDBD, KNN, ViM, fdbd, knn, learn_fdbd, learn_knn, learn_vim, vim
from .logits import (
    GEN,
    Energy,
    Entropy,
    KLMatching,
    MaxLogit,
    MSPLogOdds,
    Rotation,
    energy,
    entropy,
    gen,
    kl_matching,
    learn_kl_matching,
    max_logit,
    msp_log_odds,
    odin_log_odds,
    rotation,
)


class Method(NamedTuple):
    """A score, and the names of its arguments.

    ``needs`` names the network's responses that ``score`` takes first: "logits", "features", "weight", "bias",
    "rotation_logits"; "gradient" stands for the function and the rows of `odin_log_odds`. The dict that ``learn``
    returns and the options follow as keyword arguments. ``module`` makes a torch module from that dict and the options.
    ``learns_from`` names the responses to training rows that ``learn`` takes; "codes" are their classes as numbers. If
    ``from_probabilities``, the score depends on the softmax alone: log-probabilities may be given as logits. If
    ``may_move``, the options ``epsilon`` and ``std`` say how far each row is first moved so that its score rises
    (`moved_up`); by default rows are not moved. "msp" and "odin", which are probabilities, are in log-odds here.
    """

    score: Callable
    module: Callable[..., Score] | None
    needs: tuple[str, ...]
    learn: Callable | None = None
    learns_from: tuple[str, ...] = ()
    from_probabilities: bool = False
    may_move: bool = False


METHODS = {
    "msp": Method(msp_log_odds, MSPLogOdds, ("logits",), from_probabilities=True),
    "odin": Method(odin_log_odds, None, ("gradient",)),
    "max_logit": Method(max_logit, MaxLogit, ("logits",)),
    "energy": Method(energy, Energy, ("logits",)),
    "entropy": Method(entropy, Entropy, ("logits",), from_probabilities=True),
    "gen": Method(gen, GEN, ("logits",), from_probabilities=True),
    "knn": Method(knn, KNN, ("features",), learn_knn, ("features",)),
    "mahalanobis": Method(
        mahalanobis, Mahalanobis, ("features",), learn_mahalanobis, ("features", "codes"), may_move=True
    ),
    "relative_mahalanobis": Method(
        relative_mahalanobis, RelativeMahalanobis, ("features",), learn_relative_mahalanobis, ("features", "codes")
    ),
    "mahalanobis_pp": Method(
        mahalanobis_pp, MahalanobisPP, ("features",), learn_mahalanobis_pp, ("features", "codes"), may_move=True
    ),
    "relative_mahalanobis_pp": Method(
        relative_mahalanobis_pp,
        RelativeMahalanobisPP,
        ("features",),
        learn_relative_mahalanobis_pp,
        ("features", "codes"),
    ),
    "fdbd": Method(fdbd, FDBD, ("logits", "features", "weight"), learn_fdbd, ("features", "weight")),
    "vim": Method(vim, ViM, ("logits", "features"), learn_vim, ("logits", "features", "weight", "bias")),
    "react": Method(react, ReAct, ("features", "weight", "bias"), learn_react, ("features",)),
    "ash_p": Method(ash_p, ASHP, ("features", "weight", "bias")),
    "ash_b": Method(ash_b, ASHB, ("features", "weight", "bias")),
    "ash_s": Method(ash_s, ASHS, ("features", "weight", "bias")),
    "scale": Method(scale, Scale, ("features", "weight", "bias")),
    "vra": Method(vra, VRA, ("features", "weight", "bias"), learn_vra, ("features",)),
    "dice": Method(dice, DICE, ("features", "weight", "bias"), learn_dice, ("features", "weight")),
    "gradnorm": Method(gradnorm, GradNorm, ("logits", "features"), from_probabilities=True),
    "she": Method(
        she, SHE, ("logits", "features"), learn_she, ("logits", "features", "codes"), from_probabilities=True
    ),
    "nnguide": Method(nnguide, NNGuide, ("logits", "features"), learn_nnguide, ("logits", "features")),
    "nci": Method(nci, NCI, ("logits", "features", "weight"), learn_nci, ("features",)),
    "openmax": Method(openmax, OpenMax, ("logits",), learn_openmax, ("logits", "codes")),
    "gram": Method(gram, Gram, ("logits", "features"), learn_gram, ("logits", "features"), from_probabilities=True),
    "kl_matching": Method(
        kl_matching, KLMatching, ("logits",), learn_kl_matching, ("logits",), from_probabilities=True
    ),
    "rotation": Method(rotation, Rotation, ("logits", "rotation_logits")),
}


class _Positive:
    """The range of an option that is a positive number or a sequence of them."""

    def is_satisfied_by(self, value: Any) -> bool:
        """Return whether a value is allowed."""
        numbers = np.atleast_1d(np.asarray(value))
        return numbers.ndim == 1 and numbers.dtype.kind in "iuf" and bool(np.all((numbers > 0) & np.isfinite(numbers)))

    def __str__(self) -> str:
        return "a positive number or a sequence of them"


class _Weights:
    """The range of an option that is a sequence of numbers."""

    def is_satisfied_by(self, value: Any) -> bool:
        """Return whether a value is allowed."""
        numbers = np.asarray(value)
        return numbers.ndim == 1 and numbers.dtype.kind in "iuf" and bool(np.all(np.isfinite(numbers)))

    def __str__(self) -> str:
        return "a sequence of numbers, one for each layer"


_AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")
_RANGES = {
    "std": _Positive(),
    "sizes": _Positive(),
    "weights": _Weights(),
    "temperature": Interval(Real, 0, None, closed="neither"),
    "epsilon": Interval(Real, 0, None, closed="left"),
    "gamma": Interval(Real, 0, 1, closed="right"),
    "n_top": _AT_LEAST_ONE,
    "n_neighbors": _AT_LEAST_ONE,
    "n_components": _AT_LEAST_ONE,
    "n_tail": _AT_LEAST_ONE,
    "n_powers": _AT_LEAST_ONE,
    "alpha": Interval(Real, 0, None, closed="left"),
    **dict.fromkeys(("quantile", "low_quantile", "high_quantile"), Interval(Real, 0, 1, closed="neither")),
}


class FittedScore:
    """One of `METHODS`, with its options and what it learnt from training rows.

    Parameters
    ----------
    name : str
        Key of `METHODS`.
    options : mapping or None, default=None
        Options of the score and of its ``learn_`` function, by name.

    Attributes
    ----------
    name : str
        Key of `METHODS`.
    options : dict
        All options of the method, defaults included.
    learnt : dict
        What `learn` learnt; empty before.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.scores import FittedScore
    >>> features = np.eye(3)
    >>> knn = FittedScore("knn", {"n_neighbors": 1}).learn({"features": features})
    >>> knn.score({"features": [[2.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]}).round(3)
    array([-0.   , -1.414])
    """

    def __init__(self, name: str, options: Mapping[str, Any] | None = None):
        if not (isinstance(name, str) and name in METHODS):
            raise ValueError(f"there is no score {name!r}; choose one of {', '.join(map(repr, METHODS))}.")
        self.name = name
        defaults = {**_defaults(self.method.learn), **_defaults(self.method.score)}
        if self.method.may_move:
            defaults |= {"epsilon": 0.0, "std": None}
        for option, value in (options or {}).items():
            if option not in defaults:
                allowed = f"options {', '.join(map(repr, defaults))}" if defaults else "no options"
                raise ValueError(f"{name!r} has no option {option!r}; it has {allowed}.")
            # None is allowed where it is the default. True and False are integers for Python, but no option is a bool.
            as_default = value is None and defaults[option] is None
            if not as_default and (isinstance(value, bool) or not _RANGES[option].is_satisfied_by(value)):
                raise ValueError(f"{option}={value!r} of {name!r} must be {_RANGES[option]}.")
        self.options = {**defaults, **(options or {})}
        if self.options.get("std") is not None and not self.options["epsilon"]:
            raise ValueError(
                f"std of {name!r} has no effect without epsilon, the step that it divides: give epsilon, or leave out "
                "std."
            )
        self.learnt: dict[str, Any] = {}
        self._module = self._build()

    def __getstate__(self):
        """Leave out the module, which can be built again."""
        return {name: value for name, value in vars(self).items() if name != "_module"}

    def __setstate__(self, state):
        vars(self).update(state)
        self._module = self._build()

    @property
    def method(self) -> Method:
        """Return the entry of `METHODS`."""
        return METHODS[self.name]

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the names of the responses that `score` takes."""
        return self.method.needs

    @property
    def moves_rows(self) -> bool:
        """Return whether rows must first be moved by `moved_up`, with the options ``epsilon`` and ``std``."""
        return self.method.may_move and self.options["epsilon"] > 0

    @property
    def asks_network(self) -> bool:
        """Return whether the network itself is needed beside its responses: for gradients, or to move rows."""
        return "gradient" in self.needs or self.moves_rows

    @property
    def learns_from(self) -> tuple[str, ...]:
        """Return the names of the responses that `learn` takes; "codes" stands for the classes."""
        return self.method.learns_from

    def learn(self, responses: Mapping[str, Any], codes: ArrayLike | None = None) -> FittedScore:
        """Learn from the network's responses to training rows; methods that learn nothing do nothing.

        Parameters
        ----------
        responses : mapping of str to array-like
            At least those named in ``learns_from``.
        codes : array-like of int of shape (n_samples,) or None, default=None
            Each row's class as a number, where ``learns_from`` names "codes".

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the method is "fdbd" and there is one class only.
        """
        if self.method.learn is not None:
            responses = {**responses, "codes": codes}
            given = [responses[name] for name in self.learns_from]
            self.learnt = self.method.learn(*given, **self._options_of(self.method.learn))
            self._module = self._build()
        return self

    def score(self, responses: Mapping[str, Any]) -> np.ndarray:
        """Score rows by the network's responses to them.

        Parameters
        ----------
        responses : mapping of str to array-like
            At least those named in ``needs``.

        Returns
        -------
        scores : ndarray or Tensor of float64 of shape (n_samples,)
            Higher = more normal. Rows are not moved here: if `moves_rows`, give the responses to moved rows.

        Raises
        ------
        TypeError
            If the method is "odin", which needs the network itself: call `odin_log_odds` with ``options``.
        NotFittedError
            If the method has not learnt yet.
        """
        return self._learnt_module().of(**{name: responses[name] for name in self.needs})

    def to_torch(self) -> nn.Module:
        """Return a copy of the score as a torch module that holds in buffers what was learnt.

        Returns
        -------
        module : torch.nn.Module
            ``module(logits=..., features=..., weight=..., bias=..., rotation_logits=...)`` takes the responses to rows
            as tensors on its device. Those not in ``needs`` are ignored and may be missing. It returns scores of shape
            (n_samples,) in float64. MPS lacks float64: there ``module.to("mps", torch.float32)`` scores in float32.

        Raises
        ------
        TypeError
            If the method is "odin", which needs the network itself: call `odin_log_odds` with ``options``.
        NotFittedError
            If the method has not learnt yet.

        Examples
        --------
        >>> import torch
        >>> from skood.scores import FittedScore
        >>> module = FittedScore("max_logit").to_torch()
        >>> module(logits=torch.tensor([[1.0, 2.0], [4.0, 3.0]]))
        tensor([2., 4.], dtype=torch.float64)
        """
        return copy.deepcopy(self._learnt_module())

    def _learnt_module(self) -> Score:
        """Return the module, or say why there is none."""
        if "gradient" in self.needs:
            function = self.method.score.__name__
            raise TypeError(f"{self.name!r} takes a function and rows: call skood.scores.{function} with the options.")
        if self._module is None:
            raise NotFittedError(f"{self.name!r} has learnt nothing yet; call learn first.")
        return self._module

    def _build(self) -> Score | None:
        """Return the module; None if the method has not learnt yet or needs the gradient."""
        method = self.method
        if method.module is None or (method.learn is not None and not self.learnt):
            return None
        # The caller may be in inference mode, and tensors made there can never have gradients.
        with torch.inference_mode(False), torch.no_grad():
            options = self._options_of(method.score)
            return method.module(self.learnt, **options) if self.learnt else method.module(**options)

    def _options_of(self, function: Callable) -> dict[str, Any]:
        """Return the options that a function takes."""
        return {name: self.options[name] for name in _defaults(function)}


def _defaults(function: Callable | None) -> dict[str, Any]:
    """Return the options of a function by name: its parameters that have a default, and the default."""
    parameters = inspect.signature(function).parameters.values() if function else ()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
