"""MLflow logs fitted estimators, and names them, as the page on taking a detector somewhere says."""

import numpy as np
import pytest
from configurations import CLASSIFIERS, CONFIGURATIONS, SMALL, named
from sklearn.base import clone, is_classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import DUMDetector
from skood.export import skops_trusted_types

mlflow = pytest.importorskip("mlflow", reason="no MLflow: pip install mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")

X = np.random.default_rng(0).normal(size=(60, 3))
DUM = DUMDetector(**SMALL, contamination=0.1, random_state=0)


@pytest.fixture(autouse=True)
def store(tmp_path):
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment("one", artifact_location=(tmp_path / "files").as_uri())
    )
    yield
    mlflow.sklearn.autolog(disable=True)


@pytest.mark.parametrize("estimator", [DUM, make_pipeline(StandardScaler(), DUM)])
def test_a_model_is_logged_and_loaded(estimator):
    estimator = clone(estimator).fit(X)
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(
            estimator, name="detector", skops_trusted_types=skops_trusted_types(), pip_requirements=["skood"]
        )
    read = mlflow.sklearn.load_model(logged.model_uri)
    assert np.array_equal(read.score_samples(X), estimator.score_samples(X))
    assert np.array_equal(mlflow.pyfunc.load_model(logged.model_uri).predict(X), estimator.predict(X))


def test_autolog_logs_a_pipeline_with_its_parameters():
    mlflow.sklearn.autolog(log_models=False)
    make_pipeline(StandardScaler(), clone(DUM)).fit(X)
    (run,) = mlflow.search_runs(output_format="list")
    assert run.data.tags["estimator_name"] == "Pipeline"
    assert run.data.params["dumdetector"].startswith("DUMDetector(")
    assert run.data.params["dumdetector__max_epochs"] == str(DUM.max_epochs)


@pytest.mark.parametrize("estimator", **named({**CONFIGURATIONS, **CLASSIFIERS}))
def test_autolog_takes_no_part_of_a_fit_for_the_model(estimator):
    """What is fitted within a fit, as a k-means, logged itself as if it were what the user fitted."""
    mlflow.sklearn.autolog(log_models=False)
    y = np.arange(len(X)) % 2 if is_classifier(estimator) else None
    # With the threshold of new rows, which is set in more than one way.
    clone(estimator).set_params(max_epochs=1).fit(X, y)
    if "contamination" in estimator.get_params():
        clone(estimator).set_params(max_epochs=1, contamination="auto").fit(X[:20], y)
    assert mlflow.search_runs(output_format="list") == []
