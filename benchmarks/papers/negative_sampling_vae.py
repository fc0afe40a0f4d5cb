"""Tables of the paper on negative sampling in variational autoencoders."""

from __future__ import annotations

from papers.base import COLOUR, FASHION, FEWER, GREY, NS_VAE, SIZE_OF, PaperTable, Size, both, size, usual

ABLATIONS = [f"generated, {without}" for without in ("weight 1", "no memory", "last weights", "all three")]
VAE_FASHION = [*FASHION[:2], *GREY[1:2], *GREY[4:]]


def ns_vae(number, *more, **columns):
    """Return the sizes of a table of the VAE's; values of columns are separated by slashes."""
    values = {name: text.split("/") for name, text in columns.items()}
    return both(
        lambda budget: Size(
            ["--table", str(number), *more, *size(budget)],
            [{"size": [SIZE_OF[budget]], **usual("precision", "max_epochs"), **values}],
        )
    )


THREE_MODELS = "bernoulli/gaussian/quantized_gaussian"
TABLES = {
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
    "nsvae-ablations": PaperTable(
        NS_VAE,
        "no table: generated negatives without what makes their training stable",
        "ns_vae",
        VAE_FASHION,
        *ns_vae(5, "--ablations", dataset="fashion_mnist", noise_model="bernoulli", negatives="/".join(ABLATIONS)),
    ),
}

# Tables and figures without a command, and why.
WITHOUT = {(NS_VAE, "Table 2, SVHN in distribution"): "SVHN is not here"}
