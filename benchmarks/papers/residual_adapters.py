"""Tables of ADRA."""

from __future__ import annotations

from papers.base import (
    ADRA,
    CIFAR10,
    CIFAR100,
    FEWER,
    OBJECTS,
    SIZE_OF,
    STL10,
    STL10_FILES,
    PaperTable,
    Size,
    both,
    size,
)

CORPUS = [*CIFAR10, CIFAR100[0]]
NO_BACKBONE = "the network trained on ImageNet at 72 pixels: one trained on CIFAR-100 stands for it; 10,000 of 50,000 "
NO_BACKBONE += f"images of the corpus, {FEWER}"


def adra(protocol, methods, *more, dataset="cifar10", **columns):
    """Return the sizes of a table of ADRA's. STL-10 has 96 pixels, and 32 in the small size."""

    def make(budget):
        own = ["--backbone", "shipped", "--methods", ";".join(methods), *more]
        own += [] if protocol == "one-vs-rest" else ["--protocol", protocol]
        chosen = "stl10-32" if dataset == "stl10" and budget == "cpu" else dataset
        own += [] if dataset == "cifar10" else ["--dataset", chosen]
        own += size(budget)
        fewer = dataset == "cifar10" and budget == "cpu"
        own += ["--test-images", "200"] if fewer else []
        wanted = {"protocol": [protocol], "dataset": [chosen], "backbone": ["shipped"], "size": [SIZE_OF[budget]]}
        wanted |= {"max_epochs": ["auto" if budget == "cpu" else "120"], "precision": ["auto"]}
        wanted |= {"test_images": ["200" if fewer else "all"], "method": methods, **columns}
        return Size(own, [wanted])

    return both(make)


def disentanglement(budget):
    chosen = SIZE_OF[budget]
    methods = ["frozen kNN", "Deep SVDD", "UADRA", "scratch", "finetune", "L2-SP", "adapters K=2"]
    wanted = {"data": ["shapes"], "size": [chosen], "method": methods, "precision": ["auto"]}
    return Size(["--size", chosen], [wanted | {"max_epochs": ["8" if budget == "cpu" else "120"]}])


ADRA_1 = ["frozen kNN", "scratch", "finetune", "L2-SP", "adapters K=1", "adapters K=2", "adapters K=4"]
SETTINGS = ["adapters K=2, gain 1", "adapters K=2, frozen BN", "adapters K=2, affine BN", "UADRA", "Deep SVDD"]
TABLES = {
    "adra-1": PaperTable(
        ADRA,
        "Table 1, one class against the rest; parameters of Figure 3, left",
        "adra_one_vs_rest",
        CORPUS,
        *adra("one-vs-rest", ADRA_1, target=OBJECTS),
        NO_BACKBONE,
    ),
    "adra-settings": PaperTable(
        ADRA,
        "no table: the paper's settings one by one, and what has no corpus, on three classes",
        "adra_one_vs_rest",
        CORPUS,
        *adra("one-vs-rest", SETTINGS, "--classes", ",".join(OBJECTS[:3]), target=OBJECTS[:3]),
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
        *adra("hold-one-out", ["finetune", "L2-SP", "adapters K=2"], dataset="stl10", target=STL10),
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

# Tables and figures without a command, and why.
WITHOUT = {(ADRA, "Figure 1, the network"): "a drawing without results"}
