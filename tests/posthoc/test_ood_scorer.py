import copy
import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.sparse import csr_array
from scipy.special import logit, softmax
from sklearn.base import clone, is_outlier_detector
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, make_blobs
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.nn import functional

from skood import (
    OODScorer,
    OpenSetClassifier,
    RejectClassDetector,
    RotationAuxClassifier,
    SimCLREncoder,
    ThresholdedDetector,
    scores,
)
from skood.estimator.held_out import held_out_offset
from skood.metrics import aupr_out, auroc, fpr_at_tpr, get_scorer
from skood.posthoc.compare_scores import compare_scores
from skood.scores import METHODS

# Digits below 8 are known: X_TRAIN trains classifiers, X_FIT scorers. The unknown ones are 8 and 9.
X, Y = load_digits(return_X_y=True)
X = X / 16
X_TRAIN, X_KNOWN, Y_TRAIN, Y_KNOWN = train_test_split(X[Y < 8], Y[Y < 8], test_size=0.5, random_state=0)
X_FIT, Y_FIT, X_NEW, Y_NEW = X_KNOWN[:350], Y_KNOWN[:350], X_KNOWN[350:], Y_KNOWN[350:]
X_OUT = X[Y >= 8]

X_BINARY, Y_BINARY = make_blobs(200, centers=2, n_features=3, random_state=1)
FOLDS = StratifiedKFold(3)
LEARNT_BY_CLASS = (
    *("mahalanobis", "relative_mahalanobis", "mahalanobis_pp", "relative_mahalanobis_pp"),
    *("she", "openmax"),
)


def trained(module, X=X_TRAIN, y=Y_TRAIN, loss=functional.cross_entropy, n_steps=60):
    torch.manual_seed(0)
    rows, labels = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss(module(rows), labels).backward()
        optimizer.step()
    return module.eval()


def mlp(*last, n_features=64, n_classes=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(n_features, 48), nn.BatchNorm1d(48), nn.ReLU(inplace=True), nn.Linear(48, n_classes), *last
    )


@pytest.fixture(scope="module")
def net():
    return trained(mlp())


@pytest.fixture(scope="module")
def reject():
    detector = RejectClassDetector(
        network="mlp", hidden_sizes=(32,), class_epochs=5, max_epochs=5, batch_size=64, temperature=2.0, random_state=0
    )
    return detector.fit(X_TRAIN, Y_TRAIN)


@pytest.fixture(scope="module")
def logistic():
    return LogisticRegression().fit(X_TRAIN, Y_TRAIN)


def doubled(module, X):
    """Features and logits of a Sequential in float64, the direct way."""
    module = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        features = module[:3](torch.tensor(X))
        return features.numpy(), module[3](features).numpy()


def detects(scorer, X_in=X_NEW, X_out=X_OUT):
    score = np.concatenate([scorer.score_samples(X_in), scorer.score_samples(X_out)])
    return auroc(np.repeat([1, -1], [len(X_in), len(X_out)]), score)


# --------------------------------------------------------------------------------------------------------------------
# The scores, around a torch module


@pytest.mark.parametrize("method", [name for name in METHODS if name != "rotation"])
def test_every_method_detects_unknown_digits(net, method):
    scorer = OODScorer(net, method).fit(X_FIT, Y_FIT)
    assert detects(scorer) > (0.75 if method == "dice" else 0.8)
    assert (scorer.predict(X_NEW) == -1).mean() < 0.12
    assert scorer.score_samples(X_NEW).dtype == np.float64


def test_scores_are_the_formulas(net):
    features, logits = doubled(net, X_NEW)
    known_features, known_logits = doubled(net, X_FIT)
    weight, bias = (parameter.detach().double().numpy() for parameter in (net[3].weight, net[3].bias))
    expected = {
        "msp": logit(softmax(logits, axis=1).max(1)),
        "max_logit": logits.max(1),
        "energy": np.log(np.exp(logits).sum(1)),
        "knn": scores.knn(features, known_features),
        "mahalanobis": scores.mahalanobis(features, **scores.learn_mahalanobis(known_features, Y_FIT)),
        "fdbd": scores.fdbd(logits, features, weight, **scores.learn_fdbd(known_features, weight)),
        "vim": scores.vim(logits, features, **scores.learn_vim(known_logits, known_features, weight, bias)),
        "react": scores.react(features, weight, bias, **scores.learn_react(known_features)),
        "kl_matching": scores.kl_matching(logits, **scores.learn_kl_matching(known_logits)),
    }
    for method, value in expected.items():
        np.testing.assert_allclose(
            OODScorer(net, method).fit(X_FIT, Y_FIT).score_samples(X_NEW), value, rtol=1e-5, atol=1e-5, err_msg=method
        )
    odin = scores.odin_log_odds(copy.deepcopy(net).double(), torch.tensor(X_NEW))
    np.testing.assert_allclose(OODScorer(net, "odin").fit(X_FIT).score_samples(X_NEW), odin.numpy())


def test_options(net):
    features, _ = doubled(net, X_NEW)
    known_features, _ = doubled(net, X_FIT)
    scorer = OODScorer(net, "knn", method_params={"n_neighbors": 2}).fit(X_FIT)
    np.testing.assert_allclose(
        scorer.score_samples(X_NEW), scores.knn(features, known_features, 2), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="no option 'k'"):
        OODScorer(net, "knn", method_params={"k": 2}).fit(X_FIT)
    with pytest.raises(ValueError, match="'method' parameter"):
        OODScorer(net, "best").fit(X_FIT)


@pytest.mark.parametrize("method", ["mahalanobis", "mahalanobis_pp"])
def test_mahalanobis_distances_of_rows_that_are_moved(net, method):
    """Against finite differences: every value of a row moves such that the distance falls."""
    params = {"epsilon": 0.01, "std": np.linspace(0.5, 2, 64).tolist()}
    scorer = OODScorer(net, method, method_params=params).fit(X_FIT, Y_FIT)
    learnt = getattr(scores, f"learn_{method}")(doubled(net, X_FIT)[0], Y_FIT)

    def score(rows):
        return getattr(scores, method)(doubled(net, rows)[0], **learnt)

    for row in X_NEW[:5]:
        steps = 1e-6 * np.eye(64)
        gradient = score(row + steps) - score(row - steps)
        moved = row + np.where(np.abs(gradient) > 1e-10, params["epsilon"] * np.sign(gradient), 0) / params["std"]
        np.testing.assert_allclose(scorer.score_samples(row[None]), score(moved[None]), rtol=1e-3)
    together = scorer.score_samples(X_NEW)
    plain = OODScorer(net, method).fit(X_FIT, Y_FIT)
    assert (together >= plain.score_samples(X_NEW)).mean() > 0.99
    assert np.array_equal(scorer.score_samples(X_NEW[:7]), together[:7])
    # The threshold is that of rows which are moved.
    assert (scorer.predict(X_NEW) == -1).mean() < 0.12
    assert scorer.offset_ > plain.offset_
    table = compare_scores(
        net, X_NEW, X_OUT, X_train=X_FIT, y_train=Y_FIT, methods=[method], method_params={method: params}
    )
    assert table.loc[method, "auroc"] == pytest.approx(detects(scorer))


def test_rows_of_what_gives_no_gradient_are_not_moved(logistic):
    with pytest.raises(ValueError, match=r"epsilon=0\.1 is not possible: LogisticRegression gives no gradient"):
        OODScorer(logistic, "mahalanobis", method_params={"epsilon": 0.1}).fit(X_FIT, Y_FIT)
    table = compare_scores(logistic, X_NEW, X_OUT, X_train=X_FIT, method_params={"mahalanobis": {"epsilon": 0.1}})
    assert table.attrs["left_out"]["mahalanobis"] == "LogisticRegression gives no gradient"


def test_temperatures(net):
    _, logits = doubled(net, X_NEW)
    weight, bias = (parameter.detach().double().numpy() for parameter in (net[3].weight / 4, net[3].bias / 4))
    features, _ = doubled(net, X_NEW)
    known_features, _ = doubled(net, X_FIT)
    cases = {
        "energy": scores.energy(logits / 4, temperature=3.0),
        "react": scores.react(features, weight, bias, **scores.learn_react(known_features), temperature=3.0),
        "odin": scores.odin_log_odds(copy.deepcopy(net).double(), torch.tensor(X_NEW), temperature=12.0).numpy(),
    }
    for method, expected in cases.items():
        scorer = OODScorer(net, method, temperature=4.0, method_params={"temperature": 3.0}).fit(X_FIT)
        np.testing.assert_allclose(scorer.score_samples(X_NEW), expected, rtol=1e-6, err_msg=method)
        np.testing.assert_allclose(scorer.predict_proba(X_NEW), softmax(logits / 4, axis=1), rtol=1e-5, atol=1e-6)


def test_probabilities_and_classes(net):
    scorer = OODScorer(net, "knn").fit(X_FIT)
    _, logits = doubled(net, X_NEW)
    np.testing.assert_allclose(scorer.predict_proba(X_NEW), softmax(logits, axis=1), rtol=1e-5, atol=1e-6)
    assert np.array_equal(scorer.predict_class(X_NEW), logits.argmax(1))
    assert (scorer.predict_class(X_NEW) == Y_NEW).mean() > 0.9
    assert scorer.classes_.tolist() == list(range(8))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "rotation"])
