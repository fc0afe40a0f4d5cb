"""
Where a threshold comes from
============================

A detector ranks rows; a threshold turns the ranking into decisions. A network scores its training rows higher than new
rows of the same kind, so that a share of the *training* rows says little about new ones. The picture shows the scores
of both, and three thresholds.
"""

# %%
# Benign tumours are the inliers. The detector is trained on some, one part is held out, and the others are new.
import matplotlib.pyplot as plt
import numpy as np

from skood import DUMDetector
from skood.datasets import load

X, y = load("breast_cancer")
inliers = np.random.default_rng(0).permutation(np.flatnonzero(y == 1))
train, held_out, new = inliers[:100], inliers[100:200], inliers[200:]
detector = DUMDetector(hidden_sizes=(64, 64), max_epochs=150, random_state=0).fit(X[train])

# %%
# "auto", the default, sets the threshold on the scores of rows that were held out from copies of the detector.
# ``set_threshold`` changes the threshold without another fit: to a share of the training rows, as a number for
# ``contamination`` does, or to a share of held-out rows.
thresholds = {'"auto"': detector.offset_}
thresholds["5 % of the training rows"] = detector.set_threshold(contamination=0.05).offset_
thresholds["5 % of held-out rows"] = detector.set_threshold(target_fpr=0.05, X=X[held_out]).offset_

# %%
# New inliers score lower than training rows: below a threshold from the training rows lie several times its share of
# new inliers.
scores = {
    "training rows": detector.score_samples(X[train]),
    "new inliers": detector.score_samples(X[new]),
    "outliers": detector.score_samples(X[y == -1]),
}
for name, threshold in thresholds.items():
    accused, caught = ((scores[rows] < threshold).mean() for rows in ("new inliers", "outliers"))
    print(f"{name}: calls {accused:.0%} of the new inliers outliers, and {caught:.0%} of the outliers")

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
low = np.quantile(np.concatenate(list(scores.values())), 0.01)
bins = np.linspace(low, max(map(np.max, scores.values())), 50)
for (name, values), color in zip(scores.items(), ("tab:green", "tab:blue", "tab:orange"), strict=True):
    ax.hist(np.maximum(values, low), bins, density=True, histtype="stepfilled", alpha=0.4, color=color, label=name)
for (name, threshold), style in zip(thresholds.items(), ("-", ":", "--"), strict=True):
    ax.axvline(threshold, color="black", linestyle=style, label=f"threshold: {name}")
ax.set(xlabel="score, higher = more normal", ylabel="density")
ax.legend()
plt.show()
