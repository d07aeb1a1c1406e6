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


def test_finer_maps_depend_on_coarser_ones():
    projection = FeatureProjection((4, 6, 8), 5)
    before = maps(2)
    after = [*before[:2], before[2] + 1]
    changed = [not torch.equal(a, b) for a, b in zip(projection(before), projection(after), strict=True)]
    assert changed == [True, True, True]
    finer = [before[0] + 1, *before[1:]]
    changed = [not torch.equal(a, b) for a, b in zip(projection(before), projection(finer), strict=True)]
    assert changed == [True, False, False]


def test_projection_is_fixed_by_its_seed():
    one, again, other = (FeatureProjection((4, 6, 8), 5, seed=seed) for seed in (1, 1, 2))
    assert not any(p.requires_grad for p in one.parameters())
    assert all(torch.equal(a, b) for a, b in zip(one(maps(2)), again(maps(2)), strict=True))
    assert not torch.equal(one(maps(2))[0], other(maps(2))[0])


def test_projection_divides_channels_by_their_deviation():
    projection, real = FeatureProjection((4, 6, 8), 5), maps(50)
    loud = [torch.cat([100 * h[:, :1], h[:, 1:]], 1) for h in real]
    before = projection(real)
    projection.init_from_data(loud)
    assert all((a - b).abs().max() < 0.2 * a.abs().max() for a, b in zip(before, projection(loud), strict=True))


def test_discriminators_depend_on_patches_positions_and_classes():
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


def test_perceptual_distance_is_zero_for_equal_images_and_scale_invariant():
    assert perceptual_distance(maps(4), maps(4)) == 0
    assert perceptual_distance(maps(4), maps(4, seed=1)) > 0.5
    assert_close(
        perceptual_distance([10 * h for h in maps(4)], [10 * h for h in maps(4, 1)]),
        perceptual_distance(maps(4), maps(4, 1)),
    )


def test_texture_distance_is_invariant_to_position():
    there, elsewhere = maps(4), [h.roll((2, 1), (2, 3)) for h in maps(4)]
    assert perceptual_distance(elsewhere, there) > 0.5
    assert texture_distance(elsewhere, there) < 1e-5
    assert texture_distance(maps(4, seed=1), there) > 0.05
    assert texture_distance([2 * h for h in there], there) > 0.5


def test_texture_distance_of_constant_maps_has_finite_gradients():
    flat = [torch.ones_like(h).requires_grad_() for h in maps(2)]
    gradients = torch.autograd.grad(texture_distance(flat, maps(2)), flat)
    assert all(gradient.isfinite().all() for gradient in gradients)
