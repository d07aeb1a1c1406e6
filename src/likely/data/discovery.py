"""Image files on disk: which ones a folder holds, in an order that never changes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES: tuple[str, ...] = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib")
SUFFIXES += (".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".ico")


def find_images(inputs: Iterable[str | Path]) -> list[Path]:
    """The images that the inputs name: a folder stands for all images below it, sorted, anything else for itself.

    Hidden files and folders are passed over. A path that does not exist is kept: whoever reads it says what is wrong.
    """
    found: list[Path] = []
    for path in map(Path, inputs):
        found.extend([file for _, files in walk(path) for file in files] if path.is_dir() else [path])
    return found


def walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder from `folder` down, sorted, with the image files directly in it; links never lead to one twice."""
    seen: set[str] = set()
    for here, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if _visible(name))
        yield Path(here), [Path(here, name) for name in sorted(files) if is_image(name)]


def folders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, sorted, the hidden ones passed over."""
    return sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir() and _visible(entry.name))


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image when a whole folder is read."""
    return _visible(name) and name.lower().endswith(SUFFIXES)


def _visible(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))
