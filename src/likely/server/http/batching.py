"""Batching: what is asked at the same time is answered together, and what cannot wait is refused at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """Too many wait already; `seconds` is when to come again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many images are waiting; come again in {seconds:.0f} s")
        self.seconds = seconds


class ShuttingDownError(Exception):
    """The service is about to stop and takes nothing more."""


@dataclass
class _Waiting(Generic[Job]):
    """A job, with whom to tell."""

    kind: Hashable
    job: Job
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    since: float = field(default_factory=time.monotonic)


# A job, and what came of it, or what went wrong.
_Found: TypeAlias = tuple[_Waiting[Any], Any, BaseException | None]


@dataclass(frozen=True)
class BatchStats:
    """What a batch was, for those who measure."""

    n: int
    waited: float


class Batcher(Generic[Job, Result]):
    """A thread that answers jobs of one kind together: up to `most` of them, after at most `wait` seconds, and of many a
    multiple of `step`, so that there are few sizes of batches; the others are the first of the next.

    `answer` takes jobs of one kind and gives a result each, or raises what all of them are then told.
    """

    def __init__(
        self,
        answer: Callable[[Hashable, Sequence[Job]], Sequence[Result]],
        *,
        most: int,
        wait: float,
        capacity: int,
        step: int = 1,
        on_batch: Callable[[BatchStats], None] = lambda batched: None,
    ) -> None:
        self.answer, self.most, self.wait, self.capacity, self.told = answer, most, wait, capacity, on_batch
        self.step = step
        self._queue: deque[_Waiting[Job]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._seconds_each = 0.0  # of late, for those who are sent away
        self._thread = threading.Thread(target=self._work, name="batching", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def submit(self, kind: Hashable, jobs: Sequence[Job]) -> list[Result]:
        """A result each. All jobs are taken or none: a FullError if they do not fit, a ClosingError after `close`."""
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(kind, job, loop.create_future(), loop) for job in jobs]
        with self._changed:
            if self._closing:
                raise ShuttingDownError
            if len(self._queue) + len(jobs) > self.capacity:
                raise QueueFullError(max(1.0, len(self._queue) * self._seconds_each))
            self._queue.extend(waiting)
            self._changed.notify()
        return list(await asyncio.gather(*(each.future for each in waiting)))

    def close(self) -> None:
        """Answer all who wait, and take nobody more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            begun = time.monotonic()
            try:
                results = self.answer(batch[0].kind, [each.job for each in batch])
            except Exception as error:  # whatever it is, those who wait are told, and the thread goes on
                _resolve([(each, None, error) for each in batch])
            else:
                _resolve([(each, result, None) for each, result in zip(batch, results, strict=True)])
            took = time.monotonic() - begun
            self._seconds_each = 0.9 * self._seconds_each + 0.1 * took / len(batch)
            self.told(BatchStats(len(batch), begun - batch[0].since))

    def _next(self) -> list[_Waiting[Job]]:
        """The jobs of the kind of the one that has waited longest; none when all is done."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return []
                self._changed.wait()
            until = self._queue[0].since + self.wait
            while len(self._queue) < self.most and not self._closing and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            kind = self._queue[0].kind
            n = self._whole(sum(each.kind == kind for each in self._queue))
            batch, rest = list[_Waiting[Job]](), deque[_Waiting[Job]]()
            for each in self._queue:
                (batch if each.kind == kind and len(batch) < n else rest).append(each)
            self._queue = rest
            return batch

    def _whole(self, n: int) -> int:
        """As many of n as a batch takes."""
        n = min(n, self.most)
        return n if n < self.step else n - n % self.step


def _resolve(found: list[_Found]) -> None:
    """Set the futures of a batch, in one callback for each event loop."""
    for loop in dict.fromkeys(waiting.loop for waiting, _, _ in found):
        loop.call_soon_threadsafe(_set_futures, [each for each in found if each[0].loop is loop])


def _set_futures(found: list[_Found]) -> None:
    for waiting, result, error in found:
        if waiting.future.done():  # canceled
            continue
        if error is None:
            waiting.future.set_result(result)
        else:
            waiting.future.set_exception(error)
