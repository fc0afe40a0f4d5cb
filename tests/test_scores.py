import inspect
import pickle
from math import exp, log, log1p, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from scipy.special import rel_entr
from scipy.stats import weibull_min
from sklearn.exceptions import NotFittedError
from torch import nn

from skood import scores
from skood.networks import neighbors
from skood.scores import METHODS, FittedScore, find_temperature, odin, odin_log_odds
from skood.scores.base import log_softmax
from skood.scores.base import unit as unit_rows

# No warning of numpy's either.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

OF_ARRAYS = [name for name in METHODS if name != "odin"]
N_CLASSES, N_FEATURES = 4, 10


def responses_to(features, weight, bias, rng, n_transforms=4):
    return {
        "features": features,
        "logits": features @ weight.T + bias,
        "rotation_logits": rng.normal(size=(len(features), n_transforms, n_transforms)),
        "weight": weight,
        "bias": bias,
    }


def some(responses, rows):
    return {name: values if name in ("weight", "bias") else values[rows] for name, values in responses.items()}


@pytest.fixture(scope="module")
def network():
    """Responses to training rows, their classes, and responses to other rows."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(N_CLASSES, N_FEATURES)), rng.normal(size=N_CLASSES)
    codes = np.repeat(np.arange(N_CLASSES), 30)
    features = np.maximum(weight[codes] + rng.normal(size=(len(codes), N_FEATURES)), 0)
    train = responses_to(features, weight, bias, rng)
    test = responses_to(np.abs(rng.normal(size=(40, N_FEATURES))), weight, bias, rng)
    return train, codes, test


def fitted(name, network, **options):
    train, codes, _ = network
    return FittedScore(name, options).learn(train, codes)


# ------------------------------------------------------------------------ as evaluated from the formula, row by row


def softmax(f):
    e = [exp(value - max(f)) for value in f]
    return [value / sum(e) for value in e]


def log_sum_exp(f, temperature=1.0):
    return max(f) + temperature * log(sum(exp((value - max(f)) / temperature) for value in f))


def kl(p, q):
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def unit(rows):
    return np.array([row / sqrt(sum(row**2)) for row in rows])


def plain_gen(f, gamma, n_top):
    return -sum(p**gamma * (1 - p) ** gamma for p in sorted(softmax(f), reverse=True)[:n_top])


def plain_covariance(z, groups):
    total = np.zeros((z.shape[1], z.shape[1]))
    for group in np.unique(groups):
        mean = z[groups == group].mean(0)
        for row in z[groups == group]:
            total += np.outer(row - mean, row - mean)
    total /= len(z)
    return total + 1e-6 * np.trace(total) / len(total) * np.eye(len(total))


def plain_mahalanobis(z, new, groups):
    inverse = np.linalg.inv(plain_covariance(z, groups))
    means = [z[groups == group].mean(0) for group in np.unique(groups)]
    return np.array([min((row - mean) @ inverse @ (row - mean) for mean in means) for row in new])


def plain_fdbd(f, z, weight, center):
    answer = int(np.argmax(f))
    others = [c for c in range(len(f)) if c != answer]
    distances = [abs(f[answer] - f[c]) / np.linalg.norm(weight[answer] - weight[c]) for c in others]
    return np.mean(distances) / np.linalg.norm(z - center)


def plain_vim(train, test, n_components):
    origin = -np.linalg.lstsq(train["weight"], train["bias"], rcond=None)[0]
    shifted, new = train["features"] - origin, test["features"] - origin
    main = np.linalg.svd(shifted, full_matrices=False)[2][:n_components]

    def residual(row):
        return np.linalg.norm(row - main.T @ (main @ row))

    alpha = sum(max(f) for f in train["logits"]) / sum(residual(row) for row in shifted)
    return [log_sum_exp(f) - alpha * residual(row) for f, row in zip(test["logits"], new, strict=True)]


def plain_react(train, test, quantile, temperature):
    limit = np.percentile(train["features"].ravel(), 100 * quantile)
    cut = [[min(value, limit) for value in row] for row in test["features"]]
    return [log_sum_exp(test["weight"] @ row + test["bias"], temperature) for row in cut]


def plain_kl_matching(train, test):
    p = np.array([softmax(f) for f in train["logits"]])
    predicted = p.argmax(1)
    templates = [p[predicted == k].mean(0) for k in range(p.shape[1]) if (predicted == k).any()]
    return [-min(kl(softmax(f), template) for template in templates) for f in test["logits"]]


def plain_rotation(f, rotated):
    told = [log(softmax(row)[r]) for r, row in enumerate(rotated)]
    return kl([1 / len(f)] * len(f), softmax(f)) + sum(told) / len(told)


def plain_knn(train, test, k):
    z = unit(train)
    return [-sorted(np.linalg.norm(row - other) for other in z)[k - 1] for row in unit(test)]


def largest(row, share):
    """Which are the largest values, so many that this share is left out."""
    kept = np.zeros(len(row), dtype=bool)
    kept[np.argsort(row)[round(share * len(row)) :]] = True
    return kept


def plain_shaping(name, row, train, options):
    if name == "vra":
        values = train["features"].ravel()
        low = np.percentile(values, 100 * options.get("low_quantile", 0.6))
        high = np.percentile(values, 100 * options.get("high_quantile", 0.95))
        return [0 if value < low else min(value, high) for value in row]
    default = {"ash_p": 0.6, "ash_b": 0.65, "ash_s": 0.9, "scale": 0.85}[name]
    kept = largest(row, options.get("quantile", default))
    growth = exp(sum(row) / sum(row[kept]))
    return {
        "ash_p": np.where(kept, row, 0),
        "ash_b": np.where(kept, sum(row) / kept.sum(), 0),
        "ash_s": np.where(kept, growth * row, 0),
        "scale": growth * row,
    }[name]


def plain_dice(train, test, quantile):
    contributions = train["weight"] * train["features"].mean(0)
    cut = np.percentile(contributions, 100 * quantile)
    weight = np.where(contributions > cut, train["weight"], 0)
    return [log_sum_exp(weight @ row + train["bias"]) for row in test["features"]]


def plain_gradnorm(f, z, weight, bias):
    """By automatic differentiation; the gradient of the divergence is that of the mean log-probability."""
    weight = torch.tensor(weight, requires_grad=True)
    logits = weight @ torch.tensor(z) + torch.tensor(bias)
    divergence = -torch.log_softmax(logits, 0).mean()
    (gradient,) = torch.autograd.grad(divergence, weight)
    return gradient.abs().sum().item()


def plain_she(train, codes, test):
    right = train["logits"].argmax(1) == codes
    return [
        z @ train["features"][right & (codes == np.argmax(f))].mean(0)
        for f, z in zip(test["logits"], test["features"], strict=True)
    ]


def plain_nnguide(train, test, k):
    found = []
    for f, z in zip(test["logits"], test["features"], strict=True):
        cosines = [z @ other / np.linalg.norm(z) / np.linalg.norm(other) for other in train["features"]]
        guides = sorted(cosine * log_sum_exp(g) for cosine, g in zip(cosines, train["logits"], strict=True))
        found.append(log_sum_exp(f) * np.mean(guides[-k:]))
    return found


def plain_nci(train, test, alpha):
    center, found = train["features"].mean(0), []
    for f, z in zip(test["logits"], test["features"], strict=True):
        direction = (z - center) / np.linalg.norm(z - center)
        found.append(direction @ test["weight"][np.argmax(f)] + alpha * np.abs(z).sum())
    return found


def plain_openmax(train, codes, test, n_tail, n_top):
    f, models = train["logits"], []
    for k in range(f.shape[1]):
        own = f[(codes == k) & (f.argmax(1) == k)]
        tail = np.sort([np.linalg.norm(row - own.mean(0)) for row in own])[-n_tail:]
        start = tail[0] - 1
        shape, _, spread = weibull_min.fit(tail - start, floc=0)
        models.append((own.mean(0), weibull_min(shape, loc=start, scale=spread)))
    found = []
    for row in test["logits"]:
        known, unknown, n = row.copy(), 0.0, min(n_top, len(row))
        for place, k in enumerate(np.argsort(-row)[:n]):
            mean, model = models[k]
            taken = row[k] * (n - place) / n * model.cdf(np.linalg.norm(row - mean))
            known[k] -= taken
            unknown += taken
        share = exp(unknown) / (exp(unknown) + np.exp(known).sum())
        found.append(log((1 - share) / share))
    return found


def plain_gram(train, test, n_powers):
    def sums(z):
        """Row sums of each order's Gram matrix, whose signed root is taken."""
        rows = [np.outer(z**p, z**p).sum(1) for p in range(1, n_powers + 1)]
        return np.concatenate([np.sign(row) * np.abs(row) ** (1 / p) for p, row in enumerate(rows, 1)])

    predicted, found = train["logits"].argmax(1), []
    for f, z in zip(test["logits"], test["features"], strict=True):
        usual = np.array([sums(row) for row in train["features"][predicted == np.argmax(f)]])
        low, high, own = usual.min(0), usual.max(0), sums(z)
        below, above = np.maximum(low - own, 0) / (abs(low) + 1e-6), np.maximum(own - high, 0) / (abs(high) + 1e-6)
        found.append(-sum(below) - sum(above))
    return found


