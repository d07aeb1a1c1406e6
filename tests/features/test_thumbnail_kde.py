"""Thumbnail KDE: moments of the samples, and new classes."""

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
    kde = ThumbnailKDE(SIDE, ThumbnailKDEOptions(n_components=n_components, bandwidth=bandwidth))
    s, c = images(**how)
    return kde, s, c, kde.fit(s, c)


def test_all_components_reconstruct_the_thumbnail():
    kde, s, _, u = measured()
    assert_close(kde(u), s, atol=1e-4, rtol=0)


def test_fewer_components_omit_the_smallest_variances():
    kde, s, c, u = measured(n_components=1)
    off = kde(u) - s
    assert off.abs().max() < 0.3
    means = [off[c == k].mean() for k in range(3)]  # what tells the classes apart is the first component here
    assert_close(torch.stack(means), torch.zeros(3), atol=0.02, rtol=0)


@pytest.mark.parametrize("bandwidth", [0.0, 0.5, 1.0])
def test_sampled_codes_have_the_moments_of_the_images(bandwidth):
    kde, _, c, u = measured(bandwidth)
    sampled = kde.sample_codes(torch.full((20_000,), 1), torch.Generator().manual_seed(1))
    own = u[c == 1]
    assert_close(sampled.mean(0), own.mean(0), atol=0.05, rtol=0)
    wanted = (1 - bandwidth**2) * own.mT.cov(correction=0) + bandwidth**2 * kde.cholesky @ kde.cholesky.mT
    assert_close(sampled.mT.cov(), wanted, atol=0.1, rtol=0)


def test_zero_bandwidth_resamples_and_no_generator_gives_the_mean():
    kde, _, c, u = measured(0.0)
    sampled = kde.sample_codes(torch.tensor([2, 0]), torch.Generator().manual_seed(1))
    assert torch.cdist(sampled[:1], u[c == 2]).min() < 1e-4
    assert torch.cdist(sampled[1:], u[c == 0]).min() < 1e-4
    assert_close(kde.sample_codes(torch.tensor([2]), None)[0], u[c == 2].mean(0))


def test_new_class_is_sampled_from_its_own_thumbnails():
    kde, *_ = measured()
    white = torch.full((2, 3, SIDE, SIDE), 0.95)
    larger = kde.with_new_class(white, 3)
    again = [each.sample_codes(torch.tensor([0, 1, 2]), torch.Generator().manual_seed(3)) for each in (kde, larger)]
    assert torch.equal(*again)
    assert_close(larger(larger.sample_codes(torch.tensor([3]), None)), white[:1], atol=1e-3, rtol=0)


def test_stored_thumbnails_per_class_are_limited():
    kde, *_ = measured(n=350)
    assert torch.equal(torch.bincount(kde.labels), torch.full((3,), 100))


@pytest.mark.parametrize("n", [1, 2])
def test_fit_to_one_or_two_images(n):
    kde, s, _, _ = measured(n=n)
    sampled = kde(kde.sample_codes(torch.tensor([0, 2]), torch.Generator().manual_seed(0)))
    assert sampled.isfinite().all()
    assert_close(sampled[0], s[0], atol=1e-3, rtol=0)
