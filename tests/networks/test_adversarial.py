"""Adversarial losses and gradient penalty agree with their closed forms."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from likely.networks.adversarial import ADVERSARIAL_LOSSES

gradient_penalty = ADVERSARIAL_LOSSES["wgan-gp"].penalty


def generator(seed):
    return torch.Generator().manual_seed(seed)


def some(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def test_bce_agrees_with_binary_cross_entropy():
    r, loss = 3 * some(50), ADVERSARIAL_LOSSES["bce"]
    assert_close(loss.real(r), F.binary_cross_entropy_with_logits(r, torch.ones(50)))
    assert_close(loss.fake(r), F.binary_cross_entropy_with_logits(r, torch.zeros(50)))
    assert_close(loss.generator(r), F.binary_cross_entropy_with_logits(r, torch.ones(50)))


def test_bce_is_minimal_at_even_odds_for_equal_distributions():
    loss, r = ADVERSARIAL_LOSSES["bce"], torch.linspace(-3, 3, 61)
    values = torch.stack([loss.real(each[None]) + loss.fake(each[None]) for each in r])
    assert r[values.argmin()].abs() < 1e-5
    assert values.min().item() == pytest.approx(2 * torch.tensor(2.0).log().item(), rel=1e-5)
    even = torch.zeros(5, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.real(even) + loss.fake(even), even)
    assert_close(gradient, torch.zeros(5))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.8])
def test_bce_is_minimal_at_the_true_log_odds(p):
    """Where a share p of the images is real, r = log p / (1 − p) is a minimum (Goodfellow 2014, proposition 1)."""
    r = torch.tensor([p / (1 - p)], dtype=torch.float64).log().requires_grad_()
    loss = ADVERSARIAL_LOSSES["bce"]
    (gradient,) = torch.autograd.grad(p * loss.real(r) + (1 - p) * loss.fake(r), r)
    assert gradient.abs().item() < 1e-12


def test_hinge_is_zero_beyond_a_margin_of_one():
    loss, r = ADVERSARIAL_LOSSES["hinge"], some(50)
    assert loss.real(1 + r.abs()) == 0
    assert loss.fake(-1 - r.abs()) == 0
    assert_close(loss.real(1 - r.abs()), r.abs().mean())
    assert_close(loss.fake(r.abs() - 1), r.abs().mean())
    assert_close(loss.generator(r), -r.mean())


def test_wasserstein_loss_is_the_difference_of_means():
    loss, r, s = ADVERSARIAL_LOSSES["wgan-gp"], some(50), some(50, seed=1)
    assert_close(loss.real(r) + loss.fake(s), s.mean() - r.mean())


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_fake_and_generator_losses_have_opposite_gradients(name):
    r = 0.5 * some(20).tanh()
    r.requires_grad_()
    (found_out,) = torch.autograd.grad(ADVERSARIAL_LOSSES[name].fake(r), r)
    (taken_for_real,) = torch.autograd.grad(ADVERSARIAL_LOSSES[name].generator(r), r)
    assert (found_out > 0).all()
    assert (taken_for_real < 0).all()


def linear(weight):
    """r(x) = w·x, whose slope is ‖w‖ everywhere."""
    return lambda x: x.flatten(1) @ weight


@pytest.mark.parametrize("shape", [(1, 2, 3), (6,)], ids=str)
@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 3.0])
def test_gradient_penalty_of_a_linear_critic_depends_on_its_slope(shape, slope):
    weight = slope * F.normalize(some(6), dim=0)
    weight.requires_grad_()
    penalty = gradient_penalty(linear(weight), some(7, *shape), some(7, *shape, seed=1), generator(0))
    assert penalty.item() == pytest.approx(10 * (slope - 1) ** 2, abs=1e-5)


def test_gradient_penalty_drives_the_slope_to_one():
    for slope in (0.5, 3.0):
        weight = slope * F.normalize(some(6), dim=0)
        weight.requires_grad_()
        penalty = gradient_penalty(linear(weight), some(7, 6), some(7, 6, seed=1), generator(0))
        (gradient,) = torch.autograd.grad(penalty, weight)
        expected = 2 * 10 * (slope - 1) * weight.detach() / slope
        assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_gradient_penalty_interpolates_pairs_of_real_and_fake_images():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.sum(1)

    real, made = torch.zeros(9, 4), torch.ones(5, 4)  # made ones may be fewer
    gradient_penalty(critic, real, made, generator(0))
    (between,) = seen
    assert between.shape == (5, 4)
    assert_close(between, between[:, :1].expand(-1, 4))
    assert 0 <= between.min() <= between.max() <= 1
    assert len(between[:, 0].unique()) == 5


def test_gradient_penalty_has_no_gradient_for_images():
    weight = some(6).requires_grad_()
    real, made = some(7, 6).requires_grad_(), some(7, 6, seed=1).requires_grad_()
    penalty = gradient_penalty(lambda x: (x * weight).sum(1).square(), real, made, generator(0))
    assert torch.autograd.grad(penalty, [real, made], allow_unused=True) == (None, None)
