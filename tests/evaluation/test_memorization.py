"""Memorization: a model that knows its images by heart is found out, and one that does not is left alone."""

import numpy as np
import pytest

from likely import Classifier
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.image_dataset import ArrayDataset
from likely.evaluation.memorization import exact_p_value, measure_memorization, nearest, nn_memorization


def part(seed, n, pixels=None):
    """Smooth random images of two classes."""
    rng = np.random.default_rng(seed)
    if pixels is None:
        coarse = rng.random((n, 1, 4, 4))
        pixels = (255 * coarse.repeat(4, 2).repeat(4, 3)).astype(np.uint8)
    return LabeledImages(ArrayDataset(pixels, str), np.arange(n) % 2, to_hashes(fingerprint(image) for image in pixels))


def slightly_changed(images, seed=0):
    pixels = images.images.batch(np.arange(len(images))).numpy().astype(int)
    pixels += np.random.default_rng(seed).integers(-3, 4, pixels.shape)
    return part(0, len(images), pixels.clip(0, 255).astype(np.uint8))


def test_the_closest_is_the_closest():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 5)), rng.normal(size=(70, 5))
    index, apart = nearest(a, b)
    every = np.linalg.norm(a[:, None] - b, axis=2)
    np.testing.assert_array_equal(index, every.argmin(1))
    np.testing.assert_allclose(apart, every.min(1), atol=1e-6)


def test_copies_of_training_images_are_found_out():
    train, held_out = part(1, 300), part(2, 100)
    found = nn_memorization(slightly_changed(train.subset(np.arange(60))), train, held_out)
    assert found.p_value < 1e-5
    assert found.n_training == found.n_nearest == 60
    assert found.distance_to_training < found.held_out_distance_to_training / 5


def test_the_chance_is_that_of_drawing_within_classes():
    """Classes of which different shares were held out: against drawing a hundred thousand times."""
    N, M, D = np.array([90, 20]), np.array([10, 20]), np.array([12, 8])
    rng = np.random.default_rng(0)
    drawn = sum(rng.hypergeometric(n, m, d, size=100_000) for n, m, d in zip(N, M, D, strict=True))
    for k in (0, 12, 15, 18, 20):
        assert exact_p_value(k, N, M, D) == pytest.approx((drawn >= k).mean(), abs=0.006)
    assert exact_p_value(0, N, M, D) == pytest.approx(1)
    assert exact_p_value(0, *np.zeros((3, 2), int)) == 1


def test_images_of_ones_own_are_no_copies_however_often_one_asks():
    """The p-values of a model that draws from the source itself are those of chance: at most alpha of them below alpha."""
    p = [nn_memorization(part(3 * s, 40), part(3 * s + 1, 90), part(3 * s + 2, 60)).p_value for s in range(60)]
    assert np.mean(np.array(p) <= 0.1) < 0.1 + 3 * (0.09 / 60) ** 0.5
    assert min(p) < 0.5


def test_a_likelihood_that_was_learned_by_heart_tells_its_images_from_others():
    few, others = small(0, 44), small(1, 60)
    options = {"covariance": "per_class", "shrinkage": 0.0}
    overfitted = Classifier("gaussian", options=options).fit(arrays(few), few.labels).predictor_
    modest = (
        Classifier("gaussian", options={"covariance": "diagonal"})
        .fit(arrays(small(2, 2000)), small(2, 2000).labels)
        .predictor_
    )
    mine = few.subset(np.flatnonzero(np.isin(few.hashes, overfitted.hashes)))
    found = measure_memorization(overfitted, mine, others, None).membership_inference
    assert found.auroc > 0.75
    assert found.low > 0.5
    assert found.gap > 0
    honest = measure_memorization(modest, small(2, 2000), others, None).membership_inference
    assert honest.low < 0.5 < honest.high
    assert measure_memorization(overfitted, mine, others, None).nn_memorization is None


def small(seed, n):
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(128, 40, (n, 1, 4, 4)), 0, 255).astype(np.uint8)
    return part(0, n, pixels)


def arrays(images):
    return images.images.batch(np.arange(len(images))).permute(0, 2, 3, 1).numpy()
