"""Turns: what is timed on a machine that others share is timed again, until enough of it was left alone.

When a turn begins, and which of them count, is chosen by what the system says others take of the machine, never by what was
measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

QUIET = 0.1  # of the time that the processors are wanted, which others may take of a turn that is left alone
MOST = 3  # times as many turns as were wanted, after which those that were disturbed least have to do
PROBE, PAUSE = 1.0, 4.0  # seconds of work, and between them, that tell whether a turn may begin
PATIENCE = 300.0  # seconds, after which it begins whatever others do
STAT = Path("/proc/stat")

T = TypeVar("T")


class Watch:
    """What share of the time that the processors were wanted went to others, since this was made: a virtual machine's steal."""

    def __init__(self) -> None:
        self.begun = _times()

    @property
    def taken(self) -> float:
        """0 where a system does not say."""
        worked, stolen = (now - then for now, then in zip(_times(), self.begun, strict=True))
        return stolen / max(1, worked + stolen)


@dataclass(frozen=True)
class Turn(Generic[T]):
    """What was found, and what share of the machine others took meanwhile."""

    found: T
    taken: float

    @property
    def is_quiet(self) -> bool:
        return self.taken <= QUIET


def settled() -> None:
    """Return once others leave the machine alone, or after a while."""
    X, until = np.ones((500, 500), np.float32), time.monotonic() + PATIENCE
    while time.monotonic() < until:
        watch, end = Watch(), time.monotonic() + PROBE
        while time.monotonic() < end:
            X @ X  # by as many threads as there are processors
        if watch.taken <= QUIET:
            return
        time.sleep(PAUSE)


def turn(work: Callable[[], T]) -> Turn[T]:
    settled()
    watch = Watch()
    return Turn(work(), watch.taken)


def in_turns(kinds: Mapping[str, Callable[[], T]], n: int) -> dict[str, list[Turn[T]]]:
    """All turns of works that are compared, one after the other, until n of each were left alone."""
    turns: dict[str, list[Turn[T]]] = {name: [] for name in kinds}
    for _ in range(MOST * n):
        for name, work in kinds.items():
            if sum(each.is_quiet for each in turns[name]) < n:
                turns[name].append(turn(work))
    return turns


def quietest(turns: Sequence[Turn[T]], n: int) -> list[Turn[T]]:
    """The n that were disturbed least."""
    return sorted(turns, key=lambda each: each.taken)[:n]


def _times() -> tuple[int, int]:
    """That the processors worked, and that they were wanted and others had them, since the system began, in ticks."""
    if not STAT.exists():
        return 0, 0
    user, nice, system, _, _, irq, softirq, stolen = map(int, STAT.read_text().split()[1:9])
    return user + nice + system + irq + softirq, stolen
