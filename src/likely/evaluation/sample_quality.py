"""A generated set is honest: a judge finds in each image the class it was drawn for, and none is a training image again.

Both figures stand beside the same figure of real images: no judge is always right, and some data have near twins anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import Field

from likely.base import GenerativeModel
from likely.classifier import Predictor
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.image_dataset import ImageDataset, InMemoryImages
from likely.data.quality.near_duplicates import Thumbnails, make_thumbnails, nearest_duplicates
from likely.evaluation.metrics import Floats, Interval, Ints, clopper_pearson
from likely.exceptions import InvalidValueError
from likely.models import families_with
from likely.options import Options


class ReferenceClassifier(Protocol):
    """Whoever says how probable each class is for an image; a BayesClassifier does."""

    @property
    def id(self) -> str | None:
        """Its name, None if it has none."""

    def log_posterior(self, images: ImageDataset) -> Floats:
        """log p(c | x), (N, K)."""


@dataclass(frozen=True)
class Ensemble:
    """log p(c | x) = log 1/M Σ_m p_m(c | x): several judges of the same classes who settle on their mean."""

    id: str
    members: Sequence[ReferenceClassifier]

    def log_posterior(self, images: ImageDataset) -> Floats:
        votes = np.stack([member.log_posterior(images) for member in self.members])  # (M, N, K)
        mean: Floats = np.logaddexp.reduce(votes, axis=0) - np.log(len(votes))
        return mean


class ClassConsistency(Options):
    """Which of the generated images a judge puts in the class that they were drawn for, and how far it can be trusted."""

    classifier: str = Field(description="Who judged.")
    n_generated: tuple[int, ...] = Field(description="Generated images of each class.")
    n_consistent: tuple[int, ...] = Field(description="How many of them the judge puts in that class.")
    n_real: int = Field(description="Real images, with known labels, that the same judge was shown.")
    real_accuracy: float | None = Field(
        description="The share of those it gets right, classes weighing what they weigh among the generated images."
    )

    @property
    def n(self) -> int:
        return sum(self.n_generated)

    @property
    def accuracy(self) -> float:
        """The share of the generated images that are recognized as their class."""
        return sum(self.n_consistent) / self.n

    @property
    def interval(self) -> Interval:
        """What that share may be, with 95% confidence."""
        return clopper_pearson(sum(self.n_consistent), self.n)


class NearDuplicates(Options):
    """How many images are, bit by bit or nearly, among the training images: generated ones, and real ones beside them."""

    n: int = Field(description="Generated images.")
    n_duplicates: int = Field(description="How many of them are copies or near copies of a training image.")
    n_real: int = Field(description="Real images that were kept from the training.")
    n_real_duplicates: int = Field(description="How many of those are, by chance, nearly a training image.")
    n_train: int = Field(description="Training images that they were compared with.")

    @property
    def fraction(self) -> float:
        return self.n_duplicates / self.n

    @property
    def real_fraction(self) -> float | None:
        return self.n_real_duplicates / self.n_real if self.n_real else None

    @property
    def interval(self) -> Interval:
        """What the generated images' share may be, with 95% confidence."""
        return clopper_pearson(self.n_duplicates, self.n)


class SampleQuality(Options):
    """What can be said for and against a set of generated images, in numbers that JSON can hold."""

    seed: int = Field(description="The seed that the images were drawn with.")
    class_consistency: ClassConsistency
    near_duplicates: NearDuplicates

    @property
    def n(self) -> int:
        return self.class_consistency.n


