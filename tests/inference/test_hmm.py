"""Images one after another: beside every path of classes written out, on sequences short enough for it."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from likely.inference.hmm import HMMFilter
from likely.inference.posterior import log_posterior, log_uniform

LOG_PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()


def filtered(log_scores, log_prior, persistence, temperature=1.0):
    return HMMFilter.start(log_prior, persistence).filter(log_scores, temperature)


def smoothed(log_scores, log_prior, persistence, temperature=1.0):
    return HMMFilter.start(log_prior, persistence).smooth(log_scores, temperature)


@st.composite
def sequences(draw, longest=4):
    """Scores (T, K) with a log prior (K,)."""
    T, K, seed = draw(st.integers(1, longest)), draw(st.integers(1, 3)), draw(st.integers(0, 10**6))
    rng = torch.Generator().manual_seed(seed)
    prior = 0.05 + torch.rand(K, generator=rng, dtype=torch.float64)
    return 3 * torch.randn(T, K, generator=rng), (prior / prior.sum()).log()


persistences = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


def by_enumeration(scores, log_prior, persistence):
    """p(c_t | x_1..T), (T, K), from the probability of every path of classes and all images together."""
    T, K = scores.shape
    prior, likelihood = log_prior.exp(), scores.double().exp()
    transition = persistence * torch.eye(K, dtype=torch.float64) + (1 - persistence) * prior  # [from, to]
    p = torch.zeros(T, K, dtype=torch.float64)
    for path in product(range(K), repeat=T):
        joint = prior[path[0]] * likelihood[0, path[0]]
        for t in range(1, T):
            joint = joint * transition[path[t - 1], path[t]] * likelihood[t, path[t]]
        p[range(T), path] += joint
    return p / p.sum(1, keepdim=True)


@settings(max_examples=30)
@given(sequences(), persistences)
def test_the_filter_is_the_sum_over_all_paths_so_far(case, persistence):
    scores, log_prior = case
    log_p = filtered(scores, log_prior, persistence)
    for t in range(len(scores)):
        assert_close(log_p[t].exp(), by_enumeration(scores[: t + 1], log_prior, persistence)[t])


@settings(max_examples=30)
@given(sequences(), persistences)
def test_smoothing_is_the_sum_over_all_paths(case, persistence):
    scores, log_prior = case
    assert_close(smoothed(scores, log_prior, persistence).exp(), by_enumeration(scores, log_prior, persistence))


@given(sequences(longest=12), st.floats(0.1, 10))
def test_without_persistence_every_image_is_for_itself(case, temperature):
    scores, log_prior = case
    alone = log_posterior(scores, log_prior, temperature)
    assert_close(filtered(scores, log_prior, 0, temperature), alone)
    assert_close(smoothed(scores, log_prior, 0, temperature), alone)


@given(sequences(longest=12), st.floats(0.1, 10))
def test_with_full_persistence_all_evidence_counts(case, temperature):
    scores, log_prior = case
    together = log_posterior(scores.double().cumsum(0), log_prior, temperature)
    assert_close(filtered(scores, log_prior, 1, temperature), together)
    assert_close(smoothed(scores, log_prior, 1, temperature), together[-1:].expand_as(together))


@given(sequences(longest=12), persistences)
def test_the_last_image_has_nothing_to_learn_from_later_ones(case, persistence):
    assert_close(smoothed(*case, persistence)[-1], filtered(*case, persistence)[-1])


@given(sequences(longest=12), persistences, st.floats(-1e5, 1e5))
def test_rows_sum_to_one_and_a_constant_of_each_image_cancels(case, persistence, constant):
    scores, log_prior = case
    moved = scores.double() + constant * torch.arange(len(scores))[:, None]
    for posterior in (filtered, smoothed):
        log_p = posterior(scores, log_prior, persistence)
        assert log_p.dtype == torch.float64
        assert_close(log_p.exp().sum(1), torch.ones(len(scores), dtype=torch.float64))
        assert_close(posterior(moved, log_prior, persistence), log_p, rtol=1e-6, atol=1e-6)


def test_a_stream_is_the_batch_image_by_image():
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    state = HMMFilter.start(LOG_PRIOR, 0.8)
    for row, expected in zip(scores, filtered(scores, LOG_PRIOR, 0.8, temperature=2), strict=True):
        before = state.log_posterior.clone()
        after = state.update(row, temperature=2)
        assert torch.equal(state.log_posterior, before)
        assert torch.equal(after.log_posterior, expected)
        state = after


def test_before_the_first_image_there_is_the_prior():
    state = HMMFilter.start(LOG_PRIOR.float(), 0.7)
    assert_close(state.log_posterior, LOG_PRIOR, rtol=1e-6, atol=1e-6)
    assert_close(state.log_predicted, state.log_posterior)


def test_two_images_by_hand():
    """3 : 1 after one image; before the next 0.5 · 3/4 + 0.5 · 1/2 = 5/8, and 3 : 1 once more makes 15 : 3."""
    scores = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log()
    assert_close(filtered(scores, log_uniform(2), 0.5).exp()[:, 0], torch.tensor([3 / 4, 5 / 6], dtype=torch.float64))


def test_what_says_nothing_lets_belief_return_to_the_prior():
    scores = torch.cat([torch.tensor([[0.0, 0.0, 9.0]]), torch.zeros(60, 3)])
    log_p = filtered(scores, LOG_PRIOR, 0.5)
    assert log_p[0].argmax() == 2
    assert_close(log_p[-1], LOG_PRIOR)


def test_persistence_mends_a_single_poor_image():
    scores = torch.tensor([[4.0, 0.0]] * 5 + [[0.0, 1.0]] + [[4.0, 0.0]] * 5)
    assert log_posterior(scores, log_uniform(2)).argmax(1)[5] == 1
    assert filtered(scores, log_uniform(2), 0.9).argmax(1).tolist() == [0] * 11
    assert (smoothed(scores, log_uniform(2), 0.9)[5] > filtered(scores, log_uniform(2), 0.9)[5])[0]


@pytest.mark.parametrize("persistence", [0.0, 0.5, 1.0])
def test_extremes_stay_finite(persistence):
    scores = torch.tensor([[1e6, 0.0, -1e6], [-1e6, 0.0, 1e6], [1e6, 1e6, 1e6]])
    for posterior in (filtered, smoothed):
        assert not posterior(scores, LOG_PRIOR, persistence).isnan().any()


@pytest.mark.parametrize("persistence", [0.0, 0.5, 1.0])
def test_a_class_ruled_out_stays_out(persistence):
    log_prior = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
    scores = torch.tensor([[0.0, 1.0, 50.0], [1.0, 0.0, 50.0], [0.0, 2.0, 50.0]])
    for posterior in (filtered, smoothed):
        log_p = posterior(scores, log_prior, persistence)
        assert (log_p[:, 2] == -math.inf).all()
        assert_close(log_p[:, :2], posterior(scores[:, :2], log_uniform(2), persistence))


@pytest.mark.parametrize("posterior", [filtered, smoothed])
def test_no_images_have_no_posteriors(posterior):
    log_p = posterior(torch.zeros(0, 3), LOG_PRIOR, 0.5)
    assert log_p.shape == (0, 3)
    assert log_p.dtype == torch.float64


@pytest.mark.parametrize("persistence", [-0.1, 1.1, math.nan])
def test_a_persistence_is_a_probability(persistence):
    with pytest.raises(ValueError, match=f"the persistence is {persistence:g}: expected a probability from 0 to 1"):
        HMMFilter.start(LOG_PRIOR, persistence)
