"""A class fitted to a latent class mixture: its sampling distribution and its component."""

import pytest
import torch
from torch.testing import assert_close

from likely.models.new_class import NewClassOptions, fit_new_class

K, D = 5, 3


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(z, sampling_distribution, components=None, *, variance=0.0, exemplars=None, **options):
    """The new class's sampling distribution and component, for latents z with a posterior variance."""
    posteriors = z, torch.full_like(z, variance).log() / 2
    options = NewClassOptions(**options)
    return fit_new_class(posteriors, sampling_distribution, components or sampling_distribution, exemplars, options)


def test_many_images_determine_mean_and_variance():
    z = 2 + 0.5 * normal(100_000, D, seed=1)
    (mean, log_scale), _ = fitted(z, (normal(K, D), normal(K, D, seed=2)), variance=0.11, n_iterations=1)
    assert_close(mean, torch.full_like(mean, 2), atol=0.01, rtol=0)
    assert_close((2 * log_scale).exp(), torch.full_like(mean, 0.25 + 0.11), atol=0.01, rtol=0)


def test_variance_of_a_single_image_is_that_of_the_other_classes_and_of_its_mean():
    scales, z, m = normal(K, D, seed=2), normal(1, D, seed=3), 7.0
    (mean, log_scale), _ = fitted(z, (normal(K, D), scales), pseudo_count=m)
    assert_close(mean, z[0])
    assert_close((2 * log_scale).exp(), (2 * scales).exp().mean(0) * (m / (1 + m) + 1))


def test_component_starts_displaced_as_the_others_are():
    """With one class far away from everything, the loss is flat and the component stays at its start."""
    means, scales, moves = normal(K, D, seed=4), torch.zeros(K, D), normal(K, D, seed=8)
    z = torch.full((200, D), 1000.0) + normal(200, D, seed=6)
    (location, log_scale), (mean, component_log_scale) = fitted(z, (means, scales), (means + moves, scales - 0.2))
    away = location - means.mean(0)
    assert_close((mean - location).norm(), moves.square().sum(1).mean().sqrt(), rtol=0.05, atol=0)
    assert_close(torch.cosine_similarity(mean - location, away, dim=0), away.new_ones(()), rtol=0, atol=0.01)
    assert_close(component_log_scale, log_scale - 0.2, rtol=0, atol=0.05)


def test_component_has_the_fixed_scale_without_fit_scale():
    components = normal(K, D), torch.zeros(K, D)
    (_, location_log_scale), (_, log_scale) = fitted(normal(20, D, seed=1), components, fit_scale=False)
    assert_close(log_scale, location_log_scale)


def test_at_the_mean_of_the_only_other_class_everything_is_finite():
    only = normal(1, D), normal(1, D, seed=1)
    (location, _), (mean, log_scale) = fitted(only[0], only, (only[0] + 1, only[1]))
    assert_close(location, only[0][0])
    assert mean.isfinite().all()
    assert log_scale.isfinite().all()


def crowd(center, n, seed):
    return torch.tensor(center) + 0.5 * normal(n, 2, seed=seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_exemplars_reduce_errors_on_the_known_class(seed):
    """Half of the known class's images lie next to the new class, where its component does not expect them."""
    components = torch.tensor([[-2.0, 0.0]]), torch.zeros(1, 2)
    known = torch.cat([crowd([-2.0, 0.0], 300, seed + 1), crowd([0.0, 0.0], 300, seed + 2)])
    exemplars = (known, torch.full_like(known, -torch.inf)), torch.zeros(600, dtype=torch.long)

    def error_rate(component):
        means, log_scales = (torch.cat([a, b[None]]) for a, b in zip(components, component, strict=True))
        distance = ((known[:, None] - means) / log_scales.exp()).square().sum(2) / 2 + log_scales.sum(1)
        return (distance.argmin(1) == 1).double().mean()

    rates = [
        error_rate(fitted(crowd([1.0, 0.0], 300, seed), components, exemplars=each)[1]) for each in (exemplars, None)
    ]
    assert rates[0] < 0.7 * rates[1]
