"""Disk cache of feature vectors, keyed by image hash."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Rows: TypeAlias = Mapping[int, NDArray[np.float32]]
BATCH_SIZE = 500  # keys per query; SQLite allows some 32,000 values
LOCK_TIMEOUT = 10.0  # seconds to wait for another writer


def cache_folder() -> Path:
    """Return the cache folder: $LIKELY_CACHE, or else `likely` in $XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("LIKELY_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "likely"


class FeatureCache:
    """float32 vectors (D,) by 64-bit keys, in one SQLite file per feature extractor.

    A cache that cannot be read or written behaves as if it were empty.
    """

    def __init__(self, function: str, folder: Path | None = None) -> None:
        """Open the cache of a function, identified by a name such as the hash of a network."""
        self.path = (folder or cache_folder() / "features") / f"{function}.sqlite"

    def get(self, keys: Collection[int]) -> dict[int, NDArray[np.float32]]:
        """Return the stored vectors of these keys."""
        if not self.path.exists():
            return {}
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_TIMEOUT)) as database:
                return {key: np.frombuffer(row, np.float32) for key, row in _found(database, keys)}
        except sqlite3.Error:
            return {}

    def put(self, rows: _Rows) -> None:
        """Store vectors by their keys."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=LOCK_TIMEOUT)) as database, database:
                database.execute("create table if not exists vectors (key integer primary key, row blob not null)")
                values = ((key, row.astype(np.float32).tobytes()) for key, row in rows.items())
                database.executemany("insert or ignore into vectors values (?, ?)", values)
        except (sqlite3.Error, OSError):
            return


def _found(database: sqlite3.Connection, keys: Collection[int]) -> Iterator[tuple[int, bytes]]:
    all_keys = list(keys)
    for batch in (all_keys[i : i + BATCH_SIZE] for i in range(0, len(all_keys), BATCH_SIZE)):
        placeholders = ",".join("?" * len(batch))
        yield from database.execute(f"select key, row from vectors where key in ({placeholders})", batch)
