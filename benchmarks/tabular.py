"""Compare skood's detectors with classical ones on vectors: mean AUROC over the development suite, both protocols.

    python benchmarks/tabular.py --data-home DIR [--jobs 2] [--detectors "RejectClassDetector;kNN"]

DIR (or the variable SKOOD_DATA) holds ``adbench/*.npz`` in ADBench's format. The development suite is all of it except
10_cover and 30_satellite; defaults are chosen on this suite alone. ``--held-out`` runs on sets that influenced no
choice: those two, ``uci/*.npz`` and ``adbench_embeddings/*.npz`` under DIR.

After an interruption, the same command goes on from the last run.
"""

from __future__ import annotations

import functools

from runs import Command

from skood import (
    DUMDetector,
    NegSampleVAE,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    compare_detectors,
)
from skood.compare import DETECTORS, format_table, summarize
from skood.datasets import find_suite, read_file

KEPT_BACK = {"10_cover", "30_satellite"}


def detectors():
    return {
        "DUMDetector": DUMDetector(),
        "DUM, norm of the covariance": DUMDetector(score_type="norm"),
        "DUM, circular": DUMDetector(covariance="circular"),
        # Standardised rows of unit length suit the printed objective best.
        "DUM, printed objective": DUMDetector(
            bags="dataset",
            score_type="norm",
            normalize="l2",
            network="mlp",
            hidden_sizes=(128, 128, 128),
            batch_size=256,
            lr=1e-3,
            optimizer="adam",
            schedule="constant",
            max_epochs=100,
        ),
        # Without auxiliary outliers, outliers are made from the inliers.
        "RejectClassDetector": RejectClassDetector(),
        "reject classes, balanced": RejectClassDetector(pseudo_labels="balanced"),
        "reject classes, k-means": RejectClassDetector(pseudo_labels="kmeans"),
        "reject classes, k = 1": RejectClassDetector(1),
        "reject classes, permuted": RejectClassDetector(outliers="permuted"),
        "reject classes, uniform": RejectClassDetector(outliers="uniform"),
        "reject classes, noise": RejectClassDetector(outliers="noise"),
        "NegSampleVAE": NegSampleVAE(),
        "VAE, no negatives": NegSampleVAE(None),
        "VAE, noise": NegSampleVAE("noise"),
        "VAE, uniform": NegSampleVAE("uniform"),
        "VAE, permuted": NegSampleVAE("permuted"),
        "VAE, generated": NegSampleVAE("generated"),
        "VAE, a variance for each feature": NegSampleVAE(variance="per-feature"),
        "RotationAuxClassifier": RotationAuxClassifier(),
        "rotation, Mahalanobis": RotationAuxClassifier(score_type="mahalanobis"),
        "rotation, kNN": RotationAuxClassifier(score_type="knn"),
        "rotation, 64 maps": RotationAuxClassifier(n_transforms=64),
        # The same without a corpus.
        "ResidualAdapterDetector": ResidualAdapterDetector(),
        "adapters, no outliers": ResidualAdapterDetector(outliers=None),
        "adapters, Deep SVDD": ResidualAdapterDetector(adaptation="scratch", outliers=None),
        "adapters, from scratch": ResidualAdapterDetector(adaptation="scratch"),
        "adapters, finetuned": ResidualAdapterDetector(adaptation="finetune"),
        "adapters, frozen": ResidualAdapterDetector(adaptation="frozen"),
        **{name: DETECTORS[name]() for name in ("IsolationForest", "LOF", "OneClassSVM", "EllipticEnvelope", "kNN")},
    }


def main():
    parser = Command(__doc__, "tabular", seeds=3)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--max-train", type=int, default=10_000)
    parser.add_argument("--detectors", help="names as in the table, separated by semicolons; all by default")
    parser.add_argument("--protocols", default="novelty,contaminated", help="separated by commas")
    options = parser.parse_args()

    paths = find_suite(options.data_home / "adbench")
    if options.held_out:
        paths = [path for path in paths if path.stem in KEPT_BACK]
        paths += find_suite(options.data_home / "uci") + find_suite(options.data_home / "adbench_embeddings")
    else:
        paths = [path for path in paths if path.stem not in KEPT_BACK]
    # Names include the folder, because adbench and uci share some names.
    suite = {f"{path.parent.name}/{path.stem}": functools.partial(read_file, path) for path in paths}
    known = detectors()
    chosen = {name: known[name] for name in parser.names("--detectors", options.detectors, known)}
    for protocol in options.protocols.split(","):
        results = compare_detectors(
            chosen,
            suite,
            protocol=protocol,
            seeds=options.seeds,
            max_train=options.max_train,
            n_jobs=options.jobs,
            out=options.out,
            progress=True,
        )
        if results.attrs["interrupted"]:
            return
        table = summarize(results)
        print(f"\n{protocol}, {len(suite)} data sets, {options.seeds} seeds\n")
        print(format_table(table[[column for column in table if column not in suite]]), flush=True)
        by_dataset = table[list(suite)].T
        by_dataset.index.name = "data set"
        print("\n" + by_dataset.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
