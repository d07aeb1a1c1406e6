"""Memorization: an overfitted model is detected, and one that generalizes is not."""

import numpy as np
import pytest

from likely import Classifier
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.image_dataset import ArrayDataset
from likely.evaluation.memorization import exact_p_value, measure_memorization


def dataset(seed, n, pixels=None):
    """Smooth random images of two classes."""
    rng = np.random.default_rng(seed)
    if pixels is None:
        coarse = rng.random((n, 1, 4, 4))
        pixels = (255 * coarse.repeat(4, 2).repeat(4, 3)).astype(np.uint8)
    return LabeledImages(ArrayDataset(pixels, str), np.arange(n) % 2, to_hashes(fingerprint(image) for image in pixels))


def slightly_changed(images, seed=0):
    pixels = images.images.batch(np.arange(len(images))).numpy().astype(int)
    pixels += np.random.default_rng(seed).integers(-3, 4, pixels.shape)
    return dataset(0, len(images), pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def softmax():
    """A classifier without a likelihood, for which only the nearest-neighbor test runs."""
    images = small(0, 20)
    training = {"epochs": 1, "batch_size": 16}
    return Classifier("softmax", options={"width": 4}, training=training).fit(arrays(images), images.labels).predictor_


def nearest_neighbors(softmax, generated, train, held_out):
    found = measure_memorization(softmax, train, held_out, generated)
    assert found.membership_inference is None
    return found.nn_memorization


def test_nearest_neighbors_detect_copies_of_training_images(softmax):
    train, held_out = dataset(1, 300), dataset(2, 100)
    found = nearest_neighbors(softmax, slightly_changed(train.subset(np.arange(60))), train, held_out)
    assert found.p_value < 1e-5
    assert found.n_training == found.n_nearest == 60
    assert found.distance_to_training < found.held_out_distance_to_training / 5


def test_p_value_agrees_with_simulation():
    N, M, D = np.array([90, 20]), np.array([10, 20]), np.array([12, 8])
    rng = np.random.default_rng(0)
    simulated = sum(rng.hypergeometric(n, m, d, size=100_000) for n, m, d in zip(N, M, D, strict=True))
    for k in (0, 12, 15, 18, 20):
        assert exact_p_value(k, N, M, D) == pytest.approx((simulated >= k).mean(), abs=0.006)
    assert exact_p_value(0, N, M, D) == pytest.approx(1)
    assert exact_p_value(0, *np.zeros((3, 2), int)) == 1


def test_p_values_of_independent_images_are_valid(softmax):
    """At most a fraction alpha of the p-values is below alpha if all images come from the same distribution."""
    p = [
        nearest_neighbors(softmax, dataset(3 * s, 40), dataset(3 * s + 1, 90), dataset(3 * s + 2, 60)).p_value
        for s in range(60)
    ]
    assert np.mean(np.array(p) <= 0.1) < 0.1 + 3 * (0.09 / 60) ** 0.5
    assert min(p) < 0.5


def test_membership_inference_detects_an_overfitted_likelihood():
    few, others = small(0, 44), small(1, 60)
    options = {"covariance": "per_class", "shrinkage": 0.0}
    overfitted = Classifier("gaussian", options=options).fit(arrays(few), few.labels).predictor_
    modest = (
        Classifier("gaussian", options={"covariance": "diagonal"})
        .fit(arrays(small(2, 2000)), small(2, 2000).labels)
        .predictor_
    )
    members = few.subset(np.flatnonzero(np.isin(few.hashes, overfitted.hashes)))
    found = measure_memorization(overfitted, members, others, None).membership_inference
    assert found.auroc > 0.75
    assert found.low > 0.5
    assert found.gap > 0
    independent = measure_memorization(modest, small(2, 2000), others, None).membership_inference
    assert independent.low < 0.5 < independent.high
    assert measure_memorization(overfitted, members, others, None).nn_memorization is None


def small(seed, n):
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(128, 40, (n, 1, 4, 4)), 0, 255).astype(np.uint8)
    return dataset(0, n, pixels)


def arrays(images):
    return images.images.batch(np.arange(len(images))).permute(0, 2, 3, 1).numpy()
