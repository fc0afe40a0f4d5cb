"""Tests of whole batches against known rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import OneClassSVM

from skood import DUMDetector, FrozenEncoder
from skood.corruptions import corrupt
from skood.drift import drift_table, drift_test

DUM = DUMDetector(hidden_sizes=(8,), max_epochs=100, contamination=0, random_state=0, device="cpu")
DETECTORS = [
    IsolationForest(n_estimators=20, random_state=0),
    LocalOutlierFactor(novelty=True),
    OneClassSVM(),
    EllipticEnvelope(random_state=0),
    make_pipeline(StandardScaler(), IsolationForest(n_estimators=20, random_state=0)),
    DUM,
]
NAMES = ["forest", "lof", "svm", "envelope", "pipeline", "dum"]
any_detector = pytest.mark.parametrize("detector", DETECTORS, ids=NAMES)
X = np.random.default_rng(0).normal(size=(400, 2))


class Identity(BaseEstimator):
    """The score is the first feature; there is nothing to fit."""

    def fit(self, X, y=None):
        return self

    def decision_function(self, X):
        return np.asarray(X)[:, 0]


@pytest.mark.parametrize(
    ("test", "function"), [("t", stats.ttest_ind), ("ks", stats.ks_2samp), ("mannwhitney", stats.mannwhitneyu)]
)
def test_drift_test_is_scipys(test, function):
    result = drift_test(Identity(), X[:50] + 0.3, reference=X[100:], test=test)
    expected = function(X[100:, 0], X[:50, 0] + 0.3)
    assert result[:2] == pytest.approx((expected.statistic, expected.pvalue))


# The mean of 30 times 0.1 is not 0.1 in floats.
@pytest.mark.parametrize("value", [0.1, -7.3, 1e-9, 0, 1e12])
@pytest.mark.parametrize("n_rows", [2, 3, 30])
@pytest.mark.filterwarnings("error")
def test_scores_that_are_all_the_same_have_not_drifted(value, n_rows):
    same = np.full((50, 1), value)
    assert drift_test(Identity(), same[:n_rows], reference=same) == (0, 1, 0.5)
    for test in ("ks", "mannwhitney"):
        assert drift_test(Identity(), same[:n_rows], reference=same, test=test)[1:] == (1, 0.5)


@pytest.mark.filterwarnings("error")
def test_two_scores_one_of_all_known_rows_and_one_of_the_batch():
    low, high = np.full((30, 1), 0.1), np.full((50, 1), 0.3)
    assert drift_test(Identity(), low, reference=high) == (np.inf, 0, 1)
    assert drift_test(Identity(), high, reference=low) == (-np.inf, 0, 0)
    for test in ("ks", "mannwhitney"):
        assert drift_test(Identity(), low, reference=high, test=test).pvalue < 1e-9
        assert drift_test(Identity(), low[:2], reference=high[:2], test=test).pvalue > 0.05


@pytest.mark.filterwarnings("error")
def test_a_batch_of_one_score_is_tested_against_others():
    same = np.full((50, 1), 0.3)
    expected = stats.ttest_ind(X[:, 0], same[:, 0] + 1e-6 * np.arange(50))
    assert drift_test(Identity(), same, reference=X)[:2] == pytest.approx(
        (expected.statistic, expected.pvalue), rel=1e-3
    )
    # Scores that differ in their last digit alone.
    close = same.copy()
    close[::7] = np.nextafter(0.3, 1)
    assert drift_test(Identity(), close[:25], reference=close).pvalue > 0.5


@pytest.mark.parametrize("test", ["t", "ks", "mannwhitney"])
@pytest.mark.parametrize("where", ["reference", "X"])
def test_scores_that_are_no_numbers_are_told_of(where, test):
    """A p-value of NaN is not below 0.05, and a monitor would be silent."""
    bad = X[:50].copy()
    bad[3:5, 0] = np.nan
    batch, known = (bad, X[100:]) if where == "X" else (X[100:], bad)
    with pytest.raises(ValueError, match=f"the scores of {where} are NaN for 2 of 50 rows"):
        drift_test(Identity(), batch, reference=known, test=test)
    spoil = {"nan": lambda rows, severity, seed: np.where(np.arange(50)[:, None] == 7, np.nan, rows)}
    with pytest.raises(ValueError, match="the scores of X are NaN for 1 of 50 rows"):
        drift_table(Identity(), X[:50], reference=X[100:], corruptions=spoil, severities=[1], test=test)


def test_infinite_scores_have_ranks_but_no_mean():
    far = X[:50].copy()
    far[:40, 0] = -np.inf
    low = far.copy()
    low[:40, 0] = -99.0
    for test in ("ks", "mannwhitney"):
        result = drift_test(Identity(), far, reference=X[100:], test=test)
        assert result == drift_test(Identity(), low, reference=X[100:], test=test)
        assert result.pvalue < 1e-9
    with pytest.raises(ValueError, match=r"scores of X are infinite for 40 of 50 rows, .* test='ks' or 'mannwhitney'"):
        drift_test(Identity(), far, reference=X[100:])
    with pytest.raises(ValueError, match="scores of reference are infinite for 40 of 50 rows"):
        drift_test(Identity(), X[100:], reference=far)


@any_detector
def test_drift_is_seen_and_its_absence_too(detector):
    model = clone(detector).fit(X[:200])
    same = drift_test(model, X[200:300], reference=X[300:])
    assert same.pvalue > 0.01
    assert same.auroc == pytest.approx(0.5, abs=0.12)
    drifted = drift_test(model, X[200:300] + 6, reference=X[300:])
    assert drifted.pvalue < 1e-3
    assert drifted.auroc > 0.7


def test_drift_against_the_training_scores():
    model = clone(DUM).fit(X[:200])
    # Sorted in another order, sums may differ in the last bit.
    assert drift_test(model, X[:200]) == pytest.approx(drift_test(model, X[:200], reference=X[:200]), abs=1e-12)
    assert drift_test(model, X[:200]).auroc == 0.5
    with pytest.raises(ValueError, match="pass held-out rows"):
        drift_test(IsolationForest().fit(X), X)
    with pytest.raises(ValueError, match="test='z'"):
        drift_test(model, X, test="z")
    with pytest.raises(ValueError, match="at least 2 rows"):
        drift_test(model, X[:1])


# ------------------------------------------------------------------------------------------------------- tables of it


def shifted(rows, severity, random_state):
    return rows + severity


def noisy(rows, severity, random_state):
    return rows + severity * np.random.default_rng(random_state).normal(size=rows.shape)


def roughness(images):
    """Mean, spread and mean step from pixel to pixel of each image."""
    images = images / 255
    steps = np.abs(np.diff(images, axis=3))
    return np.stack([images.mean((1, 2, 3)), images.std((1, 2, 3)), steps.mean((1, 2, 3))], 1)


IMAGES = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)


def test_another_score():
    dum = clone(DUM).set_params(max_epochs=5).fit(X[:100])
    batch, reference = X[100:200], X[200:]
    result = drift_test(dum, batch, reference=reference, score="uncertainty")
    pvalue = stats.ttest_ind(dum.uncertainty(reference), dum.uncertainty(batch)).pvalue
    assert result.pvalue == pytest.approx(pvalue)
    assert drift_test(dum, batch, reference=reference, score=dum.uncertainty) == result
    table = drift_table(dum, batch, reference=reference, corruptions={}, score="uncertainty")
    assert tuple(table.loc[("none", 0)]) == result
    with pytest.raises(
        ValueError, match="score='uncertainty' was not recorded for the training rows; pass held-out rows"
    ):
        drift_test(dum, batch, score="uncertainty")
    with pytest.raises(ValueError, match="score='doubt' is no method of DUMDetector"):
        drift_test(dum, batch, reference=reference, score="doubt")


def test_a_table_holds_what_drift_test_gives():
    table = drift_table(
        Identity(), X[:50], reference=X[100:], corruptions={"shifted": shifted}, severities=(0.5, 2), test="ks"
    )
    assert table.index.names == ["corruption", "severity"]
    assert table.index.tolist() == [("none", 0), ("shifted", 0.5), ("shifted", 2)]
    assert table.columns.tolist() == ["statistic", "pvalue", "auroc"]
    for (_, severity), line in table.iterrows():
        expected = drift_test(Identity(), X[:50] + severity, reference=X[100:], test="ks")
        assert tuple(line) == expected
    assert table.auroc.tolist() == sorted(table.auroc, reverse=True)


def test_a_table_of_named_corruptions():
    detector = make_pipeline(FunctionTransformer(roughness), IsolationForest(n_estimators=20, random_state=0))
    detector.fit(IMAGES[:20])
    table = drift_table(detector, IMAGES[20:40], reference=IMAGES[40:], corruptions=["fog", "contrast"], random_state=3)
    assert table.index.tolist() == [("none", 0), *((n, s) for n in ("fog", "contrast") for s in range(1, 6))]
    foggy = corrupt(IMAGES[20:40], "fog", 4, random_state=3)
    assert tuple(table.loc[("fog", 4)]) == drift_test(detector, foggy, reference=IMAGES[40:])
    only = drift_table(detector, IMAGES[20:40], reference=IMAGES[40:], corruptions=["fog"], random_state=3)
    assert only.equals(table.iloc[:6])


@pytest.mark.parametrize("scale", [1 / 255, 1])
def test_named_corruptions_of_floats(scale):
    """A detector fitted on floats sees the images that one fitted on bytes does."""
    seen = []

    class Seeing(FlatIdentity):
        def decision_function(self, X):
            seen.append(X)
            return super().decision_function(X)

    floats = (IMAGES * scale).astype(np.float32)
    drift_table(Seeing(), floats[:5], reference=floats[5:], corruptions=["fog"], severities=[3], random_state=0)
    foggy = seen[-1]
    assert foggy.dtype == np.float32
    np.testing.assert_allclose(foggy, corrupt(IMAGES[:5], "fog", 3, random_state=0) * scale, rtol=1e-6)
    np.testing.assert_array_equal(floats, (IMAGES * scale).astype(np.float32))


@pytest.mark.filterwarnings("error:X does not have valid feature names")
@pytest.mark.parametrize("scale", [None, 1 / 255, 1])
@pytest.mark.parametrize("where", ["detector", "first step", "last step", "table"])
def test_named_corruptions_of_flattened_images(scale, where):
    images = IMAGES if scale is None else (IMAGES * scale).astype(np.float32)
    dum = clone(DUM).set_params(max_epochs=1, image_shape=(1, 8, 8))
    encoder = FrozenEncoder(Flat(), image_shape=(1, 8, 8))
    encoding = make_pipeline(encoder, IsolationForest(n_estimators=5, random_state=0))
    detector = {"first step": encoding, "last step": make_pipeline("passthrough", dum)}.get(where, dum)
    options = {"corruptions": ["fog", "contrast"], "severities": [2], "random_state": 0}

    def table(rows):
        return drift_table(clone(detector).fit(rows[:20]), rows[20:40], reference=rows[40:], **options)

    flattened = images.reshape(len(images), -1)
    rows = pd.DataFrame(flattened).add_prefix("pixel ") if where == "table" else flattened
    assert table(rows).equals(table(images))


class Flat(torch.nn.Module):
    def forward(self, images):
        return images.flatten(1)


def test_all_corruptions_by_default():
    pytest.importorskip("PIL")
    detector = make_pipeline(FunctionTransformer(roughness), IsolationForest(n_estimators=5, random_state=0))
    detector.fit(IMAGES[:20])
    table = drift_table(detector, IMAGES[20:30], reference=IMAGES[30:], severities=[5], test="ks", random_state=0)
    assert len(table) == 16
    assert table.index[[1, 9, -1]].tolist() == [("gaussian_noise", 5), ("frost", 5), ("jpeg_compression", 5)]


def test_the_seed_of_a_table():
    def table(random_state):
        return drift_table(Identity(), X[:50], reference=X[100:], corruptions={"a": noisy}, random_state=random_state)

    assert table(0).equals(table(0))
    assert not table(0).equals(table(1))
    assert table(np.random.RandomState(0)).equals(table(np.random.RandomState(0)))
    # Corruptions share one seed: the noise of severity 2 is twice that of 1.
    seeds = []
    drift_table(
        Identity(),
        X[:50],
        reference=X[100:],
        corruptions={"a": lambda rows, severity, seed: seeds.append(seed) or rows},
        random_state=np.random.RandomState(0),
    )
    assert len(seeds) == 5
    assert len(set(seeds)) == 1


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        (IMAGES, {"test": "z"}, "test='z'"),
        (IMAGES, {"corruptions": ["fog", "frog"]}, "there is no corruption 'frog'; choose one of 'gaussian_noise'"),
        (IMAGES, {"corruptions": "fog"}, r"a sequence of names: \['fog'\]"),
        (IMAGES, {"corruptions": {"a": 3}}, r"corruptions\['a'\] is 3; it must be a function"),
        (IMAGES, {"corruptions": 3}, "corruptions=3 must be a sequence of names"),
        (IMAGES, {"corruptions": ["fog"], "severities": (1, 6)}, "severity=6"),
        (IMAGES, {"severities": 3}, r"severities=3 must be a sequence, such as \(1, 3, 5\)"),
        (IMAGES, {"score": lambda rows: rows}, r"score=.* returns values of shape \(.*\); expected one number per row"),
        (X, {}, "X holds float64"),
        (X, {}, r"They come as \(n, C, H, W\), or flattened if the detector has their image_shape"),
        (IMAGES - 100.0, {}, "X holds float64"),
        (IMAGES[:1], {"corruptions": {}}, "at least 2 rows"),
        (IMAGES, {"random_state": -1}, "Seed"),
    ],
)
def test_tables_that_cannot_be_made(rows, arguments, message):
    with pytest.raises(ValueError, match=message):
        drift_table(FlatIdentity(), rows, reference=rows, **arguments)


class FlatIdentity(Identity):
    def decision_function(self, X):
        return np.asarray(X, dtype=float).reshape(len(X), -1)[:, 0]


def test_drift_of_real_images(data_home):
    """Fitted on 600 clean images, three figures an image tell strong noise and low contrast, and no drift without."""
    images = np.load(data_home / "images" / "cifar10_test_500perclass.npz")["X"]
    images = images[np.random.default_rng(0).permutation(len(images))[:1200]]
    detector = make_pipeline(FunctionTransformer(roughness), StandardScaler(), EllipticEnvelope(random_state=0))
    detector.fit(images[:600])
    names = ["gaussian_noise", "contrast"]
    table = drift_table(
        detector, images[600:900], reference=images[900:], corruptions=names, severities=(1, 5), test="mannwhitney"
    )
    assert table.pvalue["none", 0] > 0.01
    for name in names:
        assert table.pvalue[name, 5] < 1e-6
        assert table.auroc[name, 5] > max(0.7, table.auroc[name, 1])