def test_a_row_scores_the_same_to_the_last_bit_in_any_company(net, method, n_threads):
    scorer = OODScorer(net, method).fit(X_FIT)
    torch.set_num_threads(n_threads)
    try:
        together = scorer.score_samples(X_NEW)
        assert np.array_equal(scorer.score_samples(X_NEW[::-1])[::-1], together)
        for size in (1, 7, 64):
            parts = [scorer.score_samples(X_NEW[start : start + size]) for start in range(0, 3 * size, size)]
            assert np.array_equal(np.concatenate(parts), together[: 3 * size])
        assert np.array_equal(scorer.score_samples(np.repeat(X_NEW[:2], 600, axis=0)), np.repeat(together[:2], 600))
        assert np.array_equal(pickle.loads(pickle.dumps(scorer)).score_samples(X_NEW[:5]), together[:5])
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("classifier", [GaussianNB(), LogisticRegression(), MLPClassifier((8,), max_iter=20)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_row_of_a_scikit_learn_classifier_scores_the_same_in_any_company(classifier):
    rows = np.random.default_rng(0).normal(size=(300, 6))
    y = (rows[:, 0] > 0).astype(int) + (rows[:, 1] > 0)
    classifier = clone(classifier).fit(rows, y)
    for method in ("msp", "energy", "mahalanobis", "she", "vim", "gram"):
        try:
            scorer = OODScorer(classifier, method).fit(rows, y)
        except ValueError:
            continue
        together = scorer.score_samples(rows)
        for size in (1, 2, 7, 100):
            parts = [scorer.score_samples(rows[start : start + size]) for start in range(0, min(20 * size, 300), size)]
            assert np.array_equal(np.concatenate(parts), together[: min(20 * size, 300)])


def test_a_row_scores_the_same_whatever_was_scored_before():
    """Scorers of one network share what was found out about small blocks, which not all scores pass."""
    images = np.random.default_rng(0).integers(0, 256, (130, 3, 13, 12), dtype=np.uint8)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    )
    again = OODScorer(net)
    for method in ("energy", "mahalanobis", "she", "scale", "nnguide", "vim"):
        for scorer in (OODScorer(net, method), again.set_params(method=method)):
            together = scorer.fit(images).score_samples(images)
            assert [scorer.score_samples(images[i : i + 1])[0] for i in range(30)] == together[:30].tolist()


def test_threads_score_at_a_time(net):
    scorer = OODScorer(net, "vim").fit(X_FIT)
    expected = scorer.score_samples(X_NEW)
    parts = [X_NEW[start : start + 25] for start in range(0, len(X_NEW), 25)]
    with ThreadPoolExecutor(6) as threads:
        assert np.array_equal(np.concatenate(list(threads.map(scorer.score_samples, parts))), expected)


def test_threshold(net):
    scorer = OODScorer(net).fit(X_FIT)
    assert is_outlier_detector(scorer)
    assert scorer.offset_ == held_out_offset(scorer.score_samples(X_FIT))
    assert np.array_equal(scorer.decision_function(X_OUT), scorer.score_samples(X_OUT) - scorer.offset_)
    assert np.array_equal(scorer.training_scores_, np.sort(scorer.score_samples(X_FIT)))
    tenth = OODScorer(net, contamination=0.1)
    assert (tenth.fit_predict(X_FIT) == -1).mean() == pytest.approx(0.1, abs=0.005)
    new = np.sort(scorer.score_samples(X_NEW))
    assert scorer.set_threshold(target_fpr=0.01, X=X_NEW).offset_ == (new[2] + new[3]) / 2


# --------------------------------------------------------------------------------------------------------------------
# The classifier stays as it is


@pytest.mark.parametrize("method", ["energy", "odin", "knn", "vim"])
def test_the_classifier_is_not_modified(net, method):
    net = copy.deepcopy(net).train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[3].weight.grad = torch.ones_like(net[3].weight)
    before, pickled = copy.deepcopy(net.state_dict()), pickle.dumps(net)
    scorer = OODScorer(net, method, layer=None).fit(X_FIT)
    scorer.calibrate(X_FIT, Y_FIT) if method != "vim" else scorer.predict(X_NEW)
    assert pickle.dumps(net) == pickled
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [part.training for part in net.modules()] == [True, True, False, True, True]
    assert torch.equal(net[3].weight.grad, torch.ones_like(net[3].weight))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    # Batch normalisation goes by its running statistics, though the module is in training mode.
    evaluated = OODScorer(copy.deepcopy(net).eval(), method).fit(X_FIT)
    np.testing.assert_allclose(scorer.predict_class(X_NEW), evaluated.predict_class(X_NEW))


def test_rows_are_not_modified(net):
    X = X_FIT.copy()
    module = nn.Sequential(nn.Hardtanh(-0.1, 0.1, inplace=True), *net).eval()
    for method in ("knn", "odin"):
        OODScorer(module, method).fit(X).predict(X)
        assert np.array_equal(X, X_FIT)


def test_clone_shares_the_classifier(net, logistic):
    for classifier in (net, logistic):
        params = {"temperature": 2.0, "method_params": {"temperature": 3.0}, "outlier_label": 9}
        scorer = OODScorer(classifier, **params).fit(X_FIT)
        copied = clone(scorer)
        assert copied.classifier is classifier
        assert {name: getattr(copied, name) for name in params} == params
        assert copied.method_params is not scorer.method_params
        assert not hasattr(copied, "offset_")
        assert clone(make_pipeline(scorer))[0].classifier is classifier
    by_layer = OODScorer(net, "knn", layer=net[1])
    assert clone(by_layer).layer is net[1]
    assert clone(by_layer).fit(X_FIT).offset_ == by_layer.fit(X_FIT).offset_


def test_parameters_of_the_classifier_are_none_of_the_scorers(logistic):
    scorer = OODScorer(logistic)
    assert set(scorer.get_params()) == set(scorer.get_params(deep=False))
    assert not any(name.startswith("classifier__") for name in scorer.get_params())
    with pytest.raises(ValueError, match="trained already"):
        scorer.set_params(classifier__C=3.0)
    assert logistic.C == 1.0
    assert scorer.set_params(method="msp").method == "msp"


def test_search_over_methods(net):
    labelled, y = np.vstack([X_FIT, X_OUT[:100]]), np.concatenate([Y_FIT, np.full(100, -1)])
    search = GridSearchCV(OODScorer(net), {"method": ["msp", "energy", "knn"]}, scoring=get_scorer("auroc"), cv=FOLDS)
    search.fit(labelled, y)
    assert search.best_estimator_.classifier is net
    assert search.cv_results_["mean_test_score"].min() > 0.8
    values = cross_validate(OODScorer(net, "mahalanobis"), labelled, y, scoring=get_scorer("auroc"), cv=FOLDS)
    assert values["test_score"].min() > 0.8


def test_search_over_classifiers(logistic):
    labelled, y = np.vstack([X_FIT, X_OUT[:50]]), np.concatenate([Y_FIT, np.full(50, -1)])
    search = GridSearchCV(
        OODScorer(logistic, "msp"),
        {"classifier": [FrozenEstimator(logistic), FrozenEstimator(GaussianNB().fit(X_TRAIN, Y_TRAIN))]},
        scoring=get_scorer("auroc"),
        cv=FOLDS,
    )
    search.fit(labelled, y)
    assert search.best_estimator_.classifier.estimator is logistic


@pytest.mark.parametrize("method", ["energy", "odin", "mahalanobis"])
def test_pickles_with_the_classifier(net, reject, method):
    for classifier in (net, reject):
        scorer = OODScorer(classifier, method).fit(X_FIT)
        again = pickle.loads(pickle.dumps(scorer))
        assert np.array_equal(again.score_samples(X_NEW), scorer.score_samples(X_NEW))
        assert again.classifier is not classifier
    by_layer = pickle.loads(pickle.dumps(OODScorer(net, "knn", layer=net[1])))
    assert by_layer.fit(X_FIT).offset_ == OODScorer(net, "knn", layer="1").fit(X_FIT).offset_


# --------------------------------------------------------------------------------------------------------------------
# Torch modules of all kinds


@pytest.mark.parametrize(
    "last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid(), nn.Sequential(nn.Dropout(), nn.Identity())]
)
@pytest.mark.parametrize("method", ["energy", "odin", "vim", "msp"])
def test_logits_are_taken_in_front_of_the_softmax(net, last, method):
    scorer = OODScorer(nn.Sequential(*net, last).eval(), method).fit(X_FIT)
    expected = OODScorer(net, method).fit(X_FIT)
    np.testing.assert_allclose(scorer.score_samples(X_NEW), expected.score_samples(X_NEW))
    np.testing.assert_allclose(scorer.predict_proba(X_NEW), expected.predict_proba(X_NEW))


class Mean(nn.Module):
    """Mean of what several modules give."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, rows):
        return sum(part(rows) for part in self.parts) / len(self.parts)


def test_probabilities_that_come_of_no_single_layer(net):
    ensemble = Mean(nn.Sequential(net, nn.Softmax(1)), nn.Sequential(trained(mlp(), n_steps=30), nn.Softmax(1))).eval()
    with pytest.raises(
        ValueError, match=r"gives probabilities, no logits. Possible are 'msp', 'entropy', 'gen', 'kl_matching'\."
    ):
        OODScorer(ensemble).fit(X_FIT)
    with pytest.raises(ValueError, match="no 1x1 convolution gives the classifier's logits"):
        OODScorer(ensemble, "knn").fit(X_FIT)
    with pytest.raises(ValueError, match="no logits"):
        OODScorer(ensemble, "odin").fit(X_FIT)
    for module in (ensemble, nn.Sequential(ensemble, Log())):
        scorer = OODScorer(module, "msp").fit(X_FIT)
        with torch.no_grad():
            expected = copy.deepcopy(ensemble).double()(torch.tensor(X_NEW)).numpy()
        np.testing.assert_allclose(scorer.predict_proba(X_NEW), expected, rtol=1e-5, atol=1e-6)
        assert detects(scorer) > 0.8


def test_one_probability_that_comes_of_no_single_layer():
    def loss(outputs, y):
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], y.float())

    parts = [trained(mlp(n_features=3, n_classes=1), X_BINARY, Y_BINARY, loss, n_steps=n) for n in (30, 60)]
    ensemble = Mean(*(nn.Sequential(part, nn.Sigmoid()) for part in parts)).eval()
    rows = torch.tensor(X_BINARY, dtype=torch.float32)
    traced = torch.jit.trace(ensemble, rows)
    with torch.no_grad():
        expected = copy.deepcopy(ensemble).double()(rows.double()).numpy()
    for module in (ensemble, nn.Sequential(ensemble, nn.Flatten(0)), traced):
        scorer = OODScorer(module, "msp").fit(X_BINARY, Y_BINARY)
        np.testing.assert_allclose(scorer.predict_proba(X_BINARY)[:, 1:], expected, rtol=1e-5, atol=1e-6)
        assert (scorer.predict_class(X_BINARY) == Y_BINARY).all()
        with pytest.raises(ValueError, match="gives probabilities, no logits"):
            OODScorer(module, "energy").fit(X_BINARY)


def test_one_logit_that_happens_to_lie_between_0_and_1():
    module = Mean(nn.Linear(3, 1), nn.Linear(3, 1)).eval()
    some = 0.01 * X_BINARY
    with torch.no_grad():
        module.parts[0].bias += 2 * (0.5 - module(torch.tensor(some, dtype=torch.float32)).mean())
        logits = module(torch.tensor(some, dtype=torch.float32)).numpy()
    assert ((logits > 0) & (logits < 1)).all()
    scorer = OODScorer(module, "energy").fit(some)
    np.testing.assert_allclose(scorer.predict_proba(some)[:, 1:], 1 / (1 + np.exp(-logits)), rtol=1e-5)


class Log(nn.Module):
    def forward(self, rows):
        return rows.log()


class Scaled(nn.Module):
    """Temperature scaling: logits divided by 2."""

    def forward(self, rows):
        return 0.5 * rows


@pytest.mark.parametrize("method", ["energy", "knn", "fdbd", "vim", "react"])
def test_logits_that_the_last_layer_gives_but_for_a_factor(net, method):
    scorer = OODScorer(nn.Sequential(*net, Scaled()).eval(), method).fit(X_FIT)
    expected = OODScorer(net, method, temperature=2.0).fit(X_FIT)
    np.testing.assert_allclose(scorer.score_samples(X_NEW), expected.score_samples(X_NEW), rtol=1e-6)


class Cosine(nn.Module):
    """A linear body, and a head of cosines that is no linear layer."""

    def __init__(self, n_features=64, n_classes=8):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.weight = nn.Linear(n_features, 12), nn.Parameter(torch.randn(n_classes, 12))

    def forward(self, rows):
        features = functional.normalize(functional.relu(self.body(rows)))
        return 20 * features @ functional.normalize(self.weight).T


def test_a_linear_layer_that_is_not_the_head_gives_no_features():
    module = trained(Cosine())
    for method in ("knn", "mahalanobis"):
        with pytest.raises(
            ValueError, match=r"name it as layer=\. The layers .* their output shapes: 'body' \(12,\)\."
        ):
            OODScorer(module, method).fit(X_FIT, Y_FIT)
    left_out = compare_scores(module, X_NEW, X_OUT, X_train=X_FIT).attrs["left_out"]
    assert "'body' (12,)" in left_out["knn"]
    assert "last linear layer" in left_out["fdbd"]
    assert not {"energy", "odin", "kl_matching"} & set(left_out)
    with torch.no_grad():
        features, known = (copy.deepcopy(module).double().body(torch.tensor(rows)).numpy() for rows in (X_NEW, X_FIT))
    scorer = OODScorer(module, "knn", layer="body").fit(X_FIT)
    np.testing.assert_allclose(scorer.score_samples(X_NEW), scores.knn(features, known), rtol=1e-5, atol=1e-6)


class CosineLinear(nn.Linear):
    """A layer of cosines that says it is a linear one."""

    def forward(self, rows):
        return 20 * functional.linear(functional.normalize(rows), functional.normalize(self.weight))


def test_weights_that_do_not_give_the_logits_are_not_used(net):
    module = trained(nn.Sequential(*mlp()[:3], CosineLinear(48, 8)))
    with pytest.raises(ValueError, match=r"weights and biases of the last linear layer do not give .* 'knn'"):
        OODScorer(module, "vim").fit(X_FIT)
    features, known = (doubled(module, rows)[0] for rows in (X_NEW, X_FIT))
    scorer = OODScorer(module, "knn").fit(X_FIT)
    np.testing.assert_allclose(scorer.score_samples(X_NEW), scores.knn(features, known), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_head_of_many_classes_is_linear_for_any_rows(scale):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1000, 300), nn.ReLU(), nn.Linear(300, 1000)).requires_grad_(False)
    nn.init.normal_(module[2].weight)
    rng = np.random.default_rng(0)
    for _ in range(3):
        # Of so many logits some are near 0, and inexact by a share of the largest.
        rows = scale * rng.random((16, 1000), dtype=np.float32)
        assert np.isfinite(OODScorer(module, "ash_p").fit(rows).training_scores_).all()


@pytest.mark.parametrize("classifier", [LogisticRegression(max_iter=500), RidgeClassifier()])
def test_a_linear_classifier_is_linear_for_rows_that_are_not_scaled(classifier):
    rng = np.random.default_rng(0)
    y = np.arange(400) % 4
    rows = (1000 + 50 * rng.random((400, 60)) + y[:, None]).astype(np.float32)
    classifier.fit(rows, y)
    for _ in range(4):
        some = rows[rng.permutation(400)[:50]]
        assert np.isfinite(OODScorer(classifier, "ash_p").fit(some).training_scores_).all()


def test_a_detector_whose_head_is_no_linear_layer():
    detector = RejectClassDetector(network=Cosine, class_epochs=1, max_epochs=1, contamination=0, random_state=0)
    detector.fit(X_TRAIN, Y_TRAIN)
    with pytest.raises(ValueError, match=r"name it as layer=\. The layers .* their output shapes: 'body' \(12,\)\."):
        OODScorer(detector, "knn").fit(X_FIT)
    with pytest.raises(ValueError, match="not the output of a last linear layer"):
        OODScorer(detector, "vim").fit(X_FIT)
    assert np.ptp(OODScorer(detector, "knn", layer="body").fit(X_FIT).training_scores_) > 0


@pytest.mark.parametrize("last", [(), (nn.Sigmoid(),), (nn.Flatten(0),)], ids=["logit", "probability", "flat"])
def test_a_single_output_stands_for_two_classes(last):
    module = mlp(n_features=3, n_classes=1)

    def loss(outputs, y):
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], y.float())

    trained(module, X_BINARY, Y_BINARY, loss)
    scorer = OODScorer(nn.Sequential(*module, *last).eval(), "react").fit(X_BINARY, Y_BINARY)
    assert scorer.classes_.tolist() == [0, 1]
    assert (scorer.predict_class(X_BINARY) == Y_BINARY).all()
    with torch.no_grad():
        logit = copy.deepcopy(module).double()(torch.tensor(X_BINARY)).numpy()
    np.testing.assert_allclose(scorer.predict_proba(X_BINARY)[:, 1:], 1 / (1 + np.exp(-logit)), rtol=1e-5, atol=1e-6)
    energy = OODScorer(nn.Sequential(*module, *last).eval()).fit(X_BINARY).score_samples(X_BINARY)
    np.testing.assert_allclose(energy, np.logaddexp(logit / 2, -logit / 2)[:, 0], rtol=1e-5, atol=1e-6)


class Several(nn.Module):
    """Gives more than logits."""

    def __init__(self, module, named):
        super().__init__()
        self.module, self.named = module, named

    def forward(self, rows):
        logits = self.module(rows)
        outputs = {"tuple": (logits, rows), "attribute": Output(logits), "key": {"features": rows, "logits": logits}}
        return outputs[self.named]


class Output:
    def __init__(self, logits):
        self.logits = logits


class FeaturesAndLogits(nn.Module):
    def __init__(self, module, *places):
        super().__init__()
        self.trunk, self.head, self.places = module[:3], module[3], places

    def forward(self, rows):
        features = self.trunk(rows)
        both = features, self.head(features)
        return tuple(both[place] for place in self.places)


def test_features_that_come_before_the_logits(net):
    with pytest.warns(UserWarning, match="'head' takes, whose own output is returned, too.*return it first"):
        OODScorer(FeaturesAndLogits(net, 0, 1).eval()).fit(X_FIT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer = OODScorer(FeaturesAndLogits(net, 1, 0).eval()).fit(X_FIT)
    assert scorer.offset_ == OODScorer(net).fit(X_FIT).offset_


class Returns(nn.Module):
    """Returns the same whatever the rows are."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, rows):
        return self.value


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"scores": 1, "loss": 2}, "a dict with 'scores', 'loss'"),
        (None, "a NoneType"),
        (torch.tensor(1.0), "a tensor without dimensions"),
    ],
)
def test_a_module_that_returns_no_logits(net, value, what):
    with pytest.raises(
        ValueError, match=rf"^classifier returns {what}; it must return logits \(n_samples, n_classes\)"
    ):
        OODScorer(Returns(value)).fit(X_FIT)
    module = nn.Sequential(Beside(Returns(value)), net).eval()
    with pytest.raises(ValueError, match=rf"^layer names one that returns {what}; choose"):
        OODScorer(module, "knn", layer="0.part").fit(X_FIT)


