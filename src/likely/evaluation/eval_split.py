"""Images of DATA for a trained model: to evaluate it, or to calibrate it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from likely.classifier import Predictor
from likely.data.dataset import Dataset, LabeledImages, concatenate
from likely.data.groups import with_groups
from likely.data.image_dataset import ImageDataset
from likely.data.loading import load_dataset
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.sources.base import LoadError
from likely.exceptions import DataError, did_you_mean

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class OODImages:
    """Out-of-distribution images, their source, and the files that could not be read."""

    source: str
    images: LabeledImages
    errors: tuple[LoadError, ...]


@dataclass(frozen=True, eq=False)
class CalibrationImages:
    """Images of known classes, labeled or not, and the files that could not be read."""

    images: LabeledImages
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


def calibration_images(classifier: Predictor, data: str, progress: Progress | None = None) -> CalibrationImages:
    """Return all images but those of the test split, labeled as the model's classes or not at all.

    Raises DataError if there are none, or if some have labels that the model does not know.
    """
    format = classifier.format or ImageOptions()
    dataset = load_dataset(data, format, splits=("train", "validation"), progress=progress, fewest_classes=0)
    if not dataset.splits:
        raise DataError(f"{data}: holds a test split alone, which is left to evaluations; other images were expected")
    images = concatenate(list(dataset.splits.values()))
    _require_shape(images.images, classifier, data)
    present = [name for name, n in zip(dataset.classes, images.class_counts(len(dataset.classes)), strict=True) if n]
    if others := [name for name in present if name not in classifier.labels]:
        raise DataError(
            f"{data}: {', '.join(map(repr, others[:5]))}{', …' * (len(others) > 5)} {'is' if len(others) == 1 else 'are'} "
            f"no class of the model{did_you_mean(others[0], classifier.labels)}; images without labels belong into a folder "
            "without class folders, or into one named 'unlabeled'"
        )
    relabeled = with_groups(dataset).relabel(classifier.labels)
    return CalibrationImages(concatenate(list(relabeled.splits.values())), relabeled.errors)


def ood_images(classifier: Predictor, data: str, progress: Progress | None = None) -> OODImages:
    """Return out-of-distribution images, whatever their labels."""
    dataset = _loaded(classifier, data, progress)
    return OODImages(data, next(iter(dataset.splits.values())), dataset.errors)


def _loaded(classifier: Predictor, data: str, progress: Progress | None) -> Dataset:
    """Load the test split if there is one, else the training or the validation split, with its groups."""
    format: ImageFormat | ImageOptions = classifier.format or ImageOptions()
    for split in ("test", "train", "validation"):
        dataset = load_dataset(data, format, splits=(split,), progress=progress, fewest_classes=0)
        if dataset.splits:
            break
    else:
        raise DataError(f"{data}: no images")
    _require_shape(next(iter(dataset.splits.values())).images, classifier, data)
    return with_groups(dataset)


def _require_shape(images: ImageDataset, classifier: Predictor, data: str) -> None:
    if images.shape != classifier.shape:
        raise DataError(f"{data}: images of another shape than the model's, {classifier.shape}")
