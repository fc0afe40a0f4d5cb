"""Adapt a frozen pretrained network by small trainable corrections beside its layers (residual adapters).

Deecke, Ruff, Vandermeulen & Bilen, "Deep Anomaly Detection by Residual Adaptation" (2020): ADRA.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional

from .. import training
from .._sklearn import HasMethods, Interval, StrOptions
from ..augment import SCALE_FREE, augmented
from ..backbones import SHIPPED
from ..encoders.pretraining import make_transforms, pretrain, pretraining_loss
from ..encoders.trained import (
    Backbone,
    check_adapters_learn,
    check_alike,
    check_columns,
    find_backbone,
    fingerprint,
    frozen,
    shown,
    warn_of_pixels,
)
from ..estimator.base import OutlierDetector
from ..estimator.classes import encode_classes
from ..estimator.network import GOING_ON, N_JOBS, WATCHING
from ..estimator.scaling import SCALERS, fitted_scaler
from ..estimator.validation import check_hidden_sizes
from ..networks import (
    HypersphereNetwork,
    NearestRows,
    adaptable_layers,
    add_residual_adapters,
    feature_layer,
    initialised,
    layers_before,
    make_classifier,
    own_norms,
)
from ..networks.copies import deep_copy
from ..networks.probe import check_rows_apart
from ..outliers import filled_up, outlier_kinds
from ..training.batches import TensorBatches, TrainingRows
from ..training.device import fitting, resolve_device
from ..training.optim import SCHEDULES
from ..training.phases import Phase, Step
from ..training.scoring import precise
from . import _adapter_files

# Modes that train a copy of the whole backbone.
_WHOLE = ("finetune", "l2sp", "scratch")
# Scores computed from the features alone, which need no training.
_OF_FEATURES = ("knn", "center")
# Near h = 0 the second term of the loss has gradient 1 / h; below this radius it is constant instead.
_SMALLEST_RADIUS = 1e-6
# Without a corpus, embeddings should keep at least this share of their standard deviation before the training.
_SPREAD = 0.5
# With this gain two mixed adapters beside a convolution learn ten times as fast as a layer does in finetuning: gradient
# descent changes a mean of two adapters gain^2 / 2 times as fast.
_IMAGE_GAIN_OF_TWO = 4.5
# Without a corpus, the centre is the mean embedding of about this many rows.
_CENTER_ROWS = 4096

# --------------------------------------------------------------------------------------------------------------------
# The loss


def radial(z: Tensor) -> Tensor:
    """Return h(z) = sqrt(|z|^2 + 1) - 1, computed without cancellation.

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings.

    Returns
    -------
    h : Tensor of shape (n,)
        0 at the origin, about |z|^2 / 2 near it and about |z| - 1 far away.
    """
    squared = z.square().sum(1)
    # sqrt(s + 1) - 1 = s / (sqrt(s + 1) + 1), which subtracts nothing.
    return squared / ((squared + 1).sqrt() + 1)


def log_outlier_probability(h: Tensor) -> Tensor:
    """Return log(1 - exp(-h)), precise for small and for large h; h below 1e-6 counts as 1e-6.

    Parameters
    ----------
    h : Tensor of shape (n,)
        Radii, not negative.

    Returns
    -------
    log_probability : Tensor of shape (n,)
    """
    h = h.clamp_min(_SMALLEST_RADIUS)
    # Maechler, "Accurately computing log(1 - exp(-|a|))" (2012).
    return torch.where(h < math.log(2), torch.log(-torch.expm1(-h)), torch.log1p(-torch.exp(-h)))


def hypersphere_loss(h: Tensor, h_corpus: Tensor) -> Tensor:
    """Return the hypersphere classifier's loss: the cross entropy with exp(-h) as the in-distribution probability.

        H = (sum of h over the rows - sum of log(1 - exp(-h)) over the corpus) / (number of both)

    This is equation 1 of the paper with its labels and its second sign corrected: as printed, it draws everything to
    the origin. The paper cites Ruff et al., "Rethinking Assumptions in Deep Anomaly Detection" (2020), whose loss is
    the one here.

    Parameters
    ----------
    h : Tensor of shape (n,)
        `radial` of in-distribution rows.
    h_corpus : Tensor of shape (m,)
        `radial` of rows of the corpus.

    Returns
    -------
    loss : Tensor of no dimensions
    """
    return (h.sum() - log_outlier_probability(h_corpus).sum()) / (len(h) + len(h_corpus))


def one_class_loss(z: Tensor) -> Tensor:
    """Return the loss for training without a corpus: the mean radius, and a term against collapse.

        H = mean of h(z) + 4 sqrt(d) mean over dimensions of max(0, 1/2 - std(z))

    The first term alone has its minimum, 0, where z is the same for all rows. Once half of the standard deviation is
    lost, the second term costs more than a further contraction gains. It is the variance term of Bardes, Ponce & LeCun,
    "VICReg" (2022). The paper does not say what keeps its variant without a corpus from collapsing.

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings, with mean 0 and standard deviation 1 before the training.

    Returns
    -------
    loss : Tensor of no dimensions
    """
    # The square root has no gradient at 0.
    deviation = (z.var(0, correction=0) + 1e-8).sqrt()
    return radial(z).mean() + 4 * z.shape[1] ** 0.5 * functional.relu(_SPREAD - deviation).mean()


def paper_schedule(progress: float) -> float:
    """Return the share of the initial learning rate: divided by ten after epochs 80 and 100 of 120."""
    return 0.1 ** sum(progress >= milestone / 120 for milestone in (80, 100))


# --------------------------------------------------------------------------------------------------------------------
# Neighbours among features


class Neighbors(NearestRows):
    """Compute the mean distance of rows to their nearest neighbours among given rows; no row is its own neighbour.

    If rows were their own neighbours, training rows would have smaller distances than new rows, and a threshold on
    their scores would call most new rows outliers.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
        Rows among which neighbours are searched.
    n_neighbors : int
        Number of neighbours of each row; at most n - 1 are used.
    """

    def __init__(self, rows: Tensor, n_neighbors: int):
        super().__init__(rows)
        self.n_searched = min(n_neighbors + 1, len(rows))

    def forward(self, queries: Tensor) -> Tensor:
        """Return the mean distance of each of m rows, of shape (m, d), to its neighbours."""
        distance = self.distances(queries, self.n_searched)
        # One more neighbour than needed was searched: drop the row itself, or else the farthest.
        itself = distance[:, :1] <= 1e-6 * torch.linalg.vector_norm(queries, dim=1, keepdim=True)
        return torch.where(itself, distance[:, 1:], distance[:, :-1]).mean(1)


# --------------------------------------------------------------------------------------------------------------------
# The detector


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of a fit, most under the names of parameters; `set_params` after the fit does not change them."""

    score_type: str
    kinds: tuple
    pads: bool
    pretraining: str | None
    adaptation: str
    n_adapters: int
    adapter_rank: int | None
    adapter_gain: float
    batch_norm: str
    layer: str | None
    head_size: int | str | None


