"""Drift: as often as promised where there is none, and seen where there is enough to matter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from likely.inference.drift import DEFAULT_OPTIONS, drift, quantiles


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("n", [60, 400])
def test_it_is_the_test_of_kolmogorov_and_smirnov(n, shift):
    rng = np.random.default_rng(n)
    now, then = rng.random(n) ** (1 + shift), rng.random(2000)
    found = drift(now, quantiles(torch.from_numpy(then)), len(then))
    expected = ks_2samp(now, then, method="asymp")
    assert found.difference == pytest.approx(expected.statistic, abs=0.006)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.03)


def test_alarms_are_rare_where_nothing_has_drifted():
    rng = np.random.default_rng(0)
    reference = quantiles(torch.from_numpy(rng.random(1500)))
    alarms = sum(drift(rng.random(300), reference, 1500).has_drifted for _ in range(300))
    assert alarms <= 9  # at 1 %, 9 of 300 come once in a few hundred times


def test_a_large_drift_is_seen_and_a_small_one_is_not_worth_a_word():
    rng = np.random.default_rng(1)
    reference = quantiles(torch.from_numpy(rng.random(3000)))
    assert drift(rng.random(400) ** 3, reference, 3000).has_drifted
    small = drift(rng.random(100_000) * 0.95, reference, 3000)
    assert small.p_value < 0.01
    assert small.difference < DEFAULT_OPTIONS.min_difference
    assert not small.has_drifted


def test_of_too_few_images_nothing_is_said():
    reference = quantiles(torch.rand(100))
    assert drift([0.0] * (DEFAULT_OPTIONS.min_images - 1), reference, 100).has_drifted is None
    assert drift([], reference, 100) is None
    assert drift([0.5], [], 0) is None


@given(st.lists(st.sampled_from([0.1, 0.2, 0.5, 1.0]), min_size=1), st.lists(st.floats(0, 1), min_size=1))
def test_difference_is_a_fraction_despite_ties(now, then):
    found = drift(now, quantiles(torch.tensor(then)), len(then))
    assert 0 <= found.difference <= 1
    assert 0 <= found.p_value <= 1


def test_the_same_values_have_not_drifted():
    values = torch.tensor([0.1] * 30 + [0.7] * 30 + [1.0] * 40)
    assert drift(values.tolist(), quantiles(values), 100).difference < 0.02
