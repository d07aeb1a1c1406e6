"""NonconformityScore agrees with the Mahalanobis distance for any units, and is extended by new classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import EmpiricalCovariance
from torch.testing import assert_close

from likely.inference.nonconformity import NonconformityOptions, NonconformityScore, Statistics


def statistics(seed, n, n_classes=3, n_shared=3, n_by_class=2):
    """Correlated statistics whose means and spreads differ by class, and labels that take turns."""
    rng, y = torch.Generator().manual_seed(seed), torch.arange(n) % n_classes
    D = n_shared + n_by_class
    mix = torch.eye(D) + 0.4 * torch.randn(D, D, generator=rng)
    v = torch.randn(n, D, generator=rng) @ mix * (1 + y[:, None]) + y[:, None]
    by_class = v[:, None, n_shared:] + torch.arange(n_classes)[:, None] - y[:, None, None]
    return Statistics(v[:, :n_shared], by_class), y


def fitted(t, y, K=3, **options):
    return NonconformityScore.fit((t.of_true_class(y), y), K, NonconformityOptions(**options))


def test_without_shrinkage_the_score_agrees_with_the_mahalanobis_distance():
    t, y = statistics(0, 9000)
    found = fitted(t, y, shrinkage=0.0)(t)
    for c in range(3):
        v = torch.cat([t.features, t.by_class[:, c]], 1).double().numpy()
        expected = EmpiricalCovariance().fit(v[y == c]).mahalanobis(v)
        np.testing.assert_allclose(found[:, c], expected, rtol=0.05)


def test_too_likely_is_as_atypical_as_too_unlikely():
    nonconformity = fitted(*statistics(2, 150, n_shared=0, n_by_class=1))
    away = torch.tensor([-3.0, 3.0])[:, None, None]
    low, high = nonconformity(Statistics(torch.zeros(2, 0), nonconformity.mean + away))
    assert_close(low, high)


@settings(max_examples=30)
@given(st.integers(0, 100), st.lists(st.floats(-6, 6).map(lambda power: 10**power), min_size=5, max_size=5))
def test_scores_do_not_depend_on_the_units_of_the_statistics(seed, units):
    t, y = statistics(seed, 60)
    units = torch.tensor(units)
    changed = Statistics(t.features * units[:3], t.by_class * units[3:])
    assert_close(fitted(changed, y)(changed), fitted(t, y)(t), rtol=1e-2, atol=1e-2)


def test_pooled_covariance_gives_the_same_result_by_both_methods():
    """A pooled covariance is applied once for many classes, and class by class for few."""
    t, y = statistics(3, 500)
    pooled = fitted(t, y, max_covariance_entries=0)
    assert len(pooled.packed_root) == 1
    alike = replace(pooled, packed_root=pooled.packed_root.expand(3, -1).contiguous())
    assert_close(pooled(t), alike(t), rtol=1e-3, atol=1e-3)
    assert_close(pooled.score_true_class(t.of_true_class(y), y), alike.score_true_class(t.of_true_class(y), y))
    assert_close(alike.score_true_class(t.of_true_class(y), y), alike(t)[torch.arange(500), y])


def test_covariance_of_a_class_differs_from_the_pooled_one_the_less_the_fewer_images_there_are():
    ratios, (t, y) = [], statistics(4, 9000)
    v, new = t.of_true_class(y), slice(6000, None)
    for n in (30, 6000):
        options = (NonconformityOptions(max_covariance_entries=m) for m in (1 << 23, 0))
        own, pooled = (
            NonconformityScore.fit((v[:n], y[:n]), 3, each).score_true_class(v[new], y[new]) for each in options
        )
        # The first class has the smallest spread.
        ratios.append((own[y[new] == 0].mean() / pooled[y[new] == 0].mean()).item())
    assert 1 < ratios[0] < ratios[1]


@pytest.mark.parametrize("value", [0.0, 0.7, -1e4])
def test_a_constant_statistic_does_not_dominate_the_others(value):
    t, y = statistics(5, 90, n_shared=0)
    constant = Statistics(t.features, torch.cat([t.by_class, torch.full_like(t.by_class[..., :1], value)], 2))
    nonconformity = fitted(constant, y)
    found, expected = nonconformity(constant), fitted(t, y)(t)
    assert found.isfinite().all()
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.98
    jittered = Statistics(t.features, constant.by_class * (1 + 1e-6))  # as the same image may be, alone and in a batch
    assert_close(nonconformity(jittered), found, rtol=0.01, atol=0.02)


def test_collinear_statistics_give_finite_scores():
    t, y = statistics(6, 60, n_shared=0, n_by_class=1)
    twice = Statistics(t.features, t.by_class.expand(-1, -1, 2))
    assert fitted(twice, y)(twice).isfinite().all()


def test_a_class_without_images_takes_the_mean_of_all():
    t, _ = statistics(7, 50)
    y = torch.arange(50) % 2
    nonconformity = fitted(t, y)
    assert_close(nonconformity.mean[2], t.of_true_class(y).double().mean(0))
    assert nonconformity(t).isfinite().all()


def test_scores_without_any_image_are_finite():
    t, _ = statistics(8, 5)
    nothing, none = Statistics(torch.zeros(0, 3), torch.zeros(0, 3, 2)), torch.zeros(0, dtype=torch.long)
    assert fitted(nothing, none)(t).isfinite().all()


@pytest.mark.parametrize("options", [{}, {"max_covariance_entries": 0}])
def test_a_new_class_leaves_the_others_unchanged_and_its_scores_are_cross_validated(options):
    nonconformity = fitted(*statistics(9, 3000), **options)
    t, y = statistics(10, 300)
    new = t.of_true_class(y)[y == 1] + 5
    larger, own = nonconformity.with_new_class(new)
    more = Statistics(t.features, torch.cat([t.by_class, t.by_class[:, :1]], 1))
    assert_close(larger(more)[:, :3], nonconformity(t))
    assert own.shape == (100,)
    # Images that a class is fitted to are less atypical of it.
    assert own.mean() > larger.score_true_class(new, torch.full((100,), 3)).mean()
    for n in (0, 1, 2):
        larger, own = nonconformity.with_new_class(new[:n])
        assert larger(more).isfinite().all()
        assert own.isfinite().all()
