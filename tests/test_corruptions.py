"""The fifteen corruptions: figures worked out by hand, statistics of the noises, and what holds for all of them."""

import inspect
import io
import pickle
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.signal import fftconvolve

from skood.corruptions import CORRUPTIONS, base, corrupt

needs_pillow = pytest.mark.skipif(find_spec("PIL") is None, reason="Pillow is not installed")
NAMES = [pytest.param(name, marks=needs_pillow if name == "jpeg_compression" else ()) for name in CORRUPTIONS]
NOISES = {"gaussian_noise", "shot_noise", "impulse_noise"}
WITHOUT_CHANCE = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
any_corruption = pytest.mark.parametrize("name", NAMES)
any_severity = pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])


def for_each_severity(name, *constants):
    return pytest.mark.parametrize(("severity", name), list(enumerate(constants, 1)))


def plain(value, shape=(1, 1, 32, 32)):
    return np.full(shape, value, dtype=np.uint8)


def point(value=255, side=32):
    """One bright pixel in the middle."""
    image = plain(0, (1, 1, side, side))
    image[0, 0, side // 2, side // 2] = value
    return image


def smooth(n=3, n_channels=3, height=32, width=32, seed=0):
    """Images with structure of several pixels, as photographs have."""
    noise = np.random.default_rng(seed).normal(size=(n, n_channels, height, width))
    noise = ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    noise = (noise - noise.min((2, 3), keepdims=True)) / np.ptp(noise, axis=(2, 3), keepdims=True)
    return np.rint(255 * noise).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------- what all keep


def test_the_order_of_the_papers_tables():
    assert list(CORRUPTIONS) == [
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    ]
    for name, function in CORRUPTIONS.items():
        assert function.__name__ == name
        assert list(inspect.signature(function).parameters) == ["X", "severity", "random_state"]
        assert pickle.loads(pickle.dumps(function)) is function


@any_corruption
@settings(max_examples=12)
@given(
    n=st.integers(1, 3),
    n_channels=st.sampled_from([1, 3]),
    height=st.integers(8, 50),
    width=st.integers(8, 50),
    severity=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_any_size(name, n, n_channels, height, width, severity, seed):
    X = np.random.default_rng(seed).integers(0, 256, (n, n_channels, height, width), dtype=np.uint8)
    before = X.copy()
    corrupted = corrupt(X, name, severity, random_state=seed)
    assert corrupted.shape == X.shape
    assert corrupted.dtype == np.uint8
    assert np.array_equal(X, before)
    assert np.array_equal(corrupt(X, name, severity, random_state=seed), corrupted)


@any_corruption
@any_severity
def test_an_image_depends_on_its_place_and_the_seed_alone(name, severity, monkeypatch):
    X = smooth(5)
    whole = corrupt(X, name, severity, random_state=7)
    assert np.array_equal(corrupt(X[:2], name, severity, random_state=7), whole[:2])
    others = np.concatenate([255 - X[:2], X[2:]])
    assert np.array_equal(corrupt(others, name, severity, random_state=7)[2:], whole[2:])
    # What is done chunk by chunk is the same.
    monkeypatch.setattr(base, "_VALUES_PER_CHUNK", 2 * X[0].size)
    assert np.array_equal(corrupt(X, name, severity, random_state=7), whole)


@any_corruption
def test_seeds(name):
    X = np.repeat(smooth(1), 2, axis=0)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = (corrupt(X, name, 4, random_state=seed) for seed in (0, 1))
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert np.array_equal(one, other) == (name in WITHOUT_CHANCE)
    assert np.array_equal(one[0], one[1]) == (name in WITHOUT_CHANCE)
    generator = np.random.RandomState(0)
    assert np.array_equal(corrupt(X, name, 4, random_state=generator), one)
    assert np.array_equal(corrupt(X, name, 4, random_state=generator), one) == (name in WITHOUT_CHANCE)


@any_corruption
def test_a_grey_image_is_a_color_image_of_three_such_channels(name):
    grey = smooth(2, 1)
    one, three = corrupt(grey, name, 4, random_state=0), corrupt(grey.repeat(3, 1), name, 4, random_state=0)
    if name in NOISES:
        assert not np.array_equal(three[:, 0], three[:, 1])
    else:
        # The transform to luminance and back costs JPEG a grey level or two.
        assert np.abs(three.astype(int) - one).max() <= (2 if name == "jpeg_compression" else 0)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 31), (16, 16), (28, 28), (96, 97), (130, 224)])
@any_severity
def test_snow_on_grey_images_is_that_on_three_such_channels_whatever_the_size(height, width, severity):
    grey = np.random.default_rng(0).integers(0, 256, (1, 1, height, width), dtype=np.uint8)
    three = corrupt(grey.repeat(3, 1), "snow", severity, random_state=0)
    assert (three == corrupt(grey, "snow", severity, random_state=0)).all()


@any_corruption
@pytest.mark.parametrize("side", [8, 9, 28])
def test_no_severity_leaves_small_images_as_they_are(name, side):
    X = np.random.default_rng(0).integers(0, 256, (2, 1, side, side), dtype=np.uint8)
    for severity in range(1, 6):
        assert not np.array_equal(corrupt(X, name, severity, random_state=0), X)


