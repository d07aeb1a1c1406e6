"""Exception handlers: each error becomes a JSON object with one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse

from likely.data.suggestions import did_you_mean
from likely.exceptions import LikelyError
from likely.server.http.batching import QueueFullError, ShuttingDownError
from likely.server.store import STORE_FAULTS

RETRY_AFTER = 5  # after which a store that cannot be written may be tried again


def install_exception_handlers(app: FastAPI) -> None:
    """Register the exception handlers."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(QueueFullError, _queue_full)
    app.add_exception_handler(ShuttingDownError, _shutting_down)
    app.add_exception_handler(LikelyError, _user_error)
    for kind in STORE_FAULTS:
        app.add_exception_handler(kind, _store_failed)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    known = _query_words(request)
    return _problem(422, "; ".join(validation_message(each, known) for each in error.errors()))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException | StarletteHTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


async def _queue_full(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, QueueFullError)
    return _problem(503, str(error), math.ceil(error.seconds))


async def _user_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LikelyError)
    return _problem(error.http_status, str(error))


async def _shutting_down(request: Request, error: Exception) -> JSONResponse:
    return _problem(503, "the service is about to stop", RETRY_AFTER)


async def _store_failed(request: Request, error: Exception) -> JSONResponse:
    # What the database said may hold an address or a password; the log of the process has it.
    request.app.state.log.error("store", exc_info=error)
    return _problem(503, "the store cannot be read or written now, so nothing was answered", RETRY_AFTER)


def _problem(status: int, detail: str, retry_after: int | None = None) -> JSONResponse:
    headers = None if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONResponse({"detail": detail}, status, headers=headers)


def _query_words(request: Request) -> list[str]:
    """Return the query parameters of the request's route."""
    routes = request.app.openapi()["paths"].get(request.scope["route"].path_format, {})
    parameters = routes.get(request.method.lower(), {}).get("parameters", [])
    return [each["name"] for each in parameters if each["in"] == "query"]


def validation_message(found: Mapping[str, Any], known: Sequence[str] = ()) -> str:
    """Return pydantic's error for one field as a sentence; for an unknown query parameter, name the nearest known one."""
    location: Sequence[Any] = [each for each in found["loc"] if each not in ("query", "body", "path")]
    if found["type"] == "extra_forbidden":
        return f"{'.'.join(map(str, location))} is not known here{did_you_mean(str(location[-1]), known)}"
    message = found["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return f"{'.'.join(map(str, location))} {message}" if location else message
