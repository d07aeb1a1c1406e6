"""Middleware around every request: request id, access log, metrics, security headers and size limits."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likely.server.http.metrics import Metrics

REQUEST_ID = "X-Request-ID"
LOG = logging.getLogger("likely.requests")
IMAGES = re.compile(r"/v1/(classify|explain|models/[^/]+/classes)|/v2/models/.+/infer")  # routes that take images
MAX_SMALL_BODY = 1_000_000  # bytes of a request to any other route
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "manifest-src 'self'; media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
RAW_REQUEST_ID = REQUEST_ID.lower().encode()
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
RETRY_AFTER = 1  # seconds until an overloaded client should retry


class PayloadTooLargeError(Exception):
    """A request exceeds the size limit."""


class OverloadedError(Exception):
    """The service is temporarily out of capacity."""


@dataclass
class _InflightBytes:
    """Total bytes of all requests in flight."""

    most: int
    n: int = 0


class _Body:
    """Request body that counts its bytes while they arrive."""

    def __init__(self, receive: Receive, most: int, inside: _InflightBytes) -> None:
        self._receive, self.limit, self.inside, self.n = receive, most, inside, 0

    async def receive(self) -> Message:
        """Return the next ASGI message; raise PayloadTooLargeError or OverloadedError beyond a limit."""
        message = await self._receive()
        n = len(message.get("body", b""))
        self.n += n
        self.inside.n += n
        if self.n > self.limit:
            raise PayloadTooLargeError
        if self.inside.n > self.inside.most:
            raise OverloadedError(f"the requests in flight exceed {self.inside.most / 1e6:.0f} MB in total")
        return message

    def release(self) -> None:
        """Release the bytes of a finished request."""
        self.inside.n -= self.n


class _Response:
    """Response that records its status and adds the standard headers."""

    def __init__(self, send: Send, id: str) -> None:
        self._send, self.id, self.status = send, id, 500

    async def send(self, message: Message) -> None:
        """Send an ASGI message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.get("headers", ())
            there = {name for name, _ in headers}
            ours = (pair for pair in RAW_HEADERS if pair[0] not in there)
            message["headers"] = [*headers, (RAW_REQUEST_ID, self.id.encode()), *ours]
        await self._send(message)


def _no_room(sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, 503, {"Retry-After": str(RETRY_AFTER)})


QUEUE_FULL = _no_room("the queue is full; retry after a second")  # built once, because it is sent often


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, max_bytes: int, max_inside: int, is_full: Callable[[], bool]
    ) -> None:
        """Allow `max_bytes` per request on routes that take images and a small body elsewhere, `max_inside` bytes over all
        requests in flight, and no images while `is_full` returns True.

        The check comes first because refusing a request has to cost less than serving it.
        """
        self.app, self.metrics, self.max_bytes, self.is_full = app, metrics, max_bytes, is_full
        self.inside = _InflightBytes(max_inside)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id = scope.setdefault("state", {})["request_id"] = _id_of(scope)
        start, response = time.monotonic(), _Response(send, id)
        takes_images = IMAGES.fullmatch(scope["path"]) is not None
        most = self.max_bytes if takes_images else MAX_SMALL_BODY
        body = _Body(receive, most, self.inside)
        try:
            if _content_length(scope) > most:
                raise PayloadTooLargeError
            if takes_images and self.is_full():
                await QUEUE_FULL(scope, receive, response.send)
            else:
                await self.app(scope, body.receive, response.send)
        except OverloadedError as busy:
            await _no_room(str(busy))(scope, receive, response.send)
        except PayloadTooLargeError:
            detail = f"the request exceeds {most / 1e6:.0f} MB"
            await JSONResponse({"detail": detail}, 413)(scope, receive, response.send)
        except Exception:
            LOG.exception("internal error", extra={"fields": {"request": id}})
            await JSONResponse({"detail": f"internal error; see request {id} in the log"}, 500)(
                scope, receive, response.send
            )
        finally:
            body.release()
            seconds = time.monotonic() - start
            route = _route_of(scope)
            method = scope["method"] if scope["method"] in METHODS else "other"  # clients may invent methods
            self.metrics.request(method, route, response.status, seconds)
            LOG.info("request", extra={"fields": _fields(scope, id, route, response.status, seconds)})


class JsonFormatter(logging.Formatter):
    """Log formatter that writes one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
        }
        line |= {"message": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _fields(scope: Scope, id: str, route: str, status: int, seconds: float) -> dict[str, Any]:
    """Return the fields of an access log line; nothing from the client except the method, since secrets may be in headers
    and queries.
    """
    client = scope.get("client") or ("", 0)
    key = scope.get("state", {}).get("key")
    return {
        "request": id,
        "method": scope["method"],
        "route": route,
        "status": status,
        "ms": round(1000 * seconds, 2),
        "address": client[0],
        "key": key,
    }


def _route_of(scope: Scope) -> str:
    """Return the route's pattern instead of the path, which would have unbounded cardinality."""
    return str(getattr(scope.get("route"), "path", "other"))


def _id_of(scope: Scope) -> str:
    """Return the client's request id if it is safe to log, otherwise a new one."""
    for name, value in scope["headers"]:
        if name == RAW_REQUEST_ID and re.fullmatch(rb"[\w.:-]{1,64}", value):
            return str(value.decode("ascii"))
    return uuid.uuid4().hex


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
