"""FastAPI dependencies: application state, service, model, authorized requester and uploaded images."""

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


StateDep = Annotated[AppState, Depends(_state)]


async def _service(state: StateDep) -> Service:
    """Return the application's service."""
    return state.service


ServiceDep = Annotated[Service, Depends(_service)]
ModelPath = Annotated[str, Path(max_length=255)]


async def _model(service: ServiceDep, model: ModelPath) -> LoadedModel:
    """Return the model that the path names."""
    return service.registry[model]


ModelDep = Annotated[LoadedModel, Depends(_model)]


async def _caller(request: Request, state: StateDep) -> Principal:
    """Return the authenticated requester, whatever the scopes of its key."""
    caller = await authenticate(state.credentials, request)
    request.state.key = caller.key.id
    return caller


_Caller = Annotated[Principal, Depends(_caller)]


def _requires(scope: Scope) -> Callable[[Principal], Awaitable[Principal]]:
    """Return a dependency that requires a key with the scope."""

    async def authorized(caller: _Caller) -> Principal:
        caller.require(scope)
        return caller

    return authorized


ReadAccess = Annotated[Principal, Depends(_requires(Scope.READ))]
ClassifyAccess = Annotated[Principal, Depends(_requires(Scope.CLASSIFY))]
LabelAccess = Annotated[Principal, Depends(_requires(Scope.LABEL))]
AdminAccess = Annotated[Principal, Depends(_requires(Scope.ADMIN))]


async def _uploads(request: Request, state: StateDep, caller: _Caller) -> list[Upload]:
    """Return the uploaded images, counted against the rate limit of the key."""
    uploads = await read_uploads(request, state.service.settings)
    state.rate_limits.take(caller.key.id, len(uploads))
    return uploads


Uploads = Annotated[list[Upload], Depends(_uploads)]  # after an access: dependencies run in the order of parameters
TAKES_UPLOADS: dict[str, Any] = {  # arguments of the route of a request with `Uploads`
    "responses": problem_responses(400, 401, 403, 404, 413, 415, 422, 429, 503),
    "openapi_extra": {"requestBody": BODY},
}
