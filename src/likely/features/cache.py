"""A store of vectors on disk, by the hash of what they are of: computed once, on whichever day it is asked for again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = Mapping[int, NDArray[np.float32]]
BATCH_SIZE = 500  # keys in a question: SQLite takes no more than some 32,000 values
PATIENCE = 10.0  # seconds to wait for another program that writes


def cache_folder() -> Path:
    """Where what can be computed again is kept: LIKELY_CACHE, or else the user's own place for such files."""
    if named := os.environ.get("LIKELY_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "likely"


class FeatureCache:
    """float32 vectors (D,) by 64-bit keys, in one SQLite file for every function that made them.

    It is a convenience: where it cannot be read or written, everything is computed as if it were empty.
    """

    def __init__(self, function: str, folder: Path | None = None) -> None:
        """`function` names what makes the vectors: the hash of a network, say."""
        self.path = (folder or cache_folder() / "features") / f"{function}.sqlite"

    def get(self, keys: Collection[int]) -> dict[int, NDArray[np.float32]]:
        """Those that are there."""
        if not self.path.exists():
            return {}
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as database:
                return {key: np.frombuffer(row, np.float32) for key, row in _found(database, keys)}
        except sqlite3.Error:
            return {}

    def put(self, rows: Rows) -> None:
        """Keep these as well."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as database, database:
                database.execute("create table if not exists vectors (key integer primary key, row blob not null)")
                values = ((key, row.astype(np.float32).tobytes()) for key, row in rows.items())
                database.executemany("insert or ignore into vectors values (?, ?)", values)
        except (sqlite3.Error, OSError):
            return


def _found(database: sqlite3.Connection, keys: Collection[int]) -> Iterator[tuple[int, bytes]]:
    asked = list(keys)
    for some in (asked[i : i + BATCH_SIZE] for i in range(0, len(asked), BATCH_SIZE)):
        places = ",".join("?" * len(some))
        yield from database.execute(f"select key, row from vectors where key in ({places})", some)
