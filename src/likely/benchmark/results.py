"""The result log of a benchmark: one JSON line per measurement."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from likely.reporting.comparison import Result, ResultKey


class ResultsLog:
    """The file results.jsonl. Unreadable lines, for example of another version, are counted and stay in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: list[Result] = []
        self.n_unreadable = 0
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            self._parse(line)

    def append(self, result: Result) -> None:
        """Append a result and flush it to disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.write(_missing_newline(self.path) + result.line().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.results.append(result)

    def last(self, key: ResultKey) -> Result | None:
        """Return the latest result with this key, possibly a failure; None if there is none."""
        return next((result for result in reversed(self.results) if result.key == key), None)

    def _parse(self, line: str) -> None:
        try:
            self.results.append(Result.model_validate_json(line))
        except ValidationError:
            self.n_unreadable += bool(line.strip())


def _missing_newline(path: Path) -> bytes:
    """Return a line break if the last line has none because writing was interrupted."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return b"" if file.read(1) == b"\n" else b"\n"
