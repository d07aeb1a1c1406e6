"""Fault injection: the service killed under load, a full disk, and a database that stops and restarts.

    python bench/faults.py MODEL $DATA/fashion-mnist --kills 20 --out /tmp/faults --disk /tmp/small

/tmp/small is a file system of 16 to 512 MB that will be filled: `mount -t tmpfs -o size=64m tmpfs /tmp/small`. Every
successful response is looked up in the store afterwards. Faults are repeated until enough rounds had little CPU steal.
Appends a line to bench/results/faults.jsonl and writes the table next to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from interleaved_timing import MAX_FACTOR, Round, StealMeter, interleaved, quietest, timed_round, wait_until_idle
from loading import LoadStats, Target, load, probed, running
from results import RESULTS, append, arguments, environment, provenance, rows, write_table
from service import free_port
from sqlalchemy import select
from sqlalchemy.orm import Session

from likely.data.loading import load_dataset
from likely.data.preprocessing import to_png
from likely.server.store import PredictionFilter, Scope, Store
from likely.server.store.schema import ImageRow

sys.path.append(str(Path(__file__).parents[1] / "tests" / "server"))
from databases import postgresql  # the server of the tests

PACKAGES = ("torch", "fastapi", "uvicorn", "sqlalchemy.orm", "PIL.Image")  # imported at startup
RESULTS_FILE = RESULTS / "faults.jsonl"
CLIENTS, N_IMAGES = 16, 5000
ROOM = 4_000_000  # bytes left free on the disk
LARGEST_DISK = 512_000_000  # bytes; a larger one is probably not meant to be filled
QUICK_START = 5.0  # seconds
COUNTS = ("answered", "lost", "orphans", "missing")
BEFORE, DURING, AFTER = 5.0, 10.0, 10.0  # seconds around a fault


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("data", help="data set of the model, whose test images are sent")
    parser.add_argument("--kills", type=int, default=20, help="timed restarts after SIGKILL (default 20)")
    parser.add_argument("--out", type=Path, required=True, help="folder for stores and logs")
    parser.add_argument("--disk", type=Path, required=True, help="small file system that will be filled")
    args = parser.parse_args()
    if shutil.disk_usage(args.disk).total > LARGEST_DISK:
        parser.error(
            f"--disk {args.disk}: a disk of {LARGEST_DISK / 1e6:.0f} MB at most was expected; it will be filled"
        )
    labeled = load_dataset(args.data, splits=("test",)).splits["test"]
    images = [to_png(each) for each in labeled.images.batch(np.arange(min(N_IMAGES, len(labeled)))).numpy()]
    found = {
        "kills": killed(args, images),
        "disk": repeated(lambda: with_full_disk(args, images)),
        "database": repeated(lambda: without_database(args, images)),
    }
    cpu_steal = max(each["cpu_steal"] for each in found.values())
    append(RESULTS_FILE, {**environment(args.threads), **found, "cpu_steal": cpu_steal})
    write_table(RESULTS_FILE, table())


class Served:
    """A service that can be started, with a store of its own and an API key."""

    def __init__(self, args: argparse.Namespace, folder: Path, images: Sequence[bytes], url: str | None = None) -> None:
        self.folder, self.url, port = folder, url, free_port()
        store = Store.open(folder, url)
        _, secret = store.keys.add("load", [Scope.CLASSIFY])
        store.close()
        self.words = ["-m", "likely", "serve", args.model, "--store", folder, "--port", port, "--rate-limit", 1e9]
        self.words += ["--threads", args.threads, *(["--database", url] if url else [])]
        self.target = Target("127.0.0.1", port, "/v1/classify", secret, images)
        self.log = args.out / f"{folder.name}.log"

    def running(self) -> Any:
        return running(self.words, self.target.port, self.log)

    def stored(self, answered: set[str]) -> dict[str, int]:
        """Count the predictions that are missing from the recovered store, files without a row and rows without a file."""
        store = Store.open(self.folder, self.url, exclusive=True)
        there = {each.id for each in store.iterate(PredictionFilter())}
        with Session(store.engine) as session:
            known = set(session.scalars(select(ImageRow.sha256)))
        files = set(store.files)
        store.close()
        counts = (len(answered), len(answered - there), len(files - known), len(known - files))
        return dict(zip(COUNTS, counts, strict=True))


def killed(args: argparse.Namespace, images: Sequence[bytes]) -> dict[str, Any]:
    """Kill the service at random times until enough starts had little CPU steal, and check the store each time."""
    rng, served = np.random.default_rng(0), Served(args, args.out / "killed", images)
    answered, worst = set[str](), dict[str, int]()
    starts, imports = list[Round[float]](), list[Round[float]]()
    while sum(each.is_quiet for each in starts) < args.kills and len(starts) < MAX_FACTOR * args.kills:
        wait_until_idle()
        meter = StealMeter()
        with served.running() as (process, seconds):
            starts.append(Round(seconds, meter.cpu_steal))
            after = float(rng.uniform(0.5, 3.0))
            threading.Timer(after, os.killpg, (process.pid, signal.SIGKILL)).start()
            stats, _ = asyncio.run(load(served.target, CLIENTS, after + 0.5, with_bodies=True))
            answered |= ids(stats)
            process.wait()
        now = served.stored(answered)
        worst = {name: max(n, worst.get(name, 0)) for name, n in now.items()}
        imports.append(timed_round(importing))  # alternating with the starts, because machines are noisy
        print(f"{now}, start {seconds:.1f} s, CPU steal {starts[-1].cpu_steal:.0%}", flush=True)
    least = quietest(starts, args.kills)
    return {
        "n": len(starts),
        **worst,
        "start_s": [each.found for each in least],
        "import_s": [each.found for each in quietest(imports, args.kills)],
        "cpu_steal": least[-1].cpu_steal,
    }


def importing() -> float:
    """Return the seconds of importing the packages of the service."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {', '.join(PACKAGES)}"], check=True)
    return time.perf_counter() - start


