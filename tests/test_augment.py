import torch

from skood.augment import crop_and_flip, random_crop, random_flip


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
