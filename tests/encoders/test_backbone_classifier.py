"""BackboneClassifier: training, features, and what a scikit-learn classifier is asked for."""

import pickle
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from sklearn.base import clone, is_classifier, is_outlier_detector
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from skood import BackboneClassifier, OODScorer, RejectClassDetector, RotationAuxClassifier, compare_scores
from skood.networks import ImageNetResNet, ResidualMLP, ResNet

SMALL = {"max_epochs": 10, "batch_size": 16, "hidden_sizes": (16,), "random_state": 0}


def blobs(n=90, n_classes=3):
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n, 4)) + 4 * np.eye(4)[y], y


def pictures(n=24, side=6, channels=1):
    """Bytes; the second class is bright on the left."""
    X = np.random.default_rng(0).integers(0, 128, size=(n, channels, side, side), dtype=np.uint8)
    y = np.arange(n) % 2
    X[y == 1, :, :, : side // 2] += 127
    return X, y


X, Y = blobs()
FITTED = BackboneClassifier(**SMALL).fit(X, Y)

# --------------------------------------------------------------------------------------------------------------------
# Training


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"network": "mlp", "dropout": 0.2, "scaling": "minmax", "optimizer": "adam", "lr": 0.001},
        {"network": "resnet-8-4", "image_shape": (1, 8, 8), "augmentation": "crop-flip", "max_grad_norm": None},
        {"network": "wrn-10-1", "image_shape": (1, 8, 8), "schedule": "steps", "max_grad_norm": None},
        {"network": "wrn-10-1", "image_shape": (1, 16, 4), "max_grad_norm": None},
    ],
    ids=["vectors", "mlp", "resnet", "wide-resnet", "not-square"],
)
def test_same_weights_as_of_classes_alone(params):
    """RotationAuxClassifier without its task; where gradients are shortened, by norms summed in another order."""
    digits, digit = load_digits(return_X_y=True)
    digits, digit = digits[:100], digit[:100]
    params = SMALL | {"max_epochs": 3} | params
    model = BackboneClassifier(**params).fit(digits, digit)
    expected = RotationAuxClassifier(auxiliary=None, **params).fit(digits, digit)
    tensors = [*expected.module_.trunk.state_dict().values(), *expected.module_.class_head.state_dict().values()]
    for found, value in zip(model.module_.state_dict().values(), tensors, strict=True):
        assert torch.equal(found, value)
    assert model.history_[:, "train_loss"] == expected.history_[:, "train_loss"]
    assert np.array_equal(model.predict(digits), expected.predict_class(digits))
    np.testing.assert_allclose(model.predict_proba(digits), expected.predict_proba(digits), rtol=1e-5, atol=1e-6)


def test_repeats():
    before = torch.get_rng_state()
    again = clone(FITTED).fit(X, Y)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(again.decision_function(X), FITTED.decision_function(X))
    assert np.array_equal(again.fit(X, Y).transform(X), FITTED.transform(X))
    other = clone(FITTED).set_params(random_state=1).fit(X, Y)
    assert not np.array_equal(other.decision_function(X), FITTED.decision_function(X))


def test_learns():
    assert FITTED.score(X, Y) > 0.95
    assert FITTED.history_[-1]["train_loss"] < FITTED.history_[0]["train_loss"]
    assert not FITTED.module_.training


