"""Drawn images of shapes: each factor changes the images in the way that the docstring says, and in no other."""

import numpy as np
import pandas as pd
import pytest

from skood.datasets import make_shapes

VALUES = {
    "object_color": ["white", "green", "red", "blue", "brown", "olive"],
    "object_shape": ["triangle", "square", "diamond", "circle", "cross", "ring"],
    "object_size": ["small", "large"],
    "camera_height": ["top", "center", "bottom"],
    "background_color": ["purple", "sea green", "salmon"],
}


def covered(n=20, size=32, **fixed):
    """Return which share of each pixel the object covers: white less red is (45, 235, 235), whatever lies behind."""
    white, red = (
        make_shapes(n, fixed={**fixed, "object_color": color}, image_size=size, random_state=0).X.astype(float)
        for color in ("white", "red")
    )
    shares = (white - red)[:, 1] / 235
    np.testing.assert_allclose((white - red)[:, 0], 45 * shares, atol=1)
    return shares


def changed(**values):
    """Return whether each pixel, of 20 images, differs between two values of a factor."""
    ((name, (one, other)),) = values.items()
    first, second = (make_shapes(20, fixed={name: value}, random_state=0).X for value in (one, other))
    return (first != second).any(axis=1)


def test_images_and_factors():
    data = make_shapes(60, image_size=24, random_state=0)
    assert data.X.shape == (60, 3, 24, 24)
    assert data.X.dtype == np.uint8
    assert list(data.factors) == [*VALUES, "horizontal", "vertical"]
    for name, values in VALUES.items():
        assert set(data.factors[name]) == set(values)
    for name in ("horizontal", "vertical"):
        assert data.factors[name].dtype == np.float64
        assert data.factors[name].between(0.28, 0.72).all()
        assert data.factors[name].nunique() == 60
    assert make_shapes().X.shape == (100, 3, 32, 32)


