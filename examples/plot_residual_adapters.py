"""
Ten detectors on one backbone
=============================

Each digit in turn is normal, and all other digits are anomalies. Ten detectors usually need ten networks. Each
``ResidualAdapterDetector`` here adds small adapters to one network, which is trained once, frozen and shared.

The adapters learn from some images of the digit, and from an unlabelled corpus that contains all digits.
"""

# %%
# Half of the images are the corpus. The others are for training and testing, half each.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skood import ResidualAdapterDetector
from skood.metrics import auroc

X, digit = load_digits(return_X_y=True)
corpus, X, _, digit = train_test_split(X, digit, test_size=0.5, random_state=0)
X_train, X_test, digit_train, digit_test = train_test_split(X, digit, test_size=0.5, stratify=digit, random_state=0)


def training_rows(normal):
    """Return images of one digit and the corpus, which y marks by -1."""
    rows = X_train[digit_train == normal]
    return np.vstack([rows, corpus]), np.repeat([1, -1], [len(rows), len(corpus)])


# %%
# The first detector also trains the backbone, to recognise by how much an image is rotated, which needs no labels.
settings = {"image_shape": (1, 8, 8), "max_epochs": 25, "contamination": 0, "random_state": 0}
first = ResidualAdapterDetector("resnet-8-8", pretrain_epochs=10, **settings).fit(*training_rows(0))

# %%
# The other detectors use the backbone of the first. For comparison, one detector for each digit trains nothing, and
# scores an image by its nearest neighbours among the frozen features.
detectors, frozen = [first], []
for normal in range(10):
    rows = training_rows(normal)
    frozen.append(ResidualAdapterDetector(first, adaptation="frozen", **settings).fit(*rows))
    if normal > 0:
        detectors.append(ResidualAdapterDetector(first, **settings).fit(*rows))

assert all(detector.backbone_ is first.backbone_ for detector in [*detectors, *frozen])

areas = {
    name: [auroc(np.where(digit_test == n, 1, -1), chosen[n].score_samples(X_test)) for n in range(10)]
    for name, chosen in {"frozen features, nearest neighbours": frozen, "adapters": detectors}.items()
}
for name, values in areas.items():
    print(f"{name}: mean AUROC {np.mean(values):.3f}")

# %%
# Adapters detect images that are not the digit, and ten sets of adapters are far smaller than ten networks.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(2, 1), layout="constrained")
for offset, (name, values) in zip((-0.2, 0.2), areas.items(), strict=True):
    left.bar(np.arange(10) + offset, values, width=0.4, label=f"{name} (mean {np.mean(values):.3f})")
left.set(xticks=range(10), xlabel="normal digit", ylabel="AUROC", ylim=(0.5, 1.15), title="one digit against the rest")
left.legend(loc="upper left", ncols=2, fontsize="small")

backbone = first.n_backbone_parameters_
adapters = sum(detector.n_adapter_parameters_ for detector in detectors)
right.bar("ten networks", 10 * backbone, color="tab:gray")
right.bar("one backbone,\nten sets of adapters", backbone, color="tab:gray")
right.bar("one backbone,\nten sets of adapters", adapters, bottom=backbone, color="tab:orange", label="adapters")
right.set(ylabel="parameters", title="what is stored")
right.legend()
plt.show()
