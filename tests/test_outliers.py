"""Outliers that are made of rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skood.outliers import add_noise, blend, permute_features, scatter, shuffle_patches, synthesize, uniform_box

sizes = st.integers(1, 6)


@given(seed=st.integers(0, 100), n=sizes, d=sizes, n_outliers=st.integers(1, 30))
def test_permuted_features_keep_their_columns(seed, n, d, n_outliers):
    torch.manual_seed(seed)
    rows = torch.randn(n, d)
    outliers = permute_features(rows, n_outliers)
    assert outliers.shape == (n_outliers, d)
    for values, column in zip(outliers.T, rows.T, strict=True):
        assert set(values.tolist()) <= set(column.tolist())


def test_permuted_features_lose_their_dependence():
    torch.manual_seed(0)
    first = torch.randn(2000, 1)
    rows = torch.cat([first, first], 1)
    correlation = torch.corrcoef(permute_features(rows, 2000).T)[0, 1]
    assert abs(correlation) < 0.1


def test_uniform_box_by_hand():
    """Features in [0, 2] and [10, 14]; half of the width more at either side."""
    torch.manual_seed(0)
    rows = torch.tensor([[0.0, 14.0], [2.0, 10.0]])
    outliers = uniform_box(rows, 20_000, margin=0.5)
    assert outliers.amin(0).tolist() == pytest.approx([-1, 8], abs=0.01)
    assert outliers.amax(0).tolist() == pytest.approx([3, 16], abs=0.01)
    assert outliers.mean(0).tolist() == pytest.approx([1, 12], abs=0.05)


def test_uniform_noise_images_have_the_range_of_each_channel():
    rows = torch.stack([torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 5.0]])])[None]
    outliers = uniform_box(rows, 1000)
    assert outliers.shape == (1000, 2, 1, 2)
    assert outliers[:, 0].min() >= 0
    assert outliers[:, 0].max() <= 1
    assert (outliers[:, 1] == 5).all()


def test_noise_has_the_scales_asked_for():
    torch.manual_seed(0)
    rows = torch.zeros(1, 2000)
    scales = add_noise(rows, 500, 0.1, 10.0).std(1)
    assert scales.min() > 0.09
    assert scales.max() < 11
    # Log-uniform: half of them below the geometric mean.
    assert (scales < 1).float().mean() == pytest.approx(0.5, abs=0.1)
    assert add_noise(rows, 10, 2.0, 2.0).std(1).tolist() == pytest.approx([2] * 10, rel=0.1)


def test_scattered_rows_lie_far_away_in_units_of_their_own():
    """Rows -u and u have the deviation u. Noise of 3 to 30 of that, on either side."""
    torch.manual_seed(0)
    for unit in (1e-3, 1.0, 1e3):
        rows = torch.tensor([[-unit], [unit]]).expand(2, 500)
        outliers = scatter(rows, 400) / unit
        scales = outliers.std(1)
        assert scales.min() > 2.7
        assert 25 < scales.max() < 33
        # Log-uniform: half of them below the geometric mean.
        assert (scales < 90**0.5).float().mean() == pytest.approx(0.5, abs=0.1)
        assert outliers.mean() == pytest.approx(0, abs=0.2)
    # A single row has no deviation, and what is made is not the row itself.
    assert scatter(torch.full((1, 500), 7.0), 50).sub(7).std(1).min() > 2.7


@given(n=sizes, channels=st.integers(1, 3), height=st.integers(1, 9), width=st.integers(1, 9), grid=st.integers(1, 5))
def test_shuffled_patches_keep_their_pixels(n, channels, height, width, grid):
    rows = torch.arange(n * channels * height * width, dtype=torch.float32).reshape(n, channels, height, width)
    before = rows.clone()
    outliers = shuffle_patches(rows, 7, grid)
    assert torch.equal(rows, before)
    assert outliers.shape == (7, channels, height, width)
    images = {tuple(sorted(image.flatten().tolist())) for image in rows}
    for outlier in outliers:
        assert tuple(sorted(outlier.flatten().tolist())) in images
        # A pixel keeps its channel, and its neighbour within the patch.
        for number, channel in enumerate(outlier):
            assert set((channel.flatten() // (height * width) % channels).tolist()) == {number}


def test_shuffled_patches_by_hand():
    torch.manual_seed(0)
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    seen = {tuple(outlier.flatten().tolist()) for outlier in shuffle_patches(image, 500, grid=2)}
    # Four patches in any order.
    assert len(seen) == 24
    swapped = [10, 11, 2, 3, 14, 15, 6, 7, 8, 9, 0, 1, 12, 13, 4, 5]
    assert tuple(map(float, swapped)) in seen


def test_blend_by_hand():
    outliers, rows = torch.tensor([[10.0, 0.0], [0.0, 10.0]]), torch.tensor([[1.0, 1.0]])
    torch.testing.assert_close(blend(outliers, rows, 0.1), torch.tensor([[9.1, 0.1], [0.1, 9.1]]))
    assert torch.equal(blend(outliers, rows, 0.0), outliers)


def test_kinds_share_alike():
    rows = torch.zeros(4, 3)
    made = synthesize(rows, 8, ["permuted", lambda rows, n: torch.full((n, 3), 7.0), "uniform"])
    assert made.shape == (8, 3)
    assert (made == 7).all(1).sum() == 3
    # What does not divide goes to either kind.
    torch.manual_seed(0)
    kinds = [lambda rows, n: torch.full((n, 3), 1.0), lambda rows, n: torch.full((n, 3), 2.0)]
    assert {synthesize(rows, 1, kinds)[0, 0].item() for _ in range(20)} == {1.0, 2.0}
