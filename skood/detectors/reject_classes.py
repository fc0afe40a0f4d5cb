"""Train a classifier that has additional classes, the reject classes, for what it does not know.

Mohseni et al., "Self-Supervised Learning for Generalizable Out-of-Distribution Detection" (AAAI 2020).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import rankdata
from sklearn.cluster import MiniBatchKMeans
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional

from .._sklearn import HasMethods, Interval, StrOptions
from .._warn import warn_user
from ..encoders.trained import check_alike, cropped
from ..estimator.classes import COMPARE_CLASSES, DetectorWithClasses
from ..estimator.held_out import n_held_out
from ..estimator.network import GOING_ON, N_JOBS, WATCHING
from ..estimator.offset import find_offset
from ..estimator.rows import as_it_is
from ..estimator.scaling import SCALERS, fitted_scaler
from ..networks import class_weights, find_head, make_classifier, tap, widen_head
from ..networks.probe import one_tensor
from ..networks.randomness import drawing
from ..outliers import blend, filled_up, outlier_kinds
from ..scores import METHODS
from ..training.batches import rows_a_chunk, to_tensor
from ..training.phases import Phase, Step
from ..training.scoring import precise
from ._outlier_exposure import energy_bounded_loss, outlier_exposure_loss

# Largest number of training rows, and of outliers, on which reject classes are counted and score weights are searched.
_EXAMPLES = 2000
# A network that saw a corpus of vectors alone may call normal what lies elsewhere, however far away. One made outlier
# in six is enough against it, and leaves most of each batch to the corpus. "uniform" alone leaves out directions in
# which features of one sign do not reach.
_WITH_A_CORPUS_OF_VECTORS = ("auxiliary",) * 10 + ("uniform", "far")
_SCORES = ("sum", "max", "weighted", "entropy", "entropy_diff", "combined", "max_class")
# The scores whose weights are searched for.
_WEIGHTED = ("weighted", "combined")
# The scores that are entropies of the reject classes' probabilities; and the share of the training outliers from which
# on these are said to be in one reject class.
_ENTROPIES, _COLLAPSED = ("entropy", "entropy_diff"), 0.9
# What "auto" means where there are no reject classes: the score, and the weight of the outliers, of each paper.
_WITHOUT_REJECT_CLASSES = {"uniform": ("msp", 0.5), "energy": ("energy", 0.1)}
# Scores of the classifier without its reject classes. "entropy" means the paper's score here, and there is no head for
# "rotation".
_POST_HOC = tuple(name for name in METHODS if name not in (*_SCORES, "rotation"))

# --------------------------------------------------------------------------------------------------------------------
# Losses


def two_term_loss(
    logits: Tensor,
    labels: Tensor,
    outlier_logits: Tensor,
    pseudo_labels: Tensor,
    outlier_weight: float,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Return L_in + lambda L_out: cross entropy of the rows' classes, and of the outliers' pseudo-labels, each a mean.

    Parameters
    ----------
    logits : Tensor of shape (n_rows, c + k)
        Logits of in-distribution rows.
    labels : Tensor of int of shape (n_rows,)
        Classes of these rows, below c.
    outlier_logits : Tensor of shape (n_outliers, c + k)
        Logits of outliers.
    pseudo_labels : Tensor of int of shape (n_outliers,)
        Reject classes of the outliers, from c on.
    outlier_weight : float
        lambda.
    class_weight : Tensor of shape (c + k,) or None, default=None
        Weight of the rows of each class in L_in, which is then a weighted mean. None weighs all rows alike.

    Returns
    -------
    loss : Tensor of no dimensions
    """
    inside = functional.cross_entropy(logits, labels, class_weight)
    return inside + outlier_weight * functional.cross_entropy(outlier_logits, pseudo_labels)


def self_labels(logits: Tensor, n_classes: int) -> Tensor:
    """Return the pseudo-labels of Algorithm 1: the network's own answer if it is a reject class, else a random one.

    Parameters
    ----------
    logits : Tensor of shape (n_outliers, c + k)
        Logits of outliers.
    n_classes : int
        c.

    Returns
    -------
    labels : Tensor of int of shape (n_outliers,)
        In [c, c + k).
    """
    answer = logits.argmax(1)
    drawn = torch.randint(n_classes, logits.shape[1], answer.shape, **drawing(logits.device))
    return torch.where(answer >= n_classes, answer, drawn)


def balanced_labels(logits: Tensor, n_classes: int) -> Tensor:
    """Return pseudo-labels of equal mass: the best assignment by reject logits that gives each class as many outliers.

    The assignment maximises sum_i log p_i(label_i) with n_outliers / k outliers in each class, by Sinkhorn-Knopp over
    the batch [1]_: a potential g_j for each class is moved until softmax_j(s (log p_ij + g_j)) sums to n_outliers / k
    over the outliers, or nearly so after 45 rounds. The sharpness s grows, so that in the end nearly all of an
    outlier's mass is on one class, its label. Outliers with the same logits get the same class.

    Parameters
    ----------
    logits : Tensor of shape (n_outliers, c + k)
        Logits of outliers.
    n_classes : int
        c.

    Returns
    -------
    labels : Tensor of int of shape (n_outliers,)
        In [c, c + k).

    References
    ----------
    .. [1] Asano, Rupprecht and Vedaldi, "Self-labelling via simultaneous clustering and representation learning",
       ICLR 2020.
    """
    log_p = torch.log_softmax(logits[:, n_classes:].float(), 1)
    potential = torch.zeros(log_p.shape[1], device=log_p.device)
    for sharpness in (1, 4, 16):
        for _ in range(15):
            log_mass = torch.log_softmax(sharpness * (log_p + potential), 1).logsumexp(0)
            potential = potential - log_mass / sharpness
    return n_classes + (log_p + potential).argmax(1)