class ResidualAdapterDetector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierDetector):
    """Detect outliers by small trainable adapters beside the layers of a frozen pretrained network.

    Use it for images of one kind if you have a corpus of other images and a network trained on similar ones, or for
    many detectors that share one such network. For a single detector, ``adaptation="finetune"`` detects as well or
    better and trains faster. The paper's results need a corpus. On clean vectors, try nearest neighbours first. How it
    fares: :doc:`/methods/residual_adapters`.

    Beside each frozen layer f there are K adapters: linear maps A_k (1x1 convolutions beside convolutions), mixed by a
    gate g that depends on the layer's input (the paper's equation 3). Adapters, gates and a linear head without bias on
    the features are trained. With z the head's output, the loss H draws rows to the origin and pushes the corpus away:

        y = f(x) + sum over k of g_k(x) A_k x,        g(x) = softmax(W mean(x) + b),        h(z) = sqrt(z . z + 1) - 1,
        H = mean of t h(z) - (1 - t) log(1 - exp(-h(z))),        t = 1 for in-distribution rows, 0 for the corpus.

    H is the cross entropy with exp(-h) as the in-distribution probability (equation 1, as printed, has both terms the
    wrong way round). The score is -h(z). Half of each batch is corpus.

    Labels: rows with ``y == outlier_label`` are the corpus. It is unlabelled, may contain in-distribution rows, and
    need not resemble the outliers to come. Without a corpus, outliers are made from the in-distribution rows
    (``outliers``). Classes are ignored, unless ``pretrain="labels"``.

    Parameters
    ----------
    backbone : str, torch.nn.Module, fitted estimator or callable, default="auto"
        The pretrained network. Its last linear layer is not used.

        - a trained torch module. It is not changed, and its input is not scaled: to scale or resize images, wrap it in
          `skood.backbones.Preprocessed`;
        - a fitted estimator of skorch or skood, such as `BackboneClassifier`: its module and scaling are used, images
          are padded as by it, and of images that it cropped the central squares are used; or the backbone of a fitted
          ResidualAdapterDetector;
        - "cifar100-resnet-26-16": a ResNet-26 that comes with skood, for images of one or three channels; see
          `skood.backbones.load_shipped`;
        - "torchvision:NAME" or "timm:NAME": that network with its best published weights, which the package downloads;
        - "residual" or "mlp" for vectors, "resnet-D-W" (depth D = 6n + 2, first width W, such as "resnet-26-32", the
          paper's), "resnet-18", "resnet-34", "resnet-50", "wrn-D-K" or "cnn" for images, or a callable that takes
          ``(n_features, n_outputs)`` or ``((C, H, W), n_outputs)`` and returns a network with a last linear layer.
          These networks are trained first, see ``pretrain``;
        - "auto": "residual" for vectors, "cifar100-resnet-26-16" for images of three channels, else "resnet-14-8".

    pretrain : {"auto", "self", "labels"} or None, default="auto"
        How an untrained backbone is trained on the rows passed to `fit`.

        - "self": to recognise transformations of the rows, corpus included: rotations of images, or 16 maps of vectors
          that permute features, change signs and shift, as in `RotationAuxClassifier`;
        - "labels": to classify the in-distribution rows by the classes in y. For another labelled data set, fit a
          `BackboneClassifier` on it;
        - None: it is not trained and keeps its initial weights;
        - "auto": "self" if the backbone is untrained.

    pretrain_epochs : int or "auto", default="auto"
        Passes over the rows in the pretraining. "auto" is the number that gives about 1000 batches.

    adaptation : {"adapters", "finetune", "l2sp", "scratch", "frozen"}, default="adapters"
        What is trained after the pretraining: the adapters, or one of the alternatives they are compared with.

        - "finetune": a copy of the whole backbone;
        - "l2sp": the same, with ``l2_strength / 2`` times the squared distance to the pretrained weights in the
          loss [3]_;
        - "scratch": the same network from random weights, the hypersphere classifier of [2]_;
        - "frozen": nothing. The score is computed from the backbone's features.

    n_adapters : int, default=2
        K, the number of adapters beside each layer: each linear layer, and each convolution of more than one pixel. A
        backbone with transposed convolutions is refused. There is no gate if K is 1.

    adapter_init : {"near-zero", "he", "zero"}, default="near-zero"
        Initial weights of adapters. "he" is He's normal distribution, a possible reading of the paper's "random".
        "near-zero" is a hundredth of it, so that the adapted network starts close to the pretrained one. "zero" starts
        with zeros.

    adapter_rank : int or None, default=8
        Rank of adapters beside linear layers, which are products of two matrices; None makes them full matrices.

    adapter_gain : float or "auto", default="auto"
        Factor on the sum over k above; the initial A_k are divided by it. With SGD and equal gates, the sum then learns
        adapter_gain^2 / K times as fast as the head and the normalisation. "auto" is 4.5 sqrt(K / 2), about ten times
        as fast, for images with a corpus in y, else 1: made outliers are learnt too fast anyway.

    batch_norm : {"auto", "frozen", "affine", "own"}, default="auto"
        Normalisation layers of the adapted network. "frozen" uses the backbone's; "affine" trains a scale and shift for
        this detector; "own" also gives it its own statistics. The backbone's layers never change. "auto" is "own" with
        a corpus, as in the public code of the paper's group, and "frozen" without.

    layer : str or None, default=None
        Name of the backbone's layer whose output gives the features: maps (n, C, H, W) are averaged over pixels, and
        tokens (n, T, C) over tokens. None is the input of the last linear layer, or the output of a backbone that does
        not end in one.

    head_size : int, "auto" or None, default="auto"
        Number of outputs of the head. "auto" is the number of features, but at most 256; None uses no head.

    l2_strength : float, default=1e-2
        Strength of the penalty of "l2sp".

    outliers : "auto", "auxiliary", str, callable, sequence of these or None, default="auto"
        The corpus. "auxiliary" is the rows with ``y == outlier_label``. The names in `skood.outliers.SYNTHETIC` and
        functions ``(rows, n_outliers) -> outliers`` make it from the in-distribution rows of each batch. "auto" is
        "auxiliary" if y marks such rows, else "noise" and "uniform", and for images also "patches"; made outliers are
        not in the paper. None uses no corpus, and detects far worse on vectors: the loss is then the mean of h around
        the centre of the initial embeddings, UADRA in the paper, and with ``adaptation="scratch"`` similar to Deep
        SVDD. A constant network would minimise that loss. Three things prevent it: the head has no bias, normalisation
        beside adapters is frozen, and a term of the loss raises the standard deviation of embeddings over a batch as
        soon as it falls below half of its initial value.

    score_type : {"auto", "radial", "probability", "knn", "center"}, default="auto"
        The score. "radial" is -h(z), "probability" is p = exp(-h(z)) in log-odds, log(p / (1 - p)). With the features
        before the head, "knn" is minus the mean distance to the ``n_neighbors`` nearest training rows, and "center" is
        minus the distance to the training rows' mean. "auto" is "radial", or "knn" if ``adaptation="frozen"``.

    n_neighbors : int, default=2
        Number of neighbours of "knn"; 2 as in [4]_.

    scaling : {"standard", "minmax"} or None, default="standard"
        Scaling of each feature, or of each channel of images, fitted on the in-distribution rows. It is used if the
        backbone is trained in `fit`; a trained backbone has its own scaling, or none.

    augmentation : {"crop-flip", "crop-flip-mask"}, callable or None, default=None
        Transformation of the images of a batch, rows and corpus alike, during training. "crop-flip" shifts them by up
        to an eighth of the side and mirrors them; "crop-flip-mask" then also masks a square, see `skood.augment`. A
        callable maps a tensor to one of the same shape.

    hidden_sizes : sequence of int, default=(128, 128)
        Width of each hidden layer of "mlp" or block of "residual".

    dropout : float in [0, 1), default=0.0
        Dropout rate of a named network; those named "resnet-" have no dropout.

    max_epochs : int or "auto", default="auto"
        Passes over the in-distribution rows after the pretraining. "auto" is the number that gives at least 1000
        batches, or 500 for images.

    batch_size : int, default=64
        In-distribution rows in a batch; it has as many rows of the corpus.

    lr : float or "auto", default="auto"
        Peak learning rate. "auto" is 0.01 for vectors. For images it is 0.05 without outliers in training, 0.1 for
        "scratch" and for adapters with made outliers, else 0.04.

    optimizer : {"sgd", "nesterov", "adam", "adamw", "rmsprop"} or callable, default="sgd"
        An optimiser by name ("sgd" and "nesterov" have momentum 0.9), or a callable
        ``(parameters, lr=...) -> Optimizer``.

    weight_decay : float, default=1e-4
        Weight decay of a named optimiser. With "l2sp" it applies to the head alone.

    max_grad_norm : float or None, default=5.0
        Gradients are clipped to this norm; None does not clip, as in the paper.

    schedule : {"one-cycle", "cosine", "steps", "constant"} or callable, default="one-cycle"
        How the learning rate changes during training. A callable maps the share of training done, in [0, 1], to a
        factor on ``lr``.

    early_stopping : bool, default=False
        Whether to hold out some in-distribution rows, compute their loss after each epoch (``valid_loss`` in
        `history_`), stop when it no longer falls, and keep the weights with the lowest loss. The pretraining stops
        early, too. The held-out rows are not used for scaling and training. After the training, the score and the
        threshold are fitted on all rows. The same share of the auxiliary outliers is held out, too. The loss is
        computed in evaluation mode, with the same random numbers in each epoch. Measured: :doc:`/watching`.

    validation_fraction : float in (0, 1), default=0.1
        Share of the rows to hold out, at least two rows. Used only with ``early_stopping=True``.

    n_iter_no_change : int, default=10
        Number of epochs without a lower ``valid_loss`` after which training stops. Used only with
        ``early_stopping=True``.

    warm_start : bool, default=False
        Whether `fit` goes on from the last fit for another ``max_epochs``, instead of starting anew. Weights, optimiser
        state, random numbers and scaling are kept; the learning-rate schedule starts again, over the new epochs.
        Parameters that define the network cannot change. The training state is kept and pickled, about twice the size
        of the network. With ``contamination="auto"`` the copies for the threshold are trained from the start, for as
        many epochs as the detector had in all.

    checkpoint : str, path or None, default=None
        File from which a fit that was interrupted or killed goes on. It is written after each epoch; fitting again with
        the same rows and parameters goes on from it, to the same result to the last bit. A completed fit removes the
        file. A file of another fit is refused. ``callbacks`` start anew, and so do their counts. None writes no file.

    contamination : "auto", "natural" or float in [0, 0.5], default="auto"
        How the threshold is set. "auto" aims to call at most 5 % of new in-distribution rows outliers. Copies of the
        detector, three below 300 rows, two below 600, else one, score rows that were held out from them. The threshold
        is set on these scores, or on those of the training rows if that gives a lower one. The detector itself is
        fitted on all rows, whatever the threshold. Fewer than 19 rows do not suffice for 5 %; the threshold is then set
        by the lowest score. A ``backbone`` that was trained on the same rows is not trained again, so that these rows
        score too high. "natural" is where exp(-h) = 1/2; it needs outliers in training, auxiliary or made, and the
        score "radial" or "probability". A float is the share of the in-distribution training rows below the threshold.
        Training rows score higher than new rows, so that a float calls several times its share of new rows outliers,
        most of all with fewer rows than features. 0 calls no training row an outlier. A float needs no further fits:
        use one where only scores matter, as in a search. ``set_threshold(target_fpr=0.05, X=held_out)`` sets the
        threshold afterwards, on held-out rows. Measured rates: :doc:`/choosing`. A guarantee:
        `skood.thresholds.ConformalDetector`.

    image_shape : tuple (C, H, W) or None, default=None
        Shape of one image, if X holds flattened pixels; one entry may be -1, and is then computed. Not needed for
        vectors, nor for images of shape (n, C, H, W).

    outlier_label : number, str, bool, or list of these, default=-1
        Value of y that marks auxiliary outliers (the corpus), or a list of such values.

    device : str or torch.device, default="auto"
        Where to train: "auto" is CUDA, else MPS, else the CPU; "distributed" shares the training among the processes
        that ``torchrun`` started, see `skood.training.distributed`.

    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of training: "auto" is bfloat16 autocast on CUDA and float32 elsewhere. Networks always score in
        float32.

    callbacks : list of skorch callbacks or None, default=None
        Copied for each fit; the copies that ran are in `callbacks_`. They are not called in the pretraining. Monitor
        ``train_loss``, or ``valid_loss`` with ``early_stopping=True``. LRScheduler needs ``schedule="constant"``.
        Supported callbacks: :doc:`/callbacks`.

    n_jobs : int or None, default=None
        Number of processes, as in joblib, that fit the copies for ``contamination="auto"`` in parallel. None means 1,
        unless set by `joblib.parallel_config`.

    verbose : int, default=0
        1 shows a progress bar.

    random_state : int, RandomState instance or None, default=None
        Seed for initial weights, batches and all other random draws. None takes it from numpy's global generator.
        torch's global generators are not changed.

    Attributes
    ----------
    offset_ : float
        The threshold: ``decision_function(X) = score_samples(X) - offset_``. `set_threshold` changes it.

    training_scores_ : ndarray of float64 of shape (n_in_distribution,)
        Ascending scores of the in-distribution training rows.

    score_type_ : str
        The score in use, never "auto".

    backbone_ : torch.nn.Module
        The frozen backbone, without adapters; all detectors that share it hold the same object.

    n_backbone_parameters_, n_adapter_parameters_ : int
        Number of parameters of the backbone, including its last layer; and of those trained beside it or instead of it.

    net_ : skorch.NeuralNet
        The trained net, without its training state.

    module_ : torch.nn.Module
        The module of ``net_``, which maps scaled rows to z; ``module_.features`` is the adapted backbone.

    history_ : list of dict
        One entry for each epoch of the adaptation, with ``phase`` (the ``adaptation``), ``train_loss`` and ``dur``
        (seconds).

    pretraining_history_ : list of dict
        The same for the pretraining, if there was one.

    callbacks_ : list of skorch callbacks
        The copies of ``callbacks`` that ran; not pickled.

    scaler_ : scikit-learn transformer or None
        The fitted scaling, with a column for each feature or channel.

    image_shape_ : tuple or None
        Shape of one image; None for vectors.

    n_features_in_ : int
        Number of features (for images, of pixels times channels).

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has string column names.

    See Also
    --------
    BackboneClassifier : Trains a backbone on labelled rows.
    skood.backbones.Preprocessed : Wraps a network with the preprocessing that it needs.
    FitOnInliers : Keeps a corpus out of a scaler in a Pipeline.

    Notes
    -----
    The parameters of adapters and ``batch_norm`` have an effect only with ``adaptation="adapters"``; with "frozen",
    those of training have none.

    All detectors share one copy of the backbone, which is in memory once; clones share it, too. Training the original
    network further does not change the detectors. `save_adapters` writes what a detector adds to the backbone.

    References
    ----------
    .. [1] Deecke, Ruff, Vandermeulen and Bilen, "Deep Anomaly Detection by Residual Adaptation", 2020.
    .. [2] Ruff, Vandermeulen, Franks, Müller and Kloft, "Rethinking Assumptions in Deep Anomaly Detection", 2020.
    .. [3] Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks",
       ICML 2018.
    .. [4] Bergman, Cohen and Hoshen, "Deep Nearest Neighbor Anomaly Detection", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skood import BackboneClassifier, ResidualAdapterDetector
    >>> from skood.metrics import auroc
    >>> X, digit = load_digits(return_X_y=True)
    >>> settings = {"image_shape": (1, 8, 8), "random_state": 0}
    >>> corpus, new = X[digit < 5], X[digit > 5]
    >>> backbone = BackboneClassifier(max_epochs=5, **settings).fit(corpus, digit[digit < 5])
    >>> normal = X[digit == 7][:80]
    >>> rows, y = np.vstack([normal, corpus]), np.repeat([1, -1], [80, len(corpus)])
    >>> detector = ResidualAdapterDetector(backbone, max_epochs=20, contamination=0, **settings).fit(rows, y)
    >>> print(auroc(np.where(digit[digit > 5] == 7, 1, -1), detector.score_samples(new)) > 0.9)
    True
    """

    _parameter_constraints: dict = {
        **OutlierDetector._parameter_constraints,
        **WATCHING,
        **GOING_ON,
        "backbone": [str, nn.Module, HasMethods("fit"), callable],
        "pretrain": [StrOptions({"auto", "self", "labels"}), None],
        "pretrain_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "adaptation": [StrOptions({"adapters", "frozen", *_WHOLE})],
        "n_adapters": [Interval(Integral, 1, None, closed="left")],
        "adapter_init": [StrOptions({"near-zero", "he", "zero"})],
        "adapter_rank": [Interval(Integral, 1, None, closed="left"), None],
        "adapter_gain": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "batch_norm": [StrOptions({"auto", "frozen", "affine", "own"})],
        "layer": [str, None],
        "head_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "l2_strength": [Interval(Real, 0, None, closed="left")],
        "outliers": [str, list, tuple, callable, None],
        "score_type": [StrOptions({"auto", "radial", "probability", *_OF_FEATURES})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "scaling": [StrOptions(set(SCALERS)), None],
        "augmentation": [StrOptions(SCALE_FREE), callable, None],
        "hidden_sizes": [tuple, list],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "schedule": [StrOptions(set(SCHEDULES)), callable],
        **N_JOBS,
    }

    _shared_params = ("backbone",)
    _fixed_params = (
        *OutlierDetector._fixed_params,
        "backbone",
        "pretrain",
        "pretrain_epochs",
        "adaptation",
        "n_adapters",
        "adapter_rank",
        "adapter_gain",
        "adapter_init",
        "batch_norm",
        "layer",
        "head_size",
        "outliers",
        "score_type",
    )

    def __init__(
        self,
        backbone="auto",
        *,
        pretrain="auto",
        pretrain_epochs="auto",
        adaptation="adapters",
        n_adapters=2,
        adapter_init="near-zero",
        adapter_rank=8,
        adapter_gain="auto",
        batch_norm="auto",
        layer=None,
        head_size="auto",
        l2_strength=1e-2,
        outliers="auto",
        score_type="auto",
        n_neighbors=2,
        scaling="standard",
        augmentation=None,
        hidden_sizes=(128, 128),
        dropout=0.0,
        max_epochs="auto",
        batch_size=64,
        lr="auto",
        optimizer="sgd",
        weight_decay=1e-4,
        max_grad_norm=5.0,
        schedule="one-cycle",
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        checkpoint=None,
        contamination="auto",
        image_shape=None,
        outlier_label=-1,
        device="auto",
        precision="auto",
        callbacks=None,
        n_jobs=None,
        verbose=0,
        random_state=None,
    ):
        self.backbone = backbone
        self.pretrain = pretrain
        self.pretrain_epochs = pretrain_epochs
        self.adaptation = adaptation
        self.n_adapters = n_adapters
        self.adapter_init = adapter_init
        self.adapter_rank = adapter_rank
        self.adapter_gain = adapter_gain
        self.batch_norm = batch_norm
        self.layer = layer
        self.head_size = head_size
        self.l2_strength = l2_strength
        self.outliers = outliers
        self.score_type = score_type
        self.n_neighbors = n_neighbors
        self.scaling = scaling
        self.augmentation = augmentation
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.schedule = schedule
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.contamination = contamination
        self.image_shape = image_shape
        self.outlier_label = outlier_label
        self.device = device
        self.precision = precision
        self.callbacks = callbacks
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def from_paper(cls, backbone="auto", **params):
        """Return a detector with the paper's settings, which are the same for CIFAR-10, STL-10 and MPI3D.

        They are 120 epochs of SGD with momentum 0.9 and weight decay 1e-4, batches of 64 rows and 64 rows of the
        corpus, the learning rate divided by ten after epochs 80 and 100, and K = 2. The paper does not name the initial
        learning rate: 0.1 is from its group's public code. Nor does it name the augmentation: here images are cropped
        and flipped.

        Parameters
        ----------
        backbone : torch.nn.Module, estimator, str or callable, default="auto"
            The network. The paper's ResNet-26, trained on ImageNet at 72 x 72 pixels, is not available.
        **params
            Other parameters, or other values of those above.

        Returns
        -------
        detector : ResidualAdapterDetector
            Not fitted.
        """
        paper = {"n_adapters": 2, "adapter_init": "he", "adapter_gain": 1.0, "max_epochs": 120, "batch_size": 64}
        paper |= {
            "lr": 0.1,
            "optimizer": "sgd",
            "weight_decay": 1e-4,
            "schedule": paper_schedule,
            "max_grad_norm": None,
        }
        if params.get("adaptation", "adapters") != "adapters":
            paper = {name: value for name, value in paper.items() if "adapter" not in name}
        return cls(backbone, **paper | {"augmentation": "crop-flip"} | params)

    # -------------------------------------------------------------------------------------------------- public

    def transform(self, X):
        """Return the features of each row, from the adapted network before its last layer.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        features : ndarray of float64 of shape (n_samples, n_backbone_features)
        """
        check_is_fitted(self)
        return self._apply(_features, self._check_rows(X, reset=False))

    def adapter_state(self):
        """Return what this detector adds to its backbone, for `load_adapters`.

        Returns
        -------
        state : dict of str to ndarray
            Weights of adapters, gates, head and the detector's own normalisation layers; centre, threshold, and scores
            of the training rows; "about", a JSON text with the settings and a fingerprint of the backbone.

        Raises
        ------
        ValueError
            If the detector has no adapters, or its score needs the features of the training rows.
        """
        check_is_fitted(self)
        adaptation = self._settings.adaptation
        if adaptation != "adapters":
            raise ValueError(f"adaptation={adaptation!r} has no adapters to save: pickle the detector instead.")
        if self.score_type_ in _OF_FEATURES:
            raise ValueError(
                f"score_type={self.score_type_!r} needs the features of the training rows, which adapters do not "
                f"hold: pickle the detector instead."
            )
        return _adapter_files.state_of(self)

    def save_adapters(self, path):
        """Write `adapter_state` to a file that `load_adapters` reads; it holds no pickles.

        Parameters
        ----------
        path : str or Path
            The file, in the format of safetensors if its name ends in ``.safetensors``, else ``.npz``. An existing file
            is replaced. It is written as a whole, or not at all.

        Raises
        ------
        ValueError
            For the reasons that `adapter_state` lists.
        """
        _adapter_files.write(path, self.adapter_state())

    def load_adapters(self, source):
        """Load adapters onto this detector's backbone, which makes it fitted without training.

        Parameters
        ----------
        source : str, Path or mapping
            A file that `save_adapters` wrote, or what `adapter_state` returned.

        Returns
        -------
        self : object
            Fitted.

        Raises
        ------
        ValueError
            If this detector's backbone is untrained or not the one of the adapters, if its settings differ, or if the
            source is damaged or holds anything that `save_adapters` does not write, such as NaN or unknown names. The
            message names the file and what is wrong.
        """
        self._validate_params()
        # Loaded onto a clone, so that an error leaves this detector as it was.
        state, about = _adapter_files.read(source)
        try:
            loaded = clone(self)._with_adapters(state, about)
        except ValueError as error:
            where = "" if isinstance(source, Mapping) else f"{source}: "
            raise ValueError(f"{where}{error}") from error
        self._forget()
        params = self.get_params(deep=False)
        vars(self).update(vars(loaded) | params)
        return self

    def _with_adapters(self, source: Mapping[str, np.ndarray], about: dict):
        """Fit this detector from saved tensors instead of by training, and return it."""
        for name, saved in about["settings"].items():
            here = getattr(self, name)
            if here not in (saved, "auto"):
                raise ValueError(
                    f"the adapters were trained with {name}={saved!r}, but here it is {here!r}: set {name}={saved!r}."
                )
        fitted = about["fitted"]
        if self.score_type not in (fitted["score_type_"], "auto"):
            raise ValueError(
                f"the adapters were trained with score_type={fitted['score_type_']!r}, but here it is "
                f"{self.score_type!r}: leave score_type='auto', which takes theirs."
            )
        for name in _adapter_files.ATTRIBUTES:
            # Files written before an attribute existed lack it.
            value = fitted.get(name)
            setattr(self, name, tuple(value) if isinstance(value, list) else value)
        scoring = {"score_type": fitted["score_type_"], "pads": fitted["_pads"]}
        self._settings = AdapterSettings(kinds=(), pretraining=None, **scoring, **about["settings"])
        if "feature_names_in" in about:
            self.feature_names_in_ = np.array(about["feature_names_in"], dtype=object)
        given = self._given_backbone()
        if given is None:
            raise ValueError(
                f"backbone={shown(self.backbone)} is not trained yet: pass the trained one, as a module, a fitted "
                f"classifier, or the detector that saved the adapters."
            )
        self.scaler_, device = copy.deepcopy(given.scaler), resolve_device(self.device)
        backbone = frozen(given.network, device, in_shape=self._in_shape)
        if fingerprint(backbone) != about["backbone"]:
            raise ValueError(
                "the adapters belong to another backbone: its weights differ from this one's. Pass the "
                "backbone that they were trained on."
            )
        if _adapter_files.scaling_of(self.scaler_) != about["scaling"]:
            raise ValueError(
                "the adapters belong to a backbone with another scaling of rows: pass the fitted estimator, "
                "which holds the scaling, as backbone."
            )
        self._set_front(device)
        with fitting(0, device):
            module = self._adapted(backbone).to(device)
            self.net_, self.history_ = training.as_net(module, device), []
        self._count_parameters(module)
        own, current = _adapter_files.own_tensors(module), module.state_dict()
        saved = {name.removeprefix("module."): value for name, value in source.items() if name.startswith("module.")}
        expected = {name: (tuple(current[name].shape), str(current[name].dtype).removeprefix("torch.")) for name in own}
        if expected != {name: (value.shape, str(value.dtype)) for name, value in saved.items()}:
            raise ValueError(
                "the adapters do not fit this backbone, in names, shapes or types: pass the backbone that "
                "they were trained on."
            )
        for name in own:
            current[name].copy_(torch.from_numpy(saved[name]))
        self.training_scores_, self.offset_ = source["training_scores"].copy(), float(source["offset"])
        return self

    # -------------------------------------------------------------------------------------------- for the base class

    @property
    def _auxiliary_rows_train(self):
        """Return whether the network trains on auxiliary outliers."""
        return "auxiliary" in self._settings.kinds

    @property
    def score_type_(self):
        """Return the score in use; see Attributes."""
        return self._settings.score_type

    @property
    def _pads(self):
        """Return whether images are padded to squares after the scaling."""
        return self._settings.pads

    def _embedding(self) -> Backbone:
        """Return the network whose output `transform` returns, for `skood.encoders.embedder`."""
        network: Any = self.module_.features
        return Backbone(network, self.scaler_, self._pads, layer="")

    @property
    def _auto_steps(self):
        """Return the least number of batches with ``max_epochs="auto"``."""
        return 1000 if self.image_shape_ is None else 500

    @property
    def backbone_(self):
        """Return the frozen backbone; see Attributes."""
        return self.module_.stands_on[0]

    @property
    def _n_features_out(self):
        """Return the number of columns of `transform`, from which scikit-learn makes `get_feature_names_out`."""
        return self.module_.features.n_features

    @property
    def _in_shape(self) -> tuple[int, ...]:
        """Return the shape of a row as the network takes it."""
        if self.image_shape_ is None:
            return (self.n_features_in_,)
        side = max(self.image_shape_[1:])
        return (self.image_shape_[0], side, side) if self._pads else self.image_shape_

    def _encode_labels(self, y, n_inliers):
        """Return the index of each row's class if the backbone is trained on classes, else None."""
        if self.pretrain != "labels" or self.adaptation == "scratch" or y is None:
            return None
        return encode_classes(y)[1]

    def _named_backbone(self):
        """Return ``backbone``, or what "auto" stands for."""
        if not (isinstance(self.backbone, str) and self.backbone == "auto"):
            return self.backbone
        if self.image_shape_ is None:
            return "residual"
        return SHIPPED if self.image_shape_[0] == 3 else "resnet-14-8"

    def _given_backbone(self) -> Backbone | None:
        """Return the trained network that ``backbone`` stands for, or None if it is not trained yet."""
        return find_backbone(self._named_backbone(), self._uint8_images)

    def _resolve_pretraining(self, given: Backbone | None, codes: np.ndarray | None) -> str | None:
        """Return how the backbone is trained before it is adapted, or None if it is not trained here."""
        if self.adaptation == "scratch" or self.pretrain is None:
            return None
        if self.pretrain == "auto":
            return "self" if given is None else None
        if given is not None:
            raise ValueError(
                f"pretrain={self.pretrain!r} would train backbone={shown(self.backbone)}, which is trained already: "
                f"leave pretrain='auto', or name an untrained backbone, such as 'resnet-26-16' or 'residual'."
            )
        if self.pretrain == "labels" and (codes is None or codes.max() == 0):
            raise ValueError(
                "pretrain='labels' needs two classes or more among the in-distribution rows, but y has fewer. To learn "
                "from another labelled data set, fit a BackboneClassifier on it and pass that as backbone."
            )
        return self.pretrain

    def _resolve_settings(self, data):
        """Check parameters against each other and the data, and return the settings of the fit."""
        check_hidden_sizes(self.hidden_sizes)
        if self.augmentation is not None and self.image_shape_ is None:
            raise ValueError("augmentation is for images; X holds vectors. Pass images, or image_shape=(C, H, W).")
        given = self._given_backbone()
        pretraining = self._resolve_pretraining(given, data.codes)
        score_type = self.score_type
        if score_type == "auto":
            score_type = "knn" if self.adaptation == "frozen" else "radial"
        if self.adaptation == "frozen" and score_type not in _OF_FEATURES:
            raise ValueError(
                f"score_type={self.score_type!r} needs training, but adaptation='frozen' trains nothing: choose 'knn' "
                f"or 'center'."
            )
        if self.adaptation == "scratch" and self.pretrain in ("self", "labels"):
            raise ValueError(
                f"pretrain={self.pretrain!r} has no effect with adaptation='scratch', which starts from random "
                f"weights: leave pretrain='auto'."
            )
        if self.early_stopping and self.adaptation == "frozen" and pretraining is None:
            raise ValueError(
                "early_stopping=True has nothing to stop: nothing is trained with adaptation='frozen' and a trained "
                "backbone. Set early_stopping=False."
            )
        kinds = self._corpus(data.n_auxiliary)
        kinds = [] if self.adaptation == "frozen" else kinds
        batch_norm, gain = self.batch_norm, self.adapter_gain
        if batch_norm == "auto":
            batch_norm = "own" if kinds else "frozen"
        if gain == "auto":
            fast = self.image_shape_ and "auxiliary" in kinds
            # Gates of about 1 / K divide the gradient and the effect of each of K adapters by K, so that the mixture
            # learns 1 / K times as fast, which the gain compensates.
            gain = _IMAGE_GAIN_OF_TWO * math.sqrt(self.n_adapters / 2) if fast else 1.0
        # Pretraining rotates images, and a rotated image must have the shape of an upright one.
        shape = self.image_shape_
        turned = pretraining == "self" and shape is not None and shape[1] != shape[2]
        return AdapterSettings(
            score_type=score_type,
            kinds=tuple(kinds),
            pads=turned or (given is not None and given.pads),
            pretraining=pretraining,
            adaptation=self.adaptation,
            n_adapters=self.n_adapters,
            adapter_rank=self.adapter_rank,
            adapter_gain=float(gain),
            batch_norm=batch_norm,
            layer=self.layer,
            head_size=self.head_size,
        )

    def _without_effect(self):
        """Return the parameters that have no effect, each with the reason."""
        settings, backbone, reasons = self._settings, self._named_backbone(), {}
        given = self._given_backbone()
        if settings.pretraining is None:
            reasons["pretrain_epochs"] = "without pretraining"
        # None says what happens on a backbone that scales nothing.
        if given is not None and not (self.scaling is None and given.scaler is None):
            reasons["scaling"] = "on a trained backbone, which has its own"
        if not isinstance(backbone, str) or given is not None:
            reasons |= dict.fromkeys(("hidden_sizes", "dropout"), "on a backbone that is given")
        elif self.image_shape_ is not None:
            reasons["hidden_sizes"] = "on images"
            if backbone.startswith("resnet-"):
                reasons["dropout"] = f"on backbone={backbone!r}"
        if settings.adaptation != "adapters":
            names = ("n_adapters", "adapter_init", "adapter_rank", "adapter_gain")
            reasons |= dict.fromkeys(names, f"with adaptation={settings.adaptation!r}, which has no adapters")
            reasons["batch_norm"] = f"with adaptation={settings.adaptation!r}"
        if settings.adaptation != "l2sp":
            reasons["l2_strength"] = "without adaptation='l2sp'"
        if settings.adaptation == "frozen":
            reasons |= dict.fromkeys(("outliers", "head_size"), "with adaptation='frozen', which trains nothing")
        if settings.score_type != "knn":
            reasons["n_neighbors"] = "without score_type='knn'"
        return reasons

    def _corpus(self, n_auxiliary: int) -> list:
        """Return the kinds of outliers that the corpus consists of."""
        if self.outliers is None:
            return []
        return outlier_kinds(self.outliers, self.image_shape_, n_auxiliary, self.outlier_label)

    def _fit_representation(self, data):
        """Fit the scaling, or copy that of a trained backbone, which must get rows scaled as in its training."""
        given = self._given_backbone()
        if given is None:
            self.scaler_ = fitted_scaler(self.scaling, self._inlier_chunks(data))
            return
        self.scaler_ = copy.deepcopy(given.scaler)
        check_columns(self.scaler_, self.image_shape_ or (self.n_features_in_,))
        check_alike(self.backbone, self, "backbone")
        warn_of_pixels(given.network, next(self._inlier_chunks(data)))

    def _front_options(self):
        """Return the options of the front: the scaling, and whether images are padded."""
        return {"scaler": self.scaler_, "pads": self._pads}

    def _build_module(self, data):
        """Return the backbone, pretrained if necessary, with the parts to train added."""
        given = self._given_backbone()
        network = self._pretrained(data) if given is None else given.network
        backbone = frozen(network, data.device, in_shape=self._in_shape)
        module = self._adapted(backbone, given is not None).to(data.device)
        check_rows_apart(module, self._in_shape)
        if self.adaptation == "adapters":
            check_adapters_learn(module.eval(), self._in_shape)
            module.train()
        if not self._settings.kinds and self.adaptation != "frozen":
            self._center(module, data)
        self._count_parameters(module)
        return module

    def _count_parameters(self, module: HypersphereNetwork) -> None:
        """Count the parameters of the backbone and the trained ones."""
        self.n_backbone_parameters_ = sum(parameter.numel() for parameter in module.stands_on[0].parameters())
        trained = (parameter for parameter in module.parameters() if parameter.requires_grad)
        self.n_adapter_parameters_ = sum(parameter.numel() for parameter in trained)

    def _refuse_transposed(self, features) -> None:
        """Refuse a network with a transposed convolution before its features: it would stay as it is, unadapted."""
        layers = {
            name: type(layer).__name__
            for name, layer in features.network.named_modules()
            if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
        }
        # An adapter is a 1x1 convolution: it cannot have the larger output of a transposed convolution.
        for name in layers_before(features, self._in_shape, list(layers)) if layers else ():
            raise ValueError(
                f"backbone's layer {name!r} is a {layers[name]}, beside which there can be no adapters. Set "
                f"adaptation='finetune', or layer to one that runs before {name!r}, or replace {name!r} in the "
                f"backbone by torch.nn.Upsample and a convolution."
            )

    def _adapted(self, backbone: nn.Module, given: bool = True) -> HypersphereNetwork:
        """Return the network to train: the frozen backbone with adapters beside its layers, or a copy of it."""
        settings, network = self._settings, backbone
        living: list | None = []
        if settings.adaptation in _WHOLE:
            network, living = deep_copy(backbone).requires_grad_(True), None
            if settings.adaptation == "scratch" and given:
                initialised(network)
        features = feature_layer(network, self._in_shape, settings.layer)
        if settings.adaptation == "adapters":
            layers = layers_before(features, self._in_shape, adaptable_layers(network))
            if not layers:
                raise ValueError(
                    "backbone has no layer that can have adapters: no linear layer, and no convolution of more than "
                    "one pixel, before its features. Set adaptation='finetune' or 'frozen'."
                )
            self._refuse_transposed(features)
            options = {"init": self.adapter_init, "rank": settings.adapter_rank, "gain": settings.adapter_gain}
            features.network = add_residual_adapters(network, settings.n_adapters, layers=layers, **options)
            if settings.batch_norm != "frozen":
                names = [name for name, _ in features.network.named_modules() if name]
                parts = layers_before(features, self._in_shape, names)
                norms = own_norms(features.network, parts)
                living = norms if settings.batch_norm == "own" else []
        if settings.adaptation != "frozen":
            features.drop_classifier(self._in_shape)
        n_outputs = settings.head_size
        if n_outputs == "auto":
            n_outputs = min(features.n_features, 256)
        n_outputs = None if settings.adaptation == "frozen" else n_outputs
        return HypersphereNetwork(features, n_outputs, living, backbone)

    def _pretrained(self, data: TrainingRows) -> nn.Module:
        """Build a backbone, train it as ``pretrain`` says, and return it."""
        task, transforms = self._settings.pretraining, None
        fold, checkpoint = self._running.fold, self._running.checkpoint
        if task == "labels" and data.labels is not None:
            n_outputs = int(data.labels.max()) + 1
        else:
            transforms = make_transforms(self.image_shape_, self.n_features_in_)
            n_outputs = int(transforms.n_transforms)  # type: ignore[arg-type]
        options = {"hidden_sizes": self.hidden_sizes, "dropout": self.dropout}
        network = make_classifier(self._named_backbone(), self._in_shape, n_outputs, **options, what="backbone")
        network = network.to(data.device)
        if task is None:
            return network.eval()
        if task == "self" and transforms is not None:
            # Transformations can be learnt from any rows, so those of the corpus are used, too.
            watching, out = data.held_out, [] if fold is None else [fold.held_out]
            if watching is not None:
                out += [part for part in (watching.indices, watching.auxiliary_indices) if part is not None]
            indices = np.setdiff1d(np.arange(len(data.X)), np.concatenate(out)) if out else None
            data = TrainingRows(data.X, indices, self._front, data.device)
            data.held_out = watching
            transforms.to(data.device)
        epochs = self.pretrain_epochs
        if fold is not None and epochs != "auto":
            epochs = fold.as_many_steps(epochs, len(data), self.batch_size)
        network, self.pretraining_history_, interrupted = pretrain(
            network,
            self._own_share(data),
            partial(pretraining_loss, transforms=transforms, augmentation=self.augmentation),
            max_epochs=epochs,
            batch_size=self.batch_size,
            precision=self.precision,
            progress=self._progress,
            together=self._together,
            patience=self.n_iter_no_change if self.early_stopping else None,
            checkpoint=None if checkpoint is None else checkpoint.part("pretraining"),
        )
        if interrupted:
            # The network is then not adapted, so that only a score of its features has a meaning.
            self._running.interrupted, self._settings = True, replace(self._settings, score_type="knn")
        return network

    def _center(self, module: HypersphereNetwork, data: TrainingRows) -> None:
        """Set centre and spread to mean and standard deviation of embeddings before the training, in training mode."""
        before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        module.train()
        parts: list[Tensor] = []
        n_rows = 0
        with torch.no_grad():
            for rows, _ in TensorBatches(data, self.batch_size):
                parts.append(module(rows))
                n_rows += len(rows)
                if n_rows >= _CENTER_ROWS:
                    break
        embeddings = torch.cat(parts)
        for name, buffer in module.named_buffers():
            # The loop above has changed the running statistics of batch normalisation.
            buffer.copy_(before[name])
        module.center.copy_(embeddings.mean(0))
        # A dimension without spread must not be divided by 0.
        spread = embeddings.std(0)
        module.spread.copy_(spread.clamp_min(1e-3 * float(spread.mean()) + 1e-6))

    def _phases(self, n_rows):
        """Return the single phase of the adaptation, with no epochs if nothing is trained."""
        epochs = 0 if self.adaptation == "frozen" else self._n_epochs(n_rows)
        kinds = self._settings.kinds
        share = kinds.count("auxiliary") / max(1, len(kinds))
        return [Phase([Step(self._loss)], epochs, self.adaptation, auxiliary_ratio=share)]

    def _training_options(self):
        """Return the training options that the base class does not set."""
        lr = self.lr
        if lr == "auto":
            if self.image_shape_ is None:
                lr = 0.01
            elif not self._settings.kinds:
                # The loss draws all rows to one point, where larger steps may leave them for good.
                lr = 0.05
            else:
                pretrained = self.adaptation in ("finetune", "l2sp") or "auxiliary" in self._settings.kinds
                lr = 0.04 if pretrained and self.adaptation != "scratch" else 0.1
        # In "l2sp" the penalty on the distance to the pretrained weights replaces weight decay.
        weight_decay = 0.0 if self.adaptation == "l2sp" else self.weight_decay
        options = {name: getattr(self, name) for name in ("schedule", "max_grad_norm")}
        return options | {"lr": lr, "weight_decay": weight_decay}

    def _loss(self, module, rows, labels=None, auxiliary=None):
        """Return the loss of a batch, with or without a corpus."""
        if not self._settings.kinds:
            loss = one_class_loss(module(augmented(rows, self.augmentation)).float())
        else:
            # If only rows were augmented, the network would recognise them by the augmentation.
            corpus = filled_up(rows, auxiliary, len(rows), self._settings.kinds)
            both = augmented(torch.cat([rows, corpus]), self.augmentation)
            h = radial(module(both).float())
            loss = hypersphere_loss(h[: len(rows)], h[len(rows) :])
        return loss + self._pull(module) if self.adaptation == "l2sp" else loss

    def _pull(self, module: HypersphereNetwork) -> Tensor:
        """Return the L2-SP penalty on the squared distance to the pretrained weights, and on the head's weights.

        Li, Grandvalet & Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks" (2018).
        """
        start = dict(module.stands_on[0].named_parameters())
        now = module.features.network.named_parameters()
        distance = sum((parameter - start[name]).square().sum() for name, parameter in now)
        head = sum(parameter.square().sum() for parameter in module.head.parameters())
        return (self.l2_strength * distance + self.weight_decay * head) / 2

    def _fit_score(self, data):
        """Keep the features of the training rows, or their mean, for the scores that need them."""
        self._neighbors = self._mean_features = None
        if self.score_type_ in _OF_FEATURES:
            features = self._apply(_features, data.X, data.inlier_indices)
            self._mean_features = features.mean(0)
            if self.score_type_ == "knn":
                self._neighbors = Neighbors(torch.from_numpy(features), self.n_neighbors)

    def _raw_score(self, module, rows):
        """Return the score of each row; higher = more normal."""
        if self.score_type_ not in _OF_FEATURES:
            h = radial(precise(module(rows)))
            return -h if self.score_type_ == "radial" else _log_odds(h)
        features = precise(module.features(rows))
        if self.score_type_ == "knn":
            return -self._neighbors.to(features.device)(features)
        mean = torch.as_tensor(self._mean_features, dtype=features.dtype, device=features.device)
        return -torch.linalg.vector_norm(features - mean, dim=1)

    def _saved(self):
        state = super()._saved()
        if state.get("_neighbors") is not None:
            # A machine without this device must be able to read the pickle.
            state["_neighbors"] = copy.deepcopy(self._neighbors).cpu()
        return state

    def _has_boundary(self):
        return self.score_type_ not in _OF_FEATURES and len(self._settings.kinds) > 0

    def _natural_offset(self):
        # exp(-h) = 1/2.
        return -math.log(2) if self.score_type_ == "radial" else 0.0


def _features(module: HypersphereNetwork, rows: Tensor) -> Tensor:
    """Return the features of rows, before the head."""
    return module.features(rows)


def _log_odds(h: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of the probability p = exp(-h)."""
    # It is -log(exp(h) - 1), rewritten so as not to overflow for large h. At h = 0 it would be infinite.
    return -h - torch.log(-torch.expm1(-h.clamp_min(torch.finfo(h.dtype).tiny)))
