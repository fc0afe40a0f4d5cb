"""Run and print a table of one of the five papers, its figures beside ours, on available data.

    python benchmarks/paper_tables.py --list [--budget gpu]
    python benchmarks/paper_tables.py --missing [--table nsvae-3]
    python benchmarks/paper_tables.py --table nsvae-3 --data-home DIR [--budget gpu] [--seeds 1]

The script of the table runs and prints it, with three seeds by default. The budget "cpu" takes hours at most on two
cores for one seed; "gpu" is the papers' own, or comes nearest to it. ``--list`` prints which table of which paper it
is, what it needs and the command. ``--missing`` prints what is done, of three seeds each, and what is not, as
``docs/results`` and ``--out`` have it; and the tables and figures of the papers that have no command, with the reason.

Runs in ``docs/results`` are copied into ``--out`` instead of being run again. After an interruption, the same command
goes on from the last run.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results"
N_SEEDS = 3
# Scripts that read no data folder.
WITHOUT_HOME = ("disentanglement",)


class Size(NamedTuple):
    """The command that makes a table with a budget, and the runs that it wants.

    Attributes
    ----------
    arguments : list of str
        Of the script; "DIR/" at the beginning of a path stands for the data folder.
    wanted : list of dict
        Columns of the script's CSV file and their values: all combinations in a dict are wanted, with each seed.
    """

    arguments: list[str]
    wanted: list[dict[str, list[str]]]


class PaperTable(NamedTuple):
    """A table or figure of a paper, or what its protocol says of other data.

    Attributes
    ----------
    paper, table : str
    script : str
        Name of a script beside this one.
    files : list of str
        Files under the data folder, without their suffix.
    small, paper_size : Size
        With the budgets "cpu" and "gpu".
    absent : str
        What of the paper is not here, and what stands for it.
    """

    paper: str
    table: str
    script: str
    files: list[str]
    small: Size
    paper_size: Size
    absent: str = "nothing"

    def size(self, budget):
        return self.paper_size if budget == "gpu" else self.small


# --------------------------------------------------------------------------------------------------------------------
# What tables have in common

SIZE_OF = {"cpu": "small", "gpu": "paper"}
CIFAR10 = ["images/cifar10_train_1000perclass", "images/cifar10_test_500perclass"]
CIFAR100 = ["images/cifar100_train_100perclass", "images/cifar100_test_20perclass"]
TINY = "images/tinyimagenet_val_3000_32"
FEWER = "1000 of 5000 training images a class"


def size(budget):
    return ["--size", "paper"] if budget == "gpu" else []


def both(make):
    """Return a Size for each budget."""
    return make("cpu"), make("gpu")


# --------------------------------------------------------------------------------------------------------------------
# DUM

DUM = "DUM (Wu & Goodman)"
CORRUPTIONS = ["gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur"]
CORRUPTIONS += ["zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate"]
CORRUPTIONS += ["jpeg_compression"]
ON_EMBEDDINGS = ["DUM", "DUM, circular", "DUM, unit length", "DUM, printed", "DUM, printed, circular", "kNN"]
ON_EMBEDDINGS += ["Mahalanobis"]
ON_PIXELS = ["IsolationForest", "kNN"]
CIFAR100_INSIDE = ["--dataset", "cifar100", "--train", f"DIR/{CIFAR100[0]}.npz", "--test", f"DIR/{CIFAR100[1]}.npz"]

SMALL_SETS = ["arrhythmia", "ionosphere", "isolet_CDE_vs_Y", "mfeat", "optdigits", "pima", "spambase", "satellite"]
SMALL_SETS = [f"uci/{name}" for name in [*SMALL_SETS, "wdbc"]]
# Methods whose cost grows with the square of the rows are not run on these, nor were they in the paper.
LARGE_SETS = ["adbench/10_cover", "uci/kdd99_10percent", "uci/skin"]
QUADRATIC = ["LOF", "OneClassSVM", "kNN", "ABOD"]
LINEAR = ["DUM", "large rows", "IsolationForest", "SP", "EllipticEnvelope", "AE", "LeSiNN", "REPEN"]


def dum_images(protocol, dataset, against, inside, *more):
    """Return the sizes of a table of DUM's on images; ``against`` are the sets or corruptions."""

    def make(budget):
        ending = ", paper" if budget == "gpu" else ""
        of_all = {"protocol": [protocol], "dataset": [dataset]}
        if budget == "cpu":
            of_all["n_train"] = ["5000"]
        last = {"against": against, "severity": list("12345") if protocol == "corruptions" else [""]}
        maps = ["maps"] if budget == "gpu" and protocol == "corruptions" else []
        wanted = [
            {
                **of_all,
                "output": outputs,
                "encoder": encoder,
                "detector": [name + ending for name in detectors],
                **last,
            }
            for outputs, encoder, detectors in (
                (["embedding", "features", *maps], ["simclr"], ON_EMBEDDINGS),
                (["pixels"], [""], ON_PIXELS),
            )
        ]
        return Size([*inside, "--protocol", protocol, *size(budget), *more], wanted)

    return both(make)


