"""Benjamini-Hochberg on conformal p-values: by hand, and the false discovery rate of simulated mixtures."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likely.inference.false_discovery import benjamini_hochberg, n_calibration_needed

Q = 0.1


@given(
    p=st.lists(st.floats(0.001, 1) | st.just(float("nan")), max_size=30).map(
        lambda values: torch.tensor(values, dtype=torch.float64)
    ),
    q=st.sampled_from([0.05, 0.2, 0.5]),
)
def test_rejects_the_largest_number_of_images_that_the_rate_allows(p, q):
    tested = p[~p.isnan()].sort().values
    k = torch.arange(1, len(tested) + 1, dtype=torch.float64)
    n_rejected = int(max(k[tested <= q * k / max(1, len(tested)) * (1 + 1e-12)].tolist(), default=0))
    rejected = benjamini_hochberg(p, q)
    assert int(rejected.sum()) == n_rejected
    if n_rejected:
        assert (p[rejected] <= tested[n_rejected - 1]).all()


@pytest.mark.parametrize("n_calibration", [200, 2000])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_false_discovery_rate_of_mixtures_is_below_q(n_calibration, fraction):
    """New calibration and test images in each of 200 draws; known scores are N(0, 1), unknown ones N(4, 1)."""
    rng, n = torch.Generator().manual_seed(0), 500
    is_unknown = torch.arange(n) < fraction * n
    found = []
    for _ in range(200):
        calibration = torch.randn(n_calibration, generator=rng).sort().values
        scores = torch.randn(n, generator=rng) + 4 * is_unknown
        p_values = (1 + n_calibration - torch.searchsorted(calibration, scores)).double() / (1 + n_calibration)
        rejected = benjamini_hochberg(p_values, Q)
        found.append((rejected & ~is_unknown).sum() / rejected.sum().clamp_min(1))
    proportions = torch.stack(found)
    assert proportions.mean() <= Q + 4 * proportions.std() / len(found) ** 0.5
    if fraction == 0.5:
        assert proportions.mean() > 0  # the level is used


def test_images_at_the_smallest_p_value_need_enough_calibration_images():
    n_calibration, n = 200, 1000
    smallest = 1 / (n_calibration + 1)
    p_values = torch.full((n,), 0.5, dtype=torch.float64)
    p_values[:5] = smallest
    needed = n_calibration_needed(p_values, Q, smallest)
    assert needed == 1999
    p_values[:5] = 1 / (needed + 1)
    assert benjamini_hochberg(p_values, Q)[:5].all()
    assert n_calibration_needed(p_values, Q, 1 / (needed + 1)) is None
    p_values[:5] = 1 / needed
    assert not benjamini_hochberg(p_values, Q).any()


def test_more_calibration_images_are_not_asked_for_in_vain():
    assert n_calibration_needed(torch.tensor([0.5, 0.9]), Q, 0.01) is None  # no image is atypical
    assert n_calibration_needed(torch.tensor([0.25, 0.9]), Q, 0.2) == 19  # none could be
    assert n_calibration_needed(torch.tensor([]), Q, 0.01) is None
