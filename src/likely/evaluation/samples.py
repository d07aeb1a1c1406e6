"""A generated set is honest: a judge finds in each image the class it was drawn for, and none is a training image again.

Both figures stand beside the same figure of real images: no judge is always right, and some data have near twins anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import Field

from likely.classifier import BayesClassifier
from likely.contract import GenerativeModel
from likely.data.collection import CachedImages, Images
from likely.data.likeness import Looks, looks, twins
from likely.data.parts import Part, fingerprint, hashes_of
from likely.evaluation.metrics import Floats, Interval, Ints, clopper_pearson
from likely.models import able
from likely.options import Options


class ClassJudge(Protocol):
    """Whoever says how probable each class is for an image; a BayesClassifier does."""

    @property
    def id(self) -> str | None:
        """Its name, None if it has none."""

    def log_posterior(self, images: Images) -> Floats:
        """log p(c | x), (N, K)."""


@dataclass(frozen=True)
class Panel:
    """log p(c | x) = log 1/M Σ_m p_m(c | x): several judges of the same classes who settle on their mean."""

    id: str
    members: Sequence[ClassJudge]

    def log_posterior(self, images: Images) -> Floats:
        votes = np.stack([member.log_posterior(images) for member in self.members])  # (M, N, K)
        mean: Floats = np.logaddexp.reduce(votes, axis=0) - np.log(len(votes))
        return mean


class Judged(Options):
    """Which of the generated images a judge puts in the class that they were drawn for, and how far it can be trusted."""

    judge: str = Field(description="Who judged.")
    n_drawn: tuple[int, ...] = Field(description="Generated images of each class.")
    n_right: tuple[int, ...] = Field(description="How many of them the judge puts in that class.")
    n_real: int = Field(description="Real images, with known labels, that the same judge was shown.")
    real_accuracy: float | None = Field(
        description="The share of those it gets right, classes weighing what they weigh among the generated images."
    )

    @property
    def n(self) -> int:
        return sum(self.n_drawn)

    @property
    def accuracy(self) -> float:
        """The share of the generated images that are recognised as their class."""
        return sum(self.n_right) / self.n

    @property
    def interval(self) -> Interval:
        """What that share may be, with 95% confidence."""
        return clopper_pearson(sum(self.n_right), self.n)


class Copies(Options):
    """How many images are, bit by bit or nearly, among the training images: generated ones, and real ones beside them."""

    n: int = Field(description="Generated images.")
    n_copies: int = Field(description="How many of them are copies or near copies of a training image.")
    n_real: int = Field(description="Real images that were kept from the training.")
    n_real_copies: int = Field(description="How many of those are, by chance, nearly a training image.")
    n_train: int = Field(description="Training images that they were compared with.")

    @property
    def share(self) -> float:
        return self.n_copies / self.n

    @property
    def real_share(self) -> float | None:
        return self.n_real_copies / self.n_real if self.n_real else None

    @property
    def interval(self) -> Interval:
        """What the generated images' share may be, with 95% confidence."""
        return clopper_pearson(self.n_copies, self.n)


class Honesty(Options):
    """What can be said for and against a set of generated images, in numbers that JSON can hold."""

    seed: int = Field(description="The seed that the images were drawn with.")
    classes: Judged
    copies: Copies

    @property
    def n(self) -> int:
        return self.classes.n


def drawn(classifier: BayesClassifier, n_per_class: int | Sequence[int], seed: int) -> Part:
    """Generated images, n of every class or of each its own number, with the class that each was drawn for as its label.

    They are those of `likely generate` with the same seed. A ValueError if the model draws no images.
    """
    if not isinstance(classifier.model_, GenerativeModel):
        raise ValueError(
            f"{classifier.family!r} only tells classes apart; families that draw images: {able(GenerativeModel)}"
        )
    if classifier.format_ is None:
        raise ValueError("the model was trained on vectors and draws vectors; a model of images was expected")
    counts = np.broadcast_to(n_per_class, len(classifier.labels)).tolist()
    if not any(counts):
        raise ValueError("no image was asked for; at least one was expected")
    asked = enumerate(zip(classifier.labels, counts, strict=True))
    pixels = np.concatenate([classifier.sample(name, n, seed=seed + c) for c, (name, n) in asked if n])
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    images = CachedImages(pixels, lambda i: f"generated image {i}")
    return Part(images, labels, hashes_of(fingerprint(image) for image in pixels))


def honesty(made: Part, judge: ClassJudge, train: Part, held_out: Part, *, seed: int) -> Honesty:
    """Judge `made`, which `drawn` has drawn with `seed`, and compare it with the training images.

    `held_out` are labelled real images that neither the model nor the judge was trained on.
    """
    return Honesty(seed=seed, classes=judged(judge, made, held_out), copies=copies(made, train, held_out))


def judged(judge: ClassJudge, made: Part, real: Part) -> Judged:
    """The judge's word on generated images beside its word on real ones, of which there may be none."""
    of_made, of_real = _verdict(judge, made), _verdict(judge, real)
    return Judged(
        judge=judge.id or "unsaved",
        n_drawn=tuple(of_made.counts.tolist()),
        n_right=tuple(of_made.right.tolist()),
        n_real=len(of_real.labels),
        real_accuracy=_weighted_accuracy(of_real, of_made.counts),
    )


def copies(made: Part, train: Part, held_out: Part) -> Copies:
    """Images of `made`, and of `held_out`, that show what a training image shows; see `likely.data.likeness`."""
    known = looks(train)
    n, n_real = _n_copies(made, known), _n_copies(held_out, known)
    return Copies(n=len(made), n_copies=n, n_real=len(held_out), n_real_copies=n_real, n_train=len(train))


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


def _verdict(judge: ClassJudge, part: Part) -> _Verdict:
    shown = part.labelled()
    return _Verdict(judge.log_posterior(shown.images) if len(shown) else np.zeros((0, 1)), shown.labels)


def _weighted_accuracy(real: _Verdict, weights: Ints) -> float | None:
    """The mean over classes of the share of real images that the judge gets right, weighted; None without an image."""
    counts = real.counts
    seen = np.flatnonzero((counts > 0) & (weights[: len(counts)] > 0))
    if not len(seen):
        return None
    return float(np.average(real.right[seen] / counts[seen], weights=weights[seen]))


def _n_copies(part: Part, known: Looks) -> int:
    if not len(part):
        return 0
    is_near = twins(looks(part), known) >= 0  # which leaves exact copies out
    return int((is_near | np.isin(part.hashes, known.hashes)).sum())
