"""Another mix of classes: found where it is known, left alone where it has not changed, and doubted where nobody can tell."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare
from torch.testing import assert_close

from likely.inference.label_shift import (
    DEFAULT_OPTIONS,
    BiasCorrection,
    estimate_prior,
    log_prior_from_fractions,
)
from likely.inference.posterior import log_posterior, log_uniform

K = 10
SKEWED = torch.tensor([0.25, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05, 0.04, 0.04, 0.02], dtype=torch.float64)
GONE = torch.tensor([0.4, 0.25, 0.12, 0.1, 0.05, 0.04, 0.02, 0.015, 0.005, 0.0], dtype=torch.float64)
BIAS = torch.tensor([0.6, -0.4, 0.2, -0.9, 0.1, 0.5, 0.0, -0.5, 0.8, -0.4], dtype=torch.float64)


class World:
    """Ten Gaussian classes in five dimensions, of which `spread` tells how far apart they lie."""

    def __init__(self, seed, spread=1.5, n_classes=K):
        self.rng = torch.Generator().manual_seed(seed)
        self.means = spread * torch.randn(n_classes, 5, generator=self.rng, dtype=torch.float64)

    def __call__(self, fractions, n):
        """log p(x | c) of n images, (n, K), and their labels."""
        y = torch.multinomial(fractions, n, replacement=True, generator=self.rng)
        x = self.means[y] + torch.randn(n, 5, generator=self.rng, dtype=torch.float64)
        return -torch.cdist(x, self.means).square() / 2, y

    def mix(self):
        """Shares drawn from Dirichlet(0.3)."""
        return torch._sample_dirichlet(torch.full((K,), 0.3, dtype=torch.float64), generator=self.rng)


def certain(counts):
    """Scores that leave no doubt, of so many images of each class."""
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return 1e4 * torch.nn.functional.one_hot(y, len(counts)).double()


def objective(scores, log_prior, fractions):
    return (
        torch.logsumexp(scores + fractions.log(), 1).sum()
        + DEFAULT_OPTIONS.pseudo_count * log_prior.exp() @ fractions.log()
    )


def accuracy(log_scores, y, log_prior):
    return 100 * (log_posterior(log_scores, log_prior).argmax(1) == y).double().mean().item()


# The estimate


@st.composite
def scored(draw):
    """Scores (N, K) of any size, with a log prior (K,)."""
    n_classes, N, seed = draw(st.integers(1, 5)), draw(st.integers(1, 30)), draw(st.integers(0, 10**6))
    rng = torch.Generator().manual_seed(seed)
    scores = 10 ** draw(st.floats(-2, 3)) * torch.randn(N, n_classes, generator=rng, dtype=torch.float64)
    prior = 0.05 + torch.rand(n_classes, generator=rng, dtype=torch.float64)
    return scores, (prior / prior.sum()).log(), rng


@settings(max_examples=40)
@given(scored())
def test_no_other_mix_is_better(case):
    scores, log_prior, rng = case
    estimate = estimate_prior(scores, log_prior).estimate
    best = objective(scores, log_prior, estimate)
    others = torch.rand(20, len(log_prior), generator=rng, dtype=torch.float64) + 1e-9
    others = torch.cat([others / others.sum(1, keepdim=True), 0.99 * estimate + 0.01 * torch.eye(len(log_prior))])
    assert all(
        objective(scores, log_prior, other) <= best + DEFAULT_OPTIONS.tolerance + 1e-12 * best.abs() for other in others
    )


@settings(max_examples=40)
@given(scored())
def test_estimated_prior_sums_to_one_and_lies_in_its_intervals(case):
    scores, log_prior, _ = case
    mix = estimate_prior(scores, log_prior)
    assert mix.estimate.sum().item() == pytest.approx(1)
    assert 0 <= mix.low.min() <= mix.high.max() <= 1
    assert ((mix.low <= mix.estimate + 1e-12) & (mix.estimate <= mix.high + 1e-12)).all()
    assert 0 <= mix.p_value <= 1
    assert 0 <= mix.identifiability.information_fraction <= 1 + 2 / len(scores)
    assert torch.equal(mix.log_prior, mix.estimate.log() if mix.shifted else log_prior)
    assert mix.n_used == len(scores)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_classes_have_no_order(seed):
    scores, _ = World(seed)(SKEWED, 50)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(seed))
    plain, shuffled = estimate_prior(scores, SKEWED.log()), estimate_prior(scores[:, order], SKEWED[order].log())
    assert_close(shuffled.estimate, plain.estimate[order], rtol=1e-3, atol=1e-4)
    assert shuffled.p_value == pytest.approx(plain.p_value, abs=1e-3)


def test_a_constant_of_each_image_and_a_temperature_divided_out_change_nothing():
    scores, _ = World(1)(GONE, 100)
    moved = estimate_prior(7 * scores + 1e5 * torch.arange(100)[:, None], log_uniform(K), temperature=7)
    plain = estimate_prior(scores, log_uniform(K))
    assert_close(moved.estimate, plain.estimate, rtol=1e-4, atol=1e-6)
    assert_close(moved.high, plain.high, rtol=1e-4, atol=1e-6)


def test_certain_scores_are_counted():
    counts = torch.tensor([30, 50, 20], dtype=torch.float64)
    prior, z, N = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 1.959964, 100
    mix = estimate_prior(certain([30, 50, 20]), prior.log(), alpha=0.05)
    estimate = (counts + DEFAULT_OPTIONS.pseudo_count * prior) / (N + DEFAULT_OPTIONS.pseudo_count)
    assert_close(mix.estimate, estimate, rtol=1e-6, atol=1e-9)
    middle = (estimate + z**2 / (2 * N)) / (1 + z**2 / N)  # Wilson 1927
    half = z / (1 + z**2 / N) * (estimate * (1 - estimate) / N + z**2 / (4 * N**2)).sqrt()
    assert_close(mix.low, middle - half, rtol=0.01, atol=0)
    assert_close(mix.high, middle + half, rtol=0.01, atol=0)
    assert mix.p_value == pytest.approx(float(chisquare(counts.numpy(), (N * prior).numpy()).pvalue), rel=0.05)
    assert mix.identifiability.information_fraction == pytest.approx(1, abs=0.01)
    assert mix.identifiability.confused == ()


def test_two_kinds_of_image_and_two_classes_have_a_closed_form():
    """p(1 | a) = 0.8, p(1 | b) = 0.3: of N images a share f is 1, and π_a = (f − 0.3) / 0.5, √(f (1 − f) / N) / 0.5 off."""
    N, f = 1000, 0.5
    rows = torch.tensor([[0.8, 0.3], [0.2, 0.7]]).log().repeat_interleave(N // 2, 0)
    mix = estimate_prior(rows, log_uniform(2), alpha=0.05)
    assert mix.estimate[0].item() == pytest.approx(0.4, abs=1e-3)
    deviation = math.sqrt(f * (1 - f) / N) / 0.5
    assert (mix.high - mix.low)[0].item() == pytest.approx(2 * 1.96 * deviation, rel=0.01)
    assert mix.p_value == pytest.approx(math.erfc(0.05 / math.sqrt(0.55 * 0.45 / N) / math.sqrt(2)), rel=0.02)
    assert mix.identifiability.information_fraction == pytest.approx(0.25 * 0.25 / (0.55 * 0.45), rel=0.02)


# Its intervals


@pytest.mark.parametrize("fractions", [SKEWED, GONE, torch.ones(K, dtype=torch.float64) / K])
@pytest.mark.parametrize("spread", [0.8, 5.0])
def test_intervals_contain_the_true_prior(fractions, spread):
    world, times = World(2, spread), 60
    mixes = [estimate_prior(world(fractions, 400)[0], log_uniform(K), alpha=0.05) for _ in range(times)]
    missed = torch.stack([(mix.low > fractions) | (fractions > mix.high) for mix in mixes])
    assert missed.sum(0).max() <= binom.ppf(1 - 1e-4 / K, times, 0.07)  # each class; Wilson's promise is approximate
    each = missed.double().mean(1)  # the classes of one draw miss together
    assert each.mean() - 4 * each.std() / math.sqrt(times) < 0.05


def test_intervals_contain_the_true_prior_with_bias_correction_from_few_images():
    world, times = World(3), 60
    missed = []
    for _ in range(times):
        held, y = world(SKEWED, 300)
        mix = estimate_prior(
            world(GONE, 1000)[0] + BIAS, SKEWED.log(), 1, BiasCorrection.fit(held + BIAS, y, SKEWED.log()), 0.05
        )
        missed.append((mix.low > GONE) | (mix.high < GONE))
    assert torch.stack(missed).sum(0).max() <= binom.ppf(1 - 1e-4 / K, times, 0.07)


def test_a_class_that_was_not_seen_may_be_there_as_often_as_three_in_so_many_images():
    mix = estimate_prior(certain([60, 40, 0]), log_uniform(3), alpha=0.05)
    assert mix.low[2] == 0
    assert 3 / 100 < mix.high[2] < 6 / 100


# Whether anything has shifted


@pytest.mark.parametrize(("spread", "n"), [(0.7, 300), (1.5, 40), (1.5, 1000), (6.0, 100)])
def test_an_unchanged_mix_is_refuted_as_seldom_as_promised(spread, n):
    world, times = World(4, spread), 100
    mixes = [estimate_prior(world(SKEWED, n)[0], SKEWED.log(), alpha=0.05) for _ in range(times)]
    assert sum(mix.shifted for mix in mixes) <= binom.ppf(1 - 1e-4, times, 0.06)
    assert all(torch.equal(mix.log_prior, SKEWED.log()) for mix in mixes if not mix.shifted)


def test_biased_scores_pass_for_a_shift_unless_offsets_take_the_bias_out():
    world, times = World(5), 30
    log_prior = log_uniform(K)
    raw = corrected = 0
    for _ in range(times):
        scores, (held, y) = world(log_prior.exp(), 1000)[0] + BIAS, world(log_prior.exp(), 500)
        raw += estimate_prior(scores, log_prior, alpha=0.05).shifted
        corrected += estimate_prior(scores, log_prior, 1, BiasCorrection.fit(held + BIAS, y, log_prior), 0.05).shifted
    assert raw > times / 2
    assert corrected <= binom.ppf(1 - 1e-4, times, 0.06)


def test_adapting_gains_what_knowing_the_mix_would_and_loses_nothing_without_a_shift():
    world, log_prior = World(6, 1.0), log_uniform(K)
    held, labels = world(log_prior.exp(), 1000)
    offsets = BiasCorrection.fit(held + BIAS, labels, log_prior)
    gains, best, lost = [], [], []
    for _ in range(20):
        fractions = world.mix()
        scores, y = world(fractions, 1000)
        before = accuracy(scores + BIAS, y, log_prior)
        gains.append(
            accuracy(scores + BIAS, y, estimate_prior(scores + BIAS, log_prior, 1, offsets).log_prior) - before
        )
        best.append(accuracy(scores + BIAS, y, fractions.log()) - before)
        same, y = world(log_prior.exp(), 1000)
        retained = estimate_prior(same + BIAS, log_prior, 1, offsets).log_prior
        lost.append(accuracy(same + BIAS, y, log_prior) - accuracy(same + BIAS, y, retained))
    assert sum(best) / 20 > 10
    assert sum(gains) >= 0.9 * sum(best)
    assert sum(lost) / 20 <= 0.1


def test_one_image_refutes_nothing():
    mix = estimate_prior(certain([0, 1, 0]), log_uniform(3))
    assert not mix.shifted
    assert torch.equal(mix.log_prior, log_uniform(3))


def test_scores_that_say_nothing_leave_the_training_mix():
    mix = estimate_prior(torch.zeros(1000, K), SKEWED.log())
    assert_close(mix.estimate, SKEWED)
    assert mix.p_value == 1
    assert mix.identifiability.information_fraction == pytest.approx(0, abs=1e-9)
    assert mix.low.max() == 0
    assert mix.high.min() == 1


def test_single_class_has_prior_one():
    mix = estimate_prior(torch.randn(5, 1, generator=torch.Generator().manual_seed(0)), log_uniform(1))
    assert (mix.estimate.item(), mix.high.item(), mix.p_value) == (1, 1, 1)
    assert mix.identifiability.confused == ()


# What cannot be told


def test_classes_of_equal_scores_are_not_identifiable():
    scores, _ = World(7)(SKEWED, 1000)
    scores[:, 3] = scores[:, 1]
    found = estimate_prior(scores, SKEWED.log())
    assert found.identifiability.confused == ((1, 3),)
    assert found.identifiability.information_fraction < 1e-2
    assert (found.low[[1, 3]] == 0).all()
    assert (found.high - found.low)[[0, 2, 4, 5, 6, 7, 8, 9]].max() < 0.2


def test_of_a_class_that_looks_like_a_mixture_of_two_others_images_tell_next_to_nothing():
    world = World(8, 6.0, 4)
    scores, _ = world(torch.tensor([0.4, 0.3, 0.3, 0.0]), 500)
    scores[:, 3] = torch.logsumexp(scores[:, 1:3], 1) - math.log(2)
    assert estimate_prior(scores, log_uniform(4)).identifiability.information_fraction < 0.01


@pytest.mark.parametrize("n", [5, 20, 100])
def test_perfectly_separated_classes_are_never_confused(n):
    world = World(9, 8.0)
    for _ in range(20):
        assert estimate_prior(world(GONE, n)[0], log_uniform(K), alpha=0.05).identifiability.confused == ()


def test_similar_classes_are_identifiable_only_with_many_images():
    means = torch.tensor([0.0, 0.5])
    rng = torch.Generator().manual_seed(10)
    x = means.repeat(2000) + torch.randn(4000, generator=rng)
    scores = -(x[:, None] - means).square() / 2
    assert estimate_prior(scores[:30], log_uniform(2)).identifiability.confused == ((0, 1),)
    assert estimate_prior(scores, log_uniform(2)).identifiability.confused == ()


# Offsets


def test_offsets_find_the_bias_that_was_put_in():
    scores, y = World(11)(SKEWED, 3000)
    found = BiasCorrection.fit(3 * (scores - BIAS), y, SKEWED.log(), temperature=3)
    center = torch.eye(K, dtype=torch.float64) - 1 / K  # a constant of all classes cancels
    deviation = (center @ found.covariance @ center).diagonal().sqrt()
    assert ((center @ (found.values - BIAS)).abs() < 5 * deviation + 0.02).all()
    assert deviation.max() < 0.3


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0, 40))
def test_bias_correction_predicts_the_training_prior(seed, size):
    """Whatever the scores: a bias of forty nats, too, at which whole steps of Newton's method lead nowhere."""
    world = World(seed, n_classes=4)
    log_prior = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    scores, y = world(torch.ones(4), 300)
    scores = scores + size * torch.randn(4, generator=world.rng)
    b = BiasCorrection.fit(scores, y, log_prior).values
    p = log_posterior(scores + b, log_prior).exp()
    fraction = (log_prior.double().exp() * 300 / torch.bincount(y))[y]
    pull = b / DEFAULT_OPTIONS.prior_sd**2 / 300  # of the little trust in no offset
    assert_close(fraction @ p / 300, log_prior.double().exp() - pull, rtol=0, atol=1e-4)