def plainly(name, network, **options):
    train, codes, test = network
    f, z, one = test["logits"], test["features"], np.zeros(len(codes))
    by_row = {
        "msp": lambda f: log(max(softmax(f)) / (1 - max(softmax(f)))),
        "max_logit": max,
        "energy": lambda f: log_sum_exp(f, **options),
        "entropy": lambda f: sum(p * log(p) for p in softmax(f)),
        "gen": lambda f: plain_gen(f, options.get("gamma", 0.1), options.get("n_top", 100)),
    }
    if name in by_row:
        return [by_row[name](row) for row in f]
    if name == "rotation":
        return [plain_rotation(*both) for both in zip(f, test["rotation_logits"], strict=True)]
    if name == "fdbd":
        center = sum(train["features"]) / len(codes)
        return [plain_fdbd(*both, test["weight"], center) for both in zip(f, z, strict=True)]
    if name in ("ash_p", "ash_b", "ash_s", "scale", "vra"):
        shaped = [plain_shaping(name, row, train, options) for row in z]
        return [log_sum_exp(test["weight"] @ row + test["bias"]) for row in shaped]
    nearest = plain_mahalanobis(train["features"], z, codes)
    units, new = unit(train["features"]), unit(z)
    return {
        "dice": lambda: plain_dice(train, test, options.get("quantile", 0.9)),
        "gradnorm": lambda: [plain_gradnorm(*both, test["weight"], test["bias"]) for both in zip(f, z, strict=True)],
        "she": lambda: plain_she(train, codes, test),
        "nnguide": lambda: plain_nnguide(train, test, options.get("n_neighbors", 10)),
        "nci": lambda: plain_nci(train, test, options.get("alpha", 1e-4)),
        "openmax": lambda: plain_openmax(train, codes, test, options.get("n_tail", 20), options.get("n_top", 10)),
        "gram": lambda: plain_gram(train, test, options.get("n_powers", 5)),
        "mahalanobis_pp": lambda: -plain_mahalanobis(units, new, codes),
        "relative_mahalanobis_pp": lambda: plain_mahalanobis(units, new, one) - plain_mahalanobis(units, new, codes),
        "knn": lambda: plain_knn(train["features"], z, options.get("n_neighbors", 5)),
        "mahalanobis": lambda: -nearest,
        "relative_mahalanobis": lambda: plain_mahalanobis(train["features"], z, one) - nearest,
        "vim": lambda: plain_vim(train, test, options.get("n_components", N_FEATURES // 2)),
        "react": lambda: plain_react(train, test, options.get("quantile", 0.9), options.get("temperature", 1.0)),
        "kl_matching": lambda: plain_kl_matching(train, test),
    }[name]()


OPTIONS = [
    ("energy", {"temperature": 3.0}),
    ("gen", {"gamma": 0.5, "n_top": 2}),
    ("knn", {"n_neighbors": 1}),
    ("knn", {"n_neighbors": 100}),
    ("vim", {"n_components": 2}),
    ("react", {"quantile": 0.6, "temperature": 2.0}),
    ("ash_p", {"quantile": 0.3}),
    ("ash_b", {"quantile": 0.9}),
    ("ash_s", {"quantile": 0.5}),
    ("scale", {"quantile": 0.5}),
    ("vra", {"low_quantile": 0.2, "high_quantile": 0.7}),
    ("dice", {"quantile": 0.4}),
    ("nnguide", {"n_neighbors": 3}),
    ("nci", {"alpha": 0.5}),
    ("openmax", {"n_tail": 8, "n_top": 2}),
    ("gram", {"n_powers": 2}),
]


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in OF_ARRAYS), *OPTIONS])
def test_as_the_formula_says(name, options, network):
    found = fitted(name, network, **options).score(network[2])
    assert found.dtype == np.float64
    assert found.shape == (40,)
    # scipy's Weibull distribution is as likely as can be up to the square root of rounding.
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if name == "openmax" else {"rtol": 1e-8}
    assert_allclose(found, plainly(name, network, **options), **tolerance)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_options_matter(name, options, network):
    assert not np.allclose(fitted(name, network, **options).score(network[2]), fitted(name, network).score(network[2]))


# -------------------------------------------------------------------------------------------------- worked out by hand


def test_of_logits_by_hand():
    f = [[0.0, log(3)]]  # p = 1/4 and 3/4.
    assert_allclose(scores.msp(f), [0.75])
    assert_allclose(scores.msp_log_odds(f), [log(3)])
    assert_allclose(scores.msp_log_odds([[log(5), 0.0, log(2), 0.0]]), [log(5 / 4)])
    assert_allclose(scores.max_logit(f), [log(3)])
    assert_allclose(scores.energy(f), [log(4)])
    assert_allclose(scores.energy(f, temperature=2), [2 * log(1 + sqrt(3))])
    assert_allclose(scores.entropy(f), [0.25 * log(0.25) + 0.75 * log(0.75)])
    assert_allclose(scores.gen(f, gamma=0.5), [-2 * sqrt(3 / 16)])
    assert_allclose(scores.gen(f, gamma=0.5, n_top=1), [-sqrt(3 / 16)])
    assert_allclose(scores.kl_matching([[0, 0]], [[0.25, 0.75], [0.01, 0.99]]), [-(log(2) + log(2 / 3)) / 2])


def test_of_features_by_hand():
    assert_allclose(scores.knn([[3.0, 4.0]], [[5.0, 0.0], [0.0, 0.1]], 1), [-sqrt(0.6**2 + 0.2**2)])
    assert_allclose(scores.knn([[3.0, 4.0]], [[5.0, 0.0], [0.0, 0.1]], 2), [-sqrt(0.4**2 + 0.8**2)])
    # (0, 2) becomes (0, 1), which is (-1, 1) from the mean.
    precision = [[4.0, 0.0], [0.0, 1.0]]
    assert_allclose(scores.mahalanobis_pp([[0.0, 2.0]], [[1.0, 0.0], [5.0, 5.0]], precision), [-5.0])
    relative = scores.relative_mahalanobis_pp([[0.0, 2.0]], [[1.0, 0.0]], precision, [0.0, 0.0], np.eye(2))
    assert_allclose(relative, [-(5.0 - 1.0)])
    # As it is, it is (-1, 2) from the mean.
    assert_allclose(scores.mahalanobis([[0.0, 2.0]], [[1.0, 0.0], [5.0, 5.0]], precision), [-8.0])
    relative = scores.relative_mahalanobis([[0.0, 2.0]], [[1.0, 0.0]], precision, [0.0, 0.0], np.eye(2))
    assert_allclose(relative, [-(8.0 - 4.0)])
    # Boundaries of class 0 to the others lie 2 / sqrt(2) and 1 / 2 away, the centre 5.
    weight = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    assert_allclose(scores.fdbd([[3.0, 1.0, 2.0]], [[3.0, 4.0]], weight, [0.0, 0.0]), [(sqrt(2) + 0.5) / 2 / 5])
    # z - o is (4, 3), of which the basis leaves 3.
    assert_allclose(scores.vim([[0.0, 0.0]], [[5.0, 4.0]], [1.0, 1.0], [[0.0], [1.0]], 0.5), [log(2) - 1.5])
    # Cut at 2 the logits are 1 and 3.
    assert_allclose(scores.react([[1.0, 10.0]], np.eye(2), [0.0, 1.0], 2.0), [log(exp(1) + exp(3))])


def test_shaped_activations_by_hand():
    z, weight, bias = [[1.0, 2.0, 5.0]], np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), [0.0, 1.0]
    # Of three features two thirds are 0, and the sum is 8.
    assert_allclose(scores.ash_p(z, weight, bias, 0.67), [log(exp(5) + exp(1))])
    assert_allclose(scores.ash_b(z, weight, bias, 0.67), [log(exp(8) + exp(1))])
    assert_allclose(scores.ash_b(z, weight, bias, 0.33), [log(exp(4) + exp(5))])
    # Of equal features each takes its part of the places that are left; zeros do not become the mean of all.
    assert_allclose(scores.ash_b([[3.0, 3.0, 0.0]], weight, bias, 0.67), [log(exp(3) + exp(4))])
    assert_allclose(scores.ash_b([[6.0, 0.0, 0.0]], weight, bias, 0.33), [log(exp(3 + 1.5) + exp(1 + 1.5))])
    growth = exp(8 / 5)
    assert_allclose(scores.ash_s(z, weight, bias, 0.67), [log(exp(5 * growth) + exp(1))])
    assert_allclose(scores.scale(z, weight, bias, 0.67), [log(exp(6 * growth) + exp(2 * growth + 1))])
    # Of equal features all are kept. Where those kept are not positive, nothing is scaled.
    assert_allclose(scores.ash_p([[3.0, 3.0, 0.0]], weight, bias, 0.67), [log(exp(3) + exp(4))])
    assert_allclose(scores.scale([[-1.0, -2.0, -3.0]], weight, bias, 0.67), [log(exp(-4) + exp(-1))])
    # 1 is below the limits, 5 above.
    assert_allclose(scores.vra(z, weight, bias, 1.5, 4.0), [log(exp(4) + exp(3))])
    learnt = scores.learn_vra([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], 0.2, 0.6)
    assert_allclose([learnt["low"], learnt["high"]], [1.0, 3.0])
    with pytest.raises(ValueError, match=r"low_quantile=0\.6 of 'vra' must be below high_quantile=0\.6"):
        scores.learn_vra(z, 0.6, 0.6)
    # Contributions are 1, 0, 5 and 0, 2, 0: those above their 60 % quantile, 1, are 5 and 2.
    learnt = scores.learn_dice(z, weight, 0.6)
    assert_array_equal(learnt["mask"], [[0, 0, 1], [0, 1, 0]])
    assert_allclose(scores.dice(z, weight, bias, **learnt), [log(exp(5) + exp(3))])


