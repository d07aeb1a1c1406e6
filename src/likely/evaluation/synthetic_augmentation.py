"""Synthetic augmentation: training on generated images of another model, tested on held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from likely.classifier import Predictor
from likely.data.dataset import LabeledImages, image_hashes
from likely.data.image_dataset import ArrayDataset
from likely.data.preprocessing import ImageFormat
from likely.evaluation.extractors import resized
from likely.evaluation.metrics import Bools, Ints, paired_bootstrap
from likely.evaluation.sample_quality import sample_images
from likely.exceptions import InvalidValueError
from likely.options import Options

PER_CLASS = 100  # generated images of each class, by default


class AugmentationResult(Options):
    """Accuracy on held-out images without and with generated training images."""

    source: str = Field(description="The generating model.")
    n_generated: int
    n: int = Field(description="Held-out images.")
    before: float = Field(description="Accuracy without generated images.")
    after: float = Field(description="Accuracy with them.")
    low: float = Field(description="Lower end of the 95% interval of the difference.")
    high: float

    @classmethod
    def compare(cls, source: str, n_generated: int, before: Bools, after: Bools, *, groups: Ints | None = None) -> Self:
        """Compare masks of correctly classified held-out images, (N,) each, without and with generated training images."""
        low, high = paired_bootstrap(after, before, np.random.default_rng(0), groups=groups)
        return cls(
            source=source,
            n_generated=n_generated,
            n=len(before),
            before=float(before.mean()),
            after=float(after.mean()),
            low=low,
            high=high,
        )

    @property
    def accepted(self) -> bool:
        """True if the accuracy increased significantly, so that the model uses the generated images."""
        return self.low > 0


def parse_source(text: str) -> tuple[Path, int]:
    """Parse MODEL[:n], a model folder and the number of images to generate of each class.

    >>> parse_source("fashion:50")
    (PosixPath('fashion'), 50)
    """
    folder, colon, n = text.rpartition(":")
    if colon and n.isdecimal() and int(n) > 0:
        return Path(folder), int(n)
    return Path(text), PER_CLASS


def generate_images(
    generator: Predictor, n: int, classes: tuple[str, ...], format: ImageFormat, *, seed: int
) -> LabeledImages:
    """Generate n images of each class in the format of the training images; raise InvalidValueError if classes differ."""
    if set(generator.labels) != set(classes):
        different = sorted(set(generator.labels) ^ set(classes))
        raise InvalidValueError(
            f"{generator.id} has other classes than the data; {different[0]!r} is in only one of them"
        )
    generated = sample_images(generator, n, seed)
    pixels = resized(generated.images.batch(np.arange(len(generated))).numpy(), format)
    index = np.array([classes.index(name) for name in generator.labels], np.int64)
    images = ArrayDataset(pixels, lambda i: f"generated image {i}")
    return LabeledImages(images, index[generated.labels], image_hashes(pixels))
