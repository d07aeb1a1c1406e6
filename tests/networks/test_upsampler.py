"""The refiner: any size, and detail by sketch, noise and plan."""

import pytest
import torch
from torch.nn import functional as F

from likely.networks.upsampler import Upsampler


def refined(refiner, s, z, plan):
    with torch.no_grad():
        return refiner(s, z, plan)


@pytest.mark.parametrize(("side", "coarsest", "sizes"), [(16, 4, [4, 8, 16]), (25, 8, [7, 13, 25]), (8, 8, [8])])
def test_any_size_is_reached_by_doubling(side, coarsest, sizes):
    refiner = Upsampler(side, coarsest, 2, 5, width=16, depth=1)
    assert refiner.sizes == sizes
    found = refined(
        refiner, torch.rand(3, 3, sizes[0], sizes[0]), torch.randn(3, 2, sizes[0], sizes[0]), torch.randn(3, 5)
    )
    assert found.shape == (3, 3, side, side)


def test_everything_that_it_is_told_counts():
    refiner, rng = Upsampler(16, 4, 2, 5, width=16, depth=2), torch.Generator().manual_seed(0)
    told = [
        torch.rand(1, 3, 4, 4, generator=rng),
        torch.randn(1, 2, 4, 4, generator=rng),
        torch.randn(1, 5, generator=rng),
    ]
    before = refined(refiner, *told)
    for i in range(3):
        assert not torch.allclose(refined(refiner, *(t + (i == j) for j, t in enumerate(told))), before)


def test_it_begins_near_the_sketch():
    refiner, s = Upsampler(16, 4, 2, 5, width=16, depth=1), torch.rand(4, 3, 4, 4)
    found = refined(refiner, s, torch.zeros(4, 2, 4, 4), torch.zeros(4, 5))
    assert (found - F.interpolate(s, size=(16, 16), mode="bicubic")).abs().mean() < 0.5
