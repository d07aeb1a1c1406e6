"""Listing of DATA: choose the data source by the path and list its splits without reading images."""

from __future__ import annotations

from pathlib import Path

from likely.data.sources.base import Listings
from likely.data.sources.digits import NAME as DIGITS
from likely.data.sources.digits import list_digits
from likely.data.sources.folder import list_folder
from likely.data.sources.idx import has_idx_files, is_idx_name, list_idx
from likely.data.sources.manifest import READERS, list_manifest
from likely.data.sources.npz import list_npz
from likely.data.suggestions import did_you_mean
from likely.exceptions import DataError

_SOURCES = "a folder of class folders, idx files, an .npz, a .csv, .jsonl or .parquet manifest, or the word 'digits'"


def list_splits(data: str | Path) -> Listings:
    """List the splits of DATA without reading images; raise DataError if it is missing or not a known source."""
    if data == DIGITS:
        return list_digits()
    path = Path(data)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder{_suggestion(path)}")
    if path.is_dir():
        return list_idx(path) if has_idx_files(path) else list_folder(path)
    if path.suffix.lower() == ".npz":
        return list_npz(path)
    if path.suffix.lower() in READERS:
        return list_manifest(path)
    expected = f"the folder of the idx files, {path.parent}," if is_idx_name(path.name) else _SOURCES
    raise DataError(f"{path}: is not a known data source; {expected} was expected")


def _suggestion(path: Path) -> str:
    siblings = (entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else iter(())
    return did_you_mean(path.name, [*siblings, DIGITS])
