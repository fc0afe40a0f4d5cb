"""SimCLREncoder: the loss, views, what `transform` gives, going on, and what scikit-learn asks of a transformer."""

import math
import pickle
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from skood import BackboneClassifier, DUMDetector, FrozenEncoder, ResidualAdapterDetector, SimCLREncoder
from skood.encoders.contrastive import corrupt_features, nt_xent
from skood.networks import ImageNetResNet, ResidualMLP, ResNet, SmallCNN

SMALL = {"embedding_size": 6, "hidden_sizes": (16,), "max_epochs": 4, "batch_size": 16, "random_state": 0}


def rows(n=50, n_features=5):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, n_features)) + 0.1 * rng.normal(size=(n, n_features))


def pictures(n=12, channels=3, side=6):
    return np.random.default_rng(0).integers(0, 256, size=(n, channels, side, side), dtype=np.uint8)


X = rows()
FITTED = SimCLREncoder(**SMALL).fit(X)

# --------------------------------------------------------------------------------------------------------------------
# The loss


def test_nt_xent_by_hand():
    """Rows at 0 and 90 degrees, seen again at 60 and 90: four views whose cosines are 0, 1/2, sqrt(3)/2 and 1."""
    z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    z2 = torch.tensor([[0.5, math.sqrt(0.75)], [0.0, 1.0]])
    high, low, root = math.exp(2), math.exp(1), math.exp(math.sqrt(3))
    # At temperature 1/2 cosines are doubled.
    picked = [
        low / (1 + low + 1),
        high / (1 + root + high),
        low / (low + root + root),
        high / (1 + high + root),
    ]
    expected = -np.mean(np.log(picked))
    assert float(nt_xent(z1, z2, 0.5)) == pytest.approx(expected, rel=1e-6)
    # The length of an embedding has no say.
    assert float(nt_xent(3 * z1, z2 / 7, 0.5)) == pytest.approx(expected, rel=1e-6)


def test_temperature_of_nt_xent():
    """Where all partners agree and all others are opposite, or all are alike."""
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    for temperature in (0.07, 0.5, 2.0):
        expected = math.log1p(2 * math.exp(-2 / temperature))
        assert float(nt_xent(z, z, temperature)) == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert float(nt_xent(z[[0, 0, 0]], z[[0, 0, 0]], temperature)) == pytest.approx(math.log(5), rel=1e-6)
    assert float(nt_xent(z, z)) == float(nt_xent(z, z, 0.07))


@settings(max_examples=30)
@given(n=st.integers(2, 6), d=st.integers(1, 4), seed=st.integers(0, 100), temperature=st.floats(0.05, 5))
def test_nt_xent_does_not_mind_order(n, d, seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    z1, z2 = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)
    loss = nt_xent(z1, z2, temperature)
    torch.testing.assert_close(nt_xent(z1[order], z2[order], temperature), loss)
    torch.testing.assert_close(nt_xent(z2, z1, temperature), loss)
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    torch.testing.assert_close(nt_xent(z1 @ turn, z2 @ turn, temperature), loss)
    # Cosines lie in [-1, 1].
    assert math.log1p((2 * n - 2) * math.exp(-2 / temperature)) - 1e-9 <= float(loss)
    assert float(loss) <= math.log1p((2 * n - 2) * math.exp(2 / temperature)) + 1e-9


def test_gradients_of_nt_xent():
    z1, z2 = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), (z1.requires_grad_(), z2.requires_grad_()))
    # Where all are at right angles every other view is picked with 1/3; partners attract each other, others repel.
    z = torch.eye(4)[:2].requires_grad_()
    nt_xent(z, torch.eye(4)[2:], 0.5).backward()
    expected = torch.tensor([[0, 1, -2, 1], [1, 0, 1, -2]]) / 3
    torch.testing.assert_close(z.grad, expected)


def test_nt_xent_is_exact_under_autocast():
    z1, z2 = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z1, z2)
    assert torch.equal(loss, nt_xent(z1, z2))
    assert nt_xent(z1.bfloat16(), z2.bfloat16()).dtype == torch.float32