def test_ash_b_of_sparse_features_is_that_of_the_largest():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 100)), rng.normal(size=4)
    features = np.maximum(rng.normal(-1, 1, size=(50, 100)), 0)
    # 35 features are kept, and fewer are above 0: what is left of the sum is shared by the zeros.
    positive = features > 0
    assert (positive.sum(1) < 35).all()
    left = (35 - positive.sum(1, keepdims=True)) / (~positive).sum(1, keepdims=True)
    shaped = np.where(positive, 1.0, left) * features.sum(1, keepdims=True) / 35
    expected = [log_sum_exp(weight @ row + bias) for row in shaped]
    assert_allclose(scores.ash_b(features, weight, bias), expected)
    module = FittedScore("ash_b").to_torch()
    assert_allclose(
        module(**tensors({"features": features, "weight": weight, "bias": bias}, dtype=torch.float64)), expected
    )
    # A row of one active feature is not one of the mean of all.
    one, other = np.zeros((2, 1, 100))
    one[0, 0], other[0, 50] = 5.0, 5.0
    assert scores.ash_b(one, weight, bias) != pytest.approx(scores.ash_b(other, weight, bias))


@pytest.mark.parametrize("quantile", [0, 1.0, 90, -0.5, np.nan, "0.9"])
def test_quantiles_must_be_in_the_open_unit_interval(quantile):
    z, weight, bias = np.eye(3), np.eye(3), np.zeros(3)
    for function in (scores.ash_p, scores.ash_b, scores.ash_s, scores.scale):
        with pytest.raises(ValueError, match=f"^quantile={quantile!r} must be a number between 0 and 1"):
            function(z, weight, bias, quantile)
    with pytest.raises(ValueError, match=r"^quantile="):
        scores.learn_react(z, quantile)
    with pytest.raises(ValueError, match=r"^quantile="):
        scores.learn_dice(z, weight, quantile)
    for name in ("low_quantile", "high_quantile"):
        with pytest.raises(ValueError, match=f"^{name}="):
            scores.learn_vra(z, **{name: quantile})


def test_the_papers_spelling_of_quantiles_has_a_remedy():
    with pytest.raises(ValueError, match=r"quantile=90 .* For 90 % write 0\.9\."):
        scores.ash_s(np.eye(3), np.eye(3), np.zeros(3), quantile=90)


def test_scores_of_the_predicted_class_by_hand():
    # Probabilities 3/4 and 1/4 are a quarter from equal each.
    assert_allclose(scores.gradnorm([[log(3), 0.0]], [[1.0, -2.0]]), [0.5 * 3])
    # Row 1 is predicted wrong, class 2 is never predicted right, and class 3 has no rows.
    logits = np.eye(4)[[0, 1, 0, 1]]
    z = np.array([[2.0, 0.0], [8.0, 8.0], [4.0, 2.0], [1.0, 5.0]])
    patterns = scores.learn_she(logits, z, [0, 0, 0, 2])["patterns"]
    assert_allclose(patterns, [[3.0, 1.0], z.mean(0), [1.0, 5.0], z.mean(0)])
    assert_allclose(scores.she([[1.0, 0.0, 0.0, 0.0]], [[2.0, 5.0]], patterns), [11.0])
    # Cosines of (1, 0) to the bank are 0.6 and 0, times energies log 2 and log 2 + 1.
    bank = scores.learn_nnguide([[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0], [0.0, 2.0]])["bank"]
    assert_allclose(bank, [[0.6 * log(2), 0.8 * log(2)], [0.0, log(2) + 1]])
    assert_allclose(scores.nnguide([[2.0, 2.0]], [[7.0, 0.0]], bank, 1), [(log(2) + 2) * 0.6 * log(2)])
    assert_allclose(scores.nnguide([[2.0, 2.0]], [[7.0, 0.0]], bank, 9), [(log(2) + 2) * 0.3 * log(2)])
    # (3, 4) from the centre, along (0, 5): 4; and 5 + 6 from the origin.
    assert_array_equal(scores.learn_nci([[2.0, 1.0], [2.0, 3.0]])["center"], [2.0, 2.0])
    weight = [[5.0, 0.0], [0.0, 5.0]]
    assert_allclose(scores.nci([[0.0, 1.0]], [[5.0, 6.0]], weight, [2.0, 2.0], 0.1), [4.0 + 1.1])


def test_openmax_by_hand():
    # The larger logit's mean is 5 away, 3 beyond the start; the other's is 4 away, before its start.
    taken = 4 * (1 - exp(-1))
    found = scores.openmax([[3.0, 4.0]], [[3.0, 0.0], [0.0, 0.0]], [5.0, 2.0], [1.0, 3.0], [1.0, 2.0])
    assert_allclose(found, [log(exp(3) + exp(4 - taken)) - taken])
    # The second largest logit counts half.
    found = scores.openmax([[4.0, 3.0]], [[4.0, 3.0], [4.0, 0.0]], [2.0, 2.0], [1.0, 1.0], [1.0, 1.0])
    taken = 3 * (1 - exp(-1)) / 2
    assert_allclose(found, [log(exp(4) + exp(3 - taken)) - taken])
    # Its largest distances are 3 and 5: the smaller one becomes 1.
    learnt = scores.learn_openmax([[1.0, 0.0], [4.0, 0.0], [10.0, 0.0]], [0, 0, 0], n_tail=2)
    assert_allclose(learnt["means"], [[5.0, 0.0]] * 2)
    assert_allclose(learnt["start"], [3.0, 3.0])


def test_gram_by_hand():
    # Row sums of order 1 are z_i (z_1 + z_2), those of order 2 roots of z_i^2 (z_1^2 + z_2^2).
    z = np.array([[3.0, 4.0], [6.0, 8.0]])
    learnt = scores.learn_gram([[1.0, 0.0], [1.0, 0.0]], z, 2)
    assert_allclose(learnt["low"], [[21, 28, 15, 20]] * 2)
    assert_allclose(learnt["high"], [[84, 112, 60, 80]] * 2)
    assert_allclose(scores.gram([[1.0, 0.0]], z[:1], **learnt, n_powers=2), [0.0])
    # 0 and 25, and 0 and 25: below by all of 21 and 15, and by 3 of 28.
    assert_allclose(scores.gram([[1.0, 0.0]], [[0.0, 5.0]], **learnt, n_powers=2), [-(1 + 3 / 28 + 1)], rtol=1e-6)


@given(st.lists(st.floats(1.0, 100.0), min_size=3, max_size=30).filter(lambda values: np.ptp(values) > 0.1))
@settings(max_examples=30)
def test_no_weibull_distribution_is_likelier(values):
    logits = np.column_stack([values, np.zeros(len(values))])
    learnt = scores.learn_openmax(logits, np.zeros(len(values), dtype=int), n_tail=len(values))
    distances = np.abs(values - np.mean(values)) - learnt["start"][0]

    def likelihood(spread, shape):
        return weibull_min(shape, scale=spread).logpdf(distances).sum()

    spread, shape = learnt["spread"][0], learnt["shape"][0]
    best = likelihood(spread, shape)
    for factor in (0.99, 1.01):
        assert likelihood(factor * spread, shape) <= best + 1e-6
        assert likelihood(spread, factor * shape) <= best + 1e-6 or shape > 1000


def test_rotation_by_hand():
    divergence = (log(0.5 / 0.25) + log(0.5 / 0.75)) / 2
    told = (log(0.5) + log(0.25)) / 2
    assert_allclose(scores.rotation([[0.0, log(3)]], [[[0.0, 0.0], [log(3), 0.0]]]), [divergence + told])
    assert_allclose(scores.rotation([[7.0]], [[[0.0, 0.0], [log(3), 0.0]]]), [told])


def test_a_precision_must_be_positive_definite():
    with pytest.raises(ValueError, match="must be positive definite"):
        scores.mahalanobis([[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0], [0.0, -1.0]])


