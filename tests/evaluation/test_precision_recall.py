"""Precision, recall, density and coverage, against their definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likely.evaluation import frechet_and_kernel
from likely.evaluation.metrics import Floats
from likely.evaluation.precision_recall import density_coverage, precision_recall, squared_radii

seeds = st.integers(0, 10_000)


def points(seed: int, n: int = 30, f: int = 3) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, f))


def radius(x: Floats, i: int, k: int) -> float:
    return float(sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1])


def inside(centers: Floats, others: Floats, k: int) -> Floats:
    """Which of the others lie in which ball, (N, M)."""
    return np.array([[np.linalg.norm(c - o) <= radius(centers, i, k) for o in others] for i, c in enumerate(centers)])


@given(seeds, st.integers(1, 4))
def test_by_their_definitions(seed: int, k: int) -> None:
    real, made = points(seed, n=12), 1.3 * points(seed + 1, n=9)
    balls = inside(real, made, k)
    assert precision_recall(real, made, k) == pytest.approx((balls.any(0).mean(), inside(made, real, k).any(0).mean()))
    assert density_coverage(real, made, k) == pytest.approx((balls.sum() / (k * 9), balls.any(1).mean()))


@given(seeds, st.integers(6, 40))
def test_a_set_beside_itself_is_perfect(seed: int, n: int) -> None:
    x = points(seed, n)
    assert precision_recall(x, x[::-1].copy()) == (1, 1)
    assert density_coverage(x, x[::-1].copy()) == pytest.approx((1, 1))


def test_sets_that_are_far_apart_have_nothing() -> None:
    x = points(0)
    assert precision_recall(x, x + 1000) == (0, 0)
    assert density_coverage(x, x + 1000) == (0, 0)


def test_a_single_image_again_and_again_is_realistic_and_has_no_variety() -> None:
    real = points(0, n=200)
    made = np.repeat(real[:1], 50, axis=0) + 1e-3 * points(1, n=50)
    assert precision_recall(real, made).precision == 1
    assert precision_recall(real, made).recall < 0.05
    assert density_coverage(real, made).coverage < 0.1


def test_density_of_sets_that_are_drawn_alike_is_one() -> None:
    densities = [density_coverage(points(2 * i, n=100), points(2 * i + 1, n=100)).density for i in range(30)]
    assert abs(np.mean(densities) - 1) < 4 * np.std(densities) / np.sqrt(30)


def test_exact_copies_lie_in_balls_without_width() -> None:
    x = np.repeat(points(0, n=5), 4, axis=0) + 1e6  # each has three others in its own place
    np.testing.assert_array_equal(squared_radii(x, 3), 0)
    assert precision_recall(x, x) == (1, 1)


@given(seeds)
def test_where_the_features_lie_does_not_matter(seed: int) -> None:
    real, made = points(seed), points(seed + 1)
    rotation, _ = np.linalg.qr(points(seed, n=3))
    moved = 5 * real @ rotation + 1e4, 5 * made @ rotation + 1e4
    assert precision_recall(*moved) == precision_recall(real, made)
    assert density_coverage(*moved) == density_coverage(real, made)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = points(0, n=31), points(1, n=22)
    whole = precision_recall(real, made), density_coverage(real, made), squared_radii(real, 3)
    monkeypatch.setattr(frechet_and_kernel, "BLOCK", 100)
    assert (precision_recall(real, made), density_coverage(real, made)) == whole[:2]
    np.testing.assert_allclose(squared_radii(real, 3), whole[2])


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="expected more than k = 3"):
        precision_recall(points(0), points(1, n=3))