def repeated(fault: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Repeat a fault until a round had little CPU steal: losses of all rounds, times of the round with the least steal."""
    rounds = interleaved({"": fault}, 1)[""]
    (least,), every = quietest(rounds, 1), [each.found for each in rounds]
    counts = {what: sum(found[what] for found in every) for what in (*COUNTS, "broken")}
    statuses = sum((Counter(found["statuses"]) for found in every), Counter())
    survived = all(found["survived"] for found in every)
    return {
        **least.found,
        **counts,
        "statuses": dict(statuses),
        "survived": survived,
        "n": len(rounds),
        "cpu_steal": least.cpu_steal,
    }


def with_full_disk(args: argparse.Namespace, images: Sequence[bytes]) -> dict[str, Any]:
    """Fill the disk of the store for a while."""
    ballast, served = args.disk / "ballast", Served(args, args.disk / "full", images)
    try:
        return around(served, lambda: fill(ballast), ballast.unlink)
    finally:
        ballast.unlink(missing_ok=True)
        shutil.rmtree(served.folder, ignore_errors=True)


def fill(path: Path) -> None:
    """Fill all of a disk but a little, which the service fills."""
    with path.open("wb") as file:
        for _ in range(max(0, shutil.disk_usage(path.parent).free - ROOM) // 100_000):
            file.write(bytes(100_000))


def without_database(args: argparse.Namespace, images: Sequence[bytes]) -> dict[str, Any]:
    """Crash the PostgreSQL server of the store and restart it."""
    folder = args.out / "database"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    with postgresql() as server:
        served = Served(args, folder, images, server.created("likely"))
        return around(served, lambda: server.stop(signal.SIGQUIT), server.start)


def around(served: Served, fault: Callable[[], None], end: Callable[[], None]) -> dict[str, Any]:
    """Send requests before, during and after a fault; return statuses, health latency and the state of the store."""

    async def timeline() -> tuple[LoadStats, list[float], float]:
        start = time.perf_counter()
        until = start + BEFORE + DURING + AFTER
        requests = asyncio.create_task(load(served.target, CLIENTS, until - start, with_bodies=True))
        health = asyncio.create_task(probed(served.target.host, served.target.port, BEFORE + DURING + AFTER))
        await asyncio.sleep(BEFORE)
        await asyncio.to_thread(fault)
        await asyncio.sleep(DURING)
        ended = time.perf_counter()
        await asyncio.to_thread(end)
        (stats, _), seconds = await requests, await health
        return stats, seconds, ended

    with served.running() as (process, _):
        stats, health, ended = asyncio.run(timeline())
        survived = process.poll() is None
    return {
        **served.stored(ids(stats)),
        "statuses": stats.statuses,
        "broken": stats.broken,
        "survived": survived,
        "back_after_s": stats.first(200, ended),
        "health_most_ms": 1000 * max(health),
    }


def ids(stats: LoadStats) -> set[str]:
    """Return the ids of all successful predictions."""
    return {each["id"] for body in stats.bodies for each in json.loads(body)["predictions"]}


def table() -> str:
    """One row per kind of fault, of the latest measurement."""
    row = rows(RESULTS_FILE)[-1]
    lines = [
        "| fault | responses by status | successes | missing in store | files without row | rows without file | recovery |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for name, key in (
        (f"SIGKILL, {row['kills']['n']} ×", "kills"),
        (f"full disk, {row['disk']['n']} ×", "disk"),
        (f"no database, {row['database']['n']} ×", "database"),
    ):
        each = row[key]
        if key == "kills":
            starts, imports = each["start_s"], each["import_s"]
            n_quick, packages = sum(s < QUICK_START for s in starts), np.median(imports)
            statuses = ""
            then = (
                f"{n_quick} of {len(starts)} starts within {QUICK_START:.0f} s; median {np.median(starts):.1f} s, of which "
                f"{packages:.1f} s imports packages; maximum {max(starts):.1f} s"
            )
        else:
            statuses = ", ".join(f"{n:,} × {status}" for status, n in each["statuses"].items())
            process = "same process" if each["survived"] else "the service has ended"
            health = f"/health/live at most {each['health_most_ms']:.0f} ms throughout"
            then = f"{process}, {each['back_after_s']:.1f} s after the fault ends; {health}"
        counts = " | ".join(f"{each[what]:,}" for what in COUNTS)
        lines.append(f"| {name} | {statuses} | {counts} | {then} |")
    note = f"Timed: the {len(row['kills']['start_s'])} starts and the one round of each fault with the least CPU steal."
    return "\n".join([*lines, "", f"{note} {provenance([row])}", ""])


if __name__ == "__main__":
    main()
