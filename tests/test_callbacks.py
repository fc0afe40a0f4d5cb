"""Held-out rows that are scored while a detector trains."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Checkpoint, EarlyStopping, EpochScoring

from skood import (
    BackboneClassifier,
    DUMDetector,
    NegSampleVAE,
    RejectClassDetector,
    ResidualAdapterDetector,
    RotationAuxClassifier,
    SimCLREncoder,
)
from skood.callbacks import PruneTrial, ValidationScore
from skood.metrics import aupr_out, auroc, fpr_at_tpr

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4)).astype(np.float32)
Y = np.repeat([0, 1, 2], 20)
X_VAL = np.concatenate([rng.normal(size=(30, 4)), rng.normal(size=(20, 4)) + 1]).astype(np.float32)
Y_VAL = np.repeat([1, -1], [30, 20])
SMALL = {"hidden_sizes": (8,), "max_epochs": 3, "batch_size": 16, "contamination": 0, "random_state": 0}
SMALL |= {"device": "cpu"}
BACKBONE = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
DETECTORS = {
    "dum": DUMDetector(**SMALL),
    "dum-calibrated": DUMDetector(**SMALL, score_type="calibrated"),
    "dum-encoder": DUMDetector(**SMALL, encoder=BACKBONE),
    "vae": NegSampleVAE(**SMALL),
    "vae-average": NegSampleVAE(**SMALL, weight_average=0.9),
    "reject": RejectClassDetector(**SMALL, class_epochs=2),
    "reject-knn": RejectClassDetector(**SMALL, class_epochs=2, score_type="knn"),
    "rotation": RotationAuxClassifier(**SMALL),
    "rotation-images": RotationAuxClassifier(
        "rotation", **SMALL, network="wrn-10-1", image_shape=(1, 2, 2), score_type="mahalanobis"
    ),
    "adapters": ResidualAdapterDetector(**SMALL, pretrain_epochs=2),
    "adapters-knn": ResidualAdapterDetector(**SMALL, pretrain_epochs=2, score_type="knn"),
}
each = pytest.mark.parametrize("name", DETECTORS)


def fitted(name, **params):
    detector = clone(DETECTORS[name]).set_params(**params)
    return detector.fit(X, Y if hasattr(detector, "predict_class") else None)


@each
def test_the_last_epoch_has_the_score_of_the_detector(name):
    """And the training is the same with and without the callback."""
    watched = fitted(name, callbacks=[ValidationScore(X_VAL, Y_VAL)])
    assert len(watched.history_[:, "valid_auroc"]) == len(watched.history_)
    scores = watched.score_samples(X_VAL)
    if name != "rotation-images":
        # Statistics of batch normalisation are then computed anew, on batches that are drawn.
        assert watched.history_[-1, "valid_auroc"] == auroc(Y_VAL, scores)
    np.testing.assert_array_equal(scores, fitted(name).score_samples(X_VAL))


@each
def test_the_loss_of_rows_without_outliers(name):
    classes = np.arange(50) % 3 if hasattr(DETECTORS[name], "predict_class") else None
    watched = fitted(name, callbacks=[ValidationScore(X_VAL, classes, metric="loss")])
    losses = watched.history_[:, "valid_loss"]
    assert np.isfinite(losses).all()
    assert len(set(losses)) > 1
    np.testing.assert_array_equal(watched.score_samples(X_VAL), fitted(name).score_samples(X_VAL))


@pytest.mark.parametrize(("metric", "function"), [("auroc", auroc), ("aupr_out", aupr_out), ("fpr95", fpr_at_tpr)])
def test_metrics(metric, function):
    watched = fitted("dum", callbacks=[ValidationScore(X_VAL, Y_VAL, metric)])
    values = watched.history_[:, f"valid_{metric}"]
    assert values[-1] == function(Y_VAL, watched.score_samples(X_VAL))
    signed = values if metric == "fpr95" else [-value for value in values]
    best = [all(value < earlier for earlier in signed[:place]) for place, value in enumerate(signed)]
    assert watched.history_[:, f"valid_{metric}_best"] == best


def test_callbacks_monitor_it_whatever_their_order(tmp_path):
    stop = EarlyStopping(monitor="valid_auroc", lower_is_better=False, patience=2, sink=lambda text: None)
    keep = Checkpoint(monitor="valid_auroc_best", dirname=tmp_path)
    detector = fitted("dum", max_epochs=100, callbacks=[stop, keep, ("watch", ValidationScore(X_VAL, Y_VAL))])
    assert len(detector.history_) < 100
    assert (tmp_path / "params.pt").exists()


def test_the_best_weights_are_loaded(tmp_path):
    keep = Checkpoint(monitor="valid_auroc_best", dirname=tmp_path, load_best=True)
    detector = fitted("dum", max_epochs=10, lr=0.1, callbacks=[ValidationScore(X_VAL, Y_VAL), keep])
    assert auroc(Y_VAL, detector.score_samples(X_VAL)) == max(detector.history_[:, "valid_auroc"])


def test_each_phase_is_stopped_by_itself():
    stop = EarlyStopping(monitor="valid_loss", patience=1, sink=lambda text: None)
    watch = ValidationScore(X_VAL, np.arange(50) % 3, metric="loss")
    detector = fitted("reject", class_epochs=50, max_epochs=50, lr=0.1, callbacks=[watch, stop])
    phases = detector.history_[:, "phase"]
    assert 0 < phases.count("classes") < 50
    assert 0 < phases.count("reject") < 50


def test_other_marks_and_containers():
    frame = pd.DataFrame(X, columns=list("abcd"))
    watch = ValidationScore(pd.DataFrame(X_VAL, columns=list("abcd")), np.where(Y_VAL < 0, "odd", "even"))
    detector = clone(DETECTORS["dum"]).set_params(callbacks=[watch], outlier_label="odd").fit(frame)
    assert len(detector.history_[:, "valid_auroc"]) == 3
    with pytest.raises(ValueError, match="feature names"):
        detector.fit(frame[list("dcba")])


def test_in_a_pipeline_rows_are_transformed_before():
    scaler = StandardScaler().fit(X)
    watch = ValidationScore(scaler.transform(X_VAL), Y_VAL)
    pipeline = make_pipeline(StandardScaler(), clone(DETECTORS["vae"]).set_params(callbacks=[watch])).fit(X)
    assert pipeline[-1].history_[-1, "valid_auroc"] == auroc(Y_VAL, pipeline.score_samples(X_VAL))


def test_a_detector_can_be_saved_without_the_rows_of_its_callbacks():
    plain, many = fitted("vae"), np.tile(X_VAL, (100, 1))
    detector = fitted("vae", callbacks=[ValidationScore(many, np.tile(Y_VAL, 100))])
    size, scores = len(pickle.dumps(plain)), plain.score_samples(X)
    assert len(pickle.dumps(detector)) > size + many.nbytes
    saved = pickle.dumps(detector.set_params(callbacks=None))
    assert abs(len(saved) - size) < 2000
    np.testing.assert_array_equal(pickle.loads(saved).score_samples(X), scores)


def test_it_is_cloned_and_pickled():
    detector = clone(DETECTORS["dum"]).set_params(callbacks=[ValidationScore(X_VAL, Y_VAL)])
    again = pickle.loads(pickle.dumps(clone(detector)))
    assert again.fit(X).history_[:, "valid_auroc"] == detector.fit(X).history_[:, "valid_auroc"]
    assert not hasattr(pickle.loads(pickle.dumps(again)), "callbacks_")


def refused(match, *callbacks, estimator=None, **params):
    estimator = clone(DETECTORS["dum"] if estimator is None else estimator)
    with pytest.raises(ValueError, match=match):
        estimator.set_params(callbacks=list(callbacks), **params).fit(X)


def test_what_cannot_be():
    refused("'valid_loss' would be recorded twice", ValidationScore(X_VAL, metric="loss"), early_stopping=True)
    refused("recorded twice", ValidationScore(X_VAL, Y_VAL), ValidationScore(X_VAL, Y_VAL))
    refused(r"marks no outliers \(by -1\)", ValidationScore(X_VAL, np.ones(50)))
    refused(
        r"\(by -1\): it holds 'bad' \(25 rows\), 'ok' \(25 rows\)\. The detector's outlier_label names",
        ValidationScore(X_VAL, np.repeat(["ok", "bad"], 25)),
    )
    refused("marks only outliers", ValidationScore(X_VAL, -np.ones(50)))
    refused("needs y_val", ValidationScore(X_VAL))
    refused("metric='accuracy' must be one of", ValidationScore(X_VAL, Y_VAL, "accuracy"))
    refused("3 features", ValidationScore(X_VAL[:, :3], Y_VAL))
    stop = EarlyStopping(monitor="valid_auroc", lower_is_better=False)
    refused(r"monitors 'valid_auroc'.*ValidationScore", stop)
    refused(r"monitors 'valid_fpr95'", EarlyStopping(monitor="valid_fpr95"), ValidationScore(X_VAL, Y_VAL))
    encoder = SimCLREncoder(max_epochs=1, device="cpu")
    refused(r"is for detectors, which have scores", ValidationScore(X_VAL, Y_VAL), estimator=encoder)


ALL = {**DETECTORS, "encoder": SimCLREncoder(max_epochs=1), "classifier": BackboneClassifier(max_epochs=1)}


@pytest.mark.parametrize("name", ALL)
def test_an_error_advises_what_the_estimator_has(name):
    estimator = clone(ALL[name]).set_params(callbacks=[EarlyStopping()], device="cpu")
    with_classes = hasattr(estimator, "predict_class") or name == "classifier"
    with pytest.raises(ValueError, match=r"EarlyStopping monitors 'valid_loss', .* monitor 'train_loss'") as error:
        estimator.fit(X, Y if with_classes else None)
    assert ("early_stopping=True records" in str(error.value)) == ("early_stopping" in estimator.get_params())
    assert ("skood.callbacks.ValidationScore" in str(error.value)) == hasattr(estimator, "score_samples")
    estimator.set_params(callbacks=[EpochScoring("accuracy", on_train=True)])
    with pytest.raises(ValueError, match=r"'accuracy'\) compares .*, but callbacks get no labels; pass a function"):
        estimator.fit(X, Y if with_classes else None)


def test_a_loss_of_auxiliary_outliers_needs_some():
    detector = clone(DETECTORS["vae"]).set_params(callbacks=[ValidationScore(X_VAL, metric="loss")])
    y = np.where(np.arange(60) < 50, 1, -1)
    with pytest.raises(ValueError, match="marks no auxiliary outliers"):
        detector.fit(X, y)
    watch = ValidationScore(X_VAL, Y_VAL, metric="loss")
    assert np.isfinite(detector.set_params(callbacks=[watch]).fit(X, y).history_[:, "valid_loss"]).all()


def test_optuna_prunes_by_it():
    optuna = pytest.importorskip("optuna")

    def objective(trial):
        lr = trial.suggest_categorical("lr", [1e-2, 1e-9])
        callbacks = [ValidationScore(X_VAL, Y_VAL), PruneTrial(trial)]
        detector = clone(DETECTORS["dum"]).set_params(lr=lr, max_epochs=5, callbacks=callbacks)
        return max(detector.fit(X).history_[:, "valid_auroc"])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.GridSampler({"lr": [1e-2, 1e-9]}, seed=0),
        pruner=optuna.pruners.ThresholdPruner(lower=1.0),
    )
    study.optimize(objective, n_trials=2)
    states = [trial.state.name for trial in study.trials]
    assert states == ["PRUNED", "PRUNED"]
    assert all(len(trial.intermediate_values) == 1 for trial in study.trials)
