"""Faults: the service killed under load, again and again; a full disk; a database that goes and comes back.

    python bench/faults.py MODEL $DATA/fashion-mnist --kills 20 --out /tmp/faults --disk /tmp/small

/tmp/small is to be a disk of its own, of 16 to 512 MB, that may be filled: `mount -t tmpfs -o size=64m tmpfs /tmp/small`.
Every answer of success that a client has seen is looked for in the store afterwards. Faults are tried again until as many of
them as were asked for were left alone by others that share the machine. Appends a line to bench/results/faults.jsonl and writes
the table beside it.
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
from interleaved_timing import MOST, Round, StealMeter, interleaved, quietest, timed_round, wait_until_idle
from loading import Asked, LoadStats, load, probed, running
from results import RESULTS, append, arguments, environment, provenance, rows, write_table
from service import free_port
from sqlalchemy import select
from sqlalchemy.orm import Session

from likely.data.loading import load_dataset
from likely.data.preprocessing import to_png
from likely.server.store import PredictionFilter, Scope, Store
from likely.server.store.schema import ImageRow

sys.path.append(str(Path(__file__).parents[1] / "tests" / "server"))
from databases import postgresql  # the server that the tests have

PACKAGES = ("torch", "fastapi", "uvicorn", "sqlalchemy.orm", "PIL.Image")  # without which no service begins
RESULTS_FILE = RESULTS / "faults.jsonl"
CLIENTS, N_IMAGES = 16, 5000
ROOM = 4_000_000  # bytes that are left on the disk when its filling begins
LARGEST_DISK = 512_000_000  # bytes; a larger one is hardly meant to be filled
QUICK = 5.0  # seconds
COUNTS = ("answered", "lost", "orphans", "missing")
BEFORE, DURING, AFTER = 5.0, 10.0, 10.0  # seconds around a fault


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--disk", type=Path, required=True, help="A small disk of its own, that may be filled.")
    asked = parser.parse_args()
    if shutil.disk_usage(asked.disk).total > LARGEST_DISK:
        parser.error(
            f"--disk {asked.disk}: a disk of {LARGEST_DISK / 1e6:.0f} MB at most was expected; it will be filled"
        )
    labeled = load_dataset(asked.data, splits=("test",)).splits["test"]
    images = [to_png(each) for each in labeled.images.batch(np.arange(N_IMAGES)).numpy()]
    found = {
        "kills": killed(asked, images),
        "disk": repeated(lambda: with_full_disk(asked, images)),
        "database": repeated(lambda: without_database(asked, images)),
    }
    cpu_steal = max(each["cpu_steal"] for each in found.values())
    append(RESULTS_FILE, {**environment(asked.threads), **found, "cpu_steal": cpu_steal})
    write_table(RESULTS_FILE, table())


class Served:
    """A service to be, with a store of its own and a key to it."""

    def __init__(
        self, asked: argparse.Namespace, folder: Path, images: Sequence[bytes], url: str | None = None
    ) -> None:
        self.folder, self.url, port = folder, url, free_port()
        store = Store.open(folder, url)
        _, secret = store.keys.add("load", [Scope.CLASSIFY])
        store.close()
        self.words = ["-m", "likely", "serve", asked.model, "--store", folder, "--port", port, "--rate-limit", 1e9]
        self.words += ["--threads", asked.threads, *(["--database", url] if url else [])]
        self.asked = Asked("127.0.0.1", port, "/v1/classify", secret, images)
        self.log = asked.out / f"{folder.name}.log"

    def running(self) -> Any:
        return running(self.words, self.asked.port, self.log)

    def stored(self, answered: set[str]) -> dict[str, int]:
        """What of that is in the store once it was put in order, and whether images and rows belong together."""
        store = Store.open(self.folder, self.url, exclusive=True)
        there = {each.id for each in store.iterate(PredictionFilter())}
        with Session(store.engine) as session:
            known = set(session.scalars(select(ImageRow.sha256)))
        files = set(store.files)
        store.close()
        counts = (len(answered), len(answered - there), len(files - known), len(known - files))
        return dict(zip(COUNTS, counts, strict=True))


def killed(asked: argparse.Namespace, images: Sequence[bytes]) -> dict[str, Any]:
    """SIGKILL of the service and of all its processes wherever it hits, and what is in the store then; until so many starts
    were left alone."""
    rng, served = np.random.default_rng(0), Served(asked, asked.out / "killed", images)
    answered, worst = set[str](), dict[str, int]()
    starts, imports = list[Round[float]](), list[Round[float]]()
    while sum(each.is_quiet for each in starts) < asked.kills and len(starts) < MOST * asked.kills:
        wait_until_idle()
        meter = StealMeter()
        with served.running() as (process, seconds):
            starts.append(Round(seconds, meter.cpu_steal))
            after = float(rng.uniform(0.5, 3.0))
            threading.Timer(after, os.killpg, (process.pid, signal.SIGKILL)).start()
            stats, _ = asyncio.run(load(served.asked, CLIENTS, after + 0.5, keep=True))
            answered |= ids(stats)
            process.wait()
        now = served.stored(answered)
        worst = {name: max(n, worst.get(name, 0)) for name, n in now.items()}
        imports.append(timed_round(importing))  # alternating with the starts, because machines are noisy
        print(f"{now}, start {seconds:.1f} s, of which others took {starts[-1].cpu_steal:.0%}", flush=True)
    least = quietest(starts, asked.kills)
    return {
        "n": len(starts),
        **worst,
        "start_s": [each.found for each in least],
        "import_s": [each.found for each in quietest(imports, asked.kills)],
        "cpu_steal": least[-1].cpu_steal,
    }


def importing() -> float:
    """Seconds that the packages alone take which a service loads."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {', '.join(PACKAGES)}"], check=True)
    return time.perf_counter() - begun


