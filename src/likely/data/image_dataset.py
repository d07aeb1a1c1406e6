"""Collections of images, read by index in batches: in memory, on disk, or vectors that never were images."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from likely.data.decoding import Array
from likely.data.pillow_warnings import QUIET
from likely.data.preprocessing import ImageFormat, read_image
from likely.data.sources.base import LoadError, SourceItems

# Pillow decodes without holding the interpreter, so threads help; with more, neither it nor the disk would follow.
N_THREADS = min(8, os.cpu_count() or 1)


class ImageDataset(ABC):
    """Images of one shape, in an order that never changes."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """One image's: (C, H, W), or (D,) for vectors."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: ArrayLike) -> Tensor:
        """The images at `indices`, (B,): uint8 (B, C, H, W), or floats (B, D) of the vectors' own precision."""

    @abstractmethod
    def name(self, i: int) -> str:
        """What to call image i in a message: its path, or its place in an array."""

    def to_array(self) -> Array:
        """All images in one array, (N, C, H, W) or (N, D); not copied if they are in one already."""
        return self.batch(np.arange(len(self))).numpy()

    def subset(self, indices: ArrayLike) -> ImageDataset:
        """The images at `indices` as a collection of their own; nothing is copied."""
        return Subset(self, np.asarray(indices, np.int64))


@final
class ArrayDataset(ImageDataset):
    """Images or vectors in one array: uint8 (N, C, H, W), memory-mapped if need be, or float32 or float64 (N, D).

    Vectors keep their precision: float32 cannot resolve small differences of large values.
    """

    def __init__(self, array: Array, name: Callable[[int], str]) -> None:
        self.array = array
        self._name = name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[1:])

    def __len__(self) -> int:
        return len(self.array)

    def batch(self, indices: ArrayLike) -> Tensor:
        return torch.from_numpy(np.asarray(self.array[np.asarray(indices, np.int64)]))  # indexing copies already

    def to_array(self) -> Array:
        return self.array

    def name(self, i: int) -> str:
        return self._name(i)


@final
class LazyImages(ImageDataset):
    """Images that stay where they are, decoded whenever a batch asks for them; ImageError if one has gone since."""

    def __init__(self, items: SourceItems, format: ImageFormat) -> None:
        self._items = items
        self._format = format

    @property
    def shape(self) -> tuple[int, ...]:
        return self._format.shape

    def __len__(self) -> int:
        return len(self._items)

    def batch(self, indices: ArrayLike) -> Tensor:
        wanted = np.asarray(indices, np.int64)
        pixels = np.empty((len(wanted), *self.shape), np.uint8)
        with QUIET, ThreadPoolExecutor(N_THREADS) as pool:
            for place, image in enumerate(pool.map(self._read, wanted.tolist())):
                pixels[place] = image
        return torch.from_numpy(pixels)

    def name(self, i: int) -> str:
        return self._items.name(i)

    def _read(self, i: int) -> Array:
        return read_image(self._items[i], self._format, name=self.name(i))


@final
class Subset(ImageDataset):
    """Some images of another collection, by index."""

    def __init__(self, images: ImageDataset, indices: Array) -> None:
        self._images = images
        self._indices = indices

    @property
    def shape(self) -> tuple[int, ...]:
        return self._images.shape

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, indices: ArrayLike) -> Tensor:
        return self._images.batch(self._indices[np.asarray(indices, np.int64)])

    def name(self, i: int) -> str:
        return self._images.name(int(self._indices[i]))

    def subset(self, indices: ArrayLike) -> ImageDataset:
        return Subset(self._images, self._indices[np.asarray(indices, np.int64)])


@final
class ConcatImages(ImageDataset):
    """Several collections of images of one shape, one after the other."""

    def __init__(self, collections: Sequence[ImageDataset]) -> None:
        self._collections = collections
        self._ends = np.cumsum([len(images) for images in collections])

    @property
    def shape(self) -> tuple[int, ...]:
        return self._collections[0].shape

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: ArrayLike) -> Tensor:
        wanted = np.asarray(indices, np.int64)
        which = np.searchsorted(self._ends, wanted, side="right")
        pieces, places = [], []
        for k in np.unique(which):
            at = np.flatnonzero(which == k)
            pieces.append(self._collections[k].batch(wanted[at] - self._start(k)))
            places.append(at)
        if not pieces:
            return self._collections[0].batch(wanted)
        return torch.cat(pieces)[torch.from_numpy(np.argsort(np.concatenate(places)))]

    def name(self, i: int) -> str:
        k = int(np.searchsorted(self._ends, i, side="right"))
        return self._collections[k].name(i - self._start(k))

    def _start(self, k: int) -> int:
        return int(self._ends[k - 1]) if k else 0


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Decoded inputs of one request: N inputs, of which M could be read.

    `pixels` holds the readable ones in order, uint8 (M, C, H, W), or vectors, float (M, D). `names` and `errors` have one
    entry for each input; the error of a readable input is None.
    """

    pixels: Array
    names: tuple[str, ...]
    errors: tuple[LoadError | None, ...]

    @classmethod
    def from_pixels(cls, pixels: Array, names: Sequence[str]) -> Self:
        """Wrap decoded images, uint8 (N, C, H, W) in the model's format, without copying them."""
        return cls(pixels, tuple(names), (None,) * len(pixels))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def images(self) -> ImageDataset:
        """The M readable images under their names."""
        names = [name for name, error in zip(self.names, self.errors, strict=True) if error is None]
        return ArrayDataset(self.pixels, names.__getitem__)
