"""The rows that every estimator here accepts: vectors, or images, flattened or not."""

from __future__ import annotations

import copy
import copyreg
import math
from inspect import isfunction
from typing import Any, Self

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data
from torch import Tensor

from .._plain import made_plain, restored
from .._warn import warn_user
from ..networks.copies import WithoutHistory
from ..training.batches import chunks, to_tensor
from ..training.scoring import device_of
from ..training.undisturbed import shielded
from .data import FitData
from .front import Arrangement, Front
from .images import check_pixels, explain_dimensions, pixel_range, refuse_unread_rows
from .validation import (
    channels_last,
    check_values,
    is_deep_list,
    is_polars,
    plain_rows,
    refuse_complex,
    refuse_text,
    resolve_image_shape,
)
from .versioned import VersionedEstimator

# Methods of estimators in which torch computes.
_COMPUTING = {
    "__setstate__",
    "_fold_scores",
    "adapter_state",
    "calibrate",
    "explain",
    "fit",
    "inverse_transform",
    "load_adapters",
    "partial_fit",
    "predict_class",
    "predict_proba",
    "sample",
    "score_samples",
    "set_threshold",
    "to_torch",
    "transform",
}


class RowEstimator(VersionedEstimator):
    """Base of estimators of vectors or images: check rows, and give images their shape.

    A subclass has the parameter ``image_shape``, calls ``_check_rows(X, reset)`` before it does anything with rows, and
    then ``_set_front(device)``. It may override ``_front_options()``: return arguments of `Front`, the preprocessing
    before its network (a scaler, for example).
    """

    # Shape (C, H, W) of an image, set by `_check_rows`; None for vectors.
    image_shape_: Any
    _parameter_constraints: dict = {"image_shape": [tuple, list, None]}
    # Scale of the float images of the fit, see `pixel_range`.
    _pixel_range: str | None
    # Preprocesses rows for the network; None if another estimator does that.
    _front: Any = None
    # Parameters that hold something trained, such as a network, which clones share: its own parameters have no effect,
    # and are not among those of this estimator.
    _shared_params: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Shield the methods that compute from the program's global settings of torch."""
        super().__init_subclass__(**kwargs)
        for name in _COMPUTING & {*vars(cls)}:
            if isfunction(vars(cls)[name]):
                setattr(cls, name, shielded(vars(cls)[name]))

    def __sklearn_clone__(self):
        # A fitted estimator would be emptied, and a network copied for each fold of a search.
        bare = copy.copy(self)
        # Callbacks may hold what cannot be copied, such as TensorBoard's writer: `copied` shares it.
        callbacks = getattr(self, "callbacks", None)
        if callbacks is not None:
            bare.callbacks = None
        for name in self._shared_params:
            setattr(bare, name, None)
        with WithoutHistory():
            cloned = VersionedEstimator.__sklearn_clone__(bare)
        if callbacks is not None:
            from ..training.callbacks import copied

            cloned.callbacks = copied(callbacks)
        for name in self._shared_params:
            setattr(cloned, name, getattr(self, name))
        return cloned

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; those of a trained network or estimator that is one of them are not listed.

        Parameters
        ----------
        deep : bool, default=True
            Whether to list the parameters of other estimators that are parameters, too.

        Returns
        -------
        params : dict
            Values by name.
        """
        shared = tuple(f"{name}__" for name in self._shared_params)
        return {name: value for name, value in super().get_params(deep).items() if not name.startswith(shared)}

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Values by name.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If there is no such parameter, or it is one of a trained network or estimator that is a parameter.
        """
        for name in params:
            holder, nested, _ = name.partition("__")
            if nested and holder in self._shared_params:
                # All clones share it, so that the user's own would change.
                raise ValueError(
                    f"{name} is no parameter of {type(self).__name__}: parameters of the {holder} have no effect, "
                    f"because it is trained already. Set them before its fit, and pass the fitted one as {holder}."
                )
        return super().set_params(**params)

    def _forget(self) -> None:
        """Delete the attributes of an earlier fit: a fit that fails halfway must not leave a mixture of both."""
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)

    def _front_options(self) -> dict[str, Any]:
        """Return arguments of `Front` that replace those of `_arrangement`."""
        return {}

    def _set_front(self, device: torch.device) -> None:
        """Make the module that preprocesses validated rows for the network, on this device."""
        options = {"image_shape": self.image_shape_, "uint8": self._uint8_images} | self._front_options()
        self._front = Front(**options, double=device.type != "mps").to(device)

    def _front_on(self, device: torch.device) -> Front:
        """Return the preprocessing module, moved to the device of the network if that has changed."""
        if device_of(self._front) != device:
            self._set_front(device)
        return self._front

    def _arrangement(self) -> Arrangement:
        """Return a module that gives images their shape, and scales uint8 pixels to [0, 1]."""
        return Arrangement(self.image_shape_, self._uint8_images)

    def __reduce_ex__(self, protocol):
        """Return the state for pickles and copies: modules as they are, since copies may share them."""
        if type(self).__getstate__ is not RowEstimator.__getstate__:
            return super().__reduce_ex__(protocol)
        return copyreg.__newobj__, (type(self),), self._saved()  # type: ignore[attr-defined]

    def __getstate__(self):
        """Return the state for other files, such as those of skops: plain arrays instead of modules."""
        return made_plain(self._saved())

    def _saved(self):
        """Return the attributes to save."""
        state = dict(super().__getstate__())
        if state.get("_front") is not None:
            # The module repeats the numbers of the scaler, from which it is made again.
            state["_front"] = True
        return state

    def __setstate__(self, state):
        super().__setstate__(restored(state))
        if state.get("_front") is not None:
            self._set_front(torch.device("cpu"))

    def _represented(self, X: np.ndarray) -> np.ndarray:
        """Return a chunk of validated rows as the network's input, in float32."""
        return to_tensor(X, None, self._front, device_of(self._front)).cpu().numpy()

    def _arranged(self, X: np.ndarray) -> np.ndarray:
        """Return a chunk of validated rows with images in their shape, and uint8 pixels scaled to [0, 1]."""
        if self.image_shape_ is None:
            return X
        X = X.reshape(len(X), *self.image_shape_)
        return X / np.float32(255) if X.dtype == np.uint8 else X

    def _check_rows(self, X, reset: bool) -> np.ndarray:
        """Return X as an array of numbers of any dtype; raise ValueError for other shapes or values."""
        refuse_unread_rows(X)
        X = plain_rows(X)
        if issparse(X):
            raise ValueError(
                f"{type(self).__name__} does not accept sparse input: pass X.toarray(). In a Pipeline, let the step "
                f"before it return a dense array: OneHotEncoder(sparse_output=False), ColumnTransformer(..., "
                f"sparse_threshold=0), or TruncatedSVD() after a TfidfVectorizer."
            )
        refuse_complex(X)
        n_min = 2 if reset else 1
        if getattr(X, "ndim", 2) <= 2 and not is_deep_list(X):
            given, shape = X, None
            # scikit-learn would turn dates in a polars DataFrame into numbers.
            if is_polars(X):
                refuse_text(X)
            try:
                X = validate_data(self, given, reset=reset, ensure_min_samples=n_min, ensure_all_finite=False)
                # scikit-learn lets categories and dates of a DataFrame pass.
                if X.dtype.kind in "OMm":
                    refuse_text(given)
                    X = X.astype(np.float64)
            except (OverflowError, TypeError, ValueError):
                refuse_text(given)
                raise
        else:
            X = check_array(X, allow_nd=True, ensure_min_samples=n_min, ensure_all_finite=False, estimator=self)
            if X.ndim != 4:
                raise ValueError(explain_dimensions(X.shape, None if reset else self.image_shape_))
            if 0 in X.shape:
                raise ValueError(f"X has shape {X.shape}: images without pixels.")
            shape = X.shape[1:]
        if reset:
            self._set_image_shape(X, shape)
        else:
            self._check_image_shape(X, shape)
        check_values(X, getattr(self, "feature_names_in_", None))
        return X

    def _set_image_shape(self, X: np.ndarray, shape: tuple[int, ...] | None) -> None:
        given = self.image_shape
        if given is not None:
            given = resolve_image_shape(given, math.prod(X.shape[1:]))
            if shape not in (None, given):
                raise ValueError(
                    f"X holds images of shape {shape}, but image_shape={self.image_shape}. Leave image_shape out."
                )
            if shape is None and channels_last(given):
                warn_user(
                    f"image_shape={self.image_shape} means {given[0]} channels of {given[1]} x {given[2]} pixels. "
                    f"Channels come first: for {given[2]} channels of {given[0]} x {given[1]} pixels pass image_shape="
                    f"{(given[2], *given[:2])}, and images flattened in this order.",
                    RuntimeWarning,
                )
        elif shape is not None and channels_last((shape[0], shape[1], shape[2])):
            raise ValueError(
                f"X has shape {X.shape}, which would be {shape[0]} channels of {shape[1]} x {shape[2]} pixels. If "
                f"channels are last, pass np.moveaxis(X, -1, 1); if not, confirm it by image_shape={shape}."
            )
        self.image_shape_ = given or shape
        if shape is not None:
            # validate_data would set the number of channels.
            self.n_features_in_ = math.prod(shape)
            self.__dict__.pop("feature_names_in_", None)
        self._uint8_images = self.image_shape_ is not None and X.dtype == np.uint8
        floats = self.image_shape_ is not None and not self._uint8_images
        self._pixel_range = pixel_range(X) if floats else None

    def _note_pixels(self, data: FitData) -> None:
        """Remember the scale of in-distribution images; raise ValueError if auxiliary outliers have another."""
        if self.image_shape_ is None or self._uint8_images:
            return
        self._pixel_range = own = pixel_range(data.X, data.inlier_indices)
        other = pixel_range(data.X, data.auxiliary_indices) if data.n_auxiliary else None
        if own is not None and other not in (None, own):
            raise ValueError(
                f"in-distribution images hold pixels in {own}, but those that y marks as outliers hold pixels in "
                f"{other}: {type(self).__name__} would learn to tell the scales apart. Bring both to one scale before "
                f"they are joined; pass X / 255 of those in [0, 255]."
            )

    def _check_image_shape(self, X: np.ndarray, shape: tuple[int, ...] | None) -> None:
        if shape is not None and shape != self.image_shape_:
            expected = f"images of shape {self.image_shape_}" if self.image_shape_ else "vectors"
            raise ValueError(f"X holds images of shape {shape}, but {type(self).__name__} was fitted on {expected}.")
        if self.image_shape_ is not None:
            check_pixels(X, self._uint8_images, self._pixel_range, type(self).__name__)


def all_alike(X: np.ndarray, indices: np.ndarray | None) -> bool:
    """Return whether all rows of X, or those at ``indices``, are the same."""
    first = X[0 if indices is None else indices[0]]
    return all((chunk == first).all() for chunk in chunks(X, indices))


def as_it_is(rows: Tensor) -> Tensor:
    """Return rows as they are, in float32: they are represented already."""
    return rows.float()


def framed_like(X, values: np.ndarray):
    """Return ``values``; as a DataFrame with the index and columns of ``X``, if ``X`` is one."""
    if not (hasattr(X, "columns") and hasattr(X, "index")):
        return values
    import pandas as pd

    return pd.DataFrame(values, index=X.index, columns=X.columns)
