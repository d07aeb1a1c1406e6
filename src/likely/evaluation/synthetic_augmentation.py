"""Generated images among those that are learned from: whether they help, on images that neither training saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from likely.classifier import Predictor
from likely.data.dataset import LabeledImages, fingerprint, to_hashes
from likely.data.image_dataset import InMemoryImages
from likely.data.preprocessing import ImageFormat
from likely.evaluation.extractors import resized
from likely.evaluation.metrics import Bools, paired_bootstrap
from likely.evaluation.sample_quality import sample_images
from likely.exceptions import InvalidValueError
from likely.options import Options

PER_CLASS = 100  # generated images, where no number is given


class AugmentationResult(Options):
    """What generated images did to the accuracy on held-out images; they stay only if it rose beyond its interval."""

    source: str = Field(description="The model that drew them.")
    n_generated: int
    n: int = Field(description="Held-out images.")
    before: float = Field(description="Accuracy without generated images.")
    after: float = Field(description="Accuracy with them.")
    low: float = Field(description="The difference's lower end, at 95 %.")
    high: float

    @property
    def accepted(self) -> bool:
        """Whether the model is the one that learned from generated images as well."""
        return self.low > 0


def parse_source(words: str) -> tuple[Path, int]:
    """MODEL[:n]: the model's folder, and how many images of each class it is to draw.

    >>> asked("fashion:50")
    (PosixPath('fashion'), 50)
    """
    folder, colon, n = words.rpartition(":")
    if colon and n.isdecimal() and int(n) > 0:
        return Path(folder), int(n)
    return Path(words), PER_CLASS


def generate_images(
    generator: Predictor, n: int, classes: tuple[str, ...], format: ImageFormat, *, seed: int
) -> LabeledImages:
    """n generated images of each class, in the format of those that are learned from; a ValueError if classes differ."""
    if set(generator.labels) != set(classes):
        strange = sorted(set(generator.labels) ^ set(classes))
        raise InvalidValueError(
            f"{generator.id} draws other classes than there are to learn; {strange[0]!r} is of one of them alone"
        )
    part = sample_images(generator, n, seed)
    pixels = resized(part.images.batch(np.arange(len(part))).numpy(), format)
    place = np.array([classes.index(name) for name in generator.labels], np.int64)
    images = InMemoryImages(pixels, lambda i: f"generated image {i}")
    return LabeledImages(images, place[part.labels], to_hashes(fingerprint(image) for image in pixels))


def compare(source: str, n_generated: int, before: Bools, after: Bools, *, seed: int = 0) -> AugmentationResult:
    """From which held-out images were answered rightly, (N,) each."""
    sure = paired_bootstrap(after, before, np.random.default_rng(seed))
    figures = {"before": float(before.mean()), "after": float(after.mean()), "low": sure.low, "high": sure.high}
    return AugmentationResult(source=source, n_generated=n_generated, n=len(before), **figures)
