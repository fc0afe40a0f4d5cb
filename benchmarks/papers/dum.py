"""Tables of DUM."""

from __future__ import annotations

from papers.base import CIFAR10, CIFAR100, DUM, FEWER, NEEDS_IMAGENET, TINY, PaperTable, Size, both, size, usual

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
        of_all = {"protocol": [protocol], "dataset": [dataset], **usual("max_epochs", "precision")}
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
TABLES = {
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

# Tables and figures without a command, and why.
WITHOUT = {
    (DUM, "Table 1 (c), TinyImageNet-C"): f"{NEEDS_IMAGENET}: its encoder was trained on it",
    (DUM, "Table 3, SVHN in distribution"): "SVHN is not here; dum_images.py takes its files with --train and --test",
    (DUM, "Figures 1 and 3, images by their norm"): f"{NEEDS_IMAGENET}; pictures without figures",
    (DUM, "Figure 2, images by their norm"): "Meta-Dataset is not here; pictures without figures",
}
