"""Train a classifier on a labelled corpus, whose network a detector can start from or whose features it can use."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional

from .. import training
from ..estimator.classes import ClassLearner, encode_classes
from ..estimator.data import FitData
from ..estimator.labels import check_labels
from ..estimator.validation import refuse_fit_params
from ..networks import Features, class_weights, find_head, make_classifier, resnet_if_large, split_head, tap
from ..networks.copies import deep_copy
from ..networks.probe import one_tensor
from ..training.phases import Phase, Step
from ..training.scoring import device_of
from .embedder import all_finite

# Images with at least this many pixels on the shorter side get the larger network.
_LARGE_SIDE = 24


class BackboneClassifier(ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, ClassLearner):
    """Classify the rows of a labelled corpus, to train a network whose features serve detectors.

    Use it before a detector: a network that has learnt to tell the classes of a large corpus apart has features that
    are useful for similar rows. A detector may start from the trained network, or use the features that `transform`
    returns, which are the input of the last linear layer. This class is not an outlier detector.

    Training minimises the cross entropy of the classes, the mean of -log softmax(f(x))_y. `RotationAuxClassifier` with
    ``auxiliary=None`` does the same: with the same settings and seed it has the same weights, except for rounding where
    gradients are clipped.

    Labels: every value of y is a class, -1 included.

    Parameters
    ----------
    network : str, torch.nn.Module, class or callable, default="auto"
        "mlp" or "residual" for vectors; "cnn" (two convolutions), "wrn-D-K" (Wide ResNet of depth D and width K, such
        as "wrn-16-2"), "resnet-D-W" (`skood.networks.ResNet` of depth D and W channels at first, such as
        "resnet-26-32", which residual adapters were made for), "resnet-18", "resnet-34" or "resnet-50"
        (`skood.networks.ImageNetResNet`) for images. "auto" is "residual" for vectors. For images of three channels it
        is "resnet-18" if the shorter side has at least 96 pixels, and "resnet-26-16" if it has at least 24; for other
        images it is "resnet-14-8". A class or callable is called with ``(n_features, n_classes)`` or
        ``((C, H, W), n_classes)``. A module is copied before it is trained. The output of its last linear layer must be
        the logits.

    hidden_sizes : sequence of int, default=(128, 128)
        Width of each hidden layer of "mlp" or block of "residual".

    dropout : float in [0, 1), default=0.0
        Dropout rate of a named network; those named "resnet-" have no dropout.

    scaling : {"standard", "minmax"} or None, default="standard"
        Scaling of each feature, or of each channel of images.

    augmentation : {"crop-flip", "crop-flip-mask"}, callable or None, default=None
        Transformation of the scaled images of a batch during training. "crop-flip" shifts them by up to an eighth of
        the side and mirrors them; "crop-flip-mask" then also masks a square, see `skood.augment`. A callable maps a
        tensor to one of the same shape.

    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto" is the number that gives at least 2000 batches, or 1000 for images.

    batch_size : int, default=64
        Rows in a batch.

    lr : float or "auto", default="auto"
        Initial learning rate; "auto" is 0.1 for images and 0.01 for vectors.

    optimizer : {"nesterov", "sgd", "adam", "adamw", "rmsprop"} or callable, default="nesterov"
        An optimiser by name ("nesterov" and "sgd" have momentum 0.9), or a callable
        ``(parameters, lr=...) -> Optimizer``.

    weight_decay : float, default=5e-4
        Weight decay of a named optimiser.

    max_grad_norm : float or None, default=5.0
        Gradients are clipped to this norm; None does not clip.

    schedule : {"cosine", "one-cycle", "steps", "constant"} or callable, default="cosine"
        How the learning rate changes during training. A callable maps the share of training done, in [0, 1], to a
        factor on the learning rate. "steps" divides the rate by five after 30, 60 and 80 %.

    image_shape : tuple (C, H, W) or None, default=None
        Shape of one image, if X holds flattened pixels; one entry may be -1, and is then computed. Not needed for
        vectors, nor for images of shape (n, C, H, W).

    device : str or torch.device, default="auto"
        Where to train: "auto" is CUDA, else MPS, else the CPU; "distributed" shares the training among the processes
        that ``torchrun`` started, see `skood.training.distributed`.

    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of training: "auto" is bfloat16 autocast on CUDA and float32 elsewhere. Logits and features are always
        computed in float32.

    callbacks : list of skorch callbacks or None, default=None
        Callbacks for the training. They are copied for each fit; the copies that ran are in `callbacks_`. There is no
        validation split: monitor ``train_loss``. LRScheduler needs ``schedule="constant"``.

    verbose : int, default=0
        1 shows a progress bar.

    random_state : int, RandomState instance or None, default=None
        Seed for initial weights and batches. torch's global generators are not changed.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, sorted.

    net_ : skorch.NeuralNet
        The trained net, without what only training needs.

    module_ : torch.nn.Module
        The net's module, which maps scaled rows to logits, one for each class.

    history_ : list of dict
        One entry for each epoch, with ``train_loss`` and ``dur`` (seconds).

    callbacks_ : list of skorch callbacks
        The copies of ``callbacks`` that ran; not pickled.

    scaler_ : scikit-learn transformer or None
        The fitted scaling; its columns are features or channels.

    image_shape_ : tuple or None
        Shape of one image; None for vectors.

    n_features_in_ : int
        Number of features (for images, of pixels times channels).

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X has string column names.

    See Also
    --------
    RejectClassDetector : Detects outliers, starting from a trained ``classifier``.
    RotationAuxClassifier : Detects outliers, learning classes and another task beside them.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skood import BackboneClassifier
    >>> X, digit = load_digits(return_X_y=True)
    >>> backbone = BackboneClassifier(image_shape=(1, 8, 8), max_epochs=5, random_state=0)
    >>> backbone = backbone.fit(X[:900], digit[:900])
    >>> print(backbone.score(X[900:], digit[900:]) > 0.85)
    True
    >>> backbone.transform(X[900:]).shape
    (897, 64)
    """

    _parameter_constraints: dict = ClassLearner._parameter_constraints

    def __init__(
        self,
        network="auto",
        *,
        hidden_sizes=(128, 128),
        dropout=0.0,
        scaling="standard",
        augmentation=None,
        max_epochs="auto",
        batch_size=64,
        lr="auto",
        optimizer="nesterov",
        weight_decay=5e-4,
        max_grad_norm=5.0,
        schedule="cosine",
        image_shape=None,
        device="auto",
        precision="auto",
        callbacks=None,
        verbose=0,
        random_state=None,
    ):
        self.network = network
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.scaling = scaling
        self.augmentation = augmentation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.schedule = schedule
        self.image_shape = image_shape
        self.device = device
        self.precision = precision
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    # -------------------------------------------------------------------------------------------------- public

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, **fit_params: Any):
        """Train the network to tell the classes apart.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), float or uint8
            Vectors; images; or flattened images with ``image_shape``. uint8 images are scaled by 1/255.
            A memory map larger than memory is read in chunks.
        y : array-like of shape (n_samples,)
            The class of each row: integers or strings, at least two different ones.
        **fit_params : dict
            Some tools pass ``sample_weight=None``: None is ignored, any other value is an error.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If X or y is not as described, or if training diverges.
        KeyboardInterrupt
            If training was interrupted. The classifier is then fitted with the epochs that were finished, if any.
        """
        refuse_fit_params(self, fit_params)
        start = time.perf_counter()
        with self._one_fit():
            # First of all, so that a fit that fails does not leave the estimator with parts of an earlier fit.
            self._forget()
            X = self._check_rows(X, reset=True)
            codes = self._encode(X, y)
            self._check_network_settings()
            self._warn_without_effect()
            data = FitData(X, codes=codes)
            self._learn_front(data)
            rows, seed = self._training_rows(data), self._draw_seed()
            with training.fitting(seed, rows.device, self._draws_alone):
                self._train(rows)
            self._end_fit(data, start)
        return self

    def predict(self, X):
        """Return the most probable class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the classifier was fitted on.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
            Values of ``classes_``.
        """
        logits = self._logits(X)
        return self.classes_[logits.argmax(1)]

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the classifier was fitted on.

        Returns
        -------
        probability : ndarray of float64 of shape (n_samples, n_classes)
            In the order of ``classes_``; rows sum to 1.
        """
        return softmax(self._logits(X), axis=1)

    def decision_function(self, X):
        """Return the logits of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the classifier was fitted on.

        Returns
        -------
        logits : ndarray of float64 of shape (n_samples, n_classes), or (n_samples,) if there are two classes
            The logits in the order of ``classes_``. With two classes, the second class's logit minus the first's.
        """
        logits = self._logits(X)
        # scikit-learn's rule for two classes: one column, positive for the second class.
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def transform(self, X):
        """Return the network's features: the input of its last linear layer.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the classifier was fitted on.

        Returns
        -------
        features : ndarray of float64 of shape (n_samples, n_features_out)
            A row's features depend neither on the other rows nor on their order or number.

        Raises
        ------
        ValueError
            If X is not of the kind the classifier was fitted on, or the network gives NaN or infinity for a row.
        """
        check_is_fitted(self)
        return all_finite(self._apply(self._features, self._check_rows(X, reset=False)))

    def to_torch(self) -> nn.Module:
        """Return scaling and network as one torch module, which computes what `transform` returns.

        Returns
        -------
        module : torch.nn.Module
            A copy, in evaluation mode, on the device of the classifier. It takes a tensor of rows of the kind the
            classifier was fitted on, and returns float32 features of shape (n_samples, n_features_out).
        """
        check_is_fitted(self)
        features = Features(self.module_, self._head, takes=True)
        whole = nn.Sequential(self._front_on(device_of(self.module_)), features)
        return deep_copy(whole).eval().requires_grad_(False)

    # -------------------------------------------------------------------------------------------- for the base class

    def _encode(self, X, y) -> np.ndarray:
        """Set ``classes_``, and return the index of each row's class among them."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        y = check_labels(y, warn=True)
        check_consistent_length(X, y)
        self.classes_, codes = encode_classes(y)
        if len(self.classes_) == 1:
            raise ValueError(f"y has one class, {self.classes_[0]!r}, and a classifier needs two or more.")
        return codes

    def _build_module(self, data):
        """Return the untrained classifier, and remember which layer is its last linear one."""
        network = self.network
        if isinstance(network, str) and network == "auto" and self.image_shape_ is not None:
            channels, *sides = self.image_shape_
            deep = channels == 3 and min(sides) >= _LARGE_SIDE
            network = resnet_if_large(self.image_shape_, "resnet-26-16") if deep else "resnet-14-8"
        options = {"hidden_sizes": self.hidden_sizes, "dropout": self.dropout}
        module = make_classifier(network, self._in_shape, len(self.classes_), **options)
        # On a copy, only for the error: split_head refuses a network in which more follows the last linear layer.
        split_head(deep_copy(module), self._in_shape)
        self._head = find_head(module, self._in_shape)
        return module

    def _phases(self, n_rows):
        """Return the single phase of the training."""
        return [Phase([Step(self._loss)], self._n_epochs(n_rows), augment=self._augmented)]

    def _loss(self, module, rows, labels):
        """Return the cross entropy of the classes."""
        return functional.cross_entropy(one_tensor(module(rows)), labels)

    def _logits(self, X) -> np.ndarray:
        """Check rows, and return their logits."""
        check_is_fitted(self)
        return self._apply(self._class_logits, self._check_rows(X, reset=False))

    def _features(self, module: nn.Module, rows: Tensor) -> Tensor:
        """Return the features of rows."""
        return self._logits_and_features(module, rows)[1]

    # `OODScorer` calls the following three methods; detectors with classes have them, too.

    def _class_logits(self, module: nn.Module, rows: Tensor) -> Tensor:
        """Return the logits of rows."""
        return module(rows)

    def _logits_and_features(self, module: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the features of rows, from one forward pass."""
        return tap(module, self._head, rows)

    def _class_weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights and biases of the last linear layer."""
        return class_weights(self._last_layer, len(self.classes_))

    @property
    def _n_features_out(self) -> int:
        """Return the number of features; scikit-learn makes the names of `get_feature_names_out` from it."""
        return self._last_layer.in_features

    @property
    def _last_layer(self) -> nn.Linear:
        """Return the last linear layer of the trained network."""
        layer = self.module_.get_submodule(self._head)
        assert isinstance(layer, nn.Linear)  # find_head names no other
        return layer
