"""Fidelity: similarity of generated and real images, as sets, in the features of an extractor.

The metrics depend on the extractor and on the numbers of images; metrics that differ in these are not comparable.
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
from likely.evaluation.fidelity_metrics import (
    density_coverage,
    frechet_distance,
    intra_class_frechet_distances,
    kernel_distance,
    kernel_distances,
    precision_recall,
)
from likely.evaluation.metrics import Floats
from likely.evaluation.sample_quality import ClassConsistency, sample_images
from likely.exceptions import InvalidValueError
from likely.options import Options

MAX_IMAGES = 10_000  # real images, by default
N_SUBSETS, SUBSET = 100, 1000  # of the kernel distance, as in its paper
MIN_IMAGES = 50  # per class, for the intra-class FID
PRECISION_K, DENSITY_K = 3, 5  # nearest neighbors, as in the papers


class KID(Options):
    """Kernel distance of all images, and mean and deviation over random subsets."""

    distance: float
    mean: float
    deviation: float
    n_subsets: int
    subset_size: int


class IntraClassFID(Options):
    """Mean of the Fréchet distances of single classes; None if no class has enough images."""

    frechet: float | None
    n_classes: int = Field(description="Measured classes.")
    n_excluded: int = Field(description="Classes with too few images.")
    min_images: int = Field(description="Required images of a class, real and generated.")


class Fidelity(Options):
    """Fidelity metrics of generated images, with the extractor and the images that they were measured with."""

    model: str = Field(description="The generating model.")
    extractor: str = Field(description="Name and number of features of the extractor.")
    n_features: int
    n_real: int
    n_generated: int = Field(description="Generated images, with the class frequencies of the real ones.")
    real: str = Field(description="First digits of the hash of the real images.")
    seed: int = Field(description="Seed of the selection of real images and of the generated images.")
    frechet: float = Field(description="Fréchet distance (FID); 0 for equal sets.")
    kernel: KID
    precision: float = Field(description=f"Fraction of generated images within the real manifold; k = {PRECISION_K}.")
    recall: float = Field(description=f"Fraction of real images within the generated manifold; k = {PRECISION_K}.")
    density: float = Field(description=f"Density of real images around the generated ones; k = {DENSITY_K}.")
    coverage: float = Field(description=f"Fraction of real images with a generated one nearby; k = {DENSITY_K}.")
    intra_class_fid: IntraClassFID
    class_consistency: ClassConsistency | None = Field(
        description="By the extractor, if it classifies the same classes."
    )

    def difference(self, other: Fidelity) -> str | None:
        """Return the reason why two measurements are not comparable, as a sentence; None if they are."""
        conditions = {
            "extractor": "measured by {}",
            "n_real": "measured against {:,} real images",
            "n_generated": "measured on {:,} generated images",
            "real": "measured against the real images {}",
        }
        for name, template in conditions.items():
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return (
                    f"the images of {self.model} were {template.format(ours)}, those of {other.model} were "
                    f"{template.format(theirs)}: measure both alike to compare them"
                )
        return None


def fidelity(
    classifier: Predictor, images: LabeledImages, extractor: Extractor, n: int | None = None, seed: int = 0
) -> Fidelity:
    """Generate images with the class frequencies of n real ones, and measure one set against the other.

    `seed` selects the n real images; by default all are used, up to 10,000. Raise InvalidValueError if that is impossible.
    """
    _require_other_model(classifier, extractor)
    K, selected = len(classifier.labels), _selected(images, n, seed)
    generated = sample_images(classifier, selected.class_counts(K), seed)
    x, y = extractor.features(selected.images), extractor.features(generated.images)  # (N, F) each
    return Fidelity(
        model=classifier.id or "unsaved",
        extractor=f"{extractor.name}, {x.shape[1]} features",
        n_features=x.shape[1],
        n_real=len(x),
        n_generated=len(y),
        real=_digest(selected),
        seed=seed,
        frechet=frechet_distance(x, y),
        kernel=_kid(x, y, seed),
        **precision_recall(x, y, PRECISION_K)._asdict(),
        **density_coverage(x, y, DENSITY_K)._asdict(),
        intra_class_fid=_intra_class_fid(
            intra_class_frechet_distances((x, selected.labels), (y, generated.labels), K, min_images=MIN_IMAGES)
        ),
        class_consistency=_class_consistency(extractor, classifier.labels, generated, selected),
    )


def _require_other_model(classifier: Predictor, extractor: Extractor) -> None:
    if isinstance(extractor, ModelExtractor) and (
        classifier is extractor.classifier or classifier.id == extractor.name
    ):
        raise InvalidValueError(
            f"{extractor.name} would be measured in its own features; expected another model as extractor, such as a "
            "'softmax' model of the same data"
        )


def _selected(images: LabeledImages, n: int | None, seed: int) -> LabeledImages:
    """Return n random labeled images, in their order."""
    known = images.labeled()
    n = min(len(known), MAX_IMAGES) if n is None else n
    if not DENSITY_K < n <= len(known):
        raise InvalidValueError(
            f"{n:,} real images, of {len(known):,} with a label; expected more than {DENSITY_K} and at most {len(known):,}"
        )
    return known.subset(np.sort(np.random.default_rng(seed).choice(len(known), n, replace=False)))


def _digest(images: LabeledImages) -> str:
    """Return the first digits of a hash of a set of images that does not depend on their order."""
    return hashlib.sha256(np.sort(images.hashes).tobytes()).hexdigest()[:8]


def _kid(real: Floats, generated: Floats, seed: int) -> KID:
    size = min(SUBSET, len(real) // 2)  # larger subsets would hardly differ
    rng = np.random.default_rng(seed)
    subsets = kernel_distances(real, generated, n_subsets=N_SUBSETS, size=size, rng=rng)
    return KID(
        distance=kernel_distance(real, generated),
        mean=float(subsets.mean()),
        deviation=float(subsets.std()),
        n_subsets=N_SUBSETS,
        subset_size=size,
    )


def _intra_class_fid(distances: Floats) -> IntraClassFID:
    measured = distances[~np.isnan(distances)]
    return IntraClassFID(
        frechet=float(measured.mean()) if len(measured) else None,
        n_classes=len(measured),
        n_excluded=len(distances) - len(measured),
        min_images=MIN_IMAGES,
    )


def _class_consistency(
    extractor: Extractor, labels: Sequence[str], generated: LabeledImages, real: LabeledImages
) -> ClassConsistency | None:
    """Measure class consistency by the extractor if it classifies exactly these classes."""
    if not isinstance(extractor, ModelExtractor) or set(extractor.labels) != set(labels):
        return None
    unseen = real.subset(np.flatnonzero(~np.isin(real.hashes, extractor.classifier.hashes)))
    return ClassConsistency.measure(_Reordered(extractor, labels), generated, unseen)


@dataclass(frozen=True)
class _Reordered:
    """A classifier whose posterior has the classes in the order of `labels`."""

    extractor: ModelExtractor
    labels: Sequence[str]

    @property
    def id(self) -> str:
        return self.extractor.id

    def log_posterior(self, images: ImageDataset) -> Floats:
        order = [self.extractor.labels.index(name) for name in self.labels]
        return self.extractor.log_posterior(images)[:, order]
