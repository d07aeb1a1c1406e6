"""Checks of DATA before training: unreadable files, class sizes, image sizes and duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import Field

from likely.data.dataset import Dataset
from likely.data.decoding import read_header
from likely.data.listing import list_data
from likely.data.loading import NATIVE_FORMAT, load_dataset
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.quality.duplicates import find_duplicates
from likely.data.quality.issues import DataIssues, Issue, Severity, counted
from likely.data.sources.base import FileItems, Listings
from likely.exceptions import ImageError, did_you_mean
from likely.options import Options


class CheckOptions(Options):
    """Thresholds of the checks."""

    min_class_size: int = Field(default=20, ge=2, description="training images of a class, below which it is small")
    max_imbalance: float = Field(default=10, ge=1, description="ratio of the largest to the smallest class")
    min_side: int = Field(default=8, ge=1, description="height and width in pixels, below which an image is tiny")
    max_aspect_ratio: float = Field(default=5, ge=1, description="ratio of an image's longer to its shorter side")
    max_compared: int = Field(default=100_000, ge=1, description="images of a split compared for near-duplicates")


DEFAULT_CHECKS: Final = CheckOptions()


def check(
    data: str | Path,
    images: ImageOptions | ImageFormat = NATIVE_FORMAT,
    *,
    options: CheckOptions = DEFAULT_CHECKS,
    progress: Callable[[int, int], None] | None = None,
) -> DataIssues:
    """Read all of DATA and return its issues; raise DataError if DATA is not a known source."""
    listed = list_data(data)
    dataset = load_dataset(listed, images, progress=progress, fewest_classes=0)
    issues = [
        *_unreadable(dataset),
        *_class_sizes(dataset, options),
        *_image_sizes(listed.splits, options),
        *find_duplicates(dataset, options.max_compared),
    ]
    n_classes = len(dataset.classes)
    return DataIssues(
        name=dataset.name,
        format=dataset.format,
        classes=dataset.classes,
        counts={name: images.class_counts(n_classes) for name, images in dataset.splits.items()},
        unlabeled={name: int((images.labels < 0).sum()) for name, images in dataset.splits.items()},
        n_unreadable=len(dataset.errors),
        issues=tuple(sorted(issues, key=lambda issue: list(Severity).index(issue.severity))),
    )


def _unreadable(dataset: Dataset) -> Iterator[Issue]:
    if n := len(dataset.errors):
        message = f"{counted(n, 'file or line', 'files or lines')} skipped as unreadable"
        yield Issue.error("unreadable", message, n, (each.message for each in dataset.errors))


def _class_sizes(dataset: Dataset, options: CheckOptions) -> Iterator[Issue]:
    """Report missing, small and imbalanced classes."""
    if len(dataset.classes) < 2:
        present = f"only one class, {dataset.classes[0]!r}" if dataset.classes else "no class"
        yield Issue.error("few-classes", f"there is {present}; training needs two or more", len(dataset.classes), ())
    if dataset.train is not None:
        counts = dict(zip(dataset.classes, dataset.train.class_counts(len(dataset.classes)), strict=True))
        yield from _small_classes(counts, options.min_class_size)
        yield from _imbalance({name: n for name, n in counts.items() if n}, options.max_imbalance)
    if dataset.test is not None:
        counts = dict(zip(dataset.classes, dataset.test.class_counts(len(dataset.classes)), strict=True))
        if missing := [name for name, n in counts.items() if not n]:
            message = f"{counted(len(missing), 'class', 'classes')} without test images"
            yield Issue.note("untested-class", message, len(missing), missing)


def _small_classes(counts: Mapping[str, int], min_size: int) -> Iterator[Issue]:
    trained = [name for name, n in counts.items() if n]
    if missing := [name for name, n in counts.items() if not n]:
        message = f"{counted(len(missing), 'class', 'classes')} without training images"
        examples = (f"{name}{did_you_mean(name, trained)}" for name in missing)
        yield Issue.error("untrained-class", message, len(missing), examples)
    kinds = (
        ("one-image-class", range(1, 2), "with a single training image, too few to calibrate with"),
        ("tiny-class", range(2, min_size), f"with fewer than {min_size} training images"),
    )
    for kind, sizes, description in kinds:
        if small := [f"{name} ({n})" if n > 1 else name for name, n in counts.items() if n in sizes]:
            yield Issue.warning(kind, f"{counted(len(small), 'class', 'classes')} {description}", len(small), small)


def _imbalance(counts: Mapping[str, int], max_ratio: float) -> Iterator[Issue]:
    ranked = sorted(counts, key=counts.__getitem__)
    if ranked and counts[ranked[-1]] > max_ratio * counts[ranked[0]]:
        small, large = ranked[0], ranked[-1]
        message = f"imbalanced classes: {large} has {counts[large]:,} training images, {small} has {counts[small]:,}"
        yield Issue.warning("imbalance", message, 1, (large, small))


def _image_sizes(listings: Listings, options: CheckOptions) -> Iterator[Issue]:
    """Report images that are very small, or of which resizing to a square leaves little."""
    tiny: list[str] = []
    long: list[str] = []
    for items in (listing.items for listing in listings.values() if isinstance(listing.items, FileItems)):
        for i in range(len(items)):
            try:
                header = read_header(items[i], items.name(i))
            except ImageError:
                continue  # reported as unreadable
            short_side, long_side = sorted((header.height, header.width))
            is_long = long_side > options.max_aspect_ratio * short_side
            target = tiny if short_side < options.min_side else long if is_long else None
            if target is not None:
                target.append(f"{items.name(i)} ({header.width} x {header.height})")
    if tiny:
        message = f"{counted(len(tiny), 'image')} less than {options.min_side} pixels high or wide"
        yield Issue.warning("tiny-image", message, len(tiny), tiny)
    if long:
        message = f"{counted(len(long), 'image')} with an aspect ratio above {options.max_aspect_ratio:g}"
        yield Issue.warning("long-image", message, len(long), long)
