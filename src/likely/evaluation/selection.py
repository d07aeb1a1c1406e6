"""Which images of DATA a model may be measured on: its test part, or else all that the model was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from likely.classifier import BayesClassifier
from likely.data.collection import Images
from likely.data.dataset import load
from likely.data.images import ImageFormat, ImageOptions
from likely.data.listing import DataError, Problem
from likely.data.parts import Dataset, Part

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Strangers:
    """Images of no known class, where they are from, and what was left out."""

    source: str
    images: Images
    problems: tuple[Problem, ...]


@dataclass(frozen=True, eq=False)
class Selection:
    """The images to measure on, how many were skipped because the model was trained on them, and what was left out."""

    part: Part
    n_skipped: int
    problems: tuple[Problem, ...]


def select(classifier: BayesClassifier, data: str, progress: Progress | None = None) -> Selection:
    """Labelled images of the model's classes that it was not trained on; a DataError if there are none."""
    dataset = _loaded(classifier, data, progress).relabelled(classifier.labels)
    part = next(iter(dataset.parts.values())).labelled()
    fresh = np.flatnonzero(~np.isin(part.hashes, classifier.hashes_))
    if not len(fresh):
        why = "the model was trained on every one of them" if len(part) else "none has a label that the model knows"
        raise DataError(f"{data}: nothing is left to measure on: {why}")
    return Selection(part.subset(fresh), len(part) - len(fresh), dataset.problems)


def learned_from(classifier: BayesClassifier, data: str, progress: Progress | None = None) -> Part:
    """The labelled images of DATA that the model was trained on; a DataError if there are none."""
    dataset = load(data, classifier.format_ or ImageOptions(), parts=("train",), progress=progress, fewest_classes=0)
    part = dataset.relabelled(classifier.labels).train
    if part is None or not np.isin(part.hashes, classifier.hashes_).any():
        raise DataError(f"{data}: holds none of the images that the model was trained on")
    return part.subset(np.flatnonzero(np.isin(part.hashes, classifier.hashes_))).labelled()


def unlabelled(classifier: BayesClassifier, data: str, progress: Progress | None = None) -> Strangers:
    """Images whatever their labels."""
    dataset = _loaded(classifier, data, progress)
    return Strangers(data, next(iter(dataset.parts.values())).images, dataset.problems)


def _loaded(classifier: BayesClassifier, data: str, progress: Progress | None) -> Dataset:
    """The test part where there is one, else the training or the validation part."""
    format: ImageFormat | ImageOptions = classifier.format_ or ImageOptions()
    for part in ("test", "train", "validation"):
        dataset = load(data, format, parts=(part,), progress=progress, fewest_classes=0)
        if dataset.parts:
            break
    else:
        raise DataError(f"{data}: holds no images")
    if next(iter(dataset.parts.values())).images.shape != classifier.shape:
        raise DataError(f"{data}: holds vectors or images of another kind than the model's, {classifier.shape}")
    return dataset
