"""A listing: one part of a source, known but not read: where each image is, and the class that it is said to be of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias, final

from likely.data.decoding import Array

SPLITS: Final = ("train", "validation", "test")
# What people call the parts, in folders and in manifests.
SPLIT_NAMES: Final[Mapping[str, str]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
UNLABELED: Final = ("unlabeled", "unlabeled")


@dataclass(frozen=True)
class LoadError:
    """Something that was passed over: which, and why, in a sentence that names it. The rest of the data goes on."""

    source: str
    message: str


class SourceItems(ABC):
    """Images that are there to be read, by index, in an order that never changes."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int) -> Path | Array:
        """Image i as `images.read` takes it: a path, or an array (H, W[, C])."""

    @abstractmethod
    def name(self, i: int) -> str:
        """What to call image i in a message."""


@final
class FileItems(SourceItems):
    """Image files, one an image."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> Path:
        return self._paths[i]

    def name(self, i: int) -> str:
        return str(self._paths[i])


@final
class ArrayItems(SourceItems):
    """The rows of one array, (N, H, W[, C]) or, of vectors, (N, D); `open` reads it, once and only if needed."""

    def __init__(self, name: str, shape: tuple[int, ...], open: Callable[[], Array]) -> None:
        self.shape = shape
        self._name = name
        self._open = open

    @cached_property
    def array(self) -> Array:
        array: Array = self._open()
        return array

    def release(self) -> None:
        """Let go of the array, whose values were taken elsewhere; asked for once more, it is read once more."""
        self.__dict__.pop("array", None)

    @property
    def are_vectors(self) -> bool:
        return len(self.shape) == 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: int) -> Array:
        row: Array = self.array[i]
        return row

    def name(self, i: int) -> str:
        return f"{self._name}[{i}]"


@dataclass(frozen=True)
class SplitListing:
    """The images of one part and the name of each one's class, None for an unlabeled one."""

    items: SourceItems
    labels: Sequence[str | None]
    errors: tuple[LoadError, ...] = ()


# What a source is: its parts, of `PARTS`, each listed. A source without parts is all train.
Listings: TypeAlias = Mapping[str, SplitListing]


def class_names(listings: Listings) -> tuple[str, ...]:
    """Every class that any part speaks of, sorted: as numbers if all are whole numbers, else as words."""
    names = {name for listing in listings.values() for name in listing.labels if name is not None}
    if all(name.isdecimal() and name.isascii() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def integer_names(values: Array) -> list[str | None]:
    """Class names of whole-number labels, (N,): 7 -> "7", and -1 -> None, unlabeled."""
    known = {int(value): None if value == -1 else str(value) for value in set(values.tolist())}
    return [known[value] for value in values.tolist()]
