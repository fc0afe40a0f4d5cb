import colorsys
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skood.augment import (
    AUGMENTATIONS,
    center_crop,
    color_jitter,
    crop_and_flip,
    crop_flip_and_mask,
    gaussian_blur,
    mask_center,
    pad_to_square,
    random_crop,
    random_crop_to,
    random_flip,
    random_grayscale,
    random_resized_crop,
    rotate,
    simclr,
)


def test_crops_are_shifts_on_a_black_border():
    torch.manual_seed(0)
    image = torch.arange(1.0, 13.0).reshape(1, 1, 3, 4)
    padded = torch.nn.functional.pad(image, [1] * 4)[0, 0]
    shifts = {tuple(padded[i : i + 3, j : j + 4].flatten().tolist()) for i in range(3) for j in range(3)}
    seen = {tuple(crop.flatten().tolist()) for crop in random_crop(image.expand(300, 1, 3, 4), padding=1)}
    assert seen == shifts


def test_channels_of_an_image_move_together():
    torch.manual_seed(0)
    images = torch.rand(20, 1, 8, 8).expand(20, 3, 8, 8)
    for transformed in (random_crop(images), crop_and_flip(images)):
        assert transformed.shape == images.shape
        assert torch.equal(transformed[:, 0], transformed[:, 2])


def test_half_of_the_images_are_mirrored():
    torch.manual_seed(0)
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    flipped = random_flip(image.expand(1000, 1, 2, 3))
    mirrored = (flipped == image.flip(3)).all((1, 2, 3))
    same = (flipped == image).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 400 < mirrored.sum() < 600


def test_shifts_are_an_eighth_of_the_side_at_most():
    """Images of 3 x 3 are only mirrored; those of 8 x 8 move by one pixel."""
    torch.manual_seed(0)
    small = torch.rand(1, 1, 3, 3)
    for image in crop_and_flip(small.expand(50, 1, 3, 3)):
        assert torch.equal(image, small[0]) or torch.equal(image, small[0].flip(2))
    blank = torch.zeros(1, 1, 8, 8)
    blank[:, :, 3, 3] = 1
    places = {tuple(image[0].nonzero()[0].tolist()) for image in crop_and_flip(blank.expand(500, 1, 8, 8))}
    assert places == {(row, column) for row in (2, 3, 4) for column in (2, 3, 4, 5)}


def test_quarter_turns_are_torchs():
    torch.manual_seed(0)
    corners = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(4, 1, 2, 2)
    turned = rotate(corners, torch.arange(4))
    assert turned.flatten(1).tolist() == [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]
    images, turns = torch.rand(20, 3, 5, 5), torch.randint(-4, 8, (20,))
    before = images.clone()
    for image, turn, result in zip(images, turns, rotate(images, turns), strict=True):
        assert torch.equal(result, image.rot90(int(turn), (1, 2)))
    assert torch.equal(images, before)
    assert torch.equal(rotate(rotate(images, turns), -turns), images)
    assert rotate(images[:0], turns[:0]).shape == (0, 3, 5, 5)


def test_only_squares_can_be_turned():
    with pytest.raises(ValueError, match="only square images can be turned by a quarter; these are 4 x 5"):
        rotate(torch.zeros(2, 1, 4, 5), torch.zeros(2, dtype=torch.long))


def test_squares_have_the_image_in_their_middle():
    image = torch.ones(1, 1, 1, 4)
    assert pad_to_square(image)[0, 0].tolist() == [[0] * 4, [1] * 4, [0] * 4, [0] * 4]
    assert torch.equal(pad_to_square(image.mT), pad_to_square(image).mT)
    assert torch.equal(pad_to_square(torch.ones(2, 3, 5, 5)), torch.ones(2, 3, 5, 5))


def test_masks_are_the_papers():
    """16 x 16 pixels within the central 21 x 21 of 32 x 32, wherever they fit."""
    torch.manual_seed(0)
    images = torch.rand(500, 3, 32, 32) + 1
    masked = mask_center(images)
    hidden = masked == 0
    assert torch.equal(masked[~hidden], images[~hidden])
    assert torch.equal(hidden[:, 0], hidden[:, 2])
    places = set()
    for image in hidden[:, 0]:
        rows, columns = image.nonzero().T
        assert image.sum() == 16 * 16
        assert (rows.max() - rows.min(), columns.max() - columns.min()) == (15, 15)
        places.add((rows.min().item(), columns.min().item()))
    assert places == {(row, column) for row in range(5, 11) for column in range(5, 11)}


