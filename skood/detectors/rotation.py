"""Learn classes together with a self-supervised task, and detect semantic anomalies by the classifier's confidence.

Ahmed & Courville, "Detecting Semantic Anomalies" (AAAI 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from .. import training
from .._sklearn import Interval, StrOptions
from ..augment import center_crop, random_crop_to, random_flip
from ..estimator.classes import DetectorWithClasses
from ..estimator.network import GOING_ON, N_JOBS, WATCHING
from ..networks import (
    ContrastivePrediction,
    MultiTask,
    TaskNorm,
    WideResNet,
    class_weights,
    join_norms,
    make_classifier,
    patch_geometry,
    separate_norms,
    small_wide_resnet,
    symmetric_padding,
)
from ..networks.randomness import drawing
from ..networks.transforms import AffineMaps, GivenTransforms, Recognition, Rotations
from ..scores import METHODS
from ..training.batches import TensorBatches, TrainingRows, to_tensor
from ..training.phases import Phase, Step

# Rows on which functions of the user's are tried out.
_TRIED_ROWS = 8
# Scores that do not need a class head.
_ONE_CLASS = ("rotation", "knn", "mahalanobis", "mahalanobis_pp")


class SingleClass(nn.Module):
    """Return the only logit of a single class, 0. It is the class head if y has no classes."""

    def forward(self, features: Tensor) -> Tensor:
        """Return logits of shape (n, 1)."""
        return features.new_zeros(features.shape[0], 1)


@dataclass(frozen=True)
class RotationSettings:
    """Settings of a fit, under the names of the parameters; `set_params` after the fit does not change them."""

    auxiliary: str | list | None
    score_type: str
    crop_size: int | None


class RotationAuxClassifier(DetectorWithClasses):
    """Classify rows, learn a self-supervised task besides, and detect outliers by a score of the classifier.

    Use it for images with classes, if outliers differ in meaning (a class never seen in training) and the objects have
    an upright position. Rotations teach nothing about images that look alike from all sides, such as cells, textures
    and aerial views: pass your own functions as ``auxiliary``. In short trainings on images in colour, as many steps
    without the task mostly give more accuracy, and on CIFAR-10 they detect more, too. On vectors this is the weakest
    detector of skood: try nearest neighbours first. How it fares: :doc:`/methods/rotation`.

    A trunk phi has two linear heads. On each batch, an optimiser takes a step for each of two losses in turn:

        l_primary = mean of -log softmax(W_c phi(x))_y,        l_auxiliary = mean of -log softmax(W_r phi(t_r(x)))_r,

    with r drawn anew for each row, and l_combined = l_primary + lambda l_auxiliary as in the paper's equation 5. For
    images t_r rotates by r times 90 degrees: the network must learn what is upright. The class head never sees a
    rotated image, so this is not an augmentation. A score of `skood.scores` then finds outliers, from the logits, the
    features or the auxiliary head.

    Labels: rows with ``y == outlier_label`` are left out of training; each other value of y is a class. Without classes
    (y is None, or has one class) the auxiliary task alone trains the trunk, and the score is how well the network
    solves it on a row.

    Parameters
    ----------
    auxiliary : {"auto", "rotation", "cpc", "affine"}, list of callables or None, default="auto"
        The task beside the classes.

        - "rotation": recognise by which of 0, 90, 180 and 270 degrees an image is rotated. Images that are not square
          are padded with zeros, unless ``crop_size`` crops squares;
        - "cpc": contrastive predictive coding [2]_, as in the paper's appendix C. Overlapping patches are encoded, and
          the encodings of patches further down are predicted from those above, among all patches of the same image.
          Each task has its own scale, shift and statistics in the normalisation layers, and padding mirrors the
          borders. Images become squares as with "rotation". It takes four to seven times as long as "rotation";
        - "affine": for vectors, recognise which of ``n_transforms`` maps was applied: the identity, and random
          permutations of the features with signs and shifts, drawn once; after [3]_;
        - a list of functions, each of which maps a batch of scaled rows to one of the same shape: recognise which was
          applied. The functions act in training, where they may be random. With ``score_type="rotation"`` they act in
          scoring, too: then the result for a row must depend neither on chance nor on the other rows;
        - None: no task besides the classes, the paper's baseline;
        - "auto": "rotation" for images, "affine" for vectors.

    auxiliary_weight : float or "auto", default="auto"
        lambda; 0 is the same as ``auxiliary=None``. "auto" is 10 for "cpc", else 0.5, the paper's value for CIFAR-10.
        Not used without classes.

    n_transforms : int, default=16
        Number of maps of "affine".

    all_transforms : bool, default=False
        Whether the auxiliary step uses each row under all transformations instead of a random one.

    auxiliary_batch_size : int or None, default=None
        Number of rows of a batch that the auxiliary step uses; None uses all.

    separate_norms : bool or "auto", default="auto"
        Whether each task has its own normalisation layers already in training; "auto" is True for "cpc" only. With
        False, the tasks share scale and shift. The statistics of batch normalisation are then computed again after
        training for each task, on its own kind of rows, because both kinds were mixed in training.

    score_type : str, default="auto"
        One of `skood.scores.METHODS`, such as "msp", "energy", "knn", "mahalanobis" or "vim"; or "rotation", which is

            KL(uniform || p(y | x)) + mean over r of log p(r | t_r(x)),

        for any task (for "cpc", minus its loss replaces the second term). "msp" and "odin" are in log-odds. Without
        classes, only "knn", "mahalanobis", "mahalanobis_pp" and "rotation" can be used. "auto" is "vim", or "rotation"
        without classes. No score is best everywhere; `compare_scores` tries them all.

    scaling : {"standard", "minmax"} or None, default="standard"
        Scaling of each feature, or of each channel of images, fitted on the in-distribution rows.

    augmentation : {"crop-flip", "crop-flip-mask"}, callable or None, default=None
        Transformation of the scaled images of a batch during training, before they are rotated. "crop-flip" shifts them
        by up to an eighth of the side and mirrors them. "crop-flip-mask" also masks a square of half the side in the
        middle, as the control experiment of the paper's section 5.2 does. A callable maps a tensor to one of the same
        shape.

    crop_size : int or None, default=None
        Side, in pixels, of the squares cropped from images: random ones in training, the central one in scoring. A side
        of the images that is not larger is kept whole. None uses whole images.

    network : str, torch.nn.Module, class or callable, default="auto"
        "mlp" or "residual" for vectors; "cnn" (two convolutions), "wrn-D-K" (Wide ResNet of depth D and width K, such
        as "wrn-28-10"), "resnet-D-W" (`skood.networks.ResNet` of depth D and W channels at first, such as
        "resnet-26-32"), "resnet-18", "resnet-34" or "resnet-50" (`skood.networks.ImageNetResNet`) for images. "auto" is
        "residual" for vectors, "wrn-10-1" for grey images and "wrn-10-2" for others, which halve the maps once in the
        beginning for images of at least 24 pixels, and twice from 48 pixels. A class or callable is called with
        ``(n_features, n_classes)`` or ``((C, H, W), n_classes)``. An instance is copied before it is trained. Its last
        linear layer must give the logits: it is the class head.

    hidden_sizes : sequence of int, default=(128, 128)
        Width of each hidden layer of "mlp" or block of "residual".

    dropout : float in [0, 1), default=0.0
        Dropout rate of a named network; those named "resnet-" have no dropout.

    max_epochs : int or "auto", default="auto"
        Passes over the in-distribution rows. "auto" is the number that gives at least 2000 batches, or 1000 for images.

    batch_size : int, default=64
        In-distribution rows in a batch.

    lr : float or "auto", default="auto"
        Initial learning rate; "auto" is 0.1 for images and 0.01 for vectors.

    optimizer : {"nesterov", "sgd", "adam", "adamw", "rmsprop"} or callable, default="nesterov"
        An optimiser by name ("sgd" and "nesterov" have momentum 0.9), or a callable
        ``(parameters, lr=...) -> Optimizer``. Both steps share it; a step does not change the other task's head.

    weight_decay : float, default=5e-4
        Weight decay of a named optimiser.

    max_grad_norm : float or None, default=5.0
        Gradients are clipped to this norm; None does not clip, as in the paper.

    schedule : {"cosine", "one-cycle", "steps", "constant"} or callable, default="cosine"
        How the learning rate changes during training. A callable maps the share of training done, in [0, 1], to a
        factor on ``lr``. "steps" is the paper's: divided by five after 30, 60 and 80 %.

    early_stopping : bool, default=False
        Whether to hold out some in-distribution rows, the same share of each class, compute their loss after each epoch
        (``valid_loss`` in `history_`), stop when it no longer falls, and keep the weights with the lowest loss. The
        held-out rows are not used for scaling and training. After the training, the score and the threshold are fitted
        on all rows. The loss is computed in evaluation mode, with the same random numbers in each epoch. Measured:
        :doc:`/watching`.

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
        by the lowest score. A float is the share of the in-distribution training rows below the threshold. Training
        rows score higher than new rows, so that a float calls several times its share of new rows outliers, most of all
        with fewer rows than features. 0 calls no training row an outlier. A float needs no further fits: use one where
        only scores matter, as in a search. ``set_threshold(target_fpr=0.05, X=held_out)`` sets the threshold
        afterwards, on held-out rows. Measured rates: :doc:`/choosing`. A guarantee:
        `skood.thresholds.ConformalDetector`.

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
    classes_ : ndarray of shape (n_classes,)
        The in-distribution classes, sorted; [1] if y was None.

    auxiliary_ : str, list or None
        The task: "rotation", "cpc", "affine", the list of functions, or None.

    score_type_ : str
        The score in use, never "auto".

    offset_ : float
        The threshold: ``decision_function(X) = score_samples(X) - offset_``. `set_threshold` changes it.

    training_scores_ : ndarray of float64 of shape (n_in_distribution,)
        Ascending scores of the in-distribution training rows.

    net_ : skorch.NeuralNet
        The trained net, without its training state.

    module_ : torch.nn.Module
        The module of ``net_``, which maps scaled rows to class logits; ``module_.features(rows)`` returns the trunk's
        features.

    history_ : list of dict
        One entry for each epoch, with ``train_loss`` (l_combined) and ``dur`` (seconds).

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
    OODScorer : Uses another score of the same classifier, without training it again.
    compare_scores : Compares all scores in one table.
    skood.model_selection.HoldOutClass : Holds out each class in turn, the paper's protocol.
    OpenSetClassifier : Wraps this detector as a classifier that may reject.

    References
    ----------
    .. [1] Ahmed and Courville, "Detecting Semantic Anomalies", AAAI 2020.
    .. [2] van den Oord, Li and Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018.
    .. [3] Bergman and Hoshen, "Classification-Based Anomaly Detection for General Data", ICLR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skood import RotationAuxClassifier
    >>> from skood.metrics import auroc
    >>> X, digit = load_digits(return_X_y=True)
    >>> X = X / 16
    >>> train, test, unseen = np.arange(900), np.arange(900, 1797), digit == 4
    >>> train = train[digit[train] != 4]
    >>> detector = RotationAuxClassifier(image_shape=(1, 8, 8), max_epochs=8, contamination=0, random_state=0)
    >>> detector = detector.fit(X[train], digit[train])
    >>> print(auroc(np.where(unseen[test], -1, 1), detector.score_samples(X[test])) > 0.9)
    True
    """

    _parameter_constraints: dict = {
        **DetectorWithClasses._parameter_constraints,
        **WATCHING,
        **GOING_ON,
        "auxiliary": [StrOptions({"auto", "rotation", "cpc", "affine"}), list, tuple, None],
        "auxiliary_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "n_transforms": [Interval(Integral, 2, None, closed="left")],
        "all_transforms": ["boolean"],
        "auxiliary_batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "separate_norms": [StrOptions({"auto"}), "boolean"],
        "score_type": [StrOptions({"auto", *METHODS})],
        "crop_size": [Interval(Integral, 1, None, closed="left"), None],
        **N_JOBS,
    }
    _fixed_params = (
        *DetectorWithClasses._fixed_params,
        "auxiliary",
        "n_transforms",
        "separate_norms",
        "score_type",
        "crop_size",
    )
    # Whether functions of the user's, if any, give the same for a row again and alone.
    _steady = True

    def __init__(
        self,
        auxiliary="auto",
        *,
        auxiliary_weight="auto",
        n_transforms=16,
        all_transforms=False,
        auxiliary_batch_size=None,
        separate_norms="auto",
        score_type="auto",
        scaling="standard",
        augmentation=None,
        crop_size=None,
        network="auto",
        hidden_sizes=(128, 128),
        dropout=0.0,
        max_epochs="auto",
        batch_size=64,
        lr="auto",
        optimizer="nesterov",
        weight_decay=5e-4,
        max_grad_norm=5.0,
        schedule="cosine",
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
        self.auxiliary = auxiliary
        self.auxiliary_weight = auxiliary_weight
        self.n_transforms = n_transforms
        self.all_transforms = all_transforms
        self.auxiliary_batch_size = auxiliary_batch_size
        self.separate_norms = separate_norms
        self.score_type = score_type
        self.scaling = scaling
        self.augmentation = augmentation
        self.crop_size = crop_size
        self.network = network
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
    def from_paper(cls, dataset="cifar10", **params):
        """Return a detector with the paper's settings for one of its data sets; skood has not measured them.

        They are SGD with Nesterov momentum, learning rate 0.1 divided by 5 after 30, 60 and 80 % of the epochs,
        standardised channels and the score "odin". Weight decay is 5e-4, as in the recipe of Wide ResNets; the paper
        names none.

        - "cifar10": WRN-28-10, dropout 0.3, lambda = 0.5, 200 epochs, batches of 128, images cropped and flipped. The
          paper has four GPUs with 128 images each;
        - "stl10": WRN-28-4 with a fourth group as wide as the third, dropout 0.3, lambda = 1, 400 epochs, batches of 64
          (in the paper, on each of four GPUs), images cropped and flipped;
        - "imagenet": the same network without dropout, its maps halved by averaging after the first convolution,
          lambda = 0.5 (the paper: "a mix of 0.5 and 1.0"), 200 epochs, batches of 64, crops of 224 pixels, flipped.
          Pass images whose shorter side is 256. With ``auxiliary="cpc"`` as in appendix C: a first convolution of
          stride 2, lambda = 10, 32 images of a batch in the auxiliary step. Gradients are then clipped to norm 1,
          unlike in the paper: with lambda = 10 and this learning rate the loss would not fall steadily.

        Parameters
        ----------
        dataset : {"cifar10", "stl10", "imagenet"}, default="cifar10"
            Data set of the paper.
        **params
            Other parameters, or other values of those above.

        Returns
        -------
        detector : RotationAuxClassifier
            Not fitted.

        Raises
        ------
        ValueError
            If the paper has no such data set, or no "cpc" for it.
        """
        common = {"max_epochs": 200, "lr": 0.1, "schedule": "steps", "max_grad_norm": None, "score_type": "odin"}
        cifar10 = common | {"network": "wrn-28-10", "dropout": 0.3, "batch_size": 128, "augmentation": "crop-flip"}
        if params.get("auxiliary") == "cpc" and dataset != "imagenet":
            raise ValueError(f"the paper has auxiliary='cpc' for 'imagenet' alone, not for {dataset!r}.")
        built = dataset != "cifar10" and "network" not in params
        # Of a network that is made here, its dropout is no parameter of the classifier.
        dropout = {"dropout": params.pop("dropout")} if built and "dropout" in params else {}
        network = {"depth": 28, "widen": 4, "extra_group": True, "dropout": 0.3} | dropout
        stl10 = common | {"network": partial(WideResNet, **network), "max_epochs": 400, "batch_size": 64}
        stl10 |= {"augmentation": "crop-flip", "auxiliary_weight": 1.0}
        network |= {"early_pool": True, "dropout": 0.0} | dropout
        imagenet = common | {"batch_size": 64, "crop_size": 224, "augmentation": random_flip}
        if params.get("auxiliary") == "cpc":
            network |= {"stem_stride": 2}
            imagenet |= {"auxiliary_weight": 10.0, "auxiliary_batch_size": 32, "max_grad_norm": 1.0}
        imagenet |= {"network": partial(WideResNet, **network)}
        papers = {"cifar10": cifar10, "stl10": stl10, "imagenet": imagenet}
        if dataset not in papers:
            raise ValueError(f"dataset={dataset!r} is none of the paper's: {', '.join(papers)}.")
        settings = {"auxiliary": "rotation", "auxiliary_weight": 0.5} | papers[dataset]
        if params.get("auxiliary", "rotation") is None:
            del settings["auxiliary_weight"]
        return cls._with_settings(settings, params)

    # -------------------------------------------------------------------------------------------- for the base class

    @property
    def auxiliary_(self):
        """Return the auxiliary task that was trained; see Attributes."""
        return self._settings.auxiliary

    @property
    def score_type_(self):
        """Return the score in use; see Attributes."""
        return self._settings.score_type

    def _resolve_settings(self, data):
        """Check parameters against each other and the classes, and return the settings that scoring needs."""
        self._check_network_settings("crop_size")
        n_classes, auxiliary = len(self.classes_), self._resolved_auxiliary()
        if n_classes == 1 and auxiliary is None:
            raise ValueError(
                "there is nothing to learn: y has one class, and auxiliary=None or auxiliary_weight=0 leaves no "
                "auxiliary task. Give y two classes or more, or set auxiliary='auto' and auxiliary_weight above 0."
            )
        score_type = self.score_type
        if score_type == "auto":
            # On held-out classes "fdbd" ranks about as well. But it misses outliers whose features come near those of
            # one class, so that a digit like a known one is found after one training and not after another; and many
            # rows far from all data.
            score_type = "rotation" if n_classes == 1 else "vim"
        if score_type == "rotation" and auxiliary is None:
            raise ValueError(
                "score_type='rotation' needs an auxiliary task, but auxiliary is None or auxiliary_weight is 0: set "
                "auxiliary='auto' and auxiliary_weight above 0, or another score_type."
            )
        if n_classes == 1 and score_type not in _ONE_CLASS:
            raise ValueError(
                f"score_type={self.score_type!r} needs classes, but y has one class. Give y two classes or more, "
                f"or choose {', '.join(map(repr, _ONE_CLASS))}."
            )
        return RotationSettings(auxiliary, score_type, self.crop_size)

    def _without_effect(self):
        """Return the parameters that have no effect, each with the reason."""
        reasons, task = super()._without_effect(), self.auxiliary_
        if task != "affine":
            reasons["n_transforms"] = "without the auxiliary task 'affine'"
        if task is None:
            reasons |= dict.fromkeys(("auxiliary_batch_size", "all_transforms"), "without an auxiliary task")
            # A weight of 0 is what leaves the task out.
            if self.auxiliary_weight != 0:
                reasons["auxiliary_weight"] = "without an auxiliary task"
        elif task == "cpc":
            reasons["all_transforms"] = "with auxiliary='cpc', which transforms nothing"
        if task is None or len(self.classes_) == 1:
            reasons["separate_norms"] = "with a single task"
        return reasons

    def _resolved_auxiliary(self):
        """Return what ``auxiliary`` stands for: "rotation", "cpc", "affine", a list of functions, or None."""
        given, vectors = self.auxiliary, self.image_shape_ is None
        # A task of weight 0 trains nothing.
        if given is None or self.auxiliary_weight == 0:
            return None
        if not isinstance(given, str):
            if len(given) < 2 or not all(map(callable, given)):
                raise ValueError(
                    "auxiliary as a list must hold two functions or more, each of which maps a batch of scaled rows to "
                    "one of the same shape."
                )
            return list(given)
        if given == "auto":
            return "affine" if vectors else "rotation"
        if (given == "affine") != vectors:
            raise ValueError(
                f"auxiliary={given!r} is for {'images' if vectors else 'vectors'}, but X holds "
                f"{'vectors' if vectors else 'images'}: leave auxiliary='auto', which chooses the task by X."
            )
        return given

    def _front_options(self):
        """Return the options of the front: the scaling, and whether images are padded."""
        return super()._front_options() | {"pads": self._pads}

    @property
    def _pads(self) -> bool:
        """Return whether images are padded to squares: for the tasks that need squares, unless squares are cropped."""
        # A rotated image must have the shape of an upright one, and patches are cut from squares.
        if self.auxiliary_ not in ("rotation", "cpc"):
            return False
        height, width = self.image_shape_[1:]
        return height != width and (self._crop_size is None or self._crop_size > min(height, width))

    @property
    def _crop_size(self) -> int | None:
        """Return the side of the squares that are cropped, or None; `skood.encoders.trained.cropped` needs to know."""
        return self._settings.crop_size

    @property
    def _has_rotation_head(self) -> bool:
        """Return whether the auxiliary head recognises transformations, always the same; `OODScorer` needs to know."""
        return self.auxiliary_ not in (None, "cpc") and self._steady

    @property
    def _in_shape(self) -> tuple[int, ...]:
        """Return the shape of a row in the network, after padding and cropping."""
        if self.image_shape_ is None:
            return (self.n_features_in_,)
        channels, *sides = self.image_shape_
        if self._pads:
            sides = [max(sides)] * 2
        return (channels, *(side if self._crop_size is None else min(side, self._crop_size) for side in sides))

    def _build_module(self, data):
        """Return the untrained trunk with its two heads."""
        n_classes, task = len(self.classes_), self.auxiliary_
        network = self.network
        if isinstance(network, str) and network == "auto" and self.image_shape_ is not None:
            network = partial(small_wide_resnet, dropout=self.dropout)
        options = {"hidden_sizes": self.hidden_sizes, "dropout": self.dropout}
        network = make_classifier(network, self._in_shape, n_classes, **options)
        if task == "cpc":
            # With zero padding, the share of zeros would reveal which inputs are patches.
            network = symmetric_padding(network)
        separate = task == "cpc" if self.separate_norms == "auto" else self.separate_norms
        # With one task there is nothing to separate.
        self._separate = separate and task is not None and n_classes > 1
        if self._separate:
            network = separate_norms(network)
        module = MultiTask(network, self._in_shape)
        n_features = module.class_head.in_features
        if n_classes == 1:
            module.class_head = SingleClass()
        self._steady = True
        if task == "cpc":
            module.auxiliary_head = self._contrastive_head(module)
        elif task is not None:
            transforms = self._transforms()
            if isinstance(transforms, GivenTransforms):
                self._steady = self._tried_out(transforms, data)
            module.auxiliary_head = Recognition(n_features, transforms)
        return module

    def _tried_out(self, transforms: GivenTransforms, data: TrainingRows) -> bool:
        """Return whether the user's functions give the same for a row again and alone; refuse others in scoring."""
        indices = np.arange(len(data.X)) if data.indices is None else data.indices
        some = np.unique(np.linspace(0, len(indices) - 1, _TRIED_ROWS).astype(int))
        with torch.no_grad():
            unsteady = transforms.unsteady(self._centred(to_tensor(data.X, indices[some], self._front, data.device)))
        if unsteady is not None and self.score_type_ == "rotation":
            raise ValueError(
                f"auxiliary: {unsteady} gives a result for a row that depends on chance or on the other rows. With "
                f"score_type='rotation' scores would, too: let it depend on the row alone, or set another score_type, "
                f"such as 'knn'."
            )
        return unsteady is None

    def _contrastive_head(self, module) -> ContrastivePrediction:
        """Return the head of contrastive predictive coding for the trunk's encodings of patches."""
        _, _, grid = patch_geometry(self._in_shape[1])
        # Only encoding an image shows the length of an encoding. Evaluation mode keeps the statistics of batch
        # normalisation.
        try:
            with torch.no_grad():
                encodings = module.eval().encode_patches(torch.zeros(1, *self._in_shape))
        except RuntimeError as error:
            raise ValueError(
                f"auxiliary='cpc' encodes patches of images, but network={self.network!r} does not take their size "
                f"({error}): choose a network that takes images of any size, such as 'wrn-10-1'."
            ) from error
        finally:
            module.train()
        return ContrastivePrediction(encodings.shape[-1], grid)

    def _transforms(self) -> nn.Module:
        """Return the transformations that the auxiliary head learns to recognise."""
        if self.auxiliary_ == "rotation":
            return Rotations()
        if self.auxiliary_ == "affine":
            return AffineMaps(self.n_features_in_, self.n_transforms)
        return GivenTransforms(self.auxiliary_)

    def _module_to_train(self):
        """Return a copy of the trained module in which tasks share the layers that they shared in training."""
        module = super()._module_to_train()
        if not self._separate:
            module.trunk = join_norms(module.trunk)
        return module

    def _phases(self, n_rows):
        """Return the single phase, with a step for each task."""
        steps = [] if len(self.classes_) == 1 else [Step(self._loss)]
        if self.auxiliary_ is not None:
            steps.append(Step(self._auxiliary_loss))
        return [Phase(steps, self._n_epochs(n_rows), augment=self._augmented)]

    def _augmented(self, rows: Tensor) -> Tensor:
        """Return a batch with random squares cropped, then augmented."""
        if self._crop_size is not None:
            rows = random_crop_to(rows, self._crop_size)
        return super()._augmented(rows)

    def _loss(self, module, rows, labels):
        """Return the cross entropy of the classes, l_primary."""
        return functional.cross_entropy(module(rows), labels)

    def _auxiliary_loss(self, module, rows, labels=None):
        """Return the weighted loss of the auxiliary task, lambda l_auxiliary."""
        # Batches are shuffled, so the first rows are a random choice.
        rows = rows[: self.auxiliary_batch_size]
        weight = self.auxiliary_weight
        if len(self.classes_) == 1:
            # Without another loss a weight would only scale the learning rate.
            weight = 1.0
        elif weight == "auto":
            weight = 10.0 if self.auxiliary_ == "cpc" else 0.5
        if self.auxiliary_ == "cpc":
            return weight * module.auxiliary_head(module.encode_patches(rows)).mean()
        transformed, which = self._transformed(module, rows)
        return weight * functional.cross_entropy(module.auxiliary_head(module.auxiliary_features(transformed)), which)

    def _fit_score(self, data):
        """Compute each task's own statistics of batch normalisation, then fit the score."""
        if len(self.classes_) > 1 and self.auxiliary_ is not None and not self._separate:
            self._separate_statistics(data)
        self._learn_post_hoc(self.score_type_, data)

    def _separate_statistics(self, data):
        """Compute the statistics of batch normalisation again for each task, on its own kind of rows.

        During training the layers see both kinds of batches, so their running statistics fit neither.
        """
        module = self.module_
        if not any(isinstance(layer, _BatchNorm) and layer.track_running_stats for layer in module.trunk.modules()):
            return
        rows = TrainingRows(data.X, data.inlier_indices, self._front, next(module.parameters()).device)
        module.trunk = separate_norms(module.trunk)
        norms = [layer.tasks for layer in module.trunk.modules() if isinstance(layer, TaskNorm)]

        def auxiliary(batch):
            """Run the trunk on a batch as the auxiliary task does."""
            if self.auxiliary_ == "cpc":
                return module.encode_patches(batch)
            return module.auxiliary_features(self._transformed(module, batch)[0])

        for task, forward in enumerate((module, auxiliary)):
            # Scoring has no augmentation, and crops the central squares of images.
            batches = (self._centred(batch) for batch, _ in TensorBatches(rows, self.batch_size))
            training.reestimate_batch_norm([tasks[task] for tasks in norms], forward, batches)

    def _transformed(self, module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows, each under a random transformation or under all, and the indices of the transformations."""
        transforms = module.auxiliary_head.transforms
        n_transforms = transforms.n_transforms
        if self.all_transforms:
            which = torch.arange(n_transforms, device=rows.device).repeat_interleave(len(rows))
            rows = rows.repeat(n_transforms, *[1] * (rows.ndim - 1))
        else:
            which = torch.randint(n_transforms, (len(rows),), **drawing(rows.device))
        return transforms(rows, which), which

    def _centred(self, rows: Tensor) -> Tensor:
        """Return the central squares of images if squares are cropped in training."""
        return rows if self._crop_size is None else center_crop(rows, self._crop_size)

    def _class_logits(self, module, rows):
        """Return the logits of the classes."""
        return module(self._centred(rows))

    def _logits_and_features(self, module, rows):
        """Return the logits of the classes and the features, from one pass of the trunk."""
        features = module.features(self._centred(rows))
        return module.class_head(features), features

    def _class_weights(self):
        """Return the weights and biases of the class head."""
        return class_weights(self.module_.class_head, len(self.classes_))

    def _rotation_logits(self, module, rows):
        """Return logits of the transformations, (n, R, R); entry [i, r] holds those of row i under transformation r."""
        rows, head = self._centred(rows), module.auxiliary_head
        if isinstance(head, ContrastivePrediction):
            # This head recognises no transformations. A single logit adds log 1 = 0 to the score, from which
            # `_logits_and_score` subtracts the head's loss.
            return rows.new_zeros(len(rows), 1, 1)
        # Transforming all at once would need memory that grows with their number.
        which = torch.arange(head.transforms.n_transforms, device=rows.device)
        return torch.stack(
            [head(module.auxiliary_features(head.transforms(rows, one.expand(rows.shape[0])))) for one in which], 1
        )

    def _logits_and_score(self, module, rows):
        """Return logits and scores; for "cpc" the second term of "rotation" is minus the auxiliary task's loss."""
        logits, scores = super()._logits_and_score(module, rows)
        if self.score_type_ == "rotation" and self.auxiliary_ == "cpc":
            scores = scores - module.auxiliary_head(module.encode_patches(self._centred(rows)))
        return logits, scores