class _Clusters:
    """Make pseudo-labels by k-means of the network's last features; the centres follow the features batch by batch."""

    def __init__(self, n_clusters: int):
        # The seed comes from torch's generator, which the fit has seeded.
        seed = int(torch.randint(2**31 - 1, (), **drawing()))
        self.kmeans = MiniBatchKMeans(n_clusters, n_init=3, random_state=seed)

    def labels(self, features: Tensor, n_classes: int, learn: bool = True) -> Tensor:
        """Move the centres towards a batch of features, unless told not to, and return the reject class of each row."""
        values = features.detach().float().cpu().numpy()
        n_clusters = self.kmeans.n_clusters
        if not hasattr(self.kmeans, "cluster_centers_") and len(values) < n_clusters:
            raise ValueError(
                f"pseudo_labels='kmeans' needs as many outliers in a batch as there are reject classes: "
                f"{n_clusters} classes, {len(values)} outliers. Pass more rows, or raise batch_size or "
                f"outlier_batch_ratio."
            )
        if learn:
            self.kmeans.partial_fit(values)
        return n_classes + torch.from_numpy(self.kmeans.predict(values)).long().to(features.device)

    def state_dict(self) -> dict[str, Any]:
        """Return what the k-means has learnt, so that a training can be taken up."""
        parameters = self.kmeans.get_params()
        learnt = {name: value for name, value in vars(self.kmeans).items() if name not in parameters}
        if "_random_state" in learnt:
            name, keys, *numbers = learnt["_random_state"].get_state()
            learnt["_random_state"] = [name, torch.from_numpy(keys.astype(np.int64)), *numbers]
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in learnt.items()}
        return {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
            for name, value in plain.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a k-means has learnt."""
        for name, value in state.items():
            if name == "_random_state":
                kind, keys, *numbers = value
                random_state = np.random.RandomState()
                random_state.set_state((kind, keys.numpy().astype(np.uint32), *numbers))
                value = random_state
            setattr(self.kmeans, name, value.numpy().copy() if isinstance(value, Tensor) else value)


# --------------------------------------------------------------------------------------------------------------------
# Scores


def reject_score(logits: Tensor, n_classes: int, kind: str, weights: Tensor | None = None) -> Tensor:
    """Return the out-of-distribution score of each row, higher = more anomalous; Table 2 of the paper.

    With p the softmax over all c + k outputs, R the reject classes and C the others:

    - "sum": log(p_R / p_C) with p_R = sum_R p_j and p_C = 1 - p_R, which orders rows as p_R does and does not saturate;
    - "max": log max_R p_j;
    - "entropy": H_out = -sum_R p_j log p_j, of the probabilities as they are;
    - "entropy_diff": H_out - H_in, H_in the same sum over C;
    - "weighted": sum_R w_j p_j;
    - "combined": v . (p_R, max_R p_j, weighted, H_out, H_out - H_in), ``weights`` holding w and then v;
    - "max_class", which is not the paper's: log((1 - p) / p) with p = max_C p_j. With a single class it is "sum".

    Parameters
    ----------
    logits : Tensor of shape (n_rows, c + k)
    n_classes : int
        c.
    kind : str
        Name of the score.
    weights : Tensor of shape (k + 5,) or None, default=None
        w and v. Needed for "weighted" and "combined" only.

    Returns
    -------
    score : Tensor of shape (n_rows,)
    """
    if kind == "sum":
        return logits[:, n_classes:].logsumexp(1) - logits[:, :n_classes].logsumexp(1)
    if kind == "max":
        return logits[:, n_classes:].amax(1) - logits.logsumexp(1)
    if kind == "max_class":
        largest = logits[:, :n_classes].max(1, keepdim=True)
        others = logits.scatter(1, largest.indices, -torch.inf)
        return others.logsumexp(1) - largest.values[:, 0]
    n_reject = logits.shape[1] - n_classes
    if weights is None:
        if kind in _WEIGHTED:
            raise ValueError(f"kind={kind!r} needs weights.")
        weights = logits.new_zeros(n_reject + 5)
    components = score_components(logits, n_classes, weights[:n_reject])
    if kind == "combined":
        return components @ weights[n_reject:]
    return components[:, {"weighted": 2, "entropy": 3, "entropy_diff": 4}[kind]]


def score_components(logits: Tensor, n_classes: int, weights: Tensor) -> Tensor:
    """Return p_R, max_R p_j, sum_R w_j p_j, H_out and H_out - H_in of `reject_score`, one column for each.

    Parameters
    ----------
    logits : Tensor of shape (n_rows, c + k)
    n_classes : int
        c.
    weights : Tensor of shape (k,)
        w.

    Returns
    -------
    components : Tensor of shape (n_rows, 5)
    """
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    reject, surprise = p[:, n_classes:], -p * log_p
    entropy = surprise[:, n_classes:].sum(1)
    difference = entropy - surprise[:, :n_classes].sum(1)
    return torch.stack([reject.sum(1), reject.amax(1), reject @ weights, entropy, difference], 1)


def greedy_weights(components: np.ndarray, outlier: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Search weights of score components greedily: change one at a time, and keep it whenever the AUROC rises.

    Parameters
    ----------
    components : ndarray of shape (n_rows, n_components)
        The components; higher = more anomalous.
    outlier : ndarray of bool of shape (n_rows,)
        Whether each row is an outlier.
    start : ndarray of shape (n_components,)
        Weights with which the search begins.

    Returns
    -------
    weights : ndarray of shape (n_components,)
    """

    def mean_rank(weights):
        """Return a number that rises with the AUROC: the mean rank of the outliers."""
        # The AUROC is a linear function of it whose coefficients do not depend on the weights.
        return rankdata(components @ weights)[outlier].mean() / len(outlier)

    weights = start.astype(np.float64)
    best, improved = mean_rank(weights), True
    while improved:
        improved = False
        for place in range(len(weights)):
            for value in (0.0, 0.5 * weights[place], 2 * weights[place], 0.5, 1.0, 2.0):
                trial = weights.copy()
                trial[place] = value
                rank = mean_rank(trial)
                # More than rounding, or the search might not end.
                if rank > best + 1e-6:
                    weights, best, improved = trial, rank, True
    return weights


# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RejectSettings:
    """Settings of a fit, under the names of the parameters; `set_params` after the fit does not change them."""

    pseudo_labels: str
    score_type: str
    n_reject_classes: int
    outlier_weight: float
    class_weight: tuple[float, ...] | None
    kinds: tuple


def _has_reject_classes(detector: Any) -> bool:
    """Return whether a detector has reject classes, for `available_if`; if not, raise an AttributeError."""
    settings = getattr(detector, "_settings", detector)
    if settings.pseudo_labels in _WITHOUT_REJECT_CLASSES:
        raise AttributeError(
            f"pseudo_labels={settings.pseudo_labels!r} trains without reject classes; choose 'self' to have some."
        )
    return True


class RejectClassDetector(DetectorWithClasses):
    """Classify rows, and detect outliers as rows to which the classifier gives one of k additional reject classes.

    Use it where there are classes, images, or a corpus of outliers. The corpus need not be like the outliers to come,
    but the closer to the data it is, the better; for images it must hold images. Without a corpus, outliers are made of
    the rows (``outliers``): on vectors this is a weak method, so compare it with nearest neighbours first. How it
    fares: :doc:`/methods/reject_classes`.

    The last layer has an output for each of the c in-distribution classes and k more, the reject classes R, under one
    softmax P. Step one trains an ordinary classifier, by cross entropy of the in-distribution rows. Step two adds
    outliers to each batch and minimises:

        L_in + lambda L_out,  L_in = mean of -log P(y | x) over rows,  L_out = mean of -log P(t(x) | x) over outliers,

    where the pseudo-label t(x) of an outlier is the network's own answer if that is in R, and one of R at random if it
    is not. The class of a row is the largest of the first c outputs, and the score is:

        log(p / (1 - p)),    p = the largest P of the c classes.

    The paper's score, "sum", its lambda = 5 and its k cost accuracy where training is short: `from_paper` has them.
    ``pseudo_labels`` has two rivals, to compare with.

    Labels: rows with ``y == outlier_label`` are the corpus, auxiliary outliers; each other value of y is a class.
    Without y, all rows are of one class.

    Parameters
    ----------
    n_reject_classes : int or "auto", default="auto"
        k. "auto" is 1 with two classes or more, which costs the least accuracy where training is short. With a single
        class, or with ``pseudo_labels="balanced"`` or "kmeans", it is 5, or 10 with 100 or more classes; with "uniform"
        or "energy" there are none. Where training is long enough, k hardly matters.

    pseudo_labels : {"self", "balanced", "kmeans", "uniform", "energy"}, default="self"
        How outliers get their reject class t(x). "self" is the paper's rule above. It collapses: nearly all outliers
        end in one class (see `reject_class_counts_`), which does not matter to the score "sum". "balanced" gives each
        reject class the same number of outliers in a batch, by Sinkhorn-Knopp. "kmeans" clusters the input of the last
        layer during training. By the default score both detected more on CIFAR-10 with ten reject classes, and
        elsewhere as much or less: :doc:`/methods/reject_classes`. With one reject class for all, "entropy" and
        "entropy_diff" score outliers as inliers: `fit` warns of it.

        The other two are methods without reject classes; see Notes. "uniform" is outlier exposure [3]_: outliers are to
        get the same probability in each class, of which there must be two or more. "energy" is energy-bounded learning
        [4]_: the logits of outliers are to stay low, and those of rows high.

    outlier_weight : float or "auto", default="auto"
        lambda. "auto" is 1.0, or 5.0, as in the paper, with a single class; and 0.5 for ``pseudo_labels="uniform"`` and
        0.1 for "energy", as in their papers.

    energy_margins : tuple (m_in, m_out) of float, default=(-23.0, -5.0)
        With ``pseudo_labels="energy"``, the energies that rows are to stay below, and outliers above. The default is
        that of [4]_ for CIFAR-10.

    class_weight : "balanced", dict or None, default=None
        Weight of the rows of each class in the cross entropy of the in-distribution rows, which is a weighted mean. A
        dict maps classes to weights above 0; a class that is not in it has 1. "balanced" gives each class the same
        share: its weight is n_in_distribution / (n_classes * n_of_the_class), of the rows of `fit`, or of the first
        call of `partial_fit`. None weighs all rows alike.

    outlier_batch_ratio : float or "auto", default="auto"
        Number of outliers in a batch for each in-distribution row; a batch has at least one. "auto" is 1.0 for images
        of several channels, else 5.0. The paper has 5, with which step two takes three times as long. With several
        classes that detects no better, though it may cost less accuracy; with a single class it detects better after as
        many epochs, but not after as much time: :doc:`/methods/reject_classes`. Auxiliary outliers are drawn without
        replacement until all were drawn, then again.

    outliers : str, callable, or sequence of these, default="auto"
        Where the training outliers come from. Of several kinds, each gives the same share; named twice, two.

        - "auxiliary": the rows with ``y == outlier_label``;
        - "noise": rows moved by Gaussian noise of many scales, 0.5 to 3 in scaled features. With ``scaling=None`` the
          features themselves must be of that order;
        - "far": rows moved by noise of 3 to 30 times their own deviation, whatever their scale;
        - "uniform": points uniform over the batch's bounding box and around it; for images, noise;
        - "permuted": rows each of whose features comes from another row of the batch;
        - "patches": images whose patches changed places;
        - a function ``(rows, n_outliers) -> outliers`` of tensors, as in `skood.outliers`. It gets scaled rows of type
          float32 on the training device;
        - "auto": "auxiliary" if there are such rows. For reject classes of vectors two outliers in twelve are "uniform"
          and "far" then, as with ``["auxiliary"] * 10 + ["uniform", "far"]``: a corpus alone leaves to chance what lies
          elsewhere, however far away. If there are no such rows, "noise" and "uniform" for vectors, and "patches",
          "noise" and "uniform" for images.

    outlier_blend : float in [0, 1), default=0.0
        Share of an in-distribution row that is blended into each outlier, to bring a distant corpus closer. The paper
        reports a gain with 0.1 where its outliers are ImageNet.

    score_type : {"auto", "max_class", "sum", "max", "weighted", "entropy", "entropy_diff", "combined"} or a post-hoc \
            score, default="auto"
        How the softmax is reduced to a score; see Notes. "auto" is "max_class", or "msp" for
        ``pseudo_labels="uniform"`` and "energy" for "energy". The post-hoc scores are the others of
        `skood.scores.METHODS` but "rotation", such as "msp", "energy", "knn" or "vim"; "msp" and "odin" are in
        log-odds. They use the in-distribution classes alone, and show what the reject classes add.

    temperature : float, default=1.0
        Divides the logits, for scores and probabilities. `calibrate` finds a value on held-out rows.

    classifier : torch.nn.Module, fitted skorch or skood classifier, or None, default=None
        A trained classifier to start from. Its last linear layer is widened, in a copy, and step one is skipped, unless
        ``class_epochs`` is a number. It must give logits, probabilities or their logarithms, in the order of the sorted
        classes. All its layers are trained, frozen ones too. It replaces ``network``, ``hidden_sizes`` and ``dropout``.
        Rows reach it unscaled, or scaled and padded as a skood detector scaled and padded them; of images that it
        cropped, the central squares. ``clone``, and with it a search or a wrapper, resets whatever has ``get_params``
        to an unfitted state: wrap such a classifier in ``sklearn.frozen.FrozenEstimator``.

    scaling : {"auto", "standard", "minmax"} or None, default="auto"
        Scaling of each feature, or of each channel of images, fitted on the in-distribution rows. "auto" is "standard",
        or the scaling of ``classifier``.

    augmentation : {"crop-flip", "crop-flip-mask"}, callable or None, default=None
        Transformation of the scaled images of a batch, rows and outliers alike, during training. "crop-flip" shifts
        them by up to an eighth of the side and mirrors them; "crop-flip-mask" then also masks a square, see
        `skood.augment`. A callable maps a tensor to one of the same shape.

    network : str, torch.nn.Module, class or callable, default="auto"
        "mlp" or "residual" for vectors; "cnn" (two convolutions), "wrn-D-K" (Wide ResNet of depth D and width K, such
        as "wrn-40-2"), "resnet-D-W" (`skood.networks.ResNet` of depth D and W channels at first, such as
        "resnet-26-32"), "resnet-18", "resnet-34" or "resnet-50" (`skood.networks.ImageNetResNet`) for images. "auto" is
        "residual" for vectors, "cnn" for images of one channel, and for other images "wrn-16-2" if the shorter side has
        less than 96 pixels, else "resnet-18". A class or callable is called with ``(n_features, n_outputs)`` or
        ``((C, H, W), n_outputs)``, where n_outputs = c + k. An instance is copied before it is trained. Not used with a
        ``classifier``.

    hidden_sizes : sequence of int, default=(128, 128)
        Width of each hidden layer of "mlp" or block of "residual".

    dropout : float in [0, 1), default=0.1
        Dropout rate of a named network; those named "resnet-" have no dropout.

    class_epochs : int or "auto", default="auto"
        Passes over the rows in step one. "auto" is the number of step two, or 0 with a ``classifier`` or a single
        class.

    class_outputs : {"classes", "all"}, default="classes"
        Outputs that step one's softmax runs over. With "all", reject outputs are among them; they are the class of no
        row, and are pushed so low that step two undoes part of what step one learnt. The paper leaves it open;
        `from_paper` has "all".

    max_epochs : int or "auto", default="auto"
        Passes over the in-distribution rows in step two. "auto" is the number that gives at least 2000 batches, or 1000
        for images. Few images are then passed over hundreds of times, which takes half an hour and more on a CPU if
        they are in colour: :doc:`/methods/reject_classes` says what fewer passes save and cost.

    batch_size : int, default=64
        In-distribution rows in a batch.

    lr : float or "auto", default="auto"
        Initial learning rate. "auto" is 0.1 for images of several channels, else 0.01: the paper's for CIFAR-10 and for
        MNIST. A trained ``classifier`` has 0.01, so as not to forget what it knows.

    lr_reject : float or None, default=None
        Initial learning rate of step two, whose schedule starts again; None is ``lr``.

    optimizer : {"nesterov", "sgd", "adam", "adamw", "rmsprop"} or callable, default="nesterov"
        An optimiser by name ("sgd" and "nesterov" have momentum 0.9), or a callable
        ``(parameters, lr=...) -> Optimizer``.

    weight_decay : float, default=5e-4
        Weight decay of a named optimiser.

    max_grad_norm : float or None, default=5.0
        Gradients are clipped to this norm; None does not clip, as in the paper. With lambda = 5 the first gradients of
        step two are so large that without clipping a network forgets its classes, or stops learning.

    schedule : {"cosine", "one-cycle", "steps", "constant"} or callable, default="cosine"
        How the learning rate changes during training. A callable maps the share of training done, in [0, 1], to a
        factor on ``lr``. Each of the two steps has its own schedule.

    early_stopping : bool, default=False
        Whether to hold out some in-distribution rows, the same share of each class, compute their loss after each epoch
        (``valid_loss`` in `history_`), stop when it no longer falls, and keep the weights with the lowest loss. Each of
        the two steps stops by its own loss. The held-out rows are not used for scaling and training. After the
        training, the score and the threshold are fitted on all rows. The same share of the auxiliary outliers is held
        out, too. The loss is computed in evaluation mode, with the same random numbers in each epoch. Measured:
        :doc:`/watching`.

    validation_fraction : float in (0, 1), default=0.1
        Share of the rows to hold out, at least two rows. Used only with ``early_stopping=True``.

    n_iter_no_change : int, default=10
        Number of epochs without a lower ``valid_loss`` after which training stops. Used only with
        ``early_stopping=True``.

    warm_start : bool, default=False
        Whether `fit` goes on from the last fit for another ``max_epochs`` of its last step, instead of starting anew.
        Weights, optimiser state, random numbers and scaling are kept; the learning-rate schedule starts again, over the
        new epochs. Parameters that define the network cannot change. The training state is kept and pickled, about
        twice the size of the network. With ``contamination="auto"`` the copies for the threshold are trained from the
        start, for as many epochs as the detector had in all.

    checkpoint : str, path or None, default=None
        File from which a fit that was interrupted or killed goes on. It is written after each epoch; fitting again with
        the same rows and parameters goes on from it, to the same result to the last bit. A completed fit removes the
        file. A file of another fit is refused. ``callbacks`` start anew, and so do their counts. None writes no file.

    contamination : "auto", "natural" or float in [0, 0.5], default="auto"
        How the threshold is set. "auto" aims to call at most 5 % of new in-distribution rows outliers. Copies of the
        detector, three below 300 rows, two below 600, else one, score rows that were held out from them. The threshold
        is set on these scores, or on those of the training rows if that gives a lower one. The detector itself is
        fitted on all rows, whatever the threshold. Fewer than 19 rows do not suffice for 5 %; the threshold is then set
        by the lowest score. "natural" is a probability of 1/2, of the most probable class or, with the score "sum", of
        all reject classes; or the middle of ``energy_margins``, with ``pseudo_labels="energy"`` and the score "energy".
        A float is the share of the in-distribution training rows below the threshold. Training rows score higher than
        new rows, so that a float calls several times its share of new rows outliers, most of all with fewer rows than
        features. 0 calls no training row an outlier. A float needs no further fits: use one where only scores matter,
        as in a search. ``set_threshold(target_fpr=0.05, X=held_out)`` sets the threshold afterwards, on held-out rows.
        Measured rates: :doc:`/choosing`. A guarantee: `skood.thresholds.ConformalDetector`.

    image_shape : tuple (C, H, W) or None, default=None
        Shape of one image, if X holds flattened pixels; one entry may be -1, and is then computed. Not needed for
        vectors, nor for images of shape (n, C, H, W).

    outlier_label : number, str, bool, or list of these, default=-1
        Value of y that marks auxiliary outliers, or a list of such values.

    device : str or torch.device, default="auto"
        Where to train: "auto" is CUDA, else MPS, else the CPU; "distributed" shares the training among the processes
        that ``torchrun`` started, see `skood.training.distributed`.

    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of training: "auto" is bfloat16 autocast on CUDA and float32 elsewhere. Networks always score in
        float32.

    callbacks : list of skorch callbacks or None, default=None
        Copied for each fit; the copies that ran are in `callbacks_`. A callback that stops training ends the current
        step. Monitor ``train_loss``, or ``valid_loss`` with ``early_stopping=True``. LRScheduler needs
        ``schedule="constant"``. Supported callbacks: :doc:`/callbacks`.

    n_jobs : int or None, default=None
        Number of processes, as in joblib, that fit the copies for ``contamination="auto"`` in parallel. None means 1,
        unless set by `joblib.parallel_config`.

    verbose : int, default=0
        1 shows a progress bar for each step.

    random_state : int, RandomState instance or None, default=None
        Seed for initial weights, batches and all other random draws. None takes it from numpy's global generator.
        torch's global generators are not changed.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The in-distribution classes, sorted; [1] without y.

    n_reject_classes_ : int
        k; 0 where there are none.

    reject_class_counts_ : ndarray of int of shape (n_reject_classes_,)
        Of at most 2000 training outliers, the number that have their largest output in each reject class. Those that
        are taken for an in-distribution class are not counted.

    score_weights_ : ndarray of shape (n_reject_classes_ + 5,) or None
        Weights of the scores "weighted" and "combined", from a greedy search on the training rows and outliers; None
        with any other score.

    temperature_ : float
        The number that divides the logits.

    offset_ : float
        The threshold: ``decision_function(X) = score_samples(X) - offset_``. `set_threshold` changes it.

    training_scores_ : ndarray of float64 of shape (n_in_distribution,)
        Ascending scores of the in-distribution training rows; after `calibrate`, of the rows that were given to it.

    net_ : skorch.NeuralNet
        The trained net, without what only training needs.

    module_ : torch.nn.Module
        Its module: maps scaled rows to c + k logits, the classes first.

    history_ : list of dict
        One entry for each epoch, with ``phase`` ("classes", then "reject", or "outliers" without reject classes),
        ``train_loss`` and ``dur`` (seconds).

    callbacks_ : list of skorch callbacks
        The copies of ``callbacks`` that ran; not pickled.

    scaler_ : scikit-learn transformer or None
        The fitted scaling, of columns that are features or channels.

    image_shape_ : tuple or None
        Shape of one image; None for vectors.

    n_features_in_ : int
        Number of features (for images, of pixels times channels).

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has string column names.

    See Also
    --------
    OpenSetClassifier : Wraps this detector as a classifier that may reject.
    FitOnInliers : Keeps auxiliary outliers out of a scaler in a Pipeline.
    skood.model_selection.DropOutliers : Not for this detector: it would drop the auxiliary outliers.

    Notes
    -----
    `score_samples` returns minus the out-of-distribution score of each row; higher = more normal.

    With p the softmax over all c + k outputs, R the reject classes and C the others, ``score_type`` is

    - "max_class": log(p / (1 - p)), p = max_C p_j, which is low for rows between classes, too; not in the paper. With a
      single class it is "sum";
    - "sum": -log(p_R / p_C), with p_R the sum over R and p_C that over C; positive where p_R < 1/2;
    - "max": -log max_R p_j;
    - "entropy": -H_out, H_out = -sum_R p_j log p_j. It is 0 where R has no mass, but also where one reject class
      has it all;
    - "entropy_diff": -(H_out - H_in), H_in the same sum over C;
    - "weighted": -sum_R w_j p_j, with weights found on the training rows;
    - "combined": a weighted sum of the paper's scores above;
    - any other: the score of that name in `skood.scores`, from the logits of the in-distribution classes.

    With ``pseudo_labels="uniform"``, L_out is the mean of -(1 / c) sum_j log P(j | x) over the outliers x. With
    "energy" it is, with the energy E(x) = -log sum_j exp f_j(x) of logits f, the mean of max(0, E(x) - m_in)^2 over the
    rows, plus the mean of max(0, m_out - E(x))^2 over the outliers.

    References
    ----------
    .. [1] Mohseni, Pitale, Yadawa and Wang, "Self-Supervised Learning for Generalizable Out-of-Distribution Detection",
       AAAI 2020.
    .. [2] Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    .. [3] Hendrycks, Mazeika and Dietterich, "Deep Anomaly Detection with Outlier Exposure", ICLR 2019.
    .. [4] Liu, Wang, Owens and Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skood import RejectClassDetector
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2)) + np.repeat([[0, 0], [6, 0]], 100, axis=0)
    >>> outliers = rng.uniform(-20, 20, size=(400, 2))
    >>> y = np.repeat(["left", "right"], 100).astype(object)
    >>> X, y = np.vstack([X, outliers]), np.concatenate([y, np.full(400, -1)])
    >>> detector = RejectClassDetector(max_epochs=10, random_state=0).fit(X, y)
    >>> detector.predict([[0.0, 0.0], [6.0, 0.0], [3.0, 12.0]])
    array([ 1,  1, -1])
    >>> detector.predict_class([[0.0, 0.0], [6.0, 0.0]])
    array(['left', 'right'], dtype='<U5')
    """

    _parameter_constraints: dict = {
        **DetectorWithClasses._parameter_constraints,
        **WATCHING,
        **GOING_ON,
        "n_reject_classes": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "pseudo_labels": [StrOptions({"self", "balanced", "kmeans", *_WITHOUT_REJECT_CLASSES})],
        "outlier_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "energy_margins": [tuple, list],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "outlier_batch_ratio": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "outliers": [str, list, tuple, callable],
        "outlier_blend": [Interval(Real, 0, 1, closed="left")],
        "score_type": [StrOptions({"auto", *_SCORES, *_POST_HOC})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "classifier": [nn.Module, HasMethods("fit"), None],
        "scaling": [StrOptions({"auto", *SCALERS}), None],
        "class_epochs": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "class_outputs": [StrOptions({"classes", "all"})],
        "lr_reject": [Interval(Real, 0, None, closed="neither"), None],
        **N_JOBS,
    }
    _fixed_params = (
        *DetectorWithClasses._fixed_params,
        "n_reject_classes",
        "pseudo_labels",
        "outlier_weight",
        "class_weight",
        "outliers",
        "score_type",
        "classifier",
        "class_epochs",
        "class_outputs",
    )
    # Whether images are padded to squares, as the given classifier's were.
    _pads = False
    # What the k-means of the pseudo-labels has learnt, if there is one: its numbers of the clusters are the reject
    # classes, to which a training that goes on must keep.
    _clusters: dict[str, Any] | None = None
    # This k-means while it learns.
    _learning: _Clusters | None = None

    def __init__(
        self,
        n_reject_classes="auto",
        *,
        pseudo_labels="self",
        outlier_weight="auto",
        energy_margins=(-23.0, -5.0),
        class_weight=None,
        outlier_batch_ratio="auto",
        outliers="auto",
        outlier_blend=0.0,
        score_type="auto",
        temperature=1.0,
        classifier=None,
        scaling="auto",
        augmentation=None,
        network="auto",
        hidden_sizes=(128, 128),
        dropout=0.1,
        class_epochs="auto",
        class_outputs="classes",
        max_epochs="auto",
        batch_size=64,
        lr="auto",
        lr_reject=None,
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
        self.n_reject_classes = n_reject_classes
        self.pseudo_labels = pseudo_labels
        self.outlier_weight = outlier_weight
        self.energy_margins = energy_margins
        self.class_weight = class_weight
        self.outlier_batch_ratio = outlier_batch_ratio
        self.outliers = outliers
        self.outlier_blend = outlier_blend
        self.score_type = score_type
        self.temperature = temperature
        self.classifier = classifier
        self.scaling = scaling
        self.augmentation = augmentation
        self.network = network
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.class_epochs = class_epochs
        self.class_outputs = class_outputs
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lr_reject = lr_reject
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
        """Return a detector with the paper's settings for one of its in-distribution data sets.

        SGD with Nesterov momentum and weight decay 5e-4 (the paper names neither), cosine schedule anew in each step,
        five reject classes (CIFAR-100: ten), lambda = 5, five auxiliary outliers for each row, the score "sum",
        ``class_outputs="all"``:

        - "mnist": a network of two convolutions, dropout 0.1, 10 + 10 epochs, batches of 64, learning rate 0.01;
        - "svhn": WRN-16-2, dropout 0.3, 20 + 20 epochs, batches of 128, learning rate 0.1;
        - "cifar10", "cifar100": WRN-40-2, the same with 100 + 100 epochs, and images cropped and flipped.

        With ``pseudo_labels="uniform"`` or "energy" there are no reject classes, and score and lambda are of these
        methods. The paper does not say how pixels are scaled; here each channel is standardised. It does not clip
        gradients; here they are clipped, see ``max_grad_norm``.

        Parameters
        ----------
        dataset : {"mnist", "svhn", "cifar10", "cifar100"}, default="cifar10"
        **params
            Parameters that replace those above.

        Returns
        -------
        detector : RejectClassDetector
            Not fitted.

        Raises
        ------
        ValueError
            If the paper has no such data set.
        """
        mnist = {"network": "cnn", "dropout": 0.1, "class_epochs": 10, "max_epochs": 10, "batch_size": 64, "lr": 0.01}
        svhn = {"network": "wrn-16-2", "dropout": 0.3, "class_epochs": 20, "max_epochs": 20, "batch_size": 128}
        svhn |= {"lr": 0.1}
        cifar = svhn | {"network": "wrn-40-2", "class_epochs": 100, "max_epochs": 100, "augmentation": "crop-flip"}
        papers = {"mnist": mnist, "svhn": svhn, "cifar10": cifar, "cifar100": cifar | {"n_reject_classes": 10}}
        if dataset not in papers:
            raise ValueError(f"dataset={dataset!r} is none of the paper's: {', '.join(papers)}.")
        of_method = {"n_reject_classes": 5, "outlier_weight": 5.0, "score_type": "sum", "class_outputs": "all"}
        settings = of_method | {"outlier_batch_ratio": 5.0} | papers[dataset]
        if params.get("pseudo_labels") in _WITHOUT_REJECT_CLASSES:
            settings = {name: value for name, value in settings.items() if name not in of_method}
        return cls._with_settings(settings, params)

    @available_if(_has_reject_classes)
    def predict_reject_proba(self, X):
        """Return the probability of each reject class, out of all c + k outputs; their sum is the reject mass.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        probability : ndarray of float64 of shape (n_samples, n_reject_classes_)
        """
        check_is_fitted(self)
        logits = self._apply(_logits, self._check_rows(X, reset=False))
        return softmax(logits / self.temperature_, axis=1)[:, len(self.classes_) :]

    @available_if(_has_reject_classes)
    def score_components(self, X):
        """Return the scores of reject classes that ``score_type`` chooses from; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        scores : DataFrame of shape (n_samples, 5) or (n_samples, 7)
            One column for each score, see Notes; the index of X if that is a DataFrame. "weighted" and "combined" are
            among them if ``score_type`` is one of these.
        """
        import pandas as pd

        check_is_fitted(self)
        logits = torch.from_numpy(self._apply(_logits, self._check_rows(X, reset=False)))
        kinds = [kind for kind in _SCORES if self.score_weights_ is not None or kind not in _WEIGHTED]
        scores = {kind: -self._ood_score(logits, kind).numpy() for kind in kinds}
        return pd.DataFrame(scores, index=X.index if isinstance(X, pd.DataFrame) else None)

    def calibrate(self, X, y):
        """Choose the temperature on held-out rows (temperature scaling), and set the threshold on them.

        The temperature T divides the logits. It is the one under which the rows' classes are most likely (Guo et al.,
        2017); for rows with ``y == outlier_label``, if there are any, the reject mass counts as their class; without
        reject classes they are left out. The order of a row's classes stays; scores and probabilities change. If every
        row is classified correctly, no T is best, and it stays as it was.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows that the detector was not fitted on.
        y : array-like of shape (n_samples,)
            Their classes, of those at `fit`; or ``outlier_label``.

        Returns
        -------
        self : object
            With new ``temperature_``, ``training_scores_`` (now of the in-distribution rows of X) and ``offset_``:
            ``contamination`` refers to these rows, and the effect of `set_threshold` is undone.

        Raises
        ------
        ValueError
            If y holds another class, or fewer than two in-distribution rows, or the score was learnt from logits.

        Warns
        -----
        RuntimeWarning
            If every row is classified correctly.
        """
        check_is_fitted(self)
        data = self._check_calibration(X, y, self._post_hoc, f"score_type={self._settings.score_type!r}")
        logits, n_classes = self._apply(_logits, data.X), len(self.classes_)
        right = np.zeros(logits.shape, dtype=bool)
        right[data.inlier_indices, data.codes] = True
        right[data.auxiliary_indices, n_classes:] = True
        # Without reject classes there is no answer that would be right for an outlier.
        answered = right.any(1)
        self.temperature_ = self._calibrated(logits[answered], right[answered])
        self._set_offset(data, seed=0, new_rows=True)
        return self

    # -------------------------------------------------------------------------------------------- for the base class

    @property
    def _auxiliary_rows_train(self):
        """Return whether the network trains on auxiliary outliers."""
        return "auxiliary" in self._settings.kinds

    @property
    def n_reject_classes_(self):
        """Return the number of reject classes; see Attributes."""
        return self._settings.n_reject_classes

    def _resolve_settings(self, data):
        """Check parameters against each other and the data, and return the settings of the fit."""
        n_classes = len(self.classes_)
        n_reject_classes, score_type, outlier_weight = self._resolve_method(n_classes)
        self._check_network_settings()
        comparing = COMPARE_CLASSES.intersection(_POST_HOC)
        if n_classes == 1 and score_type in comparing:
            others = ", ".join(repr(name) for name in (*_SCORES, *_POST_HOC) if name not in comparing)
            raise ValueError(
                f"score_type={score_type!r} compares classes, but y has one. Give y two classes or more, or "
                f"choose another score ({others})."
            )
        outliers = self.outliers
        if isinstance(outliers, str) and outliers == "auto" and data.n_auxiliary and self.image_shape_ is None:
            # The rivals have the corpus of their papers alone: outlier exposure detects less with far outliers.
            outliers = _WITH_A_CORPUS_OF_VECTORS if n_reject_classes else "auxiliary"
        kinds = outlier_kinds(outliers, self.image_shape_, data.n_auxiliary, self.outlier_label)
        n_trained = data.n_inliers
        if self.early_stopping:
            n_trained -= n_held_out(n_trained, self.validation_fraction)
        n_outliers = round(self._outliers_a_row * min(self.batch_size, n_trained))
        if self.pseudo_labels == "kmeans" and n_outliers < n_reject_classes:
            raise ValueError(
                f"pseudo_labels='kmeans' needs as many outliers in a batch as there are reject classes: "
                f"{n_reject_classes} classes, {n_outliers} outliers. Raise batch_size or outlier_batch_ratio."
            )
        if self.pseudo_labels == "kmeans" and self._together:
            raise ValueError("pseudo_labels='kmeans' has centres of its own in each process; choose 'self'.")
        return RejectSettings(
            self.pseudo_labels,
            score_type,
            n_reject_classes,
            outlier_weight,
            self._resolve_class_weight(data.codes),
            tuple(kinds),
        )

    @property
    def _without_step_one(self) -> bool:
        """Whether step one is left out: a given classifier is trained already, and a single class needs no training."""
        if self.class_epochs == "auto":
            return self.classifier is not None or len(self.classes_) == 1
        return self.class_epochs == 0

    @property
    def _in_colour(self) -> bool:
        return self.image_shape_ is not None and self.image_shape_[0] > 1

    @property
    def _auto_lr(self):
        return 0.1 if self._in_colour and self.classifier is None else 0.01

    @property
    def _outliers_a_row(self) -> float:
        """The number of outliers in a batch for each row."""
        if self.outlier_batch_ratio == "auto":
            return 1.0 if self._in_colour else 5.0
        return self.outlier_batch_ratio

    def _resolve_method(self, n_classes: int) -> tuple[int, str, float]:
        """Return the number of reject classes, the score and lambda that "auto" stands for, or those that are given."""
        n_reject_classes, score_type, outlier_weight = self.n_reject_classes, self.score_type, self.outlier_weight
        with_margins = self.pseudo_labels == "energy"
        margins = tuple(self.energy_margins)
        if not with_margins and margins != (-23.0, -5.0):
            warn_user("energy_margins has an effect with pseudo_labels='energy' only.", UserWarning)
        if with_margins and not (len(margins) == 2 and -math.inf < margins[0] < margins[1] < math.inf):
            raise ValueError(f"energy_margins={margins} must be two numbers (m_in, m_out) with m_in < m_out.")
        if self.class_outputs == "all" and (self._without_step_one or self.pseudo_labels in _WITHOUT_REJECT_CLASSES):
            warn_user("class_outputs='all' has no effect without step one, or without reject classes.", UserWarning)
        if self.pseudo_labels not in _WITHOUT_REJECT_CLASSES:
            own_k, own_score, own_weight = 5 if n_classes < 100 else 10, "sum", 5.0
            # A single class has no accuracy to lose.
            if n_classes > 1:
                own_score, own_weight = "max_class", 1.0
                own_k = 1 if self.pseudo_labels == "self" else own_k
            return (
                own_k if n_reject_classes == "auto" else n_reject_classes,
                own_score if score_type == "auto" else score_type,
                own_weight if outlier_weight == "auto" else outlier_weight,
            )
        own_score, own_weight = _WITHOUT_REJECT_CLASSES[self.pseudo_labels]
        if self.pseudo_labels == "uniform" and n_classes == 1:
            raise ValueError(
                "pseudo_labels='uniform' spreads outliers over the classes, but y has one class. Give y two classes or "
                "more, or choose another of the pseudo_labels, such as 'energy'."
            )
        if score_type in _SCORES:
            raise ValueError(
                f"score_type={score_type!r} is of reject classes, and pseudo_labels={self.pseudo_labels!r} has none. "
                f"Leave score_type='auto', which is {own_score!r} here, or choose one of skood.scores."
            )
        if n_reject_classes != "auto":
            warn_user(
                f"n_reject_classes has no effect with pseudo_labels={self.pseudo_labels!r}, which trains without "
                f"reject classes.",
                UserWarning,
            )
        return (
            0,
            own_score if score_type == "auto" else score_type,
            own_weight if outlier_weight == "auto" else outlier_weight,
        )

    def _without_effect(self):
        """Return the parameters that have no effect, each with the reason."""
        reasons = super()._without_effect()
        if self.classifier is not None:
            reasons |= dict.fromkeys(("network", "hidden_sizes", "dropout"), "with a given classifier")
        return reasons

    def _resolve_class_weight(self, codes: np.ndarray) -> tuple[float, ...] | None:
        """Return the weight of each class, or None if all rows weigh alike."""
        if self.class_weight is None:
            return None
        classes = self.classes_.tolist()
        if len(classes) == 1:
            warn_user("class_weight has no effect with a single class.", UserWarning)
        if self.class_weight == "balanced":
            counts = np.bincount(codes, minlength=len(classes))
            return tuple(len(codes) / (len(classes) * counts))
        unknown = [label for label in self.class_weight if label not in classes]
        if unknown:
            raise ValueError(f"class_weight names {unknown[0]!r}, which is none of the classes in y: {self.classes_}.")
        weights = tuple(self.class_weight.get(label, 1.0) for label in classes)
        if not all(isinstance(weight, Real) and 0 < float(weight) < math.inf for weight in weights):
            raise ValueError(f"class_weight={self.class_weight} must map classes to numbers above 0.")
        return tuple(map(float, weights))

    def _fit_representation(self, data):
        """Fit the scaling, or take that of the given classifier, whose network knows rows only as scaled by it."""
        given = self._given_classifier()
        # It knows images only as padded by it, too.
        self._pads = getattr(given, "_pads", False)
        brought = hasattr(given, "scaler_")
        if self.scaling != "auto" and brought:
            raise ValueError("classifier brings its own scaling; leave scaling='auto'.")
        if brought:
            self.scaler_ = copy.deepcopy(given.scaler_)
        elif self.scaling == "auto":
            self.scaler_ = fitted_scaler("standard" if given is None else None, self._inlier_chunks(data))
        else:
            self.scaler_ = fitted_scaler(self.scaling, self._inlier_chunks(data))

    def _front_options(self):
        """Return the options of the front: the scaling, and whether images are padded."""
        return super()._front_options() | {"pads": self._pads}

    @property
    def _in_shape(self) -> tuple[int, ...]:
        """Return the shape of a row as the network takes it."""
        shape = super()._in_shape
        return (shape[0], max(shape[1:]), max(shape[1:])) if self._pads else shape

    def _given_classifier(self):
        """Return the module or the fitted classifier that ``classifier`` stands for, or None."""
        given = self.classifier
        given = given.estimator if isinstance(given, FrozenEstimator) else given
        if given is None or isinstance(given, nn.Module):
            return given
        if not isinstance(getattr(given, "module_", None), nn.Module):
            raise ValueError(
                f"classifier={type(given).__name__} holds no trained torch module. Pass a torch module, or a fitted "
                f"skorch or skood classifier; wrap it in sklearn.frozen.FrozenEstimator where it would be cloned, "
                f"as in a search."
            )
        classes = getattr(given, "classes_", None)
        uint8 = getattr(given, "_uint8_images", self._uint8_images)
        if uint8 != self._uint8_images:
            raise ValueError(f"classifier was fitted on {'uint8' if uint8 else 'float'} images; pass such here too.")
        check_alike(given, self, "classifier")
        if classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(f"classifier was fitted on the classes {classes}, but y holds {self.classes_}.")
        return given

    def _build_module(self, data):
        """Return a network with an output for each class and each reject class."""
        n_classes, given = len(self.classes_), self._given_classifier()
        n_outputs = n_classes + self.n_reject_classes_
        if given is not None:
            module = given if isinstance(given, nn.Module) else cropped(given.module_, given)
            n_given = n_classes + getattr(given, "n_reject_classes_", 0)
            module = widen_head(module, self._in_shape, n_given, n_classes, n_outputs, "classifier")
        else:
            options = {"hidden_sizes": self.hidden_sizes, "dropout": self.dropout}
            module = make_classifier(self.network, self._in_shape, n_outputs, **options)
        try:
            self._head = find_head(module, self._in_shape)
        except ValueError:
            if self.pseudo_labels == "kmeans" or "features" in getattr(
                METHODS.get(self._settings.score_type), "needs", ()
            ):
                raise
            # The network has no last linear layer, and neither the training nor the score needs features.
            self._head = None
        return module

    def _train(self, data, go_on=False):
        """Train, and keep what the k-means has learnt; if training fails, an earlier one stays."""
        try:
            super()._train(data, go_on)
            self._clusters = None if self._learning is None else self._learning.state_dict()
        finally:
            vars(self).pop("_learning", None)

    def _earlier_training(self):
        """Return the state at the end of the earlier training, with the k-means even where little else is kept."""
        return {"memory": self._clusters} | super()._earlier_training()

    def _phases(self, n_rows):
        """Return the two steps of the paper as phases: the classes, then outliers too."""
        epochs, class_epochs = self._n_epochs(n_rows), self.class_epochs
        if class_epochs == "auto":
            class_epochs = 0 if self._without_step_one else epochs
        self._learning = clusters = _Clusters(self.n_reject_classes_) if self.pseudo_labels == "kmeans" else None
        share = self._share_given
        reject = Step(partial(self._loss, clusters=clusters))
        return [
            Phase([Step(self._class_loss)], class_epochs, "classes"),
            Phase(
                [reject],
                epochs,
                "reject" if self.n_reject_classes_ else "outliers",
                self.lr_reject,
                auxiliary_ratio=share * self._outliers_a_row,
                memory=clusters,
            ),
        ]

    def _class_loss(self, module, rows, labels):
        """Return the loss of step one: the cross entropy of the classes."""
        logits = one_tensor(module(self._augmented(rows)))
        if self.class_outputs == "classes":
            # Reject classes are a target for no row here, and would be pushed so low that step two could raise them
            # only by long gradients, which undo what the classes have learnt.
            logits = logits[:, : len(self.classes_)]
        return functional.cross_entropy(logits, labels, self._class_weight(logits))

    def _class_weight(self, logits: Tensor) -> Tensor | None:
        """Return the weight of each class for these logits, or None; reject classes are the class of no row."""
        if self._settings.class_weight is None:
            return None
        n_reject_classes = logits.shape[1] - len(self.classes_)
        return logits.new_tensor(self._settings.class_weight + (1.0,) * n_reject_classes)

    def _loss(self, module, rows, labels, auxiliary=None, clusters=None):
        """Return the loss of step two, with outliers added to the batch."""
        n_outliers = max(1, round(self._outliers_a_row * len(rows)))
        outliers = self._outliers(rows, auxiliary, n_outliers)
        # Outliers are augmented like the rows; otherwise the network would recognise rows by the augmentation.
        both = self._augmented(torch.cat([rows, outliers]))
        features = None
        if clusters is None:
            logits = one_tensor(module(both))
        else:
            logits, features = tap(module, self._head, both)
        inside, outside = logits[: len(rows)], logits[len(rows) :]
        weight, class_weight = self._settings.outlier_weight, self._class_weight(logits)
        if self.pseudo_labels == "uniform":
            return outlier_exposure_loss(inside, labels, outside, weight, class_weight)
        if self.pseudo_labels == "energy":
            return energy_bounded_loss(inside, labels, outside, weight, self.energy_margins, class_weight)
        if clusters is not None:
            targets = clusters.labels(features[len(rows) :], len(self.classes_), learn=module.training)
        else:
            assign = self_labels if self.pseudo_labels == "self" else balanced_labels
            targets = assign(outside.detach(), len(self.classes_))
        return two_term_loss(inside, labels, outside, targets, weight, class_weight)

    @property
    def _share_given(self) -> float:
        """Return the share of the training outliers that are auxiliary rows, and not made of the rows."""
        return self._settings.kinds.count("auxiliary") / len(self._settings.kinds)

    def _outliers(self, rows: Tensor, auxiliary: Tensor | None, n_outliers: int) -> Tensor:
        """Return training outliers to go with these rows."""
        outliers = filled_up(rows, auxiliary, n_outliers, self._settings.kinds)
        return blend(outliers, rows, self.outlier_blend) if self.outlier_blend else outliers

    def _fit_score(self, data):
        """Count reject classes, warn of a collapse, and learn what the score needs."""
        n_classes, self.temperature_ = len(self.classes_), float(self.temperature)
        # The examples are represented already, as the network takes them.
        inliers, outliers = self._examples(data)
        apply = partial(self._apply, represent=as_it_is)
        logits = apply(_logits, outliers)
        answers = logits.argmax(1)
        rejected = answers[answers >= n_classes] - n_classes
        self.reject_class_counts_ = np.bincount(rejected, minlength=self.n_reject_classes_)
        self._warn_of_one_reject_class()
        logits = np.concatenate([apply(_logits, inliers), logits])
        if np.ptp(logits, axis=0).max() < 1e-2:
            warn_user(
                f"the network answers every row alike, inliers and outliers: training has collapsed. Lower lr (now "
                f"{self._training_options()['lr']:g}).",
                RuntimeWarning,
            )
        name = self._settings.score_type
        self.score_weights_ = self._search_weights(logits, len(inliers)) if name in _WEIGHTED else None
        # Of the names that both lists have, "entropy", the paper's score is meant, which learns nothing else.
        self._learn_post_hoc(name if name in _POST_HOC else None, data)

    def _search_weights(self, logits: np.ndarray, n_inliers: int) -> np.ndarray:
        """Return the weights of the scores "weighted" and "combined", by the logits of inliers and then outliers."""
        logits, n_classes = logits / self.temperature_, len(self.classes_)
        outlier = np.arange(len(logits)) >= n_inliers
        reject = softmax(logits, axis=1)[:, n_classes:]
        weights = greedy_weights(reject, outlier, np.ones(self.n_reject_classes_))
        components = score_components(torch.from_numpy(logits), n_classes, torch.from_numpy(weights))
        return np.concatenate([weights, greedy_weights(components.numpy(), outlier, np.eye(5)[0])])

    def _warn_of_one_reject_class(self) -> None:
        """Warn if the score is an entropy of the reject classes, and nearly all outliers are in one of them."""
        if self._settings.score_type not in _ENTROPIES:
            return
        largest, total = int(self.reject_class_counts_.max()), int(self.reject_class_counts_.sum())
        if largest > _COLLAPSED * total:
            warn_user(
                f"score_type={self._settings.score_type!r} takes outliers for inliers here: {largest} of {total} "
                f"training outliers are in one reject class (reject_class_counts_), and the entropy of one probability "
                f"near 1 is near 0, as an inlier's is. Choose score_type='sum', or pseudo_labels='balanced'.",
                RuntimeWarning,
            )

    def _examples(self, data) -> tuple[np.ndarray, np.ndarray]:
        """Return some in-distribution rows and training outliers, represented; drawn under the fit's seed."""
        X = data.X

        def some(indices, n):
            """Return n of the rows at these indices, represented; all if there are fewer."""
            chosen = indices[torch.randperm(len(indices), **drawing())[:n].numpy()]
            return to_tensor(X, np.sort(chosen), self._front, next(self.module_.parameters()).device)

        # At least 100 rows; no more than fit into a few chunks, nor than outliers were trained on, so that
        # this takes a small part of the time of the training.
        n_trained = round(len(self.history_) * data.n_inliers * self._outliers_a_row)
        n_examples = min(_EXAMPLES, max(100, min(8 * rows_a_chunk(X), n_trained)))
        inliers = some(data.all_inlier_indices(), n_examples)
        share, given = self._share_given, None
        if share:
            given = some(data.auxiliary_indices, max(1, round(share * n_examples)))
            n_examples = round(len(given) / share)
        return inliers.cpu().numpy(), self._outliers(inliers, given, n_examples).cpu().numpy()

    def _class_logits(self, module, rows):
        """Return the logits of the classes, without the reject classes, divided by the temperature."""
        return module(rows)[:, : len(self.classes_)] / self.temperature_

    def _logits_and_features(self, module, rows):
        """Return the logits of the classes and the features, from one pass."""
        logits, features = tap(module, self._head, rows)
        return logits[:, : len(self.classes_)] / self.temperature_, features

    def _class_weights(self):
        """Return the weights and biases that belong to the logits of the classes."""
        return class_weights(self.module_.get_submodule(self._head), len(self.classes_), self.temperature_)

    def _logits_and_score(self, module, rows):
        """Return the logits of the classes and the score of each row, higher = more normal."""
        if self._post_hoc is not None:
            return super()._logits_and_score(module, rows)
        logits = precise(module(rows))
        score = -self._ood_score(logits, self._settings.score_type)
        return logits[:, : len(self.classes_)] / self.temperature_, score

    def _ood_score(self, logits: Tensor, kind: str) -> Tensor:
        """Return the paper's score of a kind, higher = more anomalous, with the weights of the fit."""
        weights = self.score_weights_
        if weights is not None:
            weights = torch.as_tensor(weights, dtype=logits.dtype, device=logits.device)
        return reject_score(logits / self.temperature_, len(self.classes_), kind, weights)

    def _free_offset(self, data, seed):
        if set(self.history_[:, "phase"]) == {"classes"}:
            # Interrupted in step one: outliers have no boundary yet.
            return find_offset(self.training_scores_, contamination=0.1)
        return super()._free_offset(data, seed)

    def _has_boundary(self):
        by_energy = (self._settings.pseudo_labels, self._settings.score_type) == ("energy", "energy")
        return by_energy or self._settings.score_type in ("sum", "max_class")

    def _natural_offset(self):
        if self._settings.score_type == "energy":
            return -sum(self.energy_margins) / 2 / self.temperature_
        # A probability of 1/2: of all reject classes, or of the most probable class.
        return 0.0


def _logits(module: nn.Module, rows: Tensor) -> Tensor:
    """Return the logits of classes and reject classes."""
    return module(rows)
