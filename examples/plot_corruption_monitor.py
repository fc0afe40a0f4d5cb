"""
A monitor of a model's input
============================

A detector fitted on clean images gives corrupted images lower scores. ``drift_table`` tests for fifteen corruptions at
several severities whether it notices them, as in Table 1 of the DUM paper.
"""

# %%
# Squares are cropped from two photographs that come with scikit-learn: some for training, some as a clean reference,
# and some as a batch of inputs to a deployed model.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.pipeline import make_pipeline
from sklearn.utils import shuffle

from skood import DUMDetector, FrozenEncoder
from skood.corruptions import corrupt
from skood.drift import drift_table

squares = np.concatenate(
    [
        photograph[top : top + 32, left : left + 32][None]
        for photograph in load_sample_images().images
        for top in range(0, photograph.shape[0] - 31, 32)
        for left in range(0, photograph.shape[1] - 31, 32)
    ]
)
X = shuffle(squares.transpose(0, 3, 1, 2), random_state=0)
X_train, reference, batch = X[:320], X[320:420], X[420:480]

# %%
# The network that comes with skood stays frozen; the detector learns the uncertainty of its features. Only scores are
# used here: ``contamination=0`` saves the further fits that set a threshold.
monitor = make_pipeline(FrozenEncoder(), DUMDetector(max_epochs=100, contamination=0, random_state=0)).fit(X_train)
table = drift_table(monitor, batch, reference=reference, severities=(1, 5), random_state=0)
print(table.round(3).to_string())

# %%
# The clean batch differs from the reference only by chance. Noise and weather are easy to notice, blur is not, because
# many squares of a photograph are smooth anyway.
clean = table.loc[("none", 0)]
print(f"clean against clean: p = {clean.pvalue:.2f}, AUROC {clean.auroc:.2f}")

areas = table.auroc[table.index.get_level_values("corruption") != "none"].unstack()
areas = areas.loc[areas[5].sort_values().index]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 5), width_ratios=(3, 2), layout="constrained")
for severity in areas:
    left.plot(areas[severity], areas.index, "o", label=f"severity {severity}")
left.axvline(clean.auroc, color="gray", linestyle="--", label="clean")
left.set(xlabel="AUROC of clean against corrupted", title="what the monitor notices")
left.legend()

names = ["none", *areas.index[[0, 7, 14]]]
shown = [batch[:4] if name == "none" else corrupt(batch[:4], name, 5, random_state=0) for name in names]
rows = [np.concatenate(list(images.transpose(0, 2, 3, 1)), axis=1) for images in shown]
right.imshow(np.concatenate(rows))
right.set(xticks=[], yticks=16 + 32 * np.arange(4), yticklabels=[name.replace("_", " ") for name in names])
right.set_title("severity 5")
plt.show()
