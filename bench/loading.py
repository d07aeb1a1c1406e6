"""Load: clients that ask a service as fast as it answers, over HTTP/1.1 by hand, so that they take little of the processor."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

STARTING = 300.0  # seconds


@dataclass
class LoadStats:
    """What clients were answered: seconds of each request by its status, and what the answers were if they are kept."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    broken: int = 0
    moments: list[tuple[float, int]] = field(default_factory=list)  # when, by the clock of this process, and the status

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)
        self.moments.append((time.perf_counter(), status))

    @classmethod
    def together(cls, all_stats: Iterable[LoadStats]) -> LoadStats:
        """Combine statistics of several periods."""
        whole = cls()
        for one in all_stats:
            for status, seconds in one.seconds.items():
                whole.seconds.setdefault(status, []).extend(seconds)
            whole.bodies += one.bodies
            whole.broken += one.broken
            whole.moments += one.moments
        return whole

    def first(self, status: int, since: float) -> float:
        """Seconds from then until the first answer of that status; infinity if there is none."""
        return min(
            (moment - since for moment, each in self.moments if each == status and moment > since), default=float("inf")
        )

    @property
    def statuses(self) -> dict[str, int]:
        return dict(Counter({str(status): len(each) for status, each in sorted(self.seconds.items())}))

    def values(self, whole: float) -> dict[str, float]:
        """Of the answers of success: how many a second, and how long half and 99 of 100 took at most, in ms."""
        good = np.array(self.seconds.get(200, [])) * 1000
        p50, p99 = np.percentile(good, [50, 99]).tolist() if len(good) else (float("nan"), float("nan"))
        return {"per_second": len(good) / whole, "p50_ms": p50, "p99_ms": p99}


@dataclass(frozen=True)
class Asked:
    """Requests that are the same but for their image: where, with which key, and the images as they are in round."""

    host: str
    port: int
    path: str
    key: str
    images: Sequence[bytes]

    def request(self, i: int) -> bytes:
        image = self.images[i % len(self.images)]
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
        )
        return head.encode() + image


async def load(
    asked: Asked, clients: int, seconds: float, *, keep: bool = False, rate: float | None = None
) -> tuple[LoadStats, float]:
    """So many clients at a time, each asking again as soon as it is answered, or all together at a `rate`, requests a second,
    as far as they are answered in time; and the seconds that this took."""
    stats, begun = LoadStats(), time.perf_counter()
    every = 0.0 if rate is None else clients / rate
    await asyncio.gather(*(_client(asked, i, begun + seconds, stats, keep, every) for i in range(clients)))
    return stats, time.perf_counter() - begun


async def once(asked: Asked, stats: LoadStats) -> None:
    """One request on a connection of its own."""
    start = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(asked.host, asked.port)
        writer.write(asked.request(0))
        status, _, _ = await _response(reader)
        writer.close()
    except (OSError, asyncio.IncompleteReadError):
        stats.broken += 1
    else:
        stats.add(status, time.perf_counter() - start)


async def _client(asked: Asked, first: int, until: float, stats: LoadStats, keep: bool, every: float) -> None:
    i, writer = first * 7919, None
    due = time.perf_counter() + float(
        np.random.default_rng(i).uniform(0, every)
    )  # clients at a rate do not come together
    while True:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if (start := time.perf_counter()) >= until:
            break
        due = start + every
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection(asked.host, asked.port)
            writer.write(asked.request(i))
            status, body, closes = await _response(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            stats.broken += 1
            writer = None
            await asyncio.sleep(0.05)
            continue
        stats.add(status, time.perf_counter() - start)
        if keep and status == 200:
            stats.bodies.append(body)
        if closes:
            writer.close()
            writer = None
        if status == 503 and not every:
            await asyncio.sleep(0.05)  # sooner than asked, or nothing would be above capacity
        i += 1
    if writer is not None:
        writer.close()


async def _response(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = int(head.split(" ", 2)[1])
    headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return status, body, headers.get("connection") == "close"


async def probed(host: str, port: int, seconds: float) -> list[float]:
    """How long /health/live takes, again and again, seconds: asked by a process of its own, for one that keeps hundreds of
    clients busy is late itself."""
    words = [sys.executable, __file__, host, str(port), str(seconds)]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    stats, _ = await process.communicate()
    return [float(line) for line in stats.split()]


async def _probe(host: str, port: int, seconds: float, every: float = 0.05) -> None:
    """Write a line for each time."""
    until = time.perf_counter() + seconds
    while (start := time.perf_counter()) < until:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET /health/live HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await _response(reader)
        writer.close()
        print(time.perf_counter() - start)
        await asyncio.sleep(every)


@contextmanager
def running(words: Sequence[object], port: int, log: Path):
    """A process that answers at a port; killed in the end unless it has ended by itself. And the seconds until it answered."""
    begun = time.perf_counter()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], stdout=file, stderr=file, start_new_session=True, env={**os.environ}
        )
    try:
        asyncio.run(_answers(port, begun + STARTING, process))
        yield process, time.perf_counter() - begun
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


async def _answers(port: int, until: float, process: subprocess.Popen) -> None:
    while time.perf_counter() < until:
        if process.poll() is not None:
            raise RuntimeError("the service has ended; its log says why")
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            status, *_ = await _response(reader)
            writer.close()
            if status == 200:
                return
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)
    raise TimeoutError("the service does not answer")


def memory_mb(process: subprocess.Popen) -> float:
    """What a process and its children hold of their own, MB, beside the files that they map, as libraries are; what they
    share is counted once."""
    total, waiting = 0, [process.pid]
    while waiting:
        pid = waiting.pop()
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss_Anon:"):
                    total += int(line.split()[1])
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            continue
    return total / 1024


if __name__ == "__main__" and len(sys.argv) == 4:
    asyncio.run(_probe(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
