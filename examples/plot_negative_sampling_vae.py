"""
When what is strange looks likely, and a cure
=============================================

A variational autoencoder is trained on 8 x 8 patches of a photograph of a flower, and scores faint handwritten digits.
They do not resemble petals, yet they are *more* likely under the model than its training patches, because dark areas
cost next to nothing. Negative samples mend this. Here they need no other data: they are patches that the decoder
generates, and that the encoder learns to tell from real ones.

How much they help depends on the data. Here the AUROC rises from 0.31 to 0.99; on the other photograph of
scikit-learn, ``china.jpg``, only from 0.55 to 0.90.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d

from skood import NegSampleVAE
from skood.metrics import auroc

# %%
# Grey pixels in [0, 1]. Training patches come from the left half of the photograph, test patches from the right half.
photograph = load_sample_image("flower.jpg").mean(2) / 255
left_half, right_half = photograph[:, :320], photograph[:, 320:]
patches = extract_patches_2d(left_half, (8, 8), max_patches=2000, random_state=0)[:, None]
test = extract_patches_2d(right_half, (8, 8), max_patches=500, random_state=0)[:, None]
digits = 0.4 * load_digits().images[:500, None] / 16

# %%
# As in the paper, the model without negatives scores by its ELBO, a bound on the likelihood, and the other by the
# divergence of a row's posterior from the prior. The default score, "robust", also compares the ELBO with that of a
# perfect reconstruction, so that dark areas gain nothing.
settings = {"max_epochs": 10, "contamination": 0, "random_state": 0}
likelihood = NegSampleVAE(negatives=None, score_type="elbo", **settings).fit(patches)
detector = NegSampleVAE(negatives="generated", score_type="kl", **settings).fit(patches)

figure = plt.figure(figsize=(11, 6), layout="constrained")
axes = figure.subplot_mosaic([["plain", "negatives"], ["patches", "digits"]], height_ratios=[3, 1])
truth = np.repeat([1, -1], [len(test), len(digits)])
for name, model, title in (
    ("plain", likelihood, "no negatives: ELBO"),
    ("negatives", detector, "negatives from the decoder: -log KL"),
):
    inside, outside = model.score_samples(test), model.score_samples(digits)
    if model.score_type_ == "kl":
        inside, outside = -np.log(-inside), -np.log(-outside)
    score = auroc(truth, np.concatenate([inside, outside]))
    print(f"{title}: AUROC {score:.3f}")
    bins = np.histogram_bin_edges(np.concatenate([inside, outside]), bins=50)
    axes[name].hist(inside, bins, alpha=0.6, label="flower")
    axes[name].hist(outside, bins, alpha=0.6, label="digits, never seen")
    axes[name].set(title=f"{title}, AUROC {score:.2f}", xlabel="score, higher = more normal", ylabel="patches")
    axes[name].legend()

# The images that both models scored, and their reconstructions.
for name, rows in (("patches", test), ("digits", digits)):
    made = detector.reconstruct(rows[:20])
    sheet = np.full((18, 20 * 9), np.nan)
    for place in range(20):
        sheet[:8, 9 * place : 9 * place + 8] = rows[place, 0]
        sheet[9:17, 9 * place : 9 * place + 8] = made[place, 0]
    axes[name].imshow(sheet, cmap="gray", vmin=0, vmax=1)
    axes[name].set(title=f"{name}, and their reconstructions", xticks=[], yticks=[])

robust = likelihood.score_components(np.concatenate([test, digits]))["robust"]
print(f"no negatives, the default score: AUROC {auroc(truth, robust):.3f}")
plt.show()
