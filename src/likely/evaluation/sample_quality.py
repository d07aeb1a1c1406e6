"""Sample quality: class consistency of generated images, and near-duplicates of training images among them.

Both metrics come with their value on real images: no classifier is perfect, and some data contain near-duplicates anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from pydantic import Field

from likely.base import GenerativeModel
from likely.classifier import Predictor
from likely.classifier.sampling import sample
from likely.data.dataset import LabeledImages, image_hashes
from likely.data.image_dataset import ArrayDataset, ImageDataset
from likely.data.quality.near_duplicates import Thumbnails
from likely.evaluation.metrics import Floats, Interval, Ints, clopper_pearson
from likely.exceptions import InvalidValueError
from likely.models import families_with
from likely.options import Options


class _ReferenceClassifier(Protocol):
    """A classifier that labels generated images; a Predictor is one."""

    @property
    def id(self) -> str | None:
        """Name of the classifier; None if it has none."""

    def log_posterior(self, images: ImageDataset) -> Floats:
        """Return log p(c | x), shape (N, K)."""


@dataclass(frozen=True)
class Ensemble:
    """The mean of several classifiers of the same classes: log p(c | x) = log 1/M Σ_m p_m(c | x)."""

    id: str
    members: Sequence[_ReferenceClassifier]

    def log_posterior(self, images: ImageDataset) -> Floats:
        members = np.stack([member.log_posterior(images) for member in self.members])  # (M, N, K)
        mean: Floats = np.logaddexp.reduce(members, axis=0) - np.log(len(members))
        return mean


class ClassConsistency(Options):
    """Agreement of a classifier with the classes of generated images (Ravuri 2019, Classification Accuracy Score)."""

    classifier: str = Field(description="Name of the classifier.")
    n_generated: tuple[int, ...] = Field(description="Generated images of each class.")
    n_consistent: tuple[int, ...] = Field(description="Generated images that the classifier assigns to their class.")
    n_real: int = Field(description="Labeled real images that the classifier was not trained on.")
    real_accuracy: float | None = Field(
        description="Accuracy on those, with the class frequencies of the generated images."
    )

    @classmethod
    def measure(cls, classifier: _ReferenceClassifier, generated: LabeledImages, real: LabeledImages) -> Self:
        """Classify generated images, and real images if there are any."""
        on_generated, on_real = _predictions(classifier, generated), _predictions(classifier, real)
        return cls(
            classifier=classifier.id or "unsaved",
            n_generated=tuple(on_generated.counts.tolist()),
            n_consistent=tuple(on_generated.correct.tolist()),
            n_real=len(on_real.labels),
            real_accuracy=_weighted_accuracy(on_real, on_generated.counts),
        )

    @property
    def n(self) -> int:
        return sum(self.n_generated)

    @property
    def accuracy(self) -> float:
        """Fraction of the generated images that the classifier assigns to their class."""
        return sum(self.n_consistent) / self.n

    @property
    def interval(self) -> Interval:
        """95% interval of the accuracy."""
        return clopper_pearson(sum(self.n_consistent), self.n)


class NearDuplicates(Options):
    """Duplicates and near-duplicates of training images, among generated and among held-out images."""

    n: int = Field(description="Generated images.")
    n_duplicates: int = Field(description="Generated images that duplicate a training image.")
    n_real: int = Field(description="Held-out real images.")
    n_real_duplicates: int = Field(description="Held-out images that duplicate a training image.")
    n_train: int = Field(description="Training images.")

    @classmethod
    def count(cls, generated: LabeledImages, train: LabeledImages, held_out: LabeledImages) -> Self:
        """Count duplicates and near-duplicates of training images; see `likely.data.quality.near_duplicates`."""
        known = Thumbnails.from_images(train)
        n, n_real = _n_duplicates(generated, known), _n_duplicates(held_out, known)
        return cls(n=len(generated), n_duplicates=n, n_real=len(held_out), n_real_duplicates=n_real, n_train=len(train))

    @property
    def fraction(self) -> float:
        return self.n_duplicates / self.n

    @property
    def real_fraction(self) -> float | None:
        return self.n_real_duplicates / self.n_real if self.n_real else None

    @property
    def interval(self) -> Interval:
        """95% interval of the fraction."""
        return clopper_pearson(self.n_duplicates, self.n)


class SampleQuality(Options):
    """Class consistency and near-duplicates of a set of generated images."""

    seed: int = Field(description="Seed of the generated images.")
    class_consistency: ClassConsistency
    near_duplicates: NearDuplicates

    @property
    def n(self) -> int:
        return self.class_consistency.n


def sample_images(classifier: Predictor, n_per_class: int | Sequence[int], seed: int) -> LabeledImages:
    """Generate n images of each class, or a number for each class, labeled with their classes.

    `likely generate` creates the same images from the same seed. Raise InvalidValueError if the model generates no images.
    """
    if not isinstance(classifier.model, GenerativeModel):
        raise InvalidValueError(
            f"{classifier.family!r} generates no images; these families do: {families_with(GenerativeModel)}"
        )
    if classifier.format is None:
        raise InvalidValueError("the model generates vectors; a model of images was expected")
    counts = np.broadcast_to(n_per_class, len(classifier.labels)).tolist()
    if not any(counts):
        raise InvalidValueError("the number of images is 0; at least 1 was expected")
    requests = enumerate(zip(classifier.labels, counts, strict=True))
    pixels = np.concatenate([sample(classifier, name, n, seed=seed + c) for c, (name, n) in requests if n])
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    images = ArrayDataset(pixels, lambda i: f"generated image {i}")
    return LabeledImages(images, labels, image_hashes(pixels))


def sample_quality(
    generated: LabeledImages,
    classifier: _ReferenceClassifier,
    train: LabeledImages,
    held_out: LabeledImages,
    *,
    seed: int,
) -> SampleQuality:
    """Measure images that `sample_images` generated with `seed`.

    `held_out` are labeled real images that neither the model nor the classifier was trained on.
    """
    return SampleQuality(
        seed=seed,
        class_consistency=ClassConsistency.measure(classifier, generated, held_out),
        near_duplicates=NearDuplicates.count(generated, train, held_out),
    )


@dataclass(frozen=True, eq=False)
class _Predictions:
    """log p(c | x), (N, K), and labels (N,) of images."""

    log_posterior: Floats
    labels: Ints

    @property
    def counts(self) -> Ints:
        """Images per class, (K,)."""
        return self._count(self.labels)

    @property
    def correct(self) -> Ints:
        """Correctly classified images per class, (K,)."""
        return self._count(self.labels[self.log_posterior.argmax(axis=1) == self.labels])

    def _count(self, labels: Ints) -> Ints:
        return np.bincount(labels, minlength=self.log_posterior.shape[1])


def _predictions(classifier: _ReferenceClassifier, images: LabeledImages) -> _Predictions:
    labeled = images.labeled()
    log_posterior = classifier.log_posterior(labeled.images) if len(labeled) else np.zeros((0, 1))
    return _Predictions(log_posterior, labeled.labels)


def _weighted_accuracy(real: _Predictions, weights: Ints) -> float | None:
    """Return the weighted mean recall over classes; None without images."""
    counts = real.counts
    present = np.flatnonzero((counts > 0) & (weights[: len(counts)] > 0))
    if not len(present):
        return None
    return float(np.average(real.correct[present] / counts[present], weights=weights[present]))


def _n_duplicates(images: LabeledImages, known: Thumbnails) -> int:
    if not len(images):
        return 0
    is_near = Thumbnails.from_images(images).nearest_duplicates(known) >= 0  # without exact duplicates
    return int((is_near | np.isin(images.hashes, known.hashes)).sum())
