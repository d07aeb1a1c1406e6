"""Discriminators on the feature maps of a backbone."""

import torch
from torch.testing import assert_close

from likely.networks.projected_gan import (
    FeatureProjection,
    ProjectedDiscriminator,
    perceptual_distance,
    texture_distance,
)


def maps(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(n, channels, side, side, generator=rng) for channels, side in ((4, 16), (6, 8), (8, 4))]


def test_every_map_sees_what_the_coarser_ones_do():
    projection = FeatureProjection((4, 6, 8), 5)
    before = maps(2)
    after = [*before[:2], before[2] + 1]
    changed = [not torch.equal(a, b) for a, b in zip(projection(before), projection(after), strict=True)]
    assert changed == [True, True, True]
    finer = [before[0] + 1, *before[1:]]
    changed = [not torch.equal(a, b) for a, b in zip(projection(before), projection(finer), strict=True)]
    assert changed == [True, False, False]


def test_nothing_of_a_projection_learns_and_its_seed_is_all_of_it():
    one, again, other = (FeatureProjection((4, 6, 8), 5, seed=seed) for seed in (1, 1, 2))
    assert not any(p.requires_grad for p in one.parameters())
    assert all(torch.equal(a, b) for a, b in zip(one(maps(2)), again(maps(2)), strict=True))
    assert not torch.equal(one(maps(2))[0], other(maps(2))[0])


def test_loud_channels_do_not_drown_the_others():
    projection, real = FeatureProjection((4, 6, 8), 5), maps(50)
    loud = [torch.cat([100 * h[:, :1], h[:, 1:]], 1) for h in real]
    before = projection(real)
    projection.init_from_data(loud)
    assert all((a - b).abs().max() < 0.2 * a.abs().max() for a, b in zip(before, projection(loud), strict=True))


def test_the_discriminators_depend_on_patches_positions_and_classes():
    discriminator, mixed, x = (
        ProjectedDiscriminator(3, 5, n_classes=2),
        FeatureProjection((4, 6, 8), 5)(maps(3)),
        torch.rand(3, 3, 32, 32),
    )
    found = discriminator(x, mixed, torch.tensor([0, 1, 0]))
    assert found.shape == (3, 8**2 + 16**2 + 8**2 + 4**2)
    assert not torch.equal(found, discriminator(x, mixed, torch.tensor([1, 1, 0])))
    assert not torch.equal(found, discriminator(1 - x, mixed, torch.tensor([0, 1, 0])))
    gradients = torch.autograd.grad(found.sum(), list(discriminator.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_images_are_at_no_distance_from_themselves():
    assert perceptual_distance(maps(4), maps(4)) == 0
    assert perceptual_distance(maps(4), maps(4, seed=1)) > 0.5
    assert_close(
        perceptual_distance([10 * h for h in maps(4)], [10 * h for h in maps(4, 1)]),
        perceptual_distance(maps(4), maps(4, 1)),
    )


def test_a_texture_is_the_same_wherever_its_parts_lie():
    there, elsewhere = maps(4), [h.roll((2, 1), (2, 3)) for h in maps(4)]
    assert perceptual_distance(elsewhere, there) > 0.5
    assert texture_distance(elsewhere, there) < 1e-5
    assert texture_distance(maps(4, seed=1), there) > 0.05
    assert texture_distance([2 * h for h in there], there) > 0.5


def test_what_does_not_vary_has_a_slope():
    flat = [torch.ones_like(h).requires_grad_() for h in maps(2)]
    gradients = torch.autograd.grad(texture_distance(flat, maps(2)), flat)
    assert all(gradient.isfinite().all() for gradient in gradients)
