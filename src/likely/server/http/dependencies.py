"""FastAPI dependencies: application state, service, and authenticated requester."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path, Request

from likely.server.http.auth import CredentialCache, Principal, TokenBucket, authenticate
from likely.server.http.metrics import Metrics
from likely.server.http.model_registry import LoadedModel
from likely.server.http.schemas import problem_responses
from likely.server.http.service import Service
from likely.server.http.uploads import BODY, Upload, read_uploads
from likely.server.store import Scope


@dataclass(frozen=True)
class AppState:
    """State of an application."""

    service: Service
    metrics: Metrics
    rate_limits: TokenBucket
    login_limits: TokenBucket  # by address
    credentials: CredentialCache


# Coroutines although they await nothing: FastAPI runs plain functions in a thread, which costs more than all the rest.
async def _state(request: Request) -> AppState:
    """Return the application's state."""
    state: AppState = request.app.state.likely
    return state


async def _service(request: Request) -> Service:
    """Return the application's service."""
    return (await _state(request)).service


async def _caller(request: Request) -> Principal:
    """Return the authenticated requester, whatever the scopes of its key."""
    caller = await authenticate((await _state(request)).credentials, request)
    request.state.key = caller.key.id
    return caller


def _needs(scope: Scope) -> Callable[[Principal], Awaitable[Principal]]:
    """Return a dependency that requires a key with the scope."""

    async def authorized(caller: Annotated[Principal, Depends(_caller)]) -> Principal:
        caller.require(scope)
        return caller

    return authorized


async def _uploads(request: Request, caller: Annotated[Principal, Depends(_caller)]) -> list[Upload]:
    """Return the uploaded images, counted against the rate limit of the key."""
    state = await _state(request)
    uploads = await read_uploads(request, state.service.settings)
    state.rate_limits.take(caller.key.id, len(uploads))
    return uploads


ServiceHere = Annotated[Service, Depends(_service)]
ModelPath = Annotated[str, Path(max_length=255)]


async def _model(service: ServiceHere, model: ModelPath) -> LoadedModel:
    """Return the model that the path names."""
    return service.registry[model]


ModelHere = Annotated[LoadedModel, Depends(_model)]
StateHere = Annotated[AppState, Depends(_state)]
Reader = Annotated[Principal, Depends(_needs(Scope.READ))]
Asker = Annotated[Principal, Depends(_needs(Scope.CLASSIFY))]
Labeler = Annotated[Principal, Depends(_needs(Scope.LABEL))]
Admin = Annotated[Principal, Depends(_needs(Scope.ADMIN))]
Uploads = Annotated[list[Upload], Depends(_uploads)]  # after the requester's scope: dependencies run in order
TAKES_UPLOADS: dict[str, Any] = {  # of the route of a request with `Uploads`
    "responses": problem_responses(400, 401, 403, 404, 413, 415, 422, 429, 503),
    "openapi_extra": {"requestBody": BODY},
}