def dum_uci(printed, others, quadratic, data_sets, methods):
    """Return the sizes of a table of DUM's on vectors, whose printed objective has layers of two widths."""

    def make(budget):
        width = "4096" if budget == "gpu" else "256"
        wanted = [
            {"method": printed, "width": [width], "dataset": data_sets},
            {"method": others, "width": [""], "dataset": data_sets},
        ]
        wanted += [{"method": quadratic, "width": [""], "dataset": SMALL_SETS}] if quadratic else []
        return Size(["--methods", ";".join(methods), "--width", width], wanted)

    return both(make)


DUM_2 = ["DUM, printed", "DUM", "large rows", "IsolationForest", "LOF", "OneClassSVM", "SP", "EllipticEnvelope"]
DUM_2 += ["kNN", "ABOD", "AE", "LeSiNN", "REPEN"]
DUM_4 = ["DUM, printed", "DUM", "SimCLR, printed", "SimCLR"]
DUM_TABLES = {
    "dum-1": PaperTable(
        DUM,
        "Table 1 (a), CIFAR-10-C",
        "dum_images",
        CIFAR10,
        *dum_images("corruptions", "cifar10", CORRUPTIONS, ["--dataset", "cifar10"]),
        f"CIFAR-10-C: corruptions are made, or give --corrupted its folder; {FEWER}",
    ),
    "dum-1-cifar100": PaperTable(
        DUM,
        "Table 1 (b), CIFAR-100-C",
        "dum_images",
        CIFAR100,
        *dum_images("corruptions", "cifar100", CORRUPTIONS, CIFAR100_INSIDE),
        "CIFAR-100-C: corruptions are made, or give --corrupted its folder; 100 of 500 training images a class",
    ),
    "dum-2": PaperTable(
        DUM,
        "Table 2, vectors",
        "dum_uci",
        [*SMALL_SETS, *LARGE_SETS],
        *dum_uci(["DUM, printed"], LINEAR, QUADRATIC, [*SMALL_SETS, *LARGE_SETS], DUM_2),
        "PAMAP2 and record linkage; nine tenths of KDD 1999",
    ),
    "dum-3": PaperTable(
        DUM,
        "Table 3, CIFAR-10 in distribution",
        "dum_images",
        [*CIFAR10, CIFAR100[1]],
        *dum_images("ood", "cifar10", ["cifar100_test_20perclass"], ["--dataset", "cifar10"]),
        f"SVHN, LSUN and Tiny ImageNet's test images: give files with --against; CIFAR-100 stands for them; {FEWER}",
    ),
    "dum-3-tinyimagenet": PaperTable(
        DUM,
        "Table 3, CIFAR-10 against Tiny ImageNet",
        "dum_images",
        [*CIFAR10, CIFAR100[1], TINY],
        *dum_images(
            "ood",
            "cifar10",
            ["cifar100_test_20perclass", "tinyimagenet"],
            ["--dataset", "cifar10", "--against", f"tinyimagenet=DIR/{TINY}.npz"],
        ),
        f"Tiny ImageNet's test images: 3000 validation images stand for them; {FEWER}",
    ),
    "dum-3-cifar100": PaperTable(
        DUM,
        "Table 3, CIFAR-100 in distribution",
        "dum_images",
        [*CIFAR100, CIFAR10[1], TINY],
        *dum_images(
            "ood",
            "cifar100",
            ["cifar10", "tinyimagenet"],
            [
                *CIFAR100_INSIDE,
                "--against",
                f"cifar10=DIR/{CIFAR10[1]}.npz",
                "--against",
                f"tinyimagenet=DIR/{TINY}.npz",
            ],
        ),
        "SVHN and LSUN: give files with --against; 100 of 500 training images a class",
    ),
    "dum-4": PaperTable(
        DUM,
        "Table 4, vectors embedded by SimCLR",
        "dum_uci",
        SMALL_SETS,
        *dum_uci(["DUM, printed", "SimCLR, printed"], ["DUM", "SimCLR"], [], SMALL_SETS, DUM_4),
    ),
}

