"""Folders of images, in a fixed order.

In a folder of class folders, a folder's name, at any depth, is the class of its images; train/, val/ and test/ are splits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from likely.data.sources.base import SPLIT_NAMES, SPLITS, UNLABELED, FileItems, Listings, LoadError, SplitListing
from likely.data.sources.manifest import READERS
from likely.exceptions import DataError

SUFFIXES: tuple[str, ...] = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib")
SUFFIXES += (".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".heic", ".heif", ".ico")


@dataclass(frozen=True)
class _FolderNode:
    """A folder and its descendants, whose class names are their paths relative to `root`."""

    top: Path
    root: Path


_Nodes: TypeAlias = Mapping[str, Sequence[_FolderNode]]


def list_folder(root: Path) -> Listings:
    """List the splits of a folder of class folders; raise DataError if it holds no image."""
    nodes = _split_nodes(root) or {"train": [_FolderNode(root, root)]}
    splits = {split: _listing(of_split) for split, of_split in nodes.items()}
    if not any(len(listing.items) for listing in splits.values()):
        raise DataError(f"{root}: holds no images{_suggestion(root)}")
    first = next(iter(splits))
    return splits | {first: replace(splits[first], errors=(*_skipped(root, nodes), *splits[first].errors))}


def find_images(inputs: Iterable[str | Path]) -> list[Path]:
    """Expand folders to all images below them, sorted, and return other paths unchanged, existing or not.

    Hidden files and folders are skipped.
    """
    images: list[Path] = []
    for path in map(Path, inputs):
        images.extend([file for _, files in _walk(path) for file in files] if path.is_dir() else [path])
    return images


def _split_nodes(root: Path) -> _Nodes:
    """Return the folders of each split; none if folders named like splits are classes, such as `train` beside `bus`."""
    splits: dict[str, list[_FolderNode]] = {}
    for folder in _folders(root):
        if split := SPLIT_NAMES.get(folder.name.lower()):
            splits.setdefault(split, []).append(_FolderNode(folder, folder))
    tops = [node.top for nodes in splits.values() for node in nodes]
    others = [folder for folder in _folders(root) if folder not in tops]
    unlabeled = [_FolderNode(folder, root) for folder in others if _is_unlabeled(folder)]
    if len(others) > len(unlabeled) and any(_has_images_directly(top) for top in tops):
        return {}
    if splits and unlabeled:
        splits["train"] = [*splits.get("train", ()), *unlabeled]
    return {split: splits[split] for split in SPLITS if split in splits}


def _skipped(root: Path, nodes: _Nodes) -> Iterator[LoadError]:
    """Report the folders that belong to no split where others do."""
    used = {node.top for of_split in nodes.values() for node in of_split}
    if root not in used:
        for folder in _folders(root):
            if folder not in used:
                yield LoadError(str(folder), f"{folder}: is beside {', '.join(nodes)} but not a split; it was skipped")


def _listing(nodes: Iterable[_FolderNode]) -> SplitListing:
    paths: list[Path] = []
    labels: list[str | None] = []
    errors: list[LoadError] = []
    for node in nodes:
        for folder, files in _walk(node.top):
            below = _folders(folder)
            errors.extend(_unreadable(inner) for inner in below if not os.access(inner, os.R_OK | os.X_OK))
            if not files and not below:
                errors.append(LoadError(str(folder), f"{folder}: holds no images{_suggestion(folder)}"))
            elif files and below and folder == node.root:
                errors.extend(LoadError(str(file), f"{file}: is in no class folder") for file in files)
            else:
                paths.extend(files)
                labels.extend([_label(folder, node.root)] * len(files))
    return SplitListing(FileItems(paths), labels, tuple(errors))


def _unreadable(folder: Path) -> LoadError:
    return LoadError(str(folder), f"{folder}: cannot be read (permission denied)")


def _label(folder: Path, root: Path) -> str | None:
    relative = folder.relative_to(root)
    is_unlabeled = relative == Path() or any(map(_is_unlabeled, (relative, *relative.parents)))
    return None if is_unlabeled else relative.as_posix()


def _is_unlabeled(folder: Path) -> bool:
    return folder.name.lower().replace("ll", "l") == UNLABELED  # in American or British spelling


def _has_images_directly(folder: Path) -> bool:
    return any(files for _, files in islice(_walk(folder), 1))


def _suggestion(folder: Path) -> str:
    """Return the end of a message that says what a folder without images holds instead."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in files:
        if path.suffix.lower() in (".npz", *READERS):
            return f"; did you mean {path}?"
    kinds = ", ".join(sorted({path.suffix.lower() or path.name for path in files})[:5])
    return f", only {kinds}; {', '.join(SUFFIXES[:4])} or similar files were expected" if kinds else ""


def _walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Iterate over a folder and its descendants, sorted, with the image files directly in each; follow each link once."""
    seen: set[str] = set()
    for here, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if _visible(name))
        yield Path(here), [Path(here, name) for name in sorted(files) if _is_image(name)]


def _folders(folder: Path) -> list[Path]:
    """Return the visible folders directly in `folder`, sorted."""
    return sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir() and _visible(entry.name))


def _is_image(name: str) -> bool:
    return _visible(name) and name.lower().endswith(SUFFIXES)


def _visible(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))
