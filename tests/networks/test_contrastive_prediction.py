import itertools
import math

import pytest
import torch
from torch.nn import functional

from skood.networks import ContrastivePrediction, patch_geometry, patches
from skood.networks.contrastive_prediction import info_nce


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("side", "geometry"),
    [
        (4, (2, 1, 3)),
        (7, (2, 1, 6)),
        (28, (6, 3, 8)),
        (32, (8, 4, 7)),
        (96, (24, 12, 7)),
        (224, (56, 28, 7)),
        (256, (64, 32, 7)),
    ],
)
def test_geometry_of_patches(side, geometry):
    assert patch_geometry(side) == geometry


@pytest.mark.parametrize("side", [0, 1, 3])
def test_images_too_small_for_patches(side):
    with pytest.raises(ValueError, match=f"images of {side} x {side} pixels are too small"):
        patch_geometry(side)


def test_patches_are_parts_of_the_image():
    images = torch.randn(2, 3, 9, 9)
    cut = patches(images, size=4, stride=2)
    assert cut.shape == (2, 3, 3, 3, 4, 4)
    for row, column in itertools.product(range(3), range(3)):
        top, left = 2 * row, 2 * column
        assert torch.equal(cut[:, row, column], images[:, :, top : top + 4, left : left + 4])
    with pytest.raises(ValueError, match="only square images are cut into patches; these are 8 x 9"):
        patches(images[:, :, 1:], 4, 2)


def test_info_nce_by_hand():
    """Scores 4 / sqrt(4) = 2, 0 and 0 for the first prediction, all 0 for the second."""
    candidates = torch.zeros(1, 3, 4)
    candidates[0, 1] = 1.0
    predictions = torch.stack([torch.ones(4), torch.zeros(4)])[None]
    loss = info_nce(predictions, candidates, torch.tensor([1, 0]))
    expected = [[math.log(math.exp(2) + 2) - 2, math.log(3)]]
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_predictions_are_of_the_patches_below():
    """The loss, written out patch by patch."""
    head = ContrastivePrediction(6, 4, n_steps=2, hidden_size=3).double()
    encodings = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    z = functional.layer_norm(encodings, (6,))
    context = head.context(z.permute(0, 3, 1, 2))
    for image in range(2):
        losses = []
        for step, row, column in itertools.product((1, 2), range(4), range(4)):
            if row + step < 4:
                prediction = head.steps[step - 1].weight @ context[image, :, row, column]
                scores = torch.einsum("rcf,f->rc", z[image], prediction) / 6**0.5
                losses.append(scores.logsumexp((0, 1)) - scores[row + step, column])
        assert len(losses) == (3 + 2) * 4
        torch.testing.assert_close(head(encodings)[image], torch.stack(losses).mean())


def test_context_sees_no_row_below():
    head = ContrastivePrediction(16, 7).double()
    encodings = torch.randn(1, 16, 7, 7, dtype=torch.float64, requires_grad=True)
    for row in range(7):
        (gradient,) = torch.autograd.grad(head.context(encodings)[:, :, row].square().sum(), encodings)
        seen = (gradient[0] != 0).any(0).any(1)
        assert seen.tolist() == [row - 3 <= other <= row for other in range(7)]
    # Of its own row it sees both sides.
    (gradient,) = torch.autograd.grad(head.context(encodings)[:, :, 3, 3].square().sum(), encodings)
    assert (gradient[0] != 0).any(0)[3].all()


def test_an_image_is_told_from_none_of_the_batch():
    head = ContrastivePrediction(5, 4).double()
    encodings = torch.randn(6, 4, 4, 5, dtype=torch.float64, requires_grad=True)
    loss = head(encodings)
    assert loss.shape == (6,)
    (gradient,) = torch.autograd.grad(loss[2], encodings)
    assert (gradient.abs().sum((1, 2, 3)) > 0).tolist() == [number == 2 for number in range(6)]
    torch.testing.assert_close(head(encodings[2:3])[0], loss[2])


def test_steps_fit_the_grid():
    assert [len(ContrastivePrediction(4, grid).steps) for grid in (2, 3, 7)] == [1, 2, 5]
    for n_steps in (0, 4):
        with pytest.raises(ValueError, match=f"can be 1 to 3 steps; got n_steps={n_steps}"):
            ContrastivePrediction(4, 4, n_steps=n_steps)
    with pytest.raises(ValueError, match=r"there must be 4 x 4 patches; got \(5, 4\)"):
        ContrastivePrediction(3, 4)(torch.zeros(1, 5, 4, 3))


def test_untrained_loss_is_about_that_of_guessing():
    loss = ContrastivePrediction(64, 7)(10 * torch.randn(4, 7, 7, 64))
    assert loss.mean().item() == pytest.approx(math.log(49), abs=0.2)
