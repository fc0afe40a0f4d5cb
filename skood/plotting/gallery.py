"""Draw the images that a detector is most and least certain of; public in `skood.plotting`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, check_random_state

from ..estimator.wrapper import scores_of
from .base import threshold_of
from .drawing import OUTLIERS, as_images, axes_for, shades_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class CertaintyGalleryDisplay:
    """Draw the images that a detector is most certain of, and those that it is least certain of.

    They show what a detector takes for normal: with `DUMDetector` the most certain images are the prototypes of what
    it was fitted on, the least certain ones crowded or cut off.

    Parameters
    ----------
    images : ndarray of shape (2, n_images, C, H, W), float or uint8
        The most certain images, beginning with the most certain, and the least certain, beginning with the least.
    score : ndarray of float of shape (2, n_images)
        Their scores; higher = more normal.
    rows : ndarray of int of shape (2, n_images)
        Their indices among all images, or among the views.
    threshold : float or None, default=None
        Images that score below it are called outliers: their scores are drawn in orange.
    name : str or None, default=None
        Title of the axes. With None there is none.

    Attributes
    ----------
    pictures_ : list of matplotlib AxesImage
        The images as drawn, the most certain first.
    texts_ : list of matplotlib Text
        Their scores, in the same order.
    ax_ : matplotlib Axes
        The axes with the images.
    figure_ : matplotlib Figure
        The figure that holds the axes.

    References
    ----------
    .. [1] Mike Wu and Noah Goodman, "A Simple Framework for Uncertainty in Contrastive Learning",
       arXiv:2010.02038, 2020, figures 1 to 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skood.plotting import CertaintyGalleryDisplay
    >>> images, score = np.random.default_rng(0).random((9, 3, 8, 8)), np.arange(9.0)
    >>> display = CertaintyGalleryDisplay.from_scores(images, score, n_images=2)
    >>> display.rows.tolist()
    [[8, 7], [0, 1]]
    """

    def __init__(self, *, images, score, rows, threshold=None, name=None):
        self.images = images
        self.score = score
        self.rows = rows
        self.threshold = threshold
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        n_images: int = 8,
        labels: ArrayLike | None = None,
        of: object = None,
        image_shape: Sequence[int] | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Score images with a fitted detector and draw the most and the least certain ones.

        Parameters
        ----------
        estimator : fitted detector
            Anything with ``score_samples`` or ``decision_function``, higher = more normal.
        X : array-like of shape (n_samples, C, H, W) or (n_samples, n_features), float or uint8
            Images as the detector takes them.
        n_images : int, default=8
            Number of the most certain images, and of the least certain ones. If X has fewer than twice as many, half of
            its images are drawn at each end.
        labels : array-like of shape (n_samples,) or None, default=None
            Class of each image; needed if ``of`` is given.
        of : object, default=None
            The class whose images are drawn. With None they are chosen among all images.
        image_shape : tuple (C, H, W) or None, default=None
            Shape of the images, if the rows of X are flattened pixels. With None it is the estimator's
            ``image_shape_``.
        name : str or None, default=None
            Title of the axes. With None it is the name of the estimator's class, followed by ``of``.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : CertaintyGalleryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If X holds no images, or fewer than two of the class ``of``.
        """
        score = scores_of(estimator, X)
        threshold = threshold_of(estimator, X, score)
        if name is None:
            name = type(estimator).__name__ + ("" if of is None else f": {of}")
        images = as_images(X, estimator, image_shape)
        options: dict[str, Any] = {
            "n_images": n_images,
            "labels": labels,
            "of": of,
            "threshold": threshold,
            "name": name,
        }
        return cls.from_scores(images, score, **options, ax=ax, **kwargs)

    @classmethod
    def from_scores(
        cls,
        images: ArrayLike,
        score: ArrayLike,
        *,
        n_images: int = 8,
        labels: ArrayLike | None = None,
        of: object = None,
        threshold: float | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw images whose scores are known.

        Parameters
        ----------
        images : array-like of shape (n_samples, C, H, W), float or uint8
            The images, of one or three channels.
        score : array-like of shape (n_samples,)
            The score of each image; higher = more normal. Among images of equal scores the first one comes first.
        n_images : int, default=8
            Number of the most certain images, and of the least certain ones. If there are fewer than twice as many,
            half of the images are drawn at each end.
        labels : array-like of shape (n_samples,) or None, default=None
            Class of each image; needed if ``of`` is given.
        of : object, default=None
            The class whose images are drawn. With None they are chosen among all images.
        threshold : float or None, default=None
            Images that score below it are called outliers: their scores are drawn in orange.
        name : str or None, default=None
            Title of the axes. With None there is none.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : CertaintyGalleryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If a score is NaN, or if there are fewer than two images of the class ``of``.
        """
        images, score = as_images(images), np.asarray(score, dtype=np.float64)
        check_consistent_length(images, score)
        if np.isnan(score).any():
            raise ValueError(f"score is NaN, first in row {int(np.isnan(score).argmax())}; leave that image out.")
        if (of is None) != (labels is None):
            raise ValueError("give labels (each image's class) and of (the class to draw) together, or neither.")
        chosen = np.arange(len(images))
        if of is not None:
            check_consistent_length(images, labels)
            chosen = np.flatnonzero(np.asarray(labels) == of)
        if n_images < 1 or len(chosen) < 2:
            which = "" if of is None else f" of class {of!r}"
            raise ValueError(
                f"n_images={n_images} of {len(chosen)} images{which} cannot be drawn at each end: give n_images >= 1, "
                "and at least 2 images."
            )
        n_images = min(n_images, len(chosen) // 2)
        # Sorted twice: the reverse of a stable order would put the last of equal scores first.
        ascending = np.argsort(score[chosen], kind="stable")
        descending = np.argsort(-score[chosen], kind="stable")
        rows = chosen[np.stack([descending[:n_images], ascending[:n_images]])]
        display = cls(images=images[rows], score=score[rows], rows=rows, threshold=threshold, name=name)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_views(
        cls,
        estimator: Any,
        image: ArrayLike,
        augmentation: str | Callable = "crop-flip",
        *,
        n_views: int = 200,
        n_images: int = 8,
        image_shape: Sequence[int] | None = None,
        random_state: int | np.random.RandomState | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Score random views of one image with a fitted detector and draw the most and the least certain ones.

        Parameters
        ----------
        estimator : fitted detector
            Anything with ``score_samples`` or ``decision_function``, higher = more normal.
        image : array-like of shape (C, H, W) or (n_features,), float or uint8
            The image as the detector takes it.
        augmentation : str or callable, default="crop-flip"
            The transformation that makes the views: a key of `skood.augment.AUGMENTATIONS`, or a callable that maps a
            tensor (n, C, H, W) to one of the same shape and draws from torch's generator. It gets uint8
            images scaled to [0, 1].
        n_views : int, default=200
            Number of views that are made and scored.
        n_images : int, default=8
            Number of the most certain and of the least certain views that are drawn.
        image_shape : tuple (C, H, W) or None, default=None
            Shape of the image, if its pixels are flattened. With None it is the estimator's ``image_shape_``.
        random_state : int, RandomState instance or None, default=None
            Seeds the views. torch's generators are left as they were found.
        name : str or None, default=None
            Title of the axes. With None it begins with the name of the estimator's class.
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        **kwargs
            Further options of `plot`.

        Returns
        -------
        display : CertaintyGalleryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If ``augmentation`` is no key of `skood.augment.AUGMENTATIONS`, or returns images of another shape.
        """
        image = np.asarray(image)
        views = _views(as_images(image[None], estimator, image_shape)[0], augmentation, n_views, random_state)
        X = views.reshape(n_views, *image.shape)
        score = scores_of(estimator, X)
        threshold = threshold_of(estimator, X, score)
        name = f"{type(estimator).__name__}: views of one image" if name is None else name
        return cls.from_scores(views, score, n_images=n_images, threshold=threshold, name=name, ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, *, n_columns: int = 8) -> Self:
        """Draw the images with their scores.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            The axes to draw on. With None a new figure is made.
        n_columns : int, default=8
            Largest number of images side by side.

        Returns
        -------
        display : CertaintyGalleryDisplay
            This display.
        """
        n_images, _, height, width = self.images.shape[1:]
        n_columns = min(n_columns, n_images)
        n_lines = math.ceil(n_images / n_columns)
        # All images share one pair of axes, so that the display fits into a figure that the caller made. Lengths are in
        # widths of an image: a cell has its score below it, and the two kinds stand apart.
        across, below, apart = 1.08, 0.34, 0.25
        down = height / width + below
        # In inches: an image is 0.95 wide; what is added leaves room for the labels and the title.
        size = (0.95 * across * n_columns + 0.8, 0.95 * (2 * n_lines * down + apart) + 0.6)
        self.ax_ = axes_for(ax, self, figsize=size, layout="constrained")
        self.figure_ = self.ax_.figure
        self.pictures_, self.texts_ = [], []
        shades, centers = shades_of(self.images), []
        for kind in range(2):
            start = kind * (n_lines * down + apart)
            centers.append(start + (n_lines * down - below) / 2)
            for number in range(n_images):
                left, top = number % n_columns * across, start + number // n_columns * down
                # The vertical axis points down, so that lines of images follow each other as text does.
                extent = (left, left + 1, top + height / width, top)
                picture = self.ax_.imshow(
                    shades[kind, number], extent=extent, cmap="gray", vmin=0, vmax=1, interpolation="nearest"
                )
                score = self.score[kind, number]
                accused = self.threshold is not None and score < self.threshold
                text = self.ax_.text(
                    left + 0.5,
                    top + height / width + 0.04,
                    f"{score:#.3g}",
                    color=OUTLIERS if accused else "black",
                    fontsize="small",
                    horizontalalignment="center",
                    verticalalignment="top",
                )
                self.pictures_.append(picture)
                self.texts_.append(text)
        bottom = 2 * n_lines * down + apart
        self.ax_.set(xlim=(-0.08, n_columns * across), ylim=(bottom, -0.08), xticks=[], title=self.name)
        self.ax_.set_yticks(centers, ["most certain", "least certain"], rotation=90, verticalalignment="center")
        accused = self.threshold is not None and (self.score < self.threshold).any()
        self.ax_.set_xlabel("score (higher = more normal)" + ("; orange: called an outlier" if accused else ""))
        self.ax_.tick_params(length=0)
        self.ax_.spines[:].set_visible(False)
        return self


def _views(image: np.ndarray, augmentation: str | Callable, n_views: int, random_state: Any) -> np.ndarray:
    """Return random views (n_views, C, H, W) of an image (C, H, W), of its dtype."""
    # Of all displays only this one needs torch, which takes a second to load.
    import torch

    from ..augment import AUGMENTATIONS, augmented
    from ..training.device import seeded

    if not callable(augmentation) and augmentation not in AUGMENTATIONS:
        raise ValueError(f"augmentation={augmentation!r} is neither callable nor one of {sorted(AUGMENTATIONS)}.")
    # Augmentations compute with pixels in [0, 1]; the detector gets the image's own type and scale again.
    bytes_ = image.dtype == np.uint8
    low, high = (0, 255) if bytes_ else (min(0.0, image.min()), max(1.0, image.max()))
    if callable(augmentation) and not bytes_:
        low, high = 0, 1
    values = torch.from_numpy(np.asarray((image - low) / (high - low), dtype=np.float32))
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    with seeded(seed, torch.device("cpu")), torch.no_grad():
        views = augmented(values.repeat(n_views, 1, 1, 1), augmentation).numpy()
    return (
        np.rint(255 * views.clip(0, 1)).astype(np.uint8) if bytes_ else (low + (high - low) * views).astype(image.dtype)
    )
