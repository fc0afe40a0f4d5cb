"""Draw the picture at the top of each method's page: ``python docs/method_pictures.py`` writes ``_static/methods``.

The pages show what was drawn and committed, so that building them takes no fits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_blobs, make_moons
from sklearn.linear_model import LogisticRegression

from skood import (
    DUMDetector,
    NegSampleVAE,
    OODScorer,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
)
from skood.datasets import load

OUT = Path(__file__).parent / "_static" / "methods"
NORMAL, STRANGE, GROUND = "#2b6cb0", "#c05621", "cividis_r"


def digits():
    """Return images of digits (n, 1, 8, 8) in [0, 1], and which digits they are; in random order."""
    X, digit = load("digits", classes=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], digit[order]


def plane(detector, points, colors, markers):
    """Draw the score of a detector over a plane, its threshold, and points of several kinds."""
    figure, axes = plt.subplots(figsize=(6.2, 3.6), layout="constrained")
    everything = np.concatenate(points)
    low, high = everything.min(0) - 0.6, everything.max(0) + 0.6
    columns, rows = np.meshgrid(np.linspace(low[0], high[0], 220), np.linspace(low[1], high[1], 160))
    score = detector.decision_function(np.column_stack([columns.ravel(), rows.ravel()])).reshape(columns.shape)
    # Ranks: scores far outside would take all the shades.
    shade = np.argsort(np.argsort(score, axis=None)).reshape(score.shape)
    axes.pcolormesh(columns, rows, shade, cmap=GROUND, shading="auto", rasterized=True)
    axes.contour(columns, rows, score, [0], colors="white", linewidths=1.6)
    for some, color, marker in zip(points, colors, markers, strict=True):
        axes.scatter(*some.T, s=12, c=color, marker=marker, edgecolors="white", linewidths=0.4)
    axes.set(xticks=[], yticks=[])
    return figure


def histogram(normal, strange, labels, x, ticks=None):
    """Draw the scores of two kinds of rows; with ticks the axis is logarithmic on both sides of 0."""
    figure, axes = plt.subplots(figsize=(6.2, 2.8), layout="constrained")
    everything = np.concatenate([normal, strange])
    bins = np.quantile(everything, [0.005, 0.995])
    if ticks is None:
        bins = np.linspace(*bins, 40)
    else:
        width = min(abs(tick) for tick in ticks if tick)
        bins = width * np.sinh(np.linspace(*np.arcsinh(bins / width), 40))
        axes.set_xscale("asinh", linear_width=width)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    for scores, color, label in zip((normal, strange), (NORMAL, STRANGE), labels, strict=True):
        shares = np.full(len(scores), 1 / len(scores))
        axes.hist(np.clip(scores, bins[0], bins[-1]), bins, weights=shares, color=color, alpha=0.65, label=label)
    axes.set(yticks=[], xlabel=x)
    axes.spines[["left", "top", "right"]].set_visible(False)
    # Above the bars, which the legend would cover.
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])
    axes.legend(frameon=False)
    return figure


def dum():
    X, _ = make_moons(400, noise=0.06, random_state=0)
    return plane(DUMDetector(random_state=0).fit(X), [X], [NORMAL], ["o"])


def reject_classes():
    X, y = make_blobs(300, centers=[[-3, 0], [0, 2.5], [3, 0]], cluster_std=0.5, random_state=0)
    corpus = np.random.default_rng(0).uniform([-6, -3.5], [6, 6], (300, 2))
    near = (np.linalg.norm(corpus[:, None] - [[-3, 0], [0, 2.5], [3, 0]], axis=2) < 1.8).any(1)
    corpus = corpus[~near]
    detector = RejectClassDetector(random_state=0)
    detector.fit(np.concatenate([X, corpus]), np.concatenate([y, np.full(len(corpus), -1)]))
    kinds = [X[y == label] for label in range(3)]
    return plane(detector, [*kinds, corpus], [NORMAL, "#2f855a", "#6b46c1", STRANGE], ["o", "s", "^", "x"])


def negative_sampling_vae():
    X, digit = digits()
    known = X[digit != 9]
    vae = NegSampleVAE(random_state=0).fit(known[:800])
    new = known[800:1100]
    odd = np.concatenate([X[digit == 9][:6], np.rot90(new[:6], axes=(2, 3)), 1 - new[6:12]])
    scores, strange = vae.score_samples(new), vae.score_samples(odd)
    figure, axes = plt.subplots(2, 12, figsize=(6.2, 1.6), layout="constrained")
    shown = [(new, scores, np.argsort(-scores)[:12]), (odd, strange, np.argsort(strange)[:12])]
    for row, (images, _, chosen) in zip(axes, shown, strict=True):
        for cell, place in zip(row, chosen, strict=True):
            cell.imshow(images[place, 0], cmap="gray_r", vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("normal", fontsize=8)
    axes[1, 0].set_ylabel("strange", fontsize=8)
    return figure


def rotation():
    X, digit = digits()
    known = digit < 7
    train = np.flatnonzero(known)[:700]
    new = np.flatnonzero(known)[700:]
    detector = RotationAuxClassifier(random_state=0).fit(X[train], digit[train])
    scores = (detector.score_samples(X[part]) for part in (new, np.flatnonzero(~known)))
    return histogram(*scores, ("new images of digits that were learnt", "digits that were never seen"), "score")


def residual_adapters():
    X, digit = digits()
    own, corpus, unseen = (np.flatnonzero(part) for part in (digit == 3, digit < 3, digit > 5))
    rows = np.concatenate([own[:90], corpus[:300]])
    detector = ResidualAdapterDetector(contamination=0, random_state=0)
    detector.fit(X[rows], np.where(digit[rows] == 3, 1, -1))
    scores = (detector.score_samples(X[part]) for part in (own[90:], unseen))
    labels = ("new threes", "digits that were neither rows nor corpus")
    return histogram(*scores, labels, "score", ticks=[-10, -1, -0.1, -0.01, 0])


def scores():
    X, digit = digits()
    X = X.reshape(len(X), -1)
    known = np.flatnonzero(digit < 8)
    classifier = LogisticRegression(max_iter=1000).fit(X[known[:600]], digit[known[:600]])
    scorer = OODScorer(classifier, "energy").fit(X[known[600:1000]])
    kinds = (scorer.score_samples(X[part]) for part in (known[1000:], np.flatnonzero(digit >= 8)))
    return histogram(*kinds, ("digits that the classifier knows", "eights and nines"), "energy score")


PICTURES = {
    function.__name__: function
    for function in (dum, reject_classes, negative_sampling_vae, rotation, residual_adapters, scores)
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PICTURES)}; all by default")
    names = parser.parse_args().names or list(PICTURES)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in names:
        PICTURES[name]().savefig(OUT / f"{name}.png", dpi=110)
        print(OUT / f"{name}.png")


if __name__ == "__main__":
    main()
