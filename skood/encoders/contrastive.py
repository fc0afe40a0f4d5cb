"""Train an encoder without labels, by recognising views of the same row among those of all others (SimCLR).

Chen, Kornblith, Norouzi & Hinton, "A Simple Framework for Contrastive Learning of Visual Representations" (2020). Wu &
Goodman, "A Simple Framework for Uncertainty in Contrastive Learning" (2020), use it as their encoder. Views of vectors
are those of Bahri, Jiang, Tay & Metzler, "SCARF: Self-Supervised Contrastive Learning using Random Feature Corruption"
(2022).
"""

from __future__ import annotations

import time
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional

from .. import training
from .._sklearn import Interval, StrOptions
from .._warn import warn_user
from ..augment import AUGMENTATIONS, augmented
from ..estimator.classes import NetworkLearner
from ..estimator.data import FitData
from ..estimator.labels import check_marked, find_outliers
from ..estimator.network import GOING_ON, WATCHING
from ..estimator.rows import all_alike
from ..estimator.scaling import unscaled
from ..estimator.tools import refuse_replaced
from ..estimator.validation import check_hidden_sizes, refuse_fit_params
from ..networks import Projected, make_classifier, resnet_if_large
from ..networks.copies import deep_copy
from ..networks.randomness import drawing
from ..training.phases import Phase, Step
from ..training.scoring import device_of
from .embedder import all_finite
from .trained import Backbone

# Images with at least this many pixels on the shorter side get a residual network.
_LARGE_SIDE = 24
# Number of rows whose embeddings are compared to find out whether the encoder has collapsed.
_ROWS_COMPARED = 256


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.07) -> Tensor:
    """Return the normalised, temperature-scaled cross entropy of picking a view's partner among all other views.

    With s_ij the cosine of views i and j of the 2n views of n rows, and j(i) the other view of the row of view i, it is

        mean_i -log exp(s_i,j(i) / temperature) / sum_{k != i} exp(s_ik / temperature).

    This is equation (1) of Chen et al. (2020), averaged over both views of every pair. Equation (1) of Wu & Goodman
    (2020), minimised, differs by a constant.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d)
        Embeddings of one view of each row, and of another view of it. They need not have length 1.
    temperature : float, default=0.07
        Number by which the cosines are divided. The lower it is, the more the nearest views count.

    Returns
    -------
    loss : Tensor of no dimensions

    Examples
    --------
    >>> import torch
    >>> from skood.encoders.contrastive import nt_xent
    >>> views = torch.eye(2)
    >>> print(round(float(nt_xent(views, views, temperature=1.0)), 3))  # log(e + 2) - 1
    0.551
    """
    views = torch.cat([z1, z2])
    # Without autocast: cosines in bfloat16, divided by the temperature, would be off by more than a tenth.
    with torch.autocast(views.device.type, enabled=False):
        views = functional.normalize(views.to(torch.promote_types(views.dtype, torch.float32)), dim=1)
        similarity = views @ views.T / temperature
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    partner = torch.arange(len(views), device=views.device).roll(len(z1))
    return functional.cross_entropy(similarity.masked_fill(itself, -torch.inf), partner)


def corrupt_features(rows: Tensor, rate: float) -> Tensor:
    """Replace each feature of each row, with some probability, by the same feature of another row.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
        At least two rows.
    rate : float in [0, 1]
        The probability. The other row is drawn for each feature anew.

    Returns
    -------
    rows : Tensor of shape (n, d)
    """
    n = len(rows)
    # From 1 on and counted from the row itself, so that it is never the row itself.
    other = torch.randint(1, n, rows.shape, **drawing(rows.device))
    other = (other + torch.arange(n, device=rows.device)[:, None]) % n
    return torch.where(torch.rand(rows.shape, **drawing(rows.device)) < rate, rows.gather(0, other), rows)


class SimCLREncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NetworkLearner):
    """Learn an embedding of rows without labels, by contrasting views of the rows (SimCLR).

    Use it to train an encoder for detectors and classifiers if there are no labels; with labels, use
    `BackboneClassifier`. The embedding keeps what the views of a row have in common, which may be less than what tells
    rows apart. So compare a detector on the embedding with one on the rows themselves; :doc:`/images` shows both.
    ``make_pipeline(SimCLREncoder(...), DUMDetector())`` is the method of Wu & Goodman [2]_, whose detector learns how
    certain an embedding is.

    Two views of each row of a batch pass through a network. A projection head, one layer with ReLU and one linear
    layer, maps their features to embeddings of unit length. Training minimises `nt_xent`: of all views of the batch,
    the one nearest to a view of a row should be the other view of the same row. ``augmentation`` decides what the views
    of a row have in common. Views of images are crops with changed colours. One view of a vector is the vector itself,
    and the other has some features of other rows.

    Labels: rows with ``y == outlier_label`` are left out of the training; classes are ignored.

    Parameters
    ----------
    network : str, torch.nn.Module, class or callable, default="auto"
        "mlp" or "residual" for vectors; "cnn" (two convolutions), "resnet-D-W" (`skood.networks.ResNet` of depth D and
        W channels at first, such as "resnet-14-8"), "wrn-D-K" (Wide ResNet of depth D and width K, such as "wrn-16-2"),
        "resnet-18", "resnet-34" or "resnet-50" (`skood.networks.ImageNetResNet`) for images. "auto" is "residual" for
        vectors; for images, "cnn" if the shorter side has less than 24 pixels, else "resnet-14-8" for one channel, and
        for more channels "resnet-14-16", or "resnet-18" from 96 pixels on. A class or callable is called with
        ``(n_features, embedding_size)`` or ``((C, H, W), embedding_size)``. A module is copied before it is trained.
        The output of its last linear layer must be its result; that layer becomes the last one of the projection head.

    embedding_size : int, default=128
        Number of dimensions of the embedding.

    output : {"embedding", "features"}, default="embedding"
        What `transform` returns: the embedding, of unit length, or the network's features, which the projection head
        maps to the embedding.

    temperature : float, default=0.07
        Temperature of the loss. The lower it is, the more the nearest views of other rows count.

    augmentation : {"auto", "simclr", "simclr-no-flip", "crop-flip", "crop-flip-mask"} or callable, default="auto"
        How views are made. The names are for images, see `skood.augment`. A callable maps a tensor of images, or of
        scaled vectors, to one of the same shape, and makes both views. "auto" is "simclr" for images of three channels
        and "simclr-no-flip" for other images, because these may be letters or digits, which must not be mirrored. For
        vectors, "auto" replaces features in one of the views, see ``corruption_rate``.

        Augmentations get images with pixels in [0, 1], before the scaling. uint8 images are divided by 255. Float
        images outside [0, 1] are mapped to [0, 1] by the smallest and the largest pixel of the rows that the scaling
        was fitted on (black stays black), and mapped back afterwards.

    corruption_rate : float in (0, 1], default=0.6
        Probability with which a feature of a vector, in one of the two views, is replaced by that of another row. It
        has no effect on images.

    hidden_sizes : sequence of int, default=(128, 128)
        Width of each hidden layer of "mlp" or block of "residual".

    dropout : float in [0, 1), default=0.0
        Dropout rate of a named network; those named "resnet-" have no dropout.

    scaling : {"standard", "minmax"} or None, default="standard"
        Scaling of each feature, or of each channel of images.

    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto" is the number that gives at least 2000 batches, or 1000 for images.

    batch_size : int, default=128
        Rows in a batch, at least 2. Each view is contrasted with the 2 (batch_size - 1) views of the other rows.

    lr : float, default=0.002
        Initial learning rate.

    optimizer : {"adamw", "adam", "nesterov", "sgd", "rmsprop"} or callable, default="adamw"
        An optimiser by name ("nesterov" and "sgd" with momentum 0.9), or ``(parameters, lr=...) -> Optimizer``.

    weight_decay : float, default=1e-4
        Weight decay of a named optimiser.

    max_grad_norm : float or None, default=None
        Gradients are clipped to this norm; None does not clip.

    schedule : {"cosine", "one-cycle", "steps", "constant"} or callable, default="cosine"
        How the learning rate changes during training. A callable maps the share of training done, in [0, 1], to a
        factor on the learning rate. "steps" divides the rate by five after 30, 60 and 80 %. `partial_fit` leaves the
        rate constant.

    early_stopping : bool, default=False
        Whether to hold out some rows, compute their loss after each epoch (``valid_loss`` in `history_`), stop when it
        no longer falls, and keep the weights with the lowest loss. The held-out rows are not used for scaling and
        training. The loss is computed in evaluation mode, with the same random views in each epoch.

    validation_fraction : float in (0, 1), default=0.1
        Share of the rows to hold out, at least two rows. Used only with ``early_stopping=True``.

    n_iter_no_change : int, default=10
        Number of epochs without a lower ``valid_loss`` after which training stops. Used only with
        ``early_stopping=True``.

    warm_start : bool, default=False
        Whether `fit` goes on from the last fit for another ``max_epochs``, instead of starting anew. Weights, optimiser
        state, random numbers and scaling are kept; the learning-rate schedule starts again, over the new epochs.
        Parameters that define the network cannot change. The training state is kept and pickled, about twice the size
        of the network.

    checkpoint : str, path or None, default=None
        File from which a fit that was interrupted or killed goes on. It is written after each epoch; fitting again with
        the same rows and parameters goes on from it, to the same result to the last bit. A completed fit removes the
        file. A file of another fit is refused. ``callbacks`` start anew, and so do their counts. None writes no file.

    image_shape : tuple (C, H, W) or None, default=None
        Shape of one image, if X holds flattened pixels; one entry may be -1, and is then computed. Not needed for
        vectors, nor for images of shape (n, C, H, W).

    outlier_label : number, str, bool, list of these, or None, default=-1
        The value of y that marks auxiliary outliers, or several: these rows are left out of training. None ignores y.

    device : str or torch.device, default="auto"
        Where to train: "auto" is CUDA, else MPS, else the CPU; "distributed" shares the training among the processes
        that ``torchrun`` started, see `skood.training.distributed`.

    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of training: "auto" is bfloat16 autocast on CUDA and float32 elsewhere. `transform` always computes in
        float32.

    callbacks : list of skorch callbacks or None, default=None
        Callbacks for the training. They are copied for each fit; the copies that ran are in `callbacks_`. Monitor
        ``train_loss``, or ``valid_loss`` with ``early_stopping=True``. LRScheduler needs ``schedule="constant"``.

    verbose : int, default=0
        1 shows a progress bar.

    random_state : int, RandomState instance or None, default=None
        Seed for initial weights, batches and views, in continued training, too. torch's global generators are not
        changed.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net, without what only training needs.

    module_ : torch.nn.Module
        The net's module, a `skood.networks.Projected`, which maps scaled rows to embeddings; its ``trunk`` maps them to
        features.

    history_ : list of dict
        One entry for each epoch, with ``train_loss`` and ``dur`` (seconds). If training was continued, the epochs
        before are included.

    callbacks_ : list of skorch callbacks
        The copies of ``callbacks`` that ran last; not pickled.

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
    BackboneClassifier : Trains an encoder on labels.
    DUMDetector : Detects outliers among embeddings.
    ResidualAdapterDetector : Detects outliers; it takes the fitted encoder as its ``backbone``.

    References
    ----------
    .. [1] Ting Chen, Simon Kornblith, Mohammad Norouzi and Geoffrey Hinton, "A Simple Framework for Contrastive
       Learning of Visual Representations", ICML 2020.
    .. [2] Mike Wu and Noah Goodman, "A Simple Framework for Uncertainty in Contrastive Learning",
       arXiv:2010.02038, 2020.
    .. [3] Dara Bahri, Heinrich Jiang, Yi Tay and Donald Metzler, "SCARF: Self-Supervised Contrastive Learning using
       Random Feature Corruption", ICLR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skood import SimCLREncoder
    >>> X = load_digits().data[:200]
    >>> encoder = SimCLREncoder(image_shape=(1, 8, 8), embedding_size=16, max_epochs=2, random_state=0).fit(X)
    >>> embeddings = encoder.transform(X)
    >>> embeddings.shape
    (200, 16)
    >>> bool(np.allclose(np.linalg.norm(embeddings, axis=1), 1))
    True
    """

    _parameter_constraints: dict = {
        **NetworkLearner._parameter_constraints,
        **WATCHING,
        **GOING_ON,
        "embedding_size": [Interval(Integral, 1, None, closed="left")],
        "output": [StrOptions({"embedding", "features"})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "augmentation": [StrOptions({"auto", *AUGMENTATIONS}), callable],
        "corruption_rate": [Interval(Real, 0, 1, closed="right")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "outlier_label": [Real, str, "boolean", "array-like", None],
    }
    _fixed_params = (*NetworkLearner._fixed_params, "embedding_size")

    def __init__(
        self,
        network="auto",
        *,
        embedding_size=128,
        output="embedding",
        temperature=0.07,
        augmentation="auto",
        corruption_rate=0.6,
        hidden_sizes=(128, 128),
        dropout=0.0,
        scaling="standard",
        max_epochs="auto",
        batch_size=128,
        lr=0.002,
        optimizer="adamw",
        weight_decay=1e-4,
        max_grad_norm=None,
        schedule="cosine",
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        checkpoint=None,
        image_shape=None,
        outlier_label=-1,
        device="auto",
        precision="auto",
        callbacks=None,
        verbose=0,
        random_state=None,
    ):
        self.network = network
        self.embedding_size = embedding_size
        self.output = output
        self.temperature = temperature
        self.augmentation = augmentation
        self.corruption_rate = corruption_rate
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.scaling = scaling
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
        self.image_shape = image_shape
        self.outlier_label = outlier_label
        self.device = device
        self.precision = precision
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def from_paper(cls, **params):
        """Return an encoder with the settings of Wu & Goodman (2020), appendix A.3, for images.

        The settings are a ResNet-18, embeddings of 128 dimensions, SGD with momentum, a constant learning rate of 0.03
        and weight decay of 1e-4, batches of 128, 200 epochs, crops, colours, flips and greys, and standardised
        channels. The temperature of 0.07 is that of appendix A.6, where the network is ``"resnet-34"``. The paper gives
        no strengths of its augmentations; here they are those of `skood.augment.simclr`. The paper enlarges images to
        224 pixels; here they keep their size.

        Parameters
        ----------
        **params
            Parameters that replace these settings.

        Returns
        -------
        encoder : SimCLREncoder
            An encoder that is not fitted.
        """
        paper = {
            "network": "resnet-18",
            "embedding_size": 128,
            "temperature": 0.07,
            "augmentation": "simclr",
            "scaling": "standard",
            "max_epochs": 200,
            "batch_size": 128,
            "lr": 0.03,
            "optimizer": "sgd",
            "weight_decay": 1e-4,
            "max_grad_norm": None,
            "schedule": "constant",
        }
        return cls._with_settings(paper, params)

    # -------------------------------------------------------------------------------------------------- public

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, **fit_params: Any):
        """Train the network to recognise views of the same row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), float or uint8
            Vectors; images; or flattened images with ``image_shape``. uint8 images are scaled by 1/255.
            A memory map larger than memory is read in chunks.
        y : array-like of shape (n_samples,), default=None
            Rows with ``y == outlier_label`` are left out; all other values of y are ignored.
        **fit_params : dict
            Some tools pass ``sample_weight=None``: None is ignored, any other value is an error.

        Returns
        -------
        self : object
            The fitted encoder.

        Raises
        ------
        ValueError
            If X or y is not as described, if fewer than two rows are left, or if training diverges.
        KeyboardInterrupt
            If training was interrupted. The encoder is then fitted with the epochs that were finished, if any.
        """
        refuse_fit_params(self, fit_params)
        go_on = self.warm_start and self.__sklearn_is_fitted__()
        with self._one_fit(go_on=go_on):
            self._learn(X, y, go_on)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, **fit_params: Any):
        """Train for one pass over these rows at a constant rate: from the beginning, or on from the fitted network.

        Weights, optimiser and random numbers continue, and the scaling stays that of the first call of this method or
        of `fit`. After a `fit` with ``warm_start=False``, which keeps less, the optimiser and the random numbers begin
        anew.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), float or uint8
            Rows of the kind of the first call, as in `fit`.
        y : array-like of shape (n_samples,), default=None
            Rows with ``y == outlier_label`` are left out; all other values of y are ignored.
        **fit_params : dict
            Some tools pass ``sample_weight=None``: None is ignored, any other value is an error.

        Returns
        -------
        self : object
            The fitted encoder.

        Raises
        ------
        ValueError
            As in `fit`. An encoder that was fitted before stays unchanged.
        KeyboardInterrupt
            If training was interrupted. If it did not finish the pass, the encoder stays unchanged.
        """
        refuse_fit_params(self, fit_params)
        go_on = self.__sklearn_is_fitted__()
        with self._one_fit(one_pass=True, go_on=go_on):
            self._learn(X, y, go_on)
        return self

    def transform(self, X):
        """Return the embedding of each row, or its features with ``output="features"``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the encoder was fitted on.

        Returns
        -------
        Z : ndarray of float64 of shape (n_samples, n_features_out)
            A row's embedding depends neither on the other rows nor on their order or number.

        Raises
        ------
        ValueError
            If X is not of the kind the encoder was fitted on, or the network gives NaN or infinity for a row.
        """
        check_is_fitted(self)
        function = _features if self._output == "features" else _embeddings
        return all_finite(self._apply(function, self._check_rows(X, reset=False)))

    def to_torch(self) -> nn.Module:
        """Return the fitted encoder as one torch module, which computes what `transform` returns.

        Returns
        -------
        module : torch.nn.Module
            A copy, in evaluation mode, on the device of the encoder. It takes a tensor of rows of the kind the encoder
            was fitted on, and returns float32 features of shape (n_samples, n_features_out).
        """
        check_is_fitted(self)
        copied = deep_copy(self)
        network = copied._embedding().network
        return nn.Sequential(copied._front_on(device_of(network)), network).eval().requires_grad_(False)

    # -------------------------------------------------------------------------------------------- for the base class

    def _embedding(self) -> Backbone:
        """Return the network whose output `transform` returns, for `skood.encoders.embedder`."""
        network: Any = self.module_.trunk if self._output == "features" else self.module_
        return Backbone(network, self.scaler_, layer="")

    def _learn(self, X, y, go_on: bool) -> None:
        """Train from the beginning, or on from the fitted network (``go_on``)."""
        start = time.perf_counter()
        self._check_watching()
        if go_on:
            self._check_unchanged()
        else:
            self._forget()
            self._remember_params()
        X = self._check_rows(X, reset=not go_on)
        if len(X) < 2:
            raise ValueError("X has 1 sample, but at least 2 are needed: views of a row are told from those of others.")
        self._check_settings()
        self._warn_without_effect()
        data = FitData(X)
        if y is not None and self.outlier_label is not None:
            labels, outlier = find_outliers(y, len(X), self.outlier_label)
            refuse_replaced(self, labels, self.outlier_label)
            # A later step may read classes from y. Only the labels 0 and 1 leave open whether 1 marks outliers.
            otherwise = "If both are classes, write outlier_label=None."
            check_marked(labels, outlier, self.outlier_label, classes=(), otherwise=otherwise)
            data = FitData(X, np.flatnonzero(~outlier) if outlier.any() else None)
        if not go_on:
            self._note_pixels(data)
        seed = self._seed if go_on else self._draw_seed()
        with self._checkpointed(data, seed, go_on) as self._seed:
            self._train_on(data, go_on)
        # Kept, because `set_params(output=...)` after the fit must not change what `transform` returns.
        self._output = self.output
        self._warn_of_collapse(data)
        self._end_fit(data, start)

    def _train_on(self, data: FitData, go_on: bool) -> None:
        """Learn the scaling, unless training goes on, and train."""
        trained, held_out = self._divided(data, self._seed)
        if not go_on:
            self._learn_front(trained)
        rows = self._rows_and_held_out(trained, held_out)
        # Without a saved state of the generator, the same seed would repeat the random numbers of the first epochs.
        seed = self._seed + len(self.history_) if go_on and self._state is None else self._seed
        with training.fitting(seed, rows.device, self._draws_alone):
            self._train(rows, go_on)

    def _check_settings(self) -> None:
        """Raise an error for invalid widths, and for an augmentation of images if X holds vectors."""
        check_hidden_sizes(self.hidden_sizes)
        if self.image_shape_ is None and isinstance(self.augmentation, str) and self.augmentation != "auto":
            raise ValueError(
                f"augmentation={self.augmentation!r} is for images; X holds vectors. Set augmentation='auto', or pass "
                f"images, or image_shape=(C, H, W)."
            )

    def _without_effect(self):
        """Return the parameters that have no effect, each with the reason."""
        reasons = super()._without_effect()
        if self.image_shape_ is not None or callable(self.augmentation):
            reasons["corruption_rate"] = "on images, or with an augmentation of your own"
        return reasons

    def _warn_of_collapse(self, data: FitData) -> None:
        """Warn if all rows have the same embedding although the rows themselves differ."""
        # Spread over all rows, because rows that follow each other may be alike, as in sorted data.
        places = np.unique(np.linspace(0, data.n_inliers - 1, _ROWS_COMPARED).astype(int))
        some = data.all_inlier_indices()[places]
        embeddings = self._apply(_embeddings, data.X, some)
        if np.ptp(embeddings, axis=0).max() <= 1e-6 and not all_alike(data.X, some):
            warn_user(
                "all rows have the same embedding: the encoder has collapsed. Scale the features, lower lr, or choose "
                "another network or augmentation.",
                RuntimeWarning,
            )

    def _fit_representation(self, data):
        """Fit the scaling, and for images the map from scaled pixels to [0, 1], where augmentations work."""
        super()._fit_representation(data)
        if self.image_shape_ is not None:
            low, high = 0.0, 1.0
            for chunk in self._inlier_chunks(data):
                low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
            zero, one = unscaled(self.scaler_, np.repeat([[0.0], [1.0]], self.image_shape_[0], axis=1))
            # Pixels in [0, 1] are these factors times scaled ones, plus these offsets.
            self._in_unit = (one - zero) / (high - low), (zero - low) / (high - low)

    def _build_module(self, data):
        """Return the network with its projection head."""
        network = self.network
        if isinstance(network, str) and network == "auto" and self.image_shape_ is not None:
            channels, *sides = self.image_shape_
            network = "resnet-14-8" if channels == 1 else resnet_if_large(self.image_shape_, "resnet-14-16")
            network = "cnn" if min(sides) < _LARGE_SIDE else network
        options = {"hidden_sizes": self.hidden_sizes, "dropout": self.dropout}
        module = Projected(make_classifier(network, self._in_shape, self.embedding_size, **options), self._in_shape)
        if self.output == "features" and not any(one.requires_grad for one in module.trunk.parameters()):
            raise ValueError(
                "network has no parameters that could be trained before its last linear layer, so that its features "
                "would stay as they are. Set output='embedding', or freeze less of the network."
            )
        return module

    def _phases(self, n_rows):
        """Return the single phase of the training."""
        return [Phase([Step(self._loss)], self._n_epochs(n_rows), augment=self._views)]

    def _views(self, rows: Tensor) -> Tensor:
        """Return one view of each of n rows, then another view of each, of shape (2n, ...)."""
        augmentation = self.augmentation
        automatic = isinstance(augmentation, str) and augmentation == "auto"
        if self.image_shape_ is None:
            if automatic:
                return torch.cat([rows, corrupt_features(rows, self.corruption_rate)])
            return augmented(torch.cat([rows, rows]), augmentation)
        if automatic:
            augmentation = "simclr" if rows.shape[1] == 3 else "simclr-no-flip"
        factor, offset = (rows.new_tensor(values)[:, None, None] for values in self._in_unit)
        pixels = factor * rows + offset
        return (augmented(torch.cat([pixels, pixels]), augmentation) - offset) / factor

    def _loss(self, module, rows):
        """Return the loss of a batch, whose first half are views and whose second half are their partners."""
        return nt_xent(*module(rows).chunk(2), self.temperature)

    @property
    def _n_features_out(self) -> int:
        """Return the number of columns of `transform`; scikit-learn makes `get_feature_names_out` from it."""
        head: Any = self.module_.head
        first, *_, last = head
        return first.in_features if self._output == "features" else last.out_features


def _features(module: Projected, rows: Tensor) -> Tensor:
    """Return the network's features of rows, before the projection head."""
    return module.trunk(rows)


def _embeddings(module: nn.Module, rows: Tensor) -> Tensor:
    """Return the embeddings of rows, after the projection head."""
    return module(rows)
