"""What routes ask for: the service, who calls, and leave to do something."""

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
    """What an application holds."""

    service: Service
    metrics: Metrics
    rate_limits: TokenBucket
    login_limits: TokenBucket  # by address
    credentials: CredentialCache


# Coroutines, though they wait for nothing: what is none is called in a thread of its own, which costs more than the rest.
async def state_of(request: Request) -> AppState:
    """The application's."""
    state: AppState = request.app.state.likely
    return state


async def service_of(request: Request) -> Service:
    """The application's."""
    return (await state_of(request)).service


def needs(scope: Scope) -> Callable[[Request], Principal]:
    """Whoever asks has to have a key for that."""

    async def caller(request: Request) -> Principal:
        found = await authenticate((await state_of(request)).credentials, request)
        request.state.key = found.key.id
        require(found, scope)
        return found

    return caller  # type: ignore[return-value]  # FastAPI awaits it


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client is not None else ""


def find_model(service: Service, id: str | None) -> LoadedModel:
    """A model by its name; an HTTPException of 404 names the nearest."""
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
