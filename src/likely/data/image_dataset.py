"""Indexed collections of images or vectors, in memory or decoded on demand, and decoded batches of inputs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from likely.data.decoding import Array, pillow_warnings_suppressed
from likely.data.preprocessing import ImageFormat, read_image
from likely.data.sources.base import LoadError, SourceItems

# Pillow releases the GIL while decoding; more than 8 threads did not help.
N_THREADS = min(8, os.cpu_count() or 1)

Argument = TypeVar("Argument")
Batch = TypeVar("Batch")


def prefetch(load: Callable[[Argument], Batch], arguments: Iterable[Argument], ahead: int = 1) -> Iterator[Batch]:
    """Yield load(a) for each argument in order; a thread loads the next `ahead` batches while one is used."""
    pending = deque[Future[Batch]]()
    with ThreadPoolExecutor(1) as pool:
        try:
            for argument in arguments:
                pending.append(pool.submit(load, argument))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class ImageDataset(ABC):
    """Images of one shape in a fixed order."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, (C, H, W), or of one vector, (D,)."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: ArrayLike) -> Tensor:
        """Return the images at `indices` (B,): uint8 (B, C, H, W), or vectors in their own precision (B, D)."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Return the name of image i in messages: its path, or its array index."""

    def to_array(self) -> Array:
        """Return all images in one array, (N, C, H, W) or (N, D), without copying an existing one."""
        return self.batch(np.arange(len(self))).numpy()

    def subset(self, indices: ArrayLike) -> ImageDataset:
        """Return a view of the images at `indices`."""
        return _Subset(self, np.asarray(indices, np.int64))


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
    """Images decoded whenever a batch requests them; `batch` raises ImageError if a file has disappeared."""

    def __init__(self, items: SourceItems, format: ImageFormat) -> None:
        self._items = items
        self._format = format

    @property
    def shape(self) -> tuple[int, ...]:
        return self._format.shape

    def __len__(self) -> int:
        return len(self._items)

    def batch(self, indices: ArrayLike) -> Tensor:
        requested = np.asarray(indices, np.int64)
        pixels = np.empty((len(requested), *self.shape), np.uint8)
        with pillow_warnings_suppressed, ThreadPoolExecutor(N_THREADS) as pool:
            for row, image in enumerate(pool.map(self._read, requested.tolist())):
                pixels[row] = image
        return torch.from_numpy(pixels)

    def name(self, i: int) -> str:
        return self._items.name(i)

    def _read(self, i: int) -> Array:
        return read_image(self._items[i], self._format, name=self.name(i))


@final
class TransformedImages(ImageDataset):
    """Images of another collection, changed by a function of a batch and its indices when the batch is read."""

    def __init__(
        self,
        images: ImageDataset,
        transform: Callable[[Tensor, Array], Tensor],
        name: Callable[[int], str] | None = None,
    ) -> None:
        """Take the names of `images` unless `name` gives others."""
        self._images, self._transform, self._name = images, transform, name or images.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self._images.shape

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: ArrayLike) -> Tensor:
        requested = np.asarray(indices, np.int64)
        return self._transform(self._images.batch(requested), requested)

    def name(self, i: int) -> str:
        return self._name(i)


@final
class _Subset(ImageDataset):
    """View of some images of another collection."""

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
        return _Subset(self._images, self._indices[np.asarray(indices, np.int64)])


@final
class ConcatImages(ImageDataset):
    """Concatenation of collections of images of one shape."""

    def __init__(self, collections: Sequence[ImageDataset]) -> None:
        self._collections = collections
        self._ends = np.cumsum([len(images) for images in collections])

    @property
    def shape(self) -> tuple[int, ...]:
        return self._collections[0].shape

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: ArrayLike) -> Tensor:
        requested = np.asarray(indices, np.int64)
        which = np.searchsorted(self._ends, requested, side="right")
        pieces, rows = [], []
        for k in np.unique(which):
            at = np.flatnonzero(which == k)
            pieces.append(self._collections[k].batch(requested[at] - self._start(k)))
            rows.append(at)
        if not pieces:
            return self._collections[0].batch(requested)
        return torch.cat(pieces)[torch.from_numpy(np.argsort(np.concatenate(rows)))]

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
        return ArrayDataset(self.pixels, self.readable_names.__getitem__)

    @property
    def readable_names(self) -> list[str]:
        """The names of the M readable images."""
        return [name for name, error in zip(self.names, self.errors, strict=True) if error is None]