# --------------------------------------------------------------------------------------------------------------------
# Semantic anomalies

SEMANTIC = "Detecting semantic anomalies (Ahmed & Courville)"
OBJECTS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STL10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
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
        return Size(arguments, [{"dataset": [dataset], "size": [chosen], "classifier": classifiers, "class": classes}])

    return both(make)


def ood_suite(*classifiers):
    def make(budget):
        chosen = "full" if budget == "gpu" else "small"
        arguments = ["--classifiers", ";".join(classifiers), "--size", chosen]
        return Size(arguments, [{"size": [chosen], "classifier": list(classifiers)}])

    return both(make)


SUITE = [*CIFAR10, *CIFAR100, TINY, "images/mnist_test", "images/kmnist_t10k", "images/notmnist_10k"]
SUITE += ["images/fashion_mnist_test"]
STL10_FILES = ["images/stl10_train_500a_96", "images/stl10_train_500b_96", "images/stl10_test_200_96"]
FEW_STL10 = "100 of 500 training images a class, 20 of 800 test images"
DOG_BREEDS = "images/tinyimagenet_6dogs_900_64"
OF_DOGS = "ILSVRC2012: six breeds of Tiny ImageNet, of 64 pixels, stand for twelve hounds; a WRN-16-4 for its network"
SEMANTIC_TABLES = {
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
}

# --------------------------------------------------------------------------------------------------------------------
# Reject classes

REJECT = "Reject classes (Mohseni et al.)"
GREY = ["images/mnist_train", "images/mnist_test", "images/emnist_letters_train", "images/fashion_mnist_test"]
GREY += ["images/kmnist_t10k", "images/notmnist_10k"]
COLOUR = [*CIFAR10, *CIFAR100, "images/fashion_mnist_test", "images/notmnist_10k"]
RIVALS = ["maximum softmax", "outlier exposure", "energy fine-tuning", "reject classes", "reject classes, blended"]
ABLATIONS = [f"k = {k}, {labels}" for k in (2, 5, 10) for labels in ("self", "balanced", "kmeans")]
ABLATIONS = ["k = 1, self", *ABLATIONS, "k = 5, self, long gradients"]
NO_TINY_IMAGES = "80 million Tiny Images, withdrawn: half of the classes of CIFAR-100 stand for them; SVHN, Texture, "
NO_TINY_IMAGES += f"Places365, LSUN; {FEWER}"


