"""Fidelity: how like the real images are those that a model draws, in the features of some extractor.

No such figure means anything by itself: it stands beside the extractor and the numbers of images that it was measured with,
and figures that differ in these are not compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from likely.classifier import Predictor
from likely.data.dataset import LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.evaluation.extractors import Extractor, ModelExtractor
from likely.evaluation.frechet_and_kernel import (
    frechet_distance,
    intra_class_frechet_distances,
    kernel_distance,
    kernel_distances,
)
from likely.evaluation.metrics import Floats
from likely.evaluation.precision_recall import density_coverage, precision_recall
from likely.evaluation.sample_quality import ClassConsistency, class_consistency, sample_images
from likely.exceptions import IncomparableError, InvalidValueError
from likely.options import Options

MAX_IMAGES = 10_000  # images a side, where nobody says how many
N_SUBSETS, SUBSET = 100, 1000  # of the kernel distance, as its authors have them
MIN_IMAGES = 50  # images of a class, for a distance within it to say anything
PRECISION_K, DENSITY_K = 3, 5  # nearest neighbors, as the measures' authors have them


class KID(Options):
    """The kernel distance (KID) of all images, and of random subsets, whose spread says how sure it is."""

    distance: float
    mean: float
    deviation: float
    n_subsets: int
    subset_size: int


class IntraClassFID(Options):
    """The mean over classes of each class's own Fréchet distance; None where no class has enough images."""

    frechet: float | None
    n_classes: int = Field(description="Classes that were measured.")
    n_excluded: int = Field(description="Classes left out because they have too few images.")
    min_images: int = Field(description="Images that a class must have on either side.")


class Fidelity(Options):
    """Every figure of a generated set beside a real one, with what it was measured with; JSON can hold it."""

    model: str = Field(description="The model that drew the images.")
    extractor: str = Field(description="What they were measured with: its name and its number of features.")
    n_features: int
    n_real: int
    n_generated: int = Field(description="Generated images, each class as many as among the real ones.")
    real: str = Field(description="The first digits of a hash of the real images.")
    seed: int = Field(description="The seed that the images were chosen and drawn with.")
    frechet: float = Field(description="Fréchet distance (FID); 0 is the same.")
    kernel: KID
    precision: float = Field(description=f"Share of generated images among the real ones; k = {PRECISION_K}.")
    recall: float = Field(description=f"Share of real images among the generated ones; k = {PRECISION_K}.")
    density: float = Field(description=f"How densely real images stand about the generated ones; k = {DENSITY_K}.")
    coverage: float = Field(description=f"Share of real images with a generated one close by; k = {DENSITY_K}.")
    intra_class_fid: IntraClassFID
    classes: ClassConsistency | None = Field(description="What the extractor says of the classes, if it knows them.")


def fidelity(
    classifier: Predictor, images: LabeledImages, extractor: Extractor, n: int | None = None, seed: int = 0
) -> Fidelity:
    """Draw as many images of every class as n real ones of the part have, and measure one set against the other.

    The real images are those of the part in the classifier's own format, chosen by `seed` if there are more than n; all, up
    to 10,000, without n. A ValueError says what is not possible.
    """
    _refuse_itself(classifier, extractor)
    K, chosen = len(classifier.labels), _chosen(images, n, seed)
    generated = sample_images(classifier, chosen.class_counts(K), seed)
    real, made = extractor.features(chosen.images), extractor.features(generated.images)  # (N, F) each
    return Fidelity(
        model=classifier.id or "unsaved",
        extractor=f"{extractor.name}, {real.shape[1]} features",
        n_features=real.shape[1],
        n_real=len(real),
        n_generated=len(made),
        real=_digest(chosen),
        seed=seed,
        frechet=frechet_distance(real, made),
        kernel=_kernel(real, made, seed),
        **precision_recall(real, made, PRECISION_K)._asdict(),
        **density_coverage(real, made, DENSITY_K)._asdict(),
        intra_class_fid=_within(
            intra_class_frechet_distances((real, chosen.labels), (made, generated.labels), K, min_images=MIN_IMAGES)
        ),
        classes=_judged(extractor, classifier.labels, generated, chosen),
    )


