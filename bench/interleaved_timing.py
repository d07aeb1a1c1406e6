"""Interleaved timing on a shared machine: rounds are repeated until enough of them had little CPU steal.

The CPU steal that the system reports decides when a round starts and which rounds count, never the measurements themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

MAX_STEAL = 0.1  # CPU steal of a valid round
MAX_FACTOR = 3  # times the wanted rounds; then the rounds with the least CPU steal count
PROBE, PAUSE = 1.0, 4.0  # seconds of test work and between tests
PATIENCE = 300.0  # seconds until a round starts anyway
STAT = Path("/proc/stat")

T = TypeVar("T")


class StealMeter:
    """The fraction of requested CPU time that other virtual machines took since the creation of this object."""

    def __init__(self) -> None:
        self.start = _times()

    @property
    def cpu_steal(self) -> float:
        """CPU steal in [0, 1]; 0 where the system does not report it."""
        worked, stolen = (now - then for now, then in zip(_times(), self.start, strict=True))
        return stolen / max(1, worked + stolen)


@dataclass(frozen=True)
class Round(Generic[T]):
    """A result and the CPU steal during its measurement."""

    found: T
    cpu_steal: float

    @property
    def is_quiet(self) -> bool:
        return self.cpu_steal <= MAX_STEAL


def wait_until_idle() -> None:
    """Wait until the CPU steal is low, at most PATIENCE seconds."""
    X, until = np.ones((500, 500), np.float32), time.monotonic() + PATIENCE
    while time.monotonic() < until:
        meter, end = StealMeter(), time.monotonic() + PROBE
        while time.monotonic() < end:
            X @ X  # by as many threads as there are processors
        if meter.cpu_steal <= MAX_STEAL:
            return
        time.sleep(PAUSE)


def timed_round(work: Callable[[], T]) -> Round[T]:
    wait_until_idle()
    meter = StealMeter()
    return Round(work(), meter.cpu_steal)


def interleaved(kinds: Mapping[str, Callable[[], T]], n: int) -> dict[str, list[Round[T]]]:
    """Run the functions alternately until n rounds of each were valid; return all rounds."""
    rounds: dict[str, list[Round[T]]] = {name: [] for name in kinds}
    for _ in range(MAX_FACTOR * n):
        for name, work in kinds.items():
            if sum(each.is_quiet for each in rounds[name]) < n:
                rounds[name].append(timed_round(work))
    return rounds


def quietest(rounds: Sequence[Round[T]], n: int) -> list[Round[T]]:
    """Return the n rounds with the least CPU steal."""
    return sorted(rounds, key=lambda each: each.cpu_steal)[:n]


def _times() -> tuple[int, int]:
    """Return worked and stolen CPU ticks since boot."""
    if not STAT.exists():
        return 0, 0
    user, nice, system, _, _, irq, softirq, stolen = map(int, STAT.read_text().split()[1:9])
    return user + nice + system + irq + softirq, stolen
