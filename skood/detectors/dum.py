"""Learn an uncertainty for every row of an embedding, without labels (DUM).

Wu & Goodman, "A Simple Framework for Uncertainty in Contrastive Learning" (2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from .._sklearn import HasMethods, Interval, StrOptions
from ..augment import AUGMENTATIONS, SCALE_FREE, augmented
from ..encoders.embedder import embed, find_encoder, make_embedder
from ..encoders.trained import check_alike, warn_of_pixels, warn_of_scale
from ..estimator.base import OutlierDetector
from ..estimator.held_out import n_held_out
from ..estimator.network import GOING_ON, N_JOBS, WATCHING
from ..estimator.scaling import SCALERS, fitted_scaler
from ..estimator.validation import check_hidden_sizes
from ..estimator.whitening import Whitener
from ..networks import MLP, ResidualMLP, make_network
from ..networks.probe import one_tensor
from ..networks.randomness import drawing, fit_generator
from ..training.batches import TrainingRows, chunks
from ..training.device import fitting, resolve_device
from ..training.optim import SCHEDULES
from ..training.scoring import precise

_NETWORKS = {"mlp": MLP, "residual": ResidualMLP}
_VIEWS_PER_BAG = 2
_PAPER_TEMPERATURE = 0.07
# Optimisers whose steps do not depend on the scale of the loss.
_SCALE_FREE = ("adam", "adamw", "rmsprop")
# The cost of whitening grows with the cube of the number of features.
_MOST_WHITENED = 2048


def product_of_experts(mean: Tensor, log_variance: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance of the product of Gaussians along ``dim`` (the paper's f2, diagonal covariance).

    With precisions w_i = 1 / sigma_i^2, mu = sum_i w_i mu_i / sum_i w_i and Sigma = 1 / sum_i w_i. In terms of
    v_i = log sigma_i^2 these are an average with softmax weights and a log-sum-exp, so no variance is exponentiated.

    Parameters
    ----------
    mean, log_variance : Tensor of the same shape
        Means and log-variances of the Gaussians.
    dim : int
        The dimension along which the Gaussians are multiplied.

    Returns
    -------
    mean, log_variance : Tensor
        Mean and log-variance of the product, without the dimension ``dim``.
    """
    weights = torch.softmax(-log_variance, dim)
    return (weights * mean).sum(dim), -torch.logsumexp(-log_variance, dim)


def dataset_bags_loss(rows: Tensor, log_variance: Tensor, bag_size: int, temperature: float = 1.0) -> Tensor:
    """Return minus the printed objective L_DUM: the dot product of the means of two bags of *different* rows.

    It is minus the mean of mu_A . mu_B / temperature over pairs of bags (A, B). Rows left over, which do not fill a
    pair of bags, are not used.

    Parameters
    ----------
    rows, log_variance : Tensor of shape (n_rows, n_features)
        Embeddings and their log-variances.
    bag_size : int
        m, the number of rows in a bag; at most half the rows.
    temperature : float, default=1.0
        Divides the dot product.

    Returns
    -------
    loss : Tensor of no dimensions
    """
    # The rows of a batch are shuffled already, so that consecutive rows make a random bag.
    n_pairs = len(rows) // (2 * bag_size)
    bags = (n_pairs, 2, bag_size, rows.shape[1])
    used = n_pairs * 2 * bag_size
    mean, _ = product_of_experts(rows[:used].reshape(bags), log_variance[:used].reshape(bags), dim=2)
    return -(mean[:, 0] * mean[:, 1]).sum(1).mean() / temperature


def view_bags_loss(rows: Tensor, views: Tensor, log_variance: Tensor) -> Tensor:
    """Return the negative log-likelihood of each clean row under the product of experts of its own views.

    It is the mean over rows and features of (mu - z)^2 / V + log V, with (mu, V) the product of the bag of views of z.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, n_features)
        Clean rows z.
    views, log_variance : Tensor of shape (bag_size, n_rows, n_features)
        The views of each row and their log-variances.

    Returns
    -------
    loss : Tensor of no dimensions
    """
    mean, log_variance = product_of_experts(views, log_variance, dim=0)
    return ((mean - rows).square() * torch.exp(-log_variance) + log_variance).mean()


