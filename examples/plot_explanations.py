"""
Why is this row an outlier?
===========================

``explain`` returns the contribution of each feature, or each pixel, to a row's score. It needs Captum:
``pip install 'skood[explain]'``.
"""

# %%
# A table of benign tumours. One new row has a mistyped feature.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

from skood import DUMDetector, NegSampleVAE
from skood.plotting import ExplanationDisplay

tumours = load_breast_cancer(as_frame=True)
benign = tumours.data[tumours.target == 1]
detector = DUMDetector(max_epochs=40, random_state=0, contamination=0).fit(benign[:250])
odd = benign[250:251].assign(**{"mean texture": 39.0})
contributions = detector.explain(odd)
print(contributions.iloc[0].sort_values().head(3).round(2))

# %%
# The contributions of a row add up to its score minus the median score of the training rows. Scores are higher for more
# normal rows, so that features that make a row an outlier have negative contributions.
print(contributions.sum(axis=1).round(4).tolist(), end=" = ")
print((detector.score_samples(odd) - np.median(detector.training_scores_)).round(4).tolist())

# %%
# Bars show the contributions, the largest first, beside the values of the row.
ExplanationDisplay.from_estimator(detector, odd, name="a mistyped texture")
plt.show()

# %%
# Images of digits, some with a bright patch in a corner. The detector reconstructs images, but not the unexpected
# patch.
digits = load_digits().data.reshape(-1, 1, 8, 8) / 16
vae = NegSampleVAE(max_epochs=30, random_state=0, contamination=0).fit(digits[:600])
patched = digits[700:703].copy()
patched[:, :, :2, :2] = 1.0

figure, axes = plt.subplots(3, 1, figsize=(7, 7.5), layout="constrained")
for row, ax in enumerate(axes):
    ExplanationDisplay.from_estimator(vae, patched, row=row, name="", ax=ax)
plt.show()

# %%
# An ordinary digit has small contributions everywhere.
maps = vae.explain(np.concatenate([digits[703:704], patched]))
print("lowest contribution of a pixel:", maps.min(axis=(1, 2)).round(1).tolist())