@pytest.mark.parametrize(
    ("shape", "depth", "width"),
    [((3, 24, 30), 26, 16), ((3, 23, 30), 14, 8), ((1, 24, 24), 14, 8), ((3, 1, 1), 14, 8)],
)
def test_networks_chosen_for_images(shape, depth, width):
    rows = np.random.default_rng(0).random((4, *shape))
    module = BackboneClassifier(max_epochs=1, random_state=0).fit(rows, [0, 1, 0, 1]).module_
    assert isinstance(module, ResNet)
    assert (6 * len(module.blocks) // 3 + 2, module.stem.out_channels) == (depth, width)


def test_network_chosen_for_large_images():
    rows = np.random.default_rng(0).random((4, 3, 100, 96))
    module = BackboneClassifier(max_epochs=1, random_state=0).fit(rows, [0, 1, 0, 1]).module_
    assert isinstance(module, ImageNetResNet)
    # The published stem, which small images do not have.
    assert module.conv1.stride == (2, 2)


def test_network_chosen_for_vectors():
    assert isinstance(FITTED.module_, ResidualMLP)


@pytest.mark.parametrize(("shape", "n_epochs"), [(None, 400), ((1, 1, -1), 200)])
def test_automatic_number_of_epochs(shape, n_epochs):
    """2000 batches of vectors, 1000 of images: five batches an epoch."""
    model = BackboneClassifier("mlp" if shape is None else "cnn", batch_size=18, image_shape=shape, hidden_sizes=(2,))
    assert len(model.fit(X, Y).history_) == n_epochs


class Interrupting(Callback):
    """Ctrl-C after so many epochs."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.n_epochs:
            signal.raise_signal(signal.SIGINT)


def test_interrupted_it_is_fitted_with_the_finished_epochs():
    model = BackboneClassifier(**SMALL | {"max_epochs": 50, "schedule": "constant"}, callbacks=[Interrupting(3)])
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match=r"BackboneClassifier.fit .* 3 epochs"):
        model.fit(X, Y)
    assert len(model.history_) == 3
    expected = BackboneClassifier(**SMALL | {"max_epochs": 3, "schedule": "constant"}).fit(X, Y)
    assert np.array_equal(model.decision_function(X), expected.decision_function(X))
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), expected.predict(X))
    # The next fit does not remember.
    assert len(model.set_params(callbacks=None, max_epochs=1).fit(X, Y).history_) == 1


class InterruptedAtOnce(nn.Linear):
    def forward(self, x):
        if self.training:
            signal.raise_signal(signal.SIGINT)
        return super().forward(x)


def test_interrupted_in_the_first_epoch_it_is_not_fitted():
    model = BackboneClassifier(InterruptedAtOnce, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    for method in (model.predict, model.transform, model.decision_function):
        with pytest.raises(NotFittedError):
            method(X)


def test_a_loss_that_is_not_finite_raises():
    model = clone(FITTED)
    with pytest.raises(ValueError, match="Training diverged"):
        model.set_params(lr=1e30, max_grad_norm=None).fit(X, Y)
    with pytest.raises(NotFittedError):
        model.predict(X)


# --------------------------------------------------------------------------------------------------------------------
# What it gives


def head_by_hand(model, rows):
    """Logits of what `transform` gives."""
    head = model.module_.head
    return model.transform(rows) @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()


def test_features_are_what_the_last_layer_sees():
    features = FITTED.transform(X)
    assert features.shape == (90, 16)
    assert features.dtype == np.float64
    np.testing.assert_allclose(head_by_hand(FITTED, X), FITTED.decision_function(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        FITTED.predict_proba(X), softmax(FITTED.decision_function(X), axis=1), rtol=1e-5, atol=1e-6
    )
    module = FITTED.module_
    rows = torch.from_numpy(FITTED.scaler_.transform(X)).float()
    with torch.no_grad():
        by_hand = module.stem(rows)
        by_hand = by_hand + module.blocks[0](by_hand)
    np.testing.assert_allclose(features, by_hand.numpy(), rtol=1e-4, atol=1e-5)


def test_features_of_images():
    images, y = pictures(channels=3)
    model = BackboneClassifier("resnet-8-2", max_epochs=1, random_state=0).fit(images, y)
    assert model.transform(images).shape == (24, 16)
    logits = head_by_hand(model, images)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], model.decision_function(images), rtol=1e-5, atol=1e-6)


class Tokens(nn.Module):
    """Cuts a row into tokens of two numbers, and averages the outputs of its last layer over them."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.embed, self.head = nn.Linear(2, 6), nn.Linear(6, n_classes)

    def forward(self, rows):
        return self.head(torch.relu(self.embed(rows.reshape(len(rows), -1, 2)))).mean(1)


def test_features_of_tokens_are_their_mean():
    model = BackboneClassifier(Tokens, max_epochs=1, random_state=0).fit(X, Y)
    assert model.transform(X).shape == (90, 6) == (90, len(model.get_feature_names_out()))
    np.testing.assert_allclose(head_by_hand(model, X), model.decision_function(X), rtol=1e-5, atol=1e-6)
    assert np.isfinite(OODScorer(model, "knn").fit(X, Y).score_samples(X)).all()


@pytest.mark.parametrize("kind", ["vectors", "bytes", "tokens", "linear"])
def test_its_features_as_one_torch_module(kind):
    rows, classes = pictures() if kind == "bytes" else (X, Y)
    networks = {"bytes": "resnet-8-4", "tokens": Tokens, "linear": nn.Linear}
    network, image_shape = networks.get(kind, "auto"), (1, 6, 6) if kind == "bytes" else None
    model = BackboneClassifier(network, max_epochs=1, random_state=0, image_shape=image_shape).fit(rows, classes)
    features, module = model.transform(rows), model.to_torch()
    given = module(torch.tensor(rows))
    assert given.dtype == torch.float32
    np.testing.assert_allclose(given, features, rtol=1e-5, atol=1e-6)
    assert not given.requires_grad
    # It is a copy: what becomes of it is none of the classifier's business.
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data.zero_()
    assert np.array_equal(model.transform(rows), features)


def test_a_linear_classifier_has_the_scaled_rows_for_features():
    model = BackboneClassifier(nn.Linear, **SMALL).fit(X, Y)
    np.testing.assert_allclose(model.transform(X), model.scaler_.transform(X))
    assert list(model.get_feature_names_out()) == [f"backboneclassifier{number}" for number in range(4)]


def test_names_of_features():
    assert list(FITTED.get_feature_names_out())[-1] == "backboneclassifier15"
    frame = pd.DataFrame(X, index=np.arange(90) + 7)
    features = clone(FITTED).set_output(transform="pandas").fit(frame, Y).transform(frame)
    assert list(features.columns) == list(FITTED.get_feature_names_out())
    assert list(features.index) == list(frame.index)


def test_two_classes():
    """One column, positive for the second class."""
    labels = np.where(Y == 0, "yes", "no")
    model = BackboneClassifier(**SMALL).fit(X, labels)
    assert model.classes_.tolist() == ["no", "yes"]
    decision = model.decision_function(X)
    assert decision.shape == (90,)
    assert np.array_equal(model.predict(X), model.classes_[(decision > 0).astype(int)])
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-decision)))


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["b", "a", "c"])[Y],
        np.array(["b", "a", "c"], dtype=object)[Y],
        pd.Series(np.array(["b", "a", "c"])[Y]).astype("category"),
        np.array([-1, 0, 7])[Y],
        np.array([-1.0, 0.0, 7.0])[Y],
    ],
    ids=["text", "objects", "categories", "integers", "floats"],
)
def test_labels_of_all_kinds(labels):
    """All of them are classes: -1 does not stand for outliers here."""
    model = BackboneClassifier(**SMALL).fit(X, labels)
    assert model.classes_.tolist() == sorted(set(np.asarray(labels).tolist()))
    assert model.score(X, labels) > 0.95
    assert model.predict_proba(X).shape == (90, 3)


