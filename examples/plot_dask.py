"""
A search over several processes and machines
============================================

What runs in parallel through joblib, such as scikit-learn's searches and skood's comparisons, runs on a Dask cluster
within ``joblib.parallel_config("dask")``. Here the cluster is two processes on one machine;
``Client("scheduler:8786")`` would use other machines. ``dask.array.map_blocks`` computes scores block by block, where
the rows are. All results are those of a single process, to the last bit. This example needs
``pip install 'skood[dask]'``.
"""

# %%
# Inliers lie on two moons, outliers anywhere. Only scores are used here: ``contamination=0`` saves the further fits
# that set a threshold.
import dask.array as da
import joblib
import matplotlib.pyplot as plt
import numpy as np
import torch
from distributed import Client, LocalCluster
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import GridSearchCV

from skood import DUMDetector, compare_detectors
from skood.metrics import get_scorer
from skood.model_selection import DropOutliers, OutlierKFold

moons, _ = make_moons(300, noise=0.05, random_state=0)
anywhere = np.random.default_rng(0).uniform(-2, 3, size=(75, 2))
X, y = np.vstack([moons, anywhere]), np.repeat([1, -1], [300, 75])

rates = [0.001, 0.003, 0.01]
search = GridSearchCV(
    DropOutliers(DUMDetector(max_epochs=30, contamination=0, random_state=0)),
    {"estimator__lr": rates},
    scoring=get_scorer("auroc"),
    cv=OutlierKFold(2, random_state=0),
)
detectors = {"DUMDetector": DUMDetector(max_epochs=30, contamination=0), "IsolationForest": IsolationForest()}

# The map of scores has 100 x 100 points.
axis = np.linspace(-2, 3, 100)
points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)

# Dask's workers use one thread each. With another number of threads the last bit may differ.
torch.set_num_threads(1)

# %%
# First all runs in this process, then on the cluster. Its workers import this file, too, and must not start clusters of
# their own: hence the test for ``__main__``. Blocks may have any number of rows.
if __name__ == "__main__":
    serial = clone(search).fit(X, y)
    areas = compare_detectors(detectors, {"moons": (X, y)}, seeds=1)
    scores = serial.score_samples(points)

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster):
        with joblib.parallel_config("dask"):
            parallel = clone(search).fit(X, y)
            parallel_areas = compare_detectors(detectors, {"moons": (X, y)}, seeds=1, n_jobs=2)
        blocks = da.from_array(points, chunks=(2500, -1))
        blocks = blocks.map_blocks(parallel.score_samples, drop_axis=1, dtype=np.float64, meta=np.empty(0))
        parallel_scores = blocks.compute()

    means, parallel_means = serial.cv_results_["mean_test_score"], parallel.cv_results_["mean_test_score"]
    print("the search is the same:", np.array_equal(means, parallel_means))
    print("the comparison is the same:", np.array_equal(areas["auroc"], parallel_areas["auroc"]))
    print("the scores are the same:", np.array_equal(scores, parallel_scores))

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.semilogx(rates, means, "o-", markersize=12, label="one process")
    left.semilogx(rates, parallel_means, "x--", label="Dask, two processes")
    left.set(xlabel="lr", ylabel="AUROC, mean of two folds", title="the search")
    left.legend()
    shown = right.contourf(axis, axis, parallel_scores.reshape(100, 100), levels=20)
    right.plot(*moons.T, ".", color="white", markersize=2)
    right.set_title("scores, computed in 4 blocks")
    figure.colorbar(shown, ax=right, label="higher = more normal")
    plt.show()
