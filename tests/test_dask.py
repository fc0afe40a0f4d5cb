"""Work that is spread over a cluster by Dask gives what one process gives, to the last bit."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import GridSearchCV

from skood import DUMDetector, NegSampleVAE, compare_detectors
from skood.metrics import get_scorer
from skood.model_selection import DropOutliers, OutlierKFold

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install skood[dask]")
da = pytest.importorskip("dask.array", reason="Dask is not installed: pip install skood[dask]")

SETTINGS = {"max_epochs": 2, "hidden_sizes": (8,), "contamination": 0, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(130, 3))
    X[100:] += 4
    return X, np.repeat([1, -1], [100, 30])


@pytest.fixture(scope="module")
def cluster():
    """Two processes, each of one thread, as the tests' own."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def test_a_search(cluster, data):
    X, y = data
    search = GridSearchCV(
        DropOutliers(DUMDetector(**SETTINGS)),
        {"estimator__lr": [1e-3, 1e-2]},
        scoring=get_scorer("auroc"),
        cv=OutlierKFold(2, random_state=0),
        error_score="raise",
    )
    serial = clone(search).fit(X, y)
    with joblib.parallel_config("dask"):
        parallel = search.fit(X, y)
    for column in ("split0_test_score", "split1_test_score", "rank_test_score"):
        assert np.array_equal(parallel.cv_results_[column], serial.cv_results_[column])
    assert np.array_equal(parallel.score_samples(X), serial.score_samples(X))


@pytest.mark.parametrize("n_jobs", [2, None])
def test_a_comparison(cluster, data, tmp_path, n_jobs):
    """Scores too: areas of few rows hardly move."""
    detectors = {
        "DUM": DUMDetector(**SETTINGS),
        "forest": IsolationForest(n_estimators=10),
        "of no use": DUMDetector(lr=-1.0),
    }
    serial = compare_detectors(detectors, {"blob": data}, seeds=2, out=tmp_path / "serial")
    with joblib.parallel_config("dask"):
        parallel = compare_detectors(detectors, {"blob": data}, seeds=2, n_jobs=n_jobs, out=tmp_path / "dask")
    seconds = ["fit_seconds", "score_seconds"]
    pd.testing.assert_frame_equal(parallel.drop(columns=seconds), serial.drop(columns=seconds), check_exact=True)
    paths = sorted((tmp_path / "serial" / "scores").glob("*.npz"))
    assert len(paths) == 2
    for path in paths:
        with np.load(path) as expected, np.load(tmp_path / "dask" / "scores" / path.name) as given:
            assert all(np.array_equal(given[name], expected[name]) for name in expected)


@pytest.mark.parametrize("detector", [DUMDetector(**SETTINGS), NegSampleVAE(**SETTINGS)], ids=["dum", "vae"])
def test_scores_of_a_dask_array(cluster, data, detector):
    """Blocks of any size change nothing, to the last bit."""
    fitted = clone(detector).fit(data[0])
    X = np.random.default_rng(1).normal(size=(2500, 3))

    def in_blocks(method, sizes, dtype):
        blocks = da.from_array(X, chunks=(sizes, -1))
        return blocks.map_blocks(method, drop_axis=1, dtype=dtype, meta=np.empty(0, dtype=dtype)).compute()

    assert np.array_equal(in_blocks(fitted.score_samples, 1024, np.float64), fitted.score_samples(X))
    assert np.array_equal(in_blocks(fitted.predict, 1024, np.int64), fitted.predict(X))
    assert np.array_equal(in_blocks(fitted.score_samples, (1400, 1, 1099), np.float64), fitted.score_samples(X))