def sample_images(classifier: Predictor, n_per_class: int | Sequence[int], seed: int) -> LabeledImages:
    """Generated images, n of every class or of each its own number, with the class that each was drawn for as its label.

    They are those of `likely generate` with the same seed. A ValueError if the model draws no images.
    """
    if not isinstance(classifier.model_, GenerativeModel):
        raise InvalidValueError(
            f"{classifier.family!r} only tells classes apart; families that draw images: {families_with(GenerativeModel)}"
        )
    if classifier.format_ is None:
        raise InvalidValueError("the model was trained on vectors and draws vectors; a model of images was expected")
    counts = np.broadcast_to(n_per_class, len(classifier.labels)).tolist()
    if not any(counts):
        raise InvalidValueError("no image was asked for; at least one was expected")
    asked = enumerate(zip(classifier.labels, counts, strict=True))
    pixels = np.concatenate([classifier.sample(name, n, seed=seed + c) for c, (name, n) in asked if n])
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    images = InMemoryImages(pixels, lambda i: f"generated image {i}")
    return LabeledImages(images, labels, to_hashes(fingerprint(image) for image in pixels))


def sample_quality(
    generated: LabeledImages,
    classifier: ReferenceClassifier,
    train: LabeledImages,
    held_out: LabeledImages,
    *,
    seed: int,
) -> SampleQuality:
    """Judge `made`, which `drawn` has drawn with `seed`, and compare it with the training images.

    `held_out` are labeled real images that neither the model nor the judge was trained on.
    """
    return SampleQuality(
        seed=seed,
        class_consistency=class_consistency(classifier, generated, held_out),
        near_duplicates=near_duplicates(generated, train, held_out),
    )


def class_consistency(
    classifier: ReferenceClassifier, generated: LabeledImages, real: LabeledImages
) -> ClassConsistency:
    """The judge's word on generated images beside its word on real ones, of which there may be none."""
    of_made, of_real = _verdict(classifier, generated), _verdict(classifier, real)
    return ClassConsistency(
        classifier=classifier.id or "unsaved",
        n_generated=tuple(of_made.counts.tolist()),
        n_consistent=tuple(of_made.right.tolist()),
        n_real=len(of_real.labels),
        real_accuracy=_weighted_accuracy(of_real, of_made.counts),
    )


def near_duplicates(generated: LabeledImages, train: LabeledImages, held_out: LabeledImages) -> NearDuplicates:
    """Images of `made`, and of `held_out`, that show what a training image shows; see `likely.data.quality.near_duplicates`."""
    known = make_thumbnails(train)
    n, n_real = _n_copies(generated, known), _n_copies(held_out, known)
    return NearDuplicates(
        n=len(generated), n_duplicates=n, n_real=len(held_out), n_real_duplicates=n_real, n_train=len(train)
    )


@dataclass(frozen=True, eq=False)
class _Verdict:
    """What a judge said of images with known classes: log p(c | x), (N, K), and labels, (N,)."""

    log_posterior: Floats
    labels: Ints

    @property
    def counts(self) -> Ints:
        """Images of each class, (K,)."""
        return self._counted(self.labels)

    @property
    def right(self) -> Ints:
        """Those of them that the judge gets right, (K,)."""
        return self._counted(self.labels[self.log_posterior.argmax(axis=1) == self.labels])

    def _counted(self, labels: Ints) -> Ints:
        return np.bincount(labels, minlength=self.log_posterior.shape[1])


def _verdict(judge: ReferenceClassifier, part: LabeledImages) -> _Verdict:
    shown = part.labeled()
    return _Verdict(judge.log_posterior(shown.images) if len(shown) else np.zeros((0, 1)), shown.labels)


def _weighted_accuracy(real: _Verdict, weights: Ints) -> float | None:
    """The mean over classes of the share of real images that the judge gets right, weighted; None without an image."""
    counts = real.counts
    seen = np.flatnonzero((counts > 0) & (weights[: len(counts)] > 0))
    if not len(seen):
        return None
    return float(np.average(real.right[seen] / counts[seen], weights=weights[seen]))


def _n_copies(part: LabeledImages, known: Thumbnails) -> int:
    if not len(part):
        return 0
    is_near = nearest_duplicates(make_thumbnails(part), known) >= 0  # which leaves exact copies out
    return int((is_near | np.isin(part.hashes, known.hashes)).sum())
