"""Loading: DATA of any kind -> a Dataset; a bad image is passed over and named, and never the end.

What fits in memory is decoded once and kept as 8 bits; the rest is decoded to be hashed, and again when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from likely.data.dataset import Dataset, LabeledImages
from likely.data.infer_format import infer_format
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.quality.issues import counted
from likely.data.reader import Reader, ReadResult
from likely.data.sources.base import SPLITS, Listings, SplitListing, class_names
from likely.data.sources.listing import listings as listings_of
from likely.exceptions import DataError

NATIVE_FORMAT: Final = ImageOptions()


def load_dataset(
    data: str | Path,
    images: ImageOptions | ImageFormat = NATIVE_FORMAT,
    *,
    splits: Collection[str] = SPLITS,
    memory: int = 1 << 29,
    progress: Callable[[int, int], None] | None = None,
    fewest_classes: int = 2,
) -> Dataset:
    """The `parts` of DATA that were asked for and are there; other parts give their class names and are not read.

    Images are kept as uint8 if they take at most `memory` bytes, else streamed. `progress` is called with the number of
    images done and their total. Raises DataError if DATA is not understood, if no image of a part can be read, or with
    fewer classes than `fewest_classes`: what is evaluated, unlike what is learned, may be of one class or of none.
    """
    name, listings = str(data), listings_of(data)
    classes = class_names(listings)
    _require_classes(name, listings, classes, fewest_classes)
    asked = {part: listings[part] for part in SPLITS if part in splits and part in listings}
    format = infer_format(images, asked, name)
    reader = Reader(format, _fits(asked, format, memory), ProgressCounter(asked, progress))
    contents = {part: reader.read(listing.items) for part, listing in asked.items()}
    made = {part: _part(f"{name}: {part}", contents[part], listing, classes) for part, listing in asked.items()}
    return Dataset(
        name=name,
        classes=classes,
        train=made.get("train"),
        validation=made.get("validation"),
        test=made.get("test"),
        errors=tuple(p for part, listing in asked.items() for p in (*listing.errors, *contents[part].errors)),
        format=format,
        available=tuple(part for part in SPLITS if part in listings and len(listings[part].items)),
    )


class ProgressCounter:
    """Counts images as they are done and reports them with their total."""

    def __init__(self, listings: Listings, report: Callable[[int, int], None] | None) -> None:
        self._done = 0
        self._total = sum(len(listing.items) for listing in listings.values())
        self._report = report

    def __call__(self, n: int) -> None:
        self._done += n
        if self._report is not None:
            self._report(self._done, self._total)


def _part(name: str, content: ReadResult, listing: SplitListing, classes: tuple[str, ...]) -> LabeledImages | None:
    """What was read of a part, None if nothing was listed."""
    if content.errors and not len(content.indices):
        first = content.errors[0].message
        raise DataError(f"{name}: none of its {len(content.errors)} images can be read; the first: {first}")
    place: Mapping[str | None, int] = {None: -1} | {name: i for i, name in enumerate(classes)}
    labels = np.array([place[label] for label in listing.labels], np.int64)
    return LabeledImages(content.images, labels[content.indices], content.hashes) if len(labels) else None


def _fits(listings: Listings, format: ImageFormat | None, memory: int) -> bool:
    """Whether all images can be kept as 8 bits; vectors always are."""
    n_images = sum(len(listing.items) for listing in listings.values())
    return format is None or n_images * int(np.prod(format.shape)) <= memory


def _require_classes(name: str, listings: Listings, classes: tuple[str, ...], fewest: int) -> None:
    if len(classes) < fewest:
        n_images = counted(sum(len(listing.items) for listing in listings.values()), "image")
        what = f"only one class, {classes[0]!r}" if classes else "no class"
        wanted = f"a folder or a label for each of at least {fewest} classes was expected"
        raise DataError(f"{name}: has {n_images} of {what}; {wanted}")
