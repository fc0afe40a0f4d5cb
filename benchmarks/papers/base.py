"""What the tables of the papers have in common: their fields, files and sizes."""

from __future__ import annotations

from typing import NamedTuple

DUM = "DUM (Wu & Goodman)"
SEMANTIC = "Detecting semantic anomalies (Ahmed & Courville)"
REJECT = "Reject classes (Mohseni et al.)"
NS_VAE = "Negative sampling in VAEs"
ADRA = "ADRA (Deecke et al.)"

SIZE_OF = {"cpu": "small", "gpu": "paper"}
CIFAR10 = ["images/cifar10_train_1000perclass", "images/cifar10_test_500perclass"]
CIFAR100 = ["images/cifar100_train_100perclass", "images/cifar100_test_20perclass"]
TINY = "images/tinyimagenet_val_3000_32"
FEWER = "1000 of 5000 training images a class"
NEEDS_IMAGENET = "needs ImageNet, which is not here"
GREY = ["images/mnist_train", "images/mnist_test", "images/emnist_letters_train", "images/fashion_mnist_test"]
GREY += ["images/kmnist_t10k", "images/notmnist_10k"]
COLOUR = [*CIFAR10, *CIFAR100, "images/fashion_mnist_test", "images/notmnist_10k"]
FASHION = ["images/fashion_mnist_train", "images/fashion_mnist_test", "images/emnist_letters_train"]
FASHION += ["images/mnist_test", "images/kmnist_t10k", "images/notmnist_10k"]
STL10_FILES = ["images/stl10_train_500a_96", "images/stl10_train_500b_96", "images/stl10_test_200_96"]
# What options are if the command has none of them. Rows of earlier versions say nothing of these.
USUAL = {"max_epochs": "default", "precision": "auto", "far": ""}
# Classes that are targets, or held out.
OBJECTS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STL10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


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


def usual(*columns):
    """Return that columns have the values of commands without these options, as a part of what is wanted."""
    return {column: [USUAL[column]] for column in columns}


def size(budget):
    return ["--size", "paper"] if budget == "gpu" else []


def both(make):
    """Return a Size for each budget."""
    return make("cpu"), make("gpu")
