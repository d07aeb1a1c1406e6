"""Datasets: labeled images in train, validation and test splits, with a content hash of each image to detect duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from likely.data.decoding import Array
from likely.data.image_dataset import ConcatImages, ImageDataset
from likely.data.preprocessing import ImageFormat
from likely.data.quality.issues import counted
from likely.data.sources.base import LoadError
from likely.exceptions import did_you_mean

Integers: TypeAlias = NDArray[np.int64]

_OTHER_CLASS = -2  # a label outside the classes of a model; -1 marks an unlabeled image


def fingerprint(values: Array) -> bytes:
    """Return the first 8 bytes of BLAKE2b over an image's pixels, (C, H, W) in C order, or over a vector."""
    return hashlib.blake2b(np.ascontiguousarray(values).data).digest()[:8]


def to_hashes(fingerprints: Iterable[bytes]) -> Integers:
    """Return fingerprints as int64, (N,), independent of the machine's byte order."""
    return np.frombuffer(b"".join(fingerprints), "<i8").astype(np.int64)


def image_hashes(images: Iterable[Array]) -> Integers:
    """Return the content hashes of images (C, H, W), or of vectors, (N,)."""
    return to_hashes(map(fingerprint, images))


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """N images with class indices (N,), -1 for unlabeled, and content hashes (N,).

    `groups` (N,) has equal numbers for images that belong on one side of a split; None if only exact duplicates do.
    """

    images: ImageDataset
    labels: Integers
    hashes: Integers
    groups: Integers | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: ArrayLike) -> LabeledImages:
        """Return the images at `indices`, in that order, without copying pixels."""
        chosen = np.asarray(indices, np.int64)
        groups = None if self.groups is None else self.groups[chosen]
        return LabeledImages(self.images.subset(chosen), self.labels[chosen], self.hashes[chosen], groups)

    def matching(self, others: LabeledImages) -> LabeledImages:
        """Return the images that have the content of `others`, in the order of these; the rest of them are left out."""
        order = np.argsort(self.hashes, kind="stable")
        position = np.searchsorted(self.hashes, others.hashes, sorter=order).clip(max=max(0, len(self) - 1))
        found = order[position] if len(self) else np.zeros(0, np.int64)
        return self.subset(found[self.hashes[found] == others.hashes] if len(self) else found)

    @property
    def group_ids(self) -> Integers:
        """The group of each image, by default that of its exact duplicates, (N,)."""
        return self.hashes if self.groups is None else self.groups

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(np.unique(self.group_ids))

    def n_groups_by_class(self, n_classes: int) -> Integers:
        """Return the number of groups with images of each class, (K,)."""
        labeled = self.labels >= 0
        pairs = np.unique(np.column_stack([self.labels, self.group_ids])[labeled], axis=0)
        return np.bincount(pairs[:, 0], minlength=n_classes)

    def one_per_group(self, seed: int) -> Integers:
        """Return the indices, ascending, of one random image of each group; of all images if there are no groups."""
        return np.arange(len(self)) if self.groups is None else one_per_group(self.groups, seed)

    def labeled(self) -> LabeledImages:
        """Return the images that have a label."""
        return self if (self.labels >= 0).all() else self.subset(np.flatnonzero(self.labels >= 0))

    def class_counts(self, n_classes: int) -> tuple[int, ...]:
        """Return the number of images of each class, (K,)."""
        return tuple(np.bincount(self.labels[self.labels >= 0], minlength=n_classes).tolist())


def one_per_group(groups: Integers, seed: int) -> Integers:
    """Return the indices, ascending, of one random member of each group: (N,) -> (G,)."""
    order = np.random.default_rng(seed).permutation(len(groups))
    return np.sort(order[np.unique(groups[order], return_index=True)[1]])


def concatenate(splits: Sequence[LabeledImages]) -> LabeledImages:
    """Concatenate splits of the same dataset without copying pixels."""
    if len(splits) == 1:
        return splits[0]
    labels, hashes = (np.concatenate(each) for each in ([s.labels for s in splits], [s.hashes for s in splits]))
    has_groups = any(split.groups is not None for split in splits)
    groups = np.concatenate([split.group_ids for split in splits]) if has_groups else None
    return LabeledImages(ConcatImages([split.images for split in splits]), labels, hashes, groups)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Loaded splits of one data source, None where absent or not requested, and the errors of skipped items.

    `available` names all splits of the source, loaded or not. `format` is the common image format, None for vectors.
    `are_files` is True if each image has a file of its own.
    """

    name: str
    classes: tuple[str, ...]
    train: LabeledImages | None
    validation: LabeledImages | None
    test: LabeledImages | None
    errors: tuple[LoadError, ...]
    format: ImageFormat | None
    available: tuple[str, ...] = ()
    are_files: bool = False

    @property
    def splits(self) -> Mapping[str, LabeledImages]:
        """The loaded splits by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in splits.items() if images is not None}

    def has(self, split: str) -> bool:
        """Return True if the source has this split, loaded or not."""
        return split in self.available or split in self.splits

    def with_splits(self, splits: Mapping[str, LabeledImages]) -> Dataset:
        """Replace the loaded splits by others of these names."""
        train, validation, test = (splits.get(name) for name in ("train", "validation", "test"))
        return replace(self, train=train, validation=validation, test=test)

    def relabel(self, classes: Sequence[str]) -> Dataset:
        """Label images by their index in a trained model's `classes`; images of other classes are skipped with an error."""
        index_of = {name: i for i, name in enumerate(classes)}
        # The label -1 of unlabeled images indexes the additional last entry.
        table = np.array([index_of.get(name, _OTHER_CLASS) for name in self.classes] + [-1], np.int64)
        relabeled = self.with_splits({name: _relabel(images, table) for name, images in self.splits.items()})
        return replace(relabeled, classes=tuple(classes), errors=self.errors + self._errors_of_other_classes(classes))

    def _errors_of_other_classes(self, classes: Sequence[str]) -> tuple[LoadError, ...]:
        counts = np.zeros(len(self.classes), np.int64)
        for images in self.splits.values():
            counts += np.array(images.class_counts(len(self.classes)), np.int64)
        others = [(name, n) for name, n in zip(self.classes, counts.tolist(), strict=True) if n and name not in classes]
        return tuple(LoadError(name, _other_class_message(name, n, classes)) for name, n in others)


def _relabel(images: LabeledImages, table: Integers) -> LabeledImages:
    labels = table[images.labels]
    known = np.flatnonzero(labels != _OTHER_CLASS)
    return replace(images.subset(known), labels=labels[known])


def _other_class_message(name: str, n: int, classes: Sequence[str]) -> str:
    return f"class {name!r} is not a class of the model; {counted(n, 'image')} skipped{did_you_mean(name, classes)}"
