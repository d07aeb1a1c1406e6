"""Copies: images that are there twice, bit by bit or nearly, under one label or two, in one part or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from likely.data.dataset import Dataset, Integers, LabeledImages
from likely.data.quality.issues import Issue, counted, error, note, warning
from likely.data.quality.near_duplicates import Thumbnails, make_thumbnails, nearest_duplicates
from likely.data.splits import duplicate_groups

MAX_COMPARED = 100_000
# The same images are compared every time, so that two checks of the same data agree.
SAMPLE_SEED = 0


def find_duplicates(dataset: Dataset) -> Iterator[Issue]:
    """Everything about copies; near ones are looked for among images, not among vectors."""
    yield from _conflicts(dataset)
    for name, part in dataset.splits.items():
        yield from _duplicates(name, part)
        if name != "train" and dataset.train is not None:
            yield from _leaks(name, part, dataset.train)
    if dataset.format is not None:
        yield from _pictures({name: _view(part) for name, part in dataset.splits.items()})


def _conflicts(dataset: Dataset) -> Iterator[Issue]:
    """The same image with two labels, in whatever parts."""
    parts = [part.labeled() for part in dataset.splits.values()]
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    place = np.concatenate([np.arange(len(part)) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    groups, mixed = duplicate_groups(labels, np.concatenate([part.hashes for part in parts]))

    def name(i: int) -> str:
        return f"{parts[part_of[i]].images.name(int(place[i]))} ({dataset.classes[labels[i]]})"

    if n := int(mixed.sum()):
        sentence = f"{counted(n, 'image')} with exact copies under another label"
        yield error("label-conflict", sentence, n, _chains(np.flatnonzero(mixed), groups, name))


def _duplicates(name: str, part: LabeledImages) -> Iterator[Issue]:
    groups, _ = duplicate_groups(part.labels, part.hashes)
    sizes = np.bincount(groups)
    if n := len(groups) - int((sizes > 0).sum()):
        sentence = f"{counted(n, 'exact copy', 'exact copies')} of another image of {name}"
        yield warning("duplicate", sentence, n, _chains(np.flatnonzero(sizes[groups] > 1), groups, part.images.name))


def _leaks(name: str, held: LabeledImages, train: LabeledImages) -> Iterator[Issue]:
    leaked = np.flatnonzero(np.isin(held.hashes, train.hashes))
    if n := len(leaked):
        hashes, firsts = np.unique(train.hashes, return_index=True)
        originals = firsts[np.searchsorted(hashes, held.hashes[leaked])]
        sentence = f"{counted(n, 'image')} of {name} exactly as in train"
        yield error("leak", sentence, n, _pairs(held, leaked, "=", train, originals))


@dataclass(frozen=True, eq=False)
class DedupView:
    """A part and the looks of its images, each different image once, and no more of them than can be compared."""

    images: LabeledImages
    compared: LabeledImages
    thumbnails: Thumbnails


def _view(part: LabeledImages) -> DedupView:
    _, firsts = np.unique(part.hashes, return_index=True)
    if len(firsts) > MAX_COMPARED:
        firsts = np.random.default_rng(SAMPLE_SEED).choice(firsts, MAX_COMPARED, replace=False)
    compared = part.subset(np.sort(firsts))
    return DedupView(part, compared, make_thumbnails(compared))


def _pictures(views: dict[str, DedupView]) -> Iterator[Issue]:
    """Images that show nothing, and images that show the same picture although their pixels differ."""
    for name, view in views.items():
        yield from _constant(name, view)
        if len(view.compared) == MAX_COMPARED:
            yield note("sampled", f"only {MAX_COMPARED:,} images of {name} were compared", MAX_COMPARED, ())
    if train := views.get("train"):
        yield from _near_duplicates(train)
        for name, view in views.items():
            if name != "train":
                yield from _near_leaks(name, view, train)


def _constant(name: str, view: DedupView) -> Iterator[Issue]:
    blank = np.flatnonzero(np.isin(view.images.hashes, view.thumbnails.hashes[view.thumbnails.constant]))
    if n := len(blank):
        sentence = f"{counted(n, 'image')} of {name} of one color all over"
        yield warning("constant", sentence, n, (view.images.images.name(i) for i in blank.tolist()))


def _near_duplicates(train: DedupView) -> Iterator[Issue]:
    twin = nearest_duplicates(train.thumbnails, train.thumbnails)
    alike = np.flatnonzero(twin >= 0)
    if n := len(alike):
        # Of two that are each other's twin, one line is enough.
        once = alike[(twin[twin[alike]] != alike) | (alike < twin[alike])]
        sentence = f"{counted(n, 'image')} of train nearly the same as another"
        yield note("near-duplicate", sentence, n, _pairs(train.compared, once, "~", train.compared, twin[once]))


def _near_leaks(name: str, held: DedupView, train: DedupView) -> Iterator[Issue]:
    twin = nearest_duplicates(held.thumbnails, train.thumbnails)
    twin[np.isin(held.thumbnails.hashes, train.images.hashes)] = -1  # an exact leak, found already
    leaked = np.flatnonzero(twin >= 0)
    if n := len(leaked):
        sentence = f"{counted(n, 'image')} of {name} nearly the same as in train"
        yield warning("near-leak", sentence, n, _pairs(held.compared, leaked, "~", train.compared, twin[leaked]))


def _pairs(these: LabeledImages, i: Integers, sign: str, those: LabeledImages, j: Integers) -> Iterator[str]:
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        yield f"{these.images.name(a)} {sign} {those.images.name(b)}"


def _chains(indices: Integers, groups: Integers, name: Callable[[int], str]) -> Iterator[str]:
    """Each group of copies as "a = b = c"."""
    ordered = indices[np.argsort(groups[indices], kind="stable")]
    for group in np.split(ordered, np.flatnonzero(np.diff(groups[ordered])) + 1):
        yield " = ".join(name(i) for i in group.tolist())