def repeated(fault: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A fault until it was left alone: what was lost in all rounds, and how long things took in the one disturbed least."""
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


def with_full_disk(asked: argparse.Namespace, images: Sequence[bytes]) -> dict[str, Any]:
    """A store on a disk that is full after a while and has room again later."""
    ballast, served = asked.disk / "ballast", Served(asked, asked.disk / "full", images)
    try:
        return around(served, lambda: fill(ballast), ballast.unlink)
    finally:
        ballast.unlink(missing_ok=True)
        shutil.rmtree(served.folder, ignore_errors=True)


def fill(path: Path) -> None:
    """All of a disk but a little, which goes by itself."""
    with path.open("wb") as file:
        for _ in range(max(0, shutil.disk_usage(path.parent).free - ROOM) // 100_000):
            file.write(bytes(100_000))


def without_database(asked: argparse.Namespace, images: Sequence[bytes]) -> dict[str, Any]:
    """A PostgreSQL server that ends as in a crash and is begun again."""
    folder = asked.out / "database"
    shutil.rmtree(folder, ignore_errors=True)  # files of a database before
    with postgresql() as server:
        served = Served(asked, folder, images, server.created("likely"))
        return around(served, lambda: server.stop(signal.SIGQUIT), server.start)


def around(served: Served, fault: Callable[[], None], end: Callable[[], None]) -> dict[str, Any]:
    """What clients and health say before, during and after a fault, and what is in the store then."""

    async def course() -> tuple[LoadStats, list[float], float]:
        begun = time.perf_counter()
        until = begun + BEFORE + DURING + AFTER
        asking = asyncio.create_task(load(served.asked, CLIENTS, until - begun, keep=True))
        health = asyncio.create_task(probed(served.asked.host, served.asked.port, BEFORE + DURING + AFTER))
        await asyncio.sleep(BEFORE)
        await asyncio.to_thread(fault)
        await asyncio.sleep(DURING)
        ended = time.perf_counter()
        await asyncio.to_thread(end)
        (stats, _), seconds = await asking, await health
        return stats, seconds, ended

    with served.running() as (process, _):
        stats, health, ended = asyncio.run(course())
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
    """Under which the answers of success are to be in the store."""
    return {answer["id"] for body in stats.bodies for answer in json.loads(body)["answers"]}


def table() -> str:
    row = rows(RESULTS_FILE)[-1]
    lines = [
        "| fault | answers by status | successes | not in the store | files without a row | rows without a file | then |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for name, key in (
        (f"killed {row['kills']['n']} times", "kills"),
        (f"a full disk, {row['disk']['n']} ×", "disk"),
        (f"no database, {row['database']['n']} ×", "database"),
    ):
        each = row[key]
        if key == "kills":
            starts, imports = each["start_s"], each["import_s"]
            n_quick, packages = sum(s < QUICK for s in starts), np.median(imports)
            statuses = ""
            then = (
                f"{n_quick} of {len(starts)} starts within {QUICK:.0f} s, all within {max(starts):.1f} s, half within "
                f"{np.median(starts):.1f} s, of which to load torch and other packages takes {packages:.1f} s"
            )
        else:
            statuses = ", ".join(f"{n:,} × {status}" for status, n in each["statuses"].items())
            lived = "the same process" if each["survived"] else "the service is gone"
            health = f"health within {each['health_most_ms']:.0f} ms all along"
            then = f"{lived} answers {each['back_after_s']:.1f} s after; {health}"
        counts = " | ".join(f"{each[what]:,}" for what in COUNTS)
        lines.append(f"| {name} | {statuses} | {counts} | {then} |")
    note = f"Timed are the {len(row['kills']['start_s'])} starts and the one round of each fault that others disturbed least."
    return "\n".join([*lines, "", f"{note} {provenance([row])}", ""])


if __name__ == "__main__":
    main()
