"""Train the backbone that comes with skood, and write it to skood/weights.

    python benchmarks/train_backbone.py --data-home DIR [--precision bfloat16] [--max-epochs 120]

DIR (or the variable SKOOD_DATA) holds ``images/cifar100_train_100perclass.npz`` and ``..._test_20perclass.npz``: a
fifth of CIFAR-100's training images, and of its test images. A ResNet-26 of width 16 is trained on their hundred
classes. No image of CIFAR-10 is used, so that detectors with this backbone can be evaluated on CIFAR-10.

On one core with bfloat16 an epoch takes about 21 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from reject_classes import images

from skood import BackboneClassifier
from skood.augment import crop_and_flip, mask_center
from skood.backbones import SHIPPED

WIDTH = 16


def jitter(rows):
    """Vary saturation, contrast and brightness of each standardised image."""

    def between(low, high):
        return low + (high - low) * torch.rand(len(rows), 1, 1, 1, device=rows.device)

    grey = rows.mean(1, keepdim=True)
    rows = grey + between(0.6, 1.4) * (rows - grey)
    mean = rows.mean((1, 2, 3), keepdim=True)
    return mean + between(0.7, 1.3) * (rows - mean) + between(-0.3, 0.3)


def augment(rows):
    """Shift and mirror images, vary the colours, and mask a random square of a quarter of the side."""
    return mask_center(jitter(crop_and_flip(rows)), size=0.25, region=1.0)


def write(classifier, accuracy, options, folder, interrupted=""):
    """Write the weights in half precision, and a description beside them."""
    folder.mkdir(exist_ok=True)
    state = {
        name: value.numpy().astype(np.float16) if value.is_floating_point() else value.numpy()
        for name, value in classifier.module_.cpu().state_dict().items()
    }
    np.savez(folder / f"{SHIPPED}.npz", **state)
    about = {
        "network": f"ResNet-26 of width {WIDTH}",
        "width": WIDTH,
        "n_classes": len(classifier.classes_),
        "mean": [round(float(value), 6) for value in classifier.scaler_.mean_],
        "std": [round(float(value), 6) for value in classifier.scaler_.scale_],
        "data": "10,000 training images of CIFAR-100, 100 of each class",
        "top_1_accuracy": round(accuracy, 4),
        "top_1_accuracy_of": "2,000 test images of CIFAR-100, 20 of each class",
        "recipe": f"{options.max_epochs} epochs{interrupted} of Nesterov's SGD, batches of 128, learning rate 0.1 "
        "falling by half a cosine, weight decay 5e-4, gradients shortened to 5; images shifted by up to 4 pixels, "
        f"mirrored, varied in colour, a square of 8 pixels blotted out; {options.precision} arithmetic, weights stored "
        "as float16",
        "command": f"python benchmarks/train_backbone.py --precision {options.precision} --max-epochs "
        f"{options.max_epochs}",
    }
    (folder / f"{SHIPPED}.json").write_text(json.dumps(about, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, default=os.environ.get("SKOOD_DATA"))
    parser.add_argument("--max-epochs", type=int, default=120)
    parser.add_argument("--precision", default="auto", help="bfloat16 is faster on some CPUs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "skood" / "weights")
    options = parser.parse_args()
    if options.data_home is None:
        parser.error("--data-home or SKOOD_DATA is needed")

    X, y = images(Path(options.data_home), "cifar100_train_100perclass")
    X_test, y_test = images(Path(options.data_home), "cifar100_test_20perclass")
    classifier = BackboneClassifier(
        f"resnet-26-{WIDTH}",
        augmentation=augment,
        max_epochs=options.max_epochs,
        batch_size=128,
        lr=0.1,
        precision=options.precision,
        device=options.device,
        verbose=1,
        random_state=0,
    )
    start = time.perf_counter()
    interrupted = ""
    try:
        classifier.fit(X, y)
    except KeyboardInterrupt:
        # The weights of the finished epochs are still worth writing.
        interrupted = f", interrupted after {len(classifier.history_)} of them"
    print(f"{time.perf_counter() - start:.0f} s, loss {classifier.history_[-1]['train_loss']:.3f}")
    # The accuracy must be that of the stored weights, in half precision.
    classifier.module_.half().float()
    accuracy = classifier.score(X_test, y_test)
    print(f"top-1 accuracy {100 * accuracy:.1f} %")
    write(classifier, accuracy, options, options.out, interrupted)


if __name__ == "__main__":
    main()
