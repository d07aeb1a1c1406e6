"""Reading what was listed: items -> images with their hashes, and a problem for each that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from likely.data.collection import N_THREADS, CachedImages, Images, StreamedImages, Vectors
from likely.data.decoding import Array, ImageError
from likely.data.images import ImageFormat, read
from likely.data.listing import Items, Problem, Rows
from likely.data.parts import Integers, fingerprint, hashes_of
from likely.data.quiet import QUIET

# Images between two reports of progress: enough for threads to share, few enough for an interrupt to be heard.
BLOCK = 512


@dataclass(frozen=True, eq=False)
class Content:
    """The images that could be read, which of the items they are, (N,), and their hashes, (N,)."""

    images: Images
    indices: Integers
    hashes: Integers
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Reader:
    """Reads items in one format, None for vectors; images that are not `kept` are decoded for their hashes and let go.

    `done` is told how many images were dealt with since it was last told.
    """

    format: ImageFormat | None
    kept: bool
    done: Callable[[int], None]

    def read(self, items: Items) -> Content:
        """Every item that can be read; raises DataError where an array as a whole makes no images."""
        if not isinstance(items, Rows):
            return self._decoded(items)
        if items.are_vectors:
            return self._vectors(items)
        content = self._native(items) if _is_native(items.array, self.format) else self._decoded(items)
        if self.kept:
            items.forget()  # the images are named by the items, which would keep a second copy of them
        return content

    def _decoded(self, items: Items) -> Content:
        format = self.format
        assert format is not None  # only vectors have none
        pixels = np.empty((len(items), *format.shape), np.uint8) if self.kept else None

        def outcome(i: int) -> bytes | ImageError:
            try:
                image = read(items[i], format, name=items.name(i))
            except ImageError as error:
                return error
            if pixels is not None:
                pixels[i] = image
            return fingerprint(image)

        images = StreamedImages(items, format) if pixels is None else CachedImages(pixels, items.name)
        with QUIET, ThreadPoolExecutor(N_THREADS) as pool:
            return _content(images, self._in_blocks(len(items), lambda block: pool.map(outcome, block)))

    def _native(self, items: Rows) -> Content:
        """An array that is in the format already: used as it is, copied only from a mapped file into memory."""
        pixels = items.array[:, None] if items.array.ndim == 3 else items.array.transpose(0, 3, 1, 2)
        if self.kept:
            pixels = _in_memory(pixels)
        outcomes = self._in_blocks(len(items), lambda block: (fingerprint(pixels[i]) for i in block))
        return _content(CachedImages(pixels, items.name), outcomes)

    def _vectors(self, items: Rows) -> Content:
        kind = items.array.dtype
        rows = _in_memory(items.array.astype(kind if kind in (np.float32, np.float64) else np.float64, copy=False))

        def outcome(i: int) -> bytes | ImageError:
            finite = np.isfinite(rows[i]).all()
            return fingerprint(rows[i]) if finite else ImageError(f"{items.name(i)}: holds numbers that are not finite")

        return _content(Vectors(rows, items.name), self._in_blocks(len(rows), lambda block: map(outcome, block)))

    def _in_blocks(
        self, n: int, outcomes: Callable[[range], Iterable[bytes | ImageError]]
    ) -> Iterator[bytes | ImageError]:
        for start in range(0, n, BLOCK):
            block = range(start, min(start + BLOCK, n))
            yield from outcomes(block)
            self.done(len(block))


def _content(images: Images, outcomes: Iterable[bytes | ImageError]) -> Content:
    """What came of each image, in order, turned into what is there and what is not."""
    prints: list[bytes] = []
    indices: list[int] = []
    problems: list[Problem] = []
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, ImageError):
            problems.append(Problem(images.name(i), str(outcome)))
        else:
            prints.append(outcome)
            indices.append(i)
    good = np.array(indices, np.int64)
    return Content(images.subset(good) if problems else images, good, hashes_of(prints), tuple(problems))


def _is_native(array: Array, format: ImageFormat | None) -> bool:
    channels = 1 if array.ndim == 3 else array.shape[3]
    return format is not None and array.dtype == np.uint8 and (channels, *array.shape[1:3]) == format.shape


def _in_memory(array: Array) -> Array:
    """The array itself if it lies in memory and in order, else a copy that does."""
    return np.array(array, order="C", subok=False) if isinstance(array, np.memmap) else np.ascontiguousarray(array)
