import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import entropy, special_ortho_group

from skood.datasets import make_shapes
from skood.metrics import dci, dci_disentanglement, disentanglement, disentanglement_of

# ---------------------------------------------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize(
    ("importance", "expected"),
    [
        (np.eye(3), 1),
        (np.ones((4, 3)), 0),
        # Twice the same, and each feature still knows one factor.
        (np.vstack([np.eye(3), np.eye(3)]), 1),
        # H_2(3/4, 1/4) = 0.811278; rho = 4/6, 2/6.
        ([[3, 1], [0, 2]], 4 / 6 * (1 - 0.811278) + 2 / 6),
        # One feature for everything, and one that is dead.
        ([[1, 1], [0, 0]], 0),
        ([[5, 0], [0, 0]], 1),
        # Of three factors two are mixed: log_3(2) = 0.630930.
        ([[1, 1, 0], [0, 0, 1]], 2 / 3 * (1 - 0.630930) + 1 / 3),
    ],
)
def test_disentanglement_by_hand(importance, expected):
    assert disentanglement_of(importance) == pytest.approx(expected, abs=1e-6)


def test_completeness_is_that_of_the_transpose():
    # The columns of [[3, 1], [0, 2]]: (3, 0) has entropy 0, (1, 2) has H_2(1/3, 2/3) = 0.918296; weights 3/6 and 3/6.
    assert disentanglement_of(np.transpose([[3, 1], [0, 2]])) == pytest.approx(0.5 + 0.5 * (1 - 0.918296), abs=1e-6)
    assert disentanglement_of(np.vstack([np.eye(2), np.eye(2)]).T) == pytest.approx(1 - np.log(2) / np.log(4))


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ([[1], [2]], r"two factors or more; got shape \(2, 1\)"),
        ([1, 2], r"\(n_features, n_factors\).* got shape \(2,\)"),
        (np.ones((0, 2)), r"got shape \(0, 2\)"),
        ([[1, -1], [0, 1]], "negative values.* absolute"),
        ([[1, np.nan], [0, 1]], "importance holds NaN or infinity"),
        ([[1, np.inf], [0, 1]], "importance holds NaN or infinity"),
        ([[0, 0], [0, 0]], "importance is zero everywhere: no feature matters"),
    ],
)
def test_what_is_undefined_is_an_error(importance, message):
    with pytest.raises(ValueError, match=message):
        disentanglement_of(importance)


matrices = arrays(
    float, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=5), elements=st.floats(0, 100)
).filter(lambda importance: importance.max() > 1e-3)


@given(matrices, st.randoms(use_true_random=False))
def test_invariances_of_the_arithmetic(importance, random):
    value = disentanglement_of(importance)
    assert 0 <= value <= 1
    features, factors = (random.sample(range(n), n) for n in importance.shape)
    assert disentanglement_of(importance[features][:, factors]) == pytest.approx(value)
    for scale in (1e-300, 1e306):
        assert disentanglement_of(importance * scale) == pytest.approx(value)
    # A dead feature changes nothing, nor does a feature shared out among copies of it.
    assert disentanglement_of(np.vstack([importance, np.zeros(importance.shape[1])])) == pytest.approx(value)
    assert disentanglement_of(np.vstack([importance, 0.3 * importance])) == pytest.approx(value)


@given(matrices)
def test_as_scipy_has_the_entropy(importance):
    alive = importance[importance.sum(axis=1) > 0]
    per_feature = 1 - entropy(alive, axis=1, base=alive.shape[1])
    assert disentanglement_of(importance) == pytest.approx(alive.sum(axis=1) @ per_feature / alive.sum(), abs=1e-9)


# ---------------------------------------------------------------------------------------- representations made to order

RNG = np.random.default_rng(0)
CONTINUOUS = RNG.uniform(-1, 1, size=(400, 3))
DISCRETE = RNG.integers(0, 3, size=(400, 3))
ROTATION = special_ortho_group.rvs(3, random_state=0)
NOISE = RNG.normal(size=(400, 3))

predictors = pytest.mark.parametrize("predictor", ["gradient_boosting", "random_forest"])
kinds = pytest.mark.parametrize("factors", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])


@predictors
@kinds
def test_the_factors_themselves_and_a_rotation_of_them(predictor, factors):
    pure = dci(factors, factors, predictor=predictor, random_state=0)
    assert min(pure.disentanglement, pure.completeness) > 0.98
    assert (pure.informativeness > 0.98).all()
    assert pure.importance.argmax(axis=0).tolist() == [0, 1, 2]
    rotated = dci(factors @ ROTATION, factors, predictor=predictor, random_state=0)
    assert max(rotated.disentanglement, rotated.completeness) < 0.6
    assert (rotated.informativeness > 0.7).all()  # nothing is lost


