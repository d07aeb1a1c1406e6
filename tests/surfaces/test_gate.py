"""Requests with images that come together begin a few at a time, and whoever asks for little does not wait for them all."""

import asyncio
from itertools import chain

import pytest

pytest.importorskip("fastapi")

from likely.server.http.metrics import Metrics
from likely.server.http.middleware import AT_ONCE, RequestMiddleware

N = 5 * AT_ONCE


def scope(path, id):
    kind = {"type": "http", "method": "POST", "path": path, "client": ("127.0.0.1", 1)}
    return kind | {"headers": [(b"x-request-id", str(id).encode())]}


def begun(paths, *, gone=()):
    """What requests that come in one round of the loop are begun with: lists of their numbers, one for each round."""

    async def scenario():
        rounds = []

        async def app(scope, receive, send):
            rounds[-1].append(int(scope["state"]["request_id"]))

        async def receive():
            return {"type": "http.request"}

        async def send(message):
            pass

        async def count():
            while True:
                rounds.append([])
                await asyncio.sleep(0)

        gate = RequestMiddleware(
            app, metrics=Metrics(lambda: 0.0), max_bytes=1000, max_inside=1000, is_full=lambda: False
        )
        counting = asyncio.create_task(count())
        asked = [asyncio.create_task(gate(scope(path, i), receive, send)) for i, path in enumerate(paths)]
        await asyncio.sleep(0)
        for i in gone:
            asked[i].cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        counting.cancel()
        return rounds

    return asyncio.run(scenario())


def test_images_begin_a_few_at_a_time_in_the_order_in_which_they_came():
    rounds = begun(["/v1/classify"] * N)
    assert list(chain(*rounds)) == list(range(N))
    assert max(map(len, rounds)) <= AT_ONCE


def test_whoever_asks_for_little_does_not_wait_for_all_images():
    rounds = begun([*["/v1/classify"] * N, "/health/live"])
    assert N in rounds[0]
    assert len([each for each in rounds if each]) > 1


def test_those_who_have_gone_keep_nobody_waiting():
    gone = {0, AT_ONCE, AT_ONCE + 1, *range(2 * AT_ONCE, 3 * AT_ONCE)}
    rounds = begun(["/v1/classify"] * N, gone=gone)
    assert set(chain(*rounds)) >= set(range(N)) - gone
