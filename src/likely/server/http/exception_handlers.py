"""Exception handlers: each error becomes a JSON object with one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse, Response

from likely.exceptions import LikelyError, did_you_mean
from likely.server.http.batching import QueueFullError, ShuttingDownError
from likely.server.store import STORE_FAULTS

RETRY_AFTER = 5  # seconds until a client should retry


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    known = _query_parameters(request)
    return _problem(422, "; ".join(_message(each, known) for each in error.errors()))


async def _queue_full(request: Request, error: QueueFullError) -> JSONResponse:
    return _problem(503, str(error), math.ceil(error.seconds))


async def _user_error(request: Request, error: LikelyError) -> JSONResponse:
    return _problem(error.http_status, str(error))


async def _shutting_down(request: Request, error: ShuttingDownError) -> JSONResponse:
    return _problem(503, "the service is shutting down", RETRY_AFTER)


async def _store_failed(request: Request, error: Exception) -> JSONResponse:
    # The message of the database may contain an address or a password; only the log of the process gets it.
    request.app.state.log.error("store", exc_info=error)
    return _problem(503, "the store is unavailable, so there is no prediction", RETRY_AFTER)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    RequestValidationError: _invalid,
    QueueFullError: _queue_full,
    ShuttingDownError: _shutting_down,
    LikelyError: _user_error,
    **dict.fromkeys(STORE_FAULTS, _store_failed),
}


def _problem(status: int, detail: str, retry_after: int | None = None) -> JSONResponse:
    headers = None if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONResponse({"detail": detail}, status, headers=headers)


def _query_parameters(request: Request) -> list[str]:
    """Return the query parameters of the request's route."""
    routes = request.app.openapi()["paths"].get(request.scope["route"].path_format, {})
    parameters = routes.get(request.method.lower(), {}).get("parameters", [])
    return [each["name"] for each in parameters if each["in"] == "query"]


def _message(found: Mapping[str, Any], known: Sequence[str] = ()) -> str:
    """Return pydantic's error for one field as a sentence; for an unknown query parameter, name the nearest known one."""
    location: Sequence[Any] = [each for each in found["loc"] if each not in ("query", "body", "path")]
    if found["type"] == "extra_forbidden":
        return f"{'.'.join(map(str, location))} is unknown{did_you_mean(str(location[-1]), known)}"
    message = found["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return f"{'.'.join(map(str, location))} {message}" if location else message