class Beside(nn.Module):
    """Runs a part, and returns the rows."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, rows):
        self.part(rows)
        return rows


@pytest.mark.parametrize("named", ["tuple", "attribute", "key"])
def test_a_module_may_give_more_than_logits(net, named):
    scorer = OODScorer(Several(net, named), "vim").fit(X_FIT)
    assert scorer.offset_ == OODScorer(net, "vim").fit(X_FIT).offset_


class InPlaceAfter(nn.Module):
    """Works in place on the features once it has the logits."""

    def __init__(self, module):
        super().__init__()
        self.trunk, self.head = module[:2], module[3]

    def forward(self, rows):
        features = self.trunk(rows)
        logits = self.head(features)
        return logits, functional.relu(features, inplace=True)


@pytest.mark.parametrize("method", ["knn", "vim", "react"])
def test_a_module_may_work_in_place_after_its_head(net, method):
    module = InPlaceAfter(net).eval()
    scorer = OODScorer(module, method).fit(X_FIT)
    straight = nn.Sequential(*module.trunk, module.head).eval()
    assert np.array_equal(scorer.score_samples(X_NEW), OODScorer(straight, method).fit(X_FIT).score_samples(X_NEW))


class TwoHeads(nn.Module):
    """Its last linear layer is not what gives the logits."""

    def __init__(self, module):
        super().__init__()
        self.trunk, self.head, self.other = module[:3], module[3], nn.Linear(48, 8)

    def forward(self, rows):
        features = self.trunk(rows)
        return self.head(features).softmax(1), self.other(self.other(features).sum() + features)


def test_the_layer_that_gives_the_logits_need_not_be_the_last(net):
    for method in ("energy", "vim"):
        scorer = OODScorer(TwoHeads(net).eval(), method).fit(X_FIT)
        np.testing.assert_allclose(scorer.score_samples(X_NEW), OODScorer(net, method).fit(X_FIT).score_samples(X_NEW))


def test_a_module_of_any_precision_and_compiled(net):
    offset = OODScorer(net, "knn").fit(X_FIT).offset_
    assert OODScorer(copy.deepcopy(net).double(), "knn").fit(X_FIT).offset_ == offset
    assert OODScorer(torch.compile(net), "knn").fit(X_FIT).offset_ == offset


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("method", ["energy", "odin"])
def test_a_traced_module(net, method):
    """Torch's warnings are errors here."""
    traced = torch.jit.trace(net, torch.zeros(2, 64))
    expected = OODScorer(net, method).fit(X_FIT).score_samples(X_NEW)
    np.testing.assert_array_equal(OODScorer(traced, method).fit(X_FIT).score_samples(X_NEW), expected)
    with pytest.raises(ValueError, match="method='knn' is not possible: a scripted or traced module does not show its"):
        OODScorer(traced, "knn").fit(X_FIT)


def test_a_linear_module():
    module = trained(nn.Linear(64, 8))
    np.testing.assert_allclose(
        OODScorer(module, "knn").fit(X_FIT).score_samples(X_NEW), scores.knn(X_NEW, X_FIT), rtol=1e-6
    )


def test_modules_that_do_not_do(net):
    with pytest.raises(ValueError, match=r"does not take rows of shape \(5,\)"):
        OODScorer(net).fit(X_FIT[:, :5])
    with pytest.raises(ValueError, match="one logit for each class"):
        OODScorer(nn.Sequential(nn.Unflatten(1, (8, 8)), nn.Linear(8, 3))).fit(X_FIT)
    with pytest.raises(ValueError, match="not fitted"):
        OODScorer(nn.LazyLinear(3)).fit(X_FIT)
    broken = copy.deepcopy(net)
    nn.init.constant_(broken[3].bias, np.nan)
    with pytest.raises(ValueError, match=r"no finite score: .* Look at the classifier's outputs for these rows"):
        OODScorer(broken).fit(X_FIT)


