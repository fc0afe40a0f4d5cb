"""What DUM's printed objective does, beside the default: AUROC, fit and scored on the same rows as in the paper.

    python benchmarks/dum_objectives.py [--data-home DIR] [--width 4096]

On breast cancer (the paper's Wdbc, malignant as outliers), and on the sets in DIR/uci. "large rows" scores a row by the
norm of its features in [0, 1], higher = more normal: the printed objective does little else. ``--width 4096`` is the
paper's network (minutes a data set on a CPU).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.preprocessing import minmax_scale

from skood import DUMDetector
from skood.datasets import find_suite, load, read_file
from skood.metrics import auroc


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, default=os.environ.get("SKOOD_DATA"))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--max-rows", type=int, default=10_000, help="larger sets are left out")
    options = parser.parse_args()

    sets = {"breast_cancer": load("breast_cancer")}
    if options.data_home:
        sets |= {path.stem: read_file(path) for path in find_suite(Path(options.data_home) / "uci")}
    rows = {}
    for name, (X, y) in sets.items():
        if len(X) > options.max_rows:
            continue
        paper = DUMDetector.from_paper(hidden_sizes=(options.width,) * 3, random_state=0)
        rows[name] = {
            "printed objective": auroc(y, paper.fit(X).score_samples(X)),
            "printed, circular": auroc(y, paper.set_params(covariance="circular").fit(X).score_samples(X)),
            "large rows": auroc(y, np.linalg.norm(minmax_scale(X.astype(float)), axis=1)),
            "default": auroc(y, DUMDetector(random_state=0).fit(X).score_samples(X)),
        }
        print(pd.DataFrame({name: rows[name]}).T.round(3).to_string(header=len(rows) == 1), flush=True)


if __name__ == "__main__":
    main()