@any_corruption
def test_severities_grow(data_home, name):
    images = np.load(data_home / "images" / "cifar10_test_500perclass.npz")["X"][::50]
    away = [np.abs(corrupt(images, name, s, random_state=0).astype(float) - images).mean() for s in range(1, 6)]
    assert away[0] > 1
    # Of elastic distortions the mildest are those that move most, if evenly.
    assert away[4] > 1.2 * away[0] or name == "elastic_transform"
    # Severities 3 to 5 trade one thing for another: blur for rounds of glass, the image for ice.
    assert away == sorted(away) or name in {"glass_blur", "frost", "elastic_transform"}


# --------------------------------------------------------------------------------------------------------------- noise


@for_each_severity("deviation", 0.04, 0.06, 0.08, 0.09, 0.10)
def test_gaussian_noise(severity, deviation):
    noise = corrupt(plain(128, (10, 3, 32, 32)), "gaussian_noise", severity, random_state=0) - 128.0
    # The mean of 30720 values, and rounding to whole levels, whose variance is 1/12.
    assert abs(noise.mean()) < 4 * 255 * deviation / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(np.hypot(255 * deviation, np.sqrt(1 / 12)), rel=0.02)


@for_each_severity("photons", 500, 250, 100, 75, 50)
def test_shot_noise_has_the_variance_of_counts(severity, photons):
    for value in (40, 120):
        noise = corrupt(plain(value, (10, 3, 32, 32)), "shot_noise", severity, random_state=0) - float(value)
        deviation = 255 * np.sqrt(value / 255 / photons)
        # A whole number of photons is no whole number of levels, which rounding may move by half a level.
        assert abs(noise.mean()) < 4 * deviation / np.sqrt(noise.size) + 0.5
        assert noise.std() == pytest.approx(deviation, rel=0.03)
    assert (corrupt(plain(0), "shot_noise", severity) == 0).all()


@for_each_severity("share", 0.01, 0.02, 0.03, 0.05, 0.07)
def test_impulse_noise(severity, share):
    noisy = corrupt(plain(128, (20, 3, 32, 32)), "impulse_noise", severity, random_state=0)
    assert set(np.unique(noisy)) == {0, 128, 255}
    for extreme in (0, 255):
        assert (noisy == extreme).mean() == pytest.approx(share / 2, rel=0.2)


# ---------------------------------------------------------------------------------------------------------------- blur


def test_defocus_by_hand():
    """A point becomes a disk of five pixels at severity 4, of nine at 5; smoothing by 0.2 and 0.1 pixels is nothing."""
    cross = corrupt(point(), "defocus_blur", 4)[0, 0, 14:19, 14:19]
    assert cross.tolist() == [[0] * 5, [0, 0, 51, 0, 0], [0, 51, 51, 51, 0], [0, 0, 51, 0, 0], [0] * 5]
    square = corrupt(point(), "defocus_blur", 5)[0, 0, 14:19, 14:19]
    assert square.tolist() == [[0] * 5, *[[0, 28, 28, 28, 0]] * 3, [0] * 5]


@pytest.mark.parametrize(("severity", "weight"), [(1, 0.0439369), (2, 0.1353353), (3, 0.2493522)])
def test_defocus_of_less_than_a_pixel(severity, weight):
    """The disk is a pixel, smoothed by 0.4, 0.5 and 0.6: exp(-1 / (2 * 0.4 ** 2)) = 0.0439 to each side."""
    row = np.array([weight, 1, weight]) / (1 + 2 * weight) ** 2
    assert corrupt(point(side=32), "defocus_blur", severity)[0, 0, 16, 15:18].tolist() == np.rint(255 * row).tolist()


@pytest.mark.parametrize(
    ("side", "brightness", "expected"),
    [
        # At half the size the four outer pixels of the cross, a fifth each, lie half a pixel away.
        (16, 250, [25, 150, 25]),
        (48, 200, [30, 80, 30]),
    ],
)
def test_defocus_of_smaller_images_by_hand(side, brightness, expected):
    """The published cross of five pixels shrinks; it never becomes a single pixel."""
    image, middle = point(brightness, side), side // 2
    blurred = corrupt(image, "defocus_blur", 4 if side < 46 else 2)[0, 0]
    assert blurred[middle, middle - 1 : middle + 2].tolist() == expected
    assert blurred[middle - 1 : middle + 2, middle].tolist() == expected
    assert blurred.sum() == expected[1] + 4 * expected[0]


def test_defocus_of_larger_images_by_hand():
    """At 5/4 of the size, of the columns' weights .2, .6 and .2, each falls on a strip of 5/4 pixels."""
    image = plain(0, (1, 1, 40, 40))
    image[..., 20] = 200
    blurred = corrupt(image, "defocus_blur", 4)[0, 0]
    assert blurred[:, 18:23].tolist() == [[12, 40, 96, 40, 12]] * 40


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur"])
@pytest.mark.parametrize("side", [*range(8, 32), 40, 45, 46, 48, 56, 63, 80, 90, 119])
def test_severities_of_blurs_grow_at_any_size(name, side):
    noise = np.random.default_rng(0).integers(0, 256, (2, 1, side, side), dtype=np.uint8)
    for X in (noise, smooth(2, 1, side, side)):
        away = [np.abs(corrupt(X, name, s, random_state=0) - X.astype(float)).mean() for s in range(1, 6)]
        assert away == sorted(away)
        assert away[0] > 0


