"""
From a folder of images to a decision on a new file
===================================================

A camera has photographed good parts, and a few bad ones. Here the parts are handwritten zeros: "good" ones, zeros
without their upper half ("broken"), and other digits ("other"). The first block writes the folder; the rest is the code
for a folder of your own. This example needs ``pip install 'skood[images]'``.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from skood import DUMDetector
from skood.datasets import load_image_folder
from skood.metrics import auroc

# %%
# The folder has PNG files in ``train/good``, ``test/good``, ``test/bad/broken`` and ``test/bad/other``.
holder = tempfile.TemporaryDirectory()
folder = Path(holder.name)


def save(pixels, kind, name):
    """Write one image, four times as large as scikit-learn's."""
    (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).resize((32, 32)).save(folder / kind / f"{name}.png")


data = load_digits()
images = data.images * 255 / 16
zeros = np.flatnonzero(data.target == 0)
# Every third image is for the test. Consecutive images are by the same writer, so that both parts have all writers.
for number in np.delete(zeros, slice(None, None, 3)):
    save(images[number], "train/good", number)
for number in zeros[::3]:
    save(images[number], "test/good", number)
    broken = images[number].copy()
    broken[:4] = 0
    save(broken, "test/bad/broken", number)
for number in np.flatnonzero(data.target != 0)[:60]:
    save(images[number], "test/bad/other", number)

# %%
# Read the folder. All images get the same size and number of channels; ``mode="RGB"`` would give three channels.
options = {"size": 8, "mode": "L"}
train = load_image_folder(folder / "train", **options)
test = load_image_folder(folder / "test", outliers=["bad"], **options)
print(f"{len(train.X)} images {train.X.shape[1:]} to learn from; to test: {np.sum(test.y == 1)} good, the rest bad")

# %%
# The detector is fitted on good images alone. Its threshold calls about one new good image in twenty bad.
detector = DUMDetector(max_epochs=60, random_state=0).fit(train.X)
decision = detector.predict(test.X)
score = detector.score_samples(test.X)
print(f"AUROC {auroc(test.y, score):.2f}")
for kind in ("good", "bad/broken", "bad/other"):
    here = np.array([Path(file).parent == folder / "test" / kind for file in test.files])
    print(f"{kind}: {np.mean(decision[here] == -1):.0%} of {here.sum()} images are called bad")

# %%
# A new file is read with the same options.
new = folder / "new.png"
Image.new("L", (40, 30), "white").save(new)
row = load_image_folder(new, **options).X
print(f"new.png: {'good' if detector.predict(row)[0] == 1 else 'bad'}")

# %%
# The files with the lowest scores are those to look at first.
worst = test.files[np.argsort(score)]
figure, axes = plt.subplots(2, 8, figsize=(10, 3), layout="constrained")
for ax, file in zip(axes.flat, [*worst[:8], *worst[-8:]], strict=True):
    ax.imshow(Image.open(file), cmap="gray")
    ax.set(title=Path(file).parent.name, xticks=[], yticks=[])
axes[0, 0].set_ylabel("lowest scores")
axes[1, 0].set_ylabel("highest scores")
plt.show()
holder.cleanup()
