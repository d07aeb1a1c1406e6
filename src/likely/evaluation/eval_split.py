"""Which images of DATA a model may be measured on: its test part, or else all that the model was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from likely.classifier import Predictor
from likely.data.dataset import Dataset, LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.data.loading import load
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.sources.base import LoadError
from likely.exceptions import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class OODImages:
    """Images of no known class, where they are from, and what was left out."""

    source: str
    images: ImageDataset
    errors: tuple[LoadError, ...]


@dataclass(frozen=True, eq=False)
class EvalSplit:
    """The images to measure on, how many were skipped because the model was trained on them, and what was left out."""

    images: LabeledImages
    n_skipped: int
    errors: tuple[LoadError, ...]


def eval_split(classifier: Predictor, data: str, progress: Progress | None = None) -> EvalSplit:
    """Labeled images of the model's classes that it was not trained on; a DataError if there are none."""
    dataset = _loaded(classifier, data, progress).relabel(classifier.labels)
    part = next(iter(dataset.splits.values())).labeled()
    fresh = np.flatnonzero(~np.isin(part.hashes, classifier.hashes_))
    if not len(fresh):
        why = "the model was trained on every one of them" if len(part) else "none has a label that the model knows"
        raise DataError(f"{data}: nothing is left to measure on: {why}")
    return EvalSplit(part.subset(fresh), len(part) - len(fresh), dataset.errors)


def training_images(classifier: Predictor, data: str, progress: Progress | None = None) -> LabeledImages:
    """The labeled images of DATA that the model was trained on; a DataError if there are none."""
    dataset = load(data, classifier.format_ or ImageOptions(), splits=("train",), progress=progress, fewest_classes=0)
    part = dataset.relabel(classifier.labels).train
    if part is None or not np.isin(part.hashes, classifier.hashes_).any():
        raise DataError(f"{data}: holds none of the images that the model was trained on")
    return part.subset(np.flatnonzero(np.isin(part.hashes, classifier.hashes_))).labeled()


def ood_images(classifier: Predictor, data: str, progress: Progress | None = None) -> OODImages:
    """Images whatever their labels."""
    dataset = _loaded(classifier, data, progress)
    return OODImages(data, next(iter(dataset.splits.values())).images, dataset.errors)


def _loaded(classifier: Predictor, data: str, progress: Progress | None) -> Dataset:
    """The test part where there is one, else the training or the validation part."""
    format: ImageFormat | ImageOptions = classifier.format_ or ImageOptions()
    for part in ("test", "train", "validation"):
        dataset = load(data, format, splits=(part,), progress=progress, fewest_classes=0)
        if dataset.splits:
            break
    else:
        raise DataError(f"{data}: holds no images")
    if next(iter(dataset.splits.values())).images.shape != classifier.shape:
        raise DataError(f"{data}: holds vectors or images of another kind than the model's, {classifier.shape}")
    return dataset