@pytest.mark.parametrize(("shape", "side"), [((8, 8), 4), ((6, 20), 3), ((1, 1), 0), ((96, 96), 48)])
def test_masks_grow_with_the_image(shape, side):
    torch.manual_seed(0)
    hidden = mask_center(torch.ones(50, 1, *shape)) == 0
    assert (hidden.sum((1, 2, 3)) == side * side).all()
    # Nothing is hidden outside the central region, 5.28, 3.96 and so on pixels wide.
    room = round(0.66 * min(shape))
    tops = [(length - room) // 2 for length in shape]
    outside = hidden.clone()
    outside[:, :, tops[0] : tops[0] + room, tops[1] : tops[1] + room] = False
    assert not outside.any()


@pytest.mark.parametrize("shares", [(0.7, 0.6), (-0.1, 0.5), (0.5, 1.1)])
def test_masks_that_cannot_be(shares):
    with pytest.raises(ValueError, match="there must be 0 <= size <= region <= 1"):
        mask_center(torch.zeros(1, 1, 8, 8), *shares)


def test_crops_have_places_of_their_own():
    torch.manual_seed(0)
    image = torch.arange(1.0, 21.0).reshape(1, 1, 4, 5)
    parts = {tuple(image[0, 0, i : i + 3, j : j + 3].flatten().tolist()) for i in range(2) for j in range(3)}
    crops = random_crop_to(image.expand(200, 1, 4, 5), 3)
    assert crops.shape == (200, 1, 3, 3)
    assert {tuple(crop.flatten().tolist()) for crop in crops} == parts
    colours = random_crop_to(torch.rand(10, 1, 9, 9).expand(10, 3, 9, 9), 4)
    assert torch.equal(colours[:, 0], colours[:, 2])


def test_crops_of_the_centre():
    image = torch.arange(20).reshape(1, 1, 4, 5)
    assert center_crop(image, 2)[0, 0].tolist() == [[6, 7], [11, 12]]
    assert torch.equal(center_crop(image, 3), image[:, :, :3, 1:4])
    assert torch.equal(center_crop(image, 4), image[:, :, :, :4])


@pytest.mark.parametrize("crop", [random_crop_to, center_crop])
def test_small_images_are_not_cropped(crop):
    images = torch.rand(3, 2, 4, 5)
    assert torch.equal(crop(images, 5), images)
    assert torch.equal(crop(images, 9), images)


def ramps(n, height=32, width=32):
    """Images whose channels say where a pixel is: column and row, in pixels."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([columns, rows]).expand(n, 2, height, width)


def slopes(crops):
    """Pixels of the original across one of the crop, in the middle, where no border is near."""
    _, _, height, width = crops.shape
    row, column = height // 2, width // 2
    across = crops[:, 0, row, column + 1] - crops[:, 0, row, column]
    down = crops[:, 1, row + 1, column] - crops[:, 1, row, column]
    return across, down


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
def test_resized_crops_have_the_size_and_shape_that_were_asked_for(height, width):
    torch.manual_seed(0)
    crops = random_resized_crop(ramps(400, height, width), scale=(0.2, 0.4))
    across, down = slopes(crops)
    area, shape = across * down, across * width / (down * height)
    assert (area > 0.199).all()
    assert (area < 0.401).all()
    assert (shape > 0.749).all()
    assert (shape < 1.334).all()
    # Drawn evenly, the shape on a logarithmic scale.
    assert float(area.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(shape.log().mean()) == pytest.approx(0, abs=0.03)
    # Each lies within its image, at any place there.
    middles = crops[:, :, height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1].mean((2, 3)) + 0.5
    for middle, slope, side in ((middles[:, 0], across, width), (middles[:, 1], down, height)):
        place = (middle / side - slope / 2) / (1 - slope)
        assert place.min() > -0.001
        assert place.max() < 1.001
        assert place.min() < 0.05 < 0.95 < place.max()


def test_resized_crops_interpolate():
    images = torch.rand(4, 3, 9, 9)
    whole = random_resized_crop(images, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    torch.testing.assert_close(whole, images)
    torch.testing.assert_close(random_resized_crop(torch.full((4, 1, 5, 6), 0.3)), torch.full((4, 1, 5, 6), 0.3))
    # A strip has no square of half its area: the crop is as high as the strip, and wider than high.
    across, _ = slopes(random_resized_crop(ramps(50, 4, 64), scale=(0.5, 0.5), ratio=(1.0, 1.0)))
    assert torch.allclose(across, torch.tensor(math.sqrt(0.5 * 4 * 64) / 64), atol=1e-4)
    with pytest.raises(ValueError, match="0 < low <= high <= 1 for scale"):
        random_resized_crop(images, scale=(0.5, 1.5))
    with pytest.raises(ValueError, match="0 < low <= high for ratio"):
        random_resized_crop(images, ratio=(2.0, 1.0))


def jittered_by_hand(image, brightness, contrast, saturation, turn):
    """Pixel by pixel, after the definitions."""

    def cut(values):
        return [min(max(value, 0.0), 1.0) for value in values]

    def grey(pixel):
        return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]

    pixels = [cut(brightness * value for value in pixel) for pixel in image.flatten(1).T.tolist()]
    mean = sum(map(grey, pixels)) / len(pixels)
    pixels = [cut(mean + contrast * (value - mean) for value in pixel) for pixel in pixels]
    pixels = [cut(grey(pixel) + saturation * (value - grey(pixel)) for value in pixel) for pixel in pixels]
    turned = []
    for pixel in pixels:
        hue, shade, value = colorsys.rgb_to_hsv(*pixel)
        turned.append(colorsys.hsv_to_rgb((hue + turn) % 1, shade, value))
    return torch.tensor(turned, dtype=torch.float64).T.reshape(image.shape)


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_colors_change_as_defined(strength):
    torch.manual_seed(0)
    images = torch.rand(6, 3, 4, 5, dtype=torch.float64)
    images[0, :, 0, 0], images[0, :, 0, 1], images[0, :, 0, 2] = 0, 1, 0.5
    torch.manual_seed(1)
    jittered = color_jitter(images, strength)
    torch.manual_seed(1)
    low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
    factors = [torch.empty(6, dtype=torch.float64).uniform_(low, high) for _ in range(3)]
    factors.append(torch.empty(6, dtype=torch.float64).uniform_(-0.2 * strength, 0.2 * strength))
    for image, result, *drawn in zip(images, jittered, *factors, strict=True):
        torch.testing.assert_close(result, jittered_by_hand(image, *map(float, drawn)))


def test_colors_of_no_strength():
    images = torch.rand(5, 3, 6, 6)
    torch.testing.assert_close(color_jitter(images, 0), images)
    with pytest.raises(ValueError, match=r"0 <= strength <= 2\.5"):
        color_jitter(images, 3)


def test_without_three_channels_there_are_no_colors():
    torch.manual_seed(0)
    images = torch.rand(20, 1, 6, 6) / 4 + 0.3
    jittered = color_jitter(images, 0.3)
    # Brightness and contrast are a straight line, that of the image.
    for image, result in zip(images, jittered, strict=True):
        slope = (result.max() - result.min()) / (image.max() - image.min())
        torch.testing.assert_close(result - result.mean(), slope * (image - image.mean()))
    for n_channels in (1, 2, 4):
        images = torch.rand(3, n_channels, 4, 4)
        assert random_grayscale(images, 1.0) is images
        assert color_jitter(images).shape == images.shape


def test_a_share_of_the_images_loses_its_colors():
    torch.manual_seed(0)
    images = torch.rand(1000, 3, 2, 2)
    greyed = random_grayscale(images)
    changed = (greyed != images).flatten(1).any(1)
    assert 150 < changed.sum() < 250
    luma = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(greyed[changed], luma[changed].expand(-1, 3, -1, -1))
    torch.testing.assert_close(random_grayscale(torch.ones(1, 3, 1, 1), 1.0), torch.ones(1, 3, 1, 1))


def test_blur_is_a_gaussian():
    image = torch.zeros(2, 2, 60, 61)
    image[:, 0, 30, 30] = image[1, 1, 20, 20] = 1
    blurred = gaussian_blur(image, (1.5, 1.5))
    # Three pixels each way.
    bell = torch.exp(-torch.arange(-3.0, 4).square() / (2 * 1.5**2))
    bell /= bell.sum()
    torch.testing.assert_close(blurred[0, 0, 27:34, 27:34], bell[:, None] * bell)
    torch.testing.assert_close(blurred.sum((2, 3)), image.sum((2, 3)))
    torch.testing.assert_close(blurred[1, 1, 17:24, 17:24], bell[:, None] * bell)
    torch.testing.assert_close(gaussian_blur(torch.full((2, 3, 40, 40), 0.3)), torch.full((2, 3, 40, 40), 0.3))
    # Small images are left alone; each other has a width of its own.
    small = torch.rand(3, 1, 9, 9)
    torch.testing.assert_close(gaussian_blur(small), small)
    torch.manual_seed(0)
    peaks = gaussian_blur(image[:1].expand(20, 2, 60, 61))[:, 0, 30, 30]
    assert len(peaks.unique()) == 20
    with pytest.raises(ValueError, match="0 < low <= high for sigma"):
        gaussian_blur(image, (0.0, 1.0))


@settings(max_examples=25)
@given(n_channels=st.integers(1, 4), height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 1000))
def test_pixels_stay_in_the_unit_interval(n_channels, height, width, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        images = torch.rand(3, n_channels, height, width).round(decimals=1)
        before = images.clone()
        for flip in (True, False):
            views = simclr(images, flip=flip)
            assert views.shape == images.shape
            assert views.min() >= -1e-6
            assert views.max() <= 1 + 1e-6
        assert torch.equal(images, before)


def share_rising(views):
    """Of images, those that are brighter on the right."""
    return float((views.sum(1)[:, 8, 12] > views.sum(1)[:, 8, 4]).float().mean())


def test_views_of_simclr():
    """Half are mirrored or none; four of five have other colours; those of large images may be blurred."""
    torch.manual_seed(0)
    scene = torch.cat([ramps(1, 16, 16) / 32 + 0.2, torch.full((1, 1, 16, 16), 0.4)], 1)
    upright, mirrored = (simclr(scene.expand(500, 3, 16, 16), flip=flip) for flip in (False, True))
    assert share_rising(upright) > 0.97
    assert 0.4 < share_rising(mirrored) < 0.6
    # The third channel is the same all over unless colours were changed.
    plain = torch.isclose(upright[:, 2], torch.tensor(0.4), atol=1e-6).all(2).all(1)
    assert float(plain.float().mean()) == pytest.approx(0.2 * 0.8, abs=0.06)
    noise = torch.rand(100, 1, 64, 64)
    # Jitter and crops leave neighbours as different as they are; a blur does not.
    views = simclr(noise)
    rough = (views[:, 0, :, 1:] - views[:, 0, :, :-1]).abs().mean((1, 2)) / views.std((1, 2, 3))
    assert 0.2 < (rough < 0.5 * rough.max()).float().mean() < 0.7


def test_augmentations_by_name():
    images = torch.rand(10, 1, 32, 32) + 1
    results = {}
    for name, augment in AUGMENTATIONS.items():
        torch.manual_seed(0)
        results[name] = augment(images)
    assert set(results) == {"crop-flip", "crop-flip-mask", "simclr", "simclr-no-flip"}
    torch.manual_seed(0)
    assert torch.equal(simclr(images, flip=False), results["simclr-no-flip"])
    assert not torch.equal(results["simclr"], results["simclr-no-flip"])
    masked, shown = results["crop-flip-mask"], results["crop-flip"]
    changed = masked != shown
    # The centre moves by 4 pixels at most, so the border of zeros stays clear of the mask.
    assert (changed.sum((1, 2, 3)) == 256).all()
    assert (masked[changed] == 0).all()
    torch.manual_seed(0)
    assert torch.equal(crop_flip_and_mask(images), masked)


def test_augmentations_on_a_device(device):
    images = torch.rand(4, 3, 8, 10, device=device)
    turned = rotate(pad_to_square(images), torch.randint(4, (4,), device=device))
    results = turned, mask_center(images), random_crop_to(images, 5), crop_flip_and_mask(images), simclr(images)
    for result in (*results, gaussian_blur(images)):
        assert result.device == images.device
