"""Authentication by API key or browser session, authorization by scope, and rate limits."""

from __future__ import annotations

import asyncio
import hmac
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from fastapi import HTTPException, Request

from likely.server.store import Key, Scope, Store
from likely.server.store.keys import hash_secret

COOKIE, CSRF = "likely_session", "X-CSRF-Token"
SAFE = ("GET", "HEAD", "OPTIONS")
BURST_SECONDS = 10.0  # a key may use this many seconds of its rate at once
MAX_KEYS = 10_000  # in the cache and in a token bucket
CACHE_SECONDS = 1.0  # seconds for which the owner of a secret is cached
N_THREADS = 4  # threads that query the store

_Name: TypeAlias = tuple[str, str]  # kind and hash of a secret: a session is not accepted as a key


@dataclass(frozen=True)
class Principal:
    """Authenticated requester; `csrf` is the token that a browser must send beside its cookie for any change."""

    key: Key
    address: str
    csrf: str | None = None

    def require(self, scope: Scope) -> None:
        """Raise HTTPException 403 unless the key has the scope."""
        if not self.key.may(scope):
            scopes = ", ".join(sorted(self.key.scopes)) or "none"
            raise HTTPException(403, f"the key {self.key.id} has the scopes {scopes}; {scope.value} is required")


class CredentialCache:
    """Cache of API keys and sessions, refreshed from the store once a second.

    Concurrent look-ups of one secret share a single query. A key revoked by another process stops working within a second,
    one revoked here at once.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._found: OrderedDict[_Name, tuple[Key, float]] = OrderedDict()  # key and expiry of the entry
        self._asking: dict[_Name, Future[Key | None]] = {}
        self._n_forgotten = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(N_THREADS, "keys")

    async def find_key(self, secret: str) -> Key | None:
        """Return the key with this secret, or None."""
        return await self._look_up("key", secret, self.store.keys.find)

    async def find_session(self, session: str) -> Key | None:
        """Return the key that opened the session, or None."""
        return await self._look_up("session", session, self.store.keys.find_session)

    def forget(self) -> None:
        """Clear the cache."""
        with self._lock:
            self._found.clear()
            self._asking.clear()
            self._n_forgotten += 1

    async def _look_up(self, kind: str, secret: str, ask: Callable[[str], Key | None]) -> Key | None:
        name = kind, hash_secret(secret)
        with self._lock:
            key, until = self._found.get(name, (None, 0.0))
            if time.monotonic() < until:
                return key
            asking = self._asking.get(name)
            if asking is None:
                asking = self._threads.submit(self._query, name, self._n_forgotten, partial(ask, secret))
                self._asking[name] = asking
        return await asyncio.shield(asyncio.wrap_future(asking))  # canceling one request does not cancel the others

    def _query(self, name: _Name, n_forgotten: int, ask: Callable[[], Key | None]) -> Key | None:
        key = None
        try:
            key = ask()
        finally:
            with self._lock:
                if self._n_forgotten == n_forgotten:  # otherwise the key may have been revoked since the query
                    del self._asking[name]
                    if key is not None:  # unknown secrets are not cached
                        self._found[name] = key, time.monotonic() + CACHE_SECONDS
                    if len(self._found) > MAX_KEYS:
                        self._found.popitem(last=False)
        return key


def csrf_token(session: str) -> str:
    """Return the CSRF token of a session: other sites can make a browser send the cookie but cannot read this token."""
    return hash_secret(f"csrf:{session}")


async def authenticate(credentials: CredentialCache, request: Request) -> Principal:
    """Return the requester; raise HTTPException 401 for unknown credentials and 403 for a missing CSRF token."""
    if secret := _secret_of(request):
        return Principal(_valid(await credentials.find_key(secret)), address_of(request))
    session = request.cookies.get(COOKIE)
    if session is None:
        raise unauthorized("an API key is required: Authorization: Bearer lk_…")
    key, csrf = _valid(await credentials.find_session(session)), csrf_token(session)
    if request.method not in SAFE and not hmac.compare_digest(request.headers.get(CSRF, "").encode(), csrf.encode()):
        raise HTTPException(403, f"a request with a session cookie also needs the header {CSRF}")
    return Principal(key, address_of(request), csrf)


def address_of(request: Request) -> str:
    """Return the client's address."""
    return request.client.host if request.client is not None else ""


def unauthorized(message: str) -> HTTPException:
    """Return HTTPException 401 with the required WWW-Authenticate header."""
    return HTTPException(401, message, headers={"WWW-Authenticate": "Bearer"})


def _secret_of(request: Request) -> str | None:
    header = re.fullmatch(r"Bearer\s+(\S+)", request.headers.get("Authorization", ""), re.IGNORECASE)
    return header[1] if header else request.headers.get("X-API-Key")


def _valid(key: Key | None) -> Key:
    if key is None:
        raise unauthorized("there is no such key")
    if key.invalid_reason is not None:
        raise unauthorized(key.invalid_reason)
    return key


class TokenBucket:
    """Token bucket for each key or address: refills at `rate` per second, up to ten seconds' worth."""

    def __init__(self, rate: float) -> None:
        self.rate, self.capacity = rate, max(1.0, rate * BURST_SECONDS)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, and when they were counted
        self._lock = threading.Lock()

    def take(self, key: str, n: int) -> None:
        """Take n tokens; raise HTTPException 429 if too few are left."""
        now = time.monotonic()
        with self._lock:
            left, then = self._buckets.pop(key, (self.capacity, now))
            left = min(self.capacity, left + (now - then) * self.rate)
            enough = left >= min(n, self.capacity)
            self._buckets[key] = (left - n if enough else left, now)
            if len(self._buckets) > MAX_KEYS:
                self._buckets.popitem(last=False)
        if not enough:
            seconds = math.ceil((min(n, self.capacity) - left) / self.rate)
            limit = f"the rate limit of {self.rate:g} per second is exceeded; retry after {seconds} s"
            raise HTTPException(429, limit, headers={"Retry-After": str(seconds)})