@pytest.mark.parametrize("n_features", [1, 63, 64, 65, 200])
def test_cholesky_in_strips(n_features):
    rng = np.random.default_rng(0)
    z, means = rng.normal(size=(20, n_features)), rng.normal(size=(3, n_features)) / 10
    half = rng.normal(size=(n_features, n_features + 5))
    precision, unit_z = half @ half.T, unit(z)
    expected = cdist(unit_z, means, "mahalanobis", VI=precision).min(1) ** 2
    assert_allclose(scores.mahalanobis_pp(z, means, precision), -expected, rtol=1e-9)


def test_learnt_by_hand():
    assert_allclose(scores.learn_knn([[3.0, 4.0], [0.0, 0.0]])["train_features"], [[0.6, 0.8], [0.0, 0.0]])
    assert scores.learn_react([[0.0, 1.0], [2.0, 10.0]], quantile=0.5) == {"limit": 1.5}
    assert_allclose(scores.learn_fdbd([[1.0, 0.0], [3.0, 4.0]], np.eye(2))["center"], [2.0, 2.0])
    # Class 1 is never predicted, and p is (3/4, 1/8, 1/8) or its mirror image.
    p = np.array([[6, 1, 1], [6, 1, 1], [1, 1, 6]]) / 8
    assert_allclose(scores.learn_kl_matching(np.log(p))["templates"], [p[0], p[2]])
    # Variances 1/2 and 0, ridge 1e-6 of their mean.
    learnt = scores.learn_mahalanobis_pp([[1.0, 1.0], [1.0, -1.0]], ["a", "a"])
    assert_allclose(learnt["means"], [[sqrt(0.5), 0.0]])
    assert_allclose(learnt["precision"], np.diag([1 / 0.25e-6, 1 / (0.5 + 0.25e-6)]), atol=1e-6)
    # As they are, variances 1 and 0.
    learnt = scores.learn_mahalanobis([[1.0, 1.0], [1.0, -1.0]], ["a", "a"])
    assert_allclose(learnt["means"], [[1.0, 0.0]])
    assert_allclose(learnt["precision"], np.diag([1 / 0.5e-6, 1 / (1 + 0.5e-6)]), atol=1e-6)
    # About their own means, the variances of two classes together are 1 and 4.
    learnt = scores.learn_mahalanobis([[1.0, 2.0], [-1.0, -2.0], [9.0, 6.0], [7.0, 2.0]], ["a", "a", "b", "b"])
    assert_allclose(learnt["means"], [[0.0, 0.0], [8.0, 4.0]])
    assert_allclose(np.linalg.inv(learnt["precision"]), [[1 + 2.5e-6, 2.0], [2.0, 4 + 2.5e-6]], rtol=1e-9)
    # About the origin (1, 0) rows are (0, 3), (0, -3) and (0.1, 0): the first column is left out.
    z = np.array([[1.0, 3.0], [1.0, -3.0], [1.1, 0.0]])
    weight, bias = np.eye(2), np.array([-1.0, 0.0])
    learnt = scores.learn_vim(z @ weight.T + bias, z, weight, bias)
    assert_allclose(learnt["origin"], [1.0, 0.0])
    assert_allclose(np.abs(learnt["residual_basis"]), [[1.0], [0.0]], atol=1e-12)
    assert_allclose(learnt["alpha"], (3 + 0 + 0.1) / 0.1)


@pytest.mark.parametrize(("n_features", "n_left"), [(1, 1), (2, 1), (3, 2), (7, 4), (10, 5), (800, 288)])
def test_dimensions_of_vim(n_features, n_left):
    rng = np.random.default_rng(0)
    weight, bias, features = rng.normal(size=(2, n_features)), np.ones(2), rng.normal(size=(5, n_features))
    learnt = scores.learn_vim(features @ weight.T + bias, features, weight, bias)
    assert learnt["residual_basis"].shape == (n_features, n_left)
    many = scores.learn_vim(features @ weight.T + bias, features, weight, bias, n_components=n_features + 5)
    assert many["residual_basis"].shape == (n_features, 1)


def test_vim_orders_rows_as_the_virtual_logit(network):
    score, test = fitted("vim", network), network[2]
    learnt = score.learnt
    virtual = learnt["alpha"] * np.linalg.norm(
        (test["features"] - learnt["origin"]) @ learnt["residual_basis"], axis=1, keepdims=True
    )
    shares = np.array([softmax(row)[0] for row in np.hstack([virtual, test["logits"]])])
    assert_array_equal(np.argsort(score.score(test)), np.argsort(-shares))


def test_scale_of_vim():
    rng = np.random.default_rng(0)
    weight, z = rng.normal(size=(3, 8)), np.hstack([rng.normal(size=(20, 3)), np.zeros((20, 5))])
    # Rows that leave nothing out: what rounding leaves counts as 1e-6 of their length.
    learnt = scores.learn_vim(z @ weight.T, z, weight, np.zeros(3))
    assert_allclose(learnt["alpha"], (z @ weight.T).max(1).mean() / (1e-6 * np.linalg.norm(z, axis=1).mean()))
    # Negative logits do not turn the score around, and rows at the origin do not break it.
    assert scores.learn_vim(z @ weight.T - 100, z, weight, np.zeros(3))["alpha"] > 0
    assert scores.learn_vim(np.zeros((20, 3)), 0 * z, weight, np.zeros(3))["alpha"] == 0


def test_sure_answers_are_told_apart():
    """Where 1 - p is far below the last digit of p."""
    for gap in (40.0, 50.0, 200.0):
        q = exp(-gap) / (1 + exp(-gap))
        assert_allclose(scores.entropy([[gap, 0.0]]), [-(q * gap + log1p(exp(-gap)))], rtol=1e-12)
        assert_allclose(scores.gen([[gap, 0.0]]), [-2 * exp(-0.1 * gap) * (1 + exp(-gap)) ** -0.2], rtol=1e-12)


# ---------------------------------------------------------------------------------------------------------- direction


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_an_outlier_scores_lower(name):
    """Class c is where feature c is large; the outlier has features of no class, and its turns are mistaken."""
    rng = np.random.default_rng(0)
    weight, bias = 2 * np.eye(4, 8), np.zeros(4)
    codes = np.arange(200) % 4
    features = 5 * np.eye(8)[codes] + 0.1 * np.abs(rng.normal(size=(200, 8)))
    responses = responses_to(features, weight, bias, rng)
    responses["rotation_logits"] = 3 * np.eye(4) + 0.1 * rng.normal(size=(200, 4, 4))
    outlier = responses_to(np.array([[0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 4.0, 0.0]]), weight, bias, rng)
    outlier["rotation_logits"] = 3 * np.eye(4)[None, ::-1]
    options = {"ash_b": {"quantile": 0.9}, "openmax": {"n_tail": 5}}.get(name)
    score = FittedScore(name, options).learn(responses, codes)
    # OpenMax is about to reject the rows whose distances it learns from.
    usual = np.quantile(score.score(responses), 0.2 if name == "openmax" else 0.0)
    assert score.score(outlier)[0] < usual


def test_react_cuts_what_is_too_high(network):
    train, _, _ = network
    row = train["features"][:1].copy()
    row[0, train["weight"].sum(0).argmax()] = 1e3
    high = {**train, "features": row, "logits": row @ train["weight"].T + train["bias"]}
    limit = fitted("react", network).learnt["limit"]
    assert fitted("react", network).score(high) < fitted("energy", network).score(high) - 100
    assert (train["features"] <= limit).mean() == pytest.approx(0.9, abs=0.01)


# --------------------------------------------------------------------------------------------------------- invariances


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_a_row_scores_the_same_alone_and_in_any_order(name, network):
    score, test = fitted(name, network), network[2]
    together = score.score(test)
    alone = [score.score(some(test, [row]))[0] for row in range(len(together))]
    assert_allclose(alone, together, rtol=1e-9)
    order = np.random.default_rng(0).permutation(len(together))
    assert_allclose(score.score(some(test, order)), together[order], rtol=1e-9)


