"""Use a trained network as a scikit-learn transformer that returns features of rows and learns nothing."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._sklearn import HasMethods, Interval, StrOptions
from ..backbones import SHIPPED, load_named
from ..estimator.rows import RowEstimator
from ..networks import Pooling
from ..networks.copies import deep_copy
from ..training.batches import chunks
from ..training.device import fitting, resolve_device
from .embedder import embed, find_encoder, make_embedder
from .trained import Backbone, check_alike, shown, warn_of_pixels, warn_of_scale


class FrozenEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RowEstimator):
    """Transform rows to the features that a trained network computes of them.

    Use it as the first step of a Pipeline: the network maps images, or vectors, to features, and a detector for vectors
    learns which features are normal. The network is never trained here, and labels are ignored.

    Parameters
    ----------
    backbone : torch.nn.Module, fitted estimator or str, default="cifar100-resnet-26-16"
        The network. It may be a trained module; a fitted estimator of skood or skorch, whose network is used with the
        scaling it was trained with (if an estimator of skood has a ``transform``, this returns the features); the name
        of the shipped network, for images of one or three channels in [0, 1]; or "torchvision:NAME" or "timm:NAME",
        which have trained weights. The network is copied once for all encoders and detectors that share it. So training
        it further does not change them, and cloning them copies nothing. The features of a scripted or traced module
        are its output, and it cannot be pickled.

    backbone_params : dict or None, default=None
        For "torchvision:NAME" and "timm:NAME": keyword arguments of ``torchvision.models.get_model``, such as
        ``{"weights": "IMAGENET1K_V1"}``, or of ``timm.create_model``, such as ``{"img_size": 96}``. Values are numbers,
        text or tuples.

    layer : str or None, default=None
        Name of the layer whose output are the features. With None the features are the input of the last linear layer,
        if the network returns that layer's output or a softmax or sigmoid of it; otherwise they are the network's
        output.

    pooling : {"mean", "max", "flatten"} or tuple (h, w), default="mean"
        How the output of a layer becomes features, if it is maps (n, C, H, W) or tokens (n, tokens, d). "mean" and
        "max" are over H and W, or over the tokens, and return C or d features. "flatten" returns all C * H * W values,
        channel by channel, or all tokens * d. (h, w) divides maps into a grid of h rows and w columns, at most H and W,
        and returns the C * h * w means of its cells, which keep positions in the image. With "mean" the output may also
        be vectors.

    mean, std : float, sequence of float or None, default=None
        Scaling for a plain torch module: ``mean`` is subtracted from each feature, or each channel of images, and the
        difference is divided by ``std``. uint8 images are scaled to [0, 1] before. Must be None for other backbones,
        which have their own scaling.

    size : int or None, default=None
        Side, in pixels, of the squares to which images are resized for a plain torch module. None keeps their size.
        Must be None for other backbones.

    resize : int or None, default=None
        Length, in pixels, to which the shorter side is resized before a square of ``size`` is cropped from the center,
        as is usual for ImageNet networks (256 and 224, for example). None resizes images to squares without a crop.
        Only with ``size``; named networks resize and crop as they were published.

    channels : int or None, default=None
        Number of channels that a plain torch module takes, for grey images: their one channel is repeated. None does
        not repeat it. Must be None for named networks, which repeat it by themselves.

    image_shape : tuple (C, H, W) or None, default=None
        Shape of one image, if X holds flattened pixels; one entry may be -1, and is then computed. Not needed for
        vectors, nor for images of shape (n, C, H, W).

    device : str or torch.device, default="auto"
        Where the network runs: "auto" is CUDA, else MPS, else the CPU. Features are computed in float32.

    Attributes
    ----------
    module_ : torch.nn.Module
        Maps rows to features. Images must have the shape (n, C, H, W), and uint8 images must be divided by 255. The
        weights are in memory once, however many encoders and detectors share the network.

    image_shape_ : tuple or None
        Shape of one image; None for vectors.

    n_features_in_ : int
        Number of features (for images, of pixels times channels).

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X has string column names.

    See Also
    --------
    BackboneClassifier : Trains a network on a labelled corpus.
    ResidualAdapterDetector : Adapts such a network to what is normal.
    DUMDetector : Detects outliers; it takes an encoder itself, to embed many views of an image.
    skood.backbones.Preprocessed : Wraps a module with the preprocessing that it needs.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import IsolationForest
    >>> from sklearn.pipeline import make_pipeline
    >>> from skood import FrozenEncoder
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, size=(20, 3, 32, 32), dtype=np.uint8)
    >>> FrozenEncoder().fit_transform(images).shape
    (20, 128)
    >>> detector = make_pipeline(FrozenEncoder(), IsolationForest(random_state=0)).fit(images)
    >>> detector.predict(np.zeros((1, 3, 32, 32), dtype=np.uint8))
    array([-1])
    """

    _parameter_constraints: dict = {
        **RowEstimator._parameter_constraints,
        "backbone": [nn.Module, HasMethods("fit"), str],
        "backbone_params": [dict, None],
        "layer": [str, None],
        "pooling": [StrOptions({"mean", "max", "flatten"}), tuple, list],
        "mean": [Real, "array-like", None],
        "std": [Real, "array-like", None],
        "size": [Interval(Integral, 1, None, closed="left"), None],
        "resize": [Interval(Integral, 1, None, closed="left"), None],
        "channels": [Interval(Integral, 1, None, closed="left"), None],
        "device": [str, torch.device],
    }
    _shared_params = ("backbone",)

    def __init__(
        self,
        backbone=SHIPPED,
        *,
        backbone_params=None,
        layer=None,
        pooling="mean",
        mean=None,
        std=None,
        size=None,
        resize=None,
        channels=None,
        image_shape=None,
        device="auto",
    ):
        self.backbone = backbone
        self.backbone_params = backbone_params
        self.layer = layer
        self.pooling = pooling
        self.mean = mean
        self.std = std
        self.size = size
        self.resize = resize
        self.channels = channels
        self.image_shape = image_shape
        self.device = device

    # -------------------------------------------------------------------------------------------------- public

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Find the network's features and check that it takes such rows; nothing is learnt from them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), float or uint8
            Vectors; images; or flattened images with ``image_shape``. uint8 images are scaled by 1/255.
        y : None
            Ignored.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If X is not as described, if the network is not trained or does not take such rows, if its features of a row
            depend on other rows, or if ``pooling`` is for maps but the layer returns vectors, or maps smaller than the
            grid.
        ImportError
            If a package that ``backbone`` names is not installed.
        ConnectionError
            If weights are not on this machine and cannot be downloaded.
        """
        self._forget()
        X = self._check_rows(X, reset=True)
        in_shape = self.image_shape_ or (self.n_features_in_,)
        preprocessing = self._preprocessing(in_shape)
        options = preprocessing | {"layer": self.layer, "pooling": self._checked_pooling()}
        given, device = find_encoder(self._loaded(), self._uint8_images, "backbone"), resolve_device(self.device)
        check_alike(self.backbone, self, "backbone")
        some = self._arranged(next(chunks(X)))
        warn_of_pixels(given.network, some)
        if self._pixel_range == "[0, 255]" and _for_fractions(preprocessing):
            warn_of_scale(some, "this mean and std are for")
        # Nothing is trained; `fitting` keeps the caller's generators and gradient mode out of the trial runs.
        with fitting(0, device):
            try:
                self.module_ = make_embedder(given, in_shape, device, what="backbone", **options)
            except ValueError as error:
                # Only the text of torch's error shows that the number of channels is wrong.
                if in_shape[0] != 1 or len(in_shape) == 1 or "to have 3 channels" not in str(error):
                    raise
                raise ValueError(
                    "X holds grey images, and the backbone takes images in colour: pass channels=3, which repeats the "
                    "one channel."
                ) from error
        return self

    def transform(self, X):
        """Return the features of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows of the kind the encoder was fitted on.

        Returns
        -------
        features : ndarray of float64 of shape (n_samples, n_features_out)
            A row's features depend neither on the other rows nor on their order or number.

        Raises
        ------
        ValueError
            If X is not of the kind the encoder was fitted on, or the network gives NaN or infinity for a row.
        """
        check_is_fitted(self)
        return embed(self.module_, self._check_rows(X, reset=False), self._arrangement(), "backbone")

    def to_torch(self) -> nn.Module:
        """Return the fitted encoder as one torch module, which computes what `transform` returns.

        Returns
        -------
        module : torch.nn.Module
            A copy, in evaluation mode, on the device of the encoder. It takes a tensor of rows of the kind the encoder
            was fitted on, and returns float32 features of shape (n_samples, n_features_out).
        """
        check_is_fitted(self)
        return nn.Sequential(self._arrangement(), deep_copy(self.module_)).eval()

    # ------------------------------------------------------------------------------------------------- plumbing

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether `fit` has succeeded, for scikit-learn's `check_is_fitted`."""
        return hasattr(self, "module_")

    @property
    def _n_features_out(self) -> int:
        """Return the number of features; scikit-learn makes the names of `get_feature_names_out` from it."""
        return self.module_.n_features

    def _embedding(self) -> Backbone:
        """Return the network whose output `transform` returns, for `skood.encoders.embedder`."""
        return Backbone(self.module_, layer="")

    def _loaded(self) -> Any:
        """Return the backbone; load it if it is a name with ``backbone_params``."""
        if self.layer is not None and isinstance(self.backbone, torch.jit.ScriptModule):
            raise ValueError(
                f"layer={self.layer!r}: a scripted or traced module does not show its layers. Pass the original "
                f"module, or set layer=None."
            )
        if not self.backbone_params:
            return self.backbone
        network = load_named(self.backbone, self.backbone_params) if isinstance(self.backbone, str) else None
        if network is None:
            raise ValueError(
                f"backbone_params={self.backbone_params}: only 'torchvision:NAME' and 'timm:NAME' take them, but "
                f"backbone={shown(self.backbone)}. Set backbone_params=None."
            )
        return network

    def _checked_pooling(self) -> Pooling:
        """Return ``pooling``, with a grid as a tuple; raise an error if a grid is not two positive integers."""
        if isinstance(self.pooling, str):
            return self.pooling
        grid = tuple(self.pooling)
        whole = all(isinstance(side, Integral) and not isinstance(side, bool) and int(side) > 0 for side in grid)
        if len(grid) != 2 or not whole:
            raise ValueError(
                f"pooling={self.pooling!r} must be 'mean', 'max', 'flatten', or a grid of two positive integers (h, w)."
            )
        return int(grid[0]), int(grid[1])

    def _preprocessing(self, in_shape: tuple[int, ...]) -> dict:
        """Check ``mean``, ``std``, ``size``, ``resize`` and ``channels``; return those that are not None."""
        given = {name: getattr(self, name) for name in ("mean", "std", "size", "resize", "channels")}
        given = {name: value for name, value in given.items() if value is not None}
        if given and not isinstance(self.backbone, nn.Module):
            raise ValueError(
                f"{', '.join(given)} must be None: only a plain torch module takes them, and "
                f"backbone={shown(self.backbone)} has its own preprocessing."
            )
        if "size" in given and len(in_shape) == 1:
            raise ValueError("size is for images; X holds vectors. Pass images, or image_shape=(C, H, W).")
        if "channels" in given and (len(in_shape) == 1 or in_shape[0] != 1):
            kind = "vectors" if len(in_shape) == 1 else f"images of {in_shape[0]} channels"
            raise ValueError(
                f"channels={self.channels} repeats the channel of grey images; X holds {kind}. Set channels=None."
            )
        n_columns = given.get("channels", in_shape[0])
        for name in {"mean", "std"} & set(given):
            values = np.asarray(given[name], dtype=np.float64)
            if values.ndim > 1 or values.size not in (1, n_columns) or not np.isfinite(values).all():
                kind = "features" if len(in_shape) == 1 else "channels"
                raise ValueError(f"{name}={given[name]} must be one number, or one for each of {n_columns} {kind}.")
            if name == "std" and (values <= 0).any():
                raise ValueError(f"std={given[name]} must be positive: values are divided by it.")
        return given


def _for_fractions(preprocessing: dict) -> bool:
    """Return whether the given ``mean`` or ``std`` is for pixels in [0, 1]."""
    given = [preprocessing[name] for name in ("mean", "std") if name in preprocessing]
    return bool(given) and max(np.abs(values).max() for values in given) <= 1
