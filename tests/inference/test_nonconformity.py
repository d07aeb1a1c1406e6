"""NonconformityScore agrees with the Mahalanobis distance for any units, and is extended by new classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import EmpiricalCovariance
from torch.testing import assert_close

from likely.inference.gaussian_mixture import MixtureOptions
from likely.inference.nonconformity import NonconformityOptions, NonconformityScore, Statistics
from likely.inference.sinh_arcsinh import SinhArcsinh


def generator(seed):
    return torch.Generator().manual_seed(seed)


def traits(seed, n, n_classes=3, n_shared=3, n_by_class=2):
    """Correlated traits whose means and spreads differ by class, and labels that take turns."""
    rng, y = generator(seed), torch.arange(n) % n_classes
    mix = torch.eye(n_shared + n_by_class) + 0.4 * torch.randn(
        n_shared + n_by_class, n_shared + n_by_class, generator=rng
    )
    v = torch.randn(n, n_shared + n_by_class, generator=rng) @ mix * (1 + y[:, None]) + y[:, None]
    by_class = v[:, None, n_shared:] + torch.arange(n_classes)[:, None] - y[:, None, None]
    return Statistics(v[:, :n_shared], by_class), y


def fitted(seed=0, n=3000, **kinds):
    t, y = traits(seed, n, **kinds)
    return NonconformityScore.fit((t.of_true_class(y), y), (t.of_true_class(y), y), t.by_class.shape[1])


def roots(score):
    """W of each component, (P, D, D), unpacked."""
    D = len(score.scale)
    found = torch.zeros(len(score.packed_root), D, D, dtype=torch.float64)
    found[:, *torch.tril_indices(D, D)] = score.packed_root.double()
    return found


def distances(nonconformity, t):
    return (nonconformity(t) * nonconformity.mad + nonconformity.median).exp()


def test_the_score_agrees_with_the_mahalanobis_distance():
    t, y = traits(0, 9000)
    found = distances(NonconformityScore.fit((t.of_true_class(y), y), (t.of_true_class(y), y), t.by_class.shape[1]), t)
    for c in range(3):
        v = torch.cat([t.features, t.by_class[:, c]], 1).double().numpy()
        expected = EmpiricalCovariance().fit(v[y == c]).mahalanobis(v)
        np.testing.assert_allclose(found[:, c], expected, rtol=0.05)


def test_scores_under_the_true_class_have_median_0_and_deviation_1():
    t, y = traits(1, 6000)
    own = NonconformityScore.fit((t.of_true_class(y), y), (t.of_true_class(y), y), t.by_class.shape[1])(t)[
        torch.arange(6000), y
    ]
    for c in range(3):
        assert own[y == c].median().abs() < 1e-3
        assert (own[y == c] - own[y == c].median()).abs().mean() == pytest.approx(1, abs=0.01)


def test_too_likely_is_as_atypical_as_too_unlikely():
    nonconformity = fitted(2, 150, n_shared=0, n_by_class=1)
    away = torch.tensor([-3.0, 3.0])[:, None, None]
    middle = nonconformity.mean + nonconformity.center * nonconformity.scale
    low, high = nonconformity(Statistics(torch.zeros(2, 0), middle + away))
    assert_close(low, high)


@pytest.mark.parametrize("bent", [torch.sinh, lambda v: v])
def test_skewed_statistics_are_transformed_to_normality(bent):
    """Typical values of a heavy-tailed distribution stay typical, and far ones atypical."""
    (t, y), (held_out, labels) = (traits(seed, 3000, n_shared=0, n_by_class=2) for seed in (11, 12))
    t, held_out = (Statistics(v.features, bent(v.by_class)) for v in (t, held_out))
    nonconformity = NonconformityScore.fit(
        (t.of_true_class(y), y), (held_out.of_true_class(labels), labels), held_out.by_class.shape[1]
    )
    assert nonconformity.transform.shape[1] > 0 or bent is not torch.sinh
    far = Statistics(torch.zeros(1, 0), bent(torch.full((1, 3, 2), 30.0)))
    assert (nonconformity(far) > nonconformity(held_out)[torch.arange(3000), labels].max()).all()


def in_lumps(seed, n):
    """Two classes, each of two kinds of image far apart."""
    rng, y = generator(seed), torch.arange(n) % 2
    kind = 2.0 * torch.randint(0, 2, (n,), generator=rng) - 1
    v = torch.randn(n, 2, generator=rng) * 0.3 + torch.stack([6 * kind, y * kind], 1)
    return Statistics(torch.zeros(n, 0), v[:, None].expand(-1, 2, -1).clone()), y


def test_a_bimodal_class_gets_two_components_and_images_between_them_are_atypical():
    (t, y), (held_out, labels) = in_lumps(0, 2000), in_lumps(1, 500)
    nonconformity = NonconformityScore.fit(
        (t.of_true_class(y), y), (held_out.of_true_class(labels), labels), held_out.by_class.shape[1]
    )
    assert nonconformity.component_class.tolist() == [0, 0, 1, 1]
    own = nonconformity(held_out)[torch.arange(500), labels]
    between = nonconformity(Statistics(torch.zeros(1, 0), torch.zeros(1, 2, 2)))
    assert (between > own.max()).all()


def test_a_distance_is_the_log_density_of_a_mixture():
    """Up to the largest density that a part has."""
    (t, y), (held_out, labels) = in_lumps(2, 2000), in_lumps(3, 500)
    s = NonconformityScore.fit(
        (t.of_true_class(y), y), (held_out.of_true_class(labels), labels), held_out.by_class.shape[1]
    )
    for c in range(2):
        rows = s.component_class == c
        root = roots(s)[rows]
        precision = root.mT @ root
        gaussians = torch.distributions.MultivariateNormal(s.center[rows].double(), precision_matrix=precision)
        size = root.diagonal(dim1=1, dim2=2).log().sum(1)
        weight = (s.log_weight[rows].double() - size).softmax(0)
        mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weight), gaussians)
        standardized = ((held_out.by_class[:, c].double() - s.mean[c]) / s.scale).float()
        numbers = SinhArcsinh(s.transform)(standardized).double()
        peak = gaussians.log_prob(gaussians.mean).max()
        torch.testing.assert_close(
            s.log_distance(held_out.by_class[:, c], torch.full((500,), c)).double().exp(),
            -2 * (mixture.log_prob(numbers) - peak),
            rtol=1e-3,
            atol=1e-3,
        )


@settings(max_examples=30)
@given(st.integers(0, 100), st.lists(st.floats(-6, 6).map(lambda power: 10**power), min_size=5, max_size=5))
def test_scores_do_not_depend_on_the_units_of_the_statistics(seed, units):
    t, y = traits(seed, 60)
    units = torch.tensor(units)
    changed = Statistics(t.features * units[:3], t.by_class * units[3:])
    before, after = (
        NonconformityScore.fit((v.of_true_class(y), y), (v.of_true_class(y), y), v.by_class.shape[1])(v)
        for v in (t, changed)
    )
    assert_close(after, before, rtol=1e-2, atol=1e-2)


def test_common_covariance_gives_the_same_result_by_both_methods():
    """A common covariance is applied once for many classes, and class by class for few."""
    t, y = traits(3, 500)
    images, tied = (t.of_true_class(y), y), NonconformityOptions(mixture=MixtureOptions(max_covariance_entries=0))
    shared = NonconformityScore.fit(images, images, t.by_class.shape[1], tied)
    assert len(shared.packed_root) == 1
    alike = replace(shared, packed_root=shared.packed_root.expand(3, -1).contiguous())
    assert_close(shared(t), alike(t), rtol=1e-3, atol=1e-3)
    assert_close(shared.log_distance(t.of_true_class(y), y), alike.log_distance(t.of_true_class(y), y))


def test_covariances_are_shrunk_the_more_the_fewer_images_there_are():
    """Held-out likelihood chooses: of as many traits as images little of a covariance can be believed."""
    held_out, labels = traits(4, 900, n_shared=30)
    eigenvalues = []
    for n in (60, 6000):
        t, y = traits(4, 900 + n, n_shared=30)
        few = slice(900, None)
        fitted = NonconformityScore.fit((t.of_true_class(y)[few], y[few]), (held_out.of_true_class(labels), labels), 3)
        root = roots(fitted)[0]
        eigenvalues.append(torch.linalg.eigvalsh(root.mT @ root).max())
    assert eigenvalues[0] < eigenvalues[1]


@pytest.mark.parametrize("value", [0.0, 0.7, -1e4])
def test_a_constant_statistic_does_not_dominate_the_others(value):
    t, y = traits(5, 90, n_shared=0)
    constant = Statistics(t.features, torch.cat([t.by_class, torch.full_like(t.by_class[..., :1], value)], 2))
    nonconformity, without = (
        NonconformityScore.fit((v.of_true_class(y), y), (v.of_true_class(y), y), v.by_class.shape[1])
        for v in (constant, t)
    )
    found, expected = nonconformity(constant), without(t)
    assert found.isfinite().all()
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.98
    jittered = Statistics(t.features, constant.by_class * (1 + 1e-6))  # as the same image may be, alone and in a batch
    assert_close(nonconformity(jittered), found, rtol=0.01, atol=0.02)


def test_collinear_statistics_give_finite_scores():
    t, y = traits(6, 60, n_shared=0, n_by_class=1)
    twice = Statistics(t.features, t.by_class.expand(-1, -1, 2))
    assert (
        NonconformityScore.fit((twice.of_true_class(y), y), (twice.of_true_class(y), y), twice.by_class.shape[1])(twice)
        .isfinite()
        .all()
    )


def test_a_class_without_images_takes_the_mean_of_all():
    t, _ = traits(7, 50)
    y = torch.arange(50) % 2
    nonconformity = NonconformityScore.fit((t.of_true_class(y), y), (t.of_true_class(y), y), t.by_class.shape[1])
    assert_close(nonconformity.mean[2], t.of_true_class(y).double().mean(0))
    assert nonconformity(t).isfinite().all()


def test_scores_without_any_image_are_finite():
    t, _ = traits(8, 5)
    nothing, none = Statistics(torch.zeros(0, 3), torch.zeros(0, 3, 2)), torch.zeros(0, dtype=torch.long)
    score = NonconformityScore.fit(None, (nothing.of_true_class(none), none), nothing.by_class.shape[1])
    assert score(t).isfinite().all()


def test_a_new_class_leaves_the_others_unchanged_and_its_scores_are_cross_validated():
    nonconformity = fitted(9)
    t, y = traits(10, 300)
    new = t.of_true_class(y)[y == 1] + 5
    larger, own = nonconformity.with_new_class(new)
    more = Statistics(t.features, torch.cat([t.by_class, t.by_class[:, :1]], 1))
    assert_close(larger(more)[:, :3], nonconformity(t))
    assert own.shape == (100,)
    assert own.median().abs() < 1
    itself = (larger.log_distance(new, torch.full((100,), 3)) - larger.median[3]) / larger.mad[3]
    assert own.mean() > itself.mean()  # images that a class is fitted to are less atypical of it
    for n in (0, 1, 2):
        larger, own = nonconformity.with_new_class(new[:n])
        assert larger(more).isfinite().all()
        assert own.isfinite().all()
