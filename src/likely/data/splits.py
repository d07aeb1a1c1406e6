"""Seeded, stratified splits into training, validation, calibration and test images.

Exact duplicates of an image are always in the same split, so that no model is tested on a training image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from likely.data.dataset import Dataset, Integers, LabeledImages, concatenate
from likely.exceptions import DataError
from likely.options import Options

_TRAIN, _VALIDATION, _CALIBRATION, _TEST = range(4)


class SplitFractions(Options):
    """Fractions of each class that are held out from training."""

    validation: float = Field(default=0.1, ge=0, lt=1, description="fraction of the non-test images for validation")
    calibration: float = Field(default=0.2, ge=0, lt=1, description="fraction of the non-test images for calibration")
    test: float = Field(default=0.0, ge=0, lt=1, description="fraction of all images for testing")
    max_per_class: int = Field(default=300, ge=0, description="largest validation and calibration set of a class")
    min_per_class: int = Field(default=5, ge=1, description="smallest class that must contribute a validation image")

    def counts(self, n: int) -> dict[int, int]:
        """Return the number of images that each held-out split receives from a class of n images, in order of allocation."""
        n_test = min(_floor(self.test * n), n - 1)
        rest = n - n_test
        n_calibration = min(_floor(self.calibration * rest), self.max_per_class, rest - 1)
        least = int(rest >= self.min_per_class and self.validation > 0)
        n_validation = max(_floor(self.validation * rest), least)
        return {
            _TEST: n_test,
            _CALIBRATION: n_calibration,
            _VALIDATION: min(n_validation, self.max_per_class, rest - 1 - n_calibration),
        }


DEFAULT_FRACTIONS: Final = SplitFractions()
TEST_FRACTION = 0.2


@dataclass(frozen=True)
class SplitIndices:
    """Sorted indices of the images of each split; every image is in exactly one."""

    train: Integers
    validation: Integers
    calibration: Integers
    test: Integers


@dataclass(frozen=True, eq=False)
class Splits:
    """Splits of a dataset for one training.

    `test` is None if the data has a test split of its own that was not read. `generated` images are trained on as well, but
    do not enter class priors or calibration.
    """

    train: LabeledImages
    validation: LabeledImages
    calibration: LabeledImages
    test: LabeledImages | None
    generated: LabeledImages | None = None

    def training_images(self, *, calibration: bool, generated: bool = True) -> LabeledImages:
        """Return the training images, optionally with the calibration images and with the generated ones."""
        added = [
            images for images, is_added in ((self.calibration, calibration), (self.generated, generated)) if is_added
        ]
        return concatenate([self.train, *(images for images in added if images is not None)])


def make_splits(dataset: Dataset, seed: int) -> Splits:
    """Use the dataset's own splits where present and split off the others from its training images.

    Raises DataError if there are no training images.
    """
    train = _without_leaked(dataset)
    fractions = SplitFractions(
        validation=0 if dataset.has("validation") else DEFAULT_FRACTIONS.validation,
        test=0 if dataset.has("test") else TEST_FRACTION,
    )
    indices = split(train.labels, fractions, seed=seed, hashes=train.hashes)
    validation = dataset.validation
    return Splits(
        train=train.subset(indices.train),
        validation=train.subset(indices.validation) if validation is None else validation.labeled(),
        calibration=train.subset(indices.calibration),
        test=dataset.test if dataset.has("test") else train.subset(indices.test),
    )


def split(
    labels: ArrayLike, fractions: SplitFractions = DEFAULT_FRACTIONS, *, seed: int, hashes: ArrayLike | None = None
) -> SplitIndices:
    """Split each class at random: first test, then calibration and validation images from the rest.

    Fractions are rounded down, each class keeps at least one training image, and unlabeled images (-1) are for training.
    Images with equal hashes stay together, and are for training if their labels differ. Equal labels, hashes and seed give
    an equal split.
    """
    classes = np.asarray(labels, np.int64)  # (N,)
    groups, conflicting = duplicate_groups(classes, hashes)
    split_of = np.full(len(classes), _TRAIN)
    for c, members in _class_members(classes):
        free = members[~conflicting[members]]
        units, unit_of, sizes = np.unique(groups[free], return_inverse=True, return_counts=True)
        order = np.random.default_rng((seed, c)).permutation(len(units))
        split_of_unit = np.full(len(units), _TRAIN)
        split_of_unit[order] = _allocate(sizes[order], fractions.counts(len(members)))
        split_of[free] = split_of_unit[unit_of]
    return SplitIndices(*(np.flatnonzero(split_of == s) for s in (_TRAIN, _VALIDATION, _CALIBRATION, _TEST)))


def duplicate_groups(labels: Integers, hashes: ArrayLike | None) -> tuple[Integers, NDArray[np.bool_]]:
    """Return each image's group of exact duplicates, (N,), and True where labels differ within the group, (N,)."""
    if hashes is None:
        return np.arange(len(labels)), np.zeros(len(labels), np.bool_)
    _, groups = np.unique(np.asarray(hashes), return_inverse=True)
    low, high = np.full(len(labels), labels.max(initial=0)), np.full(len(labels), -1)
    np.minimum.at(low, groups, labels)
    np.maximum.at(high, groups, labels)
    return groups, (low != high)[groups]


def _allocate(sizes: Integers, counts: Mapping[int, int]) -> Integers:
    """Assign units of duplicates to splits: each split takes, in order, every unit that still fits into its count."""
    split_of = np.full(len(sizes), _TRAIN)
    for s, room in counts.items():
        for unit in np.flatnonzero(split_of == _TRAIN):
            if room == 0:
                break
            if sizes[unit] <= room:
                split_of[unit] = s
                room -= sizes[unit]
    return split_of


def _class_members(labels: Integers) -> Iterator[tuple[int, Integers]]:
    """Iterate over the classes with the indices of their images."""
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    for c, members in zip(classes.tolist(), np.split(order, starts)[1:], strict=True):
        if c >= 0:
            yield c, members


def _without_leaked(dataset: Dataset) -> LabeledImages:
    """Return the training images without exact duplicates of images in other loaded splits."""
    if dataset.train is None:
        raise DataError(f"{dataset.name}: has no train split; it has {', '.join(dataset.available) or 'none'}")
    others = [images.hashes for name, images in dataset.splits.items() if name != "train"]
    is_leaked = (
        np.isin(dataset.train.hashes, np.concatenate(others)) if others else np.zeros(len(dataset.train), np.bool_)
    )
    if is_leaked.all():
        raise DataError(
            f"{dataset.name}: every training image is also in {' or '.join(set(dataset.splits) - {'train'})}"
        )
    return dataset.train.subset(np.flatnonzero(~is_leaked)) if is_leaked.any() else dataset.train


def _floor(count: float) -> int:
    return math.floor(count + 1e-9)  # 0.29 * 100 is 28.999999999999996
