"""Splits: which images train, which stop training, which calibrate and which test; seeded and stratified.

Exact copies of an image always land on one side, or a model would be tested on what it has seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from likely.data.dataset import Dataset, Integers, LabeledImages, concatenate
from likely.exceptions import DataError

TEST_FRACTION = 0.2
TRAIN, VALIDATION, CALIBRATION, TEST = range(4)
# Below this, a class is too small to spare an image for validation.
FEW = 5


@dataclass(frozen=True)
class SplitIndices:
    """Indices into the images that were split, sorted; every image is on exactly one side."""

    train: Integers
    validation: Integers
    calibration: Integers
    test: Integers


@dataclass(frozen=True, eq=False)
class Splits:
    """What training works with.

    `test` is None if the data has a test part of its own that was not read. `generated` images are learned from
    as well, and say nothing of how often a class comes or what is usual in it.
    """

    train: LabeledImages
    validation: LabeledImages
    calibration: LabeledImages
    test: LabeledImages | None
    generated: LabeledImages | None = None

    def training_images(self, *, calibration: bool, generated: bool = True) -> LabeledImages:
        """What is learned from, with the calibration images or without, and with those that are generated or without."""
        added = [part for part, wanted in ((self.calibration, calibration), (self.generated, generated)) if wanted]
        return concatenate([self.train, *(part for part in added if part is not None)])


def make_splits(dataset: Dataset, seed: int) -> Splits:
    """The data's own parts where it has them, the rest cut from its training images; DataError if there are none."""
    train = _without_copies(dataset)
    cut = split(
        train.labels,
        validation=0 if dataset.has("validation") else 0.1,
        test=0 if dataset.has("test") else TEST_FRACTION,
        seed=seed,
        hashes=train.hashes,
    )
    own = dataset.validation
    return Splits(
        train=train.subset(cut.train),
        validation=train.subset(cut.validation) if own is None else own.labeled(),
        calibration=train.subset(cut.calibration),
        test=dataset.test if dataset.has("test") else train.subset(cut.test),
    )


def split(
    labels: ArrayLike,
    *,
    validation: float = 0.1,
    calibration: float = 0.2,
    test: float = 0.0,
    limit: int = 300,
    seed: int,
    hashes: ArrayLike | None = None,
) -> SplitIndices:
    """Each class dealt out by shares: `test` of its images, then `calibration` and `validation` of what is left.

    Shares are rounded down, but a class that has 5 images left gives 1 for validation; each class keeps at least one to
    train with, and gives at most `limit` to validation and to calibration. The unlabeled (-1) train. Images of equal
    hash stay together, and train if their labels differ. The same labels, hashes and seed give the same split.
    """
    classes = np.asarray(labels, np.int64)  # (N,)
    groups, mixed = duplicate_groups(classes, hashes)
    shares = SplitFractions(validation, calibration, test, limit)
    sides = np.full(len(classes), TRAIN)
    for c, members in _members(classes):
        free = members[~mixed[members]]
        units, unit_of, sizes = np.unique(groups[free], return_inverse=True, return_counts=True)
        order = np.random.default_rng((seed, c)).permutation(len(units))
        of_unit = np.full(len(units), TRAIN)
        of_unit[order] = _deal(sizes[order], shares.for_dataset(len(members)))
        sides[free] = of_unit[unit_of]
    return SplitIndices(*(np.flatnonzero(sides == side) for side in (TRAIN, VALIDATION, CALIBRATION, TEST)))


@dataclass(frozen=True)
class SplitFractions:
    """What a class gives of its images, as shares in [0, 1) and a most for validation and for calibration."""

    validation: float
    calibration: float
    test: float
    limit: int

    def for_dataset(self, n: int) -> dict[int, int]:
        """How many of a class's n images each side gets, in the order in which they are dealt."""
        n_test = min(_floor(self.test * n), n - 1)
        left = n - n_test
        n_calibration = min(_floor(self.calibration * left), self.limit, left - 1)
        least = int(left >= FEW and self.validation > 0)
        n_validation = min(max(_floor(self.validation * left), least), self.limit, left - 1 - n_calibration)
        return {TEST: n_test, CALIBRATION: n_calibration, VALIDATION: n_validation}


def duplicate_groups(labels: Integers, hashes: ArrayLike | None) -> tuple[Integers, NDArray[np.bool_]]:
    """The group of copies that each image is in, (N,), and whether labels differ within it, (N,)."""
    if hashes is None:
        return np.arange(len(labels)), np.zeros(len(labels), np.bool_)
    _, groups = np.unique(np.asarray(hashes), return_inverse=True)
    low, high = np.full(len(labels), labels.max(initial=0)), np.full(len(labels), -1)
    np.minimum.at(low, groups, labels)
    np.maximum.at(high, groups, labels)
    return groups, (low != high)[groups]


def _deal(sizes: Integers, wanted: Mapping[int, int]) -> Integers:
    """A side for each unit, in turn: a side takes whatever still fits in what it is to have."""
    sides = np.full(len(sizes), TRAIN)
    for side, room in wanted.items():
        for unit in np.flatnonzero(sides == TRAIN):
            if room == 0:
                break
            if sizes[unit] <= room:
                sides[unit] = side
                room -= sizes[unit]
    return sides


def _members(labels: Integers) -> Iterator[tuple[int, Integers]]:
    """Each class with the indices of its images."""
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    for c, members in zip(classes.tolist(), np.split(order, starts)[1:], strict=True):
        if c >= 0:
            yield c, members


def _without_copies(dataset: Dataset) -> LabeledImages:
    """The training images of which there is no copy in another part that was loaded."""
    if dataset.train is None:
        raise DataError(f"{dataset.name}: has no train part; it has {', '.join(dataset.available) or 'nothing'}")
    held = [part.hashes for name, part in dataset.splits.items() if name != "train"]
    is_copy = np.isin(dataset.train.hashes, np.concatenate(held)) if held else np.zeros(len(dataset.train), np.bool_)
    if is_copy.all():
        raise DataError(
            f"{dataset.name}: every training image is also in {' or '.join(set(dataset.splits) - {'train'})}"
        )
    return dataset.train.subset(np.flatnonzero(~is_copy)) if is_copy.any() else dataset.train


def _floor(share: float) -> int:
    return math.floor(share + 1e-9)  # 0.29 * 100 is 28.999999999999996
