"""Train a variational autoencoder whose encoder maps negative samples to a prior of their own.

"Negative Sampling in Variational Autoencoders" (anonymous; under review as a conference paper).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional

from .._sklearn import Interval, StrOptions
from ..estimator.base import OutlierDetector
from ..estimator.network import GOING_ON, N_JOBS, WATCHING
from ..estimator.rows import as_it_is, framed_like
from ..estimator.scaling import SCALERS, fitted_scaler, unscaled
from ..estimator.validation import check_hidden_sizes
from ..networks import MLP, ConvDecoder, ConvEncoder, make_network
from ..networks.randomness import drawing
from ..outliers import add_noise, synthesize
from ..training.optim import SCHEDULES
from ..training.phases import Phase, Step
from ..training.scoring import precise

# --------------------------------------------------------------------------------------------------------------------
# Divergence and likelihoods


def gaussian_kl(mean: Tensor, log_variance: Tensor, shift: float = 0.0) -> Tensor:
    """Return the divergence KL( N(mean, diag sigma^2) || N(shift 1, I) ) of each row, in nats.

    It is 1/2 sum_j [sigma_j^2 + (mean_j - shift)^2 - 1 - log sigma_j^2].

    Parameters
    ----------
    mean, log_variance : Tensor of shape (n_rows, latent_dim)
        Means and log-variances, log sigma^2, of the posteriors.
    shift : float, default=0.0
        s, the mean of the prior in every coordinate: 0 for the prior, the shift for the negative prior.

    Returns
    -------
    divergence : Tensor of shape (n_rows,)
    """
    return 0.5 * (log_variance.exp() + (mean - shift).square() - 1 - log_variance).sum(1)


def bernoulli_log_likelihood(rows: Tensor, logits: Tensor) -> Tensor:
    """Return x log p + (1 - x) log(1 - p) with p = sigmoid(logit), in nats.

    It is a likelihood for x = 0 and x = 1 only: for x between them it is not a density.

    Parameters
    ----------
    rows, logits : Tensor of the same shape
        The values x in [0, 1] and the logits.

    Returns
    -------
    log_likelihood : Tensor of that shape
    """
    # Written in terms of the logit it does not overflow: log(1 - p) = -softplus(logit).
    return rows * logits - functional.softplus(logits)


def gaussian_log_likelihood(rows: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the log-density of a Gaussian, -1/2 log(2 pi v) - (x - mean)^2 / (2 v), in nats.

    Parameters
    ----------
    rows, mean : Tensor of the same shape
        The values x and the means.
    log_variance : Tensor
        log v; its shape must broadcast to that of the rows.

    Returns
    -------
    log_likelihood : Tensor of that shape
    """
    return -0.5 * (math.log(2 * math.pi) + log_variance + (rows - mean).square() * torch.exp(-log_variance))


def quantized_gaussian_log_likelihood(
    rows: Tensor, mean: Tensor, log_variance: Tensor, bin_width: float = 1 / 255
) -> Tensor:
    """Return the logarithm of a Gaussian's mass in the bin around x, divided by the bin's width, in nats.

    It is log { [Phi((x + h/2 - mean) / sigma) - Phi((x - h/2 - mean) / sigma)] / h }.

    Parameters
    ----------
    rows, mean : Tensor of the same shape
        The values x and the means.
    log_variance : Tensor
        log sigma^2; its shape must broadcast to that of the rows.
    bin_width : float, default=1/255
        h, the distance of neighbouring grey levels: 1/255 for 256 levels in [0, 1].

    Returns
    -------
    log_likelihood : Tensor of that shape
    """
    scale = torch.exp(-0.5 * log_variance)
    # The bin is mirrored into the lower tail, where log Phi is precise. In the upper tail Phi rounds to 1, and the
    # logarithm of a difference of ones would be minus infinity.
    centre, half = -(rows - mean).abs() * scale, 0.5 * bin_width * scale
    upper = torch.special.log_ndtr(centre + half)
    # log(e^upper - e^lower) = upper + log(1 - e^(lower - upper)).
    difference = torch.special.log_ndtr(centre - half) - upper
    return upper + torch.log(-torch.expm1(difference)) - math.log(bin_width)


# --------------------------------------------------------------------------------------------------------------------
# Scores without the floor of the likelihood


def pixel_entropy(rows: Tensor) -> Tensor:
    """Return H(x) = -x log x - (1 - x) log(1 - x) of each value, in nats; 0 for x = 0 and x = 1.

    It is the cost of a value under a Bernoulli even with a perfect reconstruction: the largest
    `bernoulli_log_likelihood` of x is -H(x), at p = x.

    Parameters
    ----------
    rows : Tensor
        The values x in [0, 1].

    Returns
    -------
    entropy : Tensor of that shape
    """
    return _entropy_term(rows) + _entropy_term(1 - rows)


def _entropy_term(shares: Tensor) -> Tensor:
    """Return -x log x; its derivative at 0 is infinite, and given as 0."""
    return torch.special.entr(torch.where(shares == 0, 1.0, shares))


def deviance(elbo: Tensor, perfect: Tensor) -> Tensor:
    """Return ELBO(x) - max_m log p(x|m): the ELBO less the likelihood of a perfect reconstruction, in nats.

    For a Bernoulli the maximum is -H(x), summed over the pixels (`pixel_entropy`), and the deviance is

        dev(x) = ELBO(x) + H(x) = -E_q sum_i KL( Bern(x_i) || Bern(x^_i) ) - KL( q(z|x) || N(0, I) ) <= 0.

    H depends on the row: it is 0 for black-and-white images, which the ELBO therefore prefers, whatever their
    reconstruction. For a Gaussian of variance v the maximum is -1/2 log(2 pi v) for each feature, and for a quantised
    Gaussian log{ [2 Phi(h / (2 sigma)) - 1] / h }, with a fixed or a learned variance. Both are the same for all rows,
    so that ELBO and deviance rank rows alike. Minus twice dev(x), without the divergence, is the deviance of
    generalised linear models [1]_.

    Parameters
    ----------
    elbo : Tensor of shape (n_rows,)
    perfect : Tensor of shape (n_rows,)
        Log-likelihood of each row if its reconstruction were perfect.

    Returns
    -------
    deviance : Tensor of shape (n_rows,)

    References
    ----------
    .. [1] McCullagh and Nelder, "Generalized Linear Models", 1989.
    """
    return elbo - perfect


def lesser_score(scores: Tensor, means: Sequence[float], deviations: Sequence[float]) -> Tensor:
    """Return the least of several scores, each standardised: min_k (s_k(x) - m_k) / d_k, without unit.

    Parameters
    ----------
    scores : Tensor of shape (n_rows, n_scores)
        The scores s_k; higher = more normal.
    means, deviations : sequences of n_scores floats
        m_k and d_k, their means and standard deviations on in-distribution rows.

    Returns
    -------
    least : Tensor of shape (n_rows,)
    """
    return ((scores - scores.new_tensor(means)) / scores.new_tensor(deviations)).amin(1)