# --------------------------------------------------------------------------------------------------------------------
# Views


def test_corrupted_features_are_those_of_other_rows():
    torch.manual_seed(0)
    given = torch.arange(200.0).reshape(50, 4)
    for rate in (0.3, 1.0):
        corrupted = corrupt_features(given.repeat(1, 50), rate)
        source = corrupted.reshape(50, 50, 4)
        # Each feature keeps its column.
        assert torch.equal(source % 4, torch.arange(4.0).expand_as(source))
        changed = source != given[:, None]
        assert float(changed.float().mean()) == pytest.approx(rate, abs=0.02)
    # Features of a row come from many others, each from one of its own.
    assert all(len(row.unique()) > 40 for row in source // 4)


@pytest.mark.parametrize("scaling", ["standard", "minmax", None])
@pytest.mark.parametrize("scale", ["bytes", "shares", "sixteenths", "signed"])
def test_augmentations_see_pixels_in_the_unit_interval(scale, scaling):
    images = pictures()
    images[0, :, 0, :2] = [0, 255]
    shares = images / 255
    images = {"bytes": images, "shares": shares, "sixteenths": 16 * shares, "signed": 5 * shares - 2}[scale]
    seen, network = [], []

    def augmentation(given):
        seen.append(given)
        return given

    class Recording(nn.Sequential):
        def __init__(self, image_shape, out_features):
            super().__init__(nn.Flatten(), nn.Linear(math.prod(image_shape), out_features))

        def forward(self, given):
            if self.training and len(given) == 24:
                network.append(given.detach())
            return super().forward(given)

    params = SMALL | {"max_epochs": 1, "scaling": scaling}
    encoder = SimCLREncoder(Recording, augmentation=augmentation, **params).fit(images)
    (pixels,), (scaled,) = seen, network
    order = [int(np.abs(shares - one).sum((1, 2, 3)).argmin()) for one in pixels[:12].numpy()]
    assert sorted(order) == list(range(12))
    np.testing.assert_allclose(pixels, np.tile(shares[order], (2, 1, 1, 1)), atol=1e-6)
    # Back in the scale of the network.
    expected = images[order] / (255 if scale == "bytes" else 1)
    if scaling is not None:
        columns = encoder.scaler_.transform(np.moveaxis(expected, 1, -1).reshape(-1, 3))
        expected = np.moveaxis(columns.reshape(12, 6, 6, 3), -1, 1)
    np.testing.assert_allclose(scaled, np.tile(expected, (2, 1, 1, 1)), atol=1e-5)


def test_scale_of_pixels_does_not_matter():
    """Bytes, shares of 1 and any other float images of the same pixels give the same views."""
    images = pictures(20)
    images[0, 0, 0, :2] = [0, 255]
    encoder = SimCLREncoder("resnet-8-2", **SMALL).fit(images)
    for one in (images / 255, images / 16.0, images.astype(float)):
        np.testing.assert_allclose(clone(encoder).fit(one).transform(one), encoder.transform(images), atol=1e-3)


def test_automatic_views():
    """Three channels have colours and are mirrored, one has not; vectors are corrupted in one view."""
    seen = {}
    for channels in (1, 2, 3):
        encoder = SimCLREncoder("cnn", **SMALL).set_params(max_epochs=1)
        name = "simclr" if channels == 3 else "simclr-no-flip"
        images = pictures(channels=channels)
        named = clone(encoder).set_params(augmentation=name).fit(images)
        seen[channels] = np.array_equal(encoder.fit(images).transform(images), named.transform(images))
    assert seen == {1: True, 2: True, 3: True}
    other = clone(FITTED).set_params(corruption_rate=0.1).fit(X)
    assert other.history_[-1]["train_loss"] < FITTED.history_[-1]["train_loss"]


def test_one_view_of_a_vector_is_the_row_itself():
    """In the other, a share of the features are those of other rows."""
    seen = []

    class Recording(nn.Sequential):
        def __init__(self, n_features, out_features):
            super().__init__(nn.Flatten(), nn.Linear(n_features, out_features))

        def forward(self, given):
            if self.training and len(given) == 2 * len(X):
                seen.append(given.detach())
            return super().forward(given)

    params = SMALL | {"max_epochs": 1, "batch_size": len(X), "scaling": None, "corruption_rate": 0.4}
    SimCLREncoder(Recording, **params).fit(X)
    one, other = seen[0].chunk(2)
    order = one[:, 0].numpy().argsort()
    np.testing.assert_array_equal(one.numpy()[order], X.astype(np.float32)[X[:, 0].argsort()])
    assert (one != other).float().mean() == pytest.approx(0.4, abs=0.08)


def test_vectors_may_have_views_of_ones_own():
    seen = []

    def noisy(given):
        seen.append(len(given))
        return given + 0.1 * torch.randn_like(given)

    encoder = SimCLREncoder(augmentation=noisy, **SMALL).fit(X)
    # Batches of 16, 16, 16 and 2 rows, two views of each.
    assert seen[:4] == [32, 32, 32, 4]
    assert encoder.history_[-1]["train_loss"] < encoder.history_[0]["train_loss"]


# --------------------------------------------------------------------------------------------------------------------
# Training


def test_training_moves_the_weights_and_lowers_the_loss():
    untrained = clone(FITTED).set_params(lr=1e-30, max_epochs=1).fit(X).module_
    trained = clone(FITTED).set_params(max_epochs=40).fit(X)
    for after, before in zip(trained.module_.parameters(), untrained.parameters(), strict=True):
        assert not torch.equal(after, before)
    losses = trained.history_[:, "train_loss"]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert not trained.module_.training


def test_digits():
    """Nearest neighbours among embeddings that never saw a label; by chance they are right in one of ten."""
    digits, digit = load_digits(return_X_y=True)
    train, test = slice(0, 900), slice(900, None)
    encoder = SimCLREncoder(image_shape=(1, 8, 8), max_epochs=12, random_state=0).fit(digits[train])
    untrained = clone(encoder).set_params(max_epochs=1, lr=1e-30).fit(digits[train])

    def accuracy(encoder):
        embeddings = encoder.transform(digits)
        return KNeighborsClassifier().fit(embeddings[train], digit[train]).score(embeddings[test], digit[test])

    assert accuracy(encoder) > 0.8
    assert accuracy(encoder) > accuracy(untrained)


def test_real_images(data_home):
    """Of a part of Fashion-MNIST: what is learnt in a moment already holds what a linear classifier needs."""
    with np.load(data_home / "images" / "fashion_mnist_test.npz") as file:
        images, y = file["X"][:500].reshape(-1, 1, 28, 28), file["y"][:500]
    encoder = SimCLREncoder("resnet-8-4", output="features", max_epochs=4, batch_size=64, random_state=0)
    features = encoder.fit(images[:350]).transform(images)
    classifier = LogisticRegression(max_iter=1000).fit(features[:350], y[:350])
    assert classifier.score(features[350:], y[350:]) > 0.55


@pytest.mark.parametrize(
    ("shape", "kind", "n_features"),
    [
        ((1, 23, 30), SmallCNN, 128),
        ((1, 24, 24), ResNet, 64),
        ((3, 24, 24), ResNet, 128),
        ((3, 1, 1), SmallCNN, 128),
        ((3, 96, 97), ImageNetResNet, 512),
        ((1, 96, 96), ResNet, 64),
    ],
)
def test_networks_chosen_for_images(shape, kind, n_features):
    images = np.random.default_rng(0).random((4, *shape))
    encoder = SimCLREncoder(max_epochs=1, output="features", random_state=0).fit(images)
    assert isinstance(encoder.module_.trunk, kind)
    assert encoder.transform(images).shape == (4, n_features)


def test_networks_by_name_and_given():
    assert isinstance(FITTED.module_.trunk, ResidualMLP)
    images = pictures(4)
    encoder = SimCLREncoder("resnet-18", max_epochs=1).fit(images)
    assert isinstance(encoder.module_.trunk, ImageNetResNet)
    given = nn.Sequential(nn.Flatten(), nn.Linear(108, 10), nn.ReLU(), nn.Linear(10, 6))
    before = given[1].weight.detach().clone()
    encoder = SimCLREncoder(given, **SMALL).fit(images)
    assert torch.equal(given[1].weight, before)
    assert not torch.equal(encoder.module_.trunk[1].weight, before)
    assert clone(encoder).set_params(output="features").fit(images).transform(images).shape == (4, 10)


@pytest.mark.parametrize(("n", "batch_size"), [(2, 128), (3, 2), (5, 4), (33, 16)])
def test_few_rows(n, batch_size):
    """No batch has a single row, which nothing could be told from."""
    sizes = []

    def augmentation(given):
        sizes.append(len(given) // 2)
        return given

    params = SMALL | {"batch_size": batch_size, "max_epochs": 1}
    embeddings = SimCLREncoder(augmentation=augmentation, **params).fit(X[:n]).transform(X)
    assert np.isfinite(embeddings).all()
    assert sum(sizes) == n
    assert min(sizes) >= 2


def test_repeats():
    before = torch.get_rng_state()
    again = clone(FITTED).fit(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(again.transform(X), FITTED.transform(X))
    torch.manual_seed(7)
    assert np.array_equal(again.fit(X).transform(X), FITTED.transform(X))
    assert not np.array_equal(clone(FITTED).set_params(random_state=1).fit(X).transform(X), FITTED.transform(X))


def test_trains_in_bfloat16():
    rounded = clone(FITTED).set_params(precision="bfloat16").fit(X)
    assert rounded.transform(X).dtype == np.float64
    np.testing.assert_allclose(rounded.history_[:, "train_loss"], FITTED.history_[:, "train_loss"], rtol=0.02)


def test_auxiliary_outliers_are_left_out():
    y = np.where(np.arange(50) % 5 == 0, -1, 1)
    encoder = clone(FITTED).fit(X, y)
    assert np.array_equal(encoder.transform(X), clone(FITTED).fit(X[y == 1]).transform(X))
    # A class of that name is not.
    everything = clone(FITTED).set_params(outlier_label=None).fit(X, y)
    assert np.array_equal(everything.transform(X), FITTED.transform(X))
    named = clone(FITTED).set_params(outlier_label="bad").fit(X, np.where(y == 1, "good", "bad"))
    assert np.array_equal(named.transform(X), encoder.transform(X))
    assert np.array_equal(clone(FITTED).fit(X, np.arange(50) + 0.5).transform(X), FITTED.transform(X))


class Interrupting(Callback):
    """Ctrl-C after so many epochs."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.n_epochs:
            signal.raise_signal(signal.SIGINT)


def test_interrupted_it_is_fitted_with_the_finished_epochs():
    params = SMALL | {"schedule": "constant"}
    encoder = SimCLREncoder(**params | {"max_epochs": 50}, callbacks=[Interrupting(3)])
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match=r"SimCLREncoder.fit .* 3 epochs") as seen:
        encoder.fit(X)
    assert seen[0].filename == __file__
    expected = SimCLREncoder(**params | {"max_epochs": 3}).fit(X)
    assert np.array_equal(encoder.transform(X), expected.transform(X))
    assert len(encoder.set_params(callbacks=None, max_epochs=1).fit(X).history_) == 1


class Stopping(Callback):
    """Ctrl-C within the first epoch, when told."""

    def on_batch_begin(self, net, **kwargs):
        signal.raise_signal(signal.SIGINT)


def test_interrupted_in_the_first_epoch():
    """Not fitted, or as before."""
    encoder = SimCLREncoder(**SMALL, callbacks=[Stopping()])
    with pytest.raises(KeyboardInterrupt):
        encoder.fit(X)
    with pytest.raises(NotFittedError):
        encoder.transform(X)
    encoder = clone(FITTED).fit(X).set_params(callbacks=[Stopping()], warm_start=True)
    for go_on in (encoder.fit, encoder.partial_fit):
        with pytest.raises(KeyboardInterrupt):
            go_on(X)
        assert np.array_equal(encoder.transform(X), FITTED.transform(X))
        assert len(encoder.history_) == 4


class Dead(nn.Sequential):
    """Makes the same of all rows."""

    def __init__(self, n_features, out_features):
        first = nn.Linear(n_features, 4)
        nn.init.constant_(first.bias, -1e9)
        super().__init__(first, nn.ReLU(), nn.Linear(4, out_features))


def test_warns_of_a_collapse():
    message = "all rows have the same embedding: the encoder has collapsed"
    with pytest.warns(RuntimeWarning, match=message) as seen:
        SimCLREncoder(Dead, **SMALL).fit(X)
    assert seen[0].filename == __file__
    with pytest.warns(RuntimeWarning, match=message):
        SimCLREncoder(Dead, **SMALL).partial_fit(X)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_rows_that_are_alike_are_no_collapse():
    SimCLREncoder(**SMALL).fit(np.ones((10, 3)))


# --------------------------------------------------------------------------------------------------------------------
# Going on


def test_goes_on_where_it_was():
    encoder = clone(FITTED).set_params(warm_start=True).fit(X)
    assert np.array_equal(encoder.transform(X), FITTED.transform(X))
    before, scaler = FITTED.history_[:, "train_loss"], encoder.scaler_
    encoder.set_params(max_epochs=40).fit(2 * X)
    assert encoder.scaler_ is scaler
    assert len(encoder.history_) == 44
    losses = encoder.history_[:, "train_loss"]
    assert losses[:4] == before
    assert np.mean(losses[-10:]) < np.mean(before)
    # Without warm_start it begins anew.
    assert np.array_equal(encoder.set_params(max_epochs=4, warm_start=False).fit(X).transform(X), FITTED.transform(X))
    assert len(encoder.history_) == 4


@pytest.mark.parametrize("X", [X, pictures()], ids=["vectors", "images"])
def test_passes_one_at_a_time(X):
    encoder = SimCLREncoder("auto" if X.ndim == 2 else "resnet-8-2", **SMALL).partial_fit(X)
    once = clone(encoder).set_params(max_epochs=1, schedule="constant").fit(X)
    assert np.array_equal(encoder.transform(X), once.transform(X))
    encoder.partial_fit(X[:10])
    assert len(encoder.history_) == 2
    assert not np.array_equal(encoder.transform(X), once.transform(X))
    again = clone(encoder).partial_fit(X).partial_fit(X[:10])
    assert np.array_equal(again.transform(X), encoder.transform(X))
    # Read back from a file it goes on alike.
    copied = pickle.loads(pickle.dumps(encoder))
    assert np.array_equal(copied.partial_fit(X).transform(X), encoder.partial_fit(X).transform(X))


def test_each_pass_draws_views_of_its_own():
    """With weights that stay, the loss of the same rows differs by batches and views alone."""
    encoder = clone(FITTED).set_params(lr=1e-30)
    for _ in range(4):
        encoder.partial_fit(X)
    assert len(set(encoder.history_[:, "train_loss"])) == 4


def test_a_failed_step_leaves_what_there_was():
    encoder = clone(FITTED).fit(X)
    steps = [
        ("Training diverged", lambda: encoder.set_params(optimizer="sgd", lr=1e30, dropout=0.0).partial_fit(X)),
        ("5 features", lambda: encoder.partial_fit(X[:, :4])),
        ("at least 2 are needed", lambda: encoder.partial_fit(X[:1])),
        ("at least 2 in-distribution rows", lambda: encoder.partial_fit(X[:3], [-1, -1, 1])),
        ("fitted on vectors", lambda: encoder.partial_fit(pictures())),
    ]
    for message, step in steps:
        with pytest.raises(ValueError, match=message):
            step()
        assert np.array_equal(encoder.transform(X), FITTED.transform(X))
    # Beginning anew it must not be mixed with what there was.
    with pytest.raises(ValueError, match="Training diverged"):
        encoder.fit(X)
    with pytest.raises(NotFittedError):
        encoder.transform(X)


# --------------------------------------------------------------------------------------------------------------------
# What it gives


def test_embeddings_are_of_unit_length():
    embeddings = FITTED.transform(X)
    assert embeddings.shape == (50, 6)
    assert embeddings.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1)


def test_features_are_what_the_head_sees():
    features = clone(FITTED).set_params(output="features").fit(X).transform(X)
    assert features.shape == (50, 16)
    first, _, last = (layer.double() for layer in pickle.loads(pickle.dumps(FITTED)).module_.head)
    with torch.no_grad():
        hidden = torch.relu(first(torch.from_numpy(features)))
        by_hand = last(hidden).numpy()
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    np.testing.assert_allclose(FITTED.transform(X), by_hand, rtol=1e-5, atol=1e-6)


def test_parameters_set_later_change_nothing():
    encoder = clone(FITTED).fit(X)
    encoder.set_params(output="features", scaling=None, image_shape=(1, 1, 5), embedding_size=2, network="mlp")
    assert np.array_equal(encoder.transform(X), FITTED.transform(X))
    assert len(encoder.get_feature_names_out()) == 6


def test_a_row_alone_is_as_among_others():
    images = pictures(8)
    encoder = SimCLREncoder("resnet-8-2", **SMALL).fit(images)
    for fitted, given_rows in ((FITTED, X), (encoder, images)):
        alone = np.concatenate([fitted.transform(row[None]) for row in given_rows[:5]])
        assert np.array_equal(alone, fitted.transform(given_rows)[:5])
        assert np.array_equal(fitted.transform(given_rows[::-1])[::-1], fitted.transform(given_rows))


def test_images_of_all_kinds():
    images = pictures(channels=1)
    encoder = SimCLREncoder("cnn", **SMALL).fit(images)
    assert encoder.image_shape_ == (1, 6, 6)
    flat = clone(encoder).set_params(image_shape=(1, 6, -1)).fit(images.reshape(12, -1))
    assert np.array_equal(flat.transform(images.reshape(12, -1)), encoder.transform(images))
    with pytest.raises(ValueError, match="SimCLREncoder was fitted on uint8 images"):
        encoder.transform(images / 255)


def test_names_of_features():
    assert list(FITTED.get_feature_names_out())[-1] == "simclrencoder5"
    frame = pd.DataFrame(X, index=np.arange(50) + 7, columns=list("abcde"))
    encoder = clone(FITTED).set_output(transform="pandas").fit(frame)
    embeddings = encoder.transform(frame)
    assert list(embeddings.columns) == list(FITTED.get_feature_names_out())
    assert list(embeddings.index) == list(frame.index)
    with pytest.raises(ValueError, match="feature names"):
        encoder.partial_fit(frame[["b", "a", "c", "d", "e"]])


# --------------------------------------------------------------------------------------------------------------------
# Among other estimators


def test_pickle():
    copied = pickle.loads(pickle.dumps(FITTED))
    assert np.array_equal(copied.transform(X), FITTED.transform(X))
    assert not hasattr(copied, "callbacks_")


def test_in_pipelines():
    y = np.where(X[:, 0] > 0, 1, 0)
    classifier = make_pipeline(SimCLREncoder(**SMALL, outlier_label=None), LogisticRegression()).fit(X, y)
    assert classifier.score(X, y) > 0.8
    y = np.where(np.arange(50) < 5, -1, 1)
    small = {"hidden_sizes": (16,), "max_epochs": 2, "random_state": 0}
    detector = make_pipeline(SimCLREncoder(**SMALL), DUMDetector(normalize="l2", **small)).fit(X, y)
    assert np.isfinite(detector.score_samples(X)).all()
    expected = DUMDetector(normalize="l2", **small).fit(clone(FITTED).fit(X, y).transform(X), y)
    assert np.array_equal(detector.score_samples(X), expected.score_samples(detector[0].transform(X)))


def test_in_a_search():
    search = make_pipeline(SimCLREncoder(**SMALL, outlier_label=None), LogisticRegression())
    grid = {"simclrencoder__output": ["embedding", "features"], "simclrencoder__network": ["mlp", "residual"]}
    search = GridSearchCV(search, grid, cv=2, error_score="raise").fit(X, np.where(X[:, 0] > 0, 1, 0))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_detector_stands_on_its_features():
    encoder = clone(FITTED).set_params(output="features").fit(X)
    detector = ResidualAdapterDetector(encoder, adaptation="frozen", random_state=0, contamination=0).fit(X)
    scaled = torch.from_numpy(encoder.scaler_.transform(X)).float()
    with torch.no_grad():
        features = detector.backbone_(scaled)
    np.testing.assert_allclose(features, encoder.transform(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("output", ["embedding", "features"])
@pytest.mark.parametrize("images", [False, True])
def test_a_detector_that_embeds_sees_what_transform_gives(output, images):
    """Its scaling included."""
    rows = pictures() if images else 3 * X + 1
    network = {"network": "resnet-8-2", "max_epochs": 1} if images else {}
    encoder = SimCLREncoder(**SMALL | network | {"output": output}).fit(rows)
    expected = encoder.transform(rows)
    np.testing.assert_allclose(FrozenEncoder(encoder).fit_transform(rows), expected, rtol=1e-5, atol=1e-6)
    small = {"hidden_sizes": (16,), "max_epochs": 2, "random_state": 0}
    scores = DUMDetector(encoder=encoder, **small).fit(rows).score_samples(rows)
    np.testing.assert_allclose(scores, DUMDetector(**small).fit(expected).score_samples(expected), rtol=1e-4, atol=1e-5)


def test_settings_of_the_paper():
    paper = {"network": "resnet-18", "embedding_size": 128, "temperature": 0.07, "augmentation": "simclr"}
    paper |= {"scaling": "standard", "max_epochs": 200, "batch_size": 128, "lr": 0.03, "optimizer": "sgd"}
    paper |= {"weight_decay": 1e-4, "max_grad_norm": None, "schedule": "constant"}
    expected = SimCLREncoder().get_params() | paper
    assert SimCLREncoder.from_paper().get_params() == expected
    other = {"network": "resnet-34", "max_epochs": 3}
    assert SimCLREncoder.from_paper(**other).get_params() == expected | other
    encoder = SimCLREncoder.from_paper(network="resnet-8-2", max_epochs=1, random_state=0).fit(pictures())
    assert encoder.transform(pictures()).shape == (12, 128)


# --------------------------------------------------------------------------------------------------------------------
# Errors


class WithSoftmax(nn.Sequential):
    def __init__(self, n_features, out_features):
        super().__init__(nn.Linear(n_features, out_features), nn.Softmax(1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"network": "resnet-18"}, "network='resnet-18' is none of those for vectors: 'auto', 'mlp'"),
        ({"network": "resnet-101", "image_shape": (1, 1, 5)}, "'resnet-34' and 'resnet-50'"),
        ({"network": WithSoftmax}, "more after its last linear layer"),
        ({"network": nn.Linear(5, 7)}, r"it must give \(2, 6\)"),
        ({"augmentation": "simclr"}, "augmentation='simclr' is for images; X holds vectors"),
        ({"augmentation": "blur"}, "augmentation"),
        ({"augmentation": None}, "augmentation"),
        ({"augmentation": lambda given: given[:, :2]}, r"augmentation gave \(32, 2\)"),
        ({"temperature": 0.0}, "temperature"),
        ({"corruption_rate": 0.0}, "corruption_rate"),
        ({"embedding_size": 0}, "embedding_size"),
        ({"output": "logits"}, "output"),
        ({"batch_size": 1}, "batch_size"),
        ({"hidden_sizes": ()}, "hidden_sizes"),
        ({"warm_start": "yes"}, "warm_start"),
    ],
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        SimCLREncoder(**SMALL | params).fit(X)


def test_pixels_as_other_estimators_scale_them_are_no_colours():
    with pytest.raises(ValueError, match="augmentation"):
        BackboneClassifier(augmentation="simclr").fit(pictures(), np.arange(12) % 2)


def test_bad_y():
    with pytest.raises(ValueError, match="y has 3 labels, but X has 50 rows"):
        clone(FITTED).fit(X, [1, 1, 1])
    with pytest.raises(ValueError, match="at least 2 in-distribution rows are needed"):
        clone(FITTED).fit(X, -np.ones(50))