@pytest.mark.parametrize("method", ["odin", "mahalanobis", "vim"])
def test_a_module_is_scored_where_it_is(net, method, device):
    there = copy.deepcopy(net).to(device)
    scorer = OODScorer(there, method).fit(X_FIT)
    expected = OODScorer(net, method).fit(X_FIT).score_samples(X_NEW)
    np.testing.assert_allclose(scorer.score_samples(X_NEW), expected, rtol=1e-6)
    assert next(there.parameters()).device.type == device


class Image(nn.Module):
    """A classifier of images without a linear layer: a 1x1 convolution, and the mean of the pixels, give the logits."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(inplace=True))
        self.spare = nn.Conv2d(1, 1, 1)
        self.last = nn.Conv2d(32, 8, 1)

    def forward(self, rows):
        return self.last(self.second(self.first(rows))).mean((2, 3))


@pytest.fixture(scope="module")
def image_net():
    torch.manual_seed(0)
    return trained(Image(), X_TRAIN.reshape(-1, 1, 8, 8))


def test_images(image_net):
    images = X_FIT.reshape(-1, 1, 8, 8)
    scorer = OODScorer(image_net, "knn", layer="second").fit(images)
    assert detects(scorer, X_NEW.reshape(-1, 1, 8, 8), X_OUT.reshape(-1, 1, 8, 8)) > 0.75
    assert (scorer.image_shape_, scorer.n_features_in_) == ((1, 8, 8), 64)
    flat = OODScorer(image_net, "knn", layer="second", image_shape=(1, 8, -1)).fit(X_FIT)
    assert flat.offset_ == scorer.offset_
    whole = np.round(255 * X_FIT).astype(np.uint8)
    bytes_ = OODScorer(image_net, "odin", image_shape=(1, 8, 8)).fit(whole)
    floats = OODScorer(image_net, "odin", image_shape=(1, 8, 8)).fit(whole / np.float32(255))
    assert bytes_.offset_ == floats.offset_
    with pytest.raises(ValueError, match="fitted on uint8 images"):
        bytes_.predict(X_FIT)


def test_features_of_a_layer(image_net):
    with torch.no_grad():
        maps = (
            copy.deepcopy(image_net)
            .double()
            .second(copy.deepcopy(image_net).double().first(torch.tensor(X_NEW).reshape(-1, 1, 8, 8)))
        )
        known = (
            copy.deepcopy(image_net)
            .double()
            .second(copy.deepcopy(image_net).double().first(torch.tensor(X_FIT).reshape(-1, 1, 8, 8)))
        )
    expected = scores.knn(maps.mean((2, 3)).numpy(), known.mean((2, 3)).numpy())
    scorer = OODScorer(image_net, "knn", layer=image_net.second, image_shape=(1, 8, 8)).fit(X_FIT)
    np.testing.assert_allclose(scorer.score_samples(X_NEW), expected, rtol=1e-5, atol=1e-6)
    # What follows the convolution works in place; its own output is what is meant.
    inner = OODScorer(image_net, "mahalanobis", layer="second.0", image_shape=(1, 8, 8)).fit(X_FIT)
    assert not np.allclose(
        inner.score_samples(X_NEW), scorer.set_params(method="mahalanobis").fit(X_FIT).score_samples(X_NEW)
    )


@pytest.mark.parametrize("method", ["mahalanobis", "mahalanobis_pp"])
def test_several_layers_add_up(net, method):
    """Lee et al.: the weighted sum of what each layer would score alone."""
    layers, weights = ["0", "2"], [0.5, 2.0]
    alone = [OODScorer(net, method, layer=layer).fit(X_FIT, Y_FIT).score_samples(X_NEW) for layer in layers]
    both = OODScorer(net, method, layer=["0", net[2]]).fit(X_FIT, Y_FIT)
    np.testing.assert_allclose(both.score_samples(X_NEW), sum(alone), rtol=1e-9)
    weighted = OODScorer(net, method, layer=layers, method_params={"weights": weights}).fit(X_FIT, Y_FIT)
    np.testing.assert_allclose(weighted.score_samples(X_NEW), 0.5 * alone[0] + 2 * alone[1], rtol=1e-9)
    assert detects(weighted) > 0.8
    assert (weighted.predict(X_NEW) == -1).mean() < 0.12
    copied = pickle.loads(pickle.dumps(weighted))
    np.testing.assert_array_equal(copied.score_samples(X_NEW), weighted.score_samples(X_NEW))
    in_parts = clone(weighted).partial_fit(X_FIT[:100], Y_FIT[:100]).partial_fit(X_FIT[100:], Y_FIT[100:])
    np.testing.assert_allclose(in_parts.score_samples(X_NEW), weighted.score_samples(X_NEW), rtol=1e-6)
    moved = clone(both).set_params(method_params={"epsilon": 1e-3}).fit(X_FIT, Y_FIT).score_samples(X_NEW)
    assert (moved > both.score_samples(X_NEW)).mean() > 0.99
    single = OODScorer(net, method, layer=["2"]).fit(X_FIT, Y_FIT)
    np.testing.assert_array_equal(single.score_samples(X_NEW), alone[1])


def test_several_layers_of_a_detector(reject):
    names = [name for name, part in reject.module_.named_modules() if isinstance(part, nn.Linear)]
    alone = [OODScorer(reject, "mahalanobis", layer=name).fit(X_FIT).score_samples(X_NEW) for name in names]
    both = OODScorer(reject, "mahalanobis", layer=names).fit(X_FIT)
    np.testing.assert_allclose(both.score_samples(X_NEW), sum(alone), rtol=1e-9)


def test_several_layers_are_refused_where_one_is_needed(net):
    layers = ["0", "2"]
    with pytest.raises(ValueError, match=r"method='knn' is not possible: it takes the features of one layer.*'mahalan"):
        OODScorer(net, "knn", layer=layers).fit(X_FIT)
    with pytest.raises(ValueError, match="layer names several layers, whose scores only OODScorer adds up"):
        compare_scores(net, X_NEW, X_OUT, layer=layers)
    with pytest.raises(ValueError, match="must hold names of layers, or the layers: one at least"):
        OODScorer(net, "mahalanobis", layer=[]).fit(X_FIT)
    with pytest.raises(ValueError, match="weights has 3 numbers, but there are 2 layers"):
        OODScorer(net, "mahalanobis", layer=layers, method_params={"weights": [1, 2, 3]}).fit(X_FIT)
    with pytest.raises(ValueError, match="must be a sequence of numbers, one for each layer"):
        OODScorer(net, "mahalanobis", layer=layers, method_params={"weights": "both"}).fit(X_FIT)


def test_layers_that_do_not_do(net, image_net):
    for method in ("fdbd", "vim", "react"):
        with pytest.raises(ValueError, match=r"layer='1' is given\. Possible are 'msp', 'odin'"):
            OODScorer(net, method, layer="1").fit(X_FIT)
    with pytest.raises(
        ValueError, match=r"layer is 'fc', no layer of the classifier\. Its layers are '0', '1', '2', '3'"
    ):
        OODScorer(net, "knn", layer="fc").fit(X_FIT)
    with pytest.raises(ValueError, match="layer is a Linear, no layer"):
        OODScorer(net, "knn", layer=nn.Linear(2, 2)).fit(X_FIT)
    with pytest.raises(ValueError, match="'spare' has no part"):
        OODScorer(image_net, "knn", layer="spare", image_shape=(1, 8, 8)).fit(X_FIT)
    maximum = Maximum(image_net).eval()
    with pytest.raises(ValueError, match=r"name it as .* 'image.first' \(16, 4, 4\), .* 'image.second' \(32, 4, 4\), "):
        OODScorer(maximum, "knn", image_shape=(1, 8, 8)).fit(X_FIT)


class Maximum(nn.Module):
    """The largest logit of all pixels is no product of the features' mean."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def forward(self, rows):
        return self.image.last(self.image.second(self.image.first(rows))).amax((2, 3))


class SqueezeExcite(Image):
    """Linear layers weigh the channels, and a convolution gives the logits."""

    def __init__(self):
        super().__init__()
        self.squeeze, self.excite = nn.Linear(32, 2), nn.Linear(2, 32)

    def features(self, rows):
        maps = self.second(self.first(rows))
        weights = self.excite(functional.relu(self.squeeze(maps.mean((2, 3))))).sigmoid()
        return maps * weights[:, :, None, None]

    def forward(self, rows):
        return self.last(self.features(rows)).mean((2, 3))


@pytest.mark.parametrize("softmax_last", [False, True])
def test_a_convolution_of_1x1_pixels_is_a_last_layer(softmax_last):
    torch.manual_seed(0)
    module = trained(SqueezeExcite(), X_TRAIN.reshape(-1, 1, 8, 8), n_steps=30)
    exact = copy.deepcopy(module).double()
    with torch.no_grad():
        features, known = (
            exact.features(torch.tensor(rows).reshape(-1, 1, 8, 8)).mean((2, 3)).numpy() for rows in (X_NEW, X_FIT)
        )
    weight, bias = exact.last.weight.detach()[:, :, 0, 0].numpy(), exact.last.bias.detach().numpy()
    logits, known_logits = features @ weight.T + bias, known @ weight.T + bias
    expected = {
        "energy": scores.energy(logits),
        "knn": scores.knn(features, known),
        "fdbd": scores.fdbd(logits, features, weight, **scores.learn_fdbd(known, weight)),
        "vim": scores.vim(logits, features, **scores.learn_vim(known_logits, known, weight, bias)),
        "react": scores.react(features, weight, bias, **scores.learn_react(known)),
    }
    classifier = nn.Sequential(module, nn.Softmax(1)).eval() if softmax_last else module
    for method, value in expected.items():
        scorer = OODScorer(classifier, method, image_shape=(1, 8, 8)).fit(X_FIT)
        together = scorer.score_samples(X_NEW)
        np.testing.assert_allclose(together, value, rtol=1e-4, atol=1e-5, err_msg=method)
        assert np.array_equal(scorer.score_samples(X_NEW[:3]), together[:3])


# --------------------------------------------------------------------------------------------------------------------
# skorch


def skorch_net(module=mlp, classes=None, **params):
    torch.manual_seed(0)
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        max_epochs=10,
        lr=0.1,
        verbose=0,
        train_split=None,
        classes=classes,
        **params,
    )


@pytest.fixture(scope="module")
def skorch_fitted():
    return skorch_net().fit(X_TRAIN.astype(np.float32), Y_TRAIN)


def test_skorch_net(skorch_fitted):
    scorer = OODScorer(skorch_fitted, "mahalanobis").fit(X_FIT, Y_FIT)
    assert detects(scorer) > 0.8
    assert OODScorer(skorch_fitted.module_, "mahalanobis").fit(X_FIT, Y_FIT).offset_ == scorer.offset_
    assert np.array_equal(scorer.predict_class(X_NEW), skorch_fitted.predict(X_NEW.astype(np.float32)))
    with pytest.raises(ValueError, match="classifier is not fitted"):
        OODScorer(skorch_net()).fit(X_FIT)
    assert clone(scorer).fit(X_FIT, Y_FIT).offset_ == scorer.offset_


