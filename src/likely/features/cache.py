"""Cache of feature vectors by image hash, in memory and on disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likely.data.dataset import image_hashes

_Rows: TypeAlias = Mapping[int, NDArray[np.float32]]
_KEYS_PER_QUERY = 500  # SQLite allows some 32,000 values
_LOCK_TIMEOUT = 10.0  # seconds to wait for another writer


class FeatureCache:
    """float32 vectors (D,) by 64-bit keys, in memory and in one SQLite file per feature extractor.

    A file that cannot be read or written behaves as if it were empty. By default it is in $LIKELY_CACHE, or else in `likely` in
    $XDG_CACHE_HOME or ~/.cache.
    """

    def __init__(self, function: str, folder: Path | None = None) -> None:
        """Open the cache of a function, identified by a name such as the hash of a network."""
        self.path = (folder or cache_folder() / "features") / f"{function}.sqlite"
        self._in_memory = dict[int, Tensor]()

    def lookup(self, pixels: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a vector per uint8 image (B, C, H, W), (B, D) on the CPU; compute and store the missing ones."""
        keys = image_hashes(pixels.numpy()).tolist()
        index = {key: i for i, key in enumerate(keys) if key not in self._in_memory}
        self._in_memory |= {key: torch.from_numpy(row.copy()) for key, row in self.get(index).items()}
        if missing := [key for key in index if key not in self._in_memory]:
            rows = compute(pixels[[index[key] for key in missing]])
            self._in_memory |= dict(zip(missing, rows.clone(), strict=True))
            self.put({key: self._in_memory[key].numpy() for key in missing})
        return torch.stack([self._in_memory[key] for key in keys])

    def get(self, keys: Collection[int]) -> dict[int, NDArray[np.float32]]:
        """Return the vectors of these keys on disk."""
        if not self.path.exists():
            return {}
        try:
            with closing(sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT)) as database:
                found = (
                    (key, row) for key, row in _select(database, keys) if isinstance(row, bytes) and len(row) % 4 == 0
                )
                return {key: np.frombuffer(row, np.float32) for key, row in found}
        except sqlite3.Error:
            return {}

    def put(self, rows: _Rows) -> None:
        """Store vectors by their keys on disk."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT)) as database, database:
                database.execute("create table if not exists vectors (key integer primary key, row blob not null)")
                values = ((key, row.astype(np.float32).tobytes()) for key, row in rows.items())
                database.executemany("insert or ignore into vectors values (?, ?)", values)
        except (sqlite3.Error, OSError):
            return


def _select(database: sqlite3.Connection, keys: Collection[int]) -> Iterator[tuple[int, bytes]]:
    all_keys = list(keys)
    for batch in (all_keys[i : i + _KEYS_PER_QUERY] for i in range(0, len(all_keys), _KEYS_PER_QUERY)):
        placeholders = ",".join("?" * len(batch))
        yield from database.execute(f"select key, row from vectors where key in ({placeholders})", batch)


def cache_folder() -> Path:
    """Return the user's cache folder: $LIKELY_CACHE, or else `likely` in $XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("LIKELY_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "likely"
