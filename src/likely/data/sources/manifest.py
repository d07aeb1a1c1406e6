"""Manifests: CSV, JSONL or Parquet tables of images with columns `file_name`, `label` and optionally `split` and `group`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from likely.data.sources.base import SPLIT_NAMES, SPLITS, FileItems, Listings, LoadError, SplitListing
from likely.exceptions import DataError, did_you_mean

_FILE, _LABEL, _SPLIT, _GROUP = "file_name", "label", "split", "group"
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class _Row:
    """One line of a manifest, counted from 1, and the error of a line that cannot be read."""

    line: int
    cells: Mapping[str, object]
    error: str | None = None


@dataclass(frozen=True)
class _Entry:
    """An image file with its split, class and group, or the error of its line."""

    split: str
    file: Path
    label: str | None
    group: str | None
    error: LoadError | None = None


def list_manifest(path: Path) -> Listings:
    """List the splits of a manifest, with paths relative to its folder; raise DataError."""
    try:
        entries = [_entry(path, row) for row in READERS[path.suffix.lower()](path)]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 {path.suffix[1:].upper()} ({error})") from error
    errors = [entry.error for entry in entries if entry.error]
    if len(errors) == len(entries):
        raise DataError(f"{path}: names no existing image{f'; the first: {errors[0].message}' if errors else ''}")
    present = {entry.split for entry in entries}
    return {split: _listing(e for e in entries if e.split == split) for split in SPLITS if split in present}


def _listing(entries: Iterable[_Entry]) -> SplitListing:
    """Return the listing of one split; `likely data check` reports files listed under two classes."""
    entries = list(entries)
    valid = [entry for entry in entries if entry.error is None]
    errors = tuple(entry.error for entry in entries if entry.error)
    groups = [entry.group for entry in valid]
    return SplitListing(
        FileItems([entry.file for entry in valid]),
        [entry.label for entry in valid],
        errors,
        groups if any(groups) else None,
    )


def _entry(path: Path, row: _Row) -> _Entry:
    name, split = _text(row.cells.get(_FILE)), (_text(row.cells.get(_SPLIT)) or "train").lower()
    file = path.parent / name
    label = row.cells.get(_LABEL)
    message = row.error or _validation_message(file, name, split, label)
    error = LoadError(str(file if name else path), f"{path}, line {row.line}: {message}") if message else None
    group = _text(row.cells.get(_GROUP)) or None
    return _Entry(SPLIT_NAMES.get(split, "train"), file, _text(label) or None, group, error)


def _validation_message(file: Path, name: str, split: str, label: object) -> str | None:
    """Return the error message of a line, None for a valid one."""
    if not name:
        return f"names no file; {_FILE} is empty"
    if Path(name).is_absolute() or Path(os.path.normpath(name)).parts[:1] == (os.pardir,):
        return f"{name!r} is outside the manifest's folder; a path below {file.parent} was expected"
    if split not in SPLIT_NAMES:
        return f"{_SPLIT} {split!r} is not one of {', '.join(SPLITS)}{did_you_mean(split, SPLIT_NAMES)}"
    if isinstance(label, bool | float | list | dict):
        return f"{_LABEL} {label!r} is not a class; a text, a whole number or nothing was expected"
    return None if file.is_file() else f"there is no such file as {file}"


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _csv(path: Path) -> Iterator[_Row]:
    """Read delimiters comma, semicolon or tab, with or without a byte order mark, as spreadsheets write them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter=max(_DELIMITERS, key=head.count), strict=True)
        columns = [column.strip() for column in next(reader, [])]
        _require_columns(path, columns)
        for cells in reader:
            if cells:
                is_valid = len(cells) <= len(columns)
                error = None if is_valid else f"has {len(cells)} cells; {len(columns)} at most were expected"
                yield _Row(reader.line_num, dict(zip(columns, cells, strict=False)), error)


def _jsonl(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig") as file:
        for n, line in enumerate(file, 1):
            if line.strip():
                yield _json_row(n, line)


def _json_row(n: int, line: str) -> _Row:
    try:
        cells = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _Row(n, {}, f"is not JSON ({error})")
    if not isinstance(cells, dict):
        return _Row(n, {}, f'is not an object; {{"{_FILE}": …, "{_LABEL}": …}} was expected')
    return _Row(n, cells, None if _FILE in cells else f"has no {_FILE}{did_you_mean(_FILE, cells)}")


def _parquet(path: Path) -> Iterator[_Row]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install 'likely[parquet]'") from error
    try:
        file = parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise DataError(f"{path}: is not a readable Parquet file ({error})") from error
    names = list(file.schema_arrow.names)
    _require_columns(path, names)
    rows = (
        row for batch in file.iter_batches(columns=[n for n in names if n in _COLUMNS]) for row in batch.to_pylist()
    )
    yield from (_Row(n, cells) for n, cells in enumerate(rows, 1))


def _require_columns(path: Path, columns: list[str]) -> None:
    """Raise DataError without a column of files, or without one of labels, unless the others say that none was meant."""
    for needed in (_FILE, _LABEL):
        if needed not in columns and not (needed == _LABEL and set(columns) <= set(_COLUMNS)):
            present = ", ".join(columns) or "none"
            raise DataError(
                f"{path}: has no column {needed}; its columns are: {present}{did_you_mean(needed, columns)}"
            )


_COLUMNS: Final = (_FILE, _LABEL, _SPLIT, _GROUP)
READERS: Final[Mapping[str, Callable[[Path], Iterator[_Row]]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