def test_skorch_net_of_two_classes():
    net = NeuralNetBinaryClassifier(mlp, module__n_features=3, module__n_classes=1, max_epochs=10, lr=0.1, verbose=0)
    net.fit(X_BINARY.astype(np.float32), Y_BINARY.astype(np.float32))
    scorer = OODScorer(net).fit(X_BINARY, Y_BINARY)
    np.testing.assert_allclose(
        scorer.predict_proba(X_BINARY), net.predict_proba(X_BINARY.astype(np.float32)), atol=1e-5
    )


def test_classes_of_a_skorch_net(skorch_fitted):
    named = skorch_net(classes=list("abcdefgh")).fit(X_TRAIN.astype(np.float32), Y_TRAIN)
    scorer = OODScorer(named, "mahalanobis").fit(X_FIT, np.array(list("abcdefgh"))[Y_FIT])
    assert set(scorer.predict_class(X_NEW)) == set("abcdefgh")
    # It has seen but some of the labels, which are numbers of outputs.
    some = skorch_net().fit(X_TRAIN[Y_TRAIN > 4].astype(np.float32), Y_TRAIN[Y_TRAIN > 4])
    assert some.classes_.tolist() == [5, 6, 7]
    scorer = OODScorer(some).fit(X_FIT[Y_FIT > 4], Y_FIT[Y_FIT > 4])
    assert scorer.classes_.tolist() == list(range(8))
    assert set(scorer.predict_class(X_FIT[Y_FIT > 4])) == {5, 6, 7}
    wrong = skorch_net(classes=["a", "b"]).fit(X_TRAIN.astype(np.float32), Y_TRAIN)
    with pytest.raises(ValueError, match="2 classes but 8 outputs"):
        OODScorer(wrong).fit(X_FIT)


@pytest.mark.parametrize(
    "nonlinearity",
    [
        lambda logits: (logits / 3).softmax(1),
        lambda logits: (-logits).softmax(1),
        lambda logits: logits.softmax(1)[:, :3],
    ],
    ids=["divided", "turned round", "cut off"],
)
def test_a_nonlinearity_that_makes_other_probabilities_is_told_of(nonlinearity):
    net = skorch_net(predict_nonlinearity=nonlinearity).fit(X_TRAIN.astype(np.float32), Y_TRAIN)
    with pytest.warns(UserWarning, match="predict_nonlinearity, which is not applied"):
        scorer = OODScorer(net).fit(X_FIT)
    assert scorer.offset_ == OODScorer(net.module_).fit(X_FIT).offset_


@pytest.mark.parametrize(
    "nonlinearity",
    ["auto", None, lambda logits: logits.softmax(1), lambda logits: 2 * logits, lambda logits: logits.log_softmax(1)],
    ids=["auto", "none", "softmax", "logits", "log-softmax"],
)
def test_a_nonlinearity_that_changes_nothing_is_not_told_of(nonlinearity):
    net = skorch_net(predict_nonlinearity=nonlinearity).fit(X_TRAIN.astype(np.float32), Y_TRAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer = OODScorer(net).fit(X_FIT)
    assert np.array_equal(scorer.predict_class(X_NEW), net.predict(X_NEW.astype(np.float32)))


def as_float32(X):
    return np.asarray(X, dtype=np.float32)


def as_images(X):
    return np.asarray(X, dtype=np.float32).reshape(-1, 1, 8, 8)


def test_pipeline_that_ends_in_a_skorch_net(skorch_fitted):
    scaler = MinMaxScaler().fit(X_TRAIN)
    pipeline = make_pipeline(scaler, FunctionTransformer(as_float32), skorch_net()).fit(X_TRAIN, Y_TRAIN)
    scorer = OODScorer(pipeline, "odin").fit(X_FIT)
    inner = OODScorer(pipeline[-1], "odin").fit(pipeline[:-1].transform(X_FIT))
    assert np.array_equal(scorer.score_samples(X_NEW), inner.score_samples(pipeline[:-1].transform(X_NEW)))
    assert scorer.n_features_in_ == 64
    with pytest.raises(ValueError, match="features"):
        scorer.predict(X_NEW[:, :5])


def test_pipeline_that_makes_images():
    net = skorch_net(Image)
    pipeline = make_pipeline(FunctionTransformer(as_images), net).fit(X_TRAIN, Y_TRAIN)
    frame = pd.DataFrame(X_FIT).add_prefix("pixel")
    scorer = OODScorer(pipeline).fit(frame)
    assert scorer.image_shape_ == (1, 8, 8)
    assert (scorer.n_features_in_, scorer.feature_names_in_[0]) == (64, "pixel0")
    assert np.array_equal(
        scorer.score_samples(frame), OODScorer(net).fit(as_images(X_FIT)).score_samples(as_images(X_FIT))
    )
    with pytest.raises(ValueError, match="feature names"):
        scorer.predict(frame.iloc[:, ::-1])


# --------------------------------------------------------------------------------------------------------------------
# Detectors with classes


@pytest.mark.parametrize("method", ["energy", "odin", "knn", "react"])
def test_detector(reject, method):
    known = set(vars(reject))
    scorer = OODScorer(reject, method).fit(X_FIT, Y_FIT)
    np.testing.assert_allclose(scorer.predict_proba(X_NEW), reject.predict_proba(X_NEW))
    assert np.array_equal(scorer.classes_, reject.classes_)
    own = RejectClassDetector(**{**reject.get_params(), "score_type": method}).fit(X_TRAIN, Y_TRAIN)
    expected = own.score_samples(X_NEW)
    again = OODScorer(reject, method).fit(X_TRAIN, Y_TRAIN)
    np.testing.assert_allclose(again.score_samples(X_NEW), expected)
    assert set(vars(reject)) == known
    np.testing.assert_allclose(OODScorer(own, method).fit(X_TRAIN, Y_TRAIN).score_samples(X_NEW), expected)


def test_detector_with_a_layer(reject):
    layers = dict(reject.module_.named_modules())
    name = next(name for name, layer in layers.items() if isinstance(layer, nn.Linear))
    scorer = OODScorer(reject, "knn", layer=name).fit(X_FIT)
    by_itself = OODScorer(reject, "knn", layer=layers[name]).fit(X_FIT)
    assert scorer.offset_ == by_itself.offset_
    assert scorer.offset_ != OODScorer(reject, "knn").fit(X_FIT).offset_
    with pytest.raises(ValueError, match=r"is given\. Possible are"):
        OODScorer(reject, "vim", layer=name).fit(X_FIT)
    with pytest.raises(ValueError, match="no layer of the classifier"):
        OODScorer(reject, "knn", layer="none").fit(X_FIT)


def test_wrapped_detectors(reject):
    expected = OODScorer(reject).fit(X_FIT).score_samples(X_NEW)
    open_set = OpenSetClassifier(FrozenEstimator(reject)).fit(X_TRAIN, Y_TRAIN)
    for classifier in (FrozenEstimator(reject), open_set, FrozenEstimator(open_set)):
        assert np.array_equal(OODScorer(classifier).fit(X_FIT).score_samples(X_NEW), expected)
    scaler = MinMaxScaler().fit(X_TRAIN)
    pipeline = make_pipeline(FrozenEstimator(scaler), "passthrough", FrozenEstimator(reject)).fit(X_TRAIN, Y_TRAIN)
    scorer = OODScorer(pipeline).fit(X_FIT)
    inner = OODScorer(reject).fit(scaler.transform(X_FIT))
    assert np.array_equal(scorer.score_samples(X_NEW), inner.score_samples(scaler.transform(X_NEW)))


def test_detector_of_images():
    images = np.round(255 * X_TRAIN[:200]).astype(np.uint8)
    detector = RejectClassDetector(class_epochs=1, max_epochs=1, image_shape=(1, 8, 8), random_state=0)
    detector.fit(images, Y_TRAIN[:200])
    scorer = OODScorer(detector, "knn").fit(images.reshape(-1, 1, 8, 8))
    assert (scorer.image_shape_, scorer.n_features_in_) == ((1, 8, 8), 64)
    assert np.array_equal(scorer.score_samples(images), scorer.score_samples(images.reshape(-1, 1, 8, 8)))
    assert OODScorer(detector, "knn", image_shape=(1, -1, 8)).fit(images).offset_ == scorer.offset_
    with pytest.raises(ValueError, match="takes images of shape"):
        OODScorer(detector, image_shape=(1, 4, 16)).fit(images)
    with pytest.raises(ValueError, match="uint8 images"):
        OODScorer(detector).fit(images / 255)


def test_detector_of_a_single_class():
    detector = RejectClassDetector(network="mlp", hidden_sizes=(8,), max_epochs=2, random_state=0).fit(X_BINARY)
    for method in ("msp", "odin", "entropy", "gen", "relative_mahalanobis", "fdbd", "gradnorm", "kl_matching"):
        with pytest.raises(ValueError, match="one class"):
            OODScorer(detector, method).fit(X_BINARY)
    for method in ("energy", "knn", "mahalanobis"):
        assert np.ptp(OODScorer(detector, method).fit(X_BINARY).training_scores_) > 0


@pytest.mark.filterwarnings("ignore::skood.LabelWarning")
@pytest.mark.parametrize("two_classes", [False, True])
def test_rotation(two_classes):
    detector = RotationAuxClassifier(
        hidden_sizes=(16,), max_epochs=5, batch_size=32, n_transforms=4, score_type="rotation", random_state=0
    )
    y = Y_BINARY if two_classes else None
    detector.fit(X_BINARY, y)
    scorer = OODScorer(detector, "rotation").fit(X_BINARY, y)
    np.testing.assert_allclose(scorer.score_samples(X_BINARY), detector.score_samples(X_BINARY))
    # A network of one class has no class head.
    features = OODScorer(detector, "knn").fit(X_BINARY)
    assert np.ptp(features.training_scores_) > 0
    if two_classes:
        OODScorer(detector, "vim").fit(X_BINARY)
    else:
        for method in ("energy", "vim", "max_logit"):
            with pytest.raises(
                ValueError, match="Possible are 'knn', 'mahalanobis', 'mahalanobis_pp', 'she', 'gram', 'rotation'"
            ):
                OODScorer(detector, method).fit(X_BINARY)
    assert "rotation" in compare_scores(detector, X_BINARY, X_BINARY + 9).index


@pytest.mark.filterwarnings("ignore::skood.LabelWarning")
def test_rotation_takes_a_head_that_was_trained_for_it(net, reject, logistic):
    plain = RotationAuxClassifier(None, hidden_sizes=(16,), max_epochs=2, random_state=0, contamination=0).fit(
        X_BINARY, Y_BINARY
    )
    with pytest.raises(ValueError, match="no trained head that tells transformations apart"):
        OODScorer(plain, "rotation").fit(X_BINARY)
    for classifier in (net, reject, logistic):
        with pytest.raises(ValueError, match="no trained head that tells transformations apart"):
            OODScorer(classifier, "rotation").fit(X_FIT)


# --------------------------------------------------------------------------------------------------------------------
# scikit-learn


def possible(classifier, X=X_FIT, **params):
    left_out = compare_scores(classifier, X[:20], X_OUT[:20, : X.shape[1]], X_train=X[20:], **params).attrs["left_out"]
    return set(METHODS) - set(left_out)


LINEAR = set(METHODS) - {"odin", "rotation"}
OF_WEIGHTS = {"fdbd", "vim", "react", "ash_p", "ash_b", "ash_s", "scale", "vra", "dice", "nci"}
OF_LOGITS_AND_FEATURES = LINEAR - OF_WEIGHTS
OF_PROBABILITIES = OF_LOGITS_AND_FEATURES - {"energy", "max_logit", "nnguide", "openmax"}


@pytest.mark.parametrize(
    ("classifier", "expected"),
    [
        (LogisticRegression(), LINEAR),
        (RidgeClassifier(), LINEAR),
        (make_pipeline(StandardScaler(), PCA(20), LogisticRegression(max_iter=300)), LINEAR),
        (SVC(), OF_LOGITS_AND_FEATURES),
        # Its coefficients are of pairs of classes.
        (SVC(kernel="linear"), OF_LOGITS_AND_FEATURES),
        (RandomForestClassifier(30, random_state=0), OF_PROBABILITIES),
        (MLPClassifier(max_iter=60, random_state=0), OF_PROBABILITIES),
        (make_pipeline(StandardScaler(), CalibratedClassifierCV(GaussianNB())), OF_PROBABILITIES),
    ],
    ids=lambda value: getattr(type(value), "__name__", "") if not isinstance(value, set) else "",
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_classifiers(classifier, expected):
    classifier.fit(X_TRAIN, Y_TRAIN)
    assert possible(classifier) == expected
    table = compare_scores(classifier, X_NEW, X_OUT, X_train=X_FIT, y_train=Y_FIT)
    # These are made for features that are not negative, as those of a network.
    for_networks = ["ash_p", "ash_b", "ash_s", "scale", "vra", "dice", "gradnorm", "she", "nnguide", "nci", "openmax"]
    assert table["auroc"].drop(for_networks, errors="ignore").min() > 0.6
    assert table.loc["knn", "auroc"] > 0.75
    scorer = OODScorer(classifier, "msp").fit(X_FIT)
    assert np.array_equal(scorer.predict_class(X_NEW), classifier.predict(X_NEW))
    assert scorer.n_features_in_ == 64


def test_scikit_learn_responses(logistic):
    logits = logistic.decision_function(X_NEW)
    np.testing.assert_allclose(OODScorer(logistic).fit(X_FIT).score_samples(X_NEW), np.log(np.exp(logits).sum(1)))
    np.testing.assert_allclose(OODScorer(logistic).fit(X_FIT).predict_proba(X_NEW), logistic.predict_proba(X_NEW))
    vim = scores.learn_vim(logistic.decision_function(X_FIT), X_FIT, logistic.coef_, logistic.intercept_)
    np.testing.assert_allclose(
        OODScorer(logistic, "vim").fit(X_FIT).score_samples(X_NEW), scores.vim(logits, X_NEW, **vim)
    )
    forest = RandomForestClassifier(10, random_state=0).fit(X_TRAIN, Y_TRAIN)
    np.testing.assert_allclose(
        OODScorer(forest, "msp").fit(X_FIT).score_samples(X_NEW),
        # The seven other classes of a row with a probability of 1 have 2e-308 each.
        np.minimum(logit(forest.predict_proba(X_NEW).max(1)), 1022 * np.log(2) - np.log(7)),
        atol=1e-12,
    )
    pipeline = make_pipeline(PCA(10), LogisticRegression()).fit(X_TRAIN, Y_TRAIN)
    features, known = pipeline[0].transform(X_NEW), pipeline[0].transform(X_FIT)
    np.testing.assert_allclose(OODScorer(pipeline, "knn").fit(X_FIT).score_samples(X_NEW), scores.knn(features, known))


def test_two_classes():
    classifier = LogisticRegression().fit(X_BINARY, np.array(["a", "b"])[Y_BINARY])
    scorer = OODScorer(classifier, "react", method_params={"quantile": 0.999999}).fit(X_BINARY)
    half = classifier.decision_function(X_BINARY) / 2
    np.testing.assert_allclose(scorer.score_samples(X_BINARY), np.logaddexp(half, -half), rtol=1e-4)
    np.testing.assert_allclose(scorer.predict_proba(X_BINARY), classifier.predict_proba(X_BINARY))
    assert set(scorer.predict_class(X_BINARY)) == {"a", "b"}
    linear = SVC(kernel="linear").fit(X_BINARY, Y_BINARY)
    assert possible(linear, X_BINARY) == LINEAR


@pytest.mark.parametrize("n_classes", [3, 4])
def test_decisions_between_pairs_of_classes_are_no_logits(n_classes):
    X, y = make_blobs(100, centers=n_classes, random_state=0)
    by_pairs = SVC(decision_function_shape="ovo").fit(X, y)
    with pytest.raises(ValueError, match="decision_function_shape='ovr'"):
        OODScorer(by_pairs).fit(X)
    assert OODScorer(SVC().fit(X, y)).fit(X, y).classes_.tolist() == list(range(n_classes))


@pytest.mark.parametrize(
    "within", [lambda one: one, lambda one: make_pipeline(StandardScaler(), one)], ids=["bare", "pipeline"]
)
def test_decisions_between_pairs_of_classes_are_no_logits_of_an_ensemble(within):
    X, y = make_blobs(100, centers=3, random_state=0)
    ensemble = BaggingClassifier(within(SVC(decision_function_shape="ovo")), n_estimators=3, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="BaggingClassifier gives probabilities, no logits"):
        OODScorer(ensemble).fit(X)
    scorer = OODScorer(ensemble, "msp").fit(X)
    assert np.array_equal(scorer.predict_class(X), ensemble.predict(X))
    np.testing.assert_allclose(scorer.predict_proba(X), ensemble.predict_proba(X), atol=1e-12)
    # This one has decisions for classes, whatever those within have.
    by_class = OneVsRestClassifier(SVC(decision_function_shape="ovo")).fit(X, y)
    assert np.array_equal(OODScorer(by_class).fit(X).predict_class(X), by_class.predict(X))


def test_tables_and_text():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=100), "color": np.repeat(["red", "blue"], 50)})
    frame.loc[frame["color"] == "red", "size"] += 5
    steps = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["color"]), (StandardScaler(), ["size"]))
    classifier = make_pipeline(steps, LogisticRegression()).fit(frame, frame["color"])
    scorer = OODScorer(classifier, "knn").fit(frame, frame["color"])
    assert scorer.feature_names_in_.tolist() == ["size", "color"]
    strange = pd.DataFrame({"size": [-9.0, 5.0], "color": ["red", "red"]})
    assert scorer.predict(strange).tolist() == [-1, 1]
    with pytest.raises(ValueError, match="feature names"):
        scorer.predict(strange[["color", "size"]])

    texts = ["good film", "fine film", "bad film", "awful film"] * 5
    classifier = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 1, 0, 0] * 5)
    for method in ("energy", "vim"):
        scorer = OODScorer(classifier, method).fit(texts)
        assert scorer.score_samples(["good film", "quartz"]).shape == (2,)
    bare = LogisticRegression().fit(classifier[0].transform(texts), [1, 1, 0, 0] * 5)
    assert OODScorer(bare, "vim").fit(classifier[0].transform(texts)).offset_ == scorer.offset_


