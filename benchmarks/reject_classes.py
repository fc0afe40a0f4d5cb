"""RejectClassDetector in the paper's protocol, beside its rivals: Table 1, ablations, and what a user gets by default.

    python benchmarks/reject_classes.py --dataset mnist --data-home DIR [--size full] [--ablations] [--jobs 2]
    python benchmarks/reject_classes.py --dataset mnist --corpus kmnist --data-home DIR [--size full]
    python benchmarks/reject_classes.py --dataset cifar10 --data-home DIR [--size full] [--seeds 3]
    python benchmarks/reject_classes.py --dataset cifar100 --data-home DIR [--size full] [--corpus cifar10]
    python benchmarks/reject_classes.py --dataset cifar10 --size short --seeds 3 --data-home DIR

DIR (or the variable SKOOD_DATA) holds ``images/*.npz``. For each set in distribution, the corpora of auxiliary outliers
to choose from, of which the first is the default, and the sets that stay unseen:

mnist, fashion_mnist
    EMNIST letters or KMNIST. Unseen: notMNIST and the others of MNIST, Fashion-MNIST, KMNIST and letters.
cifar10 (1000 training images a class)
    Half of the classes of CIFAR-100, 5000 images. Unseen: the other half, Fashion-MNIST and notMNIST.
cifar100 (100 training images a class)
    Tiny ImageNet, 3000 images, some of classes that CIFAR-100 has as well; or CIFAR-10, 10,000 images. Unseen: the
    other of these two, Fashion-MNIST and notMNIST.
digits of scikit-learn
    Six classes are known, two are the corpus and two are unseen, others for each seed.

In colour the paper's corpus is 80 million Tiny Images, withdrawn since. "mixed" is an equal mix of the unseen sets,
mean of ten draws. Settings are those of ``from_paper``; "by default" has the detector's own k, lambda, score and step
one, and "1 a row" one outlier in a batch for each row, the default in colour, instead of the paper's five; "blended"
moves each outlier by a tenth towards a row in distribution. The energy score, ODIN and Mahalanobis distances are of the
network of "maximum softmax"; the last two are tuned on unseen outliers in figure 1, but not here.

"short" has the settings of the detector where the others have those of ``from_paper``, and few images: 3000 of
CIFAR-10 and 10,000 of CIFAR-100, of 16 x 16 pixels; 2500 of Fashion-MNIST; and the digits. All methods see as many
batches, of as many outliers.

Each run, a method with a seed, is written to ``results.csv`` when it is finished; the same command goes on from there,
and from the last epoch of a run that was under way.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pandas as pd
from runs import Command, Runs, checkpoint, noted, trained_in, training_seconds
from sklearn.datasets import load_digits

from skood import OODScorer, RejectClassDetector
from skood.metrics import aupr_out, auroc, fpr_at_tpr, misclassification_at_tpr, selective_at_tpr

# Percent: FPR at 95 % TPR, AUROC, AUPR, of these three.
METHODS = ("maximum softmax", "outlier exposure", "reject classes")
PAPER = {
    ("mnist", "notmnist"): ((17.11, 95.98, 95.75), (0.25, 99.86, 99.86), (0, 99.99, 99.99)),
    ("mnist", "fashion_mnist"): ((2.96, 99.30, 99.19), (0.99, 99.83, 99.83), (0, 100, 100)),
    ("mnist", "kmnist"): ((10.54, 97.11, 96.46), (0.03, 97.60, 97.05), (0.35, 99.91, 99.91)),
    ("cifar10", "cifar100_other_classes"): ((43.12, 87.83, 85.21), (26.59, 92.93, 92.13), (30.07, 93.83, 94.23)),
    ("cifar100", "cifar10"): ((65.12, 75.33, 71.29), (59.96, 77.53, 72.82), (57.79, 77.70, 72.31)),
}
# Table 2: AUROC on the mixed set.
PAPER_SCORES = {
    "CIFAR-10": {
        "max": 97.77,
        "sum": 97.83,
        "weighted": 97.75,
        "entropy": 97.88,
        "entropy_diff": 97.86,
        "combined": 97.85,
    },
    "CIFAR-100": {
        "max": 88.31,
        "sum": 88.20,
        "weighted": 88.32,
        "entropy": 87.93,
        "entropy_diff": 87.72,
        "combined": 88.44,
    },
}
# Other scores of the network of "maximum softmax", and what their rows are called.
POST_HOC = {"energy": "energy score", "odin": "ODIN", "mahalanobis": "Mahalanobis"}
GREY = {
    "mnist": "mnist_test",
    "fashion_mnist": "fashion_mnist_test",
    "kmnist": "kmnist_t10k",
    "notmnist": "notmnist_10k",
    "letters": "emnist_letters_train",
}
CORPORA = {
    "mnist": ("letters", "kmnist"),
    "fashion_mnist": ("letters", "kmnist"),
    "cifar10": ("cifar100",),
    "cifar100": ("tinyimagenet", "cifar10"),
    "digits": ("digits",),
}
SMALL_CIFAR = {"n_train": None, "class_epochs": 8, "max_epochs": 2, "network": "wrn-10-2"}
SHORT_CIFAR = {"network": "wrn-10-1", "batch_size": 128, "lr": 0.1, "dropout": 0.3, "augmentation": "crop-flip"}
SHORT_CIFAR |= {"outlier_batch_ratio": 5.0}
SIZES = {
    ("mnist", "small"): {"n_train": 12_000, "class_epochs": 4, "max_epochs": 3},
    ("mnist", "full"): {"n_train": None},
    ("cifar10", "small"): SMALL_CIFAR,
    ("cifar10", "full"): {"n_train": None},
    ("cifar10", "short"): {"n_train": 3_000, "class_epochs": 6, "max_epochs": 2, **SHORT_CIFAR},
    ("cifar100", "small"): SMALL_CIFAR,
    ("cifar100", "full"): {"n_train": None},
    ("cifar100", "short"): {"n_train": None, "class_epochs": 8, "max_epochs": 1, **SHORT_CIFAR},
    ("fashion_mnist", "short"): {"n_train": 2_500, "class_epochs": 3, "max_epochs": 2},
    ("digits", "short"): {"n_train": None, "class_epochs": 20, "max_epochs": 20},
}
# Outliers in a batch for each row, instead of five, which is the paper's number.
FEWER_OUTLIERS = (1, 2)
METRICS = ["fpr95", "auroc", "aupr"]

KEYS = ["dataset", "size", "method", "seed", "max_epochs", "precision"]
FIGURES = ["score", "test_set", "reject_classes", *METRICS, "coverage_at_95", "risk_at_95", "total_error_at_95"]
FIGURES += ["accuracy", "seconds", "auroc_sd", "trained_in"]
# Columns that earlier files lack.
LATER = {"max_epochs": "default", "precision": "auto", "trained_in": ""}
# Figures as tables name them.
COLUMNS = {"accuracy": "accuracy", "auroc": "AUROC", "aupr": "AUPR", "fpr95": "FPR95"}
COLUMNS |= {"coverage_at_95": "coverage", "risk_at_95": "risk", "total_error_at_95": "total error"}


class MaximumSoftmax(RejectClassDetector):
    """The classifier alone, trained for as many epochs in all under one schedule; with the score "msp"."""

    def _phases(self, n_rows):
        classes, outliers = super()._phases(n_rows)
        return [classes._replace(max_epochs=classes.max_epochs + outliers.max_epochs)]


def images(home, name):
    with np.load(home / "images" / f"{name}.npz") as file:
        X, y = file["X"], file["y"]
    return (X[:, None] if X.ndim == 3 else X), y


def in_colour(X):
    """Grey 28 x 28 images as colour images of 32 x 32."""
    return np.repeat(np.pad(X, [(0, 0), (0, 0), (2, 2), (2, 2)]), 3, axis=1)


def smaller(X):
    """Images of half the width and height: each pixel is the mean of four."""
    n, channels, height, width = X.shape
    return X.reshape(n, channels, height // 2, 2, width // 2, 2).mean((3, 5)).round().astype(np.uint8)


def load(options, seed):
    """Training images and labels, auxiliary images, test images and labels, unseen sets."""
    dataset, home = options.dataset, options.data_home
    if dataset == "digits":
        return digits(seed)
    n_train = SIZES[dataset, options.size]["n_train"]
    if dataset in GREY:
        X, y = images(home, f"{dataset}_train")
        chosen = np.random.RandomState(0).permutation(len(X))[:n_train]
        # There are six times as many letters as images of the other sets.
        unseen = {
            name: images(home, file)[0][:10_000] for name, file in GREY.items() if name not in (dataset, options.corpus)
        }
        return X[chosen], y[chosen], images(home, GREY[options.corpus])[0], images(home, GREY[dataset]), unseen
    (X, y), corpus, (X_test, y_test), unseen = colour_sets(dataset, options.corpus, home)
    if options.size == "short":
        chosen = np.random.RandomState(0).permutation(len(X))[:n_train]
        X, y, corpus, X_test = smaller(X[chosen]), y[chosen], smaller(corpus), smaller(X_test)
        unseen = {name: smaller(rows[:2000]) for name, rows in unseen.items()}
    return X, y, corpus, (X_test, y_test), unseen


def colour_sets(dataset, corpus, home):
    """Training images with labels, auxiliary images, test images with labels, unseen sets, of CIFAR-10 or CIFAR-100."""
    of_10 = images(home, "cifar10_train_1000perclass"), images(home, "cifar10_test_500perclass")
    of_100 = images(home, "cifar100_train_100perclass"), images(home, "cifar100_test_20perclass")
    unseen = {name: in_colour(images(home, GREY[name])[0]) for name in ("fashion_mnist", "notmnist")}
    if dataset == "cifar10":
        (outliers, label), (others, other_label) = of_100
        unseen["cifar100_other_classes"] = others[other_label % 2 == 1]
        return of_10[0], outliers[label % 2 == 0], of_10[1], unseen
    tiny = images(home, "tinyimagenet_val_3000_32")[0]
    if corpus == "tinyimagenet":
        return of_100[0], tiny, of_100[1], unseen | {"cifar10": of_10[1][0]}
    return of_100[0], of_10[0][0], of_100[1], unseen | {"tinyimagenet": tiny}


def digits(seed):
    """Six classes of digits, halved into training and test rows, two classes as corpus and two unseen, by the seed."""
    X, y = load_digits(return_X_y=True)
    shuffled = np.random.RandomState(0).permutation(len(X))
    X, y = X[shuffled], (y[shuffled] + 2 * seed) % 10
    known = np.flatnonzero(y < 6)
    train, test = np.array_split(known, 2)
    return X[train], y[train], X[(y == 6) | (y == 7)], (X[test], y[test]), {"two_digits": X[y > 7]}


def measures(y, y_pred, score, outlier_score):
    """Equal numbers of inliers and outliers, as many as there are of both."""
    n = min(len(score), len(outlier_score))
    rng = np.random.RandomState(0)
    inliers, outliers = rng.permutation(len(score))[:n], rng.permutation(len(outlier_score))[:n]
    truth = np.repeat([1, -1], n)
    scores = np.concatenate([score[inliers], outlier_score[outliers]])
    labels = np.concatenate([y[inliers], np.full(n, -1)])
    answers = np.concatenate([y_pred[inliers], np.zeros(n, int)])
    coverage, risk = selective_at_tpr(labels, answers, scores)
    figures = {
        "fpr95": fpr_at_tpr(truth, scores),
        "auroc": auroc(truth, scores),
        "aupr": aupr_out(truth, scores),
        "coverage_at_95": coverage,
        "risk_at_95": risk,
        "total_error_at_95": misclassification_at_tpr(labels, answers, scores),
    }
    return {name: 100 * value for name, value in figures.items()}


def reject_counts(detector, rows):
    """How often each reject class is the most probable one for rows; nothing where there are none."""
    if not detector.n_reject_classes_:
        return ""
    answers = detector.predict_reject_proba(rows).argmax(1)
    return " ".join(map(str, np.sort(np.bincount(answers, minlength=detector.n_reject_classes_))[::-1]))


def evaluate(detector, data, all_scores):
    """One row for each test set (and score)."""
    X, y, corpus, (X_test, y_test), unseen = data
    start = time.perf_counter()
    detector.fit(np.concatenate([X, corpus]), np.concatenate([y, np.full(len(corpus), -1)]))
    seconds = training_seconds(detector, start)
    scorers = {detector.score_type: detector}
    if isinstance(detector, MaximumSoftmax):
        scorers |= {name: OODScorer(detector, name, contamination=0).fit(X, y) for name in POST_HOC}

    def scores(rows):
        if all_scores:
            return detector.score_components(rows)
        return pd.DataFrame({name: scorer.score_samples(rows) for name, scorer in scorers.items()})

    y_pred, score = detector.predict_class(X_test), scores(X_test)
    of_unseen = {name: (scores(rows), reject_counts(detector, rows)) for name, rows in unseen.items()}
    about = {"accuracy": 100 * (y_pred == y_test).mean(), "seconds": seconds}
    rows = []
    for kind in score:
        for name, (outlier_score, used) in of_unseen.items():
            row = measures(y_test, y_pred, score[kind].to_numpy(), outlier_score[kind].to_numpy())
            rows.append({"score": kind, "test_set": name, "reject_classes": used, **row, **about})
        draws = []
        for draw in range(10):
            rng = np.random.RandomState(draw)
            mixed = [outlier_score[kind].to_numpy() for outlier_score, _ in of_unseen.values()]
            n = min(2000, *map(len, mixed))
            mixed = np.concatenate([rng.permutation(part)[:n] for part in mixed])
            inliers = rng.permutation(len(y_test))[: len(mixed)]
            draws.append(measures(y_test[inliers], y_pred[inliers], score[kind].to_numpy()[inliers], mixed))
        draws = pd.DataFrame(draws)
        rows.append({"score": kind, "test_set": "mixed", "auroc_sd": draws["auroc"].std(), **draws.mean(), **about})
    return rows


def detectors(options):
    """Name -> detector. Only scores matter: no threshold is set on held-out rows."""
    size = {key: value for key, value in SIZES[options.dataset, options.size].items() if key != "n_train"}
    settings = {**size, "precision": options.precision, "device": options.device, "contamination": 0}
    if options.max_epochs:
        settings |= {"class_epochs": options.max_epochs, "max_epochs": options.max_epochs}
    short = options.size == "short"

    def make(kind=RejectClassDetector, **params):
        own = settings | params
        return kind(**own) if short else kind.from_paper(options.dataset, **own)

    if options.ablations:
        build = {
            # Of this score weights are searched for all.
            f"k = {k}, {labels}": make(n_reject_classes=k, pseudo_labels=labels, score_type="combined")
            for k in (1, 2, 5, 10)
            for labels in ("self", "balanced", "kmeans")
            if k > 1 or labels == "self"
        }
        build["k = 5, self, long gradients"] = make(n_reject_classes=5, max_grad_norm=None, score_type="combined")
        return build
    build = {
        "maximum softmax": make(MaximumSoftmax, pseudo_labels="uniform"),
        "outlier exposure": make(pseudo_labels="uniform"),
        "energy fine-tuning": make(pseudo_labels="energy"),
        "reject classes": make(),
        "reject classes, blended": make(outlier_blend=0.1),
    }
    k = 10 if options.dataset == "cifar100" else 5
    if options.dataset == "cifar100":
        if short:
            # In the other sizes "reject classes" has ten.
            build[f"reject classes, k = {k}"] = make(n_reject_classes=k)
        build["reject classes, k = 50"] = make(n_reject_classes=50)
    if short:
        published = {"n_reject_classes": k, "outlier_weight": 5.0, "score_type": "sum", "class_outputs": "all"}
        build |= {f"reject classes, {ratio} a row": make(outlier_batch_ratio=ratio) for ratio in FEWER_OUTLIERS}
        return build | {"reject classes, as published": make(**published)}
    own = {"n_reject_classes": "auto", "outlier_weight": "auto", "score_type": "auto", "class_outputs": "classes"}
    build["reject classes, by default"] = make(**own)
    build["reject classes, by default, 1 a row"] = make(**own, outlier_batch_ratio=1.0)
    # What is left without a corpus.
    return build | {"reject classes, outliers made": make(outliers=("patches", "noise", "uniform"))}


def run(detector, key, options):
    data = load(options, key["seed"])
    detector.set_params(random_state=key["seed"], checkpoint=checkpoint(options.out, key, LATER))
    return [row | {"trained_in": trained_in(options)} for row in evaluate(detector, data, options.ablations)]


def print_ablations(results):
    order = list(dict.fromkeys(results["test_set"]))
    own = results[results["score"] == "sum"]
    table = own.pivot_table("auroc", "method", "test_set", sort=False)[order]
    print("\nAUROC in % by number of reject classes and assignment (score: sum); accuracy in %\n")
    print(table.assign(accuracy=own.groupby("method")["accuracy"].mean()).round(2).to_string())
    print("\nHow often the reject classes were chosen for unseen outliers (first seed)\n")
    used = results[(results["score"] == "sum") & (results["seed"] == "0") & (results["test_set"] != "mixed")]
    print(used.pivot(index="method", columns="test_set", values="reject_classes").to_string())
    print("\nAUROC in % on the mixed set by score\n")
    mixed = results[results["test_set"] == "mixed"]
    table = mixed.pivot_table("auroc", "method", "score", sort=False)
    for name, paper in PAPER_SCORES.items():
        table.loc[f"{name}, in the paper"] = pd.Series(paper)
    print(table.round(2).to_string())


def print_table(results, options):
    print(f"\n{named(options)}, {options.size}, in %; seeds: {results['seed'].nunique()}")
    print("At 95 % TPR: coverage, the inliers accepted; risk, errors among them; total error, of all accepted\n")
    by_row = with_rows(results).groupby(["row", "test_set"], sort=False)
    table = by_row[list(COLUMNS)].agg(described).rename(columns=COLUMNS)
    table["seconds"] = by_row["seconds"].mean().round().astype(int)
    for (dataset, test_set), cells in PAPER.items():
        if dataset == named(options) and test_set in set(results["test_set"]):
            for method, values in zip(METHODS, cells, strict=True):
                paper = dict(zip((COLUMNS[name] for name in METRICS), map("{:.2f}".format, values), strict=True))
                table.loc[(f"paper: {method}", test_set), list(paper)] = list(paper.values())
    print(table.to_string(na_rep="-"))


def described(values):
    """The mean of the figures of all seeds, and their standard deviation if there are several."""
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")


def with_rows(results):
    """Results with a column "row": their method, or the name of another score of the classifier alone."""
    other = results["method"].eq("maximum softmax") & results["score"].isin(list(POST_HOC))
    return results.assign(row=results["method"].mask(other, results["score"].map(POST_HOC)))


def named(options):
    """The set in distribution, with the corpus unless that is the usual one."""
    usual = options.corpus == CORPORA[options.dataset][0]
    return options.dataset if usual else f"{options.dataset}, corpus {options.corpus}"


def main(arguments=None):
    parser = Command(__doc__, "reject_classes", seeds=1)
    parser.add_argument("--dataset", choices=tuple(CORPORA), required=True)
    parser.add_argument("--corpus", help="auxiliary outliers, see above; the first of the data set by default")
    parser.add_argument("--size", choices=("short", "small", "full"), default="small")
    parser.add_argument("--ablations", action="store_true", help="k, pseudo-labels and scores instead of baselines")
    parser.add_argument("--methods", help="separated by semicolons; all by default")
    parser.add_argument("--max-epochs", type=int, help="of each step, instead of the numbers of the size")
    parser.add_argument("--precision", default="auto", help="bfloat16 is faster on some CPUs")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    if (options.dataset, options.size) not in SIZES:
        parser.error(f"--dataset {options.dataset} has no --size {options.size}")
    corpora = CORPORA[options.dataset]
    options.corpus = options.corpus or corpora[0]
    if options.corpus not in corpora:
        parser.error(f"--dataset {options.dataset} has no --corpus {options.corpus}; choose of {', '.join(corpora)}")

    chosen = detectors(options)
    names = options.methods.split(";") if options.methods else list(chosen)
    if not set(names) <= set(chosen):
        parser.error(f"--methods: choose of {'; '.join(chosen)}")
    keys = [
        {"dataset": named(options), "size": options.size, "method": name, "seed": seed} | noted(options, LATER)
        for seed in range(options.seeds)
        for name in names
    ]
    jobs = [(key, partial(run, chosen[key["method"]], key, options)) for key in keys]
    results = Runs(options.out / "results.csv", KEYS, FIGURES, LATER).complete(jobs, options.jobs)
    if options.ablations:
        print_ablations(results)
    else:
        print_table(results, options)


if __name__ == "__main__":
    main()
