"""Batching: each job gets its own result, and jobs beyond the capacity are refused at once."""

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likely.server.http.batching import Batcher, BatchStats, QueueFullError, ShuttingDownError


@pytest.fixture
def batchers():
    made = []

    def make(answer=lambda kind, jobs: [(kind, job) for job in jobs], *, most=4, wait=0.01, capacity=64, **how):
        made.append(Batcher(answer, max_batch=most, wait=wait, capacity=capacity, **how))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_each_job_gets_its_own_result(batchers):
    batcher = batchers()

    async def ask():
        return await asyncio.gather(*(batcher.submit(i % 3, [i, -i]) for i in range(30)))

    assert asyncio.run(ask()) == [[(i % 3, i), (i % 3, -i)] for i in range(30)]


def test_batches_hold_one_kind_up_to_the_maximum_size(batchers):
    seen, batches = [], []
    slow = threading.Event()

    def answer(kind, jobs):
        slow.wait(1)
        seen.append((kind, jobs))
        return jobs

    batcher = batchers(answer, most=4, on_batch=batches.append)

    async def ask():
        work = [asyncio.create_task(batcher.submit(i % 2, [(i % 2, i)])) for i in range(20)]
        await asyncio.sleep(0.05)
        slow.set()
        await asyncio.gather(*work)

    asyncio.run(ask())
    assert all(job[0] == kind for kind, jobs in seen for job in jobs)
    assert max(len(jobs) for _, jobs in seen) == 4
    assert sum(batched.n for batched in batches) == 20
    assert all(isinstance(each, BatchStats) and each.wait >= 0 for each in batches)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 40))
def test_large_batches_are_multiples_of_the_step(sizes, step, most):
    batches, free = [], threading.Event()
    batcher = Batcher(
        lambda kind, jobs: [free.wait() and job for job in jobs],
        max_batch=most,
        wait=0,
        capacity=999,
        step=step,
        on_batch=batches.append,
    )

    async def ask():
        work = [asyncio.create_task(batcher.submit(None, list(range(n)))) for n in sizes]
        await asyncio.sleep(0)
        free.set()
        return await asyncio.gather(*work)

    assert asyncio.run(ask()) == [list(range(n)) for n in sizes]
    batcher.close()
    assert sum(batched.n for batched in batches) == sum(sizes)
    assert all(batched.n < step or batched.n % step == 0 for batched in batches)
    assert all(batched.n <= most for batched in batches)


def test_full_queue_raises_with_seconds_to_retry(batchers):
    go = threading.Event()
    batcher = batchers(lambda kind, jobs: [go.wait(5) for _ in jobs], most=1, wait=0, capacity=3)

    async def ask():
        first = asyncio.create_task(batcher.submit("a", [1]))
        await asyncio.sleep(0.05)  # now it is being answered
        waiting = asyncio.create_task(batcher.submit("a", [2, 3]))
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError) as full:
            await batcher.submit("a", [4, 5])
        assert full.value.seconds >= 1
        go.set()
        return await first + await waiting

    assert asyncio.run(ask()) == [True, True, True]


def test_failing_batch_leaves_others_unaffected(batchers):
    def answer(kind, jobs):
        if kind == "bad":
            raise ArithmeticError("no")
        return jobs

    batcher = batchers(answer)

    async def ask():
        with pytest.raises(ArithmeticError):
            await batcher.submit("bad", [1])
        return await batcher.submit("good", [2])

    assert asyncio.run(ask()) == [2]


def test_close_completes_queued_jobs_and_refuses_new_ones(batchers):
    batcher = batchers(lambda kind, jobs: [time.sleep(0.01) or job for job in jobs], most=1, wait=0)

    async def ask():
        work = asyncio.create_task(batcher.submit("a", list(range(5))))
        await asyncio.sleep(0)
        await asyncio.to_thread(batcher.close)
        with pytest.raises(ShuttingDownError):
            await batcher.submit("a", [1])
        return await work

    assert asyncio.run(ask()) == list(range(5))


def test_canceled_job_does_not_block_others(batchers):
    batcher = batchers(lambda kind, jobs: [time.sleep(0.02) or job for job in jobs])

    async def ask():
        gone = asyncio.create_task(batcher.submit("a", [1]))
        await asyncio.sleep(0.001)
        gone.cancel()
        return await batcher.submit("a", [2])

    assert asyncio.run(ask()) == [2]