def test_sparse_rows_of_any_format(logistic):
    expected = OODScorer(logistic, "knn").fit(csr_array(X_FIT)).score_samples(csr_array(X_NEW))
    table = compare_scores(logistic, csr_array(X_NEW), csr_array(X_OUT), X_train=csr_array(X_FIT), methods=["knn"])
    for given in (sparse.bsr_array, sparse.coo_matrix, sparse.csc_array, sparse.dok_matrix, sparse.lil_array):
        scorer = OODScorer(logistic, "knn").fit(given(X_FIT))
        assert np.array_equal(scorer.score_samples(given(X_NEW)), expected), given.__name__
        found = compare_scores(logistic, given(X_NEW), given(X_OUT), X_train=given(X_FIT), methods=["knn"])
        pd.testing.assert_frame_equal(found, table)


def test_searches_and_frozen(logistic):
    expected = OODScorer(logistic).fit(X_FIT).score_samples(X_NEW)
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2)
    with pytest.raises(ValueError, match="classifier is not fitted"):
        OODScorer(search).fit(X_FIT)
    search.fit(X_TRAIN, Y_TRAIN)
    for classifier in (search, FrozenEstimator(logistic), FrozenEstimator(search), make_pipeline(logistic)):
        np.testing.assert_allclose(OODScorer(classifier).fit(X_FIT).score_samples(X_NEW), expected)


