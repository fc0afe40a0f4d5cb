"""Tables of the paper on reject classes."""

from __future__ import annotations

from papers.base import (
    CIFAR10,
    CIFAR100,
    COLOUR,
    FASHION,
    FEWER,
    GREY,
    OBJECTS,
    REJECT,
    TINY,
    PaperTable,
    Size,
    both,
    usual,
)

RIVALS = ["maximum softmax", "outlier exposure", "energy fine-tuning", "reject classes", "reject classes, blended"]
ABLATIONS = [f"k = {k}, {labels}" for k in (2, 5, 10) for labels in ("self", "balanced", "kmeans")]
ABLATIONS = ["k = 1, self", *ABLATIONS, "k = 5, self, long gradients"]
NO_TINY_IMAGES = "80 million Tiny Images, withdrawn: half of the classes of CIFAR-100 stand for them; SVHN, Texture, "
NO_TINY_IMAGES += f"Places365, LSUN; {FEWER}"


AS_USUAL = usual("max_epochs", "precision")


def reject(dataset, methods, *more, corpus=None):
    """Return the sizes of a table of reject classes; ``corpus`` is another one than the usual."""
    chosen_corpus, about = ([], "") if corpus is None else (["--corpus", corpus], f", corpus {corpus}")

    def make(budget):
        chosen = "full" if budget == "gpu" else "small"
        arguments = ["--dataset", dataset, *chosen_corpus, *more, "--size", chosen]
        return Size(arguments, [{"dataset": [dataset + about], "size": [chosen], "method": methods, **AS_USUAL}])

    return both(make)


def reject_short(dataset, *others):
    """All methods with the settings that a user gets: of the same size with either budget."""
    arguments = ["--dataset", dataset, "--size", "short"]
    methods = [*RIVALS, *others, "reject classes, 1 a row", "reject classes, 2 a row", "reject classes, as published"]
    wanted = {"dataset": [dataset], "size": ["short"], "method": methods, **AS_USUAL}
    return both(lambda budget: Size(arguments, [wanted]))


def reject_short_ablations(dataset):
    """Numbers of reject classes, pseudo-labels and scores with these settings."""
    arguments = ["--dataset", dataset, "--ablations", "--size", "short"]
    wanted = {"dataset": [dataset], "size": ["short"], "method": ABLATIONS, **AS_USUAL}
    return both(lambda budget: Size(arguments, [wanted]))


def one_class(budget):
    chosen = "full" if budget == "gpu" else "short"
    methods = ["reject classes", "Deep SVDD", "hypersphere classifier", "kNN"]
    return Size(["--size", chosen], [{"size": [chosen], "method": methods, "target": OBJECTS, **AS_USUAL}])


ALL_REJECT = [*RIVALS, "reject classes, by default", "reject classes, by default, 1 a row"]
ALL_REJECT.append("reject classes, outliers made")
FINER = [*CIFAR100, TINY, CIFAR10[1], "images/fashion_mnist_test", "images/notmnist_10k"]
ABOUT_FINER = (
    "80 million Tiny Images, withdrawn: 3000 of Tiny ImageNet stand for them; SVHN, Texture, Places365, LSUN; "
)
ABOUT_FINER += "100 of 500 training images a class"
TABLES = {
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
}

# Tables and figures without a command, and why.
WITHOUT = {
    (REJECT, "Table 1, SVHN"): "SVHN is not here, and 80 million Tiny Images are withdrawn",
    (REJECT, "Table 2, CIFAR-100"): "the scores of a network that 80 million Tiny Images trained",
    (REJECT, "Figure 1, mixed sets"): "its scores are tuned on outliers; reject-1 and reject-1-cifar have them untuned",
    (REJECT, "Figures 2 and 3, curves"): "only their points at 95 % TPR are computed, by reject-1-cifar",
    (REJECT, "Figure 4, histograms of scores"): "a picture without figures",
}
