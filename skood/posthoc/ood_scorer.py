"""Score rows by a classifier that is trained already."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import _fit_context
from sklearn.utils import check_array
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data
from torch import nn

from .._sklearn import HasMethods, Interval, StrOptions
from .._warn import warn_user
from ..estimator.classes import COMPARE_CLASSES, ClassScores, class_codes, scores_left_out
from ..estimator.data import FitData
from ..estimator.detector import Detector
from ..estimator.explain import by_samples
from ..estimator.held_out import held_out_offset
from ..estimator.labels import marks_outlier
from ..estimator.row_scorer import RowScorer
from ..estimator.running import or_unchanged
from ..estimator.validation import check_values, plain_rows, refuse_fit_params, resolve_image_shape
from ..networks.copies import deep_copy
from ..scores import METHODS, FittedScore
from ..training.scoring import device_of
from .detectors import SkoodClassifier
from .estimators import SklearnClassifier, with_rows
from .lessons import Seen, joined, one_class_left
from .observed import TorchClassifier, adapted

__all__ = ["OODScorer"]

# Methods that add up the scores of several layers.
_OF_LAYERS = ("mahalanobis", "mahalanobis_pp")
# Parameters that must stay the same between calls of `partial_fit`.
_FIXED = ("classifier", "layer", "temperature", "image_shape")
# Number of rows on which the classifier is tried first, to find out what it returns.
_TRIAL_ROWS = 16


def _alike(options: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Return whether options, of which some may be arrays, are the same."""
    return options.keys() == others.keys() and all(np.array_equal(options[name], others[name]) for name in options)


def _by(key: Any, function: Callable, network: Any, rows: Any) -> Any:
    """Return ``function(network, rows)``; the key tells functions that use one score from those that use another."""
    return function(network, rows)


def _key(score: FittedScore) -> Any:
    """Return what tells a score from others: itself, or its name and options if it learnt nothing."""
    return score if score.learnt else f"{score.name} {score.options}"


