"""Metadata that scikit-learn routes: wrappers pass none on, and say so where it is requested."""

import numpy as np
import pytest
from configurations import WRAPPERS
from sklearn import config_context
from sklearn.base import MetaEstimatorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skood import ConformalDetector, FitOnInliers, OpenSetClassifier, RejectClassDetector, ThresholdedDetector
from skood.metrics import get_scorer
from skood.model_selection import DropOutliers, HideLabels, OutlierKFold

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
X[40:] += 12
Y = np.repeat([1, -1], [40, 20])
WEIGHTS = np.linspace(0.1, 1, 60)

# It takes no weights itself. IsolationForest fails with routing in older versions of scikit-learn.
NEIGHBORS = LocalOutlierFactor(novelty=True)
REJECT = RejectClassDetector(max_epochs=1, contamination=0, random_state=0)


@pytest.fixture(autouse=True)
def routing():
    with config_context(enable_metadata_routing=True):
        yield


def scaler():
    return StandardScaler().set_fit_request(sample_weight=True)


def search(estimator, response="decision_function", **options):
    # A scorer that takes the weights, so that they may be passed at all.
    scorer = make_scorer(roc_auc_score, response_method=response).set_score_request(sample_weight=True)
    return GridSearchCV(estimator, {}, cv=StratifiedKFold(2), scoring=scorer, **options)


# Each wrapper, around a request that would be lost, and around what requests nothing.
REQUESTING = {
    "inliers": lambda: make_pipeline(FitOnInliers(scaler()), NEIGHBORS),
    "inliers-twice": lambda: make_pipeline(FitOnInliers(FitOnInliers(scaler())), NEIGHBORS),
    "thresholded": lambda: ThresholdedDetector(OneClassSVM().set_fit_request(sample_weight=True)),
    "thresholded-pipeline": lambda: ThresholdedDetector(make_pipeline(scaler(), NEIGHBORS)),
    "thresholded-inliers": lambda: ThresholdedDetector(make_pipeline(FitOnInliers(scaler()), NEIGHBORS)),
    "conformal": lambda: ConformalDetector(make_pipeline(scaler(), NEIGHBORS)),
    "drop": lambda: DropOutliers(make_pipeline(scaler(), NEIGHBORS)),
    "hide": lambda: HideLabels(make_pipeline(scaler(), NEIGHBORS)),
    "open-set": lambda: OpenSetClassifier(make_pipeline(scaler(), REJECT)),
    "within-a-pipeline": lambda: make_pipeline(StandardScaler(), DropOutliers(make_pipeline(scaler(), NEIGHBORS))),
}
SILENT = {
    "inliers": lambda: make_pipeline(FitOnInliers(StandardScaler()), NEIGHBORS),
    "thresholded": lambda: ThresholdedDetector(NEIGHBORS),
    "thresholded-not-requested": lambda: ThresholdedDetector(OneClassSVM().set_fit_request(sample_weight=False)),
    "conformal": lambda: ConformalDetector(NEIGHBORS, alpha=0.2, random_state=0),
    "drop": lambda: DropOutliers(make_pipeline(StandardScaler(), NEIGHBORS)),
    "hide": lambda: HideLabels(NEIGHBORS),
    # Nothing that is frozen is fitted, so it misses no weights.
    "frozen": lambda: ThresholdedDetector(
        FrozenEstimator(make_pipeline(scaler(), NEIGHBORS).fit(X, Y, sample_weight=WEIGHTS))
    ),
    "open-set": lambda: OpenSetClassifier(REJECT, reject=False),
}


def test_all_wrappers_are_tried():
    wrappers = {type(one) for one in WRAPPERS.values() if isinstance(one, MetaEstimatorMixin)}
    for tried in (REQUESTING, SILENT):
        made = [make() for make in tried.values()]
        assert wrappers <= {type(part) for one in made for part in [one, *one.get_params().values()]}


@pytest.mark.parametrize("name", REQUESTING)
def test_requested_weights_are_not_dropped(name):
    message = (
        r"passes no metadata on, but its \w+, \w+, requests sample_weight for fit.*set_fit_request\(sample_weight=F"
    )
    with pytest.raises(NotImplementedError, match=message):
        search(REQUESTING[name]()).fit(X, Y, sample_weight=WEIGHTS)


@pytest.mark.parametrize("name", SILENT)
def test_weights_that_nobody_requests_are_for_the_scorer(name):
    response = "predict_proba" if name == "open-set" else "decision_function"
    y = np.repeat([1, 2], [40, 20]) if name == "open-set" else Y
    found = search(SILENT[name](), response, error_score="raise").fit(X, y, sample_weight=WEIGHTS)
    assert np.isfinite(found.best_score_)


@pytest.mark.parametrize("tried", [REQUESTING, SILENT], ids=["requesting", "silent"])
@pytest.mark.parametrize("name", ["inliers", "thresholded", "drop"])
def test_a_search_without_metadata_works(tried, name):
    folds = OutlierKFold(2, random_state=0)
    found = GridSearchCV(tried[name](), {}, cv=folds, scoring=get_scorer("auroc"), error_score="raise")
    assert found.fit(X, Y).best_score_ > 0.9


def test_requests_under_another_name_and_of_splitters():
    named = FitOnInliers(StandardScaler().set_fit_request(sample_weight="importance"))
    with pytest.raises(NotImplementedError, match=r"FitOnInliers .* StandardScaler, requests importance for fit"):
        make_pipeline(named, LogisticRegression()).fit(X, Y, importance=WEIGHTS)
    grouped = DropOutliers(GridSearchCV(NEIGHBORS, {}, cv=GroupKFold(2), scoring="roc_auc"))
    with pytest.raises(NotImplementedError, match=r"DropOutliers .* GridSearchCV, requests groups for fit"):
        search(grouped).fit(X, Y, sample_weight=WEIGHTS)
