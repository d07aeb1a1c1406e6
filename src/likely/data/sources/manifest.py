"""Manifests: tables with a line an image, `file_name`, `label` and maybe `split`: CSV, JSONL or Parquet."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from likely.data.sources.base import SPLIT_NAMES, SPLITS, FileItems, Listings, LoadError, SplitListing
from likely.data.suggestions import did_you_mean
from likely.exceptions import DataError

FILE, LABEL, SPLIT = "file_name", "label", "split"
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row:
    """One line of a manifest, counted from 1; `fault` says why it could not be read."""

    line: int
    cells: Mapping[str, object]
    fault: str | None = None


@dataclass(frozen=True)
class ManifestRow:
    """What a line comes to: an image file of a class in a part, or a problem in its place."""

    split: str
    file: Path
    label: str | None
    error: LoadError | None = None


def listings(path: Path) -> Listings:
    """The parts of a manifest, its paths relative to itself; raises DataError."""
    try:
        entries = [_entry(path, row) for row in READERS[path.suffix.lower()](path)]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 {path.suffix[1:].upper()} ({error})") from error
    problems = [entry.error for entry in entries if entry.error]
    if len(problems) == len(entries):
        raise DataError(
            f"{path}: names no image that is there{f'; the first: {problems[0].message}' if problems else ''}"
        )
    parts = {entry.split for entry in entries}
    return {part: _listing(entry for entry in entries if entry.split == part) for part in SPLITS if part in parts}


def _listing(entries: Iterable[ManifestRow]) -> SplitListing:
    """One part; what is listed twice under two classes stays, for `likely data check` to find."""
    entries = list(entries)
    good = [entry for entry in entries if entry.error is None]
    problems = tuple(entry.error for entry in entries if entry.error)
    return SplitListing(FileItems([entry.file for entry in good]), [entry.label for entry in good], problems)


def _entry(path: Path, row: Row) -> ManifestRow:
    name, split = _text(row.cells.get(FILE)), (_text(row.cells.get(SPLIT)) or "train").lower()
    file, part = path.parent / name, SPLIT_NAMES.get(split, "train")
    label = row.cells.get(LABEL)
    fault = row.fault or _fault(file, name, split, label)
    problem = LoadError(str(file if name else path), f"{path}, line {row.line}: {fault}") if fault else None
    return ManifestRow(part, file, _text(label) or None, problem)


def _fault(file: Path, name: str, split: str, label: object) -> str | None:
    """What is wrong with a line, None if nothing is."""
    if not name:
        return f"names no file; {FILE} is empty"
    if Path(name).is_absolute() or Path(os.path.normpath(name)).parts[:1] == (os.pardir,):
        return f"{name!r} lies outside the manifest's folder; a path below {file.parent} was expected"
    if split not in SPLIT_NAMES:
        return f"{SPLIT} {split!r} is not one of {', '.join(SPLITS)}{did_you_mean(split, SPLIT_NAMES)}"
    if isinstance(label, bool | float | list | dict):
        return f"{LABEL} {label!r} is not a class; a text, a whole number or nothing was expected"
    return None if file.is_file() else f"there is no such file as {file}"


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _csv(path: Path) -> Iterator[Row]:
    """Comma, semicolon or tab, with or without a byte order mark: whatever a spreadsheet wrote."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter=max(DELIMITERS, key=head.count), strict=True)
        columns = [column.strip() for column in next(reader, [])]
        _require_columns(path, columns)
        for cells in reader:
            if cells:
                fault = (
                    None
                    if len(cells) <= len(columns)
                    else f"has {len(cells)} cells, more than the {len(columns)} columns"
                )
                yield Row(reader.line_num, dict(zip(columns, cells, strict=False)), fault)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for n, line in enumerate(file, 1):
            if line.strip():
                yield _json_row(n, line)


def _json_row(n: int, line: str) -> Row:
    try:
        cells = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(n, {}, f"is not JSON ({error})")
    if not isinstance(cells, dict):
        return Row(n, {}, f'is not an object; {{"{FILE}": …, "{LABEL}": …}} was expected')
    return Row(n, cells, None if FILE in cells else f"has no {FILE}{did_you_mean(FILE, cells)}")


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise DataError(f"{path}: to read Parquet, pip install likely[parquet]") from error
    try:
        file = parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise DataError(f"{path}: is damaged or no Parquet ({error})") from error
    names = list(file.schema_arrow.names)
    _require_columns(path, names)
    rows = (row for batch in file.iter_batches(columns=[n for n in names if n in COLUMNS]) for row in batch.to_pylist())
    yield from (Row(n, cells) for n, cells in enumerate(rows, 1))


def _require_columns(path: Path, columns: list[str]) -> None:
    for needed in (FILE, LABEL):
        if needed not in columns:
            there = ", ".join(columns) or "none"
            raise DataError(
                f"{path}: has no column {needed}; the columns there are: {there}{did_you_mean(needed, columns)}"
            )


COLUMNS: Final = (FILE, LABEL, SPLIT)
READERS: Final[Mapping[str, Callable[[Path], Iterator[Row]]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