class OODScorer(ClassScores, Detector):
    """Detect outliers by a published score of a classifier that is trained already.

    `fit` never trains the classifier: it learns what else the score needs (the features of known rows, for example) and
    sets the threshold. So any network or scikit-learn classifier can detect rows of other kinds than it was trained on.
    The best score differs from classifier to classifier; `compare_scores` tries all scores in one forward pass.

    Parameters
    ----------
    classifier : torch.nn.Module, or fitted skorch, skood or scikit-learn classifier
        - A torch module that returns logits, one column for each class. If a softmax, log-softmax or sigmoid follows
          the layer that returns them, they are read before it. A single output is the logit of the second of two
          classes; or its probability, if it stays between 0 and 1. Of several outputs, as in a tuple, a dict or the
          output of a model of transformers, the one named "logits" counts, or else the first.
          The module runs in evaluation mode, on the device where it is. It gets rows as they are, uint8 images
          divided by 255: if it was trained on images less their mean, divided by their deviation, pass
          `skood.backbones.Preprocessed` with the module, ``mean`` and ``std``.
        - A skorch net, whose module and classes are used, without its ``predict_nonlinearity``.
        - A skood detector with classes, such as `RejectClassDetector` (without its reject classes), or an
          `OpenSetClassifier` around one.
        - A scikit-learn classifier. Its ``decision_function`` returns the logits; with two classes its value d stands
          for -d/2 and d/2. If it has only ``predict_proba``, the logarithms of these probabilities suffice for "msp",
          "entropy", "gen" and "kl_matching", and for methods that use features alone. The features are X itself,
          which must be numbers without NaN for methods that use them, even if the classifier takes others.
        - A Pipeline that ends in any of these. Rows go through the steps before; the features of a scikit-learn
          classifier are then the output of these steps.
        - A search, whose best estimator is used.

        The classifier is used as it is and never modified; ``clone`` shares it. If it is a
        ``TunedThresholdClassifierCV`` or a ``FixedThresholdClassifier``, `predict_class` heeds its threshold, and
        scores and probabilities are those of the classifier within. It also heeds the ``threshold`` of a skorch net for
        two classes. A search over classifiers would clone them, so that they lose their fit: wrap each in
        ``sklearn.frozen.FrozenEstimator`` there.

    method : str, default="energy"
        One of `skood.scores.METHODS`; the functions of `skood.scores` have the formulas.

        - "msp", "max_logit", "energy", "entropy" and "gen" use the logits; "odin" also uses a gradient; "kl_matching"
          and "openmax" learn from logits. "msp" and "odin", which are probabilities, are in log-odds.
        - "knn" uses the features and learns from those of known rows; "mahalanobis", "relative_mahalanobis", and their
          variants for features of length 1, "mahalanobis_pp" and "relative_mahalanobis_pp", also need classes.
        - "gradnorm", "nnguide", "she" and "gram" use logits and features; all but the first learn from known rows.
        - "fdbd", "vim", "nci", "react", "vra", "ash_p", "ash_b", "ash_s", "scale" and "dice" use the weights of the
          last layer and the features; "ash_p", "ash_b", "ash_s" and "scale" learn nothing, the others from known rows.
        - "rotation" needs a `RotationAuxClassifier` that has learnt to tell transformations apart.

    layer : str, torch.nn.Module, list of these, or None, default=None
        The submodule of a network whose output are the features, or its name. Maps (n, C, H, W) are averaged over H and
        W, other shapes are flattened. None takes the input of the linear layer, or of the 1x1 convolution before a mean
        over the pixels, that computes the logits. If there is none, as in a network with a cosine head, methods that
        use features need a ``layer``. With any other layer, methods that use weights are not possible. With a list,
        "mahalanobis" and "mahalanobis_pp" add up the scores of several layers, as Lee et al. do: see ``method_params``.

    temperature : float, default=1.0
        Number by which the logits are divided, and with them the weights of the last layer, for scores and
        probabilities alike. `calibrate` finds one on held-out rows. A temperature in ``method_params`` applies in
        addition: "energy" with its own T is T log sum_c exp(f_c / (``temperature`` T)), and "odin" divides by the
        product of both. The logits of a skood detector are divided by the detector's own ``temperature_`` before.

    method_params : dict or None, default=None
        Options of the method by name, such as ``{"n_neighbors": 20}`` for "knn"; they are the parameters of its
        functions in `skood.scores`. "mahalanobis" and "mahalanobis_pp" also take ``epsilon`` and ``std``: with an
        ``epsilon`` above 0 rows are moved first such that their score rises, as Lee et al. do and as "odin" does.
        ``epsilon`` is in the units of the network's input: pixels in [0, 1] if images are uint8, or the scaled rows of
        a skood detector. If ``layer`` is a list, ``weights`` holds a number for each layer, by default 1;
        `skood.scores.layer_weights` finds them. Rows are then moved once, by the gradient of the sum, and not for each
        layer.

    contamination : "auto" or float in [0, 0.5], default="auto"
        The threshold. "auto" calls about 5 % of new in-distribution rows outliers, if the rows at `fit` were held out
        when the classifier was trained; it scores the rows it was trained on higher. If the score learns from the rows,
        each twentieth of them is scored by what the score learns from the others; with hardly more rows than
        features, scores that invert a covariance still call fewer than 5 %. A float is the share of the
        in-distribution rows at `fit` that score below the threshold.

    image_shape : tuple (C, H, W) or None, default=None
        Shape of one image, if X holds flattened pixels, for torch modules and skorch nets; one entry may be -1, and is
        then computed. Not needed for vectors, nor for images of shape (n, C, H, W). A skood detector knows its own.

    outlier_label : number, str, bool, or list of these, default=-1
        The value of y that marks rows to leave out of `fit`, or several.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classifier's classes, in the order of its logits. For a torch module, the numbers of its outputs.

    temperature_ : float
        The number by which the logits are divided.

    offset_ : float
        The threshold: ``decision_function(X) = score_samples(X) - offset_``. `set_threshold` moves it.

    training_scores_ : ndarray of float64 of shape (n_in_distribution,)
        Ascending scores of the in-distribution rows at `fit`, from which the score may have learnt; after `calibrate`,
        of the rows given to it.

    image_shape_ : tuple or None
        Shape of one image, if a network takes images; None otherwise.

    n_features_in_ : int
        Number of features (for images, of pixels times channels).

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X has string column names.

    See Also
    --------
    compare_scores : Compares all scores of one classifier in one table.
    skood.scores : Has the scores as functions of arrays.
    OpenSetClassifier : Turns the scorer into a classifier that may reject rows.

    Notes
    -----
    Rows for torch modules and skood detectors must be numbers, and networks take them as float32. Rows for
    scikit-learn classifiers and Pipelines are passed on as they are, so they may be tables with text.

    The classifier's own parameters are not parameters of the scorer: ``get_params`` does not list them.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from skood import OODScorer
    >>> X, y = load_digits(return_X_y=True)
    >>> known = y < 8
    >>> X_train, X_new, y_train, y_new = train_test_split(X[known], y[known], test_size=0.5, random_state=0)
    >>> classifier = make_pipeline(MinMaxScaler(), LogisticRegression()).fit(X_train, y_train)
    >>> scorer = OODScorer(classifier).fit(X_new[:400], y_new[:400])
    >>> accused = scorer.predict(X_new[400:]) == -1
    >>> caught = scorer.predict(X[~known]) == -1
    >>> print(f"{accused.mean():.0%} of known digits are accused, {caught.mean():.0%} of unknown ones are caught")
    6% of known digits are accused, 85% of unknown ones are caught
    """

    _parameter_constraints: dict = {
        **Detector._parameter_constraints,
        "classifier": [nn.Module, HasMethods("fit")],
        "method": [StrOptions(set(METHODS))],
        "layer": [str, nn.Module, list, tuple, None],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "method_params": [dict, None],
    }
    # `clone` must not copy these: the classifier would lose its fit, and a layer of a copied network would not be found
    # in the classifier.
    _shared_params = ("classifier", "layer")
    _without_score = "Look at the classifier's outputs for these rows, and scale them as in its training."

    temperature_: float

    def __init__(
        self,
        classifier,
        method="energy",
        *,
        layer=None,
        temperature=1.0,
        method_params=None,
        contamination="auto",
        image_shape=None,
        outlier_label=-1,
    ):
        self.classifier = classifier
        self.method = method
        self.layer = layer
        self.temperature = temperature
        self.method_params = method_params
        self.contamination = contamination
        self.image_shape = image_shape
        self.outlier_label = outlier_label

    # -------------------------------------------------------------------------------------------------- public

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> OODScorer:
        """Learn what the score needs besides the classifier, and set the threshold.

        Use rows that the classifier was not trained on, because it scores its training rows higher than new ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), or what the classifier takes
            Vectors; images; or flattened images with ``image_shape``. uint8 images are scaled by 1/255 for torch
            modules and skorch nets, and as in its own `fit` for a skood detector.
        y : array-like of shape (n_samples,), default=None
            Rows with ``y == outlier_label`` are left out. Other labels are classes of the classifier, which "she",
            "openmax" and Mahalanobis distances need. If y is None, or holds only 1 besides the marker, all rows
            are in distribution and their classes are unknown: the most probable ones are used instead.
        **fit_params : dict
            Some tools pass ``sample_weight=None``: None is ignored, any other value is an error.

        Returns
        -------
        self : object
            The fitted scorer; the classifier is as it was.

        Raises
        ------
        ValueError
            If X or y is not as described or holds unknown classes, if the method is not possible with the classifier
            or these rows, or if fewer than two in-distribution rows are left.
        NotFittedError
            If the classifier is not fitted. It is a ValueError, too.
        """
        refuse_fit_params(self, fit_params)
        self._forget()
        self._seen: list | None = None
        with or_unchanged(self):
            # Wrong options are an error before the network runs.
            FittedScore(self.method, self.method_params)
            given, X = X, self._attach(X)
            self._check_method(self.method)
            score = self._unfitted_score()
            if score.moves_rows and "gradient" in self._adapter.lacks:
                raise ValueError(
                    f"epsilon={score.options['epsilon']} is not possible: {self._adapter.lacks['gradient']}."
                )
            data = replace(self._read_labels(X, y), given=self._table(given))
            learns = score.method.learn is not None
            lessons = self._lessons((*score.learns_from, *score.needs) if learns else (), data)
            reason = one_class_left(self.method, lessons[1])
            if reason is not None:
                raise ValueError(f"method={self.method!r} is not possible: {reason}.")
            self._score = score.learn(*lessons)
            # Nothing is trained here, so rows that the classifier has not seen can serve as held-out rows.
            self._set_offset(data, seed=0, new_rows=True)
            if learns and self.contamination == "auto":

                def moved(others: FittedScore, out: np.ndarray) -> np.ndarray:
                    """Return scores of rows that must be moved first."""
                    indices = np.flatnonzero(out) if data.inlier_indices is None else data.inlier_indices[out]
                    return self._asked(others, data.X, indices)

                left_out = scores_left_out(score, *lessons, moved if score.moves_rows else None)
                self.offset_ = self._no_higher(held_out_offset(left_out))
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, **fit_params: Any) -> OODScorer:
        """Learn from these rows and from those of all earlier calls of this method; set the threshold on all of them.

        The score learns the same as from `fit` with all of these rows at once. For this the scorer keeps, and pickles,
        the classifier's responses to the rows, such as features, but not the rows. Scores of earlier rows are computed
        from these responses: they, and the threshold, may differ from those of `fit` by rounding.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), or what the classifier takes
            As in `fit`.
        y : array-like of shape (n_samples,), default=None
            As in `fit`. It need not hold all classes: one that holds only 1 names the class 1, if that is one of the
            classifier's, once another call has named classes.
        **fit_params : dict
            Some tools pass ``sample_weight=None``: None is ignored, any other value is an error.

        Returns
        -------
        self : object
            The fitted scorer; the classifier is as it was.

        Raises
        ------
        ValueError
            As in `fit`; if ``classifier``, ``method``, ``method_params``, ``layer``, ``temperature`` or ``image_shape``
            were changed; or if ``epsilon`` moves rows, since earlier rows are gone. A call that fails leaves the scorer
            as it was.

        Warns
        -----
        UserWarning
            If the scorer was fitted by `fit`, or calibrated, which keep no responses: it then begins anew.
        RuntimeWarning
            If "relative_mahalanobis" or "relative_mahalanobis_pp" has learnt from rows of one class alone so far: every
            row scores 0.
        """
        refuse_fit_params(self, fit_params)
        score = FittedScore(self.method, self.method_params)
        if score.moves_rows and score.method.learn is not None:
            raise ValueError("partial_fit cannot move rows by epsilon, since those of earlier calls are gone; use fit.")
        begun = getattr(self, "_seen", None) is not None
        if not begun and self.__sklearn_is_fitted__():
            warn_user(
                f"{type(self).__name__} was fitted by fit, or calibrated, and keeps no responses to those rows: "
                f"partial_fit begins anew, with these rows alone. To learn from all rows, call partial_fit only.",
                UserWarning,
            )
        with or_unchanged(self):
            self._learn_more(X, y, begun)
        return self

    def _learn_more(self, X: Any, y: Any, begun: bool) -> None:
        """Learn from rows as `partial_fit` does; ``begun`` says whether earlier calls have learnt already."""
        given = X
        if begun:
            score = self._unfitted_score()
            self._check_unchanged(score)
            X = self._check_rows(X, reset=False)
        else:
            self._forget()
            X = self._attach(X)
            self._check_method(self.method)
            score = self._unfitted_score()
            self._begun_with = {name: getattr(self, name) for name in _FIXED}
        data = replace(self._read_labels(X, y), given=self._table(given))
        learns = score.method.learn is not None
        names = (*score.learns_from, *score.needs) if learns else ()
        seen = [*map(Seen._make, getattr(self, "_seen", None) or []), self._seen_now(names, data, y)]
        lessons = joined(seen, "codes" in score.learns_from)
        reason = one_class_left(self.method, lessons[1])
        if reason is not None:
            # Rows may come class by class, and those of the next call may be of another.
            warn_user(f"method={self.method!r} tells no rows apart yet: {reason}.", RuntimeWarning)
        self._score = score.learn(*lessons)
        own, indices = self._finite_scores(data), data.all_inlier_indices()
        earlier = getattr(self, "training_scores_", np.empty(0))
        self.training_scores_ = np.sort(score.score(lessons[0]) if learns else np.append(earlier, own))
        median = float(np.clip(np.median(self.training_scores_), own.min(), own.max()))
        self._reference = self._around_median(data.before_all(), own, median, indices)
        # Plain tuples: files such as those of skops name every other type.
        self._seen = [tuple(one) for one in seen]
        self._set_threshold(data, seed=0, new_rows=True)
        if learns and self.contamination == "auto":
            self.offset_ = self._no_higher(held_out_offset(scores_left_out(score, *lessons)))

    def _seen_now(self, names: Sequence[str], data: FitData, y: Any) -> Seen:
        """Return the responses to the rows of this call, and what y says of their classes."""
        if_named = None
        if y is not None and data.codes is None and 1 in self.classes_.tolist():
            if_named = np.full(len(data.all_inlier_indices()), self.classes_.tolist().index(1))
        return Seen(*self._lessons(names, data), data.codes is not None, if_named)

    def _check_unchanged(self, score: FittedScore) -> None:
        """Raise an error if a parameter, or the score it stands for, is not as at the first `partial_fit`."""
        remedy = "changed since the first partial_fit. Set {} back, or use a clone."
        if score.name != self._score.name or not _alike(score.options, self._score.options):
            raise ValueError(f"method or method_params were {remedy.format('them')}")
        for name in _FIXED:
            given, before = getattr(self, name), self._begun_with[name]
            # Classifiers may define `==` in any way, and are compared as objects.
            if given is not before and (name == "classifier" or given != before):
                raise ValueError(f"{name} was {remedy.format('it')}")

    def calibrate(self, X: Any, y: Any) -> OODScorer:
        """Choose the temperature on held-out rows (temperature scaling), and set the threshold on them.

        The logits are divided by a temperature T, which is chosen such that the rows' classes are most likely [1]_. It
        changes probabilities and scores of logits, but not the most likely class. What the score has learnt stays.

        If the classifier is right on every row, no T is best: the lower it is, the likelier are the classes, until all
        probabilities are 0 or 1. Then the temperature stays as it was, and only the threshold is set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows that the classifier was not trained on.
        y : array-like of shape (n_samples,)
            The class of each row; rows with ``outlier_label`` are left out.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If y holds other labels or fewer than 2 in-distribution rows, or if the method learnt from logits, as "vim"
            and "kl_matching" do: set ``temperature`` and fit again.

        Warns
        -----
        RuntimeWarning
            If every row is classified correctly, and the temperature stays.

        References
        ----------
        .. [1] Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
        """
        data = self._check_calibration(
            X, y, self._score if hasattr(self, "_score") else None, f"method={self.method!r}"
        )
        with or_unchanged(self):
            # The responses that `partial_fit` keeps belong to the temperature before.
            self._seen = None
            # Observed logits are divided by the present temperature already, which this undoes.
            logits = self._observed(("logits",), data.X, data.inlier_indices)["logits"] * self.temperature_
            right = np.asarray(data.codes)[:, None] == np.arange(logits.shape[1])
            self.temperature_ = self._calibrated(logits, right)
            self._set_offset(replace(data, given=self._table(X)), seed=0, new_rows=True)
        return self

    def predict_class(self, X: Any) -> np.ndarray:
        """Return the class that the classifier predicts for each row, outlier or not.

        This is the most probable class; or, if the classifier is a ``TunedThresholdClassifierCV``, a
        ``FixedThresholdClassifier`` or a skorch net with a ``threshold``, what its `predict` returns.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), or what the classifier takes
            Rows of the kind the scorer was fitted on.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
            Values of ``classes_``.
        """
        check_is_fitted(self)
        if not self._has_threshold:
            return super().predict_class(X)
        rows = self._check_rows(X, reset=False)
        return self.classes_[self._adapter.apply(self._adapter.predicted, rows, None, self._front).astype(int)]

    # -------------------------------------------------------------------------------------------- for the base classes

    def _attach(self, X):
        """Find out what the classifier returns for rows such as these, and return the checked rows."""
        self._adapter = adapted(self.classifier)
        X = self._check_rows(X, reset=True)
        n_rows = _num_samples(X)
        # Spread over all rows: if X is sorted by class, its first rows are all of one class.
        trial = np.unique(np.linspace(0, n_rows - 1, _TRIAL_ROWS).astype(int))
        self._front = None
        if isinstance(self._adapter, TorchClassifier):
            self._set_front(device_of(self._adapter.module))
        several = isinstance(self.layer, (list, tuple))
        layers = [] if self.layer is None else list(self.layer) if several else [self.layer]
        if several and not (layers and all(isinstance(layer, (str, nn.Module)) for layer in layers)):
            raise ValueError(f"layer={self.layer!r} must hold names of layers, or the layers: one at least.")
        self._adapter.look(X, trial, self._front, layers)
        # One layer in a list is one layer.
        self._sizes = self._adapter.sizes if len(layers) > 1 else None
        self.classes_, self.temperature_ = self._adapter.classes_, float(self.temperature)
        # A detector that learnt no classes has one class and a constant logit, by which no row differs from another.
        self._constant = len(self.classes_) == 1 and np.ptp(self._observed(("logits",), X, trial)["logits"]) == 0
        return X

    def _unfitted_score(self) -> FittedScore:
        """Return the score with the options of the user, and with the sizes of several layers."""
        params = dict(self.method_params or {})
        return FittedScore(self.method, params if self._sizes is None else params | {"sizes": self._sizes})

    def _refusal(self, method: str) -> str | None:
        """Return the reason why a method is not possible with the classifier, or None if it is possible."""
        if self._sizes is not None and "features" in METHODS[method].needs and method not in _OF_LAYERS:
            return "it takes the features of one layer, and layer names several"
        needs, learns_from = METHODS[method].needs, METHODS[method].learns_from
        one_class = len(self.classes_) == 1
        # nnguide weights by the energy, which is constant then, too.
        of_logits = needs == ("logits",) or method == "nnguide"
        if one_class and (method in COMPARE_CLASSES or (self._constant and of_logits)):
            return "the classifier has one class, and there is nothing to compare it with"
        # Weights first: where they are missing, features of another layer would not make the method possible.
        for response in sorted((*needs, *learns_from), key=lambda name: name != "weight"):
            # Logarithms of probabilities take the place of logits.
            done_without = response == "logits" and METHODS[method].from_probabilities
            if response in self._adapter.lacks and not done_without:
                return self._adapter.lacks[response]
        return None

    def _check_method(self, method: str) -> None:
        """Raise an error if a method is not possible with the classifier, and name those that are."""
        reason = self._refusal(method)
        if reason is not None:
            others = ", ".join(repr(other) for other in METHODS if self._refusal(other) is None)
            raise ValueError(f"method={method!r} is not possible: {reason}. Possible are {others or 'none'}.")

    def _lessons(self, names, data: FitData) -> tuple[dict, np.ndarray | None]:
        """Return responses to learn from, and the classes of the rows, which are predicted if y has none."""
        predicts = data.codes is None and "codes" in names
        seen = self._observed((*names, "logits") if predicts else names, data.X, data.inlier_indices)
        return seen, seen["logits"].argmax(1) if predicts else data.codes

    def _scores(self, X, indices=None, represent=None):
        """Return the scores of checked rows."""
        return self._apply(self._raw_score, X, indices)

    def _logits_and_score(self, module, rows):
        """Return the logits of the classes and the score of each row."""
        return self._post_hoc_score(self._score, module, rows)

    def _asked(self, score: FittedScore, X: Any, indices: np.ndarray | None = None) -> np.ndarray:
        """Return scores of checked rows by a method that runs the network itself."""
        function = partial(_by, _key(score), lambda module, rows: self._post_hoc_score(score, module, rows)[1])
        return self._adapter.apply(function, X, indices, self._front)

    def _raw_score(self, module, rows):
        """Return the score of each row."""
        return self._logits_and_score(module, rows)[1]

    def _score_of(self, score, responses):
        """Return scores of responses; those of scikit-learn's classifiers, which come in any number, as arrays."""
        # Arrays are scored in blocks of a fixed shape, so that a row's score does not depend on how many come with it.
        if not isinstance(self._adapter, SklearnClassifier):
            return super()._score_of(score, responses)
        return torch.from_numpy(score.score({name: np.asarray(values) for name, values in responses.items()}))

    def _scorer(self, score):
        """Return a module of the classifier's network and the score, if it is a network without steps before it."""
        if not self._is_module:
            raise ValueError(
                f"classifier={type(self.classifier).__name__} holds more than a network, and cannot become one torch "
                f"module. Use a torch module, a skorch net or a skood detector, without the steps of a Pipeline."
            )
        copied = deep_copy(self)
        adapter = copied._adapter
        front, network = copied._front, adapter.network
        if isinstance(adapter, TorchClassifier):
            # With the frozen copy as its module, the adapter need not compare module and copy at each call.
            adapter.module = network
        else:
            front = adapter.detector._front
        return RowScorer(front, network, getattr(copied, score))

    @property
    def _is_module(self) -> bool:
        """Return whether the classifier is a network alone."""
        return isinstance(self._adapter, (TorchClassifier, SkoodClassifier)) and not self._adapter.steps

    @property
    def _has_threshold(self) -> bool:
        """Return whether the classifier does not predict the class with the largest logit."""
        return self._adapter.has_threshold

    def _class_and_decision(self, X):
        """Return the results of `predict_class` and `decision_function`."""
        if self._has_threshold:
            return self.predict_class(X), self.decision_function(X)
        return super()._class_and_decision(X)

    def _rows_and_scores(self, X):
        """Return checked rows for a network alone, and a table for any other classifier; and their scores."""
        rows = self._check_rows(X, reset=False)
        return rows if self._is_module else self._table(X), self._scores(rows)

    def _table(self, X):
        """Return the rows as a table; None if the classifier is a network alone, which needs none."""
        if self._is_module:
            return None
        X = plain_rows(X)
        if issparse(X) or hasattr(X, "iloc"):
            return with_rows(X)
        try:
            return np.asarray(X)
        except ValueError:
            # Rows of unequal length, such as lists of words.
            table = np.empty(len(X), dtype=object)
            for number, row in enumerate(X):
                table[number] = row
            return table

    def _contributions(self, rows, scores, normal, median):
        """Return contributions of features; without a network alone, by replacing the columns of a table."""
        if self._is_module:
            return super()._contributions(rows, scores, normal, median)
        if len(rows.shape) != 2 or issparse(rows):
            raise ValueError(
                f"explain takes neither images nor sparse rows nor texts if the classifier holds more than a network, "
                f"as {type(self.classifier).__name__} does: pass a DataFrame, or an array of two dimensions."
            )
        return by_samples(self.score_samples, rows, scores, normal, median)

    def _read_labels(self, X, y):
        """Read the labels, unless the marker of outliers is a class of the classifier."""
        if y is not None and marks_outlier(self.classes_, self.outlier_label).any():
            raise ValueError(
                f"outlier_label={self.outlier_label!r} is one of the classifier's classes, {self.classes_}; choose a "
                f"label that is not."
            )
        return super()._read_labels(X, y, self.classes_)

    def _encode_labels(self, y, n_inliers):
        """Return the index of each row's class among the classifier's, or None if y names no classes."""
        # In scikit-learn's outlier detection 1 means an inlier, so a y of ones names no class.
        if y is None or set(y.tolist()) == {1}:
            return None
        return class_codes(y, self.classes_, self.outlier_label)

    def _check_rows(self, X, reset):
        """Return the rows as the classifier takes them: checked, or after the steps of its Pipeline."""
        adapter = self._adapter
        is_network = isinstance(adapter, TorchClassifier)
        if is_network and not adapter.steps:
            return super()._check_rows(X, reset)
        given = X
        for step in adapter.steps:
            X = step.transform(X)
        X = self._check_transformed(X, reset) if is_network else adapter.check_rows(X)
        if reset and _num_samples(X) < 2:
            raise ValueError(f"X has {_num_samples(X)} sample; at least 2 are needed.")
        if reset and not is_network:
            self.image_shape_ = adapter.image_shape
            self._check_given_shape()
        if isinstance(given, (list, tuple)) and not hasattr(self.classifier, "n_features_in_"):
            # Lists of words, too, look like rows with features; the classifier knows none.
            return X
        if getattr(given, "ndim", 2) <= 2:
            # Only the number and the names of the features are checked; the classifier checks the values, and text may
            # be among them.
            validate_data(self, given, reset=reset, skip_check_array=True)
        elif reset:
            self.n_features_in_ = math.prod(given.shape[1:])
        return X

    def _check_transformed(self, X, reset) -> np.ndarray:
        """Check the output of the steps before a network, and return it as an array."""
        X = check_array(X, allow_nd=True, ensure_all_finite=False, estimator=self)
        if X.ndim not in (2, 4):
            raise ValueError(
                f"the steps before the network return shape {X.shape}; it must be (n, n_features) or (n, C, H, W)."
            )
        shape = X.shape[1:] if X.ndim == 4 else None
        if reset:
            self._set_image_shape(X, shape)
        else:
            self._check_image_shape(X, shape)
        check_values(X)
        return X

    def _check_given_shape(self) -> None:
        """Raise an error if ``image_shape`` is not the shape of the classifier's images."""
        known = self.image_shape_
        if self.image_shape is None or (known and resolve_image_shape(self.image_shape, math.prod(known)) == known):
            return
        takes = f"takes images of shape {known}" if known else "takes rows as they are"
        raise ValueError(f"image_shape={self.image_shape} does not fit the classifier, which {takes}. Leave it out.")

    def _apply(self, function, X, indices=None, represent=None) -> np.ndarray:
        """Return ``function(network, rows)`` for rows of X."""
        # All scorers of a network share one copy of it, and what was found out about it; but scores differ in theirs.
        function = partial(_by, _key(self._score), function) if hasattr(self, "_score") else function
        return self._adapter.apply(function, X, indices, represent or self._front)

    def _class_logits(self, module, rows):
        """Return the logits of rows, divided by the temperature."""
        return self._adapter.logits(module, rows) / self.temperature_

    def _logits_and_features(self, module, rows):
        """Return the logits of rows, divided by the temperature, and the features."""
        logits, features = self._adapter.logits_and_features(module, rows)
        return logits / self.temperature_, features

    def _class_weights(self):
        """Return the weights and biases that belong to the divided logits."""
        weight, bias = self._adapter.weights()
        return weight / self.temperature_, bias / self.temperature_

    def _rotation_logits(self, module, rows):
        """Return the logits of the transformations, for each row under each transformation."""
        return self._adapter.rotation_logits(module, rows)