# --------------------------------------------------------------------------------------------------------------------
# The module

# Under Adam the logarithm of a learned variance changes this many times as fast as a weight. Otherwise the variance of
# well-predicted features would need most of the training to shrink.
_VARIANCE_RATE = 10.0


class Decoder(nn.Module):
    """Model p(x|z) by a network and the noise around its output.

    Parameters
    ----------
    network : torch.nn.Module
        Maps latent vectors (n, latent_dim) to rows.
    noise_model : {"bernoulli", "gaussian", "quantized_gaussian"}
        Distribution of a row around the network's output.
    variance : float or Tensor
        Variance of the Gaussian noise models. A float is fixed; a tensor holds the initial values of learned variances.
    squash : bool
        Whether a sigmoid keeps the means of a Gaussian in [0, 1], where those of a Bernoulli always are.
    """

    fixed_log_variance: Tensor

    def __init__(self, network: nn.Module, noise_model: str, variance: float | Tensor, squash: bool):
        super().__init__()
        self.network, self.noise_model = network, noise_model
        self.squash = squash or noise_model == "bernoulli"
        self.learned = isinstance(variance, Tensor)
        if isinstance(variance, Tensor):
            self.raw_log_variance = nn.Parameter(torch.log(variance) / _VARIANCE_RATE)
        else:
            self.register_buffer("fixed_log_variance", torch.tensor(math.log(variance)))

    @property
    def log_variance(self) -> Tensor:
        """Return log v of the noise; a learned one stays between -10 and 10."""
        if self.learned:
            return (_VARIANCE_RATE * self.raw_log_variance).clamp(-10, 10)
        return self.fixed_log_variance

    def forward(self, latent: Tensor) -> Tensor:
        """Return the network's output: logits of a Bernoulli, or means of a Gaussian before the sigmoid, if any."""
        output = self.network(latent)
        # Likelihoods are sums over all pixels, for which half precision is too coarse.
        return output if output.dtype == torch.float64 else output.float()

    def mean(self, output: Tensor) -> Tensor:
        """Return the expected rows for the network's output."""
        return torch.sigmoid(output) if self.squash else output

    def log_likelihood(self, rows: Tensor, output: Tensor) -> Tensor:
        """Return log p(x|z) of each feature or pixel, of the rows' shape, for the network's output for z.

        A Bernoulli is not defined outside [0, 1]. Values there get the log-likelihood of the nearest value in [0, 1],
        less half the squared distance to it, as under a Gaussian.
        """
        if self.noise_model == "bernoulli":
            inside = rows.clamp(0, 1)
            return bernoulli_log_likelihood(inside, output) - 0.5 * (rows - inside).square()
        return self._density(rows, self.mean(output), self.log_variance)

    def perfect_log_likelihood(self, rows: Tensor) -> Tensor:
        """Return log p(x|z) of each feature or pixel, of the rows' shape, for a perfect output of the network.

        Under a Bernoulli, values outside [0, 1] get that of the nearest value in [0, 1]: the distance to it remains in
        the `deviance`.
        """
        if self.noise_model == "bernoulli":
            return -pixel_entropy(rows.clamp(0, 1))
        return self._density(rows, rows, self.log_variance)

    def _density(self, rows: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return the log-density of one of the Gaussian noise models."""
        density = gaussian_log_likelihood if self.noise_model == "gaussian" else quantized_gaussian_log_likelihood
        return density(rows, mean, log_variance)


class VAE(nn.Module):
    """Hold an encoder q(z|x) and a decoder p(x|z).

    Parameters
    ----------
    encoder : torch.nn.Module
        Maps rows to (n, 2 latent_dim): means, then log-variances.
    decoder : Decoder
        The decoder.
    log_variance_bounds : tuple of two floats
        Smallest and largest log-variance of the encoder, which is clipped to them.
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder, log_variance_bounds: tuple[float, float]):
        super().__init__()
        self.encoder, self.decoder, self.log_variance_bounds = encoder, decoder, log_variance_bounds

    def encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x), each of shape (n, latent_dim)."""
        output = self.encoder(rows)
        mean, log_variance = (output if output.dtype == torch.float64 else output.float()).chunk(2, 1)
        return mean, log_variance.clamp(*self.log_variance_bounds)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the rows that the decoder expects at the posterior means."""
        return self.decoder.mean(self.decoder(self.encode(rows)[0]))