def reject(dataset, methods, *more, corpus=None):
    """Return the sizes of a table of reject classes; ``corpus`` is another one than the usual."""
    chosen_corpus, about = ([], "") if corpus is None else (["--corpus", corpus], f", corpus {corpus}")

    def make(budget):
        chosen = "full" if budget == "gpu" else "small"
        arguments = ["--dataset", dataset, *chosen_corpus, *more, "--size", chosen]
        return Size(arguments, [{"dataset": [dataset + about], "size": [chosen], "method": methods}])

    return both(make)


def reject_short(dataset, *others):
    """All methods with the settings that a user gets: of the same size with either budget."""
    arguments = ["--dataset", dataset, "--size", "short"]
    methods = [*RIVALS, *others, "reject classes, 1 a row", "reject classes, 2 a row", "reject classes, as published"]
    return both(lambda budget: Size(arguments, [{"dataset": [dataset], "size": ["short"], "method": methods}]))


def reject_short_ablations(dataset):
    """Numbers of reject classes, pseudo-labels and scores with these settings."""
    arguments = ["--dataset", dataset, "--ablations", "--size", "short"]
    return both(lambda budget: Size(arguments, [{"dataset": [dataset], "size": ["short"], "method": ABLATIONS}]))


def one_class(budget):
    chosen = "full" if budget == "gpu" else "short"
    methods = ["reject classes", "Deep SVDD", "hypersphere classifier", "kNN"]
    return Size(["--size", chosen], [{"size": [chosen], "method": methods, "target": OBJECTS}])