def difference(a: Fidelity, b: Fidelity) -> str | None:
    """Why the figures of two models cannot be compared, in a sentence; None if they can."""
    how = {
        "extractor": "measured by {}",
        "n_real": "measured against {:,} real images",
        "n_generated": "measured on {:,} generated images",
        "real": "measured against the real images {}",
    }
    for name, words in how.items():
        if (ours := getattr(a, name)) != (theirs := getattr(b, name)):
            return (
                f"the images of {a.model} were {words.format(ours)}, those of {b.model} were {words.format(theirs)}: "
                "such figures say nothing about each other; measure both alike"
            )
    return None


def require_comparable(a: Fidelity, b: Fidelity) -> None:
    """Nothing if the figures of two models can be compared, else an Incomparable with the sentence that says why not."""
    if (why := difference(a, b)) is not None:
        raise IncomparableError(why)


def _refuse_itself(classifier: Predictor, extractor: Extractor) -> None:
    if isinstance(extractor, ModelExtractor) and (
        classifier is extractor.classifier or classifier.id == extractor.name
    ):
        raise InvalidValueError(
            f"{extractor.name} would be measured by its own features, which it was trained to satisfy; "
            "a model that was trained apart from it was expected, such as a 'softmax' one of the same data"
        )


def _chosen(part: LabeledImages, n: int | None, seed: int) -> LabeledImages:
    """n labeled images, in their own order."""
    known = part.labeled()
    n = min(len(known), MAX_IMAGES) if n is None else n
    if not DENSITY_K < n <= len(known):
        raise InvalidValueError(
            f"{n:,} real images were asked for, of {len(known):,} that have a label; "
            f"more than {DENSITY_K} and no more than there are were expected"
        )
    return known.subset(np.sort(np.random.default_rng(seed).choice(len(known), n, replace=False)))


def _digest(part: LabeledImages) -> str:
    """What a set of images is known by, whatever its order."""
    return hashlib.sha256(np.sort(part.hashes).tobytes()).hexdigest()[:8]


def _kernel(real: Floats, made: Floats, seed: int) -> KID:
    size = min(SUBSET, len(real) // 2)  # subsets of nearly everything would hardly differ
    rng = np.random.default_rng(seed)
    subsets = kernel_distances(real, made, n_subsets=N_SUBSETS, size=size, rng=rng)
    return KID(
        distance=kernel_distance(real, made),
        mean=float(subsets.mean()),
        deviation=float(subsets.std()),
        n_subsets=N_SUBSETS,
        subset_size=size,
    )


def _within(distances: Floats) -> IntraClassFID:
    measured = distances[~np.isnan(distances)]
    return IntraClassFID(
        frechet=float(measured.mean()) if len(measured) else None,
        n_classes=len(measured),
        n_excluded=len(distances) - len(measured),
        min_images=MIN_IMAGES,
    )


def _judged(
    extractor: Extractor, labels: Sequence[str], made: LabeledImages, real: LabeledImages
) -> ClassConsistency | None:
    """What the extractor says of the classes, where it is a classifier of just these."""
    if not isinstance(extractor, ModelExtractor) or set(extractor.labels) != set(labels):
        return None
    new = real.subset(np.flatnonzero(~np.isin(real.hashes, extractor.classifier.hashes_)))
    return class_consistency(_Reordered(extractor, labels), made, new)


@dataclass(frozen=True)
class _Reordered:
    """A judge of the same classes, whose posterior has them in the order of these labels."""

    judge: ModelExtractor
    labels: Sequence[str]

    @property
    def id(self) -> str:
        return self.judge.id

    def log_posterior(self, images: ImageDataset) -> Floats:
        order = [self.judge.labels.index(name) for name in self.labels]
        return self.judge.log_posterior(images)[:, order]
