"""Dynamic batching: requests that arrive together run together, and requests beyond the queue's capacity are refused."""

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
    """Too many queued images; `seconds` suggests when to retry."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the queue is full; retry after {seconds:.0f} s")
        self.seconds = seconds


class ShuttingDownError(Exception):
    """The service is shutting down and accepts no further requests."""


@dataclass
class _Waiting(Generic[Job]):
    """Queued job with the future of its result."""

    kind: Hashable
    job: Job
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    since: float = field(default_factory=time.monotonic)


# A job with its result or its error.
_Outcome: TypeAlias = tuple[_Waiting[Any], Any, BaseException | None]


@dataclass(frozen=True)
class BatchStats:
    """Size of a batch and how long its first job waited, in seconds."""

    n: int
    wait: float


class Batcher(Generic[Job, Result]):
    """Thread that processes jobs of one kind in batches.

    A batch holds up to `max_batch` jobs, starts after at most `wait` seconds, and large batches are a multiple of `step`,
    so that there are few different batch sizes; the remaining jobs come first in the next batch. `process` maps jobs of
    one kind to one result each, or raises an exception that all of them receive.
    """

    def __init__(
        self,
        process: Callable[[Hashable, Sequence[Job]], Sequence[Result]],
        *,
        max_batch: int,
        wait: float,
        capacity: int,
        step: int = 1,
        on_batch: Callable[[BatchStats], None] = lambda batched: None,
    ) -> None:
        self.process, self.max_batch, self.wait, self.capacity, self.on_batch = (
            process,
            max_batch,
            wait,
            capacity,
            on_batch,
        )
        self.step = step
        self._queue: deque[_Waiting[Job]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._seconds_each = 0.0  # moving average, for the Retry-After of refused requests
        self._thread = threading.Thread(target=self._work, name="batching", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Number of queued jobs."""
        return len(self._queue)

    async def submit(self, kind: Hashable, jobs: Sequence[Job]) -> list[Result]:
        """Return one result per job. All jobs are queued or none.

        Raises QueueFullError if they do not fit and ShuttingDownError after `close`.
        """
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
        """Complete all queued jobs and accept no more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            begun = time.monotonic()
            try:
                results = self.process(batch[0].kind, [each.job for each in batch])
            except Exception as error:  # all jobs of the batch receive it, and the thread continues
                _resolve([(each, None, error) for each in batch])
            else:
                _resolve([(each, result, None) for each, result in zip(batch, results, strict=True)])
            took = time.monotonic() - begun
            self._seconds_each = 0.9 * self._seconds_each + 0.1 * took / len(batch)
            self.on_batch(BatchStats(len(batch), begun - batch[0].since))

    def _next(self) -> list[_Waiting[Job]]:
        """Return the jobs of the same kind as the oldest one; an empty list after `close`."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return []
                self._changed.wait()
            until = self._queue[0].since + self.wait
            while len(self._queue) < self.max_batch and not self._closing and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            kind = self._queue[0].kind
            n = self._whole(sum(each.kind == kind for each in self._queue))
            batch, rest = list[_Waiting[Job]](), deque[_Waiting[Job]]()
            for each in self._queue:
                (batch if each.kind == kind and len(batch) < n else rest).append(each)
            self._queue = rest
            return batch

    def _whole(self, n: int) -> int:
        """Return the batch size for n queued jobs."""
        n = min(n, self.max_batch)
        return n if n < self.step else n - n % self.step


def _resolve(found: list[_Outcome]) -> None:
    """Resolve the futures of a batch, with one callback per event loop."""
    for loop in dict.fromkeys(waiting.loop for waiting, _, _ in found):
        loop.call_soon_threadsafe(_set_futures, [each for each in found if each[0].loop is loop])


def _set_futures(found: list[_Outcome]) -> None:
    for waiting, result, error in found:
        if waiting.future.done():  # canceled
            continue
        if error is None:
            waiting.future.set_result(result)
        else:
            waiting.future.set_exception(error)
