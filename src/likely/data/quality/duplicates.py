"""Exact and near-duplicate images within a split, across splits, and with conflicting labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from likely.data.dataset import Dataset, Integers, LabeledImages
from likely.data.quality.issues import Issue, counted
from likely.data.quality.near_duplicates import Thumbnails
from likely.data.splits import duplicate_groups

_SAMPLE_SEED = 0  # fixed, so that two checks of the same data agree


def find_duplicates(dataset: Dataset, max_compared: int) -> Iterator[Issue]:
    """Report duplicates; near-duplicates only among images, at most `max_compared` of each split."""
    yield from _label_conflicts(dataset)
    for name, images in dataset.splits.items():
        yield from _duplicates(name, images)
        if name != "train" and dataset.train is not None:
            yield from _leaks(name, images, dataset.train)
    if dataset.format is not None:
        yield from _near({name: _dedup_view(images, max_compared) for name, images in dataset.splits.items()})


def _label_conflicts(dataset: Dataset) -> Iterator[Issue]:
    """Report exact duplicates with different labels, in any splits."""
    splits = [images.labeled() for images in dataset.splits.values()]
    split_of = np.repeat(np.arange(len(splits)), [len(images) for images in splits])
    index = np.concatenate([np.arange(len(images)) for images in splits])
    labels = np.concatenate([images.labels for images in splits])
    groups, conflicting = duplicate_groups(labels, np.concatenate([images.hashes for images in splits]))

    def name(i: int) -> str:
        return f"{splits[split_of[i]].images.name(int(index[i]))} ({dataset.classes[labels[i]]})"

    if n := int(conflicting.sum()):
        message = f"{counted(n, 'image')} with exact duplicates under another label"
        yield Issue.error("label-conflict", message, n, _chains(np.flatnonzero(conflicting), groups, name))


def _duplicates(name: str, images: LabeledImages) -> Iterator[Issue]:
    groups, _ = duplicate_groups(images.labels, images.hashes)
    sizes = np.bincount(groups)
    if n := len(groups) - int((sizes > 0).sum()):
        message = f"{counted(n, 'exact duplicate')} of another image of {name}"
        yield Issue.warning(
            "duplicate", message, n, _chains(np.flatnonzero(sizes[groups] > 1), groups, images.images.name)
        )


def _leaks(name: str, images: LabeledImages, train: LabeledImages) -> Iterator[Issue]:
    leaked = np.flatnonzero(np.isin(images.hashes, train.hashes))
    if n := len(leaked):
        hashes, firsts = np.unique(train.hashes, return_index=True)
        originals = firsts[np.searchsorted(hashes, images.hashes[leaked])]
        message = f"{counted(n, 'image')} of {name} also in train"
        yield Issue.error("leak", message, n, _pairs(images, leaked, "=", train, originals))


@dataclass(frozen=True, eq=False)
class _DedupView:
    """A split, a sample of its distinct images, and their thumbnails."""

    images: LabeledImages
    compared: LabeledImages
    thumbnails: Thumbnails
    is_sampled: bool


def _dedup_view(images: LabeledImages, max_compared: int) -> _DedupView:
    _, firsts = np.unique(images.hashes, return_index=True)
    is_sampled = len(firsts) > max_compared
    if is_sampled:
        firsts = np.random.default_rng(_SAMPLE_SEED).choice(firsts, max_compared, replace=False)
    compared = images.subset(np.sort(firsts))
    return _DedupView(images, compared, Thumbnails.from_images(compared), is_sampled)


def _near(views: dict[str, _DedupView]) -> Iterator[Issue]:
    """Report constant images and near-duplicates."""
    for name, view in views.items():
        yield from _constant(name, view)
        if view.is_sampled:
            n = len(view.compared)
            yield Issue.note("sampled", f"only {n:,} images of {name} were compared for near-duplicates", n, ())
    if train := views.get("train"):
        yield from _near_duplicates(train)
        for name, view in views.items():
            if name != "train":
                yield from _near_leaks(name, view, train)


def _constant(name: str, view: _DedupView) -> Iterator[Issue]:
    constant = np.flatnonzero(np.isin(view.images.hashes, view.thumbnails.hashes[view.thumbnails.constant]))
    if n := len(constant):
        message = f"{counted(n, 'image')} of {name} with a single color"
        yield Issue.warning("constant", message, n, (view.images.images.name(i) for i in constant.tolist()))


def _near_duplicates(train: _DedupView) -> Iterator[Issue]:
    nearest = train.thumbnails.nearest_duplicates(train.thumbnails)
    duplicates = np.flatnonzero(nearest >= 0)
    if n := len(duplicates):
        # List two images that are each other's nearest duplicate once.
        listed = duplicates[(nearest[nearest[duplicates]] != duplicates) | (duplicates < nearest[duplicates])]
        message = f"{counted(n, 'image')} of train with near-duplicates in train"
        yield Issue.note(
            "near-duplicate", message, n, _pairs(train.compared, listed, "~", train.compared, nearest[listed])
        )


def _near_leaks(name: str, view: _DedupView, train: _DedupView) -> Iterator[Issue]:
    nearest = view.thumbnails.nearest_duplicates(train.thumbnails)
    nearest[np.isin(view.thumbnails.hashes, train.images.hashes)] = -1  # reported as exact leaks
    leaked = np.flatnonzero(nearest >= 0)
    if n := len(leaked):
        message = f"{counted(n, 'image')} of {name} with near-duplicates in train"
        yield Issue.warning(
            "near-leak", message, n, _pairs(view.compared, leaked, "~", train.compared, nearest[leaked])
        )


def _pairs(a: LabeledImages, i: Integers, sign: str, b: LabeledImages, j: Integers) -> Iterator[str]:
    for first, second in zip(i.tolist(), j.tolist(), strict=True):
        yield f"{a.images.name(first)} {sign} {b.images.name(second)}"


def _chains(indices: Integers, groups: Integers, name: Callable[[int], str]) -> Iterator[str]:
    """Format each group of duplicates as "a = b = c"."""
    ordered = indices[np.argsort(groups[indices], kind="stable")]
    for group in np.split(ordered, np.flatnonzero(np.diff(groups[ordered])) + 1):
        yield " = ".join(name(i) for i in group.tolist())
