"""Sketches: their means and covariance are those of the images, and a new class has its own."""

import pytest
import torch
from torch.testing import assert_close

from likely.features.thumbnail_kde import ThumbnailKDE, ThumbnailKDEOptions

SIDE, N = 2, 12


def images(n=60, seed=0):
    rng = torch.Generator().manual_seed(seed)
    c = torch.arange(n) % 3
    return (0.3 + 0.2 * c.view(-1, 1, 1, 1) + 0.05 * torch.randn(n, 3, SIDE, SIDE, generator=rng)), c


def measured(bandwidth=0.5, n_components=N, **how):
    sketches = ThumbnailKDE(SIDE, ThumbnailKDEOptions(n_components=n_components, bandwidth=bandwidth))
    s, c = images(**how)
    return sketches, s, c, sketches.fit(s, c)


def test_all_components_together_are_the_image():
    sketches, s, _, u = measured()
    assert_close(sketches(u), s, atol=1e-4, rtol=0)


def test_fewer_components_leave_out_what_varies_least():
    sketches, s, c, u = measured(n_components=1)
    off = sketches(u) - s
    assert off.abs().max() < 0.3
    means = [off[c == k].mean() for k in range(3)]  # what tells the classes apart is the first component here
    assert_close(torch.stack(means), torch.zeros(3), atol=0.02, rtol=0)


@pytest.mark.parametrize("bandwidth", [0.0, 0.5, 1.0])
def test_what_is_drawn_has_the_means_and_the_covariance_of_the_images(bandwidth):
    sketches, _, c, u = measured(bandwidth)
    drawn = sketches.encode(torch.full((20_000,), 1), torch.Generator().manual_seed(1))
    own = u[c == 1]
    assert_close(drawn.mean(0), own.mean(0), atol=0.05, rtol=0)
    wanted = (1 - bandwidth**2) * own.mT.cov(correction=0) + bandwidth**2 * sketches.cholesky @ sketches.cholesky.mT
    assert_close(drawn.mT.cov(), wanted, atol=0.1, rtol=0)


def test_no_bandwidth_copies_and_no_noise_is_the_mean():
    sketches, _, c, u = measured(0.0)
    drawn = sketches.encode(torch.tensor([2, 0]), torch.Generator().manual_seed(1))
    assert torch.cdist(drawn[:1], u[c == 2]).min() < 1e-4
    assert torch.cdist(drawn[1:], u[c == 0]).min() < 1e-4
    assert_close(sketches.encode(torch.tensor([2]), None)[0], u[c == 2].mean(0))


def test_a_class_more_is_drawn_of_its_own_images_and_the_others_as_before():
    sketches, *_ = measured()
    white = torch.full((2, 3, SIDE, SIDE), 0.95)
    larger = sketches.with_new_class(white, 3)
    again = [each.encode(torch.tensor([0, 1, 2]), torch.Generator().manual_seed(3)) for each in (sketches, larger)]
    assert torch.equal(*again)
    assert_close(larger(larger.encode(torch.tensor([3]), None)), white[:1], atol=1e-3, rtol=0)


def test_no_more_than_a_hundred_images_of_a_class_are_kept():
    sketches, *_ = measured(n=350)
    assert torch.equal(torch.bincount(sketches.labels), torch.full((3,), 100))


@pytest.mark.parametrize("n", [1, 2])
def test_one_image_or_two_are_enough(n):
    sketches, s, _, _ = measured(n=n)
    drawn = sketches(sketches.encode(torch.tensor([0, 2]), torch.Generator().manual_seed(0)))
    assert drawn.isfinite().all()
    assert_close(drawn[0], s[0], atol=1e-3, rtol=0)