@predictors
def test_duplicated_features_are_disentangled_but_not_complete(predictor):
    doubled = dci(np.hstack([CONTINUOUS, CONTINUOUS]), CONTINUOUS, predictor=predictor, random_state=0)
    assert doubled.disentanglement > 0.98
    assert doubled.completeness < 0.8


@predictors
@kinds
def test_noise_has_no_weight(predictor, factors):
    features = np.hstack([factors + 0.05 * NOISE, NOISE[::-1]])
    result = dci(features, factors, predictor=predictor, random_state=0)
    assert result.importance.shape == (6, 3)
    assert result.importance.sum(axis=0) == pytest.approx(1)
    assert result.importance[3:].sum() < 0.05
    assert result.disentanglement > 0.9


def test_importances_that_rounding_makes_negative_are_zero():
    for seed in (4, 6):
        rng = np.random.default_rng(seed)
        target = rng.integers(0, 3, 200)
        features = np.c_[target + 0.1 * rng.normal(size=200), rng.normal(size=(200, 7))]
        everything = np.arange(200)
        column, _ = disentanglement._predict("gradient_boosting", features, target, True, everything, everything, 0)
        assert (column >= 0).all()


def test_a_factor_that_nothing_tells_has_no_informativeness():
    result = dci(CONTINUOUS, np.c_[CONTINUOUS[:, :2], NOISE[:, 0]], random_state=0)
    assert (result.informativeness[:2] > 0.98).all()
    assert result.informativeness[2] < 0.2
    assert result.disentanglement < 0.9


def test_scale_and_shift_of_features_and_factors_do_not_matter():
    expected = dci(CONTINUOUS @ ROTATION, CONTINUOUS, random_state=0)
    for scale, shift in ((1e-12, 0), (1e200, 0), (-1, 1e3)):
        result = dci(CONTINUOUS @ ROTATION * scale + shift, CONTINUOUS * scale + shift, random_state=0)
        assert result.disentanglement == pytest.approx(expected.disentanglement, abs=0.03)
        assert result.informativeness == pytest.approx(expected.informativeness, abs=0.03)


def test_order_of_factors_does_not_matter_and_seeds_repeat():
    factors = DISCRETE[:90] > 0
    features = factors @ ROTATION
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = dci(features, factors, random_state=3)
    with joblib.parallel_config("threading"):
        again = dci(features, factors, random_state=3, n_jobs=2)
    backwards = dci(features, factors[:, ::-1], random_state=3)
    assert np.array_equal(first.importance, again.importance)
    assert np.array_equal(first.importance, backwards.importance[:, ::-1])
    assert np.array_equal(first.informativeness, again.informativeness)
    assert dci_disentanglement(features, factors, random_state=3) == first.disentanglement == again.disentanglement
    assert type(first.disentanglement) is type(first.completeness) is float
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert pickle.loads(pickle.dumps(first)).completeness == first.completeness


def test_arguments_are_left_alone():
    features, factors = CONTINUOUS[:60].copy(), CONTINUOUS[:60].copy()
    features.flags.writeable = factors.flags.writeable = False
    dci(features, factors, random_state=0)
    assert np.array_equal(features, CONTINUOUS[:60])


# --------------------------------------------------------------------------------------------- what factors may be like


@pytest.mark.slow
def test_factors_of_any_type():
    discrete, continuous = DISCRETE[:150], CONTINUOUS[:150]
    names = np.array(["cone", "cube", "ball"])
    numbers = np.c_[discrete[:, 0], discrete[:, 1] > 0, discrete[:, 2], continuous[:, 0]]
    columns = [names[discrete[:, 0]], discrete[:, 1] > 0, discrete[:, 2].astype(float), continuous[:, 0]]
    frame = pd.DataFrame(dict(zip(["shape", "big", "colour", "angle"], columns, strict=True)), index=range(9, 159))
    frame["shape"] = frame["shape"].astype("category")
    features = pd.DataFrame(continuous @ ROTATION + discrete, columns=["a", "b", "c"], index=range(150, 0, -1))
    expected = dci(features.to_numpy(), numbers, random_state=0)
    rows = [list(row) for row in zip(*columns, strict=True)]
    for factors in (frame, frame.to_numpy(), rows, frame.astype({"colour": "Int64", "shape": "string"})):
        result = dci(features, factors, random_state=0)
        # Classes come in another order, which decides between equal splits at most.
        assert result.importance == pytest.approx(expected.importance, abs=0.02)
        assert result.informativeness == pytest.approx(expected.informativeness, abs=0.05)


@pytest.mark.parametrize(
    ("column", "discrete", "classified"),
    [
        ([0, 1, 2] * 4, None, True),
        ([0.0, 1.0, 2.0] * 4, None, True),
        ([0.5, 1.0, 2.0] * 4, None, False),
        (range(12), None, False),
        ([0.5, 1.0, 2.0] * 4, True, True),
        ([0, 1, 2] * 4, False, False),
        ([True, False] * 6, None, True),
        (["a", "b"] * 6, None, True),
    ],
)
def test_which_factors_are_classified(column, discrete, classified):
    target, is_discrete = disentanglement._target("it", pd.Series(column), discrete)
    assert is_discrete is classified
    assert len(np.unique(target)) == len(set(column))