def test_the_calibration_images_themselves_have_not_shifted():
    scores, y = World(12)(SKEWED, 500)
    offsets = BiasCorrection.fit(scores + BIAS, y, SKEWED.log())
    own = torch.bincount(y, minlength=K) / 500
    assert_close(estimate_prior(scores + BIAS, SKEWED.log(), 1, offsets).estimate, own.double(), rtol=0, atol=0.03)


def test_a_class_without_calibration_images_keeps_its_scores_and_is_doubted():
    scores, y = World(13)(SKEWED, 1000)
    known = y != 4
    found = BiasCorrection.fit(scores[known], y[known], SKEWED.log())
    assert found.values[4] == 0
    assert found.covariance[4, 4].item() == pytest.approx(DEFAULT_OPTIONS.prior_sd**2)


def test_a_class_with_one_calibration_image_is_doubted_more_than_one_with_many():
    scores, y = World(14)(SKEWED, 500)
    first = (y == 4).nonzero()[0, 0]
    retained = (y != 4) | (torch.arange(500) == first)
    few, many = (BiasCorrection.fit(scores[rows], y[rows], SKEWED.log()) for rows in (retained, y >= 0))
    center = torch.eye(K, dtype=torch.float64) - 1 / K  # a constant of all classes cancels
    assert (center @ few.covariance @ center)[4, 4] > (center @ many.covariance @ center)[4, 4]