@pytest.mark.parametrize(
    "classifier",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        FrozenEstimator(LogisticRegression()),
        RejectClassDetector(contamination=0),
        OpenSetClassifier(RejectClassDetector(contamination=0)),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
def test_an_unfitted_classifier_is_refused(classifier):
    with pytest.raises(ValueError, match="classifier is not fitted: OODScorer needs a trained classifier"):
        OODScorer(classifier).fit(X_FIT)


def test_what_is_no_classifier(reject):
    several = MultiOutputClassifier(LogisticRegression()).fit(X_FIT, np.column_stack([Y_FIT, Y_FIT]))
    with pytest.raises(ValueError, match="several labels"):
        OODScorer(several, "msp").fit(X_FIT)
    # These have a list of classes like a classifier of one label.
    both = np.column_stack([Y_FIT < 4, Y_FIT % 2]).astype(int)
    for several in (RidgeClassifier(), OneVsRestClassifier(LogisticRegression()), MLPClassifier((5,), tol=9.0)):
        with pytest.raises(ValueError, match=f"{type(several).__name__} gives each row several labels"):
            OODScorer(several.fit(X_FIT, both), "msp").fit(X_FIT)
    for other in (
        LinearRegression().fit(X_FIT, Y_FIT),
        IsolationForest().fit(X_FIT),
        ThresholdedDetector(FrozenEstimator(reject)).fit(X_FIT),
        OODScorer(reject).fit(X_FIT),
        # A network, but an encoder's.
        SimCLREncoder(max_epochs=1).fit(X_FIT),
    ):
        with pytest.raises(ValueError, match="predicts no classes"):
            OODScorer(other).fit(X_FIT)
    with pytest.raises(ValueError, match="'classifier' parameter"):
        OODScorer("resnet").fit(X_FIT)


def test_arguments_that_are_not_for_scikit_learn(logistic):
    with pytest.raises(ValueError, match="layer is for torch networks"):
        OODScorer(logistic, layer="1").fit(X_FIT)
    with pytest.raises(ValueError, match="takes rows as they are"):
        OODScorer(logistic, image_shape=(1, 8, 8)).fit(X_FIT)
    with pytest.raises(ValueError, match=r"gives no gradient\. Possible are 'msp', 'max_logit'"):
        OODScorer(logistic, "odin").fit(X_FIT)
    with pytest.raises(ValueError, match="at least 2"):
        OODScorer(logistic).fit(X_FIT[:1])


@pytest.fixture(scope="module")
def boosted():
    """Takes NaN."""
    return HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(X_TRAIN, Y_TRAIN)


def with_nan(rows, row, feature=5):
    rows = rows.copy()
    rows[row, feature] = np.nan
    return rows


@pytest.mark.parametrize("row", [0, 3, 349])
def test_rows_that_are_no_features_are_refused_wherever_they_are(boosted, row):
    place = rf"X contains NaN, first in row {row}, feature 5; impute it \(in a Pipeline, by SimpleImputer\(\)"
    with pytest.raises(ValueError, match=rf"'knn' is not possible: .* features: {place}.*\. Possible are 'msp'"):
        OODScorer(boosted, "knn").fit(with_nan(X_FIT, row))
    scorer = OODScorer(boosted, "knn").fit(X_FIT)
    with pytest.raises(ValueError, match=place):
        scorer.predict(with_nan(X_FIT, row))
    assert OODScorer(boosted).fit(with_nan(X_FIT, row)).predict(X_NEW).shape == (len(X_NEW),)
    # They are no features, but have classes.
    assert scorer.predict_class(with_nan(X_FIT, row)).shape == (350,)


def test_the_place_of_a_value_that_is_no_feature(boosted):
    frame = pd.DataFrame(with_nan(np.tile(X_FIT, (13, 1)), 4300)).add_prefix("pixel")
    classifier = clone(boosted).fit(pd.DataFrame(X_TRAIN).add_prefix("pixel"), Y_TRAIN)
    scorer = OODScorer(classifier, "knn").fit(frame[:50])
    with pytest.raises(ValueError, match="row 4300, column 'pixel5'; impute it"):
        scorer.score_samples(frame)
    sparse = csr_array(np.where(X_FIT > 0.5, X_FIT, 0))
    sparse.data[-1] = np.inf
    row, column = (places[-1] for places in sparse.nonzero())

    class Tolerant(LogisticRegression):
        def decision_function(self, X):
            return super().decision_function(np.nan_to_num(X.toarray(), posinf=1.0))

    with pytest.raises(ValueError, match=f"X contains infinity, first in row {row}, feature {column}; impute it"):
        OODScorer(Tolerant().fit(X_TRAIN, Y_TRAIN), "knn").fit(sparse)


@pytest.mark.parametrize("name", ["X_in", "X_train", "X_out", "X_out['far']"])
@pytest.mark.parametrize("row", [0, 7])
def test_compare_scores_leaves_out_features_whichever_rows_are_none(boosted, name, row):
    given = {"X_in": X_NEW, "X_train": X_FIT, "X_out": X_OUT}
    if name == "X_out['far']":
        given["X_out"] = {"near": X_OUT, "far": with_nan(X_OUT, row)}
    else:
        given[name] = with_nan(given[name], row)
    table = compare_scores(boosted, **given)
    reason = table.attrs["left_out"]["knn"]
    assert f"features: {name} contains NaN, first in row {row}, feature 5; impute it" in reason
    assert {"energy", "openmax"} <= set(table.index.get_level_values("method"))
    with pytest.raises(ValueError, match=rf"not possible: 'knn', .* {re.escape(name)} contains NaN"):
        compare_scores(boosted, **given, methods=["knn"])


# --------------------------------------------------------------------------------------------------------------------
# y


@pytest.mark.parametrize(
    "method", ["mahalanobis", "mahalanobis_pp", "relative_mahalanobis", "relative_mahalanobis_pp", "vim", "knn", "gram"]
)
def test_auto_threshold_where_rows_are_only_three_times_the_features(method):
    """The covariance of four fifths of so few rows is not that of all, by which new rows are scored."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(5, 32))
    module = mlp(n_features=32, n_classes=5)

    def drawn(n_rows):
        codes = np.arange(n_rows) % 5
        return (centers[codes] + rng.normal(size=(n_rows, 32))).astype(np.float32), codes

    new, _ = drawn(1000)
    accused = [(OODScorer(module, method).fit(*drawn(3 * 48)).predict(new) == -1).mean() for _ in range(20)]
    assert 0.03 < np.mean(accused) < 0.065


def test_rows_marked_as_outliers_are_left_out(net):
    both, y = np.vstack([X_OUT, X_FIT]), np.concatenate([np.full(len(X_OUT), -1), Y_FIT])
    for method in ("energy", "mahalanobis", "vim"):
        expected = OODScorer(net, method).fit(X_FIT, Y_FIT)
        scorer = OODScorer(net, method).fit(both, y)
        assert scorer.offset_ == expected.offset_
        np.testing.assert_allclose(scorer.score_samples(X_NEW), expected.score_samples(X_NEW))
    named = OODScorer(net, "mahalanobis", outlier_label="other")
    named.fit(both, np.where(y == -1, "other", y.astype(object)))
    assert named.offset_ == OODScorer(net, "mahalanobis").fit(X_FIT, Y_FIT).offset_


@pytest.mark.parametrize("method", LEARNT_BY_CLASS)
def test_classes_are_given_or_predicted(net, method):
    predicted = OODScorer(net).fit(X_FIT).predict_class(X_FIT)
    assert (predicted != Y_FIT).any()
    by_labels = OODScorer(net, method).fit(X_FIT, Y_FIT).score_samples(X_NEW)
    by_prediction = OODScorer(net, method).fit(X_FIT, predicted).score_samples(X_NEW)
    assert not np.array_equal(by_labels, by_prediction)
    # 1 is a class, too; but nothing but 1 is how inliers are marked.
    marked, y = np.vstack([X_OUT, X_FIT]), np.repeat([-1, 1], [len(X_OUT), len(X_FIT)])
    for scorer in (OODScorer(net, method).fit(X_FIT), OODScorer(net, method).fit(marked, y)):
        np.testing.assert_allclose(scorer.score_samples(X_NEW), by_prediction)


@pytest.mark.parametrize("method", ["relative_mahalanobis", "relative_mahalanobis_pp"])
def test_rows_of_one_class_have_no_distance_relative_to_others(net, method):
    one = Y_FIT == 3
    instead = f"would score 0.*use '{method.removeprefix('relative_')}'"
    with pytest.raises(ValueError, match=f"method='{method}' is not possible: .*one class.*{instead}"):
        OODScorer(net, method).fit(X_FIT[one], Y_FIT[one])
    table = compare_scores(net, X_NEW, X_OUT, X_train=X_FIT[one], y_train=Y_FIT[one])
    assert method not in table.index
    assert "one class" in table.attrs["left_out"][method]
    with pytest.raises(ValueError, match=f"methods not possible: '{method}'.*{instead}"):
        compare_scores(net, X_NEW, X_OUT, X_train=X_FIT[one], y_train=Y_FIT[one], methods=["knn", method])


def test_labels_that_do_not_do(net):
    for method in ("energy", "mahalanobis"):
        with pytest.raises(ValueError, match="y holds 8, 9, not among the classes of the fit"):
            OODScorer(net, method).fit(X, Y)
    with pytest.raises(ValueError, match=r"y holds '\d', '\d'"):
        OODScorer(net).fit(X_FIT, Y_FIT.astype(str))
    with pytest.raises(ValueError, match="350 rows"):
        OODScorer(net).fit(X_FIT, Y_FIT[:7])
    with pytest.raises(ValueError, match="at least 2 in-distribution rows"):
        OODScorer(net).fit(X_FIT, np.full(350, -1))
    signs = LogisticRegression().fit(X_BINARY, 2 * Y_BINARY - 1)
    with pytest.raises(ValueError, match="outlier_label=-1 is one of the classifier's classes"):
        OODScorer(signs).fit(X_BINARY, 2 * Y_BINARY - 1)
    assert OODScorer(signs).fit(X_BINARY).offset_ == OODScorer(signs, outlier_label=0).fit(X_BINARY).offset_


# --------------------------------------------------------------------------------------------------------------------
# calibrate


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_calibrate(net, temperature):
    _, logits = doubled(net, X_NEW)
    scorer = OODScorer(net, "msp", temperature=temperature).fit(X_FIT)
    assert scorer.calibrate(X_NEW, Y_NEW) is scorer
    assert scorer.temperature_ == pytest.approx(scores.find_temperature(logits, Y_NEW))
    assert scorer.temperature == temperature
    np.testing.assert_allclose(
        scorer.predict_proba(X_NEW), softmax(logits / scorer.temperature_, axis=1), rtol=1e-5, atol=1e-6
    )
    assert scorer.offset_ == held_out_offset(scorer.score_samples(X_NEW))
    both, y = np.vstack([X_OUT, X_NEW]), np.concatenate([np.full(len(X_OUT), -1), Y_NEW])
    again = OODScorer(net, "msp").fit(X_FIT).calibrate(both, y)
    assert again.temperature_ == pytest.approx(scorer.temperature_)
    assert again.offset_ == pytest.approx(scorer.offset_)


def test_calibrate_after_learning(net):
    for method in ("vim", "kl_matching"):
        with pytest.raises(ValueError, match="was learnt from logits"):
            OODScorer(net, method).fit(X_FIT).calibrate(X_NEW, Y_NEW)
    for method in ("react", "fdbd", "mahalanobis"):
        scorer = OODScorer(net, method).fit(X_FIT, Y_FIT).calibrate(X_NEW, Y_NEW)
        fitted = OODScorer(net, method, temperature=scorer.temperature_).fit(X_FIT, Y_FIT)
        np.testing.assert_allclose(scorer.score_samples(X_OUT), fitted.score_samples(X_OUT))


def test_calibrate_needs_labels(net):
    scorer = OODScorer(net).fit(X_FIT)
    wrong = {"needs y": None, "not among the classes of the fit": Y_NEW + 5, "at least 2": np.full(len(Y_NEW), -1)}
    for message, y in wrong.items():
        with pytest.raises(ValueError, match=message):
            scorer.calibrate(X_NEW, y)
    ones = Y_NEW == 1
    with pytest.warns(RuntimeWarning, match=f"all {ones.sum()} rows are classified correctly"):
        assert scorer.calibrate(X_NEW[ones], Y_NEW[ones]).temperature_ > 0


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_calibrate_keeps_the_temperature_if_every_row_is_right(temperature):
    right, row = X_BINARY[::2], X_BINARY[1:2]
    classifier = LogisticRegression(C=0.01).fit(right, Y_BINARY[::2])
    assert (classifier.predict(X_BINARY) == Y_BINARY).all()
    scorer = OODScorer(classifier, temperature=temperature).fit(X_BINARY)
    probability = scorer.predict_proba(row)
    with pytest.warns(RuntimeWarning, match=rf"all 100 rows are .* The temperature stays {temperature:g}\. Pass more"):
        scorer.calibrate(right, Y_BINARY[::2])
    assert scorer.temperature_ == temperature
    np.testing.assert_array_equal(scorer.predict_proba(row), probability)
    assert scorer.offset_ == held_out_offset(scorer.score_samples(right))
    # One row that is wrong makes a temperature the best one.
    wrong = np.r_[1 - Y_BINARY[:1], Y_BINARY[2::2]]
    assert scorer.calibrate(right, wrong).temperature_ not in (temperature, pytest.approx(np.exp(-5), rel=0.01))


# --------------------------------------------------------------------------------------------------------------------
# In company


def test_pandas(net):
    frame = pd.DataFrame(X_FIT, index=range(350, 700)).add_prefix("pixel")
    scorer = OODScorer(net, "mahalanobis").fit(frame, pd.Series(Y_FIT, index=frame.index))
    assert scorer.feature_names_in_[0] == "pixel0"
    assert np.array_equal(
        scorer.score_samples(frame), OODScorer(net, "mahalanobis").fit(X_FIT, Y_FIT).score_samples(X_FIT)
    )
    with pytest.raises(ValueError, match="feature names"):
        scorer.predict(frame.iloc[:, ::-1])


def test_within_a_pipeline_and_as_a_classifier_that_rejects(net):
    pipeline = make_pipeline(FunctionTransformer(), OODScorer(net, "knn")).fit(X_FIT, Y_FIT)
    assert (pipeline.predict(X_OUT) == -1).mean() > 0.3
    assert pipeline.predict_proba(X_OUT).shape == (len(X_OUT), 8)
    classifier = OpenSetClassifier(OODScorer(net, "knn")).fit(X_FIT, Y_FIT)
    assert classifier.detector_.classifier is net
    assert set(classifier.predict(X_OUT)) <= {-1, *range(8)}
    assert classifier.score(X_NEW, Y_NEW) > 0.8


@pytest.mark.parametrize("method", ["energy", "knn"])
def test_a_scikit_learn_classifier_that_rejects(logistic, method):
    classifier = OpenSetClassifier(OODScorer(logistic, method)).fit(X_FIT, Y_FIT)
    expected = np.where(classifier.detector_.predict(X_NEW) == 1, logistic.predict(X_NEW), -1)
    assert np.array_equal(classifier.predict(X_NEW), expected)
    assert np.array_equal(classifier.classes_[classifier.predict_proba(X_NEW).argmax(1)], expected)


# --------------------------------------------------------------------------------------------------------------------
# compare_scores


def test_compare_scores(net):
    noise = np.random.default_rng(0).uniform(size=(50, 64))
    table = compare_scores(net, X_NEW, {"digits": X_OUT, "noise": noise}, X_train=X_FIT, y_train=Y_FIT)
    methods = [name for name in METHODS if name != "rotation"]
    assert table.index.to_list() == [(name, method) for name in ("digits", "noise") for method in methods]
    assert table.index.names == ["test set", "method"]
    assert set(table.attrs["left_out"]) == {"rotation"}
    for method in methods:
        scorer = OODScorer(net, method).fit(X_FIT, Y_FIT)
        both = np.concatenate([scorer.score_samples(X_NEW), scorer.score_samples(X_OUT)])
        y = np.repeat([1, -1], [len(X_NEW), len(X_OUT)])
        expected = [auroc(y, both), aupr_out(y, both), fpr_at_tpr(y, both)]
        np.testing.assert_allclose(table.loc["digits", method], expected, atol=1e-3, err_msg=method)
    single = compare_scores(net, X_NEW, X_OUT, X_train=X_FIT, y_train=Y_FIT)
    assert single.index.to_list() == methods
    assert single.index.name == "method"
    pd.testing.assert_frame_equal(single, table.loc["digits"], check_exact=True)


def test_compare_scores_asks_the_network_once(net, monkeypatch):
    # Smaller blocks are tried out at once, and not from the third call on.
    monkeypatch.setattr("skood.training.scoring._BEFORE_TRIAL", 0)
    seen = []
    watched = copy.deepcopy(net)
    # A function stays the same in copies of the module.
    watched.register_forward_hook(lambda module, rows, output: seen.append(len(output)))
    methods = [name for name in METHODS if name not in ("odin", "rotation")]
    for _ in range(2):
        # In the first round blocks of several sizes are tried out, too.
        seen.clear()
        compare_scores(watched, X_NEW, {"a": X_OUT, "b": X_OUT[:50]}, X_train=X_FIT, methods=methods)
    # Each set once, in a block that holds it, after some rows on which it is found out what the network gives.
    assert seen == [32, 32, 32, 32, 512, 512, 512, 128]
    for _ in range(2):
        seen.clear()
        compare_scores(watched, X_NEW, X_OUT, methods=["odin", "msp"])
    assert seen == [32, 32, 32, 32, *[512] * 6]


def test_compare_scores_leaves_out_what_is_not_possible(net, logistic):
    table = compare_scores(net, X_NEW, X_OUT)
    learnt = {name for name, method in METHODS.items() if method.learn is not None}
    assert set(table.attrs["left_out"]) == {*learnt, "rotation"}
    assert table.attrs["left_out"]["knn"] == "it learns from known rows, X_train"
    with pytest.raises(ValueError, match="not possible: 'knn', it learns from known rows"):
        compare_scores(net, X_NEW, X_OUT, methods=["msp", "knn"])
    with pytest.raises(ValueError, match="not possible: 'odin', LogisticRegression gives no gradient"):
        compare_scores(logistic, X_NEW, X_OUT, methods=["odin"])
    left_out = compare_scores(net, X_NEW, X_OUT, X_train=X_FIT, layer="0").attrs["left_out"]
    assert set(left_out) == OF_WEIGHTS | {"rotation"}


def test_compare_scores_with_options(net, image_net):
    table = compare_scores(
        net, X_NEW, X_OUT, X_train=X_FIT, methods=["knn", "energy"], method_params={"knn": {"n_neighbors": 1}}
    )
    assert table.index.to_list() == ["knn", "energy"]
    assert table.loc["knn", "auroc"] == pytest.approx(
        detects(OODScorer(net, "knn", method_params={"n_neighbors": 1}).fit(X_FIT))
    )
    images = compare_scores(
        image_net, X_NEW, X_OUT, X_train=X_FIT, layer="second", image_shape=(1, 8, 8), methods="knn"
    )
    assert images.loc["knn", "auroc"] > 0.75
    with pytest.raises(ValueError, match="there is no score 'best'"):
        compare_scores(net, X_NEW, X_OUT, methods=["best"])
    with pytest.raises(ValueError, match="method_params has unknown methods"):
        compare_scores(net, X_NEW, X_OUT, method_params={"best": {}})
    with pytest.raises(ValueError, match="y_train is given without X_train"):
        compare_scores(net, X_NEW, X_OUT, y_train=Y_FIT)


@pytest.mark.parametrize(
    ("methods", "params", "message"),
    [
        ("energy", {"knn": {"nonsense": 3}}, r"has options of \['knn'\], not among methods=\['energy'\]"),
        (["energy"], {"knn": {"n_neighbors": 3}}, r"has options of \['knn'\]"),
        (["knn"], {"n_neighbors": 3}, r"has unknown methods, \['n_neighbors'\]"),
        (["knn"], {"knn": 3}, r"method_params\['knn'\]=3 must be a dict of options, such as \{'knn':"),
        (None, ["knn"], r"method_params=\['knn'\] must map methods to dicts of options"),
    ],
)
def test_options_that_compare_scores_refuses(logistic, methods, params, message):
    with pytest.raises(ValueError, match=message):
        compare_scores(logistic, X_NEW, X_OUT, X_train=X_FIT, methods=methods, method_params=params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"methods": []}, r"methods=\[\] must be names, or None for all; the methods are msp"),
        ({"methods": 5}, "methods=5 must be names"),
        ({"X_out": {}}, "X_out holds no rows"),
    ],
)
def test_compare_scores_compares_something(logistic, params, message):
    with pytest.raises(ValueError, match=message):
        compare_scores(**{"classifier": logistic, "X_in": X_NEW, "X_out": X_OUT} | params)


def test_options_of_a_method_that_is_left_out(logistic):
    table = compare_scores(logistic, X_NEW[:20], X_OUT[:20], method_params={"odin": {"epsilon": 0.1}})
    assert "odin" in table.attrs["left_out"]


def test_compare_scores_leaves_out_marked_rows(net):
    both, y = np.vstack([X_OUT, X_FIT]), np.repeat([-1, 1], [len(X_OUT), len(X_FIT)])
    table = compare_scores(net, X_NEW, X_OUT, X_train=both, y_train=y)
    np.testing.assert_allclose(table, compare_scores(net, X_NEW, X_OUT, X_train=X_FIT), atol=1e-6)


class Embedded(nn.Module):
    """Rows are numbers of words: they have no gradient."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, rows):
        return self.head(self.words(rows.long()).mean(1))


def test_a_network_without_gradients_is_refused_odin_alone():
    X = np.random.default_rng(0).integers(0, 10, size=(40, 5)).astype(float)
    table = compare_scores(Embedded(), X[:20], X[20:], X_train=X)
    assert table.attrs["left_out"]["odin"] == "the classifier gives no gradient with respect to its rows"
    assert {"energy", "knn", "vim"} <= set(table.index)
    with pytest.raises(ValueError, match="method='odin' is not possible: the classifier gives no gradient"):
        OODScorer(Embedded(), "odin").fit(X)


def test_a_refitted_detector_is_asked_its_own_last_layer():
    params = {"network": "mlp", "random_state": 0, "max_epochs": 2}
    refitted = RejectClassDetector(score_type="knn", hidden_sizes=(8,), **params).fit(X_FIT, Y_FIT)
    refitted.set_params(score_type="sum", hidden_sizes=(8, 8)).fit(X_FIT, Y_FIT)
    fresh = RejectClassDetector(score_type="sum", hidden_sizes=(8, 8), **params).fit(X_FIT, Y_FIT)
    for method in ("knn", "fdbd"):
        scores = [OODScorer(detector, method).fit(X_FIT).score_samples(X_NEW) for detector in (refitted, fresh)]
        assert np.array_equal(*scores)


def test_two_classes_whose_weights_are_one_row():
    two = Y_FIT < 2
    classifier = RidgeClassifier().fit(X_FIT[two], Y_FIT[two])
    assert np.isfinite(OODScorer(classifier, "fdbd").fit(X_FIT[two]).score_samples(X_OUT)).all()


def test_scores_in_inference_mode(net):
    scorer = OODScorer(net, "odin").fit(X_FIT)
    with torch.inference_mode():
        assert np.array_equal(scorer.score_samples(X_NEW), scorer.score_samples(X_NEW))
