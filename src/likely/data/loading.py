"""Loading of datasets: list a data source once, read its images once, and report items that cannot be read.

Images that fit into memory are decoded once and stored as 8-bit pixels. Others are decoded for their hashes, and again on use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from likely.data.dataset import Dataset, LabeledImages
from likely.data.listing import DataListing, list_data
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.quality.issues import counted
from likely.data.reader import Reader, ReadResult
from likely.data.sources.base import SPLITS, Listings, SplitListing
from likely.exceptions import DataError

NATIVE_FORMAT: Final = ImageOptions()


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
    )


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
    return LabeledImages(result.images, labels[result.indices], result.hashes) if len(labels) else None


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