def noisy_views(rows: Tensor, bag_size: int, low: float, high: float) -> Tensor:
    """Add Gaussian noise to rows, with a scale drawn log-uniformly in [low, high] for each view of each row.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, n_features)
        Rows without noise.
    bag_size : int
        Number of views of each row.
    low, high : float
        Smallest and largest standard deviation.

    Returns
    -------
    views : Tensor of shape (bag_size, n_rows, n_features)
    """
    scale = torch.empty(bag_size, len(rows), 1, device=rows.device)
    scale.uniform_(math.log(low), math.log(high), generator=fit_generator(rows.device)).exp_()
    return rows + scale * torch.randn(bag_size, *rows.shape, **drawing(rows.device))


def image_views(images: Tensor, bag_size: int, augmentation: str | Callable[[Tensor], Tensor]) -> Tensor:
    """Return views t(x) of images; the transformation t ~ p(t) is drawn anew for each view.

    Parameters
    ----------
    images : Tensor of shape (n_images, C, H, W)
        Images without a transformation.
    bag_size : int
        Number of views of each image.
    augmentation : str or callable
        A key of `skood.augment.AUGMENTATIONS`, or a function of images.

    Returns
    -------
    views : Tensor of shape (bag_size, n_images, C, H, W)
    """
    views = augmented(images.repeat(bag_size, 1, 1, 1), augmentation, "views")
    return views.unflatten(0, (bag_size, len(images)))


class LogVariance(nn.Module):
    """Compute the log-variance of an embedding, the paper's f1: v = base(z) + b tanh(network(z) / b).

    The mean of the Gaussian is the embedding z itself.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (n_rows, n_features) to (n_rows, n_features), or to (n_rows, 1) for a circular covariance.
    bound : float
        b. Without a bound the printed objective drives log-variances to infinity.
    reach : float or None
        r in base(z) = log(1 + (z / r)^2), to which the optimal log-variance tends far from the data, up to a constant.
        None makes the base 0.
    """

    def __init__(self, network: nn.Module, bound: float, reach: float | None):
        super().__init__()
        self.network, self.bound, self.reach = network, bound, reach

    def forward(self, rows: Tensor) -> Tensor:
        """Return log-variances of the shape of the rows."""
        raw = one_tensor(self.network(rows))
        log_variance = self.bound * torch.tanh(raw / self.bound)
        if self.reach is not None:
            square = (rows / self.reach).square()
            # A circular covariance has one variance for all features, so the base uses the mean of the squares.
            log_variance = log_variance + torch.log1p(square.mean(1, keepdim=True) if raw.shape[1] == 1 else square)
        return log_variance.expand_as(rows)


@dataclass(frozen=True)
class DUMSettings:
    """Settings of a fit, under the names of the parameters; `set_params` after the fit does not change them."""

    score_type: str
    normalize: str | None


