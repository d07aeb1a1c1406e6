"""Differentiable augmentation: names, bounds and gradients."""

import math
import re
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from likely.networks.diff_augment import PATTERN, DiffAugmentOptions, diff_augment

SHAPES = [(1, 8, 8), (3, 16, 8), (3, 9, 7)]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def images(shape, n=12):
    """No two values alike, and none of them 0."""
    numbers = torch.randperm(n * math.prod(shape), generator=generator(0)) + 1
    return numbers.float().reshape(n, *shape) / (numbers.numel() + 1)


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def shape(request):
    return request.param


@pytest.fixture(params=["color", "shift", "cutout", "color,shift,cutout"])
def changes(request):
    return request.param


def test_none_and_vectors_are_unchanged(shape):
    x = images(shape)
    assert diff_augment(x, "none", generator(0)) is x
    vectors = torch.randn(4, 5, generator=generator(1))
    assert torch.equal(diff_augment(vectors, "color,shift,cutout", generator(0)), vectors)


def test_augmentation_is_determined_by_the_generator(shape, changes):
    first, again, other = (diff_augment(images(shape), changes, generator(seed)) for seed in (1, 1, 2))
    assert first.shape == images(shape).shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmentations_apply_in_order(shape):
    rng = generator(3)
    expected = diff_augment(diff_augment(images(shape), "shift", rng), "cutout", rng)
    assert torch.equal(diff_augment(images(shape), "shift,cutout", generator(3)), expected)


def test_augmented_images_have_gradients(shape, changes):
    x = images(shape).requires_grad_()
    diff_augment(x, changes, generator(0)).square().sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.flatten(1).any(1).all()


def test_augmentation_differs_between_images(shape, changes):
    same = images(shape)[:1].expand(12, -1, -1, -1)
    changed = diff_augment(same, changes, generator(0))
    assert len({tuple(image.flatten().tolist()) for image in changed}) > 1


def moved(image, down, right):
    """An image (C, H, W) moved by whole pixels, one pixel after the other."""
    _, H, W = image.shape
    out = torch.zeros_like(image)
    for row, column in product(range(H), range(W)):
        if 0 <= row - down < H and 0 <= column - right < W:
            out[:, row, column] = image[:, row - down, column - right]
    return out


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 16, 8)], ids=str)
def test_shift_is_by_whole_pixels_up_to_an_eighth_of_the_side(shape):
    _, H, W = shape
    x, seen = images(shape, n=40), set()
    shifts = list(product(range(-H // 8, H // 8 + 1), range(-W // 8, W // 8 + 1)))
    for before, after in zip(x, diff_augment(x, "shift", generator(0)), strict=True):
        found = [shift for shift in shifts if torch.equal(moved(before, *shift), after)]
        assert len(found) == 1
        seen.update(found)
    for axis in range(2):  # as far as that, either shift
        assert {shift[axis] for shift in seen} >= {-shape[axis + 1] // 8, shape[axis + 1] // 8}


def test_shift_adds_no_values_but_zero(shape):
    x = images(shape)
    values = set(x.flatten().tolist()) | {0.0}
    assert set(diff_augment(x, "shift", generator(1)).flatten().tolist()) <= values


@pytest.mark.parametrize("hole_size", [0.25, 0.5])
def test_cutout_zeroes_a_rectangle_of_at_most_the_hole_size(shape, hole_size):
    x = images(shape, n=40)
    y = diff_augment(x, "cutout", generator(0), DiffAugmentOptions(hole_size=hole_size))
    assert ((y == x) | (y == 0)).all()
    hole = (y == 0).all(1)
    assert torch.equal(hole, (y == 0).any(1))  # in every channel alike
    rows, columns = hole.any(2), hole.any(1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :])
    for within, side in ((rows, shape[1]), (columns, shape[2])):
        assert within.sum(1).max() <= math.ceil(hole_size * side)
        assert ((within[:, 1:] != within[:, :-1]).sum(1) <= 2).all()  # in one piece
    assert (hole.flatten(1).sum(1) > 0).all()


@pytest.mark.parametrize("n_channels", [1, 3])
def test_color_is_affine_on_gray_images(n_channels):
    gray = images((1, 6, 5), n=20)
    x = gray.expand(-1, n_channels, -1, -1)
    y = diff_augment(x, "color", generator(0))
    assert_close(y, y[:, :1].expand_as(y))  # gray stays gray
    a, b = x.flatten(1), y.flatten(1)
    centerd = a - a.mean(1, keepdim=True)
    slope = (centerd * b).sum(1, keepdim=True) / centerd.square().sum(1, keepdim=True)
    assert_close(b, b.mean(1, keepdim=True) + slope * centerd, rtol=0, atol=1e-4)
    assert slope.min() >= 0.5 - 1e-4
    assert slope.max() <= 1.5 + 1e-4
    assert slope.std() > 0.05
    assert (b.mean(1) - a.mean(1)).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize("name", ["none", "color", "shift,cutout", "color,shift,cutout"])
def test_pattern_accepts_known_augmentations(name):
    assert re.fullmatch(PATTERN, name)


@pytest.mark.parametrize("name", ["", "none,shift", "shift,", "colors", "shift cutout"])
def test_pattern_rejects_other_names(name):
    assert not re.fullmatch(PATTERN, name)
