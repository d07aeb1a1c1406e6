"""Fidelity metrics: closed forms, independent implementations, and properties of any two sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likely.evaluation import fidelity_metrics
from likely.evaluation.fidelity_metrics import (
    density_coverage,
    frechet_distance,
    intra_class_frechet_distances,
    kernel_distance,
    kernel_distances,
    precision_recall,
)
from likely.evaluation.metrics import Floats

seeds = st.integers(0, 10_000)


def features(seed: int, n: int = 40, f: int = 6) -> Floats:
    """Correlated features, not all of one size, away from 0."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, f)) @ rng.normal(size=(f, f)) + rng.normal(size=f)


def exact(mean: Floats, covariance: Floats, n: int = 50) -> Floats:
    """A set whose mean and covariance are these to the last digit."""
    f = len(mean)
    orthonormal, _ = np.linalg.qr(np.column_stack([np.ones(n), np.random.default_rng(0).normal(size=(n, f))]))
    return math.sqrt(n - 1) * orthonormal[:, 1:] @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_gaussians_with_the_same_axes() -> None:
    a, b, means = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25]), np.array([1.0, -2.0, 0.5])
    expected = float(means @ means + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum())
    assert frechet_distance(exact(means, np.diag(a)), exact(0 * means, np.diag(b))) == pytest.approx(expected)


def test_frechet_distance_of_gaussians_with_other_axes() -> None:
    S, T = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    # tr √(ST) of two rows and columns: its square is tr ST + 2 √det ST.
    root = math.sqrt(np.trace(S @ T) + 2 * math.sqrt(np.linalg.det(S @ T)))
    expected = 1 + 4 + np.trace(S) + np.trace(T) - 2 * root
    assert frechet_distance(exact(np.array([1.0, 2.0]), S), exact(np.zeros(2), T)) == pytest.approx(expected)


@given(seeds, st.integers(2, 12))
def test_frechet_distance_of_a_set_to_itself_is_zero(seed: int, n: int) -> None:
    a = features(seed, n)
    scale = float(a.var(axis=0, ddof=1).sum())
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-6 * scale)


@given(seeds)
def test_frechet_distance_is_symmetric_and_rotation_invariant(seed: int) -> None:
    a, b = features(seed), features(seed + 1, n=25)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    distance = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(distance)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(distance)
    assert frechet_distance(a + 3, b + 3) == pytest.approx(distance)
    assert frechet_distance(2 * a, 2 * b) == pytest.approx(4 * distance)


def test_frechet_distance_agrees_with_the_symmetric_root() -> None:
    for n in (5, 40):  # fewer images than features, and more
        a, b = features(0, n), features(1, n)
        S, T = np.cov(a.T), np.cov(b.T)
        values, vectors = np.linalg.eigh(S)
        root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        shared = np.sqrt(np.linalg.eigvalsh(root @ T @ root).clip(0)).sum()
        apart = a.mean(0) - b.mean(0)
        assert frechet_distance(a, b) == pytest.approx(apart @ apart + np.trace(S) + np.trace(T) - 2 * shared, rel=1e-5)


def test_constant_feature_does_not_matter() -> None:
    a, b = features(0), features(1)
    still = np.full((40, 1), 7.0)
    assert frechet_distance(np.hstack([a, still]), np.hstack([b, still])) == pytest.approx(frechet_distance(a, b))


def test_frechet_distance_agrees_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torchmetrics.image.fid")
    a, b = features(0, n=200), features(1, n=150)
    theirs = fid.FrechetInceptionDistance(feature=passing(6))
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(a), real=True)
    theirs.update(torch.from_numpy(b), real=False)
    assert frechet_distance(a, b) == pytest.approx(float(theirs.compute()), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_kernel_distance_agrees_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    kid = pytest.importorskip("torchmetrics.image.kid")
    a, b = features(0, n=60), features(1, n=60)
    theirs = kid.KernelInceptionDistance(feature=passing(6), subsets=1, subset_size=60)
    theirs.update(torch.from_numpy(a), real=True)
    theirs.update(torch.from_numpy(b), real=False)
    assert kernel_distance(a, b) == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


def passing(n_features: int):  # type: ignore[no-untyped-def]
    """Identity network for torchmetrics."""
    from torch import nn

    network = nn.Identity()
    network.num_features = n_features  # type: ignore[assignment]
    return network


def test_kernel_distance_by_its_definition() -> None:
    a, b = features(0, n=7, f=3), features(1, n=5, f=3)

    def k(x: Floats, y: Floats) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    between = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * between)


def test_kernel_distance_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    found = [kernel_distance(rng.normal(size=(20, 3)), rng.normal(size=(30, 3))) for _ in range(300)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))
    assert min(found) < 0  # unbiased, so sometimes below


def test_kernel_distance_does_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = features(0, n=23), features(1, n=17)
    whole = kernel_distance(a, b)
    monkeypatch.setattr(fidelity_metrics, "BLOCK", 40)
    assert kernel_distance(a, b) == pytest.approx(whole)


