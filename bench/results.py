"""Result logs of the benchmarks: one JSON line per measurement, never measured twice.

Set LIKELY_BENCH_RESULTS to a folder to try a benchmark without writing to bench/results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interleaved_timing import StealMeter

from likely import models
from likely.reporting.formatting import plural
from likely.training.device import describe_machine

RESULTS = Path(os.environ.get("LIKELY_BENCH_RESULTS", Path(__file__).parent / "results"))

STEAL_SINCE_START = StealMeter()  # of the benchmark


def rows(path: Path) -> list[dict[str, Any]]:
    """Return all recorded measurements."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def has_row(path: Path, key: Mapping[str, object]) -> bool:
    """Return True if a line has these names and values."""
    return any(key.items() <= row.items() for row in rows(path))


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a measurement and flush it to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        os.fsync(file.fileno())


def measure_once(
    path: Path, key: Mapping[str, object], threads: int, measured: Callable[[], Mapping[str, Any]]
) -> None:
    """Measure and append the result with its key and environment, unless a line has the key."""
    if not has_row(path, key):
        found = measured()
        append(path, {**environment(threads), **key, **found})


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have in common."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds, one measurement each (default 0)")
    found.add_argument("--threads", type=int, default=2, help="CPU threads of torch (default 2)")
    return found


def environment(threads: int) -> dict[str, object]:
    """Return commit, machine, threads, and the fraction of CPU time that other virtual machines took since the start."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "commit": head,
        "machine": describe_machine(),
        "threads": threads,
        "cpu_steal": round(STEAL_SINCE_START.cpu_steal, 3),
    }


def resolved(family: str, options: Mapping[str, object], training: Mapping[str, object]) -> dict[str, Any]:
    """Return all family options, defaults included, and the training options that the family or the benchmark sets.

    Tables omit results of other options.
    """
    whole = models.family(family).options_type.model_validate(options)
    return whole.model_dump() | {"training": {**whole.training_defaults, **training}}


def provenance(found: Sequence[dict[str, Any]]) -> str:
    """Return the environment of measurements as a sentence below a table."""
    commits: dict[str, set[str]] = {}
    for row in found:
        where = f"{row['machine']}, {plural(row['threads'], 'thread')}, commit"
        commits.setdefault(where, set()).add(str(row["commit"])[:7])
    each = [f"{where}{'s' * (len(of) > 1)} {', '.join(sorted(of))}" for where, of in commits.items()]
    cpu_steal = max((row.get("cpu_steal", 0.0) for row in found), default=0.0)
    steal = f"; CPU steal at most {100 * cpu_steal:.0f} %" if cpu_steal >= 0.005 else ""
    return "; ".join(each) + steal + "."


def write_table(path: Path, table: str, full: str | None = None) -> None:
    """Write a table next to its measurements and print it; `full` is a longer one for NAME-full.md."""
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    if full is not None:
        path.with_name(f"{path.stem}-full.md").write_text(full, encoding="utf-8")
    print(table)
