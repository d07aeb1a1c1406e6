"""Class folders: a folder's name is the class of the images in it, at any depth, and train/, val/, test/ are parts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from likely.data.discovery import SUFFIXES, folders, walk
from likely.data.sources import manifest
from likely.data.sources.base import SPLIT_NAMES, SPLITS, UNLABELED, FileItems, Listings, LoadError, SplitListing
from likely.exceptions import DataError


@dataclass(frozen=True)
class FolderNode:
    """A folder and all below it, whose classes are called by the way to them from `root`."""

    top: Path
    root: Path


Branches: TypeAlias = Mapping[str, Sequence[FolderNode]]


def listings(root: Path) -> Listings:
    """The parts of a folder of class folders; raises DataError if there is no image in it."""
    branches = _parts(root) or {"train": [FolderNode(root, root)]}
    parts = {part: _listing(below) for part, below in branches.items()}
    if not any(len(listing.items) for listing in parts.values()):
        raise DataError(f"{root}: holds no images{_what_else(root)}")
    first = next(iter(parts))
    return parts | {first: replace(parts[first], errors=(*_beside(root, branches), *parts[first].errors))}


def _parts(root: Path) -> Branches:
    """Where the parts are; nowhere if the folders called like parts are classes, such as `train` beside `bus`."""
    parts: dict[str, list[FolderNode]] = {}
    for folder in folders(root):
        if part := SPLIT_NAMES.get(folder.name.lower()):
            parts.setdefault(part, []).append(FolderNode(folder, folder))
    tops = [branch.top for branches in parts.values() for branch in branches]
    others = [folder for folder in folders(root) if folder not in tops]
    unlabeled = [FolderNode(folder, root) for folder in others if _is_unlabeled(folder)]
    if len(others) > len(unlabeled) and any(_holds_images_itself(top) for top in tops):
        return {}
    if parts and unlabeled:
        parts["train"] = [*parts.get("train", ()), *unlabeled]
    return {part: parts[part] for part in SPLITS if part in parts}


def _beside(root: Path, branches: Branches) -> Iterator[LoadError]:
    """The folders that belong to no part where others do."""
    used = {branch.top for part in branches.values() for branch in part}
    if root not in used:
        for folder in folders(root):
            if folder not in used:
                yield LoadError(str(folder), f"{folder}: lies beside {', '.join(branches)} and was passed over")


def _listing(branches: Iterable[FolderNode]) -> SplitListing:
    paths: list[Path] = []
    labels: list[str | None] = []
    problems: list[LoadError] = []
    for branch in branches:
        for folder, files in walk(branch.top):
            below = folders(folder)
            problems.extend(_closed(inner) for inner in below if not os.access(inner, os.R_OK | os.X_OK))
            if not files and not below:
                problems.append(LoadError(str(folder), f"{folder}: holds no images{_what_else(folder)}"))
            elif files and below and folder == branch.root:
                problems.extend(LoadError(str(file), f"{file}: lies in no class's folder") for file in files)
            else:
                paths.extend(files)
                labels.extend([_label(folder, branch.root)] * len(files))
    return SplitListing(FileItems(paths), labels, tuple(problems))


def _closed(folder: Path) -> LoadError:
    return LoadError(str(folder), f"{folder}: may not be looked into (permission denied)")


def _label(folder: Path, root: Path) -> str | None:
    way = folder.relative_to(root)
    return None if way == Path() or any(map(_is_unlabeled, (way, *way.parents))) else way.as_posix()


def _is_unlabeled(folder: Path) -> bool:
    return folder.name.lower() in UNLABELED


def _holds_images_itself(folder: Path) -> bool:
    return any(files for _, files in islice(walk(folder), 1))


def _what_else(folder: Path) -> str:
    """What an imageless folder has instead, as the end of a sentence."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in files:
        if path.suffix.lower() in (".npz", *manifest.READERS):
            return f"; did you mean {path}?"
    kinds = ", ".join(sorted({path.suffix.lower() or path.name for path in files})[:5])
    return f", only {kinds}; {', '.join(SUFFIXES[:4])} and the like were expected" if kinds else ""
