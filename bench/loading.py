"""HTTP load: clients that send requests without pause, in plain HTTP/1.1 so that they use little CPU time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

START_TIMEOUT = 300.0  # seconds


@dataclass
class LoadStats:
    """Seconds of each request by status, response bodies if requested, and the number of broken connections."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    broken: int = 0
    moments: list[tuple[float, int]] = field(default_factory=list)  # completion by time.perf_counter, and status

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
        """Return the seconds until the first response of a status after `since`; infinity if there is none."""
        return min(
            (moment - since for moment, each in self.moments if each == status and moment > since), default=float("inf")
        )

    @property
    def statuses(self) -> dict[str, int]:
        return dict(Counter({str(status): len(each) for status, each in sorted(self.seconds.items())}))

    def values(self, whole: float) -> dict[str, float]:
        """Return successful responses per second, and the median and the 99th percentile of their latency in ms."""
        good = np.array(self.seconds.get(200, [])) * 1000
        p50, p99 = np.percentile(good, [50, 99]).tolist() if len(good) else (float("nan"), float("nan"))
        return {"per_second": len(good) / whole, "p50_ms": p50, "p99_ms": p99}


@dataclass(frozen=True)
class Target:
    """Endpoint, API key and images of requests, the images in rotation."""

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
    target: Target, clients: int, seconds: float, *, with_bodies: bool = False, rate: float | None = None
) -> tuple[LoadStats, float]:
    """Send requests from `clients` connections, without pause or at `rate` per second; return statistics and seconds."""
    stats, start = LoadStats(), time.perf_counter()
    every = 0.0 if rate is None else clients / rate
    await asyncio.gather(*(_client(target, i, start + seconds, stats, with_bodies, every) for i in range(clients)))
    return stats, time.perf_counter() - start


async def once(target: Target, stats: LoadStats) -> None:
    """Send one request on a new connection."""
    start = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(target.request(0))
        status, _, _ = await _response(reader)
        writer.close()
    except (OSError, asyncio.IncompleteReadError):
        stats.broken += 1
    else:
        stats.add(status, time.perf_counter() - start)


async def _client(target: Target, first: int, until: float, stats: LoadStats, with_bodies: bool, every: float) -> None:
    i, writer = first * 7919, None
    due = time.perf_counter() + float(np.random.default_rng(i).uniform(0, every))  # spread the requests over time
    while True:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if (start := time.perf_counter()) >= until:
            break
        due = start + every
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection(target.host, target.port)
            writer.write(target.request(i))
            status, body, closes = await _response(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            stats.broken += 1
            writer = None
            await asyncio.sleep(0.05)
            continue
        stats.add(status, time.perf_counter() - start)
        if with_bodies and status == 200:
            stats.bodies.append(body)
        if closes:
            writer.close()
            writer = None
        if status == 503 and not every:
            await asyncio.sleep(0.05)  # sooner than Retry-After, or the load would not exceed the capacity
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
    """Return latencies of /health/live in seconds, measured by a separate process, because one with many clients is late."""
    words = [sys.executable, __file__, host, str(port), str(seconds)]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    stats, _ = await process.communicate()
    return [float(line) for line in stats.split()]


async def _probe(host: str, port: int, seconds: float, every: float = 0.05) -> None:
    """Print one latency per line."""
    until = time.perf_counter() + seconds
    while (start := time.perf_counter()) < until:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET /health/live HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await _response(reader)
        writer.close()
        print(time.perf_counter() - start)
        await asyncio.sleep(every)


@contextmanager
def running(words: Sequence[object], port: int, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Run a process that serves at a port; yield it and the seconds until it responded, and terminate it in the end."""
    start = time.perf_counter()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], stdout=file, stderr=file, start_new_session=True, env={**os.environ}
        )
    try:
        asyncio.run(_wait_until_ready(port, start + START_TIMEOUT, process))
        yield process, time.perf_counter() - start
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


async def _wait_until_ready(port: int, until: float, process: subprocess.Popen[bytes]) -> None:
    while time.perf_counter() < until:
        if process.poll() is not None:
            raise RuntimeError("the service has ended; see its log")
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            status, *_ = await _response(reader)
            writer.close()
            if status == 200:
                return
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)
    raise TimeoutError("the service does not respond")


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    """Return the anonymous memory of a process and its children in MB, shared pages counted once, mapped files excluded."""
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
