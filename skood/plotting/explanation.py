"""Draw why a row scores as it does; public in `skood.plotting`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import _safe_indexing

from ..estimator.wrapper import as_explained, explained_by, inner_attribute
from .drawing import INLIERS, OUTLIERS, as_images, axes_for, shades_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ExplanationDisplay:
    """Draw what each feature, or each pixel, adds to the score of one row.

    A row of a table is drawn as bars, the largest contributions first. An image is drawn beside a heat map of its
    contributions, and its reconstruction if the detector makes one. Negative contributions, which make the row an
    outlier, are orange; positive ones are blue.

    Parameters
    ----------
    contributions : ndarray of shape (n_features,) or (H, W)
        What ``explain`` of a detector returned for the row.
    feature_names : sequence of str or None, default=None
        Names of the features, for bars. None numbers them.
    values : sequence or None, default=None
        The row's own values, written beside the names. None writes none.
    image : ndarray of shape (C, H, W) or None, default=None
        The image that the contributions belong to.
    reconstruction : ndarray of shape (C, H, W) or None, default=None
        The detector's reconstruction of the image. None draws none.
    name : str or None, default=None
        Title of the axes. With None there is none.

    Attributes
    ----------
    bars_ : matplotlib BarContainer
        The bars, from top to bottom; only for a row of a table.
    heat_map_ : matplotlib AxesImage
        The heat map; only for an image.
    ax_ : matplotlib Axes
        The axes with all that is drawn.
    figure_ : matplotlib Figure
        The figure that holds the axes.

    Examples
    --------
    >>> from skood.plotting import ExplanationDisplay
    >>> display = ExplanationDisplay.from_explanation([[0.5, -3.0, 0.25]], feature_names=["age", "dose", "weight"])
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['dose', 'age', 'weight']
    """

    def __init__(self, *, contributions, feature_names=None, values=None, image=None, reconstruction=None, name=None):
        self.contributions = contributions
        self.feature_names = feature_names
        self.values = values
        self.image = image
        self.reconstruction = reconstruction
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        row: int = 0,
        reference: Any = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Explain a row with a fitted detector and draw its contributions.

        Parameters
        ----------
        estimator : fitted detector
            Anything with ``explain``, or a Pipeline that ends in it.
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Rows as the detector takes them.
        row : int, default=0
            Index of the row in X.
        reference : array-like or None, default=None
            Normal rows to compare with, as in ``explain``.
        name : str or None, default=None
            Title of the axes. With None it is the name of the estimator's class.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : ExplanationDisplay
            The display, drawn.
        """
        X = _safe_indexing(X, [row])
        contributions = explained_by(estimator, X, reference)
        reconstruction = None
        if contributions.ndim == 3:
            shape = inner_attribute(estimator, "image_shape_")
            reconstruct = inner_attribute(estimator, "reconstruct")
            X = np.asarray(as_explained(estimator, X)).reshape(1, *shape)
            reconstruction = None if reconstruct is None else np.asarray(reconstruct(X)).reshape(1, *shape)
        return cls.from_explanation(
            contributions,
            X,
            reconstruction=reconstruction,
            name=type(estimator).__name__ if name is None else name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_explanation(
        cls,
        contributions: Any,
        X: Any = None,
        *,
        row: int = 0,
        feature_names: Sequence[str] | None = None,
        reconstruction: ArrayLike | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw contributions that ``explain`` has returned.

        Parameters
        ----------
        contributions : DataFrame or array-like of shape (n_samples, n_features) or (n_samples, H, W)
            What ``explain`` returned.
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), or None, default=None
            The rows explained; their values are written beside the names of features. Required for images, which must
            have one or three channels.
        row : int, default=0
            Index of the row in ``contributions`` and X.
        feature_names : sequence of str or None, default=None
            Names of the features. With None they are the columns of ``contributions``, or else of X, or numbers.
        reconstruction : array-like of shape (n_samples, C, H, W) or None, default=None
            The detector's reconstructions of the images, to be drawn beside them.
        name : str or None, default=None
            Title of the axes. With None there is none.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : ExplanationDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If ``contributions`` has another shape, if the images of maps are missing or have another size, or if
            ``feature_names`` holds another number of names than there are features.
        """
        shares = np.asarray(contributions, dtype=np.float64)
        if shares.ndim not in (2, 3):
            raise ValueError(
                f"contributions have shape {shares.shape}; give what explain returns: (n, n_features), or (n, H, W) "
                "for images."
            )
        parts: dict[str, Any] = {"contributions": shares[row], "name": name}
        if shares.ndim == 3:
            parts |= _pictures(shares, X, reconstruction, row)
        else:
            parts["feature_names"] = _names(contributions, X, feature_names)
            n_columns = getattr(X, "shape", np.shape(X) if X is not None else ())[1:]
            # After the steps of a Pipeline, contributions may belong to other columns than those of X.
            if n_columns == shares.shape[1:]:
                parts["values"] = np.asarray(_safe_indexing(X, [row]), dtype=object)[0].tolist()
        return cls(**parts).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, n_features: int = 10) -> Self:
        """Draw the contributions.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        n_features : int, default=10
            Largest number of bars; the contributions of all other features are added up in one more.

        Returns
        -------
        display : ExplanationDisplay
            This display.
        """
        if np.ndim(self.contributions) == 1:
            self._plot_bars(ax, n_features)
        else:
            self._plot_map(ax)
        self.figure_ = self.ax_.figure
        return self

    def _plot_bars(self, ax: Axes | None, n_features: int) -> None:
        """Draw bars, the largest on top."""
        shares = np.asarray(self.contributions)
        order = np.argsort(-np.abs(shares), kind="stable")
        # A bar of "1 other feature" would take as much room as the feature's own.
        shown = order if len(order) <= n_features + 1 else order[:n_features]
        labels, lengths = [self._label(place) for place in shown], list(shares[shown])
        if len(shown) < len(order):
            labels.append(f"{len(order) - len(shown)} other features")
            lengths.append(shares[order[n_features:]].sum())
        self.ax_ = axes_for(ax, self, figsize=(6.4, 1.1 + 0.32 * len(labels)), layout="constrained")
        colors = [OUTLIERS if length < 0 else INLIERS for length in lengths]
        places = np.arange(len(labels))
        self.bars_ = self.ax_.barh(places, lengths, color=colors)
        self.ax_.set_yticks(places, labels)
        self.ax_.axvline(0, color="black", linewidth=0.8)
        self.ax_.invert_yaxis()
        self.ax_.set(xlabel="contribution to the score (negative: towards an outlier)", title=self.name)

    def _label(self, place: int) -> str:
        """Return the name of a feature, with its value."""
        name = f"feature {place}" if self.feature_names is None else str(self.feature_names[place])
        if self.values is None:
            return name
        value = self.values[place]
        return f"{name} = {value:.4g}" if isinstance(value, (int, float, np.number)) else f"{name} = {value}"

    def _plot_map(self, ax: Axes | None) -> None:
        """Draw the image, the heat map over a pale copy of it, and the reconstruction, side by side."""
        pictures = {"image": self.image, "contributions": self.image}
        if self.reconstruction is not None:
            pictures["reconstruction"] = self.reconstruction
        shades = shades_of(np.stack([*pictures.values()]))
        height, width = np.shape(self.contributions)
        # All pictures share one pair of axes, so that the display fits into a figure that the caller made.
        self.ax_ = axes_for(
            ax, self, figsize=(2.6 * len(pictures) + 0.8, 2.6 * height / width + 0.6), layout="constrained"
        )
        most = np.abs(self.contributions).max() or 1.0
        centers = []
        for number, title in enumerate(pictures):
            extent = (1.06 * number, 1.06 * number + 1, height / width, 0)
            faint = 0.35 if title == "contributions" else 1.0
            self.ax_.imshow(
                shades[number], extent=extent, cmap="gray", vmin=0, vmax=1, interpolation="nearest", alpha=faint
            )
            if title == "contributions":
                # Pixels that contribute nothing show the image.
                opacity = np.sqrt(np.abs(self.contributions) / most)
                self.heat_map_ = self.ax_.imshow(
                    self.contributions,
                    extent=extent,
                    cmap=_colors(),
                    vmin=-most,
                    vmax=most,
                    alpha=opacity,
                    interpolation="nearest",
                )
            centers.append(1.06 * number + 0.5)
        self.ax_.set(xlim=(0, centers[-1] + 0.5), ylim=(height / width, 0), yticks=[], title=self.name)
        self.ax_.set_xticks(centers, list(pictures))
        self.ax_.tick_params(length=0)
        self.ax_.spines[:].set_visible(False)
        self.ax_.set_xlabel("orange: towards an outlier")
        self.ax_.figure.colorbar(self.heat_map_, ax=self.ax_, label="contribution", shrink=0.9)


def _colors() -> Any:
    """Return the colours of a heat map: those of the bars, and white between them."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("contributions", [OUTLIERS, "white", INLIERS])


def _names(contributions: Any, X: Any, feature_names: Sequence[str] | None) -> list[str] | None:
    """Return the names of the features; None if there are none."""
    n_features = np.shape(contributions)[1]
    if feature_names is not None and len(feature_names) != n_features:
        raise ValueError(f"feature_names holds {len(feature_names)} names; give one for each of {n_features} features.")
    for names in (feature_names, getattr(contributions, "columns", None), getattr(X, "columns", None)):
        if names is not None and len(names) == n_features:
            return [str(name) for name in names]
    return None


def _pictures(shares: np.ndarray, X: Any, reconstruction: ArrayLike | None, row: int) -> dict[str, np.ndarray]:
    """Return the image and its reconstruction, checked."""
    if X is None:
        raise ValueError("contributions are maps of images: pass the images as X.")
    pictures = {"image": as_images(X)[row]}
    if reconstruction is not None:
        pictures["reconstruction"] = as_images(reconstruction)[row]
    for what, picture in pictures.items():
        if picture.shape[1:] != shares.shape[1:]:
            raise ValueError(
                f"contributions have {shares.shape[1:]} pixels, but the {what} has {picture.shape[1:]}; give the "
                "images that were explained."
            )
    return pictures
