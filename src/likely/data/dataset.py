"""A dataset and its parts: images, their labels, and a hash of each by which copies are known."""

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
from likely.data.suggestions import did_you_mean

Integers: TypeAlias = NDArray[np.int64]


def fingerprint(values: Array) -> bytes:
    """The first 8 bytes of BLAKE2b over an image's stored pixels, (C, H, W) in C order, or over a vector's row."""
    return hashlib.blake2b(np.ascontiguousarray(values).data).digest()[:8]


def to_hashes(fingerprints: Iterable[bytes]) -> Integers:
    """Fingerprints as int64, (N,), the same on every machine."""
    return np.frombuffer(b"".join(fingerprints), "<i8").astype(np.int64)


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images with their labels, (N,) class indices with -1 for unlabeled, and their hashes, (N,)."""

    images: ImageDataset
    labels: Integers
    hashes: Integers

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: ArrayLike) -> LabeledImages:
        """The images at `indices`, in that order; nothing is copied but labels and hashes."""
        chosen = np.asarray(indices, np.int64)
        return LabeledImages(self.images.subset(chosen), self.labels[chosen], self.hashes[chosen])

    def labeled(self) -> LabeledImages:
        """The images that have a label."""
        return self if (self.labels >= 0).all() else self.subset(np.flatnonzero(self.labels >= 0))

    def class_counts(self, n_classes: int) -> tuple[int, ...]:
        """How many images each class has, (K,)."""
        return tuple(np.bincount(self.labels[self.labels >= 0], minlength=n_classes).tolist())


def concatenate(parts: Sequence[LabeledImages]) -> LabeledImages:
    """All images of some parts of the same data, one part after the other; nothing is copied but labels and hashes."""
    if len(parts) == 1:
        return parts[0]
    labels, hashes = (np.concatenate(each) for each in ([p.labels for p in parts], [p.hashes for p in parts]))
    return LabeledImages(ConcatImages([part.images for part in parts]), labels, hashes)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What was loaded: the parts that were asked for and are there, and what had to be passed over.

    `available` are all parts that the data has, read or not. `format` is what images were brought to, None for vectors.
    """

    name: str
    classes: tuple[str, ...]
    train: LabeledImages | None
    validation: LabeledImages | None
    test: LabeledImages | None
    errors: tuple[LoadError, ...]
    format: ImageFormat | None
    available: tuple[str, ...] = ()

    @property
    def splits(self) -> Mapping[str, LabeledImages]:
        """The parts that were loaded, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def has(self, part: str) -> bool:
        """Whether the data came with this part, read or not."""
        return part in self.available or part in self.splits

    def relabel(self, classes: Sequence[str]) -> Dataset:
        """The same images labeled by their place in `classes`, a trained model's; other classes' are left out."""
        place = {name: i for i, name in enumerate(classes)}
        # One more entry than there are classes, so that the label -1 of the unlabeled finds itself at the end.
        table = np.array([place.get(name, UNKNOWN) for name in self.classes] + [-1], np.int64)
        parts = {name: _mapped(part, table) for name, part in self.splits.items()}
        return replace(
            self,
            classes=tuple(classes),
            train=parts.get("train"),
            validation=parts.get("validation"),
            test=parts.get("test"),
            errors=self.errors + self._outsiders(classes),
        )

    def _outsiders(self, classes: Sequence[str]) -> tuple[LoadError, ...]:
        of_parts = [part.class_counts(len(self.classes)) for part in self.splits.values()]
        counts = [sum(of_class) for of_class in zip(*of_parts, strict=True)] or [0] * len(self.classes)
        strangers = [(name, n) for name, n in zip(self.classes, counts, strict=True) if n and name not in classes]
        return tuple(LoadError(name, _stranger(name, n, classes)) for name, n in strangers)


UNKNOWN = -2


def _mapped(part: LabeledImages, table: Integers) -> LabeledImages:
    labels = table[part.labels]
    kept = np.flatnonzero(labels != UNKNOWN)
    return replace(part.subset(kept), labels=labels[kept])


def _stranger(name: str, n: int, classes: Sequence[str]) -> str:
    return f"class {name!r} is not the model's; {counted(n, 'image')} passed over{did_you_mean(name, classes)}"
