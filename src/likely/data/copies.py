"""Copies: images that are there twice, bit by bit or nearly, under one label or two, in one part or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from likely.data.findings import Finding, counted, error, note, warning
from likely.data.likeness import Looks, looks, twins
from likely.data.parts import Dataset, Integers, Part
from likely.data.splits import copy_groups

MOST_COMPARED = 100_000
# The same images are compared every time, so that two checks of the same data agree.
SAMPLE_SEED = 0


def find(dataset: Dataset) -> Iterator[Finding]:
    """Everything about copies; near ones are looked for among images, not among vectors."""
    yield from _conflicts(dataset)
    for name, part in dataset.parts.items():
        yield from _duplicates(name, part)
        if name != "train" and dataset.train is not None:
            yield from _leaks(name, part, dataset.train)
    if dataset.format is not None:
        yield from _pictures({name: _view(part) for name, part in dataset.parts.items()})


def _conflicts(dataset: Dataset) -> Iterator[Finding]:
    """The same image with two labels, in whatever parts."""
    parts = [part.labelled() for part in dataset.parts.values()]
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    place = np.concatenate([np.arange(len(part)) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    groups, mixed = copy_groups(labels, np.concatenate([part.hashes for part in parts]))

    def name(i: int) -> str:
        return f"{parts[part_of[i]].images.name(int(place[i]))} ({dataset.classes[labels[i]]})"

    if n := int(mixed.sum()):
        sentence = f"{counted(n, 'image')} with exact copies under another label"
        yield error("label-conflict", sentence, n, _chains(np.flatnonzero(mixed), groups, name))


def _duplicates(name: str, part: Part) -> Iterator[Finding]:
    groups, _ = copy_groups(part.labels, part.hashes)
    sizes = np.bincount(groups)
    if n := len(groups) - int((sizes > 0).sum()):
        sentence = f"{counted(n, 'exact copy', 'exact copies')} of another image of {name}"
        yield warning("duplicate", sentence, n, _chains(np.flatnonzero(sizes[groups] > 1), groups, part.images.name))


def _leaks(name: str, held: Part, train: Part) -> Iterator[Finding]:
    leaked = np.flatnonzero(np.isin(held.hashes, train.hashes))
    if n := len(leaked):
        hashes, firsts = np.unique(train.hashes, return_index=True)
        originals = firsts[np.searchsorted(hashes, held.hashes[leaked])]
        sentence = f"{counted(n, 'image')} of {name} exactly as in train"
        yield error("leak", sentence, n, _pairs(held, leaked, "=", train, originals))


@dataclass(frozen=True, eq=False)
class View:
    """A part and the looks of its images, each different image once, and no more of them than can be compared."""

    part: Part
    compared: Part
    looks: Looks


def _view(part: Part) -> View:
    _, firsts = np.unique(part.hashes, return_index=True)
    if len(firsts) > MOST_COMPARED:
        firsts = np.random.default_rng(SAMPLE_SEED).choice(firsts, MOST_COMPARED, replace=False)
    compared = part.subset(np.sort(firsts))
    return View(part, compared, looks(compared))


def _pictures(views: dict[str, View]) -> Iterator[Finding]:
    """Images that show nothing, and images that show the same picture although their pixels differ."""
    for name, view in views.items():
        yield from _constant(name, view)
        if len(view.compared) == MOST_COMPARED:
            yield note("sampled", f"only {MOST_COMPARED:,} images of {name} were compared", MOST_COMPARED, ())
    if train := views.get("train"):
        yield from _near_duplicates(train)
        for name, view in views.items():
            if name != "train":
                yield from _near_leaks(name, view, train)


def _constant(name: str, view: View) -> Iterator[Finding]:
    blank = np.flatnonzero(np.isin(view.part.hashes, view.looks.hashes[view.looks.constant]))
    if n := len(blank):
        sentence = f"{counted(n, 'image')} of {name} of one colour all over"
        yield warning("constant", sentence, n, (view.part.images.name(i) for i in blank.tolist()))


def _near_duplicates(train: View) -> Iterator[Finding]:
    twin = twins(train.looks, train.looks)
    alike = np.flatnonzero(twin >= 0)
    if n := len(alike):
        # Of two that are each other's twin, one line is enough.
        once = alike[(twin[twin[alike]] != alike) | (alike < twin[alike])]
        sentence = f"{counted(n, 'image')} of train nearly the same as another"
        yield note("near-duplicate", sentence, n, _pairs(train.compared, once, "~", train.compared, twin[once]))


def _near_leaks(name: str, held: View, train: View) -> Iterator[Finding]:
    twin = twins(held.looks, train.looks)
    twin[np.isin(held.looks.hashes, train.part.hashes)] = -1  # an exact leak, found already
    leaked = np.flatnonzero(twin >= 0)
    if n := len(leaked):
        sentence = f"{counted(n, 'image')} of {name} nearly the same as in train"
        yield warning("near-leak", sentence, n, _pairs(held.compared, leaked, "~", train.compared, twin[leaked]))


def _pairs(these: Part, i: Integers, sign: str, those: Part, j: Integers) -> Iterator[str]:
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        yield f"{these.images.name(a)} {sign} {those.images.name(b)}"


def _chains(indices: Integers, groups: Integers, name: Callable[[int], str]) -> Iterator[str]:
    """Each group of copies as "a = b = c"."""
    ordered = indices[np.argsort(groups[indices], kind="stable")]
    for group in np.split(ordered, np.flatnonzero(np.diff(groups[ordered])) + 1):
        yield " = ".join(name(i) for i in group.tolist())