@contextlib.contextmanager
def running_statistics(module: nn.Module) -> Iterator[None]:
    """Use, and do not update, the running statistics of batch normalisation within the block, as in scoring."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


# --------------------------------------------------------------------------------------------------------------------

_UNIT_INTERVAL = ("bernoulli", "quantized_gaussian")
_SCORES = ("deviance", "elbo", "kl", "reconstruction", "robust")
_NEGATIVES = ("auxiliary", "generated", "noise", "patches", "permuted", "uniform")
# The paper's standard deviation of noise.
_NOISE = 0.25
# Largest size of the memory of generated rows: eight batches of 100 images of 3 x 224 x 224.
_REPLAYED_BYTES = 2**28
# Rounding in an interpolation may bring a pixel this far out of [0, 1].
_ROUNDING = 1e-6
# Scores whose deviation is at most this share of the largest one are all the same.
_ALIKE = 1e-9
# Most epochs for images. With a few hundred small images, 2000 batches would be more and take twice the time.
_MOST_EPOCHS = 150
# Most training rows used to standardise the scores that "robust" compares.
_STANDARD_ROWS = 5000
# Chosen with MNIST as the unseen set: with 1, as in the paper, adversaries cost more likelihood and detect worse.
_GENERATED_WEIGHT = 0.3
_VECTOR_LATENT, _VECTOR_WEIGHT, _VECTOR_VARIANCE = 10, 0.1, "learned"


@dataclass(frozen=True)
class VAESettings:
    """Settings of a fit, under the names of the parameters; `set_params` after the fit does not change them."""

    negatives: tuple[str | Callable, ...]
    latent_dim: int
    shift: float
    negative_weight: float
    score_type: str
    noise_model: str
    squashed: bool


class NegSampleVAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierDetector):
    """Detect outliers by a variational autoencoder whose encoder maps negative samples to a prior of their own.

    Use it on images with neither classes nor a corpus, or with a corpus that resembles the outliers to come; or if you
    also need a latent space. On vectors, try nearest neighbours first: they do better. How it fares:
    :doc:`/methods/negative_sampling_vae`.

    The encoder gives a row x a posterior q(z|x) = N(mu(x), diag(sigma^2(x))) over d latent coordinates, the decoder a
    likelihood p(x|z). Such a model alone often finds images of another kind *more* likely than its training data. Here
    a second prior, N(s 1, I), lies far from the first, and the encoder learns to map negative samples x', which are not
    data, to it:

        L = -ELBO(x) + w KL( q(z|x') || N(s 1, I) ),    ELBO(x) = E_q log p(x|z) - KL( q(z|x) || N(0, I) ).

    Negatives are not reconstructed. On each batch the encoder is updated on L; then z is drawn anew and the decoder is
    updated on the likelihood, by an optimiser of its own. The second prior is used only in training; the score is the
    ELBO or a part of it (``score_type``).

    Labels: rows with ``y == outlier_label`` are the negatives; classes are ignored. Without such rows, the negatives of
    vectors are the rows with a little noise. Images then have no negatives: the score "robust", which does not prefer
    black and white, cures the same failure and varies less between runs. ``negatives="generated"`` uses samples of the
    decoder, which in its step learns to map them back to the first prior. As published, this adversarial training is
    unstable; a smaller ``negative_weight``, ``weight_average`` and ``n_replayed`` stabilise it here.

    Parameters
    ----------
    negatives : {"auto", "auxiliary", "generated", "noise", "patches", "permuted", "uniform"}, callable, list of \
            these or None, default="auto"
        Where the negative samples come from, one for each row of a batch. Several sources, such as
        ``["auxiliary", "noise"]``, give equal shares of each batch; "auto" and None stand alone.

        - "auxiliary": the rows with ``y == outlier_label``;
        - "generated": samples of the decoder, its adversary;
        - "noise": rows with Gaussian noise added, in scaled features, of standard deviation 0.25, as in the paper; for
          another one pass ``functools.partial(skood.outliers.add_noise, low=0.5, high=0.5)``. For images neither it nor
          "uniform" helps;
        - "uniform": points uniform over the batch's bounding box and around it; for images, noise in the range of each
          channel;
        - "permuted": rows whose features come each from another row of the batch;
        - "patches": images whose patches changed places;
        - a function ``(rows, n) -> negatives`` of tensors, as in `skood.outliers`. It gets scaled rows of type float32
          on the training device;
        - None: no negatives, a plain variational autoencoder;
        - "auto": "auxiliary" if y marks such rows, else "noise" for vectors and None for images.

    negative_weight : float or "auto", default="auto"
        w. "auto" is 0.1 for vectors and 1, as in the paper, for images, but 0.3 for generated negatives of images,
        which with 1 lower the likelihood more and detect worse.

    kl_weight : float, default=1.0
        Weight of KL( q(z|x) || N(0, I) ) in training, as in Higgins et al., "beta-VAE" (ICLR 2017). 1 trains on the
        ELBO, as the paper does. Scores use the ELBO itself, whatever the weight.

    latent_dim : int or "auto", default="auto"
        d. "auto" is 100 for colour images, else 10, as in the paper.

    shift : float or "auto", default="auto"
        s. "auto" is 25 for colour images, else 8, as in the paper; if d is smaller than the paper's, it is larger, so
        that the priors stay as far apart. Draws from a prior lie about sqrt(d) from its mean, and hardly ever farther
        than sqrt(d) + 2. Shifts below 2 + 4 / sqrt(d), with which the priors would overlap, are refused. The direction
        is fixed, along the vector of ones, as in the paper: the first prior is the same in all directions, and the
        paper found the distance to matter more than the direction or the sparsity of the shift.

    noise_model : {"auto", "bernoulli", "gaussian", "quantized_gaussian"}, default="auto"
        The likelihood p(x|z) of each feature or pixel. "quantized_gaussian" is the mass of a Gaussian on the bin of one
        of 256 levels, divided by the bin's width. It and "bernoulli" are for values in [0, 1]; `fit` refuses
        in-distribution rows with other values. Rows to score may have other values: under "bernoulli" such a value
        costs as much as the nearest value in [0, 1], plus half the squared distance to it. "auto" is "bernoulli" for
        images in [0, 1], uint8 images included, unless a ``variance`` is given; else "gaussian".

    variance : float, "learned", "per-feature" or "auto", default="auto"
        Variance of the Gaussian noise models. A number is fixed; "learned" is one learned variance for all features or
        pixels; "per-feature" is a learned variance for each. "auto" is 1 for images, which reproduces the paper's
        figures, and "learned" for vectors. With "bernoulli", which has no variance, `fit` allows only "auto".

    score_type : {"auto", "deviance", "elbo", "kl", "reconstruction", "robust"}, default="auto"
        The score; see Notes. "auto" is "robust" for images and "elbo" for vectors. The paper scores by "kl" with
        negatives, else by "elbo".

    n_posterior_samples : int or None, default=None
        Number of draws of z over which the likelihood in a score is averaged. The noise is drawn once, in `fit`, and is
        the same for all rows, so that scores are reproducible. None uses the mean of the posterior instead of draws.

    log_variance_bounds : tuple of two floats, default=(-20.0, 10.0)
        The encoder's log sigma^2 are clipped to these bounds. Otherwise they explode for rows far from the training
        data.

    scaling : {"auto", "standard", "minmax"} or None, default="auto"
        Scaling of each feature, or of each channel of images, fitted on the in-distribution rows. "auto" standardises,
        except images in [0, 1] and rows for "bernoulli" or "quantized_gaussian", which stay as they are.

    network : {"auto", "mlp", "conv", "dcgan"} or pair (encoder, decoder), default="auto"
        "mlp" for vectors; for images "conv", with 5 x 5 kernels and a hidden layer of 256 units, or "dcgan", with 4 x 4
        kernels and batch normalisation. Both halve the sides until they have at most 7 pixels, with 32, 64, 128, 128,
        ... filters. "auto" is "mlp" for vectors, "conv" for images of one channel, and "dcgan" for other images. Batch
        normalisation sees rows and negatives in one batch: if they were normalised separately, the network would tell
        them apart by that. In a pair, each is one of these names, a torch module (a copy of it is trained), or a class
        or factory. The encoder is called with ``(n_features, 2 * d)`` or ``((C, H, W), 2 * d)`` and returns means, then
        log-variances. The decoder is called with ``(d, n_features)`` or ``(d, (C, H, W))`` and returns rows (for
        "bernoulli" and for images in [0, 1], before a sigmoid).

    hidden_sizes : sequence of int, default=(128, 128)
        Width of each hidden layer of "mlp"; the decoder has them in reverse order.

    max_epochs : int or "auto", default="auto"
        Passes over the in-distribution rows. "auto" is the number that gives at least 2000 batches, but for images at
        most 150.

    batch_size : int, default=100
        In-distribution rows in a batch.

    lr : float, default=0.001
        Learning rate of both optimisers.

    optimizer : {"adam", "adamw", "rmsprop", "sgd", "nesterov"} or callable, default="adam"
        An optimiser by name ("sgd" and "nesterov" have momentum 0.9), or a callable
        ``(parameters, lr=...) -> Optimizer``, which is called for the encoder and for the decoder.

    max_grad_norm : float or None, default=None
        Gradients are clipped to this norm; None does not clip.

    weight_average : float in [0, 1) or None, default=0.998
        Decay of the moving average of the weights, with which the fitted model scores. None keeps the last weights.
        Callbacks always see the last weights.

    n_replayed : int, default=100
        For generated negatives: number of earlier batches in the replay memory, on the device, which keeps half of the
        samples of each. Half of the negatives of a batch come from one of them. The memory holds at most 256 MiB, and
        so fewer batches of large images: 8 batches of 100 images of 3 x 224 x 224. 0 uses only the newest samples, as
        the paper does.

    schedule : {"constant", "cosine", "one-cycle", "steps"} or callable, default="constant"
        How the learning rate changes during training. A callable maps the share of training done, in [0, 1], to a
        factor on ``lr``.

    early_stopping : bool, default=False
        Whether to hold out some in-distribution rows, compute their loss after each epoch (``valid_loss`` in
        `history_`), stop when it no longer falls, and keep the weights with the lowest loss. With ``weight_average``
        these are the averaged weights. The held-out rows are not used for scaling and training. After the training, the
        score and the threshold are fitted on all rows. The same share of the auxiliary outliers is held out, too. The
        loss is computed in evaluation mode, with the same random numbers in each epoch. Measured: :doc:`/watching`.

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
        by the lowest score. "natural" is minus the divergence of a posterior of unit variance halfway between the
        priors, d s^2 / 8; it needs negatives and the score "kl". A float is the share of the in-distribution training
        rows below the threshold. Training rows score higher than new rows, so that a float calls several times its
        share of new rows outliers, most of all with fewer rows than features. 0 calls no training row an outlier. A
        float needs no further fits: use one where only scores matter, as in a search.
        ``set_threshold(target_fpr=0.05, X=held_out)`` sets the threshold afterwards, on held-out rows. Measured rates:
        :doc:`/choosing`. A guarantee: `skood.thresholds.ConformalDetector`.

    image_shape : tuple (C, H, W) or None, default=None
        Shape of one image, if X holds flattened pixels; one entry may be -1, and is then computed. Not needed for
        vectors, nor for images of shape (n, C, H, W).

    outlier_label : number, str, bool, or list of these, default=-1
        Value of y that marks auxiliary outliers, or a list of such values. These rows are left out of training, unless
        they are the negatives.

    device : str or torch.device, default="auto"
        Where to train: "auto" is CUDA, else MPS, else the CPU; "distributed" shares the training among the processes
        that ``torchrun`` started, see `skood.training.distributed`.

    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of training: "auto" is bfloat16 autocast on CUDA and float32 elsewhere. Likelihoods and divergences
        are float32 even then. Networks always score in float32.

    callbacks : list of skorch callbacks or None, default=None
        Copied for each fit; the copies that ran are in `callbacks_`. Monitor ``train_loss``, or ``valid_loss`` with
        ``early_stopping=True``. LRScheduler is refused, because it knows only one of the two optimisers: use
        ``schedule``. With ``weight_average``, callbacks that load the best weights at the end are refused, too.
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
    negatives_ : str, callable, list of these or None
        The source of the negatives; a list if there are several.

    negative_weight_ : float
        w, never "auto".

    latent_dim_ : int
        d, never "auto".

    shift_ : float
        s, never "auto".

    noise_model_ : str
        The likelihood in use, never "auto".

    score_type_ : str
        The score in use, never "auto".

    offset_ : float
        The threshold: ``decision_function(X) = score_samples(X) - offset_``. `set_threshold` changes it.

    training_scores_ : ndarray of float64 of shape (n_in_distribution,)
        Ascending scores of the in-distribution training rows.

    net_ : skorch.NeuralNet
        The trained net, without its training state.

    module_ : torch.nn.Module
        The module of ``net_``, with ``encoder`` and ``decoder``.

    history_ : list of dict
        One entry for each epoch, with ``train_loss``, the sum of the two updates' losses in nats, and ``dur``
        (seconds).

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
    DUMDetector : Detects outliers among vectors and embeddings.
    RejectClassDetector : Learns from classes and from auxiliary outliers.
    FitOnInliers : Keeps auxiliary outliers out of a scaler in a Pipeline.

    Notes
    -----
    `score_samples` returns the score of each row of scaled features; higher = more normal. The unit is nats, except for
    "robust".

    With the posterior q(z|x) and its mean mu(x), ``score_type`` is

    - "kl": -KL(q(z|x) || N(0, I)) = -1/2 sum_j [sigma_j^2 + mu_j^2 - 1 - log sigma_j^2];
    - "reconstruction": log p(x | mu(x)), or its mean over draws of z with ``n_posterior_samples``;
    - "elbo": the sum of both;
    - "deviance": the ELBO less the log-likelihood of a perfect reconstruction. For "bernoulli" that is the ELBO plus
      the pixel entropy, -sum_i [x_i log x_i + (1 - x_i) log(1 - x_i)], without which the ELBO prefers black-and-white
      images. For the other noise models it is the ELBO plus a constant;
    - "robust": the lesser of ELBO and deviance, each standardised by its mean and standard deviation on the training
      rows (5000 of them, if there are more). It has no unit. For the Gaussian noise models it ranks rows as the ELBO
      does.

    References
    ----------
    .. [1] "Negative Sampling in Variational Autoencoders", anonymous, under review as a conference paper.
    .. [2] Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial Training", CVPR
       2017: the memory of generated samples.

    Examples
    --------
    >>> import numpy as np
    >>> from skood import NegSampleVAE
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 1)) @ [[1.0, -1.0, 2.0]] + 0.1 * rng.normal(size=(200, 3))
    >>> detector = NegSampleVAE(latent_dim=2, max_epochs=50, random_state=0).fit(X)
    >>> detector.predict([[1.0, -1.0, 2.0], [1.0, 1.0, -2.0]])
    array([ 1, -1])
    >>> detector.transform(X).shape
    (200, 2)
    """

    _parameter_constraints: dict = {
        **OutlierDetector._parameter_constraints,
        **WATCHING,
        **GOING_ON,
        "negatives": [StrOptions({"auto", *_NEGATIVES}), callable, list, tuple, None],
        "negative_weight": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "kl_weight": [Interval(Real, 0, None, closed="neither")],
        "latent_dim": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "shift": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "noise_model": [StrOptions({"auto", "bernoulli", "gaussian", "quantized_gaussian"})],
        "variance": [Interval(Real, 1e-10, 1e10, closed="both"), StrOptions({"auto", "learned", "per-feature"})],
        "score_type": [StrOptions({"auto", *_SCORES})],
        "n_posterior_samples": [Interval(Integral, 1, None, closed="left"), None],
        "log_variance_bounds": [tuple, list],
        "scaling": [StrOptions({"auto", *SCALERS}), None],
        "network": [StrOptions({"auto", "mlp", "conv", "dcgan"}), tuple, list],
        "hidden_sizes": [tuple, list],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "weight_average": [Interval(Real, 0, 1, closed="left"), None],
        "n_replayed": [Interval(Integral, 0, None, closed="left")],
        "schedule": [StrOptions(set(SCHEDULES)), callable],
        **N_JOBS,
    }
    # Displaced rows resemble the noisy rows that are negatives by default and score low: a lower quantile would call
    # hardly anything an outlier.
    _displaced_quantile = 0.2
    _fixed_params = (
        *OutlierDetector._fixed_params,
        "negatives",
        "latent_dim",
        "shift",
        "negative_weight",
        "score_type",
        "noise_model",
        "variance",
        "log_variance_bounds",
    )

    def __init__(
        self,
        negatives="auto",
        *,
        negative_weight="auto",
        kl_weight=1.0,
        latent_dim="auto",
        shift="auto",
        noise_model="auto",
        variance="auto",
        score_type="auto",
        n_posterior_samples=None,
        log_variance_bounds=(-20.0, 10.0),
        scaling="auto",
        network="auto",
        hidden_sizes=(128, 128),
        max_epochs="auto",
        batch_size=100,
        lr=0.001,
        optimizer="adam",
        max_grad_norm=None,
        weight_average=0.998,
        n_replayed=100,
        schedule="constant",
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
        self.negatives = negatives
        self.negative_weight = negative_weight
        self.kl_weight = kl_weight
        self.latent_dim = latent_dim
        self.shift = shift
        self.noise_model = noise_model
        self.variance = variance
        self.score_type = score_type
        self.n_posterior_samples = n_posterior_samples
        self.log_variance_bounds = log_variance_bounds
        self.scaling = scaling
        self.network = network
        self.hidden_sizes = hidden_sizes
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.weight_average = weight_average
        self.n_replayed = n_replayed
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
    def from_paper(cls, images="grey", **params):
        """Return a detector with the paper's settings.

        They are generated negatives, the paper's latent dimension and shift, weight 1, 100 epochs, batches of 50 and
        learning rate 1e-4, without what stabilises adversarial training here: there is no replay memory, no average of
        weights, and log-variances have no bounds but those of float32. The Gaussian variance stays 1, the default for
        images (the paper does not name it; 1 reproduces its figures). The score is "kl", or "elbo" with
        ``negatives=None``. Rows marked in y are negatives only with ``negatives="auxiliary"``.

        - "grey", for 28 x 28 images: 10 latent dimensions, shift 8, RMSProp. The paper takes its encoder from another
          paper and does not describe its decoder; here the encoder has two 5 x 5 convolutions and a hidden layer, and
          the decoder mirrors it.
        - "colour", for 32 x 32 images: 100 latent dimensions, shift 25, Adam, 4 x 4 kernels with batch normalisation
          and 32, 64 and 128 filters.

        Parameters
        ----------
        images : {"grey", "colour"}, default="grey"
            Kind of images.
        **params
            Other parameters, or other values of those above, such as ``negatives`` and ``noise_model``.

        Returns
        -------
        detector : NegSampleVAE
            Not fitted.

        Raises
        ------
        ValueError
            If ``images`` is neither "grey" nor "colour".
        """
        shared = {"negatives": "generated", "negative_weight": 1.0, "max_epochs": 100, "batch_size": 50, "lr": 1e-4}
        shared["score_type"] = "elbo" if params.get("negatives", "generated") is None else "kl"
        # The largest number of float32 is about e^88.
        shared |= {"weight_average": None, "n_replayed": 0, "log_variance_bounds": (-80.0, 80.0)}
        papers = {
            "grey": {"latent_dim": 10, "shift": 8.0, "network": "conv", "optimizer": "rmsprop"},
            "colour": {"latent_dim": 100, "shift": 25.0, "network": "dcgan", "optimizer": "adam"},
        }
        if images not in papers:
            raise ValueError(f"images={images!r} is none of the paper's: {', '.join(papers)}.")
        settings = shared | papers[images]
        if params.get("negatives", "generated") is None:
            settings = {name: value for name, value in settings.items() if name not in ("negative_weight", "shift")}
        return cls._with_settings(settings, params)

    # ------------------------------------------------------------------------------------------------------- public

    def score_components(self, X):
        """Return a table of all scores that ``score_type`` can choose; higher = more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        scores : DataFrame of shape (n_samples, 5)
            "elbo", "kl", "reconstruction", "deviance" and "robust", see Notes; with the index of X if X is a DataFrame.
        """
        import pandas as pd

        check_is_fitted(self)
        components = torch.from_numpy(self._apply(self._components, self._check_rows(X, reset=False)))
        reconstruction, divergence, perfect = components.unbind(1)
        elbo = reconstruction - divergence
        both = torch.stack([elbo, deviance(elbo, perfect)], 1)
        scores = {"elbo": elbo, "kl": -divergence, "reconstruction": reconstruction, "deviance": both[:, 1]}
        scores["robust"] = lesser_score(both, *self._standard)
        return pd.DataFrame(scores, index=X.index if isinstance(X, pd.DataFrame) else None)

    def nats_per_dim(self, X):
        """Return -ELBO / n_features for each row, which the paper prints as "bits per dimension".

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        cost : ndarray of float64 of shape (n_samples,)
            In nats; lower = more likely. It is not a code length with "bernoulli", which is not a density for pixels
            between 0 and 1.
        """
        return -self.score_components(X)["elbo"].to_numpy() / self.n_features_in_

    def bits_per_dim(self, X):
        """Return `nats_per_dim` in bits: divided by log 2.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        cost : ndarray of float64 of shape (n_samples,)
            In bits; lower = more likely.
        """
        return self.nats_per_dim(X) / math.log(2)

    def transform(self, X):
        """Return the posterior mean of each row: its place in the latent space.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        latent : ndarray of float64 of shape (n_samples, latent_dim_)
        """
        check_is_fitted(self)
        return self._apply(_posterior_mean, self._check_rows(X, reset=False))

    def reconstruct(self, X):
        """Return each row's reconstruction: the decoder's mean at the mean of its posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the detector was fitted on.

        Returns
        -------
        rows : ndarray of the shape of X, or DataFrame
            In the units of X; uint8 if X is, else float64. If X is a DataFrame, a DataFrame with its columns and index.
        """
        check_is_fitted(self)
        given = self._check_rows(X, reset=False)
        return self._as_given(self._apply(_reconstruction, given), given.shape[1:], X)

    def sample(self, n_samples=1, random_state=None):
        """Generate rows: return the decoder's means at draws from the first prior.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. None uses the detector's ``random_state``.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_features) or (n_samples, C, H, W)
            With the shape and the units that X had in `fit`.

        Raises
        ------
        ValueError
            If ``n_samples`` is not a positive integer.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be a positive integer.")
        rng = check_random_state(self.random_state if random_state is None else random_state)
        latent = rng.normal(size=(n_samples, self.latent_dim_))
        return self._as_given(self._apply(_generated, latent, represent=as_it_is), self._given_shape)

    # ------------------------------------------------------------------------------------------- for the base class

    @property
    def _auxiliary_rows_train(self):
        """Return whether the network trains on auxiliary outliers."""
        return "auxiliary" in self._settings.negatives

    @property
    def _n_features_out(self):
        """Return the number of columns of `transform`, from which scikit-learn makes `get_feature_names_out`."""
        return self.latent_dim_

    @property
    def negatives_(self):
        """Return the source of negatives; see Attributes."""
        sources = self._settings.negatives
        return list(sources) if len(sources) > 1 else sources[0] if sources else None

    @property
    def latent_dim_(self):
        """Return the number of latent dimensions; see Attributes."""
        return self._settings.latent_dim

    @property
    def shift_(self):
        """Return the distance of the negative prior; see Attributes."""
        return self._settings.shift

    @property
    def negative_weight_(self):
        """Return the weight of the negatives; see Attributes."""
        return self._settings.negative_weight

    @property
    def score_type_(self):
        """Return the score in use; see Attributes."""
        return self._settings.score_type

    @property
    def noise_model_(self):
        """Return the distribution p(x|z); see Attributes."""
        return self._settings.noise_model

    def _resolve_settings(self, data):
        """Check parameters against each other and the data, and return the settings of the fit."""
        check_hidden_sizes(self.hidden_sizes)
        bounds = self.log_variance_bounds
        vectors, negatives = self.image_shape_ is None, self._resolve_negatives(data.n_auxiliary)
        colour = not vectors and self.image_shape_[0] > 1
        latent_dim = self.latent_dim
        if latent_dim == "auto":
            latent_dim = 100 if colour else _VECTOR_LATENT if vectors else 10
        shift = self._resolve_shift(latent_dim, colour, negatives)
        if len(bounds) != 2 or not all(isinstance(bound, Real) for bound in bounds) or not bounds[0] < bounds[1]:
            raise ValueError(f"log_variance_bounds={bounds!r}: pass two numbers (low, high) with low < high.")
        weight, score_type = self.negative_weight, self.score_type
        if weight == "auto":
            weight = _VECTOR_WEIGHT if vectors else _GENERATED_WEIGHT if "generated" in negatives else 1.0
        if score_type == "auto":
            score_type = "elbo" if vectors else "robust"
        noise_model, squashed = self._resolve_noise_model(data)
        return VAESettings(negatives, latent_dim, shift, weight, score_type, noise_model, squashed)

    def _resolve_shift(self, latent_dim, colour, negatives):
        """Return the distance of the negative prior, in every coordinate."""
        shift = self.shift
        if shift == "auto":
            # With fewer dimensions than in the paper, a larger shift keeps the distance of the priors, shift sqrt(d).
            shift, dimensions = (25.0, 100) if colour else (8.0, 10)
            shift *= max(1.0, dimensions / latent_dim) ** 0.5
        # Samples of a standard normal lie sqrt(d) from its mean, give or take 2. Spheres of radius sqrt(d) + 2 around
        # both priors do not overlap if the distance, shift sqrt(d), is at least twice the radius.
        least = 2 + 4 / latent_dim**0.5
        if negatives and shift < least:
            raise ValueError(
                f"shift={shift:g} lets the prior and the negative prior overlap: with latent_dim={latent_dim} set it "
                f"to at least {least:.3g}, or leave shift='auto'."
            )
        return shift

    def _resolve_negatives(self, n_auxiliary):
        """Return a tuple of the sources of negatives, or raise a ValueError if these rows do not allow them."""
        if self.negatives is None:
            return ()
        if isinstance(self.negatives, str) and self.negatives == "auto":
            return ("auxiliary",) if n_auxiliary else ("noise",) if self.image_shape_ is None else ()
        sources = tuple(self.negatives) if isinstance(self.negatives, list | tuple) else (self.negatives,)
        for source in sources:
            if not callable(source) and source not in _NEGATIVES:
                raise ValueError(
                    f"negatives={self.negatives!r} holds {source!r}, which is not a source of negatives; a list may "
                    f"hold {', '.join(map(repr, _NEGATIVES))} and functions (rows, n) -> negatives."
                )
        if not sources:
            raise ValueError("negatives is an empty list: name at least one source, or set negatives=None.")
        if "auxiliary" in sources and not n_auxiliary:
            raise ValueError(
                f"negatives='auxiliary' needs auxiliary outliers, but y marks none: mark rows of y with "
                f"outlier_label={self.outlier_label!r}, or leave negatives='auto', which does without."
            )
        if "patches" in sources and self.image_shape_ is None:
            raise ValueError(
                "negatives='patches' is for images, but X holds vectors: set negatives='permuted', which is "
                "similar, or pass images, or image_shape=(C, H, W)."
            )
        return sources

    def _resolve_noise_model(self, data):
        """Return the name of the distribution p(x|z), and whether a sigmoid keeps the decoder's means in [0, 1]."""
        unit = self.noise_model in _UNIT_INTERVAL
        if self.noise_model == "bernoulli" and self.variance != "auto":
            raise ValueError(
                f"variance={self.variance!r} is for Gaussian noise, but noise_model='bernoulli' has no variance: leave "
                f"variance='auto', or set noise_model='gaussian'."
            )
        if unit and self.scaling not in ("auto", None):
            raise ValueError(
                f"scaling={self.scaling!r} does not go with noise_model={self.noise_model!r}, which takes values in "
                f"[0, 1] unscaled: leave scaling='auto', or set noise_model='gaussian'."
            )
        low, high = self._value_range(data)
        inside = low >= -_ROUNDING and high <= 1 + _ROUNDING
        # Vectors may lie in [0, 1] by chance, without being pixels.
        image_like = self.image_shape_ is not None and inside and self.scaling in ("auto", None)
        if self.noise_model != "auto":
            return self.noise_model, unit or image_like
        return ("bernoulli" if image_like and self.variance == "auto" else "gaussian"), image_like

    def _value_range(self, data):
        """Return the least and the largest value of the in-distribution rows, with uint8 pixels scaled to [0, 1]."""
        ranges = [(float(chunk.min()), float(chunk.max())) for chunk in self._inlier_chunks(data)]
        lows, highs = zip(*ranges, strict=True)
        return min(lows), max(highs)

    def _check_settings(self, data):
        """Refuse values outside [0, 1] if the means of the decoder lie there."""
        if not self._settings.squashed:
            return
        low, high = self._value_range(data)
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            name, asked = self._settings.noise_model, self.noise_model
            about = f"noise_model={asked!r}" if asked == name else f"the network was built for {name!r} and"
            raise ValueError(
                f"{about} takes values in [0, 1], but the in-distribution rows hold values from {low:.8g} to "
                f"{high:.8g}: scale X to [0, 1], or fit anew with noise_model='gaussian'."
            )

    def _without_effect(self):
        """Return the parameters that have no effect, each with the reason."""
        reasons, negatives = super()._without_effect(), self._settings.negatives
        of_names = not isinstance(self.network, str) and any(isinstance(part, str) for part in self.network)
        if of_names and self.image_shape_ is None:
            reasons.pop("hidden_sizes", None)
        if not negatives:
            reasons |= dict.fromkeys(("shift", "negative_weight"), "without negatives")
        # With 0, nothing is replayed: this is so without generated negatives.
        if "generated" not in negatives and self.n_replayed != 0:
            reasons["n_replayed"] = "without generated negatives"
        if self._settings.score_type == "kl":
            reasons["n_posterior_samples"] = "on the score 'kl'"
        return reasons

    def _fit_representation(self, data):
        """Fit the scaling on the in-distribution rows."""
        scaling = self.scaling
        if scaling == "auto":
            scaling = None if self._settings.squashed else "standard"
        self.scaler_ = fitted_scaler(scaling, self._inlier_chunks(data))

    def _front_options(self):
        """Return the options of the front: the scaling."""
        return {"scaler": self.scaler_}

    def _build_module(self, data):
        """Return the untrained encoder and decoder."""
        vectors = self.image_shape_ is None
        shape = (self.n_features_in_,) if vectors else self.image_shape_
        names = ("mlp",) if vectors else ("conv", "dcgan")
        network = (self.network, self.network) if isinstance(self.network, str) else self.network
        if len(network) != 2:
            raise ValueError(f"network={network!r}: pass a name, or a pair (encoder, decoder).")
        default = "mlp" if vectors else "conv" if shape[0] == 1 else "dcgan"
        network = [default if isinstance(part, str) and part == "auto" else part for part in network]
        for part in network:
            if isinstance(part, str) and part not in names:
                raise ValueError(
                    f"network={part!r} is none of those for {'vectors' if vectors else 'images'}: 'auto', "
                    f"{' and '.join(map(repr, names))}."
                )
        dcgan = {"kernel_size": 4, "hidden_size": None, "batch_norm": True}
        encoders = {
            "mlp": partial(MLP, hidden_sizes=self.hidden_sizes),
            "conv": ConvEncoder,
            "dcgan": partial(ConvEncoder, **dcgan),
        }
        decoders = {
            "mlp": partial(MLP, hidden_sizes=self.hidden_sizes[::-1]),
            "conv": ConvDecoder,
            "dcgan": partial(ConvDecoder, **dcgan),
        }
        encoder = make_network(network[0], encoders, shape, 2 * self.latent_dim_, "network, the encoder,")
        outputs = shape[0] if vectors else shape
        decoder = make_network(network[1], decoders, (self.latent_dim_,), outputs, "network, the decoder,")
        variance = self.variance
        if variance == "auto":
            variance = _VECTOR_VARIANCE if vectors else 1.0
        if isinstance(variance, str):
            variance = torch.ones(shape if variance == "per-feature" else ())
        decoder = Decoder(decoder, self.noise_model_, variance, self._settings.squashed)
        return VAE(encoder, decoder, tuple(self.log_variance_bounds))

    def _training_options(self):
        """Return the training options that the base class does not set."""
        return {"schedule": self.schedule, "max_grad_norm": self.max_grad_norm, "average": self.weight_average}

    def _n_epochs(self, n_rows):
        """Return ``max_epochs``; "auto" is at most `_MOST_EPOCHS` for images."""
        n_epochs = super()._n_epochs(n_rows)
        return min(n_epochs, _MOST_EPOCHS) if self.max_epochs == "auto" and self.image_shape_ is not None else n_epochs

    def _phases(self, n_rows):
        """Return the single phase, in which each batch first trains the encoder and then the decoder."""
        encoder_step, replay = self._loss, None
        if "generated" in self._settings.negatives and self.n_replayed:
            replay = Replay(self.n_replayed)
            encoder_step = partial(self._loss, replay=replay)
        steps = [Step(encoder_step, "encoder"), Step(self._decoder_loss, "decoder")]
        ratio = float(self._auxiliary_rows_train)
        return [Phase(steps, self._n_epochs(n_rows), auxiliary_ratio=ratio, memory=replay)]

    def _loss(self, module, rows, auxiliary=None, replay=None):
        """Return the paper's loss L, for the step that updates the encoder."""
        n_rows, noise = len(rows), torch.randn(len(rows), self.latent_dim_, **drawing(rows.device))
        with running_statistics(module.decoder):
            # Rows and negatives pass in one batch. If batch normalisation saw them separately, the encoder would learn
            # to tell them apart by that, which does not help in scoring.
            both = [rows]
            if self._settings.negatives:
                with torch.no_grad():
                    both.append(self._draw_negatives(module, rows, auxiliary, replay))
            mean, log_variance = module.encode(torch.cat(both))
            latent = mean[:n_rows] + torch.exp(0.5 * log_variance[:n_rows]) * noise
            likelihood = module.decoder.log_likelihood(rows, module.decoder(latent)).flatten(1).sum(1)
            loss = (self.kl_weight * gaussian_kl(mean[:n_rows], log_variance[:n_rows]) - likelihood).mean()
            if not self._settings.negatives:
                return loss
            return loss + self.negative_weight_ * gaussian_kl(mean[n_rows:], log_variance[n_rows:], self.shift_).mean()

    def _decoder_loss(self, module, rows, auxiliary=None):
        """Return the loss of the decoder: minus the likelihood, and a second term if its samples are negatives.

        The second term is the divergence of the samples' posteriors from the first prior, to which the decoder learns
        to map them back.
        """
        with running_statistics(module.encoder):
            with torch.no_grad():
                mean, log_variance = module.encode(rows)
                latent = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, **drawing(rows.device))
            if "generated" not in self._settings.negatives:
                return -module.decoder.log_likelihood(rows, module.decoder(latent)).flatten(1).sum(1).mean()
            both = module.decoder(torch.cat([latent, torch.randn(latent.shape, **drawing(rows.device))]))
            likelihood = module.decoder.log_likelihood(rows, both[: len(rows)]).flatten(1).sum(1)
            divergence = gaussian_kl(*module.encode(module.decoder.mean(both[len(rows) :])))
            return self.negative_weight_ * divergence.mean() - likelihood.mean()

    def _draw_negatives(self, module, rows, auxiliary, replay):
        """Return as many negatives as there are rows, in equal shares of all sources."""

        def generated(rows, n):
            made = module.decoder.mean(module.decoder(torch.randn(n, self.latent_dim_, **drawing(rows.device))))
            # The loss of held-out rows must not change the memory.
            return made if replay is None or not module.training else replay.mixed(made)

        ours = {
            "auxiliary": lambda rows, n: auxiliary[:n],
            "generated": generated,
            "noise": partial(add_noise, low=_NOISE, high=_NOISE),
        }
        sources = [
            ours.get(source, source) if isinstance(source, str) else source for source in self._settings.negatives
        ]
        return synthesize(rows, len(rows), sources, what="negatives")

    def _fit_score(self, data):
        self._given_shape = data.X.shape[1:]
        self._posterior_noise = None
        if self.n_posterior_samples is not None:
            self._posterior_noise = torch.randn(self.n_posterior_samples, self.latent_dim_, **drawing()).numpy()
        chosen = data.all_inlier_indices()
        if len(chosen) > _STANDARD_ROWS:
            chosen = np.sort(chosen[torch.randperm(len(chosen), **drawing())[:_STANDARD_ROWS].numpy()])
        both = self._apply(self._elbo_and_deviance, data.X, chosen)
        deviations = both.std(0)
        # Scores that are all the same, but for rounding, have no deviation to divide by.
        alike = deviations <= _ALIKE * np.abs(both).max(0)
        self._standard = both.mean(0).tolist(), np.where(alike, 1.0, deviations).tolist()

    def _components(self, module, rows):
        """Return log-likelihoods of the reconstruction, divergences and perfect log-likelihoods, (n_rows, 3)."""
        mean, log_variance = module.encode(rows)
        latents = [mean]
        if self._posterior_noise is not None:
            # All rows share the draws of `fit`, so that scores are reproducible.
            noise = torch.as_tensor(self._posterior_noise, dtype=rows.dtype, device=rows.device)
            latents = (mean + torch.exp(0.5 * log_variance) * shared for shared in noise)
        likelihoods = [_log_likelihood(module, rows, latent).flatten(1).sum(1) for latent in latents]
        divergence = gaussian_kl(precise(mean), precise(log_variance))
        perfect = module.decoder.perfect_log_likelihood(precise(rows)).flatten(1).sum(1)
        return torch.stack([torch.stack(likelihoods).mean(0), divergence, perfect], 1)

    def _elbo_and_deviance(self, module, rows):
        """Return ELBO and deviance of each row, of shape (n_rows, 2)."""
        reconstruction, divergence, perfect = self._components(module, rows).unbind(1)
        elbo = reconstruction - divergence
        return torch.stack([elbo, deviance(elbo, perfect)], 1)

    def _raw_score(self, module, rows):
        """Return the score of each row."""
        if self.score_type_ == "kl":
            return -gaussian_kl(*map(precise, module.encode(rows)))
        if self.score_type_ == "reconstruction":
            return self._components(module, rows)[:, 0]
        both = self._elbo_and_deviance(module, rows)
        if self.score_type_ == "robust":
            return lesser_score(both, *self._standard)
        return both[:, 0 if self.score_type_ == "elbo" else 1]

    def _has_boundary(self):
        return self.score_type_ == "kl" and len(self._settings.negatives) > 0

    def _natural_offset(self):
        # A posterior of unit variance halfway between the priors.
        return -self.latent_dim_ * self.shift_**2 / 8

    def _as_given(self, rows, shape, like=None):
        """Return rows of the network in the units, the shape and the type that X had in `fit`."""
        rows = unscaled(self.scaler_, rows).reshape(len(rows), *shape)
        if self._uint8_images:
            rows = np.rint(255 * rows).clip(0, 255).astype(np.uint8)
        return framed_like(like, rows)


