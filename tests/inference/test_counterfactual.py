"""Moves from class to class: what they keep, where they end, and where the answer turns for good."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from likely.inference.counterfactual import flip_index, interpolate, transport

K, D = 3, 4
A, B = torch.tensor([0, 1, 2, 2, 0]), torch.tensor([1, 2, 0, 2, 2])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def classes():
    return normal(K, D, seed=1), 0.3 * normal(K, D, seed=2)


def standardized(z, c, classes):
    mean, log_scale = classes
    return (z - mean[c]) / log_scale[c].exp()


def test_an_image_keeps_its_place_within_its_class(classes):
    z = normal(5, D, seed=3)
    assert_close(standardized(transport(z, A, B, classes), B, classes), standardized(z, A, classes))


def test_there_and_back_is_where_it_was(classes):
    z = normal(5, D, seed=4)
    assert_close(transport(transport(z, A, B, classes), B, A, classes), z)
    assert_close(transport(z, A, A, classes), z)


def test_a_class_lands_on_the_other(classes):
    """Mean and scale of many images of a, moved, are those of b."""
    mean, log_scale = classes
    a, b = torch.zeros(20_000, dtype=torch.int64), torch.ones(20_000, dtype=torch.int64)
    moved = transport(mean[a] + log_scale[a].exp() * normal(20_000, D, seed=5), a, b, classes)
    error = 5 * log_scale[1].exp() / 20_000**0.5
    assert ((moved.mean(0) - mean[1]).abs() < error).all()
    assert ((moved.std(0) - log_scale[1].exp()).abs() < error).all()


def test_a_path_goes_straight_from_end_to_end():
    start, end = normal(5, D, seed=6), normal(5, D, seed=7)
    points = interpolate(start, end, 5)
    assert_close(points[:, 0], start)
    assert_close(points[:, -1], end)
    assert_close(points.diff(dim=1), ((end - start) / 4)[:, None].expand(5, 4, D))


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_flip_index_is_where_the_class_flips_permanently(is_other):
    """Class 1 leads where it is said to, else class 0."""
    is_other = torch.tensor(is_other)
    log_posterior = torch.stack([~is_other, is_other, torch.zeros_like(is_other)], 2).double()
    found = flip_index(log_posterior, torch.ones(len(is_other), dtype=torch.int64)).tolist()
    for row, first in zip(is_other.tolist(), found, strict=True):
        assert all(row[first:])
        assert first == 0 or not row[first - 1]
