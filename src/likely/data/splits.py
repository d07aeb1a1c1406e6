"""Seeded, stratified splits into training, validation, calibration and test images.

Exact duplicates of an image and all images of a group are always in the same split, so that no model is tested on images
that resemble its training images more than new ones do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from likely.data.dataset import Dataset, Integers, LabeledImages, concatenate
from likely.data.image_dataset import ImageDataset
from likely.exceptions import DataError
from likely.options import Options

_TRAIN, _VALIDATION, _CALIBRATION, _TEST = range(4)


class SplitFractions(Options):
    """Fractions of each class that are held out from training, counted in groups; without groups, in distinct images."""

    validation: float = Field(default=0.1, ge=0, lt=1, description="fraction of the non-test images for validation")
    calibration: float = Field(default=0.2, ge=0, lt=1, description="fraction of the non-test images for calibration")
    test: float = Field(default=0.0, ge=0, lt=1, description="fraction of all images for testing")
    max_per_class: int = Field(default=300, ge=0, description="largest validation and calibration set of a class")
    min_per_class: int = Field(default=5, ge=1, description="smallest class that must contribute a validation image")

    def counts(self, n: int) -> dict[int, int]:
        """Return the number of groups that each held-out split receives from a class of n groups, in order of allocation."""
        if n < MIN_GROUPS:
            return dict.fromkeys((_TEST, _CALIBRATION, _VALIDATION), 0)
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
MIN_GROUPS: Final = 3  # groups of a class, below which none is held out


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
    do not enter class priors or calibration. `unknown` images of no class make images like them more atypical.
    """

    train: LabeledImages
    validation: LabeledImages
    calibration: LabeledImages
    test: LabeledImages | None
    generated: LabeledImages | None = None
    unknown: ImageDataset | None = None

    def training_images(self, *, calibration: bool, validation: bool = False, generated: bool = True) -> LabeledImages:
        """Return the training images, optionally with the calibration, validation and generated images."""
        optional = (self.calibration, calibration), (self.validation, validation), (self.generated, generated)
        return concatenate([self.train, *(images for images, added in optional if added and images is not None)])


def make_splits(dataset: Dataset, seed: int) -> Splits:
    """Use the dataset's own splits where present and split off the others from its training images.

    Raises DataError if there are no training images.
    """
    train = _without_leaked(dataset)
    fractions = SplitFractions(
        validation=0 if dataset.has("validation") else DEFAULT_FRACTIONS.validation,
        test=0 if dataset.has("test") else TEST_FRACTION,
    )
    indices = split(train.labels, fractions, seed=seed, hashes=train.hashes, groups=train.groups)
    validation = dataset.validation
    return Splits(
        train=train.subset(indices.train),
        validation=train.subset(indices.validation) if validation is None else validation.labeled(),
        calibration=train.subset(indices.calibration),
        test=dataset.test if dataset.has("test") else train.subset(indices.test),
    )