def test_discrete_one_by_one_or_for_all():
    features = CONTINUOUS[:60]
    mixed = dci(features, DISCRETE[:60], discrete=[False, True, True], random_state=0)
    regressed = dci(features, DISCRETE[:60], discrete=False, random_state=0)
    classified = dci(features, DISCRETE[:60], random_state=0)
    assert np.array_equal(mixed.importance[:, 0], regressed.importance[:, 0])
    assert np.array_equal(mixed.importance[:, 1:], classified.importance[:, 1:])
    assert not np.array_equal(mixed.importance, classified.importance)


def test_factors_of_drawn_shapes():
    """Text and numbers in one table: colours are classified, positions regressed."""
    factors = make_shapes(200, random_state=0).factors
    codes = factors.apply(lambda column: column if column.dtype == float else pd.factorize(column)[0])
    result = dci(codes, factors, predictor="random_forest", random_state=0)
    assert result.disentanglement > 0.9
    assert (result.informativeness > 0.9).all()


WITH_NAN = CONTINUOUS.copy()
WITH_NAN[4, 1] = np.nan


def with_column(values):
    return pd.DataFrame({"shape": DISCRETE[:12, 0], "it": values})


@pytest.mark.parametrize(
    ("features", "factors", "options", "message"),
    [
        (CONTINUOUS[:5], CONTINUOUS[:5], {}, r"features must be .* 6 rows .* got shape \(5, 3\)"),
        (CONTINUOUS[:, :1], CONTINUOUS, {}, r"features must be .* two features or more; got shape \(400, 1\)"),
        (np.ones((12, 3, 4, 4)), CONTINUOUS[:12], {}, r"features must be .* Flatten"),
        (np.ones((12, 3)), CONTINUOUS[:12], {}, "features are the same in every row"),
        (WITH_NAN, CONTINUOUS, {}, "features holds NaN.* row 4"),
        ([["a", "b"]] * 12, CONTINUOUS[:12], {}, "features must hold real numbers"),
        (CONTINUOUS[:12] * 1j, CONTINUOUS[:12], {}, "features must hold real numbers"),
        (CONTINUOUS[:12], CONTINUOUS[:12] * 1j, {}, "factors column 0 is complex"),
        (CONTINUOUS[:12], CONTINUOUS[:12, :1], {}, r"factors must be .* two factors or more.* got shape \(12, 1\)"),
        (CONTINUOUS[:12], CONTINUOUS[:12, 0], {}, r"factors must be .* got shape \(12,\)"),
        (CONTINUOUS[:12], CONTINUOUS[:11], {}, "factors has 11 rows and features 12"),
        (CONTINUOUS[:12], with_column("red"), {}, "factors column 'it' is constant"),
        (CONTINUOUS[:12], np.c_[DISCRETE[:12, :2], np.ones(12)], {}, "factors column 2 is constant"),
        (CONTINUOUS[:12], with_column([np.inf, *range(11)]), {}, "factors column 'it' contains infinity"),
        (CONTINUOUS[:12], with_column(["a", None] * 6), {}, "factors column 'it' contains NaN, first in row 1"),
        (CONTINUOUS[:12], with_column([0.5, np.nan] * 6), {}, "factors column 'it' contains NaN, first in row 1"),
        (CONTINUOUS[:12], with_column(range(12)), {"discrete": True}, "'it' has 12 values in 12 rows.* discrete=False"),
        (CONTINUOUS[:12], with_column(list("abcdefghijkl")), {}, "'it' has 12 values in 12 rows.* bin them"),
        (CONTINUOUS[:12], with_column(["a", "b"] * 6), {"discrete": False}, "'it' holds no numbers.* discrete=True"),
        (CONTINUOUS[:12], with_column(["a", "b"] * 6), {"discrete": [True]}, "discrete=.* one bool per factor"),
        (CONTINUOUS[:12], with_column(["a", "b"] * 6), {"discrete": "no"}, "discrete='no' must be 'auto'"),
        (
            CONTINUOUS[:12],
            with_column(np.arange(12) == 5),
            {"random_state": 0},
            "'it' has one value in the rows to train",
        ),
        (CONTINUOUS, CONTINUOUS, {"predictor": "lasso"}, "predictor='lasso' must be one of 'gradient_boosting'"),
        (CONTINUOUS[:12], with_column(1).set_axis(["a", "a"], axis=1), {}, "columns of the same name"),
    ],
)
def test_errors_name_what_is_wrong(features, factors, options, message):
    with pytest.raises(ValueError, match=message):
        dci_disentanglement(features, factors, **options)