@any_severity
def test_blurs_of_larger_images_are_wider(severity):
    for name in ("defocus_blur", "motion_blur", "zoom_blur"):
        spreads = []
        for side in (32, 128):
            image = plain(0, (1, 1, side, side))
            # A zoom leaves the middle sharp.
            image[..., 3 * side // 4 :] = 255
            blurred = corrupt(image, name, severity, random_state=0)[0, 0, side // 2]
            spreads.append(((blurred > 12) & (blurred < 243)).sum())
        assert spreads[1] > spreads[0]


def test_motion_by_hand():
    """Half a Gaussian of one pixel along a line: 1, exp(-1/2), exp(-2), exp(-9/2) and so on, over their sum."""
    blurred = corrupt(point(side=32), "motion_blur", 1, random_state=0)[0, 0]
    assert sorted(blurred[blurred > 0], reverse=True) == [145, 88, 20, 2]
    rows, columns = np.nonzero(blurred)
    assert np.ptp(columns) == 3
    assert np.ptp(rows) <= 3


@for_each_severity("sigma", 1, 1.5, 2, 2, 2.5)
def test_motion_keeps_a_share_in_place(severity, sigma):
    # The next five sigma hold all but a millionth.
    share = 1 / np.exp(-(np.arange(13) ** 2) / (2 * sigma**2)).sum()
    blurred = corrupt(np.repeat(point(side=32), 5, axis=0), "motion_blur", severity, random_state=0)
    assert blurred[:, 0, 16, 16].tolist() == [round(255 * share)] * 5


def mean_of_enlargements(image, factors):
    """An image of shape (C, side, side) and its enlargements, in grey levels."""
    side, zoomed = image.shape[1], []
    for factor in factors:
        crop = int(np.ceil(side / factor))
        start = (side - crop) // 2
        large = ndimage.zoom(image[:, start : start + crop, start : start + crop], (1, factor, factor), order=1)
        trim = (large.shape[1] - side) // 2
        zoomed.append(large[:, trim : trim + side, trim : trim + side])
    return 255 * np.mean([image, *zoomed], axis=0)


@for_each_severity("end", 1.06, 1.11, 1.16, 1.21, 1.26)
def test_zoom_is_the_mean_of_enlargements(severity, end):
    expected = mean_of_enlargements(smooth(1)[0] / 255, np.arange(1, end, 0.01))
    blurred = corrupt(smooth(1), "zoom_blur", severity)[0]
    assert np.abs(blurred - expected).max() <= 0.5 + 1e-6


def test_glass_moves_pixels_by_one():
    """Each takes its own value or that of the one above, to the left, or both, a quarter each; nothing is blurred."""
    X = smooth(10)
    inner = corrupt(X, "glass_blur", 1, random_state=0)[:, :, 2:, 2:]
    near = [X[:, :, 2 - down : 32 - down, 2 - right : 32 - right] for down in (0, 1) for right in (0, 1)]
    equal = np.array([(inner == pixels).all(1) for pixels in near])
    assert equal.any(0).all()
    # Some neighbors are equal by chance.
    assert ((equal.mean((1, 2, 3)) > 0.23) & (equal.mean((1, 2, 3)) < 0.3)).all()


@pytest.mark.parametrize(
    "name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate", "contrast"]
)
@any_severity
def test_what_leaves_a_plain_image_alone(name, severity):
    assert (corrupt(plain(77, (2, 3, 20, 41)), name, severity, random_state=0) == 77).all()


# ------------------------------------------------------------------------------------------------------------- weather


@for_each_severity("density", 0.2, 0.5, 0.75, 1, 1.5)
def test_fog_spans_clouds_from_none_to_full(severity, density):
    """On a plain image v: (v + density * cloud) * v / (v + density), where the least cloud is 0 and the densest 1."""
    foggy = corrupt(plain(255, (3, 1, 32, 32)), "fog", severity, random_state=0)
    assert foggy.min((1, 2, 3)).tolist() == [round(255 / (1 + density))] * 3
    assert foggy.max((1, 2, 3)).tolist() == [255] * 3
    assert (corrupt(plain(0), "fog", severity) == 0).all()


def test_fog_is_smooth_and_of_one_color():
    foggy = corrupt(plain(255, (5, 3, 32, 32)), "fog", 1, random_state=0).astype(float)
    assert (foggy == foggy[:, :1]).all()
    steps = np.abs(np.diff(foggy[:, 0], axis=2)).mean()
    assert steps < 0.25 * foggy.std()


@any_severity
def test_snow_falls_on_a_whiter_scene(severity):
    """Black becomes 0.5 of (1 - kept), where no flake is; flakes come with their copies upside down."""
    kept = [0.95, 0.9, 0.9, 0.85, 0.8][severity - 1]
    snowy = corrupt(plain(0, (4, 3, 32, 32)), "snow", severity, random_state=0)
    if severity < 4:
        # Later flakes leave hardly any pixel free.
        assert snowy.min() == round(255 * 0.5 * (1 - kept))
    assert (snowy >= np.floor(255 * 0.5 * (1 - kept))).all()
    assert (snowy == snowy[:, :, ::-1, ::-1]).all()
    assert (snowy == snowy[:, :1]).all()
    assert snowy.max() > snowy.min() + 40


def test_snow_falls_down():
    """Trails are steeper than 45 degrees: snow varies less down the image than across it."""
    snowy = corrupt(plain(0, (20, 1, 32, 32)), "snow", 3, random_state=0).astype(float)
    assert np.abs(np.diff(snowy, axis=2)).mean() < 0.8 * np.abs(np.diff(snowy, axis=3)).mean()


@for_each_severity("constants", (1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
def test_frost_is_ice_over_the_image(severity, constants):
    kept, weight = constants
    ice = corrupt(plain(0, (4, 1, 32, 32)), "frost", severity, random_state=0).astype(float)
    assert ice.max() <= 255 * weight + 0.5
    assert ice.std() > 0.1 * 255 * weight
    frosty = corrupt(plain(100, (4, 1, 32, 32)), "frost", severity, random_state=0)
    assert np.abs(frosty - (100 * kept + ice)).max() <= 1


# --------------------------------------------------------------------------------------------------------------- color


def test_brightness_by_hand():
    """Severity 4 adds 0.2, 51 levels, to the largest channel; the others keep their ratio to it."""
    X = np.array([[100, 60, 20], [0, 0, 0], [255, 10, 40], [230, 115, 0]], dtype=np.uint8)
    bright = corrupt(np.tile(X.T[None, :, :, None], (1, 1, 2, 8)), "brightness", 4)[0, :, :4, 0].T
    # 230 + 51 exceeds 255, where the ratios stay all the same: 115 / 230 * 255 = 127.5.
    assert bright[:3].tolist() == [[151, 91, 30], [51, 51, 51], [255, 10, 40]]
    assert bright[3].tolist() in ([255, 127, 0], [255, 128, 0])


@for_each_severity("added", 0.05, 0.1, 0.15, 0.2, 0.3)
def test_brightness_of_grey(severity, added):
    bright = corrupt(plain(100), "brightness", severity)
    assert np.abs(bright - (100 + 255 * added)).max() <= 0.5 + 1e-6


def test_contrast_by_hand():
    """Each channel has its own mean: 100 of 0 and 200, and 60 of 40 and 80."""
    X = plain(0, (1, 3, 8, 8))
    X[0, 0, :, 4:], X[0, 1, :, :4], X[0, 1, :, 4:] = 200, 40, 80
    low = corrupt(X, "contrast", 2)[0, :, 0]
    assert low[:, [0, 7]].tolist() == [[50, 150], [50, 70], [0, 0]]


@for_each_severity("span", [25, 175], [50, 150], [60, 140], [70, 130], [85, 115])
def test_contrast_of_0_and_200(severity, span):
    X = plain(0, (1, 1, 8, 8))
    X[..., 4:] = 200
    assert corrupt(X, "contrast", severity)[0, 0, 0, [0, 7]].tolist() == span


# ------------------------------------------------------------------------------------------------------------- digital


def test_elastic_of_severity_1_is_affine():
    """It moves three points alone: a ramp stays a ramp, up to rounding, where nothing comes from beyond the border."""
    ramp = np.tile(np.arange(32, dtype=np.uint8) * 7, (4, 1, 32, 1))
    moved = corrupt(ramp, "elastic_transform", 1, random_state=0).astype(float)[:, :, 8:24, 8:24]
    for axis in (2, 3):
        assert np.abs(np.diff(moved, 2, axis=axis)).max() <= 2
    assert np.abs(np.diff(moved, axis=2)).max() > 0
    assert np.abs(moved - ramp[:, :, 8:24, 8:24]).max() > 7


def test_elastic_of_severity_5_is_rough():
    ramp = np.tile(np.arange(32, dtype=np.uint8) * 7, (4, 1, 32, 1))
    moved = corrupt(ramp, "elastic_transform", 5, random_state=0).astype(float)[:, :, 8:24, 8:24]
    assert np.abs(np.diff(moved, 2, axis=3)).max() > 4


def test_pixelate_by_hand():
    """Eight pixels in five blocks: 0 1 | 2 | 3 4 | 5 | 6 7."""
    X = np.tile(np.arange(10, 90, 10, dtype=np.uint8), (1, 1, 8, 1))
    assert corrupt(X, "pixelate", 5)[0, 0, 0].tolist() == [15, 15, 30, 45, 45, 60, 75, 75]
    assert corrupt(X.swapaxes(2, 3), "pixelate", 5)[0, 0, :, 0].tolist() == [15, 15, 30, 45, 45, 60, 75, 75]


@needs_pillow
@any_severity
@pytest.mark.parametrize(
    ("side", "shares"),
    [
        (28, [0.95, 0.9, 0.85, 0.75, 0.65]),
        (32, [0.95, 0.9, 0.85, 0.75, 0.65]),
        (96, [0.9, 0.8, 0.7, 0.6, 0.5]),
        (224, [0.6, 0.5, 0.4, 0.3, 0.25]),
    ],
)
def test_pixelate_is_what_pillow_does(severity, side, shares):
    from PIL import Image

    X = smooth(1, 3, side, side)
    small = int(side * shares[severity - 1])
    image = Image.fromarray(X[0].transpose(1, 2, 0))
    image = image.resize((small, small), Image.Resampling.BOX).resize((side, side), Image.Resampling.BOX)
    # Pillow rounds after each of its four passes.
    assert np.abs(np.asarray(image).transpose(2, 0, 1) - corrupt(X, "pixelate", severity)[0].astype(int)).max() <= 1


@needs_pillow
@for_each_severity("quality", 80, 65, 58, 50, 40)
def test_jpeg_is_what_pillow_does(severity, quality):
    from PIL import Image

    X = smooth(2, 3, 20, 41)
    for image, compressed in zip(X, corrupt(X, "jpeg_compression", severity), strict=True):
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
        assert np.array_equal(np.asarray(Image.open(file)).transpose(2, 0, 1), compressed)


def test_jpeg_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"needs Pillow: pip install 'skood\[images\]'"):
        corrupt(plain(0), "jpeg_compression")


# -------------------------------------------------------------------------------------------------------- larger images


@pytest.mark.parametrize(("side", "deviation"), [(45, 0.10), (46, 0.18), (119, 0.18), (120, 0.38)])
def test_the_shorter_side_decides_whose_constants_are_taken(side, deviation):
    noise = corrupt(plain(128, (1, 3, side, 250)), "gaussian_noise", 5, random_state=0) / 255
    # Noise of 0.38 leaves [0, 1]: of values beyond their distance to 128 only the signs are left.
    inside = np.clip(0.5 + deviation * np.random.default_rng(0).standard_normal(100_000), 0, 1)
    assert noise.std() == pytest.approx(inside.std(), rel=0.03)


LARGE = {
    64: {
        "photons": [250, 100, 50, 30, 15],
        "share": [0.01, 0.02, 0.05, 0.08, 0.14],
        "added": [0.1, 0.2, 0.3, 0.4, 0.5],
        "contrast": [0.4, 0.3, 0.2, 0.1, 0.05],
        "sigma": [1, 1.5, 2, 2.5, 3],
        "disk": [(0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)],
        "density": [0.4, 0.7, 1, 1.5, 2],
        "whitened": [0.8, 0.8, 0.7, 0.65, 0.6],
        "ice": [0.3, 0.4, 0.45, 0.5, 0.55],
        "zooms": [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
        "quality": [65, 58, 50, 40, 25],
    },
    224: {
        "photons": [60, 25, 12, 5, 3],
        "share": [0.03, 0.06, 0.09, 0.17, 0.27],
        "added": [0.1, 0.2, 0.3, 0.4, 0.5],
        "contrast": [0.4, 0.3, 0.2, 0.1, 0.05],
        "sigma": [3, 5, 8, 12, 15],
        "disk": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
        "density": [1.5, 2, 2.5, 2.5, 3],
        "whitened": [0.8, 0.7, 0.7, 0.65, 0.55],
        "ice": [0.4, 0.6, 0.7, 0.7, 0.75],
        "zooms": [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
        "quality": [25, 18, 15, 10, 7],
    },
}


def of_large_images(*names):
    """Each severity of Tiny ImageNet-C, then of ImageNet-C."""
    cases = [
        (side, severity, *values)
        for side, table in LARGE.items()
        for severity, values in enumerate(zip(*(table[name] for name in names), strict=True), start=1)
    ]
    return pytest.mark.parametrize(("side", "severity", *names), cases)


@of_large_images("photons", "share")
def test_noise_of_large_images(side, severity, photons, share):
    dark = corrupt(plain(20, (3, 3, side, side)), "shot_noise", severity, random_state=0).astype(float)
    # Counts of few photons: the variance of their number, and rounding.
    assert dark.std() == pytest.approx(255 * np.sqrt(20 / 255 / photons), rel=0.05)
    noisy = corrupt(plain(128, (3, 3, side, side)), "impulse_noise", severity, random_state=0)
    assert (noisy != 128).mean() == pytest.approx(share, rel=0.15)


@of_large_images("added", "contrast")
def test_color_of_large_images(side, severity, added, contrast):
    bright = corrupt(plain(100, (1, 1, side, side)), "brightness", severity)
    assert np.abs(bright - (100 + 255 * added)).max() <= 0.5 + 1e-6
    X = plain(0, (1, 1, side, side))
    X[..., side // 2 :] = 200
    ends = corrupt(X, "contrast", severity)[0, 0, 0, [0, -1]].tolist()
    assert ends == [round(100 - 100 * contrast), round(100 + 100 * contrast)]


@of_large_images("density", "whitened", "ice")
def test_weather_of_large_images(side, severity, density, whitened, ice):
    foggy = corrupt(plain(255, (1, 1, side, side)), "fog", severity, random_state=0)
    assert foggy.min() == round(255 / (1 + density))
    snowy = corrupt(plain(0, (1, 1, side, side)), "snow", severity, random_state=0)
    assert (snowy >= np.floor(255 * 0.5 * (1 - whitened))).all()
    assert snowy.max() > snowy.min() + 40
    frosty = corrupt(plain(0, (1, 1, side, side)), "frost", severity, random_state=0)
    assert 0.5 * 255 * ice < frosty.max() <= 255 * ice + 0.5


@of_large_images("sigma", "disk")
def test_blurs_of_large_images(side, severity, sigma, disk):
    radius, smoothing = disk
    reach = 1 if radius <= 8 else 2
    image = smooth(1, 1, side, side)
    squares = np.arange(-12, 13) ** 2
    kernel = (squares[:, None] + squares <= radius**2).astype(float)
    kernel = ndimage.gaussian_filter(kernel / kernel.sum(), smoothing, radius=reach)
    wide = np.pad(image[0, 0] / 1.0, 12, mode="reflect")
    expected = fftconvolve(wide, kernel, mode="valid")
    assert np.abs(corrupt(image, "defocus_blur", severity)[0, 0] - expected).max() <= 0.5 + 1e-6
    longest = [21, 31, 31, 31, 41] if side == 224 else [21, 21, 21, 21, 25]
    trail = np.exp(-(np.arange(longest[severity - 1]) ** 2) / (2 * sigma**2))
    share = 255 * trail[0] / trail.sum()
    points = np.repeat(point(side=side), 5, axis=0)
    moved = corrupt(points, "motion_blur", severity, random_state=0)
    assert np.abs(moved[:, 0, side // 2, side // 2] - share).max() <= 0.5 + 1e-6


@of_large_images("zooms")
def test_zooms_of_large_images(side, severity, zooms):
    image = smooth(1, 1, side, side)
    expected = mean_of_enlargements(image[0] / 255, np.arange(1, *zooms))
    assert np.abs(corrupt(image, "zoom_blur", severity)[0] - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0), (3, 0.814)])
def test_elastic_of_large_images(severity, deviation):
    """Smoothed by 171 pixels at severity 1, noise moves all pixels alike.

    At severity 3, noise of 12.2 pixels is smoothed by 2.44: to a deviation of 12.2 / (sqrt(3) * 2 * sqrt(pi) * 2.44).
    """
    ramp = np.tile(np.arange(224, dtype=np.uint8), (2, 1, 224, 1))
    moved = corrupt(ramp, "elastic_transform", severity, random_state=0)[:, 0, 60:164, 60:164].astype(float)
    down, right = np.indices(moved.shape[1:]).reshape(2, -1)
    plane = np.column_stack([down, right, np.ones(len(down))])
    for image in moved.reshape(2, -1):
        rest = image - plane @ np.linalg.lstsq(plane, image, rcond=None)[0]
        # Rounding to whole levels adds a variance of 1/12; linear interpolation smooths a little.
        assert rest.std() == pytest.approx(np.hypot(deviation, np.sqrt(1 / 12)), rel=0.1)


@needs_pillow
@of_large_images("quality")
def test_jpeg_of_large_images(side, severity, quality):
    from PIL import Image

    (image,) = smooth(1, 3, side, side)
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
    assert np.array_equal(corrupt(image[None], "jpeg_compression", severity)[0], expected)


# ------------------------------------------------------------------------------------------------- what chance has made
# Each constant of the corruptions that draw is held by what it does: by figures that follow from it, or by a plain
# simulation, whose random numbers are others.

SIZES = {32: "CIFAR-10-C", 64: "Tiny ImageNet-C", 224: "ImageNet-C"}


def for_each_size(names, **by_side):
    """Each severity of each published size; the constants of a severity are a tuple."""
    cases = [
        (side, severity, *constants)
        for side, five in zip(SIZES, by_side.values(), strict=True)
        for severity, constants in enumerate(five, 1)
    ]
    return pytest.mark.parametrize(("side", "severity", *names.split()), cases)


def ramps(n, side):
    """Images that are as bright as their column in the first channel, and as their row in the second."""
    slope = 255 // (side - 1)
    brightness = np.arange(side, dtype=np.uint8) * slope
    X = np.zeros((n, 3, side, side), np.uint8)
    X[:, 0], X[:, 1] = brightness, brightness[:, None]
    return X, slope


@for_each_size(
    "sigma reach n_rounds",
    cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    tiny=((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    imagenet=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
)
def test_glass(side, severity, sigma, reach, n_rounds):
    """In each round a pixel takes the value of one that lies -reach to reach - 1 further, evenly: half a pixel less.

    The variance of where it comes from is ((2 reach)^2 - 1) / 12 a round, and the blurs leave a part of it.
    """
    n = 4 if side == 224 else 12
    X, slope = ramps(n, side)
    X[:, 2] = np.random.default_rng(1).integers(0, 256, (n, side, side))
    margin = n_rounds * reach + 2 * int(4 * sigma + 0.5) + 2
    inner = np.s_[..., margin:-margin, margin:-margin]
    seen = corrupt(X, "glass_blur", severity, random_state=0).astype(float)
    moved = (seen - X)[inner][:, :2] / slope
    assert moved.mean() == pytest.approx(-n_rounds / 2, abs=0.06)
    # The same, done plainly.
    rng, rows, columns = np.random.default_rng(2), *np.indices((side, side))
    expected = ndimage.gaussian_filter(X.astype(float), (0, 0, sigma, sigma))
    for _ in range(n_rounds):
        for image in expected:
            down, right = rng.integers(-reach, reach, (2, side, side))
            image[:] = image[:, (rows + down).clip(0, side - 1), (columns + right).clip(0, side - 1)]
    if int(4 * sigma + 0.5) == 0:
        variance = n_rounds * ((2 * reach) ** 2 - 1) / 12 + 1 / 12 / slope**2
        assert moved.std() == pytest.approx(np.sqrt(variance), rel=0.03)
    expected = np.rint(ndimage.gaussian_filter(expected, (0, 0, sigma, sigma)))
    assert moved.std() == pytest.approx((expected - X)[inner][:, :2].std() / slope, rel=0.05)
    assert seen[inner][:, 2].std() == pytest.approx(expected[inner][:, 2].std(), rel=0.03)


def mean_squares(clouds, size, level):
    """Mean square, image by image, of what diamond-square has added to the mean of four neighbours at one level.

    Of clouds of which a part is known, in a torus of this size; and of how many points it is the mean.
    """
    whole = np.full((len(clouds), size, size), np.nan)
    whole[:, : clouds.shape[1], : clouds.shape[2]] = clouds
    step = size >> level
    half, added = step // 2, []
    for row in range(0, size, half):
        for column in range(0, size, half):
            places = []
            if row % step and column % step:
                places = [(-half, -half), (-half, half), (half, -half), (half, half)]
            elif row % step or column % step:
                places = [(-half, 0), (half, 0), (0, -half), (0, half)]
            if places:
                around = [whole[:, (row + down) % size, (column + right) % size] for down, right in places]
                added.append(whole[:, row, column] - np.mean(around, axis=0))
    added = np.array([values for values in added if np.isfinite(values).all()])
    return (added**2).mean(0), len(added)


@for_each_size(
    "decay",
    cifar=((3,), (3,), (2.5,), (2,), (1.75,)),
    tiny=((3,), (3,), (2.5,), (2,), (1.75,)),
    imagenet=((2,), (2,), (1.7,), (1.5,), (1.4,)),
)
def test_roughness_of_fog(side, severity, decay):
    """What diamond-square adds is uniform, and smaller by the square of the decay from one level to the next."""
    n, size, level = (40, 256, 1) if side == 224 else (600, side, 0)
    clouds = corrupt(plain(255, (n, 1, side, side)), "fog", severity, random_state=0)[:, 0].astype(float)
    coarse, n_coarse = mean_squares(clouds, size, level)
    fine, n_fine = mean_squares(clouds, size, level + 1)
    # Of numbers that are all of one size the logarithm of the ratio would be this.
    rng = np.random.default_rng(0)
    evenly = [np.log((rng.uniform(-1, 1, (n_points, 20_000)) ** 2).mean(0)).mean() for n_points in (n_fine, n_coarse)]
    found = (evenly[0] - evenly[1] - np.log(fine / coarse).mean()) / 4
    assert found == pytest.approx(np.log(decay), abs=0.04)


def flakes_of(n, side, constants, rng):
    """Draw flakes: normal noise of which the middle is enlarged, cut off below, and smeared downwards."""
    mean, deviation, zoom, threshold, radius, sigma = constants
    reach, crop = 2 * int(np.ceil(radius)), int(np.ceil(side / zoom))
    weights = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma**2))
    first, flakes = (side - crop) // 2, np.zeros((n, side, side))
    for smeared in flakes:
        noise = rng.normal(mean, deviation, (side, side))[first : first + crop, first : first + crop]
        large = ndimage.zoom(noise, zoom, order=1)
        trim = (len(large) - side) // 2
        large = large[trim : trim + side, trim : trim + side]
        wide = np.pad(np.where(large < threshold, 0, large).clip(0, 1), reach, mode="edge")
        angle = np.deg2rad(rng.uniform(-135, -45))
        for step, weight in enumerate(weights / weights.sum()):
            down, right = (reach + int(np.ceil(step * part - 0.5)) for part in (np.sin(angle), np.cos(angle)))
            smeared += weight * wide[down : down + side, right : right + side]
    return flakes


def looks(images):
    """Mean, spread and brightest tenth of images; and how far their pixels differ down and across."""
    differences = [np.abs(images[:, k:] - images[:, :-k]).mean() for k in (1, 4, 8)]
    differences += [np.abs(images[..., k:] - images[..., :-k]).mean() for k in (1, 2)]
    return np.array([images.mean(), images.std(), np.quantile(images, 0.9), *differences])


@for_each_size(
    "mean deviation zoom threshold radius sigma kept",
    cifar=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    tiny=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    ),
    imagenet=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
)
def test_flakes_of_snow(side, severity, mean, deviation, zoom, threshold, radius, sigma, kept):
    """As a plain simulation has them: in number, brightness, and length."""
    n = {32: 400, 64: 120, 224: 16}[side]
    flakes = flakes_of(n, side, (mean, deviation, zoom, threshold, radius, sigma), np.random.default_rng(1))
    expected = (0.5 * (1 - kept) + flakes + flakes[:, ::-1, ::-1]).clip(0, 1)
    seen = corrupt(plain(0, (n, 1, side, side)), "snow", severity, random_state=0)[:, 0] / 255
    found, meant = looks(seen), looks(expected)
    np.testing.assert_allclose(found[:3], meant[:3], rtol=0.04, atol=0.002)
    # The directions in which flakes fall differ by chance, and count here.
    np.testing.assert_allclose(found[3:], meant[3:], rtol=0.065, atol=0.002)


def affine_part(origins, places, side, reach):
    """Fit an affine map to where pixels come from (n, 2, n_places); return it (n, 3, 2) and the pixels it is fitted on.

    Where the map leads out of the image, pixels come from its mirror image, and have no part in the fit.
    """
    design = np.column_stack([*places, np.ones(places.shape[1])])
    near = (np.abs(places - side / 2) < side / 8).all(0)
    maps, inside = [], []
    for origin in origins:
        chosen = near
        for _ in range(2):
            found = np.linalg.lstsq(design[chosen], origin[:, chosen].T, rcond=None)[0]
            source = design @ found
            chosen = ((source > reach + 1) & (source < side - 2 - reach)).all(1)
        maps.append(found)
        inside.append(chosen)
    return np.array(maps), np.array(inside)


@for_each_size(
    "strength sigma reach",
    cifar=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    tiny=((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
    imagenet=((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
)
def test_elastic(side, severity, strength, sigma, reach):
    """Three points move evenly by up to the reach, and the rest is smooth noise, of the deviation that it should have.

    Both are read off ramps, whose brightness says where a pixel comes from.
    """
    published = 244 if side == 224 else side
    strength, sigma, reach = published * strength, published * sigma, published * reach
    n = 10 if side == 224 else 40
    X, slope = ramps(n, side)
    places = np.indices((side, side)).reshape(2, -1)
    seen = corrupt(X, "elastic_transform", severity, random_state=0).astype(float) / slope
    origins = seen[:, [1, 0]].reshape(n, 2, -1)
    rng = np.random.default_rng(1)
    noise = rng.uniform(-1, 1, (n, 2, side, side))
    if sigma:
        kernel = ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, mode="reflect", truncate=3)
        noise = strength * (kernel @ noise @ kernel.T)
    else:
        noise *= strength
    margin = 3 * noise.std() if severity > 1 else 0
    maps, inside = affine_part(origins, places, side, margin)
    center, half = side // 2, side // 3
    points = center + half * np.array([[1, 1], [1, -1], [-1, -1]])
    # The map leads from the moved points to these.
    moves = np.array([(points - one[2]) @ np.linalg.inv(one[:2]) - points for one in maps])
    assert np.sqrt((moves**2).mean()) == pytest.approx(reach / np.sqrt(3), rel=0.15)
    if side == 224:
        # The largest of sixty is close to the reach: close enough to tell 244 from 224.
        assert np.abs(moves).max() == pytest.approx(reach, rel=0.07)
    design = np.column_stack([*places, np.ones(side * side)])
    rests, expected = [], []
    for origin, one, chosen, field in zip(origins, maps, inside, noise.reshape(n, 2, -1), strict=True):
        rests.append((origin.T - design @ one)[chosen] @ np.linalg.inv(one[:2]))
        fitted = np.linalg.lstsq(design[chosen], field[:, chosen].T, rcond=None)[0]
        expected.append((field.T - design @ fitted)[chosen])
    # Brightness is rounded to whole levels.
    deviation = np.hypot(np.concatenate(expected).std(), np.sqrt(1 / 12) / slope)
    assert np.concatenate(rests).std() == pytest.approx(deviation, rel=0.1)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("X", "name", "severity", "message"),
    [
        (np.zeros((2, 3, 8, 8)), "fog", 1, r"X holds float64.*np\.rint\(255 \* X\)\.astype\(np\.uint8\)"),
        (plain(0, (2, 8, 8)), "fog", 1, r"X\[:, None\]"),
        (plain(0, (2, 8, 8, 3)), "fog", 1, r"X\.transpose\(0, 3, 1, 2\)"),
        (plain(0, (2, 192)), "fog", 1, r"X\.reshape\(-1, C, H, W\)"),
        (plain(0, (2, 4, 8, 8)), "fog", 1, "with 1 or 3 channels"),
        (plain(0, (2, 3, 7, 8)), "fog", 1, "8 x 8 or larger"),
        (plain(0, (0, 3, 8, 8)), "fog", 1, "at least one image"),
        (plain(0), "frog", 1, "there is no corruption 'frog'; choose one of 'gaussian_noise', 'shot_noise'"),
        (plain(0), "fog", 0, "severity=0 must be an integer from 1 to 5"),
        (plain(0), "fog", 6, "severity=6"),
        (plain(0), "fog", 2.0, r"severity=2\.0"),
        (plain(0), "fog", True, "severity=True"),
    ],
)
def test_what_cannot_be_corrupted(X, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(X, name, severity)
