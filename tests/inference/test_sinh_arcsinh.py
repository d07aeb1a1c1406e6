"""Numbers made normal: the curve against autograd, and what it makes of tails, of skewness and of what is normal already."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch.testing import assert_close

from likely.inference.sinh_arcsinh import SinhArcsinh


def normal(n=4000, D=1, seed=0):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def curve(location=0.0, log_scale=0.0, log_tail=0.0, skew=0.0):
    return SinhArcsinh(torch.tensor([location, log_scale, log_tail, skew])[:, None])


CURVES = [curve(0.3, -0.5, 0.4, 0.2), curve(-1, 0.7, -0.9, -1.5)]


@pytest.mark.parametrize("t", CURVES)
def test_the_slope_is_the_curves_own(t):
    z = normal(50).double().requires_grad_()
    (slope,) = torch.autograd.grad(t(z).sum(), z)
    assert_close(t.log_derivative(z).exp(), slope)
    assert (slope > 0).all()


def test_nothing_is_changed_by_no_curve_nor_by_a_straight_one():
    z = 3 * normal()
    for t in (SinhArcsinh.identity(), curve()):
        assert_close(t(z), z)
        assert_close(t.log_derivative(z), torch.zeros_like(z), atol=1e-5, rtol=0)
    assert curve().changes
    assert not SinhArcsinh.identity().changes


@pytest.mark.parametrize(
    "bent",
    [
        pytest.param(lambda z: z, id="normal"),
        pytest.param(torch.sinh, id="heavy tails"),
        pytest.param(lambda z: z.asinh(), id="light tails"),
        pytest.param(lambda z: (1 + (z - 0.8).sinh()) / 3, id="skewed"),
    ],
)
def test_what_has_such_a_distribution_becomes_normal(bent):
    t = SinhArcsinh.fit(bent(normal()))
    fresh = t(bent(normal(seed=1)))[:, 0]
    assert kstest(fresh.numpy(), "norm").statistic < 0.04


def test_each_kind_of_number_has_its_own_curve():
    z = torch.cat([normal(), normal(seed=1).sinh()], 1)
    t = SinhArcsinh.fit(z)
    assert t.parameters.shape == (4, 2)
    assert t.parameters[2, 0] > t.parameters[2, 1] + 0.3
    assert_close(t(z)[:, :1], SinhArcsinh.fit(z[:, :1])(z[:, :1]), rtol=1e-3, atol=1e-3)


def test_a_few_numbers_are_taken_to_be_normal():
    t = SinhArcsinh.fit(normal(2))
    assert (t(torch.tensor([[-1.0], [1.0]])).abs() < 10).all()


@pytest.mark.parametrize("same", [0.0, 1.0])
def test_what_never_varies_and_what_lies_far_away_stays_finite(same):
    t = SinhArcsinh.fit(torch.full((100, 1), same))
    far = torch.tensor([[-1e30], [-1e4], [same], [1e4], [1e30]])
    assert t(far).isfinite().all()
    assert t.log_derivative(far[1:-1]).isfinite().all()
    assert (t(far).diff(dim=0) >= 0).all()
    assert math.isfinite(t(far).square().sum().item())


def test_gradients_need_no_permission():
    with torch.inference_mode():
        t = SinhArcsinh.fit(normal())
    assert t.parameters.abs().max() < 0.5
