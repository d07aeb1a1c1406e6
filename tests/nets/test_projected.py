"""A backbone's maps as a discriminator's eyes."""

import torch
from torch.testing import assert_close

from likely.nets.projected import Judges, Projection, distance, useful


def maps(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(n, channels, side, side, generator=rng) for channels, side in ((4, 16), (6, 8), (8, 4))]


def test_every_map_sees_what_the_coarser_ones_do():
    projection = Projection((4, 6, 8), 5)
    before = maps(2)
    after = [*before[:2], before[2] + 1]
    changed = [not torch.equal(a, b) for a, b in zip(projection(before), projection(after), strict=True)]
    assert changed == [True, True, True]
    finer = [before[0] + 1, *before[1:]]
    changed = [not torch.equal(a, b) for a, b in zip(projection(before), projection(finer), strict=True)]
    assert changed == [True, False, False]


def test_nothing_of_a_projection_learns_and_its_seed_is_all_of_it():
    one, again, other = (Projection((4, 6, 8), 5, seed=seed) for seed in (1, 1, 2))
    assert not any(p.requires_grad for p in one.parameters())
    assert all(torch.equal(a, b) for a, b in zip(one(maps(2)), again(maps(2)), strict=True))
    assert not torch.equal(one(maps(2))[0], other(maps(2))[0])


def test_judges_see_places_and_classes():
    judges, mixed = Judges(3, 5, n_classes=2), Projection((4, 6, 8), 5)(maps(3))
    found = judges(mixed, torch.tensor([0, 1, 0]))
    assert found.shape == (3, 16**2 + 8**2 + 4**2)
    assert not torch.equal(found, judges(mixed, torch.tensor([1, 1, 0])))
    slopes = torch.autograd.grad(found.sum(), list(judges.parameters()))
    assert all(slope.abs().sum() > 0 for slope in slopes)


def test_images_are_at_no_distance_from_themselves():
    assert distance(maps(4), maps(4)) == 0
    assert distance(maps(4), maps(4, seed=1)) > 0.5
    assert_close(distance([10 * h for h in maps(4)], [10 * h for h in maps(4, 1)]), distance(maps(4), maps(4, 1)))


def test_small_maps_and_tokens_are_left_out():
    assert useful(maps(1)) == 3
    assert useful([*maps(1), torch.zeros(1, 8, 2, 2)]) == 3
    assert useful([torch.zeros(1, 8, 2, 2)]) == 1