@pytest.fixture(scope="module")
def large():
    """A larger network: responses to training rows, their classes, and responses to 1000 rows."""
    rng = np.random.default_rng(0)
    weight, bias, codes = rng.normal(size=(7, 37)), rng.normal(size=7), np.arange(300) % 7
    z = [np.maximum(weight[np.arange(n) % 7] + rng.normal(size=(n, 37)), 0) for n in (300, 1000)]
    # Near duplicates of a training row are what matrix products cannot tell apart.
    z[1][500:520] = z[0][0] + 1e-9 * rng.normal(size=(20, 37))
    train, test = (responses_to(features, weight, bias, rng) for features in z)
    return train, codes, test


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_a_row_scores_the_same_to_the_last_bit(name, large):
    score, test = fitted(name, large), large[2]
    together = score.score(test)
    for size, start, end in [(1, 400, 600), (7, 0, 1000), (64, 0, 1000), (300, 0, 1000)]:
        parts = [score.score(some(test, slice(row, min(row + size, end)))) for row in range(start, end, size)]
        assert_array_equal(np.concatenate(parts), together[start:end])
    for order in (slice(None, None, -1), np.repeat(np.arange(1000), 2), np.random.default_rng(0).permutation(1000)):
        assert_array_equal(score.score(some(test, order)), together[order])
    assert_array_equal(METHODS[name].score(*(test[key] for key in score.needs), **score.learnt), together)


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_the_number_of_threads_has_no_say(name):
    rng = np.random.default_rng(0)
    weight, bias, codes = rng.normal(size=(150, 203)), rng.normal(size=150), np.arange(300) % 150
    train = responses_to(np.abs(rng.normal(size=(300, 203))), weight, bias, rng)
    test = responses_to(np.abs(rng.normal(size=(600, 203))), weight, bias, rng)
    pickled = pickle.dumps(FittedScore(name).learn(train, codes))
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            found.append(pickle.loads(pickled).score(test))
    finally:
        torch.set_num_threads(before)
    assert_array_equal(found[1], found[0])
    assert_array_equal(found[2], found[0])


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_a_row_scores_the_same_wherever_it_lies_in_memory(name, large):
    score, test = fitted(name, large), large[2]
    expected = score.score(test)

    def moved(values):
        """Return a read-only copy that starts 8 bytes after a multiple of 64."""
        memory = np.empty(values.size + 16)
        start = (-memory.ctypes.data % 64) // 8 + 1
        memory[start : start + values.size] = values.ravel()
        copied = memory[start : start + values.size].reshape(values.shape)
        copied.flags.writeable = False
        return copied

    for kind in (moved, np.asfortranarray):
        assert_array_equal(score.score({key: kind(values) for key, values in test.items()}), expected)
    learnt = {key: moved(np.array(values)) for key, values in score.learnt.items()}
    assert_array_equal(METHODS[name].score(*(test[key] for key in score.needs), **learnt), expected)


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_of_arrays_of_any_kind(name, network):
    train, codes, test = network
    expected = fitted(name, network).score(test)
    in_columns = {key: np.asfortranarray(values) for key, values in test.items()}
    lists = {key: values.tolist() for key, values in test.items()}
    score = FittedScore(name).learn({key: values.tolist() for key, values in train.items()}, codes.tolist())
    for kind in (in_columns, lists):
        assert_allclose(score.score(kind), expected, rtol=1e-9)
    single = fitted(name, network).score({key: values.astype(np.float32) for key, values in test.items()})
    assert single.dtype == np.float64
    assert_allclose(single, expected, rtol=1e-3)
    assert len(score.score(some(test, slice(0)))) == 0


@pytest.mark.parametrize("name", ["knn", "mahalanobis_pp", "relative_mahalanobis_pp"])
def test_the_length_of_features_has_no_say(name, network):
    score, test = fitted(name, network), network[2]
    longer = {**test, "features": test["features"] * np.geomspace(1e-200, 1e200, 40)[:, None]}
    assert_allclose(score.score(longer), score.score(test), rtol=1e-9)


# Multiples of 1/8, so that a shift makes no ties.
EIGHTHS = st.integers(-400, 400).map(lambda n: n / 8)
LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=EIGHTHS)


@settings(max_examples=50)
@given(LOGITS, EIGHTHS)
def test_a_shift_of_the_logits(logits, shift):
    learnt = scores.learn_kl_matching(logits)
    for moved in (logits + shift, log_softmax(logits)):
        for name in ("msp", "entropy", "gen"):
            assert METHODS[name].from_probabilities
            assert_allclose(METHODS[name].score(moved), METHODS[name].score(logits), rtol=1e-9, atol=1e-11)
        features = np.ones((len(logits), 2))
        assert_allclose(scores.gradnorm(moved, features), scores.gradnorm(logits, features), rtol=1e-9, atol=1e-11)
        found, expected = (scores.kl_matching(f, **learnt) for f in (moved, logits))
        assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
        assert_allclose(scores.learn_kl_matching(logits + shift)["templates"], learnt["templates"], atol=1e-11)
    assert_allclose(scores.energy(logits + shift), scores.energy(logits) + shift, atol=1e-9)
    assert_allclose(scores.max_logit(logits + shift), scores.max_logit(logits) + shift, atol=1e-9)


def test_what_takes_probabilities():
    alone = {"msp", "entropy", "gen", "kl_matching"}
    assert {name for name in METHODS if METHODS[name].from_probabilities} == alone | {"gradnorm", "she", "gram"}
    # Log-probabilities, of which some are of nothing.
    f = np.array([[0.0, -np.inf, -np.inf], [log(0.5), log(0.5), -np.inf]])
    assert_array_equal(scores.msp(f), [1.0, 0.5])
    # As if the others of the first row had 2e-308.
    assert_allclose(scores.msp_log_odds(f), [1022 * log(2), 0.0])
    assert_array_equal(scores.entropy(f), [0.0, log(0.5)])
    assert_allclose(scores.gen(f), [0.0, -2 * 0.25**0.1])
    assert_allclose(scores.kl_matching(f, scores.learn_kl_matching(f)["templates"])[1], -log(4 / 3) / 2, rtol=0.5)
    assert np.isfinite(scores.kl_matching([[-np.inf, -np.inf, 0.0]], [[0.5, 0.5, 0.0]])).all()


@settings(max_examples=50)
@given(LOGITS.filter(lambda logits: logits.shape[1] > 1))
def test_log_odds_are_those_of_the_probability(logits):
    p, log_odds = scores.msp(logits), scores.msp_log_odds(logits)
    assert_allclose(1 / (1 + np.exp(-log_odds)), p, rtol=1e-12)
    assert_allclose(np.exp(-log_odds)[p < 0.99], ((1 - p) / p)[p < 0.99], rtol=1e-12)
    steps = np.diff(log_odds[np.argsort(p)])
    assert (steps > -1e-12)[np.diff(np.sort(p)) > 1e-12].all()


def test_log_odds_tell_sure_rows_apart():
    """Where all probabilities are rounded to 1."""
    gaps = np.array([40.0, 40.5, 700.0, 800.0, 1e6])
    logits = np.column_stack([np.zeros(5), gaps, np.zeros(5)])
    assert_array_equal(scores.msp(logits), 1.0)
    assert_allclose(scores.msp_log_odds(logits), gaps - log(2), rtol=1e-12)
    found = scores.odin_log_odds(nn.Identity(), torch.from_numpy(logits), 1.0, 0.0)
    assert_allclose(found.numpy(), gaps - log(2), rtol=1e-12)


def test_kl_matching_is_the_divergence():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=[[1.0], [20.0], [400.0]] * 100, size=(300, 50))
    templates = scores.learn_kl_matching(rng.normal(scale=5, size=(200, 50)))["templates"]
    templates[0, 10:] = 0.0
    p = np.exp(log_softmax(logits))
    template = np.maximum(templates, np.finfo(float).tiny)[:, None]
    assert_allclose(scores.kl_matching(logits, templates), -rel_entr(p, template).sum(2).min(0), rtol=0, atol=1e-12)


def test_rows_must_be_as_many():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        scores.vim(np.ones((3, 2)), np.ones((2, 4)), np.ones(4), np.ones((4, 1)), 1.0)


# ------------------------------------------------------------------------------------------------------- nearest rows


@pytest.mark.parametrize("spread", [1e-9, 1e-7, 1e-4])
@pytest.mark.parametrize("k", [1, 5])
def test_near_duplicates(spread, k, monkeypatch):
    """Squared distances found by a matrix product know nothing of these."""
    rng = np.random.default_rng(0)
    center = rng.normal(size=24)
    train = unit_rows(center + spread * rng.normal(size=(300, 24)))
    near = center + spread * rng.normal(size=(40, 24))
    rows = unit_rows(np.concatenate([near, train[:3], rng.normal(size=(3, 24))]))
    expected = -np.sort(cdist(rows, train), axis=1)[:, k - 1]
    found = scores.knn(rows, train, k)
    # Dividing by the length once more moves the last digits.
    assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
    monkeypatch.setattr(neighbors, "_VALUES", 5000)
    assert_array_equal(scores.knn(rows, train, k), found)


def test_duplicates_and_few_rows():
    train = np.repeat(np.eye(3), 40, axis=0)
    assert_allclose(scores.knn(np.eye(3), train, 40), [0, 0, 0], atol=1e-15)
    assert_allclose(scores.knn(np.eye(3), train, 41), np.full(3, -sqrt(2)))
    assert_allclose(scores.knn([[1.0, 0.0]], [[0.0, 1.0]], 5), [-sqrt(2)])


# ------------------------------------------------------------------------------------------------------ extreme inputs


def extreme_networks():
    rng = np.random.default_rng(0)
    weight, bias, codes = rng.normal(size=(3, 6)), rng.normal(size=3), np.arange(12) % 3
    usual = np.abs(rng.normal(size=(12, 6)))
    dead = np.hstack([usual[:, :1], np.zeros((12, 5))])
    for name, features in {
        "usual": usual,
        "dead units": dead,
        "zero": np.zeros((12, 6)),
        "constant": np.full((12, 6), 0.1),
        "tiny": 1e-8 * usual,
        "huge": 1e6 * usual,
    }.items():
        yield pytest.param(responses_to(features, weight, bias, rng), codes, id=name)
    yield pytest.param(responses_to(usual, 0 * weight, 0 * bias, rng), codes, id="no weights")
    yield pytest.param(responses_to(usual[:3], weight, bias, rng), codes[:3], id="one row a class")
    yield pytest.param(responses_to(usual[:1], weight, bias, rng), codes[:1], id="one row")
    yield pytest.param(responses_to(usual[:, :1], weight[:, :1], bias, rng), codes, id="one feature")
    yield pytest.param(responses_to(usual, weight, bias, rng, n_transforms=1), codes, id="one transform")
    extreme = {**responses_to(usual, weight, bias, rng), "logits": 1e6 * rng.choice([-1.0, 0.0, 1.0], size=(12, 3))}
    extreme["rotation_logits"] = 1e6 * rng.choice([-1.0, 1.0], size=(12, 4, 4))
    yield pytest.param(extreme, codes, id="extreme logits")


