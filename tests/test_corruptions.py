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

from skood import corruptions
from skood.corruptions import CORRUPTIONS, corrupt

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


def point(value=255, side=33):
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
@settings(deadline=None, max_examples=12)
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
    monkeypatch.setattr(corruptions, "_VALUES_PER_CHUNK", 2 * X[0].size)
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


@any_severity
def test_blurs_of_larger_images_are_wider(severity):
    for name in ("defocus_blur", "motion_blur", "zoom_blur"):
        spreads = []
        for side in (33, 132):
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
        (plain(0), "frog", 1, "no corruption 'frog'; there are gaussian_noise, shot_noise"),
        (plain(0), "fog", 0, "severity=0 must be an integer from 1 to 5"),
        (plain(0), "fog", 6, "severity=6"),
        (plain(0), "fog", 2.0, r"severity=2\.0"),
        (plain(0), "fog", True, "severity=True"),
    ],
)
def test_what_cannot_be_corrupted(X, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(X, name, severity)
