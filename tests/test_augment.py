import pytest
import torch

from skood.augment import (
    AUGMENTATIONS,
    center_crop,
    crop_and_flip,
    crop_flip_and_mask,
    mask_center,
    pad_to_square,
    random_crop,
    random_crop_to,
    random_flip,
    rotate,
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


def test_augmentations_by_name():
    images = torch.rand(10, 1, 32, 32) + 1
    results = {}
    for name, augment in AUGMENTATIONS.items():
        torch.manual_seed(0)
        results[name] = augment(images)
    assert set(results) == {"crop-flip", "crop-flip-mask"}
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
    for result in (turned, mask_center(images), random_crop_to(images, 5), crop_flip_and_mask(images)):
        assert result.device == images.device
