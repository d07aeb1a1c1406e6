"""The temperature: recovered where it is known, and sensible where there is next to nothing to learn it from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likely.inference.posterior import log_posterior, log_uniform
from likely.inference.temperature_scaling import DEFAULT_OPTIONS, fit_temperature, nll, weights

MOST = DEFAULT_OPTIONS.max_log_temperature

LOG_PRIOR = torch.tensor([0.5, 0.3, 0.2]).log()
SIDE = 40  # of the grids on which a minimum is looked for


def samples(seed, n, sharpness=1.0, n_classes=3):
    """Scores (n, K) and labels that are drawn from the posterior of these very scores under a uniform prior."""
    rng = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn(n, n_classes, generator=rng)
    p = log_posterior(scores, log_uniform(n_classes)).exp()
    return scores, torch.multinomial(p, 1, generator=rng)[:, 0]


def objective(scores, y, log_prior, temperature, expected=1.0):
    return len(y) * nll(scores, y, log_prior, temperature) + DEFAULT_OPTIONS.pseudo_count * (
        expected / temperature + math.log(temperature)
    )


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 7.0, 300.0])
def test_recovers_a_known_temperature(temperature):
    scores, y = samples(0, 4000, sharpness=2.0)
    # log T̂ is about normal with variance 1 / (N · Fisher information), the variance of the true class's score under p.
    p = log_posterior(scores, log_uniform(3)).exp()
    information = ((p * scores.square()).sum(1) - (p * scores).sum(1).square()).sum().item()
    fitted = fit_temperature(temperature * scores, y, log_uniform(3))
    pull = DEFAULT_OPTIONS.pseudo_count * abs(1 / temperature - 1) / information
    assert abs(math.log(fitted / temperature)) < 5 / math.sqrt(information) + 2 * pull


def test_recovers_a_known_temperature_beside_a_prior():
    rng = torch.Generator().manual_seed(1)
    scores = 2 * torch.randn(4000, 3, generator=rng)
    p = log_posterior(scores, LOG_PRIOR).exp()
    y = torch.multinomial(p, 1, generator=rng)[:, 0]
    information = ((p * scores.square()).sum(1) - (p * scores).sum(1).square()).sum().item()
    assert abs(math.log(fit_temperature(10 * scores, y, LOG_PRIOR) / 10)) < 5 / math.sqrt(information) + 0.01


sizes = st.floats(-3, 3).map(lambda power: 10**power)


@given(st.integers(0, 1000), st.integers(1, 200), sizes, st.floats(0.0, 5.0), sizes)
def test_no_temperature_of_a_grid_is_better(seed, n, size, truth, expected):
    scores, y = samples(seed, n)
    scores = size * (scores + truth * torch.nn.functional.one_hot(y, 3))
    best = objective(scores, y, LOG_PRIOR, fit_temperature(scores, y, LOG_PRIOR, expected), expected)
    grid = np.exp(np.linspace(-MOST, MOST, SIDE))
    assert best <= min(objective(scores, y, LOG_PRIOR, T, expected) for T in grid) + 1e-6


def test_with_many_images_the_nll_itself_is_least():
    scores, y = samples(3, 3000)
    scores = 25 * scores
    T = fit_temperature(scores, y, LOG_PRIOR)
    least = min(nll(scores, y, LOG_PRIOR, each) for each in np.exp(np.linspace(-MOST, MOST, 200)))
    assert nll(scores, y, LOG_PRIOR, T) <= least + 1e-3


def test_without_images_it_is_what_is_expected():
    nothing = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), LOG_PRIOR
    assert fit_temperature(*nothing) == 1
    assert fit_temperature(*nothing, 20.0) == 20


def test_images_that_are_all_right_by_far_leave_what_is_expected():
    y = torch.arange(60) % 3
    scores = 1e4 * torch.nn.functional.one_hot(y, 3).float()
    assert fit_temperature(scores, y, LOG_PRIOR, 50.0) == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize("n", [1, 2, 5, 30])
@pytest.mark.parametrize("margin", [1e-3, 1.0, 50.0, 1e6])
def test_a_few_images_all_right_are_not_certainty(n, margin):
    y = torch.arange(n) % 3
    T = fit_temperature(margin * torch.nn.functional.one_hot(y, 3).float(), y, LOG_PRIOR)
    assert 0.01 < T < 100


@pytest.mark.parametrize("n", [1, 5, 30])
@pytest.mark.parametrize("margin", [1e-3, 1.0, 50.0, 1e6])
def test_a_few_images_all_wrong_are_not_ignorance(n, margin):
    y = torch.arange(n) % 3
    T = fit_temperature(-margin * torch.nn.functional.one_hot(y, 3).float(), y, LOG_PRIOR)
    assert 1 <= T <= math.exp(MOST)


def test_equal_scores_say_nothing():
    assert fit_temperature(torch.full((10, 3), 7.0), torch.arange(10) % 3, LOG_PRIOR) == pytest.approx(1)


@given(st.integers(0, 1000), st.floats(0.1, 100))
def test_under_a_uniform_prior_the_answer_stays(seed, size):
    scores, y = samples(seed, 20)
    scores = size * scores
    T = fit_temperature(scores, y, log_uniform(3))
    assert torch.equal(log_posterior(scores, log_uniform(3), T).argmax(1), scores.argmax(1))


def test_a_constant_of_each_image_changes_nothing():
    scores, y = samples(5, 100)
    moved = scores.double() - 1e6 * torch.arange(100)[:, None]
    assert fit_temperature(moved, y, LOG_PRIOR) == pytest.approx(fit_temperature(scores, y, LOG_PRIOR), rel=1e-5)


@given(st.integers(0, 1000), st.integers(2, 5))
def test_many_images_of_a_class_weigh_as_much_as_few(seed, times):
    """A held-out sample speaks for the mix that the prior names, whatever its own mix."""
    scores, y = samples(seed, 30)
    y[:3] = torch.arange(3)
    repeats = torch.where(y == 1, times, 1)
    more = scores.repeat_interleave(repeats, 0), y.repeat_interleave(repeats)
    assert nll(*more, LOG_PRIOR) == pytest.approx(nll(scores, y, LOG_PRIOR))
    assert weights(y, LOG_PRIOR).mean().item() == pytest.approx(1)


def test_images_in_the_priors_own_mix_weigh_the_same():
    y = torch.arange(3).repeat_interleave(torch.tensor([5, 3, 2]))
    assert weights(y, LOG_PRIOR).tolist() == pytest.approx([1] * 10)


def test_nll_by_hand():
    scores = torch.tensor([[1.0, 1.0], [math.log(3), 0.0]])
    assert nll(scores, torch.tensor([0, 1]), log_uniform(2)) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_nll_at_a_temperature_is_that_of_the_divided_scores():
    scores, y = samples(6, 30)
    assert nll(4 * scores, y, LOG_PRIOR, 4) == pytest.approx(nll(scores, y, LOG_PRIOR))


@pytest.mark.parametrize(("prior_temperature", "log_temperature"), [(1e-6, -MOST), (1e6, MOST)])
def test_the_temperature_stays_within_its_bounds(prior_temperature, log_temperature):
    scores, y = torch.zeros(10, 2), torch.arange(10) % 2  # every temperature is equally likely
    temperature = fit_temperature(scores, y, log_uniform(2), prior_temperature)
    assert temperature == pytest.approx(math.exp(log_temperature))
