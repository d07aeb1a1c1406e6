"""Listings of a data source: the items of each split and their labels, not yet read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias, final

from likely.data.decoding import Array

SPLITS: Final = ("train", "validation", "test")
# Names of splits in folders and manifests.
SPLIT_NAMES: Final[Mapping[str, str]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
UNLABELED: Final = "unlabeled"  # name of a folder of images without labels


@dataclass(frozen=True)
class LoadError:
    """An item that was skipped, and a message that names it and says why."""

    source: str
    message: str


class SourceItems(ABC):
    """Indexed image sources in a fixed order."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int) -> Path | Array:
        """Return image i as `read_image` accepts it: a path, or an array (H, W[, C])."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Return the name of image i in messages."""


@final
class FileItems(SourceItems):
    """Image files, one image each."""

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
    """Rows of an array of images, (N, H, W[, C]), or of vectors, (N, D), which `open` reads once, on first use."""

    def __init__(self, name: str, shape: tuple[int, ...], open: Callable[[], Array]) -> None:
        self.shape = shape
        self._name = name
        self._open = open

    @cached_property
    def array(self) -> Array:
        array: Array = self._open()
        return array

    def release(self) -> None:
        """Free the array; the next access reads it again."""
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
    """Items of one split with the class name of each, None for unlabeled, and the errors of skipped items.

    `groups` names the group of each item, None where it has none; None if the source lists no groups.
    """

    items: SourceItems
    labels: Sequence[str | None]
    errors: tuple[LoadError, ...] = ()
    groups: Sequence[str | None] | None = None


# The splits of a source, by name of `SPLITS`; a source without splits is all train.
Listings: TypeAlias = Mapping[str, SplitListing]


def integer_names(values: Array) -> list[str | None]:
    """Convert integer labels (N,) to class names: 7 -> "7", and -1 -> None for unlabeled."""
    name_of = {int(value): None if value == -1 else str(value) for value in set(values.tolist())}
    return [name_of[value] for value in values.tolist()]
