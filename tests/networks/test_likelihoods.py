"""Log-probabilities agree with torch.distributions and scipy, and sum to one."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import logistic
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from likely.evaluation.metrics import bits_per_dim
from likely.networks.likelihoods import BIN, discretized_logistic, normal, normal_divergence

VALUES = torch.arange(256, dtype=torch.float64) / 255
EXTREME = list(itertools.product([-1e3, -1.0, 0.0, 0.31, 1.0, 1e3], [-50.0, -20.0, -7.0, 0.0, 5.0, 20.0, 50.0]))


def of_every_value(mean, log_scale, dtype=torch.float64):
    """log P of the 256 values, (256,)."""
    x = VALUES.to(dtype)
    return discretized_logistic(x, torch.full_like(x, mean), torch.full_like(x, log_scale))


# --- discretized logistic -------------------------------------------------------------------------------------------


@given(st.floats(-2, 3), st.floats(-12, 12))
def test_discretized_logistic_sums_to_one(mean, log_scale):
    assert of_every_value(mean, log_scale).exp().sum().item() == pytest.approx(1, abs=1e-8)


@given(st.floats(-2, 3), st.floats(-7, 5))
def test_discretized_logistic_sums_to_one_in_float32(mean, log_scale):
    assert of_every_value(mean, log_scale, torch.float32).exp().sum().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("mean", "log_scale"), EXTREME)
def test_discretized_logistic_is_a_probability_at_extremes(mean, log_scale):
    log_p = of_every_value(mean, log_scale)
    assert (log_p <= 0).all()
    assert log_p.logsumexp(0).exp().item() == pytest.approx(1, abs=1e-6)


@given(st.floats(-0.5, 1.5), st.floats(-5, 4))
def test_discretized_logistic_agrees_with_scipy(mean, log_scale):
    upper, lower = np.append(VALUES[:-1] + BIN / 2, np.inf), np.append(-np.inf, VALUES[1:] - BIN / 2)
    law = logistic(mean, math.exp(log_scale))
    # On the side where both are small, so that the oracle too subtracts nothing that is nearly one.
    mass = np.where(mean > VALUES, law.cdf(upper) - law.cdf(lower), law.sf(lower) - law.sf(upper))
    assert_close(of_every_value(mean, log_scale), torch.from_numpy(np.log(mass)), rtol=1e-7, atol=1e-7)
    single = of_every_value(mean, log_scale, torch.float32)
    assert_close(single, torch.from_numpy(np.log(mass)).float(), rtol=1e-4, atol=1e-3)


@given(st.floats(-0.5, 1.5), st.floats(-5, 4))
def test_outer_bins_are_open(mean, log_scale):
    law, log_p = logistic(mean, math.exp(log_scale)), of_every_value(mean, log_scale)
    assert log_p[0].item() == pytest.approx(law.logcdf(BIN / 2))
    assert log_p[255].item() == pytest.approx(law.logsf(1 - BIN / 2))


@given(st.floats(-0.5, 1.5), st.floats(-7, 4))
def test_discretized_logistic_is_symmetric(mean, log_scale):
    assert_close(of_every_value(1 - mean, log_scale).flip(0), of_every_value(mean, log_scale), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("mean", "log_scale"), EXTREME)
def test_discretized_logistic_has_finite_gradients(mean, log_scale):
    x = VALUES.float()
    m, s = (torch.full_like(x, value).requires_grad_() for value in (mean, log_scale))
    log_p = discretized_logistic(x, m, s)
    assert log_p.isfinite().all()
    for gradient in torch.autograd.grad(log_p.sum(), (m, s)):
        assert gradient.isfinite().all()


def test_discretized_logistic_passes_gradcheck():
    x = VALUES[[0, 1, 100, 254, 255]]
    m, s = (torch.full_like(x, value, requires_grad=True) for value in (0.4, -2.0))
    assert torch.autograd.gradcheck(discretized_logistic, (x, m, s))


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_most_likely_narrow_mean_is_the_value(value):
    x = VALUES[value].repeat(256)
    log_p = discretized_logistic(x, VALUES, torch.full_like(x, -6.0))
    assert log_p.argmax() == value


def test_uniform_distribution_has_eight_bits_per_dim():
    n_dims = 28 * 28
    assert bits_per_dim(np.full(5, -math.log(256) * n_dims), n_dims) == pytest.approx(8, abs=1e-12)


@given(st.floats(-0.5, 1.5), st.floats(-7, 4))
def test_uniform_pixels_have_at_least_eight_bits_per_dim(mean, log_scale):
    """Gibbs: no distribution codes another's draws in fewer bits than that other's entropy."""
    assert bits_per_dim(of_every_value(mean, log_scale).numpy(), 1) >= 8 - 1e-6


# --- normal ---------------------------------------------------------------------------------------------------------


def draws(seed, *shapes):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes]


@given(st.integers(0, 1000), st.floats(-5, 5))
def test_normal_agrees_with_torch(seed, log_scale):
    x, mean, rest = draws(seed, (4, 3), (4, 3), (4, 3))
    log_scale = log_scale + 0.1 * rest
    assert_close(normal(x, mean, log_scale), Normal(mean, log_scale.exp()).log_prob(x))


def test_normal_integrates_to_one():
    x = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    density = normal(x, torch.full_like(x, 0.3), torch.full_like(x, 0.7)).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1)


# --- divergence -----------------------------------------------------------------------------------------------------


def pairs(seed, size=1.0):
    """q's means and log scales (B, d), and the components' (K, d)."""
    return [size * t for t in draws(seed, (5, 4), (5, 4), (3, 4), (3, 4))]


def reference(mean, log_scale, prior_mean, prior_log_scale):
    q = Normal(mean[:, None], log_scale[:, None].exp())
    return kl_divergence(q, Normal(prior_mean, prior_log_scale.exp())).sum(2)


@given(st.integers(0, 1000), st.floats(0.01, 3))
def test_normal_divergence_agrees_with_torch(seed, size):
    case = pairs(seed, size)
    assert_close(normal_divergence(*case), reference(*case), rtol=1e-9, atol=1e-9)


@given(st.integers(0, 1000))
def test_normal_divergence_in_float32(seed):
    case = pairs(seed)
    single = normal_divergence(*(t.float() for t in case))
    assert_close(single.double(), reference(*case), rtol=1e-4, atol=1e-4)


def test_normal_divergence_is_not_rounded_to_bfloat16():
    case = [t.float() for t in pairs(0)]
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = normal_divergence(*case)
    assert torch.equal(under_autocast, normal_divergence(*case))
    from_bfloat16 = normal_divergence(*(t.bfloat16() for t in case))
    assert torch.equal(from_bfloat16, normal_divergence(*(t.bfloat16().float() for t in case)))


@given(st.integers(0, 1000), st.floats(0.01, 1))
def test_normal_divergence_is_zero_only_for_equal_distributions(seed, size):
    mean, log_scale, prior_mean, prior_log_scale = pairs(seed, size)
    everyone = torch.cat([mean, prior_mean]), torch.cat([log_scale, prior_log_scale])
    divergence = normal_divergence(*everyone, *everyone)
    assert_close(divergence.diagonal(), torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (divergence > -1e-9).all()
    assert (divergence + torch.eye(8) > 0).all()


def test_normal_divergence_passes_gradcheck():
    case = [t.requires_grad_() for t in pairs(0)]
    assert torch.autograd.gradcheck(normal_divergence, case)
