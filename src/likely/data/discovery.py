"""Discovery of image files in folders, in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES: tuple[str, ...] = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib")
SUFFIXES += (".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".ico")


def find_images(inputs: Iterable[str | Path]) -> list[Path]:
    """Expand folders to all images below them, sorted, and return other paths unchanged, existing or not.

    Hidden files and folders are skipped.
    """
    images: list[Path] = []
    for path in map(Path, inputs):
        images.extend([file for _, files in walk(path) for file in files] if path.is_dir() else [path])
    return images


def walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
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


def folders(folder: Path) -> list[Path]:
    """Return the visible folders directly in `folder`, sorted."""
    return sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir() and _visible(entry.name))


def _is_image(name: str) -> bool:
    """Return True for the name of an image file."""
    return _visible(name) and name.lower().endswith(SUFFIXES)


def _visible(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))
