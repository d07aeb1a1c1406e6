"""Results as lines of JSON, one a measurement, which a benchmark adds to and never measures twice."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from turns import Watch

from likely import models
from likely.reporting.formatting import plural
from likely.training.device import describe_machine

RESULTS = Path(__file__).parent / "results"

WATCH = Watch()  # since the benchmark began


def rows(path: Path) -> list[dict[str, Any]]:
    """Every measurement so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def has_row(path: Path, key: Mapping[str, object]) -> bool:
    """Whether there is a line of what is known by these names and values."""
    return any(key.items() <= row.items() for row in rows(path))


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a measurement; it is on the disk when this returns."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        os.fsync(file.fileno())


def measure_once(
    path: Path, key: Mapping[str, object], threads: int, measured: Callable[[], Mapping[str, Any]]
) -> None:
    """Add what is measured under this key, and under which circumstances, unless there is a line of it."""
    if not has_row(path, key):
        found = measured()
        append(path, {**circumstances(threads), **key, **found})


def arguments(what: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has, under what its script says of itself."""
    found = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--seeds", type=int, nargs="+", default=[0])
    found.add_argument("--threads", type=int, default=2)
    return found


def circumstances(threads: int) -> dict[str, object]:
    """What version is measured, on what, and what share of that others have taken since the benchmark began."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"commit": head, "machine": describe_machine(), "threads": threads, "taken": round(WATCH.taken, 3)}


def resolved(family: str, options: Mapping[str, object], training: Mapping[str, object]) -> dict[str, Any]:
    """What a measurement was of: all options, a preset's and those left out included, and how the family was trained as far
    as it or the benchmark has a say. What was measured otherwise has to be measured anew, and is left out of the table."""
    whole = models.family(family).options_type.model_validate(options)
    return whole.model_dump() | {"training": {**whole.training_defaults, **training}}


def provenance(found: Sequence[dict[str, Any]]) -> str:
    """The circumstances of the measurements of a table, in a line below it."""
    commits: dict[str, set[str]] = {}
    for row in found:
        where = f"{row['machine']}, {plural(row['threads'], 'thread')}, commit"
        commits.setdefault(where, set()).add(str(row["commit"])[:7])
    each = [f"{where}{'s' * (len(of) > 1)} {', '.join(sorted(of))}" for where, of in commits.items()]
    taken = max((row.get("taken", 0.0) for row in found), default=0.0)
    others = f"; others that share it took {100 * taken:.0f} % of its time at most" if taken >= 0.005 else ""
    return "; ".join(each) + others + "."


def write_table(path: Path, table: str) -> None:
    """The table beside its measurements, and on the terminal."""
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