@pytest.mark.parametrize("name", OF_ARRAYS)
@pytest.mark.parametrize(("responses", "codes"), list(extreme_networks()))
def test_scores_are_finite(name, responses, codes):
    score = FittedScore(name).learn(responses, codes)
    rows = score.score(responses)
    assert np.isfinite(rows).all()
    n, weight, bias = 5, responses["weight"], responses["bias"]
    others = np.array([[0.0], [1.0], [-1.0], [1e6], [-1e6]]) * np.ones((n, weight.shape[1]))
    logits = np.array([[0.0, 0.0, 0.0], [1e6, -1e6, 0.0], [1e6, 1e6, 1e6], [-1e6, -1e6, -1e6], [0.0, 0.0, 1e6]])
    rotated = np.broadcast_to(logits[:, :1, None], (n, 1, 1)) + 1e6 * np.eye(3)[::-1]
    given = {"features": others, "logits": logits, "rotation_logits": rotated, "weight": weight, "bias": bias}
    found = score.score(given)
    assert np.isfinite(found).all()
    alone = [score.score(some(given, [row]))[0] for row in range(n)]
    assert_allclose(alone, found, rtol=1e-9)


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_one_class(name):
    rng = np.random.default_rng(0)
    train = responses_to(np.abs(rng.normal(size=(20, 6))), rng.normal(size=(1, 6)), np.zeros(1), rng)
    score, codes = FittedScore(name), np.zeros(20, dtype=int)
    if name == "fdbd":
        with pytest.raises(ValueError, match="one class only"):
            score.learn(train, codes)
        with pytest.raises(ValueError, match="one class only"):
            scores.fdbd(train["logits"], train["features"], train["weight"], np.zeros(6))
        return
    found = score.learn(train, codes).score(train)
    assert np.isfinite(found).all()
    assert_array_equal(scores.msp(train["logits"]), 1.0)
    constant = dict.fromkeys(("entropy", "gen", "kl_matching", "gradnorm"), 0.0) | {"msp": 1022 * log(2)}
    # No row from which "gram" learnt is outside its limits.
    constant |= dict.fromkeys(("relative_mahalanobis", "relative_mahalanobis_pp", "gram"), 0.0)
    if name in constant:
        assert_array_equal(found, constant[name])
    else:
        assert np.ptp(found) > 0


def test_classes_without_rows_and_without_boundary(network):
    train, codes, _ = network
    kept = codes != 2
    learnt = scores.learn_mahalanobis(train["features"][kept], codes[kept])
    assert learnt["means"].shape == (3, N_FEATURES)
    # The third class has the weights of the first: only the second bounds it.
    weight = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    assert_allclose(scores.fdbd([[3.0, 1.0, 2.0]], [[3.0, 4.0]], weight, [0.0, 0.0]), [sqrt(2) / 5])


def test_covariance_of_rank_one_has_a_precision():
    rng = np.random.default_rng(0)
    train = np.abs(rng.normal(size=300))[:, None] * np.eye(1, 200) + np.eye(2, 200)[1]
    learnt = scores.learn_mahalanobis(train, np.zeros(300))
    assert_array_equal(learnt["precision"], learnt["precision"].T)
    rows = np.abs(rng.normal(size=50))[:, None] * np.eye(1, 200) + np.eye(2, 200)[1]
    usual, unusual = (scores.mahalanobis(z, **learnt) for z in (rows, rows + 0.1 * np.eye(6, 200)[5]))
    assert unusual.max() < usual.min()


# ---------------------------------------------------------------------------------------------------------------- odin


