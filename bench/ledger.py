"""Results as lines of JSON, one a measurement, which a benchmark adds to and never measures twice."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def rows(path: Path) -> list[dict[str, Any]]:
    """Every measurement so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a measurement; it is on the disk when this returns."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        os.fsync(file.fileno())


def commit() -> str:
    """The version that is measured."""
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