class DUMDetector(OutlierDetector):
    """Detect outliers by an uncertainty that a network learns for each row of an embedding (DUM).

    Use it if you have neither classes nor outliers to learn from: on tables of numbers, or on embeddings of images by
    `SimCLREncoder` or `FrozenEncoder`. Try nearest neighbours first, which need no training. With classes or a corpus
    of outliers, use a detector that learns from them. How it fares: :doc:`/methods/dum`.

    Let z be a row's embedding by the frozen ``encoder``, or its scaled features if there is no encoder. A network gives
    z a Gaussian N(z, diag(sigma^2(z))): it learns only the variance, which is large for outliers. A product of experts
    combines the m Gaussians of a bag. With ``bags="views"``, the default, a bag holds m noisy views
    x_i = z + s_i * eps_i of *one* row, and training minimises:

        mean_j (mu_j - z_j)^2 / V_j + log V_j,    1 / V = sum_i 1 / sigma^2(x_i),    mu / V = sum_i x_i / sigma^2(x_i),
        log sigma^2_j(z) = log(1 + (z_j / r)^2) + b tanh(f_j(z) / b),

    with f the network and r the largest noise of a view. The term in r is small near the data. Beyond the reach of the
    noise, where f was never trained, it makes rows uncertain whatever f returns.

    With ``bags="dataset"`` training maximises the paper's printed objective, the dot product mu_A . mu_B of the means
    of two bags of *different* rows. It does not detect outliers, because nothing in it compares the data with anything
    else; it is here because it was published. On features in [0, 1] it is largest when the rows with the largest
    coordinates weigh most, and the scores then rank rows by their norm.

    Labels: rows with ``y == outlier_label`` are left out of training; classes are ignored.

    Parameters
    ----------
    bags : {"views", "dataset"}, default="views"
        What a bag holds: views of one row, or different rows (the paper's printed objective, which does not detect
        outliers).

    encoder : torch.nn.Module, fitted estimator, str or None, default=None
        The network that embeds rows. Pass a trained module; a fitted estimator that has one (`SimCLREncoder`,
        `FrozenEncoder`, `BackboneClassifier`, `ResidualAdapterDetector`), which embeds as its ``transform`` does; or a
        name, as for the ``backbone`` of `FrozenEncoder`. It is never trained, and all detectors and clones share its
        weights. Each row is embedded once, unless ``views`` transforms images. None uses X itself as the embedding; for
        images, the pixels.

    views : {"noise", "crop-flip", "crop-flip-mask", "simclr", "simclr-no-flip"} or callable, default="noise"
        How a view of a row is made. "noise" adds noise to the scaled embedding; only for ``bags="views"``. The others
        transform images before they are embedded, with pixels as in X (uint8 images are scaled to [0, 1]): a key of
        `skood.augment.AUGMENTATIONS`, or a callable that maps a tensor (n, C, H, W) to one of the same shape and draws
        from torch's generator. With z = g(x) the encoder's embedding of an image x, the views are
        x_i = g(t_i(x)) + s_i * eps_i under random transformations t_i, with noise only for ``bags="views"``: an image
        is uncertain if, for example, its embedding moves when it is cropped. With ``bags="dataset"`` each row has one
        view. Transformed images are embedded again in each epoch. Scoring transforms no images.

    bag_size : int or None, default=None
        m, the number of Gaussians in a product; at least 2. None is 2 for ``bags="views"``. For ``bags="dataset"`` it
        is half of each batch, the largest possible size, and so less in a last batch of fewer rows; a number is the
        same in all batches: of the rows left over at the end of an epoch, fewer than 2m join the batch before.

    view_noise : tuple of two floats or None, default=(0.05, 3.0)
        Smallest and largest standard deviation s_i of the noise in a view, in units of the scaled features. Each view
        draws its own, log-uniformly. Only for ``bags="views"``. None adds no noise; allowed only with image views. It
        also leaves out the term in r, and finds hardly any outliers: transformations alone never leave the data, so
        that f learns nothing about the regions where outliers are.

    temperature : float, default=1.0
        Divides the dot product in the loss of ``bags="dataset"``; with ``bags="views"`` it has no effect. It scales the
        loss and all gradients alike. The optimisers "adam", "adamw" and "rmsprop" divide gradients by their size, so
        that with them it changes scores in the fourth digit at most.

    covariance : {"diagonal", "circular"}, default="diagonal"
        One variance for each feature, or one for all of them.

    score_type : {"logdet", "norm", "trace", "calibrated"}, default="logdet"
        How the covariance is reduced to a score; see Notes.

    scaling : {"auto", "whiten", "standard", "minmax"} or None, default="auto"
        Scaling of the features of the embedding, fitted on the in-distribution rows. "standard": each to zero mean and
        unit variance. "whiten": the standardised features rotated to principal components, each divided by its standard
        deviation, with the shrinkage of Ledoit and Wolf. "minmax": each to [0, 1]. None: no scaling. "auto" is "whiten"
        for ``bags="views"`` with at most 2048 features, else "standard". The noise of views is the same in all
        directions: without whitening it hides those in which an embedding varies little.

    normalize : {"l2"} or None, default=None
        "l2" scales each row to unit length, after ``scaling``. It is meant for the printed objective on embeddings of
        contrastive encoders, which have unit length before any scaling. It greatly harms the default objective.

    network : {"residual", "mlp"}, torch.nn.Module, class or callable, default="residual"
        The network f: "residual" (SiLU) or "mlp" (ReLU), built with ``hidden_sizes``. A class or callable is called
        with ``(n_features, n_outputs)``, where n_outputs is n_features, or 1 if ``covariance="circular"``. An instance
        is copied before it is trained.

    hidden_sizes : sequence of int, default=(128, 128)
        Width of each hidden layer of "mlp" or block of "residual".

    max_log_variance : float, default=6.0
        The bound b on what the network f adds to a log-variance.

    max_epochs : int or "auto", default="auto"
        Passes over the in-distribution rows. "auto" is the number that gives at least 2000 batches, or 500 with image
        ``views``.

    batch_size : int, default=64
        In-distribution rows in a batch.

    lr : float, default=0.003
        Learning rate; the peak of a one-cycle schedule.

    optimizer : {"adamw", "adam", "sgd", "nesterov", "rmsprop"} or callable, default="adamw"
        An optimiser by name ("sgd" and "nesterov" have momentum 0.9), or a callable
        ``(parameters, lr=...) -> Optimizer``.

    schedule : {"one-cycle", "cosine", "constant", "steps"} or callable, default="one-cycle"
        How the learning rate changes during training. A callable maps the share of training done, in [0, 1], to a
        factor on ``lr``.

    early_stopping : bool, default=False
        Whether to hold out some in-distribution rows, compute their loss after each epoch (``valid_loss`` in
        `history_`), stop when it no longer falls, and keep the weights with the lowest loss. The held-out rows are not
        used for scaling and training. After the training, the score and the threshold are fitted on all rows. The loss
        is computed in evaluation mode, with the same random numbers in each epoch. Measured: :doc:`/watching`.

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

    contamination : "auto" or float in [0, 0.5], default="auto"
        How the threshold is set. "auto" aims to call at most 5 % of new in-distribution rows outliers. Copies of the
        detector, three below 300 rows, two below 600, else one, score rows that were held out from them. The threshold
        is set on these scores, or on those of the training rows if that gives a lower one. The detector itself is
        fitted on all rows, whatever the threshold. Fewer than 19 rows do not suffice for 5 %; the threshold is then set
        by the lowest score. An ``encoder`` that was trained on the same rows is not trained again, so that these rows
        score too high. A float is the share of the in-distribution training rows below the threshold. Training rows
        score higher than new rows, so that a float calls several times its share of new rows outliers, most of all with
        fewer rows than features. 0 calls no training row an outlier. A float needs no further fits: use one where only
        scores matter, as in a search. ``set_threshold(target_fpr=0.05, X=held_out)`` sets the threshold afterwards, on
        held-out rows. Measured rates: :doc:`/choosing`. A guarantee: `skood.thresholds.ConformalDetector`.

    image_shape : tuple (C, H, W) or None, default=None
        Shape of one image, if X holds flattened pixels; one entry may be -1, and is then computed. Not needed for
        vectors, nor for images of shape (n, C, H, W).

    outlier_label : number, str, bool, or list of these, default=-1
        Value of y that marks auxiliary outliers, or a list of such values. These rows are left out of training.

    device : str or torch.device, default="auto"
        Where to train: "auto" is CUDA, else MPS, else the CPU; "distributed" shares the training among the processes
        that ``torchrun`` started, see `skood.training.distributed`.

    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of training: "auto" is bfloat16 autocast on CUDA and float32 elsewhere. Networks always score in
        float32.

    callbacks : list of skorch callbacks or None, default=None
        Copied for each fit; the copies that ran are in `callbacks_`. Monitor ``train_loss``, or ``valid_loss`` with
        ``early_stopping=True``. LRScheduler needs ``schedule="constant"``. Supported callbacks: :doc:`/callbacks`.

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

    net_ : skorch.NeuralNet
        The trained net, without its training state.

    module_ : torch.nn.Module
        The module of ``net_``, which maps scaled embeddings to log-variances.

    encoder_ : torch.nn.Module or None
        The frozen network that embeds rows, with its preprocessing; None without ``encoder``.

    history_ : list of dict
        One entry for each epoch, with ``train_loss`` and ``dur`` (seconds). It is a skorch History:
        ``history_[:, "train_loss"]`` lists the losses.

    callbacks_ : list of skorch callbacks
        The copies of ``callbacks`` that ran; not pickled.

    scaler_ : scikit-learn transformer or None
        The fitted scaling.

    mean_log_variance_ : ndarray of shape (n_features,), or (n_embedding,) with an encoder
        Mean log-variance of the in-distribution training rows; only with ``score_type="calibrated"``.

    image_shape_ : tuple or None
        Shape of one image; None for vectors.

    n_features_in_ : int
        Number of features (for images, of pixels times channels).

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has string column names.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Isolates rows by random splits; needs no scaling and trains fast.
    sklearn.neighbors.LocalOutlierFactor : Local density from nearest neighbours.
    SimCLREncoder : Trains an encoder on images without labels.
    FrozenEncoder : Embeds rows by a chosen layer of a trained network.
    skood.plotting.CertaintyGalleryDisplay : Shows the most and the least certain images, or views of one image.

    Notes
    -----
    `score_samples` returns minus the size of each row's covariance, on a logarithmic scale; higher = more normal.

    With log-variances v_j of the d features, ``score_type`` is

    - "logdet": -mean_j v_j, the log-determinant for each feature;
    - "norm": -log sqrt(sum_j exp(2 v_j)), the paper's norm of the covariance;
    - "trace": -log sum_j exp(v_j);
    - "calibrated": -log sum_j exp(v_j - mean of v_j over the training rows), for ``bags="dataset"``, which does not
      determine the scale of each feature's variance.

    References
    ----------
    .. [1] Mike Wu and Noah Goodman, "A Simple Framework for Uncertainty in Contrastive Learning",
       arXiv:2010.02038, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skood import DUMDetector
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 1)) @ [[1.0, -1.0]] + 0.1 * rng.normal(size=(200, 2))
    >>> detector = DUMDetector(max_epochs=20, random_state=0).fit(X)
    >>> detector.predict([[1.0, -1.0], [1.0, 1.0]])
    array([ 1, -1])
    """

    _parameter_constraints: dict = {
        **OutlierDetector._parameter_constraints,
        **WATCHING,
        **GOING_ON,
        "bags": [StrOptions({"views", "dataset"})],
        "encoder": [str, nn.Module, HasMethods("fit"), None],
        "views": [StrOptions({"noise", *AUGMENTATIONS}), callable],
        "bag_size": [Interval(Integral, 2, None, closed="left"), None],
        "view_noise": [tuple, list, None],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "covariance": [StrOptions({"diagonal", "circular"})],
        "score_type": [StrOptions({"logdet", "norm", "trace", "calibrated"})],
        "scaling": [StrOptions({"auto", "whiten", *SCALERS}), None],
        "normalize": [StrOptions({"l2"}), None],
        "network": [StrOptions(set(_NETWORKS)), nn.Module, callable],
        "hidden_sizes": [tuple, list],
        "max_log_variance": [Interval(Real, 0, None, closed="neither")],
        "schedule": [StrOptions(set(SCHEDULES)), callable],
        **N_JOBS,
    }
    _shared_params = ("encoder",)
    _fixed_params = (
        *OutlierDetector._fixed_params,
        "bags",
        "encoder",
        "views",
        "view_noise",
        "covariance",
        "score_type",
        "normalize",
        "max_log_variance",
    )

    def __init__(
        self,
        bags="views",
        *,
        encoder=None,
        views="noise",
        bag_size=None,
        view_noise=(0.05, 3.0),
        temperature=1.0,
        covariance="diagonal",
        score_type="logdet",
        scaling="auto",
        normalize=None,
        network="residual",
        hidden_sizes=(128, 128),
        max_log_variance=6.0,
        max_epochs="auto",
        batch_size=64,
        lr=0.003,
        optimizer="adamw",
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
        self.bags = bags
        self.encoder = encoder
        self.views = views
        self.bag_size = bag_size
        self.view_noise = view_noise
        self.temperature = temperature
        self.covariance = covariance
        self.score_type = score_type
        self.scaling = scaling
        self.normalize = normalize
        self.network = network
        self.hidden_sizes = hidden_sizes
        self.max_log_variance = max_log_variance
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
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
    def from_paper(cls, experiment="outliers", **params):
        """Return a detector with the paper's settings, for one of its experiments.

        For "outliers" (section 4.2 and appendix A.4) they are the printed objective with temperature 0.07, three hidden
        layers of 4096 units, Adam with learning rate 1e-3, batches of 256, 100 epochs, features in [0, 1], and the norm
        of the covariance as the score. The paper does not bound log-variances; here they stay within 5.

        For images (section 4.3 and appendix A.6) the paper embeds in 128 dimensions by a ResNet-34 trained by SimCLR.
        With an ``encoder``, embeddings are scaled to unit length, as in SimCLR, instead of to [0, 1], and each image
        has one view. The paper trains the encoder and this network on the same transformations: crops, changes of
        colour, flips and greys. So ``views`` is "simclr" here, as in ``SimCLREncoder.from_paper()``. If the encoder was
        trained on other views, pass those.

        For "corruptions" (section 4.1 and appendices A.1 and A.3) the same network is trained on unscaled features, by
        SGD with momentum 0.9 and learning rate 0.01, for 50 epochs. The features are those of the last convolution of
        a ResNet, for CIFAR-10-C not pooled: ``FrozenEncoder(network, layer=..., pooling="flatten")``, as a step of a
        Pipeline or as the ``encoder``.

        A temperature has next to no effect with Adam, which divides it out (see ``temperature``). With SGD it would
        multiply the learning rate by 14, so it is 1 for "corruptions".

        Parameters
        ----------
        experiment : {"outliers", "corruptions"}, default="outliers"
            The experiment: Tables 2, 3 and 4 of the paper, or Table 1.
        **params
            ``encoder``, and parameters that replace those above. The paper has ``max_epochs=5`` for its very large
            data sets.

        Returns
        -------
        detector : DUMDetector
            Not fitted.

        Raises
        ------
        ValueError
            If there is no such experiment.
        """
        if experiment not in ("outliers", "corruptions"):
            raise ValueError(f"experiment={experiment!r} must be 'outliers' or 'corruptions'.")
        paper = {
            "bags": "dataset",
            "score_type": "norm",
            "network": "mlp",
            "hidden_sizes": (4096, 4096, 4096),
            "max_log_variance": 5.0,
            "batch_size": 256,
            "schedule": "constant",
        }
        if experiment == "outliers":
            paper |= {"temperature": _PAPER_TEMPERATURE, "scaling": "minmax"}
            paper |= {"max_epochs": 100, "lr": 1e-3, "optimizer": "adam"}
        else:
            paper |= {"scaling": None, "max_epochs": 50, "lr": 0.01, "optimizer": "sgd"}
        if params.get("encoder") is not None:
            paper["views"] = "simclr"
            if experiment == "outliers":
                paper |= {"scaling": None, "normalize": "l2"}
        return cls._with_settings(paper, params)

    def uncertainty(self, X):
        """Return the norm of each covariance, sqrt(sum_j sigma_j^4): the paper's uncertainty, for any ``score_type``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        norm : ndarray of float64 of shape (n_samples,)
            In squared units of the scaled embedding; higher = less certain.
        """
        check_is_fitted(self)
        return np.exp(self._apply(_log_norm, self._check_rows(X, reset=False)))

    # -------------------------------------------------------------------------------------------- for the base class

    def _resolve_settings(self, data):
        """Check parameters against each other and the data, and return the settings that scoring needs."""
        noise = self.view_noise
        if noise is None and not self._views_of_images:
            raise ValueError(
                "view_noise=None makes all views of a vector the same: pass two standard deviations, such as (0.05, "
                "3.0), or views that transform images, such as views='crop-flip'."
            )
        numbers = noise is not None and len(noise) == 2 and all(isinstance(bound, Real) for bound in noise)
        if noise is not None and not (numbers and 0 < noise[0] <= noise[1] < math.inf):
            raise ValueError(f"view_noise={noise!r}: pass two standard deviations (low, high) with 0 < low <= high.")
        check_hidden_sizes(self.hidden_sizes)
        if self._views_of_images and self.image_shape_ is None:
            raise ValueError(
                f"views={self.views!r} transforms images, but X holds vectors: pass images, or image_shape=(C, H, W), "
                f"or leave views='noise'."
            )
        return DUMSettings(self.score_type, self.normalize)

    def _check_settings(self, data):
        """Refuse bags that the rows of this call do not fill."""
        if self.bags != "dataset":
            return
        n_rows, bag_size = data.n_inliers, self.bag_size or 0
        # With bags of one row there is no product of experts, and the loss does not depend on the variances.
        if min(self.batch_size, n_rows) < 4:
            raise ValueError(
                f"bags='dataset' compares two bags of at least 2 rows, but batch_size={self.batch_size} and "
                f"n_samples={n_rows}: both must be at least 4. Or set bags='views', which works with fewer."
            )
        n_out = n_held_out(n_rows, self.validation_fraction, self._least_held_out) if self.early_stopping else 0
        if self.early_stopping and min(n_out, n_rows - n_out) < 4:
            raise ValueError(
                f"bags='dataset' compares two bags of at least 2 rows, but early_stopping=True holds out {n_out} of "
                f"n_samples={n_rows}, and both parts need 4: pass more rows, lower validation_fraction (now "
                f"{self.validation_fraction:g}), or set early_stopping=False or bags='views'."
            )
        if 2 * bag_size > self.batch_size:
            raise ValueError(
                f"bag_size={self.bag_size} is more than half of batch_size={self.batch_size}, so that no batch holds "
                f"two bags: set bag_size to at most {self.batch_size // 2}, or raise batch_size."
            )
        # A copy that holds rows out for the threshold may have fewer.
        if 2 * bag_size > n_rows and self._running.fold is None:
            raise ValueError(
                f"bag_size={self.bag_size} is more than half of n_samples={n_rows}, which do not fill two bags: set "
                f"bag_size to at most {n_rows // 2}, or pass more rows."
            )

    def _without_effect(self):
        """Return the parameters that have no effect, each with the reason."""
        reasons = super()._without_effect()
        if isinstance(self.network, str):
            # The network takes vectors, even if the rows are images: embeddings, or flattened pixels.
            reasons.pop("hidden_sizes", None)
        if self.bags == "views":
            reasons["temperature"] = "with bags='views'"
        # The preset has both, as the paper does.
        elif self.optimizer in _SCALE_FREE and self.temperature != _PAPER_TEMPERATURE:
            reasons["temperature"] = f"with optimizer={self.optimizer!r}, which divides gradients by their size"
        if self.bags == "dataset":
            reasons["view_noise"] = "with bags='dataset'"
        return reasons

    def _fit_representation(self, data):
        """Fit the scaling on the in-distribution rows, chunk by chunk."""

        def flat():
            """Return an iterator over the chunks; the whitening goes through them more than once."""
            return (self._flat(chunk) for chunk in chunks(data.X, data.inlier_indices))

        scaling = self.scaling
        if scaling == "auto":
            few = next(flat()).shape[1] <= _MOST_WHITENED
            scaling = "whiten" if self.bags == "views" and few else "standard"
        self.scaler_ = Whitener().fit_chunks(flat) if scaling == "whiten" else fitted_scaler(scaling, flat())

    @property
    def _auto_steps(self):
        """Return the least number of batches with ``max_epochs="auto"``."""
        # Fewer with transformed images, because each batch is then embedded again in each epoch.
        return 500 if self._views_of_images else 2000

    @property
    def _least_rows(self):
        """Return the least number of rows in a batch: two bags of ``bag_size`` rows with ``bags="dataset"``."""
        return 2 * (self.bag_size or 1) if self.bags == "dataset" else 2

    @property
    def _least_held_out(self):
        """Return the least number of validation rows: two bags of two rows with ``bags="dataset"``."""
        return 4 if self.bags == "dataset" else 2

    @property
    def _views_of_images(self) -> bool:
        """Return whether views are transformed images, not embeddings with noise."""
        return callable(self.views) or self.views != "noise"

    def _check_rows(self, X, reset):
        """Return checked rows, embedded if there is an encoder."""
        X = super()._check_rows(X, reset)
        # In `fit` there is no encoder yet; `_prepare` embeds the rows then.
        return X if reset else self._embedded(X)

    def _embedded(self, X):
        """Return checked rows, embedded if there is an encoder."""
        return X if self.encoder_ is None else embed(self.encoder_, X, self._arrangement(), "encoder")

    def _rows_and_scores(self, X):
        """Return checked rows, not embedded: the module that is explained embeds them; and their scores."""
        rows = self._check_more(X)
        return rows, self._scores(self._embedded(rows))

    def _prepare(self, data):
        """Make the embedder, and embed the rows once for the rest of `fit`."""
        self.encoder_ = None
        if isinstance(self.views, str) and self.views in AUGMENTATIONS.keys() - SCALE_FREE:
            # These augmentations clip pixels to [0, 1], which would destroy images with other values.
            warn_of_scale(self._arranged(next(chunks(data.X))), f"views={self.views!r} take")
        if self.encoder is None:
            return data
        given, device = find_encoder(self.encoder, self._uint8_images), resolve_device(self.device)
        check_alike(self.encoder, self, "encoder")
        warn_of_pixels(given.network, self._arranged(next(chunks(data.X))), what="encoder")
        with fitting(0, device):
            self.encoder_ = make_embedder(given, self.image_shape_ or (self.n_features_in_,), device)
        embedded = embed(self.encoder_, data.X, self._arrangement(), "encoder")
        return replace(data, X=embedded, given=data.X)

    def _check_more(self, X):
        """Return checked rows, not embedded: `_prepare_more` embeds them."""
        return OutlierDetector._check_rows(self, X, reset=False)

    def _prepare_more(self, data):
        """Embed rows with the embedder of the fit."""
        if self.encoder_ is None:
            return data
        embedded = embed(self.encoder_, data.X, self._arrangement(), "encoder")
        return replace(data, X=embedded, given=data.X)

    def _training_rows(self, data):
        """Return the rows to train on: embedded rows, or images if views are transformed images."""
        rows = super()._training_rows(data)
        if not self._views_of_images:
            return rows
        # Each batch transforms images anew, so they cannot be embedded in advance.
        return TrainingRows(data.before_all(), data.inlier_indices, self._arrangement(), rows.device)

    def _flat(self, X):
        """Return a chunk of embedded rows, or of pixels in [0, 1], as vectors."""
        return (self._arranged(X) if self.encoder_ is None else X).reshape(len(X), -1)

    def _front_options(self):
        """Return the options of the front, which scales vectors, and divides them by their length if asked to."""
        options = {"scaler": self.scaler_, "flat": True, "unit": self._settings.normalize == "l2"}
        return options if self.encoder_ is None else options | {"image_shape": None, "uint8": False}

    def _whole_front(self):
        """Return the embedder and the front behind it as one module."""
        if self.encoder_ is None:
            return self._front
        return nn.Sequential(self._arrangement(), self.encoder_, self._front)

    @property
    def _in_shape(self):
        """Return the shape of a row as the network takes it: a vector."""
        return (self.n_features_in_ if self.encoder_ is None else self.encoder_.n_features,)

    def _build_module(self, data):
        """Return the untrained network of log-variances."""
        (n_features,) = self._in_shape
        named = {name: partial(build, hidden_sizes=self.hidden_sizes) for name, build in _NETWORKS.items()}
        n_outputs = n_features if self.covariance == "diagonal" else 1
        network = make_network(self.network, named, (n_features,), n_outputs)
        # r is the largest noise: without noise there is no term in r.
        noisy = self.bags == "views" and self.view_noise is not None
        return LogVariance(network, self.max_log_variance, self.view_noise[1] if noisy else None)

    def _training_options(self):
        """Return the training options that the base class does not set."""
        return {"schedule": self.schedule}

    def _embedded_tensor(self, images: Tensor) -> Tensor:
        """Return embeddings of images (n, C, H, W) of a training batch, scaled as in scoring; pixels are in [0, 1]."""
        with torch.no_grad():
            return self._front.scaled(images.flatten(1) if self.encoder_ is None else self.encoder_(images))

    def _bags_of_views(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings of a batch, (n, d), and of m views of each row, (m, n, d)."""
        bag_size = self.bag_size or _VIEWS_PER_BAG
        if not self._views_of_images:
            return rows, noisy_views(rows, bag_size, *self.view_noise)
        # Untransformed images are embedded in the same pass as their views.
        images = torch.cat([rows[None], image_views(rows, bag_size, self.views)])
        embedded = self._embedded_tensor(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        rows, views = embedded[0], embedded[1:]
        if self.view_noise is not None:
            views = noisy_views(views.flatten(0, 1), 1, *self.view_noise).reshape(views.shape)
        return rows, views

    def _loss(self, module, rows):
        """Return the loss of a batch."""
        if self.bags == "views":
            rows, views = self._bags_of_views(rows)
            log_variance = module(views.flatten(0, 1)).reshape(views.shape)
            return view_bags_loss(rows, views, log_variance)
        if self._views_of_images:
            rows = self._embedded_tensor(augmented(rows, self.views, "views"))
        # Only with fewer than 2m rows in all, as among rows held out, is a bag smaller than m.
        half = len(rows) // 2
        return dataset_bags_loss(rows, module(rows), min(self.bag_size or half, half), self.temperature)

    def _fit_score(self, data):
        """Compute the mean log-variance of each feature, which the score "calibrated" subtracts."""
        if self._settings.score_type == "calibrated":
            self.mean_log_variance_ = self._apply(_log_variance, data.X, data.inlier_indices).mean(0)

    def _raw_score(self, module, rows):
        """Return the score of each row: minus the size of its covariance, measured as ``score_type`` says."""
        score_type = self._settings.score_type
        # Logarithms rank rows in the same order as the measures themselves, and do not overflow.
        if score_type == "norm":
            return -_log_norm(module, rows)
        log_variance = _log_variance(module, rows)
        if score_type == "trace":
            return -torch.logsumexp(log_variance, 1)
        if score_type == "calibrated":
            mean = torch.as_tensor(self.mean_log_variance_, dtype=log_variance.dtype, device=rows.device)
            return -torch.logsumexp(log_variance - mean, 1)
        # The mean ranks rows as log det does, which is the sum, on a scale that does not depend on the number of
        # features.
        return -log_variance.mean(1)


def _log_variance(module: nn.Module, rows: Tensor) -> Tensor:
    """Return the log-variances of rows."""
    return precise(module(rows))


def _log_norm(module: nn.Module, rows: Tensor) -> Tensor:
    """Return log sqrt(sum_j sigma_j^4), the logarithm of the covariance's Frobenius norm, without overflow."""
    return torch.logsumexp(2 * _log_variance(module, rows), 1) / 2
