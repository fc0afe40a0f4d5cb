"""
When what is strange looks likely, and a cure
=============================================

A variational autoencoder learns 8 x 8 patches of a photograph of a flower, and meets faint handwritten digits. They are
nothing like petals, yet they are *more* likely under the model than the patches it was trained on: dark areas cost it
next to nothing. Negative samples are the cure. Here they need no other data: they are patches that the model makes up
itself, and that its encoder learns to tell from real ones.

How much they help depends on the data. On the other photograph that scikit-learn carries, ``china.jpg``, the AUROC
rises from 0.56 to 0.91 only; here from 0.25 to nearly 1.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d

from skood import NegSampleVAE
from skood.metrics import auroc

# %%
# Grey pixels in [0, 1]. The patches to test on come from the right half of the photograph, of which none is trained on.
photograph = load_sample_image("flower.jpg").mean(2) / 255
left_half, right_half = photograph[:, :320], photograph[:, 320:]
patches = extract_patches_2d(left_half, (8, 8), max_patches=3000, random_state=0)[:, None]
test = extract_patches_2d(right_half, (8, 8), max_patches=1000, random_state=0)[:, None]
digits = 0.4 * load_digits().images[:1000, None] / 16

# %%
# As in the paper, the plain model is scored by its ELBO, a bound on the likelihood, and the other one by how far a
# row's posterior is from the prior. The default score of the plain model also compares the ELBO with that of a perfect
# reconstruction, which dark areas do not bring nearer.
settings = {"max_epochs": 12, "contamination": 0, "random_state": 0}
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

# What both were scored on, and what the decoder made of it.
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
