"""Aggregated posteriors: moments that follow training."""

import pytest
import torch
from torch.testing import assert_close

from likely.networks.aggregated_posterior import AggregatedPosterior, AggregatedPosteriorOptions


def generator(seed):
    return torch.Generator().manual_seed(seed)


def fed(aggregate, mean, variance, y, *, times=1):
    for _ in range(times):
        aggregate.update(mean, variance, y)
    return aggregate.gaussians()


def test_gaussians_start_at_the_components():
    start = torch.randn(3, 4, generator=generator(0))
    mean, log_scale = AggregatedPosterior(start).gaussians()
    assert_close(mean, start)
    assert_close(log_scale, torch.zeros(3, 4), atol=1e-6, rtol=0)


def test_gaussians_converge_to_the_moments_of_the_posteriors():
    y = torch.arange(40) % 2
    mean = torch.randn(40, 3, generator=generator(1)) + 5 * y[:, None]
    variance = torch.rand(40, 3, generator=generator(2)) + 0.1
    found, log_scale = fed(AggregatedPosterior(torch.zeros(2, 3)), mean, variance, y, times=200)
    for c in range(2):
        of_class = y == c
        spread = mean[of_class].var(0, correction=0) + variance[of_class].mean(0)
        assert_close(found[c], mean[of_class].mean(0), rtol=1e-4, atol=1e-5)
        assert_close((2 * log_scale[c]).exp(), spread, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("n", [1, 7])
def test_update_decays_per_image(n):
    aggregate = AggregatedPosterior(torch.zeros(2, 1), AggregatedPosteriorOptions(decay=0.9))
    found, _ = fed(aggregate, torch.ones(n, 1), torch.ones(n, 1), torch.zeros(n, dtype=torch.long))
    assert_close(found, torch.tensor([[1 - 0.9**n], [0.0]]))


def test_update_ignores_unlabeled_images_and_absent_classes():
    aggregate, start = AggregatedPosterior(torch.ones(2, 3)), AggregatedPosterior(torch.ones(2, 3))
    y = torch.tensor([-1, 0, -1])
    fed(aggregate, torch.full((3, 3), 9.0), torch.ones(3, 3), y)
    assert torch.equal(aggregate.mean[1], start.mean[1])
    assert torch.equal(aggregate.square[1], start.square[1])
    only = fed(AggregatedPosterior(torch.ones(2, 3)), torch.full((1, 3), 9.0), torch.ones(1, 3), torch.tensor([0]))
    assert_close(aggregate.gaussians(), only)


def test_gaussians_have_no_gradient():
    mean = torch.ones(2, 3, requires_grad=True)
    found = fed(AggregatedPosterior(torch.zeros(2, 3)), mean, torch.ones(2, 3), torch.tensor([0, 1]))
    assert not any(values.requires_grad for values in found)
