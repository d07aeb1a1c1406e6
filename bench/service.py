"""The service under load, beside one request at a time and beside a plain handler that calls the model directly.

    python bench/service.py MODEL $DATA/fashion-mnist --seconds 60 --minutes 10 --out /tmp/service

64 clients on this machine ask as fast as they are answered; then four times as much is asked as was answered. What is timed is
timed in rounds of ten seconds, until so many seconds were left alone by others that share the machine. Appends a line to
bench/results/service.jsonl and writes the table beside it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from interleaved_timing import Round, interleaved, quietest
from loading import Asked, LoadStats, load, memory_mb, probed, running
from results import RESULTS, append, arguments, environment, provenance, rows, write_table

from likely.data.loading import load_dataset
from likely.data.preprocessing import to_png
from likely.server.store import Scope, Store

RESULTS_FILE = RESULTS / "service.jsonl"
CLIENTS, N_IMAGES = 64, 2000
TURN = 10.0  # seconds
ABOVE = "4 times as much"
QUEUE = 64  # images of the service that is asked for four times as much, by four times as many clients
HERE = Path(__file__).parent


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=10.0, help="Of load, over which memory is looked at.")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    labeled = load_dataset(asked.data, splits=("test",)).splits["test"]
    images = [to_png(each) for each in labeled.images.batch(np.arange(min(N_IMAGES, len(labeled.images)))).numpy()]
    found = measured(asked, images)
    append(
        RESULTS_FILE, {**environment(asked.threads), "data": Path(asked.data).stem, "seconds": asked.seconds, **found}
    )
    write_table(RESULTS_FILE, table())


def measured(asked: Any, images: list[bytes]) -> dict[str, Any]:
    n = max(1, round(asked.seconds / TURN))
    serve = ["-m", "likely", "serve", asked.model, "--threads", asked.threads, "--rate-limit", 1e9]
    port = free_port()
    plain = [HERE / "plain_service.py", asked.model, "--port", port, "--threads", asked.threads]
    theirs = Asked("127.0.0.1", port, "/classify", "", images)
    with service(asked.out / "store", serve, images) as (ours, _, _), running(plain, port, asked.out / "plain.log"):
        rounds = interleaved(
            {
                "one at a time": lambda: at(ours, 1),
                "64 clients": lambda: at(ours, CLIENTS),
                "plain handler, one at a time": lambda: at(theirs, 1),
                "plain handler, 64 clients": lambda: at(theirs, CLIENTS),
            },
            n,
        )
    rate = 4 * values(rounds["64 clients"], n)["per_second"]
    with service(asked.out / "small", [*serve, "--max-queue", QUEUE], images) as (small, _, _):
        rounds |= interleaved({ABOVE: lambda: asyncio.run(above_capacity(small, rate))}, n)
    found: dict[str, Any] = {name: values(each, n) for name, each in rounds.items()}
    found["cpu_steal"] = max(each["cpu_steal"] for each in found.values())
    with service(asked.out / "long", serve, images) as (where, process, _):
        found["memory_mb"] = asyncio.run(over_time(where, process, asked.minutes))
    return found


def service(folder: Path, words: list[object], images: list[bytes]) -> Any:
    """A service with a store of its own, and a key."""
    from contextlib import contextmanager

    @contextmanager
    def begun() -> Any:
        store = Store.open(folder)
        _, secret = store.keys.add("load", [Scope.CLASSIFY])
        store.close()
        port = free_port()
        with running([*words, "--store", folder, "--port", port], port, folder / "log") as (process, seconds):
            yield Asked("127.0.0.1", port, "/v1/classify", secret, images), process, seconds

    return begun()


@dataclass(frozen=True)
class Asking:
    """What clients were stats in a round, in how many seconds, and how long health took meanwhile, if it was asked."""

    stats: LoadStats
    seconds: float
    health: Sequence[float] = ()


def at(where: Asked, clients: int) -> Asking:
    return Asking(*asyncio.run(load(where, clients, TURN)))


async def above_capacity(where: Asked, rate: float) -> Asking:
    asking = load(where, 4 * QUEUE, TURN, rate=rate)
    (stats, seconds), health = await asyncio.gather(asking, probed(where.host, where.port, TURN))
    return Asking(stats, seconds, health)


def values(rounds: Sequence[Round[Asking]], n: int) -> dict[str, Any]:
    """How fast the n rounds were that others disturbed least; what was answered in all of them."""
    least, everything = quietest(rounds, n), LoadStats.together(each.found.stats for each in rounds)
    found = LoadStats.together(each.found.stats for each in least).values(sum(each.found.seconds for each in least))
    if health := [1000 * seconds for each in least for seconds in each.found.health]:
        found |= {"health_p99_ms": float(np.percentile(health, 99)), "health_most_ms": max(health)}
    watched = {"rounds": len(rounds), "counted": len(least), "cpu_steal": least[-1].cpu_steal}
    return {**found, **watched, "statuses": everything.statuses, "broken": everything.broken}


async def over_time(where: Asked, process: Any, minutes: float) -> list[float]:
    """Once a minute, from the first on."""
    found = []
    for _ in range(max(2, round(minutes))):
        await load(where, CLIENTS, 60.0 if minutes >= 2 else 60 * minutes / 2)
        found.append(round(memory_mb(process), 1))
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def table() -> str:
    found = rows(RESULTS_FILE)
    lines = [
        "| asked by | images/s | p50, ms | p99, ms | others took of the machine | answers in all rounds by status |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, each in found[-1].items():
        if isinstance(each, dict) and "per_second" in each:
            statuses = ", ".join(f"{n:,} × {status}" for status, n in each["statuses"].items())
            broken = f", {each['broken']} broken" if each["broken"] else ""
            lines.append(
                f"| {name} | {each['per_second']:.0f} | {each['p50_ms']:.1f} | {each['p99_ms']:.1f} | "
                f"up to {each['cpu_steal']:.0%} | {statuses}{broken} |"
            )
    last = found[-1]
    health, n_turns = last[ABOVE], [row["rounds"] for row in last.values() if isinstance(row, dict) and "rounds" in row]
    said = [
        f"While four times as much is asked as was answered, health answers within "
        f"{health['health_p99_ms']:.0f} ms in 99 of 100 cases, "
        f"{health['health_most_ms']:.0f} ms at most.",
        f"Memory after each minute of 64 clients, MB: {', '.join(f'{mb:.0f}' for mb in last['memory_mb'])}.",
        f"Timed are those {health['counted']} rounds of {TURN:.0f} seconds, of {min(n_turns)} to {max(n_turns)}, that others "
        "disturbed least.",
        "Clients and service share two cores. " + provenance([last]),
    ]
    return "\n".join([*lines, "", *said]) + "\n"


if __name__ == "__main__":
    main()
