"""Loading of datasets: list a data source once, read its images once, and report items that cannot be read.

Images that fit into memory are decoded once and stored as 8-bit pixels. Others are decoded for their hashes, and again on use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from likely.data.dataset import Dataset, Integers, LabeledImages, fingerprint, to_hashes
from likely.data.decoding import Array, pillow_warnings_suppressed, quantize
from likely.data.groups import merge_duplicates
from likely.data.image_dataset import N_THREADS, ArrayDataset, ImageDataset, LazyImages
from likely.data.listing import DataListing, list_data
from likely.data.preprocessing import ImageFormat, ImageOptions, read_image
from likely.data.quality.issues import counted
from likely.data.sources.base import SPLITS, ArrayItems, FileItems, Listings, LoadError, SourceItems, SplitListing
from likely.exceptions import DataError, ImageError

NATIVE_FORMAT: Final = ImageOptions()
_BLOCK_SIZE = 512  # images between two reports of progress, small enough for a prompt KeyboardInterrupt
_BATCH_SIZE = 64  # images of an array that are converted to 8 bits together


def load_dataset(
    data: str | Path | DataListing,
    images: ImageOptions | ImageFormat = NATIVE_FORMAT,
    *,
    splits: Collection[str] = SPLITS,
    memory: int = 1 << 29,
    progress: Callable[[int, int], None] | None = None,
    fewest_classes: int = 2,
) -> Dataset:
    """Read the requested splits of DATA; other splits contribute their class names only.

    Images are stored as uint8 if they take at most `memory` bytes, and streamed otherwise. `progress` receives the number of
    images read and their total. Raises DataError if DATA is not a known source, if no image of a split can be read, or if
    it has fewer classes than `fewest_classes`: training needs two, evaluation none.
    """
    listed = data if isinstance(data, DataListing) else list_data(data)
    _require_classes(listed, fewest_classes)
    requested = {split: listed.splits[split] for split in SPLITS if split in splits and split in listed.splits}
    format = listed.infer_format(images, splits)
    reader = Reader(format, _fits_in_memory(requested, format, memory), _ProgressCounter(requested, progress))
    results = {split: reader.read(listing.items) for split, listing in requested.items()}
    loaded = {
        split: _labeled_images(f"{listed.name}: {split}", results[split], listing, listed.class_names)
        for split, listing in requested.items()
    }
    return Dataset(
        name=listed.name,
        classes=listed.class_names,
        train=loaded.get("train"),
        validation=loaded.get("validation"),
        test=loaded.get("test"),
        errors=tuple(e for split, listing in requested.items() for e in (*listing.errors, *results[split].errors)),
        format=format,
        available=tuple(split for split in SPLITS if split in listed.splits and len(listed.splits[split].items)),
        are_files=all(isinstance(listing.items, FileItems) for listing in requested.values()),
    )


@dataclass(frozen=True, eq=False)
class ReadResult:
    """Readable images with their item indices (N,) and hashes (N,), and the errors of the other items in order."""

    images: ImageDataset
    indices: Integers
    hashes: Integers
    errors: tuple[LoadError, ...]


@dataclass(frozen=True)
class Reader:
    """Reader of items in one format, None for vectors.

    Without `cache`, images are decoded for their hashes only and decoded again on use. `progress` receives the number of
    images read since its last call; `hash` computes an image's 8-byte hash.
    """

    format: ImageFormat | None
    cache: bool
    progress: Callable[[int], None]
    hash: Callable[[Array], bytes] = fingerprint

    def read(self, items: SourceItems) -> ReadResult:
        """Read all items; raise DataError if an array is not one of images."""
        if not isinstance(items, ArrayItems):
            return self._decoded(items)
        if items.are_vectors:
            return self._vectors(items)
        pixels = self._pixels(items.array)
        result = self._decoded(items) if pixels is None else self._native(pixels, items.name)
        if self.cache:
            items.release()  # the names refer to the items, which would hold a second copy of the pixels
        return result

    def _decoded(self, items: SourceItems) -> ReadResult:
        format = self.format
        assert format is not None  # None is for vectors
        pixels = np.empty((len(items), *format.shape), np.uint8) if self.cache else None

        def read_one(i: int) -> bytes | ImageError:
            try:
                image = read_image(items[i], format, name=items.name(i))
            except ImageError as error:
                return error
            if pixels is not None:
                pixels[i] = image
            return self.hash(image)

        images = LazyImages(items, format) if pixels is None else ArrayDataset(pixels, items.name)
        with pillow_warnings_suppressed, ThreadPoolExecutor(N_THREADS) as pool:
            return _collect(images, self._in_blocks(len(items), lambda block: pool.map(read_one, block)))

    def _pixels(self, array: Array) -> Array | None:
        """Return an array that has the format as uint8 (N, C, H, W), None if it must be read image by image."""
        if not _has_format(array, self.format) or not (self.cache or array.dtype == np.uint8):
            return None
        try:
            array = array if array.dtype == np.uint8 else _quantized(array)
        except ImageError:
            return None  # reading image by image finds the ones out of range
        return array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2)

    def _native(self, pixels: Array, name: Callable[[int], str]) -> ReadResult:
        """Use pixels that have the format already, copied only from a mapped file into memory."""
        if self.cache:
            pixels = _in_memory(pixels)
        outcomes = self._in_blocks(len(pixels), lambda block: (self.hash(pixels[i]) for i in block))
        return _collect(ArrayDataset(pixels, name), outcomes)

    def _vectors(self, items: ArrayItems) -> ReadResult:
        kind = items.array.dtype
        rows = _in_memory(items.array.astype(kind if kind in (np.float32, np.float64) else np.float64, copy=False))
        finite = np.asarray(np.isfinite(rows).all(axis=1))

        def read_one(i: int) -> bytes | ImageError:
            if finite[i]:
                return self.hash(rows[i])
            return ImageError(f"{items.name(i)}: has values that are not finite; finite numbers were expected")

        return _collect(ArrayDataset(rows, items.name), self._in_blocks(len(rows), lambda block: map(read_one, block)))

    def _in_blocks(
        self, n: int, outcomes: Callable[[range], Iterable[bytes | ImageError]]
    ) -> Iterator[bytes | ImageError]:
        for start in range(0, n, _BLOCK_SIZE):
            block = range(start, min(start + _BLOCK_SIZE, n))
            yield from outcomes(block)
            self.progress(len(block))


class _ProgressCounter:
    """Counter of images read that reports their number and the total."""

    def __init__(self, listings: Listings, report: Callable[[int, int], None] | None) -> None:
        self._done = 0
        self._total = sum(len(listing.items) for listing in listings.values())
        self._report = report

    def __call__(self, n: int) -> None:
        self._done += n
        if self._report is not None:
            self._report(self._done, self._total)


def _labeled_images(
    name: str, result: ReadResult, listing: SplitListing, classes: tuple[str, ...]
) -> LabeledImages | None:
    """Return the readable images of a split with their labels, None if nothing was listed."""
    if result.errors and not len(result.indices):
        first = result.errors[0].message
        raise DataError(f"{name}: none of its {len(result.errors)} images can be read; the first: {first}")
    index_of: Mapping[str | None, int] = {None: -1} | {name: i for i, name in enumerate(classes)}
    labels = np.array([index_of[label] for label in listing.labels], np.int64)
    groups = _listed_groups(result, listing)
    return LabeledImages(result.images, labels[result.indices], result.hashes, groups) if len(labels) else None


def _listed_groups(result: ReadResult, listing: SplitListing) -> Integers | None:
    """Return the group of each readable image, the hash of its name, merged with that of its duplicates; None without any."""
    if listing.groups is None:
        return None
    names = [listing.groups[i] for i in result.indices.tolist()]
    ids = result.hashes.copy()
    for i, name in enumerate(names):
        if name is not None:
            ids[i : i + 1] = to_hashes([fingerprint(np.frombuffer(name.encode(), np.uint8))])
    return merge_duplicates(ids, result.hashes)


def _fits_in_memory(listings: Listings, format: ImageFormat | None, memory: int) -> bool:
    """Return True if all images fit into `memory` bytes as uint8; vectors are always stored."""
    n_images = sum(len(listing.items) for listing in listings.values())
    return format is None or n_images * int(np.prod(format.shape)) <= memory


def _require_classes(listed: DataListing, fewest: int) -> None:
    classes = listed.class_names
    if len(classes) < fewest:
        n_images = counted(sum(len(listing.items) for listing in listed.splits.values()), "image")
        present = f"only one class, {classes[0]!r}" if classes else "no class"
        expected = f"a folder or a label for each of at least {fewest} classes was expected"
        raise DataError(f"{listed.name}: has {n_images} of {present}; {expected}")


def _collect(images: ImageDataset, outcomes: Iterable[bytes | ImageError]) -> ReadResult:
    """Collect the hash or error of each image, in order."""
    hashes: list[bytes] = []
    indices: list[int] = []
    errors: list[LoadError] = []
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, ImageError):
            errors.append(LoadError(images.name(i), str(outcome)))
        else:
            hashes.append(outcome)
            indices.append(i)
    readable = np.array(indices, np.int64)
    return ReadResult(images.subset(readable) if errors else images, readable, to_hashes(hashes), tuple(errors))


def _has_format(array: Array, format: ImageFormat | None) -> bool:
    channels = 1 if array.ndim == 3 else array.shape[3]
    return format is not None and (channels, *array.shape[1:3]) == format.shape


def _quantized(array: Array) -> Array:
    """Convert an array to uint8 in blocks, without temporary arrays of its size; raise ImageError."""
    pixels = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), _BATCH_SIZE):
        block = slice(start, start + _BATCH_SIZE)
        pixels[block] = quantize(array[block], "image array")
    return pixels


def _in_memory(array: Array) -> Array:
    """Return a C-contiguous array in memory, copied only if necessary."""
    return np.array(array, order="C", subok=False) if isinstance(array, np.memmap) else np.ascontiguousarray(array)
