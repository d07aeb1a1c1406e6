"""Reading what was listed: items -> images with their hashes, and a problem for each that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from likely.data.dataset import Integers, fingerprint, to_hashes
from likely.data.decoding import Array, quantize
from likely.data.image_dataset import N_THREADS, ArrayDataset, ImageDataset, LazyImages
from likely.data.pillow_warnings import QUIET
from likely.data.preprocessing import ImageFormat, read_image
from likely.data.sources.base import ArrayItems, LoadError, SourceItems
from likely.exceptions import ImageError

# Images between two reports of progress: enough for threads to share, few enough for an interrupt to be heard.
BLOCK = 512
BATCH_SIZE = 64  # images of an array that are turned into 8 bits in one go


@dataclass(frozen=True, eq=False)
class ReadResult:
    """The images that could be read, which of the items they are, (N,), and their hashes, (N,)."""

    images: ImageDataset
    indices: Integers
    hashes: Integers
    errors: tuple[LoadError, ...]


@dataclass(frozen=True)
class Reader:
    """Reads items in one format, None for vectors; images that are not `kept` are decoded for their hashes and let go.

    `done` is told how many images were dealt with since it was last told; `mark` makes an image's hash.
    """

    format: ImageFormat | None
    cache: bool
    done: Callable[[int], None]
    mark: Callable[[Array], bytes] = fingerprint

    def read(self, items: SourceItems) -> ReadResult:
        """Every item that can be read; raises DataError where an array as a whole makes no images."""
        if not isinstance(items, ArrayItems):
            return self._decoded(items)
        if items.are_vectors:
            return self._vectors(items)
        pixels = self._pixels(items.array)
        content = self._decoded(items) if pixels is None else self._native(pixels, items.name)
        if self.cache:
            items.release()  # the images are named by the items, which would keep a second copy of them
        return content

    def _decoded(self, items: SourceItems) -> ReadResult:
        format = self.format
        assert format is not None  # only vectors have none
        pixels = np.empty((len(items), *format.shape), np.uint8) if self.cache else None

        def outcome(i: int) -> bytes | ImageError:
            try:
                image = read_image(items[i], format, name=items.name(i))
            except ImageError as error:
                return error
            if pixels is not None:
                pixels[i] = image
            return self.mark(image)

        images = LazyImages(items, format) if pixels is None else ArrayDataset(pixels, items.name)
        with QUIET, ThreadPoolExecutor(N_THREADS) as pool:
            return _content(images, self._in_blocks(len(items), lambda block: pool.map(outcome, block)))

    def _pixels(self, array: Array) -> Array | None:
        """An array that is in the format as uint8 (N, C, H, W), at once; None if it must be read image by image."""
        if not _is_in(array, self.format) or not (self.cache or array.dtype == np.uint8):
            return None
        try:
            array = array if array.dtype == np.uint8 else _quantized(array)
        except ImageError:
            return None  # some image is out of range: which, each has to say for itself
        return array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2)

    def _native(self, pixels: Array, name: Callable[[int], str]) -> ReadResult:
        """Pixels in the format already: used as they are, copied only from a mapped file into memory."""
        if self.cache:
            pixels = _in_memory(pixels)
        outcomes = self._in_blocks(len(pixels), lambda block: (self.mark(pixels[i]) for i in block))
        return _content(ArrayDataset(pixels, name), outcomes)

    def _vectors(self, items: ArrayItems) -> ReadResult:
        kind = items.array.dtype
        rows = _in_memory(items.array.astype(kind if kind in (np.float32, np.float64) else np.float64, copy=False))
        finite = np.asarray(np.isfinite(rows).all(axis=1))

        def outcome(i: int) -> bytes | ImageError:
            if finite[i]:
                return self.mark(rows[i])
            return ImageError(f"{items.name(i)}: holds numbers that are not finite")

        return _content(ArrayDataset(rows, items.name), self._in_blocks(len(rows), lambda block: map(outcome, block)))

    def _in_blocks(
        self, n: int, outcomes: Callable[[range], Iterable[bytes | ImageError]]
    ) -> Iterator[bytes | ImageError]:
        for start in range(0, n, BLOCK):
            block = range(start, min(start + BLOCK, n))
            yield from outcomes(block)
            self.done(len(block))


def _content(images: ImageDataset, outcomes: Iterable[bytes | ImageError]) -> ReadResult:
    """What came of each image, in order, turned into what is there and what is not."""
    prints: list[bytes] = []
    indices: list[int] = []
    problems: list[LoadError] = []
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, ImageError):
            problems.append(LoadError(images.name(i), str(outcome)))
        else:
            prints.append(outcome)
            indices.append(i)
    good = np.array(indices, np.int64)
    return ReadResult(images.subset(good) if problems else images, good, to_hashes(prints), tuple(problems))


def _is_in(array: Array, format: ImageFormat | None) -> bool:
    channels = 1 if array.ndim == 3 else array.shape[3]
    return format is not None and (channels, *array.shape[1:3]) == format.shape


def _quantized(array: Array) -> Array:
    """The whole array as uint8, in blocks, so that nothing as large as it is made on the way; raises ImageError."""
    pixels = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), BATCH_SIZE):
        block = slice(start, start + BATCH_SIZE)
        pixels[block] = quantize(array[block], "the array given")
    return pixels


def _in_memory(array: Array) -> Array:
    """The array itself if it lies in memory and in order, else a copy that does."""
    return np.array(array, order="C", subok=False) if isinstance(array, np.memmap) else np.ascontiguousarray(array)
