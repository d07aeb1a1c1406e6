"""Interpolation: walks between samples, with the variance of the ends on the way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from likely import Classifier
from likely.classifier.sampling import sample
from likely.evaluation.interpolation import (
    InterpolationPath,
    LatentPoint,
    frames,
    interpolate_classes,
)

TINY = {"options": {"latent_dims": 4, "width": 4}, "training": {"epochs": 1, "batch_size": 64}}


@pytest.fixture(scope="module")
def digits():
    data = load_digits(n_class=3)
    return (data.images * 255 / 16).round().astype(np.uint8), data.target


@pytest.fixture(scope="module")
def vae(digits):
    return Classifier("vae", **TINY).fit(*digits).predictor_


def two(d: int = 6, n: int = 3) -> tuple[LatentPoint, LatentPoint]:
    splits = torch.randn(4, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return LatentPoint(splits[0], splits[1]), LatentPoint(splits[2], splits[3])


@given(st.integers(2, 12))
def test_path_joins_its_ends(steps):
    start, end = two()
    z = start.path(end, steps)
    assert z.shape == (steps, 3, 6)
    torch.testing.assert_close(z[0], start.mean + start.noise)
    torch.testing.assert_close(z[-1], end.mean + end.noise)


def test_means_are_interpolated_linearly():
    start, end = two()
    z = LatentPoint(start.mean, 0 * start.noise).path(LatentPoint(end.mean, 0 * end.noise), 5)
    torch.testing.assert_close(z.diff(dim=0), ((end.mean - start.mean) / 4).expand(4, -1, -1))


def test_orthogonal_noise_is_interpolated_spherically():
    a, b = torch.eye(6, dtype=torch.float64)[:2, None]
    z = LatentPoint(0 * a, a).path(LatentPoint(0 * b, b), 7)
    torch.testing.assert_close(z.norm(dim=2), torch.ones(7, 1, dtype=torch.float64))
    steps = (z[1:] * z[:-1]).sum(2).acos()
    torch.testing.assert_close(steps, torch.full_like(steps, math.pi / 12))


def test_variance_halfway_equals_that_of_the_ends():
    n = 20_000
    start, end = two(1, n)
    halfway = LatentPoint(0 * start.mean, start.noise).path(LatentPoint(0 * end.mean, end.noise), 3)[1]
    # A sample variance of n normal values has the standard deviation √(2/n): five of those, and the mean's own square.
    assert abs(halfway.var().item() - 1) < 5 * math.sqrt(2 / n)


def test_latent_points_agree_with_the_model(vae):
    c = torch.tensor([0, 1, 2])
    mean, noise = LatentPoint.sample(vae.model, c, torch.Generator().manual_seed(3), 0.5)
    torch.testing.assert_close(mean + noise, vae.model.latent(c, rng=torch.Generator().manual_seed(3), truncation=0.5))
    torch.testing.assert_close(mean, vae.model.latent(c))


def test_walks_pass_through_samples_of_the_same_seeds(vae):
    walks = interpolate_classes(vae, InterpolationPath(("0", "2", "1"), steps=4), 3, seed=5, truncation=0.8)
    assert [len(walk) for walk in walks] == [2, 2, 2]
    assert [(leg.start, leg.end) for leg in walks[0]] == [("0", "2"), ("2", "1")]
    stops = [sample(vae, c, 3, seed=5 + i, truncation=0.8).astype(int) for i, c in enumerate((0, 2, 1))]
    for i, (first, second) in enumerate(walks):
        assert first.images.shape == (4, 1, 8, 8)
        assert first.images.dtype == np.uint8
        np.testing.assert_array_equal(first.images[-1], second.images[0])
        ends = first.images[0], first.images[-1], second.images[-1]
        for end, stop in zip(ends, stops, strict=True):
            assert abs(end.astype(int) - stop[i]).max() <= 1


def test_same_seed_gives_same_walk(vae):
    route = InterpolationPath(("0", "0"), steps=3)
    one, other, another = (interpolate_classes(vae, route, seed=seed)[0][0].images for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, other)
    assert (one != another).any()


def test_walk_within_a_class_is_constant_without_noise(vae):
    images = interpolate_classes(vae, InterpolationPath(("1", "1")), truncation=0.0)[0][0].images
    assert (images == images[0]).all()


def test_frames_do_not_repeat_ends(vae):
    walk = interpolate_classes(vae, InterpolationPath(("0", "1", "2"), steps=5))[0]
    film = frames(walk)
    assert len(film) == 9
    np.testing.assert_array_equal(film[:5], walk[0].images)
    np.testing.assert_array_equal(film[4:], walk[1].images)


def test_vectors_can_be_interpolated(digits):
    images, labels = digits
    classifier = Classifier("vae", **TINY).fit(images.reshape(-1, 64) / 255, labels).predictor_
    assert interpolate_classes(classifier, InterpolationPath(("0", "1"), steps=3))[0][0].images.shape == (3, 64)


def test_model_without_latent_codes_is_rejected(digits):
    classifier = Classifier("gaussian").fit(*digits).predictor_
    with pytest.raises(ValueError, match=r"'gaussian' has no latent codes.*vae"):
        interpolate_classes(classifier, InterpolationPath(("0", "1")))


def test_unknown_class_is_rejected_with_a_suggestion(vae):
    with pytest.raises(ValueError, match="no class '22'; did you mean '2'"):
        interpolate_classes(vae, InterpolationPath(("0", "22")))


@pytest.mark.parametrize(("names", "steps"), [(("0",), 10), ((), 10), (("0", "1"), 1)])
def test_path_requires_two_classes_and_two_steps(names, steps):
    with pytest.raises(ValueError, match="expected"):
        InterpolationPath(names, steps)


@given(st.integers(1, 40), st.integers(1, 9))
def test_path_passes_through_classes_in_order(n, most):
    names = [f"{k:02d}" for k in range(n)]
    found = InterpolationPath.through(names, most).names
    assert 2 <= len(found) <= most + 1
    assert list(found) == sorted(found)
    assert n == 1 or (len(set(found)) == len(found) and found[0] == names[0] and found[-1] == names[-1])