def test_without_calibration_images_nothing_is_known_of_offsets():
    found = BiasCorrection.fit(torch.zeros(0, K), torch.zeros(0, dtype=torch.long), log_uniform(K))
    assert torch.equal(found.values, torch.zeros(K, dtype=torch.float64))
    assert_close(found.covariance, DEFAULT_OPTIONS.prior_sd**2 * torch.eye(K, dtype=torch.float64))


# What is asked for


def test_a_mix_needs_images():
    with pytest.raises(ValueError, match="0 images say nothing"):
        estimate_prior(torch.zeros(0, 3), log_uniform(3))


def test_a_mix_needs_classes_that_training_has_seen():
    with pytest.raises(ValueError, match="more than 0 for every class"):
        estimate_prior(torch.zeros(2, 2), torch.tensor([0.0, -math.inf]))


def test_results_are_frozen():
    mix = estimate_prior(torch.zeros(2, 2), log_uniform(2))
    with pytest.raises(FrozenInstanceError):
        mix.shifted = True


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda fractions: sum(fractions) > 0.01))
def test_fractions_become_a_log_prior(fractions):
    total = sum(fractions)
    log_prior = log_prior_from_fractions(
        [fraction / total for fraction in fractions], [f"class {i}" for i in range(len(fractions))]
    )
    assert log_prior.dtype == torch.float64
    assert_close(log_prior.exp(), torch.tensor(fractions, dtype=torch.float64) / total)


