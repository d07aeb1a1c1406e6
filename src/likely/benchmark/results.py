"""Results as lines of JSON, one a measurement, which a benchmark adds to and never measures twice."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from likely.reporting.comparison import Result, ResultKey


class ResultsLog:
    """results.jsonl. Lines that cannot be read, of another version say, stay as they are and are counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: list[Result] = []
        self.n_unreadable = 0
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            self._take(line)

    def append(self, result: Result) -> None:
        """Add a result; it is on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.write(_lines_end(self.path) + result.line().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.results.append(result)

    def last(self, key: ResultKey) -> Result | None:
        """The latest result of just what is asked, a failure if that is the latest."""
        return next((result for result in reversed(self.results) if result.key == key), None)

    def _take(self, line: str) -> None:
        try:
            self.results.append(Result.model_validate_json(line))
        except ValidationError:
            self.n_unreadable += bool(line.strip())


def _lines_end(path: Path) -> bytes:
    """A line break where the last line has none, because its writing was interrupted."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return b"" if file.read(1) == b"\n" else b"\n"