def test_random_state():
    one, same, other = (make_shapes(30, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.X, same.X)
    pd.testing.assert_frame_equal(one.factors, same.factors)
    assert (one.X != other.X).any()
    np.testing.assert_array_equal(make_shapes(30, random_state=np.random.RandomState(0)).X, one.X)


def test_images_depend_on_factors_alone():
    """Whole tables of factors can be drawn again, in another order and in blocks of another size."""
    data = make_shapes(300, random_state=0)
    order = np.random.default_rng(0).permutation(300)[:200]
    again = make_shapes(200, fixed=dict(data.factors.iloc[order]), random_state=5)
    np.testing.assert_array_equal(again.X, data.X[order])


@pytest.mark.parametrize("shape", VALUES["object_shape"])
@pytest.mark.parametrize("size", [32, 33, 64])
def test_area_and_place_of_an_object(shape, size):
    for name, area in (("small", 0.05), ("large", 0.1)):
        shares = covered(size=size, object_shape=shape, object_size=name)
        # Points are a quarter of a pixel apart, so that edges are at most an eighth of a pixel off.
        np.testing.assert_allclose(shares.mean((1, 2)), area, rtol=0.08)
        np.testing.assert_allclose(shares.mean(), area, rtol=0.015)
        factors = make_shapes(20, fixed={"object_shape": shape}, random_state=0).factors
        middle = np.arange(size) + 0.5
        for axis, position in ((1, "horizontal"), (2, "vertical")):
            mass = (shares.sum(axis) * middle).sum(1) / shares.sum((1, 2))
            np.testing.assert_allclose(mass, size * factors[position], atol=0.126)


def test_shapes_look_different():
    """Of a square, a diamond, ...: the middle, and how far each reaches upwards, to the right and diagonally."""
    at = {"horizontal": 0.5, "vertical": 0.5, "object_size": "large"}
    found = {}
    for shape in VALUES["object_shape"]:
        share = covered(1, 100, object_shape=shape, **at)[0]
        diagonal = share[np.arange(50, 100), np.arange(50, 100)].sum() * np.sqrt(2)
        found[shape] = [share[50, 50], share[:50, 50].sum(), share[50:, 50].sum(), share[50, 50:].sum(), diagonal]
    side = 100 * np.sqrt(0.1)
    expected = {
        "triangle": [1, 0.8774, 0.4387, 0.5065, 0.6204],
        "square": [1, 0.5, 0.5, 0.5, 0.7071],
        "diamond": [1, 0.7071, 0.7071, 0.7071, 0.5],
        "circle": [1, 0.5642, 0.5642, 0.5642, 0.5642],
        "cross": [1, 0.6708, 0.6708, 0.6708, 0.3162],
        "ring": [0, 0.3257, 0.3257, 0.3257, 0.3257],
    }
    for shape, (middle, *reaches) in expected.items():
        assert found[shape][0] == middle
        np.testing.assert_allclose(found[shape][1:], side * np.array(reaches), atol=1.5, err_msg=shape)


def test_the_colour_of_an_object_changes_its_pixels_alone():
    shares = covered()
    np.testing.assert_array_equal(changed(object_color=("blue", "olive")), shares > 0)
    white = make_shapes(20, fixed={"object_color": "white"}, random_state=0).X
    assert (white.transpose(1, 0, 2, 3)[:, shares == 1] == 255).all()


def test_the_colour_of_the_background_changes_all_other_pixels():
    np.testing.assert_array_equal(changed(background_color=("purple", "salmon")), covered() < 1)
    X = make_shapes(20, fixed={"background_color": "salmon", "camera_height": "bottom"}, random_state=0).X
    assert X[:, :, 0, 0].tolist() == [[250, 128, 114]] * 20
    assert X[:, :, -1, -1].tolist() == [[150, 77, 68]] * 20


def test_the_camera_moves_the_horizon():
    before = {"object_size": "small", "horizontal": 0.28, "vertical": 0.5}
    for name, rows in (("top", 8), ("center", 16), ("bottom", 24)):
        X = make_shapes(5, fixed={**before, "camera_height": name}, random_state=0).X
        corner = X[:, :, :, -1].astype(int)
        assert (corner[:, :, :rows] == corner[:, :, :1]).all()
        assert (corner[:, :, rows:] == corner[:, :, -1:]).all()
        assert (corner[:, :, 0] > corner[:, :, -1]).all()
    # Between a quarter and half of the height.
    rows = changed(camera_height=("top", "center")).any((0, 2))
    np.testing.assert_array_equal(rows, np.isin(np.arange(32), range(8, 16)))


def test_a_horizon_between_pixels_is_mixed():
    (image,) = make_shapes(1, fixed={"camera_height": "top", "background_color": "salmon"}, image_size=10).X
    # 2.5 rows of wall: the third row is half wall and half floor, .8 times as bright as the wall.
    assert image[0, :5, 0].tolist() == [250, 250, 200, 150, 150]


def test_a_fixed_factor_leaves_the_others_as_they_are():
    free = make_shapes(40, random_state=0).factors
    fixed = make_shapes(40, fixed={"object_shape": "ring", "vertical": 0.5}, random_state=0).factors
    assert (fixed["object_shape"] == "ring").all()
    assert (fixed["vertical"] == 0.5).all()
    rest = [name for name in free if name not in ("object_shape", "vertical")]
    pd.testing.assert_frame_equal(free[rest], fixed[rest])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_samples": 0}, "n_samples=0 must be an integer of 1 or more"),
        ({"n_samples": 2.5}, r"n_samples=2\.5 must be an integer"),
        ({"n_samples": True}, "n_samples=True must be an integer"),
        ({"image_size": 7}, "image_size=7 must be an integer of 8 or more"),
        ({"fixed": {"color": "red"}}, "fixed names 'color'; the factors are 'object_color', 'object_shape'"),
        ({"fixed": {"object_color": "pink"}}, r"fixed\['object_color'\] holds 'pink'; choose of 'white', 'green'"),
        ({"fixed": {"object_shape": 1}}, r"fixed\['object_shape'\] holds 1; choose of 'triangle'"),
        ({"fixed": {"vertical": 0.9}}, r"fixed\['vertical'\] must hold numbers from 0\.28 to 0\.72"),
        ({"fixed": {"vertical": "top"}}, r"fixed\['vertical'\] must hold numbers"),
        ({"fixed": {"horizontal": [0.5, 0.6]}}, r"fixed\['horizontal'\] has shape \(2,\); give one value, or one for"),
        ({"fixed": {"horizontal": [np.nan] * 100}}, r"fixed\['horizontal'\] must hold numbers"),
    ],
)
def test_parameters_that_are_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        make_shapes(**wrong)
