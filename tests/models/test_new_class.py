"""A class that comes later: where it lies, and how it is pulled as the others were."""

import torch
from torch.testing import assert_close

from likely.models.new_class import (
    PSEUDO_COUNT,
    displaced_component,
    estimate_from_few,
    fit_new_component,
    sample_latents,
)

K, D = 5, 3


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_many_images_say_where_a_class_lies():
    z, variance = 2 + 0.5 * normal(200_000, D, seed=1), torch.full((200_000, D), 0.11, dtype=torch.float64)
    mean, log_scale = estimate_from_few(z, variance, (normal(K, D), normal(K, D, seed=2)))
    assert_close(mean, torch.full_like(mean, 2), atol=0.01, rtol=0)
    assert_close((2 * log_scale).exp(), torch.full_like(mean, 0.25 + 0.11), atol=0.01, rtol=0)


def test_a_single_image_has_the_spread_that_classes_usually_have_and_the_doubt_about_its_mean():
    scales = normal(K, D, seed=2)
    usual = (2 * scales).exp().mean(0)
    mean, log_scale = estimate_from_few(
        normal(1, D, seed=3), torch.zeros(1, D, dtype=torch.float64), (normal(K, D), scales)
    )
    assert_close(mean, normal(1, D, seed=3)[0])
    assert_close((2 * log_scale).exp(), usual * (PSEUDO_COUNT / (1 + PSEUDO_COUNT) + 1))


def test_a_new_component_is_moved_as_far_as_the_others_are_and_away_from_them():
    means, scales, place = normal(K, D, seed=4), normal(K, D, seed=5), (normal(D, seed=6), normal(D, seed=7))
    moves = normal(K, D, seed=8)
    mean, log_scale = displaced_component(place, (means + moves, scales - 0.2), (means, scales))
    assert_close((mean - place[0]).square().sum(), moves.square().sum(1).mean())
    away = place[0] - means.mean(0)
    assert_close(torch.cosine_similarity(mean - place[0], away, dim=0), away.new_ones(()))
    assert_close(log_scale, place[1] - 0.2)


def test_where_nothing_was_pulled_a_component_is_where_its_images_lie():
    sampling_distribution, place = (
        (normal(K, D, seed=8), normal(K, D, seed=9)),
        (normal(D, seed=10), normal(D, seed=11)),
    )
    for part, expected in zip(
        displaced_component(place, sampling_distribution, sampling_distribution), place, strict=True
    ):
        assert_close(part, expected)


def test_where_the_only_other_class_lies_there_is_no_direction_to_move_in():
    only = normal(1, D), normal(1, D, seed=1)
    assert_close(displaced_component((only[0][0], only[1][0]), (only[0] + 1, only[1]), only)[0], only[0][0])


def crowd(center, n, seed):
    """Latents about a center, known exactly."""
    z = torch.tensor(center) + 0.5 * torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return z, torch.full_like(z, -torch.inf)


def test_a_new_class_is_told_from_the_images_of_others_and_not_from_where_they_should_lie():
    """The other class says that it lies on the left, and half of its images lie in the middle, next to the new one's."""
    components = torch.tensor([[-2.0, 0.0]]), torch.zeros(1, 2)
    start, new = (torch.tensor([1.0, 0.0]), torch.zeros(2)), crowd([1.0, 0.0], 300, 0)
    theirs = torch.cat([crowd([-2.0, 0.0], 300, 1)[0], crowd([0.0, 0.0], 300, 2)[0]])
    others = (theirs, torch.full_like(theirs, -torch.inf)), torch.zeros(600, dtype=torch.long)

    def lost(component):
        """The share of the other class's images that the new one claims."""
        every = [torch.cat([before, one[None]]) for before, one in zip(components, component, strict=True)]
        distance = ((theirs[:, None] - every[0]) / every[1].exp()).square().sum(2) / 2 + every[1].sum(1)
        return (distance.argmin(1) == 1).double().mean()

    by_images = fit_new_component(start, new, others, components, scales=True)
    by_place = fit_new_component(start, new, sample_latents(components), components, scales=True)
    assert lost(by_images) < 0.7 * lost(by_place)
