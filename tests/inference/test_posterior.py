"""Bayes' rule on matrices written by hand or drawn at random."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from likely.inference.posterior import log_evidence, log_posterior, log_uniform, topk_log_posterior


@st.composite
def matrices(draw, largest=1e6):
    """L (B, K) with a log prior (K,)."""
    B, K = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    numbers = st.floats(-largest, largest, width=32)
    L = draw(st.lists(st.lists(numbers, min_size=K, max_size=K), min_size=B, max_size=B))
    prior = torch.tensor(draw(st.lists(st.floats(0.01, 1), min_size=K, max_size=K)), dtype=torch.float64)
    return torch.tensor(L), (prior / prior.sum()).log()


temperatures = st.floats(1e-2, 1e4)


@given(matrices(), temperatures)
def test_rows_sum_to_one(case, temperature):
    log_p = log_posterior(*case, temperature)
    assert log_p.dtype == torch.float64
    assert_close(log_p.exp().sum(1), torch.ones(len(log_p), dtype=torch.float64))


@given(matrices(), temperatures, st.floats(-1e6, 1e6))
def test_a_constant_of_the_image_cancels(case, temperature, constant):
    L, log_prior = case
    moved = log_posterior(L.double() + constant, log_prior, temperature)
    assert_close(moved, log_posterior(L, log_prior, temperature), rtol=1e-6, atol=1e-6)


@given(matrices(largest=20))
def test_at_temperature_one_it_is_bayes_rule(case):
    L, log_prior = case
    joint = L.double().exp() * log_prior.exp()
    assert_close(log_posterior(L, log_prior).exp(), joint / joint.sum(1, keepdim=True))


@given(matrices(largest=20), temperatures)
def test_equal_scores_leave_the_prior(case, temperature):
    L, log_prior = case
    same = L[:, :1].expand_as(L)
    assert_close(log_posterior(same, log_prior, temperature), log_prior.expand(len(L), -1))


@given(matrices(largest=100), temperatures)
def test_temperature_divides_the_scores_and_not_the_prior(case, temperature):
    L, log_prior = case
    log_p = log_posterior(L, log_prior, temperature)
    odds = (L[:, :1].double() - L) / temperature + log_prior[0] - log_prior
    assert_close(log_p[:, :1] - log_p, odds, rtol=1e-9, atol=1e-9)


@given(matrices(largest=20))
def test_evidence_is_the_sum_over_the_classes(case):
    L, log_prior = case
    assert_close(log_evidence(L, log_prior), (L.double().exp() * log_prior.exp()).sum(1).log())


@given(matrices(), st.floats(-1e6, 1e6))
def test_evidence_moves_with_the_likelihoods(case, constant):
    L, log_prior = case
    moved = log_evidence(L.double() + constant, log_prior)
    assert_close(moved, log_evidence(L, log_prior) + constant, rtol=1e-12, atol=1e-8)


@pytest.mark.parametrize("value", [1e6, -1e6])
def test_extremes_stay_finite(value):
    L = torch.tensor([[value, 0.0, -value], [value, value, value]])
    assert log_posterior(L, log_uniform(3)).isfinite().all()
    assert log_evidence(L, log_uniform(3)).isfinite().all()


def test_a_million_nats_do_not_hide_a_difference_of_one():
    log_p = log_posterior(torch.tensor([[-1e6, -1e6 - 1]]), log_uniform(2))
    assert log_p[0, 0] - log_p[0, 1] == 1


@pytest.mark.parametrize("n_classes", [1, 2, 81])
def test_uniform_classes_are_equally_likely(n_classes):
    log_prior = log_uniform(n_classes)
    assert log_prior.shape == (n_classes,)
    assert log_prior.tolist() == pytest.approx([-math.log(n_classes)] * n_classes)


@given(st.integers(0, 20), st.integers(1, 40), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([30, 256, 1000]))
def test_the_few_largest_are_the_largest(seed, k, temperature, n):
    rng = torch.Generator().manual_seed(seed)
    scores, prior = 5 * torch.randn(6, n, generator=rng), torch.rand(n, generator=rng).log_softmax(0)
    values, classes = topk_log_posterior(scores, prior, temperature, k)
    expected = log_posterior(scores, prior, temperature).topk(min(k, n))
    assert_close(values.double(), expected.values, rtol=1e-4, atol=1e-4)
    assert torch.equal(classes, expected.indices)
