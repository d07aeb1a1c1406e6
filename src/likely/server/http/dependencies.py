"""FastAPI dependencies: application state, service, and authenticated requester."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from likely.exceptions import UnknownModelError
from likely.server.http.auth import CredentialCache, Principal, TokenBucket, authenticate, require
from likely.server.http.metrics import Metrics
from likely.server.http.model_registry import LoadedModel
from likely.server.http.service import Service
from likely.server.store import Scope


@dataclass(frozen=True)
class AppState:
    """State of an application."""

    service: Service
    metrics: Metrics
    rate_limits: TokenBucket
    login_limits: TokenBucket  # by address
    credentials: CredentialCache


# Coroutines, though they wait for nothing: what is none is called in a thread of its own, which costs more than the rest.
async def _state(request: Request) -> AppState:
    """Return the application's state."""
    state: AppState = request.app.state.likely
    return state


async def _service(request: Request) -> Service:
    """Return the application's service."""
    return (await _state(request)).service


def _needs(scope: Scope) -> Callable[[Request], Principal]:
    """Return a dependency that requires a key with the scope."""

    async def caller(request: Request) -> Principal:
        found = await authenticate((await _state(request)).credentials, request)
        request.state.key = found.key.id
        require(found, scope)
        return found

    return caller  # type: ignore[return-value]  # FastAPI awaits it


def address_of(request: Request) -> str:
    """Return the client's address."""
    return request.client.host if request.client is not None else ""


def find_model(service: Service, id: str | None) -> LoadedModel:
    """Return a model by its name; raise HTTPException 404 that names the nearest one."""
    try:
        return service.registry[id]
    except UnknownModelError as error:
        raise HTTPException(404, str(error)) from None


ServiceHere = Annotated[Service, Depends(_service)]
StateHere = Annotated[AppState, Depends(_state)]
Reader = Annotated[Principal, Depends(_needs(Scope.READ))]
Asker = Annotated[Principal, Depends(_needs(Scope.CLASSIFY))]
Labeler = Annotated[Principal, Depends(_needs(Scope.LABEL))]
Admin = Annotated[Principal, Depends(_needs(Scope.ADMIN))]