def small_network(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def log_confidence(module, x, temperature):
    with torch.no_grad():
        f = module(torch.from_numpy(x)[None])[0].numpy() / temperature
    return max(f) - log_sum_exp(f)


def test_odin_by_finite_differences():
    module, rng = small_network(), np.random.default_rng(0)
    rows = rng.normal(size=(6, 5))
    for temperature, epsilon in [(1.0, 0.05), (1000.0, 0.01), (7.0, 0.0)]:
        expected = []
        for x in rows:
            steps = 1e-4 * np.eye(5)
            up, down = ([log_confidence(module, x + side * step, temperature) for step in steps] for side in (1, -1))
            gradient = np.subtract(up, down) * temperature
            assert np.abs(gradient).min() > 1e-8
            expected.append(exp(log_confidence(module, x + epsilon * np.sign(gradient), temperature)))
        found = odin(module, torch.from_numpy(rows), temperature, epsilon).numpy()
        # At high temperatures only the last digits differ; 1/3 is not to hide them.
        assert_allclose(found - 1 / 3, np.array(expected) - 1 / 3, rtol=1e-8)


def test_odin_of_a_linear_model():
    rng = np.random.default_rng(0)
    weight, bias, rows = rng.normal(size=(3, 5)), rng.normal(size=3), rng.normal(size=(8, 5))
    temperature, epsilon, expected = 2.0, 0.1, []
    for x in rows:
        f = (weight @ x + bias) / temperature
        gradient = (weight[f.argmax()] - softmax(f) @ weight) / temperature
        expected.append(max(softmax((weight @ (x + epsilon * np.sign(gradient)) + bias) / temperature)))
    linear = nn.Linear(5, 3).double()
    linear.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    assert_allclose(odin(linear, torch.from_numpy(rows), temperature, epsilon).numpy(), expected, rtol=1e-12)


def test_odin_steps_are_divided_by_standard_deviations():
    module, rows = small_network(), torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    std = [0.1, 0.2, 0.3, 0.4, 0.5]
    # A network of pixels x: it divides by the standard deviations first, and x moves by epsilon.
    of_pixels = nn.Sequential(Divided(std), module)
    expected = odin(of_pixels, rows * torch.tensor(std, dtype=torch.float64), 7.0, 0.01)
    assert_allclose(odin(module, rows, 7.0, 0.01, std), expected, rtol=1e-10)
    assert_allclose(odin_log_odds(module, rows, 7.0, 0.01, std), torch.logit(expected), rtol=1e-10)
    assert_allclose(odin(module, rows, 7.0, 0.01, [0.5]), odin(module, rows, 7.0, 0.02), rtol=1e-12)
    with pytest.raises(ValueError, match="std holds 3 numbers; rows have 5 channels or features"):
        odin(module, rows, std=[1.0, 1.0, 1.0])


class Divided(nn.Module):
    def __init__(self, std):
        super().__init__()
        self.std = torch.tensor(std, dtype=torch.float64)

    def forward(self, rows):
        return rows / self.std


def test_steps_of_images_are_divided_channel_by_channel():
    rows = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    moved = scores.moved_up(lambda rows: -rows.square().sum((1, 2, 3)), rows, 0.1, [1.0, 2.0, 4.0])
    expected = torch.tensor([0.1, 0.05, 0.025], dtype=torch.float64)[:, None, None].expand(2, 3, 4, 4)
    assert_allclose(rows - moved, expected, rtol=1e-12)


def test_odin_raises_the_confidence():
    module, rows = small_network(), torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain, moved = odin(module, rows, 10.0, 0.0), odin(module, rows, 10.0, 1e-3)
    assert (moved > plain).all()
    assert_allclose(plain, scores.msp(module(rows).detach().numpy() / 10), rtol=1e-12)
    for epsilon, p in [(0.0, plain), (1e-3, moved)]:
        assert_allclose(odin_log_odds(module, rows, 10.0, epsilon), torch.logit(p), rtol=1e-10)
    assert not torch.allclose(odin(module, rows, 1.0), odin(module, rows, 1000.0))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_odin_leaves_all_as_it_was(context, device):
    # The first layer works in place.
    module = nn.Sequential(nn.LeakyReLU(inplace=True), small_network(dtype=torch.float32)).to(device).eval()
    rows = torch.randn(1000, 5, generator=torch.Generator().manual_seed(1)).to(device)
    before, enabled = rows.clone(), torch.is_grad_enabled()
    with context():
        given = rows.clone()
        found = odin(module, given)
        assert torch.equal(given, before)
    assert torch.is_grad_enabled() == enabled
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert not given.requires_grad
    assert not found.requires_grad
    assert found.dtype == torch.float64
    assert found.device == rows.device
    # At this temperature float32 cannot tell all rows apart.
    assert len(found.float().unique()) < 900 < 990 < len(found.unique())
    assert_allclose(odin(module, rows[:1]).cpu(), found[:1].cpu(), rtol=1e-7)


def test_odin_of_images():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    rows = torch.rand(3, 3, 8, 8)
    assert odin(module, rows).shape == (3,)
    one_class = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    assert_array_equal(odin(one_class, rows), [1, 1, 1])
    assert_allclose(odin_log_odds(one_class, rows), np.full(3, 1022 * log(2)))


# ------------------------------------------------------------------------------------------------------------- tensors


def tensors(responses, device="cpu", dtype=torch.float32):
    return {name: torch.tensor(values, dtype=dtype, device=device) for name, values in responses.items()}


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_tensors_give_tensors(name, network, device):
    score, test = fitted(name, network), tensors(network[2], device)
    expected = score.score({key: values.cpu().numpy() for key, values in test.items()})
    arrays = {key: network[2][key] for key in ("weight", "bias")}
    found = score.score(test)
    for other in (
        METHODS[name].score(*((test | arrays)[key] for key in score.needs), **score.learnt),
        score.to_torch().to(device)(**test),
        found,
    ):
        assert (other.dtype, other.device) == (torch.float64, test["logits"].device)
        tolerance = {"rtol": 1e-9} if other is found else {"rtol": 1e-6, "atol": 1e-7}
        assert_allclose(other.cpu(), expected, **tolerance)
    # The score itself stays where it was.
    assert_array_equal(score.score({key: values.cpu().numpy() for key, values in test.items()}), expected)


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_gradients_flow_to_the_rows(name, network):
    module, test = fitted(name, network).to_torch(), tensors(some(network[2], slice(3)), dtype=torch.float64)
    rows = [key for key in module.needs if key not in ("weight", "bias")]

    def function(*given):
        return module(**test | dict(zip(rows, given, strict=True)))

    assert torch.autograd.gradcheck(function, [test[key].requires_grad_() for key in rows])
    with torch.no_grad():
        assert not module(**test).requires_grad


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_module(name, large):
    score, test = fitted(name, large), tensors(some(large[2], slice(256)), dtype=torch.float64)
    module = score.to_torch()
    # Over a block of the same shape it is the same sum.
    assert_array_equal(module(**test).numpy(), score.score(large[2])[:256])
    assert_array_equal(module(**{key: test[key] for key in score.needs}), module(**test))
    assert {values.dtype for values in module.buffers()} <= {torch.float64}
    assert (list(module.buffers()) == []) == (score.method.learn is None)
    assert list(module.parameters()) == []
    with pytest.raises(TypeError, match=f"{score.needs[0]} is missing; the score needs {score.needs[0]}"):
        module()
    # It is the user's own.
    expected = score.score(large[2])
    for buffer in module.buffers():
        buffer.zero_()
    assert_array_equal(score.score(large[2]), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", OF_ARRAYS)
def test_module_can_be_exported_and_traced(name, large):
    score = fitted(name, large)
    module, test = score.to_torch(), tensors(large[2])
    given = {key: test[key] for key in score.needs}
    few = some(given, slice(64))
    batch = torch.export.Dim("batch")
    shapes = {key: None if key in ("weight", "bias") else {0: batch} for key in given}
    expected = module(**given)
    for program in (
        torch.export.export(module, (), few, dynamic_shapes=shapes).module(),
        torch.jit.trace(module, example_kwarg_inputs=few),
    ):
        assert_allclose(program(**few), expected[:64], rtol=1e-9)
        # Near duplicates among these take another way than those.
        assert_allclose(program(**some(given, slice(400, 601))), expected[400:601], rtol=1e-9)


@pytest.mark.parametrize("name", ["knn", "fdbd", "relative_mahalanobis", "vim"])
def test_the_callers_settings_have_no_say(name, network):
    expected = fitted(name, network).score(network[2])
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            score = fitted(name, network)
            found = score.score(network[2])
    finally:
        torch.set_default_dtype(torch.float32)
    assert_array_equal(found, expected)
    # Learnt in inference mode, it has gradients later.
    test = tensors(network[2])
    test["features"].requires_grad_()
    score.to_torch()(**test).sum().backward()
    assert test["features"].grad.isfinite().all()


# --------------------------------------------------------------------------------------------------------- temperature


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_find_temperature(temperature):
    rng = np.random.default_rng(0)
    calibrated = rng.normal(scale=2, size=(5000, 4))
    # The largest of logits plus Gumbel noise is a draw from the softmax.
    codes = (calibrated + rng.gumbel(size=calibrated.shape)).argmax(1)
    assert find_temperature(temperature * calibrated, codes) == pytest.approx(temperature, rel=0.05)
    assert isinstance(find_temperature([[1.0, 0.0], [0.0, 1.0]], [0, 1]), float)


def test_find_temperature_stays_in_bounds():
    f, codes = 1e6 * np.eye(3), np.arange(3)
    for logits in (f, -f, 0 * f, np.zeros((3, 1))):
        assert exp(-5) <= find_temperature(logits, codes % logits.shape[1]) <= exp(5)
    assert find_temperature(np.eye(3), codes) < exp(-4)
    assert find_temperature(-np.eye(3), codes) > exp(4)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([1, 2, 3], r"codes holds 3 in row 2, .* an integer from 0 to 2\. .* np\.searchsorted\(classes, y\)"),
        ([0, -1, 2], "codes holds -1 in row 1"),
        (["a", "b", "c"], "codes holds 'a' in row 0"),
        ([0.0, 1.0, 2.0], "codes holds 0.0 in row 0"),
        ([0, 1], r"codes has shape \(2,\), but there are 3 rows"),
    ],
)
def test_codes_are_numbers_of_columns(codes, message):
    f = np.eye(3)
    for function in (find_temperature, scores.learn_openmax, lambda f, codes: scores.learn_she(f, f, codes)):
        with pytest.raises(ValueError, match=message):
            function(f, codes)
        function(f, np.arange(3, dtype=np.uint8))


@pytest.mark.parametrize("mask", [np.zeros((3, 3), bool), np.ones((3, 2), bool), np.eye(3)])
def test_a_mask_of_codes_names_a_column_for_each_row(mask):
    with pytest.raises(ValueError, match="codes of 2 dimensions must be a mask of bool"):
        find_temperature(np.eye(3), mask)


# -------------------------------------------------------------------------------------------------------- FittedScore


def test_registry():
    assert list(METHODS) == [
        "msp",
        "odin",
        "max_logit",
        "energy",
        "entropy",
        "gen",
        "knn",
        "mahalanobis",
        "relative_mahalanobis",
        "mahalanobis_pp",
        "relative_mahalanobis_pp",
        "fdbd",
        "vim",
        "react",
        "ash_p",
        "ash_b",
        "ash_s",
        "scale",
        "vra",
        "dice",
        "gradnorm",
        "she",
        "nnguide",
        "nci",
        "openmax",
        "gram",
        "kl_matching",
        "rotation",
    ]
    for name, method in METHODS.items():
        log_odds = "_log_odds" if name in ("msp", "odin") else ""
        assert method.score is getattr(scores, name + log_odds)
        assert set(method.needs) <= {"logits", "features", "weight", "bias", "rotation_logits", "gradient"}
        assert (method.learn is None) == (method.learns_from == ())
        score = FittedScore(name)
        assert (score.needs, score.learns_from) == (method.needs, method.learns_from)


@pytest.mark.parametrize("name", ["nonsense", "", None, ["msp"]])
def test_unknown_score(name):
    with pytest.raises(ValueError, match=r"there is no score .*'msp', 'odin'.*'rotation'"):
        FittedScore(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("msp", {"temperature": 2.0}, "'msp' has no option 'temperature'; it has no options"),
        ("knn", {"k": 2}, "it has options 'n_neighbors'"),
        ("knn", {"train_features": 2}, "it has options 'n_neighbors'"),
        ("react", {"n_neighbors": 2}, "it has options 'quantile', 'temperature'"),
        ("knn", {"n_neighbors": 0}, "n_neighbors=0 of 'knn' must be"),
        ("knn", {"n_neighbors": 2.0}, "n_neighbors=2.0"),
        ("knn", {"n_neighbors": True}, "n_neighbors=True"),
        ("energy", {"temperature": 0}, "temperature=0"),
        ("energy", {"temperature": np.inf}, "temperature=inf"),
        ("energy", {"temperature": np.nan}, "temperature=nan"),
        ("odin", {"temperature": -1.0}, "temperature=-1.0"),
        ("odin", {"epsilon": -1e-9}, "epsilon=-1e-09"),
        ("odin", {"epsilon": "small"}, "epsilon='small'"),
        ("odin", {"std": [0.2, 0.0]}, r"std=\[0.2, 0.0\] of 'odin' must be a positive number or a sequence of them"),
        ("odin", {"std": "0.2"}, "std='0.2'"),
        ("odin", {"std": [0.2, np.nan]}, "std="),
        ("mahalanobis", {"std": 0.2}, "std of 'mahalanobis' has no effect without epsilon"),
        ("nci", {"alpha": -1.0}, "alpha=-1.0"),
        ("gram", {"n_powers": 0}, "n_powers=0"),
        ("openmax", {"n_tail": 0}, "n_tail=0"),
        ("vra", {"low_quantile": 1.0}, "low_quantile=1.0"),
        ("react", {"quantile": 1.0}, "quantile=1.0"),
        ("react", {"quantile": 0.0}, "quantile=0.0"),
        ("gen", {"gamma": 0.0}, "gamma=0.0"),
        ("gen", {"gamma": 1.1}, "gamma=1.1"),
        ("gen", {"n_top": 0}, "n_top=0"),
        ("vim", {"n_components": 0}, "n_components=0"),
    ],
)
def test_options_that_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        FittedScore(name, options)


