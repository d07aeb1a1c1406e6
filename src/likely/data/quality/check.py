"""Checking: what is wrong with DATA, or will surprise whoever trains on it, found before the training and not after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from likely.data.dataset import Dataset
from likely.data.decoding import read_header
from likely.data.loading import NATIVE_FORMAT, load_dataset
from likely.data.preprocessing import ImageFormat, ImageOptions
from likely.data.quality import duplicates
from likely.data.quality.issues import DataIssues, Issue, Severity, counted, error, note, warning
from likely.data.sources.base import FileItems, Listings
from likely.data.sources.listing import listings as listings_of
from likely.data.suggestions import did_you_mean
from likely.exceptions import ImageError

FEW_IMAGES = 20
LARGEST_IMBALANCE = 10
SMALLEST_SIDE = 8
LARGEST_ASPECT = 5


def check(
    data: str | Path,
    images: ImageOptions | ImageFormat = NATIVE_FORMAT,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> DataIssues:
    """Read all of DATA and look for what is wrong with it; raises DataError if it is not understood at all."""
    dataset = load_dataset(data, images, progress=progress, fewest_classes=0)
    found = [
        *_passed_over(dataset),
        *_classes(dataset),
        *_sizes(listings_of(data)),
        *duplicates.find_duplicates(dataset),
    ]
    n_classes = len(dataset.classes)
    return DataIssues(
        name=dataset.name,
        format=dataset.format,
        classes=dataset.classes,
        counts={name: part.class_counts(n_classes) for name, part in dataset.splits.items()},
        unlabeled={name: int((part.labels < 0).sum()) for name, part in dataset.splits.items()},
        n_unreadable=len(dataset.errors),
        issues=tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity))),
    )


def _passed_over(dataset: Dataset) -> Iterator[Issue]:
    if n := len(dataset.errors):
        sentence = f"{counted(n, 'file or line', 'files or lines')} had to be passed over"
        yield error("unreadable", sentence, n, (problem.message for problem in dataset.errors))


def _classes(dataset: Dataset) -> Iterator[Issue]:
    """Classes with too few images, in themselves or beside the others."""
    if len(dataset.classes) < 2:
        there = f"only one class, {dataset.classes[0]!r}" if dataset.classes else "no class"
        yield error("few-classes", f"there is {there}; training needs two or more", len(dataset.classes), ())
    if dataset.train is not None:
        counts = dict(zip(dataset.classes, dataset.train.class_counts(len(dataset.classes)), strict=True))
        yield from _small_classes(counts)
        yield from _imbalance({name: n for name, n in counts.items() if n})
    if dataset.test is not None:
        tested = zip(dataset.classes, dataset.test.class_counts(len(dataset.classes)), strict=True)
        if missing := [name for name, n in tested if not n]:
            sentence = f"{counted(len(missing), 'class', 'classes')} without any test image"
            yield note("untested-class", sentence, len(missing), missing)


def _small_classes(counts: Mapping[str, int]) -> Iterator[Issue]:
    trained = [name for name, n in counts.items() if n]
    if missing := [name for name, n in counts.items() if not n]:
        sentence = f"{counted(len(missing), 'class', 'classes')} without any training image, not to be learned"
        examples = (f"{name}{did_you_mean(name, trained)}" for name in missing)
        yield error("untrained-class", sentence, len(missing), examples)
    kinds = (
        ("one-image-class", range(1, 2), "with a single training image, too few to calibrate with"),
        ("tiny-class", range(2, FEW_IMAGES), f"with fewer than {FEW_IMAGES} training images"),
    )
    for kind, few, saying in kinds:
        if small := [f"{name} ({n})" if n > 1 else name for name, n in counts.items() if n in few]:
            yield warning(kind, f"{counted(len(small), 'class', 'classes')} {saying}", len(small), small)


def _imbalance(counts: Mapping[str, int]) -> Iterator[Issue]:
    ranked = sorted(counts, key=counts.__getitem__)
    if ranked and counts[ranked[-1]] > LARGEST_IMBALANCE * counts[ranked[0]]:
        few, many = ranked[0], ranked[-1]
        sentence = f"the classes are unequal: {many} has {counts[many]:,} training images, {few} has {counts[few]:,}"
        yield warning("imbalance", sentence, 1, (many, few))


def _sizes(listings: Listings) -> Iterator[Issue]:
    """Files too small to show much, or so long that little is left of them in any model's square."""
    tiny: list[str] = []
    long: list[str] = []
    for items in (listing.items for listing in listings.values() if isinstance(listing.items, FileItems)):
        for i in range(len(items)):
            try:
                header = read_header(items[i], items.name(i))
            except ImageError:
                continue  # found unreadable already
            short_side, long_side = sorted((header.height, header.width))
            target = tiny if short_side < SMALLEST_SIDE else long if long_side > LARGEST_ASPECT * short_side else None
            if target is not None:
                target.append(f"{items.name(i)} ({header.width} x {header.height})")
    if tiny:
        sentence = f"{counted(len(tiny), 'image')} less than {SMALLEST_SIDE} pixels high or wide"
        yield warning("tiny-image", sentence, len(tiny), tiny)
    if long:
        sentence = f"{counted(len(long), 'image')} more than {LARGEST_ASPECT} times as long as short"
        yield warning("long-image", sentence, len(long), long)
