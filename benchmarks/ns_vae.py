"""Run NegSampleVAE in the paper's protocol, and print its Tables 1 to 5 with the paper's figures beside ours.

    python benchmarks/ns_vae.py --table 3 --data-home DIR [--seeds 5] [--size paper] [--jobs 2]

DIR (or the variable SKOOD_DATA) holds ``images/*.npz``. In distribution are Fashion-MNIST or MNIST (Tables 1, 3, 5),
with EMNIST letters or KMNIST as auxiliary negatives; or CIFAR-10 (Tables 2, 4; 1000 training images per class), with
half of the classes of CIFAR-100 as auxiliary negatives (ImageNet in the paper) and MNIST in colour as the unseen set
(SVHN in the paper). There are also unseen sets that the paper does not have. ``--size small``, the default, has 20,000
training images and the estimator's default training; ``--size paper`` has all images and `NegSampleVAE.from_paper`.
``--table 5 --ablations`` removes what stabilises generated negatives.

Each run is written to ``results.csv`` when it is finished; the same command goes on from there.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from reject_classes import images, in_colour
from runs import Command, Runs, checkpoint, noted, trained_in, training_seconds

from skood import NegSampleVAE
from skood.metrics import auroc, fpr_at_tpr

# Table -> column -> settings; data: in distribution, corpus of negatives.
GREY = {
    ("fashion_mnist", None, "bernoulli"): ("0.46 / 0.61", "0.30 / 0.35"),
    ("fashion_mnist", None, "gaussian"): ("0.98 / 0.26", "0.94 / 0.96"),
    ("mnist", None, "bernoulli"): ("1.00 / 0.73", "0.13 / 1.36"),
    ("mnist", None, "gaussian"): ("0.97 / 0.71", "0.94 / 0.99"),
    ("fashion_mnist", "letters", "bernoulli"): ("1.00 / 1.00", "0.30 / 1.45"),
    ("fashion_mnist", "letters", "gaussian"): ("1.00 / 1.00", "0.94 / 1.38"),
    # Table 3 and Table 5, another five runs.
    ("fashion_mnist", "generated", "bernoulli"): ("0.70, 0.76 / 0.88, 0.89", "0.47 / 1e18"),
    ("fashion_mnist", "generated", "gaussian"): ("0.80 / 0.74", "1.04 / 42.40"),
    ("fashion_mnist", "uniform", "bernoulli"): ("0.47 / 0.56", "0.30 / 0.32"),
    ("fashion_mnist", "kmnist", "bernoulli"): ("1.00 / 1.00", "0.30 / 1.10"),
    ("fashion_mnist", "noise", "bernoulli"): ("0.44 / 0.70", "-"),
}
COLOUR = {
    ("cifar10", None, "bernoulli"): ("0.59 / 0.29", "0.59 / 0.60"),
    ("cifar10", None, "gaussian"): ("0.25 / 0.25", "0.93 / 0.93"),
    ("cifar10", None, "quantized_gaussian"): ("0.19 / 0.28", "0.93 / 0.93"),
    ("cifar10", "cifar100", "bernoulli"): ("0.90 / 0.90", "0.77 / 2.09"),
    ("cifar10", "cifar100", "gaussian"): ("0.93 / 0.93", "1.02 / 2.63"),
    ("cifar10", "cifar100", "quantized_gaussian"): ("0.92 / 0.92", "1.06 / 2.51"),
    ("cifar10", "generated", "bernoulli"): ("0.53 / 0.53", "1.99 / 2.52"),
    ("cifar10", "generated", "gaussian"): ("0.63 / 0.63", "2.29 / 4.43"),
    ("cifar10", "generated", "quantized_gaussian"): ("0.50 / 0.51", "2.29 / 2.39"),
}
PAPER = GREY | COLOUR
TABLES = {
    1: [key for key in GREY if key[1] is None],
    2: [key for key in COLOUR if key[1] is None],
    3: [key for key in GREY if key[0] == "fashion_mnist" and key[1] in (None, "letters", "generated")],
    4: [key for key in COLOUR if key[1] is not None],
    5: [key for key in GREY if key[0] == "fashion_mnist" and key[2] == "bernoulli"],
}
# Without parts of what stabilises adversarial training.
ABLATIONS = {
    "generated, weight 1": {"negative_weight": 1.0},
    "generated, no memory": {"n_replayed": 0},
    "generated, last weights": {"weight_average": None},
    "generated, all three": {"negative_weight": 1.0, "n_replayed": 0, "weight_average": None},
}
# The unseen set of the paper's figures.
AGAINST = {"fashion_mnist": "mnist", "mnist": "fashion_mnist", "cifar10": "digits in colour"}

KEYS = ["dataset", "negatives", "noise_model", "size", "precision", "seed", "max_epochs"]
FIGURES = ["seconds", "default_score", "test_set"]
SCORES = ("elbo", "kl", "reconstruction")
FIGURES += [f"{metric}_{score}" for score in SCORES for metric in ("auroc", "fpr95")]
FIGURES += ["test_nats", "ood_nats", "trained_in"]
# Columns that earlier files lack.
LATER = {"max_epochs": "default", "trained_in": ""}


def load(dataset, negatives, home, n_train):
    """Return training images, auxiliary negatives or None, test images, and unseen sets by name."""
    grey = {"mnist": "mnist_test", "fashion_mnist": "fashion_mnist_test", "kmnist": "kmnist_t10k"}
    grey |= {"notmnist": "notmnist_10k"}
    if dataset == "cifar10":
        X, _ = images(home, "cifar10_train_1000perclass")
        corpus, label = images(home, "cifar100_train_100perclass")
        others, other_label = images(home, "cifar100_test_20perclass")
        unseen = {"digits in colour": in_colour(images(home, "mnist_test")[0])}
        unseen |= {"fashion in colour": in_colour(images(home, "fashion_mnist_test")[0])}
        # Half of the classes are negatives, the other half unseen.
        unseen["cifar100, other classes"] = others[other_label % 2 == 1]
        return X, corpus[label % 2 == 0], images(home, "cifar10_test_500perclass")[0], unseen
    X, _ = images(home, f"{dataset}_train")
    X = X[np.random.RandomState(0).permutation(len(X))[:n_train]]
    corpus = None
    if negatives in ("letters", "kmnist"):
        corpus, _ = images(home, {"letters": "emnist_letters_train", "kmnist": "kmnist_t10k"}[negatives])
    unseen = {name: images(home, file)[0] for name, file in grey.items() if name not in (dataset, negatives)}
    return X, corpus, images(home, grey[dataset])[0], unseen


def detector(dataset, negatives, noise_model, options):
    """Return the detector with the negatives that have this name in the paper."""
    auxiliary = negatives in ("letters", "kmnist", "cifar100")
    settings = {
        "negatives": "auxiliary" if auxiliary else "generated" if negatives in ABLATIONS else negatives,
        **ABLATIONS.get(negatives, {}),
        "noise_model": noise_model,
        # The paper's scores; `vae_scores.py` has others.
        "score_type": "elbo" if negatives is None else "kl",
        "precision": options.precision,
        "device": options.device,
    }
    if options.max_epochs:
        settings["max_epochs"] = options.max_epochs
    if noise_model != "bernoulli":
        settings["variance"] = 1.0
    if options.size == "paper":
        return NegSampleVAE.from_paper("colour" if dataset == "cifar10" else "grey", **settings)
    return NegSampleVAE(**settings)


def keys(options):
    """Return the rows of the table: set in distribution, negatives, noise model."""
    if options.ablations:
        return [("fashion_mnist", negatives, "bernoulli") for negatives in ABLATIONS]
    return TABLES[options.table]


def run(about, options):
    key = dataset, negatives, _ = tuple(about[name] for name in KEYS[:3])
    n_train = None if options.size == "paper" else 20_000
    X, corpus, X_test, unseen = load(dataset, negatives, options.data_home, n_train)
    # Without the fits that set a threshold; scores are the same.
    once = {"contamination": 0, "checkpoint": checkpoint(options.out, about, LATER)}
    vae = detector(*key, options).set_params(random_state=about["seed"], **once)
    start = time.perf_counter()
    if vae.negatives == "auxiliary":
        vae.fit(np.concatenate([X, corpus]), np.repeat([1, -1], [len(X), len(corpus)]))
    else:
        vae.fit(X)
    about = {"seconds": training_seconds(vae, start), "default_score": vae.score_type_}
    about["trained_in"] = trained_in(options)
    inliers = vae.score_components(X_test)
    rows = []
    for name, outliers in unseen.items():
        outliers = vae.score_components(outliers)
        truth = np.repeat([1, -1], [len(inliers), len(outliers)])
        row = {**about, "test_set": name}
        for score in SCORES:
            both = np.concatenate([inliers[score], outliers[score]])
            row |= {f"auroc_{score}": auroc(truth, both), f"fpr95_{score}": fpr_at_tpr(truth, both)}
        n_pixels = vae.n_features_in_
        row |= {"test_nats": -inliers["elbo"].mean() / n_pixels, "ood_nats": -outliers["elbo"].mean() / n_pixels}
        rows.append(row)
    return rows


def spread(values):
    return f"{values.mean():.2f} ({values.std(ddof=0):.2f})"


def print_table(results, options):
    print(f"\nTable {options.table}, {options.size}: AUROC by ELBO and by KL; nats per dimension, test and OOD images")
    results = results[results["max_epochs"] == str(noted(options, LATER)["max_epochs"])]
    for key in keys(options):
        dataset, negatives, noise_model = key
        about = [*map(str, key), options.size, options.precision]
        own = results[(results[KEYS[:5]] == about).all(axis=1)]
        if own.empty:
            continue
        print(f"\n{dataset}, negatives: {negatives}, {noise_model}, {own['seed'].nunique()} seeds")
        for name, part in own.groupby("test_set", sort=False):
            ours = f"{spread(part['auroc_elbo'])} / {spread(part['auroc_kl'])}"
            nats = f"{part['test_nats'].mean():.2f} / {part['ood_nats'].mean():.2f}"
            paper = PAPER.get(key, ("-", "-")) if name == AGAINST[dataset] else ("-", "-")
            print(f"  {name:24} {ours:27} paper {paper[0]:12}  nats {nats:14} paper {paper[1]}")
            default = part[f"auroc_{part['default_score'].iloc[0]}"].round(3).tolist()
            print(f"  {'':24} by the default score, {part['default_score'].iloc[0]}, seed by seed: {default}")


def main():
    parser = Command(__doc__, "ns_vae", seeds=1)
    parser.add_argument("--table", type=int, choices=tuple(TABLES), required=True)
    parser.add_argument(
        "--ablations", action="store_true", help="remove what stabilises generated negatives, instead of a table"
    )
    parser.add_argument("--size", choices=("small", "paper"), default="small")
    parser.add_argument("--max-epochs", type=int, help="instead of the number of the size")
    parser.add_argument("--only", help="negatives to run, separated by semicolons; all of the table by default")
    parser.add_argument("--precision", default="auto", help="bfloat16 is faster on some CPUs")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    # Most stand in a table once for each noise model.
    negatives = list(dict.fromkeys(str(key[1]) for key in keys(options)))
    only = negatives if options.only is None else options.only.split(";")
    for name in only:
        if name not in negatives:
            parser.error(f"--only {name!r} is none of the negatives of this table: {', '.join(map(repr, negatives))}")
    chosen = [
        dict(zip(KEYS[:6], (*key, options.size, options.precision, seed), strict=True)) | noted(options, LATER)
        for seed in range(options.seeds)
        for key in keys(options)
        if str(key[1]) in only
    ]
    jobs = [(key, partial(run, key, options)) for key in chosen]
    runs = Runs(options.out / "results.csv", KEYS, FIGURES, LATER)
    runs.complete(jobs, options.jobs)
    # The table includes other seeds in the file.
    print_table(runs.table(), options)


if __name__ == "__main__":
    main()