def test_rounded_fractions_are_accepted():
    assert_close(log_prior_from_fractions([0.33, 0.33, 0.33], ["a", "b", "c"]), log_uniform(3))


@pytest.mark.parametrize(
    ("fractions", "sentence"),
    [
        ([0.5, 0.5], "2 shares for 3 classes: expected one for each of boot, coat, shirt"),
        ([0.5, -0.1, 0.6], "the share of 'coat' is -0.1: expected a number from 0 to 1"),
        ([50, 30, 20], "the share of 'boot' is 50: expected a number from 0 to 1"),
        ([0.5, 0.5, math.nan], "the share of 'shirt' is nan: expected a number from 0 to 1"),
        ([0.0, 0.0, 0.0], "the shares sum to 0: expected 1"),
        ([0.4, 0.2, 0.2], "the shares sum to 0.8: expected 1, as in boot 0.5, coat 0.25, shirt 0.25"),
    ],
)
def test_invalid_fractions_are_refused(fractions, sentence):
    with pytest.raises(ValueError) as refusal:
        log_prior_from_fractions(fractions, ["boot", "coat", "shirt"])
    assert str(refusal.value) == sentence


def test_a_mix_of_very_many_classes_is_not_estimated():
    offsets = BiasCorrection.unavailable(K)
    assert not offsets.with_new_class().covariance.numel()
    assert len(offsets.with_new_class().values) == K + 1
    with pytest.raises(ValueError, match="a mix of 10 classes has too many shares"):
        estimate_prior(torch.zeros(5, K), log_uniform(K), 1.0, offsets)
