"""Evaluation images of DATA: the test split, or otherwise all images that the model was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from likely.classifier import Predictor
from likely.data.dataset import Dataset, LabeledImages
from likely.data.image_dataset import ImageDataset
from likely.data.loading import load_dataset
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.sources.base import LoadError
from likely.exceptions import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class OODImages:
    """Out-of-distribution images, their source, and the files that could not be read."""

    source: str
    images: ImageDataset
    errors: tuple[LoadError, ...]


@dataclass(frozen=True, eq=False)
class EvalSplit:
    """Images for an evaluation, the number of skipped training images, and the files that could not be read."""

    images: LabeledImages
    n_skipped: int
    errors: tuple[LoadError, ...]


def eval_split(classifier: Predictor, data: str, progress: Progress | None = None) -> EvalSplit:
    """Return labeled images of the model's classes that it was not trained on; raise DataError if there are none."""
    dataset = _loaded(classifier, data, progress).relabel(classifier.labels)
    images = next(iter(dataset.splits.values())).labeled()
    unseen = np.flatnonzero(~np.isin(images.hashes, classifier.hashes))
    if not len(unseen):
        reason = "the model was trained on all of them" if len(images) else "none has a label that the model knows"
        raise DataError(f"{data}: no images for an evaluation: {reason}")
    return EvalSplit(images.subset(unseen), len(images) - len(unseen), dataset.errors)


def training_images(classifier: Predictor, data: str, progress: Progress | None = None) -> LabeledImages:
    """Return the labeled images of DATA that the model was trained on; raise DataError if there are none."""
    dataset = load_dataset(
        data, classifier.format or ImageOptions(), splits=("train",), progress=progress, fewest_classes=0
    )
    images = dataset.relabel(classifier.labels).train
    if images is None or not np.isin(images.hashes, classifier.hashes).any():
        raise DataError(f"{data}: holds none of the images that the model was trained on")
    return images.subset(np.flatnonzero(np.isin(images.hashes, classifier.hashes))).labeled()


def ood_images(classifier: Predictor, data: str, progress: Progress | None = None) -> OODImages:
    """Return out-of-distribution images, whatever their labels."""
    dataset = _loaded(classifier, data, progress)
    return OODImages(data, next(iter(dataset.splits.values())).images, dataset.errors)


def _loaded(classifier: Predictor, data: str, progress: Progress | None) -> Dataset:
    """Load the test split if there is one, else the training or the validation split."""
    format: ImageFormat | ImageOptions = classifier.format or ImageOptions()
    for split in ("test", "train", "validation"):
        dataset = load_dataset(data, format, splits=(split,), progress=progress, fewest_classes=0)
        if dataset.splits:
            break
    else:
        raise DataError(f"{data}: no images")
    if next(iter(dataset.splits.values())).images.shape != classifier.shape:
        raise DataError(f"{data}: images of another shape than the model's, {classifier.shape}")
    return dataset