def split(
    labels: ArrayLike,
    fractions: SplitFractions = DEFAULT_FRACTIONS,
    *,
    seed: int,
    hashes: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> SplitIndices:
    """Split the groups of each class at random: first test, then calibration and validation groups from the rest.

    `groups` (N,) are by default the images with equal hashes. Fractions are rounded down, each class keeps at least one
    training group, and unlabeled images (-1) are for training, as are duplicates whose labels differ, with their groups.
    Groups of several classes are placed where each of their classes still needs one. Equal arguments give an equal split.
    """
    classes = np.asarray(labels, np.int64)  # (N,)
    duplicates, conflicting = duplicate_groups(classes, hashes)
    _, group = np.unique(duplicates if groups is None else np.asarray(groups), return_inverse=True)
    is_free = np.ones(int(group.max(initial=-1)) + 1, np.bool_)
    is_free[group[conflicting | (classes < 0)]] = False
    pairs = np.unique(np.column_stack([classes, group])[classes >= 0], axis=0)  # each class with each of its groups
    n_classes = np.bincount(pairs[:, 1], minlength=len(is_free))
    present, starts = np.unique(pairs[:, 0], return_index=True)
    groups_of_class = np.split(pairs[:, 1], starts)[1:]
    rooms = {c: fractions.counts(len(own)) for c, own in zip(present.tolist(), groups_of_class, strict=True)}
    split_of = np.full(len(is_free), _TRAIN)
    for g in np.random.default_rng(seed).permutation(np.flatnonzero(is_free & (n_classes > 1))):
        split_of[g] = _take_room([rooms[c] for c in pairs[pairs[:, 1] == g, 0].tolist()])
    for (c, room), own in zip(rooms.items(), groups_of_class, strict=True):
        own = own[is_free[own] & (n_classes[own] == 1)]
        order = np.random.default_rng((seed, c)).permutation(len(own))
        ends = np.cumsum([0, *room.values()])
        for s, start, end in zip(room, ends[:-1], ends[1:], strict=True):
            split_of[own[order[start:end]]] = s
    sides = split_of[group]
    return SplitIndices(*(np.flatnonzero(sides == s) for s in (_TRAIN, _VALIDATION, _CALIBRATION, _TEST)))


def classes_of_few_groups(images: LabeledImages, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes with some images, but fewer than MIN_GROUPS groups: they are for training only."""
    counts = images.n_groups_by_class(len(classes)).tolist()
    return tuple(name for name, n in zip(classes, counts, strict=True) if 0 < n < MIN_GROUPS)


def group_folds(images: LabeledImages, n_folds: int, seed: int) -> Integers:
    """Return the fold of each image, (N,), or -1 for images that train in all folds.

    The groups of a class are spread evenly, and the images of a group are together. Classes of fewer than MIN_GROUPS groups
    and classes in a single fold train in all folds: a fold's model would not know them.
    """
    fold, rng = np.zeros(len(images), np.int64), np.random.default_rng(seed)
    _, first, group = np.unique(images.group_ids, return_index=True, return_inverse=True)
    is_first = np.zeros(len(images), np.bool_)
    is_first[first] = True
    for c in np.unique(images.labels):
        of_class = rng.permutation(np.flatnonzero((images.labels == c) & is_first))
        fold[of_class] = (np.arange(len(of_class)) + rng.integers(n_folds)) % n_folds
    fold = fold[first][group]
    K = int(images.labels.max(initial=-1)) + 1
    n_folds_of_class = LabeledImages(images.images, images.labels, images.hashes, fold).n_groups_by_class(K)
    few = np.flatnonzero((images.n_groups_by_class(K) < MIN_GROUPS) | (n_folds_of_class < 2))
    fold[np.isin(group, group[np.isin(images.labels, few)])] = -1
    return fold


def duplicate_groups(labels: Integers, hashes: ArrayLike | None) -> tuple[Integers, NDArray[np.bool_]]:
    """Return each image's group of exact duplicates, (N,), and True where labels differ within the group, (N,)."""
    if hashes is None:
        return np.arange(len(labels)), np.zeros(len(labels), np.bool_)
    _, groups = np.unique(np.asarray(hashes), return_inverse=True)
    low, high = np.full(len(labels), labels.max(initial=0)), np.full(len(labels), -1)
    np.minimum.at(low, groups, labels)
    np.maximum.at(high, groups, labels)
    return groups, (low != high)[groups]


def _take_room(rooms: Sequence[dict[int, int]]) -> int:
    """Return the first split in which all classes of a group have room left, and take it; else it is for training."""
    for s in rooms[0]:
        if all(room[s] > 0 for room in rooms):
            for room in rooms:
                room[s] -= 1
            return s
    return _TRAIN


def _without_leaked(dataset: Dataset) -> LabeledImages:
    """Return the training images without the groups of exact duplicates of images in other loaded splits."""
    if dataset.train is None:
        raise DataError(f"{dataset.name}: has no train split; it has {', '.join(dataset.available) or 'none'}")
    others, groups = [images for name, images in dataset.splits.items() if name != "train"], dataset.train.group_ids
    is_leaked = np.zeros(len(dataset.train), np.bool_)
    for images in others:
        is_leaked |= np.isin(dataset.train.hashes, images.hashes) | np.isin(groups, images.group_ids)
    is_leaked = np.isin(groups, groups[is_leaked])
    if is_leaked.all():
        raise DataError(
            f"{dataset.name}: every training image, or another of its group, is also in "
            f"{' or '.join(set(dataset.splits) - {'train'})}"
        )
    return dataset.train.subset(np.flatnonzero(~is_leaked)) if is_leaked.any() else dataset.train


def _floor(count: float) -> int:
    return math.floor(count + 1e-9)  # 0.29 * 100 is 28.999999999999996
