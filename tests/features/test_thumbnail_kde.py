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


def test_all_components_reconstruct_the_thumbnail():
    sketches, s, _, u = measured()
    assert_close(sketches(u), s, atol=1e-4, rtol=0)


def test_fewer_components_omit_the_smallest_variances():
    sketches, s, c, u = measured(n_components=1)
    off = sketches(u) - s
    assert off.abs().max() < 0.3
    means = [off[c == k].mean() for k in range(3)]  # what tells the classes apart is the first component here
    assert_close(torch.stack(means), torch.zeros(3), atol=0.02, rtol=0)


@pytest.mark.parametrize("bandwidth", [0.0, 0.5, 1.0])
def test_sampled_codes_have_the_moments_of_the_images(bandwidth):
    sketches, _, c, u = measured(bandwidth)
    drawn = sketches.encode(torch.full((20_000,), 1), torch.Generator().manual_seed(1))
    own = u[c == 1]
    assert_close(drawn.mean(0), own.mean(0), atol=0.05, rtol=0)
    wanted = (1 - bandwidth**2) * own.mT.cov(correction=0) + bandwidth**2 * sketches.cholesky @ sketches.cholesky.mT
    assert_close(drawn.mT.cov(), wanted, atol=0.1, rtol=0)


def test_zero_bandwidth_resamples_and_no_generator_gives_the_mean():
    sketches, _, c, u = measured(0.0)
    drawn = sketches.encode(torch.tensor([2, 0]), torch.Generator().manual_seed(1))
    assert torch.cdist(drawn[:1], u[c == 2]).min() < 1e-4
    assert torch.cdist(drawn[1:], u[c == 0]).min() < 1e-4
    assert_close(sketches.encode(torch.tensor([2]), None)[0], u[c == 2].mean(0))


def test_new_class_is_sampled_from_its_own_thumbnails():
    sketches, *_ = measured()
    white = torch.full((2, 3, SIDE, SIDE), 0.95)
    larger = sketches.with_new_class(white, 3)
    again = [each.encode(torch.tensor([0, 1, 2]), torch.Generator().manual_seed(3)) for each in (sketches, larger)]
    assert torch.equal(*again)
    assert_close(larger(larger.encode(torch.tensor([3]), None)), white[:1], atol=1e-3, rtol=0)


def test_stored_thumbnails_per_class_are_limited():
    sketches, *_ = measured(n=350)
    assert torch.equal(torch.bincount(sketches.labels), torch.full((3,), 100))


@pytest.mark.parametrize("n", [1, 2])
def test_fit_to_one_or_two_images(n):
    sketches, s, _, _ = measured(n=n)
    drawn = sketches(sketches.encode(torch.tensor([0, 2]), torch.Generator().manual_seed(0)))
    assert drawn.isfinite().all()
    assert_close(drawn[0], s[0], atol=1e-3, rtol=0)