class Replay:
    """Keep half of the generated rows of each batch; when the memory is full, drop random batches.

    Parameters
    ----------
    n_batches : int
        Number of batches that the memory holds.
    max_bytes : int, default=2 ** 28
        Size of the memory; the default is 256 MiB. It holds fewer batches if they are large, and fewer rows of a batch
        that alone exceeds it.
    """

    def __init__(self, n_batches: int, max_bytes: int = _REPLAYED_BYTES):
        self.n_batches, self.max_bytes = n_batches, max_bytes
        self.batches: list[Tensor] = []

    def mixed(self, rows: Tensor) -> Tensor:
        """Return as many rows as given, up to half of them from the memory, and keep half of the given ones."""
        half = len(rows) // 2
        self._remember(rows[: min(half, self.max_bytes // rows[0].nbytes)].clone())
        kept = self.batches[int(torch.randint(len(self.batches), (), **drawing()))][:half]
        return torch.cat([rows[len(kept) :], kept])

    def _remember(self, batch: Tensor) -> None:
        """Put a batch into the memory, in the place of a dropped one if there is not enough room."""
        place = len(self.batches)
        while self.batches and (len(self.batches) >= self.n_batches or self._n_bytes() + batch.nbytes > self.max_bytes):
            place = int(torch.randint(len(self.batches), (), **drawing()))
            self.batches.pop(place)
        self.batches.insert(place, batch)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the batches, for a checkpoint."""
        return {"batches": self.batches}

    def load_state_dict(self, state: Mapping[str, list[Tensor]]) -> None:
        """Restore the batches from a state."""
        self.batches = list(state["batches"])

    def _n_bytes(self) -> int:
        """Return the size of the batches in the memory."""
        return sum(batch.nbytes for batch in self.batches)


def _posterior_mean(module, rows):
    """Return the posterior means of rows."""
    return module.encode(rows)[0]


def _reconstruction(module, rows):
    """Return the rows that the decoder expects at the posterior means."""
    return module(rows)


def _generated(module, latent):
    """Return the rows that the decoder expects at points of the latent space."""
    return module.decoder.mean(module.decoder(latent))


def _log_likelihood(module: VAE, rows: Tensor, latent: Tensor) -> Tensor:
    """Return log p(x|z) of each feature or pixel, in double precision, because many of them are summed."""
    return module.decoder.log_likelihood(precise(rows), precise(module.decoder(latent)))
