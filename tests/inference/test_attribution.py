"""Evidence maps: exact where there is a closed form, complete everywhere, image by image."""

import pytest
import torch
from torch.testing import assert_close

from likely.inference.attribution import gradient_magnitude, integrated_gradients


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.fixture
def gaussians():
    """Per-pixel terms of log N(x; mean_c, variance_c) for three classes of 2x2 images: (B, 1, 2, 2) -> (B, 3, 1, 2, 2)."""
    mean, variance = normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2).exp()
    return lambda x: -0.5 * ((x[:, None] - mean).square() / variance + variance.log())


A, B = torch.tensor([0, 2, 1, 1, 0]), torch.tensor([1, 0, 2, 0, 1])


def test_of_gaussians_with_variances_alone_each_pixel_has_its_own_log_ratio(gaussians):
    x, baseline = normal(5, 1, 2, 2, seed=3), normal(1, 2, 2, seed=4)
    rows = torch.arange(5)
    own, none = gaussians(x), gaussians(baseline[None])
    exact = (own[rows, A] - own[rows, B]) - (none[0, A] - none[0, B])
    assert_close(integrated_gradients(lambda x: gaussians(x).flatten(2).sum(2), x, A, B, baseline), exact)


def test_attributions_sum_to_the_difference_from_the_baseline():
    first, second = normal(4, 8, seed=5), normal(8, 3, seed=6)

    def scores(x):
        return torch.tanh(x.flatten(1) @ first) @ second

    x, baseline = normal(5, 1, 2, 2, seed=7), torch.zeros(1, 2, 2, dtype=torch.float64)
    log_odds = [
        scores(t).gather(1, A[:, None]) - scores(t).gather(1, B[:, None]) for t in (x, baseline.expand(5, 1, 2, 2))
    ]
    found = integrated_gradients(scores, x, A, B, baseline)
    assert_close(found.flatten(1).sum(1), (log_odds[0] - log_odds[1])[:, 0], atol=1e-6, rtol=1e-6)


def test_what_speaks_for_one_class_speaks_against_the_other(gaussians):
    def scores(x):
        return gaussians(x).flatten(2).sum(2)

    x, baseline = normal(5, 1, 2, 2, seed=8), torch.zeros(1, 2, 2, dtype=torch.float64)
    assert_close(integrated_gradients(scores, x, A, B, baseline), -integrated_gradients(scores, x, B, A, baseline))


def test_an_image_alone_has_the_map_that_it_has_among_others(gaussians):
    def scores(x):
        return gaussians(x).flatten(2).sum(2)

    x, baseline = normal(5, 1, 2, 2, seed=9), torch.zeros(1, 2, 2, dtype=torch.float64)
    together = integrated_gradients(scores, x, A, B, baseline)
    alone = [integrated_gradients(scores, x[i : i + 1], A[i : i + 1], B[i : i + 1], baseline) for i in range(5)]
    assert_close(together, torch.cat(alone))


def test_the_slope_is_that_of_finite_differences(gaussians):
    def scores(x):
        return gaussians(x).flatten(2).sum(2)

    x, step = normal(5, 1, 2, 2, seed=10), 1e-6
    moved = x.clone()
    moved[:, 0, 1, 0] += step
    rows = torch.arange(5)
    change = scores(moved) - scores(x)
    found = gradient_magnitude(scores, x, A, B)
    assert_close(found[:, 0, 1, 0], ((change[rows, A] - change[rows, B]) / step).abs(), atol=1e-4, rtol=1e-4)
    assert not found.requires_grad
