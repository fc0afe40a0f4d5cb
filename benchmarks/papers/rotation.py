"""Tables of the paper on semantic anomalies."""

from __future__ import annotations

from papers.base import (
    CIFAR10,
    CIFAR100,
    FEWER,
    NEEDS_IMAGENET,
    OBJECTS,
    REJECT,
    SEMANTIC,
    STL10,
    STL10_FILES,
    TINY,
    PaperTable,
    Size,
    both,
    usual,
)

CLOTHES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
DOGS = ["Chihuahua", "Yorkshire terrier", "golden retriever", "Labrador", "German shepherd", "standard poodle"]
DIGITS = [str(digit) for digit in range(10)]
NO_CLASS = ["none"]
THREE = ["classes", "classes, twice the epochs", "classes and rotations"]


def holdout(dataset, classes, classifiers, large="paper"):
    """Return the sizes of a table of held-out classes; ``large`` is the largest size that the data set has."""

    def make(budget):
        chosen = large if budget == "gpu" else "small"
        arguments = ["--dataset", dataset, "--classifiers", ";".join(classifiers), "--size", chosen]
        arguments += ["--classes", "none"] if classes == NO_CLASS else []
        wanted = {"dataset": [dataset], "size": [chosen], "classifier": classifiers, "class": classes}
        return Size(arguments, [wanted | usual("max_epochs", "precision")])

    return both(make)


def ood_suite(*classifiers):
    def make(budget):
        chosen = "full" if budget == "gpu" else "small"
        arguments = ["--classifiers", ";".join(classifiers), "--size", chosen]
        return Size(arguments, [{"size": [chosen], "classifier": list(classifiers), **usual("precision", "far")}])

    return both(make)


SUITE = [*CIFAR10, *CIFAR100, TINY, "images/mnist_test", "images/kmnist_t10k", "images/notmnist_10k"]
SUITE += ["images/fashion_mnist_test"]
FEW_STL10 = "100 of 500 training images a class, 20 of 800 test images"
DOG_BREEDS = "images/tinyimagenet_6dogs_900_64"
OF_DOGS = "ILSVRC2012: six breeds of Tiny ImageNet, of 64 pixels, stand for twelve hounds; a WRN-16-4 for its network"
TABLES = {
    "semantic-2": PaperTable(
        SEMANTIC,
        "Table 2, accuracy with all classes",
        "ood_suite",
        SUITE,
        *ood_suite("plain", "rotations"),
        f"the paper's network: a WRN-40-2 and 100 epochs stand for it; the column of STL-10 is the next; {FEWER}",
    ),
    "semantic-2-stl10": PaperTable(
        SEMANTIC,
        "Table 2, accuracy with all classes: the column of STL-10",
        "holdout_class",
        STL10_FILES,
        *holdout("stl10", NO_CLASS, ["classes", "classes and rotations"]),
        FEW_STL10,
    ),
    "semantic-3": PaperTable(
        SEMANTIC,
        "Table 3, a class of CIFAR-10 held out; the last column of appendix D",
        "holdout_class",
        CIFAR10,
        *holdout("cifar10", OBJECTS, [*THREE, "pixels"]),
        FEWER,
    ),
    "semantic-4": PaperTable(
        SEMANTIC,
        "Table 4, a class of STL-10 held out",
        "holdout_class",
        STL10_FILES,
        *holdout("stl10", STL10, THREE),
        FEW_STL10,
    ),
    "semantic-5-dogs": PaperTable(
        SEMANTIC,
        "Table 5, subsets of ImageNet: the row of dogs",
        "holdout_class",
        [DOG_BREEDS],
        *holdout("dogs", DOGS, THREE, "gpu"),
        OF_DOGS,
    ),
    "semantic-6-dogs": PaperTable(
        SEMANTIC,
        "Table 6, subsets of ImageNet, CPC: the row of dogs",
        "holdout_class",
        [DOG_BREEDS],
        *holdout("dogs", DOGS, ["classes", "classes and CPC"], "gpu"),
        OF_DOGS,
    ),
    "semantic-masked": PaperTable(
        SEMANTIC,
        "section 5.2, images with a masked centre",
        "holdout_class",
        CIFAR10,
        *holdout("cifar10", OBJECTS, ["classes", "classes, masked", "classes and rotations"]),
        FEWER,
    ),
    "semantic-digits": PaperTable(
        SEMANTIC,
        "no table: the protocol of Table 3 on digits of 8 x 8 pixels",
        "holdout_class",
        [],
        *holdout("digits", DIGITS, THREE, "gpu"),
        "settings for such images: a WRN-16-4 is the larger one",
    ),
    "semantic-fashion": PaperTable(
        SEMANTIC,
        "no table: the protocol of Table 3 on Fashion-MNIST",
        "holdout_class",
        ["images/fashion_mnist_train", "images/fashion_mnist_test"],
        *holdout("fashion-mnist", CLOTHES, [*THREE, "pixels"]),
    ),
    "ood-suite": PaperTable(
        f"{REJECT}; {SEMANTIC}",
        "no table: classifiers of both on near and far sets",
        "ood_suite",
        SUITE,
        *ood_suite("plain", "rotations", "outlier exposure", "reject classes"),
        "textures and SVHN, for which give files with --far; the larger network is a WRN-40-2",
    ),
}

# Tables and figures without a command, and why.
WITHOUT = {
    (SEMANTIC, "Tables 1 and 7, members of subsets"): "they list classes of ImageNet, and have no results",
    (SEMANTIC, "Tables 5 and 6, all rows but dogs; appendices B and C"): NEEDS_IMAGENET,
    (SEMANTIC, "Figure 1, curves of training"): "no script keeps scores of each epoch",
    (SEMANTIC, "Figures 2 to 6, samples of images"): f"{NEEDS_IMAGENET}; pictures without figures",
    (SEMANTIC, "appendix D, all columns but the last"): "LSUN, iSUN and Tiny ImageNet's cuts for ODIN are not here",
}