def test_options_that_are_allowed():
    assert FittedScore("odin").options == {"temperature": 1000.0, "epsilon": 5e-5, "std": None}
    assert FittedScore("odin", {"epsilon": 0}).options == {"temperature": 1000.0, "epsilon": 0, "std": None}
    assert FittedScore("odin", {"std": [0.2, 0.3]}).options["std"] == [0.2, 0.3]
    assert FittedScore("mahalanobis").options == {"sizes": None, "weights": None, "epsilon": 0.0, "std": None}
    moves = {name: FittedScore(name, {"epsilon": 0.1}).moves_rows for name in ("mahalanobis", "mahalanobis_pp", "odin")}
    assert moves == {"mahalanobis": True, "mahalanobis_pp": True, "odin": False}
    assert FittedScore("vim", {"n_components": None}).options == {"n_components": None}
    assert FittedScore("gen", {"gamma": 1, "n_top": np.int64(1)}).options["n_top"] == 1
    given = {"n_neighbors": 3}
    score = FittedScore("knn", given)
    given["n_neighbors"] = 7
    assert score.options == {"n_neighbors": 3}


def test_misuse(network):
    with pytest.raises(NotFittedError, match="call learn first"):
        FittedScore("knn").score(network[2])
    with pytest.raises(TypeError, match=r"call skood\.scores\.odin_log_odds"):
        fitted("odin", network).score(network[2])
    with pytest.raises(NotFittedError, match="call learn first"):
        FittedScore("knn").to_torch()
    with pytest.raises(TypeError, match=r"call skood\.scores\.odin_log_odds"):
        fitted("odin", network).to_torch()


@pytest.mark.parametrize("name", METHODS)
def test_pickle_and_refit(name, network):
    train, codes, test = network
    score = FittedScore(name)
    assert score.learnt == {}
    assert score.learn(train, codes) is score
    assert (score.learnt == {}) == (METHODS[name].learn is None)
    pickled = pickle.dumps(score)
    # The module is not in it.
    assert len(pickled) < len(pickle.dumps((score.name, score.options, score.learnt))) + 200
    copy = pickle.loads(pickled)
    assert (copy.name, copy.options, copy.needs) == (score.name, score.options, score.needs)
    if name != "odin":
        expected = score.score(test)
        assert_array_equal(copy.score(test), expected)
        assert_array_equal(copy.learn(train, codes).score(test), expected)


def test_mahalanobis_of_several_layers_is_their_sum():
    """Worked out by hand: two layers of 1 and 2 features, precisions 2 and 1, a mean for each of two classes."""
    means = [[0.0, 1.0, 0.0], [4.0, 0.0, 0.0]]
    precision = np.diag([2.0, 1.0, 1.0])
    row = [[1.0, 1.0, 2.0]]
    # Layer 1: min(2 * 1, 2 * 9) = 2; layer 2: min(0 + 4, 1 + 4) = 4.
    assert_allclose(scores.mahalanobis(row, means, precision, sizes=[1, 2]), [-6.0])
    assert_allclose(scores.mahalanobis(row, means, precision, sizes=[1, 2], weights=[3.0, 0.5]), [-8.0])
    # As one layer the class is the same for all features.
    assert_allclose(scores.mahalanobis(row, means, precision), [-6.0])
    assert_allclose(scores.mahalanobis([[3.0, 1.0, 2.0]], means, precision), [-7.0])
    assert_allclose(scores.mahalanobis([[3.0, 1.0, 2.0]], means, precision, sizes=[1, 2]), [-6.0])
    with pytest.raises(ValueError, match="add up to 2, but there are 3 features"):
        scores.mahalanobis(row, means, precision, sizes=[1, 1])


def test_layers_are_learnt_by_themselves():
    rng = np.random.default_rng(0)
    first, second, codes = rng.normal(size=(50, 2)), 9 * rng.normal(size=(50, 3)), np.arange(50) % 2
    second[:, 0] += first[:, 0]
    for learn in (scores.learn_mahalanobis, scores.learn_mahalanobis_pp):
        both = learn(np.hstack([first, second]), codes, sizes=[2, 3])
        parts = [learn(part, codes) for part in (first, second)]
        assert_allclose(both["means"], np.hstack([part["means"] for part in parts]))
        assert_allclose(both["precision"][:2, :2], parts[0]["precision"])
        assert_allclose(both["precision"][2:, 2:], parts[1]["precision"])
        assert_array_equal(both["precision"][:2, 2:], 0)


@pytest.mark.parametrize("constant", [5.0, 1.0, 0.1, 0.0, -1e9])
def test_a_layer_that_scores_all_rows_the_same_has_no_weight(constant):
    rng = np.random.default_rng(0)
    inliers, outliers = rng.normal(size=(50, 1)), rng.normal(-3, 1, size=(60, 1))
    alone = scores.layer_weights(inliers, outliers)
    beside = [np.column_stack([one, np.full(len(one), constant)]) for one in (inliers, outliers)]
    assert_allclose(scores.layer_weights(*beside), [alone[0], 0.0], rtol=1e-4)


def test_layer_weights_do_not_depend_on_the_level_of_scores():
    rng = np.random.default_rng(0)
    inliers, outliers = rng.normal(size=(50, 2)), rng.normal(-2, 1, size=(50, 2))
    weights = scores.layer_weights(inliers, outliers)
    assert (weights > 1).all()
    shift = np.array([0.0, 1e4])
    assert_allclose(scores.layer_weights(inliers + shift, outliers + shift), weights, rtol=1e-3)


def test_layer_weights_favour_the_layer_that_detects():
    rng = np.random.default_rng(0)
    inliers = np.column_stack([rng.normal(size=200), 1000 * rng.normal(size=200)])
    outliers = inliers - [3.0, 0.0]
    weights = scores.layer_weights(inliers, outliers)
    spread = np.abs(weights) * np.concatenate([inliers, outliers]).std(0)
    assert weights[0] > 0
    assert spread[0] > 20 * spread[1]
    # In other units the same rows get the same sum.
    scaled = scores.layer_weights(inliers * [1e-3, 1.0], outliers * [1e-3, 1.0])
    assert_allclose(scaled * [1e-3, 1.0], weights, rtol=1e-3)
    with pytest.raises(ValueError, match="inlier_scores has 2 layers and outlier_scores 1"):
        scores.layer_weights(inliers, outliers[:, :1])


@pytest.mark.parametrize("name", ["inlier_scores", "outlier_scores"])
@pytest.mark.parametrize(
    "wrong", [[1.0, 2.0], np.empty((0, 2)), [[1.0, np.nan]], 3.0], ids=["row", "none", "nan", "one"]
)
def test_layer_weights_name_what_is_no_matrix(name, wrong):
    given = {"inlier_scores": [[1.0, 2.0]], "outlier_scores": [[0.0, 1.0]]} | {name: wrong}
    with pytest.raises(ValueError, match=f"{name}.*(n_samples, n_layers|NaN)|NaN.*{name}|{name} contains NaN"):
        scores.layer_weights(**given)


def _takes_responses():
    """Return the public functions of responses, each with the names of those that it must be given."""
    rng = np.random.default_rng(0)
    given = responses_to(np.abs(rng.normal(size=(20, 6))), rng.normal(size=(3, 6)), np.zeros(3), rng)
    given |= {"codes": given["logits"].argmax(1), "train_features": given["features"], "center": np.zeros(6)}
    found = {}
    functions = {name: getattr(scores, name) for name in scores.__all__}
    for name, function in functions.items():
        if not inspect.isfunction(function):
            continue
        needed = [one.name for one in inspect.signature(function).parameters.values() if one.default is one.empty]
        if given.keys() >= set(needed):
            found[name] = function, {one: given[one] for one in needed}
    return found


TAKE_RESPONSES = _takes_responses()


@pytest.mark.parametrize("name", TAKE_RESPONSES)
def test_a_row_in_place_of_a_matrix_is_named(name):
    function, given = TAKE_RESPONSES[name]
    for response in given.keys() & {"logits", "features", "rotation_logits", "weight", "train_features"}:
        wrong = given[response][0]
        with pytest.raises(ValueError, match=rf"{response} has shape \({wrong.shape[0]}, ?.*\); it must be \(n_"):
            function(**given | {response: wrong})
    if name.startswith("learn") and "codes" in given:
        with pytest.raises(ValueError, match=r"codes has shape \(3,\), but there are 20 rows"):
            function(**given | {"codes": given["codes"][:3]})
