"""Where images come from: each file here turns a path into listings of what is there, and this one picks the file."""

from __future__ import annotations

from pathlib import Path

from likely.data.sources import digits, folder, idx, manifest, npz
from likely.data.sources.base import Listings
from likely.data.suggestions import did_you_mean
from likely.exceptions import DataError

KINDS = "a folder of class folders, idx files, an .npz, a .csv, .jsonl or .parquet manifest, or the word 'digits'"


def listings(data: str | Path) -> Listings:
    """The parts of DATA, listed but not read; raises DataError."""
    if data == digits.WORD:
        return digits.listings()
    path = Path(data)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder{_neighbor(path)}")
    if path.is_dir():
        return idx.listings(path) if idx.is_in(path) else folder.listings(path)
    if path.suffix.lower() == ".npz":
        return npz.listings(path)
    if path.suffix.lower() in manifest.READERS:
        return manifest.listings(path)
    raise DataError(f"{path}: is not understood as data; {_place_of(path)}")


def _neighbor(path: Path) -> str:
    beside = (entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else iter(())
    return did_you_mean(path.name, [*beside, digits.WORD])


def _place_of(path: Path) -> str:
    if idx.is_idx(path.name):
        return f"give the folder that holds the idx files, {path.parent}"
    return f"{KINDS} was expected"
