"""Sample quality: generated images, class consistency, near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from likely import Classifier
from likely.classifier import Predictor
from likely.classifier.sampling import sample
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.image_dataset import ArrayDataset, ImageDataset
from likely.evaluation.metrics import Floats
from likely.evaluation.sample_quality import (
    ClassConsistency,
    Ensemble,
    NearDuplicates,
    SampleQuality,
    sample_images,
    sample_quality,
)


@dataclass(frozen=True)
class ByFirstPixel:
    """A classifier that reads the class off the first pixel."""

    id: str | None = "reader"
    n_classes: int = 3
    sureness: float = 0.9

    def log_posterior(self, images: ImageDataset) -> Floats:
        said = images.batch(np.arange(len(images))).numpy()[:, 0, 0, 0]
        rest = (1 - self.sureness) / (self.n_classes - 1)
        return np.log(np.where(np.arange(self.n_classes) == said[:, None], self.sureness, rest))


def dataset(pixels: NDArray[np.uint8], labels: list[int]) -> LabeledImages:
    return LabeledImages(ArrayDataset(pixels, str), np.array(labels, np.int64), to_hashes(map(fingerprint, pixels)))


def noise(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 12, 12), dtype=np.uint8)


def marked(said: list[int], labels: list[int], seed: int = 0) -> LabeledImages:
    """Noise with the predicted class in its first pixel."""
    pixels = noise(len(said), seed)
    pixels[:, 0, 0, 0] = said
    return dataset(pixels, labels)


@pytest.fixture(scope="module")
def gaussian() -> Predictor:
    digits = load_digits()
    return (
        Classifier("gaussian")
        .fit((digits.images * 255 / 16).round().astype(np.uint8)[:600], digits.target[:600])
        .predictor_
    )


def test_samples_are_labeled_and_reproducible(gaussian: Predictor) -> None:
    made = sample_images(gaussian, 3, seed=5)
    pixels = made.images.batch(np.arange(30)).numpy()
    assert (pixels.dtype, pixels.shape) == (np.uint8, (30, 1, 8, 8))
    np.testing.assert_array_equal(made.labels, np.repeat(np.arange(10), 3))
    np.testing.assert_array_equal(sample_images(gaussian, 3, seed=5).hashes, made.hashes)
    assert not np.isin(sample_images(gaussian, 3, seed=105).hashes, made.hashes).any()
    np.testing.assert_array_equal(pixels[6:9], sample(gaussian, 2, 3, seed=7))  # as `likely generate` has them
    assert made.images.name(4) == "generated image 4"


def test_number_of_samples_may_differ_by_class(gaussian: Predictor) -> None:
    made = sample_images(gaussian, (0, 4, *[0] * 7, 1), seed=0)
    assert made.labels.tolist() == [1, 1, 1, 1, 9]
    np.testing.assert_array_equal(made.hashes[:4], sample_images(gaussian, 4, seed=0).hashes[4:8])


def test_models_without_image_generation_are_rejected(gaussian: Predictor) -> None:
    digits = load_digits()
    softmax = Classifier("softmax", options={"width": 4}, training={"epochs": 1})
    with pytest.raises(ValueError, match="'softmax' generates no images"):
        sample_images(softmax.fit(digits.images[:100] / 16, digits.target[:100]).predictor_, 1, seed=0)
    with pytest.raises(ValueError, match="generates vectors"):
        sample_images(Classifier("gaussian").fit(digits.data[:300], digits.target[:300]).predictor_, 1, seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        sample_images(gaussian, 0, seed=0)


def test_class_consistency_counts_by_class() -> None:
    made, real = marked([0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]), marked([0, 1, 1, 1], [0, 1, 1, 0])
    found = ClassConsistency.measure(ByFirstPixel(), made, real)
    assert (found.n_generated, found.n_consistent, found.n) == ((3, 3, 0), (2, 2, 0), 6)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.interval.low < 4 / 6 < found.interval.high


def test_real_accuracy_has_the_class_weights_of_generated_images() -> None:
    real = marked([0, 0, 1, 2], [0, 0, 0, 2])  # two of three, none, one of one
    even, odd = marked([0, 1, 2], [0, 1, 2]), marked([0, 0, 0, 2], [0, 0, 0, 2])

    def own(made: LabeledImages) -> float | None:
        return ClassConsistency.measure(ByFirstPixel(), made, real).real_accuracy

    assert own(even) == pytest.approx((2 / 3 + 1) / 2)
    assert own(odd) == pytest.approx((3 * 2 / 3 + 1) / 4)
    assert own(marked([1], [1])) is None  # no real image of that class


def test_unlabeled_images_are_not_counted() -> None:
    found = ClassConsistency.measure(ByFirstPixel(), marked([0, 1], [0, 1]), marked([0, 1, 1], [0, -1, 1]))
    assert (found.n_real, found.real_accuracy) == (2, 1)


def test_duplicates_and_near_duplicates_are_counted() -> None:
    train = dataset(noise(20), [0] * 20)
    repeated = noise(20)[:3]
    brighter = (repeated * 0.8 + 20).astype(np.uint8)
    made = dataset(np.concatenate([repeated[:1], brighter[1:], noise(5, seed=1)]), [0] * 8)
    found = NearDuplicates.count(made, train, dataset(noise(10, seed=2), [0] * 10))
    assert (found.n, found.n_duplicates, found.n_real, found.n_real_duplicates, found.n_train) == (8, 3, 10, 0, 20)
    assert (found.fraction, found.real_fraction) == (3 / 8, 0)
    assert found.interval.low < 3 / 8 < found.interval.high


def test_sample_quality_round_trips_through_json() -> None:
    train, held_out = marked([0] * 9, [0] * 9, seed=3), marked([0, 1, 2], [0, 1, 2], seed=4)
    found = sample_quality(marked([0, 1, 2, 2], [0, 1, 1, 2]), ByFirstPixel(), train, held_out, seed=7)
    assert SampleQuality.model_validate_json(found.model_dump_json()) == found
    assert (found.n, found.seed, found.class_consistency.classifier) == (4, 7, "reader")
    assert found.class_consistency.accuracy == 3 / 4
    assert found.class_consistency.real_accuracy == 1


def test_real_metrics_are_none_without_held_out_images() -> None:
    nothing = marked([], [])
    found = sample_quality(marked([0, 1], [0, 1]), ByFirstPixel(id=None), marked([0], [0], seed=1), nothing, seed=0)
    assert found.class_consistency.classifier == "unsaved"
    assert (
        found.class_consistency.n_real,
        found.class_consistency.real_accuracy,
        found.near_duplicates.real_fraction,
    ) == (0, None, None)


def test_ensemble_predicts_the_mean_probability() -> None:
    images = marked([0, 1], [0, 1]).images
    panel = Ensemble("two readers", (ByFirstPixel(sureness=0.9), ByFirstPixel(sureness=0.4)))
    p = np.exp(panel.log_posterior(images))
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p[0], [0.65, 0.175, 0.175])


def test_predictor_is_a_reference_classifier(gaussian: Predictor) -> None:
    made = sample_images(gaussian, 20, seed=0)
    found = sample_quality(made, gaussian, made, made, seed=0)
    assert found.class_consistency.accuracy > 0.8  # a model knows its own images
    assert found.class_consistency.accuracy == pytest.approx(found.class_consistency.real_accuracy or 0)
    assert found.near_duplicates.fraction == 1
