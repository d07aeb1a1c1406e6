"""Throughput and latency of the service under load, against a plain FastAPI handler that calls the model.

    python bench/service.py MODEL $DATA/fashion-mnist --seconds 60 --minutes 10 --out /tmp/service

64 clients on the same machine send requests without pause; then requests arrive at four times the measured rate. Rounds
of ten seconds are repeated until enough of them had little CPU steal. Appends a line to bench/results/service.jsonl and
writes the table next to it.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from interleaved_timing import Round, interleaved, quietest
from loading import LoadStats, Target, load, memory_mb, probed, running
from results import RESULTS, append, arguments, environment, provenance, rows, write_table

from likely.data.loading import load_dataset
from likely.data.preprocessing import to_png
from likely.server.store import Scope, Store

RESULTS_FILE = RESULTS / "service.jsonl"
CLIENTS, N_IMAGES = 64, 2000
ROUND_SECONDS = 10.0
OVERLOAD = "4 times the rate"
QUEUE = 64  # images, of the overloaded service; four times as many clients
HERE = Path(__file__).parent


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("data", help="data set of the model, whose test images are sent")
    parser.add_argument("--seconds", type=float, default=60.0, help="timed seconds of each kind of load (default 60)")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="minutes of load during which memory is read (default 10)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for stores and logs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    labeled = load_dataset(args.data, splits=("test",)).splits["test"]
    images = [to_png(each) for each in labeled.images.batch(np.arange(min(N_IMAGES, len(labeled)))).numpy()]
    found = measured(args, images)
    append(RESULTS_FILE, {**environment(args.threads), "data": Path(args.data).stem, "seconds": args.seconds, **found})
    write_table(RESULTS_FILE, table())


def measured(args: argparse.Namespace, images: list[bytes]) -> dict[str, Any]:
    n = max(1, round(args.seconds / ROUND_SECONDS))
    serve = ["-m", "likely", "serve", args.model, "--threads", args.threads, "--rate-limit", 1e9]
    port = free_port()
    plain = [HERE / "plain_service.py", args.model, "--port", port, "--threads", args.threads]
    handler = Target("127.0.0.1", port, "/classify", "", images)
    with service(args.out / "store", serve, images) as (target, _, _), running(plain, port, args.out / "plain.log"):
        rounds = interleaved(
            {
                "one at a time": lambda: at(target, 1),
                "64 clients": lambda: at(target, CLIENTS),
                "plain handler, one at a time": lambda: at(handler, 1),
                "plain handler, 64 clients": lambda: at(handler, CLIENTS),
            },
            n,
        )
    rate = 4 * values(rounds["64 clients"], n)["per_second"]
    with service(args.out / "small", [*serve, "--max-queue", QUEUE], images) as (small, _, _):
        rounds |= interleaved({OVERLOAD: lambda: asyncio.run(overloaded(small, rate))}, n)
    found: dict[str, Any] = {name: values(each, n) for name, each in rounds.items()}
    found["cpu_steal"] = max(each["cpu_steal"] for each in found.values())
    with service(args.out / "long", serve, images) as (where, process, _):
        found["memory_mb"] = asyncio.run(over_time(where, process, args.minutes))
    return found


@contextmanager
def service(
    folder: Path, words: Sequence[object], images: Sequence[bytes]
) -> Iterator[tuple[Target, subprocess.Popen[bytes], float]]:
    """Run a service with a store of its own; yield the target with a key, the process, and the seconds of its start."""
    store = Store.open(folder)
    _, secret = store.keys.add("load", [Scope.CLASSIFY])
    store.close()
    port = free_port()
    with running([*words, "--store", folder, "--port", port], port, folder / "log") as (process, seconds):
        yield Target("127.0.0.1", port, "/v1/classify", secret, images), process, seconds


@dataclass(frozen=True)
class LoadResult:
    """Requests of a round, its seconds, and the latencies of /health/live meanwhile."""

    stats: LoadStats
    seconds: float
    health: Sequence[float] = ()


def at(where: Target, clients: int) -> LoadResult:
    """Send requests from a number of clients for one round."""
    return LoadResult(*asyncio.run(load(where, clients, ROUND_SECONDS)))


async def overloaded(where: Target, rate: float) -> LoadResult:
    """Send requests at a rate for one round, and probe /health/live meanwhile."""
    requests = load(where, 4 * QUEUE, ROUND_SECONDS, rate=rate)
    (stats, seconds), health = await asyncio.gather(requests, probed(where.host, where.port, ROUND_SECONDS))
    return LoadResult(stats, seconds, health)


def values(rounds: Sequence[Round[LoadResult]], n: int) -> dict[str, Any]:
    """Return throughput and latency of the n rounds with the least CPU steal, and the statuses of all rounds."""
    quiet, everything = quietest(rounds, n), LoadStats.together(each.found.stats for each in rounds)
    found = LoadStats.together(each.found.stats for each in quiet).values(sum(each.found.seconds for each in quiet))
    if health := [1000 * seconds for each in quiet for seconds in each.found.health]:
        found |= {"health_p99_ms": float(np.percentile(health, 99)), "health_most_ms": max(health)}
    counts = {"rounds": len(rounds), "counted": len(quiet), "cpu_steal": quiet[-1].cpu_steal}
    return {**found, **counts, "statuses": everything.statuses, "broken": everything.broken}


async def over_time(where: Target, process: subprocess.Popen[bytes], minutes: float) -> list[float]:
    """Return the memory after each minute of load, in MB."""
    found = []
    for _ in range(max(2, round(minutes))):
        await load(where, CLIENTS, 60.0 if minutes >= 2 else 60 * minutes / 2)
        found.append(round(memory_mb(process), 1))
    return found


def free_port() -> int:
    """Return a free TCP port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def table() -> str:
    """One row per kind of load, of the latest measurement."""
    found = rows(RESULTS_FILE)
    lines = [
        "| load | images/s | p50, ms | p99, ms | CPU steal, at most | responses by status, all rounds |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, each in found[-1].items():
        if isinstance(each, dict) and "per_second" in each:
            statuses = ", ".join(f"{n:,} × {status}" for status, n in each["statuses"].items())
            broken = f", {each['broken']} broken" if each["broken"] else ""
            lines.append(
                f"| {name} | {each['per_second']:.0f} | {each['p50_ms']:.1f} | {each['p99_ms']:.1f} | "
                f"{each['cpu_steal']:.0%} | {statuses}{broken} |"
            )
    last = found[-1]
    health, n_rounds = (
        last[OVERLOAD],
        [row["rounds"] for row in last.values() if isinstance(row, dict) and "rounds" in row],
    )
    notes = [
        f"/health/live under overload: p99 {health['health_p99_ms']:.0f} ms, maximum {health['health_most_ms']:.0f} ms.",
        f"Memory after each minute of 64 clients, MB: {', '.join(f'{mb:.0f}' for mb in last['memory_mb'])}.",
        f"Timed: the {health['counted']} rounds of {ROUND_SECONDS:.0f} seconds with the least CPU steal, of {min(n_rounds)} to "
        f"{max(n_rounds)}.",
        "Clients and service share two cores. " + provenance([last]),
    ]
    return "\n".join([*lines, "", *notes]) + "\n"


if __name__ == "__main__":
    main()
