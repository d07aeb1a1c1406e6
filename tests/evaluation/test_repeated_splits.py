"""Repeated splits: intervals that account for shared images."""

import numpy as np
import pytest
from scipy.stats import t

from likely.evaluation.repeated_splits import ResampledEstimate


def test_interval_without_overlap_is_students():
    values = [0.9, 0.92, 0.94, 0.91]
    found = ResampledEstimate.from_values(values, n_train=10**9, n_test=1)
    low, high = t.interval(0.95, 3, np.mean(values), np.std(values, ddof=1) / 2)
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    assert found.mean == pytest.approx(np.mean(values))


def test_shared_images_widen_the_interval():
    values = [0.9, 0.92, 0.94, 0.91]
    alone, shared = (ResampledEstimate.from_values(values, n_train=400, n_test=n) for n in (0, 100))
    assert (shared.high - shared.mean) / (alone.high - alone.mean) == pytest.approx(((1 / 4 + 1 / 4) / (1 / 4)) ** 0.5)


def test_equal_results_have_an_empty_interval():
    found = ResampledEstimate.from_values([0.5, 0.5, 0.5], n_train=10, n_test=5)
    assert found.low == found.high == 0.5