def test_subsets_have_the_same_mean_distance() -> None:
    a, b = features(0, n=60), features(1, n=60)
    found = kernel_distances(a, b, n_subsets=200, size=20, rng=np.random.default_rng(0))
    assert found.shape == (200,)
    assert abs(found.mean() - kernel_distance(a, b)) < 4 * found.std() / math.sqrt(200)
    again = kernel_distances(a, b, n_subsets=200, size=20, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found, again)


def test_intra_class_distances_skip_small_classes() -> None:
    real, made = features(0, n=60), features(1, n=60)
    labels = np.repeat([0, 1, 2], [25, 30, 5])
    found = intra_class_frechet_distances((real, labels), (made, labels), 4, min_images=10)
    assert found[0] == pytest.approx(frechet_distance(real[:25], made[:25]))
    assert found[1] == pytest.approx(frechet_distance(real[25:55], made[25:55]))
    assert np.isnan(found[2:]).all()


def test_single_precision_is_computed_in_double() -> None:
    a, b = (features(seed).astype(np.float32) for seed in (0, 1))
    doubles = a.astype(np.float64), b.astype(np.float64)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(*doubles), rel=1e-12)
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(*doubles), rel=1e-12)


def test_invalid_measurements_are_rejected() -> None:
    a = features(0)
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="40 real and 1 generated images"):
            distance(a, a[:1])
        with pytest.raises(ValueError, match=r"features of shape \(6,\), generated ones of \(5,\)"):
            distance(a, a[:, :5])
    with pytest.raises(ValueError, match="subsets of 50 images; expected at most 40"):
        kernel_distances(a, a, n_subsets=1, size=50, rng=np.random.default_rng(0))


# --- manifolds ------------------------------------------------------------------------------------------------------


def points(seed: int, n: int = 30, f: int = 3) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, f))


def radius(x: Floats, i: int, k: int) -> float:
    return float(sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1])


def inside(centers: Floats, others: Floats, k: int) -> Floats:
    """Which of the others lie in which ball, (N, M)."""
    return np.array([[np.linalg.norm(c - o) <= radius(centers, i, k) for o in others] for i, c in enumerate(centers)])


@given(seeds, st.integers(1, 4))
def test_manifold_metrics_agree_with_their_definitions(seed: int, k: int) -> None:
    real, made = points(seed, n=12), 1.3 * points(seed + 1, n=9)
    balls = inside(real, made, k)
    assert precision_recall(real, made, k) == pytest.approx((balls.any(0).mean(), inside(made, real, k).any(0).mean()))
    assert density_coverage(real, made, k) == pytest.approx((balls.sum() / (k * 9), balls.any(1).mean()))


@given(seeds, st.integers(6, 40))
def test_equal_sets_have_perfect_metrics(seed: int, n: int) -> None:
    x = points(seed, n)
    assert precision_recall(x, x[::-1].copy()) == (1, 1)
    assert density_coverage(x, x[::-1].copy()) == pytest.approx((1, 1))


def test_distant_sets_have_zero_metrics() -> None:
    x = points(0)
    assert precision_recall(x, x + 1000) == (0, 0)
    assert density_coverage(x, x + 1000) == (0, 0)


def test_repeated_image_has_precision_without_recall() -> None:
    real = points(0, n=200)
    made = np.repeat(real[:1], 50, axis=0) + 1e-3 * points(1, n=50)
    assert precision_recall(real, made).precision == 1
    assert precision_recall(real, made).recall < 0.05
    assert density_coverage(real, made).coverage < 0.1


def test_density_of_equal_distributions_is_one() -> None:
    densities = [density_coverage(points(2 * i, n=100), points(2 * i + 1, n=100)).density for i in range(30)]
    assert abs(np.mean(densities) - 1) < 4 * np.std(densities) / np.sqrt(30)


def test_exact_copies_have_radius_zero() -> None:
    x = np.repeat(points(0, n=5), 4, axis=0) + 1e6  # each has three others in its own place
    assert precision_recall(x, x) == (1, 1)
    assert density_coverage(x, x, 3) == (0, 0)  # open balls


@given(seeds)
def test_manifold_metrics_are_invariant_to_similarity_transforms(seed: int) -> None:
    real, made = points(seed), points(seed + 1)
    rotation, _ = np.linalg.qr(points(seed, n=3))
    moved = 5 * real @ rotation + 1e4, 5 * made @ rotation + 1e4
    assert precision_recall(*moved) == precision_recall(real, made)
    assert density_coverage(*moved) == density_coverage(real, made)


def test_manifolds_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = points(0, n=31), points(1, n=22)
    whole = precision_recall(real, generated), density_coverage(real, generated)
    monkeypatch.setattr(fidelity_metrics, "BLOCK", 100)
    assert (precision_recall(real, generated), density_coverage(real, generated)) == whole


def test_too_few_images_are_rejected() -> None:
    with pytest.raises(ValueError, match="expected more than k = 3"):
        precision_recall(points(0), points(1, n=3))