def test_uint8_images():
    images, y = pictures()
    model = BackboneClassifier("resnet-8-4", scaling=None, max_epochs=20, batch_size=8, random_state=0).fit(images, y)
    assert model.image_shape_ == (1, 6, 6)
    assert model.n_features_in_ == 36
    assert model.score(images, y) == 1
    as_floats = clone(model).fit(images / np.float32(255), y)
    assert np.array_equal(as_floats.decision_function(images / np.float32(255)), model.decision_function(images))
    flat = clone(model).set_params(image_shape=(1, 6, -1)).fit(images.reshape(24, -1), y)
    assert np.array_equal(flat.decision_function(images.reshape(24, -1)), model.decision_function(images))
    with pytest.raises(ValueError, match="BackboneClassifier was fitted on uint8 images"):
        model.predict(images / 255)


def test_a_row_alone_is_as_among_others():
    for method in (FITTED.decision_function, FITTED.transform, FITTED.predict_proba):
        assert np.array_equal(np.concatenate([method(row[None]) for row in X[:5]]), method(X)[:5])


# --------------------------------------------------------------------------------------------------------------------
# Among other estimators


def test_is_a_classifier():
    assert is_classifier(FITTED)
    assert not is_outlier_detector(FITTED)


def test_pickle():
    copied = pickle.loads(pickle.dumps(FITTED))
    assert np.array_equal(copied.decision_function(X), FITTED.decision_function(X))
    assert np.array_equal(copied.transform(X), FITTED.transform(X))
    assert not hasattr(copied, "callbacks_")


