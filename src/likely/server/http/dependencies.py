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
async def state_of(request: Request) -> AppState:
    """Return the application's state."""
    state: AppState = request.app.state.likely
    return state


async def service_of(request: Request) -> Service:
    """Return the application's service."""
    return (await state_of(request)).service


def needs(scope: Scope) -> Callable[[Request], Principal]:
    """Return a dependency that requires a key with the scope."""

    async def caller(request: Request) -> Principal:
        found = await authenticate((await state_of(request)).credentials, request)
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


ServiceHere = Annotated[Service, Depends(service_of)]
StateHere = Annotated[AppState, Depends(state_of)]
Reader = Annotated[Principal, Depends(needs(Scope.READ))]
Asker = Annotated[Principal, Depends(needs(Scope.CLASSIFY))]
Labeler = Annotated[Principal, Depends(needs(Scope.LABEL))]
Admin = Annotated[Principal, Depends(needs(Scope.ADMIN))]