ALL_REJECT = [*RIVALS, "reject classes, by default", "reject classes, by default, 1 a row"]
ALL_REJECT.append("reject classes, outliers made")
FINER = [*CIFAR100, TINY, CIFAR10[1], "images/fashion_mnist_test", "images/notmnist_10k"]
ABOUT_FINER = (
    "80 million Tiny Images, withdrawn: 3000 of Tiny ImageNet stand for them; SVHN, Texture, Places365, LSUN; "
)
ABOUT_FINER += "100 of 500 training images a class"
FASHION = ["images/fashion_mnist_train", "images/fashion_mnist_test", "images/emnist_letters_train"]
FASHION += ["images/mnist_test", "images/kmnist_t10k", "images/notmnist_10k"]
REJECT_TABLES = {
    "reject-1": PaperTable(REJECT, "Table 1, MNIST", "reject_classes", GREY, *reject("mnist", ALL_REJECT)),
    "reject-1-cifar": PaperTable(
        REJECT,
        "Table 1, CIFAR-10; points of Figures 2 and 3 at 95 % TPR; Figure 1, untuned",
        "reject_classes",
        COLOUR,
        *reject("cifar10", ALL_REJECT),
        NO_TINY_IMAGES,
    ),
    "reject-1-kmnist": PaperTable(
        REJECT,
        "no table: Table 1 on MNIST, with KMNIST as the corpus",
        "reject_classes",
        GREY,
        *reject("mnist", ALL_REJECT, corpus="kmnist"),
    ),
    "reject-1-cifar100": PaperTable(
        REJECT,
        "Table 1, CIFAR-100, with 10 and 50 reject classes",
        "reject_classes",
        FINER,
        *reject("cifar100", [*ALL_REJECT, "reject classes, k = 50"]),
        ABOUT_FINER,
    ),
    "reject-one-class": PaperTable(
        REJECT,
        "one class of CIFAR-10, beside Deep SVDD (a figure in the discussion)",
        "reject_one_class",
        [*CIFAR10, CIFAR100[0]],
        *both(one_class),
        f"80 million Tiny Images, withdrawn: CIFAR-100 stands for them; {FEWER}",
    ),
    "reject-short-cifar100": PaperTable(
        REJECT,
        "no table: the protocol of Table 1 on small images, CIFAR-100",
        "reject_classes",
        FINER,
        *reject_short("cifar100", "reject classes, k = 10", "reject classes, k = 50"),
        ABOUT_FINER,
    ),
    **{
        f"reject-short-{dataset}": PaperTable(
            REJECT,
            f"no table: the protocol of Table 1 on few images, {dataset}",
            "reject_classes",
            files,
            *reject_short(dataset),
        )
        for dataset, files in (("digits", []), ("fashion_mnist", FASHION), ("cifar10", COLOUR))
    },
    **{
        f"reject-2-short-{dataset}": PaperTable(
            REJECT,
            f"no table: scores as in Table 2, and numbers of reject classes, on few images, {dataset}",
            "reject_classes",
            files,
            *reject_short_ablations(dataset),
        )
        for dataset, files in (("digits", []), ("fashion_mnist", FASHION), ("cifar10", COLOUR))
    },
    "reject-2": PaperTable(
        REJECT,
        "no table: scores as in Table 2, and numbers of reject classes, on MNIST",
        "reject_classes",
        GREY,
        *reject("mnist", ABLATIONS, "--ablations"),
    ),
    "reject-2-cifar": PaperTable(
        REJECT,
        "Table 2, CIFAR-10",
        "reject_classes",
        COLOUR,
        *reject("cifar10", ABLATIONS, "--ablations"),
        NO_TINY_IMAGES,
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

# --------------------------------------------------------------------------------------------------------------------
# NS-VAE

NS_VAE = "Negative sampling in VAEs"
VAE_FASHION = [*FASHION[:2], *GREY[1:2], *GREY[4:]]


def ns_vae(number, **columns):
    """Return the sizes of a table of the VAE's; values of columns are separated by slashes."""
    values = {name: text.split("/") for name, text in columns.items()}
    return both(
        lambda budget: Size(
            ["--table", str(number), *size(budget)], [{"size": [SIZE_OF[budget]], "precision": ["auto"], **values}]
        )
    )


THREE_MODELS = "bernoulli/gaussian/quantized_gaussian"
NS_VAE_TABLES = {
    "nsvae-1": PaperTable(
        NS_VAE,
        "Table 1, Fashion-MNIST and MNIST without negatives",
        "ns_vae",
        [*VAE_FASHION, "images/mnist_train"],
        *ns_vae(1, negatives="None", noise_model="bernoulli/gaussian", dataset="fashion_mnist/mnist"),
    ),
    "nsvae-2": PaperTable(
        NS_VAE,
        "Table 2, CIFAR-10 without negatives",
        "ns_vae",
        [*COLOUR[:5], "images/mnist_test"],
        *ns_vae(2, dataset="cifar10", negatives="None", noise_model=THREE_MODELS),
        f"SVHN: MNIST in colour stands for it, and its two columns as the inlier set are missing; {FEWER}",
    ),
    "nsvae-3": PaperTable(
        NS_VAE,
        "Table 3, Fashion-MNIST with negatives",
        "ns_vae",
        [*VAE_FASHION, "images/emnist_letters_train"],
        *ns_vae(3, dataset="fashion_mnist", negatives="None/letters/generated", noise_model="bernoulli/gaussian"),
    ),
    "nsvae-4": PaperTable(
        NS_VAE,
        "Table 4, CIFAR-10 with negatives",
        "ns_vae",
        [*COLOUR[:5], "images/mnist_test"],
        *ns_vae(4, dataset="cifar10", negatives="cifar100/generated", noise_model=THREE_MODELS),
        f"SVHN: MNIST in colour stands for it, and CIFAR-100 for ImageNet's negatives; {FEWER}",
    ),
    "nsvae-5": PaperTable(
        NS_VAE,
        "Table 5, sources of negatives",
        "ns_vae",
        [*VAE_FASHION, "images/emnist_letters_train"],
        *ns_vae(
            5, dataset="fashion_mnist", noise_model="bernoulli", negatives="None/letters/generated/uniform/kmnist/noise"
        ),
        "all but 10,000 images of KMNIST",
    ),
}

# --------------------------------------------------------------------------------------------------------------------
# ADRA

ADRA = "ADRA (Deecke et al.)"
CORPUS = [*CIFAR10, CIFAR100[0]]
NO_BACKBONE = "the network trained on ImageNet at 72 pixels: one trained on CIFAR-100 stands for it; 10,000 of 50,000 "
NO_BACKBONE += f"images of the corpus, {FEWER}"


def adra(protocol, methods, dataset="cifar10", **columns):
    """Return the sizes of a table of ADRA's. STL-10 has 96 pixels, and 32 in the small size."""

    def make(budget):
        own = ["--backbone", "shipped", "--methods", ";".join(methods)]
        own += [] if protocol == "one-vs-rest" else ["--protocol", protocol]
        chosen = "stl10-32" if dataset == "stl10" and budget == "cpu" else dataset
        own += [] if dataset == "cifar10" else ["--dataset", chosen]
        own += size(budget)
        fewer = dataset == "cifar10" and budget == "cpu"
        own += ["--test-images", "200"] if fewer else []
        wanted = {"protocol": [protocol], "dataset": [chosen], "backbone": ["shipped"], "size": [SIZE_OF[budget]]}
        wanted |= {"precision": ["auto"], "test_images": ["200" if fewer else "all"], "method": methods, **columns}
        return Size(own, [wanted])

    return both(make)


def disentanglement(budget):
    chosen = SIZE_OF[budget]
    methods = ["frozen kNN", "Deep SVDD", "UADRA", "scratch", "finetune", "L2-SP", "adapters K=2"]
    return Size(["--size", chosen], [{"data": ["shapes"], "size": [chosen], "method": methods}])


ADRA_1 = ["frozen kNN", "scratch", "finetune", "L2-SP", "adapters K=1", "adapters K=2", "adapters K=4"]
ADRA_TABLES = {
    "adra-1": PaperTable(
        ADRA,
        "Table 1, one class against the rest; parameters of Figure 3, left",
        "adra_one_vs_rest",
        CORPUS,
        *adra("one-vs-rest", ADRA_1, target=OBJECTS),
        NO_BACKBONE,
    ),
    "adra-2": PaperTable(
        ADRA,
        "Table 2, a class of CIFAR-10 held out (its column RA-ODIN is semantic-3)",
        "adra_one_vs_rest",
        CORPUS,
        *adra("hold-one-out", ["finetune", "L2-SP", "adapters K=2"], target=OBJECTS),
        NO_BACKBONE,
    ),
    "adra-2-stl10": PaperTable(
        ADRA,
        "Table 2, a class of STL-10 held out (its column RA-ODIN is semantic-4)",
        "adra_one_vs_rest",
        [*STL10_FILES, CIFAR100[0]],
        *adra("hold-one-out", ["finetune", "L2-SP", "adapters K=2"], "stl10", target=STL10),
        f"the unlabelled images: CIFAR-100 stands for them; {NO_BACKBONE.replace(FEWER, '100 of 500 images a class')}",
    ),
    "adra-figure-2": PaperTable(
        ADRA,
        "Figure 2, small modes",
        "adra_one_vs_rest",
        CORPUS,
        *adra(
            "small-modes",
            ["scratch", "finetune", "adapters K=2"],
            target=["airplane-ship", "cat-dog", "frog-truck"],
            share=["0.05", "0.1", "0.25", "0.5", "1"],
        ),
        NO_BACKBONE,
    ),
    "adra-figure-3": PaperTable(
        ADRA,
        "Figure 3, right, disentanglement",
        "disentanglement",
        [],
        *both(disentanglement),
        "MPI3D: shapes are drawn, or give --mpi3d its file; and the network trained on ImageNet",
    ),
}

TABLES = DUM_TABLES | SEMANTIC_TABLES | REJECT_TABLES | NS_VAE_TABLES | ADRA_TABLES

NEEDS_IMAGENET = "needs ImageNet, which is not here"
# Tables and figures without a command, and why.
WITHOUT = {
    (DUM, "Table 1 (c), TinyImageNet-C"): f"{NEEDS_IMAGENET}: its encoder was trained on it",
    (DUM, "Table 3, SVHN in distribution"): "SVHN is not here; dum_images.py takes its files with --train and --test",
    (DUM, "Figures 1 and 3, images by their norm"): f"{NEEDS_IMAGENET}; pictures without figures",
    (DUM, "Figure 2, images by their norm"): "Meta-Dataset is not here; pictures without figures",
    (SEMANTIC, "Tables 1 and 7, members of subsets"): "they list classes of ImageNet, and have no results",
    (SEMANTIC, "Tables 5 and 6, all rows but dogs; appendices B and C"): NEEDS_IMAGENET,
    (SEMANTIC, "Figure 1, curves of training"): "no script keeps scores of each epoch",
    (SEMANTIC, "Figures 2 to 6, samples of images"): f"{NEEDS_IMAGENET}; pictures without figures",
    (SEMANTIC, "appendix D, all columns but the last"): "LSUN, iSUN and Tiny ImageNet's cuts for ODIN are not here",
    (REJECT, "Table 1, SVHN"): "SVHN is not here, and 80 million Tiny Images are withdrawn",
    (REJECT, "Table 2, CIFAR-100"): "the scores of a network that 80 million Tiny Images trained",
    (
        REJECT,
        "Figure 1, mixed sets",
    ): "scores are tuned on outliers there; reject-1 and reject-1-cifar have them untuned",
    (REJECT, "Figures 2 and 3, curves"): "only their points at 95 % TPR are computed, by reject-1-cifar",
    (REJECT, "Figure 4, histograms of scores"): "a picture without figures",
    (NS_VAE, "Table 2, SVHN in distribution"): "SVHN is not here",
    (ADRA, "Figure 1, the network"): "a drawing without results",
}

# --------------------------------------------------------------------------------------------------------------------
# What is done


def runs_of(script, out):
    """Return the rows of docs/results and of the folder ``out``, as dicts of text."""
    rows = []
    for path in (RESULTS / f"{script}.csv", out / script / "results.csv"):
        if path.exists():
            with path.open(newline="") as file:
                rows += csv.DictReader(file)
    return rows


def seeds_of(wanted, rows):
    """Return the seeds with a run, for each wanted combination of values."""
    seeds = {combination: set() for combination in product(*wanted.values())}
    for row in rows:
        combination = tuple(row.get(column) for column in wanted)
        if combination in seeds:
            seeds[combination].add(row.get("seed", row.get("trial")))
    return seeds


def merged(combinations, wanted, always):
    """Return lines that name combinations by the columns of which not all values are among them, and by ``always``."""
    blocks = [tuple((value,) for value in combination) for combination in combinations]
    for column in range(len(wanted)):
        groups = {}
        for block in blocks:
            key = block[:column] + block[column + 1 :]
            groups[key] = groups.get(key, ()) + block[column]
        blocks = [(*key[:column], values, *key[column:]) for key, values in groups.items()]
    lines = []
    for block in blocks:
        named = [
            f"{column} {' / '.join(values)}"
            for (column, all_values), values in zip(wanted.items(), block, strict=True)
            if len(values) < len(all_values) or column == always
        ]
        lines.append("; ".join(named) or "all")
    return lines


def print_size(name, chosen, rows):
    """Print how many runs of a size are done, and which are not."""
    n_done = n_wanted = 0
    lacking = {n: [] for n in range(N_SEEDS)}
    # The column that tells the parts of a table apart, if it has several.
    first = chosen.wanted[0]
    differing = [column for column in first if any(part[column] != first[column] for part in chosen.wanted)]
    always = differing[0] if differing else None
    for wanted in chosen.wanted:
        seeds = seeds_of(wanted, rows)
        n_wanted += N_SEEDS * len(seeds)
        n_done += sum(min(len(found), N_SEEDS) for found in seeds.values())
        for n, lines in lacking.items():
            lines += merged([combination for combination, found in seeds.items() if len(found) == n], wanted, always)
    print(f"  {name}: {n_done} of {n_wanted} runs")
    if n_done:
        for n, lines in lacking.items():
            about = "no run" if n == 0 else f"{n} of {N_SEEDS} seeds"
            for line in lines:
                print(f"    {about}: {line}")


def print_missing(names, out, home):
    print(f"Runs with {N_SEEDS} seeds each, in docs/results and in {out}")
    for name in names:
        table = TABLES[name]
        rows = runs_of(table.script, out)
        print(f"\n{name}: {table.paper}, {table.table}")
        if table.small == table.paper_size:
            print_size("of one size", table.small, rows)
        else:
            print_size("small", table.small, rows)
            print_size("the paper's size", table.paper_size, rows)
        print(f"  not here of the paper's: {table.absent}")
        if home is not None:
            gone = [file for file in table.files if not (home / f"{file}.npz").exists()]
            if gone:
                print(f"  not in the data folder: {', '.join(gone)}")


def print_without():
    print("\nTables and figures without a command\n")
    for (paper, table), reason in WITHOUT.items():
        print(f"{paper}, {table}: {reason}")


def arguments_of(table, budget, seeds):
    """Return the arguments of a table's script for a budget and so many seeds."""
    return [*table.size(budget).arguments, "--trials" if table.script == "holdout_class" else "--seeds", str(seeds)]


def with_home(arguments, home):
    """Return arguments with the data folder in place of "DIR/"."""
    return [part.replace("DIR/", f"{home}/") for part in arguments]


def print_list(names, budget, seeds):
    for name in names:
        table = TABLES[name]
        arguments = arguments_of(table, budget, seeds)
        shown = " ".join(f'"{part}"' if " " in part else part for part in arguments)
        print(f"{name}: {table.paper}, {table.table}")
        files = ", ".join(f"{file}.npz" for file in table.files)
        print(f"    needs: {files or 'no file: the data comes with scikit-learn'}")
        print(f"    not here of the paper's: {table.absent}")
        home = "" if table.script in WITHOUT_HOME else " --data-home DIR"
        print(f"    python benchmarks/{table.script}.py {shown}{home}")


# --------------------------------------------------------------------------------------------------------------------
# Running


def with_known(script, out):
    """Return a folder for the runs of a script, which begins with those of docs/results."""
    folder, known = out / script, RESULTS / f"{script}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    if known.exists() and not (folder / "results.csv").exists():
        shutil.copy(known, folder / "results.csv")
    return folder


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=tuple(TABLES))
    parser.add_argument("--budget", choices=tuple(SIZE_OF), default="cpu")
    parser.add_argument("--data-home", type=Path, default=os.environ.get("SKOOD_DATA"))
    parser.add_argument("--out", type=Path, default=Path("comparison/paper_tables"))
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help=f"number of seeds, from 0; {N_SEEDS} by default")
    parser.add_argument("--list", action="store_true", help="only print the tables, what they need and their commands")
    parser.add_argument("--missing", action="store_true", help="only print what is done and what is missing")
    options = parser.parse_args(arguments)
    home = None if options.data_home is None else Path(options.data_home)
    names = list(TABLES) if options.table is None else [options.table]
    if options.missing:
        print_missing(names, options.out, home)
        if options.table is None:
            print_without()
        return 0
    if options.list or options.table is None:
        print_list(names, options.budget, options.seeds)
        return 0
    if home is None:
        parser.error("--data-home or SKOOD_DATA is needed")
    table = TABLES[options.table]
    own = with_home(arguments_of(table, options.budget, options.seeds), home)
    own += [] if table.script in WITHOUT_HOME else ["--data-home", home]
    command = [sys.executable, HERE / f"{table.script}.py", *own]
    return subprocess.call([*command, "--out", with_known(table.script, options.out)])


if __name__ == "__main__":
    sys.exit(main())