def test_in_pipelines():
    """In front, behind, and both."""
    last = make_pipeline(PCA(3, random_state=0), BackboneClassifier(**SMALL)).fit(X, Y)
    assert last.score(X, Y) > 0.9
    assert last.predict_proba(X).shape == (90, 3)
    first = make_pipeline(BackboneClassifier(**SMALL), LogisticRegression()).fit(X, Y)
    assert first.score(X, Y) > 0.9
    assert first[-1].n_features_in_ == 16


def test_in_a_search():
    grid = {"hidden_sizes": [(8,), (16, 16)], "network": ["mlp", "residual"]}
    search = GridSearchCV(BackboneClassifier(**SMALL), grid, cv=2, error_score="raise").fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_score_ > 0.8


def test_a_detector_starts_from_it():
    model = RejectClassDetector(
        classifier=FITTED, class_epochs=0, max_epochs=1, lr=1e-12, random_state=0, contamination=0
    ).fit(X, Y)
    assert np.array_equal(model.scaler_.mean_, FITTED.scaler_.mean_)
    np.testing.assert_allclose(model.predict_proba(X), FITTED.predict_proba(X), rtol=1e-5)


# --------------------------------------------------------------------------------------------------------------------
# Errors


class WithSoftmax(nn.Sequential):
    def __init__(self, n_features, n_classes):
        super().__init__(nn.Linear(n_features, n_classes), nn.Softmax(1))


class NoHead(nn.Conv2d):
    def __init__(self, image_shape, n_classes):
        super().__init__(image_shape[0], n_classes, image_shape[1:])

    def forward(self, x):
        return super().forward(x).flatten(1)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones(90), "y has one class, .*1.*a classifier needs two or more"),
        (np.linspace(0, 1, 90), "Unknown label type"),
        (np.where(Y == 0, np.nan, Y), "NaN, first in row 0"),
        (np.where(Y == 0, np.inf, Y), "infinity"),
        ([1, "a", "b"] * 30, "mixes text and numbers"),
        (Y[:-1], "inconsistent numbers of samples"),
        (np.eye(3)[Y], "1d array"),
        (None, "requires y"),
    ],
)
def test_bad_y(y, message):
    with pytest.raises(ValueError, match=message):
        BackboneClassifier(**SMALL).fit(X, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"network": "resnet-26-16"}, "network='resnet-26-16' is none of those for vectors: 'auto', 'mlp'"),
        ({"network": "resnet-25-16", "image_shape": (1, 2, 2)}, "'resnet-D-W' with D = 6n"),
        ({"network": WithSoftmax}, "more after its last linear layer, which must return the logits"),
        ({"network": NoHead, "image_shape": (1, 2, 2)}, "no linear layer"),
        ({"augmentation": "crop-flip"}, "augmentation is for images"),
        ({"hidden_sizes": (0,)}, "hidden_sizes"),
        ({"image_shape": (1, 2, 3)}, "image_shape"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"lr": "fast"}, "lr"),
        ({"scaling": "auto"}, "scaling"),
        ({"schedule": "linear"}, "schedule"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        BackboneClassifier(**SMALL | params).fit(X, Y)


def test_a_failed_refit_leaves_nothing_behind():
    model = clone(FITTED).fit(X, Y)
    with pytest.raises(ValueError, match="one class"):
        model.fit(X, np.zeros(90))
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(NotFittedError):
        model.get_feature_names_out()


def test_wrong_rows():
    with pytest.raises(ValueError, match="3 features"):
        FITTED.predict(X[:, :3])
    with pytest.raises(ValueError, match="fitted on vectors"):
        FITTED.transform(np.zeros((2, 1, 2, 2)))
    with pytest.raises(ValueError, match="1 sample"):
        clone(FITTED).fit(X[:1], Y[:1])


def test_ood_scorer_sees_rows_as_the_classifier_did():
    """Scaled as in its training, by its own logits and features."""
    rows = 1000 + 50 * X
    backbone = clone(FITTED).fit(rows, Y)
    table = compare_scores(backbone, rows[:50], rows[50:60], X_train=rows, y_train=Y)
    assert {"msp", "odin", "knn", "fdbd"} <= set(table.index)
    score = OODScorer(backbone, "max_logit").fit(rows).score_samples(rows[:5])
    np.testing.assert_allclose(score, backbone.decision_function(rows[:5]).max(1), rtol=1e-5, atol=1e-6)
